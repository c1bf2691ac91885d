/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ring_reader FILE READS: what a reader makes of memory with the content of FILE, in memory of exactly that size. A line
 * for each frame; "none" where there is no ring. */
#include "devicevm_ring.h"

#include <inttypes.h>
#include <stdlib.h>

int main(int count, char **arguments)
{
	size_t size;
	void *mapped = count == 3 ? ring_map(arguments[1], false, &size) : NULL;
	/* Not the mapping: beyond its end are the rest of a page, and no poison. */
	uint64_t *memory = mapped ? malloc(size) : NULL, number;
	struct ring ring;
	int64_t length;

	if (!memory)
		return 1;
	memcpy(memory, mapped, size);
	if (!ring_open(&ring, memory, size)) {
		puts("none");
		free(memory);
		return 0;
	}
	unsigned char *frame = malloc(ring_largest(&ring));
	ring.next = 0;
	for (long reads = strtol(arguments[2], NULL, 10); frame && reads > 0; reads--)
		if ((length = ring_read(&ring, frame, &number)) >= 0)
			printf("%" PRIu64 " %" PRId64 " %08" PRIx32 " %" PRIu64 "\n", number, length,
			       ring_crc(frame, (uint32_t)length), ring.lost);
	free(frame);
	free(memory);
	return 0;
}
