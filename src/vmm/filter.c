/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * filter.c: seccomp filters from policies. See filter.h.
 *
 * Threads: main while filters are made; filter_enter() and the handler: the one that is held.
 */
#include "vmm/filter.h"

#include "arch_trap.h"

#include <errno.h>
#include <seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/mman.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define FILTER_POSSIBLE 0
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer)
#define FILTER_POSSIBLE 0
#endif
#endif
#ifndef FILTER_POSSIBLE
#define FILTER_POSSIBLE 1
#endif

struct filter {
    struct sock_fprog program; /* the instructions are mapped read-only */
};

bool filter_possible(void)
{
    return FILTER_POSSIBLE != 0;
}

/* ---- What happens to a forbidden call -------------------------------------------------------- */

/*
 * Who makes a forbidden call may own other threads of the process as well, and with them all memory
 * that can be written, the handler's stack included, while the handler runs. So
 *
 * - the handler is one straight line to the call that kills: nothing is called, nothing returns, no
 *   address to go to is read from memory, and every signal is blocked meanwhile, as a handler of
 *   another one would return by what is on the stack. tests/sandbox/test_handler.py looks at the
 *   instructions.
 * - where it notes to is told by memory that is read-only before there is a filter, and no filter
 *   allows mprotect: otherwise a wrong address would make it fault, and the report would have
 *   another signal. What it notes may be wrong all the same, also a mixture of two threads' notes:
 *   an atomic exchange may be a loop, or a call of a function.
 */
#define PAGE_BYTES_MAX ((size_t)1 << 16) /* of any host: aarch64 has such kernels */

struct fixed {
    struct record_violation *violation; /* in memory that the launcher shares */
};

/* One page of these is used, wherever it begins. */
static uint8_t fixed_memory[2 * PAGE_BYTES_MAX];

static ARCH_INLINE struct fixed *fixed_page(void)
{
    return (struct fixed *)(void *)(fixed_memory +
                                    (-(uintptr_t)fixed_memory & (PAGE_BYTES_MAX - 1)));
}

/* Reading it must not call anything, in a shared library neither. */
static _Thread_local uint32_t this_actor __attribute__((tls_model("initial-exec")));

/* In the VM process, on the thread that made the call. */
static void on_forbidden(int signal, siginfo_t *info, void *context)
{
    struct record_violation *violation = fixed_page()->violation;

    (void)signal;
    if (__atomic_load_n(&violation->seen, __ATOMIC_RELAXED) == 0) {
        __atomic_store_n(&violation->seen, 1, __ATOMIC_RELAXED);
        violation->actor = this_actor;
        violation->arch = info->si_arch;
        violation->syscall = info->si_syscall;
        arch_syscall_args(context, violation->args);
    }
    arch_make_last_call();
}

int filter_catch(filter_handler_fn handler)
{
    struct sigaction action = {.sa_sigaction = handler, .sa_flags = SA_SIGINFO | SA_ONSTACK};

    (void)sigfillset(&action.sa_mask);
    return sigaction(SIGSYS, &action, NULL) < 0 ? -errno : 0;
}

int filter_prepare(struct record *record)
{
    struct fixed *fixed = fixed_page();

    fixed->violation = &record->violation;
    return mprotect(fixed, PAGE_BYTES_MAX, PROT_READ) < 0 ? -errno : filter_catch(on_forbidden);
}

/* ---- From rows to rules ---------------------------------------------------------------------- */

/*
 * A negative int, AT_FDCWD say, is compared by its lower half, which is all that the kernel looks at:
 * what the upper half of the register holds is not said by C. Others have zeros there.
 */
static struct scmp_arg_cmp comparison(unsigned index, uint64_t number)
{
    const uint64_t lower_half = UINT32_MAX;

    if ((number & ~lower_half) == ~lower_half) {
        return (struct scmp_arg_cmp){.arg = index,
                                     .op = SCMP_CMP_MASKED_EQ,
                                     .datum_a = lower_half,
                                     .datum_b = number & lower_half};
    }
    return (struct scmp_arg_cmp){.arg = index, .op = SCMP_CMP_EQ, .datum_a = number};
}

