# SPDX-License-Identifier: MIT OR Apache-2.0
"""bvmm-run, with a stub in place of bvmm: what job it writes, what it hands on, how it ends."""

import base64
import hashlib
import json
import os
import signal
import socket
import stat
import subprocess
import time
import unittest

from support import (BVMM_RUN, HERE, NOBODY, PATIENCE_S, TOP, Entry, ImageTest, data_of, directory,
                     load, run)

ALL_BYTES = bytes(range(256)) * 3
CONFIG = ("--config.entrypoint", "/bin/entry", "--config.cmd", "default", "--config.cmd", "args",
          "--config.env", "PATH=/image/bin", "--config.env", "A=image", "--config.workingdir",
          "/data", "--config.user", "1000:100")


def b64(data):
    return base64.b64encode(data).decode()


def validator(name):
    try:
        import jsonschema
    except ImportError:
        return None
    return jsonschema.Draft202012Validator(load(os.path.join(TOP, "schemas", name)))


class RunTest(ImageTest):
    def setUp(self):
        super().setUp()
        self.log = self.path("stub.log")
        self.env.update(BVMM=os.path.join(HERE, "stub-bvmm"), STUB_LOG=self.log)
        self.env.pop("STUB", None)
        self.image = self.path("plain.squashfs")
        tree = self.path("plain")
        os.mkdir(tree)
        run("mksquashfs", tree, self.image, "-quiet", "-no-progress")

    def container(self):
        return self.oci([[directory("bin"), Entry("bin/entry", data=b"#!/bin/true", mode=0o755)]],
                        config=CONFIG)

    def run_it(self, *argv, stub=None, status=0, **options):
        env = dict(self.env, STUB=json.dumps(stub or {}), **options.pop("env", {}))
        done = self.tool(*argv, program=BVMM_RUN, env=env, **options)
        self.assertEqual(done.returncode, status, done.stderr.decode(errors="replace"))
        self.assertNotIn(b"Traceback", done.stderr)
        self.assertEqual(os.listdir(self.work), [])
        return done

    def notes(self):
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def job(self, *argv, **options):
        """The job that bvmm was given; it fits the schema."""
        self.run_it(*argv, **options)
        job = self.notes()[-2]["job"]
        schema = validator("job.schema.json")
        if schema:
            schema.validate(job)
        job.pop("report_path")
        return job


