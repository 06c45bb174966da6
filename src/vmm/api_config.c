/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* api_config.c: the public library's configurations. See api.h. Thread: see bvmm.h. */
#include "vmm/api.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

static int no_memory(struct bvmm_error *error)
{
    return error_set(error, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
}

/* ---- Making ---------------------------------------------------------------------------------- */

/* Takes the reference to keys, and the source and base directory of job. */
static int config_from(json_t *keys, struct job *job, struct bvmm_config **ret_config,
                       struct bvmm_error *error)
{
    struct bvmm_config *config = calloc(1, sizeof(*config));

    if (config == NULL || keys == NULL) {
        json_decref(keys);
        free(config);
        return no_memory(error);
    }
    config->keys = keys;
    config->source = job->source;
    config->base_dir = job->base_dir;
    job->source = NULL;
    job->base_dir = NULL;
    *ret_config = config;
    return 0;
}

int bvmm_config_new(struct bvmm_config **ret_config, struct bvmm_error *error)
{
    struct job job;
    int code = job_init_defaults(&job); /* for the name that messages give it */

    code = code == 0 ? config_from(json_object(), &job, ret_config, error) : no_memory(error);
    job_fini(&job);
    return code;
}

/*
 * Takes the reference to keys, which may be NULL: then problems says why. The same messages as for
 * a job that is run by the command.
 */
static int config_from_json(json_t *keys, struct job *job, struct job_problems *problems, int code,
                            struct bvmm_config **ret_config, struct bvmm_error *error)
{
    if (keys != NULL && !json_is_object(keys)) {
        code = job_decode_json(job, keys, problems);
    }
    if (code == 0) {
        return config_from(keys, job, ret_config, error);
    }
    json_decref(keys);
    if (error != NULL) {
        job_problems_to_error(problems, error);
    }
    return code;
}

int bvmm_config_parse(const char *json, size_t bytes, struct bvmm_config **ret_config,
                      struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    json_t *keys = NULL;
    struct job job;
    int code = job_init_defaults(&job);

    if (code < 0) {
        job_fini(&job);
        return no_memory(error);
    }
    keys = job_parse(&job, json, bytes, &problems);
    code = config_from_json(keys, &job, &problems, keys == NULL ? -EINVAL : 0, ret_config, error);
    job_fini(&job);
    return code;
}

int bvmm_config_load(const char *path, struct bvmm_config **ret_config, struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    json_t *keys = NULL;
    struct job job;
    int code = job_read(path, &job, &keys, &problems);

    code = config_from_json(keys, &job, &problems, code, ret_config, error);
    job_fini(&job);
    return code;
}

void bvmm_config_free(struct bvmm_config *config)
{
    if (config != NULL) {
        json_decref(config->keys);
        free(config->source);
        free(config->base_dir);
        free(config);
    }
}

/* ---- Setting --------------------------------------------------------------------------------- */

#define OUTER_KEY_BYTES 64

/* "limits.stdout_bytes": the part before the dot, if there is one. */
static bool split_key(const char *key, char outer[OUTER_KEY_BYTES], const char **ret_inner)
{
    const char *dot = strchr(key, '.');

    if (dot == NULL || (size_t)(dot - key) >= OUTER_KEY_BYTES) {
        return false;
    }
    memcpy(outer, key, (size_t)(dot - key));
    outer[dot - key] = '\0';
    *ret_inner = dot + 1;
    return true;
}

/* Takes the reference to value. */
static int set_in_object(json_t *keys, const char *outer, const char *inner, json_t *value)
{
    json_t *object = json_object_get(keys, outer);
    const bool is_new = !json_is_object(object);
    int code = 0;

    if (is_new) {
        object = json_object();
    }
    code = json_object_set_new(object, inner, value);
    if (!is_new) {
        return code;
    }
    if (code < 0) {
        json_decref(object);
        return code;
    }
    return json_object_set_new(keys, outer, object);
}

/* Takes the reference to value; NULL: it could not be made. */
static int config_set(struct bvmm_config *config, const char *key, json_t *value,
                      struct bvmm_error *error)
{
    char outer[OUTER_KEY_BYTES];
    const char *inner = NULL;
    int code = 0;

    if (value == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL,
                         "the value of \"%.200s\" is no UTF-8 text, or there is no memory for it",
                         key);
    }
    code = split_key(key, outer, &inner) ? set_in_object(config->keys, outer, inner, value)
                                         : json_object_set_new(config->keys, key, value);
    return code < 0
               ? error_set(error, BVMM_ERROR_JOB, -EINVAL,
                           "the key \"%.200s\" is no UTF-8 text, or there is no memory for it", key)
               : 0;
}

