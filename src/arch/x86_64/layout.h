/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * layout.h: every fixed guest physical address of the x86_64 machine, in ascending order.
 *
 * The first MiB holds what bvmm leaves for the kernel to find; kernels are loaded above it.
 */
#ifndef BVMM_ARCH_X86_64_LAYOUT_H
#define BVMM_ARCH_X86_64_LAYOUT_H

#include "base/base.h"

#define X86_GDT 0x500U          /* 4 descriptors */
#define X86_PVH_INFO 0x6000U    /* struct pvh_start_info, module list, memory map: one page */
#define X86_ZERO_PAGE 0x7000U   /* struct boot_params: one page */
#define X86_PAGE_TABLES 0x9000U /* PML4, PDPT, four page directories: 4 GiB mapped one to one */
#define X86_PAGE_TABLES_BYTES 0x6000U
#define X86_CMDLINE 0x20000U
#define X86_MPTABLE 0x9fc00U /* the last KiB below 640 KiB, where Linux looks for it */
#define X86_MPTABLE_BYTES 0x400U
#define X86_BASE_MEMORY_END X86_MPTABLE
#define X86_HIGH_MEMORY 0x100000U /* 1 MiB: RAM goes on here */

#define X86_HOLE (3 * GIB) /* RAM stops here for devices, and goes on at 4 GiB */
#define X86_HOLE_END (4 * GIB)
#define X86_VIRTIO 0xc0001000U
#define X86_IOAPIC 0xfec00000U
#define X86_LAPIC 0xfee00000U
#define X86_IDENTITY_MAP 0xfffbc000U /* one page that KVM needs on some Intel processors */
#define X86_TSS 0xfffbd000U          /* three more */

#define X86_IRQ_LINES 24 /* inputs of the I/O APIC */

#endif
