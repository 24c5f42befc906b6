/* SPDX-License-Identifier: MIT */
/* x86-64: segments and exceptions, the call itself, the 16550 serial line. */
#include "x86/machine.h"

const char *const machine_registers[AGENT_REGISTERS] = {
	"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	"msr_c0010130",
};

/* -- segments and exceptions --------------------------------------------------------------------------------------- */

struct gate { uint16_t low, selector; uint8_t stack, type; uint16_t middle; uint32_t high, zero; };
struct __attribute__((packed)) pointer { uint16_t limit; uint64_t base; };
struct __attribute__((packed)) task { uint32_t zero; uint64_t rsp[3], none, ist[7], more; uint16_t none2, io_map; };

static uint64_t gdt[X86_TSS / 8 + 2];
static struct gate idt[X86_RETURN_VECTOR + 1];
static struct task tss;
extern uint8_t x86_fault_stack_top[];

static unsigned selector(unsigned kind, unsigned cpl)
{
	return X86_SEGMENTS + (cpl * 3 + kind) * 8 + cpl;
}

static void set_gate(unsigned vector, unsigned stub, unsigned privilege)
{
	const uint64_t at = (uint64_t)(uintptr_t)x86_stubs + stub * 16u;

	idt[vector] = (struct gate){ (uint16_t)at, X86_BOOT_CODE64, 1, (uint8_t)(0x8e | privilege << 5),
				     (uint16_t)(at >> 16), (uint32_t)(at >> 32), 0 };
}

static void set_segments(void)
{
	const uint64_t base = (uint64_t)(uintptr_t)&tss;
	struct pointer p = { sizeof gdt - 1, (uint64_t)(uintptr_t)gdt };

	gdt[X86_BOOT_CODE64 / 8] = 0x00af9b000000ffffu;
	gdt[X86_BOOT_DATA / 8] = 0x00cf93000000ffffu;
	for (uint64_t cpl = 0; cpl < 4; cpl++) {
		uint64_t *at = &gdt[X86_SEGMENTS / 8 + cpl * 3];

		at[0] = 0x00af9b000000ffffu | cpl << 45; /* code, 64 bits */
		at[1] = 0x00cf9b000000ffffu | cpl << 45; /* code, 32 bits */
		at[2] = 0x00cf93000000ffffu | cpl << 45;
	}
	tss.ist[0] = (uint64_t)(uintptr_t)x86_fault_stack_top;
	tss.io_map = sizeof tss;
	gdt[X86_TSS / 8] = (sizeof tss - 1) | (base & 0xffffff) << 16 | UINT64_C(0x89) << 40 | (base >> 24 & 0xff) << 56;
	gdt[X86_TSS / 8 + 1] = base >> 32;
	__asm__ volatile("lgdt %0" : : "m"(p));
	__asm__ volatile("ltr %w0" : : "r"(X86_TSS));
	for (unsigned vector = 0; vector < 32; vector++)
		set_gate(vector, vector, 0);
	set_gate(X86_RETURN_VECTOR, 32, 3);
	p = (struct pointer){ sizeof idt - 1, (uint64_t)(uintptr_t)idt };
	__asm__ volatile("lidt %0" : : "m"(p));
}

void x86_stray(uint64_t vector, uint64_t rip, uint64_t error);
void x86_stray(uint64_t vector, uint64_t rip, uint64_t error)
{
	agent_die("the agent itself took exception %u at 0x%llx, error code 0x%llx", (unsigned)vector,
		  (unsigned long long)rip, (unsigned long long)error);
}

void machine_halt(void)
{
	for (;;)
		__asm__ volatile("hlt");
}

/* -- the call ------------------------------------------------------------------------------------------------------ */

static const char *fault_name(uint64_t vector)
{
	switch (vector) {
	case 6: return "ud";
	case 13: return "gp";
	case 14: return "pf";
	case 20: return "ve";
	case 29: return "vc";
	default: return NULL;
	}
}

static bool is_amd(void)
{
	static int answer = -1;

	if (answer < 0) {
		const struct x86_leaf leaf = x86_cpuid(0);
		char vendor[12];

		memcpy(vendor, &leaf.ebx, 4);
		memcpy(vendor + 4, &leaf.edx, 4);
		memcpy(vendor + 8, &leaf.ecx, 4);
		answer = memcmp(vendor, "AuthenticAMD", 12) == 0 || memcmp(vendor, "HygonGenuine", 12) == 0;
	}
	return answer == 1;
}

void x86_call(const char *at, struct x86_frame *frame)
{
	frame->rip = (uint64_t)(uintptr_t)at;
	frame->cs = selector(0, 0);
	frame->ss = selector(2, 0);
	frame->rsp = (uint64_t)(uintptr_t)x86_call_stack_top;
	frame->rflags = 2;
	x86_enter(frame);
}

