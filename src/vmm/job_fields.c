/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* job_fields.c: every key of a job file, in one table. Pure data. */
#include "vmm/job_fields.h"

#include <inttypes.h>
#include <stdio.h>

#define STREAM_LIMIT_MAX_BYTES (1 * GIB)
#define CONSOLE_LIMIT_MIN_BYTES (4 * KIB)
#define CONSOLE_LIMIT_MAX_BYTES (64 * MIB)
#define MEMORY_MIN_MIB 64
#define MEMORY_MAX_MIB (MIB) /* 1 TiB */
#define TIMEOUT_MAX_SECS (365ULL * 24 * 60 * 60)
/* Linux takes 2048 bytes with the end mark; one character is one byte here. */
#define CMDLINE_MAX_CHARS 2047
/* In UTF-8 still below what execve(2) takes as one string (128 KiB), with a name before it. */
#define ARGUMENT_MAX_CHARS 32000
#define ARGUMENTS_MAX 4096
#define LABELS_MAX 64
#define LABEL_MAX_CHARS 1024
#define NAME_MAX_CHARS 256
#define CPUS_MAX_CHARS 256
#define PIDS_MAX (4 * MIB) /* as many as Linux ever numbers */
#define ANY_LENGTH UINT64_MAX

static const char *const fstype_names[] = {
    [JOB_FSTYPE_AUTO] = "auto",   [JOB_FSTYPE_SQUASHFS] = "squashfs", [JOB_FSTYPE_EXT4] = "ext4",
    [JOB_FSTYPE_EROFS] = "erofs", [JOB_FSTYPE_OTHER] = "other",       NULL,
};
static const char *const sandbox_names[] = {
    [JOB_SANDBOX_STRICT] = "strict",
    [JOB_SANDBOX_BEST_EFFORT] = "best_effort",
    [JOB_SANDBOX_OFF] = "off",
    NULL,
};

/* What a row says beside the name. Text: bounds are in characters. */
#define UINT(member, low, high)                                                                    \
    .type = JOB_TYPE_UINT, .offset = offsetof(struct job, member), .min = (low), .max = (high)
#define BOOL(member) .type = JOB_TYPE_BOOL, .offset = offsetof(struct job, member)
#define ENUM(member, list)                                                                         \
    .type = JOB_TYPE_ENUM, .offset = offsetof(struct job, member), .names = (list)
#define TEXT(member, low, high, form, words)                                                       \
    .type = JOB_TYPE_STRING, .offset = offsetof(struct job, member), .min = (low), .max = (high),  \
    .pattern = (form), .expected = (words)
#define PATH(member, words)                                                                        \
    .type = JOB_TYPE_PATH, .offset = offsetof(struct job, member), .min = 1, .max = ANY_LENGTH,    \
    .expected = (words)
#define FILE_IN(structure, member)                                                                 \
    .type = JOB_TYPE_FILE, .offset = offsetof(structure, member), .min = 1, .max = ANY_LENGTH,     \
    .expected = "a path"
#define LIST(kind, member, low, high, count, form, words)                                          \
    .type = (kind), .offset = offsetof(struct job, member), .min = (low), .max = (high),           \
    .items_max = (count), .pattern = (form), .expected = (words)
#define OBJECT(rows) .type = JOB_TYPE_OBJECT, .fields = (rows)

#define CMDLINE_FORM "^[ -~]*$"
#define CMDLINE_TEXT "at most 2047 printable ASCII characters"
#define ARGUMENT_TEXT "a string of at most 32000 characters"
#define LABEL_TEXT "a string of at most 1024 characters"
#define USER_FORM "^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$"
#define USER_TEXT "a user, or user:group, each a name or a number"
/* Up to 8191: no Linux has more CPUs (CGROUP_CPUS_MAX). */
#define CPU_FORM "0*([0-9]{1,3}|[1-7][0-9]{3}|80[0-9]{2}|81[0-8][0-9]|819[01])"
#define CPUS_FORM "^" CPU_FORM "(-" CPU_FORM ")?(," CPU_FORM "(-" CPU_FORM ")?)*$"
#define CPUS_TEXT                                                                                  \
    "CPU numbers from 0 to 8191 and ranges that go up, with commas between them: \"0-1,3\""
#define HOSTNAME_FORM "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$"
#define HOSTNAME_TEXT "a host name of at most 64 letters, digits, dots and hyphens"

