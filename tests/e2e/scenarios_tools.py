# SPDX-License-Identifier: MIT OR Apache-2.0
"""Scenarios of what stands around bvmm: the installed library in a program, bvmm-run, the example runner, and a container
image as a job's image. See harness.py for the words."""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import tempfile

from harness import Run, expect, same, scenario

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BENCH_IMAGE = "../../images/bench.squashfs"


def sha256_of(text):
    return hashlib.sha256(text.encode()).hexdigest()


def read_file(*path):
    with open(os.path.join(*path), "rb") as file:
        return file.read()


# --- the library ---

def build_directory(place):
    return os.path.dirname(os.path.dirname(place.bvmm))


def a_build(place):
    if place.foreign:
        return "programs are compiled for this machine"
    if not os.path.exists(os.path.join(build_directory(place), "CMakeCache.txt")):
        return f"{place.bvmm} is in no build directory: there is nothing to install"
    return None


def words_of(*command, **environment):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True,
                          env={**os.environ, **environment}).stdout.split()


def compile_against_installed(place):
    """The installed library's users, {name: bytes}: the example with the shared and with the static library, and two VMs at
    once. The shared library lies beside them."""
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(["cmake", "--install", build_directory(place), "--prefix", f"{work}/usr"], check=True,
                       stdout=subprocess.DEVNULL)
        found = next(os.path.join(path, "pkgconfig") for path, names, _ in os.walk(work) if "pkgconfig" in names)
        library = os.path.dirname(found)
        flags = words_of("pkg-config", "--cflags", "bvmm", PKG_CONFIG_PATH=found)
        shared = words_of("pkg-config", "--libs", "bvmm", PKG_CONFIG_PATH=found) + ["-Wl,-rpath,$ORIGIN"]
        static = ["-l:libbvmm.a" if word == "-lbvmm" else word
                  for word in words_of("pkg-config", "--static", "--libs", "bvmm", PKG_CONFIG_PATH=found)]
        example = os.path.join(ROOT, "examples/run-command.c")
        for name, source, libs in (("shared", example, shared), ("static", example, static),
                                   ("two-vms", os.path.join(ROOT, "tests/e2e/two-vms.c"), [*shared, "-pthread"])):
            subprocess.run(["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", *flags, source, "-o", f"{work}/{name}", *libs],
                           check=True)
        files = {name: read_file(work, name) for name in ("shared", "static", "two-vms")}
        files["libbvmm.so.0"] = read_file(library, "libbvmm.so.0")
    return files


LIBRARY = """
chmod +x shared static two-vms
for program in shared static; do
    status=0
    ./$program "$1" /bin/sh -c "printf %s $2-$program | sha256sum; echo err >&2; exit 5" >$program.out 2>$program.err || status=$?
    echo $program $status
done
status=0
./two-vms "$1" "$2" >two-vms.out || status=$?
echo two-vms $status
"""


@scenario("a program with the installed library, shared and static; two VMs at once in one program", needs=[a_build])
def library(place):
    token = secrets.token_hex(16)
    run = Run(argv=[], files=compile_against_installed(place), report=None,
              wrap=["sh", "-c", LIBRARY, "sh", BENCH_IMAGE, token])
    out = yield run
    same((out.status, out.out.decode().splitlines()), (0, ["shared 5", "static 5", "two-vms 0"]), f"statuses; {out}")
    for name in ("shared", "static"):
        same(out.read(f"{name}.out").decode().split()[0], sha256_of(f"{token}-{name}"), f"{name}: what the guest printed")
        same(out.read(f"{name}.err"), b"err\n", f"{name}: standard error")
    same(out.read("two-vms.out").decode().splitlines(), [sha256_of(f"{token}{number}") for number in range(2)],
         "what the two guests printed")


# --- bvmm-run and the example runner ---

