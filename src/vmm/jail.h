/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * jail.h: the layers of the sandbox that hold for the whole VM process.
 *
 * All that the machine needs is open before: afterwards there is no file system, no network, no other
 * process, no capability, and no way to get any of them back.
 */
#ifndef BVMM_VMM_JAIL_H
#define BVMM_VMM_JAIL_H

#include "base/error.h"
#include "base/record.h"
#include "vmm/job.h"

/*
 * jail_enter - put up the layers, in an order in which each still can be.
 * The process and user namespaces are there already (spawn.h).
 * Thread: the VM process's only one. Notes in record->sandbox what stands.
 * With JOB_SANDBOX_STRICT the first layer that the host refuses is an error (kind SANDBOX; the message
 * names the layer and what to do); with BEST_EFFORT it is noted as refused.
 */
int jail_enter(enum job_sandbox mode, struct record *record, struct bvmm_error *err) must_check;

/*
 * jail_forget_environment - what the starting program had in its environment (keys and tokens, often)
 * is no business of the VM process: the strings are overwritten and environ is empty.
 * Thread: the VM process's only one, while /proc is still there.
 */
void jail_forget_environment(void);

/* A sentence for *err: this host refuses the layer, and what to do. Returns code. */
int jail_refusal(enum sandbox_layer layer, int code, struct bvmm_error *err);

/* Note in the record that the host refused a layer. */
void jail_note_refused(struct record_sandbox *sandbox, enum sandbox_layer layer, int code);

#endif