/* Formatted by hand: clang-format 14 would put each row on one line of up to 300 columns. */
/* clang-format off */
const struct job_field job_drive_fields[] = {
    {.name = "path", FILE_IN(struct job_drive, image)},
    {.name = "mount", .type = JOB_TYPE_STRING, .offset = offsetof(struct job_drive, mount),
     .min = 2, .max = ANY_LENGTH, .pattern = "^/[^/]",
     .expected = "an absolute path in the guest, below /"},
    {.name = "fstype", .type = JOB_TYPE_ENUM, .offset = offsetof(struct job_drive, fstype),
     .names = fstype_names},
    {.name = NULL},
};

static const struct job_field limits_fields[] = {
    {.name = "stdout_bytes", UINT(limits.stdout_bytes, 0, STREAM_LIMIT_MAX_BYTES)},
    {.name = "stderr_bytes", UINT(limits.stderr_bytes, 0, STREAM_LIMIT_MAX_BYTES)},
    {.name = "output_bytes", UINT(limits.output_bytes, 0, STREAM_LIMIT_MAX_BYTES)},
    {.name = "console_bytes",
     UINT(limits.console_bytes, CONSOLE_LIMIT_MIN_BYTES, CONSOLE_LIMIT_MAX_BYTES)},
    {.name = NULL},
};

static const struct job_field large_outputs_fields[] = {
    {.name = "over_bytes", UINT(large_outputs.over_bytes, 0, STREAM_LIMIT_MAX_BYTES)},
    {.name = "dir", PATH(large_outputs.dir, "a path")},
    {.name = NULL},
};

static const struct job_field cgroup_fields[] = {
    {.name = "cpus", TEXT(cgroup.cpus, 1, CPUS_MAX_CHARS, CPUS_FORM, CPUS_TEXT)},
    {.name = "memory_max_mib", UINT(cgroup.memory_max_mib, 0, 2 * MEMORY_MAX_MIB)},
    {.name = "pids_max", UINT(cgroup.pids_max, 0, PIDS_MAX)},
    {.name = NULL},
};

const struct job_field job_fields[JOB_KEY_COUNT + 1] = {
    [JOB_KEY_SCHEMA] =
        {.name = "$schema", TEXT(schema_uri, 0, ANY_LENGTH, NULL, "a string")},
    [JOB_KEY_NAME] =
        {.name = "name", TEXT(name, 1, NAME_MAX_CHARS, NULL, "a string of 1 to 256 characters")},
    [JOB_KEY_LABELS] =
        {.name = "labels",
         LIST(JOB_TYPE_PAIRS, labels, 0, LABEL_MAX_CHARS, LABELS_MAX, NULL, LABEL_TEXT)},
    [JOB_KEY_KERNEL_PATH] =
        {.name = "kernel_path", FILE_IN(struct job, kernel)},
    [JOB_KEY_ROOTFS_PATH] =
        {.name = "rootfs_path", FILE_IN(struct job, rootfs)},
    [JOB_KEY_ROOTFS_TYPE] =
        {.name = "rootfs_type", ENUM(rootfs_type, fstype_names)},
    [JOB_KEY_IMAGE] =
        {.name = "image", PATH(image, "a path")},
    [JOB_KEY_INITRD_PATH] =
        {.name = "initrd_path", FILE_IN(struct job, initrd)},
    [JOB_KEY_VCPUS] =
        {.name = "vcpus", UINT(vcpus, 1, VCPUS_MAX)},
    [JOB_KEY_MEMORY_MIB] =
        {.name = "memory_mib", UINT(memory_mib, MEMORY_MIN_MIB, MEMORY_MAX_MIB)},
    [JOB_KEY_KERNEL_CMDLINE] =
        {.name = "kernel_cmdline",
         TEXT(kernel_cmdline, 0, CMDLINE_MAX_CHARS, CMDLINE_FORM, CMDLINE_TEXT)},
    [JOB_KEY_KERNEL_CMDLINE_APPEND] =
        {.name = "kernel_cmdline_append",
         TEXT(kernel_cmdline_append, 0, CMDLINE_MAX_CHARS, CMDLINE_FORM, CMDLINE_TEXT)},
    [JOB_KEY_VSOCK] =
        {.name = "vsock", BOOL(vsock)},
    [JOB_KEY_VSOCK_PATH] =
        {.name = "vsock_path", PATH(vsock_path, "a path")},
    [JOB_KEY_TIMEOUT_SECS] =
        {.name = "timeout_secs", UINT(timeout_secs, 0, TIMEOUT_MAX_SECS)},
    [JOB_KEY_COMMAND] =
        {.name = "command",
         LIST(JOB_TYPE_COMMAND, command, 0, ARGUMENT_MAX_CHARS, ARGUMENTS_MAX, NULL,
              ARGUMENT_TEXT)},
    [JOB_KEY_ENV] =
        {.name = "env",
         LIST(JOB_TYPE_ENV, env, 0, ARGUMENT_MAX_CHARS, ARGUMENTS_MAX, NULL, ARGUMENT_TEXT)},
    [JOB_KEY_WORKDIR] =
        {.name = "workdir", TEXT(workdir, 1, ANY_LENGTH, "^/", "an absolute path in the guest")},
    [JOB_KEY_USER] =
        {.name = "user", TEXT(user, 1, 255, USER_FORM, USER_TEXT)},
    [JOB_KEY_HOSTNAME] =
        {.name = "hostname", TEXT(hostname, 1, 64, HOSTNAME_FORM, HOSTNAME_TEXT)},
    [JOB_KEY_STDIN_PATH] =
        {.name = "stdin_path", FILE_IN(struct job, stdin_file)},
    [JOB_KEY_TMPFS_MIB] =
        {.name = "tmpfs_mib", UINT(tmpfs_mib, 0, MEMORY_MAX_MIB)},
    [JOB_KEY_DRIVES] =
        {.name = "drives", .type = JOB_TYPE_DRIVES, .offset = offsetof(struct job, drives),
         .items_max = JOB_DRIVES_MAX, .fields = job_drive_fields},
    [JOB_KEY_OUTPUT_FILES] =
        {.name = "output_files",
         LIST(JOB_TYPE_STRINGS, output_files, 2, ANY_LENGTH, OUTPUT_FILES_MAX, "^/[^/]",
              "an absolute path or glob pattern in the guest")},
    [JOB_KEY_LIMITS] =
        {.name = "limits", OBJECT(limits_fields)},
    [JOB_KEY_REPORT_PATH] =
        {.name = "report_path", PATH(report_path, "a path, or \"-\" for standard output")},
    [JOB_KEY_LARGE_OUTPUTS] =
        {.name = "large_outputs", OBJECT(large_outputs_fields)},
    [JOB_KEY_SANDBOX] =
        {.name = "sandbox", ENUM(sandbox, sandbox_names)},
    [JOB_KEY_CGROUP] =
        {.name = "cgroup", OBJECT(cgroup_fields)},
};
/* clang-format on */

