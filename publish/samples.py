"""The worked examples of a specification as pages show them: fields, registers, hex dump, answer."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.abi.registry import Spec
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.wire import merge

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from hvabi.abi.specification import Abi, Example

_LINE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A worked example.

    Attributes:
        slug: its address in the page.
        setting: transport, revision, profile and what else it holds under, in words.
        fields: the request or the value, a line each.
        regs: registers of the request. dump: its memory, or the bytes of the word.
        answer: how the call ends, a line each. response: the fields of the answer.
        load: what the decoder of the page takes: plain JSON.

    """

    name: str
    slug: str
    provenance: str
    setting: tuple[tuple[str, str], ...]
    fields: tuple[str, ...]
    regs: tuple[tuple[str, str], ...] = ()
    dump: tuple[str, ...] = ()
    answer: tuple[str, ...] = ()
    answer_regs: tuple[tuple[str, str], ...] = ()
    answer_dump: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    load: Mapping[str, Any] = field(default_factory=dict)


def samples(abi: Abi) -> tuple[Sample, ...]:
    """Return the examples of an unresolved ABI in their order."""
    taken: set[str] = set()
    specs: dict[tuple[str | None, str], Spec] = {}
    found = []
    for example in abi.examples:
        key = example.data.get("revision"), example.data.get("profile", SPEC_PROFILE)
        if key not in specs:
            specs[key] = Spec(abi.resolve(revision=key[0], profile=key[1]))
        found.append(_sample(specs[key], example, _slug(example.name, taken)))
    return tuple(found)


def _slug(name: str, taken: set[str]) -> str:
    base = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "example"
    slug, number = base, 2
    while slug in taken:
        slug, number = f"{base}-{number}", number + 1
    taken.add(slug)
    return slug


def _sample(spec: Spec, example: Example, slug: str) -> Sample:
    data = example.data
    common: dict[str, Any] = {"name": example.name, "slug": slug, "provenance": example.provenance}
    if "layout" in data:
        raw = bytes.fromhex(data["raw"])
        return Sample(
            **common,
            setting=(("layout", data["layout"]),),
            fields=tuple(lines(data["value"])),
            dump=tuple(hexdump([(0, raw)], digits=4)),
            load={"layout": data["layout"], "hex": data["raw"]},
        )
    call = spec.abi.calls[data["call"]] if "call" in data else next(iter(spec.abi.calls.values()))
    transport = data.get("transport") or next(
        item.name for item in spec.abi.transports.values() if call.request in item.placements
    )
    config = data.get("config", {})
    wire = spec.message(call.request, transport=transport, config=config).encode(data.get("request", {}))
    setting = [("call", call.name), ("transport", transport)]
    setting += [(key, str(data[key])) for key in ("revision", "profile") if key in data]
    setting += [(name, _shown(value)) for name, value in config.items()]
    setting += [(key, _shown(data[key])) for key in ("enabled", "cpl", "mode", "max-ranges") if key in data]
    for key in ("memory", "before"):
        if key in data:
            setting.append((key, "; ".join(map(_range, data[key])) or "nothing"))
    if "inject" in data:
        setting.append(("fault injected", ", ".join(f"{key} {_shown(value)}" for key, value in data["inject"].items())))
    mem = merge([*wire.mem, *((at, bytes.fromhex(text)) for at, text in data.get("mem", ()))])
    answer = data.get("answer", {})
    ends = [f"{key}: {_shown(answer[key])}" for key in ("end", "fault", "reason") if key in answer]
    if "after" in data:
        ends.append("not private afterwards: " + ("; ".join(map(_range, data["after"])) or "nothing"))
    regs = {name: f"{value:#x}" for name, value in {**wire.regs, **data.get("regs", {})}.items()}
    return Sample(
        **common,
        setting=tuple(setting),
        fields=tuple(lines(data.get("request", {}))),
        regs=tuple(regs.items()),
        dump=tuple(hexdump(mem)),
        answer=tuple(ends),
        answer_regs=tuple((name, _shown(value)) for name, value in answer.get("regs", {}).items()),
        answer_dump=tuple(hexdump([(at, bytes.fromhex(text)) for at, text in answer.get("mem", ())])),
        response=tuple(lines(data.get("response", {}))),
        load={
            "message": call.request,
            "transport": transport,
            "revision": spec.abi.revision,
            "profile": spec.abi.profile,
            "config": {name: f"{value:#x}" for name, value in config.items()},
            "regs": regs,
            "mem": [[f"{at:#x}", piece.hex()] for at, piece in mem],
        },
    )


def _range(row: Sequence[Any]) -> str:
    gpa, pages, *state = row
    return f"{pages} page{'' if pages == 1 else 's'} at {gpa:#x}" + (f" {state[0]}" if state else "")


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (f"{value:#x}" if value > 9 else str(value)) if isinstance(value, int) else str(value)


def lines(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield fields, a line each; what is nested has dotted names."""
    for name, item in value.items():
        yield from _line(name, item)


def _line(path: str, item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for name, part in item.items():
            yield from _line(f"{path}.{name}", part)
    elif isinstance(item, list):
        if not item:
            yield f"{path} = []"
        for number, part in enumerate(item):
            yield from _line(f"{path}[{number}]", part)
    else:
        yield f"{path} = {_shown(item)}"


def hexdump(pieces: Iterable[tuple[int, bytes]], *, digits: int = 8) -> Iterator[str]:
    """Yield memory as lines of sixteen bytes; lines of zeroes within a piece are one ``*``, as hexdump has them."""
    for number, (start, data) in enumerate(pieces):
        if number:
            yield ""
        skipped = False
        for at in range(0, len(data), _LINE):
            row = data[at : at + _LINE]
            inside = at > 0 and at + _LINE < len(data)
            if inside and not any(row):
                if not skipped:
                    yield "*"
                skipped = True
                continue
            skipped = False
            left, right = row[:8].hex(" "), row[8:].hex(" ")
            yield f"{start + at:0{digits}x}  {left}" + (f"  {right}" if right else "")
