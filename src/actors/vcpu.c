/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * vcpu.c: the vCPU actor. See vcpu.h.
 *
 * Thread: vcpu[i]. Blocks: KVM_RUN; reading its doorbell, while an answer is due, while a lane is
 * full, before RUN and after the end. System calls: ioctl (KVM_RUN), read and write (doorbells),
 * rt_sigreturn, clock_gettime (end).
 */
#include "actors/vcpu.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

/* ---- The kick -------------------------------------------------------------------------------- */

/* The run page of the vCPU that this thread is. For the signal handler, which gets no argument. */
static _Thread_local struct kvm_run *kick_run_page;

static void on_kick(int signal)
{
    (void)signal;
    if (kick_run_page != NULL) {
        kick_run_page->immediate_exit = 1;
    }
}

int vcpu_install_kick(void)
{
    struct sigaction action = {.sa_handler =
                                   on_kick}; /* no SA_RESTART: doorbell reads must return */
    sigset_t kick;

    (void)sigemptyset(&kick);
    (void)sigaddset(&kick, VCPU_KICK_SIGNAL);
    if (sigaction(VCPU_KICK_SIGNAL, &action, NULL) < 0) {
        return -errno;
    }
    return -pthread_sigmask(SIG_BLOCK, &kick, NULL);
}

void vcpu_prepare(struct actor *self)
{
    const struct vcpu *vcpu = self->state;
    sigset_t kick;

    kick_run_page = vcpu->kvm.run;
    (void)sigemptyset(&kick);
    (void)sigaddset(&kick, VCPU_KICK_SIGNAL);
    (void)pthread_sigmask(SIG_UNBLOCK, &kick, NULL);
}

/* ---- Messages -------------------------------------------------------------------------------- */

/*
 * Wait for a message of this kind. Return: 0; or -ECANCELED when STOP came instead: then the vCPU
 * leaves, and whatever it was waiting for does not matter any more.
 */
static int await(struct actor *self, enum msg_kind kind, struct msg *ret_msg)
{
    while (!self->stopping) {
        while (mailbox_take(self->mailbox, ret_msg)) {
            if (ret_msg->kind == MSG_STOP) {
                self->stopping = true;
            } else if (ret_msg->kind == kind) {
                return 0;
            }
        }
        if (!self->stopping) {
            const int code = mailbox_wait(self->mailbox, self->spins);

            (void)code; /* -EINTR is the kick, and STOP is there: look */
        }
    }
    return -ECANCELED;
}

/* Has STOP come? Asked after a kick, when nothing else can be in the mailbox. */
static void look_for_stop(struct actor *self)
{
    struct msg msg;

    while (mailbox_take(self->mailbox, &msg)) {
        self->stopping = self->stopping || msg.kind == MSG_STOP;
    }
}

/* Send to a device, waiting for room if need be; -ECANCELED when STOP came meanwhile. */
static int send_to_device(struct actor *self, actor_id device, const struct msg *msg)
{
    while (actor_send(self, device, msg) == -EINTR) {
        look_for_stop(self);
        if (self->stopping) {
            return -ECANCELED;
        }
    }
    return 0;
}

/* ---- Exits ----------------------------------------------------------------------------------- */

static void count_exit(struct vcpu *vcpu, enum exit_reason reason)
{
    vcpu->exits->count[reason]++;
}

/* One access of at most 8 bytes. -ECANCELED: STOP came. */
static int access_device(struct actor *self, enum arch_bus bus, uint64_t address, bool is_write,
                         unsigned width_bytes, void *data)
{
    struct vcpu *vcpu = self->state;
    const struct io_window *window = io_map_find(vcpu->map, bus, address, width_bytes);
    struct msg question = {.kind = MSG_IO_READ};
    struct msg answer;
    int code = 0;

    if (window == NULL) {
        count_exit(vcpu, EXIT_UNCLAIMED);
        if (!is_write) {
            memset(data, 0xff, width_bytes);
        }
        return 0;
    }
    question.region = window->region_index;
    question.io.offset_bytes = (uint32_t)(address - window->base);
    question.io.width_bytes = (uint8_t)width_bytes;
    if (is_write) {
        const bool posted = reg_write_is_posted(window->region, question.io.offset_bytes);

        question.kind = posted ? MSG_IO_WRITE : MSG_IO_WRITE_ACKED;
        memcpy(&question.io.value, data, width_bytes);
        code = send_to_device(self, window->device, &question);
        return code < 0 || posted ? code : await(self, MSG_IO_WRITE_DONE, &answer);
    }
    code = send_to_device(self, window->device, &question);
    if (code == 0) {
        code = await(self, MSG_IO_READ_DONE, &answer);
    }
    if (code == 0) {
        memcpy(data, &answer.io.value, width_bytes);
    }
    return code;
}

