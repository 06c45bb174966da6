/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_frame.c: the frame decoder. Its main property: text and frames, put together again in the
 * order in which they were given, are the bytes that went in, whatever those were and however they
 * were cut.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/frame.h"
#include "seeded_random.h"

#define BIG_BYTES (512 * 1024)

static const uint8_t nonce[NONCE_BYTES] = {1, 2, 3, 4, 5, 6, 7, 8, 2, 'B', 'V', 3, 13, 14, 15, 16};

/* What came out of a decoder. */
struct output {
    uint8_t *bytes; /* text and frames, as they would be on the wire */
    size_t count;
    size_t text_bytes;
    size_t calls;
    uint32_t sequences[4096];
    size_t frames;
};

static struct output *output_new(void)
{
    struct output *output = calloc(1, sizeof(*output));

    assert_non_null(output);
    output->bytes = malloc(4 * BIG_BYTES);
    assert_non_null(output->bytes);
    return output;
}

static void output_free(struct output *output)
{
    free(output->bytes);
    free(output);
}

static void on_text(void *context, const uint8_t *bytes, size_t count)
{
    struct output *output = context;

    assert_true(count > 0);
    memcpy(output->bytes + output->count, bytes, count);
    output->count += count;
    output->text_bytes += count;
    output->calls++;
}

static void on_frame(void *context, const struct frame_header *header, const uint8_t *payload)
{
    struct output *output = context;

    assert_true(header->payload_bytes <= FRAME_PAYLOAD_MAX_BYTES);
    assert_in_range(header->type, FRAME_HELLO, FRAME_TYPE_LAST);
    if (output->frames < ARRAY_SIZE(output->sequences)) {
        output->sequences[output->frames] = header->sequence;
    }
    output->frames++;
    memcpy(output->bytes + output->count, header, sizeof(*header));
    memcpy(output->bytes + output->count + sizeof(*header), payload, header->payload_bytes);
    output->count += sizeof(*header) + header->payload_bytes;
}

static const struct frame_decoder_ops ops = {on_text, on_frame};

/* Decode bytes cut into chunks of 1 to chunk_max (0: all at once). */
static struct output *decode(const uint8_t *bytes, size_t count, size_t chunk_max,
                             struct seeded_random *r, struct frame_decoder *decoder)
{
    struct output *output = output_new();

    frame_decoder_init(decoder, FRAME_MODE_CONSOLE, nonce, &ops, output);
    while (count > 0) {
        size_t chunk = chunk_max == 0 ? count : min_u64(count, 1 + random_below(r, chunk_max));

        frame_decoder_feed(decoder, bytes, chunk);
        bytes += chunk;
        count -= chunk;
    }
    frame_decoder_finish(decoder);
    return output;
}

static size_t put_frame(uint8_t *to, uint32_t sequence, const void *payload, size_t bytes)
{
    return frame_encode(to, nonce, FRAME_DATA, STREAM_STDOUT, sequence, 77, payload, bytes);
}

static void test_frame_between_text(void **state)
{
    uint8_t bytes[8192];
    uint8_t payload[FRAME_PAYLOAD_MAX_BYTES];
    static const size_t sizes[] = {0, 1, 47, 48, 4095, 4096};
    struct seeded_random r = random_from_seed("frame_between_text");
    struct frame_decoder decoder;

    (void)state;
    random_fill(&r, payload, sizeof(payload));
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        size_t count = 0;
        struct output *output;

        memcpy(bytes, "before\x02", 7);
        count = 7 + put_frame(bytes + 7, 5, payload, sizes[i]);
        memcpy(bytes + count, "after", 5);
        count += 5;
        for (size_t chunk = 0; chunk <= 2; chunk++) {
            output = decode(bytes, count, chunk, &r, &decoder);
            assert_int_equal(output->frames, 1);
            assert_int_equal(output->sequences[0], 5);
            assert_int_equal(output->text_bytes, 12);
            assert_int_equal(output->count, count);
            assert_memory_equal(output->bytes, bytes, count);
            assert_int_equal(decoder.damaged_frames, 0);
            output_free(output);
        }
    }
}

static void test_text_is_not_held_back(void **state)
{
    struct output *output = output_new();
    struct frame_decoder decoder;

    (void)state;
    frame_decoder_init(&decoder, FRAME_MODE_CONSOLE, nonce, &ops, output);
    frame_decoder_feed(&decoder, (const uint8_t *)"login: ", 7);
    assert_int_equal(output->text_bytes, 7);
    frame_decoder_feed(&decoder, (const uint8_t *)"\x02", 1);
    assert_int_equal(output->text_bytes, 7);
    frame_decoder_feed(&decoder, (const uint8_t *)"Bx", 2);
    assert_int_equal(output->text_bytes, 10);
    output_free(output);
}

