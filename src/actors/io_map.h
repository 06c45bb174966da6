/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * io_map.h: which device answers at which address. Made once, by vmm/machine.c; read by all vCPUs.
 */
#ifndef BVMM_ACTORS_IO_MAP_H
#define BVMM_ACTORS_IO_MAP_H

#include "actors/regs.h"
#include "arch/arch.h"
#include "mailbox/msg.h"

#define IO_WINDOWS_MAX 32

struct io_window {
    enum arch_bus bus;
    uint64_t base;
    const struct reg_region_def *region; /* its size, and which writes are posted */
    actor_id device;
    uint8_t region_index; /* which of the device's regions: goes into msg.region */
};

struct io_map {
    struct io_window windows[IO_WINDOWS_MAX];
    unsigned count;
};

/* The window that holds all of [address, address + width), or NULL. */
static inline const struct io_window *io_map_find(const struct io_map *map, enum arch_bus bus,
                                                  uint64_t address, unsigned width_bytes)
{
    for (unsigned i = 0; i < map->count; i++) {
        const struct io_window *window = &map->windows[i];
        const uint64_t offset = address - window->base; /* huge if below: fails the next test */

        if (window->bus == bus && offset < window->region->bytes &&
            width_bytes <= window->region->bytes - offset) {
            return window;
        }
    }
    return NULL;
}

#endif
