/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * command.c: one child process, prepared, started and waited for.
 */
#include "command.h"

#include "cgroup.h"
#include "link.h"
#include "protocol/guest_job.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DEFAULT_PATH "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define OPEN_FILES_SOFT 1024 /* select(2) knows no more */
#define OPEN_FILES_HARD 524288
#define PREPARE_PATIENCE_MS 30000
#define KILL_PATIENCE_MS 2000
#define KILL_TICK_MS 5

/* What the child tells by memory: no system call stands between the time and the exec. */
struct command_shared {
    uint64_t start_ns;
    int32_t failure; /* errno of a preparation that failed, 0 if none did */
    char what[256];
};

/* ---- Environment and search ------------------------------------------------------------------ */

const char *environment_get(char *const *env, const char *name)
{
    size_t length = strlen(name);

    for (; *env; env++) {
        if (strncmp(*env, name, length) == 0 && (*env)[length] == '=') {
            return *env + length + 1;
        }
    }
    return NULL;
}

int environment_make(const char *const *job_env, size_t count, const struct user *user,
                     char ***ret_env)
{
    char **env = calloc(count + 3, sizeof(*env));
    size_t used = 0;
    bool out_of_memory = env == NULL;

    for (; !out_of_memory && used < count; used++) {
        env[used] = strdup(job_env[used]);
        out_of_memory = env[used] == NULL;
    }
    if (!out_of_memory && !environment_get(env, "PATH")) {
        env[used] = strdup("PATH=" DEFAULT_PATH);
        out_of_memory = env[used++] == NULL;
    }
    if (!out_of_memory && !environment_get(env, "HOME")) {
        out_of_memory = asprintf(&env[used], "HOME=%s", user->home) < 0;
        env[used] = out_of_memory ? NULL : env[used];
    }
    if (out_of_memory) {
        environment_free(env);
        return -ENOMEM;
    }
    *ret_env = env;
    return 0;
}

void environment_free(char **env)
{
    for (char **at = env; at && *at; at++) {
        free(*at);
    }
    free(env);
}

/* 0, or why this file cannot be executed. */
static int try_path(const char *path)
{
    struct stat status;

    if (stat(path, &status) < 0) {
        return errno == EACCES ? EXIT_NOT_EXECUTABLE : EXIT_NOT_FOUND;
    }
    if (!S_ISREG(status.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0) {
        return EXIT_NOT_EXECUTABLE;
    }
    return 0;
}

int command_find(const char *name, const char *path_list, char *ret_path)
{
    int result = EXIT_NOT_FOUND;
    const char *at = path_list;

    if (strchr(name, '/')) {
        snprintf(ret_path, PATH_MAX, "%s", name);
        return try_path(ret_path);
    }
    while (at && *name) {
        const char *end = strchrnul(at, ':');
        int length = snprintf(ret_path, PATH_MAX, "%.*s%s%s", (int)(end - at), at,
                              end == at ? "./" : "/", name); /* empty: the working directory */
        int r = length < PATH_MAX ? try_path(ret_path) : EXIT_NOT_FOUND;

        if (r == 0) {
            return 0;
        }
        /* A file that may not be executed is not it, but it says more than "not found". A
         * directory of that name does not count: no shell would have meant it. */
        if (r == EXIT_NOT_EXECUTABLE) {
            struct stat status;

            if (stat(ret_path, &status) == 0 && S_ISREG(status.st_mode)) {
                result = EXIT_NOT_EXECUTABLE;
            }
        }
        at = *end ? end + 1 : NULL;
    }
    return result;
}

int command_exit_code(int wait_status)
{
    return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status) : WEXITSTATUS(wait_status);
}

/* ---- The child ------------------------------------------------------------------------------- */

static _Noreturn void child_failed(struct command_shared *shared, int error, const char *what)
{
    shared->failure = error;
    snprintf(shared->what, sizeof(shared->what), "%s", what);
    _exit(EXIT_NOT_EXECUTABLE);
}

