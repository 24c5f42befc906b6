"""The worked examples of the specifications, checked: bytes in both directions, and what the bundled host answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import Spec
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire, merge
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import Injection
from hvabi.backend import Backend, Conversion, GuestMemory, MemoryLayout, PageState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.specification import Abi, Example
    from hvabi.adapters.host import Host
    from hvabi.adapters.values import HostAnswer


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One thing that an example says and that did not come out."""

    example: str
    what: str
    expected: str
    found: str

    def __str__(self) -> str:
        return f"{self.example}: {self.what}: expected {self.expected}, found {self.found}"


def check_example(abi: Abi, example: Example) -> tuple[Mismatch, ...]:
    """Check one example of an unresolved ABI. Returns what did not come out, empty when all did."""
    data = example.data
    try:
        spec = Spec(abi.resolve(revision=data.get("revision"), profile=data.get("profile", "spec")))
        if "layout" in data:
            return tuple(_layout(spec, example))
        return tuple(_call(spec, example))
    except HvAbiError as error:
        return (Mismatch(example=example.name, what="the example itself", expected="no error", found=str(error)),)


def runs_host(example: Example) -> bool:
    """Whether the example says what the bundled host must do."""
    return "layout" not in example.data and example.data.get("only") != "codec"


def _differ(example: Example, what: str, expected: Any, found: Any) -> Iterator[Mismatch]:
    if expected != found:
        yield Mismatch(example=example.name, what=what, expected=_text(expected), found=_text(found))


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    if isinstance(value, (bytes, bytearray)):
        return value.hex() or "no bytes"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return str(value)


def _layout(spec: Spec, example: Example) -> Iterator[Mismatch]:
    codec = spec.layout(example.data["layout"])
    raw = bytes.fromhex(example.data["raw"])
    value = plain(codec.decode(raw))
    for name, expected in example.data["value"].items():
        yield from _differ(example, f"field {name}", _named(expected), _like(value[name], expected))
    yield from _differ(example, "encoded", raw, codec.encode(example.data["value"]))


def _named(expected: Any) -> Any:
    return plain(expected)


