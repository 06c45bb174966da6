/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * handshake.pml: the two handshakes of src/mailbox/mailbox.c: sleep and doorbell (S1 to S4, R1 to R5),
 * and full lane and room. Two senders with a lane each, one receiver; weak memory by memory.pml.
 *
 * What is checked, in every order of events:
 *   - never does the receiver sleep on a silent doorbell while a message lies in a lane whose send is
 *     complete (monitor);
 *   - when nothing moves any more, every message of a sender that cannot be frozen has been delivered:
 *     no wake-up was lost, and no sender waits for room for ever (judge);
 *   - there are no cycles (Spin looks for non-progress cycles): so it does come to that.
 * The other sender may be frozen for ever at any step that others could notice.
 *
 * A step is what others can notice, or what notices others: a load, a store's arrival, a doorbell. What
 * a thread does by itself (decide, put a store into its own buffer) is joined to the step before; a
 * full fence, which waits, to the load after it. That loses no behaviour.
 *
 * Bounds: MESSAGES_0 and _1 for the senders, CAPACITY of a lane. Ring counters do not wrap here.
 * Mutants, each of which must be found to be wrong: see CMakeLists.txt.
 */
#ifndef MESSAGES_0
#define MESSAGES_0 2
#endif
#ifndef MESSAGES_1
#define MESSAGES_1 2
#endif
#define MESSAGES(sender) ((sender) == 0 -> MESSAGES_0 : MESSAGES_1)
#ifndef CAPACITY
#define CAPACITY 1
#endif

#define RECEIVER 2

#define TAIL(lane) (lane)        /* p_tail: written by the sender, read by the receiver */
#define HEAD(lane) (2 + (lane))  /* c_head: written by the receiver, read by the sender */
#define WAITS(lane) (4 + (lane)) /* sender_waits */
#define ASLEEP 6

#define THREADS 3
#define LOCATIONS 7
#define BUFFER_STORES 3
#define READ_BY_RECEIVER(location)                                                                 \
    ((location) < HEAD(0) || ((location) >= WAITS(0) && (location) <= WAITS(1)))
#define READ_BY_SENDER(lane, location) ((location) == HEAD(lane) || (location) == ASLEEP)
#define READS(thread, location)                                                                    \
    (((thread) == RECEIVER && READ_BY_RECEIVER(location)) ||                                       \
     ((thread) != RECEIVER && READ_BY_SENDER(thread, location)))
#include "memory.pml"

bool rung[THREADS];    /* doorbells: all that counts of a counter is whether it is 0 */
byte freezes;          /* the sender that may be frozen */
byte complete[2];      /* messages whose lane_try_send() has returned true */
byte delivered[2];
bool receiver_sleeps;

#define OR_FREEZE :: freezes == me -> goto frozen

#ifdef MUTANT_NO_S2
#define FENCE_S2 skip
#else
#define FENCE_S2 fence_memory(at)
#endif
#ifdef MUTANT_NO_R2
#define FENCE_R2 skip
#else
#define FENCE_R2 fence_memory(at)
#endif
#ifdef MUTANT_NO_WAIT_FENCE
#define FENCE_WAIT skip
#else
#define FENCE_WAIT fence_memory(at)
#endif
#ifdef MUTANT_NO_ROOM_FENCE
#define FENCE_ROOM skip
#else
#define FENCE_ROOM fence_memory(at)
#endif

proctype sender(byte me)
{
    byte sent, seen, at;

    do
    :: sent == MESSAGES(me) -> break
    OR_FREEZE
    :: atomic {
        sent < MESSAGES(me) && sent - LOAD(HEAD(me)) < CAPACITY ->
        /* lane_try_send */
        sent++;
        STORE(TAIL(me), sent)                                           /* S1 */
    };
        atomic {
            FENCE_S2;                                                   /* S2 */
            seen = LOAD(ASLEEP);                                        /* S3 */
            if
            :: seen == 0 -> complete[me]++
            :: else -> skip
            fi
        };
        if
        :: seen == 0 -> skip
#ifdef MUTANT_CLEAR_ASLEEP
        :: atomic { seen == 1 -> memory[ASLEEP] = 0; seen = 2 };
            if
            :: atomic { true -> rung[RECEIVER] = true; complete[me]++; seen = 0 }
            OR_FREEZE
            fi
#else
        :: atomic { seen == 1 -> rung[RECEIVER] = true; complete[me]++; seen = 0 } /* S4 */
#endif
        OR_FREEZE
        fi
    :: atomic {
        sent < MESSAGES(me) && sent - LOAD(HEAD(me)) >= CAPACITY ->
        /* lane_wait_for_room */
        STORE(WAITS(me), 1)
    };
        atomic {
            FENCE_WAIT;
#ifdef MUTANT_NO_WAIT_RECHECK
            seen = 1
#else
            seen = (sent - LOAD(HEAD(me)) >= CAPACITY)
#endif
        };
        if
        :: atomic { seen == 0 -> STORE(WAITS(me), 0) }
        :: atomic { seen == 1 && rung[me] -> rung[me] = false; seen = 0; STORE(WAITS(me), 0) }
        OR_FREEZE
        fi
    od;
frozen:
    skip
}

