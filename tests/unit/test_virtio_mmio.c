/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_virtio_mmio.c: the registers of a virtio-mmio device: the state machine of section 3.1.1, and
 * all the ways around it that a driver might try.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "seeded_random.h"
#include "virtio_driver.h"

#define MEMORY_BYTES (2 * MIB)
#define FEATURES (VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | 4)
#define QUEUES 2

struct setup {
    struct guest_memory memory;
    struct virtio_mmio mmio;
    struct driver_queue queues[QUEUES];
    uint8_t config[6];
    unsigned activations, resets, interrupts, breaks;
    enum virtq_fault fault;
    unsigned broken_queue;
};

static void on_activate(void *device)
{
    struct setup *s = device;

    s->activations++;
}

static void on_reset(void *device)
{
    struct setup *s = device;

    s->resets++;
}

static void on_interrupt(void *device)
{
    struct setup *s = device;

    s->interrupts++;
}

static void on_broken(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail)
{
    struct setup *s = device;

    (void)detail;
    s->breaks++;
    s->fault = fault;
    s->broken_queue = queue;
}

static const struct virtio_device_ops ops = {
    .activate = on_activate,
    .reset = on_reset,
    .interrupt = on_interrupt,
    .broken = on_broken,
};

static void set_up(struct setup *s)
{
    const struct guest_range range = {gpa(0), MEMORY_BYTES};
    struct bvmm_error err;

    memset(s, 0, sizeof(*s));
    assert_int_equal(guest_memory_init(&s->memory, &range, 1, &err), 0);
    memcpy(s->config, "\x01\x02\x03\x04\x05\x06", 6);
    s->mmio = (struct virtio_mmio){
        .device_id = 42,
        .device_features = FEATURES,
        .config = s->config,
        .config_bytes = sizeof(s->config),
        .queue_count = QUEUES,
        .memory = &s->memory,
        .ops = &ops,
        .device = s,
    };
    for (unsigned i = 0; i < QUEUES; i++) {
        driver_queue_init(&s->queues[i], s->memory.regions[0].host, 0x1000 + i * DRIVER_QUEUE_BYTES,
                          16, true, false);
    }
}

static void tear_down(struct setup *s)
{
    guest_memory_fini(&s->memory);
}

static uint32_t get(struct setup *s, uint32_t offset)
{
    return (uint32_t)virtio_mmio_read(&s->mmio, offset, 4);
}

static void put(void *context, uint32_t offset, uint32_t value)
{
    struct setup *s = context;

    virtio_mmio_write(&s->mmio, offset, 4, value);
}

static void bring_up(struct setup *s)
{
    driver_agree(put, s, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX);
    driver_setup_queue(put, s, 0, &s->queues[0]);
    driver_setup_queue(put, s, 1, &s->queues[1]);
    driver_go(put, s);
}

/* ---- What the driver reads -------------------------------------------------------------------- */

