/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_mailbox.c: the mailbox under threads that send, sleep, stop and die at the worst moments.
 *
 * Threads of a test only record; the main thread asserts when they have ended. Each test has a
 * watchdog: a lost message or a lost wake-up ends as "hung in test", never as a hanging test. How
 * much is done and with which random decisions: see stress.h.
 */
#include "mailbox/mailbox.h"
#include "stress.h"

#include <errno.h>
#include <fcntl.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include <cmocka.h>

#define SENDERS 8
#define FIRST_ID 1 /* actor_id of sender 0 */

/* A ticket that was given twice shows up among this many that follow each other. */
#define TICKETS_KEPT 4096

struct world;

struct sender {
    _Alignas(CACHE_LINE_BYTES) struct actor_stats stats;
    struct world *world;
    struct lane *lane;
    unsigned index;
    int doorbell_fd;
    uint64_t to_send;
    uint64_t sent;
    uint64_t random;
    pid_t tid;
    int result;
    pthread_t thread;
};

struct world {
    struct actor_stats stats; /* the receiver's */
    struct mailbox *mailbox;
    struct sender senders[SENDERS];
    unsigned spins;
    uint64_t random;
    pid_t receiver_tid;
    pthread_t receiver;

    /* Written by the receiver. */
    _Alignas(CACHE_LINE_BYTES) uint64_t expected[SENDERS]; /* next value of each sender */
    uint64_t taken;
    uint64_t to_take;
    uint64_t wrong; /* lost, doubled, reordered or torn; or its ticket is */
    uint32_t last_ticket[SENDERS];
    uint64_t tickets[TICKETS_KEPT]; /* by ticket modulo this: ticket + 1 */
    struct msg first_wrong;
    uint64_t order; /* a_token_gives_order: next value */

    /* Shared, atomic. */
    _Alignas(
        CACHE_LINE_BYTES) uint64_t seen; /* what the receiver has taken, for senders to look at */
    bool stop;
};

#define load(p) __atomic_load_n(p, __ATOMIC_ACQUIRE)         /* pairs with store() */
#define store(p, v) __atomic_store_n(p, v, __ATOMIC_RELEASE) /* pairs with load() */

static int setup(void **state)
{
    struct world *w = aligned_alloc(CACHE_LINE_BYTES, align_up(sizeof(*w), CACHE_LINE_BYTES));

    assert_non_null(w);
    memset(w, 0, sizeof(*w));
    assert_int_equal(mailbox_new(SENDERS, &w->stats, &w->mailbox), 0);
    w->random = stress_random_start(SENDERS);
    for (unsigned i = 0; i < SENDERS; i++) {
        struct sender *s = &w->senders[i];

        s->world = w;
        s->index = i;
        s->doorbell_fd = eventfd(0, EFD_CLOEXEC);
        assert_true(s->doorbell_fd >= 0);
        s->lane = mailbox_lane(w->mailbox, i, (actor_id)(FIRST_ID + i), s->doorbell_fd, &s->stats);
        s->random = stress_random_start(i);
    }
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    watchdog_stop();
    for (unsigned i = 0; i < SENDERS; i++) {
        (void)close(w->senders[i].doorbell_fd);
    }
    mailbox_free(w->mailbox);
    free(w);
    return 0;
}

/* ---- Sending and taking ---------------------------------------------------------------------- */

/* Differs in every bit that could be torn. */
static uint32_t check_of(uint64_t value, unsigned sender)
{
    return (uint32_t)((value * SENDERS + sender) * 0x9e3779b97f4a7c15ULL >> 32);
}

static struct msg message(unsigned sender, uint64_t value)
{
    return (struct msg){.kind = MSG_IO_WRITE,
                        .region = (uint8_t)value,
                        .io = {.value = value,
                               .offset_bytes = check_of(value, sender),
                               .width_bytes = (uint8_t)(value >> 8)}};
}

/* Send the sender's next message, as a vCPU does. */
static void send_next(struct sender *s)
{
    const struct msg msg = message(s->index, s->sent);

    while (!lane_try_send(s->lane, &msg)) {
        (void)!lane_wait_for_room(s->lane);
    }
    s->sent++;
}

/* Each ticket is given once, and each sender gets higher and higher ones (they do not wrap here).
 */
static bool ticket_is_right(struct world *w, unsigned sender, const struct msg *msg)
{
    uint64_t *kept = &w->tickets[msg->ticket % TICKETS_KEPT];
    const bool given_before = *kept == (uint64_t)msg->ticket + 1;
    const bool higher = w->expected[sender] == 0 || msg->ticket > w->last_ticket[sender];

    *kept = (uint64_t)msg->ticket + 1;
    w->last_ticket[sender] = msg->ticket;
    return higher && !given_before;
}

