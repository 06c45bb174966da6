/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * fault.c: a library to be preloaded into bvmm, which goes wrong at a given place, as if bvmm had been
 * taken over or had a bug there.
 *
 * BVMM_FAULT_AT: vm (the supervisor, in its sandbox), waiting or writing (the launcher, in its filters); or the
 * name of a thread of the VM process, which goes wrong at the first call of its loop in its filter.
 * BVMM_FAULT: how; see faults[]. Or a system call: call:NUMBER,ARGUMENT,...; an argument is a number, or own+N:
 * N more than the descriptor that the thread was about to use.
 * BVMM_FAULT_VICTIM: a file that the launcher removes while it writes the report.
 * BVMM_FAULT_RUN: an errno: KVM_RUN fails with it, and the program has set its locale from the environment.
 */
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <linux/kvm.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/record.h"

static volatile char *page_behind_a_file; /* made before there is a sandbox */

static void segv(void)
{
    *(volatile char *)(uintptr_t)8 = 1;
}

static void bus(void)
{
    page_behind_a_file[0] = 1;
}

/* Not by a loop that a compiler could make of it. */
static unsigned overflow(volatile unsigned depth) /* NOLINT(misc-no-recursion): its purpose */
{
    volatile char frame[4096];

    frame[0] = (char)depth;
    return overflow(depth + 1) + (unsigned char)frame[0];
}

static void stack(void)
{
    (void)overflow(0);
}

static void trap(void)
{
#if defined(__aarch64__)
    __asm__ volatile("udf #0"); /* __builtin_trap() would be a breakpoint */
#else
    __builtin_trap();
#endif
}

static void socket_call(void)
{
    (void)syscall(SYS_socket, 2, 1, 0);
}

static void exec_call(void)
{
    (void)syscall(SYS_execve, 0, 0, 0);
}

static void unknown_call(void)
{
    (void)syscall(5000, 1, 2, 3);
}

static void killed(void)
{
    for (;;) { /* by the test */
    }
}

/* ---- A VM process that was taken over lies ---------------------------------------------------- */

/* The run record, found by the calls that make it. */
static struct record *record;
static int record_fd = -1;

int memfd_create(const char *name, unsigned flags)
{
    const int fd = (int)syscall(SYS_memfd_create, name, flags);

    if (strcmp(name, "bvmm-record") == 0) {
        record_fd = fd;
    }
    return fd;
}

void *mmap(void *address, size_t bytes, int protection, int flags, int fd, off_t offset)
{
    void *memory = (void *)syscall(SYS_mmap, address, bytes, protection, flags, fd, offset);

    if (record == NULL && fd >= 0 && fd == record_fd && memory != MAP_FAILED) {
        record = memory;
    }
    return memory;
}

/* It has been running since a time that is far away, so that its deadline never comes. */
static void far(void)
{
    record->time_ns[TIME_SETUP_DONE] = (uint64_t)1 << 62;
    killed();
}

/* It has always been running since just now. */
static void moving(void)
{
    for (;;) {
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        record->time_ns[TIME_SETUP_DONE] = (uint64_t)now.tv_sec * NS_PER_SECOND;
    }
}

/* It was never set up, and stopped at the end of time. */
static void unsaid(void)
{
    struct timespec time = {.tv_sec = 1}; /* until the launcher has looked */

    (void)ppoll(NULL, 0, &time, NULL);
    record->time_ns[TIME_STOP_DECIDED] = UINT64_MAX;
    record->time_ns[TIME_SETUP_DONE] = 0;
    killed();
}

/* ---- A VM process that was taken over wants to survive a forbidden call ----------------------- */

/* What can be written of the program's own variables, and where its code is. */
static struct {
    char *data;
    char *data_end;
    char *code;
    char *code_end;
    char *constant; /* relocated, then read-only */
    char *constant_end;
} program;

