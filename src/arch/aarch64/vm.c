/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm.c: KVM's side of an aarch64 machine: vCPU features, interrupt controller, first registers.
 *
 * A vCPU gets what the host's processor has and KVM can pass on (SVE, pointer authentication, PMU),
 * as programs built for that processor expect. PSCI is KVM's: vCPUs other than 0 wait until the
 * kernel starts them by it, and its SYSTEM_OFF and SYSTEM_RESET end KVM_RUN with a system event.
 */
#include "arch/aarch64/gic.h"
#include "arch/aarch64/machine.h"
#include "arch/kvm.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

struct arch_vm {
    int kvm_fd;
    int vm_fd;
    int gic_fd; /* -1 until arch_vm_finish() */
    int vcpu_fds[ARM64_VCPUS_MAX];
    struct arm64_machine machine;
};

/* Room for the largest job behind 2 GiB. More than KVM's 40 costs no level of page tables. */
#define IPA_BITS_WANTED 41U

#define REGISTER(name)                                                                             \
    (KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | KVM_REG_ARM_CORE_REG(name))
#define REGISTER_MPIDR ARM64_SYS_REG(3, 0, 0, 0, 5)
#define REGISTER_MMFR0 ARM64_SYS_REG(3, 0, 0, 7, 0)

unsigned long arch_vm_type(int kvm_fd)
{
    const int limit = kvm_extension(kvm_fd, KVM_CAP_ARM_VM_IPA_SIZE);

    if (limit <= 0) {
        return 0; /* an old kernel: 40 bits, called 0 */
    }
    return KVM_VM_TYPE_ARM_IPA_SIZE(min_u64((uint64_t)limit, IPA_BITS_WANTED));
}

static int vcpu_ioctl(int fd, unsigned long request, void *argument, unsigned index,
                      const char *name, struct bvmm_error *err)
{
    if (ioctl(fd, request, argument) < 0) {
        return kvm_failed(err, BVMM_ERROR_VCPU, -errno, NULL, "%s (vCPU %u)", name, index);
    }
    return 0;
}

static int get_register(int vcpu_fd, uint64_t id, uint64_t *ret_value, unsigned index,
                        const char *name, struct bvmm_error *err)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uint64_t)(uintptr_t)ret_value};

    return vcpu_ioctl(vcpu_fd, KVM_GET_ONE_REG, &reg, index, name, err);
}

static int set_register(int vcpu_fd, uint64_t id, uint64_t value, unsigned index, const char *name,
                        struct bvmm_error *err)
{
    struct kvm_one_reg reg = {.id = id, .addr = (uint64_t)(uintptr_t)&value};

    return vcpu_ioctl(vcpu_fd, KVM_SET_ONE_REG, &reg, index, name, err);
}

/* ---- The machine ----------------------------------------------------------------------------- */

int arch_vm_new(int kvm_fd, int vm_fd, unsigned vcpus, struct arch_vm **ret_vm,
                struct bvmm_error *err)
{
    const int limit = kvm_extension(kvm_fd, KVM_CAP_MAX_VCPUS);
    struct kvm_enable_cap nisv = {.cap = KVM_CAP_ARM_NISV_TO_USER};
    struct arch_vm *vm = NULL;
    int ret = 0;

    if (vcpus == 0 || vcpus > ARM64_VCPUS_MAX || (limit > 0 && vcpus > (unsigned)limit)) {
        return error_set(err, BVMM_ERROR_VCPU, -EINVAL,
                         "%u vCPUs: expected 1 to %d, and this host's KVM takes at most %d", vcpus,
                         ARM64_VCPUS_MAX, limit);
    }
    vm = calloc(1, sizeof(*vm));
    if (!vm) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
    }
    vm->kvm_fd = kvm_fd;
    vm->vm_fd = vm_fd;
    vm->gic_fd = -1;
    vm->machine.vcpus = vcpus;
    vm->machine.serial = arch_platform.serial;
    ret = gic_choose(vm_fd, vcpus, &vm->machine.gic, err);
    if (ret != 0) {
        arch_vm_free(vm);
        return ret;
    }
    /* An access that KVM cannot decode then says where it went, instead of failing KVM_RUN. */
    (void)ioctl(vm_fd, KVM_ENABLE_CAP, &nisv);
    *ret_vm = vm;
    return 0;
}

