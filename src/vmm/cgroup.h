/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cgroup.h: a control group (cgroup v2) of its own for the VM process.
 *
 * It is made below the launcher's own control group, if that is delegated: writable, and no other
 * process is in it. cgroup v2 wants processes in the leaves only, so the launcher first moves itself
 * into a leaf beside the VM's, and moves back when the last VM's is gone:
 *
 *     own/                  controllers are enabled for what is below
 *     own/bvmm-launcher/    the launcher, meanwhile
 *     own/bvmm-vm-PID-N/    the VM process
 *
 * Not needed in the root control group, nor if somebody has put the launcher into a leaf named
 * "bvmm-runner" before: then the VM's becomes a sister of that, whoever else is in it.
 *
 * A launcher that was killed leaves an empty control group; the next one removes it. It knows that
 * nobody has it any more because a lock on it has ended with its maker.
 *
 * Thread: launcher. Blocks on the control groups' files, and on a lock held for some milliseconds.
 */
#ifndef BVMM_VMM_CGROUP_H
#define BVMM_VMM_CGROUP_H

#include "base/base.h"
#include "base/error.h"

#define CGROUP_TEXT_BYTES 512
#define CGROUP_CPUS_MAX 8192      /* the pattern of $.cgroup.cpus has it too */
#define CGROUP_UNKNOWN UINT64_MAX /* a number that the kernel did not tell */

struct cgroup_limits {
    const char *cpus; /* "0-1,3"; NULL: all */
    uint64_t memory_max_bytes;
    uint64_t pids_max;
    /* The job asked for them: then they must be had. */
    bool memory_asked;
    bool pids_asked;
};

/* For the report: what took effect, as the kernel tells it. */
struct cgroup_facts {
    bool stands;
    char
        reason[CGROUP_TEXT_BYTES]; /* why there is none, or what of it is missing; "": nothing is */
    char path[CGROUP_TEXT_BYTES];  /* as a directory of the host; "": there is none */
    char cpus[CGROUP_TEXT_BYTES];  /* "": not told */
    uint64_t memory_max_bytes;
    uint64_t memory_swap_max_bytes;
    uint64_t pids_max;
    uint64_t memory_peak_bytes; /* at the end */
    uint64_t oom_kills;         /* at the end: processes killed, for whosever limit it was */
    uint64_t limit_hits;        /* at the end: times that its own limit left no way out */
};

struct cgroup;

/* As before a run: nothing stands, nothing is known. */
void cgroup_facts_init(struct cgroup_facts *facts);

/*
 * cgroup_make - a control group with these limits.
 * @own: the launcher's own one, as a directory; NULL: to be found out.
 * @best_effort: nothing is an error; what cannot be had is in facts->reason.
 * @ret_cgroup: NULL if there is none, and facts->reason says why.
 * Return: 0, or -errno with *err (kind SANDBOX): a limit that was asked for cannot be had.
 */
int cgroup_make(const char *own, const struct cgroup_limits *limits, bool best_effort,
                struct cgroup_facts *facts, struct cgroup **ret_cgroup, struct bvmm_error *err)
    must_check;

/* For clone3(2), or for a process that joins by its cgroup.procs; -1 for NULL. */
int cgroup_fd(const struct cgroup *cgroup);

/* What cgroup_remove() will use: the directory in which it is, and the files that it reads. -1: none. */
#define CGROUP_COUNTERS 2
int cgroup_base_fd(const struct cgroup *cgroup);
int cgroup_counter_fd(const struct cgroup *cgroup, unsigned index);

/* The calling process joins it. 0 or -errno. */
int cgroup_join(int cgroup_fd) must_check;

/* Take the last facts and remove it, with all that may still be in it. NULL: nothing. */
void cgroup_remove(struct cgroup *cgroup, struct cgroup_facts *facts);

#endif
