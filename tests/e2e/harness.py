# SPDX-License-Identifier: MIT OR Apache-2.0
"""What scenarios are written with: a run of bvmm and what came of it, and how to say what is expected of it.

A scenario is a generator: it yields one run (or a list of them), gets back what came of it (or the list), and raises
Failed where that is not what it should be. All runs of all scenarios are made in one boot of the lab; the checks are
made outside of it.
"""

import base64
import hashlib
import json
import os
import secrets

RUN_LIMIT_S = 60   # over the job's own timeout
TOKEN = "TOKEN"    # the variable that carries a run's token


class Failed(Exception):
    """What a scenario found is not what it should be."""


class Skipped(Exception):
    """A scenario cannot run here; its text says why."""


def expect(condition, text):
    if not condition:
        raise Failed(text)


def same(got, wanted, what):
    expect(got == wanted, f"{what}: got {shorten(got)}, expected {shorten(wanted)}")


def shorten(value, limit=300):
    text = repr(value)
    return text if len(text) <= limit else f"{text[:limit]}... ({len(text)} characters)"


# The guest proves with this that it ran: only it and the checks outside know the token.
PROVE = 'printf %s "$TOKEN" | sha256sum | cut -c 1-64'


def shell(script, prove=True):
    """A command of a job: a script, and then the proof."""
    return ["/bin/sh", "-c", f"set -e\n{script}\n" + (PROVE if prove else "")]


class Run:
    """A run of bvmm. job: what differs from the usual one; None: the job's text is in text.
    argv: instead of running the job. files: what else is needed beside the job, {name: bytes}. watch: when_running().
    host: run it outside of the lab. alone: with nothing beside it. bare: the job is complete as it is. cpus: what its host
    must have at least."""

    def __init__(self, job=None, *, text=None, argv=None, args=(), files=None, stdin=None, env=None, watch=None,
                 alone=False, report="report.json", wrap=(), bare=False, host=False, cpus=1):
        self.token = secrets.token_hex(16)
        self.job, self.text, self.argv, self.args = job, text, argv, list(args)
        self.files, self.stdin, self.env = files or {}, stdin, env or {}
        self.watch, self.alone, self.report, self.wrap, self.bare = watch, alone, report, list(wrap), bare
        self.host, self.cpus = host, cpus
        self.dir = None

    def full_job(self, defaults):
        if self.bare:
            return self.job
        job = {**defaults, **self.job}
        if self.report:
            job["report_path"] = self.report
        if "command" in job:
            job["env"] = {TOKEN: self.token, **job.get("env", {})}
        return {key: value for key, value in job.items() if value is not None}

    def write(self, base, directory, defaults):
        """The run's directory with the job in it."""
        self.dir = directory
        path = os.path.join(base, directory)
        os.makedirs(path)
        text = self.text
        if self.job is not None:
            job = self.full_job(defaults)
            self.timeout_s = job.get("timeout_secs", 300)
            text = json.dumps(job, indent=1)
        if text is not None:
            with open(os.path.join(path, "job.json"), "w", encoding="utf-8") as file:
                file.write(text)
        for name, content in self.files.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(content)

    def plan(self, bvmm):
        """For the driver. bvmm: the path of the program, there."""
        argv = self.argv if self.argv is not None else ["--json-config", "job.json"]
        return {
            "dir": self.dir,
            "argv": [*self.wrap, bvmm, *argv, *self.args],
            "env": self.env,
            "stdin": os.path.join(self.dir, self.stdin) if self.stdin else None,
            "watch": self.watch,
            "alone": self.alone,
            "limit_s": getattr(self, "timeout_s", 60) + RUN_LIMIT_S,
        }


def when_running(*steps):
    """For Run's watch, with --verbose: steps after the command has started. (seconds, signal's name) sends a signal;
    (seconds, None) counts how often each thread has slept."""
    return {"when_stderr": "running", "steps": [{"after_s": after_s, "signal": name} if name else {"after_s": after_s}
                                                for after_s, name in steps]}


