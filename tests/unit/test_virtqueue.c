/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_virtqueue.c: the device's side of a split virtqueue: a driver that keeps to the rules, one that
 * breaks each of them, and one that writes to its rings at random.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdio.h>

#include "rounds.h"
#include "seeded_random.h"
#include "virtio_driver.h"

#define MEMORY_BYTES (4 * MIB)
#define SECOND_BASE (64 * MIB) /* another piece of memory, with a hole before it */
#define QUEUE_AT 0x10000U
#define BUFFERS_AT 0x100000U
#define SIZE 16

struct setup {
    struct guest_memory memory;
    uint8_t *base;
    struct driver_queue driver;
    struct virtq queue;
    struct virtq_chain chain;
};

static void set_up(struct setup *s, bool event_idx, bool indirect)
{
    const struct guest_range ranges[] = {{gpa(0), MEMORY_BYTES}, {gpa(SECOND_BASE), MIB}};
    struct bvmm_error err;

    memset(s, 0, sizeof(*s));
    assert_int_equal(guest_memory_init(&s->memory, ranges, 2, &err), 0);
    s->base = s->memory.regions[0].host;
    driver_queue_init(&s->driver, s->base, QUEUE_AT, SIZE, event_idx, indirect);
    s->queue.size = SIZE;
    s->queue.desc = gpa(s->driver.desc);
    s->queue.avail = gpa(s->driver.avail);
    s->queue.used = gpa(s->driver.used);
    assert_int_equal(virtq_activate(&s->queue, &s->memory, event_idx, indirect), 0);
}

static void tear_down(struct setup *s)
{
    guest_memory_fini(&s->memory);
}

static struct driver_buffer buffer(unsigned index, uint32_t bytes, bool writable)
{
    return (struct driver_buffer){BUFFERS_AT + index * 0x1000ULL, bytes, writable};
}

/* A chain is offered as it is, and popping it must be this fault. */
static void expect_fault(struct setup *s, enum virtq_fault fault)
{
    driver_offer(&s->driver, 0);
    assert_int_equal(virtq_pop(&s->queue, &s->memory, &s->chain), -EINVAL);
    assert_string_equal(virtq_fault_text(s->queue.fault), virtq_fault_text(fault));
    assert_false(s->queue.active);
    assert_int_equal(virtq_pop(&s->queue, &s->memory, &s->chain), 0); /* out of service */
    virtq_push(&s->queue, 0, 0);
    assert_int_equal(*driver_u16(&s->driver, s->driver.used + 2), 0); /* and silent */
    assert_false(virtq_should_interrupt(&s->queue));
    assert_false(virtq_want_notification(&s->queue));
}

static void set_desc(struct setup *s, unsigned index, uint64_t address, uint32_t bytes,
                     unsigned flags, unsigned next)
{
    *driver_desc_at(&s->driver, index) =
        (struct driver_desc){address, bytes, (uint16_t)flags, (uint16_t)next};
}

/* ---- A driver that keeps to the rules --------------------------------------------------------- */

static void chain_of_readable_and_writable_parts(void **state)
{
    struct setup s;
    const struct driver_buffer buffers[] = {buffer(0, 3, false), buffer(1, 5, false),
                                            buffer(2, 4, true), buffer(3, 6, true)};
    char text[16] = "";
    uint16_t head = 0;
    uint32_t bytes = 0;

    (void)state;
    for (unsigned indirect = 0; indirect < 2; indirect++) {
        set_up(&s, false, true);
        memcpy(s.base + buffers[0].address, "abc", 3);
        memcpy(s.base + buffers[1].address, "defgh", 5);
        driver_offer(&s.driver, driver_chain(&s.driver, buffers, 4, indirect != 0));
        assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
        assert_int_equal(s.chain.readable_count, 2);
        assert_int_equal(s.chain.writable_count, 2);
        assert_int_equal(s.chain.readable_bytes, 8);
        assert_int_equal(s.chain.writable_bytes, 10);
        assert_int_equal(virtq_chain_read(&s.chain, 1, text, 6), 6);
        assert_string_equal(text, "bcdefg");
        assert_int_equal(virtq_chain_read(&s.chain, 6, text, 16), 2);
        assert_int_equal(virtq_chain_read(&s.chain, 8, text, 1), 0);
        assert_int_equal(virtq_chain_read(&s.chain, UINT64_MAX, text, 1), 0);
        assert_int_equal(virtq_chain_write(&s.chain, 2, "0123456789", 10), 8);
        assert_memory_equal(s.base + buffers[2].address + 2, "01", 2);
        assert_memory_equal(s.base + buffers[3].address, "234567", 6);
        assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 0);
        virtq_push(&s.queue, s.chain.head, 10);
        assert_true(driver_take_used(&s.driver, &head, &bytes));
        assert_int_equal(head, s.chain.head);
        assert_int_equal(bytes, 10);
        tear_down(&s);
    }
}

