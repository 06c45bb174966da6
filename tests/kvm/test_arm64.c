/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_arm64.c: guests of a few instructions on aarch64's KVM, made by bvmm's own arch code: PSCI,
 * device registers, interrupts by irqfd, doorbells by ioeventfd, and the probe.
 */
#if defined(__aarch64__)

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "arch/aarch64/gic.h"
#include "arch/aarch64/layout.h"
#include "arch/arch.h"
#include "arch/kvm.h"
#include "arch/limit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define MEMORY_BYTES (4 * MIB)
#define VCPUS_MAX 2
#define SKIPPED 77
#define RUN_LIMIT_NS (20 * NS_PER_SECOND)

/* GUEST_CODE(name, "instructions"): entered with MMU off, x0 = GUEST_X0, x20 = the serial port. */
#define GUEST_X0 0x1234
#define GUEST_CODE(name, text)                                                                     \
    extern const uint8_t name[] __attribute__((visibility("hidden")));                             \
    extern const uint8_t name##_end[] __attribute__((visibility("hidden")));                       \
    __asm__(".pushsection .rodata\n.balign 4\n" #name ":\nmov x20, #0x40000000\n" text             \
            "\n1: b 1b\n" #name "_end:\n.popsection\n")

struct guest {
    int kvm_fd;
    int vm_fd;
    struct guest_memory memory;
    struct arch_vm *vm;
    struct kvm_vcpu_handle vcpus[VCPUS_MAX];
    unsigned count;
};

static void check(int ret, const struct bvmm_error *err)
{
    if (ret != 0) {
        fail_msg("%d: %s", ret, err->message);
    }
}

static void guest_new(struct guest *guest, unsigned vcpus, const uint8_t *code, const uint8_t *end)
{
    const struct guest_range range = {gpa(ARM64_RAM), MEMORY_BYTES};
    const struct arch_boot boot = {
        .entry = ARCH_ENTRY_ARM64, .pc = gpa(ARM64_KERNEL), .data = gpa(GUEST_X0)};
    struct bvmm_error err;

    *guest = (struct guest){.count = vcpus};
    check(kvm_open(KVM_DEVICE_PATH, &guest->kvm_fd, &err), &err);
    check(kvm_create_vm(guest->kvm_fd, arch_vm_type(guest->kvm_fd), &guest->vm_fd, &err), &err);
    check(guest_memory_init(&guest->memory, &range, 1, &err), &err);
    check(kvm_set_memory(guest->vm_fd, &guest->memory, &err), &err);
    assert_int_equal(
        guest_memory_write(&guest->memory, gpa(ARM64_KERNEL), code, (size_t)(end - code)), 0);
    check(arch_vm_new(guest->kvm_fd, guest->vm_fd, vcpus, &guest->vm, &err), &err);
    for (unsigned i = 0; i < vcpus; i++) {
        check(kvm_create_vcpu(guest->kvm_fd, guest->vm_fd, i, &guest->vcpus[i], &err), &err);
        check(arch_vcpu_init(guest->vm, i, guest->vcpus[i].fd, &err), &err);
    }
    check(arch_vm_finish(guest->vm, &err), &err);
    for (unsigned i = 0; i < vcpus; i++) {
        check(arch_vcpu_boot(guest->vm, i, guest->vcpus[i].fd, &boot, &err), &err);
    }
}

static void guest_free(struct guest *guest)
{
    for (unsigned i = 0; i < guest->count; i++) {
        kvm_vcpu_close(&guest->vcpus[i]);
    }
    arch_vm_free(guest->vm);
    assert_int_equal(close(guest->vm_fd), 0);
    assert_int_equal(close(guest->kvm_fd), 0);
    guest_memory_fini(&guest->memory);
}

/* Run until the next exit; a guest that does not come to one fails the test. */
static struct kvm_run *run_until_exit(const struct guest *guest, unsigned index)
{
    const struct kvm_vcpu_handle *vcpu = &guest->vcpus[index];
    struct kvm_limit limit;
    struct bvmm_error err;
    int ret = 0;

    check(kvm_limit_begin(&limit, vcpu->run, RUN_LIMIT_NS, &err), &err);
    do {
        ret = kvm_run(vcpu);
    } while (ret == -EAGAIN);
    kvm_limit_end(&limit);
    assert_int_equal(ret, 0);
    return vcpu->run;
}

/* The next exit is a write of these bytes to the serial port's place. Returns the value. */
static uint64_t expect_write(const struct guest *guest, unsigned index, uint64_t address,
                             unsigned bytes)
{
    const struct kvm_run *run = run_until_exit(guest, index);
    uint64_t value = 0;

    if (run->exit_reason != KVM_EXIT_MMIO) {
        struct bvmm_error err;

        kvm_describe_exit(run, index, &err);
        fail_msg("expected a write to 0x%llx: %s", (unsigned long long)address, err.message);
    }
    assert_true(run->mmio.is_write);
    assert_int_equal(run->mmio.phys_addr, address);
    assert_int_equal(run->mmio.len, bytes);
    memcpy(&value, run->mmio.data, bytes);
    return value;
}

/* ---- Device registers -------------------------------------------------------------------------- */

GUEST_CODE(mmio_code, "strb w0, [x20, #3]\n"
                      "ldrb w1, [x20, #5]\n"
                      "add w1, w1, #1\n"
                      "str w1, [x20]\n");

static void test_registers(void **state)
{
    struct guest guest;
    struct kvm_run *run;

    (void)state;
    guest_new(&guest, 1, mmio_code, mmio_code_end);
    assert_int_equal(expect_write(&guest, 0, ARM64_SERIAL + 3, 1), GUEST_X0 & 0xff);
    run = run_until_exit(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_MMIO);
    assert_false(run->mmio.is_write);
    assert_int_equal(run->mmio.phys_addr, ARM64_SERIAL + 5);
    assert_int_equal(run->mmio.len, 1);
    run->mmio.data[0] = 0x60;
    assert_int_equal(expect_write(&guest, 0, ARM64_SERIAL, 4), 0x61);
    guest_free(&guest);
}

/* An instruction for which the processor does not say what it wanted: told with its address. */
GUEST_CODE(pair_code, "ldp w1, w2, [x20, #8]\n");

static void test_access_that_cannot_be_decoded(void **state)
{
    struct bvmm_error err = {0};
    struct guest guest;

    (void)state;
    guest_new(&guest, 1, pair_code, pair_code_end);
    kvm_describe_exit(run_until_exit(&guest, 0), 0, &err);
    assert_int_equal(err.kind, BVMM_ERROR_VCPU);
    assert_non_null(strstr(err.message, "0x40000008"));
    guest_free(&guest);
}

/* ---- PSCI ---------------------------------------------------------------------------------------- */

GUEST_CODE(off_code, "mov w0, #0x8\n movk w0, #0x8400, lsl #16\n hvc #0\n");
GUEST_CODE(reset_code, "mov w0, #0x9\n movk w0, #0x8400, lsl #16\n hvc #0\n");

static uint32_t system_event(const uint8_t *code, const uint8_t *end)
{
    struct guest guest;
    const struct kvm_run *run;
    uint32_t type = 0;

    guest_new(&guest, 1, code, end);
    run = run_until_exit(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_SYSTEM_EVENT);
    type = run->system_event.type;
    guest_free(&guest);
    return type;
}

static void test_off_and_reset(void **state)
{
    (void)state;
    assert_int_equal(system_event(off_code, off_code_end), KVM_SYSTEM_EVENT_SHUTDOWN);
    assert_int_equal(system_event(reset_code, reset_code_end), KVM_SYSTEM_EVENT_RESET);
}

/* Version, then CPU_ON of vCPU 1 at 2f with a number in x0, and what CPU_ON returned. */
GUEST_CODE(smp_code, "mov w0, #0\n movk w0, #0x8400, lsl #16\n hvc #0\n"
                     "str w0, [x20]\n"
                     "mov x0, #3\n movk x0, #0xc400, lsl #16\n"
                     "mov x1, #1\n"
                     "adr x2, 2f\n"
                     "mov x3, #0x77\n"
                     "hvc #0\n"
                     "str w0, [x20]\n"
                     "3: b 3b\n"
                     "2: mov x20, #0x40000000\n"
                     "str w0, [x20, #4]\n");

static void test_other_vcpus_wait_to_be_started(void **state)
{
    struct kvm_mp_state mp = {0};
    struct guest guest;

    (void)state;
    guest_new(&guest, 2, smp_code, smp_code_end);
    assert_int_equal(ioctl(guest.vcpus[1].fd, KVM_GET_MP_STATE, &mp), 0);
    assert_int_equal(mp.mp_state, KVM_MP_STATE_STOPPED);
    assert_true(expect_write(&guest, 0, ARM64_SERIAL, 4) >= 0x10000); /* PSCI 1.0 or later */
    assert_int_equal(expect_write(&guest, 0, ARM64_SERIAL, 4), 0);    /* CPU_ON: success */
    assert_int_equal(expect_write(&guest, 1, ARM64_SERIAL + 4, 4), 0x77);
    guest_free(&guest);
}

/* ---- Events ---------------------------------------------------------------------------------------- */

/* SPI 16 is INTID 48: made edge triggered, then looked for among the pending ones. */
GUEST_CODE(irq_code, "mov x1, #0x3fff0000\n"
                     "mov w2, #2\n"
                     "str w2, [x1, #0xc0c]\n" /* GICD_ICFGR3 */
                     "str w2, [x20]\n"
                     "2: ldr w3, [x1, #0x204]\n" /* GICD_ISPENDR1 */
                     "tbz w3, #16, 2b\n"
                     "str w3, [x20]\n");

static void test_interrupt(void **state)
{
    struct guest guest;
    struct bvmm_error err;
    int line = eventfd(0, EFD_CLOEXEC);

    (void)state;
    assert_int_equal(arch_platform.virtio[0].gsi, 16);
    guest_new(&guest, 1, irq_code, irq_code_end);
    check(kvm_irqfd(guest.vm_fd, line, arch_platform.virtio[0].gsi, &err), &err);
    assert_int_equal(expect_write(&guest, 0, ARM64_SERIAL, 4), 2);
    assert_int_equal(eventfd_write(line, 1), 0);
    assert_int_equal(expect_write(&guest, 0, ARM64_SERIAL, 4), 1 << 16);
    guest_free(&guest);
    assert_int_equal(close(line), 0);
}

/* QueueNotify of the first slot: value 1 rings, value 2 is nobody's and exits. */
GUEST_CODE(notify_code, "mov x1, #0x1050\n movk x1, #0x4000, lsl #16\n"
                        "mov w2, #1\n str w2, [x1]\n"
                        "mov w2, #2\n str w2, [x1]\n");

static void test_doorbell(void **state)
{
    const uint64_t queue = 1;
    struct guest guest;
    struct bvmm_error err;
    eventfd_t rung = 0;
    int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    (void)state;
    guest_new(&guest, 1, notify_code, notify_code_end);
    check(kvm_ioeventfd(guest.vm_fd, bell, ARCH_BUS_MMIO, ARM64_VIRTIO + 0x50, 4, &queue, &err),
          &err);
    assert_int_equal(expect_write(&guest, 0, ARM64_VIRTIO + 0x50, 4), 2);
    assert_int_equal(eventfd_read(bell, &rung), 0);
    assert_int_equal(rung, 1);
    guest_free(&guest);
    assert_int_equal(close(bell), 0);
}

/* ---- Machines --------------------------------------------------------------------------------------- */

static void test_numbers_of_vcpus(void **state)
{
    static const unsigned wrong[] = {0, ARM64_VCPUS_MAX + 1};
    struct bvmm_error err = {0};
    struct arch_vm *vm = NULL;
    int kvm_fd = -1;
    int vm_fd = -1;

    (void)state;
    check(kvm_open(KVM_DEVICE_PATH, &kvm_fd, &err), &err);
    check(kvm_create_vm(kvm_fd, arch_vm_type(kvm_fd), &vm_fd, &err), &err);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_int_equal(arch_vm_new(kvm_fd, vm_fd, wrong[i], &vm, &err), -EINVAL);
        assert_int_equal(err.kind, BVMM_ERROR_VCPU);
        assert_non_null(strstr(err.message, "expected 1 to 32"));
    }
    assert_int_equal(close(vm_fd), 0);
    assert_int_equal(close(kvm_fd), 0);
}

