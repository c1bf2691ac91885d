/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nmea: a GPS receiver on standard input and output: GPRMC and GPGGA sentences (NMEA 0183) at an
 * interval, with the guest's clock and one fixed position.
 *   nmea [-i MILLISECONDS] [-p LATITUDE,LONGITUDE[,METRES]]
 * A line `$GPGPQ,RMC` or `$GPGPQ,GGA` (the standard's query) is answered at once; so is
 * `$PMTK605` (firmware release, as MediaTek's receivers do). Ends when the peer hangs up. */
#define _GNU_SOURCE
#include "port.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double latitude = 48.858370, longitude = 2.294481, altitude = 35.0;
static long interval = 1000; /* ms */

static bool send_sentence(const char *body)
{
	char line[128];
	unsigned char sum = 0;

	for (const char *c = body; *c; c++)
		sum ^= (unsigned char)*c;
	int size = snprintf(line, sizeof line, "$%s*%02X\r\n", body, sum);
	return size < (int)sizeof line && write_all(line, (size_t)size);
}

/* 48.85837 -> "4851.5022,N": whole degrees, then minutes. */
static void format_angle(char *text, size_t size, double angle, int width, const char *letters)
{
	long units = lround(fabs(angle) * 60 * 10000); /* 1/10000 minute, so that 59.99999 rounds up to a degree */

	snprintf(text, size, "%0*ld%02ld.%04ld,%c", width, units / 600000, units / 10000 % 60, units % 10000,
		 letters[angle < 0]);
}

static bool send_position(const char *kind)
{
	char body[100], place[40], date[16];
	struct timespec now;
	struct tm utc;
	int ms;

	clock_gettime(CLOCK_REALTIME, &now);
	gmtime_r(&now.tv_sec, &utc);
	ms = (int)(now.tv_nsec / 1000000);
	format_angle(place, sizeof place, latitude, 2, "NS");
	strcat(place, ",");
	format_angle(place + strlen(place), sizeof place - strlen(place), longitude, 3, "EW");
	snprintf(date, sizeof date, "%02u%02u%02u", (unsigned)utc.tm_mday % 100, (unsigned)(utc.tm_mon + 1) % 100,
		 (unsigned)utc.tm_year % 100);
	if (!strcmp(kind, "RMC"))
		snprintf(body, sizeof body, "GPRMC,%02d%02d%02d.%03d,A,%s,0.00,0.00,%s,,,A", utc.tm_hour, utc.tm_min,
			 utc.tm_sec, ms, place, date);
	else
		snprintf(body, sizeof body, "GPGGA,%02d%02d%02d.%03d,%s,1,08,0.9,%.1f,M,0.0,M,,", utc.tm_hour,
			 utc.tm_min, utc.tm_sec, ms, place, altitude);
	return send_sentence(body);
}

static bool answer(const char *line)
{
	if (!strncmp(line, "$GPGPQ,RMC", 10))
		return send_position("RMC");
	if (!strncmp(line, "$GPGPQ,GGA", 10))
		return send_position("GGA");
	if (!strncmp(line, "$PMTK605", 8))
		return send_sentence("PMTK705,devicevm,1");
	return true; /* receivers ignore what they do not know */
}

/* Takes what has arrived; false when the peer is gone. */
static bool take_input(void)
{
	static char line[128];
	static size_t used;
	char data[128];
	ssize_t size = read(0, data, sizeof data);

	if (size < 0)
		return errno == EINTR;
	for (ssize_t i = 0; i < size; i++) {
		if (data[i] != '\n' && data[i] != '\r') {
			if (used < sizeof line - 1)
				line[used++] = data[i];
			continue;
		}
		line[used] = 0;
		used = 0;
		if (!answer(line))
			return false;
	}
	return size > 0;
}

static int64_t monotonic(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool parse_options(int count, char **arguments)
{
	int option;
	char *end;

	while ((option = getopt(count, arguments, "i:p:")) != -1) {
		if (option == 'i') {
			interval = strtol(optarg, &end, 10);
			if (*end || interval < 10 || interval > 3600000)
				return false;
		} else if (option == 'p') {
			if (sscanf(optarg, "%lf,%lf,%lf", &latitude, &longitude, &altitude) < 2 ||
			    !(fabs(latitude) <= 90) || !(fabs(longitude) <= 180) || !(fabs(altitude) < 100000))
				return false;
		} else {
			return false;
		}
	}
	return optind == count;
}

int main(int count, char **arguments)
{
	int64_t next;

	if (!parse_options(count, arguments)) {
		fprintf(stderr, "usage: nmea [-i MILLISECONDS] [-p LATITUDE,LONGITUDE[,METRES]]\n");
		return 2;
	}
	wait_for_peer();
	for (next = monotonic();;) {
		struct pollfd p = { .fd = 0, .events = POLLIN };
		int64_t left = next - monotonic();

		if (left <= 0) {
			if (!send_position("RMC") || !send_position("GGA"))
				return 0;
			next += interval;
			if (next < monotonic()) /* nobody read for a while: no burst afterwards */
				next = monotonic() + interval;
			continue;
		}
		if (poll(&p, 1, (int)left) > 0) {
			if (!(p.revents & POLLIN) || !take_input())
				return 0;
		}
	}
}
