/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * supervisor.c: the supervisor actor. See supervisor.h.
 *
 * Thread: the VM process's main thread. Blocks: ppoll on doorbell, timer and signals. System calls:
 * supervisor_policy, at the end of the file. It joins nobody: STOPPED is an actor's last word, and
 * the end of the process collects the threads.
 */
#include "actors/supervisor.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "actors/vcpu.h"
#include "protocol/guest_job.h"
#include "protocol/manifest.h"
#include "virtio/virtqueue.h"

/* What the guest's init gives the command must leave it the better half to hand over what there is. */
_Static_assert(GUEST_JOB_URGENT_GRACE_MS *NS_PER_MS <= SUPERVISOR_TIMEOUT_GRACE_NS / 4,
               "see there");
_Static_assert(GUEST_JOB_DEFAULT_GRACE_MS *NS_PER_MS <= SUPERVISOR_CANCEL_GRACE_NS / 2,
               "see there");

/* ---- The outcome ----------------------------------------------------------------------------- */

static struct run_outcome *outcome_of(struct actor *self)
{
    return &self->record->outcome;
}

static void note_time(struct actor *self, enum run_time point, uint64_t now_ns)
{
    __atomic_store_n(&self->record->time_ns[point], now_ns, __ATOMIC_RELAXED); /* some are live */
    __atomic_store_n(&self->record->phase, (uint32_t)point, __ATOMIC_RELAXED);
}

/* The first decision stands: what follows from it is not news. */
static void decide(struct actor *self, enum run_status status)
{
    if (outcome_of(self)->status == RUN_NONE) {
        outcome_of(self)->status = (uint32_t)status;
    }
}

static void printf_like(3, 4)
    decide_error(struct actor *self, enum bvmm_error_kind kind, const char *fmt, ...)
{
    struct run_outcome *outcome = outcome_of(self);
    va_list args;

    if (outcome->error_kind != BVMM_ERROR_NONE) {
        return;
    }
    outcome->error_kind = (uint32_t)kind;
    va_start(args, fmt);
    (void)vsnprintf(outcome->error_message, sizeof(outcome->error_message), fmt, args);
    va_end(args);
}

/* ---- Stopping -------------------------------------------------------------------------------- */

static void set_deadline(struct actor *self, uint64_t deadline_ns)
{
    struct supervisor *supervisor = self->state;
    struct itimerspec spec = {.it_value = {.tv_sec = (time_t)(deadline_ns / NS_PER_SECOND),
                                           .tv_nsec = (long)(deadline_ns % NS_PER_SECOND)}};

    supervisor->phase_deadline_ns = deadline_ns;
    if (supervisor->timer_fd >= 0) {
        (void)timerfd_settime(supervisor->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL);
    }
}

static void stop_class(struct actor *self, bool vcpus)
{
    struct supervisor *supervisor = self->state;

    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        struct actor *actor = &supervisor->config.actors[i];

        if ((actor->class == ACTOR_VCPU) != vcpus || !actor->thread_started) {
            continue;
        }
        actor_tell(self, actor->id, &(struct msg){.kind = MSG_STOP});
        if (vcpus && !supervisor->stopped[actor->id]) {
            /* Not pthread_kill(), which makes other calls too. A thread that is gone: ESRCH. */
            (void)syscall(SYS_tgkill, supervisor->pid, actor->stats->tid, VCPU_KICK_SIGNAL);
        }
    }
}

static bool class_stopped(struct actor *self, bool vcpus)
{
    struct supervisor *supervisor = self->state;

    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        const struct actor *actor = &supervisor->config.actors[i];

        if ((actor->class == ACTOR_VCPU) == vcpus && actor->thread_started &&
            !supervisor->stopped[actor->id]) {
            return false;
        }
    }
    return true;
}

/* Go on from here as far as it goes without waiting. */
static void advance_stop(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (supervisor->phase == SUPERVISOR_STOPPING_VCPUS && class_stopped(self, true)) {
        supervisor->phase = SUPERVISOR_STOPPING_DEVICES;
        set_deadline(self, now_ns + SUPERVISOR_STOP_LIMIT_NS);
        stop_class(self, false);
    }
    if (supervisor->phase == SUPERVISOR_STOPPING_DEVICES && class_stopped(self, false)) {
        supervisor->phase = SUPERVISOR_DONE;
        set_deadline(self, 0);
    }
}

