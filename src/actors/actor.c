/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * actor.c: threads of actors, and the loop of device actors.
 *
 * Thread: actor_init/actor_start: the supervisor's, while the machine starts; all else: the actor's
 * own. What blocks: the sleep in device_actor_run(), and actor_send() of a vCPU.
 */
#include "actors/actor.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Stacks are small, and the same on every host: nothing here recurses. */
#define ACTOR_STACK_BYTES ((size_t)256 * 1024)

void actor_init(struct actor *self, enum actor_class class, actor_id id, unsigned index,
                bool numbered, struct record *record)
{
    memset(self, 0, sizeof(*self));
    self->def = &actor_defs[class];
    self->class = class;
    self->id = id;
    self->index = index;
    self->record = record;
    self->stats = &record->actors[id];
    if (numbered) {
        (void)snprintf(self->name, sizeof(self->name), "%s%u", self->def->name, index);
    } else {
        (void)snprintf(self->name, sizeof(self->name), "%s", self->def->name);
    }
    memcpy(self->stats->name, self->name, sizeof(self->stats->name));
}

static void actor_set_state(struct actor *self, enum actor_state state)
{
    __atomic_store_n(&self->stats->state, (uint32_t)state, __ATOMIC_RELAXED);
}

static void *actor_thread(void *arg)
{
    struct actor *self = arg;

    (void)prctl(PR_SET_NAME, self->name);
    self->stats->tid = (uint32_t)gettid();
    if (self->def->prepare != NULL) {
        self->def->prepare(self);
    }
    if (self->enter_sandbox != NULL) {
        int code = self->enter_sandbox(self, self->filter);

        if (code < 0) {
            actor_fail(self, BVMM_ERROR_SANDBOX, code, "enter_sandbox");
            actor_finish(self);
            return NULL;
        }
    }
    actor_set_state(self, ACTOR_STATE_READY);
    actor_tell(self, ACTOR_ID_SUPERVISOR, &(struct msg){.kind = MSG_READY});
    self->def->run(self);
    actor_finish(self);
    if (self->enter_sandbox != NULL) {
        /* Not by way of the C library, which would give back the stack and more: calls for nothing. */
        (void)syscall(SYS_exit, 0);
    }
    return NULL;
}

int actor_start(struct actor *self, struct bvmm_error *err)
{
    pthread_attr_t attr;
    int code = pthread_attr_init(&attr);

    if (code == 0) {
        code = pthread_attr_setstacksize(&attr, ACTOR_STACK_BYTES);
    }
    if (code == 0) {
        actor_set_state(self, ACTOR_STATE_STARTING);
        code = pthread_create(&self->thread, &attr, actor_thread, self);
    }
    (void)pthread_attr_destroy(&attr);
    if (code != 0) {
        return error_set(err, BVMM_ERROR_IO, -code, "cannot start the thread of actor %s: %s",
                         self->name, error_text(code));
    }
    self->thread_started = true;
    return 0;
}

int actor_send(struct actor *self, actor_id to, const struct msg *msg)
{
    struct lane *lane = self->lane_to[to];

    while (!lane_try_send(lane, msg)) {
        if (self->class != ACTOR_VCPU) {
            /* Our bug, never the guest's doing: see the bound in actor.h. The launcher reports it. */
            abort();
        }
        if (lane_wait_for_room(lane) == -EINTR) {
            return -EINTR;
        }
    }
    return 0;
}

void actor_tell(struct actor *self, actor_id to, const struct msg *msg)
{
    int code = actor_send(self, to, msg);

    (void)code; /* only a vCPU that is being stopped is interrupted: nobody waits for its word */
}

void actor_fail(struct actor *self, enum bvmm_error_kind kind, int error, const char *what)
{
    struct msg msg = {.kind = MSG_FAILED, .failure = {.error = error, .kind = (uint32_t)kind}};

    (void)snprintf(msg.failure.what, sizeof(msg.failure.what), "%s", what);
    actor_tell(self, ACTOR_ID_SUPERVISOR, &msg);
}

void actor_finish(struct actor *self)
{
    self->stats->cpu_ns = clock_thread_cpu_ns();
    actor_set_state(self, ACTOR_STATE_STOPPED);
    actor_tell(self, ACTOR_ID_SUPERVISOR, &(struct msg){.kind = MSG_STOPPED});
}

static void device_actor_dispatch(struct actor *self, const struct msg *msg)
{
    actor_handler_fn handler = msg->kind < MSG_KIND_COUNT ? self->def->on[msg->kind] : NULL;

    if (msg->kind == MSG_STOP) {
        self->stopping = true;
    } else if (handler != NULL) {
        handler(self, msg);
    } else {
        abort(); /* the lanes come from the same table as the handlers: our bug */
    }
}

/*
 * Sleep, then messages, then whatever else the doorbell may have been rung for. STOP is obeyed when
 * the lanes are empty: what vCPUs had sent before they stopped is still served, so that the last
 * lines of a guest's console are in the report.
 */
void device_actor_run(struct actor *self)
{
    struct msg msg;

    actor_set_state(self, ACTOR_STATE_RUNNING);
    while (!self->stopping) {
        const uint64_t wakeups_before = self->stats->wakeups;
        bool worked = false;
        bool more = false;

        (void)(self->def->sleep != NULL ? self->def->sleep(self)
                                        : mailbox_wait(self->mailbox, self->spins));
        do {
            while (mailbox_take(self->mailbox, &msg)) {
                device_actor_dispatch(self, &msg);
                worked = true;
            }
            more = self->def->poll != NULL && self->def->poll(self, &worked);
        } while (more && !self->stopping);
        if (!worked && self->stats->wakeups != wakeups_before) {
            self->stats->wakeups_spurious++;
        }
    }
    if (self->def->stop != NULL) {
        self->def->stop(self);
    }
}
