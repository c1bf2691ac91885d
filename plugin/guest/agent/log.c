/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The log: the last 64 KiB in memory, and the console as it comes. */
#define _GNU_SOURCE
#include "agent.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { RING = 64 * 1024, MAX_TEXT = 512 };

static char ring[RING];
static size_t ring_end; /* counts all bytes ever written */
static int console = -1;
static bool uart;

#if defined(__x86_64__) || defined(__i386__)
#include <sys/io.h>
enum { COM1 = 0x3f8, LINE_STATUS = COM1 + 5, SCRATCH = COM1 + 7, EMPTY = 0x20 };

/* The kernel's serial driver costs boot time; the agent needs no more than this of it. */
static bool uart_open(void)
{
	if (ioperm(COM1, 8, 1) < 0)
		return false;
	outb(0x5a, SCRATCH);
	return inb(SCRATCH) == 0x5a;
}

static void uart_write(const char *text, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		for (int wait = 0; wait < 10000 && !(inb(LINE_STATUS) & EMPTY); wait++)
			;
		outb((unsigned char)text[i], COM1);
	}
}
#else
static bool uart_open(void) { return false; }
static void uart_write(const char *text, size_t size) { (void)text; (void)size; }
#endif

/* /dev/console is worth writing to when the kernel has more than a screen behind it. */
static bool console_is_serial(void)
{
	char active[128] = "";
	FILE *file = fopen("/sys/class/tty/console/active", "re");

	if (file && !fgets(active, sizeof active, file))
		active[0] = 0;
	if (file)
		fclose(file);
	return strstr(active, "ttyS") || strstr(active, "ttyAMA") || strstr(active, "hvc");
}

void log_open(void)
{
	if (console_is_serial())
		console = open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	else if ((console = open("/dev/hvc0", O_WRONLY | O_NOCTTY | O_CLOEXEC | O_NONBLOCK)) < 0)
		uart = uart_open();
}

static void emit(const char *line, size_t size)
{
	for (size_t i = 0; i < size; i++)
		ring[ring_end++ % RING] = line[i];
	if (uart)
		uart_write(line, size);
	else if (console >= 0 && write(console, line, size) < 0)
		return; /* a console that nobody empties is no reason to stop */
}

void log_text(const char *name, const char *text, size_t size)
{
	char line[MAX_TEXT + MAX_NAME + 4];
	size_t used = (size_t)snprintf(line, MAX_NAME + 2, "%s: ", name);

	for (size_t i = 0; i < size && i < MAX_TEXT; i++) {
		unsigned char c = (unsigned char)text[i];
		line[used++] = c == '\t' ? ' ' : c < 0x20 || c > 0x7e ? '?' : (char)c;
	}
	line[used++] = '\n';
	emit(line, used);
}

void log_message(const char *format, ...)
{
	char text[MAX_TEXT];
	va_list args;

	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	log_text("agent", text, strlen(text));
}

json_t *log_tail(size_t lines)
{
	size_t oldest = ring_end > RING ? ring_end - RING : 0;
	size_t start = ring_end;
	json_t *list = json_array();
	char line[MAX_TEXT + MAX_NAME + 4];
	size_t used = 0;

	for (lines++; start > oldest; start--)
		if (ring[(start - 1) % RING] == '\n' && !--lines)
			break;
	for (; start < ring_end; start++) {
		char c = ring[start % RING];
		if (c == '\n') {
			json_array_append_new(list, json_stringn(line, used));
			used = 0;
		} else if (used < sizeof line) {
			line[used++] = c;
		}
	}
	return list;
}
