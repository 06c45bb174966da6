#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Holds the README's table of system calls against `bvmm sandbox --print`, and both against the goals.

usage: check_sandbox_table.py BVMM README
"""

import json
import re
import subprocess
import sys

# The goals of docs/security.md: how many different calls at most.
MOST_CALLS = {"supervisor": 14, "vcpu": 8, "serial": 8, "i8042": 8, "blk": 8, "vsock": 14, "launcher_waiting": 31,
              "launcher_writing": 20, "all": 30}
# Calls that nobody may ever have, and those that the launcher has. sendmsg and the like: an open socket may be used, none may be made.
NEVER = re.compile(r"open|openat2|creat|execve.*|clone.*|fork|vfork|kill|tkill|ptrace|process_.*|socketpair|bind|mprotect|"
                   r"seccomp|bpf|rt_sigaction|rt_sigprocmask|unshare|setns|mount")
LAUNCHER_ONLY = re.compile(r"openat|socket|connect|mmap|prctl")
README_ROW = re.compile(r"^\| (\w+) \| (\d+) \| (.+) \|$")
SUMMARY_ROW = re.compile(r"^(\w+) +(\d+)  (.+)$")


def is_launcher(name):
    return name.startswith("launcher_")


def printed(bvmm):
    """What bvmm prints: (tables {actor: rows} as told to programs, summary {actor: list of calls} as told to people)."""
    def run(*options):
        return subprocess.run([bvmm, "sandbox", "--print", *options], check=True, capture_output=True, text=True).stdout
    tables = {table["name"]: table["rows"] for table in json.loads(run("--json"))["tables"]}
    text, summary = run(), {}
    for line in text.partition("Different calls")[2].splitlines()[1:]:
        match = SUMMARY_ROW.match(line)
        assert match, f"unexpected line: {line!r}"
        summary[match[1]] = match[3].split(", ")
        assert int(match[2]) == len(summary[match[1]]), line
    for name, rows in tables.items():
        for row in rows:
            assert f"  {row['call']}\n" in text and row["why"] in text, f"{name}: only --json has {row}"
    return tables, summary


def check_print(tables, summary):
    for actor, rows in tables.items():
        assert all(row["why"] for row in rows), f"{actor}: a row has no reason"
        assert sorted({row["call"] for row in rows}) == summary[actor], f"{actor}: rows and summary differ"
    union = sorted({row["call"] for actor, rows in tables.items() if not is_launcher(actor) for row in rows})
    assert summary["all"] == union, f"all: expected {union}"
    assert set(summary) == set(MOST_CALLS), f"unknown or missing actor: {sorted(summary)}"
    for actor, calls in summary.items():
        assert len(calls) <= MOST_CALLS[actor], f"{actor}: {len(calls)} calls, goal {MOST_CALLS[actor]}"
        forbidden = [call for call in calls if NEVER.fullmatch(call) or
                     (LAUNCHER_ONLY.fullmatch(call) and not is_launcher(actor))]
        assert not forbidden, f"{actor}: must never be allowed: {forbidden}"


def check_readme(path, summary):
    with open(path, encoding="utf-8") as file:
        rows = [match for line in file if (match := README_ROW.match(line.rstrip("\n")))]
    found = [match[0] for match in rows if match[1] in summary]
    expected = [f"| {actor} | {len(calls)} | {', '.join(calls)} |" for actor, calls in summary.items()]
    assert found == expected, "the README's table is not what bvmm sandbox --print says; it should be:\n" + \
        "\n".join(expected)


def main():
    bvmm, readme = sys.argv[1:]
    tables, summary = printed(bvmm)
    check_print(tables, summary)
    check_readme(readme, summary)
    print(f"{len(tables)} tables, {len(summary['all'])} calls in all: as the README says")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"check_sandbox_table: {error}")
