#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""However the VM process or the launcher comes to its end, there is a valid report within a second, with the cause.

usage: test_ends.py BVMM FAULT_LIBRARY
"""

import errno
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import support
from support import same

LANDLOCK_CREATE_RULESET = 444

# Where, what, the signal that ends the process, the report's status, words of its message, the forbidden call.
FAULTS = [
    ("vm", "segv", "SIGSEGV", "vm_killed", "SIGSEGV", None),
    ("vm", "bus", "SIGBUS", "vm_killed", "SIGBUS", None),
    ("vm", "stack", "SIGSEGV", "vm_killed", "SIGSEGV", None),
    ("vm", "trap", "SIGILL", "vm_killed", "SIGILL", None),
    ("vm", "socket", "SIGSYS", "sandbox_violation", "actor supervisor made the system call socket", "socket"),
    ("vm", "execve", "SIGSYS", "sandbox_violation", "actor supervisor made the system call execve", "execve"),
    ("vm", "unknown", "SIGSYS", "sandbox_violation", "actor supervisor made the system call unknown (5000", None),
    # every pointer to code that is to be found among the program's variables is changed before
    ("vm", "survive", "SIGSYS", "sandbox_violation", "actor supervisor made the system call socket", "socket"),
    # the console says that the guest panicked: that is not how the VM process ended
    ("vm", "panic_socket", "SIGSYS", "sandbox_violation", "actor supervisor made the system call socket", "socket"),
    ("vm", "panic_segv", "SIGSEGV", "vm_killed", "SIGSEGV", None),
    ("waiting", "socket", "SIGSYS", "sandbox_violation", "the launcher made the system call socket", "socket"),
    ("waiting", "unknown", "SIGSYS", "sandbox_violation", "the launcher made the system call unknown (5000", None),
    ("waiting", "segv", "SIGSEGV", "vm_error", "the launcher was killed by signal 11", None),
    ("writing", "execve", "SIGSYS", "sandbox_violation", "the launcher made the system call execve", "execve"),
    ("writing", "socket", "SIGSYS", "sandbox_violation", "the launcher made the system call socket", "socket"),
    ("writing", "segv", "SIGSEGV", "vm_error", "the launcher was killed by signal 11", None),
    ("writing", "bus", "SIGBUS", "vm_error", "the launcher was killed by signal 7", None),
    ("writing", "stack", "SIGSEGV", "vm_error", "the launcher was killed by signal 11", None),
]
START_S = 1.0  # with a library that is loaded before
NAMES = {"SIGSEGV": "Segmentation fault", "SIGBUS": "Bus error", "SIGILL": "Illegal instruction"}


def has(text, part):
    assert part in text, f"{part!r} is not in {text!r}"


def violation(report, who, call):
    found = report["sandbox"]["violation"]
    same(found["actor"], who, "violation: actor")
    same(found["syscall"], call, "violation: call")
    if call is None:
        same((found["number"], found["arguments"][:3]), (5000, ["0x1", "0x2", "0x3"]), "violation: number and arguments")


def fault(place, validate, library, where, what, number, status, words, call):
    env = {"LD_PRELOAD": library, "BVMM_FAULT_AT": where, "BVMM_FAULT": what}
    started = time.monotonic()
    with_guest = "hello" if where == "vm" else "reset"
    code, text, errors = place.run(with_guest, env=env)
    took_s = time.monotonic() - started
    report = place.report()
    validate(report)
    same(report["status"], status, "status")
    has(report["error"]["message"], NAMES.get(words, words))
    if where == "vm":
        same(code, 4, "exit status")
        same(report["vm_signal"]["name"], number, "signal of the VM process")
    else:
        same(code, -getattr(signal, number), f"how the launcher ended ({errors})")
        has(errors, words)
        assert any("the launcher itself ended early" in warning for warning in report["warnings"]), report["warnings"]
    if number == "SIGSYS":
        violation(report, "supervisor" if where == "vm" else "launcher", call)
    else:
        same(report["sandbox"]["violation"], None, "violation")
    same(text, "", "standard output")
    assert place.in_time(took_s, START_S + support.PROMISE_S), f"it took {took_s:.2f} s with the start"
    same(place.all_gone(), [], "processes that are left")
    same(place.temporary_files(), [], "temporary files")


def to_stdout(place, validate, library):
    """A report that goes to standard output does so in the launcher's last words too."""
    import json
    env = {"LD_PRELOAD": library, "BVMM_FAULT_AT": "waiting", "BVMM_FAULT": "socket"}
    code, text, _ = place.run("reset", env=env, report_path="-")
    same(code, -signal.SIGSYS, "how the launcher ended")
    validate(json.loads(text))
    same(json.loads(text)["sandbox"]["violation"]["actor"], "launcher", "violation: actor")


