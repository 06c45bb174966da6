/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vm_process.h: what the process does in which the VM runs.
 */
#ifndef BVMM_VMM_VM_PROCESS_H
#define BVMM_VMM_VM_PROCESS_H

#include "base/record.h"
#include "vmm/job.h"

/* What the launcher hands over. */
struct vm_process {
    const struct job *job;
    struct record *record;
};

/*
 * vm_process_main - be the VM process: assemble the machine, run it, leave the outcome in the record.
 * @context: a struct vm_process. @alive_fd: see spawn.h; if the launcher dies, so do we.
 * Called in the child. Never returns.
 */
void vm_process_main(void *context, int alive_fd);

#endif
