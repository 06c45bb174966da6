/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock.c: the vsock actor without a bridge: result ports, control port, and everything that a
 * guest may do wrong. The names follow the table of outcomes in docs/vsock.md.
 */
#include "vsock_guest.h"

#include "seeded_random.h"

#include "actors/serial.h"
#include "protocol/frame.h"

#define P_STDOUT 5000U
#define P_STDERR 5001U
#define P_EXIT 5002U
#define P_CONTROL 5003U
#define P_OUTPUT 5005U

static struct vsock_guest *begin(void)
{
    struct vsock_guest *guest = vsock_guest_new(NULL);

    vsock_guest_start(guest);
    return guest;
}

static const struct record_stream *stream_of(const struct vsock_guest *guest, enum stream_id stream)
{
    return &guest->fixture.record->streams[stream];
}

static void assert_stream(struct vsock_guest *guest, enum stream_id stream, enum stream_state state,
                          const void *bytes, size_t count)
{
    assert_int_equal(stream_of(guest, stream)->state, state);
    assert_int_equal(stream_of(guest, stream)->length_bytes, count);
    assert_memory_equal(record_stream_bytes(guest->fixture.record, stream), bytes, count);
}

static void send_data(struct vsock_guest *guest, uint32_t port, uint32_t host_port,
                      const char *text)
{
    vsock_guest_send(guest, VSOCK_OP_RW, port, host_port, 0, text, (uint32_t)strlen(text));
}

static void send_shutdown(struct vsock_guest *guest, uint32_t port, uint32_t host_port,
                          uint32_t flags)
{
    vsock_guest_send(guest, VSOCK_OP_SHUTDOWN, port, host_port, flags, NULL, 0);
}

/* ---- Results --------------------------------------------------------------------------------- */

static void result_arrives_and_is_complete(void **state)
{
    struct vsock_guest *guest = begin();
    const struct vsock_guest_packet *packet = NULL;
    struct msg msg;

    (void)state;
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 1024, P_STDOUT, 0, NULL, 0);
    packet = vsock_guest_expect(guest, VSOCK_OP_RESPONSE, 1024, P_STDOUT);
    assert_true(packet->header.buf_alloc >= 64 * KIB);
    assert_int_equal(packet->header.fwd_cnt, 0);
    send_data(guest, 1024, P_STDOUT, "hello, ");
    send_data(guest, 1024, P_STDOUT, "world\n");
    vsock_guest_expect_nothing(guest);
    assert_stream(guest, STREAM_STDOUT, STREAM_OPEN, "hello, world\n", 13);
    fixture_expect_nothing(&guest->fixture, FIXTURE_SUPERVISOR);
    send_shutdown(guest, 1024, P_STDOUT, VSOCK_SHUTDOWN_SEND);
    packet = vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 1024, P_STDOUT);
    assert_int_equal(packet->header.flags, VSOCK_SHUTDOWN_BOTH);
    assert_int_equal(packet->header.fwd_cnt, 13);
    assert_stream(guest, STREAM_STDOUT, STREAM_COMPLETE, "hello, world\n", 13);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->via, VIA_VSOCK);
    msg = fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_STREAM_END);
    assert_int_equal(msg.stream.stream, STREAM_STDOUT);
    assert_int_equal(msg.stream.state, STREAM_COMPLETE);
    assert_int_equal(msg.stream.via, VIA_VSOCK);
    assert_int_equal(msg.stream.sent_bytes, 13);
    /* The driver answers our SHUTDOWN with RST, which is no news any more. */
    vsock_guest_send(guest, VSOCK_OP_RST, 1024, P_STDOUT, 0, NULL, 0);
    vsock_guest_expect_nothing(guest);
    assert_int_equal(guest->vsock->table.used, 0);
    vsock_guest_free(guest);
}

static void closing_both_halves_is_answered_by_rst_and_complete(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_EXIT);
    send_data(guest, 7, P_EXIT, "3\n");
    send_shutdown(guest, 7, P_EXIT, VSOCK_SHUTDOWN_BOTH);
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 7, P_EXIT);
    assert_stream(guest, STREAM_EXIT_CODE, STREAM_COMPLETE, "3\n", 2);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_STREAM_END);
    assert_int_equal(guest->vsock->table.used, 0);
    vsock_guest_free(guest);
}

static void connection_without_data_is_an_empty_complete_stream(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDERR);
    send_shutdown(guest, 7, P_STDERR, VSOCK_SHUTDOWN_SEND);
    (void)vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 7, P_STDERR);
    assert_stream(guest, STREAM_STDERR, STREAM_COMPLETE, "", 0);
    vsock_guest_free(guest);
}

