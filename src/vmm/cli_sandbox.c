/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli_sandbox.c: `bvmm sandbox --print`: the tables from which the filters are made, for people; with
 * --json for programs.
 * tests/docs/check_sandbox_table.py holds the README against what is printed here. Thread: main.
 */
#include "vmm/cli.h"

#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <linux/kvm.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "actors/actor.h"
#include "actors/policy.h"
#include "actors/vcpu.h"
#include "arch/arch.h"
#include "vmm/launcher_policy.h"

#define CALLS_MAX 128
#define TEST_TEXT_BYTES 256

/* Different calls, sorted by name. */
struct call_set {
    const char *names[CALLS_MAX];
    size_t count;
};

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void add_call(struct call_set *set, const char *name)
{
    for (size_t i = 0; i < set->count; i++) {
        if (strcmp(set->names[i], name) == 0) {
            return;
        }
    }
    if (set->count == CALLS_MAX) {
        abort(); /* far above what docs/security.md promises: our bug */
    }
    set->names[set->count++] = name;
}

static void add_policy(struct call_set *set, const struct policy *policy)
{
    for (unsigned i = 0; i < policy->rule_count; i++) {
        add_call(set, policy->rules[i].syscall);
    }
}

/* A row's own number, in the words of the call's documentation. */
static const char *constant_text(const char *call, const struct policy_arg *arg, char text[32])
{
    static const struct {
        const char *call;
        uint8_t index;
        uint64_t number;
        const char *text;
    } known[] = {
        {"clock_gettime", 0, CLOCK_MONOTONIC, "CLOCK_MONOTONIC"},
        {"clock_gettime", 0, CLOCK_THREAD_CPUTIME_ID, "CLOCK_THREAD_CPUTIME_ID"},
        {"clock_gettime", 0, CLOCK_REALTIME, "CLOCK_REALTIME"},
        {"ioctl", 1, KVM_RUN, "KVM_RUN"},
        {"linkat", 0, (uint64_t)AT_FDCWD, "AT_FDCWD"},
        {"mkdirat", 0, (uint64_t)AT_FDCWD, "AT_FDCWD"},
        {"newfstatat", 0, (uint64_t)AT_FDCWD, "AT_FDCWD"},
        {"openat", 0, (uint64_t)AT_FDCWD, "AT_FDCWD"},
        {"openat", 2, O_RDONLY | O_DIRECTORY | O_CLOEXEC, "O_RDONLY|O_DIRECTORY|O_CLOEXEC"},
        {"openat", 2, O_WRONLY | O_TMPFILE | O_CLOEXEC, "O_WRONLY|O_TMPFILE|O_CLOEXEC"},
        {"openat", 2, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
         "O_WRONLY|O_CREAT|O_EXCL|O_NOFOLLOW|O_CLOEXEC"},
        {"pidfd_send_signal", 1, SIGKILL, "SIGKILL"},
        {"pidfd_send_signal", 1, SIGTERM, "SIGTERM"},
        {"prctl", 0, PR_SET_SECCOMP, "PR_SET_SECCOMP"},
        {"prctl", 1, SECCOMP_MODE_FILTER, "SECCOMP_MODE_FILTER"},
        {"tgkill", 2, VCPU_KICK_SIGNAL, "the kick signal"},
        {"unlinkat", 0, (uint64_t)AT_FDCWD, "AT_FDCWD"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strcmp(known[i].call, call) == 0 && known[i].index == arg->index &&
            known[i].number == arg->constant) {
            return known[i].text;
        }
    }
    (void)snprintf(text, 32, "%#" PRIx64, arg->constant);
    return text;
}

/* Everybody who has a table: the actors, and the two states of the launcher. */
#define HOLDERS ((unsigned)ACTOR_CLASS_COUNT + LAUNCHER_STATE_COUNT)

static struct launcher_def holder(unsigned index)
{
    const struct actor_def *actor = &actor_defs[index < ACTOR_CLASS_COUNT ? index : 0];

    return index < ACTOR_CLASS_COUNT
               ? (struct launcher_def){actor->name, actor->owns, actor->policy}
               : launcher_defs[index - ACTOR_CLASS_COUNT];
}

