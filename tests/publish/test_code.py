"""``hvabi gen``: what it writes compiles without a warning and says what the codecs say, in both directions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from hvabi.abi.codec import LayoutCodec
from hvabi.abi.model import RegisterPlace
from hvabi.abi.registry import abi_ids, bundled, load, read_abi
from hvabi.abi.wire import WireSource
from hvabi.cli.main import cli
from hvabi.publish.code import c_comment, c_number, code, code_of, write_code
from hvabi.publish.code_parts import CodeError, layout_group
from hvabi.publish.folder import FolderError
from tests.publish import code_driver
from tests.publish.code_driver import build_c, build_rust, layouts_of, readable, registers_of, run

if TYPE_CHECKING:
    from hvabi.abi.specification import Abi
    from hvabi.publish.code_parts import Group

ALL = (1 << 64) - 1
SHAPES = Path(__file__).parent.parent / "data" / "shapes.yaml"
"""A specification of nothing: shapes of layouts and names that no bundled one has."""
C = [pytest.param(("gcc", "c99"), id="gcc-c99"), pytest.param(("gcc", "gnu11"), id="gcc-gnu11"),
     pytest.param(("clang", "c99"), id="clang-c99")]  # fmt: skip
KINDS = [*C, pytest.param(("rustc", ""), id="rust")]


@cache
def abis() -> tuple[Abi, ...]:
    return (*map(bundled, abi_ids()), read_abi(SHAPES))


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    return {}


@pytest.fixture(params=KINDS)
def program(
    request: pytest.FixtureRequest, programs: dict[tuple[str, str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    compiler, standard = request.param
    if request.param not in programs:
        folder = tmp_path_factory.mktemp("code")
        build = build_rust(tool(compiler), abis(), folder) if compiler == "rustc" else build_c(
            tool(compiler), standard, abis(), folder)  # fmt: skip
        programs[request.param] = build
    return programs[request.param]


# -- against the codecs -------------------------------------------------------------------------------------------


def inputs(abi: Abi, name: str) -> list[bytes]:
    """The raw examples, every edge, each bit of a small layout alone, and random bytes."""
    layout = abi.layouts[name]
    size, rng = layout.size, Random(f"{abi.id}/{name}")
    found = [bytes.fromhex(item.data["raw"]) for item in abi.examples
             if item.data.get("layout") == name and len(item.data["raw"]) == size * 2]  # fmt: skip
    found += [bytes(size), b"\xff" * size, b"\x80" * size, bytes([*range(256)] * (size // 256 + 1))[:size]]
    found += [(1 << bit).to_bytes(size, "little") for bit in range(size * 8)] if size <= 17 else []
    return found + [rng.randbytes(size) for _ in range(12 if size <= 256 else 3)]


def plain(codec: LayoutCodec, raw: bytes) -> dict[str, int]:
    """Each field as the codec reads it; a word in it as the number that is there, gaps and all."""
    value = codec.decode(raw)
    found = {}
    for name, item in codec.layout.fields.items():
        whole = int.from_bytes(raw[item.at : item.at + item.size], codec.layout.endian)
        found[name] = whole >> item.lo & (1 << item.bits) - 1 if item.word else int(getattr(value, name))
    return found


def answer(abi: Abi, name: str, raw: bytes, *, rust: bool) -> list[str]:
    """What a program must say to bytes of a layout: fields, and bits beside the fields inverted."""
    codec = LayoutCodec(abi.layouts[name])
    values = plain(codec, raw)
    ones = {key: -1 if item.signed else (1 << item.bits) - 1 for key, item in codec.layout.fields.items()
            if item.bits <= 128}  # fmt: skip
    covered = codec.encode({**dict.fromkeys(codec.layout.fields, 0), **ones})
    written = bytes(b & m | ~b & 0xFF & ~m for b, m in zip(raw, covered, strict=True)).hex()
    group = layout_group(abi.layouts[name])
    words = []
    for slot in readable(group):
        width = 128 if slot.bits > 64 else 64
        number = values[slot.name] & (1 << width) - 1
        words.append(f"{number:x}" if rust or width == 64 else f"{number >> 64:x}{number & (1 << 64) - 1:016x}")
    return [*words, written, *words, written] if group.word else [*words, written]


@cache
def questions(rust: bool) -> list[tuple[str, str, list[str]]]:
    return [
        (f"{abi.id} {group.name}", f"l {number} {raw.hex()}", answer(abi, group.name, raw, rust=rust))
        for number, (abi, group) in enumerate(layouts_of(abis()))
        for raw in inputs(abi, group.name)
    ]


def test_layouts_are_read_and_written_as_the_codecs_do(program: Path) -> None:
    asked = questions(program.name == "driver-rust")
    said = run([str(program)], program.parent, "\n".join(line for _, line, _ in asked) + "\n").splitlines()
    assert len(said) == len(asked) > 1500
    for line, (where, question, words) in zip(said, asked, strict=True):
        assert line.split() == words, f"{where} {question[:80]}"


def register_values(abi: Abi, group: Group, word: int) -> dict[str, int]:
    """The fields that the codecs of all revisions find where every register is `word`."""
    found: dict[str, int] = {}
    for revision in abi.revisions:
        spec = load(abi.id, revision=revision)
        for transport in spec.abi.transports.values():
            for name, placement in transport.placements.items():
                if f"{transport.name}_{name}" != group.name:
                    continue
                codec = spec.message(name, transport=transport.name)
                fields, _ = codec.reader(WireSource(dict.fromkeys(codec.placer.registers, word), (), message=""))
                found |= {key: int(fields[key]) for key, places in placement.place.items()
                          if isinstance(places[0], RegisterPlace) and not spec.abi.messages[name].fields[key].word
                          and not spec.abi.messages[name].fields[key].is_list}  # fmt: skip
    return found


def test_registers_are_read_and_written_as_the_codecs_do(program: Path) -> None:
    rng = Random(1)
    groups = [(number, abi, group) for number, (abi, group) in enumerate(registers_of(abis())) if abi.id != "shapes"]
    words = [0, ALL, rng.getrandbits(64), rng.getrandbits(64), 0x123456789ABCDEF0]
    asked = [(number, abi, group, word) for number, abi, group in groups for word in words]
    said = run([str(program)], program.parent, "".join(f"r {n} {word:016x}\n" for n, _, _, word in asked)).splitlines()
    assert len(said) == len(asked)
    compared = 0
    for line, (_, abi, group, word) in zip(said, asked, strict=True):
        values = register_values(abi, group, word)
        numbers = [int(item, 16) for item in line.split()]
        for slot, got, put in zip([s for s in group.slots if s.bits < 64], numbers[::2], numbers[1::2], strict=True):
            where = f"{abi.id} {group.name} {slot.name} of {word:#x}"
            if slot.name in values:
                assert got == values[slot.name] & ALL, where
                compared += 1
            mask = (ALL if slot.extend else (1 << slot.bits) - 1) << slot.shift & ALL
            assert put == got << slot.shift & mask | ~word & ~mask & ALL, where
    assert compared > 200


def test_golden_bytes(program: Path) -> None:
    """By hand: an entry of the page state change structure, the GHCB MSR's request, a big-endian block."""
    found = {(abi.id, group.name): f"l {number}" for number, (abi, group) in enumerate(layouts_of(abis()))}
    found |= {(abi.id, group.name): f"r {number}" for number, (abi, group) in enumerate(registers_of(abis()))}
    asked = [
        f"{found['ghcb-psc', 'psc-entry']} 0001008000002001",
        f"{found['ghcb-msr-psc', 'vmgexit-msr_request']} 0020000000001014",
        f"{found['s390-uv-share', 'uv-cb-share']} {'0030100000010000' + '00' * 24 + '0000000012345000' + '00' * 8}",
    ]
    entry, msr, block = (line.split() for line in run([str(program)], program.parent, "\n".join(asked)).splitlines())
    assert entry[:5] == ["100", "80000", "2", "1", "0"]
    assert msr[0::2] == ["14", "1", "2", "0"]
    assert block[:4] == ["30", "1000", "1", "0"]
    assert "12345000" in block


