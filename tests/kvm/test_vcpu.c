/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_vcpu.c: a vCPU can be stopped whatever it does, costs nothing while it sleeps, and others
 * start. */
#if defined(__x86_64__)

#include "../stress/stress.h"
#include "guest.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>

#define KICK_SIGNAL SIGUSR1
/* All in CPU time of the vCPU's thread, which others on the machine cannot take away. */
#define KICK_LIMIT_NS (250 * NS_PER_MS)
#define SPIN_NS (20 * NS_PER_MS)
/* A vCPU that sleeps uses far less of a CPU than this; one that spins, all of it. */
#define SLEEP_NS (300 * NS_PER_MS)
#define SLEEP_CPU_LIMIT_NS (5 * NS_PER_MS)
#define SLEEP_LOOKS 20

struct runner {
    pthread_t thread;
    const struct kvm_vcpu_handle *vcpu;
    pid_t tid;   /* before started */
    int started; /* release in the thread, acquire in the test */
    int ret;     /* of the last KVM_RUN */
    uint32_t exit_reason;
    uint64_t cpu_ns; /* its clock, when KVM_RUN was left */
};

static uint64_t now_ns(clockid_t clock)
{
    struct timespec now;

    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static _Thread_local struct kvm_run *own_run;

static void on_kick(int signal)
{
    (void)signal;
    if (own_run) {
        __atomic_store_n(&own_run->immediate_exit, 1, __ATOMIC_RELAXED);
    }
}

static void *runner_main(void *argument)
{
    struct runner *runner = argument;

    own_run = runner->vcpu->run;
    runner->tid = gettid();
    __atomic_store_n(&runner->started, 1, __ATOMIC_RELEASE);
    do {
        runner->ret = kvm_run(runner->vcpu);
    } while (
        runner->ret == -EAGAIN ||
        (runner->ret == -EINTR && !__atomic_load_n(&own_run->immediate_exit, __ATOMIC_RELAXED)));
    runner->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    runner->exit_reason = own_run->exit_reason;
    return NULL;
}

static void runner_start(struct runner *runner, const struct kvm_vcpu_handle *vcpu)
{
    *runner = (struct runner){.vcpu = vcpu};
    assert_int_equal(pthread_create(&runner->thread, NULL, runner_main, runner), 0);
    while (!__atomic_load_n(&runner->started, __ATOMIC_ACQUIRE)) {
        (void)usleep(1000);
    }
}

/* What the thread has used. */
static uint64_t runner_cpu_ns(const struct runner *runner)
{
    clockid_t clock;

    assert_int_equal(pthread_getcpuclockid(runner->thread, &clock), 0);
    return now_ns(clock);
}

/* Kick once, and wait. Returns the CPU time that it took from the kick until KVM_RUN was left. */
static uint64_t kick_and_join(struct runner *runner)
{
    const uint64_t start_ns = runner_cpu_ns(runner);

    assert_int_equal(pthread_kill(runner->thread, KICK_SIGNAL), 0);
    assert_int_equal(pthread_join(runner->thread, NULL), 0);
    return runner->cpu_ns - start_ns;
}

/* Whether it slept through SLEEP_NS. */
static bool sleeps_for_a_while(const struct runner *runner)
{
    const uint64_t before_ns = runner_cpu_ns(runner);
    struct thread_view before = {0};
    struct thread_view after = {0};

    assert_true(thread_look(getpid(), runner->tid, &before));
    stress_sleep_ns(SLEEP_NS);
    assert_true(thread_look(getpid(), runner->tid, &after));
    return before.state == 'S' && after.state == 'S' &&
           runner_cpu_ns(runner) - before_ns < SLEEP_CPU_LIMIT_NS;
}

/* One that was not yet asleep is looked at again: on a loaded machine it may take its time to come to that. */
static void assert_sleeps(const struct runner *runner)
{
    unsigned looks = 0;

    while (looks < SLEEP_LOOKS && !sleeps_for_a_while(runner)) {
        looks++;
    }
    if (looks == SLEEP_LOOKS) {
        fail_msg("it never sleeps: %llu us of CPU",
                 (unsigned long long)(runner_cpu_ns(runner) / 1000));
    }
}

GUEST_CODE(spin_code, "1: jmp 1b\n");

static void test_kick_stops_a_spinning_guest(void **state)
{
    struct runner runner;
    struct guest guest;
    uint64_t took_ns;

    (void)state;
    guest_new(&guest, 1, spin_code, spin_code_end);
    runner_start(&runner, &guest.vcpus[0]);
    while (runner_cpu_ns(&runner) < SPIN_NS) { /* it does run, or ctest's limit ends this */
        stress_sleep_ns(NS_PER_MS);
    }
    took_ns = kick_and_join(&runner);
    assert_int_equal(runner.ret, -EINTR);
    assert_true(took_ns < KICK_LIMIT_NS);
    guest_free(&guest);
}

/* The window between looking at a flag and entering KVM_RUN: immediate_exit closes it. */
static void test_immediate_exit_before_entry(void **state)
{
    struct guest guest;

    (void)state;
    guest_new(&guest, 1, spin_code, spin_code_end);
    guest.vcpus[0].run->immediate_exit = 1;
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(kvm_run(&guest.vcpus[0]), -EINTR);
    }
    guest_free(&guest);
}

