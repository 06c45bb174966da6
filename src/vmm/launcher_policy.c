/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * launcher_policy.c: see launcher_policy.h.
 *
 * A filter cannot be taken off: the second is put on over the first, and both are asked. So the first
 * table has all rows of the second, and what waiting takes.
 *
 * What a filter cannot see is what pointers point at: paths. With the directory pinned, an absolute
 * path would still go anywhere; what these rows can say is how a file is opened: new, or for reading, never
 * for writing over one that is there. Where is Landlock's to say: launcher_sandbox.c.
 */
#include "vmm/launcher_policy.h"

#include <fcntl.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#define EQ(index, number)                                                                          \
    {                                                                                              \
        (index), POLICY_CONSTANT, (uint64_t)(number)                                               \
    }
#define IS(index, value)                                                                           \
    {                                                                                              \
        (index), POLICY_##value, 0                                                                 \
    }
#define ANY                                                                                        \
    {                                                                                              \
        0, POLICY_ANY, 0                                                                           \
    }
#define ARGS(...) __VA_ARGS__

/* ROW(call, how many arguments are pinned, ARGS(which), what the machine must have, why) */
#define ROW(call, count, args, only_if, why)                                                       \
    {                                                                                              \
        (call), {args}, (count), POLICY_##only_if, (why)                                           \
    }

#define NEW_UNNAMED (O_WRONLY | O_TMPFILE | O_CLOEXEC)
#define NEW_NAMED (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define SOCKET_TYPE (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)

/* clang-format off */
#define WRITING_ROWS                                                                               \
    ROW("brk", 0, ANY, ANY, "memory"),                                                             \
    ROW("mmap", 2, ARGS(EQ(2, PROT_READ | PROT_WRITE), EQ(3, MAP_PRIVATE | MAP_ANONYMOUS)), ANY,   \
        "memory; of no file, never executable"),                                                   \
    ROW("mremap", 1, ARGS(EQ(3, MREMAP_MAYMOVE)), ANY, "memory: a large block grows"),             \
    ROW("munmap", 0, ANY, ANY, "memory, and the run record at the end"),                           \
    ROW("pread64", 1, ARGS(IS(0, KERNEL_FILE)), KERNEL_FILE, "digest of the job's own kernel"),    \
    ROW("openat", 3, ARGS(IS(0, REPORT_DIRS), EQ(2, NEW_UNNAMED), EQ(3, 0666)), REPORT_DIRS,       \
        "a new file, without a name yet"),                                                         \
    ROW("openat", 3, ARGS(IS(0, REPORT_DIRS), EQ(2, NEW_NAMED), EQ(3, 0666)), REPORT_DIRS,         \
        "a new file, where the file system has none without a name"),                              \
    ROW("flock", 1, ARGS(EQ(1, LOCK_EX | LOCK_NB)), ANY,                                           \
        "a file with a temporary name has a maker who lives; one bvmm at a time divides the control "  \
        "group, and is another's maker gone"),                                                     \
    ROW("write", 0, ANY, ANY,                                                                      \
        "the new file; messages; standard output; files of the VM's control group. Nothing else is "    \
        "open for writing"),    \
    ROW("ppoll", 2, ARGS(EQ(1, 1), EQ(3, 0)), ANY, "a standard output that is not ready"),         \
    ROW("fsync", 0, ANY, REPORT_DIRS, "the report is to last"),                                    \
    ROW("newfstatat", 2, ARGS(IS(0, REPORT_DIRS), EQ(3, AT_SYMLINK_NOFOLLOW)), REPORT_DIRS,        \
        "what has the report's name: only a file is replaced"),                                    \
    ROW("linkat", 3, ARGS(EQ(0, AT_FDCWD), IS(2, REPORT_DIRS), EQ(4, AT_SYMLINK_FOLLOW)),          \
        REPORT_DIRS, "the new file gets its name, or a temporary one"),                                      \
    ROW("renameat", 2, ARGS(IS(0, REPORT_DIRS), IS(2, REPORT_DIRS)), REPORT_DIRS,                  \
        "and then its own, which another file has"),                                                                       \
    ROW("unlinkat", 2, ARGS(IS(0, REPORT_DIRS), EQ(2, 0)), REPORT_DIRS,                            \
        "no temporary file stays, whatever fails"),                                                \
    ROW("mkdirat", 2, ARGS(EQ(0, AT_FDCWD), EQ(2, 0777)), LARGE_DIR,                               \
        "the directory of large outputs"),                                                         \
    ROW("unlinkat", 2, ARGS(EQ(0, AT_FDCWD), EQ(2, AT_REMOVEDIR)), LARGE_DIR,                      \
        "and away with it if no file could be put there"),                                         \
    ROW("openat", 2, ARGS(EQ(0, AT_FDCWD), EQ(2, DIRECTORY)), LARGE_DIR,                           \
        "the directory of large outputs"),                                                         \
    ROW("dup3", 2, ARGS(IS(1, LARGE_DIR), EQ(2, O_CLOEXEC)), LARGE_DIR,                            \
        "onto the number that the rows above know"),                                               \
    ROW("close", 0, ANY, ANY, "what is not needed any more"),                                      \
    ROW("clock_gettime", 1, ARGS(EQ(0, CLOCK_MONOTONIC)), ANY,                                     \
        "time stamps, where the host's clock is not readable without a call"),                     \
    ROW("clock_gettime", 1, ARGS(EQ(0, CLOCK_REALTIME)), ANY,                                      \
        "the report's date, likewise"),                                                            \
    ROW("rt_sigreturn", 0, ANY, ANY, "return from a signal that cancels"),                         \
    ROW("exit_group", 0, ANY, ANY, "the end")
