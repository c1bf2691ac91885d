/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The control port: one JSON request a line, one JSON reply a line. The peer may come and
 * go at any time, and may send anything. */
#define _GNU_SOURCE
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { MAX_REPLY = 512 * 1024, RETRY = 20 };

static int port = -1;
static int64_t retry_at;
static char input[MAX_LINE];
static size_t input_used;
static bool input_too_long;
static char *output; /* what the port did not take yet */
static size_t output_used, output_sent;
static const char *config_problem;
static bool powering_off;

void control_init(const char *problem)
{
	config_problem = problem ? strdup(problem) : NULL;
}

bool control_powering_off(void)
{
	return powering_off;
}

/* What is left of a line that the last peer had half of would be nonsense to the next. Whole
 * lines stay: the bytes of a peer can arrive before the word that it is there, and then the
 * answer that nobody is there to take is the new peer's. One that is not, it knows by its id. */
static void drop_half_line(void)
{
	char *end;

	if (!output_sent || output[output_sent - 1] == '\n')
		return;
	end = memchr(output + output_sent, '\n', output_used - output_sent);
	output_sent = end ? (size_t)(end + 1 - output) : output_used;
	if (output_sent == output_used)
		output_used = output_sent = 0;
}

static void flush_output(void)
{
	while (output_sent < output_used) {
		ssize_t size = write(port, output + output_sent, output_used - output_sent);
		if (size <= 0)
			return;
		output_sent += (size_t)size;
	}
	output_used = output_sent = 0;
}

static void send_line(const json_t *reply)
{
	size_t size = json_dumpb(reply, NULL, 0, JSON_COMPACT);
	char *room;

	if (port < 0 || output_used + size + 1 > MAX_REPLY || !(room = realloc(output, output_used + size + 1)))
		return;
	output = room;
	json_dumpb(reply, output + output_used, size, JSON_COMPACT);
	output[output_used + size] = '\n';
	output_used += size + 1;
	flush_output();
}

void control_reply(json_t *id, const char *error, json_t *extra)
{
	json_t *reply = json_pack("{s:O?, s:b}", "id", id, "ok", !error);

	if (reply && !id)
		json_object_set_new(reply, "id", json_null());
	if (reply && error)
		json_object_set_new(reply, "error", json_string(error));
	if (reply && extra)
		json_object_update(reply, extra);
	if (reply)
		send_line(reply);
	json_decref(reply);
	json_decref(extra);
}

static json_int_t memory_available(void)
{
	char line[128];
	long long kib = 0;
	FILE *file = fopen("/proc/meminfo", "re");

	while (file && fgets(line, sizeof line, file))
		if (sscanf(line, "MemAvailable: %lld", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024;
}

static json_t *machine(void)
{
	struct utsname names;

	return json_string(uname(&names) < 0 ? "" : names.machine);
}

/* What the first processor can do, in the kernel's words: the line "flags" on x86, "Features" on ARM. */
static json_t *cpu_flags(void)
{
	FILE *file = fopen("/proc/cpuinfo", "re");
	json_t *flags = json_array();
	char *line = NULL, *word, *rest;
	size_t room = 0;

	while (file && getline(&line, &room, file) > 0) {
		if (strncmp(line, "flags\t", 6) && strncmp(line, "Features\t", 9))
			continue;
		strtok_r(line, ":", &rest);
		while ((word = strtok_r(NULL, " \n", &rest)))
			json_array_append_new(flags, json_string(word));
		break;
	}
	free(line);
	if (file)
		fclose(file);
	return flags;
}

static void answer_cpu(json_t *id, json_t *request)
{
	(void)request;
	control_reply(id, NULL, json_pack("{s:o, s:o}", "arch", machine(), "flags", cpu_flags()));
}

static void answer_status(json_t *id, json_t *request)
{
	json_t *devices = devices_status(); /* before the uptime is looked at: none of them has changed after it */
	json_t *extra = json_pack("{s:o, s:o, s:f, s:I}", "devices", devices, "arch", machine(),
				  "uptime", (double)now_ms() / 1000, "memoryAvailable", memory_available());

	(void)request;
	if (extra && config_problem)
		json_object_set_new(extra, "configProblem", json_string(config_problem));
	control_reply(id, NULL, extra);
}

static void answer_add(json_t *id, json_t *request)
{
	char error[256];

	control_reply(id, devices_add(json_object_get(request, "device"), error, sizeof error) ? NULL : error, NULL);
}

static void answer_remove(json_t *id, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "name"));

	if (!name)
		control_reply(id, "name: a string expected", NULL);
	else if (!devices_remove(name, id))
		control_reply(id, NULL, NULL); /* gone already is what was asked for */
}

