/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_job.c: loading a job: defaults, what is stored, files and their refusals. What is a good job
 * and what is not, key by key, is held against the schema in tests/schema.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "vmm/file_kind.h"
#include "vmm/job.h"

/* ---- A directory with files of every kind ---------------------------------------------------- */

static char dir[] = "/tmp/bvmm-test-job.XXXXXX";

static void path_in_dir(char path[4096], const char *name)
{
    snprintf(path, 4096, "%s/%s", dir, name);
}

static void put_file(const char *name, const void *data, size_t bytes)
{
    char path[4096];
    FILE *file;

    path_in_dir(path, name);
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

static void put_le(uint8_t *to, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to[i] = (uint8_t)(value >> (8 * i));
    }
}

/* The superblock of a squashfs image that says that it is used_bytes long. */
static void put_squashfs(const char *name, uint64_t used_bytes, uint64_t compressor)
{
    uint8_t image[4096] = "hsqs";

    put_le(image + 20, compressor, 2);
    put_le(image + 40, used_bytes, 8);
    put_file(name, image, sizeof(image));
}

static void put_ext4(const char *name, uint64_t blocks)
{
    uint8_t image[4096] = {0};

    put_le(image + 1024 + 4, blocks, 4);
    put_le(image + 1024 + 0x18, 0, 4); /* blocks of 1 KiB */
    put_le(image + 1024 + 0x38, 0xef53, 2);
    put_file(name, image, sizeof(image));
}

static void put_kernels(void)
{
    uint8_t elf[4096] = "\x7f"
                        "ELF\x02\x01\x01";
    uint8_t bzimage[4096] = {0};
    uint8_t arm64[4096] = {0};
    struct utsname host;

    put_le(elf + 16, 2, 2);  /* ET_EXEC */
    put_le(elf + 18, 62, 2); /* x86-64 */
    put_le(elf + 32, 64, 8); /* program headers behind this one */
    put_le(elf + 54, 56, 2);
    put_le(elf + 56, 1, 2);
    put_le(elf + 64, 1, 4); /* PT_LOAD */
    put_file("elf", elf, sizeof(elf));
    put_le(elf + 64, 3, 4); /* PT_INTERP: a program */
    put_file("program", elf, sizeof(elf));
    put_le(bzimage + 0x1fe, 0xaa55, 2);
    memcpy(bzimage + 0x202, "HdrS", 4);
    put_le(bzimage + 0x206, 0x20f, 2);
    put_file("bzimage", bzimage, sizeof(bzimage));
    memcpy(arm64 + 56, "ARM\x64", 4);
    put_file("arm64", arm64, sizeof(arm64));
    assert_int_equal(uname(&host), 0);
    put_file("kernel", strcmp(host.machine, "aarch64") == 0 ? arm64 : bzimage, sizeof(arm64));
}

static int make_dir(void **state)
{
    char path[4096];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    (void)state;
    assert_non_null(mkdtemp(dir));
    put_squashfs("root", 4096, 1);
    put_squashfs("root.cut", 4097, 1);
    put_squashfs("root.lzo", 96, 3);
    put_ext4("ext4", 4);
    put_ext4("ext4.cut", 5);
    put_kernels();
    put_file("empty", "", 0);
    put_file("text", "just text\n", 10);
    put_file("initrd", "070701 and so on", 16);
    put_file("initrd.gz", "\x1f\x8b\x08 and so on", 13);
    path_in_dir(path, "fifo");
    assert_int_equal(mkfifo(path, 0600), 0);
    path_in_dir(path, "link");
    assert_int_equal(symlink("root", path), 0);
    path_in_dir(path, "loop");
    assert_int_equal(symlink("loop", path), 0);
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/socket", dir);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    close(fd);
    path_in_dir(path, "subdir");
    assert_int_equal(mkdir(path, 0700), 0);
    return 0;
}

static int remove_dir(void **state)
{
    char command[4096];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command); /* NOLINT(cert-env33-c): our own directory's name */
}

/* ---- Helpers --------------------------------------------------------------------------------- */

