/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * machine.c: the assembly of a machine. Who there is, at which address and interrupt line, and who
 * can send to whom, is decided here and in the tables that this file reads: actors/actor_table.c
 * (what each class does) and mailbox/msg.h (what may be said).
 *
 * Thread: the VM process's main thread, before any other exists. Blocks on files and ioctls only.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "actors/blk.h"
#include "actors/i8042.h"
#include "actors/io_map.h"
#include "actors/serial.h"
#include "actors/supervisor.h"
#include "actors/vcpu.h"
#include "actors/vsock.h"
#include "actors/vsock_bridge.h"
#include "actors/vsock_broker.h"
#include "arch/arch.h"
#include "arch/kvm.h"
#include "vmm/bundled_kernel.h"
#include "vmm/filter.h"
#include "vmm/initramfs.h"
#include "vmm/jail.h"

#define CMDLINE_MAX_BYTES 4096

/*
 * How long an actor looks before it sleeps. A vCPU that waits for an answer is what the guest
 * notices, and a device that has just been asked is likely to be asked again: Linux looks at a
 * UART's status and then writes. docs/architecture.md has the measurements.
 */
#define SPIN_NS 2000

#define VSOCK_DESCRIPTORS 2048

struct machine {
    const struct job *job;
    struct record *record;
    int kvm_fd;
    int vm_fd;
    int timer_fd;
    int signal_fd;
    struct arch_vm *arch;
    struct guest_memory memory;
    struct arch_blob kernel; /* open, until it is loaded */
    int bundled_fd;          /* the kernel's, if it is ours; else -1 */
    struct io_map io_map;
    unsigned virtio_count; /* slots in use */

    unsigned spins; /* of every actor: see mailbox_wait() */
    unsigned actor_count;
    struct actor actors[ACTORS_MAX];
    int irq_fds[ACTORS_MAX]; /* by actor; -1: it has no interrupt line */

    /* The state of the actors, each touched only by its thread once it runs. */
    struct supervisor supervisor;
    struct serial serial;
    struct i8042 i8042;
    struct blk blks[DRIVES_MAX];
    unsigned blk_count;
    struct vsock vsock;
    struct vsock_bridge *vsock_bridge; /* NULL: no vsock_path */
    struct vcpu vcpus[VCPUS_MAX];
    struct kvm_vcpu_handle vcpu_handles[VCPUS_MAX];
    unsigned vcpu_count;
};

static void close_if_open(int *fd)
{
    if (*fd >= 0) {
        (void)close(*fd);
    }
    *fd = -1;
}

/* ---- 1. The virtual machine ------------------------------------------------------------------ */

static int make_vm(struct machine *machine, struct bvmm_error *err)
{
    struct guest_range ranges[GUEST_MEMORY_REGIONS_MAX];
    const unsigned count = arch_memory_layout(machine->job->memory_mib * MIB, ranges);
    int code = kvm_open(KVM_DEVICE_PATH, &machine->kvm_fd, err);

    if (code == 0 && arch_kvm_needs_probe()) {
        code = arch_kvm_probe(machine->kvm_fd, err);
    }
    if (code == 0) {
        code = guest_memory_init(&machine->memory, ranges, count, err);
    }
    if (code == 0) {
        code = kvm_create_vm(machine->kvm_fd, arch_vm_type(machine->kvm_fd), &machine->vm_fd, err);
    }
    if (code == 0) {
        code = kvm_set_memory(machine->vm_fd, &machine->memory, err);
    }
    if (code == 0) {
        code =
            arch_vm_new(machine->kvm_fd, machine->vm_fd, machine->vcpu_count, &machine->arch, err);
    }
    if (code == 0 && machine->job->kernel.path != NULL) {
        code = arch_vm_add_legacy_timer(machine->arch, err); /* the bundled kernel needs none */
    }
    for (unsigned i = 0; i < machine->vcpu_count && code == 0; i++) {
        code = kvm_create_vcpu(machine->kvm_fd, machine->vm_fd, i, &machine->vcpu_handles[i], err);
        if (code == 0) {
            code = arch_vcpu_init(machine->arch, i, machine->vcpu_handles[i].fd, err);
        }
    }
    return code < 0 ? code : arch_vm_finish(machine->arch, err);
}

/* ---- 2. The actors, and the lanes between them ----------------------------------------------- */

