/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * run-command.c: run a command in a VM, from a C program.
 *
 *     cc run-command.c $(pkg-config --cflags --libs bvmm) -o run-command
 *     ./run-command image.squashfs COMMAND [ARGUMENT]...
 *
 * Prints the command's output, and exits with its exit code; 125 if there is none, or if something of the
 * output is missing.
 */
#include <bvmm/bvmm.h>
#include <stdio.h>

/* Is all of it here? */
static bool print_stream(const struct bvmm_report *report, enum bvmm_stream stream, FILE *to)
{
    const struct bvmm_content *content = bvmm_report_content(report, stream);

    (void)fwrite(content->data, 1, content->bytes, to);
    return content->truncated == BVMM_NO && content->digest_ok == BVMM_YES;
}

static int print_report(const struct bvmm_report *report)
{
    const struct bvmm_result *result = bvmm_report_result(report);
    bool is_whole = print_stream(report, BVMM_STDOUT, stdout);

    is_whole = print_stream(report, BVMM_STDERR, stderr) && is_whole;
    if (result->error_kind != BVMM_ERROR_NONE) {
        (void)fprintf(stderr, "run-command: %s: %s\n", result->status, result->error_message);
    }
    if (result->has_exit_code && !is_whole) {
        (void)fprintf(stderr, "run-command: some of the output is missing\n");
        return 125;
    }
    return result->has_exit_code ? result->exit_code : 125;
}

static int run(struct bvmm_config *config, const char *image, const char *const *command,
               struct bvmm_error *error)
{
    struct bvmm_report *report = NULL;
    int status = 125;

    if (bvmm_config_set_string(config, "rootfs_path", image, error) == 0 &&
        bvmm_config_set_strings(config, "command", command, error) == 0 &&
        bvmm_config_set_string(config, "kernel_cmdline_append", "quiet", error) == 0 &&
        bvmm_config_set_uint(config, "timeout_secs", 120, error) == 0 &&
        bvmm_run(config, &report, error) == 0) {
        status = print_report(report);
    } else {
        (void)fprintf(stderr, "run-command: %s: %s\n", bvmm_error_kind_name(error->kind),
                      error->message);
    }
    bvmm_report_free(report);
    return status;
}

int main(int argc, char **argv)
{
    struct bvmm_config *config = NULL;
    struct bvmm_error error;
    int status = 125;

    if (argc < 3) {
        (void)fprintf(stderr, "usage: %s IMAGE COMMAND [ARGUMENT]...\n", argv[0]);
        return 2;
    }
    if (bvmm_config_new(&config, &error) == 0) {
        status = run(config, argv[1], (const char *const *)&argv[2], &error);
    } else {
        (void)fprintf(stderr, "run-command: %s\n", error.message);
    }
    bvmm_config_free(config);
    return status;
}
