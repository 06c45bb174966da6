/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * last_words.c: see last_words.h.
 *
 * Thread: main. In the handlers: no heap, no stdio but snprintf() in fileio.c, an own stack.
 */
#include "vmm/last_words.h"

#include "arch_trap.h"
#include "vmm/fileio.h"
#include "vmm/outcome.h"
#include "vmm/report.h"

#include <errno.h>
#include <jansson.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define STACK_BYTES ((size_t)1 << 16)
#define PIECES_MAX 32
#define CALLS_MAX 512
#define CALL_NAME_BYTES 32
#define MESSAGE_BYTES 512 /* longer than any that is made here */

/* What the end tells, and how it stands in the report that is rendered before. */
enum word {
    WORD_MESSAGE,
    WORD_CALL,
    WORD_NUMBER,
    WORD_ARGS,
    WORD_COUNT = WORD_ARGS + 6,
    WORD_NONE
};
_Static_assert(WORD_COUNT - WORD_ARGS == ARCH_SYSCALL_ARGS, "one word for each argument");

#define MARK_NUMBER (-1877777777)
#define MARK_ARG 0xa46a46a0U
static const char *const marks[WORD_COUNT] = {
    [WORD_MESSAGE] = "@last words@", [WORD_CALL] = "\"syscall\": null",
    [WORD_NUMBER] = "-1877777777",   [WORD_ARGS] = "0xa46a46a0",
    [WORD_ARGS + 1] = "0xa46a46a1",  [WORD_ARGS + 2] = "0xa46a46a2",
    [WORD_ARGS + 3] = "0xa46a46a3",  [WORD_ARGS + 4] = "0xa46a46a4",
    [WORD_ARGS + 5] = "0xa46a46a5",
};

/* A rendered report, cut at the marks. */
struct template
{
    char *text;
    size_t bytes;
    size_t count;
    struct {
        const char *text;
        size_t bytes;
        enum word after;
    } pieces[PIECES_MAX];
};

static struct {
    struct template forbidden;
    struct template crash;
    const char *name; /* of the report; NULL: standard output */
    int dir_fd;
    int pidfd; /* -1: the VM process is gone */
    char *out; /* room for either */
    size_t out_bytes;
    char words[WORD_COUNT][MESSAGE_BYTES];
    char calls[CALLS_MAX][CALL_NAME_BYTES]; /* "": no such call */
    uint8_t stack[STACK_BYTES];
    volatile sig_atomic_t silent; /* nothing to say, or it is being said */
} last;

/* ---- Beforehand ------------------------------------------------------------------------------ */

static int cut(struct template *template)
{
    const char *at = template->text;

    template->count = 0;
    while (template->count < PIECES_MAX) {
        const char *next = template->text + template->bytes;
        enum word word = WORD_NONE;

        for (unsigned i = 0; i < WORD_COUNT; i++) {
            const char *found = strstr(at, marks[i]);

            if (found != NULL && found < next) {
                next = found;
                word = (enum word)i;
            }
        }
        template->pieces[template->count].text = at;
        template->pieces[template->count].bytes = (size_t)(next - at);
        template->pieces[template->count].after = word;
        template->count++;
        if (word == WORD_NONE) {
            return 0;
        }
        at = next + strlen(marks[word]);
    }
    return -E2BIG; /* a job full of our marks */
}

/* A record of a run of which nothing is known, but how it ends. */
static void fill_record(struct record *record, const struct record *from, bool forbidden)
{
    memcpy(record->time_ns, from->time_ns, sizeof(record->time_ns));
    record->vcpu_count = from->vcpu_count;
    record->sandbox.layers = 1U << SANDBOX_LAUNCHER_SECCOMP;
    outcome_set(record, forbidden ? RUN_SANDBOX_VIOLATION : RUN_VM_ERROR,
                forbidden ? BVMM_ERROR_SANDBOX : BVMM_ERROR_DEVICE, marks[WORD_MESSAGE]);
    record->actor_count = 1; /* only for the violation: see render() */
    (void)snprintf(record->actors[0].name, sizeof(record->actors[0].name), "launcher");
    if (forbidden) {
        record->violation.seen = 1;
        record->violation.syscall = MARK_NUMBER;
        for (unsigned i = 0; i < ARCH_SYSCALL_ARGS; i++) {
            record->violation.args[i] = MARK_ARG + i;
        }
    }
}

