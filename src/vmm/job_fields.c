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
#define TIMEOUT_MAX_SECS (365 * 24 * 60 * 60)
/* Linux takes 2048 bytes with the end mark; one character is one byte here. */
#define CMDLINE_MAX_CHARS 2047
/* In UTF-8 still below what execve(2) takes as one string (128 KiB), with a name before it. */
#define ARGUMENT_MAX_CHARS 32000
#define ARGUMENTS_MAX 4096
#define OUTPUT_FILES_MAX_PATTERNS 255
#define LABELS_MAX 64
#define LABEL_MAX_CHARS 1024
#define NAME_MAX_CHARS 256
#define ANY_LENGTH UINT64_MAX

static const char *const fstype_names[] = {
    [JOB_FSTYPE_AUTO] = "auto",   [JOB_FSTYPE_SQUASHFS] = "squashfs",
    [JOB_FSTYPE_EXT4] = "ext4",   [JOB_FSTYPE_EROFS] = "erofs",
    [JOB_FSTYPE_OTHER] = "other", NULL,
};
static const char *const sandbox_names[] = {
    [JOB_SANDBOX_STRICT] = "strict",
    [JOB_SANDBOX_BEST_EFFORT] = "best_effort",
    [JOB_SANDBOX_OFF] = "off",
    NULL,
};

#define IN_JOB(member) .offset = offsetof(struct job, member)
#define IN_DRIVE(member) .offset = offsetof(struct job_drive, member)
#define STREAM_LIMIT(key, member)                                                                  \
    {                                                                                              \
        .name = key, .type = JOB_TYPE_UINT, .offset = offsetof(struct job, member), .min = 0,      \
        .max = STREAM_LIMIT_MAX_BYTES                                                              \
    }
#define PATH_TEXT .min = 1, .max = ANY_LENGTH, .expected = "a path"

const struct job_field job_drive_fields[] = {
    {.name = "path", .type = JOB_TYPE_FILE, IN_DRIVE(image), PATH_TEXT},
    {.name = "mount",
     .type = JOB_TYPE_STRING,
     IN_DRIVE(mount),
     .min = 2,
     .max = ANY_LENGTH,
     .pattern = "^/[^/]",
     .expected = "an absolute path in the guest, below /"},
    {.name = "fstype", .type = JOB_TYPE_ENUM, IN_DRIVE(fstype), .names = fstype_names},
    {.name = NULL},
};

static const struct job_field limits_fields[] = {
    STREAM_LIMIT("stdout_bytes", limits.stdout_bytes),
    STREAM_LIMIT("stderr_bytes", limits.stderr_bytes),
    STREAM_LIMIT("output_bytes", limits.output_bytes),
    {.name = "console_bytes",
     .type = JOB_TYPE_UINT,
     IN_JOB(limits.console_bytes),
     .min = CONSOLE_LIMIT_MIN_BYTES,
     .max = CONSOLE_LIMIT_MAX_BYTES},
    {.name = NULL},
};

static const struct job_field large_outputs_fields[] = {
    {.name = "over_bytes",
     .type = JOB_TYPE_UINT,
     IN_JOB(large_outputs.over_bytes),
     .min = 0,
     .max = STREAM_LIMIT_MAX_BYTES},
    {.name = "dir", .type = JOB_TYPE_PATH, IN_JOB(large_outputs.dir), PATH_TEXT},
    {.name = NULL},
};

