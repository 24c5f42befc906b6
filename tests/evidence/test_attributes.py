"""KVM's memory attributes as real kernels answered, against the adapters; and the rig itself without a kernel."""

from __future__ import annotations

import json
import os
import socket
import sys
import tempfile
import threading
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import pytest
from click.testing import CliRunner

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.backend import Backend, MemoryLayout, PageState
from hvabi.cli.live_common import version_of
from hvabi.cli.main import cli
from hvabi.evidence.live import attributes as live
from hvabi.evidence.live.bench import Bench
from hvabi.evidence.live.chain import End, Vmm
from hvabi.evidence.live.errors import LiveError
from hvabi.evidence.live.kernels import Store, unpacked
from hvabi.evidence.live.model import Model
from hvabi.evidence.live.modules import newest, rebuilt
from hvabi.evidence.live.observations import Observed, read
from hvabi.evidence.live.played import rows_of
from hvabi.evidence.live.scenarios import BOTH, PLAIN, SCENARIOS

if TYPE_CHECKING:
    from types import ModuleType

DATA = Path(__file__).parent.parent / "data" / "live" / "attributes"
FILES = sorted(DATA.glob("*.ndjson"))
GUEST = Path(str(files("hvabi.evidence.live.guest")))


# -- what kernels answered --------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FILES, ids=lambda path: path.stem)
def observed(request: pytest.FixtureRequest) -> Observed:
    return read(request.param)


def pages(rows: Any) -> list[tuple[int, int]]:
    return [(int(gpa, 0) >> 12, (int(gpa, 0) >> 12) + int(count, 0)) for gpa, count in rows]


def test_the_host_answers_the_ioctl_as_observed(observed: Observed) -> None:
    spec = load(live.ABI, profile=live.profile_of(version_of(observed.kernel)) or "spec")
    seen = 0
    for item in observed.observations:
        asked = item.asked
        if "scenario" in asked:
            continue
        layout = MemoryLayout(pages(asked["memory"])) if "memory" in asked else None
        config = {name: int(value, 0) for name, value in asked.get("config", {}).items()}
        host = host_class(live.ABI)(spec, config=config, backend=Backend(layout=layout))
        states = asked.get("states", [])
        shared = pages([row[:2] for row in states])
        host.backend.reset(ranges=[(start, end, PageState.SHARED) for start, end in shared])
        for gpa, data in asked["mem"]:
            host.memory.poke(int(gpa, 0), bytes.fromhex(data))
        answer = host.answer({name: int(value, 0) for name, value in asked["regs"].items()})
        ranges = [[hex(run.start << 12), hex(run.end - run.start), run.state.value] for run in host.backend.query()]
        said: dict[str, Any] = {
            "end": answer.end,
            "regs": {name: hex(value) for name, value in answer.regs.items()},
            "mem": [],
        }
        # A VM without private memory has no states to show.
        states = [{"query": {"ranges": ranges, "facts": {}}}] if "config" not in asked else []
        assert item.found == [{"ok": said}, *states], asked
        seen += 1
    assert seen >= 60


def steps(observed: Observed) -> dict[tuple[str, int], tuple[list[str], list[Any]]]:
    found = [(item.asked, item.found) for item in observed.observations if "scenario" in item.asked]
    return {(asked["scenario"], asked["number"]): (asked["step"], events) for asked, events in found}


def played(model: Model) -> dict[tuple[str, int], tuple[list[str], list[Any]]]:
    found = [row.observation for scenario in SCENARIOS for row in rows_of(scenario, model, model)]
    return {(item.asked["scenario"], item.asked["number"]): (item.asked["step"], item.found) for item in found}


def test_every_step_of_the_scenarios_as_observed(observed: Observed) -> None:
    assert played(live.model_of(version_of(observed.kernel))) == steps(observed)


class OneMemory(Model):
    """The page keeps its contents when it changes sides."""

    def _touch(self, gpa: int, access: Any) -> Any:
        return super()._touch(gpa, lambda _: access(PageState.SHARED))


class NoFault(Model):
    """A private page without private memory reads as zero."""

    def _touch(self, gpa: int, access: Any) -> Any:
        end = super()._touch(gpa, access)
        return End(kind="done") if end.kind == "fault" else end


