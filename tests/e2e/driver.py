#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run bvmm as a plan says, and tell what it did; judge nothing. This part runs where the guests run: in the lab, or on
a machine whose KVM can run them.

usage: driver.py PLAN LANES
PLAN is a JSON list of runs (harness.Run.plan). A line of JSON on standard output for each run, when it has ended, and
{"beat_ns": ...} every few seconds. Paths are relative to the directory of PLAN.
"""

import ctypes
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import outside

BEAT_S = 5
PR_SET_CHILD_SUBREAPER = 36
ORPHAN_GRACE_S = 1.0  # in which a process may still be on its way out: killed, and not yet gone


class Watch:
    """Waits until the run's standard error has the words that the plan names. Then it sends a signal, notes how often each
    thread of the run has slept, or looks at the VM process from outside, at the times that the plan says."""

    def __init__(self, plan, path):
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
            elif step.get("look") == "outside":
                self.samples.append([outside.look(pid) for pid in family(process.pid)])
            else:
                self.samples.append(switches(process.pid))


def switches(ancestor):
    """Thread's name to how often it gave up its CPU by itself, for the threads of a run."""
    found = {}
    for pid in family(ancestor):
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8", errors="replace") as file:
                    facts = dict(line.split(":\t", 1) for line in file.read().splitlines() if ":\t" in line)
                found[facts["Name"]] = int(facts["voluntary_ctxt_switches"])
        except OSError:  # it has just ended
            continue
    return found


def processes():
    """pid to (its parent's pid, its state), of all that /proc has."""
    found = {}
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            found[int(name)] = int(parent), state
        except OSError:  # it has just ended
            continue
    return found


def family(ancestor):
    """A process and all that descend from it, but what is dead already. A VM process has nothing in its environment by
    which it could be known, and a session and namespaces of its own; but it has a parent."""
    everybody = processes()
    found = [pid for pid in (ancestor,) if pid in everybody]
    for pid in found:  # grows while it is walked
        found += [child for child, (parent, _) in everybody.items() if parent == pid]
    return [pid for pid in found if everybody[pid][1] != "Z"]


class Nursery:
    """Knows the processes that the driver has started. What outlives its run becomes the driver's child without being one
    of them."""

    def __init__(self):
        self.lock = threading.Lock()
        self.own = set()
        if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")

    def start(self, *args, **options):
        with self.lock:
            process = subprocess.Popen(*args, **options)
            self.own.add(process.pid)
            return process

    def ended(self, process):
        with self.lock:
            self.own.discard(process.pid)

    def orphans(self):
        """Those that live, and what they descend to; those that are dead are taken from the table."""
        found = []
        with self.lock:
            for pid, (parent, state) in processes().items():
                if parent != os.getpid() or pid in self.own:
                    continue
                if state == "Z":
                    os.waitpid(pid, os.WNOHANG)
                else:
                    found.append(pid)
        return [member for pid in found for member in family(pid)]

    def left_over(self):
        """Processes that outlived their run, by now without doubt. Each is told once."""
        deadline = time.monotonic() + ORPHAN_GRACE_S
        while self.orphans() and time.monotonic() < deadline:
            time.sleep(0.02)
        found = self.orphans()
        with self.lock:
            self.own.update(found)
        return [f"{pid} {comm(pid)}" for pid in found]


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "(gone)"


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


def run(plan, base, nursery):
    directory = os.path.join(base, plan["dir"])
    paths = {name: os.path.join(directory, name) for name in ("stdout", "stderr")}
    watch = Watch(plan["watch"], paths["stderr"]) if plan["watch"] else None
    with open(paths["stdout"], "wb") as out, open(paths["stderr"], "wb") as err:
        start = time.monotonic()
        process = nursery.start(plan["argv"], cwd=directory, stdin=open_stdin(plan, base), stdout=out, stderr=err,
                                start_new_session=True, env={**os.environ, **plan["env"]})
        status = wait(process, plan["limit_s"], watch)
        end = time.monotonic()
        nursery.ended(process)
    return {
        "dir": plan["dir"],
        "status": status,
        "wall_s": end - start,
        "signal_to_end_s": end - watch.sent_at if watch and watch.sent_at else None,
        "samples": watch.samples if watch else [],
        "left_over": nursery.left_over(),
    }


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


def work(todo, base, teller, nursery):
    while True:
        try:
            plan = todo.get_nowait()
        except queue.Empty:
            return
        if not take(plan, base):
            continue
        try:
            result = run(plan, base, nursery)
        except Exception as error:  # the plan is wrong: the run is not there, and that is told
            result = {"dir": plan["dir"], "error": repr(error)}
        teller.tell(result)


def main():
    plan_path, lanes = sys.argv[1], int(sys.argv[2])
    base = os.path.dirname(os.path.abspath(plan_path))
    with open(plan_path, encoding="utf-8") as file:
        plans = json.load(file)
    teller = Teller()
    nursery = Nursery()
    # A shell that started us in the background has SIGINT ignored, and a program keeps what it inherits.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    # First those that bear company, then those that are measured.
    for alone in (False, True):
        todo = queue.SimpleQueue()
        for plan in plans:
            if plan["alone"] == alone:
                todo.put(plan)
        threads = [threading.Thread(target=work, args=(todo, base, teller, nursery)) for _ in range(1 if alone else lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
