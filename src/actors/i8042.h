/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * i8042.h: the keyboard controller of a PC, with a keyboard and without a mouse.
 * Source: Intel 8042 as the IBM PC/AT Technical Reference describes it (commands of port 0x64,
 * status and command bytes), IBM PS/2 keyboard commands.
 *
 * Why a benchmark's VM has one: `reboot=k` ends it (command 0xFE pulses the reset line), and
 * Ctrl-Alt-Del asks the guest to end by itself. Only these two ends matter: the self-test (0xAA) and
 * all that Linux's driver does to find the controller are no end of anything.
 *
 * i8042_read() and i8042_write() are a pure state machine; the rest of the file is its actor.
 */
#ifndef BVMM_ACTORS_I8042_H
#define BVMM_ACTORS_I8042_H

#include "actors/actor.h"
#include "actors/irq.h"
#include "actors/regs.h"

#define I8042_OFFSET_DATA 0    /* port 0x60 */
#define I8042_OFFSET_COMMAND 4 /* port 0x64: status when read */
#define I8042_WINDOW_BYTES 5
#define I8042_QUEUE_BYTES 16

/* Which byte a write to the data port belongs to. */
enum i8042_expect {
    I8042_EXPECT_KEYBOARD, /* a command for the keyboard */
    I8042_EXPECT_KEYBOARD_ARGUMENT,
    I8042_EXPECT_COMMAND_BYTE,
    I8042_EXPECT_OUTPUT_PORT,
    I8042_EXPECT_ECHO_KEYBOARD, /* command 0xD2 */
    I8042_EXPECT_ECHO_AUX,      /* command 0xD3 */
    I8042_EXPECT_AUX,           /* command 0xD4 */
};

struct i8042 {
    uint8_t command_byte;
    bool last_was_command; /* status bit 3 */
    bool scanning;         /* the keyboard sends keys */
    enum i8042_expect expect;
    uint8_t keyboard_command; /* that waits for its argument */
    uint8_t queue[I8042_QUEUE_BYTES];
    unsigned queue_head, queue_count;
    struct irq irq;
    bool reset_told;
};

/* What a write did, besides to the registers. */
enum i8042_effect { I8042_NO_EFFECT, I8042_RESET };

void i8042_reset(struct i8042 *controller);
uint8_t i8042_read(struct i8042 *controller, unsigned offset);
enum i8042_effect i8042_write(struct i8042 *controller, unsigned offset, uint8_t value) must_check;

/* Press and release Ctrl-Alt-Del. False: the guest has no driver that listens, or it does not read. */
bool i8042_press_ctrl_alt_del(struct i8042 *controller);

/* A byte waits, and the driver wants an interrupt for it. */
bool i8042_interrupt(const struct i8042 *controller);

extern const struct reg_region_def i8042_region;

/* Before the machine starts. @irq_eventfd: bound to the interrupt line of the keyboard. */
void i8042_init(struct i8042 *controller, struct actor *self, int irq_eventfd);

/* For actor_table.c. */
extern const actor_handler_fn i8042_on[MSG_KIND_COUNT];

extern const struct policy i8042_policy;

#endif
