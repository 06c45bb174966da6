# SPDX-License-Identifier: MIT OR Apache-2.0
"""bvmm-image and images that want more than to be converted: nothing outside of the image is read
or written, and what is broken is refused with a message that says what and where."""

import gzip
import json
import os
import subprocess
import unittest

from support import (CHARDEV, DIRECTORY, FILE, LINK, SYMLINK, Entry, ImageTest, data_of, directory,
                     layer_bytes, load, run)


class HostileTest(ImageTest):
    def setUp(self):
        super().setUp()
        self.outside = self.path("outside")
        os.mkdir(self.outside)
        with open(self.outside + "/canary", "w", encoding="utf-8") as file:
            file.write("alive")
        self.addCleanup(self.check_canary)

    def check_canary(self):
        """Registered after the removal of the directory, so it runs before."""
        self.assertEqual(sorted(os.listdir(self.outside)), ["canary"])
        self.assertEqual(data_of(self.outside + "/canary"), b"alive")
        self.assertEqual(os.stat(self.outside + "/canary").st_nlink, 1)


class Paths(HostileTest):
    def refuse_layer(self, entries, *words):
        layout = self.oci([[directory("./"), Entry("fine", data=b"x")], entries])
        text = self.refused(layout, "refused: layer 2", *words)
        run("rm", "-rf", layout)
        return text

    def test_dot_dot(self):
        for name in ("../escape", "a/../../escape", "./../escape", "/../escape", "a/b/../../../e",
                     "..", "../../../../../../etc/bvmm-test-escape"):
            with self.subTest(name):
                self.refuse_layer([Entry(name, data=b"x")], "points outside")
        self.assertFalse(os.path.exists("/etc/bvmm-test-escape"))

    def test_dot_dot_of_every_kind(self):
        for kind in (DIRECTORY, SYMLINK, CHARDEV, LINK):
            with self.subTest(kind):
                self.refuse_layer([Entry("../x", kind, link="fine", device=(1, 3))],
                                  "points outside")

    def test_dot_dot_that_stays_inside_is_no_crime(self):
        image = self.make(self.oci([[directory("a"), Entry("a/../b", data=b"inside")]]))
        self.assertEqual(self.read_inside(image, "b"), b"inside")

    def test_dot_dot_in_a_long_name(self):
        """Pax headers carry the name that counts."""
        name = "x/" * 60 + "../" * 61 + "escape"
        self.refuse_layer([Entry(name, data=b"x")], "points outside")

    def test_hard_links_to_the_outside(self):
        for target in ("../../canary", "a/../../../canary", "../outside/canary"):
            with self.subTest(target):
                self.refuse_layer([Entry("h", LINK, link=target)], "hard link", "points outside")

    def test_absolute_names_are_below_the_root(self):
        image = self.make(self.oci([[Entry("/etc/bvmm-test-abs", data=b"in")]]))
        self.assertEqual(self.read_inside(image, "etc/bvmm-test-abs"), b"in")
        self.assertFalse(os.path.exists("/etc/bvmm-test-abs"))

    def test_hard_link_through_a_link_to_the_outside(self):
        for link in (self.outside, "../" * 12 + self.outside[1:]):
            layout = self.oci([[Entry("l", SYMLINK, link=link),
                                Entry("h", LINK, link="l/canary")]])
            self.refused(layout, "unpacking failed")
            run("rm", "-rf", layout)

    def test_writing_through_links_to_the_outside(self):
        for number, link in enumerate((self.outside, "../" * 12 + self.outside[1:], "/")):
            with self.subTest(link):
                layout = self.oci([
                    [Entry("l", SYMLINK, link=link)],
                    [Entry("l/new", data=b"inside"), Entry("l/canary", data=b"dead")],
                    [Entry("l/.wh.canary"), Entry("l/.wh..wh..opq")]], name=f"i{number}")
                rows = self.listing(self.make(layout))
                if link != "/":  # there the opaque whiteout rightly takes the link itself away
                    self.assertEqual(rows["/l"][0][0], "l")

    def test_changing_the_mode_and_time_through_a_link(self):
        before = os.stat(self.outside)
        layout = self.oci([[Entry("l", SYMLINK, link=self.outside)],
                           [Entry("l/.", DIRECTORY, mode=0o7777, mtime=5)]])
        self.tool(layout, self.path("o"))
        after = os.stat(self.outside)
        self.assertEqual((before.st_mode, before.st_mtime_ns), (after.st_mode, after.st_mtime_ns))

    def test_whiteouts_that_reach_up(self):
        """umoci 0.4.7 deletes the directory above the root for the first of these."""
        for name in (".wh...", ".wh..", ".wh.", "a/.wh...", "a/.wh..", "./.wh..."):
            with self.subTest(name):
                self.refuse_layer([directory("a"), Entry(name)], "whiteout")

    def test_the_root_as_something_else(self):
        for kind, link in ((SYMLINK, self.outside), (FILE, ""), (LINK, "fine")):
            with self.subTest(kind):
                self.refuse_layer([Entry(".", kind, link=link)], "root of the image")

    def test_links_where_our_own_file_goes(self):
        """/etc/bvmm/image.json must not be written, or read, through links of the image's."""
        for number, entries in enumerate((
                [Entry("etc", SYMLINK, link=self.outside)],
                [directory("etc"), Entry("etc/bvmm", SYMLINK, link=self.outside)],
                [Entry("etc", data=b"a file")])):
            layout = self.oci([entries], name=f"i{number}")
            image = self.make(layout)
            self.assertIn("only beside it", self.said)
            self.assertEqual(load(image + ".json")["cmd"], [])
        secret = self.outside + "/canary"
        layout = self.oci([[directory("etc"), directory("etc/bvmm"),
                            Entry("etc/bvmm/image.json", SYMLINK, link=secret)]], name="deep",
                          config=("--config.cmd", "ours"))
        image = self.make(layout)
        inside = json.loads(self.read_inside(image, "etc/bvmm/image.json"))
        self.assertEqual(inside["cmd"], ["ours"])

    def test_a_directory_where_our_own_file_goes(self):
        layout = self.oci([[directory("etc"), directory("etc/bvmm"),
                            directory("etc/bvmm/image.json"), Entry("etc/bvmm/image.json/x")]])
        image = self.make(layout)
        self.assertEqual(json.loads(self.read_inside(image, "etc/bvmm/image.json"))["cmd"], [])

    def test_odd_names(self):
        names = ["-rf", "--help", "$(touch x)", "`touch x`", "a;b", "a'b", 'a"b', "\\", "*", " ",
                 "a\tb", "\x7f\x01", "\u202egnp.exe", "x" * 255]
        image = self.make(self.oci([[Entry(name, data=name.encode()) for name in names]]))
        tree = self.unsquash(image)
        self.assertEqual(sorted(set(os.listdir(tree)) - {"etc"}), sorted(names))


