/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_guest.h: a guest with a virtio-vsock driver, for tests of the vsock actor without threads.
 *
 * The driver is as lazy as the specification allows: it notifies the device only if the device
 * asked for it, and looks at used rings only when an interrupt came. So an actor that forgets to
 * ask, or to interrupt, is found out: vsock_guest_run() checks that nothing is left lying about.
 */
#ifndef BVMM_TESTS_UNIT_VSOCK_GUEST_H
#define BVMM_TESTS_UNIT_VSOCK_GUEST_H

#include "actor_fixture.h"
#include "virtio_driver.h"

#include "actors/vsock.h"
#include "actors/vsock_bridge.h"

#define GUEST_MEMORY_BYTES (64 * MIB)
#define GUEST_TX_SLOT_BYTES (128U * 1024)
#define GUEST_RX_SLOT_BYTES (8U * 1024)
#define GUEST_PACKETS_MAX 16384

struct vsock_guest_packet {
    struct vsock_header header;
    uint32_t payload_bytes; /* as the used ring says, header not counted */
    uint8_t payload[GUEST_RX_SLOT_BYTES];
};

struct vsock_guest {
    struct fixture fixture;
    struct guest_memory memory;
    uint8_t *base;
    struct vsock *vsock;
    struct actor *actor;
    uint64_t features;
    struct driver_queue rx, tx, event;
    uint64_t tx_slots, rx_slots, event_slots; /* guest addresses; a slot for each head */
    uint32_t rx_buffer_bytes;                 /* of each buffer that is posted */
    uint32_t buf_alloc;                       /* what the guest tells of its own room */
    bool split;                               /* chains of several descriptors, cut at odd places */
    unsigned rx_want;                         /* so many buffers are kept posted */
    bool threaded;   /* the actor has a thread: kicks are doorbells, registers messages */
    unsigned events; /* that came */
    unsigned steps;  /* of the actor */
    struct vsock_guest_packet *packets; /* ring of those not looked at yet */
    unsigned packets_first, packets_count;
};

static inline void vsock_guest_write(void *context, uint32_t offset, uint32_t value)
{
    struct vsock_guest *guest = context;
    const struct msg msg = {.kind = MSG_IO_WRITE,
                            .io = {.value = value, .offset_bytes = offset, .width_bytes = 4}};

    if (guest->threaded) {
        assert_int_equal(actor_send(&guest->fixture.actors[FIXTURE_VCPU0], FIXTURE_DEVICE, &msg),
                         0);
    } else {
        fixture_write(&guest->fixture, FIXTURE_VCPU0, offset, 4, value);
    }
}

static inline uint32_t vsock_guest_read(struct vsock_guest *guest, uint32_t offset)
{
    struct actor *vcpu = &guest->fixture.actors[FIXTURE_VCPU0];
    struct msg msg = {.kind = MSG_IO_READ, .io = {.offset_bytes = offset, .width_bytes = 4}};

    if (guest->threaded) {
        assert_int_equal(actor_send(vcpu, FIXTURE_DEVICE, &msg), 0);
        while (!mailbox_take(vcpu->mailbox, &msg)) {
            assert_int_equal(mailbox_wait(vcpu->mailbox, 0), 0);
        }
        assert_int_equal(msg.kind, MSG_IO_READ_DONE);
        return (uint32_t)msg.io.value;
    }
    return (uint32_t)fixture_read(&guest->fixture, FIXTURE_VCPU0, offset, 4);
}

/* ---- Life ------------------------------------------------------------------------------------ */

static inline struct vsock_guest *vsock_guest_new(struct vsock_bridge *bridge)
{
    const struct guest_range range = {gpa(0), GUEST_MEMORY_BYTES};
    struct vsock_guest *guest = calloc(1, sizeof(*guest));
    struct bvmm_error err;

    assert_non_null(guest);
    guest->vsock = calloc(1, sizeof(*guest->vsock));
    guest->packets = calloc(GUEST_PACKETS_MAX, sizeof(*guest->packets));
    assert_non_null(guest->vsock);
    assert_non_null(guest->packets);
    fixture_init(&guest->fixture, ACTOR_VSOCK);
    assert_int_equal(guest_memory_init(&guest->memory, &range, 1, &err), 0);
    guest->base = guest->memory.regions[0].host;
    guest->actor = &guest->fixture.actors[FIXTURE_DEVICE];
    vsock_init(guest->vsock, guest->actor, guest->fixture.irq_fd, &guest->memory, bridge);
    guest->features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC;
    guest->rx_buffer_bytes = VSOCK_HEADER_BYTES + 4096;
    guest->rx_want = 64;
    guest->buf_alloc = 256 * 1024;
    return guest;
}

