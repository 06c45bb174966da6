/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm_process.c: the process in which the VM runs.
 *
 * Thread: its main thread, which becomes the supervisor.
 */
#include "vmm/vm_process.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "actors/vcpu.h"
#include "vmm/machine.h"

/* What was set up failed before there was a supervisor to say so. */
static _Noreturn void give_up(struct record *record, const struct bvmm_error *err)
{
    struct run_outcome *outcome = &record->outcome;

    outcome->status = RUN_VM_ERROR;
    outcome->error_kind = (uint32_t)err->kind;
    (void)snprintf(outcome->error_message, sizeof(outcome->error_message), "%s", err->message);
    _exit(0);
}

_Noreturn void vm_process_main(const struct job *job, struct record *record, pid_t launcher)
{
    struct machine *machine = NULL;
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};

    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != launcher) {
        _exit(0); /* it died before we could ask to be told */
    }
    (void)prctl(PR_SET_NAME, "supervisor");
    (void)setsid(); /* the terminal's Ctrl-C is for the launcher, which passes it on */
    record->time_ns[TIME_VM_PROCESS_START] = clock_monotonic_ns();
    if (vcpu_install_kick() < 0) {
        (void)error_set(&err, BVMM_ERROR_IO, 0, "cannot install the vCPUs' signal handler");
        give_up(record, &err);
    }
    if (machine_new(job, record, &machine, &err) < 0 || machine_enter_sandbox(machine, &err) < 0) {
        give_up(record, &err);
    }
    machine_run(machine);
    /*
     * Not machine_free(): an actor that did not stop in time may still use it. The kernel takes
     * everything back faster than we could.
     */
    _exit(0);
}