static void unpop_gives_the_same_chain_again(void **state)
{
    struct setup s;
    const struct driver_buffer buffers[] = {buffer(0, 3, false), buffer(1, 5, false)};

    (void)state;
    set_up(&s, false, false);
    for (unsigned i = 0; i < 2; i++) {
        driver_offer(&s.driver, driver_chain(&s.driver, &buffers[i], 1, false));
    }
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    virtq_unpop(&s.queue);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_int_equal(s.chain.readable_bytes, 3);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_int_equal(s.chain.readable_bytes, 5);
    tear_down(&s);
}

/* The 16-bit indices go round several times. */
static void indices_wrap_around(void **state)
{
    struct setup s;
    const struct driver_buffer one = buffer(0, 8, true);
    uint16_t head = 0;
    uint32_t bytes = 0;

    (void)state;
    set_up(&s, true, false);
    for (uint32_t i = 0; i < 200000; i++) {
        driver_offer(&s.driver, driver_chain(&s.driver, &one, 1, false));
        assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
        virtq_push(&s.queue, s.chain.head, i);
        assert_true(driver_take_used(&s.driver, &head, &bytes));
        assert_int_equal(bytes, i);
    }
    tear_down(&s);
}

static void chain_as_long_as_the_queue_is_allowed(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    for (unsigned i = 0; i < SIZE; i++) {
        set_desc(&s, i, BUFFERS_AT, 1, i + 1 < SIZE ? DRIVER_DESC_NEXT : 0, i + 1);
    }
    driver_offer(&s.driver, 0);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_int_equal(s.chain.readable_count, SIZE);
    tear_down(&s);
}

/* ---- Being told ------------------------------------------------------------------------------- */

static void push_some(struct setup *s, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        virtq_push(&s->queue, 0, 0);
    }
}

static void interrupts_without_event_idx_follow_the_flag(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    assert_false(virtq_should_interrupt(&s.queue)); /* nothing was pushed */
    push_some(&s, 1);
    assert_true(virtq_should_interrupt(&s.queue));
    assert_false(virtq_should_interrupt(&s.queue)); /* once */
    *driver_u16(&s.driver, s.driver.avail) = 1;     /* VIRTQ_AVAIL_F_NO_INTERRUPT */
    push_some(&s, 1);
    assert_false(virtq_should_interrupt(&s.queue));
    tear_down(&s);
}

/* Section 2.6.7.2, against its own words: the used index passed the one that was asked for. */
static void interrupts_with_event_idx_follow_the_index(void **state)
{
    struct seeded_random random = random_from_seed("interrupts_with_event_idx");
    const unsigned times = rounds(100000);
    struct setup s;

    (void)state;
    set_up(&s, true, false);
    for (unsigned i = 0; i < times; i++) {
        const unsigned count = (unsigned)random_below(&random, 20);
        const uint16_t before = s.queue.next_used;
        const uint16_t event = (uint16_t)(before + random_below(&random, 40) - 20);
        bool wanted = false;

        *driver_used_event(&s.driver) = event;
        push_some(&s, count);
        for (unsigned k = 0; k < count; k++) {
            wanted = wanted || (uint16_t)(before + k) == event;
        }
        assert_int_equal(virtq_should_interrupt(&s.queue), wanted);
    }
    tear_down(&s);
}

