/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_result_sink.c: frames into the run record. What a stream says to be complete must be what
 * was sent; what is not complete must be a beginning of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/result_sink.h"
#include "seeded_random.h"

#include <errno.h>

#define STREAM_BYTES 20000

static struct record *new_record(void)
{
    struct record_limits limits = {.console_bytes = 4096};
    struct bvmm_error err;
    struct record *record = NULL;

    for (int i = 0; i < STREAM_COUNT; i++) {
        limits.stream_bytes[i] = STREAM_BYTES;
    }
    assert_int_equal(record_create(&limits, &record, &err), 0);
    return record;
}

/* A frame to the sink, with the next sequence number. */
struct sender {
    struct result_sink sink;
    uint32_t sequence;
};

static struct result_event send_frame(struct sender *s, enum frame_type type, unsigned stream,
                                      uint64_t offset, const void *payload, size_t bytes)
{
    static uint8_t none[1];
    struct frame_header header = {
        .type = (uint8_t)type,
        .stream = (uint8_t)stream,
        .payload_bytes = (uint32_t)bytes,
        .sequence = s->sequence++,
        .offset = offset,
    };

    return result_sink_frame(&s->sink, &header, payload ? payload : none);
}

static struct sender new_sender(struct record *record, enum stream_via via)
{
    struct sender s = {.sequence = 0};

    result_sink_init(&s.sink, record, via);
    return s;
}

static const char *stream_text(struct record *record, enum stream_id stream)
{
    static char text[STREAM_BYTES + 1];
    size_t length = record->streams[stream].length_bytes;

    memcpy(text, record_stream_bytes(record, stream), length);
    text[length] = '\0';
    return text;
}

static void test_a_whole_run(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    struct frame_hello hello = {.boottime_ns = 11, .version = 1, .via = VIA_SERIAL};
    struct frame_start start = {.boottime_ns = 22};
    struct frame_end end = {.boottime_ns = 33, .start_boottime_ns = 23, .wait_status = 0x300};
    struct result_event e = send_frame(&s, FRAME_HELLO, 0, 0, &hello, sizeof(hello));

    (void)state;
    assert_int_equal(e.kind, RESULT_HELLO);
    assert_int_equal(e.guest_ns, 11);
    assert_int_equal(e.version, 1);
    assert_int_equal(e.via, VIA_SERIAL);
    e = send_frame(&s, FRAME_START, 0, 0, &start, sizeof(start));
    assert_int_equal(e.kind, RESULT_START);
    assert_int_equal(e.guest_ns, 22);
    e = send_frame(&s, FRAME_END, 0, 0, &end, sizeof(end));
    assert_int_equal(e.kind, RESULT_END);
    assert_int_equal(e.guest_ns, 33);
    assert_int_equal(e.end.start_boottime_ns, 23);
    assert_int_equal(e.end.wait_status, 0x300);

    assert_int_equal(send_frame(&s, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 0, "ab", 2).kind,
                     RESULT_NOTHING);
    assert_int_equal(send_frame(&s, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 2, "c", 1).kind,
                     RESULT_NOTHING);
    e = send_frame(&s, FRAME_ANNOUNCE_END, STREAM_ANNOUNCED, 3, NULL, 0);
    assert_int_equal(e.kind, RESULT_ANNOUNCE);
    assert_int_equal(e.offset_bytes, 0);
    assert_int_equal(e.length_bytes, 3);

    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDOUT, 0, "hello ", 6).kind,
                     RESULT_NOTHING);
    assert_int_equal(record->streams[STREAM_STDOUT].state, STREAM_OPEN);
    assert_int_equal(record->streams[STREAM_STDOUT].via, VIA_SERIAL);
    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDOUT, 6, "world", 5).kind, RESULT_NOTHING);
    e = send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 11, NULL, 0);
    assert_int_equal(e.kind, RESULT_STREAM_END);
    assert_int_equal(e.stream, STREAM_STDOUT);
    assert_int_equal(e.state, STREAM_COMPLETE);
    assert_int_equal(e.sent_bytes, 11);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "hello world");
    assert_int_equal(record->streams[STREAM_STDOUT].state, STREAM_COMPLETE);

    /* An empty one. */
    e = send_frame(&s, FRAME_STREAM_END, STREAM_STDERR, 0, NULL, 0);
    assert_int_equal(e.state, STREAM_COMPLETE);
    assert_int_equal(record->streams[STREAM_STDERR].state, STREAM_COMPLETE);
    assert_int_equal(record->streams[STREAM_OUTPUT].state, STREAM_EMPTY);

    send_frame(&s, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 3, "defg", 4);
    e = send_frame(&s, FRAME_ANNOUNCE_END, STREAM_ANNOUNCED, 7, NULL, 0);
    assert_int_equal(e.kind, RESULT_ANNOUNCE);
    assert_int_equal(e.offset_bytes, 3);
    assert_int_equal(e.length_bytes, 4);
    assert_string_equal(stream_text(record, STREAM_ANNOUNCED), "abcdefg");
    assert_int_equal(send_frame(&s, FRAME_BYE, 0, 0, NULL, 0).kind, RESULT_BYE);
    assert_int_equal(s.sink.lost_frames + s.sink.stale_frames + s.sink.refused_frames, 0);
    record_destroy(record);
}

