# SPDX-License-Identifier: MIT OR Apache-2.0
"""The example runner, with a stub in place of bvmm: order, locks, and kill -9 at any moment."""

import base64
import fcntl
import json
import os
import random
import signal
import subprocess
import time
import unittest

from support import HERE, PATIENCE_S, RUNNER, SEED, TOP, ImageTest, load

KILL_ROUNDS = 25
JOBS = 8


class RunnerTest(ImageTest):
    def setUp(self):
        super().setUp()
        self.root = self.path("root")
        self.locks = self.path("locks")
        os.makedirs(self.root + "/pending")
        os.mkdir(self.locks)
        self.log = self.path("stub.log")
        self.env.update(BVMM=os.path.join(HERE, "stub-bvmm"), STUB_LOG=self.log)
        self.env.pop("STUB", None)

    def put(self, name, root=None, **stub):
        """A job, put in place by renaming, as users are told to."""
        job = {"rootfs_path": "images/i.squashfs", "command": ["x"], "name": name,
               "labels": {"stub": json.dumps(stub)}}
        root = root or self.root
        temporary = f"{root}/pending/.{name}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(job, file)
        os.rename(temporary, f"{root}/pending/{name}.json")

    def argv(self, *more, root=None):
        return [RUNNER, root or self.root, "--lock-dir", self.locks, *more]

    def start(self, *more, **options):
        return subprocess.Popen(self.argv(*more, **options), env=self.env,
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def run_once(self, *more, status=0, **options):
        done = subprocess.run(self.argv("--once", *more, **options), env=self.env, timeout=PATIENCE_S,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, check=False)
        text = done.stderr.decode()
        self.assertEqual(done.returncode, status, text)
        self.assertNotIn("Traceback", text)
        return text

    def ids(self, state, root=None):
        path = os.path.join(root or self.root, state)
        return sorted(n for n in os.listdir(path) if not n.startswith(".")) \
            if os.path.isdir(path) else []

    def result(self, name, state="done"):
        return load(f"{self.root}/{state}/{name}/result.json")

    def notes(self):
        if not os.path.exists(self.log):
            return []
        with open(self.log, encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def starts(self):
        return [note["name"] for note in self.notes() if note["what"] == "start"]

    def wait_for(self, condition, what="it never happened"):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            self.assertLess(time.monotonic(), deadline, what)
            time.sleep(0.01)


class Jobs(RunnerTest):
    def test_oldest_first_each_once_and_consumed(self):
        for name in ("c", "a", "b"):
            self.put(name)
            time.sleep(0.01)
        self.run_once()
        self.assertEqual(self.starts(), ["c", "a", "b"])
        self.assertEqual(self.ids("done"), ["a", "b", "c"])
        self.assertEqual(self.ids("pending") + self.ids("running") + self.ids("failed"), [])
        self.assertEqual(sorted(os.listdir(self.root + "/done/a")), [
            "bvmm.log", "job.json", "report.json", "result.json", "started.json"])
        result = self.result("a")
        self.assertEqual((result["state"], result["status"], result["exit_code"]),
                         ("done", "completed", 0))
        self.assertEqual(len(result["attempts"]), 1)
        self.assertEqual(load(self.root + "/done/a/report.json")["job"]["name"], "a")

    def test_relative_paths_start_at_the_root(self):
        self.put("a")
        self.run_once()
        note = self.notes()[0]
        self.assertEqual(note["cwd"], self.root)
        self.assertIn("-", note["argv"][note["argv"].index("--json-config") + 1])

    def test_what_fails(self):
        data = b"out"
        self.put("code", report={"exit_code": 3}, exit=1)
        self.put("late", report={"status": "timeout", "exit_code": None, "error": {
            "kind": "Timeout", "message": "3 s are over"}}, exit=124)
        self.put("nothing", none=True, exit=2)
        self.put("garbage", garbage="{")
        broken = {"encoding": "utf-8", "data": "out", "file": None, "size_bytes": 3,
                  "sha256": "0" * 64, "announced_bytes": 9, "announced_sha256": None,
                  "digest_ok": None, "truncated": True, "dropped_bytes": 0, "state": "broken",
                  "via": "vsock"}
        self.put("lost", report={"stdout": broken}, stdout=base64.b64encode(data).decode())
        self.run_once(status=1)
        self.assertEqual(self.ids("failed"), ["code", "garbage", "late", "lost", "nothing"])
        reasons = {name: self.result(name, "failed")["reason"] for name in self.ids("failed")}
        self.assertIn("exit code 3", reasons["code"])
        self.assertIn("3 s are over", reasons["late"])
        self.assertIn("exit status 2", reasons["nothing"])
        self.assertIn("not valid JSON", reasons["garbage"])
        self.assertIn("cut short", reasons["lost"])

    def test_jobs_that_cannot_be_read_do_not_stop_the_runner(self):
        with open(self.root + "/pending/huge.json", "wb") as file:
            file.truncate(9 << 20)
        os.mkdir(self.root + "/pending/directory.json")
        os.symlink("nowhere", self.root + "/pending/link.json")
        with open(self.root + "/pending/.half.json", "wb") as file:
            file.write(b"{")
        with open(self.root + "/pending/half.json.tmp", "wb") as file:
            file.write(b"{")
        self.put("good")
        self.run_once(status=1)
        self.assertEqual(self.ids("done"), ["good"])
        self.assertIn("larger than", self.result("huge", "failed")["reason"])
        self.assertEqual(self.ids("pending"), ["directory.json", "half.json.tmp", "link.json"])

    def test_the_same_name_again(self):
        for _ in range(3):
            self.put("a")
            self.run_once()
        self.assertEqual(self.ids("done"), ["a", "a.2", "a.3"])
        self.assertEqual(self.result("a.3")["id"], "a.3")

    def test_a_waiting_runner_takes_new_jobs(self):
        runner = self.start()
        self.addCleanup(runner.stderr.close)
        time.sleep(0.3)
        self.put("later")
        self.wait_for(lambda: self.ids("done") == ["later"])
        runner.send_signal(signal.SIGTERM)
        self.assertEqual(runner.wait(PATIENCE_S), 128 + signal.SIGTERM)


    def test_the_example_job_is_a_good_one(self):
        try:
            import jsonschema
        except ImportError:
            self.skipTest("needs python3-jsonschema")
        schema = load(os.path.join(TOP, "schemas", "job.schema.json"))
        job = load(os.path.join(os.path.dirname(RUNNER), "job.json"))
        jsonschema.Draft202012Validator(schema).validate(job)


class Cpus(RunnerTest):
    def overlaps(self):
        """Pairs of runs that overlapped in time, from the stub's own clock."""
        spans = {}
        for note in self.notes():
            spans.setdefault(note["pid"], []).append(note["at"])
        ordered = sorted(span for span in spans.values() if len(span) == 2)
        return [(a, b) for a, b in zip(ordered, ordered[1:]) if b[0] < a[1]]

    def test_two_runners_never_run_at_once(self):
        other = self.path("other")
        os.makedirs(other + "/pending")
        for number in range(4):
            self.put(f"a{number}", sleep=0.1)
            self.put(f"b{number}", root=other, sleep=0.1)
        one = self.start("--once")
        two = self.start("--once", root=other)
        same = self.start("--once")  # and a second one on the first directory
        for runner in (one, two, same):
            said = runner.communicate(timeout=PATIENCE_S)[1].decode()
            self.assertEqual(runner.returncode, 0, said)
        self.assertEqual(sorted(self.starts()), sorted([f"a{n}" for n in range(4)]
                                                       + [f"b{n}" for n in range(4)]))
        self.assertEqual(self.overlaps(), [])

    def test_other_cpus_run_beside(self):
        cpus = sorted(os.sched_getaffinity(0))
        if len(cpus) < 2:
            self.skipTest("needs two CPUs")
        other = self.path("other")
        os.makedirs(other + "/pending")
        for seconds in (3, 10, 30):  # on a loaded machine one may be over before the other begins
            if os.path.exists(self.log):
                os.unlink(self.log)
            self.put("a", sleep=seconds)
            self.put("b", root=other, sleep=seconds)
            one = self.start("--once", "--cpus", str(cpus[0]))
            two = self.start("--once", "--cpus", str(cpus[1]), root=other)
            for runner in (one, two):
                self.assertEqual(runner.communicate(timeout=PATIENCE_S)[1] and runner.returncode, 0)
            if self.overlaps():
                break
        self.assertEqual(len(self.overlaps()), 1)
        self.assertEqual(sorted(n["cpus"] for n in self.notes() if n["what"] == "start"),
                         [[cpus[0]], [cpus[1]]])

    def test_the_lock_of_somebody_else_is_waited_for(self):
        cpu = min(os.sched_getaffinity(0))
        path = f"{self.locks}/bvmm-cpu-{cpu}.lock"
        with open(path, "w", encoding="utf-8") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            self.put("a")
            runner = self.start("--once", "--cpus", str(cpu))
            self.wait_for(lambda: self.ids("running") == ["a"])
            time.sleep(0.3)
            self.assertEqual(self.starts(), [])
            runner.send_signal(signal.SIGTERM)  # stopped while it waits: the job is not lost
            self.assertEqual(runner.wait(PATIENCE_S), 143)
            self.assertIn(b"waiting", runner.stderr.read())
            runner.stderr.close()
        self.run_once("--cpus", str(cpu))
        self.assertEqual(self.ids("done"), ["a"])
        self.assertEqual(self.starts(), ["a"])

    def test_bad_cpu_lists(self):
        for text in ("x", "1-", "", ",", "99999"):
            done = subprocess.run(self.argv("--cpus", text, "--once"), env=self.env,
                                  stderr=subprocess.PIPE, check=False)
            if text:  # an empty list is as none
                self.assertEqual(done.returncode, 1, text)
                self.assertIn(b"--cpus", done.stderr)


class Crash(RunnerTest):
    def settle(self, *more):
        """Let a later runner deal with what is left, once the dead one's bvmm is gone."""
        def gone(pid):
            return not os.path.exists(f"/proc/{pid}")

        self.wait_for(lambda: all(gone(note["pid"]) for note in self.notes()),
                      "bvmm outlives its runner")
        self.run_once_any(*more)

    def check_accounts(self, names):
        """Every job is in exactly one place; none ran more often than its result says."""
        places = {}
        for state in ("done", "failed"):
            for name in self.ids(state):
                self.assertNotIn(name, places)
                result = self.result(name, state)
                self.assertEqual(result["state"], state)
                places[name] = result
        self.assertEqual(sorted(places), sorted(names))
        self.assertEqual(self.ids("pending") + self.ids("running"), [])
        starts = self.starts()
        for name, result in places.items():
            self.assertLessEqual(starts.count(name), len(result["attempts"]), name)
            if result["state"] == "done":
                self.assertGreaterEqual(starts.count(name), 1, name)
                self.assertEqual(load(f"{self.root}/done/{name}/report.json")["status"],
                                 "completed")
        return places

    def test_kill_9_in_the_middle_of_a_run(self):
        self.put("a", sleep=PATIENCE_S)
        runner = self.start()
        self.wait_for(lambda: self.starts() == ["a"])
        runner.kill()
        runner.communicate()
        self.settle()
        places = self.check_accounts(["a"])
        self.assertEqual(places["a"]["status"], "interrupted")
        self.assertIn("interrupted", places["a"]["attempts"][0]["outcome"])
        self.assertEqual(self.starts(), ["a"])

    def test_retry_says_so(self):
        self.put("a", sleep=3)
        runner = self.start("--retry", "1")
        self.wait_for(lambda: self.starts() == ["a"])
        runner.kill()
        runner.communicate()
        self.settle("--retry", "1")
        places = self.check_accounts(["a"])
        self.assertEqual(places["a"]["state"], "done")
        self.assertEqual(len(places["a"]["attempts"]), 2)
        self.assertIn("interrupted", places["a"]["attempts"][0]["outcome"])
        self.assertEqual(self.starts(), ["a", "a"])

    def test_a_lingering_bvmm_keeps_its_job_and_its_cpus(self):
        """The dead runner's bvmm takes its time to stop: nobody may touch the job or the CPUs."""
        self.put("a", sleep=PATIENCE_S, linger=1.5)
        self.put("b")
        runner = self.start()
        self.wait_for(lambda: self.starts() == ["a"])
        killed_at = time.monotonic()
        runner.kill()
        runner.communicate()
        self.run_once_any()
        self.assertEqual(self.starts(), ["a", "b"])
        notes = {(n["what"], n["name"]): n["at"] for n in self.notes()}
        self.assertGreater(notes["cancelled", "a"] - killed_at, 1.0)
        self.assertGreater(notes["start", "b"], notes["cancelled", "a"])
        self.run_once_any()
        self.check_accounts(["a", "b"])

    def run_once_any(self, *more):
        """Whether all jobs succeed or not."""
        subprocess.run(self.argv("--once", *more), env=self.env, timeout=PATIENCE_S, check=False,
                       stderr=subprocess.DEVNULL)

    def test_stopped_by_a_signal(self):
        self.put("a", sleep=PATIENCE_S)
        runner = self.start()
        self.wait_for(lambda: self.starts() == ["a"])
        runner.send_signal(signal.SIGINT)
        said = runner.communicate(timeout=PATIENCE_S)[1].decode()
        self.assertEqual(runner.returncode, 130, said)
        self.assertEqual(self.result("a", "failed")["status"], "cancelled")
        self.assertEqual(self.notes()[-1]["what"], "cancelled")

    def leftover(self, name, *files):
        """running/NAME as a dead runner leaves it at one step."""
        path = f"{self.root}/running/{name}"
        os.makedirs(path)
        self.put(name)
        source = f"{self.root}/pending/{name}.json"
        if "job.json" in files:
            os.rename(source, path + "/job.json")
        else:
            os.unlink(source)
        if "started.json" in files:
            with open(path + "/started.json", "w", encoding="utf-8") as file:
                json.dump({"attempts": [{"outcome": None}]}, file)
        if "report.json" in files:
            os.link(self.path("a-report.json"), path + "/report.json")

    def test_every_step_at_which_a_runner_can_die(self):
        self.put("ended")
        self.run_once()
        os.rename(self.root + "/done/ended/report.json", self.path("a-report.json"))
        os.rename(self.root + "/done/ended", self.path("away"))
        os.unlink(self.log)
        self.leftover("ended", "job.json", "started.json", "report.json")
        self.leftover("empty")
        self.leftover("claimed", "job.json")
        self.leftover("began", "job.json", "started.json")
        self.run_once(status=1)
        self.assertEqual(self.starts(), ["claimed"])
        self.assertEqual(self.ids("done"), ["claimed", "ended"])
        self.assertEqual(self.ids("failed"), ["began"])
        self.assertEqual(self.ids("running"), [])

    def test_kill_9_at_random_moments(self):
        rng = random.Random(SEED + 2)
        names, hit, round_number = [], False, -1
        while (round_number := round_number + 1) < KILL_ROUNDS \
                or (not hit and round_number < 5 * KILL_ROUNDS):
            for number in range(rng.randrange(1, 4)):
                name = f"r{round_number}-{number}"
                names.append(name)
                self.put(name, sleep=rng.choice((0, 0, 0.05, 0.2)))
            runner = self.start()
            time.sleep(rng.uniform(0.02, 0.6))
            runner.kill()
            runner.communicate()
            hit = hit or any(os.path.exists(f"{self.root}/running/{name}/started.json")
                             for name in self.ids("running"))
        deadline = time.monotonic() + PATIENCE_S
        while self.ids("pending") + self.ids("running"):
            self.assertLess(time.monotonic(), deadline)
            self.run_once_any()
        places = self.check_accounts(names)
        interrupted = sum(r["status"] == "interrupted" for r in places.values())
        if interrupted == 0:
            self.skipTest("no kill hit a run, which is chance: the test has tested nothing")
        self.assertLess(interrupted, len(names), "no run was left alone")
        starts = self.starts()
        self.assertEqual([n for n in names if starts.count(n) > 1], [])


class Metrics(RunnerTest):
    def schema_check(self, value):
        """The format's published shape, as far as it goes."""
        for by_measure in value.values():
            for metric in by_measure.values():
                self.assertIn("value", metric)
                self.assertLessEqual(set(metric), {"value", "lower_value", "upper_value"})
                for number in metric.values():
                    self.assertIsInstance(number, (int, float))

    def test_from_the_commands_times(self):
        self.put("bench")
        self.run_once("--bmf", "command")
        value = load(self.root + "/done/bench/bmf.json")
        self.schema_check(value)
        self.assertEqual(value, {"bench": {"latency": {"value": 1000}, "cpu-time": {"value": 42},
                                           "peak-memory": {"value": 4096}}})

    def test_what_is_unknown_is_left_out(self):
        self.put("probe")
        self.run_once()
        timings = load(self.root + "/done/probe/report.json")["timings"]
        timings["command_guest_ns"] = None
        self.put("bench", report={"timings": timings})
        self.run_once("--bmf", "command")
        value = load(self.root + "/done/bench/bmf.json")
        self.assertEqual(sorted(value["bench"]), ["cpu-time", "peak-memory"])

    def test_from_the_benchmark_itself(self):
        good = {"b": {"latency": {"value": 88.0, "lower_value": 87.42, "upper_value": 88.88}}}
        self.put("good", stdout=base64.b64encode(json.dumps(good).encode()).decode())
        self.run_once("--bmf", "stdout")
        self.assertEqual(load(self.root + "/done/good/bmf.json"), good)
        bad = {"text": b"not json", "shape": b'{"b": {"m": 5}}',
               "nan": b'{"b":{"m":{"value":NaN}}}',
               "empty": b"{}", "bool": b'{"b":{"m":{"value":true}}}',
               "key": b'{"b":{"m":{"value":1,"mean":2}}}'}
        for name, text in bad.items():
            self.put(name, stdout=base64.b64encode(text).decode())
        self.run_once("--bmf", "stdout", status=1)
        self.assertEqual(self.ids("failed"), sorted(bad))
        for name in bad:
            self.assertIn("no metrics", self.result(name, "failed")["reason"])
            self.assertFalse(os.path.exists(f"{self.root}/failed/{name}/bmf.json"))

    def test_an_output_file_that_is_not_there(self):
        self.put("a")
        self.run_once("--bmf", "/out/bmf.json", status=1)
        self.assertIn("no output file /out/bmf.json", self.result("a", "failed")["reason"])

    def test_several_runs_of_one_benchmark(self):
        self.put("probe")
        self.run_once()
        timings = load(self.root + "/done/probe/report.json")["timings"]
        for number, value in enumerate((30, 10, 20)):
            self.put(f"run{number}", report={
                "timings": {**timings, "command_guest_ns": value},
                "job": {**load(self.root + "/done/probe/report.json")["job"], "name": "bench"}})
        self.run_once()
        reports = [f"{self.root}/done/run{number}/report.json" for number in range(3)]
        done = subprocess.run([RUNNER, "bmf", *reports], stdout=subprocess.PIPE, check=True)
        value = json.loads(done.stdout)
        self.schema_check(value)
        self.assertEqual(value["bench"]["latency"],
                         {"value": 20, "lower_value": 10, "upper_value": 30})
        self.put("fails", report={"exit_code": 1})
        self.run_once(status=1)
        done = subprocess.run([RUNNER, "bmf", self.root + "/failed/fails/report.json"],
                              stderr=subprocess.PIPE, check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"only runs that succeeded", done.stderr)


if __name__ == "__main__":
    unittest.main()
