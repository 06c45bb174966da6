/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * attack_queue.c: rings and descriptors that break a rule of the virtqueue, one at a time. For each
 * the device has to go out of service, and to work again after a reset. Which disk is attacked, and
 * what the report says of it, tests/e2e/scenarios_attack.py has in the same order.
 */
#include "guest.h"

#define QUEUE_SIZE 8

/* What is spoiled of a request that is right otherwise. */
struct spoilt {
    const char *name;
    uint64_t features;
    void (*rings)(struct queue *queue);   /* before the device hears of them; may be NULL */
    void (*request)(struct queue *queue); /* before it is published; may be NULL */
};

/* ---- Chains ---------------------------------------------------------------------------------- */

static void loops_on_itself(struct queue *queue)
{
    queue->table[0].next = 0;
}

static void loops_in_a_ring(struct queue *queue)
{
    queue->table[1].flags = D_NEXT;
    queue->table[2].flags = D_NEXT;
    queue->table[2].next = 0;
}

static void next_is_outside(struct queue *queue)
{
    queue->table[0].next = 300;
}

static void reads_after_writing(struct queue *queue)
{
    queue->table[0].flags = D_NEXT | D_WRITE;
    queue->table[1].flags = D_NEXT;
}

static void is_empty(struct queue *queue)
{
    queue->table[1].bytes = 0;
}

static void has_no_status(struct queue *queue)
{
    queue->table[0].flags = 0;
}

/* ---- Buffers --------------------------------------------------------------------------------- */

static void wraps_around(struct queue *queue)
{
    queue->table[1].address = UINT64_MAX - 0xff;
    queue->table[1].bytes = 0x200;
}

static void crosses_the_end(struct queue *queue)
{
    queue->table[1].address = memory_end() - 16;
}

static void is_4_gib(struct queue *queue)
{
    queue->table[1].bytes = UINT32_MAX;
}

static void is_in_mmio(struct queue *queue)
{
    queue->table[1].address = machine_virtio_base;
}

/* ---- Indirect tables ------------------------------------------------------------------------- */

/* All of the request in a table of its own, and descriptor 0 for that. */
static struct descriptor *make_indirect(struct queue *queue)
{
    struct descriptor *table = arena_take(3 * sizeof(*table), 16);

    for (unsigned i = 0; i < 3; i++) {
        table[i] = (struct descriptor){queue->table[i].address, queue->table[i].bytes,
                                       queue->table[i].flags, queue->table[i].next};
    }
    queue_set(queue, 0, table, 3 * sizeof(*table), D_INDIRECT, 0);
    return table;
}

static void indirect_unasked(struct queue *queue)
{
    (void)make_indirect(queue);
}

static void indirect_in_indirect(struct queue *queue)
{
    struct descriptor *table = make_indirect(queue);

    *(volatile struct descriptor *)&table[1] =
        (struct descriptor){(uint64_t)table, 3 * sizeof(*table), D_INDIRECT, 0};
}

static void indirect_in_part(struct queue *queue)
{
    (void)make_indirect(queue);
    queue->table[0].bytes = 40;
}

static void indirect_outside(struct queue *queue)
{
    (void)make_indirect(queue);
    queue->table[0].address = memory_end() - 16;
}

static void indirect_wraps_around(struct queue *queue)
{
    (void)make_indirect(queue);
    queue->table[0].address = UINT64_MAX - 15;
    queue->table[0].bytes = UINT32_MAX & ~15U;
}

static void indirect_next_is_outside(struct queue *queue)
{
    struct descriptor *table = make_indirect(queue);

    *(volatile uint16_t *)&table[0].next = 3;
}

/* ---- The available ring ---------------------------------------------------------------------- */

static void index_jumps(struct queue *queue)
{
    queue->avail_index = 1000;
}

static void index_runs_back(struct queue *queue)
{
    queue->avail_index = UINT16_MAX - 2;
}