const struct job_field job_fields[JOB_KEY_COUNT + 1] = {
    [JOB_KEY_SCHEMA] = {.name = "$schema",
                        .type = JOB_TYPE_STRING,
                        IN_JOB(schema_uri),
                        .min = 0,
                        .max = ANY_LENGTH,
                        .expected = "a string"},
    [JOB_KEY_NAME] = {.name = "name",
                      .type = JOB_TYPE_STRING,
                      IN_JOB(name),
                      .min = 1,
                      .max = NAME_MAX_CHARS,
                      .expected = "a string of 1 to 256 characters"},
    [JOB_KEY_LABELS] = {.name = "labels",
                        .type = JOB_TYPE_PAIRS,
                        IN_JOB(labels),
                        .min = 0,
                        .max = LABEL_MAX_CHARS,
                        .items_max = LABELS_MAX,
                        .expected = "a string of at most 1024 characters"},
    [JOB_KEY_KERNEL_PATH] = {.name = "kernel_path",
                             .type = JOB_TYPE_FILE,
                             IN_JOB(kernel),
                             PATH_TEXT},
    [JOB_KEY_ROOTFS_PATH] = {.name = "rootfs_path",
                             .type = JOB_TYPE_FILE,
                             IN_JOB(rootfs),
                             PATH_TEXT},
    [JOB_KEY_ROOTFS_TYPE] = {.name = "rootfs_type",
                             .type = JOB_TYPE_ENUM,
                             IN_JOB(rootfs_type),
                             .names = fstype_names},
    [JOB_KEY_INITRD_PATH] = {.name = "initrd_path",
                             .type = JOB_TYPE_FILE,
                             IN_JOB(initrd),
                             PATH_TEXT},
    [JOB_KEY_VCPUS] = {.name = "vcpus",
                       .type = JOB_TYPE_UINT,
                       IN_JOB(vcpus),
                       .min = 1,
                       .max = VCPUS_MAX},
    [JOB_KEY_MEMORY_MIB] = {.name = "memory_mib",
                            .type = JOB_TYPE_UINT,
                            IN_JOB(memory_mib),
                            .min = MEMORY_MIN_MIB,
                            .max = MEMORY_MAX_MIB},
    [JOB_KEY_KERNEL_CMDLINE] = {.name = "kernel_cmdline",
                                .type = JOB_TYPE_STRING,
                                IN_JOB(kernel_cmdline),
                                .min = 0,
                                .max = CMDLINE_MAX_CHARS,
                                .pattern = "^[ -~]*$",
                                .expected = "at most 2047 printable ASCII characters"},
    [JOB_KEY_KERNEL_CMDLINE_APPEND] = {.name = "kernel_cmdline_append",
                                       .type = JOB_TYPE_STRING,
                                       IN_JOB(kernel_cmdline_append),
                                       .min = 0,
                                       .max = CMDLINE_MAX_CHARS,
                                       .pattern = "^[ -~]*$",
                                       .expected = "at most 2047 printable ASCII characters"},
    [JOB_KEY_VSOCK] = {.name = "vsock", .type = JOB_TYPE_BOOL, IN_JOB(vsock)},
    [JOB_KEY_VSOCK_PATH] = {.name = "vsock_path",
                            .type = JOB_TYPE_PATH,
                            IN_JOB(vsock_path),
                            PATH_TEXT},
    [JOB_KEY_TIMEOUT_SECS] = {.name = "timeout_secs",
                              .type = JOB_TYPE_UINT,
                              IN_JOB(timeout_secs),
                              .min = 0,
                              .max = TIMEOUT_MAX_SECS},
    [JOB_KEY_COMMAND] = {.name = "command",
                         .type = JOB_TYPE_COMMAND,
                         IN_JOB(command),
                         .min = 0,
                         .max = ARGUMENT_MAX_CHARS,
                         .items_max = ARGUMENTS_MAX,
                         .expected = "a string of at most 32000 characters"},
    [JOB_KEY_ENV] = {.name = "env",
                     .type = JOB_TYPE_ENV,
                     IN_JOB(env),
                     .min = 0,
                     .max = ARGUMENT_MAX_CHARS,
                     .items_max = ARGUMENTS_MAX,
                     .expected = "a string of at most 32000 characters"},
    [JOB_KEY_WORKDIR] = {.name = "workdir",
                         .type = JOB_TYPE_STRING,
                         IN_JOB(workdir),
                         .min = 1,
                         .max = ANY_LENGTH,
                         .pattern = "^/",
                         .expected = "an absolute path in the guest"},
    [JOB_KEY_USER] = {.name = "user",
                      .type = JOB_TYPE_STRING,
                      IN_JOB(user),
                      .min = 1,
                      .max = 255,
                      .pattern = "^[A-Za-z0-9_.-]+(:[A-Za-z0-9_.-]+)?$",
                      .expected = "a user, or user:group, each a name or a number"},
    [JOB_KEY_HOSTNAME] = {.name = "hostname",
                          .type = JOB_TYPE_STRING,
                          IN_JOB(hostname),
                          .min = 1,
                          .max = 64,
                          .pattern = "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$",
                          .expected = "a host name of at most 64 letters, digits, dots and hyphens"},
    [JOB_KEY_STDIN_PATH] = {.name = "stdin_path",
                            .type = JOB_TYPE_FILE,
                            IN_JOB(stdin_file),
                            PATH_TEXT},
    [JOB_KEY_TMPFS_MIB] = {.name = "tmpfs_mib",
                           .type = JOB_TYPE_UINT,
                           IN_JOB(tmpfs_mib),
                           .min = 0,
                           .max = MEMORY_MAX_MIB},
    [JOB_KEY_DRIVES] = {.name = "drives",
                        .type = JOB_TYPE_DRIVES,
                        IN_JOB(drives),
                        .items_max = JOB_DRIVES_MAX,
                        .fields = job_drive_fields},
    [JOB_KEY_OUTPUT_FILES] = {.name = "output_files",
                              .type = JOB_TYPE_STRINGS,
                              IN_JOB(output_files),
                              .min = 2,
                              .max = ANY_LENGTH,
                              .items_max = OUTPUT_FILES_MAX_PATTERNS,
                              .pattern = "^/[^/]",
                              .expected = "an absolute path or glob pattern in the guest"},
    [JOB_KEY_LIMITS] = {.name = "limits", .type = JOB_TYPE_OBJECT, .fields = limits_fields},
    [JOB_KEY_REPORT_PATH] = {.name = "report_path",
                             .type = JOB_TYPE_PATH,
                             IN_JOB(report_path),
                             .min = 1,
                             .max = ANY_LENGTH,
                             .expected = "a path, or \"-\" for standard output"},
    [JOB_KEY_LARGE_OUTPUTS] = {.name = "large_outputs",
                               .type = JOB_TYPE_OBJECT,
                               .fields = large_outputs_fields},
    [JOB_KEY_SANDBOX] = {.name = "sandbox",
                         .type = JOB_TYPE_ENUM,
                         IN_JOB(sandbox),
                         .names = sandbox_names},
};

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
