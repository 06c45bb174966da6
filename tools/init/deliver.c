/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * deliver.c: from files to streams, over vsock connections or as frames. Small streams go first, so
 * that a run that is cut short has most of what matters.
 */
#include "deliver.h"

#include <errno.h>
#include <nettle/sha2.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES (256 * KIB)
#define STREAMS_SENT 4
/* count, then before each file its framing; each piece is memory or a file. */
#define PIECES_MAX (1 + 2 * OUTPUT_FILES_MAX)

/* A stretch of a stream: memory, or the beginning of a file. */
struct piece {
    const void *memory; /* NULL: fd */
    int fd;
    uint64_t bytes;
    struct manifest_entry *entry; /* gets the digest of this piece alone; may be NULL */
};

struct stream {
    enum stream_id id;
    uint32_t port;
    struct manifest_entry *entry; /* gets the digest of the whole stream */
    struct piece *pieces;
    size_t piece_count;
    bool delivered;
    int fd; /* vsock: waits for the host to close its side */
};

struct delivery {
    struct link *link;
    struct manifest_entry entries[STREAMS_SENT + OUTPUT_FILES_MAX];
    size_t entry_count;
    const struct outputs *outputs;
    struct stream streams[STREAMS_SENT];
    size_t stream_count;
    struct piece simple_pieces[3];
    struct piece output_pieces[PIECES_MAX];
    uint8_t *framing; /* of all output files */
    uint8_t chunk[CHUNK_BYTES];
};

/* ---- What is to be sent ---------------------------------------------------------------------- */

static struct manifest_entry *add_entry(struct delivery *d, enum manifest_name name,
                                        uint64_t size_bytes, const char *path)
{
    struct manifest_entry *entry = &d->entries[d->entry_count++];

    *entry = (struct manifest_entry){
        .name = name,
        .size_bytes = size_bytes,
        .path = path,
        .path_bytes = path ? strlen(path) : 0,
    };
    return entry;
}

static void add_stream(struct delivery *d, enum stream_id id, uint32_t port,
                       struct manifest_entry *entry, struct piece *pieces, size_t piece_count)
{
    d->streams[d->stream_count++] = (struct stream){
        .id = id,
        .port = port,
        .entry = entry,
        .pieces = pieces,
        .piece_count = piece_count,
        .fd = -1,
    };
}

static void add_log(struct delivery *d, enum stream_id id, uint32_t port, enum manifest_name name,
                    int fd, uint64_t limit_bytes, struct piece *piece)
{
    struct stat status = {.st_size = 0};

    fstat(fd, &status);
    *piece = (struct piece){.fd = fd, .bytes = min_u64((uint64_t)status.st_size, limit_bytes)};
    add_stream(d, id, port, add_entry(d, name, (uint64_t)status.st_size, NULL), piece, 1);
}

static void put(uint8_t **to, const void *bytes, size_t count)
{
    memcpy(*to, bytes, count);
    *to += count;
}

static int add_outputs(struct delivery *d, struct outputs *outputs, uint64_t limit_bytes)
{
    struct manifest_entry *entry;
    struct piece *piece = d->output_pieces;
    uint32_t count;
    uint8_t *next;
    size_t framing_bytes = sizeof(count);

    outputs_fit(outputs, limit_bytes);
    for (size_t i = 0; i < outputs->file_count; i++) {
        framing_bytes += sizeof(uint32_t) + sizeof(uint64_t) + strlen(outputs->files[i].path);
    }
    d->framing = malloc(framing_bytes);
    if (!d->framing) {
        return -ENOMEM;
    }
    entry = add_entry(d, MANIFEST_OUTPUT, outputs_stream_bytes(outputs, true), NULL);
    next = d->framing;
    count = (uint32_t)outputs->file_count;
    put(&next, &count, sizeof(count));
    *piece++ = (struct piece){.memory = d->framing, .bytes = sizeof(count)};
    for (size_t i = 0; i < outputs->file_count; i++) {
        const struct output *file = &outputs->files[i];
        uint32_t path_bytes = (uint32_t)strlen(file->path);
        uint8_t *start = next;

        put(&next, &path_bytes, sizeof(path_bytes));
        put(&next, file->path, path_bytes);
        put(&next, &file->sent_bytes, sizeof(file->sent_bytes));
        *piece++ = (struct piece){.memory = start, .bytes = (uint64_t)(next - start)};
        *piece++ = (struct piece){
            .fd = file->fd,
            .bytes = file->sent_bytes,
            .entry = add_entry(d, MANIFEST_FILE, file->size_bytes, file->path),
        };
    }
    add_stream(d, STREAM_OUTPUT, 5005, entry, d->output_pieces, (size_t)(piece - d->output_pieces));
    return 0;
}

