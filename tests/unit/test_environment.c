/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_environment.c: after jail_forget_environment() nobody finds the environment in the process. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/jail.h"

#define SECRET "SECRET_OF_THE_TEST=do not tell"

/* What /proc has of the environment the program was started with. */
static ssize_t initial_environment(char *ret_bytes, size_t size)
{
    const int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, ret_bytes, size) : -1;

    (void)close(fd);
    return n;
}

/* 0: nothing is left. Else which look found something. */
static int forget_and_look(void)
{
    char bytes[4096] = "";
    char *elsewhere = NULL;
    ssize_t n = initial_environment(bytes, sizeof(bytes));

    if (n <= 0 || memmem(bytes, (size_t)n, SECRET, sizeof(SECRET) - 1) == NULL) {
        return 1; /* else the test would prove nothing */
    }
    if (setenv("SECRET_OF_THE_TEST", "replaced", 1) != 0 || setenv("LATER", "secret", 1) != 0) {
        return 2;
    }
    elsewhere = getenv("LATER");
    jail_forget_environment();
    n = initial_environment(bytes, sizeof(bytes));
    for (ssize_t i = 0; i < n; i++) {
        if (bytes[i] != '\0') {
            return 3;
        }
    }
    return environ != NULL || elsewhere == NULL || elsewhere[0] != '\0' ? 4 : 0;
}

/* The environment of a process is what it was started with: so this program starts itself. */
static void test_nothing_is_left(void **state)
{
    char *const arguments[] = {(char[]){"test_environment"}, (char[]){"look"}, NULL};
    char *const environment[] = {(char[]){"FIRST=1"}, (char[]){SECRET}, (char[]){"LAST=3"}, NULL};
    int status = 0;
    const pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        (void)execve("/proc/self/exe", arguments, environment);
        _exit(99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_left),
    };

    if (argc == 2 && strcmp(argv[1], "look") == 0) {
        return forget_and_look();
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
