/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * main.c: bvmm's init, the first process of a guest whose job names a command.
 *
 * The order of things is main(), from top to bottom: prepare the image, run the command, send what
 * it left, reset the machine. While the command runs init sleeps: it wakes up only to reap orphans.
 * Whatever fails before the command runs is told to the host as FRAME_FATAL.
 *
 * One thread. Every wait is bounded but the one for the command.
 */
#include "cgroup.h"
#include "command.h"
#include "deliver.h"
#include "link.h"
#include "outputs.h"
#include "protocol/guest_job.h"
#include "root.h"
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define RUN_DIR "/run/bencher"
#define OUTPUT_VARIABLE "BENCHER_OUTPUT_FILE"

/* A file that takes the command's output on a tmpfs. */
struct log {
    const char *name; /* by which programs know it */
    int write_fd;     /* the command's */
    int read_fd;      /* init's */
    int watch;        /* in watch_fd */
};

/* What init holds while it runs. */
struct init {
    struct guest_job job;
    struct link link;
    struct user user;
    char **env;
    int stdin_fd;
    struct log out;
    struct log err;
    int watch_fd; /* inotify: tells whether the logs were opened by name */
    int cgroup_fd;
};

static _Noreturn void end_machine(struct init *init)
{
    link_close(&init->link);
    sync();
    reboot(RB_AUTOBOOT);
    for (;;) {
        pause(); /* the host's deadline ends it */
    }
}

/* The job cannot be run: say why, and end. */
static _Noreturn void give_up(struct init *init, const struct bvmm_error *err)
{
    fprintf(stderr, "bvmm-init: %s\n", err->message);
    link_quiet(&init->link, true);
    if (link_say(&init->link, FRAME_FATAL, err->message, strlen(err->message)) < 0) {
        fprintf(stderr, "bvmm-init: and there is no way to tell the host\n");
    }
    link_quiet(&init->link, false);
    end_machine(init);
}

static void check(struct init *init, int r, const struct bvmm_error *err)
{
    if (r < 0) {
        give_up(init, err);
    }
}

/* ---- Before the command ---------------------------------------------------------------------- */

/* A file into memory; NULL: not there. Not freed: it is needed until the end. */
static uint8_t *read_file(const char *path, size_t *ret_count)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    uint8_t *bytes = NULL;

    if (fd < 0) {
        return NULL;
    }
    if (fstat(fd, &status) == 0) {
        *ret_count = (size_t)status.st_size;
        bytes = malloc(*ret_count);
    }
    if (bytes && read(fd, bytes, *ret_count) != status.st_size) {
        bytes = NULL;
    }
    close(fd);
    return bytes;
}

static int load_job(struct init *init, struct bvmm_error *err)
{
    const char *why = "it is not there";
    size_t count = 0;
    uint8_t *bytes = read_file(GUEST_JOB_PATH, &count);
    int r = bytes ? guest_job_decode(&init->job, bytes, count, &why) : -ENOENT;

    if (r < 0) {
        return error_set(err, BVMM_ERROR_BOOT, r,
                         "cannot read %s: %s (this initramfs was not made by this bvmm)",
                         GUEST_JOB_PATH, why);
    }
    /* The command is not to find the nonce lying about. */
    explicit_bzero(bytes, count);
    free(bytes);
    unlink(GUEST_JOB_PATH);
    return 0;
}

/* Before the initramfs is out of reach. */
static void take_stdin_file(struct init *init)
{
    init->stdin_fd = open(GUEST_JOB_STDIN_PATH, O_RDONLY | O_CLOEXEC);
    unlink(GUEST_JOB_STDIN_PATH);
}

/* The command's user owns what it reads and writes, so that it can open /dev/stdin and the others
 * by name too. */
static int open_stdin(struct init *init, struct bvmm_error *err)
{
    if (init->stdin_fd < 0) {
        init->stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    } else if (fchown(init->stdin_fd, init->user.uid, init->user.gid) < 0) {
        fprintf(stderr, "bvmm-init: /dev/stdin stays root's: %s\n", strerror(errno));
    }
    return init->stdin_fd >= 0 ? 0
                               : error_set(err, BVMM_ERROR_BOOT, -errno,
                                           "cannot open /dev/null: %s", strerror(errno));
}

