/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* job.c: life of a struct job, and the steps of loading one. Thread: launcher. */
#include "vmm/job.h"

#include "vmm/job_fields.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- Defaults and release -------------------------------------------------------------------- */

static void forget_files(struct job *job)
{
    job->kernel.fd = -1;
    job->rootfs.fd = -1;
    job->initrd.fd = -1;
    job->stdin_file.fd = -1;
    for (size_t i = 0; i < JOB_DRIVES_MAX; i++) {
        job->drives[i].image.fd = -1;
    }
    job->report_dir_fd = -1;
    job->large_dir_fd = -1;
}

int job_init_defaults(struct job *job)
{
    memset(job, 0, sizeof(*job));
    forget_files(job);
    job->vcpus = JOB_DEFAULT_VCPUS;
    job->memory_mib = JOB_DEFAULT_MEMORY_MIB;
    job->timeout_secs = JOB_DEFAULT_TIMEOUT_SECS;
    job->vsock = true;
    job->limits.stdout_bytes = JOB_DEFAULT_STREAM_BYTES;
    job->limits.stderr_bytes = JOB_DEFAULT_STREAM_BYTES;
    job->limits.output_bytes = JOB_DEFAULT_STREAM_BYTES;
    job->limits.console_bytes = JOB_DEFAULT_CONSOLE_BYTES;
    job->large_outputs.over_bytes = JOB_DEFAULT_LARGE_OVER_BYTES;
    job->sandbox = JOB_SANDBOX_STRICT;
    cgroup_facts_init(&job->cgroup_facts);
    job->source = strdup("the configuration");
    job->kernel_cmdline = strdup(JOB_DEFAULT_KERNEL_CMDLINE);
    return job->source && job->kernel_cmdline ? 0 : -ENOMEM;
}

static void close_fd(int fd)
{
    if (fd >= 0) {
        close(fd);
    }
}

static void file_fini(struct job_file *file)
{
    close_fd(file->fd);
    free(file->path);
}

static void strings_fini(struct job_strings *strings)
{
    for (size_t i = 0; i < strings->count; i++) {
        free(strings->items[i]);
    }
    free(strings->items);
}

static void pairs_fini(struct job_pairs *pairs)
{
    for (size_t i = 0; i < pairs->count; i++) {
        free(pairs->items[i].name);
        free(pairs->items[i].value);
    }
    free(pairs->items);
}

static void field_fini(struct job *job, const struct job_field *field)
{
    void *place = (char *)job + field->offset;

    switch (field->type) {
    case JOB_TYPE_STRING:
    case JOB_TYPE_PATH:
        free(*(char **)place);
        break;
    case JOB_TYPE_FILE:
        file_fini(place);
        break;
    case JOB_TYPE_STRINGS:
    case JOB_TYPE_COMMAND:
    case JOB_TYPE_ENV:
        strings_fini(place);
        break;
    case JOB_TYPE_PAIRS:
        pairs_fini(place);
        break;
    case JOB_TYPE_OBJECT:
        for (const struct job_field *f = field->fields; f->name; f++) {
            field_fini(job, f);
        }
        break;
    case JOB_TYPE_DRIVES:
        for (size_t i = 0; i < job->drive_count; i++) {
            file_fini(&job->drives[i].image);
            free(job->drives[i].mount);
        }
        break;
    case JOB_TYPE_UINT:
    case JOB_TYPE_BOOL:
    case JOB_TYPE_ENUM:
        break;
    }
}

void job_fini(struct job *job)
{
    for (const struct job_field *field = job_fields; field->name; field++) {
        field_fini(job, field);
    }
    close_fd(job->report_dir_fd);
    close_fd(job->large_dir_fd);
    free(job->source);
    free(job->base_dir);
    free(job->image_notes);
    memset(job, 0, sizeof(*job));
    forget_files(job);
}

int job_set_report_path(struct job *job, const char *path)
{
    char *copy = NULL;

    if (path && strcmp(path, "-") != 0) {
        char *cwd = path[0] == '/' ? strdup("") : get_current_dir_name();

        if (!cwd) {
            return -errno;
        }
        /* Absolute, because relative paths of a job start at the job file's directory. */
        if (asprintf(&copy, "%s%s%s", cwd, path[0] == '/' ? "" : "/", path) < 0) {
            copy = NULL;
        }
        free(cwd);
        if (!copy) {
            return -ENOMEM;
        }
    }
    free(job->report_path);
    job->report_path = copy;
    job->given |= (uint64_t)1 << JOB_KEY_REPORT_PATH;
    return 0;
}

