/* SPDX-License-Identifier: GPL-3.0-or-later */
/* tpm BACKING: swtpm behind one port, with a state that outlives this program and its machine.
 *
 * The peer is the relay on the host (plugin/module_utils/devicevm/part/tpm.py). Both send frames: a letter, the
 * length in two bytes, big-endian, and the content. One question at a time, each with one answer:
 *   h           (from here alone, when a peer is there) "devicevm-tpm 1"
 *   s MODE      start: 0 as after power was off, 1 as it was when it answered last
 *               -> s RESUMED NUMBER REPLY: whether it is as it was; the number of the command that was answered last
 *   c COMMAND   swtpm's control channel -> c RESULT
 *   d NUMBER COMMAND   a TPM command, with a number of the peer's -> d NUMBER RESPONSE
 *
 * What swtpm keeps in files is in memory here. After each command, and before its response leaves, all of it is written
 * to BACKING: the state that lasts, the state of a TPM that has power, and the response. So whatever dies afterwards,
 * the TPM goes on from there, and no command is done twice or lost. BACKING has two slots that are written in turn: one
 * is whole at any time. */
#define _GNU_SOURCE
#include "port.h"

#include <arpa/inet.h>
#include <endian.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define GREETING "devicevm-tpm 1"
#define MAGIC "devicevm-tpm\n\0\0\1"
#define LASTING "tpm2-00.permall"
#define POWERED "tpm2-00.volatilestate"

enum { GET_CAPABILITY = 1, INIT = 2, STORE_VOLATILE = 10 }; /* swtpm_ioctls(3) */
enum { MAX_FRAME = 8192, MAX_TPM = 4096, TPM_HEAD = 10, SECTOR = 512, MAX_SLOT = 1 << 20 };

struct head {
	char magic[16];
	uint64_t generation;
	uint32_t lasting, powered, number, response; /* lengths of the parts that follow; whose response it is */
	uint32_t crc;				     /* of all before and after it */
} __attribute__((packed));

static struct {
	int fd;
	off_t size, slot_size;
	uint64_t generation;
	unsigned char *data; /* one slot, as it is on the backing */
} backing;

static struct {
	char folder[PATH_MAX];
	int control, data;
	uint32_t number; /* the last command's, 0: none */
	unsigned char response[MAX_TPM];
	size_t response_size;
} tpm;

static void __attribute__((noreturn)) die(const char *what)
{
	perror(what);
	exit(1);
}

