/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * stress.h: what stress tests share: how much to do, a watchdog, random numbers, and a look at a
 * thread from outside.
 *
 * A slow, noisy or loaded machine changes how much is tested, never the verdict. What must hold is
 * asserted. What chance has to bring about, such as that a sender finds its lane full, is waited for
 * in rounds; if it does not come, the test says so, and is skipped if it tested nothing.
 *
 * Environment: BVMM_STRESS_SCALE=0.1 does a tenth of the usual (sanitizers and Valgrind divide
 * further); BVMM_TEST_SEED=N repeats the random decisions of a run that printed this seed.
 */
#ifndef BVMM_TESTS_STRESS_STRESS_H
#define BVMM_TESTS_STRESS_STRESS_H

#include "base/base.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define STRESS_TSAN 1
#elif __has_feature(address_sanitizer)
#define STRESS_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define STRESS_TSAN 1
#elif defined(__SANITIZE_ADDRESS__)
#define STRESS_ASAN 1
#endif

static inline bool stress_valgrind(void)
{
#ifdef RUNNING_ON_VALGRIND
    return RUNNING_ON_VALGRIND != 0;
#else
    return false;
#endif
}

static inline bool stress_tsan(void)
{
#ifdef STRESS_TSAN
    return true;
#else
    return false;
#endif
}

/* How much of what a plain build does is done here. */
static inline double stress_share(void)
{
    const char *given = getenv("BVMM_STRESS_SCALE");
    double share = given != NULL ? strtod(given, NULL) : 1.0;

#if defined(STRESS_TSAN)
    share /= 20;
#elif defined(STRESS_ASAN)
    share /= 4;
#endif
    return stress_valgrind() ? share / 200 : share;
}

/* At least `least`, so that a short run tests something too. */
static inline uint64_t stress_amount(uint64_t plain, uint64_t least)
{
    const uint64_t amount = (uint64_t)((double)plain * stress_share());

    return amount > least ? amount : least;
}

/* ---- Rounds: until enough was done, and enough of what is rare was seen ----------------------- */

#define STRESS_TIME_NS (40 * NS_PER_SECOND)
#define STRESS_MOST_TIMES 4 /* what is planned, when something rare is still missing */

struct stress_rounds {
    uint64_t planned;
    uint64_t done;
    uint64_t end_ns; /* no round begins after that, except the first */
};

static inline struct stress_rounds stress_rounds(uint64_t planned)
{
    return (struct stress_rounds){.planned = planned,
                                  .end_ns = clock_monotonic_ns() + STRESS_TIME_NS};
}

/* Begin one more round? `seen`: whether what is rare has been seen often enough. */
static inline bool stress_again(struct stress_rounds *rounds, bool seen)
{
    const bool late = clock_monotonic_ns() >= rounds->end_ns;
    const uint64_t most = seen ? rounds->planned : STRESS_MOST_TIMES * rounds->planned;

    if (rounds->done > 0 && (late || rounds->done >= most)) {
        if (rounds->done < rounds->planned) {
            printf("slow machine: %llu of %llu rounds in the time there is\n",
                   (unsigned long long)rounds->done, (unsigned long long)rounds->planned);
        }
        return false;
    }
    rounds->done++;
    return true;
}

/*
 * At the end of a test: chance brought about `count` times what the test is about. That says more about
 * the machine than about the mailbox, so that few are only told. With none, nothing was tested.
 */
#define stress_came_about(what, count, wanted)                                                     \
    do {                                                                                           \
        const unsigned long long count_ = (count);                                                 \
        const unsigned long long wanted_ = (wanted);                                               \
        if (count_ == 0 && wanted_ > 0) {                                                          \
            print_message("skipped: %s: it never came to that on this machine\n", (what));         \
            skip();                                                                                \
        }                                                                                          \
        if (count_ < wanted_) {                                                                    \
            print_message("%s: %llu times; %llu were wanted, but chance or load was against it\n", \
                          (what), count_, wanted_);                                                \
        }                                                                                          \
    } while (0)

/* ---- Random numbers: xorshift64*, one state for each thread ---------------------------------- */

static uint64_t stress_seed;

static inline void stress_choose_seed(void)
{
    const char *given = getenv("BVMM_TEST_SEED");

    stress_seed = given != NULL ? strtoull(given, NULL, 0) : clock_monotonic_ns();
    printf("BVMM_TEST_SEED=%llu share=%g\n", (unsigned long long)stress_seed, stress_share());
    fflush(stdout);
}

static inline uint64_t stress_random_start(uint64_t thread)
{
    return (stress_seed ^ (thread + 1) * 0x9e3779b97f4a7c15ULL) | 1;
}

static inline uint64_t stress_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return (*state * 0x2545f4914f6cdd1dULL) >> 16;
}

static inline void stress_sleep_ns(uint64_t ns)
{
    struct timespec time = {.tv_sec = (time_t)(ns / NS_PER_SECOND),
                            .tv_nsec = (long)(ns % NS_PER_SECOND)};

    while (nanosleep(&time, &time) != 0) {
    }
}

