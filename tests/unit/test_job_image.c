/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_job_image.c: a job's "image": how bvmm-image is found and run, and what is taken from the
 * image. A script of the test's own stands for bvmm-image; tests/images has the real one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/job.h"
#include "vmm/tool.h"

static char dir[] = "/tmp/bvmm-test-image.XXXXXX";

static void put_file(const char *name, const char *text, size_t bytes, mode_t mode)
{
    char path[4096];
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)unlink(path);
    file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fchmod(fileno(file), mode), 0);
    assert_int_equal(fclose(file), 0);
}

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text), 0600);
}

/* What stands for bvmm-image: it notes its arguments, then does what body says. */
static void put_tool(const char *body)
{
    char script[4096];

    (void)snprintf(script, sizeof(script),
                   "#!/bin/sh\ncd '%s' || exit 9\nprintf '%%s\\n' \"$@\" >>arguments\n%s\n", dir,
                   body);
    put_file("tool", script, strlen(script), 0700);
}

static void remove_file(const char *name)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    (void)unlink(path);
}

static void expect_arguments(const char *expected)
{
    char path[4096];
    char text[4096] = "";
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/arguments", dir);
    file = fopen(path, "re");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    (void)fclose(file);
    assert_string_equal(text, expected);
}

static int make_dir(void **state)
{
    char path[4096];

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/tool", dir);
    return setenv("BVMM_IMAGE_TOOL", path, 1);
}

static int remove_dir(void **state)
{
    char command[4096];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command); /* NOLINT(cert-env33-c): our own directory's name */
}

/* ---- Helpers --------------------------------------------------------------------------------- */

#define PRINT_IMAGE "echo \"$PWD/made.squashfs\""

static const char all_said[] =
    "{\"entrypoint\": [\"/bin/server\", \"-x\"], \"cmd\": [\"serve\", \"\"],"
    "\"env\": [\"PATH=/image\", \"A=1\", \"NOVALUE\", \"A=2\", \"=x\", \"EMPTY=\"],"
    "\"workdir\": \"/srv\", \"user\": \"www:www\", \"squashfs\": {\"bytes\": 4096}}";

/* An image as bvmm-image leaves it: config stands beside it; NULL: nothing does. */
static void put_image(const char *config)
{
    char image[4096] = "hsqs";

    image[41] = 16; /* 4096 bytes used */
    image[20] = 1;  /* gzip */
    put_file("made.squashfs", image, sizeof(image), 0600);
    remove_file("made.squashfs.json");
    if (config) {
        put_text("made.squashfs.json", config);
    }
    put_file("saved.tar", "\x1f\x8b", 2, 0600);
    remove_file("arguments");
}

static void load(const char *text, struct job *job)
{
    struct job_problems problems;
    char path[4096];

    put_text("job.json", text);
    (void)snprintf(path, sizeof(path), "%s/job.json", dir);
    if (job_load(path, JOB_LOAD_NO_FILES, job, &problems) < 0) {
        fail_msg("%s: %s", text, problems.items[0].message);
    }
}

static void take(const char *text, struct job *job)
{
    struct job_problems problems = {.count = 0};

    load(text, job);
    if (job_take_image(job, -1, &problems) < 0 || job_open_files(job, &problems) < 0) {
        fail_msg("%s: %s", text, problems.items[0].message);
    }
    assert_int_equal(problems.count, 0);
    assert_true(job->rootfs.fd >= 0);
}

