/* Runs test vectors of hvabi against a host, in plain C and without hvabi. Copy it and put your host in.
 *   hvabi vectors --format c -o DIR kvm-page-enc-status@v12
 *   cc -I DIR -DVECTORS='"kvm-page-enc-status@v12.host.h"' consume.c && ./a.out
 * A call of this ABI touches no memory: copy the comparison of registers for one that does. */
#include <stdio.h>
#include <string.h>
#include VECTORS

enum { MOST = 64 };
struct vm { int enabled, count; uint64_t max_ranges; struct { uint64_t first, end; } shared[MOST]; };

static void paint(struct vm *vm, uint64_t first, uint64_t end, int shared)
{
	struct vm old = *vm;
	vm->count = 0;
	for (int i = 0; i < old.count; i++) { /* what lies beside the pages stays */
		uint64_t low = old.shared[i].first, high = old.shared[i].end;
		int touches = shared && low <= end && high >= first;
		if (touches) { /* one range with the new one */
			first = low < first ? low : first;
			end = high > end ? high : end;
			continue;
		}
		if (low < first && low < high) { vm->shared[vm->count].first = low; vm->shared[vm->count++].end = high < first ? high : first; }
		if (high > end && low < high) { vm->shared[vm->count].first = low > end ? low : end; vm->shared[vm->count++].end = high; }
	}
	if (shared && first < end) {
		int at = vm->count++;
		for (; at > 0 && vm->shared[at - 1].first > first; at--)
			vm->shared[at] = vm->shared[at - 1];
		vm->shared[at].first = first; vm->shared[at].end = end;
	}
}

/* KVM's old hypercall 12. Your own host goes here: it returns the new RAX. */
static uint64_t host(struct vm *vm, uint64_t rax, uint64_t gpa, uint64_t pages, uint64_t encrypted, unsigned int cpl)
{
	struct vm after = *vm;
	uint64_t end = (gpa >> 12) + pages, last = 1ull << 52;
	if (cpl) return -1ull; /* EPERM */
	if (rax != 12 || !vm->enabled) return -1000ull; /* KVM_ENOSYS */
	if (gpa % 4096 || !pages || end < pages) return -22ull; /* EINVAL */
	paint(&after, gpa >> 12, end < last ? end : last, !encrypted);
	if ((uint64_t)after.count > vm->max_ranges && after.count > vm->count) return 22;
	*vm = after;
	return 0;
}

static uint64_t reg(const struct hvabi_reg *at, size_t count, const char *name, uint64_t otherwise)
{
	for (size_t i = 0; i < count; i++)
		if (!strcmp(at[i].name, name)) return at[i].value;
	return otherwise;
}

static int right(const struct hvabi_expect *one, const struct hvabi_step *step, uint64_t rax, const struct vm *vm)
{
	struct vm want = {0}, have = *vm;
	uint64_t free = reg(one->nonzero.at, one->nonzero.count, "rax", 0);
	uint64_t rax_wanted = reg(one->regs.at, one->regs.count, "rax", reg(step->regs.at, step->regs.count, "rax", 0));
	if (strcmp(one->end, "return") || one->mem.count || ((rax ^ rax_wanted) & ~free) || (free && !(rax & free))) return 0;
	for (size_t i = 0; i < one->regs.count; i++) /* this host writes no other register */
		if (strcmp(one->regs.at[i].name, "rax") && one->regs.at[i].value != reg(step->regs.at, step->regs.count, one->regs.at[i].name, 0)) return 0;
	for (size_t i = 0; i < one->after.ranges.count; i++)
		paint(&want, one->after.ranges.at[i].gpa >> 12, (one->after.ranges.at[i].gpa >> 12) + one->after.ranges.at[i].pages, 1);
	for (size_t i = 0; i < one->after.loose.count; i++) {
		paint(&want, one->after.loose.at[i].gpa >> 12, (one->after.loose.at[i].gpa >> 12) + one->after.loose.at[i].pages, 0);
		paint(&have, one->after.loose.at[i].gpa >> 12, (one->after.loose.at[i].gpa >> 12) + one->after.loose.at[i].pages, 0);
	}
	return want.count == have.count && !memcmp(want.shared, have.shared, sizeof(*want.shared) * (size_t)want.count);
}

int main(void)
{
	int ran = 0, bad = 0;
	for (size_t t = 0; t < sizeof(HVABI_TESTS) / sizeof(*HVABI_TESTS); t++) {
		const struct hvabi_test *test = &HVABI_TESTS[t];
		struct vm vm = {0};
		if (test->profile || test->features.count) continue; /* for implementations of that profile, or that show more */
		ran++;
		for (size_t s = 0, ok = 1; ok && s < test->steps.count; s++) {
			const struct hvabi_step *step = &test->steps.at[s];
			if (step->fresh) {
				vm = (struct vm){.enabled = 1, .max_ranges = MOST - 2};
				for (size_t i = 0; i < test->config.count; i++) {
					unsigned long long number = 0;
					if (!strcmp(test->config.at[i].name, "enabled")) vm.enabled = strcmp(test->config.at[i].value, "false") != 0;
					if (!strcmp(test->config.at[i].name, "max_ranges") && sscanf(test->config.at[i].value, "%llx", &number) == 1) vm.max_ranges = number;
				}
				for (size_t i = 0; i < step->before.ranges.count; i++)
					paint(&vm, step->before.ranges.at[i].gpa >> 12, (step->before.ranges.at[i].gpa >> 12) + step->before.ranges.at[i].pages, 1);
			}
			uint64_t rax = host(&vm, reg(step->regs.at, step->regs.count, "rax", 0), reg(step->regs.at, step->regs.count, "rbx", 0),
					    reg(step->regs.at, step->regs.count, "rcx", 0), reg(step->regs.at, step->regs.count, "rdx", 0), step->cpl);
			ok = 0;
			for (size_t i = 0; i < step->expect.count && !ok; i++)
				ok = (size_t)right(&step->expect.at[i], step, rax, &vm);
			if (!ok) { printf("FAIL %s: step %zu, rax %#llx\n", test->id, s, (unsigned long long)rax); bad++; }
		}
	}
	printf("%d failed of %d\n", bad, ran);
	return bad != 0;
}
