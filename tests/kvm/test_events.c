/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_events.c: ioeventfd and irqfd: a device hears of its guest, and is heard, without exits. */
#if defined(__x86_64__)

#include "guest.h"

#include <sys/eventfd.h>

static int event_new(void)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    assert_true(fd >= 0);
    return fd;
}

/* How often it was signalled since the last look. */
static uint64_t event_count(int fd)
{
    uint64_t count = 0;

    if (read(fd, &count, sizeof(count)) < 0) {
        assert_int_equal(errno, EAGAIN);
    }
    return count;
}

static void event_signal(int fd)
{
    uint64_t one = 1;

    assert_int_equal(write(fd, &one, sizeof(one)), sizeof(one));
}

GUEST_CODE(notify_code, "mov $0xc0001050, %ebx\n"
                        "movl $0, (%rbx)\n" /* QueueNotify of queue 0: taken */
                        "movl $1, (%rbx)\n" /* queue 1: taken by the second */
                        "movl $1, (%rbx)\n"
                        "movl $2, (%rbx)\n"              /* queue 2: nobody's, so an exit */
                        "mov $9, %al\n out %al, $0x80\n" /* a port, any value: taken */
                        "out %al, $0x42\n hlt\n");

static void test_ioeventfd(void **state)
{
    static const uint64_t queues[] = {0, 1};
    struct bvmm_error err;
    struct guest guest;
    struct kvm_run *run;
    int queue_events[2];
    int port_event = event_new();

    (void)state;
    guest_new(&guest, 1, notify_code, notify_code_end);
    run = guest.vcpus[0].run;
    for (unsigned i = 0; i < 2; i++) {
        queue_events[i] = event_new();
        guest_check(kvm_ioeventfd(guest.vm_fd, queue_events[i], ARCH_BUS_MMIO, 0xc0001050, 4,
                                  &queues[i], &err),
                    &err);
    }
    guest_check(kvm_ioeventfd(guest.vm_fd, port_event, ARCH_BUS_PIO, 0x80, 1, NULL, &err), &err);
    /* The same twice is refused, and said so. */
    assert_int_equal(kvm_ioeventfd(guest.vm_fd, port_event, ARCH_BUS_PIO, 0x80, 1, NULL, &err),
                     -EEXIST);
    assert_non_null(strstr(err.message, "port 0x80"));

    (void)guest_run(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_MMIO);
    assert_int_equal(run->mmio.phys_addr, 0xc0001050);
    assert_int_equal(run->mmio.data[0], 2);
    assert_int_equal(event_count(queue_events[0]), 1);
    assert_int_equal(event_count(queue_events[1]), 2);
    assert_int_equal(event_count(port_event), 0);
    (void)guest_expect_out(&guest, 0, 0x42);
    assert_int_equal(event_count(port_event), 1);
    assert_int_equal(close(queue_events[0]) | close(queue_events[1]) | close(port_event), 0);
    guest_free(&guest);
}

/*
 * Real mode and the old interrupt controllers, as a kernel finds them: vectors from 0x20, all lines
 * open. The handler for line 5 counts, tells the count to port 0x42, and returns.
 */
GUEST_CODE_REAL(pic_code, "mov $0x11, %al\n out %al, $0x20\n"
                          "mov $0x20, %al\n out %al, $0x21\n"
                          "mov $4, %al\n out %al, $0x21\n"
                          "mov $1, %al\n out %al, $0x21\n"
                          "mov $0, %al\n out %al, $0x21\n"
                          "movw $(pic_handler - pic_code), 0x25 * 4\n"
                          "mov %cs, %ax\n mov %ax, 0x25 * 4 + 2\n"
                          "xor %bl, %bl\n"
                          "out %al, $0x41\n"
                          "sti\n"
                          "1: hlt\n jmp 1b\n"
                          "pic_handler:\n"
                          "inc %bl\n mov %bl, %al\n out %al, $0x42\n"
                          "mov $0x20, %al\n out %al, $0x20\n"
                          "iret\n");