static void identity(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    assert_int_equal(get(&s, VIRTIO_MMIO_MAGIC_VALUE), 0x74726976);
    assert_int_equal(get(&s, VIRTIO_MMIO_VERSION), 2);
    assert_int_equal(get(&s, VIRTIO_MMIO_DEVICE_ID), 42);
    assert_int_equal(get(&s, VIRTIO_MMIO_QUEUE_NUM_MAX), VIRTQ_SIZE_MAX);
    assert_int_equal(get(&s, VIRTIO_MMIO_CONFIG_GENERATION), 0);
    assert_int_equal(get(&s, VIRTIO_MMIO_SHM_LEN_LOW), UINT32_MAX); /* no such region */
    put(&s, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    assert_int_equal(get(&s, VIRTIO_MMIO_DEVICE_FEATURES), (uint32_t)FEATURES);
    put(&s, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 1);
    assert_int_equal(get(&s, VIRTIO_MMIO_DEVICE_FEATURES), FEATURES >> 32);
    put(&s, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 2);
    assert_int_equal(get(&s, VIRTIO_MMIO_DEVICE_FEATURES), 0);
    put(&s, VIRTIO_MMIO_DEVICE_FEATURES_SEL, UINT32_MAX);
    assert_int_equal(get(&s, VIRTIO_MMIO_DEVICE_FEATURES), 0);
    tear_down(&s);
}

static void only_accesses_of_4_bytes_count(void **state)
{
    const unsigned widths[] = {1, 2, 8};
    struct setup s;

    (void)state;
    set_up(&s);
    for (unsigned i = 0; i < ARRAY_SIZE(widths); i++) {
        assert_int_equal(virtio_mmio_read(&s.mmio, VIRTIO_MMIO_MAGIC_VALUE, widths[i]), 0);
        virtio_mmio_write(&s.mmio, VIRTIO_MMIO_STATUS, widths[i], VIRTIO_STATUS_ACKNOWLEDGE);
        assert_int_equal(get(&s, VIRTIO_MMIO_STATUS), 0);
    }
    assert_int_equal(virtio_mmio_read(&s.mmio, 2, 4), 0);
    tear_down(&s);
}

static void configuration_can_be_read_at_any_width_and_not_behind_its_end(void **state)
{
    const uint32_t at = VIRTIO_MMIO_CONFIG_OFFSET;
    struct setup s;

    (void)state;
    set_up(&s);
    assert_int_equal(virtio_mmio_read(&s.mmio, at, 1), 0x01);
    assert_int_equal(virtio_mmio_read(&s.mmio, at + 5, 1), 0x06);
    assert_int_equal(virtio_mmio_read(&s.mmio, at + 4, 2), 0x0605);
    assert_int_equal(virtio_mmio_read(&s.mmio, at, 4), 0x04030201);
    assert_int_equal(virtio_mmio_read(&s.mmio, at + 6, 1), 0);
    assert_int_equal(virtio_mmio_read(&s.mmio, at + 5, 2), 0);
    assert_int_equal(virtio_mmio_read(&s.mmio, at + 3, 4), 0);
    assert_int_equal(virtio_mmio_read(&s.mmio, at, 8), 0);
    assert_int_equal(virtio_mmio_read(&s.mmio, UINT32_MAX, 8), 0);
    virtio_mmio_write(&s.mmio, at, 4, 0xffffffff);
    assert_int_equal(virtio_mmio_read(&s.mmio, at, 4), 0x04030201);
    tear_down(&s);
}

/* ---- Status and features ---------------------------------------------------------------------- */

static void initialisation_in_order_activates_once(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    bring_up(&s);
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS), 15);
    assert_int_equal(s.activations, 1);
    assert_true(virtio_mmio_queue_live(&s.mmio, 0));
    assert_true(virtio_mmio_queue_live(&s.mmio, 1));
    driver_go(put, &s);
    assert_int_equal(s.activations, 1);
    put(&s, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_ACKNOWLEDGE); /* bits do not go away */
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS), 15);
    tear_down(&s);
}

static void features_that_were_not_offered_are_not_accepted(void **state)
{
    const uint64_t bad[] = {0, VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 | 8,
                            VIRTIO_F_VERSION_1 | 1ULL << 63,
                            VIRTIO_F_VERSION_1 | VIRTIO_F_INDIRECT_DESC};
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
        set_up(&s);
        driver_agree(put, &s, bad[i]);
        assert_int_equal(get(&s, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK, 0);
        driver_setup_queue(put, &s, 0, &s.queues[0]);
        assert_int_equal(get(&s, VIRTIO_MMIO_QUEUE_READY), 0);
        driver_go(put, &s); /* and DRIVER_OK alone is of no use */
        assert_int_equal(s.activations, 0);
        assert_false(virtio_mmio_queue_live(&s.mmio, 0));
        tear_down(&s);
    }
}

static void features_are_fixed_by_features_ok(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    driver_agree(put, &s, VIRTIO_F_VERSION_1);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 0);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 7);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES, UINT32_MAX);
    assert_int_equal(s.mmio.driver_features, VIRTIO_F_VERSION_1);
    tear_down(&s);
}

