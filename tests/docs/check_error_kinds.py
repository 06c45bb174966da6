#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Looks that some test expects each kind of error that the library can give: one that nobody provokes is a promise only.

usage: check_error_kinds.py ERROR_HEADER TESTS_DIRECTORY
"""

import os
import re
import sys

KIND = re.compile(r"X\((\w+), \"(\w+)\"\)")

# An assertion that the kind which came out is this one. That a test mentions a kind, or hands it to something, is none.
EXPECTED = {
    ".c": r"\bassert_int_equal\([^;]*\b(?:error_)?kind,\s*BVMM_ERROR_{0}\);",
    ".py": r"\bsame\([^\n]*\[\"kind\"\][^\n]*\"{1}\"",
    "run": r"\bgrep -q[^\n]*(?:\"kind\": \"{1}\"|['\"\^ ]{1}: )[^\n]*\|\|",
}

# Held against the expressions before anything else: a check that accepts everything finds nothing.
EXAMPLES = [
    (".c", "assert_int_equal(err.kind, BVMM_ERROR_GIC);", True),
    (".c", "assert_int_equal(bvmm_report_result(report)->error_kind,\n    BVMM_ERROR_GIC);", True),
    (".c", "assert_int_equal(status_of(RUN_VM_ERROR, -1, BVMM_ERROR_GIC), 3);", False),
    (".c", "assert_int_equal(status_of(error.kind, BVMM_ERROR_GIC), 3);", False),
    (".c", "outcome.error_kind = BVMM_ERROR_GIC; assert_int_equal(1, 1);", False),
    (".c", "assert_int_equal(err.kind, BVMM_ERROR_GIC_V3);", False),
    (".c", "assert_string_equal(bvmm_error_kind_name(BVMM_ERROR_GIC), \"Gic\");", False),
    (".py", "same(out.report[\"error\"][\"kind\"], \"Gic\", \"kind\")", True),
    (".py", "print(report[\"error\"][\"kind\"], \"Gic\")", False),
    (".py", "same(names, [\"Gic\"], \"names\")", False),
    ("run", "grep -q '\"kind\": \"Gic\"' report || fail", True),
    ("run", "grep -q '^run-command: Gic: ' stderr ||\n    fail", True),
    ("run", "echo 'Gic: not here' || fail", False),
]


def expects(how, text, kind):
    return re.search(EXPECTED[how].format(*kind), text) is not None


def sources(directory):
    for path, _, names in os.walk(directory):
        for name in names:
            how = ".c" if name.endswith(".c") else "run" if name == "run" else \
                ".py" if name.startswith("scenarios") and name.endswith(".py") else None
            if how:
                with open(os.path.join(path, name), encoding="utf-8") as file:
                    yield how, file.read()


def main():
    wrong = [text for how, text, expected in EXAMPLES if expects(how, text, ("GIC", "Gic")) != expected]
    if wrong:
        print(f"this check is wrong about {wrong}")
        return 1
    with open(sys.argv[1], encoding="utf-8") as file:
        kinds = [kind for kind in KIND.findall(file.read()) if kind[0] != "NONE"]
    texts = list(sources(sys.argv[2]))
    missing = [kind[1] for kind in kinds if not any(expects(how, text, kind) for how, text in texts)]
    print(f"no test expects the kinds {missing}" if missing or len(kinds) < 12 else f"{len(kinds)} kinds, each expected")
    return 1 if missing or len(kinds) < 12 else 0


if __name__ == "__main__":
    sys.exit(main())
