/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* test_record.c: the run record: layout, streams, console ring, and what record_check() mends. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/record.h"

static struct record *make(uint64_t console_bytes, uint64_t stream_bytes)
{
    struct record_limits limits = {.console_bytes = console_bytes};
    struct bvmm_error err;
    struct record *record;

    for (int i = 0; i < STREAM_COUNT; i++) {
        limits.stream_bytes[i] = stream_bytes;
    }
    assert_int_equal(record_create(&limits, &record, &err), 0);
    return record;
}

/* ---- Layout ---------------------------------------------------------------------------------- */

static void regions_do_not_overlap(void **state)
{
    struct record *record = make(1001, 777);
    uint64_t end = sizeof(*record);

    (void)state;
    assert_true(record->magic == RECORD_MAGIC);
    assert_true(record->console.offset_bytes >= end);
    assert_int_equal(record->console.head_capacity_bytes + record->console.tail_capacity_bytes,
                     1001);
    end = record->console.offset_bytes + 1001;
    for (int i = 0; i < STREAM_COUNT; i++) {
        assert_true(record->streams[i].offset_bytes >= end);
        assert_int_equal(record->streams[i].capacity_bytes, 777);
        end = record->streams[i].offset_bytes + 777;
    }
    assert_true(record->size_bytes >= end);
    record_destroy(record);
}

static void child_writes_are_seen(void **state)
{
    struct record *record = make(64, 64);
    int status;
    pid_t pid = fork();

    (void)state;
    if (pid == 0) {
        record_append(record, STREAM_STDERR, "from the child", 14);
        _exit(0);
    }
    assert_true(pid > 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(record->streams[STREAM_STDERR].length_bytes, 14);
    assert_memory_equal(record_stream_bytes(record, STREAM_STDERR), "from the child", 14);
    record_destroy(record);
}

static void size_is_sealed(void **state)
{
    struct record *record = make(64, 64);
    char line[512];
    FILE *maps = fopen("/proc/self/maps", "re");
    char path[64] = "";
    unsigned long start;
    unsigned long end;

    (void)state;
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps)) {
        if (strstr(line, "bvmm-record") && sscanf(line, "%lx-%lx", &start, &end) == 2) {
            snprintf(path, sizeof(path), "/proc/self/map_files/%lx-%lx", start, end);
        }
    }
    fclose(maps);
    assert_true(path[0]);
    /* The way by which whoever owns the VM process could try to make the launcher die of SIGBUS. */
    assert_int_equal(truncate(path, 0), -1);
    assert_true(errno == EPERM || errno == ENOENT || errno == EACCES);
    assert_true(record->magic == RECORD_MAGIC);
    record_destroy(record);
}

static void impossible_limit_is_refused(void **state)
{
    struct record_limits limits = {.console_bytes = RECORD_LIMIT_MAX_BYTES + 1};
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct record *record = NULL;

    (void)state;
    assert_int_equal(record_create(&limits, &record, &err), -EINVAL);
    assert_null(record);
    assert_int_equal(err.kind, BVMM_ERROR_MEMORY);
    assert_non_null(strstr(err.message, "expected at most"));
}

/* ---- Streams --------------------------------------------------------------------------------- */

static void stream_keeps_what_fits(void **state)
{
    struct record *record = make(64, 10);
    struct record_stream *stream = &record->streams[STREAM_STDOUT];

    (void)state;
    record_append(record, STREAM_STDOUT, "0123456", 7);
    assert_int_equal(stream->length_bytes, 7);
    assert_int_equal(stream->dropped_bytes, 0);
    record_append(record, STREAM_STDOUT, "789abc", 6);
    assert_int_equal(stream->length_bytes, 10);
    assert_int_equal(stream->dropped_bytes, 3);
    record_append(record, STREAM_STDOUT, "x", 1);
    assert_int_equal(stream->dropped_bytes, 4);
    assert_memory_equal(record_stream_bytes(record, STREAM_STDOUT), "0123456789", 10);
    assert_int_equal(record->streams[STREAM_STDERR].length_bytes, 0);
    record_destroy(record);
}

