/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * record.c: makes the shared memory of a run, adds to its streams, and checks it afterwards.
 * The threads of each function are in record.h. Nothing here blocks.
 */
#include "base/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RECORD_ALIGNMENT_BYTES 4096
#define RECORD_FILE_NAME "bvmm-record" /* as /proc shows it */

static const char *const status_names[] = {
#define X(id, name) [RUN_##id] = (name),
    RUN_STATUS_LIST(X)
#undef X
};
static const char *const time_names[] = {
#define X(id, name) [TIME_##id] = (name),
    RUN_TIME_LIST(X)
#undef X
};
static const char *const stream_names[] = {
#define X(id, name, port) [STREAM_##id] = (name),
    STREAM_LIST(X)
#undef X
};
static const char *const exit_names[] = {
#define X(id, name) [EXIT_##id] = (name),
    EXIT_LIST(X)
#undef X
};
static const char *const layer_names[] = {
#define X(id, name) [SANDBOX_##id] = (name),
    SANDBOX_LAYER_LIST(X)
#undef X
};
static const char *const actor_state_names[] = {"none", "starting", "ready", "running", "stopped"};
_Static_assert(ARRAY_SIZE(actor_state_names) == ACTOR_STATE_STOPPED + 1, "one name each");

const char *run_status_name(enum run_status status)
{
    return (unsigned)status < RUN_STATUS_COUNT ? status_names[status] : "unknown";
}

const char *run_time_name(enum run_time point)
{
    return (unsigned)point < TIME_COUNT ? time_names[point] : "unknown";
}

const char *stream_name(enum stream_id stream)
{
    return (unsigned)stream < STREAM_COUNT ? stream_names[stream] : "unknown";
}

const char *sandbox_layer_name(enum sandbox_layer layer)
{
    return (unsigned)layer < SANDBOX_LAYER_COUNT ? layer_names[layer] : "unknown";
}

const char *exit_reason_name(enum exit_reason reason)
{
    return (unsigned)reason < EXIT_REASON_COUNT ? exit_names[reason] : "unknown";
}

const char *actor_state_name(enum actor_state state)
{
    return (unsigned)state < ARRAY_SIZE(actor_state_names) ? actor_state_names[state] : "unknown";
}

/* ---- Making and laying out ------------------------------------------------------------------- */

/* Give a region of the record to somebody; *next_bytes moves behind it. */
static uint64_t take_region(uint64_t *next_bytes, uint64_t bytes)
{
    uint64_t start = *next_bytes;

    *next_bytes = align_up(start + bytes, RECORD_ALIGNMENT_BYTES);
    return start;
}

static uint64_t lay_out(struct record *layout, const struct record_limits *limits)
{
    uint64_t next_bytes = align_up(sizeof(*layout), RECORD_ALIGNMENT_BYTES);

    layout->console.head_capacity_bytes = limits->console_bytes / 2;
    layout->console.tail_capacity_bytes = limits->console_bytes - limits->console_bytes / 2;
    layout->console.offset_bytes = take_region(&next_bytes, limits->console_bytes);
    for (int i = 0; i < STREAM_COUNT; i++) {
        layout->streams[i].capacity_bytes = limits->stream_bytes[i];
        layout->streams[i].offset_bytes = take_region(&next_bytes, limits->stream_bytes[i]);
    }
    layout->magic = RECORD_MAGIC;
    layout->size_bytes = next_bytes;
    return next_bytes;
}

static int check_limits(const struct record_limits *limits, struct bvmm_error *err)
{
    uint64_t largest = limits->console_bytes;

    for (int i = 0; i < STREAM_COUNT; i++) {
        largest = limits->stream_bytes[i] > largest ? limits->stream_bytes[i] : largest;
    }
    if (largest > RECORD_LIMIT_MAX_BYTES) {
        return error_set(err, BVMM_ERROR_MEMORY, -EINVAL,
                         "a limit of the run record is %" PRIu64
                         " bytes; expected at most %" PRIu64,
                         largest, (uint64_t)RECORD_LIMIT_MAX_BYTES);
    }
    return 0;
}

