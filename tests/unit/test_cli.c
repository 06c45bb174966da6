/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_cli.c: the command line, exit statuses (against the man page), the status line, and what
 * `kernel` and `schema` print.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vmm/bundled_kernel.h"
#include "vmm/cli.h"
#include "vmm/cli_status.h"
#include "vmm/embedded.h"
#include "vmm/launcher.h"
#include "vmm/nearest.h"

static int parse(struct cli_options *options, struct bvmm_error *err, const char *line)
{
    static char words[512];
    char *argv[16] = {"bvmm"};
    int argc = 1;

    snprintf(words, sizeof(words), "%s", line);
    for (char *word = strtok(words, " "); word;
         word = strtok(NULL, " ")) { /* NOLINT(concurrency) */
        argv[argc++] = word;
    }
    return cli_parse(argc, argv, options, err);
}

static struct cli_options good(const char *line)
{
    struct cli_options options;
    struct bvmm_error err;

    if (parse(&options, &err, line) < 0) {
        fail_msg("%s: %s", line, err.message);
    }
    return options;
}

static void bad(const char *line, const char *message)
{
    struct cli_options options;
    struct bvmm_error err = {.message = ""};

    if (parse(&options, &err, line) != -EINVAL || !strstr(err.message, message)) {
        fail_msg("%s: the message lacks \"%s\": %s", line, message, err.message);
    }
}

static void good_lines(void **state)
{
    struct cli_options o;

    (void)state;
    o = good("--json-config job.json");
    assert_int_equal(o.command, CLI_RUN);
    assert_string_equal(o.job_path, "job.json");
    assert_null(o.report_path);
    o = good("--report=- --json-config=- -v");
    assert_string_equal(o.job_path, "-");
    assert_string_equal(o.report_path, "-");
    assert_true(o.verbose && !o.quiet);
    assert_true(good("-q --json-config x").quiet);
    o = good("validate --no-files job.json");
    assert_int_equal(o.command, CLI_VALIDATE);
    assert_true(o.no_files);
    assert_string_equal(o.job_path, "job.json");
    assert_string_equal(good("validate -").job_path, "-");
    assert_string_equal(good("schema report").schema, "report");
    assert_true(good("kernel --info").info);
    assert_string_equal(good("kernel --write /tmp/k").write_path, "/tmp/k");
    assert_int_equal(good("check").command, CLI_CHECK);
    assert_int_equal(good("sandbox --print").command, CLI_SANDBOX);
    assert_true(good("sandbox --print --json").json);
    assert_int_equal(good("help").command, CLI_HELP);
    assert_int_equal(good("-h").command, CLI_HELP);
    assert_int_equal(good("validate --help").command, CLI_HELP);
    assert_int_equal(good("--version").command, CLI_VERSION);
    assert_int_equal(good("--json-config x -V").command, CLI_VERSION);
}

static void bad_lines(void **state)
{
    (void)state;
    bad("", "bvmm --json-config FILE");
    bad("-v", "nothing to do");
    bad("--json-config", "--json-config needs a value");
    bad("--json-config=", "--json-config needs a value");
    bad("--json-conf x", "did you mean '--json-config'");
    bad("--json_config=x", "did you mean '--json-config'");
    bad("--qiet --json-config x", "did you mean '--quiet'");
    bad("--frobnicate", "unknown option '--frobnicate'; see");
    bad("-x", "unknown option '-x'");
    bad("job.json", "to run a job: bvmm --json-config job.json");
    bad("-", "to run a job: bvmm --json-config -");
    bad("valdiate job", "did you mean 'validate'");
    bad("zzz", "unknown command 'zzz'; see");
    bad("--json-config a --json-config b", "twice the option");
    bad("--json-config a b", "unknown command 'b'");
    bad("-v -q --json-config a", "do not go together");
    bad("--verbose=1 --json-config a", "takes no value");
    bad("--no-files --json-config a", "--no-files does not go with 'a run'");
    bad("validate", "bvmm validate needs the path");
    bad("validate a b", "one argument too many: 'b'");
    bad("validate a --report r", "--report does not go with 'validate'");
    bad("schema", "bvmm schema needs job or report");
    bad("kernel", "--info or --write");
    bad("kernel --info --write x", "--info or --write");
    bad("sandbox", "bvmm sandbox needs --print");
    bad("check --print", "--print does not go with 'check'");
    bad("check now", "one argument too many: 'now'");
}

