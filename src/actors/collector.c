/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * collector.c: from frames to messages. See collector.h.
 *
 * Thread: serial or vsock. Never blocks.
 */
#include "actors/collector.h"

void collector_init(struct collector *collector, struct actor *self, enum stream_via via)
{
    collector->self = self;
    collector->events_told = 0;
    collector->bye_told = false;
    result_sink_init(&collector->sink, self->record, via);
}

static void tell(struct collector *collector, const struct msg *msg)
{
    actor_tell(collector->self, ACTOR_ID_SUPERVISOR, msg);
}

void collector_tell_stream_end(struct actor *self, enum stream_id stream, enum stream_state state,
                               enum stream_via via, uint64_t sent_bytes)
{
    const struct msg msg = {.kind = MSG_STREAM_END,
                            .stream = {.sent_bytes = sent_bytes,
                                       .stream = (uint32_t)stream,
                                       .state = (uint32_t)state,
                                       .via = (uint32_t)via}};

    actor_tell(self, ACTOR_ID_SUPERVISOR, &msg);
}

static void tell_init(struct collector *collector, enum msg_kind kind, uint64_t guest_ns)
{
    tell(collector, &(struct msg){.kind = (uint16_t)kind,
                                  .init = {.guest_ns = guest_ns,
                                           .host_ns = clock_monotonic_ns(),
                                           .via = (uint32_t)collector->sink.via}});
}

static void tell_end(struct collector *collector, const struct frame_end *end)
{
    tell(collector, &(struct msg){.kind = MSG_COMMAND_END,
                                  .span = {.guest_start_ns = end->start_boottime_ns,
                                           .guest_end_ns = end->boottime_ns,
                                           .host_ns = clock_monotonic_ns()}});
    tell(collector, &(struct msg){.kind = MSG_COMMAND_USAGE,
                                  .usage = {.user_ns = end->user_ns,
                                            .system_ns = end->system_ns,
                                            .peak_rss_bytes = end->peak_rss_bytes}});
    tell(collector,
         &(struct msg){.kind = MSG_COMMAND_EXIT,
                       .exit = {.wait_status = end->wait_status, .oom_kills = end->oom_kills}});
}

static void tell_text(struct collector *collector, enum msg_kind kind,
                      const struct result_event *event)
{
    tell(collector, &(struct msg){.kind = (uint16_t)kind,
                                  .text = {.offset_bytes = event->offset_bytes,
                                           .length_bytes = event->length_bytes}});
}

static void collector_event(struct collector *collector, const struct result_event *event)
{
    switch (event->kind) {
    case RESULT_NOTHING:
        break;
    case RESULT_HELLO:
        tell_init(collector, MSG_INIT_HELLO, event->guest_ns);
        break;
    case RESULT_START:
        tell_init(collector, MSG_COMMAND_START, event->guest_ns);
        break;
    case RESULT_END:
        tell_end(collector, &event->end);
        break;
    case RESULT_ANNOUNCE:
        tell_text(collector, MSG_INIT_MANIFEST, event);
        break;
    case RESULT_STREAM_END:
        collector_tell_stream_end(collector->self, event->stream, event->state, collector->sink.via,
                                  event->sent_bytes);
        break;
    case RESULT_BYE:
        collector->bye_told = true;
        tell_init(collector, MSG_INIT_BYE, 0);
        break;
    case RESULT_FATAL:
        tell_text(collector, MSG_INIT_FATAL, event);
        break;
    }
}

void collector_frame(struct collector *collector, const struct frame_header *header,
                     const uint8_t *payload)
{
    const struct result_event event = result_sink_frame(&collector->sink, header, payload);

    if (event.kind == RESULT_NOTHING || collector->bye_told ||
        collector->events_told >= COLLECTOR_EVENTS_MAX) {
        return;
    }
    collector->events_told++;
    collector_event(collector, &event);
}
