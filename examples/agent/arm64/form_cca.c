/* SPDX-License-Identifier: MIT */
/* The form for an Arm CCA Realm: SMC. Built, not tested on hardware. */
#include "hvabi_cca_ipa_state.h"
#include "arm64/machine.h"

/* TF-RMM lib/smc/include/smc-rsi.h; hvabi has no specification of these two. */
#define RSI_VERSION 0xc4000190u
#define RSI_REALM_CONFIG 0xc4000196u
#define RSI_VERSION_1_0 0x10000u

static uint8_t realm_config[HVABI_PAGE] __attribute__((aligned(4096)));

/* Devices of the host are at unprotected addresses: the top bit of the Realm's address space is set. */
uint64_t form_device(uint64_t address)
{
	struct agent_request request = { ARM64_SMC, 64, 0, { RSI_VERSION, RSI_VERSION_1_0 } };
	const char *fault = NULL;
	char why[128];
	uint64_t width;

	if (!machine_execute(&request, &fault, why, sizeof why) || fault != NULL ||
	    request.regs[0] != HVABI_CCA_IPA_STATE_RSI_STATUS_RSI_SUCCESS)
		return address; /* no Realm */
	request.regs[0] = RSI_REALM_CONFIG;
	request.regs[1] = (uint64_t)(uintptr_t)realm_config;
	if (!machine_execute(&request, &fault, why, sizeof why) || fault != NULL ||
	    request.regs[0] != HVABI_CCA_IPA_STATE_RSI_STATUS_RSI_SUCCESS)
		return address;
	memcpy(&width, realm_config, sizeof width);
	return width > 0 && width <= 56 ? address | UINT64_C(1) << (width - 1) : address;
}

static const char *const revisions[] = { "rmm-1.0", "rmm-1.1", NULL };
static const char *const transports[] = { "smc", NULL };
static const struct hvabi_abi abis[] = { { "cca-ipa-state", revisions, transports, HVABI_HOST, NULL } };

static unsigned instruction(const struct hvabi_setup *setup)
{
	(void)setup;
	return ARM64_SMC;
}

static bool convert(struct hvabi *s, const struct hvabi_pages *pages)
{
	const uint64_t end = pages->gpa + pages->pages * HVABI_PAGE;

	for (uint64_t base = pages->gpa; base != end;) {
		uint64_t regs[AGENT_REGISTERS] = {
			HVABI_CCA_IPA_STATE_RSI_IPA_STATE_SET, base, end,
			pages->state == HVABI_PRIVATE ? HVABI_CCA_IPA_STATE_RIPAS_RAM : HVABI_CCA_IPA_STATE_RIPAS_EMPTY,
			1, /* also pages that are destroyed */
		};

		if (!arm64_ask(s, ARM64_SMC, regs))
			return false;
		if (regs[0] != HVABI_CCA_IPA_STATE_RSI_STATUS_RSI_SUCCESS || regs[1] <= base || regs[1] > end)
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: IPA_STATE_SET of 0x%llx answers %lld",
					    (unsigned long long)base, (long long)regs[0]);
		base = regs[1];
	}
	return true;
}

static bool named(const struct hvabi_setup *setup, const struct agent_request *request, size_t index, struct hvabi_pages *pages)
{
	(void)setup;
	pages->gpa = request->regs[1];
	pages->pages = request->regs[2] > request->regs[1] ? (request->regs[2] - request->regs[1]) / HVABI_PAGE : 0;
	return index == 0 && request->regs[0] == HVABI_CCA_IPA_STATE_RSI_IPA_STATE_SET && pages->gpa % HVABI_PAGE == 0;
}

const struct agent_form agent_form = {
	.label = "arm64 SMC, for Realms of Arm CCA; built, not tested on hardware",
	.abis = abis,
	.abi_count = sizeof abis / sizeof abis[0],
	.instruction = instruction,
	.convert = convert,
	.named = named,
};
