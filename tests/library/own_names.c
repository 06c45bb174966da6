/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * own_names.c: a program that has functions with names of the library's inner ones. They do not meet:
 * what the library hides is hidden in the archive too.
 */
#include <bvmm/bvmm.h>
#include <stdlib.h>
#include <string.h>

int error_set(void);
int job_load(void);
int launcher_run(void);

/* The library's own have other parameters: a call that came here by mistake would be seen. */
int error_set(void)
{
    abort();
}

int job_load(void)
{
    abort();
}

int launcher_run(void)
{
    abort();
}

int main(void)
{
    struct bvmm_config *config = NULL;
    struct bvmm_vm *vm = NULL;
    struct bvmm_error error;

    if (bvmm_config_parse("[]", 2, &config, &error) == 0 || error.kind != BVMM_ERROR_JOB ||
        config != NULL) {
        return 1; /* error_set() of the library was not called, or somebody else's */
    }
    if (bvmm_config_new(&config, &error) != 0) {
        return 2;
    }
    if (bvmm_vm_new(config, &vm, &error) == 0 || vm != NULL ||
        strstr(error.message, "rootfs_path") == NULL) {
        return 3;
    }
    bvmm_config_free(config);
    return strcmp(bvmm_error_kind_name(BVMM_ERROR_TIMEOUT), "Timeout") == 0 ? 0 : 4;
}
