/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_guest_job.c: the guest job is the same after it was written and read; anything else is
 * refused, and read within its bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "protocol/guest_job.h"
#include "seeded_random.h"

#include <errno.h>

static const char *const args[] = {"sh", "-c", "", "echo \xff\x01"};
static const char *const env[] = {"A=1", "EMPTY="};
static const char *const outputs[] = {"/tmp/*.json"};
static const struct guest_job_mount mounts[] = {{"/dev/vdb", "/data", "squashfs"},
                                                {"/dev/vdc", "/more", ""}};

static struct guest_job full_job(void)
{
    struct guest_job job;

    guest_job_init(&job);
    for (int i = 0; i < NONCE_BYTES; i++) {
        job.nonce[i] = (uint8_t)(200 + i);
    }
    job.root_device = "/dev/vdz";
    job.root_fstype = "erofs";
    job.args = args;
    job.arg_count = ARRAY_SIZE(args);
    job.env = env;
    job.env_count = ARRAY_SIZE(env);
    job.workdir = "/work";
    job.user = "joe:users";
    job.hostname = "bench";
    job.outputs = outputs;
    job.output_count = 1;
    job.mounts = mounts;
    job.mount_count = 2;
    job.stream_limit_bytes[STREAM_STDOUT] = 5;
    job.tmpfs_limit_bytes = 1ULL << 40;
    job.grace_ms = 77;
    job.realtime_ns = 1764000000123456789ULL;
    job.vsock = true;
    return job;
}

static void assert_same_list(const char *const *got, size_t got_count, const char *const *want,
                             size_t want_count)
{
    assert_int_equal(got_count, want_count);
    for (size_t i = 0; i < want_count; i++) {
        assert_string_equal(got[i], want[i]);
    }
    assert_null(got[want_count]);
}

static void test_round_trip(void **state)
{
    struct guest_job job = full_job();
    struct guest_job got;
    struct bvmm_error err;
    const char *why = NULL;
    uint8_t *bytes = NULL;
    size_t count = 0;

    (void)state;
    assert_int_equal(guest_job_encode(&job, &bytes, &count, &err), 0);
    assert_int_equal(guest_job_decode(&got, bytes, count, &why), 0);
    assert_memory_equal(got.nonce, job.nonce, NONCE_BYTES);
    assert_string_equal(got.root_device, "/dev/vdz");
    assert_string_equal(got.root_fstype, "erofs");
    assert_same_list(got.args, got.arg_count, args, ARRAY_SIZE(args));
    assert_same_list(got.env, got.env_count, env, ARRAY_SIZE(env));
    assert_same_list(got.outputs, got.output_count, outputs, 1);
    assert_string_equal(got.workdir, "/work");
    assert_string_equal(got.user, "joe:users");
    assert_string_equal(got.hostname, "bench");
    assert_int_equal(got.mount_count, 2);
    assert_string_equal(got.mounts[0].device, "/dev/vdb");
    assert_string_equal(got.mounts[0].path, "/data");
    assert_string_equal(got.mounts[0].fstype, "squashfs");
    assert_string_equal(got.mounts[1].path, "/more");
    assert_string_equal(got.mounts[1].fstype, "");
    assert_int_equal(got.stream_limit_bytes[STREAM_STDOUT], 5);
    assert_true(got.stream_limit_bytes[STREAM_STDERR] == GUEST_JOB_NO_LIMIT);
    assert_true(got.tmpfs_limit_bytes == 1ULL << 40);
    assert_int_equal(got.grace_ms, 77);
    assert_true(got.realtime_ns == 1764000000123456789ULL);
    assert_true(got.vsock);
    guest_job_free(&got);
    free(bytes);
}

static void test_what_cannot_be_written(void **state)
{
    struct guest_job job = full_job();
    struct bvmm_error err;
    uint8_t *bytes = NULL;
    size_t count = 0;
    char *large = malloc(GUEST_JOB_MAX_BYTES + 1);
    const char *const large_args[] = {large};

    (void)state;
    assert_non_null(large);
    job.arg_count = 0;
    assert_int_equal(guest_job_encode(&job, &bytes, &count, &err), -EINVAL);
    assert_int_equal(err.kind, BVMM_ERROR_JOB);
    memset(large, 'x', GUEST_JOB_MAX_BYTES);
    large[GUEST_JOB_MAX_BYTES] = '\0';
    job.args = large_args;
    job.arg_count = 1;
    assert_int_equal(guest_job_encode(&job, &bytes, &count, &err), -E2BIG);
    assert_non_null(strstr(err.message, "stdin_path"));
    assert_null(bytes);
    free(large);
}

