/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * probe.c: does this host's KVM run a guest? Asked of KVM itself.
 *
 * There is no KVM on Arm without hardware underneath that could run some guests and not others. So
 * the guest only switches its machine off by PSCI, which takes all that Linux needs to start: a
 * vCPU, memory, an interrupt controller, and KVM's firmware calls.
 */
#include "arch/aarch64/machine.h"
#include "arch/kvm.h"
#include "arch/limit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define PROBE_MEMORY_BYTES (2 * MIB)
#define PROBE_LIMIT_NS (500 * NS_PER_MS)

/* SYSTEM_OFF of PSCI 0.2, by HVC as Linux does. */
__asm__(".pushsection .rodata\n"
        ".balign 4\n"
        "probe_code:\n"
        "mov w0, #8\n"
        "movk w0, #0x8400, lsl #16\n"
        "hvc #0\n"
        "b .\n"
        "probe_code_end:\n"
        ".popsection\n");

/* Hidden: else the compiler goes through the GOT, where ld 2.40 loses a local label's offset. */
extern const uint8_t probe_code[] __attribute__((visibility("hidden")));
extern const uint8_t probe_code_end[] __attribute__((visibility("hidden")));

struct probe {
    struct guest_memory memory;
    int vm_fd;
    struct arch_vm *vm;
    struct kvm_vcpu_handle vcpu;
};

static int make_memory(struct probe *probe, struct bvmm_error *err)
{
    const struct guest_range range = {gpa(ARM64_RAM), PROBE_MEMORY_BYTES};
    int ret = guest_memory_init(&probe->memory, &range, 1, err);

    if (ret == 0 && guest_memory_write(&probe->memory, range.base, probe_code,
                                       (size_t)(probe_code_end - probe_code)) != 0) {
        ret = error_set(err, BVMM_ERROR_KVM, -EFAULT, "the probe's guest does not fit its memory");
    }
    return ret < 0 ? ret : kvm_set_memory(probe->vm_fd, &probe->memory, err);
}

static int make_guest(int kvm_fd, struct probe *probe, struct bvmm_error *err)
{
    const struct arch_boot boot = {.entry = ARCH_ENTRY_ARM64, .pc = gpa(ARM64_RAM)};
    int ret = kvm_create_vm(kvm_fd, arch_vm_type(kvm_fd), &probe->vm_fd, err);

    if (ret == 0) {
        ret = make_memory(probe, err);
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
        ret = arch_vm_finish(probe->vm, err);
    }
    return ret < 0 ? ret : arch_vcpu_boot(probe->vm, 0, probe->vcpu.fd, &boot, err);
}

static int run_guest(const struct probe *probe, struct bvmm_error *err)
{
    const struct kvm_run *run = probe->vcpu.run;
    struct kvm_limit limit;
    int ret = kvm_limit_begin(&limit, probe->vcpu.run, PROBE_LIMIT_NS, err);

    if (ret < 0) {
        return ret;
    }
    do {
        ret = kvm_run(&probe->vcpu);
    } while (ret == -EAGAIN || (ret == -EINTR && !run->immediate_exit));
    kvm_limit_end(&limit);
    if (ret == 0 && run->exit_reason == KVM_EXIT_SYSTEM_EVENT &&
        run->system_event.type == KVM_SYSTEM_EVENT_SHUTDOWN) {
        return 0;
    }
    return error_set(err, BVMM_ERROR_KVM, ret == -EINTR ? -ETIMEDOUT : -ENODEV,
                     "KVM on this host does not work: a guest of three instructions that switches "
                     "itself off ended with %s; bvmm's tests can use an emulated machine: "
                     "tests/lab/lab --arch aarch64",
                     ret == -EINTR ? "a time-out"
                     : ret < 0     ? error_text(-ret)
                                   : kvm_exit_name(run->exit_reason));
}

int arch_kvm_probe(int kvm_fd, struct bvmm_error *err)
{
    struct probe probe = {.vm_fd = -1, .vcpu = {.fd = -1}};
    int ret = make_guest(kvm_fd, &probe, err);

    if (ret == 0) {
        ret = run_guest(&probe, err);
    }
    kvm_vcpu_close(&probe.vcpu);
    arch_vm_free(probe.vm);
    if (probe.vm_fd >= 0) {
        (void)close(probe.vm_fd);
    }
    guest_memory_fini(&probe.memory);
    return ret;
}

bool arch_kvm_needs_probe(void)
{
    return false; /* where there is a /dev/kvm, Linux was started at EL2: there is hardware */
}
