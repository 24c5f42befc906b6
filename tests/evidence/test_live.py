"""The live tier without a kernel: the archive, the machine's program on a KVM played by hand, what can go wrong."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from click.testing import CliRunner

from hvabi.cli.live import Place
from hvabi.cli.main import cli
from hvabi.evidence.live import kvm as live
from hvabi.evidence.live.archive import Archive
from hvabi.evidence.live.kernels import unpacked

if TYPE_CHECKING:
    from types import ModuleType

GUEST = Path(str(files("hvabi.evidence.live.guest")))


# -- the archive ------------------------------------------------------------------------------------------------


def test_an_archive_byte_by_byte() -> None:
    """The format newc as cpio(5) has it: 13 fields of 8 hexadecimal digits, name and data padded to 4."""
    file = io.BytesIO()
    archive = Archive(file)
    archive.file("/a/b", b"xyz", executable=True)
    archive.file("a/b", b"again")
    archive.end()

    def head(ino: int, mode: int, size: int, name: int) -> bytes:
        return b"070701" + b"".join(b"%08x" % n for n in (ino, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0))

    assert file.getvalue() == (
        head(1, 0o40755, 0, 2) + b"a\0" + b"\0" * 0
        + head(2, 0o100755, 3, 4) + b"a/b\0" + b"\0\0" + b"xyz\0"
        + head(3, 0, 0, 11) + b"TRAILER!!!\0" + b"\0" * 3
    )  # fmt: skip


# -- the program of the machine ---------------------------------------------------------------------------------


class PlayedGuest:
    """KVM with nr 12 enabled: aligned requests exit to user space, others are refused with -22."""

    made: ClassVar[list[PlayedGuest]] = []

    def __init__(self, parameters: dict[str, Any]) -> None:
        self.parameters = parameters
        self.enabled = 0
        self.closed = False
        self.page = bytearray(parameters["run_size"])
        PlayedGuest.made.append(self)

    def enable(self, capability: int, mask: int) -> None:
        assert capability == 201
        self.enabled = mask

    def start(self, mode: str, cpl: int, regs: dict[str, int], call: str) -> None:
        self.regs = dict(regs)
        self.mode, self.cpl, self.told = mode, cpl, False

    def run(self, seconds: int = 10) -> bytes | None:
        if self.enabled != 1 << 12:
            self.regs["rax"] = 2**64 - 1000
        elif self.regs.get("rbx", 0) % 4096:
            self.regs["rax"] = 2**64 - 22
        elif not self.told:
            self.told = True
            return bytes(self.page)
        else:
            self.regs["rax"] = int.from_bytes(self.page[88:96], "little")
        return None

    def answer(self, offset: int, data: bytes) -> None:
        self.page[offset : offset + len(data)] = data

    def registers(self) -> dict[str, int]:
        return {name: self.regs.get(name, 0) for name in ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
                                                          *(f"r{n}" for n in range(8, 16)))}  # fmt: skip

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GUEST))
    for name in ("kvm_iut", "vcpu"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import kvm_iut  # type: ignore[import-not-found]  # started on its own in the machine

    PlayedGuest.made = []
    monkeypatch.setattr(kvm_iut.vcpu, "Guest", PlayedGuest)
    monkeypatch.setattr(kvm_iut.vcpu, "instruction", lambda: "vmmcall")
    return kvm_iut  # type: ignore[no-any-return]  # an import is untyped here


def talk(program: ModuleType, *commands: Any, mode: str = "prot32") -> list[dict[str, Any]]:
    lines = [
        text if isinstance(text, str) else "@hvabi " + json.dumps({"id": number, **text}) + "\n"
        for number, text in enumerate(commands, 1)
    ]
    out: list[str] = []
    program.serve(lines, out.append, live.parameters((6, 1), mode))
    assert all(line.startswith("@hvabi ") and line.endswith("\n") for line in out)
    return [json.loads(line[7:]) for line in out]


HELLO = {"cmd": "hello", "min": 1, "max": 1, "runner": "x", "features": ["exits"]}
PLAIN = {"cmd": "hello", "min": 1, "max": 1, "runner": "x"}
CONFIGURE = {"cmd": "configure", "abi": "kvm-map-gpa-range", "revision": "v1", "transport": "vmcall64", "role": "host"}
SHARE = {"cmd": "call", "cpu": {"mode": "64", "cpl": 0}, "regs": {"rax": "0xc", "rbx": "0x8000", "rcx": "0x1"}}
CROOKED = {"cmd": "call", "regs": {"rax": "0xc", "rbx": "0x8001", "rcx": "0x1"}}


def test_a_call_that_exits(program: ModuleType) -> None:
    *_, exit_, end = talk(program, HELLO, CONFIGURE, SHARE, {"cmd": "resume", "mem": [["0x58", "1600000000000000"]]})
    assert exit_["yield"]["exit"] == {"abi": "kvm-exit-hypercall", "regs": {}, "mem": [["0x0", "00" * 104]]}
    assert end["ok"] == {"end": "return", "regs": {"rax": "0x16"}, "mem": []}


def test_without_exits_user_space_agrees_or_refuses_once(program: ModuleType) -> None:
    inject = {"cmd": "inject", "fault": "vmm-error", "errno": "0xb"}
    *_, refused, agreed = talk(program, PLAIN, CONFIGURE, inject, SHARE, SHARE)
    assert (refused["ok"]["regs"], agreed["ok"]["regs"]) == ({"rax": "0xb"}, {"rax": "0x0"})


def test_switched_off(program: ModuleType) -> None:
    *_, end = talk(program, HELLO, {**CONFIGURE, "config": {"enabled": False}}, SHARE)
    assert end["ok"]["regs"] == {"rax": hex(2**64 - 1000)}


@pytest.mark.parametrize(
    ("commands", "kind"),
    [
        ([{"cmd": "hello", "min": 2, "max": 3}], "unsupported"),
        ([HELLO, {**CONFIGURE, "transport": "tdvmcall"}], "unsupported"),
        ([HELLO, {**CONFIGURE, "role": "guest"}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"profile": "qemu"}}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"surprise": 1}}], "unsupported"),
        ([HELLO, SHARE], "error"),
        ([HELLO, CONFIGURE, SHARE, SHARE], "error"),
        ([HELLO, CONFIGURE, {"cmd": "resume"}], "error"),
        ([HELLO, CONFIGURE, {"cmd": "query"}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "dance"}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "inject", "fault": "stop-after", "pages": "0x1"}], "unsupported"),
        ([HELLO, CONFIGURE, {**SHARE, "cpu": {"mode": "32"}}], "error"),
        ([HELLO, "@hvabi {not json\n"], "error"),
        ([HELLO, "@hvabi [1]\n"], "error"),
        ([HELLO, CONFIGURE, {**SHARE, "regs": {"rax": "twelve"}}], "error"),
    ],
)  # fmt: skip
def test_what_is_refused(program: ModuleType, commands: list[Any], kind: str) -> None:
    assert kind in talk(program, *commands)[-1]


def test_noise_is_no_command_and_stop_ends(program: ModuleType) -> None:
    out = talk(program, "[    1.2] kernel words\n", HELLO, {"cmd": "stop"}, HELLO)
    assert [item["id"] for item in out] == [2, 3]


def test_real_mode_has_no_privilege(program: ModuleType) -> None:
    configure = {**CONFIGURE, "transport": "vmcall32"}
    call = {**SHARE, "cpu": {"mode": "32", "cpl": 3}}
    assert "unsupported" in talk(program, HELLO, configure, call, mode="real")[-1]


def test_a_probe_that_works_and_one_that_lies(program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    parameters = live.parameters(None, "prot32")
    assert "99" in program.probe(parameters)  # this KVM takes every number for its own

    class Right(PlayedGuest):
        def run(self, seconds: int = 10) -> bytes | None:
            if self.regs["rax"] == 99:
                self.regs["rax"] = 2**64 - 1000
                return None
            return super().run(seconds)

    monkeypatch.setattr(program.vcpu, "Guest", Right)
    assert program.probe(parameters) is None
    monkeypatch.setattr(program.vcpu, "Guest", PlayedGuest)
    monkeypatch.setattr(PlayedGuest, "run", lambda self, seconds=10: None)
    assert "answered" in program.probe(live.parameters(None, "prot32"))


# -- what can go wrong ------------------------------------------------------------------------------------------


def run(*words: str, path: str | None = None) -> tuple[int, str]:
    env = {"PATH": path} if path is not None else None
    result = CliRunner().invoke(cli, ["live", "kvm", "--no-native", *words], env=env, prog_name="hvabi")
    return result.exit_code, result.output


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    """A folder that looks like an unpacked kernel package."""
    (tmp_path / "k/boot").mkdir(parents=True)
    (tmp_path / "k/boot/vmlinuz-9.9").write_bytes(b"no kernel")
    modules = tmp_path / "k/lib/modules/9.9/kernel"
    modules.mkdir(parents=True)
    (modules / "kvm.ko").write_bytes(b"\0depends=\0")
    (modules / "kvm-amd.ko").write_bytes(b"\0depends=kvm,ccp\0")
    (modules / "ccp.ko").write_bytes(b"\0depends=\0")
    return tmp_path / "k"


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


SAYS = 'for word; do case $word in file:*) echo "{}" > "${{word#file:}}";; esac; done; sleep 60'


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("hvabi-live-*")}


def test_without_qemu(kernel: Path, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    before = leftovers()
    code, shown = run("--unpacked", str(kernel), path=str(tmp_path / "bin"))
    assert code == 4
    assert "skipped, because qemu-system-x86_64 is not installed" in shown
    assert "apt-get install" in shown
    assert leftovers() == before


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SAYS.format("Kernel panic - not syncing: no init"),
         "the kernel panicked (9.9): Kernel panic - not syncing: no init"),
        ('echo "cannot allocate memory" >&2; exit 1', "QEMU ended while the machine booted: cannot allocate memory"),
        ('kill -9 $$', "QEMU ended while the machine booted"),
        (SAYS.format("HVABI MODULE kvm_amd Operation not supported"),
         "a module cannot be loaded"),
    ],
    ids=["panic", "error", "killed", "module"],
)  # fmt: skip
def test_a_machine_that_does_not_come_up(kernel: Path, tmp_path: Path, script: str, words: str) -> None:
    tool(tmp_path / "bin", "qemu-system-x86_64", script)
    before = leftovers()
    code, shown = run("--unpacked", str(kernel), path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert code == 4
    assert words in shown
    assert leftovers() == before


def test_without_apt(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    code, shown = run("--cache", str(tmp_path / "cache"), path=str(tmp_path / "bin"))
    assert (code, "apt-cache is not installed" in shown) == (4, True)


def test_apt_that_has_no_network(tmp_path: Path) -> None:
    for name in ("apt-get", "apt-cache"):
        tool(tmp_path / "bin", name, 'echo "E: could not resolve deb.debian.org" >&2; exit 100')
    code, shown = run("--cache", str(tmp_path / "c"), "--suite", "sid", path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (code, "could not resolve" in shown) == (4, True)


@pytest.mark.parametrize("words", [("--kernel", "../../etc"), ("--suite", "x; rm -rf"), ("--kernel", "--help")])
def test_names_that_are_no_packages(tmp_path: Path, words: tuple[str, ...]) -> None:
    code, shown = run("--cache", str(tmp_path / "cache"), *words)
    assert code in (2, 4)
    assert "Traceback" not in shown


def test_modules_come_in_the_order_of_their_needs(kernel: Path) -> None:
    assert [name for name, _ in unpacked(kernel).with_needs(["kvm", "kvm_amd"])] == ["kvm", "ccp", "kvm_amd"]


@pytest.mark.parametrize(
    ("version", "profile"),
    [((5, 10), None), ((6, 1), "linux-kvm-6.1"), ((6, 6), "linux-kvm-6.1"), ((6, 12), "linux-kvm-6.12"),
     ((7, 9), "linux-kvm-7.3")],
)  # fmt: skip
def test_the_profile_of_a_kernel(version: tuple[int, int], profile: str | None) -> None:
    assert live.profile_of(version) == profile


# -- where it runs ----------------------------------------------------------------------------------------------


def test_the_program_finds_its_parts_when_python_is_isolated() -> None:
    """As on a machine with a /dev/kvm of its own; nothing of KVM is opened before `configure`."""
    messages: list[Any] = [{**HELLO, "id": 0}, {"cmd": "stop", "id": 1}]
    lines = "".join(f"@hvabi {json.dumps(message)}\n" for message in messages)
    with live.native((6, 1), "prot32") as command:
        result = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert [json.loads(line[7:])["id"] for line in result.stdout.splitlines()] == [0, 1]


class Played:
    """A kernel that is not there: its lines are those of the bundled adapter."""

    def __init__(self, connector: str) -> None:
        self.connector = connector

    def __enter__(self) -> Place:
        return Place(release="7.3.4-played", how="played by the bundled adapter", lines=[("prot32", self.connector)])

    def __exit__(self, *_: object) -> None:
        return None


LIAR = """#!{python} -S
import json, sys
for line in sys.stdin:
    command = json.loads(line[7:])
    abi = {{"revisions": ["v1"], "transports": ["vmcall64", "vmcall32"], "roles": ["host"]}}
    ok = {{}}
    if command["cmd"] == "hello":
        ok = {{"protocol": 1, "name": "liar", "version": "1", "features": [], "abis": {{"kvm-map-gpa-range": abi}}}}
    if command["cmd"] == "call":
        ok = {{"end": "return", "regs": {{"rax": "0x77"}}, "mem": []}}
    print("@hvabi " + json.dumps({{"id": command["id"], "ok": ok}}), flush=True)