static void add_actor(struct machine *machine, enum actor_class class, unsigned index,
                      bool numbered)
{
    const actor_id id = (actor_id)machine->actor_count++;
    struct actor *actor = &machine->actors[id];

    actor_init(actor, class, id, index, numbered, machine->record);
    actor->spins = machine->spins;
}

/* The supervisor is 0; devices before vCPUs. */
static void add_actors(struct machine *machine)
{
    machine->spins = mailbox_spins(SPIN_NS);
    add_actor(machine, ACTOR_SUPERVISOR, 0, false);
    add_actor(machine, ACTOR_SERIAL, 0, false);
    if (arch_platform.i8042.bus != ARCH_BUS_NONE) {
        add_actor(machine, ACTOR_I8042, 0, false);
    }
    for (unsigned i = 0; i < machine->blk_count; i++) {
        add_actor(machine, ACTOR_BLK, i, true);
    }
    if (machine->job->vsock) {
        add_actor(machine, ACTOR_VSOCK, 0, false);
    }
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        add_actor(machine, ACTOR_VCPU, i, true);
    }
    machine->record->actor_count = machine->actor_count;
}

/* The one that add_actors() made. */
static struct actor *find_actor(struct machine *machine, enum actor_class class, unsigned index)
{
    for (unsigned i = 0; i < machine->actor_count; i++) {
        if (machine->actors[i].class == class && machine->actors[i].index == index) {
            return &machine->actors[i];
        }
    }
    abort(); /* add_actors() and its callers disagree: our bug */
}

static bool lane_wanted(const struct actor *from, const struct actor *to)
{
    return from != to && msg_lane_needed(from->class, to->class);
}

/* A mailbox for each actor, with a lane for each actor that msg.h lets send to it. */
static int make_mailboxes(struct machine *machine, struct bvmm_error *err)
{
    for (unsigned i = 0; i < machine->actor_count; i++) {
        struct actor *to = &machine->actors[i];
        unsigned lanes = 0;
        int code = 0;

        for (unsigned j = 0; j < machine->actor_count; j++) {
            lanes += lane_wanted(&machine->actors[j], to) ? 1 : 0;
        }
        code = mailbox_new(lanes, to->stats, &to->mailbox);
        if (code < 0) {
            return error_set(err, BVMM_ERROR_MEMORY, code,
                             "cannot make the mailbox of actor %s: %s", to->name,
                             error_text(-code));
        }
    }
    return 0;
}

static void connect_lanes(struct machine *machine)
{
    for (unsigned i = 0; i < machine->actor_count; i++) {
        struct actor *to = &machine->actors[i];
        unsigned lane = 0;

        for (unsigned j = 0; j < machine->actor_count; j++) {
            struct actor *from = &machine->actors[j];

            if (lane_wanted(from, to)) {
                from->lane_to[to->id] = mailbox_lane(
                    to->mailbox, lane++, from->id, mailbox_doorbell_fd(from->mailbox), from->stats);
            }
        }
    }
}

/* ---- 3. The devices: addresses, interrupt lines, what they serve ----------------------------- */

static void map_window(struct machine *machine, const struct arch_window *window,
                       const struct reg_region_def *region, const struct actor *device)
{
    machine->io_map.windows[machine->io_map.count++] = (struct io_window){
        .bus = window->bus,
        .base = window->base,
        .region = region,
        .device = device->id,
    };
}

/* The eventfd by which the device raises its line. */
static int make_irq(struct machine *machine, const struct arch_window *window,
                    const struct actor *device, struct bvmm_error *err)
{
    const int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    if (fd < 0) {
        return error_set(err, BVMM_ERROR_DEVICE, -errno, "actor %s: eventfd: %s", device->name,
                         error_text(errno));
    }
    machine->irq_fds[device->id] = fd;
    return kvm_irqfd(machine->vm_fd, fd, window->gsi, err);
}

static int attach_serial(struct machine *machine, struct bvmm_error *err)
{
    struct actor *device = find_actor(machine, ACTOR_SERIAL, 0);
    int code = make_irq(machine, &arch_platform.serial, device, err);

    if (code == 0) {
        map_window(machine, &arch_platform.serial, &serial_region, device);
        serial_init(&machine->serial, device, machine->irq_fds[device->id]);
    }
    return code;
}

