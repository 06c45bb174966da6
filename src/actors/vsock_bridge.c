/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_bridge.c: ports that are UNIX sockets of the host. See vsock_bridge.h.
 *
 * Thread: vsock. Blocks: epoll_pwait. System calls: epoll_pwait, epoll_ctl, accept4, recvmsg, sendmsg,
 * shutdown, close.
 */
#include "actors/vsock_bridge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "actors/vsock.h"
#include "actors/vsock_broker.h"

#define ACCEPTS_AT_ONCE 8
#define ANSWERS_AT_ONCE 8
#define EVENTS_AT_ONCE 64 /* what is left over comes first the next time */
/* accept4() failed for want of descriptors or memory: look again after this long. */
#define ACCEPT_PAUSE_NS NS_PER_SECOND

/* How a descriptor stands in the list of those that the actor sleeps on. */
struct watch {
    bool on;
    uint32_t events; /* EPOLLHUP and EPOLLERR are told whether one asks for them or not */
};

/* One connection of the guest's, seen from the host's side. */
struct vsock_bridged {
    int fd; /* -1: not connected yet */
    struct watch watch;
    bool changed;        /* it is in the list of those whose watch may have to */
    uint32_t request_id; /* what the broker was asked; 0: nothing */
    bool host_ended;     /* it sends no more, and all that it sent was fetched */
    uint32_t first;      /* the buffer is a ring */
    uint32_t used;
    uint8_t *buffer; /* VSOCK_BRIDGE_BUFFER_BYTES */
};

/* A host program that has not said all of "CONNECT <port>\n" yet. */
struct caller {
    int fd; /* -1: free */
    struct watch watch;
    uint32_t order;
    uint32_t line_bytes;
    char line[VSOCK_BRIDGE_LINE_BYTES];
};

/* Whose a watched descriptor is: one of these, or a caller's, or a connection's, by their indices. */
enum {
    OWNER_DOORBELL,
    OWNER_LISTENER,
    OWNER_BROKER,
    OWNER_CALLERS,
    OWNER_CONNS = OWNER_CALLERS + VSOCK_BRIDGE_CALLERS_MAX,
};

struct vsock_bridge {
    int listen_fd;
    int broker_fd;
    int epoll_fd;
    struct watch watches[OWNER_CALLERS]; /* of doorbell, listener and broker */
    uint8_t *buffers;
    uint32_t last_request_id;
    uint32_t last_order;
    uint32_t next_port;
    uint64_t accept_again_ns; /* 0: accepting */
    bool worked;
    struct vsock_conn_list changed;                      /* those with bridged->changed */
    struct vsock_bridged bridged[VSOCK_CONNECTIONS_MAX]; /* by conn->index */
    struct caller callers[VSOCK_BRIDGE_CALLERS_MAX];
    struct epoll_event events[EVENTS_AT_ONCE];
};

/* ---- What is watched ------------------------------------------------------------------------- */

/* 0 or -errno: no memory. */
static int set_watch(const struct vsock_bridge *bridge, struct watch *watch, int fd, unsigned owner,
                     struct watch wanted)
{
    struct epoll_event event = {.events = wanted.events, .data.u32 = owner};
    int operation = EPOLL_CTL_DEL;

    if (wanted.on == watch->on && wanted.events == watch->events) {
        return 0;
    }
    if (wanted.on) {
        operation = watch->on ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    }
    if (epoll_ctl(bridge->epoll_fd, operation, fd, &event) < 0) {
        return -errno;
    }
    *watch = wanted;
    return 0;
}

static const struct watch watch_nothing = {.on = false};
static const struct watch watch_input = {.on = true, .events = EPOLLIN};

/* ---- Towards the host ------------------------------------------------------------------------ */

