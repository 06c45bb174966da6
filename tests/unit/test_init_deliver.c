/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_init_deliver.c: init's sending side against the host's receiving side, with sockets for the
 * serial line and for vsock. The ways in break at every stage; the results must arrive all the
 * same, or be known not to have.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "deliver.h"
#include "protocol/result_sink.h"
#include "seeded_random.h"

#include <errno.h>
#include <fcntl.h>
#include <nettle/sha2.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#define STREAM_BYTES (2 * MIB)
#define OUT_BYTES 700001

static const uint8_t nonce[NONCE_BYTES] = "0123456789abcde";

/* ---- The host's side
 * ----------------------------------------------------------------------------- */

/* One connection, read by a thread until it ends. */
struct peer {
    uint32_t port; /* 0: the serial line */
    int fd;
    size_t break_after_bytes; /* then it closes, as a host that failed */
    pthread_t thread;
    uint8_t *bytes;
    size_t count;
};

static struct peer peers[16];
static size_t peer_count;
static uint32_t refused_port;  /* connecting to it fails */
static uint32_t breaking_port; /* its peer breaks after so many bytes */
static size_t breaking_after;

static void *read_all(void *argument)
{
    struct peer *peer = argument;
    ssize_t got = 1;

    while (got > 0 && peer->count < peer->break_after_bytes) {
        got = read(peer->fd, peer->bytes + peer->count,
                   min_u64(4 * STREAM_BYTES - peer->count, peer->break_after_bytes - peer->count));
        peer->count += got > 0 ? (size_t)got : 0;
    }
    close(peer->fd);
    return NULL;
}

/* Init's end of a new connection. */
static int new_peer(uint32_t port)
{
    struct peer *peer = &peers[peer_count];
    int fds[2];

    if (port != 0 && port == refused_port) {
        return -ECONNRESET;
    }
    peer_count++;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    assert_int_equal(fcntl(fds[0], F_SETFL, O_NONBLOCK), 0);
    *peer = (struct peer){
        .port = port,
        .fd = fds[1],
        .break_after_bytes = port == breaking_port ? breaking_after : SIZE_MAX,
        .bytes = malloc(4 * STREAM_BYTES),
    };
    assert_non_null(peer->bytes);
    assert_int_equal(pthread_create(&peer->thread, NULL, read_all, peer), 0);
    return fds[0];
}

static const struct peer *find_peer(uint32_t port)
{
    for (size_t i = 0; i < peer_count; i++) {
        if (peers[i].port == port) {
            return &peers[i];
        }
    }
    return NULL;
}

/* What the host knows when all is over. */
struct host {
    struct record *record;
    struct result_sink sink;
    unsigned events[RESULT_FATAL + 1];
    uint32_t hello_via;
    struct frame_decoder decoder;
};

static void on_text(void *context, const uint8_t *bytes, size_t count)
{
    (void)context;
    (void)bytes;
    fail_msg("%zu bytes of text between the frames", count);
}

static void on_frame(void *context, const struct frame_header *header, const uint8_t *payload)
{
    struct host *host = context;
    struct result_event event = result_sink_frame(&host->sink, header, payload);

    host->events[event.kind]++;
    if (event.kind == RESULT_HELLO) {
        host->hello_via = event.via;
    }
}

/* Feed what came by one way to a sink of that way. */
static void receive(struct host *host, struct record *record, const struct peer *peer)
{
    static const struct frame_decoder_ops ops = {on_text, on_frame};

    memset(host, 0, sizeof(*host));
    host->record = record;
    result_sink_init(&host->sink, record, peer->port ? VIA_VSOCK : VIA_SERIAL);
    frame_decoder_init(&host->decoder, peer->port ? FRAME_MODE_PURE : FRAME_MODE_CONSOLE, nonce,
                       &ops, host);
    frame_decoder_feed(&host->decoder, peer->bytes, peer->count);
    assert_int_equal(host->sink.lost_frames + host->sink.stale_frames, 0);
}

