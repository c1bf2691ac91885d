/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What nobody but the emulators may know: files in memory, from the host by fw_cfg or by the control port. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void secret_path(const char *name, char *path, size_t size)
{
	snprintf(path, size, SECRET_DIR "/%s", name);
}

static bool write_secret(const char *name, const char *data, size_t size)
{
	char path[MAX_NAME + sizeof SECRET_DIR + 1];
	bool right;
	int fd;

	mkdir(SECRET_DIR, 0700);
	secret_path(name, path, sizeof path);
	unlink(path);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
	right = fd >= 0 && write(fd, data, size) == (ssize_t)size;
	if (fd >= 0)
		close(fd);
	return right;
}

/* The bytes of a secret, for the caller to free; NULL when there are none, or more than MAX_SECRET. */
static char *read_secret(const char *name, json_t *value, size_t *size)
{
	char item[MAX_NAME + sizeof SECRET_NAME];
	char *data;
	ssize_t used;

	if (json_is_null(value)) {
		snprintf(item, sizeof item, SECRET_NAME "%s", name);
		data = fwcfg_read(item, size);
	} else if ((data = strdup(json_string_value(value)))) {
		used = base64_decode(data, strlen(data));
		*size = used > 0 ? (size_t)used : 0;
	}
	if (data && (*size == 0 || *size > MAX_SECRET)) {
		free(data);
		data = NULL;
	}
	return data;
}

bool secrets_keep(json_t *secrets, char *error, size_t size)
{
	const char *name;
	json_t *value;

	json_object_foreach(secrets, name, value) {
		size_t bytes = 0;
		char *data = read_secret(name, value, &bytes);
		bool kept = data && write_secret(name, data, bytes);

		if (data)
			explicit_bzero(data, bytes);
		free(data);
		if (!kept) {
			snprintf(error, size, "secret %.32s: %s", name, data ? strerror(errno) : "none, or more than 4096 bytes");
			return false;
		}
	}
	return true;
}

void secrets_forget(json_t *secrets)
{
	char path[MAX_NAME + sizeof SECRET_DIR + 1];
	const char *name;
	json_t *value;

	json_object_foreach(secrets, name, value) {
		secret_path(name, path, sizeof path);
		unlink(path);
	}
}
