/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * guest_job.c: the guest job, written by the host and read by the guest's init.
 */
#include "protocol/guest_job.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void guest_job_init(struct guest_job *job)
{
    *job = (struct guest_job){
        .root_device = "/dev/vda",
        .root_fstype = "",
        .workdir = "/",
        .user = "",
        .hostname = GUEST_JOB_DEFAULT_HOSTNAME,
        .grace_ms = GUEST_JOB_DEFAULT_GRACE_MS,
    };
    for (int i = 0; i < STREAM_COUNT; i++) {
        job->stream_limit_bytes[i] = GUEST_JOB_NO_LIMIT;
    }
}

/* ---- Writing --------------------------------------------------------------------------------- */

/* Bytes to be: first counted with to == NULL, then written. */
struct writer {
    uint8_t *to;
    size_t count;
};

static void put(struct writer *writer, const void *bytes, size_t count)
{
    if (writer->to && count > 0) {
        memcpy(writer->to + writer->count, bytes, count);
    }
    writer->count += count;
}

static void put_item(struct writer *writer, enum guest_job_tag tag, const void *bytes, size_t count)
{
    uint32_t head[2] = {tag, (uint32_t)count};

    put(writer, head, sizeof(head));
    put(writer, bytes, count);
}

static void put_text(struct writer *writer, enum guest_job_tag tag, const char *text)
{
    put_item(writer, tag, text, strlen(text));
}

static void put_u32(struct writer *writer, enum guest_job_tag tag, uint32_t value)
{
    put_item(writer, tag, &value, sizeof(value));
}

static void put_texts(struct writer *writer, enum guest_job_tag tag, const char *const *texts,
                      size_t count)
{
    for (size_t i = 0; i < count; i++) {
        put_text(writer, tag, texts[i]);
    }
}

static void put_mount(struct writer *writer, const struct guest_job_mount *mount)
{
    size_t device = strlen(mount->device) + 1;
    size_t path = strlen(mount->path) + 1;
    size_t fstype = strlen(mount->fstype);
    uint32_t head[2] = {GUEST_JOB_TAG_MOUNT, (uint32_t)(device + path + fstype)};

    put(writer, head, sizeof(head));
    put(writer, mount->device, device);
    put(writer, mount->path, path);
    put(writer, mount->fstype, fstype);
}

static void put_job(struct writer *writer, const struct guest_job *job)
{
    uint8_t vsock = job->vsock;

    put_u32(writer, GUEST_JOB_TAG_VERSION, GUEST_JOB_VERSION);
    put_item(writer, GUEST_JOB_TAG_NONCE, job->nonce, NONCE_BYTES);
    put_text(writer, GUEST_JOB_TAG_ROOT_DEVICE, job->root_device);
    put_text(writer, GUEST_JOB_TAG_ROOT_FSTYPE, job->root_fstype);
    put_texts(writer, GUEST_JOB_TAG_ARG, job->args, job->arg_count);
    put_texts(writer, GUEST_JOB_TAG_ENV, job->env, job->env_count);
    put_text(writer, GUEST_JOB_TAG_WORKDIR, job->workdir);
    put_text(writer, GUEST_JOB_TAG_USER, job->user);
    put_text(writer, GUEST_JOB_TAG_HOSTNAME, job->hostname);
    put_texts(writer, GUEST_JOB_TAG_OUTPUT, job->outputs, job->output_count);
    for (size_t i = 0; i < job->mount_count; i++) {
        put_mount(writer, &job->mounts[i]);
    }
    for (uint32_t i = 0; i < STREAM_COUNT; i++) {
        struct {
            uint32_t stream;
            uint64_t bytes;
        } __attribute__((packed)) limit = {i, job->stream_limit_bytes[i]};

        put_item(writer, GUEST_JOB_TAG_STREAM_LIMIT, &limit, sizeof(limit));
    }
    put_item(writer, GUEST_JOB_TAG_VSOCK, &vsock, sizeof(vsock));
    put_item(writer, GUEST_JOB_TAG_TMPFS_LIMIT, &job->tmpfs_limit_bytes, sizeof(uint64_t));
    put_u32(writer, GUEST_JOB_TAG_GRACE_MS, job->grace_ms);
    put_item(writer, GUEST_JOB_TAG_REALTIME, &job->realtime_ns, sizeof(job->realtime_ns));
}

int guest_job_encode(const struct guest_job *job, uint8_t **ret_bytes, size_t *ret_count,
                     struct bvmm_error *err)
{
    struct writer writer = {.to = NULL};
    uint8_t *bytes;

