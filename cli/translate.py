"""``hvabi translate``: the request of one ABI said in another, and what is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from hvabi.abi.registry import Spec
    from hvabi.adapters.bridge import Bridge
    from hvabi.adapters.converse import Exchange
    from hvabi.adapters.losses import Loss
    from hvabi.adapters.values import HostAnswer

EPILOG = """\b
Examples:
  hvabi translate --from kvm-map-gpa-range --to tdx-map-gpa gpa=0x1f00e000 npages=1
  hvabi translate --from ghcb-psc --to common-convert entries[0].gfn=0x1f00e entries[0].operation=SHARED
  hvabi translate --from tdx-map-gpa --to pkvm-mem-share --losses

The fields are those of the request, as hvabi encode takes them. The host of the first ABI is asked; what it has to
convert, a guest of the second asks of a host of its own. Exit code 1 where the far host did not do all of it.
"""


@click.command(epilog=EPILOG)
@click.argument("values", metavar="FIELD=VALUE...", nargs=-1)
@click.option("--from", "near", metavar="ABI[@REV]", required=True, help="The ABI that the request is written in.")
@click.option("--to", "far", metavar="ABI[@REV]", required=True, help="The ABI to say it in.")
@click.option("--transport", "-t", metavar="T", help="How the request is made; the first of its ABI by default.")
@click.option("--to-transport", metavar="T", help="How the other is made; the first of its ABI by default.")
@click.option("--set", "config", metavar="KEY=NUMBER", multiple=True, help="Configuration of the ABI of the request.")
@click.option("--to-set", "far_config", metavar="KEY=NUMBER", multiple=True, help="Configuration of the other ABI.")
@click.option("--losses", "only_losses", is_flag=True, help="Only say what is lost; no request is needed.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def command(
    values: tuple[str, ...], near: str, far: str, transport: str | None, to_transport: str | None,
    config: tuple[str, ...], far_config: tuple[str, ...], *, only_losses: bool, as_json: bool,
) -> int:  # fmt: skip
    """Say a request of one ABI in another: the messages, and what is lost."""
    from hvabi.abi.registry import load
    from hvabi.adapters.losses import losses, powers
    from hvabi.cli.target import settings

    here, there = load(near), load(far)
    near_settings, far_settings = settings(config), settings(far_config)
    lost = losses(powers(here, transport, near_settings), powers(there, to_transport, far_settings))
    if only_losses:
        return _only_losses(here, there, lost, as_json=as_json)
    from hvabi.adapters.bridge import Bridge

    bridge = Bridge(
        here, there, near_transport=transport, far_transport=to_transport,
        near_config=near_settings, far_config=far_settings,
    )  # fmt: skip
    regs, text = _request(here, bridge, values)
    answer = bridge.near.answer(regs)
    if as_json:
        console.dump(_data(here, there, text, bridge, answer, lost))
    else:
        _show(here, there, text, bridge, answer, lost)
    return (
        console.GOOD
        if answer.end == "return" and answer.status is not None and answer.status.value == "done"
        else console.FOUND
    )


def _request(spec: Spec, bridge: Bridge, values: tuple[str, ...]) -> tuple[dict[str, int], str]:
    """Write the request into the near host's memory; return its registers and what it means."""
    from hvabi.abi.annotate import annotate
    from hvabi.abi.errors import UsageError
    from hvabi.abi.given import Given
    from hvabi.abi.meaning import meaning
    from hvabi.cli.assign import assignments, filled

    call = spec.abi.convert_call
    assert call is not None  # a bridge was made of it
    if not values:
        fields = ", ".join(spec.abi.messages[call.request].fields)
        raise UsageError("which request? no FIELD=VALUE is given", code="no-request", hint=f"its fields are {fields}")
    codec = spec.message(call.request, transport=bridge.near.transport.name, config=bridge.near.config)
    wire = codec.encode(filled(codec, assignments(values, codec.message.fields)))
    for gpa, data in wire.mem:
        bridge.near.memory.poke(gpa, data)
    annotation = annotate(codec, Given(regs=wire.regs, mem=wire.mem))
    return dict(wire.regs), meaning(spec.abi, codec, annotation)


