/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job_files.c: opens what a job names, and looks whether it is what it should be.
 *
 * Every path is looked up once. What is examined is the descriptor, and the descriptor is what the run
 * uses: nobody can put another file in its place in between. Symbolic links are followed, since the
 * job's author may read what they point to anyway; but what is not a regular file is refused, and not
 * even opened.
 *
 * Thread: launcher. Blocks on files only.
 */
#include "vmm/job.h"

#include "vmm/file_kind.h"
#include "vmm/job_fields.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/utsname.h>
#include <unistd.h>

struct opener {
    struct job *job;
    struct job_problems *problems;
};

#define SHOWN_PATH_BYTES 300

/* ---- Relative paths -------------------------------------------------------------------------- */

static bool resolve(struct opener *o, char **path)
{
    const char *base = o->job->base_dir;
    char *resolved;

    if (!*path || !base || (*path)[0] == '/') {
        return true;
    }
    if (asprintf(&resolved, "%s%s%s", base, strcmp(base, "/") == 0 ? "" : "/", *path) < 0) {
        return false;
    }
    free(*path);
    *path = resolved;
    return true;
}

/* After this, every path is what open(2) wants, and base_dir is gone, so that it is done once. */
static int resolve_all(struct opener *o)
{
    struct job *job = o->job;
    bool done = resolve(o, &job->kernel.path) && resolve(o, &job->rootfs.path) &&
                resolve(o, &job->image) && resolve(o, &job->initrd.path) &&
                resolve(o, &job->stdin_file.path) && resolve(o, &job->vsock_path) &&
                resolve(o, &job->report_path) && resolve(o, &job->large_outputs.dir);

    for (size_t i = 0; i < job->drive_count; i++) {
        done = done && resolve(o, &job->drives[i].image.path);
    }
    if (!done) {
        job_problem(o->problems, job, "out of memory");
        return -ENOMEM;
    }
    free(job->base_dir);
    job->base_dir = NULL;
    return 0;
}

int job_resolve_paths(struct job *job, struct job_problems *problems)
{
    struct opener o = {.job = job, .problems = problems};

    return resolve_all(&o);
}

/* ---- One file -------------------------------------------------------------------------------- */

static const char *mode_name(mode_t mode)
{
    switch (mode & S_IFMT) {
    case S_IFDIR:
        return "a directory";
    case S_IFIFO:
        return "a FIFO";
    case S_IFSOCK:
        return "a socket";
    case S_IFBLK:
        return "a block device";
    case S_IFCHR:
        return "a character device";
    case S_IFREG:
        return "a regular file";
    case S_IFLNK:
        return "a symbolic link";
    default:
        return "no regular file";
    }
}

static const char *open_hint(int error)
{
    switch (error) {
    case ENOENT:
    case ENOTDIR:
        return "expected an existing file; relative paths start at the job file's directory";
    case EACCES:
    case EPERM:
        return "expected a file that this user may read";
    case EMFILE:
        return "raise this process's limit of open files (ulimit -n)";
    case ENFILE:
        return "raise the host's limit of open files (sysctl fs.file-max)";
    default:
        return "expected a file that can be opened";
    }
}

static void file_problem(struct opener *o, const char *key, const struct job_file *file,
                         const char *what, const char *expected)
{
    job_problem(o->problems, o->job, "%s: \"%.*s\" %s; expected %s", key, SHOWN_PATH_BYTES,
                file->path, what, expected);
}

/* Read the beginning of a file; a short file leaves *ret_bytes short. */
static bool read_head(struct opener *o, const char *key, const struct job_file *file,
                      uint8_t head[FILE_HEAD_BYTES], size_t *ret_bytes)
{
    size_t used = 0;
    ssize_t n = 1;

    while (used < FILE_HEAD_BYTES && n > 0) {
        n = pread(file->fd, head + used, FILE_HEAD_BYTES - used, (off_t)used);
        if (n < 0) {
            job_problem(o->problems, o->job, "%s: cannot read \"%.*s\": %s", key, SHOWN_PATH_BYTES,
                        file->path, error_text(errno));
            return false;
        }
        used += (size_t)n;
    }
    *ret_bytes = used;
    return true;
}

/*
 * To open a device may already do something (a watchdog starts, a tape rewinds), and a FIFO wakes who
 * waits for a reader. So the file is found first, which opens nothing; what is opened is what was found.
 */
