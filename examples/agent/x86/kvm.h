/* SPDX-License-Identifier: MIT */
/* Whether KVM announces hypercall 12. */
#ifndef AGENT_X86_KVM_H
#define AGENT_X86_KVM_H

#include "hvabi_kvm_map_gpa_range.h"
#include "x86/machine.h"

/* Linux Documentation/virt/kvm/x86/cpuid.rst: signature at 0x40000000, or at a later multiple of 0x100, features one behind. */
static inline enum agent_answer kvm_announces(void)
{
	for (uint32_t base = 0x40000000u; base < 0x40010000u; base += 0x100) {
		const struct x86_leaf leaf = x86_cpuid(base);
		char name[12];

		memcpy(name, &leaf.ebx, 4);
		memcpy(name + 4, &leaf.ecx, 4);
		memcpy(name + 8, &leaf.edx, 4);
		if (memcmp(name, "KVMKVMKVM\0\0", 12) == 0)
			return x86_cpuid(base + 1).eax >> HVABI_KVM_MAP_GPA_RANGE_KVM_FEATURE_HC_MAP_GPA_RANGE & 1 ? AGENT_YES : AGENT_NO;
	}
	return AGENT_UNKNOWN;
}

#endif
