/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_vsock_bridge.c: the bridge between the guest's vsock and UNIX sockets of the host, with host
 * programs that behave and that do not. The names follow the table of outcomes in docs/vsock.md.
 *
 * That the actor does not spin is checked throughout: vsock_guest_run() gives up on an actor that
 * always finds something to do.
 */
#include "vsock_host.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#define PORT 1234U
#define GUEST 77U

static void begin(struct vsock_host *host)
{
    vsock_host_init(host);
    vsock_guest_start(host->guest);
}

/* A connection that the guest began. *ret_fd: the host program's end. */
static void guest_connects(struct vsock_host *host, uint32_t guest_port, int listen_fd, int *ret_fd)
{
    vsock_guest_send(host->guest, VSOCK_OP_REQUEST, guest_port, PORT, 0, NULL, 0);
    (void)vsock_host_expect_packet(host, VSOCK_OP_RESPONSE, guest_port, PORT);
    *ret_fd = vsock_host_accept(listen_fd);
}

/* A connection that a host program began. *ret_port: our side's. */
static void host_connects(struct vsock_host *host, int *ret_fd, uint32_t *ret_port)
{
    const struct vsock_guest_packet *packet = NULL;
    char ok[32];

    *ret_fd = vsock_host_call(host);
    vsock_host_say(*ret_fd, "CONNECT 77\n");
    vsock_host_run(host);
    packet = vsock_guest_next(host->guest);
    assert_non_null(packet);
    assert_int_equal(packet->header.op, VSOCK_OP_REQUEST);
    assert_int_equal(packet->header.dst_port, 77);
    assert_int_equal(packet->header.buf_alloc, VSOCK_BRIDGE_BUFFER_BYTES);
    *ret_port = packet->header.src_port;
    assert_true(*ret_port >= VSOCK_BRIDGE_FIRST_PORT);
    vsock_host_expect_nothing(*ret_fd);
    vsock_guest_send(host->guest, VSOCK_OP_RESPONSE, 77, *ret_port, 0, NULL, 0);
    vsock_host_run(host);
    (void)snprintf(ok, sizeof(ok), "OK %u\n", *ret_port);
    vsock_host_expect(*ret_fd, ok);
}

static void send_data(struct vsock_host *host, uint32_t guest_port, uint32_t host_port,
                      const char *text)
{
    vsock_guest_send(host->guest, VSOCK_OP_RW, guest_port, host_port, 0, text,
                     (uint32_t)strlen(text));
}

static void send_shutdown(struct vsock_host *host, uint32_t guest_port, uint32_t host_port,
                          uint32_t flags)
{
    vsock_guest_send(host->guest, VSOCK_OP_SHUTDOWN, guest_port, host_port, flags, NULL, 0);
}

static void expect_data(struct vsock_host *host, uint32_t guest_port, uint32_t host_port,
                        const char *text)
{
    const struct vsock_guest_packet *packet =
        vsock_host_expect_packet(host, VSOCK_OP_RW, guest_port, host_port);

    assert_int_equal(packet->payload_bytes, strlen(text));
    assert_memory_equal(packet->payload, text, strlen(text));
}

/* As if VSOCK_TIMEOUT_NS had passed. */
static void let_time_pass(struct vsock_host *host)
{
    assert_int_not_equal(vsock_next_deadline_ns(host->guest->vsock), 0);
    vsock_expire(host->guest->vsock, clock_monotonic_ns() + VSOCK_TIMEOUT_NS);
    fixture_step(&host->guest->fixture);
    vsock_host_run(host);
}

static void assert_all_closed(struct vsock_host *host)
{
    vsock_host_run(host);
    assert_int_equal(host->guest->vsock->table.used, 0);
    assert_int_equal(vsock_next_deadline_ns(host->guest->vsock), 0);
}

/* ---- Both ways ------------------------------------------------------------------------------- */

static void guest_reaches_a_program_and_both_talk(void **state)
{
    struct vsock_host host;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &fd);
    send_data(&host, GUEST, PORT, "question");
    vsock_host_run(&host);
    vsock_host_expect(fd, "question");
    vsock_host_say(fd, "answer");
    expect_data(&host, GUEST, PORT, "answer");
    send_shutdown(&host, GUEST, PORT, VSOCK_SHUTDOWN_BOTH);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    vsock_host_expect_end(fd);
    assert_all_closed(&host);
    (void)close(fd);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

