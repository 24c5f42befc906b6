"""MEM_SHARE and MEM_UNSHARE as pKVM answered, against the bundled host; and the rig itself without a kernel."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, MemoryLayout, PageState
from hvabi.cli.live_common import version_of
from hvabi.cli.main import cli
from hvabi.evidence.live import pkvm as live
from hvabi.evidence.live.errors import LiveError
from hvabi.evidence.live.kernels import Store
from hvabi.evidence.live.observations import Observed, read
from hvabi.evidence.live.pkvm_iut import Session, serve
from hvabi.evidence.live.pkvm_steps import MEMORY, STEPS, Model, rows_of

DATA = Path(__file__).parent.parent / "data" / "live" / "pkvm"
SPEC = f"{live.ABI}@{live.REVISION}"


# -- what kernels answered --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=sorted(DATA.glob("*.ndjson")), ids=lambda path: path.stem)
def observed(request: pytest.FixtureRequest) -> Observed:
    return read(request.param)


def profile(observed: Observed) -> str:
    return live.profile_of(version_of(observed.kernel)) or "spec"


def pages(rows: Any) -> list[tuple[int, int]]:
    return [(int(gpa, 0) >> 12, (int(gpa, 0) >> 12) + int(count, 0)) for gpa, count in rows]


# What an answer may leave as it finds it, by the specification: X1 of share, X2 and X3 of all, and of FEATURES.
FREE = {"x1", "x2", "x3"}


def test_the_host_answers_as_observed(observed: Observed) -> None:
    spec = load(SPEC, profile=profile(observed))
    seen = aborts = 0
    for item in observed.observations:
        asked = item.asked
        if "scenario" in asked:
            continue
        layout = MemoryLayout(pages(asked["memory"])) if "memory" in asked else None
        backend = Backend(layout=layout, facts=spec.abi.facts)
        host = host_class(live.ABI)(spec, backend=backend, enabled=asked["enabled"])
        shared = pages([row[:2] for row in asked.get("states", [])])
        backend.reset(ranges=[(start, end, PageState.SHARED) for start, end in shared])
        regs = {name: int(value, 0) for name, value in asked["regs"].items()}
        answer = host.answer(regs)
        found = item.found[0]["ok"]
        assert (answer.end, answer.fault) == (found["end"], found.get("fault")), asked
        if answer.end == "return":
            told = {name: int(value, 0) for name, value in found["regs"].items()}
            assert told["x0"] == answer.regs["x0"], asked
            assert told.keys() - FREE == {"x0"}
        aborts += answer.end == "fault"
        if len(item.found) == 2:
            ranges = [[hex(run.start << 12), hex(run.end - run.start), run.state.value] for run in backend.query()]
            assert item.found[1] == {"query": {"ranges": ranges, "facts": {}}}, asked
        seen += 1
    assert seen >= 60


def rows(model: Model) -> dict[tuple[str, int], tuple[Any, Any]]:
    found = [row for steps in STEPS for row in rows_of(steps, Model("linux-7.3"), model)]
    return {(row.observation.asked["scenario"], row.observation.asked["number"]):
            (row.observation.asked["step"], row.wanted) for row in found}  # fmt: skip


def steps(observed: Observed) -> dict[tuple[str, int], tuple[Any, Any]]:
    out = {}
    for item in observed.observations:
        if "scenario" in (asked := item.asked):
            (found,) = item.found
            # The syndrome beside it is the processor's word for an external abort.
            found["end"] = found["end"].removesuffix(" 0x96000010")
            out[asked["scenario"], asked["number"]] = (asked["step"], [found])
    return out


def test_every_step_as_observed(observed: Observed) -> None:
    assert rows(Model(profile(observed))) == steps(observed)


class Idempotent(Model):
    """Sharing what is shared is success."""

    def _call(self, *values: int) -> tuple[str, tuple[int, ...]]:
        found = super()._call(*values)
        page = values[1] >> 12
        shared = values[0] == 0xC6000003 and MEMORY[0] >> 12 == page and not any(values[2:]) and values[1] % 4096 == 0
        return ("ret", (0, 0, 0, 0)) if shared and self._protected else found


class Leaky(Model):
    """The host keeps its access."""

    def step(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        found = super().step(word, *numbers)
        return ("ok", (0,)) if found[0] == "err" else found


class NoAbort(Model):
    """Memory that is not there is an invalid parameter."""

    def _call(self, *values: int) -> tuple[str, tuple[int, ...]]:
        found = super()._call(*values)
        return ("ret", (2**64 - 3, 0, 0, 0)) if found[0] == "abort" else found


@pytest.mark.parametrize("liar", [Idempotent, Leaky, NoAbort])
def test_a_hypervisor_that_lies_is_seen(observed: Observed, liar: type[Model]) -> None:
    found = rows(liar(profile(observed)))
    assert [key for key, value in steps(observed).items() if found[key] != value]


# -- the implementation under test on a machine played by hand --------------------------------------------------


class Played:
    """The machine's program with a hypervisor as the facts have it."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.shared: set[int] = set()
        self.touched: set[int] = set()
        self.slots: list[tuple[int, int]] = []
        self.abort = 0x96000010

    def do(self, word: str, *numbers: int) -> tuple[int, ...]:
        first, found = self.ask(word, *numbers)
        if first not in ("ok", "ret"):
            raise LiveError(f"{word}: {first}", code="refused")
        return found

    def ask(self, word: str, *numbers: int) -> tuple[str, tuple[int, ...]]:
        self.said.append(" ".join([word, *map(hex, numbers)]))
        if word == "limit":
            return "ok", (40,)
        if word == "open":
            self.shared, self.touched, self.slots = set(), set(), []
        elif word == "slot":
            self.slots.append((numbers[0], numbers[1]))
        elif word == "touch":
            self.touched |= set(range(numbers[0] >> 12, (numbers[0] >> 12) + numbers[1]))
        elif word == "each":
            self.shared |= set(range(numbers[1] >> 12, (numbers[1] >> 12) + numbers[2]))
        elif word == "peek":
            private = numbers[0] >> 12 in self.touched - self.shared
            return ("err", (14,)) if private else ("ok", (0,))
        elif word == "call":
            if not any(gpa <= numbers[1] < gpa + size for gpa, size in self.slots):
                return "abort", (self.abort,)
            if numbers[1] >> 12 in self.shared:
                return "ret", (2**64 - 3, 0, 0, 0)
            self.shared.add(numbers[1] >> 12)
            return "ret", (0, 0, 0, 0)
        return "ok", (0,)