static void test_other_nonce_is_text(void **state)
{
    uint8_t other[NONCE_BYTES];
    uint8_t bytes[256];
    struct seeded_random r = {1};
    struct frame_decoder decoder;

    (void)state;
    for (size_t i = 0; i < NONCE_BYTES; i++) {
        struct output *output;
        size_t count;

        memcpy(other, nonce, sizeof(other));
        other[i] ^= 0x20;
        count = frame_encode(bytes, other, FRAME_BYE, 0, 0, 0, "forged", 6);
        output = decode(bytes, count, 3, &r, &decoder);
        assert_int_equal(output->frames, 0);
        assert_int_equal(output->text_bytes, count);
        assert_int_equal(decoder.damaged_frames, 0);
        output_free(output);
    }
}

/* Every single bit that is wrong makes it no frame. */
static void test_each_flipped_bit_is_noticed(void **state)
{
    uint8_t bytes[256];
    size_t count = put_frame(bytes, 9, "payload", 7);
    struct seeded_random r = {2};
    struct frame_decoder decoder;

    (void)state;
    for (size_t bit = 0; bit < 8 * count; bit++) {
        struct output *output;

        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
        output = decode(bytes, count, 0, &r, &decoder);
        assert_int_equal(output->frames, 0);
        assert_int_equal(output->text_bytes, count);
        assert_memory_equal(output->bytes, bytes, count);
        /* Mark and nonce whole: then it counts as damage. */
        assert_int_equal(decoder.damaged_frames, bit / 8 >= FRAME_PREFIX_BYTES);
        output_free(output);
        bytes[bit / 8] ^= (uint8_t)(1U << bit % 8);
    }
}

/* A frame that lost bytes must not take those behind it with it. */
static void test_lost_bytes_cost_one_frame(void **state)
{
    static uint8_t bytes[BIG_BYTES];
    uint8_t payload[FRAME_PAYLOAD_MAX_BYTES];
    struct seeded_random r = random_from_seed("lost_bytes");
    struct frame_decoder decoder;

    (void)state;
    random_fill(&r, payload, sizeof(payload));
    payload[sizeof(payload) - 1] =
        0; /* not what the next frame begins with: then nothing is lost */
    for (size_t lost = 1; lost <= 4000; lost += 371) {
        size_t count = put_frame(bytes, 0, payload, 10);
        struct output *output;

        count += put_frame(bytes + count, 1, payload, 4096) - lost;
        for (uint32_t i = 2; i < 10; i++) {
            count += put_frame(bytes + count, i, payload, 300);
        }
        output = decode(bytes, count, 500, &r, &decoder);
        assert_int_equal(output->frames, 9);
        assert_int_equal(output->sequences[0], 0);
        for (uint32_t i = 2; i < 10; i++) {
            assert_int_equal(output->sequences[i - 1], i);
        }
        assert_int_equal(decoder.damaged_frames, 1);
        assert_int_equal(decoder.damaged_bytes, sizeof(struct frame_header) + 4096 - lost);
        assert_int_equal(output->count, count);
        assert_memory_equal(output->bytes, bytes, count);
        output_free(output);
    }
}

static void test_finish_gives_the_rest(void **state)
{
    uint8_t bytes[8192];
    uint8_t payload[4096] = {0};
    struct output *output = output_new();
    struct frame_decoder decoder;
    size_t cut = put_frame(bytes, 0, payload, 4096) - 4000;
    size_t count = cut + put_frame(bytes + cut, 1, "x", 1);

    (void)state;
    memcpy(bytes + count, "Kernel panic\x02", 13);
    count += 13;
    frame_decoder_init(&decoder, FRAME_MODE_CONSOLE, nonce, &ops, output);
    frame_decoder_feed(&decoder, bytes, count);
    assert_int_equal(output->frames, 0);
    assert_int_equal(output->text_bytes, 0);
    frame_decoder_finish(&decoder);
    assert_int_equal(output->frames, 1);
    assert_int_equal(output->sequences[0], 1);
    assert_int_equal(output->count, count);
    assert_memory_equal(output->bytes, bytes, count);
    assert_int_equal(decoder.damaged_frames, 1);
    /* And it can go on after. */
    count = put_frame(bytes, 2, "y", 1);
    frame_decoder_feed(&decoder, bytes, count);
    assert_int_equal(output->frames, 2);
    output_free(output);
}

/* ---- Random streams -------------------------------------------------------------------------- */

