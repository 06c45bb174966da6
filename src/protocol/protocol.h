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
 * Everything that comes from the guest is untrusted. All integers are little endian.
 */
#ifndef BVMM_PROTOCOL_PROTOCOL_H
#define BVMM_PROTOCOL_PROTOCOL_H

#include "base/base.h"
#include "base/record.h"

#define VSOCK_CID_HOST 2
#define VSOCK_CID_GUEST 3

/* ---- A. The guest job ------------------------------------------------------------------------
 * Items one after another: u32 tag, u32 length in bytes, then the bytes. An item that may stand
 * several times keeps its order. Unknown tags are an error: both sides are built together.
 */
#define GUEST_JOB_PATH "/bvmm/job"
#define GUEST_JOB_STDIN_PATH "/bvmm/stdin" /* the command's standard input; absent: empty */
#define GUEST_JOB_VERSION 1

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
    GUEST_JOB_TAG_OUTPUT,      /* repeated; absolute path or glob(7) pattern in the image */
    GUEST_JOB_TAG_STREAM_LIMIT, /* u32 stream id, u64 bytes: no more than this is sent */
    GUEST_JOB_TAG_VSOCK,       /* u8: 1 = try vsock first */
    GUEST_JOB_TAG_MOUNT,       /* repeated; "/dev/vdb\0/mount/point\0fstype" read-only */
    GUEST_JOB_TAG_TMPFS_LIMIT, /* u64 bytes for the overlay and for /run; 0: the kernel's default */
    GUEST_JOB_TAG_GRACE_MS,    /* u32: after SIGTERM (Ctrl-Alt-Del) this long until SIGKILL */
};

/* ---- B. Frames -------------------------------------------------------------------------------
 * On serial a frame may be preceded by, and damaged by, anything: the receiver looks for
 * FRAME_MARK + nonce, and believes a frame only when its check fits. On vsock the same frames come
 * one after another with nothing between.
 */
#define FRAME_MARK "\x02" "BV\x03" /* 4 bytes, then the job's nonce */
#define FRAME_MARK_BYTES 4
#define FRAME_PAYLOAD_MAX_BYTES 4096

enum frame_type {
    FRAME_HELLO = 1, /* u64 guest boottime ns, u32 GUEST_JOB_VERSION, u32 via that data will take */
    FRAME_START,     /* u64 guest boottime ns: sent right before the command is started */
    FRAME_END,       /* u64 guest boottime ns, i32 wait status as waitpid(2) has it */
    FRAME_ANNOUNCE,  /* manifest text, may be sent in several frames: offset says where it goes */
    FRAME_DATA,      /* bytes of `stream` at `offset` */
    FRAME_STREAM_END,/* no payload: `offset` is the stream's final size as sent */
    FRAME_BYE,       /* all has been sent; the guest is about to power off */
    FRAME_FATAL,     /* text: init could not start the job, and why */
};

struct frame_header {
    uint8_t mark[FRAME_MARK_BYTES];
    uint8_t nonce[NONCE_BYTES];
    uint8_t type;      /* enum frame_type */
    uint8_t stream;    /* enum stream_id, for FRAME_DATA and FRAME_STREAM_END */
    uint16_t reserved; /* 0 */
    uint32_t payload_bytes; /* <= FRAME_PAYLOAD_MAX_BYTES */
    uint32_t sequence; /* from 0, one more for each frame: a gap means a lost frame */
    uint64_t offset;
    uint64_t check;    /* first 8 bytes of the SHA-256 of the header before this field + payload */
} __attribute__((packed));
_Static_assert(sizeof(struct frame_header) == 48, "the wire format");

/* ---- C. The manifest -------------------------------------------------------------------------
 * Text, a line each:   <name> <size in bytes> <sha256 in hex or -> [<path, %XX-escaped>]
 * name: stdout, stderr, exit_code, output, file (one for each output file, with its path), or
 * missing (size 0, -, and the pattern that matched nothing). Size: what the guest had, before any
 * limit. Sent twice: before the data with "-" for digests, after it with the digests.
 */
#define MANIFEST_MAX_BYTES (256 * 1024)

/* ---- D. Several output files on port 5005 ----------------------------------------------------
 * u32 count; then for each: u32 path bytes, path, u64 content bytes, content. bvmm's init always
 * sends it so; what an image's own init sends there is taken as one file.
 */
#define OUTPUT_FILES_MAX 255

#endif
