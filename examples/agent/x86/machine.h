/* SPDX-License-Identifier: MIT */
/* x86-64: what boot.S, machine.c and the forms share. */
#ifndef AGENT_X86_H
#define AGENT_X86_H

#ifndef __ASSEMBLER__
#include "agent.h"

/* Order of machine_registers[]; boot.S knows it as well. */
enum x86_register { RAX, RBX, RCX, RDX, RSI, RDI, RBP, R8, R9, R10, R11, R12, R13, R14, R15, GHCB_MSR };

/* boot.S knows the offsets. */
struct x86_frame {
	uint64_t regs[15];
	uint64_t rip, cs, rflags, rsp, ss;
	uint64_t vector, error;
};

/* Goes to frame->rip with all these registers, and comes back with the next exception or INT 0x80. */
void x86_enter(struct x86_frame *frame);
/* The same for an instruction in 64-bit mode at CPL 0, with the stack and the flags that a call has. */
void x86_call(const char *at, struct x86_frame *frame);
extern char x86_vmcall[], x86_vmmcall[], x86_vmgexit[], x86_tdcall[], x86_stubs[];
extern uint64_t x86_gdt[], x86_pml4[];
extern uint8_t x86_tss[], x86_stack_top[], x86_call_stack_top[], x86_start[], x86_end[];
extern uint32_t x86_boot_magic, x86_boot_info;

#define X86_GHCB_MSR 0xc0010130u /* AMD APM volume 2, section 15.35 */

enum x86_instruction { X86_HYPERCALL, X86_VMGEXIT, X86_TDCALL };

struct x86_leaf { uint32_t eax, ebx, ecx, edx; };

static inline struct x86_leaf x86_cpuid(uint32_t leaf)
{
	struct x86_leaf out;

	__asm__ volatile("cpuid" : "=a"(out.eax), "=b"(out.ebx), "=c"(out.ecx), "=d"(out.edx) : "a"(leaf), "c"(0));
	return out;
}

static inline void x86_wrmsr(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)value), "d"((uint32_t)(value >> 32)) : "memory");
}

static inline uint64_t x86_rdmsr(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return (uint64_t)high << 32 | low;
}

/* Of the form: one byte from and to an I/O port, and whether INS may be used. */
uint8_t form_in(uint16_t port);
void form_out(uint16_t port, uint8_t value);
size_t form_in_string(uint16_t port, uint8_t *out, size_t count);
/* Of the form: whatever must be done before the first byte of the serial line. */
void form_init(void);
#endif

#define X86_NULL 0x00
#define X86_BOOT_CODE64 0x08
#define X86_BOOT_DATA 0x10
/* From here on code of 64 bits, code of 32 bits and data, for each privilege; the TSS at the end. */
#define X86_SEGMENTS 0x18
#define X86_TSS (X86_SEGMENTS + 4 * 3 * 8)
#define X86_RETURN_VECTOR 0x80
#endif
