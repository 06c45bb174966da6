/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_filter.c: tries to break the filters of every actor and of the launcher in both its states. A
 * child process enters the real filter, made from the real policy, and makes a call that it forbids: all
 * system calls by number, the x32 ones, and allowed ones with a wrong argument. Each time the process
 * must die by SIGSYS, and the record must name the call, and the actor if it is one.
 */
#include "actor_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>

#include <linux/kvm.h>
#include <linux/seccomp.h>

#include "actors/vcpu.h"
#include "vmm/filter.h"
#include "vmm/launcher_policy.h"

#define X32_BIT 0x40000000L
#define CALLS_MAX 600
#define NOTED_AS 3 /* the actor's number in the record */

/* Numbers that no test has open by chance. */
enum {
    FD_DOORBELL = 900,
    FD_OTHER_DOORBELL,
    FD_IRQ,
    FD_IMAGE,
    FD_VCPU,
    FD_TIMER,
    FD_SIGNALS,
    FD_LISTEN,
    FD_EPOLL,
    FD_PIDFD,
    FD_VM_SOCKET,
    FD_CANCEL,
    FD_BROKER,
    FD_CGROUP,
    FD_COUNTER,
    FD_KERNEL,
    FD_DIR,
    FD_LARGE,
    FD_WRONG
};
#define FAKE_PID 4242
#define FAKE_FILTER 0x1234567890

static const struct {
    enum policy_value value;
    uint64_t number;
    bool bridge; /* only of a job that bridges */
} given[] = {
    {POLICY_OWN_DOORBELL, FD_DOORBELL, false},
    {POLICY_DOORBELLS, FD_OTHER_DOORBELL, false},
    {POLICY_IRQ, FD_IRQ, false},
    {POLICY_IMAGE, FD_IMAGE, false},
    {POLICY_VCPU, FD_VCPU, false},
    {POLICY_TIMER, FD_TIMER, false},
    {POLICY_SIGNALS, FD_SIGNALS, false},
    {POLICY_PROCESS, FAKE_PID, false},
    {POLICY_HOST_SOCKETS, FD_LISTEN, true},
    {POLICY_BRIDGE_LIST, FD_EPOLL, true},
    {POLICY_VM_PIDFD, FD_PIDFD, false},
    {POLICY_VM_SOCKET, FD_VM_SOCKET, false},
    {POLICY_CANCEL, FD_CANCEL, false},
    {POLICY_BROKER, FD_BROKER, true},
    {POLICY_CGROUP_BASE, FD_CGROUP, false},
    {POLICY_CGROUP_READ, FD_COUNTER, false},
    {POLICY_KERNEL_FILE, FD_KERNEL, false},
    {POLICY_REPORT_DIRS, FD_DIR, false},
    {POLICY_REPORT_DIRS, FD_LARGE, false},
    {POLICY_LARGE_DIR, FD_LARGE, false},
    {POLICY_NEXT_FILTER, FAKE_FILTER, false},
};

/* Whose filter: an actor's class, or behind those a state of the launcher; with a bridge or without. */
struct holder {
    unsigned number;
    bool bridge;
};
#define HOLDERS ((unsigned)ACTOR_CLASS_COUNT + LAUNCHER_STATE_COUNT)
#define WITHOUT(class)                                                                             \
    {                                                                                              \
        ACTOR_##class, false                                                                       \
    }
#define BRIDGED(class)                                                                             \
    {                                                                                              \
        ACTOR_##class, true                                                                        \
    }
#define WAITING                                                                                    \
    {                                                                                              \
        (unsigned)ACTOR_CLASS_COUNT + LAUNCHER_WAITING, true                                       \
    }
#define WAITING_ALONE                                                                              \
    {                                                                                              \
        (unsigned)ACTOR_CLASS_COUNT + LAUNCHER_WAITING, false                                      \
    }
