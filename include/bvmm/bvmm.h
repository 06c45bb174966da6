/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * bvmm.h: run a benchmark in an isolated Linux VM from a C or C++ program.
 *
 *     struct bvmm_config *config = NULL;
 *     struct bvmm_report *report = NULL;
 *     struct bvmm_error error;
 *
 *     if (bvmm_config_new(&config, &error) == 0 &&
 *         bvmm_config_set_string(config, "rootfs_path", "bench.squashfs", &error) == 0 &&
 *         bvmm_config_set_strings(config, "command", argv, &error) == 0 &&
 *         bvmm_run(config, &report, &error) == 0) {
 *         bvmm_report_write(report, NULL, &error);
 *     } else {
 *         fprintf(stderr, "%s: %s\n", bvmm_error_kind_name(error.kind), error.message);
 *     }
 *     bvmm_report_free(report);
 *     bvmm_config_free(config);
 *
 * The keys of a configuration are those of a job file: `bvmm schema job` documents each, with unit,
 * range and default. The report is the one that the bvmm command writes: `bvmm schema report`.
 *
 * Errors. Functions that can fail return 0 or a negative errno; if error is not NULL it is filled
 * with a kind for programs and a sentence for people. A call that fails leaves nothing behind: no
 * file descriptor, thread, child process or file, and sets no output. A run that was started and
 * then went wrong (deadline, panic, sandbox) is not a failed call: there is a report, and it says
 * what happened.
 *
 * Ownership. What a function gives by a pointer to a pointer belongs to the caller, who frees it
 * with the function of that name; NULL may be freed. What a function takes, it copies.
 *
 * Threads. There is no global state: different objects may be used by different threads at once,
 * and several VMs may run at once in one program. One object is for one thread at a time, except
 * that bvmm_vm_cancel() may be called by any thread, and by a signal handler. The library starts no
 * thread in the calling process, and installs no signal handler; it forks, and waits for its own
 * child only. Do not ignore SIGCHLD (SIG_IGN), or its status cannot be had.
 *
 * Platforms. Linux on x86_64 and aarch64. Elsewhere every function that can fail does, with the
 * kind UnsupportedPlatform or UnsupportedArch.
 */
#ifndef BVMM_BVMM_H
#define BVMM_BVMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bvmm/error.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__) && !defined(_WIN32)
#define BVMM_API __attribute__((visibility("default")))
#else
#define BVMM_API
#endif

struct bvmm_config; /* what is to be done */
struct bvmm_vm;     /* one run of it */
struct bvmm_report; /* what became of it */

/* "0.1.0". Never fails. */
BVMM_API const char *bvmm_version(void);

/* ---- Configuration --------------------------------------------------------------------------- */

/* A configuration in which every key has its default. */
BVMM_API int bvmm_config_new(struct bvmm_config **ret_config, struct bvmm_error *error);

/*
 * bvmm_config_load - a configuration from a job file.
 * @path: of the file; relative paths in it start at its directory. "-" reads standard input.
 * Fails if the file cannot be read or is no JSON object; keys are checked by bvmm_config_check()
 * and bvmm_vm_new().
 */
BVMM_API int bvmm_config_load(const char *path, struct bvmm_config **ret_config,
                              struct bvmm_error *error);

/* bvmm_config_parse - a configuration from JSON text; relative paths start at the working
 * directory. */
BVMM_API int bvmm_config_parse(const char *json, size_t bytes, struct bvmm_config **ret_config,
                               struct bvmm_error *error);

BVMM_API void bvmm_config_free(struct bvmm_config *config);

/*
 * Set one key. Setting it again replaces the value. Whether the key exists and the value is allowed
 * is checked by bvmm_config_check() and bvmm_vm_new(), for all keys together. A call that fails
 * changes nothing.
 * @key: as in a job file: "kernel_path", "rootfs_path", "memory_mib", "timeout_secs", ... A dot
 * goes into an object: "limits.stdout_bytes", "env.LANG".
 */
BVMM_API int bvmm_config_set_string(struct bvmm_config *config, const char *key, const char *value,
                                    struct bvmm_error *error);
BVMM_API int bvmm_config_set_uint(struct bvmm_config *config, const char *key, uint64_t value,
                                  struct bvmm_error *error);
