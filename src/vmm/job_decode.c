/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job_decode.c: JSON text to the fields of a struct job: syntax, unknown keys, wrong types.
 * Pure; thread: launcher.
 */
#include "vmm/job.h"

#include "vmm/job_fields.h"
#include "vmm/nearest.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Doubles from here on are no exact integers any more; every range of ours ends far below. */
#define EXACT_DOUBLE_MAX 9007199254740992.0

struct decoder {
    struct job *job;
    struct job_problems *problems;
    bool no_memory;
};

static void decode_object(struct decoder *d, json_t *object, const struct job_field *fields,
                          const char *path, void *base, uint64_t *given);

static const char *type_name(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    case JSON_NULL:
        return "null";
    }
    return "unknown";
}

/* The value as the job has it, shortened; big things by their kind only. */
static void show_value(char text[JOB_VALUE_TEXT_BYTES], const json_t *value)
{
    char quoted[JOB_VALUE_TEXT_BYTES];

    if (json_is_string(value)) {
        job_quote(quoted, json_string_value(value));
        snprintf(text, JOB_VALUE_TEXT_BYTES, "%.*s (a string)", JOB_VALUE_TEXT_BYTES - 16, quoted);
    } else if (json_is_integer(value)) {
        snprintf(text, JOB_VALUE_TEXT_BYTES, "%" JSON_INTEGER_FORMAT, json_integer_value(value));
    } else if (json_is_real(value)) {
        snprintf(text, JOB_VALUE_TEXT_BYTES, "%.17g", json_real_value(value));
    } else if (json_is_boolean(value)) {
        snprintf(text, JOB_VALUE_TEXT_BYTES, "%s", json_is_true(value) ? "true" : "false");
    } else {
        snprintf(text, JOB_VALUE_TEXT_BYTES, "%s", type_name(value));
    }
}

static void unwanted(struct decoder *d, const char *path, const json_t *value, const char *expected)
{
    char shown[JOB_VALUE_TEXT_BYTES];

    show_value(shown, value);
    job_problem(d->problems, d->job, "%s is %s; expected %s%s", path, shown, expected,
                json_is_null(value) ? " (leave the key out for its default)" : "");
}

static void unwanted_field(struct decoder *d, const char *path, const json_t *value,
                           const struct job_field *field)
{
    char expected[JOB_PATH_TEXT_BYTES];

    job_expected(expected, field);
    unwanted(d, path, value, expected);
}

/* A copy of a string that has no NUL inside; NULL after a problem was noted. */
static char *copy_string(struct decoder *d, const char *path, const json_t *value,
                         const char *expected)
{
    char *copy;

    if (!json_is_string(value)) {
        unwanted(d, path, value, expected);
        return NULL;
    }
    if (strlen(json_string_value(value)) != json_string_length(value)) {
        job_problem(d->problems, d->job,
                    "%s contains the character U+0000; expected a string without it", path);
        return NULL;
    }
    copy = strdup(json_string_value(value));
    d->no_memory = d->no_memory || !copy;
    return copy;
}

static void decode_uint(struct decoder *d, const json_t *value, const struct job_field *field,
                        const char *path, uint64_t *place)
{
    if (json_is_integer(value) && json_integer_value(value) >= 0) {
        *place = (uint64_t)json_integer_value(value);
        return;
    }
    if (json_is_real(value)) {
        double number = json_real_value(value);

        /* JSON Schema calls 2.0 an integer; so do we. */
        if (number >= 0 && number < EXACT_DOUBLE_MAX && number == (double)(uint64_t)number) {
            *place = (uint64_t)number;
            return;
        }
    }
    unwanted_field(d, path, value, field);
}

static void decode_bool(struct decoder *d, const json_t *value, const struct job_field *field,
                        const char *path, bool *place)
{
    if (json_is_boolean(value)) {
        *place = json_is_true(value);
    } else {
        unwanted_field(d, path, value, field);
    }
}

static void decode_enum(struct decoder *d, const json_t *value, const struct job_field *field,
                        const char *path, uint64_t *place)
{
    for (uint64_t i = 0; json_is_string(value) && field->names[i]; i++) {
        if (strlen(field->names[i]) == json_string_length(value) &&
            strcmp(field->names[i], json_string_value(value)) == 0) {
            *place = i;
            return;
        }
    }
    unwanted_field(d, path, value, field);
}

static void decode_string(struct decoder *d, const json_t *value, const struct job_field *field,
                          const char *path, char **place)
{
    char expected[JOB_PATH_TEXT_BYTES];
    char *copy;

    job_expected(expected, field);
    copy = copy_string(d, path, value, expected);
    if (copy) {
        free(*place);
        *place = copy;
    }
}

/* Room for count strings and the NULL behind them. */
static bool reserve_strings(struct decoder *d, struct job_strings *strings, size_t count)
{
    strings->items = calloc(count + 1, sizeof(*strings->items));
    d->no_memory = d->no_memory || !strings->items;
    return strings->items != NULL;
}

