"""``hvabi decode``: registers or bytes to fields, and every other legal reading."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.tables import dim, heading, table, wrap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.abi.annotation import Annotation
    from hvabi.abi.readings import Hint, Reading, Readings
    from hvabi.cli.data import Input
    from hvabi.cli.target import Target

EPILOG = """\b
Examples:
  hvabi decode rax=12 rbx=0x1f018000 rcx=1 rdx=1
  hvabi decode tdx-map-gpa r11=0x10001 r12=0x800100001000 r13=0x1000 --set gpaw=48
  hvabi decode ghcb-psc 0000000000000000 00e0001f00002000
  hvabi decode ghcb-psc/psc-entry 00e0001f00002000
  hvabi decode ghcb-msr-psc msr.bin

DATA is hex digits, NAME=VALUE registers (with mem[ADDRESS]=HEX for memory), a file of raw bytes or of hex text,
or - for standard input. Bytes are the body of the message, else its registers in order, 8 bytes each, little endian.
Without ABI all are tried.
"""

_OTHERS = 8
"""Other readings that are listed unless all are asked for."""


@click.command(epilog=EPILOG)
@click.argument("args", metavar="[ABI[@REV][/MESSAGE]] DATA...", nargs=-1)
@click.option("--transport", "-t", metavar="T", help="How the call was made; the best fit by default.")
@click.option("--set", "config", metavar="KEY=NUMBER", multiple=True, help="Configuration, for example gpaw=52.")
@click.option("--request", metavar="DATA", help="For a response: the request that it answers, hex or registers.")
@click.option("--bits", is_flag=True, help="Show words bit by bit, all of them.")
@click.option("--all", "every", is_flag=True, help="Show all elements of lists and all other readings.")
@click.option("--raw", is_flag=True, help="Take the bytes of a file as they are, also where they look like hex text.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    args: tuple[str, ...],
    transport: str | None,
    config: tuple[str, ...],
    request: str | None,
    *,
    bits: bool,
    every: bool,
    raw: bool,
    as_json: bool,
) -> int:
    """Show what registers or bytes say, bit by bit, and in which other ways they can be read."""
    from hvabi.abi.readings import readings
    from hvabi.cli.data import looks_like_data, read_input
    from hvabi.cli.target import settings, target

    wanted: Target | None = None
    if args and (len(args) > 1 or not looks_like_data(args[0])) and not _is_data(args[0]):
        wanted, args = target(args[0]), args[1:]
    values = settings(config)
    given = read_input(args, raw=raw)
    if wanted is not None and wanted.is_layout:
        return _layout(wanted, given, bits=bits, every=every, as_json=as_json)
    if wanted is None:
        found = readings(given.data, config=values)
        return _unnamed(given, found, transport, bits=bits, every=every, as_json=as_json)
    best = _best(wanted, given, transport, values, request)
    found = readings(given.data, config=values, hints=False)
    others = [item for item in found.readings if not _same(item, best)]
    hints: Sequence[Hint] = ()
    if best.sure != "constants-matched":
        revision = wanted.spec.abi.revision
        hints = readings(given.data, abis=[wanted.spec.id], revision=revision, config=values).hints
    if as_json:
        _dump(given, [best], others, hints)
    else:
        _show(given, best, bits=bits, every=every)
        _others(others, every=every)
        _hints(hints)
    return console.FOUND if _bad(best.annotation) else console.GOOD


def _is_data(text: str) -> bool:
    from hvabi.abi.registry import abi_ids
    from hvabi.cli.data import looks_like_data

    return text.partition("/")[0].partition("@")[0] not in abi_ids() and looks_like_data(text)


def _same(one: Reading, best: Reading) -> bool:
    return (one.abi, one.message, one.means) == (best.abi, best.message, best.means)


def _bad(annotation: Annotation) -> bool:
    return any(problem.level != "note" for problem in annotation.problems)


def _best(wanted: Target, given: Input, transport: str | None, config: dict[str, int], request: str | None) -> Reading:
    """Return the reading that fits best: of the message that was named, else of any of the ABI."""
    from hvabi.abi.errors import CodecError, ExprError, UsageError
    from hvabi.abi.readings import reading

    spec = wanted.spec
    spec.config(config)
    places = [spec.transport(transport)] if transport is not None else list(spec.abi.transports.values())
    names = [wanted.name] if wanted.name is not None else list(spec.abi.messages)
    choices = [(place, name) for place in places for name in names if name in place.placements]
    if not choices:
        spec.message(names[0] or "", transport=transport)
    first: CodecError | ExprError | UsageError | None = None
    found: list[Reading] = []
    for place, name in choices:
        try:
            sent = _request(wanted, place.name, name, request, config)
            found.append(reading(spec, name, place.name, given.data, config=config, request=sent))
        except (CodecError, ExprError, UsageError) as error:
            first = first or error
    found = [item for item in found if any(row.given for row in item.annotation.rows)]
    if found:
        return min(found, key=_fit)
    if first is not None:
        raise _with_hints(first, wanted, given, config)
    used = ", ".join(spec.message(choices[0][1], transport=choices[0][0].name).placer.registers)
    raise UsageError(
        f"{spec.id} has none of these registers",
        code="no-reading",
        hint=f"{choices[0][0].name} uses {used or 'memory only'}",
    )


def _fit(item: Reading) -> tuple[bool, tuple[int, int, int, int], int]:
    """Sort key: legal readings by how sure they are, then those with the most constants that are right."""
    from hvabi.abi.readings import is_legal

    legal = is_legal(item.annotation, item.matched)
    return not legal, item.rank if legal else (0, 0, -item.matched, 0), len(item.annotation.unused)


def _with_hints(error: Any, wanted: Target, given: Input, config: dict[str, int]) -> Exception:
    """Add to an error what the data would be in another way."""
    from hvabi.abi.errors import UsageError
    from hvabi.abi.readings import readings

    found = readings(given.data, config=config)
    said = [hint.text for hint in found.hints]
    if not said:
        said = [f"{item.abi}/{item.message} fits: {item.means}" for item in found.readings if item.sure != "unlikely"][
            :2
        ]
    hint = "; ".join([*([error.hint] if error.hint else []), *said])
    return UsageError(error.message, code=error.code, hint=hint or f"hvabi show {wanted.spec.id} has the layout")


def _request(wanted: Target, transport: str, message: str, text: str | None, config: dict[str, int]) -> Any:
    """Return the decoded request that a response answers, where one was given."""
    if text is None:
        return None
    from hvabi.abi.errors import UsageError
    from hvabi.abi.readings import read
    from hvabi.cli.data import read_input

    codec = wanted.spec.message(message, transport=transport, config=config)
    if codec.request is None:
        raise UsageError(f"{codec.label} is no response", code="no-request", hint="name the response: ABI/MESSAGE")
    return read(codec.request, read_input(tuple(text.split())).data)[1].value


def _layout(wanted: Target, given: Input, *, bits: bool, every: bool, as_json: bool) -> int:
    from hvabi.abi.annotate import annotate_layout
    from hvabi.abi.errors import UsageError
    from hvabi.cli import rows

    if not isinstance(given.data, bytes):
        raise UsageError(f"{wanted.name} is a layout", code="bad-input", hint="give its bytes as hex digits")
    annotation = annotate_layout(wanted.spec.layout(wanted.name or ""), given.data)
    if as_json:
        console.dump({"abi": wanted.spec.id, "layout": wanted.name, **rows.annotation_json(annotation)})
    else:
        console.say(heading(f"{wanted.spec.id}: {wanted.name}") + dim(f"  ({given.said})"))
        _table(annotation, bits=bits, every=every)
    return console.FOUND if _bad(annotation) else console.GOOD


def _unnamed(given: Input, found: Readings, transport: str | None, *, bits: bool, every: bool, as_json: bool) -> int:
    from hvabi.abi.errors import UsageError

    all_readings = [item for item in found.readings if transport is None or item.transport == transport]
    if not all_readings:
        hint = (
            "; ".join(item.text for item in found.hints)
            or "name the ABI to see where it does not fit: hvabi decode ABI …"
        )
        foreign = _foreign(given)
        raise UsageError(f"no message of any ABI fits {given.said}", code="no-reading", hint=foreign or hint)
    sure = [item for item in all_readings if item.sure == "constants-matched"]
    main: list[Reading] = []
    for item in sure or all_readings[:1]:
        if len(main) < 4 and not any((kept.abi, kept.message) == (item.abi, item.message) for kept in main):
            main.append(item)
    others = [item for item in all_readings if not any(_same(item, kept) for kept in main)]
    hints = () if sure else found.hints
    if as_json:
        _dump(given, main, others, hints)
    else:
        if len(main) > 1:
            console.say(heading(f"{len(main)} readings; only the context tells which"))
            console.say()
        for number, item in enumerate(main):
            if number:
                console.say()
            _show(given, item, bits=bits, every=every)
        _others(others, every=every)
        _hints(hints)
    return console.FOUND if all(_bad(item.annotation) for item in main) else console.GOOD


def _foreign(given: Input) -> str:
    """Say that the registers are a platform's own call and no conversion, or nothing."""
    from hvabi.abi.given import Given
    from hvabi.abi.platforms import leaves_of

    regs = given.data.regs if isinstance(given.data, Given) else {}
    return "; ".join(f"this is the {leaf.name} of {platform.title}: {leaf.doc}" for platform, leaf in leaves_of(regs))