static void nearest_names(void **state)
{
    static const char *const names[] = {"vcpus", "vsock", "vsock_path", "env", "user", NULL};

    (void)state;
    assert_string_equal(nearest_in("vcpu", names), "vcpus");
    assert_string_equal(nearest_in("VCPUS", names), "vcpus");
    assert_string_equal(nearest_in("vscok", names), "vsock"); /* neighbours swapped: one slip */
    assert_string_equal(nearest_in("vsock-path", names), "vsock_path");
    assert_string_equal(nearest_in("evn", names), "env");
    assert_null(nearest_in("memory", names));
    assert_null(nearest_in("", names));
    assert_null(nearest_in("a_name_that_is_far_longer_than_any_that_is_known_here", names));
}

/* ---- Exit statuses --------------------------------------------------------------------------- */

static enum exit_status status_of(enum run_status status, int code, enum bvmm_error_kind kind)
{
    struct run_outcome outcome = {
        .status = status,
        .error_kind = kind,
        .has_exit_code = code >= 0,
        .exit_code = code,
    };

    return cli_run_status(&outcome);
}

static void exit_statuses(void **state)
{
    const enum bvmm_error_kind none = BVMM_ERROR_NONE;

    (void)state;
    assert_int_equal(status_of(RUN_COMPLETED, 0, none), 0);
    assert_int_equal(status_of(RUN_COMPLETED, 1, none), 1);
    assert_int_equal(status_of(RUN_COMPLETED, 139, none), 1);
    assert_int_equal(status_of(RUN_COMPLETED, -1, none), 5);
    assert_int_equal(status_of(RUN_GUEST_SHUTDOWN, -1, none), 0);
    assert_int_equal(status_of(RUN_GUEST_SHUTDOWN, 0, none), 0);
    assert_int_equal(status_of(RUN_GUEST_SHUTDOWN, 2, none), 1);
    assert_int_equal(status_of(RUN_TIMEOUT, 0, BVMM_ERROR_TIMEOUT), 124);
    assert_int_equal(status_of(RUN_CANCELLED, -1, none), 130);
    assert_int_equal(status_of(RUN_GUEST_PANIC, -1, none), 5);
    assert_int_equal(status_of(RUN_GUEST_RESET, -1, none), 5);
    assert_int_equal(status_of(RUN_GUEST_TRIPLE_FAULT, -1, none), 5);
    assert_int_equal(status_of(RUN_GUEST_ERROR, -1, none), 5);
    assert_int_equal(status_of(RUN_VM_ERROR, -1, BVMM_ERROR_KVM), 3);
    assert_int_equal(status_of(RUN_VM_ERROR, -1, BVMM_ERROR_UNSUPPORTED_ARCH), 3);
    assert_int_equal(status_of(RUN_VM_ERROR, -1, BVMM_ERROR_DEVICE), 4);
    assert_int_equal(status_of(RUN_VM_ERROR, 0, BVMM_ERROR_SANDBOX), 4);
    assert_int_equal(status_of(RUN_VM_KILLED, 0, none), 4);
    assert_int_equal(status_of(RUN_SANDBOX_VIOLATION, 0, none), 4);
    assert_int_equal(status_of(RUN_NONE, 0, none), 4);
    assert_int_equal(status_of((enum run_status)77, 0, none), 4);
}

static void man_page_has_the_exit_statuses(void **state)
{
    static char page[65536];
    FILE *file = fopen(BVMM_SOURCE_DIR "/docs/bvmm.1", "re");
    char expected[512];

    (void)state;
    assert_non_null(file);
    page[fread(page, 1, sizeof(page) - 1, file)] = '\0';
    fclose(file);
#define X(id, number, text)                                                                        \
    snprintf(expected, sizeof(expected), ".TP\n.B %d\n%s\n", number, text);                        \
    if (!strstr(page, expected)) {                                                                 \
        fail_msg("docs/bvmm.1 lacks: %s", expected);                                               \
    }
    EXIT_STATUS_TABLE(X)
#undef X
}

