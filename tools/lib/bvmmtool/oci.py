# SPDX-License-Identifier: MIT OR Apache-2.0
"""Container images: find out what a source is, bring it into one plain form with skopeo, have it
checked, and have umoci unpack it."""

import hashlib
import json
import os
import platform
import re
import resource
import stat
import subprocess
import sys

from . import common, squash
from .common import ToolError

OCI_ARCH = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64",
            "ppc64le": "ppc64le", "s390x": "s390x", "i686": "386"}
COMPRESSIONS = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"\xfd7zXZ\x00", "xz"),
                (b"BZh", "bzip2"))
SQUASHFS_MAGIC = b"hsqs"
MANIFEST_MAX_BYTES = 4 << 20  # what registries allow
SCAN_MEMORY_BYTES = 2 << 30
SCAN_CPU_SECONDS = 1800


def host_arch():
    return OCI_ARCH.get(platform.machine(), platform.machine())


class Source:
    """What the user named: kind is directory, oci, oci-archive, docker-save or squashfs."""

    def __init__(self, kind, path, reference=None):
        self.kind = kind
        self.path = path
        self.reference = reference


def split_reference(text):
    """PATH or PATH:REFERENCE. A path that exists as it stands has no reference."""
    if os.path.lexists(text):
        return text, None
    path, colon, reference = text.partition(":")
    while colon and not os.path.exists(path):
        more, colon, rest = reference.partition(":")
        path, reference = f"{path}:{more}", rest
    if not colon:
        raise ToolError(f"{text}: no such file or directory")
    if not reference:
        raise ToolError(f"{text}: nothing after the colon: expected a tag")
    return path, reference


def detect(text, kind=None):
    """Tell what a source is from its content; kind only says which kinds are acceptable."""
    path, reference = split_reference(text)
    if os.path.isdir(path):
        found = "oci" if os.path.exists(os.path.join(path, "oci-layout")) else "directory"
    else:
        found = detect_file(path)
    if kind is not None and found not in kind:
        raise ToolError(f"{path}: this is {describe(found)}, expected "
                        + " or ".join(describe(k) for k in kind))
    if reference is not None and found in ("directory", "squashfs"):
        raise ToolError(f"{text}: {describe(found)} has no tags: leave out :{reference}")
    return Source(found, path, reference)


def describe(kind):
    return {"directory": "a plain directory", "oci": "an OCI layout (a directory with oci-layout)",
            "oci-archive": "a tar of an OCI layout", "docker-save": "a docker save file",
            "squashfs": "a squashfs image"}[kind]


def detect_file(path):
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise ToolError(f"{path}: {(error.strerror or str(error)).lower()}") from None
    if not stat.S_ISREG(mode):
        raise ToolError(f"{path}: is {common.kind_of_file(mode)}: expected a squashfs image, or a "
                        "source to make one of")
    with open(path, "rb") as file:
        head = file.read(512)
    if head[:4] == SQUASHFS_MAGIC:
        return "squashfs"
    names = archive_names(path)
    if "manifest.json" in names:
        return "docker-save"  # also what docker 25 and later write, which is an OCI layout as well
    if "oci-layout" in names:
        return "oci-archive"
    raise ToolError(f"{path}: not an image: expected a squashfs file, a docker save file, or a tar "
                    "of an OCI layout (manifest.json or oci-layout in it)")


def compression_of(path):
    with open(path, "rb") as file:
        head = file.read(6)
    for magic, name in COMPRESSIONS:
        if head.startswith(magic):
            return name
    return None