def _meant(spec: Spec, bridge: Bridge, exchange: Exchange) -> str:
    from hvabi.abi.annotate import annotate
    from hvabi.abi.given import Given
    from hvabi.abi.meaning import meaning

    codec = bridge.far.guest.request
    return meaning(spec.abi, codec, annotate(codec, Given(regs=exchange.call.regs, mem=exchange.call.mem)))


def _words(regs: Any) -> str:
    return " ".join(f"{name}={value:#x}" for name, value in regs.items()) or "no register"


def _show(here: Spec, there: Spec, text: str, bridge: Bridge, answer: HostAnswer, lost: tuple[Loss, ...]) -> None:
    from hvabi.cli import rows
    from hvabi.cli.tables import heading, wrap

    width = console.width()
    console.say(heading(f"{here.id}@{here.abi.revision}") + f"  {text}")
    console.say()
    console.say(heading(f"{there.id}@{there.abi.revision}, {bridge.far.guest.transport.name}"))
    for number, exchange in enumerate(bridge.far.exchanges, 1):
        for line in wrap(f"call {number}: {_meant(there, bridge, exchange)}", width, indent="  "):
            console.say(line)
        for line in wrap(_words(exchange.call.regs), width, indent="    "):
            console.say(line)
        for at, data in exchange.call.mem:
            console.say(f"    memory at {at:#x}, {len(data)} bytes")
            for line in rows.hexdump(at, data):
                console.say(f"    {line}")
        ended = exchange.answer.end if exchange.answer.end != "return" else _words(exchange.answer.regs)
        console.say(f"    answer: {ended}")
    if not bridge.far.exchanges:
        console.say(
            "  no call: " + (f"the request breaks {answer.rule}" if answer.rule else "nothing is to be converted")
        )
    console.say()
    ended = answer.end if answer.end != "return" else _words(answer.regs)
    status = answer.status.value if answer.status is not None else answer.end
    console.say(heading(f"answer in {here.id}") + f"  {status}: {ended}")
    console.say()
    _show_losses(lost)


def _show_losses(lost: tuple[Loss, ...]) -> None:
    from hvabi.adapters.losses import LOSSES
    from hvabi.cli.tables import heading, table

    if not lost:
        console.say("nothing is lost")
        return
    console.say(heading("what is lost"))
    for line in table(
        [(loss.name, f"{LOSSES[loss.name]} ({loss.detail})") for loss in lost], console.width(), indent="  "
    ):
        console.say(line)


def _only_losses(here: Spec, there: Spec, lost: tuple[Loss, ...], *, as_json: bool) -> int:
    if as_json:
        console.dump({"from": here.id, "to": there.id, "losses": _loss_data(lost)})
    else:
        _show_losses(lost)
    return console.GOOD


def _loss_data(lost: tuple[Loss, ...]) -> list[dict[str, str]]:
    from hvabi.adapters.losses import LOSSES

    return [{"name": loss.name, "means": LOSSES[loss.name], "detail": loss.detail} for loss in lost]


def _wire(regs: Any, mem: Any) -> dict[str, Any]:
    return {
        "regs": {name: f"{value:#x}" for name, value in regs.items()},
        "mem": [[f"{at:#x}", data.hex()] for at, data in mem],
    }


def _data(
    here: Spec, there: Spec, text: str, bridge: Bridge, answer: HostAnswer, lost: tuple[Loss, ...]
) -> dict[str, Any]:
    return {
        "from": {"abi": here.id, "revision": here.abi.revision, "meaning": text},
        "to": {
            "abi": there.id, "revision": there.abi.revision, "transport": bridge.far.guest.transport.name,
            "calls": [
                {
                    "meaning": _meant(there, bridge, item), "request": _wire(item.call.regs, item.call.mem),
                    "answer": {"end": item.answer.end, **_wire(item.answer.regs, item.answer.mem)},
                }
                for item in bridge.far.exchanges
            ],
        },
        "answer": {
            "end": answer.end, "status": answer.status.value if answer.status is not None else None,
            "rule": answer.rule, **_wire(answer.regs, answer.mem),
        },
        "losses": _loss_data(lost),
    }  # fmt: skip
