/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawn.c: a child in a process namespace of its own. See spawn.h.
 *
 * Thread: launcher; the helper and the child have one thread each. Blocks: waiting for the helper,
 * which lives for some hundred microseconds.
 */
#include "vmm/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cgroup.h"
#include "vmm/jail.h"

/* What the helper tells the launcher, through a pipe. */
struct spawn_word {
    pid_t pid;                /* of the child, or 0 */
    int code;                 /* 0 or negative errno */
    enum sandbox_layer layer; /* that was refused */
};

static int write_text(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    int code = 0;

    if (fd < 0) {
        return -errno;
    }
    if (write(fd, text, strlen(text)) < 0) {
        code = -errno;
    }
    (void)close(fd);
    return code;
}

/* The user keeps its own id in there, and gets nothing that it did not have. */
static int enter_user_namespace(void)
{
    const uid_t uid = geteuid();
    const gid_t gid = getegid();
    char map[64];
    int code = 0;

    if (unshare(CLONE_NEWUSER) < 0) {
        return -errno;
    }
    (void)write_text("/proc/self/setgroups", "deny");
    (void)snprintf(map, sizeof(map), "%u %u 1", (unsigned)uid, (unsigned)uid);
    code = write_text("/proc/self/uid_map", map);
    (void)snprintf(map, sizeof(map), "%u %u 1", (unsigned)gid, (unsigned)gid);
    return code < 0 ? code : write_text("/proc/self/gid_map", map);
}

/*
 * Born in its control group: whatever it allocates is counted there. Where clone3 is not to be had
 * (Linux 5.7; containers' filters), the helper joins before, which waits some milliseconds.
 */
static pid_t clone_into_parent(unsigned long namespaces, int cgroup_fd)
{
    struct clone_args args = {.flags = CLONE_PARENT | CLONE_INTO_CGROUP | namespaces,
                              .cgroup = (uint64_t)(unsigned)cgroup_fd};
    pid_t pid = 0;
    int code = 0;

    if (cgroup_fd >= 0) {
        /* The exit signal is the helper's: SIGCHLD. */
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
        if (pid >= 0 || (errno != ENOSYS && errno != EINVAL && errno != E2BIG)) {
            return pid;
        }
        code = cgroup_join(cgroup_fd);
        if (code < 0) {
            errno = -code;
            return -1;
        }
    }
    return (pid_t)syscall(SYS_clone, CLONE_PARENT | namespaces | (unsigned long)SIGCHLD, NULL, NULL,
                          NULL, NULL);
}

struct helper {
    enum job_sandbox mode;
    struct record *record;
    int cgroup_fd;
    spawn_main_fn child_main;
    void *context;
    int alive_fd;
    int word_fd;
};

static bool layer_refused(const struct helper *helper, enum sandbox_layer layer, int code,
                          struct spawn_word *word)
{
    if (code == 0) {
        helper->record->sandbox.layers |= 1U << layer;
        return false;
    }
    if (helper->mode == JOB_SANDBOX_STRICT) {
        word->code = code;
        word->layer = layer;
        return true;
    }
    jail_note_refused(&helper->record->sandbox, layer, code);
    return false;
}

/* In the helper. Returns in the helper only; the child goes on in child_main. */
static struct spawn_word helper_clone(const struct helper *helper)
{
    struct spawn_word word = {.pid = 0};
    unsigned long namespaces = 0;

    if (helper->mode != JOB_SANDBOX_OFF) {
        if (geteuid() != 0 &&
            layer_refused(helper, SANDBOX_USER_NAMESPACE, enter_user_namespace(), &word)) {
            return word;
        }
        namespaces = CLONE_NEWPID;
    }
    word.pid = clone_into_parent(namespaces, helper->cgroup_fd);
    if (word.pid < 0 && namespaces != 0) {
        if (layer_refused(helper, SANDBOX_PID_NAMESPACE, -errno, &word)) {
            word.pid = 0;
            return word;
        }
        namespaces = 0;
        word.pid = clone_into_parent(0, helper->cgroup_fd);
    }
    if (word.pid == 0) {
        if (namespaces != 0) {
            helper->record->sandbox.layers |= 1U << SANDBOX_PID_NAMESPACE;
        }
        (void)close(helper->word_fd);
        helper->child_main(helper->context, helper->alive_fd);
        _exit(0);
    }
    if (word.pid < 0) {
        word.code = -errno;
        word.pid = 0;
    }
    return word;
}

