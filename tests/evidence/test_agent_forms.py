"""The agent's logic in every form, without the machine: a program whose calls the bundled host adapter answers.

The host below keeps its state from case to case, as a real one does, so the agent itself has to bring about what a case
begins with, and to put back what it left.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hvabi.cli.main import cli

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
AGENT = ROOT / "examples/agent"

CASES = [
    pytest.param("x86", "tdx", "tdx-map-gpa", "ghci-1.5", "tdcall", 90, id="tdx"),
    pytest.param("x86", "tdx", "kvm-map-gpa-range", "v1", "tdvmcall", 60, id="tdx-kvm", marks=pytest.mark.slow),
    pytest.param("x86", "snp", "ghcb-msr-psc", "ghcb-2", "vmgexit-msr", 28, id="snp-msr"),
    pytest.param("x86", "snp", "ghcb-psc", "ghcb-2", "vmgexit", 170, id="snp", marks=pytest.mark.slow),
    pytest.param("x86", "snp", "kvm-map-gpa-range", "v1", "ghcb-vmmcall", 130, id="snp-kvm", marks=pytest.mark.slow),
    pytest.param("arm64", "hvc", "pkvm-mem-share", "upstream", "hvc", 65, id="pkvm"),
    pytest.param("arm64", "hvc", "pkvm-mem-share", "android", "hvc", 60, id="pkvm-android", marks=pytest.mark.slow),
    pytest.param("arm64", "cca", "cca-ipa-state", "rmm-1.1", "smc", 115, id="cca", marks=pytest.mark.slow),
]
"""Machine, form, ABI, revision, transport, and how many cases at least are run to their end."""
LEFT_OUT = re.compile(
    "(reset: |call: )?(configure: |there is no fact |it has not the feature inject"
    "|memory at 0x.* beyond what the agent maps|0x.* could not be put back page by page"
    "|pages cannot be prepared: .* for 0x[0-9a-f]{13,} with)"
)
"""What the agent may say of a case that it does not run: what a guest cannot bring about, does not map, could not put
back, or lies beyond the addresses that any host takes."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    if subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout[:6] != "x86_64":
        pytest.skip("gcc is for another machine than x86-64")
    probe = ["gcc", "-fsyntax-only", "-x", "c", "-"]
    if subprocess.run(probe, input=b"#include <stdlib.h>\n", capture_output=True, check=False).returncode:
        pytest.skip("gcc is installed without the headers of the C library (Debian: libc6-dev)")
    out = tmp_path_factory.mktemp("forms")
    wanted = re.search(r"^ABIS := (.*)$", (AGENT / "Makefile").read_text(), re.MULTILINE)
    assert wanted is not None
    assert CliRunner().invoke(cli, ["gen", "c", "-o", str(out / "include"), *wanted[1].split()]).exit_code == 0
    return out


def build(folder: Path, machine: str, form: str, agent: Path = AGENT / "agent.c") -> Path:
    """Build a form as a program of this machine; once, unless another agent.c is named."""
    out = folder / f"{form}-{agent.parent.name}"
    if out.exists():
        return out
    common = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{AGENT}", f"-I{ROOT / 'examples/c'}",
              f"-I{folder / 'include'}"]  # fmt: skip
    inner = ["-ffreestanding", "-DAGENT_C_BIT=51", f"-I{AGENT / 'libc'}"]
    if machine == "arm64":
        inner += ["-U__x86_64__", "-D__aarch64__"]
    parts = [
        ([*common, *inner], agent, f"{out.name}-agent.o"),
        ([*common, *inner], AGENT / machine / f"form_{form}.c", f"{out.name}-form.o"),
        ([*common, *(["-DFORM_ARM64"] if machine == "arm64" else [])], HERE / "agent_hosted.c", f"{out.name}-main.o"),
    ]
    for flags, source, name in parts:
        gcc([*flags, "-c", str(source), "-o", str(folder / name)])
    gcc([*(str(folder / name) for _, _, name in parts), "-o", str(out)])
    return out


def gcc(words: list[str]) -> None:
    done = subprocess.run(["gcc", *words], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def run(folder: Path, program: Path, abi: str, revision: str, transport: str, *more: str, lie: bool = False) -> Any:
    """Run the cases of one transport; return the report."""
    report = folder / "report.json"
    report.unlink(missing_ok=True)
    words = [
        sys.executable,
        str(HERE / "agent_host.py"),
        str(program),
        abi,
        revision,
        transport,
        *(["lie"] if lie else []),
    ]
    options = ["--role", "host", "--transport", transport, "--iut", f"cmd:{' '.join(words)}", "--timeout", "30"]
    files = ["--json", str(report), "--transcript", str(folder / "transcript")]
    result = CliRunner().invoke(cli, ["conform", f"{abi}@{revision}", *options, *files, *more])
    assert report.exists(), result.output
    return json.loads(report.read_text())


@pytest.mark.parametrize(("machine", "form", "abi", "revision", "transport", "least"), CASES)
def test_a_form_over_the_bundled_host(
    folder: Path, machine: str, form: str, abi: str, revision: str, transport: str, least: int
) -> None:
    """What is run passes, and what is left out is what a guest cannot bring about."""
    found = run(folder, build(folder, machine, form), abi, revision, transport)
    assert found["good"], [row for row in found["results"] if row["verdict"] not in ("skip", "pass-state-not-seen")]
    assert found["counts"]["pass-state-not-seen"] >= least
    skips = {row["message"] for row in found["results"] if row["verdict"] == "skip"}
    assert [text for text in skips if not LEFT_OUT.match(text)] == []


@pytest.mark.parametrize(
    ("machine", "form", "abi", "revision", "transport"),
    [("x86", "tdx", "tdx-map-gpa", "ghci-1.5", "tdcall"), ("x86", "snp", "ghcb-msr-psc", "ghcb-2", "vmgexit-msr"),
     ("arm64", "hvc", "pkvm-mem-share", "upstream", "hvc")], ids=["tdx", "snp", "pkvm"],
)  # fmt: skip
def test_a_host_that_lies_is_found(
    folder: Path, machine: str, form: str, abi: str, revision: str, transport: str
) -> None:
    """Status bits are flipped between host and guest."""
    program = build(folder, machine, form)
    found = run(folder, program, abi, revision, transport, "--case", "*.done.already-private", lie=True)
    assert found["counts"]["fail"] == 1


def test_an_agent_that_does_not_put_pages_back_is_found(folder: Path) -> None:
    source = (AGENT / "agent.c").read_text()
    call = "(void)agent_form.convert(s, &touched[touched_count]);"
    assert source.count(call) == 1
    (folder / "broken").mkdir()
    (folder / "broken/agent.c").write_text(source.replace(call, ";"))
    program = build(folder, "arm64", "hvc", folder / "broken/agent.c")
    found = run(folder, program, "pkvm-mem-share", "upstream", "hvc", "--case", "*PKVM-SHARE-*", "--case", "*.done.*")
    assert found["counts"]["fail"] > 0