static int learn_program(struct dl_phdr_info *info, size_t bytes, void *context)
{
    for (unsigned i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        char *begin = (char *)info->dlpi_addr + part->p_vaddr;

        if (part->p_type == PT_LOAD && (part->p_flags & PF_W) != 0) {
            program.data = begin;
            program.data_end = begin + part->p_memsz;
        } else if (part->p_type == PT_LOAD && (part->p_flags & PF_X) != 0) {
            program.code = begin;
            program.code_end = begin + part->p_memsz;
        } else if (part->p_type == PT_GNU_RELRO) {
            program.constant = begin;
            program.constant_end = begin + part->p_memsz;
        }
    }
    return 1; /* the first is the program */
}

static void *way_back[5];

static void come_back(void)
{
    __builtin_longjmp(way_back, 1);
}

/* Every pointer to code among the program's variables leads here, and then a call that is forbidden. */
static void survive(void)
{
    for (char *at = program.data; at + sizeof(char *) <= program.data_end; at += sizeof(char *)) {
        char **word = (char **)at;

        if (at >= program.constant && at < program.constant_end) {
            continue;
        }
        if (*word >= program.code && *word < program.code_end) {
            *word = (char *)(uintptr_t)come_back;
        }
    }
    if (__builtin_setjmp(way_back) == 0) {
        socket_call();
    }
    record->outcome.status = RUN_VM_ERROR;
    record->outcome.error_kind = BVMM_ERROR_DEVICE;
    (void)snprintf(record->outcome.error_message, sizeof(record->outcome.error_message),
                   "survived");
    _exit(0);
}

/* The guest has panicked, says the record; and then the process dies of something else. */
static void say_panic(void)
{
    static const char text[] = "Kernel panic - not syncing: boo\n";

    memcpy((char *)record + record->console.offset_bytes, text, sizeof(text) - 1);
    record->console.total_bytes = sizeof(text) - 1;
    record->outcome.status = RUN_GUEST_RESET;
    record->outcome.console_decides = 1;
}

static void panic_socket(void)
{
    say_panic();
    socket_call();
}

static void panic_segv(void)
{
    say_panic();
    segv();
}

/* All layers stand, and nothing was refused. */
static void layers(void)
{
    record->sandbox.layers = UINT32_MAX;
    record->sandbox.refused[0] = '\0';
}

/* None stands, and the text has no end. */
static void no_layers(void)
{
    record->sandbox.layers = 0;
    memset(record->sandbox.refused, 'x', sizeof(record->sandbox.refused));
}

static const struct {
    const char *name;
    void (*happen)(void);
} faults[] = {
    {"segv", segv},
    {"bus", bus},
    {"stack", stack},
    {"trap", trap},
    {"socket", socket_call},
    {"execve", exec_call},
    {"unknown", unknown_call},
    {"hang", killed},
    {"far", far},
    {"moving", moving},
    {"unsaid", unsaid},
    {"survive", survive},
    {"layers", layers},
    {"no_layers", no_layers},
    {"panic_socket", panic_socket},
    {"panic_segv", panic_segv},
};

/* From the environment, while there is one. */
static char at[16];
static char how[160];
static int run_errno;
static char victim[160];

static void take(const char *name, char *value, size_t bytes)
{
    const char *given = getenv(name);

    if (given != NULL) {
        (void)snprintf(value, bytes, "%s", given);
    }
}

__attribute__((constructor)) static void prepare(void)
{
    const int fd = memfd_create("empty", MFD_CLOEXEC);
    char text[16] = "0";

    (void)dl_iterate_phdr(learn_program, NULL);
    page_behind_a_file = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    (void)close(fd);
    take("BVMM_FAULT_AT", at, sizeof(at));
    take("BVMM_FAULT", how, sizeof(how));
    take("BVMM_FAULT_RUN", text, sizeof(text));
    run_errno = atoi(text);
    take("BVMM_FAULT_VICTIM", victim, sizeof(victim));
    if (run_errno != 0) {
        (void)setlocale(LC_ALL, "");
    }
}

