/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Standard input and output as one end of a virtio-serial port. */
#ifndef DEVICEVM_PORT_H
#define DEVICEVM_PORT_H

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

/* A virtio-serial port without a peer reads as ended and polls as hung up, at once and for
 * ever; an edge-triggered epoll is what sleeps until somebody connects. Pipes and terminals,
 * where a hang-up is final, are left alone. */
static inline void wait_for_peer(void)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	struct pollfd p = { .fd = 0 };
	struct stat status;
	int set;

	if (fstat(0, &status) < 0 || !S_ISCHR(status.st_mode) || isatty(0) || (set = epoll_create1(EPOLL_CLOEXEC)) < 0)
		return;
	if (epoll_ctl(set, EPOLL_CTL_ADD, 0, &event) == 0)
		while (poll(&p, 1, 0) >= 0 && (p.revents & POLLHUP))
			if (epoll_wait(set, &event, 1, -1) < 0 && errno != EINTR)
				break;
	close(set);
}

static inline bool read_all(void *data, size_t size)
{
	char *next = data;

	while (size) {
		ssize_t got = read(0, next, size);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			return false;
		next += got;
		size -= (size_t)got;
	}
	return true;
}

static inline bool write_all(const void *data, size_t size)
{
	const char *next = data;

	while (size) {
		ssize_t put = write(1, next, size);
		if (put < 0 && errno == EINTR)
			continue;
		if (put <= 0)
			return false;
		next += put;
		size -= (size_t)put;
	}
	return true;
}

#endif
