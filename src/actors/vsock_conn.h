/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_conn.h: connections of the vsock actor: their table, their state machine, and credit.
 *
 *          guest's REQUEST                                  host's CONNECT (bridge)
 *                 │   a service takes it                             │
 *                 ├───────────────┐                                  ▼
 *                 ▼               ▼                RESPONSE
 *              ASKED ──done──►  OPEN ◄────────────────────────── REQUESTED ──2 s──► ENDING
 *                 └──2 s──► ENDING│
 *                                 │
 *     FREE ◄──RST───────────┬─────┘
 *       ▲                   │ we said SHUTDOWN, both halves
 *       │                   ├──────────────► CLOSING ──RST──► FREE;  ──2 s──► ENDING
 *       │ last packet sent  ▼ all is done, or something is wrong
 *       └──────────────── ENDING
 *
 * What is due to the guest is kept as flags of the connection, never as packets. So a guest that
 * hands us no buffers makes nothing grow. Connections with something due wait in one list, and each
 * gets one packet in turn.
 *
 * A connection does not know what is behind its port: that is its service (vsock_stream.c,
 * vsock_bridge.c).
 *
 * Credit. The guest may have `buf_alloc` bytes on the way that it was not told of as forwarded; one
 * that sends more is reset. In the other direction it is the same with the guest's numbers. All
 * counters are modulo 2^32, as section 5.10.6.3 has them.
 *
 * Thread: the vsock actor. Nothing here blocks, allocates, or makes a system call but
 * clock_gettime (where it is one), and that only for connections of the bridge.
 */
#ifndef BVMM_ACTORS_VSOCK_CONN_H
#define BVMM_ACTORS_VSOCK_CONN_H

#include <sys/queue.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "actors/vsock_packet.h"
#include "base/record.h"
#include "virtio/virtqueue.h"

#define VSOCK_CONNECTIONS_MAX 1023
#define VSOCK_BUCKETS 1024 /* power of two */
/* RSTs to what is no connection of ours. When they are full, no more is taken from the guest. */
#define VSOCK_REFUSALS_MAX 64
#define VSOCK_TIMEOUT_NS (2 * NS_PER_SECOND) /* for an answer to REQUEST, and to SHUTDOWN */

struct vsock;
struct vsock_conn;

#define VSOCK_OPEN_LATER 1

/* What is behind a host port. */
struct vsock_service {
    const char *name;
    /* The guest asks to connect. 0; VSOCK_OPEN_LATER: vsock_conn_opened() follows; -errno: refused.
     */
    int (*open)(struct vsock *vsock, struct vsock_conn *conn);
    /* The guest has accepted what we asked for. May be NULL: this service never asks. */
    void (*accepted)(struct vsock *vsock, struct vsock_conn *conn);
    /*
     * `bytes` of payload, in the readable part behind the header; credit was checked. The service
     * says how much it has forwarded (vsock_conn_forwarded). 0, or -errno: reset the connection.
     */
    int (*receive)(struct vsock *vsock, struct vsock_conn *conn, const struct virtq_chain *chain,
                   uint32_t bytes);
    /* conn->peer_shutdown has changed. */
    void (*peer_shutdown)(struct vsock *vsock, struct vsock_conn *conn);
    /*
     * Bytes for the guest, called while conn->readable. Return: how many; 0: none now (readable was
     * cleared, something else may be due); -errno: reset the connection. May be NULL.
     */
    ssize_t (*fetch)(struct vsock *vsock, struct vsock_conn *conn, const struct iovec *iov,
                     int count);
    /* A packet from or to the guest may have changed state, credit or conn->readable. May be NULL. */
    void (*changed)(struct vsock *vsock, struct vsock_conn *conn);
    /* The connection is over, however: let go of everything. Called once. */
    void (*gone)(struct vsock *vsock, struct vsock_conn *conn);
};

enum vsock_conn_state {
    VSOCK_CONN_FREE,
    VSOCK_CONN_REQUESTED, /* we ask, the guest has not answered */
    VSOCK_CONN_ASKED,     /* the guest asks, the service is not done yet */
    VSOCK_CONN_OPEN,
    VSOCK_CONN_CLOSING, /* we said SHUTDOWN, both halves, and wait for RST; no service any more */
    VSOCK_CONN_ENDING,  /* what is due is its last packet; no service any more */
};

enum vsock_due {
    VSOCK_DUE_RST = 1,
    VSOCK_DUE_REQUEST = 2,
    VSOCK_DUE_RESPONSE = 4,
    VSOCK_DUE_SHUTDOWN = 8, /* with conn->our_shutdown as flags */
    VSOCK_DUE_CREDIT_UPDATE = 16,
    VSOCK_DUE_CREDIT_REQUEST = 32,
};

struct vsock_conn {
    enum vsock_conn_state state;
    uint32_t guest_port;
    uint32_t host_port;
    const struct vsock_service *service;
    unsigned due;           /* set of VSOCK_DUE_... */
    uint32_t our_shutdown;  /* VSOCK_SHUTDOWN_...; told, or due */
    uint32_t peer_shutdown; /* VSOCK_SHUTDOWN_..., as the guest told */
    bool readable;          /* service->fetch may have something */

