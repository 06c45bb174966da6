/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fdt.c: the device tree by which an aarch64 kernel learns of its machine.
 *
 * Written from front to back by libfdt's sequential functions. A writer remembers the first failure,
 * so that the nodes below read like the tree that they make.
 */
#include "arch/aarch64/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdt.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PHANDLE_GIC 1U

/* Cells of an interrupt: kind, number, and how it is signalled. */
#define INTERRUPT_SPI 0U
#define INTERRUPT_PPI 1U
#define INTERRUPT_EDGE 1U  /* rising */
#define INTERRUPT_LEVEL 4U /* high */
#define GICV2_PPI_CPUS_SHIFT 8

/* What the UART's divisor is counted from: 115200 baud at a divisor of 1. */
#define SERIAL_CLOCK_HZ 1843200U

/* The affinity fields of MPIDR, as the cpu nodes' reg has them. */
#define MPIDR_AFFINITY_MASK 0xff00ffffffULL

struct writer {
    void *fdt;
    int error; /* the first one, of libfdt; 0: none */
};

static void note(struct writer *writer, int error)
{
    if (writer->error == 0) {
        writer->error = error;
    }
}

static void printf_like(2, 3) begin(struct writer *writer, const char *fmt, ...)
{
    char name[32];
    va_list args;

    va_start(args, fmt);
    (void)vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);
    note(writer, fdt_begin_node(writer->fdt, name));
}

static void end(struct writer *writer)
{
    note(writer, fdt_end_node(writer->fdt));
}

static void put_bytes(struct writer *writer, const char *name, const void *bytes, size_t count)
{
    note(writer, fdt_property(writer->fdt, name, bytes, (int)count));
}

static void put_flag(struct writer *writer, const char *name)
{
    put_bytes(writer, name, NULL, 0);
}

static void put_text(struct writer *writer, const char *name, const char *text)
{
    put_bytes(writer, name, text, strlen(text) + 1);
}

static void put_u32(struct writer *writer, const char *name, uint32_t value)
{
    note(writer, fdt_property_u32(writer->fdt, name, value));
}

static void put_u64(struct writer *writer, const char *name, uint64_t value)
{
    note(writer, fdt_property_u64(writer->fdt, name, value));
}

/* Up to 4 numbers of two cells each, or up to 16 cells. */
static void put_u64s(struct writer *writer, const char *name, const uint64_t *values, size_t count)
{
    fdt64_t cells[4];

    for (size_t i = 0; i < count && i < ARRAY_SIZE(cells); i++) {
        cells[i] = cpu_to_fdt64(values[i]);
    }
    put_bytes(writer, name, cells, count * sizeof(cells[0]));
}

static void put_cells(struct writer *writer, const char *name, const uint32_t *values, size_t count)
{
    fdt32_t cells[16];

    for (size_t i = 0; i < count && i < ARRAY_SIZE(cells); i++) {
        cells[i] = cpu_to_fdt32(values[i]);
    }
    put_bytes(writer, name, cells, count * sizeof(cells[0]));
}

static void put_window(struct writer *writer, const struct arch_window *window)
{
    const uint64_t reg[] = {window->base, window->bytes};
    const uint32_t interrupts[] = {INTERRUPT_SPI, window->gsi, INTERRUPT_EDGE};

    put_u64s(writer, "reg", reg, ARRAY_SIZE(reg));
    put_cells(writer, "interrupts", interrupts, ARRAY_SIZE(interrupts));
}

/* Version 2 wants to be told which CPUs a private interrupt is for: all. */
static uint32_t ppi_flags(const struct arm64_machine *machine)
{
    const uint32_t cpus =
        machine->gic == ARM64_GIC_V2 ? ((1U << machine->vcpus) - 1) << GICV2_PPI_CPUS_SHIFT : 0;

    return INTERRUPT_LEVEL | cpus;
}

/* ---- The nodes ------------------------------------------------------------------------------- */

static void put_chosen(struct writer *writer, const struct arm64_machine *machine,
                       struct guest_range initrd, const char *cmdline)
{
    char path[32];

    (void)snprintf(path, sizeof(path), "/serial@%" PRIx64, machine->serial.base);
    begin(writer, "chosen");
    put_text(writer, "bootargs", cmdline);
    put_text(writer, "stdout-path", path); /* for "earlycon" without a device */
    if (initrd.bytes > 0) {
        put_u64(writer, "linux,initrd-start", initrd.base.v);
        put_u64(writer, "linux,initrd-end", initrd.base.v + initrd.bytes);
    }
    put_bytes(writer, "rng-seed", machine->seed, sizeof(machine->seed));
    end(writer);
}

static void put_cpus(struct writer *writer, const struct arm64_machine *machine)
{
    begin(writer, "cpus");
    put_u32(writer, "#address-cells", 2);
    put_u32(writer, "#size-cells", 0);
    for (unsigned i = 0; i < machine->vcpus; i++) {
        const uint64_t affinity = machine->mpidr[i] & MPIDR_AFFINITY_MASK;

        begin(writer, "cpu@%" PRIx64, affinity);
        put_text(writer, "device_type", "cpu");
        put_text(writer, "compatible", "arm,armv8");
        put_text(writer, "enable-method", "psci");
        put_u64(writer, "reg", affinity);
        end(writer);
    }
    end(writer);
}

