/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_stream.h: the ports on which results arrive.
 *
 *     5000 stdout, 5001 stderr, 5002 exit code, 5005 output   raw bytes, until the guest closes
 *     5003                                                    frames of bvmm's init (protocol.h)
 *
 * The bytes go from guest memory into the run record: one copy, nothing in between. So the guest
 * always has credit, also when a stream is over its limit and the rest is counted only.
 */
#ifndef BVMM_ACTORS_VSOCK_STREAM_H
#define BVMM_ACTORS_VSOCK_STREAM_H

#include "actors/collector.h"
#include "actors/vsock_conn.h"

/* How much the guest may have on the way: enough that it rarely waits for us to tell it more. */
#define VSOCK_STREAM_CREDIT_BYTES (1U << 20)

struct vsock_streams {
    struct collector collector;
    struct frame_decoder decoder;
    bool control_open; /* one control connection at a time */
};

void vsock_streams_init(struct vsock_streams *streams, struct actor *self);

/* The service behind a port, or NULL. */
const struct vsock_service *vsock_stream_service(uint32_t host_port);

#endif