/* Load a job from a file in the directory; paths in it are relative to that. */
static int load(const char *text, unsigned flags, struct job *job, struct job_problems *problems)
{
    char path[4096];

    put_file("job.json", text, strlen(text));
    path_in_dir(path, "job.json");
    return job_load(path, flags, job, problems);
}

static void load_good(const char *text, struct job *job)
{
    struct job_problems problems;

    if (load(text, 0, job, &problems) < 0) {
        fail_msg("%s: %s", text, problems.items[0].message);
    }
    assert_int_equal(problems.count, 0);
}

/* The job must be refused with exactly one problem, whose message has all of these pieces. */
static void expect_refusal(const char *text, const char *where, const char *what,
                           const char *expected)
{
    struct job_problems problems;
    struct job job;
    int r = load(text, 0, &job, &problems);

    if (r != -EINVAL || problems.count != 1) {
        fail_msg("%s: returned %d with %zu problems: %s", text, r, problems.count,
                 problems.count > 0 ? problems.items[0].message : "");
    }
    if (!strstr(problems.items[0].message, where) || !strstr(problems.items[0].message, what) ||
        !strstr(problems.items[0].message, expected)) {
        fail_msg("%s: the message lacks \"%s\", \"%s\" or \"%s\": %s", text, where, what, expected,
                 problems.items[0].message);
    }
    assert_int_equal(problems.items[0].kind, BVMM_ERROR_JOB);
    assert_non_null(strstr(problems.items[0].message, "/job.json: $"));
    job_fini(&job);
}

static int count_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

/* ---- What is stored -------------------------------------------------------------------------- */

static void defaults_are_those_of_the_seed(void **state)
{
    struct job job;

    (void)state;
    load_good("{\"rootfs_path\": \"root\"}", &job);
    assert_int_equal(job.vcpus, 1);
    assert_int_equal(job.memory_mib, 512);
    assert_int_equal(job.timeout_secs, 300);
    assert_string_equal(job.kernel_cmdline,
                        "console=ttyS0 reboot=k panic=1 pci=off root=/dev/vda ro");
    assert_true(job.vsock);
    assert_null(job.kernel.path);
    assert_int_equal(job.kernel.fd, -1);
    assert_int_equal(job.command.count, 0);
    assert_int_equal(job.limits.stdout_bytes, 25 * 1024 * 1024);
    assert_int_equal(job.limits.console_bytes, 1024 * 1024);
    assert_int_equal(job.sandbox, JOB_SANDBOX_STRICT);
    assert_null(job.report_path);
    job_fini(&job);
}

