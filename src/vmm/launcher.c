/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * launcher.c: runs a job in a VM process, and waits for it. See launcher.h.
 *
 * Thread: the caller's. Blocks: ppoll on the VM process and cancel_fd.
 */
#include "vmm/launcher.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "actors/supervisor.h"
#include "actors/vsock_broker.h"
#include "vmm/bundled_kernel.h"
#include "vmm/fileio.h"
#include "vmm/filter.h"
#include "vmm/jail.h"
#include "vmm/outcome.h"
#include "vmm/spawn.h"
#include "vmm/vm_process.h"

/*
 * The supervisor keeps its own deadlines. These are for a VM process that cannot: one whose
 * supervisor hangs, or that does not die because a thread sits in a host disk's queue.
 */
#define SETUP_LIMIT_NS (30 * NS_PER_SECOND)
#define STOP_LIMIT_NS (200 * NS_PER_MS)    /* after the supervisor decided to stop */
#define TIMEOUT_LIMIT_NS (400 * NS_PER_MS) /* after the job's deadline */
#define CANCEL_LIMIT_NS (SUPERVISOR_CANCEL_GRACE_NS + 400 * NS_PER_MS)

struct launcher {
    struct job *job;
    struct record *record;
    struct record *layout; /* private copy: what the record was like before the fork */
    const struct launcher_observer *observer;
    const struct launcher_guard *guard; /* NULL: none */
    struct cgroup *cgroup;              /* NULL: none */
    int cancel_fd;
    pid_t pid; /* 0: not started, or reaped */
    int pidfd;
    int alive_fd; /* the VM process goes when this is closed */
    uint64_t start_ns;
    uint64_t setup_done_ns;        /* 0: not seen yet; see see_time() */
    uint64_t stop_decided_ns;      /* 0: likewise */
    uint64_t cancel_ns;            /* 0: not cancelled */
    uint64_t killed_ns;            /* by us, because it did not end by itself; 0: not */
    struct record_sandbox sandbox; /* what the VM process told before a vCPU could run */
    bool guarded;                  /* the guard's filters are on */
    int guard_refusal; /* -errno: the host refused them, and the job allows that; else 0 */
};

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
    return a_ns == 0 || b_ns < a_ns ? b_ns : a_ns;
}

/*
 * A time that the supervisor writes to the record, where a VM process that was taken over may write
 * what it likes, as often as it likes. So it is read until it is there and never again, and held to
 * what is possible: no deadline of ours moves afterwards.
 */
static void see_time(const struct launcher *launcher, enum run_time point, uint64_t now_ns,
                     uint64_t *seen_ns)
{
    uint64_t said_ns = 0;

    if (*seen_ns == 0) {
        said_ns = __atomic_load_n(&launcher->record->time_ns[point], __ATOMIC_RELAXED);
    }
    if (said_ns != 0) {
        *seen_ns = min_u64(said_ns > launcher->start_ns ? said_ns : launcher->start_ns, now_ns);
    }
}

/* All that is believed of the record while the VM process lives. */
static void look_at_record(struct launcher *launcher, uint64_t now_ns)
{
    see_time(launcher, TIME_SETUP_DONE, now_ns, &launcher->setup_done_ns);
    see_time(launcher, TIME_STOP_DECIDED, now_ns, &launcher->stop_decided_ns);
}

/*
 * When the VM process must be gone; 0: no limit. The amount of results is read from the record each
 * time: it can only make the limit come earlier, by no more than the grace.
 */
static uint64_t hard_limit_ns(const struct launcher *launcher)
{
    const uint64_t timeout_ns = launcher->job->timeout_secs * NS_PER_SECOND;
    uint64_t limit_ns = 0;

    if (launcher->setup_done_ns == 0) {
        limit_ns = launcher->start_ns + SETUP_LIMIT_NS;
    } else if (timeout_ns != 0) {
        limit_ns = launcher->setup_done_ns + timeout_ns + TIMEOUT_LIMIT_NS -
                   min_u64(SUPERVISOR_TIMEOUT_GRACE_NS, record_report_cost_ns(launcher->record));
        /* Whatever was said. */
        limit_ns =
            earlier(limit_ns, launcher->start_ns + SETUP_LIMIT_NS + timeout_ns + TIMEOUT_LIMIT_NS);
    }
    if (launcher->stop_decided_ns != 0) {
        limit_ns = earlier(limit_ns, launcher->stop_decided_ns + STOP_LIMIT_NS);
    }
    if (launcher->cancel_ns != 0) {
        limit_ns = earlier(limit_ns, launcher->cancel_ns + CANCEL_LIMIT_NS);
    }
    return limit_ns;
}

