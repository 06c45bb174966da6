/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * machine_x86_64.c: the machine that is attacked. Entered by the 64-bit boot protocol: long mode, the
 * first 4 GiB mapped one to one, RSI = boot_params.
 */
#include "guest.h"

#define COM1 0x3f8
#define I8042_DATA 0x60
#define I8042_COMMAND 0x64
#define I8042_SELF_TEST 0xaa
#define I8042_SELF_TEST_PASSED 0x55
#define I8042_RESET 0xfe
#define LAPIC 0xfee00000U
#define LAPIC_SPURIOUS 0xf0U
#define LAPIC_ICR_LOW 0x300U
#define LAPIC_ICR_HIGH 0x310U
#define SECOND_CPU_CODE 0x8000U /* a page that bvmm leaves free, below 1 MiB */
#define RACE_PAGE 0x30000U      /* likewise; what real mode reaches by DS = 0x3000 */
#define BOOT_PARAMS_CMDLINE 0x228U
#define RESETS 200
#define PAUSES 1000

const uint64_t machine_virtio_base = 0xc0001000U;
const uint64_t machine_memory_start = 0;
volatile uint8_t *const race_page = (volatile uint8_t *)RACE_PAGE;

static uint64_t boot_params;

void guest_entry(uint64_t params);
extern const uint8_t second_cpu[];
extern const uint8_t second_cpu_end[];

__asm__(".pushsection .text.entry, \"ax\"\n"
        ".globl start\n"
        "start:\n"
        "cli\n lea stack_end(%rip), %rsp\n mov %rsi, %rdi\n call guest_entry\n"
        "1: hlt\n jmp 1b\n"
        ".popsection\n"
        ".pushsection .bss\n"
        ".balign 16\n .skip 16384\n stack_end:\n"
        ".popsection\n");

/*
 * The second CPU, in real mode: makes the descriptor at RACE_DESC wrong in one way and another, and
 * right again (its address is below 4 GiB: the high half is 0), until it is told to stop.
 */
__asm__(".pushsection .rodata\n"
        ".code16\n"
        "second_cpu:\n"
        "cli\n mov $0x3000, %ax\n mov %ax, %ds\n mov $0x10, %bx\n"
        "1:\n"
        "movl $0xffffffff, 4(%bx)\n" /* address: far outside */
        "movl $0, 4(%bx)\n"
        "movl $0xffffffff, 8(%bx)\n" /* length: 4 GiB */
        "movl $512, 8(%bx)\n"
        "movw $0xffff, 14(%bx)\n" /* next */
        "movw $2, 14(%bx)\n"
        "cmpb $0, 0xf00\n je 1b\n"
        "movb $1, 0xf01\n"
        "2: hlt\n jmp 2b\n"
        "second_cpu_end:\n"
        ".code64\n"
        ".popsection\n");

