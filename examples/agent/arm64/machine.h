/* SPDX-License-Identifier: MIT */
/* arm64: what boot.S, machine.c, fdt.c and the forms share. */
#ifndef AGENT_ARM64_H
#define AGENT_ARM64_H

#include "agent.h"

/* boot.S knows the offsets. */
struct arm64_frame {
	uint64_t regs[31];
	uint64_t esr; /* of the exception that the call took; 0 where it took none */
};

void arm64_hvc(struct arm64_frame *frame);
void arm64_smc(struct arm64_frame *frame);

enum arm64_instruction { ARM64_HVC, ARM64_SMC };

/* A serial line that the device tree describes. */
struct arm64_uart {
	uint64_t base;
	unsigned shift; /* of register numbers, ns16550a */
	bool pl011;
};

/* The first one in a flattened device tree. */
bool fdt_uart(const uint8_t *fdt, struct arm64_uart *out);
/* The text of /chosen/bootargs, or NULL. */
const char *fdt_command_line(const uint8_t *fdt);

/* Of the form: where a device that the device tree names is really reached. */
uint64_t form_device(uint64_t address);

/* One call with the arguments in x0 and up; its x0. False with a message where there is no answer. */
bool arm64_ask(struct hvabi *s, unsigned instruction, uint64_t regs[AGENT_REGISTERS]);

#endif
