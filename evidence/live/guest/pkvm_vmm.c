/* The first and only program of an arm64 machine: a VMM of one VM, told over a serial line what to do.
 *
 * A line in, a line out, numbers in hexadecimal. Numbers here are KVM's general API; those of the ABI under test come in
 * with the commands.
 *
 *   open PROTECTED BITS   make a VM whose addresses have that many bits     ok 0
 *   slot GPA BYTES        give it memory                                    ok 0
 *   call X0 X1 X2 X3      let the guest make an HVC                         ret X0 X1 X2 X3 | abort ESR
 *   read GPA              let the guest read a word                         ret WORD 0 0 0 | abort ESR
 *   write GPA WORD        let the guest write a word                        ret ... | abort ESR
 *   touch GPA PAGES       let the guest read each page                      ret ... of the last
 *   each X0 GPA PAGES     let the guest make the HVC for each page          ret ... of the first that is not 0
 *   peek GPA              read a word as the host                           ok WORD | err ERRNO
 *   poke GPA WORD         write a word as the host                          ok 0 | err ERRNO
 *   limit                 bits of address that KVM offers                   ok BITS
 *   close                 take the VM apart                                 ok 0
 *
 * Whatever fails: err ERRNO. A run that ends otherwise: exit REASON.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/utsname.h>
#include <termios.h>
#include <unistd.h>

#include <linux/kvm.h>

#define DEVICE 0x7f00000000ULL /* no memory: what the guest reads and writes here is between it and this program */
#define GROUND 0x7e00000000ULL /* where the guest's own code lies */
#define GROUND_SIZE 0x10000
#define SLOTS 64
#define SECONDS 20
#define PROTECTED (1UL << 31)
#define PSTATE_EL1H 0x3c5 /* interrupts off */

/* The guest takes an order from the device (0: call, 1: read, 2: write), does it, and reports. An exception is reported
 * with its syndrome, and the guest is ready again. */
__asm__(".pushsection .rodata\n"
        ".globl guest, guest_end\n" /* local ones would share an entry of the table of offsets */
        ".balign 2048\n"
        "guest:\n"
        "    adr x19, guest\n"
        "    msr vbar_el1, x19\n"
        "    isb\n"
        "    ldr x20, =0x7f00000000\n"
        "again:\n"
        "    ldr x9, [x20]\n"
        "    ldr x0, [x20, #8]\n"
        "    ldr x1, [x20, #16]\n"
        "    ldr x2, [x20, #24]\n"
        "    ldr x3, [x20, #32]\n"
        "    cbz x9, 1f\n"
        "    cmp x9, #1\n"
        "    b.eq 2f\n"
        "    str x1, [x0]\n"
        "    b 3f\n"
        "2:  ldr x0, [x0]\n"
        "    b 3f\n"
        "1:  hvc #0\n"
        "3:  str x0, [x20, #64]\n"
        "    str x1, [x20, #72]\n"
        "    str x2, [x20, #80]\n"
        "    str x3, [x20, #88]\n"
        "    str xzr, [x20, #96]\n"
        "    b again\n"
        "    .ltorg\n"
        "    .org guest + 0x200\n" /* a synchronous exception of this level */
        "    mrs x10, esr_el1\n"
        "    str x10, [x20, #104]\n"
        "    adr x10, again\n"
        "    msr elr_el1, x10\n"
        "    eret\n"
        "guest_end:\n"
        ".popsection\n");
extern const char guest[], guest_end[];

struct slot {
	uint64_t gpa, size;
	char *host;
};

static int kvm = -1, vm = -1, vcpu = -1, count;
static struct kvm_run *run;
static size_t run_size;
static struct slot slots[SLOTS];
static int pipes[2];
static char answer[256];

static void nothing(int signal_number)
{
	(void)signal_number;
}

static void say(const char *word, uint64_t value)
{
	snprintf(answer, sizeof answer, "%s %llx", word, (unsigned long long)value);
}

static int failed(void)
{
	say("err", errno);
	return -1;
}