static void test_irqfd_through_pic(void **state)
{
    struct bvmm_error err;
    struct guest guest;
    int line = event_new();

    (void)state;
    guest_new(&guest, 1, pic_code, pic_code_end);
    guest_enter_real_mode(&guest);
    guest_check(kvm_irqfd(guest.vm_fd, line, arch_platform.virtio[0].gsi, &err), &err);
    assert_int_equal(arch_platform.virtio[0].gsi, 5);
    (void)guest_expect_out(&guest, 0, 0x41);
    for (uint8_t i = 1; i <= 100; i++) {
        event_signal(line);
        assert_int_equal(guest_expect_out(&guest, 0, 0x42), i);
    }
    assert_int_equal(close(line), 0);
    guest_free(&guest);
}

/*
 * Long mode, local APIC and I/O APIC: line 16 (the ninth virtio device) is vector 0x40. The handler
 * acknowledges and starts over, because IRETQ is more than a software KVM knows.
 */
#define IDT_ADDRESS 0x2000
GUEST_CODE(ioapic_code, "lidt idt_pointer - ioapic_code + 0x10000\n"
                        "mov $0xfee00000, %ebx\n"
                        "movl $0x1ff, 0xf0(%rbx)\n" /* local APIC on */
                        "mov $0xfec00000, %ebp\n"
                        "movl $0x31, (%rbp)\n movl $0, 0x10(%rbp)\n"    /* line 16: to APIC 0 */
                        "movl $0x30, (%rbp)\n movl $0x40, 0x10(%rbp)\n" /* vector 0x40, edge */
                        "xor %ecx, %ecx\n"
                        "out %al, $0x41\n"
                        "1: mov $0x8000, %esp\n"
                        "sti\n"
                        "2: hlt\n jmp 2b\n"
                        "ioapic_handler:\n"
                        "inc %ecx\n mov %ecx, %eax\n out %al, $0x42\n"
                        "movl $0, 0xb0(%rbx)\n" /* EOI */
                        "jmp 1b\n"
                        "idt_pointer: .word 0x41 * 16 - 1\n .quad 0x2000\n");
extern const uint8_t ioapic_handler[];

static void test_irqfd_through_ioapic(void **state)
{
    uint32_t handler = GUEST_CODE_ADDRESS + (uint32_t)(ioapic_handler - ioapic_code);
    uint16_t gate[8] = {(uint16_t)handler, X86_SELECTOR_CODE, 0x8e00, (uint16_t)(handler >> 16)};
    struct bvmm_error err;
    struct guest guest;
    int line = event_new();

    (void)state;
    guest_new(&guest, 1, ioapic_code, ioapic_code_end);
    assert_int_equal(guest_memory_write(&guest.memory, gpa(IDT_ADDRESS + 0x40 * sizeof(gate)), gate,
                                        sizeof(gate)),
                     0);
    assert_int_equal(arch_platform.virtio[8].gsi, 16);
    guest_check(kvm_irqfd(guest.vm_fd, line, arch_platform.virtio[8].gsi, &err), &err);
    (void)guest_expect_out(&guest, 0, 0x41);
    for (uint8_t i = 1; i <= 100; i++) {
        event_signal(line);
        assert_int_equal(guest_expect_out(&guest, 0, 0x42), i);
    }
    assert_int_equal(close(line), 0);
    guest_free(&guest);
}

static void test_irqfd_line_must_exist(void **state)
{
    struct bvmm_error err;
    struct guest guest;
    int line = event_new();

    (void)state;
    guest_new(&guest, 1, notify_code, notify_code_end);
    guest_check(kvm_irqfd(guest.vm_fd, line, 5, &err), &err);
    assert_int_equal(kvm_irqfd(guest.vm_fd, line, 5, &err), -EBUSY); /* one line for one fd */
    assert_int_equal(err.kind, BVMM_ERROR_KVM);
    assert_non_null(strstr(err.message, "line 5"));
    assert_int_equal(close(line), 0);
    guest_free(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ioeventfd),
        cmocka_unit_test(test_irqfd_through_pic),
        cmocka_unit_test(test_irqfd_through_ioapic),
        cmocka_unit_test(test_irqfd_line_must_exist),
    };

    return guest_impossible() ? SKIPPED : cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: the guest's code is for x86_64");
    return 77;
}

#endif
