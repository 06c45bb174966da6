/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job_image.c: a job's "image": converted by bvmm-image, once (it has a cache), and what the image
 * says of its command is used where the job says nothing.
 *
 * Nothing of the image is read here but the JSON beside it, which bvmm-image wrote; its strings are
 * the image's, and are checked as those of a job are.
 *
 * Thread: launcher. Blocks until bvmm-image has ended.
 */
#include "vmm/job.h"

#include "vmm/file_kind.h"
#include "vmm/job_fields.h"
#include "vmm/tool.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TOOL_NAME "bvmm-image"
#define TOOL_VARIABLE "BVMM_IMAGE_TOOL"

struct taker {
    struct job *job;
    struct job_problems *problems;
    char tool[PATH_MAX];
    int cancel_fd;
    bool no_memory;
};

static int problem(struct taker *t, const char *what, const char *why)
{
    char shown[JOB_VALUE_TEXT_BYTES];

    job_quote(shown, t->job->image);
    job_problem(t->problems, t->job, "$.image: %s: %s%s%s", shown, what, why[0] ? ": " : "", why);
    return -EINVAL;
}

/* ---- Does it exist? -------------------------------------------------------------------------- */

#define EXPECTED_IMAGE                                                                             \
    "expected an OCI layout (DIR or DIR:TAG), a docker save file (FILE or FILE:NAME), a "          \
    "directory, "                                                                                  \
    "or a squashfs image"

/* PATH, or the PATH of PATH:TAG for some colon, as bvmm-image reads it. NULL: it is not there. */
static char *find_source(struct taker *t)
{
    struct stat status;
    char *path = strdup(t->job->image);
    bool found = path && lstat(path, &status) == 0;

    t->no_memory = !path;
    for (char *c = path; path && !found && *c; c++) {
        if (*c == ':' && c > path && c[1] != '\0') {
            *c = '\0';
            found = stat(path, &status) == 0;
            *c = found ? '\0' : ':';
        }
    }
    if (!found) {
        free(path);
    }
    return found ? path : NULL;
}

/* Is there something in it that bvmm-image may take? What it then finds inside is its business. */
static int look_into(struct taker *t, int fd)
{
    uint8_t head[FILE_HEAD_BYTES];
    struct image_facts facts;
    char what[192];
    const ssize_t n = pread(fd, head, sizeof(head), 0);

    if (n < 0) {
        return problem(t, "cannot be read", error_text(errno));
    }
    image_identify(head, (size_t)n, &facts);
    if (facts.fstype == JOB_FSTYPE_SQUASHFS || archive_identify(head, (size_t)n)) {
        return 0;
    }
    (void)snprintf(what, sizeof(what), "is %s; " EXPECTED_IMAGE,
                   n == 0 ? "empty" : file_describe(head, (size_t)n));
    return problem(t, what, "");
}

static int look_at_source(struct taker *t, const char *path)
{
    struct stat status;
    const int fd = job_open_regular(path, &status);
    int code = 0;

    if (fd >= 0) {
        code = look_into(t, fd);
        (void)close(fd);
    } else if (status.st_mode == 0) {
        code = problem(t, "cannot be opened", error_text(errno));
    } else if (!S_ISDIR(status.st_mode)) {
        code = problem(t, "neither a file nor a directory; " EXPECTED_IMAGE, "");
    }
    return code;
}

int job_look_for_image(struct job *job, struct job_problems *problems)
{
    struct taker t = {.job = job, .problems = problems};
    char *path = job->image ? find_source(&t) : NULL;
    int code = 0;

    if (path) {
        code = look_at_source(&t, path);
    } else if (t.no_memory) {
        code = problem(&t, "out of memory", "");
    } else if (job->image) {
        code = problem(&t, "no such file or directory; " EXPECTED_IMAGE, "");
    }
    free(path);
    return code;
}

/* ---- bvmm-image ------------------------------------------------------------------------------ */

static int find_tool(struct taker *t)
{
    const char *chosen = secure_getenv(TOOL_VARIABLE);

    if (tool_find(TOOL_VARIABLE, TOOL_NAME, t->tool) == 0) {
        return 0;
    }
    if (chosen && chosen[0]) {
        return problem(t, TOOL_VARIABLE " names no program that can be run", chosen);
    }
    return problem(t,
                   TOOL_NAME
                   " is needed, and it is neither beside bvmm nor in " BVMM_TOOL_INSTALL_DIR
                   " nor in PATH; install it, set " TOOL_VARIABLE
                   ", or name a squashfs image as \"rootfs_path\"",
                   "");
}

