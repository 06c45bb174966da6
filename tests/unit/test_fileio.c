/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_fileio.c: new files, whole or not at all, with writers beside each other and writers that are killed;
 * each with a file system that has files without names, and as if it had none.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "seeded_random.h"
#include "vmm/fileio.h"

#define NAME "report.json"
#define WRITERS 3
#define BYTES 5000

static char base[] = "/tmp/bvmm-test-fileio.XXXXXX";
static int dir_fd = -1;
static bool without_tmpfile;

int __real_openat(int dir_fd, const char *name, int flags, ...); /* NOLINT: the linker's names */
int __wrap_openat(int dir_fd, const char *name, int flags, ...); /* NOLINT */

int __wrap_openat(int at_fd, const char *name, int flags, ...) /* NOLINT */
{
    va_list args;
    mode_t mode = 0;

    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);
    if (without_tmpfile && (flags & O_TMPFILE) == O_TMPFILE) {
        errno = EOPNOTSUPP;
        return -1;
    }
    return __real_openat(at_fd, name, flags, mode);
}

static int make_base(void **state)
{
    (void)state;
    (void)snprintf(base + strlen(base) - 6, 7, "XXXXXX");
    assert_non_null(mkdtemp(base));
    dir_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return dir_fd < 0 ? -1 : 0;
}

/* Names in the directory. @remove: and they go. */
static unsigned count_files(bool remove)
{
    DIR *dir = opendir(base);
    const struct dirent *entry;
    unsigned count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            count++;
            assert_int_equal(remove ? unlinkat(dir_fd, entry->d_name, 0) : 0, 0);
        }
    }
    (void)closedir(dir);
    return count;
}

static int remove_base(void **state)
{
    (void)state;
    without_tmpfile = false;
    (void)count_files(true);
    (void)close(dir_fd);
    return rmdir(base);
}

static void put(const char *name)
{
    const int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(close(fd), 0);
}

static bool is_there(const char *name)
{
    return faccessat(dir_fd, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

/* All of one writer's bytes: what a reader may see. */
static void expect_whole(void)
{
    const int fd = openat(dir_fd, NAME, O_RDONLY | O_CLOEXEC);
    char bytes[BYTES + 1];

    assert_true(fd >= 0);
    assert_int_equal(read(fd, bytes, sizeof(bytes)), BYTES);
    for (unsigned i = 1; i < BYTES; i++) {
        assert_int_equal(bytes[i], bytes[0]);
    }
    assert_int_equal(close(fd), 0);
}

static void a_new_name_and_a_taken_one(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        without_tmpfile = i >= 2;
        assert_int_equal(fileio_replace_at(dir_fd, NAME, i % 2 == 0 ? "old" : "new", 3), 0);
        assert_int_equal(count_files(false), 1);
    }
    assert_int_equal(unlinkat(dir_fd, NAME, 0), 0);
    assert_int_equal(mkfifoat(dir_fd, NAME, 0600), 0);
    for (unsigned i = 0; i < 2; i++) {
        without_tmpfile = i == 1;
        assert_int_equal(fileio_replace_at(dir_fd, NAME, "new", 3), -EEXIST);
        assert_int_equal(count_files(false), 1);
    }
}

/* Only what a dead bvmm has left of this very report goes. */
static void what_is_removed_and_what_is_not(void **state)
{
    static const char *const kept[] = {
        NAME,
        ".report.json.0123456789abcde.tmp",   /* a digit less */
        ".report.json.00123456789abcdef.tmp", /* one more */
        ".report.json.0123456789ABCDEF.tmp",  /* not ours */
        ".report.json.0123456789abcdeg.tmp",
        ".other.json.0123456789abcdef.tmp",
        "report.json.0123456789abcdef.tmp",
        ".report.json.tmp",
    };
    struct fileio_new living;

    (void)state;
    without_tmpfile = true;
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        put(kept[i]);
    }
    put(".report.json.0123456789abcdef.tmp");
    put(".report.json.f000000000000000.tmp");
    assert_int_equal(symlinkat("nowhere", dir_fd, ".report.json.1111111111111111.tmp"), 0);
    assert_int_equal(mkfifoat(dir_fd, ".report.json.2222222222222222.tmp", 0600), 0);
    assert_int_equal(fileio_begin(&living, dir_fd, NAME), 0);
    fileio_prepare(dir_fd, NAME);
    for (size_t i = 0; i < ARRAY_SIZE(kept); i++) {
        assert_true(is_there(kept[i]));
    }
    assert_true(is_there(living.temp_name));
    assert_true(is_there(".report.json.1111111111111111.tmp"));
    assert_true(is_there(".report.json.2222222222222222.tmp"));
    assert_false(is_there(".report.json.0123456789abcdef.tmp"));
    assert_false(is_there(".report.json.f000000000000000.tmp"));
    assert_int_equal(fileio_commit(&living, NAME), 0);
    fileio_prepare(-1, NAME);
}

/* A name that the file system can hold, and of which the temporary name has the beginning. */
static void a_long_name(void **state)
{
    char name[256] = "";

    (void)state;
    without_tmpfile = true;
    memset(name, 'n', 255);
    assert_int_equal(fileio_replace_at(dir_fd, name, "x", 1), 0);
    fileio_prepare(dir_fd, name);
    assert_int_equal(count_files(false), 1);
}

/* Writes the same report again and again, and removes what others left. Not one write may fail. */
static _Noreturn void write_for_ever(unsigned writer, bool no_tmpfile)
{
    char bytes[BYTES];

    without_tmpfile = no_tmpfile;
    memset(bytes, (int)('a' + writer), sizeof(bytes));
    for (;;) {
        fileio_prepare(dir_fd, NAME);
        if (fileio_replace_at(dir_fd, NAME, bytes, sizeof(bytes)) != 0) {
            _exit(1);
        }
    }
}

static pid_t start_writer(unsigned writer)
{
    const pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        write_for_ever(writer, writer % 2 == 1);
    }
    return pid;
}

static void writers_beside_each_other_are_killed(void **state)
{
    struct seeded_random random = random_from_seed("fileio");
    pid_t pids[WRITERS];
    unsigned left_behind = 0;

    (void)state;
    for (unsigned i = 0; i < WRITERS; i++) {
        pids[i] = start_writer(i);
    }
    for (unsigned i = 0; i < 100; i++) {
        const unsigned victim = i % WRITERS;
        int status = 0;

        (void)usleep((useconds_t)random_below(&random, 20000));
        assert_int_equal(kill(pids[victim], SIGKILL), 0);
        assert_int_equal(waitpid(pids[victim], &status, 0), pids[victim]);
        assert_true(WIFSIGNALED(status)); /* else a write had failed */
        pids[victim] = start_writer(victim);
    }
    for (unsigned i = 0; i < WRITERS; i++) {
        assert_int_equal(kill(pids[i], SIGKILL), 0);
        assert_int_equal(waitpid(pids[i], NULL, 0), pids[i]);
    }
    left_behind = count_files(false) - 1;
    print_message("%u temporary files after the last kills\n", left_behind);
    expect_whole();
    fileio_prepare(dir_fd, NAME);
    assert_int_equal(count_files(false), 1);
}

int main(void)
{
#define CASE(name) cmocka_unit_test_setup_teardown(name, make_base, remove_base)
    const struct CMUnitTest tests[] = {
        CASE(a_new_name_and_a_taken_one),
        CASE(what_is_removed_and_what_is_not),
        CASE(a_long_name),
        CASE(writers_beside_each_other_are_killed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
