/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * blk.c: the virtio-blk actor. See blk.h.
 *
 * Thread: blk[i]. Blocks: reading its doorbell; reading the image (for as long as the host's disk
 * takes). System calls: read and write (doorbells, interrupt), preadv (image), clock_gettime (end).
 */
#include "actors/blk.h"

#include <errno.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

enum blk_request_type {
    BLK_T_IN = 0,
    BLK_T_OUT = 1,
    BLK_T_FLUSH = 4,
    BLK_T_GET_ID = 8,
    BLK_T_DISCARD = 11,
    BLK_T_WRITE_ZEROES = 13,
};

enum blk_status { BLK_S_OK = 0, BLK_S_IOERR = 1, BLK_S_UNSUPP = 2 };

#define BLK_F_SEG_MAX (1ULL << 2)
#define BLK_F_RO (1ULL << 5)
#define BLK_F_BLK_SIZE (1ULL << 6)
#define BLK_F_FLUSH (1ULL << 9)

#define BLK_QUEUE 0
#define BLK_BATCH 32 /* requests served before messages get their turn */

struct blk_request_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};
_Static_assert(sizeof(struct blk_request_header) == 16, "section 5.2.6");

/* ---- Requests -------------------------------------------------------------------------------- */

/* Where in the request's writable part data may go: all but the last byte, the status. */
static uint64_t data_bytes(const struct virtq_chain *chain)
{
    return chain->writable_bytes - 1;
}

/*
 * Read the image into the request's buffers. The image's last sector may be incomplete: it reads as
 * if it were filled up with zeros. What was cut off an image that shrank meanwhile cannot be read: a
 * guest that got zeros instead would go on with them.
 */
static int read_image(struct blk *blk, uint64_t offset_bytes, uint64_t bytes)
{
    const struct virtq_segment *segments = blk->chain.segments + blk->chain.readable_count;
    struct iovec iov[VIRTQ_SEGMENTS_MAX] = {{0}};
    uint64_t left = bytes;
    unsigned count = 0;
    unsigned first = 0;

    for (unsigned i = 0; i < blk->chain.writable_count && left > 0; i++) {
        size_t part = (size_t)min_u64(segments[i].bytes, left);

        iov[count++] = (struct iovec){.iov_base = segments[i].host, .iov_len = part};
        left -= part;
    }
    while (first < count) {
        ssize_t n = preadv(blk->image_fd, iov + first, (int)(count - first), (off_t)offset_bytes);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        if (n == 0 && offset_bytes < blk->image_bytes) {
            return -EIO;
        }
        if (n == 0) { /* the rest of the last sector */
            memset(iov[first].iov_base, 0, iov[first].iov_len);
            first++;
            continue;
        }
        offset_bytes += (uint64_t)n;
        while (n > 0) {
            size_t part = (size_t)min_u64((uint64_t)n, iov[first].iov_len);

            iov[first].iov_base = (uint8_t *)iov[first].iov_base + part;
            iov[first].iov_len -= part;
            n -= (ssize_t)part;
            first += iov[first].iov_len == 0 ? 1 : 0;
        }
    }
    return 0;
}

static enum blk_status serve_read(struct blk *blk, uint64_t sector, uint64_t *ret_written)
{
    const uint64_t bytes = data_bytes(&blk->chain);
    const uint64_t capacity_bytes = blk->config.capacity_sectors * BLK_SECTOR_BYTES;
    uint64_t offset_bytes = 0;
    uint64_t end_bytes = 0;

    if (bytes % BLK_SECTOR_BYTES != 0 ||
        __builtin_mul_overflow(sector, (uint64_t)BLK_SECTOR_BYTES, &offset_bytes) ||
        __builtin_add_overflow(offset_bytes, bytes, &end_bytes) || end_bytes > capacity_bytes) {
        return BLK_S_IOERR;
    }
    if (read_image(blk, offset_bytes, bytes) < 0) {
        return BLK_S_IOERR;
    }
    blk->virtio.self->stats->bytes += bytes;
    *ret_written = bytes;
    return BLK_S_OK;
}

static enum blk_status serve(struct blk *blk, const struct blk_request_header *header,
                             uint64_t *ret_written)
{
    switch (header->type) {
    case BLK_T_IN:
        return serve_read(blk, header->sector, ret_written);
    case BLK_T_FLUSH:
        return BLK_S_OK; /* nothing was ever written */
    case BLK_T_GET_ID:
        *ret_written = virtq_chain_write(&blk->chain, 0, blk->id,
                                         (size_t)min_u64(BLK_ID_BYTES, data_bytes(&blk->chain)));
        return BLK_S_OK;
    case BLK_T_OUT:
    case BLK_T_DISCARD:
    case BLK_T_WRITE_ZEROES:
        return BLK_S_IOERR; /* the device is read-only, and said so */
    default:
        return BLK_S_UNSUPP;
    }
}

