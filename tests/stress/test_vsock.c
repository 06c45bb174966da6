/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock.c: the vsock actor on a thread of its own, as in a machine, against a guest with up to
 * 1,000 connections at once and as many host programs, which do random things while it works. Every
 * byte is checked (tests/unit/vsock_world.h). The seed is printed; threads make a run of the same seed
 * differ all the same. On emulated machines BVMM_TEST_ROUNDS=0.1 makes it 100 connections, and a tenth of the
 * actions.
 */
#include "../unit/rounds.h"
#include "../unit/vsock_world.h"

#include <sys/resource.h>

#define CONNECTIONS rounds(1000U) /* at once */
#define ACTIONS rounds(60000U)
#define PATIENCE_NS (60 * NS_PER_SECOND) /* without a byte that arrives, on a loaded machine */

static pid_t actor_tid;

static void *actor_thread(void *arg)
{
    __atomic_store_n(&actor_tid, gettid(), __ATOMIC_RELAXED);
    device_actor_run(arg);
    return NULL;
}

/* What the actor's thread has done so far, as the kernel counts it. */
struct effort {
    uint64_t sleeps;
    uint64_t cpu_ns; /* a thread that spins does not sleep */
};

static struct effort effort_of(pthread_t thread)
{
    char path[64];
    char line[128];
    unsigned long long count = 0;
    struct timespec used;
    clockid_t clock;
    FILE *file = NULL;

    (void)snprintf(path, sizeof(path), "/proc/self/task/%d/status",
                   __atomic_load_n(&actor_tid, __ATOMIC_RELAXED));
    file = fopen(path, "re");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL &&
           sscanf(line, "voluntary_ctxt_switches: %llu", &count) != 1) {
    }
    (void)fclose(file);
    assert_true(count > 0);
    assert_int_equal(pthread_getcpuclockid(thread, &clock), 0);
    assert_int_equal(clock_gettime(clock, &used), 0);
    return (struct effort){
        .sleeps = count, .cpu_ns = (uint64_t)used.tv_sec * NS_PER_SECOND + (uint64_t)used.tv_nsec};
}

static bool same_effort(struct effort a, struct effort b)
{
    return a.sleeps == b.sleeps && a.cpu_ns == b.cpu_ns;
}

/* Interrupts, kicks, requests to the launcher: one look at each. */
static bool turn(struct world *world)
{
    struct pollfd request = {.fd = vsock_broker_fd(world->host.broker), .events = POLLIN};
    bool any = vsock_guest_turn(world->host.guest);

    if (poll(&request, 1, 0) > 0) {
        vsock_broker_serve(world->host.broker);
        any = true;
    }
    return world_take_packets(world) || any;
}

/* Whether all that was sent politely is there; then nothing is due but ends. */
static bool arrived(const struct world *world)
{
    for (unsigned i = 0; i < world->limit; i++) {
        const struct world_conn *conn = &world->conns[i];

        if (conn->state == WORLD_GUEST_ASKS || conn->state == WORLD_HOST_ASKS) {
            return false;
        }
        if (conn->state == WORLD_OPEN && !conn->loose &&
            (conn->guest_got != conn->program_sent || conn->guest_saw_end != conn->program_ended ||
             (conn->fd >= 0 &&
              ((conn->program_got > 0 ? conn->program_got - 1 : 0) != conn->guest_sent ||
               conn->program_saw_end != conn->guest_ended)))) {
            return false;
        }
    }
    return true;
}

static void settle(struct world *world)
{
    uint64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
    uint64_t bytes_before = world->bytes_checked;

    while (!arrived(world)) {
        world_settle_once(world);
        if (!turn(world)) {
            (void)poll(NULL, 0, 1);
        }
        if (world->bytes_checked != bytes_before) {
            bytes_before = world->bytes_checked;
            deadline_ns = clock_monotonic_ns() + PATIENCE_NS;
        }
        if (clock_monotonic_ns() > deadline_ns) {
            world_check_arrived(world); /* says what is missing */
            fail_msg("something does not arrive");
        }
    }
    world_check_arrived(world);
}

