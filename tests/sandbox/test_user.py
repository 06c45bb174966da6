#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""bvmm started by an ordinary user, who is in other groups or in none: what the report says of that is what is seen in /proc.

usage: test_user.py BVMM
"""

import os
import shutil
import sys

import support
from support import same

USER = 4242  # no such user
CASES = [("in two groups", "--groups=27,4343", [27, 4343]), ("in no group", "--clear-groups", [])]
# With a /dev/kvm of its own, in a mount namespace so that nobody else sees it.
AS_USER = ["unshare", "--mount", "sh", "-c",
           "set -e; mount -t tmpfs -o mode=0755 none /mnt; cp -a /dev/kvm /mnt/kvm; chmod 0600 /mnt/kvm\n"
           f"chown {USER}:{USER} /mnt/kvm; mount --bind /mnt/kvm /dev/kvm; umount -l /mnt\n"
           f'exec setpriv --reuid={USER} --regid={USER} --inh-caps=-all --bounding-set=-all "$@"', "sh"]


def status_of(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def run(place, validate, option, groups):
    with place.start("spin", wrap=[*AS_USER, option], timeout_secs=2) as process:
        status = status_of(place.supervisor_of(process))
        _, errors = process.communicate(timeout=support.PATIENCE_S)
    same(process.returncode, 124, f"exit status ({errors})")
    report = place.report()
    validate(report)
    same([int(word) for word in status["Groups"].split()], groups, "groups of the VM process")
    same(set(status["Uid"].split()), {str(USER)}, "user of the VM process")
    layers = report["sandbox"]["layers"]
    same((layers["groups_dropped"], layers["unprivileged_user"]), (not groups, True), "what the report says of groups, user")
    if place.filtered:
        same(report["sandbox"]["refused"], None, "refused")


def main():
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "setpriv"))):
        support.skip("needs root, unshare and setpriv")
    place = support.Place(sys.argv[1])
    # For the other user to read and to write to.
    os.chmod(place.path, 0o755)
    os.chown(place.path, USER, USER)
    place.bvmm = shutil.copy(place.bvmm, place.at("bvmm"))
    os.chmod(place.bvmm, 0o755)
    validate = support.validator(place.bvmm)
    support.run_cases([(name, lambda option=option, groups=groups: run(place, validate, option, groups))
                       for name, option, groups in CASES])


if __name__ == "__main__":
    main()