/* The image must be refused with one problem that has these pieces. */
static void expect_refusal(const char *text, const char *what, const char *why)
{
    struct job_problems problems = {.count = 0};
    struct job job;

    load(text, &job);
    assert_int_equal(job_take_image(&job, -1, &problems), -EINVAL);
    assert_int_equal(problems.count, 1);
    if (!strstr(problems.items[0].message, "/job.json: $.image: \"") ||
        !strstr(problems.items[0].message, what) || !strstr(problems.items[0].message, why)) {
        fail_msg("the message lacks \"%s\" or \"%s\": %s", what, why, problems.items[0].message);
    }
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

static void expect_strings(const struct job_strings *strings, const char *const *expected)
{
    size_t count = 0;

    for (; expected[count]; count++) {
        assert_true(count < strings->count);
        assert_string_equal(strings->items[count], expected[count]);
    }
    assert_int_equal(strings->count, count);
    assert_null(strings->items[count]);
}

/* ---- What is taken --------------------------------------------------------------------------- */

static void the_image_says_what_runs(void **state)
{
    static const char *const command[] = {"/bin/server", "-x", "serve", "", NULL};
    static const char *const env[] = {"PATH=/image", "A=2", "EMPTY=", NULL};
    char expected[4096];
    struct job job;
    const int before = count_fds();

    (void)state;
    put_image(all_said);
    put_tool(PRINT_IMAGE);
    take("{\"image\": \"saved.tar\"}", &job);
    expect_strings(&job.command, command);
    expect_strings(&job.env, env);
    assert_string_equal(job.workdir, "/srv");
    assert_string_equal(job.user, "www:www");
    assert_null(job.image_notes);
    assert_int_equal(job.rootfs_type, JOB_FSTYPE_SQUASHFS);
    (void)snprintf(expected, sizeof(expected), "%s/made.squashfs", dir);
    assert_string_equal(job.rootfs.path, expected);
    /* Asked once, by the path that starts at the job's directory. */
    (void)snprintf(expected, sizeof(expected), "cached\n--\n%s/saved.tar\n", dir);
    expect_arguments(expected);
    job_fini(&job);
    assert_int_equal(count_fds(), before);
}

static void the_job_goes_before_the_image(void **state)
{
    static const char *const command[] = {"true", NULL};
    static const char *const env[] = {"A=2", "EMPTY=", "PATH=/job", "B=3", NULL};
    struct job job;

    (void)state;
    put_image(all_said);
    put_tool(PRINT_IMAGE);
    take("{\"image\": \"saved.tar\", \"command\": [\"true\"], \"env\": {\"PATH\": \"/job\", \"B\": "
         "\"3\"}, \"workdir\": \"/w\", \"user\": \"u\"}",
         &job);
    expect_strings(&job.command, command);
    expect_strings(&job.env, env);
    assert_string_equal(job.workdir, "/w");
    assert_string_equal(job.user, "u");
    job_fini(&job);
}

static void an_image_that_says_little(void **state)
{
    static const char *const command[] = {"/run", NULL};
    struct job job;

    (void)state;
    put_image("{\"entrypoint\": [], \"cmd\": [\"/run\"], \"env\": [], \"workdir\": \"\", \"user\": "
              "\"\", \"squashfs\": {\"bytes\": 4096}}");
    put_tool("echo 'bvmm-image: 3 device files left out' >&2; " PRINT_IMAGE);
    take("{\"image\": \"saved.tar\"}", &job);
    expect_strings(&job.command, command);
    assert_int_equal(job.env.count, 0);
    assert_null(job.workdir);
    assert_null(job.user);
    assert_string_equal(job.image_notes, "bvmm-image: 3 device files left out");
    job_fini(&job);
}

/* A squashfs that stands alone is asked for what it has inside. */
static void a_configuration_inside(void **state)
{
    static const char *const command[] = {"/in", NULL};
    char expected[4096];
    struct job job;

    (void)state;
    put_image(NULL);
    put_tool(
        "if [ \"$1\" = info ]; then echo '{\"config\": {\"cmd\": [\"/in\"]}}'; else " PRINT_IMAGE
        "; fi");
    take("{\"image\": \"made.squashfs\"}", &job);
    expect_strings(&job.command, command);
    (void)snprintf(expected, sizeof(expected),
                   "cached\n--\n%s/made.squashfs\ninfo\n--\n%s/made.squashfs\n", dir, dir);
    expect_arguments(expected);
    job_fini(&job);
    put_tool("if [ \"$1\" = info ]; then echo '{\"config\": null}'; else " PRINT_IMAGE "; fi");
    take("{\"image\": \"made.squashfs\", \"command\": [\"true\"]}", &job);
    assert_int_equal(job.command.count, 1);
    job_fini(&job);
    expect_refusal("{\"image\": \"made.squashfs\"}", "names no command of its own", "\"command\"");
}

static void names_with_a_tag_and_odd_names(void **state)
{
    char expected[4096];
    struct job job;

    (void)state;
    put_image(all_said);
    put_tool(PRINT_IMAGE);
    take("{\"image\": \"saved.tar:repository/name:1.0\"}", &job);
    (void)snprintf(expected, sizeof(expected), "cached\n--\n%s/saved.tar:repository/name:1.0\n",
                   dir);
    expect_arguments(expected);
    job_fini(&job);
    remove_file("arguments");
    put_file("$(touch broken) ; 'x\n", "\x28\xb5\x2f\xfd", 4, 0600);
    take("{\"image\": \"$(touch broken) ; 'x\\n\"}", &job);
    (void)snprintf(expected, sizeof(expected), "cached\n--\n%s/$(touch broken) ; 'x\n\n", dir);
    expect_arguments(expected);
    job_fini(&job);
}

/* ---- What is refused ------------------------------------------------------------------------- */

/* A tar archive that is nothing but the header of an empty file "a", with or without ustar's mark. */
static void put_tar(const char *name, const char *mark, int off_by)
{
    char block[512] = "a";
    char digits[16];
    int sum = 0;

    memcpy(block + 257, mark, strlen(mark));
    memset(block + 148, ' ', 8);
    for (size_t i = 0; i < sizeof(block); i++) {
        sum += (unsigned char)block[i];
    }
    (void)snprintf(digits, sizeof(digits), "%06o", (unsigned)(sum + off_by));
    memcpy(block + 148, digits, 7);
    put_file(name, block, sizeof(block), 0600);
}

static void an_archive_is_looked_into_by_the_tool(void **state)
{
    struct job job;

    (void)state;
    put_image(all_said);
    put_tool(PRINT_IMAGE);
    put_tar("new.tar", "ustar", 0);
    put_tar("old.tar", "", 0);
    put_tar("no.tar", "", 1);
    take("{\"image\": \"new.tar\"}", &job);
    job_fini(&job);
    take("{\"image\": \"old.tar:name\"}", &job);
    job_fini(&job);
    expect_refusal("{\"image\": \"no.tar\"}", "is no file of a known kind", "OCI layout");
}

static void what_is_not_there(void **state)
{
    struct job_problems problems = {.count = 0};
    struct job job;

    (void)state;
    put_image(all_said);
    put_tool(PRINT_IMAGE);
    expect_refusal("{\"image\": \"none.tar\"}", "/none.tar\": no such file", "OCI layout");
    expect_refusal("{\"image\": \"none:tag\"}", "/none:tag\": no such file", "OCI layout");
    put_text("letter", "Dear bvmm,\nplease run this.\n");
    put_text("empty", "");
    expect_refusal("{\"image\": \"letter\"}", "/letter\": is no file of a known kind",
                   "OCI layout");
    expect_refusal("{\"image\": \"letter:tag\"}", "is no file of a known kind", "OCI layout");
    expect_refusal("{\"image\": \"empty\"}", "is empty", "OCI layout");
    expect_refusal("{\"image\": \"/dev/null\"}", "neither a file nor a directory", "OCI layout");
    /* bvmm validate: looks at it, and asks nobody. */
    load("{\"image\": \"letter\"}", &job);
    assert_int_equal(job_open_files(&job, &problems), -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "$.image: "));
    job_fini(&job);
    problems.count = 0;
    load("{\"image\": \"none.tar\"}", &job);
    assert_int_equal(job_open_files(&job, &problems), -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "no such file"));
    job_fini(&job);
    problems.count = 0;
    load("{\"image\": \"saved.tar\"}", &job);
    assert_int_equal(job_open_files(&job, &problems), 0);
    assert_int_equal(job.rootfs.fd, -1);
    job_fini(&job);
    assert_int_equal(access(dir, F_OK), 0);
    {
        char path[4096];

        (void)snprintf(path, sizeof(path), "%s/arguments", dir);
        assert_int_equal(access(path, F_OK), -1); /* never called */
    }
}