static void features_ok_needs_a_driver_and_driver_ok_needs_features_ok(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1);
    put(&s, VIRTIO_MMIO_DRIVER_FEATURES, 1);
    put(&s, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_FEATURES_OK);
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_FEATURES_OK, 0);
    put(&s, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_DRIVER_OK);
    assert_int_equal(s.activations, 0);
    put(&s, VIRTIO_MMIO_STATUS, VIRTIO_STATUS_NEEDS_RESET); /* is ours to set */
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET, 0);
    put(&s, VIRTIO_MMIO_STATUS, UINT32_MAX);
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS) & ~0xffU, 0);
    tear_down(&s);
}

static void reset_puts_everything_back(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    bring_up(&s);
    s.mmio.interrupt_status = 1;
    put(&s, VIRTIO_MMIO_STATUS, 0);
    assert_int_equal(s.resets, 2); /* one is part of driver_agree() */
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS), 0);
    assert_int_equal(get(&s, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    assert_int_equal(s.mmio.driver_features, 0);
    for (unsigned i = 0; i < QUEUES; i++) {
        assert_false(virtio_mmio_queue_live(&s.mmio, i));
        assert_false(s.mmio.queues[i].active);
        assert_int_equal(s.mmio.queues[i].size, 0);
        assert_int_equal(s.mmio.queues[i].desc.v, 0);
    }
    bring_up(&s);
    assert_int_equal(s.activations, 2);
    tear_down(&s);
}

/* ---- Queues ----------------------------------------------------------------------------------- */

/* CVE-2026-5747 of another VMM: a queue's size changed after activation. */
static void nothing_of_a_queue_changes_after_activation(void **state)
{
    const uint32_t registers[] = {
        VIRTIO_MMIO_QUEUE_NUM,         VIRTIO_MMIO_QUEUE_DESC_LOW,    VIRTIO_MMIO_QUEUE_DESC_HIGH,
        VIRTIO_MMIO_QUEUE_DRIVER_LOW,  VIRTIO_MMIO_QUEUE_DRIVER_HIGH, VIRTIO_MMIO_QUEUE_DEVICE_LOW,
        VIRTIO_MMIO_QUEUE_DEVICE_HIGH, VIRTIO_MMIO_QUEUE_READY,
    };
    struct setup s;
    struct virtq before;

    (void)state;
    set_up(&s);
    bring_up(&s);
    for (unsigned queue = 0; queue < QUEUES; queue++) {
        put(&s, VIRTIO_MMIO_QUEUE_SEL, queue);
        before = s.mmio.queues[queue];
        for (unsigned i = 0; i < ARRAY_SIZE(registers); i++) {
            put(&s, registers[i], 64);
            put(&s, registers[i], UINT32_MAX);
        }
        assert_memory_equal(&before, &s.mmio.queues[queue], sizeof(before));
    }
    tear_down(&s);
}

static void nothing_of_a_queue_changes_before_features_ok_or_while_it_is_ready(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    put(&s, VIRTIO_MMIO_QUEUE_NUM, 16);
    put(&s, VIRTIO_MMIO_QUEUE_READY, 1);
    assert_int_equal(s.mmio.queues[0].size, 0);
    assert_int_equal(get(&s, VIRTIO_MMIO_QUEUE_READY), 0);
    driver_agree(put, &s, VIRTIO_F_VERSION_1);
    driver_setup_queue(put, &s, 0, &s.queues[0]);
    put(&s, VIRTIO_MMIO_QUEUE_NUM, 32);
    put(&s, VIRTIO_MMIO_QUEUE_DESC_LOW, 0x9990);
    assert_int_equal(s.mmio.queues[0].size, 16);
    assert_int_equal(s.mmio.queues[0].desc.v, s.queues[0].desc);
    put(&s, VIRTIO_MMIO_QUEUE_READY, 0); /* then it may be set up anew */
    put(&s, VIRTIO_MMIO_QUEUE_NUM, 32);
    assert_int_equal(s.mmio.queues[0].size, 32);
    tear_down(&s);
}

static void queue_that_is_too_large_breaks_the_device_when_it_starts(void **state)
{
    const uint32_t sizes[] = {0, 3, 257, 512, 65536 + 16, UINT32_MAX};
    struct setup s;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
        set_up(&s);
        driver_agree(put, &s, VIRTIO_F_VERSION_1);
        driver_setup_queue(put, &s, 0, &s.queues[0]);
        put(&s, VIRTIO_MMIO_QUEUE_READY, 0);
        put(&s, VIRTIO_MMIO_QUEUE_NUM, sizes[i]);
        put(&s, VIRTIO_MMIO_QUEUE_READY, 1);
        driver_go(put, &s);
        assert_int_equal(s.breaks, 1);
        assert_int_equal(s.fault, VIRTQ_FAULT_BAD_SIZE);
        assert_int_equal(s.activations, 0);
        assert_true(get(&s, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
        assert_false(virtio_mmio_queue_live(&s.mmio, 0));
        tear_down(&s);
    }
}

/* Cloud Hypervisor 7917: a queue selector out of range. */
static void selector_out_of_range_selects_nothing(void **state)
{
    const uint32_t selectors[] = {QUEUES, VIRTIO_QUEUES_MAX, 3, 255, 65536, UINT32_MAX};
    struct setup s;
    struct virtq before[VIRTIO_QUEUES_MAX];

    (void)state;
    set_up(&s);
    driver_agree(put, &s, VIRTIO_F_VERSION_1);
    memcpy(before, s.mmio.queues, sizeof(before));
    for (unsigned i = 0; i < ARRAY_SIZE(selectors); i++) {
        driver_setup_queue(put, &s, selectors[i], &s.queues[0]);
        assert_int_equal(get(&s, VIRTIO_MMIO_QUEUE_NUM_MAX), 0);
        assert_int_equal(get(&s, VIRTIO_MMIO_QUEUE_READY), 0);
        put(&s, VIRTIO_MMIO_QUEUE_READY, 0);
    }
    assert_memory_equal(before, s.mmio.queues, sizeof(before));
    tear_down(&s);
}

/* After QueueReady = 0 the driver may use the rings' memory for something else. */
static void queue_that_is_not_ready_is_not_touched(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    bring_up(&s);
    put(&s, VIRTIO_MMIO_QUEUE_SEL, 1);
    put(&s, VIRTIO_MMIO_QUEUE_READY, 0);
    assert_true(virtio_mmio_queue_live(&s.mmio, 0));
    assert_false(virtio_mmio_queue_live(&s.mmio, 1));
    virtq_push(&s.mmio.queues[1], 0, 0);
    assert_int_equal(*driver_u16(&s.queues[1], s.queues[1].used + 2), 0);
    put(&s, VIRTIO_MMIO_QUEUE_READY, 1); /* not while DRIVER_OK stands */
    assert_false(virtio_mmio_queue_live(&s.mmio, 1));
    tear_down(&s);
}

/* ---- Interrupts and faults -------------------------------------------------------------------- */

static void interrupt_status_is_set_and_acknowledged(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    bring_up(&s);
    virtio_mmio_notify_used(&s.mmio, 0);
    assert_int_equal(s.interrupts, 0); /* nothing was used */
    virtq_push(&s.mmio.queues[0], 0, 0);
    virtio_mmio_notify_used(&s.mmio, 0);
    assert_int_equal(s.interrupts, 1);
    assert_int_equal(get(&s, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    put(&s, VIRTIO_MMIO_INTERRUPT_ACK, 2);
    assert_int_equal(get(&s, VIRTIO_MMIO_INTERRUPT_STATUS), 1);
    put(&s, VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_int_equal(get(&s, VIRTIO_MMIO_INTERRUPT_STATUS), 0);
    tear_down(&s);
}

static void broken_queue_is_told_once_and_ends_with_a_reset(void **state)
{
    struct setup s;

    (void)state;
    set_up(&s);
    bring_up(&s);
    s.mmio.queues[1].fault = VIRTQ_FAULT_BAD_HEAD;
    virtio_mmio_fail(&s.mmio, 1);
    virtio_mmio_fail(&s.mmio, 1);
    virtio_mmio_fail(&s.mmio, 0);
    assert_int_equal(s.breaks, 1);
    assert_int_equal(s.broken_queue, 1);
    assert_int_equal(s.fault, VIRTQ_FAULT_BAD_HEAD);
    assert_int_equal(s.interrupts, 1);
    assert_int_equal(get(&s, VIRTIO_MMIO_INTERRUPT_STATUS), 2); /* configuration change */
    assert_true(get(&s, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
    assert_false(virtio_mmio_queue_live(&s.mmio, 0));
    driver_go(put, &s); /* does not help */
    assert_false(virtio_mmio_queue_live(&s.mmio, 0));
    bring_up(&s);
    assert_true(virtio_mmio_queue_live(&s.mmio, 0));
    assert_int_equal(get(&s, VIRTIO_MMIO_STATUS), 15);
    tear_down(&s);
}

/* Any sequence of register accesses: only queues with good rings are ever live. */
static void random_register_accesses(void **state)
{
    struct seeded_random random = random_from_seed("random_register_accesses");
    struct setup s;
    unsigned lives = 0;

    (void)state;
    set_up(&s);
    for (unsigned i = 0; i < 300000; i++) {
        const uint32_t offset = (uint32_t)random_below(&random, 0x120) & ~3U;
        const uint32_t value = random_below(&random, 2) ? (uint32_t)random_below(&random, 32)
                                                        : (uint32_t)random_u64(&random);

        if (random_below(&random, 50) == 0) {
            bring_up(&s);
        }
        if (random_below(&random, 2) == 0) {
            put(&s, offset, value);
        } else {
            (void)virtio_mmio_read(&s.mmio, offset, 1U << random_below(&random, 4));
        }
        for (unsigned queue = 0; queue < QUEUES; queue++) {
            const struct virtq *q = &s.mmio.queues[queue];

            if (virtio_mmio_queue_live(&s.mmio, queue)) {
                lives++;
                assert_true(q->size > 0 && q->size <= VIRTQ_SIZE_MAX);
                assert_int_equal(q->size & (q->size - 1), 0);
                assert_ptr_equal(q->desc_host,
                                 guest_memory_at(&s.memory, q->desc, 16ULL * q->size));
                assert_non_null(q->used_host);
            }
        }
    }
    assert_true(lives > 1000);
    tear_down(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(identity),
        cmocka_unit_test(only_accesses_of_4_bytes_count),
        cmocka_unit_test(configuration_can_be_read_at_any_width_and_not_behind_its_end),
        cmocka_unit_test(initialisation_in_order_activates_once),
        cmocka_unit_test(features_that_were_not_offered_are_not_accepted),
        cmocka_unit_test(features_are_fixed_by_features_ok),
        cmocka_unit_test(features_ok_needs_a_driver_and_driver_ok_needs_features_ok),
        cmocka_unit_test(reset_puts_everything_back),
        cmocka_unit_test(nothing_of_a_queue_changes_after_activation),
        cmocka_unit_test(nothing_of_a_queue_changes_before_features_ok_or_while_it_is_ready),
        cmocka_unit_test(queue_that_is_too_large_breaks_the_device_when_it_starts),
        cmocka_unit_test(selector_out_of_range_selects_nothing),
        cmocka_unit_test(queue_that_is_not_ready_is_not_touched),
        cmocka_unit_test(interrupt_status_is_set_and_acknowledged),
        cmocka_unit_test(broken_queue_is_told_once_and_ends_with_a_reset),
        cmocka_unit_test(random_register_accesses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