static uint32_t crc32(uint32_t crc, const unsigned char *data, size_t size)
{
	crc = ~crc;
	while (size--) {
		crc ^= *data++;
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return ~crc;
}

static uint32_t slot_crc(const unsigned char *slot, size_t size)
{
	uint32_t crc = crc32(0, slot, offsetof(struct head, crc));

	return crc32(crc, slot + sizeof(struct head), size - sizeof(struct head));
}

/* Files of swtpm's. */

static const char *file_path(const char *name)
{
	static char path[PATH_MAX + 32];

	snprintf(path, sizeof path, "%s/%s", tpm.folder, name);
	return path;
}

static void write_file(const char *name, const unsigned char *data, size_t size)
{
	int fd = open(file_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	if (fd < 0 || write(fd, data, size) != (ssize_t)size || close(fd) < 0)
		die(name);
}

/* Of its own for each backing, and without what a program before this one has left in it. */
static void make_folder(const char *device)
{
	const char *place = getenv("TMPDIR"), *name = strrchr(device, '/');

	snprintf(tpm.folder, sizeof tpm.folder, "%s/tpm-%s", place ? place : "/tmp", name ? name + 1 : device);
	if (mkdir(tpm.folder, 0700) < 0 && errno != EEXIST)
		die(tpm.folder);
	unlink(file_path(LASTING));
	unlink(file_path(POWERED));
}

/* Its size; 0 when there is none. */
static size_t read_file(const char *name, unsigned char *data, size_t room)
{
	int fd = open(file_path(name), O_RDONLY | O_CLOEXEC);
	ssize_t size;

	if (fd < 0)
		return 0;
	size = read(fd, data, room);
	if (size < 0 || (size_t)size == room) {
		fprintf(stderr, "tpm: %s does not fit into the backing\n", name);
		exit(1);
	}
	close(fd);
	return (size_t)size;
}

/* The two slots. */

enum slot { BLANK, TORN, WHOLE, FOREIGN };

/* As much as a slot holds. */
static void read_backing(off_t place)
{
	if (pread(backing.fd, backing.data, (size_t)backing.slot_size, place) != backing.slot_size)
		die("tpm: the backing cannot be read");
}

static bool is_zero(void)
{
	return !backing.data[0] && !memcmp(backing.data, backing.data + 1, (size_t)backing.slot_size - 1);
}

static enum slot read_slot(int which)
{
	struct head *head = (struct head *)backing.data;
	uint64_t size;

	read_backing(which * backing.slot_size);
	if (memcmp(head->magic, MAGIC, sizeof head->magic))
		return is_zero() ? BLANK : FOREIGN;
	size = sizeof *head + (uint64_t)head->lasting + head->powered + head->response;
	if (size > (uint64_t)backing.slot_size || head->response > MAX_TPM || slot_crc(backing.data, size) != head->crc)
		return TORN;
	return WHOLE;
}

/* A slot's first writing may be torn anywhere: it is told from somebody's data by the head that was there before. */
static void claim(int which)
{
	struct head *head = (struct head *)backing.data;

	memset(backing.data, 0, SECTOR);
	memcpy(head->magic, MAGIC, sizeof head->magic);
	head->crc = slot_crc(backing.data, sizeof *head);
	if (pwrite(backing.fd, backing.data, SECTOR, which * backing.slot_size) != SECTOR || fdatasync(backing.fd) < 0)
		die("tpm: the backing cannot be written");
}

static void __attribute__((noreturn)) refuse(const char *reason)
{
	fprintf(stderr, "tpm: the backing %s\n", reason);
	exit(1);
}

/* Slots that hold anything else are somebody's data, and so is what begins or ends with it; two torn ones are a TPM that
 * was, and must not become a new one. Generation 0 is nobody's yet. */
static void load(void)
{
	const struct head *head = (struct head *)backing.data;
	enum slot found[2] = { BLANK, BLANK };
	int newest = -1;

	for (int i = 0; i < 2; i++) {
		found[i] = read_slot(i);
		if (found[i] == FOREIGN)
			refuse("holds something else than a TPM's state");
		if (found[i] == WHOLE && (newest < 0 || head->generation > backing.generation)) {
			backing.generation = head->generation;
			newest = i;
		}
	}
	if (found[0] == TORN && found[1] == TORN)
		refuse("has a state that is damaged");
	if (found[0] == BLANK && found[1] == BLANK) {
		read_backing(backing.size - backing.slot_size);
		if (!is_zero())
			refuse("ends with something else than a TPM's state");
	}
	for (int i = 0; i < 2; i++)
		if (found[i] == BLANK)
			claim(i);
	if (!backing.generation)
		return;
	read_slot(newest);
	const unsigned char *next = backing.data + sizeof *head;
	write_file(LASTING, next, head->lasting);
	next += head->lasting;
	if (head->powered)
		write_file(POWERED, next, head->powered);
	next += head->powered;
	tpm.number = head->number;
	tpm.response_size = head->response;
	memcpy(tpm.response, next, head->response);
}

static void save(void)
{
	struct head *head = (struct head *)backing.data;
	unsigned char *next = backing.data + sizeof *head;
	unsigned char *end = backing.data + backing.slot_size - MAX_TPM;
	size_t size, padded;

	memset(head, 0, sizeof *head);
	memcpy(head->magic, MAGIC, sizeof head->magic);
	head->generation = ++backing.generation;
	head->lasting = (uint32_t)read_file(LASTING, next, (size_t)(end - next));
	next += head->lasting;
	head->powered = (uint32_t)read_file(POWERED, next, (size_t)(end - next));
	next += head->powered;
	head->number = tpm.number;
	head->response = (uint32_t)tpm.response_size;
	memcpy(next, tpm.response, tpm.response_size);
	next += tpm.response_size;
	size = (size_t)(next - backing.data);
	head->crc = slot_crc(backing.data, size);
	padded = (size + SECTOR - 1) / SECTOR * SECTOR;
	memset(next, 0, padded - size);
	if (pwrite(backing.fd, backing.data, padded, (off_t)(backing.generation % 2) * backing.slot_size) != (ssize_t)padded ||
	    fdatasync(backing.fd) < 0)
		die("tpm: the backing cannot be written");
}

static void open_backing(const char *path)
{
	backing.fd = open(path, O_RDWR | O_CLOEXEC);
	if (backing.fd < 0 || (backing.size = lseek(backing.fd, 0, SEEK_END)) < 0)
		die(path);
	backing.slot_size = backing.size / 2 / SECTOR * SECTOR;
	if (backing.slot_size > MAX_SLOT)
		backing.slot_size = MAX_SLOT;
	if (backing.slot_size < (off_t)sizeof(struct head) + 2 * MAX_TPM)
		refuse("has too few bytes");
	backing.data = calloc(1, (size_t)backing.slot_size);
	if (!backing.data)
		die("tpm");
}

/* swtpm. */

static void start_swtpm(void)
{
	char state[PATH_MAX + 8], control[64], data[16];
	int controls[2], commands[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, controls) < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, commands) < 0)
		die("tpm: socketpair");
	snprintf(state, sizeof state, "dir=%s", tpm.folder);
	snprintf(control, sizeof control, "type=unixio,clientfd=%d", controls[1]);
	snprintf(data, sizeof data, "%d", commands[1]);
	if (fork() == 0) {
		/* Standard input and output are the peer's. */
		int nowhere = open("/dev/null", O_RDWR);

		close(controls[0]);
		close(commands[0]);
		dup2(nowhere, 0);
		dup2(2, 1);
		execlp("swtpm", "swtpm", "socket", "--tpm2", "--tpmstate", state, "--ctrl", control, "--fd", data, NULL);
		die("tpm: swtpm");
	}
	close(controls[1]);
	close(commands[1]);
	tpm.control = controls[0];
	tpm.data = commands[0];
}

