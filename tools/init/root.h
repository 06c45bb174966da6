/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * root.h: from the initramfs to the root that the command sees: the job's image, read-only, under a
 * tmpfs, with the file systems that programs expect.
 *
 * Thread: init has but one. Blocks on mounts; waits for devices with a bound.
 */
#ifndef BVMM_INIT_ROOT_H
#define BVMM_INIT_ROOT_H

#include "base/error.h"
#include "protocol/guest_job.h"

#include <sys/types.h>

/* /dev and /proc of the initramfs: what init itself needs before the image is there. */
int root_mount_early(struct bvmm_error *err) must_check;

/* Mount the image and the tmpfs over it, and make that this process's root. */
int root_enter(const struct guest_job *job, struct bvmm_error *err) must_check;

/*
 * root_furnish - mount what programs expect, and the job's further images; set the host name,
 * bring the loopback interface up.
 */
int root_furnish(const struct guest_job *job, struct bvmm_error *err) must_check;

/*
 * root_mount_image - mount a device read-only.
 * @fstype: "" tries each that the kernel lists in /proc/filesystems.
 */
int root_mount_image(const char *device, const char *path, const char *fstype,
                     struct bvmm_error *err) must_check;

/* Make a directory and those above it; one that is there already is fine. */
int make_directories(const char *path, mode_t mode);

#endif