/* As the vsock actor does it: bytes of a result's port into the record. */
static void receive_streams(struct record *record)
{
    static const struct {
        uint32_t port;
        enum stream_id stream;
    } ports[] = {{5000, STREAM_STDOUT},
                 {5001, STREAM_STDERR},
                 {5002, STREAM_EXIT_CODE},
                 {5005, STREAM_OUTPUT}};

    for (size_t i = 0; i < ARRAY_SIZE(ports); i++) {
        const struct peer *peer = find_peer(ports[i].port);

        if (peer) {
            assert_int_equal(result_stream_claim(record, ports[i].stream, VIA_VSOCK), 0);
            record_append(record, ports[i].stream, peer->bytes, peer->count);
            result_stream_release(record, ports[i].stream,
                                  peer->break_after_bytes == SIZE_MAX ? STREAM_COMPLETE
                                                                      : STREAM_BROKEN);
        }
    }
}

/* ---- Init's side
 * ---------------------------------------------------------------------------------- */

struct fixture {
    struct link link;
    struct outputs outputs;
    struct results results;
    uint64_t limits[STREAM_COUNT];
    uint8_t *out; /* what the command wrote */
    struct record *record;
    struct host serial;
    struct host vsock;
    int deliver_result;
};

static char file_dir[] = "/tmp/bvmm-test-deliver.XXXXXX";
static char file_a[64];
static char file_b[64];

static int make_file(const char *path, const char *text, size_t repeat)
{
    int fd = path ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0644) : memfd_create("log", MFD_CLOEXEC);

    assert_true(fd >= 0);
    for (size_t i = 0; i < repeat; i++) {
        assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    }
    return fd;
}

static void set_up(struct fixture *f)
{
    struct seeded_random r = {42};
    struct record_limits limits = {.console_bytes = 4096};
    struct bvmm_error err;

    memset(f, 0, sizeof(*f));
    peer_count = 0;
    refused_port = 0;
    breaking_port = 1;
    for (int i = 0; i < STREAM_COUNT; i++) {
        f->limits[i] = UINT64_MAX;
        limits.stream_bytes[i] = STREAM_BYTES;
    }
    assert_int_equal(record_create(&limits, &f->record, &err), 0);
    f->out = malloc(OUT_BYTES);
    assert_non_null(f->out);
    random_fill(&r, f->out, OUT_BYTES);
    f->results = (struct results){
        .stdout_fd = make_file(NULL, "", 0),
        .stderr_fd = make_file(NULL, "warning\n", 3),
        .exit_code = "137",
        .outputs = &f->outputs,
        .limit_bytes = f->limits,
    };
    assert_int_equal(write(f->results.stdout_fd, f->out, OUT_BYTES), OUT_BYTES);
    close(make_file(file_a, "0123456789", 1000));
    close(make_file(file_b, "b", 1));
    outputs_init(&f->outputs, MIB);
    link_init(&f->link, nonce);
    f->link.connect = new_peer;
    f->link.serial_fd = new_peer(0); /* peers[0] */
}

/* Say hello, say the end, deliver, bye; then read what arrived. */
static void go(struct fixture *f, bool vsock)
{
    struct frame_end end = {.boottime_ns = 9, .wait_status = 9};
    const struct peer *control;

    assert_int_equal(link_hello(&f->link, vsock, 5), 0);
    assert_int_equal(link_say_end(&f->link, &end), 0);
    f->deliver_result = deliver(&f->link, &f->results);
    close(f->link.serial_fd);
    if (f->link.control_fd >= 0) {
        close(f->link.control_fd);
    }
    for (size_t i = 0; i < peer_count; i++) {
        pthread_join(peers[i].thread, NULL);
    }
    control = find_peer(5003);
    if (control) {
        receive(&f->vsock, f->record, control);
        result_sink_abandon(&f->vsock.sink);
    }
    receive_streams(f->record);
    receive(&f->serial, f->record, &peers[0]);
}

