/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * frame.h: frames out of a stream of bytes, and into one (section B of protocol.h).
 *
 * The decoder runs in the serial actor, on whatever a guest prints: between console text it looks
 * for frames. It makes no system call and allocates nothing; its memory is the struct. Whatever the
 * bytes are, it looks at each a bounded number of times:
 *
 *   - text is searched for the first byte of the mark, and handed on from where it lies;
 *   - from there on bytes are copied into a buffer until a whole frame is there, or it is clear
 *     that there is none. Then the search goes on at the next byte of the buffer, so that a frame
 *     whose middle was lost does not take the next one with it;
 *   - to check a frame costs a digest over it. A guest that knows the nonce could pack a forged
 *     header into every 48 bytes, each announcing 4 KiB. So digests are paid for: each byte that
 *     comes in earns two bytes of digest, and a frame that cannot be paid for is text. A frame of a
 *     sender that means well has always earned more than it costs.
 *
 * Thread: one at a time. Nothing blocks.
 */
#ifndef BVMM_PROTOCOL_FRAME_H
#define BVMM_PROTOCOL_FRAME_H

#include "protocol/protocol.h"

/*
 * frame_encode - make one frame.
 * @out: FRAME_MAX_BYTES of room, or less if the payload is known to be small.
 * @payload_bytes: at most FRAME_PAYLOAD_MAX_BYTES; the caller sees to it.
 * Return: the frame's length.
 */
size_t frame_encode(uint8_t *out, const uint8_t nonce[NONCE_BYTES], enum frame_type type,
                    enum stream_id stream, uint32_t sequence, uint64_t offset, const void *payload,
                    size_t payload_bytes);

enum frame_mode {
    FRAME_MODE_CONSOLE, /* text and frames; damage becomes text */
    FRAME_MODE_PURE,    /* frames only; anything else breaks the stream for good */
};

struct frame_decoder_ops {
    /* Console text, in order with the frames. Not called in FRAME_MODE_PURE. */
    void (*on_text)(void *context, const uint8_t *bytes, size_t count);
    /* A frame whose check fits. Type, reserved and payload_bytes are in range; the rest is as the
     * guest has it. The payload is valid during the call. */
    void (*on_frame)(void *context, const struct frame_header *header, const uint8_t *payload);
};

#define FRAME_PREFIX_BYTES (FRAME_MARK_BYTES + NONCE_BYTES)

struct frame_decoder {
    const struct frame_decoder_ops *ops;
    void *context;
    enum frame_mode mode;
    bool broken;             /* FRAME_MODE_PURE: something else than a frame came */
    uint64_t frames;         /* good ones */
    uint64_t damaged_frames; /* began with mark and nonce, but did not hold what they promised */
    uint64_t damaged_bytes;  /* given back as text because of that */
    /* From here on the decoder's own. */
    size_t start;         /* of the candidate in buffer */
    size_t used;          /* bytes in buffer, what lies before start included */
    size_t want;          /* bytes that the candidate needs before it can be judged further */
    size_t damage_left;   /* bytes from start on that a damaged frame took up */
    size_t digest_credit; /* bytes of digest that have been earned */
    uint8_t prefix[FRAME_PREFIX_BYTES];
    uint8_t buffer[2 * FRAME_MAX_BYTES]; /* room to go on without moving it all down each time */
};

void frame_decoder_init(struct frame_decoder *decoder, enum frame_mode mode,
                        const uint8_t nonce[NONCE_BYTES], const struct frame_decoder_ops *ops,
                        void *context);

/* Any number of bytes, cut anywhere. The callbacks must not call the decoder. */
void frame_decoder_feed(struct frame_decoder *decoder, const uint8_t *bytes, size_t count);

/*
 * frame_decoder_finish - nothing more will come: hand on what is held back.
 * An unfinished frame is damage, but whole frames may hide behind a damaged one. The console's last
 * words (a panic, say) may be here, so call this before the text is judged.
 */
void frame_decoder_finish(struct frame_decoder *decoder);

#endif
