/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * filter.h: from a policy (actors/policy.h) to a seccomp filter on the calling thread.
 *
 * What a policy does not allow is trapped: the call is not executed, the kernel delivers SIGSYS, and
 * the handler notes who made which call (for the report) and then makes a call that the filter
 * answers by killing the process. docs/security.md argues why code that owns the thread, or all of
 * them, cannot get around that.
 */
#ifndef BVMM_VMM_FILTER_H
#define BVMM_VMM_FILTER_H

#include <signal.h>

#include "actors/actor.h"
#include "actors/policy.h"
#include "base/error.h"
#include "base/record.h"

struct filter; /* a filter that is ready to be entered by one thread */

/* Built with sanitizers, whose runtimes make calls of their own, there are no filters. */
bool filter_possible(void);

/*
 * filter_prepare - install the SIGSYS handler of the VM process. Once in it, before threads.
 * @record: where violations are noted.
 */
int filter_prepare(struct record *record) must_check;

/*
 * filter_catch - install another handler of SIGSYS. Once in a process.
 * @handler: runs on the thread that made the call, whose memory may be anything, with all signals
 * blocked. It may make calls that the thread's filter allows, and must not allocate. It ends by
 * arch_make_last_call().
 */
typedef void (*filter_handler_fn)(int signal, siginfo_t *info, void *context);
int filter_catch(filter_handler_fn handler) must_check;

/*
 * filter_new - make a filter.
 * @name: whose it is, for the message.
 * Return: 0, or -errno with *err filled (kind SANDBOX).
 */
int filter_new(const char *name, const struct policy *policy, const struct policy_numbers *numbers,
               struct filter **ret_filter, struct bvmm_error *err) must_check;

/* NULL is allowed. A thread that has entered the filter stays in it. */
void filter_free(struct filter *filter);

/* What filter_put_on() hands to the kernel, for a policy that allows just that (POLICY_NEXT_FILTER). */
uint64_t filter_address(const struct filter *filter);

/*
 * filter_put_on - put the calling thread into the filter, besides those that it is in already. There is
 * no way out. The thread has no_new_privs set, or CAP_SYS_ADMIN.
 */
int filter_put_on(const struct filter *filter) must_check;

/* For struct actor: put the calling thread into the filter. There is no way out. */
int filter_enter(const struct actor *actor, void *filter) must_check;

#endif
