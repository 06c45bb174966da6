/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * try_init.c: runs bvmm's init in plain QEMU, on a machine without KVM too. For work on the init:
 * it is not installed. The other side of the protocol is the same code that bvmm has.
 *
 * Results go over serial. Prints the events and the manifest; the streams go to files if asked for.
 */
#include "base/record.h"
#include "protocol/guest_job.h"
#include "protocol/manifest.h"
#include "protocol/result_sink.h"
#include "vmm/initramfs.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>

#define QEMU_ARGS_MAX 64
#define LIST_MAX 600

struct options {
    struct guest_job job;
    const char *kernel;
    const char *image;
    const char *drives[8];
    size_t drive_count;
    const char *stdin_path;
    const char *memory;
    const char *cpus;
    const char *append;
    const char *save_dir;
    int interrupt_after_s;
    bool show_console;
    const char *env[LIST_MAX];
    const char *outputs[LIST_MAX];
    struct guest_job_mount mounts[8];
};

struct run {
    struct record *record;
    struct result_sink sink;
    bool show_console;
    bool bye;
};

static void on_text(void *context, const uint8_t *bytes, size_t count)
{
    struct run *run = context;

    record_console_append(run->record, bytes, count);
    if (run->show_console) {
        fwrite(bytes, 1, count, stderr);
    }
}

static void print_end(const struct frame_end *end)
{
    printf("end: wait status 0x%x, wall %.6f s, user %.6f s, system %.6f s, peak %" PRIu64
           " KiB, OOM kills %u\n",
           (unsigned)end->wait_status, (double)(end->boottime_ns - end->start_boottime_ns) / 1e9,
           (double)end->user_ns / 1e9, (double)end->system_ns / 1e9, end->peak_rss_bytes / KIB,
           end->oom_kills);
}

static void on_frame(void *context, const struct frame_header *header, const uint8_t *payload)
{
    struct run *run = context;
    struct result_event event = result_sink_frame(&run->sink, header, payload);

    switch (event.kind) {
    case RESULT_HELLO:
        printf("hello: version %u, via %u, guest time %.6f s\n", event.version, event.via,
               (double)event.guest_ns / 1e9);
        break;
    case RESULT_START:
        printf("start: guest time %.6f s\n", (double)event.guest_ns / 1e9);
        break;
    case RESULT_END:
        print_end(&event.end);
        break;
    case RESULT_ANNOUNCE:
        printf("manifest: %" PRIu64 " bytes\n", event.length_bytes);
        break;
    case RESULT_STREAM_END:
        printf("stream %s: %s, %" PRIu64 " bytes\n", stream_name(event.stream),
               event.state == STREAM_COMPLETE ? "complete" : "BROKEN", event.sent_bytes);
        break;
    case RESULT_BYE:
        printf("bye\n");
        run->bye = true;
        break;
    case RESULT_FATAL:
        printf("fatal: %.*s\n", (int)event.length_bytes,
               (char *)record_stream_bytes(run->record, STREAM_CONTROL) + event.offset_bytes);
        break;
    case RESULT_NOTHING:
        break;
    }
    fflush(stdout);
}

static void parse_mount(struct options *o, char *text)
{
    struct guest_job_mount *mount = &o->mounts[o->job.mount_count];
    char *path = strchr(text, ':');

    if (!path || o->job.mount_count == ARRAY_SIZE(o->mounts)) {
        fprintf(stderr, "--drive %s: expected IMAGE:/mount/point\n", text);
        exit(2);
    }
    *path++ = '\0';
    o->drives[o->drive_count++] = text;
    *mount = (struct guest_job_mount){.path = path, .fstype = ""};
    if (asprintf((char **)(uintptr_t)&mount->device, "/dev/vd%c",
                 (char)('b' + o->job.mount_count)) < 0) {
        exit(2);
    }
    o->job.mounts = o->mounts;
    o->job.mount_count++;
}

static const char usage[] =
    "usage: bvmm-try-init --kernel VMLINUX --image SQUASHFS [--fstype T] [--drive IMAGE:/MOUNT]\n"
    "  [--stdin FILE] [--user U] [--workdir D] [--env N=V] [--output PATTERN] [--limit BYTES]\n"
    "  [--memory MIB] [--cpus N] [--append CMDLINE] [--tmpfs BYTES] [--grace MS]\n"
    "  [--interrupt SECONDS] [--save DIR] [--console] [--vsock] -- COMMAND...\n";