static int add_warning(json_t *report)
{
    return json_array_append_new(
        json_object_get(report, "warnings"),
        json_string(
            "the launcher itself ended early: what the guest had delivered is lost, the layers "
            "of the VM process's sandbox were not asked for, and an empty control group may "
            "be left, which the next bvmm removes"));
}

static int render(const struct launcher_view *view, bool forbidden, struct template *ret_template,
                  struct bvmm_error *err)
{
    const struct record_limits limits = {.console_bytes = 0};
    struct record *record = NULL;
    json_t *report = NULL;
    int code = record_create(&limits, &record, err);

    if (code < 0) {
        return code;
    }
    fill_record(record, view->record, forbidden);
    code = report_render_brief(view->job, record, &report, err);
    record_destroy(record);
    if (code < 0) {
        return code;
    }
    code = json_array_clear(json_object_get(report, "actors")) < 0 || add_warning(report) < 0
               ? -ENOMEM
               : 0;
    ret_template->text = code == 0 ? json_dumps(report, JSON_INDENT(2)) : NULL;
    json_decref(report);
    if (ret_template->text != NULL) {
        ret_template->bytes = strlen(ret_template->text);
        code = cut(ret_template);
    } else {
        code = -ENOMEM;
    }
    return code < 0 ? error_set(err, BVMM_ERROR_MEMORY, code,
                                "cannot keep a report ready for the launcher's own end: %s",
                                error_text(-code))
                    : 0;
}

static void learn_calls(void)
{
    for (int i = 0; i < CALLS_MAX; i++) {
        char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);

        if (name != NULL) {
            (void)snprintf(last.calls[i], CALL_NAME_BYTES, "%s", name);
        }
        free(name);
    }
}

/* ---- In the handlers ------------------------------------------------------------------------- */

struct writer {
    char *at;
    const char *end;
};

static void put(struct writer *writer, const char *text, size_t bytes)
{
    const size_t room = (size_t)(writer->end - writer->at);
    const size_t fits = bytes < room ? bytes : room;

    memcpy(writer->at, text, fits);
    writer->at += fits;
}

static void put_text(struct writer *writer, const char *text)
{
    put(writer, text, strlen(text));
}

static void put_number(struct writer *writer, uint64_t number, unsigned base)
{
    char digits[32];
    char *at = digits + sizeof(digits);

    do {
        *--at = "0123456789abcdef"[number % base];
        number /= base;
    } while (number > 0);
    put(writer, at, (size_t)(digits + sizeof(digits) - at));
}

static struct writer begin(char text[MESSAGE_BYTES])
{
    return (struct writer){.at = text, .end = text + MESSAGE_BYTES - 1};
}

static void put_end(struct writer *writer)
{
    *writer->at = '\0';
}

/* The whole report in last.out. Return: its bytes. */
static size_t fill_in(const struct template *template)
{
    struct writer writer = {.at = last.out, .end = last.out + last.out_bytes};

    for (size_t i = 0; i < template->count; i++) {
        put(&writer, template->pieces[i].text, template->pieces[i].bytes);
        if (template->pieces[i].after < WORD_COUNT) {
            put_text(&writer, last.words[template->pieces[i].after]);
        }
    }
    put_text(&writer, "\n");
    return (size_t)(writer.at - last.out);
}

static void say(const struct template *template)
{
    const char *const message = last.words[WORD_MESSAGE];
    size_t bytes = 0;
    int code = -ENOENT;

    if (last.pidfd >= 0) {
        (void)syscall(SYS_pidfd_send_signal, last.pidfd, SIGKILL, NULL, 0);
    }
    (void)!fileio_write(STDERR_FILENO, "\nbvmm: ", 7);
    (void)!fileio_write(STDERR_FILENO, message, strlen(message));
    (void)!fileio_write(STDERR_FILENO, "\n", 1);
    bytes = fill_in(template);
    if (last.name != NULL) {
        code = fileio_replace_at(last.dir_fd, last.name, last.out, bytes);
    }
    if (code < 0) {
        (void)!fileio_write(STDOUT_FILENO, last.out, bytes);
    }
}

