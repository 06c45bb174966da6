/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bench_mailbox.c: what a message costs, beside what it could cost.
 *
 *   one way      messages per second from senders that never pause
 *   ping-pong    time for a question and its answer, both sides spinning, or both sides sleeping
 *
 * Beside it, in the same run: the kernel's part alone (two eventfds), a queue with mutex and condition
 * variable as a textbook has it, and ck's ring for many producers, whose enqueue waits for earlier ones.
 * A benchmark, not a test: it prints, and judges nothing. Numbers of one run on a busy machine say little:
 * each line is the best and the median of several rounds.
 */
#include "mailbox/mailbox.h"

#include <ck_ring.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define ROUNDS 5
#define SENDERS_MAX 8
#define ONE_WAY_MESSAGES 500000U
#define SHARED_RING_MESSAGES 20000U /* few: on a busy machine each may take milliseconds */
#define SPINNING_PINGS 20000U
#define SLEEPING_PINGS 20000U
#define SPINS 1000U /* the most that mailbox_spins() gives */

/* ---- Rounds ----------------------------------------------------------------------------------- */

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a;
    const double y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Nanoseconds for each of count things: best and median of all rounds. */
struct result {
    double best_ns;
    double median_ns;
    double worst_ns;
};

static struct result measure(uint64_t (*round)(unsigned param, unsigned count), unsigned param,
                             unsigned count)
{
    double ns[ROUNDS];

    for (unsigned i = 0; i < ROUNDS; i++) {
        ns[i] = (double)round(param, count) / count;
    }
    qsort(ns, ROUNDS, sizeof(ns[0]), compare);
    return (struct result){ns[0], ns[ROUNDS / 2], ns[ROUNDS - 1]};
}

static struct result show(const char *what, struct result r, const struct result *bound)
{
    printf("%-52s %9.1f %9.1f %9.1f", what, r.best_ns, r.median_ns, r.worst_ns);
    if (bound != NULL) {
        printf("   %6.2f", r.median_ns / bound->median_ns);
    }
    printf("\n");
    fflush(stdout);
    return r;
}

static void start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    if (pthread_create(thread, NULL, body, arg) != 0) {
        fprintf(stderr, "bench_mailbox: cannot start a thread\n");
        exit(1);
    }
}

/* ---- Mailbox ---------------------------------------------------------------------------------- */

struct end {
    struct actor_stats stats;
    struct mailbox *mailbox; /* this end's own */
    struct lane *lane;       /* to the other end */
    unsigned count;
    unsigned spins;
};

static struct mailbox *new_mailbox(unsigned lanes, struct actor_stats *stats)
{
    struct mailbox *mailbox = NULL;

    if (mailbox_new(lanes, stats, &mailbox) < 0) {
        fprintf(stderr, "bench_mailbox: cannot make a mailbox\n");
        exit(1);
    }
    return mailbox;
}

static void send_one(struct lane *lane)
{
    const struct msg msg = {.kind = MSG_IO_WRITE};

    while (!lane_try_send(lane, &msg)) {
        (void)!lane_wait_for_room(lane);
    }
}

static void take_one(struct end *e)
{
    struct msg msg;

    while (!mailbox_take(e->mailbox, &msg)) {
        (void)!mailbox_wait(e->mailbox, e->spins);
    }
}

static void *mailbox_sender(void *arg)
{
    struct end *e = arg;

    for (unsigned i = 0; i < e->count; i++) {
        send_one(e->lane);
    }
    return NULL;
}

static uint64_t mailbox_one_way(unsigned senders, unsigned count)
{
    static struct end ends[SENDERS_MAX];
    static struct end receiver;
    int doorbells[SENDERS_MAX];
    pthread_t threads[SENDERS_MAX];

    receiver = (struct end){.spins = 100};
    receiver.mailbox = new_mailbox(senders, &receiver.stats);
    for (unsigned i = 0; i < senders; i++) {
        doorbells[i] = eventfd(0, EFD_CLOEXEC);
        ends[i] = (struct end){.count = count / senders};
        ends[i].lane =
            mailbox_lane(receiver.mailbox, i, (actor_id)(i + 1), doorbells[i], &ends[i].stats);
    }
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < senders; i++) {
        start(&threads[i], mailbox_sender, &ends[i]);
    }
    for (unsigned i = 0; i < count / senders * senders; i++) {
        take_one(&receiver);
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    for (unsigned i = 0; i < senders; i++) {
        (void)pthread_join(threads[i], NULL);
        (void)close(doorbells[i]);
    }
    mailbox_free(receiver.mailbox);
    return took_ns;
}

