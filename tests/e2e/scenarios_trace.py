# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs under strace, with Linux in the guest: the rows of the sandbox's tables that tests/sandbox/test_trace.py, whose guests are
a few instructions, leaves to this place. See harness.py for the words."""

import json
import os
import re
import sys

from harness import Run, expect, same, scenario, shell
from scenarios_vsock import OWN_IMAGE, script

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sandbox"))
import call_trace  # noqa: E402
import test_trace  # noqa: E402

OURS = (test_trace.LINUX, test_trace.CGROUP)
TRACED = [*call_trace.STRACE, "trace"]
# bvmm alone in a control group that is its own to divide: strace stays outside. Meanwhile somebody leaves another VM's there, as
# a bvmm that is killed does.
DELEGATED = ["sh", "-c", """set -e
group=/sys/fs/cgroup/bvmm-e2e-traced
echo '+memory +pids' >/sys/fs/cgroup/cgroup.subtree_control
mkdir -p $group
(until ls -d $group/bvmm-vm-* >/dev/null 2>&1; do sleep 0.2; done; sleep 0.5; mkdir $group/bvmm-vm-99999-1) &
echo $$ >$group/cgroup.procs
exec "$@"
""", "sh"]


@scenario("every system call is in the sandbox's tables, and their rows are needed: with Linux, a bridge, a control group")
def traced(_):
    path = f"/tmp/bvmm-e2e-{os.urandom(6).hex()}.sock"
    bridged = Run({"rootfs_path": OWN_IMAGE, "vsock_path": path, "command": ["/guest/bridge"], "timeout_secs": 300},
                  files={"bridge-peers": script("bridge-peers")}, wrap=["python3", "-B", "bridge-peers", path, *TRACED])
    delegated = Run({"command": shell("true"), "cgroup": {"pids_max": 200}}, wrap=[*TRACED, *DELEGATED])
    *outs, printed = yield [bridged, delegated, Run(argv=["sandbox", "--print", "--json"], report=None)]
    tables, rows = call_trace.tables_of(json.loads(printed.out))
    used = set()
    for out in outs:
        out.completed().proved()
        trace = call_trace.Trace(os.path.join(out.path, "trace"), tables)
        expect(len(trace.calls) > 100, f"strace wrote of {len(trace.calls)} calls in filters only")
        same(sorted(set(trace.wrong)), [], "calls that are in no table")
        used |= trace.used
    left = [row for row in rows for pattern, why in test_trace.NOT_HERE
            if why in OURS and re.fullmatch(f"(?:{pattern}).*", row) and row not in used]
    same(left, [], "rows that are not needed")
