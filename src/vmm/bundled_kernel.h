/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bundled_kernel.h: the guest kernel that comes with bvmm.
 *
 * Release builds (BVMM_EMBED_KERNEL) carry it in the executable. Others read it from disk:
 * $BVMM_KERNEL_DIR, else the directory named at build time, else the installed one.
 *
 * Thread: launcher, before the fork. Blocks on files only.
 */
#ifndef BVMM_VMM_BUNDLED_KERNEL_H
#define BVMM_VMM_BUNDLED_KERNEL_H

#include "base/base.h"
#include "base/error.h"
#include "base/record.h"

#define KERNEL_VERSION_BYTES 128
#define KERNEL_PATH_BYTES 4096

struct kernel_info {
    char version[KERNEL_VERSION_BYTES]; /* "6.1.153" */
    char path[KERNEL_PATH_BYTES];       /* of the file; "" when embedded */
    uint64_t size_bytes;
    uint8_t sha256[SHA256_BYTES];
    bool embedded;
};

/* What is known of it before the launcher goes where it can read no files any more. */
struct kernel_facts {
    bool known;
    int code; /* what bundled_kernel_info() returned; then err has the sentence */
    struct bvmm_error err;
    struct kernel_info info;
};

void bundled_kernel_read_facts(struct kernel_facts *facts);

/* What kernel it is. Return: 0, or -errno with *err filled (kind KERNEL_LOAD): there is none. */
int bundled_kernel_info(struct kernel_info *ret_info, struct bvmm_error *err) must_check;

/*
 * bundled_kernel_open - a descriptor to read the kernel from, positioned at 0.
 * An embedded kernel is copied into a memfd (a few milliseconds); see bundled_kernel_embedded().
 */
int bundled_kernel_open(int *ret_fd, size_t *ret_bytes, struct bvmm_error *err) must_check;

/* The embedded kernel in place, without a copy; NULL in builds that have none. */
const uint8_t *bundled_kernel_embedded(size_t *ret_bytes);

#endif
