/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* report.c: puts the sections of a report together, and the report onto the disk. Launcher. */
#include "vmm/report.h"

#include "vmm/fileio.h"
#include "vmm/hex.h"
#include "vmm/json_text.h"
#include "vmm/report_parts.h"
#include "vmm/utf8.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- Helpers --------------------------------------------------------------------------------- */

void report_set(struct report_builder *b, json_t *object, const char *key, json_t *value)
{
    if (json_object_set_new(object, key, value) < 0) {
        b->no_memory = true;
    }
}

void report_absent(struct report_builder *b, json_t *object, const char *key, const char *reason)
{
    json_t *absent = json_object_get(object, "absent");

    report_set(b, object, key, json_null());
    if (!absent) {
        absent = json_object();
        report_set(b, object, "absent", absent);
    }
    report_set(b, absent, key, report_text(reason));
}

json_t *report_end(struct report_builder *b, json_t *object)
{
    json_t *absent = json_incref(json_object_get(object, "absent"));

    if (absent) {
        json_object_del(object, "absent");
        report_set(b, object, "absent", absent);
    }
    return object;
}

void report_warn(struct report_builder *b, const char *fmt, ...)
{
    char message[BVMM_ERROR_MESSAGE_BYTES];
    va_list args;

    va_start(args, fmt);
    if (vsnprintf(message, sizeof(message), fmt, args) < 0) {
        message[0] = '\0';
    }
    va_end(args);
    if (json_array_append_new(b->warnings, report_text(message)) < 0) {
        b->no_memory = true;
    }
}

json_t *report_text_n(const void *text, size_t bytes)
{
    json_t *string;
    uint64_t mended;
    size_t clean_bytes;
    char *clean;

    if (utf8_mend(text, bytes, &clean, &clean_bytes, &mended) < 0) {
        return NULL;
    }
    string = json_stringn(clean, clean_bytes);
    free(clean);
    return string;
}

json_t *report_text(const char *text)
{
    return report_text_n(text, strlen(text));
}

json_t *report_text_or_null(const char *text)
{
    return text ? report_text(text) : json_null();
}

json_t *report_u64(uint64_t value)
{
    return json_integer((json_int_t)min_u64(value, INT64_MAX));
}

json_t *report_sha256(const uint8_t digest[SHA256_BYTES])
{
    char text[SHA256_TEXT_BYTES];

    sha256_to_text(digest, text);
    return json_string(text);
}

json_t *report_signal(int number)
{
    const char *short_name = number > 0 ? sigabbrev_np(number) : NULL;

    if (number == 0) {
        return json_null();
    }
    if (!short_name) {
        return json_pack("{s:i, s:n}", "number", number, "name");
    }
    return json_pack("{s:i, s:o}", "number", number, "name", json_sprintf("SIG%s", short_name));
}

/* ---- The whole ------------------------------------------------------------------------------- */

/* When bvmm was started, by the calendar. */
static json_t *started_at(const struct record *record)
{
    uint64_t since_ns = clock_monotonic_ns() - record->time_ns[TIME_PROCESS_START];
    struct timespec now;
    struct tm utc;
    uint64_t ns;
    time_t secs;
    char text[40];

    clock_gettime(CLOCK_REALTIME, &now);
    ns = (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
    if (record->time_ns[TIME_PROCESS_START] == 0 || since_ns > ns) {
        return json_null();
    }
    secs = (time_t)((ns - since_ns) / NS_PER_SECOND);
    if (!gmtime_r(&secs, &utc) || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &utc) == 0) {
        return json_null();
    }
    return json_sprintf("%s.%03uZ", text, (unsigned)((ns - since_ns) / NS_PER_MS % 1000));
}

static json_t *error(const struct run_outcome *outcome)
{
    json_t *message;

    if (outcome->error_kind == BVMM_ERROR_NONE && outcome->error_message[0] == '\0') {
        return json_null();
    }
    message = report_text(outcome->error_message);
    return json_pack("{s:s, s:o}", "kind",
                     bvmm_error_kind_name((enum bvmm_error_kind)outcome->error_kind), "message",
                     message);
}

static void set_outcome(struct report_builder *b, json_t *report)
{
    const struct run_outcome *outcome = &b->record->outcome;
    bool decided = outcome->status != RUN_NONE;

    report_set(
        b, report, "status",
        json_string(run_status_name(decided ? (enum run_status)outcome->status : RUN_VM_ERROR)));
    if (!decided) {
        report_warn(b, "nobody decided how this run ended; the VM process was gone before");
    }
    report_set(b, report, "exit_code",
               outcome->has_exit_code ? json_integer(outcome->exit_code) : json_null());
    report_set(b, report, "signal", report_signal(outcome->term_signal));
    report_set(b, report, "cancelled_by", report_signal(outcome->cancel_signal));
    report_set(b, report, "vm_signal", report_signal(outcome->vm_signal));
    report_set(b, report, "error", error(outcome));
}

/* What the command used, as the guest's kernel counts it. */
static json_t *command_usage(struct report_builder *b)
{
    const struct run_outcome *outcome = &b->record->outcome;
    json_t *usage = json_object();

    if (!outcome->has_wait_status) {
        json_decref(usage);
        return json_null();
    }
    report_set(b, usage, "user_ns", report_u64(outcome->guest_user_ns));
    report_set(b, usage, "system_ns", report_u64(outcome->guest_system_ns));
    report_set(b, usage, "peak_rss_bytes", report_u64(outcome->guest_peak_rss_bytes));
    report_set(b, usage, "oom_kills", report_u64(outcome->guest_oom_kills));
    return usage;
}