static void guest_that_only_stops_receiving_can_go_on_sending(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDERR);
    send_shutdown(guest, 7, P_STDERR, VSOCK_SHUTDOWN_RECEIVE);
    send_data(guest, 7, P_STDERR, "more");
    vsock_guest_expect_nothing(guest);
    assert_stream(guest, STREAM_STDERR, STREAM_OPEN, "more", 4);
    vsock_guest_free(guest);
}

static void reset_breaks_the_stream_and_a_new_connection_begins_anew(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_OUTPUT);
    send_data(guest, 7, P_OUTPUT, "half of i");
    vsock_guest_send(guest, VSOCK_OP_RST, 7, P_OUTPUT, 0, NULL, 0);
    vsock_guest_expect_nothing(guest);
    assert_stream(guest, STREAM_OUTPUT, STREAM_BROKEN, "half of i", 9);
    fixture_expect_nothing(&guest->fixture, FIXTURE_SUPERVISOR); /* it may come again */
    vsock_guest_connect(guest, 8, P_OUTPUT);
    send_data(guest, 8, P_OUTPUT, "whole");
    send_shutdown(guest, 8, P_OUTPUT, VSOCK_SHUTDOWN_SEND);
    (void)vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 8, P_OUTPUT);
    assert_stream(guest, STREAM_OUTPUT, STREAM_COMPLETE, "whole", 5);
    vsock_guest_free(guest);
}

static void second_connection_to_a_port_is_refused(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "one ");
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 8, P_STDOUT, 0, NULL, 0);
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 8, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "stream");
    send_shutdown(guest, 7, P_STDOUT, VSOCK_SHUTDOWN_SEND);
    (void)vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 7, P_STDOUT);
    assert_stream(guest, STREAM_STDOUT, STREAM_COMPLETE, "one stream", 10);
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 9, P_STDOUT, 0, NULL, 0);
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 9, P_STDOUT);
    assert_stream(guest, STREAM_STDOUT, STREAM_COMPLETE, "one stream", 10);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_STREAM_END);
    fixture_expect_nothing(&guest->fixture, FIXTURE_SUPERVISOR);
    vsock_guest_free(guest);
}

static void stream_that_serial_delivers_is_refused(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    assert_int_equal(result_stream_claim(guest->fixture.record, STREAM_STDOUT, VIA_SERIAL), 0);
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 8, P_STDOUT, 0, NULL, 0);
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 8, P_STDOUT);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_OPEN);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->via, VIA_SERIAL);
    vsock_guest_free(guest);
}

static void connection_that_never_closes_stays_open_in_the_record(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "cut sh");
    vsock_guest_run(guest);
    vsock_stop(guest->actor);
    assert_stream(guest, STREAM_STDOUT, STREAM_OPEN, "cut sh", 6);
    fixture_expect_nothing(&guest->fixture, FIXTURE_SUPERVISOR);
    vsock_guest_free(guest);
}

/* A guest that writes, closes and powers off at once: what is in its queue is still taken. */
static void what_lies_in_the_queue_at_stop_is_taken(void **state)
{
    struct vsock_guest *guest = begin();
    char text[8];

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    for (unsigned i = 0; i < 100; i++) {
        (void)snprintf(text, sizeof(text), "%03u\n", i);
        send_data(guest, 7, P_STDOUT, text);
    }
    send_shutdown(guest, 7, P_STDOUT, VSOCK_SHUTDOWN_BOTH);
    vsock_stop(guest->actor);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_COMPLETE);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->length_bytes, 400);
    assert_memory_equal(record_stream_bytes(guest->fixture.record, STREAM_STDOUT) + 396, "099\n",
                        4);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_STREAM_END);
    vsock_guest_free(guest);
}

/* Sends `total` bytes as a driver does that keeps to its credit. */
static void send_much(struct vsock_guest *guest, uint32_t port, uint32_t host_port, uint64_t total,
                      uint32_t packet_bytes, uint32_t buf_alloc)
{
    static uint8_t payload[GUEST_TX_SLOT_BYTES];
    const struct vsock_guest_packet *packet = NULL;
    uint64_t sent = 0;
    uint32_t forwarded = 0;

    while (sent < total) {
        const uint32_t on_the_way = (uint32_t)sent - forwarded;
        const uint32_t room = buf_alloc - on_the_way;
        const uint32_t bytes = (uint32_t)min_u64(min_u64(packet_bytes, room), total - sent);

        if (bytes > 0 && vsock_guest_can_send(guest)) {
            vsock_guest_send(guest, VSOCK_OP_RW, port, host_port, 0, payload, bytes);
            sent += bytes;
            continue;
        }
        vsock_guest_run(guest);
        while ((packet = vsock_guest_next(guest)) != NULL) {
            assert_int_equal(packet->header.op, VSOCK_OP_CREDIT_UPDATE);
            assert_int_equal(packet->header.buf_alloc, buf_alloc);
            forwarded = packet->header.fwd_cnt;
        }
        assert_true((uint32_t)sent - forwarded < buf_alloc); /* else it would block for ever */
    }
    vsock_guest_run(guest);
    while (vsock_guest_next(guest) != NULL) {
    }
}

