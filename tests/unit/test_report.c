/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_report.c: what a report says of a run, and how it gets onto the disk: whole, or not at all.
 * That every report is one by the schema is tested in tests/schema.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/base64.h>
#include <sched.h>
#include <seccomp.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "report_fixture.h"
#include "vmm/fileio.h"
#include "vmm/hex.h"
#include "vmm/utf8.h"

#define COMMAND "{\"rootfs_path\": \"r\", \"command\": [\"a\"]"

static char dir[] = "/tmp/bvmm-test-report.XXXXXX";

static int make_dir(void **state)
{
    (void)state;
    return mkdtemp(dir) && chdir(dir) == 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
    char command[4096];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command); /* NOLINT(cert-env33-c): our own directory's name */
}

/* The member at a path such as "timings.points.setup_done_ns" or "output_files.0.path". */
static const json_t *at(const json_t *value, const char *path)
{
    char key[128];

    while (value && *path) {
        size_t length = strcspn(path, ".");

        assert_true(length < sizeof(key));
        memcpy(key, path, length);
        key[length] = '\0';
        value = json_is_array(value) ? json_array_get(value, (size_t)atoi(key))
                                     : json_object_get(value, key);
        path += length + (path[length] == '.');
    }
    if (!value) {
        fail_msg("the report has no %s", key);
    }
    return value;
}

static void want_string(const json_t *report, const char *path, const char *expected)
{
    const json_t *value = at(report, path);

    if (!json_is_string(value) || strcmp(json_string_value(value), expected) != 0) {
        fail_msg("%s is %s, not %s", path, json_is_string(value) ? json_string_value(value) : "?",
                 expected);
    }
}

static void want_integer(const json_t *report, const char *path, int64_t expected)
{
    const json_t *value = at(report, path);

    if (!json_is_integer(value) || json_integer_value(value) != expected) {
        fail_msg("%s is %lld, not %lld", path, (long long)json_integer_value(value),
                 (long long)expected);
    }
}

static void want_null(const json_t *report, const char *path)
{
    if (!json_is_null(at(report, path))) {
        fail_msg("%s is not null", path);
    }
}

static void want_boolean(const json_t *report, const char *path, bool expected)
{
    const json_t *value = at(report, path);

    if (!json_is_boolean(value) || json_is_true(value) != expected) {
        fail_msg("%s is not %s", path, expected ? "true" : "false");
    }
}

/* ---- The same as structs --------------------------------------------------------------------- */

static void want_answer(const json_t *object, const char *path, enum bvmm_answer answer)
{
    const json_t *value = at(object, path);
    const enum bvmm_answer expected = json_is_null(value)   ? BVMM_UNKNOWN
                                      : json_is_true(value) ? BVMM_YES
                                                            : BVMM_NO;

    if (answer != expected) {
        fail_msg("%s is %d in the struct, and %d in the report", path, answer, expected);
    }
}

/* The bytes of "data", decoded; the caller frees. NULL: they are in a file. */
static uint8_t *decode(const json_t *object, size_t *ret_bytes)
{
    const json_t *data = at(object, "data");
    size_t bytes = json_string_length(data);
    struct base64_decode_ctx base64;
    uint8_t *copy;

    if (json_is_null(data)) {
        return NULL;
    }
    copy = malloc(bytes + 1);
    assert_non_null(copy);
    memcpy(copy, json_string_value(data), bytes);
    if (strcmp(json_string_value(at(object, "encoding")), "base64") == 0) {
        const size_t text_bytes = bytes;

        base64_decode_init(&base64);
        assert_true(
            base64_decode_update(&base64, &bytes, copy, text_bytes, json_string_value(data)));
        assert_true(base64_decode_final(&base64));
    }
    *ret_bytes = bytes;
    return copy;
}

static void same_content(const struct bvmm_content *shown, const json_t *object)
{
    size_t bytes = 0;
    uint8_t *data = decode(object, &bytes);

    want_integer(object, "size_bytes", (int64_t)shown->bytes);
    assert_non_null(shown->data);
    if (data) {
        assert_int_equal(bytes, shown->bytes);
        assert_memory_equal(data, shown->data, bytes);
        assert_null(shown->file);
        want_null(object, "file");
    } else {
        want_string(object, "file", shown->file);
    }
    free(data);
    assert_int_equal(shown->has_announced_bytes, !json_is_null(at(object, "announced_bytes")));
    if (shown->has_announced_bytes) {
        want_integer(object, "announced_bytes", (int64_t)shown->announced_bytes);
    } else {
        assert_int_equal(shown->announced_bytes, 0);
    }
    want_answer(object, "digest_ok", shown->digest_ok);
    want_answer(object, "truncated", shown->truncated);
}

static void same_transfer(const struct bvmm_content *shown, const json_t *object)
{
    static const char *const states[] = {"empty", "open", "complete", "broken"};
    static const char *const ways[] = {NULL, "serial", "vsock"};

    want_integer(object, "dropped_bytes", (int64_t)shown->dropped_bytes);
    want_string(object, "state", states[shown->state]);
    if (shown->via == BVMM_WAY_NONE) {
        want_null(object, "via");
    } else {
        want_string(object, "via", ways[shown->via]);
    }
}

static void same_path(const char *path, size_t bytes, const json_t *object)
{
    if (!path) {
        want_null(object, "path");
        return;
    }
    assert_int_equal(path[bytes], '\0');
    if (utf8_text_bytes((const uint8_t *)path, bytes) == bytes) {
        want_string(object, "path", path);
        want_null(object, "path_base64");
    } else {
        assert_true(json_is_string(at(object, "path_base64")));
    }
}

