/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * machine.h: a virtual machine, put together from a job. The one place that knows everybody.
 *
 * Thread: the VM process's main thread, which becomes the supervisor.
 */
#ifndef BVMM_VMM_MACHINE_H
#define BVMM_VMM_MACHINE_H

#include "base/error.h"
#include "base/record.h"
#include "vmm/job.h"

struct machine;

/*
 * machine_new - open KVM and the kernel, make VM, memory, vCPUs, devices and their actors. No thread is
 * started when it returns, and nothing that belongs to the guest has been looked at.
 * @job: with its files open; they stay the job's, and must outlive the machine.
 * Return: 0, or -errno with *err filled and nothing left behind.
 */
int machine_new(const struct job *job, struct record *record, struct machine **ret_machine,
                struct bvmm_error *err) must_check;

/*
 * machine_enter_sandbox - put the process into its jail, and have a filter ready for every actor, which
 * its thread enters before it handles its first message. As the job's "sandbox" says.
 * Between machine_new() and machine_run(). Return: 0, or -errno with *err filled (kind SANDBOX).
 */
int machine_enter_sandbox(struct machine *machine, struct bvmm_error *err) must_check;

/*
 * machine_load - parse the kernel, put it and what it is told into the guest's memory.
 * After machine_enter_sandbox(): a kernel is as hostile as what runs in it, and its parser has no use for
 * rights. Return: 0, or -errno with *err filled.
 */
int machine_load(struct machine *machine, struct bvmm_error *err) must_check;

/*
 * machine_run - start all actors, be the supervisor, return when all have stopped (or were given
 * up on). The record's outcome is final then.
 */
void machine_run(struct machine *machine);

/* All actors must have stopped. NULL is allowed. */
void machine_free(struct machine *machine);

#endif
