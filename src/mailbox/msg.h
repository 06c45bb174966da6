/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * msg.h: every message of bvmm. This is the map of the program.
 *
 * A running VM is a handful of threads, the actors. They share nothing but messages (and the few
 * things named in docs/architecture.md: guest memory, the run record). What can be said, who may
 * say it to whom, and what answers it stands in MSG_LIST below, and nowhere else: the lanes between
 * actors are made from this table, so that an actor cannot send what is not in it.
 *
 * A message is plain data and fits half a cache line. It is copied into a lane and out of it; the
 * sender keeps nothing. Where a message hands over something larger, a stream's bytes, the comment
 * says who owns it from then on.
 */
#ifndef BVMM_MAILBOX_MSG_H
#define BVMM_MAILBOX_MSG_H

#include "base/base.h"
#include "base/error.h"

/* ---- The parties ------------------------------------------------------------------------------
 * A class of actors runs one code; the machine has one or several instances of it. Instances are
 * numbered through the whole machine (actor_id): the supervisor is 0.
 */
enum actor_class {
    ACTOR_SUPERVISOR, /* decides: deadline, results, the end of the run */
    ACTOR_VCPU,       /* runs guest code; turns its exits into messages */
    ACTOR_SERIAL,     /* 16550A; finds bvmm's frames in what it prints */
    ACTOR_I8042,      /* keyboard controller: reset, Ctrl-Alt-Del */
    ACTOR_BLK,        /* virtio-blk: one read-only image */
    ACTOR_VSOCK,      /* virtio-vsock: results, and bridges to AF_UNIX */
    ACTOR_CLASS_COUNT
};

typedef uint8_t actor_id;
#define ACTOR_ID_SUPERVISOR 0

/* Sets of classes, for the table's columns. */
#define A_SUPERVISOR (1U << ACTOR_SUPERVISOR)
#define A_VCPU (1U << ACTOR_VCPU)
#define A_SERIAL (1U << ACTOR_SERIAL)
#define A_I8042 (1U << ACTOR_I8042)
#define A_BLK (1U << ACTOR_BLK)
#define A_VSOCK (1U << ACTOR_VSOCK)
#define A_DEVICES (A_SERIAL | A_I8042 | A_BLK | A_VSOCK)
#define A_VIRTIO (A_BLK | A_VSOCK)
#define A_COLLECTORS (A_SERIAL | A_VSOCK) /* what results arrive through */
#define A_NOBODY 0U

/* ---- The messages -----------------------------------------------------------------------------
 *   kind               payload     from                  to            answered by
 */
