/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * file_kind.c: magic numbers.
 * Sources: Linux Documentation/filesystems/{squashfs,erofs,ext4/super}.rst, arch/x86/boot.rst,
 * arm64/booting.rst; System V ABI (ELF).
 */
#include "vmm/file_kind.h"

#include <elf.h>
#include <string.h>

/* The bytes [offset, offset + size) if the file has them, else NULL. */
static const uint8_t *at(const uint8_t *head, size_t bytes, size_t offset, size_t size)
{
    return offset <= bytes && size <= bytes - offset ? head + offset : NULL;
}

static uint64_t get_le(const uint8_t *from, size_t size)
{
    uint64_t value = 0;

    for (size_t i = size; i > 0; i--) {
        value = value << 8 | from[i - 1];
    }
    return value;
}

static bool has_magic(const uint8_t *head, size_t bytes, size_t offset, const char *magic,
                      size_t size)
{
    const uint8_t *found = at(head, bytes, offset, size);

    return found && memcmp(found, magic, size) == 0;
}

/* ---- File systems ---------------------------------------------------------------------------- */

#define EXT4_SUPERBLOCK_OFFSET 1024
#define EXT4_SUPERBLOCK_BYTES 1024
#define EXT4_FEATURE_INCOMPAT_64BIT 0x80U
#define EROFS_SUPERBLOCK_OFFSET 1024
#define EROFS_SUPERBLOCK_BYTES 128
#define SQUASHFS_SUPERBLOCK_BYTES 96
#define LARGEST_BLOCK_SHIFT 16

static void squashfs_facts(const uint8_t *super, struct image_facts *facts)
{
    /* By number of the compressor; those that the bundled kernel has are NULL. */
    static const char *const lacking[] = {
        NULL, NULL /* gzip */, "lzma compression", "lzo compression", NULL /* xz, lz4, zstd */,
    };
    uint64_t compressor = get_le(super + 20, 2);

    facts->fstype = JOB_FSTYPE_SQUASHFS;
    facts->used_bytes = get_le(super + 40, 8);
    facts->unsupported = compressor < ARRAY_SIZE(lacking) ? lacking[compressor] : NULL;
}

static void ext4_facts(const uint8_t *super, struct image_facts *facts)
{
    uint64_t shift = 10 + get_le(super + 0x18, 4);
    uint64_t blocks = get_le(super + 4, 4);

    facts->fstype = JOB_FSTYPE_EXT4;
    if (get_le(super + 0x60, 4) & EXT4_FEATURE_INCOMPAT_64BIT) {
        blocks |= get_le(super + 0x150, 4) << 32;
    }
    if (shift <= LARGEST_BLOCK_SHIFT && blocks < UINT64_MAX >> LARGEST_BLOCK_SHIFT) {
        facts->used_bytes = blocks << shift;
    }
}

static void erofs_facts(const uint8_t *super, struct image_facts *facts)
{
    uint64_t shift = super[12];

    facts->fstype = JOB_FSTYPE_EROFS;
    if (shift <= LARGEST_BLOCK_SHIFT) {
        facts->used_bytes = get_le(super + 36, 4) << shift;
    }
}

void image_identify(const uint8_t *head, size_t bytes, struct image_facts *ret_facts)
{
    const uint8_t *ext4 = at(head, bytes, EXT4_SUPERBLOCK_OFFSET, EXT4_SUPERBLOCK_BYTES);
    const uint8_t *erofs = at(head, bytes, EROFS_SUPERBLOCK_OFFSET, EROFS_SUPERBLOCK_BYTES);

    *ret_facts = (struct image_facts){.fstype = JOB_FSTYPE_OTHER};
    if (bytes >= SQUASHFS_SUPERBLOCK_BYTES && has_magic(head, bytes, 0, "hsqs", 4)) {
        squashfs_facts(head, ret_facts);
    } else if (erofs && has_magic(erofs, 4, 0, "\xe2\xe1\xf5\xe0", 4)) {
        erofs_facts(erofs, ret_facts);
    } else if (ext4 && has_magic(ext4, EXT4_SUPERBLOCK_BYTES, 0x38, "\x53\xef", 2)) {
        ext4_facts(ext4, ret_facts);
    }
}

/* ---- Kernels --------------------------------------------------------------------------------- */

/* A program names its interpreter in a segment; a kernel does not. */
static bool elf_is_program(const uint8_t *head, size_t bytes, const Elf64_Ehdr *header)
{
    for (size_t i = 0; i < header->e_phnum; i++) {
        size_t offset = header->e_phoff + i * sizeof(Elf64_Phdr);
        const uint8_t *segment = at(head, bytes, offset, sizeof(Elf64_Phdr));

        if (!segment) {
            return false;
        }
        if (get_le(segment, 4) == PT_INTERP) {
            return true;
        }
    }
    return false;
}

static bool elf_is_kernel(const uint8_t *head, size_t bytes)
{
    Elf64_Ehdr header;

    if (bytes < sizeof(header) || !has_magic(head, bytes, 0, ELFMAG, SELFMAG)) {
        return false;
    }
    memcpy(&header, head, sizeof(header));
    return header.e_ident[EI_CLASS] == ELFCLASS64 && header.e_ident[EI_DATA] == ELFDATA2LSB &&
           (header.e_type == ET_EXEC || header.e_type == ET_DYN) && header.e_machine == EM_X86_64 &&
           header.e_phoff < bytes && !elf_is_program(head, bytes, &header);
}

