/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* report_counts.c: the report's sections that are numbers: times, exits, actors. Launcher. */
#include "vmm/report_parts.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>

/* ---- Times ----------------------------------------------------------------------------------- */

/* A stretch of the run on the host's clock. */
struct stretch {
    const char *key;
    enum run_time from;
    enum run_time to;
    size_t view; /* offset in struct bvmm_timings */
};

#define IN_VIEW(member) offsetof(struct bvmm_timings, member)

static const struct stretch stretches[] = {
    {"launch_ns", TIME_PROCESS_START, TIME_VM_PROCESS_START, IN_VIEW(launch)},
    {"setup_ns", TIME_VM_PROCESS_START, TIME_SETUP_DONE, IN_VIEW(setup)},
    {"boot_to_init_ns", TIME_SETUP_DONE, TIME_GUEST_INIT, IN_VIEW(boot_to_init)},
    {"prepare_ns", TIME_GUEST_INIT, TIME_COMMAND_START, IN_VIEW(prepare)},
    {"command_host_ns", TIME_COMMAND_START, TIME_COMMAND_END, IN_VIEW(command_host)},
    {"drain_ns", TIME_COMMAND_END, TIME_RESULTS_COMPLETE, IN_VIEW(drain)},
    {"stop_ns", TIME_STOP_DECIDED, TIME_ACTORS_STOPPED, IN_VIEW(stop)},
    {"teardown_ns", TIME_STOP_DECIDED, TIME_VM_PROCESS_END, IN_VIEW(teardown)},
    {"total_ns", TIME_PROCESS_START, TIME_VM_PROCESS_END, IN_VIEW(total)},
};

#define NONSENSE "the times recorded make no sense"

/* The same value as a struct; a NULL or missing one stays unknown. */
static void show(struct report_builder *b, const json_t *timings, const char *key, size_t view)
{
    const json_t *value = json_object_get(timings, key);

    if (b->view && json_is_integer(value)) {
        struct bvmm_duration *duration = (struct bvmm_duration *)((char *)&b->view->timings + view);

        *duration =
            (struct bvmm_duration){.known = true, .ns = (uint64_t)json_integer_value(value)};
    }
}

static void set_difference(struct report_builder *b, json_t *object, const char *key, uint64_t from,
                           uint64_t to)
{
    if (to < from || to - from > INT64_MAX) {
        report_absent(b, object, key, NONSENSE);
    } else {
        report_set(b, object, key, report_u64(to - from));
    }
}

static void set_stretch(struct report_builder *b, json_t *timings, const struct stretch *stretch)
{
    const uint64_t *at = b->record->time_ns;
    char reason[64];

    if (at[stretch->from] == 0 || at[stretch->to] == 0) {
        snprintf(reason, sizeof(reason), "the run did not come to %s",
                 run_time_name(at[stretch->from] == 0 ? stretch->from : stretch->to));
        report_absent(b, timings, stretch->key, reason);
        return;
    }
    set_difference(b, timings, stretch->key, at[stretch->from], at[stretch->to]);
}

static void set_guest_times(struct report_builder *b, json_t *timings)
{
    const uint64_t *at = b->record->guest_time_ns;

    if (at[GUEST_TIME_INIT] == 0) {
        report_absent(b, timings, "guest_boot_ns", "the guest did not say");
    } else {
        report_set(b, timings, "guest_boot_ns", report_u64(at[GUEST_TIME_INIT]));
    }
    if (at[GUEST_TIME_COMMAND_START] == 0 || at[GUEST_TIME_COMMAND_END] == 0) {
        report_absent(b, timings, "command_guest_ns",
                      at[GUEST_TIME_COMMAND_START] == 0 ? "the guest did not start a command"
                                                        : "the command did not end");
    } else {
        set_difference(b, timings, "command_guest_ns", at[GUEST_TIME_COMMAND_START],
                       at[GUEST_TIME_COMMAND_END]);
    }
}

/* When each point was reached, since the process began. */
static json_t *points(struct report_builder *b)
{
    const uint64_t *at = b->record->time_ns;
    json_t *object = json_object();

    for (int i = TIME_PROCESS_START; i < TIME_COUNT; i++) {
        char key[48];

        snprintf(key, sizeof(key), "%s_ns", run_time_name((enum run_time)i));
        if (at[i] == 0) {
            report_set(b, object, key, json_null());
        } else {
            set_difference(b, object, key, at[TIME_PROCESS_START], at[i]);
        }
    }
    return report_end(b, object);
}

