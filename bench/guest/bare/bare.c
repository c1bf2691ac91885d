/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The least init there is: drivers, then one line on the first virtio port. What a device VM's start is measured by. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_modules(void)
{
	char line[512];
	FILE *list = fopen("/etc/devicevm/modules", "r");

	while (list && fgets(line, sizeof line, list)) {
		int fd;

		line[strcspn(line, "\n")] = 0;
		fd = open(line, O_RDONLY | O_CLOEXEC);
		if (fd >= 0)
			syscall(SYS_finit_module, fd, "", 0);
	}
}

int main(void)
{
	int port;

	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	load_modules();
	while ((port = open("/dev/vport0p1", O_RDWR)) < 0)
		usleep(1000);
	/* Blocks until somebody listens at the other end. */
	while (write(port, "up\n", 3) < 0)
		usleep(1000);
	for (;;)
		pause();
}