#define WRITING                                                                                    \
    {                                                                                              \
        (unsigned)ACTOR_CLASS_COUNT + LAUNCHER_WRITING, true                                       \
    }

static struct record *record;

static const char *name_of(struct holder holder)
{
    return holder.number < ACTOR_CLASS_COUNT
               ? actor_defs[holder.number].name
               : launcher_defs[holder.number - ACTOR_CLASS_COUNT].name;
}

static const struct policy *policy_of(struct holder holder)
{
    return holder.number < ACTOR_CLASS_COUNT
               ? actor_defs[holder.number].policy
               : launcher_defs[holder.number - ACTOR_CLASS_COUNT].policy;
}

static bool in_policy(struct holder holder, long call)
{
    const struct policy *policy = policy_of(holder);

    for (unsigned i = 0; i < policy->rule_count; i++) {
        if (seccomp_syscall_resolve_name(policy->rules[i].syscall) == call) {
            return true;
        }
    }
    return false;
}

static void fill_numbers(struct policy_numbers *numbers, bool bridge)
{
    memset(numbers, 0, sizeof(*numbers));
    for (size_t i = 0; i < ARRAY_SIZE(given); i++) {
        if (bridge || !given[i].bridge) {
            policy_add_number(numbers, given[i].value, given[i].number);
        }
    }
}

struct attempt {
    long call;
    long args[6];
};

static struct filter *filters[HOLDERS][2]; /* [1]: with a bridge */

/* Made once: it takes longer than an attempt. */
static struct filter *filter_of(struct holder holder)
{
    struct filter **filter = &filters[holder.number][holder.bridge ? 1 : 0];
    struct policy_numbers numbers;
    struct bvmm_error err;

    if (*filter == NULL) {
        fill_numbers(&numbers, holder.bridge);
        assert_int_equal(filter_new(name_of(holder), policy_of(holder), &numbers, filter, &err), 0);
    }
    return *filter;
}

/* An actor enters as its thread does; the launcher has no actor. */
static int enter(struct holder holder, struct filter *filter)
{
    struct actor actor;

    if (filter_prepare(record) < 0) {
        return -1;
    }
    actor_init(&actor,
               holder.number < ACTOR_CLASS_COUNT ? (enum actor_class)holder.number : ACTOR_SERIAL,
               NOTED_AS, 0, false, record);
    return filter_enter(&actor, filter);
}

/*
 * In a child: enter the holder's filter and try. Return: the signal that killed the child, or 0 if the
 * call was let through (then the child could exit by a call that the policy has).
 */
