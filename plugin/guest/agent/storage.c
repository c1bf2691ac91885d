/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Disks that the host gave the device VM to keep data on, found by serial number. */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Compares what a serial file holds after `skip` bytes, without blanks around it. */
static bool file_says(const char *path, size_t skip, const char *wanted)
{
	char data[260];
	char *text = data + skip;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t size = fd < 0 ? -1 : read(fd, data, sizeof data - 1);

	if (fd >= 0)
		close(fd);
	if (size <= (ssize_t)skip)
		return false;
	data[size] = 0;
	text += strspn(text, " ");
	text[strcspn(text, " \n")] = 0;
	return !strcmp(text, wanted);
}

/* SCSI's VPD page 0x80 has a header of four bytes; virtio-blk gives plain text. */
static bool serial_is(const char *disk, const char *wanted)
{
	char path[300];

	snprintf(path, sizeof path, "/sys/block/%s/device/vpd_pg80", disk);
	if (file_says(path, 4, wanted))
		return true;
	snprintf(path, sizeof path, "/sys/block/%s/serial", disk);
	return file_says(path, 0, wanted);
}

static void load_drivers_once(void)
{
	static bool done;

	if (!done)
		boot_load_modules(MODULES_FILE ".storage");
	done = true;
}

static bool find_disk(const char *serial, char *path, size_t size)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	bool found = false;

	while (dir && !found && (entry = readdir(dir)))
		if (entry->d_name[0] != '.' && serial_is(entry->d_name, serial)) {
			snprintf(path, size, "/dev/%s", entry->d_name);
			found = access(path, F_OK) == 0;
		}
	if (dir)
		closedir(dir);
	return found;
}

bool backing_ready(const char *serial)
{
	char disk[300], link[128];

	load_drivers_once();
	if (!find_disk(serial, disk, sizeof disk))
		return false;
	mkdir(BACKING_DIR, 0755);
	snprintf(link, sizeof link, BACKING_DIR "/%s", serial);
	unlink(link);
	return symlink(disk, link) == 0;
}
