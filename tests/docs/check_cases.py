#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Looks that every test which a document's table of cases names is there, and is run.

usage: check_cases.py DOCUMENT TESTS_DIRECTORY
"""

import os
import re
import sys

ROW = re.compile(r"^\| ([^|]+) \| (unit/\w+\.c) \| ([\w, ]+) \|$", re.MULTILINE)
NUMBER = re.compile(r"\b(?:CVE-)?\d[\d-]{2,}\b")
LEAST_ROWS = 15


def problems(document, tests):
    rows = ROW.findall(document)
    if len(rows) < LEAST_ROWS:
        yield f"{len(rows)} rows; there were {LEAST_ROWS} at least: has the table another form?"
    for case, name, functions in rows:
        with open(os.path.join(tests, name), encoding="utf-8") as file:
            source = file.read()
        # Who looks for the number finds the test.
        for number in NUMBER.findall(case.partition(":")[0]):
            if number not in source:
                yield f"{case}: {name} does not name {number}"
        for function in functions.split(", "):
            if not re.search(rf"^static void {function}\(void \*\*state\)", source, re.MULTILINE):
                yield f"{case}: {name} has no {function}"
            elif not re.search(rf"^\s+\w+\({function}\b", source, re.MULTILINE):
                yield f"{case}: {function} is not run"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        found = list(problems(file.read(), sys.argv[2]))
    print("\n".join(found) or "every case has its tests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
