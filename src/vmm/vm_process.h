/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm_process.h: what the process does in which the VM runs.
 */
#ifndef BVMM_VMM_VM_PROCESS_H
#define BVMM_VMM_VM_PROCESS_H

#include <sys/types.h>

#include "base/record.h"
#include "vmm/job.h"

/*
 * vm_process_main - be the VM process: assemble the machine, run it, leave the outcome in the record.
 * @launcher: the process that forked us; if it dies, so do we.
 * Called in the child right after fork(). Never returns.
 */
_Noreturn void vm_process_main(const struct job *job, struct record *record, pid_t launcher);

#endif
