/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_supervisor.c: the supervisor's state machine, fed by hand: who may end a run, in which order
 * things stop, what the outcome is, and that every wait has an end.
 */
#include "actor_fixture.h"

#include <signal.h>

#include "actors/supervisor.h"

/* The device of the fixture is an i8042, so that there is something to press Ctrl-Alt-Del on. */
struct run {
    struct fixture fixture;
    struct supervisor supervisor;
};

#define START_NS (100 * NS_PER_SECOND)
#define TIMEOUT_NS (10 * NS_PER_SECOND)

static struct actor *self_of(struct run *run)
{
    return &run->fixture.actors[FIXTURE_SUPERVISOR];
}

/* A thread that exists and does nothing: kicks must have somebody to go to. */
static void *idle_thread(void *arg)
{
    (void)arg;
    return NULL;
}

static void start(struct run *run, bool has_command, uint64_t timeout_ns)
{
    const bool has_i8042 = run->fixture.actors[FIXTURE_DEVICE].class == ACTOR_I8042;
    struct supervisor_config config = {.timeout_ns = timeout_ns,
                                       .has_command = has_command,
                                       .has_i8042 = has_i8042,
                                       .actors = run->fixture.actors,
                                       .actor_count = FIXTURE_ACTORS};

    supervisor_init(&run->supervisor, self_of(run), &config, -1, -1);
    for (unsigned i = 1; i < FIXTURE_ACTORS; i++) {
        struct actor *actor = &run->fixture.actors[i];

        assert_int_equal(pthread_create(&actor->thread, NULL, idle_thread, NULL), 0);
        actor->thread_started = true;
    }
}

static int setup_with(void **state, enum actor_class device)
{
    static struct run run;

    memset(&run, 0, sizeof(run));
    fixture_init(&run.fixture, device);
    *state = &run;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, ACTOR_I8042);
}

/* A machine without a keyboard controller. */
static int setup_serial(void **state)
{
    return setup_with(state, ACTOR_SERIAL);
}

static int teardown(void **state)
{
    struct run *run = *state;

    for (unsigned i = 1; i < FIXTURE_ACTORS; i++) {
        if (run->fixture.actors[i].thread_started) {
            (void)pthread_join(run->fixture.actors[i].thread, NULL);
        }
    }
    fixture_fini(&run->fixture);
    return 0;
}

static void tell(struct run *run, enum fixture_actor from, struct msg msg, uint64_t now_ns)
{
    msg.from = (actor_id)from;
    supervisor_on_message(self_of(run), &msg, now_ns);
}

static void tell_kind(struct run *run, enum fixture_actor from, enum msg_kind kind, uint64_t now_ns)
{
    tell(run, from, (struct msg){.kind = (uint16_t)kind}, now_ns);
}

static void all_ready(struct run *run)
{
    for (unsigned i = 1; i < FIXTURE_ACTORS; i++) {
        tell_kind(run, (enum fixture_actor)i, MSG_READY, START_NS);
    }
}

static void expect(struct run *run, enum fixture_actor who, enum msg_kind kind)
{
    (void)fixture_expect(&run->fixture, who, kind);
}

static void expect_nothing(struct run *run, enum fixture_actor who)
{
    fixture_expect_nothing(&run->fixture, who);
}

/* From "stop decided" to DONE, checking the order: vCPUs, and only then devices. */
static void stop_all(struct run *run, uint64_t now_ns)
{
    expect(run, FIXTURE_VCPU0, MSG_STOP);
    expect(run, FIXTURE_VCPU1, MSG_STOP);
    expect_nothing(run, FIXTURE_DEVICE);
    tell_kind(run, FIXTURE_VCPU1, MSG_STOPPED, now_ns);
    expect_nothing(run, FIXTURE_DEVICE);
    tell_kind(run, FIXTURE_VCPU0, MSG_STOPPED, now_ns);
    expect(run, FIXTURE_DEVICE, MSG_STOP);
    assert_int_equal(run->supervisor.phase, SUPERVISOR_STOPPING_DEVICES);
    tell_kind(run, FIXTURE_DEVICE, MSG_STOPPED, now_ns);
    assert_int_equal(run->supervisor.phase, SUPERVISOR_DONE);
}

