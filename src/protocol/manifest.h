/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * manifest.h: what the guest says that it has to send (section C of protocol.h), read and written.
 *
 * Read as hostile input: a line that is not one is skipped and counted, nothing is allocated by
 * manifest_next(), and no number of lines does harm.
 *
 * Thread: any. Nothing blocks.
 */
#ifndef BVMM_PROTOCOL_MANIFEST_H
#define BVMM_PROTOCOL_MANIFEST_H

#include "protocol/protocol.h"

#define MANIFEST_NAME_LIST(X)                                                                      \
    X(STDOUT, "stdout")                                                                            \
    X(STDERR, "stderr")                                                                            \
    X(EXIT_CODE, "exit_code")                                                                      \
    X(OUTPUT, "output")   /* all output files, framed (section D) */                               \
    X(FILE, "file")       /* one of them; path */                                                  \
    X(MISSING, "missing") /* path or pattern; reason */

enum manifest_name {
#define X(id, name) MANIFEST_##id,
    MANIFEST_NAME_LIST(X)
#undef X
        MANIFEST_NAME_COUNT
};

/* Why an output file is missing. */
#define MANIFEST_REASON_LIST(X)                                                                    \
    X(NONE, "", "")                                                                                \
    X(NO_MATCH, "no_match", "there is no such file in the guest")                                  \
    X(DIRECTORY, "directory", "it is a directory; only regular files are collected")               \
    X(NOT_REGULAR, "not_regular", "it is neither a regular file nor a link to one")                \
    X(UNREADABLE, "unreadable", "it could not be read in the guest")                               \
    X(TOO_MANY, "too_many", "more files matched than are collected in one run")                    \
    X(TOO_LONG, "too_long", "the file names are too long to be announced all together")            \
    X(NO_ROOM, "no_room", "not even the names fit into the limit for output files")                \
    X(REOPENED, "reopened",                                                                        \
      "the command opened it for writing by its name; if that truncated it (> /dev/stderr), what " \
      "had been written before is lost: use >> instead")

enum manifest_reason {
#define X(id, word, text) MANIFEST_REASON_##id,
    MANIFEST_REASON_LIST(X)
#undef X
        MANIFEST_REASON_COUNT
};

/* The reason as a sentence for people. */
const char *manifest_reason_text(enum manifest_reason reason);
/* The reason as the manifest has it. */
const char *manifest_reason_word(enum manifest_reason reason);

struct manifest_entry {
    enum manifest_name name;
    enum manifest_reason reason; /* MISSING */
    uint64_t size_bytes;         /* what the guest had, before any limit */
    bool has_sha256;
    uint8_t sha256[SHA256_BYTES]; /* of what was sent */
    const char *path;             /* FILE, MISSING: not escaped any more; else NULL */
    size_t path_bytes;            /* may hold any byte but NUL; path is NUL-terminated too */
};

/* The record's stream of this name; STREAM_COUNT for FILE and MISSING. */
enum stream_id manifest_stream(enum manifest_name name);

#define MANIFEST_PATH_MAX_BYTES 4096

/* ---- Reading line by line, without memory of its own (supervisor) ---------------------------- */

struct manifest_reader {
    const char *next;
    const char *end;
    unsigned bad_lines;
    char path[MANIFEST_PATH_MAX_BYTES + 1]; /* of the entry read last */
};

void manifest_reader_init(struct manifest_reader *reader, const void *text, size_t bytes);

/*
 * manifest_next - the next line that is one.
 * @entry: its path lies in the reader, until the next call.
 * Return: false at the end.
 */
bool manifest_next(struct manifest_reader *reader, struct manifest_entry *entry);

/* ---- Reading all of it (report) -------------------------------------------------------------- */

/* Files and what is missing, at most; more is counted as bad lines. */
#define MANIFEST_ENTRIES_MAX (4 + 2 * OUTPUT_FILES_MAX)

struct manifest {
    struct manifest_entry *entries; /* in the order in which they came first */
    size_t count;
    unsigned bad_lines;
};

/*
 * manifest_parse - both announcements to one list: a later line replaces an earlier one of the same
 * name and path.
 * Return: 0, or -ENOMEM. manifest_free() accepts an empty one.
 */
int manifest_parse(struct manifest *manifest, const void *text, size_t bytes) must_check;
void manifest_free(struct manifest *manifest);

/* ---- Writing (init) -------------------------------------------------------------------------- */

/*
 * manifest_print - one line, with its newline.
 * Return: its length; 0 if it does not fit into room.
 */
size_t manifest_print(char *to, size_t room, const struct manifest_entry *entry);

/* ---- The output stream (section D) ----------------------------------------------------------- */

struct output_file {
    const uint8_t *path;
    size_t path_bytes; /* 1 to MANIFEST_PATH_MAX_BYTES, no NUL inside */
    const uint8_t *content;
    uint64_t content_bytes;
};

struct output_reader {
    const uint8_t *next;
    uint64_t left_bytes;
    uint32_t files_left; /* as the stream says */
    bool cut;            /* it ended before it should have */
};

/*
 * output_reader_init - begin to read a STREAM_OUTPUT that bvmm's init sent.
 * Return: 0, or -EBADMSG if it does not begin as one.
 */
int output_reader_init(struct output_reader *reader, const void *bytes, uint64_t count) must_check;

/*
 * output_next - the next file; of a stream that was cut short, as much of it as is there.
 * Return: false at the end; then reader->cut says whether that was the real one.
 */
bool output_next(struct output_reader *reader, struct output_file *file);

#endif