static void every_key_is_stored(void **state)
{
    struct job job;

    (void)state;
    load_good(
        "{\"$schema\": \"s\", \"name\": \"n\", \"labels\": {\"a\": \"b\"},"
        "\"kernel_path\": \"kernel\", \"rootfs_path\": \"root\", \"rootfs_type\": \"squashfs\","
        "\"initrd_path\": \"initrd\", \"vcpus\": 2, \"memory_mib\": 128,"
        "\"kernel_cmdline\": \"c\", \"kernel_cmdline_append\": \"d\", \"vsock\": true,"
        "\"vsock_path\": \"v\", \"timeout_secs\": 7, \"command\": [\"x\", \"y\"],"
        "\"env\": {\"E\": \"f=g\"}, \"workdir\": \"/w\", \"user\": \"u:g\","
        "\"hostname\": \"h\", \"stdin_path\": \"text\", \"tmpfs_mib\": 3,"
        "\"drives\": [{\"path\": \"ext4\", \"mount\": \"/m\"}, {\"path\": \"text\"}],"
        "\"output_files\": [\"/o\"], \"limits\": {\"stdout_bytes\": 1, \"stderr_bytes\": 2,"
        "\"output_bytes\": 3, \"console_bytes\": 4096}, \"report_path\": \"out.json\","
        "\"large_outputs\": {\"over_bytes\": 9, \"dir\": \"ld\"}, \"sandbox\": \"off\","
        "\"cgroup\": {\"cpus\": \"0-1\", \"memory_max_mib\": 5, \"pids_max\": 6}}",
        &job);
    assert_string_equal(job.name, "n");
    assert_int_equal(job.labels.count, 1);
    assert_string_equal(job.labels.items[0].name, "a");
    assert_string_equal(job.labels.items[0].value, "b");
    assert_true(job.kernel.fd >= 0 && job.rootfs.fd >= 0 && job.initrd.fd >= 0);
    assert_int_equal(job.rootfs.size_bytes, 4096);
    assert_int_equal(job.rootfs_type, JOB_FSTYPE_SQUASHFS);
    assert_int_equal(job.vcpus, 2);
    assert_int_equal(job.memory_mib, 128);
    assert_string_equal(job.kernel_cmdline, "c");
    assert_string_equal(job.kernel_cmdline_append, "d");
    assert_int_equal(job.timeout_secs, 7);
    assert_int_equal(job.command.count, 2);
    assert_string_equal(job.command.items[1], "y");
    assert_null(job.command.items[2]);
    assert_string_equal(job.env.items[0], "E=f=g");
    assert_string_equal(job.workdir, "/w");
    assert_string_equal(job.user, "u:g");
    assert_string_equal(job.hostname, "h");
    assert_true(job.stdin_file.fd >= 0);
    assert_int_equal(job.tmpfs_mib, 3);
    assert_int_equal(job.drive_count, 2);
    assert_int_equal(job.drives[0].fstype, JOB_FSTYPE_EXT4); /* found out */
    assert_string_equal(job.drives[0].mount, "/m");
    assert_null(job.drives[1].mount);
    assert_true(job.drives[1].image.fd >= 0);
    assert_string_equal(job.output_files.items[0], "/o");
    assert_int_equal(job.limits.stdout_bytes, 1);
    assert_int_equal(job.limits.stderr_bytes, 2);
    assert_int_equal(job.limits.output_bytes, 3);
    assert_int_equal(job.limits.console_bytes, 4096);
    assert_true(strncmp(job.report_path, dir, strlen(dir)) == 0);
    assert_true(job.report_dir_fd >= 0);
    assert_int_equal(job.large_outputs.over_bytes, 9);
    assert_int_equal(job.sandbox, JOB_SANDBOX_OFF);
    assert_string_equal(job.cgroup.cpus, "0-1");
    assert_int_equal(job.cgroup.memory_max_mib, 5);
    assert_int_equal(job.cgroup.pids_max, 6);
    for (int key = 0; key < JOB_KEY_COUNT; key++) {
        /* An image is named by one key or the other; test_job_image.c has this one. */
        assert_true(job_given(&job, (enum job_key)key) != (key == JOB_KEY_IMAGE));
    }
    job_fini(&job);
}

static void command_string_is_for_the_shell(void **state)
{
    struct job job;

    (void)state;
    load_good("{\"rootfs_path\": \"root\", \"command\": \"echo 'a b' | wc\"}", &job);
    assert_int_equal(job.command.count, 3);
    assert_string_equal(job.command.items[0], "/bin/sh");
    assert_string_equal(job.command.items[1], "-c");
    assert_string_equal(job.command.items[2], "echo 'a b' | wc");
    assert_null(job.command.items[3]);
    job_fini(&job);
}