json_t *report_timings(struct report_builder *b)
{
    json_t *timings = json_object();

    for (size_t i = 0; i < ARRAY_SIZE(stretches); i++) {
        set_stretch(b, timings, &stretches[i]);
        show(b, timings, stretches[i].key, stretches[i].view);
    }
    set_guest_times(b, timings);
    show(b, timings, "guest_boot_ns", IN_VIEW(guest_boot));
    show(b, timings, "command_guest_ns", IN_VIEW(command_guest));
    report_set(b, timings, "points", points(b));
    return report_end(b, timings);
}

/* ---- Exits ----------------------------------------------------------------------------------- */

static json_t *exit_counts(struct report_builder *b, const uint64_t counts[EXIT_REASON_COUNT])
{
    json_t *object = json_object();

    for (int i = 0; i < EXIT_REASON_COUNT; i++) {
        report_set(b, object, exit_reason_name((enum exit_reason)i), report_u64(counts[i]));
    }
    return object;
}

json_t *report_exits(struct report_builder *b)
{
    uint64_t total[EXIT_REASON_COUNT] = {0};
    json_t *exits = json_object();
    json_t *vcpus = json_array();

    for (uint32_t vcpu = 0; vcpu < min_u64(b->record->vcpu_count, VCPUS_MAX); vcpu++) {
        const uint64_t *counts = b->record->exits[vcpu].count;

        for (int i = 0; i < EXIT_REASON_COUNT; i++) {
            if (__builtin_add_overflow(total[i], counts[i], &total[i])) {
                total[i] = UINT64_MAX;
            }
        }
        if (json_array_append_new(vcpus, exit_counts(b, counts)) < 0) {
            b->no_memory = true;
        }
    }
    report_set(b, exits, "total", exit_counts(b, total));
    report_set(b, exits, "vcpus", vcpus);
    return exits;
}

/* ---- Actors ---------------------------------------------------------------------------------- */

static json_t *actor(struct report_builder *b, const struct actor_stats *stats)
{
    json_t *object = json_object();

    report_set(b, object, "name", report_text(stats->name));
    report_set(b, object, "state", json_string(actor_state_name((enum actor_state)stats->state)));
    if (stats->state == ACTOR_STATE_STOPPED) {
        report_set(b, object, "cpu_ns", report_u64(stats->cpu_ns));
    } else {
        report_absent(b, object, "cpu_ns", "the actor had not stopped when the VM process ended");
    }
    report_set(b, object, "messages_in", report_u64(stats->messages_in));
    report_set(b, object, "messages_out", report_u64(stats->messages_out));
    report_set(b, object, "wakeups", report_u64(stats->wakeups));
    report_set(b, object, "wakeups_spurious", report_u64(stats->wakeups_spurious));
    report_set(b, object, "doorbells_rung", report_u64(stats->doorbells_rung));
    report_set(b, object, "waits_for_space", report_u64(stats->waits_for_space));
    report_set(b, object, "mailbox_high_water", report_u64(stats->mailbox_high_water));
    report_set(b, object, "mailbox_slots", report_u64(stats->mailbox_slots));
    report_set(b, object, "requests", report_u64(stats->requests));
    report_set(b, object, "request_errors", report_u64(stats->request_errors));
    report_set(b, object, "queue_faults", report_u64(stats->queue_faults));
    report_set(b, object, "bytes", report_u64(stats->bytes));
    report_set(b, object, "interrupts", report_u64(stats->interrupts));
    return report_end(b, object);
}

json_t *report_actors(struct report_builder *b)
{
    json_t *actors = json_array();

    for (uint32_t i = 0; i < min_u64(b->record->actor_count, ACTORS_MAX); i++) {
        if (json_array_append_new(actors, actor(b, &b->record->actors[i])) < 0) {
            b->no_memory = true;
        }
    }
    return actors;
}

json_t *report_device_faults(struct report_builder *b)
{
    json_t *faults = json_array();

    for (uint32_t i = 0; i < min_u64(b->record->device_fault_count, DEVICE_FAULTS_MAX); i++) {
        const struct device_fault *fault = &b->record->device_faults[i];
        json_t *object = json_object();

        report_set(b, object, "actor", report_text(fault->actor));
        report_set(b, object, "what", report_text(fault->what));
        if (json_array_append_new(faults, object) < 0) {
            b->no_memory = true;
        }
    }
    return faults;
}