static void decode_strings(struct decoder *d, const json_t *value, const struct job_field *field,
                           const char *path, struct job_strings *place)
{
    char item_path[JOB_PATH_TEXT_BYTES];
    size_t count = json_array_size(value);

    if (!json_is_array(value) || count > field->items_max) {
        unwanted_field(d, path, value, field);
        return;
    }
    if (!reserve_strings(d, place, count)) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        char *copy;

        job_path_index(item_path, path, i);
        copy = copy_string(d, item_path, json_array_get(value, i), field->expected);
        if (copy) {
            place->items[place->count++] = copy;
        }
    }
}

/* A command in one string is the shell's business. */
static void decode_shell_command(struct decoder *d, const json_t *value,
                                 const struct job_field *field, const char *path,
                                 struct job_strings *place)
{
    char *script;

    if (json_string_length(value) == 0) {
        unwanted_field(d, path, value, field);
        return;
    }
    script = copy_string(d, path, value, field->expected);
    if (!script || !reserve_strings(d, place, 3)) {
        free(script);
        return;
    }
    place->items[0] = strdup("/bin/sh");
    place->items[1] = strdup("-c");
    place->items[2] = script;
    place->count = 3;
    d->no_memory = d->no_memory || !place->items[0] || !place->items[1];
}

static void decode_command(struct decoder *d, const json_t *value, const struct job_field *field,
                           const char *path, struct job_strings *place)
{
    if (json_is_string(value)) {
        decode_shell_command(d, value, field, path, place);
    } else if (json_is_array(value) && json_array_size(value) == 0) {
        unwanted_field(d, path, value, field);
    } else {
        decode_strings(d, value, field, path, place);
    }
}

static bool check_env_name(struct decoder *d, const char *path, const char *name)
{
    if (name[0] != '\0' && job_text_chars(name) <= JOB_ENV_NAME_MAX && !strchr(name, '=')) {
        return true;
    }
    job_problem(
        d->problems, d->job,
        "%s is no name for an environment variable; expected 1 to %d characters without '='", path,
        JOB_ENV_NAME_MAX);
    return false;
}

static void decode_env(struct decoder *d, json_t *value, const struct job_field *field,
                       const char *path, struct job_strings *place)
{
    char item_path[JOB_PATH_TEXT_BYTES];
    const char *name;
    json_t *item;

    if (!json_is_object(value) || json_object_size(value) > field->items_max) {
        unwanted_field(d, path, value, field);
        return;
    }
    if (!reserve_strings(d, place, json_object_size(value))) {
        return;
    }
    json_object_foreach(value, name, item)
    {
        char *text;

        job_path_member(item_path, path, name);
        if (!check_env_name(d, item_path, name)) {
            continue;
        }
        text = copy_string(d, item_path, item, field->expected);
        if (text && asprintf(&place->items[place->count], "%s=%s", name, text) < 0) {
            place->items[place->count] = NULL;
            d->no_memory = true;
        }
        place->count += place->items[place->count] != NULL;
        free(text);
    }
}

static bool check_label_name(struct decoder *d, const char *path, const char *name)
{
    if (name[0] != '\0' && job_text_chars(name) <= JOB_LABEL_NAME_MAX) {
        return true;
    }
    job_problem(d->problems, d->job, "%s is no name for a label; expected 1 to %d characters", path,
                JOB_LABEL_NAME_MAX);
    return false;
}

static void decode_pairs(struct decoder *d, json_t *value, const struct job_field *field,
                         const char *path, struct job_pairs *place)
{
    char item_path[JOB_PATH_TEXT_BYTES];
    const char *name;
    json_t *item;

    if (!json_is_object(value) || json_object_size(value) > field->items_max) {
        unwanted_field(d, path, value, field);
        return;
    }
    place->items = calloc(json_object_size(value) + 1, sizeof(*place->items));
    if (!place->items) {
        d->no_memory = true;
        return;
    }
    json_object_foreach(value, name, item)
    {
        char *text;

        job_path_member(item_path, path, name);
        text = copy_string(d, item_path, item, field->expected);
        if (text && check_label_name(d, item_path, name)) {
            place->items[place->count] = (struct job_pair){.name = strdup(name), .value = text};
            d->no_memory = d->no_memory || !place->items[place->count].name;
            place->count++;
        } else {
            free(text);
        }
    }
}

static void decode_drive(struct decoder *d, json_t *value, const struct job_field *field,
                         const char *path, struct job_drive *drive)
{
    uint64_t ignored = 0;
    char mount_path[JOB_PATH_TEXT_BYTES];

    if (!json_is_object(value)) {
        unwanted(d, path, value, "an object with the key \"path\"");
        return;
    }
    decode_object(d, value, field->fields, path, drive, &ignored);
    if (!json_object_get(value, "path")) {
        job_problem(d->problems, d->job, "%s has no \"path\"; expected the path of an image", path);
    }
    if (json_object_get(value, "fstype") && !json_object_get(value, "mount")) {
        job_path_member(mount_path, path, "fstype");
        job_problem(d->problems, d->job,
                    "%s needs \"mount\" beside it: a drive that is not mounted may hold anything",
                    mount_path);
    }
}

