/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * layout.h: every fixed guest physical address and interrupt of the aarch64 machine, ascending.
 *
 * Devices lie below 2 GiB, RAM from there up in one piece. The first 2 MiB of RAM hold what bvmm
 * leaves for the kernel to find; they are ordinary RAM otherwise.
 */
#ifndef BVMM_ARCH_AARCH64_LAYOUT_H
#define BVMM_ARCH_AARCH64_LAYOUT_H

#include "base/base.h"

/* The GIC: what lies below the distributor grows downwards with the number of vCPUs (version 3). */
#define ARM64_GIC_DIST 0x3fff0000U
#define ARM64_GICV3_DIST_BYTES 0x10000U
#define ARM64_GICV3_REDIST_BYTES 0x20000U /* for each vCPU */
#define ARM64_GICV2_DIST_BYTES 0x1000U
#define ARM64_GICV2_CPU 0x3ffe0000U
#define ARM64_GICV2_CPU_BYTES 0x2000U
#define ARM64_GICV2_VCPUS_MAX 8

#define ARM64_SERIAL 0x40000000U /* 8 registers of one byte */
#define ARM64_VIRTIO 0x40001000U

#define ARM64_RAM 0x80000000U
#define ARM64_FDT ARM64_RAM
#define ARM64_FDT_BYTES_MAX (64 * KIB)
#define ARM64_STEAL_TIME (ARM64_RAM + MIB) /* 64 bytes for each vCPU, reserved in the device tree */
#define ARM64_STEAL_TIME_STRIDE 64U
#define ARM64_STEAL_TIME_BYTES (64 * KIB)  /* whole pages, whatever the guest's page size */
#define ARM64_KERNEL (ARM64_RAM + 2 * MIB) /* the kernel's text_offset is added to it */
#define ARM64_KERNEL_ALIGNMENT (2 * MIB)

/* Kernel and initrd must lie in one window of 32 GiB that begins at a multiple of 1 GiB. */
#define ARM64_INITRD_WINDOW_BYTES (32 * GIB)

/*
 * Interrupts. Private ones (PPI) are numbered from INTID 16, shared ones (SPI) from INTID 32; the
 * device tree and KVM's irqfd count each kind from 0.
 */
#define ARM64_GIC_INTERRUPTS 64 /* INTIDs: 32 private, 32 SPIs */
#define ARM64_SPI_SERIAL 1
#define ARM64_SPI_VIRTIO 16 /* one for each slot */
#define ARM64_PPI_TIMER_SECURE 13
#define ARM64_PPI_TIMER 14
#define ARM64_PPI_TIMER_VIRTUAL 11
#define ARM64_PPI_TIMER_HYPERVISOR 10
#define ARM64_PPI_PMU 7
#define ARM64_PPI_INTID_BASE 16

#define ARM64_VCPUS_MAX 32
#define ARM64_CMDLINE_MAX_BYTES 2047 /* Linux cuts longer ones short without a word */

#endif