static size_t ask_swtpm(int fd, const void *question, size_t size, unsigned char *answer, size_t room)
{
	ssize_t got;

	if (send(fd, question, size, MSG_NOSIGNAL) != (ssize_t)size || (got = recv(fd, answer, room, 0)) <= 0)
		die("tpm: swtpm does not answer");
	return (size_t)got;
}

static size_t ask_control(const void *question, size_t size, unsigned char *answer)
{
	return ask_swtpm(tpm.control, question, size, answer, MAX_TPM);
}

/* The first word of the answer, which is 0 when it was done. */
static uint32_t control(uint32_t command, const void *rest, size_t size)
{
	unsigned char question[16], answer[MAX_TPM];
	uint32_t result = htonl(command);

	memcpy(question, &result, sizeof result);
	if (size)
		memcpy(question + sizeof result, rest, size);
	if (ask_control(question, sizeof result + size, answer) < sizeof result)
		die("tpm: swtpm");
	memcpy(&result, answer, sizeof result);
	return ntohl(result);
}

/* The state of a TPM that has power goes to a file, and with all the rest to the backing. */
static void keep(void)
{
	control(STORE_VOLATILE, NULL, 0);
	save();
}

static size_t ask_tpm(const unsigned char *command, size_t size, unsigned char *response)
{
	size_t got = ask_swtpm(tpm.data, command, size, response, MAX_TPM);
	uint32_t whole;

	while (got < TPM_HEAD) {
		ssize_t more = recv(tpm.data, response + got, MAX_TPM - got, 0);
		if (more <= 0)
			die("tpm: swtpm");
		got += (size_t)more;
	}
	memcpy(&whole, response + 2, sizeof whole);
	whole = ntohl(whole);
	if (whole > MAX_TPM || got > whole)
		die("tpm: swtpm's response makes no sense");
	while (got < whole) {
		ssize_t more = recv(tpm.data, response + got, whole - got, 0);
		if (more <= 0)
			die("tpm: swtpm");
		got += (size_t)more;
	}
	return got;
}

