/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vsock_broker.h: what the bridge needs from outside of the sandbox: the listening socket, and
 * somebody who connects to `<vsock_path>_<port>`.
 *
 * The VM process has no file system, so it can neither make a socket's name nor look one up. The
 * launcher can. It makes both before it forks, and afterwards answers requests of the vsock actor:
 *
 *     vsock actor  ── struct vsock_broker_request ──►  launcher   connect("<path>_<port>")
 *                  ◄── struct vsock_broker_answer ──              + the connected descriptor
 *
 * All that a request can say is a port: whoever took over the VM process gains no other name.
 *
 * Thread: the launcher's. Nothing blocks but the connect() that looks for a stale socket, which is
 * answered at once.
 */
#ifndef BVMM_ACTORS_VSOCK_BROKER_H
#define BVMM_ACTORS_VSOCK_BROKER_H

#include "base/base.h"
#include "base/error.h"

struct vsock_broker;

struct vsock_broker_request {
    uint32_t id; /* comes back with the answer */
    uint32_t port;
};

struct vsock_broker_answer {
    uint32_t id;
    int32_t error; /* 0: a descriptor comes with it; else -errno */
};

/*
 * vsock_broker_new - listen at `path`, and make the way to the actor.
 * A socket that nobody listens on any more is replaced. Everything else that is there stays, and is
 * an error.
 * Return: 0, or -errno with *err filled (kind IO) and nothing left behind.
 */
int vsock_broker_new(const char *path, struct vsock_broker **ret_broker, struct bvmm_error *err)
    must_check;

/* The descriptors for vsock_bridge_new(): what the VM process keeps of all this. */
int vsock_broker_listen_fd(const struct vsock_broker *broker);
int vsock_broker_actor_fd(const struct vsock_broker *broker);

/* In the launcher, after the fork: the actor's descriptors are the VM process's alone. */
void vsock_broker_forked(struct vsock_broker *broker);

/* Readable when there is a request. -1 once the actor is gone. NULL is allowed: -1. */
int vsock_broker_fd(const struct vsock_broker *broker);

/* Answer what there is, some at a time. Never blocks. */
void vsock_broker_serve(struct vsock_broker *broker);

/* Remove the socket's name, if it is ours still. NULL is allowed. */
void vsock_broker_free(struct vsock_broker *broker);

#endif
