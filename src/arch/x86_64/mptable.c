/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* mptable.c: the MP configuration table, Intel MultiProcessor Specification 1.4, chapter 4. */
#include "arch/x86_64/mptable.h"

#include "arch/x86_64/layout.h"

#include <string.h>

enum { ENTRY_PROCESSOR, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL_INTERRUPT };
enum { INTERRUPT_INT, INTERRUPT_NMI, INTERRUPT_SMI, INTERRUPT_EXTINT };

#define PROCESSOR_ENABLED 1U
#define PROCESSOR_BOOT 2U
#define IOAPIC_ENABLED 1U
#define LOCAL_APIC_VERSION 0x14
#define IOAPIC_VERSION 0x11
#define ISA_BUS_ID 0
#define ALL_LOCAL_APICS 0xff

/* What Linux reads of these two is only printed; CPUID has the truth. */
#define CPU_SIGNATURE 0x600
#define CPU_FEATURES 0x201 /* FPU and APIC */

struct floating_pointer {
    char signature[4];
    uint32_t table;
    uint8_t length_16_bytes;
    uint8_t revision;
    uint8_t checksum;
    uint8_t features[5]; /* all 0: a table follows, no PIC mode to leave */
} __attribute__((packed));

struct table_header {
    char signature[4];
    uint16_t length_bytes;
    uint8_t revision;
    uint8_t checksum;
    char oem[8];
    char product[12];
    uint32_t oem_table;
    uint16_t oem_table_bytes;
    uint16_t entries;
    uint32_t local_apic;
    uint16_t extended_bytes;
    uint8_t extended_checksum;
    uint8_t reserved;
} __attribute__((packed));

struct processor_entry {
    uint8_t type;
    uint8_t apic_id;
    uint8_t apic_version;
    uint8_t flags;
    uint32_t signature;
    uint32_t features;
    uint32_t reserved[2];
} __attribute__((packed));

struct bus_entry {
    uint8_t type;
    uint8_t id;
    char name[6];
} __attribute__((packed));

struct ioapic_entry {
    uint8_t type;
    uint8_t id;
    uint8_t version;
    uint8_t flags;
    uint32_t address;
} __attribute__((packed));

struct interrupt_entry {
    uint8_t type;
    uint8_t kind;
    uint16_t flags; /* 0: polarity and trigger as the bus has it, for ISA active high and edge */
    uint8_t bus;
    uint8_t bus_line;
    uint8_t apic;
    uint8_t apic_line;
} __attribute__((packed));

struct cursor {
    uint8_t *next;
    uint16_t entries;
};

static void put(struct cursor *cursor, const void *entry, size_t bytes)
{
    memcpy(cursor->next, entry, bytes);
    cursor->next += bytes;
    cursor->entries++;
}

static uint8_t checksum(const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    uint8_t sum = 0;

    for (size_t i = 0; i < bytes; i++) {
        sum = (uint8_t)(sum + byte[i]);
    }
    return (uint8_t)(0U - sum);
}

static void put_processors(struct cursor *cursor, unsigned vcpus)
{
    for (unsigned i = 0; i < vcpus; i++) {
        put(cursor,
            &(struct processor_entry){
                .type = ENTRY_PROCESSOR,
                .apic_id = (uint8_t)i,
                .apic_version = LOCAL_APIC_VERSION,
                .flags = i == 0 ? PROCESSOR_ENABLED | PROCESSOR_BOOT : PROCESSOR_ENABLED,
                .signature = CPU_SIGNATURE,
                .features = CPU_FEATURES,
            },
            sizeof(struct processor_entry));
    }
}

static void put_interrupts(struct cursor *cursor, uint8_t ioapic_id)
{
    for (unsigned line = 0; line < X86_IRQ_LINES; line++) {
        put(cursor,
            &(struct interrupt_entry){
                .type = ENTRY_INTERRUPT,
                .kind = INTERRUPT_INT,
                .bus = ISA_BUS_ID,
                .bus_line = (uint8_t)line,
                .apic = ioapic_id,
                .apic_line = (uint8_t)line,
            },
            sizeof(struct interrupt_entry));
    }
    for (unsigned line = 0; line < 2; line++) {
        put(cursor,
            &(struct interrupt_entry){
                .type = ENTRY_LOCAL_INTERRUPT,
                .kind = line == 0 ? INTERRUPT_EXTINT : INTERRUPT_NMI,
                .bus = ISA_BUS_ID,
                .apic = line == 0 ? 0 : ALL_LOCAL_APICS,
                .apic_line = (uint8_t)line,
            },
            sizeof(struct interrupt_entry));
    }
}

size_t mptable_bytes(unsigned vcpus)
{
    return sizeof(struct floating_pointer) + sizeof(struct table_header) +
           vcpus * sizeof(struct processor_entry) + sizeof(struct bus_entry) +
           sizeof(struct ioapic_entry) + (X86_IRQ_LINES + 2) * sizeof(struct interrupt_entry);
}

void mptable_build(uint8_t *buffer, uint32_t address, unsigned vcpus)
{
    uint32_t table = address + (uint32_t)sizeof(struct floating_pointer);
    uint16_t table_bytes = (uint16_t)(mptable_bytes(vcpus) - sizeof(struct floating_pointer));
    struct floating_pointer pointer = {
        .signature = "_MP_",
        .table = table,
        .length_16_bytes = 1,
        .revision = 4,
    };
    struct table_header header = {
        .signature = "PCMP",
        .length_bytes = table_bytes,
        .revision = 4,
        .oem = "BVMM    ",
        .product = "BVMM        ",
        .local_apic = X86_LAPIC,
    };
    uint8_t *table_start = buffer + sizeof(pointer);
    struct cursor cursor = {.next = table_start + sizeof(header)};
    uint8_t ioapic_id = (uint8_t)vcpus; /* the first number that no local APIC has */
    struct bus_entry bus = {.type = ENTRY_BUS, .id = ISA_BUS_ID, .name = "ISA   "};
    struct ioapic_entry ioapic = {
        .type = ENTRY_IOAPIC,
        .id = ioapic_id,
        .version = IOAPIC_VERSION,
        .flags = IOAPIC_ENABLED,
        .address = X86_IOAPIC,
    };

    put_processors(&cursor, vcpus);
    put(&cursor, &bus, sizeof(bus));
    put(&cursor, &ioapic, sizeof(ioapic));
    put_interrupts(&cursor, ioapic_id);

    header.entries = cursor.entries;
    memcpy(table_start, &header, sizeof(header));
    header.checksum = checksum(table_start, table_bytes);
    memcpy(table_start, &header, sizeof(header));
    pointer.checksum = checksum(&pointer, sizeof(pointer));
    memcpy(buffer, &pointer, sizeof(pointer));
}
