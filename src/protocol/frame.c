/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * frame.c: the encoder and the decoder of frame.h. Pure code: no system calls, no allocation.
 */
#include "protocol/frame.h"

#include <nettle/sha2.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is memory's");

#define CHECKED_HEADER_BYTES offsetof(struct frame_header, check)
#define DIGEST_EARNED_PER_BYTE 2
#define DIGEST_CREDIT_MAX_BYTES (4 * FRAME_MAX_BYTES)

static uint64_t frame_check(const uint8_t *header, const void *payload, size_t payload_bytes)
{
    struct sha256_ctx sha256;
    uint64_t check;
    uint8_t digest[sizeof(check)];

    sha256_init(&sha256);
    sha256_update(&sha256, CHECKED_HEADER_BYTES, header);
    if (payload_bytes > 0) {
        sha256_update(&sha256, payload_bytes, payload);
    }
    sha256_digest(&sha256, sizeof(digest), digest);
    memcpy(&check, digest, sizeof(check));
    return check;
}

size_t frame_encode(uint8_t *out, const uint8_t nonce[NONCE_BYTES], enum frame_type type,
                    enum stream_id stream, uint32_t sequence, uint64_t offset, const void *payload,
                    size_t payload_bytes)
{
    struct frame_header header = {
        .type = (uint8_t)type,
        .stream = (uint8_t)stream,
        .payload_bytes = (uint32_t)payload_bytes,
        .sequence = sequence,
        .offset = offset,
    };

    memcpy(header.mark, FRAME_MARK, FRAME_MARK_BYTES);
    memcpy(header.nonce, nonce, NONCE_BYTES);
    header.check = frame_check((const uint8_t *)&header, payload, payload_bytes);
    memcpy(out, &header, sizeof(header));
    if (payload_bytes > 0) {
        memcpy(out + sizeof(header), payload, payload_bytes);
    }
    return sizeof(header) + payload_bytes;
}

void frame_decoder_init(struct frame_decoder *decoder, enum frame_mode mode,
                        const uint8_t nonce[NONCE_BYTES], const struct frame_decoder_ops *ops,
                        void *context)
{
    memset(decoder, 0, sizeof(*decoder));
    decoder->ops = ops;
    decoder->context = context;
    decoder->mode = mode;
    decoder->want = FRAME_PREFIX_BYTES;
    memcpy(decoder->prefix, FRAME_MARK, FRAME_MARK_BYTES);
    memcpy(decoder->prefix + FRAME_MARK_BYTES, nonce, NONCE_BYTES);
}

static void earn_digest(struct frame_decoder *decoder, size_t bytes)
{
    size_t earned =
        bytes > DIGEST_CREDIT_MAX_BYTES ? DIGEST_CREDIT_MAX_BYTES : bytes * DIGEST_EARNED_PER_BYTE;

    decoder->digest_credit = min_u64(decoder->digest_credit + earned, DIGEST_CREDIT_MAX_BYTES);
}

static void give_text(struct frame_decoder *decoder, const uint8_t *bytes, size_t count)
{
    if (count > 0 && decoder->mode == FRAME_MODE_CONSOLE) {
        decoder->ops->on_text(decoder->context, bytes, count);
    }
}

enum verdict {
    VERDICT_UNKNOWN, /* more bytes are needed: decoder->want in all */
    VERDICT_TEXT,    /* no frame begins here */
    VERDICT_DAMAGED, /* one began here */
    VERDICT_FRAME,   /* a good one; *ret_header is it */
};

/* What lies at decoder->start, as far as bytes for it are there. */
static enum verdict examine(struct frame_decoder *decoder, struct frame_header *ret_header)
{
    const uint8_t *candidate = decoder->buffer + decoder->start;
    size_t have = decoder->used - decoder->start;
    size_t total;

    if (memcmp(candidate, decoder->prefix, min_u64(have, FRAME_PREFIX_BYTES)) != 0) {
        return VERDICT_TEXT;
    }
    decoder->want = have < FRAME_PREFIX_BYTES ? FRAME_PREFIX_BYTES : sizeof(*ret_header);
    if (have < decoder->want) {
        return VERDICT_UNKNOWN;
    }
    memcpy(ret_header, candidate, sizeof(*ret_header));
    if (ret_header->type < FRAME_HELLO || ret_header->type > FRAME_TYPE_LAST ||
        ret_header->reserved != 0 || ret_header->payload_bytes > FRAME_PAYLOAD_MAX_BYTES) {
        return VERDICT_DAMAGED;
    }
    total = sizeof(*ret_header) + ret_header->payload_bytes;
    decoder->want = total;
    if (have < total) {
        return VERDICT_UNKNOWN;
    }
    if (decoder->digest_credit < total) {
        return VERDICT_DAMAGED;
    }
    decoder->digest_credit -= total;
    return frame_check(candidate, candidate + sizeof(*ret_header), ret_header->payload_bytes) ==
                   ret_header->check
               ? VERDICT_FRAME
               : VERDICT_DAMAGED;
}