static void same_duration(const struct bvmm_duration *shown, const json_t *report, const char *path)
{
    if (shown->known) {
        want_integer(report, path, (int64_t)shown->ns);
    } else {
        want_null(report, path);
        assert_int_equal(shown->ns, 0);
    }
}

static void same_timings(const struct bvmm_timings *shown, const json_t *report)
{
    same_duration(&shown->launch, report, "timings.launch_ns");
    same_duration(&shown->setup, report, "timings.setup_ns");
    same_duration(&shown->boot_to_init, report, "timings.boot_to_init_ns");
    same_duration(&shown->prepare, report, "timings.prepare_ns");
    same_duration(&shown->command_host, report, "timings.command_host_ns");
    same_duration(&shown->drain, report, "timings.drain_ns");
    same_duration(&shown->stop, report, "timings.stop_ns");
    same_duration(&shown->teardown, report, "timings.teardown_ns");
    same_duration(&shown->total, report, "timings.total_ns");
    same_duration(&shown->guest_boot, report, "timings.guest_boot_ns");
    same_duration(&shown->command_guest, report, "timings.command_guest_ns");
}

static void same_console(const struct bvmm_console *shown, const json_t *console)
{
    want_integer(console, "total_bytes", (int64_t)shown->total_bytes);
    want_integer(console, "dropped_bytes", (int64_t)shown->dropped_bytes);
    assert_int_equal(shown->text[shown->bytes], '\0');
    if (!json_is_null(at(console, "text")) &&
        json_integer_value(at(console, "replaced_bytes")) == 0) {
        assert_int_equal(json_string_length(at(console, "text")), shown->bytes);
        assert_memory_equal(json_string_value(at(console, "text")), shown->text, shown->bytes);
    }
}

/* What the structs of bvmm.h say is what the report says. */
static void same_as_report(const struct report_view *view, const json_t *report)
{
    const json_t *files = at(report, "output_files");
    const json_t *missing = at(report, "missing_files");

    same_content(&view->streams[BVMM_STDOUT], at(report, "stdout"));
    same_transfer(&view->streams[BVMM_STDOUT], at(report, "stdout"));
    same_content(&view->streams[BVMM_STDERR], at(report, "stderr"));
    same_transfer(&view->streams[BVMM_STDERR], at(report, "stderr"));
    assert_null(view->streams[BVMM_STDOUT].path);
    assert_int_equal(json_array_size(files), view->file_count);
    for (size_t i = 0; i < view->file_count; i++) {
        same_content(&view->files[i], json_array_get(files, i));
        same_transfer(&view->files[i], at(report, "output_transfer"));
        same_path(view->files[i].path, view->files[i].path_bytes, json_array_get(files, i));
    }
    assert_int_equal(json_array_size(missing), view->missing_count);
    for (size_t i = 0; i < view->missing_count; i++) {
        const json_t *object = json_array_get(missing, i);

        want_string(object, "reason", view->missing[i].reason);
        want_string(object, "text", view->missing[i].text);
        same_path(view->missing[i].path, view->missing[i].path_bytes, object);
    }
    same_console(&view->console, at(report, "console"));
    same_timings(&view->timings, report);
}

/* Every report of these tests is made with its structs, and both are held against each other. */
static json_t *render(struct fixture *f)
{
    struct bvmm_error err;
    struct report_view view;
    json_t *report = NULL;

    record_check(f->record, f->layout);
    assert_int_equal(report_render_view(&f->job, f->record, &report, &view, &err), 0);
    same_as_report(&view, report);
    report_view_fini(&view);
    return report;
}

/* ---- Outcome and figures --------------------------------------------------------------------- */

static void completed_run(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND ", \"name\": \"n\", \"labels\": {\"k\": \"v\"}}");
    fixture_completed(&f);
    f.record->outcome.exit_code = 3;
    report = render(&f);
    want_integer(report, "schema_version", 1);
    want_string(report, "bvmm_version", BVMM_VERSION);
    want_string(report, "status", "completed");
    want_integer(report, "exit_code", 3);
    want_null(report, "signal");
    want_null(report, "error");
    want_string(report, "job.name", "n");
    want_string(report, "job.labels.k", "v");
    want_integer(report, "timings.boot_to_init_ns", 1000000);
    want_integer(report, "timings.command_host_ns", 1000000);
    want_integer(report, "timings.command_guest_ns", 5000000);
    want_integer(report, "timings.points.process_start_ns", 0);
    want_integer(report, "timings.points.vm_process_end_ns", 10000000);
    want_integer(report, "command_usage.user_ns", 5);
    want_integer(report, "exits.total.io_out", 100);
    want_integer(report, "exits.vcpus.0.io_out", 100);
    want_string(report, "actors.0.name", "supervisor");
    want_integer(report, "actors.0.cpu_ns", 12345);
    want_integer(report, "actors.0.messages_in", 7);
    want_null(report, "actors.1.cpu_ns");
    want_string(report, "actors.1.absent.cpu_ns",
                "the actor had not stopped when the VM process ended");
    want_string(report, "console.text", "Linux version 6.1\n");
    assert_int_equal(json_array_size(at(report, "warnings")), 0);
    json_decref(report);
    fixture_fini(&f);
}

static void killed_before_anything(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    f.record->outcome.status = RUN_VM_KILLED;
    f.record->outcome.vm_signal = 9;
    f.record->outcome.error_kind = BVMM_ERROR_DEVICE;
    snprintf(f.record->outcome.error_message, 100, "killed");
    report = render(&f);
    want_string(report, "status", "vm_killed");
    want_null(report, "exit_code");
    want_integer(report, "vm_signal.number", 9);
    want_string(report, "vm_signal.name", "SIGKILL");
    want_string(report, "error.kind", "Device");
    want_string(report, "error.message", "killed");
    want_null(report, "timings.setup_ns");
    want_string(report, "timings.absent.setup_ns", "the run did not come to vm_process_start");
    want_null(report, "timings.command_guest_ns");
    want_null(report, "command_usage");
    want_null(report, "stdout.truncated"); /* nobody knows */
    want_string(report, "stdout.state", "empty");
    want_null(report, "stdout.via");
    json_decref(report);
    fixture_fini(&f);
}

