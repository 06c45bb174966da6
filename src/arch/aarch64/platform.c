/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* platform.c: where RAM and devices of the aarch64 machine are. */
#include "arch/aarch64/machine.h"
#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/load.h"

#define WINDOW(where, address, size, line)                                                         \
    {                                                                                              \
        .bus = (where), .base = (address), .bytes = (size), .gsi = (line)                          \
    }
#define VIRTIO(slot)                                                                               \
    WINDOW(ARCH_BUS_MMIO, ARM64_VIRTIO + (slot)*ARCH_VIRTIO_WINDOW_BYTES,                          \
           ARCH_VIRTIO_WINDOW_BYTES, ARM64_SPI_VIRTIO + (slot))
#define VIRTIO_WINDOWS                                                                             \
    {                                                                                              \
        VIRTIO(0), VIRTIO(1), VIRTIO(2), VIRTIO(3), VIRTIO(4), VIRTIO(5), VIRTIO(6), VIRTIO(7),    \
            VIRTIO(8), VIRTIO(9), VIRTIO(10), VIRTIO(11), VIRTIO(12), VIRTIO(13), VIRTIO(14),      \
            VIRTIO(15),                                                                            \
    }

const struct arch_platform arch_platform = {
    .isa = "aarch64",
    .serial = WINDOW(ARCH_BUS_MMIO, ARM64_SERIAL, 8, ARM64_SPI_SERIAL),
    .i8042 = WINDOW(ARCH_BUS_NONE, 0, 0, 0), /* PSCI restarts the machine; nothing asks it to */
    .i8042_aux = WINDOW(ARCH_BUS_NONE, 0, 0, 0),
    .virtio = VIRTIO_WINDOWS,
    .vcpus_max = ARM64_VCPUS_MAX,
    .cmdline_max_bytes = ARM64_CMDLINE_MAX_BYTES,
};

const struct kvm_capability arch_kvm_capabilities[] = {
    {KVM_CAP_ONE_REG, "KVM_CAP_ONE_REG"},
    {KVM_CAP_ARM_PSCI_0_2, "KVM_CAP_ARM_PSCI_0_2"},
    {KVM_CAP_DEVICE_CTRL, "KVM_CAP_DEVICE_CTRL"},
};
const size_t arch_kvm_capability_count = ARRAY_SIZE(arch_kvm_capabilities);

unsigned arch_memory_layout(uint64_t memory_bytes,
                            struct guest_range ret_ranges[GUEST_MEMORY_REGIONS_MAX])
{
    ret_ranges[0] = (struct guest_range){gpa(ARM64_RAM), memory_bytes};
    return 1;
}

int arch_cmdline(const char *user, const struct arch_window *virtio, unsigned virtio_count,
                 char *ret_text, size_t size, struct bvmm_error *err)
{
    /*
     * The serial port's driver comes as late as any other device's, on x86 it comes first. What the
     * kernel says before (a panic, say) needs the early console, at the tree's stdout-path.
     */
    const bool early = cmdline_has(user, "console=ttyS0") && !cmdline_has(user, "earlycon");

    (void)virtio; /* the device tree lists them */
    (void)virtio_count;
    return cmdline_insert(user, early ? "earlycon" : "", ret_text, size, err);
}

int arch_kernel_check(const struct arch_blob *kernel, struct bvmm_error *err)
{
    return arm64_image_check(kernel, err);
}

int arch_supported(struct bvmm_error *err)
{
    (void)err;
    return 0;
}
