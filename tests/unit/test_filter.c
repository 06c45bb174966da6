/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_filter.c: tries to break the sandbox of every actor. A child process enters the real filter,
 * made from the real policy, and makes a call that it forbids: all system calls by number, the x32
 * ones, and allowed ones with a wrong argument. Each time the process must die by SIGSYS, and the record
 * must name actor and call.
 */
#include "actor_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include <linux/kvm.h>

#include "vmm/filter.h"

#define X32_BIT 0x40000000L
#define CALLS_MAX 600

/* Numbers that no test has open by chance. */
enum {
    FD_DOORBELL = 900,
    FD_OTHER_DOORBELL,
    FD_IRQ,
    FD_IMAGE,
    FD_VCPU,
    FD_TIMER,
    FD_SIGNALS,
    FD_WRONG
};
#define FAKE_PID 4242

static struct record *record;

static void fill_numbers(struct policy_numbers *numbers)
{
    memset(numbers, 0, sizeof(*numbers));
    policy_add_number(numbers, POLICY_OWN_DOORBELL, FD_DOORBELL);
    policy_add_number(numbers, POLICY_DOORBELLS, FD_OTHER_DOORBELL);
    policy_add_number(numbers, POLICY_IRQ, FD_IRQ);
    policy_add_number(numbers, POLICY_IMAGE, FD_IMAGE);
    policy_add_number(numbers, POLICY_VCPU, FD_VCPU);
    policy_add_number(numbers, POLICY_TIMER, FD_TIMER);
    policy_add_number(numbers, POLICY_SIGNALS, FD_SIGNALS);
    policy_add_number(numbers, POLICY_PROCESS, FAKE_PID);
}

struct attempt {
    long call;
    long args[6];
};

static struct filter *filters[ACTOR_CLASS_COUNT];

/* Made once: it takes longer than an attempt. */
static struct filter *filter_of(enum actor_class class)
{
    struct policy_numbers numbers;
    struct bvmm_error err;
    struct actor actor;

    if (filters[class] == NULL) {
        actor_init(&actor, class, 3, 0, false, record);
        fill_numbers(&numbers);
        assert_int_equal(filter_new(&actor, &numbers, &filters[class], &err), 0);
    }
    return filters[class];
}

/*
 * In a child: enter the class's filter and try. Return: the signal that killed the child, or 0 if the
 * call was let through (the child says so by exiting through the one call that every policy has).
 */
static int try_call(enum actor_class class, const struct attempt *attempt)
{
    struct filter *const filter = filter_of(class);
    struct actor actor;
    int status = 0;
    pid_t pid = 0;

    actor_init(&actor, class, 3, 0, false, record);
    memset(&record->violation, 0, sizeof(record->violation));
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (filter_prepare(record) < 0 || filter_enter(&actor, filter) < 0) {
            _exit(1);
        }
        (void)syscall(attempt->call, attempt->args[0], attempt->args[1], attempt->args[2],
                      attempt->args[3], attempt->args[4], attempt->args[5]);
        (void)syscall(class == ACTOR_SUPERVISOR ? SYS_exit_group : SYS_exit, 77);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static bool in_policy(enum actor_class class, long call)
{
    const struct policy *policy = actor_defs[class].policy;

    for (unsigned i = 0; i < policy->rule_count; i++) {
        if (seccomp_syscall_resolve_name(policy->rules[i].syscall) == call) {
            return true;
        }
    }
    return false;
}

static void assert_killed(enum actor_class class, const struct attempt *attempt, bool named)
{
    const int killer = try_call(class, attempt);

    if (killer != SIGSYS) {
        print_error("%s: call 0x%lx was not refused (signal %d)\n", actor_defs[class].name,
                    (unsigned long)attempt->call, killer);
    }
    assert_int_equal(killer, SIGSYS);
    if (named) {
        assert_int_equal(record->violation.seen, 1);
        assert_int_equal(record->violation.actor, 3);
        assert_int_equal(record->violation.syscall, attempt->call);
        assert_int_equal(record->violation.args[0], attempt->args[0]);
    }
}

static void test_every_other_call_kills(void **state)
{
    (void)state;
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        unsigned tried = 0;

        for (long call = 0; call < CALLS_MAX; call++) {
            char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)call);
            const bool known = name != NULL;
            const struct attempt attempt = {.call = call, .args = {FD_WRONG}};

            free(name);
            if (!known || in_policy((enum actor_class) class, call)) {
                continue;
            }
            /* acct is how the handler itself ends the process: it kills without being noted */
            assert_killed((enum actor_class) class, &attempt, call != SYS_acct);
            tried++;
        }
        assert_true(tried > 250);
    }
}

/* A sample: the x32 numbers of calls that are allowed, and of some that are not. */
static void test_x32_calls_kill(void **state)
{
    static const long calls[] = {SYS_read, SYS_write, SYS_exit, SYS_ioctl, SYS_execve};

    (void)state;
#ifdef __x86_64__
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
            const struct attempt attempt = {.call = calls[i] | X32_BIT, .args = {FD_DOORBELL}};

            assert_killed((enum actor_class) class, &attempt, false);
            assert_int_equal(record->violation.seen, 1);
        }
    }
#else
    (void)calls;
    print_message("skipped: this architecture has no x32 calls\n");
    skip();
#endif
}

