#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a person sees on a terminal: a status line that goes away, and a summary; with --quiet neither; elsewhere neither.

usage: test_terminal.py BVMM
"""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import support
from support import same

LIMIT_S = support.PATIENCE_S
# Of a run that must show its status line: if it did not come to that, the machine is slow, and gets more time.
TIMEOUTS_S = (2, 6, 20, 60)


class Terminal:
    """The person's end of a pseudo terminal, and what stands on its screen. What a status line needs is understood:
    carriage return, line feed, and writing over."""

    def __init__(self):
        self.person, self.program = pty.openpty()
        self.raw = b""
        self.lines, self.column = [[]], 0
        self.states = []  # of the last line, each time that the cursor went back to its beginning

    def show(self, data):
        self.raw += data
        for char in data.decode():
            if char == "\r":
                self.states.append(self.last())
                self.column = 0
            elif char == "\n":
                self.lines.append([])
            else:
                assert char.isprintable(), f"{char!r} on the terminal: {self.raw!r}"
                line = self.lines[-1]
                line[self.column:self.column + 1] = [char]
                self.column += 1

    def last(self):
        return "".join(self.lines[-1]).rstrip()

    def screen(self):
        return [text for text in ("".join(line).rstrip() for line in self.lines) if text]

    def opened(self):
        """The program has its end."""
        os.close(self.program)
        self.program = -1

    def watch(self, until=None):
        """To the end of the program, which closes its end; or until the last line is like this."""
        deadline = time.monotonic() + LIMIT_S
        while until is None or not re.fullmatch(until, self.last()):
            left_s = deadline - time.monotonic()
            assert left_s > 0 and select.select([self.person], [], [], left_s)[0], f"nothing more after {self.raw!r}"
            try:
                data = os.read(self.person, 4096)
            except OSError:  # EIO: nobody has the other end open
                data = b""
            if not data:
                assert until is None, f"it ended, and {until!r} was never on the screen: {self.raw!r}"
                break
            self.show(data)

    def close(self):
        os.close(self.person)
        if self.program >= 0:
            os.close(self.program)


def timed_out(timeout_secs):
    """As a pattern. On a busy machine somebody may be late to stop, which is said too."""
    return re.escape(f"bvmm: timeout: the run did not end within timeout_secs = {timeout_secs} s; "
                     "raise it in the job, or 0 for no limit") + r"(.* did not stop .*)?"


def matches(found, patterns, what):
    assert len(found) == len(patterns) and all(map(re.fullmatch, patterns, found)), \
        f"{what}: expected {patterns}, not {found}"


def run(place, guest, args=(), stdout=False, stderr=True, **keys):
    """With standard output or error on a terminal. Return: the terminal; exit status; what came by pipes."""
    terminal = Terminal()
    with place.start(guest, args=args, stdout=terminal.program if stdout else subprocess.PIPE,
                     stderr=terminal.program if stderr else subprocess.PIPE, **keys) as process:
        terminal.opened()
        if stdout or stderr:
            terminal.watch()
        piped = "".join(text for text in process.communicate(timeout=LIMIT_S) if text is not None)
    terminal.close()
    return terminal, process.returncode, piped


def line_and_summary(place):
    """Every half second the line says what goes on, in place; at the end it is gone, and two lines say what became of it."""
    for timeout_secs in TIMEOUTS_S:
        started = time.monotonic()
        terminal, status, piped = run(place, "hello", timeout_secs=timeout_secs)
        took_s = time.monotonic() - started
        same((status, piped), (124, ""), "exit status and standard output")
        matches(terminal.screen(), [timed_out(timeout_secs), r"bvmm: timeout, after \d+\.\d s; report: report\.json"],
                "the screen at the end")
        lines = [state for state in terminal.states
                 if ", after " not in state and state != "" and not re.fullmatch(timed_out(timeout_secs), state)]
        for line in lines:
            assert re.fullmatch(rf"bvmm: [a-zA-Z ]+, \d+ s of {timeout_secs} s", line), f"status line {line!r}"
        # a person is to see that it lives, and the benchmark is not to feel it
        assert len(lines) <= 2 * took_s + 4, f"{len(lines)} states of the line in {took_s:.1f} seconds: {lines[:20]}"
        wanted = [f"bvmm: booting the guest, {s} s of {timeout_secs} s" for s in (timeout_secs - 1, timeout_secs)]
        if len(lines) >= 3 and all(line in lines for line in wanted):
            return
    raise AssertionError(f"{wanted} were not all on the screen: {lines}")


def without_a_deadline(place):
    terminal = Terminal()
    with place.start("spin", timeout_secs=0, stderr=terminal.program) as process:
        terminal.opened()
        terminal.watch(until=r"bvmm: booting the guest, [1-9]\d* s")
        process.kill()
        process.communicate(timeout=LIMIT_S)
    terminal.close()
    same(place.all_gone(), [], "processes that are left")


def short_run(place):
    terminal, status, piped = run(place, "reset")
    same((status, piped), (0, ""), "exit status and standard output")
    matches(terminal.screen(), [r"bvmm: guest_shutdown, after \d+\.\d s; report: report\.json"], "the screen at the end")


def quiet(place):
    for option in ("--quiet", "-q"):
        terminal, status, piped = run(place, "reset", args=(option,))
        same((terminal.raw, status, piped), (b"", 0, ""), f"{option}: terminal, exit status, standard output")
    terminal, status, piped = run(place, "hello", args=("--quiet",), timeout_secs=2)
    same((status, piped), (124, ""), "exit status and standard output")
    matches([terminal.raw.decode()], [timed_out(2) + "\r\n"], "a run that failed: only why")


def no_terminal(place):
    """A file or a pipe for standard error; and where only standard output is a terminal."""
    for stdout in (False, True):
        terminal, status, piped = run(place, "reset", stdout=stdout, stderr=False)
        same((terminal.raw, status, piped), (b"", 0, ""), "terminal, exit status, standard error")
        terminal, status, piped = run(place, "hello", stdout=stdout, stderr=False, timeout_secs=2)
        same((terminal.raw, status), (b"", 124), "terminal, exit status")
        matches([piped], [timed_out(2) + "\n"], "standard error")


def report_on_the_terminal(place):
    """Standard output and error on one terminal: nothing of the line is left between the report's."""
    import json
    terminal, status, _ = run(place, "hello", stdout=True, timeout_secs=2, report_path="-")
    same(status, 124, "exit status")
    report, end, rest = "\n".join(terminal.screen()).partition("\n}\n")
    same(json.loads(report + end)["status"], "timeout", "the report's status")
    matches(rest.splitlines(), [timed_out(2), r"bvmm: timeout, after \d+\.\d s"], "the screen after the report")


