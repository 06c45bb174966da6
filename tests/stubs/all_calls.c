/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * all_calls.c: every function of the public library, on a platform where it can do nothing: those that can
 * fail do so with kind and sentence and set no output; the others bear NULL.
 */
#include <bvmm/bvmm.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int calls;

static void check(int good, const char *what)
{
    calls++;
    if (!good) {
        printf("all_calls: %s\n", what);
        exit(1);
    }
}

static int refused(int code, struct bvmm_error *error)
{
    const int good = code < 0 && error->kind == BVMM_ERROR_UNSUPPORTED_PLATFORM &&
                     strstr(error->message, "needs Linux") != NULL &&
                     strcmp(bvmm_error_kind_name(error->kind), "UnsupportedPlatform") == 0;

    memset(error, 0, sizeof(*error));
    return good;
}

#define REFUSED(call) check(refused((call), &error), #call)

static void configurations(void)
{
    static const char *const words[] = {"true", NULL};
    struct bvmm_config *config = NULL;
    struct bvmm_error error;
    char *json = NULL;

    REFUSED(bvmm_config_new(&config, &error));
    REFUSED(bvmm_config_load("-", &config, &error));
    REFUSED(bvmm_config_parse("{}", 2, &config, &error));
    REFUSED(bvmm_config_set_string(config, "name", "x", &error));
    REFUSED(bvmm_config_set_uint(config, "vcpus", 1, &error));
    REFUSED(bvmm_config_set_bool(config, "vsock", true, &error));
    REFUSED(bvmm_config_set_strings(config, "command", words, &error));
    REFUSED(bvmm_config_set_json(config, "drives", "[]", &error));
    REFUSED(bvmm_config_unset(config, "name", &error));
    REFUSED(bvmm_config_json(config, &json, &error));
    REFUSED(bvmm_config_check(config, true, NULL, NULL, &error));
    check(bvmm_config_new(&config, NULL) < 0, "bvmm_config_new without an error");
    check(config == NULL && json == NULL, "an output of a failed call was set");
    bvmm_config_free(config);
}

static void runs(void)
{
    struct bvmm_report *report = NULL;
    struct bvmm_vm *vm = NULL;
    struct bvmm_error error;
    enum bvmm_place place = BVMM_PLACE_FILE;
    size_t bytes = 1;

    REFUSED(bvmm_vm_new(NULL, &vm, &error));
    bvmm_vm_set_progress(vm, NULL, NULL, 0);
    REFUSED(bvmm_vm_run(vm, &report, &error));
    bvmm_vm_cancel(vm);
    bvmm_vm_cancel_by(vm, 2);
    REFUSED(bvmm_vm_failure_report(vm, &error, &report, &error));
    REFUSED(bvmm_run(NULL, &report, &error));
    check(vm == NULL && report == NULL, "an output of a failed call was set");
    bvmm_vm_free(vm);
    check(bvmm_report_result(report) == NULL, "bvmm_report_result");
    check(bvmm_report_content(report, BVMM_STDOUT) == NULL, "bvmm_report_content");
    check(bvmm_report_output_file_count(report) == 0, "bvmm_report_output_file_count");
    check(bvmm_report_output_file(report, 0) == NULL, "bvmm_report_output_file");
    check(bvmm_report_missing_file_count(report) == 0, "bvmm_report_missing_file_count");
    check(bvmm_report_missing_file(report, 0) == NULL, "bvmm_report_missing_file");
    check(bvmm_report_console(report) == NULL, "bvmm_report_console");
    check(bvmm_report_timings(report) == NULL, "bvmm_report_timings");
    check(bvmm_report_json(report, &bytes) == NULL && bytes == 0, "bvmm_report_json");
    bytes = 1;
    check(bvmm_report_stream(report, BVMM_STDERR, &bytes) == NULL && bytes == 0,
          "bvmm_report_stream");
    check(bvmm_report_path(report) == NULL, "bvmm_report_path");
    REFUSED(bvmm_report_write(report, &place, &error));
    check(place == BVMM_PLACE_NOWHERE, "bvmm_report_write says where it is not");
    bvmm_report_free(report);
}

static void kernel(void)
{
    const uint8_t *bytes_of_kernel = NULL;
    struct bvmm_error error;
    size_t bytes = 0;

    REFUSED(bvmm_kernel_bytes(&bytes_of_kernel, &bytes, &error));
    REFUSED(bvmm_write_kernel_to_file("kernel", &error));
    check(bytes_of_kernel == NULL && bytes == 0, "an output of a failed call was set");
    bvmm_kernel_release(NULL, 0);
}

int main(void)
{
    check(bvmm_version()[0] != '\0', "bvmm_version");
    configurations();
    runs();
    kernel();
    printf("all_calls: %d checks passed\n", calls);
    return 0;
}
