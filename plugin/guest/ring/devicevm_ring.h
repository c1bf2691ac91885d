/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Frames in shared memory: one writer, any number of readers, none of whom writes (docs/regions.md).
 *
 * Nothing that is read from the memory is trusted: whoever else has it may write anything at any time. Each number is
 * read once and checked, a call looks at RING_TRIES slots at most, and what comes out is whole or does not come. */
#ifndef DEVICEVM_RING_H
#define DEVICEVM_RING_H

#include <endian.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER == __LITTLE_ENDIAN, "numbers in the memory are little endian");

enum { RING_HEADER = 64, RING_SLOT_HEADER = 16, RING_ALIGN = 64, RING_TRIES = 16 };

#define RING_MAGIC UINT64_C(0x31474e49524d5644) /* "DVMRING1" */

/* Of the header: u64 magic, u32 slots, u32 bytes of a slot, u64 frames so far (head).
 * Of a slot: u64 sequence, u32 length, u32 CRC-32 of the frame, the frame. Frame n is in slot n % slots, whose sequence
 * is 2n + 1 while it is written and 2n + 2 from then on. */
struct ring {
	uint64_t *memory;
	uint32_t slots, slot_size; /* as checked: never read again */
	uint64_t next;		   /* the frame to write, or to read */
	uint64_t lost;		   /* frames that a reader came too late for */
};

