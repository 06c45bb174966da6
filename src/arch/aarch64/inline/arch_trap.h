/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* arch_trap.h: see "The host's own system calls" in arch/arch.h. */
#ifndef BVMM_ARCH_AARCH64_INLINE_ARCH_TRAP_H
#define BVMM_ARCH_AARCH64_INLINE_ARCH_TRAP_H

#include <sys/syscall.h>
#include <ucontext.h>

#include "arch/arch.h"

static ARCH_INLINE void arch_syscall_args(const void *context, uint64_t ret_args[ARCH_SYSCALL_ARGS])
{
    const ucontext_t *user = context;

    ret_args[0] = user->uc_mcontext.regs[0];
    ret_args[1] = user->uc_mcontext.regs[1];
    ret_args[2] = user->uc_mcontext.regs[2];
    ret_args[3] = user->uc_mcontext.regs[3];
    ret_args[4] = user->uc_mcontext.regs[4];
    ret_args[5] = user->uc_mcontext.regs[5];
}

static ARCH_INLINE _Noreturn void arch_make_last_call(void)
{
    __asm__ volatile("1: mov x0, xzr\n\t"
                     "mov x8, %0\n\t"
                     "svc #0\n\t"
                     "brk #1000\n\t"
                     "b 1b"
                     :
                     : "i"(ARCH_LAST_CALL)
                     : "x0", "x8", "memory");
    __builtin_unreachable();
}

#endif