/* vCPUs first: when they have stopped, devices get nothing new, and can drain what there is. */
static void begin_stop(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (supervisor->phase >= SUPERVISOR_STOPPING_VCPUS) {
        return;
    }
    note_time(self, TIME_STOP_DECIDED, now_ns);
    supervisor->phase = SUPERVISOR_STOPPING_VCPUS;
    set_deadline(self, now_ns + SUPERVISOR_STOP_LIMIT_NS);
    stop_class(self, true);
    advance_stop(self, now_ns);
}

static void decide_and_stop(struct actor *self, enum run_status status, uint64_t now_ns)
{
    decide(self, status);
    begin_stop(self, now_ns);
}

static void tell_class(struct actor *self, enum actor_class class, enum msg_kind kind)
{
    struct supervisor *supervisor = self->state;
    const struct msg msg = {.kind = (uint8_t)kind};

    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        if (supervisor->config.actors[i].class == class) {
            actor_tell(self, (actor_id)i, &msg);
        }
    }
}

/*
 * The run is to end, but the guest may still have something to say: ask bvmm's init, by the keyboard
 * or, where there is none, the console, to end the command, and listen for a while. At the deadline
 * the console is told first that it is urgent; the keyboard then is for a console that does not hear.
 */
static void begin_grace(struct actor *self, uint64_t grace_ns, bool urgent, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (supervisor->phase != SUPERVISOR_RUNNING || !supervisor->init_seen) {
        begin_stop(self, now_ns);
        return;
    }
    supervisor->phase = SUPERVISOR_GRACE;
    set_deadline(self, now_ns + grace_ns);
    if (urgent) {
        tell_class(self, ACTOR_SERIAL, MSG_TYPE_CTRL_BACKSLASH);
    }
    if (supervisor->config.has_i8042) {
        tell_class(self, ACTOR_I8042, MSG_PRESS_CTRL_ALT_DEL);
    } else if (!urgent) {
        tell_class(self, ACTOR_SERIAL, MSG_TYPE_CTRL_C);
    }
}

/* A guest that has handed over much already has less time for the rest: it is in the report too. */
static uint64_t timeout_grace_ns(const struct actor *self)
{
    return SUPERVISOR_TIMEOUT_GRACE_NS -
           min_u64(SUPERVISOR_TIMEOUT_GRACE_NS, record_report_cost_ns(self->record));
}

/* Whoever did not stop in time stays behind; the process ends without it. */
static void give_up_waiting(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;
    const bool vcpus = supervisor->phase == SUPERVISOR_STOPPING_VCPUS;

    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        const struct actor *actor = &supervisor->config.actors[i];

        if ((actor->class == ACTOR_VCPU) == vcpus && actor->thread_started &&
            !supervisor->stopped[i]) {
            decide_error(self, BVMM_ERROR_DEVICE, "actor %s did not stop within %llu ms",
                         actor->name, SUPERVISOR_STOP_LIMIT_NS / NS_PER_MS);
        }
    }
    if (vcpus) {
        supervisor->phase = SUPERVISOR_STOPPING_DEVICES;
        set_deadline(self, now_ns + SUPERVISOR_STOP_LIMIT_NS);
        stop_class(self, false);
        advance_stop(self, now_ns);
    } else {
        supervisor->phase = SUPERVISOR_DONE;
        set_deadline(self, 0);
    }
}

/* ---- The guest's end ------------------------------------------------------------------------- */

static enum run_status status_at_reset(struct actor *self)
{
    const struct supervisor *supervisor = self->state;
    const struct run_outcome *outcome = outcome_of(self);

    if (outcome->has_wait_status || outcome->has_exit_code) {
        return RUN_COMPLETED; /* what is missing of the streams is said there */
    }
    return supervisor->config.has_command ? RUN_GUEST_RESET : RUN_GUEST_SHUTDOWN;
}

static void on_guest_reset(struct actor *self, uint64_t now_ns)
{
    outcome_of(self)->console_decides = outcome_of(self)->status == RUN_NONE;
    decide_and_stop(self, status_at_reset(self), now_ns);
}

