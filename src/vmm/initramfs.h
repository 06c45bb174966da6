/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * initramfs.h: the initial file system with bvmm's init in it, made in memory for one run.
 *
 * A cpio archive in the format that Linux unpacks ("newc"): /init, the job (/bvmm/job), standard
 * input if there is any (/bvmm/stdin), /dev/console, and the directories that init mounts on.
 *
 * Thread: launcher, before the fork. Blocks on the files that it reads.
 */
#ifndef BVMM_VMM_INITRAMFS_H
#define BVMM_VMM_INITRAMFS_H

#include "base/error.h"
#include "protocol/guest_job.h"

/* bvmm's init, a static program, linked into bvmm (tools/init/CMakeLists.txt). */
extern const uint8_t bvmm_init_start[];
extern const uint8_t bvmm_init_end[];

/*
 * initramfs_build - make the archive.
 * @stdin_fd: what the command reads, from the descriptor's position to its end; -1: nothing.
 * @initrd_fd: the job's own initrd, from its beginning; comes first, so that bvmm's /init wins; -1:
 * none. It may be compressed.
 * @ret_bytes: malloc'ed; the caller frees.
 * Return: 0, or -errno with *err filled.
 */
int initramfs_build(const struct guest_job *job, int stdin_fd, int initrd_fd, uint8_t **ret_bytes,
                    size_t *ret_count, struct bvmm_error *err) must_check;

#endif