static void tear_down(struct fixture *f)
{
    close(f->results.stdout_fd);
    close(f->results.stderr_fd);
    outputs_close(&f->outputs);
    for (size_t i = 0; i < peer_count; i++) {
        free(peers[i].bytes);
    }
    free(f->out);
    record_destroy(f->record);
}

static void assert_stream(const struct fixture *f, enum stream_id stream, enum stream_via via,
                          const void *bytes, size_t count)
{
    const struct record_stream *s = &f->record->streams[stream];

    assert_int_equal(s->state, STREAM_COMPLETE);
    assert_int_equal(s->via, via);
    assert_true(s->length_bytes == count);
    assert_memory_equal(record_stream_bytes(f->record, stream), bytes, count);
}

/* Every line of the last manifest agrees with what is in the record. */
static void assert_manifest(const struct fixture *f, size_t lines)
{
    struct manifest m;
    unsigned digests = 0;

    assert_int_equal(manifest_parse(&m, record_stream_bytes(f->record, STREAM_ANNOUNCED),
                                    f->record->streams[STREAM_ANNOUNCED].length_bytes),
                     0);
    assert_int_equal(m.count, lines);
    for (size_t i = 0; i < m.count; i++) {
        enum stream_id stream = manifest_stream(m.entries[i].name);
        struct sha256_ctx sha256;
        uint8_t digest[SHA256_BYTES];

        if (stream == STREAM_COUNT) {
            continue;
        }
        assert_true(m.entries[i].has_sha256);
        sha256_init(&sha256);
        sha256_update(&sha256, f->record->streams[stream].length_bytes,
                      record_stream_bytes(f->record, stream));
        sha256_digest(&sha256, sizeof(digest), digest);
        assert_memory_equal(digest, m.entries[i].sha256, sizeof(digest));
        digests++;
    }
    assert_true(digests >= 3);
    manifest_free(&m);
}

static void test_serial(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    go(&f, false);
    assert_int_equal(f.deliver_result, 0);
    assert_stream(&f, STREAM_STDOUT, VIA_SERIAL, f.out, OUT_BYTES);
    assert_stream(&f, STREAM_STDERR, VIA_SERIAL, "warning\nwarning\nwarning\n", 24);
    assert_stream(&f, STREAM_EXIT_CODE, VIA_SERIAL, "137", 3);
    assert_int_equal(f.record->streams[STREAM_OUTPUT].state, STREAM_EMPTY);
    assert_int_equal(f.serial.hello_via, VIA_SERIAL);
    assert_int_equal(f.serial.events[RESULT_HELLO], 1);
    assert_int_equal(f.serial.events[RESULT_END], 1);
    assert_int_equal(f.serial.events[RESULT_ANNOUNCE], 2);
    assert_int_equal(f.serial.events[RESULT_STREAM_END], 3);
    assert_int_equal(f.serial.events[RESULT_BYE], 1);
    assert_int_equal(f.serial.sink.refused_frames, 0);
    assert_manifest(&f, 3);
    tear_down(&f);
}

static void test_vsock(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    outputs_add(&f.outputs, file_a, true);
    go(&f, true);
    assert_int_equal(f.deliver_result, 0);
    assert_int_equal(peers[0].count, 0);
    assert_false(f.vsock.decoder.broken);
    assert_int_equal(f.vsock.hello_via, VIA_VSOCK);
    assert_int_equal(f.vsock.events[RESULT_ANNOUNCE], 2);
    assert_int_equal(f.vsock.events[RESULT_BYE], 1);
    assert_stream(&f, STREAM_STDOUT, VIA_VSOCK, f.out, OUT_BYTES);
    assert_stream(&f, STREAM_STDERR, VIA_VSOCK, "warning\nwarning\nwarning\n", 24);
    assert_stream(&f, STREAM_EXIT_CODE, VIA_VSOCK, "137", 3);
    assert_int_equal(f.record->streams[STREAM_OUTPUT].state, STREAM_COMPLETE);
    assert_manifest(&f, 5);
    tear_down(&f);
}

