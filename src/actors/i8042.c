/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * i8042.c: the keyboard controller actor. See i8042.h.
 *
 * Thread: i8042. Blocks: reading its doorbell. System calls: read and write (doorbells, interrupt),
 * clock_gettime.
 */
#include "actors/i8042.h"

#include <string.h>
#include <time.h>

enum status_bits {
    STATUS_OUTPUT_FULL = 0x01,
    STATUS_SYSTEM = 0x04,
    STATUS_COMMAND = 0x08,
    STATUS_NOT_LOCKED = 0x10,
};

enum command_byte_bits {
    CTR_KEYBOARD_INTERRUPT = 0x01,
    CTR_SYSTEM = 0x04,
    CTR_KEYBOARD_DISABLE = 0x10,
    CTR_AUX_DISABLE = 0x20,
    CTR_TRANSLATE = 0x40,
};

enum controller_commands {
    CMD_READ_COMMAND_BYTE = 0x20,
    CMD_WRITE_COMMAND_BYTE = 0x60,
    CMD_DISABLE_AUX = 0xa7,
    CMD_ENABLE_AUX = 0xa8,
    CMD_TEST_AUX = 0xa9,
    CMD_SELF_TEST = 0xaa,
    CMD_TEST_KEYBOARD = 0xab,
    CMD_DISABLE_KEYBOARD = 0xad,
    CMD_ENABLE_KEYBOARD = 0xae,
    CMD_READ_OUTPUT_PORT = 0xd0,
    CMD_WRITE_OUTPUT_PORT = 0xd1,
    CMD_ECHO_KEYBOARD = 0xd2,
    CMD_ECHO_AUX = 0xd3,
    CMD_WRITE_AUX = 0xd4,
    CMD_PULSE_FIRST = 0xf0, /* 0xf0 to 0xff: pulse the lines whose bit is 0 */
};

enum keyboard_commands {
    KBD_SET_LEDS = 0xed,
    KBD_ECHO = 0xee,
    KBD_SCAN_CODE_SET = 0xf0,
    KBD_IDENTIFY = 0xf2,
    KBD_SET_RATE = 0xf3,
    KBD_ENABLE = 0xf4,
    KBD_DISABLE = 0xf5,
    KBD_DEFAULTS = 0xf6,
    KBD_RESET = 0xff,
    KBD_ACK = 0xfa,
    KBD_TEST_PASSED = 0xaa,
    KBD_RESEND = 0xfe,
};

enum {
    SELF_TEST_PASSED = 0x55,
    TEST_KEYBOARD_PASSED = 0x00,
    TEST_AUX_FAILED = 0x04,       /* data line stuck high: there is no mouse */
    OUTPUT_PORT_NOT_RESET = 0x01, /* the reset line is active low */
    OUTPUT_PORT_A20 = 0x02,
};

/* ---- The output buffer ----------------------------------------------------------------------- */

static bool queue_push(struct i8042 *controller, const uint8_t *bytes, unsigned count)
{
    if (count > I8042_QUEUE_BYTES - controller->queue_count) {
        return false; /* a guest that never reads gets no more to read */
    }
    for (unsigned i = 0; i < count; i++) {
        unsigned at = (controller->queue_head + controller->queue_count) % I8042_QUEUE_BYTES;

        controller->queue[at] = bytes[i];
        controller->queue_count++;
    }
    return true;
}

static void queue_push_byte(struct i8042 *controller, uint8_t value)
{
    (void)queue_push(controller, &value, 1);
}

static uint8_t queue_pop(struct i8042 *controller)
{
    const uint8_t value = controller->queue[controller->queue_head];

    if (controller->queue_count > 0) {
        controller->queue_head = (controller->queue_head + 1) % I8042_QUEUE_BYTES;
        controller->queue_count--;
    }
    return value; /* an empty buffer gives its last byte again */
}

bool i8042_interrupt(const struct i8042 *controller)
{
    return controller->queue_count > 0 && (controller->command_byte & CTR_KEYBOARD_INTERRUPT) != 0;
}

/* ---- The keyboard ---------------------------------------------------------------------------- */

static void keyboard_command(struct i8042 *controller, uint8_t command)
{
    static const uint8_t identity[] = {KBD_ACK, 0xab, 0x83};
    static const uint8_t reset_done[] = {KBD_ACK, KBD_TEST_PASSED};

    switch (command) {
    case KBD_SET_LEDS:
    case KBD_SET_RATE:
    case KBD_SCAN_CODE_SET:
        controller->keyboard_command = command;
        controller->expect = I8042_EXPECT_KEYBOARD_ARGUMENT;
        queue_push_byte(controller, KBD_ACK);
        break;
    case KBD_ECHO:
        queue_push_byte(controller, KBD_ECHO);
        break;
    case KBD_IDENTIFY:
        (void)queue_push(controller, identity, sizeof(identity));
        break;
    case KBD_ENABLE:
        controller->scanning = true;
        queue_push_byte(controller, KBD_ACK);
        break;
    case KBD_DISABLE:
    case KBD_DEFAULTS:
        controller->scanning = command == KBD_DEFAULTS;
        queue_push_byte(controller, KBD_ACK);
        break;
    case KBD_RESET:
        controller->scanning = true;
        (void)queue_push(controller, reset_done, sizeof(reset_done));
        break;
    default:
        queue_push_byte(controller, KBD_RESEND);
        break;
    }
}