/* A memfd of this size that can neither grow nor shrink, mapped; NULL with errno set. */
static struct record *map_sealed_memory(uint64_t size_bytes)
{
    void *memory = MAP_FAILED;
    int saved_errno;
    int fd = memfd_create(RECORD_FILE_NAME, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        return NULL;
    }
    /*
     * Sealed, because whoever holds a mapping can get at the file again (/proc/self/map_files), and
     * a file that became shorter would kill the launcher by SIGBUS when it makes the report.
     */
    if (ftruncate(fd, (off_t)size_bytes) == 0 &&
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0) {
        memory = mmap(NULL, size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    }
    saved_errno = errno;
    close(fd);
    errno = saved_errno;
    return memory == MAP_FAILED ? NULL : memory;
}

int record_create(const struct record_limits *limits, struct record **ret_record,
                  struct bvmm_error *err)
{
    struct record *layout = NULL;
    struct record *record;
    uint64_t size_bytes;
    int r = check_limits(limits, err);

    if (r < 0) {
        return r;
    }
    layout = aligned_alloc(CACHE_LINE_BYTES, sizeof(*layout));
    if (!layout) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory for the run record");
    }
    memset(layout, 0, sizeof(*layout));
    size_bytes = lay_out(layout, limits);
    record = map_sealed_memory(size_bytes);
    if (!record) {
        r = -errno;
        free(layout);
        return error_set(err, BVMM_ERROR_MEMORY, r,
                         "cannot make %" PRIu64 " bytes of shared memory for the run record: %s; "
                         "free memory, or lower the job's limits",
                         size_bytes, error_text(-r));
    }
    memcpy(record, layout, sizeof(*record));
    free(layout);
    *ret_record = record;
    return 0;
}

void record_destroy(struct record *record)
{
    if (record) {
        munmap(record, record->size_bytes);
    }
}

int record_unmap_others(const struct record *mine)
{
    FILE *maps = fopen("/proc/self/maps", "re");
    char *line = NULL;
    size_t bytes = 0;
    int code = maps != NULL ? 0 : -errno;

    /* Not a list of our own: a record is mapped a moment before it could be entered there. */
    while (code == 0 && getline(&line, &bytes, maps) > 0) {
        char *end = NULL;
        const uintptr_t from = (uintptr_t)strtoull(line, &end, 16);
        const uintptr_t to = *end == '-' ? (uintptr_t)strtoull(end + 1, NULL, 16) : from;

        if (strstr(line, " /memfd:" RECORD_FILE_NAME) != NULL && from != (uintptr_t)mine &&
            munmap((void *)from, to - from) < 0) {
            code = -errno;
        }
    }
    free(line);
    if (maps != NULL) {
        (void)fclose(maps);
    }
    return code;
}

struct record *record_layout_copy(const struct record *record)
{
    struct record *copy = aligned_alloc(CACHE_LINE_BYTES, sizeof(*copy));

    if (copy) {
        memcpy(copy, record, sizeof(*copy));
    }
    return copy;
}

/* ---- Adding ---------------------------------------------------------------------------------- */

uint8_t *record_stream_bytes(struct record *record, enum stream_id stream)
{
    return (uint8_t *)record + record->streams[stream].offset_bytes;
}

void record_append(struct record *record, enum stream_id stream, const void *data, size_t bytes)
{
    struct record_stream *s = &record->streams[stream];
    uint64_t length_bytes = s->length_bytes; /* this thread is its only writer */
    uint64_t taken_bytes = min_u64(bytes, s->capacity_bytes - length_bytes);

    memcpy(record_stream_bytes(record, stream) + length_bytes, data, taken_bytes);
    /* Release; pairs with the launcher's acquire when it looks at a live record. */
    __atomic_store_n(&s->length_bytes, length_bytes + taken_bytes, __ATOMIC_RELEASE);
    s->dropped_bytes += bytes - taken_bytes;
}

uint64_t record_report_cost_ns(const struct record *record)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        bytes += __atomic_load_n(&record->streams[i].length_bytes, __ATOMIC_RELAXED);
    }
    return bytes * RECORD_REPORT_NS_PER_BYTE;
}