/* When to do something if nothing happens: kill it, or give it up; 0: never. */
static uint64_t next_step_ns(const struct launcher *launcher)
{
    return launcher->killed_ns != 0 ? launcher->killed_ns + STOP_LIMIT_NS : hard_limit_ns(launcher);
}

static uint64_t next_look_ns(const struct launcher *launcher, uint64_t now_ns)
{
    const struct launcher_observer *observer = launcher->observer;
    uint64_t wait_ns = NS_PER_SECOND / 2; /* the limit moves when the guest starts or stops */
    const uint64_t step_ns = next_step_ns(launcher);

    if (observer != NULL && observer->tick != NULL) {
        wait_ns = min_u64(wait_ns, observer->interval_ms * NS_PER_MS);
    }
    if (step_ns != 0) {
        wait_ns = min_u64(wait_ns, step_ns > now_ns ? step_ns - now_ns : 0);
    }
    return wait_ns;
}

/* By its descriptor: that does not become another process's, as a number may. */
static void send_signal(const struct launcher *launcher, int number)
{
    (void)syscall(SYS_pidfd_send_signal, launcher->pidfd, number, NULL, 0);
}

static void take_cancel(struct launcher *launcher)
{
    uint64_t times = 0;

    if (read(launcher->cancel_fd, &times, sizeof(times)) != sizeof(times)) {
        return;
    }
    if (launcher->cancel_ns == 0) {
        launcher->cancel_ns = clock_monotonic_ns();
    }
    send_signal(launcher, SIGTERM);
}

/* Until the next look, or until something happens. True: the VM process has ended. */
static bool wait_a_while(struct launcher *launcher, uint64_t wait_ns)
{
    struct pollfd fds[] = {
        {.fd = launcher->pidfd, .events = POLLIN},
        {.fd = launcher->cancel_fd, .events = POLLIN}, /* -1 is left out by ppoll */
        {.fd = vsock_broker_fd(launcher->job->vsock_broker), .events = POLLIN},
    };
    const struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_SECOND),
                                  .tv_nsec = (long)(wait_ns % NS_PER_SECOND)};

    if (ppoll(fds, ARRAY_SIZE(fds), &wait, NULL) <= 0) {
        return false;
    }
    if ((fds[1].revents & POLLIN) != 0) {
        take_cancel(launcher);
    }
    if (fds[2].revents != 0) {
        vsock_broker_serve(launcher->job->vsock_broker);
    }
    return (fds[0].revents & POLLIN) != 0;
}

/* Wait for the VM process's end, and see to it that it comes. */
static void supervise(struct launcher *launcher)
{
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t step_ns = 0;

    look_at_record(launcher, now_ns);
    while (!wait_a_while(launcher, next_look_ns(launcher, now_ns))) {
        now_ns = clock_monotonic_ns();
        look_at_record(launcher, now_ns);
        step_ns = next_step_ns(launcher);
        if (step_ns != 0 && now_ns >= step_ns && launcher->killed_ns != 0) {
            return; /* it does not even die: report without it */
        }
        if (step_ns != 0 && now_ns >= step_ns) {
            launcher->killed_ns = now_ns;
            send_signal(launcher, SIGKILL);
        }
        if (launcher->observer != NULL && launcher->observer->tick != NULL) {
            launcher->observer->tick(launcher->observer->ctx, launcher->record);
        }
    }
}