static void close_vm(void)
{
	if (run)
		munmap(run, run_size);
	run = NULL;
	if (vcpu >= 0)
		close(vcpu);
	if (vm >= 0)
		close(vm);
	vcpu = vm = -1;
	while (count > 0) {
		count--;
		munmap(slots[count].host, slots[count].size);
	}
}

static struct slot *slot_of(uint64_t gpa)
{
	for (int i = 0; i < count; i++)
		if (gpa >= slots[i].gpa && gpa - slots[i].gpa < slots[i].size)
			return &slots[i];
	return NULL;
}

static int add_slot(uint64_t gpa, uint64_t size)
{
	struct kvm_userspace_memory_region region = {0};
	char *host;

	if (count == SLOTS) {
		errno = ENOSPC;
		return failed();
	}
	host = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (host == MAP_FAILED)
		return failed();
	region.slot = (uint32_t)count;
	region.guest_phys_addr = gpa;
	region.memory_size = size;
	region.userspace_addr = (uintptr_t)host;
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) < 0) {
		failed();
		munmap(host, size);
		return -1;
	}
	slots[count++] = (struct slot){gpa, size, host};
	say("ok", 0);
	return 0;
}

static int set_register(uint64_t id, uint64_t value)
{
	struct kvm_one_reg reg = {.id = id, .addr = (uintptr_t)&value};

	return ioctl(vcpu, KVM_SET_ONE_REG, &reg);
}

#define CORE(field) \
	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | (offsetof(struct kvm_regs, field) / sizeof(uint32_t)))

