/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_api.c: the public library: configurations, what failing calls leave behind (nothing), two
 * VMs at once, cancelling, and the kinds of errors that can be had without a guest.
 *
 * A VM process that is to hang is stopped by a hunter thread while it is being set up; that works
 * on hosts whose KVM cannot run guests too.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <cap-ng.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "arch/kvm.h"
#include "base/base.h"
#include "bvmm/bvmm.h"
#include "rounds.h"
#include "vmm/embedded.h"
#include "vmm/filter.h"

static char dir[] = "/tmp/bvmm-test-api.XXXXXX";
/* No run comes near it, however slow the machine: who reaches it waited for what never came. */
#define TIMEOUT_SECS 120

static bool kvm_works;

/* ---- What there is before and after ---------------------------------------------------------- */

struct stock {
    size_t fds;
    size_t threads;
    size_t files; /* in our directory */
};

static size_t count_entries(const char *path)
{
    DIR *entries = opendir(path);
    size_t count = 0;

    assert_non_null(entries);
    while (readdir(entries) != NULL) { /* NOLINT(concurrency-mt-unsafe) */
        count++;
    }
    closedir(entries);
    return count;
}

static struct stock take_stock(void)
{
    return (struct stock){
        .fds = count_entries("/proc/self/fd"),
        .threads = count_entries("/proc/self/task"),
        .files = count_entries(dir),
    };
}

static void assert_nothing_left(const struct stock *before)
{
    struct stock now;
    siginfo_t info;

    /* A thread that was joined is in the list for a moment more. */
    for (unsigned i = 0; i < 10000 && count_entries("/proc/self/task") > before->threads; i++) {
        usleep(5000);
    }
    now = take_stock();
    assert_int_equal(now.fds, before->fds);
    assert_int_equal(now.threads, before->threads);
    assert_int_equal(now.files, before->files);
    assert_int_equal(waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL), -1);
    assert_int_equal(errno, ECHILD);
    assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
}

/* ---- Inputs ---------------------------------------------------------------------------------- */

