/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * actor_fixture.h: a supervisor, one device and two vCPUs with real mailboxes, and no threads: the test
 * plays everybody, and steps the device by hand. Lanes are made from msg.h, as machine.c makes them.
 */
#ifndef BVMM_TESTS_ACTOR_FIXTURE_H
#define BVMM_TESTS_ACTOR_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "actors/actor.h"

enum fixture_actor {
    FIXTURE_SUPERVISOR,
    FIXTURE_DEVICE,
    FIXTURE_VCPU0,
    FIXTURE_VCPU1,
    FIXTURE_ACTORS
};

struct fixture {
    struct record *record;
    struct actor actors[FIXTURE_ACTORS];
    int irq_fd;
};

static inline void fixture_init(struct fixture *fixture, enum actor_class device)
{
    const enum actor_class classes[FIXTURE_ACTORS] = {ACTOR_SUPERVISOR, device, ACTOR_VCPU,
                                                      ACTOR_VCPU};
    struct record_limits limits = {.console_bytes = 64 * KIB};
    struct bvmm_error err;

    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        limits.stream_bytes[i] = 256 * KIB;
    }
    assert_int_equal(record_create(&limits, &fixture->record, &err), 0);
    for (unsigned i = 0; i < FIXTURE_ACTORS; i++) {
        actor_init(&fixture->actors[i], classes[i], (actor_id)i, i == FIXTURE_VCPU1 ? 1 : 0,
                   classes[i] == ACTOR_VCPU, fixture->record);
        assert_int_equal(
            mailbox_new(FIXTURE_ACTORS, fixture->actors[i].stats, &fixture->actors[i].mailbox), 0);
    }
    for (unsigned to = 0; to < FIXTURE_ACTORS; to++) {
        for (unsigned from = 0; from < FIXTURE_ACTORS; from++) {
            if (from != to && msg_lane_needed(classes[from], classes[to])) {
                fixture->actors[from].lane_to[to] =
                    mailbox_lane(fixture->actors[to].mailbox, from, (actor_id)from,
                                 mailbox_doorbell_fd(fixture->actors[from].mailbox),
                                 fixture->actors[from].stats);
            }
        }
    }
    fixture->irq_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(fixture->irq_fd >= 0);
}

static inline void fixture_fini(struct fixture *fixture)
{
    for (unsigned i = 0; i < FIXTURE_ACTORS; i++) {
        mailbox_free(fixture->actors[i].mailbox);
    }
    record_destroy(fixture->record);
    (void)close(fixture->irq_fd);
}

/* Interrupts raised since the last call. */
static inline uint64_t fixture_interrupts(struct fixture *fixture)
{
    uint64_t count = 0;

    return read(fixture->irq_fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

/* Let the device handle all that is in its mailbox. */
static inline void fixture_step(struct fixture *fixture)
{
    struct actor *device = &fixture->actors[FIXTURE_DEVICE];
    struct msg msg;
    bool worked = false;

    while (mailbox_take(device->mailbox, &msg)) {
        assert_non_null(device->def->on[msg.kind]);
        device->def->on[msg.kind](device, &msg);
    }
    while (device->def->poll != NULL && device->def->poll(device, &worked)) {
    }
}

/* The next message in somebody's mailbox must be of this kind. */
static inline struct msg fixture_expect(struct fixture *fixture, enum fixture_actor who,
                                        enum msg_kind kind)
{
    struct msg msg = {.kind = MSG_NONE};

    assert_true(mailbox_take(fixture->actors[who].mailbox, &msg));
    assert_string_equal(msg_rules[msg.kind].name, msg_rules[kind].name);
    return msg;
}

static inline void fixture_expect_nothing(struct fixture *fixture, enum fixture_actor who)
{
    struct msg msg;

    assert_false(mailbox_take(fixture->actors[who].mailbox, &msg));
}

static inline void fixture_write(struct fixture *fixture, enum fixture_actor vcpu, uint32_t offset,
                                 unsigned width, uint64_t value)
{
    const struct msg msg = {
        .kind = MSG_IO_WRITE,
        .io = {.value = value, .offset_bytes = offset, .width_bytes = (uint8_t)width}};

    assert_int_equal(actor_send(&fixture->actors[vcpu], FIXTURE_DEVICE, &msg), 0);
    fixture_step(fixture);
}

static inline uint64_t fixture_read(struct fixture *fixture, enum fixture_actor vcpu,
                                    uint32_t offset, unsigned width)
{
    const struct msg msg = {.kind = MSG_IO_READ,
                            .io = {.offset_bytes = offset, .width_bytes = (uint8_t)width}};

    assert_int_equal(actor_send(&fixture->actors[vcpu], FIXTURE_DEVICE, &msg), 0);
    fixture_step(fixture);
    return fixture_expect(fixture, vcpu, MSG_IO_READ_DONE).io.value;
}

#endif
