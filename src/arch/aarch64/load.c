/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* load.c: kernel, initrd and device tree of an aarch64 guest, put together. */
#include "arch/aarch64/machine.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* What lies in the first 2 MiB of RAM. */
static int claim_boot_data(struct load_map *map, const struct arm64_machine *machine,
                           struct bvmm_error *err)
{
    const struct guest_range fdt = {gpa(ARM64_FDT), ARM64_FDT_BYTES_MAX};
    const struct guest_range steal_time = {gpa(ARM64_STEAL_TIME),
                                           machine->has_steal_time ? ARM64_STEAL_TIME_BYTES : 0};
    int ret = load_claim(map, fdt, BVMM_ERROR_BOOT, err, "the device tree");

    return ret < 0 ? ret : load_claim(map, steal_time, BVMM_ERROR_BOOT, err, "steal time");
}

static int check_cmdline(const struct load_map *map, const char *cmdline, struct bvmm_error *err)
{
    const size_t bytes = strlen(cmdline);

    if (bytes > ARM64_CMDLINE_MAX_BYTES) {
        return error_set(err, BVMM_ERROR_BOOT, -E2BIG,
                         "the kernel command line has %zu bytes, but the kernel %s takes at most "
                         "%d; shorten it",
                         bytes, map->kernel_name, ARM64_CMDLINE_MAX_BYTES);
    }
    return 0;
}

int arm64_load_kernel(const struct arm64_machine *machine, const struct guest_memory *memory,
                      const struct arch_boot_request *request, struct arch_boot *ret_boot,
                      struct bvmm_error *err)
{
    struct load_map map = {.memory = memory, .kernel_name = request->kernel->name};
    const struct guest_range ram = memory->regions[0].range;
    struct guest_range kernel = {0};
    struct guest_range initrd = {0};
    void *fdt = NULL;
    int ret = claim_boot_data(&map, machine, err);

    if (ret == 0) {
        ret = arm64_image_load(&map, request->kernel, machine->mmfr0, &kernel, err);
    }
    if (ret == 0) {
        ret = check_cmdline(&map, request->cmdline, err);
    }
    if (ret == 0) {
        ret = load_initrd(&map, request, kernel.base.v + kernel.bytes,
                          ARM64_RAM + ARM64_INITRD_WINDOW_BYTES, &initrd, err);
    }
    if (ret == 0) {
        fdt = guest_memory_at(memory, gpa(ARM64_FDT), ARM64_FDT_BYTES_MAX);
        ret = fdt == NULL
                  ? error_set(err, BVMM_ERROR_BOOT, -EFAULT,
                              "the device tree is not in guest RAM; this is a bug in bvmm")
                  : arm64_fdt_build(machine, ram, initrd, request, fdt, ARM64_FDT_BYTES_MAX, err);
    }
    if (ret != 0) {
        return ret;
    }
    *ret_boot = (struct arch_boot){
        .entry = ARCH_ENTRY_ARM64,
        .pc = kernel.base,
        .data = gpa(ARM64_FDT),
        .kernel = kernel,
        .initrd = initrd,
        .format = "image",
    };
    return 0;
}