static void put_file(const char *name, const void *data, size_t bytes)
{
    FILE *file = fopen(name, "we");

    assert_non_null(file);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* A squashfs at first sight, and a bundled kernel that is none, for builds that do not embed one.
 */
static int make_inputs(void **state)
{
    static const char kernel_json[] =
        "{\"version\": \"0\", \"artefacts\": ["
        "{\"name\": \"vmlinux\", \"size_bytes\": 9, \"sha256\": "
        "\"0000000000000000000000000000000000000000000000000000000000000000\"},"
        "{\"name\": \"Image\", \"size_bytes\": 9, \"sha256\": "
        "\"0000000000000000000000000000000000000000000000000000000000000000\"}]}";
    uint8_t image[4096] = "hsqs";
    struct bvmm_error error;
    int kvm_fd = -1;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_int_equal(chdir(dir), 0);
    image[41] = 0x10; /* 4096 bytes used */
    put_file("image", image, sizeof(image));
    assert_int_equal(mkdir("kernel", 0777), 0);
    put_file("kernel/vmlinux", "no kernel", 9);
    put_file("kernel/Image", "no kernel", 9);
    put_file("kernel/kernel.json", kernel_json, sizeof(kernel_json) - 1);
    assert_int_equal(mkdir("empty", 0777), 0);
    assert_int_equal(setenv("BVMM_KERNEL_DIR", "kernel", 1), 0);
    if (kvm_open(KVM_DEVICE_PATH, &kvm_fd, &error) == 0) {
        kvm_works = arch_kvm_probe(kvm_fd, &error) == 0;
        close(kvm_fd);
    }
    return 0;
}

static int remove_inputs(void **state)
{
    (void)state;
    unlink("image");
    unlink("kernel/vmlinux");
    unlink("kernel/Image");
    unlink("kernel/kernel.json");
    rmdir("kernel");
    rmdir("empty");
    return chdir("/") < 0 || rmdir(dir) < 0 ? -1 : 0;
}

static struct bvmm_config *good_config(void)
{
    static const char *const command[] = {"true", NULL};
    struct bvmm_config *config = NULL;
    struct bvmm_error error;

    assert_int_equal(bvmm_config_new(&config, &error), 0);
    assert_int_equal(bvmm_config_set_string(config, "rootfs_path", "image", &error), 0);
    assert_int_equal(bvmm_config_set_strings(config, "command", command, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "memory_mib", 64, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "timeout_secs", TIMEOUT_SECS, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "limits.stdout_bytes", 65536, &error), 0);
    return config;
}

static struct bvmm_vm *good_vm(void)
{
    struct bvmm_config *config = good_config();
    struct bvmm_vm *vm = NULL;
    struct bvmm_error error;

    if (bvmm_vm_new(config, &vm, &error) < 0) {
        fail_msg("bvmm_vm_new: %s", error.message);
    }
    bvmm_config_free(config);
    return vm;
}

/* ---- Configurations -------------------------------------------------------------------------- */

static void assert_json(const struct bvmm_config *config, const char *expected)
{
    json_t *want = json_loads(expected, 0, NULL);
    json_t *have;
    struct bvmm_error error;
    char *text = NULL;

    assert_non_null(want);
    assert_int_equal(bvmm_config_json(config, &text, &error), 0);
    have = json_loads(text, 0, NULL);
    if (!json_equal(have, want)) {
        fail_msg("expected %s, have %s", expected, text);
    }
    json_decref(have);
    json_decref(want);
    free(text);
}

static void setters_and_round_trip(void **state)
{
    static const char *const words[] = {"a b", "", "\xc3\xa9", NULL};
    static const char all[] =
        "{\"kernel_path\": \"k\", \"vcpus\": 2, \"vsock\": false, \"command\": [\"a b\", \"\", "
        "\"\\u00e9\"],"
        " \"limits\": {\"stdout_bytes\": 1, \"stderr_bytes\": 2}, \"env\": {\"A.B\": \"c\"},"
        " \"drives\": [{\"path\": \"x\"}]}";
    struct bvmm_config *config = NULL;
    struct bvmm_config *again = NULL;
    struct bvmm_error error;
    char *text = NULL;

    (void)state;
    assert_int_equal(bvmm_config_new(&config, NULL), 0);
    assert_json(config, "{}");
    assert_int_equal(bvmm_config_set_string(config, "kernel_path", "first", &error), 0);
    assert_int_equal(bvmm_config_set_string(config, "kernel_path", "k", &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "vcpus", 2, &error), 0);
    assert_int_equal(bvmm_config_set_bool(config, "vsock", false, &error), 0);
    assert_int_equal(bvmm_config_set_strings(config, "command", words, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "limits.stdout_bytes", 1, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "limits.stderr_bytes", 2, &error), 0);
    assert_int_equal(bvmm_config_set_string(config, "env.A.B", "c", &error), 0);
    assert_int_equal(bvmm_config_set_json(config, "drives", "[{\"path\": \"x\"}]", &error), 0);
    assert_json(config, all);
    assert_int_equal(bvmm_config_json(config, &text, &error), 0);
    assert_int_equal(bvmm_config_parse(text, strlen(text), &again, &error), 0);
    assert_json(again, all);
    free(text);
    bvmm_config_free(again);

    assert_int_equal(bvmm_config_unset(config, "limits.stdout_bytes", &error), 0);
    assert_int_equal(bvmm_config_unset(config, "env", &error), 0);
    assert_int_equal(bvmm_config_unset(config, "drives", &error), 0);
    assert_int_equal(bvmm_config_unset(config, "command", &error), 0);
    assert_int_equal(bvmm_config_unset(config, "never_there", &error), 0);
    assert_int_equal(bvmm_config_unset(config, "kernel_path.inner", &error), 0);
    assert_json(config, "{\"kernel_path\": \"k\", \"vcpus\": 2, \"vsock\": false,"
                        " \"limits\": {\"stderr_bytes\": 2}}");
    bvmm_config_free(config);
    bvmm_config_free(NULL);
}

static void failing_setters_change_nothing(void **state)
{
    static const char *const words[] = {"good", "\xff", NULL};
    struct bvmm_config *config = NULL;
    struct bvmm_error error;

    (void)state;
    assert_int_equal(bvmm_config_new(&config, &error), 0);
    assert_int_equal(bvmm_config_set_string(config, "name", "kept", &error), 0);
    assert_true(bvmm_config_set_string(config, "name", "\xff", &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_JOB);
    assert_non_null(strstr(error.message, "\"name\""));
    assert_true(bvmm_config_set_string(config, "name", NULL, &error) < 0);
    assert_true(bvmm_config_set_strings(config, "command", words, &error) < 0);
    assert_true(bvmm_config_set_string(config, "new.\xff", "x", &error) < 0);
    assert_true(bvmm_config_set_string(config, "\xff", "x", &error) < 0);
    assert_int_equal(bvmm_config_set_uint(config, "vcpus", UINT64_MAX, &error), -ERANGE);
    assert_true(bvmm_config_set_json(config, "drives", "[", &error) < 0);
    assert_non_null(strstr(error.message, "\"drives\": column"));
    assert_true(bvmm_config_set_json(config, "drives", "[", NULL) < 0);
    assert_json(config, "{\"name\": \"kept\"}");
    bvmm_config_free(config);
}

static void bad_texts_are_refused(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } texts[] = {
        {"", "line 1"},
        {"{", "line 1, column 1"},
        {"[1]", "$ is an array; expected an object"},
        {"7", "expected an object"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{} {}", "line 1"},
    };
    char place;
    struct bvmm_config *const untouched = (void *)&place; /* never looked at */
    struct bvmm_config *config = untouched;
    struct bvmm_error error;
    const struct stock before = take_stock();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        assert_true(bvmm_config_parse(texts[i].text, strlen(texts[i].text), &config, &error) < 0);
        assert_int_equal(error.kind, BVMM_ERROR_JOB);
        if (strstr(error.message, texts[i].message) == NULL) {
            fail_msg("'%s': the message lacks '%s': %s", texts[i].text, texts[i].message,
                     error.message);
        }
        put_file("job", texts[i].text, strlen(texts[i].text));
        assert_true(bvmm_config_load("job", &config, &error) < 0);
        assert_true(strncmp(error.message, "job: ", 5) == 0);
        unlink("job");
    }
    assert_int_equal(bvmm_config_load("no/such/file", &config, &error), -ENOENT);
    assert_int_equal(bvmm_config_load("no/such/file", &config, NULL), -ENOENT);
    assert_int_equal(bvmm_config_load("empty", &config, &error), -EISDIR);
    assert_ptr_equal(config, untouched);
    assert_nothing_left(&before);
}

static void paths_start_at_the_job_file(void **state)
{
    static const char job[] = "{\"rootfs_path\": \"image\", \"command\": \"true\"}";
    struct bvmm_config *config = NULL;
    struct bvmm_error error;

    (void)state;
    put_file("empty/job", job, sizeof(job) - 1);
    assert_int_equal(bvmm_config_load("empty/job", &config, &error), 0);
    assert_int_equal(bvmm_config_check(config, false, NULL, NULL, &error), 0);
    assert_true(bvmm_config_check(config, true, NULL, NULL, &error) < 0);
    assert_non_null(strstr(error.message, "empty/image"));
    bvmm_config_free(config);
    unlink("empty/job");
    put_file("job", job, sizeof(job) - 1);
    assert_int_equal(bvmm_config_load("./job", &config, &error), 0);
    assert_int_equal(bvmm_config_check(config, true, NULL, NULL, &error), 0);
    bvmm_config_free(config);
    unlink("job");
}

struct heard {
    size_t count;
    char last[BVMM_ERROR_MESSAGE_BYTES];
};

static void hear_problem(void *context, const char *problem)
{
    struct heard *heard = context;

    heard->count++;
    snprintf(heard->last, sizeof(heard->last), "%s", problem);
}

static void check_tells_everything(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_config *config = good_config();
    struct heard heard = {.count = 0};
    struct bvmm_error error;
    char key[32];

    (void)state;
    assert_int_equal(bvmm_config_check(config, true, hear_problem, &heard, &error), 0);
    assert_int_equal(heard.count, 0);
    assert_int_equal(bvmm_config_set_uint(config, "vcpus", 0, &error), 0);
    assert_int_equal(bvmm_config_set_uint(config, "memory_mibs", 64, &error), 0);
    assert_int_equal(bvmm_config_check(config, true, hear_problem, &heard, &error), -EINVAL);
    assert_int_equal(heard.count, 2);
    assert_int_equal(error.kind, BVMM_ERROR_JOB);
    assert_non_null(strstr(error.message, "(and 1 more)"));
    for (unsigned i = 0; i < 30; i++) {
        snprintf(key, sizeof(key), "unknown_%u", i);
        assert_int_equal(bvmm_config_set_uint(config, key, i, &error), 0);
    }
    heard.count = 0;
    assert_int_equal(bvmm_config_check(config, false, hear_problem, &heard, NULL), -EINVAL);
    assert_true(heard.count > 10 && heard.count < 32);
    assert_true(strncmp(heard.last, "and ", 4) == 0);
    bvmm_config_free(config);
    assert_nothing_left(&before);
}

/* ---- Failing calls --------------------------------------------------------------------------- */

static void wrong_configuration(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_config *config = good_config();
    struct bvmm_report *report = NULL;
    struct bvmm_vm *vm = NULL;
    struct bvmm_error error;

    (void)state;
    assert_int_equal(bvmm_config_set_string(config, "stdin_path", "no-such-file", &error), 0);
    assert_true(bvmm_vm_new(config, &vm, &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_JOB);
    assert_non_null(strstr(error.message, "$.stdin_path"));
    assert_true(bvmm_vm_new(config, &vm, NULL) < 0);
    assert_true(bvmm_run(config, &report, &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_JOB);
    assert_null(vm);
    assert_null(report);
    bvmm_config_free(config);
    bvmm_vm_free(NULL);
    bvmm_report_free(NULL);
    assert_nothing_left(&before);
}

static void set_soft_limit(int resource, rlim_t limit, struct rlimit *ret_old)
{
    struct rlimit changed;

    assert_int_equal(getrlimit((__rlimit_resource_t)resource, ret_old), 0);
    changed = *ret_old;
    changed.rlim_cur = limit;
    assert_int_equal(setrlimit((__rlimit_resource_t)resource, &changed), 0);
}

static rlim_t address_space_bytes(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    assert_non_null(file);
    assert_int_equal(fscanf(file, "%lu", &pages), 1);
    fclose(file);
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static void no_memory_for_the_results(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_config *config = good_config();
    struct bvmm_vm *vm = NULL;
    struct bvmm_error error;
    struct rlimit old;
    int code = 0;

    (void)state;
    if (!filter_possible()) {
        bvmm_config_free(config);
        print_message("skipped: sanitizers need the address space themselves\n");
        skip();
    }
    assert_int_equal(bvmm_config_set_uint(config, "limits.output_bytes", 256 * MIB, &error), 0);
    set_soft_limit(RLIMIT_AS, address_space_bytes() + 64 * MIB, &old);
    code = bvmm_vm_new(config, &vm, &error);
    assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
    assert_true(code < 0);
    assert_null(vm);
    assert_int_equal(error.kind, BVMM_ERROR_MEMORY);
    assert_non_null(strstr(error.message, "lower the job's limits"));
    bvmm_config_free(config);
    assert_nothing_left(&before);
}

/* One descriptor more each time, until there are enough: every one of the calls that makes one
 * fails. */
static void no_descriptors(void **state)
{
    const struct stock before = take_stock();
    unsigned failed_new = 0;
    unsigned failed_run = 0;
    bool done = false;

    (void)state;
    for (rlim_t limit = 3; !done; limit++) {
        struct bvmm_config *config = good_config();
        struct bvmm_report *report = NULL;
        struct bvmm_vm *vm = NULL;
        struct bvmm_error error = {.kind = BVMM_ERROR_NONE};
        struct rlimit old;
        int code = 0;

        assert_true(limit < 200);
        set_soft_limit(RLIMIT_NOFILE, limit, &old);
        code = bvmm_vm_new(config, &vm, &error);
        if (code < 0) {
            failed_new++;
            assert_null(vm);
            assert_true(error.kind == BVMM_ERROR_JOB || error.kind == BVMM_ERROR_IO ||
                        error.kind == BVMM_ERROR_MEMORY);
        } else if (bvmm_vm_run(vm, &report, &error) < 0) {
            failed_run++;
            assert_null(report);
            assert_true(error.kind == BVMM_ERROR_IO || error.kind == BVMM_ERROR_MEMORY);
        } else {
            /* In the VM process there may be too few still: then the report says so. */
            done = bvmm_report_result(report)->error_kind != BVMM_ERROR_IO;
        }
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
        assert_true(error.kind == BVMM_ERROR_NONE || error.message[0] != '\0');
        bvmm_report_free(report);
        bvmm_vm_free(vm);
        bvmm_config_free(config);
        assert_nothing_left(&before);
    }
    assert_true(failed_new >= 3); /* image, kernel, eventfd */
    assert_true(failed_run >= 2); /* two pipes */
}

/* In a child that gives away the right to make namespaces. */
static void start_without_privilege(void)
{
    struct bvmm_vm *vm = good_vm();
    const struct stock before = take_stock();
    struct bvmm_report *report = NULL;
    struct bvmm_error error;

    capng_get_caps_process();
    assert_int_equal(capng_update(CAPNG_DROP, CAPNG_EFFECTIVE | CAPNG_PERMITTED, CAP_SYS_ADMIN), 0);
    assert_int_equal(capng_apply(CAPNG_SELECT_CAPS), 0);
    assert_int_equal(bvmm_vm_failure_report(vm, &error, &report, &error), -EINVAL);
    assert_int_equal(bvmm_vm_run(vm, &report, &error), -EPERM);
    assert_null(report);
    assert_int_equal(error.kind, BVMM_ERROR_SANDBOX);
    assert_non_null(strstr(error.message, "pid_namespace"));
    assert_non_null(strstr(error.message, "best_effort"));
    assert_nothing_left(&before);
    assert_int_equal(bvmm_vm_failure_report(vm, &error, &report, &error), 0);
    assert_string_equal(bvmm_report_result(report)->status, "vm_error");
    assert_int_equal(bvmm_report_result(report)->error_kind, BVMM_ERROR_SANDBOX);
    assert_int_equal(bvmm_vm_run(vm, &report, &error), -EBUSY);
    assert_int_equal(bvmm_vm_failure_report(vm, &error, &report, &error), -EINVAL);
    bvmm_report_free(report);
    bvmm_vm_free(vm);
}

static void refused_sandbox(void **state)
{
    int status = 0;
    pid_t pid = 0;

    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: a user may always make a user namespace, or this host has none\n");
        skip();
    }
    fflush(NULL);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        start_without_privilege();
        _exit(0); /* a failed assertion ends the child by longjmp or exit(): both are not 0 here */
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- The bundled kernel ---------------------------------------------------------------------- */

static void bundled_kernel(void **state)
{
    const struct stock before = take_stock();
    const uint8_t *kernel = NULL;
    struct bvmm_error error;
    struct stat status;
    size_t bytes = 0;

    (void)state;
    assert_int_equal(bvmm_kernel_bytes(&kernel, &bytes, &error), 0);
    assert_non_null(kernel);
    assert_int_equal(bvmm_write_kernel_to_file("copy", &error), 0);
    assert_int_equal(stat("copy", &status), 0);
    assert_int_equal(status.st_size, bytes);
    unlink("copy");
    bvmm_kernel_release(kernel, bytes);
    bvmm_kernel_release(NULL, 0);
    assert_true(bvmm_write_kernel_to_file("no/such/dir/copy", &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_IO);
    assert_non_null(strstr(error.message, "no/such/dir/copy"));
    assert_true(bvmm_write_kernel_to_file("empty", &error) < 0); /* a directory */
    assert_int_equal(error.kind, BVMM_ERROR_IO);
    assert_nothing_left(&before);
}

static void no_bundled_kernel(void **state)
{
    const struct stock before = take_stock();
    const uint8_t *kernel = NULL;
    struct bvmm_error error;
    size_t bytes = 0;

    (void)state;
    if (embedded_file(EMBEDDED_KERNEL).data != NULL) {
        print_message(
            "skipped: this build has a kernel in the executable and looks nowhere else\n");
        skip();
    }
    assert_int_equal(setenv("BVMM_KERNEL_DIR", "empty", 1), 0);
    assert_true(bvmm_kernel_bytes(&kernel, &bytes, &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_KERNEL_LOAD);
    assert_null(kernel);
    assert_int_equal(bytes, 0);
    assert_true(bvmm_write_kernel_to_file("copy", &error) < 0);
    assert_int_equal(error.kind, BVMM_ERROR_KERNEL_LOAD);
    assert_int_equal(setenv("BVMM_KERNEL_DIR", "kernel", 1), 0);
    assert_nothing_left(&before);
}

/* ---- Runs ------------------------------------------------------------------------------------ */

/* Nothing came, which is not the same as nothing known, or 0. */
static void assert_no_results(const struct bvmm_report *report)
{
    const struct bvmm_content *content = bvmm_report_content(report, BVMM_STDERR);
    const struct bvmm_timings *timings = bvmm_report_timings(report);

    assert_ptr_not_equal(content, bvmm_report_content(report, BVMM_STDOUT));
    assert_non_null(content->data);
    assert_int_equal(content->bytes, 0);
    assert_false(content->has_announced_bytes);
    assert_int_equal(content->truncated, BVMM_UNKNOWN);
    assert_int_equal(content->digest_ok, BVMM_UNKNOWN);
    assert_int_equal(content->state, BVMM_STREAM_EMPTY);
    assert_int_equal(content->via, BVMM_WAY_NONE);
    assert_int_equal(bvmm_report_output_file_count(report), 0);
    assert_null(bvmm_report_output_file(report, 0));
    assert_int_equal(bvmm_report_missing_file_count(report), 0);
    assert_null(bvmm_report_missing_file(report, 0));
    assert_non_null(bvmm_report_console(report)->text);
    if (!kvm_works) { /* else the guest's kernel may have come to its first words */
        assert_string_equal(bvmm_report_console(report)->text, "");
    }
    assert_true(timings->total.known);
    assert_true(timings->total.ns > 0);
    assert_false(timings->command_guest.known);
}

/* What a run of a kernel that is none, or on a host without hardware, ends with. */
static void assert_result(const struct bvmm_report *report)
{
    const struct bvmm_result *result = bvmm_report_result(report);

    if (!kvm_works) {
        assert_string_equal(result->status, "vm_error");
        assert_int_equal(result->error_kind, BVMM_ERROR_KVM);
    } else {
        assert_string_not_equal(result->status, "completed");
    }
    assert_true(result->error_message[0] != '\0');
    assert_false(result->has_exit_code);
    assert_false(result->has_command_guest_ns);
    assert_no_results(report);
}

static void run_gives_a_report(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_vm *vm = good_vm();
    struct bvmm_report *report = NULL;
    struct bvmm_report *second = NULL;
    struct bvmm_error error;
    size_t bytes = 1;
    const char *json = NULL;
    json_t *root = NULL;

    (void)state;
    assert_int_equal(bvmm_vm_run(vm, &report, &error), 0);
    assert_result(report);
    assert_int_equal(bvmm_vm_run(vm, &second, &error), -EBUSY);
    assert_int_equal(error.kind, BVMM_ERROR_JOB);
    assert_null(second);
    bvmm_vm_free(vm); /* the report does not need it */
    assert_non_null(bvmm_report_stream(report, BVMM_STDOUT, &bytes));
    assert_int_equal(bytes, 0);
    assert_null(bvmm_report_path(report));
    json = bvmm_report_json(report, &bytes);
    assert_int_equal(strlen(json), bytes);
    assert_ptr_equal(bvmm_report_json(report, NULL), json);
    root = json_loads(json, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(root, "status")),
                        bvmm_report_result(report)->status);
    json_decref(root);
    bvmm_report_free(report);
    assert_nothing_left(&before);
}

static void report_goes_to_its_file(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_config *config = good_config();
    struct bvmm_report *report = NULL;
    struct bvmm_error error;
    enum bvmm_place place = BVMM_PLACE_NOWHERE;
    json_t *in_file = NULL;
    json_t *in_memory = NULL;

    (void)state;
    assert_int_equal(bvmm_config_set_string(config, "report_path", "empty/report", &error), 0);
    assert_int_equal(bvmm_run(config, &report, &error), 0);
    bvmm_config_free(config);
    assert_int_equal(access("empty/report", F_OK), -1); /* only when it is asked for */
    assert_int_equal(bvmm_report_write(report, &place, &error), 0);
    assert_int_equal(place, BVMM_PLACE_FILE);
    assert_int_equal(bvmm_report_write(report, NULL, &error), 0); /* replaces it */
    assert_non_null(strstr(bvmm_report_path(report), "empty/report"));
    in_file = json_load_file("empty/report", 0, NULL);
    in_memory = json_loads(bvmm_report_json(report, NULL), 0, NULL);
    assert_true(json_equal(in_file, in_memory));
    json_decref(in_file);
    json_decref(in_memory);
    unlink("empty/report");
    assert_int_equal(count_entries("empty"), 2);
    bvmm_report_free(report);
    assert_nothing_left(&before);
}

static void *run_some(void *arg)
{
    const unsigned *times = arg;

    for (unsigned i = 0; i < *times; i++) {
        struct bvmm_vm *vm = good_vm();
        struct bvmm_report *report = NULL;
        struct bvmm_error error;

        if (bvmm_vm_run(vm, &report, &error) < 0) {
            return strdup(error.message);
        }
        if (!kvm_works && bvmm_report_result(report)->error_kind != BVMM_ERROR_KVM) {
            return strdup(bvmm_report_result(report)->error_message);
        }
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    return NULL;
}

static void two_vms_at_once(void **state)
{
    const struct stock before = take_stock();
    unsigned times = rounds(10);
    pthread_t threads[2];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, run_some, &times), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++) {
        void *message = NULL;

        assert_int_equal(pthread_join(threads[i], &message), 0);
        if (message != NULL) {
            fail_msg("thread %zu: %s", i, (char *)message);
        }
    }
    assert_nothing_left(&before);
}

/* ---- A VM process in trouble ----------------------------------------------------------------- */

/* A thread that waits for the VM process of the main thread, and sends it a signal while it starts.
 */
struct hunter {
    pid_t launcher_thread;
    int signal;
    struct ghost *ghost; /* NULL: none is to haunt the VM process's namespace */
    unsigned delay_us;   /* after it was seen */
    bool give_up;        /* atomic; the run is over */
    bool hit;            /* atomic; it got the signal */
    bool may_vanish;     /* nobody keeps the dead for their parent: SIGCHLD is ignored */
};

static bool is_vm_process(pid_t pid)
{
    char path[64];
    char name[32] = "";
    FILE *file = NULL;

    snprintf(path, sizeof(path), "/proc/%d/comm", pid);
    file = fopen(path, "re");
    if (file != NULL) {
        (void)!fgets(name, sizeof(name), file);
        fclose(file);
    }
    return strcmp(name, "supervisor\n") == 0;
}

static pid_t find_vm_process(pid_t launcher_thread)
{
    char path[64];
    FILE *file = NULL;
    pid_t found = 0;
    int pid = 0;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", launcher_thread);
    file = fopen(path, "re");
    if (file == NULL) {
        return 0;
    }
    while (found == 0 && fscanf(file, "%d", &pid) == 1) {
        found = is_vm_process(pid) ? pid : 0;
    }
    fclose(file);
    return found;
}

/*
 * A process in another's process namespace, dead or alive: the kernel does not let the first process of
 * a namespace die before all others in it have been waited for. So the VM process outlives a SIGKILL.
 */
struct ghost {
    pid_t keeper; /* its parent, ours, which waits for it some time after its word */
    int word_fd;  /* is closed: the word */
    int code;     /* atomic; 0, or the errno that says why there is none */
};

#define GHOST_STAYS_MS 300

static _Noreturn void keep_ghost(int namespace_fd, int word_fd, int ready_fd)
{
    int code = setns(namespace_fd, CLONE_NEWPID) < 0 ? errno : 0;
    const pid_t pid = code == 0 ? fork() : -1;
    char byte = 0;

    if (pid == 0) {
        for (;;) {
            pause();
        }
    }
    code = code == 0 && pid < 0 ? errno : code;
    (void)!write(ready_fd, &code, sizeof(code));
    (void)!read(word_fd, &byte, 1);
    usleep(GHOST_STAYS_MS * 1000);
    if (pid > 0) {
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
    }
    _exit(0);
}

/* The VM process is stopped. */
static void raise_ghost(struct ghost *ghost, pid_t pid)
{
    char path[64];
    int word[2];
    int ready[2];
    int namespace_fd = -1;
    int code = EIO;

    snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
    namespace_fd = open(path, O_RDONLY | O_CLOEXEC);
    if (namespace_fd < 0 || pipe2(word, O_CLOEXEC) < 0 || pipe2(ready, O_CLOEXEC) < 0) {
        __atomic_store_n(&ghost->code, errno, __ATOMIC_RELAXED);
        return;
    }
    ghost->keeper = fork();
    if (ghost->keeper == 0) {
        close(word[1]);
        keep_ghost(namespace_fd, word[0], ready[1]);
    }
    ghost->word_fd = word[1];
    (void)!read(ready[0], &code, sizeof(code));
    __atomic_store_n(&ghost->code, code, __ATOMIC_RELAXED);
    close(namespace_fd);
    close(word[0]);
    close(ready[0]);
    close(ready[1]);
}

static void lay_ghost(struct ghost *ghost)
{
    if (ghost->word_fd >= 0) {
        close(ghost->word_fd);
        ghost->word_fd = -1;
    }
}

static void *hunt(void *arg)
{
    struct hunter *hunter = arg;

    while (!__atomic_load_n(&hunter->give_up, __ATOMIC_RELAXED)) {
        const pid_t pid = find_vm_process(hunter->launcher_thread);

        if (pid != 0) {
            if (hunter->delay_us > 0) {
                usleep(hunter->delay_us);
            }
            /* Reaped at once by the main thread, its number could be another's; not in this short
             * time. */
            const bool hit = kill(pid, hunter->signal) == 0;

            if (hit && hunter->ghost != NULL) {
                raise_ghost(hunter->ghost, pid);
            }
            __atomic_store_n(&hunter->hit, hit, __ATOMIC_RELEASE);
            break;
        }
    }
    return NULL;
}

struct patience {
    struct bvmm_vm *vm;
    const struct hunter *hunter;
    unsigned calls;
    uint64_t last_ns;
    bool lost;
    int cancel_signal;
};

static void lose_patience(void *context, const struct bvmm_progress *progress)
{
    struct patience *patience = context;

    assert_true(progress->phase[0] != '\0');
    assert_int_equal(progress->timeout_secs, TIMEOUT_SECS);
    assert_true(progress->elapsed_ns >= patience->last_ns);
    patience->last_ns = progress->elapsed_ns;
    patience->calls++;
    if (patience->calls >= 3 && !patience->lost &&
        __atomic_load_n(&patience->hunter->hit, __ATOMIC_ACQUIRE)) {
        patience->lost = true;
        bvmm_vm_cancel_by(patience->vm, patience->cancel_signal);
        bvmm_vm_cancel_by(patience->vm, SIGHUP); /* the first one is the reason */
    }
}

/* Run with a hunter. Return: the report; NULL if the VM process vanished before anybody could hold on to it. */
static struct bvmm_report *run_hunted(struct bvmm_vm *vm, struct hunter *hunter)
{
    struct bvmm_report *report = NULL;
    struct bvmm_error error;
    pthread_t thread;
    int code = 0;

    hunter->launcher_thread = gettid();
    assert_int_equal(pthread_create(&thread, NULL, hunt, hunter), 0);
    code = bvmm_vm_run(vm, &report, &error);
    __atomic_store_n(&hunter->give_up, true, __ATOMIC_RELAXED);
    assert_int_equal(pthread_join(thread, NULL), 0);
    if (code != -ESRCH || !hunter->may_vanish) {
        assert_int_equal(code, 0);
    }
    return report;
}

#define HUNTS_MAX 100
#define HITS_ENOUGH 20

/* Chance was against a test: it is left out. But if so many VM processes were hit, that is no chance. */
static void never_seen(unsigned hits)
{
    if (hits >= HITS_ENOUGH) {
        fail_msg("%u VM processes were hit, and nothing came of it", hits);
    }
    print_message("skipped: only %u VM processes were caught alive, which is chance\n", hits);
    skip();
}

static void cancel_ends_a_vm_that_hangs(void **state)
{
    const struct stock before = take_stock();
    unsigned hits = 0;
    bool seen = false;

    (void)state;
    for (unsigned i = 0; i < HUNTS_MAX && !seen; i++) {
        struct bvmm_vm *vm = good_vm();
        struct hunter hunter = {.signal = SIGSTOP};
        struct patience patience = {.vm = vm, .hunter = &hunter, .cancel_signal = SIGINT};
        struct bvmm_report *report = NULL;

        bvmm_vm_set_progress(vm, lose_patience, &patience, 20);
        report = run_hunted(vm, &hunter);
        hits += hunter.hit;
        if (strcmp(bvmm_report_result(report)->status, "cancelled") == 0) {
            seen = true;
            assert_true(patience.calls >= 3);
            assert_true(patience.last_ns >= 3 * 10 * NS_PER_MS);
            assert_non_null(strstr(bvmm_report_json(report, NULL), "\"name\": \"SIGINT\""));
        } else { /* it was done before */
            assert_string_not_equal(bvmm_report_result(report)->status, "timeout");
            assert_result(report);
        }
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    assert_nothing_left(&before);
    if (!seen) {
        never_seen(hits);
    }
}

/* A program that ignores SIGCHLD must not, says bvmm.h; then nobody else's process is killed for it. */
static void ignored_sigchld_is_told(void **state)
{
    const struct stock before = take_stock();
    struct bvmm_report *report = NULL;
    unsigned hits = 0;
    bool seen = false;

    (void)state;
    signal(SIGCHLD, SIG_IGN);
    for (unsigned i = 0; i < HUNTS_MAX && !seen; i++) {
        struct bvmm_vm *vm = good_vm();
        struct hunter hunter = {.signal = SIGKILL, .may_vanish = true};

        report = run_hunted(vm, &hunter);
        hits += hunter.hit;
        seen =
            report != NULL && strstr(bvmm_report_result(report)->error_message, "SIGCHLD") != NULL;
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    signal(SIGCHLD, SIG_DFL);
    assert_nothing_left(&before);
    if (!seen) {
        never_seen(hits);
    }
}

/* Return: true if it was a run as it was to be: the VM process hung, was killed, and did not die. */
static bool haunted_run(struct ghost *ghost, unsigned *hits)
{
    struct bvmm_vm *vm = good_vm();
    struct hunter hunter = {.signal = SIGSTOP, .ghost = ghost};
    struct patience patience = {.vm = vm, .hunter = &hunter, .cancel_signal = SIGINT};
    struct bvmm_report *report = NULL;
    uint64_t start_ns = 0;
    bool haunted = false;

    bvmm_vm_set_progress(vm, lose_patience, &patience, 20);
    report = run_hunted(vm, &hunter);
    *hits += hunter.hit && ghost->code == 0 ? 1 : 0;
    haunted = hunter.hit && ghost->code == 0 &&
              strcmp(bvmm_report_result(report)->status, "cancelled") == 0;
    bvmm_report_free(report);
    start_ns = clock_monotonic_ns();
    if (haunted) {
        assert_int_not_equal(find_vm_process(gettid()), 0); /* the report did not wait for it */
        /* Nor did the launcher spin: it looks each 20 ms. */
        assert_true(patience.calls < 100 + patience.last_ns / (10 * NS_PER_MS));
    }
    lay_ghost(ghost);
    bvmm_vm_free(vm);
    if (haunted) {
        assert_true(clock_monotonic_ns() - start_ns >= GHOST_STAYS_MS * NS_PER_MS);
        assert_int_equal(find_vm_process(gettid()), 0);
    }
    if (ghost->keeper > 0) {
        assert_int_equal(waitpid(ghost->keeper, NULL, 0), ghost->keeper);
    }
    return haunted;
}

static void vm_process_that_outlives_its_kill_is_no_zombie(void **state)
{
    const struct stock before = take_stock();
    unsigned hits = 0;
    bool seen = false;

    (void)state;
    if (geteuid() != 0) {
        print_message("skipped: only root may enter the VM process's namespace\n");
        skip();
    }
    for (unsigned i = 0; i < HUNTS_MAX && !seen; i++) {
        struct ghost ghost = {.word_fd = -1};

        seen = haunted_run(&ghost, &hits);
        /* ENOENT, ESRCH, ENOMEM: it was ending by itself. */
        if (ghost.code != 0 && ghost.code != ENOENT && ghost.code != ESRCH &&
            ghost.code != ENOMEM) {
            fail_msg("cannot enter the VM process's namespace: %s", strerror(ghost.code));
        }
    }
    assert_nothing_left(&before);
    if (!seen) {
        never_seen(hits);
    }
}

static void killed_vm_processes_have_reports(void **state)
{
    const struct stock before = take_stock();
    const unsigned wanted = rounds(60);
    unsigned tries = 0;
    unsigned hits = 0;
    unsigned killed = 0;
    unsigned seed = 20260101;

    (void)state;
    for (; tries < wanted || (killed == 0 && tries < 10 * wanted); tries++) {
        struct bvmm_vm *vm = good_vm();
        struct hunter hunter = {.signal = SIGKILL};
        struct bvmm_report *report = NULL;
        const struct bvmm_result *result = NULL;

        seed = seed * 1103515245 + 12345;
        hunter.delay_us = seed % 4 == 0 ? 0 : (seed >> 16) % 2000;
        report = run_hunted(vm, &hunter);
        result = bvmm_report_result(report);
        hits += hunter.hit;
        if (strcmp(result->status, "vm_killed") == 0) {
            killed++;
            assert_true(hunter.hit);
            assert_int_equal(result->error_kind, BVMM_ERROR_DEVICE);
            assert_non_null(strstr(result->error_message, "signal 9"));
        } else {
            assert_result(report); /* it was done before */
        }
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    print_message("%u of %u were killed in time\n", killed, tries);
    assert_nothing_left(&before);
    if (killed == 0) {
        never_seen(hits);
    }
}

/* ---- Cancelling ------------------------------------------------------------------------------ */

static void assert_cancelled_or_done(const struct bvmm_report *report)
{
    if (strcmp(bvmm_report_result(report)->status, "cancelled") != 0) {
        assert_result(report);
    }
}

static void cancel_before_the_run(void **state)
{
    const struct stock before = take_stock();
    const uint64_t start_ns = clock_monotonic_ns();
    struct bvmm_vm *vm = good_vm();
    struct bvmm_report *report = NULL;
    struct bvmm_error error;

    (void)state;
    bvmm_vm_cancel(vm);
    bvmm_vm_cancel(vm);
    assert_int_equal(bvmm_vm_run(vm, &report, &error), 0);
    assert_cancelled_or_done(report);
    assert_true(clock_monotonic_ns() - start_ns < TIMEOUT_SECS / 2 * NS_PER_SECOND);
    bvmm_report_free(report);
    bvmm_vm_free(vm);
    vm = good_vm(); /* cancelled and never run */
    bvmm_vm_cancel(vm);
    bvmm_vm_free(vm);
    assert_nothing_left(&before);
}

static void *cancel_many_times(void *arg)
{
    for (unsigned i = 0; i < 200; i++) {
        bvmm_vm_cancel(arg);
    }
    return NULL;
}

static void cancel_by_another_thread(void **state)
{
    const struct stock before = take_stock();
    const unsigned tries = rounds(20);

    (void)state;
    for (unsigned i = 0; i < tries; i++) {
        struct bvmm_vm *vm = good_vm();
        struct bvmm_report *report = NULL;
        struct bvmm_error error;
        pthread_t thread;

        assert_int_equal(pthread_create(&thread, NULL, cancel_many_times, vm), 0);
        assert_int_equal(bvmm_vm_run(vm, &report, &error), 0);
        assert_int_equal(pthread_join(thread, NULL), 0);
        assert_cancelled_or_done(report);
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    assert_nothing_left(&before);
}

static struct bvmm_vm *volatile alarmed_vm;
static volatile sig_atomic_t alarms;
static volatile suseconds_t alarm_interval_us;

/*
 * Each interval is longer than the one before: on a slow machine a program that is always interrupted
 * after the same short time does not get on (a fork() starts from the beginning each time).
 */
static void next_alarm(void)
{
    const struct itimerval once = {{0, 0}, {0, alarm_interval_us}};

    alarm_interval_us += alarm_interval_us < 200000 ? alarm_interval_us / 64 + 1 : 0;
    (void)setitimer(ITIMER_REAL, &once, NULL);
}

static void on_alarm(int number)
{
    struct bvmm_vm *vm = alarmed_vm;
    const int saved_errno =
        errno; /* as every handler must: it may come between a call and a look */

    alarms++;
    if (vm != NULL) {
        errno = 4711;
        bvmm_vm_cancel_by(vm, number);
        if (errno != 4711) {
            abort();
        }
        next_alarm();
    }
    errno = saved_errno;
}

static void cancel_by_a_signal_handler(void **state)
{
    const struct stock before = take_stock();
    const struct sigaction action = {.sa_handler =
                                         on_alarm}; /* no SA_RESTART: calls are interrupted */
    /* Emulated, a program that is interrupted more often than that does not get on. */
    const suseconds_t first_us = getenv("BVMM_IN_LAB") ? 5000 : 300;
    const struct itimerval never = {{0, 0}, {0, 0}};
    const unsigned tries = rounds(20);

    (void)state;
    assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
    for (unsigned i = 0; i < tries; i++) {
        struct bvmm_vm *vm = good_vm();
        struct bvmm_report *report = NULL;
        struct bvmm_error error;

        alarmed_vm = vm;
        alarm_interval_us = first_us;
        next_alarm();
        if (bvmm_vm_run(vm, &report, &error) < 0) {
            alarmed_vm = NULL;
            setitimer(ITIMER_REAL, &never, NULL);
            fail_msg("a signal broke bvmm_vm_run: %s", error.message);
        }
        alarmed_vm = NULL; /* before: its handler sets the timer again */
        assert_int_equal(setitimer(ITIMER_REAL, &never, NULL), 0);
        assert_cancelled_or_done(report);
        bvmm_report_free(report);
        bvmm_vm_free(vm);
    }
    assert_true(alarms > 0);
    assert_nothing_left(&before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(setters_and_round_trip),
        cmocka_unit_test(failing_setters_change_nothing),
        cmocka_unit_test(bad_texts_are_refused),
        cmocka_unit_test(paths_start_at_the_job_file),
        cmocka_unit_test(check_tells_everything),
        cmocka_unit_test(wrong_configuration),
        cmocka_unit_test(no_memory_for_the_results),
        cmocka_unit_test(no_descriptors),
        cmocka_unit_test(refused_sandbox),
        cmocka_unit_test(bundled_kernel),
        cmocka_unit_test(no_bundled_kernel),
        cmocka_unit_test(run_gives_a_report),
        cmocka_unit_test(report_goes_to_its_file),
        cmocka_unit_test(two_vms_at_once),
        cmocka_unit_test(cancel_ends_a_vm_that_hangs),
        cmocka_unit_test(vm_process_that_outlives_its_kill_is_no_zombie),
        cmocka_unit_test(killed_vm_processes_have_reports),
        cmocka_unit_test(ignored_sigchld_is_told),
        cmocka_unit_test(cancel_before_the_run),
        cmocka_unit_test(cancel_by_another_thread),
        cmocka_unit_test(cancel_by_a_signal_handler),
    };

#ifdef __SANITIZE_THREAD__
    /* Its own thread counts as one of ours, and its report of threads in a child of fork() as a leak. */
    printf("skipped: the thread sanitizer does not follow fork() in a program with threads\n");
    return 77;
#endif
    return cmocka_run_group_tests(tests, make_inputs, remove_inputs);
}
