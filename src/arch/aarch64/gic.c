/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* gic.c: see gic.h. */
#include "arch/aarch64/gic.h"

#include <errno.h>
#include <linux/kvm.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "arch/kvm.h"

static uint32_t device_type(enum arm64_gic gic)
{
    return gic == ARM64_GIC_V3 ? KVM_DEV_TYPE_ARM_VGIC_V3 : KVM_DEV_TYPE_ARM_VGIC_V2;
}

/* The descriptor, or 0 for a test; or -errno. */
static int create_device(int vm_fd, enum arm64_gic gic, uint32_t flags)
{
    struct kvm_create_device device = {.type = device_type(gic), .flags = flags};

    if (ioctl(vm_fd, KVM_CREATE_DEVICE, &device) < 0) {
        return -errno;
    }
    return flags & KVM_CREATE_DEVICE_TEST ? 0 : (int)device.fd;
}

int gic_choose(int vm_fd, unsigned vcpus, enum arm64_gic *ret_gic, struct bvmm_error *err)
{
    int ret = 0;

    if (create_device(vm_fd, ARM64_GIC_V3, KVM_CREATE_DEVICE_TEST) == 0) {
        *ret_gic = ARM64_GIC_V3;
        return 0;
    }
    ret = create_device(vm_fd, ARM64_GIC_V2, KVM_CREATE_DEVICE_TEST);
    if (ret < 0) {
        return error_set(err, BVMM_ERROR_GIC, -ENOTSUP,
                         "this host's KVM can make neither a GICv3 nor a GICv2 (%s): its own "
                         "interrupt controller has no support for virtual machines, or the kernel "
                         "was not told of it",
                         error_text(-ret));
    }
    if (vcpus > ARM64_GICV2_VCPUS_MAX) {
        return error_set(err, BVMM_ERROR_GIC, -ENOTSUP,
                         "%u vCPUs: this host's KVM can only make a GICv2, which has at most %d",
                         vcpus, ARM64_GICV2_VCPUS_MAX);
    }
    *ret_gic = ARM64_GIC_V2;
    return 0;
}

static int set_attribute(int gic_fd, uint32_t group, uint64_t attribute, void *value,
                         const char *what, struct bvmm_error *err)
{
    struct kvm_device_attr attr = {
        .group = group, .attr = attribute, .addr = (uint64_t)(uintptr_t)value};

    if (ioctl(gic_fd, KVM_SET_DEVICE_ATTR, &attr) < 0) {
        return kvm_failed(err, BVMM_ERROR_GIC, -errno, NULL, "the GIC's %s", what);
    }
    return 0;
}

static int set_addresses(int gic_fd, enum arm64_gic gic, unsigned vcpus, struct bvmm_error *err)
{
    const bool is_v3 = gic == ARM64_GIC_V3;
    uint64_t dist = ARM64_GIC_DIST;
    uint64_t other =
        is_v3 ? ARM64_GIC_DIST - (uint64_t)vcpus * ARM64_GICV3_REDIST_BYTES : ARM64_GICV2_CPU;
    int ret = set_attribute(gic_fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
                            is_v3 ? KVM_VGIC_V3_ADDR_TYPE_DIST : KVM_VGIC_V2_ADDR_TYPE_DIST, &dist,
                            "distributor address", err);

    if (ret == 0) {
        ret = set_attribute(gic_fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
                            is_v3 ? KVM_VGIC_V3_ADDR_TYPE_REDIST : KVM_VGIC_V2_ADDR_TYPE_CPU,
                            &other, is_v3 ? "redistributor address" : "CPU interface address", err);
    }
    return ret;
}

int gic_create(int vm_fd, enum arm64_gic gic, unsigned vcpus, int *ret_fd, struct bvmm_error *err)
{
    uint32_t interrupts = ARM64_GIC_INTERRUPTS;
    int fd = create_device(vm_fd, gic, 0);
    int ret = 0;

    if (fd < 0) {
        return kvm_failed(err, BVMM_ERROR_GIC, fd, NULL, "KVM_CREATE_DEVICE (GICv%d)",
                          gic == ARM64_GIC_V3 ? 3 : 2);
    }
    ret = set_addresses(fd, gic, vcpus, err);
    if (ret == 0) {
        ret = set_attribute(fd, KVM_DEV_ARM_VGIC_GRP_NR_IRQS, 0, &interrupts,
                            "number of interrupts", err);
    }
    if (ret == 0) {
        ret = set_attribute(fd, KVM_DEV_ARM_VGIC_GRP_CTRL, KVM_DEV_ARM_VGIC_CTRL_INIT, NULL,
                            "start", err);
    }
    if (ret != 0) {
        (void)close(fd);
        return ret;
    }
    *ret_fd = fd;
    return 0;
}