static void test_fatal_text_is_kept(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    struct result_event e = send_frame(&s, FRAME_FATAL, 0, 0, "no such disk", 12);

    (void)state;
    assert_int_equal(e.kind, RESULT_FATAL);
    assert_int_equal(e.offset_bytes, 0);
    assert_int_equal(e.length_bytes, 12);
    assert_string_equal(stream_text(record, STREAM_CONTROL), "no such disk");
    record_destroy(record);
}

static void test_a_hole_breaks_the_stream(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    struct result_event e;

    (void)state;
    send_frame(&s, FRAME_DATA, STREAM_STDOUT, 0, "0123", 4);
    s.sequence++; /* one was lost */
    e = send_frame(&s, FRAME_DATA, STREAM_STDOUT, 8, "89", 2);
    assert_int_equal(e.kind, RESULT_STREAM_END);
    assert_int_equal(e.state, STREAM_BROKEN);
    assert_int_equal(e.sent_bytes, 4);
    assert_int_equal(s.sink.lost_frames, 1);
    /* What follows is no news, and does not touch what is there. */
    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDOUT, 10, "ab", 2).kind, RESULT_NOTHING);
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 12, NULL, 0).kind,
                     RESULT_NOTHING);
    assert_int_equal(s.sink.refused_frames, 2);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "0123");
    assert_int_equal(record->streams[STREAM_STDOUT].state, STREAM_BROKEN);
    /* Another stream is not concerned. */
    send_frame(&s, FRAME_DATA, STREAM_STDERR, 0, "x", 1);
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDERR, 1, NULL, 0).state,
                     STREAM_COMPLETE);
    record_destroy(record);
}

static void test_a_lost_end_or_beginning(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    struct result_event e;

    (void)state;
    /* All data was lost: the end is all that there is. */
    e = send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 100, NULL, 0);
    assert_int_equal(e.kind, RESULT_STREAM_END);
    assert_int_equal(e.state, STREAM_BROKEN);
    /* The beginning was lost: nothing can be kept, the end tells that it is broken. */
    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDERR, 5, "x", 1).kind, RESULT_NOTHING);
    assert_int_equal(record->streams[STREAM_STDERR].state, STREAM_EMPTY);
    e = send_frame(&s, FRAME_STREAM_END, STREAM_STDERR, 6, NULL, 0);
    assert_int_equal(e.state, STREAM_BROKEN);
    /* The last data was lost. */
    send_frame(&s, FRAME_DATA, STREAM_OUTPUT, 0, "abc", 3);
    e = send_frame(&s, FRAME_STREAM_END, STREAM_OUTPUT, 6, NULL, 0);
    assert_int_equal(e.state, STREAM_BROKEN);
    assert_string_equal(stream_text(record, STREAM_OUTPUT), "abc");
    /* The end was lost: it stays open. */
    send_frame(&s, FRAME_DATA, STREAM_EXIT_CODE, 0, "0", 1);
    assert_int_equal(record->streams[STREAM_EXIT_CODE].state, STREAM_OPEN);
    record_destroy(record);
}

