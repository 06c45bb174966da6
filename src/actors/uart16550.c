/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * uart16550.c: the registers of a 16550A. See uart16550.h.
 *
 * Thread: the serial actor's. Never blocks, makes no system call.
 */
#include "actors/uart16550.h"

#include <string.h>

enum ier_bits {
    IER_RX_AVAILABLE = 0x01,
    IER_THR_EMPTY = 0x02,
    IER_LINE_STATUS = 0x04,
    IER_MODEM_STATUS = 0x08,
    IER_WRITABLE = 0x0f,
};

enum iir_values {
    IIR_MODEM_STATUS = 0x00,
    IIR_NONE = 0x01,
    IIR_THR_EMPTY = 0x02,
    IIR_RX_AVAILABLE = 0x04,
    IIR_LINE_STATUS = 0x06,
    IIR_RX_TIMEOUT = 0x0c,
    IIR_FIFO_ENABLED = 0xc0,
};

enum fcr_bits { FCR_ENABLE = 0x01, FCR_CLEAR_RX = 0x02, FCR_TRIGGER_SHIFT = 6 };
enum lcr_bits { LCR_DLAB = 0x80 };

enum mcr_bits {
    MCR_DTR = 0x01,
    MCR_RTS = 0x02,
    MCR_OUT1 = 0x04,
    MCR_OUT2 = 0x08,
    MCR_LOOPBACK = 0x10,
    MCR_WRITABLE = 0x1f,
};

enum lsr_bits {
    LSR_DATA_READY = 0x01,
    LSR_OVERRUN = 0x02,
    LSR_ERRORS = 0x1e,
    LSR_THR_EMPTY = 0x20,
    LSR_TRANSMITTER_EMPTY = 0x40,
};

enum msr_bits {
    MSR_DELTA_CTS = 0x01,
    MSR_DELTA_DSR = 0x02,
    MSR_TRAILING_RI = 0x04,
    MSR_DELTA_DCD = 0x08,
    MSR_DELTAS = 0x0f,
    MSR_CTS = 0x10,
    MSR_DSR = 0x20,
    MSR_RI = 0x40,
    MSR_DCD = 0x80,
};

/* The other end of the line is always there and ready. */
#define MSR_LINE_UP (MSR_CTS | MSR_DSR | MSR_DCD)

void uart_reset(struct uart *uart)
{
    memset(uart, 0, sizeof(*uart));
    uart->lsr = LSR_THR_EMPTY | LSR_TRANSMITTER_EMPTY;
    uart->msr = MSR_LINE_UP;
    uart->rx_trigger_bytes = 1;
}

/* ---- Receiver -------------------------------------------------------------------------------- */

static unsigned rx_capacity(const struct uart *uart)
{
    return uart->fifo_enabled ? UART_FIFO_BYTES : 1;
}

static void rx_clear(struct uart *uart)
{
    uart->rx_head = 0;
    uart->rx_count = 0;
    uart->lsr = (uint8_t)(uart->lsr & ~LSR_DATA_READY);
}

static bool rx_push(struct uart *uart, uint8_t value)
{
    if (uart->rx_count >= rx_capacity(uart)) {
        uart->lsr |= LSR_OVERRUN;
        if (!uart->fifo_enabled) {
            uart->rx[uart->rx_head] = value; /* without FIFO the new character takes the place */
        }
        return false;
    }
    uart->rx[(uart->rx_head + uart->rx_count) % UART_FIFO_BYTES] = value;
    uart->rx_count++;
    uart->lsr |= LSR_DATA_READY;
    return true;
}

bool uart_receive(struct uart *uart, uint8_t value)
{
    if ((uart->mcr & MCR_LOOPBACK) != 0) {
        return false; /* the receiver listens to the transmitter and not to the line */
    }
    return rx_push(uart, value);
}