/* Add to the ring that keeps the end of the console log; position counts from the ring's start. */
static void append_tail(uint8_t *tail, uint64_t capacity_bytes, uint64_t position,
                        const uint8_t *data, size_t bytes)
{
    if (capacity_bytes == 0) {
        return;
    }
    if (bytes > capacity_bytes) {
        position += bytes - capacity_bytes;
        data += bytes - capacity_bytes;
        bytes = capacity_bytes;
    }
    while (bytes > 0) {
        uint64_t at = position % capacity_bytes;
        uint64_t part_bytes = min_u64(bytes, capacity_bytes - at);

        memcpy(tail + at, data, part_bytes);
        position += part_bytes;
        data += part_bytes;
        bytes -= part_bytes;
    }
}

void record_console_append(struct record *record, const void *data, size_t bytes)
{
    struct record_console *console = &record->console;
    uint8_t *head = (uint8_t *)record + console->offset_bytes;
    uint64_t total_bytes = console->total_bytes; /* this thread is its only writer */
    const uint8_t *from = data;
    uint64_t head_bytes = 0;

    if (total_bytes < console->head_capacity_bytes) {
        head_bytes = min_u64(bytes, console->head_capacity_bytes - total_bytes);
        memcpy(head + total_bytes, from, head_bytes);
    }
    append_tail(head + console->head_capacity_bytes, console->tail_capacity_bytes,
                total_bytes + head_bytes - console->head_capacity_bytes, from + head_bytes,
                bytes - head_bytes);
    /* Release; pairs with the launcher's acquire when it looks at a live record. */
    __atomic_store_n(&console->total_bytes, total_bytes + bytes, __ATOMIC_RELEASE);
}

int record_console_copy(const struct record *record, char **ret_text, size_t *ret_bytes,
                        uint64_t *ret_dropped_bytes, size_t *ret_dropped_at)
{
    const struct record_console *console = &record->console;
    const uint8_t *head = (const uint8_t *)record + console->offset_bytes;
    const uint8_t *tail = head + console->head_capacity_bytes;
    uint64_t head_bytes = min_u64(console->total_bytes, console->head_capacity_bytes);
    uint64_t rest_bytes = console->total_bytes - head_bytes;
    uint64_t tail_bytes = min_u64(rest_bytes, console->tail_capacity_bytes);
    /* Where the oldest byte of the ring is: 0 until it has gone round once. */
    uint64_t oldest = rest_bytes > tail_bytes && tail_bytes > 0 ? rest_bytes % tail_bytes : 0;
    char *text = malloc(head_bytes + tail_bytes + 1);

    if (!text) {
        return -ENOMEM;
    }
    memcpy(text, head, head_bytes);
    memcpy(text + head_bytes, tail + oldest, tail_bytes - oldest);
    memcpy(text + head_bytes + tail_bytes - oldest, tail, oldest);
    text[head_bytes + tail_bytes] = '\0';
    *ret_text = text;
    *ret_bytes = head_bytes + tail_bytes;
    *ret_dropped_bytes = rest_bytes - tail_bytes;
    *ret_dropped_at = head_bytes;
    return 0;
}

/* ---- Checking -------------------------------------------------------------------------------- */

/* Each mend_ function returns 1 if it had to change something. */
static unsigned mend_u64(uint64_t *value, uint64_t right)
{
    bool wrong = *value != right;

    *value = right;
    return wrong;
}

static unsigned mend_below(uint32_t *value, uint32_t limit, uint32_t otherwise)
{
    bool wrong = *value >= limit;

    if (wrong) {
        *value = otherwise;
    }
    return wrong;
}

static unsigned mend_flag(uint8_t *flag)
{
    bool wrong = *flag > 1;

    *flag = *flag != 0;
    return wrong;
}

static unsigned mend_string(char *string, size_t size_bytes)
{
    bool wrong = memchr(string, '\0', size_bytes) == NULL;

    string[size_bytes - 1] = '\0';
    return wrong;
}

