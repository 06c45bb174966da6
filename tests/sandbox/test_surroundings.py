#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What bvmm is started with. Where standard streams are closed it runs as ever, and so does a program that embeds the
library: no file of the job gets a number that is then made /dev/null. Signals that come while an image is converted cancel
the run, and there is a report.

usage: test_surroundings.py BVMM CLOSED_STREAMS
"""

import itertools
import json
import os
import resource
import signal
import subprocess
import sys
import time

import support
from support import same

CLOSED = [fds for count in (1, 2, 3) for fds in itertools.combinations((0, 1, 2), count)]
VM_FAILED, REPORT_FAILED = 4, 6


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
    code, text, errors = place.undisturbed(lambda: place.run("reset", preexec_fn=closing(fds), vsock_path="bridge"))
    same((code, text), (0, ""), f"exit status and standard output ({errors!r})")
    ran(place)


def of_a_program(place, fds, program):
    with place.start("reset", vsock_path="bridge", args=["--help"], stdout=subprocess.DEVNULL):
        pass  # for its job file
    code = place.undisturbed(lambda: subprocess.run([program, "job.json", *map(str, fds)], cwd=place.path, timeout=60,
                                                    check=False)).returncode
    same(code, 0, "exit status of the program")
    ran(place)


def report_to_a_closed_stream(place):
    """It cannot be written: that is said, and not taken for written because something else has the number."""
    code, _, errors = place.run("reset", preexec_fn=closing([1]), report_path="-")
    same(code, REPORT_FAILED, f"exit status ({errors!r})")
    assert "report" in errors, errors


def limit_files(limit, pid=0):
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, limit))


def no_room_for_the_record(place, program):
    """The limit of file sizes is below what a run needs: an error that says so, and no death by SIGXFSZ."""
    code, _, errors = place.run("reset", preexec_fn=lambda: limit_files(1 << 16))
    same(code, VM_FAILED, f"exit status ({errors!r})")
    assert "ulimit -f" in errors, errors
    code = subprocess.run([program, "job.json"], cwd=place.path, timeout=60, check=False,
                          preexec_fn=lambda: limit_files(1 << 16)).returncode
    same(code, 1, "exit status of the program")


def limit_files_of_running(place, process):
    place.supervisor_of(process)
    time.sleep(1)  # the launcher makes its filters meanwhile, which go through a file of memory
    limit_files(1024, process.pid)


def no_room_for_the_report(place, program):
    with place.start("spin", timeout_secs=3) as process:
        limit_files_of_running(place, process)
        text, errors = process.communicate(timeout=60)
        same(process.returncode, REPORT_FAILED, f"exit status ({errors!r})")
    assert "ulimit -f" in errors, errors
    same((json.loads(text)["status"], place.temporary_files()), ("timeout", []), "report on standard output, temporary files")
    with subprocess.Popen([program, "job.json"], cwd=place.path, stdout=subprocess.PIPE, text=True) as process:
        place.started.add(process.pid)
        limit_files_of_running(place, process)
        text, _ = process.communicate(timeout=60)
        same(process.returncode, 1, "exit status of the program")
    same((json.loads(text)["status"], place.temporary_files()), ("timeout", []), "the program's report, temporary files")


def with_image(place, tool, **more):
    place.put("saved.tar", b"\x1f\x8b")  # by its first bytes, an archive
    place.put("image.json", json.dumps({"cmd": ["true"], "squashfs": {"bytes": 4096}}).encode())
    place.put("tool", f"#!/bin/sh\n{tool}\n".encode())
    os.chmod(place.at("tool"), 0o700)
    return place.start("reset", rootfs_path=None, image="saved.tar", env={"BVMM_IMAGE_TOOL": place.at("tool")}, **more)


def an_image_is_converted(place, validate):
    with with_image(place, f"echo {place.at('image')}") as process:
        process.communicate(timeout=20)
    report = place.report()
    validate(report)
    same((report["status"], report["job"]["rootfs_path"]), ("guest_reset", place.at("image")), "status, and what ran")


def an_image_that_cannot_be_converted(place):
    with with_image(place, "echo 'no room on this disk' >&2; exit 1") as process:
        _, errors = process.communicate(timeout=20)
        same((process.returncode, os.path.exists(place.at("report.json"))), (2, False), "exit status, and whether there is a report")
    assert "$.image" in errors and "no room on this disk" in errors, errors


def cancelled_while_converting(place, validate, tool, number, group, limit_s):
    with with_image(place, f": > started; {tool}", start_new_session=True) as process:
        started = time.monotonic()
        while not os.path.exists(place.at("started")) and time.monotonic() < started + 10:
            time.sleep(0.01)
        os.unlink(place.at("started"))
        sent = time.monotonic()
        (os.killpg if group else os.kill)(process.pid, number)
        _, errors = process.communicate(timeout=20)
        took_s = time.monotonic() - sent
        same(process.returncode, 130, f"exit status ({errors!r})")
    report = place.report()
    validate(report)
    same((report["status"], report["cancelled_by"]["name"], report["job"]["rootfs_path"]), ("cancelled", number.name, None), "the report")
    assert "cancelled" in errors, errors
    assert took_s < limit_s, f"it took {took_s:.1f} s"
    same(place.all_gone(), [], "processes that are left")


def few_open_files(place):
    """However many they are: it runs, or says what to do."""
    results = {}
    for limit in [*range(5, 40), 50, 60]:
        code, _, errors = place.run("reset", vsock_path="bridge",
                                    preexec_fn=lambda limit=limit: resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit)))
        results[limit] = code
        assert code == 0 or "ulimit -n" in errors, f"with {limit}: {code}, {errors!r}"
    same((results[5] == 0, results[60]), (False, 0), "with 5 and 60")


def main():
    place = support.Place(sys.argv[1])
    program = os.path.abspath(sys.argv[2])
    cases = [("bvmm, closed: " + str(fds), of_the_command, (fds,)) for fds in CLOSED]
    cases += [("a program, closed: " + str(fds), of_a_program, (fds, program)) for fds in CLOSED]
    cases += [("the report to a closed stream", report_to_a_closed_stream, ())]
    validate = support.validator(place.bvmm)
    cases += [("an image is converted", an_image_is_converted, (validate,)),
              ("an image that cannot be converted", an_image_that_cannot_be_converted, ())]
    cases += [("no room for the record", no_room_for_the_record, (program,)),
              ("no room for the report", no_room_for_the_report, (program,))]
    cases += [("few open files", few_open_files, ())]
    cases += [(f"{number.name} while an image is converted", cancelled_while_converting,
               (validate, "exec sleep 100", number, False, 1.5)) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    cases += [("the terminal's SIGINT, which the tool gets too", cancelled_while_converting,
               (validate, "exec sleep 100", signal.SIGINT, True, 1.5)),
              ("a tool that hears no signal", cancelled_while_converting,
               (validate, "trap '' TERM; while :; do sleep 0.1; done", signal.SIGTERM, False, 5))]
    support.run_cases([(name, lambda case=case, arguments=arguments: case(place, *arguments)) for name, case, arguments in cases])


main()