def _dump(given: Input, main: Sequence[Reading], others: Sequence[Reading], hints: Sequence[Hint]) -> None:
    from hvabi.cli import rows

    console.dump(
        {
            "input": given.said,
            "readings": [rows.reading_json(item) for item in main],
            "others": [rows.reading_json(item, whole=False) for item in others],
            "hints": [{"kind": hint.kind, "text": hint.text} for hint in hints],
        }
    )


def _show(given: Input, item: Reading, *, bits: bool, every: bool) -> None:
    form = "" if item.form == "registers" else f", {item.form}"
    console.say(heading(f"{item.abi}@{item.revision}/{item.message}, transport {item.transport}{form}"))
    for line in wrap(item.means, console.width()):
        console.say(line)
    for line in wrap(f"{_SURE[item.sure]}: {item.because} ({given.said})", console.width()):
        console.say(dim(line))
    console.say()
    _table(item.annotation, bits=bits, every=every)


def _table(annotation: Annotation, *, bits: bool, every: bool) -> None:
    from hvabi.cli import rows

    width = console.width()
    for line in rows.lines(annotation, width, every=every):
        console.say(line)
    if bits:
        shown = annotation.words if every else annotation.words[: rows.FEW]
        for line in rows.bit_lines(shown, width):
            console.say(line)