int job_open_regular(const char *path, struct stat *ret_status)
{
    const int found_fd = open(path, O_PATH | O_CLOEXEC);
    char self[64];
    int fd = -1;
    int error = 0;

    ret_status->st_mode = 0;
    if (found_fd < 0) {
        return -1;
    }
    if (fstat(found_fd, ret_status) == 0 && S_ISREG(ret_status->st_mode)) {
        snprintf(self, sizeof(self), "/proc/self/fd/%d", found_fd);
        fd = fd_above_standard(open(self, O_RDONLY | O_CLOEXEC));
        ret_status->st_mode = 0;
    }
    if (fd >= 0 && fstat(fd, ret_status) < 0) {
        close(fd);
        fd = -1;
    }
    error = errno;
    close(found_fd);
    errno = error;
    return fd;
}

/* Open a file and make sure that it is a regular one. Its fd stays -1 if it is not. */
static bool open_file(struct opener *o, const char *key, struct job_file *file)
{
    struct stat status;
    const int fd = job_open_regular(file->path, &status);

    if (fd < 0 && status.st_mode != 0) {
        char what[64];

        snprintf(what, sizeof(what), "is %s", mode_name(status.st_mode));
        file_problem(o, key, file, what, "a regular file");
        return false;
    }
    if (fd < 0) {
        job_problem(o->problems, o->job, "%s: cannot open \"%.*s\": %s; %s", key, SHOWN_PATH_BYTES,
                    file->path, error_text(errno), open_hint(errno));
        return false;
    }
    file->fd = fd;
    file->size_bytes = (uint64_t)status.st_size;
    return true;
}

/* The same, and its beginning; an empty file is nothing that a job can use. */
static bool open_and_read(struct opener *o, const char *key, struct job_file *file,
                          uint8_t head[FILE_HEAD_BYTES], size_t *ret_bytes, const char *expected)
{
    if (!open_file(o, key, file)) {
        return false;
    }
    if (file->size_bytes == 0) {
        file_problem(o, key, file, "is empty", expected);
        return false;
    }
    return read_head(o, key, file, head, ret_bytes);
}

/* ---- Each kind of file ----------------------------------------------------------------------- */

static void open_kernel(struct opener *o)
{
    static const char expected[] =
        "a Linux kernel: vmlinux or bzImage for x86_64, Image for aarch64";
    struct job_file *file = &o->job->kernel;
    uint8_t head[FILE_HEAD_BYTES];
    char what[128];
    const char *arch;
    struct utsname host;
    size_t bytes;

    if (!file->path || !open_and_read(o, "$.kernel_path", file, head, &bytes, expected)) {
        return;
    }
    arch = kernel_identify(head, bytes);
    if (!arch) {
        snprintf(what, sizeof(what), "is %s", file_describe(head, bytes));
        file_problem(o, "$.kernel_path", file, what, expected);
        return;
    }
    if (uname(&host) == 0 && strcmp(host.machine, arch) != 0) {
        snprintf(what, sizeof(what), "is a kernel for %s", arch);
        file_problem(o, "$.kernel_path", file, what, "one for this machine");
    }
}

static void check_image(struct opener *o, const char *key, const struct job_file *file,
                        uint64_t *fstype, const struct image_facts *facts, const char *described)
{
    static const char expected[] = "a squashfs, ext4 or erofs image";
    char what[192];

    if (facts->fstype == JOB_FSTYPE_OTHER) {
        snprintf(what, sizeof(what), "is %s", described);
        file_problem(o, key, file, what, expected);
    } else if (*fstype != JOB_FSTYPE_AUTO && *fstype != facts->fstype) {
        snprintf(what, sizeof(what), "is %s", described);
        file_problem(o, key, file, what, job_fstype_name((enum job_fstype)(*fstype)));
    } else if (facts->used_bytes > file->size_bytes) {
        snprintf(what, sizeof(what),
                 "has been cut short: it is %" PRIu64
                 " bytes long, and by its own account %" PRIu64,
                 file->size_bytes, facts->used_bytes);
        file_problem(o, key, file, what, "a complete image");
    } else if (facts->unsupported && !o->job->kernel.path) {
        snprintf(what, sizeof(what), "uses %s, which the bundled kernel does not have",
                 facts->unsupported);
        file_problem(o, key, file, what, "gzip, xz, lz4 or zstd");
    } else {
        *fstype = facts->fstype;
    }
}

static void open_image(struct opener *o, const char *key, struct job_file *file, uint64_t *fstype)
{
    uint8_t head[FILE_HEAD_BYTES];
    struct image_facts facts;
    size_t bytes;

    if (!open_and_read(o, key, file, head, &bytes, "an image of a file system") ||
        *fstype == JOB_FSTYPE_OTHER) {
        return;
    }
    image_identify(head, bytes, &facts);
    check_image(o, key, file, fstype, &facts, file_describe(head, bytes));
}

