/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Mounts, modules, power: the little that an init must do itself. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/reboot.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_BOOTTIME, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void mount_at(const char *type, const char *target, const char *options)
{
	mkdir(target, 0755);
	if (mount(type, target, type, MS_NOSUID, options) < 0 && errno != EBUSY)
		log_message("cannot mount %s: %s", target, strerror(errno));
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		log_message("cannot write %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Under another init it is a service: mounts and modules are that one's affair. */
static bool is_init(void)
{
	return getpid() == 1;
}

void boot_mount(void)
{
	umask(022);
	if (!is_init()) {
		mount_at("debugfs", "/sys/kernel/debug", NULL); /* the notes of the ports */
		return;
	}
	mount_at("devtmpfs", "/dev", NULL);
	mount_at("proc", "/proc", NULL);
	mount_at("sysfs", "/sys", NULL);
	mount_at("debugfs", "/sys/kernel/debug", NULL);
	mount_at("tmpfs", "/run", "mode=0755");
	mount_at("tmpfs", "/tmp", "mode=1777");
	/* Emulators reserve far more address space than they touch; in 128 MB the
	 * kernel's default guess refuses them their threads' stacks. */
	write_file("/proc/sys/vm/overcommit_memory", "1");
	/* A kernel at fault ends, and at once: its clients wait for the next, and one that limps on is noticed by nobody. */
	write_file("/proc/sys/kernel/panic_on_oops", "1");
	write_file("/proc/sys/kernel/panic", "-1");
}

long oom_kills(void)
{
	FILE *file = fopen("/proc/vmstat", "re");
	char line[128];
	long count = -1;

	while (file && count < 0 && fgets(line, sizeof line, file))
		sscanf(line, "oom_kill %ld", &count);
	if (file)
		fclose(file);
	return count;
}

static void load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
		log_message("cannot load %s: %s", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

void boot_load_modules(const char *list)
{
	char line[512];
	FILE *file = is_init() ? fopen(list, "re") : NULL;

	if (!is_init())
		return;
	if (!file) {
		log_message("cannot read %s: %s", list, strerror(errno));
		return;
	}
	while (fgets(line, sizeof line, file)) {
		line[strcspn(line, "\n")] = 0;
		if (line[0])
			load_module(line);
	}
	fclose(file);
}

/* A restart, not a power-off: without ACPI that is how a guest can leave. The
 * domain says <on_reboot>destroy</on_reboot>. */
void power_off(void)
{
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
