/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * filter.h: from an actor's policy (actors/policy.h) to a seccomp filter on its thread.
 *
 * What a policy does not allow is trapped: the call is not executed, the kernel delivers SIGSYS, and
 * the handler notes actor and call in the run record (for the report) and then makes a call that the
 * filter answers by killing the process. docs/security.md argues why code that owns the thread cannot
 * get around that.
 */
#ifndef BVMM_VMM_FILTER_H
#define BVMM_VMM_FILTER_H

#include "actors/actor.h"
#include "actors/policy.h"
#include "base/error.h"
#include "base/record.h"

struct filter; /* a filter that is ready to be entered by one thread */

/* Built with sanitizers, whose runtimes make calls of their own, there are no filters. */
bool filter_possible(void);

/*
 * filter_prepare - install the SIGSYS handler. Once in the VM process, before threads.
 * @record: where violations are noted.
 */
int filter_prepare(struct record *record) must_check;

/*
 * filter_new - make the filter of an actor.
 * Thread: main, before the actor's starts. Return: 0, or -errno with *err filled (kind SANDBOX).
 */
int filter_new(const struct actor *actor, const struct policy_numbers *numbers,
               struct filter **ret_filter, struct bvmm_error *err) must_check;

/* NULL is allowed. A thread that has entered the filter stays in it. */
void filter_free(struct filter *filter);

/* For struct actor: put the calling thread into the filter. There is no way out. */
int filter_enter(const struct actor *actor, void *filter) must_check;

#endif
