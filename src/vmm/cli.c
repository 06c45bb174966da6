/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* cli.c: parses the command line by two tables: commands and options. Thread: main. */
#include "vmm/cli.h"

#include "vmm/nearest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define FOR(command) (1U << (command))
#define FOR_ALL (~0U)

struct cli_command_def {
    const char *name;
    enum cli_command command;
    const char *argument; /* what stands behind it, or NULL */
    size_t offset;        /* of the argument in struct cli_options */
};

#define AT(member) offsetof(struct cli_options, member)

/* clang-format off */
static const struct cli_command_def commands[] = {
    {"validate", CLI_VALIDATE, "the path of a job file, or -", AT(job_path)},
    {"schema",   CLI_SCHEMA,   "job or report",                AT(schema)  },
    {"kernel",   CLI_KERNEL,   NULL,                           0           },
    {"check",    CLI_CHECK,    NULL,                           0           },
    {"sandbox",  CLI_SANDBOX,  NULL,                           0           },
    {"help",     CLI_HELP,     NULL,                           0           },
};
/* clang-format on */

struct cli_option_def {
    const char *name;
    const char *value; /* what stands behind it; NULL: it is a switch */
    size_t offset;     /* of a const char * or a bool in struct cli_options */
    unsigned commands; /* FOR() each that takes it */
    char letter;       /* 0: none */
};

#define RUN_ONLY FOR(CLI_RUN)

/* clang-format off */
static const struct cli_option_def options[] = {
    {"--json-config", "the path of a job file, or -", AT(job_path),    RUN_ONLY,          0  },
    {"--report",      "a path, or -",                 AT(report_path), RUN_ONLY,          0  },
    {"--verbose",     NULL,                           AT(verbose),     RUN_ONLY,          'v'},
    {"--quiet",       NULL,                           AT(quiet),       RUN_ONLY,          'q'},
    {"--no-files",    NULL,                           AT(no_files),    FOR(CLI_VALIDATE), 0  },
    {"--info",        NULL,                           AT(info),        FOR(CLI_KERNEL),   0  },
    {"--write",       "a path, or -",                 AT(write_path),  FOR(CLI_KERNEL),   0  },
    {"--print",       NULL,                           AT(print),       FOR(CLI_SANDBOX),  0  },
    {"--json",        NULL,                           AT(json),        FOR(CLI_SANDBOX),  0  },
    {"--help",        NULL,                           0,               FOR_ALL,           'h'},
    {"--version",     NULL,                           0,               FOR_ALL,           'V'},
};
/* clang-format on */

struct parser {
    int argc;
    char *const *argv;
    int next;
    const struct cli_command_def *command; /* NULL: run */
    struct cli_options *options;
    struct bvmm_error *err;
};

static int usage_error(struct parser *p, const char *what, const char *word, const char *nearest)
{
    return error_set(p->err, BVMM_ERROR_JOB, -EINVAL, "%s '%.200s'%s%s%s; see bvmm --help", what,
                     word, nearest ? "; did you mean '" : "", nearest ? nearest : "",
                     nearest ? "'?" : "");
}

static const char *option_name_at(const void *ctx, size_t i)
{
    (void)ctx;
    return i < ARRAY_SIZE(options) ? options[i].name : NULL;
}

static const char *command_name_at(const void *ctx, size_t i)
{
    (void)ctx;
    return i < ARRAY_SIZE(commands) ? commands[i].name : NULL;
}

/* Does word name this option? "--name", "--name=value", "-n". */
static bool is_option(const struct cli_option_def *option, const char *word)
{
    size_t length = strlen(option->name);

    if (option->letter && word[0] == '-' && word[1] == option->letter && word[2] == '\0') {
        return true;
    }
    return strncmp(word, option->name, length) == 0 &&
           (word[length] == '\0' || word[length] == '=');
}

static int take_value(struct parser *p, const struct cli_option_def *option, const char *word)
{
    const char **place = (const char **)((char *)p->options + option->offset);
    const char *equals = strchr(word, '=');

    if (*place) {
        return usage_error(p, "twice the option", option->name, NULL);
    }
    if (equals) {
        *place = equals + 1;
    } else if (p->next < p->argc) {
        *place = p->argv[p->next++];
    }
    if (!*place || (*place)[0] == '\0') {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL, "%s needs a value: %s", option->name,
                         option->value);
    }
    return 0;
}

