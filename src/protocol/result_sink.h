/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * result_sink.h: what becomes of the frames of bvmm's init: bytes go into the run record's streams,
 * events go to the actor that owns the sink, which tells them to the supervisor.
 *
 * The sink believes nothing: streams must begin at 0 and go on without a hole, or they are BROKEN
 * and keep the part before the hole; frames that come twice or too late are ignored and counted;
 * what does not make sense is refused and counted.
 *
 * One sink for each way in (serial actor, vsock actor's control connection). Thread: that actor.
 * No system calls, no allocation, nothing blocks.
 */
#ifndef BVMM_PROTOCOL_RESULT_SINK_H
#define BVMM_PROTOCOL_RESULT_SINK_H

#include "protocol/frame.h"

enum result_event_kind {
    RESULT_NOTHING,    /* nothing that anybody needs to be told */
    RESULT_HELLO,      /* guest_ns, version, via */
    RESULT_START,      /* guest_ns */
    RESULT_END,        /* end, wait_status */
    RESULT_ANNOUNCE,   /* a manifest is whole: [offset_bytes, + length_bytes) of STREAM_ANNOUNCED */
    RESULT_STREAM_END, /* stream, state, sent_bytes; it is the supervisor's from here on */
    RESULT_BYE,
    RESULT_FATAL, /* its text: [offset_bytes, + length_bytes) of STREAM_CONTROL */
};

struct result_event {
    enum result_event_kind kind;
    enum stream_id stream;   /* STREAM_END */
    enum stream_state state; /* STREAM_END: COMPLETE or BROKEN */
    uint32_t version;        /* HELLO: GUEST_JOB_VERSION of the guest */
    uint32_t via;            /* HELLO: as the guest says it; may be any number */
    uint64_t guest_ns;       /* HELLO, START, END */
    uint64_t sent_bytes;     /* STREAM_END: as the guest counted */
    uint64_t offset_bytes;   /* ANNOUNCE, FATAL */
    uint64_t length_bytes;   /* ANNOUNCE, FATAL */
    struct frame_end end;    /* END */
};

struct result_sink {
    struct record *record;
    enum stream_via via;
    uint32_t next_sequence;
    uint64_t frames;                       /* taken */
    uint64_t lost_frames;                  /* gaps in the sequence, added up */
    uint64_t stale_frames;                 /* came twice or too late: ignored */
    uint64_t refused_frames;               /* made no sense: ignored */
    uint64_t announced_base;               /* STREAM_ANNOUNCED's length when the sink claimed it */
    uint64_t announced_from;               /* where in it the manifest that is coming in begins */
    uint64_t received_bytes[STREAM_COUNT]; /* in order and without a hole */
    bool mine[STREAM_COUNT];               /* claimed by this sink, and not ended */
};

void result_sink_init(struct result_sink *sink, struct record *record, enum stream_via via);

/*
 * result_sink_frame - take one frame that the decoder found good.
 * Return: what is to be told to the supervisor.
 */
struct result_event result_sink_frame(struct result_sink *sink, const struct frame_header *header,
                                      const uint8_t *payload);

/*
 * result_sink_abandon - the way in is broken (vsock control connection lost, or its frames
 * damaged): let go of every stream that had not ended, so that the guest can send it another way.
 */
void result_sink_abandon(struct result_sink *sink);

/*
 * result_stream_claim - become the one writer of a stream of the record.
 *
 * A stream has one writer at a time. It is free until somebody claims it, and again when its
 * writer has let go of it broken: then the guest sends it once more another way, and it begins
 * anew, empty. The vsock actor claims a stream when a connection to its port comes, this sink when
 * the first frame does.
 * Return: 0; -EBUSY: it has a writer; -EALREADY: it is complete.
 */
int result_stream_claim(struct record *record, enum stream_id stream, enum stream_via via);

/*
 * result_stream_release - let go of a stream that was claimed.
 * @state: STREAM_COMPLETE, or STREAM_BROKEN (may be claimed again). The last act of its writer.
 */
void result_stream_release(struct record *record, enum stream_id stream, enum stream_state state);

#endif
