/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_bridge.h: ports of the guest's host that are UNIX sockets on the host.
 *
 *     guest connects to port P     ──►  connection to `<vsock_path>_P`
 *     host program connects to `<vsock_path>`, writes "CONNECT P\n"
 *                                  ──►  connection to the guest's port P; "OK <our port>\n"
 *
 * No host program can stop the VM or make the actor spin: sockets are non-blocking, and one is
 * looked at only while something could be done with it. What is on the way to a host program lies
 * in a buffer of fixed size, which is the guest's credit; what is on the way to the guest stays in
 * the host's socket until the guest has a buffer and credit for it.
 *
 * All memory is there from the start: vsock_bridge_new().
 *
 * A sleep costs the same whatever the number of connections: the host's kernel keeps the list of what is
 * watched (epoll, level-triggered), and only connections that packets or events have changed are held
 * against it.
 *
 * Thread: the vsock actor, from vsock_bridge_new() on. Blocks: epoll_pwait, in vsock_bridge_sleep().
 * System calls: epoll_pwait, epoll_ctl, accept4, recvmsg, sendmsg, shutdown, close.
 */
#ifndef BVMM_ACTORS_VSOCK_BRIDGE_H
#define BVMM_ACTORS_VSOCK_BRIDGE_H

#include "actors/actor.h"
#include "actors/vsock_conn.h"

/* A connection's buffer towards the host, and so the guest's credit. */
#define VSOCK_BRIDGE_BUFFER_BYTES 65536U
/* Host programs that have connected but not yet said CONNECT. One more drives out the oldest. */
#define VSOCK_BRIDGE_CALLERS_MAX 64
#define VSOCK_BRIDGE_LINE_BYTES 32
/* "OK <port>": ports of our side for connections that the host begins. */
#define VSOCK_BRIDGE_FIRST_PORT (1U << 30)

struct vsock_bridge;

extern const struct vsock_service vsock_bridge_service;

/*
 * vsock_bridge_new - before the machine starts.
 * @listen_fd, @broker_fd: from vsock_broker.h; they stay the caller's.
 * Return: 0, or -errno: no memory, no descriptor.
 */
int vsock_bridge_new(int listen_fd, int broker_fd, struct vsock_bridge **ret_bridge) must_check;
void vsock_bridge_free(struct vsock_bridge *bridge);

/* What it sleeps on; for a filter, which names descriptors. */
int vsock_bridge_epoll_fd(const struct vsock_bridge *bridge);

/* Sleep until the doorbell, a socket or a deadline wants attention; serve the sockets. */
int vsock_bridge_sleep(struct vsock *vsock);

/* Serve the sockets without sleeping: for an actor that finds no time to sleep. */
void vsock_bridge_look(struct vsock *vsock);

/* Whether sockets were served since the last call. */
bool vsock_bridge_worked(struct vsock *vsock);

#endif
