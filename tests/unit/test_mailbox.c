/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_mailbox.c: what a mailbox does, one step at a time on one thread.
 *
 * What only threads can show is in tests/stress/. White box: it includes mailbox.c, to start
 * counters just before they wrap around, and to stand in for the other side of a handshake.
 */
#include "mailbox/mailbox.c" // NOLINT(bugprone-suspicious-include): on purpose, see above

#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <cmocka.h>

#define SENDERS 3

struct fixture {
    struct actor_stats receiver_stats;
    struct actor_stats sender_stats[SENDERS];
    int sender_doorbells[SENDERS];
    struct mailbox *mailbox;
    struct lane *lanes[SENDERS];
};

static int setup(void **state)
{
    struct fixture *f = aligned_alloc(CACHE_LINE_BYTES, sizeof(*f));

    assert_non_null(f);
    memset(f, 0, sizeof(*f));
    assert_int_equal(mailbox_new(SENDERS, &f->receiver_stats, &f->mailbox), 0);
    for (unsigned i = 0; i < SENDERS; i++) {
        f->sender_doorbells[i] = eventfd(0, EFD_CLOEXEC);
        assert_true(f->sender_doorbells[i] >= 0);
        f->lanes[i] = mailbox_lane(f->mailbox, i, (actor_id)(10 + i), f->sender_doorbells[i],
                                   &f->sender_stats[i]);
    }
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    for (unsigned i = 0; i < SENDERS; i++) {
        (void)close(f->sender_doorbells[i]);
    }
    mailbox_free(f->mailbox);
    free(f);
    return 0;
}

static bool send_value(struct lane *lane, uint64_t value)
{
    const struct msg msg = {.kind = MSG_IO_WRITE, .region = 3, .io = {.value = value}};

    return lane_try_send(lane, &msg);
}

/* The next message must be this one. */
static void expect(struct fixture *f, unsigned sender, uint64_t value)
{
    struct msg msg;

    assert_true(mailbox_take(f->mailbox, &msg));
    assert_int_equal(msg.from, 10 + sender);
    assert_int_equal(msg.io.value, value);
}

static void expect_nothing(struct fixture *f)
{
    struct msg msg = {.kind = MSG_READY};

    assert_false(mailbox_take(f->mailbox, &msg));
    assert_int_equal(msg.kind, MSG_READY);
}

static bool is_rung(int doorbell_fd)
{
    struct pollfd fd = {.fd = doorbell_fd, .events = POLLIN};

    return poll(&fd, 1, 0) == 1;
}

/* Fill the lane; values 0, 1, 2, ... */
static void fill(struct lane *lane)
{
    for (uint64_t i = 0; i < LANE_SLOTS; i++) {
        assert_true(send_value(lane, i));
    }
    assert_false(send_value(lane, 999));
}

/* ---- Messages -------------------------------------------------------------------------------- */

static void a_new_mailbox_is_empty(void **state)
{
    struct fixture *f = *state;

    expect_nothing(f);
    expect_nothing(f);
    assert_int_equal(f->receiver_stats.messages_in, 0);
    assert_int_equal(f->receiver_stats.mailbox_slots, LANE_SLOTS);
    assert_false(is_rung(mailbox_doorbell_fd(f->mailbox)));
}

static void a_message_arrives_as_it_was_sent(void **state)
{
    struct fixture *f = *state;
    const struct msg sent = {
        .kind = MSG_IO_WRITE,
        .from = 99,
        .region = 7,
        .ticket = 12345,
        .io = {.value = 0x1122334455667788, .offset_bytes = 5, .width_bytes = 8}};
    const struct msg before = sent;
    struct msg got;

    assert_true(lane_try_send(f->lanes[1], &sent));
    assert_memory_equal(&sent, &before, sizeof(sent));
    assert_true(mailbox_take(f->mailbox, &got));
    assert_int_equal(got.kind, MSG_IO_WRITE);
    assert_int_equal(got.region, 7);
    assert_int_equal(got.io.value, 0x1122334455667788);
    assert_int_equal(got.io.offset_bytes, 5);
    assert_int_equal(got.io.width_bytes, 8);
    assert_int_equal(got.from, 11); /* the lane's sender, not what the message claimed */
    assert_int_equal(got.ticket, 0);
    expect_nothing(f);
}

static void lanes_are_served_in_the_order_of_sending(void **state)
{
    struct fixture *f = *state;
    static const unsigned order[] = {2, 0, 0, 1, 2, 1, 1, 0, 2, 2, 2, 0, 1};

    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        assert_true(send_value(f->lanes[order[i]], i));
    }
    for (unsigned i = 0; i < ARRAY_SIZE(order); i++) {
        expect(f, order[i], i);
    }
    expect_nothing(f);
}

