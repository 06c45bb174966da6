/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* landlock.c: see landlock.h. Blocks on nothing. */
#include "vmm/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(LANDLOCK_FS_ABI1 == (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1, "as in the headers");
_Static_assert(LANDLOCK_FS_WRITE_FILE == LANDLOCK_ACCESS_FS_WRITE_FILE &&
                   LANDLOCK_FS_READ_DIR == LANDLOCK_ACCESS_FS_READ_DIR &&
                   LANDLOCK_FS_REMOVE_DIR == LANDLOCK_ACCESS_FS_REMOVE_DIR &&
                   LANDLOCK_FS_REMOVE_FILE == LANDLOCK_ACCESS_FS_REMOVE_FILE &&
                   LANDLOCK_FS_MAKE_DIR == LANDLOCK_ACCESS_FS_MAKE_DIR &&
                   LANDLOCK_FS_MAKE_REG == LANDLOCK_ACCESS_FS_MAKE_REG,
               "as in the headers");
_Static_assert(LANDLOCK_FS_REFER == LANDLOCK_ACCESS_FS_REFER, "as in the headers");

static const struct {
    int abi;
    struct landlock_rights rights;
} versions[] = {
    {1, {.fs = LANDLOCK_FS_ABI1}},
    {2, {.fs = LANDLOCK_FS_REFER}},
    {3, {.fs = LANDLOCK_FS_TRUNCATE}},
    {4, {.net = LANDLOCK_NET_BIND_TCP | LANDLOCK_NET_CONNECT_TCP}},
    {5, {.fs = LANDLOCK_FS_IOCTL_DEV}},
    {6, {.scoped = LANDLOCK_SCOPE_ABSTRACT | LANDLOCK_SCOPE_SIGNAL}},
};

int landlock_abi(void)
{
    const long abi =
        syscall(SYS_landlock_create_ruleset, NULL, (size_t)0, LANDLOCK_CREATE_RULESET_VERSION);

    return abi < 0 ? 0 : (int)abi;
}

struct landlock_rights landlock_all_rights(int abi)
{
    struct landlock_rights all = {.fs = 0};

    for (size_t i = 0; i < ARRAY_SIZE(versions) && versions[i].abi <= abi; i++) {
        all.fs |= versions[i].rights.fs;
        all.net |= versions[i].rights.net;
        all.scoped |= versions[i].rights.scoped;
    }
    return all;
}

/* 0 or -errno. */
static int add_place(int ruleset_fd, const struct landlock_place *place)
{
    const struct landlock_path_beneath_attr beneath = {.allowed_access = place->fs,
                                                       .parent_fd = place->fd};

    return syscall(SYS_landlock_add_rule, ruleset_fd, LANDLOCK_RULE_PATH_BENEATH, &beneath, 0) < 0
               ? -errno
               : 0;
}

static int forbid(const struct landlock_rights *rights, const struct landlock_place *places,
                  unsigned count)
{
    /* What an older kernel does not know is 0 here, and it accepts a larger size then. */
    const int fd = (int)syscall(SYS_landlock_create_ruleset, rights, sizeof(*rights), 0);
    int code = fd < 0 ? -errno : 0;

    for (unsigned i = 0; code == 0 && i < count; i++) {
        code = add_place(fd, &places[i]);
    }
    if (code == 0 && syscall(SYS_landlock_restrict_self, fd, 0) < 0) {
        code = -errno;
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return code;
}

int landlock_forbid_all(void)
{
    const int abi = landlock_abi();
    const struct landlock_rights rights = landlock_all_rights(abi);

    return abi == 0 ? -ENOSYS : forbid(&rights, NULL, 0);
}

int landlock_forbid_other_places(const struct landlock_place *places, unsigned count)
{
    const int abi = landlock_abi();
    struct landlock_rights rights = landlock_all_rights(abi);

    rights.scoped &= ~LANDLOCK_SCOPE_SIGNAL;
    return abi == 0 ? -ENOSYS : forbid(&rights, places, count);
}
