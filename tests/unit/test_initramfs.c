/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_initramfs.c: the archive, read by a reader of this test's own that is as strict as Linux's.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "vmm/initramfs.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

struct entry {
    char name[64];
    uint32_t mode;
    uint32_t device_major;
    uint32_t device_minor;
    const uint8_t *content;
    size_t bytes;
};

struct listing {
    struct entry entries[32];
    size_t count;
};

static uint32_t field(const uint8_t *header, int index)
{
    char hex[9] = {0};
    char *end;
    unsigned long value;

    memcpy(hex, header + 6 + 8 * index, 8);
    value = strtoul(hex, &end, 16);
    assert_true(*end == '\0');
    return (uint32_t)value;
}

static void list(const uint8_t *bytes, size_t count, struct listing *listing)
{
    size_t at = 0;

    listing->count = 0;
    for (;;) {
        struct entry *entry = &listing->entries[listing->count];
        size_t name_bytes;

        assert_true(at % 4 == 0 && at + 110 <= count);
        assert_memory_equal(bytes + at, "070701", 6);
        name_bytes = field(bytes + at, 11);
        entry->mode = field(bytes + at, 1);
        entry->bytes = field(bytes + at, 6);
        entry->device_major = field(bytes + at, 9);
        entry->device_minor = field(bytes + at, 10);
        assert_true(name_bytes > 1 && name_bytes < sizeof(entry->name));
        assert_true(at + 110 + name_bytes <= count);
        memcpy(entry->name, bytes + at + 110, name_bytes);
        assert_int_equal(strlen(entry->name), name_bytes - 1);
        at = align_up(at + 110 + name_bytes, 4);
        entry->content = bytes + at;
        assert_true(at + entry->bytes <= count);
        at = align_up(at + entry->bytes, 4);
        if (strcmp(entry->name, "TRAILER!!!") == 0) {
            assert_int_equal(at, count);
            return;
        }
        listing->count++;
        assert_true(listing->count < ARRAY_SIZE(listing->entries));
    }
}

static bool has(const struct listing *listing, const char *name)
{
    for (size_t i = 0; i < listing->count; i++) {
        if (strcmp(listing->entries[i].name, name) == 0) {
            return true;
        }
    }
    return false;
}

static const struct entry *find(const struct listing *listing, const char *name)
{
    size_t i = 0;

    while (i + 1 < listing->count && strcmp(listing->entries[i].name, name) != 0) {
        i++;
    }
    assert_string_equal(listing->entries[i].name, name);
    return &listing->entries[i];
}

static struct guest_job small_job(void)
{
    static const char *const args[] = {"true"};
    struct guest_job job;

    guest_job_init(&job);
    job.args = args;
    job.arg_count = 1;
    return job;
}

static int file_with(const void *bytes, size_t count)
{
    int fd = memfd_create("test", MFD_CLOEXEC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, count), count);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

static void test_entries(void **state)
{
    struct guest_job job = small_job();
    struct guest_job decoded;
    struct bvmm_error err;
    struct listing listing;
    const struct entry *entry;
    const char *why = NULL;
    uint8_t *bytes = NULL;
    size_t count = 0;
    int stdin_fd = file_with("input", 5);

    (void)state;
    assert_int_equal(initramfs_build(&job, stdin_fd, -1, &bytes, &count, &err), 0);
    close(stdin_fd);
    list(bytes, count, &listing);
    entry = find(&listing, "init");
    assert_int_equal(entry->mode, S_IFREG | 0755);
    assert_int_equal(entry->bytes, bvmm_init_end - bvmm_init_start);
    assert_memory_equal(entry->content, bvmm_init_start, entry->bytes);
    entry = find(&listing, "bvmm/job");
    assert_int_equal(entry->mode, S_IFREG | 0600);
    assert_int_equal(guest_job_decode(&decoded, entry->content, entry->bytes, &why), 0);
    assert_string_equal(decoded.args[0], "true");
    guest_job_free(&decoded);
    entry = find(&listing, "bvmm/stdin");
    assert_int_equal(entry->bytes, 5);
    assert_memory_equal(entry->content, "input", 5);
    entry = find(&listing, "dev/console");
    assert_int_equal(entry->mode, S_IFCHR | 0600);
    assert_int_equal(entry->device_major, 5);
    assert_int_equal(entry->device_minor, 1);
    /* A directory stands before what is in it. */
    assert_true(find(&listing, "bvmm") < find(&listing, "bvmm/job"));
    assert_true(find(&listing, "dev") < find(&listing, "dev/console"));
    assert_int_equal(find(&listing, "bvmm/new")->mode, S_IFDIR | 0755);
    free(bytes);
}