static void nonsense_times_are_no_figures(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    f.record->time_ns[TIME_SETUP_DONE] = f.record->time_ns[TIME_VM_PROCESS_START] - 1;
    f.record->time_ns[TIME_COMMAND_END] = UINT64_MAX;
    f.record->exits[0].count[EXIT_HLT] = UINT64_MAX;
    report = render(&f);
    want_null(report, "timings.setup_ns");
    want_string(report, "timings.absent.setup_ns", "the times recorded make no sense");
    want_null(report, "timings.command_host_ns");
    want_integer(report, "exits.total.hlt", INT64_MAX);
    json_decref(report);
    fixture_fini(&f);
}

static void mended_records_are_told_of(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    f.record->actor_count = 10000;
    f.record->outcome.status = 10000;
    report = render(&f);
    want_string(report, "status", "vm_error");
    assert_non_null(strstr(json_string_value(at(report, "warnings.0")), "2 impossible values"));
    json_decref(report);
    fixture_fini(&f);
}

static void forbidden_call_is_named(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND ", \"sandbox\": \"best_effort\"}");
    fixture_completed(&f);
    f.record->outcome.status = RUN_SANDBOX_VIOLATION;
    f.record->sandbox.layers = 1U << SANDBOX_SECCOMP;
    snprintf(f.record->sandbox.refused, SANDBOX_REFUSED_BYTES, "no user namespaces here");
    f.record->violation.seen = 1;
    f.record->violation.actor = 1;
    f.record->violation.arch = SCMP_ARCH_X86_64;
    f.record->violation.syscall = 59;
    f.record->violation.args[0] = UINT64_MAX;
    report = render(&f);
    want_string(report, "sandbox.mode", "best_effort");
    want_boolean(report, "sandbox.layers.seccomp", true);
    want_boolean(report, "sandbox.layers.landlock", false);
    want_string(report, "sandbox.refused", "no user namespaces here");
    want_string(report, "sandbox.violation.actor", "vcpu0");
    want_string(report, "sandbox.violation.syscall", "execve");
    want_string(report, "sandbox.violation.arguments.0", "0xffffffffffffffff");
    want_string(report, "warnings.0", "the sandbox was not complete: no user namespaces here");
    json_decref(report);
    f.record->violation.actor = 4711;
    f.record->violation.syscall = 100000;
    report = render(&f);
    want_null(report, "sandbox.violation.actor");
    want_null(report, "sandbox.violation.syscall");
    want_integer(report, "sandbox.violation.number", 100000);
    json_decref(report);
    fixture_fini(&f);
    fixture_init(&f, COMMAND ", \"sandbox\": \"off\"}");
    fixture_completed(&f);
    report = render(&f);
    assert_non_null(strstr(json_string_value(at(report, "warnings.0")), "THE SANDBOX WAS OFF"));
    json_decref(report);
    fixture_fini(&f);
}

static void strangers_text_is_mended(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    snprintf(f.record->outcome.error_message, 100, "panic: \xff\xfe");
    snprintf(f.record->actors[0].name, ACTOR_NAME_BYTES, "a\x80");
    f.record->device_fault_count = 1;
    snprintf(f.record->device_faults[0].what, DEVICE_FAULT_BYTES, "\xc3");
    record_console_append(f.record, "\0\xf0\x9f", 3);
    report = render(&f);
    want_string(report, "error.message", "panic: \xef\xbf\xbd\xef\xbf\xbd");
    want_string(report, "actors.0.name", "a\xef\xbf\xbd");
    want_string(report, "device_faults.0.what", "\xef\xbf\xbd");
    want_string(report, "console.text", "Linux version 6.1\n\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd");
    want_integer(report, "console.replaced_bytes", 3);
    json_decref(report);
    fixture_fini(&f);
}

/* ---- Streams --------------------------------------------------------------------------------- */

static void whole_streams(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "text \xc3\xbc\n", 8);
    fixture_stream(&f, STREAM_STDERR, "\x00\x01\xff", 3);
    f.record->streams[STREAM_STDERR].via = VIA_VSOCK;
    report = render(&f);
    want_string(report, "stdout.encoding", "utf-8");
    want_string(report, "stdout.data", "text \xc3\xbc\n");
    want_integer(report, "stdout.size_bytes", 8);
    want_integer(report, "stdout.announced_bytes", 8);
    want_boolean(report, "stdout.digest_ok", true);
    want_boolean(report, "stdout.truncated", false);
    want_string(report, "stdout.state", "complete");
    want_string(report, "stdout.via", "serial");
    /* By sha256sum(1). */
    want_string(report, "stdout.sha256",
                "cfbb2848249e6027d661c1e18f05773770af45b6a5d2e6dd6434f6992cabf550");
    want_string(report, "stderr.encoding", "base64");
    want_string(report, "stderr.data", "AAH/");
    want_string(report, "stderr.via", "vsock");
    json_decref(report);
    fixture_fini(&f);
}

static void text_with_nul_is_binary(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_stream(&f, STREAM_STDOUT, "a\0b", 3);
    report = render(&f);
    want_string(report, "stdout.encoding", "base64");
    want_string(report, "stdout.data", "YQBi");
    json_decref(report);
    fixture_fini(&f);
}