static void open_drives(struct opener *o)
{
    for (size_t i = 0; i < o->job->drive_count; i++) {
        struct job_drive *drive = &o->job->drives[i];
        uint64_t anything = JOB_FSTYPE_OTHER;
        char key[JOB_PATH_TEXT_BYTES];

        snprintf(key, sizeof(key), "$.drives[%zu].path", i);
        if (!drive->image.path) {
            job_problem(o->problems, o->job, "%s is missing; expected the path of an image", key);
            continue;
        }
        /* What nobody mounts may hold anything. */
        open_image(o, key, &drive->image, drive->mount ? &drive->fstype : &anything);
    }
}

/* What is loaded into the guest's memory has to leave room for the guest. */
static void check_fits_memory(struct opener *o, const char *key, const struct job_file *file)
{
    uint64_t room_bytes = o->job->memory_mib * MIB / 2;
    char what[96];

    if (file->size_bytes > room_bytes) {
        snprintf(what, sizeof(what), "is %" PRIu64 " bytes long", file->size_bytes);
        file_problem(o, key, file, what,
                     "at most half of the guest's memory; a larger \"memory_mib\" would help");
    }
}

static void open_initrd(struct opener *o)
{
    static const char expected[] = "an initramfs: a cpio archive (newc), plain or compressed";
    struct job_file *file = &o->job->initrd;
    uint8_t head[FILE_HEAD_BYTES];
    char what[128];
    size_t bytes;

    if (!file->path || !open_and_read(o, "$.initrd_path", file, head, &bytes, expected)) {
        return;
    }
    if (!initrd_identify(head, bytes)) {
        snprintf(what, sizeof(what), "is %s", file_describe(head, bytes));
        file_problem(o, "$.initrd_path", file, what, expected);
        return;
    }
    check_fits_memory(o, "$.initrd_path", file);
}

static void open_stdin(struct opener *o)
{
    struct job_file *file = &o->job->stdin_file;

    if (file->path && open_file(o, "$.stdin_path", file)) {
        check_fits_memory(o, "$.stdin_path", file);
    }
}

/* ---- Where the run writes to ----------------------------------------------------------------- */

/* Would the finished report take the place of a file that the run reads? */
static const char *same_as_input(const struct job *job, const struct stat *target)
{
    const struct {
        int fd;
        const char *key;
    } inputs[] = {
        {job->kernel.fd, "$.kernel_path"},
        {job->rootfs.fd, "$.rootfs_path"},
        {job->initrd.fd, "$.initrd_path"},
        {job->stdin_file.fd, "$.stdin_path"},
    };
    struct stat status;

    for (size_t i = 0; i < ARRAY_SIZE(inputs); i++) {
        if (inputs[i].fd >= 0 && fstat(inputs[i].fd, &status) == 0 &&
            status.st_dev == target->st_dev && status.st_ino == target->st_ino) {
            return inputs[i].key;
        }
    }
    for (size_t i = 0; i < job->drive_count; i++) {
        if (job->drives[i].image.fd >= 0 && fstat(job->drives[i].image.fd, &status) == 0 &&
            status.st_dev == target->st_dev && status.st_ino == target->st_ino) {
            return "one of $.drives";
        }
    }
    return job->source && stat(job->source, &status) == 0 && status.st_dev == target->st_dev &&
                   status.st_ino == target->st_ino
               ? "the job file"
               : NULL;
}

static void check_report_target(struct opener *o, const char *name)
{
    const char *path = o->job->report_path;
    const char *input;
    struct stat status;

    if (fstatat(o->job->report_dir_fd, name, &status, AT_SYMLINK_NOFOLLOW) < 0) {
        return; /* not there: as it should be */
    }
    if (!S_ISREG(status.st_mode)) {
        /* The report is renamed into place, which would put a file where /dev/null was. */
        job_problem(
            o->problems, o->job,
            "$.report_path: \"%.*s\" is there already and is %s; expected a regular file, a "
            "new name, or - for standard output",
            SHOWN_PATH_BYTES, path, mode_name(status.st_mode));
        return;
    }
    input = same_as_input(o->job, &status);
    if (input) {
        job_problem(o->problems, o->job,
                    "$.report_path: \"%.*s\" is %s, which the report would replace; expected a "
                    "name of its own",
                    SHOWN_PATH_BYTES, path, input);
    }
}