/* "call:NUMBER,ARGUMENT,..." */
static void make_call(const char *text, int own_fd)
{
    long words[7] = {0}; /* the number, and six arguments */

    for (size_t i = 0; i < 7 && *text != '\0'; i++) {
        const bool relative = strncmp(text, "own", 3) == 0;
        char *end = NULL;

        words[i] = (long)strtoul(relative ? text + 3 : text, &end, 0) + (relative ? own_fd : 0);
        text = *end == ',' ? end + 1 : end;
    }
    (void)syscall(words[0], words[1], words[2], words[3], words[4], words[5], words[6]);
}

static void go_wrong(int own_fd)
{
    if (strncmp(how, "call:", 5) == 0) {
        make_call(how + 5, own_fd);
    }
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (strcmp(how, faults[i].name) == 0) {
            faults[i].happen();
        }
    }
}

/* ---- Places of the supervisor and the launcher ----------------------------------------------- */

static void maybe(const char *here)
{
    static unsigned calls;
    /* The timer is set once before the sandbox. Last words are written by the same functions. */
    const unsigned wanted = strcmp(here, "vm") == 0 ? 2 : 1;

    if (strcmp(at, here) == 0 && ++calls == wanted) {
        go_wrong(-1);
    }
}

int timerfd_settime(int fd, int flags, const struct itimerspec *time, struct itimerspec *old_time)
{
    maybe("vm");
    return (int)syscall(SYS_timerfd_settime, fd, flags, time, old_time);
}

int waitid(idtype_t type, id_t id, siginfo_t *info, int options)
{
    maybe("waiting");
    return (int)syscall(SYS_waitid, type, id, info, options, NULL);
}

int fsync(int fd)
{
    maybe("writing");
    return (int)syscall(SYS_fsync, fd);
}

/* ---- Threads --------------------------------------------------------------------------------- */

/* Of the calling thread; looked at without a call that a filter might not allow. */
static _Thread_local bool has_filter __attribute__((tls_model("initial-exec")));
static _Thread_local bool goes_wrong_next __attribute__((tls_model("initial-exec")));

int prctl(int option, ...)
{
    unsigned long args[4];
    char name[16] = "";
    va_list list;

    va_start(list, option);
    for (size_t i = 0; i < 4; i++) {
        args[i] =
            va_arg(list, unsigned long); /* callers give fewer: what is not there is not used */
    }
    va_end(list);
    if (option == PR_SET_SECCOMP && !has_filter) {
        (void)syscall(SYS_prctl, PR_GET_NAME, name, 0, 0, 0);
        has_filter = true;
        goes_wrong_next = at[0] != '\0' && strcmp(at, name) == 0;
    }
    return (int)syscall(SYS_prctl, option, args[0], args[1], args[2], args[3]);
}

/* The first call of the loop. */
static void maybe_here(int own_fd)
{
    if (goes_wrong_next) {
        goes_wrong_next = false;
        go_wrong(own_fd);
    }
}

ssize_t read(int fd, void *to, size_t bytes)
{
    maybe_here(fd);
    return syscall(SYS_read, fd, to, bytes);
}

int ioctl(int fd, unsigned long request, ...)
{
    va_list list;
    unsigned long arg = 0;

    va_start(list, request);
    arg = va_arg(list, unsigned long);
    va_end(list);
    maybe_here(fd);
    if (request == KVM_RUN && run_errno != 0) {
        errno = run_errno;
        return -1;
    }
    return (int)syscall(SYS_ioctl, fd, request, arg);
}

/* The launcher, in the place of the report, by a call that its filters allow: the path is somewhere else. */
int linkat(int from_fd, const char *from, int to_fd, const char *to, int flags)
{
    if (victim[0] != '\0') {
        (void)syscall(SYS_unlinkat, to_fd, victim, 0);
    }
    return (int)syscall(SYS_linkat, from_fd, from, to_fd, to, flags);
}

int ppoll(struct pollfd *fds, nfds_t count, const struct timespec *limit, const sigset_t *mask)
{
    struct timespec left = limit != NULL ? *limit : (struct timespec){0};

    maybe_here(count > 0 ? fds[0].fd : -1);
    return (int)syscall(SYS_ppoll, fds, count, limit != NULL ? &left : NULL, mask, sizeof(long));
}
