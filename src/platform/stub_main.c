/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* stub_main.c: the bvmm command where there is no KVM: --version and --help, and why it can do no more. */
#include <bvmm/bvmm.h>

#include <stdio.h>
#include <string.h>

/* As in the real command: this host cannot run the VM; standard output is broken. */
#define EXIT_STATUS_HOST 3
#define EXIT_STATUS_VM 4

int main(int argc, char **argv)
{
    struct bvmm_config *config = NULL;
    struct bvmm_error error = {.kind = BVMM_ERROR_NONE, .message = ""};

    if (argc == 2 && (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)) {
        printf("bvmm %s\n", bvmm_version());
        return fflush(stdout) == 0 ? 0 : EXIT_STATUS_VM;
    }
    (void)bvmm_config_new(&config, &error); /* fails here: for its words */
    if (argc == 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)) {
        printf("bvmm runs one command in a Linux VM of its own and hands back one JSON "
               "report.\n\n%s\n",
               error.message);
        return fflush(stdout) == 0 ? 0 : EXIT_STATUS_VM;
    }
    fprintf(stderr, "bvmm: %s: %s\n", bvmm_error_kind_name(error.kind), error.message);
    return EXIT_STATUS_HOST;
}