/* lane_made_room */
inline made_room(lane)
{
    atomic { FENCE_ROOM; seen = LOAD(WAITS(lane)); taken[lane] = 0 };
    if
    :: atomic { seen == 1 -> rung[lane] = true; seen = 0 }
    :: seen == 0 -> skip
    fi
}

/* lane_fetch_head, if the lane has no head; found tells whether it got one. */
inline fetch_head(lane)
{
    if
    :: has_head[lane] -> skip
    :: atomic {
        !has_head[lane] && LOAD(TAIL(lane)) != head[lane] ->
        fence_load(at);
        fence_store();
        head[lane]++;
        STORE(HEAD(lane), head[lane]);
        has_head[lane] = true;
        found = true;
        taken[lane]++
    };
        if
        :: taken[lane] > CAPACITY / 2 -> made_room(lane)
        :: else -> skip
        fi
    :: atomic { !has_head[lane] && LOAD(TAIL(lane)) == head[lane] && taken[lane] == 0 -> skip }
    :: atomic { !has_head[lane] && LOAD(TAIL(lane)) == head[lane] && taken[lane] > 0 -> skip };
        made_room(lane)
    fi
}

proctype receiver()
{
    byte me = RECEIVER;
    byte head[2], taken[2];
    bool has_head[2];
    bool found;
    byte seen, at;

take:
    /* mailbox_fetch_heads */
    found = false;
    fetch_head(0);
    fetch_head(1);
    if
    :: found -> goto take
    :: else -> skip
    fi;
    /* mailbox_take. Which of the two comes first is tickets.pml's matter: here, any. */
    if
    :: atomic { has_head[0] -> has_head[0] = false; delivered[0]++ }
    :: atomic { has_head[1] -> has_head[1] = false; delivered[1]++ }
    :: !has_head[0] && !has_head[1] -> goto wait
    fi;
    /* An actor takes all there is before it sleeps; a vCPU takes one message and may then wait. */
    if
    :: goto take
    :: goto wait
    fi;

wait:
    /* mailbox_wait */
    STORE(ASLEEP, 1);                                                       /* R1 */
    atomic {
        FENCE_R2;                                                           /* R2 */
        seen = (has_head[0] || has_head[1] || LOAD(TAIL(0)) != head[0])     /* R3 */
    };
#ifndef MUTANT_NO_R3
    if
    :: atomic { seen == 0 && LOAD(TAIL(1)) == head[1] -> receiver_sleeps = true }
    :: atomic { seen == 0 && LOAD(TAIL(1)) != head[1] -> goto awake }
    :: seen == 1 -> goto awake
    fi;
#else
    atomic { receiver_sleeps = true };
#endif
end:
    atomic { rung[RECEIVER] -> rung[RECEIVER] = false; receiver_sleeps = false }; /* R4 */
awake:
    atomic { seen = 0; STORE(ASLEEP, 0) };                                  /* R5 */
    goto take
}

#define OWED(lane) (complete[lane] > delivered[lane])

proctype monitor()
{
end:
    atomic { receiver_sleeps && !rung[RECEIVER] && (OWED(0) || OWED(1)) -> assert(false) }
}

proctype judge()
{
end:
    atomic { timeout -> assert(delivered[1 - freezes] == MESSAGES(1 - freezes)) }
}

init {
    atomic {
        if
        :: freezes = 0
        :: freezes = 1
        fi;
        run memory_of(0);
        run memory_of(1);
        run memory_of(RECEIVER);
        run sender(0);
        run sender(1);
        run receiver();
        run monitor();
        run judge()
    }
}
