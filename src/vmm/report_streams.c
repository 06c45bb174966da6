/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * report_streams.c: the report's sections that hold bytes: stdout, stderr, output files, console.
 * All of it comes from the guest. Launcher; writes files only if the job has "large_outputs".
 */
#include "vmm/report_parts.h"

#include "protocol/manifest.h"
#include "vmm/fileio.h"
#include "vmm/report.h"
#include "vmm/utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Bytes from the guest, with all that is known about them. */
struct content {
    const char *file_name; /* what a file of its own would be called; ours, not the guest's */
    const uint8_t *bytes;
    uint64_t count;
    bool cut; /* known to be incomplete */
    bool has_announced;
    uint64_t announced_bytes; /* what the guest had */
    bool has_digest;
    uint8_t digest[SHA256_BYTES]; /* of what the guest sent */
};

/* ---- Bytes inline, or in a file -------------------------------------------------------------- */

static json_t *base64(const uint8_t *bytes, size_t count)
{
    size_t length = BASE64_ENCODE_RAW_LENGTH(count);
    char *text = malloc(length + 1);
    json_t *string;

    if (!text) {
        return NULL;
    }
    base64_encode_raw(text, count, bytes);
    string = json_stringn_nocheck(text, length);
    free(text);
    return string;
}

char *report_large_dir_path(const struct job *job)
{
    char *path = NULL;

    if (job->large_outputs.dir) {
        return strdup(job->large_outputs.dir);
    }
    if (!job->report_path) {
        return strdup("bvmm-report.d");
    }
    return asprintf(&path, "%s.d", job->report_path) < 0 ? NULL : path;
}