BVMM_API int bvmm_config_set_bool(struct bvmm_config *config, const char *key, bool value,
                                  struct bvmm_error *error);
/* @values: ends with NULL, like argv. */
BVMM_API int bvmm_config_set_strings(struct bvmm_config *config, const char *key,
                                     const char *const *values, struct bvmm_error *error);
/* @json: any JSON value, for what the others cannot say ("drives"). */
BVMM_API int bvmm_config_set_json(struct bvmm_config *config, const char *key, const char *json,
                                  struct bvmm_error *error);
/* Back to the default; of a dotted key only what is behind the dot. */
BVMM_API int bvmm_config_unset(struct bvmm_config *config, const char *key,
                               struct bvmm_error *error);

/* The configuration as JSON, as it would stand in a job file. The caller frees it with free(). */
BVMM_API int bvmm_config_json(const struct bvmm_config *config, char **ret_json,
                              struct bvmm_error *error);

/* One of the things that are wrong; a sentence as in struct bvmm_error, valid during the call. */
typedef void (*bvmm_problem_fn)(void *context, const char *problem);

/*
 * bvmm_config_check - find everything that is wrong with a configuration.
 * @with_files: look at the files that it names too, if nothing else is wrong. They are closed
 * again.
 * @problem: called for each problem, with context; of very many the last call says how many more
 * there are. May be NULL. Return: 0 if bvmm_vm_new() would accept it, else negative with the kind
 * Job.
 */
BVMM_API int bvmm_config_check(const struct bvmm_config *config, bool with_files,
                               bvmm_problem_fn problem, void *context, struct bvmm_error *error);

/* ---- Running --------------------------------------------------------------------------------- */

/*
 * bvmm_vm_new - check the configuration and open all its files.
 * Fails with the kind Job if anything is wrong with it; the message names the key, the value, and
 * what was expected. The configuration may be changed or freed afterwards.
 */
BVMM_API int bvmm_vm_new(const struct bvmm_config *config, struct bvmm_vm **ret_vm,
                         struct bvmm_error *error);

/* How a run is getting on. */
struct bvmm_progress {
    const char *phase;   /* for people: "booting the guest", "running", "collecting results", ... */
    uint64_t elapsed_ns; /* since bvmm_vm_new() */
    uint64_t timeout_secs; /* the deadline, counted from when the guest starts; 0: none */
};
/* The struct is valid during the call. */
typedef void (*bvmm_progress_fn)(void *context, const struct bvmm_progress *progress);

/*
 * bvmm_vm_set_progress - be told how the run is getting on. Before bvmm_vm_run().
 * @progress: called with context by the thread that is in bvmm_vm_run(), about every interval_ms
 * and when something happens; it may call bvmm_vm_cancel(). NULL: nobody wants to know (the
 * default, and what disturbs a benchmark least).
 */
BVMM_API void bvmm_vm_set_progress(struct bvmm_vm *vm, bvmm_progress_fn progress, void *context,
                                   unsigned interval_ms);

/*
 * bvmm_vm_run - run it, and wait for the end. Once for each VM.
 * Blocks until the guest has ended, the deadline has passed, or the run is cancelled. If the
 * configuration names an "image", that is converted first, by the program bvmm-image, unless the
 * cache has it: this may take minutes, which are not the guest's, and cancelling ends it too.
 * Return: 0 with a report, however the run ended; or negative if it could not be started. Kind Job:
 * the image cannot be converted, or what it says of its command cannot be used.
 */
BVMM_API int bvmm_vm_run(struct bvmm_vm *vm, struct bvmm_report **ret_report,
                         struct bvmm_error *error);

/*
 * bvmm_vm_cancel - end the run. The first call gives the guest two seconds to hand over what it
 * has, the second ends it at once. Before bvmm_vm_run(): the run ends as soon as it begins. Thread:
 * any, also while another is in bvmm_vm_run(); async-signal-safe. The VM must not be freed
 * meanwhile.
 */
BVMM_API void bvmm_vm_cancel(struct bvmm_vm *vm);

/* bvmm_vm_cancel_by - the same, and the report says that this signal was the reason. */
BVMM_API void bvmm_vm_cancel_by(struct bvmm_vm *vm, int signal_number);

/*
 * bvmm_vm_failure_report - a report of a run that could not be started, for those who want one
 * always.
 * @vm: whose bvmm_vm_run() has failed. Once for each VM.
 * @why: the error of that; the report has the status vm_error and this error.
 */
