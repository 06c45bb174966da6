/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fileio.h: whole files, written so that a reader never sees half of one.
 *
 * A new file is made without a name (O_TMPFILE) where the file system can, filled, synced, and given its
 * name. If a file has that already, it gets a temporary name beside it, and is renamed over that.
 * Whatever fails, nothing stays behind. Only a kill can leave a file with a temporary name: between the last
 * two steps, or where there is no O_TMPFILE; and the next run with the same name removes that.
 *
 * Thread: launcher. Blocks on the disk.
 */
#ifndef BVMM_VMM_FILEIO_H
#define BVMM_VMM_FILEIO_H

#include "base/base.h"

#define FILEIO_TEMP_NAME_BYTES 256

struct fileio_new {
    int dir_fd; /* the caller's */
    int fd;
    bool named; /* temp_name exists */
    char temp_name[FILEIO_TEMP_NAME_BYTES];
};

/* The last part of a path: "c" of "a/b/c". */
const char *fileio_name(const char *path);

/*
 * fileio_prepare - what is done before a file called name is written in dir_fd, some time: files with
 * temporary names for it, whose makers are dead, are removed, and a number for temporary names is drawn.
 * For a process that may do neither later. @dir_fd: -1: only the number.
 */
void fileio_prepare(int dir_fd, const char *name);

/* Begin a file that will be called name in dir_fd. 0 or -errno. */
int fileio_begin(struct fileio_new *file, int dir_fd, const char *name) must_check;

/*
 * Sync it and put it in place as name. On failure it is gone, as after fileio_abort().
 * -EEXIST: name is something else than a regular file, and stays.
 */
int fileio_commit(struct fileio_new *file, const char *name) must_check;

/* What a -errno of these functions means, for a message. */
const char *fileio_strerror(int error);

void fileio_abort(struct fileio_new *file);

/* All of it, whatever signals and short writes come; waits for a descriptor that is not ready. */
int fileio_write(int fd, const void *data, size_t bytes) must_check;

/* The three steps for data in memory. */
int fileio_replace_at(int dir_fd, const char *name, const void *data, size_t bytes) must_check;
int fileio_replace(const char *path, const void *data, size_t bytes) must_check;

#endif
