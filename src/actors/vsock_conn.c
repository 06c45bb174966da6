/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_conn.c: connections of the vsock actor. See vsock_conn.h.
 *
 * Thread: vsock. Never blocks. System calls: clock_gettime (deadlines; the bridge only).
 */
#include "actors/vsock_conn.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "actors/vsock.h"
#include "actors/vsock_bridge.h"

/* ---- The table ------------------------------------------------------------------------------- */

void vsock_table_init(struct vsock_table *table)
{
    memset(table, 0, sizeof(*table));
    TAILQ_INIT(&table->due);
    TAILQ_INIT(&table->deadlines);
    LIST_INIT(&table->free);
    for (unsigned i = 0; i < VSOCK_BUCKETS; i++) {
        LIST_INIT(&table->buckets[i]);
    }
    for (unsigned i = VSOCK_CONNECTIONS_MAX; i-- > 0;) {
        table->conns[i].index = (uint16_t)i;
        LIST_INSERT_HEAD(&table->free, &table->conns[i], bucket_link);
    }
}

/* A guest can choose ports that share a bucket. It then waits for its own packets. */
static struct vsock_bucket *bucket_of(struct vsock_table *table, uint32_t guest_port,
                                      uint32_t host_port)
{
    const uint32_t mixed = (guest_port * 0x9e3779b1U) ^ (host_port * 0x85ebca77U);

    return &table->buckets[(mixed >> 16 ^ mixed) % VSOCK_BUCKETS];
}

static struct vsock_conn *find_conn(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn *conn = NULL;

    LIST_FOREACH(conn, bucket_of(&vsock->table, guest_port, host_port), bucket_link)
    {
        if (conn->guest_port == guest_port && conn->host_port == host_port) {
            break;
        }
    }
    return conn;
}

/* NULL: all are in use. */
static struct vsock_conn *take_conn(struct vsock *vsock, const struct vsock_service *service,
                                    uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn *conn = LIST_FIRST(&vsock->table.free);
    const uint16_t index = conn != NULL ? conn->index : 0;

    if (conn == NULL) {
        return NULL;
    }
    LIST_REMOVE(conn, bucket_link);
    memset(conn, 0, sizeof(*conn));
    conn->index = index;
    conn->service = service;
    conn->guest_port = guest_port;
    conn->host_port = host_port;
    LIST_INSERT_HEAD(bucket_of(&vsock->table, guest_port, host_port), conn, bucket_link);
    vsock->table.used++;
    return conn;
}

static void leave_due_list(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->in_due_list) {
        TAILQ_REMOVE(&vsock->table.due, conn, due_link);
        conn->in_due_list = false;
    }
}

void vsock_conn_set_deadline(struct vsock *vsock, struct vsock_conn *conn)
{
    vsock_conn_clear_deadline(vsock, conn);
    conn->deadline_ns = clock_monotonic_ns() + VSOCK_TIMEOUT_NS;
    TAILQ_INSERT_TAIL(&vsock->table.deadlines, conn, deadline_link);
}

void vsock_conn_clear_deadline(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->deadline_ns != 0) {
        TAILQ_REMOVE(&vsock->table.deadlines, conn, deadline_link);
        conn->deadline_ns = 0;
    }
}

/* Its service goes now, whatever is due still. */
static void end_service(struct vsock *vsock, struct vsock_conn *conn)
{
    const struct vsock_service *service = conn->service;

    conn->service = NULL;
    conn->readable = false;
    if (service != NULL) {
        service->gone(vsock, conn);
    }
}

static void free_conn(struct vsock *vsock, struct vsock_conn *conn)
{
    end_service(vsock, conn);
    leave_due_list(vsock, conn);
    vsock_conn_clear_deadline(vsock, conn);
    LIST_REMOVE(conn, bucket_link);
    LIST_INSERT_HEAD(&vsock->table.free, conn, bucket_link);
    conn->state = VSOCK_CONN_FREE;
    vsock->table.used--;
}

/* ---- Credit ---------------------------------------------------------------------------------- */