@scenario("bvmm-run: a command's output, exit code, and a file, as it would be without a VM")
def bvmm_run(_):
    token = secrets.token_hex(16)
    command = 'printf "%s" "$T" | sha256sum | cut -c 1-64; printf "\\377\\n" >&2; nproc >/cpus; exit 23'
    words = ["-c", "2", "-m", "256M", "-t", "2m", "-e", f"T={token}", "-o", "/cpus:from-guest", "--report", "report.json",
             "--set", 'kernel_cmdline_append="quiet"', BENCH_IMAGE, "--", "sh", "-c", command]
    # The first word is bvmm's path, which bvmm-run is told by the environment.
    run = Run(argv=words, wrap=["sh", "-c", 'BVMM=$1; export BVMM; shift; exec ../../tools/bvmm-run "$@"', "sh"])
    out = yield run
    same((out.status, out.out.decode(), out.read("stderr")), (23, sha256_of(token) + "\n", b"\xff\n"),
         "exit status, standard output, standard error")
    same(out.read("from-guest"), b"2\n", "the file that was brought out")
    same((out.report["status"], out.report["exit_code"], out.report["guest"]["memory_mib"]), ("completed", 23, 256),
         "status, exit code and memory in the report")


RUNNER = """
BVMM=$1; export BVMM
runner="../../examples/runner/bvmm-runner --lock-dir . --bmf command root"
mkdir -p root/pending && mv first.json root/pending/
$runner --once 2>first.log & killed=$!
until [ -e root/running/first/started.json ]; do sleep 0.1; done; sleep 8
kill -9 $killed; wait $killed
mv second.json root/pending/
$runner --once 2>second.log  # the first job's bvmm may live still, and nobody touches it
exec $runner --once 2>third.log
"""


@scenario("the example runner: killed in the middle of a job it loses none, runs none twice, and says so")
def runner(_):
    token = secrets.token_hex(16)
    jobs = {"first.json": {"command": ["sleep", "1000"]},
            "second.json": {"name": "the benchmark", "env": {"T": token},
                            "command": ["sh", "-c", 'printf "%s" "$T" | sha256sum | cut -c 1-64']}}
    files = {name: json.dumps({"rootfs_path": f"../{BENCH_IMAGE}", "kernel_cmdline_append": "quiet", "timeout_secs": 100,
                               **job}).encode() for name, job in jobs.items()}
    out = yield Run(argv=[], files=files, report=None, wrap=["sh", "-c", RUNNER, "sh"])
    expect(out.exists("root/done/second/report.json"), f"the second job did not succeed: {out.read('second.log')}")
    first, second = (json.loads(out.read(f"root/{path}/result.json")) for path in ("failed/first", "done/second"))
    expect("interrupted" in first["reason"], f"the first job's result: {first}")
    same((len(first["attempts"]), len(second["attempts"])), (1, 1), "attempts")
    report = json.loads(out.read("root/done/second/report.json"))
    same(report["stdout"]["data"], sha256_of(token) + "\n", "what the second job's guest printed")
    metrics = json.loads(out.read("root/done/second/bmf.json"))
    same(metrics["the benchmark"]["latency"]["value"], report["timings"]["command_guest_ns"], "latency")
    same([os.listdir(os.path.join(out.path, "root", state)) for state in ("pending", "running")], [[], []], "jobs left")


# --- a container's image ---

def converters(_):
    missing = [name for name in ("umoci", "skopeo") if not shutil.which(name)]
    return f"not installed: {', '.join(missing)}" if missing else None


@scenario("a docker save file as a job's image: runs what the container would, with what the job says instead",
          needs=[converters])
def container_image(_):
    environment = {"BVMM_CACHE": "../../cache", "BVMM_IMAGE_TOOL": "../../tools/bvmm-image"}
    # Absolute paths, wherever this runs.
    wrap = ["sh", "-c", 'BVMM_CACHE=$(realpath "$BVMM_CACHE"); exec "$@"', "sh"]
    job = {"rootfs_path": None, "image": "../../files/container.tar"}
    own, other = yield [Run(job, wrap=wrap, env=environment),
                        Run({**job, "command": ["sh", "-c", "id -u; pwd; echo $WORD; printf %s $TOKEN | sha256sum | cut -c 1-64"],
                             "user": "0", "workdir": "/bin", "env": {"WORD": "mine"}}, wrap=wrap, env=environment)]
    own.completed(1).has("stderr", "/gone")  # ls says so, of the file that the second layer removes
    same(own.text("stdout").splitlines(), ["cmd", "7", "/work", "two words", "second", "/kept"], "what the container says")
    other.completed().proved()
    same(other.text("stdout").splitlines()[:3], ["0", "/bin", "mine"], "user, directory and variable of the job")
    expect(other.report["job"]["image"].endswith("container.tar"), f"image in the report: {other.report['job']['image']}")
