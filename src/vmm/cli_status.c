/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cli_status.c: the status line, and --verbose. Thread: main. */
#include "vmm/cli_status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A person does not see it change faster; a quiet launcher disturbs the benchmark less. */
#define LINE_INTERVAL_MS 500
#define VERBOSE_INTERVAL_MS 50

const char *cli_phase_name(uint32_t phase)
{
    static const char *const names[] = {
        [TIME_PROCESS_START] = "starting",
        [TIME_JOB_READY] = "starting the VM process",
        [TIME_VM_PROCESS_START] = "setting up the VM",
        [TIME_SETUP_DONE] = "booting the guest",
        [TIME_GUEST_INIT] = "preparing the command",
        [TIME_COMMAND_START] = "running",
        [TIME_COMMAND_END] = "collecting results",
        [TIME_RESULTS_COMPLETE] = "results complete",
        [TIME_STOP_DECIDED] = "stopping",
        [TIME_ACTORS_STOPPED] = "stopped",
        [TIME_VM_PROCESS_END] = "ended",
    };
    _Static_assert(ARRAY_SIZE(names) == TIME_COUNT, "one name each");

    return phase < TIME_COUNT ? names[phase] : "running";
}

static double elapsed_secs(const struct cli_status *status)
{
    return (double)(clock_monotonic_ns() - status->start_ns) / (double)NS_PER_SECOND;
}

static void show_line(struct cli_status *status, uint32_t phase)
{
    char deadline[48] = "";
    char line[128];
    int length;
    int padding;

    if (status->timeout_secs > 0) {
        snprintf(deadline, sizeof(deadline), " of %" PRIu64 " s", status->timeout_secs);
    }
    length = snprintf(line, sizeof(line), "bvmm: %s, %.0f s%s", cli_phase_name(phase),
                      elapsed_secs(status), deadline);
    length = length < (int)sizeof(line) ? length : (int)sizeof(line) - 1;
    /* Blanks over what is left of a longer line. */
    padding = (int)status->shown_chars > length ? (int)status->shown_chars - length : 0;
    fprintf(status->to, "\r%s%*s", line, padding, "");
    fflush(status->to);
    status->shown_chars = (size_t)length;
}

static void tick(void *ctx, const struct record *record)
{
    struct cli_status *status = ctx;
    /* Acquire; pairs with the supervisor's release store when a phase begins. */
    uint32_t phase = __atomic_load_n(&record->phase, __ATOMIC_ACQUIRE);

    if (status->verbose && phase != status->phase) {
        cli_status_clear(status);
        fprintf(status->to, "bvmm: %8.3f s  %s\n", elapsed_secs(status), cli_phase_name(phase));
    }
    status->phase = phase;
    if (status->line) {
        show_line(status, phase);
    }
}

struct launcher_observer cli_status_observer(struct cli_status *status)
{
    if (!status->line && !status->verbose) {
        return (struct launcher_observer){.tick = NULL};
    }
    return (struct launcher_observer){
        .tick = tick,
        .ctx = status,
        .interval_ms = status->verbose ? VERBOSE_INTERVAL_MS : LINE_INTERVAL_MS,
    };
}

void cli_status_clear(struct cli_status *status)
{
    if (status->shown_chars > 0) {
        fprintf(status->to, "\r%*s\r", (int)status->shown_chars, "");
        fflush(status->to);
        status->shown_chars = 0;
    }
}

/* A name from the record may hold anything; a terminal is to get letters only. */
static void printable_name(char text[ACTOR_NAME_BYTES], const char *name)
{
    size_t i = 0;

    for (; i < ACTOR_NAME_BYTES - 1 && name[i]; i++) {
        text[i] = (char)(name[i] > ' ' && name[i] < 0x7f ? name[i] : '?');
    }
    text[i] = '\0';
}

static void show_exits(struct cli_status *status, const struct record *record, uint32_t vcpu)
{
    fprintf(status->to, "bvmm: exits of vcpu %" PRIu32 ":", vcpu);
    for (int reason = 0; reason < EXIT_REASON_COUNT; reason++) {
        uint64_t count = record->exits[vcpu].count[reason];

        if (count > 0) {
            fprintf(status->to, " %s %" PRIu64, exit_reason_name((enum exit_reason)reason), count);
        }
    }
    fputc('\n', status->to);
}

void cli_status_actors(struct cli_status *status, const struct record *record)
{
    if (!status->verbose) {
        return;
    }
    fprintf(status->to, "bvmm: %-16s %-8s %10s %10s %10s %10s %10s\n", "actor", "state", "in",
            "out", "wakeups", "most held", "cpu ms");
    for (uint32_t i = 0; i < min_u64(record->actor_count, ACTORS_MAX); i++) {
        const struct actor_stats *actor = &record->actors[i];
        char name[ACTOR_NAME_BYTES];

        printable_name(name, actor->name);
        fprintf(status->to,
                "bvmm: %-16s %-8s %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10" PRIu64 " %10.3f\n",
                name, actor_state_name((enum actor_state)actor->state), actor->messages_in,
                actor->messages_out, actor->wakeups, actor->mailbox_high_water,
                (double)actor->cpu_ns / (double)NS_PER_MS);
    }
    for (uint32_t i = 0; i < min_u64(record->vcpu_count, VCPUS_MAX); i++) {
        show_exits(status, record, i);
    }
}