static void notification_is_asked_for_and_what_is_there_is_seen(void **state)
{
    struct setup s;
    const struct driver_buffer one = buffer(0, 8, true);

    (void)state;
    set_up(&s, true, false);
    assert_false(virtq_want_notification(&s.queue));
    driver_offer(&s.driver, driver_chain(&s.driver, &one, 1, false));
    assert_true(driver_must_kick(&s.driver));
    assert_true(virtq_want_notification(&s.queue)); /* it is there already */
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    driver_offer(&s.driver, driver_chain(&s.driver, &one, 1, false));
    assert_false(driver_must_kick(&s.driver)); /* nobody asked since */
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_false(virtq_want_notification(&s.queue));
    driver_offer(&s.driver, driver_chain(&s.driver, &one, 1, false));
    assert_true(driver_must_kick(&s.driver));
    tear_down(&s);
}

/* ---- Each fault ------------------------------------------------------------------------------- */

static void activate_fault(uint16_t size, uint64_t desc, uint64_t avail, uint64_t used,
                           enum virtq_fault fault)
{
    const struct guest_range ranges[] = {{gpa(0), MEMORY_BYTES}, {gpa(SECOND_BASE), MIB}};
    struct guest_memory memory;
    struct virtq queue;
    struct bvmm_error err;

    assert_int_equal(guest_memory_init(&memory, ranges, 2, &err), 0);
    virtq_reset(&queue);
    queue.size = size;
    queue.desc = gpa(desc);
    queue.avail = gpa(avail);
    queue.used = gpa(used);
    if (fault == VIRTQ_FAULT_NONE) {
        assert_int_equal(virtq_activate(&queue, &memory, true, true), 0);
        assert_true(queue.active);
    } else {
        assert_int_equal(virtq_activate(&queue, &memory, true, true), -EINVAL);
        assert_string_equal(virtq_fault_text(queue.fault), virtq_fault_text(fault));
        assert_false(queue.active);
    }
    guest_memory_fini(&memory);
}

static void bad_size(void **state)
{
    const uint16_t sizes[] = {0, 3, 5, 127, 255, 257, 512, 32768, 65535};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        activate_fault(sizes[i], 0x1000, 0x2000, 0x3000, VIRTQ_FAULT_BAD_SIZE);
    }
    activate_fault(1, 0x1000, 0x2000, 0x3000, VIRTQ_FAULT_NONE);
    activate_fault(256, 0x1000, 0x2000, 0x3000, VIRTQ_FAULT_NONE);
}

static void bad_alignment(void **state)
{
    (void)state;
    activate_fault(SIZE, 0x1008, 0x2000, 0x3000, VIRTQ_FAULT_BAD_ALIGNMENT);
    activate_fault(SIZE, 0x1000, 0x2001, 0x3000, VIRTQ_FAULT_BAD_ALIGNMENT);
    activate_fault(SIZE, 0x1000, 0x2000, 0x3002, VIRTQ_FAULT_BAD_ALIGNMENT);
}

