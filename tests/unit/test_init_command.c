/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_init_command.c: search, start, wait, signals and the end of the command. What kills "all
 * other processes" runs in a PID namespace of its own, where this test's child is process 1, as
 * init is in the guest.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cgroup.h"
#include "command.h"
#include "link.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char dir[] = "/tmp/bvmm-test-command.XXXXXX";

static void write_file(const char *name, const char *text, mode_t mode)
{
    char path[PATH_MAX];
    int fd;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static int set_up(void **state)
{
    char path[PATH_MAX];

    (void)state;
    assert_non_null(mkdtemp(dir));
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof(path), "%s/%c", dir, "ab"[i]);
        assert_int_equal(mkdir(path, 0755), 0);
    }
    write_file("a/tool", "#!/bin/sh\nexit 1\n", 0644); /* not executable: the next one counts */
    write_file("b/tool", "#!/bin/sh\nexit 2\n", 0755);
    write_file("a/data", "x", 0644);
    write_file("b/noshebang", "exit 0\n", 0755);
    write_file("b/badinterpreter", "#!/nonexistent/interpreter\n", 0755);
    snprintf(path, sizeof(path), "%s/a/folder", dir);
    assert_int_equal(mkdir(path, 0755), 0);
    assert_int_equal(chdir(dir), 0);
    return 0;
}

static int tear_down(void **state)
{
    char command[PATH_MAX];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

/* ---- Search ---------------------------------------------------------------------------------- */

static void test_find(void **state)
{
    char list[PATH_MAX];
    char want[PATH_MAX];
    char path[PATH_MAX];

    (void)state;
    snprintf(list, sizeof(list), "/nonexistent:%s/a:%s/b", dir, dir);
    snprintf(want, sizeof(want), "%s/b/tool", dir);
    assert_int_equal(command_find("tool", list, path), 0);
    assert_string_equal(path, want);
    assert_int_equal(command_find("data", list, path), EXIT_NOT_EXECUTABLE);
    assert_int_equal(command_find("folder", list, path), EXIT_NOT_FOUND);
    assert_int_equal(command_find("nothing", list, path), EXIT_NOT_FOUND);
    assert_int_equal(command_find("", list, path), EXIT_NOT_FOUND);
    assert_int_equal(command_find("tool", "", path), EXIT_NOT_FOUND);
    /* With a slash it is a path, whatever PATH says. */
    assert_int_equal(command_find("b/tool", "/nonexistent", path), 0);
    assert_string_equal(path, "b/tool");
    assert_int_equal(command_find("a/tool", list, path), EXIT_NOT_EXECUTABLE);
    assert_int_equal(command_find("a/folder", list, path), EXIT_NOT_EXECUTABLE);
    assert_int_equal(command_find("b/nothing", list, path), EXIT_NOT_FOUND);
    assert_int_equal(command_find("a/data/x", list, path), EXIT_NOT_FOUND);
    /* An empty directory in the list is the working directory. */
    assert_int_equal(chdir("b"), 0);
    assert_int_equal(command_find("tool", "/nonexistent:", path), 0);
    assert_string_equal(path, "./tool");
    assert_int_equal(chdir(dir), 0);
}

static void test_environment(void **state)
{
    static const char *const job[] = {"A=1", "PATHX=no"};
    static const char *const full[] = {"HOME=/h", "PATH=/p"};
    struct user user = {.home = "/home/joe"};
    char **env = NULL;

    (void)state;
    assert_int_equal(environment_make(job, 2, &user, &env), 0);
    assert_string_equal(environment_get(env, "A"), "1");
    assert_string_equal(environment_get(env, "HOME"), "/home/joe");
    assert_non_null(strstr(environment_get(env, "PATH"), "/usr/bin"));
    assert_null(environment_get(env, "TERM"));
    environment_free(env);
    assert_int_equal(environment_make(full, 2, &user, &env), 0);
    assert_string_equal(environment_get(env, "HOME"), "/h");
    assert_string_equal(environment_get(env, "PATH"), "/p");
    assert_null(env[2]);
    environment_free(env);
}

static void test_shares(void **state)
{
    (void)state;
    assert_int_equal(cgroup_pids_share(1000, 32768), 900);
    assert_int_equal(cgroup_pids_share(100000, 32768), 29492);
    assert_true(cgroup_memory_share(GIB) == GIB - 16 * MIB);
    assert_true(cgroup_memory_share(64 * MIB) == 56 * MIB);
    assert_int_equal(cgroup_memory_share(0), 0);
}

/* ---- Running --------------------------------------------------------------------------------- */

/* What a child in the role of init found out. */
struct found {
    int prepared;
    char message[256];
    struct frame_end end;
    uint64_t go_ns;
    uint64_t done_ns; /* it was waited for before that */
    char err[512];
    char out[512];
    int left_over; /* processes after command_kill_rest() */
};

struct plan {
    const char *args[8];
    const char *workdir;
    struct user user;
    uint32_t grace_ms;
    int pause_ms; /* between prepared and go */
};

static void read_back(int fd, char *to, size_t room)
{
    ssize_t count = pread(fd, to, room - 1, 0);

    to[count > 0 ? count : 0] = '\0';
}

static void act_as_init(const struct plan *plan, struct found *found)
{
    static char *const env[] = {NULL}; /* no PATH: the default one */
    const struct command_spec spec = {
        .args = plan->args,
        .env = env,
        .workdir = plan->workdir ? plan->workdir : dir,
        .user = &plan->user,
        .stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC),
        .stdout_fd = memfd_create("out", MFD_CLOEXEC),
        .stderr_fd = memfd_create("err", MFD_CLOEXEC),
        .cgroup_fd = -1,
    };
    const struct timespec pause = {.tv_sec = plan->pause_ms / 1000,
                                   .tv_nsec = plan->pause_ms % 1000 * 1000000L};
    struct command command;
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};

    command_block_signals();
    found->prepared = command_prepare(&command, &spec, &err);
    snprintf(found->message, sizeof(found->message), "%.255s", err.message);
    if (found->prepared < 0) {
        return;
    }
    nanosleep(&pause, NULL);
    found->go_ns = clock_boottime_ns();
    command_go(&command);
    command_wait(&command, plan->grace_ms, &found->end);
    found->done_ns = clock_boottime_ns();
    command_kill_rest();
    found->left_over = kill(-1, 0) == 0;
    read_back(spec.stdout_fd, found->out, sizeof(found->out));
    read_back(spec.stderr_fd, found->err, sizeof(found->err));
}