static void answer_restart(json_t *id, json_t *request)
{
	const char *name = json_string_value(json_object_get(request, "name"));

	if (!name)
		control_reply(id, "name: a string expected", NULL);
	else
		control_reply(id, devices_restart(name) ? NULL : "no such device", NULL);
}

static void answer_log(json_t *id, json_t *request)
{
	json_int_t lines = json_integer_value(json_object_get(request, "lines"));

	control_reply(id, NULL, json_pack("{s:o}", "lines", log_tail(lines > 0 && lines < 10000 ? (size_t)lines : 100)));
}

static void answer_poweroff(json_t *id, json_t *request)
{
	(void)request;
	log_message("power off asked for");
	control_reply(id, NULL, NULL);
	powering_off = true;
	devices_stop_all();
}

static const struct {
	const char *op;
	void (*answer)(json_t *id, json_t *request);
} operations[] = {
	{ "status", answer_status }, { "add", answer_add }, { "remove", answer_remove },
	{ "restart", answer_restart }, { "log", answer_log }, { "poweroff", answer_poweroff }, { "cpu", answer_cpu },
};

static void handle_request(json_t *request)
{
	json_t *id = json_object_get(request, "id");
	const char *op = json_string_value(json_object_get(request, "op"));

	if (!json_is_integer(id) || !op) {
		control_reply(NULL, "a request is an object with an integer \"id\" and a string \"op\"", NULL);
		return;
	}
	for (size_t i = 0; i < sizeof operations / sizeof operations[0]; i++)
		if (!strcmp(op, operations[i].op)) {
			operations[i].answer(id, request);
			return;
		}
	control_reply(id, "unknown op; known: status, add, remove, restart, log, poweroff, cpu", NULL);
}

static void handle_line(const char *line, size_t size)
{
	json_error_t error;
	json_t *request;

	if (!size)
		return; /* clients begin with an empty line, to end what another left unfinished */
	request = json_loadb(line, size, JSON_REJECT_DUPLICATES, &error);
	if (request)
		handle_request(request);
	else
		control_reply(NULL, "not JSON", NULL);
	json_decref(request);
}

static void take_byte(char c)
{
	if (c == '\n') {
		if (input_too_long)
			control_reply(NULL, "line too long", NULL);
		else
			handle_line(input, input_used);
		input_used = 0;
		input_too_long = false;
	} else if (input_used < sizeof input) {
		input[input_used++] = c;
	} else {
		input_too_long = true;
	}
}

/* Reads until there is no more, as edge triggering demands, but nothing while replies wait to be
 * taken: a peer that asks and does not listen costs no memory. */
void control_event(void)
{
	char data[4096];
	ssize_t size;

	flush_output();
	/* Half a line of a peer that has left is ended by the empty line that the next begins with. */
	while (!output_used && (size = read(port, data, sizeof data)) > 0)
		for (ssize_t i = 0; i < size; i++)
			take_byte(data[i]);
	if (!port_connected(port))
		drop_half_line();
}

/* When to come again, in ms of now_ms(): until the port is there, soon. */
int64_t control_step(int64_t now)
{
	if (port >= 0)
		return INT64_MAX;
	if (now < retry_at)
		return retry_at;
	port = port_open(CONTROL_PORT, O_RDWR | O_NONBLOCK);
	if (port >= 0)
		events_add(port, EVENT_CONTROL, 0, EPOLLIN | EPOLLOUT | EPOLLET);
	retry_at = now + RETRY;
	return retry_at;
}
