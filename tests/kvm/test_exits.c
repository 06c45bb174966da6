/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_exits.c: port and memory accesses of a guest arrive as exits, and answers get back. */
#if defined(__x86_64__)

#include "guest.h"

#define MMIO_ADDRESS 0xc0001000

GUEST_CODE(pio_code, "mov $0x5a, %al\n out %al, $0x42\n"
                     "mov $0x3fd, %dx\n in (%dx), %al\n"
                     "add $1, %al\n out %al, $0x43\n"
                     "mov $0x1234, %ax\n out %ax, $0x44\n"
                     "in $0x45, %eax\n out %eax, $0x46\n"
                     "hlt\n");

static void test_pio(void **state)
{
    static const uint32_t answer = 0xdeadbeef;
    struct guest guest;
    const struct kvm_run *run;

    (void)state;
    guest_new(&guest, 1, pio_code, pio_code_end);
    assert_int_equal(guest_expect_out(&guest, 0, 0x42), 0x5a);

    run = guest_run(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(run->io.direction, KVM_EXIT_IO_IN);
    assert_int_equal(run->io.port, 0x3fd);
    *guest_io_data(&guest, 0) = 0x60;
    assert_int_equal(guest_expect_out(&guest, 0, 0x43), 0x61);

    run = guest_run(&guest, 0);
    assert_int_equal(run->io.port, 0x44);
    assert_int_equal(run->io.size, 2);
    assert_memory_equal(guest_io_data(&guest, 0), "\x34\x12", 2);

    run = guest_run(&guest, 0);
    assert_int_equal(run->io.port, 0x45);
    assert_int_equal(run->io.size, 4);
    memcpy(guest_io_data(&guest, 0), &answer, 4);
    run = guest_run(&guest, 0);
    assert_int_equal(run->io.port, 0x46);
    assert_memory_equal(guest_io_data(&guest, 0), &answer, 4);
    guest_free(&guest);
}

GUEST_CODE(string_code, "cld\n lea text(%rip), %rsi\n mov $5, %ecx\n mov $0x3f8, %dx\n rep outsb\n"
                        "out %al, $0x42\n hlt\n"
                        "text: .ascii \"hello\"\n");

/* REP OUTS may come as one exit of 5, as 5 of one, or anything between. */
static void test_string_output(void **state)
{
    struct guest guest;
    const struct kvm_run *run;
    char seen[8] = "";
    size_t length = 0;

    (void)state;
    guest_new(&guest, 1, string_code, string_code_end);
    while (length < 5) {
        run = guest_run(&guest, 0);
        assert_int_equal(run->exit_reason, KVM_EXIT_IO);
        assert_int_equal(run->io.port, 0x3f8);
        assert_int_equal(run->io.size, 1);
        assert_true(run->io.count >= 1 && length + run->io.count <= 5);
        memcpy(seen + length, guest_io_data(&guest, 0), run->io.count);
        length += run->io.count;
    }
    assert_string_equal(seen, "hello");
    (void)guest_expect_out(&guest, 0, 0x42);
    guest_free(&guest);
}

GUEST_CODE(mmio_code, "mov $0xc0001000, %ebx\n"
                      "mov (%rbx), %eax\n"
                      "add $1, %eax\n"
                      "mov %eax, 0x70(%rbx)\n"
                      "movb $7, 0x100(%rbx)\n"
                      "out %al, $0x42\n hlt\n");

static void test_mmio(void **state)
{
    static const uint32_t magic = 0x74726976;
    struct guest guest;
    struct kvm_run *run;

    (void)state;
    guest_new(&guest, 1, mmio_code, mmio_code_end);
    run = guest.vcpus[0].run;
    (void)guest_run(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_MMIO);
    assert_int_equal(run->mmio.phys_addr, MMIO_ADDRESS);
    assert_int_equal(run->mmio.len, 4);
    assert_int_equal(run->mmio.is_write, 0);
    memcpy(run->mmio.data, &magic, sizeof(magic));
    (void)guest_run(&guest, 0);
    assert_int_equal(run->exit_reason, KVM_EXIT_MMIO);
    assert_int_equal(run->mmio.phys_addr, MMIO_ADDRESS + 0x70);
    assert_int_equal(run->mmio.is_write, 1);
    assert_memory_equal(run->mmio.data, "\x77irt", 4); /* little-endian magic, plus one */
    (void)guest_run(&guest, 0);
    assert_int_equal(run->mmio.phys_addr, MMIO_ADDRESS + 0x100);
    assert_int_equal(run->mmio.len, 1);
    assert_int_equal(run->mmio.data[0], 7);
    assert_int_equal(guest_expect_out(&guest, 0, 0x42), 0x77);
    guest_free(&guest);
}

GUEST_CODE(memory_code, "mov $0x1ffff8, %ebx\n"
                        "mov (%rbx), %rax\n add $1, %rax\n mov %rax, (%rbx)\n"
                        "out %al, $0x42\n hlt\n");

static void test_guest_memory_is_shared(void **state)
{
    struct guest guest;
    uint64_t *last;

    (void)state;
    guest_new(&guest, 1, memory_code, memory_code_end);
    last = guest_memory_at(&guest.memory, gpa(GUEST_MEMORY_BYTES - 8), 8);
    assert_non_null(last);
    *last = 0x1122334455667788;
    assert_int_equal(guest_expect_out(&guest, 0, 0x42), 0x89);
    assert_int_equal(*last, 0x1122334455667789);
    guest_free(&guest);
}

/* No IDT: the first fault has no handler, nor has the fault about that. */
GUEST_CODE(fault_code, "out %al, $0x42\n lidt empty_idt - fault_code + 0x10000\n ud2\n"
                       "empty_idt: .fill 10, 1, 0\n");

static void test_triple_fault(void **state)
{
    struct bvmm_error err;
    struct guest guest;
    const struct kvm_run *run;

    (void)state;
    guest_new(&guest, 1, fault_code, fault_code_end);
    (void)guest_expect_out(&guest, 0, 0x42);
    run = guest_run(&guest, 0);
    assert_string_equal(kvm_exit_name(run->exit_reason), "KVM_EXIT_SHUTDOWN");
    kvm_describe_exit(run, 0, &err);
    assert_int_equal(err.kind, BVMM_ERROR_VCPU);
    assert_non_null(strstr(err.message, "triple fault"));
    guest_free(&guest);
}

/* What can be done is said, and not only which call it was. */
static void test_memory_that_kvm_refuses(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct guest_memory memory = {.count = 1};
    struct guest guest;

    (void)state;
    guest_new(&guest, 1, pio_code, pio_code_end);
    memory.regions[0].range.base.v =
        1; /* no page begins there: EINVAL, as for too high an address */
    memory.regions[0].range.bytes = MIB;
    assert_int_equal(kvm_set_memory(guest.vm_fd, &memory, &err), -EINVAL);
    assert_int_equal(err.kind, BVMM_ERROR_MEMORY);
    assert_non_null(strstr(err.message, "KVM_SET_USER_MEMORY_REGION (1 MiB at 0x1): "));
    assert_non_null(strstr(err.message, "smaller $.memory_mib"));
    guest_free(&guest);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pio),          cmocka_unit_test(test_string_output),
        cmocka_unit_test(test_mmio),         cmocka_unit_test(test_guest_memory_is_shared),
        cmocka_unit_test(test_triple_fault), cmocka_unit_test(test_memory_that_kvm_refuses),
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