/* Open the directory that path lies in, if files can be made there. @key: for the message. */
static int open_parent(struct opener *o, const char *key, const char *path)
{
    char *copy = strdup(path);
    int dir_fd;

    if (!copy) {
        job_problem(o->problems, o->job, "out of memory");
        return -1;
    }
    dir_fd = fd_above_standard(open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    free(copy);
    if (dir_fd < 0 || faccessat(dir_fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
        job_problem(o->problems, o->job, "%s: no file can be made at \"%.*s\": %s; %s", key,
                    SHOWN_PATH_BYTES, path, error_text(errno),
                    errno == EMFILE || errno == ENFILE
                        ? open_hint(errno)
                        : "expected a name in a directory that is there and writable");
        if (dir_fd >= 0) {
            close(dir_fd);
        }
        return -1;
    }
    return dir_fd;
}

static const char *last_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static void open_report_dir(struct opener *o)
{
    const char *path = o->job->report_path;
    const char *name;

    if (!path) {
        return;
    }
    name = last_name(path);
    if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
        job_problem(o->problems, o->job,
                    "$.report_path: \"%.*s\" is a directory; expected the name of a file",
                    SHOWN_PATH_BYTES, path);
        return;
    }
    o->job->report_dir_fd = open_parent(o, "$.report_path", path);
    if (o->job->report_dir_fd >= 0) {
        check_report_target(o, name);
    }
}

static void check_large_outputs(struct opener *o)
{
    const char *dir = o->job->large_outputs.dir;
    struct stat status;
    int fd;

    if (!job_given(o->job, JOB_KEY_LARGE_OUTPUTS) || !dir) {
        return;
    }
    if (stat(dir, &status) == 0) {
        if (!S_ISDIR(status.st_mode) || access(dir, W_OK | X_OK) < 0) {
            job_problem(o->problems, o->job,
                        "$.large_outputs.dir: no file can be made in \"%.*s\"; expected a writable "
                        "directory, or a name for a new one",
                        SHOWN_PATH_BYTES, dir);
        }
        return;
    }
    fd = open_parent(o, "$.large_outputs.dir", dir);
    if (fd >= 0) {
        close(fd);
    }
}

static void check_vsock_path(struct opener *o)
{
    const char *path = o->job->vsock_path;
    /* A guest's port P becomes the socket <path>_P, and P has up to 10 digits. */
    size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path) - sizeof("_4294967295");
    struct stat status;
    int fd;

    if (!path) {
        return;
    }
    if (strlen(path) > room) {
        job_problem(o->problems, o->job,
                    "$.vsock_path: \"%.*s\" is %zu bytes long; expected at most %zu, because names "
                    "of UNIX sockets are short",
                    SHOWN_PATH_BYTES, path, strlen(path), room);
        return;
    }
    /* Whether somebody listens on a socket that is there will be seen when it is needed. */
    if (lstat(path, &status) == 0 && !S_ISSOCK(status.st_mode)) {
        job_problem(o->problems, o->job,
                    "$.vsock_path: \"%.*s\" is there already and is %s; expected a new name, or a "
                    "socket that is left over",
                    SHOWN_PATH_BYTES, path, mode_name(status.st_mode));
        return;
    }
    fd = open_parent(o, "$.vsock_path", path);
    if (fd >= 0) {
        close(fd);
    }
}

int job_open_taken_image(struct job *job, struct job_problems *problems)
{
    struct opener o = {.job = job, .problems = problems};
    size_t problems_before = problems->count;

    open_image(&o, "$.image", &job->rootfs, &job->rootfs_type);
    if (job->report_dir_fd >= 0) {
        check_report_target(&o, last_name(job->report_path));
    }
    return problems->count > problems_before ? -EINVAL : 0;
}

int job_open_files(struct job *job, struct job_problems *problems)
{
    struct opener o = {.job = job, .problems = problems};
    size_t problems_before = problems->count;

    if (resolve_all(&o) < 0) {
        return -ENOMEM;
    }
    open_kernel(&o);
    if (job->rootfs.path) {
        open_image(&o, job->image ? "$.image" : "$.rootfs_path", &job->rootfs, &job->rootfs_type);
    } else {
        (void)job_look_for_image(job, problems); /* what is wrong is among the problems */
    }
    open_initrd(&o);
    open_drives(&o);
    open_stdin(&o);
    open_report_dir(&o);
    check_large_outputs(&o);
    check_vsock_path(&o);
    return problems->count > problems_before ? -EINVAL : 0;
}
