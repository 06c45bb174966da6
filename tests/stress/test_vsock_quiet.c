/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock_quiet.c: what connections that are open and quiet cost one that is busy: nothing. The real
 * vsock actor on a thread of its own, with a guest and host programs played by the main thread
 * (tests/unit/vsock_host.h). What is compared is the actor's CPU time for a round trip of 64 bytes,
 * program to guest and back; the least of many batches, for a machine that has other things to do.
 */
#include "../unit/vsock_host.h"

#include <pthread.h>
#include <sys/resource.h>
#include <time.h>

#define PORT 1234U
#define BUSY 1U /* the guest's port of the busy connection; quiet ones follow */
#define PING_BYTES 64
#define QUIET 1000U
#define BATCHES 20U
#define BATCH 100U

struct trial {
    struct vsock_host host;
    int listen_fd;
    int fd; /* the busy program's */
    int quiet_fds[VSOCK_CONNECTIONS_MAX];
    pthread_t thread;
    uint32_t guest_got_bytes;
};

static void *actor_thread(void *arg)
{
    device_actor_run(arg);
    return NULL;
}

static uint64_t cpu_ns(pthread_t thread)
{
    struct timespec used = {0};
    clockid_t clock;

    if (pthread_getcpuclockid(thread, &clock) != 0 || clock_gettime(clock, &used) != 0) {
        return 0;
    }
    return (uint64_t)used.tv_sec * NS_PER_SECOND + (uint64_t)used.tv_nsec;
}

static int connect_one(struct trial *trial, uint32_t guest_port)
{
    vsock_guest_send(trial->host.guest, VSOCK_OP_REQUEST, guest_port, PORT, 0, NULL, 0);
    (void)vsock_host_expect_packet(&trial->host, VSOCK_OP_RESPONSE, guest_port, PORT);
    return vsock_host_accept(trial->listen_fd);
}

/* Without a thread until all are connected. */
static void begin(struct trial *trial, unsigned quiet)
{
    memset(trial, 0, sizeof(*trial));
    vsock_host_init(&trial->host);
    vsock_guest_start(trial->host.guest);
    trial->listen_fd = vsock_host_listen(&trial->host, PORT, 8);
    trial->fd = connect_one(trial, BUSY);
    for (unsigned i = 0; i < quiet; i++) {
        trial->quiet_fds[i] = connect_one(trial, BUSY + 1 + i);
    }
    trial->host.guest->threaded = true;
    assert_int_equal(pthread_create(&trial->thread, NULL, actor_thread, trial->host.guest->actor),
                     0);
}

static void end(struct trial *trial, unsigned quiet)
{
    struct fixture *fixture = &trial->host.guest->fixture;

    assert_int_equal(actor_send(&fixture->actors[FIXTURE_SUPERVISOR], FIXTURE_DEVICE,
                                &(struct msg){.kind = MSG_STOP}),
                     0);
    assert_int_equal(pthread_join(trial->thread, NULL), 0);
    for (unsigned i = 0; i < quiet; i++) {
        (void)close(trial->quiet_fds[i]);
    }
    (void)close(trial->fd);
    (void)close(trial->listen_fd);
    vsock_host_fini(&trial->host);
}

/* Until something moves. What came of data is counted. */
static void guest_waits(struct trial *trial)
{
    struct pollfd irq = {.fd = trial->host.guest->fixture.irq_fd, .events = POLLIN};
    const struct vsock_guest_packet *packet = NULL;

    if (!vsock_guest_turn(trial->host.guest) && trial->host.guest->packets_count == 0) {
        (void)poll(&irq, 1, 1000);
    }
    while ((packet = vsock_guest_next(trial->host.guest)) != NULL) {
        trial->guest_got_bytes += packet->payload_bytes;
    }
}

/* The guest's word, with what it has taken. */
static void guest_says(struct trial *trial, const void *data, uint32_t bytes)
{
    struct vsock_header header = vsock_guest_header(VSOCK_OP_RW, BUSY, PORT);

    while (!vsock_guest_can_send(trial->host.guest)) {
        guest_waits(trial);
    }
    header.bytes = bytes;
    header.fwd_cnt = trial->guest_got_bytes;
    vsock_guest_send_raw(trial->host.guest, &header, data, bytes);
    (void)vsock_guest_turn(trial->host.guest);
}

static void program_takes(int fd, uint64_t bytes)
{
    char buffer[PING_BYTES];
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    uint64_t taken = 0;

    while (taken < bytes) {
        const ssize_t got = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);

        assert_int_not_equal(got, 0); /* reset */
        if (got < 0) {
            (void)poll(&poll_fd, 1, 1000);
        } else {
            taken += (uint64_t)got;
        }
    }
}

static void round_trip(struct trial *trial)
{
    static const char ping[PING_BYTES];
    const uint32_t expected_bytes = trial->guest_got_bytes + sizeof(ping);

    assert_int_equal(send(trial->fd, ping, sizeof(ping), MSG_NOSIGNAL), sizeof(ping));
    while (trial->guest_got_bytes != expected_bytes) {
        guest_waits(trial);
    }
    guest_says(trial, ping, sizeof(ping));
    program_takes(trial->fd, sizeof(ping));
}

/* The actor's CPU time for one. */
static uint64_t cost_ns(unsigned quiet)
{
    static struct trial trial;
    uint64_t least_ns = UINT64_MAX;

    begin(&trial, quiet);
    for (unsigned i = 0; i < BATCHES; i++) {
        const uint64_t start_ns = cpu_ns(trial.thread);

        for (unsigned k = 0; k < BATCH; k++) {
            round_trip(&trial);
        }
        least_ns = min_u64(least_ns, (cpu_ns(trial.thread) - start_ns) / BATCH);
    }
    end(&trial, quiet);
    return least_ns;
}

static void a_thousand_quiet_connections_cost_nothing(void **state)
{
    const uint64_t alone_ns = cost_ns(0);
    const uint64_t among_ns = cost_ns(QUIET);

    (void)state;
    print_message("  the actor's CPU time for a round trip: alone %.1f us, among %u quiet "
                  "connections %.1f us\n",
                  (double)alone_ns / 1e3, QUIET, (double)among_ns / 1e3);
    assert_true(alone_ns > 0);
    assert_true(among_ns < 3 * alone_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_quiet_connections_cost_nothing),
    };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096) {
        limit.rlim_cur = min_u64(limit.rlim_max, 4096);
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
