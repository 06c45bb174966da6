/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report_samples.c: writes reports of many kinds of runs, for test_report_schema.py.
 * usage: report_samples DIR SEED COUNT: the known kinds, and COUNT of records full of garbage.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "../unit/report_fixture.h"

#define WITH_COMMAND                                                                               \
    "{\"rootfs_path\": \"r\", \"command\": [\"a\", \"\\u00fc\"], \"labels\": {\"a\": \"b\"}, "
#define SMALL                                                                                      \
    "\"limits\": {\"stdout_bytes\": 300, \"stderr_bytes\": 300, \"output_bytes\": 4000, "          \
    "\"console_bytes\": 4096}}"

static const char *dir;
static int number;

static void write_sample(struct fixture *f)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    enum report_place place;
    char path[4096];

    snprintf(path, sizeof(path), "%s/sample-%05d.json", dir, number++);
    fixture_check(job_set_report_path(&f->job, path) == 0, "job_set_report_path");
    f->job.report_dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    record_check(f->record, f->layout);
    if (report_write(&f->job, f->record, &place, &err) < 0) {
        fixture_check(false, err.message);
    }
    fixture_fini(f);
}

static void sample_nothing_happened(void)
{
    struct fixture f;

    fixture_init(&f, "{\"initrd_path\": \"i\"}");
    write_sample(&f);
}

static void sample_complete(void)
{
    struct fixture f;

    fixture_init(&f, WITH_COMMAND SMALL);
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "text \xc3\xbc\n", 8);
    fixture_stream(&f, STREAM_STDERR, "\xff\0binary", 8);
    fixture_u32(&f, 2);
    fixture_output_file(&f, "/out/a", "abc", 3);
    fixture_output_file(&f, "/out/\xff", "", 0);
    fixture_announce_file(&f, "/out/a", "abc", 3);
    fixture_announce_file(&f, "/lost", "xyz", 3);
    for (int reason = MANIFEST_REASON_NONE; reason < MANIFEST_REASON_COUNT; reason++) {
        fixture_announce_missing(&f, "/none/*", (enum manifest_reason)reason);
    }
    write_sample(&f);
}

static void sample_cut(enum run_status status, int32_t signal_number)
{
    struct fixture f;

    fixture_init(&f, WITH_COMMAND SMALL);
    fixture_completed(&f);
    f.record->outcome.status = status;
    f.record->outcome.term_signal = signal_number;
    f.record->outcome.vm_signal = signal_number;
    f.record->outcome.error_kind = (uint32_t)status % BVMM_ERROR_COUNT;
    snprintf(f.record->outcome.error_message, sizeof(f.record->outcome.error_message), "why \xff");
    f.record->streams[STREAM_STDOUT].state = STREAM_OPEN;
    f.record->device_fault_count = 1;
    snprintf(f.record->device_faults[0].what, DEVICE_FAULT_BYTES, "broken ring \x80");
    for (int i = 0; i < 100; i++) {
        record_append(f.record, STREAM_STDOUT, "more\xc3\xbc ", 7);
        record_console_append(f.record, "console of more than four kilobytes\xf0\x9f\x98 \n", 40);
    }
    write_sample(&f);
}

static void sample_own_init(void)
{
    struct fixture f;

    fixture_init(&f, "{\"rootfs_path\": \"r\", " SMALL);
    fixture_completed(&f);
    record_append(f.record, STREAM_OUTPUT, "raw file", 8);
    f.record->streams[STREAM_OUTPUT].state = STREAM_COMPLETE;
    f.record->streams[STREAM_OUTPUT].via = VIA_VSOCK;
    write_sample(&f);
}

/* What a VM process that a guest has taken over could leave. */
static void sample_garbage(unsigned *seed)
{
    const char *job = rand_r(seed) % 2 ? WITH_COMMAND SMALL : "{\"rootfs_path\": \"r\", " SMALL;
    struct fixture f;
    uint8_t *bytes;

    fixture_init(&f, job);
    bytes = (uint8_t *)f.record;
    for (size_t i = 0; i < f.layout->size_bytes; i++) {
        /* Mostly small values: wholly random ones are all mended, or end every parser at once. */
        bytes[i] = (uint8_t)(rand_r(seed) % 4   ? 0
                             : rand_r(seed) % 7 ? rand_r(seed) % 4
                                                : rand_r(seed));
    }
    write_sample(&f);
}

int main(int argc, char **argv)
{
    unsigned seed;

    if (argc != 4) {
        fprintf(stderr, "usage: report_samples DIR SEED COUNT\n");
        return 2;
    }
    dir = argv[1];
    seed = (unsigned)strtoul(argv[2], NULL, 10);
    sample_nothing_happened();
    sample_complete();
    sample_own_init();
    for (int status = 0; status < RUN_STATUS_COUNT; status++) {
        sample_cut((enum run_status)status, status * 7);
    }
    for (unsigned long i = strtoul(argv[3], NULL, 10); i > 0; i--) {
        sample_garbage(&seed);
    }
    printf("%d samples\n", number);
    return 0;
}