static void record(struct world *w, const struct msg *msg)
{
    const unsigned sender = (unsigned)msg->from - FIRST_ID;
    const struct msg right = message(sender, msg->io.value);
    const bool whole = sender < SENDERS && msg->kind == right.kind && msg->region == right.region &&
                       msg->io.offset_bytes == right.io.offset_bytes &&
                       msg->io.width_bytes == right.io.width_bytes;

    if (!whole || msg->io.value != w->expected[sender] || !ticket_is_right(w, sender, msg)) {
        if (w->wrong++ == 0) {
            w->first_wrong = *msg;
        }
    }
    if (sender < SENDERS) {
        w->expected[sender] = msg->io.value + 1;
    }
    w->taken++;
}

static void *take_all(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    store(&w->receiver_tid, gettid());
    while (w->taken < w->to_take) {
        while (mailbox_take(w->mailbox, &msg)) {
            record(w, &msg);
        }
        store(&w->seen, w->taken);
        if (w->taken < w->to_take) {
            (void)!mailbox_wait(w->mailbox, w->spins);
        }
    }
    return NULL;
}

static void *send_all(void *arg)
{
    struct sender *s = arg;

    while (s->sent < s->to_send) {
        send_next(s);
    }
    return NULL;
}

static void start(pthread_t *thread, void *(*body)(void *), void *arg)
{
    assert_int_equal(pthread_create(thread, NULL, body, arg), 0);
}

static void start_senders(struct world *w, void *(*body)(void *))
{
    for (unsigned i = 0; i < SENDERS; i++) {
        start(&w->senders[i].thread, body, &w->senders[i]);
    }
}

static void join_senders(struct world *w)
{
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(pthread_join(w->senders[i].thread, NULL), 0);
    }
}

/* Each of the first `senders` sends so many more, and the receiver takes them. */
static void plan(struct world *w, unsigned senders, uint64_t each)
{
    for (unsigned i = 0; i < senders; i++) {
        w->senders[i].to_send += each;
    }
    w->to_take += senders * each;
}

/* All that was sent was taken: once each, in each sender's order, whole. */
static void assert_all_arrived(struct world *w)
{
    uint64_t sent = 0;
    uint64_t counted_out = 0;

    if (w->wrong > 0) {
        print_error("first wrong message: from %u, value %llu, ticket %u\n", w->first_wrong.from,
                    (unsigned long long)w->first_wrong.io.value, w->first_wrong.ticket);
    }
    assert_int_equal(w->wrong, 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(w->expected[i], w->senders[i].sent);
        sent += w->senders[i].sent;
        counted_out += w->senders[i].stats.messages_out;
    }
    assert_int_equal(w->taken, sent);
    assert_int_equal(w->stats.messages_in, sent);
    assert_int_equal(counted_out, sent);
    assert_true(w->stats.mailbox_high_water <= w->stats.mailbox_slots);
}

/* ---- Throughput: nothing lost, doubled, reordered or torn ------------------------------------ */

static void eight_senders_lose_nothing(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(30);
    const uint64_t each = stress_amount(100000, 100);

    watchdog_start(__func__, 200);
    w->spins = 100;
    while (stress_again(&rounds, true)) {
        plan(w, SENDERS, each);
        start(&w->receiver, take_all, w);
        start_senders(w, send_all);
        join_senders(w);
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_all_arrived(w);
    }
    print_message("%llu messages, %llu sleeps of the receiver\n", (unsigned long long)w->taken,
                  (unsigned long long)w->stats.wakeups);
}

/* ---- Full, empty, asleep: in all orders, by chance ------------------------------------------- */

static void spin_for(uint64_t loops)
{
    for (volatile uint64_t i = loops; i > 0; i--) {
    }
}

static void dawdle(uint64_t *random)
{
    const uint64_t choice = stress_random(random);

    switch (choice % 8) {
    case 0:
        stress_sleep_ns(choice / 8 % 200000);
        break;
    case 1:
    case 2:
        (void)sched_yield();
        break;
    default:
        spin_for(choice / 8 % 500);
        break;
    }
}

static void *send_in_bursts(void *arg)
{
    struct sender *s = arg;

    while (s->sent < s->to_send) {
        /* Mostly single messages and short bursts; now and then more than a lane holds. */
        const uint64_t choice = stress_random(&s->random);
        uint64_t burst = choice % 16 == 0 ? 200 : 1 + choice / 16 % 4;

        while (burst-- > 0 && s->sent < s->to_send) {
            send_next(s);
        }
        dawdle(&s->random);
    }
    return NULL;
}