/* An item at the end of a small good job. */
static int decode_with(uint32_t tag, const void *bytes, uint32_t length)
{
    static const char *const one[] = {"true"};
    struct guest_job job;
    struct guest_job got;
    struct bvmm_error err;
    const char *why = NULL;
    uint8_t *encoded = NULL;
    uint8_t *all;
    size_t count = 0;
    int r;

    guest_job_init(&job);
    job.args = one;
    job.arg_count = 1;
    assert_int_equal(guest_job_encode(&job, &encoded, &count, &err), 0);
    all = malloc(count + 8 + length);
    assert_non_null(all);
    memcpy(all, encoded, count);
    memcpy(all + count, &tag, 4);
    memcpy(all + count + 4, &length, 4);
    memcpy(all + count + 8, bytes, length);
    r = guest_job_decode(&got, all, count + 8 + length, &why);
    if (r == 0) {
        guest_job_free(&got);
    } else {
        assert_non_null(why);
    }
    free(all);
    free(encoded);
    return r;
}

static void test_bad_items(void **state)
{
    (void)state;
    assert_int_equal(decode_with(GUEST_JOB_TAG_ENV, "A=b", 3), 0);
    assert_int_equal(decode_with(GUEST_JOB_TAG_ENV, "A\0b", 3), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_WORKDIR, "/", 1), -EBADMSG); /* the second */
    assert_int_equal(decode_with(GUEST_JOB_TAG_VERSION, "\1\0\0\0", 4), -EBADMSG);
    assert_int_equal(decode_with(0, "", 0), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_REALTIME + 1, "", 0), -EBADMSG);
    assert_int_equal(decode_with(UINT32_MAX, "", 0), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_MOUNT, "/dev/vdb\0/m\0ext4", 16), 0);
    assert_int_equal(decode_with(GUEST_JOB_TAG_MOUNT, "/dev/vdb\0/m\0", 12), 0);
    assert_int_equal(decode_with(GUEST_JOB_TAG_MOUNT, "/dev/vdb\0/m", 11), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_MOUNT, "/dev/vdb", 8), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_MOUNT, "/dev/vdb\0/m\0e\0x", 15), -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_STREAM_LIMIT, "\0\0\0\0\1\0\0\0\0\0\0\0", 12), 0);
    assert_int_equal(decode_with(GUEST_JOB_TAG_STREAM_LIMIT, "\0\0\0\7\1\0\0\0\0\0\0\0", 12),
                     -EBADMSG);
    assert_int_equal(decode_with(GUEST_JOB_TAG_STREAM_LIMIT, "\0\0\0\0", 4), -EBADMSG);
}

static void test_other_version(void **state)
{
    uint32_t head[3] = {GUEST_JOB_TAG_VERSION, 4, GUEST_JOB_VERSION + 1};
    struct guest_job job;
    const char *why = NULL;

    (void)state;
    assert_int_equal(guest_job_decode(&job, (uint8_t *)head, sizeof(head), &why), -EPROTO);
    assert_non_null(strstr(why, "version"));
    head[2] = GUEST_JOB_VERSION; /* neither nonce nor command */
    assert_int_equal(guest_job_decode(&job, (uint8_t *)head, sizeof(head), &why), -EBADMSG);
    assert_int_equal(guest_job_decode(&job, (uint8_t *)head, 0, &why), -EBADMSG);
}

/* Each beginning is refused or is a whole job, and nothing behind it is read. */
static void test_cut_anywhere(void **state)
{
    struct guest_job job = full_job();
    struct bvmm_error err;
    uint8_t *bytes = NULL;
    size_t count = 0;
    size_t accepted = 0;

    (void)state;
    assert_int_equal(guest_job_encode(&job, &bytes, &count, &err), 0);
    for (size_t cut = 0; cut < count; cut++) {
        uint8_t *part = malloc(cut + !cut);
        struct guest_job got;
        const char *why = NULL;

        assert_non_null(part);
        memcpy(part, bytes, cut);
        if (guest_job_decode(&got, part, cut, &why) == 0) {
            accepted++;
            guest_job_free(&got);
        }
        free(part);
    }
    /* Only on the boundaries behind the first argument. */
    assert_true(accepted < 30);
    free(bytes);
}

static void test_garbled(void **state)
{
    struct seeded_random r = random_from_seed("guest_job");
    struct guest_job job = full_job();
    struct bvmm_error err;
    uint8_t *bytes = NULL;
    size_t count = 0;
    int refused = 0;

    (void)state;
    assert_int_equal(guest_job_encode(&job, &bytes, &count, &err), 0);
    for (int round = 0; round < 5000; round++) {
        uint8_t *copy = malloc(count);
        struct guest_job got;
        const char *why = NULL;

        assert_non_null(copy);
        memcpy(copy, bytes, count);
        for (size_t i = 1 + random_below(&r, 4); i > 0; i--) {
            copy[random_below(&r, count)] = (uint8_t)random_u64(&r);
        }
        if (guest_job_decode(&got, copy, count, &why) == 0) {
            for (size_t i = 0; i < got.arg_count; i++) {
                assert_true(strlen(got.args[i]) < count);
            }
            guest_job_free(&got);
        } else {
            refused++;
        }
        free(copy);
    }
    assert_true(refused > 500);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),   cmocka_unit_test(test_what_cannot_be_written),
        cmocka_unit_test(test_bad_items),    cmocka_unit_test(test_other_version),
        cmocka_unit_test(test_cut_anywhere), cmocka_unit_test(test_garbled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