static void program_reaches_the_guest_and_both_talk(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    host_connects(&host, &fd, &port);
    vsock_host_say(fd, "question");
    expect_data(&host, 77, port, "question");
    send_data(&host, 77, port, "answer");
    vsock_host_run(&host);
    vsock_host_expect(fd, "answer");
    (void)close(fd);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, 77, port);
    vsock_guest_send(host.guest, VSOCK_OP_RST, 77, port, 0, NULL, 0);
    assert_int_equal(host.guest->packets_count, 1); /* first one half, then both */
    assert_int_equal(vsock_guest_next(host.guest)->header.flags, VSOCK_SHUTDOWN_BOTH);
    assert_all_closed(&host);
    vsock_host_fini(&host);
}

static void bytes_behind_the_connect_line_are_the_guests(void **state)
{
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;
    uint32_t port = 0;
    const int lines[] = {0, 1};

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
        const int fd = vsock_host_call(&host);

        vsock_host_say(fd, i == 0 ? "CONNECT 9\nearly" : "CONNECT 9\r\nearly");
        vsock_host_run(&host);
        packet = vsock_guest_next(host.guest);
        assert_non_null(packet);
        port = packet->header.src_port;
        vsock_guest_send(host.guest, VSOCK_OP_RESPONSE, 9, port, 0, NULL, 0);
        expect_data(&host, 9, port, "early");
        vsock_guest_send(host.guest, VSOCK_OP_RST, 9, port, 0, NULL, 0);
        assert_all_closed(&host);
        (void)close(fd);
    }
    vsock_host_fini(&host);
}

static void half_close_of_the_guest_leaves_the_other_half(void **state)
{
    struct vsock_host host;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &fd);
    send_data(&host, GUEST, PORT, "all");
    send_shutdown(&host, GUEST, PORT, VSOCK_SHUTDOWN_SEND);
    vsock_host_run(&host);
    vsock_host_expect(fd, "all");
    vsock_host_expect_end(fd);
    vsock_host_say(fd, "reply");
    expect_data(&host, GUEST, PORT, "reply");
    (void)close(fd);
    assert_int_equal(vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, GUEST, PORT)->header.flags,
                     VSOCK_SHUTDOWN_SEND);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, GUEST, PORT);
    send_shutdown(&host, GUEST, PORT, VSOCK_SHUTDOWN_BOTH);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    assert_all_closed(&host);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

static void half_close_of_the_program_leaves_the_other_half(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    host_connects(&host, &fd, &port);
    vsock_host_say(fd, "request");
    assert_int_equal(shutdown(fd, SHUT_WR), 0);
    expect_data(&host, 77, port, "request");
    assert_int_equal(vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, 77, port)->header.flags,
                     VSOCK_SHUTDOWN_SEND);
    send_data(&host, 77, port, "response");
    vsock_host_run(&host);
    vsock_host_expect(fd, "response");
    send_shutdown(&host, 77, port, VSOCK_SHUTDOWN_BOTH);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, 77, port);
    vsock_host_expect_end(fd);
    assert_all_closed(&host);
    (void)close(fd);
    vsock_host_fini(&host);
}

static void guest_that_stops_receiving_stops_the_program(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    host_connects(&host, &fd, &port);
    send_shutdown(&host, 77, port, VSOCK_SHUTDOWN_RECEIVE);
    vsock_host_run(&host);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    send_data(&host, 77, port, "still");
    vsock_host_run(&host);
    vsock_host_expect(fd, "still");
    (void)close(fd);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, 77, port);
    vsock_guest_send(host.guest, VSOCK_OP_RST, 77, port, 0, NULL, 0);
    assert_all_closed(&host);
    vsock_host_fini(&host);
}

/* ---- Connecting ------------------------------------------------------------------------------ */

static void port_that_nobody_serves_is_refused(void **state)
{
    struct vsock_host host;
    const struct sockaddr_un *address = NULL;
    struct sockaddr_un stale;

    (void)state;
    begin(&host);
    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, GUEST, PORT, 0, NULL, 0);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    (void)close(vsock_host_listen(&host, PORT, 8)); /* a name that nobody listens at */
    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, GUEST, PORT, 0, NULL, 0);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    stale = vsock_host_address(&host, 5);
    address = &stale;
    (void)close(open(address->sun_path, O_CREAT | O_WRONLY, 0600)); /* no socket at all */
    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, GUEST, 5, 0, NULL, 0);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, 5);
    assert_all_closed(&host);
    vsock_host_fini(&host);
}