uint32_t vsock_conn_credit(const struct vsock_conn *conn)
{
    const uint32_t on_the_way = conn->sent_bytes - conn->peer_forwarded_bytes;

    /* A guest that has taken back room, or claims bytes that were never sent, gets no more. */
    return on_the_way > conn->peer_buf_alloc ? 0 : conn->peer_buf_alloc - on_the_way;
}

/* What the guest may send by what it was told. */
static uint32_t guest_credit(const struct vsock_conn *conn)
{
    return conn->buf_alloc - ((uint32_t)conn->received_bytes - conn->told_bytes);
}

/* ---- What is due ----------------------------------------------------------------------------- */

static bool can_send_data(const struct vsock_conn *conn)
{
    return conn->state == VSOCK_CONN_OPEN && conn->readable &&
           (conn->our_shutdown & VSOCK_SHUTDOWN_SEND) == 0 &&
           (conn->peer_shutdown & VSOCK_SHUTDOWN_RECEIVE) == 0 && vsock_conn_credit(conn) > 0;
}

static bool is_due(const struct vsock_conn *conn)
{
    return conn->due != 0 || can_send_data(conn);
}

static void note_due(struct vsock *vsock, struct vsock_conn *conn, unsigned due)
{
    conn->due |= due;
    if (!conn->in_due_list && is_due(conn)) {
        conn->in_due_list = true;
        TAILQ_INSERT_TAIL(&vsock->table.due, conn, due_link);
    }
}

/* Told a quarter of the room late at most, so that the guest need not wait, nor we tell much. */
void vsock_conn_forwarded(struct vsock *vsock, struct vsock_conn *conn, uint32_t bytes)
{
    conn->forwarded_bytes += bytes;
    if (conn->forwarded_bytes - conn->told_bytes >= conn->buf_alloc / 4) {
        note_due(vsock, conn, VSOCK_DUE_CREDIT_UPDATE);
    }
}

void vsock_conn_readable(struct vsock *vsock, struct vsock_conn *conn)
{
    conn->readable = true;
    note_due(vsock, conn, 0);
}

void vsock_conn_shutdown_send(struct vsock *vsock, struct vsock_conn *conn)
{
    conn->our_shutdown |= VSOCK_SHUTDOWN_SEND;
    note_due(vsock, conn, VSOCK_DUE_SHUTDOWN);
}

void vsock_conn_close(struct vsock *vsock, struct vsock_conn *conn)
{
    end_service(vsock, conn);
    conn->state = VSOCK_CONN_CLOSING;
    conn->our_shutdown = VSOCK_SHUTDOWN_BOTH;
    vsock_conn_set_deadline(vsock, conn);
    note_due(vsock, conn, VSOCK_DUE_SHUTDOWN);
}

void vsock_conn_close_and_forget(struct vsock *vsock, struct vsock_conn *conn)
{
    end_service(vsock, conn);
    conn->state = VSOCK_CONN_ENDING;
    conn->our_shutdown = VSOCK_SHUTDOWN_BOTH;
    note_due(vsock, conn, VSOCK_DUE_SHUTDOWN);
}

void vsock_conn_opened(struct vsock *vsock, struct vsock_conn *conn)
{
    vsock_conn_clear_deadline(vsock, conn);
    conn->state = VSOCK_CONN_OPEN;
    note_due(vsock, conn, VSOCK_DUE_RESPONSE);
}

void vsock_conn_cancel(struct vsock *vsock, struct vsock_conn *conn)
{
    if ((conn->due & VSOCK_DUE_REQUEST) != 0) {
        free_conn(vsock, conn);
    } else {
        vsock_conn_reset(vsock, conn);
    }
}

void vsock_conn_reset(struct vsock *vsock, struct vsock_conn *conn)
{
    end_service(vsock, conn);
    vsock_conn_clear_deadline(vsock, conn);
    conn->state = VSOCK_CONN_ENDING;
    conn->due = 0;
    note_due(vsock, conn, VSOCK_DUE_RST);
}

