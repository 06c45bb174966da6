/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* guest.c: finds the devices, makes the attacks one after the other, and tells on the console. */
#include "guest.h"

struct device blks[VIRTIO_SLOTS];
unsigned blk_count;
struct device vsock;

static uint64_t disk_digest; /* of the first sector of the last disk */

/* ---- What the compiler calls ----------------------------------------------------------------- */

void *memset(void *to, int value, size_t count);
void *memcpy(void *to, const void *from, size_t count);

void *memset(void *to, int value, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ((uint8_t *)to)[i] = (uint8_t)value;
    }
    return to;
}

void *memcpy(void *to, const void *from, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ((uint8_t *)to)[i] = ((const uint8_t *)from)[i];
    }
    return to;
}

/* ---- Words ----------------------------------------------------------------------------------- */

void say(const char *text)
{
    for (; *text != '\0'; text++) {
        machine_put(*text);
    }
}

static void format_number(uint64_t number, char ret_text[17])
{
    for (unsigned i = 0; i < 16; i++) {
        ret_text[i] = "0123456789abcdef"[number >> (60 - 4 * i) & 15];
    }
    ret_text[16] = '\0';
}

void say_number(uint64_t number)
{
    char text[17];

    format_number(number, text);
    say(text);
}

/* FNV-1a: no secret is kept by it, it only has to be made by somebody who knows the bytes. */
uint64_t digest(const void *bytes, size_t count)
{
    const volatile uint8_t *from = bytes;
    uint64_t hash = 0xcbf29ce484222325U;

    for (size_t i = 0; i < count; i++) {
        hash = (hash ^ from[i]) * 0x100000001b3U;
    }
    return hash;
}

/* The value of "name=" on the command line; its length in *ret_bytes. "": it is not there. */
static const char *argument(const char *name, size_t *ret_bytes)
{
    const char *at = machine_command_line();

    *ret_bytes = 0;
    while (*at != '\0') {
        size_t i = 0;

        while (name[i] != '\0' && at[i] == name[i]) {
            i++;
        }
        if (name[i] == '\0') {
            at += i;
            while (at[*ret_bytes] != '\0' && at[*ret_bytes] != ' ') {
                (*ret_bytes)++;
            }
            return at;
        }
        while (*at != '\0' && *at++ != ' ') {
        }
    }
    return "";
}

uint64_t argument_number(const char *name)
{
    size_t bytes = 0;
    const char *text = argument(name, &bytes);
    uint64_t number = 0;

    for (size_t i = 0; i < bytes; i++) {
        number = number * 10 + (uint64_t)(text[i] - '0');
    }
    return number;
}

uint64_t memory_end(void)
{
    return machine_memory_start + argument_number("memory_mib=") * 1024 * 1024;
}

/* The last disk is never attacked. */
static bool others_work(void)
{
    uint64_t sum = 0;

    return blk_works(&blks[blk_count - 1], &sum) && sum == disk_digest && machine_others_work();
}

void verdict(const char *name, const char *why)
{
    if (why == NULL && !others_work()) {
        why = "another device does not work";
    }
    say("attack ");
    say(name);
    say(why != NULL ? ": FAILED: " : ": ok");
    say(why != NULL ? why : "");
    say("\n");
}

/* ---- All of it ------------------------------------------------------------------------------- */

static void find_devices(void)
{
    for (unsigned i = 0; i < VIRTIO_SLOTS; i++) {
        struct device device = {.base = machine_virtio_base + (uint64_t)i * VIRTIO_SLOT_BYTES};

        if (reg_read(&device, REG_MAGIC) != 0x74726976) {
            continue;
        }
        device.id = reg_read(&device, REG_DEVICE_ID);
        if (device.id == DEVICE_BLK) {
            blks[blk_count++] = device;
        } else if (device.id == DEVICE_VSOCK) {
            vsock = device;
        }
    }
}

/* The proof that this ran: nobody else in the VM knows the token. */
static void tell_token(void)
{
    size_t bytes = 0;
    const char *token = argument("token=", &bytes);
    char text[17];

    format_number(digest(token, bytes), text);
    say("digest: ");
    say(text);
    say("\n");
    if (vsock.id != 0) {
        tell_by_vsock(text);
    }
}

_Noreturn void guest_main(void)
{
    find_devices();
    if (blk_count < 3 || !blk_works(&blks[blk_count - 1], &disk_digest)) {
        say("there are too few disks that work\n");
        machine_restart();
    }
    say("disk: ");
    say_number(disk_digest);
    say("\n");
    if (argument_number("ending=") == 0) {
        attack_queues();
        attack_registers();
        attack_by_race();
        if (vsock.id != 0) {
            attack_vsock();
        }
        machine_attack();
        say("all attacks made\n");
    }
    tell_token();
    machine_end((unsigned)argument_number("ending="));
}
