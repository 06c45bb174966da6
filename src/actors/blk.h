/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * blk.h: virtio-blk on one read-only image.
 * Source: virtio 1.1, section 5.2.
 *
 * The actor sleeps on its doorbell, which vCPUs ring for register accesses and KVM for queue
 * notifications. It reads the image straight into guest memory (preadv), a request at a time.
 * Offered: VERSION_1, EVENT_IDX, INDIRECT_DESC, RO, FLUSH, SEG_MAX, BLK_SIZE.
 * Writes, and every other request that would change something, get VIRTIO_BLK_S_IOERR; unknown ones
 * VIRTIO_BLK_S_UNSUPP. A read past the end, or one that the host cannot do, is IOERR and counted.
 */
#ifndef BVMM_ACTORS_BLK_H
#define BVMM_ACTORS_BLK_H

#include "actors/virtio_actor.h"

#define BLK_SECTOR_BYTES 512
#define BLK_ID_BYTES 20                           /* what GET_ID returns, NUL-padded */
#define BLK_SEGMENTS_MAX (VIRTQ_SEGMENTS_MAX - 2) /* beside header and status */

struct blk_config { /* section 5.2.4, as far as offered */
    uint64_t capacity_sectors;
    uint32_t size_max;
    uint32_t seg_max;
    uint16_t cylinders;
    uint8_t heads;
    uint8_t sectors;
    uint32_t blk_size;
} __attribute__((packed));

struct blk {
    struct virtio_actor virtio; /* first: virtio_actor.h */
    int image_fd;               /* read-only; belongs to the job */
    uint64_t image_bytes;       /* as it was when the job was opened; a partial sector is padded */
    char id[BLK_ID_BYTES];
    struct blk_config config;
    struct virtq_chain chain; /* the request being served: too large for the stack */
};

/*
 * blk_init - before the machine starts.
 * @irq_eventfd: bound to the device's interrupt line.
 */
void blk_init(struct blk *blk, struct actor *self, int irq_eventfd,
              const struct guest_memory *memory, int image_fd, uint64_t image_bytes,
              const char *id);

/* For actor_table.c. */
extern const actor_handler_fn blk_on[MSG_KIND_COUNT];
bool blk_poll(struct actor *self, bool *worked);

extern const struct policy blk_policy;

#endif