/* Run the plan with a child as process 1 of its own PID namespace. Skips where that is forbidden.
 */
static struct found run(const struct plan *plan)
{
    struct found *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct found found;
    pid_t pid;
    int status;

    assert_true(shared != MAP_FAILED);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (unshare(CLONE_NEWPID) < 0 && unshare(CLONE_NEWUSER | CLONE_NEWPID) < 0) {
            _exit(77);
        }
        pid = fork();
        if (pid == 0) {
            act_as_init(plan, shared);
            _exit(0);
        }
        waitpid(pid, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 99);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    found = *shared;
    munmap(shared, sizeof(*shared));
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        print_message("skipped: no PID namespaces here\n");
        skip();
    }
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    return found;
}

static int exit_code(const struct found *found)
{
    return command_exit_code(found->end.wait_status);
}

static void test_exit_codes(void **state)
{
    struct found found =
        run(&(struct plan){.args = {"sh", "-c", "echo out; echo err >&2; exit 3"}});

    (void)state;
    assert_int_equal(found.prepared, 0);
    assert_int_equal(exit_code(&found), 3);
    assert_string_equal(found.out, "out\n");
    assert_string_equal(found.err, "err\n");
    assert_int_equal(found.left_over, 0);
    found = run(&(struct plan){.args = {"sh", "-c", "kill -9 $$"}});
    assert_int_equal(exit_code(&found), 137);
    assert_true(WIFSIGNALED(found.end.wait_status));
    found = run(&(struct plan){.args = {"true"}});
    assert_int_equal(exit_code(&found), 0);
}

static void test_what_cannot_be_run(void **state)
{
    struct found found = run(&(struct plan){.args = {"no-such-tool"}});

    (void)state;
    assert_int_equal(exit_code(&found), 127);
    assert_non_null(strstr(found.err, "'no-such-tool': not found in PATH="));
    found = run(&(struct plan){.args = {"a/data"}});
    assert_int_equal(exit_code(&found), 126);
    assert_non_null(strstr(found.err, "a/data"));
    found = run(&(struct plan){.args = {"b/noshebang"}});
    assert_int_equal(exit_code(&found), 126);
    assert_non_null(strstr(found.err, "Exec format error"));
    found = run(&(struct plan){.args = {"b/badinterpreter"}});
    assert_int_equal(exit_code(&found), 127);
    assert_non_null(strstr(found.err, "interpreter"));
    found = run(&(struct plan){.args = {"true"}, .workdir = "/nonexistent"});
    assert_int_equal(found.prepared, -ENOTDIR);
    assert_non_null(strstr(found.message, "workdir"));
    assert_non_null(strstr(found.message, "/nonexistent"));
}

/* The time of the preparation, and of what init does between it and go, is outside. */
static void test_window(void **state)
{
    struct found found = run(&(struct plan){.args = {"sleep", "0.2"}, .pause_ms = 300});
    uint64_t window_ns = found.end.boottime_ns - found.end.start_boottime_ns;

    (void)state;
    assert_true(found.end.start_boottime_ns >= found.go_ns);
    assert_true(window_ns >= 200 * NS_PER_MS);
    assert_true(found.end.boottime_ns <= found.done_ns);
    found = run(
        &(struct plan){.args = {"sh", "-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"}});
    assert_true(found.end.user_ns > NS_PER_MS);
    assert_true(found.end.peak_rss_bytes > 100 * KIB);
}

/* Orphans are reaped on the way, and what still runs at the end is killed. */
static void test_nothing_is_left(void **state)
{
    struct found found = run(&(struct plan){
        .args = {"sh", "-c",
                 "(sleep 0.05 &) ; (setsid sleep 100 &) ; (trap '' TERM; sleep 100) & "
                 "sleep 0.2; exit 5"}});

    (void)state;
    assert_int_equal(exit_code(&found), 5);
    assert_int_equal(found.left_over, 0);
}