/* How much of it went; 0 if there is no room. -errno: the host is gone. */
static ssize_t send_now(int fd, struct iovec *iov, int count)
{
    const struct msghdr msg = {.msg_iov = iov, .msg_iovlen = (size_t)count};
    ssize_t bytes = 0;

    do {
        bytes = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    return bytes;
}

/* The ring's content, or its room. */
static int ring_iov(const struct vsock_bridged *bridged, uint32_t from, uint32_t bytes,
                    struct iovec iov[2])
{
    const uint32_t at = from % VSOCK_BRIDGE_BUFFER_BYTES;
    const uint32_t part = (uint32_t)min_u64(bytes, VSOCK_BRIDGE_BUFFER_BYTES - at);

    iov[0] = (struct iovec){.iov_base = bridged->buffer + at, .iov_len = part};
    iov[1] = (struct iovec){.iov_base = bridged->buffer, .iov_len = bytes - part};
    return part < bytes ? 2 : 1;
}

/* Keep payload from `offset` on. There is room: it is the guest's credit. */
static void keep(struct vsock_bridged *bridged, const struct virtq_chain *chain, uint64_t offset,
                 uint32_t bytes)
{
    struct iovec iov[2];
    const int count = ring_iov(bridged, bridged->first + bridged->used, bytes, iov);

    for (int i = 0; i < count; i++) {
        (void)virtq_chain_read(chain, VSOCK_HEADER_BYTES + offset, iov[i].iov_base, iov[i].iov_len);
        offset += iov[i].iov_len;
    }
    bridged->used += bytes;
}

/* Straight from guest memory, as far as it goes at once. */
static ssize_t send_chain(int fd, const struct virtq_chain *chain, uint64_t bytes)
{
    struct iovec iov[VIRTQ_SEGMENTS_MAX];
    uint64_t skip_bytes = VSOCK_HEADER_BYTES;
    int count = 0;

    for (unsigned i = 0; i < chain->readable_count && bytes > 0; i++) {
        const struct virtq_segment *segment = &chain->segments[i];
        const uint64_t skipped_bytes = min_u64(skip_bytes, segment->bytes);
        const uint64_t part_bytes = min_u64(segment->bytes - skipped_bytes, bytes);

        skip_bytes -= skipped_bytes;
        bytes -= part_bytes;
        if (part_bytes > 0) {
            iov[count++] = (struct iovec){.iov_base = (uint8_t *)segment->host + skipped_bytes,
                                          .iov_len = (size_t)part_bytes};
        }
    }
    return count == 0 ? 0 : send_now(fd, iov, count);
}

static struct vsock_bridged *bridged_of(struct vsock *vsock, const struct vsock_conn *conn)
{
    return &vsock->bridge->bridged[conn->index];
}

/* What is wanted of its socket may be something else now: it is looked at before the next sleep. */
static void bridge_changed(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);

    if (!bridged->changed) {
        bridged->changed = true;
        TAILQ_INSERT_TAIL(&vsock->bridge->changed, conn, service_link);
    }
}

static int bridge_receive(struct vsock *vsock, struct vsock_conn *conn,
                          const struct virtq_chain *chain, uint32_t bytes)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);
    ssize_t sent = 0;

    if (bridged->used == 0) {
        sent = send_chain(bridged->fd, chain, bytes);
        if (sent < 0) {
            return (int)sent;
        }
        vsock_conn_forwarded(vsock, conn, (uint32_t)sent);
    }
    if ((uint32_t)sent < bytes) {
        keep(bridged, chain, (uint64_t)sent, bytes - (uint32_t)sent);
    }
    return 0;
}

/* The guest has sent its last byte, and the host has it. */
static void host_has_all(struct vsock *vsock, struct vsock_conn *conn)
{
    if (conn->peer_shutdown == VSOCK_SHUTDOWN_BOTH) {
        vsock_conn_reset(vsock, conn); /* which answers the guest's SHUTDOWN of both halves */
    } else {
        (void)shutdown(bridged_of(vsock, conn)->fd, SHUT_WR);
    }
}

/* The host has room again. */
static void flush(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);
    struct iovec iov[2];
    const int count = ring_iov(bridged, bridged->first, bridged->used, iov);
    const ssize_t sent = send_now(bridged->fd, iov, count);

    if (sent < 0) {
        vsock_conn_reset(vsock, conn);
        return;
    }
    bridged->first = (bridged->first + (uint32_t)sent) % VSOCK_BRIDGE_BUFFER_BYTES;
    bridged->used -= (uint32_t)sent;
    vsock_conn_forwarded(vsock, conn, (uint32_t)sent);
    if (bridged->used == 0 && (conn->peer_shutdown & VSOCK_SHUTDOWN_SEND) != 0) {
        host_has_all(vsock, conn);
    }
}

/* ---- The service ----------------------------------------------------------------------------- */

