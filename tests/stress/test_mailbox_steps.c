/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_mailbox_steps.c: the mailbox with one side stopped at every single instruction.
 *
 * A process that shares our memory runs one function of the mailbox, and is stopped by ptrace after
 * 0, 1, 2, ... instructions. There it stays, as if preempted, or frozen for good, while we play the
 * other side to the end; then it may go on. So every point at which one side can be interrupted by
 * a whole action of the other is tried, and nothing is left to chance. (What the hardware reorders
 * is not seen like this: that is for tests/model/ and test_mailbox.c.)
 */
#include "mailbox/mailbox.h"
#include "stress.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>

#include <cmocka.h>

#define LANES 3
#define VICTIM 0
#define OTHER 1
#define FIRST_ID 1
#define STACK_BYTES (256 * 1024)
#define MOST_STEPS 20000 /* if it takes more, something else is wrong */
#define MOST_STRIDE 23

/* ---- A process that is stepped --------------------------------------------------------------- */

enum phase { PHASE_START, PHASE_INSIDE, PHASE_DONE };

struct stepper {
    void (*action)(void *arg);
    void *arg;
    volatile int phase; /* written by the stepped process, in memory that we share */
    pid_t pid;
    bool asleep; /* in a system call that blocks: it cannot be stepped any further */
};

static _Alignas(16) uint8_t stack[STACK_BYTES];

static int stepped_main(void *arg)
{
    struct stepper *s = arg;

    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0) {
        (void)syscall(SYS_exit, 1);
    }
    (void)syscall(SYS_kill, syscall(SYS_getpid), SIGSTOP);
    s->phase = PHASE_INSIDE;
    s->action(s->arg);
    s->phase = PHASE_DONE;
    (void)syscall(SYS_exit, 0);
    return 0;
}

static void end(struct stepper *s)
{
    int status = 0;

    (void)kill(s->pid, SIGKILL);
    (void)waitpid(s->pid, &status, 0);
}

/* Is the next instruction a system call? Its memory is ours, so we can just look. */
static bool at_system_call(const struct stepper *s)
{
#ifdef __x86_64__
    static const uint8_t syscall_instruction[] = {0x0f, 0x05};
    const long address =
        ptrace(PTRACE_PEEKUSER, s->pid, offsetof(struct user_regs_struct, rip), NULL);

    return memcmp((const void *)(uintptr_t)address, syscall_instruction,
                  sizeof(syscall_instruction)) == 0;
#else
    (void)s;
    return true;
#endif
}

/* One instruction. Sets s->asleep if that was a system call which has not returned yet. */
static void step_once(struct stepper *s)
{
    const int how = at_system_call(s) ? WNOHANG : 0;
    struct thread_view view;
    int status = 0;
    pid_t got = 0;

    assert_int_equal(ptrace(PTRACE_SINGLESTEP, s->pid, NULL, NULL), 0);
    for (unsigned looks = 0; got == 0; looks++) {
        got = waitpid(s->pid, &status, how);
        if (got == 0 && looks > 50 && thread_look(s->pid, s->pid, &view) && view.state == 'S') {
            s->asleep = true;
            return;
        }
    }
    assert_int_equal(got, s->pid);
    assert_true(WIFSTOPPED(status));
    assert_int_equal(WSTOPSIG(status), SIGTRAP);
}

/*
 * Every point is tried; but in builds whose code is several times as long, and most of it not ours, every
 * few of them, with a random start. A machine that has not come to the end after a while takes such strides, too.
 */
static unsigned stride(void)
{
#if defined(STRESS_ASAN)
    return MOST_STRIDE;
#elif !defined(__OPTIMIZE__)
    const unsigned usual = 5;
#else
    const unsigned usual = 1;
#endif
#if !defined(STRESS_ASAN)
    return clock_monotonic_ns() - watchdog.start_ns < STRESS_TIME_NS ? usual : MOST_STRIDE;
#endif
}

static unsigned first_point(void)
{
    uint64_t random = stress_random_start(0);

    return (unsigned)(stress_random(&random) % stride());
}

/*
 * Start the action and stop it after this many of its instructions. False: it is over, or asleep,
 * before that; it is stopped at its end then.
 */