def _like(found: Any, expected: Any) -> Any:
    """Return the part of a decoded value that an example speaks of."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return {key: _like(found.get(key), item) for key, item in expected.items()}
    if isinstance(expected, list) and isinstance(found, list):
        if len(found) != len(expected):
            return found
        return [_like(part, item) for part, item in zip(found, expected, strict=True)]
    return found


def _number_like(value: Any, name: str, expected: Any) -> Any:
    """Return a decoded field as the example writes it: by name or by number."""
    item = getattr(value, name)
    if isinstance(expected, int) and isinstance(item, int):
        return int(item)
    if isinstance(expected, int) and hasattr(item, "_fields"):
        return item
    return _likewise(item, expected)


def _likewise(item: Any, expected: Any) -> Any:
    if isinstance(expected, dict) and hasattr(item, "_fields"):
        return {key: _likewise(getattr(item, key, None), part) for key, part in expected.items()}
    if isinstance(expected, list) and isinstance(item, tuple):
        if len(item) != len(expected):
            return plain(item)
        return [_likewise(one, part) for one, part in zip(item, expected, strict=True)]
    if isinstance(expected, int) and isinstance(item, int):
        return int(item)
    return plain(item)


def _pieces(rows: Any) -> tuple[tuple[int, bytes], ...]:
    return tuple((gpa, bytes.fromhex(text)) for gpa, text in rows or ())


def _overlay(pieces: tuple[tuple[int, bytes], ...], gpa: int, size: int) -> bytes | None:
    for start, data in pieces:
        if start <= gpa and gpa + size <= start + len(data):
            return data[gpa - start : gpa - start + size]
    return None


def _call(spec: Spec, example: Example) -> Iterator[Mismatch]:
    data = example.data
    call = spec.abi.calls[data["call"]] if "call" in data else next(iter(spec.abi.calls.values()))
    config = data.get("config", {})
    codec = spec.message(call.request, transport=data.get("transport"), config=config)
    wire = codec.encode(data.get("request", {}))
    if "regs" in data:
        yield from _differ(
            example, "registers of the request", dict(sorted(data["regs"].items())), dict(sorted(wire.regs.items()))
        )
    if "body" in data:
        yield from _differ(example, "bytes of the request", bytes.fromhex(data["body"]), bytes(wire))
    for gpa, piece in _pieces(data.get("mem")):
        yield from _differ(example, f"bytes at {gpa:#x}", piece, _overlay(wire.mem, gpa, len(piece)))
    back = codec.decode(Wire(regs=data.get("regs", wire.regs), mem=merge([*wire.mem, *_pieces(data.get("mem"))])))
    for name, expected in data.get("request", {}).items():
        if isinstance(expected, int) and hasattr(getattr(back, name), "_fields"):
            continue  # a word given as a number: its bits were compared when it was encoded
        yield from _differ(example, f"decoded {name}", expected, _number_like(back, name, expected))
    if runs_host(example):
        yield from _host(spec, example, wire, back)
    elif "response" in data and call.response is not None and "answer" in data:
        yield from _response(
            spec, example, wire, back, data["answer"].get("regs", {}), _pieces(data["answer"].get("mem"))
        )


def _injection(data: Mapping[str, Any], spec: Spec) -> Injection:
    inject = data.get("inject", {})
    match inject.get("fault"):
        case "vmm-error":
            errno = inject["errno"]
            return Injection(vmm_errno=spec.abi.constants[errno].value if isinstance(errno, str) else errno)
        case "stop-after":
            return Injection(stop_after=inject["pages"])
        case "event-pending":
            return Injection(event_after=inject["after"])
        case "memory-flip":
            return Injection(flips=((inject["gpa"], bytes.fromhex(inject["hex"])),))
        case _:
            return Injection()


def _host(spec: Spec, example: Example, wire: Wire, request: Any) -> Iterator[Mismatch]:
    data = example.data
    layout = MemoryLayout(
        [(gpa >> 12, (gpa >> 12) + pages) for gpa, pages in data["memory"]] if "memory" in data else None
    )
    backend = Backend(layout=layout, max_ranges=data.get("max-ranges"), facts=spec.abi.facts)
    earlier = _earlier(spec, example)
    for gpa, pages, state in (earlier[0].data if earlier else data).get("before", ()):
        backend.convert(Conversion(gpa >> 12, pages, PageState(state)), absent="allow")
    for name, pieces in data.get("facts-before", {}).items():
        for gpa, pages in pieces:
            backend.set_fact(name, gpa >> 12, (gpa >> 12) + pages, True)
    enabled = data.get("enabled", True)
    host = host_class(spec.id)(
        spec, transport=data.get("transport"), config=data.get("config", {}), backend=backend, enabled=enabled
    )
    if not isinstance(host.memory, GuestMemory):
        return
    for one in earlier:
        call = spec.abi.calls[one.data["call"]]
        codec = spec.message(call.request, transport=one.data.get("transport"), config=one.data.get("config", {}))
        _answered(host, codec.encode(one.data.get("request", {})), one.data, spec)
    found = _answered(host, wire, data, spec)
    wanted = data.get("answer", {})
    yield from _differ(example, "end of the call", wanted.get("end", "return"), found.end)
    if "regs" in wanted:
        # A register that kept its value may be told or left out; one that an error leaves undefined is not named.
        told = {name: found.regs.get(name, wire.regs.get(name)) for name in wanted["regs"]}
        yield from _differ(
            example, "registers written", dict(sorted(wanted["regs"].items())), dict(sorted(told.items()))
        )
    if "fault" in wanted:
        yield from _differ(example, "exception", wanted["fault"], found.fault)
    for gpa, piece in _pieces(wanted.get("mem")):
        yield from _differ(example, f"bytes written at {gpa:#x}", piece, host.memory.peek(gpa, len(piece)))
    if "response" in data and found.end in ("return", "replay"):
        yield from _response(spec, example, wire, request, found.regs, found.mem)
    if "after" in data:
        after = [[run.start << 12, run.end - run.start, run.state.value] for run in backend.query()]
        yield from _differ(example, "pages that are not private", [list(row) for row in data["after"]], after)
    for name, rows in data.get("facts-after", {}).items():
        true = [[run.start << 12, run.end - run.start] for run in backend.fact_runs(name)]
        yield from _differ(example, f"pages that are {name}", [list(row) for row in rows], true)


def _earlier(spec: Spec, example: Example) -> list[Example]:
    """Return the examples whose calls come before one, the first of them first."""
    known = {item.name: item for item in spec.abi.examples}
    found: list[Example] = []
    name = example.data.get("follows")
    while name is not None and len(found) < len(known):
        found.insert(0, known[name])
        name = known[name].data.get("follows")
    return found


def _answered(host: Host, wire: Wire, data: Mapping[str, Any], spec: Spec) -> HostAnswer:
    """Place the bytes of an example, make its call, and return the answer."""
    assert isinstance(host.memory, GuestMemory)  # the caller has looked
    for gpa, piece in (*wire.mem, *_pieces(data.get("mem"))):
        host.memory.poke(gpa, piece)
    regs = {**wire.regs, **data.get("regs", {})}
    return host.answer(regs, cpl=data.get("cpl", 0), inject=_injection(data, spec))


def _response(
    spec: Spec,
    example: Example,
    wire: Wire,
    request: Any,
    regs: Mapping[str, int],
    mem: tuple[tuple[int, bytes], ...],
) -> Iterator[Mismatch]:
    data = example.data
    call = spec.abi.calls[data["call"]] if "call" in data else next(iter(spec.abi.calls.values()))
    if call.response is None:
        return
    codec = spec.message(call.response, transport=data.get("transport"), config=data.get("config", {}))
    after = Wire(regs={**wire.regs, **regs}, mem=merge([*wire.mem, *_pieces(data.get("mem")), *mem]))
    value = codec.decode(after, request=request)
    for name, expected in data["response"].items():
        yield from _differ(example, f"response {name}", expected, _number_like(value, name, expected))
