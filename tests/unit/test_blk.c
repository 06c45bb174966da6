/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_blk.c: the blk actor, stepped by hand, with a driver that keeps to the rules and one that does
 * not.
 */
#include "actor_fixture.h"
#include "seeded_random.h"
#include "virtio_driver.h"

#include <fcntl.h>
#include <sys/mman.h>

#include "actors/blk.h"

#define MEMORY_BYTES (8 * MIB)
#define QUEUE_AT 0x1000U
#define HEADER_AT 0x200000U
#define STATUS_AT 0x201000U
#define DATA_AT 0x300000U
#define IMAGE_BYTES (100 * 512 + 100) /* the last sector is not whole */
#define SECTORS 101

struct setup {
    struct fixture fixture;
    struct guest_memory memory;
    uint8_t *base;
    struct blk blk;
    struct driver_queue queue;
    uint8_t image[SECTORS * 512]; /* as the guest should see it */
    int image_fd;
};

static void put(void *context, uint32_t offset, uint32_t value)
{
    struct setup *s = context;

    fixture_write(&s->fixture, FIXTURE_VCPU0, offset, 4, value);
}

static void bring_up(struct setup *s)
{
    driver_queue_init(&s->queue, s->base, QUEUE_AT, 64, true, true);
    driver_agree(put, s, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC);
    driver_setup_queue(put, s, 0, &s->queue);
    driver_go(put, s);
    (void)driver_want_interrupt(&s->queue);
}

static struct setup *set_up(void)
{
    const struct guest_range range = {gpa(0), MEMORY_BYTES};
    struct setup *s = calloc(1, sizeof(*s));
    struct seeded_random random = {1};
    struct bvmm_error err;

    assert_non_null(s);
    fixture_init(&s->fixture, ACTOR_BLK);
    assert_int_equal(guest_memory_init(&s->memory, &range, 1, &err), 0);
    s->base = s->memory.regions[0].host;
    random_fill(&random, s->image, IMAGE_BYTES);
    s->image_fd = memfd_create("image", MFD_CLOEXEC);
    assert_true(s->image_fd >= 0);
    assert_int_equal(write(s->image_fd, s->image, IMAGE_BYTES), IMAGE_BYTES);
    blk_init(&s->blk, &s->fixture.actors[FIXTURE_DEVICE], s->fixture.irq_fd, &s->memory,
             s->image_fd, IMAGE_BYTES, "bvmm-blk0");
    bring_up(s);
    return s;
}

static void tear_down(struct setup *s)
{
    fixture_fini(&s->fixture);
    guest_memory_fini(&s->memory);
    (void)close(s->image_fd);
    free(s);
}

/* Offer a request: header, `data` buffers, status; the driver is lazy about notifications. */
static void offer(struct setup *s, uint32_t type, uint64_t sector, const struct driver_buffer *data,
                  unsigned count, bool indirect)
{
    struct driver_buffer buffers[32];
    const uint32_t header[4] = {type, 0, (uint32_t)sector, (uint32_t)(sector >> 32)};

    assert_true(count + 2 <= ARRAY_SIZE(buffers));
    memcpy(s->base + HEADER_AT, header, sizeof(header));
    s->base[STATUS_AT] = 0xff;
    buffers[0] = (struct driver_buffer){HEADER_AT, 16, false};
    memcpy(buffers + 1, data, count * sizeof(*data));
    buffers[count + 1] = (struct driver_buffer){STATUS_AT, 1, true};
    driver_offer(&s->queue, driver_chain(&s->queue, buffers, count + 2, indirect));
    if (driver_must_kick(&s->queue)) {
        fixture_step(&s->fixture);
    }
}

/* ... and take it back: it must have been interrupted for. Return: bytes written. */
static uint32_t complete(struct setup *s)
{
    uint16_t head = 0;
    uint32_t bytes = 0;

    assert_true(fixture_interrupts(&s->fixture) > 0);
    put(s, VIRTIO_MMIO_INTERRUPT_ACK, 1);
    assert_true(driver_take_used(&s->queue, &head, &bytes));
    assert_false(driver_want_interrupt(&s->queue));
    return bytes;
}

