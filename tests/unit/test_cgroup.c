/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_cgroup.c: the VM process's control group: in a fake tree, whose directories get their files
 * from this test when they are made; and in a real one where there is one with controllers (the
 * tests' lab has: tests/lab/lab).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "vmm/cgroup.h"
#include "vmm/filter.h"
#include "vmm/job.h"
#include "vmm/launcher_policy.h"
#include "vmm/spawn.h"

static char base[] = "/tmp/bvmm-test-cgroup.XXXXXX";
static bool is_fake;
static bool files_are_gone;        /* of the fake groups, before their directories */
static const char *effective_cpus; /* what a new fake group tells */

/* ---- A fake tree ----------------------------------------------------------------------------- */

static const char *const vm_files[] = {
    "cgroup.procs", "cgroup.type",     "cgroup.kill", "cpuset.cpus",   "cpuset.cpus.effective",
    "memory.max",   "memory.swap.max", "memory.peak", "memory.events", "pids.max",
};

static void put_at(int dir_fd, const char *name, const char *text)
{
    const int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    assert_int_equal(close(fd), 0);
}

int __real_mkdirat(int dir_fd, const char *name, mode_t mode); /* NOLINT: the linker's names */
int __wrap_mkdirat(int dir_fd, const char *name, mode_t mode); /* NOLINT */
int __real_unlinkat(int dir_fd, const char *name, int flags);  /* NOLINT */
int __wrap_unlinkat(int dir_fd, const char *name, int flags);  /* NOLINT */

int __wrap_mkdirat(int dir_fd, const char *name, mode_t mode) /* NOLINT */
{
    const int code = __real_mkdirat(dir_fd, name, mode);
    int fd = -1;

    if (code < 0 || !is_fake) {
        return code;
    }
    fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (size_t i = 0; i < ARRAY_SIZE(vm_files); i++) {
        put_at(fd, vm_files[i], "");
    }
    put_at(fd, "cpuset.cpus.effective", effective_cpus);
    put_at(fd, "memory.peak", "12345\n");
    put_at(fd, "memory.events", "low 0\noom 4\noom_kill 3\noom_group_kill 0\n");
    (void)close(fd);
    return 0;
}

int __wrap_unlinkat(int dir_fd, const char *name, int flags) /* NOLINT */
{
    const int fd = files_are_gone ? -1 : openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (size_t i = 0; fd >= 0 && is_fake && i < ARRAY_SIZE(vm_files); i++) {
        (void)__real_unlinkat(fd, vm_files[i], 0);
    }
    if (fd >= 0) {
        (void)close(fd);
    }
    return __real_unlinkat(dir_fd, name, flags);
}

static void put(const char *name, const char *text)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", base, name);
    put_at(AT_FDCWD, path, text);
}

static void expect(const char *dir, const char *name, const char *text)
{
    char path[4096];
    char found[4096] = "";
    FILE *file;

    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    file = fopen(path, "re");
    assert_non_null(file);
    found[fread(found, 1, sizeof(found) - 1, file)] = '\0';
    (void)fclose(file);
    assert_string_equal(found, text);
}

static bool is_there(const char *name)
{
    char path[4096];

    (void)snprintf(path, sizeof(path), "%s/%s", base, name);
    return access(path, F_OK) == 0;
}

static unsigned count_dirs(void)
{
    DIR *dir = opendir(base);
    const struct dirent *entry;
    unsigned count = 0;

    assert_non_null(dir);
    while ((entry = readdir(dir)) != NULL) {
        count += entry->d_type == DT_DIR && entry->d_name[0] != '.';
    }
    (void)closedir(dir);
    return count;
}

/* A delegated group in which this process is alone, as nobody has written to it. */
static void put_base_files(void)
{
    char pid[32];

    put("cgroup.controllers", "cpuset cpu io memory pids\n");
    put("cgroup.subtree_control", "");
    put("cgroup.type", "domain\n");
    (void)snprintf(pid, sizeof(pid), "%d\n", (int)getpid());
    put("cgroup.procs", pid);
}

static int make_base(void **state)
{
    (void)state;
    (void)snprintf(base + strlen(base) - 6, 7, "XXXXXX");
    assert_non_null(mkdtemp(base));
    is_fake = true;
    effective_cpus = "0-1\n";
    put_base_files();
    return 0;
}

static int remove_base(void **state)
{
    char command[4096];

    (void)state;
    (void)snprintf(command, sizeof(command), "rm -rf '%s'", base);
    return system(command); /* NOLINT(cert-env33-c): our own directory's name */
}