static int try_call(struct holder holder, const struct attempt *attempt)
{
    const long end = in_policy(holder, SYS_exit_group) ? SYS_exit_group : SYS_exit;
    struct filter *filter = filter_of(holder);
    int status = 0;
    pid_t pid = 0;

    memset(&record->violation, 0, sizeof(record->violation));
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        if (enter(holder, filter) < 0) {
            _exit(1);
        }
        (void)syscall(attempt->call, attempt->args[0], attempt->args[1], attempt->args[2],
                      attempt->args[3], attempt->args[4], attempt->args[5]);
        (void)syscall(end, 77);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_false(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void assert_killed(struct holder holder, const struct attempt *attempt, bool named)
{
    const int killer = try_call(holder, attempt);

    if (killer != SIGSYS) {
        fail_msg("%s: call %ld (0x%lx, 0x%lx, 0x%lx, 0x%lx) was not refused (signal %d)",
                 name_of(holder), attempt->call, (unsigned long)attempt->args[0],
                 (unsigned long)attempt->args[1], (unsigned long)attempt->args[2],
                 (unsigned long)attempt->args[3], killer);
    }
    if (named) {
        assert_int_equal(record->violation.seen, 1);
        assert_int_equal(record->violation.actor, NOTED_AS);
        assert_int_equal(record->violation.syscall, attempt->call);
        assert_int_equal(record->violation.args[0], attempt->args[0]);
    }
}

static void test_every_other_call_kills(void **state)
{
    (void)state;
    for (unsigned number = 0; number < HOLDERS; number++) {
        const struct holder holder = {number, true};
        unsigned tried = 0;

        for (long call = 0; call < CALLS_MAX; call++) {
            char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, (int)call);
            const bool known = name != NULL;
            const struct attempt attempt = {.call = call, .args = {FD_WRONG}};

            free(name);
            if (!known || in_policy(holder, call)) {
                continue;
            }
            /* acct is how the handler itself ends the process: it kills without being noted */
            assert_killed(holder, &attempt, call != SYS_acct);
            tried++;
        }
        assert_true(tried > 250);
    }
}

/* All of them: those of calls that are allowed, too, and the numbers that only x32 has. */
static void test_x32_calls_kill(void **state)
{
    (void)state;
#ifdef __x86_64__
    for (unsigned number = 0; number < HOLDERS; number++) {
        for (long call = 0; call < CALLS_MAX; call++) {
            const struct attempt attempt = {.call = call | X32_BIT, .args = {FD_DOORBELL}};

            assert_killed((struct holder){number, true}, &attempt, false);
            assert_int_equal(record->violation.seen, 1);
        }
    }
#else
    print_message("skipped: this architecture has no x32 calls\n");
    skip();
#endif
}

/*
 * Who owns a vCPU's thread may block signals by returning from a handler that was never called. A call that
 * is trapped while SIGSYS is blocked, or ignored, kills at once, without being noted.
 */
static void test_blocked_sigsys_kills(void **state)
{
    const struct holder holder = WITHOUT(VCPU);
    const struct attempt attempt = {.call = SYS_socket};
    sigset_t blocked;

    (void)state;
    (void)sigemptyset(&blocked);
    (void)sigaddset(&blocked, SIGSYS);
    assert_int_equal(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
    assert_killed(holder, &attempt, false);
    assert_int_equal(record->violation.seen, 0);
    assert_int_equal(sigprocmask(SIG_UNBLOCK, &blocked, NULL), 0);
}

/*
 * While the handler runs no other one can: it would return by what is on the stack, where another thread
 * may have written.
 */
static void test_handler_is_not_interrupted(void **state)
{
    int status = 0;
    const pid_t pid = fork();

    (void)state;
    assert_true(pid >= 0);
    if (pid == 0) {
        struct sigaction action;
        const bool right = filter_prepare(record) == 0 && sigaction(SIGSYS, NULL, &action) == 0 &&
                           sigismember(&action.sa_mask, VCPU_KICK_SIGNAL) == 1 &&
                           sigismember(&action.sa_mask, SIGTERM) == 1 &&
                           (action.sa_flags & (int)SA_NODEFER) == 0;

        _exit(right ? 0 : 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* ---- Arguments ------------------------------------------------------------------------------- */

#define RW (PROT_READ | PROT_WRITE)
#define RWX (PROT_READ | PROT_WRITE | PROT_EXEC)
#define OWN_MEMORY (MAP_PRIVATE | MAP_ANONYMOUS)
#define NEW_UNNAMED (O_WRONLY | O_TMPFILE | O_CLOEXEC)
#define NEW_NAMED (O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC)
#define DIRECTORY (O_RDONLY | O_DIRECTORY | O_CLOEXEC)
#define UNIX_SOCKET (SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK)
#define NOTHING "bvmm-test-filter-has-no-such-file"

struct argument_case {
    struct holder holder;
    struct attempt attempt;
};

/* Memory that could be executed, for whoever it may be: calls that nobody has, or not so. */
static void test_executable_memory_kills(void **state)
{
    static const struct attempt attempts[] = {
        {SYS_mmap, {0, 4096, RWX, OWN_MEMORY, -1, 0}},
        {SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, OWN_MEMORY, -1, 0}},
        {SYS_mmap, {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, FD_IMAGE, 0}},
        {SYS_mprotect, {4096, 4096, RWX}},
        {SYS_mprotect, {4096, 4096, PROT_READ | PROT_EXEC}},
        {SYS_pkey_mprotect, {4096, 4096, RWX, -1}},
    };

    (void)state;
    for (unsigned number = 0; number < HOLDERS; number++) {
        for (size_t i = 0; i < ARRAY_SIZE(attempts); i++) {
            assert_killed((struct holder){number, true}, &attempts[i], true);
        }
    }
}

/* Allowed calls with what is somebody else's. */
static void test_wrong_arguments_kill(void **state)
{
    static const struct argument_case cases[] = {
        {WITHOUT(SERIAL), {SYS_read, {FD_WRONG}}},
        {WITHOUT(SERIAL), {SYS_read, {FD_OTHER_DOORBELL}}},
        {WITHOUT(SERIAL), {SYS_write, {FD_WRONG}}},
        {WITHOUT(SERIAL), {SYS_write, {1}}},
        {WITHOUT(SERIAL), {SYS_clock_gettime, {CLOCK_REALTIME}}},
        {WITHOUT(I8042), {SYS_read, {0}}},
        {WITHOUT(I8042), {SYS_write, {FD_IMAGE}}},
        {WITHOUT(BLK), {SYS_preadv, {FD_WRONG}}},
        {WITHOUT(BLK), {SYS_write, {FD_IMAGE}}},
        {WITHOUT(BLK), {SYS_read, {FD_IMAGE}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_VCPU, KVM_SET_REGS}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_WRONG, KVM_RUN}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_IMAGE, KVM_RUN}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_VCPU, KVM_SET_USER_MEMORY_REGION}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_VCPU, KVM_RUN | 0x100000000L}}},
        {WITHOUT(VCPU), {SYS_read, {FD_IRQ}}},
        {WITHOUT(SUPERVISOR), {SYS_tgkill, {1, 1, VCPU_KICK_SIGNAL}}},
        {WITHOUT(SUPERVISOR), {SYS_tgkill, {FAKE_PID, 1, SIGKILL}}},
        {WITHOUT(SUPERVISOR), {SYS_timerfd_settime, {FD_WRONG}}},
        {WITHOUT(SUPERVISOR), {SYS_read, {FD_WRONG}}},
        /* without a bridge vsock has nothing of the host's */
        {WITHOUT(VSOCK), {SYS_accept4, {FD_LISTEN, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC}}},
        {WITHOUT(VSOCK), {SYS_recvmsg, {FD_LISTEN, 0, MSG_DONTWAIT}}},
        {WITHOUT(VSOCK), {SYS_sendmsg, {FD_LISTEN, 0, MSG_DONTWAIT | MSG_NOSIGNAL}}},
        {WITHOUT(VSOCK), {SYS_shutdown, {FD_LISTEN}}},
        {WITHOUT(VSOCK), {SYS_close, {FD_LISTEN}}},
        {WITHOUT(VSOCK), {SYS_epoll_pwait, {FD_EPOLL}}},
        {WITHOUT(VSOCK), {SYS_epoll_ctl, {FD_EPOLL}}},
        {WITHOUT(VSOCK), {SYS_read, {FD_LISTEN}}},
        {BRIDGED(VSOCK), {SYS_accept4, {FD_WRONG, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC}}},
        {BRIDGED(VSOCK), {SYS_accept4, {FD_LISTEN, 0, 0, 0}}},
        {BRIDGED(VSOCK), {SYS_epoll_ctl, {FD_WRONG}}},
        {BRIDGED(VSOCK), {SYS_epoll_pwait, {FD_WRONG}}},
        {BRIDGED(VSOCK), {SYS_epoll_pwait, {FD_EPOLL, 0, 0, 0, 1}}},
        {BRIDGED(VSOCK), {SYS_ppoll, {0, 0}}},
        {BRIDGED(VSOCK), {SYS_recvmsg, {FD_LISTEN, 0, 0}}},
        {BRIDGED(VSOCK), {SYS_sendmsg, {FD_LISTEN, 0, 0}}},
        {BRIDGED(VSOCK), {SYS_read, {FD_LISTEN}}},
        {BRIDGED(VSOCK), {SYS_write, {FD_LISTEN}}},

        {WAITING, {SYS_read, {FD_WRONG}}},
        {WAITING, {SYS_recvfrom, {FD_VM_SOCKET, 0, 0, MSG_DONTWAIT}}},
        {WRITING, {SYS_read, {FD_VM_SOCKET}}},
        {WAITING, {SYS_pidfd_send_signal, {FD_WRONG, SIGKILL}}},
        {WAITING, {SYS_pidfd_send_signal, {FD_PIDFD, SIGSTOP}}},
        {WAITING, {SYS_waitid, {P_ALL, 0, 0, WEXITED}}},
        {WAITING, {SYS_waitid, {P_PIDFD, FD_WRONG, 0, WEXITED}}},
        {WAITING, {SYS_ppoll, {0, 4}}},
        {WAITING, {SYS_prctl, {PR_SET_SECCOMP, SECCOMP_MODE_FILTER, FAKE_FILTER + 8}}},
        {WAITING, {SYS_prctl, {PR_SET_DUMPABLE, 1}}},
        {WAITING, {SYS_socket, {AF_INET, UNIX_SOCKET, 0}}},
        {WAITING, {SYS_socket, {AF_UNIX, SOCK_DGRAM, 0}}},
        {WAITING, {SYS_socket, {AF_NETLINK, UNIX_SOCKET, 0}}},
        {WAITING, {SYS_connect, {FD_WRONG, 0, 16}}},
        {WAITING, {SYS_recvfrom, {FD_WRONG, 0, 0, MSG_DONTWAIT}}},
        {WAITING, {SYS_sendmsg, {FD_WRONG, 0, MSG_DONTWAIT | MSG_NOSIGNAL}}},
        {WAITING, {SYS_unlinkat, {FD_CGROUP, 0, 0}}},
        {WAITING, {SYS_unlinkat, {FD_WRONG, 0, AT_REMOVEDIR}}},
        {WAITING, {SYS_openat, {FD_CGROUP, 0, O_WRONLY | O_CLOEXEC}}},
        {WAITING, {SYS_flock, {FD_CGROUP, LOCK_EX}}}, /* it could wait for ever */
        {WRITING, {SYS_ppoll, {0, 0, 1}}},
        {WAITING, {SYS_fcntl, {FD_CGROUP, F_SETFL}}},
        {WAITING, {SYS_fcntl, {FD_CGROUP, F_SETFD, 0}}},
        {WAITING_ALONE, {SYS_socket, {AF_UNIX, UNIX_SOCKET, 0}}},
        {WAITING_ALONE, {SYS_connect, {FD_WRONG, 0, sizeof(struct sockaddr_un)}}},
        {WAITING_ALONE, {SYS_unlinkat, {AT_FDCWD, 0, 0}}},

        {WRITING, {SYS_mmap, {0, 4096, RW, MAP_PRIVATE, FD_KERNEL, 0}}},
        {WRITING, {SYS_mmap, {0, 4096, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0}}},
        {WRITING, {SYS_mremap, {0, 4096, 8192, MREMAP_MAYMOVE | MREMAP_FIXED}}},
        {WRITING, {SYS_pread64, {FD_WRONG}}},
        {WRITING, {SYS_openat, {AT_FDCWD, 0, O_RDONLY | O_CLOEXEC}}},
        {WRITING, {SYS_openat, {AT_FDCWD, 0, NEW_NAMED, 0666}}},
        {WRITING, {SYS_openat, {FD_DIR, 0, O_WRONLY | O_CLOEXEC}}},
        {WRITING, {SYS_openat, {FD_DIR, 0, O_RDWR | O_CREAT | O_TRUNC, 0666}}},
        {WRITING, {SYS_openat, {FD_DIR, 0, NEW_NAMED, 04777}}},
        {WRITING, {SYS_openat, {FD_WRONG, 0, NEW_UNNAMED, 0666}}},
        {WRITING, {SYS_linkat, {FD_DIR, 0, FD_DIR, 0, AT_SYMLINK_FOLLOW}}},
        {WRITING, {SYS_linkat, {AT_FDCWD, 0, FD_WRONG, 0, AT_SYMLINK_FOLLOW}}},
        {WRITING, {SYS_renameat, {FD_DIR, 0, FD_WRONG, 0}}},
        {WRITING, {SYS_renameat, {AT_FDCWD, 0, FD_DIR, 0}}},
        {WRITING, {SYS_unlinkat, {FD_DIR, 0, AT_REMOVEDIR}}},
        {WRITING, {SYS_unlinkat, {AT_FDCWD, 0, 0}}},
        {WRITING, {SYS_newfstatat, {AT_FDCWD, 0, 0, AT_SYMLINK_NOFOLLOW}}},
        {WRITING, {SYS_mkdirat, {FD_DIR, 0, 0777}}},
        {WRITING, {SYS_dup3, {FD_DIR, 1, O_CLOEXEC}}},
        {WRITING, {SYS_ppoll, {0, 3}}},
        {WRITING, {SYS_clock_gettime, {CLOCK_TAI}}},
        {WRITING, {SYS_getrandom, {0, 0, GRND_NONBLOCK}}},
        {WRITING, {SYS_flock, {FD_DIR, LOCK_EX}}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_killed(cases[i].holder, &cases[i].attempt, true);
    }
}

