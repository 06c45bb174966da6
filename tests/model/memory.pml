/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * memory.pml: weak memory for the models beside it, made explicit.
 *
 * A thread's stores go into its own buffer and reach memory later; the loads of others see memory.
 * What may overtake what is chosen with -DMEMORY=...
 *
 *   1 (TSO, x86)   one queue for each thread: stores arrive in program order; a load may be done
 *                  before an earlier store of the same thread has arrived.
 *   2 (PSO)        and stores to different locations arrive in any order, unless a store fence stands
 *                  between them. Stores to one location stay in order.
 *   3 (WEAK)       and loads may be done early: a thread reads from a view of memory of its own, which
 *                  is brought up to date one location at a time, whenever it pleases the memory, and
 *                  as a whole by a load fence or a full fence. This is Arm's model (one memory for all:
 *                  multi-copy atomic) but for two things: dependencies order nothing here, so that
 *                  the model is harder on us than the machine; and no store overtakes an earlier
 *                  load (docs/memory-ordering.md argues about the places where that matters).
 *
 * A thread never loads what it has stored itself: the models keep a thread's own variables in locals.
 * (The code's ring counters are like that: each has one writer.)
 *
 * The including file defines THREADS, LOCATIONS (at most 8), BUFFER_STORES, and
 * READS(thread, location): which locations a thread ever loads, so that only those views are kept. It
 * starts memory_of() for each thread. In a thread's process, `me` is its number.
 */
#ifndef MEMORY
#error choose a memory model: -DMEMORY=1 (TSO), 2 (PSO) or 3 (WEAK)
#endif

byte memory[LOCATIONS];
chan buffer[THREADS] = [BUFFER_STORES] of {byte, byte, byte}; /* location, value, epoch */
byte epoch[THREADS];  /* store fences since the buffer was last empty */
byte oldest[THREADS]; /* epoch of the buffer's first store: only stores of this one may arrive */

#if MEMORY == 3
byte view[THREADS * LOCATIONS];
#define SEEN(thread, location) view[(thread) * LOCATIONS + (location)]
#else
#define SEEN(thread, location) memory[location]
#endif

#define STORE(location, value) buffer[me]!location, value, epoch[me]
#define LOAD(location) SEEN(me, location)

/* To be used inside of d_step. */
inline refresh_view(at)
{
#if MEMORY == 3
    at = 0;
    do
    :: at < LOCATIONS ->
        if
        :: READS(me, at) -> SEEN(me, at) = memory[at]
        :: else -> skip
        fi;
        at++
    :: else -> break
    od;
    at = 0
#else
    skip
#endif
}

/* Nothing passes in either direction: own stores have arrived, later loads are new. */
inline fence_memory(at)
{
    d_step { empty(buffer[me]) -> refresh_view(at) }
}

/* Loads after it are not earlier than loads before it. */
inline fence_load(at)
{
    d_step { refresh_view(at) }
}

/* Stores before it arrive before stores after it; they may all still be on their way. */
inline fence_store()
{
#if MEMORY == 1
    skip
#else
    d_step {
        if
        :: nempty(buffer[me]) -> epoch[me]++
        :: empty(buffer[me]) -> skip
        fi
    }
#endif
}

/* Options of memory_of(): a store of the thread to the location arrives; a view is brought up to date. */
#if MEMORY == 1
#define ARRIVAL(location)                                                                          \
    :: d_step {                                                                                    \
        buffer[thread]?[location, _, _] -> buffer[thread]?location, value, _;                      \
        memory[location] = value; value = 0                                                        \
    }
#else
#define ARRIVAL(location)                                                                          \
    :: d_step {                                                                                    \
        buffer[thread]??[location, _, eval(oldest[thread])] ->                                     \
        buffer[thread]??location, value, eval(oldest[thread]);                                     \
        memory[location] = value; value = 0;                                                       \
        if                                                                                         \
        :: empty(buffer[thread]) -> epoch[thread] = 0; oldest[thread] = 0                          \
        :: nempty(buffer[thread]) -> buffer[thread]?<_, _, oldest[thread]>                         \
        fi                                                                                         \
    }
#endif
#if MEMORY == 3
#define REFRESH(location)                                                                          \
    :: d_step {                                                                                    \
        READS(thread, location) && SEEN(thread, location) != memory[location] ->                   \
        SEEN(thread, location) = memory[location]                                                  \
    }
#else
#define REFRESH(location)
#endif

proctype memory_of(byte thread)
{
    byte value;

end:
    do
    ARRIVAL(0) REFRESH(0)
    ARRIVAL(1) REFRESH(1)
    ARRIVAL(2) REFRESH(2)
    ARRIVAL(3) REFRESH(3)
#if LOCATIONS > 4
    ARRIVAL(4) REFRESH(4)
#endif
#if LOCATIONS > 5
    ARRIVAL(5) REFRESH(5)
#endif
#if LOCATIONS > 6
    ARRIVAL(6) REFRESH(6)
#endif
#if LOCATIONS > 7
    ARRIVAL(7) REFRESH(7)
#endif
    od
}
