#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""kill -9 of the VM process, of the launcher, or of either, at random moments: a report each time, or nothing left at all.

usage: test_kills.py BVMM [TIMES [SEED]]
"""

import collections
import os
import random
import signal
import sys
import time

import support

TOOK_S = []  # from a kill to the end of the launcher
RUN_S = []   # what a whole run took meanwhile


def mounts():
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as file:
        return file.read()


def control_groups():
    return sorted(name for _, names, _ in os.walk("/sys/fs/cgroup") for name in names if name.startswith("bvmm-vm-"))


def wait_for_child(launcher):
    deadline = time.monotonic() + support.PATIENCE_S
    while time.monotonic() < deadline:
        if found := support.children(launcher):
            return found
        time.sleep(0.0005)
    raise AssertionError("no VM process")


def kill_vm(place, process, validate):
    """Return: the report's status."""
    for pid in wait_for_child(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:  # the helper, which is gone already
            pass
    killed_at = time.monotonic()
    process.communicate(timeout=support.PATIENCE_S)
    took_s = time.monotonic() - killed_at
    report = place.report()
    validate(report)
    TOOK_S.append(took_s)
    assert report["status"] in ("vm_killed", "vm_error"), report["status"]
    if report["status"] == "vm_killed":
        assert report["vm_signal"]["number"] == 9, report["vm_signal"]
    return report["status"]


def kill_launcher(place, process):
    process.kill()
    process.communicate(timeout=support.PATIENCE_S)
    left = place.all_gone()
    assert not left, f"left after the launcher was killed: {left}"
    assert not os.path.exists(place.at("report.json")), "a killed launcher left a report of a run that had not ended"
    return "nothing left"


def main():
    bvmm, times = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 200
    seed = int(sys.argv[3]) if len(sys.argv) > 3 else random.randrange(1 << 32)
    print(f"seed {seed}")
    place, validate, chance = support.Place(bvmm), support.validator(bvmm), random.Random(seed)
    before, groups, results = mounts(), control_groups(), collections.Counter()
    wanted, number = times // 8, -1
    # When to kill is chance; on a machine whose speed changes it may be too early many times.
    while (number := number + 1) < times or (results["vm: vm_killed"] <= wanted and number < 3 * times):
        if number % 10 == 0:
            RUN_S.append(place.time_a_run())
        victim = ("vm", "launcher", chance.choice(("vm", "launcher")))[number % 3]
        delay_s = chance.uniform(0, 1.5 * RUN_S[-1])  # also when the guest spins
        try:
            with place.start("hello") as process:
                time.sleep(delay_s)
                result = kill_vm(place, process, validate) if victim == "vm" else kill_launcher(place, process)
            left = place.all_gone()
            assert not left, f"left over: {left}"
            assert not place.temporary_files(), f"temporary files: {place.temporary_files()}"
        except AssertionError as error:
            sys.exit(f"test_kills: number {number}, {victim} after {delay_s * 1000:.1f} ms, seed {seed}: {error}")
        results[f"{victim}: {result}"] += 1
    assert mounts() == before, "a mount is left"
    place.run("reset")  # a killed launcher leaves its control group to the next
    assert control_groups() == groups, "a control group is left"
    # A machine may be busy for a moment. If it is all the time, the runs in between take longer too.
    took_s, run_s = sorted(TOOK_S)[len(TOOK_S) * 9 // 10], sorted(RUN_S)[len(RUN_S) // 2]
    assert took_s < support.PROMISE_S + 2 * run_s, f"slow reports: {sorted(TOOK_S)[-20:]}; a run takes {run_s:.2f} s"
    if results["vm: vm_killed"] <= wanted:
        print(f"few were killed while they ran: {results}; chance or load was against it")
    print(f"{number} kills: " + ", ".join(f"{name} {count}" for name, count in sorted(results.items())) +
          f"; report after {sorted(TOOK_S)[len(TOOK_S) // 2] * 1000:.1f} ms (median), {max(TOOK_S) * 1000:.1f} ms (longest)")


if __name__ == "__main__":
    main()
