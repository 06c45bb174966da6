/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* report_facts.c: the report's sections on what was to run, on which host, with which kernel. */
#include "vmm/report_parts.h"

#include "vmm/bundled_kernel.h"

#include <errno.h>
#include <inttypes.h>
#include <nettle/sha2.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- The job --------------------------------------------------------------------------------- */

static json_t *strings(struct report_builder *b, const struct job_strings *from)
{
    json_t *array = json_array();

    for (size_t i = 0; i < from->count; i++) {
        if (json_array_append_new(array, report_text(from->items[i])) < 0) {
            b->no_memory = true;
        }
    }
    return array;
}

static json_t *labels(struct report_builder *b)
{
    json_t *object = json_object();

    for (size_t i = 0; i < b->job->labels.count; i++) {
        report_set(b, object, b->job->labels.items[i].name,
                   report_text(b->job->labels.items[i].value));
    }
    return object;
}

json_t *report_job(struct report_builder *b)
{
    const struct job *job = b->job;
    json_t *object = json_object();

    report_set(b, object, "source", report_text_or_null(job->source));
    report_set(b, object, "name", report_text_or_null(job->name));
    report_set(b, object, "labels", labels(b));
    report_set(b, object, "command", strings(b, &job->command));
    report_set(b, object, "image", report_text_or_null(job->image));
    report_set(b, object, "rootfs_path", report_text_or_null(job->rootfs.path));
    report_set(b, object, "rootfs_type",
               json_string(job_fstype_name((enum job_fstype)job->rootfs_type)));
    report_set(b, object, "initrd_path", report_text_or_null(job->initrd.path));
    report_set(b, object, "drives", report_u64(job->drive_count));
    report_set(b, object, "vcpus", report_u64(job->vcpus));
    report_set(b, object, "memory_mib", report_u64(job->memory_mib));
    report_set(b, object, "timeout_secs", report_u64(job->timeout_secs));
    report_set(b, object, "kernel_cmdline", report_text_or_null(job->kernel_cmdline));
    report_set(b, object, "kernel_cmdline_append", report_text_or_null(job->kernel_cmdline_append));
    report_set(b, object, "vsock", json_boolean(job->vsock));
    report_set(b, object, "sandbox", json_string(job_sandbox_name((enum job_sandbox)job->sandbox)));
    if (job->image_notes) {
        report_warn(b, "while the image was converted: %s", job->image_notes);
    }
    return object;
}

/* ---- The host -------------------------------------------------------------------------------- */

static void set_name(struct report_builder *b, json_t *host, const char *key, const char *text)
{
    if (text[0] == '\0') {
        report_absent(b, host, key, "the system does not say");
    } else {
        report_set(b, host, key, report_text(text));
    }
}

static void set_number(struct report_builder *b, json_t *host, const char *key, int64_t number)
{
    if (number < 0) {
        report_absent(b, host, key, "the system does not say");
    } else {
        report_set(b, host, key, report_u64((uint64_t)number));
    }
}

json_t *report_host(struct report_builder *b)
{
    json_t *host = json_object();
    struct host_facts facts = b->job->host_facts;

    if (!facts.known) { /* a run that did not come so far */
        host_facts_read(&facts);
    }
    set_name(b, host, "kernel_release", facts.kernel_release);
    set_name(b, host, "arch", facts.arch);
    set_name(b, host, "cpu_model", facts.cpu_model);
    set_number(b, host, "cpus_online", facts.cpus_online);
    set_number(b, host, "memory_mib", facts.memory_mib);
    return report_end(b, host);
}

/* ---- The kernel ------------------------------------------------------------------------------ */

#define VERSION_MARK "Linux version "
#define SCAN_CHUNK_BYTES ((size_t)1 << 16)
#define SCAN_OVERLAP_BYTES 256 /* a version with its mark lies in one buffer or in the next */

struct kernel_scan {
    struct sha256_ctx sha256;
    uint64_t bytes;
    char version[KERNEL_VERSION_BYTES]; /* "" until found */
};

