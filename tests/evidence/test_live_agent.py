"""`hvabi live agent` without a kernel: serial line, ELF reader, comparison of verdicts, what can go wrong."""

from __future__ import annotations

import os
import socket
import struct
import sys
import tempfile
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from hvabi.cli.main import cli
from hvabi.evidence.live import agent as live
from hvabi.evidence.live.verdicts import differences

if TYPE_CHECKING:
    from types import ModuleType


@pytest.fixture
def vmm(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(files("hvabi.evidence.live.guest")))
    for name in ("agent_vmm", "vcpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import agent_vmm  # type: ignore[import-not-found]  # started on its own in the machine

    return agent_vmm  # type: ignore[no-any-return]  # an import is untyped here


# -- the serial line: registers of a 16550 as PC16550D's data sheet numbers them -----------------------------------


DATA, IDENTITY, LINE, STATUS = 0, 2, 3, 5


@pytest.fixture
def serial(vmm: ModuleType) -> Any:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield vmm.Serial(theirs.fileno()), ours


def test_what_comes_in_is_read_byte_by_byte_or_fourteen_at_once(serial: Any) -> None:
    line, outside = serial
    outside.sendall(b"0123456789abcdef")
    assert line.read(IDENTITY, 1) == b"\xc4"  # FIFO on, as many bytes as the trigger level
    assert line.read(DATA, 14) == b"0123456789abcd"
    assert line.read(IDENTITY, 1) == b"\xcc"  # fewer
    assert (line.read(STATUS, 1)[0] & 1, line.read(DATA, 1), line.read(DATA, 1)) == (1, b"e", b"f")
    assert line.read(STATUS, 1) == b"\x60"  # nothing more; the transmitter is empty
    assert line.read(DATA, 1) == b"\0"


def test_what_goes_out_and_the_divisor_that_does_not(serial: Any) -> None:
    line, outside = serial
    line.write(LINE, b"\x83")
    line.write(DATA, b"\x01")
    line.write(LINE, b"\x03")
    line.write(DATA, b"o")
    line.write(DATA, b"k")
    line.flush()
    assert outside.recv(16) == b"ok"


# -- the file ---------------------------------------------------------------------------------------------------


def elf(note: bytes = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", 0x4000020)) -> bytes:
    head = b"\x7fELF\x02\x01".ljust(16, b"\0") + struct.pack(
        "<HHIQQQIHHHHHH", 2, 62, 1, 0x4000100, 64, 0, 0, 64, 56, 2, 0, 0, 0
    )
    load = struct.pack("<IIQQQQQQ", 1, 7, 176, 0x4000000, 0x4000000, 4, 8, 0x1000)
    notes = struct.pack("<IIQQQQQQ", 4, 4, 180, 0, 0, len(note), len(note), 4)
    return head + load + notes + b"code" + note


def test_an_elf_file_with_an_entry_for_pvh(vmm: ModuleType) -> None:
    assert vmm.read_elf(elf()) == (0x4000020, 0x4000100, [(0x4000000, b"code", 8)])


@pytest.mark.parametrize(
    "data", [b"", b"#!/bin/sh", elf()[:4] + b"\x01" + elf()[5:], elf(struct.pack("<III4sQ", 4, 8, 17, b"Xen\0", 1))],
    ids=["empty", "script", "32-bit", "no-entry"],
)  # fmt: skip
def test_files_that_are_no_agent(vmm: ModuleType, data: bytes) -> None:
    with pytest.raises(vmm.BadFile):
        vmm.read_elf(data)


def test_the_numbers_that_the_vmm_needs() -> None:
    """KVM_FEATURE_HC_MAP_GPA_RANGE is bit 16 (linux/asm/kvm_para.h)."""
    on, off = (live.parameters((6, 1), enabled=enabled) for enabled in (True, False))
    assert (on["feature"], on["nr"], on["capability"], on["enabled"], off["enabled"]) == (16, 12, 201, True, False)


# -- verdicts ---------------------------------------------------------------------------------------------------


def rows(**verdicts: str) -> list[dict[str, str]]:
    return [{"id": name, "verdict": verdict} for name, verdict in verdicts.items()]


def test_verdicts_are_compared_where_both_ran() -> None:
    bundled = rows(a="pass", b="pass", c="pass", d="fail", e="pass", f="skip")
    found = rows(a="pass-state-not-seen", b="fail", c="skip", d="fail", e="warn", f="pass", g="pass")
    count, differ = differences(found, bundled)
    assert count == 4
    assert [(item.case, item.real, item.bundled, item.bad) for item in differ] == [
        ("b", "fail", "pass", True), ("e", "warn", "pass", False),
    ]  # fmt: skip


def test_a_case_that_one_of_two_guests_ran_counts_as_run() -> None:
    count, differ = differences([*rows(a="skip", b="pass"), *rows(a="pass", b="skip")], rows(a="pass", b="pass"))
    assert (count, differ) == (2, [])


# -- what can go wrong ------------------------------------------------------------------------------------------


def run(*words: str, path: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, ["live", "agent", *words], env={"PATH": path}, prog_name="hvabi")
    return result.exit_code, result.output


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """A file that could be an agent, and a folder that looks like an unpacked kernel package."""
    modules = tmp_path / "k/lib/modules/9.9/kernel"
    modules.mkdir(parents=True)
    (tmp_path / "k/boot").mkdir()
    (tmp_path / "k/boot/vmlinuz-9.9").write_bytes(b"no kernel")
    for name in ("kvm", "kvm-amd"):
        (modules / f"{name}.ko").write_bytes(b"\0depends=\0")
    (tmp_path / "agent.elf").write_bytes(elf())
    (tmp_path / "bin").mkdir()
    return str(tmp_path / "agent.elf"), "--unpacked", str(tmp_path / "k")


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("hvabi-live-*")}


def test_without_qemu(words: tuple[str, ...], tmp_path: Path) -> None:
    before = leftovers()
    code, shown = run(*words, path=str(tmp_path / "bin"))
    assert code == 4
    assert "skipped, because qemu-system-x86_64 is not installed" in shown
    assert leftovers() == before


def test_qemu_that_is_killed(words: tuple[str, ...], tmp_path: Path) -> None:
    qemu = tmp_path / "bin/qemu-system-x86_64"
    qemu.write_text("#!/bin/sh\nkill -9 $$\n")
    qemu.chmod(0o755)
    before = leftovers()
    code, shown = run(*words, path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert code == 4
    assert "QEMU ended while the machine booted" in shown
    assert leftovers() == before


def test_without_an_agent() -> None:
    assert run("no-such.elf", path=os.environ["PATH"])[0] == 2
