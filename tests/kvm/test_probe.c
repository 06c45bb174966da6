/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_probe.c: what bvmm says about this host's KVM is true, and tells a person what to do. */
#if defined(__x86_64__)

#include "guest.h"

#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static void test_no_such_device(void **state)
{
    struct bvmm_error err;
    int fd = -1;

    (void)state;
    assert_int_equal(kvm_open("/nonexistent/kvm", &fd, &err), -ENOENT);
    assert_int_equal(fd, -1);
    assert_int_equal(err.kind, BVMM_ERROR_KVM);
    assert_non_null(strstr(err.message, "/nonexistent/kvm"));
    assert_non_null(strstr(err.message, "modprobe kvm_intel"));
}

static void test_another_device(void **state)
{
    struct bvmm_error err;
    int fd = -1;

    (void)state;
    assert_int_equal(kvm_open("/dev/null", &fd, &err), -ENOTTY);
    assert_non_null(strstr(err.message, "/dev/null is not KVM"));
}

/* In a child without privileges: what does opening a file of this mode and group say? */
static void message_for_mode(mode_t mode, gid_t group, char *ret_message, size_t size)
{
    char path[] = "/tmp/bvmm-test-kvm-XXXXXX";
    int file = mkstemp(path);
    int ends[2];
    ssize_t got;
    pid_t child;

    assert_true(file >= 0);
    assert_int_equal(fchown(file, 0, group), 0);
    assert_int_equal(fchmod(file, mode), 0);
    assert_int_equal(pipe(ends), 0);
    child = fork();
    if (child == 0) {
        struct bvmm_error err = {0};
        int fd;

        if (setgroups(0, NULL) == 0 && setresgid(65534, 65534, 65534) == 0 &&
            setresuid(65534, 65534, 65534) == 0 && kvm_open(path, &fd, &err) == -EACCES &&
            write(ends[1], err.message, strlen(err.message)) > 0) {
            _exit(0);
        }
        _exit(1);
    }
    assert_int_equal(close(ends[1]), 0);
    got = read(ends[0], ret_message, size - 1);
    assert_true(got > 0);
    ret_message[got] = '\0';
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(close(ends[0]) | close(file) | unlink(path), 0);
}

static void test_no_permission(void **state)
{
    const struct group *group = getgrnam("daemon");
    char message[BVMM_ERROR_MESSAGE_BYTES];

    (void)state;
    if (geteuid() != 0 || !group) {
        (void)puts("skipped: becoming another user needs root");
        skip();
        return;
    }
    message_for_mode(0660, group->gr_gid, message, sizeof(message));
    assert_non_null(strstr(message, "usermod -aG daemon"));
    message_for_mode(0660, 54321, message, sizeof(message));
    assert_non_null(strstr(message, "usermod -aG 54321"));
    message_for_mode(0600, group->gr_gid, message, sizeof(message));
    assert_non_null(strstr(message, "only its owner"));
}

static bool host_has_virtualization(void)
{
    FILE *file = fopen("/proc/cpuinfo", "re");
    char line[4096];
    bool found = false;

    assert_non_null(file);
    while (!found && fgets(line, sizeof(line), file)) {
        found = strncmp(line, "flags", 5) == 0 && (strstr(line, " vmx") || strstr(line, " svm"));
    }
    assert_int_equal(fclose(file), 0);
    return found;
}

static void test_probe_agrees_with_the_processor(void **state)
{
    struct bvmm_error err = {0};
    int fd;
    int ret;

    (void)state;
    guest_check(kvm_open(KVM_DEVICE_PATH, &fd, &err), &err);
    ret = arch_kvm_probe(fd, &err);
    (void)printf("probe: %d %s\n", ret, ret != 0 ? err.message : "");
    if (host_has_virtualization()) {
        assert_int_equal(ret, 0);
    } else {
        assert_int_equal(ret, -ENODEV);
        assert_int_equal(err.kind, BVMM_ERROR_KVM);
        assert_non_null(strstr(err.message, "no hardware virtualization"));
        assert_non_null(strstr(err.message, "tests/lab/lab"));
    }
    assert_int_equal(close(fd), 0);
}

static void on_alarm(int signal)
{
    (void)signal;
}

static void test_probe_leaves_nothing_behind(void **state)
{
    const struct sigaction mine = {.sa_handler = on_alarm};
    struct sigaction after;
    struct bvmm_error err;
    sigset_t blocked;
    sigset_t mask;
    int fd;
    int first;
    int last;

    (void)state;
    assert_int_equal(sigaction(ARCH_PROBE_SIGNAL, &mine, NULL), 0);
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, ARCH_PROBE_SIGNAL);
    assert_int_equal(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
    guest_check(kvm_open(KVM_DEVICE_PATH, &fd, &err), &err);
    first = dup(fd);
    assert_int_equal(close(first), 0);
    for (unsigned i = 0; i < 3; i++) {
        (void)!arch_kvm_probe(fd, &err);
    }
    last = dup(fd);
    assert_int_equal(last, first); /* no descriptor was left open */
    assert_int_equal(close(last), 0);
    assert_int_equal(sigaction(ARCH_PROBE_SIGNAL, NULL, &after), 0);
    assert_ptr_equal(after.sa_handler, on_alarm);
    assert_int_equal(sigprocmask(SIG_SETMASK, NULL, &mask), 0);
    assert_true(sigismember(&mask, ARCH_PROBE_SIGNAL));
    assert_int_equal(close(fd), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_such_device),
        cmocka_unit_test(test_another_device),
        cmocka_unit_test(test_no_permission),
        cmocka_unit_test(test_probe_agrees_with_the_processor),
        cmocka_unit_test(test_probe_leaves_nothing_behind),
    };

    return guest_impossible() ? SKIPPED : cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: the guest's code is for x86_64");
    return 77;
}

#endif
