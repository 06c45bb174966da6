/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * machine_aarch64.c: the machine that is attacked. An Image, entered as a kernel is: EL1, MMU off,
 * x0 = the device tree. The MMU goes on first: with caches off the guest and its devices would not
 * see each other's writes.
 */
#include "guest.h"

#define UART 0x40000000U
#define UART_MCR 4
#define UART_SCR 7
#define PSCI_CPU_ON 0xc4000003U
#define PSCI_SYSTEM_OFF 0x84000008U
#define PSCI_SYSTEM_RESET 0x84000009U
#define TREE_BYTES 65536U
#define PAUSES 1000

const uint64_t machine_virtio_base = 0x40001000U;
const uint64_t machine_memory_start = 0x80000000U;
static _Alignas(4096) uint8_t race_memory[4096];
volatile uint8_t *const race_page = race_memory;

static const char *command_line;

_Noreturn void guest_entry(const char *tree);
_Noreturn void second_cpu_main(void);
extern const uint8_t second_cpu[];

/*
 * The page table: 512 GiB by blocks of 1 GiB, of which the second is devices and the third memory.
 * Attributes: 0 is Device-nGnRnE, 1 is Normal, write-back.
 */
__asm__(".pushsection .text.entry, \"ax\"\n"
        ".globl start\n"
        "start:\n"
        "b 1f\n .long 0\n"
        ".quad 0\n .quad image_bytes\n .quad 2\n" /* text_offset, image_size, flags: 4 KiB pages */
        ".quad 0, 0, 0\n .ascii \"ARM\\x64\"\n .long 0\n"
        "1: mov x19, x0\n bl mmu_on\n"
        "adrp x1, stack_end\n add x1, x1, :lo12:stack_end\n mov sp, x1\n"
        "mov x0, x19\n bl guest_entry\n"
        "second_cpu:\n"
        "bl mmu_on\n"
        "adrp x1, second_stack_end\n add x1, x1, :lo12:second_stack_end\n mov sp, x1\n"
        "bl second_cpu_main\n"
        "mmu_on:\n"
        "adrp x1, page_table\n add x1, x1, :lo12:page_table\n msr ttbr0_el1, x1\n"
        "mov x1, #0xff00\n msr mair_el1, x1\n"
        /* 39 bits; inner shareable, write-back; 4 KiB; no TTBR1; 40 bits of physical address */
        "ldr x1, =0x200803519\n msr tcr_el1, x1\n isb\n"
        "mrs x1, sctlr_el1\n mov x2, #0x1005\n orr x1, x1, x2\n msr sctlr_el1, x1\n isb\n ret\n"
        ".ltorg\n"
        ".popsection\n"
        ".pushsection .rodata\n"
        ".balign 4096\n"
        "page_table:\n"
        ".quad 0, 0x40000000 + 0x401, 0x80000000 + 0x705\n .skip 4096 - 24\n"
        ".popsection\n"
        ".pushsection .bss\n"
        ".balign 16\n .skip 16384\n stack_end:\n .skip 4096\n second_stack_end:\n"
        ".popsection\n");

static uint64_t psci(uint64_t function, uint64_t first, uint64_t second)
{
    register uint64_t x0 __asm__("x0") = function;
    register uint64_t x1 __asm__("x1") = first;
    register uint64_t x2 __asm__("x2") = second;
    register uint64_t x3 __asm__("x3") = 0;

    __asm__ volatile("hvc #0" : "+r"(x0), "+r"(x1), "+r"(x2), "+r"(x3) : : "memory");
    return x0;
}

/* No writeback, no pairs: those KVM cannot pass on. */
uint64_t mmio_read(uint64_t address, unsigned width_bytes)
{
    uint64_t value = 0;

    switch (width_bytes) {
    case 1:
        __asm__ volatile("ldrb %w0, [%1]" : "=r"(value) : "r"(address) : "memory");
        break;
    case 2:
        __asm__ volatile("ldrh %w0, [%1]" : "=r"(value) : "r"(address) : "memory");
        break;
    case 4:
        __asm__ volatile("ldr %w0, [%1]" : "=r"(value) : "r"(address) : "memory");
        break;
    default:
        __asm__ volatile("ldr %0, [%1]" : "=r"(value) : "r"(address) : "memory");
        break;
    }
    return value;
}

void mmio_write(uint64_t address, unsigned width_bytes, uint64_t value)
{
    switch (width_bytes) {
    case 1:
        __asm__ volatile("strb %w0, [%1]" : : "r"(value), "r"(address) : "memory");
        break;
    case 2:
        __asm__ volatile("strh %w0, [%1]" : : "r"(value), "r"(address) : "memory");
        break;
    case 4:
        __asm__ volatile("str %w0, [%1]" : : "r"(value), "r"(address) : "memory");
        break;
    default:
        __asm__ volatile("str %0, [%1]" : : "r"(value), "r"(address) : "memory");
        break;
    }
}

