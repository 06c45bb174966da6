/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock.c: the virtio-vsock actor: its queues, how it sleeps, how it ends. See vsock.h.
 *
 * Thread: vsock. Blocks: reading its doorbell; with a bridge epoll_pwait. System calls: vsock_policy, at
 * the end of the file.
 */
#include "actors/vsock.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "actors/vsock_bridge.h"

#define VSOCK_BATCH 32 /* packets in one direction before messages get their turn */
#define VSOCK_POLLS_PER_LOOK                                                                       \
    16 /* a busy guest must not keep the actor from the bridge's sockets  \
                                 */

/* ---- The queues ------------------------------------------------------------------------------ */

static int bad_request(struct virtq *queue, uint64_t bytes)
{
    queue->fault = VIRTQ_FAULT_BAD_REQUEST;
    queue->fault_detail = bytes;
    return -EINVAL;
}

/*
 * Packets from the guest. Not more are taken while too many RSTs are due that the guest has no
 * buffer for: what it makes us keep is bounded.
 * Return: how many, or -EINVAL: the queue broke.
 */
static int serve_tx(struct vsock *vsock, unsigned limit)
{
    struct virtio_mmio *mmio = &vsock->virtio.mmio;
    struct virtq *queue = &mmio->queues[VSOCK_QUEUE_TX];
    struct vsock_header header;
    int count = 0;

    for (; (unsigned)count < limit && vsock_can_take_packet(vsock); count++) {
        const int code = virtq_pop(queue, mmio->memory, &vsock->chain);

        if (code <= 0) {
            return code < 0 ? code : count;
        }
        if (virtq_chain_read(&vsock->chain, 0, &header, sizeof(header)) != sizeof(header)) {
            return bad_request(queue, vsock->chain.readable_bytes);
        }
        vsock_packet_from_guest(vsock, &header, &vsock->chain);
        virtq_push(queue, vsock->chain.head, 0);
    }
    return count;
}

/* Packets to the guest, as far as it has handed out buffers. Return: as serve_tx(). */
static int serve_rx(struct vsock *vsock)
{
    struct virtio_mmio *mmio = &vsock->virtio.mmio;
    struct virtq *queue = &mmio->queues[VSOCK_QUEUE_RX];
    int count = 0;

    while (count < VSOCK_BATCH && vsock_has_due(vsock)) {
        const int code = virtq_pop(queue, mmio->memory, &vsock->chain);
        uint32_t written_bytes = 0;

        if (code <= 0) {
            return code < 0 ? code : count;
        }
        if (vsock->chain.writable_bytes < VSOCK_HEADER_BYTES) {
            return bad_request(queue, vsock->chain.writable_bytes);
        }
        written_bytes = vsock_packet_to_guest(vsock, &vsock->chain);
        if (written_bytes == 0) {
            virtq_unpop(queue);
            continue; /* what seemed due is so no more */
        }
        virtq_push(queue, vsock->chain.head, written_bytes);
        count++;
    }
    return count;
}

static int serve_event(struct vsock *vsock)
{
    const struct vsock_event event = {.id = VSOCK_EVENT_TRANSPORT_RESET};
    struct virtio_mmio *mmio = &vsock->virtio.mmio;
    struct virtq *queue = &mmio->queues[VSOCK_QUEUE_EVENT];
    int code = 0;

    if (!vsock->event_due || !virtio_mmio_queue_live(mmio, VSOCK_QUEUE_EVENT)) {
        return 0;
    }
    code = virtq_pop(queue, mmio->memory, &vsock->chain);
    if (code <= 0) {
        return code;
    }
    if (vsock->chain.writable_bytes < sizeof(event)) {
        return bad_request(queue, vsock->chain.writable_bytes);
    }
    (void)virtq_chain_write(&vsock->chain, 0, &event, sizeof(event));
    virtq_push(queue, vsock->chain.head, sizeof(event));
    vsock->event_due = false;
    return 1;
}

