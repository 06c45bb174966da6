# SPDX-License-Identifier: MIT OR Apache-2.0
"""What can be seen of a process from outside, by somebody who may see all: look(). It judges nothing, and runs where the
guests run, as root."""

import ctypes
import fcntl
import os
import socket
import struct
import threading

CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
IFF_UP = 1
OF_A_THREAD = ("Name", "Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def look(pid):
    """A dictionary of facts; "gone": the process ended meanwhile."""
    base = f"/proc/{pid}"
    try:
        return {
            "pid": pid,
            "name": read(f"{base}/comm").strip(),
            "threads": [thread(f"{base}/task/{task}/status") for task in sorted(os.listdir(f"{base}/task"), key=int)],
            "namespaces": {name: os.readlink(f"{base}/ns/{name}") for name in os.listdir(f"{base}/ns")},
            "descriptors": {number: os.readlink(f"{base}/fd/{number}") for number in os.listdir(f"{base}/fd")},
            "root": os.listdir(f"{base}/root/"),
            "mounts": read(f"{base}/mountinfo").splitlines(),
            "environment": [entry for entry in read(f"{base}/environ").split("\0") if entry],
            "limits": limits(f"{base}/limits"),
            "interfaces": interfaces(f"{base}/ns/net"),
            "owner_of_proc": os.stat(f"{base}/status").st_uid,
            "writable_and_executable": [line for line in read(f"{base}/maps").splitlines() if "wx" in line.split()[1]],
            "cgroup": cgroup(f"{base}/cgroup"),
        }
    except FileNotFoundError as error:
        return {"pid": pid, "gone": str(error)}


def read(path):
    with open(path, encoding="utf-8", errors="replace") as file:
        return file.read()


def comm(pid):
    try:
        return read(f"/proc/{pid}/comm").strip()
    except OSError:
        return None


def thread(path):
    facts = dict(line.split(":\t", 1) for line in read(path).splitlines() if ":\t" in line)
    return {name: facts.get(name, "").split() for name in OF_A_THREAD}


def limits(path):
    """Name to (soft, hard), as text."""
    return {line[:26].strip(): line[26:].split()[:2] for line in read(path).splitlines()[1:]}


def interfaces(path):
    """Name to whether it is up, of the network namespace of path."""
    found = {}

    def enter_and_look():
        # A thread is in a namespace by itself, and ends here.
        with open(path, "rb") as namespace:
            if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET) != 0:
                found["?"] = f"setns: {os.strerror(ctypes.get_errno())}"
                return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
            for _, name in socket.if_nameindex():
                request = struct.pack("16sH14x", name.encode(), 0)
                flags = struct.unpack("16sH14x", fcntl.ioctl(asked, SIOCGIFFLAGS, request))[1]
                found[name] = bool(flags & IFF_UP)

    asking = threading.Thread(target=enter_and_look)
    asking.start()
    asking.join()
    return found


def cgroup(path):
    """The control group (v2), and what the kernel says of its limits."""
    here = [line[3:] for line in read(path).splitlines() if line.startswith("0::")]
    facts = {"path": here[0] if here else None}
    if here:
        for name in ("memory.max", "memory.swap.max", "pids.max", "cgroup.procs"):
            try:
                facts[name] = read(f"/sys/fs/cgroup{here[0]}/{name}").split()
            except OSError:
                facts[name] = None
        facts["members"] = {pid: comm(pid) for pid in facts["cgroup.procs"] or ()}
    return facts