/* Standard output is a full disk: each command says so, and none calls a good job a bad one. */
static void broken_output_is_told(void **state)
{
    static enum exit_status (*const commands[])(void) = {cli_version, cli_help};
    char told[256] = "";
    int out = dup(STDOUT_FILENO);
    int err = dup(STDERR_FILENO);
    int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
    int ends[2];

    (void)state;
    assert_true(out >= 0 && err >= 0 && full >= 0);
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        enum exit_status status;

        assert_int_equal(pipe(ends), 0);
        fflush(stdout);
        dup2(full, STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        status = commands[i]();
        dup2(out, STDOUT_FILENO);
        dup2(err, STDERR_FILENO);
        clearerr(stdout);
        close(ends[1]);
        memset(told, 0, sizeof(told));
        assert_true(read(ends[0], told, sizeof(told) - 1) >= 0);
        close(ends[0]);
        assert_int_equal(status, EXIT_STATUS_VM);
        assert_non_null(strstr(told, "cannot write to standard output: No space left"));
    }
    close(out);
    close(err);
    close(full);
}

/* ---- The status line ------------------------------------------------------------------------- */

static void status_line_is_written_over(void **state)
{
    char *text = NULL;
    size_t size;
    struct cli_status status = {.line = true};
    struct bvmm_progress progress = {.timeout_secs = 60};

    (void)state;
    status.to = open_memstream(&text, &size);
    assert_true(cli_status_interval_ms(&status) >= 100); /* a quiet launcher */
    progress.phase = launcher_phase_text(TIME_VM_PROCESS_START);
    cli_status_progress(&status, &progress);
    progress.phase = launcher_phase_text(TIME_COMMAND_START);
    cli_status_progress(&status, &progress);
    progress.phase = launcher_phase_text(4000000000U); /* a lie of the VM process */
    cli_status_progress(&status, &progress);
    cli_status_clear(&status);
    fclose(status.to);
    assert_non_null(strstr(text, "\rbvmm: setting up the VM, 0 s of 60 s\r"));
    assert_non_null(strstr(text, "\rbvmm: running, 0 s of 60 s          \r")); /* old end blanked */
    assert_null(strchr(text, '\n'));
    assert_int_equal(text[size - 1], '\r');
    free(text);
}

static void verbose_shows_each_phase_once(void **state)
{
    char *text = NULL;
    size_t size;
    struct cli_status status = {.verbose = true};
    struct bvmm_progress progress = {.phase = launcher_phase_text(TIME_SETUP_DONE)};

    (void)state;
    status.to = open_memstream(&text, &size);
    cli_status_progress(&status, &progress);
    progress.elapsed_ns = 1234567890;
    cli_status_progress(&status, &progress);
    progress.phase = launcher_phase_text(TIME_COMMAND_START);
    cli_status_progress(&status, &progress);
    fclose(status.to);
    assert_string_equal(text, "bvmm:    0.000 s  booting the guest\nbvmm:    1.235 s  running\n");
    free(text);
}

static void nobody_watches_without_a_terminal(void **state)
{
    struct cli_status status = {.line = false, .verbose = false};

    (void)state;
    assert_int_equal(cli_status_interval_ms(&status), 0);
}

static void verbose_shows_actors_safely(void **state)
{
    char *text = NULL;
    size_t size;
    struct record *record;
    struct record_limits limits = {.console_bytes = 4096};
    struct cli_status status = {.verbose = true};
    struct bvmm_error err;

    (void)state;
    assert_int_equal(record_create(&limits, &record, &err), 0);
    status.to = open_memstream(&text, &size);
    record->actor_count = 1;
    record->vcpu_count = 1;
    snprintf(record->actors[0].name, ACTOR_NAME_BYTES, "\x1b[2Jserial");
    record->actors[0].messages_in = 4711;
    record->exits[0].count[EXIT_IO_OUT] = 815;
    cli_status_actors(&status, record);
    fclose(status.to);
    assert_null(strchr(text, 0x1b));
    assert_non_null(strstr(text, "?[2Jserial"));
    assert_non_null(strstr(text, " 4711 "));
    assert_non_null(strstr(text, "exits of vcpu 0: io_out 815\n"));
    free(text);
    record_destroy(record);
}

/* ---- The bundled kernel and the schemas ------------------------------------------------------ */