static void on_vcpu_ended(struct actor *self, const struct msg *msg, uint64_t now_ns)
{
    const struct bvmm_error *error = msg->vcpu_end.error;

    switch ((enum vcpu_end_reason)msg->vcpu_end.reason) {
    case VCPU_END_POWER_OFF:
    case VCPU_END_RESET:
        on_guest_reset(self, now_ns);
        break;
    case VCPU_END_TRIPLE_FAULT:
        outcome_of(self)->console_decides = outcome_of(self)->status == RUN_NONE;
        decide_and_stop(self, RUN_GUEST_TRIPLE_FAULT, now_ns);
        break;
    case VCPU_END_CRASH:
        outcome_of(self)->console_decides = outcome_of(self)->status == RUN_NONE;
        decide_and_stop(self, RUN_GUEST_PANIC, now_ns);
        break;
    case VCPU_END_FAILED:
        decide_error(self, error->kind, "%s", error->message);
        decide_and_stop(self, RUN_VM_ERROR, now_ns);
        break;
    }
}

/* ---- Results --------------------------------------------------------------------------------- */

static void on_exit_status(struct actor *self, const struct msg_exit *exit)
{
    struct run_outcome *outcome = outcome_of(self);

    outcome->has_wait_status = 1;
    outcome->has_exit_code = 1;
    outcome->guest_oom_kills = exit->oom_kills;
    if (WIFSIGNALED(exit->wait_status)) {
        outcome->term_signal = WTERMSIG(exit->wait_status);
        outcome->exit_code = 128 + outcome->term_signal;
    } else {
        outcome->term_signal = 0;
        outcome->exit_code = WEXITSTATUS(exit->wait_status);
    }
}

/*
 * Port 5002, or the stream of bvmm's init: decimal text. What is no number is no exit code, and nor is
 * what may be a part of one. The length is loaded once: behind a broken stream's end its writer may
 * still be at it.
 */
static void on_exit_code_stream(struct actor *self, enum stream_state state)
{
    const struct record_stream *stream = &self->record->streams[STREAM_EXIT_CODE];
    const uint64_t length_bytes = __atomic_load_n(&stream->length_bytes, __ATOMIC_ACQUIRE);
    struct run_outcome *outcome = outcome_of(self);
    char text[16] = "";
    char *end = NULL;
    long value = 0;

    if (state != STREAM_COMPLETE || outcome->has_wait_status || length_bytes >= sizeof(text)) {
        return;
    }
    memcpy(text, record_stream_bytes(self->record, STREAM_EXIT_CODE), length_bytes);
    errno = 0;
    value = strtol(text, &end, 10);
    if (errno != 0 || end == text || value < 0 || value > 255) {
        return;
    }
    while (*end == '\n' || *end == '\r' || *end == ' ') {
        end++;
    }
    if (*end == '\0') {
        outcome->has_exit_code = 1;
        outcome->exit_code = (int32_t)value;
        outcome->term_signal = value > 128 && value < 128 + 65 ? (int32_t)(value - 128) : 0;
    }
}

/* BYE, and every stream that was announced has ended: nothing more will come. */
static void stop_if_complete(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (!supervisor->bye_seen || supervisor->phase < SUPERVISOR_RUNNING) {
        return;
    }
    for (unsigned i = 0; i < STREAM_COUNT; i++) {
        if (supervisor->announced[i] && !supervisor->stream_ended[i]) {
            return;
        }
    }
    note_time(self, TIME_RESULTS_COMPLETE, now_ns);
    decide_and_stop(self, RUN_COMPLETED, now_ns);
}

static void on_stream_end(struct actor *self, const struct msg_stream *ended, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (ended->stream >= STREAM_COUNT) {
        return;
    }
    supervisor->stream_ended[ended->stream] = true;
    if (ended->stream == STREAM_EXIT_CODE) {
        on_exit_code_stream(self, (enum stream_state)ended->state);
    }
    stop_if_complete(self, now_ns);
}

/* The text belongs to this thread from here on; what it says comes from the guest all the same. */
static void on_manifest(struct actor *self, const struct msg_text *text)
{
    struct supervisor *supervisor = self->state;
    const struct record_stream *announced = &self->record->streams[STREAM_ANNOUNCED];
    struct manifest_reader reader;
    struct manifest_entry entry;

    if (text->offset_bytes > announced->length_bytes ||
        text->length_bytes > announced->length_bytes - text->offset_bytes) {
        return;
    }
    manifest_reader_init(&reader,
                         record_stream_bytes(self->record, STREAM_ANNOUNCED) + text->offset_bytes,
                         (size_t)text->length_bytes);
    while (manifest_next(&reader, &entry)) {
        const enum stream_id id = manifest_stream(entry.name);
        struct record_stream *stream = NULL;

        if (id >= STREAM_COUNT) {
            continue;
        }
        stream = &self->record->streams[id];
        supervisor->announced[id] = true;
        stream->announced_bytes = entry.size_bytes;
        stream->has_announced_bytes = 1;
        if (entry.has_sha256) {
            memcpy(stream->announced_sha256, entry.sha256, SHA256_BYTES);
            stream->has_announced_sha256 = 1;
        }
    }
}

