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
    const struct job *job;
    struct record *record;
    const struct launcher_observer *observer;
    int cancel_fd;
    pid_t pid;
    int pidfd;
    uint64_t start_ns;
    uint64_t cancel_ns; /* 0: not cancelled */
    bool killed;        /* by us, because it did not end by itself */
};

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns)
{
    return a_ns == 0 || b_ns < a_ns ? b_ns : a_ns;
}

static uint64_t load_time(const struct record *record, enum run_time point)
{
    return __atomic_load_n(&record->time_ns[point], __ATOMIC_RELAXED);
}

/* When the VM process must be gone; 0: no limit. */
static uint64_t hard_limit_ns(const struct launcher *launcher)
{
    const uint64_t timeout_ns = launcher->job->timeout_secs * NS_PER_SECOND;
    const uint64_t setup_ns = load_time(launcher->record, TIME_SETUP_DONE);
    const uint64_t stop_ns = load_time(launcher->record, TIME_STOP_DECIDED);
    uint64_t limit_ns = 0;

    if (setup_ns == 0) {
        limit_ns = launcher->start_ns + SETUP_LIMIT_NS;
    } else if (timeout_ns != 0) {
        limit_ns = setup_ns + timeout_ns + TIMEOUT_LIMIT_NS -
                   min_u64(SUPERVISOR_TIMEOUT_GRACE_NS, record_report_cost_ns(launcher->record));
    }
    if (stop_ns != 0) {
        limit_ns = earlier(limit_ns, stop_ns + STOP_LIMIT_NS);
    }
    if (launcher->cancel_ns != 0) {
        limit_ns = earlier(limit_ns, launcher->cancel_ns + CANCEL_LIMIT_NS);
    }
    return limit_ns;
}

static uint64_t next_look_ns(const struct launcher *launcher, uint64_t now_ns)
{
    const struct launcher_observer *observer = launcher->observer;
    uint64_t wait_ns = NS_PER_SECOND / 2; /* the limit moves when the guest starts or stops */
    const uint64_t limit_ns = hard_limit_ns(launcher);

    if (observer != NULL && observer->tick != NULL) {
        wait_ns = min_u64(wait_ns, observer->interval_ms * NS_PER_MS);
    }
    if (limit_ns != 0) {
        wait_ns = min_u64(wait_ns, limit_ns > now_ns ? limit_ns - now_ns : 0);
    }
    return wait_ns;
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
    (void)kill(launcher->pid, SIGTERM);
}