static void attach(struct vsock *vsock, struct vsock_conn *conn, int fd, uint32_t request_id)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);

    bridged->fd = fd;
    bridged->request_id = request_id;
    bridged->host_ended = false;
    bridged->first = 0;
    bridged->used = 0;
    conn->buf_alloc = VSOCK_BRIDGE_BUFFER_BYTES;
    bridge_changed(vsock, conn);
}

/* The guest wants a port of the host: the broker connects us to its socket. */
static int bridge_open(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_bridge *bridge = vsock->bridge;
    struct vsock_broker_request request = {.id = ++bridge->last_request_id,
                                           .port = conn->host_port};
    struct iovec iov = {.iov_base = &request, .iov_len = sizeof(request)};

    if (request.id == 0) {
        request.id = ++bridge->last_request_id; /* 0 means: none */
    }
    if (bridge->broker_fd < 0 || send_now(bridge->broker_fd, &iov, 1) != sizeof(request)) {
        return -ECONNREFUSED;
    }
    attach(vsock, conn, -1, request.id);
    return VSOCK_OPEN_LATER;
}

static void bridge_accepted(struct vsock *vsock, struct vsock_conn *conn)
{
    char text[VSOCK_BRIDGE_LINE_BYTES];
    const int length = snprintf(text, sizeof(text), "OK %u\n", conn->host_port);
    struct iovec iov = {.iov_base = text, .iov_len = (size_t)length};

    /* The socket is empty in this direction: the line fits, or nobody reads it. */
    if (send_now(bridged_of(vsock, conn)->fd, &iov, 1) != length) {
        vsock_conn_reset(vsock, conn);
    }
}

static void bridge_peer_shutdown(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);

    if ((conn->peer_shutdown & VSOCK_SHUTDOWN_RECEIVE) != 0) {
        (void)shutdown(bridged->fd, SHUT_RD);
    }
    if ((conn->peer_shutdown & VSOCK_SHUTDOWN_SEND) != 0 && bridged->used == 0) {
        host_has_all(vsock, conn);
    } else if (conn->peer_shutdown == VSOCK_SHUTDOWN_BOTH && conn->deadline_ns == 0) {
        vsock_conn_set_deadline(vsock, conn); /* for the host to take the rest */
    }
}

static ssize_t bridge_fetch(struct vsock *vsock, struct vsock_conn *conn, const struct iovec *iov,
                            int count)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);
    struct iovec copy[VIRTQ_SEGMENTS_MAX];
    struct msghdr msg = {.msg_iov = copy, .msg_iovlen = (size_t)count};
    ssize_t bytes = 0;

    memcpy(copy, iov, (size_t)count * sizeof(*iov));
    do {
        bytes = recvmsg(bridged->fd, &msg, MSG_DONTWAIT);
    } while (bytes < 0 && errno == EINTR);
    if (bytes < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    if (bytes == 0) {
        bridged->host_ended = true;
        vsock_conn_shutdown_send(vsock, conn);
    }
    return bytes;
}

static void bridge_gone(struct vsock *vsock, struct vsock_conn *conn)
{
    struct vsock_bridged *bridged = bridged_of(vsock, conn);

    if (bridged->fd >= 0) {
        /* Not left to close(): the launcher may have its copy of the socket a moment longer. */
        (void)set_watch(vsock->bridge, &bridged->watch, bridged->fd, 0, watch_nothing);
        (void)close(bridged->fd);
    }
    bridged->fd = -1;
    bridged->request_id = 0;
    vsock->bridge->accept_again_ns = 0;
    if (bridged->changed) {
        bridged->changed = false;
        TAILQ_REMOVE(&vsock->bridge->changed, conn, service_link);
    }
}

const struct vsock_service vsock_bridge_service = {
    .name = "bridge",
    .open = bridge_open,
    .accepted = bridge_accepted,
    .receive = bridge_receive,
    .peer_shutdown = bridge_peer_shutdown,
    .fetch = bridge_fetch,
    .changed = bridge_changed,
    .gone = bridge_gone,
};

/* ---- The broker's answers -------------------------------------------------------------------- */

static struct vsock_conn *find_request(struct vsock *vsock, uint32_t id)
{
    for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        if (vsock->bridge->bridged[i].request_id == id) {
            return &vsock->table.conns[i];
        }
    }
    return NULL;
}