/* Init ignores or blocks signals that the command must get as anybody else. */
static void reset_signals(void)
{
    sigset_t none;

    for (int signal = 1; signal < NSIG; signal++) {
        struct sigaction action = {.sa_handler = SIG_DFL};

        sigaction(signal, &action, NULL); /* fails for the two that nobody can change */
    }
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static void leave_init(struct command_shared *shared)
{
    struct rlimit files = {.rlim_cur = OPEN_FILES_SOFT, .rlim_max = OPEN_FILES_HARD};
    struct rlimit inherited = files;
    int fd;

    setsid();
    if (getppid() == 1) { /* not when a test calls */
        fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
        if (fd < 0 || write(fd, "0", 1) < 0) {
            child_failed(shared, errno, "cannot give up init's protection from the OOM killer");
        }
        close(fd);
    }
    reset_signals();
    umask(022);
    if (setrlimit(RLIMIT_NOFILE, &files) < 0 && getrlimit(RLIMIT_NOFILE, &inherited) == 0) {
        inherited.rlim_cur = min_u64(inherited.rlim_max, OPEN_FILES_SOFT);
        setrlimit(RLIMIT_NOFILE, &inherited);
    }
}

/* Descriptors that lie where they are not wanted are moved out of the way first. */
static void place_descriptors(const struct command_spec *spec, struct command_shared *shared,
                              int *ready_fd, int *go_fd)
{
    int from[5] = {spec->stdin_fd, spec->stdout_fd, spec->stderr_fd, *ready_fd, *go_fd};

    for (int i = 0; i < 5; i++) {
        from[i] = fcntl(from[i], F_DUPFD_CLOEXEC, 10);
        if (from[i] < 0) {
            child_failed(shared, errno, "cannot copy a descriptor");
        }
    }
    for (int i = 0; i < 3; i++) {
        if (dup2(from[i], i) < 0) {
            child_failed(shared, errno, "cannot place its standard input and outputs");
        }
    }
    close_range(3, UINT_MAX, CLOSE_RANGE_CLOEXEC);
    *ready_fd = from[3];
    *go_fd = from[4];
}

static void become_user(const struct command_spec *spec, struct command_shared *shared)
{
    const struct user *user = spec->user;

    if (setgroups(user->group_count, user->groups) < 0) {
        child_failed(shared, errno, "cannot set its supplementary groups");
    }
    if (setresgid(user->gid, user->gid, user->gid) < 0) {
        child_failed(shared, errno, "cannot set its group");
    }
    if (setresuid(user->uid, user->uid, user->uid) < 0) {
        child_failed(shared, errno, "cannot set its user");
    }
    if (chdir(spec->workdir) < 0) {
        child_failed(shared, errno, "cannot enter its working directory (workdir) as its user");
    }
}

/* The message goes where the command's own would: to its standard error. */
static _Noreturn void not_executed(const char *name, int code, const char *why)
{
    dprintf(STDERR_FILENO, "bvmm: cannot run '%s': %s\n", name, why);
    _exit(code);
}

static _Noreturn void exec_failed(const char *path, int error)
{
    switch (error) {
    case ENOENT:
        not_executed(path, EXIT_NOT_FOUND,
                     "its interpreter (the #! line, or the dynamic loader) is not in the image");
    case ENOEXEC:
        not_executed(path, EXIT_NOT_EXECUTABLE,
                     "Exec format error (made for another architecture, or a script without a "
                     "#! line)");
    default:
        not_executed(path, EXIT_NOT_EXECUTABLE, strerror(error));
    }
}

static void lookup_failed(const char *name, const char *path_list, int code)
{
    char why[PATH_MAX];

    if (code == EXIT_NOT_EXECUTABLE) {
        not_executed(name, code, "it is no file that its user may execute");
    }
    if (strchr(name, '/')) {
        not_executed(name, code, "there is no such file in the image");
    }
    snprintf(why, sizeof(why), "not found in PATH=%s", path_list);
    not_executed(name, code, why);
}

static _Noreturn void child_main(const struct command_spec *spec, struct command_shared *shared,
                                 int ready_fd, int go_fd)
{
    const char *path_list = environment_get(spec->env, "PATH");
    char path[PATH_MAX];
    char byte = 0;
    int found;

    leave_init(shared);
    place_descriptors(spec, shared, &ready_fd, &go_fd);
    become_user(spec, shared);
    path_list = path_list ? path_list : DEFAULT_PATH;
    found = command_find(spec->args[0], path_list, path);
    if (write(ready_fd, &byte, 1) != 1 || read(go_fd, &byte, 1) != 1) {
        _exit(EXIT_NOT_EXECUTABLE); /* init is gone */
    }
    shared->start_ns = clock_boottime_ns();
    if (found == 0) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): execve() changes nothing */
        execve(path, (char *const *)(uintptr_t)spec->args, spec->env);
        exec_failed(path, errno);
    }
    lookup_failed(spec->args[0], path_list, found);
    _exit(found);
}

