/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Is an emulator ready? It is when one of its threads sits in the kernel waiting for its
 * port: blocked in a read or write of it, under whatever number (nbdkit moves it), or in a
 * poll of any kind.
 * /proc/PID/task/TID/syscall tells (CONFIG_HAVE_ARCH_TRACEHOOK: every Debian kernel). */
#define _GNU_SOURCE
#include "agent.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static ssize_t slurp(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);

	if (fd >= 0)
		close(fd);
	text[got > 0 ? got : 0] = 0;
	return got;
}

static bool is_poll(long number)
{
	static const long polls[] = {
#ifdef SYS_poll
		SYS_poll,
#endif
#ifdef SYS_select
		SYS_select,
#endif
#ifdef SYS_epoll_wait
		SYS_epoll_wait,
#endif
		SYS_ppoll, SYS_pselect6, SYS_epoll_pwait,
	};

	for (size_t i = 0; i < sizeof polls / sizeof polls[0]; i++)
		if (number == polls[i])
			return true;
	return false;
}

static bool is_write(long number)
{
	return number == SYS_write || number == SYS_writev;
}

static bool is_read(long number)
{
	return number == SYS_read || number == SYS_readv;
}

/* Do both links lead to the same file? */
static bool same_link(const char *a, const char *b)
{
	char at[64], bt[64];
	ssize_t size = readlink(a, at, sizeof at);

	return size > 0 && readlink(b, bt, sizeof bt) == size && !memcmp(at, bt, (size_t)size);
}

static char thread_state(const char *task, const char *thread)
{
	char path[600], text[512], state;
	const char *after;

	snprintf(path, sizeof path, "%s/%s/stat", task, thread);
	if (slurp(path, text, sizeof text) <= 0 || !(after = strrchr(text, ')')) || sscanf(after, ") %c", &state) != 1)
		return '?';
	return state;
}

/* Whether a thread runs, or something else than a thread of its session will wake it, as far as can be told. One that
 * was stopped still shows the system call in which that came. */
static bool thread_goes_on(const char *task, const char *thread)
{
	char path[600], text[256], state = thread_state(task, thread);
	unsigned long limit; /* the fourth argument: of a futex, for how long */
	long number;

	if (strchr("TtZX", state))
		return false;
	snprintf(path, sizeof path, "%s/%s/syscall", task, thread);
	if (state != 'S' || slurp(path, text, sizeof text) <= 0 ||
	    sscanf(text, "%ld %*x %*x %*x %lx", &number, &limit) != 2)
		return true;
	return number == SYS_futex ? limit != 0 : number != SYS_wait4 && number != SYS_waitid;
}

static bool thread_waits(const char *task, const char *thread, int port, enum waits how)
{
	char path[600], text[256], own[64];
	long number;
	unsigned long fd;

	if (how == GOES_ON)
		return thread_goes_on(task, thread);
	snprintf(path, sizeof path, "%s/%s/syscall", task, thread);
	/* "running" and "-1 SP PC" (in no system call) do not match or are no number. */
	if (slurp(path, text, sizeof text) <= 0 || sscanf(text, "%ld 0x%lx", &number, &fd) != 2)
		return false;
	if (how == WAITS_AT_ALL && is_poll(number))
		return true;
	if (!is_write(number) && (how == WAITS_TO_WRITE || !is_read(number)))
		return false;
	snprintf(path, sizeof path, "%s/%s/fd/%lu", task, thread, fd);
	snprintf(own, sizeof own, "/proc/self/fd/%d", port);
	return same_link(path, own);
}

static bool in_session(const char *process, pid_t session)
{
	char path[300], text[512];
	const char *after;
	int sid;

	snprintf(path, sizeof path, "/proc/%s/stat", process);
	if (slurp(path, text, sizeof text) <= 0 || !(after = strrchr(text, ')')))
		return false;
	return sscanf(after, ") %*c %*d %*d %d", &sid) == 1 && sid == session;
}

static bool process_waits(const char *process, int port, enum waits how)
{
	char task[300];
	struct dirent *entry;
	bool waits = false;
	DIR *dir;

	snprintf(task, sizeof task, "/proc/%s/task", process);
	dir = opendir(task);
	while (dir && !waits && (entry = readdir(dir)))
		waits = isdigit((unsigned char)entry->d_name[0]) && thread_waits(task, entry->d_name, port, how);
	if (dir)
		closedir(dir);
	return waits;
}

bool session_waits(pid_t session, int port, enum waits how)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	bool waits = false;

	while (dir && !waits && (entry = readdir(dir)))
		waits = isdigit((unsigned char)entry->d_name[0]) && in_session(entry->d_name, session) &&
			process_waits(entry->d_name, port, how);
	if (dir)
		closedir(dir);
	return waits;
}

bool session_hangs(pid_t session)
{
	return !session_waits(session, -1, GOES_ON);
}
