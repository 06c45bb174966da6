/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job_check.c: ranges, forms, and what does not go together. Looks at the fields only, so that a
 * job which a program has filled in field by field is checked by the same rules as a file.
 * Pure; thread: launcher.
 */
#include "vmm/job.h"

#include "vmm/job_fields.h"

#include <errno.h>
#include <inttypes.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checker {
    const struct job *job;
    struct job_problems *problems;
};

/* The patterns are ours and short, so compiling one anew for each use costs nothing that counts. */
static bool matches(const char *pattern, const char *text)
{
    regex_t regex;
    bool found;

    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB) != 0) {
        return false;
    }
    found = regexec(&regex, text, 0, NULL, 0) == 0;
    regfree(&regex);
    return found;
}

static void check_uint(struct checker *c, const struct job_field *field, const char *path,
                       uint64_t value)
{
    char expected[JOB_PATH_TEXT_BYTES];

    if (value < field->min || value > field->max) {
        job_expected(expected, field);
        job_problem(c->problems, c->job, "%s is %" PRIu64 "; expected %s", path, value, expected);
    }
}

static void check_string(struct checker *c, const struct job_field *field, const char *path,
                         const char *text)
{
    char shown[JOB_VALUE_TEXT_BYTES];
    size_t chars;

    if (!text) {
        return;
    }
    chars = job_text_chars(text);
    if (chars < field->min || chars > field->max ||
        (field->pattern && !matches(field->pattern, text))) {
        job_quote(shown, text);
        job_problem(c->problems, c->job, "%s is %s; expected %s", path, shown, field->expected);
    }
}

static void check_count(struct checker *c, const struct job_field *field, const char *path,
                        size_t count)
{
    if (count > field->items_max) {
        job_problem(c->problems, c->job, "%s has %zu items; expected at most %" PRIu64, path, count,
                    field->items_max);
    }
}

static void check_strings(struct checker *c, const struct job_field *field, const char *path,
                          const struct job_strings *strings)
{
    char item_path[JOB_PATH_TEXT_BYTES];

    check_count(c, field, path, strings->count);
    for (size_t i = 0; i < strings->count; i++) {
        job_path_index(item_path, path, i);
        check_string(c, field, item_path, strings->items[i]);
    }
}

static void check_command(struct checker *c, const struct job_field *field, const char *path,
                          const struct job_strings *command)
{
    char item_path[JOB_PATH_TEXT_BYTES];

    check_strings(c, field, path, command);
    if (command->count > 0 && command->items[0][0] == '\0') {
        job_path_index(item_path, path, 0);
        job_problem(c->problems, c->job, "%s is \"\"; expected the name of a program", item_path);
    }
}

static void check_env(struct checker *c, const struct job_field *field, const char *path,
                      const struct job_strings *env)
{
    char item_path[JOB_PATH_TEXT_BYTES];
    char name[JOB_VALUE_TEXT_BYTES];

    check_count(c, field, path, env->count);
    for (size_t i = 0; i < env->count; i++) {
        const char *equals = strchr(env->items[i], '=');

        if (!equals || equals == env->items[i]) {
            job_quote(name, env->items[i]);
            job_problem(c->problems, c->job, "%s has %s; expected NAME=value", path, name);
            continue;
        }
        snprintf(name, sizeof(name), "%.*s", (int)min_u64(64, (uint64_t)(equals - env->items[i])),
                 env->items[i]);
        job_path_member(item_path, path, name);
        check_string(c, field, item_path, equals + 1);
    }
}

static void check_pairs(struct checker *c, const struct job_field *field, const char *path,
                        const struct job_pairs *pairs)
{
    char item_path[JOB_PATH_TEXT_BYTES];

    check_count(c, field, path, pairs->count);
    for (size_t i = 0; i < pairs->count; i++) {
        job_path_member(item_path, path, pairs->items[i].name);
        check_string(c, field, item_path, pairs->items[i].value);
    }
}

static void check_enum(struct checker *c, const struct job_field *field, const char *path,
                       uint64_t value)
{
    char expected[JOB_PATH_TEXT_BYTES];
    uint64_t count = 0;

    while (field->names[count]) {
        count++;
    }
    if (value >= count) {
        job_expected(expected, field);
        job_problem(c->problems, c->job, "%s is number %" PRIu64 "; expected %s", path, value,
                    expected);
    }
}

static void check_fields(struct checker *c, const struct job_field *fields, const char *parent,
                         const void *base);

/* Of its own, or of its image. */
static bool has_command(const struct job *job)
{
    return job_given(job, JOB_KEY_COMMAND) || job_given(job, JOB_KEY_IMAGE);
}

static void check_drives(struct checker *c, const struct job_field *field, const char *path)
{
    char item_path[JOB_PATH_TEXT_BYTES];

    check_count(c, field, path, c->job->drive_count);
    for (size_t i = 0; i < min_u64(c->job->drive_count, JOB_DRIVES_MAX); i++) {
        const struct job_drive *drive = &c->job->drives[i];

        job_path_index(item_path, path, i);
        check_fields(c, field->fields, item_path, drive);
        if (drive->mount && !has_command(c->job)) {
            job_problem(
                c->problems, c->job,
                "%s.mount needs \"command\" or \"image\": only bvmm's own init mounts drives",
                item_path);
        }
    }
}

