/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_guest_memory.c: every address and length is inside one region or refused; guards hold. */
#include "virtio/guest_memory.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define LOW_BASE (1 * MIB)
#define LOW_BYTES (3 * MIB)
#define HIGH_BASE (4 * GIB)
#define HIGH_BYTES (64 * KIB)

static const struct guest_range two_ranges[] = {
    {{LOW_BASE}, LOW_BYTES},
    {{HIGH_BASE}, HIGH_BYTES},
};

static int set_up(void **state)
{
    static struct guest_memory memory;

    *state = &memory;
    return guest_memory_init(&memory, two_ranges, ARRAY_SIZE(two_ranges), NULL);
}

static int tear_down(void **state)
{
    guest_memory_fini(*state);
    guest_memory_fini(*state); /* twice is fine */
    return 0;
}

static void test_bounds(void **state)
{
    const struct guest_memory *memory = *state;
    static const struct {
        uint64_t address;
        uint64_t bytes;
        bool inside;
    } rows[] = {
        {LOW_BASE, 1, true},
        {LOW_BASE, LOW_BYTES, true},
        {LOW_BASE, LOW_BYTES + 1, false},
        {LOW_BASE - 1, 1, false},
        {LOW_BASE - 1, 2, false},
        {LOW_BASE + LOW_BYTES - 1, 1, true},
        {LOW_BASE + LOW_BYTES - 1, 2, false},
        {LOW_BASE + LOW_BYTES, 0, false},
        {LOW_BASE + LOW_BYTES, 1, false},
        {LOW_BASE, 0, true},
        {HIGH_BASE, HIGH_BYTES, true},
        {HIGH_BASE + HIGH_BYTES - 8, 8, true},
        {HIGH_BASE + HIGH_BYTES - 8, 9, false},
        {LOW_BASE, HIGH_BASE, false},      /* from one region into the other */
        {LOW_BASE + 1, UINT64_MAX, false}, /* wraps */
        {UINT64_MAX, 1, false},
        {UINT64_MAX, 2, false},
        {UINT64_MAX - 7, LOW_BASE + 16, false},
        {0, 0, false},
        {0, UINT64_MAX, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        void *host = guest_memory_at(memory, gpa(rows[i].address), rows[i].bytes);

        if ((host != NULL) != rows[i].inside) {
            fail_msg("row %zu: 0x%llx + 0x%llx", i, (unsigned long long)rows[i].address,
                     (unsigned long long)rows[i].bytes);
        }
    }
}

static void test_addresses_map_to_the_right_bytes(void **state)
{
    const struct guest_memory *memory = *state;
    uint8_t *low = guest_memory_at(memory, gpa(LOW_BASE), 1);
    uint8_t *high = guest_memory_at(memory, gpa(HIGH_BASE), 1);

    assert_ptr_equal(guest_memory_at(memory, gpa(LOW_BASE + 0x1234), 4), low + 0x1234);
    assert_ptr_equal(guest_memory_at(memory, gpa(HIGH_BASE + 0x42), 4), high + 0x42);
    assert_int_equal((uintptr_t)low % (2 * MIB), 0);
    assert_int_equal((uintptr_t)high % (2 * MIB), 0);
    assert_int_equal(guest_memory_total_bytes(memory), LOW_BYTES + HIGH_BYTES);
}

static void test_read_and_write(void **state)
{
    const struct guest_memory *memory = *state;
    struct gpa last = gpa(HIGH_BASE + HIGH_BYTES - 4);
    uint32_t value = 0xdeadbeef;
    uint32_t seen = 0;

    assert_int_equal(guest_memory_write(memory, last, &value, sizeof(value)), 0);
    assert_int_equal(guest_memory_read(memory, last, &seen, sizeof(seen)), 0);
    assert_int_equal(seen, value);
    seen = 7;
    assert_int_equal(guest_memory_read(memory, gpa(last.v + 1), &seen, sizeof(seen)), -EFAULT);
    assert_int_equal(seen, 7);
    value = 1;
    assert_int_equal(guest_memory_write(memory, gpa(last.v + 1), &value, sizeof(value)), -EFAULT);
    assert_int_equal(guest_memory_read(memory, last, &seen, sizeof(seen)), 0);
    assert_int_equal(seen, 0xdeadbeef);
}

static void test_values_are_little_endian(void **state)
{
    const struct guest_memory *memory = *state;
    uint8_t *bytes = guest_memory_at(memory, gpa(LOW_BASE), 8);

    for (uint8_t i = 0; i < 8; i++) {
        bytes[i] = (uint8_t)(i + 1);
    }
    assert_int_equal(guest_le16_load_acquire(bytes), 0x0201);
    assert_int_equal(guest_le32_load_relaxed(bytes), 0x04030201);
    assert_int_equal(guest_le64_load_acquire(bytes), 0x0807060504030201);
    guest_le16_store_release(bytes, 0xaabb);
    assert_int_equal(bytes[0], 0xbb);
    assert_int_equal(bytes[1], 0xaa);
    assert_int_equal(bytes[2], 3);
    assert_true(gpa_is_aligned(gpa(8), 8));
    assert_false(gpa_is_aligned(gpa(12), 8));
}

/* In a child: touch an address; how did it end? */
static int signal_of_touching(volatile uint8_t *address)
{
    int status = 0;
    pid_t child = fork();

    if (child == 0) {
        struct rlimit no_core = {0, 0};

        (void)setrlimit(RLIMIT_CORE, &no_core);
        (void)signal(SIGSEGV, SIG_DFL); /* not the sanitizer's */
        *address = 1;
        _exit(0);
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void test_guard_pages(void **state)
{
    const struct guest_memory *memory = *state;

    for (unsigned i = 0; i < memory->count; i++) {
        uint8_t *host = memory->regions[i].host;
        uint64_t bytes = memory->regions[i].range.bytes;

        assert_int_equal(signal_of_touching(host), 0);
        assert_int_equal(signal_of_touching(host + bytes - 1), 0);
        assert_int_equal(signal_of_touching(host - 1), SIGSEGV);
        assert_int_equal(signal_of_touching(host + bytes), SIGSEGV);
        assert_int_equal(signal_of_touching(host - 2 * MIB), SIGSEGV);
        assert_int_equal(signal_of_touching(host + bytes + 2 * MIB - 1), SIGSEGV);
    }
}

static void test_bad_layouts_are_refused(void **state)
{
    static const struct guest_range rows[][2] = {
        {{{0}, 0}, {{MIB}, MIB}},                     /* empty */
        {{{0}, MIB + 1}, {{2 * MIB}, MIB}},           /* half a page */
        {{{1}, MIB}, {{2 * MIB}, MIB}},               /* not page-aligned */
        {{{0}, 2 * MIB}, {{MIB}, MIB}},               /* overlap */
        {{{4 * MIB}, MIB}, {{0}, MIB}},               /* descending */
        {{{0}, MIB}, {{UINT64_MAX - 4095}, 2 * MIB}}, /* wraps */
        {{{0}, MIB}, {{MIB}, (uint64_t)1 << 63}},     /* more than there is */
    };
    struct guest_memory memory;
    struct bvmm_error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
        err = (struct bvmm_error){0};
        if (guest_memory_init(&memory, rows[i], 2, &err) == 0) {
            fail_msg("row %zu was taken", i);
        }
        assert_int_equal(err.kind, BVMM_ERROR_MEMORY);
        assert_int_equal(memory.count, 0);
    }
    assert_int_equal(guest_memory_init(&memory, rows[0], 0, &err), -EINVAL);
    assert_int_equal(guest_memory_init(&memory, rows[0], GUEST_MEMORY_REGIONS_MAX + 1, &err),
                     -EINVAL);
}

static void test_memory_costs_nothing_until_touched(void **state)
{
    struct guest_range range = {{0}, 64 * GIB};
    struct guest_memory memory;
    struct rusage before;
    struct rusage after;
    uint8_t *host;

    (void)state;
    assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
    assert_int_equal(guest_memory_init(&memory, &range, 1, NULL), 0);
    host = guest_memory_at(&memory, gpa(range.bytes - 1), 1);
    assert_non_null(host);
    assert_int_equal(*host, 0);
    assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
    assert_true(after.ru_maxrss - before.ru_maxrss < 16 * 1024L);
    guest_memory_fini(&memory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bounds, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_addresses_map_to_the_right_bytes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_read_and_write, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_values_are_little_endian, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_guard_pages, set_up, tear_down),
        cmocka_unit_test(test_bad_layouts_are_refused),
        cmocka_unit_test(test_memory_costs_nothing_until_touched),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