def talk(*commands: Any, vm: Played | None = None) -> list[dict[str, Any]]:
    lines = [one if isinstance(one, str) else "@hvabi " + json.dumps({"id": number, **one}) + "\n"
             for number, one in enumerate(commands, 1)]  # fmt: skip
    out: list[str] = []
    serve(lines, out.append, Session(vm or Played(), "9.9", "linux-7.3"))  # type: ignore[arg-type]  # played
    return [json.loads(line[7:]) for line in out]


HELLO = {"cmd": "hello", "min": 1, "max": 1, "runner": "x"}
CONFIGURE = {"cmd": "configure", "abi": live.ABI, "revision": "upstream", "transport": "hvc", "role": "host"}
RESET = {"cmd": "reset", "ranges": [["0x202000", "0x1", "shared"]], "facts": {}}
SHARE = {"cmd": "call", "regs": {"x0": "0xc6000003", "x1": "0x200000", "x2": "0x0", "x3": "0x0"}}
QUERY = {"cmd": "query"}


def config(**keys: Any) -> dict[str, Any]:
    return {**CONFIGURE, "config": keys}


def test_a_page_is_shared_and_the_host_sees_it() -> None:
    *_, call, query = talk(HELLO, CONFIGURE, RESET, SHARE, QUERY)
    assert call["ok"] == {"end": "return", "regs": {"x0": "0x0", "x1": "0x0"}, "mem": []}
    assert query["ok"]["ranges"] == [["0x200000", "0x1", "shared"], ["0x202000", "0x1", "shared"]]


def test_each_reset_is_a_new_vm_whose_pages_the_guest_has_touched() -> None:
    vm = Played()
    talk(HELLO, CONFIGURE, RESET, SHARE, RESET, SHARE, vm=vm)
    assert [line for line in vm.said if line.startswith(("open", "touch"))] == [
        "open 0x1 0x28", "touch 0x200000 0x5", "touch 0x1fe000 0x2",
    ] * 2  # fmt: skip


