#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Looks that some test expects each kind of error that the library can give: one that nobody provokes is a promise only.

usage: check_error_kinds.py ERROR_HEADER TESTS_DIRECTORY
"""

import os
import re
import sys

KIND = re.compile(r"X\((\w+), \"(\w+)\"\)")
# An expectation of a test in C, in Python, or in a shell script.
EXPECTED = r"assert_int_equal\([^;]*, BVMM_ERROR_{0}\)|==\s+BVMM_ERROR_{0}\b|kind == BVMM_ERROR_{0}\b|\"{1}\"|[\"'\^]{1}: "


def sources(directory):
    for path, _, names in os.walk(directory):
        for name in names:
            if name.endswith((".c", ".cpp")) or (name.endswith(".py") and name.startswith("scenarios")) or name == "run":
                with open(os.path.join(path, name), encoding="utf-8") as file:
                    yield file.read()


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        kinds = [kind for kind in KIND.findall(file.read()) if kind[0] != "NONE"]
    texts = list(sources(sys.argv[2]))
    missing = [name for kind, name in kinds
               if not any(re.search(EXPECTED.format(kind, name), text) for text in texts)]
    print(f"no test expects the kinds {missing}" if missing or len(kinds) < 12 else f"{len(kinds)} kinds, each expected")
    return 1 if missing or len(kinds) < 12 else 0


if __name__ == "__main__":
    sys.exit(main())
