# SPDX-License-Identifier: MIT OR Apache-2.0
"""Bencher Metric Format from reports: {benchmark: {measure: {value, lower_value, upper_value}}}.

Of one run the measured values stand alone. Of several runs of one benchmark, value is the median,
lower_value the smallest and upper_value the largest: no distribution is assumed.
"""

import json
import math
import statistics

from . import report as reports
from .common import ToolError

# latency is a measure that Bencher knows, in nanoseconds; the others are made when first used.
LATENCY = "latency"
CPU_TIME = "cpu-time"
PEAK_MEMORY = "peak-memory"


def measures(report):
    """measure -> value, of one completed report. What the report does not know is left out: a
    missing value is no zero."""
    values = {LATENCY: report["timings"]["command_guest_ns"]}
    usage = report["command_usage"]
    if usage is not None:
        values[CPU_TIME] = usage["user_ns"] + usage["system_ns"]
        values[PEAK_MEMORY] = usage["peak_rss_bytes"]
    return {name: value for name, value in values.items() if value is not None}


def check(value, where):
    """Whether a value is Bencher Metric Format; raises ToolError with what is not."""
    if not isinstance(value, dict) or not value:
        raise ToolError(f"{where}: expected an object of benchmarks")
    for benchmark, by_measure in value.items():
        if not isinstance(by_measure, dict):
            raise ToolError(f"{where}: {benchmark!r}: expected an object of measures")
        for measure, metric in by_measure.items():
            at = f"{where}: {benchmark!r}: {measure!r}"
            if not isinstance(metric, dict) or "value" not in metric:
                raise ToolError(f"{at}: expected an object with value")
            for key, number in metric.items():
                good = isinstance(number, (int, float)) and not isinstance(number, bool)
                if key not in ("value", "lower_value", "upper_value"):
                    raise ToolError(f"{at}: unknown key {key!r}")
                if not good or not math.isfinite(number):
                    raise ToolError(f"{at}: {key}: {number!r}: expected a number")
    return value


def from_benchmark(report, source, directory, where):
    """What the benchmark itself reported in the format, on stdout or in an output file."""
    if source == "stdout":
        stream = report["stdout"]
    else:
        stream = next((f for f in report["output_files"] if f["path"] == source), None)
        if stream is None:
            raise ToolError(f"{where}: no output file {source}: name it in the job's output_files")
    if stream["truncated"] or stream["digest_ok"] is False:
        raise ToolError(f"{where}: {source} is incomplete")
    try:
        return check(json.loads(reports.stream_bytes(stream, directory)), f"{where}: {source}")
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{where}: {source}: not valid JSON: {error}") from None


def from_runs(runs):
    """runs: (benchmark, report) pairs, all completed with exit code 0."""
    collected = {}
    for benchmark, report in runs:
        by_measure = collected.setdefault(benchmark, {})
        for name, value in measures(report).items():
            by_measure.setdefault(name, []).append(value)
    return {benchmark: {name: metric(values) for name, values in by_measure.items()}
            for benchmark, by_measure in collected.items() if by_measure}


def metric(values):
    if len(values) == 1:
        return {"value": values[0]}
    return {"value": statistics.median(values), "lower_value": min(values),
            "upper_value": max(values)}