static inline void vsock_guest_free(struct vsock_guest *guest)
{
    fixture_fini(&guest->fixture);
    guest_memory_fini(&guest->memory);
    free(guest->vsock);
    free(guest->packets);
    free(guest);
}

static inline void vsock_guest_start(struct vsock_guest *guest)
{
    const bool event_idx = (guest->features & VIRTIO_F_EVENT_IDX) != 0;
    const bool indirect = (guest->features & VIRTIO_F_INDIRECT_DESC) != 0;
    uint64_t at = 4096;

    driver_queue_init(&guest->rx, guest->base, at, 128, event_idx, indirect);
    at += DRIVER_QUEUE_BYTES;
    driver_queue_init(&guest->tx, guest->base, at, 128, event_idx, indirect);
    at += DRIVER_QUEUE_BYTES;
    driver_queue_init(&guest->event, guest->base, at, 8, event_idx, indirect);
    at += DRIVER_QUEUE_BYTES;
    guest->tx_slots = at;
    at += 128ULL * GUEST_TX_SLOT_BYTES;
    guest->rx_slots = at;
    at += 128ULL * GUEST_RX_SLOT_BYTES;
    guest->event_slots = at;
    assert_true(at + 4096 < GUEST_MEMORY_BYTES);
    driver_agree(vsock_guest_write, guest, guest->features);
    driver_setup_queue(vsock_guest_write, guest, VSOCK_QUEUE_RX, &guest->rx);
    driver_setup_queue(vsock_guest_write, guest, VSOCK_QUEUE_TX, &guest->tx);
    driver_setup_queue(vsock_guest_write, guest, VSOCK_QUEUE_EVENT, &guest->event);
    driver_go(vsock_guest_write, guest);
    (void)driver_want_interrupt(&guest->rx);
    (void)driver_want_interrupt(&guest->tx);
    (void)driver_want_interrupt(&guest->event);
}

/* ---- Sending --------------------------------------------------------------------------------- */

static inline bool vsock_guest_can_send(const struct vsock_guest *guest)
{
    return driver_free_descs(&guest->tx) >= 4;
}

/* Cut [address, + bytes) into up to four pieces at odd places. */
static inline unsigned vsock_guest_cut(const struct vsock_guest *guest, uint64_t address,
                                       uint32_t bytes, bool writable,
                                       struct driver_buffer buffers[4])
{
    const uint32_t cuts[3] = {7, 44 - 7 + 13, 1001};
    unsigned count = 0;

    for (unsigned i = 0; guest->split && i < 3 && bytes > cuts[i]; i++) {
        buffers[count++] = (struct driver_buffer){address, cuts[i], writable};
        address += cuts[i];
        bytes -= cuts[i];
    }
    buffers[count++] = (struct driver_buffer){address, bytes, writable};
    return count;
}

/* A packet whose header is as given, whatever it says; `bytes` follow it in the chain. */
static inline void vsock_guest_send_raw(struct vsock_guest *guest,
                                        const struct vsock_header *header, const void *payload,
                                        uint32_t bytes)
{
    struct driver_buffer buffers[4];
    uint64_t slot = guest->tx_slots;
    unsigned count = 0;
    uint16_t first = 0;
    uint16_t head = 0;

    assert_true(vsock_guest_can_send(guest));
    assert_true(bytes + VSOCK_HEADER_BYTES <= GUEST_TX_SLOT_BYTES);
    while (guest->tx.busy[first]) {
        first++; /* the head that driver_chain() is going to take */
    }
    slot += (uint64_t)first * GUEST_TX_SLOT_BYTES;
    memcpy(guest->base + slot, header, sizeof(*header));
    if (bytes > 0) {
        memcpy(guest->base + slot + VSOCK_HEADER_BYTES, payload, bytes);
    }
    count = vsock_guest_cut(guest, slot, VSOCK_HEADER_BYTES + bytes, false, buffers);
    head = driver_chain(&guest->tx, buffers, count, guest->tx.indirect != 0 && count > 1);
    assert_int_equal(head, first);
    driver_offer(&guest->tx, head);
}