static void over_the_limit_is_counted_and_the_guest_never_blocks(void **state)
{
    struct vsock_guest *guest = begin();
    const uint64_t total = 5 * MIB + 321;

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_much(guest, 7, P_STDOUT, total, 64 * 1024, VSOCK_STREAM_CREDIT_BYTES);
    send_shutdown(guest, 7, P_STDOUT, VSOCK_SHUTDOWN_SEND);
    (void)vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 7, P_STDOUT);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_COMPLETE);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->length_bytes, 256 * KIB);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->dropped_bytes, total - 256 * KIB);
    assert_int_equal(
        fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_STREAM_END).stream.sent_bytes,
        total);
    vsock_guest_free(guest);
}

/* The counters of credit are 32 bits wide: 4.5 GiB make them go round. */
static void credit_counters_wrap_around(void **state)
{
    struct vsock_guest *guest = begin();
    const uint64_t total = 4 * GIB + 512 * MIB;

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_much(guest, 7, P_STDOUT, total, 120 * 1024, VSOCK_STREAM_CREDIT_BYTES);
    send_shutdown(guest, 7, P_STDOUT, VSOCK_SHUTDOWN_SEND);
    (void)vsock_guest_expect(guest, VSOCK_OP_SHUTDOWN, 7, P_STDOUT);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->dropped_bytes, total - 256 * KIB);
    vsock_guest_free(guest);
}

/* ---- Control --------------------------------------------------------------------------------- */

static void send_frame(struct vsock_guest *guest, uint32_t port, enum frame_type type,
                       uint32_t sequence, uint64_t offset, const void *payload, size_t bytes)
{
    uint8_t frame[FRAME_MAX_BYTES];
    const size_t length = frame_encode(frame, guest->fixture.record->nonce, type, STREAM_STDOUT,
                                       sequence, offset, payload, bytes);

    vsock_guest_send(guest, VSOCK_OP_RW, port, P_CONTROL, 0, frame, (uint32_t)length);
}

static void send_hello(struct vsock_guest *guest, uint32_t port, uint32_t sequence)
{
    const struct frame_hello hello = {.boottime_ns = 123, .version = 1, .via = VIA_VSOCK};

    send_frame(guest, port, FRAME_HELLO, sequence, 0, &hello, sizeof(hello));
}

static void frames_on_the_control_port_become_messages(void **state)
{
    struct vsock_guest *guest = begin();
    struct msg msg;

    (void)state;
    vsock_guest_connect(guest, 7, P_CONTROL);
    send_hello(guest, 7, 0);
    send_frame(guest, 7, FRAME_BYE, 1, 0, NULL, 0);
    vsock_guest_expect_nothing(guest);
    msg = fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_INIT_HELLO);
    assert_int_equal(msg.init.guest_ns, 123);
    assert_int_equal(msg.init.via, VIA_VSOCK);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_INIT_BYE);
    vsock_guest_free(guest);
}

static void damaged_control_connection_is_reset_and_a_new_one_counts_from_zero(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_CONTROL);
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 8, P_CONTROL, 0, NULL, 0);
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 8, P_CONTROL); /* one at a time */
    send_hello(guest, 7, 0);
    send_frame(guest, 7, FRAME_ANNOUNCE, 1, 0, "x", 1);
    vsock_guest_run(guest);
    assert_int_equal(stream_of(guest, STREAM_ANNOUNCED)->state, STREAM_OPEN);
    send_data(guest, 7, P_CONTROL, "this is no frame, and this is long enough to tell so......");
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, 7, P_CONTROL);
    assert_int_equal(stream_of(guest, STREAM_ANNOUNCED)->state, STREAM_BROKEN);
    vsock_guest_connect(guest, 9, P_CONTROL);
    send_hello(guest, 9, 0);
    vsock_guest_expect_nothing(guest);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_INIT_HELLO);
    (void)fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_INIT_HELLO);
    vsock_guest_free(guest);
}