static void program_with_a_full_queue_is_refused_at_once(void **state)
{
    struct vsock_host host;
    unsigned refused = 0;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 1);

    for (uint32_t i = 0; i < 10; i++) {
        vsock_guest_send(host.guest, VSOCK_OP_REQUEST, 100 + i, PORT, 0, NULL, 0);
        vsock_host_run(&host);
        refused += vsock_guest_next(host.guest)->header.op == VSOCK_OP_RST ? 1 : 0;
    }
    assert_in_range(refused, 7, 9);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* The launcher hangs: the guest is told after 2 s, and a late answer harms nobody. */
static void launcher_that_does_not_answer_is_a_timeout(void **state)
{
    struct vsock_host host;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, GUEST, PORT, 0, NULL, 0);
    vsock_guest_expect_nothing(host.guest);
    assert_int_not_equal(vsock_next_deadline_ns(host.guest->vsock), 0);
    vsock_expire(host.guest->vsock, clock_monotonic_ns() + VSOCK_TIMEOUT_NS);
    fixture_step(&host.guest->fixture);
    (void)vsock_guest_expect(host.guest, VSOCK_OP_RST, GUEST, PORT);
    vsock_host_run(&host); /* now it answers */
    vsock_host_expect_end(vsock_host_accept(listen_fd));
    assert_all_closed(&host);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

static void launcher_that_is_gone_means_refused(void **state)
{
    struct vsock_host host;

    (void)state;
    begin(&host);
    vsock_broker_free(host.broker);
    host.broker = NULL;
    vsock_guest_run(host.guest);
    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, GUEST, PORT, 0, NULL, 0);
    (void)vsock_guest_expect(host.guest, VSOCK_OP_RST, GUEST, PORT);
    vsock_host_fini(&host);
}

/* Firecracker 1253: a program that calls before the guest's driver is there waits for it. */
static void call_before_the_guest_is_ready_waits_for_it(void **state)
{
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;

    (void)state;
    vsock_host_init(&host);
    const int fd = vsock_host_call(&host);
    const int impatient_fd = vsock_host_call(&host);

    vsock_host_say(fd, "CONNECT 52\n");
    vsock_host_say(impatient_fd, "CONNECT 53\n");
    for (unsigned i = 0; i < 5; i++) {
        vsock_bridge_look(host.guest->vsock);
    }
    assert_int_equal(host.guest->vsock->table.used, 2);
    assert_int_equal(vsock_next_deadline_ns(host.guest->vsock), 0); /* its time has not begun */
    vsock_host_expect_nothing(fd);
    (void)close(impatient_fd); /* leaves no trace */
    vsock_bridge_look(host.guest->vsock);
    assert_int_equal(host.guest->vsock->table.used, 1);
    vsock_guest_start(host.guest);
    vsock_host_run(&host);
    packet = vsock_guest_next(host.guest);
    assert_non_null(packet);
    assert_int_equal(packet->header.op, VSOCK_OP_REQUEST);
    assert_int_equal(packet->header.dst_port, 52);
    assert_null(vsock_guest_next(host.guest));
    assert_int_not_equal(vsock_next_deadline_ns(host.guest->vsock), 0);
    (void)close(fd);
    vsock_host_fini(&host);
}

static void guest_that_refuses_a_call_closes_it(void **state)
{
    struct vsock_host host;

    (void)state;
    begin(&host);
    const int fd = vsock_host_call(&host);

    vsock_host_say(fd, "CONNECT 52\n");
    vsock_host_run(&host);
    vsock_guest_send(host.guest, VSOCK_OP_RST, 52, vsock_guest_next(host.guest)->header.src_port, 0,
                     NULL, 0);
    vsock_host_run(&host);
    vsock_host_expect_end(fd);
    assert_all_closed(&host);
    (void)close(fd);
    vsock_host_fini(&host);
}

static void guest_that_does_not_answer_a_call_is_a_timeout(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;

    (void)state;
    begin(&host);
    const int fd = vsock_host_call(&host);

    vsock_host_say(fd, "CONNECT 52\n");
    vsock_host_run(&host);
    port = vsock_guest_next(host.guest)->header.src_port;
    let_time_pass(&host);
    vsock_host_expect_end(fd);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, 52, port);
    /* The answer comes too late: to a connection that is no more. */
    vsock_guest_send(host.guest, VSOCK_OP_RESPONSE, 52, port, 0, NULL, 0);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, 52, port);
    assert_all_closed(&host);
    (void)close(fd);
    vsock_host_fini(&host);
}

