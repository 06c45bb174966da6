/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * root.c: mounts. The directories /bvmm/root, /bvmm/rw and /bvmm/new come with the initramfs.
 */
#include "root.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define IMAGE_DIR "/bvmm/root"
#define WRITABLE_DIR "/bvmm/rw"
#define NEW_ROOT_DIR "/bvmm/new"
#define DEVICE_WAIT_MS 2000
/* Of the memory, where the job sets no limit. */
#define WRITABLE_DEFAULT_SIZE "50%"
#define RUN_DEFAULT_SIZE "25%"

int root_mount_early(struct bvmm_error *err)
{
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, NULL) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno,
                         "cannot mount /dev: %s (does the kernel have CONFIG_DEVTMPFS?)",
                         strerror(errno));
    }
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot mount /proc: %s", strerror(errno));
    }
    return 0;
}

int make_directories(const char *path, mode_t mode)
{
    char part[PATH_MAX];
    size_t length = strlen(path);

    if (length >= sizeof(part)) {
        return -ENAMETOOLONG;
    }
    memcpy(part, path, length + 1);
    for (size_t i = 1; i <= length; i++) {
        if (part[i] != '/' && part[i] != '\0') {
            continue;
        }
        part[i] = '\0';
        if (mkdir(part, mode) < 0 && errno != EEXIST) {
            return -errno;
        }
        part[i] = path[i];
    }
    return 0;
}

/* ---- Images ---------------------------------------------------------------------------------- */

/* Drivers may come up after init does. */
static void wait_for_device(const char *device)
{
    const struct timespec pause = {.tv_nsec = (long)NS_PER_MS};

    for (int waited_ms = 0; access(device, F_OK) < 0 && waited_ms < DEVICE_WAIT_MS; waited_ms++) {
        nanosleep(&pause, NULL);
    }
}

static const char *mount_hint(int error, const char *device)
{
    switch (error) {
    case ENOENT:
    case ENXIO:
    case ENODEV:
        return access(device, F_OK) < 0 ? "the guest's kernel sees no such disk"
                                        : "the guest's kernel does not know this file system";
    case EINVAL:
        return strcmp(device, "/dev/vda") == 0 ? "is the file at rootfs_path such an image?"
                                               : "is the drive's file such an image?";
    case EIO:
    case EBADMSG:
        return "the image is damaged or was cut short";
    default:
        return "the console log may say more";
    }
}

static int mount_failed(const char *device, const char *fstype, int error, struct bvmm_error *err)
{
    return error_set(err, BVMM_ERROR_BOOT, -error, "cannot mount %s as %s: %s (%s)", device, fstype,
                     strerror(error), mount_hint(error, device));
}

static int mount_any(const char *device, const char *path, struct bvmm_error *err)
{
    FILE *list = fopen("/proc/filesystems", "re");
    char line[128];
    char tried[256] = "";
    size_t tried_length = 0;
    char fstype[64];
    bool mounted = false;

    while (list && !mounted && fgets(line, sizeof(line), list)) {
        /* "nodev\tproc" is one without a disk; "\tsquashfs" one with. */
        if (line[0] != '\t' || sscanf(line, " %63s", fstype) != 1) {
            continue;
        }
        mounted = mount(device, path, fstype, MS_RDONLY, NULL) == 0;
        if (!mounted && tried_length < sizeof(tried)) {
            tried_length +=
                (size_t)snprintf(tried + tried_length, sizeof(tried) - tried_length, " %s", fstype);
        }
    }
    if (list) {
        fclose(list);
    }
    if (mounted) {
        return 0;
    }
    return error_set(
        err, BVMM_ERROR_BOOT, -EINVAL,
        "cannot mount %s as any file system that the guest's kernel knows (tried:%s); %s", device,
        tried, access(device, F_OK) < 0 ? "it sees no such disk" : "is the file an image?");
}

int root_mount_image(const char *device, const char *path, const char *fstype,
                     struct bvmm_error *err)
{
    wait_for_device(device);
    if (*fstype == '\0') {
        return mount_any(device, path, err);
    }
    if (mount(device, path, fstype, MS_RDONLY, NULL) < 0) {
        return mount_failed(device, fstype, errno, err);
    }
    return 0;
}

/* @size: as mount(8) has it: bytes, or percents of the memory. */
static int mount_tmpfs(const char *path, const char *size, unsigned long flags,
                       struct bvmm_error *err)
{
    char options[64];

