# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end-to-end scenarios: what bvmm is for, and what may go wrong with it. See harness.py for the words."""

import hashlib
import json
import re

from harness import Run, Skipped, expect, same, scenario, shell, when_running
from prepare import SQUASHFS_COMPRESSORS

MIB = 1024 * 1024
# From the job's deadline to the end of bvmm.
DEADLINE_LIMIT_S = 0.5


# --- what a place must have ---

def only(arch, reason):
    return lambda place: None if place.arch == arch else f"only on {arch}: {reason}"


def vsock(place):
    return None if place.vsock else "bvmm has no vsock yet"


def no_hardware(place):
    return None if place.check_status == 3 else "the KVM of this machine works: there is no error to be seen"


def digest(run):
    return hashlib.sha256(run.token.encode()).hexdigest()


def token_stream(run, size):
    """What `yes "$TOKEN" | head -c SIZE` prints."""
    line = run.token.encode() + b"\n"
    return (line * (size // len(line) + 1))[:size]


def number(pattern, text):
    match = re.search(pattern, text)
    expect(match, f"no {pattern!r} in {text[-1500:]!r}")
    return float(match[1])


# --- vCPUs ---

def count_cpus(vcpus):
    def check(_):
        out = yield Run({"vcpus": vcpus, "command": shell("nproc\ngrep -c ^processor /proc/cpuinfo")}, cpus=2)
        out.completed().proved()
        same(out.text("stdout").splitlines()[:2], [str(vcpus)] * 2, "CPUs in the guest")
        same(len(out.report["exits"]["vcpus"]), vcpus, "vCPUs in the report")
    return check


for count in (1, 2, 4):
    scenario(f"{count} vCPUs")(count_cpus(count))


# --- benchmarks ---

@scenario("openssl speed")
def openssl_speed(_):
    out = yield Run({"command": shell("openssl speed -seconds 1 -bytes 1024 sha256")})
    out.completed().proved()
    rate = number(r"(?m)^sha256 +([\d.]+)k$", out.text("stdout"))
    expect(rate > 0, f"openssl speed says {rate}")


@scenario("sysbench cpu")
def sysbench(_):
    out = yield Run({"vcpus": 2, "command": shell("sysbench cpu --threads=2 --cpu-max-prime=500 --time=2 run")})
    out.completed().proved()
    rate = number(r"events per second: +([\d.]+)", out.text("stdout"))
    expect(rate > 0, f"sysbench says {rate}")


@scenario("stress-ng --cpu 2 --timeout 5")
def stress_ng(_):
    out = yield Run({"vcpus": 2, "command": shell("stress-ng --cpu 2 --timeout 5 --metrics-brief 2>&1")})
    out.completed().proved()
    operations = number(r"metrc?:? .*\bcpu +(\d+)|info: .*\] cpu +(\d+)", out.text("stdout").replace("\t", " "))
    expect(operations > 0, f"stress-ng counts {operations}")
    elapsed_s = out.report["timings"]["command_guest_ns"] / 1e9
    expect(elapsed_s >= 5, f"5 s took {elapsed_s} s by the guest's clock")


PYTHON = """
import hashlib, json, os, sys
data = bytearray()
for i in range(2000):
    data += hashlib.sha256(bytes(data[-32:])).digest()
print(json.dumps({"argv": sys.argv[1:], "sum": hashlib.sha256(data).hexdigest()}))
print(hashlib.sha256(os.environ["TOKEN"].encode()).hexdigest())
"""


@scenario("a Python script")
def python_script(_):
    words = ["two words", "it's", '"quoted"', "$HOME", "", "\u00fc\u4e16"]
    out = yield Run({"command": ["python3", "-c", PYTHON, *words]})
    out.completed().proved()
    data = bytearray()
    for _ in range(2000):
        data += hashlib.sha256(bytes(data[-32:])).digest()
    told = json.loads(out.text("stdout").splitlines()[0])
    same(told, {"argv": words, "sum": hashlib.sha256(data).hexdigest()}, "what the script says")


WANTS = r"""
import ctypes, mmap, os, select, signal, socket, sys, time
libc = ctypes.CDLL(None, use_errno=True)

def check(name, good):
    print(name if good else "MISSING: " + name, ctypes.get_errno() if not good else "")

with open("/proc/filesystems") as file:
    known = file.read().split()
for name in ("tmpfs", "overlay", "squashfs", "ext4", "erofs", "cgroup2", "proc", "sysfs", "devtmpfs", "devpts"):
    check(name, name in known)
for path in ("/proc/self", "/sys/kernel", "/dev/null", "/dev/pts/ptmx", "/dev/shm", "/tmp", "/run", "/dev/fd/0"):
    check(path, os.path.exists(path))
for path in ("/tmp/x", "/run/x", "/dev/shm/x", "/etc/x", "/usr/bin/x"):
    with open(path, "w") as file:
        check("writing " + path, file.write("x") == 1)
master, slave = os.openpty()
check("a terminal", os.ttyname(slave).startswith("/dev/pts/"))
check("io_uring", libc.syscall(425, 4, ctypes.create_string_buffer(120)) >= 0)
check("System V shared memory", libc.shmget(0, 4096, 0o1600) >= 0)
check("System V semaphores", libc.semget(0, 1, 0o1600) >= 0)
attr = (ctypes.c_uint64 * 16)(1 | 128 << 32, 1, 0, 0, 0, 1 << 5)
check("perf events: the software clock", libc.syscall(298 if os.uname().machine == "x86_64" else 241,
                                                      attr, 0, -1, -1, 0) >= 0)
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
check("TCP over loopback", server.accept()[0].send(b"x") == 1 and client.recv(1) == b"x")
check("TCP over IPv6 loopback", socket.create_server(("::1", 0), family=socket.AF_INET6).fileno() >= 0)
check("epoll", select.epoll().fileno() >= 0)
a, b = socket.socketpair(socket.AF_UNIX)
check("unix sockets", a.send(b"x") == 1 and b.recv(1) == b"x")
start = time.monotonic_ns()
for _ in range(20):
    time.sleep(0.0001)
check("high resolution timers", time.clock_getres(time.CLOCK_MONOTONIC) < 1e-6)
with open("/proc/timer_list") as file:
    check("the clock ticks in ns", ".resolution: 1 nsecs" in file.read())
pid = os.fork()
if pid == 0:
    os._exit(0 if libc.unshare(0x10000000 | 0x20000 | 0x20000000 | 0x40000000 | 0x2000000) == 0 else 1)
check("namespaces", os.waitpid(pid, 0)[1] == 0)
os.makedirs("/tmp/cgroup", exist_ok=True)
mounted = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
check("cgroup v2", mounted)
if mounted:
    with open("/sys/fs/cgroup/cgroup.controllers") as file:
        controllers = file.read().split()
    for name in ("cpu", "memory", "pids", "cpuset"):
        check("cgroup controller " + name, name in controllers)
check("no BPF", libc.syscall(321 if os.uname().machine == "x86_64" else 280, 0, 0, 0) < 0)
check("no modules", not os.path.exists("/proc/modules"))
memory = mmap.mmap(-1, 1 << 21)
check("transparent huge pages", os.path.exists("/sys/kernel/mm/transparent_hugepage/enabled"))
print("all looked at")
"""


@scenario("what programs want of the kernel and of the file system")
def kernel_features(_):
    out = yield Run({"command": ["python3", "-c", WANTS]})
    out.completed()
    missing = [line for line in out.text("stdout").splitlines() if "MISSING" in line]
    same(missing, [], "missing")
    out.has("stdout", "all looked at")


# --- much output ---

def much_output(size, job, via):
    def check(_):
        run = Run({"limits": {"stdout_bytes": size}, "memory_mib": 512, "timeout_secs": 200,
                   "command": ["/bin/sh", "-c", f'yes "$TOKEN" | head -c {size}'], **job})
        out = yield run
        out.completed()
        same(out.report["stdout"]["via"], via, "the way")
        expect(out.stream("stdout") == token_stream(run, size), "the bytes are not those that the guest printed")
    return check


scenario("20 MiB of output over vsock", needs=[vsock])(much_output(20 * MIB, {}, "vsock"))
scenario("200 KiB of output over the serial console")(much_output(200 * 1024, {"vsock": False}, "serial"))


@scenario("output that is larger than its limit is cut, and the report says so")
def limited_output(_):
    run = Run({"limits": {"stdout_bytes": 5000, "stderr_bytes": 0},
               "command": ["/bin/sh", "-c", 'yes "$TOKEN" | head -c 30000; echo error >&2']})
    out = yield run
    out.ended("completed", 0)
    stream = out.report["stdout"]
    same((stream["size_bytes"], stream["announced_bytes"], stream["truncated"], stream["dropped_bytes"], stream["digest_ok"]),
         (5000, 30000, True, 25000, True), "stdout")
    expect(out.stream("stdout") == token_stream(run, 5000), "not the first bytes of the output")
    stream = out.report["stderr"]
    same((stream["size_bytes"], stream["announced_bytes"], stream["truncated"], stream["dropped_bytes"]), (0, 6, True, 6), "stderr")


@scenario("large outputs as files beside the report; bytes that are no text")
def large_outputs(_):
    run = Run({"large_outputs": {"over_bytes": 1000},
               "command": ["/bin/sh", "-c", 'yes "$TOKEN" | head -c 5000; printf "\\377\\000%s" "$TOKEN" >&2']})
    out = yield run
    out.completed()
    expect(out.report["stdout"]["file"] and out.report["stdout"]["data"] is None, "stdout is not in a file")
    expect(out.stream("stdout") == token_stream(run, 5000), "the file's bytes are not those that the guest printed")
    same(out.report["stderr"]["encoding"], "base64", "encoding of stderr")
    same(out.stream("stderr"), b"\xff\0" + run.token.encode(), "stderr")


# --- commands that end badly ---

@scenario("a command that crashes")
def crash(_):
    out = yield Run({"command": ["python3", "-c", "import ctypes, sys; print('before', flush=True); ctypes.string_at(0)"]})
    out.completed(139, 11).has("stdout", "before")


@scenario("a command that fails")
def fails(_):
    out = yield Run({"command": "echo out; echo err >&2; exit 41"})
    out.completed(41).has("stdout", "out\n").has("stderr", "err\n")


@scenario("a command that is not there, and one that is no program")
def not_there(_):
    missing, no_program = yield [Run({"command": ["/no/such/program"]}), Run({"command": ["/etc/passwd"]})]
    missing.completed(127).has("stderr", "/no/such/program")
    no_program.completed(126).has("stderr", "/etc/passwd")


def on_time(place, out, timeout_s):
    """bvmm ended soon after the deadline, by its own report and by the clock of who started it. In the lab starting and
    ending a process, which the second has in it, is emulated too: more is allowed there."""
    points = out.report["timings"]["points"]
    over_s = (points["vm_process_end_ns"] - points["setup_done_ns"]) / 1e9 - timeout_s
    expect(0 <= over_s <= DEADLINE_LIMIT_S, f"the VM process ended {over_s:.3f} s after the deadline; {out}")
    # What is outside of the report's view: writing it, and the start of the process.
    outside_s = out.wall_s - points["vm_process_end_ns"] / 1e9
    limit_s = DEADLINE_LIMIT_S if place.direct else DEADLINE_LIMIT_S + 1
    expect(over_s + outside_s <= limit_s, f"bvmm ended {over_s:.3f} s after the deadline by its report, and "
           f"took {outside_s:.3f} s more by the driver's clock")


@scenario("a command that hangs: the deadline holds, and the output that there was is here")
def hangs(place):
    out = yield Run({"timeout_secs": 15, "command": "echo before; echo also >&2; sleep 1000"}, alone=True)
    out.ended("timeout", 124)
    on_time(place, out, 15)
    # The guest has 250 ms to hand it over. In the lab that is not always enough; the scenarios that cancel, which give
    # it 2 s, look at the same there.
    if place.direct or out.report["stdout"]["state"] == "complete":
        out.has("stdout", "before\n").has("stderr", "also\n")


@scenario("a command that hangs on every CPU and hears no signal")
def hangs_deaf(place):
    script = "trap '' TERM INT HUP; while :; do :; done & while :; do :; done & echo before; while :; do :; done"
    out = yield Run({"vcpus": 2, "timeout_secs": 15, "command": script}, alone=True)
    out.ended("timeout", 124)
    on_time(place, out, 15)


# Commands that do not end when they are told to.
OBSTINATE = {
    "that hears no signal": "trap '' TERM INT QUIT HUP; echo before; while :; do :; done",
    "that is stopped": "echo before; kill -STOP $$; echo after",
}


def obstinate_at_deadline(command):
    def check(place):
        out = yield Run({"timeout_secs": 15, "command": command}, alone=True)
        out.ended("timeout", 124)
        on_time(place, out, 15)
        same(out.text("stdout"), "before\n", "stdout")
    return check


def obstinate_when_cancelled(command):
    def check(_):
        out = yield Run({"command": command, "timeout_secs": 100}, args=["--verbose"], alone=True,
                        watch=when_running((2, "SIGTERM")))
        out.ended("cancelled", 130)
        same((out.text("stdout"), out.report["stdout"]["state"]), ("before\n", "complete"), "stdout and its state")
        expect(out.told["signal_to_end_s"] <= 3, f"bvmm ended {out.told['signal_to_end_s']:.1f} s after SIGTERM")
    return check


for kind, obstinate in OBSTINATE.items():
    scenario(f"a command {kind}: at the deadline its output is here")(obstinate_at_deadline(obstinate))
    scenario(f"a command {kind}: when it is cancelled its output is here")(obstinate_when_cancelled(obstinate))


@scenario("a fork bomb")
def fork_bomb(place):
    out = yield Run({"memory_mib": 256, "timeout_secs": 25, "command": "bomb() { bomb | bomb & bomb; }; echo before; bomb"},
                    alone=True)
    # It ends by itself where no process can be made any more, else by the deadline.
    if out.status == 124:
        out.ended("timeout", 124)
        on_time(place, out, 25)
    else:
        out.ended("completed", 1).has("stdout", "before")


@scenario("processes that outlive the command")
def orphans(_):
    run = Run({"command": shell("sleep 1000 & (sleep 1001 &); setsid sleep 1002 & echo started")})
    out = yield run
    out.completed().proved().has("stdout", "started")


@scenario("a command that fills its memory")
def fills_memory(_):
    # Much at a time: between small pieces the guest throws its programs' pages away and reads them again, for minutes
    # where it is emulated.
    script = "data = []\nwhile True: data.append(b'x' * (100 << 20))"
    out = yield Run({"memory_mib": 192, "command": ["python3", "-c", script]})
    out.completed(137, 9)
    expect(out.report["command_usage"]["oom_kills"] >= 1, f"no OOM kill: {out.report['command_usage']}")


@scenario("a command that fills its disk")
def fills_disk(_):
    out = yield Run({"tmpfs_mib": 8, "command": shell("dd if=/dev/zero of=/big bs=1M count=100 && exit 3\ndf -k / | tail -n 1")})
    out.completed().proved().has("stderr", "No space left")


# --- guests that end badly ---

@scenario("a kernel that panics: no root")
def panic_no_root(_):
    out = yield Run({"rootfs_path": "../../images/raw.img", "rootfs_type": "other"})
    out.ended("guest_panic", 5).has("error", "Unable to mount root fs").has("console", "Kernel panic")


@scenario("a kernel that panics: no init")
def panic_no_init(_):
    out = yield Run({"kernel_cmdline_append": "quiet init=/no/such/init"})
    out.ended("guest_panic", 5).has("error", "/no/such/init").has("console", "Kernel panic")


@scenario("a kernel that panics: its init dies")
def panic_init_dies(_):
    out = yield Run({"kernel_cmdline_append": "quiet init=/bin/true"})
    out.ended("guest_panic", 5).has("error", "Attempted to kill init")


@scenario("a command that resets the machine")
def command_resets(_):
    out = yield Run({"command": ["python3", "/guest/restart"], "rootfs_path": "../../images/own.squashfs"})
    out.ended("guest_reset", 5).has("stderr of bvmm", "guest_reset: the guest reset the machine", "console")
    same(out.report["exit_code"], None, "exit code")


@scenario("a guest that ends in a triple fault", needs=[only("x86_64", "the word is its; there is no such end on Arm")])
def triple_fault(_):
    out = yield Run({"kernel_cmdline": "console=ttyS0 reboot=t panic=1 pci=off root=/dev/vda ro quiet",
                     "kernel_cmdline_append": "init=/guest/console", "rootfs_path": "../../images/own.squashfs"})
    out.ended("guest_triple_fault", 5).has("stderr of bvmm", "guest_triple_fault: the guest's processor met an error", "console")


@scenario("an image that is damaged")
def damaged_image(_):
    out = yield Run({"rootfs_path": "../../images/garbled.squashfs", "command": ["true"]})
    out.ended("guest_error", 5).has("error", "/dev/vda")


def spoilt_image(spoil, survives):
    """The image is a file of the run's own; SPOIL happens to it while the command runs, which then reads all of it. Where that
    fails the command may die of it (SIGBUS): its affair."""
    def check(_):
        script = (f'cp ../../images/bench.squashfs own.squashfs; '
                  f'(until grep -q running stderr; do sleep 0.1; done; sleep 1.5; {spoil}; touch spoilt) & exec "$@"')
        command = ("echo before; sleep 3; echo 3 >/proc/sys/vm/drop_caches; cat /usr/bin/* /usr/lib/*/* >/dev/null 2>&1; "
                   "echo survived")
        out = yield Run({"command": command, "rootfs_path": "own.squashfs"}, args=["--verbose"],
                        wrap=["sh", "-c", script, "sh"])
        out.ended("completed", 0 if survives else out.status).has("stdout", "before\nsurvived\n" if survives else "before\n")
        expect(out.exists("spoilt"), "nothing happened to the image")
        return out
    return check


@scenario("an image that is truncated during the run: the guest gets errors, and nobody else")
def truncated_image(place):
    out = yield from spoilt_image("truncate -s 1M own.squashfs", False)(place)
    expect(out.actor("blk0")["request_errors"] > 0, "no request failed")


scenario("an image that is overwritten during the run")(
    spoilt_image("dd if=/dev/urandom of=own.squashfs bs=1M seek=1 count=30 conv=notrunc 2>/dev/null", False))
scenario("an image that is deleted during the run")(spoilt_image("rm own.squashfs", True))


# --- images with an init of their own ---

@scenario("an image's own init: the console")
def own_init_console(_):
    run = Run({"rootfs_path": "../../images/own.squashfs"})
    run.job["kernel_cmdline_append"] = f"quiet init=/guest/console token={run.token}"
    out = yield run
    out.ended("guest_shutdown", 0).has("console", f"digest: {digest(run)}")


@scenario("an image's own init: the port contract", needs=[vsock])
def own_init_ports(_):
    run = Run({"rootfs_path": "../../images/own.squashfs"})
    run.job["kernel_cmdline_append"] = f"quiet init=/guest/ports token={run.token}"
    out = yield run
    expect(out.status == 1, f"the exit code was 7; {out}")
    same(out.report["exit_code"], 7, "exit code")
    same(out.text("stdout"), digest(run) + "\n", "stdout")
    same(out.text("stderr"), "to standard error\n", "stderr")
    expect(out.output_file(None) == token_stream(run, 300000), "the output file is not what the guest sent")


@scenario("an initramfs of the job's own")
def own_initramfs(_):
    run = Run({"rootfs_path": None, "initrd_path": "../../images/initramfs.cpio.gz"})
    run.job["kernel_cmdline"] = f"console=ttyS0 reboot=k panic=1 pci=off quiet token={run.token}"
    out = yield run
    out.ended("guest_shutdown", 0).has("console", f"digest: {digest(run)}")


# --- disks, kernels, memory ---

@scenario("drives: squashfs by each compressor, erofs and ext4 mounted, and one as it is")
def drives(place):
    squashfs = [{"path": f"../../images/drive-{name}.squashfs", "mount": f"/mnt/squashfs-{name}"}
                for name in SQUASHFS_COMPRESSORS]
    others = [{"path": "../../images/drive.erofs", "mount": "/mnt/erofs", "fstype": "erofs"},
              {"path": "../../images/drive.ext4", "mount": "/mnt/ext4"},
              {"path": "../../images/raw.img"}]
    run = Run({"drives": squashfs + others,
               "command": shell("sha256sum /mnt/*/data /dev/vdh | cut -c 1-64\n"
                                "! (echo x >/mnt/ext4/data) 2>/dev/null\n! dd if=/dev/zero of=/dev/vdh count=1 2>/dev/null")})
    out = yield run
    out.completed().proved()
    count = len(squashfs + others)
    with open(f"{place.base}/images/raw.img", "rb") as file:
        want = hashlib.sha256(file.read()).hexdigest()
    same(out.text("stdout").splitlines()[:count], [want] * count, "digests of the file in each")
    same(out.report["job"]["drives"], count, "drives in the report")
    same([out.actor(f"blk{index}")["request_errors"] for index in range(count + 1)], [0] * (count + 1), "errors")


@scenario("Linux's drivers find the devices, and complain of nothing")
def drivers_are_content(place):
    out = yield Run({"kernel_cmdline_append": "loglevel=7", "command": shell("cat /proc/bus/input/devices || true\ncat /proc/interrupts")})
    out.completed().proved()
    out.has("console", "is a 16550A", "virtio_blk").has("stdout", "virtio")
    if place.arch == "x86_64":
        out.has("console", "serio: i8042 KBD port at 0x60,0x64 irq 1", "ttyS0 at I/O 0x3f8 (irq = 4")
        out.has("stdout", "keyboard", "i8042")
    words = re.compile(r"(?i)(i8042|serio|atkbd|8250|ttyS0|virtio|vsock|gic|psci|arch_timer|of:|fdt).*(fail|error|warn|unknown|no controller|timeout|unable|bad)")
    same([line for line in out.report["console"]["text"].splitlines() if words.search(line)], [], "complaints")


def with_kernel(name):
    def check(place):
        out = yield Run({"kernel_path": f"../../kernel/{name}", "command": shell("uname -r"), "vcpus": 2})
        out.completed().proved()
        with open(f"{place.base}/kernel/{name}", "rb") as file:
            same(out.report["kernel"]["sha256"], hashlib.sha256(file.read()).hexdigest(), "the kernel's digest")
        same(out.text("stdout").splitlines()[0], place.kernel["version"], "uname -r")
    return check


OF_X86 = only("x86_64", "Linux for Arm comes in another format, Image")
scenario("kernel_path: an ELF kernel by PVH", needs=[OF_X86])(with_kernel("vmlinux"))
scenario("kernel_path: an ELF kernel by the 64-bit protocol", needs=[OF_X86])(with_kernel("vmlinux-64bit"))
scenario("kernel_path: a bzImage", needs=[OF_X86])(with_kernel("bzImage"))
scenario("kernel_path: an Image", needs=[only("aarch64", "it is Arm's kernel format")])(with_kernel("Image"))


@scenario("the kernel that comes with bvmm is the one that was built")
def bundled_kernel(place):
    out = yield Run({"command": shell("uname -r")})
    out.completed().proved()
    known = {artefact["sha256"] for artefact in place.kernel["artefacts"]}
    expect(out.report["kernel"]["bundled"] and out.report["kernel"]["sha256"] in known,
           f"{out.report['kernel']} is none of {known}")
    same(out.text("stdout").splitlines()[0], place.kernel["version"], "uname -r")
    same(out.report["kernel"]["version"], place.kernel["version"], "the version in the report")


@scenario("memory on both sides of the hole below 4 GiB")
def memory_above_hole(_):
    script = "awk '/MemTotal/ { print $2 }' /proc/meminfo\ngrep 'System RAM' /proc/iomem"
    out = yield Run({"memory_mib": 4096, "command": shell(script)}, alone=True)
    out.completed().proved()
    total_mib = int(out.text("stdout").splitlines()[0]) / 1024
    expect(3900 < total_mib <= 4096, f"the guest sees {total_mib:.0f} of 4096 MiB")
    expect(re.search(r"(?m)^1[0-9a-f]{8}-", out.text("stdout")) or out.report["host"]["arch"] != "x86_64",
           f"no memory above 4 GiB: {out.text('stdout')!r}")


# --- what a job can say about its command ---

@scenario("stdin from a file, and none")
def standard_input(_):
    data = bytes(range(256)) * 300
    with_file = Run({"stdin_path": "input", "command": shell("sha256sum | cut -c 1-64")}, files={"input": data})
    out, empty = yield [with_file, Run({"command": shell("wc -c")})]
    out.completed().proved()
    same(out.text("stdout").splitlines()[0], hashlib.sha256(data).hexdigest(), "digest of the input")
    empty.completed().proved()
    same(empty.text("stdout").splitlines()[0], "0", "bytes of no input")


@scenario("environment, working directory, user, host name")
def surroundings(_):
    out = yield Run({"env": {"ONE": "two words", "EMPTY": "", "UTF": "\u00e9"}, "workdir": "/usr/share", "user": "65534:5",
                     "hostname": "bench-7", "command": shell('pwd\nid -u\nid -g\nhostname\nenv | LC_ALL=C sort')})
    out.completed().proved()
    lines = out.text("stdout").splitlines()
    same(lines[:4], ["/usr/share", "65534", "5", "bench-7"], "pwd, uid, gid, host name")
    for line in ("ONE=two words", "EMPTY=", "UTF=\u00e9", f"TOKEN={out.run.token}"):
        expect(line in lines, f"{line!r} is not in the environment: {lines}")


@scenario("output files: by name, by pattern, binary, and missing ones")
def output_files(_):
    script = ('mkdir -p /out/dir; printf "%s" "$TOKEN" >/out/one; head -c 70000 /dev/zero >/out/zero.bin\n'
              'printf "\\377\\376" >"/out/a b.bin"; echo text >/out/empty; : >/out/empty')
    out = yield Run({"output_files": ["/out/one", "/out/*.bin", "/out/empty", "/out/dir", "/out/none", "/out/*.none"],
                     "command": shell(script)})
    out.completed().proved()
    same(out.output_file("/out/one"), out.run.token.encode(), "/out/one")
    same(out.output_file("/out/zero.bin"), bytes(70000), "/out/zero.bin")
    same(out.output_file("/out/a b.bin"), b"\xff\xfe", "/out/a b.bin")
    same(out.output_file("/out/empty"), b"", "/out/empty")
    missing = {entry["path"]: entry["reason"] for entry in out.report["missing_files"]}
    same(missing, {"/out/dir": "directory", "/out/none": "no_match", "/out/*.none": "no_match"}, "missing files")


# --- cancelling ---

def cancelled(name):
    def check(_):
        command = "trap 'echo told to end; exit 9' TERM; echo before; while :; do sleep 0.1; done"
        out = yield Run({"command": command, "timeout_secs": 100}, args=["--verbose"], alone=True,
                        watch=when_running((2, name)))
        out.ended("cancelled", 130).has("stdout", "before\n")
        same(out.report["cancelled_by"]["name"], name, "cancelled by")
        expect(out.told["signal_to_end_s"] <= 3, f"bvmm ended {out.told['signal_to_end_s']:.1f} s after {name}")
    return check


for signal_name in ("SIGINT", "SIGTERM", "SIGHUP"):
    scenario(f"cancelled by {signal_name}")(cancelled(signal_name))


@scenario("the VM process is killed by another: there is a report all the same")
def vm_killed(_):
    # The launcher's child is the VM process; the script ends as bvmm does.
    script = ('"$@" & launcher=$!; until grep -q running stderr; do sleep 0.1; done; sleep 1\n'
              'kill -9 $(cat /proc/$launcher/task/$launcher/children); wait $launcher')
    out = yield Run({"command": "echo before; sleep 100"}, args=["--verbose"], wrap=["sh", "-c", script, "sh"])
    out.ended("vm_killed", 4)
    same(out.report["vm_signal"]["number"], 9, "the VM process's signal")


# --- jobs that are refused ---

@scenario("jobs that are refused before anything is touched")
def bad_jobs(_):
    good = {"rootfs_path": "../../images/tiny.squashfs", "command": ["true"]}
    wanted = [
        (Run({**good, "vcpu": 1}), ["vcpu", "vcpus"]),
        (Run({**good, "vcpus": 0}), ["vcpus", "0", "1", "32"]),
        (Run({**good, "vcpus": "2"}), ["vcpus", "integer"]),
        (Run({**good, "memory_mib": 1}), ["memory_mib", "64"]),
        (Run({**good, "rootfs_path": "../../images/none.squashfs"}), ["rootfs_path", "none.squashfs"]),
        (Run({**good, "rootfs_path": "job.json"}), ["rootfs_path", "job.json", "squashfs"]),
        (Run({**good, "rootfs_path": "empty"}, files={"empty": b""}), ["rootfs_path", "empty"]),
        (Run({**good, "kernel_path": "job.json"}), ["kernel_path", "job.json"]),
        (Run({**good, "kernel_path": "../../bvmm"}), ["kernel_path", "bvmm"]),
        (Run({**good, "stdin_path": "../../none"}), ["stdin_path", "none"]),
        (Run({**good, "workdir": "relative"}), ["workdir", "relative"]),
        (Run({**good, "report_path": "no/such/dir/report.json"}, report=None), ["report_path", "no/such/dir"]),
        (Run({"kernel_cmdline": "x"}, bare=True), ["rootfs_path"]),
        (Run(text='{\n "rootfs_path": "x",\n "command" ["true"]\n}\n'), ["job.json", "3"]),
        (Run(text=""), ["job.json"]),
        (Run(argv=["--json-config", "nowhere.json"]), ["nowhere.json"]),
        (Run(argv=["--jsn-config", "job.json"]), ["--jsn-config"]),
    ]
    outcomes = yield [run for run, _ in wanted]
    for out, (run, words) in zip(outcomes, wanted):
        same(out.status, 2, f"exit status ({out}) of {run.job or run.text or run.argv}")
        expect(out.report is None and not out.exists("report.json"), f"there is a report: {out}")
        out.has("stderr of bvmm", *words)


# --- where the report goes ---

@scenario("the report on standard output, by --report, and a job from standard input")
def report_places(_):
    job = {"command": shell("true")}
    piped = Run({**job, "rootfs_path": "../../images/bench.squashfs"}, stdin="job.json", argv=["--json-config", "-"],
                report="-")
    out, other, piped_out = yield [Run(job, report="-"), Run(job, args=["--report", "sub.json"]), piped]
    out.completed().proved()
    same(out.out.decode()[0], "{", "the first byte of standard output")
    expect(other.exists("sub.json") and not other.exists("report.json"), "--report does not go before the job")
    same(other.out, b"", "standard output")
    piped_out.completed().proved()


@scenario("a report that cannot be written goes to standard output")
def report_unwritable(_):
    # Its directory goes while the guest runs: before, the job would be refused.
    script = ('mkdir gone; "$@" --verbose 2>said & '
              'while kill -0 $! && ! grep -q running said; do sleep 0.1; done; rmdir gone; wait $!')
    out = yield Run({"command": shell("sleep 2"), "report_path": "gone/report.json"}, report=None,
                    wrap=["sh", "-c", script, "sh"])
    said = out.read("said").decode()
    same(out.status, 6, f"exit status; {said}")
    expect("cannot write the report to" in said and "on standard output instead" in said, said)
    expect(not out.exists("gone"), "the directory was there to the end")
    # The same report as ever, and only it.
    out.report = json.loads(out.out)
    same((out.report["status"], out.report["exit_code"]), ("completed", 0), "status and exit code on standard output")
    out.proved()


# --- quiet ---

@scenario("a quiet guest: no device's thread wakes up")
def quiet(place):
    out = yield Run({"command": shell("sleep 6"), "vcpus": 2}, args=["--verbose"], alone=True, cpus=2,
                    watch=when_running((2, None), (5, None)))
    out.completed().proved()
    same(len(out.told["samples"]), 2, "samples")
    before, after = out.told["samples"]
    devices = [name for name in before if re.fullmatch(r"serial|i8042|blk\d|vsock|supervisor", name)]
    expected = {"serial", "blk0", "supervisor"} | ({"i8042"} if place.arch == "x86_64" else set())
    expect(expected <= set(devices), f"threads: {sorted(before)}")
    woken = {name: after.get(name, 0) - before[name] for name in devices if after.get(name) != before[name]}
    same(woken, {}, "wake-ups in 3 s in which the guest sleeps")


# --- hosts that cannot ---

@scenario("a KVM with no hardware underneath", needs=[no_hardware])
def kvm_without_hardware(_):
    out = yield Run({"command": ["true"]}, host=True)
    out.ended("vm_error", 3)
    same(out.report["error"]["kind"], "Kvm", "kind of the error")
    out.has("error", "hardware").has("stderr of bvmm", "hardware")


@scenario("a host on which the user may not use /dev/kvm")
def kvm_not_permitted(_):
    out = yield Run({"command": ["true"]}, report="-",
                    wrap=["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
    if out.status == 0:
        raise Skipped("/dev/kvm is open to everybody here")
    same(out.status, 3, f"exit status; {out}")
    out.has("stderr of bvmm", "/dev/kvm", "kvm")


@scenario("a host without /dev/kvm")
def no_kvm(_):
    out = yield Run({"command": ["true"]}, report="-",
                    wrap=["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev && mknod /dev/null c 1 3 && exec "$@"', "sh"])
    same(out.status, 3, f"exit status; {out}")
    out.has("stderr of bvmm", "/dev/kvm")
