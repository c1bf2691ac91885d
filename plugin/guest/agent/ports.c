/* SPDX-License-Identifier: GPL-3.0-or-later */
/* virtio-serial ports by the names that the host gave them. */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
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

/* The kernel's own note of the port, in debugfs: reading it disturbs nobody. 1, 0, or -1 for unknown. */
static int noted_as_connected(int fd)
{
	static const char wanted[] = "host_connected: ";
	char link[64], node[64], path[160], text[1024];
	const char *found;
	ssize_t size;
	int note;

	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	size = readlink(link, node, sizeof node - 1);
	if (size <= 0)
		return -1;
	node[size] = 0;
	snprintf(path, sizeof path, "/sys/kernel/debug/virtio-ports/%s", strrchr(node, '/') ? strrchr(node, '/') + 1 : node);
	note = open(path, O_RDONLY | O_CLOEXEC);
	if (note < 0)
		return -1;
	size = read(note, text, sizeof text - 1);
	close(note);
	text[size > 0 ? size : 0] = 0;
	found = strstr(text, wanted);
	return found ? found[sizeof wanted - 1] == '1' : -1;
}

bool port_connected(int fd)
{
	struct pollfd p = { .fd = fd };
	int noted = fd < 0 ? 0 : noted_as_connected(fd);

	if (noted >= 0)
		return noted;
	return poll(&p, 1, 0) >= 0 && !(p.revents & (POLLHUP | POLLERR | POLLNVAL));
}