const char *job_fstype_name(enum job_fstype fstype)
{
    bool known = fstype > JOB_FSTYPE_AUTO && fstype < JOB_FSTYPE_OTHER;

    return known ? fstype_names[fstype] : "";
}

const char *job_sandbox_name(enum job_sandbox sandbox)
{
    return (unsigned)sandbox <= JOB_SANDBOX_OFF ? sandbox_names[sandbox] : "unknown";
}

static void expected_enum(char text[JOB_PATH_TEXT_BYTES], const char *const *names)
{
    size_t used = (size_t)snprintf(text, JOB_PATH_TEXT_BYTES, "one of");

    for (size_t i = 0; names[i] && used < JOB_PATH_TEXT_BYTES; i++) {
        used += (size_t)snprintf(text + used, JOB_PATH_TEXT_BYTES - used, "%s \"%s\"",
                                 i == 0 ? "" : ",", names[i]);
    }
}

void job_expected(char text[JOB_PATH_TEXT_BYTES], const struct job_field *field)
{
    switch (field->type) {
    case JOB_TYPE_UINT:
        snprintf(text, JOB_PATH_TEXT_BYTES, "an integer from %" PRIu64 " to %" PRIu64, field->min,
                 field->max);
        break;
    case JOB_TYPE_BOOL:
        snprintf(text, JOB_PATH_TEXT_BYTES, "true or false");
        break;
    case JOB_TYPE_ENUM:
        expected_enum(text, field->names);
        break;
    case JOB_TYPE_STRING:
    case JOB_TYPE_PATH:
    case JOB_TYPE_FILE:
        snprintf(text, JOB_PATH_TEXT_BYTES, "%s", field->expected);
        break;
    case JOB_TYPE_STRINGS:
        snprintf(text, JOB_PATH_TEXT_BYTES, "an array of at most %" PRIu64 " strings",
                 field->items_max);
        break;
    case JOB_TYPE_COMMAND:
        snprintf(text, JOB_PATH_TEXT_BYTES,
                 "an array of 1 to %" PRIu64 " strings, or one string for /bin/sh -c",
                 field->items_max);
        break;
    case JOB_TYPE_ENV:
    case JOB_TYPE_PAIRS:
        snprintf(text, JOB_PATH_TEXT_BYTES, "an object of at most %" PRIu64 " strings",
                 field->items_max);
        break;
    case JOB_TYPE_OBJECT:
        snprintf(text, JOB_PATH_TEXT_BYTES, "an object");
        break;
    case JOB_TYPE_DRIVES:
        snprintf(text, JOB_PATH_TEXT_BYTES, "an array of at most %" PRIu64 " objects",
                 field->items_max);
        break;
    }
}
