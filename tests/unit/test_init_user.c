/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_init_user.c: names and numbers of users, against an image's passwd and group files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "user.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char passwd[] = "/tmp/bvmm-test-passwd.XXXXXX";
static char group[] = "/tmp/bvmm-test-group.XXXXXX";

static void write_temporary(char *path, const char *text)
{
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
}

static int set_up(void **state)
{
    (void)state;
    write_temporary(passwd, "root:x:0:0:root:/root:/bin/sh\n"
                            "joe:x:1000:1001:Joe:/home/joe:/bin/sh\n"
                            "nohome:x:7:7::\n"
                            "42:x:43:44::/named-42:\n");
    write_temporary(group, "root:x:0:\nstaff:x:50:joe,root\nperf:x:60:other,joe\nother:x:70:jo\n"
                           "42:x:4242:\n");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(passwd);
    unlink(group);
    return 0;
}

static struct user resolve(const char *text)
{
    struct user user;
    struct bvmm_error err;

    memset(&user, 0xee, sizeof(user));
    assert_int_equal(user_resolve(text, passwd, group, &user, &err), 0);
    return user;
}

static void test_names(void **state)
{
    struct user user = resolve("joe");

    (void)state;
    assert_int_equal(user.uid, 1000);
    assert_int_equal(user.gid, 1001);
    assert_string_equal(user.home, "/home/joe");
    assert_int_equal(user.group_count, 2);
    assert_int_equal(user.groups[0], 50);
    assert_int_equal(user.groups[1], 60);
    user = resolve("");
    assert_int_equal(user.uid, 0);
    assert_int_equal(user.gid, 0);
    assert_string_equal(user.home, "/root");
    assert_int_equal(user.group_count, 1);
}

static void test_numbers(void **state)
{
    struct user user = resolve("1000");

    (void)state;
    assert_int_equal(user.gid, 1001);
    assert_string_equal(user.home, "/home/joe");
    assert_int_equal(user.group_count, 2);
    user = resolve("12345");
    assert_int_equal(user.uid, 12345);
    assert_int_equal(user.gid, 0);
    assert_string_equal(user.home, "/");
    assert_int_equal(user.group_count, 0);
    user = resolve("4294967294");
    assert_true(user.uid == 4294967294U);
    /* A name that looks like a number is a name. */
    user = resolve("42");
    assert_int_equal(user.uid, 43);
    assert_string_equal(user.home, "/named-42");
}

static void test_groups(void **state)
{
    struct user user = resolve("joe:perf");

    (void)state;
    assert_int_equal(user.uid, 1000);
    assert_int_equal(user.gid, 60);
    assert_int_equal(user.group_count, 0);
    user = resolve("5:6");
    assert_int_equal(user.uid, 5);
    assert_int_equal(user.gid, 6);
    assert_int_equal(resolve("joe:42").gid, 4242);
    user = resolve(":staff");
    assert_int_equal(user.uid, 0);
    assert_int_equal(user.gid, 50);
}

static void test_unknown(void **state)
{
    static const char *const bad[] = {"nobody", "joe:none",       "-1",
                                      "1x",     "4294967295",     "99999999999999999999",
                                      "joe:",   "joe:4294967295", "jo e"};
    struct user user;
    struct bvmm_error err;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (user_resolve(bad[i], passwd, group, &user, &err) != -ENOENT) {
            fail_msg("accepted '%s'", bad[i]);
        }
        assert_true(strlen(err.message) > 10);
    }
    assert_int_equal(user_resolve("nobody", passwd, group, &user, &err), -ENOENT);
    assert_non_null(strstr(err.message, "nobody"));
    assert_non_null(strstr(err.message, passwd));
}

static void test_image_without_files(void **state)
{
    struct user user;
    struct bvmm_error err;

    (void)state;
    assert_int_equal(user_resolve("", "/nonexistent/p", "/nonexistent/g", &user, &err), 0);
    assert_int_equal(user.uid, 0);
    assert_string_equal(user.home, "/root");
    assert_int_equal(user_resolve("7:8", "/nonexistent/p", "/nonexistent/g", &user, &err), 0);
    assert_int_equal(user.gid, 8);
    assert_int_equal(user_resolve("joe", "/nonexistent/p", "/nonexistent/g", &user, &err), -ENOENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_groups),
        cmocka_unit_test(test_unknown),
        cmocka_unit_test(test_image_without_files),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
