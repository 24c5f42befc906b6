/* SPDX-License-Identifier: MIT */
/*
 * agent.h: the parts of the agent and what they owe each other.
 *
 *   agent.c               the commands of the line protocol, for every machine
 *   x86/, arm64/          boot code, exceptions, serial line; machine_execute() makes one call
 *   x86/form_*.c, …       a form: which ABIs it serves, by which instruction, and how the serial line is reached
 *
 * A program has one form. Numbers of the ABIs under test come from headers that `hvabi gen c` writes at build time.
 */
#ifndef AGENT_H
#define AGENT_H

#include <stdio.h>
#include <string.h>

int agent_getc(void);
void agent_put(const char *data, size_t size);

#define HVABI_GETC() agent_getc()
#define HVABI_PUT(data, size) agent_put((data), (size))
#define HVABI_FLUSH() ((void)0)
#define HVABI_MAX_PIECES 64
#include "hvabi_iut.h"

/* -- a machine ----------------------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
#define AGENT_REGISTERS 16 /* rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15, msr_c0010130 */
#elif defined(__aarch64__)
#define AGENT_REGISTERS 31 /* x0 to x30 */
#else
#error "the agent runs on x86-64 and arm64"
#endif

extern const char *const machine_registers[AGENT_REGISTERS];

struct agent_request {
	unsigned instruction; /* of the form */
	unsigned mode, cpl;   /* 64 or 32, 0 to 3 */
	uint64_t regs[AGENT_REGISTERS];
};

/*
 * Executes one instruction with these registers and leaves there what the guest then sees. NULL, or the name of the
 * exception that the instruction took. False: something else went wrong, and `why` says what.
 */
bool machine_execute(struct agent_request *request, const char **fault, char *why, size_t size);

/* A register by name, or -1. */
int machine_register(const char *name);

/* Words of the command line, such as "call=off": the text behind "name=", up to a blank, or NULL. */
const char *machine_option(const char *name);

/* -- a form -------------------------------------------------------------------------------------------------------- */

enum agent_answer { AGENT_YES, AGENT_NO, AGENT_UNKNOWN };

struct agent_form {
	const char *label; /* in hello: how it calls, and where it was tested */
	const struct hvabi_abi *abis;
	size_t abi_count;
	bool takes_slots; /* the ABI does not look at memory slots, so that config.memory changes nothing */
	unsigned (*instruction)(const struct hvabi_setup *setup);
	/* Whether the host has the call switched on; NULL: not known, taken for yes. */
	enum agent_answer (*enabled)(void);
	/* Makes pages private or shared by the form's own call; false with a message where the host does not. */
	bool (*convert)(struct hvabi *s, const struct hvabi_pages *pages);
	/* Range number `index` that a call names, so that the next reset can put it back; false behind the last one. */
	bool (*named)(const struct hvabi_setup *setup, const struct agent_request *request, size_t index,
		      struct hvabi_pages *pages);
	/* Most pages that can be put back, because it goes page by page; 0: any number. A call that names more is not made. */
	uint64_t max_undo;
	/* What must be done just before a call; NULL: nothing. */
	void (*before)(const struct hvabi_setup *setup, const struct agent_request *request);
	/* Bytes that the runner places, and how to see them afterwards; NULL: the form's calls use registers only. */
	bool (*poke)(struct hvabi *s, uint64_t gpa, const uint8_t *data, size_t size);
	const uint8_t *(*see)(uint64_t gpa);
};

extern const struct agent_form agent_form;

/* Called by the boot code once the serial line works; does not return. */
void agent_main(void) __attribute__((noreturn));

/* A line of log, which the runner keeps with the test. */
void agent_log(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The machine cannot go on: says why, as an error of the protocol, and stops. */
void agent_die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));
void machine_halt(void) __attribute__((noreturn));

#endif
