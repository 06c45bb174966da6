#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Holds the README's table of system calls against `bvmm sandbox --print`, and both against the goals.

usage: check_sandbox_table.py BVMM README
"""

import re
import subprocess
import sys

# The goals of docs/security.md: how many different calls at most.
MOST_CALLS = {"supervisor": 14, "vcpu": 8, "serial": 8, "i8042": 8, "blk": 8, "vsock": 14, "all": 30}
# Calls that no actor may ever have. sendmsg and the like: an open socket may be used, none may be made.
NEVER = re.compile(r"open.*|creat|execve.*|clone.*|fork|vfork|kill|tkill|ptrace|process_.*|socket|socketpair|"
                   r"connect|bind|mmap|mprotect|prctl|seccomp|bpf|rt_sigaction|rt_sigprocmask|unshare|setns|mount")
README_ROW = re.compile(r"^\| (\w+) \| (\d+) \| (.+) \|$")
SUMMARY_ROW = re.compile(r"^(\w+) +(\d+)  (.+)$")


def printed(bvmm):
    """The rows that bvmm prints: (tables {actor: set of calls}, summary {actor: list of calls})."""
    text = subprocess.run([bvmm, "sandbox", "--print"], check=True, capture_output=True, text=True).stdout
    tables, summary = {}, {}
    actor = None
    details, _, short = text.partition("Different calls:\n")
    for line in details.splitlines():
        if match := re.match(r"^(\w+): owns ", line):
            actor = tables.setdefault(match[1], [])
        elif actor is not None and (match := re.match(r"^ {2}(\w+)$", line)):
            actor.append([match[1]])
        elif actor is not None and (match := re.match(r"^ {4}(\S.*)$", line)):
            actor[-1].append(match[1])
    for line in short.splitlines():
        match = SUMMARY_ROW.match(line)
        assert match, f"unexpected line: {line!r}"
        summary[match[1]] = match[3].split(", ")
        assert int(match[2]) == len(summary[match[1]]), line
    return tables, summary


def check_print(tables, summary):
    for actor, rows in tables.items():
        for row in rows:
            assert len(row) == 3, f"{actor}: expected call, arguments and reason, not {row}"
        assert sorted({row[0] for row in rows}) == summary[actor], f"{actor}: rows and summary differ"
    union = sorted({row[0] for rows in tables.values() for row in rows})
    assert summary["all"] == union, f"all: expected {union}"
    assert set(summary) == set(MOST_CALLS), f"unknown or missing actor: {sorted(summary)}"
    for actor, calls in summary.items():
        assert len(calls) <= MOST_CALLS[actor], f"{actor}: {len(calls)} calls, goal {MOST_CALLS[actor]}"
        forbidden = [call for call in calls if NEVER.fullmatch(call)]
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
    print(f"{len(tables)} actors, {len(summary['all'])} calls in all: as the README says")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(f"check_sandbox_table: {error}")
