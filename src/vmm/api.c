/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * api.c: the public library (include/bvmm/bvmm.h) on top of job, launcher and report; its
 * configurations are in api_config.c.
 *
 * Threads: see bvmm.h. Blocks: bvmm_vm_run(), which may convert an image first, and after it
 * bvmm_vm_free() if the VM process did not die when it was killed.
 */
#include "vmm/api.h"

#include <errno.h>
#include <jansson.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "base/error.h"
#include "vmm/bundled_kernel.h"
#include "vmm/fileio.h"
#include "vmm/launcher.h"
#include "vmm/report.h"

struct bvmm_vm {
    struct job job;
    struct record *record; /* moves to the report */
    uint64_t start_ns;     /* of the process, or of bvmm_vm_new() */
    int cancel_fd;
    int undead_fd;     /* of a VM process that has to be waited for; or -1 */
    int cancel_signal; /* atomic: the first one that bvmm_vm_cancel_by() was told; 0: none */
    bool started;
    const struct launcher_guard *guard; /* NULL: none, as for all but the bvmm command */
    bvmm_progress_fn progress;
    void *progress_context;
    unsigned interval_ms;
};

struct bvmm_report {
    struct record *record;
    json_t *root;
    char *json;   /* the same as text; NULL before somebody asks for it */
    char *path;   /* of the job; NULL: standard output */
    int dir_fd;   /* of path; -1: none */
    bool guarded; /* it is written in the launcher's filter */
    struct report_view view;
    struct bvmm_result result;
};

const char *bvmm_version(void)
{
    return BVMM_VERSION;
}

static int no_memory(struct bvmm_error *error)
{
    (void)error_set(error, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
    return -ENOMEM;
}

/* ---- The limit of file sizes ----------------------------------------------------------------- */

/*
 * A file that would grow beyond it fails with EFBIG, which is told; but the kernel sends SIGXFSZ too,
 * to the thread that writes, and that would kill the program. Between begin and end it does not get
 * there. The bvmm command ignores it instead: its launcher's filter has no call for this.
 */
struct file_limit {
    sigset_t blocked; /* before */
    bool skipped;
};

static void make_set(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGXFSZ);
}

static void file_limit_begin(struct file_limit *limit, bool guarded)
{
    sigset_t set;

    make_set(&set);
    limit->skipped = guarded || pthread_sigmask(SIG_BLOCK, &set, &limit->blocked) != 0;
}

static void file_limit_end(const struct file_limit *limit)
{
    static const struct timespec none = {.tv_sec = 0};
    sigset_t set;

    make_set(&set);
    /* Who had it blocked already may be waiting for one. */
    if (!limit->skipped && !sigismember(&limit->blocked, SIGXFSZ)) {
        (void)sigtimedwait(&set, NULL, &none);
        (void)pthread_sigmask(SIG_SETMASK, &limit->blocked, NULL);
    }
}

/* ---- Running --------------------------------------------------------------------------------- */

static int open_job(const struct bvmm_config *config, struct job *job, struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    int code = api_job_from_config(config, false, job, &problems);

    if (code == 0) {
        code = job_open_files(job, &problems);
    }
    if (code < 0 && error != NULL) {
        job_problems_to_error(&problems, error);
    }
    return code;
}

