/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * guest.h: a machine of a few instructions on the host's /dev/kvm, made by bvmm's own arch code.
 *
 * The code is assembly in the test's C file (GUEST_CODE), copied to GUEST_CODE_ADDRESS and entered
 * there in long mode, the first 4 GiB mapped one to one; or at any page below 1 MiB in real mode.
 * KVM without hardware underneath interprets it: plain instructions only, no IRETQ.
 */
#ifndef BVMM_TESTS_KVM_GUEST_H
#define BVMM_TESTS_KVM_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/x86_64/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define GUEST_MEMORY_BYTES (2 * MIB)
#define GUEST_CODE_ADDRESS 0x10000U
#define GUEST_VCPUS_MAX 4
#define SKIPPED 77

/* GUEST_CODE(name, "instructions"): name and name_end are its bounds here. */
#define GUEST_CODE_BITS(name, bits, text)                                                          \
    extern const uint8_t name[];                                                                   \
    extern const uint8_t name##_end[];                                                             \
    __asm__(".pushsection .rodata\n.code" #bits "\n" #name ":\n" text "\n" #name "_end:\n"         \
            ".code64\n.popsection\n")
#define GUEST_CODE(name, text) GUEST_CODE_BITS(name, 64, text)
#define GUEST_CODE_REAL(name, text) GUEST_CODE_BITS(name, 16, text)

struct guest {
    int kvm_fd;
    int vm_fd;
    struct guest_memory memory;
    struct arch_vm *vm;
    struct kvm_vcpu_handle vcpus[GUEST_VCPUS_MAX];
    unsigned count;
};

/* Says why and returns true if this host has no /dev/kvm for us: main() then returns SKIPPED. */
static inline bool guest_impossible(void)
{
    struct bvmm_error err;
    int fd;

    if (kvm_open(KVM_DEVICE_PATH, &fd, &err) == 0) {
        (void)close(fd);
        return false;
    }
    (void)printf("skipped: %s\n", err.message);
    return true;
}

/* cmocka's assertions, with the sentence that bvmm would print. */
static inline void guest_check(int ret, const struct bvmm_error *err)
{
    if (ret != 0) {
        fail_msg("%d: %s", ret, err->message);
    }
}

static inline void guest_place(const struct guest *guest, uint64_t address, const uint8_t *code,
                               const uint8_t *code_end)
{
    assert_int_equal(
        guest_memory_write(&guest->memory, gpa(address), code, (size_t)(code_end - code)), 0);
}

static inline void guest_new(struct guest *guest, unsigned vcpus, const uint8_t *code,
                             const uint8_t *code_end)
{
    struct guest_range range = {{0}, GUEST_MEMORY_BYTES};
    struct arch_boot boot = {.entry = ARCH_ENTRY_LINUX64, .pc = {GUEST_CODE_ADDRESS}};
    struct bvmm_error err;

    *guest = (struct guest){.count = vcpus};
    guest_check(kvm_open(KVM_DEVICE_PATH, &guest->kvm_fd, &err), &err);
    guest_check(kvm_create_vm(guest->kvm_fd, arch_vm_type(guest->kvm_fd), &guest->vm_fd, &err),
                &err);
    guest_check(guest_memory_init(&guest->memory, &range, 1, &err), &err);
    guest_check(kvm_set_memory(guest->vm_fd, &guest->memory, &err), &err);
    assert_int_equal(x86_write_long_mode_tables(&guest->memory), 0);
    guest_place(guest, GUEST_CODE_ADDRESS, code, code_end);
    guest_check(arch_vm_new(guest->kvm_fd, guest->vm_fd, vcpus, &guest->vm, &err), &err);
    for (unsigned i = 0; i < vcpus; i++) {
        struct kvm_vcpu_handle *vcpu = &guest->vcpus[i];

        guest_check(kvm_create_vcpu(guest->kvm_fd, guest->vm_fd, i, vcpu, &err), &err);
        guest_check(arch_vcpu_init(guest->vm, i, vcpu->fd, &err), &err);
    }
    guest_check(arch_vm_finish(guest->vm, &err), &err);
    for (unsigned i = 0; i < vcpus; i++) {
        guest_check(arch_vcpu_boot(guest->vm, i, guest->vcpus[i].fd, &boot, &err), &err);
    }
}

static inline void guest_free(struct guest *guest)
{
    for (unsigned i = 0; i < guest->count; i++) {
        kvm_vcpu_close(&guest->vcpus[i]);
    }
    arch_vm_free(guest->vm);
    assert_int_equal(close(guest->vm_fd), 0);
    assert_int_equal(close(guest->kvm_fd), 0);
    guest_memory_fini(&guest->memory);
}

/* Put vCPU 0 into real mode at GUEST_CODE_ADDRESS (CS base there, IP 0), data segments at 0. */
static inline void guest_enter_real_mode(const struct guest *guest)
{
    struct kvm_segment data = {.limit = 0xffff, .type = 3, .present = 1, .s = 1};
    struct kvm_regs regs = {.rflags = 2, .rsp = 0x7000};
    struct kvm_sregs sregs;
    int fd = guest->vcpus[0].fd;

    assert_int_equal(ioctl(fd, KVM_GET_SREGS, &sregs), 0);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
    sregs.cs = data;
    sregs.cs.type = 11;
    sregs.cs.base = GUEST_CODE_ADDRESS;
    sregs.cs.selector = GUEST_CODE_ADDRESS / 16;
    sregs.idt = (struct kvm_dtable){.base = 0, .limit = 0x3ff};
    sregs.cr0 = 0x10;
    sregs.cr3 = 0;
    sregs.cr4 = 0;
    sregs.efer = 0;
    assert_int_equal(ioctl(fd, KVM_SET_SREGS, &sregs), 0);
    assert_int_equal(ioctl(fd, KVM_SET_REGS, &regs), 0);
}

/* Run until the next exit to user space that is no signal. */
static inline const struct kvm_run *guest_run(const struct guest *guest, unsigned index)
{
    const struct kvm_vcpu_handle *vcpu = &guest->vcpus[index];
    int ret;

    do {
        ret = kvm_run(vcpu);
    } while (ret == -EINTR || ret == -EAGAIN);
    assert_int_equal(ret, 0);
    return vcpu->run;
}

static inline uint8_t *guest_io_data(const struct guest *guest, unsigned index)
{
    struct kvm_run *run = guest->vcpus[index].run;

    return (uint8_t *)run + run->io.data_offset;
}

/* Run on, and expect one byte written to this port. Returns the byte. */
static inline uint8_t guest_expect_out(const struct guest *guest, unsigned index, uint16_t port)
{
    const struct kvm_run *run = guest_run(guest, index);

    if (run->exit_reason != KVM_EXIT_IO) {
        struct bvmm_error err;

        kvm_describe_exit(run, index, &err);
        fail_msg("expected an OUT to port 0x%x: %s", port, err.message);
    }
    assert_int_equal(run->io.direction, KVM_EXIT_IO_OUT);
    assert_int_equal(run->io.port, port);
    assert_int_equal(run->io.size, 1);
    assert_int_equal(run->io.count, 1);
    return *guest_io_data(guest, index);
}

#endif
