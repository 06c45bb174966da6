/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * initramfs.c: writes a newc cpio archive into memory. Thread: launcher, before the fork.
 *
 * The format (Documentation/driver-api/early-userspace/buffer-format.rst of Linux): each entry is
 * "070701", 13 numbers of 8 hex digits, the name with its NUL, padding to 4, the content, padding
 * to 4. The entry "TRAILER!!!" ends an archive; several archives may follow each other on
 * boundaries of 4 bytes. All times and inode numbers are fixed, so that the same job gives the same
 * bytes.
 */
#include "vmm/initramfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CPIO_HEADER_BYTES 110
#define CPIO_ALIGNMENT_BYTES 4
#define READ_CHUNK_BYTES (256 * KIB)
/* An entry's size is a number of 32 bits, and Linux takes no larger file. */
#define CPIO_FILE_MAX_BYTES UINT32_MAX

struct archive {
    uint8_t *bytes;
    size_t count;
    size_t room;
    uint32_t next_inode;
    bool failed; /* out of memory: all that follows does nothing */
};

/* Make room behind what is there. NULL: no memory. */
static uint8_t *reserve(struct archive *archive, size_t count)
{
    size_t room = archive->room;
    uint8_t *bytes;

    while (room < archive->count + count) {
        room = room ? room * 2 : (size_t)(2 * MIB);
    }
    if (room > archive->room && !archive->failed) {
        bytes = realloc(archive->bytes, room);
        if (bytes) {
            archive->bytes = bytes;
            archive->room = room;
        } else {
            archive->failed = true;
        }
    }
    return archive->failed ? NULL : archive->bytes + archive->count;
}

static void add_bytes(struct archive *archive, const void *bytes, size_t count)
{
    uint8_t *to = reserve(archive, count);

    if (to && count > 0) {
        memcpy(to, bytes, count);
        archive->count += count;
    }
}

static void add_padding(struct archive *archive)
{
    static const uint8_t zeros[CPIO_ALIGNMENT_BYTES];

    add_bytes(archive, zeros, align_up(archive->count, CPIO_ALIGNMENT_BYTES) - archive->count);
}

/* Everything of an entry but its content. */
static void add_head(struct archive *archive, const char *name, mode_t mode, size_t content_bytes,
                     unsigned device_major, unsigned device_minor)
{
    char header[CPIO_HEADER_BYTES + 1];

    snprintf(header, sizeof(header), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x",
             archive->next_inode++, mode, 0U, 0U, S_ISDIR(mode) ? 2U : 1U, 0U,
             (uint32_t)content_bytes, 0U, 0U, device_major, device_minor,
             (uint32_t)strlen(name) + 1U, 0U);
    add_bytes(archive, header, CPIO_HEADER_BYTES);
    add_bytes(archive, name, strlen(name) + 1);
    add_padding(archive);
}

static void add_directory(struct archive *archive, const char *name)
{
    add_head(archive, name, S_IFDIR | 0755, 0, 0, 0);
}

static void add_file(struct archive *archive, const char *name, mode_t mode, const void *content,
                     size_t bytes)
{
    add_head(archive, name, S_IFREG | mode, bytes, 0, 0);
    add_bytes(archive, content, bytes);
    add_padding(archive);
}

/*
 * read_into - add a file's content.
 * @position: where to begin, or -1: where the descriptor stands.
 */
static int read_into(struct archive *archive, int fd, off_t position, const char *what,
                     struct bvmm_error *err)
{
    for (;;) {
        uint8_t *to = reserve(archive, READ_CHUNK_BYTES);
        ssize_t count;

        if (!to) {
            return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory for the %s", what);
        }
        count = position < 0 ? read(fd, to, READ_CHUNK_BYTES)
                             : pread(fd, to, READ_CHUNK_BYTES, position);
        if (count < 0 && errno == EINTR) {
            continue;
        }
        if (count < 0) {
            return error_set(err, BVMM_ERROR_IO, -errno, "cannot read the %s: %s", what,
                             error_text(errno));
        }
        if (count == 0) {
            return 0;
        }
        archive->count += (size_t)count;
        position += position < 0 ? 0 : count;
    }
}

/* How long a pipe is nobody knows: the content is read first, then its size is written before it.
 */
static int add_stdin(struct archive *archive, int fd, struct bvmm_error *err)
{
    struct archive content = {.bytes = NULL};
    int r = read_into(&content, fd, -1, "job's standard input (stdin_path)", err);

    if (r == 0 && content.count > CPIO_FILE_MAX_BYTES) {
        r = error_set(err, BVMM_ERROR_JOB, -E2BIG,
                      "stdin_path is %zu bytes; expected less than 4 GiB: put it into a drive",
                      content.count);
    }
    if (r == 0) {
        /* Without the leading slash, as every name here. */
        add_file(archive, &GUEST_JOB_STDIN_PATH[1], 0600, content.bytes, content.count);
    }
    free(content.bytes);
    return r;
}

static int add_entries(struct archive *archive, const struct guest_job *job, int stdin_fd,
                       struct bvmm_error *err)
{
    static const char *const directories[] = {"dev",       "proc",    "sys",     "bvmm",
                                              "bvmm/root", "bvmm/rw", "bvmm/new"};
    uint8_t *encoded = NULL;
    size_t encoded_bytes = 0;
    int r = guest_job_encode(job, &encoded, &encoded_bytes, err);

    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < ARRAY_SIZE(directories); i++) {
        add_directory(archive, directories[i]);
    }
    add_head(archive, "dev/console", S_IFCHR | 0600, 0, 5, 1);
    add_file(archive, "init", 0755, bvmm_init_start, (size_t)(bvmm_init_end - bvmm_init_start));
    add_file(archive, &GUEST_JOB_PATH[1], 0600, encoded, encoded_bytes);
    free(encoded);
    if (stdin_fd >= 0) {
        r = add_stdin(archive, stdin_fd, err);
    }
    add_head(archive, "TRAILER!!!", 0, 0, 0, 0);
    return r;
}

int initramfs_build(const struct guest_job *job, int stdin_fd, int initrd_fd, uint8_t **ret_bytes,
                    size_t *ret_count, struct bvmm_error *err)
{
    struct archive archive = {.next_inode = 1};
    int r = 0;

    if (initrd_fd >= 0) {
        r = read_into(&archive, initrd_fd, 0, "job's initrd (initrd_path)", err);
        add_padding(&archive);
    }
    if (r == 0) {
        r = add_entries(&archive, job, stdin_fd, err);
    }
    if (r == 0 && archive.failed) {
        r = error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory for the initramfs");
    }
    if (r < 0) {
        free(archive.bytes);
        return r;
    }
    *ret_bytes = archive.bytes;
    *ret_count = archive.count;
    return 0;
}
