"""``hvabi encode``: field values to registers and bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.tables import heading, wrap

if TYPE_CHECKING:
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.wire import Wire
    from hvabi.cli.target import Target

EPILOG = """\b
Examples:
  hvabi encode tdx-map-gpa gpa=0x800100001000 size=0x1000
  hvabi encode ghcb-psc entries[0].gfn=0x1f00e entries[0].operation=SHARED
  hvabi encode kvm-map-gpa-range gpa=0x1000 npages=1 attributes.encrypted=1
  hvabi encode ghcb-psc/psc-entry gfn=0x1f00e operation=PRIVATE
  hvabi encode s390-uv-share/response request.cmd=SHARE request.paddr=0x1000 cc=OK rc=EXECUTED

Values are decimal, 0x numbers or names of the field's enum. What is left out takes its default.
For a response, request.FIELD=VALUE says which request it answers, where that matters.
"""


@click.command(epilog=EPILOG)
@click.argument("abi", metavar="ABI[@REV][/MESSAGE]")
@click.argument("values", metavar="FIELD=VALUE...", nargs=-1)
@click.option("--transport", "-t", metavar="T", help="How the call is made; the first of the ABI by default.")
@click.option("--set", "config", metavar="KEY=NUMBER", multiple=True, help="Configuration, for example gpaw=52.")
@click.option("--all", "every", is_flag=True, help="Show all elements and all zero bytes.")
@click.option("--hex", "only_hex", is_flag=True, help="Print the bytes of the message as hex and nothing else.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    abi: str,
    values: tuple[str, ...],
    transport: str | None,
    config: tuple[str, ...],
    *,
    every: bool,
    only_hex: bool,
    as_json: bool,
) -> int:
    """Turn field values into the registers and bytes of a message."""
    from hvabi.cli.target import settings, target

    wanted = target(abi)
    if wanted.is_layout:
        return _layout(wanted, values, only_hex=only_hex, as_json=as_json)
    message = wanted.name or next(iter(wanted.spec.abi.messages))
    codec = wanted.spec.message(message, transport=transport, config=settings(config))
    return _message(wanted, codec, values, every=every, only_hex=only_hex, as_json=as_json)


def _layout(wanted: Target, values: tuple[str, ...], *, only_hex: bool, as_json: bool) -> int:
    from hvabi.abi.annotate import annotate_layout
    from hvabi.cli import rows
    from hvabi.cli.assign import assignments

    codec = wanted.spec.layout(wanted.name or "")
    data = codec.encode(assignments(values, codec.layout.fields))
    annotation = annotate_layout(codec, data)
    if as_json:
        console.dump(
            {"abi": wanted.spec.id, "layout": wanted.name, "body": data.hex(), **rows.annotation_json(annotation)}
        )
        return console.GOOD
    if not only_hex:
        console.say(heading(f"{wanted.spec.id}: {wanted.name}, {codec.size} bytes, {codec.layout.endian} endian"))
        for line in rows.lines(annotation, console.width()):
            console.say(line)
        console.say()
    console.say(data.hex())
    return console.GOOD


def _message(
    wanted: Target, codec: MessageCodec, values: tuple[str, ...], *, every: bool, only_hex: bool, as_json: bool
) -> int:
    from hvabi.abi.annotate import annotate
    from hvabi.abi.given import Given
    from hvabi.cli import rows
    from hvabi.cli.assign import assignments, filled

    request = _request(codec, [item.removeprefix("request.") for item in values if item.startswith("request.")])
    tree = assignments([item for item in values if not item.startswith("request.")], codec.message.fields)
    _reject_absent(codec, tree)
    tree = filled(codec, tree, request)
    wire = _encode(codec, tree, request)
    if only_hex:
        console.say(wire.hex())
        return console.GOOD
    annotation = annotate(codec, Given(regs=wire.regs, mem=wire.mem), request=request)
    origins = _origins(codec, tree)
    abi = wanted.spec.abi
    if as_json:
        console.dump(
            {
                "abi": abi.id,
                "revision": abi.revision,
                "message": codec.message.name,
                "transport": codec.transport.name,
                "config": {key: f"{codec.static[key]:#x}" for key in abi.config},
                "from": origins,
                "regs": {name: f"{value:#x}" for name, value in wire.regs.items()},
                "mem": [[f"{at:#x}", data.hex()] for at, data in wire.mem],
                "body": wire.hex(),
                **rows.annotation_json(annotation),
            }
        )
        return console.GOOD
    width = console.width()
    made = f" by {codec.transport.instruction}" if codec.transport.instruction else ""
    console.say(heading(f"{abi.id}@{abi.revision} {codec.message.name}, transport {codec.transport.name}{made}"))
    shown = {
        row.path: origins.get(row.path.partition("[")[0].partition(".")[0], "") if row.depth == 0 else ""
        for row in annotation.rows
    }
    shown |= {row.path: "constant" for row in annotation.rows if row.kind == "fixed"}
    shown = {path: origin for path, origin in shown.items() if origin != "given"}
    for line in rows.lines(annotation, width, every=every, origins=shown):
        console.say(line)
    _wire(codec, wire, width, every=every)
    return console.GOOD


def _encode(codec: MessageCodec, tree: dict[str, Any], request: Any) -> Wire:
    from hvabi.abi.errors import CodecError

    try:
        return codec.encode(tree, request=request)
    except CodecError as error:
        lists = [name for name, field in codec.message.fields.items() if field.is_list and not tree.get(name)]
        if error.code == "value-too-large" and error.path not in tree and lists:
            error.hint = f"its default does not fit an empty list: give {lists[0]}[0]…=VALUE, or {error.path}=VALUE"
        raise


def _wire(codec: MessageCodec, wire: Wire, width: int, *, every: bool) -> None:
    from hvabi.cli import rows

    if wire.regs:
        console.say()
        console.say(heading("registers"))
        for line in wrap(" ".join(f"{name}={value:#x}" for name, value in wire.regs.items()), width, indent="  "):
            console.say(line)
    for at, data in wire.mem:
        console.say()
        console.say(heading(f"memory at {at:#x}, {len(data)} bytes"))
        for line in rows.hexdump(at, data, every=every):
            console.say(line)
    if wire.body:
        console.say()
        what = f"block {codec.body}" if codec.body else "the registers in order, 8 bytes each, little endian"
        console.say(heading(f"bytes of {what}"))
        console.say(wire.hex())


def _request(codec: MessageCodec, values: list[str]) -> Any:
    from hvabi.abi.errors import UsageError
    from hvabi.cli.assign import assignments, filled

    if codec.request is None:
        if values:
            raise UsageError(
                f"{codec.label} is no response", code="no-request", hint="request.FIELD=VALUE goes with a response"
            )
        return None
    tree = assignments(values, codec.request.message.fields)
    given = filled(codec.request, tree)
    # Only what the response depends on has to be known: for the rest of the request any value does.
    for name, item in codec.request.message.fields.items():
        if name not in given and not item.is_list and item.const is None and item.default is None:
            given.setdefault(name, 0)
    return codec.request.complete(given)


def _reject_absent(codec: MessageCodec, tree: dict[str, Any]) -> None:
    from hvabi.abi.errors import UsageError

    for name in tree:
        if codec.placer.place_of(name) is None:
            there = [key for key in codec.message.fields if codec.placer.place_of(key) is not None]
            raise UsageError(
                f"transport {codec.transport.name} has no place for {name}",
                code="no-place",
                hint=f"it has {', '.join(there)}",
            )


def _origins(codec: MessageCodec, tree: dict[str, Any]) -> dict[str, str]:
    return {
        name: "given" if name in tree else "constant" if field.const is not None else "default"
        for name, field in codec.message.fields.items()
        if codec.placer.place_of(name) is not None
    }
