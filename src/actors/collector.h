/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * collector.h: from what the guest's init says (frames) to what the supervisor is told (messages).
 * Shared by the two actors through which results arrive, serial and vsock.
 *
 * Thread: the actor that owns the collector. Never blocks. System calls: clock_gettime, if the
 * host's clock is not readable without one.
 */
#ifndef BVMM_ACTORS_COLLECTOR_H
#define BVMM_ACTORS_COLLECTOR_H

#include "actors/actor.h"
#include "protocol/result_sink.h"

/*
 * How many frames of each kind are passed on: the guest's init needs a few, and a guest that sends
 * more must not be able to fill the supervisor's lane.
 */
#define COLLECTOR_EVENTS_MAX 14

struct collector {
    struct actor *self;
    struct result_sink sink;
    unsigned events_told;
    bool bye_told;
};

void collector_init(struct collector *collector, struct actor *self, enum stream_via via);

/* One good frame, from frame_decoder's on_frame. */
void collector_frame(struct collector *collector, const struct frame_header *header,
                     const uint8_t *payload);

/* A stream has ended, however: its bytes belong to the supervisor now. */
void collector_tell_stream_end(struct actor *self, enum stream_id stream, enum stream_state state,
                               enum stream_via via, uint64_t sent_bytes);

#endif
