/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* fileio.c: new files, whole or not at all. Thread: launcher. */
#include "vmm/fileio.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"

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

/* ---- Temporary names ------------------------------------------------------------------------- */

/*
 * A file with a temporary name is locked by the process that writes it. So that one whose maker is dead
 * can be told from one that somebody is writing at this moment: fileio_prepare().
 */

#define TEMP_FORMAT ".%.200s.%016" PRIx64 ".tmp"
#define TEMP_DIGITS 16

static uint64_t name_number; /* of all threads; 0: not drawn yet */

/* Drawn once, while bvmm may still ask for it; two processes with the same one just try the next. */
static void draw_name_number(void)
{
    uint64_t random = 0;
    uint64_t expected = 0;

    if (__atomic_load_n(&name_number, __ATOMIC_RELAXED) != 0) {
        return;
    }
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) < 0) {
        random = clock_monotonic_ns();
    }
    /* relaxed: it is a number, and orders nothing */
    (void)__atomic_compare_exchange_n(&name_number, &expected, random | 1, false, __ATOMIC_RELAXED,
                                      __ATOMIC_RELAXED);
}

/* A name that nobody else uses, hidden, beside the final one, at most 255 bytes. */
static void make_temp_name(struct fileio_new *file, const char *name)
{
    draw_name_number();
    snprintf(file->temp_name, sizeof(file->temp_name), TEMP_FORMAT, name,
             __atomic_fetch_add(&name_number, 1, __ATOMIC_RELAXED));
}

/* Is it one that make_temp_name() makes for name? */
static bool is_temp_name(const char *entry, const char *name)
{
    const size_t bytes = strlen(entry);
    uint64_t number = 0;
    char again[FILEIO_TEMP_NAME_BYTES];

    if (bytes < TEMP_DIGITS + sizeof("..") - 1 + sizeof(".tmp") - 1) {
        return false;
    }
    number = strtoull(entry + bytes - (sizeof(".tmp") - 1) - TEMP_DIGITS, NULL, 16);
    snprintf(again, sizeof(again), TEMP_FORMAT, name, number);
    return strcmp(entry, again) == 0;
}

/* False: somebody takes the file for a dead one's, and removes it. A file system without locks has no such. */
static bool lock_temp(int fd)
{
    return flock(fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK;
}

static int begin_named(struct fileio_new *file, const char *name)
{
    struct stat status;

    for (int i = 0; i < NAME_TRIES; i++) {
        make_temp_name(file, name);
        file->fd = fd_above_standard(openat(file->dir_fd, file->temp_name,
                                            O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
                                            FILE_MODE));
        if (file->fd < 0 && errno != EEXIST) {
            break;
        }
        /* Until it was locked it looked like a dead one's. */
        if (file->fd >= 0 && lock_temp(file->fd) &&
            fstatat(file->dir_fd, file->temp_name, &status, AT_SYMLINK_NOFOLLOW) == 0) {
            file->named = true;
            return 0;
        }
        if (file->fd >= 0) {
            close(file->fd);
            file->fd = -1;
            errno = EEXIST;
        }
    }
    return -errno;
}

/* With its lock nobody writes it, nor ever will: that name is not made again. */
static void remove_if_dead(int dir_fd, const char *name)
{
    struct stat status;
    int fd = -1;

    if (fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(status.st_mode)) {
        return;
    }
    /* For writing: some network file systems want that for a lock. */
    fd = openat(dir_fd, name, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        (void)unlinkat(dir_fd, name, 0);
    }
    if (fd >= 0) {
        close(fd);
    }
}

void fileio_prepare(int dir_fd, const char *name)
{
    const int fd = dir_fd < 0 ? -1 : openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry = NULL;

    draw_name_number();
    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        if (is_temp_name(entry->d_name, name)) {
            remove_if_dead(dir_fd, entry->d_name);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    } else if (fd >= 0) {
        close(fd);
    }
}

/* ---- New files ------------------------------------------------------------------------------- */

int fileio_begin(struct fileio_new *file, int dir_fd, const char *name)
{
    *file = (struct fileio_new){.dir_fd = dir_fd};
    file->fd = fd_above_standard(openat(dir_fd, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, FILE_MODE));
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

static int link_as(const struct fileio_new *file, const char *name)
{
    char self[64];

    snprintf(self, sizeof(self), "/proc/self/fd/%d", file->fd);
    return linkat(AT_FDCWD, self, file->dir_fd, name, AT_SYMLINK_FOLLOW) < 0 ? -errno : 0;
}

static int link_temp_name(struct fileio_new *file, const char *name)
{
    int r = -EEXIST;

    (void)lock_temp(file->fd);
    for (int i = 0; r == -EEXIST && i < NAME_TRIES; i++) {
        make_temp_name(file, name);
        r = link_as(file, file->temp_name);
    }
    file->named = r == 0;
    return r;
}

const char *fileio_strerror(int error)
{
    return error == -EEXIST ? "something that is no regular file has that name"
                            : error_text(-error);
}

/* To rename a file over /dev/null, as root, would be a disaster. */
static bool may_replace(int dir_fd, const char *name)
{
    struct stat status;

    return fstatat(dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0 || S_ISREG(status.st_mode);
}

/*
 * Give the file its name. Only rename() replaces what has that already, and it takes a name to be renamed;
 * a kill between the two steps would leave that one, so they are taken only where they must be.
 */
static int put_in_place(struct fileio_new *file, const char *name)
{
    int r = file->named ? -EEXIST : link_as(file, name);

    if (r != -EEXIST || !may_replace(file->dir_fd, name)) {
        return r;
    }
    r = file->named ? 0 : link_temp_name(file, name);
    if (r == 0 && renameat(file->dir_fd, file->temp_name, file->dir_fd, name) < 0) {
        r = -errno;
    }
    if (r == 0) {
        file->named = false; /* it is the real file now */
    }
    return r;
}

int fileio_commit(struct fileio_new *file, const char *name)
{
    int r = fsync(file->fd) < 0 ? -errno : put_in_place(file, name);

    /* The new name must last too. Some file systems cannot sync a directory: they need not. */
    if (r == 0 && fsync(file->dir_fd) < 0 && errno != EINVAL) {
        r = -errno;
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