static int collect(struct delivery *d, const struct results *results)
{
    const uint64_t *limit = results->limit_bytes;
    uint64_t code_bytes = strlen(results->exit_code);

    d->simple_pieces[0] = (struct piece){.memory = results->exit_code, .bytes = code_bytes};
    add_stream(d, STREAM_EXIT_CODE, 5002, add_entry(d, MANIFEST_EXIT_CODE, code_bytes, NULL),
               &d->simple_pieces[0], 1);
    add_log(d, STREAM_STDERR, 5001, MANIFEST_STDERR, results->stderr_fd, limit[STREAM_STDERR],
            &d->simple_pieces[1]);
    add_log(d, STREAM_STDOUT, 5000, MANIFEST_STDOUT, results->stdout_fd, limit[STREAM_STDOUT],
            &d->simple_pieces[2]);
    d->outputs = results->outputs;
    return results->outputs->wanted ? add_outputs(d, results->outputs, limit[STREAM_OUTPUT]) : 0;
}

/* ---- Announcements --------------------------------------------------------------------------- */

static int announce_text(struct link *link, const char *text, size_t bytes)
{
    uint64_t from = link->announced_bytes;
    int r = 0;

    for (size_t sent = 0; sent < bytes && r == 0; sent += FRAME_PAYLOAD_MAX_BYTES) {
        r = link_send(link, FRAME_ANNOUNCE, STREAM_ANNOUNCED, from + sent, text + sent,
                      min_u64(bytes - sent, FRAME_PAYLOAD_MAX_BYTES));
    }
    if (r == 0) {
        link->announced_bytes = from + bytes;
        r = link_send(link, FRAME_ANNOUNCE_END, STREAM_ANNOUNCED, from + bytes, NULL, 0);
    }
    return r;
}

static int announce(struct delivery *d)
{
    static char text[MANIFEST_MAX_BYTES];
    size_t length = 0;
    int r;

    text[length++] = '\n'; /* ends what may have been cut on the way that failed */
    for (size_t i = 0; i < d->entry_count; i++) {
        length += manifest_print(text + length, sizeof(text) - length, &d->entries[i]);
    }
    for (size_t i = 0; i < d->outputs->missing_count; i++) {
        length += manifest_print(text + length, sizeof(text) - length, &d->outputs->missing[i]);
    }
    r = announce_text(d->link, text, length);
    if (r == -EAGAIN) {
        r = announce_text(d->link, text, length);
    }
    return r;
}

/* ---- Streams --------------------------------------------------------------------------------- */

/* Where a stream stands while it is sent. */
struct progress {
    size_t piece;
    uint64_t in_piece_bytes;
    uint64_t bytes;
    bool failed; /* a file could not be read on */
    struct sha256_ctx stream_sha256;
    struct sha256_ctx piece_sha256;
};

static void set_digest(struct manifest_entry *entry, struct sha256_ctx *sha256)
{
    if (entry) {
        sha256_digest(sha256, SHA256_BYTES, entry->sha256);
        entry->has_sha256 = true;
    }
}

/*
 * Up to room bytes of the piece that is next.
 * Return: how many; -EIO if a file is shorter than it was or cannot be read.
 */
static ssize_t read_piece(const struct piece *piece, uint64_t from, uint8_t *to, size_t room)
{
    size_t count = min_u64(piece->bytes - from, room);
    ssize_t got;

    if (piece->memory) {
        memcpy(to, (const uint8_t *)piece->memory + from, count);
        return (ssize_t)count;
    }
    do {
        got = pread(piece->fd, to, count, (off_t)from);
    } while (got < 0 && errno == EINTR);
    return got > 0 ? got : -EIO;
}

/* The next bytes of the stream into the chunk. Return: how many; 0 at the end; -EIO. */
static ssize_t next_chunk(struct delivery *d, const struct stream *stream, struct progress *at)
{
    size_t filled = 0;

    if (at->bytes == 0 && at->piece == 0) {
        sha256_init(&at->stream_sha256);
        sha256_init(&at->piece_sha256);
    }
    if (at->failed) {
        return -EIO;
    }
    while (at->piece < stream->piece_count && filled < CHUNK_BYTES) {
        const struct piece *piece = &stream->pieces[at->piece];

        if (at->in_piece_bytes < piece->bytes) {
            ssize_t got =
                read_piece(piece, at->in_piece_bytes, d->chunk + filled, CHUNK_BYTES - filled);

            if (got < 0) {
                at->failed = true; /* what came before it is still sent */
                break;
            }
            sha256_update(&at->piece_sha256, (size_t)got, d->chunk + filled);
            filled += (size_t)got;
            at->in_piece_bytes += (uint64_t)got;
        }
        if (at->in_piece_bytes == piece->bytes) {
            set_digest(piece->entry, &at->piece_sha256);
            sha256_init(&at->piece_sha256);
            at->piece++;
            at->in_piece_bytes = 0;
        }
    }
    sha256_update(&at->stream_sha256, filled, d->chunk);
    at->bytes += filled;
    return at->failed && filled == 0 ? -EIO : (ssize_t)filled;
}

