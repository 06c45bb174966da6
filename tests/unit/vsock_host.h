/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_host.h: host programs for tests of the vsock bridge: the real broker, real UNIX sockets in
 * a directory of their own, and a guest without threads.
 */
#ifndef BVMM_TESTS_UNIT_VSOCK_HOST_H
#define BVMM_TESTS_UNIT_VSOCK_HOST_H

#include "vsock_guest.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "actors/vsock_broker.h"

struct vsock_host {
    char dir[64];
    char path[80]; /* vsock_path */
    struct vsock_broker *broker;
    struct vsock_bridge *bridge;
    struct vsock_guest *guest;
};

static inline void vsock_host_make_dir(struct vsock_host *host)
{
    (void)snprintf(host->dir, sizeof(host->dir), "/tmp/bvmm-vsock-test.XXXXXX");
    assert_non_null(mkdtemp(host->dir));
    (void)snprintf(host->path, sizeof(host->path), "%s/v", host->dir);
}

static inline void vsock_host_remove_dir(const struct vsock_host *host)
{
    char command[128];

    (void)snprintf(command, sizeof(command), "rm -rf '%s'", host->dir);
    assert_int_equal(system(command), 0);
}

/* With a guest whose driver is not there yet. */
static inline void vsock_host_init(struct vsock_host *host)
{
    struct bvmm_error err;

    memset(host, 0, sizeof(*host));
    vsock_host_make_dir(host);
    assert_int_equal(vsock_broker_new(host->path, &host->broker, &err), 0);
    assert_int_equal(vsock_bridge_new(vsock_broker_listen_fd(host->broker),
                                      vsock_broker_actor_fd(host->broker), &host->bridge),
                     0);
    host->guest = vsock_guest_new(host->bridge);
}

static inline void vsock_host_fini(struct vsock_host *host)
{
    vsock_guest_free(host->guest);
    vsock_bridge_free(host->bridge);
    vsock_broker_free(host->broker);
    vsock_host_remove_dir(host);
}

/* Guest, actor and launcher in turn, until nothing moves. */
static inline void vsock_host_run(struct vsock_host *host)
{
    struct pollfd request = {.fd = vsock_broker_fd(host->broker), .events = POLLIN};

    vsock_guest_run(host->guest);
    while (request.fd >= 0 && poll(&request, 1, 0) > 0) {
        vsock_broker_serve(host->broker);
        vsock_guest_run(host->guest);
    }
}

static inline struct sockaddr_un vsock_host_address(const struct vsock_host *host, int64_t port)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char text[sizeof(host->path) + 24];

    if (port >= 0) {
        (void)snprintf(text, sizeof(text), "%s_%lld", host->path, (long long)port);
    } else {
        (void)snprintf(text, sizeof(text), "%s", host->path);
    }
    assert_true(strlen(text) < sizeof(address.sun_path));
    memcpy(address.sun_path, text, strlen(text) + 1);
    return address;
}

/* A program that serves a port. */
static inline int vsock_host_listen(const struct vsock_host *host, uint32_t port, int backlog)
{
    const struct sockaddr_un address = vsock_host_address(host, port);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, backlog), 0);
    return fd;
}

static inline int vsock_host_accept(int listen_fd)
{
    const int fd = accept4(listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    assert_true(fd >= 0);
    return fd;
}

/* A program that calls: connected to vsock_path. */
static inline int vsock_host_call(const struct vsock_host *host)
{
    const struct sockaddr_un address = vsock_host_address(host, -1);
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    return fd;
}

static inline void vsock_host_say(int fd, const char *text)
{
    assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

/* The socket must hold exactly this now. */
static inline void vsock_host_expect(int fd, const char *text)
{
    char got[4096] = "";
    const ssize_t bytes = recv(fd, got, sizeof(got) - 1, MSG_DONTWAIT);

    assert_int_equal(bytes, strlen(text));
    assert_string_equal(got, text);
}

static inline void vsock_host_expect_nothing(int fd)
{
    char got = 0;

    assert_int_equal(recv(fd, &got, 1, MSG_DONTWAIT), -1);
    assert_int_equal(errno, EAGAIN);
}

static inline void vsock_host_expect_end(int fd)
{
    char got = 0;

    assert_int_equal(recv(fd, &got, 1, MSG_DONTWAIT), 0);
}

/* The other side has closed it altogether, or reset it. */
static inline bool vsock_host_gone(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLOUT};

    return poll(&poll_fd, 1, 0) > 0 && (poll_fd.revents & (POLLHUP | POLLERR)) != 0;
}

static inline const struct vsock_guest_packet *vsock_host_expect_packet(struct vsock_host *host,
                                                                        enum vsock_op op,
                                                                        uint32_t guest_port,
                                                                        uint32_t host_port)
{
    vsock_host_run(host);
    return vsock_guest_expect(host->guest, op, guest_port, host_port);
}

#endif
