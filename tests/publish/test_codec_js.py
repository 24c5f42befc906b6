"""The encoder and decoder of the pages against the Python codecs: every example, and random, edge and wrong input."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import CodecError, ExprError, HvAbiError
from hvabi.abi.expr import evaluate, parse
from hvabi.abi.meaning import meaning
from hvabi.abi.registry import Spec, abi_ids, bundled
from hvabi.abi.wire import Wire, merge, register_bits
from hvabi.publish.codec_model import codec_model, tree
from hvabi.publish.samples import samples
from hvabi.publish.trimmed import trimmed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Field, Layout

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed: the JavaScript codec cannot be run")

HARNESS = Path(__file__).parent / "codec_harness.js"
ROUNDS = 12
"""Random values and wires for each message on each transport."""

Case = tuple[dict[str, Any], dict[str, Any]]
"""A command for the page's codec, and what the Python codec answers."""


@cache
def model_of(abi: str) -> dict[str, Any]:
    return codec_model(trimmed(bundled(abi)), samples(bundled(abi)))


def ask(abi: str, commands: list[dict[str, Any]], broken: Path | None = None) -> list[dict[str, Any]]:
    """Return what the page's codec answers, or a broken one in its place."""
    lines = [json.dumps({"op": "model", "model": model_of(abi)}), *map(json.dumps, commands)]
    assert NODE is not None
    with as_file(files("hvabi.publish").joinpath("templates", "codec.js")) as script:
        done = subprocess.run(
            [NODE, str(HARNESS), str(broken or script)],
            input="\n".join(lines) + "\n",
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()[1:]]