/* The supervisor's lane has 63 places, and a full lane would end the process. */
static void flood_of_frames_cannot_fill_the_supervisors_lane(void **state)
{
    struct vsock_guest *guest = begin();
    struct msg msg;
    unsigned messages = 0;

    (void)state;
    for (uint32_t connection = 0; connection < 30; connection++) {
        vsock_guest_connect(guest, 100 + connection, P_CONTROL);
        for (uint32_t i = 0; i < 50; i++) {
            send_hello(guest, 100 + connection, i);
            vsock_guest_run(guest);
        }
        vsock_guest_send(guest, VSOCK_OP_RST, 100 + connection, P_CONTROL, 0, NULL, 0);
        vsock_guest_run(guest);
    }
    while (mailbox_take(guest->fixture.actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
        messages++;
    }
    assert_int_equal(messages, COLLECTOR_EVENTS_MAX);
    vsock_guest_free(guest);
}

/* The same for ends of streams: each port can be completed once only. */
static void flood_of_connections_cannot_fill_the_supervisors_lane(void **state)
{
    struct vsock_guest *guest = begin();
    struct msg msg;
    unsigned messages = 0;

    (void)state;
    for (uint32_t i = 0; i < 2000; i++) {
        const uint32_t port = P_STDOUT + i % 3;

        vsock_guest_send(guest, VSOCK_OP_REQUEST, 10 + i, port, 0, NULL, 0);
        send_shutdown(guest, 10 + i, port, i % 2 == 0 ? VSOCK_SHUTDOWN_SEND : VSOCK_SHUTDOWN_BOTH);
        vsock_guest_run(guest);
        while (vsock_guest_next(guest) != NULL) {
        }
    }
    while (mailbox_take(guest->fixture.actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
        messages++;
    }
    assert_int_equal(messages, 3);
    assert_int_equal(guest->vsock->table.used, 0);
    vsock_guest_free(guest);
}

/* ---- What is refused ------------------------------------------------------------------------- */

static void other_ports_are_refused_without_vsock_path(void **state)
{
    const uint32_t ports[] = {0, 1, 22, 4999, 5004, 5006, 1U << 30, UINT32_MAX};
    struct vsock_guest *guest = begin();

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(ports); i++) {
        vsock_guest_send(guest, VSOCK_OP_REQUEST, 7, ports[i], 0, NULL, 0);
        (void)vsock_guest_expect(guest, VSOCK_OP_RST, 7, ports[i]);
    }
    assert_int_equal(guest->vsock->table.used, 0);
    vsock_guest_free(guest);
}

static void packets_without_a_connection_get_rst_but_rst_does_not(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    for (unsigned op = 0; op < 12; op++) {
        if (op == VSOCK_OP_REQUEST) {
            continue;
        }
        vsock_guest_send(guest, (enum vsock_op)op, 7, P_STDOUT, 3, "abc", 3);
        if (op == VSOCK_OP_RST) {
            vsock_guest_expect_nothing(guest);
        } else {
            (void)vsock_guest_expect(guest, VSOCK_OP_RST, 7, P_STDOUT);
        }
    }
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_EMPTY);
    vsock_guest_free(guest);
}

static void foreign_addresses_and_types_get_nothing_of_ours(void **state)
{
    struct vsock_guest *guest = begin();
    struct vsock_header header = vsock_guest_header(VSOCK_OP_REQUEST, 7, P_STDOUT);
    const struct vsock_guest_packet *packet = NULL;

    (void)state;
    header.src_cid = 4; /* somebody else's name: nobody to answer to */
    vsock_guest_send_raw(guest, &header, NULL, 0);
    vsock_guest_expect_nothing(guest);
    header.src_cid = VSOCK_CID_GUEST | 1ULL << 32;
    vsock_guest_send_raw(guest, &header, NULL, 0);
    vsock_guest_expect_nothing(guest);
    header.src_cid = VSOCK_CID_GUEST;
    header.type = 2; /* SEQPACKET was not offered */
    vsock_guest_send_raw(guest, &header, NULL, 0);
    packet = vsock_guest_expect(guest, VSOCK_OP_RST, 7, P_STDOUT);
    assert_int_equal(packet->header.type, 2);
    header.type = VSOCK_TYPE_STREAM;
    header.dst_cid = 77;
    vsock_guest_send_raw(guest, &header, NULL, 0);
    vsock_guest_run(guest);
    packet = vsock_guest_next(guest);
    assert_non_null(packet);
    assert_int_equal(packet->header.op, VSOCK_OP_RST);
    assert_int_equal(packet->header.src_cid, 77);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_EMPTY);
    vsock_guest_free(guest);
}

/* ---- What breaks a connection ---------------------------------------------------------------- */

static void assert_reset(struct vsock_guest *guest, uint32_t port)
{
    (void)vsock_guest_expect(guest, VSOCK_OP_RST, port, P_STDOUT);
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_BROKEN);
    assert_int_equal(guest->vsock->table.used, 0);
    assert_false(guest->vsock->streams.control_open);
}

static void request_on_a_connection_resets_it(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 7, P_STDOUT, 0, NULL, 0);
    assert_reset(guest, 7);
    vsock_guest_free(guest);
}

static void response_that_was_not_asked_for_resets(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    vsock_guest_send(guest, VSOCK_OP_RESPONSE, 7, P_STDOUT, 0, NULL, 0);
    assert_reset(guest, 7);
    vsock_guest_free(guest);
}