const char *launcher_phase_text(uint32_t phase)
{
    static const char *const names[] = {
        [TIME_PROCESS_START] = "starting",
        [TIME_JOB_READY] = "starting the VM process",
        [TIME_VM_PROCESS_START] = "setting up the VM",
        [TIME_SETUP_DONE] = "booting the guest",
        [TIME_GUEST_INIT] = "preparing the command",
        [TIME_COMMAND_START] = "running",
        [TIME_COMMAND_END] = "collecting results",
        [TIME_RESULTS_COMPLETE] = "results complete",
        [TIME_STOP_DECIDED] = "stopping",
        [TIME_ACTORS_STOPPED] = "stopped",
        [TIME_VM_PROCESS_END] = "ended",
    };
    _Static_assert(ARRAY_SIZE(names) == TIME_COUNT, "one name each");

    return phase < TIME_COUNT ? names[phase] : "running";
}

/* ---- How it ended ---------------------------------------------------------------------------- */

/* It was killed by us. What it had decided stands; else the reason why we did it. */
static void explain_own_kill(const struct launcher *launcher)
{
    struct record *record = launcher->record;
    char message[BVMM_ERROR_MESSAGE_BYTES];

    if (record->outcome.status != RUN_NONE) {
        outcome_look_for_panic(record);
        return;
    }
    if (launcher->cancel_ns != 0) {
        outcome_set(record, RUN_CANCELLED, BVMM_ERROR_NONE, "");
    } else if (launcher->setup_done_ns != 0) {
        (void)snprintf(message, sizeof(message),
                       SUPERVISOR_TIMEOUT_TEXT
                       " (the VM process did not stop by itself, and was killed)",
                       (unsigned long long)launcher->job->timeout_secs);
        outcome_set(record, RUN_TIMEOUT, BVMM_ERROR_TIMEOUT, message);
    } else {
        outcome_set(record, RUN_VM_ERROR, BVMM_ERROR_DEVICE,
                    "the VM could not be set up within 30 s, and its process was killed");
    }
}

static void explain_death(struct record *record, const siginfo_t *info)
{
    char message[BVMM_ERROR_MESSAGE_BYTES];

    if (info->si_code == CLD_EXITED) {
        if (record->outcome.status == RUN_NONE) {
            (void)snprintf(
                message, sizeof(message),
                "the VM process ended with status %d and without a word; this is a bug in "
                "bvmm",
                info->si_status);
            outcome_set(record, RUN_VM_ERROR, BVMM_ERROR_DEVICE, message);
        }
        outcome_look_for_panic(record);
        return;
    }
    record->outcome.vm_signal = info->si_status;
    if (info->si_status == SIGSYS) {
        outcome_explain_violation(record);
        return;
    }
    (void)snprintf(message, sizeof(message), "the VM process was killed by signal %d (%s)",
                   info->si_status, signal_text(info->si_status));
    outcome_set(record, RUN_VM_KILLED, BVMM_ERROR_DEVICE, message);
}

/* A program's signals may interrupt it. False: there is no such child, or with WNOHANG: it lives. */
static bool wait_for(int pidfd, siginfo_t *ret_info, int flags)
{
    int code = 0;

    ret_info->si_pid = 0;
    do {
        code = waitid(P_PIDFD, (id_t)pidfd, ret_info, WEXITED | flags);
    } while (code < 0 && errno == EINTR);
    return code == 0 && ret_info->si_pid != 0;
}

/* False: it did not even die; or it did, and its status is gone, as where SIGCHLD is ignored. */
static bool reap(struct launcher *launcher, siginfo_t *ret_info)
{
    const bool reaped = wait_for(launcher->pidfd, ret_info, launcher->killed_ns != 0 ? WNOHANG : 0);

    launcher->record->time_ns[TIME_VM_PROCESS_END] = clock_monotonic_ns();
    /* supervise() has seen its end, unless it was killed: its number may be another's by now. */
    launcher->pid = reaped || launcher->killed_ns == 0 ? 0 : launcher->pid;
    return reaped;
}

/*
 * The VM process told it when it had set itself up, and closed its end of the socket before any code of
 * the guest's ran: what it may have written to the record since is not looked at.
 */
static void hear_sandbox(struct launcher *launcher)
{
    struct record_sandbox *sandbox = &launcher->sandbox;

    if (!spawn_hear(launcher->alive_fd, sandbox, sizeof(*sandbox))) {
        memset(sandbox, 0, sizeof(*sandbox)); /* it did not get so far */
    }
    sandbox->refused[sizeof(sandbox->refused) - 1] = '\0';
}

