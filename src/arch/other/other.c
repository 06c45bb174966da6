/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * other.c: an architecture that bvmm has no machine for. The program builds and says so.
 */
#include "arch/arch.h"
#include "arch/kvm.h"

#include <errno.h>
#include <string.h>
#include <sys/utsname.h>

const struct arch_platform arch_platform = {
    .isa = "unsupported",
    .vcpus_max = 1,
};

const struct kvm_capability arch_kvm_capabilities[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
};
const size_t arch_kvm_capability_count = ARRAY_SIZE(arch_kvm_capabilities);

int arch_supported(struct bvmm_error *err)
{
    struct utsname host;

    return error_set(err, BVMM_ERROR_UNSUPPORTED_ARCH, -ENOSYS,
                     "bvmm runs on x86_64 and aarch64, and this is %s: use a machine of one of "
                     "these",
                     uname(&host) == 0 ? host.machine : "neither");
}

unsigned arch_memory_layout(uint64_t memory_bytes,
                            struct guest_range ret_ranges[GUEST_MEMORY_REGIONS_MAX])
{
    ret_ranges[0] = (struct guest_range){gpa(0), memory_bytes};
    return 1;
}

unsigned long arch_vm_type(int kvm_fd)
{
    (void)kvm_fd;
    return 0;
}

int arch_vm_new(int kvm_fd, int vm_fd, unsigned vcpus, struct arch_vm **ret_vm,
                struct bvmm_error *err)
{
    (void)kvm_fd;
    (void)vm_fd;
    (void)vcpus;
    (void)ret_vm;
    return arch_supported(err);
}

int arch_vm_add_legacy_timer(struct arch_vm *vm, struct bvmm_error *err)
{
    (void)vm;
    return arch_supported(err);
}

int arch_vcpu_init(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
{
    (void)vm;
    (void)index;
    (void)vcpu_fd;
    return arch_supported(err);
}

int arch_vm_finish(struct arch_vm *vm, struct bvmm_error *err)
{
    (void)vm;
    return arch_supported(err);
}

void arch_vm_free(struct arch_vm *vm)
{
    (void)vm;
}

int arch_cmdline(const char *user, const struct arch_window *virtio, unsigned virtio_count,
                 char *ret_text, size_t size, struct bvmm_error *err)
{
    (void)user;
    (void)virtio;
    (void)virtio_count;
    (void)ret_text;
    (void)size;
    return arch_supported(err);
}

int arch_load_kernel(struct arch_vm *vm, const struct guest_memory *memory,
                     const struct arch_boot_request *request, struct arch_boot *ret_boot,
                     struct bvmm_error *err)
{
    (void)vm;
    (void)memory;
    (void)request;
    (void)ret_boot;
    return arch_supported(err);
}

int arch_vcpu_boot(struct arch_vm *vm, unsigned index, int vcpu_fd, const struct arch_boot *boot,
                   struct bvmm_error *err)
{
    (void)vm;
    (void)index;
    (void)vcpu_fd;
    (void)boot;
    return arch_supported(err);
}

int arch_kernel_check(const struct arch_blob *kernel, struct bvmm_error *err)
{
    (void)kernel;
    return arch_supported(err);
}

int arch_kvm_probe(int kvm_fd, struct bvmm_error *err)
{
    (void)kvm_fd;
    return arch_supported(err);
}

bool arch_kvm_needs_probe(void)
{
    return false;
}
