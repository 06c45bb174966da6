#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Every report that bvmm writes is one by schemas/report.schema.json, also from a record full of garbage."""

import argparse
import base64
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile

from schema_common import load_validator, parse


def contents(report):
    yield from (report[name] for name in ("stdout", "stderr"))
    yield from report["output_files"]


def check_contents(report):
    """Sizes and digests are those of the data that is there."""
    for content in contents(report):
        data = content["data"].encode() if content["encoding"] == "utf-8" else base64.b64decode(content["data"])
        if len(data) != content["size_bytes"] or hashlib.sha256(data).hexdigest() != content["sha256"]:
            return f"size or digest is not that of the data: {json.dumps(content)[:300]}"
    return None


def refuses_damage(validator, report, rng):
    """The schema is worth something: a report that lost a key, gained one, or has a wrong type is refused."""
    for key in report:
        changed = {k: v for k, v in report.items() if k != key}
        if validator.is_valid(changed):
            return f"a report without {key!r} is accepted"
        if validator.is_valid({**report, key: rng.choice([1.5, {"x": 1}, [[]]])}):
            return f"a report with a strange {key!r} is accepted"
    return "a report with an unknown key is accepted" if validator.is_valid({**report, "x": 1}) else None


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--samples", required=True)
    arguments.add_argument("--schema", required=True)
    arguments.add_argument("--seed", type=int, default=int(os.environ.get("BVMM_TEST_SEED", random.randrange(2**31))))
    arguments.add_argument("--count", type=int, default=100)
    options = arguments.parse_args()
    _, validator = load_validator(options.schema)
    failures = 0
    statuses = set()
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([options.samples, directory, str(options.seed), str(options.count)], check=True)
        names = sorted(os.listdir(directory))
        for name in names:
            with open(os.path.join(directory, name), "rb") as file:
                report = parse(file.read())
            statuses.add(report.get("status"))
            error = next(validator.iter_errors(report), None)
            problem = f"{error.json_path}: {error.message[:300]}" if error else check_contents(report)
            if problem is None and name.endswith("00001.json"):
                problem = refuses_damage(validator, report, random.Random(options.seed))
            if problem:
                failures += 1
                print(f"FAILED: {name}: {problem}", file=sys.stderr)
    print(f"{len(names)} reports, {len(statuses)} statuses, {failures} failures, seed {options.seed}")
    return 1 if failures or len(statuses) < 11 else 0


if __name__ == "__main__":
    sys.exit(main())