/* The guest gets a RST for what is no connection. There is room: vsock_can_take_packet(). */
static void refuse(struct vsock *vsock, const struct vsock_header *header)
{
    struct vsock_table *table = &vsock->table;
    const unsigned at = (table->refusals_first + table->refusals_count) % VSOCK_REFUSALS_MAX;

    if (header->op == VSOCK_OP_RST || table->refusals_count == VSOCK_REFUSALS_MAX) {
        return; /* RST is not answered, or two sides would say it to each other for ever */
    }
    table->refusals[at] = (struct vsock_refusal){.host_cid = header->dst_cid,
                                                 .host_port = header->dst_port,
                                                 .guest_port = header->src_port,
                                                 .type = header->type};
    table->refusals_count++;
}

/* A packet has passed. Of a service that is gone nobody wants to know. */
static void tell_service(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->service != NULL && conn->service->changed != NULL) {
        conn->service->changed(vsock, conn);
    }
}

/* ---- From the guest -------------------------------------------------------------------------- */

static const struct vsock_service *find_service(const struct vsock *vsock, uint32_t host_port)
{
    const struct vsock_service *service = vsock_stream_service(host_port);

    if (service == NULL && vsock->bridge != NULL) {
        service = &vsock_bridge_service;
    }
    return service;
}

static void take_credit(struct vsock *vsock, struct vsock_conn *conn,
                        const struct vsock_header *header)
{
    conn->peer_buf_alloc = header->buf_alloc;
    conn->peer_forwarded_bytes = header->fwd_cnt;
    if (vsock_conn_credit(conn) > 0) {
        conn->credit_asked = false;
        note_due(vsock, conn, 0);
    }
}

static void on_request(struct vsock *vsock, const struct vsock_header *header)
{
    const struct vsock_service *service = find_service(vsock, header->dst_port);
    struct vsock_conn *conn = NULL;
    int code = 0;

    if (service != NULL) {
        conn = take_conn(vsock, service, header->src_port, header->dst_port);
    }
    if (conn == NULL) {
        refuse(vsock, header);
        return;
    }
    code = service->open(vsock, conn);
    if (code < 0) {
        conn->service = NULL; /* it was never there */
        free_conn(vsock, conn);
        refuse(vsock, header);
        return;
    }
    conn->state = VSOCK_CONN_ASKED;
    take_credit(vsock, conn, header);
    if (code == VSOCK_OPEN_LATER) {
        vsock_conn_set_deadline(vsock, conn);
    } else {
        vsock_conn_opened(vsock, conn);
    }
}

static void on_response(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->state != VSOCK_CONN_REQUESTED || (conn->due & VSOCK_DUE_REQUEST) != 0) {
        vsock_conn_reset(vsock, conn); /* we did not ask */
        return;
    }
    vsock_conn_clear_deadline(vsock, conn);
    conn->state = VSOCK_CONN_OPEN;
    conn->service->accepted(vsock, conn);
}

static void on_data(struct vsock *vsock, struct vsock_conn *conn, const struct vsock_header *header,
                    const struct virtq_chain *chain)
{
    const uint64_t payload_bytes = chain->readable_bytes - VSOCK_HEADER_BYTES;

    if (conn->state == VSOCK_CONN_CLOSING) {
        return; /* it was on the way when we said that we take no more */
    }
    if (header->bytes > payload_bytes || header->bytes > guest_credit(conn) ||
        conn->state != VSOCK_CONN_OPEN || (conn->peer_shutdown & VSOCK_SHUTDOWN_SEND) != 0) {
        vsock->virtio.self->stats->request_errors++;
        vsock_conn_reset(vsock, conn);
        return;
    }
    conn->received_bytes += header->bytes;
    vsock->virtio.self->stats->bytes += header->bytes;
    if (conn->service->receive(vsock, conn, chain, header->bytes) < 0) {
        vsock_conn_reset(vsock, conn);
    }
}

