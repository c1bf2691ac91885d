/* The thermometer on a TI LM3S6965 (Cortex-M3), on UART 0. Sleeps until a byte arrives.
 * Registers: LM3S6965 data sheet, chapters 5 (system control), 8 (GPIO) and 12 (UART). */
#include <stdint.h>

#include "instrument.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RCGC1 REGISTER(0x400FE104) /* clocks of the peripherals */
#define RCGC2 REGISTER(0x400FE108)
#define GPIOA_AFSEL REGISTER(0x40004420)
#define GPIOA_DEN REGISTER(0x4000451C)
#define UART_DR REGISTER(0x4000C000)
#define UART_FR REGISTER(0x4000C018)
#define UART_IBRD REGISTER(0x4000C024)
#define UART_FBRD REGISTER(0x4000C028)
#define UART_LCRH REGISTER(0x4000C02C)
#define UART_CTL REGISTER(0x4000C030)
#define UART_IM REGISTER(0x4000C038)
#define UART_ICR REGISTER(0x4000C044)
#define NVIC_EN0 REGISTER(0xE000E100)

enum { FR_RXFE = 1 << 4, FR_TXFF = 1 << 5, INT_RX = 1 << 4, INT_RT = 1 << 6, UART0 = 5 };

extern uint32_t bss_start[], bss_end[], stack_top[];
void on_reset(void);

const char instrument_model[] = "lm3s6965";

static void say(const char *text)
{
	for (; *text; text++) {
		while (UART_FR & FR_TXFF)
			;
		UART_DR = (uint8_t)*text;
	}
}

static void on_uart(void)
{
	UART_ICR = INT_RX | INT_RT;
	while (!(UART_FR & FR_RXFE))
		instrument_receive((char)UART_DR, say);
}

void on_reset(void)
{
	for (uint32_t *word = bss_start; word < bss_end; word++)
		*word = 0;
	RCGC1 |= 1;
	RCGC2 |= 1;
	GPIOA_AFSEL |= 3;
	GPIOA_DEN |= 3;
	/* 115200 baud from the 12 MHz oscillator: 12000000 / (16 * 115200) = 6 + 33/64. Eight bits, FIFOs on. */
	UART_CTL = 0;
	UART_IBRD = 6;
	UART_FBRD = 33;
	UART_LCRH = 0x70;
	UART_CTL = 0x301;
	UART_IM = INT_RX | INT_RT;
	NVIC_EN0 = 1 << UART0;
	for (;;)
		__asm__ volatile("wfi");
}

static void on_fault(void)
{
	for (;;)
		__asm__ volatile("wfi");
}

/* What the processor reads at address 0: its stack, and whom to call for each exception. */
__attribute__((section(".vectors"), used)) static const void *const vectors[16 + UART0 + 1] = {
	stack_top, (const void *)on_reset, (const void *)on_fault, (const void *)on_fault, [16 + UART0] = (const void *)on_uart,
};