static void keyboard_argument(struct i8042 *controller, uint8_t argument)
{
    queue_push_byte(controller, KBD_ACK);
    if (controller->keyboard_command == KBD_SCAN_CODE_SET && argument == 0) {
        queue_push_byte(controller, 2); /* which set it is in */
    }
}

bool i8042_press_ctrl_alt_del(struct i8042 *controller)
{
    /* Set 1 is what the controller makes of set 2 when it translates. */
    static const uint8_t set1[] = {0x1d, 0x38, 0xe0, 0x53, 0xe0, 0xd3, 0xb8, 0x9d};
    static const uint8_t set2[] = {0x14, 0x11, 0xe0, 0x71, 0xe0, 0xf0,
                                   0x71, 0xf0, 0x11, 0xf0, 0x14};

    if (!controller->scanning || (controller->command_byte & CTR_KEYBOARD_DISABLE) != 0) {
        return false;
    }
    if ((controller->command_byte & CTR_TRANSLATE) != 0) {
        return queue_push(controller, set1, sizeof(set1));
    }
    return queue_push(controller, set2, sizeof(set2));
}

/* ---- The controller -------------------------------------------------------------------------- */

void i8042_reset(struct i8042 *controller)
{
    memset(controller, 0, sizeof(*controller));
    controller->command_byte = CTR_KEYBOARD_INTERRUPT | CTR_SYSTEM | CTR_TRANSLATE;
    controller->expect = I8042_EXPECT_KEYBOARD;
    controller->scanning = true;
}

uint8_t i8042_read(struct i8042 *controller, unsigned offset)
{
    unsigned status = STATUS_NOT_LOCKED;

    if (offset == I8042_OFFSET_DATA) {
        return queue_pop(controller);
    }
    if (offset != I8042_OFFSET_COMMAND) {
        return 0xff;
    }
    status |= controller->queue_count > 0 ? STATUS_OUTPUT_FULL : 0U;
    status |= (controller->command_byte & CTR_SYSTEM) != 0 ? STATUS_SYSTEM : 0U;
    status |= controller->last_was_command ? STATUS_COMMAND : 0U;
    return (uint8_t)status;
}

static enum i8042_effect controller_command(struct i8042 *controller, uint8_t command)
{
    controller->expect = I8042_EXPECT_KEYBOARD;
    switch (command) {
    case CMD_READ_COMMAND_BYTE:
        queue_push_byte(controller, controller->command_byte);
        break;
    case CMD_WRITE_COMMAND_BYTE:
        controller->expect = I8042_EXPECT_COMMAND_BYTE;
        break;
    case CMD_DISABLE_AUX:
        controller->command_byte |= CTR_AUX_DISABLE;
        break;
    case CMD_ENABLE_AUX:
        controller->command_byte = (uint8_t)(controller->command_byte & ~CTR_AUX_DISABLE);
        break;
    case CMD_TEST_AUX:
        queue_push_byte(controller, TEST_AUX_FAILED);
        break;
    case CMD_SELF_TEST:
        queue_push_byte(controller, SELF_TEST_PASSED);
        break;
    case CMD_TEST_KEYBOARD:
        queue_push_byte(controller, TEST_KEYBOARD_PASSED);
        break;
    case CMD_DISABLE_KEYBOARD:
        controller->command_byte |= CTR_KEYBOARD_DISABLE;
        break;
    case CMD_ENABLE_KEYBOARD:
        controller->command_byte = (uint8_t)(controller->command_byte & ~CTR_KEYBOARD_DISABLE);
        break;
    case CMD_READ_OUTPUT_PORT:
        queue_push_byte(controller, OUTPUT_PORT_NOT_RESET | OUTPUT_PORT_A20);
        break;
    case CMD_WRITE_OUTPUT_PORT:
        controller->expect = I8042_EXPECT_OUTPUT_PORT;
        break;
    case CMD_ECHO_KEYBOARD:
        controller->expect = I8042_EXPECT_ECHO_KEYBOARD;
        break;
    case CMD_ECHO_AUX:
        controller->expect = I8042_EXPECT_ECHO_AUX;
        break;
    case CMD_WRITE_AUX:
        controller->expect = I8042_EXPECT_AUX;
        break;
    default:
        if (command >= CMD_PULSE_FIRST && (command & OUTPUT_PORT_NOT_RESET) == 0) {
            return I8042_RESET;
        }
        break;
    }
    return I8042_NO_EFFECT;
}

static enum i8042_effect data_write(struct i8042 *controller, uint8_t value)
{
    const enum i8042_expect expect = controller->expect;