int bvmm_vm_new(const struct bvmm_config *config, struct bvmm_vm **ret_vm, struct bvmm_error *error)
{
    struct bvmm_vm *vm = calloc(1, sizeof(*vm));
    const uint64_t start_ns = clock_monotonic_ns();
    struct record_limits limits;
    struct file_limit limit;
    int code = 0;

    if (vm == NULL) {
        return no_memory(error);
    }
    vm->cancel_fd = -1;
    vm->undead_fd = -1;
    code = open_job(config, &vm->job, error);
    if (code == 0) {
        vm->cancel_fd = fd_above_standard(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
        if (vm->cancel_fd < 0) {
            code = error_set(error, BVMM_ERROR_IO, -errno, "eventfd: %s", error_text(errno));
        }
    }
    if (code == 0) {
        job_record_limits(&vm->job, &limits);
        file_limit_begin(&limit, false);
        code = record_create(&limits, &vm->record, error);
        file_limit_end(&limit);
    }
    if (code < 0) {
        bvmm_vm_free(vm);
        return code;
    }
    api_set_process_start(vm, start_ns);
    *ret_vm = vm;
    return 0;
}

void api_set_process_start(struct bvmm_vm *vm, uint64_t start_ns)
{
    vm->start_ns = start_ns;
    vm->record->time_ns[TIME_PROCESS_START] = start_ns;
}

void api_set_guard(struct bvmm_vm *vm, const struct launcher_guard *guard)
{
    vm->guard = guard;
}

void bvmm_vm_cancel(struct bvmm_vm *vm)
{
    static const uint64_t one = 1;
    const int saved_errno = errno;
    ssize_t n = write(vm->cancel_fd, &one, sizeof(one));

    (void)n; /* cannot fail before 2^64 - 2 calls */
    errno = saved_errno;
}

void bvmm_vm_cancel_by(struct bvmm_vm *vm, int signal_number)
{
    int none = 0;

    /* Relaxed: read after the run, which the write to cancel_fd goes before. */
    (void)__atomic_compare_exchange_n(&vm->cancel_signal, &none, signal_number, false,
                                      __ATOMIC_RELAXED, __ATOMIC_RELAXED);
    bvmm_vm_cancel(vm);
}

void bvmm_vm_set_progress(struct bvmm_vm *vm, bvmm_progress_fn progress, void *context,
                          unsigned interval_ms)
{
    vm->progress = progress;
    vm->progress_context = context;
    vm->interval_ms = interval_ms;
}

void bvmm_vm_free(struct bvmm_vm *vm)
{
    if (vm == NULL) {
        return;
    }
    if (vm->cancel_fd >= 0) {
        (void)close(vm->cancel_fd);
    }
    launcher_bury(vm->undead_fd);
    record_destroy(vm->record);
    job_fini(&vm->job);
    free(vm);
}

static void fill_result(const struct job *job, const struct record *record,
                        const struct bvmm_timings *timings, struct bvmm_result *result)
{
    const struct run_outcome *outcome = &record->outcome;

    result->status = run_status_name((enum run_status)outcome->status);
    result->error_kind = (enum bvmm_error_kind)outcome->error_kind;
    result->error_message = outcome->error_message;
    result->timeout_secs = outcome->error_kind == BVMM_ERROR_TIMEOUT ? job->timeout_secs : 0;
    result->has_exit_code = outcome->has_exit_code != 0;
    result->exit_code = outcome->exit_code;
    result->term_signal = outcome->term_signal;
    result->has_command_guest_ns = timings->command_guest.known;
    result->command_guest_ns = timings->command_guest.ns;
}

/* The record, and where the report is to go, move from the VM to the report. */
static int report_from(struct bvmm_vm *vm, struct bvmm_report **ret_report,
                       struct bvmm_error *error)
{
    struct bvmm_report *report = calloc(1, sizeof(*report));
    struct file_limit limit;
    int code = 0;

    if (report == NULL) {
        return no_memory(error);
    }
    report->guarded = vm->guard != NULL;
    file_limit_begin(&limit, report->guarded);
    /* Large outputs become files. */
    code = report_render_view(&vm->job, vm->record, &report->root, &report->view, error);
    file_limit_end(&limit);
    if (code < 0) {
        free(report);
        return code;
    }
    report->record = vm->record;
    report->path = vm->job.report_path;
    report->dir_fd = vm->job.report_dir_fd;
    vm->record = NULL;
    vm->job.report_path = NULL;
    vm->job.report_dir_fd = -1;
    fill_result(&vm->job, report->record, &report->view.timings, &report->result);
    *ret_report = report;
    return 0;
}

/* The VM process lives: nothing is taken from the record but what has a text whatever it is. */
static void tick(void *context, const struct record *record)
{
    const struct bvmm_vm *vm = context;
    /* Acquire; pairs with the supervisor's release store when a phase begins. */
    const uint32_t phase = __atomic_load_n(&record->phase, __ATOMIC_ACQUIRE);
    const struct bvmm_progress progress = {
        .phase = launcher_phase_text(phase),
        .elapsed_ns = clock_monotonic_ns() - vm->start_ns,
        .timeout_secs = vm->job.timeout_secs,
    };

    vm->progress(vm->progress_context, &progress);
}

/* Make of "image" what the machine takes. -ECANCELED: no error, and no run. */
static int take_image(struct bvmm_vm *vm, struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    int code = 0;

    if (vm->job.image == NULL || vm->job.rootfs.path != NULL) {
        return 0;
    }
    code = job_take_image(&vm->job, vm->cancel_fd, &problems);
    if (code == 0) {
        code = job_open_taken_image(&vm->job, &problems);
    }
    if (code < 0 && code != -ECANCELED && error != NULL) {
        job_problems_to_error(&problems, error);
    }
    return code;
}

int bvmm_vm_run(struct bvmm_vm *vm, struct bvmm_report **ret_report, struct bvmm_error *error)
{
    const struct launcher_observer observer = {
        .tick = vm->progress != NULL ? tick : NULL,
        .ctx = vm,
        .interval_ms = vm->interval_ms,
    };
    int code = 0;

    if (vm->started) {
        return error_set(error, BVMM_ERROR_JOB, -EBUSY,
                         "this VM was run before: make a new one for each run");
    }
    vm->started = true;
    code = take_image(vm, error);
    vm->record->time_ns[TIME_JOB_READY] = clock_monotonic_ns();
    if (code == -ECANCELED) {
        vm->record->outcome.status = RUN_CANCELLED;
    } else if (code == 0) {
        code = launcher_run(&vm->job, vm->record, &observer, vm->guard, vm->cancel_fd,
                            &vm->undead_fd, error);
    }
    if (code < 0 && code != -ECANCELED) {
        return code;
    }
    if (vm->record->outcome.status == RUN_CANCELLED) {
        vm->record->outcome.cancel_signal = __atomic_load_n(&vm->cancel_signal, __ATOMIC_RELAXED);
    }
    return report_from(vm, ret_report, error);
}

int bvmm_vm_failure_report(struct bvmm_vm *vm, const struct bvmm_error *why,
                           struct bvmm_report **ret_report, struct bvmm_error *error)
{
    struct run_outcome *outcome = NULL;

    if (!vm->started || vm->record == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL,
                         "there is no failed run to report: call bvmm_vm_run() first");
    }
    outcome = &vm->record->outcome;
    if (outcome->status == RUN_NONE) {
        outcome->status = RUN_VM_ERROR;
        outcome->error_kind = why->kind;
        (void)snprintf(outcome->error_message, sizeof(outcome->error_message), "%s", why->message);
    }
    return report_from(vm, ret_report, error);
}