/* Rings beyond the end, over the end, in the hole between two regions, over 2^64. */
static void ring_outside(void **state)
{
    const uint64_t places[] = {MEMORY_BYTES,           MEMORY_BYTES - 16, SECOND_BASE - 16,
                               SECOND_BASE + MIB - 16, UINT64_MAX - 15,   0x8000000000000000ULL};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(places); i++) {
        activate_fault(SIZE, places[i], 0x2000, 0x3000, VIRTQ_FAULT_RING_OUTSIDE);
        activate_fault(SIZE, 0x1000, places[i], 0x3000, VIRTQ_FAULT_RING_OUTSIDE);
        activate_fault(SIZE, 0x1000, 0x2000, places[i], VIRTQ_FAULT_RING_OUTSIDE);
    }
    /* To the last byte: the table, the available ring with used_event, the used with avail_event. */
    activate_fault(SIZE, MEMORY_BYTES - 16 * SIZE, 0x2000, 0x3000, VIRTQ_FAULT_NONE);
    activate_fault(SIZE, 0x1000, MEMORY_BYTES - (6 + 2 * SIZE), 0x3000, VIRTQ_FAULT_NONE);
    activate_fault(SIZE, 0x1000, MEMORY_BYTES - (6 + 2 * SIZE) + 2, 0x3000,
                   VIRTQ_FAULT_RING_OUTSIDE);
    activate_fault(SIZE, 0x1000, 0x2000, MEMORY_BYTES - (8 + 8 * SIZE), VIRTQ_FAULT_NONE);
    activate_fault(SIZE, 0x1000, 0x2000, MEMORY_BYTES - (8 + 8 * SIZE) + 4,
                   VIRTQ_FAULT_RING_OUTSIDE);
}

static void avail_jump(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    *driver_avail_idx(&s.driver) = SIZE;
    set_desc(&s, 0, BUFFERS_AT, 8, 0, 0);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1); /* just possible */
    s.driver.avail_idx = SIZE + 1;
    expect_fault(&s, VIRTQ_FAULT_AVAIL_JUMP); /* 2 more: one ahead of the ring */
    tear_down(&s);
    set_up(&s, false, false);
    *driver_avail_idx(&s.driver) = UINT16_MAX; /* backwards */
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), -EINVAL);
    assert_int_equal(s.queue.fault, VIRTQ_FAULT_AVAIL_JUMP);
    tear_down(&s);
}

static void bad_head(void **state)
{
    const uint16_t heads[] = {SIZE, SIZE + 1, 0x8000, UINT16_MAX};
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(heads); i++) {
        set_up(&s, false, false);
        driver_offer(&s.driver, heads[i]);
        assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), -EINVAL);
        assert_int_equal(s.queue.fault, VIRTQ_FAULT_BAD_HEAD);
        assert_int_equal(s.queue.fault_detail, heads[i]);
        tear_down(&s);
    }
}

static void bad_next(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 8, DRIVER_DESC_NEXT, SIZE);
    expect_fault(&s, VIRTQ_FAULT_BAD_NEXT);
    tear_down(&s);
    /* In an indirect table its own length is the bound, which is smaller than the queue here. */
    set_up(&s, false, true);
    set_desc(&s, 0, BUFFERS_AT, 32, DRIVER_DESC_INDIRECT, 0);
    memcpy(s.base + BUFFERS_AT, &(struct driver_desc){BUFFERS_AT + 4096, 8, DRIVER_DESC_NEXT, 2},
           16);
    expect_fault(&s, VIRTQ_FAULT_BAD_NEXT);
    tear_down(&s);
}

static void descriptor_loop(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 8, DRIVER_DESC_NEXT, 0);
    expect_fault(&s, VIRTQ_FAULT_CHAIN_TOO_LONG);
    tear_down(&s);
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 8, DRIVER_DESC_NEXT, 1);
    set_desc(&s, 1, BUFFERS_AT, 8, DRIVER_DESC_NEXT, 0);
    expect_fault(&s, VIRTQ_FAULT_CHAIN_TOO_LONG);
    tear_down(&s);
    set_up(&s, false, true); /* a table that is longer than the queue */
    set_desc(&s, 0, BUFFERS_AT, 16 * (SIZE + 1), DRIVER_DESC_INDIRECT, 0);
    for (unsigned i = 0; i <= SIZE; i++) {
        const struct driver_desc desc = {BUFFERS_AT + 4096, 8, DRIVER_DESC_NEXT, (uint16_t)(i + 1)};

        memcpy(s.base + BUFFERS_AT + 16 * i, &desc, 16);
    }
    expect_fault(&s, VIRTQ_FAULT_CHAIN_TOO_LONG);
    tear_down(&s);
}

