/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cli_commands.c: the small commands: schema, kernel, check, help, version. Thread: main. */
#include "vmm/cli.h"

#include "arch/kvm.h"
#include "vmm/bundled_kernel.h"
#include "vmm/embedded.h"
#include "vmm/fileio.h"
#include "vmm/hex.h"
#include "vmm/nearest.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

bool cli_print(const void *data, size_t bytes)
{
    int r = fileio_write(STDOUT_FILENO, data, bytes);

    if (r < 0) {
        fprintf(stderr, "bvmm: cannot write to standard output: %s\n", error_text(-r));
    }
    return r == 0;
}

enum exit_status cli_finish_output(void)
{
    /* ferror(): it may have been an earlier piece that did not get out. */
    if (fflush(stdout) == 0 && !ferror(stdout)) {
        return EXIT_STATUS_OK;
    }
    fprintf(stderr, "bvmm: cannot write to standard output: %s\n", error_text(errno));
    return EXIT_STATUS_VM;
}

enum exit_status cli_schema(const struct cli_options *options)
{
    static const char *const names[] = {"job", "report", NULL};
    struct embedded_file schema;

    if (strcmp(options->schema, "job") == 0) {
        schema = embedded_file(EMBEDDED_JOB_SCHEMA);
    } else if (strcmp(options->schema, "report") == 0) {
        schema = embedded_file(EMBEDDED_REPORT_SCHEMA);
    } else {
        const char *nearest = nearest_in(options->schema, names);

        fprintf(stderr, "bvmm: there is no schema '%s'; expected job or report%s%s%s\n",
                options->schema, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                nearest ? "'?" : "");
        return EXIT_STATUS_USAGE;
    }
    return cli_print(schema.data, schema.bytes) ? EXIT_STATUS_OK : EXIT_STATUS_VM;
}

static enum exit_status print_kernel_info(const struct kernel_info *info)
{
    char sha256[SHA256_TEXT_BYTES];

    sha256_to_text(info->sha256, sha256);
    printf("version: %s\nsize:    %" PRIu64 " bytes\nsha256:  %s\nfrom:    %s\n", info->version,
           info->size_bytes, sha256, info->embedded ? "this executable" : info->path);
    return cli_finish_output();
}

/* Kernel bytes to path, or to standard output. 0 or -errno with *err. */
static int write_kernel(const char *path, const void *bytes, size_t count, struct bvmm_error *err)
{
    int r;

    if (strcmp(path, "-") == 0) {
        r = fileio_write(STDOUT_FILENO, bytes, count);
    } else {
        r = fileio_replace(path, bytes, count);
    }
    return r == 0 ? 0
                  : error_set(err, BVMM_ERROR_IO, r, "cannot write the kernel to '%.600s': %s",
                              path, fileio_strerror(r));
}

static int copy_kernel(const char *path, struct bvmm_error *err)
{
    size_t bytes;
    void *kernel;
    int fd;
    int r = bundled_kernel_open(&fd, &bytes, err);

    if (r < 0) {
        return r;
    }
    kernel = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
    if (kernel == MAP_FAILED) {
        r = error_set(err, BVMM_ERROR_IO, -errno, "cannot read the bundled kernel: %s",
                      error_text(errno));
    } else {
        r = write_kernel(path, kernel, bytes, err);
        munmap(kernel, bytes);
    }
    close(fd);
    return r;
}

enum exit_status cli_kernel(const struct cli_options *options)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct kernel_info info;
    int r = bundled_kernel_info(&info, &err);

    if (r == 0 && options->info) {
        return print_kernel_info(&info);
    }
    if (r == 0) {
        r = copy_kernel(options->write_path, &err);
    }
    if (r < 0) {
        fprintf(stderr, "bvmm: %s\n", err.message);
        return EXIT_STATUS_VM;
    }
    return EXIT_STATUS_OK;
}

enum exit_status cli_check(const struct cli_options *options)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct kernel_info kernel;
    int kvm_fd = -1;
    int r = kvm_open(KVM_DEVICE_PATH, &kvm_fd, &err);

    (void)options;
    if (r == 0) {
        r = arch_kvm_probe(kvm_fd, &err);
        close(kvm_fd);
    }
    if (r < 0) {
        fprintf(stderr, "bvmm: this host cannot run VMs: %s\n", err.message);
        return EXIT_STATUS_HOST;
    }
    printf("KVM works: this host can run VMs (%s)\n", arch_platform.isa);
    if (bundled_kernel_info(&kernel, &err) == 0) {
        printf("bundled kernel: %s (%s)\n", kernel.version,
               kernel.embedded ? "embedded" : kernel.path);
    } else {
        printf("bundled kernel: none; %s\n", err.message);
    }
    return cli_finish_output();
}

enum exit_status cli_version(void)
{
    printf("bvmm %s\n", BVMM_VERSION);
    return cli_finish_output();
}

static const char help_text[] =
    "bvmm runs one command in a Linux VM of its own and hands back one JSON report.\n"
    "\n"
    "usage: bvmm --json-config FILE [--report PATH] [--verbose | --quiet]\n"
    "       bvmm validate FILE [--no-files]\n"
    "       bvmm schema job|report\n"
    "       bvmm kernel --info | --write PATH\n"
    "       bvmm check\n"
    "       bvmm sandbox --print [--json]\n"
    "\n"
    "Running a job:\n"
    "  --json-config FILE  the job; - reads it from standard input\n"
    "  --report PATH       where the report goes, whatever the job says; - is standard output\n"
    "  -v, --verbose       say on standard error what goes on, and what each actor did\n"
    "  -q, --quiet         no status line and no summary; errors only\n"
    "Other commands:\n"
    "  validate FILE       check a job without running it; --no-files looks at the job file only\n"
    "  schema NAME         print the JSON Schema of the job or of the report\n"
    "  kernel              about the bundled guest kernel: --info, or --write PATH to copy it\n"
    "  check               can this host run VMs? If not: why, and what to do\n"
    "  sandbox --print     the system calls that each thread of a running VM may make, and why\n"
    "  -h, --help          this text\n"
    "  -V, --version       the version\n"
    "\n"
    "Exit status:\n";

enum exit_status cli_help(void)
{
    fputs(help_text, stdout);
#define X(id, number, text) printf("  %3d  %s\n", number, text);
    EXIT_STATUS_TABLE(X)
#undef X
    return cli_finish_output();
}
