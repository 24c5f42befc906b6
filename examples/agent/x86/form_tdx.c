/* SPDX-License-Identifier: MIT */
/* The form for a TDX guest: TDCALL, leaf TDG.VP.VMCALL. Built, not tested on hardware. */
#include "hvabi_kvm_map_gpa_range.h"
#include "hvabi_tdx_map_gpa.h"
#include "x86/machine.h"

/* -- ports: a TD asks its VMM, because an IN or OUT of its own would be a #VE ------------------------------------------ */

#define SUB_FUNCTION_IO 30 /* TDX GHCI, TDG.VP.VMCALL<Instruction.IO>: the exit reason of VMX */
#define EXPOSED_IO 0xfc00u /* R10 to R15 */

static uint64_t port_call(uint16_t port, bool out, uint8_t value)
{
	struct x86_frame frame;

	memset(&frame, 0, sizeof frame);
	frame.regs[RCX] = EXPOSED_IO;
	frame.regs[R11] = SUB_FUNCTION_IO;
	frame.regs[R12] = 1; /* byte */
	frame.regs[R13] = out;
	frame.regs[R14] = port;
	frame.regs[R15] = value;
	x86_call(x86_tdcall, &frame);
	return frame.regs[R11];
}

uint8_t form_in(uint16_t port)
{
	return (uint8_t)port_call(port, false, 0);
}

void form_out(uint16_t port, uint8_t value)
{
	(void)port_call(port, true, value);
}

size_t form_in_string(uint16_t port, uint8_t *out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		out[i] = form_in(port);
	return count;
}

void form_init(void)
{
}

/* -- calls --------------------------------------------------------------------------------------------------------- */

enum { MAP_GPA, HYPERCALL };

static const char *const tdx_revisions[] = { "ghci-1.5", NULL }, *const tdx_transports[] = { "tdcall", NULL };
static const char *const kvm_revisions[] = { "v1", NULL }, *const kvm_transports[] = { "tdvmcall", NULL };
static const struct hvabi_abi abis[] = {
	{ "tdx-map-gpa", tdx_revisions, tdx_transports, HVABI_HOST, NULL },
	{ "kvm-map-gpa-range", kvm_revisions, kvm_transports, HVABI_HOST, NULL },
};

/* The SHARED bit, from TDG.VP.INFO (leaf 1): the width of addresses is in RCX[5:0]. */
static uint64_t shared_bit(void)
{
	struct agent_request request = { X86_TDCALL, 64, 0, { 0 } };
	const char *fault = NULL;
	char why[128];

	request.regs[RAX] = 1;
	if (!machine_execute(&request, &fault, why, sizeof why) || fault != NULL || request.regs[RAX] != 0)
		return 0;
	return (request.regs[RCX] & 0x3f) == 52 ? UINT64_C(1) << 51 : UINT64_C(1) << 47;
}

static unsigned instruction(const struct hvabi_setup *setup)
{
	(void)setup;
	return X86_TDCALL;
}

static bool convert(struct hvabi *s, const struct hvabi_pages *pages)
{
	const uint64_t bit = shared_bit(), base = pages->gpa | (pages->state == HVABI_PRIVATE ? 0 : bit);
	const uint64_t end = base + pages->pages * HVABI_PAGE;
	const char *fault = NULL;
	char why[128] = "";
	unsigned idle = 0;

	if (bit == 0)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: this is no TD");
	for (uint64_t at = base; at != end;) {
		struct agent_request request = { X86_TDCALL, 64, 0, { 0 } };

		request.regs[RCX] = HVABI_TDX_MAP_GPA_EXPOSED;
		request.regs[R11] = HVABI_TDX_MAP_GPA_LEAF;
		request.regs[R12] = at;
		request.regs[R13] = end - at;
		if (!machine_execute(&request, &fault, why, sizeof why) || fault != NULL)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: TDCALL takes the exception %s",
					    fault != NULL ? fault : why);
		if (request.regs[R10] == HVABI_TDX_MAP_GPA_STATUS_SUCCESS)
			return true;
		idle = request.regs[R11] == at ? idle + 1 : 0;
		if (request.regs[R10] != HVABI_TDX_MAP_GPA_STATUS_RETRY || request.regs[R11] < at ||
		    request.regs[R11] >= end || idle > 1000)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: MapGPA of 0x%llx answers 0x%llx",
					    (unsigned long long)at, (unsigned long long)request.regs[R10]);
		at = request.regs[R11];
	}
	return true;
}

static bool named(const struct hvabi_setup *setup, const struct agent_request *request, size_t index, struct hvabi_pages *pages)
{
	const uint64_t *regs = request->regs;

	if (setup->abi == HYPERCALL) {
		pages->gpa = regs[R11];
		pages->pages = regs[R12];
		return index == 0 && regs[R10] == HVABI_KVM_MAP_GPA_RANGE_KVM_HC_MAP_GPA_RANGE && pages->gpa % HVABI_PAGE == 0;
	}
	pages->gpa = regs[R12] & ~shared_bit();
	pages->pages = regs[R13] / HVABI_PAGE;
	return index == 0 && regs[R10] == 0 && regs[R11] == HVABI_TDX_MAP_GPA_LEAF && pages->gpa % HVABI_PAGE == 0;
}

const struct agent_form agent_form = {
	.label = "x86-64 TDCALL, for TDX; built, not tested on hardware",
	.abis = abis,
	.abi_count = sizeof abis / sizeof abis[0],
	.instruction = instruction,
	.convert = convert,
	.named = named,
};