@pytest.mark.parametrize(
    ("compiler", "standard"), [("gcc", "c99"), ("gcc", "gnu11"), ("clang", "c99"), ("clang", "gnu11")]
)
def test_headers_compile_for_a_kernel(compiler: str, standard: str, tmp_path: Path) -> None:
    """Alone and all together, freestanding, without any header of the C library."""
    linux = tmp_path / "linux"
    linux.mkdir()
    (linux / "types.h").write_text(
        "#pragma once\n"
        "typedef unsigned char uint8_t;\ntypedef unsigned short uint16_t;\ntypedef unsigned int uint32_t;\n"
        "typedef __UINT64_TYPE__ uint64_t;\ntypedef __INT64_TYPE__ int64_t;\n"
    )
    for abi in abis():
        (tmp_path / f"{abi.id}.h").write_text(code_of(abi, "c"))
    (tmp_path / "all.c").write_text("".join(f'#include "{abi.id}.h"\n' * 2 for abi in abis()))
    flags = [*code_driver.C_FLAGS, "-Wconversion", "-Wundef", "-ffreestanding", "-nostdinc", "-D__KERNEL__", "-I."]
    run([tool(compiler), f"-std={standard}", *flags, "-c", "all.c", "-o", "all.o"], tmp_path)


def test_a_wrong_bit_is_found(program: Path) -> None:
    """The comparison above fails for a program with one shift wrong."""
    folder = program.parent
    rust = program.name == "driver-rust"
    path = folder / ("ghcb_psc.rs" if rust else "hvabi_ghcb_psc.h")
    if rust or program != folder / "driver-c":
        pytest.skip("one language shows it")
    good = path.read_text()
    bad = good.replace("(uint64_t)p[2] << 4)", "(uint64_t)p[2] << 5)", 1)
    assert bad != good
    path.write_text(bad)
    try:
        run(["cc" if shutil.which("cc") else "gcc", "-I.", "driver.c", "-o", "liar"], folder)
    finally:
        path.write_text(good)
    number = next(
        n for n, (abi, group) in enumerate(layouts_of(abis())) if (abi.id, group.name) == ("ghcb-psc", "psc-entry")
    )
    raw = bytes.fromhex("0080011f00001000")
    said = run([str(folder / "liar")], folder, f"l {number} {raw.hex()}\n").split()
    assert said != answer(bundled("ghcb-psc"), "psc-entry", raw, rust=False)