def archive_names(path):
    """The names at the top of a tar, compressed or not."""
    names = set()
    compression = compression_of(path)
    decompressor = None
    if compression:
        decompressor = subprocess.Popen(
            common.child_argv([compression, "-dc", "--", path]), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    import tarfile
    try:
        if decompressor:
            archive = tarfile.open(fileobj=decompressor.stdout, mode="r|")
        else:
            archive = tarfile.open(path, "r:")
        with archive:
            for entry in archive:
                if entry.size < 0:
                    break
                names.add(entry.name.removeprefix("./"))
                archive.members = []
                if "manifest.json" in names:
                    break
    except (tarfile.TarError, EOFError, ValueError, OverflowError):
        pass  # what was read so far decides; skopeo reports what is broken
    finally:
        if decompressor:
            decompressor.stdout.close()
            decompressor.kill()
            decompressor.wait()
    return names


# ---- the plain form: an OCI layout of one image with uncompressed layers ------------------------

class PlainImage:
    """An OCI layout of one image, tagged "image", its layers uncompressed: ready for umoci."""

    def __init__(self, layout, config, config_digest, layers):
        self.layout = layout
        self.config = config
        self.config_digest = config_digest
        self.layers = layers  # (media type, path of the blob)


def read_blob_json(layout, digest, what):
    """A small blob, checked against its digest: the cache goes by it."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest or ""):
        raise ToolError(f"{layout}: {what}: digest {digest!r}: expected sha256: and 64 hex digits")
    path = os.path.join(layout, "blobs", "sha256", digest[7:])
    try:
        with open(path, "rb") as file:
            data = file.read(MANIFEST_MAX_BYTES + 1)
    except OSError as error:
        raise ToolError(f"{path}: {what} cannot be read: {error.strerror}") from None
    if len(data) > MANIFEST_MAX_BYTES:
        raise ToolError(f"{path}: {what} is larger than {MANIFEST_MAX_BYTES} bytes")
    if hashlib.sha256(data).hexdigest() != digest[7:]:
        raise ToolError(f"{path}: {what} does not have the digest that it is named by: "
                        "the layout is damaged, make it again")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{path}: {what} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ToolError(f"{path}: {what} is not a JSON object")
    return value


def choose_manifest(layout, reference):
    """The descriptor in index.json that a tag names, or the only one."""
    index_path = os.path.join(layout, "index.json")
    index = common.read_json(index_path, "the index of the OCI layout")
    manifests = index.get("manifests") if isinstance(index, dict) else None
    if not isinstance(manifests, list) or not all(isinstance(m, dict) for m in manifests):
        raise ToolError(f"{index_path}: .manifests: expected a list of objects")

    def tag(manifest):
        annotations = manifest.get("annotations")
        return annotations.get("org.opencontainers.image.ref.name") \
            if isinstance(annotations, dict) else None

    tags = [str(tag(m)) for m in manifests if tag(m) is not None]
    found = manifests if reference is None else [m for m in manifests if tag(m) == reference]
    if len(found) == 1:
        return found[0]
    have = f"it has the tags {', '.join(sorted(tags))}" if tags else "it has no tags"
    if not found:
        wanted = f"no image tagged {reference}" if reference else "no image"
        raise ToolError(f"{index_path}: {wanted}: {have}")
    wanted = f"tagged {reference}: tags must be unique" if reference \
        else f": name one as {layout}:TAG: {have}"
    raise ToolError(f"{index_path}: {len(found)} images {wanted}")


def source_digest(source, arch, file_digest):
    """The digest by which the cache knows a container image: its own, and what else shows in the
    bytes that we make of it."""
    epoch = squash.source_date_epoch()
    if source.kind == "oci":
        digest = choose_manifest(source.path, source.reference).get("digest")
        read_blob_json(source.path, digest, "the manifest")
        key = f"oci {digest} {arch} {epoch}"
    else:
        key = f"archive sha256:{file_digest(source.path)} {source.reference or ''} {arch} {epoch}"
    return hashlib.sha256(key.encode()).hexdigest()


def skopeo_source(source, scratch, limit_bytes, progress):
    """What skopeo is to read. Through a link, as its syntax has no way to write a colon."""
    link = scratch.file("source")
    path = os.path.realpath(source.path)
    compression = None if source.kind == "oci" else compression_of(path)
    if compression:
        progress.step(f"decompressing {os.path.basename(path)}")
        with open(link, "wb") as out:
            common.run_child([compression, "-dc", "--", path], stdout=out,
                             doing=f"{source.path}: decompressing", max_file_bytes=limit_bytes)
    else:
        os.symlink(path, link)
    transport = {"oci": "oci", "oci-archive": "oci-archive", "docker-save": "docker-archive"}
    reference = f":{source.reference}" if source.reference else ""
    return f"{transport[source.kind]}:{link}{reference}"


def make_plain(source, scratch, arch, limit_bytes, progress):
    """Copy the image, with uncompressed layers, into an OCI layout of our own. skopeo checks every
    digest on the way."""
    if source.kind == "oci":  # clearer than skopeo's own message
        choose_manifest(source.path, source.reference)
    origin = skopeo_source(source, scratch, limit_bytes, progress)
    layout = scratch.file("layout")
    progress.step(f"reading {source.path}")
    common.run_child(
        ["skopeo", "--insecure-policy", "--tmpdir", scratch.path, "--override-os", "linux",
         "--override-arch", arch, "copy", "--quiet", "--dest-decompress", origin, f"dir:{layout}"],
        doing=f"{source.path}: reading the image", max_file_bytes=limit_bytes)
    try:
        image = make_layout(layout, source.path)
    except (KeyError, TypeError, AttributeError):
        raise ToolError(f"{source.path}: the image's manifest is of a kind that is not supported: "
                        "expected an OCI image manifest or docker's version 2, schema 2") from None
    image_arch = image.config.get("architecture")
    if image_arch != arch:
        raise ToolError(f"{source.path}: the image is for {image_arch}, expected {arch}: choose "
                        f"another image, or convert it as it is with --arch {image_arch}")
    return image


def make_layout(layout, name):
    """Turn skopeo's dir: form into an OCI layout: the blobs are moved, and the manifest is written
    anew, because the one that skopeo leaves may call a layer gzip that is not (1.9 does so for
    docker save files), which umoci takes at its word."""
    manifest = common.read_json(os.path.join(layout, "manifest.json"), "the manifest")
    blobs = os.path.join(layout, "blobs", "sha256")
    os.makedirs(blobs)
    layers = []
    descriptors = []
    for digest in [layer["digest"] for layer in manifest["layers"]]:
        path = move_blob(layout, blobs, digest)
        if compression_of(path) not in (None, "gzip"):
            raise ToolError(f"{name}: layer {digest}: compressed in a way that skopeo and umoci "
                            "cannot read")
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compression_of(path) else "")
        layers.append((kind, path))
        descriptors.append(descriptor(kind, digest, path))
    config_digest = manifest["config"]["digest"]
    config_path = move_blob(layout, blobs, config_digest)
    config = read_blob_json(layout, config_digest, "the image's configuration")
    plain = {"schemaVersion": 2, "layers": descriptors,
             "mediaType": "application/vnd.oci.image.manifest.v1+json",
             "config": descriptor("application/vnd.oci.image.config.v1+json", config_digest,
                                  config_path)}
    data = common.json_bytes(plain)
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    path = os.path.join(blobs, digest[7:])
    files = {path: data, os.path.join(layout, "oci-layout"):
             common.json_bytes({"imageLayoutVersion": "1.0.0"})}
    for where, content in files.items():
        with open(where, "wb") as file:
            file.write(content)
    entry = descriptor("application/vnd.oci.image.manifest.v1+json", digest, path)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "image"}
    with open(os.path.join(layout, "index.json"), "wb") as file:
        file.write(common.json_bytes({"schemaVersion": 2, "manifests": [entry]}))
    return PlainImage(layout, config, config_digest, layers)


def descriptor(kind, digest, path):
    return {"mediaType": kind, "digest": digest, "size": os.path.getsize(path)}


def move_blob(layout, blobs, digest):
    """From layout/<hex> to blobs/<hex>; a layer may stand in an image more than once."""
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise ToolError(f"digest {digest!r}: expected sha256: and 64 hex digits")
    target = os.path.join(blobs, digest[7:])
    if not os.path.exists(target):
        os.rename(os.path.join(layout, digest[7:]), target)
    return target


def scan(image, source, limit_bytes, progress):
    """Have the layers' headers read by a process of limited memory; refuse hostile ones."""
    progress.step(f"checking {len(image.layers)} layers")

    def limits():
        resource.setrlimit(resource.RLIMIT_AS, (SCAN_MEMORY_BYTES, SCAN_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (SCAN_CPU_SECONDS, SCAN_CPU_SECONDS))

    scanner = os.path.join(os.path.dirname(os.path.abspath(__file__)), "scan_layers.py")
    pairs = [text for layer in image.layers for text in layer]
    argv = common.child_argv(["setpriv", "--pdeathsig", "KILL", "--", sys.executable, "-IB",
                              scanner, str(limit_bytes)] + pairs)
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, preexec_fn=limits) as process:
        try:
            output, said = process.communicate()
        except BaseException:
            process.kill()
            raise
    if process.returncode == 2:
        raise ToolError(f"{source.path}: refused: {said.decode('utf-8', 'replace').strip()}")
    if process.returncode != 0:
        tail = said.decode("utf-8", "replace").strip().splitlines()[-common.CHILD_MESSAGE_LINES:]
        raise ToolError(common.child_failure("the layer check", source.path, process.returncode,
                                             tail))
    return json.loads(output)


def unpack(image, source, scratch, limit_bytes, progress):
    """Have umoci apply the layers. The root is two directories deep, so that even a hole in the
    check above reaches nothing but an empty directory of ours."""
    os.mkdir(scratch.file("unpack"), 0o700)
    root = os.path.join(scratch.file("unpack"), "root")
    done = 0

    def on_line(line):
        nonlocal done
        if "unpack layer" in line:
            done += 1
            progress.update(f"unpacking layer {done} of {len(image.layers)}")

    progress.step(f"unpacking {len(image.layers)} layers")
    rootless = [] if os.geteuid() == 0 else ["--rootless"]
    common.run_child(
        ["umoci", "--log", "info", "raw", "unpack", *rootless, "--image",
         f"{image.layout}:image", root],
        doing=f"{source.path}: unpacking", on_line=on_line, max_file_bytes=limit_bytes)
    return root


# ---- what the container would run ----------------------------------------------------------------

def run_config(image, source):
    """The part of an image's configuration that says what runs, checked for its types."""
    config = image.config.get("config") or {}
    if not isinstance(config, dict):
        raise ToolError(f"{source.path}: the image's configuration: .config: expected an object")

    def strings(key):
        value = config.get(key) or []
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise ToolError(f"{source.path}: the image's configuration: .config.{key}: "
                            "expected a list of strings")
        return value

    def string(key, default):
        value = config.get(key) or default
        if not isinstance(value, str):
            raise ToolError(f"{source.path}: the image's configuration: .config.{key}: "
                            "expected a string")
        return value

    return {
        "entrypoint": strings("Entrypoint"),
        "cmd": strings("Cmd"),
        "env": strings("Env"),
        "workdir": string("WorkingDir", "/"),
        "user": string("User", ""),
    }