static uint8_t request(struct setup *s, uint32_t type, uint64_t sector, uint32_t bytes,
                       bool writable)
{
    const struct driver_buffer data = {DATA_AT, bytes, writable};

    offer(s, type, sector, &data, bytes > 0 ? 1 : 0, false);
    (void)complete(s);
    return s->base[STATUS_AT];
}

static void configuration(void **state)
{
    struct setup *s = set_up();

    (void)state;
    assert_int_equal(fixture_read(&s->fixture, FIXTURE_VCPU0, VIRTIO_MMIO_DEVICE_ID, 4), 2);
    assert_int_equal(fixture_read(&s->fixture, FIXTURE_VCPU0, VIRTIO_MMIO_CONFIG_OFFSET, 8),
                     SECTORS);
    put(s, VIRTIO_MMIO_DEVICE_FEATURES_SEL, 0);
    assert_true(fixture_read(&s->fixture, FIXTURE_VCPU0, VIRTIO_MMIO_DEVICE_FEATURES, 4) & 1U << 5);
    tear_down(s);
}

static void every_sector_reads_as_it_is(void **state)
{
    struct setup *s = set_up();

    (void)state;
    for (unsigned sector = 0; sector < SECTORS; sector++) {
        memset(s->base + DATA_AT, 0xaa, 512);
        assert_int_equal(request(s, 0, sector, 512, true), 0);
        assert_memory_equal(s->base + DATA_AT, s->image + 512UL * sector, 512);
    }
    memset(s->base + DATA_AT, 0xaa, sizeof(s->image));
    assert_int_equal(request(s, 0, 0, sizeof(s->image), true), 0);
    assert_memory_equal(s->base + DATA_AT, s->image, sizeof(s->image)); /* the end as zeros */
    tear_down(s);
}

static void read_into_many_segments(void **state)
{
    struct setup *s = set_up();
    struct seeded_random random = random_from_seed("read_into_many_segments");

    (void)state;
    for (unsigned round = 0; round < 200; round++) {
        struct driver_buffer data[20];
        const unsigned sectors = 1 + (unsigned)random_below(&random, 40);
        const uint64_t first = random_below(&random, SECTORS - sectors + 1);
        uint32_t left = sectors * 512;
        unsigned count = 0;
        uint64_t address = DATA_AT;

        while (left > 0) {
            const uint32_t part =
                count == 19 ? left : 1 + (uint32_t)random_below(&random, left < 3000 ? left : 3000);

            data[count++] = (struct driver_buffer){address, part, true};
            address += part + random_below(&random, 100);
            left -= part;
        }
        offer(s, 0, first, data, count, random_below(&random, 2) != 0);
        assert_int_equal(complete(s), sectors * 512 + 1);
        assert_int_equal(s->base[STATUS_AT], 0);
        for (unsigned i = 0, at = 0; i < count; i++) {
            assert_memory_equal(s->base + data[i].address, s->image + first * 512 + at,
                                data[i].bytes);
            at += data[i].bytes;
        }
    }
    tear_down(s);
}

static void identity_is_20_bytes(void **state)
{
    struct setup *s = set_up();

    (void)state;
    memset(s->base + DATA_AT, 0xaa, 64);
    assert_int_equal(request(s, 8, 0, 20, true), 0);
    assert_memory_equal(s->base + DATA_AT, "bvmm-blk0\0\0\0\0\0\0\0\0\0\0\0\xaa", 21);
    memset(s->base + DATA_AT, 0xaa, 64);
    assert_int_equal(request(s, 8, 0, 4, true), 0); /* a buffer that is too small gets a part */
    assert_memory_equal(s->base + DATA_AT, "bvmm\xaa", 5);
    tear_down(s);
}

static void nothing_can_be_written(void **state)
{
    const uint32_t types[] = {1, 11, 13};
    struct setup *s = set_up();
    uint8_t before[IMAGE_BYTES];

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        memset(s->base + DATA_AT, 0x55, 512);
        assert_int_equal(request(s, types[i], 0, 512, false), 1); /* IOERR */
    }
    assert_int_equal(pread(s->image_fd, before, IMAGE_BYTES, 0), IMAGE_BYTES);
    assert_memory_equal(before, s->image, IMAGE_BYTES);
    assert_int_equal(request(s, 4, 0, 0, false), 0); /* FLUSH: there is nothing to flush */
    assert_int_equal(s->fixture.actors[FIXTURE_DEVICE].stats->request_errors, 3);
    tear_down(s);
}