static int open_large_dir(struct report_builder *b, const char *path)
{
    if (b->large_dir_fd >= 0) {
        return 0;
    }
    b->large_dir_made = mkdirat(AT_FDCWD, path, 0777) == 0;
    if (!b->large_dir_made && errno != EEXIST) {
        return -errno;
    }
    b->large_dir_fd = fd_above_standard(open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (b->large_dir_fd >= 0 && b->job->large_dir_fd >= 0) {
        /* Onto the number that the launcher's filter knows. */
        const int fd = b->large_dir_fd;

        b->large_dir_fd = dup3(fd, b->job->large_dir_fd, O_CLOEXEC);
        close(fd);
    }
    return b->large_dir_fd < 0 ? -errno : 0;
}

/* Try to put it into a file. NULL: it must go inline (too small, not asked for, or it failed). */
static json_t *in_file(struct report_builder *b, const struct content *content)
{
    json_t *name = NULL;
    char *dir;
    int r;

    if (!job_given(b->job, JOB_KEY_LARGE_OUTPUTS) || b->large_failed || content->count == 0 ||
        content->count <= b->job->large_outputs.over_bytes) {
        return NULL;
    }
    dir = report_large_dir_path(b->job);
    if (!dir) {
        b->no_memory = true;
        return NULL;
    }
    r = open_large_dir(b, dir);
    if (r == 0) {
        r = fileio_replace_at(b->large_dir_fd, content->file_name, content->bytes, content->count);
    }
    if (r == 0) {
        name = json_sprintf("%s/%s", dir, content->file_name);
        b->large_dir_made = false; /* and used: it stays */
    } else {
        b->large_failed = true;
        if (b->large_dir_made) {
            (void)unlinkat(AT_FDCWD, dir, AT_REMOVEDIR);
        }
        report_warn(b,
                    "%s/%s could not be written (%s); this and the streams after it are in the "
                    "report itself",
                    dir, content->file_name, fileio_strerror(r));
    }
    free(dir);
    return name;
}

static void set_bytes(struct report_builder *b, json_t *object, const struct content *content)
{
    json_t *file = in_file(b, content);
    bool text;

    if (file) {
        report_set(b, object, "encoding", json_null());
        report_set(b, object, "data", json_null());
        report_set(b, object, "file", file);
        return;
    }
    text = utf8_text_bytes(content->bytes, content->count) == content->count;
    report_set(b, object, "encoding", json_string(text ? "utf-8" : "base64"));
    report_set(b, object, "data",
               text ? json_stringn_nocheck((const char *)content->bytes, content->count)
                    : base64(content->bytes, content->count));
    report_set(b, object, "file", json_null());
}

static void compute_digest(const struct content *content, uint8_t digest[SHA256_BYTES])
{
    struct sha256_ctx sha256;

    sha256_init(&sha256);
    sha256_update(&sha256, content->count, content->bytes);
    sha256_digest(&sha256, SHA256_BYTES, digest);
}

/* A text that was cut in the middle of a character is still a text, without that character. */
static bool drop_cut_character(struct content *content)
{
    size_t good = content->count;

    if (content->cut) {
        good = utf8_text_bytes(content->bytes, content->count);
    }
    if (good == content->count || !utf8_is_cut(content->bytes + good, content->count - good)) {
        return false;
    }
    content->count = good;
    return true;
}

static enum bvmm_answer answer(bool yes)
{
    return yes ? BVMM_YES : BVMM_NO;
}

/*
 * Data, sizes, digests. Fills in `cut` of a stream that is shorter than announced.
 * @ret_view: the same as a struct; what is left out here is all zero.
 */
static void set_content(struct report_builder *b, json_t *object, struct content *content,
                        struct bvmm_content *ret_view)
{
    uint8_t digest[SHA256_BYTES];
    bool digest_ok;

    compute_digest(content, digest);
    digest_ok = memcmp(digest, content->digest, SHA256_BYTES) == 0;
    content->cut = content->cut ||
                   (content->has_announced && content->announced_bytes > content->count) ||
                   (content->has_digest && !digest_ok);
    if (drop_cut_character(content)) {
        compute_digest(content, digest);
    }
    set_bytes(b, object, content);
    report_set(b, object, "size_bytes", report_u64(content->count));
    report_set(b, object, "sha256", report_sha256(digest));
    report_set(b, object, "announced_bytes",
               content->has_announced ? report_u64(content->announced_bytes) : json_null());
    report_set(b, object, "announced_sha256",
               content->has_digest ? report_sha256(content->digest) : json_null());
    report_set(b, object, "digest_ok", content->has_digest ? json_boolean(digest_ok) : json_null());
    *ret_view = (struct bvmm_content){
        .data = content->bytes,
        .bytes = content->count,
        .file = json_string_value(json_object_get(object, "file")),
        .has_announced_bytes = content->has_announced,
        .announced_bytes = content->has_announced ? content->announced_bytes : 0,
        .digest_ok = content->has_digest ? answer(digest_ok) : BVMM_UNKNOWN,
        .truncated = answer(content->cut),
    };
}

/* ---- Streams --------------------------------------------------------------------------------- */

static json_t *state_name(uint32_t state)
{
    static const char *const names[] = {
        [STREAM_EMPTY] = "empty",
        [STREAM_OPEN] = "open",
        [STREAM_COMPLETE] = "complete",
        [STREAM_BROKEN] = "broken",
    };

    return json_string(state < ARRAY_SIZE(names) ? names[state] : "unknown");
}

static json_t *via_name(uint32_t via)
{
    switch (via) {
    case VIA_SERIAL:
        return json_string("serial");
    case VIA_VSOCK:
        return json_string("vsock");
    default:
        return json_null();
    }
}

static struct content stream_content(struct report_builder *b, enum stream_id stream)
{
    const struct record_stream *s = &b->record->streams[stream];
    struct content content = {
        .file_name = stream_name(stream),
        .bytes = record_stream_bytes(b->record, stream),
        .count = s->length_bytes,
        .cut = s->dropped_bytes > 0 || s->state == STREAM_OPEN || s->state == STREAM_BROKEN,
        .has_announced = s->has_announced_bytes,
        .announced_bytes = s->announced_bytes,
        .has_digest = s->has_announced_sha256,
    };

    memcpy(content.digest, s->announced_sha256, SHA256_BYTES);
    return content;
}

_Static_assert((int)STREAM_EMPTY == BVMM_STREAM_EMPTY && (int)STREAM_OPEN == BVMM_STREAM_OPEN &&
                   (int)STREAM_COMPLETE == BVMM_STREAM_COMPLETE &&
                   (int)STREAM_BROKEN == BVMM_STREAM_BROKEN,
               "bvmm.h has the states in the same order");
_Static_assert((int)VIA_NONE == BVMM_WAY_NONE && (int)VIA_SERIAL == BVMM_WAY_SERIAL &&
                   (int)VIA_VSOCK == BVMM_WAY_VSOCK,
               "bvmm.h has the ways in the same order");

/*
 * What did not fit into the limit: it arrived and was dropped, or bvmm's init, which knows the limit too,
 * did not send it. Only of a stream that has ended: of another one, what is missing may be on its way.
 */
static uint64_t over_limit_bytes(const struct record_stream *s)
{
    const bool left_out = s->state == STREAM_COMPLETE && s->has_announced_bytes &&
                          s->announced_bytes > s->capacity_bytes;

    return left_out && s->announced_bytes - s->length_bytes > s->dropped_bytes
               ? s->announced_bytes - s->length_bytes
               : s->dropped_bytes;
}

static void show_transfer(const struct record_stream *s, struct bvmm_content *view)
{
    view->dropped_bytes = over_limit_bytes(s);
    view->state = s->state <= STREAM_BROKEN ? (enum bvmm_stream_state)s->state : BVMM_STREAM_BROKEN;
    view->via = s->via <= VIA_VSOCK ? (enum bvmm_way)s->via : BVMM_WAY_NONE;
}

/* Nothing came, and nobody said how much there was. */
static bool nobody_knows(const struct record_stream *s, bool cut)
{
    return s->state == STREAM_EMPTY && !s->has_announced_bytes && !cut;
}

/* true, false, or null. */
static json_t *truncated(const struct record_stream *s, bool cut)
{
    return nobody_knows(s, cut) ? json_null() : json_boolean(cut);
}

static void set_transfer(struct report_builder *b, json_t *object, const struct record_stream *s,
                         bool cut)
{
    report_set(b, object, "truncated", truncated(s, cut));
    report_set(b, object, "dropped_bytes", report_u64(over_limit_bytes(s)));
    report_set(b, object, "state", state_name(s->state));
    report_set(b, object, "via", via_name(s->via));
}

json_t *report_stream(struct report_builder *b, enum stream_id stream)
{
    const struct record_stream *s = &b->record->streams[stream];
    struct content content = stream_content(b, stream);
    json_t *object = json_object();
    struct bvmm_content view;

    set_content(b, object, &content, &view);
    set_transfer(b, object, s, content.cut);
    if (b->view) {
        if (nobody_knows(s, content.cut)) {
            view.truncated = BVMM_UNKNOWN;
        }
        show_transfer(s, &view);
        b->view->streams[stream == STREAM_STDERR ? BVMM_STDERR : BVMM_STDOUT] = view;
    }
    return object;
}

json_t *report_output_transfer(struct report_builder *b)
{
    const struct record_stream *s = &b->record->streams[STREAM_OUTPUT];
    struct content content = stream_content(b, STREAM_OUTPUT);
    json_t *object = json_object();

    report_set(b, object, "size_bytes", report_u64(content.count));
    report_set(b, object, "announced_bytes",
               content.has_announced ? report_u64(content.announced_bytes) : json_null());
    set_transfer(b, object, s,
                 content.cut || (content.has_announced && content.announced_bytes > content.count));
    return object;
}

/* ---- Output files ---------------------------------------------------------------------------- */

/*
 * The guest's name for a file. What is no UTF-8 has U+FFFD in its place, which two names may share and
 * which a name may hold of its own: then the bytes are there too.
 */
static void set_path(struct report_builder *b, json_t *object, const void *path, size_t bytes)
{
    const bool exact = !path || utf8_text_bytes(path, bytes) == bytes;

    report_set(b, object, "path", path ? report_text_n(path, bytes) : json_null());
    report_set(b, object, "path_base64", exact ? json_null() : base64(path, bytes));
}

struct file_list {
    struct report_builder *b;
    json_t *files;
    unsigned next_number;
    bool seen[MANIFEST_ENTRIES_MAX]; /* announced, and arrived */
};

static void append_file(struct file_list *list, const void *path, size_t path_bytes,
                        struct content content)
{
    struct report_view *view = list->b->view;
    json_t *object = json_object();
    struct bvmm_content shown;
    char name[32];

    /* The guest's path is no name for a file of the host's. */
    snprintf(name, sizeof(name), "output-%03u", list->next_number++);
    content.file_name = name;
    set_path(list->b, object, path, path_bytes);
    set_content(list->b, object, &content, &shown);
    show_transfer(&list->b->record->streams[STREAM_OUTPUT], &shown);
    if (view && report_view_add_file(view, &shown, path, path_bytes) < 0) {
        list->b->no_memory = true;
    }
    report_set(list->b, object, "truncated", json_boolean(content.cut));
    if (json_array_append_new(list->files, object) < 0) {
        list->b->no_memory = true;
    }
}

static void set_announced(struct content *content, const struct manifest_entry *entry)
{
    content->has_announced = true;
    content->announced_bytes = entry->size_bytes;
    content->has_digest = entry->has_sha256;
    memcpy(content->digest, entry->sha256, SHA256_BYTES);
}

static void find_announced(struct file_list *list, const struct manifest *manifest,
                           const struct output_file *file, struct content *content)
{
    for (size_t i = 0; i < manifest->count; i++) {
        const struct manifest_entry *entry = &manifest->entries[i];

        if (entry->name == MANIFEST_FILE && !list->seen[i] &&
            entry->path_bytes == file->path_bytes &&
            memcmp(entry->path, file->path, file->path_bytes) == 0) {
            list->seen[i] = true;
            set_announced(content, entry);
            return;
        }
    }
}

/* The files of a stream that bvmm's init sent. */
static void list_framed(struct file_list *list, const struct manifest *manifest,
                        const uint8_t *bytes, uint64_t count)
{
    struct output_reader reader;
    struct output_file file;

    if (output_reader_init(&reader, bytes, count) < 0) {
        if (count > 0) {
            report_warn(list->b, "what came as output files is none: %" PRIu64 " bytes are lost",
                        count);
        }
        return;
    }
    while (list->next_number < OUTPUT_FILES_MAX && output_next(&reader, &file)) {
        struct content content = {
            .bytes = file.content,
            .count = file.content_bytes,
            .cut = reader.cut,
        };

        find_announced(list, manifest, &file, &content);
        append_file(list, file.path, file.path_bytes, content);
    }
}

/* What was announced and never came. */
static void list_lost(struct file_list *list, const struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->count && list->next_number < OUTPUT_FILES_MAX; i++) {
        const struct manifest_entry *entry = &manifest->entries[i];
        struct content content = {.bytes = (const uint8_t *)"", .cut = true};

        if (entry->name == MANIFEST_FILE && !list->seen[i]) {
            set_announced(&content, entry);
            append_file(list, entry->path, entry->path_bytes, content);
        }
    }
}