void job_record_limits(const struct job *job, struct record_limits *ret_limits)
{
    *ret_limits = (struct record_limits){
        .console_bytes = job->limits.console_bytes,
        .stream_bytes =
            {
                [STREAM_STDOUT] = job->limits.stdout_bytes,
                [STREAM_STDERR] = job->limits.stderr_bytes,
                [STREAM_EXIT_CODE] = JOB_EXIT_CODE_LIMIT_BYTES,
                [STREAM_CONTROL] = JOB_CONTROL_LIMIT_BYTES,
                [STREAM_OUTPUT] = job->limits.output_bytes,
                [STREAM_ANNOUNCED] = (uint64_t)MANIFEST_STREAM_BYTES,
            },
    };
}

#define VM_PROCESS_BYTES (64 * MIB)
#define VM_PROCESS_TASKS 16
#define KVM_BYTES_SHARE 64 /* of the guest's memory, one part in so many */

void job_cgroup_limits(const struct job *job, struct cgroup_limits *ret_limits)
{
    struct record_limits collected;
    uint64_t bytes = job->memory_mib * MIB;

    job_record_limits(job, &collected);
    bytes += bytes / KVM_BYTES_SHARE + VM_PROCESS_BYTES + collected.console_bytes;
    for (size_t i = 0; i < STREAM_COUNT; i++) {
        bytes += collected.stream_bytes[i];
    }
    *ret_limits = (struct cgroup_limits){
        .cpus = job->cgroup.cpus,
        .memory_max_bytes = job->cgroup.memory_max_mib ? job->cgroup.memory_max_mib * MIB : bytes,
        .pids_max = job->cgroup.pids_max ? job->cgroup.pids_max
                                         : VM_PROCESS_TASKS + job->vcpus + job->drive_count,
        .memory_asked = job->cgroup.memory_max_mib != 0,
        .pids_asked = job->cgroup.pids_max != 0,
    };
}

/* ---- Problems -------------------------------------------------------------------------------- */

void job_problem(struct job_problems *problems, const struct job *job, const char *fmt, ...)
{
    size_t index = problems->count++;
    char message[BVMM_ERROR_MESSAGE_BYTES];
    va_list args;

    if (index >= JOB_PROBLEMS_MAX) {
        return;
    }
    va_start(args, fmt);
    if (vsnprintf(message, sizeof(message), fmt, args) < 0) {
        message[0] = '\0';
    }
    va_end(args);
    error_set(&problems->items[index], BVMM_ERROR_JOB, 0, "%s: %s", job->source, message);
}

void job_problems_to_error(const struct job_problems *problems, struct bvmm_error *ret_err)
{
    if (problems->count == 0) {
        error_set(ret_err, BVMM_ERROR_NONE, 0, "nothing is wrong with the job");
    } else if (problems->count == 1) {
        *ret_err = problems->items[0];
    } else {
        error_set(ret_err, BVMM_ERROR_JOB, 0, "%.*s (and %zu more)", BVMM_ERROR_MESSAGE_BYTES - 32,
                  problems->items[0].message, problems->count - 1);
    }
}

static bool is_identifier(const char *name)
{
    size_t length =
        strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_$");

    return length > 0 && name[length] == '\0';
}

void job_path_member(char path[JOB_PATH_TEXT_BYTES], const char *parent, const char *name)
{
    char quoted[JOB_VALUE_TEXT_BYTES];

    job_quote(quoted, name);
    if (is_identifier(name)) {
        snprintf(path, JOB_PATH_TEXT_BYTES, "%s.%s", parent, name);
    } else {
        snprintf(path, JOB_PATH_TEXT_BYTES, "%s[%s]", parent, quoted);
    }
}

void job_path_index(char path[JOB_PATH_TEXT_BYTES], const char *parent, size_t index)
{
    snprintf(path, JOB_PATH_TEXT_BYTES, "%s[%zu]", parent, index);
}

