/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cli_status.c: the status line, and --verbose. Thread: main. */
#include "vmm/cli_status.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A person does not see it change faster; a quiet launcher disturbs the benchmark less. */
#define LINE_INTERVAL_MS 500
#define VERBOSE_INTERVAL_MS 50

static void show_line(struct cli_status *status, const struct bvmm_progress *progress, double secs)
{
    char deadline[48] = "";
    char line[128];
    int length;
    int padding;

    if (progress->timeout_secs > 0) {
        snprintf(deadline, sizeof(deadline), " of %" PRIu64 " s", progress->timeout_secs);
    }
    length = snprintf(line, sizeof(line), "bvmm: %s, %.0f s%s", progress->phase, secs, deadline);
    length = length < (int)sizeof(line) ? length : (int)sizeof(line) - 1;
    /* Blanks over what is left of a longer line. */
    padding = (int)status->shown_chars > length ? (int)status->shown_chars - length : 0;
    fprintf(status->to, "\r%s%*s", line, padding, "");
    fflush(status->to);
    status->shown_chars = (size_t)length;
}

void cli_status_progress(void *ctx, const struct bvmm_progress *progress)
{
    struct cli_status *status = ctx;
    double secs = (double)progress->elapsed_ns / (double)NS_PER_SECOND;

    if (status->verbose && (!status->phase || strcmp(progress->phase, status->phase) != 0)) {
        cli_status_clear(status);
        fprintf(status->to, "bvmm: %8.3f s  %s\n", secs, progress->phase);
    }
    status->phase = progress->phase;
    if (status->line) {
        show_line(status, progress, secs);
    }
}

unsigned cli_status_interval_ms(const struct cli_status *status)
{
    if (!status->line && !status->verbose) {
        return 0;
    }
    return status->verbose ? VERBOSE_INTERVAL_MS : LINE_INTERVAL_MS;
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