    if (job->arg_count == 0) {
        return error_set(err, BVMM_ERROR_JOB, -EINVAL, "the guest job names no command");
    }
    put_job(&writer, job);
    if (writer.count > GUEST_JOB_MAX_BYTES) {
        return error_set(err, BVMM_ERROR_JOB, -E2BIG,
                         "command, env and output_files take %zu bytes together; expected at most "
                         "%llu: pass large data in the image or by stdin_path",
                         writer.count, (unsigned long long)GUEST_JOB_MAX_BYTES);
    }
    bytes = malloc(writer.count);
    if (!bytes) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory for the guest job");
    }
    writer = (struct writer){.to = bytes};
    put_job(&writer, job);
    *ret_bytes = bytes;
    *ret_count = writer.count;
    return 0;
}

/* ---- Reading --------------------------------------------------------------------------------- */

struct item {
    uint32_t tag;
    uint32_t count;
    const uint8_t *bytes;
};

struct reader {
    const uint8_t *next;
    size_t left;
};

/* 1: an item; 0: the end; -EBADMSG: neither. */
static int next_item(struct reader *reader, struct item *item)
{
    uint32_t head[2];

    if (reader->left == 0) {
        return 0;
    }
    if (reader->left < sizeof(head)) {
        return -EBADMSG;
    }
    memcpy(head, reader->next, sizeof(head));
    reader->next += sizeof(head);
    reader->left -= sizeof(head);
    if (head[1] > reader->left) {
        return -EBADMSG;
    }
    *item = (struct item){.tag = head[0], .count = head[1], .bytes = reader->next};
    reader->next += head[1];
    reader->left -= head[1];
    return 1;
}

/* How much memory the job's lists and texts take, and where the next of each goes. */
struct storage {
    size_t arg_count;
    size_t env_count;
    size_t output_count;
    size_t mount_count;
    size_t text_bytes;
    char *text;
    const char **args;
    const char **env;
    const char **outputs;
    struct guest_job_mount *mounts;
};

static int measure(const uint8_t *bytes, size_t count, struct storage *storage)
{
    struct reader reader = {bytes, count};
    struct item item;
    int r;

    for (r = next_item(&reader, &item); r > 0; r = next_item(&reader, &item)) {
        storage->arg_count += item.tag == GUEST_JOB_TAG_ARG;
        storage->env_count += item.tag == GUEST_JOB_TAG_ENV;
        storage->output_count += item.tag == GUEST_JOB_TAG_OUTPUT;
        storage->mount_count += item.tag == GUEST_JOB_TAG_MOUNT;
        storage->text_bytes += item.count + 1UL;
    }
    return r;
}

/* One block: mounts, lists of pointers, texts. */
static int allocate(struct guest_job *job, struct storage *storage)
{
    size_t mounts = storage->mount_count * sizeof(struct guest_job_mount);
    size_t pointers = storage->arg_count + storage->env_count + storage->output_count + 3;
    uint8_t *block = calloc(1, mounts + pointers * sizeof(char *) + storage->text_bytes);

    if (!block) {
        return -ENOMEM;
    }
    job->storage = block;
    storage->mounts = (void *)block;
    storage->args = (void *)(block + mounts);
    storage->env = storage->args + storage->arg_count + 1;
    storage->outputs = storage->env + storage->env_count + 1;
    storage->text = (char *)(storage->outputs + storage->output_count + 1);
    job->mounts = storage->mounts;
    job->args = storage->args;
    job->env = storage->env;
    job->outputs = storage->outputs;
    return 0;
}

/* An item's bytes as a string of our own; it may hold NULs. */
static char *keep(struct storage *storage, const struct item *item)
{
    char *text = storage->text;

    if (item->count > 0) {
        memcpy(text, item->bytes, item->count);
    }
    text[item->count] = '\0';
    storage->text += item->count + 1UL;
    return text;
}

static const char *take_text(struct storage *storage, const struct item *item, const char **to)
{
    if (item->count > 0 && memchr(item->bytes, '\0', item->count)) {
        return "a text has a NUL byte in it";
    }
    *to = keep(storage, item);
    return NULL;
}

static const char *take_number(const struct item *item, void *to, size_t bytes)
{
    if (item->count != bytes) {
        return "a number has the wrong width";
    }
    memcpy(to, item->bytes, bytes);
    return NULL;
}

static const char *take_mount(struct storage *storage, const struct item *item,
                              struct guest_job_mount *mount)
{
    const char *end;

    mount->device = keep(storage, item);
    end = mount->device + item->count;
    mount->path = mount->device + strlen(mount->device) + 1;
    if (mount->path > end) {
        return "a mount has no mount point";
    }
    mount->fstype = mount->path + strlen(mount->path) + 1;
    if (mount->fstype > end || mount->fstype + strlen(mount->fstype) != end) {
        return "a mount is not device, path and file system type";
    }
    return NULL;
}

static const char *take_limit(struct guest_job *job, const struct item *item)
{
    uint32_t stream;

    if (item->count != sizeof(stream) + sizeof(uint64_t)) {
        return "a stream's limit has the wrong width";
    }
    memcpy(&stream, item->bytes, sizeof(stream));
    if (stream >= STREAM_COUNT) {
        return "a limit is for no stream there is";
    }
    memcpy(&job->stream_limit_bytes[stream], item->bytes + sizeof(stream), sizeof(uint64_t));
    return NULL;
}