const char *kernel_identify(const uint8_t *head, size_t bytes)
{
    if (elf_is_kernel(head, bytes)) {
        return "x86_64";
    }
    if (has_magic(head, bytes, 0x1fe, "\x55\xaa", 2) && has_magic(head, bytes, 0x202, "HdrS", 4)) {
        return "x86_64";
    }
    if (has_magic(head, bytes, 56, "ARM\x64", 4)) {
        return "aarch64";
    }
    return NULL;
}

/* ---- All that a file may be ------------------------------------------------------------------ */

/* POSIX.1-2008, pax: ustar Interchange Format. */
#define TAR_BLOCK_BYTES 512
#define TAR_SUM_OFFSET 148
#define TAR_SUM_BYTES 8

struct magic {
    size_t offset;
    const char *bytes;
    size_t size;
    const char *what;
    bool initrd; /* Linux takes it as one */
};

/* clang-format off */
static const struct magic magics[] = {
    {0,      "070701",               6, "a cpio archive",            true },
    {0,      "070702",               6, "a cpio archive",            true },
    {0,      "\x1f\x8b",             2, "a gzip-compressed file",    true },
    {0,      "\xfd" "7zXZ",          5, "an xz-compressed file",     true },
    {0,      "\x28\xb5\x2f\xfd",     4, "a zstd-compressed file",    true },
    {0,      "\x02\x21\x4c\x18",     4, "an lz4-compressed file",    true },
    {0,      "\x5d\x00\x00",         3, "an lzma-compressed file",   true },
    {0,      "BZh",                  3, "a bzip2-compressed file",   true },
    {0,      "\x04\x22\x4d\x18",     4, "an lz4-compressed file (not of Linux's format)", false},
    {0,      "QFI\xfb",              4, "a qcow2 image",             false},
    {0,      "KDMV",                 4, "a VMDK image",              false},
    {0x200,  "EFI PART",             8, "a partitioned disk image",  false},
    {257,    "ustar",                5, "a tar archive",             false},
    {0,      "PK\x03\x04",           4, "a zip archive",             false},
    {0,      "#!",                   2, "a script",                  false},
    {0,      "{",                    1, "a JSON or text file",       false},
    {0,      "\x7f" "ELF",           4, "an ELF file that is no kernel", false},
};
/* clang-format on */

static const struct magic *find_magic(const uint8_t *head, size_t bytes)
{
    for (size_t i = 0; i < ARRAY_SIZE(magics); i++) {
        if (has_magic(head, bytes, magics[i].offset, magics[i].bytes, magics[i].size)) {
            return &magics[i];
        }
    }
    return NULL;
}

const char *file_describe(const uint8_t *head, size_t bytes)
{
    static const char *const images[] = {
        [JOB_FSTYPE_SQUASHFS] = "a squashfs image",
        [JOB_FSTYPE_EXT4] = "an ext2, ext3 or ext4 image",
        [JOB_FSTYPE_EROFS] = "an erofs image",
        [JOB_FSTYPE_OTHER] = NULL,
    };
    const char *arch = kernel_identify(head, bytes);
    const struct magic *magic = find_magic(head, bytes);
    struct image_facts image;

    image_identify(head, bytes, &image);
    if (image.fstype != JOB_FSTYPE_OTHER) {
        return images[image.fstype];
    }
    if (arch) {
        return strcmp(arch, "x86_64") == 0 ? "a kernel for x86_64" : "a kernel for aarch64";
    }
    return magic ? magic->what : "no file of a known kind";
}

/* A header says of itself that it is one: by the sum of its bytes, its own field counted as blanks. */
static bool is_tar_header(const uint8_t *head, size_t bytes)
{
    const uint8_t *header = at(head, bytes, 0, TAR_BLOCK_BYTES);
    unsigned long sum = 0;
    unsigned long said = 0;
    size_t i = TAR_SUM_OFFSET;

    for (size_t k = 0; header && k < TAR_BLOCK_BYTES; k++) {
        sum += k >= TAR_SUM_OFFSET && k < TAR_SUM_OFFSET + TAR_SUM_BYTES ? ' ' : header[k];
    }
    while (header && i < TAR_SUM_OFFSET + TAR_SUM_BYTES && header[i] == ' ') {
        i++;
    }
    for (; header && i < TAR_SUM_OFFSET + TAR_SUM_BYTES && header[i] >= '0' && header[i] <= '7';
         i++) {
        said = said * 8 + (unsigned long)(header[i] - '0');
    }
    return header && said == sum;
}

bool archive_identify(const uint8_t *head, size_t bytes)
{
    return has_magic(head, bytes, 0, "\x1f\x8b", 2) || has_magic(head, bytes, 0, "BZh", 3) ||
           has_magic(head, bytes, 0, "\x28\xb5\x2f\xfd", 4) ||
           has_magic(head, bytes, 0,
                     "\xfd"
                     "7zXZ",
                     5) ||
           is_tar_header(head, bytes);
}

bool initrd_identify(const uint8_t *head, size_t bytes)
{
    const struct magic *magic = find_magic(head, bytes);

    return magic && magic->initrd;
}