static void guest_that_sends_before_it_accepts_is_reset(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;

    (void)state;
    begin(&host);
    const int fd = vsock_host_call(&host);

    vsock_host_say(fd, "CONNECT 52\n");
    vsock_host_run(&host);
    port = vsock_guest_next(host.guest)->header.src_port;
    send_data(&host, 52, port, "early");
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, 52, port);
    vsock_host_expect_end(fd);
    assert_all_closed(&host);
    (void)close(fd);
    vsock_host_fini(&host);
}

/* ---- Programs that misbehave ----------------------------------------------------------------- */

static void garbage_instead_of_connect_is_hung_up_on(void **state)
{
    static const char *const lines[] = {
        "\n",
        "GET / HTTP/1.1\r\n",
        "CONNECT\n",
        "CONNECT \n",
        "CONNECT  5\n",
        "CONNECT x\n",
        "CONNECT 5x\n",
        "CONNECT -1\n",
        "CONNECT 5 6\n",
        "CONNECT 4294967295\n",
        "CONNECT 4294967296\n",
        "CONNECT 99999999999999999999\n",
        "connect 5\n",
        "CONNECT 0000000000000000000000000000000000005\n",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    };
    struct vsock_host host;

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < ARRAY_SIZE(lines); i++) {
        const int fd = vsock_host_call(&host);

        vsock_host_say(fd, lines[i]);
        vsock_host_run(&host);
        assert_true(vsock_host_gone(fd));
        assert_int_equal(host.guest->packets_count, 0);
        (void)close(fd);
    }
    assert_all_closed(&host);
    vsock_host_fini(&host);
}

static void line_that_comes_in_pieces_is_put_together(void **state)
{
    struct vsock_host host;
    const char line[] = "CONNECT 4294967294\n";

    (void)state;
    begin(&host);
    const int fd = vsock_host_call(&host);

    for (unsigned i = 0; i < sizeof(line) - 1; i++) {
        assert_int_equal(host.guest->packets_count, 0);
        assert_int_equal(send(fd, &line[i], 1, 0), 1);
        vsock_host_run(&host);
    }
    assert_int_equal(vsock_guest_next(host.guest)->header.dst_port, 4294967294U);
    (void)close(fd);
    vsock_host_fini(&host);
}

static void program_that_leaves_mid_line_is_forgotten(void **state)
{
    static const char *const starts[] = {"", "CONN", "CONNECT 12"};
    struct vsock_host host;

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < ARRAY_SIZE(starts); i++) {
        const int fd = vsock_host_call(&host);

        vsock_host_say(fd, starts[i]);
        vsock_host_run(&host);
        (void)close(fd);
        vsock_host_run(&host);
        assert_int_equal(host.guest->packets_count, 0);
    }
    assert_all_closed(&host);
    vsock_host_fini(&host);
}

/* Silent callers cannot keep others out: the oldest of them goes. */
static void storm_of_silent_callers_keeps_nobody_out(void **state)
{
    struct vsock_host host;
    int silent[VSOCK_BRIDGE_CALLERS_MAX + 10];
    uint32_t port = 0;
    int fd = -1;
    unsigned gone = 0;

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < ARRAY_SIZE(silent); i++) {
        silent[i] = vsock_host_call(&host);
        vsock_host_run(&host);
    }
    host_connects(&host, &fd, &port);
    for (unsigned i = 0; i < ARRAY_SIZE(silent); i++) {
        if (vsock_host_gone(silent[i])) {
            assert_int_equal(gone, i); /* the oldest first */
            gone++;
        }
        (void)close(silent[i]);
    }
    assert_int_equal(gone, 11);
    (void)close(fd);
    vsock_host_fini(&host);
}

/* Cloud Hypervisor 6621, 6798: a program that does not read holds up its own connection only. */
static void program_that_never_reads_stops_only_its_connection(void **state)
{
    static uint8_t payload[32 * 1024];
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;
    uint32_t sent = 0;
    uint32_t forwarded = 0;
    int lazy_fd = -1;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &lazy_fd);
    while (sent - forwarded < VSOCK_BRIDGE_BUFFER_BYTES) { /* until there is no credit left */
        const uint32_t room = VSOCK_BRIDGE_BUFFER_BYTES - (sent - forwarded);
        const uint32_t bytes = (uint32_t)min_u64(room, sizeof(payload));

        vsock_guest_send(host.guest, VSOCK_OP_RW, GUEST, PORT, 0, payload, bytes);
        sent += bytes;
        vsock_host_run(&host);
        while ((packet = vsock_guest_next(host.guest)) != NULL) {
            assert_int_equal(packet->header.op, VSOCK_OP_CREDIT_UPDATE);
            forwarded = packet->header.fwd_cnt;
        }
        assert_true(sent < 64 * MIB);
    }
    /* Others go on, and results too. */
    guest_connects(&host, GUEST + 1, listen_fd, &fd);
    send_data(&host, GUEST + 1, PORT, "fine");
    vsock_host_run(&host);
    vsock_host_expect(fd, "fine");
    vsock_guest_connect(host.guest, 9, 5000);
    /* One byte more than its credit, and the guest's connection is reset. */
    send_data(&host, GUEST, PORT, "x");
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    (void)close(fd);
    (void)close(lazy_fd);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