/* A message that comes while an older one's head was already fetched. */
static void order_holds_between_takes(void **state)
{
    struct fixture *f = *state;

    assert_true(send_value(f->lanes[0], 0));
    assert_true(send_value(f->lanes[2], 1));
    expect(f, 0, 0);                         /* now lane 2's head is out of its ring */
    assert_true(send_value(f->lanes[0], 2)); /* and lane 0 is filled again, later */
    assert_true(send_value(f->lanes[1], 3));
    expect(f, 2, 1);
    expect(f, 0, 2);
    expect(f, 1, 3);
    expect_nothing(f);
}

static void tickets_wrap_around(void **state)
{
    struct fixture *f = *state;

    f->mailbox->next_ticket = UINT32_MAX - 2;
    for (unsigned i = 0; i < 8; i++) {
        assert_true(send_value(f->lanes[(SENDERS - 1) - i % SENDERS], i));
    }
    assert_int_equal(f->mailbox->next_ticket, 5);
    for (unsigned i = 0; i < 8; i++) {
        expect(f, (SENDERS - 1) - i % SENDERS, i);
    }
    assert_true(ticket_before(UINT32_MAX, 0));
    assert_false(ticket_before(0, UINT32_MAX));
    assert_false(ticket_before(7, 7));
    assert_true(ticket_before(0, INT32_MAX));
}

/* Somebody drew tickets and was frozen: they never come, and nobody waits for them. */
static void unused_tickets_hold_up_nobody(void **state)
{
    struct fixture *f = *state;

    assert_true(send_value(f->lanes[0], 1));
    f->mailbox->next_ticket += 1000;
    assert_true(send_value(f->lanes[1], 2));
    f->mailbox->next_ticket += 1;
    assert_true(send_value(f->lanes[0], 3));
    expect(f, 0, 1);
    expect(f, 1, 2);
    expect(f, 0, 3);
}

/* A flood in one lane does not keep a message in another one waiting longer than its turn. */
static void nobody_starves(void **state)
{
    struct fixture *f = *state;

    for (uint64_t i = 0; i < 10; i++) {
        assert_true(send_value(f->lanes[0], i));
    }
    assert_true(send_value(f->lanes[1], 77));
    for (uint64_t i = 10; i < LANE_SLOTS; i++) {
        assert_true(send_value(f->lanes[0], i));
    }
    for (uint64_t i = 0; i < 10; i++) {
        expect(f, 0, i);
        assert_true(send_value(f->lanes[0], LANE_SLOTS + i)); /* the flood goes on */
    }
    expect(f, 1, 77);
    expect(f, 0, 10);
}

/* ---- Full and empty -------------------------------------------------------------------------- */

static void a_lane_holds_lane_slots(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    assert_int_equal(f->sender_stats[0].messages_out, LANE_SLOTS);
    assert_true(send_value(f->lanes[1], 5)); /* others have lanes of their own */
    for (uint64_t i = 0; i < LANE_SLOTS; i++) {
        expect(f, 0, i);
    }
    expect(f, 1, 5); /* what was refused (999) left no trace */
    expect_nothing(f);
    assert_int_equal(f->receiver_stats.messages_in, LANE_SLOTS + 1);
}

static void one_taken_makes_room_for_one(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    for (uint64_t i = 0; i < 3 * LANE_RING_SLOTS; i++) {
        expect(f, 0, i);
        assert_true(send_value(f->lanes[0], LANE_SLOTS + i));
        assert_false(send_value(f->lanes[0], 999));
    }
}

static void ring_counters_wrap_around(void **state)
{
    struct fixture *f = *state;
    ck_ring_t *ring = &f->lanes[0]->ring;
    uint64_t sent = 0;
    uint64_t taken = 0;

    ring->c_head = ring->p_tail = UINT_MAX - 10;
    for (unsigned round = 0; round < 5; round++) {
        while (send_value(f->lanes[0], sent)) {
            sent++;
        }
        assert_int_equal(sent - taken, LANE_SLOTS);
        while (taken < sent) {
            expect(f, 0, taken++);
        }
        expect_nothing(f);
    }
    assert_true(ring->p_tail < UINT_MAX / 2); /* it did wrap */
}

/* ---- Sleeping -------------------------------------------------------------------------------- */

static void nobody_rings_while_the_receiver_is_awake(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    assert_false(is_rung(mailbox_doorbell_fd(f->mailbox)));
    assert_int_equal(f->sender_stats[0].doorbells_rung, 0);
}