static int open_vm(uint64_t protected_vm, uint64_t bits)
{
	struct kvm_vcpu_init init;

	close_vm();
	vm = ioctl(kvm, KVM_CREATE_VM, (protected_vm ? PROTECTED : 0) | bits);
	if (vm < 0 || add_slot(GROUND, GROUND_SIZE) < 0)
		return failed();
	memcpy(slots[0].host, guest, (size_t)(guest_end - guest));
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	if (vcpu < 0)
		return failed();
	memset(&init, 0, sizeof init);
	if (ioctl(vm, KVM_ARM_PREFERRED_TARGET, &init) < 0)
		return failed();
	init.features[0] |= 1u << KVM_ARM_VCPU_PSCI_0_2;
	if (ioctl(vcpu, KVM_ARM_VCPU_INIT, &init) < 0)
		return failed();
	if (set_register(CORE(regs.pc), GROUND) < 0 || set_register(CORE(regs.pstate), PSTATE_EL1H) < 0)
		return failed();
	run_size = (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	if (run == MAP_FAILED) {
		run = NULL;
		return failed();
	}
	say("ok", 0);
	return 0;
}

/* Give the guest an order and run until it reports. */
static void order(const uint64_t orders[5])
{
	uint64_t found[4] = {0}, value;

	if (vcpu < 0) {
		errno = ENODEV;
		failed();
		return;
	}
	alarm(SECONDS);
	for (;;) {
		if (ioctl(vcpu, KVM_RUN, 0) < 0) {
			failed();
			break;
		}
		uint64_t at = run->exit_reason == KVM_EXIT_MMIO ? run->mmio.phys_addr - DEVICE : ~0ULL;
		if (run->exit_reason != KVM_EXIT_MMIO || at > 104) {
			say("exit", run->exit_reason);
			break;
		}
		if (!run->mmio.is_write) {
			memcpy(run->mmio.data, &orders[at / 8 < 5 ? at / 8 : 0], 8);
			continue;
		}
		memcpy(&value, run->mmio.data, 8);
		if (at == 104) {
			say("abort", value);
			break;
		}
		if (at == 96) {
			snprintf(answer, sizeof answer, "ret %llx %llx %llx %llx", (unsigned long long)found[0],
				 (unsigned long long)found[1], (unsigned long long)found[2],
				 (unsigned long long)found[3]);
			break;
		}
		found[(at - 64) / 8] = value;
	}
	alarm(0);
}

/* Memory that the host has lost is an error of a system call; touching it would be a signal. */
static void host_access(uint64_t gpa, int write_it, uint64_t value)
{
	struct slot *slot = slot_of(gpa);
	uint64_t word = value;

	if (!slot) {
		errno = ENXIO;
		failed();
		return;
	}
	char *place = slot->host + (gpa - slot->gpa);
	if (write_it) {
		if (write(pipes[1], &word, 8) != 8 || read(pipes[0], place, 8) != 8) {
			failed();
			fcntl(pipes[0], F_SETFL, O_NONBLOCK);
			while (read(pipes[0], &word, 8) > 0)
				;
			fcntl(pipes[0], F_SETFL, 0);
			return;
		}
		say("ok", 0);
		return;
	}
	if (write(pipes[1], place, 8) != 8) {
		failed();
		return;
	}
	if (read(pipes[0], &word, 8) != 8)
		failed();
	else
		say("ok", word);
}

static void obey(char *line)
{
	uint64_t args[5] = {0};
	char word[16] = "";
	unsigned long long a = 0, b = 0, c = 0, d = 0;

	sscanf(line, "%15s %llx %llx %llx %llx", word, &a, &b, &c, &d);
	say("err", ENOSYS);
	if (!strcmp(word, "open")) {
		open_vm(a, b);
	} else if (!strcmp(word, "slot")) {
		add_slot(a, b);
	} else if (!strcmp(word, "call") || !strcmp(word, "read") || !strcmp(word, "write")) {
		args[0] = word[0] == 'c' ? 0 : word[0] == 'r' ? 1 : 2;
		args[1] = a;
		args[2] = b;
		args[3] = c;
		args[4] = d;
		order(args);
	} else if (!strcmp(word, "touch")) {
		for (uint64_t page = 0; page < b; page++) {
			uint64_t orders[5] = {1, a + page * 4096};
			order(orders);
			if (strncmp(answer, "ret", 3))
				break;
		}
	} else if (!strcmp(word, "each")) {
		for (uint64_t page = 0; page < c; page++) {
			uint64_t orders[5] = {0, a, b + page * 4096};
			order(orders);
			if (strncmp(answer, "ret 0 ", 6))
				break;
		}
	} else if (!strcmp(word, "peek")) {
		host_access(a, 0, 0);
	} else if (!strcmp(word, "poke")) {
		host_access(a, 1, b);
	} else if (!strcmp(word, "limit")) {
		int bits = ioctl(kvm, KVM_CHECK_EXTENSION, KVM_CAP_ARM_VM_IPA_SIZE);
		say("ok", bits > 0 ? (uint64_t)bits : 0);
	} else if (!strcmp(word, "close")) {
		close_vm();
		say("ok", 0);
	}
}

int main(int words, char **paths)
{
	const char *path = words > 1 ? paths[1] : "/dev/ttyS0";
	struct sigaction action = {0};
	struct termios mode;
	struct utsname name;
	char line[256];

	mount("proc", "/proc", "proc", 0, NULL);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	action.sa_handler = nothing;
	sigaction(SIGALRM, &action, NULL);
	uname(&name);
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0 || pipe(pipes) < 0) {
		printf("HVABI NO KVM %s\n", strerror(errno));
		fflush(stdout);
		for (;;)
			pause();
	}
	int tty = open(path, O_RDWR | O_NOCTTY);
	if (tty < 0 || tcgetattr(tty, &mode) < 0) {
		printf("HVABI NO LINE %s: %s\n", path, strerror(errno));
		fflush(stdout);
		for (;;)
			pause();
	}
	cfmakeraw(&mode);
	tcsetattr(tty, TCSANOW, &mode);
	FILE *in = fdopen(tty, "r");
	printf("HVABI READY %s\n", name.release);
	fflush(stdout);
	for (;;) {
		if (!fgets(line, sizeof line, in)) {
			clearerr(in);
			usleep(10000);
			continue;
		}
		obey(line);
		dprintf(tty, "> %s\n", answer);
	}
}
