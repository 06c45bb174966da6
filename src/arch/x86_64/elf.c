/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * elf.c: an uncompressed vmlinux. With a PVH note it is entered there, else at e_entry by the
 * 64-bit boot protocol.
 *
 * The file is hostile: headers are copied once, checked, and only the copy is used.
 */
#include "arch/x86_64/layout.h"
#include "arch/x86_64/load.h"

#include <elf.h>
#include <errno.h>
#include <inttypes.h>
#include <string.h>

/* Debian's vmlinux has 5 program headers and less than 1 KiB of notes. */
#define NOTES_MAX_BYTES (64 * KIB)
#define XEN_NOTE_PHYS32_ENTRY 18

struct elf_file {
    const struct arch_blob *blob;
    Elf64_Ehdr header;
    Elf64_Phdr segments[LOAD_SEGMENTS_MAX];
    uint64_t pvh_entry; /* 0: none */
};

/* One wrong header field: its name, value, and what was expected. */
static int field_error(const struct elf_file *elf, struct bvmm_error *err, const char *field,
                       uint64_t value, const char *expected)
{
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                     "%s: ELF %s is 0x%" PRIx64 ", expected %s", elf->blob->name, field, value,
                     expected);
}

static int segment_error(const struct elf_file *elf, struct bvmm_error *err, unsigned index,
                         const char *field, uint64_t value, const char *expected)
{
    return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                     "%s: ELF program header %u: %s is 0x%" PRIx64 ", expected %s (the file has "
                     "0x%" PRIx64 " bytes)",
                     elf->blob->name, index, field, value, expected, elf->blob->size_bytes);
}

bool elf_recognize(const struct arch_blob *file)
{
    uint8_t ident[EI_NIDENT];

    return file->size_bytes >= sizeof(ident) &&
           blob_read(file, 0, ident, sizeof(ident), NULL) == 0 &&
           memcmp(ident, ELFMAG, SELFMAG) == 0;
}

static int read_header(struct elf_file *elf, struct bvmm_error *err)
{
    Elf64_Ehdr *header = &elf->header;
    int ret;

    if (elf->blob->size_bytes < sizeof(*header)) {
        return error_set(err, BVMM_ERROR_KERNEL_LOAD, -ENOEXEC,
                         "%s: %" PRIu64 " bytes are too few for an ELF header (%zu): cut short?",
                         elf->blob->name, elf->blob->size_bytes, sizeof(*header));
    }
    ret = blob_read(elf->blob, 0, header, sizeof(*header), err);
    if (ret != 0) {
        return ret;
    }
    if (header->e_ident[EI_CLASS] != ELFCLASS64) {
        return field_error(elf, err, "EI_CLASS", header->e_ident[EI_CLASS], "2 (64-bit)");
    }
    if (header->e_ident[EI_DATA] != ELFDATA2LSB) {
        return field_error(elf, err, "EI_DATA", header->e_ident[EI_DATA], "1 (little-endian)");
    }
    if (header->e_machine != EM_X86_64) {
        return field_error(elf, err, "e_machine", header->e_machine, "0x3e (x86-64)");
    }
    if (header->e_type != ET_EXEC) {
        return field_error(elf, err, "e_type", header->e_type,
                           "2 (executable); a module or shared object is no kernel");
    }
    if (header->e_phentsize != sizeof(Elf64_Phdr)) {
        return field_error(elf, err, "e_phentsize", header->e_phentsize, "0x38");
    }
    if (header->e_phnum == 0 || header->e_phnum > LOAD_SEGMENTS_MAX) {
        return field_error(elf, err, "e_phnum", header->e_phnum, "1 to 64");
    }
    if (!blob_has(elf->blob, header->e_phoff, header->e_phnum * sizeof(Elf64_Phdr))) {
        return field_error(elf, err, "e_phoff", header->e_phoff,
                           "an offset within the file: cut short?");
    }
    return blob_read(elf->blob, header->e_phoff, elf->segments,
                     header->e_phnum * sizeof(Elf64_Phdr), err);
}

static int load_segment(struct load_map *map, const struct elf_file *elf, unsigned index,
                        struct bvmm_error *err)
{
    const Elf64_Phdr *segment = &elf->segments[index];
    struct guest_range range = {gpa(segment->p_paddr), segment->p_memsz};
    int ret;

    if (!blob_has(elf->blob, segment->p_offset, segment->p_filesz)) {
        return segment_error(elf, err, index, "p_offset + p_filesz",
                             segment->p_offset + segment->p_filesz,
                             "an end within the file: cut short?");
    }
    if (segment->p_filesz > segment->p_memsz) {
        return segment_error(elf, err, index, "p_filesz", segment->p_filesz, "at most p_memsz");
    }
    if (segment->p_memsz == 0) {
        return 0;
    }
    ret = load_claim(map, range, BVMM_ERROR_KERNEL_LOAD, err,
                     "ELF program header %u (p_paddr, p_memsz)", index);
    if (ret != 0) {
        return ret;
    }
    return blob_load(elf->blob, segment->p_offset, map->memory, range.base, segment->p_filesz, err);
}