def spinning(place, process):
    """The VM process, when its guest has printed."""
    vm = place.supervisor_of(process)
    assert place.await_spinning(vm), "the VM process ended by itself"
    return vm


def killed_from_outside(place, validate):
    """While the guest runs. What it had printed is in the report. (Other signals do not reach the first process of a
    namespace.)"""
    with place.start("hello") as process:
        os.kill(spinning(place, process), signal.SIGKILL)
        sent = time.monotonic()
        process.communicate(timeout=support.PATIENCE_S)
        took_s = time.monotonic() - sent
    report = place.report()
    validate(report)
    same((report["status"], report["vm_signal"]["name"]), ("vm_killed", "SIGKILL"), "status and signal")
    same(report["console"]["text"], "partial output\n", "what the guest had printed")
    assert place.in_time(took_s), f"the report took {took_s:.2f} s"
    same(place.all_gone(), [], "processes that are left")


def cancelled_by(place, validate, number):
    """A signal that cancels: the run ends as bvmm.1 says, with what there was."""
    with place.start("hello") as process:
        spinning(place, process)
        process.send_signal(number)
        process.communicate(timeout=support.PATIENCE_S)
        same(process.returncode, 130, "exit status")
    report = place.report()
    validate(report)
    same((report["status"], report["cancelled_by"]["name"]), ("cancelled", number.name), "status and signal")
    same(report["console"]["text"], "partial output\n", "what the guest had printed")
    same(place.all_gone(), [], "processes that are left")


def ignores_what_was_ignored(place, validate):
    """As nohup starts it: the terminal may go, and the run goes on."""
    with place.start("hello", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)) as process:
        spinning(place, process)
        process.send_signal(signal.SIGHUP)
        time.sleep(0.2)
        same(process.poll(), None, "exit status after a SIGHUP that is ignored")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=support.PATIENCE_S)
    report = place.report()
    validate(report)
    same((report["status"], report["cancelled_by"]["name"]), ("cancelled", "SIGTERM"), "status and signal")


def started_where_sigchld_is_ignored(place, validate):
    """As a daemon may start it. How the VM process ended is told all the same."""
    for kill, expected in ((False, ("timeout", None)), (True, ("vm_killed", "SIGKILL"))):
        with place.start("hello", timeout_secs=support.PATIENCE_S if kill else 1,
                         preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)) as process:
            if kill:
                os.kill(spinning(place, process), signal.SIGKILL)
            process.communicate(timeout=support.PATIENCE_S)
            same(process.returncode, 4 if kill else 124, "exit status")
        report = place.report()
        validate(report)
        same((report["status"], report["vm_signal"] and report["vm_signal"]["name"]), expected, "status and signal")


def fails_in_a_locale(place, validate, library):
    """An actor's error is told in its filter, in a program that has set a locale: nobody looks for a translation."""
    env = {"LD_PRELOAD": library, "BVMM_FAULT_RUN": str(errno.EFAULT), "LC_ALL": "C.UTF-8", "LANGUAGE": "de"}
    code, _, _ = place.run("hello", env=env)
    report = place.report()
    validate(report)
    same((code, report["status"]), (4, "vm_error"), "exit status and status")
    has(report["error"]["message"], "KVM_RUN failed: Bad address")


def panics(place, validate):
    """The VM process ends as it should, after a reset; the console says that it was a panic."""
    code, _, _ = place.run("panic")
    report = place.report()
    validate(report)
    same((code, report["status"], report["error"]["kind"]), (5, "guest_panic", "Boot"), "exit status, status and kind")
    same(report["error"]["message"], "the guest's kernel panicked: boo", "message")