static inline struct vsock_header vsock_guest_header(enum vsock_op op, uint32_t guest_port,
                                                     uint32_t host_port)
{
    return (struct vsock_header){
        .src_cid = VSOCK_CID_GUEST,
        .dst_cid = VSOCK_CID_HOST,
        .src_port = guest_port,
        .dst_port = host_port,
        .type = VSOCK_TYPE_STREAM,
        .op = (uint16_t)op,
        .buf_alloc = 256 * 1024,
    };
}

static inline void vsock_guest_send(struct vsock_guest *guest, enum vsock_op op,
                                    uint32_t guest_port, uint32_t host_port, uint32_t flags,
                                    const void *payload, uint32_t bytes)
{
    struct vsock_header header = vsock_guest_header(op, guest_port, host_port);

    header.flags = flags;
    header.bytes = bytes;
    header.buf_alloc = guest->buf_alloc;
    vsock_guest_send_raw(guest, &header, payload, bytes);
}

/* ---- Receiving ------------------------------------------------------------------------------- */

static inline void vsock_guest_post_rx(struct vsock_guest *guest)
{
    struct driver_buffer buffers[4];

    while (guest->rx.in_flight < guest->rx_want && driver_free_descs(&guest->rx) >= 4) {
        uint16_t first = 0;
        uint64_t slot = guest->rx_slots;
        unsigned count = 0;

        while (guest->rx.busy[first]) {
            first++;
        }
        slot += (uint64_t)first * GUEST_RX_SLOT_BYTES;
        count = vsock_guest_cut(guest, slot, guest->rx_buffer_bytes, true, buffers);
        driver_offer(&guest->rx, driver_chain(&guest->rx, buffers, count,
                                              guest->rx.indirect != 0 && count > 1));
    }
}

static inline void vsock_guest_post_event(struct vsock_guest *guest)
{
    const struct driver_buffer buffer = {guest->event_slots, 4, true};

    memset(guest->base + guest->event_slots, 0xff, 4);
    driver_offer(&guest->event, driver_chain(&guest->event, &buffer, 1, false));
}

static inline void vsock_guest_take_rx(struct vsock_guest *guest)
{
    uint16_t head = 0;
    uint32_t bytes = 0;

    while (driver_take_used(&guest->rx, &head, &bytes)) {
        const unsigned at = (guest->packets_first + guest->packets_count) % GUEST_PACKETS_MAX;
        struct vsock_guest_packet *packet = &guest->packets[at];
        const uint8_t *slot = guest->base + guest->rx_slots + (uint64_t)head * GUEST_RX_SLOT_BYTES;

        assert_true(guest->packets_count < GUEST_PACKETS_MAX);
        assert_in_range(bytes, VSOCK_HEADER_BYTES, guest->rx_buffer_bytes);
        memcpy(&packet->header, slot, sizeof(packet->header));
        packet->payload_bytes = bytes - VSOCK_HEADER_BYTES;
        assert_int_equal(packet->header.bytes, packet->payload_bytes);
        memcpy(packet->payload, slot + VSOCK_HEADER_BYTES, packet->payload_bytes);
        guest->packets_count++;
    }
}