class Deaf(Model):
    """The ioctl says yes and does nothing."""

    def set_attributes(self, data: bytes) -> int:
        self._attributes.backend.reset(ranges=[(0, 1 << 52, PageState.SHARED)])
        return 0


class TopPage(Model):
    """The ioctl takes a range that ends at 2^64."""

    def set_attributes(self, data: bytes) -> int:
        start, size = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8))
        return 0 if start + size == 2**64 else super().set_attributes(data)


@pytest.mark.parametrize("liar", [OneMemory, NoFault, Deaf, TopPage])
def test_a_kernel_that_lies_is_seen(observed: Observed, liar: type[Model]) -> None:
    version = version_of(observed.kernel)
    model = liar(call="linux-kvm-6.12", attributes=live.profile_of(version) or "spec")
    found = played(model)
    assert [key for key, value in steps(observed).items() if found[key] != value]


def test_the_vmm_refuses_by_itself_and_asks_nothing() -> None:
    """By hand: the exit, 22 as answer, rax, and the page as it was."""
    (scenario,) = [one for one in SCENARIOS if one.name == "the VMM refuses"]
    model = Model(call="linux-kvm-6.12", attributes="linux-kvm-6.12")
    *_, call, look, _, _, _, _, _ = Vmm(model).play(scenario, (BOTH, PLAIN))
    assert [next(iter(event)) for event in call] == ["exit", "answer", "rax"]
    assert call[1]["answer"]["mem"] == [["0x58", "1600000000000000"]]
    assert (call[2], look) == ({"rax": "0x16"}, [{"word": "0x1111111111111111"}])


# -- the program of the machine ---------------------------------------------------------------------------------