"""


@pytest.mark.parametrize("good", [True, False], ids=["good", "liar"])
def test_a_transcript_that_is_named_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool) -> None:
    liar = tmp_path / "liar"
    liar.write_text(LIAR.format(python=sys.executable))
    liar.chmod(0o755)
    monkeypatch.setattr("hvabi.cli.live._place", lambda *_, **__: Played("builtin" if good else f"cmd:{liar}"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    words = ("--observe", str(tmp_path / "out.ndjson"), "--", "--case", "*.vmcall64.done.already-private")
    code, shown = run(*words)
    named = re.findall(r"^transcript: (.+)$", shown, re.MULTILINE)
    assert (code, len(named)) == ((0, 0) if good else (1, 1))
    assert all(Path(name).stat().st_size > 100 for name in named)
    assert bool(leftovers()) is not good


@pytest.mark.parametrize("good", [True, False], ids=["good", "liar"])
def test_verdicts_are_compared_with_the_bundled_adapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    liar = tmp_path / "liar"
    liar.write_text(LIAR.format(python=sys.executable))
    liar.chmod(0o755)
    monkeypatch.setattr("hvabi.cli.live._place", lambda *_, **__: Played("builtin" if good else f"cmd:{liar}"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, shown = run()
    ran = re.search(r"^KVM \(prot32\) and bundled adapter: (\d+) cases ran in both, (\d+) with", shown, re.MULTILINE)
    assert ran is not None, shown
    both, differ = map(int, ran.groups())
    assert both >= 20  # of a run in which everything fails no more are tried
    if good:
        assert (code, differ, both > 100) == (0, 0, True)
    else:
        assert (code, both) == (1, differ)
        assert shown.count("differs: KVM (prot32) kvm-map-gpa-range@v1.host.") == differ


HANGS = """#!{python} -S
import os, re, socket, sys, time
words = " ".join(sys.argv)
server = socket.socket(socket.AF_UNIX)
server.bind(re.search(r"path=([^, ]+)", words)[1])
server.listen()
with open(re.search(r"file:(\\S+)", words)[1], "w") as console:
    console.write("HVABI READY 9.9\\n")