static json_t *list_missing(struct report_builder *b, const struct manifest *manifest)
{
    json_t *missing = json_array();

    for (size_t i = 0; i < manifest->count; i++) {
        const struct manifest_entry *entry = &manifest->entries[i];
        struct bvmm_missing_file shown;
        json_t *object;

        if (entry->name != MANIFEST_MISSING) {
            continue;
        }
        shown = (struct bvmm_missing_file){
            .reason = manifest_reason_word(entry->reason),
            .text = manifest_reason_text(entry->reason),
        };
        if (b->view &&
            report_view_add_missing(b->view, &shown, entry->path, entry->path_bytes) < 0) {
            b->no_memory = true;
        }
        object = json_object();
        set_path(b, object, entry->path, entry->path_bytes);
        report_set(b, object, "reason", json_string(shown.reason));
        report_set(b, object, "text", json_string(shown.text));
        if (json_array_append_new(missing, object) < 0) {
            b->no_memory = true;
        }
    }
    return missing;
}

/* An image's own init sends one file, as it is (SEED.md, port 5005). */
static void list_raw(struct file_list *list)
{
    struct content content = stream_content(list->b, STREAM_OUTPUT);

    if (content.count > 0 || list->b->record->streams[STREAM_OUTPUT].state != STREAM_EMPTY) {
        append_file(list, NULL, 0, content);
    }
}

