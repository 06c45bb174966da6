/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * serial.c: the serial actor. See serial.h.
 *
 * Thread: serial. Blocks: reading its doorbell. System calls: read and write (doorbells, interrupt),
 * clock_gettime.
 */
#include "actors/serial.h"

#include <time.h>

/* clang-format off */
static const struct reg_def serial_regs[] = {
    {UART_RBR_THR_DLL, 1, REG_POSTED, "RBR/THR/DLL"}, /* the line takes any character at any time */
    {UART_IER_DLM,     1, REG_POSTED, "IER/DLM"    },
    {UART_IIR_FCR,     1, REG_POSTED, "IIR/FCR"    },
    {UART_LCR,         1, REG_POSTED, "LCR"        },
    {UART_MCR,         1, REG_POSTED, "MCR"        },
    {UART_LSR,         1, REG_POSTED, "LSR"        },
    {UART_MSR,         1, REG_POSTED, "MSR"        },
    {UART_SCR,         1, REG_POSTED, "SCR"        },
};
/* clang-format on */

const struct reg_region_def serial_region = {
    .name = "16550A",
    .bytes = UART_REGISTERS,
    .regs = serial_regs,
    .reg_count = ARRAY_SIZE(serial_regs),
};

/* ---- What the guest prints ------------------------------------------------------------------- */

static void serial_on_text(void *context, const uint8_t *bytes, size_t count)
{
    struct actor *self = context;

    record_console_append(self->record, bytes, count);
}

static void serial_on_frame(void *context, const struct frame_header *header,
                            const uint8_t *payload)
{
    struct actor *self = context;
    struct serial *serial = self->state;

    collector_frame(&serial->collector, header, payload);
}

static const struct frame_decoder_ops serial_decoder_ops = {
    .on_text = serial_on_text,
    .on_frame = serial_on_frame,
};

static void serial_flush(struct actor *self)
{
    struct serial *serial = self->state;

    frame_decoder_feed(&serial->decoder, serial->piece, serial->piece_bytes);
    self->stats->bytes += serial->piece_bytes;
    serial->piece_bytes = 0;
}

/* ---- Registers ------------------------------------------------------------------------------- */

/* The interrupt controller sees edges: one for each time that the line rises. */
static void serial_update_irq(struct serial *serial)
{
    const bool level = uart_irq_line(&serial->uart);

    if (level && !serial->irq_level) {
        irq_raise(&serial->irq);
    }
    serial->irq_level = level;
}

static void serial_on_read(struct actor *self, const struct msg *msg)
{
    struct serial *serial = self->state;
    struct msg answer = {.kind = MSG_IO_READ_DONE};

    answer.io.value = uart_read(&serial->uart, msg->io.offset_bytes);
    serial_update_irq(serial);
    actor_tell(self, msg->from, &answer);
}

static void serial_on_write(struct actor *self, const struct msg *msg)
{
    struct serial *serial = self->state;
    uint8_t tx = 0;

    if (uart_write(&serial->uart, msg->io.offset_bytes, (uint8_t)msg->io.value, &tx)) {
        serial->piece[serial->piece_bytes++] = tx;
        if (serial->piece_bytes == SERIAL_PIECE_BYTES) {
            serial_flush(self);
        }
    }
    serial_update_irq(serial);
}

static void serial_on_write_acked(struct actor *self, const struct msg *msg)
{
    serial_on_write(self, msg);
    actor_tell(self, msg->from, &(struct msg){.kind = MSG_IO_WRITE_DONE});
}

/* If the receiver is full the guest is busy otherwise: the supervisor waits for a while and no more. */
static void serial_on_type(struct actor *self, const struct msg *msg)
{
    struct serial *serial = self->state;

    (void)uart_receive(&serial->uart,
                       msg->kind == MSG_TYPE_CTRL_C ? SERIAL_CTRL_C : SERIAL_CTRL_BACKSLASH);
    serial_update_irq(serial);
}

bool serial_poll(struct actor *self, bool *worked)
{
    struct serial *serial = self->state;

    (void)worked; /* what is flushed here came by messages: they were counted */
    if (serial->piece_bytes > 0) {
        serial_flush(self);
    }
    return false;
}

void serial_stop(struct actor *self)
{
    struct serial *serial = self->state;

    serial_flush(self);
    frame_decoder_finish(&serial->decoder);
}

void serial_init(struct serial *serial, struct actor *self, int irq_eventfd)
{
    uart_reset(&serial->uart);
    serial->irq = (struct irq){.eventfd = irq_eventfd, .stats = self->stats};
    serial->irq_level = false;
    serial->piece_bytes = 0;
    frame_decoder_init(&serial->decoder, FRAME_MODE_CONSOLE, self->record->nonce,
                       &serial_decoder_ops, self);
    self->state = serial;
    collector_init(&serial->collector, self, VIA_SERIAL);
}

const actor_handler_fn serial_on[MSG_KIND_COUNT] = {
    [MSG_IO_READ] = serial_on_read,
    [MSG_IO_WRITE] = serial_on_write,
    [MSG_IO_WRITE_ACKED] = serial_on_write_acked,
    [MSG_TYPE_CTRL_C] = serial_on_type,
    [MSG_TYPE_CTRL_BACKSLASH] = serial_on_type,
};

static const struct policy_rule serial_rules[] = {
    POLICY_READ_DOORBELL,   POLICY_RING_DOORBELLS, POLICY_RAISE_IRQ,
    POLICY_CLOCK_MONOTONIC, POLICY_CLOCK_CPU,      POLICY_EXIT_THREAD,
};

const struct policy serial_policy = {serial_rules, ARRAY_SIZE(serial_rules)};
