/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * file_kind.h: what a file is, by its first bytes: a kernel, an image, an initrd, something else.
 *
 * Thread: any. Pure: looks at a buffer only.
 */
#ifndef BVMM_VMM_FILE_KIND_H
#define BVMM_VMM_FILE_KIND_H

#include "base/base.h"
#include "vmm/job.h"

/* So much of a file's beginning is enough to tell. */
#define FILE_HEAD_BYTES 4096

/* A few words for a person: "a squashfs image", "a gzip-compressed file", "nothing known". */
const char *file_describe(const uint8_t *head, size_t bytes);

/*
 * kernel_identify - for which machine this is a kernel that bvmm can boot.
 * Return: a name as uname(2) has it ("x86_64", "aarch64"), or NULL: it is none.
 */
const char *kernel_identify(const uint8_t *head, size_t bytes);

struct image_facts {
    enum job_fstype fstype;  /* OTHER: none that is known */
    uint64_t used_bytes;     /* by its own account; a smaller file has been cut short */
    const char *unsupported; /* a feature that the bundled kernel lacks, or NULL */
};

void image_identify(const uint8_t *head, size_t bytes, struct image_facts *ret_facts);

/* May this be a tar archive, plain or compressed in a way that bvmm-image unpacks? */
bool archive_identify(const uint8_t *head, size_t bytes);

/* Is this an initramfs (cpio), plain or compressed in a way that Linux unpacks? */
bool initrd_identify(const uint8_t *head, size_t bytes);

#endif