/* Allowed calls with what is somebody else's. */
static void test_wrong_arguments_kill(void **state)
{
    static const struct {
        enum actor_class class;
        struct attempt attempt;
    } cases[] = {
        {ACTOR_SERIAL, {SYS_read, {FD_WRONG}}},
        {ACTOR_SERIAL, {SYS_read, {FD_OTHER_DOORBELL}}},
        {ACTOR_SERIAL, {SYS_write, {FD_WRONG}}},
        {ACTOR_SERIAL, {SYS_write, {1}}},
        {ACTOR_SERIAL, {SYS_clock_gettime, {CLOCK_REALTIME}}},
        {ACTOR_I8042, {SYS_read, {0}}},
        {ACTOR_I8042, {SYS_write, {FD_IMAGE}}},
        {ACTOR_BLK, {SYS_preadv, {FD_WRONG}}},
        {ACTOR_BLK, {SYS_write, {FD_IMAGE}}},
        {ACTOR_BLK, {SYS_read, {FD_IMAGE}}},
        {ACTOR_VCPU, {SYS_ioctl, {FD_VCPU, KVM_SET_REGS}}},
        {ACTOR_VCPU, {SYS_ioctl, {FD_WRONG, KVM_RUN}}},
        {ACTOR_VCPU, {SYS_ioctl, {FD_VCPU, KVM_SET_USER_MEMORY_REGION}}},
        {ACTOR_VCPU, {SYS_read, {FD_IRQ}}},
        {ACTOR_SUPERVISOR, {SYS_tgkill, {1, 1, SIGUSR1}}},
        {ACTOR_SUPERVISOR, {SYS_tgkill, {FAKE_PID, 1, SIGKILL}}},
        {ACTOR_SUPERVISOR, {SYS_timerfd_settime, {FD_WRONG}}},
        {ACTOR_SUPERVISOR, {SYS_read, {FD_WRONG}}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_killed(cases[i].class, &cases[i].attempt, true);
    }
}

/* The same with the right ones: the test above must not pass because everything is refused. */
static void test_right_arguments_pass(void **state)
{
    static const struct {
        enum actor_class class;
        struct attempt attempt;
    } cases[] = {
        {ACTOR_SERIAL, {SYS_read, {FD_DOORBELL}}},
        {ACTOR_SERIAL, {SYS_write, {FD_IRQ}}},
        {ACTOR_I8042, {SYS_write, {FD_OTHER_DOORBELL}}},
        {ACTOR_BLK, {SYS_preadv, {FD_IMAGE}}},
        {ACTOR_VCPU, {SYS_ioctl, {FD_VCPU, KVM_RUN}}},
        {ACTOR_SUPERVISOR, {SYS_tgkill, {FAKE_PID, 1, SIGUSR1}}},
        {ACTOR_SUPERVISOR, {SYS_timerfd_settime, {FD_TIMER}}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(try_call(cases[i].class, &cases[i].attempt), 0);
    }
}

/* The goal of the design: few calls each, and a small union. */
static void test_policies_are_small(void **state)
{
    static const unsigned most[ACTOR_CLASS_COUNT] = {
        [ACTOR_SUPERVISOR] = 14, [ACTOR_VCPU] = 8, [ACTOR_SERIAL] = 8,
        [ACTOR_I8042] = 8,       [ACTOR_BLK] = 8,  [ACTOR_VSOCK] = 14};
    bool in_union[CALLS_MAX] = {false};
    unsigned union_count = 0;

    (void)state;
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        unsigned calls = 0;

        for (long call = 0; call < CALLS_MAX; call++) {
            if (in_policy((enum actor_class) class, call)) {
                calls++;
                union_count += in_union[call] ? 0 : 1;
                in_union[call] = true;
            }
        }
        assert_true(calls > 0 && calls <= most[class]);
    }
    assert_true(union_count <= 30);
}

static void test_no_policy_has_what_attackers_want(void **state)
{
    static const char *const never[] = {"open",
                                        "openat",
                                        "openat2",
                                        "execve",
                                        "execveat",
                                        "clone",
                                        "clone3",
                                        "fork",
                                        "vfork",
                                        "kill",
                                        "ptrace",
                                        "process_vm_readv",
                                        "mmap",
                                        "mprotect",
                                        "bpf",
                                        "unshare",
                                        "process_vm_writev",
                                        "setns",
                                        "mount",
                                        "prctl",
                                        "seccomp",
                                        "memfd_create"};

    (void)state;
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        const struct policy *policy = actor_defs[class].policy;

        for (unsigned i = 0; i < policy->rule_count; i++) {
            for (size_t j = 0; j < ARRAY_SIZE(never); j++) {
                assert_string_not_equal(policy->rules[i].syscall, never[j]);
            }
            assert_true(strlen(policy->rules[i].why) > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_arguments_pass),
        cmocka_unit_test(test_wrong_arguments_kill),
        cmocka_unit_test(test_every_other_call_kills),
        cmocka_unit_test(test_x32_calls_kill),
        cmocka_unit_test(test_policies_are_small),
        cmocka_unit_test(test_no_policy_has_what_attackers_want),
    };
    struct record_limits limits = {.console_bytes = 4096};
    struct bvmm_error err;
    int failed = 0;

    if (!filter_possible()) {
        printf("skipped: this build has sanitizers, whose runtimes make calls of their own\n");
        return 77;
    }
    if (record_create(&limits, &record, &err) < 0) {
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        filter_free(filters[class]);
    }
    record_destroy(record);
    return failed;
}