static void begin_running(struct run *run, bool has_command, uint64_t timeout_ns)
{
    start(run, has_command, timeout_ns);
    all_ready(run);
    expect(run, FIXTURE_VCPU0, MSG_RUN);
    expect(run, FIXTURE_VCPU1, MSG_RUN);
}

static void assert_status(const struct run *run, enum run_status status)
{
    assert_string_equal(run_status_name((enum run_status)run->fixture.record->outcome.status),
                        run_status_name(status));
}

static void append(struct run *run, enum stream_id stream, const char *text)
{
    record_append(run->fixture.record, stream, text, strlen(text));
}

static void tell_exit(struct run *run, int wait_status)
{
    tell(run, FIXTURE_DEVICE,
         (struct msg){.kind = MSG_COMMAND_EXIT, .exit = {.wait_status = wait_status}}, START_NS);
}

static void tell_stream_end_as(struct run *run, enum stream_id stream, enum stream_state state)
{
    tell(run, FIXTURE_DEVICE,
         (struct msg){.kind = MSG_STREAM_END,
                      .stream = {.stream = (uint32_t)stream, .state = (uint32_t)state}},
         START_NS);
}

static void tell_stream_end(struct run *run, enum stream_id stream)
{
    tell_stream_end_as(run, stream, STREAM_COMPLETE);
}

/* ---- Tests ----------------------------------------------------------------------------------- */

static void test_no_vcpu_runs_before_all_are_ready(void **state)
{
    struct run *run = *state;

    start(run, true, 0);
    tell_kind(run, FIXTURE_VCPU0, MSG_READY, START_NS);
    tell_kind(run, FIXTURE_VCPU1, MSG_READY, START_NS);
    expect_nothing(run, FIXTURE_VCPU0);
    tell_kind(run, FIXTURE_DEVICE, MSG_READY, START_NS);
    expect(run, FIXTURE_VCPU0, MSG_RUN);
    expect(run, FIXTURE_VCPU1, MSG_RUN);
    expect_nothing(run, FIXTURE_DEVICE);
}

static void test_results_in_means_stop_at_once(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    append(run, STREAM_ANNOUNCED, "stdout 5 -\nexit_code 1 -\n");
    tell(run, FIXTURE_DEVICE, (struct msg){.kind = MSG_INIT_MANIFEST, .text = {.length_bytes = 25}},
         START_NS);
    tell_exit(run, 0);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_BYE, START_NS);
    expect_nothing(run, FIXTURE_VCPU0); /* announced, and still on its way */
    tell_stream_end(run, STREAM_EXIT_CODE);
    expect_nothing(run, FIXTURE_VCPU0);
    tell_stream_end(run, STREAM_STDOUT);
    stop_all(run, START_NS);
    assert_status(run, RUN_COMPLETED);
    assert_int_equal(run->fixture.record->outcome.exit_code, 0);
    assert_int_equal(run->fixture.record->streams[STREAM_STDOUT].announced_bytes, 5);
}

static void test_wait_status_becomes_code_and_signal(void **state)
{
    struct run *run = *state;
    const struct run_outcome *outcome = &run->fixture.record->outcome;

    begin_running(run, true, 0);
    tell_exit(run, 3 << 8);
    assert_int_equal(outcome->exit_code, 3);
    assert_int_equal(outcome->term_signal, 0);
    tell_exit(run, 9);
    assert_int_equal(outcome->exit_code, 137);
    assert_int_equal(outcome->term_signal, 9);
}

/* What libkrun 306 asks for: the guest's exit code becomes the run's. */
static void test_exit_code_of_an_own_init(void **state)
{
    static const struct {
        const char *text;
        bool good;
        int code;
    } cases[] = {{"0", true, 0},
                 {"7\n", true, 7},
                 {"255 \r\n", true, 255},
                 {"256", false, 0},
                 {"-1", false, 0},
                 {"", false, 0},
                 {"zero", false, 0},
                 {"1 2", false, 0},
                 {"00000000000000001", false, 0},
                 {"9999999999999999999999999", false, 0}};
    struct run *run = *state;
    struct record *record = run->fixture.record;

    begin_running(run, false, 0);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        record->outcome.has_exit_code = 0;
        record->streams[STREAM_EXIT_CODE].length_bytes = 0;
        append(run, STREAM_EXIT_CODE, cases[i].text);
        tell_stream_end(run, STREAM_EXIT_CODE);
        assert_int_equal(record->outcome.has_exit_code, cases[i].good);
        if (cases[i].good) {
            assert_int_equal(record->outcome.exit_code, cases[i].code);
        }
    }
    expect_nothing(run, FIXTURE_VCPU0); /* the exit code does not end collection */
}

