/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cgroup.h: a control group for the command, so that a fork bomb or a memory hog meets its limit
 * while init still has what it needs to send the results.
 *
 * Without cgroup v2 in the kernel there is none, and the command runs without: init is still the
 * last that the kernel would kill for want of memory.
 *
 * Thread: init has but one. Does not block.
 */
#ifndef BVMM_INIT_CGROUP_H
#define BVMM_INIT_CGROUP_H

#include "base/base.h"

#include <sys/types.h>

#define CGROUP_ROOT "/sys/fs/cgroup"
#define CGROUP_COMMAND CGROUP_ROOT "/command"

/*
 * cgroup_make - make the command's group and set its limits.
 * Return: a descriptor of its directory, or -errno.
 */
int cgroup_make(void);

/*
 * cgroup_fork - fork() with the child in the group from its first instruction.
 *
 * To join a group later, by its cgroup.procs, costs a grace period of RCU: 10 ms and more of an idle
 * machine's time. Kernels before 5.7 can only do that.
 * @cgroup_fd: of cgroup_make(); negative: just fork.
 * Return: as fork(2); in the child *ret_error is 0, or errno if it could not join the group.
 */
pid_t cgroup_fork(int cgroup_fd, int *ret_error);

/* Processes of the command that the kernel killed for want of memory. 0 also if nobody counts. */
uint32_t cgroup_oom_kills(void);

/* The share of something that the command may have, so that init gets the rest. */
uint64_t cgroup_pids_share(uint64_t threads_max, uint64_t pid_max);
uint64_t cgroup_memory_share(uint64_t available_bytes);

#endif
