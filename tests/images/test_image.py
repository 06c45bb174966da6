# SPDX-License-Identifier: MIT OR Apache-2.0
"""bvmm-image: what reaches the image, and that equal input gives equal bytes."""

import fcntl
import hashlib
import json
import os
import pty
import shutil
import stat
import struct
import subprocess
import termios
import unittest

from support import (BLOCKDEV, BVMM_IMAGE, CHARDEV, DIRECTORY, LINK, NOBODY, OLD_TIME_S, SYMLINK,
                     TOP, Entry, ImageTest, data_of, directory, layer_bytes, load, run, sha)

CONFIG = ("--config.entrypoint", "/bin/tool", "--config.cmd", "run", "--config.cmd", "a b",
          "--config.env", "A=1=2", "--config.workingdir", "/data", "--config.user", "1000:100")
# struct vfs_cap_data, version 2: effective, permitted cap_net_raw
CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def base_layer():
    return [
        directory("./"), directory("bin"), directory("etc"), directory("data"), directory("opq"),
        directory("data/keep"), directory("data/sub"),
        Entry("bin/tool", data=b"tool", mode=0o4755), Entry("bin/tool2", LINK, link="bin/tool"),
        Entry("bin/group", data=b"g", mode=0o2755, gid=7), directory("tmp", 0o1777),
        Entry("data/gone", data=b"x"), Entry("data/sub/z", data=b"y", uid=1000, gid=100),
        Entry("opq/old", data=b"o"), Entry("data/replaced", data=b"first"),
        Entry("rel", SYMLINK, link="bin/tool"), Entry("data/dir-to-file", DIRECTORY, mode=0o755),
        Entry("data/dir-to-file/inner", data=b"i"),
        Entry("data/caf\u00e9 \"q\" \\ space", data=b"name", uid=5),
    ]


def upper_layer():
    return [
        Entry("data/.wh.gone"), Entry("data/.wh.sub"), Entry("opq/.wh..wh..opq"),
        Entry("opq/new", data=b"n"), Entry("data/replaced", data=b"second"),
        Entry("data/dir-to-file", data=b"now a file"), Entry("implicit/deep/file", data=b"q"),
    ]