BVMM_API int bvmm_vm_failure_report(struct bvmm_vm *vm, const struct bvmm_error *why,
                                    struct bvmm_report **ret_report, struct bvmm_error *error);

/*
 * bvmm_vm_free - not while another thread is in bvmm_vm_run().
 * A VM process that had to be killed, and was not dead when bvmm_vm_run() returned its report, is waited
 * for here, so that no zombie is left. That is short, unless something of the host keeps the process in
 * the kernel: a disk or network file system that does not answer, a frozen control group. Then it
 * lasts as long as that does, as any wait for the process would. Who cannot wait frees that VM by another
 * thread.
 */
BVMM_API void bvmm_vm_free(struct bvmm_vm *vm);

/* bvmm_run - bvmm_vm_new(), bvmm_vm_run() and bvmm_vm_free(), which may wait. */
BVMM_API int bvmm_run(const struct bvmm_config *config, struct bvmm_report **ret_report,
                      struct bvmm_error *error);

/* ---- Report ---------------------------------------------------------------------------------- */

/*
 * What a report says, as structs and as JSON: both are made in one go. A value that is not known is
 * marked as such and never a 0: where the JSON has null, has_... or known is false, or the answer is
 * BVMM_UNKNOWN. All pointers belong to the report and are valid until bvmm_report_free(). The
 * structs come from the library only, by pointer: later versions add fields at their ends.
 */

enum bvmm_stream { BVMM_STDOUT, BVMM_STDERR };

enum bvmm_answer { BVMM_UNKNOWN, BVMM_NO, BVMM_YES };

/* How the run ended. */
struct bvmm_result {
    const char *status;              /* "completed", "timeout", ...: as in the report's schema */
    enum bvmm_error_kind error_kind; /* BVMM_ERROR_NONE if nothing went wrong */
    const char *error_message;       /* "" if nothing went wrong */
    uint64_t timeout_secs;           /* with BVMM_ERROR_TIMEOUT: the limit that was passed */
    bool has_exit_code;              /* the next two are known */
    int exit_code;                   /* as a shell has it: 128 + signal if one killed the command */
    int term_signal;                 /* in the guest; 0: none */
    bool has_command_guest_ns;
    uint64_t command_guest_ns; /* how long the command ran, by the guest's clock */
};

BVMM_API const struct bvmm_result *bvmm_report_result(const struct bvmm_report *report);

enum bvmm_stream_state {
    BVMM_STREAM_EMPTY,    /* nothing was ever sent */
    BVMM_STREAM_OPEN,     /* began and did not end */
    BVMM_STREAM_COMPLETE, /* ended as it should */
    BVMM_STREAM_BROKEN,   /* the connection was reset, or parts are damaged or missing */
};

enum bvmm_way { BVMM_WAY_NONE, BVMM_WAY_SERIAL, BVMM_WAY_VSOCK };

/* A stream or an output file of the guest's. Everything in it is a stranger's: path too. */
struct bvmm_content {
    const char *path;         /* of an output file, in the guest, with a NUL behind it; else NULL */
    size_t path_bytes;        /* without that NUL; a path may hold any bytes, and be no UTF-8 */
    const uint8_t *data;      /* any values, not terminated; never NULL */
    size_t bytes;             /* of data. A text that was cut within a character ends before it */
    const char *file;         /* large_outputs put the same bytes there; NULL: nowhere */
    bool has_announced_bytes; /* the guest said how much there is */
    uint64_t announced_bytes;
    enum bvmm_answer digest_ok; /* data is what the guest had, by SHA-256 */
    enum bvmm_answer truncated; /* something is missing */
    /* The transport; of an output file: of the one stream in which all of them come. */
    uint64_t dropped_bytes; /* over the limit */
    enum bvmm_stream_state state;
    enum bvmm_way via;
};

BVMM_API const struct bvmm_content *bvmm_report_content(const struct bvmm_report *report,
                                                        enum bvmm_stream stream);

/* bvmm_report_output_file - the output files, from index 0; NULL: there are no more. */
BVMM_API size_t bvmm_report_output_file_count(const struct bvmm_report *report);
BVMM_API const struct bvmm_content *bvmm_report_output_file(const struct bvmm_report *report,
                                                            size_t index);

