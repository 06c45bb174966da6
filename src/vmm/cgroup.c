/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cgroup.c: a control group of its own for the VM process. See cgroup.h. */
#include "vmm/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LEAF_OURS "bvmm-launcher"
#define LEAF_GIVEN "bvmm-runner"
#define VM_PREFIX "bvmm-vm-"
#define NAME_BYTES 64
#define FILE_BYTES 4096 /* one page: what a control file tells at most */
#define TRY_NS (2 * NS_PER_MS)
#define REMOVE_TRIES 50    /* a killed process takes its time to go */
#define LOCK_TRIES 1000    /* at the start: there may be many bvmm */
#define LAST_LOCK_TRIES 50 /* at the end: the report waits for it */

enum controller { CPUSET, MEMORY, PIDS, CONTROLLER_COUNT };
static const char *const controller_names[] = {"cpuset", "memory", "pids"};

/*
 * What is needed at the end is opened at the start: then the launcher's filter need not let it open
 * files for writing.
 */
enum kept_file { KEPT_PEAK, KEPT_EVENTS, KEPT_KILL, KEPT_SUBTREE, KEPT_PROCS, KEPT_COUNT };
static const struct {
    const char *name;
    bool of_base; /* else of the VM's */
    int flags;
} kept_files[KEPT_COUNT] = {
    [KEPT_PEAK] = {"memory.peak", false, O_RDONLY},
    [KEPT_EVENTS] = {"memory.events", false, O_RDONLY},
    [KEPT_KILL] = {"cgroup.kill", false, O_WRONLY},
    [KEPT_SUBTREE] = {"cgroup.subtree_control", true, O_WRONLY},
    [KEPT_PROCS] = {"cgroup.procs", true, O_WRONLY},
};

struct cgroup {
    int base_fd;          /* in which the VM's is made */
    int dir_fd;           /* the VM's; locked while we live */
    int kept[KEPT_COUNT]; /* -1: the kernel has no such file, or it is not needed */
    bool moved;           /* we sit in LEAF_OURS */
    char name[NAME_BYTES];
};

/* ---- Files ----------------------------------------------------------------------------------- */

static int write_text(int fd, const char *text)
{
    return write(fd, text, strlen(text)) < 0 ? -errno : 0;
}

static int write_file(int dir_fd, const char *name, const char *text)
{
    const int fd = openat(dir_fd, name, O_WRONLY | O_CLOEXEC);
    int code = 0;

    if (fd < 0) {
        return -errno;
    }
    code = write_text(fd, text);
    (void)close(fd);
    return code;
}

static int write_number(int dir_fd, const char *name, uint64_t number)
{
    char text[32];

    (void)snprintf(text, sizeof(text), "%" PRIu64, number);
    return write_file(dir_fd, name, text);
}

/* From where the file is read now, without the newline at its end. */
static int read_text(int fd, char text[FILE_BYTES])
{
    const ssize_t n = read(fd, text, FILE_BYTES - 1);
    size_t bytes = n < 0 ? 0 : (size_t)n;

    while (bytes > 0 && text[bytes - 1] == '\n') {
        bytes--;
    }
    text[bytes] = '\0';
    return n < 0 ? -errno : 0;
}

static int read_file(int dir_fd, const char *name, char text[FILE_BYTES])
{
    const int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC);
    int code = 0;

    text[0] = '\0';
    if (fd < 0) {
        return -errno;
    }
    code = read_text(fd, text);
    (void)close(fd);
    return code;
}

static uint64_t to_number(const char *text)
{
    char *end = NULL;
    const uint64_t number = strtoull(text, &end, 10); /* "max" is no number */

    return end != text && *end == '\0' ? number : CGROUP_UNKNOWN;
}

static uint64_t read_number(int dir_fd, const char *name)
{
    char text[FILE_BYTES];

    return read_file(dir_fd, name, text) < 0 ? CGROUP_UNKNOWN : to_number(text);
}

/* The number behind a word in lines "word number". */
static uint64_t named_number(const char *text, const char *word)
{
    const size_t bytes = strlen(word);

    for (const char *line = text; *line != '\0'; line += *line == '\n') {
        if (strncmp(line, word, bytes) == 0 && line[bytes] == ' ') {
            return strtoull(line + bytes + 1, NULL, 10);
        }
        line += strcspn(line, "\n");
    }
    return CGROUP_UNKNOWN;
}