int arch_vm_add_legacy_timer(struct arch_vm *vm, struct bvmm_error *err)
{
    (void)vm; /* every aarch64 kernel uses the processor's own timer */
    (void)err;
    return 0;
}

void arch_vm_free(struct arch_vm *vm)
{
    if (vm != NULL && vm->gic_fd >= 0) {
        (void)close(vm->gic_fd);
    }
    free(vm);
}

/* ---- vCPUs ----------------------------------------------------------------------------------- */

static void add_feature(struct kvm_vcpu_init *init, unsigned feature)
{
    init->features[feature / 32] |= 1U << feature % 32;
}

/* Linux' own features where the host has them. ret_finalize: what must be finalized (0: nothing). */
static void choose_features(const struct arch_vm *vm, unsigned index, struct kvm_vcpu_init *init,
                            int *ret_finalize)
{
    *ret_finalize = 0;
    add_feature(init, KVM_ARM_VCPU_PSCI_0_2); /* and with it the newest PSCI that KVM has */
    if (index != 0) {
        add_feature(init, KVM_ARM_VCPU_POWER_OFF);
    }
    if (kvm_extension(vm->vm_fd, KVM_CAP_ARM_PMU_V3) > 0) {
        add_feature(init, KVM_ARM_VCPU_PMU_V3);
    }
    if (kvm_extension(vm->vm_fd, KVM_CAP_ARM_SVE) > 0) {
        add_feature(init, KVM_ARM_VCPU_SVE);
        *ret_finalize = KVM_ARM_VCPU_SVE;
    }
    /* KVM takes these two together only. */
    if (kvm_extension(vm->vm_fd, KVM_CAP_ARM_PTRAUTH_ADDRESS) > 0 &&
        kvm_extension(vm->vm_fd, KVM_CAP_ARM_PTRAUTH_GENERIC) > 0) {
        add_feature(init, KVM_ARM_VCPU_PTRAUTH_ADDRESS);
        add_feature(init, KVM_ARM_VCPU_PTRAUTH_GENERIC);
    }
}

static int identify(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    int ret = get_register(vcpu_fd, REGISTER_MPIDR, &vm->machine.mpidr[index], index,
                           "KVM_GET_ONE_REG of MPIDR_EL1", err);

    if (ret == 0 && index == 0) {
        ret = get_register(vcpu_fd, REGISTER_MMFR0, &vm->machine.mmfr0, index,
                           "KVM_GET_ONE_REG of ID_AA64MMFR0_EL1", err);
    }
    return ret;
}

int arch_vcpu_init(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    struct kvm_vcpu_init init = {0};
    int finalize = 0;
    int ret = 0;

    if (ioctl(vm->vm_fd, KVM_ARM_PREFERRED_TARGET, &init) < 0) {
        return kvm_failed(err, BVMM_ERROR_VCPU, -errno, NULL, "KVM_ARM_PREFERRED_TARGET");
    }
    choose_features(vm, index, &init, &finalize);
    ret = vcpu_ioctl(vcpu_fd, KVM_ARM_VCPU_INIT, &init, index, "KVM_ARM_VCPU_INIT", err);
    if (ret == 0 && finalize != 0) {
        ret = vcpu_ioctl(vcpu_fd, KVM_ARM_VCPU_FINALIZE, &finalize, index, "KVM_ARM_VCPU_FINALIZE",
                         err);
    }
    vm->vcpu_fds[index] = vcpu_fd;
    return ret < 0 ? ret : identify(vm, index, vcpu_fd, err);
}

/* ---- After the last vCPU --------------------------------------------------------------------- */

