/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* report_view.c: the lists of a report's structs. Launcher. */
#include "vmm/report_view.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* With a NUL behind it, for those who know that there is none in it. */
static char *copy_path(const void *path, size_t bytes)
{
    char *copy = malloc(bytes + 1);

    if (copy) {
        memcpy(copy, path, bytes);
        copy[bytes] = '\0';
    }
    return copy;
}

int report_view_add_file(struct report_view *view, const struct bvmm_content *content,
                         const void *path, size_t path_bytes)
{
    struct bvmm_content *files =
        realloc(view->files, (view->file_count + 1) * sizeof(*view->files));
    struct bvmm_content *file;

    if (!files) {
        return -ENOMEM;
    }
    view->files = files;
    file = &files[view->file_count];
    *file = *content;
    if (path) {
        file->path = copy_path(path, path_bytes);
        file->path_bytes = path_bytes;
        if (!file->path) {
            return -ENOMEM;
        }
    }
    view->file_count++;
    return 0;
}

int report_view_add_missing(struct report_view *view, const struct bvmm_missing_file *missing,
                            const void *path, size_t path_bytes)
{
    struct bvmm_missing_file *list =
        realloc(view->missing, (view->missing_count + 1) * sizeof(*view->missing));
    struct bvmm_missing_file *file;

    if (!list) {
        return -ENOMEM;
    }
    view->missing = list;
    file = &list[view->missing_count];
    *file = *missing;
    file->path = copy_path(path, path_bytes);
    file->path_bytes = path_bytes;
    if (!file->path) {
        return -ENOMEM;
    }
    view->missing_count++;
    return 0;
}

/* What the structs show to others as const is ours. */
static void free_const(const char *text)
{
    free((void *)(uintptr_t)text); /* NOLINT(performance-no-int-to-ptr) */
}

void report_view_fini(struct report_view *view)
{
    for (size_t i = 0; i < view->file_count; i++) {
        free_const(view->files[i].path);
    }
    for (size_t i = 0; i < view->missing_count; i++) {
        free_const(view->missing[i].path);
    }
    free(view->files);
    free(view->missing);
    free_const(view->console.text);
    *view = (struct report_view){.file_count = 0};
}