/* The version in "Linux version 6.1.0 (builder@...": up to the blank. */
static void look_for_version(struct kernel_scan *scan, const uint8_t *buffer, size_t bytes)
{
    const uint8_t *mark;

    if (scan->version[0]) {
        return;
    }
    mark = memmem(buffer, bytes, VERSION_MARK, sizeof(VERSION_MARK) - 1);
    if (mark && (size_t)(mark - buffer) + SCAN_OVERLAP_BYTES <= bytes) {
        const char *version = (const char *)mark + sizeof(VERSION_MARK) - 1;
        size_t length = strcspn(version, " \n");

        /* The banner's format, "%s (", stands in the kernel too. */
        if (length > 0 && length < sizeof(scan->version) && version[0] != '%') {
            memcpy(scan->version, version, length);
            scan->version[length] = '\0';
        }
    }
}

/* One pass over the file: its digest and its version. -errno if it cannot be read. */
static int scan_kernel(int fd, struct kernel_scan *scan)
{
    uint8_t *buffer = calloc(1, SCAN_OVERLAP_BYTES + SCAN_CHUNK_BYTES + SCAN_OVERLAP_BYTES);
    ssize_t n;

    if (!buffer) {
        return -ENOMEM;
    }
    sha256_init(&scan->sha256);
    while ((n = pread(fd, buffer + SCAN_OVERLAP_BYTES, SCAN_CHUNK_BYTES, (off_t)scan->bytes)) > 0) {
        size_t bytes = (size_t)n;

        sha256_update(&scan->sha256, bytes, buffer + SCAN_OVERLAP_BYTES);
        /* Zeros behind the last chunk, so that a version at its very end counts as whole. */
        memset(buffer + SCAN_OVERLAP_BYTES + bytes, 0, SCAN_OVERLAP_BYTES);
        look_for_version(scan, buffer, SCAN_OVERLAP_BYTES + bytes + SCAN_OVERLAP_BYTES);
        memmove(buffer, buffer + bytes, SCAN_OVERLAP_BYTES);
        scan->bytes += bytes;
    }
    free(buffer);
    return n < 0 ? -errno : 0;
}

static bool is_zero(const uint8_t digest[SHA256_BYTES])
{
    static const uint8_t zero[SHA256_BYTES];

    return memcmp(digest, zero, SHA256_BYTES) == 0;
}

/* Digest and version of the job's own kernel, read now: before the run it would have cost time. */
static void set_own_kernel(struct report_builder *b, json_t *kernel)
{
    struct kernel_scan scan = {.bytes = 0};
    uint8_t digest[SHA256_BYTES];
    int r;

    if (b->brief) {
        report_absent(b, kernel, "version", "there was no time to read the file");
        report_absent(b, kernel, "sha256", "there was no time to read the file");
        return;
    }
    r = b->job->kernel.fd < 0 ? -EBADF : scan_kernel(b->job->kernel.fd, &scan);

    if (r < 0) {
        report_absent(b, kernel, "version", "the kernel's file could not be read");
        report_absent(b, kernel, "sha256", error_text(-r));
        return;
    }
    if (scan.version[0]) {
        report_set(b, kernel, "version", report_text(scan.version));
    } else {
        report_absent(b, kernel, "version", "the file does not say (it is compressed, perhaps)");
    }
    sha256_digest(&scan.sha256, sizeof(digest), digest);
    report_set(b, kernel, "sha256", report_sha256(digest));
}

static void set_bundled_kernel(struct report_builder *b, json_t *kernel)
{
    struct kernel_facts facts = b->job->kernel_facts;

    if (!facts.known) { /* a run that did not come so far */
        bundled_kernel_read_facts(&facts);
    }
    if (facts.code < 0) {
        report_absent(b, kernel, "version", facts.err.message);
        report_absent(b, kernel, "sha256", facts.err.message);
        return;
    }
    report_set(b, kernel, "version", report_text(facts.info.version));
    report_set(b, kernel, "sha256", report_sha256(facts.info.sha256));
}

