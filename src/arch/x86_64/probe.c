/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * probe.c: can this host's KVM run Linux? Asked of KVM itself, by running what Linux would run.
 *
 * A KVM without hardware underneath interprets the guest's instructions, and knows only some of
 * them. A guest of a few dozen instructions tries those that Linux meets first, and says by an OUT
 * before each one which it is about to try.
 */
#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/limit.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/load.h"

#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROBE_MEMORY_BYTES (2 * MIB)
#define PROBE_SCRATCH 0x1000U
#define PROBE_IDT 0x2000U
#define PROBE_IDT_POINTER 0x3000U
#define PROBE_CODE 0x10000U
#define PROBE_LIMIT_NS (500 * NS_PER_MS)
#define PROBE_EXITS_MAX 100

#define VECTOR_BREAKPOINT 3
#define GATE_INTERRUPT 0x8e00U /* present, 64-bit interrupt gate */

/* What the guest writes to PROBE_PORT, and the bits of RSI that say what to try. */
#define PROBE_PORT 0x10
#define STEP_CMPXCHG16B 0
#define STEP_POPCNT 1
#define STEP_XRSTOR 2
#define STEP_INT3 3
#define STEP_SYSCALL 4
#define STEP_CLAC 5
#define STEP_DONE 6

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define STEP_BEGIN(step)                                                                           \
    "bt $" TEXT(step) ", %esi\n jnc 1f\n mov $" TEXT(step) ", %al\n out %al, $" TEXT(              \
        PROBE_PORT) "\n"
#define STEP_END "1:\n"

/*
 * Entered as a 64-bit kernel would be, RSI = steps to try. Independent of where it lies. SYSCALL
 * goes to the same code segment: what is tried is that it arrives there in ring 0.
 */
__asm__(
    ".pushsection .rodata\n"
    ".code64\n"
    "probe_code:\n"
    "mov $" TEXT(0x8000) ", %esp\n"
                         "lidt " TEXT(PROBE_IDT_POINTER) "\n"

    STEP_BEGIN(STEP_CMPXCHG16B) "cmpxchg16b " TEXT(PROBE_SCRATCH) "\n" STEP_END

        STEP_BEGIN(STEP_POPCNT) "popcnt %ecx, %edx\n" STEP_END

            STEP_BEGIN(
                STEP_XRSTOR) "mov %cr4, %rax\n or $0x40000, %eax\n mov %rax, %cr4\n" /* OSXSAVE */
                             "xor %edx, %edx\n mov $3, %eax\n"
                             "xrstor " TEXT(PROBE_SCRATCH) "\n" STEP_END

                                 STEP_BEGIN(STEP_INT3) "int3\n" STEP_END

                                     STEP_BEGIN(
                                         STEP_SYSCALL) "mov $0xc0000080, %ecx\n rdmsr\n or $1, "
                                                       "%eax\n wrmsr\n" /* EFER.SCE */
                                                       "mov $0xc0000081, %ecx\n xor %eax, %eax\n "
                                                       "mov $0x10, %edx\n wrmsr\n" /* STAR */
                                                       "lea 2f(%rip), %rax\n xor %edx, %edx\n mov "
                                                       "$0xc0000082, %ecx\n wrmsr\n" /* LSTAR */
                                                       "syscall\n"
                                                       "2: mov %cs, %eax\n test $3, %al\n jz 1f\n "
                                                       "ud2\n" STEP_END

                                                           STEP_BEGIN(
                                                               STEP_CLAC) "clac\n" STEP_END

                                                                          "mov $" TEXT(STEP_DONE) ", %al\n out %al, $" TEXT(
                                                                              PROBE_PORT) "\n"
                                                                                          "3: "
                                                                                          "hlt\n "
                                                                                          "jmp 3b\n"
                                                                                          "probe_"
                                                                                          "breakpoi"
                                                                                          "nt: "
                                                                                          "iretq\n"
                                                                                          "probe_"
                                                                                          "code_"
                                                                                          "end:\n"
                                                                                          ".popsect"
                                                                                          "ion\n");

extern const uint8_t probe_code[];
extern const uint8_t probe_breakpoint[];
extern const uint8_t probe_code_end[];

/* A step is tried only where KVM says that the guest has the feature. */
static const struct step {
    const char *instruction;
    uint32_t leaf;
    uint8_t bit;
    bool in_ebx; /* else ECX */
} steps[] = {
    [STEP_CMPXCHG16B] = {"cmpxchg16b", 1, 13, false},
    [STEP_POPCNT] = {"popcnt", 1, 23, false},
    [STEP_XRSTOR] = {"xrstor", 1, 26, false},
    [STEP_INT3] = {"int3", 0, 0, false},
    [STEP_SYSCALL] = {"syscall (arrives outside of ring 0)", 0, 0, false},
    [STEP_CLAC] = {"clac", 7, 20, true},
};

struct probe {
    struct guest_memory memory;
    int vm_fd;
    struct arch_vm *vm;
    struct kvm_vcpu_handle vcpu;
    uint8_t step; /* the last one begun */
};

static uint32_t steps_to_try(const struct cpuid_table *supported)
{
    uint32_t mask = 0;

    for (unsigned i = 0; i < ARRAY_SIZE(steps); i++) {
        const struct kvm_cpuid_entry2 *entry = cpuid_find(supported, steps[i].leaf, 0);
        uint32_t reg = !entry ? 0 : steps[i].in_ebx ? entry->ebx : entry->ecx;

        if (steps[i].leaf == 0 || (reg & (uint32_t)1 << steps[i].bit)) {
            mask |= (uint32_t)1 << i;
        }
    }
    return mask;
}

