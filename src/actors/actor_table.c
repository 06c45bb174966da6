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

const struct actor_def actor_defs[ACTOR_CLASS_COUNT] = {
    [ACTOR_SUPERVISOR] =
        {
            .name = "supervisor",
            .owns = "the run's state machine, its deadline, the outcome",
            .run = supervisor_run,
        },
    [ACTOR_VCPU] =
        {
            .name = "vcpu",
            .owns = "one vCPU of KVM and its kvm_run page",
            .run = vcpu_run,
        },
    [ACTOR_SERIAL] =
        {
            .name = "serial",
            .owns = "the 16550A's registers, the console log",
            .run = device_actor_run,
            .poll = serial_poll,
            .stop = serial_stop,
            .on = serial_on,
        },
    [ACTOR_I8042] =
        {
            .name = "i8042",
            .owns = "the keyboard controller's registers",
            .run = device_actor_run,
            .on = i8042_on,
        },
    [ACTOR_BLK] =
        {
            .name = "blk",
            .owns = "one read-only image, one virtqueue",
            .run = device_actor_run,
            .poll = blk_poll,
            .on = blk_on,
        },
};
