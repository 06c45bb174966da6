/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* platform.c: where RAM and devices of the x86_64 machine are, and what the kernel is told. */
#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/load.h"
#include "arch/x86_64/layout.h"

#include <inttypes.h>
#include <stdio.h>

/*
 * Lines 0 to 15 also reach the old interrupt controllers, so a kernel without an I/O APIC driver
 * works with the first eight devices. Left out: 0 timer, 1 and 12 i8042, 2 cascade, 3 and 4 serial,
 * 8 clock, 13 FPU.
 */
#define WINDOW(where, address, size, line)                                                         \
    {                                                                                              \
        .bus = (where), .base = (address), .bytes = (size), .gsi = (line)                          \
    }
#define VIRTIO(slot, line)                                                                         \
    WINDOW(ARCH_BUS_MMIO, X86_VIRTIO + (slot)*ARCH_VIRTIO_WINDOW_BYTES, ARCH_VIRTIO_WINDOW_BYTES,  \
           line)
#define VIRTIO_WINDOWS                                                                             \
    {                                                                                              \
        VIRTIO(0, 5), VIRTIO(1, 6), VIRTIO(2, 7), VIRTIO(3, 9), VIRTIO(4, 10), VIRTIO(5, 11),      \
            VIRTIO(6, 14), VIRTIO(7, 15), VIRTIO(8, 16), VIRTIO(9, 17), VIRTIO(10, 18),            \
            VIRTIO(11, 19), VIRTIO(12, 20), VIRTIO(13, 21), VIRTIO(14, 22), VIRTIO(15, 23),        \
    }

const struct arch_platform arch_platform = {
    .isa = "x86_64",
    .serial = WINDOW(ARCH_BUS_PIO, 0x3f8, 8, 4),
    .i8042 = WINDOW(ARCH_BUS_PIO, 0x60, 5, 1),
    .i8042_aux = WINDOW(ARCH_BUS_PIO, 0, 0, 12),
    .virtio = VIRTIO_WINDOWS,
    .vcpus_max = 32,
    .cmdline_max_bytes = 2047,
};

const struct kvm_capability arch_kvm_capabilities[] = {
    {KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
};
const size_t arch_kvm_capability_count = ARRAY_SIZE(arch_kvm_capabilities);

unsigned arch_memory_layout(uint64_t memory_bytes,
                            struct guest_range ret_ranges[GUEST_MEMORY_REGIONS_MAX])
{
    ret_ranges[0] = (struct guest_range){gpa(0), min_u64(memory_bytes, X86_HOLE)};
    if (memory_bytes <= X86_HOLE) {
        return 1;
    }
    ret_ranges[1] = (struct guest_range){gpa(X86_HOLE_END), memory_bytes - X86_HOLE};
    return 2;
}

int arch_cmdline(const char *user, const struct arch_window *virtio, unsigned virtio_count,
                 char *ret_text, size_t size, struct bvmm_error *err)
{
    char addition[ARCH_VIRTIO_DEVICES_MAX * 48] = "";
    size_t used = 0;

    /* Without ACPI or PCI this is how Linux learns of virtio-mmio devices; the order is kept. */
    for (unsigned i = 0; i < virtio_count && i < ARCH_VIRTIO_DEVICES_MAX; i++) {
        int bytes = snprintf(addition + used, sizeof(addition) - used,
                             "%svirtio_mmio.device=4K@0x%" PRIx64 ":%u", i > 0 ? " " : "",
                             virtio[i].base, virtio[i].gsi);

        used += bytes > 0 ? (size_t)bytes : 0;
    }
    return cmdline_insert(user, addition, ret_text, size, err);
}

int arch_supported(struct bvmm_error *err)
{
    (void)err;
    return 0;
}