static int write_guest(const struct guest_memory *memory)
{
    uint32_t handler = PROBE_CODE + (uint32_t)(probe_breakpoint - probe_code);
    uint16_t gate[8] = {(uint16_t)handler, X86_SELECTOR_CODE, GATE_INTERRUPT,
                        (uint16_t)(handler >> 16)};
    struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) idt = {(VECTOR_BREAKPOINT + 1) * sizeof(gate) - 1, PROBE_IDT};
    int ret = x86_write_long_mode_tables(memory);

    if (ret == 0) {
        ret = guest_memory_write(memory, gpa(PROBE_IDT + VECTOR_BREAKPOINT * sizeof(gate)), gate,
                                 sizeof(gate));
    }
    if (ret == 0) {
        ret = guest_memory_write(memory, gpa(PROBE_IDT_POINTER), &idt, sizeof(idt));
    }
    if (ret == 0) {
        ret = guest_memory_write(memory, gpa(PROBE_CODE), probe_code,
                                 (size_t)(probe_code_end - probe_code));
    }
    return ret;
}

static int make_guest(int kvm_fd, struct probe *probe, struct bvmm_error *err)
{
    struct guest_range range = {gpa(0), PROBE_MEMORY_BYTES};
    struct arch_boot boot = {.entry = ARCH_ENTRY_LINUX64, .pc = gpa(PROBE_CODE)};
    int ret = guest_memory_init(&probe->memory, &range, 1, err);

    if (ret == 0 && write_guest(&probe->memory) != 0) {
        ret = error_set(err, BVMM_ERROR_KVM, -EFAULT, "the probe's guest does not fit its memory");
    }
    if (ret == 0) {
        ret = kvm_create_vm(kvm_fd, arch_vm_type(kvm_fd), &probe->vm_fd, err);
    }
    if (ret == 0) {
        ret = kvm_set_memory(probe->vm_fd, &probe->memory, err);
    }
    if (ret == 0) {
        ret = arch_vm_new(kvm_fd, probe->vm_fd, 1, &probe->vm, err);
    }
    if (ret == 0) {
        ret = kvm_create_vcpu(kvm_fd, probe->vm_fd, 0, &probe->vcpu, err);
    }
    if (ret == 0) {
        ret = arch_vcpu_init(probe->vm, 0, probe->vcpu.fd, err);
    }
    if (ret == 0) {
        boot.data = gpa(steps_to_try(x86_vm_cpuid(probe->vm)));
        ret = arch_vcpu_boot(probe->vm, 0, probe->vcpu.fd, &boot, err);
    }
    return ret;
}

/* Return: 0 when the guest came to its end, else what stopped it; probe->step says where. */
static int run_guest(struct probe *probe)
{
    const struct kvm_run *run = probe->vcpu.run;

    for (unsigned i = 0; i < PROBE_EXITS_MAX; i++) {
        int ret = kvm_run(&probe->vcpu);

        if (ret == -EINTR && !run->immediate_exit) {
            continue;
        }
        if (ret == -EINTR) {
            return -ETIMEDOUT;
        }
        if (ret != 0 && ret != -EAGAIN) {
            return ret;
        }
        if (ret == 0) {
            if (run->exit_reason != KVM_EXIT_IO || run->io.direction != KVM_EXIT_IO_OUT ||
                run->io.port != PROBE_PORT) {
                return -ENODEV;
            }
            probe->step = *((const uint8_t *)run + run->io.data_offset);
            if (probe->step >= STEP_DONE) {
                return 0;
            }
        }
    }
    return -ETIMEDOUT;
}

/* Run it with a time limit. */
static int run_limited(struct probe *probe, struct bvmm_error *err)
{
    struct kvm_limit limit;
    int ret = kvm_limit_begin(&limit, probe->vcpu.run, PROBE_LIMIT_NS, err);

    if (ret == 0) {
        ret = run_guest(probe);
        kvm_limit_end(&limit);
    }
    return ret;
}

static void free_guest(struct probe *probe)
{
    kvm_vcpu_close(&probe->vcpu);
    arch_vm_free(probe->vm);
    if (probe->vm_fd >= 0) {
        (void)close(probe->vm_fd);
    }
    guest_memory_fini(&probe->memory);
}

int arch_kvm_probe(int kvm_fd, struct bvmm_error *err)
{
    struct probe probe = {.vm_fd = -1, .vcpu = {.fd = -1}, .step = STEP_DONE};
    int ret = make_guest(kvm_fd, &probe, err);

    if (ret == 0) {
        ret = run_limited(&probe, err);
        if (ret != 0) {
            const char *instruction =
                probe.step < STEP_DONE ? steps[probe.step].instruction : "its first instructions";

            ret = error_set(
                err, BVMM_ERROR_KVM, ret == -ETIMEDOUT ? ret : -ENODEV,
                "KVM on this host has no hardware virtualization underneath (it %s %s), so no "
                "Linux guest can run: use a machine with VT-x or AMD-V switched on, or a virtual "
                "machine that offers nested virtualization; bvmm's tests can use an emulated "
                "machine: tests/lab/lab",
                ret == -ETIMEDOUT ? "hangs at" : "cannot run", instruction);
        }
    }
    free_guest(&probe);
    return ret;
}

bool arch_kvm_needs_probe(void)
{
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    const bool vmx = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 5)) != 0;
    const bool svm = __get_cpuid(0x80000001, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1U << 2)) != 0;

    return !vmx && !svm;
}
