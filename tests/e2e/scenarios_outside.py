# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios in which a running VM is looked at from outside: what docs/security.md says of its process must be seen there.
As root, as an ordinary user, and where the host refuses what the sandbox needs. See harness.py for the words."""

from collections import Counter

from harness import Run, expect, same, scenario, shell

NOBODY = "65534"
USER = "4242"  # no such user is in any image
KERNELS = {"x86_64": "vmlinux", "aarch64": "Image"}
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
NO_CAPABILITIES = ["0000000000000000"]
LOOK = {"when_stderr": "running", "steps": [{"after_s": 0.5, "look": "outside"}]}

# Runs bvmm as an ordinary user with a /dev/kvm of its own, in a mount namespace so that nobody else sees it.
AS_USER = ["unshare", "--mount", "sh", "-c",
           "set -e; mount -t tmpfs -o mode=0755 none /mnt; cp -a /dev/kvm /mnt/kvm; chmod 0600 /mnt/kvm\n"
           f"chown {USER}:{USER} /mnt/kvm; mount --bind /mnt/kvm /dev/kvm; umount -l /mnt\n"
           f'exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all --bounding-set=-all "$@"', "sh"]
# The same user, in another group: one that may open /dev/kvm, as on most distributions.
GROUP = "4343"
IN_GROUP = [word.replace("--clear-groups", f"--groups={GROUP}") for word in AS_USER]
# The same on a host that lets nobody make user namespaces.
NO_USER_NAMESPACES = ["sh", "-c",
                      "set -e; knob=/proc/sys/user/max_user_namespaces; before=$(cat $knob); echo 0 >$knob\n"
                      'status=0; "$@" || status=$?; echo "$before" >$knob; exit $status', "sh", *AS_USER]


def in_lab(place):
    return "this changes a setting of the whole machine: in the lab only" if place.direct else None


def watched_job(place, **more):
    # The variable is what bvmm was started with: the VM process must not have it. TOKEN is the job's.
    # Kernel and input are read while the machine is put together, and closed.
    job = {"vcpus": 2, "command": shell("sleep 4"), "stdin_path": "input", "kernel_path": f"../../kernel/{KERNELS[place.arch]}", **more}
    return Run(job, args=["--verbose"], watch=LOOK, alone=True, env={"SECRET_OF_THE_STARTER": "do not tell"},
               files={"input": b"read\n"})


def vm_and_launcher(out):
    """What was seen of the VM process, and of its launcher."""
    same(len(out.told["samples"]), 1, f"looks from outside ({out.err[-300:]})")
    seen = out.told["samples"][0]
    expect(not [one for one in seen if "gone" in one], f"a process ended while it was looked at: {seen}")
    by_name = {one["name"]: one for one in seen}
    expect({"bvmm", "supervisor"} <= set(by_name), f"processes of the run: {sorted(by_name)}")
    return by_name["supervisor"], by_name["bvmm"]


def devices(place):
    return {"serial", "blk0", "vsock"} | ({"i8042"} if place.arch == "x86_64" else set())


def check_threads(place, vm, uid, groups=()):
    # Since Linux 6.13 KVM makes a thread of the kernel's own in each VM's process.
    names = {thread["Name"][0] for thread in vm["threads"]} - {"kvm-nx-lpage-re"}
    same(names, {"supervisor", "vcpu0", "vcpu1"} | devices(place), "threads")
    for thread in vm["threads"]:
        name = thread["Name"][0]
        same(thread["Seccomp"], ["2"], f"{name}: Seccomp")
        same(thread["NoNewPrivs"], ["1"], f"{name}: NoNewPrivs")
        for one in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            same(thread[one], NO_CAPABILITIES, f"{name}: {one}")
        same((set(thread["Uid"]), set(thread["Gid"]), thread["Groups"]), ({uid}, {uid}, list(groups)), f"{name}: uid, gid, groups")


def check_descriptors(place, vm):
    """None but those that are listed here."""
    def kind(target):
        for known in ("/bench.squashfs", "kvm-vcpu"):
            if known in target:
                return known
        return target
    # Doorbells: supervisor, 2 vCPUs, the devices. Interrupts: the devices.
    want = {"/dev/null": 3, "anon_inode:kvm-vm": 1, "kvm-vcpu": 2, "anon_inode:[eventfd]": 3 + 2 * len(devices(place)),
            "anon_inode:[timerfd]": 1, "anon_inode:[signalfd]": 1, "/bench.squashfs": 1}
    if place.arch == "aarch64":
        want["anon_inode:kvm-arm-vgic-v3"] = 1  # the interrupt controller: the machine is gone without it
    same(dict(Counter(kind(target) for target in vm["descriptors"].values())), want, "descriptors")


def check_process(vm, launcher, namespaces):
    same({name for name in namespaces if vm["namespaces"][name] == launcher["namespaces"][name]}, set(),
         "namespaces that the VM process shares with its launcher")
    same((vm["root"], len(vm["mounts"])), ([], 1), "what is in the root directory, and mounts")
    same(vm["interfaces"], {"lo": False}, "network interfaces, and whether they are up")
    same(vm["environment"], [], "environment")
    expect("SECRET_OF_THE_STARTER=do not tell" in launcher["environment"], "the test's variable did not reach bvmm")
    same(vm["owner_of_proc"], 0, "owner of its files in /proc (root: it is not dumpable)")
    same(vm["writable_and_executable"], [], "memory that is writable and executable")
    for name in ("Max core file size", "Max file size", "Max locked memory", "Max msgqueue size"):
        same(vm["limits"][name], ["0", "0"], name)


def layers(report, *missing):
    """All layers stand but those named, and what depends on the place."""
    optional = {"landlock", "cgroup"}
    stand = {name for name, stands in report["sandbox"]["layers"].items() if stands}
    same(set(report["sandbox"]["layers"]) - stand - optional, set(missing), "layers that do not stand")


@scenario("a running VM seen from outside: started by root")
def seen_as_root(place):
    out = yield watched_job(place)
    out.completed().proved()
    vm, launcher = vm_and_launcher(out)
    check_threads(place, vm, NOBODY)
    check_descriptors(place, vm)
    check_process(vm, launcher, NAMESPACES)
    layers(out.report, "user_namespace")
    same((out.report["sandbox"]["mode"], out.report["sandbox"]["refused"]), ("strict", None), "mode, and refused")
    check_cgroup(vm, out.report["sandbox"])


def check_cgroup(vm, sandbox):
    """What the report tells of the control group is what the kernel does."""
    told, seen = sandbox["cgroup"], vm["cgroup"]
    if not sandbox["layers"]["cgroup"]:
        expect(told["reason"], f"there is no control group, and no reason: {told}")
        return
    expect("bvmm-vm-" in seen["path"] and told["path"].endswith(seen["path"]), f"{seen['path']} is not {told['path']}")
    same([seen["memory.max"], seen["pids.max"]], [[str(told["memory_max_bytes"])], [str(told["pids_max"])]],
         "memory.max, pids.max")
    # KVM puts a thread of the kernel's own (kvm-nx-lpage-recovery) beside the VM that it works for.
    members = {pid: name for pid, name in seen["members"].items() if not name.startswith("kvm-nx-lpage")}
    same(members, {str(vm["pid"]): "supervisor"}, "members of the control group")
    if seen["memory.swap.max"] is not None:
        same(seen["memory.swap.max"], ["0"], "memory.swap.max")


def seen_as(wrap, groups=(), missing=()):
    """Started by a user who is not root; groups: which it cannot leave; missing: layers."""
    def check(place):
        run = watched_job(place)
        run.wrap, run.report = wrap, "-"
        run.job["report_path"] = "-"
        out = yield run
        out.completed().proved()
        vm, launcher = vm_and_launcher(out)
        check_threads(place, vm, USER, groups)
        check_descriptors(place, vm)
        check_process(vm, launcher, (*NAMESPACES, "user"))
        layers(out.report, *missing)
        same((out.report["sandbox"]["mode"], out.report["sandbox"]["refused"]), ("strict", None), "mode, and refused")
    return check


scenario("a running VM seen from outside: started by a user who may open /dev/kvm and nothing else")(seen_as(AS_USER))
scenario("a running VM seen from outside: started by a user who is in another group, which only root could leave")(
    seen_as(IN_GROUP, [GROUP], ["groups_dropped"]))


@scenario("a host without user namespaces: strict refuses, best_effort says what is missing, off is told", needs=[in_lab])
def no_user_namespaces(_):
    job = {"command": shell("id -u"), "report_path": "-"}
    runs = [Run({**job, "sandbox": mode}, report="-", wrap=NO_USER_NAMESPACES, alone=True)
            for mode in ("strict", "best_effort", "off")]
    strict, best_effort, off = yield runs
    strict.ended("vm_error", 4)
    same(strict.report["error"]["kind"], "Sandbox", "kind of the error")
    strict.has("stderr of bvmm", "user_namespace", "best_effort", "max_user_namespaces")
    best_effort.completed().proved()
    sandbox = best_effort.report["sandbox"]
    expect("user_namespace" in (sandbox["refused"] or ""), f"refused: {sandbox['refused']}")
    stand = {name for name, stands in sandbox["layers"].items() if stands}
    # What needs no privilege stands all the same.
    expect({"seccomp", "no_new_privs", "capabilities_dropped", "rlimits", "descriptors_closed"} <= stand,
           f"layers: {sorted(stand)}")
    expect(any("sandbox" in warning for warning in best_effort.report["warnings"]), "no warning in the report")
    off.completed().proved()
    expect(any("sandbox" in warning.lower() and "off" in warning.lower() for warning in off.report["warnings"]),
           f"no warning that there was no sandbox: {off.report['warnings']}")
    same(off.report["sandbox"]["layers"]["seccomp"], False, "seccomp with sandbox off")