class PlayedVm:
    """KVM with private memory as the rig needs it: attributes per page, two words per page."""

    made: ClassVar[list[PlayedVm]] = []
    wrong: ClassVar[bool] = False

    def __init__(self, parameters: dict[str, Any], slots: Any = (), kind: int = 1) -> None:
        self.parameters, self.private, self.kind = parameters, set[int](), kind
        self.shared_words: dict[int, bytes] = {}
        self.slots = [tuple(slot) for slot in slots]
        PlayedVm.made.append(self)

    def close(self) -> None:
        self.closed = True

    def set_attributes(self, argument: Any) -> int:
        import ctypes

        data = argument if isinstance(argument, bytes | bytearray) else ctypes.string_at(argument, 32)
        start, size, bits, flags = (int.from_bytes(data[at : at + 8], "little") for at in (0, 8, 16, 24))
        if flags or bits & ~8 or not size or start % 4096 or size % 4096 or start + size >= 2**64:
            return -22
        pages = set(range(start >> 12, (start + size) >> 12))
        self.private = self.private | pages if bits else self.private - pages
        return 0

    def slot_of(self, gpa: int) -> Any:
        return next((slot for slot in self.slots if slot[0] <= gpa < slot[0] + slot[1]), None)

    def add(self, gpa: int, size: int, private: bool) -> Any:
        self.slots.append((gpa, size, private))
        return self.slots[-1]

    def remove(self, slot: Any) -> None:
        self.slots.remove(slot)

    def host_write(self, gpa: int, data: bytes) -> None:
        assert self.slot_of(gpa) is not None
        self.shared_words[gpa] = data

    def read(self, addresses: list[int]) -> tuple[list[int], None]:
        words = [0 if gpa >> 12 in self.private else int.from_bytes(self.shared_words[gpa], "little")
                 for gpa in addresses]  # fmt: skip
        return ([word + 1 for word in words] if PlayedVm.wrong else words), None


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(GUEST))
    for name in ("kvm_iut", "vcpu", "bench", "private_vm", "attributes_iut"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import attributes_iut  # type: ignore[import-not-found]  # started on its own in the machine

    PlayedVm.made, PlayedVm.wrong = [], False
    monkeypatch.setattr(attributes_iut.private_vm, "PrivateVm", PlayedVm)
    monkeypatch.setattr(attributes_iut.kvm_iut.vcpu, "instruction", lambda: "vmmcall")
    return attributes_iut  # type: ignore[no-any-return]  # an import is untyped here


def talk(program: ModuleType, *commands: Any) -> list[dict[str, Any]]:
    lines = ["@hvabi " + json.dumps({"id": number, **one}) + "\n" for number, one in enumerate(commands, 1)]
    out: list[str] = []
    program.kvm_iut.serve(lines, out.append, live.parameters((6, 12)), program.session)
    return [json.loads(line[7:]) for line in out]


HELLO = {"cmd": "hello", "min": 1, "max": 1, "runner": "x"}
CONFIGURE = {"cmd": "configure", "abi": live.ABI, "revision": "v1", "transport": "ioctl", "role": "host"}
RESET = {"cmd": "reset", "ranges": [["0x200000", "0x3", "shared"]], "facts": {}}


def ask(start: int, size: int, private: bool) -> dict[str, Any]:
    data = b"".join(value.to_bytes(8, "little") for value in (start, size, private * 8, 0))
    return {"cmd": "call", "regs": {"cmd": "0x4020aed2", "arg": "0x10000"}, "mem": [["0x10000", data.hex()]]}


QUERY = {"cmd": "query"}


def test_a_call_and_what_the_guest_sees(program: ModuleType) -> None:
    *_, before, call, after = talk(program, HELLO, CONFIGURE, RESET, QUERY, ask(0x201000, 0x1000, True), QUERY)
    assert before["ok"]["ranges"] == [["0x200000", "0x3", "shared"]]
    assert call["ok"] == {"end": "return", "regs": {"ret": "0x0"}, "mem": []}
    assert after["ok"]["ranges"] == [["0x200000", "0x1", "shared"], ["0x202000", "0x1", "shared"]]


def test_a_vm_without_private_memory_is_another_vm(program: ModuleType) -> None:
    *_, call = talk(program, HELLO, {**CONFIGURE, "config": {"supported": "0x0"}}, RESET, ask(0x201000, 0x1000, False))
    assert call["ok"]["regs"] == {"ret": "0x0"}
    assert (PlayedVm.made[-1].kind, PlayedVm.made[-1].slots) == (0, [(0, 64 << 20, False)])


def test_pages_around_the_request_are_looked_at(program: ModuleType) -> None:
    """They are private to begin with, though KVM begins with shared ones."""
    *_, after = talk(program, HELLO, CONFIGURE, {**RESET, "ranges": []}, ask(0x300000, 0x2000, False), QUERY)
    assert after["ok"]["ranges"] == [["0x300000", "0x2", "shared"]]


def test_pages_above_the_slots_are_looked_at_too(program: ModuleType) -> None:
    *_, after = talk(program, HELLO, CONFIGURE, {**RESET, "ranges": []}, ask(1 << 33, 0x1000, False), QUERY)
    assert after["ok"]["ranges"] == [["0x200000000", "0x1", "shared"]]
    assert PlayedVm.made[-1].slots == [(0, 64 << 20, True)]


def test_a_structure_in_no_memory_is_not_laid_down(program: ModuleType) -> None:
    """Its address is one that cannot be read: what a kernel makes of it is EFAULT, and no process dies."""
    session = program.Session(live.parameters((6, 12)))
    session.memory = [(0, 0x10000), (0x11000, 0x1000)]
    for argument, can in ((0x10000, 0), (0xFFF8, 8), (0xFFE0, 32), (0x11000, 32), (0x10FF8, 0)):
        assert session.buffer.address + 4096 - session._lay(argument, bytes(32)) == can


@pytest.mark.parametrize(
    ("commands", "kind"),
    [
        ([{"cmd": "hello", "min": 2, "max": 3}], "unsupported"),
        ([HELLO, {**CONFIGURE, "role": "guest"}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"supported": "0x1"}}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"supported": "0x0"}}, RESET, QUERY], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"enabled": False}}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"max_ranges": "0x2"}}], "unsupported"),
        ([HELLO, {**CONFIGURE, "config": {"profile": "qemu"}}], "unsupported"),
        ([HELLO, RESET], "error"),
        ([HELLO, ask(0, 0x1000, True)], "error"),
        ([HELLO, CONFIGURE, {**RESET, "ranges": [["0x0", "0x1", "shared-read-only"]]}], "unsupported"),
        ([HELLO, CONFIGURE, RESET, ask(0x200000, 1 << 52, True)], "unsupported"),
        ([HELLO, CONFIGURE, RESET, ask(1 << 52, 0x1000, True)], "unsupported"),
        ([HELLO, CONFIGURE, RESET, {"cmd": "call", "regs": {"cmd": "0x1"}}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "inject", "fault": "memory-flip"}], "unsupported"),
        ([HELLO, CONFIGURE, {"cmd": "resume"}], "error"),
    ],
)  # fmt: skip
def test_what_the_program_cannot_do(program: ModuleType, commands: list[Any], kind: str) -> None:
    assert kind in talk(program, *commands)[-1]