static int attach_i8042(struct machine *machine, struct bvmm_error *err)
{
    struct actor *device = NULL;
    int code = 0;

    if (arch_platform.i8042.bus == ARCH_BUS_NONE) {
        return 0; /* this architecture has none */
    }
    device = find_actor(machine, ACTOR_I8042, 0);
    code = make_irq(machine, &arch_platform.i8042, device, err);
    if (code == 0) {
        map_window(machine, &arch_platform.i8042, &i8042_region, device);
        i8042_init(&machine->i8042, device, machine->irq_fds[device->id]);
    }
    return code;
}

/* Registers, interrupt, and the doorbell that KVM rings when the guest notifies a queue. */
static int attach_virtio(struct machine *machine, struct actor *device, unsigned queues,
                         struct bvmm_error *err)
{
    const struct arch_window *slot = &arch_platform.virtio[machine->virtio_count++];
    int code = make_irq(machine, slot, device, err);

    map_window(machine, slot, &virtio_mmio_region, device);
    for (uint64_t queue = 0; queue < queues && code == 0; queue++) {
        code = kvm_ioeventfd(machine->vm_fd, mailbox_doorbell_fd(device->mailbox), slot->bus,
                             slot->base + VIRTIO_MMIO_QUEUE_NOTIFY, 4, &queue, err);
    }
    return code;
}

static int attach_blk(struct machine *machine, const struct job_file *image, unsigned index,
                      struct bvmm_error *err)
{
    struct actor *device = find_actor(machine, ACTOR_BLK, index);
    char id[BLK_ID_BYTES + 1];
    int code = attach_virtio(machine, device, 1, err);

    (void)snprintf(id, sizeof(id), "bvmm-blk%u", index);
    blk_init(&machine->blks[index], device, machine->irq_fds[device->id], &machine->memory,
             image->fd, image->size_bytes, id);
    return code;
}

/* Each of the guest's connections may become a socket: more than the usual limit of 1,024. */
static void allow_descriptors(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < VSOCK_DESCRIPTORS) {
        limit.rlim_cur = limit.rlim_max < VSOCK_DESCRIPTORS ? limit.rlim_max : VSOCK_DESCRIPTORS;
        (void)setrlimit(RLIMIT_NOFILE, &limit); /* with fewer, connections wait or are refused */
    }
}

static int make_bridge(struct machine *machine, struct bvmm_error *err)
{
    struct vsock_broker *broker = machine->job->vsock_broker;
    int code = 0;

    if (broker == NULL) {
        return 0;
    }
    allow_descriptors();
    code = vsock_bridge_new(vsock_broker_listen_fd(broker), vsock_broker_actor_fd(broker),
                            &machine->vsock_bridge);
    return code == 0 ? 0
                     : error_set(err, BVMM_ERROR_MEMORY, code, "cannot make the vsock bridge: %s",
                                 error_text(-code));
}

static int attach_vsock(struct machine *machine, struct bvmm_error *err)
{
    struct actor *device = NULL;
    int code = 0;

    if (!machine->job->vsock) {
        return 0;
    }
    device = find_actor(machine, ACTOR_VSOCK, 0);
    code = make_bridge(machine, err);
    if (code == 0) {
        code = attach_virtio(machine, device, VSOCK_QUEUES, err);
    }
    vsock_init(&machine->vsock, device, machine->irq_fds[device->id], &machine->memory,
               machine->vsock_bridge);
    return code;
}

static int attach_devices(struct machine *machine, struct bvmm_error *err)
{
    const struct job *job = machine->job;
    unsigned blk = 0;
    int code = attach_serial(machine, err);

    if (code == 0) {
        code = attach_i8042(machine, err);
    }
    if (code == 0 && job->rootfs.path != NULL) {
        code = attach_blk(machine, &job->rootfs, blk++, err);
    }
    for (size_t i = 0; i < job->drive_count && code == 0; i++) {
        code = attach_blk(machine, &job->drives[i].image, blk++, err);
    }
    return code < 0 ? code : attach_vsock(machine, err);
}

static void attach_vcpus(struct machine *machine)
{
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        vcpu_init(&machine->vcpus[i], find_actor(machine, ACTOR_VCPU, i), machine->vcpu_handles[i],
                  &machine->io_map);
    }
}

