/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * closed_streams.c: a program that has closed standard streams embeds the library.
 *
 * usage: closed_streams JOB FD...    FD: what is closed before anything else
 * Exit status: 0, and the report is where the job says; or 1.
 */
#include <stdlib.h>
#include <unistd.h>

#include "bvmm/bvmm.h"

int main(int argc, char **argv)
{
    struct bvmm_config *config = NULL;
    struct bvmm_report *report = NULL;
    struct bvmm_error error;
    int code = argc < 2 ? -1 : 0;

    for (int i = 2; i < argc; i++) {
        (void)close(atoi(argv[i]));
    }
    if (code == 0) {
        code = bvmm_config_load(argv[1], &config, &error);
    }
    if (code == 0) {
        code = bvmm_run(config, &report, &error);
    }
    if (code == 0) {
        code = bvmm_report_write(report, NULL, &error);
    }
    bvmm_report_free(report);
    bvmm_config_free(config);
    return code < 0 ? 1 : 0;
}