static void explain_end(const struct tool_result *result, char what[64])
{
    if (result->term_signal) {
        (void)snprintf(what, 64, TOOL_NAME " was ended by signal %d", result->term_signal);
    } else {
        (void)snprintf(what, 64, TOOL_NAME " failed with status %d", result->exit_code);
    }
}

/* `bvmm-image SUBCOMMAND -- PATH`: what it prints. */
static int ask_tool(struct taker *t, const char *subcommand, const char *path,
                    struct tool_result *result)
{
    char *argv[] = {(char *)(uintptr_t)TOOL_NAME, (char *)(uintptr_t)subcommand,
                    (char *)(uintptr_t) "--", (char *)(uintptr_t)path, NULL};
    char what[64];
    const int code = tool_run(t->tool, argv, t->cancel_fd, result);

    if (code == -ECANCELED) {
        return code;
    }
    if (code < 0) {
        (void)snprintf(what, sizeof(what), "cannot run " TOOL_NAME " (%s)", error_text(-code));
        return problem(t, what, t->tool);
    }
    if (result->exit_code != 0) {
        explain_end(result, what);
        return problem(t, what, result->said);
    }
    return 0;
}

/* The converted image's path, and what the tool had to note. */
static int convert(struct taker *t)
{
    struct job *job = t->job;
    struct tool_result result;
    int code = ask_tool(t, "cached", job->image, &result);

    if (code == 0) {
        if (result.output_bytes > 0 && result.output[result.output_bytes - 1] == '\n') {
            result.output[--result.output_bytes] = '\0';
        }
        if (result.output_bytes == 0 || result.output[0] != '/') {
            code = problem(t, TOOL_NAME " did not print the absolute path of an image",
                           result.output ? result.output : "");
        }
    }
    if (code == 0) {
        job->rootfs.path = strdup(result.output);
        job->image_notes = result.said[0] ? strdup(result.said) : NULL;
        t->no_memory = !job->rootfs.path || (result.said[0] && !job->image_notes);
    }
    tool_result_fini(&result);
    return code;
}

/* ---- Its configuration ----------------------------------------------------------------------- */

/* Does the JSON beside an image belong to it? One that was replaced has another size, most likely.
 */
static bool belongs_to(json_t *config, const char *path)
{
    json_int_t said =
        json_integer_value(json_object_get(json_object_get(config, "squashfs"), "bytes"));
    struct stat status;

    return stat(path, &status) == 0 && said == (json_int_t)status.st_size;
}

/* From PATH.json: *ret_config stays NULL if there is none. */
static int read_beside(struct taker *t, json_t **ret_config)
{
    const char *path = t->job->rootfs.path;
    struct stat status;
    json_error_t error;
    char *beside = NULL;
    int code = 0;

    if (asprintf(&beside, "%s.json", path) < 0) {
        t->no_memory = true;
        return 0;
    }
    if (stat(beside, &status) == 0) {
        *ret_config = json_load_file(beside, JSON_REJECT_DUPLICATES, &error);
        if (!*ret_config) {
            code = problem(t, "the JSON beside the image cannot be read; convert it again",
                           error.text);
        } else if (!belongs_to(*ret_config, path)) {
            code =
                problem(t, "the JSON beside it belongs to another image; convert it again", beside);
        }
    }
    free(beside);
    return code;
}

/* A squashfs that stands alone may have its configuration inside. */
static int read_inside(struct taker *t, json_t **ret_config)
{
    struct tool_result result;
    json_t *info = NULL;
    int code = ask_tool(t, "info", t->job->rootfs.path, &result);

    if (code == 0) {
        info = json_loads(result.output ? result.output : "", JSON_REJECT_DUPLICATES, NULL);
        if (!info) {
            code = problem(t, TOOL_NAME " info did not print JSON", "");
        }
        *ret_config = json_incref(json_object_get(info, "config"));
    }
    json_decref(info);
    tool_result_fini(&result);
    return code;
}

/* ---- What the job does not say --------------------------------------------------------------- */

static void give(struct job *job, enum job_key key)
{
    job->given |= (uint64_t)1 << key;
}

static int append(struct taker *t, struct job_strings *strings, const char *text)
{
    char **grown = realloc(strings->items, (strings->count + 2) * sizeof(*grown));

    if (!grown) {
        t->no_memory = true;
        return -ENOMEM;
    }
    strings->items = grown;
    grown[strings->count] = strdup(text);
    if (!grown[strings->count]) {
        t->no_memory = true;
        return -ENOMEM;
    }
    grown[++strings->count] = NULL;
    return 0;
}

