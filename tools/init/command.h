/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * command.h: starts the job's command, waits for it, and leaves nothing of it behind.
 *
 * The measured window is kept clean: command_prepare() does everything that takes time (user,
 * directory, control group, search in PATH), and the child then waits. The caller says START to the
 * host in peace; command_go() lets the child take the time and exec, nothing else. In the other
 * direction the time is taken first when wait returns.
 *
 * Thread: init has but one. command_wait() blocks as long as the command runs, everything else is
 * bounded.
 */
#ifndef BVMM_INIT_COMMAND_H
#define BVMM_INIT_COMMAND_H

#include "base/error.h"
#include "protocol/protocol.h"
#include "user.h"

#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127

struct command_spec {
    const char *const *args; /* ended by NULL */
    char *const *env;        /* ended by NULL */
    const char *workdir;
    const struct user *user;
    int stdin_fd;
    int stdout_fd;
    int stderr_fd;
    int cgroup_fd; /* of cgroup_make(); negative: none */
};

struct command_shared;

struct command {
    pid_t pid;
    int go_fd;
    struct command_shared *shared;
};

/*
 * command_block_signals - once, at the start: signals that init waits for are taken by
 * command_wait(), and by nothing else.
 */
void command_block_signals(void);

/*
 * command_prepare - fork the child and wait until it is ready to exec.
 * Return: 0, or -errno with *err filled: the child could not be made what the job wants.
 */
int command_prepare(struct command *command, const struct command_spec *spec,
                    struct bvmm_error *err) must_check;

/* Let it start. */
void command_go(struct command *command);

/*
 * command_wait - wait for its end, reaping whatever else ends meanwhile. SIGTERM and SIGINT (the
 * host's Ctrl-Alt-Del) are passed on to its process group as SIGTERM, and SIGCONT, so that one who is
 * stopped hears it too; after grace_ms all is killed. SIGQUIT: the same, but in a hurry.
 */
void command_wait(struct command *command, uint32_t grace_ms, struct frame_end *ret_end);

/*
 * command_kill_rest - kill every other process and reap them, so that no file changes any more.
 * As PID 1 only: it kills all that this process could kill.
 */
void command_kill_rest(void);

/* What a shell says: the exit status, or 128 + signal. */
int command_exit_code(int wait_status);

/*
 * command_find - where a command is, as a shell looks for it: with a slash in its name it is a
 * path; else the directories of path_list are tried in order. Runs with the rights of the user that
 * will execute it. Return: 0 with *ret_path filled (PATH_MAX); EXIT_NOT_FOUND; EXIT_NOT_EXECUTABLE.
 */
int command_find(const char *name, const char *path_list, char *ret_path);

/* The value of a variable, or NULL. */
const char *environment_get(char *const *env, const char *name);

/*
 * environment_make - the job's variables, and PATH and HOME if it has none.
 * @ret_env: ended by NULL.
 * Return: 0, or -ENOMEM.
 */
int environment_make(const char *const *job_env, size_t count, const struct user *user,
                     char ***ret_env) must_check;
void environment_free(char **env);

#endif
