/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * record.h: everything that a run leaves behind, in one piece of memory that the launcher and the
 * VM process share. The report is made from it, by the launcher, however the VM process ended.
 *
 * Why shared memory and not a message: a VM process that was killed sends nothing any more, but what
 * it had written here by then is still there. So there is one way to make a report, not two.
 *
 * Who writes what: every group of fields has exactly one writing thread (named beside it) while the
 * VM runs. The launcher reads after the VM process is gone. Exceptions are marked `live`: the
 * launcher may look at them at any time (the status line), so they are written by atomic stores.
 *
 * Trust: the launcher takes nothing in here on faith. The VM process may have been taken over by its
 * guest. Before use, record_check() bounds every count, length, enum and string against the private
 * copy of the layout that the launcher made before it forked. While the VM process lives, what is in
 * here may change between two looks: a live field is loaded once, and the launcher's own limits stand
 * on what it saw first (look_at_record() in vmm/launcher.c).
 *
 * Times are CLOCK_MONOTONIC nanoseconds of the host unless a name says guest; 0 means "did not
 * happen".
 */
#ifndef BVMM_BASE_RECORD_H
#define BVMM_BASE_RECORD_H

#include "base/base.h"
#include "base/error.h"

#define RECORD_MAGIC 0x6472636d6d7662ULL /* "bvmmcrd" */

#define VCPUS_MAX 32
#define DRIVES_MAX 8 /* root image included */
#define ACTORS_MAX (4 + DRIVES_MAX + VCPUS_MAX)
#define ACTOR_NAME_BYTES 16 /* as prctl(PR_SET_NAME) has it */
#define NONCE_BYTES 16
#define SHA256_BYTES 32

/* How the run ended. Exactly one; the report's "status". */
/* clang-format off */
#define RUN_STATUS_LIST(X)                                                                         \
    X(NONE, "none")                   /* not decided yet */                                        \
    X(COMPLETED, "completed")         /* the command ran to its end (whatever its exit code) */    \
    X(GUEST_SHUTDOWN, "guest_shutdown") /* own init: the guest powered off or asked for a reset */ \
    X(TIMEOUT, "timeout")                                                                          \
    X(CANCELLED, "cancelled")         /* SIGINT, SIGTERM, or the library's cancel */               \
    X(GUEST_PANIC, "guest_panic")                                                                  \
    X(GUEST_RESET, "guest_reset")     /* a job with a command ended by reset without a result */   \
    X(GUEST_TRIPLE_FAULT, "guest_triple_fault")                                                    \
    X(GUEST_ERROR, "guest_error")     /* bvmm's init could not start the job; it says why */       \
    X(VM_ERROR, "vm_error")           /* the VMM failed; error.kind says in what */                \
    X(VM_KILLED, "vm_killed")         /* the VM process was killed (signal in the outcome) */      \
    X(SANDBOX_VIOLATION, "sandbox_violation") /* an actor made a call that its filter forbids */
/* clang-format on */

enum run_status {
#define X(id, name) RUN_##id,
    RUN_STATUS_LIST(X)
#undef X
        RUN_STATUS_COUNT
};
const char *run_status_name(enum run_status status);

/* Points in time, in the order in which they come. */
/* clang-format off */
#define RUN_TIME_LIST(X)                                                                           \
    X(PROCESS_START, "process_start")   /* launcher: first instruction of bvmm that can know */    \
    X(JOB_READY, "job_ready")           /* launcher: job checked, files open */                    \
    X(VM_PROCESS_START, "vm_process_start") /* VM process: first instruction */                    \
    X(SETUP_DONE, "setup_done")         /* live; supervisor: all actors ready, vCPUs told to run */ \
    X(GUEST_INIT, "guest_init")         /* init said hello */                                      \
    X(COMMAND_START, "command_start")                                                              \
    X(COMMAND_END, "command_end")                                                                  \
    X(RESULTS_COMPLETE, "results_complete") /* all that was announced is here */                   \
    X(STOP_DECIDED, "stop_decided")     /* live; supervisor: whatever the reason */                \
    X(ACTORS_STOPPED, "actors_stopped")                                                            \
    X(VM_PROCESS_END, "vm_process_end") /* launcher: reaped */
/* clang-format on */

enum run_time {
#define X(id, name) TIME_##id,
    RUN_TIME_LIST(X)
#undef X
        TIME_COUNT
};
const char *run_time_name(enum run_time point);

/* Points that the guest stamps with its own CLOCK_BOOTTIME (ns since its kernel started). */
enum guest_time {
    GUEST_TIME_INIT,
    GUEST_TIME_COMMAND_START,
    GUEST_TIME_COMMAND_END,
    GUEST_TIME_COUNT
};