static bool run_steps(struct stepper *s, void (*action)(void *), void *arg, unsigned steps)
{
    int status = 0;

    *s = (struct stepper){.action = action, .arg = arg};
    s->pid = clone(stepped_main, stack + STACK_BYTES, CLONE_VM | SIGCHLD, s);
    assert_true(s->pid > 0);
    assert_int_equal(waitpid(s->pid, &status, 0), s->pid);
    assert_true(WIFSTOPPED(status));
    /* If an assertion ends this test, it must not stay behind. */
    assert_int_equal(ptrace(PTRACE_SETOPTIONS, s->pid, NULL, PTRACE_O_EXITKILL), 0);
    while (s->phase == PHASE_START) {
        step_once(s);
    }
    for (unsigned i = 0; i < steps && s->phase == PHASE_INSIDE && !s->asleep; i++) {
        step_once(s);
    }
    return s->phase == PHASE_INSIDE && !s->asleep;
}

#define LOST_NS (2 * NS_PER_SECOND)

/*
 * Wait for its next stop, or its end. False: it sleeps, and nobody wakes it. Who was woken does not count
 * as sleeping any more, however long the machine lets it wait for a CPU: so only time in which it sleeps
 * counts.
 */
static bool await(struct stepper *s, int *ret_status)
{
    uint64_t end_ns = clock_monotonic_ns() + LOST_NS;
    struct thread_view view;

    while (waitpid(s->pid, ret_status, WNOHANG) == 0) {
        if (!thread_look(s->pid, s->pid, &view) || view.state != 'S') {
            end_ns = clock_monotonic_ns() + LOST_NS;
        } else if (clock_monotonic_ns() > end_ns) {
            end(s);
            return false;
        }
    }
    return true;
}

/* Let it run to its end. False: it sleeps, and nobody wakes it. */
static bool run_to_end(struct stepper *s)
{
    int status = 0;

    /* If asleep, it is on its way through the step that it began; the stop at its end is still to come. */
    if (s->asleep && !await(s, &status)) {
        return false;
    }
    assert_int_equal(ptrace(PTRACE_CONT, s->pid, NULL, NULL), 0);
    if (!await(s, &status)) {
        return false;
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(s->phase, PHASE_DONE);
    return true;
}

/* ---- A mailbox ------------------------------------------------------------------------------- */

struct world {
    struct actor_stats stats;
    struct actor_stats sender_stats[LANES];
    struct mailbox *mailbox;
    struct lane *lanes[LANES];
    int sender_doorbells[LANES];

    /* Of the stepped action. */
    struct msg msg;
    struct msg taken;
    bool result;
    int code;
};

static struct world *world_new(void)
{
    struct world *w = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*w), CACHE_LINE_BYTES));

    assert_non_null(w);
    memset(w, 0, sizeof(*w));
    assert_int_equal(mailbox_new(LANES, &w->stats, &w->mailbox), 0);
    for (unsigned i = 0; i < LANES; i++) {
        w->sender_doorbells[i] = eventfd(0, EFD_CLOEXEC);
        assert_true(w->sender_doorbells[i] >= 0);
        w->lanes[i] = mailbox_lane(w->mailbox, i, (actor_id)(FIRST_ID + i), w->sender_doorbells[i],
                                   &w->sender_stats[i]);
    }
    return w;
}

static void world_free(struct world *w)
{
    for (unsigned i = 0; i < LANES; i++) {
        (void)close(w->sender_doorbells[i]);
    }
    mailbox_free(w->mailbox);
    free(w);
}

static void put(struct world *w, unsigned lane, uint64_t value)
{
    const struct msg msg = {.kind = MSG_IO_WRITE, .io = {.value = value}};

    assert_true(lane_try_send(w->lanes[lane], &msg));
}

