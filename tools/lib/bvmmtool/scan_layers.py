# SPDX-License-Identifier: MIT OR Apache-2.0
"""Read the tar headers of an image's layers, before umoci unpacks them, and refuse what no honest
image has: entries that point outside of the image, and sizes that cannot be.

This does not unpack anything, and it is not the only defence: umoci resolves every path inside
the root. But umoci bends a path such as ../../etc/passwd to /etc/passwd without a word, and a
whiteout named ".wh..." makes it delete the directory above the root (seen with 0.4.7), so such an
image is refused as a whole.

Runs as a process of its own (main() below), with limited memory: a header may claim anything.
Arguments: limit of bytes, then (media type, blob) pairs. Output: JSON.
"""

import json
import sys
import tarfile
import time

WHITEOUT = ".wh."
OPAQUE = ".wh..wh..opq"
ENTRIES_MAX = 5_000_000


class Hostile(Exception):
    """The layer is refused; the text says why."""


def depth_never_negative(path):
    """Whether a path, taken as relative to the root, stays at or below the root throughout."""
    depth = 0
    for part in path.split("/"):
        if part == "..":
            depth -= 1
            if depth < 0:
                return False
        elif part not in ("", "."):
            depth += 1
    return True


def check_entry(entry):
    """Refuse one tar entry, or return None. Names only: what is written is umoci's business."""
    name = entry.name
    if entry.size < 0:
        raise Hostile(f"entry {name!r} has a negative size")
    if "\0" in name or "\0" in entry.linkname:
        raise Hostile(f"entry {name!r} has a NUL byte in its name")
    if not depth_never_negative(name):
        raise Hostile(f"entry {name!r} points outside of the image")
    if entry.islnk() and not depth_never_negative(entry.linkname):
        raise Hostile(f"hard link {name!r} points outside of the image, to {entry.linkname!r}")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts and not entry.isdir():
        raise Hostile("the root of the image is something other than a directory")
    last = parts[-1] if parts else ""
    if last.startswith(WHITEOUT) and last != OPAQUE:
        if last[len(WHITEOUT):] in ("", ".", ".."):
            raise Hostile(f"whiteout {name!r} would delete a directory outside of its own")


def loses_owner(entry):
    """Whether umoci --rootless cannot record the owner: its attribute needs a writable file."""
    if entry.islnk() or (entry.uid, entry.gid) == (0, 0):
        return False
    return entry.issym() or not entry.mode & 0o200


def normal_path(name):
    parts = []
    for part in name.split("/"):
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/".join(parts)


def open_layer(blob, media_type):
    if media_type.endswith("gzip"):
        return tarfile.open(blob, "r|gz", encoding="utf-8", errors="surrogateescape")
    return tarfile.open(blob, "r:", encoding="utf-8", errors="surrogateescape")


def scan(layers, limit_bytes):
    """Check all layers. Returns what the rest of the tool wants to know about them."""
    total_bytes = 0
    entries = 0
    now = int(time.time())
    future_times = set()  # times that the image itself says, not those of our unpacking
    devices = {}
    owners = {}
    for number, (media_type, blob) in enumerate(layers, 1):
        try:
            with open_layer(blob, media_type) as layer:
                for entry in layer:
                    check_entry(entry)
                    entries += 1
                    total_bytes += entry.size if entry.isreg() else 0
                    if total_bytes > limit_bytes:
                        raise Hostile(f"the layers hold more than {limit_bytes} bytes, the limit")
                    if entries > ENTRIES_MAX:
                        raise Hostile(f"more than {ENTRIES_MAX} entries")
                    if entry.mtime >= now:
                        future_times.add(int(entry.mtime))
                    path = normal_path(entry.name)
                    if entry.ischr() or entry.isblk():
                        devices[path] = True
                    else:
                        devices.pop(path, None)
                    if loses_owner(entry):
                        owners[path] = [entry.uid, entry.gid]
                    else:
                        owners.pop(path, None)
                    layer.members = []  # tarfile remembers every entry otherwise
        except (tarfile.TarError, EOFError, OSError, ValueError, OverflowError) as error:
            raise Hostile(f"layer {number} is not a readable tar: {error}") from None
        except MemoryError:
            raise Hostile(f"layer {number} has a header too large to read") from None
        except Hostile as error:
            raise Hostile(f"layer {number}: {error}") from None
    return {
        "entries": entries,
        "total_bytes": total_bytes,
        "future_times": sorted(future_times),
        "devices": sorted(devices),
        "owners": owners,
    }


def main():
    pairs = sys.argv[2:]
    layers = list(zip(pairs[0::2], pairs[1::2]))
    try:
        result = scan(layers, int(sys.argv[1]))
    except Hostile as error:
        print(error.args[0].encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
        return 2
    json.dump(result, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
