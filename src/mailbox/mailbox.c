/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mailbox.c: lanes on ck_ring, and the handshake of sleep and doorbell. Read mailbox.h first.
 *
 * Threads: each function is for one side of a lane, as the header says. What blocks: reading a
 * doorbell, in mailbox_wait() and lane_wait_for_room(); nothing else.
 *
 * This is the only file that includes Concurrency Kit.
 */
#include "mailbox/mailbox.h"

#include <ck_pr.h>
#include <ck_ring.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

/*
 * ThreadSanitizer does not see the ordering in ck's inline assembly. These tell it: what a sender did
 * before it sent happens before what the receiver does after it took.
 */
#if defined(__SANITIZE_THREAD__)
#define BVMM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define BVMM_TSAN 1
#endif
#endif
#ifdef BVMM_TSAN
void __tsan_acquire(void *addr);
void __tsan_release(void *addr);
#define tsan_acquire(addr) __tsan_acquire(addr)
#define tsan_release(addr) __tsan_release(addr)
#else
#define tsan_acquire(addr) ((void)(addr))
#define tsan_release(addr) ((void)(addr))
#endif

CK_RING_PROTOTYPE(msg, msg)

/* NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding): a cache line for each writer */
struct lane {
    /* ck keeps the producer's and the consumer's counters on cache lines of their own. */
    ck_ring_t ring;

    /* Written by the sender, read by the receiver. */
    _Alignas(CACHE_LINE_BYTES) unsigned sender_waits;

    /* The receiver's own: the oldest message, taken out of the ring to see its ticket. */
    _Alignas(CACHE_LINE_BYTES) struct msg head;
    bool has_head;
    unsigned taken; /* since the sender was last looked at */

    /* Constant once the machine is assembled. */
    _Alignas(CACHE_LINE_BYTES) struct msg *slots;
    struct mailbox *mailbox;
    struct actor_stats *sender_stats;
    int sender_doorbell_fd;
    actor_id sender;
};

struct mailbox {
    /* Written by every sender. */
    _Alignas(CACHE_LINE_BYTES) uint32_t next_ticket;

    /* Written by the receiver, read by every sender. */
    _Alignas(CACHE_LINE_BYTES) unsigned asleep;

    /* Constant once the machine is assembled. */
    _Alignas(CACHE_LINE_BYTES) struct actor_stats *stats;
    unsigned lane_count;
    int doorbell_fd;
    struct msg *slots;
    struct lane lanes[];
};

/* ---- Doorbells ------------------------------------------------------------------------------- */

static void doorbell_ring(int fd, struct actor_stats *stats)
{
    const uint64_t one = 1;

    /*
     * The write adds to a 64-bit counter. It can neither block nor fail before 2^64 - 2 rings, and
     * then somebody has long been woken.
     */
    ssize_t n = write(fd, &one, sizeof(one));
    (void)n;
    stats->doorbells_rung++;
}

/* Block until the doorbell has been rung, and silence it. 0, or -EINTR. */
static int doorbell_wait(int fd)
{
    uint64_t rings;

    if (read(fd, &rings, sizeof(rings)) < 0 && errno == EINTR) {
        return -EINTR;
    }
    return 0;
}

/* ---- Assembly -------------------------------------------------------------------------------- */