def stopped_in_time(place, timeout_secs):
    """Whether the VM process was stopped, its guest having printed, before the deadline; and then to the end of the run."""
    started = time.monotonic()
    with place.start("hello", timeout_secs=timeout_secs) as process:
        try:
            os.kill(spinning(place, process), signal.SIGSTOP)
            stopped = time.monotonic() - started < timeout_secs
        except (AssertionError, ProcessLookupError):
            stopped = False
        process.communicate(timeout=support.PATIENCE_S)
        same(process.returncode, 124, "exit status")
    return stopped


def hangs_at_the_deadline(place, validate):
    """The VM process is stopped while the guest runs, so that nobody in it can keep the deadline: the launcher does, and
    says the same as the supervisor."""
    timeout_secs = 1
    while not stopped_in_time(place, timeout_secs):
        timeout_secs *= 3
        assert timeout_secs < support.PATIENCE_S, "it was never stopped in time"
    hung = place.report()
    place.undisturbed(lambda: place.run("hello", timeout_secs=timeout_secs))
    for report in (hung, place.report()):
        validate(report)
        same((report["status"], report["error"]["kind"]), ("timeout", "Timeout"), "status and kind")
    same(hung["error"]["message"], place.report()["error"]["message"] +
         " (the VM process did not stop by itself, and was killed)", "message")
    has(hung["error"]["message"], f"timeout_secs = {timeout_secs} s")
    same(hung["console"]["text"], "partial output\n", "what the guest had printed")
    same(place.all_gone(), [], "processes that are left")


def lies_about_times(place, validate, library):
    """A VM process that was taken over writes times into the record that would put the launcher's own limit off for ever."""
    for what in "far", "moving", "unsaid":
        env = {"LD_PRELOAD": library, "BVMM_FAULT_AT": "vm", "BVMM_FAULT": what}
        started = time.monotonic()
        with place.start("hello", timeout_secs=1, env=env) as process:
            try:
                process.communicate(timeout=support.PATIENCE_S)
            except subprocess.TimeoutExpired as error:
                process.kill()
                raise AssertionError(f"{what}: the launcher still waits, long after the start of a run of 1 s") from error
        took_s = time.monotonic() - started
        same(process.returncode, 124, f"{what}: exit status")
        validate(place.report())
        same(place.report()["status"], "timeout", f"{what}: status")
        assert place.in_time(took_s, 6.0), f"{what}: a run of 1 s took {took_s:.2f} s"
        same(place.all_gone(), [], f"{what}: processes that are left")


def lies_about_layers(place, validate, library):
    """A VM process that was taken over writes other layers into the record than those that stand."""
    for what, mode in ("layers", "off"), ("no_layers", "strict"):
        reports = []
        for fault_at in "", "vm":
            env = {"LD_PRELOAD": library, "BVMM_FAULT_AT": fault_at, "BVMM_FAULT": what}
            place.run("hello", timeout_secs=1, sandbox=mode, env=env)
            reports.append(place.report())
            validate(reports[-1])
            same(reports[-1]["status"], "timeout", f"{what}: status")
        for key in "layers", "refused":
            same(reports[1]["sandbox"][key], reports[0]["sandbox"][key], f"{what}: {key}")
        same(reports[0]["sandbox"]["layers"]["seccomp"], mode == "strict", f"{mode}: seccomp")


def outlived_in_time(place, timeout_secs):
    """Whether a process whose parent is stopped was in the VM process's namespace before the deadline; and then to the end
    of the run."""
    started = time.monotonic()
    with place.start("hello", timeout_secs=timeout_secs) as process:
        vm = place.supervisor_of(process)
        with subprocess.Popen(["nsenter", "-t", str(vm), "-p", "sleep", "1000"]) as ghost:
            place.started.add(ghost.pid)
            while "sleep" not in map(support.comm, support.children(ghost.pid)) and ghost.poll() is None:
                time.sleep(0.005)
            ghost.send_signal(signal.SIGSTOP)
            in_time = ghost.poll() is None and time.monotonic() - started < timeout_secs
            process.communicate(timeout=support.PATIENCE_S)
            try:
                same(process.returncode, 124, "exit status")
                if in_time:
                    same([name for _, name in place.members()], ["supervisor"], "what is left: the VM process, which is init's")
            finally:
                ghost.send_signal(signal.SIGCONT)
    return in_time


