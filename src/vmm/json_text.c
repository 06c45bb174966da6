/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* json_text.c: JSON as text. See json_text.h. Source: RFC 8259. Launcher. */
#include "vmm/json_text.h"

#include "vmm/fileio.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES ((size_t)1 << 18)
#define INDENT 2

/* Collects small pieces; what is large goes out by itself. */
struct output {
    int fd;
    int error; /* -errno of the first failure; nothing is written after it */
    size_t used;
    char buffer[BUFFER_BYTES];
};

static void flush(struct output *out)
{
    if (out->error == 0) {
        out->error = fileio_write(out->fd, out->buffer, out->used);
    }
    out->used = 0;
}

static void put(struct output *out, const char *text, size_t bytes)
{
    if (bytes > BUFFER_BYTES - out->used) {
        flush(out);
    }
    if (bytes <= BUFFER_BYTES) {
        memcpy(out->buffer + out->used, text, bytes);
        out->used += bytes;
    } else if (out->error == 0) {
        out->error = fileio_write(out->fd, text, bytes);
    }
}

static void put_line_end(struct output *out, unsigned depth)
{
    put(out, "\n", 1);
    for (unsigned i = 0; i < depth * INDENT; i++) {
        put(out, " ", 1);
    }
}

/* ---- Strings --------------------------------------------------------------------------------- */

static bool needs_escape(char c)
{
    return (unsigned char)c < 0x20 || c == '"' || c == '\\';
}

static void put_escape(struct output *out, char c)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt"; /* pairs: what, and its letter */
    char text[8];

    for (size_t i = 0; i + 1 < sizeof(short_forms) - 1; i += 2) {
        if (short_forms[i] == c) {
            put(out, (const char[]){'\\', short_forms[i + 1]}, 2);
            return;
        }
    }
    put(out, text, (size_t)snprintf(text, sizeof(text), "\\u%04X", (unsigned)(unsigned char)c));
}

/* jansson has seen to it that it is UTF-8. */
static void put_string(struct output *out, const char *text, size_t bytes)
{
    size_t done = 0;

    put(out, "\"", 1);
    for (size_t i = 0; i < bytes; i++) {
        if (needs_escape(text[i])) {
            put(out, text + done, i - done);
            put_escape(out, text[i]);
            done = i + 1;
        }
    }
    put(out, text + done, bytes - done);
    put(out, "\"", 1);
}

/* ---- Values ---------------------------------------------------------------------------------- */

static int put_piece(const char *text, size_t bytes, void *context)
{
    put(context, text, bytes);
    return 0;
}

/* Objects and arrays have values in them. */
static void put_value(struct output *out, json_t *json, unsigned depth);

static void put_object(struct output *out, json_t *json, unsigned depth)
{

    const char *separator = "{";

    for (void *at = json_object_iter(json); at != NULL; at = json_object_iter_next(json, at)) {
        put(out, separator, 1);
        put_line_end(out, depth + 1);
        put_string(out, json_object_iter_key(at), strlen(json_object_iter_key(at)));
        put(out, ": ", 2);
        put_value(out, json_object_iter_value(at), depth + 1);
        separator = ",";
    }
    if (*separator == '{') {
        put(out, "{}", 2);
        return;
    }
    put_line_end(out, depth);
    put(out, "}", 1);
}

static void put_array(struct output *out, json_t *json, unsigned depth)
{
    const size_t count = json_array_size(json);

    if (count == 0) {
        put(out, "[]", 2);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        put(out, i == 0 ? "[" : ",", 1);
        put_line_end(out, depth + 1);
        put_value(out, json_array_get(json, i), depth + 1);
    }
    put_line_end(out, depth);
    put(out, "]", 1);
}

/* NOLINTNEXTLINE(misc-no-recursion): reports and jobs are a few levels deep, and made by us */
static void put_value(struct output *out, json_t *json, unsigned depth)
{
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        put_object(out, json, depth);
        break;
    case JSON_ARRAY:
        put_array(out, json, depth);
        break;
    case JSON_STRING:
        put_string(out, json_string_value(json), json_string_length(json));
        break;
    case JSON_INTEGER:
    case JSON_REAL:
    case JSON_TRUE:
    case JSON_FALSE:
    case JSON_NULL:
        if (json_dump_callback(json, put_piece, out, JSON_ENCODE_ANY) < 0 && out->error == 0) {
            out->error = -ENOMEM;
        }
        break;
    }
}

int json_text_write(json_t *json, int fd)
{
    struct output *out = malloc(sizeof(*out));
    int code = 0;

    if (out == NULL) {
        return -ENOMEM;
    }
    out->fd = fd;
    out->error = 0;
    out->used = 0;
    put_value(out, json, 0);
    put(out, "\n", 1);
    flush(out);
    code = out->error;
    free(out);
    return code;
}
