/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vcpu.h: a virtual CPU: KVM_RUN, and what its exits become.
 *
 *   KVM_EXIT_IO, KVM_EXIT_MMIO   a message to the device that has the address (io_map.h); for a read
 *                                and for a write that is not posted, wait for the answer
 *   nobody has the address       reads give all ones, writes do nothing; counted, no message
 *   shutdown, system event       VCPU_ENDED to the supervisor, then wait for STOP
 *
 * Being stopped: the supervisor sends STOP, then VCPU_KICK_SIGNAL to the thread. The handler sets
 * immediate_exit in the kvm_run page, so that the signal cannot come too early: KVM_RUN returns at
 * once, now or next time.
 */
#ifndef BVMM_ACTORS_VCPU_H
#define BVMM_ACTORS_VCPU_H

#include <signal.h>

#include "actors/actor.h"
#include "actors/io_map.h"
#include "arch/kvm.h"

#define VCPU_KICK_SIGNAL SIGUSR1

struct vcpu {
    struct kvm_vcpu_handle kvm;
    const struct io_map *map;
    struct vcpu_exits *exits;    /* in the record; written by this thread only */
    struct bvmm_error end_error; /* goes to the supervisor with VCPU_ENDED */
};

/* Before the machine starts. */
void vcpu_init(struct vcpu *vcpu, struct actor *self, struct kvm_vcpu_handle kvm,
               const struct io_map *map);

/*
 * vcpu_install_kick - install the handler of VCPU_KICK_SIGNAL, and block it for the calling thread
 * and those that it starts: only vCPU threads take it. Once in the VM process, before threads.
 */
int vcpu_install_kick(void) must_check;

/* For actor_table.c. */
void vcpu_prepare(struct actor *self);
void vcpu_run(struct actor *self);
extern const struct policy vcpu_policy;

#endif
