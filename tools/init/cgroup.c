/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cgroup.c: the command's control group (cgroup v2, mounted at CGROUP_ROOT).
 */
#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* What init needs at most: buffers of sockets, page tables, its own pages again. */
#define INIT_RESERVE_BYTES (16 * MIB)

uint64_t cgroup_pids_share(uint64_t threads_max, uint64_t pid_max)
{
    uint64_t most = min_u64(threads_max, pid_max);

    return most - most / 10;
}

uint64_t cgroup_memory_share(uint64_t available_bytes)
{
    return available_bytes - min_u64(available_bytes / 8, INIT_RESERVE_BYTES);
}

static int write_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    int r = 0;

    if (fd < 0) {
        return -errno;
    }
    if (write(fd, text, strlen(text)) < 0) {
        r = -errno;
    }
    close(fd);
    return r;
}

static int write_number(const char *path, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    return write_file(path, text);
}

/* The number after a word at the beginning of a line; with "" the file's first number. 0: none. */
static uint64_t read_number(const char *path, const char *word)
{
    FILE *file = fopen(path, "re");
    char line[128];
    uint64_t number = 0;
    bool found = false;

    while (file && !found && fgets(line, sizeof(line), file)) {
        found = strncmp(line, word, strlen(word)) == 0;
        number = found ? strtoull(line + strlen(word), NULL, 10) : 0;
    }
    if (file) {
        fclose(file);
    }
    return number;
}

static void warn(const char *what, int error)
{
    fprintf(stderr, "bvmm-init: the command runs without %s: %s\n", what, strerror(-error));
}

static void set_limits(void)
{
    uint64_t pids = cgroup_pids_share(read_number("/proc/sys/kernel/threads-max", ""),
                                      read_number("/proc/sys/kernel/pid_max", ""));
    uint64_t memory_bytes =
        cgroup_memory_share(read_number("/proc/meminfo", "MemAvailable:") * KIB);
    int r = pids > 0 ? write_number(CGROUP_COMMAND "/pids.max", pids) : -ENODATA;

    if (r < 0) {
        warn("a limit of processes", r);
    }
    r = memory_bytes > 0 ? write_number(CGROUP_COMMAND "/memory.max", memory_bytes) : -ENODATA;
    if (r < 0) {
        warn("a limit of memory", r);
    }
}

/* Both at once, before there is a group that would have to be changed: it is faster. */
static void enable_controllers(void)
{
    if (write_file(CGROUP_ROOT "/cgroup.subtree_control", "+pids +memory") < 0) {
        /* One of them is not in this kernel; set_limits() says what is missing. */
        write_file(CGROUP_ROOT "/cgroup.subtree_control", "+pids");
        write_file(CGROUP_ROOT "/cgroup.subtree_control", "+memory");
    }
}

int cgroup_make(void)
{
    int fd;

    enable_controllers();
    if (mkdir(CGROUP_COMMAND, 0755) < 0) {
        warn("a control group", -errno);
        return -errno;
    }
    set_limits();
    fd = open(CGROUP_COMMAND, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static int join(int cgroup_fd)
{
    int fd = openat(cgroup_fd, "cgroup.procs", O_WRONLY | O_CLOEXEC);
    int error = 0;

    if (fd < 0 || write(fd, "0", 1) < 0) {
        error = errno;
    }
    if (fd >= 0) {
        close(fd);
    }
    return error;
}

pid_t cgroup_fork(int cgroup_fd, int *ret_error)
{
    struct clone_args args = {
        .flags = CLONE_INTO_CGROUP,
        .exit_signal = SIGCHLD,
        .cgroup = (uint64_t)(unsigned)cgroup_fd,
    };
    pid_t pid = -1;

    *ret_error = 0;
    if (cgroup_fd >= 0) {
        /* Init has one thread, and nothing to be told of a fork: the bare call will do. */
        pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
    }
    if (pid < 0) {
        pid = fork();
        if (pid == 0 && cgroup_fd >= 0) {
            *ret_error = join(cgroup_fd);
        }
    }
    return pid;
}

uint32_t cgroup_oom_kills(void)
{
    return (uint32_t)min_u64(read_number(CGROUP_COMMAND "/memory.events", "oom_kill "), UINT32_MAX);
}
