/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * attack_vsock.c: packets and buffers of the vsock device that break its rules. Four of them take the
 * device out of service; the others cost the connection, or nothing.
 */
#include "guest.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT };
enum {
    OP_REQUEST = 1,
    OP_RESPONSE,
    OP_RST,
    OP_SHUTDOWN,
    OP_RW,
    OP_CREDIT_UPDATE,
    OP_CREDIT_REQUEST
};

#define QUEUE_SIZE 64
#define RX_BYTES 512
#define PAYLOAD_BYTES 4096
#define SHUTDOWN_RECEIVE 1
#define SHUTDOWN_SEND 2
#define PORT_STDOUT 5000
#define PORT_STDERR 5001
#define PORT_OUTPUT 5005
#define PORT_NOBODY 7777
#define GUEST_PORT 40000
#define BATCH 32U
#define STORM_PATIENCE 8
#define STORM (35 * BATCH) /* more than there may be connections */
#define FLOOD 500          /* packets: more than a socket's buffer and bvmm's take */

struct header {
    uint64_t src_cid;
    uint64_t dst_cid;
    uint32_t src_port;
    uint32_t dst_port;
    uint32_t bytes;
    uint16_t type;
    uint16_t op;
    uint32_t flags;
    uint32_t buf_alloc;
    uint32_t fwd_cnt;
} __attribute__((packed));

static struct queue rx, tx, event;
static struct header *out;   /* the packet on its way to the host */
static uint8_t *out_payload; /* follows it */
static uint8_t *in;          /* RX_BYTES for each buffer */

/* ---- The driver ------------------------------------------------------------------------------ */

static void rx_give(uint16_t head)
{
    queue_set(&rx, head, in + (size_t)head * RX_BYTES, RX_BYTES, D_WRITE, 0);
    queue_publish(&rx, head);
}

/* From reset on, with so many buffers to receive into. */
static void begin(uint16_t buffers)
{
    device_end(&vsock);
    arena_reset();
    queue_new(&rx, QUEUE_SIZE);
    queue_new(&tx, QUEUE_SIZE);
    queue_new(&event, QUEUE_SIZE);
    out = arena_take(sizeof(*out), 64);
    out_payload = arena_take(PAYLOAD_BYTES, 64);
    in = arena_take((size_t)QUEUE_SIZE * RX_BYTES, 64);
    (void)device_begin(&vsock, F_INDIRECT | F_EVENT_IDX);
    device_add_queue(&vsock, QUEUE_RX, &rx);
    device_add_queue(&vsock, QUEUE_TX, &tx);
    device_add_queue(&vsock, QUEUE_EVENT, &event);
    device_go(&vsock);
    for (uint16_t i = 0; i < buffers; i++) {
        rx_give(i);
    }
    device_notify(&vsock, QUEUE_RX);
}

static void make_packet(uint16_t op, uint32_t port, uint32_t bytes)
{
    *out = (struct header){.src_cid = 3,
                           .dst_cid = 2,
                           .src_port = GUEST_PORT,
                           .dst_port = port,
                           .bytes = bytes,
                           .type = 1,
                           .op = op,
                           .buf_alloc = 65536};
}

/* As *out is, with so many bytes behind it. */
static bool send_packet(uint32_t payload_bytes)
{
    queue_set(&tx, 0, out, sizeof(*out), payload_bytes > 0 ? D_NEXT : 0, 1);
    queue_set(&tx, 1, out_payload, payload_bytes, 0, 0);
    queue_publish(&tx, 0);
    device_notify(&vsock, QUEUE_TX);
    return device_wait_used(&vsock, &tx, 1);
}

static bool send(uint16_t op, uint32_t port, uint32_t bytes)
{
    make_packet(op, port, bytes);
    return send_packet(bytes);
}

/* A packet from the host has come; its buffer is given back. */
static struct header take_packet(void)
{
    const volatile uint8_t *used = (volatile uint8_t *)rx.used;
    const uint16_t at = (uint16_t)(rx.used_seen - 1) % QUEUE_SIZE;
    const uint16_t head = *(const volatile uint16_t *)(used + 4 + 8U * at);
    struct header header = {.op = 0};

