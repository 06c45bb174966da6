/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/* embedded.c: .incbin of the files whose paths the build names. Constant data. */
#include "vmm/embedded.h"

/* The bytes of a file at embedded_<name>, and the place behind them at embedded_<name>_end. */
#define EMBED(name, path)                                                                          \
    __asm__(".pushsection .rodata.embedded, \"a\"\n"                                               \
            ".balign 4096\n"                                                                       \
            ".hidden embedded_" #name "\n.global embedded_" #name "\n"                             \
            "embedded_" #name ":\n"                                                                \
            ".incbin \"" path "\"\n"                                                               \
            ".hidden embedded_" #name "_end\n.global embedded_" #name "_end\n"                     \
            "embedded_" #name "_end:\n"                                                            \
            ".byte 0\n"                                                                            \
            ".popsection\n");                                                                      \
    extern const uint8_t embedded_##name[];                                                        \
    extern const uint8_t embedded_##name##_end[]

#define FILE_OF(name)                                                                              \
    ((struct embedded_file){embedded_##name, (size_t)(embedded_##name##_end - embedded_##name)})

EMBED(job_schema, BVMM_JOB_SCHEMA_FILE);
EMBED(report_schema, BVMM_REPORT_SCHEMA_FILE);
#ifdef BVMM_EMBEDDED_KERNEL_FILE
EMBED(kernel, BVMM_EMBEDDED_KERNEL_FILE);
EMBED(kernel_json, BVMM_EMBEDDED_KERNEL_JSON_FILE);
#endif

struct embedded_file embedded_file(enum embedded_id id)
{
    switch (id) {
    case EMBEDDED_JOB_SCHEMA:
        return FILE_OF(job_schema);
    case EMBEDDED_REPORT_SCHEMA:
        return FILE_OF(report_schema);
#ifdef BVMM_EMBEDDED_KERNEL_FILE
    case EMBEDDED_KERNEL:
        return FILE_OF(kernel);
    case EMBEDDED_KERNEL_JSON:
        return FILE_OF(kernel_json);
#else
    case EMBEDDED_KERNEL:
    case EMBEDDED_KERNEL_JSON:
        break;
#endif
    }
    return (struct embedded_file){NULL, 0};
}
