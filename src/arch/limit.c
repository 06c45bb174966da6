/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* limit.c: a timer's signal for this thread ends KVM_RUN. See limit.h. */
#include "arch/limit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#ifndef sigev_notify_thread_id
#define sigev_notify_thread_id _sigev_un._tid
#endif

/* For the signal handler: the page of the vCPU that it is to stop. */
static struct kvm_run *limited_run;

static void on_limit(int signal)
{
    (void)signal;
    /* KVM_RUN ends by the signal, or, if it had not begun yet, by this. */
    __atomic_store_n(&limited_run->immediate_exit, 1, __ATOMIC_RELAXED);
}

int kvm_limit_begin(struct kvm_limit *limit, struct kvm_run *run, uint64_t limit_ns,
                    struct bvmm_error *err)
{
    struct sigaction action = {.sa_handler = on_limit};
    struct sigevent event = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = ARCH_PROBE_SIGNAL};
    const struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(limit_ns / NS_PER_SECOND),
                                                 .tv_nsec = (long)(limit_ns % NS_PER_SECOND)}};
    sigset_t unblocked;

    limited_run = run;
    event.sigev_notify_thread_id = gettid();
    if (timer_create(CLOCK_MONOTONIC, &event, &limit->timer) != 0) {
        return error_set(err, BVMM_ERROR_KVM, -errno, "timer_create: %s", error_text(errno));
    }
    (void)sigemptyset(&unblocked);
    (void)sigaddset(&unblocked, ARCH_PROBE_SIGNAL);
    (void)sigaction(ARCH_PROBE_SIGNAL, &action, &limit->old_action);
    (void)pthread_sigmask(SIG_UNBLOCK, &unblocked, &limit->old_mask);
    (void)timer_settime(limit->timer, 0, &spec, NULL);
    return 0;
}

void kvm_limit_end(struct kvm_limit *limit)
{
    /* After the timer is gone no signal can come any more, so the old action may come back. */
    (void)timer_delete(limit->timer);
    (void)pthread_sigmask(SIG_SETMASK, &limit->old_mask, NULL);
    (void)sigaction(ARCH_PROBE_SIGNAL, &limit->old_action, NULL);
}
