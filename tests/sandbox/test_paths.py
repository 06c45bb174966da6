#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Job files that try to be clever: paths to what is no file, reports where no report can be, files that change in a run.

usage: test_paths.py BVMM
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

import support
from support import same

KEYS = ["kernel_path", "rootfs_path", "initrd_path", "stdin_path"]
USAGE, VM_ERROR, REPORT_ELSEWHERE, TIMEOUT = 2, 4, 6, 124


def make_odd_files(place):
    """What is no file for a job: names in the place's directory, or absolute ones."""
    os.mkfifo(place.at("fifo"))
    os.mkdir(place.at("directory"))
    os.symlink("nowhere", place.at("dangling"))
    os.symlink("loop", place.at("loop"))
    os.symlink("fifo", place.at("to-fifo"))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(place.at("socket"))
    return listener, ["fifo", "directory", "dangling", "loop", "to-fifo", "socket", "/dev/null", "/dev/zero", "/dev/full",
                      "/dev/kvm", "/proc/self/fd/0", "/proc/self/root", "/proc/self/mem", "image/x", ""]


def refused(place, key, path):
    """At once, by the one line that names the key; nothing was started."""
    started = time.monotonic()
    code, text, errors = place.run("spin", command="true", **{key: path})
    same(code, USAGE, f"exit status ({errors})")
    assert f"$.{key}" in errors, f"$.{key} is not named in {errors!r}"
    same((text, os.path.exists(place.at("report.json"))), ("", False), "standard output, report")
    assert place.in_time(time.monotonic() - started), "it took its time"