static void on_io(struct actor *self, struct kvm_run *run)
{
    struct vcpu *vcpu = self->state;
    const bool is_write = run->io.direction == KVM_EXIT_IO_OUT;
    const unsigned width_bytes = run->io.size;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    count_exit(vcpu, is_write ? EXIT_IO_OUT : EXIT_IO_IN);
    for (uint32_t i = 0; i < run->io.count; i++) { /* more than one: string instructions */
        if (access_device(self, ARCH_BUS_PIO, run->io.port, is_write, width_bytes,
                          data + (size_t)i * width_bytes) < 0) {
            return;
        }
    }
}

static void on_mmio(struct actor *self, struct kvm_run *run)
{
    struct vcpu *vcpu = self->state;
    const bool is_write = run->mmio.is_write != 0;

    count_exit(vcpu, is_write ? EXIT_MMIO_WRITE : EXIT_MMIO_READ);
    (void)access_device(self, ARCH_BUS_MMIO, run->mmio.phys_addr, is_write, run->mmio.len,
                        run->mmio.data);
}

/* This vCPU runs no further: tell why, and wait for STOP. */
static void end(struct actor *self, enum vcpu_end_reason reason)
{
    struct vcpu *vcpu = self->state;
    struct msg msg = {.kind = MSG_VCPU_ENDED};

    msg.vcpu_end.reason = (uint32_t)reason;
    msg.vcpu_end.error = &vcpu->end_error;
    actor_tell(self, ACTOR_ID_SUPERVISOR, &msg);
    (void)await(self, MSG_STOP, &msg);
}

static void end_by_system_event(struct actor *self, const struct kvm_run *run)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        end(self, VCPU_END_POWER_OFF);
        break;
    case KVM_SYSTEM_EVENT_RESET:
        end(self, VCPU_END_RESET);
        break;
    default:
        end(self, VCPU_END_CRASH);
        break;
    }
}

static void end_by_failure(struct actor *self, const struct kvm_run *run)
{
    struct vcpu *vcpu = self->state;

    kvm_describe_exit(run, self->index, &vcpu->end_error);
    end(self, VCPU_END_FAILED);
}

static void on_exit_reason(struct actor *self, struct kvm_run *run)
{
    struct vcpu *vcpu = self->state;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        on_io(self, run);
        break;
    case KVM_EXIT_MMIO:
        on_mmio(self, run);
        break;
    case KVM_EXIT_INTR:
        count_exit(vcpu, EXIT_INTERRUPTED);
        break;
    case KVM_EXIT_SHUTDOWN:
        count_exit(vcpu, EXIT_SHUTDOWN);
        end(self, VCPU_END_TRIPLE_FAULT);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        count_exit(vcpu, EXIT_SYSTEM_EVENT);
        end_by_system_event(self, run);
        break;
    case KVM_EXIT_HLT:
        count_exit(vcpu, EXIT_HLT);
        end_by_failure(self, run); /* with KVM's interrupt controller it never gets here */
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        count_exit(vcpu, EXIT_INTERNAL_ERROR);
        end_by_failure(self, run);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        count_exit(vcpu, EXIT_FAIL_ENTRY);
        end_by_failure(self, run);
        break;
    default:
        count_exit(vcpu, EXIT_OTHER);
        end_by_failure(self, run);
        break;
    }
}

void vcpu_run(struct actor *self)
{
    struct vcpu *vcpu = self->state;
    struct msg msg;

    if (await(self, MSG_RUN, &msg) < 0) {
        return;
    }
    __atomic_store_n(&self->stats->state, (uint32_t)ACTOR_STATE_RUNNING, __ATOMIC_RELAXED);
    while (!self->stopping) {
        int code = kvm_run(&vcpu->kvm);

        if (code == -EINTR || code == -EAGAIN) {
            count_exit(vcpu, EXIT_INTERRUPTED);
            vcpu->kvm.run->immediate_exit = 0;
            look_for_stop(self);
        } else if (code < 0) {
            (void)error_set(&vcpu->end_error, BVMM_ERROR_VCPU, code, "vCPU %u: KVM_RUN failed: %s",
                            self->index, error_text(-code));
            end(self, VCPU_END_FAILED);
        } else {
            on_exit_reason(self, vcpu->kvm.run);
        }
    }
}

void vcpu_init(struct vcpu *vcpu, struct actor *self, struct kvm_vcpu_handle kvm,
               const struct io_map *map)
{
    vcpu->kvm = kvm;
    vcpu->map = map;
    vcpu->exits = &self->record->exits[self->index];
    vcpu->end_error = (struct bvmm_error){.kind = BVMM_ERROR_NONE};
    self->state = vcpu;
}

static const struct policy_rule vcpu_rules[] = {
    {"ioctl",
     {{0, POLICY_VCPU, 0}, {1, POLICY_CONSTANT, KVM_RUN}},
     2,
     POLICY_ANY,
     "run the guest; no other ioctl, on no other descriptor"},
    POLICY_READ_DOORBELL,
    POLICY_RING_DOORBELLS,
    {"rt_sigreturn", {{0, POLICY_ANY, 0}}, 0, POLICY_ANY, "return from the kick"},
    POLICY_CLOCK_CPU,
    POLICY_EXIT_THREAD,
};

const struct policy vcpu_policy = {vcpu_rules, ARRAY_SIZE(vcpu_rules)};
