/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_uart.c: uart16550 against the data sheet of the PC16550D, register by register, and against
 * what Linux's 8250 driver does to find out what it has before it.
 *
 * The data sheet is National Semiconductor's of June 1995. The registers' numbers and bits are
 * written out here once more, so that a slip in uart16550.c shows.
 */
#include "actors/uart16550.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum {
    RBR = 0,
    THR = 0,
    DLL = 0,
    IER = 1,
    DLM = 1,
    IIR = 2,
    FCR = 2,
    LCR = 3,
    MCR = 4,
    LSR = 5,
    MSR = 6,
    SCR = 7
};

#define DLAB 0x80
#define LOOP 0x10

/* What IIR says: 16450 mode; with the FIFOs enabled 0xc0 is added. */
enum {
    NO_INTERRUPT = 0x01,
    LINE_STATUS = 0x06,
    RX_DATA = 0x04,
    RX_TIMEOUT = 0x0c,
    THR_EMPTY = 0x02,
    MODEM = 0x00
};
#define FIFO 0xc0

static struct uart uart;
static unsigned sent_count;
static uint8_t sent_last;

static int setup(void **state)
{
    (void)state;
    memset(&uart, 0xa5, sizeof(uart)); /* the reset must not rely on what was there */
    uart_reset(&uart);
    sent_count = 0;
    sent_last = 0;
    return 0;
}

static uint8_t in(unsigned offset)
{
    return uart_read(&uart, offset);
}

static void out(unsigned offset, unsigned value)
{
    uint8_t tx = 0;

    if (uart_write(&uart, offset, (uint8_t)value, &tx)) {
        sent_count++;
        sent_last = tx;
    }
}

static void receive_text(const char *text)
{
    for (; *text != '\0'; text++) {
        assert_true(uart_receive(&uart, (uint8_t)*text));
    }
}

/* ---- Reset table: after a master reset ------------------------------------------------------- */

static void reset_values(void **state)
{
    (void)state;
    assert_int_equal(in(IER), 0x00);
    assert_int_equal(in(IIR), 0x01);
    assert_int_equal(in(LCR), 0x00);
    assert_int_equal(in(MCR), 0x00);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0); /* no changes; the line's other end is ready: CTS, DSR, DCD */
    assert_false(uart_interrupt(&uart));
    assert_int_equal(in(LSR), 0x60);
}

static void reset_forgets_everything(void **state)
{
    (void)state;
    out(FCR, 0xc1);
    out(IER, 0x0f);
    out(MCR, LOOP | 0x0f);
    out(LCR, 0x1b);
    out(THR, 'x');
    uart_reset(&uart);
    reset_values(state);
    out(IER, 0x05);
    assert_false(uart_interrupt(&uart)); /* nothing is left in the receiver */
}

/* ---- Line control and divisor latch ---------------------------------------------------------- */

static void line_control_keeps_all_bits(void **state)
{
    (void)state;
    for (unsigned value = 0; value <= 0xff; value++) {
        out(LCR, value);
        assert_int_equal(in(LCR), value);
    }
}

static void divisor_latch_hides_data_and_ier(void **state)
{
    (void)state;
    out(IER, 0x05);
    receive_text("r");
    out(LCR, DLAB | 0x03);
    out(DLL, 0x0c);
    out(DLM, 0x80);
    assert_int_equal(in(DLL), 0x0c);
    assert_int_equal(in(DLM), 0x80);
    assert_int_equal(sent_count, 0);      /* that was no character */
    assert_int_equal(in(LSR)&0x01, 0x01); /* and the received one is still there */
    out(LCR, 0x03);
    assert_int_equal(in(IER), 0x05);
    assert_int_equal(in(RBR), 'r');
    out(LCR, DLAB);
    assert_int_equal(in(DLL), 0x0c);
    assert_int_equal(in(DLM), 0x80);
}

static void divisor_latch_hides_nothing_else(void **state)
{
    (void)state;
    out(LCR, DLAB);
    out(FCR, 0x01);
    assert_int_equal(in(IIR), FIFO | NO_INTERRUPT);
    out(MCR, 0x03);
    assert_int_equal(in(MCR), 0x03);
    assert_int_equal(in(LSR), 0x60);
    out(SCR, 0x77);
    assert_int_equal(in(SCR), 0x77);
}