static void slow_program_gets_every_byte_in_order(void **state)
{
    static uint8_t payload[1024 * 1024];
    static uint8_t got[sizeof(payload)];
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;
    uint32_t sent = 0;
    uint32_t forwarded = 0;
    size_t received = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    for (size_t i = 0; i < sizeof(payload); i++) {
        payload[i] = (uint8_t)(i * 31 + (i >> 8));
    }
    guest_connects(&host, GUEST, listen_fd, &fd);
    while (received < sizeof(payload)) {
        const uint32_t room = VSOCK_BRIDGE_BUFFER_BYTES - (sent - forwarded);
        const uint32_t bytes = (uint32_t)min_u64(min_u64(room, 10007), sizeof(payload) - sent);
        ssize_t n = 0;

        if (bytes > 0) {
            vsock_guest_send(host.guest, VSOCK_OP_RW, GUEST, PORT, 0, payload + sent, bytes);
            sent += bytes;
        }
        vsock_host_run(&host);
        while ((packet = vsock_guest_next(host.guest)) != NULL) {
            forwarded = packet->header.fwd_cnt;
        }
        if (bytes == 0) { /* only when the guest stands still it reads a little */
            n = recv(fd, got + received, 70001, MSG_DONTWAIT);
            assert_true(n > 0);
            received += (size_t)n;
        }
    }
    assert_memory_equal(got, payload, sizeof(payload));
    (void)close(fd);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* Nothing can be done, so nothing must be found to do: it would spin. */
static void assert_idle(struct vsock_host *host)
{
    vsock_host_run(host);
    for (unsigned i = 0; i < 10; i++) {
        vsock_bridge_look(host->guest->vsock);
        assert_false(vsock_bridge_worked(host->guest->vsock));
    }
}

/* How much data came; nothing but data, and one question for more credit. */
static uint32_t count_data(struct vsock_host *host)
{
    const struct vsock_guest_packet *packet = NULL;
    uint32_t bytes = 0;
    unsigned questions = 0;

    vsock_host_run(host);
    while ((packet = vsock_guest_next(host->guest)) != NULL) {
        if (packet->header.op == VSOCK_OP_CREDIT_REQUEST) {
            questions++;
        } else {
            assert_int_equal(packet->header.op, VSOCK_OP_RW);
            bytes += packet->payload_bytes;
        }
    }
    assert_in_range(questions, 0, 1);
    return bytes;
}

/* The data that comes before the program's end does. */
static uint32_t count_data_until_shutdown(struct vsock_host *host)
{
    const struct vsock_guest_packet *packet = NULL;
    uint32_t bytes = 0;

    vsock_host_run(host);
    while ((packet = vsock_guest_next(host->guest)) != NULL &&
           packet->header.op != VSOCK_OP_SHUTDOWN) {
        bytes += packet->payload_bytes;
    }
    assert_non_null(packet);
    return bytes;
}

static void tell_credit(struct vsock_host *host, uint32_t port, uint32_t buf_alloc,
                        uint32_t forwarded)
{
    struct vsock_header header = vsock_guest_header(VSOCK_OP_CREDIT_UPDATE, 77, port);

    header.buf_alloc = buf_alloc;
    header.fwd_cnt = forwarded;
    vsock_guest_send_raw(host->guest, &header, NULL, 0);
}

/* A flood stays in the program's own socket while the guest gives no credit, or has no buffers. */
static void program_that_floods_waits_in_its_own_socket(void **state)
{
    static uint8_t flood[8 * 1024 * 1024];
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    host.guest->rx_want = 2;
    host.guest->buf_alloc = 50000;
    host_connects(&host, &fd, &port);
    assert_in_range(send(fd, flood, sizeof(flood), MSG_NOSIGNAL | MSG_DONTWAIT), 100000,
                    sizeof(flood) - 1);
    assert_int_equal(count_data(&host), 50000);
    assert_idle(&host);
    tell_credit(&host, port, 50000, 20001);
    assert_int_equal(count_data(&host), 20001);
    assert_idle(&host);
    /* A guest that takes back room, or that has taken what was never sent, gets nothing. */
    tell_credit(&host, port, 100, 20001);
    assert_int_equal(count_data(&host), 0);
    tell_credit(&host, port, 50000, 70002);
    assert_int_equal(count_data(&host), 0);
    assert_idle(&host);
    /* No buffers. */
    host.guest->rx_want = 0;
    tell_credit(&host, port, UINT32_MAX, 70001);
    for (unsigned i = 0; i < 300; i++) {
        (void)vsock_guest_turn(host.guest);
    }
    assert_idle(&host);
    (void)count_data(&host);
    (void)close(fd); /* nor does it wake us when it leaves */
    assert_idle(&host);
    host.guest->rx_want = 2;
    assert_true(count_data_until_shutdown(&host) > 20000);
    vsock_host_fini(&host);
}

/* The same for one that leaves while the guest gives no credit: what it sent waits for the guest.
 */
static void program_that_leaves_is_noticed_when_the_guest_has_taken_all(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    host.guest->buf_alloc = 3;
    host_connects(&host, &fd, &port);
    vsock_host_say(fd, "123456");
    assert_int_equal(count_data(&host), 3);
    (void)close(fd);
    assert_idle(&host);
    tell_credit(&host, port, 3, 3);
    assert_int_equal(count_data(&host), 3);
    assert_idle(&host);
    tell_credit(&host, port, 3, 6);
    assert_int_equal(count_data_until_shutdown(&host), 0);
    vsock_host_fini(&host);
}

static void deadlines_are_kept_in_order(void **state)
{
    struct vsock_host host;
    int fds[3];
    uint64_t deadlines_ns[3];

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        fds[i] = vsock_host_call(&host);
        vsock_host_say(fds[i], "CONNECT 77\n");
        vsock_host_run(&host);
        assert_non_null(vsock_guest_next(host.guest));
        deadlines_ns[i] = vsock_next_deadline_ns(host.guest->vsock);
        assert_int_equal(deadlines_ns[i], deadlines_ns[0]);
    }
    for (unsigned i = 0; i < ARRAY_SIZE(fds); i++) {
        deadlines_ns[i] = vsock_next_deadline_ns(host.guest->vsock);
        assert_true(i == 0 || deadlines_ns[i] > deadlines_ns[i - 1]);
        vsock_expire(host.guest->vsock, deadlines_ns[i] - 1);
        assert_false(vsock_host_gone(fds[i]));
        vsock_expire(host.guest->vsock, deadlines_ns[i]);
        assert_true(vsock_host_gone(fds[i]));
        (void)close(fds[i]);
    }
    assert_int_equal(vsock_next_deadline_ns(host.guest->vsock), 0);
    vsock_host_fini(&host);
}