int bvmm_run(const struct bvmm_config *config, struct bvmm_report **ret_report,
             struct bvmm_error *error)
{
    struct bvmm_vm *vm = NULL;
    int code = bvmm_vm_new(config, &vm, error);

    if (code == 0) {
        code = bvmm_vm_run(vm, ret_report, error);
    }
    bvmm_vm_free(vm);
    return code;
}

/* ---- Report ---------------------------------------------------------------------------------- */

const struct bvmm_result *bvmm_report_result(const struct bvmm_report *report)
{
    return &report->result;
}

const struct record *api_report_record(const struct bvmm_report *report)
{
    return report->record;
}

const struct bvmm_content *bvmm_report_content(const struct bvmm_report *report,
                                               enum bvmm_stream stream)
{
    return &report->view.streams[stream == BVMM_STDERR ? BVMM_STDERR : BVMM_STDOUT];
}

size_t bvmm_report_output_file_count(const struct bvmm_report *report)
{
    return report->view.file_count;
}

const struct bvmm_content *bvmm_report_output_file(const struct bvmm_report *report, size_t index)
{
    return index < report->view.file_count ? &report->view.files[index] : NULL;
}

size_t bvmm_report_missing_file_count(const struct bvmm_report *report)
{
    return report->view.missing_count;
}