/* ---- Watchdog: the process ends, and says in which test, if it hangs ------------------------- */

/*
 * It counts what load does not change. All sleep and nobody is woken: then the process uses no CPU time
 * for long, where one that only waits for its turn gets some now and then. Somebody spins for what never
 * comes: then it uses more CPU time than any honest run.
 */
#define WATCHDOG_QUIET_SECONDS 100
#define WATCHDOG_QUIET_NS (5 * NS_PER_MS)

struct watchdog {
    const char *test;
    uint64_t start_ns; /* monotonic */
    uint64_t cpu_limit_ns;
    int stop_pipe[2];
    pthread_t thread;
    bool runs;
};

static struct watchdog watchdog;

static inline uint64_t watchdog_clock_ns(clockid_t clock)
{
    struct timespec now = {0};

    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

static inline void watchdog_bite(const char *why)
{
    char text[256];
    const int length =
        snprintf(text, sizeof(text), "\nwatchdog: hung in test %s: %s\n", watchdog.test, why);

    (void)!write(STDERR_FILENO, text, (size_t)length);
    _exit(1);
}

static inline void *watchdog_main(void *arg)
{
    struct pollfd stop = {.fd = watchdog.stop_pipe[0], .events = POLLIN};
    const uint64_t start_ns = watchdog_clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t moved_ns = 0; /* what the others had used when they were last seen to get on */
    unsigned quiet = 0;

    (void)arg;
    while (poll(&stop, 1, 1000) == 0) {
        const uint64_t used_ns = watchdog_clock_ns(CLOCK_PROCESS_CPUTIME_ID) - start_ns;
        const uint64_t others_ns = used_ns - watchdog_clock_ns(CLOCK_THREAD_CPUTIME_ID);

        if (used_ns > watchdog.cpu_limit_ns) {
            watchdog_bite("it uses CPU time without end");
        }
        quiet++;
        if (others_ns > moved_ns + WATCHDOG_QUIET_NS) {
            moved_ns = others_ns;
            quiet = 0;
        }
        if (quiet > WATCHDOG_QUIET_SECONDS) {
            watchdog_bite("all sleep, and nobody is woken");
        }
    }
    return NULL;
}

static inline void watchdog_stop(void)
{
    if (watchdog.runs) {
        watchdog.runs = false;
        (void)close(watchdog.stop_pipe[1]);
        (void)pthread_join(watchdog.thread, NULL);
        (void)close(watchdog.stop_pipe[0]);
    }
}

/* `seconds` of CPU time for each CPU. BVMM_WATCHDOG=N in the environment: so many instead. */
static inline void watchdog_start(const char *test, unsigned seconds)
{
    const char *given = getenv("BVMM_WATCHDOG");
    const long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    const uint64_t all_seconds = given != NULL       ? strtoull(given, NULL, 10)
                                 : stress_valgrind() ? 4 * (uint64_t)seconds
                                                     : seconds;
    sigset_t all;
    sigset_t before;

    watchdog_stop();
    watchdog = (struct watchdog){.test = test,
                                 .start_ns = clock_monotonic_ns(),
                                 .cpu_limit_ns =
                                     all_seconds * NS_PER_SECOND * (cpus > 1 ? (uint64_t)cpus : 1)};
    if (pipe2(watchdog.stop_pipe, O_CLOEXEC) != 0) {
        abort();
    }
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &before); /* signals are for the test's own threads */
    if (pthread_create(&watchdog.thread, NULL, watchdog_main, NULL) != 0) {
        abort();
    }
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    watchdog.runs = true;
}

/* ---- A thread, seen from outside ------------------------------------------------------------- */

struct thread_view {
    char state;                  /* 'R', 'S', 't', ... */
    unsigned long long switches; /* voluntary and not */
};

/* False: there is no such thread. */
static inline bool thread_look(pid_t process, pid_t thread, struct thread_view *ret_view)
{
    char path[64];
    char line[128];
    struct thread_view view = {.state = '?'};
    FILE *file;

    (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/status", (int)process, (int)thread);
    file = fopen(path, "re");
    if (file == NULL) {
        return false;
    }
    while (fgets(line, sizeof(line), file) != NULL) {
        const char *colon = strchr(line, ':');

        if (strncmp(line, "State:", 6) == 0) {
            view.state = line[7];
        } else if (strstr(line, "ctxt_switches:") != NULL) {
            view.switches += strtoull(colon + 1, NULL, 10);
        }
    }
    (void)fclose(file);
    *ret_view = view;
    return true;
}

/* Wait until the thread sleeps in the kernel. The watchdog bounds it. */
static inline void thread_await_sleep(pid_t process, pid_t thread)
{
    struct thread_view view;

    while (thread_look(process, thread, &view) && view.state != 'S') {
        (void)sched_yield();
    }
}

#endif