static int count_fds(void)
{
    int count = 0;

    for (int fd = 0; fd < 256; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

static const struct cgroup_limits plain = {.memory_max_bytes = 100 * MIB, .pids_max = 20};
static const struct cgroup_limits asked = {.cpus = "0-1",
                                           .memory_max_bytes = 100 * MIB,
                                           .pids_max = 20,
                                           .memory_asked = true,
                                           .pids_asked = true};

/* ---- In the fake tree ------------------------------------------------------------------------ */

static void limits_are_written_and_read_back(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;
    const int before = count_fds();

    (void)state;
    assert_int_equal(cgroup_make(base, &asked, false, &facts, &cgroup, &err), 0);
    assert_non_null(cgroup);
    assert_true(facts.stands);
    assert_string_equal(facts.reason, "");
    assert_true(strncmp(facts.path, base, strlen(base)) == 0);
    expect(facts.path, "memory.max", "104857600");
    expect(facts.path, "memory.swap.max", "0");
    expect(facts.path, "pids.max", "20");
    expect(facts.path, "cpuset.cpus", "0-1");
    assert_string_equal(facts.cpus, "0-1");
    assert_int_equal(facts.memory_max_bytes, 100 * MIB);
    assert_int_equal(facts.memory_swap_max_bytes, 0);
    assert_int_equal(facts.pids_max, 20);
    /* We had to leave, so that the base could hand its controllers on. */
    assert_true(is_there("bvmm-launcher"));
    expect(base, "bvmm-launcher/cgroup.procs", "0");
    /* A plain file keeps what the last of three writes left over of the others. */
    expect(base, "cgroup.subtree_control", "+pidsry");
    assert_true(fcntl(cgroup_fd(cgroup), F_GETFD) & FD_CLOEXEC);
    cgroup_remove(cgroup, &facts);
    assert_int_equal(facts.memory_peak_bytes, 12345);
    assert_int_equal(facts.oom_kills, 3);
    assert_int_equal(facts.limit_hits, 4);
    assert_int_equal(count_dirs(), 0);
    assert_int_equal(count_fds(), before);
}

static void others_in_the_group_are_left_alone(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;
    char pids[64];

    (void)state;
    (void)snprintf(pids, sizeof(pids), "1\n%d\n", (int)getpid());
    put("cgroup.procs", pids);
    /* Nobody asked for anything: no error, and a reason. */
    assert_int_equal(cgroup_make(base, &plain, false, &facts, &cgroup, &err), 0);
    assert_null(cgroup);
    assert_false(facts.stands);
    assert_non_null(strstr(facts.reason, "other processes"));
    assert_string_equal(facts.path, "");
    assert_int_equal(cgroup_fd(cgroup), -1);
    /* Somebody did. */
    assert_int_equal(cgroup_make(base, &asked, false, &facts, &cgroup, &err), -EBUSY);
    assert_null(cgroup);
    assert_int_equal(err.kind, BVMM_ERROR_SANDBOX);
    assert_non_null(strstr(err.message, "systemd-run --scope -p Delegate=yes"));
    assert_int_equal(cgroup_make(base, &asked, true, &facts, &cgroup, &err), 0);
    assert_null(cgroup);
    assert_int_equal(count_dirs(), 0);
    expect(base, "cgroup.subtree_control", "");
}

static void a_group_that_is_not_ours(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;

    (void)state;
    assert_int_equal(cgroup_make("/no/such/group", &plain, false, &facts, &cgroup, &err), 0);
    assert_null(cgroup);
    assert_non_null(strstr(facts.reason, "/no/such/group is not delegated"));
    assert_int_equal(cgroup_make("/no/such/group", &asked, false, &facts, &cgroup, &err), -EACCES);
}

static void controllers_that_are_missing(void **state)
{
    struct cgroup_limits only_pids = plain;
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;

    (void)state;
    only_pids.cpus = "0-1";
    effective_cpus = "0\n"; /* the parent has no more */
    assert_int_equal(cgroup_make(base, &only_pids, false, &facts, &cgroup, &err), -ERANGE);
    assert_int_equal(facts.memory_max_bytes, CGROUP_UNKNOWN); /* nothing stands */
    assert_string_equal(facts.cpus, "");
    assert_non_null(strstr(err.message, "cpus \"0-1\" cannot be had, only \"0\""));
    assert_int_equal(count_dirs(), 0);
    put_base_files();
    assert_int_equal(cgroup_make(base, &only_pids, true, &facts, &cgroup, &err), 0);
    assert_true(facts.stands);
    assert_string_equal(facts.cpus, "0");
    assert_non_null(strstr(facts.reason, "cannot be had"));
    cgroup_remove(cgroup, &facts);
    for (size_t i = 0; i < 3; i++) {
        static const char *const bad[] = {"1-0", "99999", "0-1,2-"};

        put_base_files();
        only_pids.cpus = bad[i];
        assert_int_equal(cgroup_make(base, &only_pids, false, &facts, &cgroup, &err), -EINVAL);
        assert_non_null(strstr(err.message, "expected numbers"));
    }
    assert_int_equal(count_dirs(), 0);
}

/* A leaf that somebody else has made is a neighbour, and stays. */
static void a_leaf_that_was_given(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;
    char leaf[4096];

    (void)state;
    put("cgroup.procs", "");
    put("cgroup.subtree_control", "cpuset memory pids\n");
    (void)snprintf(leaf, sizeof(leaf), "%s/bvmm-runner", base);
    assert_int_equal(mkdirat(AT_FDCWD, leaf, 0700), 0);
    assert_int_equal(cgroup_make(leaf, &asked, false, &facts, &cgroup, &err), 0);
    assert_true(strncmp(facts.path, base, strlen(base)) == 0);
    assert_non_null(strstr(facts.path + strlen(base), "/bvmm-vm-"));
    cgroup_remove(cgroup, &facts);
    assert_int_equal(count_dirs(), 1);
    assert_true(is_there("bvmm-runner"));
    expect(base, "cgroup.subtree_control", "cpuset memory pids\n");
}

/* Several VMs of one program: the last one tidies up. And what a killed launcher left goes. */
static void two_at_once_and_remains(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts[2];
    struct cgroup *cgroups[2] = {NULL, NULL};
    char leaf[4096];
    char dead[4096];

    (void)state;
    (void)snprintf(dead, sizeof(dead), "%s/bvmm-vm-1-0", base);
    assert_int_equal(mkdirat(AT_FDCWD, dead, 0700), 0);
    (void)snprintf(leaf, sizeof(leaf), "%s/bvmm-launcher", base);
    assert_int_equal(cgroup_make(base, &plain, false, &facts[0], &cgroups[0], &err), 0);
    assert_false(is_there("bvmm-vm-1-0"));
    assert_int_equal(cgroup_make(leaf, &plain, false, &facts[1], &cgroups[1], &err), 0);
    assert_non_null(cgroups[0]);
    assert_non_null(cgroups[1]);
    assert_string_not_equal(facts[0].path, facts[1].path);
    assert_int_equal(count_dirs(), 3);
    cgroup_remove(cgroups[0], &facts[0]);
    assert_int_equal(count_dirs(), 2);
    assert_true(is_there("bvmm-launcher"));
    cgroup_remove(cgroups[1], &facts[1]);
    assert_int_equal(count_dirs(), 0);
}

/* Another bvmm that was stopped while it had the lock holds up nobody: not the start, and not the end. */
static void a_lock_that_is_never_given_back(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;
    const int stopped_fd = open(base, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    uint64_t start_ns = 0;

    (void)state;
    assert_int_equal(cgroup_make(base, &plain, false, &facts, &cgroup, &err), 0);
    assert_non_null(cgroup);
    assert_true(is_there("bvmm-launcher"));
    assert_int_equal(flock(stopped_fd, LOCK_EX | LOCK_NB), 0);
    start_ns = clock_monotonic_ns();
    cgroup_remove(cgroup, &facts);
    assert_true(clock_monotonic_ns() - start_ns < NS_PER_SECOND); /* the promise is 100 ms */
    assert_int_equal(count_dirs(),
                     1); /* the VM's is gone; that we sat in the leaf cannot be undone */
    assert_true(is_there("bvmm-launcher"));
    assert_int_equal(facts.oom_kills, 3);

    assert_int_equal(cgroup_make(base, &plain, false, &facts, &cgroup, &err), 0);
    assert_null(cgroup);
    assert_non_null(strstr(facts.reason, "another bvmm has it"));
    assert_int_equal(cgroup_make(base, &asked, false, &facts, &cgroup, &err), -EWOULDBLOCK);
    assert_int_equal(close(stopped_fd), 0);
}

/* Where the real kernel needs nothing for it, the files of a fake group have to go before the group. */
static void remove_files(void)
{
    static const char *const groups[] = {"bvmm-launcher", "bvmm-vm-1-0", NULL};
    char path[4096];

    for (unsigned i = 0; i < ARRAY_SIZE(groups) * ARRAY_SIZE(vm_files); i++) {
        const char *group = groups[i / ARRAY_SIZE(vm_files)];
        char own[32];

        (void)snprintf(own, sizeof(own), "bvmm-vm-%d-0", (int)getpid());
        (void)snprintf(path, sizeof(path), "%s/%s/%s", base, group != NULL ? group : own,
                       vm_files[i % ARRAY_SIZE(vm_files)]);
        (void)unlink(path);
    }
    files_are_gone = true;
}

/* As launcher_sandbox.c does it. */
static void enter_waiting_filter(const struct cgroup *cgroup)
{
    const struct launcher_def *waiting = &launcher_defs[LAUNCHER_WAITING];
    struct policy_numbers numbers;
    struct filter *filter = NULL;
    struct bvmm_error err;

    memset(&numbers, 0, sizeof(numbers));
    policy_add_number(&numbers, POLICY_CGROUP_BASE, (uint64_t)cgroup_base_fd(cgroup));
    for (unsigned i = 0; i < CGROUP_COUNTERS; i++) {
        policy_add_number(&numbers, POLICY_CGROUP_READ, (uint64_t)cgroup_counter_fd(cgroup, i));
    }
    if (filter_new(waiting->name, waiting->policy, &numbers, &filter, &err) < 0 ||
        prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 || filter_put_on(filter) < 0) {
        _exit(10);
    }
}

/* The launcher removes it in its filter, sweeps what a killed one left, and moves back. */
static void all_is_undone_in_the_launchers_filter(void **state)
{
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    struct cgroup_facts facts;
    struct cgroup *cgroup = NULL;
    char path[4096];
    int status = 0;
    pid_t pid = 0;

    (void)state;
    if (!filter_possible()) {
        print_message(
            "skipped: this build has sanitizers, whose runtimes make calls of their own\n");
        skip();
    }
    pid = fork();
    if (pid == 0) {
        (void)snprintf(path, sizeof(path), "%d\n", (int)getpid());
        put("cgroup.procs", path);
        if (cgroup_make(base, &asked, false, &facts, &cgroup, &err) < 0 || cgroup == NULL) {
            _exit(11);
        }
        (void)snprintf(path, sizeof(path), "%s/bvmm-vm-1-0", base);
        (void)mkdir(path, 0755); /* its launcher was killed */
        remove_files();
        enter_waiting_filter(cgroup);
        cgroup_remove(cgroup, &facts);
        _exit(facts.memory_peak_bytes == 12345 && facts.oom_kills == 3 ? 0 : 12);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFSIGNALED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(count_dirs(), 0);
}

static void what_the_job_does_not_name_is_reckoned(void **state)
{
    struct cgroup_limits limits;
    struct job job;

    (void)state;
    assert_int_equal(job_init_defaults(&job), 0);
    job_cgroup_limits(&job, &limits);
    assert_null(limits.cpus);
    assert_false(limits.memory_asked || limits.pids_asked);
    /* The guest, 1/64, three streams and the console, and 64 MiB. */
    assert_true(limits.memory_max_bytes >= (512 + 8 + 75 + 1 + 64) * MIB);
    assert_true(limits.memory_max_bytes < (512 + 8 + 75 + 1 + 64 + 8) * MIB);
    assert_true(limits.pids_max >= ACTORS_MAX - VCPUS_MAX - DRIVES_MAX + 2);
    job.cgroup.memory_max_mib = 7;
    job.cgroup.pids_max = 8;
    job_cgroup_limits(&job, &limits);
    assert_int_equal(limits.memory_max_bytes, 7 * MIB);
    assert_int_equal(limits.pids_max, 8);
    assert_true(limits.memory_asked && limits.pids_asked);
    job_fini(&job);
}

/* ---- In a real one --------------------------------------------------------------------------- */

#define REAL_PARENT "/sys/fs/cgroup"

/* What the child found out, for the parent to judge: a cmocka assertion in a child ends nothing. */
struct seen {
    char cgroup[4096];
    int born_inside;
    int too_many;
    struct cgroup_facts facts;
    struct bvmm_error err;
    int code;
};

static void child_main(void *context, int alive_fd)
{
    struct seen *seen = context;
    FILE *file = fopen("/proc/self/cgroup", "re");

    (void)alive_fd;
    if (file == NULL || fread(seen->cgroup, 1, sizeof(seen->cgroup) - 1, file) == 0) {
        seen->cgroup[0] = '\0'; /* the assertion that follows tells */
    }
    for (int i = 0; i < 64 && seen->too_many == 0; i++) {
        const pid_t pid = fork();

        if (pid == 0) {
            (void)pause();
        }
        seen->too_many = pid < 0 ? errno : 0;
    }
    _exit(0); /* process 1 of its namespace: the others go too, or cgroup.kill gets them */
}

/* In a process that is alone in the control group base. */
static void run_in_group(struct seen *seen)
{
    struct cgroup *cgroup = NULL;
    struct record_limits limits = {.console_bytes = 4096};
    struct record *record = NULL;
    pid_t pid = 0;
    int alive_fd = -1;

    seen->code = cgroup_make(NULL, &asked, false, &seen->facts, &cgroup, &seen->err);
    if (seen->code == 0 && cgroup == NULL) {
        seen->code = -ENOENT;
    }
    if (seen->code == 0) {
        seen->code = record_create(&limits, &record, &seen->err);
    }
    if (seen->code == 0) {
        seen->code = spawn_process(JOB_SANDBOX_OFF, record, cgroup_fd(cgroup), child_main, seen,
                                   &pid, &alive_fd, &seen->err);
    }
    if (seen->code == 0) {
        (void)waitpid(pid, NULL, 0);
    }
    cgroup_remove(cgroup, &seen->facts);
    _exit(0);
}

static void real_control_groups(void **state)
{
    struct seen *seen =
        mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    char path[4096];
    pid_t pid = 0;
    int status = 0;

    (void)state;
    is_fake = false;
    (void)snprintf(path, sizeof(path), REAL_PARENT "/cgroup.subtree_control");
    put_at(AT_FDCWD, path, "+cpuset +memory +pids");
    (void)snprintf(base, sizeof(base), REAL_PARENT "/t%d", (int)getpid());
    assert_int_equal(mkdir(base, 0755), 0);
    pid = fork();
    if (pid == 0) {
        (void)snprintf(path, sizeof(path), "%s/cgroup.procs", base);
        put_at(AT_FDCWD, path, "0");
        run_in_group(seen);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (seen->code != 0) {
        fail_msg("%s; %s", seen->err.message, seen->facts.reason);
    }
    assert_non_null(strstr(seen->cgroup, "/bvmm-vm-"));
    assert_int_equal(seen->too_many, EAGAIN); /* pids.max holds */
    assert_true(seen->facts.stands);
    assert_string_equal(seen->facts.reason, "");
    assert_string_equal(seen->facts.cpus, "0-1");
    assert_int_equal(seen->facts.memory_max_bytes, 100 * MIB);
    assert_int_equal(seen->facts.pids_max, 20);
    assert_int_equal(seen->facts.oom_kills, 0);
    assert_true(seen->facts.memory_peak_bytes > 0);
    assert_int_equal(count_dirs(), 0); /* the VM's and the launcher's are gone */
    expect(base, "cgroup.subtree_control", "");
    assert_int_equal(rmdir(base), 0);
    (void)munmap(seen, sizeof(*seen));
}

int main(void)
{
#define FAKE(name) cmocka_unit_test_setup_teardown(name, make_base, remove_base)
    const struct CMUnitTest fake[] = {
        FAKE(limits_are_written_and_read_back),
        FAKE(others_in_the_group_are_left_alone),
        FAKE(a_group_that_is_not_ours),
        FAKE(controllers_that_are_missing),
        FAKE(a_leaf_that_was_given),
        FAKE(two_at_once_and_remains),
        FAKE(a_lock_that_is_never_given_back),
        FAKE(all_is_undone_in_the_launchers_filter),
        cmocka_unit_test(what_the_job_does_not_name_is_reckoned),
    };
    const struct CMUnitTest real[] = {cmocka_unit_test(real_control_groups)};
    const bool is_real = access(REAL_PARENT "/cgroup.subtree_control", W_OK) == 0 && getuid() == 0;
    int failed = cmocka_run_group_tests_name("fake", fake, NULL, NULL);

    if (is_real) {
        failed += cmocka_run_group_tests_name("real", real, NULL, NULL);
    } else {
        (void)printf("real control groups: skipped: needs root and cgroup v2 at " REAL_PARENT
                     " (tests/lab/lab has both)\n");
    }
    return failed;
}