static void unknown_requests_are_unsupported(void **state)
{
    const uint32_t types[] = {2, 3, 5, 7, 9, 10, 12, 14, 0x80000000U, UINT32_MAX};
    struct setup *s = set_up();

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(types); i++) {
        assert_int_equal(request(s, types[i], 0, 512, true), 2);
    }
    tear_down(s);
}

static void read_past_the_end_is_an_error(void **state)
{
    struct setup *s = set_up();

    (void)state;
    assert_int_equal(request(s, 0, SECTORS, 512, true), 1);
    assert_int_equal(request(s, 0, SECTORS - 1, 1024, true), 1);
    assert_int_equal(request(s, 0, UINT64_MAX, 512, true), 1);
    assert_int_equal(request(s, 0, UINT64_MAX / 512, 512, true), 1);
    assert_int_equal(request(s, 0, UINT64_MAX / 512 + 1, 512, true), 1); /* times 512 it wraps */
    assert_int_equal(request(s, 0, 1ULL << 55, 512, true), 1);
    assert_int_equal(request(s, 0, 0, 100, true), 1); /* not whole sectors */
    assert_int_equal(request(s, 0, 0, 512, true), 0);
    tear_down(s);
}

/* Somebody truncated the image while the guest runs: what is left can be read, and nothing else. */
static void image_that_shrank_has_an_end(void **state)
{
    struct setup *s = set_up();

    (void)state;
    assert_int_equal(ftruncate(s->image_fd, 512 * 10 + 5), 0);
    assert_int_equal(request(s, 0, 9, 512, true), 0);
    assert_memory_equal(s->base + DATA_AT, s->image + 9UL * 512, 512);
    assert_int_equal(request(s, 0, 9, 2048, true), 1);
    assert_int_equal(request(s, 0, 10, 512, true), 1);
    assert_int_equal(request(s, 0, 90, 512, true), 1);
    tear_down(s);
}

/* A host's error is the guest's IOERR. */
static void image_that_cannot_be_read_is_an_error(void **state)
{
    struct setup *s = set_up();
    const int fd = open("/", O_PATH | O_CLOEXEC);

    (void)state;
    assert_true(fd >= 0);
    s->blk.image_fd = fd;
    assert_int_equal(request(s, 0, 0, 512, true), 1);
    (void)close(fd);
    tear_down(s);
}

/* ---- Requests that are none ------------------------------------------------------------------- */

static void expect_broken(struct setup *s, enum virtq_fault fault)
{
    const struct msg msg = fixture_expect(&s->fixture, FIXTURE_SUPERVISOR, MSG_DEVICE_BROKEN);

    assert_int_equal(msg.broken.fault, fault);
    assert_true(fixture_read(&s->fixture, FIXTURE_VCPU0, VIRTIO_MMIO_STATUS, 4) &
                VIRTIO_STATUS_NEEDS_RESET);
    bring_up(s); /* and after a reset all is well */
    assert_int_equal(request(s, 0, 0, 512, true), 0);
}

static void offer_raw(struct setup *s, const struct driver_buffer *buffers, unsigned count)
{
    driver_offer(&s->queue, driver_chain(&s->queue, buffers, count, false));
    (void)driver_must_kick(&s->queue);
    fixture_step(&s->fixture);
}

