/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* tool.c: finds and runs a program that comes with bvmm. See tool.h. */
#include "vmm/tool.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX_BYTES (4 * MIB) /* a configuration with a large environment */
#define ERRORS_MAX_BYTES (4 * KIB) /* the end of what was said */
#define CHUNK_BYTES (16 * KIB)

extern char **environ;

/* ---- Finding --------------------------------------------------------------------------------- */

static bool is_program(const char *dir, size_t dir_bytes, const char *name, char path[PATH_MAX])
{
    const int n = snprintf(path, PATH_MAX, "%.*s/%s", (int)dir_bytes, dir, name);

    return n > 0 && n < PATH_MAX && access(path, X_OK) == 0;
}

static bool is_beside_us(const char *name, char path[PATH_MAX])
{
    char own[PATH_MAX];
    const ssize_t n = readlink("/proc/self/exe", own, sizeof(own) - 1);
    const char *slash = NULL;

    if (n <= 0) {
        return false;
    }
    own[n] = '\0';
    slash = strrchr(own, '/');
    return slash != NULL && is_program(own, (size_t)(slash - own), name, path);
}

static bool is_in_path(const char *name, char path[PATH_MAX])
{
    const char *dir = secure_getenv("PATH");

    while (dir != NULL && *dir != '\0') {
        const size_t bytes = strcspn(dir, ":");

        /* Only absolute ones: what lies in the working directory is not bvmm's. */
        if (dir[0] == '/' && is_program(dir, bytes, name, path)) {
            return true;
        }
        dir += bytes + (dir[bytes] == ':');
    }
    return false;
}

int tool_find(const char *variable, const char *name, char ret_path[PATH_MAX])
{
    const char *chosen = secure_getenv(variable);

    if (chosen != NULL && chosen[0] != '\0') {
        const int n = snprintf(ret_path, PATH_MAX, "%s", chosen);

        return n < PATH_MAX && access(ret_path, X_OK) == 0 ? 0 : -ENOENT;
    }
    return is_beside_us(name, ret_path) ||
                   is_program(BVMM_TOOL_INSTALL_DIR, strlen(BVMM_TOOL_INSTALL_DIR), name,
                              ret_path) ||
                   is_in_path(name, ret_path)
               ? 0
               : -ENOENT;
}

/* ---- Running --------------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int out_fd;
    int err_fd;
    char *errors; /* the last ERRORS_MAX_BYTES of standard error */
    size_t errors_bytes;
    int cancel_fd;        /* -1: none, or it was told to end */
    uint64_t deadline_ns; /* to be killed then; 0: it was not told to end */
};

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
}

/* Signals as a program expects them, whatever the calling thread has blocked. */
static int set_attributes(posix_spawnattr_t *attributes)
{
    sigset_t none;
    sigset_t ours; /* which the bvmm command ignores */

    (void)sigemptyset(&none);
    (void)sigemptyset(&ours);
    (void)sigaddset(&ours, SIGPIPE);
    (void)sigaddset(&ours, SIGXFSZ);
    if (posix_spawnattr_setsigmask(attributes, &none) != 0 ||
        posix_spawnattr_setsigdefault(attributes, &ours) != 0 ||
        posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF) != 0) {
        return -EINVAL;
    }
    return 0;
}

static int start(const char *path, char *const argv[], int out_fd, int err_fd, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int code = -posix_spawn_file_actions_init(&actions);

    if (code < 0) {
        return code;
    }
    code = -posix_spawnattr_init(&attributes);
    if (code < 0) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return code;
    }
    code = set_attributes(&attributes);
    if (code == 0 &&
        (posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0) != 0 ||
         posix_spawn_file_actions_adddup2(&actions, out_fd, STDOUT_FILENO) != 0 ||
         posix_spawn_file_actions_adddup2(&actions, err_fd, STDERR_FILENO) != 0 ||
         posix_spawn_file_actions_addclosefrom_np(&actions, STDERR_FILENO + 1) != 0)) {
        code = -ENOMEM;
    }
    if (code == 0) {
        code = -posix_spawn(ret_pid, path, &actions, &attributes, argv, environ);
    }
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return code;
}

static int start_child(const char *path, char *const argv[], struct child *child)
{
    int out[2] = {-1, -1};
    int err[2] = {-1, -1};
    int code = 0;

    if (pipe2(out, O_CLOEXEC) < 0 || fd_pair_above_standard(out) < 0 || pipe2(err, O_CLOEXEC) < 0 ||
        fd_pair_above_standard(err) < 0) {
        code = -errno;
    } else {
        code = start(path, argv, out[1], err[1], &child->pid);
    }
    close_if_open(&out[1]);
    close_if_open(&err[1]);
    if (code < 0) {
        close_if_open(&out[0]);
        close_if_open(&err[0]);
        return code;
    }
    child->out_fd = out[0];
    child->err_fd = err[0];
    return 0;
}

/* One chunk of standard output; closes it at its end. */
static int take_output(struct child *child, struct tool_result *result)
{
    char *grown = realloc(result->output, result->output_bytes + CHUNK_BYTES + 1);
    ssize_t n = 0;

    if (grown == NULL) {
        return -ENOMEM;
    }
    result->output = grown;
    n = read(child->out_fd, grown + result->output_bytes, CHUNK_BYTES);
    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    result->output_bytes += (size_t)n;
    grown[result->output_bytes] = '\0';
    if (n == 0) {
        close_if_open(&child->out_fd);
    }
    return result->output_bytes > OUTPUT_MAX_BYTES ? -EFBIG : 0;
}

