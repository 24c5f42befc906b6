"""Vectors as NDJSON: one test a line, each with all that is needed to run it alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def lines(file: Mapping[str, Any]) -> str:
    """Return the tests of a vector file as lines of JSON; the keys are those of the file, its group and the test."""
    head = {key: file[key] for key in ("abi", "revision", "role")}
    return "".join(
        json.dumps({**head, "transport": group["transport"], "config": group["config"], **test}) + "\n"
        for group in file["groups"]
        for test in group["tests"]
    )