static void *mailbox_answerer(void *arg)
{
    struct end *e = arg;

    for (unsigned i = 0; i < e->count; i++) {
        take_one(e);
        send_one(e->lane);
    }
    return NULL;
}

static uint64_t mailbox_ping_pong(unsigned spins, unsigned count)
{
    static struct end ends[2];
    pthread_t thread;

    for (unsigned i = 0; i < 2; i++) {
        ends[i] = (struct end){.count = count, .spins = spins};
        ends[i].mailbox = new_mailbox(1, &ends[i].stats);
    }
    for (unsigned i = 0; i < 2; i++) {
        ends[i].lane = mailbox_lane(ends[1 - i].mailbox, 0, (actor_id)(i + 1),
                                    mailbox_doorbell_fd(ends[i].mailbox), &ends[i].stats);
    }
    start(&thread, mailbox_answerer, &ends[1]);
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < count; i++) {
        send_one(ends[0].lane);
        take_one(&ends[0]);
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    (void)pthread_join(thread, NULL);
    mailbox_free(ends[0].mailbox);
    mailbox_free(ends[1].mailbox);
    return took_ns;
}

/* ---- The kernel's part alone: two eventfds ---------------------------------------------------- */

struct eventfd_pair {
    int fds[2];
    unsigned count;
};

static void eventfd_step(int write_fd, int read_fd)
{
    uint64_t value = 1;

    if (write_fd >= 0 && write(write_fd, &value, sizeof(value)) != (ssize_t)sizeof(value)) {
        exit(1);
    }
    if (read_fd >= 0 && read(read_fd, &value, sizeof(value)) != (ssize_t)sizeof(value)) {
        exit(1);
    }
}

static void *eventfd_answerer(void *arg)
{
    struct eventfd_pair *pair = arg;

    for (unsigned i = 0; i < pair->count; i++) {
        eventfd_step(-1, pair->fds[0]);
        eventfd_step(pair->fds[1], -1);
    }
    return NULL;
}

static uint64_t eventfd_ping_pong(unsigned unused, unsigned count)
{
    struct eventfd_pair pair = {.fds = {eventfd(0, EFD_CLOEXEC), eventfd(0, EFD_CLOEXEC)},
                                .count = count};
    pthread_t thread;

    (void)unused;
    start(&thread, eventfd_answerer, &pair);
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < count; i++) {
        eventfd_step(pair.fds[0], pair.fds[1]);
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    (void)pthread_join(thread, NULL);
    (void)close(pair.fds[0]);
    (void)close(pair.fds[1]);
    return took_ns;
}

/* ---- A queue with mutex and condition variable ------------------------------------------------ */

struct locked_queue {
    pthread_mutex_t lock;
    pthread_cond_t not_empty;
    pthread_cond_t not_full;
    struct msg slots[LANE_SLOTS];
    unsigned first;
    unsigned used;
};

struct locked_end {
    struct locked_queue *in;
    struct locked_queue *out;
    unsigned count;
};

static void locked_init(struct locked_queue *q)
{
    memset(q, 0, sizeof(*q));
    (void)pthread_mutex_init(&q->lock, NULL);
    (void)pthread_cond_init(&q->not_empty, NULL);
    (void)pthread_cond_init(&q->not_full, NULL);
}

static void locked_put(struct locked_queue *q, const struct msg *msg)
{
    (void)pthread_mutex_lock(&q->lock);
    while (q->used == LANE_SLOTS) {
        (void)pthread_cond_wait(&q->not_full, &q->lock);
    }
    q->slots[(q->first + q->used++) % LANE_SLOTS] = *msg;
    (void)pthread_cond_signal(&q->not_empty);
    (void)pthread_mutex_unlock(&q->lock);
}

static void locked_get(struct locked_queue *q, struct msg *ret_msg)
{
    (void)pthread_mutex_lock(&q->lock);
    while (q->used == 0) {
        (void)pthread_cond_wait(&q->not_empty, &q->lock);
    }
    *ret_msg = q->slots[q->first];
    q->first = (q->first + 1) % LANE_SLOTS;
    q->used--;
    (void)pthread_cond_signal(&q->not_full);
    (void)pthread_mutex_unlock(&q->lock);
}

static void *locked_sender(void *arg)
{
    struct locked_end *e = arg;
    const struct msg msg = {.kind = MSG_IO_WRITE};

    for (unsigned i = 0; i < e->count; i++) {
        locked_put(e->out, &msg);
    }
    return NULL;
}