/* Frames. */

static bool send_frame(char kind, const void *content, size_t size)
{
	/* In one piece: what is sent is whole, or not sent. */
	unsigned char frame[3 + MAX_FRAME] = { (unsigned char)kind, (unsigned char)(size >> 8), (unsigned char)size };

	memcpy(frame + 3, content, size);
	return write_all(frame, 3 + size);
}

static bool answer_start(const unsigned char *content, size_t size)
{
	unsigned char answer[1 + sizeof tpm.number + MAX_TPM] = { 0 };
	uint32_t number = htonl(tpm.number), no_flags = 0;

	if (size != 1)
		return false;
	if (content[0] && access(file_path(POWERED), F_OK) == 0)
		answer[0] = control(INIT, &no_flags, sizeof no_flags) == 0;
	if (!answer[0])
		return send_frame('s', answer, 1);
	memcpy(answer + 1, &number, sizeof number);
	memcpy(answer + 1 + sizeof number, tpm.response, tpm.response_size);
	return send_frame('s', answer, 1 + sizeof number + tpm.response_size);
}

static bool answer_control(const unsigned char *content, size_t size)
{
	unsigned char answer[MAX_TPM];
	uint32_t command;
	size_t got;

	if (size < sizeof command)
		return false;
	memcpy(&command, content, sizeof command);
	command = ntohl(command);
	if (command == INIT) {
		/* Power was off: what the TPM held until then must not come back. */
		unlink(file_path(POWERED));
		tpm.number = 0;
		tpm.response_size = 0;
	}
	got = ask_control(content, size, answer);
	if (command == INIT)
		keep();
	return send_frame('c', answer, got);
}

static bool answer_data(const unsigned char *content, size_t size)
{
	unsigned char answer[sizeof tpm.number + MAX_TPM];
	uint32_t number;

	if (size < sizeof number + TPM_HEAD || size > sizeof number + MAX_TPM)
		return false;
	memcpy(&number, content, sizeof number);
	tpm.response_size = ask_tpm(content + sizeof number, size - sizeof number, tpm.response);
	tpm.number = ntohl(number);
	keep();
	memcpy(answer, &number, sizeof number);
	memcpy(answer + sizeof number, tpm.response, tpm.response_size);
	return send_frame('d', answer, sizeof number + tpm.response_size);
}

static bool answer(char kind, const unsigned char *content, size_t size)
{
	switch (kind) {
	case 's':
		return answer_start(content, size);
	case 'c':
		return answer_control(content, size);
	case 'd':
		return answer_data(content, size);
	}
	fprintf(stderr, "tpm: unknown frame %d\n", kind);
	return false;
}

int main(int argc, char **argv)
{
	unsigned char head[3], content[MAX_FRAME];
	size_t size;

	if (argc != 2) {
		fprintf(stderr, "usage: tpm BACKING\n");
		return 2;
	}
	open_backing(argv[1]);
	make_folder(argv[1]);
	load();
	start_swtpm();
	control(GET_CAPABILITY, NULL, 0); /* it works, before anybody is told so */
	wait_for_peer();
	if (!send_frame('h', GREETING, strlen(GREETING)))
		return 0;
	while (read_all(head, sizeof head)) {
		size = (size_t)(head[1] << 8 | head[2]);
		if (size > sizeof content || !read_all(content, size) || !answer((char)head[0], content, size))
			break;
	}
	return 0;
}