static void set_option(struct options *o, int option, char *value)
{
    struct guest_job *job = &o->job;

    switch (option) {
    case 'k':
        o->kernel = value;
        break;
    case 'i':
        o->image = value;
        break;
    case 'f':
        job->root_fstype = value;
        break;
    case 'D':
        parse_mount(o, value);
        break;
    case 's':
        o->stdin_path = value;
        break;
    case 'u':
        job->user = value;
        break;
    case 'w':
        job->workdir = value;
        break;
    case 'e':
        o->env[job->env_count++] = value;
        break;
    case 'o':
        o->outputs[job->output_count++] = value;
        break;
    case 'm':
        o->memory = value;
        break;
    case 'c':
        o->cpus = value;
        break;
    case 'a':
        o->append = value;
        break;
    case 't':
        job->tmpfs_limit_bytes = strtoull(value, NULL, 10);
        break;
    case 'g':
        job->grace_ms = (uint32_t)strtoul(value, NULL, 10);
        break;
    case 'I':
        o->interrupt_after_s = (int)strtol(value, NULL, 10);
        break;
    case 'S':
        o->save_dir = value;
        break;
    case 'C':
        o->show_console = true;
        break;
    case 'v':
        job->vsock = true;
        break;
    case 'l':
        for (int i = 0; i < STREAM_COUNT; i++) {
            job->stream_limit_bytes[i] = strtoull(value, NULL, 10);
        }
        break;
    default:
        fputs(usage, stderr);
        exit(2);
    }
}

static void parse_options(struct options *o, int argc, char **argv)
{
    static const struct option names[] = {
        {"kernel", 1, NULL, 'k'},  {"image", 1, NULL, 'i'}, {"fstype", 1, NULL, 'f'},
        {"drive", 1, NULL, 'D'},   {"stdin", 1, NULL, 's'}, {"user", 1, NULL, 'u'},
        {"workdir", 1, NULL, 'w'}, {"env", 1, NULL, 'e'},   {"output", 1, NULL, 'o'},
        {"memory", 1, NULL, 'm'},  {"cpus", 1, NULL, 'c'},  {"append", 1, NULL, 'a'},
        {"tmpfs", 1, NULL, 't'},   {"grace", 1, NULL, 'g'}, {"interrupt", 1, NULL, 'I'},
        {"save", 1, NULL, 'S'},    {"limit", 1, NULL, 'l'}, {"console", 0, NULL, 'C'},
        {"vsock", 0, NULL, 'v'},   {NULL, 0, NULL, 0},
    };
    int option;

    guest_job_init(&o->job);
    o->job.env = o->env;
    o->job.outputs = o->outputs;
    while ((option = getopt_long(argc, argv, "+", names, NULL)) != -1) {
        set_option(o, option, optarg);
    }
    o->job.args = (const char *const *)&argv[optind];
    o->job.arg_count = (size_t)(argc - optind);
    if (!o->kernel || !o->image || o->job.arg_count == 0) {
        fputs(usage, stderr);
        exit(2);
    }
}

static void write_initramfs(const struct options *o, const char *path)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    int stdin_fd = o->stdin_path ? open(o->stdin_path, O_RDONLY) : -1;
    uint8_t *bytes = NULL;
    size_t count = 0;
    FILE *file = fopen(path, "w");

    if (!file || initramfs_build(&o->job, stdin_fd, -1, &bytes, &count, &err) < 0 ||
        fwrite(bytes, 1, count, file) != count || fclose(file) != 0) {
        fprintf(stderr, "cannot write %s: %s\n", path, err.message);
        exit(1);
    }
    free(bytes);
}