static void test_twice_and_too_late(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);

    (void)state;
    send_frame(&s, FRAME_DATA, STREAM_STDOUT, 0, "0123", 4);
    s.sequence--;
    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDOUT, 0, "0123", 4).kind, RESULT_NOTHING);
    assert_int_equal(s.sink.stale_frames, 1);
    send_frame(&s, FRAME_DATA, STREAM_STDOUT, 4, "4", 1);
    s.sequence = 0;
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 4, NULL, 0).kind,
                     RESULT_NOTHING);
    assert_int_equal(s.sink.stale_frames, 2);
    s.sequence = 2;
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 5, NULL, 0).state,
                     STREAM_COMPLETE);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "01234");
    /* A complete stream stays as it is. */
    assert_int_equal(send_frame(&s, FRAME_DATA, STREAM_STDOUT, 0, "evil", 4).kind, RESULT_NOTHING);
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 0, NULL, 0).kind,
                     RESULT_NOTHING);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "01234");
    assert_int_equal(s.sink.refused_frames, 2);
    record_destroy(record);
}

static void test_nonsense_is_refused(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    uint64_t sent = 0;

    (void)state;
    for (unsigned stream = 0; stream < 256; stream++) {
        if (stream == STREAM_STDOUT || stream == STREAM_STDERR || stream == STREAM_EXIT_CODE ||
            stream == STREAM_OUTPUT) {
            continue;
        }
        send_frame(&s, FRAME_DATA, stream, 0, "x", 1);
        send_frame(&s, FRAME_STREAM_END, stream, 0, NULL, 0);
        sent += 2;
    }
    send_frame(&s, FRAME_HELLO, 0, 0, "short", 5);
    send_frame(&s, FRAME_START, 0, 0, NULL, 0);
    send_frame(&s, FRAME_END, 0, 0, "x", 1);
    send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, 0, "x", 1);
    send_frame(&s, FRAME_ANNOUNCE, STREAM_ANNOUNCED, UINT64_MAX, "x", 1);
    send_frame(&s, FRAME_ANNOUNCE_END, STREAM_ANNOUNCED, 17, NULL, 0);
    sent += 6;
    assert_int_equal(s.sink.refused_frames, sent);
    for (int i = 0; i < STREAM_COUNT; i++) {
        assert_int_equal(record->streams[i].length_bytes, 0);
    }
    record_destroy(record);
}

static void test_more_than_the_limit(void **state)
{
    struct record *record = new_record();
    struct sender s = new_sender(record, VIA_SERIAL);
    static const uint8_t block[4000];
    uint64_t sent = 0;

    (void)state;
    for (int i = 0; i < 7; i++) {
        send_frame(&s, FRAME_DATA, STREAM_STDOUT, sent, block, sizeof(block));
        send_frame(&s, FRAME_ANNOUNCE, STREAM_ANNOUNCED, sent, block, sizeof(block));
        sent += sizeof(block);
    }
    assert_int_equal(record->streams[STREAM_STDOUT].length_bytes, STREAM_BYTES);
    assert_int_equal(record->streams[STREAM_STDOUT].dropped_bytes, sent - STREAM_BYTES);
    /* It came whole; that the record keeps less is no fault of the way. */
    assert_int_equal(send_frame(&s, FRAME_STREAM_END, STREAM_STDOUT, sent, NULL, 0).state,
                     STREAM_COMPLETE);
    /* A manifest of which a part was dropped is none. */
    assert_int_equal(send_frame(&s, FRAME_ANNOUNCE_END, 0, sent, NULL, 0).kind, RESULT_NOTHING);
    assert_int_equal(s.sink.refused_frames, 1);
    record_destroy(record);
}