/* The guest's init told why it could not start the job. */
static void on_fatal(struct actor *self, const struct msg_text *text, uint64_t now_ns)
{
    const struct record_stream *control = &self->record->streams[STREAM_CONTROL];

    if (text->offset_bytes <= control->length_bytes &&
        text->length_bytes <= control->length_bytes - text->offset_bytes) {
        decide_error(self, BVMM_ERROR_BOOT, "bvmm's init in the guest: %.*s",
                     (int)min_u64(text->length_bytes, BVMM_ERROR_MESSAGE_BYTES),
                     (const char *)record_stream_bytes(self->record, STREAM_CONTROL) +
                         text->offset_bytes);
    }
    decide_and_stop(self, RUN_GUEST_ERROR, now_ns);
}

static void on_device_broken(struct actor *self, const struct msg *msg)
{
    struct supervisor *supervisor = self->state;
    struct record *record = self->record;
    struct device_fault *fault = NULL;

    if (record->device_fault_count >= DEVICE_FAULTS_MAX) {
        return;
    }
    fault = &record->device_faults[record->device_fault_count++];
    (void)snprintf(fault->actor, sizeof(fault->actor), "%s",
                   supervisor->config.actors[msg->from].name);
    (void)snprintf(fault->what, sizeof(fault->what), "queue %u: %s (0x%llx)", msg->broken.queue,
                   virtq_fault_text((enum virtq_fault)msg->broken.fault),
                   (unsigned long long)msg->broken.detail);
}

/* ---- The life of the machine ----------------------------------------------------------------- */

static void on_ready(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    supervisor->ready_count++;
    if (supervisor->phase != SUPERVISOR_STARTING ||
        supervisor->ready_count + 1 < supervisor->config.actor_count) {
        return;
    }
    /* All threads exist: now the thread that made them goes into its sandbox too. */
    if (self->enter_sandbox != NULL) {
        const int code = self->enter_sandbox(self, self->filter);

        if (code < 0) {
            decide_error(self, BVMM_ERROR_SANDBOX, "the supervisor cannot enter its sandbox: %s",
                         error_text(-code));
            decide_and_stop(self, RUN_VM_ERROR, now_ns);
            return;
        }
    }
    supervisor->phase = SUPERVISOR_RUNNING;
    note_time(self, TIME_SETUP_DONE, now_ns);
    set_deadline(self,
                 supervisor->config.timeout_ns == 0 ? 0 : now_ns + supervisor->config.timeout_ns);
    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        if (supervisor->config.actors[i].class == ACTOR_VCPU) {
            actor_tell(self, (actor_id)i, &(struct msg){.kind = MSG_RUN});
        }
    }
}

static void on_failed(struct actor *self, const struct msg *msg, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    decide_error(self, (enum bvmm_error_kind)msg->failure.kind, "actor %s failed: %.*s: %s",
                 supervisor->config.actors[msg->from].name, (int)sizeof(msg->failure.what),
                 msg->failure.what, error_text(-msg->failure.error));
    decide_and_stop(self, RUN_VM_ERROR, now_ns);
}

static void on_init_event(struct actor *self, const struct msg *msg, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;
    struct record *record = self->record;

    if (msg->kind == MSG_INIT_HELLO) {
        supervisor->init_seen = true;
        if (record->time_ns[TIME_GUEST_INIT] == 0) {
            note_time(self, TIME_GUEST_INIT, msg->init.host_ns);
            record->guest_time_ns[GUEST_TIME_INIT] = msg->init.guest_ns;
        }
    } else if (msg->kind == MSG_COMMAND_START) {
        note_time(self, TIME_COMMAND_START, msg->init.host_ns);
        record->guest_time_ns[GUEST_TIME_COMMAND_START] = msg->init.guest_ns;
    } else { /* INIT_BYE */
        supervisor->bye_seen = true;
        stop_if_complete(self, now_ns);
    }
}

