/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli.h: the command line of bvmm: what was asked for, and the exit statuses.
 *
 * Thread: the program's main thread.
 */
#ifndef BVMM_VMM_CLI_H
#define BVMM_VMM_CLI_H

#include "base/base.h"
#include "base/error.h"
#include "base/record.h"

/* The exit statuses of bvmm; docs/bvmm.1 and --help have the same. */
#define EXIT_STATUS_TABLE(X)                                                                       \
    X(OK, 0, "the command ran and returned 0, or the guest shut down by itself")                   \
    X(COMMAND_FAILED, 1, "the command ran and returned another code, or a signal killed it")       \
    X(USAGE, 2, "the command line or the job is wrong; nothing was started")                       \
    X(HOST, 3, "this host cannot run the VM (no KVM, no permission, no hardware)")                 \
    X(VM, 4, "the VM could not be set up, failed, or was killed; or standard output is broken")    \
    X(GUEST, 5, "the guest failed: kernel panic, reset, or its init could not start the command")  \
    X(REPORT, 6, "the report could not be put where it was to go; it is on standard output")       \
    X(TIMEOUT, 124, "the job's deadline passed")                                                   \
    X(CANCELLED, 130, "cancelled by SIGINT, SIGTERM or SIGHUP")

enum exit_status {
#define X(id, number, text) EXIT_STATUS_##id = (number),
    EXIT_STATUS_TABLE(X)
#undef X
};

/* The exit status for a run that ended so. */
enum exit_status cli_run_status(const struct run_outcome *outcome);

enum cli_command {
    CLI_RUN,
    CLI_VALIDATE,
    CLI_SCHEMA,
    CLI_KERNEL,
    CLI_CHECK,
    CLI_SANDBOX,
    CLI_HELP,
    CLI_VERSION,
};

struct cli_options {
    enum cli_command command;
    const char *job_path;    /* run: --json-config; validate: FILE */
    const char *report_path; /* run: --report; NULL: as the job says */
    const char *schema;      /* schema: "job" or "report" */
    const char *write_path;  /* kernel: --write */
    bool info;               /* kernel: --info */
    bool no_files;           /* validate: --no-files */
    bool print;              /* sandbox: --print */
    bool json;               /* sandbox: --json */
    bool verbose;
    bool quiet;
};

/* Return: 0, or -EINVAL with *err filled: what is wrong, and what was expected. */
int cli_parse(int argc, char *const *argv, struct cli_options *ret_options, struct bvmm_error *err)
    must_check;

/* Each runs one command and returns its exit status; errors go to standard error. */
enum exit_status cli_run(const struct cli_options *options, uint64_t process_start_ns);
enum exit_status cli_validate(const struct cli_options *options);
enum exit_status cli_schema(const struct cli_options *options);
enum exit_status cli_kernel(const struct cli_options *options);
enum exit_status cli_check(const struct cli_options *options);
enum exit_status cli_sandbox(const struct cli_options *options);
enum exit_status cli_help(void);
enum exit_status cli_version(void);

/* Write to standard output; false (and a message) if that fails. */
bool cli_print(const void *data, size_t bytes);

/* After printf(): EXIT_STATUS_OK if all of it got out; else a message, and EXIT_STATUS_VM. */
enum exit_status cli_finish_output(void);

#endif
