/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job.h: what one run is to do, and how it is read from a job file and checked.
 *
 * Five steps, each callable alone; the library sets the fields itself and leaves the second out:
 *
 *   job_init_defaults()  every field has its default (SEED.md)
 *   job_decode()         JSON to fields: unknown keys and wrong types        job_decode.c
 *   job_check()          ranges, forms, what does not go together            job_check.c
 *   job_take_image()     converts "image", unless the job is only looked at  job_image.c
 *   job_open_files()     opens every file, and looks whether it is one       job_files.c
 *
 * The first three are pure: they touch no file, and accept exactly what schemas/job.schema.json
 * accepts (tests/schema holds the two against each other). The descriptors that the last leaves
 * in the job are the ones that the run uses: a path is never opened twice.
 *
 * One table (job_fields.c) declares every key: its name, place, type, range and form.
 *
 * Thread: launcher, before the fork. Blocks on files only.
 */
#ifndef BVMM_VMM_JOB_H
#define BVMM_VMM_JOB_H

#include "base/base.h"
#include "base/error.h"
#include "base/record.h"
#include "protocol/protocol.h"
#include "vmm/bundled_kernel.h"
#include "vmm/cgroup.h"
#include "vmm/host_facts.h"

#include <jansson.h>

#define JOB_DEFAULT_VCPUS 1
#define JOB_DEFAULT_MEMORY_MIB 512
#define JOB_DEFAULT_TIMEOUT_SECS 300
#define JOB_DEFAULT_KERNEL_CMDLINE "console=ttyS0 reboot=k panic=1 pci=off root=/dev/vda ro"
#define JOB_DEFAULT_STREAM_BYTES (25 * MIB)
#define JOB_DEFAULT_CONSOLE_BYTES (1 * MIB)
#define JOB_DEFAULT_LARGE_OVER_BYTES (1 * MIB)

/* What the VMM keeps for itself. */
#define JOB_EXIT_CODE_LIMIT_BYTES 64
#define JOB_CONTROL_LIMIT_BYTES (64 * KIB)

#define JOB_DRIVES_MAX (DRIVES_MAX - 1) /* beside the root image */

/* The keys of a job file. enum job_key also numbers the bits of struct job's `given`. */
#define JOB_KEY_LIST(X)                                                                            \
    X(SCHEMA, "$schema")                                                                           \
    X(NAME, "name")                                                                                \
    X(LABELS, "labels")                                                                            \
    X(KERNEL_PATH, "kernel_path")                                                                  \
    X(ROOTFS_PATH, "rootfs_path")                                                                  \
    X(ROOTFS_TYPE, "rootfs_type")                                                                  \
    X(IMAGE, "image")                                                                              \
    X(INITRD_PATH, "initrd_path")                                                                  \
    X(VCPUS, "vcpus")                                                                              \
    X(MEMORY_MIB, "memory_mib")                                                                    \
    X(KERNEL_CMDLINE, "kernel_cmdline")                                                            \
    X(KERNEL_CMDLINE_APPEND, "kernel_cmdline_append")                                              \
    X(VSOCK, "vsock")                                                                              \
    X(VSOCK_PATH, "vsock_path")                                                                    \
    X(TIMEOUT_SECS, "timeout_secs")                                                                \
    X(COMMAND, "command")                                                                          \
    X(ENV, "env")                                                                                  \
    X(WORKDIR, "workdir")                                                                          \
    X(USER, "user")                                                                                \
    X(HOSTNAME, "hostname")                                                                        \
    X(STDIN_PATH, "stdin_path")                                                                    \
    X(TMPFS_MIB, "tmpfs_mib")                                                                      \
    X(DRIVES, "drives")                                                                            \
    X(OUTPUT_FILES, "output_files")                                                                \
    X(LIMITS, "limits")                                                                            \
    X(REPORT_PATH, "report_path")                                                                  \
    X(LARGE_OUTPUTS, "large_outputs")                                                              \
    X(SANDBOX, "sandbox")                                                                          \
    X(CGROUP, "cgroup")

enum job_key {
#define X(id, name) JOB_KEY_##id,
    JOB_KEY_LIST(X)
#undef X
        JOB_KEY_COUNT
};

