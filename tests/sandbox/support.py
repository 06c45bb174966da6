# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the tests of the sandbox share: guests of a few instructions, which every KVM can run, and runs of bvmm."""

import ctypes
import json
import os
import struct
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
PATIENCE_S = 300  # who has not come to an end by then hangs, on a machine however loaded
PROMISE_S = 1.0   # what bvmm promises on a machine that is not busy: a report, and nothing left
UNDISTURBED_TRIES = 20
PR_SET_CHILD_SUBREAPER = 36
SPIN_TICKS = os.sysconf("SC_CLK_TCK") // 10  # far more than all that a guest of a few instructions does
WALL = 0x40000000  # __WALL: also children of clone() with another signal
X86_ADDRESS = 0x200000
PORT_SERIAL, PORT_I8042 = 0x3f8, 0x64
ARM_SERIAL = 0x40000000
PSCI_SYSTEM_RESET = 0x84000009


# ---- Guests of a few instructions: for each architecture the same three words, and a kernel around them ----------------


class X86:
    spin = b"\xeb\xfe"

    @staticmethod
    def out(port, value):
        """mov dx, port; mov al, value; out dx, al."""
        return b"\x66\xba" + struct.pack("<H", port) + b"\xb0" + bytes([value]) + b"\xee"

    @staticmethod
    def ask(port):
        """mov dx, port; in al, dx."""
        return b"\x66\xba" + struct.pack("<H", port) + b"\xec"

    @classmethod
    def serial(cls, register, value):
        return cls.out(PORT_SERIAL + register, value)

    @classmethod
    def ask_serial(cls, register):
        return cls.ask(PORT_SERIAL + register)

    @classmethod
    def reset(cls):
        return cls.out(PORT_I8042, 0xfe)

    @classmethod
    def ask_keyboard(cls):
        """Answers that a vCPU waits for; interrupts of the keyboard, which echoes a byte."""
        return (cls.ask(PORT_I8042) * 20 + cls.out(PORT_I8042, 0x60) + cls.out(0x60, 0x41) + cls.out(PORT_I8042, 0xd2) +
                cls.out(0x60, 0x55))

    @staticmethod
    def kernel(code):
        """An ELF file without PVH's note: entered by the 64-bit protocol."""
        offset = 0x1000
        header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, X86_ADDRESS, 64, 0, 0, 64, 56, 1,
                             0, 0, 0)
        segment = struct.pack("<IIQQQQQQ", 1, 5, offset, X86_ADDRESS, X86_ADDRESS, len(code), 0x1000, 0x1000)
        return (header + segment).ljust(offset, b"\0") + code


