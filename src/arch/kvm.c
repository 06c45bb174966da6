/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* kvm.c: KVM's ioctls with types, and with messages when they fail. */
#include "arch/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The API has been at 12 since 2007 and is meant to stay there. */
#define API_VERSION_EXPECTED 12

static const struct kvm_capability common_capabilities[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    {KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
};

int kvm_failed(struct bvmm_error *err, enum bvmm_error_kind kind, int code, const char *invalid,
               const char *fmt, ...)
{
    const char *hint = "the log of the host's kernel (dmesg) may say more";
    char what[160];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    if (code == -ENOMEM) {
        hint = "the host has too little memory: use a smaller $.memory_mib, or stop something else";
    } else if (code == -EPERM || code == -EACCES) {
        hint = "something forbids it: a security module (SELinux, AppArmor), or the system call "
               "filter of a container";
    } else if (code == -ENOSYS || code == -ENOTTY || code == -EOPNOTSUPP) {
        hint = "this host's kernel does not know it: use a newer one, with all of KVM in it";
    } else if (code == -EMFILE || code == -ENFILE) {
        return error_set(err, kind, code, "%s: %s", what,
                         error_text(-code)); /* which has the hint */
    } else if (invalid) {
        hint = invalid;
    }
    return error_set(err, kind, code, "%s: %s; %s", what, error_text(-code), hint);
}

static int ioctl_again(int fd, unsigned long request, void *argument)
{
    int ret;

    do {
        ret = ioctl(fd, request, argument);
    } while (ret < 0 && errno == EINTR);
    return ret < 0 ? -errno : ret;
}

/* The device node is there but not for us: who may open it? */
static int permission_error(const char *path, struct bvmm_error *err)
{
    struct stat status;
    struct group *group;
    char name[64];

    if (stat(path, &status) != 0) {
        return error_set(err, BVMM_ERROR_KVM, -EACCES, "cannot open %s: permission denied", path);
    }
    if ((status.st_mode & (S_IRGRP | S_IWGRP)) != (S_IRGRP | S_IWGRP)) {
        return error_set(err, BVMM_ERROR_KVM, -EACCES,
                         "cannot open %s: permission denied; only its owner (uid %u) may (mode "
                         "%04o): run as that user, or chgrp it to a group of yours and chmod g+rw",
                         path, status.st_uid, status.st_mode & 07777U);
    }
    group = getgrgid(status.st_gid); /* start-up has one thread: the static result is safe */
    if (group) {
        (void)snprintf(name, sizeof(name), "%s", group->gr_name);
    } else {
        (void)snprintf(name, sizeof(name), "%u", status.st_gid);
    }
    return error_set(err, BVMM_ERROR_KVM, -EACCES,
                     "cannot open %s: permission denied; join its group (usermod -aG %s USER, then "
                     "log in again) or run as root",
                     path, name);
}

static int open_error(const char *path, int code, struct bvmm_error *err)
{
    switch (code) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return error_set(err, BVMM_ERROR_KVM, -code,
                         "%s: %s; this host has no KVM: switch virtualization on in its firmware "
                         "and load the module (modprobe kvm_intel or kvm_amd), or, in a virtual "
                         "machine or container, have %s passed in",
                         path, error_text(code), path);
    case EACCES:
    case EPERM:
        return permission_error(path, err);
    default:
        return kvm_failed(err, BVMM_ERROR_KVM, -code, NULL, "cannot open %s", path);
    }
}

static int check_capabilities(int kvm_fd, const struct kvm_capability *list, size_t count,
                              const char *path, struct bvmm_error *err)
{
    for (size_t i = 0; i < count; i++) {
        if (kvm_extension(kvm_fd, list[i].id) <= 0) {
            return error_set(err, BVMM_ERROR_KVM, -ENOTSUP,
                             "%s lacks %s, which bvmm needs: use a newer host kernel", path,
                             list[i].name);
        }
    }
    return 0;
}

int kvm_open(const char *path, int *ret_kvm_fd, struct bvmm_error *err)
{
    int fd;
    int version;
    int ret = arch_supported(err);

    if (ret < 0) {
        return ret;
    }
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        return open_error(path, errno, err);
    }
    version = ioctl_again(fd, KVM_GET_API_VERSION, NULL);
    if (version < 0) {
        (void)close(fd);
        return kvm_failed(
            err, BVMM_ERROR_KVM, version,
            "expected the device that the module kvm makes (character device 10, 232)",
            "%s is not KVM: asked for its version", path);
    }
    if (version != API_VERSION_EXPECTED) {
        (void)close(fd);
        return error_set(
            err, BVMM_ERROR_KVM, -ENOTSUP,
            "%s speaks KVM API version %d, expected %d: use a host kernel of 2.6.22 or "
            "later",
            path, version, API_VERSION_EXPECTED);
    }
    ret = check_capabilities(fd, common_capabilities, ARRAY_SIZE(common_capabilities), path, err);
    if (ret == 0) {
        ret = check_capabilities(fd, arch_kvm_capabilities, arch_kvm_capability_count, path, err);
    }
    if (ret != 0) {
        (void)close(fd);
        return ret;
    }
    *ret_kvm_fd = fd;
    return 0;
}

