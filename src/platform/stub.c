/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * stub.c: the public library where there is no KVM: every call that can fail does, with the kind
 * UnsupportedPlatform, and sets no output. Nothing here can have been made, so what frees and asks gets
 * NULL and gives nothing.
 *
 * Thread: any. Nothing blocks.
 */
#include <bvmm/bvmm.h>

#include <errno.h>

#include "base/error.h"

#if defined(_WIN32)
#define PLATFORM "Windows"
#elif defined(__APPLE__)
#define PLATFORM "macOS"
#else
#define PLATFORM "a platform without KVM"
#endif

const char *error_hint(int code)
{
    (void)code;
    return NULL; /* nothing is ever opened here */
}

static int unsupported(struct bvmm_error *error)
{
    return error_set(
        error, BVMM_ERROR_UNSUPPORTED_PLATFORM, -ENOSYS,
        "bvmm needs Linux and its KVM, and this is %s: run it on a Linux machine with "
        "/dev/kvm (x86_64 or aarch64), or in a Linux virtual machine that offers nested "
        "virtualization",
        PLATFORM);
}

const char *bvmm_version(void)
{
    return BVMM_VERSION;
}

int bvmm_config_new(struct bvmm_config **ret_config, struct bvmm_error *error)
{
    (void)ret_config;
    return unsupported(error);
}

int bvmm_config_load(const char *path, struct bvmm_config **ret_config, struct bvmm_error *error)
{
    (void)path;
    (void)ret_config;
    return unsupported(error);
}

int bvmm_config_parse(const char *json, size_t bytes, struct bvmm_config **ret_config,
                      struct bvmm_error *error)
{
    (void)json;
    (void)bytes;
    (void)ret_config;
    return unsupported(error);
}

void bvmm_config_free(struct bvmm_config *config)
{
    (void)config;
}

int bvmm_config_set_string(struct bvmm_config *config, const char *key, const char *value,
                           struct bvmm_error *error)
{
    (void)config;
    (void)key;
    (void)value;
    return unsupported(error);
}

int bvmm_config_set_uint(struct bvmm_config *config, const char *key, uint64_t value,
                         struct bvmm_error *error)
{
    (void)config;
    (void)key;
    (void)value;
    return unsupported(error);
}

int bvmm_config_set_bool(struct bvmm_config *config, const char *key, bool value,
                         struct bvmm_error *error)
{
    (void)config;
    (void)key;
    (void)value;
    return unsupported(error);
}

int bvmm_config_set_strings(struct bvmm_config *config, const char *key, const char *const *values,
                            struct bvmm_error *error)
{
    (void)config;
    (void)key;
    (void)values;
    return unsupported(error);
}

int bvmm_config_set_json(struct bvmm_config *config, const char *key, const char *json,
                         struct bvmm_error *error)
{
    (void)config;
    (void)key;
    (void)json;
    return unsupported(error);
}

int bvmm_config_unset(struct bvmm_config *config, const char *key, struct bvmm_error *error)
{
    (void)config;
    (void)key;
    return unsupported(error);
}

int bvmm_config_json(const struct bvmm_config *config, char **ret_json, struct bvmm_error *error)
{
    (void)config;
    (void)ret_json;
    return unsupported(error);
}

int bvmm_config_check(const struct bvmm_config *config, bool with_files, bvmm_problem_fn problem,
                      void *context, struct bvmm_error *error)
{
    (void)config;
    (void)with_files;
    (void)problem;
    (void)context;
    return unsupported(error);
}

int bvmm_vm_new(const struct bvmm_config *config, struct bvmm_vm **ret_vm, struct bvmm_error *error)
{
    (void)config;
    (void)ret_vm;
    return unsupported(error);
}

void bvmm_vm_set_progress(struct bvmm_vm *vm, bvmm_progress_fn progress, void *context,
                          unsigned interval_ms)
{
    (void)vm;
    (void)progress;
    (void)context;
    (void)interval_ms;
}

int bvmm_vm_run(struct bvmm_vm *vm, struct bvmm_report **ret_report, struct bvmm_error *error)
{
    (void)vm;
    (void)ret_report;
    return unsupported(error);
}

void bvmm_vm_cancel(struct bvmm_vm *vm)
{
    (void)vm;
}

void bvmm_vm_cancel_by(struct bvmm_vm *vm, int signal_number)
{
    (void)vm;
    (void)signal_number;
}

int bvmm_vm_failure_report(struct bvmm_vm *vm, const struct bvmm_error *why,
                           struct bvmm_report **ret_report, struct bvmm_error *error)
{
    (void)vm;
    (void)why;
    (void)ret_report;
    return unsupported(error);
}

void bvmm_vm_free(struct bvmm_vm *vm)
{
    (void)vm;
}

int bvmm_run(const struct bvmm_config *config, struct bvmm_report **ret_report,
             struct bvmm_error *error)
{
    (void)config;
    (void)ret_report;
    return unsupported(error);
}

const struct bvmm_result *bvmm_report_result(const struct bvmm_report *report)
{
    (void)report;
    return NULL;
}

const struct bvmm_content *bvmm_report_content(const struct bvmm_report *report,
                                               enum bvmm_stream stream)
{
    (void)report;
    (void)stream;
    return NULL;
}

size_t bvmm_report_output_file_count(const struct bvmm_report *report)
{
    (void)report;
    return 0;
}

const struct bvmm_content *bvmm_report_output_file(const struct bvmm_report *report, size_t index)
{
    (void)report;
    (void)index;
    return NULL;
}

size_t bvmm_report_missing_file_count(const struct bvmm_report *report)
{
    (void)report;
    return 0;
}

const struct bvmm_missing_file *bvmm_report_missing_file(const struct bvmm_report *report,
                                                         size_t index)
{
    (void)report;
    (void)index;
    return NULL;
}

const struct bvmm_console *bvmm_report_console(const struct bvmm_report *report)
{
    (void)report;
    return NULL;
}

const struct bvmm_timings *bvmm_report_timings(const struct bvmm_report *report)
{
    (void)report;
    return NULL;
}

const char *bvmm_report_json(struct bvmm_report *report, size_t *ret_bytes)
{
    (void)report;
    if (ret_bytes != NULL) {
        *ret_bytes = 0;
    }
    return NULL;
}

const uint8_t *bvmm_report_stream(const struct bvmm_report *report, enum bvmm_stream stream,
                                  size_t *ret_bytes)
{
    (void)report;
    (void)stream;
    if (ret_bytes != NULL) {
        *ret_bytes = 0;
    }
    return NULL;
}

const char *bvmm_report_path(const struct bvmm_report *report)
{
    (void)report;
    return NULL;
}

int bvmm_report_write(const struct bvmm_report *report, enum bvmm_place *ret_place,
                      struct bvmm_error *error)
{
    (void)report;
    if (ret_place != NULL) {
        *ret_place = BVMM_PLACE_NOWHERE; /* as bvmm.h says: whatever is returned */
    }
    return unsupported(error);
}

void bvmm_report_free(struct bvmm_report *report)
{
    (void)report;
}

int bvmm_kernel_bytes(const uint8_t **ret_kernel, size_t *ret_bytes, struct bvmm_error *error)
{
    (void)ret_kernel;
    (void)ret_bytes;
    return unsupported(error);
}

void bvmm_kernel_release(const uint8_t *kernel, size_t bytes)
{
    (void)kernel;
    (void)bytes;
}

int bvmm_write_kernel_to_file(const char *path, struct bvmm_error *error)
{
    (void)path;
    return unsupported(error);
}