static void take_answer(struct vsock *vsock, const struct vsock_broker_answer *answer, int fd)
{
    struct vsock_conn *conn = answer->id != 0 ? find_request(vsock, answer->id) : NULL;

    if (conn == NULL) {
        if (fd >= 0) {
            (void)close(fd); /* the guest did not wait */
        }
        return;
    }
    bridged_of(vsock, conn)->request_id = 0;
    bridged_of(vsock, conn)->fd = fd;
    if (fd < 0) {
        vsock_conn_reset(vsock, conn);
    } else {
        vsock_conn_opened(vsock, conn);
        bridge_changed(vsock, conn);
    }
}

/* One answer. False: there is none, or there will be none any more. */
static bool read_answer(struct vsock *vsock)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct vsock_broker_answer answer;
    struct iovec iov = {.iov_base = &answer, .iov_len = sizeof(answer)};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = control.bytes,
                         .msg_controllen = sizeof(control.bytes)};
    struct vsock_bridge *bridge = vsock->bridge;
    const ssize_t bytes = recvmsg(bridge->broker_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    const struct cmsghdr *header = bytes > 0 ? CMSG_FIRSTHDR(&msg) : NULL;
    int fd = -1;

    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        return false;
    }
    if (bytes != sizeof(answer)) {
        (void)set_watch(bridge, &bridge->watches[OWNER_BROKER], bridge->broker_fd, OWNER_BROKER,
                        watch_nothing);
        bridge->broker_fd = -1; /* the launcher is gone, and soon so are we */
        return false;
    }
    if (header != NULL && header->cmsg_type == SCM_RIGHTS &&
        header->cmsg_len == CMSG_LEN(sizeof(int))) {
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    }
    take_answer(vsock, &answer, fd);
    return true;
}

/* ---- Callers --------------------------------------------------------------------------------- */

static void drop_caller(struct vsock_bridge *bridge, struct caller *caller)
{
    (void)close(caller->fd);
    caller->fd = -1;
    bridge->accept_again_ns = 0;
}

/* A free place, or the one of whoever has been silent for longest. */
static struct caller *caller_place(struct vsock_bridge *bridge)
{
    struct caller *oldest = &bridge->callers[0];

    for (unsigned i = 0; i < VSOCK_BRIDGE_CALLERS_MAX; i++) {
        struct caller *caller = &bridge->callers[i];

        if (caller->fd < 0) {
            return caller;
        }
        if ((int32_t)(caller->order - oldest->order) < 0) {
            oldest = caller;
        }
    }
    drop_caller(bridge, oldest);
    return oldest;
}

static void take_caller(struct vsock_bridge *bridge, int fd)
{
    struct caller *caller = caller_place(bridge);

    *caller = (struct caller){.fd = fd, .order = ++bridge->last_order};
    if (set_watch(bridge, &caller->watch, fd, OWNER_CALLERS + (unsigned)(caller - bridge->callers),
                  watch_input) < 0) {
        drop_caller(bridge, caller);
    }
}

static void take_callers(struct vsock_bridge *bridge)
{
    for (unsigned i = 0; i < ACCEPTS_AT_ONCE; i++) {
        const int fd = accept4(bridge->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

        if (fd >= 0) {
            take_caller(bridge, fd);
            continue;
        }
        if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
            /* No descriptors or memory: the caller stays in the queue, and would be told of for
             * ever. */
            bridge->accept_again_ns = clock_monotonic_ns() + ACCEPT_PAUSE_NS;
        }
        return;
    }
}

/* "CONNECT <port>", NUL-terminated. 0 and *ret_port, or -EINVAL. */
static int parse_connect(const char *line, uint32_t *ret_port)
{
    static const char word[] = "CONNECT ";
    uint64_t port = 0;
    const char *digit = line + sizeof(word) - 1;

    if (strncmp(line, word, sizeof(word) - 1) != 0 || *digit == '\0') {
        return -EINVAL;
    }
    for (; *digit >= '0' && *digit <= '9' && port < UINT32_MAX; digit++) {
        port = port * 10 + (uint64_t)(*digit - '0');
    }
    if (*digit == '\r') {
        digit++;
    }
    if (*digit != '\0' || digit[-1] == ' ' || port >= UINT32_MAX) {
        return -EINVAL; /* the last port means "any" */
    }
    *ret_port = (uint32_t)port;
    return 0;
}