    if (head >= QUEUE_SIZE) {
        return header;
    }
    for (size_t i = 0; i < sizeof(header); i++) {
        ((uint8_t *)&header)[i] = ((volatile uint8_t *)in)[(size_t)head * RX_BYTES + i];
    }
    rx_give(head);
    if (queue_wants_notification(&rx)) {
        device_notify(&vsock, QUEUE_RX);
    }
    return header;
}

/* The next packet from the host. op: 0 for none. */
static struct header receive(void)
{
    if (device_wait_used(&vsock, &rx, 1) || queue_wait_used(&rx, 1)) {
        return take_packet();
    }
    return (struct header){.op = 0};
}

/* Whether that packet comes next, but for news about credit. */
static bool expect_op(uint16_t op)
{
    struct header header = {.op = 0};

    do {
        header = receive();
    } while (header.op == OP_CREDIT_UPDATE || header.op == OP_CREDIT_REQUEST);
    return header.op == op;
}

static bool connect(uint32_t port)
{
    return send(OP_REQUEST, port, 0) && expect_op(OP_RESPONSE);
}

/* ---- The device goes out of service ---------------------------------------------------------- */

/* CVE-2019-18960: the header ends outside of its descriptor. */
static void header_cut_short(void)
{
    make_packet(OP_REQUEST, PORT_STDERR, 0);
    queue_set(&tx, 0, out, sizeof(*out) - 1, 0, 0);
    queue_publish(&tx, 0);
}

static void no_room_for_a_header(void)
{
    queue_set(&rx, 0, in, sizeof(struct header) - 1, D_WRITE, 0);
    queue_publish(&rx, 0);
    make_packet(OP_RW, PORT_NOBODY, 0); /* RST is due at once */
    queue_set(&tx, 0, out, sizeof(*out), 0, 0);
    queue_publish(&tx, 0);
}

static void payload_wraps_around(void)
{
    make_packet(OP_RW, PORT_STDERR, 0x200);
    queue_set(&tx, 0, out, sizeof(*out), D_NEXT, 1);
    queue_set(&tx, 1, (void *)(UINT64_MAX - 0xff), 0x200, 0, 0);
    queue_publish(&tx, 0);
}

static void buffer_over_the_end(void)
{
    queue_set(&rx, 0, (void *)(memory_end() - 64), RX_BYTES, D_WRITE, 0);
    queue_publish(&rx, 0);
    make_packet(OP_RW, PORT_NOBODY, 0);
    queue_set(&tx, 0, out, sizeof(*out), 0, 0);
    queue_publish(&tx, 0);
}

static const struct {
    const char *name;
    void (*publish)(void);
} breaking[] = {
    {"CVE-2019-18960: a vsock header cut short by its descriptor", header_cut_short},
    {"vsock: a receive buffer smaller than a header", no_room_for_a_header},
    {"vsock: a payload that wraps around 2^64", payload_wraps_around},
    {"vsock: a receive buffer over the end of memory", buffer_over_the_end},
};

static void attack_breaking(void)
{
    for (unsigned i = 0; i < COUNT(breaking); i++) {
        const char *why = NULL;

        begin(0);
        breaking[i].publish();
        device_notify(&vsock, QUEUE_TX);
        if (!device_out_of_service(&vsock)) {
            why = "the device did not go out of service";
        } else {
            begin(4);
            why = send(OP_RW, PORT_NOBODY, 16) && expect_op(OP_RST)
                      ? NULL
                      : "the device does not work after a reset";
        }
        device_end(&vsock);
        verdict(breaking[i].name, why);
    }
}

/* ---- It costs the connection, or nothing ----------------------------------------------------- */

/* Firecracker 1462, and a packet whose len is larger than its descriptors. */
static const char *length_beyond_descriptors(void)
{
    static const uint32_t lengths[] = {PAYLOAD_BYTES + 1, 65536, 0x80000000U, UINT32_MAX,
                                       UINT32_MAX - sizeof(struct header) + 1};

    for (unsigned i = 0; i < COUNT(lengths); i++) {
        if (!connect(PORT_STDERR)) {
            return "no connection";
        }
        make_packet(OP_RW, PORT_STDERR, lengths[i]);
        if (!send_packet(PAYLOAD_BYTES) || !expect_op(OP_RST)) {
            return "the connection was not reset";
        }
    }
    return NULL;
}

