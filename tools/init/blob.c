/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * blob.c: the guest's init as bytes of bvmm. BVMM_INIT_FILE is the built program.
 */
__asm__(".pushsection .rodata.bvmm_init, \"a\"\n"
        ".balign 16\n"
        ".global bvmm_init_start\n"
        ".hidden bvmm_init_start\n"
        "bvmm_init_start:\n"
        ".incbin \"" BVMM_INIT_FILE "\"\n"
        ".global bvmm_init_end\n"
        ".hidden bvmm_init_end\n"
        "bvmm_init_end:\n"
        ".byte 0\n"
        ".popsection\n");

/* A translation unit must declare something. */
extern const unsigned char bvmm_init_start[];
