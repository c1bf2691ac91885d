/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Programs at both ends of a ring in shared memory.
 *
 * ring samples PATH RATE FRAME: the emulation: sound, 16 bits a sample, RATE samples a second, FRAME bytes a frame.
 * ring member PATH: stands for a member in its device VM; ready when the ring is there.
 * ring follow PATH [COUNT]: a line for each new frame: its number, length and CRC-32.
 *
 * PATH is a region's file, or its resource2 in /sys/bus/pci/devices. */
#define _GNU_SOURCE
#include "devicevm_ring.h"

#include <inttypes.h>
#include <stdlib.h>
#include <time.h>

enum { LARGEST = 1 << 20, LOOK = 1000000 /* ns */ };

static void doze(long ns)
{
	nanosleep(&(struct timespec){ ns / 1000000000, ns % 1000000000 }, NULL);
}

static void *mapped(const char *path, bool writable, size_t *size)
{
	void *memory = ring_map(path, writable, size);

	if (!memory) {
		perror(path);
		exit(1);
	}
	return memory;
}

static void say_ready(void)
{
	const char *path = getenv("READY");
	int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;

	if (fd >= 0)
		close(fd);
}

/* A rising tone whose samples tell where they are: number n has the value n * (n >> 9), cut to 16 bits. */
static void fill(uint16_t *samples, uint32_t count, uint64_t first)
{
	for (uint64_t n = first; n < first + count; n++)
		samples[n - first] = (uint16_t)(n * (n >> 9));
}

static int samples(const char *path, long rate, long frame)
{
	static uint16_t buffer[LARGEST / 2];
	size_t size;
	void *memory = mapped(path, true, &size);
	struct timespec due;
	struct ring ring;
	uint32_t count = (uint32_t)frame / 2;
	int64_t pause = INT64_C(1000000000) * count / rate;

	if (!ring_create(&ring, memory, size, (uint32_t)frame)) {
		fprintf(stderr, "a frame of %ld bytes does not fit into %zu bytes\n", frame, size);
		return 1;
	}
	say_ready();
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (;;) {
		fill(buffer, count, ring.next * count);
		ring_write(&ring, buffer, count * 2);
		due.tv_nsec += pause % 1000000000;
		due.tv_sec += pause / 1000000000 + due.tv_nsec / 1000000000;
		due.tv_nsec %= 1000000000;
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, NULL);
	}
}

static struct ring opened(const char *path)
{
	size_t size;
	void *memory = mapped(path, false, &size);
	struct ring ring;

	while (!ring_open(&ring, memory, size))
		doze(LOOK * 10);
	return ring;
}

static void member(const char *path)
{
	opened(path);
	say_ready();
	for (;;)
		pause();
}

static int follow(const char *path, unsigned long count)
{
	struct ring ring = opened(path);
	unsigned char *frame = malloc(ring_largest(&ring));
	uint64_t number;
	int64_t length;

	for (unsigned long seen = 0; frame && (!count || seen < count);) {
		if ((length = ring_read(&ring, frame, &number)) < 0) {
			doze(LOOK);
			continue;
		}
		printf("frame %" PRIu64 ": %" PRId64 " bytes, crc32 %08" PRIx32 "\n", number, length,
		       ring_crc(frame, (uint32_t)length));
		fflush(stdout);
		seen++;
	}
	if (!frame)
		return 1;
	free(frame);
	return 0;
}

static long number_in(const char *text, long most)
{
	char *end;
	long value = strtol(text, &end, 10);

	if (*end || value < 1 || value > most) {
		fprintf(stderr, "%s: a number from 1 to %ld expected\n", text, most);
		exit(2);
	}
	return value;
}

int main(int count, char **arguments)
{
	const char *what = count > 2 ? arguments[1] : "";

	if (!strcmp(what, "samples") && count == 5)
		return samples(arguments[2], number_in(arguments[3], 1000000), number_in(arguments[4], LARGEST) / 2 * 2);
	if (!strcmp(what, "member") && count == 3)
		member(arguments[2]);
	if (!strcmp(what, "follow") && count < 5)
		return follow(arguments[2], count == 4 ? (unsigned long)number_in(arguments[3], 1000000000) : 0);
	fprintf(stderr, "usage: %s samples PATH RATE FRAME | member PATH | follow PATH [COUNT]\n", arguments[0]);
	return 2;
}
