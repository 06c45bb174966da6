/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * user.c: looks users and groups up in the image's own files. The C library's getpwnam() would load
 * modules, which a static program cannot.
 */
#include "user.h"

#include <errno.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_MAX_BYTES 256

/* A whole text as an id. (uint32_t)-1 is none: setuid(2) takes it for "leave it". */
static bool parse_id(const char *text, uint32_t *ret_id)
{
    uint64_t id = 0;

    if (*text == '\0') {
        return false;
    }
    for (; *text; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        id = id * 10 + (uint64_t)(*text - '0');
        if (id >= UINT32_MAX) {
            return false;
        }
    }
    *ret_id = (uint32_t)id;
    return true;
}

/* An entry of passwd, by name or else by number. Its name is copied to ret_name. */
static bool find_user(const char *path, const char *name, bool by_id, uint32_t id,
                      struct user *ret_user, char *ret_name)
{
    FILE *file = fopen(path, "re");
    struct passwd *entry;
    bool found = false;

    if (!file) {
        return false;
    }
    while (!found && (entry = fgetpwent(file)) != NULL) {
        found = by_id ? entry->pw_uid == id : strcmp(entry->pw_name, name) == 0;
        if (found) {
            ret_user->uid = entry->pw_uid;
            ret_user->gid = entry->pw_gid;
            snprintf(ret_user->home, sizeof(ret_user->home), "%s",
                     entry->pw_dir && *entry->pw_dir ? entry->pw_dir : "/");
            snprintf(ret_name, NAME_MAX_BYTES, "%s", entry->pw_name);
        }
    }
    fclose(file);
    return found;
}

static bool find_group(const char *path, const char *name, gid_t *ret_gid)
{
    FILE *file = fopen(path, "re");
    struct group *entry;
    bool found = false;

    if (!file) {
        return false;
    }
    while (!found && (entry = fgetgrent(file)) != NULL) {
        found = strcmp(entry->gr_name, name) == 0;
        if (found) {
            *ret_gid = entry->gr_gid;
        }
    }
    fclose(file);
    return found;
}

/* The groups that list the user as a member. */
static void collect_groups(const char *path, const char *name, struct user *user)
{
    FILE *file = fopen(path, "re");
    struct group *entry;

    if (!file) {
        return;
    }
    while ((entry = fgetgrent(file)) != NULL) {
        for (char **member = entry->gr_mem; *member; member++) {
            if (strcmp(*member, name) == 0 && user->group_count < USER_GROUPS_MAX) {
                user->groups[user->group_count++] = entry->gr_gid;
                break;
            }
        }
    }
    fclose(file);
}

static int resolve_group(const char *text, const char *group_path, struct user *user,
                         struct bvmm_error *err)
{
    if (find_group(group_path, text, &user->gid) || parse_id(text, &user->gid)) {
        return 0;
    }
    return error_set(err, BVMM_ERROR_BOOT, -ENOENT,
                     "user: the image's %s has no group '%.200s', and it is no number", group_path,
                     text);
}

int user_resolve(const char *text, const char *passwd_path, const char *group_path,
                 struct user *ret_user, struct bvmm_error *err)
{
    struct user user = {.home = "/"};
    char name[NAME_MAX_BYTES];
    char entry_name[NAME_MAX_BYTES] = "";
    const char *colon = strchr(text, ':');
    size_t name_length = colon ? (size_t)(colon - text) : strlen(text);
    uint32_t id = 0;
    int r = 0;

    if (name_length >= sizeof(name)) {
        return error_set(err, BVMM_ERROR_BOOT, -ENOENT, "user: '%.40s...' is too long for a name",
                         text);
    }
    memcpy(name, text, name_length);
    name[name_length] = '\0';
    if (name_length == 0) {
        strcpy(name, "0");
    }
    if (!find_user(passwd_path, name, false, 0, &user, entry_name)) {
        if (!parse_id(name, &id)) {
            return error_set(err, BVMM_ERROR_BOOT, -ENOENT,
                             "user: the image's %s has no user '%s', and it is no number",
                             passwd_path, name);
        }
        user.uid = id;
        if (!find_user(passwd_path, NULL, true, id, &user, entry_name) && id == 0) {
            strcpy(user.home, "/root");
        }
    }
    if (colon) {
        r = resolve_group(colon + 1, group_path, &user, err);
    } else if (entry_name[0] != '\0') {
        collect_groups(group_path, entry_name, &user);
    }
    if (r == 0) {
        *ret_user = user;
    }
    return r;
}
