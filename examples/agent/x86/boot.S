/* SPDX-License-Identifier: MIT */
/*
 * Boot code of the x86-64 agent. Two ways in: PVH (32-bit protected mode, EBX = start info; QEMU, Cloud Hypervisor,
 * Firecracker and others take an ELF file with this note by their kernel option), and the ELF entry for a loader that
 * is in 64-bit mode already (its tables map the first 4 GiB one to one; there is no command line then).
 */
#define __ASSEMBLER__ 1
#include "machine.h"

#ifndef AGENT_C_BIT
#define AGENT_C_BIT 0
#endif
#if AGENT_C_BIT > 32
#define PRIVATE_HIGH (1 << (AGENT_C_BIT - 32))
#else
#define PRIVATE_HIGH 0
#endif
#define MAP_GIB 4

	.section .note.pvh, "a", @note
	.balign 4
	.long 4, 8, 18 /* XEN_ELFNOTE_PHYS32_ENTRY */
	.asciz "Xen"
	.quad start32

	/* Page tables: the first 4 GiB one to one in pages of 2 MiB, open to every privilege. Entry 1 of the top table maps
	   them again at 512 GiB, without encryption. The same code does in both modes. */
	.macro tables
	movl $x86_pdpt + 7, x86_pml4
	movl $PRIVATE_HIGH, x86_pml4 + 4
	movl $x86_pdpt_shared + 7, x86_pml4 + 8
	movl $PRIVATE_HIGH, x86_pml4 + 12
	movl $0, %ecx
1:	movl %ecx, %eax
	shll $12, %eax
	addl $x86_pd + 7, %eax
	movl %eax, x86_pdpt(, %ecx, 8)
	movl $PRIVATE_HIGH, x86_pdpt + 4(, %ecx, 8)
	addl $x86_pd_shared - x86_pd, %eax
	movl %eax, x86_pdpt_shared(, %ecx, 8)
	movl $PRIVATE_HIGH, x86_pdpt_shared + 4(, %ecx, 8)
	incl %ecx
	cmpl $MAP_GIB, %ecx
	jb 1b
	movl $0, %ecx
2:	movl %ecx, %eax
	shll $21, %eax
	orl $0x87, %eax
	movl %eax, x86_pd(, %ecx, 8)
	movl $PRIVATE_HIGH, x86_pd + 4(, %ecx, 8)
	movl %eax, x86_pd_shared(, %ecx, 8)
	incl %ecx
	cmpl $(MAP_GIB * 512), %ecx
	jb 2b
	.endm

	.section .text.boot, "ax"
	.code32
	.globl start32
start32:
	cli
	cld
	movl %ebx, x86_boot_info
	movl (%ebx), %eax
	movl %eax, x86_boot_magic
	tables
	movl %cr4, %eax
	orl $0x20, %eax /* PAE */
	movl %eax, %cr4
	movl $x86_pml4, %eax
	movl %eax, %cr3
	movl $0xc0000080, %ecx /* EFER */
	rdmsr
	orl $0x100, %eax /* LME */
	wrmsr
	movl %cr0, %eax
	orl $0x80000001, %eax /* PG, PE */
	movl %eax, %cr0
	lgdt boot_gdt_pointer
	ljmpl $X86_BOOT_CODE64, $start64_low

	.code64
	.globl start64
start64:
	/* Stays in 64-bit mode: a TD may not leave it, and may not write EFER. */
	cli
	cld
	tables
	movq $x86_pml4, %rax
	movq %rax, %cr3
	lgdt boot_gdt_pointer
	movq $x86_stack_top, %rsp
	pushq $X86_BOOT_CODE64
	pushq $start64_low
	lretq

	.code64
start64_low:
	movl $X86_BOOT_DATA, %eax
	movl %eax, %ds
	movl %eax, %es
	movl %eax, %ss
	xorl %eax, %eax
	movl %eax, %fs
	movl %eax, %gs
	leaq x86_stack_top(%rip), %rsp
	call x86_main
3:	hlt
	jmp 3b

	.section .data.boot, "aw"
	.balign 8
boot_gdt:
	.quad 0
	.quad 0x00af9b000000ffff /* code, 64 bits */
	.quad 0x00cf93000000ffff /* data */
boot_gdt_pointer:
	.word . - boot_gdt - 1
	.quad boot_gdt
	.globl x86_boot_magic, x86_boot_info
x86_boot_magic:
	.long 0
x86_boot_info:
	.long 0