/* One look at a queue is over. Whether it went on. */
static bool take_count(struct vsock *vsock, enum vsock_queue queue, int count, bool *worked)
{
    if (count < 0) {
        virtio_mmio_fail(&vsock->virtio.mmio, queue);
        return false;
    }
    if (count > 0) {
        *worked = true;
        virtio_actor_used(&vsock->virtio, queue);
    }
    return count > 0;
}

static bool device_live(const struct vsock *vsock)
{
    return virtio_mmio_queue_live(&vsock->virtio.mmio, VSOCK_QUEUE_RX) &&
           virtio_mmio_queue_live(&vsock->virtio.mmio, VSOCK_QUEUE_TX);
}

/*
 * The guest is to ring when it puts in what we wait for. Where we wait for nothing it is not asked
 * to ring: buffers that it hands back to the rx queue wake nobody. True: there is more to do
 * already.
 */
static bool want_notifications(struct vsock *vsock)
{
    struct virtq *queues = vsock->virtio.mmio.queues;
    bool more = false;

    if (vsock_can_take_packet(vsock)) {
        more = virtq_want_notification(&queues[VSOCK_QUEUE_TX]) || more;
    }
    if (vsock_has_due(vsock)) {
        more = virtq_want_notification(&queues[VSOCK_QUEUE_RX]) || more;
    }
    if (vsock->event_due) {
        more = virtq_want_notification(&queues[VSOCK_QUEUE_EVENT]) || more;
    }
    return more;
}

static void look_at_bridge(struct vsock *vsock, bool *worked)
{
    if (++vsock->polls_since_look >= VSOCK_POLLS_PER_LOOK) {
        vsock->polls_since_look = 0;
        vsock_bridge_look(vsock);
    }
    if (vsock_bridge_worked(vsock)) {
        *worked = true;
    }
}

bool vsock_poll(struct actor *self, bool *worked)
{
    struct vsock *vsock = self->state;
    bool used = false;

    virtio_actor_tell_used(&vsock->virtio);
    if (vsock->bridge != NULL) {
        look_at_bridge(vsock, worked);
    }
    if (!device_live(vsock)) {
        return false;
    }
    used = take_count(vsock, VSOCK_QUEUE_TX, serve_tx(vsock, VSOCK_BATCH), worked) || used;
    if (device_live(vsock)) {
        used = take_count(vsock, VSOCK_QUEUE_RX, serve_rx(vsock), worked) || used;
    }
    if (device_live(vsock)) {
        used = take_count(vsock, VSOCK_QUEUE_EVENT, serve_event(vsock), worked) || used;
    }
    return used || (device_live(vsock) && want_notifications(vsock));
}

int vsock_sleep(struct actor *self)
{
    struct vsock *vsock = self->state;

    if (vsock->bridge == NULL) {
        return mailbox_wait(self->mailbox, self->spins);
    }
    vsock->polls_since_look = 0;
    return vsock_bridge_sleep(vsock);
}

/*
 * The vCPUs have stopped. What the guest had put into the queue before is results: a guest that
 * closes its connections and powers off does not wait until we have taken them.
 */
void vsock_stop(struct actor *self)
{
    struct vsock *vsock = self->state;
    unsigned left = VIRTQ_SIZE_MAX;
    int count = 0;

    while (left > 0 && device_live(vsock)) {
        vsock->table.refusals_count = 0; /* nobody reads them any more */
        count = serve_tx(vsock, left);
        if (count <= 0) {
            break;
        }
        left -= (unsigned)count;
    }
}

/* ---- Set-up and reset ------------------------------------------------------------------------ */

static void vsock_activate(void *device)
{
    (void)device; /* the loop polls the queues after every message */
}

/*
 * The driver forgets its connections, and so do we. If it had some, it is told so once it is back:
 * section 5.10.6.6, for a driver that had meant to keep them.
 */
static void vsock_reset(void *device)
{
    struct vsock *vsock = device;

    vsock->event_due = vsock_drop_all(vsock, true) > 0 || vsock->event_due;
}

/* NEEDS_RESET: results can come over serial from here on. */
static void vsock_broken(void *device, unsigned queue, enum virtq_fault fault, uint64_t detail)
{
    struct vsock *vsock = device;

    virtio_actor_broken(&vsock->virtio, queue, fault, detail);
    vsock->event_due = vsock_drop_all(vsock, true) > 0 || vsock->event_due;
}