/* The driver's interrupt handler. */
static inline void vsock_guest_interrupt(struct vsock_guest *guest)
{
    const uint32_t status = vsock_guest_read(guest, VIRTIO_MMIO_INTERRUPT_STATUS);
    uint16_t head = 0;
    uint32_t bytes = 0;

    vsock_guest_write(guest, VIRTIO_MMIO_INTERRUPT_ACK, status);
    do {
        while (driver_take_used(&guest->tx, &head, &bytes)) {
            assert_int_equal(bytes, 0);
        }
    } while (driver_want_interrupt(&guest->tx));
    do {
        vsock_guest_take_rx(guest);
    } while (driver_want_interrupt(&guest->rx));
    do {
        while (driver_take_used(&guest->event, &head, &bytes)) {
            uint32_t id = 1;

            memcpy(&id, guest->base + guest->event_slots, sizeof(id));
            assert_int_equal(id, VSOCK_EVENT_TRANSPORT_RESET);
            assert_int_equal(bytes, 4);
            guest->events++;
        }
    } while (driver_want_interrupt(&guest->event));
}

/* One turn of guest and actor. False: neither has anything to do any more. */
static inline bool vsock_guest_turn(struct vsock_guest *guest)
{
    bool kick = false;

    vsock_guest_post_rx(guest);
    kick = driver_must_kick(&guest->tx) || kick;
    kick = driver_must_kick(&guest->rx) || kick;
    kick = driver_must_kick(&guest->event) || kick;
    if (guest->threaded) {
        const uint64_t one = 1;

        if (kick) {
            assert_int_equal(write(mailbox_doorbell_fd(guest->actor->mailbox), &one, sizeof(one)),
                             sizeof(one));
        }
        kick = false;
    } else if (guest->vsock->bridge != NULL) {
        vsock_bridge_look(guest->vsock);
        kick = vsock_bridge_worked(guest->vsock) || kick;
    }
    if (kick) {
        guest->steps++;
        fixture_step(&guest->fixture);
    }
    if (fixture_interrupts(&guest->fixture) > 0) {
        vsock_guest_interrupt(guest);
        return true;
    }
    return kick;
}

/* So many turns without an end are an actor that spins. */
#define GUEST_TURNS_MAX 100000

/* Until nothing moves any more. Then nobody may have forgotten anybody. */
static inline void vsock_guest_run(struct vsock_guest *guest)
{
    unsigned turns = 0;

    while (vsock_guest_turn(guest)) {
        assert_true(turns++ < GUEST_TURNS_MAX);
    }
    if (guest->rx_want > 0 && virtio_mmio_queue_live(&guest->vsock->virtio.mmio, VSOCK_QUEUE_TX)) {
        assert_int_equal(guest->tx.in_flight, 0);  /* else a notification was lost */
        assert_false(vsock_has_due(guest->vsock)); /* or there was no interrupt for a buffer */
    }
}

/* ---- What came ------------------------------------------------------------------------------- */

/* NULL: nothing. Valid until the next run. */
static inline const struct vsock_guest_packet *vsock_guest_next(struct vsock_guest *guest)
{
    const struct vsock_guest_packet *packet = &guest->packets[guest->packets_first];

    if (guest->packets_count == 0) {
        return NULL;
    }
    guest->packets_first = (guest->packets_first + 1) % GUEST_PACKETS_MAX;
    guest->packets_count--;
    return packet;
}

static inline const struct vsock_guest_packet *vsock_guest_expect(struct vsock_guest *guest,
                                                                  enum vsock_op op,
                                                                  uint32_t guest_port,
                                                                  uint32_t host_port)
{
    const struct vsock_guest_packet *packet = NULL;

    vsock_guest_run(guest);
    packet = vsock_guest_next(guest);
    assert_non_null(packet);
    assert_int_equal(packet->header.op, op);
    assert_int_equal(packet->header.src_cid, VSOCK_CID_HOST);
    assert_int_equal(packet->header.dst_cid, VSOCK_CID_GUEST);
    assert_int_equal(packet->header.src_port, host_port);
    assert_int_equal(packet->header.dst_port, guest_port);
    return packet;
}

static inline void vsock_guest_expect_nothing(struct vsock_guest *guest)
{
    vsock_guest_run(guest);
    assert_int_equal(guest->packets_count, 0);
}

static inline void vsock_guest_connect(struct vsock_guest *guest, uint32_t guest_port,
                                       uint32_t host_port)
{
    vsock_guest_send(guest, VSOCK_OP_REQUEST, guest_port, host_port, 0, NULL, 0);
    (void)vsock_guest_expect(guest, VSOCK_OP_RESPONSE, guest_port, host_port);
}

#endif