static void put_memory(struct writer *writer, struct guest_range ram)
{
    const uint64_t reg[] = {ram.base.v, ram.bytes};

    begin(writer, "memory@%" PRIx64, ram.base.v);
    put_text(writer, "device_type", "memory");
    put_u64s(writer, "reg", reg, ARRAY_SIZE(reg));
    end(writer);
}

static void put_psci(struct writer *writer)
{
    static const char compatible[] = "arm,psci-1.0\0arm,psci-0.2";

    begin(writer, "psci");
    put_bytes(writer, "compatible", compatible, sizeof(compatible));
    put_text(writer, "method", "hvc");
    end(writer);
}

static void put_timer(struct writer *writer, const struct arm64_machine *machine)
{
    const uint32_t flags = ppi_flags(machine);
    const uint32_t interrupts[] = {
        INTERRUPT_PPI,
        ARM64_PPI_TIMER_SECURE,
        flags, /* the binding's order */
        INTERRUPT_PPI,
        ARM64_PPI_TIMER,
        flags,
        INTERRUPT_PPI,
        ARM64_PPI_TIMER_VIRTUAL,
        flags,
        INTERRUPT_PPI,
        ARM64_PPI_TIMER_HYPERVISOR,
        flags,
    };

    begin(writer, "timer");
    put_text(writer, "compatible", "arm,armv8-timer");
    put_cells(writer, "interrupts", interrupts, ARRAY_SIZE(interrupts));
    put_flag(writer, "always-on");
    end(writer);
}

static void put_pmu(struct writer *writer, const struct arm64_machine *machine)
{
    const uint32_t interrupts[] = {INTERRUPT_PPI, ARM64_PPI_PMU, ppi_flags(machine)};

    if (machine->has_pmu) {
        begin(writer, "pmu");
        put_text(writer, "compatible", "arm,armv8-pmuv3");
        put_cells(writer, "interrupts", interrupts, ARRAY_SIZE(interrupts));
        end(writer);
    }
}

static void put_gic(struct writer *writer, const struct arm64_machine *machine)
{
    const uint64_t redist_bytes = (uint64_t)machine->vcpus * ARM64_GICV3_REDIST_BYTES;
    const uint64_t v3[] = {ARM64_GIC_DIST, ARM64_GICV3_DIST_BYTES, ARM64_GIC_DIST - redist_bytes,
                           redist_bytes};
    const uint64_t v2[] = {ARM64_GIC_DIST, ARM64_GICV2_DIST_BYTES, ARM64_GICV2_CPU,
                           ARM64_GICV2_CPU_BYTES};
    const bool is_v3 = machine->gic == ARM64_GIC_V3;

    begin(writer, "interrupt-controller@%x", ARM64_GIC_DIST);
    put_text(writer, "compatible", is_v3 ? "arm,gic-v3" : "arm,gic-400");
    put_flag(writer, "interrupt-controller");
    put_u32(writer, "#interrupt-cells", 3);
    put_u64s(writer, "reg", is_v3 ? v3 : v2, 4);
    put_u32(writer, "phandle", PHANDLE_GIC);
    end(writer);
}

static void put_devices(struct writer *writer, const struct arm64_machine *machine,
                        const struct arch_boot_request *request)
{
    begin(writer, "serial@%" PRIx64, machine->serial.base);
    put_text(writer, "compatible", "ns16550a");
    put_window(writer, &machine->serial);
    put_u32(writer, "clock-frequency", SERIAL_CLOCK_HZ);
    end(writer);
    /* Linux probes them in this order: the first block device is /dev/vda. */
    for (unsigned i = 0; i < request->virtio_count; i++) {
        begin(writer, "virtio_mmio@%" PRIx64, request->virtio[i].base);
        put_text(writer, "compatible", "virtio,mmio");
        put_window(writer, &request->virtio[i]);
        put_flag(writer, "dma-coherent");
        end(writer);
    }
}

int arm64_fdt_build(const struct arm64_machine *machine, struct guest_range ram,
                    struct guest_range initrd, const struct arch_boot_request *request,
                    void *ret_fdt, size_t size, struct bvmm_error *err)
{
    struct writer writer = {.fdt = ret_fdt};

    note(&writer, fdt_create(writer.fdt, (int)size));
    if (machine->has_steal_time) {
        note(&writer,
             fdt_add_reservemap_entry(writer.fdt, ARM64_STEAL_TIME, ARM64_STEAL_TIME_BYTES));
    }
    note(&writer, fdt_finish_reservemap(writer.fdt));
    begin(&writer, "%s", "");
    put_text(&writer, "compatible", "linux,dummy-virt");
    put_text(&writer, "model", "bvmm");
    put_u32(&writer, "#address-cells", 2);
    put_u32(&writer, "#size-cells", 2);
    put_u32(&writer, "interrupt-parent", PHANDLE_GIC);
    put_chosen(&writer, machine, initrd, request->cmdline);
    put_cpus(&writer, machine);
    put_memory(&writer, ram);
    put_psci(&writer);
    put_timer(&writer, machine);
    put_pmu(&writer, machine);
    put_gic(&writer, machine);
    put_devices(&writer, machine, request);
    end(&writer);
    note(&writer, fdt_finish(writer.fdt));
    if (writer.error != 0) {
        return error_set(err, BVMM_ERROR_BOOT, -ENOMEM,
                         "the device tree does not fit into %zu bytes: %s", size,
                         fdt_strerror(writer.error));
    }
    return 0;
}