static uint64_t locked_one_way(unsigned senders, unsigned count)
{
    static struct locked_queue queue;
    struct locked_end end = {.out = &queue, .count = count / senders};
    pthread_t threads[SENDERS_MAX];
    struct msg msg;

    locked_init(&queue);
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < senders; i++) {
        start(&threads[i], locked_sender, &end);
    }
    for (unsigned i = 0; i < count / senders * senders; i++) {
        locked_get(&queue, &msg);
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    for (unsigned i = 0; i < senders; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return took_ns;
}

static void *locked_answerer(void *arg)
{
    struct locked_end *e = arg;
    struct msg msg;

    for (unsigned i = 0; i < e->count; i++) {
        locked_get(e->in, &msg);
        locked_put(e->out, &msg);
    }
    return NULL;
}

static uint64_t locked_ping_pong(unsigned unused, unsigned count)
{
    static struct locked_queue queues[2];
    struct locked_end end = {.in = &queues[0], .out = &queues[1], .count = count};
    struct msg msg = {.kind = MSG_IO_READ};
    pthread_t thread;

    (void)unused;
    locked_init(&queues[0]);
    locked_init(&queues[1]);
    start(&thread, locked_answerer, &end);
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < count; i++) {
        locked_put(&queues[0], &msg);
        locked_get(&queues[1], &msg);
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    (void)pthread_join(thread, NULL);
    return took_ns;
}

/* ---- ck's ring for many producers, which has no way to sleep: both sides spin, and yield -------- */

CK_RING_PROTOTYPE(shared, msg)

struct shared_ring {
    ck_ring_t ring;
    struct msg slots[SENDERS_MAX * LANE_RING_SLOTS];
    unsigned count;
};

static void *shared_sender(void *arg)
{
    struct shared_ring *r = arg;
    struct msg msg = {.kind = MSG_IO_WRITE};

    for (unsigned i = 0; i < r->count; i++) {
        while (!ck_ring_enqueue_mpsc_shared(&r->ring, r->slots, &msg)) {
            (void)sched_yield();
        }
    }
    return NULL;
}

static uint64_t shared_one_way(unsigned senders, unsigned count)
{
    static struct shared_ring ring;
    pthread_t threads[SENDERS_MAX];
    struct msg msg;

    ck_ring_init(&ring.ring, SENDERS_MAX * LANE_RING_SLOTS);
    ring.count = count / senders;
    const uint64_t start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < senders; i++) {
        start(&threads[i], shared_sender, &ring);
    }
    for (unsigned i = 0; i < count / senders * senders; i++) {
        while (!ck_ring_dequeue_mpsc_shared(&ring.ring, ring.slots, &msg)) {
            (void)sched_yield();
        }
    }
    const uint64_t took_ns = clock_monotonic_ns() - start_ns;
    for (unsigned i = 0; i < senders; i++) {
        (void)pthread_join(threads[i], NULL);
    }
    return took_ns;
}

/* ------------------------------------------------------------------------------------------------ */

int main(void)
{
    printf("%ld CPUs, %d rounds each\n\n", sysconf(_SC_NPROCESSORS_ONLN), ROUNDS);
    printf("%-52s %9s %9s %9s   %6s\n", "ns for each", "best", "median", "worst", "ratio");
    const struct result locked1 = show("one way, 1 sender: mutex and condition variable",
                                       measure(locked_one_way, 1, ONE_WAY_MESSAGES), NULL);
    (void)show("one way, 1 sender: mailbox", measure(mailbox_one_way, 1, ONE_WAY_MESSAGES),
               &locked1);
    (void)show("one way, 1 sender: ck ring, many producers",
               measure(shared_one_way, 1, SHARED_RING_MESSAGES), &locked1);
    const struct result locked4 = show("one way, 4 senders: mutex and condition variable",
                                       measure(locked_one_way, 4, ONE_WAY_MESSAGES), NULL);
    (void)show("one way, 4 senders: mailbox", measure(mailbox_one_way, 4, ONE_WAY_MESSAGES),
               &locked4);
    (void)show("one way, 4 senders: ck ring, many producers",
               measure(shared_one_way, 4, SHARED_RING_MESSAGES), &locked4);
    const struct result bare = show("ping-pong asleep: two eventfds, no message",
                                    measure(eventfd_ping_pong, 0, SLEEPING_PINGS), NULL);
    (void)show("ping-pong asleep: mutex and condition variable",
               measure(locked_ping_pong, 0, SLEEPING_PINGS), &bare);
    (void)show("ping-pong asleep: mailbox", measure(mailbox_ping_pong, 0, SLEEPING_PINGS), &bare);
    (void)show("ping-pong spinning: mailbox", measure(mailbox_ping_pong, SPINS, SPINNING_PINGS),
               &bare);
    printf("\nratio: median, to the line above that has none\n");
    return 0;
}