/* A caller has said where to. Its socket is the connection's from here on, or closed. */
static void connect_caller(struct vsock *vsock, struct caller *caller)
{
    struct vsock_bridge *bridge = vsock->bridge;
    struct vsock_conn *conn = NULL;
    uint32_t port = 0;

    if (parse_connect(caller->line, &port) == 0) {
        while (vsock_ports_used(vsock, port, bridge->next_port)) {
            bridge->next_port++; /* ends: there are more ports than connections */
        }
        conn = vsock_conn_request(vsock, &vsock_bridge_service, port, bridge->next_port);
    }
    if (conn == NULL) {
        drop_caller(bridge, caller);
        return;
    }
    bridge->next_port++;
    if (bridge->next_port >= 2 * VSOCK_BRIDGE_FIRST_PORT) {
        bridge->next_port = VSOCK_BRIDGE_FIRST_PORT;
    }
    (void)set_watch(bridge, &caller->watch, caller->fd, 0, watch_nothing);
    attach(vsock, conn, caller->fd, 0);
    caller->fd = -1;
}

/* Take what belongs to the line, and nothing behind it: that is for the guest. */
static void hear_caller(struct vsock *vsock, struct caller *caller)
{
    const size_t room_bytes = sizeof(caller->line) - 1 - caller->line_bytes;
    char *end = caller->line + caller->line_bytes;
    struct iovec iov = {.iov_base = end, .iov_len = room_bytes};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t bytes = recvmsg(caller->fd, &msg, MSG_DONTWAIT | MSG_PEEK);
    const char *newline = NULL;

    if (bytes < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (bytes <= 0) {
        drop_caller(vsock->bridge, caller);
        return;
    }
    newline = memchr(end, '\n', (size_t)bytes);
    iov.iov_len = newline != NULL ? (size_t)(newline - end) + 1 : (size_t)bytes;
    bytes = recvmsg(caller->fd, &msg, MSG_DONTWAIT);
    if (bytes != (ssize_t)iov.iov_len) {
        drop_caller(vsock->bridge, caller);
        return;
    }
    caller->line_bytes += (uint32_t)bytes;
    if (newline != NULL) {
        caller->line[caller->line_bytes - 1] = '\0';
        connect_caller(vsock, caller);
    } else if (caller->line_bytes == sizeof(caller->line) - 1) {
        drop_caller(vsock->bridge, caller); /* no port is that long */
    }
}

/* ---- Looking at sockets ---------------------------------------------------------------------- */

/* Nothing more can come from the host that the guest would take. */
static bool only_sending(struct vsock *vsock, const struct vsock_conn *conn)
{
    return bridged_of(vsock, conn)->host_ended ||
           (conn->peer_shutdown & VSOCK_SHUTDOWN_RECEIVE) != 0;
}

/*
 * What to watch for. Where nothing could be done whatever happened, its socket is not watched at all:
 * it could only wake the actor for nothing, again and again.
 */
static struct watch wanted_watch(struct vsock *vsock, const struct vsock_conn *conn)
{
    const struct vsock_bridged *bridged = bridged_of(vsock, conn);
    struct watch wanted = {.on = bridged->fd >= 0};

    if (!wanted.on || conn->state != VSOCK_CONN_OPEN) {
        return wanted; /* only whether the host is still there: if not, it is dropped */
    }
    if (bridged->used > 0) {
        wanted.events |= EPOLLOUT;
    }
    if (!only_sending(vsock, conn) && !conn->readable && vsock_conn_credit(conn) > 0) {
        wanted.events |= EPOLLIN;
    }
    wanted.on = wanted.events != 0 || only_sending(vsock, conn);
    return wanted;
}

/* Those of the connections that have changed. There is no memory for one: it is reset. */
static void watch_changed(struct vsock *vsock)
{
    struct vsock_bridge *bridge = vsock->bridge;
    struct vsock_conn *conn = NULL;

    while ((conn = TAILQ_FIRST(&bridge->changed)) != NULL) {
        struct vsock_bridged *bridged = bridged_of(vsock, conn);

        TAILQ_REMOVE(&bridge->changed, conn, service_link);
        bridged->changed = false;
        if (set_watch(bridge, &bridged->watch, bridged->fd, OWNER_CONNS + conn->index,
                      wanted_watch(vsock, conn)) < 0) {
            vsock_conn_reset(vsock, conn);
            bridge->worked = true;
        }
    }
}

/* Before each look, and each sleep. 0 or -errno. */
static int update_watches(struct vsock *vsock)
{
    struct vsock_bridge *bridge = vsock->bridge;
    const int fds[OWNER_CALLERS] = {
        [OWNER_DOORBELL] = mailbox_doorbell_fd(vsock->virtio.self->mailbox),
        [OWNER_LISTENER] = bridge->listen_fd,
        [OWNER_BROKER] = bridge->broker_fd,
    };

    watch_changed(vsock);
    for (unsigned owner = 0; owner < OWNER_CALLERS; owner++) {
        const bool pause = owner == OWNER_LISTENER && bridge->accept_again_ns != 0;
        const int code = set_watch(bridge, &bridge->watches[owner], fds[owner], owner,
                                   fds[owner] >= 0 && !pause ? watch_input : watch_nothing);

        if (code < 0) {
            return code;
        }
    }
    return 0;
}

static void serve_conn(struct vsock *vsock, struct vsock_conn *conn, uint32_t events)
{
    bridge_changed(vsock, conn);
    if (conn->state != VSOCK_CONN_OPEN) {
        vsock_conn_cancel(vsock, conn); /* its host program did not wait for the guest's answer */
        return;
    }
    if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0 && bridged_of(vsock, conn)->used > 0) {
        flush(vsock, conn);
    }
    if (conn->service == NULL) {
        return;
    }
    if ((events & EPOLLHUP) != 0 && only_sending(vsock, conn)) {
        vsock_conn_close(vsock, conn); /* both directions have ended */
    } else if ((events & (EPOLLIN | EPOLLERR | EPOLLHUP)) != 0 && !only_sending(vsock, conn)) {
        vsock_conn_readable(vsock, conn);
    }
}

