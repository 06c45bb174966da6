# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios about what only the aarch64 machine has. See harness.py for the words."""

import re

from harness import Run, expect, scenario, shell
from scenarios import only

SERIAL = "40000000"


@scenario("the device tree: what the kernel makes of each node", needs=[only("aarch64", "x86_64 has none")])
def device_tree(place):
    out = yield Run({"vcpus": 2, "command": shell("dmesg\necho ---\ncat /proc/interrupts")})
    out.completed().proved()
    log, interrupts = out.text("stdout").split("---\n", 1)
    # In the kernel's own words; each stands for a node, or for what the node says.
    for what, pattern in (
            ("psci", r"psci: PSCIv1\.\d+ detected"),
            ("cpus, by psci", r"smp: Brought up 1 node, 2 CPUs"),
            ("timer", r"arch_timer: cp15 timer\(s\) running"),
            ("serial, with its interrupt", rf"{SERIAL}\.serial: ttyS0 at MMIO 0x{SERIAL} \(irq = [1-9]"),
            ("stdout-path, and earlycon of bvmm's", rf"earlycon: ns16550a0 at MMIO 0x0*{SERIAL}"),
            ("rng-seed", r"random: crng init done"),
            ("virtio_mmio", r"virtio_blk virtio\d+: \[vda\]")):
        expect(re.search(pattern, log), f"{what}: no {pattern!r} in the kernel's log: {log[-3000:]}")
    # So the kernel's drivers call them; a GICv2 is GIC-0 where there is no hypervisor mode.
    names = {"2": "GIC-0", "3": "GICv3"}
    gic = "|".join(names.values()) if place.direct else names[place.gic]
    for name in ("arch_timer", "ttyS0", "virtio0"):
        expect(re.search(rf"(?m)^.* ({gic}) .*\b{name}$", interrupts), f"no interrupt of {gic} for {name}: {interrupts}")
    expect(re.search(r"(?m)^ *\w+: +[1-9]\d* .*virtio0$", interrupts), f"virtio0 never interrupted: {interrupts}")
    # The lab's KVM has it; another host may not.
    expect(place.direct or "using stolen time PV" in log, "no steal time")


@scenario("the early console: the kernel's first line is in the console log", needs=[
    only("aarch64", "on x86_64 the driver itself comes early enough")])
def early_console(_):
    out = yield Run({"command": shell("true"), "kernel_cmdline_append": ""})
    out.completed().proved().has("console", "Booting Linux on physical CPU", "bootconsole [ns16550a0] disabled")


@scenario("an image's own init switches the machine off by PSCI", needs=[only("aarch64", "it is Arm's firmware interface")])
def power_off(_):
    out = yield Run({"rootfs_path": "../../images/own.squashfs", "kernel_cmdline_append": "quiet init=/guest/power-off"})
    out.ended("guest_shutdown", 0)
