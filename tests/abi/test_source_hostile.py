"""Hostile YAML costs bounded time and memory and never raises anything but SpecError."""

from __future__ import annotations

import contextlib
import random
import time
import tracemalloc

import pytest

from hvabi.abi.errors import SpecError
from hvabi.abi.source import MAX_BYTES, load_text

M = MAX_BYTES

LAUGHS = "a: &a [ha, ha, ha, ha, ha, ha, ha, ha, ha]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(12)
)

HOSTILE: dict[str, tuple[str, str | None]] = {
    "billion-laughs": (LAUGHS, "yaml-anchor"),
    "self-reference": ("&a [*a]", "yaml-anchor"),
    "open-lists": ("[" * M, "yaml-too-deep"),
    "open-mappings": ("{a: " * (M // 4), "yaml-too-deep"),
    "block-lists": ("- " * (M // 2), "yaml-too-deep"),
    "block-keys": ("? " * (M // 2), "yaml-complex-key"),
    "indented": ("".join(f"{' ' * level}a:\n" for level in range(1400)), "yaml-too-deep"),
    "many-values": ("[" + "a," * (M // 2 - 2) + "]", "yaml-too-many-nodes"),
    "many-keys": ("".join(f"k{i}: 1\n" for i in range(49_000)), None),
    "many-refused": ("[" + "y," * 90_000 + "]", "yaml-ambiguous-word"),
    "many-duplicates": ("a: 1\n" * 49_000, "yaml-duplicate-key"),
    "many-anchors": ("[" + "&a b," * 90_000 + "]", "yaml-anchor"),
    "many-aliases": ("[" + "*a," * 90_000 + "]", "yaml-alias"),
    "many-tag-directives": ("%TAG !a! b\n" * (M // 11), "yaml-directive"),
    "many-tag-directives-after": ("a: 1\n...\n" + "%TAG !a! b\n" * (M // 11 - 1), "yaml-directive"),
    "long-text": ("a: " + "b" * (M - 3), "yaml-scalar-too-long"),
    "long-text-in-lines": ("a: \n" + " b\n" * (M // 3 - 2), "yaml-scalar-too-long"),
    "long-literal": ("a: |\n" + " x\n" * (M // 3 - 2), "yaml-scalar-too-long"),
    "long-escapes": ('a: "' + "\\n" * (M // 2 - 3) + '"', "yaml-scalar-too-long"),
    "long-digits": ("a: " + "9" * 60_000, "yaml-integer-range"),
    "long-zeros": ("a: " + "0" * 60_000, "yaml-leading-zero"),
    "long-colons": ("a: 1" + ":1" * 30_000, "yaml-base-60"),
    "long-underscores": ("a: 1" + "_" * 60_000, "yaml-ambiguous-number"),
    "long-underscores-then-letter": ("a: 1" + "_" * 60_000 + "x", None),
    "long-fraction": ("a: 1." + "1" * 60_000 + "x", None),
    "long-date": ("a: 2001-1-1" + " " * 60_000 + "x", None),
    "long-key-over-many": ("? " + "k" * 60_000 + "\n: [" + "1," * 90_000 + "]", None),
    "tag-only": ("!" * M, "yaml-tag"),
    "anchor-only": ("&" * M, "yaml-syntax"),
    "colons": (":" * M, "yaml-scalar-too-long"),
    "quotes": ("'" * M, "yaml-scalar-too-long"),
    "comments": ("#\n" * (M // 2 - 4) + "a: 1", None),
    "line-ends": ("a: 1" + "\r\n" * (M // 2 - 4), None),
    "zeros": ("\0" * M, "yaml-control-character"),
    "escapes": ("\x1b" * M, "yaml-control-character"),
}


@pytest.mark.parametrize(("text", "first"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_text_ends_soon(text: str, first: str | None) -> None:
    assert len(text) <= M
    start = time.perf_counter()
    found = None
    shown = ""
    try:
        load_text(text)
    except SpecError as error:
        found, shown = error.diagnostics[0].id, str(error)
    assert time.perf_counter() - start < 5
    assert found == first
    assert len(shown) < 1_000_000


@pytest.mark.slow
@pytest.mark.parametrize("name", ["billion-laughs", "many-refused", "many-keys", "many-anchors", "long-key-over-many"])
def test_hostile_text_takes_bounded_memory(name: str) -> None:
    text = HOSTILE[name][0]
    tracemalloc.start()
    try:
        with contextlib.suppress(SpecError):
            load_text(text)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20


def test_seed_of_the_mutations_is_good() -> None:
    load_text(SEED)


SEED = b"""\
# \xc3\xa9
abi: x
bits: [51, 13]
'k': "a\\tb"
m: {a: 0x10, b: -1}
t: |
  x
  y
l:
- a: b
- true
"""
PIECES = [
    b"&a ",
    b"*a",
    b"!!x ",
    b"%",
    b"---\n",
    b"...\n",
    b"? ",
    b": ",
    b"<<: ",
    b"\t",
    b"\r",
    b"\0",
    b"\xff",
    b"\\u",
    b'"',
    b"'",
    b"[",
    b"}",
    b"| ",
    b">2-",
    b"\xe2\x80\xa8",
    b"off",
    b"1:2",
    b"#",
    b"@",
    b"\xef\xbb\xbf",
]


def mutate(rng: random.Random) -> bytes:
    data = bytearray(SEED)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(5):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del data[at : at + rng.randrange(1, 12)]
            case 2:
                data[at:at] = rng.choice(PIECES)
            case 3:
                other = rng.randrange(len(data) + 1)
                data[at:at] = data[other : other + rng.randrange(1, 20)]
            case 4:
                if at < len(data):
                    data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def test_ten_thousand_mutations_raise_nothing_but_spec_error() -> None:
    rng = random.Random(20261122)
    outcomes = {"read": 0, "refused": 0}
    for _ in range(10_000):
        data = mutate(rng)
        try:
            file = load_text(data, "m.yaml")
            outcomes["read"] += 1
            assert file.root is not None
        except SpecError as error:
            outcomes["refused"] += 1
            text = str(error)
            assert text.startswith("m.yaml")
            assert "\x1b" not in text
            assert "\0" not in text
    # Both ways must be well trodden, else the mutations are too mild or too wild.
    assert min(outcomes.values()) > 1000