static void whoever_sends_to_a_sleeper_rings(void **state)
{
    struct fixture *f = *state;
    const int doorbell_fd = mailbox_doorbell_fd(f->mailbox);
    uint64_t rings = 0;

    assert_true(mailbox_announce_sleep(f->mailbox));
    assert_true(send_value(f->lanes[0], 0));
    assert_true(send_value(f->lanes[1], 1)); /* does not rely on the first one having rung */
    assert_int_equal(f->sender_stats[0].doorbells_rung, 1);
    assert_int_equal(f->sender_stats[1].doorbells_rung, 1);
    assert_int_equal(read(doorbell_fd, &rings, sizeof(rings)), sizeof(rings));
    assert_int_equal(rings, 2); /* they add up */
    assert_false(is_rung(doorbell_fd));
    mailbox_awake(f->mailbox, false);
    assert_true(send_value(f->lanes[0], 2));
    assert_false(is_rung(doorbell_fd));
}

static void no_sleep_with_a_message_there(void **state)
{
    struct fixture *f = *state;

    for (unsigned sender = 0; sender < SENDERS; sender++) {
        assert_true(send_value(f->lanes[sender], sender));
        assert_false(mailbox_announce_sleep(f->mailbox));
        mailbox_awake(f->mailbox, false);
        expect(f, sender, sender);
        assert_true(mailbox_announce_sleep(f->mailbox));
        mailbox_awake(f->mailbox, false);
    }
    /* A message that was taken out of its ring to see its ticket is still to be delivered. */
    assert_true(send_value(f->lanes[0], 1));
    assert_true(send_value(f->lanes[1], 2));
    expect(f, 0, 1);
    assert_int_equal(ck_ring_size(&f->lanes[1]->ring), 0);
    assert_false(mailbox_announce_sleep(f->mailbox));
    mailbox_awake(f->mailbox, false);
    expect(f, 1, 2);
}

static void awake_silences_a_doorbell_that_rang(void **state)
{
    struct fixture *f = *state;
    const int doorbell_fd = mailbox_doorbell_fd(f->mailbox);

    assert_true(mailbox_announce_sleep(f->mailbox));
    assert_true(send_value(f->lanes[0], 0));
    assert_true(is_rung(doorbell_fd));
    mailbox_awake(f->mailbox, true);
    assert_false(is_rung(doorbell_fd));
    expect(f, 0, 0);
}

static void wait_returns_at_once_when_a_message_is_there(void **state)
{
    struct fixture *f = *state;

    assert_true(send_value(f->lanes[2], 0));
    assert_int_equal(mailbox_wait(f->mailbox, 0), 0);
    assert_int_equal(mailbox_wait(f->mailbox, 10), 0);
    assert_int_equal(f->receiver_stats.wakeups, 0);
    expect(f, 2, 0);
}

/* As KVM does with an ioeventfd. */
static void the_doorbell_may_be_rung_by_others(void **state)
{
    struct fixture *f = *state;
    const uint64_t one = 1;

    assert_int_equal(write(mailbox_doorbell_fd(f->mailbox), &one, sizeof(one)), sizeof(one));
    assert_int_equal(mailbox_wait(f->mailbox, 3), 0);
    assert_int_equal(f->receiver_stats.wakeups, 1);
    assert_false(is_rung(mailbox_doorbell_fd(f->mailbox)));
    expect_nothing(f);
}

/* ---- Signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms++;
}

/* A signal every 20 ms until stopped: one that comes before the sleep began is followed by others.
 */
static void start_alarms(void)
{
    const struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART */
    const struct itimerval often = {.it_interval = {.tv_usec = 20000},
                                    .it_value = {.tv_usec = 20000}};

    alarms = 0;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    assert_int_equal(setitimer(ITIMER_REAL, &often, NULL), 0);
}

static void stop_alarms(void)
{
    const struct itimerval never = {0};

    assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
    assert_true(alarms > 0);
}

static void a_signal_interrupts_the_receiver(void **state)
{
    struct fixture *f = *state;

    start_alarms();
    assert_int_equal(mailbox_wait(f->mailbox, 0), -EINTR);
    stop_alarms();
    assert_true(send_value(f->lanes[0], 4)); /* it does not count as asleep any more */
    assert_false(is_rung(mailbox_doorbell_fd(f->mailbox)));
    expect(f, 0, 4);
}

static void a_signal_interrupts_a_sender_that_waits_for_room(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    start_alarms();
    assert_int_equal(lane_wait_for_room(f->lanes[0]), -EINTR);
    stop_alarms();
    for (uint64_t i = 0; i < LANE_SLOTS; i++) {
        expect(f, 0, i);
    }
    expect_nothing(f);
    assert_false(is_rung(f->sender_doorbells[0])); /* it does not count as waiting any more */
}