static inline uint64_t ring_load(const uint64_t *word)
{
	return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void ring_store(uint64_t *word, uint64_t value)
{
	__atomic_store_n(word, value, __ATOMIC_RELEASE);
}

static inline uint32_t ring_crc(const unsigned char *data, uint32_t size)
{
	static const uint32_t table[16] = {
		0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
		0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
	};
	uint32_t crc = ~0u;

	for (uint32_t i = 0; i < size; i++) {
		crc ^= data[i];
		crc = crc >> 4 ^ table[crc & 15];
		crc = crc >> 4 ^ table[crc & 15];
	}
	return ~crc;
}

/* Maps all of a region: a file, or the BAR of a PCI device in sysfs, which is enabled first. NULL with errno. */
static inline void *ring_map(const char *path, bool writable, size_t *size)
{
	const char *slash = strrchr(path, '/');
	char enable[512];
	struct stat found;
	void *memory;
	int fd;

	if (slash && !strcmp(slash, "/resource2")) {
		snprintf(enable, sizeof enable, "%.*s/enable", (int)(slash - path), path);
		if ((fd = open(enable, O_WRONLY | O_CLOEXEC)) >= 0) {
			if (write(fd, "1", 1) < 0)
				perror(enable);
			close(fd);
		}
	}
	if ((fd = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC)) < 0)
		return NULL;
	memory = MAP_FAILED;
	if (fstat(fd, &found) == 0 && found.st_size > 0)
		memory = mmap(NULL, (size_t)found.st_size, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
	close(fd);
	*size = memory == MAP_FAILED ? 0 : (size_t)found.st_size;
	return memory == MAP_FAILED ? NULL : memory;
}

static inline uint64_t *ring_slot(const struct ring *ring, uint64_t number)
{
	return ring->memory + (RING_HEADER + number % ring->slots * ring->slot_size) / 8;
}

static inline uint32_t ring_largest(const struct ring *ring)
{
	return ring->slot_size - RING_SLOT_HEADER;
}

static inline bool ring_fits(struct ring *ring, void *memory, size_t size, uint64_t shape)
{
	*ring = (struct ring){ .memory = memory, .slots = (uint32_t)shape, .slot_size = (uint32_t)(shape >> 32) };
	return ring->slots && ring->slot_size > RING_SLOT_HEADER && ring->slot_size % RING_ALIGN == 0 &&
	       size >= RING_HEADER && (size - RING_HEADER) / ring->slot_size >= ring->slots;
}

/* Memory of `size` bytes as a ring for frames of up to `largest` bytes, for its one writer. A ring of that shape which is
 * there already goes on. */
static inline bool ring_create(struct ring *ring, void *memory, size_t size, uint32_t largest)
{
	uint64_t slot = ((uint64_t)largest + RING_SLOT_HEADER + RING_ALIGN - 1) / RING_ALIGN * RING_ALIGN;
	uint64_t slots = size < RING_HEADER ? 0 : (size - RING_HEADER) / slot, *words = memory;
	uint64_t shape = (slots > UINT32_MAX ? UINT32_MAX : slots) | slot << 32;

	if (!largest || slot > UINT32_MAX || !ring_fits(ring, memory, size, shape))
		return false;
	if (ring_load(&words[0]) != RING_MAGIC || ring_load(&words[1]) != shape) {
		ring_store(&words[0], 0);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		for (uint64_t i = 0; i < ring->slots; i++)
			ring_store(ring_slot(ring, i), 0);
		ring_store(&words[1], shape);
		ring_store(&words[2], 0);
		ring_store(&words[0], RING_MAGIC);
	}
	ring->next = ring_load(&words[2]);
	return true;
}

/* For a reader, from the next frame on; false as long as nobody has made a ring that the memory can hold. */
static inline bool ring_open(struct ring *ring, void *memory, size_t size)
{
	uint64_t *words = memory;

	if (size < RING_HEADER || ring_load(&words[0]) != RING_MAGIC || !ring_fits(ring, memory, size, ring_load(&words[1])))
		return false;
	ring->next = ring_load(&words[2]);
	return true;
}

/* Adds a frame; false for one that is too long. */
static inline bool ring_write(struct ring *ring, const void *frame, uint32_t length)
{
	uint64_t *slot = ring_slot(ring, ring->next), word;
	const unsigned char *from = frame;

	if (length > ring_largest(ring))
		return false;
	__atomic_store_n(slot, 2 * ring->next + 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(slot + 1, length | (uint64_t)ring_crc(from, length) << 32, __ATOMIC_RELAXED);
	for (uint32_t at = 0; at < length; at += 8) {
		word = 0;
		memcpy(&word, from + at, length - at < 8 ? length - at : 8);
		__atomic_store_n(slot + 2 + at / 8, word, __ATOMIC_RELAXED);
	}
	ring_store(slot, 2 * ring->next + 2);
	ring_store(ring->memory + 2, ++ring->next);
	return true;
}

/* Copies frame `number` into `frame`, of at least ring_largest() bytes; its length, or -1 when it is not there (any
 * more, or yet). */
static inline int64_t ring_copy(const struct ring *ring, uint64_t number, void *frame)
{
	const uint64_t *slot = ring_slot(ring, number);
	unsigned char *to = frame;
	uint64_t shape, word;
	uint32_t length;

	if (ring_load(slot) != 2 * number + 2)
		return -1;
	shape = __atomic_load_n(slot + 1, __ATOMIC_RELAXED);
	length = (uint32_t)shape;
	if (length > ring_largest(ring))
		return -1;
	for (uint32_t at = 0; at < length; at += 8) {
		word = __atomic_load_n(slot + 2 + at / 8, __ATOMIC_RELAXED);
		memcpy(to + at, &word, length - at < 8 ? length - at : 8);
	}
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
	if (__atomic_load_n(slot, __ATOMIC_RELAXED) != 2 * number + 2 || ring_crc(to, length) != (uint32_t)(shape >> 32))
		return -1;
	return length;
}

/* The next frame, as ring_copy; -1 when there is none now. `number` is which one it is. */
static inline int64_t ring_read(struct ring *ring, void *frame, uint64_t *number)
{
	uint64_t head = ring_load(ring->memory + 2), behind = head - ring->next;
	int64_t length;

	if (behind > ring->slots) { /* overtaken; or the writer has begun anew, and so does the count */
		behind = head < ring->slots ? head : ring->slots;
		ring->lost += head - behind > ring->next ? head - behind - ring->next : 0;
		ring->next = head - behind;
	}
	for (int tries = 0; tries < RING_TRIES && ring->next != head; tries++) {
		*number = ring->next++;
		if ((length = ring_copy(ring, *number, frame)) >= 0)
			return length;
		ring->lost++;
	}
	return -1;
}

#endif
