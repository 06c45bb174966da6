/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli_run.c: `bvmm --json-config FILE` and `bvmm validate FILE`, by the public library. Beyond that
 * it looks into the record of the finished run, for exit status and --verbose.
 *
 * Thread: main.
 */
#include "vmm/cli.h"

#include "bvmm/bvmm.h"
#include "vmm/api.h"
#include "vmm/cli_status.h"
#include "vmm/last_words.h"
#include "vmm/launcher_sandbox.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum exit_status cli_run_status(const struct run_outcome *outcome)
{
    switch ((enum run_status)outcome->status) {
    case RUN_COMPLETED:
        if (!outcome->has_exit_code) {
            return EXIT_STATUS_GUEST;
        }
        return outcome->exit_code == 0 ? EXIT_STATUS_OK : EXIT_STATUS_COMMAND_FAILED;
    case RUN_GUEST_SHUTDOWN:
        return outcome->has_exit_code && outcome->exit_code != 0 ? EXIT_STATUS_COMMAND_FAILED
                                                                 : EXIT_STATUS_OK;
    case RUN_TIMEOUT:
        return EXIT_STATUS_TIMEOUT;
    case RUN_CANCELLED:
        return EXIT_STATUS_CANCELLED;
    case RUN_GUEST_PANIC:
    case RUN_GUEST_RESET:
    case RUN_GUEST_TRIPLE_FAULT:
    case RUN_GUEST_ERROR:
        return EXIT_STATUS_GUEST;
    case RUN_VM_ERROR:
        switch ((enum bvmm_error_kind)outcome->error_kind) {
        case BVMM_ERROR_KVM:
        case BVMM_ERROR_GIC:
        case BVMM_ERROR_UNSUPPORTED_ARCH:
        case BVMM_ERROR_UNSUPPORTED_PLATFORM:
            return EXIT_STATUS_HOST;
        case BVMM_ERROR_JOB:
            return EXIT_STATUS_USAGE;
        case BVMM_ERROR_NONE:
        case BVMM_ERROR_MEMORY:
        case BVMM_ERROR_BOOT:
        case BVMM_ERROR_DEVICE:
        case BVMM_ERROR_VCPU:
        case BVMM_ERROR_IO:
        case BVMM_ERROR_KERNEL_LOAD:
        case BVMM_ERROR_TIMEOUT:
        case BVMM_ERROR_SANDBOX:
        case BVMM_ERROR_COUNT:
            break;
        }
        return EXIT_STATUS_VM;
    case RUN_NONE:
    case RUN_VM_KILLED:
    case RUN_SANDBOX_VIOLATION:
    case RUN_STATUS_COUNT:
        break;
    }
    return EXIT_STATUS_VM;
}

/* ---- Signals that cancel --------------------------------------------------------------------- */

static struct bvmm_vm *volatile running; /* for the handler, which runs on the main thread */
static volatile sig_atomic_t early;      /* a signal that came before there was one; 0: none */

static void on_cancel(int number)
{
    struct bvmm_vm *vm = running;

    if (vm) {
        bvmm_vm_cancel_by(vm, number);
    } else {
        early = number;
    }
}

/* From now on they cancel this one. */
static void catch_up(struct bvmm_vm *vm)
{
    running = vm;
    if (early != 0) {
        bvmm_vm_cancel_by(vm, early);
    }
}

/*
 * From now on SIGINT, SIGTERM and SIGHUP do not end us, but cancel the run, which may be still to
 * come. Not before the job was read: it may come from a terminal, and then they are to end us.
 */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_cancel, .sa_flags = SA_RESTART};
    struct sigaction old;

    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        /* What the parent had ignored (nohup) stays so. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

/* ---- Messages -------------------------------------------------------------------------------- */

static void print_error(const struct bvmm_error *err)
{
    fprintf(stderr, "bvmm: %s\n", err->message);
}

static void print_problem(void *count, const char *problem)
{
    fprintf(stderr, "bvmm: %s\n", problem);
    (*(size_t *)count)++;
}

