/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * api.c: the public library (include/bvmm/bvmm.h) on top of job, launcher and report.
 *
 * A configuration is kept as JSON, and checked as a job file is: there is one place that knows the keys.
 * Threads: see bvmm.h. Blocks: bvmm_vm_run().
 */
#include "bvmm/bvmm.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/record.h"
#include "vmm/bundled_kernel.h"
#include "vmm/fileio.h"
#include "vmm/job.h"
#include "vmm/launcher.h"
#include "vmm/report.h"

struct bvmm_config {
    json_t *keys;
    char *source;   /* for messages */
    char *base_dir; /* where relative paths start; NULL: the working directory */
};

struct bvmm_vm {
    struct job job;
    struct record *record; /* moves to the report */
    int cancel_fd;
};

struct bvmm_report {
    struct record *record;
    char *json;
    struct bvmm_result result;
};

const char *bvmm_version(void)
{
    return BVMM_VERSION;
}

static int no_memory(struct bvmm_error *error)
{
    return error_set(error, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
}

/* ---- Configuration ---------------------------------------------------------------------------- */

/* Takes the reference to keys. */
static int config_from(json_t *keys, const char *source, struct bvmm_config **ret_config,
                       struct bvmm_error *error)
{
    struct bvmm_config *config = calloc(1, sizeof(*config));

    if (config != NULL) {
        config->keys = keys;
        config->source = strdup(source);
    }
    if (config == NULL || keys == NULL || config->source == NULL) {
        if (config == NULL) {
            json_decref(keys);
        }
        bvmm_config_free(config);
        return no_memory(error);
    }
    *ret_config = config;
    return 0;
}

int bvmm_config_new(struct bvmm_config **ret_config, struct bvmm_error *error)
{
    return config_from(json_object(), "the configuration", ret_config, error);
}

/* Takes the reference to keys, which may be NULL: then json_error says why. */
static int config_from_json(json_t *keys, const json_error_t *json_error, const char *source,
                            struct bvmm_config **ret_config, struct bvmm_error *error)
{
    if (keys == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL, "%s: line %d, column %d: %s", source,
                         json_error->line, json_error->column, json_error->text);
    }
    if (!json_is_object(keys)) {
        json_decref(keys);
        return error_set(error, BVMM_ERROR_JOB, -EINVAL, "%s: expected a JSON object", source);
    }
    return config_from(keys, source, ret_config, error);
}

int bvmm_config_parse(const char *json, size_t bytes, struct bvmm_config **ret_config,
                      struct bvmm_error *error)
{
    json_error_t json_error;
    json_t *keys = json_loadb(json, bytes, JSON_REJECT_DUPLICATES, &json_error);

    return config_from_json(keys, &json_error, "the configuration", ret_config, error);
}

int bvmm_config_load(const char *path, struct bvmm_config **ret_config, struct bvmm_error *error)
{
    const bool from_stdin = strcmp(path, "-") == 0;
    const char *source = from_stdin ? "standard input" : path;
    const char *slash = from_stdin ? NULL : strrchr(path, '/');
    json_error_t json_error;
    json_t *keys = NULL;
    int code = 0;

    if (!from_stdin && access(path, R_OK) < 0) {
        return error_set(error, BVMM_ERROR_JOB, -errno, "%s: cannot read the job: %s", path,
                         strerror(errno));
    }
    keys = from_stdin ? json_loadfd(STDIN_FILENO, JSON_REJECT_DUPLICATES, &json_error)
                      : json_load_file(path, JSON_REJECT_DUPLICATES, &json_error);
    code = config_from_json(keys, &json_error, source, ret_config, error);
    if (code == 0 && slash != NULL) {
        (*ret_config)->base_dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
        if ((*ret_config)->base_dir == NULL) {
            bvmm_config_free(*ret_config);
            *ret_config = NULL;
            return no_memory(error);
        }
    }
    return code;
}

void bvmm_config_free(struct bvmm_config *config)
{
    if (config != NULL) {
        json_decref(config->keys);
        free(config->source);
        free(config->base_dir);
        free(config);
    }
}

/* The object that holds the last part of a dotted key; made if it is not there. NULL: no memory. */
static json_t *config_object(json_t *keys, const char **key)
{
    const char *dot = strchr(*key, '.');
    char name[64];
    json_t *inner = NULL;

    if (dot == NULL || (size_t)(dot - *key) >= sizeof(name)) {
        return keys;
    }
    memcpy(name, *key, (size_t)(dot - *key));
    name[dot - *key] = '\0';
    inner = json_object_get(keys, name);
    if (!json_is_object(inner)) {
        inner = json_object();
        if (json_object_set_new(keys, name, inner) < 0) {
            return NULL;
        }
    }
    *key = dot + 1;
    return inner;
}