static int parse_option(struct parser *p, const char *word)
{
    char name[64];

    for (size_t i = 0; i < ARRAY_SIZE(options); i++) {
        const struct cli_option_def *option = &options[i];

        if (!is_option(option, word)) {
            continue;
        }
        if (strcmp(option->name, "--help") == 0) {
            p->options->command = CLI_HELP;
            return 0;
        }
        if (strcmp(option->name, "--version") == 0) {
            p->options->command = CLI_VERSION;
            return 0;
        }
        if (!(option->commands & FOR(p->options->command))) {
            return error_set(p->err, BVMM_ERROR_JOB, -EINVAL,
                             "%s does not go with '%s'; see bvmm --help", option->name,
                             p->command ? p->command->name : "a run");
        }
        if (option->value) {
            return take_value(p, option, word);
        }
        if (strchr(word, '=')) {
            return usage_error(p, "an option that takes no value:", word, NULL);
        }
        *(bool *)((char *)p->options + option->offset) = true;
        return 0;
    }
    snprintf(name, sizeof(name), "%.*s", (int)min_u64(strcspn(word, "="), sizeof(name) - 1), word);
    return usage_error(p, "unknown option", word, nearest_name(name, option_name_at, NULL));
}

static int parse_argument(struct parser *p, const char *word)
{
    const char **place;

    if (!p->command) {
        if (strstr(word, ".json") || strcmp(word, "-") == 0) {
            return error_set(p->err, BVMM_ERROR_JOB, -EINVAL,
                             "'%.200s' is no command; to run a job: bvmm --json-config %.200s",
                             word, word);
        }
        return usage_error(p, "unknown command", word, nearest_name(word, command_name_at, NULL));
    }
    place = (const char **)((char *)p->options + p->command->offset);
    if (!p->command->argument || *place) {
        return usage_error(p, "one argument too many:", word, NULL);
    }
    *place = word;
    return 0;
}

static void find_command(struct parser *p)
{
    for (size_t i = 0; p->argc > 1 && i < ARRAY_SIZE(commands); i++) {
        if (strcmp(p->argv[1], commands[i].name) == 0) {
            p->command = &commands[i];
            p->options->command = commands[i].command;
            p->next = 2;
        }
    }
}

static bool asks_for_help(const struct cli_options *o)
{
    return o->command == CLI_HELP || o->command == CLI_VERSION;
}

static int check_complete(struct parser *p)
{
    const struct cli_options *o = p->options;

    if (o->command == CLI_RUN && !o->job_path) {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL,
                         "nothing to do; to run a job: bvmm --json-config FILE; see bvmm --help");
    }
    if (p->command && p->command->argument &&
        !*(const char *const *)((const char *)o + p->command->offset)) {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL, "bvmm %s needs %s", p->command->name,
                         p->command->argument);
    }
    if (o->command == CLI_KERNEL && o->info == (o->write_path != NULL)) {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL,
                         "bvmm kernel needs either --info or --write PATH");
    }
    if (o->command == CLI_SANDBOX && !o->print) {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL, "bvmm sandbox needs --print");
    }
    if (o->verbose && o->quiet) {
        return error_set(p->err, BVMM_ERROR_JOB, -EINVAL,
                         "--verbose and --quiet do not go together");
    }
    return 0;
}

int cli_parse(int argc, char *const *argv, struct cli_options *ret_options, struct bvmm_error *err)
{
    struct parser p = {.argc = argc, .argv = argv, .next = 1, .options = ret_options, .err = err};

    *ret_options = (struct cli_options){.command = CLI_RUN};
    find_command(&p);
    while (p.next < argc && !asks_for_help(ret_options)) {
        const char *word = argv[p.next++];
        int r =
            word[0] == '-' && word[1] != '\0' ? parse_option(&p, word) : parse_argument(&p, word);

        if (r < 0) {
            return r;
        }
    }
    return asks_for_help(ret_options) ? 0 : check_complete(&p);
}
