# SPDX-License-Identifier: MIT OR Apache-2.0
"""Make a squashfs from a tree, so that equal input gives equal bytes."""

import hashlib
import json
import os
import shlex
import stat
import subprocess
import sys

from . import common
from .common import ToolError

FORMAT = 1  # raised when the same source would give other bytes: cached images are made again
CONFIG_DIR = "etc/bvmm"
CONFIG_PATH = "etc/bvmm/image.json"
ROOTLESS_XATTR = "user.rootlesscontainers"
# The guest's kernel reads all of these. Levels: the smallest that is not slow.
COMPRESSIONS = {
    "zstd": ["-comp", "zstd", "-Xcompression-level", "6"],
    "gzip": ["-comp", "gzip", "-Xcompression-level", "6"],
    "lz4": ["-comp", "lz4"],
    "xz": ["-comp", "xz"],
}
CONFIG_KEYS = {"entrypoint": list, "cmd": list, "env": list, "workdir": str, "user": str}


def source_date_epoch():
    text = os.environ.get("SOURCE_DATE_EPOCH")
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or int(text) >= 1 << 32:
        raise ToolError(f"SOURCE_DATE_EPOCH={text}: expected seconds since 1970, below 2^32")
    return int(text)


def walk(root):
    """Every entry below root, parents first, in a fixed order; links are not followed. Bytes."""
    stack = [os.fsencode(root)]
    while stack:
        directory = stack.pop()
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            yield entry.path, entry.stat(follow_symlinks=False)
            if entry.is_dir(follow_symlinks=False):
                stack.append(entry.path)


# ---- pseudo file definitions of mksquashfs -------------------------------------------------------
# "m" and not "M", which could set the time too: mksquashfs 4.5 accepts no file below a directory
# that an "M" names.

def pseudo_name(relative):
    """A path as mksquashfs's pseudo files want it. They are lines, so a newline cannot be."""
    if b"\n" in relative:
        raise ToolError(f"{os.fsdecode(relative)!r}: the owner of a file with a newline in its "
                        "name can be set by root only: run this as root, or rename the file")
    return b'"/' + relative.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def pseudo_owner(relative, info, uid, gid):
    numbers = f" m {stat.S_IMODE(info.st_mode):o} {uid} {gid}\n"
    return pseudo_name(relative) + numbers.encode()


def parse_rootless_xattr(value):
    """umoci's record of an owner that it could not set: protobuf, field 1 uid, field 2 gid."""
    numbers = {1: 0, 2: 0}
    unset = 0xFFFFFFFF  # umoci's way to say: as it was, which is root
    at = 0

    def varint():
        nonlocal at
        result = shift = 0
        while True:
            byte = value[at]
            at += 1
            result |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return result

    try:
        while at < len(value):
            key = varint()
            numbers[key >> 3] = varint()
    except IndexError:
        raise ToolError(f"{ROOTLESS_XATTR}: cannot be read: {value.hex()}") from None
    return tuple(0 if numbers[n] == unset else numbers[n] for n in (1, 2))


# ---- preparing a tree ----------------------------------------------------------------------------

def settle_times(root, started_s, image_times):
    """Give what our unpacking made (directories that no layer lists) a fixed time. Times that the
    image states stay: Python, for one, ignores compiled files when their sources' times change."""
    epoch = source_date_epoch()
    known = set(image_times)
    entries = list(walk(root)) + [(os.fsencode(root), os.lstat(root))]
    for path, info in reversed(entries):
        mtime = info.st_mtime_ns // 1_000_000_000
        if epoch is not None:
            wanted = min(mtime, epoch)
        elif mtime >= started_s and mtime not in known:
            wanted = 0
        else:
            continue
        if wanted != mtime:
            os.utime(path, (wanted, wanted), follow_symlinks=False)


def remove_device_placeholders(root, devices):
    """umoci --rootless puts an empty file in place of each device. They go: a file that is no
    device would mislead more than one that is not there."""
    for device in devices:
        path = os.path.join(root, device)
        directory = os.path.dirname(path)
        if os.path.realpath(path) == path and os.path.isfile(path) and not os.path.getsize(path):
            before = os.stat(directory)
            os.unlink(path)
            os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))


def settle_rootless(root, devices, owners):
    """After umoci --rootless: owners from its attribute become pseudo files, everything becomes
    readable for mksquashfs, and what stands in place of devices goes. owners: path to owner, where
    umoci could leave no attribute."""
    root_bytes = os.fsencode(root)
    entries = list(walk_readable(root))
    remove_device_placeholders(root, devices)
    by_inode = {}  # so that all names of a hard link agree
    for relative, owner in owners.items():
        path = os.path.join(root, relative)
        parent = os.path.dirname(path)
        if os.path.lexists(path) and os.path.realpath(parent) == parent:
            by_inode[os.lstat(path).st_ino] = owner
    lines = []
    for path, info in entries:
        if not os.path.lexists(path):
            continue
        uid, gid = by_inode.get(info.st_ino, (0, 0))
        try:
            uid, gid = parse_rootless_xattr(
                os.getxattr(path, ROOTLESS_XATTR, follow_symlinks=False))
            os.removexattr(path, ROOTLESS_XATTR, follow_symlinks=False)
        except OSError:
            pass  # no such attribute: the file is root's
        lines.append(pseudo_owner(os.path.relpath(path, root_bytes), info, uid, gid))
    return lines