/* ---- Line status ----------------------------------------------------------------------------- */

static void data_ready_until_all_is_read(void **state)
{
    (void)state;
    out(FCR, 0x01);
    receive_text("ab");
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 'a');
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 'b');
    assert_int_equal(in(LSR), 0x60);
    (void)in(RBR); /* nothing there: no matter what comes, it disturbs nothing */
    receive_text("c");
    assert_int_equal(in(RBR), 'c');
}

static void overrun_without_fifo_loses_the_older(void **state)
{
    (void)state;
    receive_text("1");
    assert_false(uart_receive(&uart, '2'));
    assert_int_equal(in(LSR), 0x63);
    assert_int_equal(in(LSR), 0x61); /* reading it has cleared the error, and only the error */
    assert_int_equal(in(RBR), '2');
    assert_int_equal(in(LSR), 0x60);
}

static void overrun_with_fifo_loses_the_newer(void **state)
{
    (void)state;
    out(FCR, 0x01);
    receive_text("0123456789abcdef");
    assert_false(uart_receive(&uart, 'X'));
    assert_false(uart_receive(&uart, 'Y'));
    assert_int_equal(in(LSR), 0x63);
    assert_int_equal(in(LSR), 0x61);
    for (const char *c = "0123456789abcdef"; *c != '\0'; c++) {
        assert_int_equal(in(RBR), *c);
    }
    assert_int_equal(in(LSR), 0x60);
}

static void line_and_modem_status_are_read_only(void **state)
{
    (void)state;
    out(LSR, 0xff);
    out(MSR, 0xff);
    assert_int_equal(in(LSR), 0x60);
    assert_int_equal(in(MSR), 0xb0);
    assert_false(uart_interrupt(&uart));
}

static void transmitter_is_always_empty(void **state)
{
    (void)state;
    out(FCR, 0x01);
    for (unsigned i = 0; i < 100; i++) {
        out(THR, i);
        assert_int_equal(in(LSR), 0x60);
        assert_int_equal(sent_count, i + 1);
        assert_int_equal(sent_last, i);
    }
}

/* ---- FIFO control ---------------------------------------------------------------------------- */

static void iir_shows_whether_the_fifos_are_on(void **state)
{
    (void)state;
    out(FCR, 0x01);
    assert_int_equal(in(IIR), 0xc1);
    out(FCR, 0x00);
    assert_int_equal(in(IIR), 0x01);
}

static void changing_the_mode_clears_the_receiver(void **state)
{
    (void)state;
    receive_text("a");
    out(FCR, 0x01);
    assert_int_equal(in(LSR), 0x60);
    receive_text("bcd");
    out(FCR, 0x00);
    assert_int_equal(in(LSR), 0x60);
    receive_text("e");
    assert_int_equal(in(RBR), 'e');
}

static void clearing_needs_the_enable_bit(void **state)
{
    (void)state;
    out(FCR, 0x01);
    receive_text("abc");
    out(FCR, 0x05); /* the transmitter's FIFO only */
    assert_int_equal(in(RBR), 'a');
    out(FCR, 0x01); /* nothing at all */
    assert_int_equal(in(RBR), 'b');
    out(FCR, 0x03);
    assert_int_equal(in(LSR), 0x60);
    receive_text("d"); /* the bit clears itself */
    assert_int_equal(in(RBR), 'd');
    out(FCR, 0x00);
    receive_text("e");
    out(FCR, 0xc6); /* not programmed without bit 0 */
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 'e');
}

static void clearing_keeps_the_overrun(void **state)
{
    (void)state;
    out(FCR, 0x01);
    receive_text("0123456789abcdef");
    assert_false(uart_receive(&uart, 'X'));
    out(FCR, 0x03);
    assert_int_equal(in(LSR), 0x62);
    assert_int_equal(in(LSR), 0x60);
}