/* One that went away for another's event, or whose place is another's now, is left alone. */
static void serve_event(struct vsock *vsock, unsigned owner, uint32_t events)
{
    struct vsock_bridge *bridge = vsock->bridge;

    if (owner == OWNER_LISTENER) {
        take_callers(bridge);
    } else if (owner == OWNER_BROKER) {
        for (unsigned i = 0; i < ANSWERS_AT_ONCE && read_answer(vsock); i++) {
        }
    } else if (owner < OWNER_CONNS) {
        struct caller *caller = &bridge->callers[owner - OWNER_CALLERS];

        if (caller->fd >= 0) {
            hear_caller(vsock, caller);
        }
    } else if (bridge->bridged[owner - OWNER_CONNS].watch.on) {
        serve_conn(vsock, &vsock->table.conns[owner - OWNER_CONNS], events);
    }
}

/* True: the doorbell has rung, which is not served here. */
static bool serve_events(struct vsock *vsock, int count)
{
    struct vsock_bridge *bridge = vsock->bridge;
    bool rung = false;

    for (int i = 0; i < count; i++) {
        if (bridge->events[i].data.u32 == OWNER_DOORBELL) {
            rung = true;
        } else {
            bridge->worked = true;
            serve_event(vsock, bridge->events[i].data.u32, bridge->events[i].events);
        }
    }
    return rung;
}

/* When there is something to do without any event; 0: never. */
static uint64_t next_deadline_ns(const struct vsock *vsock)
{
    const uint64_t conn_ns = vsock_next_deadline_ns(vsock);
    const uint64_t accept_ns = vsock->bridge->accept_again_ns;

    return conn_ns == 0 || accept_ns == 0 ? conn_ns | accept_ns : min_u64(conn_ns, accept_ns);
}

static void on_time(struct vsock *vsock)
{
    const uint64_t deadline_ns = next_deadline_ns(vsock);
    const uint64_t now_ns = deadline_ns != 0 ? clock_monotonic_ns() : 0;

    if (deadline_ns == 0 || now_ns < deadline_ns) {
        return;
    }
    vsock->bridge->worked = true;
    vsock_expire(vsock, now_ns);
    if (vsock->bridge->accept_again_ns <= now_ns) {
        vsock->bridge->accept_again_ns = 0;
    }
}

void vsock_bridge_look(struct vsock *vsock)
{
    struct vsock_bridge *bridge = vsock->bridge;

    if (update_watches(vsock) == 0) {
        (void)serve_events(vsock,
                           epoll_pwait(bridge->epoll_fd, bridge->events, EVENTS_AT_ONCE, 0, NULL));
    }
    on_time(vsock);
}

