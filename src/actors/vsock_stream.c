/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_stream.c: results that arrive over vsock. See vsock_stream.h; the outcomes of all that a
 * guest may do are in docs/vsock.md.
 *
 * Thread: vsock. Never blocks. System calls: those of collector.h; write (the supervisor's
 * doorbell).
 */
#include "actors/vsock_stream.h"

#include <errno.h>

#include "actors/vsock.h"

#define CONTROL_PIECE_BYTES 4096

/* ---- Results --------------------------------------------------------------------------------- */

static struct record *record_of(struct vsock *vsock)
{
    return vsock->virtio.self->record;
}

/* The port's stream. STREAM_COUNT: none. */
static enum stream_id port_stream(uint32_t host_port)
{
    switch (host_port) {
#define X(id, name, port)                                                                          \
    case port:                                                                                     \
        return STREAM_##id;
        STREAM_LIST(X)
#undef X
    default:
        return STREAM_COUNT;
    }
}

/* The first connection has the stream; it begins anew only after a connection that broke. */
static int stream_open(struct vsock *vsock, struct vsock_conn *conn)
{
    const enum stream_id stream = port_stream(conn->host_port);
    const int code = result_stream_claim(record_of(vsock), stream, VIA_VSOCK);

    if (code == 0) {
        conn->buf_alloc = VSOCK_STREAM_CREDIT_BYTES;
        conn->stream = stream;
    }
    return code;
}

static int stream_receive(struct vsock *vsock, struct vsock_conn *conn,
                          const struct virtq_chain *chain, uint32_t bytes)
{
    uint64_t skip_bytes = VSOCK_HEADER_BYTES;
    uint64_t left_bytes = bytes;

    for (unsigned i = 0; i < chain->readable_count && left_bytes > 0; i++) {
        const struct virtq_segment *segment = &chain->segments[i];
        const uint64_t skipped_bytes = min_u64(skip_bytes, segment->bytes);
        const uint64_t part_bytes = min_u64(segment->bytes - skipped_bytes, left_bytes);

        record_append(record_of(vsock), conn->stream,
                      (const uint8_t *)segment->host + skipped_bytes, (size_t)part_bytes);
        skip_bytes -= skipped_bytes;
        left_bytes -= part_bytes;
    }
    vsock_conn_forwarded(vsock, conn, bytes);
    return 0;
}

/* Let go of the stream, once. */
static void stream_release(struct vsock *vsock, struct vsock_conn *conn, enum stream_state state)
{
    if (conn->stream != STREAM_COUNT) {
        result_stream_release(record_of(vsock), conn->stream, state);
        conn->stream = STREAM_COUNT;
    }
}

/* The guest sends no more: that is the end of the stream. We have all of it, and say so. */
static void stream_peer_shutdown(struct vsock *vsock, struct vsock_conn *conn)
{
    const enum stream_id stream = conn->stream;

    if ((conn->peer_shutdown & VSOCK_SHUTDOWN_SEND) == 0) {
        return;
    }
    stream_release(vsock, conn, STREAM_COMPLETE);
    /* Told once for each stream, since a complete one is never claimed again. */
    collector_tell_stream_end(vsock->virtio.self, stream, STREAM_COMPLETE, VIA_VSOCK,
                              conn->received_bytes);
    if (conn->peer_shutdown == VSOCK_SHUTDOWN_BOTH) {
        vsock_conn_reset(vsock, conn); /* which answers a SHUTDOWN of both halves: all is well */
    } else {
        vsock_conn_close_and_forget(vsock, conn);
    }
}

/* At the end of the run this is not called: streams stay open in the record, as cut short. */
static void stream_gone(struct vsock *vsock, struct vsock_conn *conn)
{
    stream_release(vsock, conn, STREAM_BROKEN);
}

static const struct vsock_service stream_service = {
    .name = "stream",
    .open = stream_open,
    .receive = stream_receive,
    .peer_shutdown = stream_peer_shutdown,
    .gone = stream_gone,
};

/* ---- Control --------------------------------------------------------------------------------- */

static void control_on_frame(void *context, const struct frame_header *header,
                             const uint8_t *payload)
{
    struct vsock_streams *streams = context;

    collector_frame(&streams->collector, header, payload);
}

static const struct frame_decoder_ops control_decoder_ops = {.on_frame = control_on_frame};

/* Each connection counts its frames from 0. How much the supervisor is told is bounded over all. */
static int control_open(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_streams *streams = &vsock->streams;
    struct record *record = record_of(vsock);

    if (streams->control_open) {
        return -EBUSY;
    }
    streams->control_open = true;
    result_sink_init(&streams->collector.sink, record, VIA_VSOCK);
    frame_decoder_init(&streams->decoder, FRAME_MODE_PURE, record->nonce, &control_decoder_ops,
                       streams);
    conn->buf_alloc = VSOCK_STREAM_CREDIT_BYTES;
    return 0;
}

/* By way of a buffer of our own: the guest may change its memory while a frame is judged. */
static int control_receive(struct vsock *vsock, struct vsock_conn *conn,
                           const struct virtq_chain *chain, uint32_t bytes)
{
    struct frame_decoder *decoder = &vsock->streams.decoder;
    uint8_t piece[CONTROL_PIECE_BYTES];

    for (uint32_t done = 0; done < bytes;) {
        const size_t part_bytes =
            virtq_chain_read(chain, VSOCK_HEADER_BYTES + (uint64_t)done, piece,
                             (size_t)min_u64(sizeof(piece), bytes - done));

        frame_decoder_feed(decoder, piece, part_bytes);
        done += (uint32_t)part_bytes;
    }
    vsock_conn_forwarded(vsock, conn, bytes);
    return decoder->broken ? -EPROTO : 0;
}

static void control_peer_shutdown(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->peer_shutdown == VSOCK_SHUTDOWN_BOTH) {
        vsock_conn_reset(vsock, conn);
    } else if ((conn->peer_shutdown & VSOCK_SHUTDOWN_SEND) != 0) {
        vsock_conn_close_and_forget(vsock, conn);
    }
}

/* What init has not finished here it may send another way. */
static void control_gone(struct vsock *vsock, struct vsock_conn *conn)
{
    (void)conn;
    vsock->streams.control_open = false;
    result_sink_abandon(&vsock->streams.collector.sink);
}

static const struct vsock_service control_service = {
    .name = "control",
    .open = control_open,
    .receive = control_receive,
    .peer_shutdown = control_peer_shutdown,
    .gone = control_gone,
};

/* ---- Which port is what ---------------------------------------------------------------------- */

void vsock_streams_init(struct vsock_streams *streams, struct actor *self)
{
    collector_init(&streams->collector, self, VIA_VSOCK);
    streams->control_open = false;
}

const struct vsock_service *vsock_stream_service(uint32_t host_port)
{
    const enum stream_id stream = host_port == 0 ? STREAM_COUNT : port_stream(host_port);

    if (stream == STREAM_COUNT) {
        return NULL;
    }
    return stream == STREAM_CONTROL ? &control_service : &stream_service;
}