static void trigger_levels(void **state)
{
    static const unsigned levels[] = {1, 4, 8, 14};

    (void)state;
    for (unsigned code = 0; code < ARRAY_SIZE(levels); code++) {
        out(FCR, code << 6 | 0x03);
        out(IER, 0x01);
        assert_int_equal(in(IIR), FIFO | NO_INTERRUPT);
        for (unsigned count = 1; count <= 16; count++) {
            assert_true(uart_receive(&uart, 'x'));
            assert_true(uart_interrupt(&uart));
            assert_int_equal(in(IIR), FIFO | (count >= levels[code] ? RX_DATA : RX_TIMEOUT));
        }
        for (unsigned count = 15; count >= 1; count--) {
            (void)in(RBR);
            assert_int_equal(in(IIR), FIFO | (count >= levels[code] ? RX_DATA : RX_TIMEOUT));
        }
        (void)in(RBR);
        assert_int_equal(in(IIR), FIFO | NO_INTERRUPT);
        assert_false(uart_interrupt(&uart));
    }
}

static void a_receiver_without_fifo_has_no_trigger(void **state)
{
    (void)state;
    out(FCR, 0xc1);
    out(FCR, 0x00);
    out(IER, 0x01);
    receive_text("a");
    assert_int_equal(in(IIR), RX_DATA); /* and bit 3 is always 0 in this mode */
}

static void the_fifo_wraps_around(void **state)
{
    uint8_t next_in = 0;
    uint8_t next_out = 0;

    (void)state;
    out(FCR, 0x01);
    for (unsigned round = 0; round < 40; round++) {
        for (unsigned i = 0; i < 11; i++) {
            assert_true(uart_receive(&uart, next_in++));
        }
        for (unsigned i = 0; i < 11; i++) {
            assert_int_equal(in(RBR), next_out++);
        }
    }
}

/* ---- Interrupts ------------------------------------------------------------------------------ */

static void ier_has_four_bits(void **state)
{
    (void)state;
    out(IER, 0xff);
    assert_int_equal(in(IER), 0x0f);
}

static void nothing_enabled_nothing_interrupts(void **state)
{
    (void)state;
    receive_text("a");
    assert_false(uart_receive(&uart, 'b'));
    out(THR, 'x');
    out(MCR, LOOP);
    assert_int_equal(in(IIR), NO_INTERRUPT);
    assert_false(uart_interrupt(&uart));
}

/* All four at once; each is reset by what the interrupt control table says, and then the next one
 * shows. */
static void priorities_and_resets(void **state)
{
    (void)state;
    receive_text("a");
    assert_false(uart_receive(&uart, 'b')); /* line status; and receiver data */
    out(MCR, LOOP);                         /* modem status */
    out(IER, 0x0f);                         /* transmitter empty */
    assert_true(uart_interrupt(&uart));
    assert_int_equal(in(IIR), LINE_STATUS);
    assert_int_equal(in(IIR), LINE_STATUS); /* reading IIR resets only the transmitter's */
    (void)in(LSR);
    assert_int_equal(in(IIR), RX_DATA);
    assert_int_equal(in(IIR), RX_DATA);
    (void)in(RBR);
    assert_int_equal(in(IIR), THR_EMPTY);
    assert_int_equal(in(IIR), MODEM); /* reset by having been told */
    assert_true(uart_interrupt(&uart));
    assert_int_equal(in(IIR), MODEM);
    (void)in(MSR);
    assert_int_equal(in(IIR), NO_INTERRUPT);
    assert_false(uart_interrupt(&uart));
}

/* Each condition is masked by its own bit and by no other. */
static void each_source_has_its_enable_bit(void **state)
{
    static const struct {
        unsigned bit;
        unsigned iir;
    } sources[] = {{0x01, RX_DATA}, {0x02, THR_EMPTY}, {0x04, LINE_STATUS}, {0x08, MODEM}};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sources); i++) {
        uart_reset(&uart);
        receive_text("a");
        assert_false(uart_receive(&uart, 'b'));
        out(MCR, LOOP);
        out(THR, 'x');
        (void)in(RBR);
        out(MCR, 0);
        receive_text("a");
        out(IER, sources[i].bit);
        assert_int_equal(in(IIR), sources[i].iir);
        out(IER, 0);
        assert_int_equal(in(IIR), NO_INTERRUPT);
    }
}

