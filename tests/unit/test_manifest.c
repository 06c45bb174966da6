/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_manifest.c: manifests and the framing of output files, written, read, cut and garbled.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/manifest.h"
#include "seeded_random.h"

#include <errno.h>

#define DIGEST "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1eff"

static void parse(struct manifest *manifest, const char *text)
{
    assert_int_equal(manifest_parse(manifest, text, strlen(text)), 0);
}

static void test_what_init_writes(void **state)
{
    struct manifest m;

    (void)state;
    parse(&m, "\nstdout 12 -\nstderr 0 -\nexit_code 1 -\noutput 99 -\n"
              "file 7 - /data/a%20b%25\nmissing 0 - /x* no_match\n");
    assert_int_equal(m.bad_lines, 0);
    assert_int_equal(m.count, 6);
    assert_int_equal(m.entries[0].name, MANIFEST_STDOUT);
    assert_int_equal(m.entries[0].size_bytes, 12);
    assert_false(m.entries[0].has_sha256);
    assert_null(m.entries[0].path);
    assert_int_equal(manifest_stream(m.entries[3].name), STREAM_OUTPUT);
    assert_int_equal(m.entries[4].name, MANIFEST_FILE);
    assert_string_equal(m.entries[4].path, "/data/a b%");
    assert_int_equal(m.entries[5].reason, MANIFEST_REASON_NO_MATCH);
    assert_string_equal(m.entries[5].path, "/x*");
    manifest_free(&m);
}

static void test_later_lines_replace(void **state)
{
    struct manifest m;

    (void)state;
    parse(&m, "\nstdout 1 -\nfile 1 - /a\nfile 2 - /b\n\nstdout 1 " DIGEST "\nfile 3 - /b\n");
    assert_int_equal(m.count, 3);
    assert_true(m.entries[0].has_sha256);
    assert_int_equal(m.entries[0].sha256[1], 1);
    assert_int_equal(m.entries[0].sha256[31], 0xff);
    assert_int_equal(m.entries[1].size_bytes, 1);
    assert_int_equal(m.entries[2].size_bytes, 3);
    assert_string_equal(m.entries[2].path, "/b");
    manifest_free(&m);
}

static void test_bad_lines(void **state)
{
    static const char *const bad[] = {
        "stdout",
        "stdout ",
        "stdout 1",
        "stdout 1 ",
        "stdout - -",
        "stdout -1 -",
        "stdout 1x -",
        "stdout 18446744073709551616 -",
        "stdout 99999999999999999999999 -",
        " stdout 1 -",
        "stdout  1 -",
        "stdout 1 - ",
        "stdout 1 - /path",
        "stdout 1 00",
        "stdoutx 1 -",
        "STDOUT 1 -",
        "stdout 1 " DIGEST "0",
        "file 1 -",
        "file 1 - ",
        "file 1 - /a b",
        "file 1 - /a%",
        "file 1 - /a%1",
        "file 1 - /a%g0",
        "file 1 - /a%00b",
        "missing 0 - /a",
        "missing 0 - /a because",
        "missing 0 - /a no_match x",
        "missing 0 - ",
    };
    struct manifest m;
    char text[256];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        snprintf(text, sizeof(text), "stderr 5 -\n%s\nexit_code 3 -\n", bad[i]);
        parse(&m, text);
        if (m.bad_lines != 1 || m.count != 2) {
            fail_msg("taken for a line: '%s'", bad[i]);
        }
        manifest_free(&m);
    }
    /* Half of a number looks like a number: without its newline a line does not count. */
    parse(&m, "stdout 12 -\nstderr 34 -");
    assert_int_equal(m.count, 1);
    assert_int_equal(m.bad_lines, 1);
    manifest_free(&m);
    parse(&m, "stdout 18446744073709551615 -\n");
    assert_true(m.entries[0].size_bytes == UINT64_MAX);
    manifest_free(&m);
}

