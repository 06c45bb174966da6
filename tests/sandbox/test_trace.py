#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs under strace: every call that a thread or the launcher makes in its filter is in its table; and every row of the
tables is exercised, or the list below says why not here.

usage: test_trace.py BVMM
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import support

PR_SET_NAME, PR_SET_SECCOMP = 15, 22
ROUNDS = 10  # at most: who sleeps, and has to be woken, is chance
CALL = re.compile(r"^(\d+) +(\w+)\((.*)$")
# What the names in the tables stand for, as strace shows descriptors.
KINDS = {
    "own interrupt eventfd": r"anon_inode:\[eventfd", "the event that cancels": r"anon_inode:\[eventfd",
    "own doorbell": r"anon_inode:\[eventfd",
    "doorbells of those it sends to, and of those that wait for room": r"anon_inode:\[eventfd",
    "own image": r"/image", "own vCPU": r"anon_inode:kvm-vcpu", "deadline timer": r"anon_inode:\[timerfd",
    "signalfd": r"anon_inode:\[signalfd", "the VM process (a pidfd)": r"anon_inode:\[pidfd|pidfd:",
    "the job's kernel": r"\.elf",
    "socket to the bridge's actor": r"socket|UNIX", "directory of the VM's control group": r"cgroup",
    "counters of the VM's control group": r"cgroup", "directories of the report and of large outputs": r"/",
}
# Rows that no run here exercises: which, and why. A row that is exercised after all must not be here.
LINUX = "needs a guest with virtio drivers: Linux, in the lab"
CGROUP = "needs a control group that is delegated to bvmm: in the lab"
NO_VDSO = "a host whose clock cannot be read without a call"
NOT_HERE = [
    (r"blk preadv|blk write own interrupt eventfd|vsock write own interrupt eventfd", LINUX),
    (r"vsock (accept4|recvmsg|sendmsg|shutdown|close)|launcher_waiting (recvfrom|socket|connect|sendmsg)", LINUX),
    (r".* clock_gettime [10]$", NO_VDSO),
    (r"launcher_\w+ (read counters|unlinkat directory of the VM's|clock_nanosleep|flock|openat directory of the VM's|fcntl|"
     r"getdents64|newfstatat 4096)", CGROUP),
    (r"launcher_waiting (?!ppoll 3|read|pidfd|waitid|prctl|newfstatat -100|unlinkat -100).*",
     "the same row as launcher_writing's, in whose time it is used"),
    (r"launcher_\w+ ppoll 1 0", "a standard output that is non-blocking and full"),
    (r"launcher_\w+ openat directories of the report and of large outputs 655553 .*",
     "a file system without O_TMPFILE"),
    (r"launcher_\w+ unlinkat directories of the report.*", "only after a failure in the last step, or without O_TMPFILE"),
    (r"launcher_\w+ m(map|remap) .*", "a report with a part of more than 128 KiB"),
    (r"launcher_writing rt_sigreturn", "a cancel that comes while the report is written"),
]


def split_arguments(text):
    """Those at the top level; the last may be cut."""
    found, depth, start, quoted = [], 0, 0, False
    for at, char in enumerate(text):
        if char == '"' and text[at - 1] != "\\":
            quoted = not quoted
        elif not quoted and char in "([{<":
            depth += 1
        elif not quoted and char in ")]}>" and text[at - 1] != "=":
            depth -= 1
            if depth < 0:
                return [*found, text[start:at].strip()]
        elif char == "," and depth == 0 and not quoted:
            found.append(text[start:at].strip())
            start = at + 1
    return [*found, text[start:].replace("<unfinished ...>", "").strip()]


def number(argument):
    match = re.match(r"(-?(?:0x[0-9a-f]+|\d+))", argument)
    if argument.startswith("NULL"):
        return 0
    if not match:
        return None
    text = match[1]
    # strace writes modes in octal
    return int(text, 8) if re.match(r"0[0-7]+$", text) else int(text, 0)


def name_of(row):
    words = [str(arg.get("number", arg["is"])) for arg in row["args"]]
    return " ".join([row["call"], *words])