/* 13 of 137 is another exit code. */
static void test_exit_code_that_was_cut_is_none(void **state)
{
    struct run *run = *state;

    begin_running(run, false, 0);
    append(run, STREAM_EXIT_CODE, "13");
    tell_stream_end_as(run, STREAM_EXIT_CODE, STREAM_BROKEN);
    assert_int_equal(run->fixture.record->outcome.has_exit_code, 0);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_GUEST_SHUTDOWN);
}

static void test_reset_without_result(void **state)
{
    struct run *run = *state;

    begin_running(run, true, 0);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_GUEST_RESET);
}

static void test_reset_of_an_own_init(void **state)
{
    struct run *run = *state;

    begin_running(run, false, 0);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_GUEST_SHUTDOWN);
}

static void test_reset_with_exit_code_is_completed(void **state)
{
    struct run *run = *state;

    begin_running(run, false, 0);
    append(run, STREAM_EXIT_CODE, "4");
    tell_stream_end(run, STREAM_EXIT_CODE);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_COMPLETED);
    assert_int_equal(run->fixture.record->outcome.exit_code, 4);
}

static void test_triple_fault(void **state)
{
    struct run *run = *state;
    const struct bvmm_error error = {.kind = BVMM_ERROR_NONE};

    begin_running(run, true, 0);
    tell(run, FIXTURE_VCPU1,
         (struct msg){.kind = MSG_VCPU_ENDED,
                      .vcpu_end = {.error = &error, .reason = VCPU_END_TRIPLE_FAULT}},
         START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_GUEST_TRIPLE_FAULT);
}

static void test_failed_vcpu_says_why(void **state)
{
    struct run *run = *state;
    const struct bvmm_error error = {.kind = BVMM_ERROR_VCPU, .message = "the reason"};

    begin_running(run, true, 0);
    tell(run, FIXTURE_VCPU0,
         (struct msg){.kind = MSG_VCPU_ENDED,
                      .vcpu_end = {.error = &error, .reason = VCPU_END_FAILED}},
         START_NS);
    stop_all(run, START_NS);
    assert_status(run, RUN_VM_ERROR);
    assert_int_equal(run->fixture.record->outcome.error_kind, BVMM_ERROR_VCPU);
    assert_string_equal(run->fixture.record->outcome.error_message, "the reason");
}

static void test_deadline_before_init_stops_at_once(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    supervisor_on_deadline(self_of(run), START_NS + TIMEOUT_NS - 1);
    expect_nothing(run, FIXTURE_VCPU0);
    supervisor_on_deadline(self_of(run), START_NS + TIMEOUT_NS);
    stop_all(run, START_NS + TIMEOUT_NS);
    assert_status(run, RUN_TIMEOUT);
    assert_int_equal(run->fixture.record->outcome.error_kind, BVMM_ERROR_TIMEOUT);
}

static void test_no_deadline_when_it_is_zero(void **state)
{
    struct run *run = *state;

    begin_running(run, true, 0);
    supervisor_on_deadline(self_of(run), UINT64_MAX);
    expect_nothing(run, FIXTURE_VCPU0);
}

static void test_deadline_lets_the_guest_hand_over(void **state)
{
    struct run *run = *state;
    const uint64_t deadline_ns = START_NS + TIMEOUT_NS;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    supervisor_on_deadline(self_of(run), deadline_ns);
    expect(run, FIXTURE_DEVICE, MSG_PRESS_CTRL_ALT_DEL);
    expect_nothing(run, FIXTURE_VCPU0);
    tell_exit(run, 15);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_BYE, deadline_ns + 1);
    stop_all(run, deadline_ns + 2);
    assert_status(run, RUN_TIMEOUT); /* what came of it later does not change what it was */
}