static void test_no_vsock_to_begin_with(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    refused_port = 5003;
    go(&f, true);
    assert_int_equal(f.deliver_result, 0);
    assert_int_equal(f.serial.hello_via, VIA_SERIAL);
    assert_stream(&f, STREAM_STDOUT, VIA_SERIAL, f.out, OUT_BYTES);
    assert_manifest(&f, 3);
    tear_down(&f);
}

/* A stream breaks in the middle: it comes again over serial, those before it do not. */
static void test_vsock_stream_breaks(void **state)
{
    static const size_t after[] = {0, 1, 100000};
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(after); i++) {
        set_up(&f);
        breaking_port = 5000;
        breaking_after = after[i];
        go(&f, true);
        assert_int_equal(f.deliver_result, 0);
        assert_stream(&f, STREAM_EXIT_CODE, VIA_VSOCK, "137", 3);
        assert_stream(&f, STREAM_STDERR, VIA_VSOCK, "warning\nwarning\nwarning\n", 24);
        assert_stream(&f, STREAM_STDOUT, VIA_SERIAL, f.out, OUT_BYTES);
        assert_int_equal(f.serial.events[RESULT_HELLO], 1);
        assert_int_equal(f.serial.hello_via, VIA_SERIAL);
        assert_int_equal(f.serial.events[RESULT_END], 1);
        assert_int_equal(f.serial.events[RESULT_STREAM_END], 1);
        assert_int_equal(f.serial.events[RESULT_BYE], 1);
        assert_int_equal(f.serial.sink.refused_frames, 0);
        assert_manifest(&f, 3);
        tear_down(&f);
    }
}

static void test_vsock_port_is_refused(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    refused_port = 5002; /* the first one */
    go(&f, true);
    assert_int_equal(f.deliver_result, 0);
    assert_stream(&f, STREAM_EXIT_CODE, VIA_SERIAL, "137", 3);
    assert_stream(&f, STREAM_STDERR, VIA_SERIAL, "warning\nwarning\nwarning\n", 24);
    assert_stream(&f, STREAM_STDOUT, VIA_SERIAL, f.out, OUT_BYTES);
    assert_manifest(&f, 3);
    tear_down(&f);
}

/* The control connection breaks after each possible number of bytes of what goes before the data.
 */
static void test_vsock_control_breaks(void **state)
{
    static const enum stream_id streams[] = {STREAM_STDOUT, STREAM_STDERR, STREAM_EXIT_CODE};
    unsigned fell_back = 0;
    struct fixture f;

    (void)state;
    for (size_t after = 0; after < 420; after += 13) {
        set_up(&f);
        breaking_port = 5003;
        breaking_after = after;
        go(&f, true);
        assert_int_equal(f.deliver_result, 0);
        for (size_t i = 0; i < ARRAY_SIZE(streams); i++) {
            assert_int_equal(f.record->streams[streams[i]].state, STREAM_COMPLETE);
        }
        /* Init learns of it at its next write, and says all again; after the last one never. */
        if (f.serial.events[RESULT_HELLO] > 0) {
            fell_back++;
            assert_int_equal(f.serial.events[RESULT_END], 1);
            assert_int_equal(f.serial.events[RESULT_BYE], 1);
            assert_manifest(&f, 3);
        }
        tear_down(&f);
    }
    assert_true(fell_back > 10);
}

static void test_serial_breaks(void **state)
{
    struct fixture f;

    (void)state;
    set_up(&f);
    close(f.link.serial_fd);
    f.link.serial_fd = -1;
    refused_port = 5003;
    assert_int_equal(link_hello(&f.link, true, 5), -ENOTCONN);
    assert_true(deliver(&f.link, &f.results) < 0);
    f.link.serial_fd = open("/dev/null", O_RDONLY);
    for (size_t i = 0; i < peer_count; i++) {
        pthread_join(peers[i].thread, NULL);
    }
    tear_down(&f);
}

