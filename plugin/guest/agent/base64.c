/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Base64, because libvirt passes a fw_cfg string to QEMU with its quotes turned into XML entities and
 * its commas as they are, so that JSON does not arrive as JSON. */
#include "agent.h"

static int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return c - 'A';
	if (c >= 'a' && c <= 'z')
		return c - 'a' + 26;
	if (c >= '0' && c <= '9')
		return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes in place, skipping white space; the new size, or -1 when it is no base64. */
ssize_t base64_decode(char *text, size_t size)
{
	unsigned bits = 0, count = 0, padding = 0;
	size_t used = 0;

	for (size_t i = 0; i < size; i++) {
		int value = value_of(text[i]);

		if (text[i] == '\n' || text[i] == ' ')
			continue;
		if (text[i] == '=' && count >= 2 && count + padding < 4) {
			padding++;
			continue;
		}
		if (value < 0 || padding)
			return -1;
		bits = bits << 6 | (unsigned)value;
		if (count)
			text[used++] = (char)(bits >> (6 - 2 * count));
		count = (count + 1) % 4;
	}
	return count == 1 || (padding && count + padding != 4) ? -1 : (ssize_t)used;
}
