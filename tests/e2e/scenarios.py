# SPDX-License-Identifier: MIT OR Apache-2.0
"""The end-to-end scenarios: what bvmm is for, and what may go wrong with it."""

from harness import Run, expect, same, scenario, shell


@scenario("1 vCPU: a script, and the digest of its token")
def one_vcpu(_):
    out = yield Run({"command": shell("nproc")})
    out.completed().proved()
    same(out.text("stdout").splitlines()[0], "1", "nproc")