/*
 * Init's own descriptor stays good whatever the command does to the name.
 *
 * A program that opens /dev/stderr by name, as "echo hello > /dev/stderr" does in a script, opens
 * this file, and truncates it. That cannot be prevented without making the open fail; but it can be
 * told: a descriptor for writing that is closed while init keeps its own is another one. The watch
 * costs nothing while nobody does that.
 */
static int open_log(struct init *init, struct log *log, const char *path, struct bvmm_error *err)
{
    log->write_fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0644);
    log->read_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (log->write_fd < 0 || log->read_fd < 0 ||
        fchown(log->write_fd, init->user.uid, init->user.gid) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot make %s: %s", path, strerror(errno));
    }
    log->watch = inotify_add_watch(init->watch_fd, path, IN_CLOSE_WRITE);
    return 0;
}

static int open_logs(struct init *init, struct bvmm_error *err)
{
    int r;

    init->watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK); /* without: no warning, that is all */
    init->out.name = "/dev/stdout";
    init->err.name = "/dev/stderr";
    r = open_log(init, &init->out, RUN_DIR "/stdout", err);
    if (r == 0) {
        r = open_log(init, &init->err, RUN_DIR "/stderr", err);
    }
    return r;
}

static int prepare_surroundings(struct init *init, struct bvmm_error *err)
{
    const struct guest_job *job = &init->job;
    int r = user_resolve(job->user, "/etc/passwd", "/etc/group", &init->user, err);

    if (r < 0) {
        return r;
    }
    if (environment_make(job->env, job->env_count, &init->user, &init->env) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -ENOMEM, "no memory for the environment");
    }
    if (make_directories(RUN_DIR, 0755) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot make " RUN_DIR ": %s",
                         strerror(errno));
    }
    r = open_stdin(init, err);
    if (r == 0) {
        r = open_logs(init, err);
    }
    init->cgroup_fd = cgroup_make();
    return r;
}

/*
 * A machine without a clock of its own (aarch64) begins in 1970: the host's time when it was made,
 * and how long it has run since. A clock that is ahead of that knows better (x86_64: KVM's).
 */
static void set_clock(uint64_t realtime_ns)
{
    const uint64_t wanted_ns = realtime_ns + clock_boottime_ns();
    const struct timespec wanted = {.tv_sec = (time_t)(wanted_ns / NS_PER_SECOND),
                                    .tv_nsec = (long)(wanted_ns % NS_PER_SECOND)};
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    if (realtime_ns != 0 && (uint64_t)now.tv_sec < realtime_ns / NS_PER_SECOND &&
        clock_settime(CLOCK_REALTIME, &wanted) < 0) {
        fprintf(stderr, "bvmm-init: the date is wrong: %s\n", strerror(errno));
    }
}