static void on_shutdown(struct vsock *vsock, struct vsock_conn *conn,
                        const struct vsock_header *header)
{
    if (conn->state == VSOCK_CONN_REQUESTED || conn->state == VSOCK_CONN_ASKED) {
        vsock_conn_reset(vsock, conn);
        return;
    }
    conn->peer_shutdown |= header->flags & VSOCK_SHUTDOWN_BOTH;
    if (conn->state == VSOCK_CONN_OPEN) {
        conn->service->peer_shutdown(vsock, conn);
    } else if (conn->peer_shutdown == VSOCK_SHUTDOWN_BOTH) {
        vsock_conn_reset(vsock, conn); /* both sides are done */
    }
}

static void on_conn_packet(struct vsock *vsock, struct vsock_conn *conn,
                           const struct vsock_header *header, const struct virtq_chain *chain)
{
    take_credit(vsock, conn, header);
    switch (header->op) {
    case VSOCK_OP_RESPONSE:
        on_response(vsock, conn);
        break;
    case VSOCK_OP_RW:
        on_data(vsock, conn, header, chain);
        break;
    case VSOCK_OP_SHUTDOWN:
        on_shutdown(vsock, conn, header);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break; /* every packet is one */
    case VSOCK_OP_CREDIT_REQUEST:
        note_due(vsock, conn, VSOCK_DUE_CREDIT_UPDATE);
        break;
    default: /* a second REQUEST among them */
        vsock->virtio.self->stats->request_errors++;
        vsock_conn_reset(vsock, conn);
        break;
    }
}

void vsock_packet_from_guest(struct vsock *vsock, const struct vsock_header *header,
                             const struct virtq_chain *chain)
{
    struct vsock_conn *conn = NULL;

    vsock->virtio.self->stats->requests++;
    if (header->src_cid != VSOCK_CID_GUEST) {
        vsock->virtio.self->stats->request_errors++;
        return; /* nobody is there to be answered */
    }
    if (header->dst_cid != VSOCK_CID_HOST || header->type != VSOCK_TYPE_STREAM) {
        refuse(vsock, header);
        return;
    }
    conn = find_conn(vsock, header->src_port, header->dst_port);
    if (conn == NULL && header->op == VSOCK_OP_REQUEST) {
        on_request(vsock, header);
    } else if (conn == NULL) {
        refuse(vsock, header);
    } else if (header->op == VSOCK_OP_RST) {
        free_conn(vsock, conn);
    } else if (conn->state != VSOCK_CONN_ENDING) {
        on_conn_packet(vsock, conn, header, chain);
        tell_service(vsock, conn);
    }
}

bool vsock_can_take_packet(const struct vsock *vsock)
{
    return vsock->table.refusals_count < VSOCK_REFUSALS_MAX;
}

/* ---- To the guest ---------------------------------------------------------------------------- */

bool vsock_has_due(const struct vsock *vsock)
{
    return vsock->table.refusals_count > 0 || !TAILQ_EMPTY(&vsock->table.due);
}

static uint32_t put_header(const struct virtq_chain *chain, const struct vsock_header *header)
{
    return (uint32_t)virtq_chain_write(chain, 0, header, sizeof(*header));
}

static uint32_t put_refusal(struct vsock *vsock, const struct virtq_chain *chain)
{
    struct vsock_table *table = &vsock->table;
    const struct vsock_refusal *refusal = &table->refusals[table->refusals_first];
    const struct vsock_header header = {.src_cid = refusal->host_cid,
                                        .dst_cid = VSOCK_CID_GUEST,
                                        .src_port = refusal->host_port,
                                        .dst_port = refusal->guest_port,
                                        .type = refusal->type,
                                        .op = VSOCK_OP_RST};

    table->refusals_first = (table->refusals_first + 1) % VSOCK_REFUSALS_MAX;
    table->refusals_count--;
    return put_header(chain, &header);
}

/* Every packet tells the guest how far we are. */
static uint32_t put_packet(struct vsock_conn *conn, const struct virtq_chain *chain,
                           enum vsock_op op, uint32_t payload_bytes)
{
    const struct vsock_header header = {
        .src_cid = VSOCK_CID_HOST,
        .dst_cid = VSOCK_CID_GUEST,
        .src_port = conn->host_port,
        .dst_port = conn->guest_port,
        .bytes = payload_bytes,
        .type = VSOCK_TYPE_STREAM,
        .op = (uint16_t)op,
        .flags = op == VSOCK_OP_SHUTDOWN ? conn->our_shutdown : 0,
        .buf_alloc = conn->buf_alloc,
        .fwd_cnt = conn->forwarded_bytes,
    };