/* Takes the reference to value; NULL: it could not be made. */
static int config_set(struct bvmm_config *config, const char *key, json_t *value,
                      struct bvmm_error *error)
{
    const char *name = key;
    json_t *object = NULL;

    if (value == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL,
                         "the value of \"%s\" is no UTF-8 text, or there is no memory for it", key);
    }
    object = config_object(config->keys, &name);
    if (object == NULL) {
        json_decref(value);
        return no_memory(error);
    }
    return json_object_set_new(object, name, value) < 0 ? no_memory(error) : 0;
}

int bvmm_config_set_string(struct bvmm_config *config, const char *key, const char *value,
                           struct bvmm_error *error)
{
    return config_set(config, key, json_string(value), error);
}

int bvmm_config_set_uint(struct bvmm_config *config, const char *key, uint64_t value,
                         struct bvmm_error *error)
{
    if (value > INT64_MAX) {
        return error_set(error, BVMM_ERROR_JOB, -ERANGE, "the value of \"%s\" is above 2^63 - 1",
                         key);
    }
    return config_set(config, key, json_integer((json_int_t)value), error);
}

int bvmm_config_set_bool(struct bvmm_config *config, const char *key, bool value,
                         struct bvmm_error *error)
{
    return config_set(config, key, json_boolean(value), error);
}

int bvmm_config_set_strings(struct bvmm_config *config, const char *key, const char *const *values,
                            struct bvmm_error *error)
{
    json_t *array = json_array();

    for (; array != NULL && *values != NULL; values++) {
        if (json_array_append_new(array, json_string(*values)) < 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return config_set(config, key, array, error);
}

int bvmm_config_set_json(struct bvmm_config *config, const char *key, const char *json,
                         struct bvmm_error *error)
{
    json_error_t json_error;
    json_t *value = json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json_error);

    if (value == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL, "the value of \"%s\": column %d: %s", key,
                         json_error.column, json_error.text);
    }
    return config_set(config, key, value, error);
}

int bvmm_config_unset(struct bvmm_config *config, const char *key, struct bvmm_error *error)
{
    const char *name = key;
    json_t *object = config_object(config->keys, &name);

    if (object == NULL) {
        return no_memory(error);
    }
    (void)json_object_del(object, name); /* it may not have been there */
    return 0;
}

int bvmm_config_json(const struct bvmm_config *config, char **ret_json, struct bvmm_error *error)
{
    char *json = json_dumps(config->keys, JSON_INDENT(2));

    if (json == NULL) {
        return no_memory(error);
    }
    *ret_json = json;
    return 0;
}

/* ---- Running ---------------------------------------------------------------------------------- */

static int problems_to_code(const struct job_problems *problems, int code, struct bvmm_error *error)
{
    if (problems->count > 0 && error != NULL) {
        job_problems_to_error(problems, error);
    }
    return code;
}

/* From JSON to a job with open files. On failure too, job_fini() is the caller's. */
static int job_from_config(const struct bvmm_config *config, struct job *job,
                           struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    char *json = json_dumps(config->keys, JSON_COMPACT);
    int code = job_init_defaults(job);

    if (code == 0) {
        free(job->source);
        job->source = strdup(config->source);
        job->base_dir = config->base_dir != NULL ? strdup(config->base_dir) : NULL;
    }
    if (json == NULL || code < 0 || job->source == NULL) {
        free(json);
        return no_memory(error);
    }
    code = job_decode(job, json, strlen(json), &problems);
    free(json);
    if (job_check(job, &problems) < 0 || code < 0) {
        return problems_to_code(&problems, -EINVAL, error);
    }
    return problems_to_code(&problems, job_open_files(job, &problems), error);
}

int bvmm_vm_new(const struct bvmm_config *config, struct bvmm_vm **ret_vm, struct bvmm_error *error)
{
    struct bvmm_vm *vm = calloc(1, sizeof(*vm));
    const uint64_t start_ns = clock_monotonic_ns();
    struct record_limits limits;
    int code = 0;

    if (vm == NULL) {
        return no_memory(error);
    }
    vm->cancel_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    code = vm->cancel_fd < 0
               ? error_set(error, BVMM_ERROR_IO, -errno, "eventfd: %s", strerror(errno))
               : 0;
    if (code == 0) {
        code = job_from_config(config, &vm->job, error);
    }
    if (code == 0) {
        job_record_limits(&vm->job, &limits);
        code = record_create(&limits, &vm->record, error);
    }
    if (code < 0) {
        bvmm_vm_free(vm);
        return code;
    }
    vm->record->time_ns[TIME_PROCESS_START] = start_ns;
    *ret_vm = vm;
    return 0;
}