/* One chunk of standard error; only the end of all is kept. */
static int take_errors(struct child *child)
{
    ssize_t n = 0;

    if (child->errors_bytes > ERRORS_MAX_BYTES / 2) {
        const size_t gone = child->errors_bytes - ERRORS_MAX_BYTES / 2;

        memmove(child->errors, child->errors + gone, child->errors_bytes - gone);
        child->errors_bytes -= gone;
    }
    n = read(child->err_fd, child->errors + child->errors_bytes,
             ERRORS_MAX_BYTES - child->errors_bytes);
    if (n < 0) {
        return errno == EINTR ? 0 : -errno;
    }
    child->errors_bytes += (size_t)n;
    if (n == 0) {
        close_if_open(&child->err_fd);
    }
    return 0;
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};

    return fd >= 0 && poll(&poll_fd, 1, 0) > 0;
}

/* And not by SIGKILL: it cleans up. */
static void tell_to_end(struct child *child)
{
    (void)kill(child->pid, SIGTERM);
    child->deadline_ns = clock_monotonic_ns() + TOOL_GRACE_NS;
    child->cancel_fd = -1;
}

/* In whole milliseconds, rounded up; -1: for ever. */
static int wait_ms(const struct child *child)
{
    const uint64_t now_ns = clock_monotonic_ns();

    if (child->deadline_ns == 0) {
        return -1;
    }
    return child->deadline_ns <= now_ns ? 0 : (int)((child->deadline_ns - now_ns) / NS_PER_MS + 1);
}

/* Until both streams have ended, or it had to be killed: who else has them open is not waited for. */
static int listen_to(struct child *child, struct tool_result *result)
{
    int code = 0;

    while (code == 0 && (child->out_fd >= 0 || child->err_fd >= 0)) {
        struct pollfd fds[] = {
            {.fd = child->out_fd, .events = POLLIN}, /* those that are -1 are left out */
            {.fd = child->err_fd, .events = POLLIN},
            {.fd = child->cancel_fd, .events = POLLIN},
        };

        if (poll(fds, ARRAY_SIZE(fds), wait_ms(child)) < 0) {
            code = errno == EINTR ? 0 : -errno;
            continue;
        }
        if (fds[0].revents != 0) {
            code = take_output(child, result);
        }
        if (code == 0 && fds[1].revents != 0) {
            code = take_errors(child);
        }
        if (fds[2].revents != 0) {
            tell_to_end(child);
        }
        if (code == 0 && wait_ms(child) == 0) {
            (void)kill(child->pid, SIGKILL);
            code = -ECANCELED;
        }
    }
    return code == 0 && child->deadline_ns != 0 ? -ECANCELED : code;
}

/* The end of what was said, as one line. */
static void keep_errors(const struct child *child, struct tool_result *result)
{
    const char *from = child->errors;
    size_t bytes = child->errors_bytes;
    size_t used = 0;

    while (bytes > 0 && (from[bytes - 1] == '\n' || from[bytes - 1] == ' ')) {
        bytes--;
    }
    if (bytes > TOOL_SAID_BYTES / 2) {
        const char *line = memchr(from + bytes - TOOL_SAID_BYTES / 2, '\n', TOOL_SAID_BYTES / 2);

        line = line != NULL ? line + 1 : from + bytes - TOOL_SAID_BYTES / 2;
        bytes -= (size_t)(line - from);
        from = line;
    }
    for (size_t i = 0; i < bytes && used + 3 < sizeof(result->said); i++) {
        if (from[i] == '\n') {
            result->said[used++] = ';';
            result->said[used++] = ' ';
        } else {
            result->said[used++] = (char)(from[i] == '\0' ? '?' : from[i]);
        }
    }
    result->said[used] = '\0';
}

static int reap(pid_t pid, struct tool_result *result)
{
    int status = 0;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    result->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    result->term_signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
    return 0;
}

int tool_run(const char *path, char *const argv[], int cancel_fd, struct tool_result *ret_result)
{
    struct child child = {.out_fd = -1, .err_fd = -1, .cancel_fd = cancel_fd};
    int reaped = 0;
    int code = 0;

    memset(ret_result, 0, sizeof(*ret_result));
    child.errors = malloc(ERRORS_MAX_BYTES);
    if (child.errors == NULL) {
        return -ENOMEM;
    }
    code = start_child(path, argv, &child);
    if (code < 0) {
        free(child.errors);
        return code;
    }
    code = listen_to(&child, ret_result);
    if (code < 0 && code != -ECANCELED) {
        tell_to_end(&child);
    }
    close_if_open(&child.out_fd);
    close_if_open(&child.err_fd);
    reaped = reap(child.pid, ret_result);
    keep_errors(&child, ret_result);
    free(child.errors);
    if (code == 0 && reaped == 0 && ret_result->exit_code != 0 && is_readable(cancel_fd)) {
        code = -ECANCELED;
    }
    return code < 0 ? code : reaped;
}

void tool_result_fini(struct tool_result *result)
{
    free(result->output);
    memset(result, 0, sizeof(*result));
}
