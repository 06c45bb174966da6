/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * protocol.h: what bvmm and its own guest init say to each other. Shared by both sides.
 *
 * 1. bvmm -> init, before boot: the guest job, the file /bvmm/job of the initramfs (section A).
 * 2. init -> bvmm, while it runs: frames (section B), over the vsock control port 5003 or, without
 *    vsock, over the serial console between other output.
 * 3. init -> bvmm, after the command: the streams. Over vsock each on its port, raw, ended by
 *    closing (the contract of SEED.md). Over serial as FRAME_DATA.
 *
 * Everything that comes from the guest is untrusted. All integers are little endian. The story that
 * goes with this file is docs/guest-protocol.md.
 */
#ifndef BVMM_PROTOCOL_PROTOCOL_H
#define BVMM_PROTOCOL_PROTOCOL_H

#include "base/base.h"
#include "base/record.h"

#define VSOCK_CID_HOST 2
#define VSOCK_CID_GUEST 3

/* ---- A. The guest job ------------------------------------------------------------------------
 * Items one after another: u32 tag, u32 length in bytes, then the bytes. Text carries no final NUL
 * and has none inside. An item that may stand several times keeps its order; any other stands at
 * most once. Unknown tags are an error: both sides are built together.
 */
#define GUEST_JOB_PATH "/bvmm/job"
#define GUEST_JOB_STDIN_PATH "/bvmm/stdin" /* the command's standard input; absent: empty */
#define GUEST_JOB_VERSION 1
#define GUEST_JOB_MAX_BYTES (4 * MIB) /* more than Linux takes as arguments and environment */

enum guest_job_tag {
    GUEST_JOB_TAG_VERSION = 1, /* u32, first item */
    GUEST_JOB_TAG_NONCE,       /* NONCE_BYTES */
    GUEST_JOB_TAG_ROOT_DEVICE, /* "/dev/vda" */
    GUEST_JOB_TAG_ROOT_FSTYPE, /* "squashfs"; empty: try what the kernel knows */
    GUEST_JOB_TAG_ARG,         /* repeated; the command and its arguments */
    GUEST_JOB_TAG_ENV,         /* repeated; NAME=value */
    GUEST_JOB_TAG_WORKDIR,     /* default "/" */
    GUEST_JOB_TAG_USER,        /* "name", "uid", "name:group", "uid:gid"; empty: root */
    GUEST_JOB_TAG_HOSTNAME,
    GUEST_JOB_TAG_OUTPUT,       /* repeated; absolute path or glob(7) pattern in the image */
    GUEST_JOB_TAG_STREAM_LIMIT, /* repeated; u32 stream id, u64 bytes: no more than this is sent */
    GUEST_JOB_TAG_VSOCK,        /* u8: 1 = try vsock first */
    GUEST_JOB_TAG_MOUNT,        /* repeated; "/dev/vdb\0/mount/point\0fstype" read-only */
    GUEST_JOB_TAG_TMPFS_LIMIT, /* u64 bytes for the overlay and for /run; 0: the kernel's default */
    GUEST_JOB_TAG_GRACE_MS,    /* u32: after SIGTERM (Ctrl-Alt-Del) at most so long until SIGKILL */
    GUEST_JOB_TAG_REALTIME, /* u64: the host's CLOCK_REALTIME in ns when the guest was made; 0: unknown */
};

/* ---- B. Frames -------------------------------------------------------------------------------
 * On serial a frame may be preceded by, and damaged by, anything: the receiver looks for
 * FRAME_MARK + nonce, and believes a frame only when its check fits. On vsock the same frames come
 * one after another with nothing between.
 *
 * Each of the two ways counts its own sequence. If vsock fails half-way, init goes on over serial:
 * it says HELLO there (via serial), says END again, and sends every stream that did not get through
 * once more from its first byte.
 */
#define FRAME_MARK                                                                                 \
    "\x02"                                                                                         \
    "BV\x03" /* 4 bytes, then the job's nonce */
#define FRAME_MARK_BYTES 4
#define FRAME_PAYLOAD_MAX_BYTES 4096
#define FRAME_MAX_BYTES (sizeof(struct frame_header) + FRAME_PAYLOAD_MAX_BYTES)

