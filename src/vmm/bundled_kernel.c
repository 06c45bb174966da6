/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bundled_kernel.c: finds the guest kernel that comes with bvmm, in the executable or on disk.
 * What it is stands in the kernel.json that kernel/build.sh left beside it.
 * Thread: launcher.
 */
#include "vmm/bundled_kernel.h"

#include "vmm/embedded.h"
#include "vmm/fileio.h"
#include "vmm/hex.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The directories that may hold the kernel, most wanted first; NULL entries are skipped. */
#define KERNEL_DIRS 3
static void list_dirs(const char *dirs[KERNEL_DIRS])
{
    const char *from_environment = secure_getenv("BVMM_KERNEL_DIR");

    dirs[0] = from_environment && from_environment[0] ? from_environment : NULL;
    /* Who names a directory wants the kernel there, or an error; not some other kernel. */
    dirs[1] = dirs[0] ? NULL : BVMM_KERNEL_BUILD_DIR;
    dirs[2] = dirs[0] ? NULL : BVMM_KERNEL_INSTALL_DIR;
}

static int no_kernel(const char *const dirs[KERNEL_DIRS], struct bvmm_error *err)
{
    char tried[2048] = "";
    size_t used = 0;

    for (size_t i = 0; i < KERNEL_DIRS; i++) {
        if (dirs[i] && used < sizeof(tried)) {
            used += (size_t)snprintf(tried + used, sizeof(tried) - used, "%s%s", used ? ", " : "",
                                     dirs[i]);
        }
    }
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOENT,
                     "there is no bundled kernel (%s and kernel.json) in %.600s; make it by "
                     "kernel/build.sh --arch %s --out DIR and set BVMM_KERNEL_DIR=DIR, or name a "
                     "kernel in the job (\"kernel_path\")",
                     BVMM_KERNEL_FILE_NAME, tried, BVMM_KERNEL_ARCH);
}

/* The entry of the file that we boot, in the "artefacts" of kernel.json. */
static const json_t *find_artefact(const json_t *root)
{
    const json_t *artefacts = json_object_get(root, "artefacts");

    for (size_t i = 0; i < json_array_size(artefacts); i++) {
        const json_t *artefact = json_array_get(artefacts, i);
        const char *name = json_string_value(json_object_get(artefact, "name"));

        if (name && strcmp(name, BVMM_KERNEL_FILE_NAME) == 0) {
            return artefact;
        }
    }
    return NULL;
}

/* Takes the reference to root. @where: for the message. */
static int read_facts(json_t *root, const char *where, struct kernel_info *info,
                      struct bvmm_error *err)
{
    const json_t *artefact = find_artefact(root);
    const char *version = json_string_value(json_object_get(root, "version"));
    const char *sha256 = json_string_value(json_object_get(artefact, "sha256"));
    const json_t *size = json_object_get(artefact, "size_bytes");
    int r = 0;

    if (!version || !sha256 || !json_is_integer(size) || json_integer_value(size) <= 0 ||
        !sha256_from_text(sha256, info->sha256)) {
        r = error_set(err, BVMM_ERROR_KERNEL_LOAD, -EINVAL,
                      "%s does not describe %s; expected what kernel/build.sh writes: make the "
                      "kernel again",
                      where, BVMM_KERNEL_FILE_NAME);
    } else {
        snprintf(info->version, sizeof(info->version), "%s", version);
        info->size_bytes = (uint64_t)json_integer_value(size);
    }
    json_decref(root);
    return r;
}

static int embedded_info(struct kernel_info *info, struct bvmm_error *err)
{
    struct embedded_file json = embedded_file(EMBEDDED_KERNEL_JSON);
    json_t *root = json_loadb((const char *)json.data, json.bytes, 0, NULL);

    info->embedded = true;
    return read_facts(root, "the embedded kernel.json", info, err);
}