static uint8_t rx_pop(struct uart *uart)
{
    uint8_t value = uart->rx[uart->rx_head];

    if (uart->rx_count == 0) {
        return 0;
    }
    uart->rx_head = (uint8_t)((uart->rx_head + 1) % UART_FIFO_BYTES);
    uart->rx_count--;
    if (uart->rx_count == 0) {
        uart->lsr = (uint8_t)(uart->lsr & ~LSR_DATA_READY);
    }
    return value;
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

/* The highest pending and enabled condition, by the priorities of the interrupt control table. */
static uint8_t interrupt_source(const struct uart *uart)
{
    if ((uart->ier & IER_LINE_STATUS) != 0 && (uart->lsr & LSR_ERRORS) != 0) {
        return IIR_LINE_STATUS;
    }
    if ((uart->ier & IER_RX_AVAILABLE) != 0 && uart->rx_count > 0) {
        return uart->rx_count >= uart->rx_trigger_bytes ? IIR_RX_AVAILABLE : IIR_RX_TIMEOUT;
    }
    if ((uart->ier & IER_THR_EMPTY) != 0 && uart->thre_pending) {
        return IIR_THR_EMPTY;
    }
    if ((uart->ier & IER_MODEM_STATUS) != 0 && (uart->msr & MSR_DELTAS) != 0) {
        return IIR_MODEM_STATUS;
    }
    return IIR_NONE;
}

bool uart_interrupt(const struct uart *uart)
{
    return interrupt_source(uart) != IIR_NONE;
}

bool uart_irq_line(const struct uart *uart)
{
    return (uart->mcr & MCR_OUT2) != 0 && uart_interrupt(uart);
}

/* ---- Modem lines ----------------------------------------------------------------------------- */

/* In loopback the four outputs are wired to the four inputs (modem control register, bit 4). */
static uint8_t modem_inputs(const struct uart *uart)
{
    unsigned inputs = 0;

    if ((uart->mcr & MCR_LOOPBACK) == 0) {
        return MSR_LINE_UP;
    }
    inputs |= (uart->mcr & MCR_RTS) != 0 ? MSR_CTS : 0U;
    inputs |= (uart->mcr & MCR_DTR) != 0 ? MSR_DSR : 0U;
    inputs |= (uart->mcr & MCR_OUT1) != 0 ? MSR_RI : 0U;
    inputs |= (uart->mcr & MCR_OUT2) != 0 ? MSR_DCD : 0U;
    return (uint8_t)inputs;
}

static void modem_update(struct uart *uart)
{
    const uint8_t before = uart->msr;
    const uint8_t now = modem_inputs(uart);
    const unsigned changed = before ^ now;
    unsigned deltas = before & MSR_DELTAS;

    deltas |= (changed & MSR_CTS) != 0 ? MSR_DELTA_CTS : 0U;
    deltas |= (changed & MSR_DSR) != 0 ? MSR_DELTA_DSR : 0U;
    deltas |= (changed & before & MSR_RI) != 0 ? MSR_TRAILING_RI : 0U;
    deltas |= (changed & MSR_DCD) != 0 ? MSR_DELTA_DCD : 0U;
    uart->msr = (uint8_t)(now | deltas);
}

/* ---- Register access ------------------------------------------------------------------------- */

static bool divisor_latch(const struct uart *uart)
{
    return (uart->lcr & LCR_DLAB) != 0;
}

static uint8_t read_iir(struct uart *uart)
{
    uint8_t source = interrupt_source(uart);

    if (source == IIR_THR_EMPTY) {
        uart->thre_pending = false; /* telling it is what resets it */
    }
    return (uint8_t)(source | (uart->fifo_enabled ? IIR_FIFO_ENABLED : 0U));
}

static uint8_t read_lsr(struct uart *uart)
{
    uint8_t value = uart->lsr;

    uart->lsr = (uint8_t)(uart->lsr & ~LSR_ERRORS);
    return value;
}

static uint8_t read_msr(struct uart *uart)
{
    uint8_t value = uart->msr;

    uart->msr = (uint8_t)(uart->msr & ~MSR_DELTAS);
    return value;
}

uint8_t uart_read(struct uart *uart, unsigned offset)
{
    switch ((enum uart_register)offset) {
    case UART_RBR_THR_DLL:
        return divisor_latch(uart) ? uart->divisor_low : rx_pop(uart);
    case UART_IER_DLM:
        return divisor_latch(uart) ? uart->divisor_high : uart->ier;
    case UART_IIR_FCR:
        return read_iir(uart);
    case UART_LCR:
        return uart->lcr;
    case UART_MCR:
        return uart->mcr;
    case UART_LSR:
        return read_lsr(uart);
    case UART_MSR:
        return read_msr(uart);
    case UART_SCR:
        return uart->scr;
    default:
        return 0xff;
    }
}

static void write_fcr(struct uart *uart, uint8_t value)
{
    static const uint8_t triggers_bytes[4] = {1, 4, 8, 14};
    const bool enable = (value & FCR_ENABLE) != 0;

    if (enable != uart->fifo_enabled || (enable && (value & FCR_CLEAR_RX) != 0)) {
        rx_clear(uart); /* changing the mode clears both FIFOs; the transmitter's is always empty */
    }
    uart->fifo_enabled = enable;
    uart->rx_trigger_bytes = enable ? triggers_bytes[value >> FCR_TRIGGER_SHIFT] : 1;
}

static void write_ier(struct uart *uart, uint8_t value)
{
    const uint8_t before = uart->ier;

    uart->ier = value & IER_WRITABLE;
    if ((before & IER_THR_EMPTY) == 0 && (uart->ier & IER_THR_EMPTY) != 0) {
        uart->thre_pending = true; /* enabled while empty: interrupts at once */
    }
}

/* True: the character goes out on the line. */
static bool write_thr(struct uart *uart, uint8_t value)
{
    uart->thre_pending = true; /* it has left already */
    if ((uart->mcr & MCR_LOOPBACK) != 0) {
        (void)rx_push(uart, value);
        return false;
    }
    return true;
}

bool uart_write(struct uart *uart, unsigned offset, uint8_t value, uint8_t *ret_tx)
{
    switch ((enum uart_register)offset) {
    case UART_RBR_THR_DLL:
        if (divisor_latch(uart)) {
            uart->divisor_low = value;
        } else if (write_thr(uart, value)) {
            *ret_tx = value;
            return true;
        }
        break;
    case UART_IER_DLM:
        if (divisor_latch(uart)) {
            uart->divisor_high = value;
        } else {
            write_ier(uart, value);
        }
        break;
    case UART_IIR_FCR:
        write_fcr(uart, value);
        break;
    case UART_LCR:
        uart->lcr = value;
        break;
    case UART_MCR:
        uart->mcr = value & MCR_WRITABLE;
        modem_update(uart);
        break;
    case UART_SCR:
        uart->scr = value;
        break;
    case UART_LSR: /* factory test only */
    case UART_MSR:
    default:
        break;
    }
    return false;
}
