/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * cli_sandbox.c: `bvmm sandbox --print`: the tables from which the filters are made, for people.
 * tests/unit/check-sandbox-table holds the README against what is printed here. Thread: main.
 */
#include "vmm/cli.h"

#include <inttypes.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include "actors/actor.h"
#include "actors/policy.h"
#include "actors/vcpu.h"
#include "arch/arch.h"

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
        {"ioctl", 1, KVM_RUN, "KVM_RUN"},
        {"tgkill", 2, VCPU_KICK_SIGNAL, "the kick signal"},
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

static void print_actor(const struct actor_def *def)
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
    printf("%-11s %2zu ", name, set->count);
    for (size_t i = 0; i < set->count; i++) {
        printf("%s%s", i == 0 ? " " : ", ", set->names[i]);
    }
    printf("\n");
}

enum exit_status cli_sandbox(void)
{
    struct call_set all = {.count = 0};

    printf(
        "System calls of the threads of a running VM (%s). Each row: the call, what its arguments\n"
        "must be, why it is needed. Any other call ends the VM, and the report names it.\n\n",
        arch_platform.isa);
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        print_actor(&actor_defs[class]);
    }
    printf("Different calls:\n");
    for (unsigned class = 0; class < ACTOR_CLASS_COUNT; class ++) {
        struct call_set set = {.count = 0};

        add_policy(&set, actor_defs[class].policy);
        add_policy(&all, actor_defs[class].policy);
        print_calls(actor_defs[class].name, &set);
    }
    print_calls("all", &all);
    return fflush(stdout) == 0 ? EXIT_STATUS_OK : EXIT_STATUS_VM;
}