# -- texts and names ----------------------------------------------------------------------------------------------


def test_nothing_in_a_text_ends_a_comment() -> None:
    assert c_comment("arch/*/kvm */ int x; /* ??/") == "/* arch/ * /kvm * / int x; / * ? ?/ */"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0x0U"), (0xFFFFFFFF, "0xffffffffU"), (1 << 32, "0x100000000ULL"), (-22, "(-22LL)"),
     (-(1 << 63), "(-9223372036854775807LL - 1)"), ((1 << 64) - 1, "0xffffffffffffffffULL")],
)  # fmt: skip
def test_numbers_of_c(value: int, text: str) -> None:
    assert c_number(value) == text


def test_two_things_with_one_name_in_c_are_an_error() -> None:
    abi = bundled("ghcb-psc")
    first = abi.constants["PSC_HEADER"]
    with pytest.raises(CodeError, match="HVABI_GHCB_PSC_PSC_HEADER would be two things") as caught:
        code_of(replace(abi, constants={"PSC_HEADER": first, "psc-header": replace(first, name="psc-header")}), "c")
    assert caught.value.code == "gen"


# -- the folder ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["c", "rust"])
def test_the_same_bytes_again(language: Any, tmp_path: Path) -> None:
    write_code(tmp_path / "one", ["ghcb-psc", "s390-uv-share"], language)
    sizes = write_code(tmp_path / "one", ["ghcb-psc", "s390-uv-share"], language)
    assert {name: len(data) for name, data in code(["ghcb-psc", "s390-uv-share"], language).items()} == sizes
    for name, data in code(["ghcb-psc", "s390-uv-share"], language).items():
        assert (tmp_path / "one" / name).read_bytes() == data
        assert b"SPDX-License-Identifier: MIT OR GPL-2.0" in data.splitlines()[0]


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.c").write_text("int x;")
    with pytest.raises(FolderError, match=r"not ours: mine\.c"):
        write_code(tmp_path, ["ghcb-psc"], "c")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.c"]


def test_the_command(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["gen", "c", "-o", str(tmp_path / "c"), "--json", "tdx-map-gpa"])
    assert done.exit_code == 0
    assert list(json.loads(done.output)["files"]) == ["hvabi_tdx_map_gpa.h"]
    assert CliRunner().invoke(cli, ["gen", "c", "-o", str(tmp_path / "c"), "tdx-map-gap"]).exit_code == 2
    assert CliRunner().invoke(cli, ["gen", "ada", "-o", str(tmp_path / "c")]).exit_code == 2