/* Any path, any reason: what is written is read again. */
static void test_round_trip(void **state)
{
    struct seeded_random r = random_from_seed("manifest");
    static char line[3 * MANIFEST_PATH_MAX_BYTES + 256];
    static char path[MANIFEST_PATH_MAX_BYTES + 1];

    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct manifest_entry entry = {
            .name = (enum manifest_name)random_below(&r, MANIFEST_NAME_COUNT)};
        struct manifest_entry got;
        struct manifest_reader reader;
        size_t length;

        entry.size_bytes = random_u64(&r) >> random_below(&r, 64);
        entry.has_sha256 = random_below(&r, 2);
        random_fill(&r, entry.sha256, entry.has_sha256 ? SHA256_BYTES : 0);
        if (entry.name == MANIFEST_FILE || entry.name == MANIFEST_MISSING) {
            entry.path_bytes = 1 + random_below(&r, round % 10 ? 50 : MANIFEST_PATH_MAX_BYTES);
            for (size_t i = 0; i < entry.path_bytes; i++) {
                path[i] = (char)(1 + random_below(&r, 255));
            }
            path[entry.path_bytes] = '\0';
            entry.path = path;
        }
        if (entry.name == MANIFEST_MISSING) {
            entry.reason = (enum manifest_reason)(1 + random_below(&r, MANIFEST_REASON_COUNT - 1));
        }
        length = manifest_print(line, sizeof(line), &entry);
        assert_true(length > 0);
        assert_int_equal(manifest_print(line, length - 1, &entry), 0);
        assert_int_equal(manifest_print(line, length, &entry), length);
        manifest_reader_init(&reader, line, length);
        assert_true(manifest_next(&reader, &got));
        assert_int_equal(got.name, entry.name);
        assert_int_equal(got.reason, entry.reason);
        assert_true(got.size_bytes == entry.size_bytes);
        assert_int_equal(got.has_sha256, entry.has_sha256);
        assert_memory_equal(got.sha256, entry.sha256, SHA256_BYTES);
        assert_int_equal(got.path_bytes, entry.path_bytes);
        if (entry.path) {
            assert_string_equal(got.path, path);
        }
        assert_false(manifest_next(&reader, &got));
        assert_int_equal(reader.bad_lines, 0);
    }
}

static void test_path_too_long(void **state)
{
    static char text[2 * MANIFEST_PATH_MAX_BYTES];
    struct manifest_reader reader;
    struct manifest_entry entry;

    (void)state;
    for (size_t excess = 0; excess < 2; excess++) {
        size_t length = (size_t)snprintf(text, sizeof(text), "file 1 - ");

        memset(text + length, 'a', MANIFEST_PATH_MAX_BYTES + excess);
        length += MANIFEST_PATH_MAX_BYTES + excess;
        text[length++] = '\n';
        manifest_reader_init(&reader, text, length);
        assert_int_equal(manifest_next(&reader, &entry), excess == 0);
    }
}

static void test_too_many_entries(void **state)
{
    static char text[64 * 1024];
    size_t length = 0;
    struct manifest m;

    (void)state;
    for (int i = 0; i < MANIFEST_ENTRIES_MAX + 10; i++) {
        length += (size_t)snprintf(text + length, sizeof(text) - length, "file %d - /%d\n", i, i);
    }
    parse(&m, text);
    assert_int_equal(m.count, MANIFEST_ENTRIES_MAX);
    assert_int_equal(m.bad_lines, 10);
    manifest_free(&m);
}

/* Garbled text: whatever comes out is in bounds (the sanitizer watches), and nothing hangs. */
static void test_garbled(void **state)
{
    static const char good[] = "\nstdout 12 " DIGEST "\nfile 7 - /data/a%20b%25\n"
                               "missing 0 - /x* no_match\noutput 18446744073709551615 -\n";
    struct seeded_random r = random_from_seed("manifest_garbled");
    char *text;
    unsigned bad = 0;

    (void)state;
    for (int round = 0; round < 3000; round++) {
        size_t length = 1 + random_below(&r, sizeof(good) - 1);
        struct manifest m;

        text = malloc(length); /* not a byte more, for the sanitizer */
        assert_non_null(text);
        memcpy(text, good, length);
        for (size_t i = random_below(&r, 4); i > 0; i--) {
            text[random_below(&r, length)] = "\n %-0f\0\xff"[random_below(&r, 8)];
        }
        assert_int_equal(manifest_parse(&m, text, length), 0);
        for (size_t i = 0; i < m.count; i++) {
            assert_true(m.entries[i].name < MANIFEST_NAME_COUNT);
            assert_true(m.entries[i].path_bytes <= MANIFEST_PATH_MAX_BYTES);
            if (m.entries[i].path) {
                assert_int_equal(strlen(m.entries[i].path), m.entries[i].path_bytes);
            }
        }
        bad += m.bad_lines;
        manifest_free(&m);
        free(text);
    }
    assert_true(bad > 1000);
}

