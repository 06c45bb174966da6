#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What bvmm is started with. Where standard streams are closed it runs as ever, and so does a program that embeds the
library: no file of the job gets a number that is then made /dev/null.

usage: test_surroundings.py BVMM CLOSED_STREAMS
"""

import itertools
import os
import subprocess
import sys

import support

CLOSED = [fds for count in (1, 2, 3) for fds in itertools.combinations((0, 1, 2), count)]
REPORT_FAILED = 6


def same(found, expected, what):
    assert found == expected, f"{what}: expected {expected!r}, not {found!r}"


def closing(fds):
    def close():
        for fd in fds:
            os.close(fd)
    return close


def ran(place):
    """The guest printed and reset: its kernel, its disk and its devices were what they should be."""
    report = place.report()
    same((report["status"], report["console"]["text"], report["error"]), ("guest_shutdown", "hello\n", None), "the run")
    os.unlink(place.at("report.json"))


def of_the_command(place, fds):
    code, text, errors = place.run("reset", preexec_fn=closing(fds), vsock_path="bridge")
    same((code, text), (0, ""), f"exit status and standard output ({errors!r})")
    ran(place)


def of_a_program(place, fds, program):
    with place.start("reset", vsock_path="bridge", args=["--help"], stdout=subprocess.DEVNULL):
        pass  # for its job file
    code = subprocess.run([program, "job.json", *map(str, fds)], cwd=place.path, timeout=60, check=False).returncode
    same(code, 0, "exit status of the program")
    ran(place)


def report_to_a_closed_stream(place):
    """It cannot be written: that is said, and not taken for written because something else has the number."""
    code, _, errors = place.run("reset", preexec_fn=closing([1]), report_path="-")
    same(code, REPORT_FAILED, f"exit status ({errors!r})")
    assert "report" in errors, errors


def main():
    place = support.Place(sys.argv[1])
    program = os.path.abspath(sys.argv[2])
    failed = 0
    cases = [("bvmm, closed: " + str(fds), of_the_command, (fds,)) for fds in CLOSED]
    cases += [("a program, closed: " + str(fds), of_a_program, (fds, program)) for fds in CLOSED]
    cases += [("the report to a closed stream", report_to_a_closed_stream, ())]
    for name, case, arguments in cases:
        try:
            case(place, *arguments)
            print(f"ok: {name}")
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED: {name}: {type(error).__name__} {error}")
    sys.exit(1 if failed else 0)


main()
