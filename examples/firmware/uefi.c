/* The thermometer as a UEFI application (x86_64): the firmware's timer lets the processor sleep between two looks at
 * the first serial port. Names and layouts: UEFI specification 2.10, chapters 4 and 7. */
#include <stddef.h>
#include <stdint.h>

#include "instrument.h"
#include "uart.h"

#define EFI __attribute__((ms_abi))

typedef uint64_t status;
typedef struct { uint32_t a; uint16_t b, c; uint8_t d[8]; } guid;
typedef status EFI unused(void);

/* Only what is called is spelled out. */
struct boot_services {
	char header[24];
	unused *tasks_and_memory[7];
	status (EFI *create_event)(uint32_t type, uint64_t level, void *notify, void *context, void **event);
	status (EFI *set_timer)(void *event, uint32_t type, uint64_t hundreds_of_ns);
	status (EFI *wait_for_event)(size_t count, void **events, size_t *index);
	unused *events_and_images[19];
	status (EFI *set_watchdog_timer)(size_t seconds, uint64_t code, size_t size, void *data);
	unused *connect_controller;
	status (EFI *disconnect_controller)(void *controller, void *driver, void *child);
	unused *protocols[4];
	status (EFI *locate_handle_buffer)(uint32_t by, const guid *protocol, void *key, size_t *count, void ***handles);
};

struct system_table {
	char header[24];
	void *vendor;
	uint64_t revision;
	void *consoles[6];
	void *runtime_services;
	struct boot_services *boot;
};

_Static_assert(offsetof(struct boot_services, create_event) == 80, "UEFI 2.10, 4.4");
_Static_assert(offsetof(struct boot_services, locate_handle_buffer) == 312, "UEFI 2.10, 4.4");
_Static_assert(offsetof(struct system_table, boot) == 96, "UEFI 2.10, 4.3");

enum { BY_PROTOCOL = 2, EVENT_TIMER = 0x80000000u, PERIODIC = 1, TICK = 50000 /* 5 ms */ };

const char instrument_model[] = "uefi";

/* The firmware's terminal driver has its console on every serial port, and takes what arrives there. */
static void take_serial_ports(struct boot_services *boot)
{
	static const guid serial_io = {0xBB25CF6F, 0xF1D4, 0x11D2, {0x9A, 0x0C, 0x00, 0x90, 0x27, 0x3F, 0xC1, 0xFD}};
	size_t count = 0;
	void **handles = NULL;

	if (boot->locate_handle_buffer(BY_PROTOCOL, &serial_io, NULL, &count, &handles))
		return;
	while (count--)
		boot->disconnect_controller(handles[count], NULL, NULL);
}

status EFI efi_main(void *image, struct system_table *system)
{
	struct boot_services *boot = system->boot;
	void *tick = NULL;
	size_t index;
	status failed;

	(void)image;
	/* Five minutes after its start an application would be ended. */
	boot->set_watchdog_timer(0, 0, 0, NULL);
	take_serial_ports(boot);
	uart_begin(0);
	failed = boot->create_event(EVENT_TIMER, 0, NULL, NULL, &tick);
	if (!failed)
		failed = boot->set_timer(tick, PERIODIC, TICK);
	while (!failed) {
		while (uart_has_data())
			instrument_receive((char)in(COM1), uart_say);
		failed = boot->wait_for_event(1, &tick, &index);
	}
	return failed;
}
