/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_packet.h: what goes over the queues of a virtio-vsock device.
 * Source: virtio 1.1, section 5.10.6.
 */
#ifndef BVMM_ACTORS_VSOCK_PACKET_H
#define BVMM_ACTORS_VSOCK_PACKET_H

#include "base/base.h"

enum vsock_queue { VSOCK_QUEUE_RX = 0, VSOCK_QUEUE_TX = 1, VSOCK_QUEUE_EVENT = 2, VSOCK_QUEUES };

enum vsock_type { VSOCK_TYPE_STREAM = 1 };

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

/* Flags of SHUTDOWN: what the sender of the packet will not do any more. */
#define VSOCK_SHUTDOWN_RECEIVE 1U
#define VSOCK_SHUTDOWN_SEND 2U
#define VSOCK_SHUTDOWN_BOTH (VSOCK_SHUTDOWN_RECEIVE | VSOCK_SHUTDOWN_SEND)

/* All little endian, as hosts and guests of bvmm are (guest_memory.h refuses others). */
struct vsock_header {
    uint64_t src_cid;
    uint64_t dst_cid;
    uint32_t src_port;
    uint32_t dst_port;
    uint32_t bytes; /* of payload behind the header ("len") */
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buf_alloc; /* the sender's room for this connection, in bytes */
    uint32_t fwd_cnt;   /* how many bytes it has taken out of it, modulo 2^32 */
} __attribute__((packed));
#define VSOCK_HEADER_BYTES 44U
_Static_assert(sizeof(struct vsock_header) == VSOCK_HEADER_BYTES, "the wire format");

/* What is written into a buffer of the event queue. */
struct vsock_event {
    uint32_t id;
};
#define VSOCK_EVENT_TRANSPORT_RESET 0U

struct vsock_config {
    uint64_t guest_cid;
} __attribute__((packed));

#endif