int kvm_extension(int fd, int capability)
{
    int value;

    do {
        value = ioctl(fd, KVM_CHECK_EXTENSION, (unsigned long)capability);
    } while (value < 0 && errno == EINTR);
    return value < 0 ? 0 : value;
}

int kvm_create_vm(int kvm_fd, unsigned long type, int *ret_vm_fd, struct bvmm_error *err)
{
    int fd;

    do {
        fd = ioctl(kvm_fd, KVM_CREATE_VM, type);
    } while (fd < 0 && errno == EINTR);
    if (fd < 0) {
        return kvm_failed(err, BVMM_ERROR_KVM, -errno,
                          errno == EBUSY
                              ? "another hypervisor (VirtualBox, VMware) has the processor's "
                                "virtualization: stop it"
                              : "this host's processor or kernel cannot make such a VM",
                          "KVM_CREATE_VM (type %lu)", type);
    }
    *ret_vm_fd = fd;
    return 0;
}

int kvm_set_memory(int vm_fd, const struct guest_memory *memory, struct bvmm_error *err)
{
    for (unsigned i = 0; i < memory->count; i++) {
        const struct guest_region *region = &memory->regions[i];
        struct kvm_userspace_memory_region slot = {
            .slot = i,
            .guest_phys_addr = region->range.base.v,
            .memory_size = region->range.bytes,
            .userspace_addr = (uintptr_t)region->host,
        };
        int ret = ioctl_again(vm_fd, KVM_SET_USER_MEMORY_REGION, &slot);

        if (ret < 0) {
            return kvm_failed(
                err, BVMM_ERROR_MEMORY, ret,
                "this host's processor or KVM cannot give a guest so much memory: use a "
                "smaller $.memory_mib",
                "KVM_SET_USER_MEMORY_REGION (%" PRIu64 " MiB at 0x%" PRIx64 ")",
                region->range.bytes / MIB, region->range.base.v);
        }
    }
    return 0;
}

int kvm_irqfd(int vm_fd, int event_fd, uint32_t gsi, struct bvmm_error *err)
{
    struct kvm_irqfd irqfd = {.fd = (uint32_t)event_fd, .gsi = gsi};
    int ret = ioctl_again(vm_fd, KVM_IRQFD, &irqfd);

    if (ret < 0) {
        return kvm_failed(err, BVMM_ERROR_KVM, ret, NULL, "KVM_IRQFD (line %u)", gsi);
    }
    return 0;
}

int kvm_ioeventfd(int vm_fd, int event_fd, enum arch_bus bus, uint64_t address, uint32_t bytes,
                  const uint64_t *match, struct bvmm_error *err)
{
    struct kvm_ioeventfd ioeventfd = {
        .addr = address,
        .len = bytes,
        .fd = event_fd,
        .datamatch = match ? *match : 0,
        .flags = (bus == ARCH_BUS_PIO ? KVM_IOEVENTFD_FLAG_PIO : 0U) |
                 (match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0U),
    };
    int ret = ioctl_again(vm_fd, KVM_IOEVENTFD, &ioeventfd);

    if (ret < 0) {
        return kvm_failed(err, BVMM_ERROR_KVM, ret, NULL,
                          "KVM_IOEVENTFD (%s 0x%" PRIx64 ", %u bytes)",
                          bus == ARCH_BUS_PIO ? "port" : "address", address, bytes);
    }
    return 0;
}

int kvm_create_vcpu(int kvm_fd, int vm_fd, unsigned index, struct kvm_vcpu_handle *ret_vcpu,
                    struct bvmm_error *err)
{
    struct kvm_vcpu_handle vcpu = {.fd = -1};
    int run_bytes = ioctl_again(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, NULL);