const struct bvmm_missing_file *bvmm_report_missing_file(const struct bvmm_report *report,
                                                         size_t index)
{
    return index < report->view.missing_count ? &report->view.missing[index] : NULL;
}

const struct bvmm_console *bvmm_report_console(const struct bvmm_report *report)
{
    return &report->view.console;
}

const struct bvmm_timings *bvmm_report_timings(const struct bvmm_report *report)
{
    return &report->view.timings;
}

const char *bvmm_report_json(struct bvmm_report *report, size_t *ret_bytes)
{
    if (report->json == NULL) {
        report->json = json_dumps(report->root, JSON_INDENT(2));
    }
    if (ret_bytes != NULL) {
        *ret_bytes = report->json != NULL ? strlen(report->json) : 0;
    }
    return report->json;
}

const uint8_t *bvmm_report_stream(const struct bvmm_report *report, enum bvmm_stream stream,
                                  size_t *ret_bytes)
{
    const enum stream_id id = stream == BVMM_STDERR ? STREAM_STDERR : STREAM_STDOUT;

    *ret_bytes = (size_t)report->record->streams[id].length_bytes;
    return record_stream_bytes(report->record, id);
}

const char *bvmm_report_path(const struct bvmm_report *report)
{
    return report->path;
}

int bvmm_report_write(const struct bvmm_report *report, enum bvmm_place *ret_place,
                      struct bvmm_error *error)
{
    static const enum bvmm_place places[] = {
        [REPORT_NOWHERE] = BVMM_PLACE_NOWHERE,
        [REPORT_FILE] = BVMM_PLACE_FILE,
        [REPORT_STDOUT] = BVMM_PLACE_STDOUT,
        [REPORT_STDOUT_INSTEAD] = BVMM_PLACE_STDOUT_INSTEAD,
    };
    enum report_place place = REPORT_NOWHERE;
    struct file_limit limit;
    int code = 0;

    file_limit_begin(&limit, report->guarded);
    code = report_put(report->root, report->path, report->dir_fd, &place, error);
    file_limit_end(&limit);
    if (ret_place != NULL) {
        *ret_place = places[place];
    }
    return code;
}

void bvmm_report_free(struct bvmm_report *report)
{
    if (report != NULL) {
        if (report->dir_fd >= 0) {
            (void)close(report->dir_fd);
        }
        report_view_fini(&report->view);
        record_destroy(report->record);
        json_decref(report->root);
        free(report->path);
        free(report->json);
        free(report);
    }
}

/* ---- The bundled kernel ---------------------------------------------------------------------- */

int bvmm_kernel_bytes(const uint8_t **ret_kernel, size_t *ret_bytes, struct bvmm_error *error)
{
    size_t bytes = 0;
    void *kernel = MAP_FAILED;
    int fd = -1;
    int code = bundled_kernel_open(&fd, &bytes, error);

    if (code < 0) {
        return code;
    }
    kernel = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    code = kernel == MAP_FAILED ? error_set(error, BVMM_ERROR_KERNEL_LOAD, -errno,
                                            "cannot map the bundled kernel: %s", error_text(errno))
                                : 0;
    (void)close(fd);
    if (code == 0) {
        *ret_kernel = kernel;
        *ret_bytes = bytes;
    }
    return code;
}

void bvmm_kernel_release(const uint8_t *kernel, size_t bytes)
{
    if (kernel != NULL) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): ours, though const for the caller */
        (void)munmap((void *)(uintptr_t)kernel, bytes);
    }
}

int bvmm_write_kernel_to_file(const char *path, struct bvmm_error *error)
{
    const uint8_t *kernel = NULL;
    struct file_limit limit;
    size_t bytes = 0;
    int code = bvmm_kernel_bytes(&kernel, &bytes, error);

    if (code < 0) {
        return code;
    }
    file_limit_begin(&limit, false);
    code = fileio_replace(path, kernel, bytes);
    file_limit_end(&limit);
    bvmm_kernel_release(kernel, bytes);
    return code < 0
               ? error_set(error, BVMM_ERROR_IO, code, "cannot write the kernel to '%.600s': %s",
                           path, fileio_strerror(code))
               : 0;
}