static void test_claims(void **state)
{
    struct record *record = new_record();
    struct sender serial = new_sender(record, VIA_SERIAL);

    (void)state;
    assert_int_equal(result_stream_claim(record, STREAM_STDOUT, VIA_VSOCK), 0);
    assert_int_equal(record->streams[STREAM_STDOUT].via, VIA_VSOCK);
    record_append(record, STREAM_STDOUT, "half", 4);
    assert_int_equal(result_stream_claim(record, STREAM_STDOUT, VIA_VSOCK), -EBUSY);
    assert_int_equal(send_frame(&serial, FRAME_DATA, STREAM_STDOUT, 0, "x", 1).kind,
                     RESULT_NOTHING);
    assert_int_equal(serial.sink.refused_frames, 1);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "half");
    /* Its writer lets go: now it can come again another way, from the start. */
    result_stream_release(record, STREAM_STDOUT, STREAM_BROKEN);
    send_frame(&serial, FRAME_DATA, STREAM_STDOUT, 0, "whole text", 10);
    assert_int_equal(send_frame(&serial, FRAME_STREAM_END, STREAM_STDOUT, 10, NULL, 0).state,
                     STREAM_COMPLETE);
    assert_string_equal(stream_text(record, STREAM_STDOUT), "whole text");
    assert_int_equal(record->streams[STREAM_STDOUT].via, VIA_SERIAL);
    assert_int_equal(result_stream_claim(record, STREAM_STDOUT, VIA_VSOCK), -EALREADY);
    record_destroy(record);
}

/* vsock's control connection breaks in the middle of a manifest; serial goes on. */
static void test_fall_back(void **state)
{
    struct record *record = new_record();
    struct sender vsock = new_sender(record, VIA_VSOCK);
    struct sender serial = new_sender(record, VIA_SERIAL);
    struct result_event e;

    (void)state;
    send_frame(&vsock, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 0, "one\n", 4);
    assert_int_equal(send_frame(&vsock, FRAME_ANNOUNCE_END, 0, 4, NULL, 0).kind, RESULT_ANNOUNCE);
    send_frame(&vsock, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 4, "tw", 2);
    send_frame(&vsock, FRAME_DATA, STREAM_STDERR, 0, "par", 3);
    result_sink_abandon(&vsock.sink);
    assert_int_equal(record->streams[STREAM_STDERR].state, STREAM_BROKEN);

    send_frame(&serial, FRAME_ANNOUNCE, STREAM_ANNOUNCED, 0, "\nnew\n", 5);
    e = send_frame(&serial, FRAME_ANNOUNCE_END, 0, 5, NULL, 0);
    assert_int_equal(e.kind, RESULT_ANNOUNCE);
    assert_int_equal(e.offset_bytes, 6);
    assert_int_equal(e.length_bytes, 5);
    /* What was there has not moved: somebody may be reading it. */
    assert_string_equal(stream_text(record, STREAM_ANNOUNCED), "one\ntw\nnew\n");
    send_frame(&serial, FRAME_DATA, STREAM_STDERR, 0, "partial no more", 15);
    assert_int_equal(send_frame(&serial, FRAME_STREAM_END, STREAM_STDERR, 15, NULL, 0).state,
                     STREAM_COMPLETE);
    assert_string_equal(stream_text(record, STREAM_STDERR), "partial no more");
    record_destroy(record);
}

/* ---- Damage at random ------------------------------------------------------------------------ */

struct planned {
    struct frame_header header;
    uint8_t payload[600];
};

#define PLAN_MAX 256

static const enum stream_id planned_streams[] = {STREAM_EXIT_CODE, STREAM_STDERR, STREAM_STDOUT,
                                                 STREAM_OUTPUT};

