/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * uart16550.h: the registers of a 16550A, without a thread and without a wire.
 *
 * What the guest transmits goes to the caller; what it receives comes from the caller. Pure state
 * machine, so that it can be held against the data sheet in unit tests.
 * Source: National Semiconductor PC16550D data sheet, sections on registers and FIFO operation.
 *
 * Differences that a guest may notice: the line is infinitely fast, so that the transmitter is
 * always empty; characters below the receive trigger cause the time-out interrupt at once. Divisor,
 * word length, parity and "set break" are kept and change nothing: every character has eight bits,
 * and the receiver knows one error, the overrun.
 */
#ifndef BVMM_ACTORS_UART16550_H
#define BVMM_ACTORS_UART16550_H

#include "base/base.h"

#define UART_FIFO_BYTES 16
#define UART_REGISTERS 8

/* Register offsets; some share one, by direction or by the divisor latch access bit. */
enum uart_register {
    UART_RBR_THR_DLL = 0,
    UART_IER_DLM = 1,
    UART_IIR_FCR = 2,
    UART_LCR = 3,
    UART_MCR = 4,
    UART_LSR = 5,
    UART_MSR = 6,
    UART_SCR = 7,
};

struct uart {
    uint8_t ier, lcr, mcr, lsr, msr, scr;
    uint8_t divisor_low, divisor_high;
    bool fifo_enabled;
    uint8_t rx_trigger_bytes;
    uint8_t rx[UART_FIFO_BYTES];
    uint8_t rx_head, rx_count;
    bool thre_pending; /* transmitter empty, and not yet told by a read of IIR */
};

/* The state after a master reset (the data sheet's reset table), line up. */
void uart_reset(struct uart *uart);

/* uart_read - what a read of the register returns, with its side effects. @offset: 0..7. */
uint8_t uart_read(struct uart *uart, unsigned offset);

/*
 * uart_write - a write to a register. @offset: 0..7.
 * Return: true if a character leaves on the line: *ret_tx.
 */
bool uart_write(struct uart *uart, unsigned offset, uint8_t value, uint8_t *ret_tx) must_check;

/*
 * A character arrives on the line. False: it is lost, since there was no room (LSR tells of the
 * overrun), or since the line is disconnected (loopback).
 */
bool uart_receive(struct uart *uart, uint8_t value);

/* The level of the interrupt output: any enabled condition holds. */
bool uart_interrupt(const struct uart *uart);

/*
 * What of it reaches the interrupt controller of a PC: output OUT2 opens the way. Linux relies on
 * that when it tests the transmitter's interrupt: a second CPU that took it would make the driver
 * distrust the UART, and look at it by a timer from then on.
 */
bool uart_irq_line(const struct uart *uart);

#endif
