"""Mistakes of the caller's that the trace readers raise; never what a guest did."""

from __future__ import annotations

from hvabi.abi.errors import HvAbiError


class TraceError(HvAbiError):
    """A trace cannot be read or shows nothing.

    Codes: ``unreadable-trace`` (no such file, no permission, a folder), ``binary-trace``, ``empty-trace``,
    ``no-events``, ``unknown-format``, ``bad-radix``, ``bad-memory``.
    """

    code = "trace"