static void put_text(const char *path, const char *text)
{
    FILE *file = fopen(path, "we");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static void kernel_from_a_directory(void **state)
{
    static const char json[] =
        "{\"version\": \"6.1.7\", \"artefacts\": [{\"name\": \"%s\", \"size_bytes\": 6, "
        "\"sha256\": "
        "\"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad\"}]}";
    char dir[] = "/tmp/bvmm-test-cli.XXXXXX";
    struct bvmm_error err;
    struct kernel_info info;
    char text[1024];
    size_t bytes;
    int fd;

    (void)state;
    if (embedded_file(EMBEDDED_KERNEL).data) {
        print_message(
            "skipped: this build has a kernel in the executable and looks nowhere else\n");
        skip();
    }
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(setenv("BVMM_KERNEL_DIR", dir, 1), 0);
    assert_int_equal(bundled_kernel_info(&info, &err), -ENOENT);
    assert_int_equal(err.kind, BVMM_ERROR_KERNEL_LOAD);
    assert_non_null(strstr(err.message, dir));
    assert_non_null(strstr(err.message, "kernel/build.sh"));
    put_text("vmlinux", "kernel");
    put_text("Image", "kernel");
    put_text("kernel.json", "{");
    assert_int_equal(bundled_kernel_info(&info, &err), -EINVAL);
    assert_non_null(strstr(err.message, "line 1"));
    put_text("kernel.json", "{\"version\": \"6.1.7\"}");
    assert_int_equal(bundled_kernel_info(&info, &err), -EINVAL);
    snprintf(text, sizeof(text), json, "vmlinux");
    put_text("kernel.json", text);
    if (bundled_kernel_info(&info, &err) < 0) { /* not x86_64 */
        snprintf(text, sizeof(text), json, "Image");
        put_text("kernel.json", text);
    }
    assert_int_equal(bundled_kernel_info(&info, &err), 0);
    assert_string_equal(info.version, "6.1.7");
    assert_int_equal(info.size_bytes, 6);
    assert_int_equal(info.sha256[0], 0xba);
    assert_false(info.embedded);
    assert_int_equal(bundled_kernel_open(&fd, &bytes, &err), 0);
    assert_int_equal(bytes, 6);
    assert_int_equal(read(fd, text, sizeof(text)), 6);
    assert_memory_equal(text, "kernel", 6);
    close(fd);
    put_text("vmlinux", "kernel of another size");
    put_text("Image", "kernel of another size");
    assert_int_equal(bundled_kernel_open(&fd, &bytes, &err), -EINVAL);
    assert_non_null(strstr(err.message, "not what its kernel.json says"));
    assert_int_equal(chdir("/"), 0);
    snprintf(text, sizeof(text), "rm -rf '%s'", dir);
    assert_int_equal(system(text), 0); /* NOLINT(cert-env33-c): our own directory's name */
    unsetenv("BVMM_KERNEL_DIR");
}

static void schemas_are_embedded_whole(void **state)
{
    static const char *const names[] = {
        [EMBEDDED_JOB_SCHEMA] = BVMM_SOURCE_DIR "/schemas/job.schema.json",
        [EMBEDDED_REPORT_SCHEMA] = BVMM_SOURCE_DIR "/schemas/report.schema.json",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct embedded_file file = embedded_file((enum embedded_id)i);
        struct stat status;
        char *text;
        FILE *disk = fopen(names[i], "re");

        assert_non_null(disk);
        assert_int_equal(fstat(fileno(disk), &status), 0);
        assert_int_equal(file.bytes, status.st_size);
        text = malloc(file.bytes);
        assert_non_null(text);
        assert_int_equal(fread(text, 1, file.bytes, disk), file.bytes);
        assert_memory_equal(text, file.data, file.bytes);
        free(text);
        fclose(disk);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_lines),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(nearest_names),
        cmocka_unit_test(exit_statuses),
        cmocka_unit_test(man_page_has_the_exit_statuses),
        cmocka_unit_test(broken_output_is_told),
        cmocka_unit_test(status_line_is_written_over),
        cmocka_unit_test(verbose_shows_each_phase_once),
        cmocka_unit_test(nobody_watches_without_a_terminal),
        cmocka_unit_test(verbose_shows_actors_safely),
        cmocka_unit_test(kernel_from_a_directory),
        cmocka_unit_test(schemas_are_embedded_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
