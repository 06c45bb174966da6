#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Holds bvmm's checks of a job and schemas/job.schema.json against each other, on a corpus and on random jobs."""

import argparse
import concurrent.futures
import copy
import json
import os
import random
import re
import subprocess
import sys

from job_corpus import BAD, BAD_VALUES, BVMM_ONLY, GOOD, GOOD_VALUES
from schema_common import NotJson, load_validator, parse

failures = 0


def fail(what, data, detail):
    global failures
    failures += 1
    print(f"FAILED: {what}\n  job: {data[:300]!r}\n  {detail}", file=sys.stderr)


def judge_by_bvmm(bvmm, data):
    done = subprocess.run([bvmm, "validate", "--no-files", "-"], input=data, capture_output=True, timeout=300, check=False)
    message = done.stderr.decode("utf-8", "replace")
    if done.returncode not in (0, 2) or (done.returncode == 0) != (message == ""):
        fail("bvmm neither accepted nor refused", data, f"exit status {done.returncode}, message: {message}")
    return done.returncode == 0, message


def judge_by_schema(validator, data):
    try:
        value = parse(data)
    except NotJson as error:
        return False, f"not JSON: {error}"
    error = next(validator.iter_errors(value), None)
    return error is None, error.message[:300] if error else ""


def compare(bvmm, validator, data):
    ours, message = judge_by_bvmm(bvmm, data)
    theirs, reason = judge_by_schema(validator, data)
    if ours != theirs:
        fail("bvmm and the schema do not agree", data,
             f"bvmm: {'good' if ours else message}; schema: {'good' if theirs else reason}")
    return ours, message


def compare_all(bvmm, validator, jobs):
    """Both verdicts on each job; most of the time goes into starting bvmm, so several at once."""
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(lambda data: compare(bvmm, validator, data), jobs)


def run_corpus(bvmm, validator):
    jobs = [text.encode() for text in GOOD]
    for data, (good, message) in zip(jobs, compare_all(bvmm, validator, jobs)):
        if not good:
            fail("a good job was refused", data, message)
    jobs = [text if isinstance(text, bytes) else text.encode() for text, _ in BAD]
    for data, (_, expected), (good, message) in zip(jobs, BAD, compare_all(bvmm, validator, jobs)):
        if good:
            fail("a bad job was accepted", data, "")
        elif expected is not None and expected not in message:
            fail(f"the message lacks {expected!r}", data, message)
        elif expected is None and not re.search(r"standard input: line \d+, column \d+: ", message):
            fail("the message of a syntax error lacks line and column", data, message)
    for text, expected in BVMM_ONLY:
        ours, message = judge_by_bvmm(bvmm, text.encode())
        theirs, reason = judge_by_schema(validator, text.encode())
        if ours or not theirs or expected not in message:
            fail("expected a refusal by bvmm alone", text.encode(), f"bvmm: {message or 'good'}; schema: {reason or 'good'}")
    print(f"corpus: {len(GOOD)} good and {len(BAD)} bad jobs, {len(BVMM_ONLY)} bad in a way that the schema cannot say")


def random_job(rng):
    job = {"rootfs_path": "r"} if rng.random() < 0.9 else {}
    if rng.random() < 0.7:
        job["command"] = ["a"]
    for key in rng.sample(sorted(GOOD_VALUES), rng.randint(0, 6)):
        job[key] = copy.deepcopy(rng.choice(GOOD_VALUES[key]))
    if rng.random() < 0.35:
        job[rng.choice(sorted(GOOD_VALUES))] = copy.deepcopy(rng.choice(BAD_VALUES))
    if rng.random() < 0.1:
        where = rng.choice([job] + [v for v in job.values() if isinstance(v, dict)])
        where[rng.choice(["vcpu", "x", "dir", "over_bytes", "A"])] = copy.deepcopy(rng.choice(BAD_VALUES))
    return json.dumps(job, ensure_ascii=rng.random() < 0.5).encode()


def run_random(bvmm, validator, seed, count):
    rng = random.Random(seed)
    jobs = [random_job(rng) for _ in range(count)]
    accepted = sum(good for good, _ in compare_all(bvmm, validator, jobs))
    print(f"random: {accepted} of {count} accepted, seed {seed}")
    if not count // 10 < accepted < count * 9 // 10:
        fail("the generator makes too few good or too few bad jobs", b"", f"{accepted} of {count} accepted")


def check_same_keys(schema):
    """Each key of the corpus' generator is in the schema and the other way round: none goes untested."""
    if set(schema["properties"]) != set(GOOD_VALUES):
        fail("job_corpus.py does not have the schema's keys", b"", set(schema["properties"]) ^ set(GOOD_VALUES))


def check_documented(schema, path="$"):
    for key, value in schema.get("properties", {}).items():
        if isinstance(value, dict):
            if "description" not in value and "$ref" not in value:
                fail("a key without a description", b"", f"{path}.{key}")
            check_documented(value, f"{path}.{key}")
    for key, value in schema.get("$defs", {}).items():
        check_documented(value, key)


def check_printed(bvmm, path):
    with open(path, "rb") as file:
        if subprocess.run([bvmm, "schema", "job"], capture_output=True, check=True).stdout != file.read():
            fail("`bvmm schema job` prints something else than the file", b"", path)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--bvmm", required=True)
    arguments.add_argument("--schema", required=True)
    arguments.add_argument("--seed", type=int, default=int(os.environ.get("BVMM_TEST_SEED", random.randrange(2**32))))
    arguments.add_argument("--count", type=int, default=int(os.environ.get("BVMM_TEST_JOBS", "300")))
    arguments.add_argument("--write-corpus", help="write the corpus into this directory (seeds for a fuzzer) and stop")
    options = arguments.parse_args()
    if options.write_corpus:
        os.makedirs(options.write_corpus, exist_ok=True)
        for number, text in enumerate(GOOD + [text for text, _ in BAD]):
            with open(os.path.join(options.write_corpus, f"job-{number:03}.json"), "wb") as file:
                file.write(text if isinstance(text, bytes) else text.encode())
        return 0
    schema, validator = load_validator(options.schema)
    check_same_keys(schema)
    check_documented(schema)
    check_printed(options.bvmm, options.schema)
    run_corpus(options.bvmm, validator)
    run_random(options.bvmm, validator, options.seed, options.count)
    print(f"{failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