class Arm64:
    """x20 is where the serial port is."""
    spin = struct.pack("<I", 0x14000000)  # b .

    @staticmethod
    def serial(register, value):
        """mov w0, value; strb w0, [x20, register]."""
        return struct.pack("<II", 0x52800000 | value << 5, 0x39000000 | register << 10 | 20 << 5)

    @staticmethod
    def ask_serial(register):
        """ldrb w0, [x20, register]."""
        return struct.pack("<I", 0x39400000 | register << 10 | 20 << 5)

    @staticmethod
    def reset():
        """mov w0, the call's upper half; movk w0, the lower; hvc 0."""
        return struct.pack("<III", 0x52a00000 | (PSCI_SYSTEM_RESET >> 16) << 5, 0x72800000 | (PSCI_SYSTEM_RESET & 0xffff) << 5,
                           0xd4000002)

    @staticmethod
    def ask_keyboard():
        return b""  # there is none

    @staticmethod
    def kernel(code):
        """Linux's header of an Image, whose first word jumps behind it; mov x20, the serial port."""
        start = struct.pack("<I", 0xd2a00000 | (ARM_SERIAL >> 16) << 5 | 20)
        body = start + code
        header = struct.pack("<IIQQQQQQ4sI", 0x14000000 | 64 // 4, 0, 0, 64 + len(body), 0, 0, 0, 0, b"ARM\x64", 0)
        return header + body


MACHINE = {"x86_64": X86, "aarch64": Arm64}.get(os.uname().machine)


def say(text):
    return b"".join(MACHINE.serial(0, byte) for byte in text)


def guests():
    return {
        "spin": MACHINE.spin,
        "hello": say(b"partial output\n") + MACHINE.spin,
        "reset": say(b"hello\n") + MACHINE.reset() + MACHINE.spin,
        "panic": say(b"Kernel panic - not syncing: boo\n") + MACHINE.reset() + MACHINE.spin,
        # of the serial port: answers that a vCPU waits for, and interrupts wanted for room in the transmitter
        "interrupts": (MACHINE.ask_serial(5) * 20 + MACHINE.serial(4, 8) + MACHINE.serial(1, 2) + MACHINE.ask_keyboard() +
                       say(b"hello\n") + MACHINE.spin),
    }


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(SKIPPED)


class Place:
    """A directory with guests and an image, in which bvmm runs."""

    def __init__(self, bvmm):
        self.bvmm = os.path.abspath(bvmm)
        self.dir = tempfile.TemporaryDirectory(prefix="bvmm-sandbox.")
        self.path = self.dir.name
        self.started = set()
        adopt_orphans()
        if MACHINE is None:
            skip(f"no guests for {os.uname().machine}")
        for name, code in guests().items():
            self.put(f"{name}.kernel", MACHINE.kernel(code))
        image = bytearray(4096)
        image[:4], image[41] = b"hsqs", 0x10  # a squashfs at first sight, 4096 bytes of it used
        self.put("image", image)
        self.need()

    def put(self, name, data):
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(data)

    def need(self):
        """Skip where no such guest can run."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            skip("no /dev/kvm that this user may open")
        self.run("reset")
        report = self.report()
        if report["status"] != "guest_shutdown":
            skip(f"this host cannot run a guest of a few instructions in the sandbox: {report['error']}")
        self.filtered = report["sandbox"]["layers"]["seccomp"]

    def undisturbed(self, run):
        """What run() gives, of a run whose actors all stopped in time: on a busy machine not each is one. The last try is
        taken as it is."""
        for _ in range(UNDISTURBED_TRIES):
            result = run()
            error = self.report()["error"] if os.path.exists(self.at("report.json")) else None
            if error is None or "did not stop" not in error["message"]:
                break
        return result

    def time_a_run(self):
        """How long a whole run takes here and now: what load does to time. A report that is there stays."""
        self.move("report.json", "kept.json")
        started = time.monotonic()
        self.run("reset", report_path="timed.json")
        took_s = time.monotonic() - started
        self.move("kept.json", "report.json")
        return took_s

    def move(self, old, new):
        if os.path.exists(self.at(old)):
            os.replace(self.at(old), self.at(new))

    def in_time(self, took_s, promise_s=PROMISE_S):
        """Whether that is what was promised; on a busy machine, in proportion to what a run takes there."""
        return took_s < promise_s or took_s < promise_s + 10 * self.time_a_run()

    def need_filters(self):
        if not self.filtered:
            skip("this build has sanitizers, whose runtimes make calls of their own")

    def start(self, guest, env=None, wrap=(), args=(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
              stderr=subprocess.PIPE, start_new_session=False, preexec_fn=None, pass_fds=(), **keys):
        """keys: of the job."""
        job = {"kernel_path": f"{guest}.kernel", "rootfs_path": "image", "memory_mib": 64, "timeout_secs": PATIENCE_S,
               "report_path": "report.json", **keys}
        self.put("job.json", json.dumps({key: value for key, value in job.items() if value is not None}).encode())
        if os.path.exists(self.at("report.json")):
            os.unlink(self.at("report.json"))
        process = subprocess.Popen([*wrap, self.bvmm, "--json-config", "job.json", *args], cwd=self.path,
                                   env={**os.environ, **(env or {})}, stdin=stdin, stdout=stdout, stderr=stderr,
                                   start_new_session=start_new_session, preexec_fn=preexec_fn, pass_fds=pass_fds,
                                   text=True)
        self.started.add(process.pid)
        return process

    def run(self, guest, limit_s=PATIENCE_S, **more):
        """Exit status, as subprocess has it; standard output; standard error."""
        with self.start(guest, **more) as process:
            text, errors = process.communicate(timeout=limit_s)
            return process.returncode, text, errors

    def at(self, name):
        return os.path.join(self.path, name)

    def report(self, name="report.json"):
        with open(self.at(name), encoding="utf-8") as file:
            return json.load(file)

    def members(self):
        """Processes that bvmm left behind: orphans come to us. What is dead is waited for."""
        left = []
        for pid in children(os.getpid()):
            if pid not in self.started:
                try:
                    gone, _ = os.waitpid(pid, os.WNOHANG | WALL)
                except ChildProcessError:
                    continue
                left += [] if gone == pid else [(pid, comm(pid))]
        return left

    def all_gone(self):
        """What is still there after the time that bvmm promises, or what that becomes on a busy machine."""
        started = time.monotonic()
        while (left := self.members()) and time.monotonic() - started < PROMISE_S:
            time.sleep(0.005)
        while left and self.in_time(time.monotonic() - started):
            left = self.members()
        return left

    def supervisor_of(self, process):
        """The VM process, when it is there; None if it is over before it was seen."""
        started = time.monotonic()
        while time.monotonic() - started < PATIENCE_S and process.poll() is None:
            for pid in children(process.pid):
                if comm(pid) == "supervisor":
                    return pid
            time.sleep(0.002)
        return None

    def await_spinning(self, vm):
        """Wait until the guest has done all that it does before it spins: a vCPU has used CPU time, all other threads sleep,
        so that they have nothing left to do. Return: False if it is over before that."""
        started = time.monotonic()
        while vm is not None and time.monotonic() - started < PATIENCE_S:
            threads = threads_of(vm)
            if not threads or any(state in "ZX" for _, state, _ in threads):
                return False
            spins = [ticks for name, _, ticks in threads if name.startswith("vcpu")]
            if spins and max(spins) >= SPIN_TICKS and \
                    all(state == "S" for name, state, _ in threads if not name.startswith("vcpu")):
                return True
            time.sleep(0.005)
        assert vm is None, f"the guest does not come to spin: {threads_of(vm)}"
        return False

    def temporary_files(self):
        return sorted(name for name in os.listdir(self.path) if name.startswith(".") or "tmp" in name)


def adopt_orphans():
    """Whose parent dies becomes our child, as init's otherwise."""
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "PR_SET_CHILD_SUBREAPER")


