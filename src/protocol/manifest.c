/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * manifest.c: reads and writes manifests and the framing of output files. Pure code, but for the
 * memory of manifest_parse().
 */
#include "protocol/manifest.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const entry_names[] = {
#define X(id, name) [MANIFEST_##id] = (name),
    MANIFEST_NAME_LIST(X)
#undef X
};

static const struct {
    const char *word;
    const char *text;
} reasons[] = {
#define X(id, word, text) [MANIFEST_REASON_##id] = {(word), (text)},
    MANIFEST_REASON_LIST(X)
#undef X
};

const char *manifest_reason_text(enum manifest_reason reason)
{
    return (unsigned)reason < MANIFEST_REASON_COUNT ? reasons[reason].text : "unknown reason";
}

const char *manifest_reason_word(enum manifest_reason reason)
{
    return (unsigned)reason < MANIFEST_REASON_COUNT ? reasons[reason].word : "unknown";
}

enum stream_id manifest_stream(enum manifest_name name)
{
    switch (name) {
    case MANIFEST_STDOUT:
        return STREAM_STDOUT;
    case MANIFEST_STDERR:
        return STREAM_STDERR;
    case MANIFEST_EXIT_CODE:
        return STREAM_EXIT_CODE;
    case MANIFEST_OUTPUT:
        return STREAM_OUTPUT;
    case MANIFEST_FILE:
    case MANIFEST_MISSING:
    case MANIFEST_NAME_COUNT:
        break;
    }
    return STREAM_COUNT;
}

/* ---- Reading --------------------------------------------------------------------------------- */

struct word {
    const char *start;
    size_t length;
};

/* The next word of a line; words are separated by one blank. false: there is none. */
static bool next_word(const char **at, const char *end, struct word *ret_word)
{
    const char *blank;

    if (*at >= end) {
        return false;
    }
    blank = memchr(*at, ' ', (size_t)(end - *at));
    ret_word->start = *at;
    ret_word->length = (size_t)((blank ? blank : end) - *at);
    *at = blank ? blank + 1 : end;
    /* A blank has a word before it and one behind it. */
    return ret_word->length > 0 && !(blank && *at == end);
}