/* clang-format on */

static const struct policy_rule waiting_rules[] = {
    ROW("ppoll", 2, ARGS(EQ(1, 3), EQ(3, 0)), ANY, "wait for the VM process, a cancel, the bridge"),
    ROW("read", 1, ARGS(IS(0, CANCEL)), CANCEL, "the run is cancelled"),
    ROW("pidfd_send_signal", 4, ARGS(IS(0, VM_PIDFD), EQ(1, SIGTERM), EQ(2, 0), EQ(3, 0)), ANY,
        "cancel the run"),
    ROW("pidfd_send_signal", 4, ARGS(IS(0, VM_PIDFD), EQ(1, SIGKILL), EQ(2, 0), EQ(3, 0)), ANY,
        "end a VM process that does not end by itself"),
    ROW("waitid", 3, ARGS(EQ(0, P_PIDFD), IS(1, VM_PIDFD), EQ(3, WEXITED)), ANY,
        "how the VM process ended"),
    ROW("waitid", 3, ARGS(EQ(0, P_PIDFD), IS(1, VM_PIDFD), EQ(3, WEXITED | WNOHANG)), ANY,
        "the same of one that had to be killed"),
    ROW("read", 1, ARGS(IS(0, VM_SOCKET)), ANY,
        "which layers the VM process had, when it had set itself up"),
    ROW("prctl", 3, ARGS(EQ(0, PR_SET_SECCOMP), EQ(1, SECCOMP_MODE_FILTER), IS(2, NEXT_FILTER)),
        ANY, "enter the narrower filter, which is made before"),

    ROW("recvfrom", 2, ARGS(IS(0, BROKER), EQ(3, MSG_DONTWAIT)), BROKER,
        "the guest calls a host program: which port"),
    ROW("socket", 3, ARGS(EQ(0, AF_UNIX), EQ(1, SOCKET_TYPE), EQ(2, 0)), BROKER,
        "a socket to connect; UNIX only"),
    ROW("connect", 1, ARGS(EQ(2, sizeof(struct sockaddr_un))), BROKER,
        "to <vsock_path>_PORT; only UNIX sockets can be made"),
    ROW("sendmsg", 2, ARGS(IS(0, BROKER), EQ(2, MSG_DONTWAIT | MSG_NOSIGNAL)), BROKER,
        "the connected socket, for the actor"),
    ROW("newfstatat", 2, ARGS(EQ(0, AT_FDCWD), EQ(3, AT_SYMLINK_NOFOLLOW)), BROKER,
        "is it still our socket that has the name"),
    ROW("unlinkat", 2, ARGS(EQ(0, AT_FDCWD), EQ(2, 0)), BROKER, "remove the bridge's socket"),

    ROW("read", 1, ARGS(IS(0, CGROUP_READ)), CGROUP_BASE, "peak of memory, kills for want of it"),
    ROW("unlinkat", 2, ARGS(IS(0, CGROUP_BASE), EQ(2, AT_REMOVEDIR)), CGROUP_BASE,
        "remove the control groups that are ours"),
    ROW("ppoll", 2, ARGS(EQ(1, 0), EQ(3, 0)), CGROUP_BASE,
        "sleep until a killed process is gone from it; until it is our turn to divide"),
    ROW("flock", 1, ARGS(EQ(1, LOCK_UN)), CGROUP_BASE, "the next one's turn"),
    ROW("openat", 2, ARGS(IS(0, CGROUP_BASE), EQ(2, DIRECTORY)), CGROUP_BASE,
        "look for control groups of killed launchers"),
    ROW("fcntl", 1, ARGS(EQ(1, F_GETFL)), CGROUP_BASE, "fdopendir()"),
    ROW("fcntl", 2, ARGS(EQ(1, F_SETFD), EQ(2, FD_CLOEXEC)), CGROUP_BASE, "fdopendir()"),
    ROW("newfstatat", 1, ARGS(EQ(3, AT_EMPTY_PATH)), CGROUP_BASE, "fdopendir()"),
    ROW("getdents64", 0, ANY, CGROUP_BASE, "readdir()"),

    WRITING_ROWS,
};

static const struct policy_rule writing_rules[] = {WRITING_ROWS};

static const struct policy waiting_policy = {waiting_rules, ARRAY_SIZE(waiting_rules)};
static const struct policy writing_policy = {writing_rules, ARRAY_SIZE(writing_rules)};

const struct launcher_def launcher_defs[LAUNCHER_STATE_COUNT] = {
    [LAUNCHER_WAITING] =
        {
            .name = "launcher_waiting",
            .owns = "the VM process's life, the broker's half of the bridge, the status line",
            .policy = &waiting_policy,
        },
    [LAUNCHER_WRITING] =
        {
            .name = "launcher_writing",
            .owns = "the run record when the VM process is gone, the report",
            .policy = &writing_policy,
        },
};