static void stream_over_its_limit(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    /* The limit falls into the middle of the second umlaut. */
    fixture_init(&f, COMMAND ", \"limits\": {\"stdout_bytes\": 3}}");
    fixture_completed(&f);
    record_append(f.record, STREAM_STDOUT, "\xc3\xbc\xc3\xbcxyz", 7);
    f.record->streams[STREAM_STDOUT].state = STREAM_COMPLETE;
    report = render(&f);
    want_string(report, "stdout.encoding", "utf-8");
    want_string(report, "stdout.data", "\xc3\xbc");
    want_integer(report, "stdout.size_bytes", 2);
    want_integer(report, "stdout.dropped_bytes", 4);
    want_boolean(report, "stdout.truncated", true);
    json_decref(report);
    fixture_fini(&f);
}

/* Bvmm's init knows the limit, and sends no more; what it left out is counted all the same. */
static void stream_that_init_cut_at_the_limit(void **state)
{
    struct record_stream *stdout_stream = NULL;
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND ", \"limits\": {\"stdout_bytes\": 3, \"stderr_bytes\": 3}}");
    fixture_completed(&f);
    stdout_stream = &f.record->streams[STREAM_STDOUT];
    fixture_stream(&f, STREAM_STDOUT, "abc", 3);
    stdout_stream->announced_bytes = 3 + 5 * MIB;
    fixture_stream(&f, STREAM_STDERR, "abc", 3); /* all that there was */
    report = render(&f);
    want_integer(report, "stdout.dropped_bytes", 5 * MIB);
    want_integer(report, "stdout.announced_bytes", 3 + 5 * MIB);
    want_boolean(report, "stdout.truncated", true);
    want_boolean(report, "stdout.digest_ok", true);
    want_integer(report, "stderr.dropped_bytes", 0);
    want_boolean(report, "stderr.truncated", false);
    json_decref(report);
    /* An image's own init sends more than it says that it has. */
    stdout_stream->announced_bytes = 4;
    stdout_stream->dropped_bytes = 10;
    report = render(&f);
    want_integer(report, "stdout.dropped_bytes", 10);
    json_decref(report);
    /* It did not end: nobody knows what was still to come. */
    stdout_stream->announced_bytes = 3 + 5 * MIB;
    stdout_stream->dropped_bytes = 0;
    stdout_stream->state = STREAM_OPEN;
    report = render(&f);
    want_integer(report, "stdout.dropped_bytes", 0);
    want_boolean(report, "stdout.truncated", true);
    json_decref(report);
    fixture_fini(&f);
}

static void streams_that_are_not_whole(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "abcdef", 6);
    f.record->streams[STREAM_STDOUT].announced_bytes = 7; /* cut short by the guest's limit, say */
    fixture_stream(&f, STREAM_STDERR, "abcdef", 6);
    f.record->streams[STREAM_STDERR].announced_sha256[0] ^= 1;
    report = render(&f);
    want_boolean(report, "stdout.truncated", true);
    want_boolean(report, "stdout.digest_ok", true);
    want_boolean(report, "stderr.truncated", true);
    want_boolean(report, "stderr.digest_ok", false);
    json_decref(report);
    fixture_fini(&f);

    fixture_init(&f, COMMAND "}");
    record_append(f.record, STREAM_STDOUT, "ab", 2);
    f.record->streams[STREAM_STDOUT].state = STREAM_OPEN;
    f.record->streams[STREAM_STDERR].has_announced_bytes = 1;
    f.record->streams[STREAM_STDERR].announced_bytes = 5;
    report = render(&f);
    want_boolean(report, "stdout.truncated", true);
    want_string(report, "stdout.state", "open");
    want_boolean(report, "stderr.truncated", true); /* announced, and nothing came */
    json_decref(report);
    fixture_fini(&f);
}

static void console_with_a_gap(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND ", \"limits\": {\"console_bytes\": 4096}}");
    for (int i = 0; i < 1000; i++) {
        char line[16];

        snprintf(line, sizeof(line), "line %04d\n", i);
        record_console_append(f.record, line, 10);
    }
    report = render(&f);
    want_integer(report, "console.total_bytes", 10000);
    want_integer(report, "console.dropped_bytes", 10000 - 4096);
    assert_non_null(strstr(json_string_value(at(report, "console.text")),
                           "\n[bvmm: 5904 bytes left out here]\n"));
    assert_memory_equal(json_string_value(at(report, "console.text")), "line 0000\n", 10);
    assert_non_null(strstr(json_string_value(at(report, "console.text")), "line 0999\n"));
    json_decref(report);
    fixture_fini(&f);
}

/* ---- Output files ---------------------------------------------------------------------------- */

static void output_files_with_a_manifest(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND ", \"output_files\": [\"/o/*\", \"/none\"]}");
    fixture_completed(&f);
    fixture_announce_file(&f, "/o/a", "aaa", 3);
    fixture_announce_file(&f, "/o/b", "bbb", 3);
    fixture_announce_file(&f, "/o/lost", "lost", 4);
    fixture_announce_missing(&f, "/none", MANIFEST_REASON_NO_MATCH);
    fixture_u32(&f, 2);
    fixture_output_file(&f, "/o/a", "aaa", 3);
    fixture_output_file(&f, "/o/b", "bXb", 3); /* damaged on the way */
    f.record->streams[STREAM_OUTPUT].state = STREAM_COMPLETE;
    report = render(&f);
    assert_int_equal(json_array_size(at(report, "output_files")), 3);
    want_string(report, "output_files.0.path", "/o/a");
    want_string(report, "output_files.0.data", "aaa");
    want_boolean(report, "output_files.0.digest_ok", true);
    want_boolean(report, "output_files.0.truncated", false);
    want_boolean(report, "output_files.1.digest_ok", false);
    want_boolean(report, "output_files.1.truncated", true);
    want_string(report, "output_files.2.path", "/o/lost");
    want_integer(report, "output_files.2.size_bytes", 0);
    want_integer(report, "output_files.2.announced_bytes", 4);
    want_boolean(report, "output_files.2.truncated", true);
    assert_int_equal(json_array_size(at(report, "missing_files")), 1);
    want_string(report, "missing_files.0.path", "/none");
    want_string(report, "missing_files.0.reason", "no_match");
    json_decref(report);
    fixture_fini(&f);
}