json_t *report_output_files(struct report_builder *b, json_t **ret_missing)
{
    const struct record_stream *output = &b->record->streams[STREAM_OUTPUT];
    const struct record_stream *announced = &b->record->streams[STREAM_ANNOUNCED];
    struct file_list list = {.b = b, .files = json_array()};
    struct manifest manifest;

    if (manifest_parse(&manifest, record_stream_bytes(b->record, STREAM_ANNOUNCED),
                       announced->length_bytes) < 0) {
        b->no_memory = true;
        *ret_missing = NULL;
        return list.files;
    }
    if (b->job->command.count > 0) {
        list_framed(&list, &manifest, record_stream_bytes(b->record, STREAM_OUTPUT),
                    output->length_bytes);
        list_lost(&list, &manifest);
    } else {
        list_raw(&list);
    }
    if (manifest.bad_lines > 0) {
        report_warn(b, "%u lines of the guest's list of results made no sense", manifest.bad_lines);
    }
    *ret_missing = list_missing(b, &manifest);
    manifest_free(&manifest);
    return list.files;
}

/* ---- Console --------------------------------------------------------------------------------- */

/* The log as one text, with a line where something was left out. -ENOMEM or 0. */
static int console_text(struct record *record, char **ret_text, size_t *ret_bytes,
                        uint64_t *ret_dropped_bytes)
{
    char *log;
    size_t bytes;
    size_t gap;
    int length;
    int r = record_console_copy(record, &log, &bytes, ret_dropped_bytes, &gap);

    if (r < 0) {
        return r;
    }
    if (*ret_dropped_bytes == 0) {
        *ret_text = log;
        *ret_bytes = bytes;
        return 0;
    }
    /* A log may hold any bytes, so the three parts cannot be one format: %s would stop at a NUL. */
    *ret_text = malloc(bytes + 128); /* the line is shorter; a NUL at the end */
    if (!*ret_text) {
        free(log);
        return -ENOMEM;
    }
    memcpy(*ret_text, log, gap);
    length = snprintf(*ret_text + gap, 128, "\n[bvmm: %" PRIu64 " bytes left out here]\n",
                      *ret_dropped_bytes);
    memcpy(*ret_text + gap + length, log + gap, bytes - gap);
    *ret_bytes = bytes + (size_t)length;
    (*ret_text)[*ret_bytes] = '\0';
    free(log);
    return 0;
}