static void indirect_not_agreed(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 16, DRIVER_DESC_INDIRECT, 0);
    expect_fault(&s, VIRTQ_FAULT_INDIRECT_NOT_AGREED);
    tear_down(&s);
}

static void indirect_nested(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, true);
    set_desc(&s, 0, BUFFERS_AT, 16, DRIVER_DESC_INDIRECT, 0);
    memcpy(s.base + BUFFERS_AT, &(struct driver_desc){BUFFERS_AT, 16, DRIVER_DESC_INDIRECT, 0}, 16);
    expect_fault(&s, VIRTQ_FAULT_INDIRECT_NESTED);
    tear_down(&s);
    set_up(&s, false, true); /* and NEXT together with INDIRECT */
    set_desc(&s, 0, BUFFERS_AT, 16, DRIVER_DESC_INDIRECT | DRIVER_DESC_NEXT, 1);
    expect_fault(&s, VIRTQ_FAULT_INDIRECT_NESTED);
    tear_down(&s);
}

static void indirect_size(void **state)
{
    const uint32_t sizes[] = {0, 1, 15, 17, UINT32_MAX};
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        set_up(&s, false, true);
        set_desc(&s, 0, BUFFERS_AT, sizes[i], DRIVER_DESC_INDIRECT, 0);
        expect_fault(&s, VIRTQ_FAULT_INDIRECT_SIZE);
        tear_down(&s);
    }
}

static void indirect_outside(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, true);
    set_desc(&s, 0, MEMORY_BYTES - 16, 32, DRIVER_DESC_INDIRECT, 0);
    expect_fault(&s, VIRTQ_FAULT_INDIRECT_OUTSIDE);
    tear_down(&s);
    set_up(&s, false, true);
    set_desc(&s, 0, BUFFERS_AT, 0xfffffff0U, DRIVER_DESC_INDIRECT, 0);
    expect_fault(&s, VIRTQ_FAULT_INDIRECT_OUTSIDE);
    tear_down(&s);
}

static void buffer_outside(void **state)
{
    const struct {
        uint64_t address;
        uint32_t bytes;
    } cases[] = {
        {MEMORY_BYTES, 1},     /* right behind */
        {MEMORY_BYTES - 1, 2}, /* over the end */
        {SECOND_BASE - 1, 2},  /* from the hole into the second region */
        {SECOND_BASE + MIB - 1, 2},
        {0, UINT32_MAX}, /* 4 GiB, from a place that is there */
        {UINT64_MAX, 1},
        {UINT64_MAX, 2}, /* wraps around 2^64 */
        {UINT64_MAX - 0xffffffffULL, UINT32_MAX},
        {0xc0001000, 8},                   /* a device's registers */
        {UINT64_MAX - 7, 16 + BUFFERS_AT}, /* wraps, and ends in a place that is there */
    };
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
        for (unsigned flags = 0; flags <= DRIVER_DESC_WRITE; flags += DRIVER_DESC_WRITE) {
            set_up(&s, false, false);
            set_desc(&s, 0, cases[i].address, cases[i].bytes, flags, 0);
            expect_fault(&s, VIRTQ_FAULT_BUFFER_OUTSIDE);
            assert_int_equal(s.queue.fault_detail, cases[i].address);
            tear_down(&s);
        }
    }
    set_up(&s, false, false); /* the last byte is there */
    set_desc(&s, 0, SECOND_BASE + MIB - 1, 1, 0, 0);
    driver_offer(&s.driver, 0);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    tear_down(&s);
}

static void buffer_empty(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 0, 0, 0);
    expect_fault(&s, VIRTQ_FAULT_BUFFER_EMPTY);
    tear_down(&s);
}

static void read_after_write(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 8, DRIVER_DESC_WRITE | DRIVER_DESC_NEXT, 1);
    set_desc(&s, 1, BUFFERS_AT, 8, 0, 0);
    expect_fault(&s, VIRTQ_FAULT_READ_AFTER_WRITE);
    tear_down(&s);
}