static void unknown_operation_resets(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    vsock_guest_send(guest, (enum vsock_op)8, 7, P_STDOUT, 0, NULL, 0);
    assert_reset(guest, 7);
    vsock_guest_connect(guest, 8, P_STDOUT);
    vsock_guest_send(guest, (enum vsock_op)0, 8, P_STDOUT, 0, NULL, 0);
    assert_reset(guest, 8);
    vsock_guest_free(guest);
}

static void guest_that_exceeds_its_credit_is_reset(void **state)
{
    static uint8_t payload[64 * 1024];
    struct vsock_guest *guest = begin();
    uint32_t sent = 0;

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    guest->rx_want = 0; /* so that the guest is not told anything: its credit stays as it was */
    while (guest->rx.in_flight > 0) {
        /* ... but for the buffers that are there: use them up with answers to nothing. */
        vsock_guest_send(guest, VSOCK_OP_RW, 99, 99, 0, NULL, 0);
        while (vsock_guest_turn(guest)) {
        }
    }
    while (vsock_guest_next(guest) != NULL) {
    }
    for (; sent < VSOCK_STREAM_CREDIT_BYTES; sent += sizeof(payload)) {
        vsock_guest_send(guest, VSOCK_OP_RW, 7, P_STDOUT, 0, payload, sizeof(payload));
        while (vsock_guest_turn(guest)) {
        }
    }
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_OPEN);
    vsock_guest_send(guest, VSOCK_OP_RW, 7, P_STDOUT, 0, payload, 1);
    while (vsock_guest_turn(guest)) {
    }
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->state, STREAM_BROKEN);
    guest->rx_want = 64;
    assert_reset(guest, 7);
    vsock_guest_free(guest);
}

/* CVE-2019-18960, Firecracker 1462: a length that the descriptors do not bear out. */
static void length_larger_than_the_descriptors_resets(void **state)
{
    const uint32_t lies[] = {6, 4096, 65536, INT32_MAX, UINT32_MAX - 44, UINT32_MAX};
    struct vsock_guest *guest = begin();

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(lies); i++) {
        struct vsock_header header = vsock_guest_header(VSOCK_OP_RW, 7, P_STDOUT);

        vsock_guest_connect(guest, 7, P_STDOUT);
        header.bytes = lies[i];
        vsock_guest_send_raw(guest, &header, "12345", 5);
        assert_reset(guest, 7);
        assert_int_equal(stream_of(guest, STREAM_STDOUT)->length_bytes, 0);
    }
    vsock_guest_free(guest);
}

static void length_smaller_than_the_descriptors_counts(void **state)
{
    struct vsock_guest *guest = begin();
    struct vsock_header header = vsock_guest_header(VSOCK_OP_RW, 7, P_STDOUT);

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    header.bytes = 3;
    vsock_guest_send_raw(guest, &header, "12345", 5);
    vsock_guest_expect_nothing(guest);
    assert_stream(guest, STREAM_STDOUT, STREAM_OPEN, "123", 3);
    vsock_guest_free(guest);
}

static void data_of_no_bytes_is_no_data(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    vsock_guest_send(guest, VSOCK_OP_RW, 7, P_STDOUT, 0, NULL, 0);
    vsock_guest_expect_nothing(guest);
    assert_stream(guest, STREAM_STDOUT, STREAM_OPEN, "", 0);
    vsock_guest_free(guest);
}

static void credit_request_is_answered(void **state)
{
    struct vsock_guest *guest = begin();
    const struct vsock_guest_packet *packet = NULL;

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "12345");
    vsock_guest_send(guest, VSOCK_OP_CREDIT_REQUEST, 7, P_STDOUT, 0, NULL, 0);
    packet = vsock_guest_expect(guest, VSOCK_OP_CREDIT_UPDATE, 7, P_STDOUT);
    assert_int_equal(packet->header.fwd_cnt, 5);
    assert_int_equal(packet->header.buf_alloc, VSOCK_STREAM_CREDIT_BYTES);
    vsock_guest_send(guest, VSOCK_OP_CREDIT_UPDATE, 7, P_STDOUT, 0, NULL, 0);
    vsock_guest_expect_nothing(guest);
    vsock_guest_free(guest);
}

/* ---- What breaks the device ------------------------------------------------------------------ */

static void assert_needs_reset(struct vsock_guest *guest, unsigned queue, enum virtq_fault fault)
{
    struct msg msg = fixture_expect(&guest->fixture, FIXTURE_SUPERVISOR, MSG_DEVICE_BROKEN);

    assert_int_equal(msg.broken.queue, queue);
    assert_int_equal(msg.broken.fault, fault);
    assert_true(vsock_guest_read(guest, VIRTIO_MMIO_STATUS) & VIRTIO_STATUS_NEEDS_RESET);
}

