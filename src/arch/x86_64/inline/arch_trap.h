/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* arch_trap.h: see "The host's own system calls" in arch/arch.h. */
#ifndef BVMM_ARCH_X86_64_INLINE_ARCH_TRAP_H
#define BVMM_ARCH_X86_64_INLINE_ARCH_TRAP_H

#include <sys/syscall.h>
#include <ucontext.h>

#include "arch/arch.h"

static ARCH_INLINE void arch_syscall_args(const void *context, uint64_t ret_args[ARCH_SYSCALL_ARGS])
{
    const ucontext_t *user = context;

    ret_args[0] = (uint64_t)user->uc_mcontext.gregs[REG_RDI];
    ret_args[1] = (uint64_t)user->uc_mcontext.gregs[REG_RSI];
    ret_args[2] = (uint64_t)user->uc_mcontext.gregs[REG_RDX];
    ret_args[3] = (uint64_t)user->uc_mcontext.gregs[REG_R10];
    ret_args[4] = (uint64_t)user->uc_mcontext.gregs[REG_R8];
    ret_args[5] = (uint64_t)user->uc_mcontext.gregs[REG_R9];
}

static ARCH_INLINE _Noreturn void arch_make_last_call(void)
{
    __asm__ volatile("1: xorl %%edi, %%edi\n\t"
                     "movl %0, %%eax\n\t"
                     "syscall\n\t"
                     "ud2\n\t"
                     "jmp 1b"
                     :
                     : "i"(ARCH_LAST_CALL)
                     : "rax", "rcx", "rdi", "r11", "memory");
    __builtin_unreachable();
}

#endif
