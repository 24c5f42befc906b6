"""The agent of examples/agent: it builds, and booted in QEMU without KVM it makes real calls and answers for all."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from hvabi.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
AGENT = ROOT / "examples/agent"
X86 = ("vmcall", "snp", "tdx")
ARM64 = ("hvc", "cca")
UNTESTED = "built, not tested on hardware"
X86_QEMU = ("qemu-system-x86_64", "-cpu", "max", "-m", "128")
ARM64_QEMU = ("qemu-system-aarch64", "-cpu", "cortex-a76", "-m", "256", "-M")


def needs(*programs: str) -> None:
    missing = [name for name in programs if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("agent")


def build(folder: Path, machine: str) -> None:
    """Build the forms of a machine, where that has not been done."""
    tool = folder / "hvabi"
    tool.write_text(f"#!/bin/sh\nexec '{sys.executable}' -c 'from hvabi.cli.main import run; run()' \"$@\"\n")
    tool.chmod(0o755)
    command = ["make", "-s", "-C", str(AGENT), machine, f"BUILD={folder / 'build'}", f"HVABI={tool}"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr


@pytest.fixture(scope="module")
def x86(folder: Path) -> Path:
    needs("make", "gcc")
    if subprocess.run(["gcc", "-dumpmachine"], capture_output=True, text=True, check=True).stdout[:6] != "x86_64":
        pytest.skip("gcc is for another machine than x86-64")
    build(folder, "x86")
    return folder / "build"


@pytest.fixture(scope="module")
def arm64(folder: Path) -> Path:
    needs("make", "aarch64-linux-gnu-gcc")
    build(folder, "arm64")
    return folder / "build"


class Booted:
    """A machine that runs the agent; lines go over its serial line."""

    def __init__(self, folder: Path, words: tuple[str, ...]) -> None:
        self.path = folder / "line"
        self.process = subprocess.Popen(
            [*words, "-accel", "tcg", "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
             "-chardev", f"socket,id=line,path={self.path},server=on,wait=on", "-serial", "chardev:line"],
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def connect(self) -> socket.socket:
        end = time.monotonic() + 20
        while True:
            line = socket.socket(socket.AF_UNIX)
            try:
                line.connect(str(self.path))
            except OSError:
                line.close()
                assert self.process.poll() is None
                assert time.monotonic() < end
                time.sleep(0.02)
            else:
                line.settimeout(30)
                return line

    def talk(self, *messages: Any) -> list[dict[str, Any]]:
        """Send one message after another and return the answers; a text goes as it is and gets one too."""
        answers: list[dict[str, Any]] = []
        with self.connect() as line, line.makefile() as file:
            for number, message in enumerate(messages, 1):
                text = message if isinstance(message, str) else "@hvabi " + json.dumps({"id": number, **message})
                line.sendall(f"{text}\n".encode())
                answer = next((read for read in file if read.startswith("@hvabi ")), None)
                assert answer is not None, f"no answer to {text}"
                answers.append(json.loads(answer[7:]))
        return answers


@pytest.fixture
def boot(tmp_path: Path) -> Iterator[Any]:
    started: list[Booted] = []

    def start(*words: str) -> Booted:
        needs(words[0])
        started.append(Booted(tmp_path, words))
        return started[-1]

    yield start
    for machine in started:
        machine.process.kill()
        machine.process.wait()


def hello() -> dict[str, Any]:
    return {"cmd": "hello", "min": 1, "max": 1, "runner": "x"}


def configure(abi: str, revision: str, transport: str, **config: Any) -> dict[str, Any]:
    return {"cmd": "configure", "abi": abi, "revision": revision, "transport": transport, "role": "host",
            "config": config}  # fmt: skip


def call(mode: str = "64", cpl: int = 0, **regs: int) -> dict[str, Any]:
    return {"cmd": "call", "vcpu": 0, "cpu": {"mode": mode, "cpl": cpl}, "mem": [],
            "regs": {name: hex(value) for name, value in regs.items()}}  # fmt: skip


# -- building ---------------------------------------------------------------------------------------------------


def test_every_form_for_x86_builds(x86: Path) -> None:
    assert {path.name for path in x86.glob("*.elf") if "x86" in path.name} == {f"agent-x86-{form}.elf" for form in X86}


def test_every_form_for_arm64_builds_and_is_a_linux_image(arm64: Path) -> None:
    for form in ARM64:
        data = (arm64 / f"agent-arm64-{form}.img").read_bytes()
        assert data[56:60] == b"ARM\x64"


def test_without_a_compiler_a_machine_is_left_out_and_that_is_said(tmp_path: Path) -> None:
    needs("make")
    command = ["make", "-C", str(AGENT), f"BUILD={tmp_path}", "CC_X86=no-such-cc", "CC_ARM64=no-such-cc"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0
    assert re.findall(r"left out: the forms for (\w+), because there is no no-such-cc", result.stdout) == [
        "x86",
        "arm64",
    ]


def test_forms_that_no_machine_here_has_are_labelled() -> None:
    """In hello, in the page and in the table of examples."""
    for name in ("x86/form_snp.c", "x86/form_tdx.c", "arm64/form_cca.c"):
        text = (AGENT / name).read_text()
        assert UNTESTED in re.search(r'\.label = "([^"]*)"', text)[1]  # type: ignore[index]
    for page in (ROOT / "docs/test-your-hypervisor.md", ROOT / "examples/README.md"):
        assert UNTESTED in page.read_text()


def test_no_number_of_an_abi_is_typed_by_hand(folder: Path) -> None:
    """Large numbers in the agent's sources are not those of a specification: these come from generated headers."""
    out = folder / "headers"
    wanted = re.search(r"^ABIS := (.*)$", (AGENT / "Makefile").read_text(), re.MULTILINE)[1].split()  # type: ignore[index]
    assert CliRunner().invoke(cli, ["gen", "c", "-o", str(out), *wanted]).exit_code == 0
    headers = "".join(path.read_text() for path in out.glob("*.h"))
    known = {int(text, 16) for text in re.findall(r"#define HVABI_\w+ (0x[0-9a-f]+)U?L*\b", headers)}
    known -= {0x10000, 0x40000000, 0x80000000}  # single bits, which mean many things
    known -= {0x80000001}  # a leaf of CPUID, too
    found = [path for path in AGENT.rglob("*") if path.suffix in (".c", ".h", ".S")]
    sources = [path for path in found if AGENT / "build" not in path.parents]
    assert len(sources) > 10
    for path in sources:
        typed = {int(text, 16) for text in re.findall(r"0x[0-9a-fA-F]{4,}", path.read_text())}
        assert {hex(value) for value in typed & known if value > 0xFFFF} == set(), path


