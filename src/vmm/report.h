/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report.h: from the run record to the JSON report, and how it gets onto the disk.
 *
 * The record that comes in must have passed record_check(): what the VM process left there is in
 * bounds, but still a stranger's. Strings are made valid UTF-8, frames and the manifest are parsed
 * as hostile input, names that came from the guest never become names of host files.
 *
 * Thread: launcher, after the VM process is gone. Blocks on files only.
 */
#ifndef BVMM_VMM_REPORT_H
#define BVMM_VMM_REPORT_H

#include "base/base.h"
#include "base/error.h"
#include "base/record.h"
#include "vmm/job.h"
#include "vmm/report_view.h"

#include <jansson.h>

#define REPORT_SCHEMA_VERSION 1

/* Where the report ended up; bvmm.h has the same. */
enum report_place { REPORT_NOWHERE, REPORT_FILE, REPORT_STDOUT, REPORT_STDOUT_INSTEAD };

/*
 * report_write - render the report and put it where the job says.
 *
 * A file is written beside its final name, synced and renamed: a reader sees the old file, or the
 * whole new one. If that fails (full disk, say) no temporary file stays behind, and the report goes
 * to standard output instead, so that a run's result is never lost without a word.
 * @ret_place: set whatever is returned.
 * Return: 0, or -errno with *err filled; -errno with REPORT_STDOUT_INSTEAD means that the report is
 * on standard output although the job wanted it elsewhere.
 */
int report_write(const struct job *job, struct record *record, enum report_place *ret_place,
                 struct bvmm_error *err) must_check;

/* Where large outputs go, if the job has them in files; the caller frees. NULL: out of memory. */
char *report_large_dir_path(const struct job *job) must_check;

/*
 * report_render - the report as JSON.
 * Large streams become files here already if the job asks for that.
 * @ret_report: a new reference.
 */
int report_render(const struct job *job, struct record *record, json_t **ret_report,
                  struct bvmm_error *err) must_check;

/*
 * The same, and its structs. ret_view: in the caller's hands as report_view_fini() is, which comes
 * before the record and the report go: it points into both.
 */
int report_render_view(const struct job *job, struct record *record, json_t **ret_report,
                       struct report_view *ret_view, struct bvmm_error *err) must_check;

/* The same in some 100 us whatever the job names: without a look into the job's own kernel. */
int report_render_brief(const struct job *job, struct record *record, json_t **ret_report,
                        struct bvmm_error *err) must_check;

/* report_put - the second half of report_write(). @path: NULL: standard output. @dir_fd: its
 * directory. */
int report_put(json_t *report, const char *path, int dir_fd, enum report_place *ret_place,
               struct bvmm_error *err) must_check;

#endif