    snprintf(options, sizeof(options), "mode=0755,size=%s", size);
    if (mount("tmpfs", path, "tmpfs", flags, options) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot mount a tmpfs (%s) on %s: %s",
                         options, path, strerror(errno));
    }
    return 0;
}

static int mount_overlay(uint64_t limit_bytes, struct bvmm_error *err)
{
    char size[32] = WRITABLE_DEFAULT_SIZE;
    int r;

    if (limit_bytes > 0) {
        snprintf(size, sizeof(size), "%" PRIu64, limit_bytes);
    }
    r = mount_tmpfs(WRITABLE_DIR, size, 0, err);
    if (r < 0) {
        return r;
    }
    if (mkdir(WRITABLE_DIR "/upper", 0755) < 0 || mkdir(WRITABLE_DIR "/work", 0755) < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot make the overlay's directories: %s",
                         strerror(errno));
    }
    if (mount("overlay", NEW_ROOT_DIR, "overlay", 0,
              "lowerdir=" IMAGE_DIR ",upperdir=" WRITABLE_DIR "/upper,workdir=" WRITABLE_DIR
              "/work") < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot lay a tmpfs over the image: %s%s",
                         strerror(errno),
                         errno == ENODEV ? " (the kernel lacks CONFIG_OVERLAY_FS)" : "");
    }
    return 0;
}

static bool is_empty_directory(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    bool empty = true;

    if (!directory) {
        return true;
    }
    while (empty && (entry = readdir(directory)) != NULL) {
        empty = strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0;
    }
    closedir(directory);
    return empty;
}

/*
 * /tmp: without the overlay in between, which is slower and cannot do all (O_TMPFILE), but in the
 * same tmpfs and under the same limit. If the image has something in its /tmp, that stays visible,
 * and nothing is mounted over it.
 */
static void mount_tmp(void)
{
    struct stat status = {.st_mode = 0};

    /* The image is asked where that is enough: each look through the overlay costs more. */
    if (lstat(IMAGE_DIR "/tmp", &status) < 0) {
        mkdir(NEW_ROOT_DIR "/tmp", 01777);
    } else if (!S_ISDIR(status.st_mode)) {
        return; /* a link to somewhere: the image knows what it does */
    } else if (!is_empty_directory(IMAGE_DIR "/tmp")) {
        if ((status.st_mode & 07777) != 01777) {
            chmod(NEW_ROOT_DIR "/tmp", 01777);
        }
        return;
    }
    if (mkdir(WRITABLE_DIR "/tmp", 01777) < 0 || chmod(WRITABLE_DIR "/tmp", 01777) < 0 ||
        mount(WRITABLE_DIR "/tmp", NEW_ROOT_DIR "/tmp", NULL, MS_BIND, NULL) < 0) {
        fprintf(stderr, "bvmm-init: /tmp stays on the overlay: %s\n", strerror(errno));
        chmod(NEW_ROOT_DIR "/tmp", 01777);
    }
}

/*
 * The new root takes the place of the old one, as switch_root(8) does it: a root that is an
 * initramfs cannot be given to pivot_root(2). The overlay has its own hold on image and tmpfs, so
 * that nobody needs to reach them by name.
 */
static int switch_root(struct bvmm_error *err)
{
    umount2("/proc", MNT_DETACH);
    umount2("/dev", MNT_DETACH);
    umount2(IMAGE_DIR, MNT_DETACH);
    umount2(WRITABLE_DIR, MNT_DETACH);
    if (chdir(NEW_ROOT_DIR) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
        chdir("/") < 0) {
        return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot make the image the root: %s",
                         strerror(errno));
    }
    return 0;
}

int root_enter(const struct guest_job *job, struct bvmm_error *err)
{
    int r = root_mount_image(job->root_device, IMAGE_DIR, job->root_fstype, err);

    if (r == 0) {
        r = mount_overlay(job->tmpfs_limit_bytes, err);
    }
    if (r == 0) {
        mount_tmp();
        r = switch_root(err);
    }
    return r;
}

/* ---- What programs expect -------------------------------------------------------------------- */

struct system_mount {
    const char *path;
    const char *fstype;
    unsigned long flags;
    const char *options;
    bool required; /* the job cannot run without; others depend on the kernel's configuration */
};

#define MS_PLAIN (MS_NOSUID | MS_NODEV)

