/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm.c: KVM's side of an x86_64 machine: interrupt controllers, vCPU features, first registers.
 *
 * There is no PIT. Linux takes the TSC's frequency from KVM's clock and its timer interrupts from
 * the local APIC in TSC-deadline mode, so it never misses it, and the host is spared the kvm-pit
 * kernel thread. On a host without TSC-deadline timers (KVM_CAP_TSC_DEADLINE_TIMER) there is one,
 * because Linux needs it to find out how fast the local APIC counts; and for kernels that may lack
 * KVM's clock, by arch_vm_add_legacy_timer().
 */
#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/x86_64/cpuid.h"
#include "arch/x86_64/layout.h"
#include "arch/x86_64/load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

struct arch_vm {
    int kvm_fd;
    int vm_fd;
    unsigned vcpus;
    bool tsc_deadline;
    bool has_pit;
    struct cpuid_table supported;
    struct cpuid_table table; /* of the vCPU in hand */
};

#define CR0_PE 1U
#define CR0_ET 0x10U
#define CR0_PG 0x80000000U
#define CR4_PAE 0x20U
#define EFER_LME 0x100U
#define EFER_LMA 0x400U
#define RFLAGS_RESERVED 2U

#define MSR_MISC_ENABLE 0x1a0U
#define MISC_ENABLE_FAST_STRING 1U
#define MSR_MTRR_DEF_TYPE 0x2ffU
#define MTRR_ENABLE_WRITE_BACK 0x806U

#define APIC_LVT_LINT0 0x350U
#define APIC_LVT_LINT1 0x360U
#define APIC_DELIVERY_NMI 0x400U
#define APIC_DELIVERY_EXTINT 0x700U

/* State that the x87 and SSE units have after FNINIT. */
#define FPU_CONTROL 0x37fU
#define FPU_MXCSR 0x1f80U

unsigned long arch_vm_type(int kvm_fd)
{
    (void)kvm_fd;
    return 0;
}

static int vm_ioctl(int fd, unsigned long request, const void *argument, const char *name,
                    struct bvmm_error *err)
{
    if (ioctl(fd, request, argument) < 0) {
        return kvm_failed(err, BVMM_ERROR_KVM, -errno, NULL, "%s", name);
    }
    return 0;
}

static int vcpu_ioctl(int fd, unsigned long request, void *argument, unsigned index,
                      const char *name, struct bvmm_error *err)
{
    if (ioctl(fd, request, argument) < 0) {
        return kvm_failed(err, BVMM_ERROR_VCPU, -errno, NULL, "%s (vCPU %u)", name, index);
    }
    return 0;
}

/* The fixed places that KVM needs in the guest's address space, and interrupt controllers. */
static int create_chips(struct arch_vm *vm, struct bvmm_error *err)
{
    uint64_t identity_map = X86_IDENTITY_MAP;
    int ret = 0;

    if (kvm_extension(vm->kvm_fd, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0) {
        ret = vm_ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map,
                       "KVM_SET_IDENTITY_MAP_ADDR", err);
    }
    if (ret == 0 && ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, (unsigned long)X86_TSS) < 0) {
        ret = kvm_failed(err, BVMM_ERROR_KVM, -errno, NULL, "KVM_SET_TSS_ADDR");
    }
    if (ret == 0) {
        ret = vm_ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP", err);
    }
    if (ret == 0 && !vm->tsc_deadline) {
        ret = arch_vm_add_legacy_timer(vm, err);
    }
    return ret;
}

static int read_supported_cpuid(struct arch_vm *vm, struct bvmm_error *err)
{
    vm->supported.count = CPUID_ENTRIES_MAX;
    return vm_ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, &vm->supported, "KVM_GET_SUPPORTED_CPUID",
                    err);
}

int arch_vm_new(int kvm_fd, int vm_fd, unsigned vcpus, struct arch_vm **ret_vm,
                struct bvmm_error *err)
{
    int limit = kvm_extension(kvm_fd, KVM_CAP_MAX_VCPUS);
    struct arch_vm *vm;
    int ret;