static void limits_go_to_the_record(void **state)
{
    struct record_limits limits;
    struct job job;

    (void)state;
    load_good("{\"rootfs_path\": \"root\", \"limits\": {\"stderr_bytes\": 77}}", &job);
    job_record_limits(&job, &limits);
    assert_int_equal(limits.stream_bytes[STREAM_STDERR], 77);
    assert_int_equal(limits.stream_bytes[STREAM_STDOUT], 25 * 1024 * 1024);
    assert_int_equal(limits.console_bytes, 1024 * 1024);
    assert_true(limits.stream_bytes[STREAM_ANNOUNCED] >= MANIFEST_MAX_BYTES);
    assert_true(limits.stream_bytes[STREAM_EXIT_CODE] > 0);
    job_fini(&job);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static void fds_are_closed_again(void **state)
{
    struct job_problems problems;
    struct job job;
    int before = count_fds();

    (void)state;
    load_good("{\"rootfs_path\": \"link\", \"kernel_path\": \"kernel\","
              "\"initrd_path\": \"initrd.gz\", \"report_path\": \"r.json\","
              "\"drives\": [{\"path\": \"text\"}]}",
              &job);
    assert_int_equal(count_fds(), before + 5);
    assert_true(fcntl(job.rootfs.fd, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fcntl(job.rootfs.fd, F_GETFL) & O_ACCMODE, O_RDONLY);
    job_fini(&job);
    assert_int_equal(count_fds(), before);
    job_fini(&job); /* twice does no harm */
    assert_int_equal(
        load("{\"rootfs_path\": \"root\", \"kernel_path\": \"text\"}", 0, &job, &problems),
        -EINVAL);
    job_fini(&job);
    assert_int_equal(count_fds(), before);
}

static void the_examined_file_is_the_one_used(void **state)
{
    struct job job;
    char path[4096];
    char magic[4];

    (void)state;
    put_squashfs("swapped", 4096, 1);
    load_good("{\"rootfs_path\": \"swapped\"}", &job);
    path_in_dir(path, "swapped");
    assert_int_equal(unlink(path), 0);
    put_file("swapped", "evil", 4);
    assert_int_equal(pread(job.rootfs.fd, magic, 4, 0), 4);
    assert_memory_equal(magic, "hsqs", 4);
    job_fini(&job);
}

static void files_that_are_none_are_refused(void **state)
{
    (void)state;
    expect_refusal("{\"rootfs_path\": \"missing\"}", "$.rootfs_path", "No such file",
                   "relative paths");
    expect_refusal("{\"rootfs_path\": \"loop\"}", "$.rootfs_path", "symbolic links",
                   "can be opened");
    expect_refusal("{\"rootfs_path\": \"subdir\"}", "$.rootfs_path", "is a directory",
                   "regular file");
    expect_refusal("{\"rootfs_path\": \"fifo\"}", "$.rootfs_path", "is a FIFO", "regular file");
    expect_refusal("{\"rootfs_path\": \"socket\"}", "$.rootfs_path", "is a socket", "expected");
    expect_refusal("{\"rootfs_path\": \"/dev/zero\"}", "$.rootfs_path", "is a character device",
                   "regular file");
    expect_refusal("{\"rootfs_path\": \"empty\"}", "$.rootfs_path", "is empty", "image");
    expect_refusal("{\"rootfs_path\": \"text/x\"}", "$.rootfs_path", "Not a directory", "expected");
    expect_refusal(
        "{\"rootfs_path\": \"root\", \"drives\": [{\"path\": \"root\"}, {\"path\": \"no\"}]}",
        "$.drives[1].path", "No such file", "existing file");
    expect_refusal("{\"rootfs_path\": \"root\", \"drives\": [{\"path\": \"empty\"}]}",
                   "$.drives[0].path", "is empty", "image");
    expect_refusal("{\"rootfs_path\": \"root\", \"command\": \"c\", \"stdin_path\": \"fifo\"}",
                   "$.stdin_path", "is a FIFO", "regular file");
}

static void images_that_are_none_are_refused(void **state)
{
    (void)state;
    expect_refusal("{\"rootfs_path\": \"text\"}", "$.rootfs_path", "no file of a known kind",
                   "squashfs, ext4 or erofs");
    expect_refusal("{\"rootfs_path\": \"bzimage\"}", "$.rootfs_path", "is a kernel for x86_64",
                   "squashfs");
    expect_refusal("{\"rootfs_path\": \"initrd\"}", "$.rootfs_path", "is a cpio archive",
                   "squashfs");
    expect_refusal("{\"rootfs_path\": \"ext4\", \"rootfs_type\": \"squashfs\"}", "$.rootfs_path",
                   "ext4 image", "expected squashfs");
    expect_refusal("{\"rootfs_path\": \"root.cut\"}", "$.rootfs_path", "4096 bytes long",
                   "a complete image");
    expect_refusal("{\"rootfs_path\": \"ext4.cut\"}", "$.rootfs_path", "5120", "a complete image");
    expect_refusal("{\"rootfs_path\": \"root.lzo\"}", "$.rootfs_path", "lzo compression", "zstd");
    expect_refusal("{\"rootfs_path\": \"root\", \"command\": \"c\","
                   "\"drives\": [{\"path\": \"text\", \"mount\": \"/x\"}]}",
                   "$.drives[0].path", "no file of a known kind", "squashfs");
}

static void other_images_are_not_looked_at(void **state)
{
    struct job job;

    (void)state;
    load_good("{\"rootfs_path\": \"text\", \"rootfs_type\": \"other\"}", &job);
    assert_string_equal(job_fstype_name((enum job_fstype)job.rootfs_type), "");
    job_fini(&job);
    /* The job's own kernel may have lzo. */
    load_good("{\"rootfs_path\": \"root.lzo\", \"kernel_path\": \"kernel\"}", &job);
    job_fini(&job);
}

static void kernels_that_are_none_are_refused(void **state)
{
    struct utsname host;

    (void)state;
    assert_int_equal(uname(&host), 0);
    expect_refusal("{\"rootfs_path\": \"root\", \"kernel_path\": \"root\"}", "$.kernel_path",
                   "is a squashfs image", "a Linux kernel");
    expect_refusal("{\"rootfs_path\": \"root\", \"kernel_path\": \"text\"}", "$.kernel_path",
                   "is no", "a Linux kernel");
    expect_refusal("{\"rootfs_path\": \"root\", \"kernel_path\": \"initrd.gz\"}", "$.kernel_path",
                   "is a gzip-compressed file", "a Linux kernel");
    expect_refusal("{\"rootfs_path\": \"root\", \"kernel_path\": \"program\"}", "$.kernel_path",
                   "an ELF file that is no kernel", "a Linux kernel");
    expect_refusal("{\"rootfs_path\": \"root\", \"kernel_path\": \"empty\"}", "$.kernel_path",
                   "is empty", "a Linux kernel");
    expect_refusal(strcmp(host.machine, "aarch64") == 0
                       ? "{\"rootfs_path\": \"root\", \"kernel_path\": \"elf\"}"
                       : "{\"rootfs_path\": \"root\", \"kernel_path\": \"arm64\"}",
                   "$.kernel_path", "is a kernel for", "one for this machine");
}

static void initrds_and_stdin_must_fit(void **state)
{
    char path[4096];
    int fd;

    (void)state;
    expect_refusal("{\"initrd_path\": \"text\"}", "$.initrd_path", "no file of a known kind",
                   "cpio");
    put_file("large", "070701", 6);
    path_in_dir(path, "large");
    fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(ftruncate(fd, 33 << 20), 0); /* sparse */
    close(fd);
    expect_refusal("{\"initrd_path\": \"large\", \"memory_mib\": 64}", "$.initrd_path",
                   "34603008 bytes", "memory_mib");
    expect_refusal("{\"rootfs_path\": \"root\", \"command\": \"c\", \"stdin_path\": \"large\","
                   "\"memory_mib\": 64}",
                   "$.stdin_path", "34603008 bytes", "memory_mib");
}

/* ---- Where the run writes -------------------------------------------------------------------- */

static void report_paths_are_checked(void **state)
{
    (void)state;
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"no/r.json\"}", "$.report_path",
                   "No such file", "a directory that is there");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"text/r.json\"}", "$.report_path",
                   "Not a directory", "a directory that is there");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"subdir\"}", "$.report_path",
                   "is a directory", "a regular file");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"subdir/\"}", "$.report_path",
                   "is a directory", "the name of a file");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"/dev/null\"}", "$.report_path",
                   "is a character device", "- for standard output");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"link\"}", "$.report_path",
                   "is a symbolic link", "- for standard output");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"subdir/../root\"}",
                   "$.report_path", "$.rootfs_path", "a name of its own");
    expect_refusal("{\"rootfs_path\": \"root\", \"report_path\": \"job.json\"}", "$.report_path",
                   "the job file", "a name of its own");
    expect_refusal("{\"rootfs_path\": \"root\", \"drives\": [{\"path\": \"text\"}],"
                   "\"report_path\": \"text\"}",
                   "$.report_path", "one of $.drives", "a name of its own");
    expect_refusal("{\"rootfs_path\": \"root\", \"large_outputs\": {\"dir\": \"text\"}}",
                   "$.large_outputs.dir", "no file can be made", "writable directory");
    expect_refusal("{\"rootfs_path\": \"root\", \"large_outputs\": {\"dir\": \"no/d\"}}",
                   "$.large_outputs.dir", "No such file", "a directory that is there");
}

