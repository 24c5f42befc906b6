"""The time of a record, from what stands before it in its line.

Every program that prints traces puts its own clock there. A form that is not known here is no time: the record is
used without one.
"""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvabi.traces.event import Clock

_BRACKET = re.compile(r"\[\s{0,12}(\d{1,9}\.\d{1,9})(?:\s{1,4}<[ \d.]{1,24}>)?\]")
_PLAIN = 22
"""Most characters of ``[   56.146336] ``: twelve before the point, so that no other clock is later."""
_KMSG = re.compile(r"\d{1,4},\d{1,20},(\d{1,18}),[^;\[]{0,40};")
_TRACE = re.compile(r"(?<![\w.])(\d{1,12}\.\d{1,9}):\s{1,40}(?:\w{1,20}:)?$")
_MARKER = re.compile(r"(?<![\w.])(\d{1,12}\.\d{1,9}):\s{1,40}tracing_mark_write:\s{0,4}$")
_QEMU = re.compile(r"(?<!\S)\d{1,10}@(\d{1,12}\.\d{1,9}):$")
_PROGRAM = re.compile(r"(?<![\w.])(\d{1,9}(?:\.\d{1,9})?)(ns|µs|us|ms|s): <")  # Rust's Duration, then the thread
_ISO = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):?(\d\d))?(?![\d.])", re.ASCII
)

_UNIT = {"ns": 1e-9, "µs": 1e-6, "us": 1e-6, "ms": 1e-3, "s": 1.0}
_EPOCH = date(1970, 1, 1).toordinal()

Time = "tuple[float, Clock]"


def printk_time(prefix: str) -> float | None:
    """Return the kernel's seconds since boot from what stands before a record, or None.

    Knows ``[   56.146336] ``, alone or behind what syslog or the journal put before it, with the caller or the
    difference that the kernel and dmesg can add, and the records of ``/dev/kmsg``. Times of day are no such time.
    """
    if prefix[:1] == "[" and prefix[-2:] == "] " and prefix[-9:-8] == "." and len(prefix) <= _PLAIN:
        try:  # the common case
            return float(prefix[1:-2])
        except ValueError:
            pass
    found = None
    for match in _BRACKET.finditer(prefix):
        found = match
    if found is not None:
        return float(found.group(1))
    kmsg = _KMSG.match(prefix)
    return int(kmsg.group(1)) / 1e6 if kmsg else None


def stamp_time(stamp: bytes) -> float | None:
    """Return what `printk_time` gives for the common ``[   56.146336``, with ``] `` behind it; None for another one."""
    if stamp[:1] != b"[" or stamp[-7:-6] != b"." or len(stamp) > _PLAIN - 2:
        return None
    try:
        return float(stamp[1:])
    except ValueError:
        return None


def trace_time(prefix: str) -> float | None:
    """Return the seconds before the name of an event: ``qemu-2199 [003] d..1. 56.14: `` and perf's ``56.14: kvm:``."""
    match = _TRACE.search(prefix)
    return float(match.group(1)) if match else None


def iso_time(prefix: str) -> float | None:
    """Return the seconds since 1970 of the first date and time of day; one without a zone counts as UTC."""
    match = _ISO.search(prefix)
    if match is None:
        return None
    year, month, day, hour, minute, second, fraction, sign, hours, minutes = match.groups()
    days = _days(int(year), int(month), int(day))
    if days is None:
        return None
    found = days * 86400 + int(hour) * 3600 + int(minute) * 60 + int(second) + float(fraction or 0)
    if sign:
        found -= (int(hours) * 3600 + int(minutes) * 60) * (1 if sign == "+" else -1)
    return found


@lru_cache(maxsize=64)
def _days(year: int, month: int, day: int) -> int | None:
    try:
        return date(year, month, day).toordinal() - _EPOCH
    except ValueError:
        return None


def kernel_time(prefix: str) -> tuple[float, Clock] | None:
    """Return the time of a line of a kernel: of a tracer, or of its log."""
    time = trace_time(prefix)
    if time is None:
        time = printk_time(prefix)
    return None if time is None else (time, "boot")


def program_time(prefix: str) -> tuple[float, Clock] | None:
    """Return the time of a line of a program, or of what wrapped it: QEMU, Rust loggers, the kernel's log."""
    if not prefix:
        return None
    match = _QEMU.search(prefix)
    if match is not None:
        return float(match.group(1)), "wall"
    match = _PROGRAM.search(prefix)
    if match is not None:
        return float(match.group(1)) * _UNIT[match.group(2)], "process"
    match = _MARKER.search(prefix)
    if match is not None:
        return float(match.group(1)), "boot"
    time = printk_time(prefix)
    if time is not None:
        return time, "boot"
    time = iso_time(prefix)
    return None if time is None else (time, "wall")
