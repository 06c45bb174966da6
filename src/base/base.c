/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* base.c: the clocks, and descriptors. Thread: any. Never blocks. */
#include "base/base.h"

#include <errno.h>
#include <fcntl.h>
#include <time.h>
#include <unistd.h>

static uint64_t read_clock_ns(clockid_t clock)
{
    struct timespec now;

    /* Cannot fail for the clocks asked for: all exist since Linux 2.6.12. */
    clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

uint64_t clock_monotonic_ns(void)
{
    return read_clock_ns(CLOCK_MONOTONIC);
}

uint64_t clock_realtime_ns(void)
{
    return read_clock_ns(CLOCK_REALTIME);
}

uint64_t clock_thread_cpu_ns(void)
{
    return read_clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

int fd_above_standard(int fd)
{
    int moved = fd;
    int saved_errno = 0;

    if (fd >= STDIN_FILENO && fd <= STDERR_FILENO) {
        moved = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
        saved_errno = errno;
        (void)close(fd);
        errno = saved_errno;
    }
    return moved;
}

int fd_pair_above_standard(int fds[2])
{
    int code = 0;

    for (int i = 0; i < 2; i++) {
        fds[i] = fd_above_standard(fds[i]);
        code = fds[i] < 0 ? -errno : code;
    }
    for (int i = 0; i < 2 && code < 0; i++) {
        if (fds[i] >= 0) {
            (void)close(fds[i]);
        }
        fds[i] = -1;
    }
    return code;
}