static void vsock_path_must_fit_a_socket_name(void **state)
{
    char many_v[128] = "";
    char text[512];
    struct job job;
    size_t room = 96 - strlen(dir) - 1;

    (void)state;
    memset(many_v, 'v', sizeof(many_v) - 1);
    snprintf(text, sizeof(text), "{\"rootfs_path\": \"root\", \"vsock_path\": \"%.*s\"}", (int)room,
             many_v);
    load_good(text, &job);
    assert_int_equal(strlen(job.vsock_path), 96);
    job_fini(&job);
    snprintf(text, sizeof(text), "{\"rootfs_path\": \"root\", \"vsock_path\": \"%.*s\"}",
             (int)room + 1, many_v);
    expect_refusal(text, "$.vsock_path", "97 bytes", "at most 96");
    expect_refusal("{\"rootfs_path\": \"root\", \"vsock_path\": \"no/v\"}", "$.vsock_path",
                   "No such file", "writable");
    expect_refusal("{\"rootfs_path\": \"root\", \"vsock_path\": \"text\"}", "$.vsock_path",
                   "/text\" is there already and is a regular file", "expected a new name");
}

static void report_path_of_the_command_line(void **state)
{
    struct job_problems problems = {.count = 0};
    char path[4096];
    struct job job;

    (void)state;
    assert_int_equal(load("{\"rootfs_path\": \"root\", \"report_path\": \"r.json\"}",
                          JOB_LOAD_NO_FILES, &job, &problems),
                     0);
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(job_set_report_path(&job, "subdir/x.json"), 0);
    assert_int_equal(job_open_files(&job, &problems), 0);
    path_in_dir(path, "subdir/x.json");
    assert_string_equal(job.report_path, path);
    assert_int_equal(job_set_report_path(&job, "-"), 0);
    assert_null(job.report_path);
    assert_int_equal(chdir("/"), 0);
    job_fini(&job);
}

