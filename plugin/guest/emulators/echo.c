/* SPDX-License-Identifier: GPL-3.0-or-later */
/* echo: a loop-back plug on standard input and output: what arrives goes back unchanged. */
#define _GNU_SOURCE
#include "port.h"

int main(void)
{
	char data[4096];
	ssize_t size;

	wait_for_peer();
	while ((size = read(0, data, sizeof data)) > 0 || (size < 0 && errno == EINTR))
		if (size > 0 && !write_all(data, (size_t)size))
			break;
	return 0;
}
