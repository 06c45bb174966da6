/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_i8042.c: the keyboard controller, as Linux's driver and reboot code use it.
 */
#include "actor_fixture.h"

#include "actors/i8042.h"

#define DATA I8042_OFFSET_DATA
#define COMMAND I8042_OFFSET_COMMAND
#define OUTPUT_FULL 0x01

static int setup(void **state)
{
    static struct fixture fixture;
    static struct i8042 controller;

    fixture_init(&fixture, ACTOR_I8042);
    i8042_init(&controller, &fixture.actors[FIXTURE_DEVICE], fixture.irq_fd);
    *state = &fixture;
    return 0;
}

static int teardown(void **state)
{
    fixture_fini(*state);
    return 0;
}

static void out(struct fixture *fixture, uint32_t offset, uint8_t value)
{
    fixture_write(fixture, FIXTURE_VCPU0, offset, 1, value);
}

static uint8_t in(struct fixture *fixture, uint32_t offset)
{
    return (uint8_t)fixture_read(fixture, FIXTURE_VCPU0, offset, 1);
}

/* A byte must be there, and be this one. */
static void expect_byte(struct fixture *fixture, uint8_t value)
{
    assert_int_equal(in(fixture, COMMAND) & OUTPUT_FULL, OUTPUT_FULL);
    assert_int_equal(in(fixture, DATA), value);
}

static void expect_empty(struct fixture *fixture)
{
    assert_int_equal(in(fixture, COMMAND) & OUTPUT_FULL, 0);
}

static void test_self_test_is_not_a_reset(void **state)
{
    out(*state, COMMAND, 0xaa);
    expect_byte(*state, 0x55);
    expect_empty(*state);
    out(*state, COMMAND, 0xab);
    expect_byte(*state, 0x00);
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
}

static void test_reset_by_pulse_is_told_once(void **state)
{
    out(*state, COMMAND, 0xfe);
    out(*state, COMMAND, 0xfe);
    (void)fixture_expect(*state, FIXTURE_SUPERVISOR, MSG_GUEST_RESET);
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
}

static void test_pulse_that_spares_the_reset_line(void **state)
{
    for (unsigned command = 0xf1; command <= 0xff; command += 2) {
        out(*state, COMMAND, (uint8_t)command);
    }
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
}

static void test_reset_by_output_port(void **state)
{
    out(*state, COMMAND, 0xd1);
    out(*state, DATA, 0x03);
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
    out(*state, COMMAND, 0xd1);
    out(*state, DATA, 0x02);
    (void)fixture_expect(*state, FIXTURE_SUPERVISOR, MSG_GUEST_RESET);
}

static void test_a_data_byte_is_no_command(void **state)
{
    out(*state, DATA, 0xfe); /* to the keyboard: "resend", not a reset */
    fixture_expect_nothing(*state, FIXTURE_SUPERVISOR);
    expect_byte(*state, 0xfe);
}

static void test_command_byte_is_kept(void **state)
{
    out(*state, COMMAND, 0x60);
    out(*state, DATA, 0x64);
    out(*state, COMMAND, 0x20);
    expect_byte(*state, 0x64);
}

static void test_keyboard_identifies_itself(void **state)
{
    out(*state, DATA, 0xf2);
    expect_byte(*state, 0xfa);
    expect_byte(*state, 0xab);
    expect_byte(*state, 0x83);
    expect_empty(*state);
}

static void test_keyboard_commands_with_argument(void **state)
{
    out(*state, DATA, 0xed);
    expect_byte(*state, 0xfa);
    out(*state, DATA, 0x07); /* taken as the argument, whatever it looks like */
    expect_byte(*state, 0xfa);
    out(*state, DATA, 0xf0);
    expect_byte(*state, 0xfa);
    out(*state, DATA, 0x00);
    expect_byte(*state, 0xfa);
    expect_byte(*state, 0x02);
}

/* Linux probes for a mouse by the loop command and, failing that, by the test: both must say no. */
static void test_there_is_no_mouse(void **state)
{
    out(*state, COMMAND, 0xd3);
    out(*state, DATA, 0x5a);
    assert_int_equal(in(*state, COMMAND) & 0x20, 0); /* not marked as from a mouse */
    expect_byte(*state, 0x5a);
    out(*state, COMMAND, 0xa9);
    assert_int_not_equal(in(*state, DATA), 0x00);
}