static _Noreturn void helper_main(const struct helper *helper)
{
    struct spawn_word word;
    sigset_t cancels;

    (void)sigemptyset(&cancels);
    (void)sigaddset(&cancels, SIGINT);
    (void)sigaddset(&cancels, SIGTERM);
    (void)sigaddset(&cancels, SIGHUP);
    (void)sigprocmask(SIG_BLOCK, &cancels, NULL);
    word = helper_clone(helper);
    ssize_t n = write(helper->word_fd, &word, sizeof(word));
    (void)n; /* if the launcher is gone, nobody needs the word */
    _exit(0);
}

static void close_pair(const int fds[2])
{
    (void)close(fds[0]);
    (void)close(fds[1]);
}

static int hear_helper(pid_t helper, int word_fd, pid_t *ret_pid, struct bvmm_error *err)
{
    struct spawn_word word = {0};
    int status = 0;
    ssize_t n = 0;

    do {
        n = read(word_fd, &word, sizeof(word)); /* a program's signals may interrupt it */
    } while (n < 0 && errno == EINTR);
    while (waitpid(helper, &status, 0) < 0 && errno == EINTR) {
    }
    if (n == sizeof(word) && word.pid > 0) {
        *ret_pid = word.pid;
        return 0;
    }
    if (n == sizeof(word) && word.layer != 0) {
        return jail_refusal(word.layer, word.code, err);
    }
    if (n == sizeof(word) && word.code < 0) {
        return error_set(err, BVMM_ERROR_IO, word.code, "cannot start the VM process: %s",
                         error_text(-word.code));
    }
    return error_set(err, BVMM_ERROR_IO, -EIO,
                     "cannot start the VM process: its parent for a moment ended without a word "
                     "(%s %d)",
                     WIFSIGNALED(status) ? "signal" : "status",
                     WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
}

int spawn_process(enum job_sandbox mode, struct record *record, int cgroup_fd,
                  spawn_main_fn child_main, void *context, pid_t *ret_pid, int *ret_alive_fd,
                  struct bvmm_error *err)
{
    struct helper helper = {.mode = mode,
                            .record = record,
                            .cgroup_fd = cgroup_fd,
                            .child_main = child_main,
                            .context = context};
    int alive[2];
    int word[2];
    pid_t pid = 0;
    int code = 0;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, alive) < 0 ||
        fd_pair_above_standard(alive) < 0) {
        return error_set(err, BVMM_ERROR_IO, -errno, "socketpair: %s", error_text(errno));
    }
    if (pipe2(word, O_CLOEXEC) < 0 || fd_pair_above_standard(word) < 0) {
        code = -errno;
        close_pair(alive);
        return error_set(err, BVMM_ERROR_IO, code, "pipe: %s", error_text(-code));
    }
    pid = fork();
    if (pid == 0) {
        (void)close(alive[1]);
        (void)close(word[0]);
        helper.alive_fd = alive[0];
        helper.word_fd = word[1];
        helper_main(&helper);
    }
    code = pid < 0 ? -errno : 0;
    (void)close(alive[0]);
    (void)close(word[1]);
    if (code < 0) {
        (void)error_set(err, BVMM_ERROR_IO, code, "cannot fork: %s", error_text(-code));
    } else {
        code = hear_helper(pid, word[0], ret_pid, err);
    }
    (void)close(word[0]);
    if (code < 0) {
        (void)close(alive[1]);
    } else {
        *ret_alive_fd = alive[1];
    }
    return code;
}

void spawn_follow(int alive_fd)
{
    struct pollfd fd = {.fd = alive_fd, .events = POLLIN};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (poll(&fd, 1, 0) > 0) {
        _exit(0); /* it died before we could ask to be told */
    }
}

void spawn_tell(int alive_fd, const void *word, size_t bytes)
{
    (void)send(alive_fd, word, bytes, MSG_NOSIGNAL);
}

bool spawn_hear(int alive_fd, void *ret_word, size_t bytes)
{
    return read(alive_fd, ret_word, bytes) == (ssize_t)bytes;
}