    /* From the guest. */
    uint32_t buf_alloc;       /* how much of it we take in advance */
    uint64_t received_bytes;  /* all; modulo 2^32 for credit */
    uint32_t forwarded_bytes; /* of these: what is off our hands, modulo 2^32 */
    uint32_t told_bytes;      /* forwarded_bytes as the guest knows it */

    /* To the guest. */
    uint32_t peer_buf_alloc;
    uint32_t peer_forwarded_bytes;
    uint32_t sent_bytes;
    bool credit_asked; /* CREDIT_REQUEST was sent, and no credit has come since */

    uint64_t deadline_ns; /* 0: none */
    bool in_due_list;
    uint16_t index; /* in the table */
    TAILQ_ENTRY(vsock_conn) due_link;
    TAILQ_ENTRY(vsock_conn) deadline_link;
    TAILQ_ENTRY(vsock_conn) service_link; /* for its service: a list of its own */
    LIST_ENTRY(vsock_conn) bucket_link;   /* in a bucket, or in the list of free ones */

    enum stream_id stream; /* vsock_stream.c */
};

TAILQ_HEAD(vsock_conn_list, vsock_conn);
LIST_HEAD(vsock_bucket, vsock_conn);

/* A RST that is due to an address that is no connection of ours. */
struct vsock_refusal {
    uint64_t host_cid; /* as the guest has it */
    uint32_t host_port;
    uint32_t guest_port;
    uint16_t type;
};

struct vsock_table {
    struct vsock_conn conns[VSOCK_CONNECTIONS_MAX];
    struct vsock_bucket buckets[VSOCK_BUCKETS];
    struct vsock_bucket free;
    unsigned used;
    struct vsock_conn_list due;       /* in turn */
    struct vsock_conn_list deadlines; /* ascending: all are VSOCK_TIMEOUT_NS after they were set */
    struct vsock_refusal refusals[VSOCK_REFUSALS_MAX];
    unsigned refusals_first;
    unsigned refusals_count;
};

void vsock_table_init(struct vsock_table *table);

/* ---- For vsock.c ----------------------------------------------------------------------------- */

/* A packet from the guest; its header is a copy that was not checked. */
void vsock_packet_from_guest(struct vsock *vsock, const struct vsock_header *header,
                             const struct virtq_chain *chain);

/* Whether a packet can be taken now: if not, the guest must hand out buffers first. */
bool vsock_can_take_packet(const struct vsock *vsock);

/* Whether anything is due to the guest. */
bool vsock_has_due(const struct vsock *vsock);

/*
 * vsock_packet_to_guest - put what is due next into a chain with room for a header at least.
 * Return: bytes written; 0: it turned out that nothing is due now.
 */
uint32_t vsock_packet_to_guest(struct vsock *vsock, const struct virtq_chain *chain);

/*
 * The guest's driver has forgotten all connections. @keep_requests: those of ours that the guest
 * has not seen yet stay due. Return: how many it had known.
 */
unsigned vsock_drop_all(struct vsock *vsock, bool keep_requests);

/* When vsock_expire() has something to do; 0: never. */
uint64_t vsock_next_deadline_ns(const struct vsock *vsock);
void vsock_expire(struct vsock *vsock, uint64_t now_ns);

/* ---- For services ---------------------------------------------------------------------------- */

/* A connection to be asked for by the host: REQUESTED. NULL: all are in use, or the ports are. */
struct vsock_conn *vsock_conn_request(struct vsock *vsock, const struct vsock_service *service,
                                      uint32_t guest_port, uint32_t host_port);

/* Whether there is a connection with these ports. */
bool vsock_ports_used(struct vsock *vsock, uint32_t guest_port, uint32_t host_port);

/* `bytes` more of what came are off our hands. */
void vsock_conn_forwarded(struct vsock *vsock, struct vsock_conn *conn, uint32_t bytes);

/* How much more the guest takes. */
uint32_t vsock_conn_credit(const struct vsock_conn *conn);

/* fetch() has something, or may have. */
void vsock_conn_readable(struct vsock *vsock, struct vsock_conn *conn);

/* Tell the guest that we send no more; it may go on. */
void vsock_conn_shutdown_send(struct vsock *vsock, struct vsock_conn *conn);

/* We are done with it: SHUTDOWN of both halves, and 2 s for the guest to say RST. */
void vsock_conn_close(struct vsock *vsock, struct vsock_conn *conn);

/* The same, but the guest's answer is not waited for. */
void vsock_conn_close_and_forget(struct vsock *vsock, struct vsock_conn *conn);

/* What open() left for later is done: the guest gets its RESPONSE. */
void vsock_conn_opened(struct vsock *vsock, struct vsock_conn *conn);

/* We do not ask any more. If the guest has not seen that we did, it never will. */
void vsock_conn_cancel(struct vsock *vsock, struct vsock_conn *conn);

/* RST, whatever its state. */
void vsock_conn_reset(struct vsock *vsock, struct vsock_conn *conn);

/* In VSOCK_TIMEOUT_NS it is reset. */
void vsock_conn_set_deadline(struct vsock *vsock, struct vsock_conn *conn);
void vsock_conn_clear_deadline(struct vsock *vsock, struct vsock_conn *conn);

#endif
