#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs under strace: every call that a thread or the launcher makes in its filter is in its table; and every row of the
tables is exercised, or the list below says why not here.

usage: test_trace.py BVMM ODD_HOST_LIBRARY
"""

import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import support
from call_trace import STRACE, Trace, tables_of

ROUNDS = 10  # at most: who sleeps, and has to be woken, is chance; each gives its guests more time, for slow machines
# Rows that no run here exercises: which, and why. A row that is exercised after all must not be here.
LINUX = "needs a guest with virtio drivers: Linux, in the lab"
CGROUP = "needs a control group that is delegated to bvmm: in the lab"
NOT_HERE = [
    (r"(serial|vsock) clock_gettime 1$", "a host whose clock cannot be read without a call, and a guest that keeps this actor busy"),
    (r"launcher_\w+ mremap .*", "a block of more than 128 KiB that grows"),
    (r"blk preadv|blk write own interrupt eventfd|vsock write own interrupt eventfd", LINUX),
    (r"vsock (accept4|recvmsg|sendmsg|shutdown|close)|launcher_waiting (recvfrom|socket|connect|sendmsg)", LINUX),
    (r"launcher_\w+ ppoll 0 0", "only where a killed process takes its time to leave its control group"),
    (r"launcher_\w+ (read counters|unlinkat directory of the VM's|flock 8|openat directory of the VM's|fcntl|"
     r"getdents64|newfstatat 4096)", CGROUP),
]


def traced(place, tables, guest, act=None, inject=(), **keys):
    path = place.at("trace")
    with place.start(guest, wrap=[*STRACE, path, *inject], **keys) as process:
        if act:
            act(process)
        process.communicate(timeout=support.PATIENCE_S)
    if keys.get("report_path") != "-":
        place.report(keys.get("report_path", "report.json"))
    check_load(path)
    return Trace(path, tables)


def check_load(path):
    """The VM process reads kernel and input when all of its jail stands, of which the limits are the last."""
    stands, before, after = set(), [], 0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            pid = line.split()[0]
            if re.search(r" prlimit64\(0, 0x8, {rlim_cur=0, rlim_max=0}", line):
                stands.add(pid)
            elif re.search(r" p?read(64)?\(\d+</[^>]*(\.kernel|/input)>", line):
                before += [] if pid in stands else [line]
                after += pid in stands
    # What the launcher reads, to tell files that are none: a head, or at the end for a digest.
    early = [line for line in before if line.split()[0] in stands]
    assert after > 3 and not early, f"read before the jail stood: {early}; after: {after} reads"


def vm_of(process):
    """The launcher, and the VM process when its guest has had time to start."""
    deadline = time.monotonic() + support.PATIENCE_S
    while time.monotonic() < deadline:
        for launcher in support.children(process.pid):
            for pid in support.children(launcher):
                if support.comm(pid) == "supervisor" and os.path.exists(f"/proc/{pid}/task") and \
                        len(os.listdir(f"/proc/{pid}/task")) > 4:
                    time.sleep(0.5)
                    return launcher, pid
        time.sleep(0.01)
    raise AssertionError("no VM process")


def cancel(process):
    launcher, _ = vm_of(process)
    os.kill(launcher, signal.SIGTERM)


def hang(process):
    os.kill(vm_of(process)[1], signal.SIGSTOP)


def cancel_the_writer(process):
    """While it is held up in its first fsync(): the VM process is gone then."""
    launcher, vm = vm_of(process)
    os.kill(vm, signal.SIGKILL)
    while os.path.exists(f"/proc/{vm}") and process.poll() is None:
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(launcher, signal.SIGTERM)


def to_a_full_pipe(place, tables):
    """A standard output that is not ready for all of the report at once, and that somebody has made non-blocking."""
    out, into = os.pipe()
    fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(into, False)

    def read_late(process):
        os.close(into)
        _, vm = vm_of(process)
        while os.path.exists(f"/proc/{vm}"):
            time.sleep(0.01)
        time.sleep(1)
        with open(out, "rb") as file:
            json.loads(file.read())

    return traced(place, tables, "spin", read_late, stdout=into, timeout_secs=2, report_path="-")


def odd_runs(place, tables, library):
    """On hosts, and in moments, that are rare."""
    on = {"LD_PRELOAD": library}
    large = {"large_outputs": {"over_bytes": 0}}
    place.put("old.json", b"old")
    yield traced(place, tables, "interrupts", timeout_secs=3, env=on)
    yield traced(place, tables, "reset", env={**on, "BVMM_HOST": "tmpfile"}, **large)
    yield traced(place, tables, "reset", env={**on, "BVMM_HOST": "full"},
                 large_outputs={"over_bytes": 0, "dir": "takes-no-file"})
    assert not os.path.exists(place.at("takes-no-file")), "an empty directory of large outputs stays"
    yield traced(place, tables, "reset", env=on, report_path="old.json")
    yield traced(place, tables, "reset", env={**on, "BVMM_HOST": "rename"}, report_path="old.json")
    yield traced(place, tables, "spin", cancel_the_writer, inject=["-e", "inject=fsync:delay_enter=2s:when=1"])
    # What the C library does from 128 KiB on it does for less here.
    yield traced(place, tables, "reset", env={"MALLOC_MMAP_THRESHOLD_": "1024"}, command=["true", "x" * 20000])
    yield to_a_full_pipe(place, tables)


def main():
    bvmm = os.path.abspath(sys.argv[1])
    if shutil.which("strace") is None:
        support.skip("no strace")
    place = support.Place(bvmm)
    place.need_filters()
    printed = json.loads(subprocess.run([bvmm, "sandbox", "--print", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    tables, rows = tables_of(printed)
    place.put("input", b"what the command reads")
    large, on = {"large_outputs": {"over_bytes": 0}}, {"LD_PRELOAD": os.path.abspath(sys.argv[2])}
    reasons = {row: next((why for pattern, why in NOT_HERE if re.fullmatch(f"(?:{pattern}).*", row)), None) for row in rows}
    traces, used = list(odd_runs(place, tables, os.path.abspath(sys.argv[2]))), set()
    for more_s in range(ROUNDS):
        traces += [
            traced(place, tables, "reset", stdin_path="input", command="true"),
            traced(place, tables, "interrupts", timeout_secs=2 + more_s, env=on, **large),
            traced(place, tables, "interrupts", cancel, vsock_path="bridge"),
            traced(place, tables, "spin", hang, timeout_secs=3 + 2 * more_s),
        ]
        used = {row for trace in traces for row in trace.used}
        if all(row in used or reasons[row] for row in rows):
            break
    wrong = sorted({line for trace in traces for line in trace.wrong})
    failures = [f"not in the table: {line}" for line in wrong]
    excused = {}
    for row in rows:
        if row not in used and reasons[row] is None:
            failures.append(f"this row is not needed: {row}")
        elif row not in used:
            excused.setdefault(reasons[row], []).append(row)
    print(f"{sum(len(trace.calls) for trace in traces)} calls in filters; {len(used)} of {len(rows)} rows exercised")
    for reason, without in excused.items():
        print(f"  {len(without)} not here: {reason}")
    print("\n".join(failures))
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