static void packet_shorter_than_its_header_breaks_the_device(void **state)
{
    struct vsock_guest *guest = begin();
    const struct driver_buffer buffer = {guest->tx_slots, VSOCK_HEADER_BYTES - 1, false};

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "abc");
    driver_offer(&guest->tx, driver_chain(&guest->tx, &buffer, 1, false));
    while (vsock_guest_turn(guest)) {
    }
    assert_needs_reset(guest, VSOCK_QUEUE_TX, VIRTQ_FAULT_BAD_REQUEST);
    /* What had arrived is kept, and the guest can send it again over serial. */
    assert_stream(guest, STREAM_STDOUT, STREAM_BROKEN, "abc", 3);
    assert_int_equal(result_stream_claim(guest->fixture.record, STREAM_STDOUT, VIA_SERIAL), 0);
    vsock_guest_free(guest);
}

static void buffer_without_room_for_a_header_breaks_the_device(void **state)
{
    struct vsock_guest *guest = vsock_guest_new(NULL);

    (void)state;
    guest->rx_buffer_bytes = VSOCK_HEADER_BYTES - 1;
    vsock_guest_start(guest);
    vsock_guest_send(guest, VSOCK_OP_REQUEST, 7, P_STDOUT, 0, NULL, 0);
    while (vsock_guest_turn(guest)) {
    }
    assert_needs_reset(guest, VSOCK_QUEUE_RX, VIRTQ_FAULT_BAD_REQUEST);
    vsock_guest_free(guest);
}

/* Chains that look the wrong way have nothing to read, or nowhere to write. */
static void chains_of_the_wrong_direction_break_the_device(void **state)
{
    for (unsigned queue = VSOCK_QUEUE_RX; queue <= VSOCK_QUEUE_TX; queue++) {
        struct vsock_guest *guest = begin();
        struct driver_queue *rings = queue == VSOCK_QUEUE_RX ? &guest->rx : &guest->tx;
        const struct driver_buffer buffer = {guest->tx_slots, 4096, queue == VSOCK_QUEUE_TX};

        guest->rx_want = 0;
        driver_offer(rings, driver_chain(rings, &buffer, 1, false));
        if (queue == VSOCK_QUEUE_RX) {
            vsock_guest_send(guest, VSOCK_OP_RW, 7, 7, 0, NULL, 0);
        }
        while (vsock_guest_turn(guest)) {
        }
        assert_needs_reset(guest, queue, VIRTQ_FAULT_BAD_REQUEST);
        vsock_guest_free(guest);
    }
    (void)state;
}

static void reset_by_the_driver_ends_connections_and_is_told_as_transport_reset(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_post_event(guest);
    vsock_guest_connect(guest, 7, P_STDOUT);
    send_data(guest, 7, P_STDOUT, "abc");
    vsock_guest_run(guest);
    assert_int_equal(guest->events, 0);
    vsock_guest_write(guest, VIRTIO_MMIO_STATUS, 0);
    assert_stream(guest, STREAM_STDOUT, STREAM_BROKEN, "abc", 3);
    assert_int_equal(guest->vsock->table.used, 0);
    vsock_guest_start(guest);
    vsock_guest_run(guest);
    assert_int_equal(guest->events, 0); /* it has no buffer for it yet */
    vsock_guest_post_event(guest);
    vsock_guest_run(guest);
    assert_int_equal(guest->events, 1);
    vsock_guest_post_event(guest);
    vsock_guest_connect(guest, 7, P_STDOUT);
    assert_int_equal(guest->events, 1); /* once */
    vsock_guest_free(guest);
}

static void first_start_of_the_driver_is_no_transport_reset(void **state)
{
    struct vsock_guest *guest = begin();

    (void)state;
    vsock_guest_post_event(guest);
    vsock_guest_connect(guest, 7, P_STDOUT);
    assert_int_equal(guest->events, 0);
    vsock_guest_free(guest);
}

/* ---- Pressure -------------------------------------------------------------------------------- */

/* A guest that makes us answer and hands out no buffers: what we keep is bounded. */
static void guest_without_receive_buffers_is_kept_waiting(void **state)
{
    struct vsock_guest *guest = begin();
    unsigned sent = 0;
    unsigned answered = 0;

    (void)state;
    guest->rx_want = 0;
    while (vsock_guest_can_send(guest)) {
        vsock_guest_send(guest, VSOCK_OP_REQUEST, 1000 + sent, 99, 0, NULL, 0);
        sent++;
    }
    while (vsock_guest_turn(guest)) {
    }
    assert_int_equal(guest->tx.in_flight, sent - VSOCK_REFUSALS_MAX);
    assert_false(vsock_can_take_packet(guest->vsock));
    guest->rx_want = 1; /* one buffer at a time is enough to go on */
    for (unsigned i = 0; i < 10 * sent && answered < sent; i++) {
        const struct vsock_guest_packet *packet = NULL;

        (void)vsock_guest_turn(guest);
        while ((packet = vsock_guest_next(guest)) != NULL) {
            assert_int_equal(packet->header.op, VSOCK_OP_RST);
            assert_int_equal(packet->header.dst_port, 1000 + answered);
            answered++;
        }
    }
    assert_int_equal(answered, sent);
    vsock_guest_free(guest);
}

