/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_world.h: a guest with many connections and the host programs at their other ends, which do
 * random things, and an oracle that knows what must come of each.
 *
 * Every byte depends on its connection, direction and offset, so that one that is lost, doubled or
 * delivered to somebody else is noticed when it comes. The oracle also checks that the actor keeps
 * to the guest's credit, that nothing comes after an end, and that no answer is for nobody.
 */
#ifndef BVMM_TESTS_UNIT_VSOCK_WORLD_H
#define BVMM_TESTS_UNIT_VSOCK_WORLD_H

#include "seeded_random.h"
#include "vsock_host.h"

#define WORLD_PORT 1234U     /* what the guest calls */
#define WORLD_GUEST_PORT 77U /* what host programs call */
#define WORLD_CONNS_MAX 1000U
#define WORLD_CHUNK_BYTES 20000U

enum world_state {
    WORLD_FREE,
    WORLD_GUEST_ASKS, /* the guest has sent REQUEST */
    WORLD_HOST_ASKS,  /* the program has said CONNECT */
    WORLD_OPEN,
};

struct world_conn {
    enum world_state state;
    uint32_t id; /* what its bytes depend on */
    uint32_t guest_port, host_port;
    int fd; /* the program's */

    /* From the guest to the program. */
    uint64_t guest_sent, program_got;
    uint32_t peer_buf_alloc, peer_fwd_cnt;
    bool guest_ended; /* it said SHUTDOWN, this half at least */
    bool program_saw_end;

    /* From the program to the guest. */
    uint64_t program_sent, guest_got, guest_told; /* told: as fwd_cnt */
    uint32_t buf_alloc;
    bool program_ended;
    bool program_closed;
    bool guest_saw_end;

    bool loose; /* one side was rude: bytes that did not arrive are no fault of the actor's */
};

struct world {
    struct vsock_host host;
    struct seeded_random random;
    struct world_conn conns[WORLD_CONNS_MAX];
    unsigned limit;   /* connections at once */
    size_t room_max;  /* what a socket of the guest's offers at most, in bytes */
    bool no_new_room; /* the guest answers no CREDIT_REQUEST */
    unsigned used;
    int listen_fd;
    uint32_t next_id;
    uint32_t next_guest_port;
    uint64_t bytes_checked;
    unsigned opened;
    unsigned refused;
};

static inline uint8_t world_byte(uint32_t id, bool from_guest, uint64_t offset)
{
    const uint64_t mixed = (offset + 1) * 0x9e3779b97f4a7c15ULL ^
                           (uint64_t)id * 0xbf58476d1ce4e5b9ULL ^ (from_guest ? 0x55555555U : 0);

    return (uint8_t)(mixed >> 32);
}

static inline void world_fill(uint32_t id, bool from_guest, uint64_t offset, uint8_t *to,
                              size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        to[i] = world_byte(id, from_guest, offset + i);
    }
}

static inline void world_check(struct world *world, uint32_t id, bool from_guest, uint64_t offset,
                               const uint8_t *got, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (got[i] != world_byte(id, from_guest, offset + i)) {
            fail_msg("connection %u, %s, offset %llu: wrong byte", id,
                     from_guest ? "guest to program" : "program to guest",
                     (unsigned long long)(offset + i));
        }
    }
    world->bytes_checked += bytes;
}

/* ---- Life ------------------------------------------------------------------------------------ */

static inline struct world *world_new(struct seeded_random random, unsigned limit)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    world->random = random;
    world->limit = limit;
    world->room_max = 200000;
    world->next_guest_port = 100000;
    vsock_host_init(&world->host);
    world->listen_fd = vsock_host_listen(&world->host, WORLD_PORT, 4096);
    for (unsigned i = 0; i < WORLD_CONNS_MAX; i++) {
        world->conns[i].fd = -1;
    }
    return world;
}

static inline void world_free(struct world *world)
{
    for (unsigned i = 0; i < WORLD_CONNS_MAX; i++) {
        if (world->conns[i].fd >= 0) {
            (void)close(world->conns[i].fd);
        }
    }
    (void)close(world->listen_fd);
    vsock_host_fini(&world->host);
    free(world);
}

static inline void world_forget(struct world *world, struct world_conn *conn)
{
    if (conn->fd >= 0) {
        (void)close(conn->fd);
    }
    memset(conn, 0, sizeof(*conn));
    conn->fd = -1;
    world->used--;
}

static inline struct world_conn *world_place(struct world *world)
{
    for (unsigned i = 0; world->used < world->limit && i < world->limit; i++) {
        struct world_conn *conn = &world->conns[i];

        if (conn->state == WORLD_FREE) {
            conn->id = ++world->next_id;
            conn->buf_alloc = (uint32_t)random_below(&world->random, world->room_max) + 1;
            world->used++;
            return conn;
        }
    }
    return NULL;
}

