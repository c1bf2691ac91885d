/* SPDX-License-Identifier: GPL-3.0-or-later */
/* virtio-serial ports by the names that the host gave them. */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PORTS "/sys/class/virtio-ports"

static bool has_name(const char *entry, const char *name)
{
	char path[300], text[128];
	ssize_t size;
	int fd;

	snprintf(path, sizeof path, PORTS "/%s/name", entry);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	size = read(fd, text, sizeof text - 1);
	close(fd);
	if (size <= 0)
		return false;
	text[size] = 0;
	text[strcspn(text, "\n")] = 0;
	return !strcmp(text, name);
}

/* A descriptor, or -1 with errno: ENOENT while the port is not there (yet). */
int port_open(const char *name, int flags)
{
	DIR *dir = opendir(PORTS);
	struct dirent *entry;
	char path[300] = "";

	if (!dir)
		return -1;
	while (!path[0] && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && has_name(entry->d_name, name))
			snprintf(path, sizeof path, "/dev/%s", entry->d_name);
	closedir(dir);
	if (!path[0]) {
		errno = ENOENT;
		return -1;
	}
	return open(path, flags | O_CLOEXEC);
}

/* The kernel's own notes of the port, in debugfs: reading them disturbs nobody. */
static bool read_notes(int fd, char *text, size_t room)
{
	char link[64], node[64], path[160];
	ssize_t size;
	int notes;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	size = readlink(link, node, sizeof node - 1);
	if (size <= 0)
		return false;
	node[size] = 0;
	snprintf(path, sizeof path, "/sys/kernel/debug/virtio-ports/%s", strrchr(node, '/') ? strrchr(node, '/') + 1 : node);
	notes = open(path, O_RDONLY | O_CLOEXEC);
	if (notes < 0)
		return false;
	size = read(notes, text, room - 1);
	close(notes);
	text[size > 0 ? size : 0] = 0;
	return size > 0;
}

/* The number behind `name: ` in the notes, -1 when there is none. */
static long long noted(const char *text, const char *name)
{
	const char *found = strstr(text, name);

	return found ? strtoll(found + strlen(name), NULL, 10) : -1;
}

long long port_traffic(int fd)
{
	char text[1024];

	if (fd < 0 || !read_notes(fd, text, sizeof text))
		return 0;
	return noted(text, "bytes_sent: ") + noted(text, "bytes_received: ");
}

bool port_connected(int fd)
{
	struct pollfd p = { .fd = fd };
	char text[1024];

	if (fd < 0)
		return false;
	if (read_notes(fd, text, sizeof text))
		return noted(text, "host_connected: ") == 1;
	return poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLERR | POLLNVAL));
}