# -- x86 in QEMU without KVM: nobody answers a hypercall ----------------------------------------------------------


KVM = ("kvm-map-gpa-range", "v1")


def test_x86_in_plain_emulation(x86: Path, boot: Any) -> None:
    machine = boot(*X86_QEMU, "-kernel", str(x86 / "agent-x86-vmcall.elf"))
    share: Any = {"rax": 12, "rbx": 0x200000, "rcx": 1, "r15": 2**64 - 1}
    fault = {"end": "fault", "fault": "ud", "regs": {}, "mem": []}
    answers = machine.talk(
        hello(), configure(*KVM, "vmcall64"), {"cmd": "reset"},
        call(**share), call(cpl=3, **share), call(cpl=1, **share),
        configure(*KVM, "vmcall32"), call("32", **share), call("32", 3, **share),
        {"cmd": "reset", "ranges": [["0x200000", "0x1", "shared"]]},
    )  # fmt: skip
    offer = answers[0]["ok"]
    assert offer["abis"] == {"kvm-map-gpa-range": {"revisions": ["v1"], "transports": ["vmcall64", "vmcall32"],
                                                   "roles": ["host"]}}  # fmt: skip
    assert "VMMCALL" in offer["version"]
    assert [answer["ok"] for answer in (*answers[3:6], *answers[7:9])] == [fault] * 5
    assert "raises #ud" in answers[9]["unsupported"]["message"]


def test_bad_input_is_an_error_and_the_agent_lives_on(x86: Path, boot: Any) -> None:
    machine = boot(*X86_QEMU, "-kernel", str(x86 / "agent-x86-vmcall.elf"))
    answers = machine.talk(
        "@hvabi nonsense", "@hvabi [1,2", "@hvabi {" + '"a":{' * 40, "@hvabi \x01\x7f\xff",
        '@hvabi {"id":"x"}', '@hvabi {"id":1}', {"cmd": "dance"}, call(rax=12), "noise\n@hvabi {}",
        configure(*KVM, "carrier-pigeon"), configure(*KVM, "vmcall64", surprise="0x1"),
        configure(*KVM, "vmcall64", enabled=False), configure(*KVM, "vmcall64"), call("32", rax=12),
        {**call(), "regs": {"rsp": "0x1"}}, {**call(), "regs": {"rax": "0x1ffffffffffffffff"}},
        {**call(), "cpu": {"cpl": 4}}, {**call(), "mem": [["0x1000", "00"]]},
        {"cmd": "inject", "fault": "vmm-error", "errno": "0x16"}, {"cmd": "query"},
        {"cmd": "stop"}, hello(),
    )  # fmt: skip
    kinds = [next(key for key in answer if key != "id") for answer in answers]
    assert kinds == [
        *["error"] * 6, "unsupported", *["error"] * 2, *["unsupported"] * 3, "ok", "error", "unsupported",
        *["error"] * 2, *["unsupported"] * 3, "ok", "ok",
    ]  # fmt: skip
    assert all(answer[kind]["message"] for answer, kind in zip(answers, kinds, strict=True) if kind != "ok")