json_t *report_kernel(struct report_builder *b)
{
    json_t *kernel = json_object();
    bool bundled = b->job->kernel.path == NULL;

    report_set(b, kernel, "bundled", json_boolean(bundled));
    report_set(b, kernel, "path", report_text_or_null(b->job->kernel.path));
    if (bundled) {
        set_bundled_kernel(b, kernel);
    } else {
        set_own_kernel(b, kernel);
    }
    if (!is_zero(b->record->kernel_sha256)) {
        /* The launcher has seen the very bytes that were loaded. */
        report_set(b, kernel, "sha256", report_sha256(b->record->kernel_sha256));
    }
    return report_end(b, kernel);
}

/* ---- The sandbox ----------------------------------------------------------------------------- */

static json_t *layers(struct report_builder *b)
{
    json_t *object = json_object();

    for (unsigned i = 0; i < SANDBOX_LAYER_COUNT; i++) {
        report_set(b, object, sandbox_layer_name((enum sandbox_layer)i),
                   json_boolean(b->record->sandbox.layers >> i & 1));
    }
    return object;
}

/* Arguments may be addresses and flags of 64 bits, which JSON integers are not fit for. */
static json_t *call_arguments(struct report_builder *b, const struct record_violation *violation)
{
    json_t *array = json_array();

    for (size_t i = 0; i < ARRAY_SIZE(violation->args); i++) {
        if (json_array_append_new(array, json_sprintf("0x%" PRIx64, violation->args[i])) < 0) {
            b->no_memory = true;
        }
    }
    return array;
}

/* Which actor made which forbidden call; null if none did. */
static json_t *violation(struct report_builder *b)
{
    const struct record_violation *v = &b->record->violation;
    json_t *object;
    char *name;

    if (v->seen == 0) {
        return json_null();
    }
    object = json_object();
    name = seccomp_syscall_resolve_num_arch(v->arch, v->syscall);
    report_set(b, object, "actor",
               v->actor < min_u64(b->record->actor_count, ACTORS_MAX)
                   ? report_text(b->record->actors[v->actor].name)
                   : json_null());
    report_set(b, object, "syscall", report_text_or_null(name));
    report_set(b, object, "number", json_integer(v->syscall));
    report_set(b, object, "arguments", call_arguments(b, v));
    free(name);
    return object;
}

static json_t *number_or_null(uint64_t number)
{
    return number == CGROUP_UNKNOWN ? json_null() : report_u64(number);
}

static json_t *cgroup(struct report_builder *b)
{
    const struct cgroup_facts *facts = &b->job->cgroup_facts;
    json_t *object = json_object();

    report_set(b, object, "path", report_text_or_null(facts->path[0] ? facts->path : NULL));
    report_set(b, object, "reason", report_text_or_null(facts->reason[0] ? facts->reason : NULL));
    report_set(b, object, "cpus", report_text_or_null(facts->cpus[0] ? facts->cpus : NULL));
    report_set(b, object, "memory_max_bytes", number_or_null(facts->memory_max_bytes));
    report_set(b, object, "memory_swap_max_bytes", number_or_null(facts->memory_swap_max_bytes));
    report_set(b, object, "pids_max", number_or_null(facts->pids_max));
    report_set(b, object, "memory_peak_bytes", number_or_null(facts->memory_peak_bytes));
    report_set(b, object, "oom_kills", number_or_null(facts->oom_kills));
    return object;
}

json_t *report_sandbox(struct report_builder *b)
{
    const char *refused = b->record->sandbox.refused;
    json_t *sandbox = json_object();

    report_set(b, sandbox, "mode",
               json_string(job_sandbox_name((enum job_sandbox)b->job->sandbox)));
    report_set(b, sandbox, "layers", layers(b));
    report_set(b, sandbox, "refused", refused[0] ? report_text(refused) : json_null());
    report_set(b, sandbox, "cgroup", cgroup(b));
    report_set(b, sandbox, "violation", violation(b));
    if (b->job->sandbox == JOB_SANDBOX_OFF) {
        report_warn(b, "THE SANDBOX WAS OFF: the guest was held by KVM and bvmm's own code alone");
    }
    if (b->job->cgroup_facts.stands && b->job->cgroup_facts.reason[0]) {
        report_warn(b, "the control group is not complete: %s", b->job->cgroup_facts.reason);
    }
    if (refused[0]) {
        report_warn(b, "the sandbox was not complete: %s", refused);
    }
    return sandbox;
}