def walk_readable(root):
    """walk(), but each entry is made readable before it is looked into; the mode in info is the
    one from before."""
    stack = [os.fsencode(root)]
    first = {}  # by inode: a later name of a hard link would show the changed mode
    while stack:
        directory = stack.pop()
        for entry in sorted(os.scandir(directory), key=lambda e: e.name):
            info = entry.stat(follow_symlinks=False)
            info = first.setdefault(info.st_ino, info)
            if not stat.S_ISLNK(info.st_mode):
                bits = 0o700 if stat.S_ISDIR(info.st_mode) else 0o600
                if info.st_mode & bits != bits:
                    os.chmod(entry.path, stat.S_IMODE(info.st_mode) | bits)
            yield entry.path, info
            if stat.S_ISDIR(info.st_mode):
                stack.append(entry.path)


def own_files_are_roots(root):
    """In a tree that an ordinary user made, the user's own files are to be root's in the guest."""
    caller = os.geteuid()
    if caller == 0:
        return []
    root_bytes = os.fsencode(root)
    lines = [pseudo_owner(os.path.relpath(path, root_bytes), info, 0, 0)
             for path, info in walk(root) if info.st_uid == caller]
    return lines


def is_real_directory(path):
    return os.path.isdir(path) and not os.path.islink(path)


def config_lines(root, config_file, time_s):
    """Pseudo files that add /etc/bvmm/image.json to a tree without writing to it. None where a
    link or a file is in the way."""
    lines = []
    for directory in ("etc", CONFIG_DIR):
        path = os.path.join(root, directory)
        if not os.path.lexists(path):
            lines.append(f"/{directory} D {time_s} 755 0 0\n".encode())
        elif not is_real_directory(path):
            return None
    command = f"cat {shlex.quote(config_file)}"
    lines.append(f"/{CONFIG_PATH} F {time_s} 644 0 0 {command}\n".encode())
    return lines


def config_in_tree(root):
    """The path of a tree's own image.json, if no link leads elsewhere on the way to it."""
    for directory in ("etc", CONFIG_DIR):
        if not is_real_directory(os.path.join(root, directory)):
            return None
    path = os.path.join(root, CONFIG_PATH)
    return path if os.path.lexists(path) else None


def check_config(config, where):
    """What we or others wrote into an image.json, held against schemas/image-config.schema.json."""
    if not isinstance(config, dict):
        raise ToolError(f"{where}: expected a JSON object")
    if config.get("schema_version") != 1:
        raise ToolError(f"{where}: .schema_version: {config.get('schema_version')!r}: expected 1")
    for key, kind in CONFIG_KEYS.items():
        value = config.get(key)
        good = isinstance(value, kind) and (kind is str or all(isinstance(v, str) for v in value))
        if not good:
            expected = "a string" if kind is str else "a list of strings"
            raise ToolError(f"{where}: .{key}: {value!r}: expected {expected}")
    return config


# ---- mksquashfs ----------------------------------------------------------------------------------

def run_mksquashfs(source, output, options, *, compression, jobs, progress, doing, limit_bytes,
                   stdin=None, clamp_to=None):
    """options: times and pseudo files. Everything else that could vary is fixed here. clamp_to: no
    time in the image is later; mksquashfs refuses it beside times in options."""
    env = dict(os.environ)
    env.pop("SOURCE_DATE_EPOCH", None)
    if clamp_to is not None:
        env["SOURCE_DATE_EPOCH"] = str(clamp_to)
    argv = ["mksquashfs", source, output, "-noappend", "-no-recovery", "-exit-on-error", "-quiet",
            *COMPRESSIONS[compression], *options]
    if jobs:
        argv += ["-processors", str(jobs)]
    progress.step("writing the squashfs")
    progress.clear()
    stdout = sys.stderr if progress.tty else None
    if stdout is None:
        argv.append("-no-progress")
    with open(os.devnull, "rb+") as null:
        common.run_child(argv, doing=doing, stdout=stdout or null, stdin=stdin or null, env=env,
                         max_file_bytes=limit_bytes)


def sha256_file(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def describe_squashfs(path, config):
    """The JSON that stands beside an image: its configuration, and which bytes it belongs to."""
    return {**config, "format": FORMAT,
            "squashfs": {"bytes": os.path.getsize(path), "sha256": sha256_file(path)}}


def config_of(path, check_bytes=False):
    """An image's configuration and where it was found: beside it, else inside; (None, None) if it
    has none. check_bytes: read the whole image to see that the two belong together."""
    beside = path + ".json"
    if os.path.exists(beside):
        config = check_config(common.read_json(beside, "the image's configuration"), beside)
        said = config.get("squashfs") or {}
        if said.get("bytes") != os.path.getsize(path) \
                or (check_bytes and said.get("sha256") != sha256_file(path)):
            raise ToolError(f"{beside}: belongs to another image than {path}: convert it again")
        return config, "beside"
    try:
        inside = common.run_child(["unsquashfs", "-cat", path, CONFIG_PATH],
                                  doing=f"{path}: reading {CONFIG_PATH}", stdout=subprocess.PIPE)
    except ToolError:
        return None, None  # images of others have none
    where = f"{path}:/{CONFIG_PATH}"
    try:
        return check_config(json.loads(inside), where), "inside"
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{where}: not valid JSON: {error}") from None