/* The address of the PVH entry if this is its note, else 0. */
static uint64_t note_pvh_entry(const Elf64_Nhdr *note, const uint8_t *name, const uint8_t *desc)
{
    uint64_t entry = 0;

    if (note->n_type == XEN_NOTE_PHYS32_ENTRY && note->n_namesz == 4 &&
        memcmp(name, "Xen", 4) == 0 && (note->n_descsz == 4 || note->n_descsz == 8)) {
        memcpy(&entry, desc, note->n_descsz);
    }
    return entry;
}

static int parse_notes(struct elf_file *elf, unsigned index, struct bvmm_error *err)
{
    const Elf64_Phdr *segment = &elf->segments[index];
    uint64_t alignment = segment->p_align == 8 ? 8 : 4;
    uint64_t offset = 0;

    if (!blob_has(elf->blob, segment->p_offset, segment->p_filesz) ||
        segment->p_filesz > NOTES_MAX_BYTES) {
        return segment_error(elf, err, index, "p_filesz (notes)", segment->p_filesz,
                             "at most 64 KiB, within the file");
    }
    while (segment->p_filesz - offset >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr note;
        uint8_t name[4] = {0};
        uint8_t desc[8] = {0};
        uint64_t name_at = offset + sizeof(note);
        uint64_t desc_at;
        uint64_t file_at = segment->p_offset;
        int ret = blob_read(elf->blob, file_at + offset, &note, sizeof(note), err);

        if (ret != 0) {
            return ret;
        }
        desc_at = align_up(name_at + note.n_namesz, alignment);
        if (desc_at + note.n_descsz > segment->p_filesz) {
            return segment_error(elf, err, index, "note's size",
                                 (uint64_t)note.n_namesz + note.n_descsz,
                                 "one that ends within the segment");
        }
        ret = blob_read(elf->blob, file_at + name_at, name, min_u64(note.n_namesz, sizeof(name)),
                        err);
        if (ret == 0) {
            ret = blob_read(elf->blob, file_at + desc_at, desc,
                            min_u64(note.n_descsz, sizeof(desc)), err);
        }
        if (ret != 0) {
            return ret;
        }
        elf->pvh_entry = elf->pvh_entry ? elf->pvh_entry : note_pvh_entry(&note, name, desc);
        offset = min_u64(align_up(desc_at + note.n_descsz, alignment), segment->p_filesz);
    }
    return 0;
}

/* Does this address lie in bytes that came from the file? */
static bool is_loaded(const struct elf_file *elf, uint64_t address)
{
    for (unsigned i = 0; i < elf->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (segment->p_type == PT_LOAD && address >= segment->p_paddr &&
            address - segment->p_paddr < segment->p_filesz) {
            return true;
        }
    }
    return false;
}

static int choose_entry(const struct elf_file *elf, struct x86_kernel *kernel,
                        struct bvmm_error *err)
{
    bool pvh = elf->pvh_entry != 0;
    uint64_t entry = pvh ? elf->pvh_entry : elf->header.e_entry;

    if (!is_loaded(elf, entry)) {
        return field_error(elf, err, pvh ? "PVH note's entry" : "e_entry", entry,
                           "a physical address within a PT_LOAD segment");
    }
    kernel->entry = pvh ? ARCH_ENTRY_PVH : ARCH_ENTRY_LINUX64;
    kernel->format = pvh ? "elf-pvh" : "elf-linux64";
    kernel->pc = gpa(entry);
    return 0;
}

/* From the lowest to the highest byte; what lies between the segments counts as the kernel's. */
static struct guest_range kernel_range(const struct elf_file *elf)
{
    uint64_t start = UINT64_MAX;
    uint64_t end = 0;

    for (unsigned i = 0; i < elf->header.e_phnum; i++) {
        const Elf64_Phdr *segment = &elf->segments[i];

        if (segment->p_type == PT_LOAD && segment->p_memsz > 0) {
            start = min_u64(start, segment->p_paddr);
            if (end < segment->p_paddr + segment->p_memsz) {
                end = segment->p_paddr + segment->p_memsz;
            }
        }
    }
    return (struct guest_range){gpa(start), end - start};
}

int elf_load(struct load_map *map, const struct arch_blob *file, struct x86_kernel *ret_kernel,
             struct bvmm_error *err)
{
    struct elf_file elf = {.blob = file};
    struct x86_kernel kernel = {
        .initrd_limit = X86_HOLE,
        .cmdline_max_bytes = arch_platform.cmdline_max_bytes,
        .header = {.boot_flag = BOOT_FLAG, .header = HEADER_MAGIC, .version = HEADER_VERSION},
    };
    int ret = read_header(&elf, err);

    for (unsigned i = 0; ret == 0 && i < elf.header.e_phnum; i++) {
        if (elf.segments[i].p_type == PT_LOAD) {
            ret = load_segment(map, &elf, i, err);
        } else if (elf.segments[i].p_type == PT_NOTE) {
            ret = parse_notes(&elf, i, err);
        }
    }
    if (ret == 0) {
        ret = choose_entry(&elf, &kernel, err);
    }
    if (ret != 0) {
        return ret;
    }
    kernel.range = kernel_range(&elf);
    kernel.initrd_lowest = kernel.range.base.v + kernel.range.bytes;
    *ret_kernel = kernel;
    return 0;
}
