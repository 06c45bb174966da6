/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock_random.c: a guest and host programs that do thousands of random things, against an
 * oracle (vsock_world.h). The seed is printed; BVMM_TEST_SEED repeats a run.
 */
#include "rounds.h"
#include "vsock_world.h"

#include <sys/resource.h>

#define LIVES 12
#define ACTIONS 6000

static void settle(struct world *world)
{
    /* As often as it takes for the least credit: a byte a round. */
    for (unsigned quiet = 0; quiet < 3;) {
        const uint64_t before = world->bytes_checked;
        bool any = false;

        world_settle_once(world);
        vsock_host_run(&world->host);
        any = world_take_packets(world);
        quiet = any || world->bytes_checked != before ? 0 : quiet + 1;
    }
}

static void live(struct seeded_random *random, unsigned limit)
{
    struct world *world = world_new((struct seeded_random){random_u64(random)}, limit);
    struct vsock_guest *guest = world->host.guest;

    guest->features = VIRTIO_F_VERSION_1 | (random_below(random, 2) ? VIRTIO_F_EVENT_IDX : 0) |
                      (random_below(random, 2) ? VIRTIO_F_INDIRECT_DESC : 0);
    guest->split = random_below(random, 2) != 0;
    guest->rx_buffer_bytes = VSOCK_HEADER_BYTES + (uint32_t)random_below(random, 5000) + 64;
    vsock_guest_start(guest);
    for (unsigned i = 0; i < ACTIONS; i++) {
        world_act(world);
        if (random_below(random, 5) == 0) {
            vsock_host_run(&world->host);
            (void)world_take_packets(world);
        }
        if (i % 1500 == 1499) {
            settle(world);
            world_check_arrived(world);
        }
    }
    assert_true(world->opened > limit / 2);
    assert_true(world->bytes_checked > 100000);
    printf("  %u connections, %u refused, %llu bytes\n", world->opened, world->refused,
           (unsigned long long)world->bytes_checked);
    /* The guest lets go of all; nothing of them is left. */
    for (unsigned i = 0; i < limit; i++) {
        if (world->conns[i].state == WORLD_OPEN) {
            vsock_host_run(&world->host);
            world_guest_resets(world, &world->conns[i]);
        }
    }
    for (unsigned i = 0; i < 3; i++) {
        vsock_host_run(&world->host);
        vsock_expire(guest->vsock, clock_monotonic_ns() + VSOCK_TIMEOUT_NS);
        fixture_step(&guest->fixture);
        (void)world_take_packets(world);
    }
    vsock_host_run(&world->host);
    assert_int_equal(guest->vsock->table.used, 0);
    world_free(world);
}

static void random_world(void **state)
{
    struct seeded_random random = random_from_seed("random_world");
    const unsigned lives = rounds(LIVES);

    (void)state;
    for (unsigned i = 0; i < lives; i++) {
        live(&random, i % 3 == 0 ? 3 : i % 3 == 1 ? 20 : 150);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_world),
    };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096) {
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
