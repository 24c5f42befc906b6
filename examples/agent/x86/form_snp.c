/* SPDX-License-Identifier: MIT */
/* The form for an SEV-SNP guest: VMGEXIT, with a GHCB page and by the MSR protocol. Built, not tested on hardware. */
#include "hvabi_ghcb_msr_psc.h"
#include "hvabi_ghcb_psc.h"
#include "hvabi_kvm_map_gpa_range.h"
#include "x86/machine.h"

#define SHARED_MAP UINT64_C(0x8000000000) /* boot.S maps all again here, without the encryption bit */
#define MAPPED (UINT64_C(4) << 30)
#define MSR_INFO 0xfffu
#define C_BIT (UINT64_C(1) << AGENT_C_BIT)

static uint8_t ghcb[HVABI_GHCB_PSC_GHCB_PAGE_SIZE] __attribute__((aligned(4096)));
static uint64_t registered = UINT64_MAX;

static uint8_t *shared(uint64_t gpa)
{
	return (uint8_t *)(uintptr_t)(SHARED_MAP + gpa);
}

/* -- the MSR protocol ---------------------------------------------------------------------------------------------- */

static uint64_t msr_call(uint64_t value)
{
	struct x86_frame frame;

	memset(&frame, 0, sizeof frame);
	x86_wrmsr(X86_GHCB_MSR, value);
	x86_call(x86_vmgexit, &frame);
	return x86_rdmsr(X86_GHCB_MSR);
}

static void use_ghcb(uint64_t gpa)
{
	if (registered != gpa) {
		const uint64_t answer = msr_call(gpa | HVABI_GHCB_PSC_GHCB_MSR_REG_GPA_REQ);

		registered = answer == (gpa | HVABI_GHCB_PSC_GHCB_MSR_REG_GPA_RESP) ? gpa : UINT64_MAX;
	}
	x86_wrmsr(X86_GHCB_MSR, gpa);
}

static bool change_page(uint64_t gpa, bool private)
{
	const uint64_t operation = private ? HVABI_GHCB_MSR_PSC_OPERATION_PRIVATE : HVABI_GHCB_MSR_PSC_OPERATION_SHARED;
	const uint64_t answer = msr_call(operation << HVABI_GHCB_MSR_PSC_VMGEXIT_MSR_REQUEST_OPERATION_SHIFT | gpa |
					 HVABI_GHCB_MSR_PSC_GHCB_MSR_PSC_REQ);

	return (answer & MSR_INFO) == HVABI_GHCB_MSR_PSC_GHCB_MSR_PSC_RESP &&
	       (answer & HVABI_GHCB_MSR_PSC_VMGEXIT_MSR_RESPONSE_ERROR_MASK) == 0;
}

/* PVALIDATE of a 4 KiB page: the guest's own half of a change. */
static void rescind(uint64_t gpa)
{
	uint64_t rax = gpa;

	__asm__ volatile(".byte 0xf2, 0x0f, 0x01, 0xff" : "+a"(rax) : "c"(0), "d"(0) : "memory", "cc");
}

/* -- ports: by a GHCB of the agent's own, because an IN or OUT would be a #VC ------------------------------------------ */

#define EXIT_IOIO 0x7b /* AMD APM volume 2, appendix C; the layout of SW_EXITINFO1 is section 15.10.2 */

static uint8_t port_call(uint16_t port, bool in, uint8_t value)
{
	const uint64_t gpa = (uint64_t)(uintptr_t)ghcb;
	uint8_t *page = shared(gpa);
	struct x86_frame frame;
	struct hvabi_u128 valid = { HVABI_GHCB_PSC_GHCB_VALID_RAX, HVABI_GHCB_PSC_GHCB_VALID_EXITCODE_HI |
		HVABI_GHCB_PSC_GHCB_VALID_EXITINFO1_HI | HVABI_GHCB_PSC_GHCB_VALID_EXITINFO2_HI };

	memset(page, 0, HVABI_GHCB_PSC_GHCB_PAGE_SIZE);
	hvabi_ghcb_psc_ghcb_page_sw_exitcode_write(page, EXIT_IOIO);
	hvabi_ghcb_psc_ghcb_page_sw_exitinfo1_write(page, (uint64_t)port << 16 | 1u << 9 | 1u << 4 | (in ? 1u : 0u));
	hvabi_ghcb_psc_ghcb_page_rax_write(page, value);
	hvabi_ghcb_psc_ghcb_page_valid_bitmap_write(page, valid);
	hvabi_ghcb_psc_ghcb_page_protocol_version_write(page, HVABI_GHCB_PSC_GHCB_VERSION_2);
	use_ghcb(gpa);
	memset(&frame, 0, sizeof frame);
	x86_call(x86_vmgexit, &frame);
	return (uint8_t)hvabi_ghcb_psc_ghcb_page_rax_read(page);
}

uint8_t form_in(uint16_t port)
{
	return port_call(port, true, 0);
}

void form_out(uint16_t port, uint8_t value)
{
	(void)port_call(port, false, value);
}

size_t form_in_string(uint16_t port, uint8_t *out, size_t count)
{
	for (size_t i = 0; i < count; i++)
		out[i] = form_in(port);
	return count;
}

void form_init(void)
{
	const uint64_t gpa = (uint64_t)(uintptr_t)ghcb;

	__asm__ volatile("mov %0, %%cr3" : : "r"((uint64_t)(uintptr_t)x86_pml4 | C_BIT) : "memory");
	rescind(gpa);
	/* Without a GHCB there is no serial line to say so. */
	if (!change_page(gpa, false))
		machine_halt();
}

