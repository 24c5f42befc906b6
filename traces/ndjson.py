"""Our own trace format: a JSON object a line, with everything that the readers found and nothing lost.

The first line is ``{"hvabi":"trace","version":1}``; every other one has ``hvabi`` as its first key too: ``call``
for a `TraceEvent`, ``seen`` for a `Sighting`, ``malformed``, and ``source`` for how a source was read. Keys whose
value is the default are left out. Addresses are strings with ``0x``; pages are 4 KiB.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TextIO, get_args

from hvabi.backend import GPA_PAGES, PAGE_SHIFT, PageState, Status
from hvabi.traces.event import Ambiguity, Clock, Kind, Malformed, Reading, Sighting, TraceEvent
from hvabi.traces.report import jsonable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.traces.event import Record
    from hvabi.traces.report import ReadReport

VERSION = 1
KEY = "hvabi"

_DEFAULTS = TraceEvent._field_defaults
_SEEN_DEFAULTS = Sighting._field_defaults


class FormatError(ValueError):
    """A line is not of this format; the text says why."""


def head() -> dict[str, Any]:
    """Return the first line."""
    return {KEY: "trace", "version": VERSION}


def to_json(record: Record) -> dict[str, Any]:
    """Return a record as JSON values."""
    if isinstance(record, TraceEvent):
        out: dict[str, Any] = {KEY: "call", "source": record.source, "line": record.line}
        out |= {"time": record.time_seconds} if record.time_seconds is not None else {}
        out |= _reading(Reading(*record[3:7], record.refused, record.broken))
        out["attempt"] = record.attempt
        if record.ambiguous is not None:
            field, text, chosen, by, other = record.ambiguous
            out["open"] = {"field": field, "text": text, "chosen": chosen, "by": by, "other": _reading(other)}
        for name in ("format", "clock", "outcome", "done_pages", "retries", "stalls", "implicit", "vcpu"):
            value = getattr(record, name)
            if value != _DEFAULTS[name]:
                out[name] = str(value) if isinstance(value, Status) else value
        return out
    if isinstance(record, Sighting):
        out = {KEY: "seen", "source": record.source, "line": record.line}
        out |= {"time": record.time_seconds} if record.time_seconds is not None else {}
        out |= {"kind": record.kind, "name": record.name, "text": record.text}
        for name in ("result", "format", "clock", "vcpu"):
            if getattr(record, name) != _SEEN_DEFAULTS[name]:
                out[name] = getattr(record, name)
        return out
    return {
        KEY: "malformed",
        "source": record.source,
        "line": record.line,
        "reason": record.reason,
        "excerpt": record.excerpt,
    }


def _reading(reading: Reading) -> dict[str, Any]:
    out: dict[str, Any] = {"abi": reading.abi} if reading.abi is not None else {}
    out |= {"gpa": hex(reading.gpa), "pages": reading.pages, "to": None if reading.to is None else str(reading.to)}
    if reading.refused is not None:
        out["refused"] = str(reading.refused)
    if reading.broken:
        out["broken"] = list(reading.broken)
    return out


def from_json(value: object) -> Record | None:
    """Return the record of a line; None for the first line of a file and for ``source`` lines.

    Raises:
        FormatError: for anything that `to_json` does not make.

    """
    if not isinstance(value, dict) or not isinstance(value.get(KEY), str):
        raise FormatError("this is no object of this format")
    try:
        what = value[KEY]
        if what == "call":
            return _call(value)
        if what == "seen":
            return _seen(value)
        if what == "malformed":
            place = _text(value, "source"), _number(value, "line")
            return Malformed(
                source=place[0], line=place[1], reason=_text(value, "reason"), excerpt=_text(value, "excerpt")
            )
        if what == "trace":
            if value.get("version") != VERSION:
                raise FormatError(f"version {str(value.get('version'))[:20]}, and {VERSION} is what can be read")
            return None
        if what == "source":
            return None
    except KeyError as missing:
        raise FormatError(f"`{missing.args[0]}` is missing") from missing
    except ValueError as error:
        raise FormatError(str(error)) from error
    raise FormatError(f"there is no record of the kind {what[:20]!r}")


def _call(value: Mapping[str, Any]) -> TraceEvent:
    known = {
        KEY,
        "source",
        "line",
        "time",
        "abi",
        "gpa",
        "pages",
        "to",
        "refused",
        "broken",
        "attempt",
        "open",
        *_DEFAULTS,
    }
    _only(value, known)
    meant = _read(value)
    if not isinstance(value["attempt"], bool):
        raise FormatError("`attempt` is not true or false")
    open_ = None
    if "open" in value:
        each = value["open"]
        if not isinstance(each, dict):
            raise FormatError("`open` is no object")
        field, text, chosen, by = (_text(each, key) for key in ("field", "text", "chosen", "by"))
        open_ = Ambiguity(field, text, chosen, by, _read(each["other"]))
    extra: dict[str, Any] = {}
    for name in ("done_pages", "retries", "stalls", "vcpu"):
        if name in value:
            extra[name] = _number(value, name)
    if "outcome" in value:
        extra["outcome"] = Status(value["outcome"])
    if value.get("implicit") is True:
        extra["implicit"] = True
    return TraceEvent(
        _text(value, "source"),
        _number(value, "line"),
        _time(value),
        *meant[:4],
        value["attempt"],
        open_,
        *meant[4:],
        format=_text(value, "format") if "format" in value else "",
        clock=_clock(value),
        **extra,
    )


def _seen(value: Mapping[str, Any]) -> Sighting:
    _only(value, {KEY, "source", "line", "time", "kind", "name", "text", *_SEEN_DEFAULTS})
    kind = value["kind"]
    if kind not in get_args(Kind):
        raise FormatError("`kind` has no such value")
    return Sighting(
        _text(value, "source"),
        _number(value, "line"),
        _time(value),
        kind,
        _text(value, "name"),
        _text(value, "text"),
        _text(value, "result") if "result" in value else "",
        _text(value, "format") if "format" in value else "",
        _clock(value),
        _number(value, "vcpu") if "vcpu" in value else None,
    )


def _read(value: Mapping[str, Any]) -> Reading:
    if not isinstance(value, dict):
        raise FormatError("a reading is no object")
    text = value["gpa"]
    if not isinstance(text, str) or not text.startswith("0x") or len(text) > 18:
        raise FormatError("`gpa` is no address with 0x")
    pages = _number(value, "pages")
    gpa = int(text, 16)
    if pages > GPA_PAGES or (gpa & ((1 << PAGE_SHIFT) - 1) and "refused" not in value):
        raise FormatError("the range is no number of whole pages")
    broken = value.get("broken", [])
    if not isinstance(broken, list) or not all(isinstance(rule, str) for rule in broken):
        raise FormatError("`broken` is no list of rules")
    return Reading(
        _text(value, "abi") if "abi" in value else None,
        gpa,
        pages,
        None if value["to"] is None else PageState(value["to"]),
        Status(value["refused"]) if "refused" in value else None,
        tuple(broken),
    )


def _only(value: Mapping[str, Any], known: set[str]) -> None:
    for key in value:
        if key not in known:
            raise FormatError(f"`{key[:20]}` is no key of this record")


def _text(value: Mapping[str, Any], key: str) -> str:
    found = value[key]
    if not isinstance(found, str):
        raise FormatError(f"`{key}` is no text")
    return found


def _number(value: Mapping[str, Any], key: str) -> int:
    found = value[key]
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 64:
        raise FormatError(f"`{key}` is no number from 0 to 2^64")
    return found


def _time(value: Mapping[str, Any]) -> float | None:
    found = value.get("time")
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e15:
        raise FormatError("`time` is no number of seconds")
    return float(found)


def _clock(value: Mapping[str, Any]) -> Clock | None:
    found: Clock | None = value.get("clock")
    if found is not None and found not in get_args(Clock):
        raise FormatError("`clock` has no such value")
    return found


class Writer:
    """Writes records as lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.line(head())

    def record(self, record: Record) -> None:
        """Write a record."""
        self.line(to_json(record))

    def report(self, report: ReadReport) -> None:
        """Write how a source was read: as it stands in a trace of this format, or else as it was found."""
        for carried in report.carried:
            self.line(carried)
        if not report.carried:
            body = jsonable(report)
            assert isinstance(body, dict)  # a dataclass becomes an object
            del body["carried"], body["first_malformed"]  # those have lines of their own
            self.line({KEY: "source", **body})

    def flush(self) -> None:
        """Let readers see what was written."""
        self._stream.flush()

    def line(self, value: Mapping[str, Any]) -> None:
        """Write one line."""
        self._stream.write(json.dumps(value, separators=(",", ":")) + "\n")
