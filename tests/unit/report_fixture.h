/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report_fixture.h: jobs and run records to make reports of, for test_report.c and
 * tests/schema/report_samples.c.
 */
#ifndef BVMM_TESTS_REPORT_FIXTURE_H
#define BVMM_TESTS_REPORT_FIXTURE_H

#include <assert.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/record.h"
#include "protocol/manifest.h"
#include "vmm/job.h"
#include "vmm/report.h"

struct fixture {
    struct job job;
    struct record *record;
    struct record *layout; /* as the launcher copies it before the fork */
};

static inline void fixture_check(bool ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "report_fixture.h: %s\n", what);
        abort();
    }
}

/* A job from JSON text; files are not opened. */
static inline void fixture_init(struct fixture *f, const char *job_text)
{
    struct job_problems problems = {.count = 0};
    struct record_limits limits;
    struct bvmm_error err;

    fixture_check(job_init_defaults(&f->job) == 0, "job_init_defaults");
    if (job_decode(&f->job, job_text, strlen(job_text), &problems) < 0 ||
        job_check(&f->job, &problems) < 0) {
        fixture_check(false, problems.items[0].message);
    }
    job_record_limits(&f->job, &limits);
    fixture_check(record_create(&limits, &f->record, &err) == 0, "record_create");
    f->record->time_ns[TIME_PROCESS_START] = clock_monotonic_ns();
    f->record->time_ns[TIME_JOB_READY] = f->record->time_ns[TIME_PROCESS_START] + 1000;
    f->record->vcpu_count = (uint32_t)f->job.vcpus;
    f->layout = record_layout_copy(f->record);
    fixture_check(f->layout != NULL, "record_layout_copy");
}

static inline void fixture_fini(struct fixture *f)
{
    job_fini(&f->job);
    record_destroy(f->record);
    free(f->layout);
}

static inline void fixture_sha256(const void *data, size_t bytes, uint8_t digest[SHA256_BYTES])
{
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, bytes, data);
    sha256_digest(&ctx, SHA256_BYTES, digest);
}

/* A stream as it is after all of it has come. */
static inline void fixture_stream(struct fixture *f, enum stream_id id, const void *data,
                                  size_t bytes)
{
    struct record_stream *stream = &f->record->streams[id];

    record_append(f->record, id, data, bytes);
    stream->state = STREAM_COMPLETE;
    stream->via = VIA_SERIAL;
    stream->announced_bytes = bytes;
    stream->has_announced_bytes = 1;
    fixture_sha256(data, bytes, stream->announced_sha256);
    stream->has_announced_sha256 = 1;
}

static inline void fixture_u32(struct fixture *f, uint32_t value)
{
    record_append(f->record, STREAM_OUTPUT, &value, sizeof(value));
}

/* One output file in the framing of protocol.h, section D. */
static inline void fixture_output_file(struct fixture *f, const char *path, const void *data,
                                       uint64_t bytes)
{
    fixture_u32(f, (uint32_t)strlen(path));
    record_append(f->record, STREAM_OUTPUT, path, strlen(path));
    record_append(f->record, STREAM_OUTPUT, &bytes, sizeof(bytes));
    record_append(f->record, STREAM_OUTPUT, data, bytes);
}

static inline void fixture_announce_line(struct fixture *f, const struct manifest_entry *entry)
{
    char line[MANIFEST_PATH_MAX_BYTES * 3 + 128];

    record_append(f->record, STREAM_ANNOUNCED, line, manifest_print(line, sizeof(line), entry));
}

static inline void fixture_announce_file(struct fixture *f, const char *path, const void *data,
                                         uint64_t bytes)
{
    struct manifest_entry entry = {
        .name = MANIFEST_FILE,
        .size_bytes = bytes,
        .has_sha256 = true,
        .path = path,
        .path_bytes = strlen(path),
    };

    fixture_sha256(data, bytes, entry.sha256);
    fixture_announce_line(f, &entry);
}

static inline void fixture_announce_missing(struct fixture *f, const char *pattern,
                                            enum manifest_reason reason)
{
    struct manifest_entry entry = {
        .name = MANIFEST_MISSING,
        .reason = reason,
        .path = pattern,
        .path_bytes = strlen(pattern),
    };

    fixture_announce_line(f, &entry);
}

/* A run in which everything went well. */
static inline void fixture_completed(struct fixture *f)
{
    struct record *record = f->record;
    uint64_t start = record->time_ns[TIME_PROCESS_START];

    for (uint64_t i = TIME_VM_PROCESS_START; i < TIME_COUNT; i++) {
        record->time_ns[i] = start + i * NS_PER_MS;
    }
    record->guest_time_ns[GUEST_TIME_INIT] = 3 * NS_PER_MS;
    record->guest_time_ns[GUEST_TIME_COMMAND_START] = 4 * NS_PER_MS;
    record->guest_time_ns[GUEST_TIME_COMMAND_END] = 9 * NS_PER_MS;
    record->outcome.status = RUN_COMPLETED;
    record->outcome.has_exit_code = 1;
    record->outcome.has_wait_status = 1;
    record->outcome.guest_user_ns = 5;
    record->actor_count = 2;
    snprintf(record->actors[0].name, ACTOR_NAME_BYTES, "supervisor");
    record->actors[0].state = ACTOR_STATE_STOPPED;
    record->actors[0].cpu_ns = 12345;
    record->actors[0].messages_in = 7;
    snprintf(record->actors[1].name, ACTOR_NAME_BYTES, "vcpu0");
    record->actors[1].state = ACTOR_STATE_RUNNING;
    record->exits[0].count[EXIT_IO_OUT] = 100;
    record_console_append(record, "Linux version 6.1\n", 18);
}

#endif