/* In a quiet guest the actor is not even kicked: 6074 and 5969 of Firecracker, the other way round.
 */
static void buffers_that_are_handed_back_kick_nobody(void **state)
{
    struct vsock_guest *guest = begin();
    unsigned steps = 0;

    (void)state;
    vsock_guest_connect(guest, 7, P_STDOUT);
    vsock_guest_run(guest);
    steps = guest->steps;
    while (driver_free_descs(&guest->rx) >= 4) {
        guest->rx_want++;
        vsock_guest_post_rx(guest);
        assert_false(driver_must_kick(&guest->rx)); /* the device never asked to know */
    }
    assert_true(guest->rx_want > 100);
    vsock_guest_run(guest);
    assert_int_equal(guest->steps, steps);
    vsock_guest_free(guest);
}

static void works_with(uint64_t features, bool split, uint32_t rx_buffer_bytes)
{
    struct vsock_guest *guest = vsock_guest_new(NULL);

    guest->features = VIRTIO_F_VERSION_1 | features;
    guest->split = split;
    guest->rx_buffer_bytes = rx_buffer_bytes;
    vsock_guest_start(guest);
    for (unsigned round = 0; round < 3; round++) {
        vsock_guest_connect(guest, 7, P_STDOUT);
        send_much(guest, 7, P_STDOUT, 3 * MIB + 77, 5000, VSOCK_STREAM_CREDIT_BYTES);
        vsock_guest_send(guest, VSOCK_OP_RST, 7, P_STDOUT, 0, NULL, 0);
        vsock_guest_run(guest);
    }
    assert_int_equal(stream_of(guest, STREAM_STDOUT)->dropped_bytes, 3 * MIB + 77 - 256 * KIB);
    vsock_guest_free(guest);
}

/* Firecracker 6074 and 5969: vsock that stood still, by EVENT_IDX. The driver here is a lazy one.
 */
static void never_wedges_whatever_features_and_buffers_the_driver_chooses(void **state)
{
    const uint64_t features[] = {0, VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC,
                                 VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC};

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(features); i++) {
        works_with(features[i], false, VSOCK_HEADER_BYTES + 4096);
        works_with(features[i], true, VSOCK_HEADER_BYTES + 4096);
        works_with(features[i], true, VSOCK_HEADER_BYTES);
    }
}

/* ---- Hostility at random --------------------------------------------------------------------- */

static uint32_t random_port(struct seeded_random *random)
{
    const uint32_t ports[] = {P_STDOUT, P_STDERR, P_EXIT, P_CONTROL, P_OUTPUT, 1, 2, UINT32_MAX};

    return ports[random_below(random, ARRAY_SIZE(ports))];
}

/* Any header, right and wrong; any length; now and then the descriptors themselves are spoilt. */
static void random_packet(struct vsock_guest *guest, struct seeded_random *random)
{
    static uint8_t payload[70000];
    struct vsock_header header =
        vsock_guest_header((enum vsock_op)random_below(random, 9),
                           (uint32_t)random_below(random, 20), random_port(random));
    uint32_t bytes = (uint32_t)random_below(random, random_below(random, 8) == 0 ? 70000 : 100);

    header.bytes = random_below(random, 10) == 0 ? (uint32_t)random_u64(random) : bytes;
    header.flags = (uint32_t)random_below(random, 5);
    header.buf_alloc = (uint32_t)random_u64(random);
    header.fwd_cnt = (uint32_t)random_u64(random);
    header.src_cid = random_below(random, 50) == 0 ? random_u64(random) : VSOCK_CID_GUEST;
    header.dst_cid = random_below(random, 50) == 0 ? random_u64(random) : VSOCK_CID_HOST;
    header.type = random_below(random, 50) == 0 ? 2 : VSOCK_TYPE_STREAM;
    vsock_guest_send_raw(guest, &header, payload, bytes);
    if (random_below(random, 400) == 0) {
        struct driver_desc *desc = driver_desc_at(&guest->tx, (unsigned)random_below(random, 128));

        desc->address = random_u64(random) >> random_below(random, 64);
        desc->bytes = (uint32_t)random_u64(random);
        desc->flags = (uint16_t)random_below(random, 8);
        desc->next = (uint16_t)random_below(random, 200);
    }
    if (random_below(random, 2000) == 0) {
        *driver_avail_idx(&guest->tx) = (uint16_t)random_u64(random);
    }
}