/* A file system in an image. AUTO: job_open_files() finds out and stores what it found. */
enum job_fstype {
    JOB_FSTYPE_AUTO,
    JOB_FSTYPE_SQUASHFS,
    JOB_FSTYPE_EXT4,
    JOB_FSTYPE_EROFS,
    JOB_FSTYPE_OTHER, /* not looked at; the guest's kernel must know it */
};
/* As mount(8) has it; "" for AUTO and OTHER: try what the kernel knows. */
const char *job_fstype_name(enum job_fstype fstype);

enum job_sandbox { JOB_SANDBOX_STRICT, JOB_SANDBOX_BEST_EFFORT, JOB_SANDBOX_OFF };
const char *job_sandbox_name(enum job_sandbox sandbox);

struct job_file {
    char *path;          /* absolute, or relative to the working directory; NULL: not given */
    int fd;              /* read-only, close-on-exec; -1 before job_open_files() */
    uint64_t size_bytes; /* valid with fd */
};

struct job_strings {
    char **items; /* items[count] is NULL, so that it can serve as argv; NULL when empty */
    size_t count;
};

struct job_pair {
    char *name;
    char *value;
};

struct job_pairs {
    struct job_pair *items;
    size_t count;
};

struct job_drive {
    struct job_file image;
    char *mount;     /* where bvmm's init mounts it; NULL: not mounted, and any content will do */
    uint64_t fstype; /* enum job_fstype */
};

struct job {
    char *source;   /* for messages: the file's name, "standard input", "the configuration" */
    char *base_dir; /* relative paths start here; NULL: the working directory */
    uint64_t given; /* bit per enum job_key: named by the job, not the default */

    char *schema_uri; /* of "$schema"; not used */
    char *name;
    struct job_pairs labels;

    struct job_file kernel; /* path NULL: the bundled kernel */
    struct job_file rootfs; /* path NULL: none (an initrd of the job's own) */
    uint64_t rootfs_type;   /* enum job_fstype */
    char *image;            /* what job_take_image() makes rootfs from; NULL: nothing */
    char *image_notes;      /* what bvmm-image said meanwhile; NULL: nothing */
    struct job_file initrd;
    uint64_t vcpus;
    uint64_t memory_mib;
    char *kernel_cmdline;
    char *kernel_cmdline_append;
    bool vsock;
    char *vsock_path;
    struct vsock_broker *vsock_broker; /* the launcher's, while it runs the job; not in the file */
    uint64_t timeout_secs;             /* 0: none */

    /* For bvmm's init; command.count == 0: the image has an init of its own. */
    struct job_strings command;
    struct job_strings env; /* NAME=value */
    char *workdir;          /* NULL: "/" */
    char *user;             /* NULL: root */
    char *hostname;         /* NULL: the init's default */
    struct job_file stdin_file;
    uint64_t tmpfs_mib; /* 0: the kernel's default */
    struct job_strings output_files;

    struct job_drive drives[JOB_DRIVES_MAX];
    size_t drive_count;

    struct {
        uint64_t stdout_bytes;
        uint64_t stderr_bytes;
        uint64_t output_bytes;
        uint64_t console_bytes;
    } limits;

    char *report_path; /* NULL: standard output */
    int report_dir_fd; /* the directory of report_path; -1 before job_open_files() */
    struct {
        uint64_t over_bytes; /* larger streams go into files */
        char *dir;           /* NULL: report_path + ".d" */
    } large_outputs;         /* used only if JOB_KEY_LARGE_OUTPUTS is given */
    int large_dir_fd;        /* number that their directory is to get; -1: any */

    uint64_t sandbox; /* enum job_sandbox */
    struct {
        char *cpus;              /* NULL: all */
        uint64_t memory_max_mib; /* 0: what job_cgroup_limits() reckons */
        uint64_t pids_max;       /* 0: likewise */
    } cgroup;
    struct cgroup_facts cgroup_facts; /* the launcher's, from the run; not in the file */
    struct host_facts host_facts;     /* likewise */
    struct kernel_facts kernel_facts; /* likewise */
};

static inline bool job_given(const struct job *job, enum job_key key)
{
    return job->given >> key & 1;
}

