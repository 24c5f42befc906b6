"""Specifications against headers: a header tree written by hand from the kernel's documents, and what is installed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from hvabi.abi.registry import abi_files
from hvabi.cli.main import cli
from hvabi.evidence.headers.check import compiler
from hvabi.evidence.headers.claims import read_claims

pytestmark = pytest.mark.skipif(compiler() is None, reason="there is no C compiler")

SEV_COMMON = """
#include <linux/bits.h>
#define GHCB_MSR_PSC_REQ 0x014
enum psc_op { SNP_PAGE_STATE_PRIVATE = 1, SNP_PAGE_STATE_SHARED, };
#define VMGEXIT_PSC_MAX_COUNT 253
#define VMGEXIT_PSC_ERROR_GENERIC (0x100UL << 32)
#define VMGEXIT_PSC_ERROR_INVALID_HDR ((1UL << 32) | 1)
#define VMGEXIT_PSC_ERROR_INVALID_ENTRY ((1UL << 32) | 2)
struct psc_hdr { u16 cur_entry; u16 end_entry; u32 reserved; } __packed;
struct psc_entry { u64 cur_page : 12, gfn : 40, operation : 4, pagesize : 1, reserved : 7; } __packed;
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A kernel tree with one header."""
    (tmp_path / "linux/include/uapi").mkdir(parents=True)
    header = tmp_path / "linux/arch/x86/include/asm/sev-common.h"
    header.parent.mkdir(parents=True)
    header.write_text(SEV_COMMON)
    return tmp_path / "linux"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A copy of one specification."""
    return Path(shutil.copy(abi_files()["ghcb-psc"], tmp_path / "ghcb-psc.yaml"))


def run(*words: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["layout-check", *words], env=env, prog_name="hvabi")
    return result.exit_code, result.output


def judge(tree: Path, spec: Path) -> tuple[int, dict[str, dict[str, object]]]:
    code, output = run("--headers", str(tree), "--spec", str(spec), "--json")
    return code, {str(item["symbol"]): item for item in json.loads(output)["findings"]}


def test_a_header_that_agrees(tree: Path, spec: Path) -> None:
    code, found = judge(tree, spec)
    assert code == 0
    assert {str(item["verdict"]) for item in found.values()} == {"same"}
    assert {"SNP_PAGE_STATE_SHARED", "VMGEXIT_PSC_MAX_COUNT", "struct psc_hdr", "end_entry", "gfn", "pagesize"} <= set(
        found
    )


@pytest.mark.parametrize(
    ("before", "after", "symbol", "stated", "there"),
    [
        ("PRIVATE: {value: 1,", "PRIVATE: {value: 3,", "SNP_PAGE_STATE_PRIVATE", 3, 1),
        ("PSC_MAX_COUNT: {value: 253,", "PSC_MAX_COUNT: {value: 254,", "VMGEXIT_PSC_MAX_COUNT", 254, 253),
        ("PSC_GENERIC: {value: 0x10000000000,", "PSC_GENERIC: {value: 0x10000000001,", "VMGEXIT_PSC_ERROR_GENERIC",
         0x10000000001, 0x10000000000),
        ("end_entry: {at: 2,", "end_entry: {at: 4,", "end_entry", 4, 2),
        ("gfn: {bits: [51, 12],", "gfn: {bits: [51, 13],", "gfn", 0xFFFFFFFFFE000, 0xFFFFFFFFFF000),
        ("  psc-header:\n    size: 8", "  psc-header:\n    size: 16", "struct psc_hdr", 16, 8),
    ],
    ids=["enumerator", "macro", "64-bit macro", "offset", "bit field", "size"],
)  # fmt: skip
def test_one_flipped_number_fails_at_its_line(
    tree: Path, spec: Path, before: str, after: str, symbol: str, stated: int, there: int
) -> None:
    text = spec.read_text()
    assert text.count(before) == 1
    spec.write_text(text.replace(before, after))
    code, found = judge(tree, spec)
    assert code == 1
    wrong = [item for item in found.values() if item["verdict"] != "same"]
    assert [item["symbol"] for item in wrong] == [symbol]
    assert (wrong[0]["specification"], wrong[0]["found"]) == (hex(stated), hex(there))
    line = int(str(wrong[0]["line"]))
    assert symbol in spec.read_text().splitlines()[line - 1]
    code, shown = run("--headers", str(tree), "--spec", str(spec))
    assert code == 1
    assert f"{spec}:{line}: " in shown
    assert symbol in shown


def test_a_header_that_does_not_compile_is_no_pass(tree: Path, spec: Path) -> None:
    header = tree / "arch/x86/include/asm/sev-common.h"
    header.write_text(header.read_text() + "\nint broken(struct nothing by_value) { return };\n")
    code, shown = run("--headers", str(tree), "--spec", str(spec))
    assert code == 1
    assert "cannot be judged" in shown


def test_a_member_of_another_version_is_absent(tree: Path, spec: Path) -> None:
    header = tree / "arch/x86/include/asm/sev-common.h"
    header.write_text(
        header.read_text().replace("u16 end_entry;", "u16 last; /* end_entry */").replace("u32 res", "u32 res")
    )
    header.write_text(header.read_text() + "struct other { int end_entry; };\n")
    code, output = run("--headers", str(tree), "--spec", str(spec), "--json")
    assert code == 0
    assert "end_entry" in {item["symbol"] for item in json.loads(output)["absent"]}


@pytest.mark.parametrize(
    ("env", "words", "why"),
    [({"CC": "no-such-compiler"}, [], "no C compiler"), ({}, ["--headers", "."], "has a header that is known")],
    ids=["no compiler", "no header there"],
)
def test_without_the_means(env: dict[str, str], words: list[str], why: str, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    code, shown = run(*[str(folder) if word == "." else word for word in words], env=env)
    assert code == 4
    assert why in shown


def test_what_is_installed_agrees() -> None:
    code, shown = run()
    assert code in (0, 4), shown


def test_a_compiler_that_cannot_run(tree: Path, spec: Path, tmp_path: Path) -> None:
    broken = tmp_path / "cc"
    broken.write_bytes(b"\x7fELF not at all")
    broken.chmod(0o755)
    code, shown = run("--headers", str(tree), "--spec", str(spec), env={"CC": str(broken)})
    assert code == 2
    assert "CC" in shown


def test_every_claim_has_a_line_that_names_its_symbol() -> None:
    claims, _ = read_claims(abi_files().values())
    lines = {path: Path(path).read_text().splitlines() for path in {claim.path for claim in claims}}
    assert claims
    assert all(claim.symbol in lines[claim.path][claim.line - 1] for claim in claims)