/* QEMU's serial line is our pipe. */
static pid_t start_qemu(const struct options *o, const char *initramfs, int *ret_fd)
{
    const char *args[QEMU_ARGS_MAX] = {"qemu-system-x86_64",
                                       "-M",
                                       "microvm,acpi=off,isa-serial=on",
                                       "-accel",
                                       "tcg",
                                       "-cpu",
                                       "max",
                                       "-m",
                                       o->memory,
                                       "-smp",
                                       o->cpus,
                                       "-nodefaults",
                                       "-no-user-config",
                                       "-display",
                                       "none",
                                       "-no-reboot",
                                       "-serial",
                                       "stdio",
                                       "-kernel",
                                       o->kernel,
                                       "-initrd",
                                       initramfs,
                                       "-append"};
    size_t n = 23;
    static char append[1024];
    static char drives[9][512];
    static char devices[9][64];
    int pipes[2];
    pid_t pid;

    snprintf(append, sizeof(append), "console=ttyS0 reboot=t panic=1 %s", o->append);
    args[n++] = append;
    for (size_t i = 0; i <= o->drive_count; i++) {
        args[n++] = "-device";
        snprintf(devices[i], sizeof(devices[i]), "virtio-blk-device,drive=d%zu", i);
        args[n++] = devices[i];
        snprintf(drives[i], sizeof(drives[i]), "file=%s,if=none,id=d%zu,format=raw,readonly=on",
                 i == 0 ? o->image : o->drives[i - 1], i);
        args[n++] = "-drive";
        args[n++] = drives[i];
    }
    if (pipe(pipes) < 0) {
        exit(1);
    }
    pid = fork();
    if (pid == 0) {
        close(STDIN_FILENO);
        open("/dev/null", O_RDONLY);
        dup2(pipes[1], STDOUT_FILENO);
        execvp(args[0], (char *const *)(uintptr_t)args);
        perror(args[0]);
        _exit(127);
    }
    close(pipes[1]);
    *ret_fd = pipes[0];
    return pid;
}

static void save_streams(const struct run *run, const char *dir)
{
    for (int i = 0; i < STREAM_COUNT; i++) {
        char path[512];
        FILE *file;

        snprintf(path, sizeof(path), "%s/%s", dir, stream_name((enum stream_id)i));
        file = fopen(path, "w");
        if (file) {
            fwrite(record_stream_bytes(run->record, (enum stream_id)i), 1,
                   run->record->streams[i].length_bytes, file);
            fclose(file);
        }
    }
}

static void print_manifest(const struct run *run)
{
    struct manifest manifest;

    if (manifest_parse(&manifest, record_stream_bytes(run->record, STREAM_ANNOUNCED),
                       run->record->streams[STREAM_ANNOUNCED].length_bytes) < 0) {
        return;
    }
    for (size_t i = 0; i < manifest.count; i++) {
        char line[MANIFEST_PATH_MAX_BYTES];
        size_t length = manifest_print(line, sizeof(line), &manifest.entries[i]);

        printf("  %.*s", (int)length, line);
    }
    printf("manifest: %u bad lines\n", manifest.bad_lines);
    manifest_free(&manifest);
}

int main(int argc, char **argv)
{
    static struct options o = {.memory = "512", .cpus = "1", .append = ""};
    static struct run run;
    static struct frame_decoder decoder;
    static const struct frame_decoder_ops ops = {on_text, on_frame};
    struct record_limits limits = {.console_bytes = MIB};
    struct bvmm_error err;
    char initramfs[] = "/tmp/bvmm-try-init.XXXXXX";
    uint8_t bytes[65536];
    ssize_t count;
    int fd;

    parse_options(&o, argc, argv);
    for (int i = 0; i < STREAM_COUNT; i++) {
        limits.stream_bytes[i] = 64 * MIB;
    }
    if (getrandom(o.job.nonce, NONCE_BYTES, 0) != NONCE_BYTES ||
        record_create(&limits, &run.record, &err) < 0 || mkstemp(initramfs) < 0) {
        return 1;
    }
    run.show_console = o.show_console;
    result_sink_init(&run.sink, run.record, VIA_SERIAL);
    frame_decoder_init(&decoder, FRAME_MODE_CONSOLE, o.job.nonce, &ops, &run);
    write_initramfs(&o, initramfs);
    start_qemu(&o, initramfs, &fd);
    while ((count = read(fd, bytes, sizeof(bytes))) > 0) {
        frame_decoder_feed(&decoder, bytes, (size_t)count);
    }
    frame_decoder_finish(&decoder);
    wait(NULL);
    unlink(initramfs);
    print_manifest(&run);
    printf("frames %" PRIu64 ", damaged %" PRIu64 ", lost %" PRIu64 ", refused %" PRIu64
           ", console %" PRIu64 " bytes\n",
           run.sink.frames, decoder.damaged_frames, run.sink.lost_frames, run.sink.refused_frames,
           run.record->console.total_bytes);
    printf("exit code: %.*s\n", (int)run.record->streams[STREAM_EXIT_CODE].length_bytes,
           (char *)record_stream_bytes(run.record, STREAM_EXIT_CODE));
    if (o.save_dir) {
        save_streams(&run, o.save_dir);
    }
    return run.bye ? 0 : 1;
}