/* 1: found, 0: there is nothing in dir. */
static int info_in_dir(const char *dir, struct kernel_info *info, struct bvmm_error *err)
{
    char json_path[KERNEL_PATH_BYTES];
    json_error_t error;
    json_t *root;
    int r;

    snprintf(info->path, sizeof(info->path), "%s/%s", dir, BVMM_KERNEL_FILE_NAME);
    snprintf(json_path, sizeof(json_path), "%s/kernel.json", dir);
    if (access(info->path, F_OK) < 0 || access(json_path, F_OK) < 0) {
        return 0;
    }
    root = json_load_file(json_path, 0, &error);
    if (!root) {
        return error_set(err, BVMM_ERROR_KERNEL_LOAD, -EINVAL,
                         "%.400s: line %d, column %d: %s; expected what kernel/build.sh writes",
                         json_path, error.line, error.column, error.text);
    }
    r = read_facts(root, json_path, info, err);
    return r < 0 ? r : 1;
}

int bundled_kernel_info(struct kernel_info *ret_info, struct bvmm_error *err)
{
    const char *dirs[KERNEL_DIRS];

    memset(ret_info, 0, sizeof(*ret_info));
    if (embedded_file(EMBEDDED_KERNEL).data) {
        return embedded_info(ret_info, err);
    }
    list_dirs(dirs);
    for (size_t i = 0; i < KERNEL_DIRS; i++) {
        int r = dirs[i] ? info_in_dir(dirs[i], ret_info, err) : 0;

        if (r != 0) {
            return r < 0 ? r : 0;
        }
    }
    return no_kernel(dirs, err);
}

void bundled_kernel_read_facts(struct kernel_facts *facts)
{
    facts->err.kind = BVMM_ERROR_NONE;
    facts->code = bundled_kernel_info(&facts->info, &facts->err);
    facts->known = true;
}

static int open_on_disk(int *ret_fd, size_t *ret_bytes, struct bvmm_error *err)
{
    struct kernel_info info;
    struct stat status;
    int r = bundled_kernel_info(&info, err);
    int fd;

    if (r < 0) {
        return r;
    }
    fd = open(info.path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0 || fstat(fd, &status) < 0) {
        r = error_set(err, BVMM_ERROR_KERNEL_LOAD, -errno,
                      "cannot open the bundled kernel %.600s: %s", info.path, error_text(errno));
    } else if (!S_ISREG(status.st_mode) || (uint64_t)status.st_size != info.size_bytes) {
        r = error_set(
            err, BVMM_ERROR_KERNEL_LOAD, -EINVAL,
            "the bundled kernel %.600s is not what its kernel.json says (a regular file of "
            "%" PRIu64 " bytes); make it again by kernel/build.sh",
            info.path, info.size_bytes);
    }
    if (r < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    *ret_fd = fd;
    *ret_bytes = (size_t)status.st_size;
    return 0;
}

static int open_embedded(struct embedded_file kernel, int *ret_fd, struct bvmm_error *err)
{
    int fd = memfd_create("bvmm-kernel", MFD_CLOEXEC);
    int r = fd < 0 ? -errno : fileio_write(fd, kernel.data, kernel.bytes);

    if (r == 0 && lseek(fd, 0, SEEK_SET) < 0) {
        r = -errno;
    }
    if (r < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return error_set(err, BVMM_ERROR_MEMORY, r, "no memory for the embedded kernel: %s",
                         error_text(-r));
    }
    *ret_fd = fd;
    return 0;
}

int bundled_kernel_open(int *ret_fd, size_t *ret_bytes, struct bvmm_error *err)
{
    struct embedded_file kernel = embedded_file(EMBEDDED_KERNEL);

    if (!kernel.data) {
        return open_on_disk(ret_fd, ret_bytes, err);
    }
    *ret_bytes = kernel.bytes;
    return open_embedded(kernel, ret_fd, err);
}

const uint8_t *bundled_kernel_embedded(size_t *ret_bytes)
{
    struct embedded_file kernel = embedded_file(EMBEDDED_KERNEL);

    *ret_bytes = kernel.bytes;
    return kernel.data;
}