/* Takes a few, dawdles, drains, or goes to sleep with messages left: as it comes. */
static void *take_by_whim(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    while (w->taken < w->to_take) {
        const uint64_t choice = stress_random(&w->random);
        uint64_t most = choice % 4 == 0 ? UINT64_MAX : choice / 4 % 40;

        while (most-- > 0 && mailbox_take(w->mailbox, &msg)) {
            record(w, &msg);
        }
        if (choice % 3 == 0) {
            dawdle(&w->random);
        }
        if (w->taken < w->to_take) {
            (void)!mailbox_wait(w->mailbox, (unsigned)(choice % 5) * 10);
        }
    }
    return NULL;
}

static uint64_t times_full(const struct world *w)
{
    uint64_t full = 0;

    for (unsigned i = 0; i < SENDERS; i++) {
        full += w->senders[i].stats.waits_for_space;
    }
    return full;
}

static uint64_t sleeps_for_room(const struct world *w)
{
    uint64_t slept = 0;

    for (unsigned i = 0; i < SENDERS; i++) {
        slept += w->senders[i].stats.wakeups;
    }
    return slept;
}

static void full_empty_and_asleep_by_chance(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(10);
    const uint64_t each = stress_amount(15000, 150);

    watchdog_start(__func__, 200);
    while (stress_again(&rounds, w->stats.wakeups > 0 && sleeps_for_room(w) > 0)) {
        plan(w, SENDERS, each);
        start(&w->receiver, take_by_whim, w);
        start_senders(w, send_in_bursts);
        join_senders(w);
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_all_arrived(w);
    }
    print_message("%llu messages, %llu sleeps, %llu times full, %llu sleeps for room\n",
                  (unsigned long long)w->taken, (unsigned long long)w->stats.wakeups,
                  (unsigned long long)times_full(w), (unsigned long long)sleeps_for_room(w));
    /* Who sleeps for room was told that its lane is full, and was woken by a doorbell. */
    if (sleeps_for_room(w) > 0) {
        assert_true(times_full(w) > 0);
        assert_true(w->stats.doorbells_rung > 0);
        assert_int_equal(w->stats.mailbox_high_water, w->stats.mailbox_slots);
    }
    stress_came_about("the receiver sleeps", w->stats.wakeups, 1);
    stress_came_about("a sender sleeps for room", sleeps_for_room(w), 1);
}

/* ---- Order across senders -------------------------------------------------------------------- */

static struct {
    sem_t turn[SENDERS];
    uint64_t count; /* belongs to whose turn it is */
    uint64_t end;
} token;

/*
 * Whose turn it is sends a few messages, numbered through over all senders, and passes the turn on.
 * What the receiver takes must come in the order of these numbers.
 */
static void *send_in_turn(void *arg)
{
    struct sender *s = arg;
    struct world *w = s->world;

    for (;;) {
        while (sem_wait(&token.turn[s->index]) != 0) {
        }
        if (load(&w->stop)) {
            return NULL;
        }
        for (uint64_t few = 1 + stress_random(&s->random) % 3; few > 0; few--) {
            const struct msg msg = message(s->index, token.count);

            while (!lane_try_send(s->lane, &msg)) {
                (void)!lane_wait_for_room(s->lane);
            }
            s->sent++;
            token.count++;
        }
        if (token.count >= token.end) {
            store(&w->stop, true);
            for (unsigned i = 0; i < SENDERS; i++) {
                (void)sem_post(&token.turn[i]);
            }
            return NULL;
        }
        (void)sem_post(&token.turn[stress_random(&s->random) % SENDERS]);
    }
}

/*
 * Most of its time it looks into one lane after the other, so that it is often preempted between
 * two: then a message can be missed in the one and a later one be found in the other.
 */
static void *take_in_order(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    while (!load(&w->stop) || w->taken < token.count) {
        for (unsigned looks = 0; looks < 20000; looks++) {
            while (mailbox_take(w->mailbox, &msg)) {
                if (msg.io.value != w->order && w->wrong++ == 0) {
                    w->first_wrong = msg;
                }
                w->order = msg.io.value + 1;
                w->taken++;
            }
        }
        if (!load(&w->stop)) {
            (void)!mailbox_wait(w->mailbox, 0);
        }
    }
    return NULL;
}

static void one_round_of_the_token(struct world *w, uint64_t messages)
{
    const uint64_t one = 1;
    uint64_t sent = 0;

    token.end = token.count + messages;
    store(&w->stop, false);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(sem_init(&token.turn[i], 0, i == 0 ? 1 : 0), 0);
    }
    start(&w->receiver, take_in_order, w);
    start_senders(w, send_in_turn);
    join_senders(w);
    /* It may have taken all and gone to sleep just before it was over. */
    assert_int_equal(write(mailbox_doorbell_fd(w->mailbox), &one, sizeof(one)), sizeof(one));
    assert_int_equal(pthread_join(w->receiver, NULL), 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        assert_int_equal(sem_destroy(&token.turn[i]), 0);
        sent += w->senders[i].sent;
    }
    if (w->wrong > 0) {
        print_error("first out of order: from %u, value %llu\n", w->first_wrong.from,
                    (unsigned long long)w->first_wrong.io.value);
    }
    assert_int_equal(w->wrong, 0);
    assert_int_equal(w->taken, sent);
    assert_int_equal(w->order, token.count);
}