server.accept()[0].recv(1)
with open({pid!r}, "w") as file:
    file.write(str(os.getpid()))
time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_command_that_is_ended_takes_its_machine_along(
    kernel: Path, tmp_path: Path, request: pytest.FixtureRequest, number: signal.Signals
) -> None:
    """While a case waits for its answer."""
    tool(tmp_path / "bin", "qemu-system-x86_64", "")
    pid = tmp_path / "pid"
    (tmp_path / "bin/qemu-system-x86_64").write_text(HANGS.format(python=sys.executable, pid=str(pid)))
    short = Path(tempfile.mkdtemp(prefix="hv"))
    request.addfinalizer(lambda: shutil.rmtree(short))
    words = [sys.executable, "-m", "hvabi.cli.main", "live", "kvm", "--no-native", "--unpacked", str(kernel)]
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "TMPDIR": str(short)}
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        end = time.monotonic() + 20
        while not pid.is_file() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(number)
        process.stdout.read()
    killed = number == signal.SIGKILL  # then nobody can delete files, but what keeps QEMU still ends it
    assert process.returncode == (-number if killed else 128 + number)
    qemu, end = int(pid.read_text()), time.monotonic() + 20
    while Path("/proc", str(qemu)).exists() and time.monotonic() < end:
        time.sleep(0.02)
    assert not Path("/proc", str(qemu)).exists()
    assert killed or list(short.iterdir()) == []