/* On a slow machine the 2 s that a guest has to accept may have passed. */
static inline bool world_accepted_late(const struct world *world, const struct world_conn *conn)
{
    return world->host.guest->threaded && conn->host_port != WORLD_PORT && conn->guest_got == 0 &&
           conn->program_got == 0;
}

/* ---- What the guest does --------------------------------------------------------------------- */

static inline bool world_can_send(const struct world *world)
{
    return vsock_guest_can_send(world->host.guest);
}

static inline void world_send(struct world *world, struct world_conn *conn, enum vsock_op op,
                              uint32_t flags, const void *payload, uint32_t bytes)
{
    struct vsock_header header = vsock_guest_header(op, conn->guest_port, conn->host_port);

    conn->guest_told = conn->guest_got;
    header.buf_alloc = conn->buf_alloc;
    header.fwd_cnt = (uint32_t)conn->guest_told;
    header.flags = flags;
    header.bytes = bytes;
    vsock_guest_send_raw(world->host.guest, &header, payload, bytes);
}

static inline void world_guest_asks(struct world *world)
{
    struct world_conn *conn = world_place(world);

    if (conn != NULL) {
        conn->state = WORLD_GUEST_ASKS;
        conn->guest_port = world->next_guest_port++;
        conn->host_port = WORLD_PORT;
        world_send(world, conn, VSOCK_OP_REQUEST, 0, NULL, 0);
    }
}

static inline void world_guest_sends(struct world *world, struct world_conn *conn)
{
    static uint8_t chunk[WORLD_CHUNK_BYTES];
    const uint32_t room = conn->peer_buf_alloc - ((uint32_t)conn->guest_sent - conn->peer_fwd_cnt);
    const uint32_t bytes = (uint32_t)min_u64(
        room, random_below(&world->random, random_below(&world->random, 4) == 0 ? 20000 : 300));

    if (bytes == 0 || conn->guest_ended) {
        return;
    }
    conn->loose = conn->loose || conn->program_closed; /* an answer to it may overtake bytes */
    world_fill(conn->id, true, conn->guest_sent, chunk, bytes);
    world_send(world, conn, VSOCK_OP_RW, 0, chunk, bytes);
    conn->guest_sent += bytes;
}

static inline void world_guest_ends(struct world *world, struct world_conn *conn, bool both)
{
    if (both) {
        world_send(world, conn, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_BOTH, NULL, 0);
        conn->loose = true;
        conn->guest_ended = true;
    } else if (!conn->guest_ended) {
        world_send(world, conn, VSOCK_OP_SHUTDOWN, VSOCK_SHUTDOWN_SEND, NULL, 0);
        conn->guest_ended = true;
    }
}

static inline void world_guest_resets(struct world *world, struct world_conn *conn)
{
    world_send(world, conn, VSOCK_OP_RST, 0, NULL, 0);
    world_forget(world, conn);
}

/* ---- What comes to the guest ----------------------------------------------------------------- */

static inline struct world_conn *world_find(struct world *world, uint32_t guest_port,
                                            uint32_t host_port)
{
    for (unsigned i = 0; i < world->limit; i++) {
        struct world_conn *conn = &world->conns[i];

        if (conn->state != WORLD_FREE && conn->guest_port == guest_port &&
            conn->host_port == host_port && conn->state != WORLD_HOST_ASKS) {
            return conn;
        }
    }
    return NULL;
}

/* The actor takes callers and the guest's connections in order; each says who it is first. */
static inline void world_take_program(struct world *world, struct world_conn *conn)
{
    conn->fd = vsock_host_accept(world->listen_fd);
}

/*
 * A program's call has reached the guest. Which program it was is known from the port that it will
 * be told, so it is looked for only once it was: until then the guest accepts, or refuses, blindly.
 */
static inline void world_on_request(struct world *world, const struct vsock_header *header)
{
    struct world_conn *conn = NULL;
    struct world_conn *oldest = NULL;

    for (unsigned i = 0; i < world->limit; i++) {
        conn = &world->conns[i];
        if (conn->state == WORLD_HOST_ASKS && (oldest == NULL || conn->id < oldest->id)) {
            oldest = conn;
        }
    }
    assert_non_null(oldest); /* else nobody called */
    assert_int_equal(header->dst_port, WORLD_GUEST_PORT);
    conn = oldest;
    conn->guest_port = header->dst_port;
    conn->host_port = header->src_port;
    conn->peer_buf_alloc = header->buf_alloc;
    conn->peer_fwd_cnt = header->fwd_cnt;
    if (random_below(&world->random, 10) == 0) {
        world_guest_resets(world, conn);
        world->refused++;
    } else {
        conn->state = WORLD_OPEN;
        world->opened++;
        world_send(world, conn, VSOCK_OP_RESPONSE, 0, NULL, 0);
    }
}