/* What is wrong with a job: all of it, or the first JOB_PROBLEMS_MAX. Messages name the source. */
#define JOB_PROBLEMS_MAX 16
struct job_problems {
    size_t count; /* may be larger than what is kept */
    struct bvmm_error items[JOB_PROBLEMS_MAX];
};

#define JOB_LOAD_NO_FILES 1U /* leave out job_open_files() */

/*
 * job_load - all four steps.
 * @path: of the job file; "-" is standard input.
 * @ret_job: to be released by job_fini(), on failure too.
 * Return: 0, or -errno with *problems filled. -EINVAL: the job is wrong; others: the file itself
 * could not be read.
 */
int job_load(const char *path, unsigned flags, struct job *ret_job, struct job_problems *problems)
    must_check;

int job_init_defaults(struct job *job) must_check;

/*
 * job_read - the job file's JSON; *ret_job has the defaults, and knows where it comes from.
 * @ret_job: to be released by job_fini(), on failure too.
 * @ret_root: a new reference; any JSON value.
 */
int job_read(const char *path, struct job *ret_job, json_t **ret_root,
             struct job_problems *problems) must_check;

/* From text to JSON, a new reference; NULL with a problem added. */
json_t *job_parse(const struct job *job, const char *text, size_t bytes,
                  struct job_problems *problems) must_check;

/* As job_decode(), when it is parsed already. */
int job_decode_json(struct job *job, json_t *root, struct job_problems *problems) must_check;

/* Decode JSON text. What is right is stored even if something else is wrong. 0 or -EINVAL. */
int job_decode(struct job *job, const char *text, size_t bytes, struct job_problems *problems)
    must_check;

/* Check ranges, forms and combinations. 0 or -EINVAL. */
int job_check(const struct job *job, struct job_problems *problems) must_check;

/*
 * job_take_image - convert the job's "image" by bvmm-image, which has a cache, and take from what
 * the image says of its command whatever the job does not say itself. Nothing if there is no image.
 * Blocks until that is done, which may be minutes, or cancel_fd becomes readable (tool_run()).
 * 0 or -errno; -ECANCELED is no problem of the job's.
 */
int job_take_image(struct job *job, int cancel_fd, struct job_problems *problems) must_check;

/* Open what job_take_image() made, when all else is open. 0 or -errno. */
int job_open_taken_image(struct job *job, struct job_problems *problems) must_check;

/* Is the "image" there, and of a kind that bvmm-image takes, by its first bytes? 0 or -EINVAL. */
int job_look_for_image(struct job *job, struct job_problems *problems);

/*
 * job_open_regular - open a file, but nothing that opening does something to: a device, a FIFO.
 * Return: a descriptor to read from; -1: *ret_status says that it is no regular file, or has no mode
 * and errno tells why.
 */
struct stat;
int job_open_regular(const char *path, struct stat *ret_status) must_check;

/* Relative paths become what open(2) wants. Done by the steps that need it; once is enough. */
int job_resolve_paths(struct job *job, struct job_problems *problems) must_check;

/*
 * Open and examine all files, and the report's directory. An image that was not taken is only
 * looked for. 0 or -EINVAL.
 */
int job_open_files(struct job *job, struct job_problems *problems) must_check;

/* Close and free everything; the job is then as after job_init_defaults() without its defaults. */
void job_fini(struct job *job);

/* Replace report_path (the command line's --report); "-" or NULL: standard output. */
int job_set_report_path(struct job *job, const char *path) must_check;

/* The limits of the job as the run record wants them. */
void job_record_limits(const struct job *job, struct record_limits *ret_limits);

/*
 * The limits of the VM process's control group. What the job does not name is reckoned so that no
 * honest VM comes near it: memory for the guest, 1/64 of that for page tables and what KVM keeps for
 * each page, all that the job allows to be collected, and 64 MiB; tasks for all actors and 16 more.
 */
void job_cgroup_limits(const struct job *job, struct cgroup_limits *ret_limits);

/* The first problem, with a count of the others, as one error (for the library). */
void job_problems_to_error(const struct job_problems *problems, struct bvmm_error *ret_err);

#endif
