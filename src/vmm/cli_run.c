/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cli_run.c: `bvmm --json-config FILE`: load, run, report, exit status. Thread: main. */
#include "vmm/cli.h"

#include "vmm/cli_status.h"
#include "vmm/job.h"
#include "vmm/launcher.h"
#include "vmm/report.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
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

/* ---- Signals that cancel ----------------------------------------------------------------------
 */

static volatile sig_atomic_t cancel_signal; /* the first one that came */
static int cancel_fd = -1;

static void on_cancel(int number)
{
    static const uint64_t one = 1;
    int saved_errno = errno;

    if (cancel_signal == 0) {
        cancel_signal = number;
    }
    /* Cannot block: the counter would have to reach 2^64 - 1. */
    (void)!write(cancel_fd, &one, sizeof(one));
    errno = saved_errno;
}

/* From now on SIGINT, SIGTERM and SIGHUP write to cancel_fd. -1 if there are no descriptors. */
static void catch_signals(void)
{
    static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
    struct sigaction action = {.sa_handler = on_cancel, .sa_flags = SA_RESTART};
    struct sigaction old;

    cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; cancel_fd >= 0 && i < ARRAY_SIZE(numbers); i++) {
        /* What the parent had ignored (nohup) stays so. */
        if (sigaction(numbers[i], NULL, &old) == 0 && old.sa_handler != SIG_IGN) {
            sigaction(numbers[i], &action, NULL);
        }
    }
}

/* ---- Messages ---------------------------------------------------------------------------------
 */

static void print_problems(const struct job_problems *problems)
{
    size_t kept = min_u64(problems->count, JOB_PROBLEMS_MAX);

    for (size_t i = 0; i < kept; i++) {
        fprintf(stderr, "bvmm: %s\n", problems->items[i].message);
    }
    if (problems->count > kept) {
        fprintf(stderr, "bvmm: and %zu more\n", problems->count - kept);
    }
}

/* The job with its files open; the command line's report path goes before the job's. */
static int load_job(const struct cli_options *options, struct job *job)
{
    struct job_problems problems = {.count = 0};
    int r = job_load(options->job_path, JOB_LOAD_NO_FILES, job, &problems);

    if (r == 0 && options->report_path) {
        r = job_set_report_path(job, options->report_path);
    }
    if (r == 0) {
        r = job_open_files(job, &problems);
    }
    print_problems(&problems);
    return r;
}

/* A run that could not even be started has a report too. */
static void note_failed_start(struct record *record, const struct bvmm_error *err)
{
    struct run_outcome *outcome = &record->outcome;

    if (outcome->status == RUN_NONE) {
        outcome->status = RUN_VM_ERROR;
        outcome->error_kind = err->kind;
        snprintf(outcome->error_message, sizeof(outcome->error_message), "%s", err->message);
    }
}

/* Text from the VM process, for a terminal. */
static void print_outcome_message(const struct run_outcome *outcome)
{
    struct bvmm_error clean;

    error_set(&clean, BVMM_ERROR_NONE, 0, "%s", outcome->error_message);
    fprintf(stderr, "bvmm: %s%s%s\n", run_status_name((enum run_status)outcome->status),
            clean.message[0] ? ": " : "", clean.message);
}

static void print_summary(const struct cli_options *options, const struct job *job,
                          const struct record *record, enum report_place place)
{
    const struct run_outcome *outcome = &record->outcome;
    double secs = (double)(clock_monotonic_ns() - record->time_ns[TIME_PROCESS_START]) /
                  (double)NS_PER_SECOND;
    char code[32] = "";

    if (cli_run_status(outcome) > EXIT_STATUS_COMMAND_FAILED) {
        print_outcome_message(outcome);
    }
    if (options->quiet || (!options->verbose && !isatty(STDERR_FILENO))) {
        return;
    }
    if (outcome->has_exit_code) {
        snprintf(code, sizeof(code), ", exit code %" PRId32, outcome->exit_code);
    }
    fprintf(stderr, "bvmm: %s%s, after %.1f s%s%s\n",
            run_status_name((enum run_status)outcome->status), code, secs,
            place == REPORT_FILE ? "; report: " : "", place == REPORT_FILE ? job->report_path : "");
}

static enum exit_status write_report(const struct cli_options *options, const struct job *job,
                                     struct record *record)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    enum report_place place = REPORT_NOWHERE;
    int r = report_write(job, record, &place, &err);

    print_summary(options, job, record, place);
    if (r < 0) {
        fprintf(stderr, "bvmm: %s\n", err.message);
        return EXIT_STATUS_REPORT;
    }
    return cli_run_status(&record->outcome);
}

static enum exit_status run_job(const struct cli_options *options, struct job *job,
                                struct record *record)
{
    struct cli_status status = {
        .to = stderr,
        .start_ns = record->time_ns[TIME_PROCESS_START],
        .timeout_secs = job->timeout_secs,
        .line = !options->quiet && isatty(STDERR_FILENO),
        .verbose = options->verbose,
    };
    struct launcher_observer observer = cli_status_observer(&status);
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};

    if (launcher_run(job, record, &observer, cancel_fd, &err) < 0) {
        note_failed_start(record, &err);
    }
    if (record->outcome.status == RUN_CANCELLED) {
        record->outcome.cancel_signal = (int32_t)cancel_signal;
    }
    cli_status_clear(&status);
    cli_status_actors(&status, record);
    return write_report(options, job, record);
}

enum exit_status cli_run(const struct cli_options *options, uint64_t process_start_ns)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    enum exit_status status = EXIT_STATUS_USAGE;
    struct record_limits limits;
    struct record *record;
    struct job job;

    if (load_job(options, &job) == 0) {
        catch_signals();
        job_record_limits(&job, &limits);
        if (record_create(&limits, &record, &err) < 0) {
            fprintf(stderr, "bvmm: %s\n", err.message);
            status = EXIT_STATUS_VM;
        } else {
            record->time_ns[TIME_PROCESS_START] = process_start_ns;
            record->time_ns[TIME_JOB_READY] = clock_monotonic_ns();
            status = run_job(options, &job, record);
            record_destroy(record);
        }
    }
    job_fini(&job);
    return status;
}

enum exit_status cli_validate(const struct cli_options *options)
{
    struct job_problems problems = {.count = 0};
    struct job job;
    int r = job_load(options->job_path, options->no_files ? JOB_LOAD_NO_FILES : 0, &job, &problems);

    print_problems(&problems);
    if (r == 0) {
        printf("%s: a good job%s\n", job.source,
               options->no_files ? " (its files were not looked at)" : "");
    }
    job_fini(&job);
    return r == 0 && fflush(stdout) == 0 ? EXIT_STATUS_OK : EXIT_STATUS_USAGE;
}
