/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm_process.c: the process in which the VM runs.
 *
 * Thread: its main thread, which becomes the supervisor.
 */
#include "vmm/vm_process.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "actors/vcpu.h"
#include "actors/vsock_broker.h"
#include "vmm/jail.h"
#include "vmm/machine.h"
#include "vmm/spawn.h"

/*
 * Which layers stand is said now: when a kernel is parsed, and a guest runs, whoever may have taken this
 * process over could say anything.
 */
static void tell_sandbox(const struct record *record, int alive_fd)
{
    spawn_tell(alive_fd, &record->sandbox, sizeof(record->sandbox));
}

/* What was set up failed before there was a supervisor to say so. @alive_fd: -1: the layers are told. */
static _Noreturn void give_up(struct record *record, int alive_fd, const struct bvmm_error *err)
{
    struct run_outcome *outcome = &record->outcome;

    if (alive_fd >= 0) {
        tell_sandbox(record, alive_fd);
    }
    outcome->status = RUN_VM_ERROR;
    outcome->error_kind = (uint32_t)err->kind;
    (void)snprintf(outcome->error_message, sizeof(outcome->error_message), "%s", err->message);
    _exit(0);
}

/*
 * Handlers of the program that we are a fork of are not for us; what it ignores (SIGPIPE, say) stays
 * ignored. As exec() does it.
 */
static void forget_handlers(void)
{
    struct sigaction action;

    for (int number = 1; number < NSIG; number++) {
        if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL &&
            action.sa_handler != SIG_IGN) {
            (void)signal(number, SIG_DFL);
        }
    }
}

static int compare_fds(const void *a, const void *b)
{
    return *(const int *)a - *(const int *)b;
}

/*
 * Whatever else the program that started us had open is none of ours: standard streams become
 * /dev/null, and all but the job's files and the launcher's socket is closed.
 */
static int close_stray_descriptors(const struct job *job, int alive_fd, struct record *record)
{
    int keep[JOB_DRIVES_MAX + 8];
    size_t count = 0;
    unsigned next = 3;
    const int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0) {
        return -errno;
    }
    keep[count++] = alive_fd;
    keep[count++] = job->kernel.fd;
    keep[count++] = job->rootfs.fd;
    keep[count++] = job->initrd.fd;
    keep[count++] = job->stdin_file.fd;
    for (size_t i = 0; i < job->drive_count; i++) {
        keep[count++] = job->drives[i].image.fd;
    }
    if (job->vsock_broker != NULL) {
        keep[count++] = vsock_broker_listen_fd(job->vsock_broker);
        keep[count++] = vsock_broker_actor_fd(job->vsock_broker);
    }
    qsort(keep, count, sizeof(keep[0]), compare_fds);
    for (size_t i = 0; i < count; i++) {
        if (keep[i] < (int)next) {
            continue; /* not given: -1 */
        }
        if (keep[i] > (int)next) {
            (void)close_range(next, (unsigned)keep[i] - 1, 0);
        }
        next = (unsigned)keep[i] + 1;
    }
    if (close_range(next, UINT_MAX, 0) < 0) {
        return -errno;
    }
    record->sandbox.layers |= 1U << SANDBOX_DESCRIPTORS;
    return 0;
}

/* What was loaded. The launcher's own are not touched by that. */
static void close_loaded_files(const struct job *job)
{
    const int fds[] = {job->kernel.fd, job->initrd.fd, job->stdin_file.fd};

    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
    }
}

void vm_process_main(void *context, int alive_fd)
{
    const struct vm_process *process = context;
    struct record *record = process->record;
    struct machine *machine = NULL;
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    int code = 0;

    record->time_ns[TIME_VM_PROCESS_START] = clock_monotonic_ns();
    spawn_follow(alive_fd);
    forget_handlers();
    (void)signal(SIGXFSZ,
                 SIG_IGN); /* an embedded kernel goes into a file of memory, which has its limit */
    (void)prctl(PR_SET_NAME, "supervisor");
    (void)setsid(); /* the terminal's Ctrl-C is for the launcher, which passes it on */
    code = close_stray_descriptors(process->job, alive_fd, record);
    if (code == 0) {
        code = record_unmap_others(record);
    }
    if (code == 0) {
        code = vcpu_install_kick();
    }
    if (code < 0) {
        (void)error_set(&err, BVMM_ERROR_IO, code, "cannot set up the VM process: %s",
                        error_text(-code));
        give_up(record, alive_fd, &err);
    }
    if (machine_new(process->job, record, &machine, &err) < 0) {
        give_up(record, alive_fd, &err);
    }
    jail_forget_environment(); /* not before: it may say where the bundled kernel is */
    if (machine_enter_sandbox(machine, &err) < 0) {
        give_up(record, alive_fd, &err);
    }
    spawn_follow(alive_fd); /* again: the jail has changed the user */
    tell_sandbox(record, alive_fd);
    (void)close(alive_fd);
    if (machine_load(machine, &err) < 0) { /* the first that comes from outside */
        give_up(record, -1, &err);
    }
    close_loaded_files(process->job);
    machine_run(machine);
    /*
     * Not machine_free(): an actor that did not stop in time may still use it. The kernel takes
     * everything back faster than we could.
     */
    _exit(0);
}
