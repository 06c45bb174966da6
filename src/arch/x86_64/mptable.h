/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * mptable.h: tells the kernel how many processors there are and how interrupts are wired.
 *
 * The Intel MultiProcessor Specification 1.4 is old and small; ACPI would say the same in some
 * kilobytes of tables and an interpreter's start-up time.
 */
#ifndef BVMM_ARCH_X86_64_MPTABLE_H
#define BVMM_ARCH_X86_64_MPTABLE_H

#include "base/base.h"

/* Bytes that a table for so many vCPUs takes. */
size_t mptable_bytes(unsigned vcpus);

/*
 * mptable_build - write the floating pointer and the table behind it.
 * @buffer: mptable_bytes(vcpus) bytes, which the guest will see at physical `address`.
 */
void mptable_build(uint8_t *buffer, uint32_t address, unsigned vcpus);

#endif