def watchable(place):
    """What must not be opened, and is nobody else's: the FIFO, and a device where one can be made."""
    try:
        os.mknod(place.at("device"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    except PermissionError:
        return ["fifo"]
    return ["fifo", "device"]


class Opens:
    """Counts how often a file is opened, by anybody, with rights to read or write (O_PATH opens nothing)."""

    IN_OPEN = 0x20

    def __init__(self, path):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0 or libc.inotify_add_watch(self.fd, os.fsencode(path), self.IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify", path)

    def count(self):
        """And end. An event has 16 bytes, and no name here."""
        try:
            return len(os.read(self.fd, 4096)) // 16
        except BlockingIOError:
            return 0
        finally:
            os.close(self.fd)


def looked_at_but_not_opened(place, name):
    """To open a device may start something. Whether the test can see an open at all is seen at the image."""
    opens, of_image = Opens(place.at(name)), Opens(place.at("image"))
    code, _, errors = place.run("spin", command="true", stdin_path=name)
    same(code, USAGE, f"exit status ({errors})")
    assert "a regular file" in errors, errors
    same((opens.count(), of_image.count() > 0), (0, True), f"opens of {name}; whether the image was opened")


def unreadable_input(place):
    code, _, errors = place.run("spin", command="true", stdin_path="/proc/self/mem")
    same(code, VM_ERROR, f"exit status ({errors})")
    assert "stdin_path" in place.report()["error"]["message"], place.report()["error"]


def report_refused(place, path):
    code, _, errors = place.run("reset", report_path=path)
    same(code, USAGE, f"exit status ({errors})")
    assert "$.report_path" in errors, errors


def report_replaces_a_file(place):
    place.put("old.json", b"old")
    code, _, errors = place.run("reset", report_path="old.json")
    same((code, place.report("old.json")["status"]), (0, "guest_shutdown"), f"status ({errors})")


def through_links(place):
    """A link to a good file is as good as the file."""
    os.symlink("image", place.at("good-link"))
    code, _, errors = place.run("reset", rootfs_path="good-link")
    same(code, 0, f"exit status ({errors})")


def during(place, change, status, **keys):
    """Something changes while the guest spins. Return: the report, from wherever it went."""
    timeout_secs = 1
    while True:
        started = time.monotonic()
        process = place.start("spin", timeout_secs=timeout_secs, **keys)
        # On a slow machine the run is over before its guest spins, or almost: then it gets more time.
        if place.await_spinning(place.supervisor_of(process)) and time.monotonic() - started < 0.8 * timeout_secs:
            break
        process.kill()
        process.communicate()
        same(place.all_gone(), [], "processes that are left")
        timeout_secs *= 3
        assert timeout_secs < support.PATIENCE_S, "the guest never spins in time"
    with process:
        change()
        text, errors = process.communicate(timeout=support.PATIENCE_S)
    same(process.returncode, status, f"exit status ({errors})")
    same(place.all_gone(), [], "processes that are left")
    return json.loads(text) if text else place.report()


def inputs_vanish(place):
    saved = {name: open(place.at(name), "rb").read() for name in ("image", "spin.kernel", "job.json")}
    report = during(place, lambda: [os.unlink(place.at(name)) for name in saved], TIMEOUT)
    same(report["status"], "timeout", "status")
    for name, data in saved.items():
        place.put(name, data)
    report = during(place, lambda: [os.truncate(place.at(name), 0) for name in ("image", "spin.kernel")], TIMEOUT)
    same(report["status"], "timeout", "status")
    for name, data in saved.items():
        place.put(name, data)


def report_place_taken(place, take):
    """The report's name was free when the job was checked; now it is something else. That stays, the report is told."""
    place.put("victim", b"precious")
    report = during(place, take, REPORT_ELSEWHERE, report_path="taken")
    same(report["status"], "timeout", "status")
    same(open(place.at("victim"), "rb").read(), b"precious", "a file that a link points at")
    same(place.temporary_files(), [], "temporary files")
    if os.path.isdir(place.at("taken")) and not os.path.islink(place.at("taken")):
        os.rmdir(place.at("taken"))
    else:
        os.unlink(place.at("taken"))


def report_directory_gone(place):
    os.mkdir(place.at("short-lived"))
    report = during(place, lambda: shutil.rmtree(place.at("short-lived")), REPORT_ELSEWHERE, report_path="short-lived/r.json")
    same(report["status"], "timeout", "status")


def full_disk(place):
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        print("skipped: a full disk: needs root and unshare")
        return
    os.mkdir(place.at("full"))
    script = 'mount -t tmpfs -o size=16k none full; head -c 1M /dev/zero >full/filler 2>/dev/null; "$@"; s=$?; ls -A full; exit $s'
    code, text, errors = place.run("reset", wrap=["unshare", "-m", "sh", "-c", script, "sh"], report_path="full/r.json")
    same(code, REPORT_ELSEWHERE, f"exit status ({errors})")
    assert text.endswith("}\nfiller\n"), f"a report, and nothing else on the disk, expected; not {text[-100:]!r}"
    same(json.loads(text[:-len("filler\n")])["status"], "guest_shutdown", "status")
    assert "No space left" in errors, errors


def closes_what_it_inherited(place):
    """But only when the job, which may name it, has been read: `bvmm --json-config <(...)`, /dev/fd/N."""
    victim, image = os.open(place.at("victim"), os.O_RDWR | os.O_CREAT), os.open(place.at("image"), os.O_RDONLY)
    try:
        with place.start("spin", timeout_secs=2, rootfs_path=f"/dev/fd/{image}", pass_fds=(victim, image)) as process:
            place.supervisor_of(process)  # waits for it
            process.send_signal(signal.SIGSTOP)  # so that nothing is opened or closed meanwhile
            support.await_stopped(process.pid)
            found = []
            for number in os.listdir(f"/proc/{process.pid}/fd"):
                with open(f"/proc/{process.pid}/fdinfo/{number}", encoding="ascii") as file:
                    flags = next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))
                if int(number) > 2 and not flags & os.O_CLOEXEC:
                    found.append((number, os.readlink(f"/proc/{process.pid}/fd/{number}")))
            names = [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in os.listdir(f"/proc/{process.pid}/fd")]
            process.send_signal(signal.SIGCONT)
            _, errors = process.communicate(timeout=support.PATIENCE_S)
    finally:
        os.close(victim)
        os.close(image)
    same(process.returncode, TIMEOUT, f"exit status ({errors})")
    same((found, place.at("victim") in names), ([], False), "descriptors of the starter that bvmm has still")


def standard_streams_are_closed(place):
    """What is opened next must not get their numbers. The report is a file's; what is to be said is lost."""
    code, _, errors = place.run("reset", wrap=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"])
    same((code, place.report()["status"]), (0, "guest_shutdown"), f"status ({errors})")
    code, _, _ = place.run("reset", wrap=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"], report_path="-")
    assert code != 0, "a report that had nowhere to go is no success"


def killed_in(place, call, number, over_an_old_one):
    """The launcher is killed in one of the steps by which the report is put in place."""
    if over_an_old_one:
        place.put("step.json", b"old")
    wrap = ["strace", "-f", "-o", place.at("killed"), "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL:when={number}"]
    # The search for leaks needs ptrace, which strace has already.
    code, _, errors = place.run("reset", wrap=wrap, report_path="step.json", env={"ASAN_OPTIONS": "detect_leaks=0"})
    # A name that is free is given at once: there is no step in which a kill would leave another one.
    needed = call != "renameat" or over_an_old_one
    same(code, -signal.SIGKILL if needed else 0, f"status, {call} is needed: {needed} ({errors})")
    same(place.all_gone(), [], "processes that are left")
    if os.path.exists(place.at("step.json")) and open(place.at("step.json"), "rb").read() != b"old":
        same(place.report("step.json")["status"], "guest_shutdown", "a report is a whole one; its status")
    left = place.temporary_files()
    # rename() is needed for a report that is there already; a kill just before it is the one that leaves something.
    if not over_an_old_one or call == "fsync":
        same(left, [], "temporary files")
    place.run("reset", report_path="step.json")
    same((place.report("step.json")["status"], place.temporary_files()), ("guest_shutdown", []), f"the next run ({left} before)")
    os.unlink(place.at("step.json"))


def main():
    place = support.Place(sys.argv[1])
    listener, odd = make_odd_files(place)
    cases = [(f"{key}: {path!r}", lambda key=key, path=path: refused(place, key, path)) for key in KEYS for path in odd]
    # A regular file by what the system says; that it cannot be read shows in the VM process.
    cases = [case for case in cases if case[0] != "stdin_path: '/proc/self/mem'"]
    cases += [("stdin_path: /proc/self/mem", lambda: unreadable_input(place))]
    cases += [(f"not opened: {name}", lambda name=name: looked_at_but_not_opened(place, name)) for name in watchable(place)]
    cases += [(f"report_path: {path!r}", lambda path=path: report_refused(place, path))
              for path in ("directory", "fifo", "socket", "dangling", "loop", "/dev/null", "/dev/full", "/proc/self/report",
                           "image", "job.json", "nowhere/report.json", ".", "directory/")]
    cases += [
        ("a report over an old one", lambda: report_replaces_a_file(place)),
        ("a link to an image", lambda: through_links(place)),
        ("inputs that are deleted and truncated", lambda: inputs_vanish(place)),
        ("the report's name becomes a directory", lambda: report_place_taken(place, lambda: os.mkdir(place.at("taken")))),
        ("the report's name becomes a link",
         lambda: report_place_taken(place, lambda: os.symlink("victim", place.at("taken")))),
        ("the report's name becomes a FIFO", lambda: report_place_taken(place, lambda: os.mkfifo(place.at("taken")))),
        ("the report's directory is removed", lambda: report_directory_gone(place)),
        ("descriptors of the starter", lambda: closes_what_it_inherited(place)),
        ("no standard streams", lambda: standard_streams_are_closed(place)),
        ("a full disk", lambda: full_disk(place)),
    ]
    if shutil.which("strace"):
        steps = [("fsync", 1, False), ("fsync", 2, False), ("linkat", 1, False), ("renameat", 1, False), ("fsync", 1, True), ("linkat", 1, True),
                 ("linkat", 2, True), ("renameat", 1, True), ("fsync", 2, True)]
        cases += [(f"killed in {call}() {number}{', over an old report' if old else ''}",
                   lambda step=(call, number, old): killed_in(place, *step)) for call, number, old in steps]
    else:
        print("skipped: kills while a report is written: no strace")
    with listener:
        support.run_cases(cases)


if __name__ == "__main__":
    main()
