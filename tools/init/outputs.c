/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * outputs.c: patterns to open files. Runs after init has entered the image, so that links lead to
 * where they lead in the image.
 */
#include "outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Room in the manifest for the streams' own lines. */
#define MANIFEST_RESERVE_BYTES 1024
#define FILE_FRAME_BYTES (sizeof(uint32_t) + sizeof(uint64_t))

void outputs_init(struct outputs *outputs, uint64_t copy_max_bytes)
{
    *outputs = (struct outputs){
        .manifest_bytes = MANIFEST_RESERVE_BYTES,
        .copy_max_bytes = copy_max_bytes,
    };
}

/* What the entry will take in the manifest, with a digest. 0: more than there is room for. */
static size_t entry_bytes(const struct outputs *outputs, const struct manifest_entry *entry)
{
    static char line[3UL * MANIFEST_PATH_MAX_BYTES + 256];
    struct manifest_entry longest = *entry;
    size_t bytes;

    longest.size_bytes = UINT64_MAX;
    longest.has_sha256 = true;
    bytes = manifest_print(line, sizeof(line), &longest);
    return outputs->manifest_bytes + bytes > MANIFEST_MAX_BYTES ? 0 : bytes;
}

void outputs_note_missing(struct outputs *outputs, const char *path, enum manifest_reason reason)
{
    struct manifest_entry entry = {
        .name = MANIFEST_MISSING,
        .reason = reason,
        .path_bytes = strlen(path),
    };
    size_t bytes;

    for (size_t i = 0; i < outputs->missing_count; i++) {
        if (strcmp(outputs->missing[i].path, path) == 0) {
            return;
        }
    }
    entry.path = path;
    bytes = entry.path_bytes <= MANIFEST_PATH_MAX_BYTES ? entry_bytes(outputs, &entry) : 0;
    if (outputs->missing_count == OUTPUTS_MISSING_MAX || bytes == 0) {
        fprintf(stderr, "bvmm-init: output file %.100s is missing (%s)\n", path,
                manifest_reason_word(reason));
        return;
    }
    entry.path = strdup(path);
    if (entry.path) {
        outputs->missing[outputs->missing_count++] = entry;
        outputs->manifest_bytes += bytes;
    }
}

/*
 * A file that does not tell its size (those of /proc and /sys say 0 or a page, whatever is in
 * them): take what it has now. Nothing here waits: the descriptor does not block. Return: a
 * descriptor of the copy, or -errno.
 */
static int copy_file(const char *path, int fd, uint64_t max_bytes)
{
    uint8_t chunk[4096];
    int copy = memfd_create(path, MFD_CLOEXEC);
    uint64_t copied_bytes = 0;
    ssize_t count = 1;

    if (copy < 0) {
        return -errno;
    }
    while (copied_bytes < max_bytes && count > 0) {
        count = read(fd, chunk, min_u64(sizeof(chunk), max_bytes - copied_bytes));
        if (count < 0 || (count > 0 && write(copy, chunk, (size_t)count) != count)) {
            close(copy);
            return -EIO;
        }
        copied_bytes += (uint64_t)count;
    }
    return copy;
}

static bool tells_its_size(int fd)
{
    struct statfs status;

    if (fstatfs(fd, &status) < 0) {
        return true;
    }
    return status.f_type != PROC_SUPER_MAGIC && status.f_type != SYSFS_MAGIC &&
           status.f_type != CGROUP2_SUPER_MAGIC;
}