/* ---- Output files ---------------------------------------------------------------------------- */

static size_t put_file(uint8_t *to, const char *path, const char *content)
{
    uint32_t path_bytes = (uint32_t)strlen(path);
    uint64_t content_bytes = strlen(content);

    memcpy(to, &path_bytes, 4);
    memcpy(to + 4, path, path_bytes);
    memcpy(to + 4 + path_bytes, &content_bytes, 8);
    memcpy(to + 12 + path_bytes, content, content_bytes);
    return 12 + path_bytes + content_bytes;
}

static size_t put_files(uint8_t *to)
{
    uint32_t count = 2;
    size_t bytes = 4;

    memcpy(to, &count, 4);
    bytes += put_file(to + bytes, "/a", "hello");
    bytes += put_file(to + bytes, "/bc", "");
    return bytes;
}

static void test_output_files(void **state)
{
    uint8_t bytes[256];
    size_t count = put_files(bytes);
    struct output_reader reader;
    struct output_file file;

    (void)state;
    assert_int_equal(output_reader_init(&reader, bytes, count), 0);
    assert_true(output_next(&reader, &file));
    assert_int_equal(file.path_bytes, 2);
    assert_memory_equal(file.path, "/a", 2);
    assert_int_equal(file.content_bytes, 5);
    assert_memory_equal(file.content, "hello", 5);
    assert_true(output_next(&reader, &file));
    assert_memory_equal(file.path, "/bc", 3);
    assert_int_equal(file.content_bytes, 0);
    assert_false(output_next(&reader, &file));
    assert_false(reader.cut);
    assert_int_equal(reader.left_bytes, 0);
}

/* Cut anywhere: the files before the cut come whole, and the cut is noticed. */
static void test_output_files_cut(void **state)
{
    uint8_t whole[256];
    size_t count = put_files(whole);

    (void)state;
    for (size_t cut = 0; cut < count; cut++) {
        uint8_t *bytes = malloc(cut + 1);
        struct output_reader reader;
        struct output_file file;
        size_t files = 0;

        assert_non_null(bytes);
        memcpy(bytes, whole, cut);
        if (output_reader_init(&reader, bytes, cut) < 0) {
            assert_true(cut < 4);
            free(bytes);
            continue;
        }
        while (output_next(&reader, &file)) {
            if (files++ == 0) {
                assert_int_equal(file.content_bytes, min_u64(5, cut - 18));
                assert_memory_equal(file.content, "hello", file.content_bytes);
            }
        }
        assert_true(reader.cut);
        assert_int_equal(files, cut >= 18);
        free(bytes);
    }
}

static void test_output_files_hostile(void **state)
{
    static const uint8_t many[] = {0, 1, 0, 0};
    static const uint8_t no_path[] = {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t huge_path[] = {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 'a'};
    static const uint8_t nul_path[] = {1, 0, 0, 0, 2, 0, 0, 0, '/', 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t huge_content[] = {1,    0,    0,    0,    1,    0,    0,    0,    'a',
                                           0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 'x'};
    struct output_reader reader;
    struct output_file file;

    (void)state;
    assert_int_equal(output_reader_init(&reader, many, sizeof(many)), -EBADMSG);
    assert_int_equal(output_reader_init(&reader, no_path, sizeof(no_path)), 0);
    assert_false(output_next(&reader, &file));
    assert_true(reader.cut);
    assert_int_equal(output_reader_init(&reader, huge_path, sizeof(huge_path)), 0);
    assert_false(output_next(&reader, &file));
    assert_true(reader.cut);
    assert_int_equal(output_reader_init(&reader, nul_path, sizeof(nul_path)), 0);
    assert_false(output_next(&reader, &file));
    assert_true(reader.cut);
    assert_int_equal(output_reader_init(&reader, huge_content, sizeof(huge_content)), 0);
    assert_true(output_next(&reader, &file));
    assert_int_equal(file.content_bytes, 1);
    assert_true(reader.cut);
    assert_false(output_next(&reader, &file));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_init_writes), cmocka_unit_test(test_later_lines_replace),
        cmocka_unit_test(test_bad_lines),        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_path_too_long),    cmocka_unit_test(test_too_many_entries),
        cmocka_unit_test(test_garbled),          cmocka_unit_test(test_output_files),
        cmocka_unit_test(test_output_files_cut), cmocka_unit_test(test_output_files_hostile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