int mailbox_new(unsigned lane_count, struct actor_stats *stats, struct mailbox **ret_mailbox)
{
    const size_t slots_bytes = (size_t)lane_count * LANE_RING_SLOTS * sizeof(struct msg);
    const size_t mailbox_bytes = sizeof(struct mailbox) + lane_count * sizeof(struct lane);
    struct mailbox *mailbox =
        aligned_alloc(CACHE_LINE_BYTES, align_up(mailbox_bytes, CACHE_LINE_BYTES));
    struct msg *slots =
        aligned_alloc(CACHE_LINE_BYTES, align_up(slots_bytes + 1, CACHE_LINE_BYTES));
    int doorbell_fd = eventfd(0, EFD_CLOEXEC);

    if (mailbox == NULL || slots == NULL || doorbell_fd < 0) {
        int code = doorbell_fd < 0 ? -errno : -ENOMEM;
        if (doorbell_fd >= 0) {
            (void)close(doorbell_fd);
        }
        free(slots);
        free(mailbox);
        return code;
    }
    memset(mailbox, 0, mailbox_bytes);
    memset(slots, 0, slots_bytes);
    mailbox->stats = stats;
    mailbox->lane_count = lane_count;
    mailbox->doorbell_fd = doorbell_fd;
    mailbox->slots = slots;
    for (unsigned i = 0; i < lane_count; i++) {
        struct lane *lane = &mailbox->lanes[i];

        ck_ring_init(&lane->ring, LANE_RING_SLOTS);
        lane->slots = slots + (size_t)i * LANE_RING_SLOTS;
        lane->mailbox = mailbox;
        lane->sender_doorbell_fd = -1;
    }
    stats->mailbox_slots = LANE_SLOTS;
    *ret_mailbox = mailbox;
    return 0;
}

void mailbox_free(struct mailbox *mailbox)
{
    if (mailbox == NULL) {
        return;
    }
    (void)close(mailbox->doorbell_fd);
    free(mailbox->slots);
    free(mailbox);
}

struct lane *mailbox_lane(struct mailbox *mailbox, unsigned index, actor_id sender,
                          int sender_doorbell_fd, struct actor_stats *sender_stats)
{
    struct lane *lane = &mailbox->lanes[index];

    lane->sender = sender;
    lane->sender_doorbell_fd = sender_doorbell_fd;
    lane->sender_stats = sender_stats;
    return lane;
}

int mailbox_doorbell_fd(const struct mailbox *mailbox)
{
    return mailbox->doorbell_fd;
}

/* ---- The sender's side ----------------------------------------------------------------------- */

bool lane_try_send(struct lane *lane, const struct msg *msg)
{
    struct mailbox *mailbox = lane->mailbox;
    struct msg stamped = *msg;

    stamped.from = lane->sender;
    stamped.ticket = ck_pr_faa_32(&mailbox->next_ticket, 1); /* S0 */
    tsan_release(&lane->ring);
    if (!ck_ring_enqueue_spsc_msg(&lane->ring, lane->slots, &stamped)) { /* S1 */
        return false;
    }
    ck_pr_fence_memory(); /* S2; pairs with R2 in mailbox_announce_sleep() */
    if (ck_pr_load_uint(&mailbox->asleep) != 0) {                /* S3 */
        doorbell_ring(mailbox->doorbell_fd, lane->sender_stats); /* S4 */
    }
    lane->sender_stats->messages_out++;
    return true;
}

static bool lane_full(struct lane *lane)
{
    return ck_ring_size(&lane->ring) >= LANE_SLOTS;
}

int lane_wait_for_room(struct lane *lane)
{
    int result = 0;

    lane->sender_stats->waits_for_space++;
    for (unsigned i = 0; i < LANE_ROOM_SPINS; i++) {
        if (!lane_full(lane)) {
            return 0;
        }
        ck_pr_stall();
    }
    ck_pr_store_uint(&lane->sender_waits, 1);
    ck_pr_fence_memory(); /* pairs with the fence in lane_made_room() */
    if (lane_full(lane)) {
        result = doorbell_wait(lane->sender_doorbell_fd);
        lane->sender_stats->wakeups++;
    }
    ck_pr_store_uint(&lane->sender_waits, 0);
    return result;
}

/* ---- The receiver's side --------------------------------------------------------------------- */

/* After messages were taken out of a lane: wake its sender if it waits for room. */
static void lane_made_room(struct mailbox *mailbox, struct lane *lane)
{
    lane->taken = 0;
    ck_pr_fence_memory(); /* pairs with the fence in lane_wait_for_room() */
    if (ck_pr_load_uint(&lane->sender_waits) != 0) {
        doorbell_ring(lane->sender_doorbell_fd, mailbox->stats);
    }
}