static bool word_is(const struct word *word, const char *text)
{
    return word->length == strlen(text) && memcmp(word->start, text, word->length) == 0;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

static bool parse_name(const struct word *word, enum manifest_name *ret_name)
{
    for (int name = 0; name < MANIFEST_NAME_COUNT; name++) {
        if (word_is(word, entry_names[name])) {
            *ret_name = (enum manifest_name)name;
            return true;
        }
    }
    return false;
}

static bool parse_size(const struct word *word, uint64_t *ret_size)
{
    uint64_t size = 0;

    for (size_t i = 0; i < word->length; i++) {
        char c = word->start[i];

        if (c < '0' || c > '9' || __builtin_mul_overflow(size, 10U, &size) ||
            __builtin_add_overflow(size, (uint64_t)(c - '0'), &size)) {
            return false;
        }
    }
    *ret_size = size;
    return true;
}

static bool parse_sha256(const struct word *word, struct manifest_entry *entry)
{
    entry->has_sha256 = !word_is(word, "-");
    if (!entry->has_sha256) {
        return true;
    }
    if (word->length != 2UL * SHA256_BYTES) {
        return false;
    }
    for (size_t i = 0; i < SHA256_BYTES; i++) {
        int high = hex_digit(word->start[2 * i]);
        int low = hex_digit(word->start[2 * i + 1]);

        if (high < 0 || low < 0) {
            return false;
        }
        entry->sha256[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static bool parse_path(const struct word *word, char *path, struct manifest_entry *entry)
{
    size_t length = 0;

    for (size_t i = 0; i < word->length; i++) {
        int c = (unsigned char)word->start[i];

        if (c == '%') {
            int high = i + 2 < word->length ? hex_digit(word->start[i + 1]) : -1;
            int low = i + 2 < word->length ? hex_digit(word->start[i + 2]) : -1;

            if (high < 0 || low < 0) {
                return false;
            }
            c = high << 4 | low;
            i += 2;
        }
        if (c == '\0' || length == MANIFEST_PATH_MAX_BYTES) {
            return false;
        }
        path[length++] = (char)c;
    }
    path[length] = '\0';
    entry->path = path;
    entry->path_bytes = length;
    return true;
}

static bool parse_reason(const struct word *word, enum manifest_reason *ret_reason)
{
    for (int reason = MANIFEST_REASON_NONE + 1; reason < MANIFEST_REASON_COUNT; reason++) {
        if (word_is(word, reasons[reason].word)) {
            *ret_reason = (enum manifest_reason)reason;
            return true;
        }
    }
    return false;
}

static bool parse_line(const char *at, const char *end, char *path, struct manifest_entry *entry)
{
    struct word word;

    *entry = (struct manifest_entry){.reason = MANIFEST_REASON_NONE};
    if (!next_word(&at, end, &word) || !parse_name(&word, &entry->name) ||
        !next_word(&at, end, &word) || !parse_size(&word, &entry->size_bytes) ||
        !next_word(&at, end, &word) || !parse_sha256(&word, entry)) {
        return false;
    }
    if (entry->name != MANIFEST_FILE && entry->name != MANIFEST_MISSING) {
        return at == end;
    }
    if (!next_word(&at, end, &word) || !parse_path(&word, path, entry)) {
        return false;
    }
    if (entry->name == MANIFEST_MISSING) {
        return next_word(&at, end, &word) && parse_reason(&word, &entry->reason) && at == end;
    }
    return at == end;
}

void manifest_reader_init(struct manifest_reader *reader, const void *text, size_t bytes)
{
    reader->next = text;
    reader->end = reader->next + bytes;
    reader->bad_lines = 0;
}

bool manifest_next(struct manifest_reader *reader, struct manifest_entry *entry)
{
    while (reader->next < reader->end) {
        const char *line = reader->next;
        const char *newline = memchr(line, '\n', (size_t)(reader->end - line));

        reader->next = newline ? newline + 1 : reader->end;
        if (newline == line) {
            continue; /* begins each manifest */
        }
        /* A line without its newline was cut: its last number may be only half of it. */
        if (newline && parse_line(line, newline, reader->path, entry)) {
            return true;
        }
        reader->bad_lines++;
    }
    return false;
}

static struct manifest_entry *find_entry(const struct manifest *manifest,
                                         const struct manifest_entry *like)
{
    for (size_t i = 0; i < manifest->count; i++) {
        struct manifest_entry *entry = &manifest->entries[i];

        if (entry->name == like->name && entry->path_bytes == like->path_bytes &&
            (entry->path_bytes == 0 || memcmp(entry->path, like->path, like->path_bytes) == 0)) {
            return entry;
        }
    }
    return NULL;
}

static int store_entry(struct manifest *manifest, const struct manifest_entry *entry)
{
    struct manifest_entry *found = find_entry(manifest, entry);
    const char *path = found ? found->path : NULL;

    if (!found && manifest->count == MANIFEST_ENTRIES_MAX) {
        manifest->bad_lines++;
        return 0;
    }
    if (!found && entry->path) {
        path = strdup(entry->path);
        if (!path) {
            return -ENOMEM;
        }
    }
    if (!found) {
        found = &manifest->entries[manifest->count++];
    }
    *found = *entry;
    found->path = path;
    return 0;
}

int manifest_parse(struct manifest *manifest, const void *text, size_t bytes)
{
    struct manifest_reader reader;
    struct manifest_entry entry;
    int r = 0;

    *manifest = (struct manifest){.entries = calloc(MANIFEST_ENTRIES_MAX, sizeof(entry))};
    if (!manifest->entries) {
        return -ENOMEM;
    }
    manifest_reader_init(&reader, text, bytes);
    while (r == 0 && manifest_next(&reader, &entry)) {
        r = store_entry(manifest, &entry);
    }
    manifest->bad_lines += reader.bad_lines;
    if (r < 0) {
        manifest_free(manifest);
    }
    return r;
}

void manifest_free(struct manifest *manifest)
{
    for (size_t i = 0; i < manifest->count; i++) {
        /* NOLINTNEXTLINE(performance-no-int-to-ptr): ours, though an entry's path is const */
        free((void *)(uintptr_t)manifest->entries[i].path);
    }
    free(manifest->entries);
    *manifest = (struct manifest){.entries = NULL};
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Text that grows until it does not fit. */
struct text {
    char *to;
    size_t room;
    size_t length;
    bool full;
};

static void add(struct text *text, const char *bytes, size_t count)
{
    if (text->full || count > text->room - text->length) {
        text->full = true;
        return;
    }
    memcpy(text->to + text->length, bytes, count);
    text->length += count;
}

static void add_hex(struct text *text, uint8_t byte)
{
    static const char digits[] = "0123456789abcdef";
    char hex[2] = {digits[byte >> 4], digits[byte & 15]};

    add(text, hex, sizeof(hex));
}

static void add_path(struct text *text, const char *path, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        if (path[i] > ' ' && path[i] < 0x7f && path[i] != '%') {
            add(text, &path[i], 1);
        } else {
            add(text, "%", 1);
            add_hex(text, (uint8_t)path[i]);
        }
    }
}

size_t manifest_print(char *to, size_t room, const struct manifest_entry *entry)
{
    struct text text = {.to = to, .room = room};
    const char *name = entry_names[entry->name];
    char size[24];
    int size_length = snprintf(size, sizeof(size), " %" PRIu64 " ", entry->size_bytes);

    add(&text, name, strlen(name));
    add(&text, size, (size_t)size_length);
    if (entry->has_sha256) {
        for (size_t i = 0; i < SHA256_BYTES; i++) {
            add_hex(&text, entry->sha256[i]);
        }
    } else {
        add(&text, "-", 1);
    }
    if (entry->path) {
        add(&text, " ", 1);
        add_path(&text, entry->path, entry->path_bytes);
    }
    if (entry->name == MANIFEST_MISSING) {
        add(&text, " ", 1);
        add(&text, reasons[entry->reason].word, strlen(reasons[entry->reason].word));
    }
    add(&text, "\n", 1);
    return text.full ? 0 : text.length;
}

/* ---- The output stream ----------------------------------------------------------------------- */

/* Copy a number out and move on; false if it is not all there. */
static bool take(struct output_reader *reader, void *to, size_t bytes)
{
    if (reader->left_bytes < bytes) {
        reader->cut = true;
        return false;
    }
    memcpy(to, reader->next, bytes);
    reader->next += bytes;
    reader->left_bytes -= bytes;
    return true;
}

int output_reader_init(struct output_reader *reader, const void *bytes, uint64_t count)
{
    *reader = (struct output_reader){.next = bytes, .left_bytes = count};
    if (!take(reader, &reader->files_left, sizeof(reader->files_left)) ||
        reader->files_left > OUTPUT_FILES_MAX) {
        return -EBADMSG;
    }
    return 0;
}

bool output_next(struct output_reader *reader, struct output_file *file)
{
    uint32_t path_bytes;

    if (reader->files_left == 0 || reader->cut || !take(reader, &path_bytes, sizeof(path_bytes))) {
        return false;
    }
    if (path_bytes == 0 || path_bytes > MANIFEST_PATH_MAX_BYTES ||
        path_bytes > reader->left_bytes || memchr(reader->next, '\0', path_bytes)) {
        reader->cut = true;
        return false;
    }
    file->path = reader->next;
    file->path_bytes = path_bytes;
    reader->next += path_bytes;
    reader->left_bytes -= path_bytes;
    if (!take(reader, &file->content_bytes, sizeof(file->content_bytes))) {
        return false;
    }
    if (file->content_bytes > reader->left_bytes) {
        reader->cut = true;
        file->content_bytes = reader->left_bytes;
    }
    file->content = reader->next;
    reader->next += file->content_bytes;
    reader->left_bytes -= file->content_bytes;
    reader->files_left--;
    return true;
}
