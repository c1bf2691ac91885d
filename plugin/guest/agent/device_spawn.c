/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Starts a program with the port as standard input and output; one without a port has nothing to read, and what it
 * writes is for the log. */
#define _GNU_SOURCE
#include "device.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

static void __attribute__((noreturn)) run(const struct device *device, int errors)
{
	int input = device->portless ? open("/dev/null", O_RDONLY | O_CLOEXEC) : device->fd;
	int output = device->portless ? errors : device->fd;
	sigset_t none;

	setsid(); /* so that whatever it starts can be found, and ended with it */
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	if (dup2(input, 0) < 0 || dup2(output, 1) < 0 || dup2(errors, 2) < 0)
		_exit(126);
	execvpe(device->argv[0], device->argv, device->envp);
	dprintf(2, "cannot run %s: %s\n", device->argv[0], strerror(errno));
	_exit(127);
}

bool device_spawn(struct device *device, unsigned slot)
{
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return false;
	fcntl(ends[0], F_SETFL, O_NONBLOCK);
	pid = fork();
	if (pid == 0)
		run(device, ends[1]);
	close(ends[1]);
	if (pid < 0) {
		log_message("%s: cannot fork: %s", device->name, strerror(errno));
		close(ends[0]);
		return false;
	}
	device->pid = pid;
	device->errors = ends[0];
	device->line_used = 0;
	events_add(device->errors, EVENT_STDERR, slot, EPOLLIN);
	return true;
}
