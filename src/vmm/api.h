/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * api.h: what is behind the public interface (bvmm/bvmm.h), and what only the bvmm
 * command needs. Not exported by the library.
 *
 * Thread: see bvmm.h.
 */
#ifndef BVMM_VMM_API_H
#define BVMM_VMM_API_H

#include <jansson.h>

#include "base/base.h"
#include "base/record.h"
#include "bvmm/bvmm.h"
#include "vmm/job.h"
#include "vmm/launcher.h"

/* Kept as JSON, and checked as a job file is: there is one place that knows the keys. */
struct bvmm_config {
    json_t *keys;   /* an object */
    char *source;   /* for messages */
    char *base_dir; /* where relative paths start; NULL: the working directory */
};

/*
 * api_job_from_config - decode and check.
 * @ret_job: with its files open if with_files; to be released by job_fini(), on failure too.
 * Return: 0 or -errno with *problems filled.
 */
int api_job_from_config(const struct bvmm_config *config, bool with_files, struct job *ret_job,
                        struct job_problems *problems) must_check;

/* For the command: the run's times start when the process did, not at bvmm_vm_new(). */
void api_set_process_start(struct bvmm_vm *vm, uint64_t start_ns);

/* For the command: bvmm_vm_run() puts the process into filters: launcher_sandbox.h. */
void api_set_guard(struct bvmm_vm *vm, const struct launcher_guard *guard);

/* For the command: the final record, with what --verbose shows. The report's. */
const struct record *api_report_record(const struct bvmm_report *report);

#endif
