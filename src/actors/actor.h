/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * actor.h: what an actor is, and the loop that device actors run.
 *
 * An actor is a thread, a mailbox, and state that only this thread touches. Its row in actor_table.c
 * says everything about its class. What it may send to whom is mailbox/msg.h; who is there in this
 * machine is decided by vmm/machine.c.
 *
 * Who may wait for whom:    vcpu  ──►  device  ──►  supervisor  ──►  nobody
 *
 *   - A vCPU waits for the answer to a read or an acknowledged write, and for room in a device's
 *     lane. It has at most one question open.
 *   - A device never waits for a vCPU: the lane to it holds LANE_SLOTS answers and at most one can
 *     be due. It never waits for the supervisor: what it may ever send is bounded below LANE_SLOTS
 *     (a few words about its life, and each of the events of a run once; device faults once).
 *   - The supervisor sends RUN, STOP and key presses, a handful in all.
 *
 * So there is no cycle, and only lanes from vCPUs can be full.
 */
#ifndef BVMM_ACTORS_ACTOR_H
#define BVMM_ACTORS_ACTOR_H

#include <pthread.h>

#include "actors/policy.h"
#include "base/base.h"
#include "base/error.h"
#include "base/record.h"
#include "mailbox/mailbox.h"
#include "mailbox/msg.h"

struct actor;

/*
 * A handler of one kind of message. Runs on the actor's thread, must not block, takes its state from
 * self->state, answers and tells others by actor_send().
 */
typedef void (*actor_handler_fn)(struct actor *self, const struct msg *msg);

/* One class of actors: a row of the table. */
struct actor_def {
    const char *name; /* thread name; instances of a class that has several get a number behind */
    const char *owns; /* for people: what only this thread touches */

    /* On the thread, before it enters its sandbox: what the policy does not allow later. May be NULL. */
    void (*prepare)(struct actor *self);

    /* The thread's body: device_actor_run for devices; a loop of their own for vCPU and supervisor. */
    void (*run)(struct actor *self);

    /*
     * For device_actor_run, before each sleep: do what the doorbell may have been rung for besides
     * messages (virtqueues), and set *worked if there was anything. Returns true if there is more to
     * do, so that messages get their turn in between.
     */
    bool (*poll)(struct actor *self, bool *worked);

    /*
     * For device_actor_run: sleep until there may be something to do, as mailbox_wait() does. NULL:
     * on the mailbox alone.
     */
    int (*sleep)(struct actor *self);

    /* The last thing before STOPPED: let go of the guest, finish what can be finished at once. */
    void (*stop)(struct actor *self);

    /* Indexed by enum msg_kind; device_actor_run calls them. NULL: this class never gets it. */
    const actor_handler_fn *on;

    /* The system calls that the thread may make from READY on. */
    const struct policy *policy;
};

/* Read actor_table.c first. */
extern const struct actor_def actor_defs[ACTOR_CLASS_COUNT];

/* One actor of the machine. Filled by vmm/machine.c, then belongs to its thread. */
struct actor {
    const struct actor_def *def;
    enum actor_class class;
    actor_id id;
    unsigned index; /* among the instances of its class */
    char name[ACTOR_NAME_BYTES];

    struct mailbox *mailbox;
    struct lane *lane_to[ACTORS_MAX]; /* by actor_id; NULL where msg.h has no message */
    struct actor_stats *stats;        /* in the record; written by this thread only */
    struct record *record;

    void *state; /* the class's own: struct serial, struct blk, ... */
    bool stopping;
    unsigned spins; /* how often to look before sleeping: see mailbox_wait() */

    /* Puts the calling thread into the actor's sandbox, for good. NULL: there is none. */
    int (*enter_sandbox)(const struct actor *self, void *filter);
    void *filter; /* vmm/filter.h */

    pthread_t thread;
    bool thread_started;
};

/* Give it its name and put its place in the record in order. */
void actor_init(struct actor *self, enum actor_class class, actor_id id, unsigned index,
                bool numbered, struct record *record);

/*
 * actor_start - start the thread: it names itself, enters its sandbox, says READY, and runs.
 * Thread: supervisor. Return: 0, or -errno with *err filled.
 */
int actor_start(struct actor *self, struct bvmm_error *err) must_check;

/*
 * actor_send - send to another actor.
 * Thread: self's. Blocks only if self is a vCPU and the lane is full: then it returns -EINTR when
 * its signal came, and the message was not sent. Devices and the supervisor never find a lane full
 * (see above); if one does, it is a bug, and the process ends with a report that says so.
 */
int actor_send(struct actor *self, actor_id to, const struct msg *msg) must_check;

/* actor_tell - actor_send() for those who cannot find a lane full. */
void actor_tell(struct actor *self, actor_id to, const struct msg *msg);

/* Tell the supervisor that this actor cannot go on. */
void actor_fail(struct actor *self, enum bvmm_error_kind kind, int error, const char *what);

/* The body of all device actors. */
void device_actor_run(struct actor *self);

/* Last entries in the statistics, and STOPPED to the supervisor. */
void actor_finish(struct actor *self);

#endif