static void a_token_gives_order(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(20);
    const uint64_t messages = stress_amount(75000, 150);

    watchdog_start(__func__, 200);
    token.count = 0;
    while (stress_again(&rounds, true)) {
        one_round_of_the_token(w, messages);
    }
    print_message("%llu messages\n", (unsigned long long)w->taken);
}

/* ---- A sender that is stopped in the middle -------------------------------------------------- */

#define VICTIM 0
#define OTHERS 3

static int thaw_pipe[2];
static unsigned frozen;                      /* atomic */
static volatile sig_atomic_t victim_in_send; /* the victim's, and its handler's */
static unsigned frozen_in_send;              /* atomic */

/* The victim stops here, at whatever instruction it was, until it is let go. */
static void freeze(int signal)
{
    const int saved = errno;
    char byte;

    (void)signal;
    if (victim_in_send) {
        __atomic_fetch_add(&frozen_in_send, 1, __ATOMIC_RELAXED);
    }
    store(&frozen, 1);
    while (read(thaw_pipe[0], &byte, 1) != 1) {
    }
    errno = saved;
}

static void *send_until_stopped(void *arg)
{
    struct sender *s = arg;
    struct world *w = s->world;

    while (!load(&w->stop)) {
        const struct msg msg = message(s->index, s->sent);

        victim_in_send = 1;
        const bool sent = lane_try_send(s->lane, &msg);
        victim_in_send = 0;
        if (sent) {
            s->sent++;
        } else {
            (void)!lane_wait_for_room(s->lane);
        }
    }
    return NULL;
}

/* Rounds: semaphores on which the others wait for their turn to send some. */
static sem_t round_begins[1 + OTHERS];
static sem_t round_over;
#define ROUND_MESSAGES 20

static void *send_each_round(void *arg)
{
    struct sender *s = arg;
    struct world *w = s->world;

    for (;;) {
        while (sem_wait(&round_begins[s->index]) != 0) {
        }
        if (load(&w->stop)) {
            return NULL;
        }
        for (unsigned i = 0; i < ROUND_MESSAGES; i++) {
            send_next(s);
            if (stress_random(&s->random) % 4 == 0) {
                stress_sleep_ns(1000); /* let the receiver go to sleep */
            }
        }
        (void)sem_post(&round_over);
    }
}

static uint64_t taken_from_others(struct world *w)
{
    uint64_t taken = 0;

    for (unsigned i = VICTIM + 1; i <= OTHERS; i++) {
        taken += load(&w->expected[i]);
    }
    return taken;
}

static void *take_until_stopped(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    while (!load(&w->stop)) {
        while (mailbox_take(w->mailbox, &msg)) {
            const unsigned sender = (unsigned)msg.from - FIRST_ID;

            if ((sender >= SENDERS || msg.io.value != w->expected[sender]) && w->wrong++ == 0) {
                w->first_wrong = msg;
            }
            w->taken++;
            if (sender < SENDERS) {
                store(&w->expected[sender], msg.io.value + 1);
            }
        }
        if (!load(&w->stop)) {
            (void)!mailbox_wait(w->mailbox, 0);
        }
    }
    return NULL;
}

/* The victim is frozen; the others send; all that they send arrives. Rounds count from 1. */
static void one_frozen_round(struct world *w, uint64_t round)
{
    const char byte = 0;

    stress_sleep_ns(stress_random(&w->random) % 50000);
    assert_int_equal(pthread_kill(w->senders[VICTIM].thread, SIGUSR1), 0);
    while (load(&frozen) == 0) {
        (void)sched_yield();
    }
    for (unsigned i = VICTIM + 1; i <= OTHERS; i++) {
        assert_int_equal(sem_post(&round_begins[i]), 0);
    }
    for (unsigned i = VICTIM + 1; i <= OTHERS; i++) {
        while (sem_wait(&round_over) != 0) {
        }
    }
    while (taken_from_others(w) < round * OTHERS * ROUND_MESSAGES) {
        (void)sched_yield(); /* if it does not come to that, the watchdog ends it */
    }
    store(&frozen, 0);
    assert_int_equal(write(thaw_pipe[1], &byte, 1), 1);
}