    conn->told_bytes = conn->forwarded_bytes;
    conn->due &= ~(unsigned)VSOCK_DUE_CREDIT_UPDATE;
    return put_header(chain, &header) + payload_bytes;
}

/* The chain's writable part behind the header, no more than `bytes` of it. */
static int payload_iov(const struct virtq_chain *chain, uint64_t bytes,
                       struct iovec iov[VIRTQ_SEGMENTS_MAX])
{
    const struct virtq_segment *segments = chain->segments + chain->readable_count;
    uint64_t skip_bytes = VSOCK_HEADER_BYTES;
    int count = 0;

    for (unsigned i = 0; i < chain->writable_count && bytes > 0; i++) {
        const uint64_t skipped_bytes = min_u64(skip_bytes, segments[i].bytes);
        const uint64_t part_bytes = min_u64(segments[i].bytes - skipped_bytes, bytes);

        skip_bytes -= skipped_bytes;
        bytes -= part_bytes;
        if (part_bytes > 0) {
            iov[count++] = (struct iovec){.iov_base = (uint8_t *)segments[i].host + skipped_bytes,
                                          .iov_len = (size_t)part_bytes};
        }
    }
    return count;
}

/* Bytes written, header included; 0: there were none after all. */
static uint32_t put_data(struct vsock *vsock, struct vsock_conn *conn,
                         const struct virtq_chain *chain)
{
    struct iovec iov[VIRTQ_SEGMENTS_MAX];
    const int count = payload_iov(chain, vsock_conn_credit(conn), iov);
    uint64_t room_bytes = 0;
    ssize_t bytes = 0;

    if (count == 0) {
        /* A buffer without room for data must be used up all the same: the next may be larger. */
        return put_packet(conn, chain, VSOCK_OP_CREDIT_UPDATE, 0);
    }
    bytes = conn->service->fetch(vsock, conn, iov, count);
    if (bytes <= 0) {
        conn->readable = false;
        if (bytes < 0) {
            vsock_conn_reset(vsock, conn);
        }
        return 0;
    }
    for (int i = 0; i < count; i++) {
        room_bytes += iov[i].iov_len;
    }
    conn->readable = (uint64_t)bytes == room_bytes; /* else that was all for now */
    conn->sent_bytes += (uint32_t)bytes;
    vsock->virtio.self->stats->bytes += (uint64_t)bytes;
    if (vsock_conn_credit(conn) == 0 && !conn->credit_asked) {
        conn->credit_asked = true;
        conn->due |= VSOCK_DUE_CREDIT_REQUEST;
    }
    return put_packet(conn, chain, VSOCK_OP_RW, (uint32_t)bytes);
}

static uint32_t put_rst(struct vsock *vsock, struct vsock_conn *conn,
                        const struct virtq_chain *chain)
{
    const uint32_t written_bytes = put_packet(conn, chain, VSOCK_OP_RST, 0);

    free_conn(vsock, conn);
    return written_bytes;
}

static uint32_t put_request(struct vsock *vsock, struct vsock_conn *conn,
                            const struct virtq_chain *chain)
{
    vsock_conn_set_deadline(vsock, conn);
    return put_packet(conn, chain, VSOCK_OP_REQUEST, 0);
}

static uint32_t put_shutdown(struct vsock *vsock, struct vsock_conn *conn,
                             const struct virtq_chain *chain)
{
    const uint32_t written_bytes = put_packet(conn, chain, VSOCK_OP_SHUTDOWN, 0);

    if (conn->state == VSOCK_CONN_ENDING) {
        free_conn(vsock, conn);
    } else if (conn->state == VSOCK_CONN_CLOSING) {
        vsock_conn_set_deadline(vsock, conn);
    }
    return written_bytes;
}

/* Whether this is due; then it is not any more. */
static bool take_due(struct vsock_conn *conn, enum vsock_due due)
{
    const bool was_due = (conn->due & (unsigned)due) != 0;

    conn->due &= ~(unsigned)due;
    return was_due;
}