static void thr_empty_interrupts_when_enabled(void **state)
{
    (void)state;
    out(IER, 0x02);
    assert_true(uart_interrupt(&uart));
    assert_int_equal(in(IIR), THR_EMPTY);
    assert_int_equal(in(IIR), NO_INTERRUPT);
    out(IER, 0x03); /* it was on already */
    assert_int_equal(in(IIR), NO_INTERRUPT);
    out(IER, 0x00);
    out(IER, 0x02);
    assert_int_equal(in(IIR), THR_EMPTY);
}

static void thr_empty_interrupts_after_each_character(void **state)
{
    (void)state;
    out(IER, 0x02);
    (void)in(IIR);
    for (unsigned i = 0; i < 3; i++) {
        out(THR, 'x');
        assert_true(uart_interrupt(&uart));
        assert_int_equal(in(IIR), THR_EMPTY);
        assert_false(uart_interrupt(&uart));
    }
}

static void thr_empty_waits_behind_received_data(void **state)
{
    (void)state;
    out(IER, 0x03);
    receive_text("a");
    assert_int_equal(in(IIR), RX_DATA); /* telling of this one does not reset the other */
    (void)in(RBR);
    assert_int_equal(in(IIR), THR_EMPTY);
}

/* ---- Modem control and status ---------------------------------------------------------------- */

static void modem_control_has_five_bits(void **state)
{
    (void)state;
    out(MCR, 0xff);
    assert_int_equal(in(MCR), 0x1f);
    out(MCR, 0x00);
    assert_int_equal(in(MCR), 0x00);
}

/* DTR to DSR, RTS to CTS, OUT1 to RI, OUT2 to DCD. */
static void loopback_wires_outputs_to_inputs(void **state)
{
    (void)state;
    for (unsigned outputs = 0; outputs < 16; outputs++) {
        unsigned inputs = ((outputs & 1) != 0 ? 0x20U : 0) | ((outputs & 2) != 0 ? 0x10U : 0) |
                          ((outputs & 4) != 0 ? 0x40U : 0) | ((outputs & 8) != 0 ? 0x80U : 0);

        out(MCR, LOOP | outputs);
        assert_int_equal(in(MSR)&0xf0, inputs);
    }
    out(MCR, 0x0f);
    assert_int_equal(in(MSR)&0xf0, 0xb0); /* the line again */
}

static void changes_are_told_once(void **state)
{
    (void)state;
    out(MCR, LOOP | 0x0b); /* as the line: CTS, DSR, DCD: no change */
    assert_int_equal(in(MSR), 0xb0);
    out(MCR, LOOP | 0x09); /* RTS falls */
    assert_int_equal(in(MSR), 0xa1);
    assert_int_equal(in(MSR), 0xa0);
    out(MCR, LOOP | 0x08); /* DTR falls */
    assert_int_equal(in(MSR), 0x82);
    out(MCR, LOOP); /* OUT2 falls */
    assert_int_equal(in(MSR), 0x08);
    out(MCR, LOOP | 0x0b); /* all rise */
    assert_int_equal(in(MSR), 0xbb);
    out(MCR, LOOP | 0x00); /* a change and back between two reads is two changes */
    out(MCR, LOOP | 0x0b);
    assert_int_equal(in(MSR), 0xbb);
    assert_int_equal(in(MSR), 0xb0);
}

/* TERI tells the trailing edge only: the ring indicator's end. */
static void ring_tells_its_end(void **state)
{
    (void)state;
    out(MCR, LOOP | 0x0b);
    (void)in(MSR);
    out(MCR, LOOP | 0x0f);
    assert_int_equal(in(MSR), 0xf0);
    out(MCR, LOOP | 0x0b);
    assert_int_equal(in(MSR), 0xb4);
}

static void loopback_receives_what_it_sends(void **state)
{
    (void)state;
    out(MCR, LOOP);
    out(THR, 0x5a);
    assert_int_equal(sent_count, 0);
    assert_int_equal(in(LSR), 0x61);
    assert_int_equal(in(RBR), 0x5a);
    assert_false(uart_receive(&uart, 'x')); /* the line is cut off */
    assert_int_equal(in(LSR), 0x60);
    out(IER, 0x01); /* and interrupts work as ever */
    out(THR, 0xa5);
    assert_int_equal(in(IIR), RX_DATA);
    out(MCR, 0);
    assert_int_equal(in(RBR), 0xa5);
    out(THR, 'y');
    assert_int_equal(sent_count, 1);
    receive_text("z");
    assert_int_equal(in(RBR), 'z');
}