static void every_fault_has_a_text(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VIRTQ_FAULT_COUNT; i++) {
        assert_true(strlen(virtq_fault_text((enum virtq_fault)i)) > 3);
    }
    assert_string_equal(virtq_fault_text((enum virtq_fault)9999), "unknown fault");
}

/* ---- A driver that changes its mind ----------------------------------------------------------- */

/* The chain holds copies: what the driver writes to the table after the pop does not matter. */
static void descriptors_changed_after_the_pop_do_not_count(void **state)
{
    struct setup s;
    char text[8] = "";

    (void)state;
    set_up(&s, false, false);
    memcpy(s.base + BUFFERS_AT, "before", 6);
    set_desc(&s, 0, BUFFERS_AT, 6, 0, 0);
    driver_offer(&s.driver, 0);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    set_desc(&s, 0, UINT64_MAX - 100, UINT32_MAX, 0, 0);
    assert_int_equal(virtq_chain_read(&s.chain, 0, text, sizeof(text)), 6);
    assert_string_equal(text, "before");
    tear_down(&s);
}

/* Firecracker 3149: a head that is offered again while the device has it is just another request. */
static void head_offered_twice_is_served_twice(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s, false, false);
    set_desc(&s, 0, BUFFERS_AT, 6, 0, 0);
    driver_offer(&s.driver, 0);
    driver_offer(&s.driver, 0);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 1);
    assert_int_equal(virtq_pop(&s.queue, &s.memory, &s.chain), 0);
    tear_down(&s);
}

/* Whatever is in the rings: every chain lies in guest memory, and nothing else is ever touched. */
static void check_chain(const struct setup *s)
{
    const unsigned count = s->chain.readable_count + s->chain.writable_count;
    uint64_t bytes = 0;

    assert_in_range(count, 1, SIZE);
    for (unsigned i = 0; i < count; i++) {
        const struct virtq_segment *segment = &s->chain.segments[i];
        const uint8_t *host = segment->host;
        bool inside = false;

        for (unsigned r = 0; r < s->memory.count; r++) {
            const struct guest_region *region = &s->memory.regions[r];

            inside = inside || (host >= region->host &&
                                host + segment->bytes <= region->host + region->range.bytes);
        }
        assert_true(inside);
        bytes += segment->bytes;
    }
    assert_int_equal(bytes, s->chain.readable_bytes + s->chain.writable_bytes);
}

static uint64_t random_address(struct seeded_random *random)
{
    switch (random_below(random, 6)) {
    case 0:
        return random_u64(random);
    case 1:
        return MEMORY_BYTES - random_below(random, 64);
    case 2:
        return SECOND_BASE + random_below(random, 2 * MIB) - 64;
    case 3:
        return QUEUE_AT + random_below(random, DRIVER_QUEUE_BYTES); /* the rings themselves */
    default:
        return BUFFERS_AT + random_below(random, MIB);
    }
}

/* @wild: one in so many has something wrong with it. */
static void random_desc(struct setup *s, struct seeded_random *random, uint64_t at, unsigned wild)
{
    static const uint32_t sizes[] = {0, 1, 16, 32, 4096, 65536, INT32_MAX, UINT32_MAX};
    struct driver_desc desc = {
        .address = BUFFERS_AT + random_below(random, MIB),
        .bytes = 1 + (uint32_t)random_below(random, 5000),
        .flags = random_below(random, 4) == 0 ? DRIVER_DESC_NEXT : 0,
        .next = (uint16_t)random_below(random, SIZE),
    };

    if (random_below(random, wild) == 0) {
        desc.address = random_address(random);
        desc.bytes = random_below(random, 2) ? sizes[random_below(random, ARRAY_SIZE(sizes))]
                                             : (uint32_t)(16 * random_below(random, 30));
        desc.flags = (uint16_t)random_below(random, random_below(random, 20) == 0 ? 65536 : 8);
        desc.next =
            (uint16_t)random_below(random, random_below(random, 20) == 0 ? 65536 : SIZE + 1);
    }
    memcpy(s->base + at, &desc, sizeof(desc));
}

