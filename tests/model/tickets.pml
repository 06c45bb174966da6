/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tickets.pml: order across the lanes of src/mailbox/mailbox.c. Two senders with a lane each, one
 * receiver; weak memory by memory.pml.
 *
 * After each send a sender says so in a word that the other reads before each of its sends (a guest's
 * lock, a flag, anything): from then on the other one's messages come later, causally. Checked:
 *   - no message is taken before one that its sender knew to be sent;
 *   - what is taken is what was sent (the slot's contents arrive before the counter that shows it);
 *   - when nothing moves any more, every message of the sender that cannot be frozen has been taken:
 *     nobody waits for a ticket that was drawn and not used.
 *   - there are no cycles (Spin looks for non-progress cycles): so it does come to that.
 * Tickets are 8 bits wide here and wrap around in the middle.
 *
 * The ticket is drawn by an atomic that is not a fence: it neither waits for the thread's buffer nor
 * refreshes its view.
 * Mutants, each of which must be found to be wrong: see CMakeLists.txt.
 */
#ifndef MESSAGES_0
#define MESSAGES_0 2
#endif
#ifndef MESSAGES_1
#define MESSAGES_1 2
#endif
#define MESSAGES(sender) ((sender) == 0 -> MESSAGES_0 : MESSAGES_1)
#define FIRST_TICKET 254
#define NO_TICKET 77 /* what lies in a slot before anything was written to it */

#define RECEIVER 2

#define TAIL(lane) (lane)
#define TOLD(sender) (2 + (sender)) /* messages that it has told the other about */
#define SLOT(lane, index) (4 + 2 * (lane) + (index))

#define THREADS 3
#define LOCATIONS 8
#define BUFFER_STORES 4
#define READS(thread, location)                                                                    \
    (((thread) == RECEIVER && (location) != TOLD(0) && (location) != TOLD(1)) ||                   \
     ((thread) != RECEIVER && (location) == TOLD(1 - (thread))))
#include "memory.pml"

byte next_ticket = FIRST_TICKET;
byte freezes;             /* the sender that may be frozen */
byte ticket_of[4];        /* by MESSAGE(): what was drawn for it */
byte known[4];            /* by MESSAGE(): the other's messages that its sender knew of */
byte delivered[2];
#define MESSAGE(sender, index) (2 * (sender) + (index))

#define OR_FREEZE :: freezes == me -> goto frozen

proctype sender(byte me)
{
    byte sent, at;

    do
    :: sent == MESSAGES(me) -> break
    OR_FREEZE
    :: atomic { sent < MESSAGES(me) -> known[MESSAGE(me, sent)] = LOAD(TOLD(1 - me)) };
        if
        :: atomic {
            true ->
            ticket_of[MESSAGE(me, sent)] = next_ticket;                                 /* S0 */
            next_ticket++
        }
        OR_FREEZE
        fi;
        if
        :: atomic {
            true ->
            STORE(SLOT(me, sent), ticket_of[MESSAGE(me, sent)]);
#ifndef MUTANT_NO_FENCE_STORE
            fence_store();
#endif
            sent++;
            STORE(TAIL(me), sent)                                                       /* S1 */
        }
        OR_FREEZE
        fi;
#ifndef MUTANT_NO_S2
        fence_memory(at);                                                               /* S2 */
#endif
        if
        :: atomic { true -> STORE(TOLD(me), sent) }
        OR_FREEZE
        fi
    od;
frozen:
    skip
}

/* lane_fetch_head: found is set if the lane has a new head. */
inline fetch_head(lane)
{
    if
    :: has_head[lane] -> skip
    :: atomic { !has_head[lane] && LOAD(TAIL(lane)) == head[lane] -> skip }
    :: atomic {
        !has_head[lane] && LOAD(TAIL(lane)) != head[lane] ->
#ifndef MUTANT_NO_FENCE_LOAD
        fence_load(at);
#endif
        skip
    };
        atomic {
            ticket[lane] = LOAD(SLOT(lane, head[lane]));
            assert(ticket[lane] == ticket_of[MESSAGE(lane, head[lane])]);
            head[lane]++;
            has_head[lane] = true;
            found = true
        }
    fi
}

inline deliver(lane)
{
    d_step {
        assert(delivered[1 - lane] >= known[MESSAGE(lane, delivered[lane])]);
        has_head[lane] = false;
        ticket[lane] = 0;
        delivered[lane]++
    }
}

#ifdef MUTANT_NO_TICKETS
#define BEFORE(a, b) true /* whichever */
#endif
#ifdef MUTANT_NO_WRAP
#define BEFORE(a, b) ((a) < (b))
#endif
#ifndef BEFORE
#define BEFORE(a, b) ((((a) + 256 - (b)) & 255) >= 128)
#endif
#ifdef MUTANT_COUNT
byte expected = FIRST_TICKET;
#define TURN(lane) (ticket[lane] == expected)
#define TAKEN expected++;
#else
#define TURN(lane) (!has_head[1 - (lane)] || BEFORE(ticket[lane], ticket[1 - (lane)]))
#define TAKEN
#endif

proctype receiver()
{
    byte me = RECEIVER;
    byte head[2], ticket[2];
    bool has_head[2];
    bool found;
    byte at;

take:
    /* mailbox_fetch_heads */
    found = false;
    fetch_head(0);
    fetch_head(1);
#ifndef MUTANT_NO_LOOK_AGAIN
    if
    :: found -> goto take
    :: else -> skip
    fi;
#endif
    /* mailbox_take, or wait until there is something to take. */
end:
    if
    :: atomic { has_head[0] && TURN(0) -> TAKEN deliver(0) }
    :: atomic { has_head[1] && TURN(1) -> TAKEN deliver(1) }
    :: atomic { !has_head[0] && LOAD(TAIL(0)) != head[0] -> skip }
    :: atomic { !has_head[1] && LOAD(TAIL(1)) != head[1] -> skip }
    fi;
    goto take
}

proctype judge()
{
end:
    atomic { timeout -> assert(delivered[1 - freezes] == MESSAGES(1 - freezes)) }
}

init {
    atomic {
        memory[SLOT(0, 0)] = NO_TICKET;
        memory[SLOT(0, 1)] = NO_TICKET;
        memory[SLOT(1, 0)] = NO_TICKET;
        memory[SLOT(1, 1)] = NO_TICKET;
#if MEMORY == 3
        SEEN(RECEIVER, SLOT(0, 0)) = NO_TICKET;
        SEEN(RECEIVER, SLOT(0, 1)) = NO_TICKET;
        SEEN(RECEIVER, SLOT(1, 0)) = NO_TICKET;
        SEEN(RECEIVER, SLOT(1, 1)) = NO_TICKET;
#endif
        if
        :: freezes = 0
        :: freezes = 1
        fi;
        run memory_of(0);
        run memory_of(1);
        run sender(0);
        run sender(1);
        run receiver();
#if MEMORY == 3
        run memory_of(RECEIVER); /* it stores nothing: only its view */
#endif
        run judge()
    }
}
