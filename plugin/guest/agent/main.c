/* SPDX-License-Identifier: GPL-3.0-or-later */
#define _GNU_SOURCE
#include "agent.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* All devices that can be read are started, whatever is wrong with the others. */
static void start_devices(json_t *config, char *problem, size_t size)
{
	json_t *list = json_object_get(config, "devices"), *device;
	size_t index;
	char error[256];

	if (!json_is_array(list) || json_object_size(config) != 1) {
		snprintf(problem, size, CONFIG_NAME ": an object with only \"devices\", a list, expected");
		return;
	}
	json_array_foreach(list, index, device)
		if (!devices_add(device, error, sizeof error))
			snprintf(problem, size, CONFIG_NAME ": devices[%zu]: %s", index, error);
}

static void read_config(char *problem, size_t problem_size)
{
	size_t size = 0;
	char *text = fwcfg_read(CONFIG_NAME, &size);
	json_error_t error;
	json_t *config;
	ssize_t decoded;

	if (!text)
		return; /* no configuration, no devices: the control port may bring some */
	decoded = size && text[0] != '{' ? base64_decode(text, size) : (ssize_t)size;
	config = json_loadb(text, decoded > 0 ? (size_t)decoded : 0, JSON_REJECT_DUPLICATES, &error);
	if (config)
		start_devices(config, problem, problem_size);
	else
		snprintf(problem, problem_size, CONFIG_NAME ": line %d: %s", error.line, error.text);
	json_decref(config);
	free(text);
}

int main(int count, char **arguments)
{
	char problem[512] = "";

	if (getpid() != 1 && !(count == 2 && !strcmp(arguments[1], "service"))) {
		fprintf(stderr, "this is the init of a device VM; under another init: %s service\n", arguments[0]);
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	/* Left to itself jansson reads /dev/urandom, which takes a second while the kernel still
	 * gathers entropy. Only the host's JSON is hashed, and the host may do as it likes. */
	json_object_seed(1);
	boot_mount();
	log_open();
	boot_load_modules(MODULES_FILE);
	read_config(problem, sizeof problem);
	if (problem[0])
		log_message("%s", problem);
	control_init(problem[0] ? problem : NULL);
	log_message("up after %lld ms", (long long)now_ms());
	events_run();
}