/* Frames of four streams, as init sends them. */
static size_t make_plan(struct seeded_random *r, struct planned *plan,
                        uint8_t content[STREAM_COUNT][STREAM_BYTES], uint64_t lengths[STREAM_COUNT])
{
    size_t count = 0;

    for (size_t i = 0; i < ARRAY_SIZE(planned_streams); i++) {
        enum stream_id stream = planned_streams[i];
        uint64_t length = random_below(r, STREAM_BYTES);
        uint64_t at = 0;

        random_fill(r, content[stream], length);
        lengths[stream] = length;
        while (at <= length) {
            struct planned *frame = &plan[count];
            bool end = at == length;
            size_t bytes = end ? 0 : min_u64(length - at, 1 + 300 + random_below(r, 300));

            assert_true(count < PLAN_MAX);
            frame->header = (struct frame_header){
                .type = end ? FRAME_STREAM_END : FRAME_DATA,
                .stream = (uint8_t)stream,
                .payload_bytes = (uint32_t)bytes,
                .sequence = (uint32_t)count,
                .offset = at,
            };
            memcpy(frame->payload, content[stream] + at, bytes);
            at += bytes + end;
            count++;
        }
    }
    return count;
}

/* Deliver the plan with loss, doubling and swapping; tell the events' verdict on each stream. */
static void deliver_plan(struct seeded_random *r, struct result_sink *sink, struct planned *plan,
                         size_t count, size_t trouble, unsigned ends[STREAM_COUNT])
{
    for (size_t i = 0; i < count; i++) {
        size_t times = 1;

        if (random_below(r, 1000) < trouble) {
            times = random_below(r, 3); /* lost, once, twice */
        }
        if (i + 1 < count && random_below(r, 1000) < trouble) {
            struct planned swapped = plan[i];

            plan[i] = plan[i + 1];
            plan[i + 1] = swapped;
        }
        while (times-- > 0) {
            struct result_event e = result_sink_frame(sink, &plan[i].header, plan[i].payload);

            ends[e.stream] += e.kind == RESULT_STREAM_END;
        }
    }
}

static void test_random_damage(void **state)
{
    static struct planned plan[PLAN_MAX];
    static uint8_t content[STREAM_COUNT][STREAM_BYTES];
    struct seeded_random r = random_from_seed("result_sink");
    unsigned complete = 0;
    unsigned not_complete = 0;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct record *record = new_record();
        struct result_sink sink;
        uint64_t lengths[STREAM_COUNT] = {0};
        unsigned ends[STREAM_COUNT] = {0};
        size_t count = make_plan(&r, plan, content, lengths);

        result_sink_init(&sink, record, VIA_SERIAL);
        deliver_plan(&r, &sink, plan, count, round % 3 == 0 ? 0 : 15, ends);
        for (size_t i = 0; i < ARRAY_SIZE(planned_streams); i++) {
            enum stream_id stream = planned_streams[i];
            const struct record_stream *s = &record->streams[stream];

            assert_true(s->length_bytes <= lengths[stream]);
            assert_memory_equal(record_stream_bytes(record, stream), content[stream],
                                s->length_bytes);
            assert_true(ends[stream] <= 1);
            assert_int_equal(ends[stream] == 1,
                             s->state == STREAM_COMPLETE || s->state == STREAM_BROKEN);
            if (s->state == STREAM_COMPLETE) {
                assert_int_equal(s->length_bytes, lengths[stream]);
                complete++;
            } else {
                not_complete++;
                assert_int_not_equal(round % 3, 0);
            }
        }
        record_destroy(record);
    }
    /* Both must have been tried. */
    assert_true(complete > 100);
    assert_true(not_complete > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_whole_run),
        cmocka_unit_test(test_fatal_text_is_kept),
        cmocka_unit_test(test_a_hole_breaks_the_stream),
        cmocka_unit_test(test_a_lost_end_or_beginning),
        cmocka_unit_test(test_twice_and_too_late),
        cmocka_unit_test(test_nonsense_is_refused),
        cmocka_unit_test(test_more_than_the_limit),
        cmocka_unit_test(test_claims),
        cmocka_unit_test(test_fall_back),
        cmocka_unit_test(test_random_damage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
