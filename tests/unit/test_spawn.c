/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_spawn.c: a launcher that is killed takes its child with it, at whatever moment. The test's
 * process adopts orphans, so it sees who is left.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/record.h"
#include "vmm/jail.h"
#include "vmm/spawn.h"

#define KILLS 50

/* How far the child has come; in memory that all share. */
enum stage { STAGE_NONE, STAGE_STARTED, STAGE_JAILED, STAGE_REFUSED };

struct shared {
    enum stage stage; /* atomic */
    struct bvmm_error error;
};

struct child {
    struct shared *shared;
    struct record *record;
    enum job_sandbox mode;
};

static void set_stage(struct shared *shared, enum stage stage)
{
    __atomic_store_n(&shared->stage, stage, __ATOMIC_RELEASE);
}

static enum stage stage_of(const struct shared *shared)
{
    return __atomic_load_n(&shared->stage, __ATOMIC_ACQUIRE);
}

/* What vm_process_main() does, without a machine. */
static void child_main(void *context, int alive_fd)
{
    struct child *child = context;

    spawn_follow(alive_fd);
    set_stage(child->shared, STAGE_STARTED);
    if (jail_enter(child->mode, child->record, &child->shared->error) < 0) {
        set_stage(child->shared, STAGE_REFUSED);
        _exit(1);
    }
    spawn_follow(alive_fd);
    close(alive_fd);
    set_stage(child->shared, STAGE_JAILED);
    for (;;) {
        pause();
    }
}

static _Noreturn void launcher_main(struct child *child)
{
    pid_t pid = 0;
    int alive_fd = -1;

    if (spawn_process(child->mode, child->record, -1, child_main, child, &pid, &alive_fd,
                      &child->shared->error) < 0) {
        set_stage(child->shared, STAGE_REFUSED);
        _exit(1);
    }
    for (;;) {
        pause();
    }
}

/* Who is left stays for ever (it pauses): a loaded machine has all the time that it needs. */
#define PATIENCE_NS (60 * NS_PER_SECOND)

/* Everybody goes; the number of those who had to be waited for. */
static unsigned wait_for_all(void)
{
    const uint64_t limit_ns = clock_monotonic_ns() + PATIENCE_NS;
    unsigned gone = 0;

    for (;;) {
        const pid_t pid = waitpid(-1, NULL, WNOHANG | __WALL);

        if (pid < 0) {
            assert_int_equal(errno, ECHILD);
            return gone;
        }
        gone += pid > 0;
        if (pid == 0 && clock_monotonic_ns() > limit_ns) {
            fail_msg("a process is left a minute after its launcher was killed");
        }
        if (pid == 0) {
            poll(NULL, 0, 1);
        }
    }
}

/*
 * Kill a launcher after delay_us, or as soon as its child is in the jail if that is 0.
 * Return: how far the child had come.
 */
static enum stage kill_one(enum job_sandbox mode, unsigned delay_us)
{
    const struct record_limits limits = {.console_bytes = 4096};
    struct shared *shared =
        mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct child child = {.shared = shared, .mode = mode};
    const uint64_t limit_ns = clock_monotonic_ns() + PATIENCE_NS;
    struct bvmm_error error;
    enum stage stage = STAGE_NONE;
    pid_t launcher = 0;

    assert_ptr_not_equal(shared, MAP_FAILED);
    assert_int_equal(record_create(&limits, &child.record, &error), 0);
    launcher = fork();
    assert_true(launcher >= 0);
    if (launcher == 0) {
        launcher_main(&child);
    }
    if (delay_us > 0) {
        usleep(delay_us);
    } else {
        while (stage_of(shared) < STAGE_JAILED && clock_monotonic_ns() < limit_ns) {
            poll(NULL, 0, 1);
        }
    }
    stage = stage_of(shared);
    assert_int_equal(kill(launcher, SIGKILL), 0);
    (void)wait_for_all();
    if (stage == STAGE_REFUSED) {
        print_message("this host refuses the jail: %s\n", shared->error.message);
    }
    record_destroy(child.record);
    munmap(shared, sizeof(*shared));
    return stage;
}