/* ---- Console: against a model that keeps everything ------------------------------------------ */

static void check_console(struct record *record, const char *all, size_t total, size_t capacity)
{
    size_t head = capacity / 2;
    size_t tail = capacity - head;
    uint64_t dropped;
    size_t bytes;
    size_t gap;
    char *text;

    assert_int_equal(record_console_copy(record, &text, &bytes, &dropped, &gap), 0);
    assert_int_equal(text[bytes], '\0');
    if (total <= capacity) {
        assert_int_equal(dropped, 0);
        assert_int_equal(bytes, total);
        assert_memory_equal(text, all, total);
    } else {
        assert_int_equal(dropped, total - capacity);
        assert_int_equal(bytes, capacity);
        assert_int_equal(gap, head);
        assert_memory_equal(text, all, head);
        assert_memory_equal(text + head, all + total - tail, tail);
    }
    free(text);
}

static void console_keeps_both_ends(void **state)
{
    unsigned seed = 20261123;
    enum { LOG_BYTES = 4000 };
    char all[LOG_BYTES];

    (void)state;
    for (size_t capacity = 1; capacity < 200; capacity += 7) {
        struct record *record = make(capacity, 1);
        size_t total = 0;

        while (total < LOG_BYTES) {
            size_t piece = (size_t)rand_r(&seed) % (capacity * 2) + 1;

            piece = piece < LOG_BYTES - total ? piece : LOG_BYTES - total;
            for (size_t i = 0; i < piece; i++) {
                all[total + i] = (char)('a' + rand_r(&seed) % 26);
            }
            record_console_append(record, all + total, piece);
            total += piece;
            check_console(record, all, total, capacity);
        }
        assert_int_equal(record->console.total_bytes, LOG_BYTES);
        record_destroy(record);
    }
}

/* ---- Checking what came back ----------------------------------------------------------------- */

struct checked {
    struct record *record;
    struct record *layout;
};

static struct checked make_checked(void)
{
    struct checked c = {.record = make(256, 512)};

    c.record->vcpu_count = 2;
    c.record->actor_count = 3;
    memset(c.record->nonce, 0x5a, NONCE_BYTES);
    c.record->time_ns[TIME_PROCESS_START] = 1000;
    c.layout = record_layout_copy(c.record);
    assert_non_null(c.layout);
    return c;
}

static void done(struct checked *c)
{
    record_destroy(c->record);
    free(c->layout);
}

static void honest_record_passes(void **state)
{
    struct checked c = make_checked();
    struct record *before;

    (void)state;
    record_append(c.record, STREAM_STDOUT, "hello", 5);
    c.record->streams[STREAM_STDOUT].state = STREAM_COMPLETE;
    c.record->streams[STREAM_STDOUT].via = VIA_VSOCK;
    c.record->outcome.status = RUN_COMPLETED;
    c.record->outcome.has_exit_code = 1;
    c.record->time_ns[TIME_SETUP_DONE] = 5;
    c.record->actor_count = ACTORS_MAX;
    strcpy(c.record->actors[0].name, "supervisor");
    c.record->actors[0].state = ACTOR_STATE_STOPPED;
    before = record_layout_copy(c.record);
    assert_int_equal(record_check(c.record, c.layout), 0);
    assert_memory_equal(before, c.record, sizeof(*before));
    free(before);
    done(&c);
}

/* Each line breaks one thing; record_check() must count it and make it safe. */
#define BREAK(statement, safe)                                                                     \
    do {                                                                                           \
        struct checked c = make_checked();                                                         \
        struct record *r = c.record;                                                               \
        statement;                                                                                 \
        assert_int_equal(record_check(r, c.layout), 1);                                            \
        assert_int_equal(r->mended_count, 1);                                                      \
        assert_true(safe);                                                                         \
        assert_int_equal(record_check(r, c.layout), 0);                                            \
        done(&c);                                                                                  \
    } while (0)