static const struct virtio_device_ops vsock_ops = {
    .activate = vsock_activate,
    .reset = vsock_reset,
    .interrupt = virtio_actor_interrupt,
    .broken = vsock_broken,
};

void vsock_init(struct vsock *vsock, struct actor *self, int irq_eventfd,
                const struct guest_memory *memory, struct vsock_bridge *bridge)
{
    memset(vsock, 0, sizeof(*vsock));
    vsock->config = (struct vsock_config){.guest_cid = VSOCK_CID_GUEST};
    vsock->bridge = bridge;
    vsock_table_init(&vsock->table);
    vsock->virtio.self = self;
    vsock->virtio.irq = (struct irq){.eventfd = irq_eventfd, .stats = self->stats};
    vsock->virtio.mmio = (struct virtio_mmio){
        .device_id = VIRTIO_ID_VSOCK,
        .device_features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC,
        .config = (const uint8_t *)&vsock->config,
        .config_bytes = sizeof(vsock->config),
        .queue_count = VSOCK_QUEUES,
        .memory = memory,
        .ops = &vsock_ops,
        .device = &vsock->virtio,
    };
    self->state = vsock;
    vsock_streams_init(&vsock->streams, self);
}

const actor_handler_fn vsock_on[MSG_KIND_COUNT] = {
    [MSG_IO_READ] = virtio_actor_on_read,
    [MSG_IO_WRITE] = virtio_actor_on_write,
    [MSG_IO_WRITE_ACKED] = virtio_actor_on_write_acked,
};

/* The bridge's rows are there only if the machine has one: 6 rows for a job without vsock_path. */
static const struct policy_rule vsock_rules[] = {
    POLICY_READ_DOORBELL,
    POLICY_RING_DOORBELLS,
    POLICY_RAISE_IRQ,
    POLICY_CLOCK_MONOTONIC,
    POLICY_CLOCK_CPU,
    POLICY_EXIT_THREAD,
    {"epoll_pwait",
     {{0, POLICY_BRIDGE_LIST, 0}, {4, POLICY_CONSTANT, 0}},
     2,
     POLICY_HOST_SOCKETS,
     "sleep on doorbell and host sockets"},
    {"epoll_ctl",
     {{0, POLICY_BRIDGE_LIST, 0}},
     1,
     POLICY_HOST_SOCKETS,
     "on which host sockets: those with which something could be done"},
    {"accept4",
     {{0, POLICY_HOST_SOCKETS, 0}, {3, POLICY_CONSTANT, SOCK_NONBLOCK | SOCK_CLOEXEC}},
     2,
     POLICY_HOST_SOCKETS,
     "a host program calls the guest"},
    {"recvmsg",
     {{2, POLICY_CONSTANT, MSG_DONTWAIT}},
     1,
     POLICY_HOST_SOCKETS,
     "bytes of a host program, for the guest"},
    {"recvmsg",
     {{2, POLICY_CONSTANT, MSG_DONTWAIT | MSG_PEEK}},
     1,
     POLICY_HOST_SOCKETS,
     "where a host program's CONNECT line ends"},
    {"recvmsg",
     {{2, POLICY_CONSTANT, MSG_DONTWAIT | MSG_CMSG_CLOEXEC}},
     1,
     POLICY_HOST_SOCKETS,
     "a socket that the launcher has connected"},
    {"sendmsg",
     {{2, POLICY_CONSTANT, MSG_DONTWAIT | MSG_NOSIGNAL}},
     1,
     POLICY_HOST_SOCKETS,
     "bytes of the guest, for a host program; a port, for the launcher"},
    {"shutdown", {{0, POLICY_ANY, 0}}, 0, POLICY_HOST_SOCKETS, "one direction has ended"},
    {"close", {{0, POLICY_ANY, 0}}, 0, POLICY_HOST_SOCKETS, "a connection has ended"},
};

const struct policy vsock_policy = {vsock_rules, ARRAY_SIZE(vsock_rules)};
