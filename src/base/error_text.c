/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* error_text.c: what the host's numbers of errors and signals mean. Of Linux; error.c is for every platform. */
#include "base/error.h"

#include <errno.h>
#include <signal.h>
#include <string.h>

const char *error_text(int code)
{
    const char *text = strerrordesc_np(code);

    return text != NULL ? text : "unknown error";
}

const char *signal_text(int number)
{
    const char *text = sigdescr_np(number);

    return text != NULL ? text : "a signal without a name";
}

const char *error_hint(int code)
{
    switch (code) {
    case -EMFILE:
        return "raise this process's limit of open files (ulimit -n)";
    case -ENFILE:
        return "raise the host's limit of open files (sysctl fs.file-max)";
    case -EFBIG:
        return "raise this process's limit of file sizes (ulimit -f)";
    default:
        return NULL;
    }
}
