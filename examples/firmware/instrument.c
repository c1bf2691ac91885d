/* The instrument: *IDN?, *RST, MEASure:TEMPerature? (as MEAS:TEMP?), SYSTem:ERRor? (as SYST:ERR?).
 * Freestanding C: no library, no initialized data to copy, nothing of the machine. */
#include "instrument.h"

enum { LINE = 64, LOWEST = 215, STEPS = 40 }; /* tenths of a degree Celsius, and up before it falls again */

static char line[LINE];
static unsigned length, too_long, wrong, measured;

static int is(const char *name)
{
	unsigned i = 0;

	while (i < length && name[i] && line[i] == name[i])
		i++;
	return i == length && !name[i];
}

/* A room in the sun: a tenth of a degree up with each measurement, then down again. */
static unsigned temperature(void)
{
	unsigned step = measured++ % (2 * STEPS);

	return LOWEST + (step < STEPS ? step : 2 * STEPS - step);
}

static void say_temperature(void (*say)(const char *text))
{
	unsigned tenths = temperature();
	char text[] = "00.0\n";

	text[0] = (char)('0' + tenths / 100 % 10);
	text[1] = (char)('0' + tenths / 10 % 10);
	text[3] = (char)('0' + tenths % 10);
	say(text);
}

static void obey(void (*say)(const char *text))
{
	if (too_long) {
		wrong = 1;
	} else if (is("*IDN?")) {
		say("devicevm,thermometer,");
		say(instrument_model);
		say(",1\n");
	} else if (is("MEAS:TEMP?")) {
		say_temperature(say);
	} else if (is("SYST:ERR?")) {
		say(wrong ? "-113,\"Undefined header\"\n" : "0,\"No error\"\n");
		wrong = 0;
	} else if (is("*RST")) {
		measured = wrong = 0;
	} else {
		wrong = 1;
	}
}

void instrument_receive(char byte, void (*say)(const char *text))
{
	if (byte == '\n' || byte == '\r') {
		if (length)
			obey(say);
		length = too_long = 0;
	} else if (length < LINE) {
		line[length++] = byte >= 'a' && byte <= 'z' ? (char)(byte - 'a' + 'A') : byte;
	} else {
		too_long = 1;
	}
}