static void request_without_header_or_status_breaks_the_device(void **state)
{
    struct setup *s = set_up();
    const struct driver_buffer short_header[] = {{HEADER_AT, 15, false}, {STATUS_AT, 1, true}};
    const struct driver_buffer no_status[] = {{HEADER_AT, 16, false}};
    const struct driver_buffer no_header[] = {{STATUS_AT, 1, true}};
    const struct driver_buffer outside[] = {{HEADER_AT, 16, false}, {MEMORY_BYTES - 1, 2, true}};

    (void)state;
    offer_raw(s, short_header, 2);
    expect_broken(s, VIRTQ_FAULT_BAD_REQUEST);
    offer_raw(s, no_status, 1);
    expect_broken(s, VIRTQ_FAULT_BAD_REQUEST);
    offer_raw(s, no_header, 1);
    expect_broken(s, VIRTQ_FAULT_BAD_REQUEST);
    offer_raw(s, outside, 2);
    expect_broken(s, VIRTQ_FAULT_BUFFER_OUTSIDE);
    tear_down(s);
}

/* The supervisor is told of a device that breaks a few times; not for ever. */
static void device_that_breaks_for_ever_is_told_a_few_times(void **state)
{
    struct setup *s = set_up();
    const struct driver_buffer no_status[] = {{HEADER_AT, 16, false}};
    struct msg msg;
    unsigned told = 0;

    (void)state;
    for (unsigned i = 0; i < 200; i++) {
        offer_raw(s, no_status, 1);
        bring_up(s);
    }
    while (mailbox_take(s->fixture.actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
        told++;
    }
    assert_int_equal(told, DEVICE_FAULTS_TOLD_MAX);
    assert_int_equal(s->fixture.actors[FIXTURE_DEVICE].stats->queue_faults, 200);
    tear_down(s);
}

/* Header and status may be cut up, and the status may share a buffer with data. */
static void layout_of_a_request_is_the_drivers_choice(void **state)
{
    struct setup *s = set_up();
    const uint32_t header[4] = {0, 0, 3, 0};
    const struct driver_buffer buffers[] = {
        {HEADER_AT, 1, false},
        {HEADER_AT + 1, 8, false},
        {HEADER_AT + 9, 7, false},
        {DATA_AT, 513, true},
    };

    (void)state;
    memcpy(s->base + HEADER_AT, header, sizeof(header));
    s->base[DATA_AT + 512] = 0xff;
    offer_raw(s, buffers, 4);
    assert_int_equal(complete(s), 513);
    assert_memory_equal(s->base + DATA_AT, s->image + 3UL * 512, 512);
    assert_int_equal(s->base[DATA_AT + 512], 0);
    tear_down(s);
}

static void random_requests(void **state)
{
    struct seeded_random random = random_from_seed("random_requests");
    struct setup *s = set_up();
    struct msg msg;

    (void)state;
    for (unsigned i = 0; i < 20000; i++) {
        struct driver_buffer data[8];
        const unsigned count = (unsigned)random_below(&random, 8);

        for (unsigned k = 0; k < count; k++) {
            data[k] = (struct driver_buffer){random_below(&random, MEMORY_BYTES),
                                             (uint32_t)random_below(&random, 2000),
                                             k * 2 >= count || random_below(&random, 2)};
        }
        offer(s, (uint32_t)random_below(&random, 16), random_below(&random, SECTORS * 2), data,
              count, random_below(&random, 2) != 0);
        if (random_below(&random, 100) == 0) {
            random_fill(&random, s->base + QUEUE_AT, random_below(&random, 2000));
            fixture_step(&s->fixture);
        }
        bring_up(s);
        while (mailbox_take(s->fixture.actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
        }
    }
    assert_int_equal(request(s, 0, 0, 512, true), 0);
    tear_down(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configuration),
        cmocka_unit_test(every_sector_reads_as_it_is),
        cmocka_unit_test(read_into_many_segments),
        cmocka_unit_test(identity_is_20_bytes),
        cmocka_unit_test(nothing_can_be_written),
        cmocka_unit_test(unknown_requests_are_unsupported),
        cmocka_unit_test(read_past_the_end_is_an_error),
        cmocka_unit_test(image_that_shrank_has_an_end),
        cmocka_unit_test(image_that_cannot_be_read_is_an_error),
        cmocka_unit_test(request_without_header_or_status_breaks_the_device),
        cmocka_unit_test(device_that_breaks_for_ever_is_told_a_few_times),
        cmocka_unit_test(layout_of_a_request_is_the_drivers_choice),
        cmocka_unit_test(random_requests),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
