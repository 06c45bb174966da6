/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bench_report.c: what a report with large streams costs: rendering it, writing it, and of that what
 * fsync() takes. It matters for the promise that bvmm ends within 500 ms of the deadline, of which
 * the guest has 250: see docs/architecture.md, "Stopping".
 *
 * usage: bench_report [MIB]    MIB for each of stdout, stderr and an output file; default 25, the limit
 *
 * The bounds of the same run: memcpy of the bytes, and a plain write() of them to the same directory.
 */
#include "../unit/report_fixture.h"

#include <fcntl.h>
#include <unistd.h>

#include "base/base.h"
#include "vmm/fileio.h"

struct sample {
    uint64_t copy_ns;
    uint64_t plain_ns;
    uint64_t render_ns;
    uint64_t write_ns;
    uint64_t bytes;
};

/* Lines of text, as a log has them: one byte of 60 needs an escape. */
static uint8_t *make_text(size_t bytes)
{
    uint8_t *text = malloc(bytes);

    fixture_check(text != NULL, "malloc");
    for (size_t i = 0; i < bytes; i++) {
        text[i] = i % 60 == 59 ? (uint8_t)'\n' : (uint8_t)(' ' + 3 + i % 59 % 80);
    }
    return text;
}

static uint64_t time_plain_write(int dir_fd, const uint8_t *bytes, size_t count)
{
    const uint64_t start_ns = clock_monotonic_ns();
    const int code = fileio_replace_at(dir_fd, "bench-plain", bytes, count);

    fixture_check(code == 0, "fileio_replace_at");
    return clock_monotonic_ns() - start_ns;
}

static void measure(int dir_fd, const uint8_t *text, size_t bytes, struct sample *ret)
{
    struct fixture f;
    struct bvmm_error err;
    enum report_place place = REPORT_NOWHERE;
    json_t *report = NULL;
    uint8_t *copy = malloc(bytes * 3);
    uint64_t start_ns = 0;

    fixture_check(copy != NULL, "malloc");
    fixture_init(&f, "{\"rootfs_path\": \"x\", \"command\": [\"x\"]}");
    fixture_completed(&f);
    fixture_stream(&f, STREAM_STDOUT, text, bytes);
    fixture_stream(&f, STREAM_STDERR, text, bytes);
    fixture_u32(&f, 1);
    fixture_output_file(&f, "/out", text, bytes - 64);
    fixture_announce_file(&f, "/out", text, bytes - 64);
    start_ns = clock_monotonic_ns();
    for (unsigned i = 0; i < 3; i++) {
        memcpy(copy + i * bytes, text, bytes);
    }
    ret->copy_ns = clock_monotonic_ns() - start_ns;
    ret->bytes = bytes * 3;
    start_ns = clock_monotonic_ns();
    fixture_check(report_render(&f.job, f.record, &report, &err) == 0, "report_render");
    ret->render_ns = clock_monotonic_ns() - start_ns;
    start_ns = clock_monotonic_ns();
    fixture_check(report_put(report, "bench-report", dir_fd, &place, &err) == 0, "report_put");
    ret->write_ns = clock_monotonic_ns() - start_ns;
    ret->plain_ns = time_plain_write(dir_fd, copy, bytes * 3);
    json_decref(report);
    fixture_fini(&f);
    free(copy);
}

static void show(const char *what, uint64_t ns, const struct sample *sample)
{
    printf("%-28s %8.1f ms %8.0f MB/s %7.2f of a plain write\n", what, (double)ns / 1e6,
           (double)sample->bytes * 1e3 / (double)(ns > 0 ? ns : 1),
           (double)ns / (double)sample->plain_ns);
}

int main(int argc, char **argv)
{
    const unsigned long mib = argc > 1 ? strtoul(argv[1], NULL, 10) : 25;
    const size_t bytes = mib * MIB;
    const int dir_fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint8_t *text = NULL;
    struct sample sample;

    if (mib == 0 || mib > 25 || dir_fd < 0) {
        fprintf(stderr,
                "usage: bench_report [MIB]; MIB from 1 to 25; writes into the current directory\n");
        return 2;
    }
    text = make_text(bytes);
    for (unsigned i = 0; i < 3; i++) {
        measure(dir_fd, text, bytes, &sample);
        printf("%lu MiB in three streams\n", mib * 3);
        show("memcpy", sample.copy_ns, &sample);
        show("plain write and fsync", sample.plain_ns, &sample);
        show("render (check, SHA-256)", sample.render_ns, &sample);
        show("write (JSON, fsync, rename)", sample.write_ns, &sample);
    }
    (void)unlinkat(dir_fd, "bench-plain", 0);
    (void)unlinkat(dir_fd, "bench-report", 0);
    (void)close(dir_fd);
    free(text);
    return 0;
}