static void on_command_end(struct actor *self, const struct msg_span *span)
{
    note_time(self, TIME_COMMAND_END, span->host_ns);
    self->record->guest_time_ns[GUEST_TIME_COMMAND_START] = span->guest_start_ns;
    self->record->guest_time_ns[GUEST_TIME_COMMAND_END] = span->guest_end_ns;
}

static void on_usage(struct actor *self, const struct msg_usage *usage)
{
    struct run_outcome *outcome = outcome_of(self);

    outcome->guest_user_ns = usage->user_ns;
    outcome->guest_system_ns = usage->system_ns;
    outcome->guest_peak_rss_bytes = usage->peak_rss_bytes;
}

void supervisor_on_message(struct actor *self, const struct msg *msg, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    switch ((enum msg_kind)msg->kind) {
    case MSG_READY:
        on_ready(self, now_ns);
        break;
    case MSG_STOPPED:
        supervisor->stopped[msg->from] = true;
        advance_stop(self, now_ns);
        break;
    case MSG_FAILED:
        on_failed(self, msg, now_ns);
        break;
    case MSG_VCPU_ENDED:
        on_vcpu_ended(self, msg, now_ns);
        break;
    case MSG_GUEST_RESET:
        on_guest_reset(self, now_ns);
        break;
    case MSG_DEVICE_BROKEN:
        on_device_broken(self, msg);
        break;
    case MSG_INIT_HELLO:
    case MSG_COMMAND_START:
    case MSG_INIT_BYE:
        on_init_event(self, msg, now_ns);
        break;
    case MSG_COMMAND_END:
        on_command_end(self, &msg->span);
        break;
    case MSG_COMMAND_USAGE:
        on_usage(self, &msg->usage);
        break;
    case MSG_COMMAND_EXIT:
        on_exit_status(self, &msg->exit);
        break;
    case MSG_INIT_MANIFEST:
        on_manifest(self, &msg->text);
        break;
    case MSG_INIT_FATAL:
        on_fatal(self, &msg->text, now_ns);
        break;
    case MSG_STREAM_END:
        on_stream_end(self, &msg->stream, now_ns);
        break;
    case MSG_NONE:
    case MSG_IO_READ:
    case MSG_IO_READ_DONE:
    case MSG_IO_WRITE:
    case MSG_IO_WRITE_ACKED:
    case MSG_IO_WRITE_DONE:
    case MSG_RUN:
    case MSG_STOP:
    case MSG_TYPE_CTRL_C:
    case MSG_TYPE_CTRL_BACKSLASH:
    case MSG_PRESS_CTRL_ALT_DEL:
    case MSG_KIND_COUNT:
        abort(); /* msg.h has no lane for it: our bug */
    }
}

void supervisor_on_deadline(struct actor *self, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (supervisor->phase_deadline_ns == 0 || now_ns < supervisor->phase_deadline_ns) {
        return;
    }
    switch (supervisor->phase) {
    case SUPERVISOR_RUNNING:
        decide(self, RUN_TIMEOUT);
        decide_error(self, BVMM_ERROR_TIMEOUT, SUPERVISOR_TIMEOUT_TEXT,
                     (unsigned long long)(supervisor->config.timeout_ns / NS_PER_SECOND));
        begin_grace(self, timeout_grace_ns(self), true, now_ns);
        break;
    case SUPERVISOR_GRACE:
        begin_stop(self, now_ns);
        break;
    case SUPERVISOR_STOPPING_VCPUS:
    case SUPERVISOR_STOPPING_DEVICES:
        give_up_waiting(self, now_ns);
        break;
    case SUPERVISOR_STARTING:
        decide_error(self, BVMM_ERROR_DEVICE, "not all actors were ready within %llu s",
                     SUPERVISOR_START_LIMIT_NS / NS_PER_SECOND);
        decide_and_stop(self, RUN_VM_ERROR, now_ns);
        break;
    case SUPERVISOR_DONE:
        break;
    }
}

void supervisor_on_signal(struct actor *self, int signal, uint64_t now_ns)
{
    struct supervisor *supervisor = self->state;

    if (outcome_of(self)->cancel_signal == 0) {
        outcome_of(self)->cancel_signal = signal;
    }
    decide(self, RUN_CANCELLED);
    if (supervisor->phase == SUPERVISOR_RUNNING) {
        begin_grace(self, SUPERVISOR_CANCEL_GRACE_NS, false, now_ns);
    } else {
        begin_stop(self, now_ns); /* a second signal, or there is nothing to ask yet */
    }
}