static void a_tool_that_is_missing(void **state)
{
    char path[4096];
    char kept[4096];

    (void)state;
    put_image(all_said);
    remove_file("tool");
    expect_refusal("{\"image\": \"saved.tar\"}", "BVMM_IMAGE_TOOL names no program", "/tool");
    /* Nobody names it: the message says where it was looked for. */
    (void)snprintf(kept, sizeof(kept), "%s", getenv("PATH"));
    assert_int_equal(unsetenv("BVMM_IMAGE_TOOL"), 0);
    assert_int_equal(setenv("PATH", "/nowhere:relative:", 1), 0);
    expect_refusal("{\"image\": \"saved.tar\"}", "bvmm-image is needed", "PATH");
    /* In PATH it is found. */
    put_tool(PRINT_IMAGE);
    (void)snprintf(path, sizeof(path), "%s/tool", dir);
    {
        char name[4096];
        char list[4200];
        struct job job;

        (void)snprintf(name, sizeof(name), "%s/bvmm-image", dir);
        assert_int_equal(rename(path, name), 0);
        (void)snprintf(list, sizeof(list), "/nowhere:%s:%s", dir, kept);
        assert_int_equal(setenv("PATH", list, 1), 0);
        take("{\"image\": \"saved.tar\"}", &job);
        job_fini(&job);
    }
    assert_int_equal(setenv("PATH", kept, 1), 0);
    assert_int_equal(setenv("BVMM_IMAGE_TOOL", path, 1), 0);
}