static bool has_vcpu_attribute(int vcpu_fd, uint32_t group, uint64_t attribute)
{
    struct kvm_device_attr attr = {.group = group, .attr = attribute};

    return ioctl(vcpu_fd, KVM_HAS_DEVICE_ATTR, &attr) == 0;
}

static int set_vcpu_attribute(const struct arch_vm *vm, unsigned index, uint32_t group,
                              uint64_t attribute, void *value, const char *what,
                              struct bvmm_error *err)
{
    struct kvm_device_attr attr = {
        .group = group, .attr = attribute, .addr = (uint64_t)(uintptr_t)value};

    return vcpu_ioctl(vm->vcpu_fds[index], KVM_SET_DEVICE_ATTR, &attr, index, what, err);
}

/* The counters' overflow interrupt, which needs the interrupt controller. */
static int start_pmu(const struct arch_vm *vm, unsigned index, struct bvmm_error *err)
{
    uint32_t interrupt = ARM64_PPI_INTID_BASE + ARM64_PPI_PMU;
    int ret = set_vcpu_attribute(vm, index, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_IRQ,
                                 &interrupt, "the PMU's interrupt", err);

    if (ret == 0) {
        ret = set_vcpu_attribute(vm, index, KVM_ARM_VCPU_PMU_V3_CTRL, KVM_ARM_VCPU_PMU_V3_INIT,
                                 NULL, "the PMU's start", err);
    }
    return ret;
}

static int set_steal_time(const struct arch_vm *vm, unsigned index, struct bvmm_error *err)
{
    uint64_t address = ARM64_STEAL_TIME + (uint64_t)index * ARM64_STEAL_TIME_STRIDE;

    return set_vcpu_attribute(vm, index, KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA,
                              &address, "the steal time's address", err);
}

int arch_vm_finish(struct arch_vm *vm, struct bvmm_error *err)
{
    int ret = gic_create(vm->vm_fd, vm->machine.gic, vm->machine.vcpus, &vm->gic_fd, err);

    vm->machine.has_pmu = kvm_extension(vm->vm_fd, KVM_CAP_ARM_PMU_V3) > 0;
    vm->machine.has_steal_time =
        has_vcpu_attribute(vm->vcpu_fds[0], KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA);
    for (unsigned i = 0; i < vm->machine.vcpus && ret == 0; i++) {
        if (vm->machine.has_pmu) {
            ret = start_pmu(vm, i, err);
        }
        if (ret == 0 && vm->machine.has_steal_time) {
            ret = set_steal_time(vm, i, err);
        }
    }
    return ret;
}

/* ---- Booting --------------------------------------------------------------------------------- */

int arch_load_kernel(struct arch_vm *vm, const struct guest_memory *memory,
                     const struct arch_boot_request *request, struct arch_boot *ret_boot,
                     struct bvmm_error *err)
{
    if (getrandom(vm->machine.seed, sizeof(vm->machine.seed), 0) != sizeof(vm->machine.seed)) {
        return error_set(err, BVMM_ERROR_BOOT, -EIO, "getrandom: %s", error_text(errno));
    }
    return arm64_load_kernel(&vm->machine, memory, request, ret_boot, err);
}

/* KVM has reset the rest: EL1, interrupts masked, MMU and caches off, as the kernel expects. */
int arch_vcpu_boot(struct arch_vm *vm, unsigned index, int vcpu_fd, const struct arch_boot *boot,
                   struct bvmm_error *err)
{
    int ret = 0;

    (void)vm;
    if (index != 0) {
        return 0; /* switched off until the kernel calls PSCI's CPU_ON */
    }
    ret = set_register(vcpu_fd, REGISTER(regs.pc), boot->pc.v, index, "KVM_SET_ONE_REG of PC", err);
    if (ret == 0) {
        ret = set_register(vcpu_fd, REGISTER(regs.regs[0]), boot->data.v, index,
                           "KVM_SET_ONE_REG of X0", err);
    }
    return ret;
}

/* ---- The host -------------------------------------------------------------------------------- */
