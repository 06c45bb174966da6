#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Each actor of a running VM, and the launcher in both of its filters, makes calls that its table does not allow: the
process dies, and the report names actor, call and arguments. unit_filter makes all calls in all filters; here the machine
is the real one, with the descriptors that it has.

usage: test_calls.py BVMM FAULT_LIBRARY [--all]

Without --all: the calls that an attacker would want, wrong arguments for all that a table allows with some, and 16 of the
others for each actor. With BVMM_TEST_ROUNDS=0.1 a tenth of each, by chance. BVMM_TEST_SEED=N repeats a choice.
"""

import concurrent.futures
import ctypes
import json
import os
import random
import subprocess
import sys

import support

# Thread or place of the launcher, and its table.
HOLDERS = [("supervisor", "supervisor"), ("vcpu0", "vcpu"), ("serial", "serial"), ("i8042", "i8042"), ("blk0", "blk"),
           ("vsock", "vsock"), ("waiting", "launcher_waiting"), ("writing", "launcher_writing")]
WANTED = """open openat openat2 creat socket socketpair connect bind execve execveat clone clone3 fork vfork kill tkill tgkill
ptrace process_vm_readv process_vm_writev mmap mprotect mremap prctl seccomp ioctl read write pwrite64 dup dup3 fcntl sendmsg
recvmsg bpf perf_event_open userfaultfd io_uring_setup io_uring_enter mount unshare setns init_module reboot memfd_create
pidfd_getfd rt_sigaction rt_sigprocmask sigaltstack exit_group restart_syscall futex""".split()
NUMBERS_END = 470  # above the newest call
X32 = 0x40000000
# Which the kernel does not show to filters (since 6.14): outside of its own trampoline it ends in SIGILL.
UNFILTERED = {"x86_64": {335, 336}}.get(os.uname().machine, set())
KILLS = "acct"  # by which the handler of a forbidden call ends the process (filter.c): nobody is left to note it
NO_FD = 0x7ffffff0
KVM_GET_REGS, KVM_SET_USER_MEMORY_REGION = 0x8090ae81, 0x4020ae46
PROT_RWX, MAP_PRIVATE_ANONYMOUS = 7, 0x22

SECCOMP = ctypes.CDLL("libseccomp.so.2")
SECCOMP.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
SECCOMP.seccomp_arch_native.restype = ctypes.c_uint32


def number_of(call):
    """Negative: this architecture has none."""
    return SECCOMP.seccomp_syscall_resolve_name(call.encode())


def name_of(number):
    name = SECCOMP.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(SECCOMP.seccomp_arch_native()), number)
    return ctypes.string_at(name).decode() if name else None


def allowed_calls(table):
    """With any arguments; and with some only."""
    free = {row["call"] for row in table if not row["args"]}
    return free, {row["call"] for row in table} - free


def wrong_arguments(holder, table):
    """Calls that the table allows, but not with these: (number, arguments as fault.c has them)."""
    found = []
    for row in table:
        if not row["args"]:
            continue
        for wrong in row["args"]:
            words = ["0"] * 6
            for arg in row["args"]:
                constant = arg["is"] == "constant"
                right = hex(arg["number"] & 0xffffffff) if constant else hex(NO_FD)
                words[arg["index"]] = hex(arg["number"] & 0xffffffff ^ 0x40) if arg is wrong and constant else right
            found.append((row["call"], words))
    if holder == "vcpu0":
        found += [("ioctl", ["own+1", "0xae80"]), ("ioctl", ["own-1", "0xae80"]), ("ioctl", ["own+0", hex(KVM_GET_REGS)]),
                  ("ioctl", ["own+0", hex(KVM_SET_USER_MEMORY_REGION)])]
    elif holder in ("serial", "i8042", "blk0", "vsock"):
        found += [("read", ["own+1"]), ("read", ["own-1"]), ("mmap", ["0", "4096", hex(PROT_RWX), hex(MAP_PRIVATE_ANONYMOUS)])]
    # a row without a wrong descriptor may be another row of the same call: all that stay have one
    rows = [row for row in table if row["args"]]
    return [(number_of(call), words) for call, words in found if not any(fits(row, call, words) for row in rows)]


def fits(row, call, words):
    """Whether constants alone make it a call that this row allows."""
    return row["call"] == call and all(arg["is"] == "constant" and
                                       int(words[arg["index"]], 0) == arg["number"] & 0xffffffff for arg in row["args"])


def some_of(chance, things, share):
    return chance.sample(things, min(len(things), max(1, round(len(things) * share))))


def choose(chance, holder, table, everything, rounds):
    free, pinned = allowed_calls(table)
    numbers = [number for number in range(NUMBERS_END) if name_of(number) not in free | pinned and number not in UNFILTERED]
    if os.uname().machine == "x86_64":
        numbers += [X32 | number for number in range(NUMBERS_END)]
    if holder in ("waiting", "writing"):
        numbers.remove(number_of(KILLS))  # there the report goes, too
    wanted = [number_of(call) for call in WANTED if call not in free | pinned and number_of(call) >= 0]
    wrong = wrong_arguments(holder, table)
    if everything:
        return [(number, []) for number in numbers] + wrong
    chosen = {*some_of(chance, wanted, rounds), *some_of(chance, numbers, 16 * rounds / len(numbers))}
    return [(number, []) for number in sorted(chosen)] + some_of(chance, wrong, rounds)


def attempt(place, library, holder, number, words):
    """What is wrong; None: nothing."""
    text = ",".join(["call:" + str(number), *words])
    env = {"LD_PRELOAD": library, "BVMM_FAULT_AT": holder, "BVMM_FAULT": text}
    code, _, errors = place.run("reset" if holder in ("waiting", "writing") else "spin", env=env, timeout_secs=5)
    if not os.path.exists(place.at("report.json")):
        return f"{holder}: {text} ({name_of(number)}): no report; exit status {code}; {errors}"
    report = place.report()
    violation = report["sandbox"]["violation"]
    if name_of(number) == KILLS:
        told = (report["status"], violation, report["vm_signal"]["name"])
        return None if told == ("sandbox_violation", None, "SIGSYS") else f"{holder}: {KILLS}: {told}"
    if report["status"] != "sandbox_violation" or violation is None:
        return f"{holder}: {text} ({name_of(number)}): {report['status']}, not a violation: {report['error']}"
    expected = {"actor": "launcher" if holder in ("waiting", "writing") else holder, "number": number,
                "syscall": None if number & X32 else name_of(number)}
    told = {key: violation[key] for key in expected}
    if told != expected:
        return f"{holder}: {text}: the report says {told}, not {expected}"
    for index, word in enumerate(words):
        if not word.startswith("own") and int(violation["arguments"][index], 0) != int(word, 0):
            return f"{holder}: {text}: the report says {violation['arguments']}"
    return None


def main():
    everything = "--all" in sys.argv
    bvmm, library = (os.path.abspath(path) for path in sys.argv[1:3])
    seed = int(os.environ.get("BVMM_TEST_SEED", random.randrange(1 << 32)))
    rounds = float(os.environ.get("BVMM_TEST_ROUNDS", 1))
    print(f"BVMM_TEST_SEED={seed}")
    workers = os.cpu_count() or 1
    places = [support.Place(bvmm) for _ in range(workers)]
    places[0].need_filters()
    printed = json.loads(subprocess.run([bvmm, "sandbox", "--print", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    tables = {table["name"]: table["rows"] for table in printed["tables"]}
    chance = random.Random(seed)
    holders = HOLDERS if os.uname().machine == "x86_64" else [(name, table) for name, table in HOLDERS if name != "i8042"]
    cases = [(holder, *case) for holder, table in holders
             for case in choose(chance, holder, tables[table], everything, rounds)]

    def work(index):
        return [attempt(places[index], library, *case) for case in cases[index::workers]]

    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        wrong = [text for found in pool.map(work, range(workers)) for text in found if text]
    print("\n".join(wrong[:40]))
    print(f"{len(cases)} forbidden calls by {len({case[0] for case in cases})} holders of filters, {len(wrong)} not as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
