# SPDX-License-Identifier: MIT OR Apache-2.0
"""Read bvmm's report (schemas/report.schema.json)."""

import base64
import json
import os
import re

from .common import ToolError

SCHEMA_VERSION = 1


def parse(data, where):
    """A report from bytes; it must be one, of the version that we know."""
    try:
        report = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ToolError(f"{where}: the report is not valid JSON: {error}") from None
    version = report.get("schema_version") if isinstance(report, dict) else None
    if version != SCHEMA_VERSION:
        raise ToolError(f"{where}: the report has schema version {version!r}, expected "
                        f"{SCHEMA_VERSION}: bvmm and this tool are of different versions")
    return report


def stream_bytes(stream, directory):
    """The bytes of a stream or an output file, exactly as the guest wrote them. directory: where
    the report lies, for bytes that are in a file of their own."""
    if stream["data"] is None:
        if stream["file"] is None:
            return b""
        with open(os.path.join(directory, stream["file"]), "rb") as file:
            return file.read()
    if stream["encoding"] == "base64":
        return base64.b64decode(stream["data"], validate=True)
    return stream["data"].encode("utf-8")


def stream_problem(name, stream):
    """What is wrong with a stream: (text, whether bytes were lost on the way). (None, False) if
    nothing is."""
    if stream["dropped_bytes"]:
        return f"{name}: {stream['dropped_bytes']} bytes over the job's limit were left out", False
    if stream["digest_ok"] is False:
        return f"{name}: is not what the command wrote: its digest differs", True
    if stream["state"] in ("open", "broken"):
        return f"{name}: cut short on its way out of the guest", True
    if stream["truncated"]:
        return f"{name}: cut short at {stream['size_bytes']} bytes", False
    return None, False


def safe_name(guest_path, taken):
    """A host file name for a path that the guest chose: one component, nothing that a shell or a
    directory listing would take for something else, and none that is taken."""
    name = re.sub(r"[^A-Za-z0-9._+=@-]", "_", os.path.basename(guest_path or "output"))
    name = re.sub(r"^[.-]+", "_", name)[:200] or "_"
    candidate = name
    number = 1
    while candidate in taken:
        candidate = f"{name}.{number}"
        number += 1
    return candidate


def summary(report):
    """One line for a person about how a run ended."""
    text = report["status"].replace("_", " ")
    if report["status"] == "completed":
        text += f", exit code {report['exit_code']}"
    if report["error"]:
        text += f": {report['error']['message']}"
    return text