/* The layer is ours, and not for the VM process to tell. */
static void note_layer(struct record *record, enum sandbox_layer layer, bool stands)
{
    record->sandbox.layers &= ~(1U << layer);
    record->sandbox.layers |= stands ? 1U << layer : 0;
}

static void note_cgroup(const struct job *job, struct record *record)
{
    note_layer(record, SANDBOX_CGROUP, job->cgroup_facts.stands);
    if (record->outcome.status == RUN_VM_KILLED && record->outcome.vm_signal == SIGKILL) {
        outcome_explain_kill(record, job->cgroup_facts.oom_kills, job->cgroup_facts.limit_hits);
    }
}

/* We sent SIGKILL, but something else (a forbidden call, say) was faster. */
static bool died_before_kill(const siginfo_t *info)
{
    return info != NULL && info->si_code != CLD_EXITED && info->si_status != SIGKILL;
}

/* From here on what the record says is looked at. @info: NULL: it was not reaped. */
static void explain(const struct launcher *launcher, const siginfo_t *info)
{
    if (launcher->killed_ns != 0 && !died_before_kill(info)) {
        explain_own_kill(launcher);
    } else if (info != NULL) {
        explain_death(launcher->record, info);
    } else if (launcher->record->outcome.status == RUN_NONE) {
        outcome_set(launcher->record, RUN_VM_ERROR, BVMM_ERROR_DEVICE,
                    "the VM process ended without a word, and how cannot be said: this program "
                    "ignores SIGCHLD, or waited for a child that is not its own");
    }
    note_cgroup(launcher->job, launcher->record);
    note_layer(launcher->record, SANDBOX_LAUNCHER_SECCOMP, launcher->guarded);
    if (launcher->guard_refusal < 0) {
        jail_note_refused(&launcher->record->sandbox, SANDBOX_LAUNCHER_SECCOMP,
                          launcher->guard_refusal);
    }
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* What the bridge needs outside of the sandbox, while the VM runs. */
static int make_broker(struct job *job, struct bvmm_error *err)
{
    job->vsock_broker = NULL;
    return job->vsock && job->vsock_path != NULL
               ? vsock_broker_new(job->vsock_path, &job->vsock_broker, err)
               : 0;
}

static int make_cgroup(struct launcher *launcher, struct bvmm_error *err)
{
    struct job *job = launcher->job;
    struct cgroup_limits limits;

    job_cgroup_limits(job, &limits);
    return cgroup_make(NULL, &limits, job->sandbox == JOB_SANDBOX_BEST_EFFORT, &job->cgroup_facts,
                       &launcher->cgroup, err);
}

/* What has to be there before the fork. Whatever it returns: release() undoes it. */
static int prepare(struct launcher *launcher, struct bvmm_error *err)
{
    struct record *record = launcher->record;
    int code = 0;

    if (getrandom(record->nonce, sizeof(record->nonce), 0) != sizeof(record->nonce)) {
        return error_set(err, BVMM_ERROR_IO, -EIO, "no random bytes for the job's nonce");
    }
    record->vcpu_count = (uint32_t)launcher->job->vcpus;
    code = make_broker(launcher->job, err);
    if (code == 0) {
        code = make_cgroup(launcher, err);
    }
    if (code < 0) {
        return code;
    }
    launcher->layout = record_layout_copy(record);
    return launcher->layout != NULL ? 0
                                    : error_set(err, BVMM_ERROR_MEMORY, -ENOMEM,
                                                "no memory for the run record's layout");
}

static int start(struct launcher *launcher, struct bvmm_error *err)
{
    struct job *job = launcher->job;
    struct vm_process process = {.job = job, .record = launcher->record};
    int code =
        spawn_process((enum job_sandbox)job->sandbox, launcher->record, cgroup_fd(launcher->cgroup),
                      vm_process_main, &process, &launcher->pid, &launcher->alive_fd, err);

    if (code < 0) {
        launcher->pid = 0;
        return code;
    }
    if (job->vsock_broker != NULL) {
        vsock_broker_forked(job->vsock_broker);
    }
    launcher->pidfd = fd_above_standard((int)syscall(SYS_pidfd_open, launcher->pid, 0));
    if (launcher->pidfd < 0) {
        code = -errno;
        return error_set(err, BVMM_ERROR_IO, code, "pidfd_open: %s (bvmm needs Linux 5.3)",
                         error_text(-code));
    }
    return 0;
}

static const char *report_name(const struct job *job)
{
    return job->report_path != NULL ? fileio_name(job->report_path) : "";
}

/* While the VM process sets itself up: the launcher does what it can do only now. */
static int enter_guard(struct launcher *launcher, struct bvmm_error *err)
{
    const struct launcher_view view = {.job = launcher->job,
                                       .record = launcher->layout,
                                       .cgroup = launcher->cgroup,
                                       .pidfd = launcher->pidfd,
                                       .alive_fd = launcher->alive_fd,
                                       .cancel_fd = launcher->cancel_fd};

    const enum job_sandbox mode = (enum job_sandbox)launcher->job->sandbox;
    int code = 0;

    host_facts_read(&launcher->job->host_facts);
    fileio_prepare(launcher->job->report_dir_fd, report_name(launcher->job));
    if (launcher->job->kernel.path == NULL) {
        bundled_kernel_read_facts(&launcher->job->kernel_facts);
    }
    if (launcher->guard == NULL || mode == JOB_SANDBOX_OFF || !filter_possible()) {
        return 0;
    }
    code = launcher->guard->waiting(launcher->guard->ctx, &view, err);
    launcher->guarded = code == 0;
    if (code < 0 && mode == JOB_SANDBOX_BEST_EFFORT) {
        launcher->guard_refusal = code;
        code = 0;
    }
    return code;
}

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

/*
 * Undo prepare() and start(). A VM process that is still there is one that should not have been, or
 * does not die. Return: the latter's pidfd; else -1.
 */
static int release(struct launcher *launcher)
{
    int undead_fd = -1;

    if (launcher->pid > 0 && launcher->killed_ns == 0) { /* never with the guard's filters on */
        (void)kill(launcher->pid, SIGKILL);
        while (waitpid(launcher->pid, NULL, 0) < 0 && errno == EINTR) {
        }
    } else if (launcher->pid > 0 && launcher->guard == NULL) { /* else it is init's in a moment */
        undead_fd = launcher->pidfd;
        launcher->pidfd = -1;
    }
    cgroup_remove(launcher->cgroup, &launcher->job->cgroup_facts);
    launcher->cgroup = NULL;
    vsock_broker_free(launcher->job->vsock_broker);
    launcher->job->vsock_broker = NULL;
    close_if_open(&launcher->pidfd);
    close_if_open(&launcher->alive_fd);
    return undead_fd;
}

int launcher_run(struct job *job, struct record *record, const struct launcher_observer *observer,
                 const struct launcher_guard *guard, int cancel_fd, int *ret_undead_fd,
                 struct bvmm_error *err)
{
    struct launcher launcher = {.job = job,
                                .record = record,
                                .observer = observer,
                                .guard = guard,
                                .cancel_fd = cancel_fd,
                                .pidfd = -1,
                                .alive_fd = -1,
                                .start_ns = clock_monotonic_ns()};
    siginfo_t info = {.si_pid = 0};
    bool started = false;
    bool reaped = false;
    int code = prepare(&launcher, err);

    if (code == 0) {
        code = start(&launcher, err);
    }
    if (code == 0) {
        code = enter_guard(&launcher, err);
    }
    if (code == 0) {
        supervise(&launcher);
        reaped = reap(&launcher, &info);
    }
    started = launcher.pidfd >= 0;
    if (started) {
        hear_sandbox(&launcher);
    }
    *ret_undead_fd = release(&launcher);
    if (launcher.guarded) {
        guard->writing(guard->ctx);
    }
    if (launcher.layout != NULL) {
        (void)record_check(record, launcher.layout); /* also of a run that failed: others read it */
    }
    if (started) {
        record->sandbox = launcher.sandbox;
    }
    if (code == 0) {
        explain(&launcher, reaped ? &info : NULL);
    }
    free(launcher.layout);
    return code;
}

void launcher_bury(int undead_fd)
{
    siginfo_t info;

    if (undead_fd >= 0) {
        (void)wait_for(undead_fd, &info, 0);
        (void)close(undead_fd);
    }
}
