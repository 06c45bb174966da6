#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Run bvmm as a plan says, and tell what it did; judge nothing. This part runs where the guests run: in the lab, or on
a machine whose KVM can run them.

usage: driver.py PLAN LANES
PLAN is a JSON list of runs (harness.Run.plan). A line of JSON on standard output for each run, when it has ended.
Paths are relative to the directory of PLAN.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time

KILL_AFTER_S = 60


class Watch:
    """Sends the run's signal once its standard error has the words that the plan waits for."""

    def __init__(self, plan, path):
        self.number = getattr(signal, plan["signal"])
        self.words = plan["when_stderr"].encode()
        self.delay_s = plan["delay_s"]
        self.path = path
        self.at = None
        self.sent_at = None

    def look(self, process):
        if self.sent_at is not None:
            return
        if self.at is None:
            with open(self.path, "rb") as file:
                if self.words in file.read():
                    self.at = time.monotonic() + self.delay_s
        elif time.monotonic() >= self.at:
            process.send_signal(self.number)
            self.sent_at = time.monotonic()


def wait(process, limit_s, watch):
    """The exit status; None: it was killed, because it ran longer than limit_s."""
    deadline = time.monotonic() + limit_s
    while True:
        if watch is None:
            step = deadline - time.monotonic()
        else:
            watch.look(process)
            step = 0.02 if watch.sent_at is None else deadline - time.monotonic()
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
    watch = Watch(plan["send"], paths["stderr"]) if plan["send"] else None
    with open(paths["stdout"], "wb") as out, open(paths["stderr"], "wb") as err:
        before = os.times()
        start = time.monotonic()
        process = subprocess.Popen(plan["argv"], cwd=directory, stdin=open_stdin(plan, base), stdout=out, stderr=err,
                                   start_new_session=True, env={**os.environ, **plan["env"]})
        status = wait(process, plan["limit_s"], watch)
        end = time.monotonic()
        after = os.times()
    return {
        "dir": plan["dir"],
        "status": status,
        "wall_s": end - start,
        "signal_to_end_s": end - watch.sent_at if watch and watch.sent_at else None,
        "children_cpu_s": after.children_user + after.children_system - before.children_user - before.children_system,
        "left_over": left_over(process.pid),
    }


def left_over(session):
    """Processes of the run's session that outlived it."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    command, rest = file.read().rsplit(")", 1)
                state, _, _, sid = rest.split()[:4]
            except (OSError, ValueError):
                continue
            if int(sid) == session and state != "Z":
                found.append(f"{name} {command.split('(', 1)[-1]}")
    return found


def main():
    plan_path, lanes = sys.argv[1], int(sys.argv[2])
    base = os.path.dirname(os.path.abspath(plan_path))
    with open(plan_path, encoding="utf-8") as file:
        plans = json.load(file)
    told = threading.Lock()

    def work(todo):
        while True:
            try:
                plan = todo.get_nowait()
            except queue.Empty:
                return
            try:
                result = run(plan, base)
            except Exception as error:  # the plan is wrong: the run is not there, and that is told
                result = {"dir": plan["dir"], "error": repr(error)}
            with told:
                print(json.dumps(result), flush=True)

    # First those that bear company, then those that are measured.
    for alone in (False, True):
        todo = queue.SimpleQueue()
        for plan in plans:
            if plan["alone"] == alone:
                todo.put(plan)
        threads = [threading.Thread(target=work, args=(todo,)) for _ in range(1 if alone else lanes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    return 0


if __name__ == "__main__":
    sys.exit(main())
