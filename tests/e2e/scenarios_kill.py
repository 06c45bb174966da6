# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios in which somebody kills: whatever dies, there is a report, or nothing is left. See harness.py for the words."""

import json
import os

from harness import Run, expect, same, scenario

HERE = os.path.dirname(os.path.abspath(__file__))
KILLS = 16
SEED = 20260101
START_S = 1  # of bvmm's process, emulated: before its clock starts


@scenario(f"the VM process or the launcher is killed, {KILLS} times at random moments")
def killed_at_random(_):
    with open(os.path.join(HERE, "kill-at-random"), "rb") as file:
        script = file.read()
    run = Run({"command": "sleep 1000", "timeout_secs": 300}, files={"kill-at-random": script}, report=None, alone=True,
              wrap=["sh", "kill-at-random", str(KILLS), str(SEED)])
    out = yield run
    same(out.status, 0, f"kill-at-random's exit status ({out.err[-500:]})")
    statuses = []
    for number in range(2, KILLS + 1, 2):
        report = json.loads(out.read(f"report-{number}.json"))
        statuses.append(report["status"])
        expect(report["status"] != "vm_killed" or report["vm_signal"]["number"] == 9,
               f"report {number}: vm_signal {report['vm_signal']}")
    same(set(statuses), {"vm_killed"}, "statuses of runs whose VM process was killed")
    left = [name for name in os.listdir(out.path) if "tmp" in name or name.startswith(".")]
    same(left, [], "temporary files")


def divides_control_groups(place):
    return "only in the lab, whose root control group bvmm may divide" if place.direct else None


@scenario("the VM process needs more memory than its control group may have", needs=[divides_control_groups])
def out_of_memory(_):
    script = "data = []\nprint('before', flush=True)\nwhile True: data.append(b'x' * (1 << 20))"
    out = yield Run({"command": ["python3", "-c", script], "memory_mib": 512, "cgroup": {"memory_max_mib": 200}})
    out.ended("vm_killed", 4).has("error", "control group", "$.cgroup.memory_max_mib")
    same((out.report["vm_signal"]["number"], out.report["error"]["kind"]), (9, "Memory"), "signal and kind")
    points = out.report["timings"]["points"]
    expect(out.wall_s - points["vm_process_end_ns"] / 1e9 < 1 + START_S, "the report came more than a second after the kill")


@scenario("the VM process is killed because memory is at an end above its control group", needs=[divides_control_groups])
def out_of_memory_above(_):
    # bvmm's place is a leaf; the limit is that of the group in which it makes the VM's.
    divide = ("set -e; mkdir /sys/fs/cgroup/outer /sys/fs/cgroup/outer/bvmm-runner; "
              "echo +memory +pids +cpuset > /sys/fs/cgroup/cgroup.subtree_control; echo 200M > /sys/fs/cgroup/outer/memory.max; "
              "echo $$ > /sys/fs/cgroup/outer/bvmm-runner/cgroup.procs; exec \"$@\"")
    script = "data = []\nprint('before', flush=True)\nwhile True: data.append(b'x' * (1 << 20))"
    out = yield Run({"command": ["python3", "-c", script], "memory_mib": 512}, wrap=["sh", "-c", divide, "sh"], alone=True)
    out.ended("vm_killed", 4).has("error", "the host ran out of memory", "$.memory_mib")
    same((out.report["vm_signal"]["number"], out.report["error"]["kind"]), (9, "Memory"), "signal and kind")
    expect(out.report["sandbox"]["cgroup"]["oom_kills"] >= 1, f"control group: {out.report['sandbox']['cgroup']}")