enum frame_type {
    FRAME_HELLO = 1, /* struct frame_hello */
    FRAME_START,     /* struct frame_start: sent right before the command is started */
    FRAME_END,       /* struct frame_end: sent when it has ended and nothing of it is left */
    FRAME_ANNOUNCE,  /* manifest text (section C); `offset` goes on from one manifest to the next */
    FRAME_ANNOUNCE_END, /* no payload: a manifest is whole; `offset` is where the next one begins */
    FRAME_DATA,         /* bytes of `stream` at `offset` */
    FRAME_STREAM_END,   /* no payload: `offset` is the stream's final size as sent */
    FRAME_BYE,          /* all has been sent; the guest is about to reset */
    FRAME_FATAL,        /* text: init could not start the job, and why */
};
#define FRAME_TYPE_LAST FRAME_FATAL

struct frame_header {
    uint8_t mark[FRAME_MARK_BYTES];
    uint8_t nonce[NONCE_BYTES];
    uint8_t type;           /* enum frame_type */
    uint8_t stream;         /* enum stream_id, for FRAME_DATA and FRAME_STREAM_END; else 0 */
    uint16_t reserved;      /* 0 */
    uint32_t payload_bytes; /* <= FRAME_PAYLOAD_MAX_BYTES */
    uint32_t sequence;      /* from 0, one more for each frame: a gap means a lost frame */
    uint64_t offset;
    uint64_t check; /* first 8 bytes of the SHA-256 of the header before this field + payload */
} __attribute__((packed));
_Static_assert(sizeof(struct frame_header) == 48, "the wire format");

struct frame_hello {
    uint64_t boottime_ns; /* guest's CLOCK_BOOTTIME, here and below */
    uint32_t version;     /* GUEST_JOB_VERSION */
    uint32_t via;         /* enum stream_via: the way that results are going to take */
} __attribute__((packed));

struct frame_start {
    uint64_t boottime_ns; /* some microseconds early; frame_end has the exact time */
} __attribute__((packed));

struct frame_end {
    uint64_t boottime_ns;       /* right after wait returned */
    uint64_t start_boottime_ns; /* the command's process, right before its exec */
    uint64_t user_ns;           /* CPU time of the command and all it waited for */
    uint64_t system_ns;
    uint64_t peak_rss_bytes; /* of its largest process */
    int32_t wait_status;     /* as waitpid(2) has it */
    uint32_t oom_kills;      /* processes that the guest's kernel killed for want of memory */
} __attribute__((packed));

/* ---- C. The manifest -------------------------------------------------------------------------
 * Text, a line each:   <name> <size in bytes> <sha256 in hex or -> [<path, %XX-escaped> [<reason>]]
 * name: stdout, stderr, exit_code, output, file (one for each output file, with its path), or
 * missing (size 0, -, the path or pattern that brought nothing, and why: manifest.h has the words).
 * Size: what the guest had, before any limit. Digest: of what was sent, so that a stream that was
 * cut at its limit can be checked too. Sent twice: before the data with "-" for digests, after it
 * with the digests. A stream without a line is not sent.
 *
 * The record's STREAM_ANNOUNCED keeps them all, one behind the other (nothing in it ever changes once
 * it is there, so that the supervisor may read while more arrives): a later line replaces an
 * earlier one with the same name and path.
 */
#define MANIFEST_MAX_BYTES (128 * KIB) /* one of them */
/* What STREAM_ANNOUNCED needs: two by vsock, and both again if that fails at the very end. */
#define MANIFEST_STREAM_BYTES (4 * MANIFEST_MAX_BYTES)

/* ---- D. Several output files on port 5005 ----------------------------------------------------
 * u32 count; then for each: u32 path bytes, path, u64 content bytes, content. bvmm's init always
 * sends it so; what an image's own init sends there is taken as one file. A file that does not fit
 * into the stream's limit is cut, or left empty: its content bytes are those that follow, its size
 * in the manifest is the true one.
 */
#define OUTPUT_FILES_MAX 255

#endif