size_t job_text_chars(const char *text)
{
    size_t chars = 0;

    for (; *text; text++) {
        chars += ((unsigned char)*text & 0xc0) != 0x80;
    }
    return chars;
}

void job_quote(char text[JOB_VALUE_TEXT_BYTES], const char *string)
{
    enum { SHOWN_BYTES = 64 };
    size_t length = strlen(string);
    size_t shown = length;

    if (length > SHOWN_BYTES) {
        shown = SHOWN_BYTES;
        while (shown > 0 && ((unsigned char)string[shown] & 0xc0) == 0x80) {
            shown--;
        }
    }
    snprintf(text, JOB_VALUE_TEXT_BYTES, "\"%.*s%s\"", (int)shown, string,
             shown < length ? "..." : "");
}

/* ---- Loading --------------------------------------------------------------------------------- */

/* Read all of fd, but at most max_bytes + 1, so that the caller sees that it is too much. */
static int read_all(int fd, size_t max_bytes, char **ret_text, size_t *ret_bytes)
{
    char *text = malloc(max_bytes + 1);
    size_t used = 0;

    if (!text) {
        return -ENOMEM;
    }
    while (used <= max_bytes) {
        ssize_t n = read(fd, text + used, max_bytes + 1 - used);

        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            int r = -errno;

            free(text);
            return r;
        }
        if (n == 0) {
            break;
        }
        used += (size_t)n;
    }
    *ret_text = text;
    *ret_bytes = used;
    return 0;
}

/* Where the relative paths of a job in this file start. NULL: the working directory. */
static int find_base_dir(const char *path, int fd, char **ret_base_dir)
{
    const char *slash = strrchr(path, '/');
    struct stat status;

    *ret_base_dir = NULL;
    /* A pipe from the shell, <(...), lies in /dev/fd, where nobody means to look for an image. */
    if (!slash || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        return 0;
    }
    *ret_base_dir = strndup(path, slash == path ? 1 : (size_t)(slash - path));
    return *ret_base_dir ? 0 : -ENOMEM;
}

static int read_job(struct job *job, const char *path, char **ret_text, size_t *ret_bytes)
{
    bool from_stdin = strcmp(path, "-") == 0;
    /* Blocking: a FIFO that the user names here is meant to be waited for. */
    int fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    int r;

    if (fd < 0) {
        return -errno;
    }
    r = from_stdin ? 0 : find_base_dir(path, fd, &job->base_dir);
    if (r == 0) {
        r = read_all(fd, JOB_TEXT_BYTES_MAX, ret_text, ret_bytes);
    }
    if (!from_stdin) {
        close(fd);
    }
    return r;
}

static int read_json(struct job *job, const char *path, json_t **ret_root,
                     struct job_problems *problems)
{
    char *text = NULL;
    size_t bytes = 0;
    int r = read_job(job, path, &text, &bytes);

    if (r < 0) {
        job_problem(problems, job,
                    "cannot read the job: %s; expected a JSON file, or - for "
                    "standard input",
                    error_text(-r));
        return r;
    }
    *ret_root = job_parse(job, text, bytes, problems);
    free(text);
    return *ret_root ? 0 : -EINVAL;
}

int job_read(const char *path, struct job *ret_job, json_t **ret_root,
             struct job_problems *problems)
{
    int r = job_init_defaults(ret_job);

    problems->count = 0;
    if (r == 0) {
        free(ret_job->source);
        ret_job->source = strdup(strcmp(path, "-") == 0 ? "standard input" : path);
        r = ret_job->source ? 0 : -ENOMEM;
    }
    if (r < 0) {
        problems->count = 1;
        return error_set(&problems->items[0], BVMM_ERROR_JOB, r, "out of memory");
    }
    return read_json(ret_job, path, ret_root, problems);
}

int job_load(const char *path, unsigned flags, struct job *ret_job, struct job_problems *problems)
{
    json_t *root = NULL;
    int r = job_read(path, ret_job, &root, problems);

    if (r < 0) {
        return r;
    }
    r = job_decode_json(ret_job, root, problems);
    json_decref(root);
    /* What could be decoded is checked too: better to hear of all that is wrong at once. */
    if (job_check(ret_job, problems) < 0 || r < 0) {
        return -EINVAL;
    }
    return flags & JOB_LOAD_NO_FILES ? 0 : job_open_files(ret_job, problems);
}