static void test_init_is_a_static_program(void **state)
{
    Elf64_Ehdr header;

    (void)state;
    assert_true((size_t)(bvmm_init_end - bvmm_init_start) > sizeof(header));
    memcpy(&header, bvmm_init_start, sizeof(header));
    assert_memory_equal(header.e_ident, ELFMAG, SELFMAG);
    assert_int_equal(header.e_type, ET_EXEC);
    for (size_t i = 0; i < header.e_phnum; i++) {
        Elf64_Phdr segment;

        memcpy(&segment, bvmm_init_start + header.e_phoff + i * sizeof(segment), sizeof(segment));
        assert_int_not_equal(segment.p_type, PT_INTERP);
    }
}

static void test_same_job_same_bytes(void **state)
{
    struct guest_job job = small_job();
    struct bvmm_error err;
    struct listing listing;
    uint8_t *a = NULL;
    uint8_t *b = NULL;
    size_t a_count = 0;
    size_t b_count = 0;

    (void)state;
    assert_int_equal(initramfs_build(&job, -1, -1, &a, &a_count, &err), 0);
    assert_int_equal(initramfs_build(&job, -1, -1, &b, &b_count, &err), 0);
    assert_int_equal(a_count, b_count);
    assert_memory_equal(a, b, a_count);
    list(a, a_count, &listing);
    assert_false(has(&listing, "bvmm/stdin"));
    free(a);
    free(b);
}

/* The job's own initrd comes first, on a boundary of 4, from its beginning wherever the descriptor
 * stands. */
static void test_own_initrd(void **state)
{
    struct guest_job job = small_job();
    struct bvmm_error err;

    (void)state;
    for (size_t length = 1; length < 9; length++) {
        int fd = file_with("\x1f\x8bxyzuvw", length);
        struct listing listing;
        uint8_t *bytes = NULL;
        size_t count = 0;
        size_t start = align_up(length, 4);

        assert_int_equal(lseek(fd, 1, SEEK_SET), 1);
        assert_int_equal(initramfs_build(&job, -1, fd, &bytes, &count, &err), 0);
        assert_memory_equal(bytes, "\x1f\x8bxyzuvw", length);
        for (size_t i = length; i < start; i++) {
            assert_int_equal(bytes[i], 0);
        }
        list(bytes + start, count - start, &listing);
        assert_true(has(&listing, "init"));
        free(bytes);
        close(fd);
    }
}

/* A pipe, and more than one buffer of it. */
static void test_stdin_from_a_pipe(void **state)
{
    struct guest_job job = small_job();
    struct bvmm_error err;
    struct listing listing;
    const struct entry *entry;
    uint8_t *bytes = NULL;
    size_t count = 0;
    int pipes[2];

    (void)state;
    assert_int_equal(pipe(pipes), 0);
    if (fork() == 0) {
        close(pipes[0]);
        FILE *out = fdopen(pipes[1], "w");

        for (int i = 0; out != NULL && i < 100000; i++) {
            fprintf(out, "%09d\n", i);
        }
        _exit(out != NULL && fclose(out) == 0 ? 0 : 1);
    }
    close(pipes[1]);
    assert_int_equal(initramfs_build(&job, pipes[0], -1, &bytes, &count, &err), 0);
    close(pipes[0]);
    list(bytes, count, &listing);
    entry = find(&listing, "bvmm/stdin");
    assert_int_equal(entry->bytes, 1000000);
    assert_memory_equal(entry->content, "000000000\n000000001\n", 20);
    assert_memory_equal(entry->content + 999990, "000099999\n", 10);
    free(bytes);
}

static void test_errors(void **state)
{
    struct guest_job job = small_job();
    struct bvmm_error err;
    uint8_t *bytes = NULL;
    size_t count = 0;
    int directory = open("/", O_RDONLY | O_DIRECTORY);

    (void)state;
    assert_true(directory >= 0);
    assert_int_equal(initramfs_build(&job, directory, -1, &bytes, &count, &err), -EISDIR);
    assert_int_equal(err.kind, BVMM_ERROR_IO);
    assert_non_null(strstr(err.message, "stdin_path"));
    assert_int_equal(initramfs_build(&job, -1, directory, &bytes, &count, &err), -EISDIR);
    assert_non_null(strstr(err.message, "initrd_path"));
    job.arg_count = 0;
    assert_int_equal(initramfs_build(&job, -1, -1, &bytes, &count, &err), -EINVAL);
    assert_null(bytes);
    close(directory);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_entries),
        cmocka_unit_test(test_init_is_a_static_program),
        cmocka_unit_test(test_same_job_same_bytes),
        cmocka_unit_test(test_own_initrd),
        cmocka_unit_test(test_stdin_from_a_pipe),
        cmocka_unit_test(test_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