static void output_files_cut_short(void **state)
{
    struct fixture f;
    json_t *report;
    uint64_t promised = 1000;

    (void)state;
    fixture_init(&f, COMMAND "}");
    fixture_u32(&f, 3);
    fixture_output_file(&f, "/a", "whole", 5);
    fixture_u32(&f, 2);
    record_append(f.record, STREAM_OUTPUT, "/b", 2);
    record_append(f.record, STREAM_OUTPUT, &promised, 8);
    record_append(f.record, STREAM_OUTPUT, "part", 4);
    f.record->streams[STREAM_OUTPUT].state = STREAM_OPEN;
    report = render(&f);
    assert_int_equal(json_array_size(at(report, "output_files")), 2);
    want_boolean(report, "output_files.0.truncated", false);
    want_string(report, "output_files.1.data", "part");
    want_boolean(report, "output_files.1.truncated", true);
    want_boolean(report, "output_transfer.truncated", true);
    json_decref(report);
    fixture_fini(&f);
}

static void output_that_is_garbage(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, COMMAND "}");
    record_append(f.record, STREAM_OUTPUT, "\xff\xff\xff\xff????????????", 16);
    record_append(f.record, STREAM_ANNOUNCED, "file 1 - %zz\nnonsense\n", 22);
    report = render(&f);
    assert_int_equal(json_array_size(at(report, "output_files")), 0);
    assert_int_equal(json_array_size(at(report, "warnings")), 3); /* with: nobody decided */
    json_decref(report);
    fixture_fini(&f);
}

static void output_of_an_own_init_is_one_file(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    fixture_init(&f, "{\"rootfs_path\": \"r\"}");
    record_append(f.record, STREAM_OUTPUT, "\x01\0\0\0 raw", 8);
    f.record->streams[STREAM_OUTPUT].state = STREAM_COMPLETE;
    report = render(&f);
    assert_int_equal(json_array_size(at(report, "output_files")), 1);
    want_null(report, "output_files.0.path");
    want_integer(report, "output_files.0.size_bytes", 8);
    json_decref(report);
    fixture_fini(&f);
}

/* ---- On the disk ----------------------------------------------------------------------------- */

static int entries(const char *path)
{
    DIR *d = opendir(path);
    int count = -2; /* . and .. */

    assert_non_null(d);
    while (readdir(d)) {
        count++;
    }
    closedir(d);
    return count;
}

