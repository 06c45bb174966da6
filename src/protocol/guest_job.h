/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * guest_job.h: the job as bvmm's init gets it (section A of protocol.h), written and read.
 *
 * Thread: any. Nothing blocks. The host writes, the guest reads; both are in one file so that they
 * stay each other's inverse.
 */
#ifndef BVMM_PROTOCOL_GUEST_JOB_H
#define BVMM_PROTOCOL_GUEST_JOB_H

#include "base/error.h"
#include "protocol/protocol.h"

/*
 * Between SIGTERM and SIGKILL, when the host asks init to end the command. Both are well below what
 * the host then waits (supervisor.h), so that time is left to send what there is.
 */
#define GUEST_JOB_DEFAULT_GRACE_MS 1000
#define GUEST_JOB_URGENT_GRACE_MS 50 /* it asked by the quit key: the deadline has passed */
#define GUEST_JOB_DEFAULT_HOSTNAME "bvmm"
#define GUEST_JOB_NO_LIMIT UINT64_MAX

/* A further image, mounted read-only when the root is there. */
struct guest_job_mount {
    const char *device; /* "/dev/vdb" */
    const char *path;   /* absolute; made if it is not there */
    const char *fstype; /* "": try what the kernel knows */
};

/* List pointers may be NULL when the count is 0. */
struct guest_job {
    uint8_t nonce[NONCE_BYTES];
    const char *root_device;
    const char *root_fstype; /* "": try what the kernel knows */
    const char *const *args; /* the command and its arguments: at least one */
    size_t arg_count;
    const char *const *env; /* NAME=value */
    size_t env_count;
    const char *workdir;
    const char *user; /* "": root */
    const char *hostname;
    const char *const *outputs;
    size_t output_count;
    const struct guest_job_mount *mounts;
    size_t mount_count;
    uint64_t stream_limit_bytes[STREAM_COUNT]; /* only of those that results travel in */
    uint64_t tmpfs_limit_bytes;
    uint32_t grace_ms;
    uint64_t realtime_ns; /* the host's clock, for a guest that has none; 0: unknown */
    bool vsock;
    void *storage; /* of a decoded job */
};

/* Every field has its default; nonce and args are still missing. */
void guest_job_init(struct guest_job *job);

/*
 * guest_job_encode - to the bytes of /bvmm/job.
 * @ret_bytes: malloc'ed; the caller frees.
 * Return: 0; -ENOMEM; -EINVAL: no command, or a text that has no place in it; -E2BIG: more than
 * GUEST_JOB_MAX_BYTES.
 */
int guest_job_encode(const struct guest_job *job, uint8_t **ret_bytes, size_t *ret_count,
                     struct bvmm_error *err) must_check;

/*
 * guest_job_decode - the inverse. Lists come back ended by NULL, so that they can serve as argv.
 * @ret_why: on failure, a static string that says what is wrong.
 * Return: 0, or -EBADMSG, -EPROTO (other version), -ENOMEM. Free with guest_job_free().
 */
int guest_job_decode(struct guest_job *job, const uint8_t *bytes, size_t count,
                     const char **ret_why) must_check;

void guest_job_free(struct guest_job *job);

#endif