def verbose(place):
    """Its lines are whole: nothing of the status line is left in them."""
    for timeout_secs in TIMEOUTS_S:
        terminal, status, _ = run(place, "hello", args=("--verbose",), timeout_secs=timeout_secs)
        same(status, 124, "exit status")
        if any(f"booting the guest, 1 s of {timeout_secs} s" in state for state in terminal.states):
            break
    for line in terminal.screen():
        assert re.fullmatch(r"bvmm: +\d+\.\d{3} s  [a-zA-Z ]+|bvmm: (actor|vcpu0|serial|i8042|blk0|vsock|supervisor) .*\d|"
                            r"bvmm: actor .*cpu ms|bvmm: exits of vcpu 0:.*|bvmm: timeout.*", line), f"line {line!r}"
    assert any(re.fullmatch(r"bvmm: +\d+\.\d{3} s  booting the guest", line) for line in terminal.screen()), terminal.screen()
    assert any(f"booting the guest, 1 s of {timeout_secs} s" in state for state in terminal.states), "no status line beside the others"


def interrupted(place):
    """Ctrl-C, twice: it reaches all of the terminal's foreground, the VM process too. The screen is clean."""
    terminal = Terminal()
    with place.start("hello", timeout_secs=LIMIT_S, stdin=terminal.program, stderr=terminal.program, start_new_session=True,
                     preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) as process:
        terminal.opened()
        terminal.watch(until=rf"bvmm: booting the guest, [1-9]\d* s of {LIMIT_S} s")
        os.write(terminal.person, b"\x03")
        time.sleep(0.2)
        os.write(terminal.person, b"\x03")
        terminal.watch()
        process.communicate(timeout=LIMIT_S)
    terminal.close()
    same(process.returncode, 130, "exit status")
    # what the terminal itself shows of the keys is not bvmm's to remove
    screen = [line.replace("^C", "").rstrip() for line in terminal.screen()]
    matches([line for line in screen if line],
            [r"bvmm: cancelled(: .* did not stop .*)?", r"bvmm: cancelled, after \d+\.\d s; report: report\.json"],
            "the screen at the end")
    same(place.report()["status"], "cancelled", "the report's status")


CASES = [line_and_summary, without_a_deadline, short_run, quiet, no_terminal, report_on_the_terminal, verbose, interrupted]


def main():
    place = support.Place(sys.argv[1])
    support.run_cases([(case.__name__, lambda case=case: case(place)) for case in CASES])


if __name__ == "__main__":
    main()