/* -- calls --------------------------------------------------------------------------------------------------------- */

enum { PSC, MSR_PSC, HYPERCALL };

static const char *const ghcb_revisions[] = { "ghcb-2", NULL }, *const kvm_revisions[] = { "v1", NULL };
static const char *const psc_transports[] = { "vmgexit", NULL }, *const msr_transports[] = { "vmgexit-msr", NULL };
static const char *const kvm_transports[] = { "ghcb-vmmcall", NULL };
static const struct hvabi_abi abis[] = {
	{ "ghcb-psc", ghcb_revisions, psc_transports, HVABI_HOST, NULL },
	{ "ghcb-msr-psc", ghcb_revisions, msr_transports, HVABI_HOST, NULL },
	{ "kvm-map-gpa-range", kvm_revisions, kvm_transports, HVABI_HOST, NULL },
};

static unsigned instruction(const struct hvabi_setup *setup)
{
	(void)setup;
	return X86_VMGEXIT;
}

static bool convert(struct hvabi *s, const struct hvabi_pages *pages)
{
	for (uint64_t i = 0; i < pages->pages; i++)
		if (!change_page(pages->gpa + i * HVABI_PAGE, pages->state == HVABI_PRIVATE))
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "pages cannot be prepared: the host refuses to change 0x%llx",
					    (unsigned long long)(pages->gpa + i * HVABI_PAGE));
	return true;
}

/* Entry number `index`, counted from the one that a list begins at. */
static bool listed(const uint8_t *page, size_t index, struct hvabi_pages *pages)
{
	const uint8_t *list = page + HVABI_GHCB_PSC_GHCB_BUFFER;
	const uint64_t number = hvabi_ghcb_psc_psc_header_cur_entry_read(list) + index;
	const uint8_t *entry = list + HVABI_GHCB_PSC_PSC_HEADER_SIZE + number * HVABI_GHCB_PSC_PSC_ENTRY_SIZE;

	if (number > hvabi_ghcb_psc_psc_header_end_entry_read(list) ||
	    entry + HVABI_GHCB_PSC_PSC_ENTRY_SIZE > page + HVABI_GHCB_PSC_GHCB_BUFFER_END)
		return false;
	pages->gpa = hvabi_ghcb_psc_psc_entry_gfn_read(entry) * HVABI_PAGE;
	pages->pages = hvabi_ghcb_psc_psc_entry_pagesize_read(entry) ? 512 : 1;
	return true;
}

static bool named(const struct hvabi_setup *setup, const struct agent_request *request, size_t index, struct hvabi_pages *pages)
{
	const uint64_t msr = request->regs[GHCB_MSR];
	const uint8_t *page = shared(msr);

	if (setup->abi == MSR_PSC) {
		pages->gpa = msr & HVABI_GHCB_MSR_PSC_VMGEXIT_MSR_REQUEST_GFN_MASK;
		pages->pages = 1;
		return index == 0 && (msr & MSR_INFO) == HVABI_GHCB_MSR_PSC_GHCB_MSR_PSC_REQ;
	}
	if (msr % HVABI_PAGE != 0 || msr >= MAPPED)
		return false;
	if (setup->abi == PSC)
		return listed(page, index, pages);
	pages->gpa = hvabi_kvm_map_gpa_range_ghcb_page_rbx_read(page);
	pages->pages = hvabi_kvm_map_gpa_range_ghcb_page_rcx_read(page);
	return index == 0 && pages->gpa % HVABI_PAGE == 0;
}

/* A page that holds a GHCB or what it points at is shared first. */
static bool poke(struct hvabi *s, uint64_t gpa, const uint8_t *data, size_t size)
{
	static uint64_t known[16];
	static size_t count;
	const uint64_t page = gpa & ~(uint64_t)(HVABI_PAGE - 1);
	size_t i = 0;

	if (gpa >= MAPPED || size > MAPPED - gpa)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "memory at 0x%llx is beyond what the agent maps", (unsigned long long)gpa);
	if (gpa + size > (uint64_t)(uintptr_t)x86_start && gpa < (uint64_t)(uintptr_t)x86_end)
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "memory at 0x%llx is where the agent itself lies", (unsigned long long)gpa);
	while (i < count && known[i] != page)
		i++;
	if (i == sizeof known / sizeof known[0])
		return hvabi_refuse(s, HVABI_UNSUPPORTED, "more than %u pages hold memory of the cases", (unsigned)i);
	if (i == count) {
		rescind(page);
		if (!change_page(page, false))
			return hvabi_refuse(s, HVABI_UNSUPPORTED, "the host does not share 0x%llx", (unsigned long long)page);
		known[count++] = page;
	}
	memcpy(shared(gpa), data, size);
	return true;
}

static const uint8_t *see(uint64_t gpa)
{
	return shared(gpa);
}

/* The page form wants its GHCB registered; the agent's own is registered again for the serial line. */
static void before(const struct hvabi_setup *setup, const struct agent_request *request)
{
	if (setup->abi != MSR_PSC && request->regs[GHCB_MSR] % HVABI_PAGE == 0)
		use_ghcb(request->regs[GHCB_MSR]);
}

const struct agent_form agent_form = {
	.label = "x86-64 VMGEXIT, for SEV-SNP; built, not tested on hardware",
	.abis = abis,
	.abi_count = sizeof abis / sizeof abis[0],
	.instruction = instruction,
	.convert = convert,
	.named = named,
	.max_undo = UINT64_C(1) << 12, /* 16 MiB */
	.poke = poke,
	.see = see,
	.before = before,
};
