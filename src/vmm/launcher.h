/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * launcher.h: runs a job in a VM process of its own, waits for it, and sees to it that there is
 * something to report however it ends.
 *
 * Thread: any one of the caller's. launcher_run() blocks until the VM process is gone.
 */
#ifndef BVMM_VMM_LAUNCHER_H
#define BVMM_VMM_LAUNCHER_H

#include "base/base.h"
#include "base/error.h"
#include "base/record.h"
#include "vmm/job.h"

/* Somebody who wants to look at the record's live fields while the run lasts. */
struct launcher_observer {
    void (*tick)(void *ctx, const struct record *record); /* NULL: nobody looks */
    void *ctx;
    unsigned interval_ms;
};

/* What the launcher has open while it waits; for a filter, which names descriptors. */
struct launcher_view {
    struct job *job;
    const struct record *record; /* a private copy of its fixed part, from before the fork */
    const struct cgroup *cgroup; /* NULL: there is none */
    int pidfd;                   /* the VM process */
    int alive_fd;                /* socket to it: spawn.h */
    int cancel_fd;               /* or -1 */
};

/*
 * Two moments of a run in which a process that is a launcher and nothing else gives up what it does not
 * need any more: launcher_sandbox.h. A program that embeds the library has none: it would not get
 * back what it gave up.
 */
struct launcher_guard {
    /* The VM process has been started; nothing has been heard of it. 0, or -errno with *err. */
    int (*waiting)(void *ctx, const struct launcher_view *view, struct bvmm_error *err);
    /* It is gone; nothing that it left has been looked at but times. */
    void (*writing)(void *ctx);
    void *ctx;
};

/*
 * launcher_run - fork the VM process, run the job in it, wait, and leave the record final.
 * @job: with its files open.
 * @record: made by record_create() with job_record_limits(). On return it has passed record_check(),
 * whatever happened to the VM process: there is something to report. Its outcome says how it ended.
 * @observer, @guard: may be NULL.
 * @cancel_fd: an eventfd, or -1. Each time it is written to (by a signal handler, another thread),
 * the run is asked to end: first the guest gets two seconds to deliver what it has; the second time
 * it is stopped at once.
 * @ret_undead_fd: set whatever is returned, to -1; or, if the VM process was killed and is not dead 200 ms
 * later (a host disk that does not answer keeps it in the kernel), to its pidfd: it is a child of the
 * caller's yet, and for launcher_bury(). With a guard always -1: such a process ends anyway.
 * Return: 0 when the VM process was started; -errno with *err filled when it could not be.
 */
int launcher_run(struct job *job, struct record *record, const struct launcher_observer *observer,
                 const struct launcher_guard *guard, int cancel_fd, int *ret_undead_fd,
                 struct bvmm_error *err) must_check;

/* launcher_bury - wait until that process is dead, and for its status. Blocks as long as it takes. -1: not. */
void launcher_bury(int undead_fd);

/* "running", "collecting results": what goes on after this enum run_time. Any number has a text. */
const char *launcher_phase_text(uint32_t phase);

#endif
