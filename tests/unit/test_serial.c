/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_serial.c: the serial actor: console log, interrupts, frames that become messages, and its end.
 */
#include "actor_fixture.h"

#include "actors/serial.h"

#define MCR_OUT2 0x08

static struct serial serial;

static int setup(void **state)
{
    static struct fixture fixture;

    fixture_init(&fixture, ACTOR_SERIAL);
    memset(fixture.record->nonce, 0x5a, NONCE_BYTES);
    serial_init(&serial, &fixture.actors[FIXTURE_DEVICE], fixture.irq_fd);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    return 0;
}

static void print(struct fixture *fixture, enum fixture_actor vcpu, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        fixture_write(fixture, vcpu, UART_RBR_THR_DLL, 1, ((const uint8_t *)bytes)[i]);
    }
}

static void assert_console(struct fixture *fixture, const char *expected)
{
    uint64_t dropped = 0;
    size_t dropped_at = 0;
    size_t bytes = 0;
    char *text = NULL;

    assert_int_equal(record_console_copy(fixture->record, &text, &bytes, &dropped, &dropped_at), 0);
    assert_string_equal(text, expected);
    assert_int_equal(bytes, strlen(expected));
    free(text);
}

static void test_text_reaches_the_console(void **state)
{
    print(*state, FIXTURE_VCPU0, "hello\r\n", 7);
    assert_console(*state, "hello\r\n");
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
}

/* Two vCPUs that print in turn: posted writes must come out in the order in which they were made. */
static void test_order_across_vcpus(void **state)
{
    struct fixture *fixture = *state;
    struct msg msg = {.kind = MSG_IO_WRITE, .io = {.width_bytes = 1}};
    char expected[33] = "";

    for (unsigned i = 0; i < 32; i++) {
        expected[i] = (char)('a' + (int)(i % 26));
        msg.io.value = (uint64_t)expected[i];
        /* vCPU 1 first: its lane is looked at after vCPU 0's */
        assert_int_equal(actor_send(&fixture->actors[i % 2 == 0 ? FIXTURE_VCPU1 : FIXTURE_VCPU0],
                                    FIXTURE_DEVICE, &msg),
                         0);
    }
    fixture_step(fixture);
    assert_console(fixture, expected);
}

/* As Linux tests the transmitter's interrupt, before it lets any through. */
static void test_no_interrupt_until_out2(void **state)
{
    fixture_write(*state, FIXTURE_VCPU0, UART_IER_DLM, 1, 0x02);
    assert_int_equal(fixture_interrupts(*state), 0);
    assert_int_equal(fixture_read(*state, FIXTURE_VCPU0, UART_IIR_FCR, 1) & 0x0f, 0x02);
    print(*state, FIXTURE_VCPU0, "x", 1);
    assert_int_equal(fixture_interrupts(*state), 0);
    fixture_write(*state, FIXTURE_VCPU0, UART_MCR, 1, MCR_OUT2); /* pending: comes through now */
    assert_int_equal(fixture_interrupts(*state), 1);
    fixture_write(*state, FIXTURE_VCPU0, UART_MCR, 1, 0);
    fixture_write(*state, FIXTURE_VCPU0, UART_MCR, 1, MCR_OUT2);
    assert_int_equal(fixture_interrupts(*state), 1);
}

static void test_one_interrupt_for_each_rise(void **state)
{
    fixture_write(*state, FIXTURE_VCPU0, UART_MCR, 1, MCR_OUT2);
    fixture_write(*state, FIXTURE_VCPU0, UART_IER_DLM, 1, 0x02); /* transmitter empty */
    assert_int_equal(fixture_interrupts(*state), 1);
    print(*state, FIXTURE_VCPU0, "0123456789abcdef", 16); /* still up: no further edge */
    assert_int_equal(fixture_interrupts(*state), 0);
    assert_int_equal(fixture_read(*state, FIXTURE_VCPU0, UART_IIR_FCR, 1) & 0x0f, 0x02);
    print(*state, FIXTURE_VCPU0, "x", 1);
    assert_int_equal(fixture_interrupts(*state), 1);
}

static void assert_typed(struct fixture *fixture, enum msg_kind kind, unsigned character)
{
    const struct msg msg = {.kind = (uint8_t)kind};

    fixture_write(fixture, FIXTURE_VCPU0, UART_MCR, 1, MCR_OUT2);
    fixture_write(fixture, FIXTURE_VCPU0, UART_IER_DLM, 1, 0x01); /* received data */
    assert_int_equal(fixture_interrupts(fixture), 0);
    assert_int_equal(fixture_read(fixture, FIXTURE_VCPU0, UART_LSR, 1) & 0x01, 0);
    actor_tell(&fixture->actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE, &msg);
    fixture_step(fixture);
    assert_int_equal(fixture_interrupts(fixture), 1);
    assert_int_equal(fixture_read(fixture, FIXTURE_VCPU0, UART_LSR, 1) & 0x01, 1);
    assert_int_equal(fixture_read(fixture, FIXTURE_VCPU0, UART_RBR_THR_DLL, 1), character);
    assert_int_equal(fixture_read(fixture, FIXTURE_VCPU0, UART_LSR, 1) & 0x01, 0);
    assert_console(fixture, ""); /* it is no output */
}