/* ---- The thread ------------------------------------------------------------------------------ */

static void start_all(struct actor *self)
{
    struct supervisor *supervisor = self->state;
    struct bvmm_error err;

    for (unsigned i = 1; i < supervisor->config.actor_count; i++) {
        if (actor_start(&supervisor->config.actors[i], &err) < 0) {
            decide_error(self, err.kind, "%s", err.message);
            decide_and_stop(self, RUN_VM_ERROR, clock_monotonic_ns());
            return;
        }
    }
}

static void take_messages(struct actor *self)
{
    struct msg msg;

    while (mailbox_take(self->mailbox, &msg)) {
        supervisor_on_message(self, &msg, clock_monotonic_ns());
    }
}

static void sleep_and_serve(struct actor *self)
{
    struct supervisor *supervisor = self->state;
    struct pollfd fds[] = {
        {.fd = mailbox_doorbell_fd(self->mailbox), .events = POLLIN},
        {.fd = supervisor->timer_fd, .events = POLLIN},
        {.fd = supervisor->signal_fd, .events = POLLIN},
    };
    struct signalfd_siginfo signal;

    if (mailbox_announce_sleep(self->mailbox)) {
        (void)ppoll(fds, ARRAY_SIZE(fds), NULL, NULL);
        self->stats->wakeups++;
    }
    mailbox_awake(self->mailbox, (fds[0].revents & POLLIN) != 0);
    if ((fds[2].revents & POLLIN) != 0 &&
        read(supervisor->signal_fd, &signal, sizeof(signal)) == sizeof(signal)) {
        supervisor_on_signal(self, (int)signal.ssi_signo, clock_monotonic_ns());
    }
    supervisor_on_deadline(self, clock_monotonic_ns());
}

void supervisor_run(struct actor *self)
{
    struct supervisor *supervisor = self->state;

    self->stats->tid = (uint32_t)gettid();
    __atomic_store_n(&self->stats->state, (uint32_t)ACTOR_STATE_RUNNING, __ATOMIC_RELAXED);
    set_deadline(self, clock_monotonic_ns() + SUPERVISOR_START_LIMIT_NS);
    start_all(self);
    while (supervisor->phase != SUPERVISOR_DONE) {
        take_messages(self);
        if (supervisor->phase != SUPERVISOR_DONE) {
            sleep_and_serve(self);
        }
    }
    take_messages(self); /* what devices said before STOPPED is in; a straggler's word may be too */
    note_time(self, TIME_ACTORS_STOPPED, clock_monotonic_ns());
    self->stats->cpu_ns = clock_thread_cpu_ns();
    __atomic_store_n(&self->stats->state, (uint32_t)ACTOR_STATE_STOPPED, __ATOMIC_RELAXED);
}

void supervisor_init(struct supervisor *supervisor, struct actor *self,
                     const struct supervisor_config *config, int timer_fd, int signal_fd)
{
    memset(supervisor, 0, sizeof(*supervisor));
    supervisor->config = *config;
    supervisor->timer_fd = timer_fd;
    supervisor->signal_fd = signal_fd;
    supervisor->pid = getpid();
    self->state = supervisor;
}

static const struct policy_rule supervisor_rules[] = {
    {"ppoll", {{0, POLICY_ANY, 0}}, 0, POLICY_ANY, "sleep on doorbell, deadline and signals"},
    POLICY_READ_DOORBELL,
    {"read", {{0, POLICY_SIGNALS, 0}}, 1, POLICY_ANY, "which signal cancels the run"},
    POLICY_RING_DOORBELLS,
    {"timerfd_settime", {{0, POLICY_TIMER, 0}}, 1, POLICY_ANY, "set the next deadline"},
    {"tgkill",
     {{0, POLICY_PROCESS, 0}, {2, POLICY_CONSTANT, VCPU_KICK_SIGNAL}},
     2,
     POLICY_ANY,
     "kick a vCPU out of the guest"},
    POLICY_CLOCK_MONOTONIC,
    POLICY_CLOCK_CPU,
    {"exit_group", {{0, POLICY_ANY, 0}}, 0, POLICY_ANY, "end of the VM process"},
};

const struct policy supervisor_policy = {supervisor_rules, ARRAY_SIZE(supervisor_rules)};