static const struct system_mount system_mounts[] = {
    {"/proc", "proc", MS_PLAIN | MS_NOEXEC, NULL, true},
    {"/sys", "sysfs", MS_PLAIN | MS_NOEXEC, NULL, false},
    {"/dev", "devtmpfs", MS_NOSUID, NULL, true},
    {"/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "gid=5,mode=620,ptmxmode=666", false},
    {"/dev/shm", "tmpfs", MS_PLAIN, "mode=1777", false},
    {"/dev/mqueue", "mqueue", MS_PLAIN | MS_NOEXEC, NULL, false},
    {"/sys/fs/cgroup", "cgroup2", MS_PLAIN | MS_NOEXEC, NULL, false},
};

static int mount_system(struct bvmm_error *err)
{
    for (size_t i = 0; i < ARRAY_SIZE(system_mounts); i++) {
        const struct system_mount *m = &system_mounts[i];

        make_directories(m->path, 0755); /* where that fails, mount says why */
        if (mount(m->fstype, m->path, m->fstype, m->flags, m->options) == 0) {
            continue;
        }
        if (m->required) {
            return error_set(err, BVMM_ERROR_BOOT, -errno, "cannot mount %s in the image: %s",
                             m->path, strerror(errno));
        }
        fprintf(stderr, "bvmm-init: no %s: %s\n", m->path, strerror(errno));
    }
    return 0;
}

/* The results lie here until they are sent: what fills the rest of the writable space up does not
 * take their room. */
static int mount_run(uint64_t limit_bytes, struct bvmm_error *err)
{
    char size[32] = RUN_DEFAULT_SIZE;
    int r;

    if (limit_bytes > 0) {
        snprintf(size, sizeof(size), "%" PRIu64, limit_bytes);
    }
    make_directories("/run", 0755);
    r = mount_tmpfs("/run", size, MS_PLAIN, err);
    if (r == 0) {
        mkdir("/run/lock", 01777);
        chmod("/run/lock", 01777);
    }
    return r;
}

static void make_device_links(void)
{
    static const char *const links[][2] = {
        {"/proc/self/fd", "/dev/fd"},
        {"/proc/self/fd/0", "/dev/stdin"},
        {"/proc/self/fd/1", "/dev/stdout"},
        {"/proc/self/fd/2", "/dev/stderr"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(links); i++) {
        if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST) {
            fprintf(stderr, "bvmm-init: no %s: %s\n", links[i][1], strerror(errno));
        }
    }
}

static void bring_loopback_up(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0) {
        fprintf(stderr, "bvmm-init: no loopback interface: %s\n", strerror(errno));
    }
    if (fd >= 0) {
        close(fd);
    }
}

/* Container images often leave /etc/hosts to their runtime: "localhost" must have an address. */
static void write_hosts(const char *hostname)
{
    struct stat status;
    FILE *file;

    if (stat("/etc/hosts", &status) == 0 && status.st_size > 0) {
        return;
    }
    make_directories("/etc", 0755);
    file = fopen("/etc/hosts", "we");
    if (file) {
        fprintf(file, "127.0.0.1\tlocalhost %s\n::1\tlocalhost %s\n", hostname, hostname);
        fclose(file);
    }
}

static int mount_drives(const struct guest_job *job, struct bvmm_error *err)
{
    for (size_t i = 0; i < job->mount_count; i++) {
        const struct guest_job_mount *m = &job->mounts[i];
        int r = make_directories(m->path, 0755);

        if (r < 0 && r != -EROFS) {
            return error_set(err, BVMM_ERROR_BOOT, r, "cannot make the mount point %s: %s", m->path,
                             strerror(-r));
        }
        r = root_mount_image(m->device, m->path, m->fstype, err);
        if (r < 0) {
            return r;
        }
    }
    return 0;
}

int root_furnish(const struct guest_job *job, struct bvmm_error *err)
{
    int r = mount_system(err);

    if (r == 0) {
        r = mount_run(job->tmpfs_limit_bytes, err);
    }
    if (r < 0) {
        return r;
    }
    make_device_links();
    if (sethostname(job->hostname, strlen(job->hostname)) < 0) {
        fprintf(stderr, "bvmm-init: cannot set the host name: %s\n", strerror(errno));
    }
    bring_loopback_up();
    write_hosts(job->hostname);
    return mount_drives(job, err);
}