/* One request, from its chain to its status byte. 0, or -EINVAL: it has no header or no status. */
static int serve_chain(struct blk *blk, struct virtq *queue)
{
    struct actor_stats *stats = blk->virtio.self->stats;
    struct blk_request_header header;
    uint64_t written_bytes = 0;
    uint8_t status = BLK_S_IOERR;

    if (virtq_chain_read(&blk->chain, 0, &header, sizeof(header)) != sizeof(header) ||
        blk->chain.writable_bytes == 0) {
        queue->fault = VIRTQ_FAULT_BAD_REQUEST;
        queue->fault_detail = blk->chain.readable_bytes;
        return -EINVAL;
    }
    status = (uint8_t)serve(blk, &header, &written_bytes);
    stats->requests++;
    stats->request_errors += status == BLK_S_OK ? 0 : 1;
    (void)virtq_chain_write(&blk->chain, data_bytes(&blk->chain), &status, sizeof(status));
    virtq_push(queue, blk->chain.head, (uint32_t)min_u64(written_bytes + 1, UINT32_MAX));
    return 0;
}

bool blk_poll(struct actor *self, bool *worked)
{
    struct blk *blk = self->state;
    struct virtio_mmio *mmio = &blk->virtio.mmio;
    struct virtq *queue = &mmio->queues[BLK_QUEUE];
    bool pushed = false;
    int code = 0;

    virtio_actor_tell_used(&blk->virtio);
    if (!virtio_mmio_queue_live(mmio, BLK_QUEUE)) {
        return false;
    }
    for (unsigned served = 0; served < BLK_BATCH; served++) {
        code = virtq_pop(queue, mmio->memory, &blk->chain);
        if (code > 0) {
            code = serve_chain(blk, queue);
            pushed = true;
        } else if (code == 0) {
            break;
        }
        if (code < 0) {
            virtio_mmio_fail(mmio, BLK_QUEUE);
            return false;
        }
    }
    if (pushed) {
        *worked = true;
        virtio_actor_used(&blk->virtio, BLK_QUEUE);
        return true;
    }
    return virtq_want_notification(queue);
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

static void blk_activate(void *device)
{
    (void)device; /* the loop polls the queue after every message */
}

static void blk_reset(void *device)
{
    (void)device; /* requests are served one at a time: none is under way now */
}

static const struct virtio_device_ops blk_ops = {
    .activate = blk_activate,
    .reset = blk_reset,
    .interrupt = virtio_actor_interrupt,
    .broken = virtio_actor_broken,
};

void blk_init(struct blk *blk, struct actor *self, int irq_eventfd,
              const struct guest_memory *memory, int image_fd, uint64_t image_bytes, const char *id)
{
    memset(blk, 0, sizeof(*blk));
    blk->image_fd = image_fd;
    blk->image_bytes = image_bytes;
    memcpy(blk->id, id, strnlen(id, sizeof(blk->id)));
    blk->config = (struct blk_config){
        .capacity_sectors = image_bytes / BLK_SECTOR_BYTES + (image_bytes % BLK_SECTOR_BYTES != 0),
        .seg_max = BLK_SEGMENTS_MAX,
        .blk_size = BLK_SECTOR_BYTES,
    };
    blk->virtio.self = self;
    blk->virtio.irq = (struct irq){.eventfd = irq_eventfd, .stats = self->stats};
    blk->virtio.mmio = (struct virtio_mmio){
        .device_id = VIRTIO_ID_BLOCK,
        .device_features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC |
                           BLK_F_RO | BLK_F_FLUSH | BLK_F_SEG_MAX | BLK_F_BLK_SIZE,
        .config = (const uint8_t *)&blk->config,
        .config_bytes = sizeof(blk->config),
        .queue_count = 1,
        .memory = memory,
        .ops = &blk_ops,
        .device = &blk->virtio,
    };
    self->state = blk;
}

const actor_handler_fn blk_on[MSG_KIND_COUNT] = {
    [MSG_IO_READ] = virtio_actor_on_read,
    [MSG_IO_WRITE] = virtio_actor_on_write,
    [MSG_IO_WRITE_ACKED] = virtio_actor_on_write_acked,
};

static const struct policy_rule blk_rules[] = {
    POLICY_READ_DOORBELL,
    POLICY_RING_DOORBELLS,
    POLICY_RAISE_IRQ,
    {"preadv", {{0, POLICY_IMAGE, 0}}, 1, POLICY_ANY, "read the image into guest memory"},
    POLICY_CLOCK_CPU,
    POLICY_EXIT_THREAD,
};

const struct policy blk_policy = {blk_rules, ARRAY_SIZE(blk_rules)};