static void a_frozen_sender_delays_nobody(void **state)
{
    struct world *w = *state;
    const struct sigaction action = {.sa_handler = freeze, .sa_flags = SA_RESTART};
    struct stress_rounds rounds = stress_rounds(stress_amount(3000, 30));
    /* TSan runs signal handlers only where it finds it convenient. */
    const uint64_t wanted = stress_tsan() ? 0 : rounds.planned / 100;
    const uint64_t one = 1;

    watchdog_start(__func__, 200);
    assert_int_equal(pipe2(thaw_pipe, O_CLOEXEC), 0);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    assert_int_equal(sem_init(&round_over, 0, 0), 0);
    start(&w->receiver, take_until_stopped, w);
    start(&w->senders[VICTIM].thread, send_until_stopped, &w->senders[VICTIM]);
    for (unsigned i = VICTIM + 1; i <= OTHERS; i++) {
        assert_int_equal(sem_init(&round_begins[i], 0, 0), 0);
        start(&w->senders[i].thread, send_each_round, &w->senders[i]);
    }
    while (stress_again(&rounds, load(&frozen_in_send) >= wanted)) {
        one_frozen_round(w, rounds.done);
    }
    store(&w->stop, true);
    for (unsigned i = VICTIM + 1; i <= OTHERS; i++) {
        assert_int_equal(sem_post(&round_begins[i]), 0);
    }
    assert_int_equal(write(mailbox_doorbell_fd(w->mailbox), &one, sizeof(one)), sizeof(one));
    assert_int_equal(write(w->senders[VICTIM].doorbell_fd, &one, sizeof(one)), sizeof(one));
    assert_int_equal(pthread_join(w->receiver, NULL), 0);
    /* The victim may need room for its last message: take what is left in its stead. */
    for (struct msg msg; mailbox_take(w->mailbox, &msg);) {
    }
    for (unsigned i = 0; i <= OTHERS; i++) {
        assert_int_equal(pthread_join(w->senders[i].thread, NULL), 0);
    }
    (void)close(thaw_pipe[0]);
    (void)close(thaw_pipe[1]);
    assert_int_equal(w->wrong, 0);
    print_message("frozen %llu times, %u of them inside of lane_try_send(); %llu messages\n",
                  (unsigned long long)rounds.done, frozen_in_send, (unsigned long long)w->taken);
    stress_came_about("the victim is frozen inside of lane_try_send()", frozen_in_send, wanted);
}

/* ---- Wake-ups -------------------------------------------------------------------------------- */

static void await_taken(struct sender *s)
{
    uint64_t looks = 0;

    while (load(&s->world->seen) < s->sent) {
        if (++looks % 1000 == 0) {
            (void)sched_yield();
        }
    }
}

/* Sends one message, waits until it was taken, dawdles a little, sends the next. */
static void *send_to_sleeper(void *arg)
{
    struct sender *s = arg;

    while (s->sent < s->to_send) {
        send_next(s);
        await_taken(s);
        spin_for(stress_random(&s->random) % 3000);
    }
    return NULL;
}

static void no_wakeup_of_the_receiver_is_lost(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(20);
    const uint64_t messages = stress_amount(20000, 100);
    const uint64_t wanted = rounds.planned * messages / 4;

    watchdog_start(__func__, 200);
    w->spins = 0;
    while (stress_again(&rounds, w->stats.wakeups >= wanted)) {
        plan(w, 1, messages);
        start(&w->receiver, take_all, w);
        start(&w->senders[0].thread, send_to_sleeper, &w->senders[0]);
        assert_int_equal(pthread_join(w->senders[0].thread, NULL), 0);
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_all_arrived(w);
    }
    print_message("%llu messages, %llu sleeps\n", (unsigned long long)w->taken,
                  (unsigned long long)w->stats.wakeups);
    stress_came_about("the receiver sleeps", w->stats.wakeups, wanted);
}

/*
 * One message just when the receiver goes to sleep, then one while it looks; each is sent when the
 * one before was taken: whoever loses a wake-up gets no second one. The moment of the first is
 * tuned: earlier if the receiver slept already and had to be rung, later if not. The second one is
 * for the caches: the word `asleep` was seen to be 0 right before, so that both sides have both
 * words. Then a load takes no time, and a store that no fence waits for takes long.
 */
static void *send_at_the_worst_moment(void *arg)
{
    struct sender *s = arg;
    const uint64_t end_ns = clock_monotonic_ns() + stress_amount(NS_PER_SECOND, NS_PER_SECOND / 5);
    uint64_t delay = 100;

    while (s->sent < s->to_send && clock_monotonic_ns() < end_ns) {
        const uint64_t rung_before = s->stats.doorbells_rung;

        spin_for(delay + stress_random(&s->random) % 32);
        send_next(s);
        if (s->stats.doorbells_rung > rung_before) {
            delay -= delay > 0;
        } else {
            delay += delay < 3000;
        }
        await_taken(s);
        send_next(s);
        await_taken(s);
    }
    store(&s->world->stop, true);
    return NULL;
}