static bool has_word(const char *words, const char *word)
{
    const size_t bytes = strlen(word);

    for (const char *at = words; *at != '\0'; at += *at == ' ') {
        if (strncmp(at, word, bytes) == 0 && (at[bytes] == ' ' || at[bytes] == '\0')) {
            return true;
        }
        at += strcspn(at, " ");
    }
    return false;
}

static void add_reason(struct cgroup_facts *facts, const char *fmt, ...) printf_like(2, 3);
static void add_reason(struct cgroup_facts *facts, const char *fmt, ...)
{
    size_t used = strlen(facts->reason);
    va_list args;

    if (used > 0) {
        (void)snprintf(facts->reason + used, sizeof(facts->reason) - used, "; ");
        used = strlen(facts->reason);
    }
    va_start(args, fmt);
    (void)vsnprintf(facts->reason + used, sizeof(facts->reason) - used, fmt, args);
    va_end(args);
}

/* ---- Where we are ---------------------------------------------------------------------------- */

/* Our line in /proc/self/cgroup, "0::PATH"; "" if there is none. */
static void find_own_name(char name[PATH_MAX])
{
    FILE *file = fopen("/proc/self/cgroup", "re");
    char line[PATH_MAX + 3]; /* what stands before the name goes */

    name[0] = '\0';
    while (file != NULL && fgets(line, sizeof(line), file) != NULL) {
        if (strncmp(line, "0::/", 4) == 0) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(name, PATH_MAX, "%s", line + 3);
        }
    }
    if (file != NULL) {
        (void)fclose(file);
    }
}

/* The mount of cgroup v2, and which directory of it is mounted there. */
static bool find_mount(char root[PATH_MAX], char point[PATH_MAX])
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[2 * PATH_MAX];
    bool found = false;

    while (file != NULL && !found && fgets(line, sizeof(line), file) != NULL) {
        found = strstr(line, " - cgroup2 ") != NULL &&
                sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2;
    }
    if (file != NULL) {
        (void)fclose(file);
    }
    return found;
}

static bool find_own(char own[PATH_MAX], struct cgroup_facts *facts)
{
    char name[PATH_MAX];
    char root[PATH_MAX];
    char point[PATH_MAX];
    size_t skipped = 0;
    size_t length = 0;

    find_own_name(name);
    if (name[0] == '\0' || !find_mount(root, point)) {
        add_reason(facts, "this host has no cgroup v2 mounted");
        return false;
    }
    skipped = strcmp(root, "/") == 0 ? 0 : strlen(root);
    if (strncmp(name, "/..", 3) == 0 || strncmp(name, root, skipped) != 0 ||
        snprintf(own, PATH_MAX, "%s%s", point, name + skipped) >= PATH_MAX) {
        add_reason(facts, "bvmm's own control group %.200s is not below %.200s", name, point);
        return false;
    }
    length = strlen(own);
    if (length > 1 && own[length - 1] == '/') {
        own[length - 1] = '\0'; /* the root control group is named "/" */
    }
    return true;
}

static void wait_for_next_try(void)
{
    const struct timespec wait = {.tv_nsec = (long)TRY_NS};

    /* Not nanosleep: one that a stop breaks off goes on by a call of another number. */
    (void)ppoll(NULL, 0, &wait, NULL);
}

/*
 * One bvmm at a time divides; that takes it some milliseconds. But one that is stopped meanwhile (SIGSTOP,
 * a debugger) would hold up all others for ever, so nobody waits for longer than this.
 */
static int lock_base(int base_fd, unsigned tries)
{
    for (unsigned i = 0; flock(base_fd, LOCK_EX | LOCK_NB) < 0; i++) {
        if (errno != EWOULDBLOCK || i + 1 >= tries) {
            return -errno;
        }
        wait_for_next_try();
    }
    return 0;
}

static bool ends_with(const char *path, const char *name)
{
    const char *slash = strrchr(path, '/');

    return slash != NULL && strcmp(slash + 1, name) == 0;
}

