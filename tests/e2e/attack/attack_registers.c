/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * attack_registers.c: registers written when or with what they should not be, and descriptors used
 * twice or changed while the device looks. Of these no device has to go out of service; none may
 * write where it was not told to.
 */
#include "guest.h"

#define QUEUE_SIZE 8
#define REQUESTS 40 /* several times around the ring */
#define CANARY 0xa5
#define CANARY_BYTES 4096
#define RACES 60 /* times that the queue is filled */

/* ---- Some requests --------------------------------------------------------------------------- */

/* One at a time, each checked. NULL, or what is wrong. */
static const char *serve_some(const struct device *blk, struct queue *queue)
{
    struct blk_request *request = blk_request_new(queue);

    for (unsigned i = 0; i < REQUESTS; i++) {
        *(volatile uint8_t *)&request->status = 0xff;
        queue_publish(queue, 0);
        device_notify(blk, 0);
        if (!device_wait_used(blk, queue, 1)) {
            return "a request was not served";
        }
        if (*(volatile uint8_t *)&request->status != 0) {
            return "a request failed";
        }
    }
    return NULL;
}

/* ---- CVE-2026-5747: the queue's size changes after activation -------------------------------- */

static const char *change_a_live_queue(const struct device *blk, struct queue *queue)
{
    static const uint32_t sizes[] = {256, 0, 1, 0x8000, UINT32_MAX};

    for (unsigned i = 0; i < COUNT(sizes); i++) {
        const char *why = NULL;

        reg_write(blk, REG_QUEUE_SEL, 0);
        reg_write(blk, REG_QUEUE_NUM, sizes[i]);
        for (uint32_t offset = REG_QUEUE_DESC; offset <= REG_QUEUE_DEVICE + 4; offset += 4) {
            reg_write(blk, offset, 0xfffffff0U);
        }
        why = serve_some(blk, queue);
        if (why != NULL) {
            return why;
        }
    }
    return NULL;
}

static const char *size_changes(const struct device *blk)
{
    const char *why = NULL;
    uint8_t *canary = NULL;
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    /* Behind the used ring of 8: what a device would fill that believed in one of 256. */
    canary = (uint8_t *)(queue.used + 4 + 8U * QUEUE_SIZE + 2);
    (void)arena_take(CANARY_BYTES, 1);
    for (unsigned i = 0; i < CANARY_BYTES - 128; i++) {
        canary[i] = CANARY;
    }
    (void)device_begin(blk, 0);
    device_add_queue(blk, 0, &queue);
    device_go(blk);
    why = change_a_live_queue(blk, &queue);
    for (unsigned i = 0; i < CANARY_BYTES - 128; i++) {
        if (((volatile uint8_t *)canary)[i] != CANARY) {
            why = "the device wrote behind its used ring";
        }
    }
    return why;
}

/* A queue that was let go does not come back with another size before a reset. */
static const char *live_queue_comes_back(const struct device *blk)
{
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    (void)blk_request_new(&queue);
    (void)device_begin(blk, 0);
    device_add_queue(blk, 0, &queue);
    device_go(blk);
    reg_write(blk, REG_QUEUE_READY, 0);
    queue.size = 256;
    device_add_queue(blk, 0, &queue);
    queue_publish(&queue, 0);
    device_notify(blk, 0);
    if (device_wait_used(blk, &queue, 1) || reg_read(blk, REG_QUEUE_READY) != 0) {
        return "a queue was set up after DRIVER_OK";
    }
    return NULL;
}

/* ---- Cloud Hypervisor 7917: QueueSel out of range -------------------------------------------- */

static const char *queue_select_outside(const struct device *blk)
{
    static const uint32_t selectors[] = {1, 2, 3, 255, 0x8000, 0x80000000U, UINT32_MAX};
    const char *why = NULL;
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    (void)device_begin(blk, 0);
    for (unsigned i = 0; i < COUNT(selectors); i++) {
        device_add_queue(blk, selectors[i], &queue);
        if (reg_read(blk, REG_QUEUE_NUM_MAX) != 0 || reg_read(blk, REG_QUEUE_READY) != 0) {
            return "there is a queue that should not be there";
        }
        reg_write(blk, REG_QUEUE_NOTIFY, selectors[i]);
    }
    device_add_queue(blk, 0, &queue);
    reg_write(blk, REG_QUEUE_SEL, UINT32_MAX);
    device_go(blk);
    for (unsigned i = 0; i < COUNT(selectors); i++) {
        reg_write(blk, REG_QUEUE_SEL, selectors[i]);
        reg_write(blk, REG_QUEUE_READY, 0);
        reg_write(blk, REG_QUEUE_NOTIFY, selectors[i]);
    }
    why = serve_some(blk, &queue);
    return why;
}

/* ---- Firecracker 3149: a descriptor is used again while it is in use ------------------------- */

static const char *descriptor_replay(const struct device *blk)
{
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    (void)blk_request_new(&queue);
    (void)device_begin(blk, 0);
    device_add_queue(blk, 0, &queue);
    device_go(blk);
    for (unsigned round = 0; round < 4; round++) {
        for (unsigned i = 0; i < QUEUE_SIZE; i++) {
            queue_publish(&queue, 0);
        }
        device_notify(blk, 0);
        if (!device_wait_used(blk, &queue, QUEUE_SIZE)) {
            return "a request that came twice was not answered twice";
        }
    }
    return NULL;
}

/* ---- Everything else that a register takes --------------------------------------------------- */