/* -- calls: each instruction and the way back ---------------------------------------------------------------------- */

	.text
	.globl x86_vmcall, x86_vmmcall, x86_vmgexit, x86_tdcall
	/* The bytes, because 32-bit code has the same and KVM may patch one into the other. */
x86_vmcall:
	.byte 0x0f, 0x01, 0xc1
	int $X86_RETURN_VECTOR
x86_vmmcall:
	.byte 0x0f, 0x01, 0xd9
	int $X86_RETURN_VECTOR
x86_vmgexit:
	.byte 0xf3, 0x0f, 0x01, 0xd9
	int $X86_RETURN_VECTOR
x86_tdcall:
	.byte 0x66, 0x0f, 0x01, 0xcc
	int $X86_RETURN_VECTOR

	.globl x86_enter
x86_enter:
	pushq %rbx
	pushq %rbp
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, enter_stack(%rip)
	movq %rdi, enter_frame(%rip)
	pushq 152(%rdi) /* ss, rsp, rflags, cs, rip */
	pushq 144(%rdi)
	pushq 136(%rdi)
	pushq 128(%rdi)
	pushq 120(%rdi)
	movq 0(%rdi), %rax
	movq 8(%rdi), %rbx
	movq 16(%rdi), %rcx
	movq 24(%rdi), %rdx
	movq 32(%rdi), %rsi
	movq 48(%rdi), %rbp
	movq 56(%rdi), %r8
	movq 64(%rdi), %r9
	movq 72(%rdi), %r10
	movq 80(%rdi), %r11
	movq 88(%rdi), %r12
	movq 96(%rdi), %r13
	movq 104(%rdi), %r14
	movq 112(%rdi), %r15
	movq 40(%rdi), %rdi
	iretq

	/* Vectors 0 to 31, 16 bytes each; an error code where the processor pushes none. Then the vector of the way back. */
	.balign 16
	.globl x86_stubs
x86_stubs:
	.set vector, 0
	.rept 32
	.balign 16
	.if (0x60227d00 >> vector) & 1 /* 8, 10 to 14, 17, 21, 29, 30 */
	.else
	pushq $0
	.endif
	pushq $vector
	jmp common
	.set vector, vector + 1
	.endr
	.balign 16
	pushq $0
	pushq $X86_RETURN_VECTOR
common:
	/* On the stack: vector, error, rip, cs, rflags, rsp, ss. Data segments may be those of another privilege. */
	pushq %rdi
	movq enter_frame(%rip), %rdi
	testq %rdi, %rdi
	jz stray
	movq %rax, 0(%rdi)
	movq %rbx, 8(%rdi)
	movq %rcx, 16(%rdi)
	movq %rdx, 24(%rdi)
	movq %rsi, 32(%rdi)
	movq %rbp, 48(%rdi)
	movq %r8, 56(%rdi)
	movq %r9, 64(%rdi)
	movq %r10, 72(%rdi)
	movq %r11, 80(%rdi)
	movq %r12, 88(%rdi)
	movq %r13, 96(%rdi)
	movq %r14, 104(%rdi)
	movq %r15, 112(%rdi)
	popq 40(%rdi)
	popq 160(%rdi) /* vector, error, rip, cs, rflags, rsp, ss */
	popq 168(%rdi)
	popq 120(%rdi)
	popq 128(%rdi)
	popq 136(%rdi)
	popq 144(%rdi)
	popq 152(%rdi)
	movl $X86_BOOT_DATA, %eax
	movl %eax, %ss
	movl %eax, %ds
	movl %eax, %es
	movq enter_stack(%rip), %rsp
	movq $0, enter_frame(%rip)
	cld
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbp
	popq %rbx
	ret
stray:
	movq 8(%rsp), %rdi
	movq 24(%rsp), %rsi
	movq 16(%rsp), %rdx
	call x86_stray

	.section .bss
	.balign 4096
	.globl x86_pml4
x86_pml4:
	.skip 4096
x86_pdpt:
	.skip 4096
x86_pdpt_shared:
	.skip 4096
x86_pd:
	.skip 4096 * MAP_GIB
x86_pd_shared:
	.skip 4096 * MAP_GIB
	.skip 65536
	.globl x86_stack_top, x86_call_stack_top, x86_fault_stack_top
x86_stack_top:
	.skip 4096
x86_call_stack_top:
	.skip 16384
x86_fault_stack_top:
	.balign 8
enter_stack:
	.skip 8
enter_frame:
	.skip 8
	.section .note.GNU-stack, "", @progbits