static void loopback_can_overrun(void **state)
{
    (void)state;
    out(FCR, 0x01);
    out(MCR, LOOP);
    for (unsigned i = 0; i < 17; i++) {
        out(THR, i);
    }
    assert_int_equal(in(LSR), 0x63);
    for (unsigned i = 0; i < 16; i++) {
        assert_int_equal(in(RBR), i);
    }
    assert_int_equal(in(LSR), 0x60);
}

/* ---- Scratch; and what is beyond ------------------------------------------------------------- */

static void scratch_holds_a_byte(void **state)
{
    (void)state;
    for (unsigned value = 0; value <= 0xff; value++) {
        out(SCR, value);
        assert_int_equal(in(SCR), value);
    }
}

static void there_is_nothing_beyond(void **state)
{
    const struct uart before = uart;

    (void)state;
    out(UART_REGISTERS, 0x12);
    assert_int_equal(in(UART_REGISTERS), 0xff);
    assert_memory_equal(&uart, &before, sizeof(uart));
}

/* ---- Linux ----------------------------------------------------------------------------------- */

/*
 * How the 8250 driver probes a port, in its order: is there one at all (IER holds four bits, modem
 * lines loop back), which one (FIFO bits of IIR), and is it not one of the chips that are more than
 * a 16550A (an EFR, a second bank, 64 bytes of FIFO, a bit 6 in IER).
 */
static void linux_finds_a_16550a(void **state)
{
    (void)state;
    out(IER, 0x00);
    assert_int_equal(in(IER)&0x0f, 0x00);
    out(IER, 0x0f);
    assert_int_equal(in(IER)&0x0f, 0x0f);
    out(IER, 0x00);
    out(MCR, LOOP | 0x0a);
    assert_int_equal(in(MSR)&0xf0, 0x90);
    out(MCR, 0x00);

    out(LCR, 0xbf);
    out(FCR, 0x00); /* an EFR on other chips */
    out(LCR, 0x00);
    out(FCR, 0x01);
    assert_int_equal(in(IIR) >> 6, 3);

    out(LCR, 0x80);
    assert_int_not_equal(in(IIR), 0x00); /* no EFR */
    out(LCR, 0xbf);
    assert_int_not_equal(in(IIR), 0x00); /* nor here */
    out(LCR, 0x00);
    const unsigned mcr = in(MCR);
    out(LCR, 0xe0);
    assert_int_equal((in(IIR) ^ mcr) & LOOP, 0);
    out(LCR, 0x00);
    out(MCR, mcr ^ LOOP);
    out(LCR, 0xe0);
    assert_int_equal(in(IIR)&LOOP, 0); /* no second bank that shows MCR here */
    out(LCR, 0x00);
    out(MCR, mcr);

    out(FCR, 0x01);
    assert_int_equal(in(IIR) >> 5, 6);
    out(FCR, 0x00);
    out(LCR, 0x80);
    out(FCR, 0x21);
    assert_int_equal(in(IIR) >> 5, 6); /* 7 would be 64 bytes */
    out(FCR, 0x00);
    out(LCR, 0x00);

    out(FCR, 0x01);
    const unsigned ier = in(IER);
    out(IER, ier & ~0x40U);
    assert_int_equal(in(IER)&0x40, 0);
    out(IER, ier | 0x40U);
    assert_int_equal(in(IER)&0x40, 0); /* no unit enable: not an XScale's */
    out(IER, ier);
}

/* It measures the FIFO by looping back more than any can hold. */
static void linux_measures_sixteen_bytes(void **state)
{
    unsigned count = 0;

    (void)state;
    out(LCR, 0x00);
    out(FCR, 0x07);
    out(MCR, LOOP);
    out(LCR, DLAB);
    out(DLL, 1);
    out(DLM, 0);
    out(LCR, 0x03);
    for (unsigned i = 0; i < 256; i++) {
        out(THR, i);
    }
    while ((in(LSR)&0x01) != 0 && count < 256) {
        (void)in(RBR);
        count++;
    }
    assert_int_equal(count, 16);
    assert_int_equal(sent_count, 0);
}

