/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* landlock.c: see landlock.h. Blocks on nothing. */
#include "vmm/landlock.h"

#include <errno.h>
#include <linux/landlock.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(LANDLOCK_FS_ABI1 == (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1, "as in the headers");
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

int landlock_forbid_all(void)
{
    const int abi = landlock_abi();
    const struct landlock_rights rights = landlock_all_rights(abi);
    int fd = -1;
    int code = 0;

    if (abi == 0) {
        return -ENOSYS;
    }
    /* What an older kernel does not know is 0 here, and it accepts a larger size then. */
    fd = (int)syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0);
    if (fd < 0) {
        return -errno;
    }
    code = syscall(SYS_landlock_restrict_self, fd, 0) < 0 ? -errno : 0;
    (void)close(fd);
    return code;
}