def stopped_and_continued(place, validate):
    """By a person at a terminal, say. Calls that this breaks off go on, in the filters too."""
    with place.start("hello", timeout_secs=4) as process:
        victims = [process.pid, place.supervisor_of(process)]
        for number in range(40):
            for sent in (signal.SIGSTOP, signal.SIGCONT):
                os.kill(victims[number % 2], sent)
                time.sleep(0.01)
        process.communicate(timeout=support.PATIENCE_S)
    report = place.report()
    validate(report)
    same((report["status"], report["sandbox"]["violation"]), ("timeout", None), "status, violation")
    same(place.all_gone(), [], "processes that are left")


def outlives_its_kill(place, validate):
    """The kernel does not let the first process of a namespace die before all others in it have been waited for; the
    parent of one of them is stopped. The report does not wait for that, and nor does the command."""
    if os.geteuid() != 0:
        print("skipped: only root may enter the VM process's namespace")
        return
    timeout_secs = 1
    while not outlived_in_time(place, timeout_secs):
        timeout_secs *= 3
        assert timeout_secs < support.PATIENCE_S, "nobody was in its namespace in time"
    validate(place.report())
    same(place.report()["status"], "timeout", "status")
    same(place.all_gone(), [], "processes that are left")


def elsewhere_is_out_of_reach(place, validate, library):
    """A launcher that was taken over removes a file by a call that its filters allow. Landlock knows where."""
    if ctypes.CDLL(None).syscall(LANDLOCK_CREATE_RULESET, None, ctypes.c_size_t(0), 1) < 1:
        print("skipped: this host's kernel has no Landlock, or it is not enabled")
        return
    with tempfile.TemporaryDirectory() as elsewhere:
        for directory, reached in ((place.path, True), (elsewhere, False)):
            victim = os.path.join(directory, "victim")
            with open(victim, "w", encoding="utf-8"):
                pass
            # all that the launcher may need of the file system: a bridge's socket, a directory of large outputs
            code, _, errors = place.run("hello", env={"LD_PRELOAD": library, "BVMM_FAULT_VICTIM": victim}, timeout_secs=1,
                                        vsock_path="bridge", large_outputs={"over_bytes": 1, "dir": "large/new"})
            same((code, errors.count("\n")), (124, 1), f"exit status, and lines of {errors!r}")
            same(os.path.exists(victim), not reached, f"{victim} is there")
            validate(place.report())
            same(place.report()["warnings"], [], "warnings")
            same(os.listdir(place.at("large/new")), ["console"], "large outputs")
            same((os.path.exists(place.at("bridge")), place.temporary_files()), (False, []), "what is left")
            shutil.rmtree(place.at("large/new"))


def main():
    bvmm, library = map(os.path.abspath, sys.argv[1:])
    place, validate = support.Place(bvmm), support.validator(bvmm)
    place.need_filters()
    cases = [(f"{case[0]}: {case[1]}", lambda case=case: fault(place, validate, library, *case)) for case in FAULTS]
    cases += [("the VM process is killed", lambda: killed_from_outside(place, validate))]
    cases += [(f"cancelled by {number.name}", lambda number=number: cancelled_by(place, validate, number))
              for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    cases += [("SIGHUP is ignored, as by nohup", lambda: ignores_what_was_ignored(place, validate))]
    cases += [("SIGCHLD is ignored", lambda: started_where_sigchld_is_ignored(place, validate))]
    cases += [("KVM_RUN fails in a locale", lambda: fails_in_a_locale(place, validate, library))]
    cases += [("the guest panics", lambda: panics(place, validate))]
    cases += [("the VM process hangs at the deadline", lambda: hangs_at_the_deadline(place, validate))]
    cases += [("the VM process lies about times", lambda: lies_about_times(place, validate, library))]
    cases += [("the VM process lies about layers", lambda: lies_about_layers(place, validate, library))]
    cases += [("both are stopped and continued", lambda: stopped_and_continued(place, validate))]
    cases += [("the VM process outlives its kill", lambda: outlives_its_kill(place, validate))]
    cases += [("elsewhere is out of the launcher's reach", lambda: elsewhere_is_out_of_reach(place, validate, library))]
    os.mkdir(place.at("large"))
    cases += [("the launcher's last words on standard output", lambda: to_stdout(place, validate, library))]
    support.run_cases(cases)


if __name__ == "__main__":
    main()