static bool is_rung(struct world *w)
{
    struct pollfd fd = {.fd = mailbox_doorbell_fd(w->mailbox), .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

static void silence(struct world *w)
{
    if (is_rung(w)) {
        uint64_t rings = 0;

        assert_int_equal(read(mailbox_doorbell_fd(w->mailbox), &rings, sizeof(rings)),
                         sizeof(rings));
    }
}

static void expect(struct world *w, unsigned lane, uint64_t value)
{
    struct msg msg;

    assert_true(mailbox_take(w->mailbox, &msg));
    assert_int_equal(msg.from, FIRST_ID + lane);
    assert_int_equal(msg.io.value, value);
}

static void expect_nothing(struct world *w)
{
    struct msg msg;

    assert_false(mailbox_take(w->mailbox, &msg));
}

/* The stepped actions. */

static void do_send(void *arg)
{
    struct world *w = arg;

    w->msg = (struct msg){.kind = MSG_IO_WRITE, .io = {.value = 7}};
    w->result = lane_try_send(w->lanes[VICTIM], &w->msg);
}

static void do_announce(void *arg)
{
    struct world *w = arg;

    w->result = mailbox_announce_sleep(w->mailbox);
}

static void do_take(void *arg)
{
    struct world *w = arg;

    w->result = mailbox_take(w->mailbox, &w->taken);
}

static void do_wait_for_room(void *arg)
{
    struct world *w = arg;

    w->code = lane_wait_for_room(w->lanes[VICTIM]);
}

/* ---- A sender that is stopped ---------------------------------------------------------------- */

/* Stopped at any point of its send, it delays nobody; let go, it arrives. */
static void a_frozen_sender_delays_nobody(void **state)
{
    bool inside = true;
    unsigned steps = 0;
    unsigned points = 0;
    unsigned visible = 0;

    (void)state;
    watchdog_start(__func__, 120);
    for (steps = first_point(); inside && steps < MOST_STEPS; steps += stride(), points++) {
        struct world *w = world_new();
        struct stepper victim;
        struct msg msg;
        bool victim_arrived = false;

        assert_true(mailbox_announce_sleep(w->mailbox)); /* the receiver sleeps when it begins */
        inside = run_steps(&victim, do_send, w, steps);
        for (uint64_t round = 0; round < 3; round++) {
            silence(w); /* whatever the victim has rung, the others must ring for themselves */
            put(w, OTHER, round);
            assert_true(is_rung(w));
            mailbox_awake(w->mailbox, true);
            assert_true(mailbox_take(w->mailbox, &msg));
            if (msg.from == FIRST_ID + VICTIM) {
                assert_false(victim_arrived);
                victim_arrived = true;
                assert_true(mailbox_take(w->mailbox, &msg));
            }
            assert_int_equal(msg.from, FIRST_ID + OTHER);
            assert_int_equal(msg.io.value, round);
            expect_nothing(w);
            assert_true(mailbox_announce_sleep(w->mailbox));
        }
        silence(w);
        assert_true(run_to_end(&victim));
        assert_true(w->result);
        visible += victim_arrived;
        if (!victim_arrived) {
            assert_true(is_rung(w)); /* the receiver sleeps, and the message is there only now */
            mailbox_awake(w->mailbox, true);
            expect(w, VICTIM, 7);
        }
        expect_nothing(w);
        world_free(w);
    }
    print_message("stopped at %u points; at %u of them the message could be seen\n", points,
                  visible);
    assert_true(steps > 20 && steps < MOST_STEPS);
    assert_true(visible > 0 && visible < steps);
}

/* A receiver that goes to sleep at any point of a send. */
static void a_receiver_that_goes_to_sleep_during_a_send_is_woken(void **state)
{
    bool inside = true;
    unsigned steps = 0;
    unsigned points = 0;
    unsigned slept = 0;

    (void)state;
    watchdog_start(__func__, 120);
    for (steps = first_point(); inside && steps < MOST_STEPS; steps += stride(), points++) {
        struct world *w = world_new();
        struct stepper sender;

        inside = run_steps(&sender, do_send, w, steps);
        const bool may_sleep = mailbox_announce_sleep(w->mailbox);
        assert_true(run_to_end(&sender));
        assert_true(w->result);
        slept += may_sleep;
        if (may_sleep) {
            assert_true(is_rung(w));
        }
        mailbox_awake(w->mailbox, is_rung(w));
        expect(w, VICTIM, 7);
        expect_nothing(w);
        world_free(w);
    }
    print_message("stopped at %u points; at %u of them the receiver went to sleep\n", points,
                  slept);
    assert_true(steps < MOST_STEPS);
    assert_true(slept > 0 && slept < points);
}

/* ---- A receiver that is stopped -------------------------------------------------------------- */

/* A message that comes at any point of its going to sleep. */
static void a_message_during_the_announcement_is_seen_or_rings(void **state)
{
    bool inside = true;
    unsigned steps = 0;
    unsigned points = 0;
    unsigned slept = 0;

    (void)state;
    watchdog_start(__func__, 120);
    for (steps = first_point(); inside && steps < MOST_STEPS; steps += stride(), points++) {
        for (unsigned lane = 0; lane < LANES; lane++) {
            struct world *w = world_new();
            struct stepper receiver;

            inside = run_steps(&receiver, do_announce, w, steps) && inside;
            put(w, lane, 7);
            assert_true(run_to_end(&receiver));
            slept += w->result;
            if (w->result) {
                assert_true(is_rung(w));
            }
            mailbox_awake(w->mailbox, is_rung(w));
            expect(w, lane, 7);
            expect_nothing(w);
            world_free(w);
        }
    }
    print_message("stopped at %u points, with %u lanes; it slept %u times\n", points, LANES, slept);
    assert_true(steps < MOST_STEPS);
    assert_true(slept > 0 && slept < LANES * points);
}

/* Two messages, the second because of the first, at any point of a take, in any two lanes. */
static void order_holds_when_messages_come_during_a_take(void **state)
{
    bool inside = true;
    unsigned steps = 0;
    unsigned points = 0;
    unsigned taken_early = 0;

    (void)state;
    watchdog_start(__func__, 240);
    for (steps = first_point(); inside && steps < MOST_STEPS; steps += stride(), points++) {
        for (unsigned first = 0; first < LANES; first++) {
            const unsigned second = (first + 1 + points / 2 % (LANES - 1)) % LANES;
            struct world *w = world_new();
            struct stepper receiver;
            uint64_t next = 1;

            if (points % 2 == 0) {
                put(w, 1, 0); /* it finds something, or nothing */
                next = 0;
            }
            inside = run_steps(&receiver, do_take, w, steps) && inside;
            put(w, first, 1);
            put(w, second, 2);
            assert_true(run_to_end(&receiver));
            if (w->result) {
                taken_early += w->taken.io.value > 0;
                assert_int_equal(w->taken.io.value, next);
                next++;
            }
            for (struct msg msg; mailbox_take(w->mailbox, &msg); next++) {
                assert_int_equal(msg.io.value, next);
            }
            assert_int_equal(next, 3);
            world_free(w);
        }
    }
    print_message("stopped at %u points; %u takes got a message that came meanwhile\n", points,
                  taken_early);
    assert_true(steps < MOST_STEPS);
    assert_true(taken_early > 0);
}

/* ---- A sender that waits for room, and is stopped -------------------------------------------- */

/* Room comes at any point of its going to sleep: all of it; or half a lane, which is when it is
 * told. */
static void room_that_comes_during_the_wait_is_noticed(void **state)
{
    bool inside = true;
    unsigned steps = 0;
    unsigned points = 0;
    unsigned rung = 0;

    (void)state;
    watchdog_start(__func__, 240);
    for (steps = first_point(); inside && steps < MOST_STEPS; steps += stride(), points++) {
        struct world *w = world_new();
        struct stepper sender;
        const unsigned take = points % 2 == 0 ? LANE_SLOTS : LANE_SLOTS / 2 + 1;

        for (uint64_t i = 0; i < LANE_SLOTS; i++) {
            put(w, VICTIM, i);
        }
        inside = run_steps(&sender, do_wait_for_room, w, steps);
        for (uint64_t i = 0; i < take; i++) {
            expect(w, VICTIM, i);
        }
        assert_true(run_to_end(&sender)); /* or its wake-up was lost */
        assert_int_equal(w->code, 0);
        rung += w->sender_stats[VICTIM].wakeups > 0;
        put(w, VICTIM, 1000);
        world_free(w);
    }
    print_message("stopped at %u points; it slept and was rung at %u of them\n", points, rung);
    assert_true(steps > 20 && steps < MOST_STEPS);
    assert_true(rung > 0 && rung < points);
}

/* ------------------------------------------------------------------------------------------------
 */

static void do_nothing(void *arg)
{
    (void)arg;
}

/* Whether processes can be stepped here: not in every container. */
static bool can_step(void)
{
    static struct stepper s = {.action = do_nothing};
    int status = 0;

    s.pid = clone(stepped_main, stack + STACK_BYTES, CLONE_VM | SIGCHLD, &s);
    if (s.pid < 0 || waitpid(s.pid, &status, 0) != s.pid || !WIFSTOPPED(status)) {
        return false;
    }
    end(&s);
    return true;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_frozen_sender_delays_nobody),
        cmocka_unit_test(a_receiver_that_goes_to_sleep_during_a_send_is_woken),
        cmocka_unit_test(a_message_during_the_announcement_is_seen_or_rings),
        cmocka_unit_test(order_holds_when_messages_come_during_a_take),
        cmocka_unit_test(room_that_comes_during_the_wait_is_noticed),
    };

#ifndef __x86_64__
    /* Stepping clears the monitor of load-exclusive: an atomic would never come to its end. */
    printf("skipped: only where atomics are single instructions (x86_64)\n");
    return 77;
#endif
    if (stress_tsan() || stress_valgrind()) {
        printf("skipped: neither TSan nor Valgrind can follow a process that shares our memory\n");
        return 77;
    }
    if (!can_step()) {
        printf("skipped: ptrace is not permitted here\n");
        return 77;
    }
    stress_choose_seed();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
