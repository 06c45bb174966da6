/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * launcher_sandbox.h: the filters of the launcher (launcher_policy.h) and its places in the file system
 * (landlock.h), for the bvmm command.
 *
 * Not for a program that embeds the library: a filter cannot be taken off again. What such a program
 * does not want to do itself with what a hostile guest left, it lets the command do.
 *
 * Thread: main, the only one.
 */
#ifndef BVMM_VMM_LAUNCHER_SANDBOX_H
#define BVMM_VMM_LAUNCHER_SANDBOX_H

#include "vmm/launcher.h"

/* For api_set_guard(). After it the process can finish this run, and nothing else. */
const struct launcher_guard *launcher_sandbox(void);

#endif
