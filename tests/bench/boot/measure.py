#!/usr/bin/python3 -B
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Boot one kernel and one image in bvmm and in QEMU -M microvm by turns, and print how long each took.

usage: measure.py DIR RUNS     DIR has bvmm, vmlinux and boot.squashfs; runs where KVM can run Linux guests."""

import glob
import json
import os
import statistics
import subprocess
import sys
import time

CMDLINE = "console=ttyS0 reboot=t panic=1 pci=off root=/dev/vda ro quiet init=/init-of-benchmark"
MARK = b"boot-benchmark: init"
LIMIT_S = 120
LINGER_S = 3
MEMORY_MIB = 256


def run_bvmm(base, extra):
    job = {"kernel_path": "vmlinux", "rootfs_path": "boot.squashfs", "kernel_cmdline": f"{CMDLINE}{extra}",
           "memory_mib": MEMORY_MIB, "timeout_secs": LIMIT_S, "vsock": False, "report_path": "report.json"}
    with open(os.path.join(base, "job.json"), "w", encoding="utf-8") as file:
        json.dump(job, file)
    return ["./bvmm", "--json-config", "job.json", "--quiet"]


def run_qemu(_, extra):
    return ["qemu-system-x86_64", "-M", "microvm,acpi=off,accel=kvm", "-cpu", "host", "-smp", "1", "-m", str(MEMORY_MIB),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", "vmlinux",
            "-append", CMDLINE + extra, "-drive", "id=root,file=boot.squashfs,format=raw,if=none,readonly=on",
            "-device", "virtio-blk-device,drive=root"]


def counters():
    """KVM's own statistics of the VM that is there: name to count."""
    found = {}
    for path in glob.glob("/sys/kernel/debug/kvm/*-*/*"):
        name = os.path.basename(path)
        if name.endswith(("exits", "injections", "_hypercalls", "pf_fixed", "insn_emulation", "signal_exits")):
            try:
                with open(path, encoding="ascii") as file:
                    found[name] = int(file.read())
            except (OSError, ValueError):
                continue
    return found


def boot(make, base, extra="", count=False):
    """Seconds from exec to the mark on standard output (None: there is none) and to the end, and the counters."""
    start = time.monotonic()
    process = subprocess.Popen(make(base, extra), cwd=base, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    mark_s, last = None, {}
    if count:
        while process.poll() is None:
            last = counters() or last
            time.sleep(0.1)
    else:
        for line in process.stdout:
            if MARK in line and mark_s is None:
                mark_s = time.monotonic() - start
    process.stdout.close()
    process.wait(timeout=LIMIT_S)
    return mark_s, time.monotonic() - start, last


def bvmm_report(base):
    with open(os.path.join(base, "report.json"), encoding="utf-8") as file:
        report = json.load(file)
    if report["status"] != "guest_triple_fault" or MARK.decode() not in report["console"]["text"]:
        sys.exit(f"the guest did not come to its init: {report['status']} {report['error']}\n"
                 f"{report['console']['text'][-1000:]}")
    return report


def median_ms(values):
    return statistics.median(values) * 1000


def show(title, bvmm, qemu):
    spread = f"{min(bvmm) * 1000:.0f} to {max(bvmm) * 1000:.0f}; {min(qemu) * 1000:.0f} to {max(qemu) * 1000:.0f}"
    print(f"{title:<34} {median_ms(bvmm):9.0f} {median_ms(qemu):9.0f} {median_ms(bvmm) / median_ms(qemu):7.2f}   {spread}")


def main():
    base, runs = os.path.abspath(sys.argv[1]), int(sys.argv[2])
    times = {"bvmm": [], "qemu": []}
    exits = None
    for number in range(runs + 1):  # the first of each warms the page cache, and is not counted
        _, end_s, _ = boot(run_bvmm, base)
        report = bvmm_report(base)
        # The guest resets as the first thing that its init does; from the start of main() on.
        bvmm_row = (report["timings"]["points"]["stop_decided_ns"] / 1e9, end_s)
        exits = report["exits"]["total"]
        mark_s, end_s, _ = boot(run_qemu, base)
        if mark_s is None:
            sys.exit("QEMU's guest did not come to its init")
        if number > 0:
            times["bvmm"].append(bvmm_row)
            times["qemu"].append((mark_s, end_s))
    print(f"{runs} boots each, by turns; milliseconds, medians")
    print(f"{'':<34} {'bvmm':>9} {'QEMU':>9} {'ratio':>7}   from ... to: bvmm; QEMU")
    show("exec to the guest's init", *([row[0] for row in times[name]] for name in ("bvmm", "qemu")))
    show("exec to the end of the process", *([row[1] for row in times[name]] for name in ("bvmm", "qemu")))
    print("(init: bvmm's time ends when the supervisor hears of the reset that init makes at once, and begins in main();\n"
          " QEMU's ends when init's line comes out of its serial port)")
    print("\nbvmm's exits to user space: " +
          ", ".join(f"{name} {count}" for name, count in exits.items() if count))
    counts = [boot(make, base, f" linger={LINGER_S}", count=True)[2] for make in (run_bvmm, run_qemu)]
    if not counts[0] or not counts[1]:
        print("no statistics of KVM in /sys/kernel/debug/kvm: no counts of exits to KVM itself")
        return
    print(f"\nKVM's counts until {LINGER_S} s after init started\n{'':<34} {'bvmm':>9} {'QEMU':>9}")
    for name in sorted(set(counts[0]) | set(counts[1])):
        if counts[0].get(name) or counts[1].get(name):
            print(f"{name:<34} {counts[0].get(name, 0):9} {counts[1].get(name, 0):9}")


if __name__ == "__main__":
    main()
