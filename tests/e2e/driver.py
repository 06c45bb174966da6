#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run bvmm as a plan says, and tell what it did; judge nothing. This part runs where the guests run: in the lab, or on
a machine whose KVM can run them.

usage: driver.py PLAN LANES
PLAN is a JSON list of runs (harness.Run.plan). A line of JSON on standard output for each run, when it has ended, and
{"beat_ns": ...} every few seconds. Paths are relative to the directory of PLAN.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

BEAT_S = 5


class Watch:
    """Waits until the run's standard error has the words that the plan names. Then it sends a signal, or notes how often
    each thread of the run has slept, at the times that the plan says."""

    def __init__(self, plan, path, mark):
        self.mark = mark
        self.words = plan["when_stderr"].encode()
        self.todo = list(plan["steps"])
        self.path = path
        self.seen_at = None
        self.sent_at = None
        self.samples = []

    def look(self, process):
        if self.seen_at is None:
            with open(self.path, "rb") as file:
                if self.words not in file.read():
                    return
            self.seen_at = time.monotonic()
        while self.todo and time.monotonic() >= self.seen_at + self.todo[0]["after_s"]:
            step = self.todo.pop(0)
            if "signal" in step:
                process.send_signal(getattr(signal, step["signal"]))
                self.sent_at = time.monotonic()
            else:
                self.samples.append(switches(self.mark))


def switches(mark):
    """Thread's name to how often it gave up its CPU by itself, for the threads of a run."""
    found = {}
    for pid in members(mark):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8", errors="replace") as file:
                    facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
                found[facts["Name"]] = int(facts["voluntary_ctxt_switches"])
        except OSError:  # it has just ended
            continue
    return found


def members(mark):
    """The processes of a run: they keep its mark in their environment, whatever namespace they go into."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/environ", "rb") as file:
                    if mark in file.read().split(b"\0"):
                        found.append(int(name))
            except OSError:
                continue
    return found


def wait(process, limit_s, watch):
    """The exit status; None: it was killed, because it ran longer than limit_s."""
    deadline = time.monotonic() + limit_s
    while True:
        if watch is None or not watch.todo:
            step = deadline - time.monotonic()
        else:
            watch.look(process)
            step = 0.02
        try:
            return process.wait(timeout=max(step, 0.001))
        except subprocess.TimeoutExpired:
            if time.monotonic() >= deadline:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return None


def open_stdin(plan, base):
    if plan["stdin"] is None:
        return subprocess.DEVNULL
    return open(os.path.join(base, plan["stdin"]), "rb")


def run(plan, base):
    directory = os.path.join(base, plan["dir"])
    paths = {name: os.path.join(directory, name) for name in ("stdout", "stderr")}
    mark = f"BVMM_E2E_RUN={plan['dir']}"
    watch = Watch(plan["watch"], paths["stderr"], mark.encode()) if plan["watch"] else None
    with open(paths["stdout"], "wb") as out, open(paths["stderr"], "wb") as err:
        start = time.monotonic()
        process = subprocess.Popen(plan["argv"], cwd=directory, stdin=open_stdin(plan, base), stdout=out, stderr=err,
                                   start_new_session=True, env={**os.environ, **plan["env"], "BVMM_E2E_RUN": plan["dir"]})
        status = wait(process, plan["limit_s"], watch)
        end = time.monotonic()
    return {
        "dir": plan["dir"],
        "status": status,
        "wall_s": end - start,
        "signal_to_end_s": end - watch.sent_at if watch and watch.sent_at else None,
        "samples": watch.samples if watch else [],
        "left_over": left_over(mark.encode()),
    }


def left_over(mark):
    """Processes of the run that outlived it."""
    found = []
    for pid in members(mark):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
                found.append(f"{pid} {file.read().strip()}")
        except OSError:
            continue
    return found


def take(plan, base):
    """Several labs may have this plan: each run is made in the first that takes it."""
    try:
        os.mkdir(os.path.join(base, plan["dir"], "taken"))
        return True
    except FileExistsError:
        return False


class Teller:
    """Lines of JSON on standard output, and a sign of life every few seconds: a lab that hangs is known by its silence."""

    def __init__(self):
        self.lock = threading.Lock()
        threading.Thread(target=self.beat, daemon=True).start()

    def tell(self, result):
        with self.lock:
            print(json.dumps(result), flush=True)

    def beat(self):
        while True:
            self.tell({"beat_ns": time.monotonic_ns()})
            time.sleep(BEAT_S)


def work(todo, base, teller):
    while True:
        try:
            plan = todo.get_nowait()
        except queue.Empty:
            return
        if not take(plan, base):
            continue
        try:
            result = run(plan, base)
        except Exception as error:  # the plan is wrong: the run is not there, and that is told
            result = {"dir": plan["dir"], "error": repr(error)}
        teller.tell(result)


def main():
    plan_path, lanes = sys.argv[1], int(sys.argv[2])
    base = os.path.dirname(os.path.abspath(plan_path))
    with open(plan_path, encoding="utf-8") as file:
        plans = json.load(file)
    teller = Teller()
    # A shell that started us in the background has SIGINT ignored, and a program keeps what it inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    # First those that bear company, then those that are measured.
    for alone in (False, True):
        todo = queue.SimpleQueue()
        for plan in plans:
            if plan["alone"] == alone:
                todo.put(plan)
        threads = [threading.Thread(target=work, args=(todo, base, teller)) for _ in range(1 if alone else lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
