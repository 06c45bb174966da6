/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_json_text.c: json_text_write() against jansson's own writer, byte for byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "seeded_random.h"
#include "vmm/json_text.h"

#define DEPTH_MAX 5
#define ROUNDS 300
#define LARGE_BYTES ((size_t)3 << 20)

static struct seeded_random random_state;

/* Characters of each length, and all that are written in a special way. */
static json_t *random_string(void)
{
    static const char *const pieces[] = {"a",
                                         "Z",
                                         " ",
                                         "\"",
                                         "\\",
                                         "/",
                                         "\b",
                                         "\f",
                                         "\n",
                                         "\r",
                                         "\t",
                                         "\x01",
                                         "\x1f",
                                         "\x7f",
                                         "\xc3\xa9",
                                         "\xe4\xb8\x96",
                                         "\xf0\x9f\x98\x80",
                                         "\xe2\x80\xa8"};
    char text[400];
    size_t used = 0;

    for (size_t left = random_below(&random_state, 60); left > 0; left--) {
        const char *piece = pieces[random_below(&random_state, ARRAY_SIZE(pieces))];

        memcpy(text + used, piece, strlen(piece));
        used += strlen(piece);
    }
    return json_stringn(text, used);
}

static json_t *random_scalar(void)
{
    switch (random_below(&random_state, 6)) {
    case 0:
        return json_integer((json_int_t)random_u64(&random_state));
    case 1:
        return json_real((double)random_below(&random_state, 1000000) / 977);
    case 2:
        return json_boolean(random_below(&random_state, 2));
    case 3:
        return json_null();
    default:
        return random_string();
    }
}

/* NOLINTNEXTLINE(misc-no-recursion) */
static json_t *random_value(unsigned depth)
{
    const size_t count = random_below(&random_state, 5);
    const size_t kind = depth >= DEPTH_MAX ? 2 : random_below(&random_state, 3);
    json_t *value = kind == 0 ? json_object() : json_array();

    if (kind == 2 && depth > 0) {
        json_decref(value);
        return random_scalar();
    }
    for (size_t i = 0; i < count; i++) {
        if (kind == 0) {
            json_t *key = random_string();

            assert_int_equal(
                json_object_set_new(value, json_string_value(key), random_value(depth + 1)), 0);
            json_decref(key);
        } else {
            assert_int_equal(json_array_append_new(value, random_value(depth + 1)), 0);
        }
    }
    return value;
}

static void assert_same_as_jansson(json_t *json)
{
    const int fd = memfd_create("json", 0);
    char *want = json_dumps(json, JSON_INDENT(2));
    const size_t bytes = strlen(want);
    char *got = calloc(1, bytes + 3);

    assert_true(fd >= 0);
    assert_non_null(got);
    assert_int_equal(json_text_write(json, fd), 0);
    assert_int_equal(pread(fd, got, bytes + 2, 0), (ssize_t)bytes + 1);
    assert_memory_equal(got, want, bytes);
    assert_int_equal(got[bytes], '\n');
    free(got);
    free(want);
    close(fd);
}

static void test_random_values(void **state)
{
    (void)state;
    for (unsigned i = 0; i < ROUNDS; i++) {
        json_t *json = random_value(0);

        assert_same_as_jansson(json);
        json_decref(json);
    }
}

/* Longer than the buffer, with and without something to escape. */
static void test_large_strings(void **state)
{
    char *text = malloc(LARGE_BYTES);
    json_t *array = json_array();

    (void)state;
    assert_non_null(text);
    memset(text, 'x', LARGE_BYTES);
    assert_int_equal(json_array_append_new(array, json_stringn(text, LARGE_BYTES)), 0);
    for (size_t i = 0; i < LARGE_BYTES; i += 1 + random_below(&random_state, 100)) {
        text[i] = '\n';
    }
    assert_int_equal(json_array_append_new(array, json_stringn(text, LARGE_BYTES)), 0);
    assert_same_as_jansson(array);
    json_decref(array);
    free(text);
}

static void test_a_full_disk_is_told(void **state)
{
    const int fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    json_t *array = json_array();

    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(json_text_write(array, fd), -ENOSPC);
    json_decref(array);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_values),
        cmocka_unit_test(test_large_strings),
        cmocka_unit_test(test_a_full_disk_is_told),
    };

    random_state = random_from_seed("test_json_text");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
