/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * jail.c: the layers of the sandbox that hold for the whole VM process. See jail.h.
 *
 * Thread: the VM process's main thread, before any other exists. Blocks on nothing.
 */
#include "vmm/jail.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vmm/landlock.h"

/* Who bvmm is when root started it; the kernel's overflow ids, which own nothing. */
#define NOBODY_ID 65534

static const char *const empty_root = "/proc"; /* always there to be mounted upon, also read-only */

struct jail {
    struct record *record;
    uid_t uid; /* as it was started */
};

static void stands(struct jail *jail, enum sandbox_layer layer)
{
    jail->record->sandbox.layers |= 1U << layer;
}

/* ---- Namespaces ------------------------------------------------------------------------------ */

static int enter_namespace(struct jail *jail, int flag, enum sandbox_layer layer)
{
    if (unshare(flag) < 0) {
        return -errno;
    }
    stands(jail, layer);
    return 0;
}

static int enter_net(struct jail *jail)
{
    return enter_namespace(jail, CLONE_NEWNET, SANDBOX_NET_NAMESPACE);
}

static int enter_ipc(struct jail *jail)
{
    return enter_namespace(jail, CLONE_NEWIPC, SANDBOX_IPC_NAMESPACE);
}

static int enter_uts(struct jail *jail)
{
    return enter_namespace(jail, CLONE_NEWUTS, SANDBOX_UTS_NAMESPACE);
}

static int enter_cgroup(struct jail *jail)
{
    return enter_namespace(jail, CLONE_NEWCGROUP, SANDBOX_CGROUP_NAMESPACE);
}

static int enter_mount(struct jail *jail)
{
    return enter_namespace(jail, CLONE_NEWNS, SANDBOX_MOUNT_NAMESPACE);
}

/* An empty, read-only tmpfs becomes the root, and the old root is gone. */
static int enter_empty_root(struct jail *jail)
{
    const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

    if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        mount("none", empty_root, "tmpfs", flags, "size=4k,nr_inodes=2,mode=0555") < 0 ||
        chdir(empty_root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0 ||
        umount2(".", MNT_DETACH) < 0 || chdir("/") < 0 ||
        mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0) {
        return -errno;
    }
    stands(jail, SANDBOX_EMPTY_ROOT);
    return 0;
}

/* ---- Privileges ------------------------------------------------------------------------------ */

static int become_nobody(struct jail *jail)
{
    if (jail->uid == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(NOBODY_ID, NOBODY_ID, NOBODY_ID) < 0 ||
            setresuid(NOBODY_ID, NOBODY_ID, NOBODY_ID) < 0) {
            return -errno;
        }
    }
    stands(jail, SANDBOX_USER);
    /* Only root can leave them: a user namespace that a user makes must deny setgroups(). */
    if (getgroups(0, NULL) == 0) {
        stands(jail, SANDBOX_GROUPS);
    }
    return 0;
}

static int drop_bounding_set(struct jail *jail)
{
    (void)jail;
    capng_clear(CAPNG_SELECT_BOTH);
    return capng_apply(CAPNG_SELECT_BOUNDS) < 0 ? -EPERM : 0;
}

static int drop_capabilities(struct jail *jail)
{
    capng_clear(CAPNG_SELECT_BOTH);
    if (capng_apply(CAPNG_SELECT_CAPS) < 0 ||
        prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0) {
        return -EPERM;
    }
    if (capng_get_caps_process() < 0 || capng_have_capabilities(CAPNG_SELECT_ALL) > CAPNG_NONE) {
        return -EPERM;
    }
    stands(jail, SANDBOX_CAPABILITIES);
    return 0;
}

static int forbid_new_privileges(struct jail *jail)
{
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0) {
        return -errno;
    }
    stands(jail, SANDBOX_NO_NEW_PRIVS);
    return 0;
}

/* ---- The environment ------------------------------------------------------------------------- */

/* Fields of /proc/self/stat, by proc(5), counted from 1. */
enum { STAT_AFTER_NAME = 3, STAT_ENV_START = 50, STAT_ENV_END = 51 };

/* Where the kernel has put the environment when the program was started. False: it does not tell. */
static bool initial_environment(uintptr_t *ret_start, uintptr_t *ret_end)
{
    char text[1024] = "";
    const int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);
    const ssize_t n = fd >= 0 ? read(fd, text, sizeof(text) - 1) : -1;
    char *next = n > 0 ? strrchr(text, ')') : NULL; /* the name may have blanks and parentheses */
    uintptr_t found[2] = {0, 0};

    if (fd >= 0) {
        (void)close(fd);
    }
    for (int field = STAT_AFTER_NAME; next != NULL && field <= STAT_ENV_END; field++) {
        next = strchr(next + 1, ' ');
        if (next != NULL && field >= STAT_ENV_START) {
            found[field - STAT_ENV_START] = (uintptr_t)strtoull(next + 1, NULL, 10);
        }
    }
    *ret_start = found[0];
    *ret_end = found[1];
    return next != NULL && found[0] != 0 && found[0] < found[1];
}

