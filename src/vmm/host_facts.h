/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * host_facts.h: what the report says of the host.
 *
 * Thread: launcher. Blocks on files of /proc and /sys, which the launcher's filters do not let it
 * open: so it reads them before.
 */
#ifndef BVMM_VMM_HOST_FACTS_H
#define BVMM_VMM_HOST_FACTS_H

#include "base/base.h"

#define HOST_NAME_BYTES 72
#define HOST_MODEL_BYTES 256

struct host_facts {
    bool known;                           /* host_facts_read() was here */
    char kernel_release[HOST_NAME_BYTES]; /* "": not told, as for the next two */
    char arch[HOST_NAME_BYTES];
    char cpu_model[HOST_MODEL_BYTES];
    int64_t cpus_online; /* negative: not told */
    int64_t memory_mib;  /* likewise */
};

void host_facts_read(struct host_facts *facts);

#endif
