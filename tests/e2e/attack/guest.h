/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * guest.h: a guest that attacks its machine. Freestanding: no kernel, no C library; it drives
 * virtio-mmio registers and rings itself, breaks one rule at a time, and looks whether the devices
 * that it left alone still work. tests/e2e/scenarios_attack.py and tests/kvm/test_attack.c run it.
 *
 * One CPU runs all of this, without interrupts. A second one, if there is one, races with it.
 */
#ifndef BVMM_ATTACK_GUEST_H
#define BVMM_ATTACK_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* ---- The machine: machine_<isa>.c ------------------------------------------------------------ */

#define VIRTIO_SLOTS 16
#define VIRTIO_SLOT_BYTES 0x1000U

extern const uint64_t machine_virtio_base;
extern const uint64_t machine_memory_start;

const char *machine_command_line(void);
/* One load or store of 1, 2, 4 or 8 bytes, of the plain kind that every KVM can pass on. */
uint64_t mmio_read(uint64_t address, unsigned width_bytes);
void mmio_write(uint64_t address, unsigned width_bytes, uint64_t value);
void machine_pause(void);         /* an exit to no device in particular: time for other threads */
void machine_put(char character); /* to the console */
_Noreturn void machine_restart(void); /* asks for it more often than is needed */
/* 0: machine_restart(). Others, where the machine has them: ways in which a CPU goes no further. */
_Noreturn void machine_end(unsigned how);
bool machine_others_work(void);           /* what is no virtio device */
void machine_attack(void);                /* what is no virtio device */
extern volatile uint8_t *const race_page; /* what the second CPU writes to; 4 KiB */
bool machine_race_start(void);            /* false: there is no second CPU */
void machine_race_stop(void);

/* Where the second CPU writes, below race_page: an address and a length of a descriptor, now right, now wrong. */
#define RACE_TABLE 0U
#define RACE_DESC (RACE_TABLE + 16U) /* descriptor 1 */
#define RACE_STOP 0xf00U
#define RACE_STOPPED 0xf01U

/* Called by the machine when there is a stack. */
_Noreturn void guest_main(void);

/* ---- Words: guest.c -------------------------------------------------------------------------- */

void say(const char *text);
void say_number(uint64_t number); /* hexadecimal */
uint64_t digest(const void *bytes, size_t count);
uint64_t
argument_number(const char *name); /* decimal, behind "name=" on the command line; else 0 */
uint64_t memory_end(void);

/* ---- virtio-mmio: driver.c ------------------------------------------------------------------- */

enum { DEVICE_BLK = 2, DEVICE_VSOCK = 19 };

enum register_offset {
    REG_MAGIC = 0x000,
    REG_DEVICE_ID = 0x008,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = 0x050,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC = 0x080, /* low; high is 4 further */
    REG_QUEUE_DRIVER = 0x090,
    REG_QUEUE_DEVICE = 0x0a0,
    REG_CONFIG = 0x100,
};

enum { STATUS_DRIVER_OK = 4, STATUS_FEATURES_OK = 8, STATUS_NEEDS_RESET = 64 };
#define F_INDIRECT (1ULL << 28)
#define F_EVENT_IDX (1ULL << 29)

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct descriptor {
    uint64_t address;
    uint32_t bytes;
    uint16_t flags;
    uint16_t next;
};

struct device {
    uint64_t base;
    uint32_t id;
};

struct queue {
    uint16_t size;
    uint64_t desc, avail, used; /* as the device is told: an attack may change them before */
    volatile struct descriptor *table;
    uint16_t avail_index;
    uint16_t used_seen;
};

/* A descriptor's worth of memory that nobody uses otherwise; all of it is given back at once. */
void *arena_take(size_t bytes, size_t alignment);
void arena_reset(void);

uint32_t reg_read(const struct device *device, uint32_t offset);
void reg_write(const struct device *device, uint32_t offset, uint32_t value);

void queue_new(struct queue *queue, uint16_t size);
void queue_set(struct queue *queue, unsigned index, const volatile void *buffer, uint32_t bytes,
               uint16_t flags, uint16_t next);
void queue_publish(struct queue *queue, uint16_t head);
uint16_t queue_used_index(const struct queue *queue);
bool queue_wants_notification(const struct queue *queue);
/* So many more have been used: at once or not; after a while, in which others than the device have to act first. */
bool queue_take_used(struct queue *queue, uint16_t count);
bool queue_wait_used(struct queue *queue, uint16_t count);

/* Reset: from here on it touches no ring. */
void device_end(const struct device *device);
/* Reset, and as far as FEATURES_OK. */
bool device_begin(const struct device *device, uint64_t features);
void device_add_queue(const struct device *device, unsigned index, const struct queue *queue);
void device_go(const struct device *device);
void device_notify(const struct device *device, unsigned index);
bool device_out_of_service(const struct device *device); /* after a while, or now */
/* Until so many more have been used; false: they were not, or the device is out of service. */
bool device_wait_used(const struct device *device, struct queue *queue, uint16_t count);

/* ---- virtio-blk ------------------------------------------------------------------------------ */

#define SECTOR_BYTES 512

struct blk_header {
    uint32_t type;
    uint32_t reserved;
    uint64_t sector;
};

struct blk_request {
    struct blk_header header;
    uint8_t data[SECTOR_BYTES];
    uint8_t status;
};

/* Descriptors 0 to 2: a read of sector 0 that breaks no rule. */
struct blk_request *blk_request_new(struct queue *queue);
/* From reset on: read sector 0. */
bool blk_works(const struct device *blk, uint64_t *ret_digest);

/* ---- The attacks ----------------------------------------------------------------------------- */

#define ATTACKS_PER_DEVICE 4 /* bvmm tells as many faults of one device */

extern struct device blks[VIRTIO_SLOTS];
extern unsigned blk_count;
extern struct device vsock; /* id 0: there is none */

/* One line about an attack. why: NULL if it went as it should; whether others still work is looked at here. */
void verdict(const char *name, const char *why);

void attack_queues(void);    /* attack_queue.c */
void attack_registers(void); /* attack_registers.c */
void attack_by_race(void);
void attack_vsock(void); /* attack_vsock.c */
void tell_by_vsock(const char *text);

#endif
