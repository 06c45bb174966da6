/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * regs.h: what a device tells about its registers: the table that decides which writes are posted.
 *
 * A vCPU that exits for an access looks up the region (machine wiring), then the register here. A
 * write to a register marked REG_POSTED is sent and forgotten; to any other it is acknowledged: the
 * vCPU goes on when the device has done it. Posted is right only where the guest cannot tell the
 * difference. What is in no row is acknowledged: slow but safe.
 *
 * The tables are constant. Thread: any.
 */
#ifndef BVMM_ACTORS_REGS_H
#define BVMM_ACTORS_REGS_H

#include "base/base.h"

enum reg_flags {
    REG_POSTED = 1, /* a write needs no answer */
};

struct reg_def {
    uint32_t offset_bytes;
    uint8_t width_bytes;
    uint8_t flags; /* enum reg_flags */
    const char *name;
};

/* A window of registers, wherever the machine puts it. */
struct reg_region_def {
    const char *name;
    uint32_t bytes;
    const struct reg_def *regs;
    unsigned reg_count;
};

static inline bool reg_write_is_posted(const struct reg_region_def *region, uint64_t offset_bytes)
{
    for (unsigned i = 0; i < region->reg_count; i++) {
        if (region->regs[i].offset_bytes == offset_bytes) {
            return (region->regs[i].flags & REG_POSTED) != 0;
        }
    }
    return false;
}

#endif
