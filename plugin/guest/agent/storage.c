/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Where a device's data is: on a disk that the host gave, found by serial number, or in memory. */
#define _GNU_SOURCE
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
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

static bool link_backing(const char *serial, const char *target)
{
	char link[MAX_NAME + sizeof BACKING_DIR + 1];

	mkdir(BACKING_DIR, 0755);
	snprintf(link, sizeof link, BACKING_DIR "/%s", serial);
	unlink(link);
	return symlink(target, link) == 0;
}

/* A file system of its own, for others hold no more than half of the memory. */
static void memory_path(const char *serial, char *path, size_t size)
{
	static bool mounted;

	if (!mounted) {
		mkdir(MEMORY_DIR, 0700);
		if (mount("tmpfs", MEMORY_DIR, "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700,size=100%") < 0)
			log_message("cannot mount " MEMORY_DIR ": %s", strerror(errno));
	}
	mounted = true;
	snprintf(path, size, MEMORY_DIR "/%s", serial);
}

/* Content that is there already stays: an emulator that starts anew finds what it has acknowledged. */
static bool memory_ready(const char *serial, int64_t size)
{
	char path[MAX_NAME + sizeof MEMORY_DIR + 1];
	struct stat now;
	bool right;
	int fd;

	memory_path(serial, path, sizeof path);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	right = fd >= 0 && fstat(fd, &now) == 0 && (now.st_size >= size || ftruncate(fd, size) == 0);
	if (fd >= 0)
		close(fd);
	return right && link_backing(serial, path);
}

bool backing_ready(const char *serial, int64_t size)
{
	char disk[300];

	if (size)
		return memory_ready(serial, size);
	load_drivers_once();
	return find_disk(serial, disk, sizeof disk) && link_backing(serial, disk);
}

void backing_forget(const char *serial, int64_t size)
{
	char path[MAX_NAME + sizeof MEMORY_DIR + 1];

	if (!size)
		return;
	memory_path(serial, path, sizeof path);
	unlink(path);
}