/* ---- Room ------------------------------------------------------------------------------------ */

static void room_is_found_without_sleeping(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    expect(f, 0, 0);
    assert_int_equal(lane_wait_for_room(f->lanes[0]), 0);
    assert_int_equal(f->sender_stats[0].waits_for_space, 1);
    assert_int_equal(f->sender_stats[0].wakeups, 0);
    assert_int_equal(f->lanes[0]->sender_waits, 0);
}

static void who_does_not_wait_is_not_rung(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    for (uint64_t i = 0; i < LANE_SLOTS; i++) {
        expect(f, 0, i);
    }
    expect_nothing(f);
    assert_false(is_rung(f->sender_doorbells[0]));
    assert_int_equal(f->receiver_stats.doorbells_rung, 0);
}

/* The sender that waits (we stand in for it) is rung when half of the lane is free, not before. */
static void a_waiting_sender_is_rung_at_half(void **state)
{
    struct fixture *f = *state;

    fill(f->lanes[0]);
    fill(f->lanes[1]);
    f->lanes[0]->sender_waits = 1;
    for (uint64_t i = 0; i < LANE_SLOTS / 2; i++) {
        expect(f, 0, i);
    }
    assert_false(is_rung(f->sender_doorbells[0]));
    expect(f, 0, LANE_SLOTS / 2);
    assert_true(is_rung(f->sender_doorbells[0]));
    assert_false(is_rung(f->sender_doorbells[1]));
    assert_int_equal(f->receiver_stats.doorbells_rung, 1);
    assert_int_equal(lane_wait_for_room(f->lanes[0]), 0);
}

/* However little was taken since it was last looked at: when the lane is empty the sender is rung.
 */
static void a_waiting_sender_is_rung_when_the_lane_is_empty(void **state)
{
    struct fixture *f = *state;

    assert_true(send_value(f->lanes[0], 0));
    f->lanes[0]->sender_waits = 1;
    expect(f, 0, 0);
    expect_nothing(f);
    assert_true(is_rung(f->sender_doorbells[0]));
}

/* A ring that came too late for its sleep wakes the next one for nothing: the caller looks again.
 */
static void a_stale_ring_is_harmless(void **state)
{
    struct fixture *f = *state;
    const uint64_t one = 1;

    fill(f->lanes[0]);
    assert_int_equal(write(f->sender_doorbells[0], &one, sizeof(one)), sizeof(one));
    assert_int_equal(lane_wait_for_room(f->lanes[0]), 0);
    assert_int_equal(f->sender_stats[0].wakeups, 1);
    assert_false(send_value(f->lanes[0], 999));
}

/* ---- Assembly and counters ------------------------------------------------------------------- */

static void counters_tell_what_happened(void **state)
{
    struct fixture *f = *state;

    for (uint64_t i = 0; i < 40; i++) {
        assert_true(send_value(f->lanes[2], i));
    }
    for (uint64_t i = 0; i < 7; i++) {
        assert_true(send_value(f->lanes[1], i));
    }
    for (uint64_t i = 0; i < 40; i++) {
        expect(f, 2, i);
    }
    for (uint64_t i = 0; i < 7; i++) {
        expect(f, 1, i);
    }
    assert_int_equal(f->receiver_stats.messages_in, 47);
    assert_int_equal(f->sender_stats[2].messages_out, 40);
    assert_int_equal(f->sender_stats[1].messages_out, 7);
    assert_int_equal(f->sender_stats[0].messages_out, 0);
    assert_int_equal(f->receiver_stats.mailbox_high_water, 40);
}

/* The most that waited, also when it came after some had been taken. */
static void high_water_is_seen_in_mid_flow(void **state)
{
    struct fixture *f = *state;

    assert_true(send_value(f->lanes[0], 0));
    assert_true(send_value(f->lanes[0], 1));
    expect(f, 0, 0);
    for (uint64_t i = 2; i < 32; i++) {
        assert_true(send_value(f->lanes[0], i));
    }
    expect(f, 0, 1);
    assert_int_equal(f->receiver_stats.mailbox_high_water, 31);
}