static const char *all_registers(const struct device *blk)
{
    uint64_t sum = 0;

    for (uint32_t offset = 0; offset < 0x200; offset += 4) {
        sum += reg_read(blk, offset);
        reg_write(blk, offset, UINT32_MAX);
    }
    for (uint32_t offset = 0xff8; offset < 0x1000; offset += 4) { /* far behind the configuration */
        sum += reg_read(blk, offset);
    }
    for (unsigned width = 1; width <= 8; width *= 2) {
        sum += mmio_read(blk->base + REG_CONFIG + 24 - width, width);
        mmio_write(blk->base + REG_STATUS, 1, 0xff);
        mmio_write(blk->base + REG_QUEUE_SEL, 8, UINT64_MAX);
    }
    for (uint32_t status = 0; status < 256; status++) {
        reg_write(blk, REG_STATUS, status);
    }
    reg_write(blk, REG_STATUS, 0);
    return sum != 0 && reg_read(blk, REG_STATUS) == 0 ? NULL : "no reset by Status = 0";
}

/* All three rings at one place, and the buffers too. */
static const char *rings_overlap(const struct device *blk)
{
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    (void)blk_request_new(&queue);
    queue.avail = queue.desc;
    queue.used = queue.desc;
    (void)device_begin(blk, F_EVENT_IDX);
    device_add_queue(blk, 0, &queue);
    queue_set(&queue, 1, (void *)queue.desc, SECTOR_BYTES, D_NEXT | D_WRITE, 2);
    device_go(blk);
    device_notify(blk, 0);
    (void)device_wait_used(blk, &queue, 1); /* whatever it makes of that */
    return NULL;
}

/* What the disk is not for is refused by a status. */
static const char *blk_requests(const struct device *blk)
{
    static const struct {
        uint32_t type;
        uint64_t sector;
        uint8_t status;
    } requests[] = {
        {0, UINT64_MAX, 1},           /* sector * 512 wraps around */
        {0, UINT64_MAX / 512 + 2, 1}, /* ... to a sector that is there */
        {0, 1ULL << 40, 1},           /* behind the end */
        {1, 0, 1},                    /* a write to a read-only disk */
        {11, 0, 1},                   /* discard */
        {12345, 0, 2},                /* unknown */
    };
    struct blk_request *request = NULL;
    struct queue queue;

    queue_new(&queue, QUEUE_SIZE);
    request = blk_request_new(&queue);
    (void)device_begin(blk, 0);
    device_add_queue(blk, 0, &queue);
    device_go(blk);
    for (unsigned i = 0; i < COUNT(requests); i++) {
        request->header = (struct blk_header){requests[i].type, 0, requests[i].sector};
        *(volatile uint8_t *)&request->status = 0xff;
        queue_publish(&queue, 0);
        device_notify(blk, 0);
        if (!device_wait_used(blk, &queue, 1)) {
            return "a bad request was not answered";
        }
        if (*(volatile uint8_t *)&request->status != requests[i].status) {
            return "a bad request got another status than it should";
        }
    }
    return NULL;
}

static const struct {
    const char *name;
    const char *(*run)(const struct device *blk);
} all[] = {
    {"CVE-2026-5747: queue size after activation", size_changes},
    {"a live queue is let go and set up anew", live_queue_comes_back},
    {"Cloud Hypervisor 7917: queue_select out of range", queue_select_outside},
    {"Firecracker 3149: descriptor replay", descriptor_replay},
    {"every register, every status, odd widths", all_registers},
    {"rings that overlap", rings_overlap},
    {"requests that a disk refuses", blk_requests},
};

void attack_registers(void)
{
    const struct device *blk = &blks[blk_count - 2];

    for (unsigned i = 0; i < COUNT(all); i++) {
        const char *why = NULL;
        uint64_t sum = 0;

        arena_reset();
        why = all[i].run(blk);
        device_end(blk);
        if (why == NULL && !blk_works(blk, &sum)) {
            why = "the device does not work after a reset";
        }
        verdict(all[i].name, why);
    }
}

/* ---- A descriptor is changed after it was checked -------------------------------------------- */

/* A request whose descriptor 1 lies where the second CPU writes. */
static void race_request(struct queue *queue)
{
    queue->desc = (uint64_t)race_page + RACE_TABLE;
    queue->table = (volatile struct descriptor *)queue->desc;
    (void)blk_request_new(queue);
}

void attack_by_race(void)
{
    const struct device *blk = &blks[blk_count - 2];
    const char *name = "a descriptor changes while the device looks";
    unsigned faults = 0;
    unsigned served = 0;
    struct queue queue;
    uint64_t sum = 0;

    for (unsigned i = 0; i < RACES; i++) {
        device_end(blk);
        arena_reset();
        queue_new(&queue, QUEUE_SIZE);
        race_request(&queue);
        if (i == 0 && !machine_race_start()) {
            say("attack ");
            say(name);
            say(": skipped: one CPU\n");
            return;
        }
        (void)device_begin(blk, 0);
        device_add_queue(blk, 0, &queue);
        device_go(blk);
        for (unsigned j = 0; j < QUEUE_SIZE; j++) {
            queue_publish(&queue, 0);
        }
        device_notify(blk, 0);
        served += device_wait_used(blk, &queue, QUEUE_SIZE) ? 1 : 0;
        faults += (reg_read(blk, REG_STATUS) & STATUS_NEEDS_RESET) != 0 ? 1 : 0;
    }
    machine_race_stop();
    say("race: served ");
    say_number(served);
    say(", out of service ");
    say_number(faults);
    say("\n");
    verdict(name, served + faults == 0    ? "nothing came of it"
                  : !blk_works(blk, &sum) ? "the device does not work after a reset"
                                          : NULL);
}