static void press(struct fixture *fixture)
{
    const struct msg msg = {.kind = MSG_PRESS_CTRL_ALT_DEL};

    assert_int_equal(actor_send(&fixture->actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE, &msg), 0);
    fixture_step(fixture);
}

static void test_ctrl_alt_del_translated(void **state)
{
    static const uint8_t codes[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};

    press(*state);
    for (unsigned i = 0; i < sizeof(codes); i++) {
        assert_int_equal(fixture_interrupts(*state), 1); /* an edge for each byte */
        expect_byte(*state, codes[i]);
    }
    expect_empty(*state);
    assert_int_equal(fixture_interrupts(*state), 0);
}

static void test_ctrl_alt_del_untranslated(void **state)
{
    static const uint8_t codes[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0,
                                    0x71, 0xf0, 0x11, 0xf0, 0x14};

    out(*state, COMMAND, 0x60);
    out(*state, DATA, 0x05); /* no translation */
    press(*state);
    for (unsigned i = 0; i < sizeof(codes); i++) {
        expect_byte(*state, codes[i]);
    }
    expect_empty(*state);
}

static void test_no_key_for_a_disabled_keyboard(void **state)
{
    out(*state, COMMAND, 0xad);
    press(*state);
    expect_empty(*state);
    out(*state, COMMAND, 0xae);
    out(*state, DATA, 0xf5); /* keyboard: stop scanning */
    expect_byte(*state, 0xfa);
    press(*state);
    expect_empty(*state);
}

static void test_no_interrupt_unless_enabled(void **state)
{
    out(*state, COMMAND, 0x60);
    out(*state, DATA, 0x44);
    (void)fixture_interrupts(*state);
    out(*state, COMMAND, 0xaa);
    assert_int_equal(fixture_interrupts(*state), 0);
}

/* A guest that asks and never reads: the buffer is bounded, and nothing breaks. */
/* Linux leaves the answer of its test of the mouse unread, and allows the interrupt after that. */
static void test_interrupt_allowed_while_a_byte_waits(void **state)
{
    out(*state, COMMAND, 0x60);
    out(*state, DATA, 0x54);
    out(*state, COMMAND, 0xa9);
    assert_int_equal(fixture_interrupts(*state), 0);
    out(*state, COMMAND, 0x60);
    assert_int_equal(fixture_interrupts(*state), 0);
    out(*state, DATA, 0x45);
    assert_int_equal(fixture_interrupts(*state), 1);
    out(*state, DATA, 0xf2); /* while the byte still waits: no second edge */
    assert_int_equal(fixture_interrupts(*state), 0);
    (void)in(*state, DATA);
    assert_int_equal(fixture_interrupts(*state), 1);
    expect_byte(*state, 0xfa);
}

static void test_guest_that_never_reads(void **state)
{
    unsigned bytes = 0;

    for (unsigned i = 0; i < 1000; i++) {
        out(*state, DATA, 0xf2);
        press(*state);
    }
    while ((in(*state, COMMAND) & OUTPUT_FULL) != 0) {
        (void)in(*state, DATA);
        bytes++;
    }
    assert_true(bytes > 0 && bytes <= I8042_QUEUE_BYTES);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_self_test_is_not_a_reset),
        TEST(test_reset_by_pulse_is_told_once),
        TEST(test_pulse_that_spares_the_reset_line),
        TEST(test_reset_by_output_port),
        TEST(test_a_data_byte_is_no_command),
        TEST(test_command_byte_is_kept),
        TEST(test_keyboard_identifies_itself),
        TEST(test_keyboard_commands_with_argument),
        TEST(test_there_is_no_mouse),
        TEST(test_ctrl_alt_del_translated),
        TEST(test_ctrl_alt_del_untranslated),
        TEST(test_no_key_for_a_disabled_keyboard),
        TEST(test_no_interrupt_unless_enabled),
        TEST(test_interrupt_allowed_while_a_byte_waits),
        TEST(test_guest_that_never_reads),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