    if (vcpus == 0 || vcpus > arch_platform.vcpus_max || (limit > 0 && vcpus > (unsigned)limit)) {
        return error_set(err, BVMM_ERROR_VCPU, -EINVAL,
                         "%u vCPUs: expected 1 to %u, and this host's KVM takes at most %d", vcpus,
                         arch_platform.vcpus_max, limit);
    }
    vm = calloc(1, sizeof(*vm));
    if (!vm) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
    }
    vm->kvm_fd = kvm_fd;
    vm->vm_fd = vm_fd;
    vm->vcpus = vcpus;
    vm->tsc_deadline = kvm_extension(kvm_fd, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    ret = create_chips(vm, err);
    if (ret == 0) {
        ret = read_supported_cpuid(vm, err);
    }
    if (ret != 0) {
        arch_vm_free(vm);
        return ret;
    }
    *ret_vm = vm;
    return 0;
}

int arch_vm_add_legacy_timer(struct arch_vm *vm, struct bvmm_error *err)
{
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    int ret;

    if (vm->has_pit) {
        return 0;
    }
    ret = vm_ioctl(vm->vm_fd, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2", err);
    vm->has_pit = ret == 0;
    return ret;
}

int arch_vm_finish(struct arch_vm *vm, struct bvmm_error *err)
{
    (void)vm;
    (void)err;
    return 0;
}

void arch_vm_free(struct arch_vm *vm)
{
    free(vm);
}

const struct cpuid_table *x86_vm_cpuid(const struct arch_vm *vm)
{
    return &vm->supported;
}

static int set_cpuid(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    int ret = cpuid_for_vcpu(&vm->supported, index, vm->vcpus, vm->tsc_deadline, &vm->table);

    if (ret != 0) {
        return error_set(err, BVMM_ERROR_VCPU, ret,
                         "KVM_GET_SUPPORTED_CPUID gave a table that cannot be used: %s",
                         error_text(-ret));
    }
    return vcpu_ioctl(vcpu_fd, KVM_SET_CPUID2, &vm->table, index, "KVM_SET_CPUID2", err);
}

static int set_msrs(unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    struct { /* as struct kvm_msrs */
        uint32_t count;
        uint32_t padding;
        struct kvm_msr_entry entries[2];
    } msrs = {
        .count = ARRAY_SIZE(msrs.entries),
        .entries = {{.index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
                    {.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK}},
    };
    int done;

    done = ioctl(vcpu_fd, KVM_SET_MSRS, &msrs);
    if (done < 0) {
        return kvm_failed(err, BVMM_ERROR_VCPU, -errno, NULL, "KVM_SET_MSRS (vCPU %u)", index);
    }
    if ((size_t)done < ARRAY_SIZE(msrs.entries)) {
        return error_set(err, BVMM_ERROR_VCPU, -EINVAL,
                         "KVM_SET_MSRS (vCPU %u): KVM refused register 0x%x", index,
                         msrs.entries[done].index);
    }
    return 0;
}

/* Interrupts of the old controllers arrive at vCPU 0 until Linux turns to the I/O APIC. */
static int set_local_interrupts(unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    static const uint32_t lint0 = APIC_DELIVERY_EXTINT;
    static const uint32_t lint1 = APIC_DELIVERY_NMI;
    struct kvm_lapic_state lapic;
    int ret = vcpu_ioctl(vcpu_fd, KVM_GET_LAPIC, &lapic, index, "KVM_GET_LAPIC", err);

    if (ret != 0) {
        return ret;
    }
    memcpy(&lapic.regs[APIC_LVT_LINT0], &lint0, sizeof(lint0));
    memcpy(&lapic.regs[APIC_LVT_LINT1], &lint1, sizeof(lint1));
    return vcpu_ioctl(vcpu_fd, KVM_SET_LAPIC, &lapic, index, "KVM_SET_LAPIC", err);
}

int arch_vcpu_init(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    struct kvm_fpu fpu = {.fcw = FPU_CONTROL, .mxcsr = FPU_MXCSR};
    int ret = set_cpuid(vm, index, vcpu_fd, err);

    if (ret == 0) {
        ret = set_msrs(index, vcpu_fd, err);
    }
    if (ret == 0) {
        ret = vcpu_ioctl(vcpu_fd, KVM_SET_FPU, &fpu, index, "KVM_SET_FPU", err);
    }
    if (ret == 0 && index == 0) {
        ret = set_local_interrupts(index, vcpu_fd, err);
    }
    return ret;
}

int arch_load_kernel(struct arch_vm *vm, const struct guest_memory *memory,
                     const struct arch_boot_request *request, struct arch_boot *ret_boot,
                     struct bvmm_error *err)
{
    const struct guest_range *last = &memory->regions[memory->count - 1].range;
    unsigned bits = cpuid_physical_bits(&vm->supported);

    if (last->base.v + last->bytes > (uint64_t)1 << bits) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM,
                         "%llu MiB of guest memory end above what this host's processor can "
                         "address (%u bits): give the guest less",
                         (unsigned long long)(guest_memory_total_bytes(memory) / MIB), bits);
    }
    return x86_load_kernel(vm->vcpus, memory, request, ret_boot, err);
}

