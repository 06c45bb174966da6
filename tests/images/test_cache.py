# SPDX-License-Identifier: MIT OR Apache-2.0
"""bvmm-image cached, and what is left behind when bvmm-image is stopped or killed."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
import unittest

from support import (BVMM_IMAGE, NOBODY, PATIENCE_S, SEED, Entry, ImageTest, data_of, directory, load,
                     run, sha)

CALLERS = 6
KILLS = 12


class CacheTest(ImageTest):
    def cached(self, source, **options):
        done = self.tool("cached", source, **options)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        return done.stdout.decode().rstrip("\n")

    def big_layout(self):
        """Large enough that a conversion takes long enough to be killed in its middle."""
        content = random.Random(1).randbytes(1 << 20)
        layer = [directory("d")] + [Entry(f"d/{n}", data=content[n:]) for n in range(24)]
        return self.oci([layer, [Entry(f"d/.wh.{n}") for n in range(5)]], "big")

    def log_calls(self, program):
        """Put a program in front of the real one that notes each call; returns the note's path."""
        log = self.path(program + ".log")
        bin_directory = self.path("bin")
        os.makedirs(bin_directory, exist_ok=True)
        real = run("sh", "-c", f"command -v {program}").decode().strip()
        with open(f"{bin_directory}/{program}", "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\necho call >> "{log}"\nexec {real} "$@"\n')
        os.chmod(f"{bin_directory}/{program}", 0o755)
        self.env["PATH"] = bin_directory + ":" + os.environ["PATH"]
        return log

    def visible(self):
        return [n for n in os.listdir(self.path("cache/images")) if not n.startswith(".")]


class Cached(CacheTest):
    def test_once_for_every_kind(self):
        layout = self.oci([[Entry("f", data=b"x")]])
        archive = self.docker_save(layout)
        tree = self.path("tree")
        os.mkdir(tree)
        with open(tree + "/f", "w", encoding="utf-8") as file:
            file.write("x")
        log = self.log_calls("mksquashfs")
        seen = set()
        for number, source in enumerate((layout, layout + ":t", archive, tree), 1):
            with self.subTest(source):
                first = self.cached(source)
                info = os.stat(first)
                again = self.cached(source)
                self.assertEqual(first, again)
                self.assertEqual(os.stat(again).st_ino, info.st_ino)
                seen.add(first)
                self.assertEqual(load(first + ".json")["squashfs"]["sha256"], sha(first))
        self.assertEqual(data_of(log), b"call\n" * 3)  # the layout by two names is one image
        self.assertEqual(len(seen), 3)
        self.assertEqual(os.listdir(self.work), [])

    def test_a_squashfs_is_itself(self):
        image = self.make(self.oci([[Entry("f")]]))
        self.assertEqual(self.cached(image), image)
        self.assertFalse(os.path.exists(self.path("cache/images")))

    def test_changed_content_is_another_image(self):
        one = self.oci([[Entry("f", data=b"one")]], "one")
        two = self.oci([[Entry("f", data=b"two")]], "two")
        archive = self.docker_save(one)
        first = self.cached(archive)
        time.sleep(0.01)
        os.replace(self.docker_save(two, "other.tar"), archive)
        second = self.cached(archive)
        self.assertEqual(self.read_inside(first, "f"), b"one")
        self.assertEqual(self.read_inside(second, "f"), b"two")
        run("umoci", "config", "--image", one + ":t", "--config.cmd", "changed")
        third = self.cached(one)
        self.assertEqual(load(third + ".json")["cmd"], ["changed"])

    def test_same_size_and_time_but_other_content(self):
        """What is remembered of a file goes by more than size and time."""
        archive = self.docker_save(self.oci([[Entry("f", data=b"one")]], "one"))
        before = os.stat(archive)
        old = before.st_mtime_ns - 10 ** 10
        os.utime(archive, ns=(old, old))
        time.sleep(2.1)  # older than what is too young to be remembered
        first = self.cached(archive)
        self.cached(archive)
        other = self.docker_save(self.oci([[Entry("f", data=b"two")]], "two"), "other.tar")
        self.assertEqual(os.path.getsize(other), before.st_size)
        with open(archive, "r+b") as file:
            file.write(data_of(other))
        os.utime(archive, ns=(old, old))
        self.assertNotEqual(self.cached(archive), first)

    def test_directory_details(self):
        tree = self.path("tree")
        os.mkdir(tree)
        paths = {self.cached(tree)}
        steps = [lambda: open(tree + "/f", "wb").close(), lambda: os.chmod(tree + "/f", 0o755),
                 lambda: os.symlink("a", tree + "/l"),
                 lambda: (os.unlink(tree + "/l"), os.symlink("b", tree + "/l")),
                 lambda: os.link(tree + "/f", tree + "/g"),
                 lambda: (os.unlink(tree + "/g"), run("cp", "-p", tree + "/f", tree + "/g")),
                 lambda: os.rename(tree + "/f", tree + "/h"),
                 lambda: os.setxattr(tree + "/h", "user.x", b"1"), lambda: os.mkdir(tree + "/d")]
        for number, step in enumerate(steps, 2):
            step()
            paths.add(self.cached(tree))
            self.assertEqual(len(paths), number, f"step {number - 1} was not noticed")
        os.utime(tree + "/h", (5, 5))  # times are not part of the image
        self.assertIn(self.cached(tree), paths)

    def test_damage_is_noticed(self):
        layout = self.oci([[Entry("f", data=os.urandom(50000))]])
        path = self.cached(layout)
        want = sha(path)
        os.truncate(path, 5000)
        self.assertEqual(sha(self.cached(layout)), want)
        os.unlink(path + ".json")
        self.assertEqual(sha(self.cached(layout)), want)
        beside = load(path + ".json")
        beside["format"] += 1
        with open(path + ".json", "w", encoding="utf-8") as file:
            json.dump(beside, file)
        self.cached(layout)
        self.assertEqual(load(path + ".json")["format"], beside["format"] - 1)

    def test_a_failure_leaves_nothing(self):
        layout = self.oci([[Entry("../x")]])
        done = self.tool("cached", layout)
        self.assertEqual((done.returncode, done.stdout), (1, b""))
        self.assertEqual(self.visible(), [])
        self.assertEqual([n for n in os.listdir(self.path("cache/images"))
                          if n.endswith(".bvmm-scratch")], [])

    def test_a_cache_that_others_can_write_is_refused(self):
        layout = self.oci([[Entry("f")]])
        self.cached(layout)
        for path in ("cache", "cache/images"):
            mode = stat.S_IMODE(os.stat(self.path(path)).st_mode)
            os.chmod(self.path(path), 0o777)
            done = self.tool("cached", layout)
            self.assertEqual(done.returncode, 1)
            self.assertIn("can write", done.stderr.decode())
            os.chmod(self.path(path), mode)
        if os.geteuid() == 0:
            os.chown(self.path("cache"), NOBODY, NOBODY)
            self.assertEqual(self.tool("cached", layout).returncode, 1)
        done = self.tool("cached", layout, env=dict(self.env, BVMM_CACHE="relative"))
        self.assertIn("absolute path", done.stderr.decode())

    def test_options_that_change_the_image_are_refused(self):
        """The cache goes by the source alone."""
        done = self.tool("cached", "--cmd", "x", self.oci([[Entry("f")]]))
        self.assertEqual(done.returncode, 2)
        self.assertIn("--cmd", done.stderr.decode())

    def test_a_source_that_changes_while_it_is_converted(self):
        one = self.docker_save(self.oci([[Entry("f", data=b"one")]], "one"), "a.tar")
        two = self.docker_save(self.oci([[Entry("f", data=b"two")]], "two"), "b.tar")
        tree = self.path("tree")
        os.mkdir(tree)
        for source, change in ((one, f'cp "{two}" "{one}"'), (tree, f'touch "{tree}/new"')):
            with open(self.wrapper("mksquashfs"), "w", encoding="utf-8") as file:
                file.write(f'#!/bin/sh\n{change}\nexec /usr/bin/mksquashfs "$@"\n')
            os.chmod(self.path("bin/mksquashfs"), 0o755)
            done = self.tool("cached", source)
            self.assertEqual(done.returncode, 1, done.stderr.decode())
            self.assertIn("changed while it was converted", done.stderr.decode())
            self.assertEqual(self.visible(), [])

    def wrapper(self, program):
        os.makedirs(self.path("bin"), exist_ok=True)
        self.env["PATH"] = self.path("bin") + ":" + os.environ["PATH"]
        return self.path("bin", program)

    def test_other_peoples_directories_are_not_swept(self):
        images = self.path("cache/images")
        os.makedirs(images)
        for path in (images + "/.making-mine", self.work + "/bvmm-image-results"):
            os.mkdir(path, 0o700)
        self.cached(self.oci([[Entry("f")]]))
        self.assertTrue(os.path.isdir(images + "/.making-mine"))
        self.assertEqual(os.listdir(self.work), ["bvmm-image-results"])

    def test_prune(self):
        layout = self.oci([[Entry("f")]])
        path = self.cached(layout)
        self.assertIn("removed 0", self.tool("prune").stdout.decode())
        old = time.time() - 40 * 86400
        os.utime(path, (old, old))
        self.assertIn("removed 1", self.tool("prune").stdout.decode())
        self.assertEqual(self.visible(), [])
        self.assertEqual(self.cached(layout), path)


class Together(CacheTest):
    def test_many_callers_make_it_once(self):
        log = self.log_calls("skopeo")
        layout = self.big_layout()
        callers = [subprocess.Popen([BVMM_IMAGE, "cached", layout], env=self.env,
                                    stdout=subprocess.PIPE, stderr=subprocess.PIPE)
                   for _ in range(CALLERS)]
        outputs = [caller.communicate() for caller in callers]
        self.assertEqual([c.returncode for c in callers], [0] * CALLERS, outputs)
        self.assertEqual(len({out for out, _ in outputs}), 1)
        self.assertEqual(data_of(log), b"call\n")
        path = outputs[0][0].decode().strip()
        self.assertEqual(load(path + ".json")["squashfs"]["sha256"], sha(path))

    def test_a_waiting_caller_goes_on_when_the_maker_is_killed(self):
        layout = self.big_layout()
        maker = subprocess.Popen([BVMM_IMAGE, "cached", layout], env=self.env,
                                 stdout=subprocess.DEVNULL)
        time.sleep(0.25)
        waiter = subprocess.Popen([BVMM_IMAGE, "cached", layout], env=self.env,
                                  stdout=subprocess.PIPE)
        time.sleep(0.1)
        maker.kill()
        maker.wait()
        path = waiter.communicate()[0].decode().strip()
        self.assertEqual(waiter.returncode, 0)
        self.assertEqual(load(path + ".json")["squashfs"]["sha256"], sha(path))


class Killed(CacheTest):
    def children_gone(self, needle):
        """Whether no process has the work directory in its arguments any more."""
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    if needle.encode() in data_of(f"/proc/{name}/cmdline"):
                        return False
                except (FileNotFoundError, ProcessLookupError):
                    continue
        return True

    def wait_until(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.02)

    def test_kill_9_at_random_moments(self):
        rng = random.Random(SEED)
        layout = self.big_layout()
        reference = sha(self.make(layout, out="reference.squashfs"))
        started = time.monotonic()
        self.cached(layout)
        whole_s = time.monotonic() - started
        middle = 0
        number = -1
        while (number := number + 1) < KILLS or (middle == 0 and number < 5 * KILLS):
            run("rm", "-rf", self.path("cache/images"))
            process = subprocess.Popen([BVMM_IMAGE, "cached", layout], env=self.env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.05, whole_s))
            process.kill()
            process.wait()
            self.wait_until(lambda: self.children_gone(self.work),
                            "the programs that it called live on")
            middle += bool(os.listdir(self.work))
            for name in self.visible() if os.path.exists(self.path("cache/images")) else []:
                if name.endswith(".squashfs"):  # an image that is there is whole
                    self.assertEqual(sha(self.path("cache/images", name)), reference, number)
            self.assertEqual(sha(self.cached(layout)), reference)
            self.assertEqual(os.listdir(self.work), [], "leftovers of the dead are swept")
            self.assertEqual([n for n in os.listdir(self.path("cache/images"))
                              if n.endswith(".bvmm-scratch")], [])
        if middle == 0:
            self.skipTest("no kill hit the middle, which is chance: the test has tested nothing")

    def test_kill_9_beside_an_output(self):
        layout = self.big_layout()
        output = self.path("out/o.squashfs")
        os.mkdir(self.path("out"))
        process = subprocess.Popen([BVMM_IMAGE, layout, output], env=self.env)
        self.wait_until(lambda: os.listdir(self.path("out")), "it never started")
        process.kill()
        process.wait()
        self.assertFalse(os.path.exists(output))
        self.make(layout, out="out/o.squashfs")
        self.assertEqual(sorted(os.listdir(self.path("out"))), ["o.squashfs", "o.squashfs.json"])

    def test_term_and_int_clean_up_at_once(self):
        rng = random.Random(SEED + 1)
        layout = self.big_layout()
        os.mkdir(self.path("out"))
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) * 2:
            status, attempts = 0, 0
            while status == 0 and attempts < 20:  # 0: it was done before the signal came
                attempts += 1
                for name in os.listdir(self.path("out")):
                    os.unlink(self.path("out", name))
                with open(self.path("out/o"), "wb") as file:
                    file.write(b"the old image")
                process = subprocess.Popen([BVMM_IMAGE, layout, self.path("out/o")], env=self.env,
                                           stderr=subprocess.PIPE)
                self.wait_until(lambda: os.listdir(self.work) or process.poll() is not None,
                                "it never started")
                time.sleep(rng.uniform(0, 0.1))
                process.send_signal(signum)
                said = process.communicate()[1].decode()
                status = process.returncode
            self.assertEqual(status, 128 + signum, said)
            self.assertIn(signal.Signals(signum).name, said)
            self.assertNotIn("Traceback", said)
            self.assertEqual(os.listdir(self.work), [])
            self.assertEqual(os.listdir(self.path("out")), ["o"])
            self.assertEqual(data_of(self.path("out/o")), b"the old image")
            self.assertTrue(self.children_gone(self.work))

    def test_a_signal_at_the_worst_moment_of_a_scratch_directory(self):
        """When it is made but nobody knows of it yet; while it is removed; and just before that."""
        program = textwrap.dedent("""
            import os, signal, sys
            sys.path.insert(0, sys.argv[1])
            from bvmmtool import common

            def interrupted_after(module, name):
                function = getattr(module, name)
                def instead(*words, **more):
                    result = function(*words, **more)
                    if os.listdir(sys.argv[2]) or name == "rmtree":
                        os.kill(os.getpid(), signal.SIGTERM)
                    return result
                setattr(module, name, instead)

            def main(_):
                module, name = sys.argv[3].split(".")
                at_the_end = sys.argv[4] == "end"
                if not at_the_end:
                    interrupted_after(getattr(common, module), name)
                with common.Scratch(sys.argv[2], ".test-") as scratch:
                    open(scratch.file("x"), "w").close()
                    if at_the_end:
                        interrupted_after(getattr(common, module), name)
                print("never told")

            common.run_main("test", main)
            """)
        lib = os.path.join(os.path.dirname(BVMM_IMAGE), "lib")
        for step, when in (("tempfile.mkdtemp", "begin"), ("os.open", "begin"), ("fcntl.flock", "begin"),
                           ("shutil.rmtree", "end"), ("signal.pthread_sigmask", "end"), ("os.close", "end")):
            with self.subTest(step):
                os.makedirs(self.path("scratch"), exist_ok=True)
                done = subprocess.run([sys.executable, "-B", "-c", program, lib, self.path("scratch"), step, when],
                                      capture_output=True, text=True, check=False)
                self.assertEqual(os.listdir(self.path("scratch")), [], done.stderr)
                if step != "os.close":  # there it is gone already
                    self.assertEqual(done.returncode, 128 + signal.SIGTERM, done.stderr)

    def test_a_failure_keeps_the_old_image(self):
        layout = self.oci([[Entry("../x")]])
        with open(self.path("o"), "wb") as file:
            file.write(b"the old image")
        self.assertEqual(self.tool(layout, self.path("o")).returncode, 1)
        self.assertEqual(data_of(self.path("o")), b"the old image")

    def test_a_full_disk(self):
        if os.geteuid() != 0:
            self.skipTest("needs root to mount a small tmpfs")
        small = self.path("small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", small],
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("cannot mount a tmpfs")
        self.addCleanup(run, "umount", small)
        layout = self.oci([[Entry(f"f{n}", data=os.urandom(1 << 20)) for n in range(8)]])
        for output, more in ((small + "/o", ()), (self.path("o"), ("--work-dir", small))):
            done = self.tool(layout, output, *more)
            self.assertEqual(done.returncode, 1, done.stderr.decode())
            self.assertNotIn("Traceback", done.stderr.decode())
            self.assertFalse(os.path.exists(output))
            self.assertEqual(os.listdir(small), [])
            self.assertEqual(os.listdir(self.work), [])


if __name__ == "__main__":
    unittest.main()