static void program_that_dies_mid_stream_resets_or_ends_the_connection(void **state)
{
    static uint8_t payload[60 * 1024];
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;
    int fd = -1;
    bool reset = false;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &fd);
    vsock_guest_send(host.guest, VSOCK_OP_RW, GUEST, PORT, 0, payload, sizeof(payload));
    (void)close(fd);
    vsock_guest_send(host.guest, VSOCK_OP_RW, GUEST, PORT, 0, payload, 1000);
    vsock_host_run(&host);
    while ((packet = vsock_guest_next(host.guest)) != NULL) {
        reset = reset || packet->header.op == VSOCK_OP_RST;
    }
    assert_true(reset);
    assert_all_closed(&host);
    /* The same while the guest is silent: it is told, and has 2 s to agree. */
    guest_connects(&host, GUEST, listen_fd, &fd);
    (void)close(fd);
    assert_int_equal(vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, GUEST, PORT)->header.flags,
                     VSOCK_SHUTDOWN_SEND);
    assert_int_equal(vsock_host_expect_packet(&host, VSOCK_OP_SHUTDOWN, GUEST, PORT)->header.flags,
                     VSOCK_SHUTDOWN_BOTH);
    send_data(&host, GUEST, PORT, "too late");
    vsock_guest_expect_nothing(host.guest);
    let_time_pass(&host);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    assert_all_closed(&host);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* The guest closes while the program has not read all: 2 s, then the rest is dropped. */
