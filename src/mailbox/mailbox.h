/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mailbox.h: how actors talk. One mailbox for each actor; one lane in it for each possible sender.
 *
 *        sender A ──► lane 0 ─┐                    A lane is a ck_ring with one producer and one
 *        sender B ──► lane 1 ─┼─► receiver         consumer: enqueue and dequeue are a copy, a fence
 *        sender C ──► lane 2 ─┘      ▲             and a store. Nobody ever waits for a lock, and a
 *                                    │             sender that is preempted, or stopped for good, in
 *        doorbell (an eventfd) ──────┘             the middle of a send delays only its own lane.
 *
 * Sleeping. A receiver that finds all lanes empty says so (`asleep`), and reads the doorbell, which
 * blocks. A sender rings the doorbell only if it sees that word. Each side writes its own word
 * before it reads the other's, with a full fence between; so one of the two must see the other, and
 * a wake-up cannot be lost:
 *
 *        receiver                          sender
 *        R1  asleep = 1                    S1  enqueue the message
 *        R2  full fence                    S2  full fence
 *        R3  look at every lane again      S3  look at asleep
 *        R4  all empty: read the doorbell  S4  if it is set: write the doorbell
 *        R5  asleep = 0
 *
 * Nobody clears `asleep` but the receiver. If a sender did ("I will ring, you others need not"), a
 * sender frozen between S3 and S4 would keep all the others quiet. The price is that several senders
 * may ring once each for one sleep; the doorbell is a counter, so they add up to one wake-up.
 *
 * Order. What one sender sends to one receiver arrives in the order in which it was sent. Lanes alone
 * would lose more than that: a guest's CPU 0 prints "a" under a lock, releases it, CPU 1 takes it and
 * prints "b"; two lanes could then deliver "ba". So every message draws a ticket from the mailbox's
 * counter (S0, before S1), and of the messages that it can see the receiver takes the one with the
 * lowest. If sending m2 came after sending m1 in any way that the senders could know of, then m1 has
 * the lower ticket, and is visible when m2 is. A sender that drew a ticket and then was frozen holds
 * up nobody: the receiver chooses among what is there, it does not count. And nobody starves: however
 * much one lane is flooded, a message's turn comes after those that were sent before it.
 *
 * A full lane. The sender says so (`sender_waits`), fences, tries again, and then sleeps on its own
 * doorbell; the receiver looks at that word after it has made room. It is the same handshake with the
 * roles exchanged, and it has the same proof. Only vCPUs ever wait like this: the other lanes are
 * sized so that they cannot be full (actors/actor.h says why).
 *
 * The doorbell may be rung by others too: KVM rings a device's doorbell when the guest notifies one
 * of its virtqueues (ioeventfd). So an actor sleeps on one file descriptor, in one system call.
 *
 * The protocol is model-checked (tests/model/), with weak memory: without either fence the model
 * finds the lost wake-up. The code here is exercised by tests/stress/test_mailbox.c.
 */
#ifndef BVMM_MAILBOX_MAILBOX_H
#define BVMM_MAILBOX_MAILBOX_H

#include "base/base.h"
#include "base/record.h"
#include "mailbox/msg.h"

/* Slots of a ring; one less can be used (ck_ring tells full from empty by it). Power of two. */
#define LANE_RING_SLOTS 64
#define LANE_SLOTS (LANE_RING_SLOTS - 1)

/* A sender looks this often whether a full lane has room, before it sleeps: about a microsecond. */
#define LANE_ROOM_SPINS 32

struct mailbox; /* the receiver's end */
struct lane;    /* a sender's end */

/*
 * mailbox_new - a mailbox with lanes for lane_count senders.
 * @stats: counters of the receiver; written only by its thread. Must outlive the mailbox.
 * Return: 0, -ENOMEM, or what eventfd(2) gave. Thread: the one that assembles the machine.
 */
int mailbox_new(unsigned lane_count, struct actor_stats *stats, struct mailbox **ret_mailbox)
    must_check;

/* Free it and close the doorbell. No sender may use its lanes any more. NULL is allowed. */
void mailbox_free(struct mailbox *mailbox);

/*
 * mailbox_lane - the way into the mailbox for one sender.
 * @index: below lane_count; give each to one sender only.
 * @sender: stamped into every message as `from`.
 * @sender_doorbell_fd: rung when a full lane has room again; -1 for a sender that never waits.
 * @sender_stats: counters of the sender; written only by its thread.
 */
struct lane *mailbox_lane(struct mailbox *mailbox, unsigned index, actor_id sender,
                          int sender_doorbell_fd, struct actor_stats *sender_stats);

/* The eventfd that a sleeping receiver waits on; also what ioeventfds are bound to. */
int mailbox_doorbell_fd(const struct mailbox *mailbox);

/* ---- The sender's side. Thread: the lane's one sender. --------------------------------------- */

/* Send if there is room. Wakes the receiver if it sleeps. Never blocks. False: the lane is full. */
bool lane_try_send(struct lane *lane, const struct msg *msg) must_check;

/*
 * lane_wait_for_room - sleep until the lane may have room, after lane_try_send() returned false.
 * Spins for a moment first. Return: 0 (try again), or -EINTR when a signal came.
 */
int lane_wait_for_room(struct lane *lane) must_check;

/* ---- The receiver's side. Thread: the mailbox's one receiver. -------------------------------- */

/* The next message, by ticket. Never blocks. False: all lanes are empty. */
bool mailbox_take(struct mailbox *mailbox, struct msg *ret_msg) must_check;

/*
 * mailbox_wait - return when a message may have come, or the doorbell was rung by anybody else.
 * @spins: look for new messages this often before sleeping (some ten nanoseconds each); 0: sleep at
 * once. A count and not a time, since reading a clock may be a system call.
 * Return: 0; or -EINTR when a signal interrupted the sleep.
 */
int mailbox_wait(struct mailbox *mailbox, unsigned spins) must_check;

/*
 * mailbox_spins - how many looks take about this long here, measured by making some.
 * One look is some 40 ns on current processors, and a hundred times that under emulation. 0 on a host
 * with one CPU, where nothing can arrive while we look.
 */
unsigned mailbox_spins(uint64_t budget_ns);

/*
 * For a receiver that sleeps in ppoll() or epoll_pwait() on its doorbell and other descriptors:
 * mailbox_announce_sleep() returns true if it may go to sleep (all lanes are empty, and whoever sends
 * from now on will ring); then, in every case, mailbox_awake(), which also empties the doorbell if
 * rung says that it became readable.
 */
bool mailbox_announce_sleep(struct mailbox *mailbox) must_check;
void mailbox_awake(struct mailbox *mailbox, bool rung);

#endif