/* On opening: two tests for chips with a broken THRE interrupt; then everything is read empty. */
static void linux_opens_the_port(void **state)
{
    (void)state;
    out(FCR, 0x01);
    out(FCR, 0x07);
    out(FCR, 0x00);
    (void)in(LSR);
    (void)in(RBR);
    (void)in(IIR);
    (void)in(MSR);
    assert_int_not_equal(in(LSR), 0xff); /* "LSR safety check" */

    out(IER, 0x02);
    assert_int_equal(in(IIR)&0x01, 0);
    out(IER, 0x00);
    out(IER, 0x02);
    assert_int_equal(in(IIR)&0x01, 0); /* asserted again: no need to poll */
    out(IER, 0x00);

    out(LCR, 0x03);
    out(MCR, 0x08);
    out(IER, 0x02);
    assert_int_equal(in(LSR)&0x40, 0x40);
    assert_int_equal(in(IIR)&0x01, 0); /* empty, and it says so: no transmit bug */
    out(IER, 0x00);
    out(IER, 0x05);
    assert_false(uart_interrupt(&uart));
    assert_int_equal(sent_count, 0);
}

/* As its interrupt handler writes a line: 16 bytes for each interrupt, until nothing is left. */
static void linux_writes_by_interrupt(void **state)
{
    unsigned left = 100;
    unsigned interrupts = 0;

    (void)state;
    out(FCR, 0x81);
    out(IER, 0x05 | 0x02);
    while (uart_interrupt(&uart)) {
        assert_int_equal(in(IIR), FIFO | THR_EMPTY);
        assert_int_equal(in(LSR)&0x20, 0x20);
        interrupts++;
        for (unsigned i = 0; i < 16 && left > 0; i++, left--) {
            out(THR, left);
        }
        if (left == 0) {
            out(IER, 0x05);
        }
        assert_true(interrupts <= 7);
    }
    assert_int_equal(left, 0);
    assert_int_equal(sent_count, 100);
    assert_int_equal(interrupts, 7);
}

#define uart_test(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
    const struct CMUnitTest tests[] = {
        uart_test(reset_values),
        uart_test(reset_forgets_everything),
        uart_test(line_control_keeps_all_bits),
        uart_test(divisor_latch_hides_data_and_ier),
        uart_test(divisor_latch_hides_nothing_else),
        uart_test(data_ready_until_all_is_read),
        uart_test(overrun_without_fifo_loses_the_older),
        uart_test(overrun_with_fifo_loses_the_newer),
        uart_test(line_and_modem_status_are_read_only),
        uart_test(transmitter_is_always_empty),
        uart_test(iir_shows_whether_the_fifos_are_on),
        uart_test(changing_the_mode_clears_the_receiver),
        uart_test(clearing_needs_the_enable_bit),
        uart_test(clearing_keeps_the_overrun),
        uart_test(trigger_levels),
        uart_test(a_receiver_without_fifo_has_no_trigger),
        uart_test(the_fifo_wraps_around),
        uart_test(ier_has_four_bits),
        uart_test(nothing_enabled_nothing_interrupts),
        uart_test(priorities_and_resets),
        uart_test(each_source_has_its_enable_bit),
        uart_test(thr_empty_interrupts_when_enabled),
        uart_test(thr_empty_interrupts_after_each_character),
        uart_test(thr_empty_waits_behind_received_data),
        uart_test(modem_control_has_five_bits),
        uart_test(loopback_wires_outputs_to_inputs),
        uart_test(changes_are_told_once),
        uart_test(ring_tells_its_end),
        uart_test(loopback_receives_what_it_sends),
        uart_test(loopback_can_overrun),
        uart_test(scratch_holds_a_byte),
        uart_test(there_is_nothing_beyond),
        uart_test(linux_finds_a_16550a),
        uart_test(linux_measures_sixteen_bytes),
        uart_test(linux_opens_the_port),
        uart_test(linux_writes_by_interrupt),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