static void head_is_outside(struct queue *queue)
{
    volatile uint16_t *avail = (volatile uint16_t *)queue->avail;

    avail[2] = 0xffff;
    queue->avail_index = 1; /* and one more is published: the first is taken first */
}

/* ---- Rings ----------------------------------------------------------------------------------- */

static void size_is_no_power(struct queue *queue)
{
    queue->size = 3;
}

static void table_is_misaligned(struct queue *queue)
{
    queue->desc += 8;
}

static void table_is_in_mmio(struct queue *queue)
{
    queue->desc = machine_virtio_base;
}

static void used_crosses_the_end(struct queue *queue)
{
    queue->used = memory_end() - 8;
}

static void avail_wraps_around(struct queue *queue)
{
    queue->avail = UINT64_MAX - 15;
}

static const struct spoilt all[] = {
    {"loop", 0, NULL, loops_on_itself},
    {"loop of three", 0, NULL, loops_in_a_ring},
    {"next out of range", 0, NULL, next_is_outside},
    {"read after write", 0, NULL, reads_after_writing},
    {"empty buffer", 0, NULL, is_empty},
    {"no status byte", 0, NULL, has_no_status},
    {"length wraps around 2^64", 0, NULL, wraps_around},
    {"buffer over the end of memory", 0, NULL, crosses_the_end},
    {"buffer of 4 GiB", 0, NULL, is_4_gib},
    {"buffer in MMIO", 0, NULL, is_in_mmio},
    {"indirect, not agreed", 0, NULL, indirect_unasked},
    {"indirect in indirect", F_INDIRECT, NULL, indirect_in_indirect},
    {"indirect of 40 bytes", F_INDIRECT, NULL, indirect_in_part},
    {"indirect over the end of memory", F_INDIRECT, NULL, indirect_outside},
    {"indirect wraps around 2^64", F_INDIRECT, NULL, indirect_wraps_around},
    {"next out of range in indirect", F_INDIRECT, NULL, indirect_next_is_outside},
    {"avail index jumps", 0, NULL, index_jumps},
    {"avail index runs back", 0, NULL, index_runs_back},
    {"head out of range", 0, NULL, head_is_outside},
    {"size is no power of two", 0, size_is_no_power, NULL},
    {"table misaligned", 0, table_is_misaligned, NULL},
    {"table in MMIO", 0, table_is_in_mmio, NULL},
    {"used ring over the end of memory", 0, used_crosses_the_end, NULL},
    {"avail ring wraps around 2^64", 0, avail_wraps_around, NULL},
};

static const char *attack(const struct device *blk, const struct spoilt *spoilt, uint64_t before)
{
    struct queue queue;
    uint64_t after = 0;

    arena_reset();
    queue_new(&queue, QUEUE_SIZE);
    (void)blk_request_new(&queue);
    if (!device_begin(blk, spoilt->features)) {
        return "no FEATURES_OK";
    }
    if (spoilt->rings != NULL) {
        struct queue told = queue;

        spoilt->rings(&told);
        device_add_queue(blk, 0, &told);
    } else {
        device_add_queue(blk, 0, &queue);
    }
    device_go(blk);
    if (spoilt->request != NULL) {
        spoilt->request(&queue);
        queue_publish(&queue, 0);
        device_notify(blk, 0);
    }
    if (!device_out_of_service(blk)) {
        return "the device did not go out of service";
    }
    device_notify(blk, 0);
    if (!blk_works(blk, &after) || after != before) {
        return "the device does not work after a reset";
    }
    return NULL;
}

void attack_queues(void)
{
    for (unsigned i = 0; i < COUNT(all); i++) {
        const struct device *blk = &blks[i / ATTACKS_PER_DEVICE];
        uint64_t before = 0;

        if (i / ATTACKS_PER_DEVICE + 1 >= blk_count) {
            verdict(all[i].name, "there are not enough disks");
        } else if (!blk_works(blk, &before)) {
            verdict(all[i].name, "the device did not even work before");
        } else {
            verdict(all[i].name, attack(blk, &all[i], before));
        }
    }
}