/* clang-format off */
#define MSG_LIST(X)                                                                                \
    /* The guest touched a device register. The vCPU waits for the answer to a read. Which writes  \
     * are posted and which acknowledged is a property of the register (struct reg_def). */        \
    X(IO_READ,            io,         A_VCPU,               A_DEVICES,    IO_READ_DONE)            \
    X(IO_READ_DONE,       io,         A_DEVICES,            A_VCPU,       NONE)                    \
    X(IO_WRITE,           io,         A_VCPU,               A_DEVICES,    NONE)                    \
    X(IO_WRITE_ACKED,     io,         A_VCPU,               A_DEVICES,    IO_WRITE_DONE)           \
    X(IO_WRITE_DONE,      io,         A_DEVICES,            A_VCPU,       NONE)                    \
    /* The life of an actor: it says READY when it is in its sandbox; vCPUs then get RUN; everyone \
     * gets STOP once, drains its lanes, says STOPPED as its last word, and its thread ends. */    \
    X(READY,              none,       A_VCPU | A_DEVICES,   A_SUPERVISOR, NONE)                    \
    X(RUN,                none,       A_SUPERVISOR,         A_VCPU,       NONE)                    \
    X(STOP,               none,       A_SUPERVISOR,         A_VCPU | A_DEVICES, STOPPED)           \
    X(STOPPED,            none,       A_VCPU | A_DEVICES,   A_SUPERVISOR, NONE)                    \
    X(FAILED,             failure,    A_VCPU | A_DEVICES,   A_SUPERVISOR, NONE)                    \
    /* What the guest did to its machine. The vCPU that says ENDED runs no further. */             \
    X(VCPU_ENDED,         vcpu_end,   A_VCPU,               A_SUPERVISOR, NONE)                    \
    X(GUEST_RESET,        none,       A_I8042,              A_SUPERVISOR, NONE)                    \
    X(DEVICE_BROKEN,      broken,     A_VIRTIO,             A_SUPERVISOR, NONE)                    \
    /* What the guest's init tells (protocol.h), as it arrives over vsock or serial. */            \
    X(INIT_HELLO,         init,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(COMMAND_START,      init,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(COMMAND_END,        span,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(COMMAND_USAGE,      usage,      A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(COMMAND_EXIT,       exit,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(INIT_MANIFEST,      text,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(INIT_FATAL,         text,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    X(INIT_BYE,           init,       A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    /* A stream's bytes in the record belong to the supervisor from here on. */                    \
    X(STREAM_END,         stream,     A_COLLECTORS,         A_SUPERVISOR, NONE)                    \
    /* Ask the guest to end by itself: a key press that its init takes for SIGINT. Where there is  \
     * no keyboard, Ctrl-C on the console, which only bvmm's own init takes for that. The quit key  \
     * says that there is no time: the deadline has passed. */                                     \
    X(TYPE_CTRL_C,        none,       A_SUPERVISOR,         A_SERIAL,     NONE)                    \
    X(TYPE_CTRL_BACKSLASH, none,      A_SUPERVISOR,         A_SERIAL,     NONE)                    \
    X(PRESS_CTRL_ALT_DEL, none,       A_SUPERVISOR,         A_I8042,      NONE)
/* clang-format on */

/* ---- The payloads ---------------------------------------------------------------------------- */

struct msg_none {
    uint8_t unused;
};

/* One access to a register of a device's region, at most 8 bytes wide. */
struct msg_io {
    uint64_t value;        /* write: what to store; read done: what was read */
    uint32_t offset_bytes; /* from the region's base */
    uint8_t width_bytes;   /* 1, 2, 4 or 8 */
};

/* The actor cannot go on. */
struct msg_failure {
    int32_t error; /* negative errno */
    uint32_t kind; /* enum bvmm_error_kind: what the report calls it */
    char what[16]; /* the call or step that failed; NUL-terminated */
};

enum vcpu_end_reason {
    VCPU_END_TRIPLE_FAULT, /* x86: shutdown */
    VCPU_END_POWER_OFF,    /* PSCI SYSTEM_OFF */
    VCPU_END_RESET,        /* PSCI SYSTEM_RESET */
    VCPU_END_CRASH,        /* KVM: the guest says that it has crashed */
    VCPU_END_FAILED,       /* KVM cannot run it any further: see error */
};

struct msg_vcpu_end {
    const struct bvmm_error *error; /* a sentence; the vCPU does not touch it any more */
    uint32_t reason;                /* enum vcpu_end_reason */
};

/* A device was taken out of service (NEEDS_RESET): its driver broke the rules. */
struct msg_broken {
    uint64_t detail; /* the offending value */
    uint32_t fault;  /* enum virtq_fault */
    uint16_t queue;
};

struct msg_init {
    uint64_t guest_ns; /* CLOCK_BOOTTIME of the guest; 0 if it does not say */
    uint64_t host_ns;  /* CLOCK_MONOTONIC of the host, on arrival */
    uint32_t via;      /* enum stream_via */
};

/* The measured window. */
struct msg_span {
    uint64_t guest_start_ns; /* CLOCK_BOOTTIME of the guest, right before the command's exec */
    uint64_t guest_end_ns;   /* ... right after it was reaped */
    uint64_t host_ns;        /* CLOCK_MONOTONIC of the host, on arrival of the end */
};

struct msg_usage {
    uint64_t user_ns;
    uint64_t system_ns;
    uint64_t peak_rss_bytes;
};

struct msg_exit {
    int32_t wait_status; /* as waitpid(2) has it */
    uint32_t oom_kills;
};

/*
 * Text that lies in a stream of the record and does not change any more: INIT_MANIFEST in
 * STREAM_ANNOUNCED, INIT_FATAL in STREAM_CONTROL. The supervisor may read it from here on.
 */
struct msg_text {
    uint64_t offset_bytes;
    uint64_t length_bytes;
};

struct msg_stream {
    uint64_t sent_bytes; /* as the guest counted */
    uint32_t stream;     /* enum stream_id */
    uint32_t state;      /* enum stream_state */
    uint32_t via;        /* enum stream_via */
};

/* ---- What follows is made from the table ----------------------------------------------------- */

enum msg_kind {
    MSG_NONE,
#define X(kind, payload, from, to, answer) MSG_##kind,
    MSG_LIST(X)
#undef X
        MSG_KIND_COUNT
};

struct msg {
    uint16_t kind;   /* enum msg_kind */
    actor_id from;   /* set by lane_try_send() */
    uint8_t region;  /* which of the receiver's register regions (struct msg_io) */
    uint32_t ticket; /* set by lane_try_send(): the order of sending, see mailbox.h */
    union {
        struct msg_none none;
        struct msg_io io;
        struct msg_failure failure;
        struct msg_vcpu_end vcpu_end;
        struct msg_broken broken;
        struct msg_init init;
        struct msg_span span;
        struct msg_usage usage;
        struct msg_exit exit;
        struct msg_text text;
        struct msg_stream stream;
    };
};
_Static_assert(sizeof(struct msg) == 32, "two to a cache line");

/* One row of MSG_LIST, to be looked at by program. */
struct msg_rule {
    const char *name;
    unsigned from; /* set of A_... */
    unsigned to;   /* set of A_... */
    enum msg_kind answer;
};
extern const struct msg_rule msg_rules[MSG_KIND_COUNT];

/* Whether any message may go from one class to the other: then the machine has a lane for it. */
bool msg_lane_needed(enum actor_class from, enum actor_class to);

/* Whether this message may go from one class to the other. */
bool msg_allowed(enum msg_kind kind, enum actor_class from, enum actor_class to);

#endif