json_t *report_console(struct report_builder *b)
{
    json_t *object = json_object();
    struct content content = {.file_name = "console"};
    json_t *file;
    uint64_t dropped_bytes;
    uint64_t mended = 0;
    char *text;
    char *clean;
    size_t bytes;
    size_t clean_bytes;

    if (console_text(b->record, &text, &bytes, &dropped_bytes) < 0) {
        b->no_memory = true;
        return object;
    }
    content.bytes = (const uint8_t *)text;
    content.count = bytes;
    file = in_file(b, &content);
    if (file) {
        report_set(b, object, "text", json_null());
        report_set(b, object, "file", file);
    } else if (utf8_mend(text, bytes, &clean, &clean_bytes, &mended) == 0) {
        report_set(b, object, "text", json_stringn(clean, clean_bytes));
        report_set(b, object, "file", json_null());
        free(clean);
    } else {
        b->no_memory = true;
    }
    report_set(b, object, "total_bytes", report_u64(b->record->console.total_bytes));
    report_set(b, object, "dropped_bytes", report_u64(dropped_bytes));
    report_set(b, object, "replaced_bytes", report_u64(mended));
    if (b->view) {
        b->view->console = (struct bvmm_console){
            .text = text,
            .bytes = bytes,
            .total_bytes = b->record->console.total_bytes,
            .dropped_bytes = dropped_bytes,
        };
    } else {
        free(text);
    }
    return object;
}