    controller->expect = I8042_EXPECT_KEYBOARD;
    switch (expect) {
    case I8042_EXPECT_KEYBOARD:
        /* Talking to the keyboard enables its interface. */
        controller->command_byte = (uint8_t)(controller->command_byte & ~CTR_KEYBOARD_DISABLE);
        keyboard_command(controller, value);
        break;
    case I8042_EXPECT_KEYBOARD_ARGUMENT:
        keyboard_argument(controller, value);
        break;
    case I8042_EXPECT_COMMAND_BYTE:
        controller->command_byte = value;
        break;
    case I8042_EXPECT_OUTPUT_PORT:
        return (value & OUTPUT_PORT_NOT_RESET) == 0 ? I8042_RESET : I8042_NO_EFFECT;
    case I8042_EXPECT_ECHO_KEYBOARD:
    case I8042_EXPECT_ECHO_AUX: /* comes back without the mark of a mouse: there is none */
        queue_push_byte(controller, value);
        break;
    case I8042_EXPECT_AUX:
        queue_push_byte(controller, KBD_RESEND); /* nobody there to take it */
        break;
    }
    return I8042_NO_EFFECT;
}

enum i8042_effect i8042_write(struct i8042 *controller, unsigned offset, uint8_t value)
{
    controller->last_was_command = offset == I8042_OFFSET_COMMAND;
    if (offset == I8042_OFFSET_COMMAND) {
        return controller_command(controller, value);
    }
    return offset == I8042_OFFSET_DATA ? data_write(controller, value) : I8042_NO_EFFECT;
}

/* ---- The actor ------------------------------------------------------------------------------- */

/* The buffer is one byte deep for the guest: each byte that it is filled with anew is an edge. */
static void i8042_raise(struct i8042 *controller)
{
    if (i8042_interrupt(controller)) {
        irq_raise(&controller->irq);
    }
}

static void i8042_on_read(struct actor *self, const struct msg *msg)
{
    struct i8042 *controller = self->state;
    struct msg answer = {.kind = MSG_IO_READ_DONE};

    answer.io.value = i8042_read(controller, msg->io.offset_bytes);
    if (msg->io.offset_bytes == I8042_OFFSET_DATA) {
        i8042_raise(controller);
    }
    actor_tell(self, msg->from, &answer);
}

static void i8042_on_write(struct actor *self, const struct msg *msg)
{
    struct i8042 *controller = self->state;
    const bool was_raised = i8042_interrupt(controller);

    if (i8042_write(controller, msg->io.offset_bytes, (uint8_t)msg->io.value) == I8042_RESET &&
        !controller->reset_told) {
        controller->reset_told = true;
        actor_tell(self, ACTOR_ID_SUPERVISOR, &(struct msg){.kind = MSG_GUEST_RESET});
    }
    /* A byte may have come, or its interrupt been allowed while one was waiting. */
    if (!was_raised) {
        i8042_raise(controller);
    }
}

static void i8042_on_write_acked(struct actor *self, const struct msg *msg)
{
    i8042_on_write(self, msg);
    actor_tell(self, msg->from, &(struct msg){.kind = MSG_IO_WRITE_DONE});
}

static void i8042_on_press_ctrl_alt_del(struct actor *self, const struct msg *msg)
{
    struct i8042 *controller = self->state;
    const bool was_empty = controller->queue_count == 0;

    (void)msg;
    if (i8042_press_ctrl_alt_del(controller) && was_empty) {
        i8042_raise(controller);
    }
}

void i8042_init(struct i8042 *controller, struct actor *self, int irq_eventfd)
{
    i8042_reset(controller);
    controller->irq = (struct irq){.eventfd = irq_eventfd, .stats = self->stats};
    self->state = controller;
}

/* clang-format off */
static const struct reg_def i8042_regs[] = {
    {I8042_OFFSET_DATA,    1, REG_POSTED, "data"          },
    {I8042_OFFSET_COMMAND, 1, REG_POSTED, "command/status"},
};
/* clang-format on */

const struct reg_region_def i8042_region = {
    .name = "i8042",
    .bytes = I8042_WINDOW_BYTES,
    .regs = i8042_regs,
    .reg_count = ARRAY_SIZE(i8042_regs),
};

const actor_handler_fn i8042_on[MSG_KIND_COUNT] = {
    [MSG_IO_READ] = i8042_on_read,
    [MSG_IO_WRITE] = i8042_on_write,
    [MSG_IO_WRITE_ACKED] = i8042_on_write_acked,
    [MSG_PRESS_CTRL_ALT_DEL] = i8042_on_press_ctrl_alt_del,
};

static const struct policy_rule i8042_rules[] = {
    POLICY_READ_DOORBELL, POLICY_RING_DOORBELLS, POLICY_RAISE_IRQ,
    POLICY_CLOCK_CPU,     POLICY_EXIT_THREAD,
};

const struct policy i8042_policy = {i8042_rules, ARRAY_SIZE(i8042_rules)};
