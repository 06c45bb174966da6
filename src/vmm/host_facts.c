/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* host_facts.c: see host_facts.h. */
#include "vmm/host_facts.h"

#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void read_cpu_model(char text[HOST_MODEL_BYTES])
{
    static const char wanted[] = "model name";
    FILE *cpuinfo = fopen("/proc/cpuinfo", "re");
    char line[2 * HOST_MODEL_BYTES];
    char *model = NULL;

    while (cpuinfo && !model && fgets(line, sizeof(line), cpuinfo)) {
        if (strncmp(line, wanted, sizeof(wanted) - 1) == 0) {
            model = strchr(line, ':');
        }
    }
    if (cpuinfo) {
        (void)fclose(cpuinfo);
    }
    if (model) {
        model += strspn(model, ": \t");
        model[strcspn(model, "\n")] = '\0';
        (void)snprintf(text, HOST_MODEL_BYTES, "%.*s", HOST_MODEL_BYTES - 1, model);
    }
}

void host_facts_read(struct host_facts *facts)
{
    const int64_t page_bytes = sysconf(_SC_PAGESIZE);
    const int64_t pages = sysconf(_SC_PHYS_PAGES);
    struct utsname name;

    *facts = (struct host_facts){.known = true,
                                 .cpus_online = sysconf(_SC_NPROCESSORS_ONLN),
                                 .memory_mib = pages < 0 || page_bytes < 0
                                                   ? -1
                                                   : pages / (int64_t)(MIB / (uint64_t)page_bytes)};
    if (uname(&name) == 0) {
        (void)snprintf(facts->kernel_release, HOST_NAME_BYTES, "%s", name.release);
        (void)snprintf(facts->arch, HOST_NAME_BYTES, "%s", name.machine);
    }
    read_cpu_model(facts->cpu_model);
}
