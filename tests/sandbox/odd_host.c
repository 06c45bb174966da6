/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * odd_host.c: a library to be preloaded into bvmm, which makes the host one of those that are rare.
 *
 * Always: its clock cannot be read without a system call. BVMM_HOST: words of: tmpfile (no file system has
 * O_TMPFILE), rename (renaming fails), full (the first file that is synced does not fit).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static bool no_tmpfile;
static bool no_rename;
static bool is_full;

__attribute__((constructor)) static void prepare(void)
{
    const char *host = getenv("BVMM_HOST");

    no_tmpfile = host != NULL && strstr(host, "tmpfile") != NULL;
    no_rename = host != NULL && strstr(host, "rename") != NULL;
    is_full = host != NULL && strstr(host, "full") != NULL;
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    return (int)syscall(SYS_clock_gettime, clock, time);
}

int fsync(int fd)
{
    if (is_full) {
        is_full = false;
        errno = ENOSPC;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

int openat(int dir_fd, const char *path, int flags, ...)
{
    va_list args;
    mode_t mode;

    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);
    if (no_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return (int)syscall(SYS_openat, dir_fd, path, flags, mode);
}

int renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    if (no_rename) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_renameat, from_fd, from, to_fd, to);
}
