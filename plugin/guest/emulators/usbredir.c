/* SPDX-License-Identifier: GPL-3.0-or-later */
/* usbredir NAME|VENDOR:PRODUCT: a USB device of this machine on standard input and output, by the usbredir protocol.
 * NAME is the device's in /sys/bus/usb/devices (1-1); vendor and product are four hexadecimal digits each. One that is
 * not there yet, or is unplugged, is waited for. Ends when its peer hangs up.
 * Debian 12's usbredirect has its peer on a TCP socket, and asks all the time whether it can be written to: it keeps a
 * processor busy. It also takes the first device with the vendor and product of the one that is meant. */
#define _GNU_SOURCE
#include "port.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <usbredirhost.h>

#define DEVICES "/sys/bus/usb/devices"

enum { MAX_POLLED = 64, LOOK = 200 /* ms between two looks for the device */ };

static const char *wanted;

static void log_text(void *unused, int level, const char *text)
{
	(void)unused;
	if (level <= usbredirparser_warning)
		fprintf(stderr, "%s\n", text);
}

/* As the library wants it: 0 for nothing now, -1 for the end. */
static int progress(ssize_t done, bool may_be_none)
{
	if (done < 0)
		return errno == EAGAIN || errno == EINTR ? 0 : -1;
	return done || may_be_none ? (int)done : -1;
}

static int read_port(void *unused, uint8_t *data, int size)
{
	(void)unused;
	return progress(read(0, data, (size_t)size), false);
}

static int write_port(void *unused, uint8_t *data, int size)
{
	(void)unused;
	return progress(write(1, data, (size_t)size), true);
}

/* What an attribute of a device says, without the end of its line; empty when there is none. */
static void attribute(const char *device, const char *name, char *text, size_t size)
{
	char path[600];
	FILE *file;

	text[0] = 0;
	snprintf(path, sizeof path, DEVICES "/%s/%s", device, name);
	if (!(file = fopen(path, "re")))
		return;
	if (!fgets(text, (int)size, file))
		text[0] = 0;
	text[strcspn(text, "\n")] = 0;
	fclose(file);
}

static bool is_wanted(const char *device)
{
	char vendor[8], product[8], id[20];

	attribute(device, "idVendor", vendor, sizeof vendor);
	attribute(device, "idProduct", product, sizeof product);
	snprintf(id, sizeof id, "%s:%s", vendor, product);
	return vendor[0] && (!strcmp(device, wanted) || !strcmp(id, wanted));
}

/* The device's node, open; -1 when it is not there. Looked for in sysfs: libusb learns from udev what is plugged in. */
static int find_device(void)
{
	DIR *dir = opendir(DEVICES);
	struct dirent *entry;
	char bus[8], address[8], path[40];
	int fd = -1;

	while (dir && fd < 0 && (entry = readdir(dir))) {
		if (!is_wanted(entry->d_name))
			continue;
		attribute(entry->d_name, "busnum", bus, sizeof bus);
		attribute(entry->d_name, "devnum", address, sizeof address);
		snprintf(path, sizeof path, "/dev/bus/usb/%03d/%03d", atoi(bus), atoi(address));
		fd = open(path, O_RDWR | O_CLOEXEC);
	}
	if (dir)
		closedir(dir);
	return fd;
}

/* The device as the peer's from now on; false while it is not there. The host closes the handle, and nobody the node. */
static bool plug_in(struct usbredirhost *host, int *node)
{
	libusb_device_handle *device;

	if (*node >= 0)
		close(*node);
	*node = find_device();
	if (*node < 0 || libusb_wrap_sys_device(NULL, *node, &device))
		return false;
	return usbredirhost_set_device(host, device) == usb_redir_success;
}

static nfds_t descriptors(struct pollfd *polls, bool writes)
{
	const struct libusb_pollfd **events = libusb_get_pollfds(NULL);
	nfds_t used = 0;

	polls[used++] = (struct pollfd){ .fd = 0, .events = (short)(POLLIN | (writes ? POLLOUT : 0)) };
	for (size_t i = 0; events && events[i] && used < MAX_POLLED; i++)
		polls[used++] = (struct pollfd){ .fd = events[i]->fd, .events = events[i]->events };
	libusb_free_pollfds(events);
	return used;
}

/* Returns when the peer has hung up. */
static void serve(struct usbredirhost *host)
{
	struct timeval at_once = { 0, 0 };
	struct pollfd polls[MAX_POLLED];
	bool plugged = false;
	int node = -1;

	for (;;) {
		plugged = plugged || plug_in(host, &node);
		/* The timeouts of transfers are descriptors, too (timerfd). */
		nfds_t count = descriptors(polls, usbredirhost_has_data_to_write(host) > 0);
		if (poll(polls, count, plugged ? -1 : LOOK) < 0 && errno != EINTR)
			return;
		if (polls[0].revents & (POLLHUP | POLLERR))
			return;
		libusb_handle_events_timeout_completed(NULL, &at_once, NULL);
		/* Also when there is nothing to read: it tells of a device that was lost while events were handled. */
		switch (usbredirhost_read_guest_data(host)) {
		case usbredirhost_read_io_error:
			return;
		case usbredirhost_read_device_lost:
			plugged = false;
		}
		if (usbredirhost_has_data_to_write(host) > 0 && usbredirhost_write_guest_data(host) < 0)
			return;
	}
}

int main(int count, char **arguments)
{
	struct usbredirhost *host;

	if (count != 2) {
		fprintf(stderr, "usage: usbredir NAME|VENDOR:PRODUCT\n");
		return 2;
	}
	wanted = arguments[1];
	libusb_set_option(NULL, LIBUSB_OPTION_NO_DEVICE_DISCOVERY);
	if (libusb_init(NULL)) {
		fprintf(stderr, "libusb does not start\n");
		return 1;
	}
	/* What is said before somebody listens would be lost, the greeting first of all. */
	wait_for_peer();
	if (fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK) < 0)
		return 1;
	host = usbredirhost_open(NULL, NULL, log_text, read_port, write_port, NULL, "devicevm", usbredirparser_warning, 0);
	if (!host)
		return 1;
	serve(host);
	/* The host is not closed first, which takes a while: the next peer may be there, and greets once only. */
	return 0;
}