/* A file that cannot be read to its end cuts its stream: the announced size tells the host. */
static void report_cut(const struct stream *stream, const struct progress *at)
{
    fprintf(stderr,
            "bvmm-init: a file of stream %u could not be read; it is cut after %llu bytes\n",
            (unsigned)stream->id, (unsigned long long)at->bytes);
}

static int send_by_vsock(struct delivery *d, struct stream *stream)
{
    struct progress at = {.piece = 0};
    ssize_t count;
    int r = 0;

    stream->fd = d->link->connect(stream->port);
    if (stream->fd < 0) {
        return stream->fd;
    }
    while (r == 0 && (count = next_chunk(d, stream, &at)) != 0) {
        if (count < 0) {
            report_cut(stream, &at);
            break;
        }
        r = write_fully(stream->fd, d->chunk, (size_t)count);
    }
    if (r == 0) {
        set_digest(stream->entry, &at.stream_sha256);
        r = shutdown(stream->fd, SHUT_WR) < 0 ? -errno : 0;
    }
    if (r < 0) {
        close(stream->fd);
        stream->fd = -1;
    }
    return r;
}

static int send_by_frames(struct delivery *d, struct stream *stream)
{
    struct progress at = {.piece = 0};
    uint64_t sent_bytes = 0;
    ssize_t count;
    int r = 0;

    while (r == 0 && (count = next_chunk(d, stream, &at)) != 0) {
        if (count < 0) {
            report_cut(stream, &at);
            break;
        }
        for (size_t i = 0; i < (size_t)count && r == 0; i += FRAME_PAYLOAD_MAX_BYTES) {
            size_t part = min_u64((size_t)count - i, FRAME_PAYLOAD_MAX_BYTES);

            r = link_send(d->link, FRAME_DATA, stream->id, sent_bytes, d->chunk + i, part);
            sent_bytes += part;
        }
    }
    if (r == 0) {
        set_digest(stream->entry, &at.stream_sha256);
        r = link_send(d->link, FRAME_STREAM_END, stream->id, sent_bytes, NULL, 0);
    }
    return r;
}

/*
 * The host closes its side when it has taken all. Only then is it sure that a reset of the machine
 * cannot overtake the last bytes, which may still lie in a queue of the driver's.
 */
static void wait_until_taken(struct delivery *d)
{
    for (size_t i = 0; i < d->stream_count; i++) {
        struct stream *stream = &d->streams[i];
        struct pollfd poll_fd = {.fd = stream->fd, .events = POLLIN};

        if (stream->fd >= 0) {
            if (poll(&poll_fd, 1, LINK_CONNECT_MS) == 0) {
                fprintf(stderr, "bvmm-init: the host does not say that it has stream %u\n",
                        (unsigned)stream->id);
            }
            close(stream->fd);
            stream->fd = -1;
        }
    }
}

/* Over vsock, as far as it goes. Return: 0, or -errno of the first that failed. */
static int send_all_by_vsock(struct delivery *d)
{
    int r = 0;

    for (size_t i = 0; i < d->stream_count && r == 0; i++) {
        r = send_by_vsock(d, &d->streams[i]);
        d->streams[i].delivered = r == 0;
    }
    wait_until_taken(d);
    return r;
}

static int send_all_by_frames(struct delivery *d)
{
    int r = 0;

    for (size_t i = 0; i < d->stream_count && r == 0; i++) {
        if (!d->streams[i].delivered) {
            r = send_by_frames(d, &d->streams[i]);
        }
    }
    return r;
}

static int send_everything(struct delivery *d)
{
    int r = announce(d);

    if (r == 0 && d->link->via == VIA_VSOCK && send_all_by_vsock(d) < 0) {
        r = link_fall_back(d->link);
        if (r == 0) {
            r = announce(d);
        }
    }
    if (r == 0) {
        r = send_all_by_frames(d);
    }
    if (r == 0) {
        r = announce(d);
    }
    if (r == 0) {
        r = link_send(d->link, FRAME_BYE, 0, 0, NULL, 0);
    }
    if (r == -EAGAIN) {
        /* The connection broke some time ago: what it was told last may not have arrived. */
        r = announce(d);
        if (r == 0) {
            r = link_say(d->link, FRAME_BYE, NULL, 0);
        }
    }
    return r;
}

int deliver(struct link *link, const struct results *results)
{
    struct delivery *d = calloc(1, sizeof(*d));
    int r;

    if (!d) {
        return -ENOMEM;
    }
    d->link = link;
    r = collect(d, results);
    if (r == 0) {
        r = send_everything(d);
    }
    free(d->framing);
    free(d);
    return r;
}