static void test_ctrl_c_is_typed(void **state)
{
    assert_typed(*state, MSG_TYPE_CTRL_C, 3);
    assert_typed(*state, MSG_TYPE_CTRL_BACKSLASH, 28);
}

static void test_frame_becomes_message_and_leaves_the_console(void **state)
{
    struct fixture *fixture = *state;
    const struct frame_hello hello = {.boottime_ns = 123456, .version = GUEST_JOB_VERSION};
    uint8_t frame[FRAME_MAX_BYTES];
    const size_t bytes = frame_encode(frame, fixture->record->nonce, FRAME_HELLO, (enum stream_id)0,
                                      0, 0, &hello, sizeof(hello));
    struct msg msg;

    print(fixture, FIXTURE_VCPU0, "before ", 7);
    print(fixture, FIXTURE_VCPU0, frame, bytes);
    print(fixture, FIXTURE_VCPU0, "after", 5);
    assert_console(fixture, "before after");
    msg = fixture_expect(fixture, FIXTURE_SUPERVISOR, MSG_INIT_HELLO);
    assert_int_equal(msg.init.guest_ns, 123456);
    assert_int_equal(msg.init.via, VIA_SERIAL);
    assert_true(msg.init.host_ns > 0);
}

/* Somebody else's nonce: text like any other. */
static void test_frame_of_another_run_is_text(void **state)
{
    struct fixture *fixture = *state;
    const struct frame_hello hello = {.boottime_ns = 1, .version = GUEST_JOB_VERSION};
    const uint8_t other[NONCE_BYTES] = {1, 2, 3};
    uint8_t frame[FRAME_MAX_BYTES];
    const size_t bytes =
        frame_encode(frame, other, FRAME_HELLO, (enum stream_id)0, 0, 0, &hello, sizeof(hello));

    print(fixture, FIXTURE_VCPU0, frame, bytes);
    serial_stop(&fixture->actors[FIXTURE_DEVICE]);
    fixture_expect_nothing(fixture, FIXTURE_SUPERVISOR);
    assert_int_equal(fixture->record->console.total_bytes, bytes);
}

/* A guest that repeats good frames for ever must not fill the supervisor's lane. */
static void test_flood_of_frames_is_bounded(void **state)
{
    struct fixture *fixture = *state;
    const struct frame_end end = {.boottime_ns = 1};
    uint8_t frame[FRAME_MAX_BYTES];
    struct msg msg;
    unsigned messages = 0;

    for (uint32_t i = 0; i < 1000; i++) {
        const size_t bytes = frame_encode(frame, fixture->record->nonce, FRAME_END,
                                          (enum stream_id)0, i, 0, &end, sizeof(end));
        print(fixture, FIXTURE_VCPU0, frame, bytes);
    }
    while (mailbox_take(fixture->actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
        messages++;
    }
    assert_true(messages > 0);
    assert_true(messages < LANE_SLOTS - 8); /* room for what else serial may have to say */
}

/* The whole life of the thread: READY, service, STOP after what was sent before it, STOPPED. */
static void test_thread_drains_before_it_stops(void **state)
{
    struct fixture *fixture = *state;
    struct actor *device = &fixture->actors[FIXTURE_DEVICE];
    struct msg msg = {.kind = MSG_IO_WRITE, .io = {.width_bytes = 1}};
    struct bvmm_error err;
    char expected[50 + 1] = "";

    assert_int_equal(actor_start(device, &err), 0);
    for (unsigned i = 0; i < 50; i++) {
        expected[i] = (char)('0' + (int)(i % 10));
        msg.io.value = (uint64_t)expected[i];
        assert_int_equal(actor_send(&fixture->actors[FIXTURE_VCPU0], FIXTURE_DEVICE, &msg), 0);
    }
    actor_tell(&fixture->actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE,
               &(struct msg){.kind = MSG_STOP});
    assert_int_equal(pthread_join(device->thread, NULL), 0);
    (void)fixture_expect(fixture, FIXTURE_SUPERVISOR, MSG_READY);
    (void)fixture_expect(fixture, FIXTURE_SUPERVISOR, MSG_STOPPED);
    assert_console(fixture, expected);
    assert_int_equal(device->stats->state, ACTOR_STATE_STOPPED);
    assert_int_equal(device->stats->bytes, 50);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_text_reaches_the_console),
        TEST(test_order_across_vcpus),
        TEST(test_no_interrupt_until_out2),
        TEST(test_one_interrupt_for_each_rise),
        TEST(test_ctrl_c_is_typed),
        TEST(test_frame_becomes_message_and_leaves_the_console),
        TEST(test_frame_of_another_run_is_text),
        TEST(test_flood_of_frames_is_bounded),
        TEST(test_thread_drains_before_it_stops),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