static void *take_and_go_to_sleep(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    while (!load(&w->stop)) {
        (void)!mailbox_wait(w->mailbox, 0);
        if (!mailbox_take(w->mailbox, &msg)) {
            continue;
        }
        record(w, &msg);
        store(&w->seen, w->taken);
        for (unsigned looks = 0; looks < 5000; looks++) {
            if (mailbox_take(w->mailbox, &msg)) {
                record(w, &msg);
                store(&w->seen, w->taken);
                break;
            }
        }
        spin_for(40);
    }
    return NULL;
}

static void no_wakeup_is_lost_at_the_worst_moment(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(6);
    const uint64_t one = 1;

    watchdog_start(__func__, 100);
    while (stress_again(&rounds, w->senders[0].stats.doorbells_rung >= 100)) {
        store(&w->stop, false);
        plan(w, 1, stress_amount(400000, 100));
        start(&w->receiver, take_and_go_to_sleep, w);
        start(&w->senders[0].thread, send_at_the_worst_moment, &w->senders[0]);
        assert_int_equal(pthread_join(w->senders[0].thread, NULL), 0);
        assert_int_equal(write(mailbox_doorbell_fd(w->mailbox), &one, sizeof(one)), sizeof(one));
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_all_arrived(w);
    }
    print_message("%llu messages, %llu sleeps, rung %llu times\n", (unsigned long long)w->taken,
                  (unsigned long long)w->stats.wakeups,
                  (unsigned long long)w->senders[0].stats.doorbells_rung);
    stress_came_about("the sender finds the receiver asleep", w->senders[0].stats.doorbells_rung,
                      100);
}

#define LONGEST_DELAY 1000000

/*
 * The receiver dawdles, so that the lane fills up and its sender sleeps; then it takes a few. The time is
 * tuned: shorter if the sender slept already and had to be rung, longer if not. So it comes to both,
 * and to what lies between, whatever a loop and a sleep cost on this machine.
 */
static void *take_slowly(void *arg)
{
    struct world *w = arg;
    struct msg msg;
    uint64_t delay = 1000;

    while (w->taken < w->to_take) {
        const uint64_t rung_before = w->stats.doorbells_rung;

        for (unsigned few = 1 + (unsigned)(stress_random(&w->random) % 64); few > 0; few--) {
            if (!mailbox_take(w->mailbox, &msg)) {
                break;
            }
            record(w, &msg);
        }
        if (w->stats.doorbells_rung > rung_before) {
            delay -= delay / 8;
        } else if (delay < LONGEST_DELAY) {
            delay += delay / 16 + 1;
        }
        spin_for(stress_random(&w->random) % (2 * delay + 1));
        if (w->taken < w->to_take) {
            (void)!mailbox_wait(w->mailbox, 0);
        }
    }
    return NULL;
}

static void no_wakeup_of_a_sender_is_lost(void **state)
{
    struct world *w = *state;
    const struct actor_stats *stats = &w->senders[0].stats;
    struct stress_rounds rounds = stress_rounds(40);
    const uint64_t messages = stress_amount(200000, 500);
    const uint64_t wanted = rounds.planned * messages / 200;

    watchdog_start(__func__, 200);
    while (stress_again(&rounds, stats->wakeups >= wanted)) {
        plan(w, 1, messages);
        start(&w->receiver, take_slowly, w);
        start(&w->senders[0].thread, send_all, &w->senders[0]);
        assert_int_equal(pthread_join(w->senders[0].thread, NULL), 0);
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_all_arrived(w);
    }
    print_message("%llu messages, %llu times full, %llu sleeps for room\n",
                  (unsigned long long)w->taken, (unsigned long long)stats->waits_for_space,
                  (unsigned long long)stats->wakeups);
    stress_came_about("the sender sleeps for room", stats->wakeups, wanted);
}

/* ---- Quiet ----------------------------------------------------------------------------------- */

static uint64_t cpu_ns_of(pthread_t thread)
{
    clockid_t clock;
    struct timespec used;

    assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (uint64_t)used.tv_sec * NS_PER_SECOND + (uint64_t)used.tv_nsec;
}

static void *send_and_note_thread(void *arg)
{
    struct sender *s = arg;

    store(&s->tid, gettid());
    return send_all(arg);
}

#define QUIET_THREADS 2
#define QUIET_ATTEMPTS 20

