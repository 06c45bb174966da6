/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * supervisor.h: the actor that decides. Everybody tells it what happens; nobody else ends the run.
 *
 *   STARTING ──all READY──► RUNNING ──deadline, cancel──► GRACE ──┐
 *      │                       │                                  │ results in, or its time is up
 *      │ an actor failed       │ results in, reset, fault         ▼
 *      └───────────────────────┴──────────────────────────► STOPPING_VCPUS
 *                                                                 │ all vCPUs STOPPED
 *                                                                 ▼
 *                                                           STOPPING_DEVICES ──all STOPPED──► DONE
 *
 * GRACE: Ctrl-Alt-Del was pressed in the guest, or Ctrl-C typed at its console; bvmm's init then
 * ends the command and delivers what there is. At the deadline Ctrl-\ is typed: it is urgent. Each
 * of the last three has a time limit; whoever has not stopped by then is named in the report and left
 * behind, to end with the process.
 *
 * supervisor_on_message(), _on_deadline() and _on_signal() are the state machine; supervisor_run()
 * feeds it from the mailbox, a timerfd and a signalfd.
 */
#ifndef BVMM_ACTORS_SUPERVISOR_H
#define BVMM_ACTORS_SUPERVISOR_H

#include <sys/types.h>

#include "actors/actor.h"

/*
 * From the deadline to the end of the process is at most 500 ms. Of these the guest gets the first
 * half to hand over what it has, less what writing the report will take (record_report_cost_ns()).
 */
#define SUPERVISOR_TIMEOUT_GRACE_NS (250 * NS_PER_MS)
#define SUPERVISOR_STOP_LIMIT_NS (60 * NS_PER_MS) /* for vCPUs, and again for devices */
#define SUPERVISOR_START_LIMIT_NS (10 * NS_PER_SECOND)
/* After SIGINT, SIGTERM or SIGHUP the guest has longer; a second signal ends it at once. */
#define SUPERVISOR_CANCEL_GRACE_NS (2 * NS_PER_SECOND)
/* %llu: timeout_secs. Also what the launcher says of a run whose supervisor could not say it. */
#define SUPERVISOR_TIMEOUT_TEXT                                                                    \
    "the run did not end within timeout_secs = %llu s; raise it in the job, or 0 for no limit"

enum supervisor_phase {
    SUPERVISOR_STARTING,
    SUPERVISOR_RUNNING,
    SUPERVISOR_GRACE,
    SUPERVISOR_STOPPING_VCPUS,
    SUPERVISOR_STOPPING_DEVICES,
    SUPERVISOR_DONE,
};

struct supervisor_config {
    uint64_t timeout_ns;  /* 0: none; counted from the moment at which the vCPUs start */
    bool has_command;     /* bvmm's init runs a command; else the image has an init of its own */
    bool has_i8042;       /* Ctrl-Alt-Del can be pressed; else Ctrl-C is typed at the console */
    struct actor *actors; /* all of the machine; [0] is the supervisor */
    unsigned actor_count;
};

struct supervisor {
    struct supervisor_config config;
    enum supervisor_phase phase;
    uint64_t phase_deadline_ns; /* CLOCK_MONOTONIC; 0: none */
    unsigned ready_count;
    bool stopped[ACTORS_MAX];
    bool stream_ended[STREAM_COUNT];
    bool announced[STREAM_COUNT];
    bool init_seen;
    bool bye_seen;
    pid_t pid;
    int timer_fd;
    int signal_fd; /* SIGINT, SIGTERM, SIGHUP; blocked in the whole process */
};

void supervisor_init(struct supervisor *supervisor, struct actor *self,
                     const struct supervisor_config *config, int timer_fd, int signal_fd);

/* The state machine. now_ns: CLOCK_MONOTONIC. */
void supervisor_on_message(struct actor *self, const struct msg *msg, uint64_t now_ns);
void supervisor_on_deadline(struct actor *self, uint64_t now_ns);
void supervisor_on_signal(struct actor *self, int signal, uint64_t now_ns);

/*
 * supervisor_run - from the start of the threads to their end.
 * Thread: the VM process's main thread. On return the outcome in the record is final,
 * and all actors have said their last word or been given up.
 */
void supervisor_run(struct actor *self);

extern const struct policy supervisor_policy;

#endif
