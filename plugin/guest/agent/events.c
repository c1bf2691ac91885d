/* SPDX-License-Identifier: GPL-3.0-or-later */
/* One thread, one loop: descriptors by epoll, children by signalfd, time by its timeout. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <unistd.h>

enum { MAX_WAIT = 60000 };

static int set = -1;

bool events_add(int fd, enum event_kind kind, unsigned index, uint32_t events)
{
	struct epoll_event event = { .events = events, .data.u64 = (uint64_t)kind << 32 | index };

	return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0 || errno == EEXIST;
}

void events_remove(int fd)
{
	epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL);
}

static int watch_children(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGCHLD);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void dispatch(const struct epoll_event *event, int children)
{
	unsigned index = (unsigned)event->data.u64;
	struct signalfd_siginfo info;

	switch ((enum event_kind)(event->data.u64 >> 32)) {
	case EVENT_SIGNAL:
		while (read(children, &info, sizeof info) > 0)
			;
		break; /* every turn of the loop reaps */
	case EVENT_CONTROL:
		control_event();
		break;
	case EVENT_PORT:
		devices_port_event(index);
		break;
	case EVENT_STDERR:
		devices_stderr_event(index);
		break;
	}
}

__attribute__((constructor)) static void create_set(void)
{
	set = epoll_create1(EPOLL_CLOEXEC);
}

void events_run(void)
{
	struct epoll_event events[16];
	int children = watch_children();

	events_add(children, EVENT_SIGNAL, 0, EPOLLIN);
	for (;;) {
		int64_t now = now_ms();
		int64_t control = control_step(now), devices = devices_step(now);
		int64_t due = (control < devices ? control : devices) - now;
		int count;

		if (control_powering_off() && devices_all_gone())
			power_off();
		count = epoll_wait(set, events, 16, due < 1 ? 1 : due > MAX_WAIT ? MAX_WAIT : (int)due);
		for (int i = 0; i < count; i++)
			dispatch(&events[i], children);
		devices_reap();
	}
}