static void test_termination_is_passed_on(void **state)
{
    struct found found = run(&(struct plan){
        .args = {"sh", "-c", "trap 'echo term; exit 7' TERM; kill -INT 1; sleep 600 & wait"},
        .grace_ms = 100000});
    uint64_t window_ns = 0;

    (void)state;
    assert_int_equal(exit_code(&found), 7);
    assert_string_equal(found.out, "term\n");
    /* Who ignores it is killed when the grace has passed, orphans ending meanwhile or not: long before
     * it would end by itself, on the slowest machine. */
    found = run(&(struct plan){.args = {"sh", "-c",
                                        "trap '' TERM; kill -TERM 1; i=0; "
                                        "while [ $i -lt 1000 ]; do (sleep 0.02 &); sleep 0.03; "
                                        "i=$((i+1)); done"},
                               .grace_ms = 300});
    window_ns = found.end.boottime_ns - found.end.start_boottime_ns;
    assert_int_equal(exit_code(&found), 137);
    assert_true(window_ns >= 300 * NS_PER_MS);
    assert_int_equal(found.left_over, 0);
}

static void test_one_who_is_stopped_hears_it(void **state)
{
    struct found found = run(&(struct plan){
        .args = {"sh", "-c",
                 "trap 'echo term; exit 7' TERM; (sleep 1; kill -TERM 1) & kill -STOP $$"},
        .grace_ms = 20000});

    (void)state;
    assert_int_equal(exit_code(&found), 7);
    assert_string_equal(found.out, "term\n");
    assert_true(found.end.boottime_ns - found.end.start_boottime_ns < 10 * NS_PER_SECOND);
}

/* However long the grace is, and also if it was asked in peace before. */
static void test_a_deaf_command_in_a_hurry(void **state)
{
    static const char *const signals[] = {"kill -QUIT 1", "kill -TERM 1; kill -QUIT 1"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        char script[160];
        struct found found;

        snprintf(script, sizeof(script), "trap '' TERM; echo before; %s; while :; do :; done",
                 signals[i]);
        found = run(&(struct plan){.args = {"sh", "-c", script}, .grace_ms = 20000});
        assert_int_equal(exit_code(&found), 137);
        assert_string_equal(found.out, "before\n");
        assert_true(found.end.boottime_ns - found.end.start_boottime_ns < 5 * NS_PER_SECOND);
    }
}

/* The command starts with nothing of init's: signals, descriptors, session. /proc here is the outer
 * namespace's, where only "self" can be found. */
static void test_clean_start(void **state)
{
    struct found found =
        run(&(struct plan){.args = {"grep", "-hE", "^Sig(Blk|Ign)", "/proc/self/status"}});
    int pid = 0;
    int session = 1;
    char *rest;

    (void)state;
    assert_string_equal(found.out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n");
    found = run(&(struct plan){.args = {"ls", "/proc/self/fd"}});
    assert_string_equal(found.out, "0\n1\n2\n3\n"); /* 3 is what ls reads */
    found = run(&(struct plan){.args = {"sh", "-c", "umask; ulimit -S -n"}});
    assert_string_equal(found.out, "0022\n1024\n");
    found = run(&(struct plan){.args = {"cat", "/proc/self/stat"}});
    pid = atoi(found.out);
    rest = strrchr(found.out, ')');
    assert_non_null(rest);
    assert_int_equal(sscanf(rest, ") R %*d %*d %d", &session), 1);
    assert_int_equal(session, pid);
}

static void test_user(void **state)
{
    struct found found;

    (void)state;
    if (getuid() != 0) {
        print_message("skipped: only root can become somebody else\n");
        skip();
    }
    assert_int_equal(chmod(dir, 0755), 0);
    found = run(
        &(struct plan){.args = {"sh", "-c", "id -u; id -g; id -G"},
                       .user = {.uid = 4321, .gid = 1234, .groups = {55, 66}, .group_count = 2}});
    assert_string_equal(found.out, "4321\n1234\n1234 55 66\n");
    /* Rights are the user's, not root's. */
    write_file("b/private", "#!/bin/sh\n", 0700);
    found = run(&(struct plan){.args = {"b/private"}, .user = {.uid = 4321}});
    assert_int_equal(exit_code(&found), 126);
    assert_int_equal(chmod(dir, 0700), 0);
    found = run(&(struct plan){.args = {"true"}, .user = {.uid = 4321}});
    assert_int_equal(found.prepared, -EACCES);
    assert_non_null(strstr(found.message, "working directory"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_what_cannot_be_run),
        cmocka_unit_test(test_window),
        cmocka_unit_test(test_nothing_is_left),
        cmocka_unit_test(test_termination_is_passed_on),
        cmocka_unit_test(test_one_who_is_stopped_hears_it),
        cmocka_unit_test(test_a_deaf_command_in_a_hurry),
        cmocka_unit_test(test_clean_start),
        cmocka_unit_test(test_user),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