static const char *call_name(int number)
{
    return number >= 0 && number < CALLS_MAX && last.calls[number][0] != '\0' ? last.calls[number]
                                                                              : NULL;
}

static void put_call(const siginfo_t *info, const uint64_t args[ARCH_SYSCALL_ARGS])
{
    const char *name = call_name(info->si_syscall);
    struct writer call = begin(last.words[WORD_CALL]);
    struct writer number = begin(last.words[WORD_NUMBER]);
    struct writer message = begin(last.words[WORD_MESSAGE]);

    put_text(&call, "\"syscall\": ");
    put_text(&call, name != NULL ? "\"" : "null");
    put_text(&call, name != NULL ? name : "");
    put_text(&call, name != NULL ? "\"" : "");
    put_end(&call);
    put_number(&number, (uint32_t)info->si_syscall, 10);
    put_end(&number);
    put_text(&message, "the launcher made the system call ");
    put_text(&message, name != NULL ? name : "unknown");
    put_text(&message, " (");
    put_text(&message, last.words[WORD_NUMBER]);
    for (unsigned i = 0; i < ARCH_SYSCALL_ARGS; i++) {
        struct writer arg = begin(last.words[WORD_ARGS + i]);

        put_text(&arg, "0x");
        put_number(&arg, args[i], 16);
        put_end(&arg);
        put_text(&message, i == 0 ? "; arguments " : ", ");
        put_text(&message, last.words[WORD_ARGS + i]);
    }
    put_text(&message, "), which its sandbox forbids; the call was not executed");
    put_end(&message);
}

void last_words_forbidden(int signal, siginfo_t *info, void *context)
{
    uint64_t args[ARCH_SYSCALL_ARGS];

    (void)signal;
    if (!last.silent) {
        last.silent = 1;
        arch_syscall_args(context, args);
        put_call(info, args);
        say(&last.forbidden);
    }
    arch_make_last_call();
}

static void on_crash(int number, siginfo_t *info, void *context)
{
    struct writer message = begin(last.words[WORD_MESSAGE]);

    (void)context;
    if (!last.silent) {
        last.silent = 1;
        put_text(&message, "the launcher was killed by signal ");
        put_number(&message, (uint64_t)number, 10);
        put_text(&message, "; this is a bug in bvmm");
        put_end(&message);
        say(&last.crash);
    }
    if (info->si_code <= 0) {
        arch_make_last_call(); /* somebody sent it; else the fault is repeated now, and kills */
    }
}

/* ---- Public ---------------------------------------------------------------------------------- */

static int catch_crashes(void)
{
    static const int numbers[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE};
    const stack_t stack = {.ss_sp = last.stack, .ss_size = sizeof(last.stack)};
    const struct sigaction action = {.sa_sigaction = on_crash,
                                     .sa_flags = SA_SIGINFO | SA_ONSTACK | (int)SA_RESETHAND};

    if (sigaltstack(&stack, NULL) < 0) {
        return -errno;
    }
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        if (sigaction(numbers[i], &action, NULL) < 0) {
            return -errno;
        }
    }
    return 0;
}

int last_words_prepare(const struct launcher_view *view, struct bvmm_error *err)
{
    int code = render(view, true, &last.forbidden, err);

    if (code == 0) {
        code = render(view, false, &last.crash, err);
    }
    if (code < 0) {
        return code;
    }
    last.out_bytes = last.forbidden.bytes + (size_t)PIECES_MAX * MESSAGE_BYTES;
    last.out = malloc(last.out_bytes);
    if (last.out == NULL) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
    }
    learn_calls();
    last.name = view->job->report_path != NULL ? fileio_name(view->job->report_path) : NULL;
    last.dir_fd = view->job->report_dir_fd;
    last.pidfd = view->pidfd;
    last.silent = 0;
    code = catch_crashes();
    return code < 0 ? error_set(err, BVMM_ERROR_SANDBOX, code, "cannot catch signals: %s",
                                error_text(-code))
                    : 0;
}

void last_words_vm_gone(void)
{
    last.pidfd = -1;
}

void last_words_done(void)
{
    last.silent = 1;
}