static void rest_that_nobody_reads_is_dropped_after_2_s(void **state)
{
    static uint8_t payload[VSOCK_BRIDGE_BUFFER_BYTES];
    struct vsock_host host;
    const struct vsock_guest_packet *packet = NULL;
    uint32_t sent = 0;
    uint32_t forwarded = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &fd);
    while (sent - forwarded < VSOCK_BRIDGE_BUFFER_BYTES) {
        const uint32_t room = VSOCK_BRIDGE_BUFFER_BYTES - (sent - forwarded);

        vsock_guest_send(host.guest, VSOCK_OP_RW, GUEST, PORT, 0, payload, room);
        sent += room;
        vsock_host_run(&host);
        while ((packet = vsock_guest_next(host.guest)) != NULL) {
            forwarded = packet->header.fwd_cnt;
        }
    }
    send_shutdown(&host, GUEST, PORT, VSOCK_SHUTDOWN_BOTH);
    vsock_guest_expect_nothing(host.guest);
    let_time_pass(&host);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, GUEST, PORT);
    assert_all_closed(&host);
    (void)close(fd);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* ---- Many ------------------------------------------------------------------------------------ */

static void connections_up_to_1023_work_and_one_more_is_refused(void **state)
{
    static int fds[VSOCK_CONNECTIONS_MAX];
    struct vsock_host host;
    char text[16];

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 16);

    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        guest_connects(&host, 10000 + i, listen_fd, &fds[i]);
    }
    vsock_guest_send(host.guest, VSOCK_OP_REQUEST, 5, PORT, 0, NULL, 0);
    (void)vsock_host_expect_packet(&host, VSOCK_OP_RST, 5, PORT);
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        (void)snprintf(text, sizeof(text), "number %u", i);
        send_data(&host, 10000 + i, PORT, text);
        vsock_host_say(fds[i], text);
        if (i % 50 == 49) {
            vsock_host_run(&host);
        }
    }
    vsock_host_run(&host);
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        (void)snprintf(text, sizeof(text), "number %u", i);
        vsock_host_expect(fds[i], text);
        expect_data(&host, 10000 + i, PORT, text);
    }
    vsock_guest_send(host.guest, VSOCK_OP_RST, 10500, PORT, 0, NULL, 0);
    guest_connects(&host, 5, listen_fd, &fds[0]);
    vsock_guest_write(host.guest, VIRTIO_MMIO_STATUS, 0); /* the driver drops them all */
    assert_int_equal(host.guest->vsock->table.used, 0);
    for (uint32_t i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        assert_true(vsock_host_gone(fds[i]));
        (void)close(fds[i]);
    }
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* As the launcher does, for a moment: the connection is over, but its socket is not. */
static void socket_that_somebody_else_has_open_too_wakes_nobody(void **state)
{
    struct vsock_host host;
    pid_t other = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    const int listen_fd = vsock_host_listen(&host, PORT, 8);

    guest_connects(&host, GUEST, listen_fd, &fd);
    other = fork();
    assert_true(other >= 0);
    if (other == 0) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        for (;;) {
            (void)pause();
        }
    }
    vsock_guest_send(host.guest, VSOCK_OP_RST, GUEST, PORT, 0, NULL, 0);
    assert_all_closed(&host);
    vsock_host_say(fd, "is anybody there");
    vsock_host_run(&host); /* an actor that is told of it is told for ever */
    assert_int_equal(host.guest->packets_count, 0);
    assert_int_equal(kill(other, SIGKILL), 0);
    assert_int_equal(waitpid(other, NULL, 0), other);
    (void)close(fd);
    (void)close(listen_fd);
    vsock_host_fini(&host);
}

/* Callers that come and go as fast as they can: nothing is left of them, and nobody else suffers.
 */
static void storm_of_connections_leaves_nothing_behind(void **state)
{
    struct vsock_host host;
    uint32_t port = 0;
    int fd = -1;

    (void)state;
    begin(&host);
    for (unsigned i = 0; i < 3000; i++) {
        fd = vsock_host_call(&host);
        vsock_host_say(fd, i % 3 == 0 ? "CONNECT 5\n" : i % 3 == 1 ? "CONNECT 5\nabc" : "CONN");
        if (i % 2 == 0) {
            vsock_host_run(&host);
        }
        (void)close(fd);
        while (vsock_guest_next(host.guest) != NULL) {
        }
    }
    vsock_host_run(&host);
    while (vsock_guest_next(host.guest) != NULL) {
    }
    while (vsock_next_deadline_ns(host.guest->vsock) != 0) {
        let_time_pass(&host); /* the guest never answered */
        while (vsock_guest_next(host.guest) != NULL) {
        }
    }
    assert_all_closed(&host);
    host_connects(&host, &fd, &port);
    (void)close(fd);
    vsock_host_fini(&host);
}

