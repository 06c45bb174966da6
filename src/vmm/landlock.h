/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * landlock.h: what Landlock can take from a process, by the version that the kernel has of it.
 *
 * The numbers are the kernel's interface, which only grows: they are here because Debian 12's headers know
 * those of Linux 5.19 only.
 *
 * Thread: any; what is taken is taken from the calling thread and those that it starts later.
 */
#ifndef BVMM_VMM_LANDLOCK_H
#define BVMM_VMM_LANDLOCK_H

#include "base/base.h"

/* Each right with the first version that has it. */
#define LANDLOCK_FS_ABI1 ((UINT64_C(1) << 13) - 1) /* execute, read, write, make, remove */
#define LANDLOCK_FS_WRITE_FILE (UINT64_C(1) << 1)
#define LANDLOCK_FS_READ_DIR (UINT64_C(1) << 3)
#define LANDLOCK_FS_REMOVE_DIR (UINT64_C(1) << 4)
#define LANDLOCK_FS_REMOVE_FILE (UINT64_C(1) << 5)
#define LANDLOCK_FS_MAKE_DIR (UINT64_C(1) << 7)
#define LANDLOCK_FS_MAKE_REG (UINT64_C(1) << 8)
#define LANDLOCK_FS_REFER (UINT64_C(1) << 13)       /* 2: link or rename into another directory */
#define LANDLOCK_FS_TRUNCATE (UINT64_C(1) << 14)    /* 3 */
#define LANDLOCK_NET_BIND_TCP (UINT64_C(1) << 0)    /* 4 */
#define LANDLOCK_NET_CONNECT_TCP (UINT64_C(1) << 1) /* 4 */
#define LANDLOCK_FS_IOCTL_DEV (UINT64_C(1) << 15)   /* 5: of a device that is opened later */
#define LANDLOCK_SCOPE_ABSTRACT                                                                    \
    (UINT64_C(1) << 0)                           /* 6: connect to abstract UNIX sockets of others */
#define LANDLOCK_SCOPE_SIGNAL (UINT64_C(1) << 1) /* 6: signals to processes outside */

/* struct landlock_ruleset_attr as of version 6; a kernel that knows a shorter one wants 0 beyond it. */
struct landlock_rights {
    uint64_t fs;
    uint64_t net;
    uint64_t scoped;
};

/* The kernel's version of Landlock, from 1; 0: it has none, or it is not enabled. */
int landlock_abi(void);

/* All rights that this version has and that we know. */
struct landlock_rights landlock_all_rights(int abi);

/* Take all of them, with no exception: needs no_new_privs. 0, or -errno; -ENOSYS: there is no Landlock. */
int landlock_forbid_all(void) must_check;

/* A directory, and what stays allowed there and below. */
struct landlock_place {
    int fd;
    uint64_t fs;
};

/*
 * landlock_forbid_other_places - the same, but for rights in some places, and for signals: those go to a
 * child that was started before, which counts as outside. What is open already stays usable.
 */
int landlock_forbid_other_places(const struct landlock_place *places, unsigned count) must_check;

#endif
