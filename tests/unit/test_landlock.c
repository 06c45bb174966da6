/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_landlock.c: each version's rights; and on a kernel that has them, that they are gone. Outside of the
 * jail's other layers: each of those alone would hide that Landlock does nothing.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/landlock.h"

static struct sockaddr_un abstract; /* of this test's listener, outside */
static int fds[2];                  /* a pair that is connected before */
static int open_fd;                 /* a file that is open before */

static int forbidden(long result, int expected)
{
    return result < 0 && errno == expected;
}

static int try_tcp(bool connects)
{
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};

    return connects ? connect(fd, (const struct sockaddr *)&to, sizeof(to))
                    : bind(fd, (const struct sockaddr *)&to, sizeof(to));
}

static int try_abstract(void)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return connect(fd, (const struct sockaddr *)&abstract, sizeof(abstract));
}

static void ignore(int number)
{
    (void)number;
}

static void *signal_main_thread(void *arg)
{
    return (void *)syscall(SYS_tgkill, getpid(), getpid(), *(const int *)arg); /* NOLINT */
}

/* What actors do with what was open, or is theirs. 0: it all works; else which does not. */
static int use_what_is_left(void)
{
    int number = SIGUSR1;
    void *result = NULL;
    pthread_t thread;
    char byte = 'x';
    int count = 0;

    (void)signal(SIGUSR1, ignore);
    if (pthread_create(&thread, NULL, signal_main_thread, &number) != 0 ||
        pthread_join(thread, &result) != 0 || result != NULL) {
        return 20; /* a kick of a vCPU */
    }
    if (send(fds[0], &byte, 1, 0) != 1 || recv(fds[1], &byte, 1, 0) != 1) {
        return 21; /* the bridge's sockets */
    }
    if (ioctl(fds[0], FIONREAD, &count) != 0 || pread(open_fd, &byte, 1, 0) != 1 ||
        ftruncate(open_fd, 1) != 0) {
        return 22;
    }
    return 0;
}

/* 0: all is as it should be for this version; else the first thing that is not. */
static int restrict_and_try(int abi)
{
    const pid_t outside = getppid();

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || landlock_forbid_all() != 0) {
        return 1;
    }
    if (!forbidden(open("/", O_RDONLY | O_CLOEXEC), EACCES) ||
        !forbidden(open("/dev/null", O_WRONLY | O_CLOEXEC), EACCES)) {
        return 2;
    }
    if (abi >= 3 && !forbidden(truncate("/proc/self/comm", 0), EACCES)) {
        return 3;
    }
    if (abi >= 4 && (!forbidden(try_tcp(false), EACCES) || !forbidden(try_tcp(true), EACCES))) {
        return 4;
    }
    if (abi >= 6 && (!forbidden(try_abstract(), EPERM) || !forbidden(kill(outside, 0), EPERM))) {
        return 6;
    }
    return use_what_is_left();
}

static void rights_of_each_version(void **state)
{
    static const struct landlock_rights expected[] = {
        {0, 0, 0},      {0x1fff, 0, 0}, {0x3fff, 0, 0}, {0x7fff, 0, 0},
        {0x7fff, 3, 0}, {0xffff, 3, 0}, {0xffff, 3, 3}, {0xffff, 3, 3}, /* a newer one */
    };

    (void)state;
    for (size_t abi = 0; abi < ARRAY_SIZE(expected); abi++) {
        const struct landlock_rights found = landlock_all_rights((int)abi);

        assert_memory_equal(&found, &expected[abi], sizeof(found));
    }
}

static void what_is_forbidden_and_what_is_not(void **state)
{
    const int abi = landlock_abi();
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FILE *file = tmpfile();
    int status = 0;
    pid_t pid = 0;

    (void)state;
    if (abi == 0) {
        print_message("skipped: this kernel has no Landlock\n");
        skip();
    }
    print_message("Landlock of version %d\n", abi);
    abstract.sun_family = AF_UNIX;
    (void)snprintf(abstract.sun_path + 1, sizeof(abstract.sun_path) - 1, "bvmm-test-%d",
                   (int)getpid());
    assert_int_equal(bind(listener, (const struct sockaddr *)&abstract, sizeof(abstract)), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds), 0);
    assert_non_null(file);
    open_fd = fileno(file);
    assert_int_equal(write(open_fd, "xyz", 3), 3);
    assert_int_equal(try_abstract(), 0); /* or it would prove nothing */
    pid = fork();
    if (pid == 0) {
        _exit(restrict_and_try(abi));
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    (void)fclose(file);
    (void)close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rights_of_each_version),
        cmocka_unit_test(what_is_forbidden_and_what_is_not),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
