/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* error_text.c: what the host's numbers of errors and signals mean. Of Linux; error.c is for every platform. */
#include "base/error.h"

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