static void decode_drives(struct decoder *d, const json_t *value, const struct job_field *field,
                          const char *path)
{
    char item_path[JOB_PATH_TEXT_BYTES];

    if (!json_is_array(value) || json_array_size(value) > field->items_max) {
        unwanted_field(d, path, value, field);
        return;
    }
    d->job->drive_count = json_array_size(value);
    for (size_t i = 0; i < d->job->drive_count; i++) {
        job_path_index(item_path, path, i);
        decode_drive(d, json_array_get(value, i), field, item_path, &d->job->drives[i]);
    }
}

static void decode_field(struct decoder *d, json_t *value, const struct job_field *field,
                         const char *path, void *base)
{
    void *place = (char *)base + field->offset;
    uint64_t ignored = 0;

    switch (field->type) {
    case JOB_TYPE_UINT:
        decode_uint(d, value, field, path, place);
        break;
    case JOB_TYPE_BOOL:
        decode_bool(d, value, field, path, place);
        break;
    case JOB_TYPE_ENUM:
        decode_enum(d, value, field, path, place);
        break;
    case JOB_TYPE_STRING:
    case JOB_TYPE_PATH:
        decode_string(d, value, field, path, place);
        break;
    case JOB_TYPE_FILE:
        decode_string(d, value, field, path, &((struct job_file *)place)->path);
        break;
    case JOB_TYPE_STRINGS:
        decode_strings(d, value, field, path, place);
        break;
    case JOB_TYPE_COMMAND:
        decode_command(d, value, field, path, place);
        break;
    case JOB_TYPE_ENV:
        decode_env(d, value, field, path, place);
        break;
    case JOB_TYPE_PAIRS:
        decode_pairs(d, value, field, path, place);
        break;
    case JOB_TYPE_OBJECT:
        if (json_is_object(value)) {
            decode_object(d, value, field->fields, path, base, &ignored);
        } else {
            unwanted_field(d, path, value, field);
        }
        break;
    case JOB_TYPE_DRIVES:
        decode_drives(d, value, field, path);
        break;
    }
}

static const char *field_name_at(const void *ctx, size_t i)
{
    const struct job_field *fields = ctx;

    return fields[i].name;
}

static void unknown_key(struct decoder *d, const struct job_field *fields, const char *path,
                        const char *name)
{
    const char *nearest = nearest_name(name, field_name_at, fields);

    if (nearest) {
        job_problem(d->problems, d->job, "%s is not a known key; did you mean \"%s\"?", path,
                    nearest);
    } else {
        job_problem(d->problems, d->job,
                    "%s is not a known key; `bvmm schema job` lists the known ones", path);
    }
}

/* given: where to note, a bit for each row of the table, which fields there were. */
static void decode_object(struct decoder *d, json_t *object, const struct job_field *fields,
                          const char *path, void *base, uint64_t *given)
{
    char member_path[JOB_PATH_TEXT_BYTES];
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        const struct job_field *field = fields;

        job_path_member(member_path, path, name);
        while (field->name && strcmp(field->name, name) != 0) {
            field++;
        }
        if (!field->name) {
            unknown_key(d, fields, member_path, name);
            continue;
        }
        *given |= (uint64_t)1 << (field - fields);
        decode_field(d, value, field, member_path, base);
    }
}

/* "-" as in the command line. */
static void settle_report_path(struct job *job)
{
    if (job->report_path && strcmp(job->report_path, "-") == 0) {
        free(job->report_path);
        job->report_path = NULL;
    }
}

json_t *job_parse(const struct job *job, const char *text, size_t bytes,
                  struct job_problems *problems)
{
    json_error_t error;
    json_t *root;

    if (bytes > JOB_TEXT_BYTES_MAX) {
        job_problem(problems, job, "is larger than %" PRIu64 " bytes; expected a job file",
                    (uint64_t)JOB_TEXT_BYTES_MAX);
        return NULL;
    }
    root =
        json_loadb(text, bytes, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_ALLOW_NUL, &error);
    if (!root) {
        const bool twice = json_error_code(&error) == json_error_duplicate_key;

        job_problem(problems, job, "line %d, column %d: %s; expected %s", error.line, error.column,
                    error.text, twice ? "each key once" : "JSON");
    }
    return root;
}

int job_decode_json(struct job *job, json_t *root, struct job_problems *problems)
{
    struct decoder d = {.job = job, .problems = problems};
    size_t problems_before = problems->count;

    if (json_is_object(root)) {
        decode_object(&d, root, job_fields, "$", job, &job->given);
    } else {
        unwanted(&d, "$", root, "an object: the job");
    }
    settle_report_path(job);
    if (d.no_memory) {
        job_problem(problems, job, "out of memory");
    }
    return problems->count > problems_before ? -EINVAL : 0;
}

int job_decode(struct job *job, const char *text, size_t bytes, struct job_problems *problems)
{
    json_t *root = job_parse(job, text, bytes, problems);
    int r = root ? job_decode_json(job, root, problems) : -EINVAL;

    json_decref(root);
    return r;
}