/* What is collected. The vsock ports are the contract of SEED.md; 5003 is bvmm's own. */
/* clang-format off */
#define STREAM_LIST(X)                                                                             \
    X(STDOUT, "stdout", 5000)                                                                      \
    X(STDERR, "stderr", 5001)                                                                      \
    X(EXIT_CODE, "exit_code", 5002)     /* decimal text */                                         \
    X(CONTROL, "control", 5003)         /* frames of protocol/protocol.h, bvmm's init only */      \
    X(OUTPUT, "output", 5005)           /* one file raw, or several framed: protocol.h */          \
    X(ANNOUNCED, "announced", 0)        /* last manifest text that the guest sent */
/* clang-format on */

enum stream_id {
#define X(id, name, port) STREAM_##id,
    STREAM_LIST(X)
#undef X
        STREAM_COUNT
};
const char *stream_name(enum stream_id stream);

/* How a stream got here. */
enum stream_via { VIA_NONE, VIA_SERIAL, VIA_VSOCK };

enum stream_state {
    STREAM_EMPTY,    /* nothing was ever sent */
    STREAM_OPEN,     /* began, did not end: cut short by the end of the run */
    STREAM_COMPLETE, /* ended as the protocol has it */
    STREAM_BROKEN,   /* connection reset, or frames damaged or missing */
};

/*
 * One stream's bytes lie at [offset, offset + length_bytes) of the record's memory.
 * Writer: the actor that receives it (serial or vsock) until it sends MSG_STREAM_END; then the
 * supervisor. length_bytes never passes capacity_bytes: what came over that is counted as dropped.
 */
struct record_stream {
    uint64_t offset_bytes;   /* launcher, before the fork */
    uint64_t capacity_bytes; /* launcher, before the fork: the job's limit */
    uint64_t length_bytes;   /* live */
    uint64_t dropped_bytes;
    uint32_t state; /* enum stream_state */
    uint32_t via;   /* enum stream_via */
    /* Supervisor, from the guest's manifest. */
    uint64_t announced_bytes;
    uint8_t announced_sha256[SHA256_BYTES];
    uint8_t has_announced_bytes;
    uint8_t has_announced_sha256;
};

/*
 * The console log: the first head_bytes are kept, and the last tail_bytes (a ring); what falls
 * between is counted. Result frames are taken out before. Writer: serial.
 */
struct record_console {
    uint64_t offset_bytes; /* launcher, before the fork; head then tail */
    uint64_t head_capacity_bytes;
    uint64_t tail_capacity_bytes;
    uint64_t total_bytes; /* live: all that the guest ever printed */
};

/* Per actor; writer: that actor. CPU time is final once the actor has stopped. */
struct actor_stats {
    char name[ACTOR_NAME_BYTES];
    uint32_t state; /* enum actor_state, live */
    uint32_t tid;
    uint64_t cpu_ns;
    uint64_t messages_in;
    uint64_t messages_out;
    uint64_t wakeups;            /* times it returned from sleep */
    uint64_t wakeups_spurious;   /* ... and found nothing to do */
    uint64_t doorbells_rung;     /* times it had to wake somebody */
    uint64_t waits_for_space;    /* times a lane that it sends to was full */
    uint64_t mailbox_high_water; /* most messages ever waiting in one lane of its mailbox */
    uint64_t mailbox_slots;      /* usable slots of a lane */
    uint64_t requests;           /* blk: requests; vsock: packets from the guest */
    uint64_t request_errors;
    uint64_t queue_faults; /* virtio: times it went out of service because of its driver */
    uint64_t bytes;        /* blk: read from the image; vsock: payload; serial: output */
    uint64_t interrupts;   /* irqfd writes */
} __attribute__((aligned(CACHE_LINE_BYTES)));

enum actor_state {
    ACTOR_STATE_NONE,
    ACTOR_STATE_STARTING,
    ACTOR_STATE_READY,
    ACTOR_STATE_RUNNING,
    ACTOR_STATE_STOPPED
};
const char *actor_state_name(enum actor_state state);

/* Exits to user space of one vCPU by reason; writer: that vCPU. */
/* clang-format off */
#define EXIT_LIST(X)                                                                               \
    X(IO_IN, "io_in")                                                                              \
    X(IO_OUT, "io_out")                                                                            \
    X(MMIO_READ, "mmio_read")                                                                      \
    X(MMIO_WRITE, "mmio_write")                                                                    \
    X(UNCLAIMED, "unclaimed")           /* of the four above: no device has that address */        \
    X(HLT, "hlt")                                                                                  \
    X(SHUTDOWN, "shutdown")                                                                        \
    X(SYSTEM_EVENT, "system_event")                                                                \
    X(INTERNAL_ERROR, "internal_error")                                                            \
    X(FAIL_ENTRY, "fail_entry")                                                                    \
    X(INTERRUPTED, "interrupted")       /* a signal: EINTR */                                      \
    X(OTHER, "other")