/* Text that likes to look like a frame. */
static size_t put_text(struct seeded_random *r, uint8_t *to)
{
    size_t count = random_below(r, 300);

    for (size_t i = 0; i < count; i++) {
        to[i] = (uint8_t)(random_below(r, 4) ? ' ' + random_below(r, 90) : random_below(r, 4));
    }
    if (count > sizeof(struct frame_header) && random_below(r, 3) == 0) {
        memcpy(to, FRAME_MARK, FRAME_MARK_BYTES);
        memcpy(to + FRAME_MARK_BYTES, nonce, random_below(r, NONCE_BYTES + 1));
    }
    return count;
}

struct wire {
    uint8_t bytes[BIG_BYTES];
    size_t count;
    size_t good_frames; /* not damaged */
};

static void make_wire(struct seeded_random *r, struct wire *wire, bool with_damage)
{
    static uint8_t payload[FRAME_PAYLOAD_MAX_BYTES];

    wire->count = 0;
    wire->good_frames = 0;
    random_fill(r, payload, sizeof(payload));
    for (uint32_t sequence = 0; wire->count < BIG_BYTES / 2; sequence++) {
        uint8_t *frame = wire->bytes + wire->count + put_text(r, wire->bytes + wire->count);
        size_t count = put_frame(frame, sequence, payload, random_below(r, 4097));
        size_t at = random_below(r, count);

        wire->good_frames++;
        wire->count = (size_t)(frame - wire->bytes) + count;
        if (!with_damage || random_below(r, 3) > 0) {
            continue;
        }
        wire->good_frames--;
        switch (random_below(r, 3)) {
        case 0: /* other bytes */
            frame[at] ^= (uint8_t)(1 + random_below(r, 255));
            break;
        case 1: /* something put in */
            memmove(frame + at + 20, frame + at, count - at);
            memcpy(frame + at, "[ 1.0] usb: hi there", 20);
            wire->count += 20;
            if (at == 0) {
                wire->good_frames++; /* in front of it: no harm */
            }
            break;
        default: /* cut off; what comes next must not by chance be what was cut */
            frame[at] ^= 0xff;
            wire->count -= count - at - 1;
            break;
        }
    }
}

static void test_random_streams(void **state)
{
    struct seeded_random r = random_from_seed("random_streams");
    static struct wire wire;
    struct frame_decoder decoder;

    (void)state;
    for (int round = 0; round < 40; round++) {
        struct output *whole;

        make_wire(&r, &wire, round % 2);
        whole = decode(wire.bytes, wire.count, 0, &r, &decoder);
        assert_int_equal(whole->count, wire.count);
        assert_memory_equal(whole->bytes, wire.bytes, wire.count);
        assert_int_equal(whole->frames, wire.good_frames);
        for (size_t chunk_max = 1; chunk_max < 20000; chunk_max *= 23) {
            struct output *cut = decode(wire.bytes, wire.count, chunk_max, &r, &decoder);

            assert_int_equal(cut->count, wire.count);
            assert_memory_equal(cut->bytes, wire.bytes, wire.count);
            assert_int_equal(cut->frames, whole->frames);
            assert_memory_equal(cut->sequences, whole->sequences, whole->frames * sizeof(uint32_t));
            output_free(cut);
        }
        output_free(whole);
    }
}

/* Headers that promise 4 KiB, so close together that each byte belongs to dozens of them. */
static void fill_with_headers(uint8_t *bytes, size_t count, size_t distance)
{
    for (size_t i = 0; i + distance <= count; i += distance) {
        struct frame_header header = {.type = FRAME_DATA, .payload_bytes = FRAME_PAYLOAD_MAX_BYTES};

        memcpy(header.mark, FRAME_MARK, FRAME_MARK_BYTES);
        memcpy(header.nonce, nonce, NONCE_BYTES);
        memcpy(bytes + i, &header, min_u64(distance, sizeof(header)));
    }
}

static uint64_t time_to_decode(const uint8_t *bytes, size_t count, size_t ret_frames[1])
{
    struct seeded_random r = {3};
    struct frame_decoder decoder;
    uint64_t start_ns = clock_thread_cpu_ns();
    struct output *output = decode(bytes, count, 0, &r, &decoder);
    uint64_t taken_ns = clock_thread_cpu_ns() - start_ns;

    assert_int_equal(output->count, count);
    assert_memory_equal(output->bytes, bytes, count);
    ret_frames[0] = output->frames;
    output_free(output);
    return taken_ns;
}

#define MEASUREMENTS 50

/*
 * A naive decoder would need 4144 / 48 = 86 times the digests, each time. Others on the machine can make a
 * measurement longer, never shorter: the shortest ones count, until they are good enough.
 */