static void a_tool_that_fails(void **state)
{
    (void)state;
    put_image(all_said);
    put_tool(
        "echo 'unused'; echo first >&2; echo 'bvmm-image: saved.tar: not an image' >&2; exit 1");
    expect_refusal("{\"image\": \"saved.tar\"}", "bvmm-image failed with status 1",
                   "first; bvmm-image: saved.tar: not an image");
    put_tool("kill -9 $$");
    expect_refusal("{\"image\": \"saved.tar\"}", "was ended by signal 9", "");
    put_tool("exit 0");
    expect_refusal("{\"image\": \"saved.tar\"}", "did not print the absolute path", "");
    put_tool("echo relative.squashfs");
    expect_refusal("{\"image\": \"saved.tar\"}", "did not print the absolute path", "relative");
    put_tool("exec head -c 9000000 /dev/zero");
    expect_refusal("{\"image\": \"saved.tar\"}", "cannot run bvmm-image (File too large)", "");
    /* Much on standard error is no reason to wait for ever; its end is what counts. */
    put_tool("i=0; while [ $i -lt 5000 ]; do echo 'a line of some length' >&2; i=$((i + 1)); done; "
             "echo 'the last word' >&2; exit 3");
    expect_refusal("{\"image\": \"saved.tar\"}", "failed with status 3", "the last word");
    put_file("tool", "#!/no/such/interpreter\n", 23, 0700);
    expect_refusal("{\"image\": \"saved.tar\"}", "cannot run bvmm-image", "/tool");
}

static void what_an_image_may_not_say(void **state)
{
    (void)state;
    put_tool(PRINT_IMAGE);
    put_image("{\"cmd\": [\"a\"], \"user\": \"a b\", \"squashfs\": {\"bytes\": 4096}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "cannot be used; say it in the job: $.user is",
                   "\"a b\"");
    put_image("{\"cmd\": [\"a\"], \"workdir\": \"here\", \"squashfs\": {\"bytes\": 4096}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "$.workdir", "\"here\"");
    put_image("{\"cmd\": [\"a\", 1], \"squashfs\": {\"bytes\": 4096}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "configuration is damaged", "cmd");
    put_image("{\"cmd\": [\"a\"], \"env\": \"A=b\", \"squashfs\": {\"bytes\": 4096}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "configuration is damaged", "env");
    put_image("{\"cmd\": [\"a\"], \"squashfs\": {\"bytes\": 4097}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "belongs to another image", "made.squashfs.json");
    put_image("{");
    expect_refusal("{\"image\": \"saved.tar\"}", "cannot be read", "");
    put_image("{\"squashfs\": {\"bytes\": 4096}}");
    expect_refusal("{\"image\": \"saved.tar\"}", "names no command of its own", "");
}

static void what_is_made_is_looked_at(void **state)
{
    struct job_problems problems = {.count = 0};
    struct job job;

    (void)state;
    put_image(NULL);
    put_text("made.squashfs", "no image");
    put_text("made.squashfs.json", "{\"cmd\": [\"a\"], \"squashfs\": {\"bytes\": 8}}");
    put_tool(PRINT_IMAGE);
    load("{\"image\": \"saved.tar\"}", &job);
    assert_int_equal(job_take_image(&job, -1, &problems), 0);
    assert_int_equal(job_open_files(&job, &problems), -EINVAL);
    assert_non_null(strstr(problems.items[0].message, "$.image: "));
    assert_non_null(strstr(problems.items[0].message, "expected a squashfs"));
    job_fini(&job);
}

/* ---- How it runs ----------------------------------------------------------------------------- */

/* No descriptor of ours, no blocked signal, empty input. */
static void the_tool_gets_a_clean_start(void **state)
{
    struct tool_result result;
    char path[4096];
    char *argv[] = {(char *)(uintptr_t) "tool", NULL};
    const int stray = open("/dev/null", O_RDONLY); /* NOLINT(android-cloexec-open): the point */
    sigset_t all;
    sigset_t old;

    (void)state;
    put_tool("ls /proc/self/fd | wc -l; cat; sed -n 's/^SigBlk:\\t//p' /proc/self/status");
    (void)snprintf(path, sizeof(path), "%s/tool", dir);
    (void)sigfillset(&all);
    assert_int_equal(sigprocmask(SIG_SETMASK, &all, &old), 0);
    assert_int_equal(tool_run(path, argv, -1, &result), 0);
    assert_int_equal(sigprocmask(SIG_SETMASK, &old, NULL), 0);
    assert_int_equal(result.exit_code, 0);
    assert_string_equal(result.output, "4\n0000000000000000\n"); /* three, and ls's own */
    tool_result_fini(&result);
    assert_int_equal(close(stray), 0);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_image_says_what_runs),
        cmocka_unit_test(the_job_goes_before_the_image),
        cmocka_unit_test(an_image_that_says_little),
        cmocka_unit_test(a_configuration_inside),
        cmocka_unit_test(names_with_a_tag_and_odd_names),
        cmocka_unit_test(an_archive_is_looked_into_by_the_tool),
        cmocka_unit_test(what_is_not_there),
        cmocka_unit_test(a_tool_that_is_missing),
        cmocka_unit_test(a_tool_that_fails),
        cmocka_unit_test(what_an_image_may_not_say),
        cmocka_unit_test(what_is_made_is_looked_at),
        cmocka_unit_test(the_tool_gets_a_clean_start),
    };

    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
