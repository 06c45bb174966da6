/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* arch_trap.h: where there is no machine, nothing hostile runs: by the C library. */
#ifndef BVMM_ARCH_OTHER_INLINE_ARCH_TRAP_H
#define BVMM_ARCH_OTHER_INLINE_ARCH_TRAP_H

#include <sys/syscall.h>
#include <unistd.h>

#include "arch/arch.h"

static ARCH_INLINE void arch_syscall_args(const void *context, uint64_t ret_args[ARCH_SYSCALL_ARGS])
{
    (void)context;
    for (unsigned i = 0; i < ARCH_SYSCALL_ARGS; i++) {
        ret_args[i] = 0;
    }
}

static ARCH_INLINE _Noreturn void arch_make_last_call(void)
{
    for (;;) {
        (void)syscall(ARCH_LAST_CALL, NULL);
        __builtin_trap();
    }
}

#endif