class Container(ImageTest):
    def test_whiteouts_hard_links_setuid_owners(self):
        image = self.make(self.oci([base_layer(), upper_layer()]))
        rows = self.listing(image)
        tree = self.unsquash(image)
        self.assertNotIn("/data/gone", rows)
        self.assertNotIn("/data/sub", rows)
        self.assertNotIn("/opq/old", rows)
        self.assertFalse([name for name in rows if "/.wh." in name])
        self.assertEqual(data_of(tree + "/opq/new"), b"n")
        self.assertEqual(data_of(tree + "/data/replaced"), b"second")
        self.assertEqual(data_of(tree + "/data/dir-to-file"), b"now a file")
        self.assertEqual(rows["/bin/tool"][0], "-rwsr-xr-x")
        self.assertEqual(rows["/bin/group"][:2], ("-rwxr-sr-x", "0/7"))
        self.assertEqual(rows["/tmp"][0], "drwxrwxrwt")
        self.assertEqual(rows["/data/caf\u00e9 \"q\" \\ space"][1], "5/0")
        self.assertEqual(os.stat(tree + "/bin/tool").st_ino, os.stat(tree + "/bin/tool2").st_ino)
        self.assertEqual(os.stat(tree + "/bin/tool").st_nlink, 2)
        self.assertEqual(os.readlink(tree + "/rel"), "bin/tool")

    def test_times_are_the_layers(self):
        image = self.make(self.oci([base_layer(), upper_layer()]))
        rows = self.listing(image)
        self.assertEqual(rows["/bin/tool"][2], "2020-09-13 12:26")
        self.assertEqual(rows["/implicit/deep"][2], "1970-01-01 00:00")  # no layer lists it

    def test_times_in_the_future_are_the_images_own(self):
        future = 4_000_000_000
        image = self.make(self.oci([base_layer() + [Entry("late", mtime=future)]]))
        self.assertEqual(os.lstat(self.unsquash(image) + "/late").st_mtime, future)

    def test_file_capabilities_survive(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        layer = base_layer() + [Entry("bin/ping", data=b"p", mode=0o755, pax={
            "SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")})]
        raw = layer_bytes(layer)
        if CAPABILITY not in raw:
            self.skipTest("this tarfile cannot write binary headers")
        tree = self.unsquash(self.make(self.oci([raw])))
        self.assertEqual(os.getxattr(tree + "/bin/ping", "security.capability"), CAPABILITY)

    def test_all_forms_of_one_image_give_the_same_bytes(self):
        layout = self.oci([base_layer(), upper_layer()], config=CONFIG)
        archive = self.docker_save(layout)
        want = sha(self.make(layout))
        forms = {"docker save": archive}
        for program, suffix in (("gzip", ".gz"), ("zstd -q", ".zst"), ("xz", ".xz")):
            run("sh", "-c", f'{program} -c -- "$1" > "$1{suffix}"', "sh", archive)
            forms[program] = archive + suffix
        forms["gzip and zstd layers in docker save"] = self.compress_layers(archive)
        oci_archive = self.path("oci.tar")
        run("tar", "-C", layout, "-cf", oci_archive, ".")
        forms["tar of an OCI layout"] = oci_archive
        for name, form in forms.items():
            with self.subTest(name):
                self.assertEqual(sha(self.make(form)), want)

    def compress_layers(self, archive):
        """A docker save file whose first layer is gzip and whose second is zstd."""
        tree = self.path("mixed")
        os.mkdir(tree)
        run("tar", "-C", tree, "-xf", archive)
        run("chmod", "-R", "u+w", tree)
        first, second = load(tree + "/manifest.json")[0]["Layers"]
        for name, program in ((first, "gzip -n"), (second, "zstd -q")):
            run("sh", "-c", f'{program} -c -- "$1" > "$1.new" && mv -f -- "$1.new" "$1"', "sh",
                os.path.join(tree, name))
        run("sh", "-c", 'tar -C "$1" -cf "$1.tar" $(ls "$1")', "sh", tree)
        return tree + ".tar"

    def test_zstd_layers(self):
        layout = self.oci([base_layer(), upper_layer()], config=CONFIG)
        zstd = self.zstd_oci(layout)
        kinds = [layer["mediaType"] for layer in self.manifest(zstd)["layers"]]
        self.assertTrue(all(kind.endswith("zstd") for kind in kinds), kinds)
        want = self.listing(self.make(layout))
        got = self.listing(self.make(zstd, out="zstd.squashfs"))
        self.assertEqual(got, want)

    def test_configuration_inside_and_beside(self):
        layout = self.oci([base_layer()], config=CONFIG)
        image = self.make(layout)
        beside = load(image + ".json")
        self.assertEqual(beside["entrypoint"], ["/bin/tool"])
        self.assertEqual(beside["cmd"], ["run", "a b"])
        self.assertEqual(beside["env"], ["A=1=2"])
        self.assertEqual((beside["workdir"], beside["user"]), ("/data", "1000:100"))
        self.assertEqual(beside["squashfs"]["sha256"], hashlib.sha256(data_of(image)).hexdigest())
        self.assertEqual(beside["squashfs"]["bytes"], os.path.getsize(image))
        inside = json.loads(self.read_inside(image, "etc/bvmm/image.json"))
        self.assertEqual({**beside, **inside}, beside)
        self.assertEqual(set(beside) - set(inside), {"format", "squashfs"})
        self.check_schema(inside)
        self.check_schema(beside)

    def check_schema(self, value):
        try:
            import jsonschema
        except ImportError:
            self.skipTest("needs python3-jsonschema")
        schema = load(os.path.join(TOP, "schemas", "image-config.schema.json"))
        jsonschema.Draft202012Validator(schema).validate(value)

    def test_configuration_can_be_changed(self):
        layout = self.oci([base_layer()], config=CONFIG)
        image = self.make(layout, "--cmd", '["x"]', "--env", "A=3", "-e", "B=", "-w", "/",
                          "-u", "0")
        beside = load(image + ".json")
        self.assertEqual((beside["entrypoint"], beside["cmd"]), (["/bin/tool"], ["x"]))
        self.assertEqual(beside["env"], ["A=3", "B="])
        self.assertEqual((beside["workdir"], beside["user"]), ("/", "0"))
        image = self.make(layout, "--entrypoint", "echo $A")
        beside = load(image + ".json")
        self.assertEqual((beside["entrypoint"], beside["cmd"]), (["/bin/sh", "-c", "echo $A"], []))

    def test_a_strangers_image_json_is_replaced(self):
        layer = base_layer() + [directory("etc/bvmm"), Entry("etc/bvmm/image.json", data=b"{}")]
        image = self.make(self.oci([layer], config=CONFIG))
        self.assertEqual(json.loads(self.read_inside(image, "etc/bvmm/image.json"))["cmd"],
                         ["run", "a b"])

    def test_devices(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        layer = base_layer() + [directory("dev"), Entry("dev/null", CHARDEV, device=(1, 3)),
                                Entry("dev/disk", BLOCKDEV, device=(8, 0))]
        layout = self.oci([layer])
        rows = self.listing(self.make(layout))
        self.assertEqual(rows["/dev/null"][0][0], "c")
        self.assertEqual(rows["/dev/disk"][0][0], "b")
        run("chmod", "-R", "a+rX", self.dir)
        os.mkdir(self.path("theirs"))
        os.chown(self.path("theirs"), NOBODY, NOBODY)
        done = self.tool(layout, self.path("theirs/o"), user=NOBODY,
                         env=dict(self.env, TMPDIR=self.path("theirs")))
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertIn("2 device files left out", done.stderr.decode())
        self.assertNotIn("/dev/null", self.listing(self.path("theirs/o")))

    def test_tags(self):
        layout = self.oci([base_layer()], config=CONFIG)
        run("umoci", "tag", "--image", f"{layout}:t", "second")
        self.refused(layout, "2 images", "second, t")
        self.refused(layout + ":third", "no image tagged third", "second, t")
        self.refused(layout + ":", "expected a tag")
        self.make(layout + ":second")
        self.refused(self.path("nowhere") + ":t", "no such file")

    def test_several_images_in_a_docker_save_file(self):
        one = self.oci([base_layer()], "one", config=("--config.cmd", "one"))
        two = self.oci([base_layer()], "two", config=("--config.cmd", "two"))
        tree = self.path("both")
        os.mkdir(tree)
        manifests = []
        for layout in (one, two):
            run("tar", "-C", tree, "-xf", self.docker_save(layout, layout + ".tar"))
            manifests += load(tree + "/manifest.json")
            run("chmod", "-R", "u+w", tree)
        with open(tree + "/manifest.json", "w", encoding="utf-8") as file:
            json.dump(manifests, file)
        run("sh", "-c", 'tar -C "$1" -cf "$1.tar" $(ls "$1")', "sh", tree)
        self.refused(tree + ".tar", "both.tar")
        for name in ("one", "two"):
            image = self.make(f"{tree}.tar:local/{name}:t")
            self.assertEqual(load(image + ".json")["cmd"], [name])

    def test_several_platforms(self):
        mine = self.oci([base_layer()], "mine", config=("--config.cmd", "mine"))
        other = self.oci([base_layer()], "other",
                         config=("--config.cmd", "other", "--architecture", "s390x"))
        self.refused(other, "s390x", "--arch s390x")
        self.assertEqual(load(self.make(other, "--arch", "s390x") + ".json")["cmd"], ["other"])
        for name in os.listdir(other + "/blobs/sha256"):
            shutil.copy(f"{other}/blobs/sha256/{name}", mine + "/blobs/sha256/")
        machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        manifests = []
        for layout, arch in ((other, "s390x"), (mine, machine)):
            entry = load(layout + "/index.json")["manifests"][0]
            entry["platform"] = {"os": "linux", "architecture": arch}
            entry.pop("annotations")
            manifests.append(entry)
        index = json.dumps({"schemaVersion": 2, "manifests": manifests,
                            "mediaType": "application/vnd.oci.image.index.v1+json"}).encode()
        entry = {"mediaType": "application/vnd.oci.image.index.v1+json",
                 **self.replace_blob(mine, None, index)}
        with open(mine + "/index.json", "w", encoding="utf-8") as file:
            json.dump({"schemaVersion": 2, "manifests": [entry]}, file)
        self.assertEqual(load(self.make(mine) + ".json")["cmd"], ["mine"])
        self.assertEqual(load(self.make(mine, "--arch", "s390x") + ".json")["cmd"], ["other"])

    def test_a_layer_twice_and_an_empty_layer(self):
        image = self.make(self.oci([base_layer(), base_layer(), b"\0" * 1024]))
        self.assertIn("/bin/tool", self.listing(image))


class Reproducible(ImageTest):
    def test_container_whatever_the_surroundings(self):
        layout = self.oci([base_layer(), upper_layer()], config=CONFIG)
        want = sha(self.make(layout))
        other_work = self.path("elsewhere")
        os.mkdir(other_work)
        for name, more, env in (
                ("one processor", ("--jobs", "1"), {}),
                ("seven", ("--jobs", "7"), {}),
                ("another work directory", ("--work-dir", other_work), {}),
                ("another zone and language", (), {"TZ": "Asia/Tokyo", "LC_ALL": "C"})):
            with self.subTest(name):
                self.assertEqual(sha(self.make(layout, *more, env={**self.env, **env})), want)
        old = os.umask(0o077)
        try:
            self.assertEqual(sha(self.make(layout)), want)
        finally:
            os.umask(old)

    def test_a_user_makes_the_same_bytes_as_root(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        layer = base_layer() + [Entry("secret", data=b"s", mode=0), directory("closed", 0o111),
                                Entry("closed/in", data=b"i", uid=3, mode=0o400),
                                Entry("closed/in2", LINK, link="closed/in"),
                                Entry("theirs", SYMLINK, link="x", uid=4, gid=5)]
        layout = self.oci([layer, upper_layer()], config=CONFIG)
        want = sha(self.make(layout))
        theirs = self.path("theirs")
        os.mkdir(theirs)
        os.chown(theirs, NOBODY, NOBODY)
        run("chmod", "-R", "a+rX", self.dir)
        done = self.tool(layout, theirs + "/o", user=NOBODY, env=dict(self.env, TMPDIR=theirs))
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(sorted(os.listdir(theirs)), ["o", "o.json"])
        self.assertEqual(self.listing(theirs + "/o"), self.listing(self.path("out.squashfs")))
        self.assertEqual(sha(theirs + "/o"), want)

    def make_tree(self, name, order):
        tree = self.path(name)
        os.makedirs(tree + "/bin")
        for file in order:
            with open(f"{tree}/bin/{file}", "w", encoding="utf-8") as out:
                out.write(file * 1000)
        os.link(tree + "/bin/a", tree + "/linked")
        os.chmod(tree + "/bin/a", 0o4755)
        os.symlink("/nowhere", tree + "/dangling")
        return tree

    def test_directory_whatever_times_and_order(self):
        one = self.make(self.make_tree("one", "abcdefg"))
        os.utime(self.path("one/bin/a"), (5, 5))
        again = self.make(self.path("one"), out="again.squashfs")
        other = self.make(self.make_tree("two", "gfedcba"), out="other.squashfs")
        self.assertEqual(sha(one), sha(again))
        self.assertEqual(sha(one), sha(other))
        rows = self.listing(one)
        self.assertEqual(rows["/bin/a"], ("-rwsr-xr-x", "0/0", "1970-01-01 00:00"))
        with open(self.path("one/bin/a"), "a", encoding="utf-8") as out:
            out.write("x")
        self.assertNotEqual(sha(self.make(self.path("one"), out="changed.squashfs")), sha(one))

    def test_source_date_epoch(self):
        env = dict(self.env, SOURCE_DATE_EPOCH=str(OLD_TIME_S))
        image = self.make(self.make_tree("one", "ab"), env=env)
        self.assertEqual(self.listing(image)["/bin/a"][2], "2020-09-13 12:26")
        layout = self.oci([[Entry("young", mtime=OLD_TIME_S + 9), Entry("old", mtime=7)]])
        tree = self.unsquash(self.make(layout, env=env))
        self.assertEqual(os.lstat(tree + "/young").st_mtime, OLD_TIME_S)
        self.assertEqual(os.lstat(tree + "/old").st_mtime, 7)
        bad = self.tool(layout, self.path("o"), env=dict(self.env, SOURCE_DATE_EPOCH="today"))
        self.assertEqual(bad.returncode, 1)
        self.assertIn("SOURCE_DATE_EPOCH=today", bad.stderr.decode())


class Directory(ImageTest):
    def test_keep_times_and_the_note_about_python(self):
        tree = self.path("tree")
        os.mkdir(tree)
        open(tree + "/m.pyc", "wb").close()
        os.utime(tree + "/m.pyc", (OLD_TIME_S, OLD_TIME_S))
        self.make(tree)
        self.assertIn("1 compiled Python files", self.said)
        image = self.make(tree, "--keep-times")
        self.assertEqual(self.said, "")
        self.assertEqual(self.listing(image)["/m.pyc"][2], "2020-09-13 12:26")

    def test_its_own_configuration_is_kept(self):
        first = self.make(self.oci([base_layer()], config=CONFIG))
        tree = self.unsquash(first)
        image = self.make(tree, out="second.squashfs")
        self.assertEqual(load(image + ".json")["entrypoint"], ["/bin/tool"])
        self.assertEqual(load(image + ".json")["source"]["kind"], "container")
        changed = self.make(tree, "--user", "7", out="third.squashfs")
        self.assertEqual(load(changed + ".json")["user"], "7")
        inside = json.loads(self.read_inside(changed, "etc/bvmm/image.json"))
        self.assertEqual((inside["user"], inside["entrypoint"]), ("7", ["/bin/tool"]))
        with open(tree + "/etc/bvmm/image.json", "w", encoding="utf-8") as file:
            file.write('{"schema_version": 1, "cmd": 5}')
        self.refused(tree, "etc/bvmm/image.json", "expected a list of strings")

    def test_a_users_files_become_roots(self):
        if os.geteuid() != 0:
            self.skipTest("needs root")
        tree = self.path("tree")
        os.mkdir(tree)
        for name, owner in (("mine", NOBODY), ("other", 12)):
            open(f"{tree}/{name}", "wb").close()
            os.chown(f"{tree}/{name}", owner, owner)
        os.mkdir(tree + "/mine too")
        os.chown(tree + "/mine too", NOBODY, NOBODY)
        run("chmod", "-R", "a+rX", self.dir)
        os.chown(self.work, NOBODY, NOBODY)
        done = self.tool(tree, self.path("work/o"), user=NOBODY)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        rows = self.listing(self.path("work/o"))
        self.assertEqual((rows["/mine"][1], rows["/other"][1], rows["/"][1]),
                         ("0/0", "12/12", "0/0"))
        self.assertEqual(rows["/mine too"][1], "0/0")

    def test_refused(self):
        tree = self.path("tree")
        os.mkdir(tree)
        done = self.tool(tree, tree + "/out")
        self.assertEqual(done.returncode, 1)
        self.assertIn("would hold itself", done.stderr.decode())
        self.assertEqual(os.listdir(tree), [])
        self.refused("/", "running system")
        self.refused(self.path("nothing-here"), "no such file")
        for path, word in ((tree, f"{tree}: is a directory: expected a squashfs image"),
                           (self.path("nothing-here"), "nothing-here: no such file")):
            done = self.tool("info", path)
            self.assertEqual(done.returncode, 1)
            self.assertIn(word, done.stderr.decode())
        done = self.tool(tree, self.path("work"))
        self.assertIn("is a directory", done.stderr.decode())
        done = self.tool(tree, self.path("no/where/out"))
        self.assertIn("no such directory", done.stderr.decode())
        done = self.tool(tree, tree.replace("/tree", "/new/"))
        self.assertIn("expected the name of a file", done.stderr.decode())
        done = self.tool("from-oci", tree, self.path("o"))
        self.assertIn("a plain directory, expected an OCI layout", done.stderr.decode())

    def test_an_image_replaces_regular_files_only(self):
        """As root a rename over /dev/null would succeed: the nodes here are the test's own."""
        os.mkdir(self.path("tree"))
        os.symlink("elsewhere", self.path("link"))
        os.symlink("elsewhere", self.path("beside.json"))
        os.mkfifo(self.path("pipe"))
        kinds = [("link", "a symbolic link"), ("pipe", "a pipe")]
        if os.geteuid() == 0:
            os.mknod(self.path("null"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
            kinds.append(("null", "a character device"))
        before = sorted(os.listdir(self.dir))
        for name, kind in kinds:
            done = self.tool(self.path("tree"), self.path(name))
            self.assertEqual(done.returncode, 1)
            self.assertIn(f"{self.path(name)}: is {kind}", done.stderr.decode())
            self.assertFalse(stat.S_ISREG(os.lstat(self.path(name)).st_mode))
        done = self.tool(self.path("tree"), self.path("beside"))
        self.assertIn("beside.json: is a symbolic link", done.stderr.decode())
        self.assertTrue(os.path.islink(self.path("beside.json")))
        self.assertEqual(sorted(os.listdir(self.dir)), before)

    def test_unreadable_file_is_an_error_and_not_an_empty_file(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to become another user")
        tree = self.path("tree")
        os.mkdir(tree)
        open(tree + "/closed", "wb").close()
        os.chmod(tree + "/closed", 0)
        os.chmod(self.dir, 0o755)
        os.chown(self.work, NOBODY, NOBODY)
        done = self.tool(tree, self.path("work/o"), user=NOBODY)
        self.assertEqual(done.returncode, 1)
        self.assertIn("closed", done.stderr.decode())
        self.assertEqual(os.listdir(self.work), [])

    def test_a_newline_in_a_name(self):
        tree = self.path("tree")
        os.mkdir(tree)
        open(tree + "/a\nb", "wb").close()
        if os.geteuid() == 0:
            self.assertTrue(os.path.exists(self.unsquash(self.make(tree)) + "/a\nb"))


class Info(ImageTest):
    def test_info(self):
        image = self.make(self.oci([base_layer()], config=CONFIG))
        told = json.loads(self.tool("info", image).stdout)
        self.assertEqual(told["config"]["cmd"], ["run", "a b"])
        self.assertEqual(told["config_from"], "beside")
        self.assertEqual(told["squashfs"]["compression"], "zstd")
        os.rename(image + ".json", image + ".away")
        self.assertEqual(json.loads(self.tool("info", image).stdout)["config_from"], "inside")
        os.rename(image + ".away", image + ".json")
        with open(image, "ab") as file:
            file.write(b"\0" * 4096)
        done = self.tool("info", image)
        self.assertEqual(done.returncode, 1)
        self.assertIn("belongs to another image", done.stderr.decode())
        done = self.tool("info", BASH)
        self.assertEqual(done.returncode, 1)
        self.assertIn("not an image", done.stderr.decode())

    def test_all_compressions(self):
        layout = self.oci([base_layer()])
        for name in ("zstd", "gzip", "lz4", "xz"):
            image = self.make(layout, "--compression", name)
            told = json.loads(self.tool("info", image).stdout)
            self.assertEqual(told["squashfs"]["compression"], name)


class Packages(ImageTest):
    def test_names_are_checked(self):
        for name in ("../x", "a;b", "--hook=x", "A"):
            done = self.tool("from-packages", self.path("o"), "--", name)
            self.assertEqual(done.returncode, 1, name)
            self.assertIn("not the name of a Debian package", done.stderr.decode())

    def test_unknown_suite(self):
        done = self.tool("from-packages", "--suite", "potato", self.path("o"), "hello")
        self.assertEqual(done.returncode, 1)
        self.assertIn("no package source for potato", done.stderr.decode())

    def archive(self):
        """A file of apt sources, for an archive of one package that is made here."""
        control = ("Package: bvmm-local\nVersion: 1\nArchitecture: all\n"
                   "Maintainer: nobody <nobody@example.org>\nDescription: a test\n")
        for directory in ("tree/DEBIAN", "tree/usr/bin", "archive"):
            os.makedirs(self.path(directory))
        for name, text in (("DEBIAN/control", control), ("usr/bin/local", "#!/bin/sh\necho local\n")):
            with open(self.path("tree", name), "w", encoding="ascii") as file:
                file.write(text)
            os.chmod(self.path("tree", name), 0o755)
        run("dpkg-deb", "--root-owner-group", "-b", self.path("tree"), self.path("archive/local.deb"))
        with open(self.path("archive/Packages"), "w", encoding="ascii") as file:
            file.write(f"{control}Filename: ./local.deb\nSHA256: {sha(self.path('archive/local.deb'))}\n"
                       f"Size: {os.path.getsize(self.path('archive/local.deb'))}\n")
        with open(self.path("local.list"), "w", encoding="ascii") as file:
            file.write(f"deb [trusted=yes] copy:{self.path('archive')} ./\n")
        return self.path("local.list")

    @unittest.skipUnless(shutil.which("mmdebstrap"), "mmdebstrap is not installed")
    def test_a_package_of_a_local_archive_reproducibly(self):
        sources = self.archive()
        os.chmod(self.dir, 0o755)
        env = dict(self.env, SOURCE_DATE_EPOCH="1700000000")
        for out in ("one", "two"):
            done = self.tool("from-packages", "--sources", sources, "--variant", "extract", "--cmd",
                             '["local"]', self.path(out), "bvmm-local", env=env)
            self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(sha(self.path("one")), sha(self.path("two")))
        self.assertEqual(os.listdir(self.work), [])
        rows = self.listing(self.path("one"))
        self.assertEqual(rows["/usr/bin/local"], ("-rwxr-xr-x", "0/0", "2023-11-14 22:13"))
        inside = json.loads(self.read_inside(self.path("one"), "etc/bvmm/image.json"))
        self.assertEqual(inside["cmd"], ["local"])
        self.assert_nothing_of_this_machine(rows)

    def assert_nothing_of_this_machine(self, rows):
        for name in ("/etc/resolv.conf", "/etc/hostname", "/etc/machine-id", "/etc/apt/sources.list"):
            self.assertNotIn(name, rows)
        self.assertEqual([n for n in rows if n.startswith("/etc/apt/sources.list.d/")], [])

    @unittest.skipUnless(os.environ.get("BVMM_TEST_PACKAGES"),
                         "downloads packages: set BVMM_TEST_PACKAGES=1")
    def test_packages_reproducibly(self):
        for out in ("one", "two"):
            done = self.tool("from-packages", self.path(out), "hello")
            self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(sha(self.path("one")), sha(self.path("two")))
        rows = self.listing(self.path("one"))
        self.assertIn("/usr/bin/hello", rows)
        self.assertEqual(rows["/"][:2], ("drwxr-xr-x", "0/0"))
        self.assert_nothing_of_this_machine(rows)


class Terminal(ImageTest):
    def test_progress_on_a_terminal_only(self):
        layout = self.oci([base_layer(), upper_layer()])
        self.make(layout)
        self.assertEqual(self.said, "")
        shown = self.in_terminal(BVMM_IMAGE, layout, self.path("o"))
        for word in ("reading", "checking 2 layers", "unpacking layer 2 of 2", "writing the squashfs", "KiB"):
            self.assertIn(word, shown)
        self.assertEqual(self.in_terminal(BVMM_IMAGE, "--quiet", layout, self.path("o")), "")
        self.make(layout, "--verbose")
        self.assertIn("unpacking 2 layers", self.said)

    def in_terminal(self, *argv):
        """What a program shows on a terminal of its own."""
        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        process = subprocess.Popen(argv, env=self.env, stdin=slave, stdout=slave, stderr=slave)
        os.close(slave)
        shown = b""
        try:
            while piece := os.read(master, 65536):
                shown += piece
        except OSError:
            pass  # the last one has closed it
        os.close(master)
        self.assertEqual(process.wait(), 0, shown)
        return shown.decode(errors="replace")


class Missing(ImageTest):
    def test_the_package_of_a_missing_program_is_named(self):
        layout = self.oci([base_layer()])
        everything = self.path("bin")
        os.mkdir(everything)
        for place in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
            for name in os.listdir(place):
                if not os.path.lexists(f"{everything}/{name}"):
                    os.symlink(f"{place}/{name}", f"{everything}/{name}")
        for program, package in (("skopeo", "skopeo"), ("umoci", "umoci"),
                                 ("mksquashfs", "squashfs-tools")):
            with self.subTest(program):
                away = f"{everything}/{program}"
                target = os.readlink(away)
                os.unlink(away)
                done = self.tool(layout, self.path("o"), env=dict(self.env, PATH=everything))
                os.symlink(target, away)
                self.assertEqual(done.returncode, 1)
                self.assertIn(f"apt-get install {package}", done.stderr.decode())
                self.assertEqual(os.listdir(self.work), [])


BASH = shutil.which("bash")

if __name__ == "__main__":
    unittest.main()