/* One rule for each number that the row's named value stands for; at most one argument is named. */
static int add_rule(scmp_filter_ctx context, const struct policy_rule *rule,
                    const struct policy_numbers *numbers, unsigned variant, unsigned *ret_variants)
{
    struct scmp_arg_cmp args[POLICY_ARGS_MAX];
    const int call = seccomp_syscall_resolve_name(rule->syscall);
    unsigned variants = 1;

    if (call == __NR_SCMP_ERROR) {
        return -EINVAL;
    }
    for (unsigned i = 0; i < rule->arg_count; i++) {
        const struct policy_arg *arg = &rule->args[i];
        uint64_t number = arg->constant;

        if (arg->value != POLICY_CONSTANT) {
            variants = numbers->count[arg->value];
            number = variant < variants ? numbers->numbers[arg->value][variant] : 0;
        }
        args[i] = comparison(arg->index, number);
    }
    *ret_variants = variants;
    if (variant >= variants) {
        return 0; /* the machine has none of it */
    }
    return seccomp_rule_add_array(context, SCMP_ACT_ALLOW, call, rule->arg_count, args);
}

static int add_rules(scmp_filter_ctx context, const struct policy *policy,
                     const struct policy_numbers *numbers, const char **ret_call)
{
    int code = 0;

    for (unsigned i = 0; i < policy->rule_count && code == 0; i++) {
        const struct policy_rule *rule = &policy->rules[i];
        unsigned variants = 1;

        *ret_call = rule->syscall;
        if (rule->only_if != POLICY_ANY && numbers->count[rule->only_if] == 0) {
            continue;
        }
        for (unsigned variant = 0; variant < variants && code == 0; variant++) {
            code = add_rule(context, rule, numbers, variant, &variants);
        }
    }
    return code;
}

/* The program as the kernel wants it. libseccomp writes it to a descriptor only. */
static int export_program(scmp_filter_ctx context, struct filter *filter)
{
    const int fd = memfd_create("filter", MFD_CLOEXEC);
    off_t bytes = 0;
    void *program = MAP_FAILED;
    int code = fd < 0 ? -errno : seccomp_export_bpf(context, fd);

    if (code == 0) {
        bytes = lseek(fd, 0, SEEK_END);
        program = mmap(NULL, (size_t)bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        code = program == MAP_FAILED ? -errno : 0;
    }
    if (code == 0) {
        filter->program = (struct sock_fprog){
            .filter = program, .len = (unsigned short)((size_t)bytes / sizeof(struct sock_filter))};
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return code;
}

static int fill_context(scmp_filter_ctx context, const struct policy *policy,
                        const struct policy_numbers *numbers, const char **ret_call)
{
    /* Another architecture's calls, x32 among them, are trapped like any other forbidden one. */
    int code = seccomp_attr_set(context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_TRAP);

    *ret_call = "acct";
    if (code == 0) {
        code = seccomp_rule_add(context, SCMP_ACT_KILL_PROCESS, (int)ARCH_LAST_CALL, 0);
    }
    return code < 0 ? code : add_rules(context, policy, numbers, ret_call);
}

int filter_new(const char *name, const struct policy *policy, const struct policy_numbers *numbers,
               struct filter **ret_filter, struct bvmm_error *err)
{
    scmp_filter_ctx context = seccomp_init(SCMP_ACT_TRAP);
    struct filter *filter = calloc(1, sizeof(*filter));
    const char *call = "?";
    int code = context == NULL || filter == NULL ? -ENOMEM : 0;

    if (code == 0) {
        code = fill_context(context, policy, numbers, &call);
    }
    if (code == 0) {
        code = export_program(context, filter);
    }
    seccomp_release(context);
    if (code < 0) {
        free(filter);
        return error_set(err, BVMM_ERROR_SANDBOX, code,
                         "cannot make the filter of %s (at the call %s): %s", name, call,
                         error_text(-code));
    }
    *ret_filter = filter;
    return 0;
}

void filter_free(struct filter *filter)
{
    if (filter != NULL) {
        (void)munmap(filter->program.filter, filter->program.len * sizeof(struct sock_filter));
        free(filter);
    }
}

uint64_t filter_address(const struct filter *filter)
{
    return (uint64_t)(uintptr_t)&filter->program;
}

int filter_put_on(const struct filter *filter)
{
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter->program) < 0 ? -errno : 0;
}

int filter_enter(const struct actor *actor, void *filter)
{
    this_actor = actor->id;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0) {
        return -errno;
    }
    return filter_put_on(filter);
}