/* The structs by themselves, and not only as the report has it. */
static void structs_of_all_that_a_run_brings(void **state)
{
    static const uint8_t binary[] = {0, 255, 7};
    struct report_view view;
    struct bvmm_error err;
    struct fixture f;
    json_t *report = NULL;

    (void)state;
    fixture_init(&f, COMMAND ", \"output_files\": [\"/o/*\"]}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "said", 4);
    record_append(f.record, STREAM_STDERR, binary, sizeof(binary));
    f.record->streams[STREAM_STDERR].state = STREAM_OPEN;
    f.record->streams[STREAM_STDERR].via = VIA_VSOCK;
    fixture_u32(&f, 1);
    fixture_output_file(&f, "/o/a\xff", binary, sizeof(binary));
    fixture_announce_file(&f, "/o/a\xff", binary, sizeof(binary));
    fixture_announce_file(&f, "/o/lost", "12345", 5);
    fixture_announce_missing(&f, "/none", MANIFEST_REASON_NO_MATCH);
    f.record->time_ns[TIME_RESULTS_COMPLETE] = 0;
    record_check(f.record, f.layout);
    assert_int_equal(report_render_view(&f.job, f.record, &report, &view, &err), 0);
    same_as_report(&view, report);

    assert_memory_equal(view.streams[BVMM_STDOUT].data, "said", 4);
    assert_int_equal(view.streams[BVMM_STDOUT].digest_ok, BVMM_YES);
    assert_int_equal(view.streams[BVMM_STDOUT].truncated, BVMM_NO);
    assert_int_equal(view.streams[BVMM_STDOUT].state, BVMM_STREAM_COMPLETE);
    assert_int_equal(view.streams[BVMM_STDOUT].via, BVMM_WAY_SERIAL);
    assert_int_equal(view.streams[BVMM_STDERR].digest_ok, BVMM_UNKNOWN);
    assert_int_equal(view.streams[BVMM_STDERR].truncated, BVMM_YES);
    assert_int_equal(view.streams[BVMM_STDERR].state, BVMM_STREAM_OPEN);
    assert_false(view.streams[BVMM_STDERR].has_announced_bytes);
    assert_int_equal(view.file_count, 2);
    assert_string_equal(view.files[0].path, "/o/a\xff"); /* and not U+FFFD */
    want_string(report, "output_files.0.path", "/o/a\xef\xbf\xbd");
    want_string(report, "output_files.0.path_base64", "L28vYf8=");
    want_null(report, "output_files.1.path_base64");
    want_null(report, "missing_files.0.path_base64");
    assert_int_equal(view.files[0].bytes, sizeof(binary));
    assert_memory_equal(view.files[0].data, binary, sizeof(binary));
    assert_int_equal(view.files[0].digest_ok, BVMM_YES);
    assert_string_equal(view.files[1].path, "/o/lost");
    assert_int_equal(view.files[1].bytes, 0);
    assert_int_equal(view.files[1].announced_bytes, 5);
    assert_int_equal(view.files[1].truncated, BVMM_YES);
    assert_int_equal(view.missing_count, 1);
    assert_string_equal(view.missing[0].path, "/none");
    assert_true(view.timings.command_guest.known);
    assert_int_equal(view.timings.command_guest.ns, 5000000);
    assert_false(view.timings.drain.known);
    assert_string_equal(view.console.text, "Linux version 6.1\n");
    json_decref(report);
    report_view_fini(&view);
    fixture_fini(&f);
}

static void read_small(const char *path, char *text, size_t size)
{
    FILE *file = fopen(path, "re");
    size_t n;

    assert_non_null(file);
    n = fread(text, 1, size - 1, file);
    text[n] = '\0';
    fclose(file);
}

static void open_report_dir(struct fixture *f, const char *path)
{
    char copy[4096];
    char *slash;

    assert_int_equal(job_set_report_path(&f->job, path), 0);
    snprintf(copy, sizeof(copy), "%s", f->job.report_path);
    slash = strrchr(copy, '/');
    *slash = '\0';
    f->job.report_dir_fd = open(copy, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(f->job.report_dir_fd >= 0);
}

static void report_becomes_a_file(void **state)
{
    enum report_place place;
    struct bvmm_error err;
    struct fixture f;
    char text[65536];
    json_t *report;

    (void)state;
    assert_int_equal(mkdir("plain", 0700), 0);
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    open_report_dir(&f, "plain/r.json");
    for (int round = 0; round < 2; round++) { /* the second replaces the first */
        assert_int_equal(report_write(&f.job, f.record, &place, &err), 0);
        assert_int_equal(place, REPORT_FILE);
        assert_int_equal(entries("plain"), 1);
    }
    read_small("plain/r.json", text, sizeof(text));
    report = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(report);
    want_string(report, "status", "completed");
    assert_int_equal(text[strlen(text) - 1], '\n');
    json_decref(report);
    fixture_fini(&f);
}

/* Standard output goes to a file while fn runs. */
static int with_stdout(const char *path, struct fixture *f, enum report_place *place,
                       struct bvmm_error *err)
{
    int saved = dup(STDOUT_FILENO);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    int r;

    assert_true(saved >= 0 && fd >= 0);
    fflush(stdout);
    dup2(fd, STDOUT_FILENO);
    r = report_write(&f->job, f->record, place, err);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    close(fd);
    return r;
}

static void report_goes_to_standard_output(void **state)
{
    enum report_place place;
    struct bvmm_error err;
    struct fixture f;
    char text[65536];

    (void)state;
    fixture_init(&f, COMMAND "}");
    assert_int_equal(with_stdout("stdout.txt", &f, &place, &err), 0);
    assert_int_equal(place, REPORT_STDOUT);
    read_small("stdout.txt", text, sizeof(text));
    assert_non_null(strstr(text, "\"schema_version\": 1"));
    assert_int_equal(with_stdout("/dev/full", &f, &place, &err), -ENOSPC);
    assert_int_equal(place, REPORT_NOWHERE);
    assert_non_null(strstr(err.message, "standard output"));
    fixture_fini(&f);
}

static void target_that_became_a_device_stays(void **state)
{
    enum report_place place;
    struct bvmm_error err;
    struct fixture f;
    struct stat status;

    (void)state;
    assert_int_equal(mkdir("fifo", 0700), 0);
    fixture_init(&f, COMMAND "}");
    open_report_dir(&f, "fifo/r.json");
    assert_int_equal(mkfifo("fifo/r.json", 0600), 0); /* after the job was checked */
    assert_int_equal(with_stdout("stdout.txt", &f, &place, &err), -EEXIST);
    assert_int_equal(place, REPORT_STDOUT_INSTEAD);
    assert_int_equal(stat("fifo/r.json", &status), 0);
    assert_true(S_ISFIFO(status.st_mode));
    assert_int_equal(entries("fifo"), 1);
    fixture_fini(&f);
}

/*
 * The following need a small file system of their own, in a mount namespace of a child process.
 * Child: 0 all right, 77 no such namespaces here, else what failed.
 */
#define CHILD_CHECK(condition, number)                                                             \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "child: %s failed: %s\n", #condition, strerror(errno));                \
            _exit(number);                                                                         \
        }                                                                                          \
    } while (0)

static void mount_small(const char *options)
{
    if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        _exit(77);
    }
    CHILD_CHECK(mount("none", dir, "tmpfs", 0, options) == 0, 2);
    CHILD_CHECK(chdir(dir) == 0, 3);
}