static void test_console_is_asked_where_there_is_no_keyboard(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    supervisor_on_deadline(self_of(run), START_NS + TIMEOUT_NS);
    expect(run, FIXTURE_DEVICE, MSG_TYPE_CTRL_BACKSLASH);
    expect_nothing(run, FIXTURE_VCPU0);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_BYE, START_NS + TIMEOUT_NS + 1);
    stop_all(run, START_NS + TIMEOUT_NS + 2);
    assert_status(run, RUN_TIMEOUT);
}

static void test_a_cancelled_run_is_not_urgent(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    supervisor_on_signal(self_of(run), SIGTERM, START_NS + 1);
    expect(run, FIXTURE_DEVICE, MSG_TYPE_CTRL_C);
    expect_nothing(run, FIXTURE_DEVICE);
}

/* Without bvmm's init nobody would understand the question. */
static void test_nobody_is_asked_without_bvmms_init(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    supervisor_on_deadline(self_of(run), START_NS + TIMEOUT_NS);
    stop_all(run, START_NS + TIMEOUT_NS + 1);
    assert_status(run, RUN_TIMEOUT);
}

/* The whole way, with everybody silent: each step ends, and the sum is inside of the promise. */
static void test_every_wait_ends(void **state)
{
    struct run *run = *state;
    const uint64_t deadline_ns = START_NS + TIMEOUT_NS;
    uint64_t now_ns = deadline_ns;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    while (run->supervisor.phase != SUPERVISOR_DONE) {
        assert_true(run->supervisor.phase_deadline_ns != 0);
        now_ns = run->supervisor.phase_deadline_ns;
        supervisor_on_deadline(self_of(run), now_ns);
    }
    assert_true(now_ns - deadline_ns <= 400 * NS_PER_MS);
    assert_status(run, RUN_TIMEOUT);
}

/* What has arrived has to be written as well: the guest's time and the report's come out of one purse. */
static void assert_grace(struct run *run, uint64_t arrived_bytes, uint64_t want_ns)
{
    const uint64_t deadline_ns = START_NS + TIMEOUT_NS;
    struct record_stream *stream = &run->fixture.record->streams[STREAM_STDOUT];
    const uint64_t length_bytes = stream->length_bytes;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    stream->length_bytes = arrived_bytes;
    supervisor_on_deadline(self_of(run), deadline_ns);
    assert_int_equal(run->supervisor.phase, SUPERVISOR_GRACE);
    assert_int_equal(run->supervisor.phase_deadline_ns - deadline_ns, want_ns);
    stream->length_bytes = length_bytes;
}

static void test_much_output_leaves_the_guest_less_time(void **state)
{
    assert_grace(*state, 50 * MIB,
                 SUPERVISOR_TIMEOUT_GRACE_NS - 50 * MIB * RECORD_REPORT_NS_PER_BYTE);
}

/* As much as a job may allow. */
static void test_very_much_output_leaves_it_none(void **state)
{
    assert_grace(*state, 1000 * MIB, 0);
}

static void test_silent_vcpu_is_named(void **state)
{
    struct run *run = *state;

    begin_running(run, true, 0);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS);
    tell_kind(run, FIXTURE_VCPU0, MSG_STOPPED, START_NS);
    supervisor_on_deadline(self_of(run), run->supervisor.phase_deadline_ns);
    assert_non_null(strstr(run->fixture.record->outcome.error_message, "vcpu1"));
    expect(run, FIXTURE_DEVICE, MSG_STOP);
}

static void test_cancel_then_cancel_again(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_INIT_HELLO, START_NS);
    supervisor_on_signal(self_of(run), SIGTERM, START_NS + 1);
    expect(run, FIXTURE_DEVICE, MSG_PRESS_CTRL_ALT_DEL);
    expect_nothing(run, FIXTURE_VCPU0);
    supervisor_on_signal(self_of(run), SIGINT, START_NS + 2);
    stop_all(run, START_NS + 3);
    assert_status(run, RUN_CANCELLED);
    assert_int_equal(run->fixture.record->outcome.cancel_signal, SIGTERM);
}

