/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * result_sink.c: applies frames to the run record. Thread: the actor that owns the sink.
 */
#include "protocol/result_sink.h"

#include <errno.h>
#include <string.h>

void result_sink_init(struct result_sink *sink, struct record *record, enum stream_via via)
{
    memset(sink, 0, sizeof(*sink));
    sink->record = record;
    sink->via = via;
}

/* ---- Who writes a stream --------------------------------------------------------------------- */

int result_stream_claim(struct record *record, enum stream_id stream, enum stream_via via)
{
    struct record_stream *to = &record->streams[stream];
    uint32_t state = __atomic_load_n(&to->state, __ATOMIC_RELAXED);

    do {
        if (state == STREAM_COMPLETE) {
            return -EALREADY;
        }
        if (state != STREAM_EMPTY && state != STREAM_BROKEN) {
            return -EBUSY;
        }
        /* Acquire; pairs with the release in result_stream_release(): its writer's last bytes and
         * counts lie before this. */
    } while (!__atomic_compare_exchange_n(&to->state, &state, STREAM_OPEN, false, __ATOMIC_ACQUIRE,
                                          __ATOMIC_RELAXED));
    /* What init announced is only ever added to: the supervisor may be reading it. */
    if (stream != STREAM_ANNOUNCED && stream != STREAM_CONTROL) {
        __atomic_store_n(&to->length_bytes, 0, __ATOMIC_RELAXED);
        to->dropped_bytes = 0;
    }
    to->via = via;
    return 0;
}

void result_stream_release(struct record *record, enum stream_id stream, enum stream_state state)
{
    /* Release; pairs with the acquire in result_stream_claim(). */
    __atomic_store_n(&record->streams[stream].state, state, __ATOMIC_RELEASE);
}

/* Whether the sink may add to this stream, claiming it if need be. */
static bool stream_is_mine(struct result_sink *sink, enum stream_id stream)
{
    if (!sink->mine[stream] && result_stream_claim(sink->record, stream, sink->via) == 0) {
        sink->mine[stream] = true;
        sink->received_bytes[stream] = 0;
        if (stream == STREAM_ANNOUNCED) {
            sink->announced_base = sink->record->streams[stream].length_bytes;
            sink->announced_from = sink->announced_base;
        }
    }
    return sink->mine[stream];
}

void result_sink_abandon(struct result_sink *sink)
{
    for (int stream = 0; stream < STREAM_COUNT; stream++) {
        if (sink->mine[stream]) {
            sink->mine[stream] = false;
            result_stream_release(sink->record, (enum stream_id)stream, STREAM_BROKEN);
        }
    }
}

/* ---- The frames ------------------------------------------------------------------------------ */

static struct result_event nothing(void)
{
    return (struct result_event){.kind = RESULT_NOTHING};
}

static struct result_event refuse(struct result_sink *sink)
{
    sink->refused_frames++;
    return nothing();
}

/*
 * Add bytes that follow what is there.
 * Return: false if they do not: there is a hole, or they overlap.
 */
static bool append_in_order(struct result_sink *sink, enum stream_id stream, uint64_t offset,
                            const uint8_t *bytes, size_t count)
{
    if (offset != sink->received_bytes[stream]) {
        return false;
    }
    record_append(sink->record, stream, bytes, count);
    sink->received_bytes[stream] += count;
    return true;
}

static struct result_event stream_ended(struct result_sink *sink, enum stream_id stream,
                                        enum stream_state state, uint64_t sent_bytes)
{
    sink->mine[stream] = false;
    result_stream_release(sink->record, stream, state);
    return (struct result_event){
        .kind = RESULT_STREAM_END,
        .stream = stream,
        .state = state,
        .sent_bytes = sent_bytes,
    };
}

static bool is_result_stream(unsigned stream)
{
    return stream == STREAM_STDOUT || stream == STREAM_STDERR || stream == STREAM_EXIT_CODE ||
           stream == STREAM_OUTPUT;
}

/*
 * A hole makes the stream broken at once: the bytes before it stay. What follows of it is refused
 * until it ends, or begins again at 0.
 */
static struct result_event on_data(struct result_sink *sink, const struct frame_header *header,
                                   const uint8_t *payload)
{
    enum stream_id stream = (enum stream_id)header->stream;

    if (!is_result_stream(header->stream) || (!sink->mine[stream] && header->offset != 0) ||
        !stream_is_mine(sink, stream)) {
        return refuse(sink);
    }
    if (!append_in_order(sink, stream, header->offset, payload, header->payload_bytes)) {
        return stream_ended(sink, stream, STREAM_BROKEN, sink->received_bytes[stream]);
    }
    return nothing();
}