# -- the machine's own /dev/kvm, played ----------------------------------------------------------------------------


PROBED = """#!{python} -S
import sys, time
if "--probe" in sys.argv:
    {probe}
"""


@pytest.fixture
def device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Put a program in the place of the one that opens /dev/kvm; what it does when it is asked to probe is given."""

    def place(probe: str) -> None:
        program = tmp_path / "own"
        program.write_text(PROBED.format(python=sys.executable, probe=probe) + LIAR.split("\n", 1)[1].format())
        program.chmod(0o755)

        @contextlib.contextmanager
        def native(version: tuple[int, int] | None, mode: str) -> Any:
            asked.append((version, mode))
            yield [str(program)]

        monkeypatch.setattr(live, "native", native)
        monkeypatch.setattr(live, "DEVICE", tmp_path / "own")

    asked: list[Any] = []
    place.asked = asked  # type: ignore[attr-defined]  # for the tests
    return place


def test_a_kvm_that_answers_is_used(device: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The probe's success leads to the machine's own KVM: no apt, no QEMU, one program for each 32-bit mode."""
    device("sys.exit(0)")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr("hvabi.evidence.live.machine.Machine", None)  # would be an error
    release = "6.12.7-own"
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", release, "1", "x86_64")))
    words = ["live", "kvm", "--mode32", "all", "--", "--case", "*.done.*"]
    result = CliRunner().invoke(cli, words, env={"PATH": ""}, prog_name="hvabi")
    assert f"Linux {release}, the machine's own /dev/kvm" in result.output
    assert device.asked == [(None, "prot32"), *(((6, 12), mode) for mode in live.MODES_32)]
    assert result.output.count("Conformance test: ") == 3
    assert result.exit_code == 1  # the program there answers wrongly on purpose


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        ('print("call 99 was answered 0x0"); sys.exit(1)', "/dev/kvm is not usable: call 99 was answered 0x0"),
        ("sys.exit(3)", "/dev/kvm is not usable: exit code 3"),
        ("time.sleep(60)", "/dev/kvm did not answer within 1 s"),
    ],
    ids=["wrong", "silent", "hangs"],
)
def test_a_kvm_that_does_not_answer_is_told_of(
    device: Any, kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: str, words: str
) -> None:
    device(probe)
    monkeypatch.setattr(live, "_PROBE_SECONDS", 1)
    assert live.native_reason() == words
    (tmp_path / "bin").mkdir()
    monkeypatch.setattr("hvabi.evidence.live.kernels.Store.kernel", lambda *_: unpacked(kernel))
    result = CliRunner().invoke(cli, ["live", "kvm"], env={"PATH": str(tmp_path / "bin")}, prog_name="hvabi")
    assert f"{words}: a kernel is booted instead" in result.output
    assert "skipped, because qemu-system-x86_64 is not installed" in result.output
    assert result.exit_code == 4