def test_a_guest_that_sees_what_nobody_wrote_is_an_error(program: ModuleType) -> None:
    PlayedVm.wrong = True
    *_, seen = talk(program, HELLO, CONFIGURE, RESET, ask(0x201000, 0x1000, True), QUERY)
    assert "what nobody wrote" in seen["error"]["message"]


# -- what can go wrong ------------------------------------------------------------------------------------------


def run(*words: str, path: str | None = None) -> tuple[int, str]:
    env = {"PATH": path} if path is not None else None
    result = CliRunner().invoke(cli, ["live", "attributes", *words], env=env, prog_name="hvabi")
    return result.exit_code, result.output


def tool(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def leftovers() -> set[str]:
    return {path.name for path in Path(tempfile.gettempdir()).glob("hvabi-live-*")}


def unpacked_kernel(folder: Path, release: str) -> Path:
    """A folder that looks like an unpacked kernel package."""
    (folder / "boot").mkdir(parents=True)
    (folder / f"boot/vmlinuz-{release}").write_bytes(b"no kernel")
    modules = folder / f"lib/modules/{release}/kernel"
    modules.mkdir(parents=True)
    for name, needs in (("kvm", b""), ("kvm-amd", b"kvm")):
        (modules / f"{name}.ko").write_bytes(b"\0depends=" + needs + b"\0stock")
    return folder


@pytest.fixture
def kernel(tmp_path: Path) -> Path:
    return unpacked_kernel(tmp_path / "k", "9.9.9-amd64")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache in which the modules of that kernel are built already."""
    place = tmp_path / "cache/modules/9.9.9-amd64-sw-protected-1"
    place.mkdir(parents=True)
    for name, needs in (("kvm", b""), ("kvm-amd", b"kvm")):
        (place / f"{name}.ko").write_bytes(b"\0depends=" + needs + b"\0rebuilt")
    (place / "whole").touch()
    return tmp_path / "cache"


def test_the_rebuilt_modules_come_first(kernel: Path, cache: Path) -> None:
    chosen = rebuilt(Store(cache), unpacked(kernel))
    assert [(name, data.endswith(b"rebuilt")) for name, data in chosen.with_needs(["kvm_amd"])] == [
        ("kvm", True), ("kvm_amd", True),
    ]  # fmt: skip


def test_without_qemu(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    code, shown = run(path=str(tmp_path / "bin"))
    assert (code, "skipped, because qemu-system-x86_64 is not installed" in shown) == (4, True)
    assert "apt-get install" in shown


SAYS = 'for word; do case $word in file:*) echo "{}" > "${{word#file:}}";; esac; done; sleep 60'


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (SAYS.format("Kernel panic - not syncing: no init"), "the kernel panicked (9.9.9-amd64): Kernel panic"),
        ("kill -9 $$", "QEMU ended while the machine booted"),
        (SAYS.format("HVABI MODULE kvm Invalid module format"), "a module cannot be loaded"),
    ],
    ids=["panic", "killed", "module"],
)
def test_a_machine_that_does_not_come_up(kernel: Path, cache: Path, tmp_path: Path, script: str, words: str) -> None:
    tool(tmp_path / "bin", "qemu-system-x86_64", script)
    before = leftovers()
    code, shown = run("--unpacked", str(kernel), "--cache", str(cache), path=f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    assert (code, words in shown) == (4, True), shown
    assert leftovers() == before


@pytest.mark.parametrize("release", ["6.1.0-56-amd64", "6.12.117+deb12-cloud-amd64", "custom"])
def test_kernels_whose_modules_cannot_be_built(tmp_path: Path, release: str) -> None:
    tool(tmp_path / "bin", "qemu-system-x86_64", "exit 1")
    path = unpacked_kernel(tmp_path / "k", release)
    code, shown = run("--unpacked", str(path), "--cache", str(tmp_path / "c"), path=f"{tmp_path / 'bin'}")
    assert (code, f"the modules of {release} cannot be built again" in shown) == (4, True)


def test_without_make(kernel: Path, tmp_path: Path) -> None:
    tool(tmp_path / "bin", "qemu-system-x86_64", "exit 1")
    code, shown = run("--unpacked", str(kernel), "--cache", str(tmp_path / "c"), path=f"{tmp_path / 'bin'}")
    assert (code, "skipped, because make is not installed" in shown) == (4, True)


def test_apt_that_has_no_headers(kernel: Path, tmp_path: Path) -> None:
    tool(tmp_path / "bin", "qemu-system-x86_64", "exit 1")
    tool(tmp_path / "bin", "make", "exit 1")
    for name in ("apt-get", "apt-cache"):
        tool(tmp_path / "bin", name, 'echo "E: No packages found" >&2; exit 100')
    words = ("--unpacked", str(kernel), "--cache", str(tmp_path / "c"))
    code, shown = run(*words, path=f"{tmp_path / 'bin'}")
    assert (code, "skipped, because apt-cache: E: No packages found" in shown) == (4, True)
    assert not list((tmp_path / "c").glob("build-*"))


@pytest.fixture
def packages(kernel: Path, tmp_path: Path) -> Path:
    """An apt that has headers and source of the kernel, as far as a build needs them."""
    import tarfile

    shelf = tmp_path / "shelf"
    headers = shelf / "headers/usr/src/linux-headers-9.9.9-amd64"
    headers.mkdir(parents=True)
    (headers / ".kernelvariables").write_text("CC = gcc-99\noverride CROSS_COMPILE = x86_64-linux-gnu-\n")
    tree = tmp_path / "linux-source-9.9/arch/x86/kvm"
    tree.mkdir(parents=True)
    (tree / "Makefile").write_text(
        "ccflags-y += -I $(srctree)/arch/x86/kvm\ninclude $(srctree)/virt/kvm/Makefile.kvm\n"
    )
    (tree / "trace.h").write_text("#define TRACE_INCLUDE_PATH ../../arch/x86/kvm\n")
    source = shelf / "source/usr/src"
    source.mkdir(parents=True)
    with tarfile.open(source / "linux-source-9.9.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "linux-source-9.9", "linux-source-9.9")
    bin_ = tmp_path / "bin"
    tool(bin_, "qemu-system-x86_64", "exit 1")
    tool(bin_, "apt-cache", "echo Version: 9.9.9-1")
    tool(bin_, "apt-get", 'for word; do :; done; echo "$word" > "$PWD/x.deb"')
    unpack = f"""
case $(cat $2) in
  linux-headers-9.9.9-amd64) cp -r {shelf}/headers/. $3;;
  linux-source-9.9=9.9.9-1) cp -r {shelf}/source/. $3;;