static inline void world_on_data(struct world *world, struct world_conn *conn,
                                 const struct vsock_guest_packet *packet)
{
    assert_false(conn->guest_saw_end);
    world_check(world, conn->id, false, conn->guest_got, packet->payload, packet->payload_bytes);
    conn->guest_got += packet->payload_bytes;
    assert_true(conn->guest_got - conn->guest_told <= conn->buf_alloc); /* our credit was kept */
    assert_true(conn->guest_got <= conn->program_sent || conn->program_closed);
}

static inline void world_on_shutdown(struct world *world, struct world_conn *conn, uint32_t flags)
{
    assert_true(flags == VSOCK_SHUTDOWN_SEND || flags == VSOCK_SHUTDOWN_BOTH);
    assert_true(conn->program_ended || conn->program_closed || conn->loose);
    if (!conn->loose) {
        assert_int_equal(conn->guest_got, conn->program_sent); /* all before the end */
    }
    conn->guest_saw_end = true;
    if (flags == VSOCK_SHUTDOWN_BOTH) {
        world_guest_resets(world, conn); /* as Linux's driver answers */
    }
}

static inline void world_on_packet(struct world *world, const struct vsock_guest_packet *packet)
{
    const struct vsock_header *header = &packet->header;
    struct world_conn *conn = world_find(world, header->dst_port, header->src_port);

    if (header->op == VSOCK_OP_REQUEST) {
        assert_null(conn);
        world_on_request(world, header);
        return;
    }
    if (conn == NULL) {
        return; /* on its way when the guest said RST */
    }
    conn->peer_buf_alloc = header->buf_alloc;
    conn->peer_fwd_cnt = header->fwd_cnt;
    assert_true((uint32_t)conn->guest_sent - header->fwd_cnt <= header->buf_alloc);
    switch ((enum vsock_op)header->op) {
    case VSOCK_OP_RESPONSE:
        assert_int_equal(conn->state, WORLD_GUEST_ASKS);
        conn->state = WORLD_OPEN;
        world->opened++;
        world_take_program(world, conn);
        break;
    case VSOCK_OP_RW:
        world_on_data(world, conn, packet);
        break;
    case VSOCK_OP_SHUTDOWN:
        world_on_shutdown(world, conn, header->flags);
        break;
    case VSOCK_OP_RST:
        /* Only where a side was rude, or all was said and done, or the guest accepted too late. */
        assert_true(conn->loose || conn->program_closed || conn->state == WORLD_GUEST_ASKS ||
                    world_accepted_late(world, conn));
        world_forget(world, conn);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        if (!world->no_new_room && world_can_send(world)) {
            world_send(world, conn, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
        }
        break;
    case VSOCK_OP_REQUEST:
    default:
        fail_msg("packet with operation %u", header->op);
    }
}

static inline bool world_take_packets(struct world *world)
{
    const struct vsock_guest_packet *packet = NULL;
    bool any = false;

    while (world_can_send(world) && (packet = vsock_guest_next(world->host.guest)) != NULL) {
        world_on_packet(world, packet);
        any = true;
    }
    return any;
}

/* ---- What programs do ------------------------------------------------------------------------ */

static inline void world_program_asks(struct world *world)
{
    struct world_conn *conn = NULL;
    char line[32];

    /* One at a time, so that the guest knows whose call it gets. */
    for (unsigned i = 0; i < world->limit; i++) {
        if (world->conns[i].state == WORLD_HOST_ASKS) {
            return;
        }
    }
    conn = world_place(world);
    if (conn != NULL) {
        conn->state = WORLD_HOST_ASKS;
        conn->fd = vsock_host_call(&world->host);
        (void)snprintf(line, sizeof(line), "CONNECT %u\n", WORLD_GUEST_PORT);
        vsock_host_say(conn->fd, line);
    }
}

static inline void world_program_sends(struct world *world, struct world_conn *conn)
{
    static uint8_t chunk[WORLD_CHUNK_BYTES];
    const size_t bytes =
        random_below(&world->random, random_below(&world->random, 4) == 0 ? 20000 : 300) + 1;
    ssize_t sent = 0;

    if (conn->fd < 0 || conn->program_ended) {
        return;
    }
    world_fill(conn->id, false, conn->program_sent, chunk, bytes);
    sent = send(conn->fd, chunk, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    conn->program_sent += sent > 0 ? (uint64_t)sent : 0;
}

/* A program that called is told "OK <port>" first. */
static inline size_t world_skip_ok(const struct world_conn *conn, const uint8_t *got, size_t bytes)
{
    char ok[32];
    const int length = snprintf(ok, sizeof(ok), "OK %u\n", conn->host_port);

    if (conn->host_port == WORLD_PORT || conn->program_got > 0) {
        return 0;
    }
    assert_true(bytes >= (size_t)length);
    assert_memory_equal(got, ok, (size_t)length);
    return (size_t)length;
}

static inline void world_program_reads(struct world *world, struct world_conn *conn)
{
    static uint8_t chunk[3 * WORLD_CHUNK_BYTES];
    const size_t want = random_below(&world->random, sizeof(chunk) - 64) + 64;
    ssize_t bytes = 0;

    if (conn->fd < 0 || conn->program_saw_end) {
        return;
    }
    bytes = recv(conn->fd, chunk, want, MSG_DONTWAIT);
    if (bytes == 0) {
        conn->program_saw_end = true;
        conn->loose = conn->loose || world_accepted_late(world, conn);
        assert_true(conn->guest_ended || conn->loose);
        if (!conn->loose) {
            assert_int_equal(conn->program_got - (conn->program_got > 0 ? 1 : 0), conn->guest_sent);
        }
    } else if (bytes > 0) {
        const size_t skip = world_skip_ok(conn, chunk, (size_t)bytes);
        const uint64_t from = conn->program_got > 0 ? conn->program_got - 1 : 0;

        /* program_got counts from 1, so that 0 means that not even OK was read. */
        world_check(world, conn->id, true, from, chunk + skip, (size_t)bytes - skip);
        conn->program_got = from + (uint64_t)bytes - skip + 1;
        assert_true(conn->program_got - 1 <= conn->guest_sent);
    }
}

static inline void world_program_ends(struct world_conn *conn)
{
    if (conn->fd >= 0 && !conn->program_ended) {
        assert_int_equal(shutdown(conn->fd, SHUT_WR) < 0 && errno != ENOTCONN, 0);
        conn->program_ended = true;
    }
}

static inline void world_program_closes(struct world_conn *conn)
{
    if (conn->fd >= 0) {
        (void)close(conn->fd);
        conn->fd = -1;
        conn->program_ended = true;
        conn->program_closed = true;
    }
}

/* ---- A step of the world --------------------------------------------------------------------- */

static inline void world_touch(struct world *world, struct world_conn *conn)
{
    const size_t what = random_below(&world->random, 100);

    if (conn->state != WORLD_OPEN || !world_can_send(world)) {
        return;
    }
    if (what < 30) {
        world_guest_sends(world, conn);
    } else if (what < 60) {
        world_program_sends(world, conn);
    } else if (what < 80) {
        world_program_reads(world, conn);
    } else if (what < 92) {
        world_send(world, conn, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
    } else if (what < 94) {
        world_guest_ends(world, conn, false);
    } else if (what < 96) {
        world_program_ends(conn);
    } else if (what < 97) {
        world_guest_ends(world, conn, true);
    } else if (what < 98) {
        world_program_closes(conn);
    } else if (what < 99) {
        world_guest_resets(world, conn);
    }
}

static inline void world_act(struct world *world)
{
    const size_t what = random_below(&world->random, 100);

    if (what < 4 && world_can_send(world)) {
        world_guest_asks(world);
    } else if (what < 8) {
        world_program_asks(world);
    } else if (what < 10) {
        static const unsigned wants[] = {0, 1, 8, 30};

        world->host.guest->rx_want = wants[random_below(&world->random, ARRAY_SIZE(wants))];
    } else {
        world_touch(world, &world->conns[random_below(&world->random, world->limit)]);
    }
}

/* Everybody reads all there is, and gives all the credit there is; nobody sends anything new. */
static inline void world_settle_once(struct world *world)
{
    world->host.guest->rx_want = 30;
    for (unsigned i = 0; i < world->limit; i++) {
        struct world_conn *conn = &world->conns[i];

        if (conn->state == WORLD_OPEN && world_can_send(world) &&
            conn->guest_told != conn->guest_got) {
            world_send(world, conn, VSOCK_OP_CREDIT_UPDATE, 0, NULL, 0);
        }
        world_program_reads(world, conn);
    }
}

/* After settling: what was sent politely has arrived. */
static inline void world_check_arrived(const struct world *world)
{
    for (unsigned i = 0; i < world->limit; i++) {
        const struct world_conn *conn = &world->conns[i];

        if (conn->state != WORLD_OPEN || conn->loose) {
            continue;
        }
        assert_int_equal(conn->guest_got, conn->program_sent);
        if (conn->fd >= 0) {
            assert_int_equal(conn->program_got > 0 ? conn->program_got - 1 : 0, conn->guest_sent);
            assert_int_equal(conn->program_saw_end, conn->guest_ended);
        }
        assert_int_equal(conn->guest_saw_end, conn->program_ended);
    }
}

#endif