bool machine_execute(struct agent_request *request, const char **fault, char *why, size_t size)
{
	/* The privilege shows in a hypercall only; it is ignored elsewhere, as the protocol has it. */
	const unsigned cpl = request->instruction == X86_HYPERCALL ? request->cpl : 0;
	struct x86_frame frame;
	const char *at;

	switch (request->instruction) {
	case X86_VMGEXIT: at = x86_vmgexit; break;
	case X86_TDCALL: at = x86_tdcall; break;
	default: at = is_amd() ? x86_vmmcall : x86_vmcall; break;
	}
	memset(&frame, 0, sizeof frame);
	memcpy(frame.regs, request->regs, sizeof frame.regs);
	frame.rip = (uint64_t)(uintptr_t)at;
	frame.cs = selector(request->mode == 64 ? 0 : 1, cpl);
	frame.ss = selector(2, cpl);
	frame.rsp = (uint64_t)(uintptr_t)x86_call_stack_top;
	frame.rflags = 2;
	if (request->instruction == X86_VMGEXIT)
		x86_wrmsr(X86_GHCB_MSR, request->regs[GHCB_MSR]);
	x86_enter(&frame);
	if (request->instruction == X86_VMGEXIT)
		request->regs[GHCB_MSR] = x86_rdmsr(X86_GHCB_MSR);
	memcpy(request->regs, frame.regs, sizeof frame.regs);
	*fault = NULL;
	if (frame.vector == X86_RETURN_VECTOR)
		return true;
	*fault = fault_name(frame.vector);
	if (*fault != NULL && frame.rip == (uint64_t)(uintptr_t)at)
		return true;
	(void)snprintf(why, size, "the call took exception %u at 0x%llx, error code 0x%llx", (unsigned)frame.vector,
		       (unsigned long long)frame.rip, (unsigned long long)frame.error);
	return false;
}

/* -- command line -------------------------------------------------------------------------------------------------- */

#define PVH_MAGIC 0x336ec578u /* struct hvm_start_info of Xen's public headers: command line at 24 */

const char *machine_option(const char *name)
{
	const size_t size = strlen(name);
	uint64_t at = 0;

	if (x86_boot_magic == PVH_MAGIC)
		memcpy(&at, (const uint8_t *)(uintptr_t)x86_boot_info + 24, sizeof at);
	for (const char *p = (const char *)(uintptr_t)at; at != 0 && *p != '\0'; p++)
		if (strncmp(p, name, size) == 0 && p[size] == '=' && (p == (const char *)(uintptr_t)at || p[-1] == ' '))
			return p + size + 1;
	return NULL;
}

/* -- serial line: a 16550 ------------------------------------------------------------------------------------------ */

enum { DATA, INTERRUPTS, IDENTITY, LINE, MODEM, STATUS };
#define FIFO 16u
#define TRIGGER 14u

static uint16_t port = 0x3f8;
static bool fifo;
static uint8_t waiting[FIFO];
static size_t waiting_at, waiting_count;

static void serial_init(void)
{
	const char *told = machine_option("serial");
	uint16_t base = 0;

	if (told != NULL && told[0] == '0' && told[1] == 'x') {
		for (told += 2; hvabi_hex_digit(*told, false) >= 0; told++)
			base = (uint16_t)(base << 4 | hvabi_hex_digit(*told, false));
		port = base;
	}
	form_out((uint16_t)(port + LINE), 0x80); /* divisor: 1, 115200 baud */
	form_out((uint16_t)(port + DATA), 1);
	form_out((uint16_t)(port + INTERRUPTS), 0);
	form_out((uint16_t)(port + LINE), 3); /* 8N1 */
	form_out((uint16_t)(port + MODEM), 3);
}

/*
 * To switch the FIFO on empties it, and a runner may have sent its first line before the agent was up. So that waits for
 * the first answer: until the runner has it, it sends nothing.
 */
static void serial_faster(void)
{
	static bool tried;

	if (tried)
		return;
	tried = true;
	form_out((uint16_t)(port + IDENTITY), 0xc1); /* trigger at 14 bytes */
	/* Shown in the identity register only where it is on; nothing is delivered, interrupts are off. */
	form_out((uint16_t)(port + INTERRUPTS), 1);
	fifo = (form_in((uint16_t)(port + IDENTITY)) & 0xc0) == 0xc0;
}

int agent_getc(void)
{
	while (waiting_at == waiting_count) {
		waiting_at = waiting_count = 0;
		if (fifo && (form_in((uint16_t)(port + IDENTITY)) & 0xf) == 4)
			waiting_count = form_in_string((uint16_t)(port + DATA), waiting, TRIGGER);
		else if (form_in((uint16_t)(port + STATUS)) & 1)
			waiting[waiting_count++] = form_in((uint16_t)(port + DATA));
		else
			__asm__ volatile("pause");
	}
	return waiting[waiting_at++];
}

void agent_put(const char *data, size_t size)
{
	if (size > strlen(HVABI_PREFIX) && memcmp(data, HVABI_PREFIX, strlen(HVABI_PREFIX)) == 0)
		serial_faster();
	for (size_t i = 0; i < size; i++) {
		if (i % (fifo ? FIFO : 1) == 0)
			while (!(form_in((uint16_t)(port + STATUS)) & 0x20))
				__asm__ volatile("pause");
		form_out((uint16_t)(port + DATA), (uint8_t)data[i]);
	}
}

void x86_main(void);
void x86_main(void)
{
	set_segments();
	form_init();
	serial_init();
	agent_main();
}