static void test_limits(void **state)
{
    struct output_reader reader;
    struct output_file file;
    struct manifest m;
    struct fixture f;
    uint64_t framing = 4 + 12 + strlen(file_a) + 12 + strlen(file_b);

    (void)state;
    set_up(&f);
    outputs_add(&f.outputs, file_a, true);
    outputs_add(&f.outputs, file_b, true);
    outputs_add(&f.outputs, "/nonexistent/*", true);
    f.limits[STREAM_STDOUT] = 300000;
    f.limits[STREAM_STDERR] = 0;
    f.limits[STREAM_OUTPUT] = framing + 5000;
    go(&f, false);
    assert_int_equal(f.deliver_result, 0);
    assert_stream(&f, STREAM_STDOUT, VIA_SERIAL, f.out, 300000);
    assert_stream(&f, STREAM_STDERR, VIA_SERIAL, "", 0);
    assert_manifest(&f, 7);
    assert_int_equal(manifest_parse(&m, record_stream_bytes(f.record, STREAM_ANNOUNCED),
                                    f.record->streams[STREAM_ANNOUNCED].length_bytes),
                     0);
    /* Sizes are those before any limit. */
    assert_int_equal(m.entries[1].size_bytes, 24);
    assert_int_equal(m.entries[2].size_bytes, OUT_BYTES);
    assert_int_equal(m.entries[3].size_bytes, framing + 10001);
    assert_int_equal(m.entries[4].size_bytes, 10000);
    assert_string_equal(m.entries[4].path, file_a);
    assert_int_equal(m.entries[6].reason, MANIFEST_REASON_NO_MATCH);
    manifest_free(&m);
    /* The framing of a stream at its limit is whole all the same. */
    assert_int_equal(output_reader_init(&reader, record_stream_bytes(f.record, STREAM_OUTPUT),
                                        f.record->streams[STREAM_OUTPUT].length_bytes),
                     0);
    assert_true(output_next(&reader, &file));
    assert_int_equal(file.content_bytes, 5000);
    assert_memory_equal(file.content + 4990, "0123456789", 10);
    assert_true(output_next(&reader, &file));
    assert_int_equal(file.content_bytes, 0);
    assert_false(output_next(&reader, &file));
    assert_false(reader.cut);
    assert_int_equal(reader.left_bytes, 0);
    tear_down(&f);
}

/* A file that became shorter since it was announced: the stream ends early, and the sizes say so.
 */
static void test_file_shrinks(void **state)
{
    struct output_reader reader;
    struct output_file file;
    struct fixture f;

    (void)state;
    set_up(&f);
    outputs_add(&f.outputs, file_a, true);
    assert_int_equal(truncate(file_a, 5000), 0);
    go(&f, false);
    assert_int_equal(f.deliver_result, 0);
    assert_int_equal(output_reader_init(&reader, record_stream_bytes(f.record, STREAM_OUTPUT),
                                        f.record->streams[STREAM_OUTPUT].length_bytes),
                     0);
    assert_true(output_next(&reader, &file));
    assert_int_equal(file.content_bytes, 5000);
    assert_true(reader.cut);
    tear_down(&f);
}

static int set_up_all(void **state)
{
    (void)state;
    signal(SIGPIPE, SIG_IGN);
    assert_non_null(mkdtemp(file_dir));
    snprintf(file_a, sizeof(file_a), "%s/a", file_dir);
    snprintf(file_b, sizeof(file_b), "%s/b", file_dir);
    return 0;
}

static int tear_down_all(void **state)
{
    (void)state;
    unlink(file_a);
    unlink(file_b);
    return rmdir(file_dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_serial),
        cmocka_unit_test(test_vsock),
        cmocka_unit_test(test_no_vsock_to_begin_with),
        cmocka_unit_test(test_vsock_stream_breaks),
        cmocka_unit_test(test_vsock_port_is_refused),
        cmocka_unit_test(test_vsock_control_breaks),
        cmocka_unit_test(test_serial_breaks),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_file_shrinks),
    };

    return cmocka_run_group_tests(tests, set_up_all, tear_down_all);
}
