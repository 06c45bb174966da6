# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios with a guest that attacks its machine (attack/): one rule after the other is broken, and nothing but the device
that the rule is about notices. See harness.py for the words.

The same guest runs in tests/kvm/test_attack.c, under the sanitizers."""

import os
import re

from harness import Run, expect, same, scenario
from scenarios import only

DISKS = 8
DEAF_PORT = 6000
PER_DEVICE = 4  # DEVICE_FAULTS_TOLD_MAX
MEMORY_MIB = 64

LOOPS = "a chain is longer than the queue, or loops"
BAD_NEXT = "a descriptor's next index is out of range"
BUFFER_OUTSIDE = "a buffer does not lie in guest memory"
INDIRECT_OUTSIDE = "an indirect table does not lie in guest memory"
AVAIL_JUMP = "the available index ran ahead by more than the queue's size"
RING_OUTSIDE = "a ring does not lie in guest memory"
BAD_REQUEST = "a request is shorter than its header"

# What the report says of each attack of attack_queue.c: four on each disk, in the order there.
QUEUE_FAULTS = [
    ("loop", LOOPS),
    ("loop of three", LOOPS),
    ("next out of range", BAD_NEXT),
    ("read after write", "a buffer to read comes after one to write"),
    ("empty buffer", "a buffer has no bytes"),
    ("no status byte", BAD_REQUEST),
    ("length wraps around 2^64", BUFFER_OUTSIDE),
    ("buffer over the end of memory", BUFFER_OUTSIDE),
    ("buffer of 4 GiB", BUFFER_OUTSIDE),
    ("buffer in MMIO", BUFFER_OUTSIDE),
    ("indirect, not agreed", "an indirect table without VIRTIO_F_INDIRECT_DESC"),
    ("indirect in indirect", "an indirect table within an indirect table, or one that has a next"),
    ("indirect of 40 bytes", "an indirect table's length is not a number of descriptors"),
    ("indirect over the end of memory", INDIRECT_OUTSIDE),
    ("indirect wraps around 2^64", INDIRECT_OUTSIDE),
    ("next out of range in indirect", BAD_NEXT),
    ("avail index jumps", AVAIL_JUMP),
    ("avail index runs back", AVAIL_JUMP),
    ("head out of range", "a descriptor index in the available ring is out of range"),
    ("size is no power of two", "queue size is not a power of two up to the maximum"),
    ("table misaligned", "a ring is not aligned as section 2.6 asks"),
    ("table in MMIO", RING_OUTSIDE),
    ("used ring over the end of memory", RING_OUTSIDE),
    ("avail ring wraps around 2^64", RING_OUTSIDE),
]
# Of attack_vsock.c: queue 0 receives, queue 1 sends.
VSOCK_FAULTS = [
    ("CVE-2019-18960: a vsock header cut short by its descriptor", f"queue 1: {BAD_REQUEST}"),
    ("vsock: a receive buffer smaller than a header", f"queue 0: {BAD_REQUEST}"),
    ("vsock: a payload that wraps around 2^64", f"queue 1: {BUFFER_OUTSIDE}"),
    ("vsock: a receive buffer over the end of memory", f"queue 0: {BUFFER_OUTSIDE}"),
]
# What takes no device out of service, or none for sure.
HARMLESS = [
    "CVE-2026-5747: queue size after activation",
    "a live queue is let go and set up anew",
    "Cloud Hypervisor 7917: queue_select out of range",
    "Firecracker 3149: descriptor replay",
    "every register, every status, odd widths",
    "rings that overlap",
    "requests that a disk refuses",
    "a descriptor changes while the device looks",
    "Firecracker 1462: a vsock length beyond its descriptors",
    "vsock: a header in 44 pieces",
    "vsock: packets of no sense",
    "vsock: half-close, then data",
    "vsock: data after the end",
    "vsock: a storm of connections, and no answer is read",
    "vsock: a peer that never reads",
    "vsock: a storm of connections to a program",
    "serial: loopback flood, every register, wide accesses",
    "accesses over the end of windows",
]
# What only a PC has.
HARMLESS_X86_64 = ["i8042: every command, a flood of data"]


# A program of the host's that guests can connect to, and that never reads; in it bvmm.
DEAF = f"""import socket, subprocess, sys
deaf = socket.socket(socket.AF_UNIX)
deaf.bind("vsock_{DEAF_PORT}")
deaf.listen(4096)
sys.exit(subprocess.call(sys.argv[1:]))"""


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def attacker(disks, arguments, job=None, wrap=()):
    """A run of the guest. arguments: of its own, on the command line."""
    run = Run({"kernel_path": "../../kernel/attack", "rootfs_path": "../../images/raw.img", "rootfs_type": "other",
               "drives": [{"path": "../../images/raw.img"}] * (disks - 1), "vcpus": 2, "memory_mib": MEMORY_MIB,
               "kernel_cmdline_append": None, **(job or {})}, wrap=wrap)
    run.job["kernel_cmdline"] = f"memory_mib={MEMORY_MIB} {arguments} token={run.token}"
    return run


@scenario("a guest that attacks every device: it hurts itself alone, and the report names what it did")
def attacks(place):
    run = attacker(DISKS, f"deaf_port={DEAF_PORT}", {"vsock_path": "vsock"}, ["python3", "-c", DEAF])
    out = yield run
    console = out.report["console"]["text"]
    same((out.report["status"], out.status, out.report["vm_signal"]), ("guest_shutdown", 0, None), f"the end ({out})")
    # That the guest ran is seen from what only it could have made, by two ways.
    out.has("console", f"digest: {fnv1a(run.token.encode())}\n", "vsock works\n", "all attacks made\n")
    same(out.text("stdout"), fnv1a(run.token.encode()), "stdout, by vsock")
    with open(os.path.join(place.base, "images/raw.img"), "rb") as file:
        out.has("console", f"disk: {fnv1a(file.read(512))}\n")
    verdicts = dict(re.findall(r"(?m)^attack (.*): (ok|FAILED.*|skipped.*)$", console))
    wanted = [name for name, _ in QUEUE_FAULTS + VSOCK_FAULTS] + HARMLESS + (
        HARMLESS_X86_64 if place.arch == "x86_64" else [])
    same(verdicts, {name: "ok" for name in wanted}, "the guest's own verdicts")
    check_faults(out)
    states = {actor["name"]: actor["state"] for actor in out.report["actors"]}
    same(set(states.values()), {"stopped"}, f"actors at the end: {states}")
    same(out.report["sandbox"]["violation"], None, "calls that the sandbox refused")


def check_faults(out):
    """The report tells of each device what was done to it, and of the last disk nothing."""
    by_actor = {}
    for fault in out.report["device_faults"]:
        by_actor.setdefault(fault["actor"], []).append(re.sub(r" \(0x[0-9a-f]+\)$", "", fault["what"]))
    for first in range(0, len(QUEUE_FAULTS), PER_DEVICE):
        actor = f"blk{first // PER_DEVICE}"
        same(by_actor.pop(actor, []), [f"queue 0: {what}" for _, what in QUEUE_FAULTS[first:first + PER_DEVICE]],
             f"faults of {actor}")
        same(out.actor(actor)["queue_faults"], PER_DEVICE, f"times that {actor} went out of service")
    same(by_actor.pop("vsock", []), [what for _, what in VSOCK_FAULTS], "faults of vsock")
    # Here a second CPU has a say: how often it comes in time is chance.
    race = f"blk{DISKS - 2}"
    told = by_actor.pop(race, [])
    expect(len(told) == min(out.actor(race)["queue_faults"], PER_DEVICE), f"faults of {race}: {told}")
    same(by_actor, {}, "faults of devices that were not attacked")
    expect(out.actor("vsock")["request_errors"] >= 5, "the report counts no bad packets")


@scenario("a guest whose CPU executes a device, and one that has no exception handlers", needs=[
    only("x86_64", "Arm's KVM gives the guest an exception of its own for both, and no exit")])
def bad_ends(_):
    executes, faults = yield [attacker(3, "ending=1"), attacker(3, "ending=2")]
    for out in (executes, faults):
        out.has("console", f"digest: {fnv1a(out.run.token.encode())}\n")
    faults.ended("guest_triple_fault", 5)
    # KVM cannot go on, and does not know whose fault that is.
    executes.ended("vm_error", 4)
    same(executes.report["error"]["kind"], "Vcpu", "kind of the error")
    expect(executes.report["error"]["message"], "no message")