def test_a_machine_without_kvm_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "DEVICE", tmp_path / "none")
    assert live.native_reason() == "there is no /dev/kvm"


DIES = """#!{python} -S
import json, os, re, signal, socket, sys
words = " ".join(sys.argv)
with open(re.search(r"file:(\\S+)", words)[1], "w") as console:
    console.write("HVABI READY 9.9\\n")
server = socket.socket(socket.AF_UNIX)
server.bind(re.findall(r"path=([^, ]+)", words)[0])
server.listen()
peer, _ = server.accept()
calls = 0
for line in peer.makefile():
    command = json.loads(line[7:])
    answer = {{"ok": {{}}}}
    if command["cmd"] == "hello":
        abi = {{"revisions": ["v1"], "transports": ["vmcall64", "vmcall32"], "roles": ["host"]}}
        offer = {{"name": "x", "version": "1", "features": [], "abis": {{"kvm-map-gpa-range": abi}}}}
        answer = {{"ok": {{"protocol": 1, **offer}}}}
    if command["cmd"] == "query":
        answer = {{"unsupported": {{"message": "no"}}}}
    if command["cmd"] == "call":
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = {{"ok": {{"end": "return", "regs": {{"rax": hex(2**64 - 22)}}, "mem": []}}}}
    peer.sendall(b"@hvabi " + json.dumps({{"id": command["id"], **answer}}).encode() + b"\\n")
"""


def test_qemu_that_is_killed_half_way(
    kernel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """The case at which it went is a crash, the rest is not run, and nothing stays but the transcript that is named."""
    tool(tmp_path / "bin", "qemu-system-x86_64", "")
    (tmp_path / "bin/qemu-system-x86_64").write_text(DIES.format(python=sys.executable))
    short = tempfile.mkdtemp(prefix="hv")  # a socket's path has a hundred bytes
    request.addfinalizer(lambda: shutil.rmtree(short))
    monkeypatch.setattr(tempfile, "tempdir", short)
    words = ("--unpacked", str(kernel), "--mode32", "all", "--", "--case", "*.vmcall64.KVM-MAPGPA-11*")
    code, shown = run(*words, path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert code == 1
    assert shown.count("Conformance test: ") == 1  # where nobody answers the other lines are not tried
    assert "the machine went away: QEMU ended (9.9): HVABI READY 9.9" in shown
    assert re.search(r"broke: 1 crash", shown)
    assert re.search(r"\d+ not run", shown)
    assert "Traceback" not in shown
    named = re.search(r"^transcript: (.+)$", shown, re.MULTILINE)[1]  # type: ignore[index]
    assert [path.name for path in Path(short).iterdir()] == [Path(named).parent.name]
    assert Path(named).is_file()