/* The same with the right ones: the test above must not pass because everything is refused. */
static void test_right_arguments_pass(void **state)
{
    static const struct argument_case cases[] = {
        {WITHOUT(SERIAL), {SYS_read, {FD_DOORBELL}}},
        {WITHOUT(SERIAL), {SYS_write, {FD_IRQ}}},
        {WITHOUT(I8042), {SYS_write, {FD_OTHER_DOORBELL}}},
        {WITHOUT(BLK), {SYS_preadv, {FD_IMAGE}}},
        {WITHOUT(VCPU), {SYS_ioctl, {FD_VCPU, KVM_RUN}}},
        {WITHOUT(SUPERVISOR), {SYS_tgkill, {FAKE_PID, 1, VCPU_KICK_SIGNAL}}},
        {WITHOUT(SUPERVISOR), {SYS_timerfd_settime, {FD_TIMER}}},
        {WITHOUT(VSOCK), {SYS_write, {FD_IRQ}}},
        {BRIDGED(VSOCK), {SYS_accept4, {FD_LISTEN, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC}}},
        {BRIDGED(VSOCK), {SYS_recvmsg, {FD_WRONG, 0, MSG_DONTWAIT | MSG_PEEK}}},
        {BRIDGED(VSOCK), {SYS_sendmsg, {FD_WRONG, 0, MSG_DONTWAIT | MSG_NOSIGNAL}}},
        {BRIDGED(VSOCK), {SYS_close, {FD_WRONG}}},
        {BRIDGED(VSOCK), {SYS_epoll_ctl, {FD_EPOLL, EPOLL_CTL_DEL, FD_WRONG}}},
        {BRIDGED(VSOCK), {SYS_epoll_pwait, {FD_EPOLL}}},

        {WAITING, {SYS_ppoll, {0, 3}}},
        {WAITING, {SYS_ppoll, {0, 0, 1}}}, /* no time limit lies at 1: it does not sleep */
        {WAITING, {SYS_read, {FD_CANCEL}}},
        {WAITING, {SYS_read, {FD_COUNTER}}},
        {WAITING, {SYS_read, {FD_VM_SOCKET}}},
        {WAITING, {SYS_pidfd_send_signal, {FD_PIDFD, SIGTERM}}},
        {WAITING, {SYS_pidfd_send_signal, {FD_PIDFD, SIGKILL}}},
        {WAITING, {SYS_waitid, {P_PIDFD, FD_PIDFD, 0, WEXITED}}},
        {WAITING, {SYS_waitid, {P_PIDFD, FD_PIDFD, 0, WEXITED | WNOHANG}}},
        {WAITING, {SYS_socket, {AF_UNIX, UNIX_SOCKET, 0}}},
        {WAITING, {SYS_connect, {FD_WRONG, 0, sizeof(struct sockaddr_un)}}},
        {WAITING, {SYS_recvfrom, {FD_BROKER, 0, 0, MSG_DONTWAIT}}},
        {WAITING, {SYS_sendmsg, {FD_BROKER, 0, MSG_DONTWAIT | MSG_NOSIGNAL}}},
        {WAITING, {SYS_unlinkat, {FD_CGROUP, 0, AT_REMOVEDIR}}},
        {WAITING, {SYS_unlinkat, {AT_FDCWD, 0, 0}}},
        {WAITING, {SYS_unlinkat, {(long)(unsigned)AT_FDCWD, 0, 0}}},
        {WAITING, {SYS_openat, {FD_CGROUP, (long)NOTHING, DIRECTORY}}},
        {WAITING, {SYS_flock, {FD_CGROUP, LOCK_EX | LOCK_NB}}},
        {WAITING, {SYS_prctl, {PR_SET_SECCOMP, SECCOMP_MODE_FILTER, FAKE_FILTER}}},
        {WAITING, {SYS_write, {FD_WRONG}}},

        {WRITING, {SYS_mmap, {0, 4096, RW, OWN_MEMORY, -1, 0}}},
        {WRITING, {SYS_mremap, {0, 0, 0, MREMAP_MAYMOVE}}},
        {WRITING, {SYS_pread64, {FD_KERNEL}}},
        {WRITING, {SYS_openat, {FD_DIR, (long)".", NEW_UNNAMED, 0666}}},
        {WRITING, {SYS_openat, {FD_LARGE, 0, NEW_NAMED, 0666}}},
        {WRITING, {SYS_openat, {AT_FDCWD, (long)NOTHING, DIRECTORY}}},
        {WRITING, {SYS_linkat, {AT_FDCWD, 0, FD_DIR, 0, AT_SYMLINK_FOLLOW}}},
        {WRITING, {SYS_flock, {FD_WRONG, LOCK_EX | LOCK_NB}}},
        {WRITING, {SYS_renameat, {FD_DIR, 0, FD_DIR, 0}}},
        {WRITING, {SYS_unlinkat, {FD_DIR, 0, 0}}},
        {WRITING, {SYS_newfstatat, {FD_DIR, 0, 0, AT_SYMLINK_NOFOLLOW}}},
        {WRITING, {SYS_mkdirat, {AT_FDCWD, 0, 0777}}},
        {WRITING, {SYS_unlinkat, {AT_FDCWD, (long)NOTHING, AT_REMOVEDIR}}},
        {WRITING, {SYS_dup3, {FD_WRONG, FD_LARGE, O_CLOEXEC}}},
        {WRITING, {SYS_write, {FD_WRONG}}},
        {WRITING, {SYS_clock_gettime, {CLOCK_REALTIME}}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        if (try_call(cases[i].holder, &cases[i].attempt) != 0) {
            fail_msg("%s: call %ld, case %zu, was refused", name_of(cases[i].holder),
                     cases[i].attempt.call, i);
        }
    }
}

/* ---- The tables ------------------------------------------------------------------------------ */

/* The goal of the design: few calls each, and a small union of those that a guest can reach. */
static void test_policies_are_small(void **state)
{
    static const unsigned most[HOLDERS] = {
        [ACTOR_SUPERVISOR] = 14,
        [ACTOR_VCPU] = 8,
        [ACTOR_SERIAL] = 8,
        [ACTOR_I8042] = 8,
        [ACTOR_BLK] = 8,
        [ACTOR_VSOCK] = 14,
        [(unsigned)ACTOR_CLASS_COUNT + LAUNCHER_WAITING] = 32,
        [(unsigned)ACTOR_CLASS_COUNT + LAUNCHER_WRITING] = 20,
    };
    bool in_union[CALLS_MAX] = {false};
    unsigned union_count = 0;

    (void)state;
    for (unsigned number = 0; number < HOLDERS; number++) {
        unsigned calls = 0;

        for (long call = 0; call < CALLS_MAX; call++) {
            if (in_policy((struct holder){number, true}, call)) {
                calls++;
                union_count += number >= ACTOR_CLASS_COUNT || in_union[call] ? 0 : 1;
                in_union[call] = true;
            }
        }
        print_message("%s: %u calls\n", name_of((struct holder){number, true}), calls);
        assert_true(calls > 0 && calls <= most[number]);
    }
    assert_true(union_count <= 30);
}

static void test_no_policy_has_what_attackers_want(void **state)
{
    static const char *const never[] = {"open",
                                        "openat2",
                                        "execve",
                                        "execveat",
                                        "clone",
                                        "clone3",
                                        "fork",
                                        "vfork",
                                        "kill",
                                        "tkill",
                                        "ptrace",
                                        "process_vm_readv",
                                        "mprotect",
                                        "bpf",
                                        "unshare",
                                        "process_vm_writev",
                                        "setns",
                                        "mount",
                                        "seccomp",
                                        "memfd_create",
                                        "bind",
                                        "listen",
                                        "rt_sigaction",
                                        "rt_sigprocmask",
                                        "chmod",
                                        "fchmod",
                                        "fchmodat",
                                        "io_uring_setup",
                                        "keyctl",
                                        "userfaultfd",
                                        "perf_event_open",
                                        "pidfd_getfd",
                                        "symlinkat",
                                        "mknodat",
                                        "process_madvise",
                                        "open_by_handle_at",
                                        "rename",
                                        "rt_sigqueueinfo"};
    static const char *const never_of_actors[] = {"openat", "mmap", "prctl", "socket", "connect"};

    (void)state;
    for (unsigned number = 0; number < HOLDERS; number++) {
        const struct policy *policy = policy_of((struct holder){number, true});

        for (unsigned i = 0; i < policy->rule_count; i++) {
            for (size_t j = 0; j < ARRAY_SIZE(never); j++) {
                assert_string_not_equal(policy->rules[i].syscall, never[j]);
            }
            for (size_t j = 0; number < ACTOR_CLASS_COUNT && j < ARRAY_SIZE(never_of_actors); j++) {
                assert_string_not_equal(policy->rules[i].syscall, never_of_actors[j]);
            }
            assert_true(strlen(policy->rules[i].why) > 0);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_right_arguments_pass),
        cmocka_unit_test(test_wrong_arguments_kill),
        cmocka_unit_test(test_executable_memory_kills),
        cmocka_unit_test(test_every_other_call_kills),
        cmocka_unit_test(test_x32_calls_kill),
        cmocka_unit_test(test_blocked_sigsys_kills),
        cmocka_unit_test(test_handler_is_not_interrupted),
        cmocka_unit_test(test_policies_are_small),
        cmocka_unit_test(test_no_policy_has_what_attackers_want),
    };
    struct record_limits limits = {.console_bytes = 4096};
    struct bvmm_error err;
    int failed = 0;

    if (!filter_possible()) {
        printf("skipped: this build has sanitizers, whose runtimes make calls of their own\n");
        return 77;
    }
    if (record_create(&limits, &record, &err) < 0) {
        return 1;
    }
    failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (unsigned i = 0; i < HOLDERS; i++) {
        filter_free(filters[i][0]);
        filter_free(filters[i][1]);
    }
    record_destroy(record);
    return failed;
}