static void each_writer_has_its_cache_lines(void **state)
{
    struct fixture *f = *state;

    assert_int_equal((uintptr_t)f->mailbox % CACHE_LINE_BYTES, 0);
    assert_int_equal((uintptr_t)f->mailbox->slots % CACHE_LINE_BYTES, 0);
    assert_int_equal(sizeof(struct lane) % CACHE_LINE_BYTES, 0);
    assert_int_equal(offsetof(struct mailbox, lanes) % CACHE_LINE_BYTES, 0);
    assert_true(offsetof(struct mailbox, asleep) >=
                offsetof(struct mailbox, next_ticket) + CACHE_LINE_BYTES);
    assert_true(offsetof(struct mailbox, stats) >=
                offsetof(struct mailbox, asleep) + CACHE_LINE_BYTES);
    assert_true(offsetof(struct lane, head) >=
                offsetof(struct lane, sender_waits) + CACHE_LINE_BYTES);
    assert_true(offsetof(struct lane, slots) >=
                align_up(offsetof(struct lane, taken) + 1, CACHE_LINE_BYTES));
    assert_true(offsetof(ck_ring_t, p_tail) >= offsetof(ck_ring_t, c_head) + CACHE_LINE_BYTES);
}

static void without_file_descriptors_there_is_no_mailbox(void **state)
{
    struct actor_stats stats = {0};
    struct mailbox *untouched = (struct mailbox *)&stats;
    struct mailbox *mailbox = untouched;
    struct rlimit before;

    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    const int lowest_free_fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 0);
    assert_true(lowest_free_fd >= 0);
    assert_int_equal(close(lowest_free_fd), 0);
    const struct rlimit none = {.rlim_cur = (rlim_t)lowest_free_fd, .rlim_max = before.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    const int code = mailbox_new(4, &stats, &mailbox);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(code, -EMFILE);
    assert_ptr_equal(mailbox, untouched);
}

static void a_mailbox_without_lanes_can_be_slept_on(void **state)
{
    struct actor_stats stats = {0};
    struct mailbox *mailbox = NULL;
    struct msg msg;

    (void)state;
    assert_int_equal(mailbox_new(0, &stats, &mailbox), 0);
    assert_false(mailbox_take(mailbox, &msg));
    assert_true(mailbox_announce_sleep(mailbox));
    mailbox_awake(mailbox, false);
    mailbox_free(mailbox);
    mailbox_free(NULL);
}

static void spinning_is_bounded(void **state)
{
    (void)state;
    assert_int_equal(mailbox_spins(0), 0);
    assert_in_range(mailbox_spins(2000), 0, 1000);
    assert_in_range(mailbox_spins(NS_PER_SECOND), 0, 1000);
    if (sysconf(_SC_NPROCESSORS_ONLN) >= 2) {
        unsigned spins = 0;

        /* Who is interrupted while it measures finds itself slow: not every time. */
        for (unsigned i = 0; i < 1000 && spins == 0; i++) {
            spins = mailbox_spins(NS_PER_MS);
        }
        assert_true(spins > 0);
    } else {
        assert_int_equal(mailbox_spins(NS_PER_MS), 0);
    }
}

#define mailbox_test(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        mailbox_test(a_new_mailbox_is_empty),
        mailbox_test(a_message_arrives_as_it_was_sent),
        mailbox_test(lanes_are_served_in_the_order_of_sending),
        mailbox_test(order_holds_between_takes),
        mailbox_test(tickets_wrap_around),
        mailbox_test(unused_tickets_hold_up_nobody),
        mailbox_test(nobody_starves),
        mailbox_test(a_lane_holds_lane_slots),
        mailbox_test(one_taken_makes_room_for_one),
        mailbox_test(ring_counters_wrap_around),
        mailbox_test(nobody_rings_while_the_receiver_is_awake),
        mailbox_test(whoever_sends_to_a_sleeper_rings),
        mailbox_test(no_sleep_with_a_message_there),
        mailbox_test(awake_silences_a_doorbell_that_rang),
        mailbox_test(wait_returns_at_once_when_a_message_is_there),
        mailbox_test(the_doorbell_may_be_rung_by_others),
        mailbox_test(a_signal_interrupts_the_receiver),
        mailbox_test(a_signal_interrupts_a_sender_that_waits_for_room),
        mailbox_test(room_is_found_without_sleeping),
        mailbox_test(who_does_not_wait_is_not_rung),
        mailbox_test(a_waiting_sender_is_rung_at_half),
        mailbox_test(a_waiting_sender_is_rung_when_the_lane_is_empty),
        mailbox_test(a_stale_ring_is_harmless),
        mailbox_test(counters_tell_what_happened),
        mailbox_test(high_water_is_seen_in_mid_flow),
        mailbox_test(each_writer_has_its_cache_lines),
        cmocka_unit_test(without_file_descriptors_there_is_no_mailbox),
        cmocka_unit_test(a_mailbox_without_lanes_can_be_slept_on),
        cmocka_unit_test(spinning_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