static void test_probe(void **state)
{
    struct bvmm_error err = {0};
    int kvm_fd = -1;
    int before = -1;
    int after = -1;

    (void)state;
    check(kvm_open(KVM_DEVICE_PATH, &kvm_fd, &err), &err);
    before = dup(kvm_fd);
    assert_int_equal(close(before), 0);
    assert_false(arch_kvm_needs_probe());
    for (unsigned i = 0; i < 3; i++) {
        check(arch_kvm_probe(kvm_fd, &err), &err);
    }
    after = dup(kvm_fd);
    assert_int_equal(after, before); /* no descriptor was left open */
    assert_int_equal(close(after), 0);
    /* On something that is no KVM it says so. */
    assert_true(arch_kvm_probe(STDERR_FILENO, &err) < 0);
    assert_int_equal(err.kind, BVMM_ERROR_KVM);
    assert_int_equal(close(kvm_fd), 0);
}

/* ---- The interrupt controller ------------------------------------------------------------------ */

/* The error kind Gic: a KVM that refuses a second one, and a host that can make neither. */
static void test_gic_that_cannot_be_had(void **state)
{
    struct guest guest;
    struct bvmm_error err;
    enum arm64_gic gic = ARM64_GIC_V3;
    int fd = -1;

    (void)state;
    guest_new(&guest, 1, off_code, off_code_end);
    check(gic_choose(guest.vm_fd, 1, &gic, &err), &err);
    assert_true(gic_create(guest.vm_fd, gic, 1, &fd, &err) < 0);
    assert_int_equal(err.kind, BVMM_ERROR_GIC);
    assert_non_null(strstr(err.message, "KVM_CREATE_DEVICE"));
    assert_int_equal(fd, -1);
    /* /dev/kvm itself knows nothing of devices: as a host without a usable controller. */
    assert_int_equal(gic_choose(guest.kvm_fd, 1, &gic, &err), -ENOTSUP);
    assert_int_equal(err.kind, BVMM_ERROR_GIC);
    assert_non_null(strstr(err.message, "neither a GICv3 nor a GICv2"));
    guest_free(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gic_that_cannot_be_had),
        cmocka_unit_test(test_registers),
        cmocka_unit_test(test_access_that_cannot_be_decoded),
        cmocka_unit_test(test_off_and_reset),
        cmocka_unit_test(test_other_vcpus_wait_to_be_started),
        cmocka_unit_test(test_interrupt),
        cmocka_unit_test(test_doorbell),
        cmocka_unit_test(test_numbers_of_vcpus),
        cmocka_unit_test(test_probe),
    };
    struct bvmm_error err;
    int fd = -1;

    if (kvm_open(KVM_DEVICE_PATH, &fd, &err) != 0) {
        (void)printf("skipped: %s\n", err.message);
        return SKIPPED;
    }
    (void)close(fd);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: the guest's code is for aarch64");
    return 77;
}

#endif
