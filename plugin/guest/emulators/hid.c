/* SPDX-License-Identifier: GPL-3.0-or-later */
/* hid: what a HID gadget (/dev/hidgN on standard input and output) reports to its host.
 *   hid text MILLISECONDS TEXT      TEXT as typed on a keyboard of the United States; boot protocol reports
 *   hid reports MILLISECONDS HEX... these reports, one after the other
 * Once more every so many milliseconds; 0: once only. A text is typed as soon as the host has set the keyboard's lights,
 * which is what hosts do when they take a keyboard into use: what is typed before that is lost. */
#define _GNU_SOURCE
#include "port.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { REPORT = 8, SHIFT = 2, MAX_REPORT = 1024, AGAIN = 100 /* ms: the host has not configured the device */ };

/* Usages of the keyboard page (USB HID Usage Tables, 10): the keys from 0x1e on, plain and with shift. */
static const char plain[] = "1234567890\n\033\b\t -=[]\\\001;'`,./";
static const char shifted[] = "!@#$%^&*()\001\001\001\001\001_+{}|\001:\"~<>?";

/* The key of a character and its modifiers; 0 when there is none. */
static unsigned char key_of(char c, unsigned char *modifiers)
{
	const char *found;

	*modifiers = 0;
	if (c >= 'a' && c <= 'z')
		return (unsigned char)(c - 'a' + 0x04);
	if (c && c != '\001' && (found = strchr(plain, c)))
		return (unsigned char)(found - plain + 0x1e);
	*modifiers = SHIFT;
	if (c >= 'A' && c <= 'Z')
		return (unsigned char)(c - 'A' + 0x04);
	if (c && c != '\001' && (found = strchr(shifted, c)))
		return (unsigned char)(found - shifted + 0x1e);
	return 0;
}

static void pause_ms(long ms)
{
	struct timespec time = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&time, NULL);
}

/* A report is one write; the kernel lets it wait until the host has asked for it. */
static void send_report(const unsigned char *report, size_t size)
{
	while (write(1, report, size) < 0)
		pause_ms(AGAIN);
}

static void type_text(const char *text)
{
	static const unsigned char released[REPORT];
	unsigned char pressed[REPORT] = { 0 };

	for (; *text; text++) {
		if (!(pressed[2] = key_of(*text, &pressed[0]))) {
			fprintf(stderr, "no key for character %d\n", (unsigned char)*text);
			continue;
		}
		send_report(pressed, sizeof pressed);
		send_report(released, sizeof released);
	}
}

static void wait_for_lights(void)
{
	unsigned char lights[8];

	while (read(0, lights, sizeof lights) < 0)
		pause_ms(AGAIN);
}

/* The number of bytes; 0 when the text is no whole number of them, in hexadecimal digits. */
static size_t parse_report(const char *hex, unsigned char *report)
{
	size_t size = strlen(hex) / 2;

	if (strlen(hex) % 2 || size > MAX_REPORT || strspn(hex, "0123456789abcdefABCDEF") != 2 * size)
		return 0;
	for (size_t i = 0; i < size; i++)
		sscanf(hex + 2 * i, "%2hhx", &report[i]);
	return size;
}

static bool send_reports(char **reports)
{
	unsigned char report[MAX_REPORT];

	for (; *reports; reports++) {
		size_t size = parse_report(*reports, report);

		if (!size) {
			fprintf(stderr, "no report: %s\n", *reports);
			return false;
		}
		send_report(report, size);
	}
	return true;
}

int main(int count, char **arguments)
{
	bool text = count == 4 && !strcmp(arguments[1], "text");
	long interval;

	if (!text && (count < 4 || strcmp(arguments[1], "reports"))) {
		fprintf(stderr, "usage: hid text MILLISECONDS TEXT | hid reports MILLISECONDS HEX...\n");
		return 2;
	}
	interval = strtol(arguments[2], NULL, 10);
	if (text)
		wait_for_lights();
	do {
		if (text)
			type_text(arguments[3]);
		else if (!send_reports(arguments + 3))
			return 2;
		pause_ms(interval);
	} while (interval > 0);
	return 0;
}
