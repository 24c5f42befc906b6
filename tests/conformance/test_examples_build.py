"""The C and Rust examples: they build without a warning, answer as the documents say, and their planted bugs show."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from tests.conformance.example_builds import EXAMPLES, LANGUAGES, Peer, build, differences, run, tool
from tests.conformance.exchanges import (
    ALIGN,
    EINVAL,
    INVALID,
    KVM64,
    MIB2,
    PAGE,
    RETRY,
    S48,
    SCRIPTS,
    A,
    asks_tdx,
    configure,
    ends,
    hello,
    kvm,
    lines_of,
    returns,
    shared,
    steps,
)

if TYPE_CHECKING:
    from pathlib import Path

# Where the bug shows, and what it says there: the answer that is written down is the wrong one.
BUGS: dict[str, tuple[str, dict[str, Any]]] = {
    "r11-without-shared-bit": ("tdx-stop-after-one-page", returns(r10=RETRY, r11=A + PAGE)),
    "accept-zero-size": ("tdx-size-zero", returns(r10=0)),
    "alignment-first": ("tdx-size-zero-comes-before-alignment", returns(r10=ALIGN, r11=S48 | 0x40101800)),
    "accept-straddle": ("tdx-straddles-the-shared-bit", returns(r10=0)),
    "eagain-is-invalid": ("tdx-vmm-eagain-is-retry", returns(r10=INVALID, r11=S48 | A)),
    "aligned-chunks": ("tdx-event-after-a-chunk-then-the-rest", returns(r10=RETRY, r11=S48 | A + MIB2 - PAGE)),
    "enosys-38": ("kvm-not-enabled", returns(rax=0xFFFFFFFFFFFFFFDA)),
    "enabled-last": ("kvm-not-enabled-comes-before-arguments", returns(rax=EINVAL)),
    "accept-frame-wrap": ("kvm-frame-numbers-wrap", returns(rax=22)),
    "negate-vmm-error": ("kvm-vmm-einval-is-positive", returns(rax=EINVAL)),
    "sign-extend-32": ("kvm32-address-not-aligned", returns(rax=EINVAL)),
    "hint-scales-count": ("kvm-2m-hint-counts-4k-pages", shared((0x80000000, 1024))[1]),
    "polarity": ("tdx-one-page-to-shared", shared()[1]),
    "convert-on-refusal": ("tdx-vmm-einval", shared((A, 1))[1]),
    "retry-is-success": ("tdx-guest-goes-on-after-retry", ends(True, (A, 4, "shared"))),
    "retry-is-failure": ("tdx-guest-goes-on-after-retry", ends(False)),
    "resume-without-shared-bit": ("tdx-guest-goes-on-after-retry", asks_tdx(A + PAGE, 3 * PAGE)),
    "trust-r11": ("tdx-guest-refuses-r11-above", asks_tdx(S48 | A + 5 * PAGE, 0xFFFFFFFFFFFFF000)),
    "retry-forever": ("tdx-guest-gives-up-at-the-third-answer-without-progress", asks_tdx(S48 | A, 4 * PAGE)),
    "accept-tail-only": ("tdx-guest-accepts-all-of-the-range-at-last", steps("accept", A + 3 * PAGE, 1, "private")),
    "ignore-result": ("kvm-guest-is-refused-by-kvm", ends(True, (0x8000, 1, "shared"))),
    "hide-r13": ("tdx-guest-to-shared", {"yield": {**asks_tdx(S48 | A, 4 * PAGE)["yield"]}}),
}
BUGS["hide-r13"][1]["yield"]["regs"] = {**BUGS["hide-r13"][1]["yield"]["regs"], "rcx": "0x1c00"}


@pytest.fixture(scope="module", params=LANGUAGES)
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    return build(request.param, tmp_path_factory.mktemp(request.param))


@pytest.mark.parametrize("name", SCRIPTS)
def test_answers_as_written_down(program: str, name: str) -> None:
    assert differences(SCRIPTS[name], run(program, lines_of(SCRIPTS[name]))) == []


# One bug of each role stands for the rest of Rust's where time is short.
QUICK = ("r11-without-shared-bit", "retry-is-success")


@pytest.mark.parametrize(
    ("language", "bug"),
    [("gcc", bug) for bug in BUGS]
    + [pytest.param("rust", bug, marks=[] if bug in QUICK else pytest.mark.slow) for bug in BUGS],
)
def test_planted_bug_shows(language: str, bug: str, tmp_path: Path) -> None:
    name, wrong = BUGS[bug]
    answers = run(build(language, tmp_path, bug=bug), lines_of(SCRIPTS[name]))
    (_, found), *_ = differences(SCRIPTS[name], answers)
    assert found == wrong


def test_every_planted_bug_is_in_both_and_documented() -> None:
    text = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    c, rust = ((EXAMPLES / path).read_text(encoding="utf-8") for path in ("c/my_vmm.c", "rust/my_vmm.rs"))
    for bug in BUGS:
        assert f"BUG({bug.upper().replace('-', '_')})" in c, bug
        assert f'bug = "{bug}"' in rust, bug
        assert f"`{bug}`" in text, bug
    assert c.count("BUG(X)") == 1
    assert {word.split(")")[0].lower().replace("_", "-") for word in c.split("BUG(")[1:]} == {*BUGS, "x", "name"}


def test_hello_says_what_is_there(program: str) -> None:
    roles = ["host", "guest"]
    with Peer(program) as peer:
        found = peer.ok(hello())
        assert found.pop("name").startswith("my-vmm (")
        assert found.pop("version") == "1"
        assert found == {
            "protocol": 1,
            "abis": {
                "kvm-map-gpa-range": {"revisions": ["v1"], "transports": ["vmcall64", "vmcall32"], "roles": roles},
                "tdx-map-gpa": {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": roles},
            },
            "features": ["inject"],
        }
        assert peer.ok(hello(features=["local-steps", "telepathy", 5]))["features"] == ["inject", "local-steps"]
        # What one hello has agreed on does not outlive the next.
        assert peer.ok(hello(features="local-steps"))["features"] == ["inject"]


def test_answers_before_more_input_comes(program: str) -> None:
    with Peer(program) as peer:
        for command, answer in KVM64:
            assert peer.ask(command) == answer
        assert peer.ask(kvm(0x8000, 1)) == returns(rax=0)
        assert peer.ok({"cmd": "stop"}) == {}
        assert peer.process.wait(10) == 0


@pytest.mark.parametrize("end", [b"", b"@hvabi {", b"kernel panic", b"x" * 5000], ids=["empty", "cut", "log", "long"])
def test_end_of_input_ends_it_well(program: str, end: bytes) -> None:
    assert len(run(program, end)) == end.startswith(b"@hvabi ")


def test_a_last_line_without_its_end_counts(program: str) -> None:
    assert run(program, b'@hvabi {"id":7,"cmd":"stop"}') == [{"id": 7, "ok": {}}]


def test_deep_json_is_refused(program: str) -> None:
    deep = "[" * 100_000 + "]" * 100_000
    (answer, again) = run(program, f'@hvabi {{"id":1,"x":{deep}}}\n@hvabi {{"id":2,"cmd":"stop"}}\n'.encode())
    assert (answer["id"], list(answer), again) == (None, ["id", "error"], {"id": 2, "ok": {}})


def test_too_many_ranges_are_refused(program: str) -> None:
    many = [[hex(2 * page << 12), "0x1", "shared"] for page in range(17_000)]
    with Peer(program) as peer:
        peer.ok(configure("vmcall64", "host"))
        assert "error" in peer.ask({"cmd": "reset", "ranges": many})
        assert peer.ok({"cmd": "query"})["ranges"] == []
        peer.ok({"cmd": "reset", "ranges": many[:16384]})
        assert peer.ok({"cmd": "query"})["ranges"] == many[:16384]
        assert peer.ask(kvm(0x40000000, 1)) == returns(rax=22)
        assert peer.ok({"cmd": "query"})["ranges"] == many[:16384]


def test_the_largest_range_takes_no_time(program: str) -> None:
    """128 TiB are 67 million chunks of 2 MiB: an implementation must not go through them one by one."""
    with Peer(program) as peer:
        peer.ok(configure("tdcall", "host"))
        answer = peer.ask({"cmd": "call", "vcpu": 0, "regs": {"r11": "0x10001", "r12": hex(S48), "r13": hex(S48)}})
        assert answer == returns(r10=0)
        assert peer.ok({"cmd": "query"})["ranges"] == [["0x0", hex(S48 >> 12), "shared"]]


@pytest.mark.slow
def test_sanitizers_find_nothing(tmp_path: Path) -> None:
    out = tmp_path / "my-vmm"
    flags = ["-std=c99", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [tool("gcc"), *flags, str(EXAMPLES / "c/my_vmm.c"), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        pytest.skip("this compiler has no sanitizers")
    for script in SCRIPTS.values():
        assert differences(script, run(str(out), lines_of(script))) == []