def test_no_memory_is_an_abort_and_another_exception_an_error() -> None:
    call = {**SHARE, "regs": {**SHARE["regs"], "x1": "0x9000000"}}  # type: ignore[dict-item]  # a mapping
    vm = Played()
    commands = [HELLO, config(memory=[["0x200000", "0x10"]]), {**RESET, "ranges": []}, call]
    assert talk(*commands, vm=vm)[-1]["ok"] == {"end": "fault", "fault": "abort"}
    vm.abort = 0x2000000
    assert "0x2000000" in talk(*commands, vm=vm)[-1]["error"]["message"]


@pytest.mark.parametrize(
    ("commands", "kind"),
    [
        ([{"cmd": "hello", "min": 2, "max": 3}], "unsupported"),
        ([HELLO, {**CONFIGURE, "revision": "android"}], "unsupported"),
        ([HELLO, {**CONFIGURE, "role": "guest"}], "unsupported"),
        ([HELLO, config(granule="0x4000")], "unsupported"),
        ([HELLO, config(ipa_bits="0x30")], "unsupported"),
        ([HELLO, config(max_ranges="0x2")], "unsupported"),
        ([HELLO, config(profile="android")], "unsupported"),
        ([HELLO, RESET], "error"),
        ([HELLO, SHARE], "error"),
        ([HELLO, QUERY], "error"),
        ([HELLO, CONFIGURE, {**RESET, "facts": {"unmapped": [["0x0", "0x1"]]}}], "unsupported"),
        ([HELLO, CONFIGURE, {**RESET, "ranges": [["0x0", "0x1", "shared-read-only"]]}], "unsupported"),
        ([HELLO, CONFIGURE, {**RESET, "ranges": [["0x10000000000", "0x1", "shared"]]}], "unsupported"),
        ([HELLO, config(memory=[["0x0", "0x1"]]), RESET], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "call", "regs": {"x0": "0xc6000003", "x1": "0xfffffffff000"}}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "call", "regs": {"x7": "0x1"}}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "inject", "fault": "memory-flip"}], "unsupported"),
        ([HELLO, config(enabled=False), QUERY], "unsupported"),
        ([HELLO, "@hvabi {not json\n"], "error"),
        ([HELLO, CONFIGURE, {"cmd": "call", "regs": {"x0": "seven"}}], "error"),
    ],
)  # fmt: skip
def test_what_it_cannot_do(commands: list[Any], kind: str) -> None:
    assert kind in talk(*commands)[-1]


# -- the line to the machine ------------------------------------------------------------------------------------