/* Move start from a place where no frame begins to the next where one may. */
static void skip_candidate(struct frame_decoder *decoder, bool damaged)
{
    size_t from = decoder->start + 1;
    const uint8_t *next = NULL;
    size_t passed;

    if (from < decoder->used) {
        next = memchr(decoder->buffer + from, decoder->prefix[0], decoder->used - from);
    }
    from = next ? (size_t)(next - decoder->buffer) : decoder->used;
    if (damaged) {
        size_t extent = min_u64(decoder->used - decoder->start, decoder->want);

        decoder->damaged_frames++;
        decoder->damage_left = extent > decoder->damage_left ? extent : decoder->damage_left;
    }
    passed = min_u64(from - decoder->start, decoder->damage_left);
    decoder->damaged_bytes += passed;
    decoder->damage_left -= passed;
    decoder->start = from;
    decoder->want = FRAME_PREFIX_BYTES;
}

/*
 * Judge what is in the buffer until more bytes are needed.
 * @cut: no more will come, so what needs more is damaged.
 */
static void judge(struct frame_decoder *decoder, bool cut)
{
    struct frame_header header;
    size_t text = decoder->start; /* [text, start) has been found to be text, not yet given */

    while (decoder->start < decoder->used && !decoder->broken) {
        enum verdict verdict = examine(decoder, &header);

        if (verdict == VERDICT_FRAME) {
            give_text(decoder, decoder->buffer + text, decoder->start - text);
            decoder->frames++;
            decoder->damage_left = 0;
            decoder->ops->on_frame(decoder->context, &header,
                                   decoder->buffer + decoder->start + sizeof(header));
            decoder->start += decoder->want;
            decoder->want = FRAME_PREFIX_BYTES;
            text = decoder->start;
            continue;
        }
        if (verdict == VERDICT_UNKNOWN && !cut) {
            break;
        }
        decoder->broken = decoder->mode == FRAME_MODE_PURE;
        skip_candidate(decoder, verdict == VERDICT_DAMAGED || (verdict == VERDICT_UNKNOWN &&
                                                               decoder->want > FRAME_PREFIX_BYTES));
    }
    give_text(decoder, decoder->buffer + text, decoder->start - text);
    if (decoder->start == decoder->used) {
        decoder->start = 0;
        decoder->used = 0;
    }
}

/* Add to the candidate what it wants, or what there is; returns how many bytes that was. */
static size_t fill(struct frame_decoder *decoder, const uint8_t *bytes, size_t count)
{
    size_t taken = min_u64(decoder->want - (decoder->used - decoder->start), count);

    if (decoder->used + taken > sizeof(decoder->buffer)) {
        decoder->used -= decoder->start;
        memmove(decoder->buffer, decoder->buffer + decoder->start, decoder->used);
        decoder->start = 0;
    }
    memcpy(decoder->buffer + decoder->used, bytes, taken);
    decoder->used += taken;
    return taken;
}

void frame_decoder_feed(struct frame_decoder *decoder, const uint8_t *bytes, size_t count)
{
    while (count > 0 && !decoder->broken) {
        size_t taken = 0;

        if (decoder->used == 0 && decoder->mode == FRAME_MODE_CONSOLE) {
            const uint8_t *mark = memchr(bytes, decoder->prefix[0], count);

            taken = mark ? (size_t)(mark - bytes) : count;
            give_text(decoder, bytes, taken);
        }
        if (taken < count) {
            taken += fill(decoder, bytes + taken, count - taken);
        }
        earn_digest(decoder, taken);
        bytes += taken;
        count -= taken;
        /* While only the mark is being matched, look at once: text is not to wait for more. */
        if (decoder->want == FRAME_PREFIX_BYTES ||
            decoder->used - decoder->start >= decoder->want) {
            judge(decoder, false);
        }
    }
}

void frame_decoder_finish(struct frame_decoder *decoder)
{
    judge(decoder, true);
}