/* In ms, as epoll_pwait() has it; -1: for ever. */
static int time_to_sleep_ms(const struct vsock *vsock)
{
    const uint64_t deadline_ns = next_deadline_ns(vsock);
    const uint64_t now_ns = deadline_ns != 0 ? clock_monotonic_ns() : 0;
    const uint64_t wait_ns = deadline_ns > now_ns ? deadline_ns - now_ns : 0;

    return deadline_ns == 0 ? -1 : (int)((wait_ns + NS_PER_MS - 1) / NS_PER_MS);
}

int vsock_bridge_sleep(struct vsock *vsock)
{
    struct vsock_bridge *bridge = vsock->bridge;
    struct actor *self = vsock->virtio.self;
    int count = update_watches(vsock);

    if (count < 0 || bridge->worked) {
        return count;
    }
    if (!mailbox_announce_sleep(self->mailbox)) {
        mailbox_awake(self->mailbox, false);
        vsock_bridge_look(vsock);
        return 0;
    }
    count = epoll_pwait(bridge->epoll_fd, bridge->events, EVENTS_AT_ONCE, time_to_sleep_ms(vsock),
                        NULL);
    if (count < 0) {
        count = -errno;
        mailbox_awake(self->mailbox, false);
        return count;
    }
    self->stats->wakeups++;
    mailbox_awake(self->mailbox, serve_events(vsock, count));
    on_time(vsock);
    return 0;
}

bool vsock_bridge_worked(struct vsock *vsock)
{
    const bool worked = vsock->bridge->worked;

    vsock->bridge->worked = false;
    return worked;
}

/* ---- Set-up ---------------------------------------------------------------------------------- */

int vsock_bridge_new(int listen_fd, int broker_fd, struct vsock_bridge **ret_bridge)
{
    const size_t buffers_bytes = (size_t)VSOCK_CONNECTIONS_MAX * VSOCK_BRIDGE_BUFFER_BYTES;
    struct vsock_bridge *bridge = calloc(1, sizeof(*bridge));
    /* Touched as connections come: the host's kernel hands out pages then, without being asked. */
    void *buffers = mmap(NULL, buffers_bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    const int epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    const int code = epoll_fd < 0 ? -errno : -ENOMEM;

    if (bridge == NULL || buffers == MAP_FAILED || epoll_fd < 0) {
        if (buffers != MAP_FAILED) {
            (void)munmap(buffers, buffers_bytes);
        }
        if (epoll_fd >= 0) {
            (void)close(epoll_fd);
        }
        free(bridge);
        return code;
    }
    bridge->epoll_fd = epoll_fd;
    bridge->listen_fd = listen_fd;
    bridge->broker_fd = broker_fd;
    bridge->buffers = buffers;
    bridge->next_port = VSOCK_BRIDGE_FIRST_PORT;
    TAILQ_INIT(&bridge->changed);
    for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        bridge->bridged[i].fd = -1;
        bridge->bridged[i].buffer = bridge->buffers + (size_t)i * VSOCK_BRIDGE_BUFFER_BYTES;
    }
    for (unsigned i = 0; i < VSOCK_BRIDGE_CALLERS_MAX; i++) {
        bridge->callers[i].fd = -1;
    }
    *ret_bridge = bridge;
    return 0;
}

int vsock_bridge_epoll_fd(const struct vsock_bridge *bridge)
{
    return bridge->epoll_fd;
}

void vsock_bridge_free(struct vsock_bridge *bridge)
{
    if (bridge == NULL) {
        return;
    }
    for (unsigned i = 0; i < VSOCK_CONNECTIONS_MAX; i++) {
        if (bridge->bridged[i].fd >= 0) {
            (void)close(bridge->bridged[i].fd);
        }
    }
    for (unsigned i = 0; i < VSOCK_BRIDGE_CALLERS_MAX; i++) {
        if (bridge->callers[i].fd >= 0) {
            (void)close(bridge->callers[i].fd);
        }
    }
    (void)close(bridge->epoll_fd);
    (void)munmap(bridge->buffers, (size_t)VSOCK_CONNECTIONS_MAX * VSOCK_BRIDGE_BUFFER_BYTES);
    free(bridge);
}