/* ---- The parent ------------------------------------------------------------------------------ */

void command_block_signals(void)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
}

/* Wait for the child's byte. Its end of the pipe closes if it fails before. */
static int wait_ready(const struct command *command, int ready_fd, const char *name,
                      struct bvmm_error *err)
{
    struct pollfd poll_fd = {.fd = ready_fd, .events = POLLIN};
    char byte;
    int r;

    do {
        r = poll(&poll_fd, 1, PREPARE_PATIENCE_MS);
    } while (r < 0 && errno == EINTR);
    if (r > 0 && read(ready_fd, &byte, 1) == 1) {
        return 0;
    }
    if (r == 0) {
        return error_set(err, BVMM_ERROR_BOOT, -ETIMEDOUT,
                         "the command '%.200s' could not be prepared within %d s", name,
                         PREPARE_PATIENCE_MS / 1000);
    }
    if (command->shared->failure == 0) {
        return error_set(err, BVMM_ERROR_BOOT, -ECHILD,
                         "the process of the command '%.200s' died before it could start", name);
    }
    return error_set(err, BVMM_ERROR_BOOT, -command->shared->failure,
                     "the command '%.200s' could not be started: %s: %s", name,
                     command->shared->what, strerror(command->shared->failure));
}

static int fork_child(struct command *command, const struct command_spec *spec, int *ret_ready_fd)
{
    int ready[2];
    int go[2];
    int cgroup_error;

    if (pipe2(ready, O_CLOEXEC) < 0) {
        return -errno;
    }
    if (pipe2(go, O_CLOEXEC) < 0) {
        return -errno;
    }
    command->pid = cgroup_fork(spec->cgroup_fd, &cgroup_error);
    if (command->pid == 0 && cgroup_error != 0) {
        child_failed(command->shared, cgroup_error, "cannot join its control group");
    }
    if (command->pid == 0) {
        close(ready[0]);
        close(go[1]);
        child_main(spec, command->shared, ready[1], go[0]);
    }
    close(ready[1]);
    close(go[0]);
    command->go_fd = go[1];
    *ret_ready_fd = ready[0];
    return command->pid < 0 ? -errno : 0;
}

int command_prepare(struct command *command, const struct command_spec *spec,
                    struct bvmm_error *err)
{
    struct stat status;
    int ready_fd = -1;
    int r;

    if (stat(spec->workdir, &status) < 0 || !S_ISDIR(status.st_mode)) {
        return error_set(
            err, BVMM_ERROR_BOOT, -ENOTDIR,
            "workdir '%.500s' is no directory of the image; expected one that is there",
            spec->workdir);
    }
    command->shared = mmap(NULL, sizeof(*command->shared), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (command->shared == MAP_FAILED) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "no memory to start the command: %s",
                         strerror(errno));
    }
    r = fork_child(command, spec, &ready_fd);
    if (r < 0) {
        return error_set(err, BVMM_ERROR_BOOT, r, "cannot make a process for the command: %s",
                         strerror(-r));
    }
    r = wait_ready(command, ready_fd, spec->args[0], err);
    close(ready_fd);
    return r;
}

void command_go(struct command *command)
{
    char byte = 0;

    /* If the child is gone already, command_wait() learns it. */
    if (write(command->go_fd, &byte, 1) < 0) {
        fprintf(stderr, "bvmm-init: cannot let the command go: %s\n", strerror(errno));
    }
    close(command->go_fd);
}

