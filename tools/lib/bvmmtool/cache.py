# SPDX-License-Identifier: MIT OR Apache-2.0
"""Converted images, by the digest of their source. Several callers at once make an image once; one
that is killed leaves nothing that a later one would take for an image."""

import fcntl
import hashlib
import json
import os
import stat
import time

from . import common, squash
from .common import ToolError

SCRATCH_PREFIX = ".making-"
MEMO_SETTLED_S = 2  # a file that changed within the clock's coarse tick may change again unseen


def cache_directory():
    """$BVMM_CACHE, else bvmm/ in the user's cache directory."""
    chosen = os.environ.get("BVMM_CACHE")
    if not chosen:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        chosen = os.path.join(base, "bvmm")
    if not os.path.isabs(chosen):
        raise ToolError(f"cache directory {chosen!r}: expected an absolute path: set BVMM_CACHE")
    return chosen


def images_directory():
    base = cache_directory()
    common.own_private_directory(base)
    images = os.path.join(base, "images")
    common.own_private_directory(images)
    return images


def lock_file(path):
    """An exclusive lock that ends with its holder. The file stays: removing it would let two
    callers hold locks on two files of one name."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd


def usable(path):
    """Whether the cache has this image, whole, and made as we make it today."""
    try:
        with open(path + ".json", "rb") as file:
            beside = json.loads(file.read())
        return (beside["format"] == squash.FORMAT
                and beside["squashfs"]["bytes"] == os.stat(path).st_size)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def cached(digest, make):
    """The path of the image for digest; make(path) makes it where it is not there."""
    images = images_directory()
    path = os.path.join(images, digest + ".squashfs")
    common.sweep_scratch(images, SCRATCH_PREFIX)  # of callers killed after they had published
    if usable(path):
        touch(path)
        return path
    fd = lock_file(os.path.join(images, f".{digest}.lock"))
    try:
        if usable(path):  # another caller made it while we waited
            return path
        make(path)
        return path
    finally:
        os.close(fd)


def touch(path):
    """Note the use, for prune."""
    try:
        os.utime(path)
    except OSError:
        pass


def file_identity(real, info):
    return [real, info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]


def file_digest(path):
    """The SHA-256 of a file; remembered, because images are large and asked for often."""
    real = os.path.realpath(path)
    info = os.stat(real)
    identity = file_identity(real, info)
    memo_directory = os.path.join(images_directory(), ".digests")
    common.own_private_directory(memo_directory)
    memo = os.path.join(memo_directory, hashlib.sha256(os.fsencode(real)).hexdigest())
    try:
        with open(memo, "rb") as file:
            remembered = json.loads(file.read())
        if remembered["identity"] == identity:
            return remembered["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    digest = squash.sha256_file(real)
    if file_identity(real, os.stat(real)) != identity:
        raise ToolError(f"{path}: changed while it was read: try again when it is finished")
    if time.time() - info.st_ctime > MEMO_SETTLED_S:
        common.write_file_atomically(
            memo, common.json_bytes({"identity": identity, "sha256": digest}))
    return digest


def tree_digest(root):
    """The digest of a directory: everything that reaches the image made from it."""
    digest = hashlib.sha256(f"directory {squash.source_date_epoch()} {os.geteuid()}\0".encode())
    root_bytes = os.fsencode(root)
    links = {}  # the first path of an inode: hard links are part of the image
    for path, info in squash.walk(root):
        kind = stat.S_IFMT(info.st_mode)
        relative = os.path.relpath(path, root_bytes)
        extra = ""
        if stat.S_ISREG(info.st_mode):
            first = links.setdefault((info.st_dev, info.st_ino), relative)
            extra = squash.sha256_file(path) if first == relative else "link " + first.hex()
        elif stat.S_ISLNK(info.st_mode):
            extra = os.readlink(path).hex()
        elif kind in (stat.S_IFBLK, stat.S_IFCHR):
            extra = str(info.st_rdev)
        attributes = [(name, os.getxattr(path, name, follow_symlinks=False).hex())
                      for name in sorted(os.listxattr(path, follow_symlinks=False))]
        digest.update(json.dumps([relative.hex(), info.st_mode, info.st_uid, info.st_gid, extra,
                                  attributes]).encode() + b"\0")
    return digest.hexdigest()


def prune(older_than_days):
    """Remove images that nobody asked for in this many days, and what dead callers left."""
    images = images_directory()
    common.sweep_scratch(images, SCRATCH_PREFIX)
    removed = removed_bytes = 0
    limit_s = time.time() - older_than_days * 86400
    for name in sorted(os.listdir(images)):
        if not name.endswith(".squashfs"):
            continue
        path = os.path.join(images, name)
        info = os.stat(path)
        if max(info.st_mtime, info.st_atime) > limit_s:
            continue
        os.unlink(path)  # a run that has it open keeps it
        removed += 1
        removed_bytes += info.st_size
        try:
            os.unlink(path + ".json")
        except FileNotFoundError:
            pass
    return removed, removed_bytes