static int attach_supervisor(struct machine *machine, struct bvmm_error *err)
{
    const struct supervisor_config config = {
        .timeout_ns = machine->job->timeout_secs * NS_PER_SECOND,
        .has_command = machine->job->command.count > 0,
        .has_i8042 = arch_platform.i8042.bus != ARCH_BUS_NONE,
        .actors = machine->actors,
        .actor_count = machine->actor_count,
    };
    sigset_t signals;

    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGHUP);
    (void)pthread_sigmask(SIG_BLOCK, &signals, NULL);
    machine->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    machine->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (machine->signal_fd < 0 || machine->timer_fd < 0) {
        return error_set(err, BVMM_ERROR_IO, -errno, "cannot make the supervisor's timer: %s",
                         error_text(errno));
    }
    supervisor_init(&machine->supervisor, &machine->actors[ACTOR_ID_SUPERVISOR], &config,
                    machine->timer_fd, machine->signal_fd);
    return 0;
}

/* ---- 4. The kernel and what it is told, in the jail ------------------------------------------ */

/* The k-th virtio block device is /dev/vda + k. */
static void describe_mounts(const struct job *job, struct guest_job_mount mounts[DRIVES_MAX],
                            char names[DRIVES_MAX][16], size_t *ret_count)
{
    const unsigned first = job->rootfs.path != NULL ? 1 : 0;
    size_t count = 0;

    for (size_t i = 0; i < job->drive_count; i++) {
        if (job->drives[i].mount != NULL) {
            (void)snprintf(names[count], sizeof(names[count]), "/dev/vd%c",
                           (char)('a' + (int)(first + i)));
            mounts[count] = (struct guest_job_mount){
                .device = names[count],
                .path = job->drives[i].mount,
                .fstype = job_fstype_name((enum job_fstype)job->drives[i].fstype),
            };
            count++;
        }
    }
    *ret_count = count;
}

/* bvmm's init and the job, as an initramfs, behind the job's own initrd if it has one. */
static int make_initramfs(struct machine *machine, uint8_t **ret_bytes, size_t *ret_count,
                          struct bvmm_error *err)
{
    const struct job *job = machine->job;
    struct guest_job_mount mounts[DRIVES_MAX];
    char names[DRIVES_MAX][16];
    struct guest_job guest;

    guest_job_init(&guest);
    memcpy(guest.nonce, machine->record->nonce, NONCE_BYTES);
    guest.root_device = "/dev/vda";
    guest.root_fstype = job_fstype_name((enum job_fstype)job->rootfs_type);
    guest.args = (const char *const *)job->command.items;
    guest.arg_count = job->command.count;
    guest.env = (const char *const *)job->env.items;
    guest.env_count = job->env.count;
    guest.workdir = job->workdir != NULL ? job->workdir : guest.workdir;
    guest.user = job->user != NULL ? job->user : guest.user;
    guest.hostname = job->hostname != NULL ? job->hostname : guest.hostname;
    guest.outputs = (const char *const *)job->output_files.items;
    guest.output_count = job->output_files.count;
    guest.mounts = mounts;
    describe_mounts(job, mounts, names, &guest.mount_count);
    guest.stream_limit_bytes[STREAM_STDOUT] = job->limits.stdout_bytes;
    guest.stream_limit_bytes[STREAM_STDERR] = job->limits.stderr_bytes;
    guest.stream_limit_bytes[STREAM_OUTPUT] = job->limits.output_bytes;
    guest.tmpfs_limit_bytes = job->tmpfs_mib * MIB;
    guest.vsock = job->vsock;
    guest.realtime_ns = clock_realtime_ns();
    return initramfs_build(&guest, job->stdin_file.fd, job->initrd.fd, ret_bytes, ret_count, err);
}

/* Not a byte of it is looked at. */
static int open_kernel(struct machine *machine, struct bvmm_error *err)
{
    const struct job *job = machine->job;
    struct arch_blob *kernel = &machine->kernel;
    size_t bytes = 0;
    int code = 0;

    if (job->kernel.path != NULL) {
        *kernel = (struct arch_blob){
            .name = job->kernel.path, .fd = job->kernel.fd, .size_bytes = job->kernel.size_bytes};
        return 0;
    }
    *kernel = (struct arch_blob){.name = "the bundled kernel", .fd = -1};
    kernel->bytes = bundled_kernel_embedded(&bytes);
    if (kernel->bytes == NULL) {
        code = bundled_kernel_open(&machine->bundled_fd, &bytes, err);
        kernel->fd = machine->bundled_fd;
    }
    kernel->size_bytes = bytes;
    return code;
}

static int make_cmdline(const struct machine *machine, char *ret_text, size_t size,
                        struct bvmm_error *err)
{
    const struct job *job = machine->job;
    char user[CMDLINE_MAX_BYTES];
    const char *append = job->kernel_cmdline_append;
    const int length = snprintf(user, sizeof(user), "%s%s%s", job->kernel_cmdline,
                                append != NULL ? " " : "", append != NULL ? append : "");

