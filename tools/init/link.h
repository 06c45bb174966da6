/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * link.h: the way from init to the host: frames over vsock, or over the serial console.
 *
 * If vsock fails half-way the link falls back to serial by itself: it says HELLO there, END again
 * if that had been said, and returns -EAGAIN once, so that the caller begins anew what it was
 * sending.
 *
 * Thread: init has but one. Blocks until the bytes are on their way, but never longer than
 * LINK_PATIENCE_MS without any progress.
 */
#ifndef BVMM_INIT_LINK_H
#define BVMM_INIT_LINK_H

#include "protocol/frame.h"

#define LINK_PATIENCE_MS 10000
#define LINK_CONNECT_MS 2000

struct link {
    uint8_t nonce[NONCE_BYTES];
    enum stream_via via;
    int serial_fd;            /* -1: none */
    int control_fd;           /* vsock, port 5003; -1: not connected */
    uint32_t sequence;        /* of the way that is taken */
    uint64_t announced_bytes; /* manifest text sent by it so far */
    bool said_end;
    struct frame_end end;
    /* How to reach a port of the host: link_connect_vsock(), or something else in tests. */
    int (*connect)(uint32_t port);
};

/* A link that has no way yet. */
void link_init(struct link *link, const uint8_t nonce[NONCE_BYTES]);

/*
 * link_open_serial - open and set up the console that frames go to when there is no vsock.
 * Return: a descriptor, or -errno.
 */
int link_open_serial(void);

/* Connect to a vsock port of the host, within LINK_CONNECT_MS. Return: a descriptor, or -errno. */
int link_connect_vsock(uint32_t port);

/* Choose the way (vsock if wanted and possible) and say HELLO. Return: 0, or -errno: no way. */
int link_hello(struct link *link, bool want_vsock, uint64_t boottime_ns) must_check;

/*
 * link_send - one frame.
 * Return: 0; -EAGAIN: vsock failed, the link has fallen back to serial, begin again; other -errno:
 * there is no way to the host any more.
 */
int link_send(struct link *link, enum frame_type type, enum stream_id stream, uint64_t offset,
              const void *payload, size_t bytes) must_check;

/* One frame that is no part of anything larger: sent again by itself after a fall back. */
int link_say(struct link *link, enum frame_type type, const void *payload, size_t bytes);

/* FRAME_END; it is said again after every later fall back. */
int link_say_end(struct link *link, const struct frame_end *end);

/* Give vsock up. Return: 0, or -errno if serial does not work either. */
int link_fall_back(struct link *link);

/* Wait until what was sent over serial has left the machine. */
void link_drain(const struct link *link);

/*
 * link_close - the end: wait, for LINK_CLOSE_SECONDS at most, until the host has all that was sent.
 * A reset right after the last send() would lose it: the kernel hands it to the device later.
 */
#define LINK_CLOSE_SECONDS 5
void link_close(struct link *link);

/*
 * link_quiet - keep the kernel's messages out of the frames, or let them be seen again.
 * Has an effect on serial only. The caller brackets what it sends.
 */
void link_quiet(const struct link *link, bool quiet);

/* Write all, waiting for room. Return: 0, or -errno; -ETIMEDOUT: no progress. */
int write_fully(int fd, const void *bytes, size_t count) must_check;

uint64_t clock_boottime_ns(void);

#endif