static void set_own_oom_score(void)
{
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, "-1000", 5) < 0) {
        fprintf(stderr, "bvmm-init: not protected from the OOM killer: %s\n", strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* ---- The command ----------------------------------------------------------------------------- */

static int run_command(struct init *init, struct frame_end *ret_end, struct bvmm_error *err)
{
    const struct command_spec spec = {
        .args = init->job.args,
        .env = init->env,
        .workdir = init->job.workdir,
        .user = &init->user,
        .stdin_fd = init->stdin_fd,
        .stdout_fd = init->out.write_fd,
        .stderr_fd = init->err.write_fd,
        .cgroup_fd = init->cgroup_fd,
    };
    struct command command = {.pid = -1};
    struct frame_start start;
    int r = command_prepare(&command, &spec, err);

    if (r < 0) {
        return r;
    }
    link_quiet(&init->link, true);
    start.boottime_ns = clock_boottime_ns();
    r = link_say(&init->link, FRAME_START, &start, sizeof(start));
    link_drain(&init->link);
    link_quiet(&init->link, false);
    if (r < 0) {
        return error_set(err, BVMM_ERROR_BOOT, r, "no way to the host: %s", strerror(-r));
    }
    command_go(&command);
    command_wait(&command, init->job.grace_ms, ret_end);
    return 0;
}

/* ---- After the command ----------------------------------------------------------------------- */

static void write_exit_code(const char *text)
{
    int fd = open(RUN_DIR "/exit_code", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

    if (fd < 0 || write(fd, text, strlen(text)) < 0) {
        fprintf(stderr, "bvmm-init: cannot write " RUN_DIR "/exit_code: %s\n", strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

static void find_outputs(struct init *init, struct outputs *outputs)
{
    const char *named = environment_get(init->env, OUTPUT_VARIABLE);
    char path[PATH_MAX];

    outputs_init(outputs, init->job.stream_limit_bytes[STREAM_OUTPUT]);
    if (named && *named == '/') {
        outputs_add(outputs, named, false);
    } else if (named && *named) {
        snprintf(path, sizeof(path), "%s/%s", init->job.workdir, named);
        outputs_add(outputs, path, false);
    }
    for (size_t i = 0; i < init->job.output_count; i++) {
        outputs_add(outputs, init->job.outputs[i], true);
    }
}

/* See open_log(). */
static void note_reopened_logs(struct init *init, struct outputs *outputs)
{
    _Alignas(struct inotify_event) char events[4096];
    ssize_t count = read(init->watch_fd, events, sizeof(events));

    for (ssize_t at = 0; at < count;) {
        const struct inotify_event *event = (const void *)&events[at];

        if (event->mask & IN_CLOSE_WRITE) {
            outputs_note_missing(outputs,
                                 event->wd == init->out.watch ? init->out.name : init->err.name,
                                 MANIFEST_REASON_REOPENED);
        }
        at += (ssize_t)(sizeof(*event) + event->len);
    }
}

static void send_results(struct init *init, const struct frame_end *end)
{
    static struct outputs outputs; /* large */
    char code[16];
    struct results results = {
        .stdout_fd = init->out.read_fd,
        .stderr_fd = init->err.read_fd,
        .exit_code = code,
        .outputs = &outputs,
        .limit_bytes = init->job.stream_limit_bytes,
    };
    int r;

    snprintf(code, sizeof(code), "%d", command_exit_code(end->wait_status));
    write_exit_code(code);
    link_quiet(&init->link, true);
    r = link_say_end(&init->link, end);
    find_outputs(init, &outputs);
    note_reopened_logs(init, &outputs);
    if (r == 0) {
        r = deliver(&init->link, &results);
    }
    link_quiet(&init->link, false);
    if (r < 0) {
        fprintf(stderr, "bvmm-init: the results could not be sent: %s\n", strerror(-r));
    }
}

/* Started as anything but a guest's first process it would do harm. */
static void refuse_other_places(void)
{
    if (getpid() != 1 || access(GUEST_JOB_PATH, R_OK) < 0) {
        fprintf(stderr,
                "bvmm-init is the first process of bvmm's guests, and of use there only: "
                "it needs to be process 1 and %s to be there\n",
                GUEST_JOB_PATH);
        _exit(EXIT_NOT_EXECUTABLE);
    }
}

int main(void)
{
    static struct init init; /* large */
    uint64_t started_ns = clock_boottime_ns();
    struct bvmm_error err;
    struct frame_end end = {.wait_status = 0};

    refuse_other_places();
    reboot(RB_DISABLE_CAD); /* Ctrl-Alt-Del is SIGINT for us instead of a reset */
    command_block_signals();
    link_init(&init.link, init.job.nonce);
    check(&init, root_mount_early(&err), &err);
    init.link.serial_fd = link_open_serial();
    check(&init, load_job(&init, &err), &err);
    memcpy(init.link.nonce, init.job.nonce, NONCE_BYTES);
    if (link_hello(&init.link, init.job.vsock, started_ns) < 0) {
        fprintf(stderr, "bvmm-init: there is no way to tell the host anything\n");
        end_machine(&init);
    }
    link_drain(&init.link);
    link_quiet(&init.link, false);
    set_own_oom_score();
    set_clock(init.job.realtime_ns);
    take_stdin_file(&init);
    check(&init, root_enter(&init.job, &err), &err);
    check(&init, root_furnish(&init.job, &err), &err);
    check(&init, prepare_surroundings(&init, &err), &err);
    check(&init, run_command(&init, &end, &err), &err);
    command_kill_rest();
    send_results(&init, &end);
    end_machine(&init);
}
