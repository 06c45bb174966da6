/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock.c: the vsock actor on a thread of its own, as in a machine, against a guest with up to
 * 1,000 connections at once and as many host programs, which do random things while it works. Every
 * byte is checked (tests/unit/vsock_world.h). The seed is printed; threads make a run of the same seed
 * differ all the same.
 */
#include "../unit/vsock_world.h"

#include <sys/resource.h>

#define CONNECTIONS 1000U
#define ACTIONS 60000U
#define PATIENCE_NS (60 * NS_PER_SECOND) /* for everything to arrive, on a loaded machine */

static pid_t actor_tid;

static void *actor_thread(void *arg)
{
    __atomic_store_n(&actor_tid, gettid(), __ATOMIC_RELAXED);
    device_actor_run(arg);
    return NULL;
}

/* How often the actor's thread went to sleep, as the kernel counts it. */
static uint64_t sleeps(void)
{
    char path[64];
    char line[128];
    unsigned long long count = 0;
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
    return count;
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
    const uint64_t deadline_ns = clock_monotonic_ns() + PATIENCE_NS;

    while (!arrived(world)) {
        world_settle_once(world);
        if (!turn(world)) {
            (void)poll(NULL, 0, 1);
        }
        if (clock_monotonic_ns() > deadline_ns) {
            world_check_arrived(world); /* says what is missing */
            fail_msg("something did not arrive within a minute");
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
    for (unsigned i = 0; i < ACTIONS; i++) {
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

/* In a quiet guest the actor sleeps: with 1,000 open connections, and programs that flood. */
static void quiet_guest_wakes_nobody(void **state)
{
    struct world *world = world_new(random_from_seed("quiet_guest"), CONNECTIONS);
    struct vsock_guest *guest = world->host.guest;
    pthread_t thread;
    uint64_t before = 0;

    (void)state;
    guest->threaded = true;
    assert_int_equal(pthread_create(&thread, NULL, actor_thread, guest->actor), 0);
    vsock_guest_start(guest);
    (void)vsock_guest_read(guest, VIRTIO_MMIO_STATUS);
    fill(world);
    settle(world);
    for (unsigned i = 0; i < CONNECTIONS; i++) { /* more than the guest gives credit for */
        for (unsigned k = 0; k < 40; k++) {
            world_program_sends(world, &world->conns[i]);
        }
    }
    /* The guest takes what it has credit for. Soon there is a second without any wake-up. */
    for (unsigned attempt = 0; attempt < 90 && sleeps() != before; attempt++) {
        before = sleeps();
        for (unsigned i = 0; i < 500; i++) {
            for (unsigned k = 0; k < 32 && turn(world); k++) { /* with some seeds there is much */
            }
            (void)poll(NULL, 0, 2);
        }
    }
    assert_int_equal(sleeps(), before);
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