esac"""
    tool(bin_, "dpkg-deb", unpack)
    tool(bin_, "x86_64-linux-gnu-gcc-99", "exit 0")
    return bin_


def build(kernel: Path, packages: Path, tmp_path: Path) -> tuple[int, str]:
    words = ("--unpacked", str(kernel), "--cache", str(tmp_path / "c"))
    return run(*words, path=f"{packages}:{os.environ['PATH']}")


MAKES = """
for word; do case $word in M=*) folder="${word#M=}";; esac; done
grep -q 'src)/../../../virt/kvm/Makefile.kvm' $folder/Makefile || exit 1
grep -q 'TRACE_INCLUDE_PATH \\.$' $folder/trace.h || exit 1
for name in kvm kvm-amd; do printf '\\0depends=\\0' > $folder/$name.ko; done"""


def test_a_build_is_kept(kernel: Path, packages: Path, tmp_path: Path) -> None:
    tool(packages, "make", MAKES)
    code, shown = build(kernel, packages, tmp_path)
    assert (code, "QEMU ended" in shown) == (4, True), shown
    assert {path.name for path in (tmp_path / "c/modules").rglob("*") if path.is_file()} == {
        "kvm.ko", "kvm-amd.ko", "whole",
    }  # fmt: skip
    assert not list((tmp_path / "c").glob("build-*"))
    tool(packages, "make", "exit 1")
    assert "QEMU ended" in build(kernel, packages, tmp_path)[1]


def test_a_build_that_fails_says_why_and_leaves_nothing(kernel: Path, packages: Path, tmp_path: Path) -> None:
    tool(packages, "make", "echo 'kvm_main.c:12: error: no such thing'; exit 2")
    code, shown = build(kernel, packages, tmp_path)
    assert (code, "KVM's modules cannot be built: kvm_main.c:12: error: no such thing" in shown) == (4, True)
    assert not list((tmp_path / "c").glob("build-*"))
    assert not list((tmp_path / "c").glob("modules/*"))


def test_without_the_compiler_of_the_kernel(kernel: Path, packages: Path, tmp_path: Path) -> None:
    tool(packages, "make", "exit 1")
    (packages / "x86_64-linux-gnu-gcc-99").unlink()
    code, shown = build(kernel, packages, tmp_path)
    assert (code, "x86_64-linux-gnu-gcc-99 is not installed" in shown, "gcc-99" in shown) == (4, True, True)


def test_a_source_of_another_shape(kernel: Path, packages: Path, tmp_path: Path) -> None:
    import tarfile

    tree = tmp_path / "linux-source-9.9"
    (tree / "arch/x86/kvm/Makefile").write_text("obj-y := kvm.o\n")
    with tarfile.open(tmp_path / "shelf/source/usr/src/linux-source-9.9.tar.xz", "w:xz") as archive:
        archive.add(tree, "linux-source-9.9")
    tool(packages, "make", MAKES)
    code, shown = build(kernel, packages, tmp_path)
    assert (code, "Makefile of this kernel is another" in shown) == (4, True)


def test_the_newest_kernel_is_generic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["linux-image-6.1.0-56-amd64", "linux-image-6.12.9+deb12-amd64", "linux-image-6.12.10+deb12-amd64",
             "linux-image-6.12.10+deb12-cloud-amd64"]  # fmt: skip
    store = Store(tmp_path)
    monkeypatch.setattr(store, "names", lambda: names)
    assert newest(store) == "linux-image-6.12.10+deb12-amd64"
    monkeypatch.setattr(store, "names", lambda: names[:1])
    with pytest.raises(LiveError) as caught:
        newest(store)
    assert caught.value.code == "no-kernel"


# -- the bench --------------------------------------------------------------------------------------------------


def served(path: Path, *answers: bytes) -> threading.Thread:
    """Serve one conversation: each line is answered by the next bytes, then the line is closed."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)

    def serve() -> None:
        with server, server.accept()[0] as peer:
            for answer in answers:
                peer.recv(1 << 16)
                peer.sendall(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    return thread


def test_the_bench_reads_past_noise(tmp_path: Path) -> None:
    served(
        tmp_path / "s",
        b'[ 1.0] kernel words\n@hvabi {"id":0,"ok":{}}\n@hvabi {"id":1,"ok":{"end":"done","rax":"0x5"}}\n',
    )
    with Bench(tmp_path / "s") as bench:
        assert bench.read(0x8000).rax == 5


@pytest.mark.parametrize(
    "answer", [b"", b'@hvabi {"id":1,"error":{"message":"KVM: no"}}\n', b"@hvabi {\n", b"@hvabi []\n"]
)
def test_a_machine_that_goes_away_or_raves(tmp_path: Path, answer: bytes) -> None:
    served(tmp_path / "s", answer)
    with Bench(tmp_path / "s") as bench, pytest.raises(LiveError) as caught:
        bench.read(0x8000)
    assert caught.value.code == "no-answer"


def test_a_machine_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LiveError):
        Bench(tmp_path / "nothing")