/* clang-format on */

enum exit_reason {
#define X(id, name) EXIT_##id,
    EXIT_LIST(X)
#undef X
        EXIT_REASON_COUNT
};
const char *exit_reason_name(enum exit_reason reason);

struct vcpu_exits {
    uint64_t count[EXIT_REASON_COUNT];
} __attribute__((aligned(CACHE_LINE_BYTES)));

/*
 * So many DEVICE_BROKEN from one device are told: they share the lane with what cannot wait. How often it happened is
 * in the device's statistics.
 */
#define DEVICE_FAULTS_TOLD_MAX 4
enum { DEVICE_FAULTS_MAX = (DRIVES_MAX + 1) * DEVICE_FAULTS_TOLD_MAX };
#define DEVICE_FAULT_BYTES 112

/* A device that took itself out of service because its guest driver broke the rules. */
struct device_fault {
    char actor[ACTOR_NAME_BYTES];
    char what[DEVICE_FAULT_BYTES];
};

/* Written by the supervisor. */
struct run_outcome {
    uint32_t status;     /* enum run_status */
    uint32_t error_kind; /* enum bvmm_error_kind */
    char error_message[BVMM_ERROR_MESSAGE_BYTES];
    uint8_t has_wait_status; /* bvmm's init told the command's wait status */
    uint8_t has_exit_code;   /* exit code known (from init, or from port 5002) */
    uint8_t kernel_from_job; /* kernel_path given: not the bundled one */
    uint8_t console_decides; /* a reset or fault: the console's text may say that it was a panic */
    int32_t exit_code;       /* as a shell has it: 128 + signal when killed */
    int32_t term_signal;     /* guest signal number, 0 if none */
    int32_t cancel_signal;   /* host signal that cancelled the run, 0 if none */
    int32_t vm_signal;       /* host signal that killed the VM process, 0 if none */
    int32_t pad2;
    /* What the guest's kernel says of the command and all that it waited for; with has_wait_status. */
    uint64_t guest_user_ns;
    uint64_t guest_system_ns;
    uint64_t guest_peak_rss_bytes; /* of its largest process */
    uint64_t guest_oom_kills;      /* processes killed for want of memory */
};

/*
 * The layers of the sandbox that stand, and what the host refused. Writer: the VM process's main
 * thread and its parent for a moment, before there are others. It tells the launcher then
 * (vmm/spawn.h), which puts that here again when the VM process is gone: what a run writes here does
 * not count.
 */
/* clang-format off */
#define SANDBOX_LAYER_LIST(X)                                                                      \
    X(NO_NEW_PRIVS, "no_new_privs")                                                                \
    X(CAPABILITIES, "capabilities_dropped")                                                        \
    X(USER, "unprivileged_user")                                                                   \
    X(GROUPS, "groups_dropped")                                                                    \
    X(USER_NAMESPACE, "user_namespace")                                                            \
    X(PID_NAMESPACE, "pid_namespace")                                                              \
    X(MOUNT_NAMESPACE, "mount_namespace")                                                          \
    X(NET_NAMESPACE, "net_namespace")                                                              \
    X(IPC_NAMESPACE, "ipc_namespace")                                                              \
    X(UTS_NAMESPACE, "uts_namespace")                                                              \
    X(CGROUP_NAMESPACE, "cgroup_namespace")                                                        \
    X(EMPTY_ROOT, "empty_root")                                                                    \
    X(LANDLOCK, "landlock")                                                                        \
    X(RLIMITS, "rlimits")                                                                          \
    X(CGROUP, "cgroup")                                                                            \
    X(DESCRIPTORS, "descriptors_closed")                                                           \
    X(SECCOMP, "seccomp")                                                                          \
    X(LAUNCHER_SECCOMP, "launcher_seccomp")
/* clang-format on */

enum sandbox_layer {
#define X(id, name) SANDBOX_##id,
    SANDBOX_LAYER_LIST(X)
#undef X
        SANDBOX_LAYER_COUNT
};
const char *sandbox_layer_name(enum sandbox_layer layer);

#define SANDBOX_REFUSED_BYTES 512

struct record_sandbox {
    uint32_t layers;                     /* bit per enum sandbox_layer: it stands */
    char refused[SANDBOX_REFUSED_BYTES]; /* sentences; "" if the host refused nothing */
};

