/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* main.c: the bvmm command. */
#include "vmm/cli.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

static enum exit_status run_command(const struct cli_options *options, uint64_t process_start_ns)
{
    switch (options->command) {
    case CLI_RUN:
        return cli_run(options, process_start_ns);
    case CLI_VALIDATE:
        return cli_validate(options);
    case CLI_SCHEMA:
        return cli_schema(options);
    case CLI_KERNEL:
        return cli_kernel(options);
    case CLI_CHECK:
        return cli_check(options);
    case CLI_SANDBOX:
        return cli_sandbox(options);
    case CLI_HELP:
        return cli_help();
    case CLI_VERSION:
        return cli_version();
    }
    return EXIT_STATUS_USAGE;
}

/*
 * Whoever started us may have closed a standard stream: nothing of ours is to get its number. What
 * takes the place cannot be used in the stream's direction, so that it stays an error to need it.
 */
static void fill_standard_streams(void)
{
    static const int flags[] = {O_WRONLY, O_RDONLY, O_RDONLY};

    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", flags[fd]) < 0) {
            return; /* the library sees to its own descriptors itself */
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t process_start_ns = clock_monotonic_ns();
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cli_options options;

    fill_standard_streams();
    /* A reader of the report that goes away is an error to be told, not a silent death. */
    signal(SIGPIPE, SIG_IGN);
    /* So is a file that grows beyond its limit (ulimit -f). */
    signal(SIGXFSZ, SIG_IGN);
    /* Whoever started us may ignore it, which is inherited: then nobody learns how a child ended. */
    signal(SIGCHLD, SIG_DFL);
    if (cli_parse(argc, argv, &options, &err) < 0) {
        fprintf(stderr, "bvmm: %s\n", err.message);
        return EXIT_STATUS_USAGE;
    }
    return (int)run_command(&options, process_start_ns);
}
