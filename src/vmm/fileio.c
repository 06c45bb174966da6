/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fileio.c: new files, whole or not at all. Thread: launcher. */
#include "vmm/fileio.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MODE 0666 /* less the umask */
#define NAME_TRIES 16

int fileio_write(int fd, const void *data, size_t bytes)
{
    const uint8_t *from = data;

    while (bytes > 0) {
        ssize_t n = write(fd, from, bytes);

        if (n < 0 && errno == EAGAIN) {
            /* A pipe or terminal that somebody else has made non-blocking. */
            struct pollfd ready = {.fd = fd, .events = POLLOUT};

            (void)ppoll(&ready, 1, NULL, NULL);
            continue;
        }
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            return -errno;
        }
        from += n;
        bytes -= (size_t)n;
    }
    return 0;
}

const char *fileio_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* A name that nobody else uses, hidden, beside the final one, at most 255 bytes. */
static void make_temp_name(struct fileio_new *file, const char *name)
{
    uint64_t random = clock_monotonic_ns();

    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0) {
        random ^= (uint64_t)(uintptr_t)file << 32; /* no more calls than the launcher may make */
    }
    snprintf(file->temp_name, sizeof(file->temp_name), ".%.200s.%016" PRIx64 ".tmp", name, random);
}

static int begin_named(struct fileio_new *file, const char *name)
{
    for (int i = 0; i < NAME_TRIES; i++) {
        make_temp_name(file, name);
        file->fd = openat(file->dir_fd, file->temp_name,
                          O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, FILE_MODE);
        if (file->fd >= 0) {
            file->named = true;
            return 0;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return -errno;
}

int fileio_begin(struct fileio_new *file, int dir_fd, const char *name)
{
    *file = (struct fileio_new){.dir_fd = dir_fd};
    file->fd = openat(dir_fd, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, FILE_MODE);
    if (file->fd >= 0) {
        return 0;
    }
    /* Not every file system has O_TMPFILE; what else is wrong will show here as well. */
    return begin_named(file, name);
}

void fileio_abort(struct fileio_new *file)
{
    if (file->named) {
        unlinkat(file->dir_fd, file->temp_name, 0);
        file->named = false;
    }
    if (file->fd >= 0) {
        close(file->fd);
        file->fd = -1;
    }
}

/* Give the file without a name its temporary one. */
static int link_temp_name(struct fileio_new *file, const char *name)
{
    char self[64];

    snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    for (int i = 0; i < NAME_TRIES; i++) {
        make_temp_name(file, name);
        if (linkat(AT_FDCWD, self, file->dir_fd, file->temp_name, AT_SYMLINK_FOLLOW) == 0) {
            file->named = true;
            return 0;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    return -errno;
}

const char *fileio_strerror(int error)
{
    return error == -EEXIST ? "something that is no regular file has that name" : strerror(-error);
}

/* To rename a file over /dev/null, as root, would be a disaster. */
static bool may_replace(int dir_fd, const char *name)
{
    struct stat status;

    return fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || S_ISREG(status.st_mode);
}

int fileio_commit(struct fileio_new *file, const char *name)
{
    int r = fsync(file->fd) < 0 ? -errno : 0;

    if (r == 0 && !may_replace(file->dir_fd, name)) {
        r = -EEXIST;
    }
    if (r == 0 && !file->named) {
        r = link_temp_name(file, name);
    }
    if (r == 0 && renameat(file->dir_fd, file->temp_name, file->dir_fd, name) < 0) {
        r = -errno;
    }
    if (r == 0) {
        file->named = false; /* it is the real file now */
        /* The new name must last too. Some file systems cannot sync a directory: they need not. */
        if (fsync(file->dir_fd) < 0 && errno != EINVAL) {
            r = -errno;
        }
    }
    fileio_abort(file);
    return r;
}

int fileio_replace_at(int dir_fd, const char *name, const void *data, size_t bytes)
{
    struct fileio_new file;
    int r = fileio_begin(&file, dir_fd, name);

    if (r < 0) {
        return r;
    }
    r = fileio_write(file.fd, data, bytes);
    if (r < 0) {
        fileio_abort(&file);
        return r;
    }
    return fileio_commit(&file, name);
}

int fileio_replace(const char *path, const void *data, size_t bytes)
{
    char *dir = strdup(path);
    char *base = strdup(path);
    int dir_fd = -1;
    int r = dir && base ? 0 : -ENOMEM;

    if (r == 0) {
        dir_fd = open(dirname(dir), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        r = dir_fd < 0 ? -errno : fileio_replace_at(dir_fd, basename(base), data, bytes);
    }
    if (dir_fd >= 0) {
        close(dir_fd);
    }
    free(dir);
    free(base);
    return r;
}