static void child_in_the_jail(void **state)
{
    enum stage stage = STAGE_NONE;

    (void)state;
    stage = kill_one(JOB_SANDBOX_STRICT, 0);
    if (stage == STAGE_REFUSED) {
        stage = kill_one(JOB_SANDBOX_BEST_EFFORT, 0);
    }
    assert_int_equal(stage, STAGE_JAILED);
}

static void child_without_a_jail(void **state)
{
    (void)state;
    assert_int_equal(kill_one(JOB_SANDBOX_OFF, 0), STAGE_JAILED);
}

static void random_moments(void **state)
{
    unsigned seed = 4711;
    unsigned counts[STAGE_REFUSED + 1] = {0};

    (void)state;
    for (unsigned i = 0; i < KILLS; i++) {
        seed = seed * 1103515245 + 12345;
        counts[kill_one(JOB_SANDBOX_BEST_EFFORT, 1 + (seed >> 8) % 12000)]++;
    }
    print_message("child not started %u, starting %u, in its jail %u times\n", counts[STAGE_NONE],
                  counts[STAGE_STARTED], counts[STAGE_JAILED]);
    assert_int_equal(counts[STAGE_REFUSED], 0);
}

/* ---- A word of the child's ------------------------------------------------------------------- */

#define WORD_BYTES 512

static void talkative_main(void *context, int alive_fd)
{
    char *word = context; /* shared */

    spawn_tell(alive_fd, word, WORD_BYTES);
    word[0] = 'x';
    spawn_tell(alive_fd, word, WORD_BYTES);
    close(alive_fd);
    word[1] = 'x';
    _exit(0);
}

static void silent_main(void *context, int alive_fd)
{
    (void)context;
    spawn_tell(alive_fd, "short", 5);
    _exit(0);
}

/* What is heard of a child that has ended. False: nothing. */
static bool hear(struct record *record, spawn_main_fn child_main_fn, char *shared, char *ret_word)
{
    struct bvmm_error error;
    int alive_fd = -1;
    pid_t pid = 0;
    bool heard = false;

    assert_int_equal(
        spawn_process(JOB_SANDBOX_OFF, record, -1, child_main_fn, shared, &pid, &alive_fd, &error),
        0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    heard = spawn_hear(alive_fd, ret_word, WORD_BYTES);
    close(alive_fd);
    return heard;
}

/* However late: what it was when it was told; and of a child that tells too little, nothing. */
static void the_first_word_is_heard(void **state)
{
    const struct record_limits limits = {.console_bytes = 4096};
    char *shared =
        mmap(NULL, WORD_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct record *record = NULL;
    struct bvmm_error error;
    char word[WORD_BYTES];

    (void)state;
    assert_ptr_not_equal(shared, MAP_FAILED);
    assert_int_equal(record_create(&limits, &record, &error), 0);
    memset(shared, 'a', WORD_BYTES);
    assert_true(hear(record, talkative_main, shared, word));
    assert_int_equal(shared[1], 'x');
    for (unsigned i = 0; i < WORD_BYTES; i++) {
        assert_int_equal(word[i], 'a');
    }
    assert_false(hear(record, silent_main, shared, word));
    record_destroy(record);
    munmap(shared, WORD_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(child_in_the_jail),
        cmocka_unit_test(child_without_a_jail),
        cmocka_unit_test(random_moments),
        cmocka_unit_test(the_first_word_is_heard),
    };

#ifdef __SANITIZE_THREAD__
    /* It starts a thread of its own in the child, late, and is killed at random moments there. */
    printf("skipped: the thread sanitizer does not follow clone()\n");
    return 77;
#endif
    if (prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        perror("PR_SET_CHILD_SUBREAPER");
        return 1;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