/* For two seconds, nothing at all. */
static bool nothing_happens(const pthread_t *threads, const pid_t *tids)
{
    struct thread_view before[QUIET_THREADS] = {0};
    struct thread_view after[QUIET_THREADS] = {0};
    uint64_t cpu_ns[QUIET_THREADS];
    bool nothing = true;

    for (unsigned i = 0; i < QUIET_THREADS; i++) {
        assert_true(thread_look(getpid(), tids[i], &before[i]));
        cpu_ns[i] = cpu_ns_of(threads[i]);
    }
    stress_sleep_ns(2 * NS_PER_SECOND);
    for (unsigned i = 0; i < QUIET_THREADS; i++) {
        assert_true(thread_look(getpid(), tids[i], &after[i]));
        nothing = nothing && cpu_ns_of(threads[i]) == cpu_ns[i] && before[i].state == 'S' &&
                  after[i].state == 'S' && after[i].switches == before[i].switches;
    }
    return nothing;
}

/*
 * A sleeping receiver, and a sender that waits for room elsewhere cost nothing. A loaded machine may let them
 * wait for their last steps to that; but one of these times they have made them.
 */
static void quiet_costs_nothing(void **state)
{
    struct world *w = *state;
    struct actor_stats full_stats = {0};
    struct mailbox *full = NULL;
    struct sender *s = &w->senders[1];
    unsigned attempts = 1;
    struct msg msg;

    watchdog_start(__func__, 60);
    assert_int_equal(mailbox_new(1, &full_stats, &full), 0);
    s->lane = mailbox_lane(full, 0, FIRST_ID + 1, s->doorbell_fd, &s->stats);
    s->to_send = LANE_SLOTS + 1;
    w->to_take = 1001;
    w->spins = 100;
    start(&w->receiver, take_all, w);
    start(&s->thread, send_and_note_thread, s);
    while (w->senders[0].sent < 1000) { /* it had something to do before */
        send_next(&w->senders[0]);
    }
    while (load(&w->seen) < 1000 || load(&w->receiver_tid) == 0 || load(&s->tid) == 0) {
        (void)sched_yield();
    }
    thread_await_sleep(getpid(), w->receiver_tid);
    thread_await_sleep(getpid(), s->tid);

    const pid_t tids[QUIET_THREADS] = {w->receiver_tid, s->tid};
    const pthread_t threads[QUIET_THREADS] = {w->receiver, s->thread};
    while (!nothing_happens(threads, tids) && attempts < QUIET_ATTEMPTS) {
        attempts++;
    }
    assert_true(attempts < QUIET_ATTEMPTS);
    send_next(&w->senders[0]); /* and they were not dead */
    assert_int_equal(pthread_join(w->receiver, NULL), 0);
    for (unsigned i = 0; i < LANE_SLOTS; i++) {
        assert_true(mailbox_take(full, &msg));
    }
    assert_int_equal(pthread_join(s->thread, NULL), 0);
    assert_true(mailbox_take(full, &msg));
    assert_int_equal(msg.io.value, LANE_SLOTS);
    mailbox_free(full);
}

/* ---- Signals --------------------------------------------------------------------------------- */

static void kick(int signal)
{
    (void)signal;
}

/* Fill the lane, and wait for room until a signal comes. */
static void *wait_for_room_once(void *arg)
{
    struct sender *s = arg;
    struct msg msg = message(s->index, s->sent);

    store(&s->tid, gettid());
    while (lane_try_send(s->lane, &msg)) {
        s->sent++;
        msg = message(s->index, s->sent);
    }
    s->result = lane_wait_for_room(s->lane);
    return NULL;
}

static void a_signal_interrupts_waiting_for_room(void **state)
{
    struct world *w = *state;
    struct sender *s = &w->senders[0];
    const struct sigaction action = {.sa_handler = kick}; /* no SA_RESTART: as vCPUs have it */
    struct stress_rounds rounds = stress_rounds(stress_amount(2000, 20));
    uint64_t pending = 0;

    watchdog_start(__func__, 100);
    assert_int_equal(sigaction(SIGUSR1, &action, NULL), 0);
    while (stress_again(&rounds, true)) {
        s->tid = 0;
        s->result = 1;
        start(&s->thread, wait_for_room_once, s);
        while (load(&s->tid) == 0) {
            (void)sched_yield();
        }
        thread_await_sleep(getpid(), s->tid);
        assert_int_equal(pthread_kill(s->thread, SIGUSR1), 0);
        assert_int_equal(pthread_join(s->thread, NULL), 0);
        assert_int_equal(s->result, -EINTR);
        /* What was refused was not sent; a few are taken, so that the next round starts elsewhere.
         */
        for (uint64_t few = 1 + stress_random(&w->random) % LANE_SLOTS; few > 0; few--) {
            struct msg msg;

            assert_true(mailbox_take(w->mailbox, &msg));
            record(w, &msg);
        }
    }
    for (struct msg msg; mailbox_take(w->mailbox, &msg); pending++) {
        record(w, &msg);
    }
    assert_true(pending < LANE_SLOTS);
    assert_all_arrived(w);
    /* Nobody thinks that it still waits: no ring is left behind that nobody asked for. */
    assert_int_equal(s->stats.wakeups, rounds.done);
}