static void each_lie_is_mended(void **state)
{
    (void)state;
    BREAK(r->magic = 0, r->magic == RECORD_MAGIC);
    BREAK(r->size_bytes = UINT64_MAX, r->size_bytes < MIB);
    BREAK(r->nonce[3] = 0, r->nonce[3] == 0x5a);
    BREAK(r->vcpu_count = 999, r->vcpu_count == 2);
    BREAK(r->actor_count = ACTORS_MAX + 1, r->actor_count <= ACTORS_MAX);
    BREAK(r->device_fault_count = UINT32_MAX, r->device_fault_count <= DEVICE_FAULTS_MAX);
    BREAK(r->phase = TIME_COUNT, r->phase < TIME_COUNT);
    BREAK(r->time_ns[TIME_PROCESS_START] = 7, r->time_ns[TIME_PROCESS_START] == 1000);
    BREAK(r->kernel_sha256[0] = 1, r->kernel_sha256[0] == 0);
    BREAK(r->console.offset_bytes = 1ULL << 60, r->console.offset_bytes < r->size_bytes);
    BREAK(r->console.head_capacity_bytes++, r->console.head_capacity_bytes == 128);
    BREAK(r->console.tail_capacity_bytes = UINT64_MAX, r->console.tail_capacity_bytes == 128);
    BREAK(r->streams[STREAM_OUTPUT].offset_bytes = 0, r->streams[STREAM_OUTPUT].offset_bytes > 0);
    BREAK(r->streams[STREAM_OUTPUT].capacity_bytes = UINT64_MAX,
          r->streams[STREAM_OUTPUT].capacity_bytes == 512);
    BREAK(r->streams[STREAM_STDOUT].length_bytes = 513,
          r->streams[STREAM_STDOUT].length_bytes == 512 &&
              r->streams[STREAM_STDOUT].state == STREAM_BROKEN);
    BREAK(r->streams[STREAM_STDOUT].state = 77, r->streams[STREAM_STDOUT].state == STREAM_BROKEN);
    BREAK(r->streams[STREAM_STDOUT].via = 3, r->streams[STREAM_STDOUT].via == VIA_NONE);
    BREAK(r->streams[STREAM_STDOUT].has_announced_sha256 = 2,
          r->streams[STREAM_STDOUT].has_announced_sha256 == 1);
    BREAK(r->outcome.status = RUN_STATUS_COUNT, r->outcome.status == RUN_VM_ERROR);
    BREAK(r->outcome.error_kind = UINT32_MAX, r->outcome.error_kind == BVMM_ERROR_NONE);
    BREAK(memset(r->outcome.error_message, 'A', BVMM_ERROR_MESSAGE_BYTES),
          strlen(r->outcome.error_message) == BVMM_ERROR_MESSAGE_BYTES - 1);
    BREAK(r->outcome.has_exit_code = 0xff, r->outcome.has_exit_code == 1);
    BREAK(memset(r->actors[ACTORS_MAX - 1].name, 'x', ACTOR_NAME_BYTES),
          strlen(r->actors[ACTORS_MAX - 1].name) == ACTOR_NAME_BYTES - 1);
    BREAK(r->actors[0].state = 1000, r->actors[0].state == ACTOR_STATE_NONE);
    BREAK(memset(r->device_faults[1].what, 'x', DEVICE_FAULT_BYTES),
          strlen(r->device_faults[1].what) == DEVICE_FAULT_BYTES - 1);
    BREAK(memset(r->device_faults[1].actor, 'x', ACTOR_NAME_BYTES),
          strlen(r->device_faults[1].actor) == ACTOR_NAME_BYTES - 1);
}