static void add_file(struct outputs *outputs, const char *path, int fd)
{
    struct stat status;
    struct output *file = &outputs->files[outputs->file_count];
    struct manifest_entry entry = {
        .name = MANIFEST_FILE,
        .path = path,
        .path_bytes = strlen(path),
    };
    size_t bytes = entry.path_bytes <= MANIFEST_PATH_MAX_BYTES ? entry_bytes(outputs, &entry) : 0;

    if (!tells_its_size(fd)) {
        int copy = copy_file(path, fd, outputs->copy_max_bytes);

        close(fd);
        fd = copy;
    }
    if (fd < 0 || fstat(fd, &status) < 0) {
        outputs_note_missing(outputs, path, MANIFEST_REASON_UNREADABLE);
    } else if (outputs->file_count == OUTPUT_FILES_MAX) {
        outputs_note_missing(outputs, path, MANIFEST_REASON_TOO_MANY);
    } else if (bytes == 0) {
        outputs_note_missing(outputs, path, MANIFEST_REASON_TOO_LONG);
    } else {
        *file = (struct output){
            .path = strdup(path),
            .fd = fd,
            .size_bytes = (uint64_t)status.st_size,
        };
        if (file->path) {
            outputs->file_count++;
            outputs->manifest_bytes += bytes;
            return;
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}

static bool is_collected(const struct outputs *outputs, const char *path)
{
    for (size_t i = 0; i < outputs->file_count; i++) {
        if (strcmp(outputs->files[i].path, path) == 0) {
            return true;
        }
    }
    return false;
}

/* One path. What is no regular file is not even opened: that alone may block, or do something. */
static void add_path(struct outputs *outputs, const char *path)
{
    struct stat status;
    int fd;

    if (is_collected(outputs, path)) {
        return;
    }
    if (stat(path, &status) < 0) {
        outputs_note_missing(outputs, path,
                             errno == ENOENT || errno == ENOTDIR ? MANIFEST_REASON_NO_MATCH
                                                                 : MANIFEST_REASON_UNREADABLE);
        return;
    }
    if (!S_ISREG(status.st_mode)) {
        outputs_note_missing(outputs, path,
                             S_ISDIR(status.st_mode) ? MANIFEST_REASON_DIRECTORY
                                                     : MANIFEST_REASON_NOT_REGULAR);
        return;
    }
    fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd < 0) {
        outputs_note_missing(outputs, path, MANIFEST_REASON_UNREADABLE);
        return;
    }
    add_file(outputs, path, fd);
}

void outputs_add(struct outputs *outputs, const char *pattern, bool is_pattern)
{
    glob_t found = {.gl_pathc = 0};
    struct stat status;
    int r;

    outputs->wanted = true;
    /* A file that is called just so is meant, whatever brackets are in its name. */
    if (!is_pattern || stat(pattern, &status) == 0) {
        add_path(outputs, pattern);
        return;
    }
    r = glob(pattern, 0, NULL, &found);
    if (r == GLOB_NOMATCH) {
        outputs_note_missing(outputs, pattern, MANIFEST_REASON_NO_MATCH);
    } else if (r != 0) {
        outputs_note_missing(outputs, pattern, MANIFEST_REASON_UNREADABLE);
    }
    for (size_t i = 0; i < found.gl_pathc; i++) {
        if (outputs->file_count == OUTPUT_FILES_MAX && !is_collected(outputs, found.gl_pathv[i])) {
            outputs_note_missing(outputs, pattern, MANIFEST_REASON_TOO_MANY);
            break;
        }
        add_path(outputs, found.gl_pathv[i]);
    }
    globfree(&found);
}

void outputs_fit(struct outputs *outputs, uint64_t limit_bytes)
{
    uint64_t left_bytes = limit_bytes - min_u64(limit_bytes, sizeof(uint32_t));
    size_t kept = 0;

    for (; kept < outputs->file_count; kept++) {
        uint64_t frame_bytes = FILE_FRAME_BYTES + strlen(outputs->files[kept].path);

        if (frame_bytes > left_bytes) {
            break;
        }
        left_bytes -= frame_bytes;
    }
    for (size_t i = kept; i < outputs->file_count; i++) {
        outputs_note_missing(outputs, outputs->files[i].path, MANIFEST_REASON_NO_ROOM);
        close(outputs->files[i].fd);
        free(outputs->files[i].path);
    }
    outputs->file_count = kept;
    for (size_t i = 0; i < kept; i++) {
        struct output *file = &outputs->files[i];

        file->sent_bytes = min_u64(file->size_bytes, left_bytes);
        left_bytes -= file->sent_bytes;
    }
}

uint64_t outputs_stream_bytes(const struct outputs *outputs, bool without_limit)
{
    uint64_t bytes = sizeof(uint32_t);

    for (size_t i = 0; i < outputs->file_count; i++) {
        const struct output *file = &outputs->files[i];

        bytes += FILE_FRAME_BYTES + strlen(file->path) +
                 (without_limit ? file->size_bytes : file->sent_bytes);
    }
    return bytes;
}

void outputs_close(struct outputs *outputs)
{
    for (size_t i = 0; i < outputs->file_count; i++) {
        close(outputs->files[i].fd);
        free(outputs->files[i].path);
    }
    for (size_t i = 0; i < outputs->missing_count; i++) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): ours, though an entry's path is const */
        free((void *)(uintptr_t)outputs->missing[i].path);
    }
    outputs->file_count = 0;
    outputs->missing_count = 0;
}
