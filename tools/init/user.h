/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * user.h: whom the command runs as: the image's names to numbers.
 *
 * Thread: init has but one. Blocks on the image's files.
 */
#ifndef BVMM_INIT_USER_H
#define BVMM_INIT_USER_H

#include "base/error.h"

#include <limits.h>
#include <sys/types.h>

#define USER_GROUPS_MAX 256

struct user {
    uid_t uid;
    gid_t gid;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary */
    size_t group_count;
    char home[PATH_MAX];
};

/*
 * user_resolve - what "name", "uid", "name:group", "uid:gid" or "" (root) means in this image.
 *
 * As container runtimes do it: names come first, then numbers; a number needs no entry, and has
 * group 0 and home "/" then. Without a group in the text the user also gets the groups that list
 * it in the group file; with one, only that.
 * @passwd_path, @group_path: files in the format of passwd(5) and group(5); may be missing.
 * Return: 0, or -ENOENT (no such user or group) with *err filled.
 */
int user_resolve(const char *text, const char *passwd_path, const char *group_path,
                 struct user *ret_user, struct bvmm_error *err) must_check;

#endif
