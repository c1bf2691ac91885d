/* The thermometer as a ROM (i386), which is all the machine runs: no BIOS, no interrupts, but for the one of the first
 * serial port, which ends the processor's sleep. */
#include <stdint.h>

#include "instrument.h"
#include "uart.h"

#define APIC(offset) (*(volatile uint32_t *)(0xFEE00000 + (offset)))

enum { SPURIOUS = 0xF0, LINT0 = 0x350, ENABLED = 0x1FF, EXTERNAL = 0x700 };
enum { PIC = 0x20, PIC_SLAVE = 0xA0, FIRST = 0x20, SERIAL = 4, INTERRUPT_GATE = 0x8E00, CODE = 8, END = 0x20 };

const char instrument_model[] = "rom";

extern char bss_start[], bss_end[];
void run(void);

static uint32_t gates[FIRST + 8][2];

/* The loop looks at the port; this only ends `hlt`. */
__attribute__((naked)) static void on_serial(void)
{
	__asm__ volatile("push %eax; mov $0x20, %al; out %al, $0x20; pop %eax; iret");
}

static void begin_interrupts(void)
{
	struct __attribute__((packed)) { uint16_t limit; uint32_t base; } table = {sizeof gates - 1, (uint32_t)gates};
	uint32_t handler = (uint32_t)on_serial;

	gates[FIRST + SERIAL][0] = CODE << 16 | (handler & 0xFFFF);
	gates[FIRST + SERIAL][1] = (handler & 0xFFFF0000) | INTERRUPT_GATE;
	__asm__ volatile("lidt %0" : : "m"(table));
	/* 8259A: edge triggered, vectors from FIRST, a slave on line 2; every line but the port's is masked. */
	out(PIC, 0x11);
	out(PIC + 1, FIRST);
	out(PIC + 1, 4);
	out(PIC + 1, 1);
	out(PIC + 1, 0xFF & ~(1 << SERIAL));
	out(PIC_SLAVE + 1, 0xFF);
	/* The processor's own interrupt controller lets the other one through, which a BIOS would have told it. */
	APIC(SPURIOUS) = ENABLED;
	APIC(LINT0) = EXTERNAL;
}

void run(void)
{
	for (char *byte = bss_start; byte < bss_end; byte++)
		*byte = 0;
	begin_interrupts();
	uart_begin(1);
	for (;;) {
		__asm__ volatile("cli");
		while (uart_has_data())
			instrument_receive((char)in(COM1), uart_say);
		/* `sti` takes effect after `hlt` has begun: an interrupt in between is not lost. */
		__asm__ volatile("sti; hlt");
	}
}
