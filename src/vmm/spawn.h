/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * spawn.h: a child process in a process namespace of its own, also for a program with many threads.
 */
#ifndef BVMM_VMM_SPAWN_H
#define BVMM_VMM_SPAWN_H

#include <sys/types.h>

#include "base/error.h"
#include "base/record.h"
#include "vmm/job.h"

/*
 * What the child does; it must not return. @alive_fd: a socket whose other end the launcher holds:
 * at its end of file the launcher is gone. It can carry a word to the launcher: spawn_tell().
 */
typedef void (*spawn_main_fn)(void *context, int alive_fd);

/*
 * spawn_process - start a child of the caller, as process 1 of a new process namespace; for a user
 * other than root also in a new user namespace, which is what allows the former.
 *
 * fork() cannot do that, and calling clone() from a program with threads would leave locks of the C
 * library held in the child. So: fork() a helper, which has one thread and sound locks; the helper
 * clones the child with CLONE_PARENT, so that it becomes a child of the caller, and is gone.
 * SIGINT, SIGTERM and SIGHUP are blocked in the child from its first instruction: process 1 of a
 * namespace would lose them otherwise.
 *
 * @mode: JOB_SANDBOX_STRICT: a namespace that the host refuses is an error (kind SANDBOX);
 * BEST_EFFORT: it is noted in record->sandbox, OFF: none is asked for.
 * @cgroup_fd: the control group that the child is born in, or -1.
 * @ret_pid, @ret_alive_fd: of the child, and the socket's end that must stay open while it is to live.
 */
int spawn_process(enum job_sandbox mode, struct record *record, int cgroup_fd,
                  spawn_main_fn child_main, void *context, pid_t *ret_pid, int *ret_alive_fd,
                  struct bvmm_error *err) must_check;

/*
 * spawn_follow - for the child: die with the launcher, and now if it is gone. The kernel forgets that at
 * each change of user, so it is to be called again after the last one.
 */
void spawn_follow(int alive_fd);

/*
 * spawn_tell - for the child: a word for the launcher, before it closes alive_fd. From then on nobody
 * can change it, and the launcher may hear it at any time: the kernel keeps it. Never blocks.
 * spawn_hear - for the launcher: the first word, into memory of its own. False: there is none of so
 * many bytes. Never blocks.
 */
void spawn_tell(int alive_fd, const void *word, size_t bytes);
bool spawn_hear(int alive_fd, void *ret_word, size_t bytes) must_check;

#endif
