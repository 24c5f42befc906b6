/* SPDX-License-Identifier: MIT */
/* The form for a guest of pKVM: HVC. */
#include "hvabi_pkvm_mem_share.h"
#include "arm64/machine.h"

uint64_t form_device(uint64_t address)
{
	return address;
}

enum { UPSTREAM, ANDROID };
static const char *const revisions[] = { "upstream", "android", NULL };
static const char *const transports[] = { "hvc", NULL };
static const struct hvabi_abi abis[] = { { "pkvm-mem-share", revisions, transports, HVABI_HOST, NULL } };

static unsigned instruction(const struct hvabi_setup *setup)
{
	(void)setup;
	return ARM64_HVC;
}

/* What the host says that it offers. One that knows no KVM_FEATURES offers nothing of KVM. */
static enum agent_answer enabled(void)
{
	struct agent_request request = { ARM64_HVC, 64, 0, { HVABI_PKVM_MEM_SHARE_KVM_FEATURES } };
	const char *fault = NULL;
	char why[128];

	if (!machine_execute(&request, &fault, why, sizeof why) || fault != NULL)
		return AGENT_UNKNOWN;
	return (int64_t)request.regs[0] >= 0 && (request.regs[0] & HVABI_PKVM_MEM_SHARE_FUNCTIONS_MEM_SHARE_MASK) ? AGENT_YES : AGENT_NO;
}

static bool convert(struct hvabi *s, const struct hvabi_pages *pages)
{
	for (uint64_t i = 0; i < pages->pages; i++) {
		uint64_t regs[AGENT_REGISTERS] = {
			pages->state == HVABI_PRIVATE ? HVABI_PKVM_MEM_SHARE_SHARE_FUNCTION_MEM_UNSHARE
						      : HVABI_PKVM_MEM_SHARE_SHARE_FUNCTION_MEM_SHARE,
			pages->gpa + i * HVABI_PAGE,
		};
		const uint64_t function = regs[0];

		if (!arm64_ask(s, ARM64_HVC, regs))
			return false;
		if ((int64_t)regs[0] == HVABI_PKVM_MEM_SHARE_SMCCC_STATUS_NOT_SUPPORTED)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: the host answers function 0x%llx with NOT_SUPPORTED",
					    (unsigned long long)function);
		/* Taking back a page that is not shared is refused, and the page is as it shall be. */
		if (pages->state == HVABI_PRIVATE && (int64_t)regs[0] == HVABI_PKVM_MEM_SHARE_SMCCC_STATUS_INVALID_PARAMETER)
			continue;
		if (regs[0] != HVABI_PKVM_MEM_SHARE_SMCCC_STATUS_SUCCESS)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: the host answers function 0x%llx for 0x%llx with %lld",
					    (unsigned long long)function, (unsigned long long)(pages->gpa + i * HVABI_PAGE),
					    (long long)regs[0]);
	}
	return true;
}

static bool named(const struct hvabi_setup *setup, const struct agent_request *request, size_t index, struct hvabi_pages *pages)
{
	pages->gpa = request->regs[1];
	pages->pages = setup->revision == ANDROID && request->regs[2] > 0 ? request->regs[2] : 1;
	return index == 0 && (uint32_t)request->regs[0] == HVABI_PKVM_MEM_SHARE_SHARE_FUNCTION_MEM_SHARE && pages->gpa % HVABI_PAGE == 0;
}

const struct agent_form agent_form = {
	.label = "arm64 HVC; run under QEMU TCG, which has no pKVM",
	.abis = abis,
	.abi_count = sizeof abis / sizeof abis[0],
	.instruction = instruction,
	.enabled = enabled,
	.convert = convert,
	.named = named,
	.max_undo = UINT64_C(1) << 12, /* 16 MiB */
};