static uint64_t timeval_ns(struct timeval time)
{
    return (uint64_t)time.tv_sec * NS_PER_SECOND + (uint64_t)time.tv_usec * 1000U;
}

/* Reap all that has ended. Return: true if the command was among it. */
static bool reap(struct command *command, struct frame_end *end)
{
    struct rusage usage;
    bool ended = false;
    int status;
    pid_t pid;

    while ((pid = wait4(-1, &status, WNOHANG, &usage)) > 0) {
        if (pid != command->pid) {
            continue;
        }
        *end = (struct frame_end){
            .boottime_ns = clock_boottime_ns(),
            .start_boottime_ns = command->shared->start_ns,
            .user_ns = timeval_ns(usage.ru_utime),
            .system_ns = timeval_ns(usage.ru_stime),
            .peak_rss_bytes = (uint64_t)usage.ru_maxrss * KIB,
            .wait_status = status,
        };
        ended = true;
    }
    return ended;
}

static void kill_all(const struct command *command)
{
    if (getpid() == 1) {
        kill(-1, SIGKILL);
    } else {
        kill(-command->pid, SIGKILL);
    }
}

/* The time left until a deadline; none has passed by more than the kernel needs to notice. */
static struct timespec time_left(uint64_t deadline_ns)
{
    uint64_t now_ns = clock_boottime_ns();
    uint64_t left_ns = now_ns < deadline_ns ? deadline_ns - now_ns : 0;

    return (struct timespec){.tv_sec = (time_t)(left_ns / NS_PER_SECOND),
                             .tv_nsec = (long)(left_ns % NS_PER_SECOND)};
}

/* Ask the command to end. @deadline_ns: of its grace, 0: it was not asked before. Return: the new one. */
static uint64_t ask_to_end(const struct command *command, uint32_t grace_ms, uint64_t deadline_ns)
{
    const uint64_t new_ns = clock_boottime_ns() + grace_ms * NS_PER_MS;

    if (deadline_ns == 0) {
        kill(-command->pid, SIGTERM);
        kill(-command->pid, SIGCONT);
    }
    return deadline_ns == 0 ? new_ns : min_u64(deadline_ns, new_ns);
}

void command_wait(struct command *command, uint32_t grace_ms, struct frame_end *ret_end)
{
    const uint32_t urgent_ms = (uint32_t)min_u64(grace_ms, GUEST_JOB_URGENT_GRACE_MS);
    sigset_t set;
    uint64_t deadline_ns = 0; /* of the grace; 0: nobody asked the command to end */

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGQUIT);
    while (!reap(command, ret_end)) {
        struct timespec left = time_left(deadline_ns);
        int signal = sigtimedwait(&set, NULL, deadline_ns > 0 ? &left : NULL);

        if (signal == SIGTERM || signal == SIGINT || signal == SIGQUIT) {
            deadline_ns =
                ask_to_end(command, signal == SIGQUIT ? urgent_ms : grace_ms, deadline_ns);
        } else if (signal < 0 && errno == EAGAIN) {
            kill_all(command);
            deadline_ns = clock_boottime_ns() + NS_PER_SECOND; /* what forked meanwhile */
        }
    }
    ret_end->oom_kills = cgroup_oom_kills();
    munmap(command->shared, sizeof(*command->shared));
}

void command_kill_rest(void)
{
    const struct timespec tick = {.tv_nsec = (long)(KILL_TICK_MS * NS_PER_MS)};

    if (getpid() != 1) {
        return;
    }
    /* One call reaches all: a process that has been killed cannot fork any more. */
    kill(-1, SIGKILL);
    for (int waited_ms = 0; waited_ms < KILL_PATIENCE_MS; waited_ms += KILL_TICK_MS) {
        pid_t pid;

        while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
        }
        if (pid < 0) {
            return; /* none is left */
        }
        nanosleep(&tick, NULL);
    }
    fprintf(stderr, "bvmm-init: some process of the command could not be killed\n");
}