/* What the guest did is no error of bvmm's, and has no message of its own: what it may mean. */
static const char *status_text(uint32_t status)
{
    static const char *const texts[RUN_STATUS_COUNT] = {
        [RUN_GUEST_RESET] =
            "the guest reset the machine before its command had ended: the end of the "
            "console in the report (console.text) may say why",
        [RUN_GUEST_TRIPLE_FAULT] = "the guest's processor met an error while it handled one, as "
                                   "when a kernel breaks that is "
                                   "not yet able to say so: is it for this machine, and memory_mib "
                                   "enough for it? The end of "
                                   "the console in the report (console.text) may say more",
    };

    return status < RUN_STATUS_COUNT && texts[status] ? texts[status] : "";
}

/* Text from the VM process, for a terminal. */
static void print_outcome_message(const struct run_outcome *outcome)
{
    struct bvmm_error clean;

    error_set(&clean, BVMM_ERROR_NONE, 0, "%s",
              outcome->error_message[0] ? outcome->error_message : status_text(outcome->status));
    fprintf(stderr, "bvmm: %s%s%s\n", run_status_name((enum run_status)outcome->status),
            clean.message[0] ? ": " : "", clean.message);
}

static void print_summary(const struct cli_options *options, const struct cli_status *status,
                          const struct bvmm_report *report, enum bvmm_place place)
{
    const struct record *record = api_report_record(report);
    const struct run_outcome *outcome = &record->outcome;
    double secs = (double)(clock_monotonic_ns() - record->time_ns[TIME_PROCESS_START]) /
                  (double)NS_PER_SECOND;
    bool in_file = place == BVMM_PLACE_FILE;
    char code[32] = "";

    if (cli_run_status(outcome) > EXIT_STATUS_COMMAND_FAILED) {
        print_outcome_message(outcome);
    }
    if (options->quiet || (!options->verbose && !status->line)) {
        return;
    }
    if (outcome->has_exit_code) {
        snprintf(code, sizeof(code), ", exit code %" PRId32, outcome->exit_code);
    }
    fprintf(stderr, "bvmm: %s%s, after %.1f s%s%s\n",
            run_status_name((enum run_status)outcome->status), code, secs,
            in_file ? "; report: " : "", in_file ? bvmm_report_path(report) : "");
}

/* ---- The run --------------------------------------------------------------------------------- */

/* The command line's report path goes before the job's, and starts at the working directory. */
static int set_report_path(struct bvmm_config *config, const char *path, struct bvmm_error *err)
{
    char *cwd = NULL;
    char *absolute = NULL;
    int r;

    if (path[0] == '/' || strcmp(path, "-") == 0) {
        return bvmm_config_set_string(config, "report_path", path, err);
    }
    cwd = get_current_dir_name();
    if (!cwd || asprintf(&absolute, "%s/%s", cwd, path) < 0) {
        free(cwd);
        return error_set(err, BVMM_ERROR_IO, -errno, "--report %.600s: no working directory: %s",
                         path, error_text(errno));
    }
    r = bvmm_config_set_string(config, "report_path", absolute, err);
    free(cwd);
    free(absolute);
    return r;
}

static enum exit_status write_report(const struct cli_options *options, struct cli_status *status,
                                     const struct bvmm_report *report)
{
    const struct record *record = api_report_record(report);
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    enum bvmm_place place;
    int r;

    cli_status_clear(status);
    cli_status_actors(status, record);
    r = bvmm_report_write(report, &place, &err);
    last_words_done();
    print_summary(options, status, report, place);
    if (r < 0) {
        print_error(&err);
        return EXIT_STATUS_REPORT;
    }
    return cli_run_status(&record->outcome);
}

static enum exit_status run_vm(const struct cli_options *options, struct bvmm_vm *vm)
{
    struct cli_status status = {
        .to = stderr,
        .line = !options->quiet && isatty(STDERR_FILENO),
        .verbose = options->verbose,
    };
    struct bvmm_error why = {.kind = BVMM_ERROR_NONE};
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct bvmm_report *report = NULL;
    enum exit_status result = EXIT_STATUS_REPORT;
    unsigned interval_ms = cli_status_interval_ms(&status);

