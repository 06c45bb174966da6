/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_load_fuzz.c: kernel files damaged at random are refused or loaded, and nothing else.
 *
 * What must hold is checked after each one; that no byte outside the file is read and none outside
 * guest RAM written is seen by the sanitizer and the guard pages. BVMM_TEST_SEED repeats a run,
 * BVMM_TEST_ROUNDS makes it longer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#if defined(__x86_64__)

#include "x86_kernels.h"

#include <stdio.h>
#include <time.h>

#define ROUNDS_DEFAULT 20000

static uint64_t random_state;

/* xorshift64*: enough for this, and the same everywhere. */
static uint64_t random_next(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * 0x2545f4914f6cdd1dULL;
}

static uint64_t random_below(uint64_t limit)
{
    return random_next() % limit;
}

static uint64_t number_from_environment(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : otherwise;
}

/* Values at which bounds checks go wrong. */
static uint64_t interesting_value(size_t file_bytes)
{
    const uint64_t values[] = {0,
                               1,
                               0x7f,
                               0x80,
                               0xffff,
                               0x7fffffff,
                               0x80000000,
                               0xffffffff,
                               INT64_MAX,
                               (uint64_t)INT64_MAX + 1,
                               UINT64_MAX,
                               file_bytes,
                               X86_ZERO_PAGE,
                               X86_CMDLINE,
                               X86_MPTABLE,
                               X86_HIGH_MEMORY,
                               TEXT_ADDRESS,
                               DATA_ADDRESS,
                               KERNEL_MEMORY_BYTES,
                               X86_HOLE,
                               X86_HOLE_END};
    uint64_t value = values[random_below(ARRAY_SIZE(values))];

    return value + random_below(5) - 2;
}

static void damage(uint8_t *file, size_t bytes, size_t file_bytes)
{
    uint64_t times = 1 + random_below(4);

    for (uint64_t i = 0; i < times; i++) {
        size_t width = (size_t)1 << random_below(4);
        size_t offset = random_below(bytes - width + 1);
        uint64_t value = random_below(4) == 0 ? random_next() : interesting_value(file_bytes);

        if (random_below(8) != 0) {
            offset &= ~(width - 1);
        }
        memcpy(file + offset, &value, width);
    }
}

static bool within(struct guest_range inner, uint64_t start, uint64_t end)
{
    return inner.base.v >= start && inner.base.v <= end && inner.bytes <= end - inner.base.v;
}

static void check_outcome(const struct loaded *loaded, uint64_t round)
{
    const struct arch_boot *boot = &loaded->boot;
    struct guest_range kernel = boot->kernel;

    if (loaded->ret != 0) {
        if ((loaded->err.kind != BVMM_ERROR_KERNEL_LOAD && loaded->err.kind != BVMM_ERROR_BOOT) ||
            !strstr(loaded->err.message, "test-kernel")) {
            fail_msg("round %llu: kind %d, '%s'", (unsigned long long)round, loaded->err.kind,
                     loaded->err.message);
        }
        return;
    }
    if (!within(kernel, 0, KERNEL_MEMORY_BYTES) ||
        !within((struct guest_range){boot->pc, 1}, kernel.base.v, kernel.base.v + kernel.bytes) ||
        !within(boot->initrd, 0, KERNEL_MEMORY_BYTES) || boot->initrd.bytes != 6 ||
        (boot->initrd.base.v < kernel.base.v + kernel.bytes &&
         kernel.base.v < boot->initrd.base.v + boot->initrd.bytes)) {
        fail_msg("round %llu: pc 0x%llx, kernel 0x%llx + 0x%llx, initrd 0x%llx + 0x%llx",
                 (unsigned long long)round, (unsigned long long)boot->pc.v,
                 (unsigned long long)kernel.base.v, (unsigned long long)kernel.bytes,
                 (unsigned long long)boot->initrd.base.v, (unsigned long long)boot->initrd.bytes);
    }
    /* What was put in place last has not been written over. */
    assert_memory_equal(guest_memory_at(&loaded->memory, boot->initrd.base, 6), "initrd", 6);
    assert_memory_equal(guest_memory_at(&loaded->memory, gpa(X86_CMDLINE), 14), "console=ttyS0",
                        14);
    assert_memory_equal(guest_memory_at(&loaded->memory, gpa(X86_MPTABLE), 4), "_MP_", 4);
}

/* Damages [from, from + headers_bytes) of the file. */
static void fuzz(const void *good, size_t bytes, size_t from, size_t headers_bytes)
{
    static const uint8_t text[] = "initrd";
    const struct arch_blob initrd = {"i", text, -1, 6};
    uint64_t seed = number_from_environment("BVMM_TEST_SEED", (uint64_t)time(NULL));
    uint64_t rounds = number_from_environment("BVMM_TEST_ROUNDS", ROUNDS_DEFAULT);
    uint64_t accepted = 0;
    uint8_t *file = malloc(bytes);

    assert_non_null(file);
    (void)printf("BVMM_TEST_SEED=%llu\n", (unsigned long long)seed);
    random_state = seed * 2 + 1;
    for (uint64_t i = 0; i < rounds; i++) {
        size_t used = random_below(16) == 0 ? random_below(bytes + 1) : bytes;
        struct loaded loaded;

        memcpy(file, good, bytes);
        damage(file + from, headers_bytes, bytes);
        load_bytes(&loaded, file, used, "console=ttyS0", &initrd, 1);
        check_outcome(&loaded, i);
        accepted += loaded.ret == 0 ? 1 : 0;
        loaded_free(&loaded);
    }
    free(file);
    (void)printf("%llu of %llu damaged files could be loaded all the same\n",
                 (unsigned long long)accepted, (unsigned long long)rounds);
    /* Both ways must have been taken, or this tests nothing. */
    assert_true(accepted > 0);
    assert_true(accepted < rounds);
}

static void test_elf(void **state)
{
    struct small_elf elf;

    (void)state;
    small_elf_make(&elf);
    fuzz(&elf, sizeof(elf), 0, offsetof(struct small_elf, text));
}

static void test_bzimage(void **state)
{
    struct small_bzimage image;

    (void)state;
    small_bzimage_make(&image);
    fuzz(&image, sizeof(image), BZIMAGE_HEADER, sizeof(struct setup_header));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elf),
        cmocka_unit_test(test_bzimage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: these kernel formats are x86_64's");
    return 77;
}

#endif
