/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * arch.h: the one interface to what differs between x86_64 and aarch64.
 *
 * The build picks src/arch/x86_64/ or src/arch/aarch64/; nothing outside src/arch/ asks which. For
 * any other architecture it picks src/arch/other/, where every function says UnsupportedArch.
 *
 * Order of the calls (the interrupt controller of x86 must exist before the vCPUs, that of Arm
 * after them, hence "new" and "finish"):
 *
 *     arch_memory_layout()          where RAM lies; then guest_memory_init(), KVM memory slots
 *     kvm_create_vm(kvm_fd, arch_vm_type(kvm_fd), ...)
 *     arch_vm_new()                 before the first vCPU
 *     arch_vm_add_legacy_timer()    only for a kernel that is not the bundled one
 *     kvm_create_vcpu() and arch_vcpu_init()   for every vCPU, 0 first
 *     arch_vm_finish()              after the last vCPU; now irqfds may be connected
 *     arch_cmdline()                what the kernel must be told about the devices
 *     arch_load_kernel()            kernel, initrd and boot data into guest memory
 *     arch_vcpu_boot()              for every vCPU
 *     arch_vm_free()                any time after arch_vm_new(); the descriptors stay the caller's
 *
 * Thread: start-up, one thread. Nothing here blocks for longer than an ioctl or a file read.
 * No function keeps a pointer to what it was given, except where it says so.
 */
#ifndef BVMM_ARCH_ARCH_H
#define BVMM_ARCH_ARCH_H

#include "base/base.h"
#include "base/error.h"
#include "virtio/guest_memory.h"

/* ---- Is there an implementation? ------------------------------------------------------------- */

/* 0; or -ENOSYS with *err of kind UNSUPPORTED_ARCH (src/arch/other/). kvm_open() asks first. */
int arch_supported(struct bvmm_error *err) must_check;

/* ---- Where things are ------------------------------------------------------------------------ */

enum arch_bus {
    ARCH_BUS_NONE, /* this machine has no such device */
    ARCH_BUS_PIO,  /* x86 port I/O: KVM_EXIT_IO, or an ioeventfd with KVM_IOEVENTFD_FLAG_PIO */
    ARCH_BUS_MMIO, /* KVM_EXIT_MMIO */
};

/* The registers of one device, and the interrupt line (KVM's GSI) that it may raise by irqfd. */
struct arch_window {
    enum arch_bus bus;
    uint64_t base;
    uint64_t bytes;
    uint32_t gsi; /* edge triggered; no resampling needed */
};

#define ARCH_VIRTIO_DEVICES_MAX 16
#define ARCH_VIRTIO_WINDOW_BYTES 0x1000

struct arch_platform {
    const char *isa;              /* "x86_64", "aarch64" */
    struct arch_window serial;    /* 16550A, 8 registers of one byte, one after another */
    struct arch_window i8042;     /* data at base, command/status at base + 4; or BUS_NONE */
    struct arch_window i8042_aux; /* only the line of the second port, bytes = 0; or BUS_NONE */
    struct arch_window virtio[ARCH_VIRTIO_DEVICES_MAX]; /* virtio-mmio slots, all MMIO */
    unsigned vcpus_max;
    uint64_t cmdline_max_bytes; /* without NUL; what a kernel whose file does not say takes */
};

extern const struct arch_platform arch_platform;

/*
 * arch_memory_layout - where RAM of this size lies in the guest's address space.
 * @memory_bytes: a multiple of 1 MiB, not 0.
 * Return: how many of @ret_ranges were filled (1 to GUEST_MEMORY_REGIONS_MAX), ascending.
 */
unsigned arch_memory_layout(uint64_t memory_bytes,
                            struct guest_range ret_ranges[GUEST_MEMORY_REGIONS_MAX]);

/* ---- The virtual machine --------------------------------------------------------------------- */

/* What an implementation remembers about one machine. */
struct arch_vm;

/* The argument of KVM_CREATE_VM. */
unsigned long arch_vm_type(int kvm_fd);

/*
 * arch_vm_new - all that must be done to a new VM before its first vCPU is made.
 * @kvm_fd, @vm_fd: stay the caller's; arch_vm remembers them until arch_vm_free().
 * Return: 0, or -errno with *err filled (kind KVM, or VCPU for an impossible number of vCPUs).
 */
int arch_vm_new(int kvm_fd, int vm_fd, unsigned vcpus, struct arch_vm **ret_vm,
                struct bvmm_error *err) must_check;

/*
 * arch_vm_add_legacy_timer - give the machine a timer that kernels without paravirtual clock need.
 * The bundled kernel has the clock (x86: KVM's) and is better off without: the x86 PIT costs the
 * host a kernel thread. After arch_vm_new(), before the first vCPU runs; twice is fine.
 */
int arch_vm_add_legacy_timer(struct arch_vm *vm, struct bvmm_error *err) must_check;

/* Features, identity and reset state of one new vCPU. 0, or -errno with *err (kind VCPU). */
int arch_vcpu_init(struct arch_vm *vm, unsigned index, int vcpu_fd, struct bvmm_error *err)
    must_check;

/* All that must be done after the last vCPU was made. 0, or -errno with *err (kind KVM or GIC). */
int arch_vm_finish(struct arch_vm *vm, struct bvmm_error *err) must_check;

