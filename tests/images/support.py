# SPDX-License-Identifier: MIT OR Apache-2.0
"""Images made from local content with skopeo and umoci, and what all the tests share."""

import gzip
import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
TOOLS = os.path.join(TOP, "tools")
BVMM_IMAGE = os.path.join(TOOLS, "bvmm-image")
BVMM_RUN = os.path.join(TOOLS, "bvmm-run")
RUNNER = os.path.join(TOP, "examples", "runner", "bvmm-runner")
FILE, LINK, SYMLINK = tarfile.REGTYPE, tarfile.LNKTYPE, tarfile.SYMTYPE
DIRECTORY, CHARDEV, BLOCKDEV = tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE
OLD_TIME_S = 1_600_000_000
SEED = int(os.environ.get("BVMM_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
NOBODY = 65534
PATIENCE_S = 120  # what has not happened by then never does, on a machine however loaded

sys.path.insert(0, os.path.join(TOOLS, "lib"))


class Entry:
    """One entry of a layer, whatever it says."""

    def __init__(self, name, kind=FILE, data=b"", link="", mode=0o644, uid=0, gid=0,
                 mtime=OLD_TIME_S, device=(0, 0), pax=None):
        self.info = tarfile.TarInfo(name)
        self.info.type = kind
        self.info.linkname = link
        self.info.mode = mode
        self.info.uid, self.info.gid = uid, gid
        self.info.mtime = mtime
        self.info.devmajor, self.info.devminor = device
        self.info.size = len(data)
        self.info.pax_headers = pax or {}
        self.data = data


def directory(name, mode=0o755):
    return Entry(name, DIRECTORY, mode=mode)


def layer_bytes(entries):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            tar.addfile(entry.info, io.BytesIO(entry.data))
    return out.getvalue()


def run(*argv, **options):
    """A program that must succeed; its output is in the failure's text."""
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, **options)
    if done.returncode != 0:
        raise AssertionError(f"{argv}: exit status {done.returncode}: {done.stdout.decode()}")
    return done.stdout


class ImageTest(unittest.TestCase):
    maxDiff = 4000
    """A test with a directory of its own, and a work directory that must be empty afterwards."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="bvmm-test-")
        self.addCleanup(subprocess.run, ["rm", "-rf", "--", self.dir])
        self.work = self.path("work")
        os.mkdir(self.work)
        self.env = dict(os.environ, TMPDIR=self.work, BVMM_CACHE=self.path("cache"))
        self.env.pop("SOURCE_DATE_EPOCH", None)

    def path(self, *parts):
        return os.path.join(self.dir, *parts)

    # ---- making sources --------------------------------------------------------------------------

    def oci(self, layers, name="image", tag="t", config=()):
        """An OCI layout with these layers, byte for byte as given."""
        layout = self.path(name)
        run("umoci", "init", "--layout", layout)
        run("umoci", "new", "--image", f"{layout}:{tag}")
        for number, layer in enumerate(layers):
            tar = self.path(f"{name}-{number}.tar")
            with open(tar, "wb") as file:
                file.write(layer if isinstance(layer, bytes) else layer_bytes(layer))
            run("umoci", "raw", "add-layer", "--image", f"{layout}:{tag}", tar)
        run("umoci", "config", "--image", f"{layout}:{tag}", "--created", "2020-01-01T00:00:00Z",
            *config)
        return layout

    def docker_save(self, layout, name="image.tar", tag="t"):
        path = self.path(name)
        run("skopeo", "--insecure-policy", "copy", "-q", f"oci:{layout}:{tag}",
            f"docker-archive:{path}:local/{os.path.basename(layout)}:{tag}")
        return path

    def zstd_oci(self, layout, name="zstd", tag="t"):
        path = self.path(name)
        archive = self.docker_save(layout, name + "-source.tar", tag)
        run("skopeo", "--insecure-policy", "copy", "-q", "--dest-compress-format", "zstd",
            f"docker-archive:{archive}", f"oci:{path}:{tag}")
        return path

    def blob(self, layout, digest):
        return os.path.join(layout, "blobs", "sha256", digest.removeprefix("sha256:"))

    def manifest(self, layout):
        index = load(os.path.join(layout, "index.json"))
        return load(self.blob(layout, index["manifests"][0]["digest"]))

    def replace_blob(self, layout, digest, data):
        """Other bytes under a new digest; returns the new descriptor's fields."""
        import hashlib
        new = "sha256:" + hashlib.sha256(data).hexdigest()
        with open(self.blob(layout, new), "wb") as file:
            file.write(data)
        return {"digest": new, "size": len(data)}

    def rewrite(self, layout, change_manifest=lambda m: None, change_config=lambda c: None):
        """Change a layout's manifest and configuration, with all digests right again."""
        manifest = self.manifest(layout)
        config = load(self.blob(layout, manifest["config"]["digest"]))
        change_config(config)
        manifest["config"].update(self.replace_blob(layout, None, json.dumps(config).encode()))
        change_manifest(manifest)
        index = load(os.path.join(layout, "index.json"))
        index["manifests"][0].update(self.replace_blob(layout, None, json.dumps(manifest).encode()))
        with open(os.path.join(layout, "index.json"), "w", encoding="utf-8") as file:
            json.dump(index, file)

    # ---- running the tool ------------------------------------------------------------------------

    def tool(self, *argv, program=BVMM_IMAGE, env=None, user=None, **options):
        argv = [program, *argv]
        if user is not None:
            argv = ["setpriv", "--reuid", str(user), "--regid", str(user), "--clear-groups",
                    "--"] + argv
        return subprocess.run(argv, env=env or self.env, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, **options)

    def make(self, source, *more, out="out.squashfs", **options):
        """Convert; must succeed and leave nothing but the image and its JSON."""
        output = self.path(out)
        before = set(os.listdir(os.path.dirname(output)))
        done = self.tool(source, output, *more, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(os.listdir(self.work), [])
        new = set(os.listdir(os.path.dirname(output))) - before
        self.assertLessEqual(new, {os.path.basename(output), os.path.basename(output) + ".json"})
        self.assertNotIn(b"Traceback", done.stderr)
        self.said = done.stderr.decode()
        return output

    def refused(self, source, *words, argv=()):
        """Must be refused with these words in the message, and leave nothing at all."""
        output = self.path("refused.squashfs")
        before = set(os.listdir(self.dir))
        done = self.tool(source, output, *argv)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, 1, text)
        self.assertNotIn("Traceback", text)
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(set(os.listdir(self.dir)), before)
        self.assertEqual(os.listdir(self.work), [])
        return text

    # ---- looking at images -----------------------------------------------------------------------

    def unsquash(self, image):
        """The tree in an image, made by squashfs-tools."""
        target = tempfile.mkdtemp(dir=self.dir)
        os.rmdir(target)
        run("unsquashfs", "-no-progress", "-quiet", "-dest", target, image)
        return target

    def listing(self, image):
        """path -> (mode, owner, ...) as unsquashfs lists it, numeric, in UTC."""
        text = run("unsquashfs", "-lln", image, env=dict(os.environ, TZ="UTC", LC_ALL="C")).decode()
        rows = {}
        for line in text.splitlines():
            line = re.sub(r"^(\S+ \S+ +\d+),  *", r"\1,", line)  # device numbers: one field
            fields = line.split(None, 5)
            if len(fields) == 6 and fields[5].startswith("squashfs-root"):
                name = fields[5].removeprefix("squashfs-root").partition(" -> ")[0]
                rows[name or "/"] = (fields[0], fields[1], fields[3] + " " + fields[4])
        return rows

    def read_inside(self, image, path):
        return run("unsquashfs", "-cat", image, path)


def load(path):
    with open(path, "rb") as file:
        return json.load(file)


def data_of(path):
    with open(path, "rb") as file:
        return file.read()


def sha(path):
    """For comparing: a digest reads better in a failure than the bytes do."""
    import hashlib
    return hashlib.sha256(data_of(path)).hexdigest()


def gzip_bytes(data):
    return gzip.compress(data, mtime=0)


def have(*programs):
    return [p for p in programs if shutil.which(p) is None]
