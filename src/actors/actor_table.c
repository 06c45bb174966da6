/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * actor_table.c: all actors of bvmm. Read this first, then mailbox/msg.h: who there is, and what
 * they say to each other. vmm/machine.c makes a machine of them.
 */
#include "actors/actor.h"
#include "actors/blk.h"
#include "actors/i8042.h"
#include "actors/serial.h"
#include "actors/supervisor.h"
#include "actors/vcpu.h"
#include "actors/vsock.h"

const struct actor_def actor_defs[ACTOR_CLASS_COUNT] = {
    [ACTOR_SUPERVISOR] =
        {
            .name = "supervisor",
            .owns = "the run's state machine, its deadline, the outcome",
            .run = supervisor_run,
            .policy = &supervisor_policy,
        },
    [ACTOR_VCPU] =
        {
            .name = "vcpu",
            .owns = "one vCPU of KVM and its kvm_run page",
            .prepare = vcpu_prepare,
            .run = vcpu_run,
            .policy = &vcpu_policy,
        },
    [ACTOR_SERIAL] =
        {
            .name = "serial",
            .owns = "the 16550A's registers, the console log",
            .run = device_actor_run,
            .poll = serial_poll,
            .stop = serial_stop,
            .on = serial_on,
            .policy = &serial_policy,
        },
    [ACTOR_I8042] =
        {
            .name = "i8042",
            .owns = "the keyboard controller's registers",
            .run = device_actor_run,
            .on = i8042_on,
            .policy = &i8042_policy,
        },
    [ACTOR_BLK] =
        {
            .name = "blk",
            .owns = "one read-only image, one virtqueue",
            .run = device_actor_run,
            .poll = blk_poll,
            .on = blk_on,
            .policy = &blk_policy,
        },
    [ACTOR_VSOCK] =
        {
            .name = "vsock",
            .owns = "the vsock connections, three virtqueues, the result streams they write to",
            .run = device_actor_run,
            .poll = vsock_poll,
            .sleep = vsock_sleep,
            .stop = vsock_stop,
            .on = vsock_on,
            .policy = &vsock_policy,
        },
};
