/* SPDX-License-Identifier: GPL-3.0-or-later */
/* From a device's JSON to a struct device, or to a sentence that says what is wrong. */
#define _GNU_SOURCE
#include "device.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_word(const json_t *value, size_t max)
{
	const char *text = json_string_value(value);

	if (!text || !text[0] || text[0] == '.' || strlen(text) >= max || strlen(text) != json_string_length(value))
		return false;
	for (; *text; text++)
		if (!isalnum((unsigned char)*text) && !strchr("._-", *text))
			return false;
	return true;
}

static bool is_command(const json_t *value)
{
	size_t count = json_array_size(value);

	for (size_t i = 0; i < count; i++) {
		json_t *item = json_array_get(value, i);
		if (!json_is_string(item) || strlen(json_string_value(item)) != json_string_length(item))
			return false;
	}
	return count > 0 && count < MAX_ARGUMENTS;
}

static bool is_environment(json_t *value)
{
	const char *key;
	json_t *item;

	json_object_foreach(value, key, item)
		if (!key[0] || strchr(key, '=') || !json_is_string(item))
			return false;
	return json_is_object(value) && json_object_size(value) < MAX_ARGUMENTS;
}

static bool is_on_exit(const json_t *value)
{
	const char *text = json_string_value(value);

	return text && (!strcmp(text, "restart") || !strcmp(text, "poweroff"));
}

static const char *check_key(const char *key, json_t *value)
{
	if (!strcmp(key, "name"))
		return is_word(value, MAX_NAME) ? NULL : "a word of letters, digits, '.', '_' and '-' expected";
	if (!strcmp(key, "port"))
		return json_is_null(value) || is_word(value, 128) ? NULL : "a port name, or null, expected";
	if (!strcmp(key, "backing"))
		return is_word(value, MAX_NAME) ? NULL : "a disk serial expected";
	if (!strcmp(key, "backingSize"))
		return json_is_integer(value) && json_integer_value(value) > 0 ? NULL : "a number of bytes expected";
	if (!strcmp(key, "command"))
		return is_command(value) ? NULL : "a list of 1 to 255 strings expected";
	if (!strcmp(key, "onExit"))
		return is_on_exit(value) ? NULL : "\"restart\" or \"poweroff\" expected";
	if (!strcmp(key, "environment"))
		return is_environment(value) ? NULL : "strings by name expected";
	return "unknown key";
}

bool device_check(json_t *config, char *error, size_t size)
{
	static const char *const required[] = { "name", "command" };
	const char *key, *problem;
	json_t *value;

	if (!json_is_object(config)) {
		snprintf(error, size, "a device is an object");
		return false;
	}
	for (size_t i = 0; i < sizeof required / sizeof required[0]; i++)
		if (!json_object_get(config, required[i])) {
			snprintf(error, size, "%s is missing", required[i]);
			return false;
		}
	json_object_foreach(config, key, value) {
		if ((problem = check_key(key, value))) {
			snprintf(error, size, "%.40s: %s", key, problem);
			return false;
		}
	}
	return true;
}

static char **make_argv(json_t *command)
{
	size_t count = json_array_size(command);
	char **argv = calloc(count + 1, sizeof *argv);

	for (size_t i = 0; argv && i < count; i++)
		argv[i] = strdup(json_string_value(json_array_get(command, i)));
	return argv;
}

void device_ready_path(const struct device *device, char *path, size_t size)
{
	snprintf(path, size, READY_DIR "/%s", device->name);
}

static char **make_envp(json_t *environment, const char *ready)
{
	static const char *const base[][2] = {
		{ "PATH", "/usr/sbin:/usr/bin:/sbin:/bin" }, { "HOME", "/root" }, { "TMPDIR", "/run" },
	};
	enum { BASE = sizeof base / sizeof base[0] };
	char **envp = calloc(BASE + json_object_size(environment) + 2, sizeof *envp);
	size_t used = 0;
	const char *key;
	json_t *value;

	if (!envp)
		return NULL;
	json_object_foreach(environment, key, value)
		if (asprintf(&envp[used], "%s=%s", key, json_string_value(value)) >= 0)
			used++;
	for (size_t i = 0; i < BASE; i++)
		if (!json_object_get(environment, base[i][0]) &&
		    asprintf(&envp[used], "%s=%s", base[i][0], base[i][1]) >= 0)
			used++;
	if (ready && asprintf(&envp[used], "READY=%s", ready) >= 0)
		used++;
	envp[used] = NULL;
	return envp;
}

bool device_init(struct device *device, json_t *config)
{
	json_t *port = json_object_get(config, "port");
	const char *backing = json_string_value(json_object_get(config, "backing"));
	const char *on_exit = json_string_value(json_object_get(config, "onExit"));
	char ready[MAX_NAME + 16];

	memset(device, 0, sizeof *device);
	device->fd = device->errors = -1;
	snprintf(device->name, sizeof device->name, "%s", json_string_value(json_object_get(config, "name")));
	device->portless = json_is_null(port);
	if (!device->portless)
		snprintf(device->port, sizeof device->port, "%s", port ? json_string_value(port) : device->name);
	device_ready_path(device, ready, sizeof ready);
	snprintf(device->backing, sizeof device->backing, "%s", backing ? backing : "");
	device->backing_size = json_integer_value(json_object_get(config, "backingSize"));
	device->death_powers_off = on_exit && !strcmp(on_exit, "poweroff");
	device->argv = make_argv(json_object_get(config, "command"));
	device->envp = make_envp(json_object_get(config, "environment"), device->portless ? ready : NULL);
	device->config = json_incref(config);
	return device->argv && device->envp;
}

static void free_strings(char **strings)
{
	for (size_t i = 0; strings && strings[i]; i++)
		free(strings[i]);
	free(strings);
}

void device_free(struct device *device)
{
	free_strings(device->argv);
	free_strings(device->envp);
	json_decref(device->config);
	json_decref(device->replacement);
	json_decref(device->remove_id);
	free(device);
}