static const char *header_in_pieces(void)
{
    make_packet(OP_REQUEST, PORT_STDERR, 0);
    for (uint16_t i = 0; i < sizeof(*out); i++) {
        queue_set(&tx, i, (uint8_t *)out + i, 1, i + 1 < (int)sizeof(*out) ? D_NEXT : 0,
                  (uint16_t)(i + 1));
    }
    queue_publish(&tx, 0);
    device_notify(&vsock, QUEUE_TX);
    return device_wait_used(&vsock, &tx, 1) && expect_op(OP_RESPONSE) &&
                   send(OP_RST, PORT_STDERR, 0)
               ? NULL
               : "it was not taken for what it is";
}

static const char *packets_of_no_sense(void)
{
    if (!connect(PORT_STDERR) || !send(OP_REQUEST, PORT_STDERR, 0) || !expect_op(OP_RST)) {
        return "a second request is not answered by RST";
    }
    for (unsigned i = 0; i < 6; i++) {
        make_packet(i == 0 ? 0 : i == 1 ? 255 : OP_RESPONSE, PORT_NOBODY, 0);
        out->type = i == 2 ? 2 : 1;
        out->dst_cid = i == 3 ? UINT64_MAX : 2;
        out->dst_port = i == 4 ? UINT32_MAX : PORT_NOBODY;
        out->src_cid = i == 5 ? 2 : 3; /* this one is not answered at all */
        if (!send_packet(0) || (i < 5 && !expect_op(OP_RST))) {
            return "a packet for nobody is not answered by RST";
        }
    }
    return NULL;
}

static bool shut_down(uint32_t port, uint32_t flags)
{
    make_packet(OP_SHUTDOWN, port, 0);
    out->flags = flags;
    return send_packet(0);
}

/* Half closed: it may still send, and the end of that is the end. */
static const char *half_close(void)
{
    return connect(PORT_OUTPUT) && shut_down(PORT_OUTPUT, SHUTDOWN_RECEIVE) &&
                   send(OP_RW, PORT_OUTPUT, PAYLOAD_BYTES) &&
                   shut_down(PORT_OUTPUT, SHUTDOWN_SEND) && expect_op(OP_RST)
               ? NULL
               : "it did not go on, or did not end";
}

/* Half closed the other way: nothing may be sent any more, and who does so is told. */
static const char *data_after_shutdown(void)
{
    if (!connect(PORT_STDERR) || !shut_down(PORT_STDERR, SHUTDOWN_SEND) ||
        !expect_op(OP_SHUTDOWN)) {
        return "the end of the stream is not answered";
    }
    (void)send(OP_RW, PORT_STDERR, PAYLOAD_BYTES);
    return expect_op(OP_RST) ? NULL : "data after the end is not answered by RST";
}

/*
 * A guest that asks for a connection again and again, and takes no answer: the device stops taking
 * packets when it would have to remember too much, and goes on when it can answer.
 */
static const char *storm(void)
{
    unsigned sent = 0;
    unsigned answers = 0;

    begin(0);
    make_packet(OP_REQUEST, PORT_STDERR, 0); /* had its connection, and gets no other */
    for (; sent < STORM; sent++) {
        out->src_port = sent;
        if (!send_packet(0)) {
            break;
        }
    }
    if (sent == STORM) {
        return "the device remembers answers without end";
    }
    if ((reg_read(&vsock, REG_STATUS) & STATUS_NEEDS_RESET) != 0) {
        return "the device is out of service";
    }
    for (uint16_t i = 0; i < QUEUE_SIZE; i++) {
        rx_give(i);
    }
    device_notify(&vsock, QUEUE_RX);
    while (answers < sent + 1 && expect_op(OP_RST)) {
        answers++;
    }
    return answers == sent + 1 ? NULL : "not every request was answered in the end";
}

/* ---- Programs of the host's (vsock_path) ------------------------------------------------------ */

static uint32_t deaf_port; /* of a program that never reads; 0: there is none */