void bvmm_vm_cancel(struct bvmm_vm *vm)
{
    static const uint64_t one = 1;
    const int saved_errno = errno;
    ssize_t n = write(vm->cancel_fd, &one, sizeof(one));

    (void)n; /* cannot fail before 2^64 - 2 calls */
    errno = saved_errno;
}

void bvmm_vm_free(struct bvmm_vm *vm)
{
    if (vm == NULL) {
        return;
    }
    if (vm->cancel_fd >= 0) {
        (void)close(vm->cancel_fd);
    }
    if (vm->record != NULL) {
        record_destroy(vm->record);
    }
    job_fini(&vm->job);
    free(vm);
}

static void fill_result(const struct job *job, const struct record *record,
                        struct bvmm_result *result)
{
    const struct run_outcome *outcome = &record->outcome;
    const uint64_t start_ns = record->guest_time_ns[GUEST_TIME_COMMAND_START];
    const uint64_t end_ns = record->guest_time_ns[GUEST_TIME_COMMAND_END];

    result->status = run_status_name((enum run_status)outcome->status);
    result->error_kind = (enum bvmm_error_kind)outcome->error_kind;
    result->error_message = outcome->error_message;
    result->timeout_secs =
        outcome->error_kind == BVMM_ERROR_TIMEOUT ? job->timeout_secs : 0;
    result->has_exit_code = outcome->has_exit_code != 0;
    result->exit_code = outcome->exit_code;
    result->term_signal = outcome->term_signal;
    result->command_guest_ns = start_ns != 0 && end_ns > start_ns ? end_ns - start_ns : 0;
}

/* Takes the record on success. */
static int report_from(const struct job *job, struct record *record,
                       struct bvmm_report **ret_report, struct bvmm_error *error)
{
    struct bvmm_report *report = calloc(1, sizeof(*report));
    json_t *json = NULL;
    int code = 0;

    if (report == NULL) {
        return no_memory(error);
    }
    code = report_render(job, record, &json, error);
    if (code == 0) {
        report->json = json_dumps(json, JSON_INDENT(2));
        json_decref(json);
        code = report->json == NULL ? no_memory(error) : 0;
    }
    if (code < 0) {
        free(report);
        return code;
    }
    report->record = record;
    fill_result(job, record, &report->result);
    *ret_report = report;
    return 0;
}

int bvmm_vm_run(struct bvmm_vm *vm, struct bvmm_report **ret_report, struct bvmm_error *error)
{
    int code = 0;

    if (vm->record == NULL || vm->record->time_ns[TIME_JOB_READY] != 0) {
        return error_set(error, BVMM_ERROR_JOB, -EBUSY,
                         "this VM was run before: make a new one for each run");
    }
    vm->record->time_ns[TIME_JOB_READY] = clock_monotonic_ns();
    code = launcher_run(&vm->job, vm->record, NULL, vm->cancel_fd, error);
    if (code == 0) {
        code = report_from(&vm->job, vm->record, ret_report, error);
    }
    if (code == 0) {
        vm->record = NULL; /* it is the report's */
    }
    return code;
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

/* ---- Report ----------------------------------------------------------------------------------- */

const struct bvmm_result *bvmm_report_result(const struct bvmm_report *report)
{
    return &report->result;
}

const char *bvmm_report_json(const struct bvmm_report *report, size_t *ret_bytes)
{
    if (ret_bytes != NULL) {
        *ret_bytes = strlen(report->json);
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

void bvmm_report_free(struct bvmm_report *report)
{
    if (report != NULL) {
        record_destroy(report->record);
        free(report->json);
        free(report);
    }
}

/* ---- The bundled kernel ----------------------------------------------------------------------- */

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
                                            "cannot map the bundled kernel: %s", strerror(errno))
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
        (void)munmap((void *)(uintptr_t)kernel, bytes);
    }
}

int bvmm_write_kernel_to_file(const char *path, struct bvmm_error *error)
{
    const uint8_t *kernel = NULL;
    size_t bytes = 0;
    int code = bvmm_kernel_bytes(&kernel, &bytes, error);

    if (code < 0) {
        return code;
    }
    code = fileio_replace(path, kernel, bytes);
    bvmm_kernel_release(kernel, bytes);
    return code < 0 ? error_set(error, BVMM_ERROR_IO, code, "cannot write the kernel to '%.600s': %s",
                                path, fileio_strerror(code))
                    : 0;
}
