/* SPDX-License-Identifier: MIT */
/* arm64: the call itself, exceptions, and the serial line that the device tree names. */
#include "arm64/machine.h"

const char *const machine_registers[AGENT_REGISTERS] = {
	"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
	"x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
};

static const char *command_line;
static struct arm64_uart uart;

void arm64_stray(uint64_t esr, uint64_t elr, uint64_t far, uint64_t vector) __attribute__((noreturn));
void arm64_stray(uint64_t esr, uint64_t elr, uint64_t far, uint64_t vector)
{
	agent_die("the agent itself took an exception: vector %u, ESR 0x%llx, ELR 0x%llx, FAR 0x%llx", (unsigned)vector,
		  (unsigned long long)esr, (unsigned long long)elr, (unsigned long long)far);
}

void machine_halt(void)
{
	for (;;)
		__asm__ volatile("wfi");
}

/* -- the call ------------------------------------------------------------------------------------------------------ */

static const char *fault_name(uint64_t esr)
{
	switch (esr >> 26 & 0x3f) { /* ESR_EL1.EC */
	case 0x00: return "undef";
	case 0x21:
	case 0x25: return "abort";
	default: return NULL;
	}
}

bool machine_execute(struct agent_request *request, const char **fault, char *why, size_t size)
{
	struct arm64_frame frame;

	/* HVC and SMC do not show the privilege, and at EL0 they are undefined: request->cpl is ignored. */
	*fault = NULL;
	memcpy(frame.regs, request->regs, sizeof frame.regs);
	if (request->instruction == ARM64_SMC)
		arm64_smc(&frame);
	else
		arm64_hvc(&frame);
	memcpy(request->regs, frame.regs, sizeof frame.regs);
	/* An UNDEF has the syndrome 0 but for its bit IL, so a syndrome is never 0. */
	if (frame.esr == 0)
		return true;
	*fault = fault_name(frame.esr);
	if (*fault != NULL)
		return true;
	(void)snprintf(why, size, "the call took an exception, ESR 0x%llx", (unsigned long long)frame.esr);
	return false;
}

bool arm64_ask(struct hvabi *s, unsigned instruction, uint64_t regs[AGENT_REGISTERS])
{
	struct agent_request request = { instruction, 64, 0, { 0 } };
	const char *fault = NULL;
	char why[128] = "";

	memcpy(request.regs, regs, sizeof request.regs);
	if (!machine_execute(&request, &fault, why, sizeof why))
		return hvabi_refuse(s, HVABI_ERROR, "%s", why);
	if (fault != NULL)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: the call takes the exception %s", fault);
	memcpy(regs, request.regs, sizeof request.regs);
	return true;
}

/* -- command line -------------------------------------------------------------------------------------------------- */

const char *machine_option(const char *name)
{
	const size_t size = strlen(name);

	for (const char *p = command_line; p != NULL && *p != '\0'; p++)
		if (strncmp(p, name, size) == 0 && p[size] == '=' && (p == command_line || p[-1] == ' '))
			return p + size + 1;
	return NULL;
}

/* -- serial line: PL011 or 16550 ----------------------------------------------------------------------------------- */

/* Load and store of their own: a hypervisor can emulate no other form of access. */
static uint32_t read32(uint64_t at)
{
	uint32_t value;

	__asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
	return value;
}

static void write32(uint64_t at, uint32_t value)
{
	__asm__ volatile("str %w0, [%1]" : : "r"(value), "r"(at) : "memory");
}

static uint32_t read8(uint64_t at)
{
	uint32_t value;

	__asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(at) : "memory");
	return value;
}

static void write8(uint64_t at, uint32_t value)
{
	__asm__ volatile("strb %w0, [%1]" : : "r"(value), "r"(at) : "memory");
}

#define PL011_FLAGS 0x18
#define PL011_CONTROL 0x30

int agent_getc(void)
{
	if (uart.pl011) {
		while (read32(uart.base + PL011_FLAGS) & 1 << 4)
			;
		return (int)(read32(uart.base) & 0xff);
	}
	while (!(read8(uart.base + (5u << uart.shift)) & 1))
		;
	return (int)read8(uart.base);
}

void agent_put(const char *data, size_t size)
{
	for (size_t i = 0; i < size; i++) {
		if (uart.pl011) {
			while (read32(uart.base + PL011_FLAGS) & 1 << 5)
				;
			write32(uart.base, (uint8_t)data[i]);
		} else {
			while (!(read8(uart.base + (5u << uart.shift)) & 0x20))
				;
			write8(uart.base, (uint8_t)data[i]);
		}
	}
}

void arm64_main(const uint8_t *fdt) __attribute__((noreturn));
void arm64_main(const uint8_t *fdt)
{
	/* Without a serial line there is nobody to tell. */
	if (!fdt_uart(fdt, &uart))
		machine_halt();
	command_line = fdt_command_line(fdt);
	uart.base = form_device(uart.base);
	if (uart.pl011)
		write32(uart.base + PL011_CONTROL, 0x301); /* on, sends, receives; speed and format are the loader's */
	agent_main();
}