static void random_garbage_is_mended(void **state)
{
    unsigned seed = 42;

    (void)state;
    for (int round = 0; round < 200; round++) {
        struct checked c = make_checked();
        uint8_t *bytes = (uint8_t *)c.record;
        uint64_t dropped;
        size_t count;
        size_t gap;
        char *text;

        for (size_t i = 0; i < sizeof(*c.record); i++) {
            bytes[i] = (uint8_t)rand_r(&seed);
        }
        assert_true(record_check(c.record, c.layout) > 0);
        assert_int_equal(record_check(c.record, c.layout), 0);
        assert_int_equal(record_console_copy(c.record, &text, &count, &dropped, &gap), 0);
        assert_true(count <= 256);
        free(text);
        done(&c);
    }
}

/* In a child: all records but this one are taken away. Return: whether so. */
static bool others_go(struct record *const records[3], unsigned mine)
{
    const long page_bytes = sysconf(_SC_PAGESIZE);
    unsigned char there = 0;

    if (record_unmap_others(records[mine]) < 0) {
        return false;
    }
    for (unsigned i = 0; i < 3; i++) {
        const int code = mincore(records[i], (size_t)page_bytes, &there);

        if (i == mine ? code != 0 : code == 0 || errno != ENOMEM) {
            return false;
        }
    }
    records[mine]->vcpu_count = mine + 1;
    return true;
}

/* A program with several VMs: the process of one has nothing to do with the records of the others. */
static void records_of_other_vms_are_taken_away(void **state)
{
    struct record *const records[3] = {make(64, 64), make(1 << 20, 64), make(64, 64)};

    (void)state;
    for (unsigned mine = 0; mine < 3; mine++) {
        int status = 0;
        const pid_t pid = fork();

        assert_true(pid >= 0);
        if (pid == 0) {
            _exit(others_go(records, mine) ? 0 : 1);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_int_equal(status, 0);
        assert_int_equal(records[mine]->vcpu_count, mine + 1);
    }
    for (unsigned i = 0; i < 3; i++) {
        record_destroy(records[i]);
    }
}

static void names_of_unknown_values(void **state)
{
    (void)state;
    assert_string_equal(run_status_name(RUN_COMPLETED), "completed");
    assert_string_equal(run_status_name((enum run_status)9999), "unknown");
    assert_string_equal(run_time_name(TIME_COUNT), "unknown");
    assert_string_equal(stream_name(STREAM_COUNT), "unknown");
    assert_string_equal(exit_reason_name(EXIT_REASON_COUNT), "unknown");
    assert_string_equal(actor_state_name((enum actor_state)5), "unknown");
    assert_string_equal(bvmm_error_kind_name(BVMM_ERROR_COUNT), "Unknown");
    assert_string_equal(bvmm_error_kind_name(BVMM_ERROR_KERNEL_LOAD), "KernelLoad");
}

static void error_message_is_one_line(void **state)
{
    struct bvmm_error err;
    char longer[2 * BVMM_ERROR_MESSAGE_BYTES];

    (void)state;
    assert_int_equal(error_set(&err, BVMM_ERROR_IO, -EIO, "a\nb\x1b[31m %d", 7), -EIO);
    assert_string_equal(err.message, "a?b?[31m 7");
    assert_int_equal(err.kind, BVMM_ERROR_IO);
    assert_int_equal(error_set(NULL, BVMM_ERROR_IO, -EIO, "nobody listens"), -EIO);
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    error_set(&err, BVMM_ERROR_IO, 0, "%s", longer);
    assert_int_equal(strlen(err.message), BVMM_ERROR_MESSAGE_BYTES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(regions_do_not_overlap),
        cmocka_unit_test(child_writes_are_seen),
        cmocka_unit_test(size_is_sealed),
        cmocka_unit_test(impossible_limit_is_refused),
        cmocka_unit_test(stream_keeps_what_fits),
        cmocka_unit_test(console_keeps_both_ends),
        cmocka_unit_test(honest_record_passes),
        cmocka_unit_test(each_lie_is_mended),
        cmocka_unit_test(random_garbage_is_mended),
        cmocka_unit_test(records_of_other_vms_are_taken_away),
        cmocka_unit_test(names_of_unknown_values),
        cmocka_unit_test(error_message_is_one_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