int bvmm_config_set_string(struct bvmm_config *config, const char *key, const char *value,
                           struct bvmm_error *error)
{
    return config_set(config, key, json_string(value), error);
}

int bvmm_config_set_uint(struct bvmm_config *config, const char *key, uint64_t value,
                         struct bvmm_error *error)
{
    if (value > INT64_MAX) {
        return error_set(error, BVMM_ERROR_JOB, -ERANGE,
                         "the value of \"%.200s\" is above 2^63 - 1", key);
    }
    return config_set(config, key, json_integer((json_int_t)value), error);
}

int bvmm_config_set_bool(struct bvmm_config *config, const char *key, bool value,
                         struct bvmm_error *error)
{
    return config_set(config, key, json_boolean(value), error);
}

int bvmm_config_set_strings(struct bvmm_config *config, const char *key, const char *const *values,
                            struct bvmm_error *error)
{
    json_t *array = json_array();

    for (; array != NULL && *values != NULL; values++) {
        if (json_array_append_new(array, json_string(*values)) < 0) {
            json_decref(array);
            array = NULL;
        }
    }
    return config_set(config, key, array, error);
}

int bvmm_config_set_json(struct bvmm_config *config, const char *key, const char *json,
                         struct bvmm_error *error)
{
    json_error_t json_error;
    json_t *value = json_loads(json, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &json_error);

    if (value == NULL) {
        return error_set(error, BVMM_ERROR_JOB, -EINVAL, "the value of \"%.200s\": column %d: %s",
                         key, json_error.column, json_error.text);
    }
    return config_set(config, key, value, error);
}

int bvmm_config_unset(struct bvmm_config *config, const char *key, struct bvmm_error *error)
{
    char outer[OUTER_KEY_BYTES];
    const char *inner = NULL;

    (void)error;
    if (split_key(key, outer, &inner)) {
        (void)json_object_del(json_object_get(config->keys, outer), inner);
    } else {
        (void)json_object_del(config->keys, key);
    }
    return 0; /* it may not have been there */
}

int bvmm_config_json(const struct bvmm_config *config, char **ret_json, struct bvmm_error *error)
{
    char *json = json_dumps(config->keys, JSON_INDENT(2));

    if (json == NULL) {
        return no_memory(error);
    }
    *ret_json = json;
    return 0;
}

/* ---- Checking -------------------------------------------------------------------------------- */

static int add_no_memory(struct job_problems *problems)
{
    problems->count = 1;
    return no_memory(&problems->items[0]);
}

int api_job_from_config(const struct bvmm_config *config, bool with_files, struct job *ret_job,
                        struct job_problems *problems)
{
    int code = job_init_defaults(ret_job);

    if (code == 0) {
        free(ret_job->source);
        ret_job->source = strdup(config->source);
        ret_job->base_dir = config->base_dir != NULL ? strdup(config->base_dir) : NULL;
    }
    if (code < 0 || ret_job->source == NULL ||
        (ret_job->base_dir == NULL && config->base_dir != NULL)) {
        return add_no_memory(problems);
    }
    code = job_decode_json(ret_job, config->keys, problems);
    /* What could be decoded is checked too: better to hear of all that is wrong at once. */
    if (job_check(ret_job, problems) < 0 || code < 0) {
        return -EINVAL;
    }
    return with_files ? job_open_files(ret_job, problems) : 0;
}

static void tell_problems(const struct job_problems *problems, bvmm_problem_fn problem,
                          void *context)
{
    const size_t kept = min_u64(problems->count, JOB_PROBLEMS_MAX);
    char more[64];

    for (size_t i = 0; i < kept; i++) {
        problem(context, problems->items[i].message);
    }
    if (problems->count > kept) {
        (void)snprintf(more, sizeof(more), "and %zu more", problems->count - kept);
        problem(context, more);
    }
}

int bvmm_config_check(const struct bvmm_config *config, bool with_files, bvmm_problem_fn problem,
                      void *context, struct bvmm_error *error)
{
    struct job_problems problems = {.count = 0};
    struct job job;
    const int code = api_job_from_config(config, with_files, &job, &problems);

    job_fini(&job);
    if (problem != NULL) {
        tell_problems(&problems, problem, context);
    }
    if (code < 0 && error != NULL) {
        job_problems_to_error(&problems, error);
    }
    return code;
}
