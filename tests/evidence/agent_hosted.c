/* SPDX-License-Identifier: MIT */
/*
 * The agent as a program of the machine that builds it: agent.c and one form, with this file in place of boot code and
 * machine.c. The serial line is standard input and output. A call is not made: it goes as a line to descriptor 3, and what the
 * guest then sees comes back on descriptor 4. Instructions of SNP that a program may not execute are stepped over.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#if defined(FORM_ARM64)
#undef __x86_64__
#define __aarch64__ 1
#include "arm64/machine.h"
const char *const machine_registers[AGENT_REGISTERS] = {
	"x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7", "x8", "x9", "x10", "x11", "x12", "x13", "x14", "x15",
	"x16", "x17", "x18", "x19", "x20", "x21", "x22", "x23", "x24", "x25", "x26", "x27", "x28", "x29", "x30",
};
#else
#include "x86/machine.h"
const char *const machine_registers[AGENT_REGISTERS] = {
	"rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
	"msr_c0010130",
};
#endif

#define SHARED_MAP 0x8000000000ull
#define MAPPED (4ull << 30)

static void fail(const char *what)
{
	(void)!write(2, what, strlen(what));
	_exit(70);
}

int agent_getc(void)
{
	static unsigned char data[65536];
	static ssize_t at, count;

	if (at == count) {
		at = 0;
		count = read(0, data, sizeof data);
		if (count <= 0)
			_exit(0);
	}
	return data[at++];
}

void agent_put(const char *data, size_t size)
{
	while (size > 0) {
		ssize_t n = write(1, data, size);

		if (n <= 0)
			_exit(0);
		data += n;
		size -= (size_t)n;
	}
}

const char *machine_option(const char *name)
{
	(void)name;
	return NULL;
}

void machine_halt(void)
{
	fail("halted\n");
	for (;;)
		;
}

/* A line is: exception or "-", mode, privilege, all registers, and of a GHCB page its bytes. All in hex. */
static char line[20000];

static char *put_hex(char *at, uint64_t value)
{
	return at + snprintf(at, 20, "%llx ", (unsigned long long)value);
}

static uint8_t *page_of(const struct agent_request *request)
{
#if !defined(FORM_ARM64)
	const uint64_t msr = request->regs[GHCB_MSR];

	/* Requests of the MSR protocol have numbers below 0x200 in their low 12 bits; anything else is an address. */
	if (request->instruction == X86_VMGEXIT && (msr % HVABI_PAGE == 0 || msr % HVABI_PAGE >= 0x200) && msr < MAPPED)
		return (uint8_t *)(uintptr_t)(SHARED_MAP + msr);
#endif
	(void)request;
	return NULL;
}

bool machine_execute(struct agent_request *request, const char **fault, char *why, size_t size)
{
	static char word[16];
	uint8_t *page = page_of(request);
	char *at = line, *end;
	size_t used = 0;

	(void)why;
	(void)size;
#if !defined(FORM_ARM64)
	if (request->instruction == X86_TDCALL && request->regs[RAX] == 1) { /* TDG.VP.INFO: 48 bits */
		request->regs[RAX] = 0;
		request->regs[RCX] = 48;
		*fault = NULL;
		return true;
	}
#endif
	at += snprintf(at, 8, "- ");
	at = put_hex(at, request->mode);
	at = put_hex(at, request->cpl);
	for (int i = 0; i < AGENT_REGISTERS; i++)
		at = put_hex(at, request->regs[i]);
	for (int i = 0; page != NULL && i < (int)HVABI_PAGE; i++)
		at += snprintf(at, 4, "%02x", page[i]);
	*at++ = '\n';
	if (write(3, line, (size_t)(at - line)) != at - line)
		fail("nobody takes the call\n");
	do {
		ssize_t n = read(4, line + used, sizeof line - 1 - used);

		if (n <= 0)
			fail("nobody answers the call\n");
		used += (size_t)n;
	} while (line[used - 1] != '\n');
	line[used] = '\0';
	at = strchr(line, ' ');
	*at++ = '\0';
	(void)snprintf(word, sizeof word, "%.15s", line);
	*fault = strcmp(word, "-") == 0 ? NULL : word;
	(void)strtoull(at, &at, 16);
	(void)strtoull(at, &at, 16);
	for (int i = 0; i < AGENT_REGISTERS; i++, at = end)
		request->regs[i] = strtoull(at, &end, 16);
	for (int i = 0; page != NULL && i < (int)HVABI_PAGE; i++)
		page[i] = (uint8_t)(hvabi_hex_digit(at[1 + i * 2], false) << 4 | hvabi_hex_digit(at[2 + i * 2], false));
	return true;
}

#if defined(FORM_ARM64)
bool arm64_ask(struct hvabi *s, unsigned instruction, uint64_t regs[AGENT_REGISTERS])
{
	struct agent_request request = { instruction, 64, 0, { 0 } };
	const char *fault = NULL;
	char why[128];

	(void)s;
	memcpy(request.regs, regs, sizeof request.regs);
	(void)machine_execute(&request, &fault, why, sizeof why);
	memcpy(regs, request.regs, sizeof request.regs);
	return fault == NULL;
}
#else
char x86_vmcall[1], x86_vmmcall[1], x86_vmgexit[1], x86_tdcall[1];
uint64_t x86_pml4[1];
uint8_t x86_start[1], x86_end[1];
static uint64_t msr;

/* The agent's own calls: MSR protocol. To register a GHCB is always granted. */
void x86_call(const char *at, struct x86_frame *frame)
{
	struct agent_request request = { X86_VMGEXIT, 64, 0, { 0 } };
	const char *fault;

	(void)frame;
	if (at != x86_vmgexit)
		fail("a call by the machine that is no VMGEXIT\n");
	if ((msr & 0xfff) == 0x12) {
		msr = msr + 1;
		return;
	}
	request.regs[GHCB_MSR] = msr;
	(void)machine_execute(&request, &fault, NULL, 0);
	msr = request.regs[GHCB_MSR];
}

static void step(int number, siginfo_t *info, void *context)
{
	greg_t *regs = ((ucontext_t *)context)->uc_mcontext.gregs;
	const uint8_t *code = (const uint8_t *)regs[REG_RIP];

	(void)number;
	(void)info;
	if (code[0] == 0x0f && code[1] == 0x30) { /* WRMSR */
		msr = (uint64_t)regs[REG_RDX] << 32 | (uint32_t)regs[REG_RAX];
		regs[REG_RIP] += 2;
	} else if (code[0] == 0x0f && code[1] == 0x32) { /* RDMSR */
		regs[REG_RAX] = (greg_t)(uint32_t)msr;
		regs[REG_RDX] = (greg_t)(msr >> 32);
		regs[REG_RIP] += 2;
	} else if (memcmp(code, "\xf2\x0f\x01\xff", 4) == 0) { /* PVALIDATE */
		regs[REG_RAX] = 0;
		regs[REG_RIP] += 4;
	} else {
		fail("a fault of the agent\n");
	}
}
#endif

int main(void)
{
#if !defined(FORM_ARM64)
	struct sigaction action;

	memset(&action, 0, sizeof action);
	action.sa_sigaction = step;
	action.sa_flags = SA_SIGINFO;
	(void)sigaction(SIGSEGV, &action, NULL);
	(void)sigaction(SIGILL, &action, NULL);
	if (mmap((void *)(uintptr_t)SHARED_MAP, MAPPED, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) == MAP_FAILED)
		fail("no memory\n");
#endif
	agent_main();
}