static struct result_event on_stream_end(struct result_sink *sink,
                                         const struct frame_header *header)
{
    enum stream_id stream = (enum stream_id)header->stream;

    if (!is_result_stream(header->stream) || header->payload_bytes != 0) {
        return refuse(sink);
    }
    /* The end of a stream that is broken already is no news; to claim it would empty it. */
    if (!sink->mine[stream] && header->offset != 0 &&
        __atomic_load_n(&sink->record->streams[stream].state, __ATOMIC_RELAXED) != STREAM_EMPTY) {
        return refuse(sink);
    }
    if (!stream_is_mine(sink, stream)) {
        return refuse(sink);
    }
    return stream_ended(sink, stream,
                        header->offset == sink->received_bytes[stream] ? STREAM_COMPLETE
                                                                       : STREAM_BROKEN,
                        header->offset);
}

/* The announcements are one stream to the record; it stays open, and only ever grows. */
static struct result_event on_announce(struct result_sink *sink, const struct frame_header *header,
                                       const uint8_t *payload)
{
    if (!stream_is_mine(sink, STREAM_ANNOUNCED) ||
        !append_in_order(sink, STREAM_ANNOUNCED, header->offset, payload, header->payload_bytes)) {
        return refuse(sink);
    }
    return nothing();
}

static struct result_event on_announce_end(struct result_sink *sink,
                                           const struct frame_header *header)
{
    struct result_event event = {.kind = RESULT_ANNOUNCE, .offset_bytes = sink->announced_from};
    uint64_t kept_bytes = sink->record->streams[STREAM_ANNOUNCED].length_bytes;

    /* More than the record keeps is as good as lost. */
    if (!sink->mine[STREAM_ANNOUNCED] || header->payload_bytes != 0 ||
        header->offset != sink->received_bytes[STREAM_ANNOUNCED] ||
        header->offset != kept_bytes - sink->announced_base) {
        return refuse(sink);
    }
    event.length_bytes = kept_bytes - sink->announced_from;
    sink->announced_from = kept_bytes;
    return event;
}

static struct result_event on_hello(struct result_sink *sink, const struct frame_header *header,
                                    const uint8_t *payload)
{
    struct frame_hello hello;

    if (header->payload_bytes != sizeof(hello)) {
        return refuse(sink);
    }
    memcpy(&hello, payload, sizeof(hello));
    return (struct result_event){
        .kind = RESULT_HELLO,
        .guest_ns = hello.boottime_ns,
        .version = hello.version,
        .via = hello.via,
    };
}

static struct result_event on_start(struct result_sink *sink, const struct frame_header *header,
                                    const uint8_t *payload)
{
    struct frame_start start;

    if (header->payload_bytes != sizeof(start)) {
        return refuse(sink);
    }
    memcpy(&start, payload, sizeof(start));
    return (struct result_event){.kind = RESULT_START, .guest_ns = start.boottime_ns};
}

static struct result_event on_end(struct result_sink *sink, const struct frame_header *header,
                                  const uint8_t *payload)
{
    struct result_event event = {.kind = RESULT_END};

    if (header->payload_bytes != sizeof(event.end)) {
        return refuse(sink);
    }
    memcpy(&event.end, payload, sizeof(event.end));
    event.guest_ns = event.end.boottime_ns;
    return event;
}

/* The text is too long for a message: it is kept in the record, in the control stream. */
static struct result_event on_fatal(struct result_sink *sink, const struct frame_header *header,
                                    const uint8_t *payload)
{
    const struct record_stream *control = &sink->record->streams[STREAM_CONTROL];
    struct result_event event = {.kind = RESULT_FATAL};

    if (!stream_is_mine(sink, STREAM_CONTROL)) {
        return refuse(sink);
    }
    event.offset_bytes = control->length_bytes;
    record_append(sink->record, STREAM_CONTROL, payload, header->payload_bytes);
    event.length_bytes = control->length_bytes - event.offset_bytes;
    return event;
}

struct result_event result_sink_frame(struct result_sink *sink, const struct frame_header *header,
                                      const uint8_t *payload)
{
    if (header->sequence < sink->next_sequence) {
        sink->stale_frames++;
        return nothing();
    }
    sink->lost_frames += header->sequence - sink->next_sequence;
    sink->next_sequence = header->sequence + 1;
    sink->frames++;
    switch (header->type) {
    case FRAME_HELLO:
        return on_hello(sink, header, payload);
    case FRAME_START:
        return on_start(sink, header, payload);
    case FRAME_END:
        return on_end(sink, header, payload);
    case FRAME_ANNOUNCE:
        return on_announce(sink, header, payload);
    case FRAME_ANNOUNCE_END:
        return on_announce_end(sink, header);
    case FRAME_DATA:
        return on_data(sink, header, payload);
    case FRAME_STREAM_END:
        return on_stream_end(sink, header);
    case FRAME_BYE:
        return (struct result_event){.kind = RESULT_BYE};
    case FRAME_FATAL:
        return on_fatal(sink, header, payload);
    default:
        return refuse(sink);
    }
}
