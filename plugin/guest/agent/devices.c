/* SPDX-License-Identifier: GPL-3.0-or-later */
/* All devices: the table, and what the host may ask of it. */
#define _GNU_SOURCE
#include "device.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

static struct device *table[MAX_DEVICES];

static struct device *find(const char *name)
{
	for (unsigned i = 0; i < MAX_DEVICES; i++)
		if (table[i] && !strcmp(table[i]->name, name))
			return table[i];
	return NULL;
}

static bool insert(json_t *config)
{
	for (unsigned i = 0; i < MAX_DEVICES; i++) {
		if (table[i])
			continue;
		table[i] = malloc(sizeof *table[i]);
		return table[i] && device_init(table[i], config);
	}
	return false;
}

/* Two devices on one port would take each other's bytes. */
static const struct device *other_on_port(json_t *config)
{
	const char *name = json_string_value(json_object_get(config, "name"));
	json_t *given = json_object_get(config, "port");
	const char *port = given ? json_string_value(given) : name;

	for (unsigned i = 0; i < MAX_DEVICES; i++)
		if (port && table[i] && !strcmp(table[i]->port, port) && strcmp(table[i]->name, name))
			return table[i];
	return NULL;
}

bool devices_add(json_t *config, char *error, size_t size)
{
	const struct device *other;
	struct device *device;

	json_t *secrets = json_object_get(config, "secrets");

	if (!device_check(config, error, size))
		return false;
	if ((other = other_on_port(config))) {
		snprintf(error, size, "port %s is taken by device %s", other->port, other->name);
		return false;
	}
	device = find(json_string_value(json_object_get(config, "name")));
	if (device && !device->remove_id && !device->replacement && json_equal(device->config, config))
		return true;
	if (!secrets_keep(secrets, error, size))
		return false;
	if (device) {
		json_decref(device->replacement);
		device->replacement = json_incref(config);
		device_stop(device, now_ms());
		return true;
	}
	if (!insert(config)) {
		snprintf(error, size, "no room for more than %d devices", MAX_DEVICES);
		return false;
	}
	return true;
}

/* The reply comes when the device is gone. False: there is none of that name. */
bool devices_remove(const char *name, json_t *id)
{
	struct device *device = find(name);

	if (!device)
		return false;
	json_decref(device->replacement);
	device->replacement = NULL;
	json_decref(device->remove_id);
	device->remove_id = json_incref(id);
	device_stop(device, now_ms());
	return true;
}

bool devices_restart(const char *name)
{
	struct device *device = find(name);

	if (device)
		device_restart(device, now_ms());
	return device;
}

void devices_stop_all(void)
{
	for (unsigned i = 0; i < MAX_DEVICES; i++)
		if (table[i])
			device_stop(table[i], now_ms());
}

bool devices_all_gone(void)
{
	for (unsigned i = 0; i < MAX_DEVICES; i++)
		if (table[i] && table[i]->pid)
			return false;
	return true;
}

static void forget(unsigned slot)
{
	struct device *device = table[slot];
	json_t *replacement = device->replacement ? json_incref(device->replacement) : NULL;

	if (device->remove_id)
		control_reply(device->remove_id, NULL, NULL);
	if (!replacement) {
		backing_forget(device->backing, device->backing_size);
		secrets_forget(json_object_get(device->config, "secrets"));
	}
	device_free(device);
	table[slot] = NULL;
	if (replacement)
		insert(replacement);
	json_decref(replacement);
}

/* When to come again, in ms of now_ms(). */
int64_t devices_step(int64_t now)
{
	int64_t first = INT64_MAX;

	for (unsigned i = 0; i < MAX_DEVICES; i++) {
		int64_t due;

		if (table[i] && table[i]->phase == PHASE_STOPPED && !control_powering_off())
			forget(i);
		due = table[i] ? device_step(table[i], i, now) : INT64_MAX;
		if (table[i])
			device_changed(table[i], table[i]->peer_seen && !table[i]->hung_up, now);
		first = due < first ? due : first;
	}
	return first;
}

/* PID 1 also inherits what emulators leave behind; those are only reaped. */
void devices_reap(void)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < MAX_DEVICES; i++)
			if (table[i] && table[i]->pid == pid)
				device_exited(table[i], status, now_ms());
}

void devices_port_event(unsigned slot)
{
	if (slot < MAX_DEVICES && table[slot] && table[slot]->fd >= 0)
		device_port_changed(table[slot], slot, now_ms());
}

void devices_stderr_event(unsigned slot)
{
	if (slot < MAX_DEVICES && table[slot] && table[slot]->errors >= 0)
		device_read_errors(table[slot]);
}

json_t *devices_status(void)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < MAX_DEVICES; i++) {
		struct device *device = table[i];
		const char *state = device ? device_state(device) : "";
		bool connected = device && port_connected(device->fd);

		if (device)
			json_array_append_new(list, json_pack("{s:s, s:s, s:i, s:i, s:b, s:b, s:f}",
				"name", device->name, "state", state, "pid", (int)device->pid,
				"restarts", (int)device->restarts, "connected", connected,
				"serving", connected && !strcmp(state, "running"),
				"changed", (double)device_changed(device, connected, now_ms()) / 1000));
	}
	return list;
}
