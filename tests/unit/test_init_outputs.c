/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_init_outputs.c: which files are collected, which are not and why, and how a limit is shared.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "outputs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static char dir[] = "/tmp/bvmm-test-outputs.XXXXXX";
static struct outputs outputs;

static const char *in_dir(const char *name)
{
    static char path[PATH_MAX];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    return path;
}

static void write_file(const char *name, const char *text)
{
    int fd = open(in_dir(name), O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    assert_non_null(mkdtemp(dir));
    write_file("a.json", "aaaa");
    write_file("b.json", "bb");
    write_file("[x].txt", "literal");
    write_file("x.txt", "pattern");
    assert_int_equal(mkdir(in_dir("folder.json"), 0755), 0);
    assert_int_equal(mkfifo(in_dir("pipe"), 0644), 0);
    assert_int_equal(symlink("a.json", in_dir("link")), 0);
    assert_int_equal(symlink("/nonexistent", in_dir("dangling")), 0);
    assert_int_equal(symlink("loop", in_dir("loop")), 0);
    return 0;
}

static int tear_down(void **state)
{
    char command[PATH_MAX];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : -1;
}

static void add(const char *name, bool is_pattern)
{
    outputs_add(&outputs, in_dir(name), is_pattern);
}

static void assert_file(size_t index, const char *name, uint64_t size_bytes)
{
    assert_true(index < outputs.file_count);
    assert_string_equal(outputs.files[index].path, in_dir(name));
    assert_true(outputs.files[index].size_bytes == size_bytes);
}

static void assert_missing(size_t index, const char *name, enum manifest_reason reason)
{
    assert_true(index < outputs.missing_count);
    assert_string_equal(outputs.missing[index].path, in_dir(name));
    assert_string_equal(manifest_reason_word(outputs.missing[index].reason),
                        manifest_reason_word(reason));
}

static void test_files_and_patterns(void **state)
{
    (void)state;
    outputs_init(&outputs, MIB);
    add("*.json", true);
    assert_int_equal(outputs.file_count, 2);
    assert_file(0, "a.json", 4);
    assert_file(1, "b.json", 2);
    assert_int_equal(outputs.missing_count, 1);
    assert_missing(0, "folder.json", MANIFEST_REASON_DIRECTORY);
    add("a.json", true); /* is there already */
    add("a.*", true);
    assert_int_equal(outputs.file_count, 2);
    add("link", true);
    assert_file(2, "link", 4);
    /* A name that looks like a pattern means the file of that name, if there is one. */
    add("[x].txt", true);
    assert_file(3, "[x].txt", 7);
    add("[xy].txt", true);
    assert_file(4, "x.txt", 7);
    /* And in BENCHER_OUTPUT_FILE nothing is a pattern. */
    add("*.txt", false);
    assert_missing(1, "*.txt", MANIFEST_REASON_NO_MATCH);
    assert_int_equal(outputs.file_count, 5);
    outputs_close(&outputs);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    outputs_init(&outputs, MIB);
    add("nothing", true);
    add("no*thing", true);
    add("a.json/x", true);
    add("folder.json", true);
    add("pipe", true); /* and does not hang */
    add("dangling", true);
    add("loop", true);
    add("nothing", true); /* is said once */
    assert_int_equal(outputs.file_count, 0);
    assert_int_equal(outputs.missing_count, 7);
    assert_missing(0, "nothing", MANIFEST_REASON_NO_MATCH);
    assert_missing(1, "no*thing", MANIFEST_REASON_NO_MATCH);
    assert_missing(2, "a.json/x", MANIFEST_REASON_NO_MATCH);
    assert_missing(3, "folder.json", MANIFEST_REASON_DIRECTORY);
    assert_missing(4, "pipe", MANIFEST_REASON_NOT_REGULAR);
    assert_missing(5, "dangling", MANIFEST_REASON_NO_MATCH);
    assert_missing(6, "loop", MANIFEST_REASON_UNREADABLE);
    outputs_close(&outputs);
}

/* Files of /proc say that they are empty; what is in them is taken all the same. */
static void test_files_that_do_not_tell_their_size(void **state)
{
    char text[64] = "";

    (void)state;
    outputs_init(&outputs, 7);
    outputs_add(&outputs, "/proc/sys/kernel/ostype", true);
    assert_int_equal(outputs.file_count, 1);
    assert_true(outputs.files[0].size_bytes == 6);
    assert_int_equal(pread(outputs.files[0].fd, text, sizeof(text), 0), 6);
    assert_string_equal(text, "Linux\n");
    /* No more than so much of it. */
    outputs_add(&outputs, "/proc/self/status", true);
    assert_true(outputs.files[1].size_bytes == 7);
    outputs_close(&outputs);
}

static void test_too_many(void **state)
{
    (void)state;
    for (int i = 0; i < OUTPUT_FILES_MAX + 3; i++) {
        char name[32];

        snprintf(name, sizeof(name), "many%03d", i);
        write_file(name, "");
    }
    outputs_init(&outputs, MIB);
    add("many*", true);
    assert_int_equal(outputs.file_count, OUTPUT_FILES_MAX);
    assert_int_equal(outputs.missing_count, 1);
    assert_missing(0, "many*", MANIFEST_REASON_TOO_MANY);
    add("many000", true);
    assert_int_equal(outputs.missing_count, 1);
    add("a.json", true);
    assert_missing(1, "a.json", MANIFEST_REASON_TOO_MANY);
    outputs_close(&outputs);
}

static void test_limit_is_shared_out(void **state)
{
    uint64_t frames;

    (void)state;
    outputs_init(&outputs, MIB);
    add("a.json", true);
    add("b.json", true);
    frames = 4 + 12 + strlen(outputs.files[0].path) + 12 + strlen(outputs.files[1].path);
    outputs_fit(&outputs, UINT64_MAX);
    assert_true(outputs_stream_bytes(&outputs, false) == frames + 6);
    assert_true(outputs_stream_bytes(&outputs, true) == frames + 6);
    outputs_fit(&outputs, frames + 5);
    assert_true(outputs.files[0].sent_bytes == 4);
    assert_true(outputs.files[1].sent_bytes == 1);
    assert_true(outputs_stream_bytes(&outputs, false) == frames + 5);
    assert_true(outputs_stream_bytes(&outputs, true) == frames + 6);
    outputs_fit(&outputs, frames);
    assert_true(outputs.files[0].sent_bytes == 0);
    assert_int_equal(outputs.file_count, 2);
    /* No room for the second one's name. */
    outputs_fit(&outputs, frames - 1);
    assert_int_equal(outputs.file_count, 1);
    assert_int_equal(outputs.missing_count, 1);
    assert_missing(0, "b.json", MANIFEST_REASON_NO_ROOM);
    assert_true(outputs.files[0].sent_bytes == 4);
    outputs_fit(&outputs, 0);
    assert_int_equal(outputs.file_count, 0);
    assert_true(outputs_stream_bytes(&outputs, false) == 4);
    outputs_close(&outputs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_and_patterns),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_files_that_do_not_tell_their_size),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_limit_is_shared_out),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