/* "argument 0: own vCPU, 1: KVM_RUN"; a condition on the machine in front. */
static void test_text(const struct policy_rule *rule, char text[TEST_TEXT_BYTES])
{
    size_t used = 0;
    char number[32];

    if (rule->only_if != POLICY_ANY) {
        used = (size_t)snprintf(text, TEST_TEXT_BYTES, "only with %s; ",
                                policy_value_text(rule->only_if));
    }
    if (rule->arg_count == 0) {
        (void)snprintf(text + used, TEST_TEXT_BYTES - used, "any arguments");
        return;
    }
    for (unsigned i = 0; i < rule->arg_count && used < TEST_TEXT_BYTES; i++) {
        const struct policy_arg *arg = &rule->args[i];

        used += (size_t)snprintf(text + used, TEST_TEXT_BYTES - used, "%s%u: %s",
                                 i == 0 ? "argument " : ", ", (unsigned)arg->index,
                                 arg->value == POLICY_CONSTANT
                                     ? constant_text(rule->syscall, arg, number)
                                     : policy_value_text(arg->value));
    }
}

static void print_holder(const struct launcher_def *def)
{
    char text[TEST_TEXT_BYTES];

    printf("%s: owns %s\n", def->name, def->owns);
    for (unsigned i = 0; i < def->policy->rule_count; i++) {
        const struct policy_rule *rule = &def->policy->rules[i];

        test_text(rule, text);
        printf("  %s\n    %s\n    %s\n", rule->syscall, text, rule->why);
    }
    printf("\n");
}

static void print_calls(const char *name, struct call_set *set)
{
    qsort(set->names, set->count, sizeof(set->names[0]), compare_names);
    printf("%-16s %2zu ", name, set->count);
    for (size_t i = 0; i < set->count; i++) {
        printf("%s%s", i == 0 ? " " : ", ", set->names[i]);
    }
    printf("\n");
}

static void print_text(void)
{
    struct call_set all = {.count = 0};

    printf("System calls of the threads of a running VM (%s), and of the launcher beside it. Each "
           "row:\n"
           "the call, what its arguments must be, why it is needed. Any other call ends the VM, "
           "and the\n"
           "report names it.\n\n",
           arch_platform.isa);
    for (unsigned i = 0; i < HOLDERS; i++) {
        const struct launcher_def def = holder(i);

        print_holder(&def);
    }
    printf("Different calls (all: of the threads of the VM):\n");
    for (unsigned i = 0; i < HOLDERS; i++) {
        const struct launcher_def def = holder(i);
        struct call_set set = {.count = 0};

        add_policy(&set, def.policy);
        if (i < ACTOR_CLASS_COUNT) {
            add_policy(&all, def.policy);
        }
        print_calls(def.name, &set);
    }
    print_calls("all", &all);
}

/* ---- For programs ---------------------------------------------------------------------------- */

static json_t *args_json(const struct policy_rule *rule)
{
    json_t *args = json_array();

    for (unsigned i = 0; i < rule->arg_count; i++) {
        const struct policy_arg *arg = &rule->args[i];
        json_t *object =
            json_pack("{s:i, s:s}", "index", (int)arg->index, "is", policy_value_text(arg->value));

        if (arg->value == POLICY_CONSTANT) {
            (void)json_object_set_new(object, "number", json_integer((json_int_t)arg->constant));
        }
        (void)json_array_append_new(args, object);
    }
    return args;
}

static json_t *rows_json(const struct policy *policy)
{
    json_t *rows = json_array();

    for (unsigned i = 0; i < policy->rule_count; i++) {
        const struct policy_rule *rule = &policy->rules[i];

        (void)json_array_append_new(
            rows, json_pack("{s:s, s:o, s:s?, s:s}", "call", rule->syscall, "args", args_json(rule),
                            "only_with",
                            rule->only_if != POLICY_ANY ? policy_value_text(rule->only_if) : NULL,
                            "why", rule->why));
    }
    return rows;
}

static bool print_json(void)
{
    json_t *root = json_pack("{s:s, s:[]}", "isa", arch_platform.isa, "tables");
    bool ok = root != NULL;

    for (unsigned i = 0; ok && i < HOLDERS; i++) {
        const struct launcher_def def = holder(i);

        ok = json_array_append_new(json_object_get(root, "tables"),
                                   json_pack("{s:s, s:s, s:o}", "name", def.name, "owns", def.owns,
                                             "rows", rows_json(def.policy))) == 0;
    }
    ok = ok && json_dumpf(root, stdout, JSON_INDENT(1)) == 0 && putchar('\n') == '\n';
    json_decref(root);
    return ok;
}

enum exit_status cli_sandbox(const struct cli_options *options)
{
    bool ok = true;

    if (options->json) {
        ok = print_json();
    } else {
        print_text();
    }
    return cli_finish_output() == EXIT_STATUS_OK && ok ? EXIT_STATUS_OK : EXIT_STATUS_VM;
}