/* The connection's next packet, in the order in which they may follow each other. 0: none. */
static uint32_t put_conn_packet(struct vsock *vsock, struct vsock_conn *conn,
                                const struct virtq_chain *chain)
{
    if (take_due(conn, VSOCK_DUE_REQUEST)) {
        return put_request(vsock, conn, chain);
    }
    if (take_due(conn, VSOCK_DUE_RESPONSE)) {
        return put_packet(conn, chain, VSOCK_OP_RESPONSE, 0);
    }
    if (can_send_data(conn)) {
        const uint32_t written_bytes = put_data(vsock, conn, chain);

        if (written_bytes > 0) {
            return written_bytes;
        }
    }
    if (take_due(conn, VSOCK_DUE_RST)) { /* which leaves nothing else due */
        return put_rst(vsock, conn, chain);
    }
    if (take_due(conn, VSOCK_DUE_SHUTDOWN)) {
        return put_shutdown(vsock, conn, chain);
    }
    if (take_due(conn, VSOCK_DUE_CREDIT_UPDATE)) {
        return put_packet(conn, chain, VSOCK_OP_CREDIT_UPDATE, 0);
    }
    if (take_due(conn, VSOCK_DUE_CREDIT_REQUEST)) {
        return put_packet(conn, chain, VSOCK_OP_CREDIT_REQUEST, 0);
    }
    return 0;
}

uint32_t vsock_packet_to_guest(struct vsock *vsock, const struct virtq_chain *chain)
{
    struct vsock_conn *conn = TAILQ_FIRST(&vsock->table.due);
    uint32_t written_bytes = 0;

    if (vsock->table.refusals_count > 0) {
        return put_refusal(vsock, chain);
    }
    if (conn == NULL) {
        return 0;
    }
    leave_due_list(vsock, conn);
    written_bytes = put_conn_packet(vsock, conn, chain);
    if (conn->state != VSOCK_CONN_FREE) {
        note_due(vsock, conn, 0); /* the next one when all others had their turn */
        tell_service(vsock, conn);
    }
    return written_bytes;
}

/* ---- Ports, deadlines, the end --------------------------------------------------------------- */

bool vsock_ports_used(struct vsock *vsock, uint32_t guest_port, uint32_t host_port)
{
    return find_conn(vsock, guest_port, host_port) != NULL;
}

struct vsock_conn *vsock_conn_request(struct vsock *vsock, const struct vsock_service *service,
                                      uint32_t guest_port, uint32_t host_port)
{
    struct vsock_conn *conn = NULL;

    if (!vsock_ports_used(vsock, guest_port, host_port)) {
        conn = take_conn(vsock, service, guest_port, host_port);
    }
    if (conn != NULL) {
        conn->state = VSOCK_CONN_REQUESTED;
        note_due(vsock, conn, VSOCK_DUE_REQUEST);
    }
    return conn;
}

uint64_t vsock_next_deadline_ns(const struct vsock *vsock)
{
    const struct vsock_conn *first = TAILQ_FIRST(&vsock->table.deadlines);

    return first != NULL ? first->deadline_ns : 0;
}

void vsock_expire(struct vsock *vsock, uint64_t now_ns)
{
    struct vsock_conn *conn = NULL;

    while ((conn = TAILQ_FIRST(&vsock->table.deadlines)) != NULL && conn->deadline_ns <= now_ns) {
        vsock_conn_reset(vsock, conn);
    }
}

unsigned vsock_drop_all(struct vsock *vsock, bool keep_requests)
{
    struct vsock_table *table = &vsock->table;
    unsigned dropped = 0;

    table->refusals_count = 0;
    for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX && table->used > 0; i++) {
        struct vsock_conn *conn = &table->conns[i];

        if (conn->state != VSOCK_CONN_FREE &&
            !(keep_requests && (conn->due & VSOCK_DUE_REQUEST) != 0)) {
            free_conn(vsock, conn);
            dropped++;
        }
    }
    return dropped;
}
