# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios about results that arrive whole, or plainly not, and about bridges to programs of the host. See harness.py
for the words; docs/vsock.md has the outcomes that are looked for here."""

import hashlib
import json
import os

from harness import Run, Skipped, expect, same, scenario, shell

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1024 * 1024
OWN_IMAGE = "../../images/own.squashfs"
AT_ONCE_S = 0.25  # from "everything is here" to "stop": one message


def own_init(program, words="", **job):
    run = Run({"rootfs_path": OWN_IMAGE, **job})
    run.job["kernel_cmdline_append"] = f"quiet init=/guest/{program} token={run.token}" + (f" -- {words}" if words else "")
    return run


def script(name):
    with open(os.path.join(HERE, name), "rb") as file:
        return file.read()


def digest(run):
    return hashlib.sha256(run.token.encode()).hexdigest()


def stopped_at_once(out):
    """bvmm stopped the machine when all was here; the guest's power-off was not waited for."""
    points = out.report["timings"]["points"]
    waited_s = (points["stop_decided_ns"] - points["results_complete_ns"]) / 1e9
    expect(waited_s < AT_ONCE_S, f"{waited_s:.3f} s from the last result to the decision to stop")
    expect("Power down" not in out.report["console"]["text"], "the guest had time to power off")


def came_by(out, via):
    """Every stream came whole, and this way."""
    for name in ("stdout", "stderr", "output_transfer"):
        stream = out.report[name]
        same((stream["via"], stream["state"], stream["truncated"], stream["dropped_bytes"]), (via, "complete", False, 0),
             f"{name}: the way, state, truncated, dropped")


# --- results ---

# Every byte value is in each stream, and each byte depends on the token.
LARGE = """
import os, sys
token, size = os.environ["TOKEN"].encode(), int(sys.argv[1])
for name, line in (("/dev/fd/1", token + bytes(range(256))), ("/dev/fd/2", bytes(range(255, -1, -1)) + token),
                   ("/out.bin", token[::-1] + bytes(range(256)))):
    file = os.fdopen(int(name[-1]), "wb", closefd=False) if name.startswith("/dev") else open(name, "wb")
    file.write((line * (size // len(line) + 1))[:size])
    file.flush()
with open("/all.bin", "wb") as file:
    file.write(bytes(range(256)) + token)
"""


