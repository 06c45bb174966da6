/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_outcome.c: whose fault it was that the VM process is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

#include "base/record.h"
#include "vmm/outcome.h"

#define UNKNOWN UINT64_MAX

static void assert_blame(uint64_t oom_kills, uint64_t limit_hits, enum bvmm_error_kind kind,
                         const char *words, const char *not_words)
{
    static struct record record;
    const struct run_outcome *outcome = &record.outcome;

    outcome_explain_kill(&record, oom_kills, limit_hits);
    assert_int_equal(outcome->status, RUN_VM_KILLED);
    assert_int_equal(outcome->error_kind, kind);
    assert_non_null(strstr(outcome->error_message, words));
    assert_null(strstr(outcome->error_message, not_words));
}

static void test_memory_of_the_control_group(void **state)
{
    (void)state;
    assert_blame(1, 1, BVMM_ERROR_MEMORY, "larger $.cgroup.memory_max_mib", "$.memory_mib");
    assert_blame(1, 7, BVMM_ERROR_MEMORY, "larger $.cgroup.memory_max_mib", "$.memory_mib");
}

/* The kill is counted in the group of the one who was killed, whatever limit it was. */
static void test_memory_of_the_host(void **state)
{
    (void)state;
    assert_blame(1, 0, BVMM_ERROR_MEMORY, "smaller $.memory_mib", "memory_max_mib");
}

static void test_somebody_outside(void **state)
{
    (void)state;
    assert_blame(0, 0, BVMM_ERROR_DEVICE, "somebody outside", "mib");
}

static void test_no_control_group(void **state)
{
    (void)state;
    assert_blame(UNKNOWN, UNKNOWN, BVMM_ERROR_DEVICE, "somebody outside, or", "memory_max_mib");
    assert_blame(UNKNOWN, UNKNOWN, BVMM_ERROR_DEVICE, "smaller $.memory_mib", "memory_max_mib");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_of_the_control_group),
        cmocka_unit_test(test_memory_of_the_host),
        cmocka_unit_test(test_somebody_outside),
        cmocka_unit_test(test_no_control_group),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