/* A path or pattern of the configuration's "output_files" that brought no file. */
struct bvmm_missing_file {
    const char *path;   /* with a NUL behind it */
    size_t path_bytes;  /* without it */
    const char *reason; /* for programs: "no_match", ...: as in the report's schema */
    const char *text;   /* for people */
};

/* bvmm_report_missing_file - from index 0; NULL: there are no more. */
BVMM_API size_t bvmm_report_missing_file_count(const struct bvmm_report *report);
BVMM_API const struct bvmm_missing_file *bvmm_report_missing_file(const struct bvmm_report *report,
                                                                  size_t index);

/* What the guest printed on its serial console. */
struct bvmm_console {
    const char *text;     /* as it was printed: any bytes, with a NUL behind them */
    size_t bytes;         /* without that NUL; with a line of bvmm's where something was left out */
    uint64_t total_bytes; /* that the guest printed */
    uint64_t dropped_bytes; /* of those, left out: over the limit */
};

BVMM_API const struct bvmm_console *bvmm_report_console(const struct bvmm_report *report);

struct bvmm_duration {
    bool known; /* false: the run did not come so far, or nobody told */
    uint64_t ns;
};

/* How long things took: the "timings" of the report, whose schema explains each. */
struct bvmm_timings {
    /* By the host's clock. */
    struct bvmm_duration launch;
    struct bvmm_duration setup;
    struct bvmm_duration boot_to_init;
    struct bvmm_duration prepare;
    struct bvmm_duration command_host;
    struct bvmm_duration drain;
    struct bvmm_duration stop;
    struct bvmm_duration teardown;
    struct bvmm_duration total;
    /* By the guest's. */
    struct bvmm_duration guest_boot;
    struct bvmm_duration command_guest;
};

BVMM_API const struct bvmm_timings *bvmm_report_timings(const struct bvmm_report *report);

/*
 * bvmm_report_json - the whole report, NUL-terminated.
 * @ret_bytes: its length without NUL; may be NULL. The text belongs to the report.
 * Return: NULL, with a length of 0, if there is no memory for it.
 */
BVMM_API const char *bvmm_report_json(struct bvmm_report *report, size_t *ret_bytes);

/* A stream's bytes as they arrived, in short: see bvmm_report_content(). */
BVMM_API const uint8_t *bvmm_report_stream(const struct bvmm_report *report,
                                           enum bvmm_stream stream, size_t *ret_bytes);

/* The file of the configuration's "report_path", absolute or as it was given; NULL: none. */
BVMM_API const char *bvmm_report_path(const struct bvmm_report *report);

enum bvmm_place {
    BVMM_PLACE_NOWHERE,
    BVMM_PLACE_FILE,
    BVMM_PLACE_STDOUT,
    BVMM_PLACE_STDOUT_INSTEAD, /* and not in the file, where it was to go */
};

/*
 * bvmm_report_write - put the report where the configuration's "report_path" says, or to standard
 * output. A file is written beside its final name, synced and renamed: a reader sees the old file
 * or the whole new one. If that fails, the report goes to standard output, so that it is not lost.
 * @ret_place: where it is now; set whatever is returned; may be NULL.
 * Return: 0, or negative if it is not where it was to go.
 */
BVMM_API int bvmm_report_write(const struct bvmm_report *report, enum bvmm_place *ret_place,
                               struct bvmm_error *error);

BVMM_API void bvmm_report_free(struct bvmm_report *report);

/* ---- The bundled kernel ---------------------------------------------------------------------- */

/*
 * bvmm_kernel_bytes - the guest kernel that comes with bvmm.
 * @ret_bytes: how many. They are mapped once for each call; bvmm_kernel_release() gives them back.
 * Return: 0, or negative (kind KernelLoad) if this bvmm was built or installed without one.
 */
BVMM_API int bvmm_kernel_bytes(const uint8_t **ret_kernel, size_t *ret_bytes,
                               struct bvmm_error *error);
BVMM_API void bvmm_kernel_release(const uint8_t *kernel, size_t bytes);

/* bvmm_write_kernel_to_file - write it to a file, which is replaced as a whole or not at all. */
BVMM_API int bvmm_write_kernel_to_file(const char *path, struct bvmm_error *error);

#ifdef __cplusplus
}
#endif

#endif