def shown(value: Any) -> Any:
    """Return a decoded value as the page's codec shows it: integers as text."""
    if hasattr(value, "_fields"):
        return {name: shown(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, (tuple, list)):
        return [shown(item) for item in value]
    return hexed(int(value))


def hexed(value: int) -> str:
    return f"{value:#x}" if value >= 0 else f"-{-value:#x}"


def sent(value: Any) -> Any:
    """Return a value to be encoded as the harness takes it."""
    if isinstance(value, dict):
        return {key: sent(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [sent(item) for item in value]
    return hexed(value) if isinstance(value, int) else f"={value}"


def wire_of(wire: Wire) -> dict[str, Any]:
    return {"regs": {name: hexed(value) for name, value in wire.regs.items()},
            "mem": [[f"{at:#x}", data.hex()] for at, data in wire.mem]}  # fmt: skip


def python_decode(codec: MessageCodec, wire: Wire | bytes, request: Any = None) -> dict[str, Any]:
    try:
        value = codec.decode(wire, request=request)
    except (CodecError, ExprError) as error:
        return {"error": error.code, "path": getattr(error, "path", "")}
    return {"value": shown(value)}


def python_encode(codec: MessageCodec, value: dict[str, Any], request: Any = None) -> dict[str, Any]:
    try:
        wire = codec.encode(value, request=request)
    except (CodecError, ExprError) as error:
        return {"error": error.code, "path": getattr(error, "path", "")}
    return {**wire_of(wire), "body": bytes(wire).hex()}


def agree(found: dict[str, Any], wanted: dict[str, Any], command: dict[str, Any]) -> None:
    if "error" in wanted and wanted["error"].startswith("expr-"):
        assert found.get("error") == wanted["error"], (command, found, wanted)
    elif "error" in wanted:
        assert (found.get("error"), found.get("path")) == (wanted["error"], wanted["path"]), (command, found, wanted)
    else:
        found = {key: item for key, item in found.items() if key in wanted}
        assert found == wanted, (command, found, wanted)


def run(abi: str, cases: list[Case]) -> int:
    answers = ask(abi, [command for command, _ in cases])
    assert len(answers) == len(cases)
    for (command, wanted), found in zip(cases, answers, strict=True):
        agree(found, wanted, command)
    return len(cases)


# -- the examples -----------------------------------------------------------------------------------------------


def example_cases(abi: str) -> Iterator[Case]:
    whole = bundled(abi)
    for example, sample in zip(whole.examples, samples(whole), strict=True):
        data = example.data
        spec = Spec(whole.resolve(revision=data.get("revision"), profile=data.get("profile", "spec")))
        if "layout" in data:
            word = spec.layout(data["layout"]).decode(bytes.fromhex(data["raw"]))
            common = {"layout": data["layout"]}
            yield {"op": "layout-decode", "hex": data["raw"], **common}, {"value": shown(word)}
            yield {"op": "layout-encode", "value": sent(data["value"]), **common}, {"hex": data["raw"]}
            continue
        call = spec.abi.calls[data["call"]] if "call" in data else next(iter(spec.abi.calls.values()))
        config = data.get("config", {})
        setting = {"revision": spec.abi.revision, "profile": spec.abi.profile, "transport": sample.load["transport"],
                   "config": sent(config)}  # fmt: skip
        request = spec.message(call.request, transport=sample.load["transport"], config=config)
        given = data.get("request", {})
        wire = request.encode(given)
        if "regs" in data:
            assert dict(wire.regs) == data["regs"]
        wanted = {**python_encode(request, given)}
        yield {"op": "encode", "message": call.request, "value": sent(given), **setting}, wanted
        mem = merge([*wire.mem, *((at, bytes.fromhex(text)) for at, text in data.get("mem", ()))])
        arrived = Wire(regs={**wire.regs, **data.get("regs", {})}, mem=mem)
        value = request.decode(arrived)
        yield {"op": "decode", "message": call.request, "wire": wire_of(arrived), **setting}, {"value": shown(value)}
        answer = data.get("answer", {})
        if call.response is not None and "response" in data:
            codec = spec.message(call.response, transport=sample.load["transport"], config=config)
            pieces = ((at, bytes.fromhex(text)) for at, text in answer.get("mem", ()))
            after = Wire(regs={**arrived.regs, **answer.get("regs", {})}, mem=merge([*mem, *pieces]))
            command = {"op": "decode", "message": call.response, "wire": wire_of(after), **setting}
            command |= {"request": wire_of(arrived), "asked": call.request} if codec.request is not None else {}
            yield command, python_decode(codec, after, value)


@pytest.mark.parametrize("abi", abi_ids())
def test_every_example(abi: str) -> None:
    assert run(abi, list(example_cases(abi))) >= len(bundled(abi).examples)


# -- random, edges, wrong input -----------------------------------------------------------------------------------

Rng = random.Random


def number(rng: Rng, bits: int, *, signed: bool = False) -> int:
    edge = (1 << bits) - 1
    value = rng.choice([0, 1, edge, edge >> 1, 1 << (bits - 1), rng.getrandbits(bits), rng.getrandbits(min(bits, 8))])
    return value - (1 << bits) if signed and value >> (bits - 1) else value


def field_value(rng: Rng, item: Field) -> Any:
    if item.is_list:
        count = rng.choice([0, 1, 1, 2, 3])
        if item.items is not None:
            return [layout_value(rng, item.items) for _ in range(count)]
        return [number(rng, item.bits) for _ in range(count)]
    if item.word is not None:
        return rng.choice([layout_value(rng, item.word), number(rng, item.bits)])
    if item.enum is not None and rng.random() < 0.4:
        return rng.choice(list(item.enum.values))
    return number(rng, item.bits, signed=item.signed)


def layout_value(rng: Rng, layout: Layout) -> dict[str, Any]:
    return {name: field_value(rng, item) for name, item in layout.fields.items() if rng.random() < 0.7}


def wrong(rng: Rng, codec: MessageCodec, value: dict[str, Any]) -> dict[str, Any]:
    """Return a value with one thing wrong in it."""
    names = list(codec.fields)
    name = rng.choice(names)
    item = codec.message.fields[name]
    numbers = [1 << item.bits, -1, -(1 << item.bits)]
    bad: list[Any] = [*numbers, "NOBODY", "__proto__", [1], {"constructor": 1}, {"gfn": 1 << 70}]
    return rng.choice([{**value, name: rng.choice(bad)}, {**value, "nothing_like_it": 1}])


def random_cases(abi: str, revision: str, seed: int) -> Iterator[Case]:
    rng = Rng(f"{abi} {revision} {seed}")
    spec = Spec(bundled(abi).resolve(revision=revision))
    for transport in spec.abi.transports.values():
        for name in transport.placements:
            codec = spec.message(name, transport=transport.name)
            setting = {"message": name, "transport": transport.name, "revision": revision, "profile": "spec"}
            for _ in range(ROUNDS):
                yield from one_round(rng, codec, setting)


def one_round(rng: Rng, codec: MessageCodec, setting: dict[str, Any]) -> Iterator[Case]:
    request: Any = None
    base: dict[str, Any] = {}
    if codec.request is not None:
        own = {key: field_value(rng, item) for key, item in codec.request.message.fields.items() if easy(rng, item)}
        try:
            around = codec.request.encode(own)
            request = codec.request.decode(around)
        except HvAbiError:
            return
        base = {"request": wire_of(around)}
    value = {key: field_value(rng, item) for key, item in codec.message.fields.items() if easy(rng, item)}
    yield {"op": "encode", "value": sent(value), **setting, **base}, python_encode(codec, value, request)
    bad = wrong(rng, codec, value)
    yield {"op": "encode", "value": sent(bad), **setting, **base}, python_encode(codec, bad, request)
    regs = {register: number(rng, register_bits(register)) for register in codec.placer.registers if rng.random() < 0.8}
    loose = Wire(regs=regs, mem=((rng.choice([0, 0x1000, 0x1800]), rng.randbytes(rng.choice([0, 8, 64, 4096]))),))
    yield {"op": "decode", "wire": wire_of(loose), **setting, **base}, python_decode(codec, loose, request)
    body = rng.randbytes(rng.choice([0, 1, 8, 16, 24, 48, 100]))
    if codec.body is not None or codec.placer.registers:
        yield {"op": "decode", "wire": {"body": body.hex()}, **setting, **base}, python_decode(codec, body, request)
    try:
        wire = codec.encode(value, request=request)
    except HvAbiError:
        return
    for arrived in (wire, shaken(rng, wire)):
        yield {"op": "decode", "wire": wire_of(arrived), **setting, **base}, python_decode(codec, arrived, request)


def easy(rng: Rng, item: Field) -> bool:
    """Whether a field is given: constants and defaults seldom, so that most messages are whole."""
    optional = item.const is not None or item.default is not None or item.reserved is not None
    return rng.random() < (0.15 if optional else 0.95)


def shaken(rng: Rng, wire: Wire) -> Wire:
    """Return a wire with one register or byte changed, or a piece of memory cut short."""
    regs, mem = dict(wire.regs), list(wire.mem)
    if regs and rng.random() < 0.5:
        name = rng.choice(list(regs))
        regs[name] ^= 1 << rng.randrange(register_bits(name))
    elif mem:
        at, data = mem[0]
        if rng.random() < 0.5:
            mem[0] = at, data[: rng.randrange(len(data))]
        else:
            spot = rng.randrange(len(data))
            mem[0] = at, data[:spot] + bytes([data[spot] ^ 1 << rng.randrange(8)]) + data[spot + 1 :]
    return Wire(regs=regs, mem=tuple(mem))


@pytest.mark.parametrize("abi", abi_ids())
def test_random_values_and_wires(abi: str) -> None:
    cases = [case for revision in bundled(abi).revisions for case in random_cases(abi, revision, 1)]
    run(abi, cases)
    assert any("error" in wanted for _, wanted in cases)
    assert any("value" in wanted for _, wanted in cases)
    assert any("regs" in wanted for _, wanted in cases)


@pytest.mark.parametrize("abi", abi_ids())
def test_meaning_of_the_examples(abi: str) -> None:
    from hvabi.abi.annotate import annotate
    from hvabi.abi.given import Given

    whole = bundled(abi)
    cases = []
    for example, sample in zip(whole.examples, samples(whole), strict=True):
        load = sample.load
        if "layout" in load:
            continue
        spec = Spec(whole.resolve(revision=load["revision"], profile=load["profile"]))
        call = next(call for call in spec.abi.calls.values() if call.request == load["message"])
        config = {key: int(value, 0) for key, value in load["config"].items()}
        codec = spec.message(load["message"], transport=load["transport"], config=config)
        wire = Wire(regs={name: int(value, 0) for name, value in load["regs"].items()},
                    mem=tuple((int(at, 0), bytes.fromhex(text)) for at, text in load["mem"]))  # fmt: skip
        if call.convert is None and call.query is None:
            continue
        said = meaning(spec.abi, codec, annotate(codec, Given(regs=wire.regs, mem=wire.mem)))
        if call.handle is not None and call.handle.does != "open":
            said = ""  # what is kept under a handle, no request says
        setting = {key: load[key] for key in ("message", "transport", "revision", "profile")}
        command = {"op": "decode", "config": sent(config), "wire": wire_of(wire), **setting}
        cases.append((command, said, example.name))
    answers = ask(abi, [command for command, _, _ in cases])
    for (_, said, name), found in zip(cases, answers, strict=True):
        if not said.startswith("no element to do"):
            assert found["meaning"] == said, name


# -- expressions --------------------------------------------------------------------------------------------------

EXPRESSIONS = """
    a + b; a - b; a * b; a // b; a % b; a & b; a | b; -a; not a; a << 3; a >> 3; a << b; a >> b
    a == b; a != b; a < b; a <= b; a > b; a >= b; a and b; a or b; a in [1, b, 3]; a not in l
    min(a, b); max(a, b, 7); min(l); max(l); sum(l); all(l); any(l); len(l); min([]); sum(x * x for x in l)
    any(x == a for x in l); all(x > 0 for x in l); l[1]; l[a]; o.f; o.g; o[0]; l.f; sum(e.f for e in m); m[0].f; a.b
    nobody; (a + b) // 4096; -a % 4096; (a > b) + (a < b) * 2; sum(sum(x for x in l) for y in l); 1 << (a * 100)
    sum(x for x in a); len(a); l + 1; not l; true + 1; a and nobody; 0 and nobody; 1 or nobody
"""


def expression_cases() -> list[Case]:
    rng = Rng("expressions")
    cases: list[Case] = []
    for text in re.split(r"[;\n]", EXPRESSIONS.strip()):
        expr = parse(text)
        for _ in range(12):
            a, b = (number(rng, rng.choice([3, 8, 64, 70]), signed=rng.random() < 0.5) for _ in range(2))
            env: dict[str, Any] = {"a": a, "b": b, "l": [number(rng, 8) for _ in range(rng.choice([0, 1, 3]))],
                                   "o": {"f": 5}, "m": [{"f": 1}, {"f": a}]}  # fmt: skip
            wanted: dict[str, Any]
            try:
                wanted = {"value": shown(evaluate(expr, env))}
            except ExprError as error:
                wanted = {"error": error.code}
            cases.append(({"op": "expr", "tree": tree(expr), "env": sent(env)}, wanted))
    return cases


def test_expressions() -> None:
    cases = expression_cases()
    run("tdx-map-gpa", cases)
    assert len({wanted["error"] for _, wanted in cases if "error" in wanted}) >= 7
    assert sum("value" in wanted for _, wanted in cases) > 400


# -- proof by liars -----------------------------------------------------------------------------------------------

BROKEN = {
    "division rounds to zero": ("? q - 1n : q;", "? q : q;"),
    "bytes the wrong way round": ('out[endian === "little" ? n', 'out[endian !== "little" ? n'),
    "signs are lost": ("1n << BigInt(field.bits);\n      return field.word", "0n;\n      return field.word"),
    "a list starts where its block does": ("const offset = this.int(place.at, scope), step", "const offset = 0n, step"),
    "pairs are swapped": ("(high & mask(32)) << 32n | low", "(low & mask(32)) << 32n | high"),
    "the revision is ignored": ("item.revisions.includes(this.revision)", "true"),
    "too much is let through": ("if (value < low || value >= high)", "if (value < low)"),
    "memory may end early": ('if (!piece) fail("truncated"', 'if (!piece) return out; if (!piece) fail("truncated"'),
    "defaults are 0": ("const value = tree ? this.int(tree, scope) : 0n;", "const value = 0n;"),
    "other messages are taken": ("if (value[field.name] !== expected)", "if (false)"),
    "another call is taken": ("wire.regs[register] !== expected", "false"),
    "what is behind is not seen": ("if (wire.body.length > size)", "if (false)"),
}  # fmt: skip
"""Ways to break the codec of the page: text of it, and what stands there instead."""


@cache
def many_cases(abi: str) -> tuple[Case, ...]:
    revisions = bundled(abi).revisions
    random_ones = [case for revision in revisions for case in random_cases(abi, revision, 2)]
    return (*example_cases(abi), *random_ones, *(expression_cases() if abi == "ghcb-psc" else []))


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_codec_is_caught(what: str, tmp_path: Path) -> None:
    old, new = BROKEN[what]
    whole = files("hvabi.publish").joinpath("templates", "codec.js").read_text()
    assert whole.count(old) >= 1
    script = tmp_path / "codec.js"
    script.write_text(whole.replace(old, new))
    assert any(caught(abi, script) for abi in ("ghcb-psc", "hyperv-host-visibility", "s390-uv-share", "ffa-mem-share"))


def caught(abi: str, script: Path) -> bool:
    """Whether the cases of an ABI show that a codec is broken."""
    cases = many_cases(abi)
    answers = ask(abi, [command for command, _ in cases], script)
    try:
        for (command, wanted), found in zip(cases, answers, strict=True):
            agree(found, wanted, command)
    except AssertionError:
        return True
    return False


def test_names_of_values_are_those_of_the_specification() -> None:
    """Names of values come from the enums of the model, which are those of the specification."""
    for abi in abi_ids():
        model = model_of(abi)
        for name, enum in trimmed(bundled(abi)).enums.items():
            assert {key: int(value, 0) for key, value in model["enums"][name]["values"].items()} == {
                value.name: value.value for value in enum.values.values()
            }
