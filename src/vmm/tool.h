/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * tool.h: finds and runs a program that comes with bvmm, and takes what it prints.
 *
 * Thread: launcher, before the VM process. Blocks until the program has ended. No shell is
 * involved.
 */
#ifndef BVMM_VMM_TOOL_H
#define BVMM_VMM_TOOL_H

#include "base/base.h"

#include <limits.h>

#define TOOL_GRACE_NS (2 * NS_PER_SECOND)
#define TOOL_SAID_BYTES 480 /* what fits into an error message */

struct tool_result {
    char *output; /* standard output as one string; to be released by free() */
    size_t output_bytes;
    int exit_code;              /* -1: ended by a signal */
    int term_signal;            /* 0: none */
    char said[TOOL_SAID_BYTES]; /* the end of standard error, its lines joined by "; " */
};

/*
 * tool_find - the path of a program of bvmm's.
 * @variable: environment variable that names it; if it is set, nothing else is looked at.
 * @name: looked for beside the running executable, in the directory that bvmm is installed to, and
 * in PATH. Return: 0, or -ENOENT.
 */
int tool_find(const char *variable, const char *name, char ret_path[PATH_MAX]) must_check;

/*
 * tool_run - run a program to its end: standard input is empty, what it prints is kept. All other
 * descriptors of the caller are closed in it.
 * @argv: ends with NULL.
 * @cancel_fd: when it becomes readable, the tool is told to end by SIGTERM, and killed if it has not
 * TOOL_GRACE_NS later. Nothing is read from it. -1: none.
 * @ret_result: to be released by tool_result_fini(), on failure too.
 * Return: 0 if it ran, however it ended; -ECANCELED: it was told to end, or failed meanwhile (a
 * terminal tells it too); -EFBIG: it printed more than a tool should; another -errno: it could not be
 * started.
 */
int tool_run(const char *path, char *const argv[], int cancel_fd, struct tool_result *ret_result)
    must_check;

void tool_result_fini(struct tool_result *result);

#endif