    if (length < 0 || (size_t)length >= sizeof(user)) {
        return error_set(err, BVMM_ERROR_BOOT, -E2BIG,
                         "kernel_cmdline and kernel_cmdline_append have %d bytes together; at most "
                         "%zu are possible",
                         length, sizeof(user) - 1);
    }
    return arch_cmdline(user, arch_platform.virtio, machine->virtio_count, ret_text, size, err);
}

static int load(struct machine *machine, struct arch_boot *ret_boot, struct bvmm_error *err)
{
    const struct job *job = machine->job;
    char cmdline[CMDLINE_MAX_BYTES];
    struct arch_blob initrd = {.name = "the initramfs", .fd = -1};
    struct arch_boot_request request = {
        .kernel = &machine->kernel,
        .initrd = &initrd,
        .cmdline = cmdline,
        .virtio = arch_platform.virtio,
        .virtio_count = machine->virtio_count,
    };
    uint8_t *initramfs = NULL;
    size_t initramfs_bytes = 0;
    int code = make_cmdline(machine, cmdline, sizeof(cmdline), err);

    if (code == 0 && job->command.count > 0) {
        code = make_initramfs(machine, &initramfs, &initramfs_bytes, err);
        initrd.bytes = initramfs;
        initrd.size_bytes = initramfs_bytes;
        request.initrd_parts = 1;
    } else if (code == 0 && job->initrd.path != NULL) {
        initrd = (struct arch_blob){
            .name = job->initrd.path, .fd = job->initrd.fd, .size_bytes = job->initrd.size_bytes};
        request.initrd_parts = 1;
    }
    if (code == 0) {
        code = arch_load_kernel(machine->arch, &machine->memory, &request, ret_boot, err);
    }
    free(initramfs);
    return code;
}

int machine_load(struct machine *machine, struct bvmm_error *err)
{
    struct arch_boot arch_boot;
    int code = load(machine, &arch_boot, err);

    for (unsigned i = 0; i < machine->vcpu_count && code == 0; i++) {
        code = arch_vcpu_boot(machine->arch, i, machine->vcpu_handles[i].fd, &arch_boot, err);
    }
    close_if_open(&machine->bundled_fd);
    return code;
}

static int assemble(struct machine *machine, struct bvmm_error *err)
{
    int code = make_vm(machine, err);

    if (code == 0) {
        add_actors(machine);
        code = make_mailboxes(machine, err);
    }
    if (code == 0) {
        connect_lanes(machine);
        code = attach_devices(machine, err);
    }
    if (code == 0) {
        attach_vcpus(machine);
        code = attach_supervisor(machine, err);
    }
    return code < 0 ? code : open_kernel(machine, err);
}

/* ---- 5. The sandbox of each actor ------------------------------------------------------------ */

/* What the names in the actor's policy stand for in this machine. */
static void policy_numbers(const struct machine *machine, const struct actor *actor,
                           struct policy_numbers *ret)
{
    memset(ret, 0, sizeof(*ret));
    policy_add_number(ret, POLICY_OWN_DOORBELL, (uint64_t)mailbox_doorbell_fd(actor->mailbox));
    for (unsigned i = 0; i < machine->actor_count; i++) {
        const struct actor *other = &machine->actors[i];

        /* Those that it sends to; and those that send to it, which may wait for room in the lane. */
        if (lane_wanted(actor, other) ||
            (lane_wanted(other, actor) && other->class == ACTOR_VCPU)) {
            policy_add_number(ret, POLICY_DOORBELLS, (uint64_t)mailbox_doorbell_fd(other->mailbox));
        }
    }
    if (machine->irq_fds[actor->id] >= 0) {
        policy_add_number(ret, POLICY_IRQ, (uint64_t)machine->irq_fds[actor->id]);
    }
    if (actor->class == ACTOR_BLK) {
        policy_add_number(ret, POLICY_IMAGE, (uint64_t)machine->blks[actor->index].image_fd);
    }
    if (actor->class == ACTOR_VCPU) {
        policy_add_number(ret, POLICY_VCPU, (uint64_t)machine->vcpu_handles[actor->index].fd);
    }
    if (actor->class == ACTOR_VSOCK && machine->vsock_bridge != NULL) {
        policy_add_number(ret, POLICY_HOST_SOCKETS,
                          (uint64_t)vsock_broker_listen_fd(machine->job->vsock_broker));
        policy_add_number(ret, POLICY_BRIDGE_LIST,
                          (uint64_t)vsock_bridge_epoll_fd(machine->vsock_bridge));
    }
    if (actor->class == ACTOR_SUPERVISOR) {
        policy_add_number(ret, POLICY_TIMER, (uint64_t)machine->timer_fd);
        policy_add_number(ret, POLICY_SIGNALS, (uint64_t)machine->signal_fd);
        policy_add_number(ret, POLICY_PROCESS, (uint64_t)getpid());
    }
}

