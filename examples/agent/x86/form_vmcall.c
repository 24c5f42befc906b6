/* SPDX-License-Identifier: MIT */
/* The form for an ordinary guest: VMCALL on Intel, VMMCALL on AMD, 64 bits and 32 bits. */
#include "hvabi_kvm_map_gpa_range.h"
#include "x86/kvm.h"

uint8_t form_in(uint16_t port)
{
	uint8_t value;

	__asm__ volatile("inb %w1, %b0" : "=a"(value) : "Nd"(port));
	return value;
}

void form_out(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %b0, %w1" : : "a"(value), "Nd"(port));
}

size_t form_in_string(uint16_t port, uint8_t *out, size_t count)
{
	size_t left = count;

	__asm__ volatile("rep insb" : "+D"(out), "+c"(left) : "d"(port) : "memory");
	return count;
}

void form_init(void)
{
}

static const char *const revisions[] = { "v1", NULL };
static const char *const transports[] = { "vmcall64", "vmcall32", NULL };
static const struct hvabi_abi abis[] = { { "kvm-map-gpa-range", revisions, transports, HVABI_HOST, NULL } };

static unsigned instruction(const struct hvabi_setup *setup)
{
	(void)setup;
	return X86_HYPERCALL;
}

static bool convert(struct hvabi *s, const struct hvabi_pages *pages)
{
	struct agent_request request = { X86_HYPERCALL, 64, 0, { 0 } };
	const char *fault = NULL;
	char why[128] = "";

	request.regs[RAX] = HVABI_KVM_MAP_GPA_RANGE_KVM_HC_MAP_GPA_RANGE;
	request.regs[RBX] = pages->gpa;
	request.regs[RCX] = pages->pages;
	request.regs[RDX] = pages->state == HVABI_PRIVATE ? HVABI_KVM_MAP_GPA_RANGE_ENCRYPTED : HVABI_KVM_MAP_GPA_RANGE_DECRYPTED;
	if (!machine_execute(&request, &fault, why, sizeof why))
		return hvabi_refuse(s, HVABI_ERROR, "%s", why);
	if (fault != NULL)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: hypercall %u raises #%s, so nothing here answers it",
				    HVABI_KVM_MAP_GPA_RANGE_KVM_HC_MAP_GPA_RANGE, fault);
	return request.regs[RAX] == HVABI_KVM_MAP_GPA_RANGE_HYPERCALL_RESULT_SUCCESS ||
	       hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: the host answers hypercall %u with %lld",
			    HVABI_KVM_MAP_GPA_RANGE_KVM_HC_MAP_GPA_RANGE, (long long)request.regs[RAX]);
}

static bool named(const struct hvabi_setup *setup, const struct agent_request *request, size_t index, struct hvabi_pages *pages)
{
	const uint64_t mask = setup->transport == 0 ? UINT64_MAX : UINT32_MAX;

	pages->gpa = request->regs[RBX] & mask;
	pages->pages = request->regs[RCX] & mask;
	return index == 0 && (request->regs[RAX] & mask) == HVABI_KVM_MAP_GPA_RANGE_KVM_HC_MAP_GPA_RANGE && pages->gpa % HVABI_PAGE == 0;
}

const struct agent_form agent_form = {
	.label = "x86-64 VMCALL/VMMCALL, 32-bit mode compatibility; run under QEMU TCG and KVM in it",
	.abis = abis,
	.abi_count = sizeof abis / sizeof abis[0],
	.takes_slots = true,
	.instruction = instruction,
	.enabled = kvm_announces,
	.convert = convert,
	.named = named,
};