static const char *take_vsock(struct guest_job *job, const struct item *item)
{
    uint8_t vsock = 0;
    const char *why = take_number(item, &vsock, sizeof(vsock));

    job->vsock = vsock != 0;
    return why;
}

/* NULL, or what is wrong with the item. */
static const char *take_item(struct guest_job *job, struct storage *storage,
                             const struct item *item)
{
    switch ((enum guest_job_tag)item->tag) {
    case GUEST_JOB_TAG_VERSION:
        return "the version stands twice";
    case GUEST_JOB_TAG_NONCE:
        return take_number(item, job->nonce, NONCE_BYTES);
    case GUEST_JOB_TAG_ROOT_DEVICE:
        return take_text(storage, item, &job->root_device);
    case GUEST_JOB_TAG_ROOT_FSTYPE:
        return take_text(storage, item, &job->root_fstype);
    case GUEST_JOB_TAG_ARG:
        return take_text(storage, item, &storage->args[job->arg_count++]);
    case GUEST_JOB_TAG_ENV:
        return take_text(storage, item, &storage->env[job->env_count++]);
    case GUEST_JOB_TAG_WORKDIR:
        return take_text(storage, item, &job->workdir);
    case GUEST_JOB_TAG_USER:
        return take_text(storage, item, &job->user);
    case GUEST_JOB_TAG_HOSTNAME:
        return take_text(storage, item, &job->hostname);
    case GUEST_JOB_TAG_OUTPUT:
        return take_text(storage, item, &storage->outputs[job->output_count++]);
    case GUEST_JOB_TAG_STREAM_LIMIT:
        return take_limit(job, item);
    case GUEST_JOB_TAG_VSOCK:
        return take_vsock(job, item);
    case GUEST_JOB_TAG_MOUNT:
        return take_mount(storage, item, &storage->mounts[job->mount_count++]);
    case GUEST_JOB_TAG_TMPFS_LIMIT:
        return take_number(item, &job->tmpfs_limit_bytes, sizeof(job->tmpfs_limit_bytes));
    case GUEST_JOB_TAG_GRACE_MS:
        return take_number(item, &job->grace_ms, sizeof(job->grace_ms));
    case GUEST_JOB_TAG_REALTIME:
        return take_number(item, &job->realtime_ns, sizeof(job->realtime_ns));
    default:
        return "an item has an unknown tag";
    }
}

/* The first item says what language the rest is in. */
static int check_version(struct reader *reader, const char **ret_why)
{
    struct item item;
    uint32_t version;
    int r = next_item(reader, &item);

    if (r <= 0 || item.tag != GUEST_JOB_TAG_VERSION || item.count != sizeof(version)) {
        *ret_why = "it does not begin with a version";
        return -EBADMSG;
    }
    memcpy(&version, item.bytes, sizeof(version));
    if (version != GUEST_JOB_VERSION) {
        *ret_why = "it is of another version than this init";
        return -EPROTO;
    }
    return 0;
}

static int read_items(struct guest_job *job, struct storage *storage, struct reader *reader,
                      const char **ret_why)
{
    uint32_t seen = 0;
    const uint32_t repeated = 1U << GUEST_JOB_TAG_ARG | 1U << GUEST_JOB_TAG_ENV |
                              1U << GUEST_JOB_TAG_OUTPUT | 1U << GUEST_JOB_TAG_STREAM_LIMIT |
                              1U << GUEST_JOB_TAG_MOUNT;
    struct item item;

    while (next_item(reader, &item) > 0) {
        const char *why = take_item(job, storage, &item);

        if (!why && (seen & ~repeated & 1U << item.tag)) {
            why = "an item stands twice";
        }
        if (why) {
            *ret_why = why;
            return -EBADMSG;
        }
        seen |= 1U << item.tag;
    }
    if (!(seen & 1U << GUEST_JOB_TAG_NONCE) || job->arg_count == 0) {
        *ret_why = "it has no nonce or no command";
        return -EBADMSG;
    }
    return 0;
}

int guest_job_decode(struct guest_job *job, const uint8_t *bytes, size_t count,
                     const char **ret_why)
{
    struct reader reader = {bytes, count};
    struct storage storage = {.text = NULL};
    int r;

    guest_job_init(job);
    r = check_version(&reader, ret_why);
    if (r < 0) {
        return r;
    }
    if (measure(bytes, count, &storage) < 0) {
        *ret_why = "it ends in the middle of an item";
        return -EBADMSG;
    }
    r = allocate(job, &storage);
    if (r < 0) {
        *ret_why = "there is no memory for it";
        return r;
    }
    r = read_items(job, &storage, &reader, ret_why);
    if (r < 0) {
        guest_job_free(job);
    }
    return r;
}

void guest_job_free(struct guest_job *job)
{
    free(job->storage);
    guest_job_init(job);
}
