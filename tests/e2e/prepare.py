# SPDX-License-Identifier: MIT OR Apache-2.0
"""Make what the scenarios' jobs name: kernels and images, whole and broken ones. Below the run's directory:
kernel/{vmlinux,vmlinux-64bit,bzImage} or kernel/Image; images/*.squashfs and others; files/."""

import os
import random
import shutil
import struct
import subprocess

PT_NOTE = 4
NOTE_PVH = 18            # XEN_ELFNOTE_PHYS32_ENTRY
SCRIPTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "guest")
DRIVE_BYTES = 1024 * 1024


def prepare(place):
    for directory in ("images", "kernel", "files"):
        os.makedirs(os.path.join(place.base, directory), exist_ok=True)
    kernels(place)
    images(place)


def quietly(*command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"tests/e2e: {' '.join(command)}: {done.stdout}{done.stderr}")


# --- kernels ---

def kernels(place):
    for name in ("vmlinux", "bzImage", "Image"):
        path = os.path.join(place.kernel_dir, name)
        if os.path.exists(path):
            shutil.copy(path, os.path.join(place.base, "kernel"))
    vmlinux = os.path.join(place.base, "kernel/vmlinux")
    if os.path.exists(vmlinux):
        with open(vmlinux, "rb") as file:
            data = bytearray(file.read())
        hide_pvh(data)
        with open(os.path.join(place.base, "kernel/vmlinux-64bit"), "wb") as file:
            file.write(data)


def hide_pvh(data):
    """Give the note of an ELF kernel that says where PVH enters it another number: it has to be started by the 64-bit
    boot protocol then."""
    header_offset, = struct.unpack_from("<Q", data, 32)
    header_size, count = struct.unpack_from("<HH", data, 54)
    hidden = 0
    for index in range(count):
        kind, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", data, header_offset + index * header_size)
        end = offset + size
        while kind == PT_NOTE and offset + 12 <= end:
            name_size, value_size, note = struct.unpack_from("<III", data, offset)
            if note == NOTE_PVH and data[offset + 12:offset + 16] == b"Xen\0":
                struct.pack_into("<I", data, offset + 8, 0x7FFF)
                hidden += 1
            offset += 12 + (name_size + 3) // 4 * 4 + (value_size + 3) // 4 * 4
    if hidden != 1:
        raise SystemExit(f"tests/e2e: {hidden} PVH notes in vmlinux; expected 1")


# --- images ---

def images(place):
    path = os.path.join(place.base, "images")
    for name in ("bench", "tiny"):
        shutil.copy(os.path.join(place.images, f"{name}.squashfs"), path)
    own_init_image(path)
    initramfs(path)
    drives(place.base)
    broken_images(path)


def own_init_image(path):
    """The bench image with the scripts of guest/ in /own: images with an init of their own."""
    own = os.path.join(path, "own.squashfs")
    shutil.copy(os.path.join(path, "bench.squashfs"), own)
    quietly("mksquashfs", SCRIPTS, own, "-keep-as-directory", "-no-progress", "-quiet", "-no-recovery",
            "-all-root")


def initramfs(path):
    """tiny as an initramfs, with a script of guest/ as its init."""
    tree = os.path.join(path, "initramfs-tree")
    quietly("unsquashfs", "-no-progress", "-quiet", "-d", tree, os.path.join(path, "tiny.squashfs"))
    shutil.copy(os.path.join(SCRIPTS, "initramfs"), os.path.join(tree, "init"))
    os.chmod(os.path.join(tree, "init"), 0o755)
    quietly("sh", "-c", 'cd "$1" && find . | cpio --quiet -o -H newc -R 0:0 | gzip -1 >"$2"', "sh", tree,
            os.path.join(path, "initramfs.cpio.gz"))
    shutil.rmtree(tree)


def drives(base):
    """One file in three file systems, and as it is."""
    tree = os.path.join(base, "files/tree")
    os.makedirs(tree)
    data = random.randbytes(DRIVE_BYTES)
    for name in ("files/tree/data", "images/raw.img"):
        with open(os.path.join(base, name), "wb") as file:
            file.write(data)
    target = os.path.join(base, "images/drive")
    quietly("mksquashfs", tree, f"{target}.squashfs", "-no-progress", "-quiet", "-all-root")
    quietly("mkfs.erofs", f"{target}.erofs", tree)
    quietly("mke2fs", "-q", "-t", "ext4", "-d", tree, f"{target}.ext4", "8M")


def broken_images(path):
    """A file that begins as a squashfs does, and goes on as nothing does."""
    with open(os.path.join(path, "tiny.squashfs"), "rb") as file:
        data = file.read()
    with open(os.path.join(path, "garbled.squashfs"), "wb") as file:
        file.write(data[:96] + random.randbytes(len(data) - 96))