class Job(RunTest):
    def test_the_stub_keeps_to_the_reports_schema(self):
        schema = validator("report.schema.json")
        if schema is None:
            self.skipTest("needs python3-jsonschema")
        for stub in ({}, {"stdout": b64(ALL_BYTES)}):
            self.run_it("--report", self.path("r.json"), self.image, "x", stub=stub)
            schema.validate(load(self.path("r.json")))

    def test_a_plain_command(self):
        job = self.job(self.image, "--", "/bin/echo", "a b", "-x", "--", "--report", "")
        self.assertEqual(job, {"rootfs_path": self.image, "command": [
            "/bin/echo", "a b", "-x", "--", "--report", ""]})
        self.assertEqual(self.job(self.image, "ls", "-l", "--help")["command"],
                         ["ls", "-l", "--help"])

    def test_all_options(self):
        stdin = self.path("stdin")
        with open(stdin, "wb") as file:
            file.write(b"in")
        job = self.job(
            "--vcpus", "4", "--memory", "2G", "--timeout", "5m", "--env", "A=1", "-e", "B=x=y",
            "-e", "FROM_SHELL", "-e", "NOT_SET", "--workdir", "/w", "--user", "u:g", "--stdin",
            stdin, "--output", "/out/a", "--output", "/out/*.json:" + self.path("o"), "--kernel",
            stdin, "--name", "n", "--set", 'sandbox="off"', "--set", 'labels={"commit": "c"}',
            self.image, "cmd", env={"FROM_SHELL": "yes"}, cwd=self.path())
        self.assertEqual(job, {
            "rootfs_path": self.image, "command": ["cmd"], "vcpus": 4, "memory_mib": 2048,
            "timeout_secs": 300, "env": {"A": "1", "B": "x=y", "FROM_SHELL": "yes"},
            "workdir": "/w", "user": "u:g", "stdin_path": stdin, "kernel_path": stdin,
            "output_files": ["/out/a", "/out/*.json"], "name": "n", "sandbox": "off",
            "labels": {"commit": "c"}})

    def test_units(self):
        for text, mib in (("64", 64), ("64m", 64), ("64MiB", 64), ("3g", 3072)):
            self.assertEqual(self.job("-m", text, self.image, "x")["memory_mib"], mib)
        for text, seconds in (("0", 0), ("7s", 7), ("2m", 120), ("1h", 3600)):
            self.assertEqual(self.job("-t", text, self.image, "x")["timeout_secs"], seconds)

    def test_a_container_image_as_docker_run_has_it(self):
        layout = self.container()
        archive = self.docker_save(layout)
        for source in (layout, archive, layout + ":t"):
            job = self.job(source)
            self.assertEqual(job["command"], ["/bin/entry", "default", "args"])
            self.assertEqual(job["env"], {"PATH": "/image/bin", "A": "image"})
            self.assertEqual((job["workdir"], job["user"]), ("/data", "1000:100"))
            self.assertEqual(self.read_inside(job["rootfs_path"], "bin/entry"), b"#!/bin/true")
        job = self.job("-e", "A=mine", "-w", "/", "-u", "0", layout, "--", "other")
        self.assertEqual(job["command"], ["/bin/entry", "other"])
        self.assertEqual(job["env"], {"PATH": "/image/bin", "A": "mine"})
        self.assertEqual((job["workdir"], job["user"]), ("/", "0"))
        self.assertEqual(self.job("--entrypoint", "", layout, "sh")["command"], ["sh"])
        self.assertEqual(self.job("--entrypoint", "sh", layout, "-c", "x")["command"],
                         ["sh", "-c", "x"])

    def test_a_converted_image_keeps_its_command_with_or_without_its_json(self):
        image = self.make(self.container())
        self.assertEqual(self.job(image)["command"], ["/bin/entry", "default", "args"])
        os.unlink(image + ".json")
        self.assertEqual(self.job(image)["command"], ["/bin/entry", "default", "args"])

    def test_a_directory(self):
        os.makedirs(self.path("tree/bin"))
        job = self.job(self.path("tree"), "true")
        self.assertEqual(job["command"], ["true"])
        self.assertTrue(job["rootfs_path"].startswith(self.path("cache")))

    def test_own_init(self):
        self.assertEqual(self.job("--own-init", self.image), {"rootfs_path": self.image})

    def test_stdin_of_this_program(self):
        env = dict(self.env)
        done = subprocess.run([BVMM_RUN, "-i", "-", "--print-job", self.image, "cat"], env=env,
                              input=b"hello", stdout=subprocess.PIPE, check=True)
        self.assertIn("stdin_path", json.loads(done.stdout))

    def test_print_job_runs_nothing(self):
        done = self.run_it("--print-job", self.image, "x")
        self.assertEqual(json.loads(done.stdout)["command"], ["x"])
        self.assertFalse(os.path.exists(self.log))

    def test_refused(self):
        for argv, word in (
                ((), "required"), (("--nonsense", self.image, "x"), "nonsense"),
                (("--memory", "lots", self.image, "x"), "expected MiB"),
                (("--timeout", "soon", self.image, "x"), "expected seconds"),
                (("--env", "=x", self.image, "x"), "expected NAME"),
                (("--output", "relative", self.image, "x"), "absolute path"),
                (("--set", "vcpus=two", self.image, "x"), "KEY=JSON"),
                (("--set", 'report_path="x"', self.image, "x"), "--report"),
                (("--own-init", self.image, "x"), "leave out one"),
                (("--own-init", "-e", "A=1", self.image), "are for commands"),
                (("-q", "-v", self.image, "x"), "do not go together"),
                ((self.image,), "names no command"),
                ((self.path("nothing"), "x"), "no such file"),
                ((BVMM_RUN, "x"), "not an image")):
            with self.subTest(argv):
                done = self.run_it(*argv, status=125)
                self.assertIn(word, done.stderr.decode())
        self.assertFalse(os.path.exists(self.log), "bvmm was started")

    def test_a_refused_job_is_told_in_the_users_words(self):
        """The problems are as bvmm words them; tests/library/run asks bvmm itself."""
        problems = {
            "$.vcpus is 99; expected an integer from 1 to 32":
                "--vcpus is 99; expected an integer from 1 to 32",
            '$.output_files[0] is "/"; expected a file': '--output is "/"; expected a file',
            "$.timeout_secs is -1; expected more": "--set timeout_secs is -1; expected more",
            "$.limits.stdout_bytes is 0; expected more": "--set limits.stdout_bytes is 0; expected "
                                                         "more",
            '$.user is "a:"; expected a user': "the image's user is \"a:\"; expected a user",
            '$.workdir is "a"; expected /': '--workdir is "a"; expected /',
            '$.kernel_path: cannot open "/k": No such file or directory; expected an existing file; '
            "relative paths start at the job file's directory":
                '--kernel: cannot open "/k": No such file or directory; expected an existing file',
            "of these two only one": "of these two only one"}
        for options in ((), ("--verbose",)):
            done = self.run_it(*options, "-c", "99", "-w", "a", "--set", "timeout_secs=-1", "--set",
                               'limits={"stdout_bytes": 0}', self.image, "x", status=125,
                               stub={"problems": list(problems)})
            self.assertEqual(done.stderr.decode().splitlines(),
                             [f"bvmm-run: {text}" for text in problems.values()])
        self.assertFalse(os.path.exists(self.log), "bvmm was started")

    def test_bvmm_is_found_or_asked_for(self):
        done = self.run_it(self.image, "x", status=125, env={"BVMM": "/no/such/bvmm"})
        self.assertIn("BVMM=/no/such/bvmm", done.stderr.decode())
        bin_directory = self.path("bin")
        os.mkdir(bin_directory)
        os.symlink(self.env["BVMM"], bin_directory + "/bvmm")
        copy = self.path("installed/bin")
        os.makedirs(self.path("installed/lib"))
        run("cp", "-r", os.path.join(TOP, "tools", "lib"), self.path("installed/lib/bvmm"))
        os.mkdir(copy)
        run("cp", BVMM_RUN, copy)
        env = {k: v for k, v in self.env.items() if k != "BVMM"}
        env["PATH"] = bin_directory + ":" + env["PATH"]
        done = self.tool(self.image, "x", program=copy + "/bvmm-run", env=env)
        self.assertEqual(done.returncode, 0, done.stderr.decode())
        self.assertEqual(len(self.notes()), 2)


