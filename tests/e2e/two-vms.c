/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * two-vms.c: two VMs at once in one program, each run by a thread of its own; and a third, whose
 * time will be up.
 *
 * usage: two-vms IMAGE TOKEN
 * Each guest prints the SHA-256 of TOKEN and its number; the digests are printed in order.
 * Both guests must have run at the same time, and nothing may be left of them.
 */
#define _POSIX_C_SOURCE 200809L /* clock_gettime() */
#include <bvmm/bvmm.h>
#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define VMS 2 /* which print a digest; the last one hangs */
#define TIMEOUT_S 12
#define DIGEST_CHARS 64
#define NS_PER_SECOND 1000000000ULL

struct job {
    pthread_t thread;
    const char *image;
    const char *token;
    unsigned number;
    unsigned long long start_ns, end_ns;
    char digest[DIGEST_CHARS + 1];
    char problem[BVMM_ERROR_MESSAGE_BYTES];
};

static unsigned long long now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (unsigned long long)now.tv_sec * NS_PER_SECOND + (unsigned long long)now.tv_nsec;
}

static unsigned count_entries(const char *directory)
{
    DIR *dir = opendir(directory);
    unsigned count = 0;

    while (dir != NULL && readdir(dir) != NULL) {
        count++;
    }
    if (dir != NULL) {
        (void)closedir(dir);
    }
    return count;
}

/* Whether this is the only thread. One that was joined may be listed for a moment still. */
static bool alone(void)
{
    const struct timespec moment = {.tv_nsec = 10000000};
    unsigned looks = 500;

    while (count_entries("/proc/self/task") != 3 && looks-- > 0) { /* ".", "..", and the thread */
        (void)nanosleep(&moment, NULL);
    }
    return count_entries("/proc/self/task") == 3;
}

static void take_report(struct job *job, const struct bvmm_report *report)
{
    const struct bvmm_result *result = bvmm_report_result(report);
    size_t bytes = 0;
    const uint8_t *text = bvmm_report_stream(report, BVMM_STDOUT, &bytes);

    if (strcmp(result->status, "completed") != 0 || result->exit_code != 0 ||
        bytes < DIGEST_CHARS) {
        (void)snprintf(job->problem, sizeof(job->problem), "%s: %.900s", result->status,
                       result->error_message);
        return;
    }
    memcpy(job->digest, text, DIGEST_CHARS);
}

static void take_timeout(struct job *job, const struct bvmm_report *report)
{
    const struct bvmm_result *result = bvmm_report_result(report);

    if (strcmp(result->status, "timeout") != 0 || result->error_kind != BVMM_ERROR_TIMEOUT ||
        result->timeout_secs != TIMEOUT_S || strstr(result->error_message, "12 s") == NULL) {
        (void)snprintf(job->problem, sizeof(job->problem), "%s, %llu s: %.900s", result->status,
                       (unsigned long long)result->timeout_secs, result->error_message);
    }
}

static void *run(void *arg)
{
    struct job *job = arg;
    char script[256];
    const char *const command[] = {"/bin/sh", "-c", script, NULL};
    struct bvmm_config *config = NULL;
    struct bvmm_report *report = NULL;
    struct bvmm_error error;

    (void)snprintf(script, sizeof(script), "sleep %u; printf %%s %.64s%u | sha256sum",
                   job->number < VMS ? 1 : 1000, job->token, job->number);
    job->start_ns = now_ns();
    if (bvmm_config_new(&config, &error) == 0 &&
        bvmm_config_set_string(config, "rootfs_path", job->image, &error) == 0 &&
        bvmm_config_set_strings(config, "command", command, &error) == 0 &&
        bvmm_config_set_string(config, "kernel_cmdline_append", "quiet", &error) == 0 &&
        bvmm_config_set_uint(config, "memory_mib", 128, &error) == 0 &&
        bvmm_config_set_uint(config, "timeout_secs", job->number < VMS ? 100 : TIMEOUT_S, &error) ==
            0 &&
        bvmm_run(config, &report, &error) == 0) {
        (job->number < VMS ? take_report : take_timeout)(job, report);
    } else {
        (void)snprintf(job->problem, sizeof(job->problem), "%.64s: %.900s",
                       bvmm_error_kind_name(error.kind), error.message);
    }
    job->end_ns = now_ns();
    bvmm_report_free(report);
    bvmm_config_free(config);
    return NULL;
}

int main(int argc, char **argv)
{
    const unsigned descriptors = count_entries("/proc/self/fd");
    struct job jobs[VMS + 1];
    int status = 0;

    if (argc != 3) {
        (void)fprintf(stderr, "usage: %s IMAGE TOKEN\n", argv[0]);
        return 2;
    }
    for (unsigned i = 0; i <= VMS; i++) {
        jobs[i] = (struct job){.image = argv[1], .token = argv[2], .number = i};
        if (pthread_create(&jobs[i].thread, NULL, run, &jobs[i]) != 0) {
            return 2;
        }
    }
    for (unsigned i = 0; i <= VMS; i++) {
        (void)pthread_join(jobs[i].thread, NULL);
        if (i < VMS) {
            (void)printf("%s\n", jobs[i].digest);
        }
        if (jobs[i].problem[0] != '\0') {
            (void)fprintf(stderr, "VM %u: %s\n", i, jobs[i].problem);
            status = 1;
        }
    }
    if (jobs[0].start_ns > jobs[1].end_ns || jobs[1].start_ns > jobs[0].end_ns) {
        (void)fprintf(stderr, "they did not run at the same time\n");
        status = 1;
    }
    if (count_entries("/proc/self/fd") != descriptors || !alone()) {
        (void)fprintf(stderr, "%u descriptors before, %u after; %u entries of threads\n",
                      descriptors, count_entries("/proc/self/fd"),
                      count_entries("/proc/self/task"));
        status = 1;
    }
    return status;
}