def served(path: Path, *answers: bytes) -> None:
    """Serve one conversation: each line is answered by the next bytes, then the line is closed."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve_one() -> None:
        with server, server.accept()[0] as peer:
            for answer in answers:
                peer.recv(1 << 16)
                peer.sendall(answer)

    threading.Thread(target=serve_one, daemon=True).start()


def test_the_line_is_read_past_noise(tmp_path: Path) -> None:
    served(tmp_path / "s", b"[ 1.0] kernel words\n> ret fffffffffffffffd 0 0 0\n", b"> err e\n")
    with live.Vm(tmp_path / "s") as vm:
        assert vm.ask("call", 0) == ("ret", (2**64 - 3, 0, 0, 0))
        assert vm.ask("peek", 0) == ("err", (14,))


@pytest.mark.parametrize("answer", [b"", b"> ret zz\n", b">\n", b"x" * 9000, b"> \n"])
def test_a_machine_that_goes_away_or_raves(tmp_path: Path, answer: bytes) -> None:
    served(tmp_path / "s", answer)
    with live.Vm(tmp_path / "s") as vm, pytest.raises(LiveError) as caught:
        vm.ask("call", 0)
    assert caught.value.code == "no-answer"


# -- what can go wrong ------------------------------------------------------------------------------------------


def run(*words: str, path: str | None = None) -> tuple[int, str]:
    env = {"PATH": path} if path is not None else None
    result = CliRunner().invoke(cli, ["live", "pkvm", *words], env=env, prog_name="hvabi")
    return result.exit_code, result.output


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("hvabi-live-*")}


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    (tmp_path / "k/boot").mkdir(parents=True)
    (tmp_path / "k/boot/vmlinuz-9.9").write_bytes(b"no kernel")
    (tmp_path / "k/lib/modules/9.9").mkdir(parents=True)
    return tmp_path / "k"


def test_without_qemu(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    code, shown = run(path=str(tmp_path / "bin"))
    assert (code, "skipped, because qemu-system-aarch64 is not installed" in shown) == (4, True)
    assert "apt-get install" in shown


def test_without_a_compiler(tmp_path: Path) -> None:
    tool(tmp_path / "bin", "qemu-system-aarch64", "exit 1")
    code, shown = run(path=str(tmp_path / "bin"))
    assert (code, "skipped, because aarch64-linux-gnu-gcc is not installed" in shown) == (4, True)


SAYS = 'for word; do case $word in file:*) echo "{}" > "${{word#file:}}";; esac; done; sleep 60'
MAKES = 'while [ "$1" != -o ]; do shift; done; echo program > "$2"'


@pytest.mark.parametrize(
    ("gcc", "qemu", "words"),
    [
        (MAKES, SAYS.format("Kernel panic - not syncing: no init"), "the kernel panicked (9.9): Kernel panic"),
        (MAKES, "kill -9 $$", "QEMU ended while the machine booted"),
        (MAKES, SAYS.format("HVABI NO KVM No such file"), "does not have what this needs (9.9): HVABI NO KVM"),
        ("echo 'x.c:1: fatal error: no stdio.h' >&2; exit 1", "exit 1", "cannot be built: x.c:1: fatal error"),
    ],
    ids=["panic", "killed", "no-kvm", "no-libc"],
)  # fmt: skip
def test_a_machine_that_does_not_come_up(kernel: Path, tmp_path: Path, gcc: str, qemu: str, words: str) -> None:
    tool(tmp_path / "bin", "aarch64-linux-gnu-gcc", gcc)
    tool(tmp_path / "bin", "qemu-system-aarch64", qemu)
    before = leftovers()
    code, shown = run("--unpacked", str(kernel), path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (code, words in shown) == (4, True), shown
    assert leftovers() == before


def test_apt_that_has_no_network(tmp_path: Path) -> None:
    for name in ("apt-get", "apt-cache"):
        tool(tmp_path / "bin", name, 'echo "E: could not resolve deb.debian.org" >&2; exit 100')
    for name in ("qemu-system-aarch64", "aarch64-linux-gnu-gcc"):
        tool(tmp_path / "bin", name, "exit 1")
    code, shown = run("--cache", str(tmp_path / "c"), path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (code, "could not resolve" in shown) == (4, True)


def test_the_newest_kernel_that_has_protected_vms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["linux-image-7.1.9+deb13-arm64", "linux-image-7.3.4+deb13-arm64", "linux-image-7.3.4+deb13-cloud-arm64"]
    store = Store(tmp_path)
    monkeypatch.setattr(store, "names", lambda: names)
    assert live.newest(store) == "linux-image-7.3.4+deb13-arm64"
    monkeypatch.setattr(store, "names", lambda: names[:1])
    with pytest.raises(LiveError) as caught:
        live.newest(store)
    assert caught.value.code == "no-kernel"


def test_the_program_of_the_machine_compiles_without_a_warning(tmp_path: Path) -> None:
    gcc = shutil.which("aarch64-linux-gnu-gcc")
    if gcc is None or not Path("/usr/aarch64-linux-gnu/lib/libc.a").exists():
        pytest.skip("aarch64-linux-gnu-gcc with its C library is not installed")
    source = Path(str(files("hvabi.evidence.live.guest"))) / "pkvm_vmm.c"
    command = [gcc, "-O2", "-Wall", "-Wextra", "-Werror", "-static", "-o", str(tmp_path / "x"), str(source)]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0


def test_the_model_by_hand() -> None:
    model = Model("linux-7.3")
    model.open(protected=True)
    assert model.step("call", 0xC6000003, 0x200000, 0, 0) == ("ret", (0, 0, 0, 0))
    assert model.step("call", 0xC6000003, 0x200000, 0, 0) == ("ret", (2**64 - 3, 0, 0, 0))
    assert model.step("call", 0xC6000003, 0x9000000, 0, 0) == ("abort", ())
