/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * serial.h: the guest's console, a 16550A (COM1 on x86_64, ns16550a on aarch64).
 *
 * What the guest prints goes into the console log of the run record. Frames of bvmm's init
 * (protocol.h) that come along are taken out of it, and become messages to the supervisor.
 */
#ifndef BVMM_ACTORS_SERIAL_H
#define BVMM_ACTORS_SERIAL_H

#include "actors/actor.h"
#include "actors/collector.h"
#include "actors/irq.h"
#include "actors/regs.h"
#include "actors/uart16550.h"
#include "protocol/frame.h"

/* Characters are handed to the decoder in pieces: at the latest when the lanes are empty. */
#define SERIAL_PIECE_BYTES 512

/* What the console's driver takes for the interrupt key and the quit key. */
#define SERIAL_CTRL_C 3
#define SERIAL_CTRL_BACKSLASH 28

struct serial {
    struct uart uart;
    struct irq irq;
    bool irq_level; /* of the UART's output, to find its rising edge */
    struct frame_decoder decoder;
    struct collector collector;
    unsigned piece_bytes;
    uint8_t piece[SERIAL_PIECE_BYTES];
};

extern const struct reg_region_def serial_region;

/* Before the machine starts. @irq_eventfd: bound to the interrupt line. */
void serial_init(struct serial *serial, struct actor *self, int irq_eventfd);

/* For actor_table.c. */
extern const actor_handler_fn serial_on[MSG_KIND_COUNT];
bool serial_poll(struct actor *self, bool *worked);
void serial_stop(struct actor *self);

extern const struct policy serial_policy;

#endif