class Trace:
    """What strace wrote of one run."""

    def __init__(self, path, tables):
        self.tables, self.names, self.filters, self.launcher = tables, {}, {}, None
        self.used, self.wrong, self.readers, self.calls = set(), [], {}, []
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if match := CALL.match(line):
                    self.take(int(match[1]), match[2], split_arguments(match[3]))
        self.judge()

    def take(self, pid, call, args):
        self.launcher = self.launcher or pid
        holder = self.holder(pid)
        if holder:
            self.calls.append((holder, call, args))
            if call == "read" and "eventfd" in args[0]:
                self.readers.setdefault(number(args[0]), set()).add(holder)
            elif call == "ppoll":
                for fd in re.findall(r"fd=(\d+)<anon_inode:\[eventfd", args[0]):
                    self.readers.setdefault(int(fd), set()).add(holder)
        if call == "prctl" and number(args[0]) == PR_SET_NAME:
            self.names[pid] = args[1].strip('"')
        elif call == "prctl" and number(args[0]) == PR_SET_SECCOMP:
            self.filters[pid] = self.filters.get(pid, 0) + 1

    def holder(self, pid):
        """Whose table holds for the thread now."""
        count = self.filters.get(pid, 0)
        if pid == self.launcher:
            return [None, "launcher_waiting", "launcher_writing"][count]
        return re.sub(r"^(vcpu|blk)\d+$", r"\1", self.names.get(pid, "?")) if count else None

    def fits(self, holder, wanted, argument):
        value, kind = number(argument), wanted["is"]
        if kind == "constant":
            return value is not None and value & 0xffffffff == wanted["number"] & 0xffffffff
        if kind == "own doorbell" and holder not in self.readers.get(value, ()):
            return False
        if kind.startswith("doorbells") and value not in self.readers:
            return False
        if kind == "own interrupt eventfd" and value in self.readers:
            return False
        return kind not in KINDS or re.search(KINDS[kind], argument) is not None

    def judge(self):
        for holder, call, args in self.calls:
            # a call that waits for an answer is asked for again by the same line's "resumed": not matched by CALL
            rows = [row for row in self.tables[holder] if row["call"] == call and
                    all(arg["index"] < len(args) and self.fits(holder, arg, args[arg["index"]]) for arg in row["args"])]
            # the most special row is the one that it needs
            if rows:
                self.used.add(f"{holder} {name_of(max(rows, key=lambda row: len(row['args'])))}")
            else:
                self.wrong.append(f"{holder}: {call}({', '.join(args)})")


def traced(place, tables, guest, act=None, **keys):
    path = place.at("trace")
    wrap = ["strace", "-f", "-y", "-X", "raw", "-qq", "-e", "signal=none", "-o", path]
    with place.start(guest, wrap=wrap, **keys) as process:
        if act:
            act(process)
        process.communicate(timeout=60)
    place.report()
    return Trace(path, tables)


def vm_of(process):
    """The launcher, and the VM process when its guest has had time to start."""
    deadline = time.monotonic() + 30
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


def main():
    bvmm = os.path.abspath(sys.argv[1])
    if shutil.which("strace") is None:
        support.skip("no strace")
    place = support.Place(bvmm)
    place.need_filters()
    printed = json.loads(subprocess.run([bvmm, "sandbox", "--print", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    tables = {table["name"]: table["rows"] for table in printed["tables"]}
    large = {"large_outputs": {"over_bytes": 0}}
    rows = [f"{holder} {name_of(row)}" for holder, table in tables.items() for row in table]
    reasons = {row: next((why for pattern, why in NOT_HERE if re.fullmatch(f"(?:{pattern}).*", row)), None) for row in rows}
    traces, used = [], set()
    for _ in range(ROUNDS):
        traces += [
            traced(place, tables, "reset"),
            traced(place, tables, "interrupts", timeout_secs=2, **large),
            traced(place, tables, "interrupts", cancel, vsock_path="bridge"),
            traced(place, tables, "spin", hang, timeout_secs=3),
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