/* The command line is text in the device tree: what begins as ours does is it. */
_Noreturn void guest_entry(const char *tree)
{
    static const char begin[] = "memory_mib=";

    for (size_t at = 0; at < TREE_BYTES && command_line == NULL; at++) {
        size_t same = 0;

        while (begin[same] != '\0' && tree[at + same] == begin[same]) {
            same++;
        }
        command_line = begin[same] == '\0' ? tree + at : NULL;
    }
    guest_main();
}

const char *machine_command_line(void)
{
    return command_line != NULL ? command_line : "";
}

void machine_pause(void)
{
    for (unsigned i = 0; i < PAUSES; i++) {
        __asm__ volatile("yield" : : : "memory");
    }
}

void machine_put(char character)
{
    mmio_write(UART, 1, (uint8_t)character);
}

_Noreturn void machine_restart(void)
{
    for (;;) {
        (void)psci(PSCI_SYSTEM_RESET, 0, 0);
        (void)psci(PSCI_SYSTEM_OFF, 0, 0);
    }
}

_Noreturn void machine_end(unsigned how)
{
    (void)how;
    machine_restart();
}

/* The serial port keeps what it is told to. */
bool machine_others_work(void)
{
    static uint8_t value;

    mmio_write(UART + UART_SCR, 1, ++value);
    return mmio_read(UART + UART_SCR, 1) == value;
}

/* ---- Attacks --------------------------------------------------------------------------------- */

/* The receiver is flooded in loopback, every register is written, and every width is tried. */
static const char *flood_serial(void)
{
    uint64_t sum = 0;

    mmio_write(UART + UART_MCR, 1, 0x1f);
    for (unsigned i = 0; i < 300; i++) {
        mmio_write(UART, 1, i);
    }
    for (unsigned offset = 1; offset < 8; offset++) {
        for (unsigned value = 0; value < 256; value += 51) {
            mmio_write(UART + offset, 1, value);
            sum += mmio_read(UART + offset, 1);
        }
    }
    mmio_write(UART + UART_MCR, 1, 0x10);
    mmio_write(UART + UART_MCR, 4, 0x41414110); /* wider than a register, over several */
    mmio_write(UART, 8, 0x4141411000000000U);
    sum += mmio_read(UART + 4, 4) + mmio_read(UART, 8) + mmio_read(UART + 6, 2);
    mmio_write(UART + 3, 1, 3);
    for (unsigned offset = 1; offset <= 4; offset++) {
        mmio_write(UART + offset, 1, offset == 3 ? 3 : 0);
    }
    return sum != 0 ? NULL : "the serial port reads as nothing";
}

/* At no device, and right behind windows. Unaligned accesses do not get out of the CPU. */
static const char *odd_accesses(void)
{
    const uint64_t end = machine_virtio_base + VIRTIO_SLOTS * (uint64_t)VIRTIO_SLOT_BYTES;

    for (unsigned width = 1; width <= 8; width *= 2) {
        mmio_write(end, width, mmio_read(end, width));
        mmio_write(UART + 8, width, mmio_read(UART + 8, width));
        mmio_write(machine_virtio_base - 8, width, mmio_read(machine_virtio_base - 8, width));
    }
    return NULL;
}

void machine_attack(void)
{
    verdict("serial: loopback flood, every register, wide accesses", flood_serial());
    verdict("accesses over the end of windows", odd_accesses());
}

/* ---- The second CPU -------------------------------------------------------------------------- */

/* Makes the descriptor wrong in one way and another, and right again, until it is told to stop. */
_Noreturn void second_cpu_main(void)
{
    volatile struct descriptor *desc = (volatile struct descriptor *)(race_page + RACE_DESC);
    volatile uint32_t *high = (volatile uint32_t *)(race_page + RACE_DESC + 4);

    while (race_page[RACE_STOP] == 0) {
        *high = UINT32_MAX;
        *high = 0;
        desc->bytes = UINT32_MAX;
        desc->bytes = SECTOR_BYTES;
        desc->next = UINT16_MAX;
        desc->next = 2;
    }
    race_page[RACE_STOPPED] = 1;
    for (;;) {
        __asm__ volatile("wfi");
    }
}

bool machine_race_start(void)
{
    return psci(PSCI_CPU_ON, 1, (uint64_t)second_cpu) == 0;
}

void machine_race_stop(void)
{
    race_page[RACE_STOP] = 1;
    for (unsigned i = 0; i < 10000 && race_page[RACE_STOPPED] == 0; i++) {
        machine_pause();
    }
}