/* All of an array of strings; what is no string is not for us to mend. */
static int append_all(struct taker *t, struct job_strings *strings, const json_t *config,
                      const char *key)
{
    const json_t *array = json_object_get(config, key);

    if (array && !json_is_array(array)) {
        return problem(t, "its configuration is damaged: expected an array of strings", key);
    }
    for (size_t i = 0; i < json_array_size(array); i++) {
        const char *text = json_string_value(json_array_get(array, i));

        if (!text) {
            return problem(t, "its configuration is damaged: expected an array of strings", key);
        }
        if (append(t, strings, text) < 0) {
            return -ENOMEM;
        }
    }
    return 0;
}

static int take_command(struct taker *t, const json_t *config)
{
    struct job *job = t->job;
    int code = 0;

    if (job_given(job, JOB_KEY_COMMAND)) {
        return 0;
    }
    code = append_all(t, &job->command, config, "entrypoint");
    if (code == 0) {
        code = append_all(t, &job->command, config, "cmd");
    }
    if (code == 0 && job->command.count == 0) {
        return problem(t,
                       "names no command of its own; expected \"command\" in the job (an image "
                       "whose own init is to run is named by \"rootfs_path\")",
                       "");
    }
    give(job, JOB_KEY_COMMAND);
    return code;
}

static bool same_name(const char *a, const char *b)
{
    const size_t bytes = strcspn(a, "=");

    return strncmp(a, b, bytes) == 0 && b[bytes] == '=';
}

/* Whether a later entry has the same name, which then counts. */
static bool is_replaced(const struct job_strings *env, size_t index)
{
    for (size_t i = index + 1; i < env->count; i++) {
        if (same_name(env->items[index], env->items[i])) {
            return true;
        }
    }
    return false;
}

static void free_strings(struct job_strings *strings)
{
    for (size_t i = 0; i < strings->count; i++) {
        free(strings->items[i]);
    }
    free(strings->items);
}

/* The image's first, then the job's; of one name the last counts. */
static int take_env(struct taker *t, const json_t *config)
{
    struct job *job = t->job;
    struct job_strings all = {.count = 0};
    struct job_strings merged = {.count = 0};
    int code = append_all(t, &all, config, "env");

    for (size_t i = 0; code == 0 && i < job->env.count; i++) {
        code = append(t, &all, job->env.items[i]);
    }
    for (size_t i = 0; code == 0 && i < all.count; i++) {
        const char *equals = strchr(all.items[i], '=');

        /* An entry without a value means nothing in an image. */
        if (equals && equals != all.items[i] && !is_replaced(&all, i)) {
            code = append(t, &merged, all.items[i]);
        }
    }
    free_strings(&all);
    if (code < 0) {
        free_strings(&merged);
        return code;
    }
    free_strings(&job->env);
    job->env = merged;
    give(job, JOB_KEY_ENV);
    return 0;
}

/* One string, unless the job has it or it is empty. */
static void take_text(struct taker *t, const json_t *config, const char *name, enum job_key key,
                      char **place)
{
    const char *text = json_string_value(json_object_get(config, name));

    if (job_given(t->job, key) || !text || !text[0]) {
        return;
    }
    *place = strdup(text);
    t->no_memory = t->no_memory || !*place;
    give(t->job, key);
}

static int take_config(struct taker *t, const json_t *config)
{
    struct job *job = t->job;
    struct job_problems wrong = {.count = 0};
    int code = take_command(t, config);

    if (code == 0) {
        code = take_env(t, config);
    }
    if (code < 0 || t->no_memory) {
        return code;
    }
    take_text(t, config, "workdir", JOB_KEY_WORKDIR, &job->workdir);
    take_text(t, config, "user", JOB_KEY_USER, &job->user);
    /* The job was good before: whatever is wrong now came with the image. */
    if (job_check(job, &wrong) < 0) {
        return problem(t, "what it says of its command cannot be used; say it in the job",
                       wrong.items[0].message + strlen(job->source) + 2); /* "source: " */
    }
    return 0;
}

int job_take_image(struct job *job, int cancel_fd, struct job_problems *problems)
{
    struct taker t = {.job = job, .problems = problems, .cancel_fd = cancel_fd};
    json_t *config = NULL;
    int code = 0;

    if (!job->image || job->rootfs.path) {
        return 0; /* done already, or nothing to do */
    }
    if (job_resolve_paths(job, problems) < 0) {
        return -ENOMEM;
    }
    if (job_look_for_image(job, problems) < 0 || find_tool(&t) < 0) {
        return -EINVAL;
    }
    code = convert(&t);
    if (code == 0 && !t.no_memory) {
        code = read_beside(&t, &config);
    }
    if (code == 0 && !t.no_memory && !config) {
        code = read_inside(&t, &config);
    }
    if (code == 0 && !t.no_memory) {
        code = take_config(&t, config);
    }
    json_decref(config);
    if (t.no_memory) {
        (void)problem(&t, "out of memory", "");
        return -ENOMEM;
    }
    return code;
}