/* ---- Handing over memory --------------------------------------------------------------------- */

#define BUFFER_BYTES 256

static bool touch_after_send; /* the mutant */

/* Each message carries a pointer to memory that belongs to the receiver from then on. */
static void *send_buffers(void *arg)
{
    struct sender *s = arg;

    while (s->sent < s->to_send) {
        uint8_t *buffer = malloc(BUFFER_BYTES);
        const struct msg msg = {.kind = MSG_IO_WRITE, .io = {.value = (uintptr_t)buffer}};

        if (buffer == NULL) {
            abort();
        }
        memset(buffer, (int)(s->sent & 0xff), BUFFER_BYTES);
        while (!lane_try_send(s->lane, &msg)) {
            (void)!lane_wait_for_room(s->lane);
        }
        if (touch_after_send) {
            *(volatile uint8_t *)buffer = 0; // wrong, on purpose: it is not ours any more
        }
        s->sent++;
    }
    return NULL;
}

static void *take_buffers(void *arg)
{
    struct world *w = arg;
    struct msg msg;

    while (w->taken < w->to_take) {
        while (mailbox_take(w->mailbox, &msg)) {
            const unsigned sender = (unsigned)msg.from - FIRST_ID;
            uint8_t *buffer = (uint8_t *)(uintptr_t)msg.io.value;

            for (unsigned i = 0; i < BUFFER_BYTES; i++) {
                w->wrong += buffer[i] != (uint8_t)w->expected[sender];
            }
            free(buffer);
            w->expected[sender]++;
            w->taken++;
        }
        if (w->taken < w->to_take) {
            (void)!mailbox_wait(w->mailbox, 0);
        }
    }
    return NULL;
}

static void what_is_sent_belongs_to_the_receiver(void **state)
{
    struct world *w = *state;
    struct stress_rounds rounds = stress_rounds(10);
    const uint64_t each = stress_amount(10000, 50);

    watchdog_start(__func__, 100);
    while (stress_again(&rounds, true)) {
        plan(w, SENDERS, each);
        start(&w->receiver, take_buffers, w);
        start_senders(w, send_buffers);
        join_senders(w);
        assert_int_equal(pthread_join(w->receiver, NULL), 0);
        assert_int_equal(w->wrong, 0);
        assert_int_equal(w->taken, w->to_take);
    }
}

/* The same with a sender that touches what it has sent, in a process of its own: TSan must see it.
 */
static void tsan_sees_a_touch_after_send(void **state)
{
    char *const argv[] = {(char *)(uintptr_t) "/proc/self/exe",
                          (char *)(uintptr_t) "--touch-after-send", NULL};
    char output[4096] = "";
    size_t filled = 0;
    int pipe_fds[2];
    int status = 0;

    (void)state;
    if (!stress_tsan()) {
        print_message("skipped: only the thread sanitizer sees it\n");
        skip();
    }
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(pipe_fds[1], STDOUT_FILENO);
        (void)dup2(pipe_fds[1], STDERR_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
    }
    (void)close(pipe_fds[1]);
    for (;;) {
        char piece[4096];
        const ssize_t got = read(pipe_fds[0], piece, sizeof(piece));

        if (got <= 0) {
            break;
        }
        const size_t room = sizeof(output) - 1 - filled;
        const size_t keep = (size_t)got < room ? (size_t)got : room;
        memcpy(output + filled, piece, keep);
        filled += keep;
    }
    (void)close(pipe_fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_not_equal(WEXITSTATUS(status), 0);
    assert_non_null(strstr(output, "ThreadSanitizer: data race"));
    assert_non_null(strstr(output, "send_buffers"));
    assert_non_null(strstr(output, "take_buffers"));
}

/* ------------------------------------------------------------------------------------------------
 */

#define stress_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        stress_test(eight_senders_lose_nothing),
        stress_test(full_empty_and_asleep_by_chance),
        stress_test(a_token_gives_order),
        stress_test(a_frozen_sender_delays_nobody),
        stress_test(no_wakeup_of_the_receiver_is_lost),
        stress_test(no_wakeup_is_lost_at_the_worst_moment),
        stress_test(no_wakeup_of_a_sender_is_lost),
        stress_test(quiet_costs_nothing),
        stress_test(a_signal_interrupts_waiting_for_room),
        stress_test(what_is_sent_belongs_to_the_receiver),
        cmocka_unit_test(tsan_sees_a_touch_after_send),
    };
    const struct CMUnitTest mutant[] = {stress_test(what_is_sent_belongs_to_the_receiver)};

    stress_choose_seed();
    if (argc > 1 && strcmp(argv[1], "--touch-after-send") == 0) {
        touch_after_send = true;
        return cmocka_run_group_tests(mutant, NULL, NULL);
    }
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
