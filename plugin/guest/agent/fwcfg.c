/* SPDX-License-Identifier: GPL-3.0-or-later */
/* QEMU's fw_cfg. On x86 through its I/O ports, because the kernel's driver finds the
 * device by ACPI and a fast device VM has none; elsewhere through sysfs. */
#define _GNU_SOURCE
#include "agent.h"

#include <endian.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *read_sysfs(const char *name, size_t *size)
{
	char path[256];
	char *data = NULL;
	ssize_t got, used = 0;
	int fd;

	snprintf(path, sizeof path, "/sys/firmware/qemu_fw_cfg/by_name/%s/raw", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || !(data = malloc(MAX_CONFIG)))
		goto out;
	while (used < MAX_CONFIG && (got = read(fd, data + used, (size_t)(MAX_CONFIG - used))) > 0)
		used += got;
	*size = (size_t)used;
out:
	if (fd >= 0)
		close(fd);
	return data;
}

#if defined(__x86_64__) || defined(__i386__)
#include <sys/io.h>

enum { PORT_SELECT = 0x510, PORT_DATA = 0x511, KEY_SIGNATURE = 0, KEY_DIRECTORY = 0x19 };

struct entry {
	uint32_t size;
	uint16_t key;
	uint16_t reserved;
	char name[56];
};

static void read_key(uint16_t key, void *data, size_t size)
{
	outw(key, PORT_SELECT);
	insb(PORT_DATA, data, size);
}

/* Leaves the directory selected behind the entry found. */
static bool find_entry(const char *name, struct entry *found)
{
	uint32_t count;

	read_key(KEY_DIRECTORY, &count, sizeof count);
	count = be32toh(count);
	for (uint32_t i = 0; i < count && i < 1024; i++) {
		insb(PORT_DATA, found, sizeof *found);
		if (!strncmp(found->name, name, sizeof found->name))
			return true;
	}
	return false;
}

static char *read_ports(const char *name, size_t *size)
{
	char signature[4];
	struct entry entry;
	char *data;

	if (ioperm(PORT_SELECT, 2, 1) < 0)
		return NULL;
	read_key(KEY_SIGNATURE, signature, sizeof signature);
	if (memcmp(signature, "QEMU", sizeof signature) || !find_entry(name, &entry))
		return NULL;
	*size = be32toh(entry.size);
	if (*size > MAX_CONFIG) {
		log_message("%s is too long: %zu bytes", name, *size);
		return NULL;
	}
	data = malloc(*size + 1);
	if (data)
		read_key(be16toh(entry.key), data, *size);
	return data;
}
#else
static char *read_ports(const char *name, size_t *size)
{
	(void)name;
	(void)size;
	return NULL;
}
#endif

char *fwcfg_read(const char *name, size_t *size)
{
	char *data = read_ports(name, size);

	return data ? data : read_sysfs(name, size);
}