/* Make the filters; each thread enters its own. */
static int make_filters(struct machine *machine, struct bvmm_error *err)
{
    struct policy_numbers numbers;
    struct filter *filter = NULL;
    int code = filter_prepare(machine->record);

    if (code < 0) {
        return error_set(err, BVMM_ERROR_SANDBOX, code, "cannot install the handler of SIGSYS: %s",
                         error_text(-code));
    }
    for (unsigned i = 0; i < machine->actor_count && code == 0; i++) {
        struct actor *actor = &machine->actors[i];

        policy_numbers(machine, actor, &numbers);
        code = filter_new(actor->name, actor->def->policy, &numbers, &filter, err);
        actor->filter = filter;
        actor->enter_sandbox = filter_enter;
    }
    if (code == 0) {
        machine->record->sandbox.layers |= 1U << SANDBOX_SECCOMP;
    }
    return code;
}

int machine_enter_sandbox(struct machine *machine, struct bvmm_error *err)
{
    const enum job_sandbox mode = (enum job_sandbox)machine->job->sandbox;
    int code = 0;

    close_if_open(&machine->kvm_fd); /* all that it was for is done */
    /* Filters first: making them takes files that the jail does not have. */
    if (mode != JOB_SANDBOX_OFF && filter_possible()) {
        code = make_filters(machine, err);
    } else if (mode != JOB_SANDBOX_OFF) {
        (void)snprintf(machine->record->sandbox.refused, sizeof(machine->record->sandbox.refused),
                       "seccomp: this bvmm was built with sanitizers");
    }
    return code < 0 ? code : jail_enter(mode, machine->record, err);
}

int machine_new(const struct job *job, struct record *record, struct machine **ret_machine,
                struct bvmm_error *err)
{
    struct machine *machine = calloc(1, sizeof(*machine));
    int code = 0;

    if (machine == NULL) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "no memory for the machine");
    }
    machine->job = job;
    machine->record = record;
    machine->kvm_fd = -1;
    machine->vm_fd = -1;
    machine->bundled_fd = -1;
    machine->timer_fd = -1;
    machine->signal_fd = -1;
    machine->vcpu_count = (unsigned)job->vcpus;
    machine->blk_count = (unsigned)job->drive_count + (job->rootfs.path != NULL ? 1 : 0);
    for (unsigned i = 0; i < ACTORS_MAX; i++) {
        machine->irq_fds[i] = -1;
    }
    for (unsigned i = 0; i < VCPUS_MAX; i++) {
        machine->vcpu_handles[i] = (struct kvm_vcpu_handle){.fd = -1};
    }
    code = assemble(machine, err);
    if (code < 0) {
        machine_free(machine);
        return code;
    }
    *ret_machine = machine;
    return 0;
}

void machine_run(struct machine *machine)
{
    supervisor_run(&machine->actors[ACTOR_ID_SUPERVISOR]);
}

void machine_free(struct machine *machine)
{
    if (machine == NULL) {
        return;
    }
    for (unsigned i = 0; i < machine->vcpu_count; i++) {
        kvm_vcpu_close(&machine->vcpu_handles[i]);
    }
    for (unsigned i = 0; i < machine->actor_count; i++) {
        mailbox_free(machine->actors[i].mailbox);
    }
    for (unsigned i = 0; i < ACTORS_MAX; i++) {
        close_if_open(&machine->irq_fds[i]);
    }
    vsock_bridge_free(machine->vsock_bridge);
    arch_vm_free(machine->arch);
    close_if_open(&machine->timer_fd);
    close_if_open(&machine->signal_fd);
    close_if_open(&machine->bundled_fd);
    close_if_open(&machine->vm_fd);
    close_if_open(&machine->kvm_fd);
    guest_memory_fini(&machine->memory);
    free(machine);
}