_SURE = {
    "constants-matched": "sure as far as constants go",
    "nothing-contradicts": "possible",
    "unlikely": "doubtful",
}


def _others(items: Sequence[Reading], *, every: bool) -> None:
    """List the other readings; those that differ in revision or transport only are one line."""
    groups: dict[tuple[str, str, str], list[Reading]] = {}
    for item in items:
        groups.setdefault((item.abi, item.message, item.means), []).append(item)
    likely = [group for group in groups.values() if every or group[0].sure != "unlikely"]
    if not groups:
        return
    console.say()
    console.say(heading("other legal readings"))
    rows = []
    for group in likely if every else likely[:_OTHERS]:
        one = group[0]
        ways = ", ".join(dict.fromkeys(item.transport for item in group))
        rows.append((f"{one.abi}/{one.message}", f"{one.means} ({ways}; {_SURE[one.sure]}: {one.because})"))
    for line in table(rows, console.width(), indent="  ", widest=48):
        console.say(line)
    left = len(groups) - len(rows)
    if left:
        more = "and " if rows else ""
        console.say(dim(f"  {more}{left} {'more' if rows else 'doubtful ones'}; --all lists them"))


def _hints(hints: Sequence[Hint]) -> None:
    for hint in hints:
        console.say()
        for line in wrap(f"hint: {hint.text}", console.width()):
            console.say(line)