@scenario("25 MiB on each of stdout and stderr and in an output file, every byte value, digests")
def large_streams(_):
    size = 25 * MIB
    run = Run({"large_outputs": {"over_bytes": MIB}, "limits": {"output_bytes": 26 * MIB}, "memory_mib": 512,
               "output_files": ["/out.bin", "/all.bin"], "command": ["python3", "-c", LARGE, str(size)]})
    out = yield run
    out.completed()
    token, up = run.token.encode(), bytes(range(256))
    for name, line, got in (("stdout", token + up, out.stream("stdout")), ("stderr", up[::-1] + token, out.stream("stderr")),
                            ("/out.bin", token[::-1] + up, out.output_file("/out.bin"))):
        expect(got == (line * (size // len(line) + 1))[:size], f"{name}: not the bytes that the guest wrote")
    expect(out.output_file("/all.bin") == up + token, "/all.bin: not the bytes that the guest wrote")
    same({file["path"]: file["digest_ok"] for file in out.report["output_files"]}, {"/out.bin": True, "/all.bin": True},
         "the files' digests")
    came_by(out, "vsock")
    stopped_at_once(out)


def small_results(job):
    command = 'printf "\\000\\001\\377%s" "$TOKEN"; echo error >&2; printf "%s" "$TOKEN" >/out; exit 9'
    return Run({"command": ["/bin/bash", "-c", command], "output_files": ["/out"], **job})


@scenario("without vsock, or when it fails in the guest, results come over the serial console")
def serial_fallback(_):
    broken = small_results({"kernel_cmdline_append": "quiet initcall_blacklist=virtio_vsock_init"})
    for out in (yield [small_results({"vsock": False}), broken]):
        out.completed(9)
        same(out.stream("stdout"), b"\0\1\xff" + out.run.token.encode(), "stdout")
        same(out.text("stderr"), "error\n", "stderr")
        same(out.output_file("/out"), out.run.token.encode(), "/out")
        came_by(out, "serial")
        stopped_at_once(out)
        same(any(actor["name"] == "vsock" for actor in out.report["actors"]), out.run is broken, "a vsock actor")


MANY = """
mkdir /many; i=100; while [ $i -lt 400 ]; do echo "$TOKEN $i" >/many/$i; i=$((i + 1)); done
printf '%s' "$TOKEN" >here
"""


@scenario("BENCHER_OUTPUT_FILE, and 255 files at most: the rest is named as missing")
def many_files(_):
    run = Run({"env": {"BENCHER_OUTPUT_FILE": "here"}, "workdir": "/tmp", "output_files": ["/many/*"],
               "command": shell(MANY)})
    alone, none = (Run({"env": {"BENCHER_OUTPUT_FILE": path}, "command": shell('printf "%s" "$TOKEN" >/one')})
                   for path in ("/one", "/not*there"))
    out, alone, none = yield [run, alone, none]
    out.completed().proved()
    files = {file["path"]: file for file in out.report["output_files"]}
    same(len(out.report["output_files"]), 255, "files")
    same(len(files), 255, "different files")
    numbers = sorted(int(path[6:]) for path in files if path.startswith("/many/"))
    same(numbers, list(range(100, 100 + len(numbers))), "the first of those that match")
    for number in (numbers[0], numbers[-1]):
        same(out.output_file(f"/many/{number}"), f"{run.token} {number}\n".encode(), f"/many/{number}")
    missing = {entry["path"]: entry["reason"] for entry in out.report["missing_files"]}
    same(missing.pop("/many/*", None), "too_many", "why the rest of /many/* is missing")
    if "/tmp/here" in files:
        same((out.output_file("/tmp/here"), missing), (run.token.encode(), {}), "BENCHER_OUTPUT_FILE, others missing")
    else:
        same(missing, {"/tmp/here": "too_many"}, "BENCHER_OUTPUT_FILE")
    alone.completed().proved()
    same(alone.output_file("/one"), alone.run.token.encode(), "BENCHER_OUTPUT_FILE alone")
    none.completed().proved()
    same(none.report["missing_files"][0]["reason"], "no_match", "a BENCHER_OUTPUT_FILE that is not there, and no pattern")


# --- what an image's own init may do ---

@scenario("an image's own init that does odd things with the ports: each has its outcome")
def odd_ports(_):
    out = yield own_init("odd-ports", limits={"stderr_bytes": 1000})
    report = out.report
    same((out.status, report["status"], report["exit_code"]), (1, "completed", 3), f"exit status, status, exit code; {out}")
    line = next((line for line in report["console"]["text"].splitlines() if line.startswith("told: ")), None)
    expect(line, f"the guest's own account is not on the console: {report['console']['text'][-1000:]!r}")
    told = json.loads(line[6:])
    for key in ("second connection to an open stream", "connection to a complete stream", "port that nobody serves"):
        same(told[key], "ECONNRESET", key)
    same(told["storm of connections"], ["ECONNRESET"], "storm of connections")
    expect(told["control port, garbage"] in ("ECONNRESET", "EPIPE"), f"control port, garbage: {told}")
    same((told["stream over its limit"], told["exit code"]), ("end", "end"), "bvmm closed when it had all")
    # The one that was never closed has what had come, and says that it is cut; a kernel that reboots may reset its devices.
    stdout = report["stdout"]
    same((out.text("stdout"), stdout["state"] in ("open", "broken"), stdout["truncated"]), (digest(out.run) + "\n", True, True),
         f"stdout ({stdout['state']})")
    stderr = report["stderr"]
    same((out.text("stderr"), stderr["state"], stderr["truncated"], stderr["dropped_bytes"]),
         ("e" * 1000, "complete", True, 3_000_000 - 1000), "stderr")
    same([(file["path"], file["size_bytes"], file["truncated"]) for file in report["output_files"]], [(None, 0, False)],
         "the output file without data")
    same(report["device_faults"], [], "devices that are out of service")


@scenario("the time is up in the middle of a transfer: what had come is here, and is flagged")
def cut_short(place):
    # A hole of 8 GiB costs the guest nothing to make.
    limit, announced = 1024 * MIB, 8192 * MIB
    sending = Run({"timeout_secs": 10, "limits": {"stdout_bytes": limit}, "large_outputs": {"over_bytes": MIB},
                   "command": f'echo "$TOKEN" >&2; truncate -s {announced} /run/bencher/stdout; exit 6'}, alone=True)
    out, hanging = yield [sending, own_init("odd-ports", "hang", timeout_secs=10)]
    hanging.ended("timeout", 124)
    same((hanging.text("stdout"), hanging.report["stdout"]["state"], hanging.report["stdout"]["truncated"]),
         (digest(hanging.run) + "\n", "open", True), "a stream that its sender never ended")
    same(hanging.report["exit_code"], 3, "exit code")
    if place.direct and out.report["status"] == "completed":
        raise Skipped("this machine is so fast that all had come in time")
    out.ended("timeout", 124)
    stdout = out.report["stdout"]
    expect(0 < stdout["size_bytes"] < limit, f"{stdout['size_bytes']} bytes of stdout")
    same((stdout["state"], stdout["truncated"], stdout["announced_bytes"], stdout["via"]), ("open", True, announced, "vsock"),
         "stdout: state, truncated, announced, the way")
    expect(out.stream("stdout") == bytes(stdout["size_bytes"]), "not the bytes that the guest sent")
    # Small ones go first.
    same((out.report["exit_code"], out.text("stderr")), (6, out.run.token + "\n"), "exit code and stderr")
    same((out.report["error"]["kind"], "10 s" in out.report["error"]["message"]), ("Timeout", True), "error")


# --- bridges ---

@scenario("bridges to programs of the host, both ways; programs that misbehave disturb nobody")
def bridges(_):
    path = f"/tmp/bvmm-e2e-{os.urandom(6).hex()}.sock"
    run = Run({"rootfs_path": OWN_IMAGE, "vsock_path": path, "command": ["/guest/bridge"]},
              files={"bridge-peers": script("bridge-peers")}, wrap=["python3", "-B", "bridge-peers", path])
    out = yield run
    out.completed().proved()
    guest, host = json.loads(out.text("stdout").splitlines()[0]), json.loads(out.read("peers.json"))
    # The guest called.
    same(guest["digest"], True, "socat's answer to the guest")
    same(guest["nobody"], "ECONNRESET", "a port that no program serves")
    same(guest["victim"][0], "kill", "the host's word")
    expect(guest["victim"][1] in ("ECONNRESET", "EPIPE"), f"a program that was killed mid-stream: {guest['victim'][1]}")
    expect(guest["lazy_bytes"] >= 64 * 1024, f"a program that never reads stopped the guest after {guest['lazy_bytes']} bytes")
    # The host called.
    for name in ("digest", "socat", "digest_after_all"):
        same((host[name][0], host[name][1]), ("OK", True), f"{name}: the guest's answer to a program")
    for name in ("early", "garbage", "nobody"):
        same(host[name], "", f"{name}: what the program heard before it was hung up on")
    expect(host["flood_bytes"] < 64 << 20, f"a guest that never reads took {host['flood_bytes']} bytes")
    same(guest["held"], 1, "connections that the guest holds")
    # All who misbehave are still there, and the actor sleeps.
    expect(host["vsock_cpu_s"] <= 0.3, f"the actor used {host['vsock_cpu_s']} s of CPU in 3 quiet seconds")
    same(host["socket_is_gone"], True, "bvmm removed its socket")
    came_by_vsock = (out.report["stdout"]["via"], out.report["stderr"]["via"])
    same(came_by_vsock, ("vsock", "vsock"), "the results' way")