static void test_hostile_input_takes_linear_time(void **state)
{
    static uint8_t honest[BIG_BYTES];
    static uint8_t hostile[BIG_BYTES];
    static const uint8_t payload[FRAME_PAYLOAD_MAX_BYTES];
    uint64_t honest_ns = UINT64_MAX;
    uint64_t hostile_ns = UINT64_MAX;
    size_t frames;
    size_t count = 0;

    (void)state;
    while (count + FRAME_MAX_BYTES <= BIG_BYTES) {
        count += put_frame(honest + count, 0, payload, sizeof(payload));
    }
    fill_with_headers(hostile, BIG_BYTES, sizeof(struct frame_header));
    for (int i = 0; i < MEASUREMENTS && (i < 5 || hostile_ns >= 12 * honest_ns); i++) {
        honest_ns = min_u64(honest_ns, time_to_decode(honest, count, &frames));
        assert_int_equal(frames, BIG_BYTES / FRAME_MAX_BYTES);
        hostile_ns = min_u64(hostile_ns, time_to_decode(hostile, BIG_BYTES, &frames));
        assert_int_equal(frames, 0);
    }
    printf("hostile input takes %.1f times as long\n", (double)hostile_ns / (double)honest_ns);
    assert_true(hostile_ns < 12 * honest_ns);
}

/* After all that a frame that is honest must still be paid for. */
static void test_frame_after_hostile_input(void **state)
{
    static uint8_t bytes[BIG_BYTES];
    static const uint8_t payload[FRAME_PAYLOAD_MAX_BYTES];
    struct seeded_random r = random_from_seed("after_hostile");
    struct frame_decoder decoder;

    (void)state;
    for (int round = 0; round < 50; round++) {
        size_t hostile = 1 + random_below(&r, BIG_BYTES / 2);
        size_t count = hostile;
        struct output *output;

        fill_with_headers(bytes, hostile, 20 + random_below(&r, 100));
        /* The first may have to pay for what lies before it; from the second on none has. */
        for (uint32_t i = 0; i < 8; i++) {
            count += put_frame(bytes + count, i, payload, sizeof(payload));
        }
        output = decode(bytes, count, 4096, &r, &decoder);
        assert_in_range(output->frames, 6, 8);
        assert_int_equal(output->sequences[output->frames - 1], 7);
        assert_int_equal(output->count, count);
        assert_memory_equal(output->bytes, bytes, count);
        output_free(output);
    }
}

/* ---- Frames only ----------------------------------------------------------------------------- */

static void test_pure_mode(void **state)
{
    uint8_t bytes[1024];
    struct output *output = output_new();
    struct frame_decoder decoder;
    size_t count = put_frame(bytes, 0, "a", 1);
    size_t first = count;

    (void)state;
    count += put_frame(bytes + count, 1, "bc", 2);
    frame_decoder_init(&decoder, FRAME_MODE_PURE, nonce, &ops, output);
    for (size_t i = 0; i < count; i++) {
        frame_decoder_feed(&decoder, bytes + i, 1);
    }
    frame_decoder_finish(&decoder);
    assert_false(decoder.broken);
    assert_int_equal(output->frames, 2);

    /* Something between two frames. */
    frame_decoder_init(&decoder, FRAME_MODE_PURE, nonce, &ops, output);
    frame_decoder_feed(&decoder, bytes, first);
    frame_decoder_feed(&decoder, (const uint8_t *)"\n", 1);
    assert_true(decoder.broken);
    frame_decoder_feed(&decoder, bytes + first, count - first);
    assert_int_equal(output->frames, 3);

    /* Damage. */
    frame_decoder_init(&decoder, FRAME_MODE_PURE, nonce, &ops, output);
    bytes[first - 1] ^= 1;
    frame_decoder_feed(&decoder, bytes, count);
    assert_true(decoder.broken);
    assert_int_equal(output->frames, 3);

    /* The end in the middle of a frame. */
    frame_decoder_init(&decoder, FRAME_MODE_PURE, nonce, &ops, output);
    frame_decoder_feed(&decoder, bytes + first, count - first - 1);
    assert_false(decoder.broken);
    frame_decoder_finish(&decoder);
    assert_true(decoder.broken);
    assert_int_equal(output->text_bytes, 0);
    output_free(output);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frame_between_text),
        cmocka_unit_test(test_text_is_not_held_back),
        cmocka_unit_test(test_other_nonce_is_text),
        cmocka_unit_test(test_each_flipped_bit_is_noticed),
        cmocka_unit_test(test_lost_bytes_cost_one_frame),
        cmocka_unit_test(test_finish_gives_the_rest),
        cmocka_unit_test(test_random_streams),
        cmocka_unit_test(test_hostile_input_takes_linear_time),
        cmocka_unit_test(test_frame_after_hostile_input),
        cmocka_unit_test(test_pure_mode),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