/* NULL is fine. */
void arch_vm_free(struct arch_vm *vm);

/* ---- Booting --------------------------------------------------------------------------------- */

/* A file that was opened, or bytes in memory. Read with arch_blob_read() only. */
struct arch_blob {
    const char *name;     /* for messages: a path, or "bundled kernel" */
    const uint8_t *bytes; /* used if fd < 0 */
    int fd;               /* regular file, read by pread(2); or -1 */
    uint64_t size_bytes;
};

#define ARCH_INITRD_PARTS_MAX 4

struct arch_boot_request {
    const struct arch_blob *kernel;
    const struct arch_blob *initrd; /* parts, laid one after another, each 4-byte aligned, as the */
    unsigned initrd_parts;          /* kernel expects concatenated cpio archives; 0: no initrd */
    const char *cmdline;            /* complete: see arch_cmdline() */
    const struct arch_window *virtio; /* the slots in use (the device tree lists them) */
    unsigned virtio_count;
};

enum arch_entry {
    ARCH_ENTRY_PVH,     /* x86: ELF with a PVH note, 32-bit entry */
    ARCH_ENTRY_LINUX64, /* x86: 64-bit boot protocol, ELF without note or bzImage */
    ARCH_ENTRY_ARM64,   /* Image with a device tree */
};

/* How a loaded kernel is to be entered, and where things went (for messages and tests). */
struct arch_boot {
    enum arch_entry entry;
    struct gpa pc;
    struct gpa data;           /* start info, zero page, or device tree */
    struct guest_range kernel; /* from its first to its last byte, bss included */
    struct guest_range initrd; /* 0 bytes: none */
    const char *format;        /* for the report: "elf-pvh", "elf-linux64", "bzimage", "image" */
};

/*
 * arch_cmdline - the user's command line plus what this machine's devices need.
 * @virtio: the slots in use, in the order in which Linux is to find them (/dev/vda is the first
 *          block device).
 * @ret_text: @size bytes; complete and terminated on success.
 * Return: 0; -E2BIG if it does not fit @size; with *err filled (kind BOOT).
 */
int arch_cmdline(const char *user, const struct arch_window *virtio, unsigned virtio_count,
                 char *ret_text, size_t size, struct bvmm_error *err) must_check;

/*
 * arch_load_kernel - put kernel, initrd and all boot data into guest memory.
 * The file is not trusted: every field is checked before use, nothing is written outside guest RAM,
 * and pieces may not overlap.
 * Return: 0, or -errno with *err filled: kind KERNEL_LOAD for a kernel file that is none, is
 * damaged or does not fit (the message names the file, the field and the value); BOOT for an initrd
 * or command line that does not fit; IO if a file cannot be read.
 */
int arch_load_kernel(struct arch_vm *vm, const struct guest_memory *memory,
                     const struct arch_boot_request *request, struct arch_boot *ret_boot,
                     struct bvmm_error *err) must_check;

/* Registers: vCPU 0 at the kernel's entry, the others waiting to be started by it. Kind VCPU. */
int arch_vcpu_boot(struct arch_vm *vm, unsigned index, int vcpu_fd, const struct arch_boot *boot,
                   struct bvmm_error *err) must_check;

/* Does this look like a kernel at all? For refusing a job early: only the first bytes are read. */
int arch_kernel_check(const struct arch_blob *kernel, struct bvmm_error *err) must_check;

/* ---- The host's own system calls ------------------------------------------------------------- */

/*
 * For handlers of SIGSYS, which run on threads whose memory may be an attacker's: in arch_trap.h, which
 * the build finds in src/arch/<isa>/inline/, and always inlined, so that there is no return address to
 * change.
 *
 *     arch_syscall_args(context, ret_args)   the arguments of the call that the handler was called
 *                                            for; context: its third argument
 *     arch_make_last_call()                  make the call ARCH_LAST_CALL, which every filter answers
 *                                            with death. It takes nothing from memory and does not
 *                                            return; without a filter it kills by a fault
 */
#define ARCH_SYSCALL_ARGS 6
#define ARCH_LAST_CALL SYS_acct /* no thread of ours could have a use for it */
#define ARCH_INLINE inline __attribute__((always_inline))

/* ---- Can this host run Linux? ---------------------------------------------------------------- */

/*
 * arch_kvm_probe - run a few instructions (x86: those that a KVM without hardware underneath cannot).
 * Making and ending a VM has its price: call it to explain a failure, to choose where to run tests,
 * or where arch_kvm_needs_probe() says so, rather than before every run.
 * @kvm_fd: from kvm_open().
 * Makes a VM of its own with one vCPU and ends it. Takes a few milliseconds, never more than a
 * second: it uses ARCH_PROBE_SIGNAL, whose action it restores.
 * Return: 0; -ENODEV with *err filled (kind KVM) if an instruction failed: the message names it and
 * says what to do; another -errno if the probe itself failed.
 */
#define ARCH_PROBE_SIGNAL SIGALRM
int arch_kvm_probe(int kvm_fd, struct bvmm_error *err) must_check;

/*
 * arch_kvm_needs_probe - whether a run should be preceded by arch_kvm_probe(): the processor itself
 * shows no virtualization. Costs nothing, and decides nothing by itself.
 */
bool arch_kvm_needs_probe(void);

#endif