/* Without a look at the credit that is given: who sends more than that is reset. */
static const char *peer_never_reads(void)
{
    if (!connect(deaf_port)) {
        return "no connection";
    }
    for (unsigned i = 0; i < FLOOD; i++) {
        if (!send(OP_RW, deaf_port, PAYLOAD_BYTES)) {
            return "the device does not take packets any more";
        }
        while (queue_take_used(&rx, 1)) { /* news about credit, which is not looked at */
            if (take_packet().op == OP_RST) {
                return NULL;
            }
        }
    }
    return "bvmm takes bytes without end for a program that does not read";
}

/* So many requests, with ports from `first` on, in one go. */
static bool send_requests(struct header *headers, uint32_t first, uint16_t count)
{
    for (uint16_t i = 0; i < count; i++) {
        make_packet(OP_REQUEST, deaf_port, 0);
        out->src_port = first + i;
        headers[i] = *out;
        queue_set(&tx, i, &headers[i], sizeof(*headers), 0, 0);
        queue_publish(&tx, i);
    }
    device_notify(&vsock, QUEUE_TX);
    for (unsigned i = 0; i < STORM_PATIENCE; i++) { /* each may wait for a program of the host's */
        if (device_wait_used(&vsock, &tx, count)) {
            return true;
        }
    }
    return false;
}

/* More connections than there may be: as many as there may be open, and the device goes on. */
static const char *storm_on_a_program(void)
{
    struct header *headers = arena_take(BATCH * sizeof(*headers), 64);
    unsigned opened = 0;
    unsigned refused = 0;

    for (uint32_t sent = 0; sent < STORM; sent += BATCH) {
        if (!send_requests(headers, sent, BATCH)) {
            return "the device does not take packets any more";
        }
        while (queue_take_used(&rx, 1) || (sent + BATCH >= STORM && queue_wait_used(&rx, 1))) {
            const uint16_t op = take_packet().op;

            opened += op == OP_RESPONSE ? 1 : 0;
            refused += op == OP_RST ? 1 : 0;
            if (opened + refused == STORM) {
                break;
            }
        }
    }
    say("storm: opened ");
    say_number(opened);
    say(", refused ");
    say_number(refused);
    say("\n");
    return opened + refused == STORM && opened > 0 && refused > 0
               ? NULL
               : "not every request was answered, or none was refused";
}

/* ---- All of it ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    const char *(*run)(void);
    bool bridged; /* needs a program of the host's */
} lasting[] = {
    {"Firecracker 1462: a vsock length beyond its descriptors", length_beyond_descriptors, false},
    {"vsock: a header in 44 pieces", header_in_pieces, false},
    {"vsock: packets of no sense", packets_of_no_sense, false},
    {"vsock: half-close, then data", half_close, false},
    {"vsock: data after the end", data_after_shutdown, false},
    {"vsock: a storm of connections, and no answer is read", storm, false},
    {"vsock: a peer that never reads", peer_never_reads, true},
    {"vsock: a storm of connections to a program", storm_on_a_program, true},
};

void attack_vsock(void)
{
    attack_breaking();
    deaf_port = (uint32_t)argument_number("deaf_port=");
    for (unsigned i = 0; i < COUNT(lasting); i++) {
        const char *why = NULL;

        if (lasting[i].bridged && deaf_port == 0) {
            continue;
        }
        begin(lasting[i].bridged ? QUEUE_SIZE : 8);
        why = lasting[i].run();
        if (why == NULL && (reg_read(&vsock, REG_STATUS) & STATUS_NEEDS_RESET) != 0) {
            why = "the device is out of service";
        }
        device_end(&vsock);
        verdict(lasting[i].name, why);
    }
}

/* As stdout, whole, so that the report has it from here. */
void tell_by_vsock(const char *text)
{
    uint32_t bytes = 0;

    begin(8);
    for (; text[bytes] != '\0'; bytes++) {
        out_payload[bytes] = (uint8_t)text[bytes];
    }
    if (!connect(PORT_STDOUT) || !send(OP_RW, PORT_STDOUT, bytes)) {
        say("vsock does not work\n");
        return;
    }
    say(shut_down(PORT_STDOUT, SHUTDOWN_SEND) && expect_op(OP_SHUTDOWN) ? "vsock works\n"
                                                                        : "vsock does not end\n");
}