static void set_streams(struct report_builder *b, json_t *report)
{
    json_t *missing = NULL;
    json_t *files;

    report_set(b, report, "stdout", report_stream(b, STREAM_STDOUT));
    report_set(b, report, "stderr", report_stream(b, STREAM_STDERR));
    files = report_output_files(b, &missing);
    report_set(b, report, "output_files", files);
    report_set(b, report, "missing_files", missing);
    report_set(b, report, "output_transfer", report_output_transfer(b));
    report_set(b, report, "console", report_console(b));
}

static json_t *guest(struct report_builder *b)
{
    json_t *object = json_object();

    report_set(b, object, "vcpus", report_u64(b->job->vcpus));
    report_set(b, object, "memory_mib", report_u64(b->job->memory_mib));
    return object;
}

static void set_all(struct report_builder *b, json_t *report)
{
    report_set(b, report, "schema_version", json_integer(REPORT_SCHEMA_VERSION));
    report_set(b, report, "bvmm_version", json_string(BVMM_VERSION));
    report_set(b, report, "started_at", started_at(b->record));
    set_outcome(b, report);
    /* In the order in which a reader wants it; the array fills up until the end. */
    report_set(b, report, "warnings", json_incref(b->warnings));
    report_set(b, report, "timings", report_timings(b));
    report_set(b, report, "command_usage", command_usage(b));
    set_streams(b, report);
    report_set(b, report, "job", report_job(b));
    report_set(b, report, "kernel", report_kernel(b));
    report_set(b, report, "host", report_host(b));
    report_set(b, report, "guest", guest(b));
    report_set(b, report, "sandbox", report_sandbox(b));
    report_set(b, report, "exits", report_exits(b));
    report_set(b, report, "actors", report_actors(b));
    report_set(b, report, "device_faults", report_device_faults(b));
    if (b->record->mended_count > 0) {
        report_warn(b,
                    "the VM process left %" PRIu32 " impossible values in its record; they were "
                    "replaced, and nothing here that came from it is to be trusted",
                    b->record->mended_count);
    }
}

static int render(const struct job *job, struct record *record, bool brief, json_t **ret_report,
                  struct report_view *view, struct bvmm_error *err)
{
    struct report_builder b = {
        .job = job,
        .record = record,
        .view = view,
        .warnings = json_array(),
        .large_dir_fd = -1,
        .brief = brief,
    };
    json_t *report = json_object();

    if (report && b.warnings) {
        set_all(&b, report);
    }
    if (b.large_dir_fd >= 0 && b.large_dir_fd != job->large_dir_fd) {
        close(b.large_dir_fd);
    }
    b.no_memory = b.no_memory || !report || !b.warnings;
    json_decref(b.warnings);
    if (b.no_memory) {
        json_decref(report);
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM,
                         "out of memory for the report; lower the job's limits");
    }
    *ret_report = report;
    return 0;
}

int report_render(const struct job *job, struct record *record, json_t **ret_report,
                  struct bvmm_error *err)
{
    return render(job, record, false, ret_report, NULL, err);
}

int report_render_view(const struct job *job, struct record *record, json_t **ret_report,
                       struct report_view *ret_view, struct bvmm_error *err)
{
    int r;

    *ret_view = (struct report_view){.file_count = 0};
    r = render(job, record, false, ret_report, ret_view, err);
    if (r < 0) {
        report_view_fini(ret_view);
    }
    return r;
}

int report_render_brief(const struct job *job, struct record *record, json_t **ret_report,
                        struct bvmm_error *err)
{
    return render(job, record, true, ret_report, NULL, err);
}

/* ---- Writing --------------------------------------------------------------------------------- */

static int dump_to_file(const char *path, int dir_fd, json_t *report)
{
    const char *name = fileio_name(path);
    struct fileio_new file;
    int r = fileio_begin(&file, dir_fd, name);

    if (r < 0) {
        return r;
    }
    r = json_text_write(report, file.fd);
    if (r < 0) {
        fileio_abort(&file);
        return r;
    }
    return fileio_commit(&file, name);
}

int report_put(json_t *report, const char *path, int dir_fd, enum report_place *ret_place,
               struct bvmm_error *err)
{
    int r = path ? dump_to_file(path, dir_fd, report) : -ENOENT;
    int stdout_r;

    *ret_place = REPORT_NOWHERE;
    if (r == 0) {
        *ret_place = REPORT_FILE;
        return 0;
    }
    stdout_r = json_text_write(report, STDOUT_FILENO);
    if (stdout_r == 0) {
        *ret_place = path ? REPORT_STDOUT_INSTEAD : REPORT_STDOUT;
    }
    if (!path) {
        return stdout_r == 0 ? 0
                             : error_set(err, BVMM_ERROR_IO, stdout_r,
                                         "cannot write the report to standard output: %s",
                                         error_text(-stdout_r));
    }
    return error_set(err, BVMM_ERROR_IO, r, "cannot write the report to '%.600s': %s; %s", path,
                     fileio_strerror(r),
                     stdout_r == 0 ? "it is on standard output instead"
                                   : "and standard output does not take it either: it is lost");
}

int report_write(const struct job *job, struct record *record, enum report_place *ret_place,
                 struct bvmm_error *err)
{
    json_t *report = NULL;
    int r;

    *ret_place = REPORT_NOWHERE;
    r = report_render(job, record, &report, err);
    if (r < 0) {
        return r;
    }
    r = report_put(report, job->report_path, job->report_dir_fd, ret_place, err);
    json_decref(report);
    return r;
}
