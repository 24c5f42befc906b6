/* SPDX-License-Identifier: MIT */
/*
 * Boot code of the arm64 agent, with the header of a Linux image (Documentation/arch/arm64/booting.rst): X0 is the
 * device tree. Runs at EL1, without MMU; a loader that leaves it at EL2 is left by ERET.
 */
	.section .text.boot, "ax"
	.globl _start
_start:
	b start
	.long 0
	.quad 0			/* text_offset: anywhere at a multiple of 2 MiB */
	.quad agent_end - _start
	.quad 0xa		/* little endian, 4 KiB pages, anywhere in memory */
	.quad 0, 0, 0
	.ascii "ARM\x64"
	.long 0

start:
	msr daifset, #0xf
	mov x19, x0
	mrs x1, CurrentEL
	cmp x1, #(2 << 2)
	b.ne 1f
	mov x1, #(1 << 31)	/* HCR_EL2.RW: EL1 is 64-bit */
	msr hcr_el2, x1
	mov x1, #0x3c5		/* EL1 with its own stack, exceptions masked */
	msr spsr_el2, x1
	adr x1, 1f
	msr elr_el2, x1
	mov x1, #3		/* counters may be read */
	msr cnthctl_el2, x1
	adrp x1, el2_vectors
	add x1, x1, :lo12:el2_vectors
	msr vbar_el2, x1
	eret
1:	mrs x1, sctlr_el1
	bic x1, x1, #1		/* MMU off */
	bic x1, x1, #(1 << 2)	/* data cache off, as the addresses are those of devices */
	msr sctlr_el1, x1
	isb
	adrp x1, vectors
	add x1, x1, :lo12:vectors
	msr vbar_el1, x1
	isb
	adrp x1, stack_top
	add x1, x1, :lo12:stack_top
	mov sp, x1
	adrp x1, bss_start
	add x1, x1, :lo12:bss_start
	adrp x2, bss_end
	add x2, x2, :lo12:bss_end
2:	cmp x1, x2
	b.hs 3f
	stp xzr, xzr, [x1], #16
	b 2b
	/* Addresses in the data are relative to where the program was linked, 0. */
3:	adrp x0, _start
	add x0, x0, :lo12:_start
	adrp x1, rela_start
	add x1, x1, :lo12:rela_start
	adrp x2, rela_end
	add x2, x2, :lo12:rela_end
4:	cmp x1, x2
	b.hs 5f
	ldp x3, x4, [x1], #16
	ldr x5, [x1], #8
	cmp w4, #1027		/* R_AARCH64_RELATIVE, the only kind that the link leaves */
	b.ne 4b
	add x5, x5, x0
	str x5, [x3, x0]
	b 4b
5:	mov x0, x19
	bl arm64_main
6:	wfi
	b 6b

/* -- calls --------------------------------------------------------------------------------------------------------- */

	.text
	.macro call_by name, instruction
	.globl \name
\name:
	stp x29, x30, [sp, #-16]!
	stp x27, x28, [sp, #-16]!
	stp x25, x26, [sp, #-16]!
	stp x23, x24, [sp, #-16]!
	stp x21, x22, [sp, #-16]!
	stp x19, x20, [sp, #-16]!
	str x18, [sp, #-16]!
	str x0, [sp, #-16]!
	str xzr, [x0, #248]
	ldp x30, x1, [x0, #240]
	ldp x28, x29, [x0, #224]
	ldp x26, x27, [x0, #208]
	ldp x24, x25, [x0, #192]
	ldp x22, x23, [x0, #176]
	ldp x20, x21, [x0, #160]
	ldp x18, x19, [x0, #144]
	ldp x16, x17, [x0, #128]
	ldp x14, x15, [x0, #112]
	ldp x12, x13, [x0, #96]
	ldp x10, x11, [x0, #80]
	ldp x8, x9, [x0, #64]
	ldp x6, x7, [x0, #48]
	ldp x4, x5, [x0, #32]
	ldp x2, x3, [x0, #16]
	ldp x0, x1, [x0, #0]
	\instruction #0
	b call_done
	.endm

	call_by arm64_hvc, hvc
	call_by arm64_smc, smc
	.globl arm64_calls_end
arm64_calls_end:

call_done:
	str x30, [sp, #8]	/* beside the saved frame */
	ldr x30, [sp]
	stp x0, x1, [x30, #0]
	stp x2, x3, [x30, #16]
	stp x4, x5, [x30, #32]
	stp x6, x7, [x30, #48]
	stp x8, x9, [x30, #64]
	stp x10, x11, [x30, #80]
	stp x12, x13, [x30, #96]
	stp x14, x15, [x30, #112]
	stp x16, x17, [x30, #128]
	stp x18, x19, [x30, #144]
	stp x20, x21, [x30, #160]
	stp x22, x23, [x30, #176]
	stp x24, x25, [x30, #192]
	stp x26, x27, [x30, #208]
	stp x28, x29, [x30, #224]
	ldr x0, [sp, #8]
	str x0, [x30, #240]
	add sp, sp, #16
	ldr x18, [sp], #16
	ldp x19, x20, [sp], #16
	ldp x21, x22, [sp], #16
	ldp x23, x24, [sp], #16
	ldp x25, x26, [sp], #16
	ldp x27, x28, [sp], #16
	ldp x29, x30, [sp], #16
	ret

/* -- exceptions ---------------------------------------------------------------------------------------------------- */

	/* An exception of the call leaves its syndrome in the frame and goes on behind the call; any other is the end. */
	.balign 2048
vectors:
	.set entry, 0
	.rept 16
	.balign 128
	.if entry == 4
	b synchronous
	.else
	mov x3, #entry
	b stray
	.endif
	.set entry, entry + 1
	.endr

synchronous:
	stp x0, x1, [sp, #-16]!
	stp x2, x3, [sp, #-16]!
	mrs x0, elr_el1
	adrp x1, arm64_hvc
	add x1, x1, :lo12:arm64_hvc
	cmp x0, x1
	b.lo 1f
	adrp x1, arm64_calls_end
	add x1, x1, :lo12:arm64_calls_end
	cmp x0, x1
	b.hs 1f
	/* UNDEF and aborts name the instruction itself. The stack holds the four registers, then the frame. */
	mrs x1, esr_el1
	ldr x2, [sp, #32]
	str x1, [x2, #248]
	adr x1, call_done
	msr elr_el1, x1
	ldp x2, x3, [sp], #16
	ldp x0, x1, [sp], #16
	eret
1:	mov x3, #4
stray:
	mrs x0, esr_el1
	mrs x1, elr_el1
	mrs x2, far_el1
	bl arm64_stray

	/* Entered at EL2, the agent has no host there that could answer an HVC: it becomes an UNDEF at EL1. */
	.balign 2048
el2_vectors:
	.set entry, 0
	.rept 16
	.balign 128
	.if entry == 8
	msr tpidr_el2, x0
	mrs x0, elr_el2
	sub x0, x0, #4
	msr elr_el1, x0
	mrs x0, spsr_el2
	msr spsr_el1, x0
	mov x0, #(1 << 25)	/* ESR_EL1: unknown reason, 32-bit instruction */
	msr esr_el1, x0
	mrs x0, vbar_el1
	add x0, x0, #0x200	/* synchronous, from EL1 with its own stack */
	msr elr_el2, x0
	mrs x0, tpidr_el2
	eret
	.else
	b .
	.endif
	.set entry, entry + 1
	.endr

	.section .bss.stack, "aw", @nobits
	.balign 16
	.skip 65536
stack_top:
	.section .note.GNU-stack, "", @progbits
