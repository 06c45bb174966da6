# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the schema tests share: a strict JSON reader, and a validator that reads patterns as JSON Schema does."""

import json
import re
import sys

try:
    import jsonschema
except ImportError:
    print("skipped: needs the Debian package python3-jsonschema", file=sys.stderr)
    sys.exit(77)


class NotJson(Exception):
    """The text is not JSON as bvmm takes it."""


def _pairs(pairs):
    keys = [key for key, _ in pairs]
    if len(set(keys)) != len(keys):
        raise NotJson("duplicate key")
    return dict(pairs)


def _constant(name):
    raise NotJson(f"{name} is not JSON")


def _check_text(value):
    """Lone surrogates are no text; a key with U+0000 is refused by bvmm's parser."""
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise NotJson("lone surrogate") from error
    elif isinstance(value, list):
        for item in value:
            _check_text(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_text(key)
            if "\0" in key:
                raise NotJson("U+0000 in a key")
            _check_text(item)


def parse(data):
    """Bytes to a Python value, or NotJson."""
    try:
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_constant)
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise NotJson(str(error)) from error
    _check_text(value)
    return value


def _pattern(validator, pattern, instance, _schema):
    # Python's $ also matches before a newline at the end; that of JSON Schema (ECMA-262) does not.
    if validator.is_type(instance, "string") and not re.search(re.sub(r"\$$", r"\\Z", pattern), instance):
        yield jsonschema.ValidationError(f"{instance!r} does not match {pattern!r}")


def load_validator(path):
    with open(path, encoding="utf-8") as file:
        schema = json.load(file)
    jsonschema.Draft202012Validator.check_schema(schema)
    cls = jsonschema.validators.extend(jsonschema.Draft202012Validator, {"pattern": _pattern})
    return schema, cls(schema)