/* The directory in which the VM's is to be made, with the lock. */
static int open_base(struct cgroup *cgroup, char own[PATH_MAX], struct cgroup_facts *facts)
{
    int code = 0;

    cgroup->moved = ends_with(own, LEAF_OURS);
    if (cgroup->moved || ends_with(own, LEAF_GIVEN)) {
        *strrchr(own, '/') = '\0';
    }
    cgroup->base_fd = fd_above_standard(open(own, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (cgroup->base_fd < 0 || faccessat(cgroup->base_fd, ".", W_OK, AT_EACCESS) < 0 ||
        faccessat(cgroup->base_fd, "cgroup.procs", W_OK, AT_EACCESS) < 0) {
        add_reason(facts, "the control group %.200s is not delegated to this user: %s", own,
                   error_text(errno));
        return -EACCES;
    }
    code = lock_base(cgroup->base_fd, LOCK_TRIES);
    if (code < 0) {
        add_reason(facts, "%.200s cannot be locked: %s", own,
                   code == -EWOULDBLOCK ? "another bvmm has it; is that stopped?"
                                        : error_text(-code));
        return code;
    }
    (void)snprintf(facts->path, sizeof(facts->path), "%s", own);
    return 0;
}

/* ---- VM control groups in the base ----------------------------------------------------------- */

/* With the base's lock: remove what nobody has any more. Return: how many there still are. */
static unsigned sweep(int base_fd)
{
    const int fd = openat(base_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd < 0 ? NULL : fdopendir(fd);
    const struct dirent *entry = NULL;
    unsigned count = 0;

    while (dir != NULL && (entry = readdir(dir)) != NULL) {
        int vm_fd = -1;

        if (strncmp(entry->d_name, VM_PREFIX, strlen(VM_PREFIX)) != 0) {
            continue;
        }
        vm_fd = openat(base_fd, entry->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (vm_fd < 0 || flock(vm_fd, LOCK_EX | LOCK_NB) < 0 ||
            unlinkat(base_fd, entry->d_name, AT_REMOVEDIR) < 0) {
            count++;
        }
        if (vm_fd >= 0) {
            (void)close(vm_fd);
        }
    }
    if (dir != NULL) {
        (void)closedir(dir);
    } else if (fd >= 0) {
        (void)close(fd);
    }
    return count;
}

static int make_dir(struct cgroup *cgroup)
{
    for (unsigned number = 0; number < 1000; number++) {
        (void)snprintf(cgroup->name, sizeof(cgroup->name), VM_PREFIX "%d-%u", (int)getpid(),
                       number);
        if (mkdirat(cgroup->base_fd, cgroup->name, 0755) == 0) {
            cgroup->dir_fd = fd_above_standard(
                openat(cgroup->base_fd, cgroup->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
            return cgroup->dir_fd < 0 || flock(cgroup->dir_fd, LOCK_EX | LOCK_NB) < 0 ? -errno : 0;
        }
        if (errno != EEXIST) {
            break;
        }
    }
    cgroup->name[0] = '\0';
    return -errno;
}

/* ---- Controllers ----------------------------------------------------------------------------- */

/* Is every process in here ours, so that we may move it? */
static bool are_we_alone(int base_fd)
{
    char text[FILE_BYTES];
    char *end = text;

    return read_file(base_fd, "cgroup.procs", text) == 0 &&
           strtol(text, &end, 10) == (long)getpid() && *end == '\0';
}

static bool must_be_empty(int base_fd)
{
    char text[FILE_BYTES];

    /* The root is the only one without a type; it may have processes and controllers. */
    return faccessat(base_fd, "cgroup.type", F_OK, 0) == 0 &&
           read_file(base_fd, "cgroup.procs", text) == 0 && text[0] != '\0';
}

static int move_away(struct cgroup *cgroup, struct cgroup_facts *facts)
{
    int code = 0;

    if (!are_we_alone(cgroup->base_fd)) {
        add_reason(facts, "other processes are in bvmm's control group too, so it is not bvmm's to "
                          "divide");
        return -EBUSY;
    }
    if (mkdirat(cgroup->base_fd, LEAF_OURS, 0755) < 0 && errno != EEXIST) {
        code = -errno;
    } else {
        code = write_file(cgroup->base_fd, LEAF_OURS "/cgroup.procs", "0");
    }
    if (code < 0) {
        (void)unlinkat(cgroup->base_fd, LEAF_OURS, AT_REMOVEDIR);
        add_reason(facts, "bvmm cannot move into a control group " LEAF_OURS ": %s",
                   error_text(-code));
        return code;
    }
    cgroup->moved = true;
    return 0;
}

/* Whatever there is of the controllers that the limits need is enabled for the VM's. */
static int enable(struct cgroup *cgroup, const struct cgroup_limits *limits,
                  struct cgroup_facts *facts)
{
    char available[FILE_BYTES];
    char enabled[FILE_BYTES];
    bool wanted[CONTROLLER_COUNT] = {
        [CPUSET] = limits->cpus != NULL, [MEMORY] = true, [PIDS] = true};
    bool any = false;
    int code = read_file(cgroup->base_fd, "cgroup.controllers", available);

    if (code == 0) {
        code = read_file(cgroup->base_fd, "cgroup.subtree_control", enabled);
    }
    if (code != 0) {
        add_reason(facts, "its controllers cannot be read: %s", error_text(-code));
        return code;
    }
    for (unsigned i = 0; i < CONTROLLER_COUNT; i++) {
        wanted[i] = wanted[i] && has_word(available, controller_names[i]) &&
                    !has_word(enabled, controller_names[i]);
        any = any || wanted[i];
    }
    if (any && must_be_empty(cgroup->base_fd)) {
        code = move_away(cgroup, facts);
    }
    for (unsigned i = 0; code == 0 && i < CONTROLLER_COUNT; i++) {
        char text[32];

        (void)snprintf(text, sizeof(text), "+%s", controller_names[i]);
        /* One that stays away is missed, and named, when its limit is set. */
        if (wanted[i]) {
            (void)!write_file(cgroup->base_fd, "cgroup.subtree_control", text);
        }
    }
    return code;
}

/* With the base's lock, when no VM's is left: as it was before move_away(). */
static void move_back(const struct cgroup *cgroup)
{
    for (unsigned i = 0; i < CONTROLLER_COUNT; i++) {
        char text[32];

        (void)snprintf(text, sizeof(text), "-%s", controller_names[i]);
        (void)!write_text(cgroup->kept[KEPT_SUBTREE], text);
    }
    (void)!write_text(cgroup->kept[KEPT_PROCS], "0");
    (void)unlinkat(cgroup->base_fd, LEAF_OURS, AT_REMOVEDIR);
}

/* ---- Limits ---------------------------------------------------------------------------------- */

/* "0-1,3" to bits. False: it is no list of CPUs. */
static bool parse_cpus(const char *text, uint64_t bits[CGROUP_CPUS_MAX / 64])
{
    const char *at = text;

    memset(bits, 0, CGROUP_CPUS_MAX / 8);
    for (;;) {
        char *end = NULL;
        unsigned long first = strtoul(at, &end, 10);
        unsigned long last = first;

        if (end == at) {
            return false;
        }
        if (*end == '-') {
            at = end + 1;
            last = strtoul(at, &end, 10);
        }
        if (end == at || first > last || last >= CGROUP_CPUS_MAX) {
            return false;
        }
        for (; first <= last; first++) {
            bits[first / 64] |= (uint64_t)1 << (first % 64);
        }
        if (*end == '\0') {
            return true;
        }
        if (*end != ',') {
            return false;
        }
        at = end + 1;
    }
}

/* What the kernel gives may be less than what was written. */
static int set_cpus(int dir_fd, const char *cpus, struct cgroup_facts *facts)
{
    uint64_t wanted[CGROUP_CPUS_MAX / 64];
    uint64_t had[CGROUP_CPUS_MAX / 64];
    char text[FILE_BYTES];
    int code = 0;

    if (!parse_cpus(cpus, wanted)) {
        add_reason(facts, "cpus \"%.64s\": expected numbers below %d and rising ranges", cpus,
                   CGROUP_CPUS_MAX);
        return -EINVAL;
    }
    code = write_file(dir_fd, "cpuset.cpus", cpus);
    if (code == 0) {
        code = read_file(dir_fd, "cpuset.cpus.effective", text);
    }
    if (code < 0) {
        add_reason(facts, "cpus \"%.64s\" cannot be set: %s", cpus,
                   code == -ENOENT ? "there is no cpuset controller" : error_text(-code));
        return code;
    }
    if (!parse_cpus(text, had) || memcmp(wanted, had, sizeof(had)) != 0) {
        add_reason(facts, "cpus \"%.64s\" cannot be had, only \"%.64s\"", cpus, text);
        return -ERANGE;
    }
    return 0;
}

static int set_limit(int dir_fd, const char *file, uint64_t limit, const char *controller,
                     struct cgroup_facts *facts)
{
    const int code = write_number(dir_fd, file, limit);

    if (code < 0) {
        add_reason(facts, "%s cannot be set: %s%s%s", file,
                   code == -ENOENT ? "there is no controller " : error_text(-code),
                   code == -ENOENT ? controller : "", "");
    }
    return code;
}

/* Return: the first failure of something that was asked for. */
static int set_limits(int dir_fd, const struct cgroup_limits *limits, struct cgroup_facts *facts)
{
    int code = limits->cpus != NULL ? set_cpus(dir_fd, limits->cpus, facts) : 0;
    int other = set_limit(dir_fd, "memory.max", limits->memory_max_bytes, "memory", facts);

    if (other == 0) {
        /* Not there if the kernel has no swap at all, which is as good. */
        (void)!write_number(dir_fd, "memory.swap.max", 0);
    } else if (limits->memory_asked && code == 0) {
        code = other;
    }
    other = set_limit(dir_fd, "pids.max", limits->pids_max, "pids", facts);
    return limits->pids_asked && code == 0 ? other : code;
}

static void read_back(int dir_fd, struct cgroup_facts *facts)
{
    char text[FILE_BYTES];

    if (read_file(dir_fd, "cpuset.cpus.effective", text) == 0) {
        (void)snprintf(facts->cpus, sizeof(facts->cpus), "%.*s", CGROUP_TEXT_BYTES - 1, text);
    }
    facts->memory_max_bytes = read_number(dir_fd, "memory.max");
    facts->memory_swap_max_bytes = read_number(dir_fd, "memory.swap.max");
    facts->pids_max = read_number(dir_fd, "pids.max");
}

void cgroup_facts_init(struct cgroup_facts *facts)
{
    *facts = (struct cgroup_facts){.memory_max_bytes = CGROUP_UNKNOWN,
                                   .memory_swap_max_bytes = CGROUP_UNKNOWN,
                                   .pids_max = CGROUP_UNKNOWN,
                                   .memory_peak_bytes = CGROUP_UNKNOWN,
                                   .oom_kills = CGROUP_UNKNOWN,
                                   .limit_hits = CGROUP_UNKNOWN};
}

/* ---- All of it ------------------------------------------------------------------------------- */

/* Those that there are by now, and that are not open yet. */
static void keep_files(struct cgroup *cgroup)
{
    for (unsigned i = 0; i < KEPT_COUNT; i++) {
        const int dir_fd = kept_files[i].of_base ? cgroup->base_fd : cgroup->dir_fd;

        if (cgroup->kept[i] < 0 && dir_fd >= 0 && (!kept_files[i].of_base || cgroup->moved)) {
            cgroup->kept[i] = fd_above_standard(
                openat(dir_fd, kept_files[i].name, kept_files[i].flags | O_CLOEXEC));
        }
    }
}

static int make(struct cgroup *cgroup, const char *own, const struct cgroup_limits *limits,
                struct cgroup_facts *facts)
{
    char path[PATH_MAX] = "";
    size_t used = 0;
    int code = 0;

    if (own != NULL) {
        (void)snprintf(path, sizeof(path), "%s", own);
    } else if (!find_own(path, facts)) {
        return -ENOENT;
    }
    code = open_base(cgroup, path, facts);
    if (code < 0) {
        return code;
    }
    (void)sweep(cgroup->base_fd);
    code = enable(cgroup, limits, facts);
    keep_files(cgroup);
    if (code < 0) {
        return code;
    }
    code = make_dir(cgroup);
    if (code < 0) {
        add_reason(facts, "no control group can be made in %.200s: %s", path, error_text(-code));
        return code;
    }
    keep_files(cgroup);
    code = set_limits(cgroup->dir_fd, limits, facts);
    read_back(cgroup->dir_fd, facts);
    if (facts->memory_max_bytes == CGROUP_UNKNOWN && facts->pids_max == CGROUP_UNKNOWN &&
        limits->cpus == NULL) {
        return -ENOENT; /* it would hold nothing */
    }
    used = strlen(facts->path);
    (void)snprintf(facts->path + used, sizeof(facts->path) - used, "/%s", cgroup->name);
    facts->stands = true;
    return code;
}

static int refuse(const struct cgroup_facts *facts, int code, struct bvmm_error *err)
{
    return error_set(
        err, BVMM_ERROR_SANDBOX, code,
        "$.cgroup: the limits cannot be had: %s; give bvmm a control group of its own "
        "(systemd-run --scope -p Delegate=yes bvmm ..., with --user if you are not root), "
        "or leave \"cgroup\" out of the job",
        facts->reason);
}

/* There is none after all; only the reason stays. */
static void forget_limits(struct cgroup_facts *facts)
{
    char reason[CGROUP_TEXT_BYTES];

    memcpy(reason, facts->reason, sizeof(reason));
    cgroup_facts_init(facts);
    memcpy(facts->reason, reason, sizeof(reason));
}

int cgroup_make(const char *own, const struct cgroup_limits *limits, bool best_effort,
                struct cgroup_facts *facts, struct cgroup **ret_cgroup, struct bvmm_error *err)
{
    const bool asked = limits->cpus != NULL || limits->memory_asked || limits->pids_asked;
    struct cgroup *cgroup = calloc(1, sizeof(*cgroup));
    int code = 0;

    *ret_cgroup = NULL;
    cgroup_facts_init(facts);
    if (cgroup == NULL) {
        return error_set(err, BVMM_ERROR_MEMORY, -ENOMEM, "out of memory");
    }
    cgroup->base_fd = -1;
    cgroup->dir_fd = -1;
    for (unsigned i = 0; i < KEPT_COUNT; i++) {
        cgroup->kept[i] = -1;
    }
    code = make(cgroup, own, limits, facts);
    if (cgroup->base_fd >= 0) {
        (void)flock(cgroup->base_fd, LOCK_UN);
    }
    if (!facts->stands || (code < 0 && !best_effort)) {
        cgroup_remove(cgroup, facts);
        forget_limits(facts);
        return code < 0 && asked && !best_effort ? refuse(facts, code, err) : 0;
    }
    *ret_cgroup = cgroup;
    return 0;
}

int cgroup_fd(const struct cgroup *cgroup)
{
    return cgroup != NULL ? cgroup->dir_fd : -1;
}

int cgroup_base_fd(const struct cgroup *cgroup)
{
    return cgroup != NULL ? cgroup->base_fd : -1;
}

int cgroup_counter_fd(const struct cgroup *cgroup, unsigned index)
{
    static const enum kept_file counters[CGROUP_COUNTERS] = {KEPT_PEAK, KEPT_EVENTS};

    return cgroup != NULL ? cgroup->kept[counters[index]] : -1;
}

int cgroup_join(int cgroup_fd)
{
    return write_file(cgroup_fd, "cgroup.procs", "0");
}

static void remove_dir(const struct cgroup *cgroup)
{
    /* Nobody should be in it any more; if somebody is, that ends here. */
    (void)!write_text(cgroup->kept[KEPT_KILL], "1");
    for (unsigned i = 0; i < REMOVE_TRIES; i++) {
        if (unlinkat(cgroup->base_fd, cgroup->name, AT_REMOVEDIR) == 0 || errno != EBUSY) {
            return;
        }
        wait_for_next_try();
    }
}

static void take_last_facts(const struct cgroup *cgroup, struct cgroup_facts *facts)
{
    char text[FILE_BYTES];

    facts->memory_peak_bytes =
        read_text(cgroup->kept[KEPT_PEAK], text) < 0 ? CGROUP_UNKNOWN : to_number(text);
    if (read_text(cgroup->kept[KEPT_EVENTS], text) == 0) {
        facts->oom_kills = named_number(text, "oom_kill");
        /* Counted where the limit is that was reached: not here if it is the host's, or one above. */
        facts->limit_hits = named_number(text, "oom");
    }
}

static void close_if_open(int fd)
{
    if (fd >= 0) {
        (void)close(fd);
    }
}

void cgroup_remove(struct cgroup *cgroup, struct cgroup_facts *facts)
{
    if (cgroup == NULL) {
        return;
    }
    if (cgroup->name[0] != '\0') {
        take_last_facts(cgroup, facts);
        remove_dir(cgroup);
    }
    if (cgroup->moved && lock_base(cgroup->base_fd, LAST_LOCK_TRIES) == 0) {
        if (sweep(cgroup->base_fd) == 0) {
            move_back(cgroup);
        }
        (void)flock(cgroup->base_fd, LOCK_UN); /* not left to close(): a child may have a copy */
    }
    for (unsigned i = 0; i < KEPT_COUNT; i++) {
        close_if_open(cgroup->kept[i]);
    }
    close_if_open(cgroup->dir_fd);
    close_if_open(cgroup->base_fd);
    free(cgroup);
}