/* A call that a filter forbids. Writer: the thread that made it, in its last moments. */
struct record_violation {
    uint32_t seen; /* 1: the rest is filled */
    uint32_t actor;
    uint32_t arch; /* AUDIT_ARCH_... */
    int32_t syscall;
    uint64_t args[6];
};

struct record {
    uint64_t magic;
    uint64_t size_bytes;         /* launcher: of the whole shared memory */
    uint8_t nonce[NONCE_BYTES];  /* launcher */
    uint32_t actor_count;        /* VM process, before it starts threads */
    uint32_t vcpu_count;         /* launcher */
    uint32_t device_fault_count; /* supervisor */
    uint32_t phase;              /* live; supervisor: last enum run_time that happened */
    uint32_t mended_count;       /* launcher: what record_check() returned */
    uint32_t pad;
    uint64_t time_ns[TIME_COUNT];             /* writer: see RUN_TIME_LIST */
    uint64_t guest_time_ns[GUEST_TIME_COUNT]; /* supervisor */
    uint8_t kernel_sha256[SHA256_BYTES];      /* launcher */
    struct run_outcome outcome;
    struct record_sandbox sandbox;
    struct record_violation violation;
    struct device_fault device_faults[DEVICE_FAULTS_MAX];
    struct record_console console;
    struct record_stream streams[STREAM_COUNT];
    struct actor_stats actors[ACTORS_MAX];
    struct vcpu_exits exits[VCPUS_MAX];
    /* The bytes of console and streams follow, at the offsets given. */
};

/* The most that any one limit may be. */
#define RECORD_LIMIT_MAX_BYTES (64 * GIB)

struct record_limits {
    uint64_t console_bytes; /* half head, half tail */
    uint64_t stream_bytes[STREAM_COUNT];
};

/*
 * record_create - make the shared memory (a sealed-size memfd, sparse) and lay it out.
 * @ret_record: mapped MAP_SHARED; unmap with record_destroy(). The file descriptor is closed.
 * Return: 0, or -errno with *err filled (kind MEMORY).
 */
int record_create(const struct record_limits *limits, struct record **ret_record,
                  struct bvmm_error *err) must_check;

void record_destroy(struct record *record);

/*
 * record_unmap_others - take away every run record that is mapped, but this one. For a VM process: it is
 * a fork of a program that may run other VMs meanwhile, and their records are memory that it shares.
 * Thread: the only one. Reads /proc/self/maps. Return: 0 or -errno.
 */
int record_unmap_others(const struct record *mine) must_check;

/* Start of a stream's bytes. Only for a record that record_create() or record_check() laid out. */
uint8_t *record_stream_bytes(struct record *record, enum stream_id stream);

/*
 * record_append - add bytes to a stream, counting what does not fit.
 * Thread: the stream's writer.
 */
void record_append(struct record *record, enum stream_id stream, const void *data, size_t bytes);

/*
 * record_report_cost_ns - about how long it will take to make a report of the bytes that are there:
 * twice what tests/bench/bench_report.c measures with SHA-256 in hardware Whoever decides how long the
 * guest may go on after the deadline takes it off: the report has to be written in the same 500 ms.
 * Thread: any; the record may be live.
 */
#define RECORD_REPORT_NS_PER_BYTE 3
uint64_t record_report_cost_ns(const struct record *record);

/* Add bytes to the console log. Thread: serial. */
void record_console_append(struct record *record, const void *data, size_t bytes);

/*
 * record_console_copy - the console log in order, as one string.
 * @ret_text: malloc'ed, NUL-terminated; the caller frees. @ret_dropped_bytes: lost between head and
 * tail; @ret_dropped_at: where in the text the gap is.
 */
int record_console_copy(const struct record *record, char **ret_text, size_t *ret_bytes,
                        uint64_t *ret_dropped_bytes, size_t *ret_dropped_at) must_check;

/*
 * record_layout_copy - a private copy of the record's fixed part, for record_check() later.
 * Take it last thing before the fork: what the launcher wrote by then is restored from it.
 * Return: to be released by free(), or NULL when out of memory.
 */
struct record *record_layout_copy(const struct record *record) must_check;

/*
 * record_check - make a record that came back from the VM process safe to read.
 * @layout: the launcher's private copy, taken with record_layout_copy() before the fork.
 * Out-of-range counts, lengths, enums are clamped, strings terminated, and what only the launcher
 * writes is put back; returns (and leaves in mended_count) the number of things that had to be mended
 * (0 for an honest VM process). The VM process must be gone: nobody else may write any more. Numbers that only describe
 * (times, counters) stay as they are, so that differences of them may be nonsense; strings may hold
 * any bytes before their end.
 */
unsigned record_check(struct record *record, const struct record *layout);

#endif