void jail_forget_environment(void)
{
    uintptr_t start = 0;
    uintptr_t end = 0;

    /* As it is now: setenv() puts strings elsewhere. Then as it was, which has what they replaced. */
    for (char **entry = environ; entry != NULL && *entry != NULL; entry++) {
        explicit_bzero(*entry, strlen(*entry));
    }
    (void)clearenv();
    if (initial_environment(&start, &end)) {
        explicit_bzero((void *)start, end - start);
    }
}

/* ---- Landlock, limits ------------------------------------------------------------------------ */

/* A kernel without Landlock is no error: it is the second line, behind an empty root and no network. */
static int enter_landlock(struct jail *jail)
{
    const int code = landlock_forbid_all();

    if (code == 0) {
        stands(jail, SANDBOX_LANDLOCK);
    }
    return code == -ENOSYS ? 0 : code;
}

static int limit_resources(struct jail *jail)
{
    static const struct {
        int resource;
        rlim_t limit;
    } limits[] = {
        {RLIMIT_CORE, 0}, /* a core file would hold the guest's memory */
        {RLIMIT_FSIZE, 0},
        {RLIMIT_MSGQUEUE, 0},
        {RLIMIT_MEMLOCK, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        const struct rlimit limit = {.rlim_cur = limits[i].limit, .rlim_max = limits[i].limit};

        if (setrlimit((__rlimit_resource_t)limits[i].resource, &limit) < 0) {
            return -errno;
        }
    }
    stands(jail, SANDBOX_RLIMITS);
    return 0;
}

/* ---- All of it ------------------------------------------------------------------------------- */

static const struct layer_step {
    enum sandbox_layer layer;
    int (*enter)(struct jail *jail);
} steps[] = {
    {SANDBOX_NET_NAMESPACE, enter_net},        {SANDBOX_IPC_NAMESPACE, enter_ipc},
    {SANDBOX_UTS_NAMESPACE, enter_uts},        {SANDBOX_CGROUP_NAMESPACE, enter_cgroup},
    {SANDBOX_MOUNT_NAMESPACE, enter_mount},    {SANDBOX_EMPTY_ROOT, enter_empty_root},
    {SANDBOX_CAPABILITIES, drop_bounding_set}, {SANDBOX_USER, become_nobody},
    {SANDBOX_CAPABILITIES, drop_capabilities}, {SANDBOX_NO_NEW_PRIVS, forbid_new_privileges},
    {SANDBOX_LANDLOCK, enter_landlock},        {SANDBOX_RLIMITS, limit_resources},
};

/* What a person can do about a layer that the host refuses. */
static const char *advice_on(enum sandbox_layer layer)
{
    switch ((int)layer) {
    case SANDBOX_USER_NAMESPACE:
        return "let users make user namespaces (sysctl kernel.unprivileged_userns_clone, "
               "user.max_user_namespaces), or run bvmm as root";
    case SANDBOX_PID_NAMESPACE:
    case SANDBOX_NET_NAMESPACE:
    case SANDBOX_IPC_NAMESPACE:
    case SANDBOX_UTS_NAMESPACE:
    case SANDBOX_CGROUP_NAMESPACE:
    case SANDBOX_MOUNT_NAMESPACE:
    case SANDBOX_EMPTY_ROOT:
        return "if bvmm runs in a container, let that make namespaces and mount";
    default:
        return "the kernel may be too old or built without it";
    }
}

void jail_note_refused(struct record_sandbox *sandbox, enum sandbox_layer layer, int code)
{
    const size_t used = strlen(sandbox->refused);

    (void)snprintf(sandbox->refused + used, sizeof(sandbox->refused) - used, "%s%s: %s",
                   used > 0 ? "; " : "", sandbox_layer_name(layer), error_text(-code));
}

int jail_refusal(enum sandbox_layer layer, int code, struct bvmm_error *err)
{
    return error_set(err, BVMM_ERROR_SANDBOX, code,
                     "this host refuses the sandbox's layer %s: %s; %s; or allow it in the job by "
                     "\"sandbox\": \"best_effort\"",
                     sandbox_layer_name(layer), error_text(-code), advice_on(layer));
}

int jail_enter(enum job_sandbox mode, struct record *record, struct bvmm_error *err)
{
    struct jail jail = {.record = record, .uid = geteuid()};

    if (mode == JOB_SANDBOX_OFF) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        const int code = steps[i].enter(&jail);

        if (code < 0 && mode == JOB_SANDBOX_STRICT) {
            return jail_refusal(steps[i].layer, code, err);
        }
        if (code < 0) {
            jail_note_refused(&record->sandbox, steps[i].layer, code);
        }
    }
    return 0;
}