class Results(RunTest):
    def test_every_byte(self):
        done = self.run_it(self.image, "x", stub={"stdout": b64(ALL_BYTES), "stderr": b64(b"\xff")})
        self.assertEqual((done.stdout, done.stderr), (ALL_BYTES, b"\xff"))
        text = "caf\u00e9 \u202e\r\n no newline at the end".encode()
        done = self.run_it(self.image, "x", stub={"stdout": b64(text)})
        self.assertEqual((done.stdout, done.stderr), (text, b""))

    def test_much_output(self):
        much = os.urandom(3 << 20)
        label = json.dumps({"stdout": b64(much)})
        path = self.path("labels.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write(label)
        wrapper = self.path("wrapper")
        with open(wrapper, "w", encoding="utf-8") as file:
            file.write(f'#!/usr/bin/python3\nimport os, sys, runpy\n'
                       f'os.environ["STUB"] = open("{path}").read()\n'
                       f'runpy.run_path("{self.env["BVMM"]}", run_name="__main__")\n')
        os.chmod(wrapper, 0o755)
        done = self.run_it(self.image, "x", env={"BVMM": wrapper})
        self.assertEqual(hashlib.sha256(done.stdout).digest(), hashlib.sha256(much).digest())

    def test_exit_codes(self):
        for code in (0, 1, 42, 126, 127, 137, 255):
            done = self.run_it(self.image, "x", status=code,
                               stub={"report": {"exit_code": code}, "exit": 1 if code else 0})
            self.assertEqual(done.stderr, b"")

    def ended(self, status, expect, **more):
        report = {"status": status, "exit_code": None, **more}
        done = self.run_it(self.image, "x", status=expect,
                           stub={"report": report, "stdout": b64(b"so far"), "exit": 4})
        self.assertEqual(done.stdout, b"so far")
        return done.stderr.decode()

    def test_other_ends(self):
        error = {"kind": "Timeout", "message": "the deadline of 3 s passed"}
        said = self.ended("timeout", 124, error=error)
        self.assertEqual(said.count("the deadline of 3 s passed"), 1, "said once, by one of us")
        self.assertIn("cancelled", self.ended(
            "cancelled", 143, cancelled_by={"number": 15, "name": "SIGTERM"}))
        for status in ("guest_reset", "guest_triple_fault", "guest_error", "vm_error", "vm_killed",
                       "sandbox_violation"):
            self.assertIn(status.replace("_", " "), self.ended(status, 125))
        console = {"text": "a\n" * 50 + "Kernel panic\x1b[2J\n", "file": None, "total_bytes": 1,
                   "dropped_bytes": 0, "replaced_bytes": 0}
        said = self.ended("guest_panic", 125, console=console)
        self.assertIn("Kernel panic", said)
        self.assertNotIn("\x1b", said)
        self.assertLess(said.count("\n"), 30)
        self.assertEqual(self.ended("guest_shutdown", 0), "")

    def stream(self, **changes):
        data = b"part"
        digest = hashlib.sha256(data).hexdigest()
        return {"encoding": "utf-8", "data": "part", "file": None, "size_bytes": 4,
                "sha256": digest, "announced_bytes": 4, "announced_sha256": digest,
                "digest_ok": True, "truncated": False, "dropped_bytes": 0, "state": "complete",
                "via": "vsock", **changes}

    def test_what_is_missing_is_said(self):
        for changes, status, word in (
                ({"dropped_bytes": 9, "truncated": True}, 3, "9 bytes over the job's limit"),
                ({"truncated": True, "announced_bytes": 90}, 3, "cut short at 4 bytes"),
                ({"state": "broken"}, 125, "cut short on its way"),
                ({"state": "open"}, 125, "exit code was 3"),
                ({"digest_ok": False}, 125, "digest differs")):
            with self.subTest(changes):
                done = self.run_it(self.image, "x", status=status, stub={
                    "report": {"exit_code": 3, "stdout": self.stream(**changes)}})
                self.assertEqual(done.stdout, b"part")
                self.assertIn(word, done.stderr.decode())

    def test_the_report(self):
        path = self.path("r.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write("old")
        self.run_it("--report", path, self.image, "x", status=7,
                    stub={"report": {"exit_code": 7}})
        self.assertEqual(load(path)["exit_code"], 7)
        done = self.run_it("--report", "-", self.image, "x", stub={"stdout": b64(b"text")})
        self.assertEqual(json.loads(done.stdout)["stdout"]["data"], "text")
        with open(path, "w", encoding="utf-8") as file:
            file.write("old")
        self.run_it("--report", path, self.image, "x", status=125, stub={"none": True, "exit": 2})
        self.assertEqual(data_of(path), b"old")

    def test_no_report_or_a_bad_one(self):
        done = self.run_it(self.image, "x", status=125, stub={"none": True, "exit": 2})
        self.assertIn("left no report (its exit status was 2)", done.stderr.decode())
        self.assertIn("bvmm: here is why", done.stderr.decode())
        for garbage, word in (("{", "not valid JSON"), ("[]", "schema version"),
                              ('{"schema_version": 99}', "schema version 99")):
            done = self.run_it(self.image, "x", status=125, stub={"garbage": garbage})
            self.assertIn(word, done.stderr.decode())
        done = self.run_it(self.image, "x", status=5, stub={
            "spill": True, "exit": 6, "stdout": b64(b"kept"), "report": {"exit_code": 5}})
        self.assertEqual(done.stdout, b"kept")

    def file(self, path, data, **changes):
        digest = hashlib.sha256(data).hexdigest()
        return {"path": path, "encoding": "base64", "data": b64(data), "file": None,
                "size_bytes": len(data), "sha256": digest, "announced_bytes": len(data),
                "announced_sha256": digest, "digest_ok": True, "truncated": False,
                "path_base64": None, **changes}

    def test_output_files(self):
        here = self.path("here")
        os.mkdir(here)
        files = [self.file("/out/a", ALL_BYTES), self.file("/out/b", b"b"),
                 self.file("/log/../../../evil", b"1"), self.file("/log/evil", b"2"),
                 self.file("/log/-rf *\n", b"3"), self.file("/log/.hidden", b"4"),
                 self.file("/never/asked/for", b"5")]
        self.run_it("-o", "/out/a", "-o", "/out/b:" + self.path("there"), "-o", "/log/*:logs",
                    self.image, "x", stub={"report": {"output_files": files}}, cwd=here)
        self.assertEqual(data_of(here + "/a"), ALL_BYTES)
        self.assertEqual(data_of(self.path("there")), b"b")
        self.assertEqual(sorted(os.listdir(here)), ["a", "logs"])
        self.assertEqual(sorted(os.listdir(here + "/logs")),
                         ["_hidden", "_rf___", "evil", "evil.1"])
        self.assertEqual(data_of(here + "/logs/evil"), b"1")

    def test_output_files_that_did_not_come(self):
        missing = [{"path": "/out/a", "reason": "no_match", "text": "nothing there"}]
        done = self.run_it("-o", "/out/a", self.image, "x", status=125,
                           stub={"report": {"missing_files": missing}}, cwd=self.path())
        self.assertIn("/out/a: nothing there", done.stderr.decode())
        half = [self.file("/out/a", b"half", truncated=True, announced_bytes=8)]
        done = self.run_it("-o", "/out/a", self.image, "x", status=125,
                           stub={"report": {"output_files": half}}, cwd=self.path())
        self.assertIn("incomplete: 4 bytes of 8", done.stderr.decode())
        self.assertFalse(os.path.exists(self.path("a")))

    def test_large_outputs_stay_with_the_report(self):
        report = self.path("r.json")
        large = ("--set", 'large_outputs={"over_bytes": 0}')
        done = self.run_it("--report", report, *large, self.image, "x",
                           stub={"stdout": b64(b"large")})
        self.assertEqual(done.stdout, b"large")
        self.assertEqual(load(report)["stdout"]["file"], report + ".d/stdout")
        self.assertEqual(data_of(report + ".d/stdout"), b"large")
        done = self.run_it(*large, self.image, "x", stub={"stdout": b64(b"large")})
        self.assertEqual(done.stdout, b"large")
        done = self.run_it("--report", "-", *large, self.image, "x", status=125)
        self.assertIn('expected a "dir"', done.stderr.decode())
        done = self.run_it("--report", "-", "--set", 'large_outputs={"dir": "here"}', self.image,
                           "x", stub={"stdout": b64(b"large")}, cwd=self.dir)
        self.assertEqual(json.loads(done.stdout)["stdout"]["file"], self.path("here/stdout"))

    def test_a_reader_that_goes_away(self):
        env = dict(self.env, STUB=json.dumps({"stdout": b64(b"x" * 50000)}))
        process = subprocess.Popen([BVMM_RUN, "--report", self.path("r.json"), self.image, "x"],
                                   env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        process.stdout.close()
        said = process.stderr.read()
        process.stderr.close()
        self.assertEqual(process.wait(), 128 + signal.SIGPIPE)
        self.assertNotIn(b"Traceback", said)
        self.assertEqual(load(self.path("r.json"))["status"], "completed")


class Places(RunTest):
    """Where --report and --output go: nothing is replaced that is no regular file, what cannot be
    written is refused before the run, and nothing that the run brought is thrown away."""

    def device(self, name, minor):
        """A node of our own: the machine's are not for tests to put at risk."""
        path = self.path(name)
        try:
            os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            open(path, "wb").close()
        except OSError as error:
            self.skipTest(f"no device can be made here: {error.strerror}")
        return path

    def files(self):
        return {"output_files": [Results.file(self, "/out/a", b"of the guest")]}

    def test_devices_are_written_into(self):
        null, full = self.device("null", 3), self.device("full", 7)
        os.symlink(null, self.path("link"))
        for path in (null, self.path("link")):
            done = self.run_it("--report", path, "-o", f"/out/a:{path}", self.image, "x",
                               stub={"stdout": b64(b"said"), "report": self.files()})
            self.assertEqual((done.stdout, done.stderr), (b"said", b""))
        for path in (null, full):
            self.assertTrue(stat.S_ISCHR(os.lstat(path).st_mode))
        self.assertTrue(os.path.islink(self.path("link")))

    def test_a_full_device_loses_nothing(self):
        full = self.device("full", 7)
        done = self.tool("--report", full, "-o", f"/out/a:{full}", self.image, "x",
                         program=BVMM_RUN, env=dict(self.env, STUB=json.dumps(
                             {"stdout": b64(b"said"), "report": self.files()})))
        self.assertTrue(stat.S_ISCHR(os.lstat(full).st_mode))
        self.assert_kept(done, f"{full}: No space left on device", "full", "full.1")

    def assert_kept(self, done, why, file, report_file):
        """The results are in a directory that the messages name."""
        said = done.stderr.decode()
        self.assertEqual((done.returncode, done.stdout), (125, b"said"), said)
        self.assertIn("exit code was 0, but", said)
        self.assertEqual(said.count(why), 2, said)
        (kept,) = (os.path.join(self.work, name) for name in os.listdir(self.work))
        self.assertEqual(sorted(os.listdir(kept)), sorted([file, report_file]))
        self.assertEqual(data_of(os.path.join(kept, file)), b"of the guest")
        self.assertEqual(load(os.path.join(kept, report_file))["status"], "completed")
        for name in (file, report_file):
            self.assertIn(f"kept as {os.path.join(kept, name)}\n", said)

    def test_a_directory_that_goes_during_the_run(self):
        gone = self.path("gone")
        os.mkdir(gone)
        done = self.tool("--report", gone + "/r.json", "-o", f"/out/a:{gone}/a", self.image, "x",
                         program=BVMM_RUN, env=dict(self.env, STUB=json.dumps(
                             {"stdout": b64(b"said"), "report": self.files(), "remove": gone})))
        self.assertIn(f"{gone}/r.json: No such file", done.stderr.decode())
        self.assertIn(f"{gone}/a: No such file", done.stderr.decode())
        self.assert_kept(done, "No such file", "a", "r.json")

    def test_no_place_at_all(self):
        """Not even a temporary directory takes it: the report is on standard error."""
        done = self.tool("--report", self.path("gone/r.json"), self.image, "x", program=BVMM_RUN,
                         env=dict(self.env, STUB=json.dumps({"stdout": b64(b"said")})))
        self.assertEqual(done.returncode, 125)  # there is no such directory to begin with
        gone = self.path("gone")
        os.mkdir(gone)
        temporary = os.path.join(gone, "tmp")
        os.mkdir(temporary)
        done = self.tool("--report", gone + "/r.json", self.image, "x", program=BVMM_RUN,
                         env=dict(self.env, TMPDIR=temporary, STUB=json.dumps(
                             {"stdout": b64(b"said"), "remove": gone, "spill": True})))
        self.assertEqual((done.returncode, done.stdout), (125, b"said"), done.stderr)
        head, _, tail = done.stderr.decode().partition("this is the report:\n")
        self.assertIn(f"{gone}/r.json: No such file", head)
        self.assertEqual(json.JSONDecoder().raw_decode(tail)[0]["status"], "completed")

    def test_a_pipe_is_written_into(self):
        pipe = self.path("pipe")
        os.mkfifo(pipe)
        with open(self.path("r.json"), "wb") as out:
            reader = subprocess.Popen(["cat", pipe], stdout=out, stderr=subprocess.DEVNULL)
        self.addCleanup(reader.kill)
        self.run_it("--report", pipe, self.image, "x", timeout=30)
        self.assertEqual(reader.wait(30), 0)
        self.assertEqual(load(self.path("r.json"))["status"], "completed")
        self.assertTrue(stat.S_ISFIFO(os.lstat(pipe).st_mode))
        done = subprocess.run(
            ["bash", "-c", '"$0" --report >(cat >"$1") "$2" x; sleep 0.2', BVMM_RUN,
             self.path("from-shell"), self.image], env=dict(self.env, STUB="{}"), check=True,
            stderr=subprocess.PIPE)
        self.assertEqual(load(self.path("from-shell"))["status"], "completed", done.stderr)

    def test_refused_before_the_run(self):
        os.mkdir(self.path("dir"))
        for name, target in (("link", "regular"), ("dangling", "nothing"), ("to-dir", "dir")):
            os.symlink(target, self.path(name))
        for name in ("regular", "stdin"):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(name)
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind(self.path("socket"))
        before = sorted(os.listdir(self.dir))
        for place, word in (
                ("link", "is a symbolic link"), ("dangling", "is a symbolic link"),
                ("to-dir", "is a symbolic link"), ("dir", "is a directory"),
                ("dir/", "expected the name of a file"), ("socket", "is a socket"),
                ("no/such/dir/r", "no such directory"), ("regular/r", "no such directory"),
                ("plain.squashfs", "is IMAGE"), ("stdin", "is --stdin")):
            for option in (("--report", place), ("-o", "/out/a:" + place)):
                with self.subTest(option):
                    done = self.run_it(*option, "-i", "stdin", self.image, "x", status=125,
                                       cwd=self.dir)
                    self.assertIn(word, done.stderr.decode())
        for argv, word in (
                (("--report", ""), "expected the name of a file"),
                (("-o", "/out/*:regular"), "is no directory"),
                (("-o", "/out/*:dangling/x"), "is no directory"),
                (("-o", "/x/a", "-o", "/y/a"), "goes to the same file"),
                (("-o", "/x/r", "--report", "../" + os.path.basename(self.dir) + "/r"),
                 "goes to the same file")):
            with self.subTest(argv):
                done = self.run_it(*argv, self.image, "x", status=125, cwd=self.dir)
                self.assertIn(word, done.stderr.decode())
        self.assertEqual(sorted(os.listdir(self.dir)), before)
        self.assertEqual(data_of(self.path("regular")), b"regular")
        self.assertFalse(os.path.exists(self.log), "bvmm was started")

    def test_what_may_not_be_written(self):
        os.mkdir(self.path("closed"), 0o555)
        for path in (self.dir, self.work):
            os.chmod(path, 0o777)
        for option in (("--report", "closed/r"), ("-o", "/out/a:closed/a"),
                       ("-o", "/out/*:closed/new")):
            done = self.tool(*option, self.image, "x", program=BVMM_RUN, cwd=self.dir,
                             user=NOBODY if os.geteuid() == 0 else None)
            self.assertEqual(done.returncode, 125)
            self.assertIn("may not be written to", done.stderr.decode())
        self.assertFalse(os.path.exists(self.log), "bvmm was started")

    def test_names_in_a_directory_that_are_no_files(self):
        """The guest chooses the names: a link that is there already stays as it is."""
        os.mkdir(self.path("logs"))
        os.symlink("/nowhere", self.path("logs/evil"))
        files = [Results.file(self, "/log/evil", b"1"), Results.file(self, "/log/good", b"2")]
        done = self.tool("-o", "/log/*:logs", self.image, "x", program=BVMM_RUN, cwd=self.dir,
                         env=dict(self.env, STUB=json.dumps({"report": {"output_files": files}})))
        self.assertEqual(done.returncode, 125)
        self.assertIn("logs/evil: is a symbolic link", done.stderr.decode())
        self.assertTrue(os.path.islink(self.path("logs/evil")))
        self.assertEqual(data_of(self.path("logs/good")), b"2")

    def test_a_long_name(self):
        name = "r" * 255
        self.run_it("--report", name, self.image, "x", cwd=self.dir)
        self.assertEqual(load(self.path(name))["status"], "completed")


class Signals(RunTest):
    def start(self, **stub):
        env = dict(self.env, STUB=json.dumps({"sleep": PATIENCE_S, **stub}))
        process = subprocess.Popen([BVMM_RUN, self.image, "x"], env=env, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE)
        self.wait_for_a_start()
        return process

    def wait_for_a_start(self):
        deadline = time.monotonic() + PATIENCE_S
        while not os.path.exists(self.log) or os.path.getsize(self.log) == 0:
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        time.sleep(0.1)

    def test_signals_cancel_the_run(self):
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            process = self.start(stdout=b64(b"so far"))
            process.send_signal(signum)
            out, said = process.communicate(timeout=PATIENCE_S)
            self.assertEqual(process.returncode, 128 + signum, said)
            self.assertEqual(out, b"so far")
            self.assertIn(b"cancelled", said)
            # bvmm is told the same signal, unless it would die of it.
            told = signal.SIGTERM if signum == signal.SIGQUIT else signum
            self.assertEqual((self.notes()[-1]["what"], self.notes()[-1]["signal"]),
                             ("cancelled", told))
            self.assertEqual(os.listdir(self.work), [])
            os.unlink(self.log)

    def test_ctrl_c_in_a_terminal_reaches_bvmm_once(self):
        """The terminal signals the whole group; bvmm must get one SIGINT, through bvmm-run."""
        env = dict(self.env, STUB=json.dumps({"sleep": PATIENCE_S, "linger": 0.3}))
        process = subprocess.Popen([BVMM_RUN, self.image, "x"], env=env, start_new_session=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.wait_for_a_start()
        self.assertNotEqual(os.getsid(self.notes()[0]["pid"]), os.getsid(process.pid))
        os.killpg(process.pid, signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE_S), 130)
        self.assertEqual([n.get("signal") for n in self.notes()], [None, int(signal.SIGINT)])

    def test_bvmm_does_not_outlive_a_killed_bvmm_run(self):
        process = self.start()
        process.kill()
        process.communicate()
        deadline = time.monotonic() + PATIENCE_S
        while self.notes()[-1]["what"] != "cancelled":
            self.assertLess(time.monotonic(), deadline, "bvmm lives on")
            time.sleep(0.02)
        self.run_it(self.image, "x")  # and what the dead one left is swept


if __name__ == "__main__":
    unittest.main()
