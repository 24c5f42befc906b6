"""The version of hvabi that made a file."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version


@cache
def release() -> str:
    """Return the version of the installed package, or ``unknown`` where it is not installed."""
    try:
        return version("hvabi")
    except PackageNotFoundError:
        return "unknown"
