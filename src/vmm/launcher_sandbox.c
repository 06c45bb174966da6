/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* launcher_sandbox.c: see launcher_sandbox.h. Thread: main. Blocks on nothing. */
#include "vmm/launcher_sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "actors/vsock_broker.h"
#include "vmm/filter.h"
#include "vmm/jail.h"
#include "vmm/landlock.h"
#include "vmm/last_words.h"
#include "vmm/launcher_policy.h"
#include "vmm/report.h"

static struct filter *narrower; /* for when the VM process is gone */

static void add_fd(struct policy_numbers *numbers, enum policy_value value, int fd)
{
    if (fd >= 0) {
        policy_add_number(numbers, value, (uint64_t)(unsigned)fd);
    }
}

/* What the names in the tables stand for in this run. */
static void fill_numbers(const struct launcher_view *view, struct policy_numbers *numbers)
{
    const struct job *job = view->job;

    memset(numbers, 0, sizeof(*numbers));
    add_fd(numbers, POLICY_VM_PIDFD, view->pidfd);
    add_fd(numbers, POLICY_VM_SOCKET, view->alive_fd);
    add_fd(numbers, POLICY_CANCEL, view->cancel_fd);
    add_fd(numbers, POLICY_BROKER, vsock_broker_fd(job->vsock_broker));
    add_fd(numbers, POLICY_CGROUP_BASE, cgroup_base_fd(view->cgroup));
    for (unsigned i = 0; i < CGROUP_COUNTERS; i++) {
        add_fd(numbers, POLICY_CGROUP_READ, cgroup_counter_fd(view->cgroup, i));
    }
    add_fd(numbers, POLICY_KERNEL_FILE, job->kernel.fd);
    add_fd(numbers, POLICY_REPORT_DIRS, job->report_dir_fd);
    add_fd(numbers, POLICY_REPORT_DIRS, job->large_dir_fd);
    add_fd(numbers, POLICY_LARGE_DIR, job->large_dir_fd);
}

/* A number that the directory of large outputs can get later, when it is known whether there are any. */
static int keep_number(struct job *job)
{
    if (!job_given(job, JOB_KEY_LARGE_OUTPUTS) || job->large_dir_fd >= 0) {
        return 0;
    }
    job->large_dir_fd = fd_above_standard(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
    return job->large_dir_fd < 0 ? -errno : 0;
}

/* ---- Places ---------------------------------------------------------------------------------- */

#define NEW_FILES (LANDLOCK_FS_WRITE_FILE | LANDLOCK_FS_MAKE_REG | LANDLOCK_FS_REMOVE_FILE)
#define PLACES_MAX 4

struct places {
    struct landlock_place at[PLACES_MAX];
    int opened[PLACES_MAX]; /* of these: ours to close; else -1 */
    unsigned count;
};

static void add_place(struct places *places, int fd, bool ours, uint64_t rights)
{
    if (fd >= 0) {
        places->at[places->count] = (struct landlock_place){.fd = fd, .fs = rights};
        places->opened[places->count] = ours ? fd : -1;
        places->count++;
    }
}

static int open_place(const char *path)
{
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The directory that has path's last component. */
static int open_parent(const char *path)
{
    char *copy = strdup(path);
    const int fd = copy != NULL ? open_place(dirname(copy)) : -1;

    free(copy);
    return fd;
}

/* If it is not there, it will be made, or removed again if it takes no file: its parent is the place. */
static void add_large_outputs(const struct job *job, struct places *places)
{
    char *path = report_large_dir_path(job);
    int fd = path != NULL ? open_place(path) : -1;
    uint64_t rights = NEW_FILES | LANDLOCK_FS_READ_DIR;

    if (fd < 0 && path != NULL) {
        fd = open_parent(path);
        rights |= LANDLOCK_FS_MAKE_DIR | LANDLOCK_FS_REMOVE_DIR;
    }
    add_place(places, fd, true, rights);
    free(path);
}

/*
 * What the filters cannot say: where. Of the file system the launcher keeps what the rows of its tables
 * are for. A kernel without Landlock is no error, as for the VM process.
 */
static int keep_to_places(const struct launcher_view *view)
{
    const struct job *job = view->job;
    struct places places = {.count = 0};
    int code = 0;

    add_place(&places, job->report_dir_fd, false, NEW_FILES);
    add_place(&places, cgroup_base_fd(view->cgroup), false,
              LANDLOCK_FS_READ_DIR | LANDLOCK_FS_REMOVE_DIR);
    if (job->vsock_broker != NULL) {
        add_place(&places, open_parent(job->vsock_path), true, LANDLOCK_FS_REMOVE_FILE);
    }
    if (job_given(job, JOB_KEY_LARGE_OUTPUTS)) {
        add_large_outputs(job, &places);
    }
    code = landlock_forbid_other_places(places.at, places.count);
    for (unsigned i = 0; i < places.count; i++) {
        if (places.opened[i] >= 0) {
            (void)close(places.opened[i]);
        }
    }
    return code == -ENOSYS ? 0 : code;
}

/* ---- Filters --------------------------------------------------------------------------------- */

/* *ret_filter: the first one, to be put on. */
static int make_filters(const struct launcher_view *view, struct filter **ret_filter,
                        struct bvmm_error *err)
{
    const struct launcher_def *waiting = &launcher_defs[LAUNCHER_WAITING];
    const struct launcher_def *writing = &launcher_defs[LAUNCHER_WRITING];
    struct policy_numbers numbers;
    int code = 0;

    fill_numbers(view, &numbers);
    code = filter_new(writing->name, writing->policy, &numbers, &narrower, err);
    if (code == 0) {
        policy_add_number(&numbers, POLICY_NEXT_FILTER, filter_address(narrower));
        code = filter_new(waiting->name, waiting->policy, &numbers, ret_filter, err);
    }
    return code;
}

static int wait_guarded(void *ctx, const struct launcher_view *view, struct bvmm_error *err)
{
    struct filter *filter = NULL;
    int code = keep_number(view->job);

    (void)ctx;
    err->kind = BVMM_ERROR_NONE;
    tzset(); /* what the C library reads once, for gmtime_r() */
    if (code == 0) {
        code = last_words_prepare(view, err);
    }
    if (code == 0) {
        code = make_filters(view, &filter, err);
    }
    if (code < 0) {
        return err->kind != BVMM_ERROR_NONE ? code
                                            : jail_refusal(SANDBOX_LAUNCHER_SECCOMP, code, err);
    }
    code = filter_catch(last_words_forbidden);
    if (code == 0) {
        code = prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : keep_to_places(view);
    }
    if (code == 0) {
        code = filter_put_on(filter);
    }
    filter_free(filter);
    return code < 0 ? jail_refusal(SANDBOX_LAUNCHER_SECCOMP, code, err) : 0;
}

static void write_guarded(void *ctx)
{
    (void)ctx;
    last_words_vm_gone();
    if (filter_put_on(narrower) < 0) {
        __builtin_trap(); /* no memory; then it is not to read what the VM process left: last_words.h */
    }
}

const struct launcher_guard *launcher_sandbox(void)
{
    static const struct launcher_guard guard = {.waiting = wait_guarded, .writing = write_guarded};

    return &guard;
}
