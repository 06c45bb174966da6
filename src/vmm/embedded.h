/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * embedded.h: files that the build has put into the executable.
 *
 * Thread: any. Constant data.
 */
#ifndef BVMM_VMM_EMBEDDED_H
#define BVMM_VMM_EMBEDDED_H

#include "base/base.h"

struct embedded_file {
    const uint8_t *data;
    size_t bytes;
};

enum embedded_id {
    EMBEDDED_JOB_SCHEMA,
    EMBEDDED_REPORT_SCHEMA,
    EMBEDDED_KERNEL,      /* data NULL in builds without an embedded kernel */
    EMBEDDED_KERNEL_JSON, /* likewise; what kernel/build.sh says of it */
};

struct embedded_file embedded_file(enum embedded_id id);

#endif