/*
 * Take the lane's oldest message out of its ring, if there is one. True if there was.
 *
 * The copy goes to memory that outlives the call, and must: on Arm, ck 0.7.1 orders the reads of the
 * slot before its release only by way of the stores of this copy (docs/memory-ordering.md).
 */
static bool lane_fetch_head(struct mailbox *mailbox, struct lane *lane)
{
    const unsigned waiting = ck_ring_size(&lane->ring);

    if (waiting > mailbox->stats->mailbox_high_water) {
        mailbox->stats->mailbox_high_water = waiting;
    }
    if (!ck_ring_dequeue_spsc_msg(&lane->ring, lane->slots, &lane->head)) {
        if (lane->taken > 0) {
            lane_made_room(mailbox, lane);
        }
        return false;
    }
    tsan_acquire(&lane->ring);
    lane->has_head = true;
    lane->taken++;
    if (lane->taken > LANE_SLOTS / 2) {
        lane_made_room(mailbox, lane);
    }
    return true;
}

/*
 * Fetch the heads of all lanes, and look again as long as that found anything: a message may have
 * come into a lane that was looked at before the lane of another message that was sent because of it.
 * Seeing the later one means that the earlier one can be seen now (see mailbox.h, order).
 */
static void mailbox_fetch_heads(struct mailbox *mailbox)
{
    bool found = true;

    while (found) {
        found = false;
        for (unsigned i = 0; i < mailbox->lane_count; i++) {
            struct lane *lane = &mailbox->lanes[i];

            if (!lane->has_head && lane_fetch_head(mailbox, lane)) {
                found = true;
            }
        }
    }
}

/* Tickets wrap around; two that wait at the same time are less than 2^31 apart. */
static bool ticket_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

bool mailbox_take(struct mailbox *mailbox, struct msg *ret_msg)
{
    struct lane *oldest = NULL;

    mailbox_fetch_heads(mailbox);
    for (unsigned i = 0; i < mailbox->lane_count; i++) {
        struct lane *lane = &mailbox->lanes[i];

        if (lane->has_head &&
            (oldest == NULL || ticket_before(lane->head.ticket, oldest->head.ticket))) {
            oldest = lane;
        }
    }
    if (oldest == NULL) {
        return false;
    }
    *ret_msg = oldest->head;
    oldest->has_head = false;
    mailbox->stats->messages_in++;
    return true;
}

static bool mailbox_empty(struct mailbox *mailbox)
{
    for (unsigned i = 0; i < mailbox->lane_count; i++) {
        if (mailbox->lanes[i].has_head || ck_ring_size(&mailbox->lanes[i].ring) != 0) {
            return false;
        }
    }
    return true;
}

bool mailbox_announce_sleep(struct mailbox *mailbox)
{
    ck_pr_store_uint(&mailbox->asleep, 1); /* R1 */
    ck_pr_fence_memory();                  /* R2; pairs with S2 in lane_try_send() */
    return mailbox_empty(mailbox);         /* R3 */
}

void mailbox_awake(struct mailbox *mailbox, bool rung)
{
    ck_pr_store_uint(&mailbox->asleep, 0); /* R5 */
    if (rung) {
        (void)doorbell_wait(mailbox->doorbell_fd);
    }
}

int mailbox_wait(struct mailbox *mailbox, unsigned spins)
{
    int result = 0;

    for (unsigned i = 0; i < spins; i++) {
        if (!mailbox_empty(mailbox)) {
            return 0;
        }
        ck_pr_stall();
    }
    if (mailbox_announce_sleep(mailbox)) {
        result = doorbell_wait(mailbox->doorbell_fd); /* R4 */
        mailbox->stats->wakeups++;
    }
    mailbox_awake(mailbox, false);
    return result;
}

unsigned mailbox_spins(uint64_t budget_ns)
{
    const unsigned looks = 64;
    uint64_t start_ns = 0;
    uint64_t took_ns = 0;

    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) {
        return 0;
    }
    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < looks; i++) {
        ck_pr_stall();
    }
    took_ns = clock_monotonic_ns() - start_ns;
    return took_ns == 0 ? 0 : (unsigned)min_u64(budget_ns * looks / took_ns, 1000);
}