/* ---- Loading --------------------------------------------------------------------------------- */

static void all_problems_are_told(void **state)
{
    struct job_problems problems;
    struct bvmm_error err;
    struct job job;

    (void)state;
    assert_int_equal(load("{\"rootfs_path\": \"\", \"vcpus\": 0, \"memory_mib\": \"x\", \"q\": 1}",
                          0, &job, &problems),
                     -EINVAL);
    assert_int_equal(problems.count, 4);
    job_problems_to_error(&problems, &err);
    assert_non_null(strstr(err.message, "(and 3 more)"));
    assert_int_equal(err.kind, BVMM_ERROR_JOB);
    job_fini(&job);
}

static void more_problems_than_are_kept(void **state)
{
    struct job_problems problems;
    char text[2048] = "{\"rootfs_path\": \"root\"";
    struct job job;

    (void)state;
    for (int i = 0; i < 30; i++) {
        snprintf(text + strlen(text), sizeof(text) - strlen(text), ", \"unknown%d\": %d", i, i);
    }
    strcat(text, "}");
    assert_int_equal(load(text, 0, &job, &problems), -EINVAL);
    assert_int_equal(problems.count, 30);
    assert_non_null(strstr(problems.items[JOB_PROBLEMS_MAX - 1].message, "unknown15"));
    job_fini(&job);
}

static void syntax_errors_have_line_and_column(void **state)
{
    struct job_problems problems;
    struct job job;

    (void)state;
    assert_int_equal(load("{\n  \"rootfs_path\": \"a\",\n  \"vcpus\": }\n", 0, &job, &problems),
                     -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "line 3, column 12"));
    assert_non_null(strstr(problems.items[0].message, "expected JSON"));
    job_fini(&job);
    assert_int_equal(load("{\n  \"vcpus\": 1,\n  \"vcpus\": 2\n}\n", 0, &job, &problems), -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "line 3, "));
    assert_non_null(strstr(problems.items[0].message, "expected each key once"));
    job_fini(&job);
}