    catch_up(vm);
    bvmm_vm_set_progress(vm, interval_ms > 0 ? cli_status_progress : NULL, &status, interval_ms);
    /* A run that could not even be started has a report too; a bad job has none. */
    if (bvmm_vm_run(vm, &report, &why) == 0 ||
        (why.kind != BVMM_ERROR_JOB && bvmm_vm_failure_report(vm, &why, &report, &err) == 0)) {
        result = write_report(options, &status, report);
    } else {
        const bool bad_job = why.kind == BVMM_ERROR_JOB; /* its image, when it was looked into */

        cli_status_clear(&status);
        print_error(bad_job ? &why : &err);
        result = bad_job ? EXIT_STATUS_USAGE : EXIT_STATUS_REPORT;
    }
    bvmm_report_free(report);
    return result;
}

/* Say what is wrong with a job that was refused: all of it. */
static enum exit_status refuse(const struct bvmm_config *config, const struct bvmm_error *err)
{
    size_t problems = 0;

    if (err->kind != BVMM_ERROR_JOB) {
        print_error(err);
        return EXIT_STATUS_VM;
    }
    (void)bvmm_config_check(config, true, print_problem, &problems, NULL);
    if (problems == 0) {
        print_error(err); /* it was there a moment ago */
    }
    return EXIT_STATUS_USAGE;
}

/* ---- Descriptors that we were started with --------------------------------------------------- */

/*
 * What the starter had open is none of ours: the launcher, which may write to whatever is open, has only
 * what it opened itself. Not before the job's files are open: one may be named /dev/fd/3. All that bvmm
 * opens is closed by exec(), and what was inherited never is.
 */
static int close_inherited(struct bvmm_error *err)
{
    DIR *dir = opendir("/proc/self/fd");
    const struct dirent *entry = NULL;

    if (dir == NULL) {
        return error_set(err, BVMM_ERROR_IO, -errno,
                         "cannot tell which files are open, /proc/self/fd: %s", error_text(errno));
    }
    while ((entry = readdir(dir)) != NULL) {
        const int fd = (int)strtol(entry->d_name, NULL, 10);
        const int flags = fcntl(fd, F_GETFD);

        if (fd > STDERR_FILENO && flags >= 0 && (flags & FD_CLOEXEC) == 0) {
            close(fd);
        }
    }
    closedir(dir);
    return 0;
}

enum exit_status cli_run(const struct cli_options *options, uint64_t process_start_ns)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    enum exit_status status = EXIT_STATUS_OK;
    struct bvmm_config *config = NULL;
    struct bvmm_vm *vm = NULL;

    if (bvmm_config_load(options->job_path, &config, &err) < 0 ||
        (options->report_path && set_report_path(config, options->report_path, &err) < 0)) {
        print_error(&err);
        bvmm_config_free(config);
        return EXIT_STATUS_USAGE;
    }
    catch_signals();
    if (bvmm_vm_new(config, &vm, &err) < 0) {
        status = refuse(config, &err);
    } else if (close_inherited(&err) < 0) {
        print_error(&err);
        status = EXIT_STATUS_HOST;
    } else {
        api_set_process_start(vm, process_start_ns);
        api_set_guard(vm, launcher_sandbox());
        status = run_vm(options, vm);
        running = NULL;
    }
    bvmm_vm_free(vm);
    bvmm_config_free(config);
    return status;
}

enum exit_status cli_validate(const struct cli_options *options)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct bvmm_config *config = NULL;
    bool from_stdin = strcmp(options->job_path, "-") == 0;
    size_t problems = 0;
    int r = bvmm_config_load(options->job_path, &config, &err);

    if (r < 0) {
        print_error(&err);
    } else {
        r = bvmm_config_check(config, !options->no_files, print_problem, &problems, &err);
    }
    if (r == 0) {
        printf("%s: a good job%s\n", from_stdin ? "standard input" : options->job_path,
               options->no_files ? " (its files were not looked at)" : "");
    }
    bvmm_config_free(config);
    return r == 0 ? cli_finish_output() : EXIT_STATUS_USAGE;
}
