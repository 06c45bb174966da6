# SPDX-License-Identifier: MIT OR Apache-2.0
"""Make what the scenarios' jobs name: kernels and images, whole and broken ones. Below the run's directory:
kernel/{vmlinux,vmlinux-64bit,bzImage} or kernel/Image; images/*.squashfs and others; files/."""

import io
import json
import os
import random
import shutil
import struct
import subprocess
import tarfile

PT_NOTE = 4
NOTE_PVH = 18            # XEN_ELFNOTE_PHYS32_ENTRY
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
SCRIPTS = os.path.join(HERE, "guest")
# What the container image of the tests says of itself.
CONTAINER = {"config.entrypoint": ["/bin/sh", "-c"], "config.cmd": ["echo cmd; id -u; pwd; echo $WORD; cat /bin/file; ls /gone /kept"],
             "config.env": "WORD=two words", "config.workingdir": "/work", "config.user": "7:8"}
DRIVE_BYTES = 1024 * 1024
SQUASHFS_COMPRESSORS = ("gzip", "xz", "lz4", "zstd")


def prepare(place):
    for directory in ("images", "kernel", "files"):
        os.makedirs(os.path.join(place.base, directory), exist_ok=True)
    kernels(place)
    images(place)
    tools(place.base)
    container(place)
    attack_guest(place)


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


def attack_guest(place):
    quietly(os.path.join(HERE, "attack/build"), os.path.join(place.base, "kernel/attack"), place.arch)


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
    """One file, which can be compressed, in three file systems, and as it is."""
    tree = os.path.join(base, "files/tree")
    os.makedirs(tree)
    data = random.randbytes(512) * (DRIVE_BYTES // 512)
    for name in ("files/tree/data", "images/raw.img"):
        with open(os.path.join(base, name), "wb") as file:
            file.write(data)
    target = os.path.join(base, "images/drive")
    for compressor in SQUASHFS_COMPRESSORS:
        quietly("mksquashfs", tree, f"{target}-{compressor}.squashfs", "-comp", compressor, "-no-progress", "-quiet", "-all-root")
    quietly("mkfs.erofs", f"{target}.erofs", tree)
    quietly("mke2fs", "-q", "-t", "ext4", "-d", tree, f"{target}.ext4", "8M")


def broken_images(path):
    """A file that begins as a squashfs does, and goes on as nothing does."""
    with open(os.path.join(path, "tiny.squashfs"), "rb") as file:
        data = file.read()
    with open(os.path.join(path, "garbled.squashfs"), "wb") as file:
        file.write(data[:96] + random.randbytes(len(data) - 96))


# --- tools, and a container ---

def tools(base):
    """bvmm's tools and the example runner, in the places that they have in the source tree."""
    shutil.copytree(os.path.join(ROOT, "tools/lib"), os.path.join(base, "tools/lib"), dirs_exist_ok=True)
    for name in ("bvmm-image", "bvmm-run"):
        shutil.copy(os.path.join(ROOT, "tools", name), os.path.join(base, "tools"))
    shutil.copytree(os.path.join(ROOT, "examples/runner"), os.path.join(base, "examples/runner"), dirs_exist_ok=True)


def container(place):
    """files/container.tar, as docker save writes it, and its conversion in cache/: what is called where the guests run finds
    it there, without the programs that convert."""
    if not shutil.which("umoci") or not shutil.which("skopeo"):
        return
    layout = os.path.join(place.base, "files/container")
    tree = os.path.join(place.base, "files/container-tree")
    quietly("unsquashfs", "-no-progress", "-quiet", "-d", tree, os.path.join(place.images, "tiny.squashfs"))
    quietly("umoci", "init", "--layout", layout)
    quietly("umoci", "new", "--image", f"{layout}:t")
    for number, layer in enumerate(container_layers(tree)):
        path = f"{layout}-{number}.tar"
        with tarfile.open(path, "w") as tar:
            for name, source in layer.items():
                add_to_layer(tar, name, source)
        quietly("umoci", "raw", "add-layer", "--image", f"{layout}:t", path)
        os.unlink(path)
    words = [word for key, values in CONTAINER.items() for value in ([values] if isinstance(values, str) else values)
             for word in (f"--{key}", value)]
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[place.arch]
    quietly("umoci", "config", "--image", f"{layout}:t", "--architecture", arch, *words)
    archive = os.path.join(place.base, "files/container.tar")
    quietly("skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:t", f"docker-archive:{archive}:local/container:t")
    done = subprocess.run([os.path.join(place.base, "tools/bvmm-image"), "cached", "--arch", arch, archive], check=True,
                          capture_output=True, env={**os.environ, "BVMM_CACHE": os.path.join(place.base, "cache")}, text=True)
    with open(done.stdout.strip() + ".json", encoding="utf-8") as file:
        json.load(file)
    shutil.rmtree(tree)
    shutil.rmtree(layout)


def container_layers(tree):
    """Two layers, {name: path, text, or None for a directory}: the second replaces a file, and removes one by a whiteout."""
    return ({".": tree, "work": None, "bin/file": "first\n", "gone": "x", "kept": "x"},
            {"bin/file": "second\n", ".wh.gone": ""})


def add_to_layer(tar, name, source):
    if source is not None and os.path.isdir(source):
        tar.add(source, name)
        return
    info = tarfile.TarInfo(name)
    info.mode = 0o755
    data = (source or "").encode()
    info.size = len(data)
    if source is None:
        info.type = tarfile.DIRTYPE
    tar.addfile(info, io.BytesIO(data))
