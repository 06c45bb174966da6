/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * job_fields.h: the table of a job's keys. For the job_*.c files only.
 *
 * To add a key: a row in JOB_KEY_LIST (job.h), a field in struct job, a row in job_fields.c, the
 * same in schemas/job.schema.json, and a good and a bad job in tests/schema.
 */
#ifndef BVMM_VMM_JOB_FIELDS_H
#define BVMM_VMM_JOB_FIELDS_H

#include "base/base.h"
#include "vmm/job.h"

enum job_type {
    JOB_TYPE_UINT,    /* uint64_t */
    JOB_TYPE_BOOL,    /* bool */
    JOB_TYPE_ENUM,    /* uint64_t: index into names */
    JOB_TYPE_STRING,  /* char * */
    JOB_TYPE_PATH,    /* char *, made relative to the job's directory by job_open_files() */
    JOB_TYPE_FILE,    /* struct job_file, likewise */
    JOB_TYPE_STRINGS, /* struct job_strings, from an array */
    JOB_TYPE_COMMAND, /* struct job_strings, from an array, or a string for /bin/sh -c */
    JOB_TYPE_ENV,     /* struct job_strings as NAME=value, from an object */
    JOB_TYPE_PAIRS,   /* struct job_pairs, from an object */
    JOB_TYPE_OBJECT,  /* fields of a struct within; `fields` */
    JOB_TYPE_DRIVES,  /* array of objects; `fields` */
};

struct job_field {
    const char *name;
    enum job_type type;
    size_t offset; /* in the struct that the fields belong to */
    uint64_t min;  /* of the number, or of the string in characters */
    uint64_t max;
    uint64_t items_max;       /* arrays and objects */
    const char *pattern;      /* extended regular expression, or NULL; the schema has the same */
    const char *expected;     /* "a host name: letters, digits, ..." */
    const char *const *names; /* ENUM, ends with NULL */
    const struct job_field *fields; /* ends with a row whose name is NULL */
};

/* Indexed by enum job_key; a row without a name ends it. */
extern const struct job_field job_fields[JOB_KEY_COUNT + 1];
extern const struct job_field job_drive_fields[];

/* Names in JSON_ENV-like objects. */
#define JOB_ENV_NAME_MAX 255
#define JOB_LABEL_NAME_MAX 128
#define JOB_TEXT_BYTES_MAX (4 * MIB) /* of a job file */

#define JOB_PATH_TEXT_BYTES 320 /* room for a JSON path */
#define JOB_VALUE_TEXT_BYTES 96 /* room for a quoted value */

/* Add one problem; fmt does not name the source. */
void job_problem(struct job_problems *problems, const struct job *job, const char *fmt, ...)
    printf_like(3, 4);

/* "$.env" and "PATH" to "$.env.PATH"; names that are no identifiers are quoted and shortened. */
void job_path_member(char path[JOB_PATH_TEXT_BYTES], const char *parent, const char *name);
void job_path_index(char path[JOB_PATH_TEXT_BYTES], const char *parent, size_t index);

/* Length in Unicode characters, as JSON Schema counts it. */
size_t job_text_chars(const char *text);

/* A string in quotes, shortened at a character's end. */
void job_quote(char text[JOB_VALUE_TEXT_BYTES], const char *string);

/* "an integer from 1 to 32": what a field wants. */
void job_expected(char text[JOB_PATH_TEXT_BYTES], const struct job_field *field);

#endif