/* Both protocols want flat segments; they differ in whether paging and long mode are on. */
static void set_segments(struct kvm_sregs *sregs, bool long_mode)
{
    struct kvm_segment data = {
        .limit = UINT32_MAX,
        .selector = X86_SELECTOR_DATA,
        .type = 3, /* read and write, accessed */
        .present = 1,
        .db = 1,
        .s = 1,
        .g = 1,
    };
    struct kvm_segment code = data;

    code.selector = X86_SELECTOR_CODE;
    code.type = 11; /* execute and read, accessed */
    code.db = long_mode ? 0 : 1;
    code.l = long_mode ? 1 : 0;
    sregs->cs = code;
    sregs->ds = data;
    sregs->es = data;
    sregs->fs = data;
    sregs->gs = data;
    sregs->ss = data;
    sregs->tr = (struct kvm_segment){.limit = 0x67, .type = 11, .present = 1};
    sregs->gdt = (struct kvm_dtable){.base = X86_GDT, .limit = X86_GDT_ENTRIES * 8 - 1};
    sregs->idt = (struct kvm_dtable){0};
}

int arch_vcpu_boot(struct arch_vm *vm, unsigned index, int vcpu_fd, const struct arch_boot *boot,
                   struct bvmm_error *err)
{
    bool long_mode = boot->entry == ARCH_ENTRY_LINUX64;
    struct kvm_regs regs = {.rip = boot->pc.v, .rflags = RFLAGS_RESERVED};
    struct kvm_sregs sregs;
    int ret;

    (void)vm;
    if (index != 0) {
        return 0; /* KVM keeps it waiting for the start-up interrupt that Linux sends */
    }
    ret = vcpu_ioctl(vcpu_fd, KVM_GET_SREGS, &sregs, index, "KVM_GET_SREGS", err);
    if (ret != 0) {
        return ret;
    }
    set_segments(&sregs, long_mode);
    if (long_mode) {
        regs.rsi = boot->data.v;
        sregs.cr0 = CR0_PE | CR0_ET | CR0_PG;
        sregs.cr3 = X86_PAGE_TABLES;
        sregs.cr4 = CR4_PAE;
        sregs.efer = EFER_LME | EFER_LMA;
    } else {
        regs.rbx = boot->data.v;
        sregs.cr0 = CR0_PE | CR0_ET;
        sregs.cr4 = 0;
        sregs.efer = 0;
    }
    ret = vcpu_ioctl(vcpu_fd, KVM_SET_SREGS, &sregs, index, "KVM_SET_SREGS", err);
    if (ret == 0) {
        ret = vcpu_ioctl(vcpu_fd, KVM_SET_REGS, &regs, index, "KVM_SET_REGS", err);
    }
    return ret;
}
