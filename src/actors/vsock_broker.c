/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* vsock_broker.c: the bridge's side outside of the sandbox. See vsock_broker.h. */
#include "actors/vsock_broker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_BACKLOG 128
#define REQUESTS_AT_ONCE 16

struct vsock_broker {
    char path[sizeof(((struct sockaddr_un *)NULL)->sun_path)];
    dev_t device; /* of the socket's name, to know it again */
    ino_t inode;
    int listen_fd;
    int actor_fd;    /* the actor's end */
    int launcher_fd; /* ours */
};

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

/* ---- The listening socket -------------------------------------------------------------------- */

/* 0, or -ENAMETOOLONG. */
static int make_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address->sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address->sun_path, path, strlen(path));
    return 0;
}

static int connect_to(const char *path, int *ret_fd)
{
    struct sockaddr_un address;
    int code = make_address(&address, path);
    const int fd = code == 0 ? socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0) : -1;

    if (fd < 0) {
        return code < 0 ? code : -errno;
    }
    /* A UNIX socket connects at once, or there is no room in the other's queue (EAGAIN). */
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        code = -errno;
        (void)close(fd);
        return code;
    }
    *ret_fd = fd;
    return 0;
}

/* Something has the name. If it is a socket that nobody listens on any more, it goes. */
static int remove_stale(const char *path, struct bvmm_error *err)
{
    struct stat status;
    int fd = -1;
    int code = 0;

    if (lstat(path, &status) < 0) {
        return errno == ENOENT ? 0 : -errno;
    }
    if (!S_ISSOCK(status.st_mode)) {
        return error_set(err, BVMM_ERROR_IO, -EEXIST,
                         "$.vsock_path: %s is there already, and is no socket; name another, or "
                         "remove it",
                         path);
    }
    code = connect_to(path, &fd);
    close_if_open(&fd);
    if (code != -ECONNREFUSED) {
        return error_set(err, BVMM_ERROR_IO, -EADDRINUSE,
                         "$.vsock_path: another program listens on %s (another VM?); name another",
                         path);
    }
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

static int listen_at(struct vsock_broker *broker, struct bvmm_error *err)
{
    struct sockaddr_un address;
    struct stat status;
    int code = make_address(&address, broker->path);

    broker->listen_fd =
        fd_above_standard(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (code < 0 || broker->listen_fd < 0) {
        return code < 0 ? code : -errno;
    }
    if (bind(broker->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
        code = errno == EADDRINUSE ? remove_stale(broker->path, err) : -errno;
        if (code == 0 &&
            bind(broker->listen_fd, (const struct sockaddr *)&address, sizeof(address)) < 0) {
            code = -errno;
        }
    }
    if (code < 0) {
        return code;
    }
    if (lstat(broker->path, &status) < 0) {
        return -errno;
    }
    broker->device = status.st_dev;
    broker->inode = status.st_ino;
    return listen(broker->listen_fd, LISTEN_BACKLOG) < 0 ? -errno : 0;
}

int vsock_broker_new(const char *path, struct vsock_broker **ret_broker, struct bvmm_error *err)
{
    struct vsock_broker *broker = calloc(1, sizeof(*broker));
    int fds[2] = {-1, -1};
    int code = 0;

    err->kind = BVMM_ERROR_NONE;
    if (broker == NULL) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "no memory for the vsock bridge");
    }
    broker->listen_fd = -1;
    broker->actor_fd = -1;
    broker->launcher_fd = -1;
    if (strlen(path) + sizeof("_4294967295") > sizeof(broker->path)) {
        code = -ENAMETOOLONG;
    } else {
        (void)snprintf(broker->path, sizeof(broker->path), "%s", path);
        code = listen_at(broker, err);
    }
    if (code == 0 &&
        (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds) < 0 ||
         fd_pair_above_standard(fds) < 0)) {
        code = -errno;
    }
    broker->launcher_fd = fds[0];
    broker->actor_fd = fds[1];
    if (code < 0) {
        vsock_broker_free(broker);
        return err->kind != BVMM_ERROR_NONE
                   ? code
                   : error_set(err, BVMM_ERROR_IO, code, "$.vsock_path: cannot listen on %s: %s",
                               path, error_text(-code));
    }
    *ret_broker = broker;
    return 0;
}

int vsock_broker_listen_fd(const struct vsock_broker *broker)
{
    return broker->listen_fd;
}

int vsock_broker_actor_fd(const struct vsock_broker *broker)
{
    return broker->actor_fd;
}

void vsock_broker_forked(struct vsock_broker *broker)
{
    close_if_open(&broker->listen_fd);
    close_if_open(&broker->actor_fd);
}

/* ---- Requests -------------------------------------------------------------------------------- */

int vsock_broker_fd(const struct vsock_broker *broker)
{
    return broker != NULL ? broker->launcher_fd : -1;
}

static int connect_port(const struct vsock_broker *broker, uint32_t port, int *ret_fd)
{
    char path[sizeof(broker->path)];
    const int length = snprintf(path, sizeof(path), "%s_%u", broker->path, port);

    if (length < 0 || (size_t)length >= sizeof(path)) {
        return -ENAMETOOLONG;
    }
    return connect_to(path, ret_fd);
}

/* An answer that the actor does not take in time is lost; it gives up after its own deadline. */
static void answer(const struct vsock_broker *broker, const struct vsock_broker_answer *text,
                   int fd)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct vsock_broker_answer copy = *text;
    struct iovec iov = {.iov_base = &copy, .iov_len = sizeof(copy)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (fd >= 0) {
        msg.msg_control = control.bytes;
        msg.msg_controllen = sizeof(control.bytes);
        control.header.cmsg_level = SOL_SOCKET;
        control.header.cmsg_type = SCM_RIGHTS;
        control.header.cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    }
    (void)sendmsg(broker->launcher_fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void vsock_broker_serve(struct vsock_broker *broker)
{
    struct vsock_broker_request request;

    for (unsigned i = 0; i < REQUESTS_AT_ONCE && broker->launcher_fd >= 0; i++) {
        const ssize_t n = recv(broker->launcher_fd, &request, sizeof(request), MSG_DONTWAIT);
        struct vsock_broker_answer text;
        int fd = -1;

        if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
            return;
        }
        if (n != sizeof(request)) { /* the actor is gone, or nobody that we know */
            close_if_open(&broker->launcher_fd);
            return;
        }
        text = (struct vsock_broker_answer){.id = request.id,
                                            .error = connect_port(broker, request.port, &fd)};
        answer(broker, &text, fd);
        close_if_open(&fd);
    }
}

void vsock_broker_free(struct vsock_broker *broker)
{
    struct stat status;

    if (broker == NULL) {
        return;
    }
    /* By the calls that have the same names on all architectures: vmm/launcher_policy.c names them. */
    if (broker->inode != 0 && fstatat(AT_FDCWD, broker->path, &status, AT_SYMLINK_NOFOLLOW) == 0 &&
        status.st_dev == broker->device && status.st_ino == broker->inode) {
        (void)unlinkat(AT_FDCWD, broker->path, 0);
    }
    close_if_open(&broker->listen_fd);
    close_if_open(&broker->actor_fd);
    close_if_open(&broker->launcher_fd);
    free(broker);
}