static void run_child(void (*child)(void))
{
    int status;
    pid_t pid = fork();

    if (pid == 0) {
        child();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        print_message("skipped: no mount namespace for this user\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* Directory entries are free on a tmpfs: the directory could be made and nothing put into it. */
static void large_outputs_on_a_full_disk_child(void)
{
    static const char *const jobs[] = {
        COMMAND ", \"large_outputs\": {\"over_bytes\": 0, \"dir\": \"new\"}}",
        COMMAND ", \"large_outputs\": {\"over_bytes\": 0, \"dir\": \"there\"}}",
    };
    static char text[200000];
    struct fixture f;
    json_t *report;

    mount_small("size=64k");
    memset(text, 'x', sizeof(text));
    CHILD_CHECK(mkdir("there", 0777) == 0, 4);
    for (size_t i = 0; i < ARRAY_SIZE(jobs); i++) {
        fixture_init(&f, jobs[i]);
        fixture_completed(&f);
        fixture_stream(&f, STREAM_STDOUT, text, sizeof(text));
        report = render(&f);
        CHILD_CHECK(json_is_null(at(report, "stdout.file")), 5);
        CHILD_CHECK(json_string_length(at(report, "stdout.data")) == sizeof(text), 6);
        json_decref(report);
        fixture_fini(&f);
    }
    CHILD_CHECK(access("new", F_OK) < 0, 7);    /* ours, and empty */
    CHILD_CHECK(access("there", F_OK) == 0, 8); /* not ours */
}

static void large_outputs_on_a_full_disk(void **state)
{
    (void)state;
    run_child(large_outputs_on_a_full_disk_child);
}

static void full_disk_child(void)
{
    enum report_place place = REPORT_NOWHERE;
    struct bvmm_error err;
    struct fixture f;
    static char noise[300000];
    int r;

    mount_small("size=128k");
    fixture_init(&f, COMMAND "}");
    fixture_completed(&f);
    memset(noise, 'x', sizeof(noise));
    fixture_stream(&f, STREAM_STDOUT, noise, sizeof(noise));
    CHILD_CHECK(job_set_report_path(&f.job, "r.json") == 0, 11);
    f.job.report_dir_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHILD_CHECK(fileio_replace("r.json", "old", 3) == 0, 4);
    r = with_stdout("/dev/null", &f, &place, &err);
    CHILD_CHECK(r == -ENOSPC, 6);
    CHILD_CHECK(place == REPORT_STDOUT_INSTEAD, 7);
    CHILD_CHECK(strstr(err.message, "No space left") && strstr(err.message, "r.json"), 8);
    CHILD_CHECK(entries(".") == 1, 9); /* nothing temporary */
    read_small("r.json", noise, sizeof(noise));
    CHILD_CHECK(strcmp(noise, "old") == 0, 10); /* and the old one is whole */
}

static void full_disk(void **state)
{
    (void)state;
    run_child(full_disk_child);
}

static void read_only_child(void)
{
    enum report_place place = REPORT_NOWHERE;
    struct bvmm_error err;
    struct job_problems problems = {.count = 0};
    struct fixture f;

    mount_small("size=128k");
    fixture_init(&f, COMMAND "}");
    CHILD_CHECK(job_set_report_path(&f.job, "r.json") == 0, 11);
    f.job.report_dir_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CHILD_CHECK(mount("none", dir, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0, 4);
    CHILD_CHECK(with_stdout("/dev/null", &f, &place, &err) == -EROFS, 5);
    CHILD_CHECK(place == REPORT_STDOUT_INSTEAD, 6);
    /* A job that starts when it is so already is refused before the run. */
    free(f.job.rootfs.path);
    f.job.rootfs.path = NULL;
    close(f.job.report_dir_fd);
    f.job.report_dir_fd = -1;
    CHILD_CHECK(job_open_files(&f.job, &problems) == -EINVAL, 7);
    CHILD_CHECK(problems.count == 1, 8);
    CHILD_CHECK(strstr(problems.items[0].message, "Read-only file system"), 9);
}

static void read_only_directory(void **state)
{
    (void)state;
    run_child(read_only_child);
}

/* ---- Large outputs --------------------------------------------------------------------------- */

static void large_streams_become_files(void **state)
{
    enum report_place place;
    struct bvmm_error err;
    struct fixture f;
    char text[65536];
    char expected[4200];
    json_t *report;

    (void)state;
    assert_int_equal(mkdir("large", 0700), 0);
    fixture_init(&f, COMMAND ", \"large_outputs\": {\"over_bytes\": 4}}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "more\xff", 5);
    fixture_stream(&f, STREAM_STDERR, "four", 4);
    fixture_u32(&f, 1);
    fixture_output_file(&f, "/../../etc/passwd", "12345", 5);
    open_report_dir(&f, "large/r.json");
    assert_int_equal(report_write(&f.job, f.record, &place, &err), 0);
    read_small("large/r.json", text, sizeof(text));
    report = json_loads(text, 0, NULL);
    assert_non_null(report);
    want_null(report, "stdout.data");
    want_null(report, "stdout.encoding");
    snprintf(expected, sizeof(expected), "%s/large/r.json.d/stdout", dir);
    want_string(report, "stdout.file", expected);
    want_integer(report, "stdout.size_bytes", 5);
    read_small("large/r.json.d/stdout", text, sizeof(text));
    assert_string_equal(text, "more\xff");
    want_string(report, "stderr.data", "four");
    want_null(report, "stderr.file");
    want_string(report, "output_files.0.path", "/../../etc/passwd");
    snprintf(expected, sizeof(expected), "%s/large/r.json.d/output-000", dir);
    want_string(report, "output_files.0.file", expected);
    want_null(report, "console.text");
    assert_int_equal(entries("large/r.json.d"), 3);
    assert_int_equal(entries("large"), 2);
    json_decref(report);
    fixture_fini(&f);
}

static void large_streams_without_room_stay_inline(void **state)
{
    struct fixture f;
    json_t *report;

    (void)state;
    assert_int_equal(fileio_replace("in-the-way", "x", 1), 0);
    fixture_init(&f, COMMAND ", \"large_outputs\": {\"over_bytes\": 0, \"dir\": \"in-the-way\"}}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, "not lost", 8);
    report = render(&f);
    want_string(report, "stdout.data", "not lost");
    assert_non_null(strstr(json_string_value(at(report, "warnings.0")), "in-the-way/stdout"));
    assert_int_equal(json_array_size(at(report, "warnings")), 1); /* told once */
    json_decref(report);
    fixture_fini(&f);
}

/* ---- Kernel ---------------------------------------------------------------------------------- */

static void own_kernel_is_named_by_its_bytes(void **state)
{
    static char image[200000];
    struct fixture f;
    json_t *report;
    uint8_t digest[SHA256_BYTES];
    char text[SHA256_TEXT_BYTES];

    (void)state;
    /* The version lies across the border between two reads. */
    memcpy(image + 65536 - 10, "Linux version 6.1.7-test (me@here) #1\n", 38);
    assert_int_equal(fileio_replace("vmlinux", image, sizeof(image)), 0);
    fixture_init(&f, "{\"rootfs_path\": \"r\", \"kernel_path\": \"vmlinux\"}");
    f.job.kernel.fd = open("vmlinux", O_RDONLY | O_CLOEXEC);
    report = render(&f);
    want_boolean(report, "kernel.bundled", false);
    want_string(report, "kernel.version", "6.1.7-test");
    fixture_sha256(image, sizeof(image), digest);
    sha256_to_text(digest, text);
    want_string(report, "kernel.sha256", text);
    json_decref(report);
    fixture_fini(&f);
}

/* ---- Text and digests ------------------------------------------------------------------------ */

static void utf8_by_the_table(void **state)
{
    static const struct {
        const char *bytes;
        size_t count;
        size_t good;
    } cases[] = {
        {"", 0, 0},
        {"abc", 3, 3},
        {"a\0b", 3, 1},
        {"\xc3\xbc", 2, 2},
        {"\xc3", 1, 0},
        {"\xc0\x80", 2, 0},
        {"\xc1\xbf", 2, 0},
        {"\xe0\x9f\xbf", 3, 0},
        {"\xe0\xa0\x80", 3, 3},
        {"\xed\x9f\xbf", 3, 3},
        {"\xed\xa0\x80", 3, 0},
        {"\xef\xbf\xbf", 3, 3},
        {"\xf0\x8f\xbf\xbf", 4, 0},
        {"\xf0\x90\x80\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},
        {"\xf4\x90\x80\x80", 4, 0},
        {"\xf5\x80\x80\x80", 4, 0},
        {"\x80", 1, 0},
        {"ok\xf0\x9f\x98", 5, 2},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(utf8_text_bytes((const uint8_t *)cases[i].bytes, cases[i].count),
                         cases[i].good);
    }
    assert_true(utf8_is_cut((const uint8_t *)"\xf0\x9f\x98", 3));
    assert_false(utf8_is_cut((const uint8_t *)"\xf0\x80", 2));
    assert_false(utf8_is_cut((const uint8_t *)"\xff", 1));
    assert_false(utf8_is_cut((const uint8_t *)"a", 1));
    assert_false(utf8_is_cut((const uint8_t *)"", 0));
}

/* What we call text, jansson must take: else a guest could make a report impossible. */
static void jansson_takes_what_we_call_text(void **state)
{
    unsigned seed = 7;

    (void)state;
    for (int round = 0; round < 200000; round++) {
        uint8_t bytes[6];
        size_t good;
        json_t *string;

        for (size_t i = 0; i < sizeof(bytes); i++) {
            bytes[i] = (uint8_t)(rand_r(&seed) % 3 ? 0x80 | (rand_r(&seed) & 0x7f) : rand_r(&seed));
        }
        good = utf8_text_bytes(bytes, sizeof(bytes));
        string = json_stringn((const char *)bytes, good);
        assert_non_null(string);
        json_decref(string);
    }
}

static void digests_to_text_and_back(void **state)
{
    uint8_t digest[SHA256_BYTES];
    uint8_t back[SHA256_BYTES];
    char text[SHA256_TEXT_BYTES];

    (void)state;
    fixture_sha256("abc", 3, digest); /* FIPS 180-4, first example */
    sha256_to_text(digest, text);
    assert_string_equal(text, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    assert_true(
        sha256_from_text("BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD", back));
    assert_memory_equal(back, digest, SHA256_BYTES);
    text[10] = 'g';
    assert_false(sha256_from_text(text, back));
    assert_false(sha256_from_text("ba78", back));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(completed_run),
        cmocka_unit_test(killed_before_anything),
        cmocka_unit_test(nonsense_times_are_no_figures),
        cmocka_unit_test(mended_records_are_told_of),
        cmocka_unit_test(forbidden_call_is_named),
        cmocka_unit_test(strangers_text_is_mended),
        cmocka_unit_test(whole_streams),
        cmocka_unit_test(text_with_nul_is_binary),
        cmocka_unit_test(stream_over_its_limit),
        cmocka_unit_test(stream_that_init_cut_at_the_limit),
        cmocka_unit_test(streams_that_are_not_whole),
        cmocka_unit_test(console_with_a_gap),
        cmocka_unit_test(output_files_with_a_manifest),
        cmocka_unit_test(output_files_cut_short),
        cmocka_unit_test(output_that_is_garbage),
        cmocka_unit_test(output_of_an_own_init_is_one_file),
        cmocka_unit_test(structs_of_all_that_a_run_brings),
        cmocka_unit_test(report_becomes_a_file),
        cmocka_unit_test(report_goes_to_standard_output),
        cmocka_unit_test(target_that_became_a_device_stays),
        cmocka_unit_test(full_disk),
        cmocka_unit_test(large_outputs_on_a_full_disk),
        cmocka_unit_test(read_only_directory),
        cmocka_unit_test(large_streams_become_files),
        cmocka_unit_test(large_streams_without_room_stay_inline),
        cmocka_unit_test(own_kernel_is_named_by_its_bytes),
        cmocka_unit_test(utf8_by_the_table),
        cmocka_unit_test(jansson_takes_what_we_call_text),
        cmocka_unit_test(digests_to_text_and_back),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