def comm(pid):
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"


def threads_of(pid):
    """Of each thread: name, state, ticks of CPU time."""
    found = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/stat", encoding="utf-8", errors="replace") as file:
                head, _, rest = file.read().rpartition(")")
            words = rest.split()
            found.append((head.partition("(")[2], words[0], int(words[11]) + int(words[12])))
    except OSError:
        return []
    return found


def await_stopped(pid):
    """A signal is taken soon, not at once."""
    while any(state not in "Tt" for _, state, _ in threads_of(pid)):
        time.sleep(0.002)


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def same(found, expected, what):
    assert found == expected, f"{what}: expected {expected!r}, not {found!r}"


def run_cases(cases):
    """cases: pairs of a name and a function. Each is run, whatever became of those before; then the program ends."""
    failed = 0
    for name, case in cases:
        try:
            case()
            print(f"ok: {name}")
        except Exception as error:  # pylint: disable=broad-except
            failed += 1
            print(f"FAILED: {name}: {type(error).__name__} {error}")
    print(f"{len(cases)} cases, {failed} failed")
    sys.exit(1 if failed else 0)


def validator(bvmm):
    """Holds a report against the schema that bvmm prints."""
    import jsonschema
    schema = json.loads(subprocess.run([bvmm, "schema", "report"], stdout=subprocess.PIPE, check=True).stdout)
    return jsonschema.Draft202012Validator(schema).validate