/* Wait for the VM process's end, and see to it that it comes. */
static void supervise(struct launcher *launcher)
{
    for (;;) {
        struct pollfd fds[] = {
            {.fd = launcher->pidfd, .events = POLLIN},
            {.fd = launcher->cancel_fd, .events = POLLIN}, /* -1 is left out by ppoll */
            {.fd = vsock_broker_fd(launcher->job->vsock_broker), .events = POLLIN},
        };
        uint64_t now_ns = clock_monotonic_ns();
        const uint64_t wait_ns = next_look_ns(launcher, now_ns);
        const struct timespec wait = {.tv_sec = (time_t)(wait_ns / NS_PER_SECOND),
                                      .tv_nsec = (long)(wait_ns % NS_PER_SECOND)};
        const uint64_t limit_ns = hard_limit_ns(launcher);

        if (ppoll(fds, ARRAY_SIZE(fds), &wait, NULL) > 0) {
            if ((fds[1].revents & POLLIN) != 0) {
                take_cancel(launcher);
            }
            if (fds[2].revents != 0) {
                vsock_broker_serve(launcher->job->vsock_broker);
            }
            if ((fds[0].revents & POLLIN) != 0) {
                return;
            }
        }
        now_ns = clock_monotonic_ns();
        if (limit_ns != 0 && now_ns >= limit_ns && !launcher->killed) {
            launcher->killed = true;
            (void)kill(launcher->pid, SIGKILL);
        }
        if (limit_ns != 0 && launcher->killed && now_ns >= limit_ns + STOP_LIMIT_NS) {
            return; /* it does not even die: report without it, and leave it to init */
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

    if (record->outcome.status != RUN_NONE) {
        return;
    }
    if (launcher->cancel_ns != 0) {
        outcome_set(record, RUN_CANCELLED, BVMM_ERROR_NONE, "");
    } else if (record->time_ns[TIME_SETUP_DONE] != 0) {
        outcome_set(record, RUN_TIMEOUT, BVMM_ERROR_TIMEOUT,
                    "the run did not end within timeout_secs, and the VM process did not stop by "
                    "itself: it was killed");
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
        return;
    }
    record->outcome.vm_signal = info->si_status;
    if (info->si_status == SIGSYS) {
        outcome_explain_violation(record);
        return;
    }
    (void)snprintf(message, sizeof(message), "the VM process was killed by signal %d (%s)%s",
                   info->si_status, strsignal(info->si_status),
                   info->si_status == SIGKILL ? "; by somebody outside, or for want of memory"
                                              : "");
    outcome_set(record, RUN_VM_KILLED, BVMM_ERROR_DEVICE, message);
}

static void reap(struct launcher *launcher, const struct record *layout)
{
    siginfo_t info = {.si_pid = 0};
    const int flags = WEXITED | (launcher->killed ? WNOHANG : 0);
    const bool reaped =
        waitid(P_PIDFD, (id_t)launcher->pidfd, &info, flags) == 0 && info.si_pid == launcher->pid;

    launcher->record->time_ns[TIME_VM_PROCESS_END] = clock_monotonic_ns();
    (void)record_check(launcher->record, layout);
    if (launcher->killed) {
        explain_own_kill(launcher);
    } else if (reaped) {
        explain_death(launcher->record, &info);
    }
    outcome_look_for_panic(launcher->record);
}

/* What the bridge needs outside of the sandbox, while the VM runs. */
static int make_broker(struct job *job, struct bvmm_error *err)
{
    job->vsock_broker = NULL;
    return job->vsock && job->vsock_path != NULL
               ? vsock_broker_new(job->vsock_path, &job->vsock_broker, err)
               : 0;
}

static void free_broker(struct job *job)
{
    vsock_broker_free(job->vsock_broker);
    job->vsock_broker = NULL;
}

static int make_cgroup(struct job *job, struct cgroup **ret_cgroup, struct bvmm_error *err)
{
    struct cgroup_limits limits;

    job_cgroup_limits(job, &limits);
    return cgroup_make(NULL, &limits, job->sandbox == JOB_SANDBOX_BEST_EFFORT, &job->cgroup_facts,
                       ret_cgroup, err);
}

/* Not before the VM process is gone: the layer is ours, and not for it to tell. */
static void note_cgroup(const struct job *job, struct record *record)
{
    const uint32_t layer = 1U << SANDBOX_CGROUP;

    record->sandbox.layers &= ~layer;
    record->sandbox.layers |= job->cgroup_facts.stands ? layer : 0;
    if (record->outcome.status == RUN_VM_KILLED && record->outcome.vm_signal == SIGKILL &&
        job->cgroup_facts.oom_kills != CGROUP_UNKNOWN && job->cgroup_facts.oom_kills > 0) {
        outcome_set(record, RUN_VM_KILLED, BVMM_ERROR_MEMORY,
                    "the VM process needed more host memory than its control group may have, and "
                    "the kernel killed it: a larger $.cgroup.memory_max_mib would help");
    }
}

/* NOLINTNEXTLINE(readability-function-size): one way in, and what was made undone at each way out */
int launcher_run(struct job *job, struct record *record, const struct launcher_observer *observer,
                 int cancel_fd, struct bvmm_error *err)
{
    struct launcher launcher = {.job = job,
                                .record = record,
                                .observer = observer,
                                .cancel_fd = cancel_fd,
                                .start_ns = clock_monotonic_ns()};
    struct vm_process process = {.job = job, .record = record};
    struct record *layout = NULL;
    struct cgroup *cgroup = NULL;
    int alive_fd = -1;
    int code = 0;

    if (getrandom(record->nonce, sizeof(record->nonce), 0) != sizeof(record->nonce)) {
        return error_set(err, BVMM_ERROR_IO, -EIO, "no random bytes for the job's nonce");
    }
    record->vcpu_count = (uint32_t)job->vcpus;
    code = make_broker(job, err);
    if (code < 0) {
        return code;
    }
    code = make_cgroup(job, &cgroup, err);
    if (code < 0) {
        free_broker(job);
        return code;
    }
    layout = record_layout_copy(record);
    if (layout == NULL) {
        cgroup_remove(cgroup, &job->cgroup_facts);
        free_broker(job);
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "no memory for the run record's layout");
    }
    code = spawn_process((enum job_sandbox)job->sandbox, record, cgroup_fd(cgroup), vm_process_main,
                         &process, &launcher.pid, &alive_fd, err);
    if (code < 0) {
        cgroup_remove(cgroup, &job->cgroup_facts);
        free_broker(job);
        free(layout);
        return code;
    }
    if (job->vsock_broker != NULL) {
        vsock_broker_forked(job->vsock_broker);
    }
    launcher.pidfd = (int)syscall(SYS_pidfd_open, launcher.pid, 0);
    if (launcher.pidfd < 0) {
        code = -errno;
        (void)kill(launcher.pid, SIGKILL);
        (void)waitpid(launcher.pid, NULL, 0);
        cgroup_remove(cgroup, &job->cgroup_facts);
        (void)close(alive_fd);
        free_broker(job);
        free(layout);
        return error_set(err, BVMM_ERROR_IO, code, "pidfd_open: %s (bvmm needs Linux 5.3)",
                         strerror(-code));
    }
    supervise(&launcher);
    reap(&launcher, layout);
    cgroup_remove(cgroup, &job->cgroup_facts);
    note_cgroup(job, record);
    (void)close(launcher.pidfd);
    (void)close(alive_fd);
    free_broker(job);
    free(layout);
    return 0;
}