class Bombs(HostileTest):
    def test_more_than_the_limit(self):
        layer = gzip.compress(layer_bytes([Entry("zeros", data=bytes(32 << 20))]))
        layout = self.oci([[Entry("x")]])
        self.add_gzip_layer(layout, layer)
        self.refused(layout, argv=("--max-bytes", str(8 << 20)))
        image = self.make(layout, "--max-bytes", str(64 << 20))
        self.assertLess(os.path.getsize(image), 1 << 20)

    def add_gzip_layer(self, layout, data):
        import hashlib
        entry = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                 **self.replace_blob(layout, None, data)}
        diff = "sha256:" + hashlib.sha256(gzip.decompress(data)).hexdigest()
        self.rewrite(layout, lambda m: m["layers"].append(entry),
                     lambda c: c["rootfs"]["diff_ids"].append(diff))

    def test_a_sparse_file_that_claims_to_be_huge(self):
        raw = bytearray(layer_bytes([Entry("huge")]))
        raw[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
        raw[148:156] = b"        "
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        self.refused(self.oci([bytes(raw)]), "refused: layer 1", "the limit")

    def test_a_negative_size(self):
        raw = bytearray(layer_bytes([Entry("neg"), Entry("next")]))
        raw[124:136] = b"\xff" * 11 + b"\x00"
        raw[148:156] = b"        "
        raw[148:156] = b"%06o\0 " % sum(raw[:512])
        self.refused(self.oci([bytes(raw)]), "layer 1")

    def test_a_header_that_claims_much_memory(self):
        big = layer_bytes([Entry("x", pax={"comment": "A" * (3 << 20)})])
        done = self.tool(self.oci([big]), self.path("o"))
        self.assertNotIn("Traceback", done.stderr.decode())
        self.assertEqual(os.listdir(self.work), [])


class Broken(HostileTest):
    def test_a_truncated_layer(self):
        layout = self.oci([[Entry(f"f{n}", data=os.urandom(3000)) for n in range(20)]])
        path = self.blob(layout, self.manifest(layout)["layers"][0]["digest"])
        data = data_of(path)
        for length in (0, 1, 100, len(data) // 2, len(data) - 1):
            with open(path, "wb") as file:
                file.write(data[:length])
            self.refused(layout, "image: reading the image failed")

    def test_a_truncated_layer_with_fitting_digests(self):
        import hashlib
        layout = self.oci([[Entry(f"f{n}", data=os.urandom(3000)) for n in range(20)]])
        tar = layer_bytes([Entry("a", data=bytes(9000)), Entry("b", data=bytes(9000))])[:12000]
        for number, data in enumerate((gzip.compress(tar), gzip.compress(tar)[:-9])):
            entry = {"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                     **self.replace_blob(layout, None, data)}
            diff = "sha256:" + hashlib.sha256(tar).hexdigest()
            self.rewrite(layout, lambda m, e=entry: m.update(layers=[e]),
                         lambda c, d=diff: c["rootfs"].update(diff_ids=[d]))
            with self.subTest(number):
                self.refused(layout, "image:")

    def test_a_layer_that_is_no_tar(self):
        layout = self.oci([b"this is no tar archive at all" * 100])
        self.refused(layout, "layer 1 is not a readable tar")

    def test_a_flipped_bit(self):
        layout = self.oci([[Entry("f", data=os.urandom(3000))]])
        for digest in (self.manifest(layout)["layers"][0]["digest"],
                       self.manifest(layout)["config"]["digest"]):
            path = self.blob(layout, digest)
            data = bytearray(data_of(path))
            data[len(data) // 2] ^= 1
            with open(path, "wb") as file:
                file.write(data)
            self.refused(layout, "image:")
            data[len(data) // 2] ^= 1
            with open(path, "wb") as file:
                file.write(data)
        self.make(layout)

    def test_a_missing_blob(self):
        layout = self.oci([[Entry("f")]])
        os.unlink(self.blob(layout, self.manifest(layout)["layers"][0]["digest"]))
        self.refused(layout, "reading the image failed")

    def test_a_blob_that_is_a_link_to_the_outside(self):
        layout = self.oci([[Entry("f")]])
        path = self.blob(layout, self.manifest(layout)["layers"][0]["digest"])
        os.unlink(path)
        os.symlink(self.outside + "/canary", path)
        self.refused(layout, "reading the image failed")

    def test_another_layer_under_the_digest_of_docker_save(self):
        """The cache and the report go by digests: content that does not fit them is refused."""
        layout = self.oci([[Entry("f", data=b"good")]])
        tree = self.path("tree")
        os.mkdir(tree)
        run("tar", "-C", tree, "-xf", self.docker_save(layout))
        run("chmod", "-R", "u+w", tree)
        name = load(tree + "/manifest.json")[0]["Layers"][0]
        with open(os.path.join(tree, name), "wb") as file:
            file.write(layer_bytes([Entry("f", data=b"evil")]))
        run("sh", "-c", 'tar -C "$1" -cf "$1.tar" $(ls "$1")', "sh", tree)
        self.refused(tree + ".tar", "reading the image failed", "id not match")

    def test_broken_json(self):
        for text in (b"", b"{", b"[]", b"null", b"5", b'{"manifests": 5}', b'{"manifests": [5]}',
                     b'{"manifests": []}', b"\xff\xfe", b"[" * 100000,
                     b'{"manifests": [{"digest": "sha256:../../../etc/passwd"}]}',
                     b'{"manifests": [{}]}'):
            layout = self.oci([[Entry("f")]])
            with open(layout + "/index.json", "wb") as file:
                file.write(text)
            with self.subTest(text[:40]):
                self.refused(layout, "image")
            run("rm", "-rf", layout)

    def test_broken_manifest_and_configuration(self):
        for name in ("manifest", "config"):
            for text in (b"", b"{", b"[]", b'{"config": 5, "layers": 5}', b"[" * 100000):
                layout = self.oci([[Entry("f")]])
                index = load(layout + "/index.json")
                manifest = self.manifest(layout)
                if name == "config":
                    manifest["config"].update(self.replace_blob(layout, None, text))
                    text = json.dumps(manifest).encode()
                index["manifests"][0].update(self.replace_blob(layout, None, text))
                with open(layout + "/index.json", "w", encoding="utf-8") as file:
                    json.dump(index, file)
                with self.subTest(f"{name} {text[:40]}"):
                    self.refused(layout, "image")
                run("rm", "-rf", layout)

    def test_configurations_with_other_types(self):
        for key, value in (("Cmd", "string"), ("Cmd", [1]), ("Env", {"A": "B"}), ("User", 5),
                           ("Entrypoint", [["x"]]), ("WorkingDir", ["/"]),
                           ("WorkingDir", "relative")):
            layout = self.oci([[Entry("f")]])
            self.rewrite(layout, change_config=lambda c, k=key, v=value: c["config"].update({k: v}))
            with self.subTest(f"{key}: {value}"):
                self.refused(layout, "expected" if value != "string" else "image")
            run("rm", "-rf", layout)

    def test_a_config_that_is_no_object(self):
        for value in ([], [1], "x", 5, True):
            layout = self.oci([[Entry("f")]])
            self.rewrite(layout, change_config=lambda c, v=value: c.update(config=v))
            done = self.tool(layout, self.path("o"))
            self.assertNotIn("Traceback", done.stderr.decode())
            self.assertEqual(os.listdir(self.work), [])
            run("rm", "-rf", layout)

    def test_an_old_manifest(self):
        layout = self.oci([[Entry("f")]])
        text = json.dumps({"schemaVersion": 1, "name": "x", "tag": "t", "architecture": "amd64",
                           "fsLayers": [], "history": [], "signatures": []}).encode()
        index = load(layout + "/index.json")
        index["manifests"][0].update(self.replace_blob(layout, None, text))
        index["manifests"][0]["mediaType"] = \
            "application/vnd.docker.distribution.manifest.v1+prettyjws"
        with open(layout + "/index.json", "w", encoding="utf-8") as file:
            json.dump(index, file)
        self.refused(layout, "image")

    def test_a_configuration_without_config(self):
        layout = self.oci([[Entry("f")]])
        self.rewrite(layout, change_config=lambda c: c.pop("config"))
        self.assertEqual(load(self.make(layout) + ".json")["cmd"], [])

    def test_files_that_are_no_images(self):
        for name, data in (("empty", b""), ("text", b"hello\n"), ("zeros", bytes(100000)),
                           ("gzip", gzip.compress(b"hello")), ("half", b"\x1f\x8b\x08"),
                           ("tar", layer_bytes([Entry("manifest.json", data=b"{")])),
                           ("tar2", layer_bytes([Entry("manifest.json", data=b"[5]")])),
                           ("tar3", layer_bytes([Entry("some-file")])),
                           ("tar4", layer_bytes([Entry("manifest.json", data=json.dumps(
                               [{"Config": "../../../etc/passwd", "Layers": ["/etc/passwd"],
                                 "RepoTags": None}]).encode())]))):
            path = self.path(name)
            with open(path, "wb") as file:
                file.write(data)
            with self.subTest(name):
                self.refused(path, path)
        os.mkfifo(self.path("fifo"))
        self.refused(self.path("fifo"), "fifo: is a pipe: expected")

    def test_a_docker_save_file_cut_anywhere(self):
        archive = self.docker_save(self.oci([[Entry("f", data=os.urandom(50000))]]))
        data = data_of(archive)
        for length in range(512, len(data) - 20000, len(data) // 7):
            with open(archive, "wb") as file:
                file.write(data[:length])
            with self.subTest(length):
                self.refused(archive, "image.tar")

    def test_a_truncated_gzip_of_docker_save(self):
        archive = self.docker_save(self.oci([[Entry("f", data=os.urandom(50000))]]))
        data = gzip.compress(data_of(archive))
        with open(archive, "wb") as file:
            file.write(data[:-100])
        self.refused(archive, "image.tar: decompressing failed")


class Device(HostileTest):
    def test_no_device_of_the_image_is_left_on_the_host(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        layout = self.oci([[Entry("disk", tarfile_block(), device=(8, 0), mode=0o666)]])
        self.make(layout)
        found = subprocess.run(["find", self.dir, "-type", "b", "-o", "-type", "c"],
                               stdout=subprocess.PIPE, check=True).stdout
        self.assertEqual(found, b"")


def tarfile_block():
    import tarfile
    return tarfile.BLKTYPE


if __name__ == "__main__":
    unittest.main()
