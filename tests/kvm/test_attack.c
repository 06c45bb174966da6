/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_attack.c: a whole machine of bvmm, with the sanitizers that this build has, and in it the
 * guest of tests/e2e/attack/, which breaks one rule after the other. Plain instructions are all that
 * it executes: so it runs where KVM has no hardware underneath, too.
 */
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)

#include "guest.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "bvmm/bvmm.h"
#include "virtio/virtqueue.h"

#define DISKS 8
#define DISK_BYTES (64 * KIB)
#define DEAF_PORT 6000
#define TEXT_(text) #text
#define TEXT(text) TEXT_(text)
#define TOKEN "7f3a9c55d2"
#define FAULTS_OF_QUEUES 24
#define FAULTS_OF_VSOCK 4
#define FAULTS_OF_RACE_MAX 4
#define RACE_ACTOR "blk6" /* the last but one */

bool __wrap_arch_kvm_needs_probe(void);

/* bvmm refuses a KVM without hardware, since Linux cannot run on it. This guest can. */
bool __wrap_arch_kvm_needs_probe(void)
{
    return false;
}

static void write_disk(char *path)
{
    uint8_t *bytes = calloc(1, DISK_BYTES);
    const int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_non_null(bytes);
    for (size_t i = 0; i < DISK_BYTES; i++) {
        bytes[i] = (uint8_t)(i * 7 + i / 256);
    }
    assert_int_equal(write(fd, bytes, DISK_BYTES), DISK_BYTES);
    assert_int_equal(close(fd), 0);
    free(bytes);
}

/* A program that guests can connect to, and that never reads: the kernel takes the connections for it. */
static int deaf_program(char *directory, char *ret_path, size_t size)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_non_null(mkdtemp(directory));
    (void)snprintf(ret_path, size, "%s/vsock", directory);
    (void)snprintf(address.sun_path, sizeof(address.sun_path), "%s_%d", ret_path, DEAF_PORT);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, SOMAXCONN), 0);
    return fd;
}

static void end_deaf_program(int fd, const char *directory, const char *path)
{
    char name[128];

    (void)snprintf(name, sizeof(name), "%s_%d", path, DEAF_PORT);
    assert_int_equal(close(fd), 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(rmdir(directory), 0);
}

static json_t *run_guest(const char *disk, const char *vsock_path)
{
    struct bvmm_config *config = NULL;
    struct bvmm_report *report = NULL;
    struct bvmm_error err = {.kind = BVMM_ERROR_NONE};
    json_t *root = NULL;
    json_t *drives = json_array();
    json_t *job = NULL;
    char *text = NULL;

    for (int i = 1; i < DISKS; i++) {
        assert_int_equal(json_array_append_new(drives, json_pack("{s:s}", "path", disk)), 0);
    }
    job = json_pack("{s:s, s:s, s:s, s:o, s:i, s:i, s:i, s:s, s:s, s:s}", "kernel_path",
                    BVMM_ATTACK_GUEST, "rootfs_path", disk, "rootfs_type", "other", "drives",
                    drives, "vcpus", 2, "memory_mib", 64, "timeout_secs", 100, "sandbox", "off",
                    "kernel_cmdline", "memory_mib=64 token=" TOKEN " deaf_port=" TEXT(DEAF_PORT),
                    "vsock_path", vsock_path);
    text = json_dumps(job, 0);
    guest_check(bvmm_config_parse(text, strlen(text), &config, &err), &err);
    guest_check(bvmm_run(config, &report, &err), &err);
    root = json_loads(bvmm_report_json(report, NULL), 0, NULL);
    assert_non_null(root);
    bvmm_report_free(report);
    bvmm_config_free(config);
    json_decref(job);
    free(text);
    return root;
}

static const char *console_of(const json_t *report)
{
    const char *text =
        json_string_value(json_object_get(json_object_get(report, "console"), "text"));

    return text != NULL ? text : "";
}

static size_t count_words(const char *text, const char *words)
{
    size_t count = 0;

    for (const char *at = strstr(text, words); at != NULL; at = strstr(at + 1, words)) {
        count++;
    }
    return count;
}

/* The disk that two CPUs race about: what comes of that is chance. */
static bool is_race(const json_t *fault)
{
    const char *actor = json_string_value(json_object_get(fault, "actor"));

    return strcmp(actor, RACE_ACTOR) == 0;
}

/* All that a driver can do wrong was done, and told by its name. */
static void expect_every_fault(const json_t *faults)
{
    for (unsigned fault = VIRTQ_FAULT_NONE + 1; fault < VIRTQ_FAULT_COUNT; fault++) {
        const char *text = virtq_fault_text((enum virtq_fault)fault);
        bool found = false;

        for (size_t i = 0; i < json_array_size(faults); i++) {
            const json_t *one = json_array_get(faults, i);

            found =
                found || (!is_race(one) &&
                          strstr(json_string_value(json_object_get(one, "what")), text) != NULL);
        }
        if (!found) {
            fail_msg("nothing in the report about: %s", text);
        }
    }
}

static void print_faults(const json_t *faults)
{
    for (size_t i = 0; i < json_array_size(faults); i++) {
        const json_t *fault = json_array_get(faults, i);

        (void)printf("%s: %s\n", json_string_value(json_object_get(fault, "actor")),
                     json_string_value(json_object_get(fault, "what")));
    }
}

/* A sanitizer's finding would end the VM process: then the status is another. */
static void test_attacks_on_the_whole_machine(void **state)
{
    char disk[] = "/tmp/bvmm-attack.XXXXXX";
    char directory[] = "/tmp/bvmm-attack-vsock.XXXXXX";
    char path[64];
    int deaf = -1;
    json_t *report = NULL;
    const char *console = NULL;
    size_t faults = 0;

    (void)state;
    write_disk(disk);
    deaf = deaf_program(directory, path, sizeof(path));
    report = run_guest(disk, path);
    end_deaf_program(deaf, directory, path);
    assert_int_equal(unlink(disk), 0);
    console = console_of(report);
    faults = json_array_size(json_object_get(report, "device_faults"));
    /* cmocka cuts long messages. */
    (void)printf("status %s, %zu device faults, console:\n%s\n",
                 json_string_value(json_object_get(report, "status")), faults, console);
    print_faults(json_object_get(report, "device_faults"));
    assert_non_null(strstr(console, "all attacks made\n"));
    assert_null(strstr(console, "FAILED"));
    assert_string_equal(json_string_value(json_object_get(report, "status")), "guest_shutdown");
    assert_true(count_words(console, ": ok\n") >= FAULTS_OF_QUEUES + FAULTS_OF_VSOCK);
    assert_non_null(strstr(console, "vsock works\n"));
    assert_in_range(faults, FAULTS_OF_QUEUES + FAULTS_OF_VSOCK,
                    FAULTS_OF_QUEUES + FAULTS_OF_VSOCK + FAULTS_OF_RACE_MAX);
    expect_every_fault(json_object_get(report, "device_faults"));
    json_decref(report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_attacks_on_the_whole_machine)};

    return guest_impossible() ? SKIPPED : cmocka_run_group_tests(tests, NULL, NULL);
}

#else

#include <stdio.h>

int main(void)
{
    (void)puts("skipped: the attack guest is for x86_64, and the thread sanitizer does not follow "
               "clone()");
    return 77;
}

#endif