static void test_actor_that_fails_ends_the_run(void **state)
{
    struct run *run = *state;
    struct msg msg = {
        .kind = MSG_FAILED,
        .failure = {.error = -EPERM, .kind = BVMM_ERROR_SANDBOX, .what = "enter_sandbox"}};

    start(run, true, 0);
    tell(run, FIXTURE_DEVICE, msg, START_NS);
    assert_status(run, RUN_VM_ERROR);
    assert_int_equal(run->fixture.record->outcome.error_kind, BVMM_ERROR_SANDBOX);
    assert_non_null(strstr(run->fixture.record->outcome.error_message, "i8042"));
    assert_non_null(strstr(run->fixture.record->outcome.error_message, "enter_sandbox"));
    expect(run, FIXTURE_VCPU0, MSG_STOP); /* and never RUN */
}

static void test_first_decision_stands(void **state)
{
    struct run *run = *state;

    begin_running(run, true, TIMEOUT_NS);
    supervisor_on_deadline(self_of(run), START_NS + TIMEOUT_NS);
    tell_kind(run, FIXTURE_DEVICE, MSG_GUEST_RESET, START_NS + TIMEOUT_NS);
    supervisor_on_signal(self_of(run), SIGTERM, START_NS + TIMEOUT_NS);
    assert_status(run, RUN_TIMEOUT);
}

/* What init says of itself comes from the guest: offsets and lengths may be anything. */
static void test_hostile_text_offsets(void **state)
{
    static const struct msg_text texts[] = {
        {UINT64_MAX, 1}, {0, UINT64_MAX}, {1, UINT64_MAX}, {256 * KIB, 1}, {5, 0}};
    struct run *run = *state;

    begin_running(run, true, 0);
    append(run, STREAM_ANNOUNCED, "stdout 1 -\n");
    append(run, STREAM_CONTROL, "abc");
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        tell(run, FIXTURE_DEVICE, (struct msg){.kind = MSG_INIT_MANIFEST, .text = texts[i]},
             START_NS);
        assert_false(run->supervisor.announced[STREAM_STDOUT]);
    }
    tell(run, FIXTURE_DEVICE, (struct msg){.kind = MSG_INIT_FATAL, .text = texts[1]}, START_NS);
    assert_status(run, RUN_GUEST_ERROR);
}

static void test_fatal_text_is_the_error(void **state)
{
    struct run *run = *state;

    begin_running(run, true, 0);
    append(run, STREAM_CONTROL, "xxcannot mount /dev/vda");
    tell(run, FIXTURE_DEVICE,
         (struct msg){.kind = MSG_INIT_FATAL, .text = {.offset_bytes = 2, .length_bytes = 21}},
         START_NS);
    assert_status(run, RUN_GUEST_ERROR);
    assert_non_null(strstr(run->fixture.record->outcome.error_message, ": cannot mount /dev/vda"));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_no_vcpu_runs_before_all_are_ready),
        TEST(test_results_in_means_stop_at_once),
        TEST(test_wait_status_becomes_code_and_signal),
        TEST(test_exit_code_of_an_own_init),
        TEST(test_exit_code_that_was_cut_is_none),
        TEST(test_reset_without_result),
        TEST(test_reset_of_an_own_init),
        TEST(test_reset_with_exit_code_is_completed),
        TEST(test_triple_fault),
        TEST(test_failed_vcpu_says_why),
        TEST(test_deadline_before_init_stops_at_once),
        TEST(test_no_deadline_when_it_is_zero),
        TEST(test_deadline_lets_the_guest_hand_over),
        TEST(test_much_output_leaves_the_guest_less_time),
        TEST(test_very_much_output_leaves_it_none),
        cmocka_unit_test_setup_teardown(test_console_is_asked_where_there_is_no_keyboard,
                                        setup_serial, teardown),
        cmocka_unit_test_setup_teardown(test_a_cancelled_run_is_not_urgent, setup_serial, teardown),
        cmocka_unit_test_setup_teardown(test_nobody_is_asked_without_bvmms_init, setup_serial,
                                        teardown),
        TEST(test_every_wait_ends),
        TEST(test_silent_vcpu_is_named),
        TEST(test_cancel_then_cancel_again),
        TEST(test_actor_that_fails_ends_the_run),
        TEST(test_first_decision_stands),
        TEST(test_hostile_text_offsets),
        TEST(test_fatal_text_is_the_error),
    };

    if (signal(SIGUSR1, SIG_IGN) == SIG_ERR) { /* the kick */
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