static void random_hostile_guest(void **state)
{
    struct seeded_random random = random_from_seed("random_hostile_guest");
    unsigned resets = 0;

    (void)state;
    for (unsigned life = 0; life < 30; life++) {
        struct vsock_guest *guest = vsock_guest_new(NULL);

        guest->features = VIRTIO_F_VERSION_1 | (random_below(&random, 2) ? VIRTIO_F_EVENT_IDX : 0) |
                          (random_below(&random, 2) ? VIRTIO_F_INDIRECT_DESC : 0);
        guest->split = random_below(&random, 2) != 0;
        vsock_guest_start(guest);
        for (unsigned i = 0; i < 2000; i++) {
            const uint32_t status = guest->vsock->virtio.mmio.status;
            struct msg msg;

            guest->rx_want = random_below(&random, 20) == 0 ? 0 : 32;
            if (vsock_guest_can_send(guest)) {
                random_packet(guest, &random);
            }
            if (random_below(&random, 4) == 0) {
                (void)vsock_guest_turn(guest);
            }
            if (random_below(&random, 500) == 0) {
                fixture_write(&guest->fixture, FIXTURE_VCPU0,
                              (uint32_t)random_below(&random, 0x110) & ~3U, 4,
                              random_u64(&random) >> random_below(&random, 64));
            }
            if ((status & VIRTIO_STATUS_NEEDS_RESET) != 0 || !vsock_guest_can_send(guest)) {
                vsock_guest_start(guest);
                resets++;
            }
            guest->packets_count = 0;
            assert_in_range(guest->vsock->table.used, 0, VSOCK_CONNECTIONS_MAX);
            while (mailbox_take(guest->fixture.actors[FIXTURE_SUPERVISOR].mailbox, &msg)) {
            }
        }
        vsock_stop(guest->actor);
        vsock_guest_free(guest);
    }
    assert_true(resets > 0); /* else the test was too tame */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(result_arrives_and_is_complete),
        cmocka_unit_test(closing_both_halves_is_answered_by_rst_and_complete),
        cmocka_unit_test(connection_without_data_is_an_empty_complete_stream),
        cmocka_unit_test(guest_that_only_stops_receiving_can_go_on_sending),
        cmocka_unit_test(reset_breaks_the_stream_and_a_new_connection_begins_anew),
        cmocka_unit_test(second_connection_to_a_port_is_refused),
        cmocka_unit_test(stream_that_serial_delivers_is_refused),
        cmocka_unit_test(connection_that_never_closes_stays_open_in_the_record),
        cmocka_unit_test(what_lies_in_the_queue_at_stop_is_taken),
        cmocka_unit_test(over_the_limit_is_counted_and_the_guest_never_blocks),
        cmocka_unit_test(credit_counters_wrap_around),
        cmocka_unit_test(frames_on_the_control_port_become_messages),
        cmocka_unit_test(damaged_control_connection_is_reset_and_a_new_one_counts_from_zero),
        cmocka_unit_test(flood_of_frames_cannot_fill_the_supervisors_lane),
        cmocka_unit_test(flood_of_connections_cannot_fill_the_supervisors_lane),
        cmocka_unit_test(other_ports_are_refused_without_vsock_path),
        cmocka_unit_test(packets_without_a_connection_get_rst_but_rst_does_not),
        cmocka_unit_test(foreign_addresses_and_types_get_nothing_of_ours),
        cmocka_unit_test(request_on_a_connection_resets_it),
        cmocka_unit_test(response_that_was_not_asked_for_resets),
        cmocka_unit_test(unknown_operation_resets),
        cmocka_unit_test(guest_that_exceeds_its_credit_is_reset),
        cmocka_unit_test(length_larger_than_the_descriptors_resets),
        cmocka_unit_test(length_smaller_than_the_descriptors_counts),
        cmocka_unit_test(data_of_no_bytes_is_no_data),
        cmocka_unit_test(credit_request_is_answered),
        cmocka_unit_test(packet_shorter_than_its_header_breaks_the_device),
        cmocka_unit_test(buffer_without_room_for_a_header_breaks_the_device),
        cmocka_unit_test(chains_of_the_wrong_direction_break_the_device),
        cmocka_unit_test(reset_by_the_driver_ends_connections_and_is_told_as_transport_reset),
        cmocka_unit_test(first_start_of_the_driver_is_no_transport_reset),
        cmocka_unit_test(guest_without_receive_buffers_is_kept_waiting),
        cmocka_unit_test(buffers_that_are_handed_back_kick_nobody),
        cmocka_unit_test(never_wedges_whatever_features_and_buffers_the_driver_chooses),
        cmocka_unit_test(random_hostile_guest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