static unsigned mend_bytes(void *bytes, const void *right, size_t size_bytes)
{
    bool wrong = memcmp(bytes, right, size_bytes) != 0;

    memcpy(bytes, right, size_bytes);
    return wrong;
}

static unsigned check_launcher_fields(struct record *record, const struct record *layout)
{
    unsigned mended = mend_u64(&record->magic, layout->magic) +
                      mend_u64(&record->size_bytes, layout->size_bytes) +
                      mend_bytes(record->nonce, layout->nonce, sizeof(record->nonce)) +
                      mend_bytes(record->kernel_sha256, layout->kernel_sha256, SHA256_BYTES) +
                      mend_bytes(&record->vcpu_count, &layout->vcpu_count, sizeof(uint32_t)) +
                      mend_bytes(&record->outcome.kernel_from_job, &layout->outcome.kernel_from_job,
                                 sizeof(uint8_t));

    mended += mend_u64(&record->time_ns[TIME_PROCESS_START], layout->time_ns[TIME_PROCESS_START]);
    mended += mend_u64(&record->time_ns[TIME_JOB_READY], layout->time_ns[TIME_JOB_READY]);
    return mended;
}

static unsigned check_console(struct record_console *console, const struct record_console *layout)
{
    return mend_u64(&console->offset_bytes, layout->offset_bytes) +
           mend_u64(&console->head_capacity_bytes, layout->head_capacity_bytes) +
           mend_u64(&console->tail_capacity_bytes, layout->tail_capacity_bytes);
}

static unsigned check_stream(struct record_stream *stream, const struct record_stream *layout)
{
    unsigned mended = mend_u64(&stream->offset_bytes, layout->offset_bytes) +
                      mend_u64(&stream->capacity_bytes, layout->capacity_bytes) +
                      mend_below(&stream->state, STREAM_BROKEN + 1, STREAM_BROKEN) +
                      mend_below(&stream->via, VIA_VSOCK + 1, VIA_NONE) +
                      mend_flag(&stream->has_announced_bytes) +
                      mend_flag(&stream->has_announced_sha256);

    if (stream->length_bytes > stream->capacity_bytes) {
        stream->length_bytes = stream->capacity_bytes;
        stream->state = STREAM_BROKEN;
        mended++;
    }
    return mended;
}

static unsigned check_outcome(struct run_outcome *outcome)
{
    return mend_below(&outcome->status, RUN_STATUS_COUNT, RUN_VM_ERROR) +
           mend_below(&outcome->error_kind, BVMM_ERROR_COUNT, BVMM_ERROR_NONE) +
           mend_string(outcome->error_message, sizeof(outcome->error_message)) +
           mend_flag(&outcome->has_wait_status) + mend_flag(&outcome->has_exit_code);
}

unsigned record_check(struct record *record, const struct record *layout)
{
    unsigned mended =
        check_launcher_fields(record, layout) + check_console(&record->console, &layout->console) +
        check_outcome(&record->outcome) +
        mend_string(record->sandbox.refused, sizeof(record->sandbox.refused)) +
        mend_below(&record->actor_count, ACTORS_MAX + 1, ACTORS_MAX) +
        mend_below(&record->device_fault_count, DEVICE_FAULTS_MAX + 1, DEVICE_FAULTS_MAX) +
        mend_below(&record->phase, TIME_COUNT, TIME_PROCESS_START);

    for (int i = 0; i < STREAM_COUNT; i++) {
        mended += check_stream(&record->streams[i], &layout->streams[i]);
    }
    for (int i = 0; i < DEVICE_FAULTS_MAX; i++) {
        mended += mend_string(record->device_faults[i].actor, ACTOR_NAME_BYTES);
        mended += mend_string(record->device_faults[i].what, DEVICE_FAULT_BYTES);
    }
    for (int i = 0; i < ACTORS_MAX; i++) {
        mended += mend_string(record->actors[i].name, ACTOR_NAME_BYTES);
        mended += mend_below(&record->actors[i].state, ACTOR_STATE_STOPPED + 1, ACTOR_STATE_NONE);
    }
    record->mended_count = mended;
    return mended;
}
