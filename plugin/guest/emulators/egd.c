/* SPDX-License-Identifier: GPL-3.0-or-later */
/* egd: random bytes by the Entropy Gathering Daemon's protocol on standard input and output.
 * QEMU's rng-egd sends command 2 only; the others are for other clients (egd.txt, EGD 0.9):
 *   0 -> level in bits, 4 bytes big-endian     1 N -> M, M bytes      2 N -> N bytes
 *   3 BITS(2) N, N bytes -> (mixed in)         4 -> length, process id as text */
#define _GNU_SOURCE
#include "port.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

/* QEMU does not ask again when the answer was lost with an emulator before this one (backends/rng-egd.c), and whoever
 * reads in its guest would wait for ever. It takes any bytes for the answer. So a peer that comes and is silent for SILENCE
 * ms is given as many as it can have asked for at a time; one that had asked for none has them for its next question. */
enum { SILENCE = 1000, LOST = 255 };

enum { LEVEL = 0, READ = 1, READ_BLOCKING = 2, WRITE = 3, PROCESS = 4 };

static bool random_bytes(unsigned char *data, size_t size)
{
	/* At most 255 bytes: once the pool is initialised, never short. */
	return getrandom(data, size, 0) == (ssize_t)size;
}

static bool answer_level(void)
{
	static const unsigned char bits[4] = { 0, 0, 0x10, 0 };

	return write_all(bits, sizeof bits);
}

static bool answer_read(bool with_count)
{
	unsigned char data[1 + 255];
	unsigned char *bytes = data + with_count;

	if (!read_all(data, 1))
		return false;
	size_t count = data[0];
	return random_bytes(bytes, count) && write_all(data, count + with_count);
}

static bool answer_write(void)
{
	unsigned char head[3], data[255];
	int pool;

	if (!read_all(head, sizeof head) || !read_all(data, head[2]))
		return false;
	/* Mixed in, but never credited: who knows where it comes from. */
	pool = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
	if (pool >= 0) {
		if (write(pool, data, head[2]) < 0)
			perror("egd: /dev/urandom");
		close(pool);
	}
	return true;
}

static bool answer_process(void)
{
	char text[1 + 16];
	int size = snprintf(text + 1, sizeof text - 1, "%d", (int)getpid());

	text[0] = (char)size;
	return write_all(text, (size_t)size + 1);
}

static bool answer(unsigned char command)
{
	switch (command) {
	case LEVEL:
		return answer_level();
	case READ:
		return answer_read(true);
	case READ_BLOCKING:
		return answer_read(false);
	case WRITE:
		return answer_write();
	case PROCESS:
		return answer_process();
	}
	fprintf(stderr, "egd: unknown command %u\n", command);
	return false;
}

static bool answer_what_was_lost(void)
{
	struct pollfd port = { .fd = 0, .events = POLLIN };
	unsigned char data[LOST];

	return poll(&port, 1, SILENCE) || (random_bytes(data, sizeof data) && write_all(data, sizeof data));
}

int main(void)
{
	unsigned char command;

	wait_for_peer();
	if (!answer_what_was_lost())
		return 0;
	while (read_all(&command, 1))
		if (!answer(command))
			break;
	return 0;
}
