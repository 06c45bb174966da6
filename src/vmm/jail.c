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
#include <linux/landlock.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Who bvmm is when root started it; the kernel's overflow ids, which own nothing. */
#define NOBODY_ID 65534

static const char *const empty_root = "/proc"; /* always there to be mounted upon, also read-only */

struct jail {
    struct record *record;
    uid_t uid; /* as it was started */
    gid_t gid;
};

static void stands(struct jail *jail, enum sandbox_layer layer)
{
    jail->record->sandbox.layers |= 1U << layer;
}

static int write_file(const char *path, const char *text)
{
    const int fd = open(path, O_WRONLY | O_CLOEXEC);
    int code = 0;

    if (fd < 0) {
        return -errno;
    }
    if (write(fd, text, strlen(text)) < 0) {
        code = -errno;
    }
    (void)close(fd);
    return code;
}

/* ---- Namespaces ------------------------------------------------------------------------------- */

/* In a user namespace of its own, an ordinary user may make the other namespaces. */
static int enter_user_namespace(struct jail *jail)
{
    char map[64];
    int code = 0;

    if (jail->uid == 0) {
        return 0; /* root needs none, and becomes nobody below */
    }
    if (unshare(CLONE_NEWUSER) < 0) {
        return -errno;
    }
    (void)write_file("/proc/self/setgroups", "deny");
    (void)snprintf(map, sizeof(map), "%u %u 1", (unsigned)jail->uid, (unsigned)jail->uid);
    code = write_file("/proc/self/uid_map", map);
    (void)snprintf(map, sizeof(map), "%u %u 1", (unsigned)jail->gid, (unsigned)jail->gid);
    if (code == 0) {
        code = write_file("/proc/self/gid_map", map);
    }
    if (code == 0) {
        stands(jail, SANDBOX_USER_NAMESPACE);
    }
    return code;
}

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

/* ---- Privileges ------------------------------------------------------------------------------- */

static int become_nobody(struct jail *jail)
{
    if (jail->uid == 0) {
        if (setgroups(0, NULL) < 0 || setresgid(NOBODY_ID, NOBODY_ID, NOBODY_ID) < 0 ||
            setresuid(NOBODY_ID, NOBODY_ID, NOBODY_ID) < 0) {
            return -errno;
        }
    }
    stands(jail, SANDBOX_USER);
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

/* ---- Landlock, limits ------------------------------------------------------------------------- */

/* A ruleset that handles all of the first ABI's rights and grants none of them. */
static int forbid_file_system(struct jail *jail)
{
    const struct landlock_ruleset_attr attr = {
        .handled_access_fs = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1,
    };
    const int fd = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof(attr), 0);
    int code = 0;

    if (fd < 0) {
        return errno == ENOSYS || errno == EOPNOTSUPP ? 0 : -errno; /* a kernel without: optional */
    }
    code = syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
    (void)close(fd);
    if (code == 0) {
        stands(jail, SANDBOX_LANDLOCK);
    }
    return code;
}

static int limit_resources(struct jail *jail)
{
    static const struct {
        int resource;
        rlim_t limit;
    } limits[] = {
        {RLIMIT_CORE,     0}, /* a core file would hold the guest's memory */
        {RLIMIT_FSIZE,    0},
        {RLIMIT_MSGQUEUE, 0},
        {RLIMIT_MEMLOCK,  0},
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

/* ---- All of it -------------------------------------------------------------------------------- */

static const struct layer_step {
    enum sandbox_layer layer;
    int (*enter)(struct jail *jail);
    const char *advice;
} steps[] = {
    {SANDBOX_USER_NAMESPACE,   enter_user_namespace,
     "let users make user namespaces (sysctl kernel.unprivileged_userns_clone, "
     "user.max_user_namespaces), or run bvmm as root"                                          },
    {SANDBOX_NET_NAMESPACE,    enter_net,             "the kernel needs CONFIG_NET_NS"         },
    {SANDBOX_IPC_NAMESPACE,    enter_ipc,             "the kernel needs CONFIG_IPC_NS"         },
    {SANDBOX_UTS_NAMESPACE,    enter_uts,             "the kernel needs CONFIG_UTS_NS"         },
    {SANDBOX_CGROUP_NAMESPACE, enter_cgroup,          "the kernel needs CONFIG_CGROUPS"        },
    {SANDBOX_MOUNT_NAMESPACE,  enter_mount,           "a container may forbid it: let it unshare"},
    {SANDBOX_EMPTY_ROOT,       enter_empty_root,      "a container may forbid it: let it mount"},
    {SANDBOX_CAPABILITIES,     drop_bounding_set,     "this should never fail"                 },
    {SANDBOX_USER,             become_nobody,         "this should never fail"                 },
    {SANDBOX_CAPABILITIES,     drop_capabilities,     "this should never fail"                 },
    {SANDBOX_NO_NEW_PRIVS,     forbid_new_privileges, "this should never fail"                 },
    {SANDBOX_LANDLOCK,         forbid_file_system,    "this should never fail"                 },
    {SANDBOX_RLIMITS,          limit_resources,       "this should never fail"                 },
};

static void note_refused(struct record_sandbox *sandbox, const char *layer, int code)
{
    const size_t used = strlen(sandbox->refused);

    (void)snprintf(sandbox->refused + used, sizeof(sandbox->refused) - used, "%s%s: %s",
                   used > 0 ? "; " : "", layer, strerror(-code));
}

int jail_enter(enum job_sandbox mode, struct record *record, struct bvmm_error *err)
{
    struct jail jail = {.record = record, .uid = geteuid(), .gid = getegid()};

    if (mode == JOB_SANDBOX_OFF) {
        return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        const char *layer = sandbox_layer_name(steps[i].layer);
        const int code = steps[i].enter(&jail);

        if (code < 0 && mode == JOB_SANDBOX_STRICT) {
            return error_set(err, BVMM_ERROR_SANDBOX, code,
                             "this host refuses the sandbox's layer %s: %s; %s; or allow it in the "
                             "job by \"sandbox\": \"best_effort\"",
                             layer, strerror(-code), steps[i].advice);
        }
        if (code < 0) {
            note_refused(&record->sandbox, layer, code);
        }
    }
    return 0;
}