static void job_files_that_cannot_be_read(void **state)
{
    struct job_problems problems;
    struct job job;
    char *large;

    (void)state;
    assert_int_equal(job_load("/no/such/job.json", 0, &job, &problems), -ENOENT);
    assert_non_null(strstr(problems.items[0].message, "/no/such/job.json: cannot read the job"));
    job_fini(&job);
    assert_int_equal(job_load(dir, 0, &job, &problems), -EISDIR);
    job_fini(&job);
    large = malloc(5 << 20);
    assert_non_null(large);
    memset(large, ' ', 5 << 20);
    put_file("large.json", large, 5 << 20);
    free(large);
    assert_int_equal(chdir(dir), 0);
    assert_int_equal(job_load("large.json", 0, &job, &problems), -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "is larger than 4194304 bytes"));
    job_fini(&job);
    assert_int_equal(chdir("/"), 0);
}

static void terminal_codes_are_not_repeated(void **state)
{
    struct job_problems problems;
    struct job job;

    (void)state;
    assert_int_equal(load("{\"rootfs_path\": \"\\u001b[2J\\n\"}", 0, &job, &problems), -EINVAL);
    assert_null(strchr(problems.items[0].message, 0x1b));
    assert_null(strchr(problems.items[0].message, '\n'));
    job_fini(&job);
}

/* A program that embeds bvmm sets fields and gets the same checks. */
static void fields_set_by_a_program_are_checked(void **state)
{
    struct job_problems problems = {.count = 0};
    struct job job;

    (void)state;
    assert_int_equal(job_init_defaults(&job), 0);
    job.vcpus = 33;
    job.memory_mib = 1;
    job.sandbox = 9;
    job.rootfs.path = strdup("r");
    job.given |= 1ULL << JOB_KEY_ROOTFS_PATH;
    assert_int_equal(job_check(&job, &problems), -EINVAL);
    assert_int_equal(problems.count, 3);
    assert_string_equal(problems.items[0].message,
                        "the configuration: $.vcpus is 33; expected an integer from 1 to 32");
    problems.count = 0;
    job.vcpus = 32;
    job.memory_mib = 64;
    job.sandbox = JOB_SANDBOX_OFF;
    assert_int_equal(job_check(&job, &problems), 0);
    job_fini(&job);
}

static void kinds_of_short_files(void **state)
{
    static const uint8_t bytes[FILE_HEAD_BYTES] = "hsqs";
    struct image_facts facts;

    (void)state;
    /* No length may make the detectors read beyond it: the sanitizer watches. */
    for (size_t n = 0; n <= 2100; n++) {
        uint8_t *exact = malloc(n ? n : 1);

        assert_non_null(exact);
        memcpy(exact, bytes, n);
        image_identify(exact, n, &facts);
        assert_int_equal(facts.fstype, n >= 96 ? JOB_FSTYPE_SQUASHFS : JOB_FSTYPE_OTHER);
        (void)kernel_identify(exact, n);
        (void)initrd_identify(exact, n);
        assert_non_null(file_describe(exact, n));
        free(exact);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_seed),
        cmocka_unit_test(every_key_is_stored),
        cmocka_unit_test(command_string_is_for_the_shell),
        cmocka_unit_test(limits_go_to_the_record),
        cmocka_unit_test(fds_are_closed_again),
        cmocka_unit_test(the_examined_file_is_the_one_used),
        cmocka_unit_test(files_that_are_none_are_refused),
        cmocka_unit_test(images_that_are_none_are_refused),
        cmocka_unit_test(other_images_are_not_looked_at),
        cmocka_unit_test(kernels_that_are_none_are_refused),
        cmocka_unit_test(initrds_and_stdin_must_fit),
        cmocka_unit_test(report_paths_are_checked),
        cmocka_unit_test(vsock_path_must_fit_a_socket_name),
        cmocka_unit_test(report_path_of_the_command_line),
        cmocka_unit_test(all_problems_are_told),
        cmocka_unit_test(more_problems_than_are_kept),
        cmocka_unit_test(syntax_errors_have_line_and_column),
        cmocka_unit_test(job_files_that_cannot_be_read),
        cmocka_unit_test(terminal_codes_are_not_repeated),
        cmocka_unit_test(fields_set_by_a_program_are_checked),
        cmocka_unit_test(kinds_of_short_files),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