GUEST_CODE(halt_code, "1: hlt\n jmp 1b\n");

static void test_halted_vcpu_costs_no_cpu(void **state)
{
    struct runner runner;
    struct guest guest;
    uint64_t took_ns;

    (void)state;
    guest_new(&guest, 1, halt_code, halt_code_end);
    runner_start(&runner, &guest.vcpus[0]);
    assert_sleeps(&runner);
    took_ns = kick_and_join(&runner);
    assert_int_equal(runner.ret, -EINTR);
    assert_true(took_ns < KICK_LIMIT_NS);
    guest_free(&guest);
}

/* vCPU 0 starts vCPU 1 as Linux does: INIT, then a start-up interrupt with the number of its page,
 * 0x18. */
#define START_ADDRESS 0x18000U
GUEST_CODE(starter_code, "mov $0xfee00000, %ebx\n"
                         "movl $0x1ff, 0xf0(%rbx)\n"
                         "movl $0x1000000, 0x310(%rbx)\n movl $0x4500, 0x300(%rbx)\n"
                         "movl $0x1000000, 0x310(%rbx)\n movl $0x4618, 0x300(%rbx)\n"
                         "out %al, $0x42\n"
                         "1: hlt\n jmp 1b\n");
GUEST_CODE_REAL(started_code, "mov $0x77, %al\n out %al, $0x43\n 1: hlt\n jmp 1b\n");

static void test_second_vcpu_waits_and_is_started(void **state)
{
    struct runner runner;
    struct guest guest;

    (void)state;
    guest_new(&guest, 2, starter_code, starter_code_end);
    guest_place(&guest, START_ADDRESS, started_code, started_code_end);
    runner_start(&runner, &guest.vcpus[1]);
    assert_sleeps(&runner); /* nothing happens until vCPU 0 says so */
    (void)guest_expect_out(&guest, 0, 0x42);
    assert_int_equal(pthread_join(runner.thread, NULL), 0);
    assert_int_equal(runner.ret, 0);
    assert_int_equal(runner.exit_reason, KVM_EXIT_IO);
    assert_int_equal(guest.vcpus[1].run->io.port, 0x43);
    assert_int_equal(*guest_io_data(&guest, 1), 0x77);
    guest_free(&guest);
}

static void test_waiting_vcpu_can_be_kicked(void **state)
{
    struct runner runner;
    struct guest guest;

    (void)state;
    guest_new(&guest, 2, halt_code, halt_code_end);
    runner_start(&runner, &guest.vcpus[1]);
    thread_await_sleep(getpid(), runner.tid);
    assert_true(kick_and_join(&runner) < KICK_LIMIT_NS);
    assert_int_equal(runner.ret, -EINTR);
    guest_free(&guest);
}

static void test_impossible_numbers_of_vcpus(void **state)
{
    struct arch_vm *vm = NULL;
    struct bvmm_error err;
    struct guest guest;

    (void)state;
    guest_new(&guest, 1, halt_code, halt_code_end);
    assert_int_equal(arch_vm_new(guest.kvm_fd, guest.vm_fd, 0, &vm, &err), -EINVAL);
    assert_int_equal(arch_vm_new(guest.kvm_fd, guest.vm_fd, 33, &vm, &err), -EINVAL);
    assert_int_equal(err.kind, BVMM_ERROR_VCPU);
    assert_null(vm);
    guest_free(&guest);
}

int main(void)
{
    const struct sigaction action = {.sa_handler = on_kick};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kick_stops_a_spinning_guest),
        cmocka_unit_test(test_immediate_exit_before_entry),
        cmocka_unit_test(test_halted_vcpu_costs_no_cpu),
        cmocka_unit_test(test_second_vcpu_waits_and_is_started),
        cmocka_unit_test(test_waiting_vcpu_can_be_kicked),
        cmocka_unit_test(test_impossible_numbers_of_vcpus),
    };

    (void)sigaction(KICK_SIGNAL, &action, NULL);
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
