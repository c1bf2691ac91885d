/* A thermometer that answers SCPI queries, one a line. Knows nothing of the machine that it runs on. */
#ifndef INSTRUMENT_H
#define INSTRUMENT_H

/* One byte from the serial port. A line's end (LF, CR or both) makes the instrument act, and `say` is called with
 * what it answers, a line with LF; never for a command. */
void instrument_receive(char byte, void (*say)(const char *text));

/* Each machine's file says what the instrument calls itself. Hidden: there is no dynamic linker to find it. */
extern __attribute__((visibility("hidden"))) const char instrument_model[];

#endif