def test_the_runner_says_that_nobody_answered(x86: Path, boot: Any) -> None:
    machine = boot(*X86_QEMU, "-kernel", str(x86 / "agent-x86-vmcall.elf"))
    case = "kvm-map-gpa-range@v1.host.vmcall64.done.already-private"
    result = CliRunner().invoke(cli, ["conform", "kvm-map-gpa-range", "--iut", f"unix:{machine.path}", "--id", case])
    assert result.exit_code == 1
    assert re.search(r"expected return\s+found    fault ud", result.output)


# -- arm64 in QEMU: real HVC and SMC, answered by QEMU's PSCI ------------------------------------------------------


PKVM, CCA = ("pkvm-mem-share", "upstream", "hvc"), ("cca-ipa-state", "rmm-1.1", "smc")
PSCI_VERSION, MEM_SHARE, RSI_SET = 0x84000000, 0xC6000003, 0xC4000197
NOT_SUPPORTED = hex(2**64 - 1)


def test_hvc(arm64: Path, boot: Any) -> None:
    machine = boot(*ARM64_QEMU, "virt", "-kernel", str(arm64 / "agent-arm64-hvc.img"))
    answers = machine.talk(
        hello(), configure(*PKVM, enabled=False), call(x0=PSCI_VERSION, x18=18, x30=30),
        call(x0=MEM_SHARE, x1=0x200000), configure(*PKVM), "@hvabi {",
    )  # fmt: skip
    assert answers[0]["ok"]["abis"]["pkvm-mem-share"]["transports"] == ["hvc"]
    version = int(answers[2]["ok"]["regs"]["x0"], 0)
    assert version >> 16 in (0, 1)  # PSCI 0.2 to 1.x, by every QEMU since 2.0
    assert list(answers[2]["ok"]["regs"]) == ["x0"]
    assert answers[3]["ok"] == {"end": "return", "regs": {"x0": NOT_SUPPORTED}, "mem": []}
    assert "does not announce" in answers[4]["unsupported"]["message"]
    assert "error" in answers[5]


def test_a_host_that_must_have_the_call_is_told_what_it_answers(arm64: Path, boot: Any) -> None:
    machine = boot(*ARM64_QEMU, "virt", "-kernel", str(arm64 / "agent-arm64-hvc.img"), "-append", "call=on")
    case = "pkvm-mem-share@upstream.host.hvc.done.already-private"
    result = CliRunner().invoke(cli, ["conform", "pkvm-mem-share", "--iut", f"unix:{machine.path}", "--id", case])
    assert result.exit_code == 1
    assert "found    0xffffffffffffffff NOT_SUPPORTED" in result.output


def test_smc(arm64: Path, boot: Any) -> None:
    machine = boot(*ARM64_QEMU, "virt,virtualization=on", "-kernel", str(arm64 / "agent-arm64-cca.img"))
    answers = machine.talk(hello(), configure(*CCA), call(x0=PSCI_VERSION), call(x0=RSI_SET, x1=0x200000, x2=0x201000))
    assert UNTESTED in answers[0]["ok"]["version"]
    assert int(answers[2]["ok"]["regs"]["x0"], 0) >> 16 in (0, 1)
    assert answers[3]["ok"]["regs"] == {"x0": NOT_SUPPORTED}


@pytest.mark.parametrize(
    ("machine", "form", "abi"), [("virt,virtualization=on", "hvc", PKVM), ("virt", "cca", CCA)],
    ids=["no-hypervisor", "no-monitor"],
)  # fmt: skip
def test_where_nobody_is_there_the_call_is_undefined(
    arm64: Path, boot: Any, machine: str, form: str, abi: tuple[str, str, str]
) -> None:
    """An agent that is started at EL2 has no hypervisor; an SMC without EL3 has no monitor."""
    booted = boot(*ARM64_QEMU, machine, "-kernel", str(arm64 / f"agent-arm64-{form}.img"))
    answers = booted.talk(hello(), configure(*abi), call(x0=PSCI_VERSION))
    assert answers[2]["ok"] == {"end": "fault", "fault": "undef", "regs": {}, "mem": []}