/* ---- The broker ------------------------------------------------------------------------------ */

static void stale_socket_is_replaced_and_others_are_respected(void **state)
{
    struct vsock_host host;
    struct vsock_broker *broker = NULL;
    struct vsock_broker *second = NULL;
    struct bvmm_error err;
    struct stat status;
    int fd = -1;

    (void)state;
    vsock_host_make_dir(&host);
    const struct sockaddr_un address = vsock_host_address(&host, -1);

    /* Left behind by a bvmm that was killed. */
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    (void)close(fd);
    assert_int_equal(vsock_broker_new(host.path, &broker, &err), 0);
    /* In use. */
    assert_int_equal(vsock_broker_new(host.path, &second, &err), -EADDRINUSE);
    assert_int_equal(err.kind, BVMM_ERROR_IO);
    assert_non_null(strstr(err.message, host.path));
    assert_int_equal(lstat(host.path, &status), 0);
    vsock_broker_free(broker);
    assert_int_equal(lstat(host.path, &status), -1); /* its name went with it */
    /* A file of somebody's. */
    (void)close(open(host.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    assert_int_equal(vsock_broker_new(host.path, &broker, &err), -EEXIST);
    assert_non_null(strstr(err.message, "no socket"));
    assert_int_equal(unlink(host.path), 0);
    /* A directory that is not there; a name that is too long. */
    assert_int_equal(vsock_broker_new("/tmp/bvmm-no-such-dir/v", &broker, &err), -ENOENT);
    assert_int_equal(err.kind, BVMM_ERROR_IO);
    assert_int_equal(
        vsock_broker_new(
            "/tmp/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            &broker, &err),
        -ENAMETOOLONG);
    /* Somebody replaced it meanwhile: that one is not ours to remove. */
    assert_int_equal(vsock_broker_new(host.path, &broker, &err), 0);
    assert_int_equal(unlink(host.path), 0);
    (void)close(open(host.path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    vsock_broker_free(broker);
    assert_int_equal(lstat(host.path, &status), 0);
    vsock_host_remove_dir(&host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(guest_reaches_a_program_and_both_talk),
        cmocka_unit_test(program_reaches_the_guest_and_both_talk),
        cmocka_unit_test(bytes_behind_the_connect_line_are_the_guests),
        cmocka_unit_test(half_close_of_the_guest_leaves_the_other_half),
        cmocka_unit_test(half_close_of_the_program_leaves_the_other_half),
        cmocka_unit_test(guest_that_stops_receiving_stops_the_program),
        cmocka_unit_test(port_that_nobody_serves_is_refused),
        cmocka_unit_test(program_with_a_full_queue_is_refused_at_once),
        cmocka_unit_test(launcher_that_does_not_answer_is_a_timeout),
        cmocka_unit_test(launcher_that_is_gone_means_refused),
        cmocka_unit_test(call_before_the_guest_is_ready_waits_for_it),
        cmocka_unit_test(guest_that_refuses_a_call_closes_it),
        cmocka_unit_test(guest_that_does_not_answer_a_call_is_a_timeout),
        cmocka_unit_test(guest_that_sends_before_it_accepts_is_reset),
        cmocka_unit_test(garbage_instead_of_connect_is_hung_up_on),
        cmocka_unit_test(line_that_comes_in_pieces_is_put_together),
        cmocka_unit_test(program_that_leaves_mid_line_is_forgotten),
        cmocka_unit_test(storm_of_silent_callers_keeps_nobody_out),
        cmocka_unit_test(program_that_never_reads_stops_only_its_connection),
        cmocka_unit_test(slow_program_gets_every_byte_in_order),
        cmocka_unit_test(program_that_floods_waits_in_its_own_socket),
        cmocka_unit_test(program_that_leaves_is_noticed_when_the_guest_has_taken_all),
        cmocka_unit_test(deadlines_are_kept_in_order),
        cmocka_unit_test(program_that_dies_mid_stream_resets_or_ends_the_connection),
        cmocka_unit_test(rest_that_nobody_reads_is_dropped_after_2_s),
        cmocka_unit_test(connections_up_to_1023_work_and_one_more_is_refused),
        cmocka_unit_test(socket_that_somebody_else_has_open_too_wakes_nobody),
        cmocka_unit_test(storm_of_connections_leaves_nothing_behind),
        cmocka_unit_test(stale_socket_is_replaced_and_others_are_respected),
    };
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < 4096) {
        limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