class Outcome:
    """What came of a run."""

    def __init__(self, run, base, told, validate):
        self.run, self.told = run, told
        self.path = os.path.join(base, run.dir)
        expect("error" not in told, f"the driver could not run it: {told.get('error')}")
        self.status, self.wall_s = told["status"], told["wall_s"]
        self.out, self.err = self.read("stdout"), self.read("stderr").decode(errors="replace")
        expect(self.status is not None, f"bvmm did not end by itself and was killed after {self.wall_s:.0f} s; {self}")
        self.report = self.read_report(validate)
        same(told["left_over"], [], "processes that are left over")

    def __str__(self):
        words = [f"exit status {self.status}", f"stderr {self.err[-400:]!r}"]
        report = getattr(self, "report", None)
        if report:
            words.append(f"report: status {report['status']}, exit code {report['exit_code']}, "
                         f"error {report['error']}, console's end {(report['console']['text'] or '')[-400:]!r}")
        return "; ".join(words)

    def read(self, name):
        with open(os.path.join(self.path, name), "rb") as file:
            return file.read()

    def exists(self, name):
        return os.path.exists(os.path.join(self.path, name))

    def read_report(self, validate):
        name = "stdout" if self.run.report == "-" else self.run.report
        if not name or not self.exists(name) or not self.read(name):
            return None
        report = json.loads(self.read(name))
        validate(report)
        return report

    # --- what is expected ---

    def ended(self, status, bvmm_status):
        """The report's status, and bvmm's exit status. Every stream that has a digest has the right one."""
        expect(self.report is not None, f"no report; {self}")
        expect(self.report["status"] == status and self.status == bvmm_status,
               f"expected {status} and exit status {bvmm_status}; {self}")
        for name in ("stdout", "stderr"):
            self.stream(name)
        same(self.report["device_faults"], [], "devices that are out of service")
        return self

    def completed(self, code=0, signal=None):
        """The command ran to its end; all that it wrote is here."""
        self.ended("completed", 0 if code == 0 else 1)
        same(self.report["exit_code"], code, f"exit code ({self})")
        same((self.report["signal"] or {}).get("number"), signal, "signal")
        for name in ("stdout", "stderr"):
            stream = self.report[name]
            same((stream["truncated"], stream["digest_ok"]), (False, True), f"{name}: truncated and digest_ok")
            same(stream["size_bytes"], stream["announced_bytes"], f"{name}: size and what the guest says")
        order = ["process_start_ns", "job_ready_ns", "vm_process_start_ns", "setup_done_ns", "guest_init_ns",
                 "command_start_ns", "command_end_ns", "results_complete_ns", "stop_decided_ns", "actors_stopped_ns",
                 "vm_process_end_ns"]
        points = [self.report["timings"]["points"][name] for name in order]
        expect(None not in points and points == sorted(points), f"the points of time are not in order: {points}")
        states = {actor["name"]: actor["state"] for actor in self.report["actors"]}
        expect(set(states.values()) == {"stopped"}, f"not every actor stopped: {states}")
        return self

    def proved(self):
        """The last line of the output is what only the guest can have made of the token."""
        want = hashlib.sha256(self.run.token.encode()).hexdigest()
        lines = self.text("stdout").splitlines()
        expect(lines and lines[-1] == want, f"the digest of the token is not the last line of stdout: "
               f"{shorten(lines[-3:])}, expected {want}")
        return self

    def stream(self, name):
        return self.content(self.report[name], name)

    def content(self, stream, name):
        """The bytes of a stream or an output file, after a look at its size and digest."""
        if stream["file"] is not None:
            data = self.read(stream["file"])
        elif stream["encoding"] == "base64":
            data = base64.b64decode(stream["data"], validate=True)
        else:
            data = stream["data"].encode()
        same(len(data), stream["size_bytes"], f"{name}: size")
        same(hashlib.sha256(data).hexdigest(), stream["sha256"], f"{name}: sha256")
        return data

    def text(self, name):
        return self.stream(name).decode(errors="replace")

    def has(self, where, *parts):
        text = {"stderr of bvmm": lambda: self.err, "console": lambda: self.report["console"]["text"],
                "error": lambda: (self.report["error"] or {}).get("message", "")}.get(where, lambda: self.text(where))()
        for part in parts:
            expect(part in text, f"{where}: {part!r} is not in {shorten(text[-2000:], 2200)}")
        return self

    def output_file(self, path):
        for file in self.report["output_files"]:
            if file["path"] == path:
                return self.content(file, path)
        raise Failed(f"no output file {path}; there are {[file['path'] for file in self.report['output_files']]}, "
                     f"missing: {self.report['missing_files']}")

    def actor(self, name):
        for actor in self.report["actors"]:
            if actor["name"] == name:
                return actor
        raise Failed(f"no actor {name} in the report")


# --- the table of scenarios ---

SCENARIOS = []


def scenario(name, needs=()):
    """needs: functions of the place (run.Place) that give a reason why the scenario cannot run there, or None."""
    def add(function):
        SCENARIOS.append((name, needs, function))
        return function
    return add