    if (run_bytes < (int)sizeof(struct kvm_run)) {
        return error_set(err, BVMM_ERROR_VCPU, -EIO,
                         "KVM_GET_VCPU_MMAP_SIZE said %d, expected at least %zu bytes: use a newer "
                         "host kernel",
                         run_bytes, sizeof(struct kvm_run));
    }
    vcpu.run_bytes = (size_t)run_bytes;
    do {
        vcpu.fd = ioctl(vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    } while (vcpu.fd < 0 && errno == EINTR);
    if (vcpu.fd < 0) {
        return kvm_failed(err, BVMM_ERROR_VCPU, -errno,
                          "this host's KVM may have no more for one VM: use fewer $.vcpus",
                          "KVM_CREATE_VCPU (number %u)", index);
    }
    vcpu.run = mmap(NULL, vcpu.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu.fd, 0);
    if (vcpu.run == MAP_FAILED) {
        int code = errno;

        (void)close(vcpu.fd);
        return kvm_failed(err, BVMM_ERROR_VCPU, -code, NULL, "cannot map the run page of vCPU %u",
                          index);
    }
    *ret_vcpu = vcpu;
    return 0;
}

void kvm_vcpu_close(struct kvm_vcpu_handle *vcpu)
{
    if (vcpu->run) {
        (void)munmap(vcpu->run, vcpu->run_bytes);
    }
    if (vcpu->fd >= 0) {
        (void)close(vcpu->fd);
    }
    *vcpu = (struct kvm_vcpu_handle){.fd = -1};
}

int kvm_run(const struct kvm_vcpu_handle *vcpu)
{
    return ioctl(vcpu->fd, KVM_RUN, 0) < 0 ? -errno : 0;
}

const char *kvm_exit_name(uint32_t exit_reason)
{
    static const char *const names[] = {
#define NAME(exit) [exit] = #exit
        NAME(KVM_EXIT_UNKNOWN),
        NAME(KVM_EXIT_EXCEPTION),
        NAME(KVM_EXIT_IO),
        NAME(KVM_EXIT_HYPERCALL),
        NAME(KVM_EXIT_DEBUG),
        NAME(KVM_EXIT_HLT),
        NAME(KVM_EXIT_MMIO),
        NAME(KVM_EXIT_IRQ_WINDOW_OPEN),
        NAME(KVM_EXIT_SHUTDOWN),
        NAME(KVM_EXIT_FAIL_ENTRY),
        NAME(KVM_EXIT_INTR),
        NAME(KVM_EXIT_SET_TPR),
        NAME(KVM_EXIT_TPR_ACCESS),
        NAME(KVM_EXIT_NMI),
        NAME(KVM_EXIT_INTERNAL_ERROR),
        NAME(KVM_EXIT_SYSTEM_EVENT),
        NAME(KVM_EXIT_IOAPIC_EOI),
        NAME(KVM_EXIT_ARM_NISV),
        NAME(KVM_EXIT_X86_BUS_LOCK),
#undef NAME
    };
    const char *name = exit_reason < ARRAY_SIZE(names) ? names[exit_reason] : NULL;

    return name ? name : "KVM_EXIT_?";
}

static void describe_internal_error(const struct kvm_run *run, unsigned index,
                                    struct bvmm_error *err)
{
    char code[3 * 15 + 1] = "";
    unsigned bytes = 0;

    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION &&
        run->emulation_failure.ndata >= 3 &&
        (run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)) {
        bytes = (unsigned)min_u64(run->emulation_failure.insn_size, 15);
    }
    for (unsigned i = 0; i < bytes; i++) {
        (void)snprintf(code + (size_t)3 * i, 4, " %02x", run->emulation_failure.insn_bytes[i]);
    }
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION) {
        (void)error_set(err, BVMM_ERROR_VCPU, 0,
                        "vCPU %u stopped: KVM cannot emulate an instruction of the guest's%s%s; if "
                        "this host's KVM has no hardware underneath, no Linux guest runs on it",
                        index, bytes ? ", code bytes" : "", code);
    } else {
        (void)error_set(
            err, BVMM_ERROR_VCPU, 0,
            "vCPU %u stopped: KVM internal error %u; it is the host's, whose kernel's log "
            "(dmesg) may say more: try a newer kernel there",
            index, run->internal.suberror);
    }
}

void kvm_describe_exit(const struct kvm_run *run, unsigned index, struct bvmm_error *err)
{
    switch (run->exit_reason) {
    case KVM_EXIT_INTERNAL_ERROR:
        describe_internal_error(run, index, err);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        (void)error_set(err, BVMM_ERROR_VCPU, 0,
                        "vCPU %u stopped: the processor refused to enter the guest, reason 0x%llx "
                        "(on CPU %u); the log of the host's kernel (dmesg) may say more, and in a "
                        "virtual machine its own host's KVM may be at fault",
                        index, (unsigned long long)run->fail_entry.hardware_entry_failure_reason,
                        run->fail_entry.cpu);
        break;
    case KVM_EXIT_ARM_NISV:
        (void)error_set(
            err, BVMM_ERROR_VCPU, 0,
            "vCPU %u stopped: the guest accessed address 0x%llx, where no RAM is, by an "
            "instruction that KVM cannot carry out for a device",
            index, (unsigned long long)run->arm_nisv.fault_ipa);
        break;
    case KVM_EXIT_SHUTDOWN:
        (void)error_set(err, BVMM_ERROR_VCPU, 0,
                        "vCPU %u stopped: the guest shut the processor down (triple fault)", index);
        break;
    default:
        (void)error_set(err, BVMM_ERROR_VCPU, 0, "vCPU %u stopped: %s (%u)", index,
                        kvm_exit_name(run->exit_reason), run->exit_reason);
        break;
    }
}