static void out8(uint16_t port, uint8_t value)
{
    __asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static uint8_t in8(uint16_t port)
{
    uint8_t value = 0;

    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

static void out32(uint16_t port, uint32_t value)
{
    __asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static uint32_t in32(uint16_t port)
{
    uint32_t value = 0;

    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port) : "memory");
    return value;
}

uint64_t mmio_read(uint64_t address, unsigned width_bytes)
{
    switch (width_bytes) {
    case 1:
        return *(volatile uint8_t *)address;
    case 2:
        return *(volatile uint16_t *)address;
    case 4:
        return *(volatile uint32_t *)address;
    default:
        return *(volatile uint64_t *)address;
    }
}

void mmio_write(uint64_t address, unsigned width_bytes, uint64_t value)
{
    switch (width_bytes) {
    case 1:
        *(volatile uint8_t *)address = (uint8_t)value;
        break;
    case 2:
        *(volatile uint16_t *)address = (uint16_t)value;
        break;
    case 4:
        *(volatile uint32_t *)address = (uint32_t)value;
        break;
    default:
        *(volatile uint64_t *)address = value;
        break;
    }
}

void guest_entry(uint64_t params)
{
    boot_params = params;
    guest_main();
}

const char *machine_command_line(void)
{
    return (const char *)(uint64_t) * (volatile uint32_t *)(boot_params + BOOT_PARAMS_CMDLINE);
}

void machine_pause(void)
{
    for (unsigned i = 0; i < PAUSES; i++) {
        __asm__ volatile("pause" : : : "memory");
    }
}

void machine_put(char character)
{
    out8(COM1, (uint8_t)character);
}

_Noreturn void machine_restart(void)
{
    for (unsigned i = 0; i < RESETS; i++) {
        out8(I8042_COMMAND, I8042_RESET);
    }
    for (;;) {
        __asm__ volatile("hlt");
    }
}

/* What it was to go on with is a device's registers, or an exception without a table of handlers. */
_Noreturn void machine_end(unsigned how)
{
    static const struct {
        uint16_t limit;
        uint64_t base;
    } __attribute__((packed)) no_handlers = {0, 0};

    switch (how) {
    case 1:
        ((void (*)(void))machine_virtio_base)();
        break;
    case 2:
        __asm__ volatile("lidt %0\n ud2" : : "m"(no_handlers));
        break;
    default:
        break;
    }
    machine_restart();
}

/* The keyboard controller answers, whatever it was told before. */
bool machine_others_work(void)
{
    for (unsigned i = 0; i < 64 && (in8(I8042_COMMAND) & 1) != 0; i++) {
        (void)in8(I8042_DATA);
    }
    out8(I8042_COMMAND, I8042_SELF_TEST);
    return in8(I8042_DATA) == I8042_SELF_TEST_PASSED;
}

/* ---- Attacks --------------------------------------------------------------------------------- */

/* All commands and all data, but those that reset; and much more than its buffer takes. */
static const char *flood_i8042(void)
{
    for (unsigned round = 0; round < 2; round++) {
        for (unsigned value = 0; value < 256; value++) {
            const bool resets = value == 0xd1 || (value >= 0xf0 && (value & 1) == 0);

            out8(I8042_COMMAND, resets ? 0xad : (uint8_t)value);
            out8(I8042_DATA, (uint8_t)(value | 1));
        }
    }
    return machine_others_work() ? NULL : "the keyboard controller does not work";
}

/* The receiver is flooded in loopback, every register is written, and every width is tried. */
static const char *flood_serial(void)
{
    uint32_t sum = 0;

    out8(COM1 + 4, 0x1f);
    for (unsigned i = 0; i < 300; i++) {
        out8(COM1, (uint8_t)i);
    }
    for (unsigned offset = 1; offset < 8; offset++) {
        for (unsigned value = 0; value < 256; value += 51) {
            out8((uint16_t)(COM1 + offset), (uint8_t)value);
            sum += in8((uint16_t)(COM1 + offset));
        }
    }
    out8(COM1 + 4, 0x10);
    out32(COM1 + 4, 0x41414110); /* wider than a register, over several */
    out32(COM1 + 6, 0);          /* ... over the window's end */
    sum += in32(COM1 + 5) + in32(COM1 + 7);
    out8(COM1 + 3, 3);
    out8(COM1 + 1, 0);
    out8(COM1 + 2, 0);
    out8(COM1 + 4, 0);
    return sum != 0 ? NULL : "the serial port reads as nothing";
}

/* Over the end of a window, at no device, and at every alignment. */
static const char *odd_accesses(void)
{
    const uint64_t end = machine_virtio_base + VIRTIO_SLOTS * (uint64_t)VIRTIO_SLOT_BYTES;
    uint64_t sum = 0;

    for (unsigned i = 0; i < 8; i++) {
        sum += mmio_read(machine_virtio_base + VIRTIO_SLOT_BYTES - 8 + i, 8);
        mmio_write(machine_virtio_base + VIRTIO_SLOT_BYTES - 8 + i, 8, sum);
        sum += mmio_read(end + i, 4);
        mmio_write(end + i, 4, sum);
        sum += in32((uint16_t)(0xfff0 + i));
    }
    return machine_others_work() ? NULL : "the keyboard controller does not work";
}

void machine_attack(void)
{
    verdict("i8042: every command, a flood of data", flood_i8042());
    verdict("serial: loopback flood, every register, wide accesses", flood_serial());
    verdict("accesses over the end of windows", odd_accesses());
}

/* ---- The second CPU -------------------------------------------------------------------------- */

static void lapic_write(uint32_t offset, uint32_t value)
{
    *(volatile uint32_t *)(uint64_t)(LAPIC + offset) = value;
}

static void interrupt_second_cpu(uint32_t what)
{
    lapic_write(LAPIC_ICR_HIGH, 1U << 24);
    lapic_write(LAPIC_ICR_LOW, what);
}

bool machine_race_start(void)
{
    volatile uint8_t *to = (volatile uint8_t *)SECOND_CPU_CODE;

    for (size_t i = 0; i < (size_t)(second_cpu_end - second_cpu); i++) {
        to[i] = second_cpu[i];
    }
    race_page[RACE_STOP] = 0;
    race_page[RACE_STOPPED] = 0;
    lapic_write(LAPIC_SPURIOUS, 0x1ff);
    interrupt_second_cpu(0x4500);                          /* INIT */
    interrupt_second_cpu(0x4600 | SECOND_CPU_CODE / 4096); /* SIPI */
    return true;
}

void machine_race_stop(void)
{
    race_page[RACE_STOP] = 1;
    for (unsigned i = 0; i < 10000 && race_page[RACE_STOPPED] == 0; i++) {
        machine_pause();
    }
}