static void random_hostile_driver(void **state)
{
    struct seeded_random random = random_from_seed("random_hostile_driver");
    const unsigned lives = rounds(10000);
    unsigned faults[VIRTQ_FAULT_COUNT] = {0};
    unsigned good = 0;
    unsigned told = 0;

    (void)state;
    for (unsigned life = 0; life < lives; life++) {
        struct setup s;

        if (life % 2500 == 0 && life > 0) {
            printf("  %u chains so far\n", good);
        }
        const unsigned wild = 1U << random_below(&random, 6);

        set_up(&s, random_below(&random, 2) != 0, random_below(&random, 4) != 0);
        for (unsigned i = 0; i < SIZE; i++) {
            random_desc(&s, &random, s.driver.desc + 16ULL * i, wild);
        }
        for (unsigned i = 0; i < 200; i++) {
            random_desc(&s, &random, BUFFERS_AT + 16ULL * random_below(&random, 65536), wild);
        }
        for (unsigned i = 0; i < 10; i++) {
            driver_offer(&s.driver, (uint16_t)random_below(&random, SIZE + (i == 9 ? 2 : 0)));
        }
        if (random_below(&random, 50) == 0) {
            *driver_avail_idx(&s.driver) = (uint16_t)random_u64(&random);
        }
        while (virtq_pop(&s.queue, &s.memory, &s.chain) == 1) {
            char byte = 'x';

            check_chain(&s);
            (void)virtq_chain_read(&s.chain, s.chain.readable_bytes - 1, &byte, 1);
            (void)virtq_chain_write(&s.chain, s.chain.writable_bytes - 1, &byte, 1);
            virtq_push(&s.queue, s.chain.head, (uint32_t)s.chain.writable_bytes);
            told += virtq_should_interrupt(&s.queue) ? 1 : 0;
            good++;
        }
        told += virtq_want_notification(&s.queue) ? 1 : 0;
        faults[s.queue.fault]++;
        tear_down(&s);
    }
    assert_true(good > 1000);
    assert_true(told > 100);
    for (unsigned i = VIRTQ_FAULT_AVAIL_JUMP; i < VIRTQ_FAULT_BAD_REQUEST; i++) {
        if (faults[i] == 0) { /* all that a ring can do wrong is to be tried */
            fail_msg("never seen: %s", virtq_fault_text((enum virtq_fault)i));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chain_of_readable_and_writable_parts),
        cmocka_unit_test(unpop_gives_the_same_chain_again),
        cmocka_unit_test(indices_wrap_around),
        cmocka_unit_test(chain_as_long_as_the_queue_is_allowed),
        cmocka_unit_test(interrupts_without_event_idx_follow_the_flag),
        cmocka_unit_test(interrupts_with_event_idx_follow_the_index),
        cmocka_unit_test(notification_is_asked_for_and_what_is_there_is_seen),
        cmocka_unit_test(bad_size),
        cmocka_unit_test(bad_alignment),
        cmocka_unit_test(ring_outside),
        cmocka_unit_test(avail_jump),
        cmocka_unit_test(bad_head),
        cmocka_unit_test(bad_next),
        cmocka_unit_test(descriptor_loop),
        cmocka_unit_test(indirect_not_agreed),
        cmocka_unit_test(indirect_nested),
        cmocka_unit_test(indirect_size),
        cmocka_unit_test(indirect_outside),
        cmocka_unit_test(buffer_outside),
        cmocka_unit_test(buffer_empty),
        cmocka_unit_test(read_after_write),
        cmocka_unit_test(every_fault_has_a_text),
        cmocka_unit_test(descriptors_changed_after_the_pop_do_not_count),
        cmocka_unit_test(head_offered_twice_is_served_twice),
        cmocka_unit_test(random_hostile_driver),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