/* Fill the table before anything else, so that the run is one of many connections. */
static void fill(struct world *world)
{
    while (world->opened + world->refused < CONNECTIONS) {
        if (world->next_id < CONNECTIONS && world_can_send(world)) {
            if (world->next_id % 10 == 0) {
                world_program_asks(world);
            } else {
                world_guest_asks(world);
            }
        }
        (void)turn(world);
        world->host.guest->rx_want = 30;
    }
}

static void a_thousand_connections_byte_exact(void **state)
{
    struct world *world = world_new(random_from_seed("a_thousand_connections"), CONNECTIONS);
    struct vsock_guest *guest = world->host.guest;
    pthread_t thread;
    const uint64_t start_ns = clock_monotonic_ns();

    (void)state;
    guest->threaded = true;
    assert_int_equal(pthread_create(&thread, NULL, actor_thread, guest->actor), 0);
    vsock_guest_start(guest);
    (void)vsock_guest_read(guest, VIRTIO_MMIO_STATUS); /* all writes are through */
    fill(world);
    printf("  %u connections after %llu ms\n", world->used,
           (unsigned long long)((clock_monotonic_ns() - start_ns) / NS_PER_MS));
    /* And on until places were used again; how soon is chance. */
    for (unsigned i = 0; i < ACTIONS || (world->opened <= CONNECTIONS && i < 100 * ACTIONS); i++) {
        world_act(world);
        if (random_below(&world->random, 4) == 0) {
            (void)turn(world);
        }
    }
    settle(world);
    printf("  %u connections opened, %u refused, %llu bytes in %llu ms\n", world->opened,
           world->refused, (unsigned long long)world->bytes_checked,
           (unsigned long long)((clock_monotonic_ns() - start_ns) / NS_PER_MS));
    assert_true(world->opened > CONNECTIONS);
    assert_int_equal(actor_send(&guest->fixture.actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE,
                                &(struct msg){.kind = MSG_STOP}),
                     0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    world_free(world);
}

/* A second of the guest's life. */
static void live_for_a_second(struct world *world)
{
    const uint64_t until_ns = clock_monotonic_ns() + NS_PER_SECOND;

    while (clock_monotonic_ns() < until_ns) {
        for (unsigned i = 0; i < 32 && turn(world); i++) {
        }
        (void)poll(NULL, 0, 2);
    }
}

/*
 * In a quiet guest the actor sleeps: with 1,000 open connections, and programs that flood. What the
 * guest has promised to take is on its way for as long as a loaded machine needs; from then on
 * whatever the actor does is for nothing.
 */
static void quiet_guest_wakes_nobody(void **state)
{
    struct world *world = world_new(random_from_seed("quiet_guest"), CONNECTIONS);
    struct vsock_guest *guest = world->host.guest;
    pthread_t thread;
    struct effort before = {0};
    uint64_t bytes_before = 0;
    unsigned for_nothing = 0; /* seconds with work that brought nobody a byte */

    (void)state;
    world->room_max = 20000; /* 10 MB in all */
    guest->threaded = true;
    assert_int_equal(pthread_create(&thread, NULL, actor_thread, guest->actor), 0);
    vsock_guest_start(guest);
    (void)vsock_guest_read(guest, VIRTIO_MMIO_STATUS);
    fill(world);
    settle(world);
    world->no_new_room = true;
    for (unsigned i = 0; i < CONNECTIONS; i++) { /* four times what the guest has room for */
        for (unsigned k = 0; k < 16; k++) {
            world_program_sends(world, &world->conns[i]);
        }
    }
    while (!same_effort(effort_of(thread), before) && for_nothing < 5) {
        before = effort_of(thread);
        bytes_before = world->bytes_checked;
        live_for_a_second(world);
        for_nothing += world->bytes_checked == bytes_before ? 1 : 0;
    }
    assert_true(same_effort(effort_of(thread), before));
    world->no_new_room = false;
    settle(world);
    assert_int_equal(actor_send(&guest->fixture.actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE,
                                &(struct msg){.kind = MSG_STOP}),
                     0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_connections_byte_exact),
        cmocka_unit_test(quiet_guest_wakes_nobody),
    };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096) {
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
