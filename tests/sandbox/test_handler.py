#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""The VM process's handler of SIGSYS is a straight line to the call that kills: docs/security.md builds on it.

While it runs, other threads of the process may be an attacker's, and write to its stack. So it calls nothing, returns
from nothing, goes to no address that comes from memory, and, compiled for release, has nothing on the stack at all.

usage: test_handler.py PROGRAM OBJDUMP BUILD_TYPE
"""

import re
import subprocess
import sys

HANDLER = "on_forbidden"
MACHINES = {
    # by ELF's number: the system call; what leaves the straight line; a jump within it; the stack
    62: (r"syscall", r"call|ret|iret|enter|leave|jmp +\*|notrack", r"(?:j[a-z]+|loop[a-z]*) +([0-9a-f]+)",
               r"%[re]sp|%[re]bp|push|pop"),
    183: (r"svc\b", r"bl\b|blr|br\b|ret|eret|braa|blraa", r"(?:b|b\.[a-z]+|cbn?z .*,|tbn?z .*,)\s+([0-9a-f]+)",
                r"\bsp\b|\bx29\b"),
}


def instructions(program, objdump):
    """Of the handler: pairs of address and text."""
    text = subprocess.run([objdump, "-d", "--no-show-raw-insn", f"--disassemble={HANDLER}", program], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    assert len(re.findall(rf"<{HANDLER}>:$", text, re.MULTILINE)) == 1, f"{HANDLER} is to be there, and once"
    body = text.split(f"<{HANDLER}>:\n", 1)[1].split("\n\n", 1)[0]
    return [(int(at, 16), what) for at, what in re.findall(r"^\s*([0-9a-f]+):\s+(.*?)\s*(?:[#/].*)?$", body, re.MULTILINE)]


def main():
    program, objdump, build_type = sys.argv[1:]
    with open(program, "rb") as file:
        machine = int.from_bytes(file.read(20)[18:], "little")
    if machine not in MACHINES:
        print(f"skipped: no instructions of ELF's machine {machine} are known here")
        sys.exit(77)
    syscall, leaves, jump, stack = (re.compile(pattern) for pattern in MACHINES[machine])
    found = instructions(program, objdump)
    bad = [what for _, what in found if leaves.match(what)]
    last = max((at for at, what in found if syscall.match(what)), default=None)
    assert last is not None, f"no system call among {found}"
    for _, what in found:
        target = jump.match(what)
        if target and not found[0][0] <= int(target[1], 16) <= found[-1][0]:
            bad.append(what)
    if build_type == "Release":
        bad += [what for _, what in found if stack.search(what)]
    print(f"{len(found)} instructions of {HANDLER}")
    for what in bad:
        print(f"FAILED: {what}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
