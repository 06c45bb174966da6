# SPDX-License-Identifier: MIT OR Apache-2.0
"""Make the runs of all scenarios: here, or in labs.

In labs: QEMU's emulation of AMD's virtualization loses interrupts between the CPUs of one lab (7.2 and 10.0.2: an IPI that
never comes, or comes before the host's registers are back; seen after 2 to 150 guests). So there are several labs of one
CPU each, which take their runs from one plan, and a lab of two CPUs only for the runs that are about CPUs. A lab that dies
or falls silent is booted again for what is left, and that is said.
"""

import json
import os
import queue
import shutil
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))

MEMORY_MIB = 3072
TIMEOUT_S = 1500    # of one lab in all
SILENCE_S = 60      # the driver gives a sign of life every few seconds
BOOTS = 4
FAILED = 125        # the lab's own failure, never its command's
TIMED_OUT = 124


def write_plan(place, name, runs, bvmm):
    with open(os.path.join(place.base, name), "w", encoding="utf-8") as file:
        json.dump([run.plan(bvmm) for run in runs], file, indent=1)


class Driver:
    """A driver on its way, here or in a lab. tell(result) is called for each run that has ended."""

    def __init__(self, command, silence_s, tell):
        self.silence_s, self.tell = silence_s, tell
        self.lines = queue.SimpleQueue()
        self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self.read, daemon=True).start()
        self.thread = threading.Thread(target=self.follow)
        self.thread.start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put(None)

    def follow(self):
        self.status = self.listen()

    def listen(self):
        limit_s = None  # the boot of a lab has a limit of its own
        while True:
            try:
                line = self.lines.get(timeout=limit_s)
            except queue.Empty:
                print(f"    a lab said nothing for {self.silence_s} s", flush=True)
                self.process.terminate()
                self.process.wait()
                return FAILED
            if line is None:
                return self.process.wait()
            limit_s = self.silence_s
            result = json.loads(line)
            if "dir" in result:
                self.tell(result)

    def join(self):
        self.thread.join()
        return self.status


class Told:
    """What the drivers told about each run, from all of their threads."""

    def __init__(self):
        self.results, self.lock = {}, threading.Lock()

    def tell(self, result):
        with self.lock:
            self.results[result["dir"]] = result
            print(f"    {result['dir']}: status {result.get('status')}, {result.get('wall_s', 0):.1f} s", flush=True)

    def left_of(self, runs):
        return [run for run in runs if run.dir not in self.results]


def here(place, runs, lanes, told):
    write_plan(place, "plan-here.json", runs, os.path.join(place.base, "bvmm"))
    command = [sys.executable, os.path.join(place.base, "driver.py"), os.path.join(place.base, "plan-here.json"), str(lanes)]
    return Driver(command, None, told.tell).join()


def lab_command(place, cpus):
    return [os.path.join(ROOT, "tests/lab/lab"), "--arch", place.arch, "--share", place.base, "--cpus", str(cpus),
            "--mem", str(MEMORY_MIB), "--timeout", str(TIMEOUT_S), "--", "python3", "/lab/driver.py", "/lab/plan-lab.json", "1"]


def in_labs(place, runs, labs, cpus, told):
    """Bad statuses that are not the lab's fault."""
    for boot in range(BOOTS):
        left = told.left_of(runs)
        if not left:
            return []
        if boot > 0:
            print(f"    a lab failed; {len(left)} runs are left, and get a new one", flush=True)
        write_plan(place, "plan-lab.json", left, "/lab/bvmm")
        for run in left:  # what a dead lab had taken
            shutil.rmtree(os.path.join(place.base, run.dir, "taken"), ignore_errors=True)
        drivers = [Driver(lab_command(place, cpus), SILENCE_S, told.tell) for _ in range(min(labs, len(left)))]
        statuses = [driver.join() for driver in drivers]
        bad = [status for status in statuses if status not in (0, FAILED, TIMED_OUT)]
        if bad:
            return bad
    return []


def drive_all(place, runs, lanes):
    """Everything that is to be run: sentences about drivers that failed, and what was told about each run."""
    told, bad = Told(), []
    chosen = {
        "here": [run for run in runs if place.direct or run.host],
        "in labs of one CPU": [run for run in runs if not (place.direct or run.host or run.cpus > 1)],
        "in a lab of two CPUs": [run for run in runs if not (place.direct or run.host) and run.cpus > 1],
    }
    for where, group in chosen.items():
        if not group:
            continue
        started = time.monotonic()
        if where == "here":
            statuses = [here(place, group, lanes, told)]
        elif where == "in labs of one CPU":
            statuses = in_labs(place, group, lanes, 1, told)
        else:
            statuses = in_labs(place, group, 1, 2, told)
        print(f"    {len(group)} runs {where} in {time.monotonic() - started:.1f} s", flush=True)
        bad += [f"the driver {where} ended with status {status}" for status in statuses if status != 0]
    return bad, told.results
