/* A PC's first serial port, a 16550A, by polling. */
#ifndef UART_H
#define UART_H

enum { COM1 = 0x3F8, IER = 1, FCR = 2, LCR = 3, MCR = 4, LSR = 5, LSR_DATA = 1 << 0, LSR_EMPTY = 1 << 5 };

static inline void out(unsigned short port, unsigned char value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline unsigned char in(unsigned short port)
{
	unsigned char value;

	__asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
	return value;
}

/* 115200 baud, eight bits, FIFOs on, empty; with `interrupts`, one for each byte that has arrived. */
static inline void uart_begin(int interrupts)
{
	out(COM1 + LCR, 0x80);
	out(COM1, 1);
	out(COM1 + IER, 0);
	out(COM1 + LCR, 3);
	out(COM1 + FCR, 7);
	out(COM1 + MCR, 0x0B);
	out(COM1 + IER, interrupts ? 1 : 0);
}

static void uart_say(const char *text)
{
	for (; *text; text++) {
		while (!(in(COM1 + LSR) & LSR_EMPTY))
			;
		out(COM1, (unsigned char)*text);
	}
}

static inline int uart_has_data(void)
{
	return in(COM1 + LSR) & LSR_DATA;
}

#endif