static void check_field(struct checker *c, const struct job_field *field, const char *path,
                        const void *base)
{
    const void *place = (const char *)base + field->offset;

    switch (field->type) {
    case JOB_TYPE_UINT:
        check_uint(c, field, path, *(const uint64_t *)place);
        break;
    case JOB_TYPE_ENUM:
        check_enum(c, field, path, *(const uint64_t *)place);
        break;
    case JOB_TYPE_STRING:
    case JOB_TYPE_PATH:
        check_string(c, field, path, *(char *const *)place);
        break;
    case JOB_TYPE_FILE:
        check_string(c, field, path, ((const struct job_file *)place)->path);
        break;
    case JOB_TYPE_STRINGS:
        check_strings(c, field, path, place);
        break;
    case JOB_TYPE_COMMAND:
        check_command(c, field, path, place);
        break;
    case JOB_TYPE_ENV:
        check_env(c, field, path, place);
        break;
    case JOB_TYPE_PAIRS:
        check_pairs(c, field, path, place);
        break;
    case JOB_TYPE_OBJECT:
        check_fields(c, field->fields, path, base);
        break;
    case JOB_TYPE_DRIVES:
        check_drives(c, field, path);
        break;
    case JOB_TYPE_BOOL:
        break;
    }
}

static void check_fields(struct checker *c, const struct job_field *fields, const char *parent,
                         const void *base)
{
    char path[JOB_PATH_TEXT_BYTES];

    for (const struct job_field *field = fields; field->name; field++) {
        job_path_member(path, parent, field->name);
        check_field(c, field, path, base);
    }
}

/* ---- What does not go together --------------------------------------------------------------- */

static void check_root(struct checker *c)
{
    const struct job *job = c->job;
    const bool has_root = job_given(job, JOB_KEY_ROOTFS_PATH) || job_given(job, JOB_KEY_IMAGE);

    if (job_given(job, JOB_KEY_ROOTFS_TYPE) && !job_given(job, JOB_KEY_ROOTFS_PATH)) {
        job_problem(c->problems, job,
                    "$.rootfs_type needs \"rootfs_path\" beside it: it says what is in that image");
    }
    if (job_given(job, JOB_KEY_ROOTFS_PATH) && job_given(job, JOB_KEY_IMAGE)) {
        job_problem(c->problems, job,
                    "$.rootfs_path and $.image both name the root file system; leave one of them "
                    "out");
    }
    if (!has_root && (!job_given(job, JOB_KEY_INITRD_PATH) || has_command(job))) {
        job_problem(
            c->problems, job,
            "$.rootfs_path is missing; expected the path of a root file system image, or \"image\" "
            "with something to make one from (a job without a command may have \"initrd_path\" "
            "instead)");
    }
}

/* What a pattern cannot say: each range of "0-1,3" goes up. Of another form: complained of already. */
static void check_cpus(struct checker *c)
{
    const char *cpus = c->job->cgroup.cpus;
    unsigned long first = 0;
    char *end = NULL;

    for (const char *at = cpus; at && *at; at = *end == '\0' ? end : end + 1) {
        const unsigned long number = strtoul(at, &end, 10);

        if (end == at) {
            return;
        }
        if (at > cpus && at[-1] == '-' && number < first) {
            job_problem(c->problems, c->job,
                        "$.cgroup.cpus has the range %lu-%lu; expected ranges that go up: %lu-%lu",
                        first, number, number, first);
            return;
        }
        first = number;
    }
}

static void check_combinations(struct checker *c)
{
    static const enum job_key for_init[] = {
        JOB_KEY_ENV,        JOB_KEY_WORKDIR,   JOB_KEY_USER,         JOB_KEY_HOSTNAME,
        JOB_KEY_STDIN_PATH, JOB_KEY_TMPFS_MIB, JOB_KEY_OUTPUT_FILES,
    };
    const struct job *job = c->job;

    for (size_t i = 0; i < ARRAY_SIZE(for_init); i++) {
        if (job_given(job, for_init[i]) && !has_command(job)) {
            job_problem(c->problems, job,
                        "$.%s needs \"command\" (or \"image\") beside it: it is for bvmm's own "
                        "init, and the image's init runs when no command is named",
                        job_fields[for_init[i]].name);
        }
    }
    check_root(c);
    check_cpus(c);
    if (job_given(job, JOB_KEY_VSOCK_PATH) && !job->vsock) {
        job_problem(
            c->problems, job,
            "$.vsock is false, and $.vsock_path names a socket for it; leave one of them out");
    }
}

int job_check(const struct job *job, struct job_problems *problems)
{
    struct checker c = {.job = job, .problems = problems};
    size_t problems_before = problems->count;

    check_fields(&c, job_fields, "$", job);
    check_combinations(&c);
    return problems->count > problems_before ? -EINVAL : 0;
}
