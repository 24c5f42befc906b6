"""Whatever is typed, no command ends with an internal error or a traceback."""

from __future__ import annotations

from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.abi.registry import abi_ids, bundled
from hvabi.cli.main import cli

ABIS = st.sampled_from(abi_ids())
NAMES = sorted(
    {
        name
        for abi in abi_ids()
        for message in bundled(abi).messages.values()
        for field in message.fields.values()
        for inner in [field.word, field.items]
        for name in [field.name, *(f"{field.name}.{part}" for part in (inner.fields if inner else ()))]
    }
)
MESSAGES = sorted({name for abi in abi_ids() for name in [*bundled(abi).messages, *bundled(abi).layouts]})
TRANSPORTS = sorted({name for abi in abi_ids() for name in bundled(abi).transports})
REGISTERS = [
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "r8",
    "r10",
    "r11",
    "r12",
    "r13",
    "r1",
    "r2",
    "x0",
    "x1",
    "x2",
    "a0",
    "a7",
    "cc",
    "xmm0",
    "zz",
]
WORDS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ["-", "--json", "--bits", "--all", "--raw", "--", "", "0x", "=", "a=b", "rax=", "[", "/", "@", "%", "\x00"]
    ),
)
NUMBERS = st.one_of(
    st.integers(-(1 << 70), 1 << 130).map(hex),
    st.integers(-3, 300).map(str),
    st.sampled_from(["SHARED", "1f", "0x", "[1,2]", ""]),
)
TARGETS = st.one_of(
    ABIS,
    st.tuples(ABIS, st.sampled_from(MESSAGES)).map("/".join),
    st.tuples(ABIS, st.sampled_from(["v1", "v10", "v12", "x", ""])).map("@".join),
    WORDS,
)
OPTIONS = st.lists(
    st.one_of(
        st.sampled_from(TRANSPORTS).map(lambda name: ["-t", name]),
        st.sampled_from(["gpaw=52", "gpaw=7", "x=1", "=", "snp=0"]).map(lambda item: ["--set", item]),
        st.sampled_from(["--all", "--json"]).map(lambda item: [item]),
    ),
    max_size=2,
).map(lambda items: [word for item in items for word in item])
FIELDS = st.tuples(
    st.one_of(
        st.sampled_from(NAMES),
        st.sampled_from(["entries[0]", "entries[1].gfn", "ranges[0]", "request.gpa", "request."]),
        WORDS,
    ),
    NUMBERS,
).map("=".join)
TOKENS = st.tuples(st.sampled_from([*REGISTERS, "mem[0x1000]", "mem[zz]", "MSR_C0010130"]), NUMBERS).map("=".join)


def check(args: list[str], data: bytes | None = None) -> None:
    result = CliRunner(env={"HVABI_TRACEBACK": None}).invoke(cli, args, input=data)
    assert result.exit_code in (0, 1, 2), (args, result.stderr)
    assert "Traceback" not in result.output
    assert len(result.stderr.splitlines()) <= 24
    assert (result.exit_code == 2) == bool(result.stderr), (args, result.stderr)


@settings(max_examples=400, deadline=None)
@given(target=TARGETS, fields=st.lists(FIELDS, max_size=6), options=OPTIONS)
def test_encode(target: str, fields: list[str], options: list[str]) -> None:
    check(["encode", *options, "--", target, *fields])


@settings(max_examples=300, deadline=None)
@given(target=TARGETS, tokens=st.lists(TOKENS, max_size=6), options=OPTIONS)
def test_decode_of_registers(target: str, tokens: list[str], options: list[str]) -> None:
    check(["decode", *options, "--", target, *tokens], b"")


@settings(max_examples=60, deadline=None)  # each is offered to every message of every ABI
@given(abi=ABIS, data=st.one_of(st.binary(max_size=80), st.binary(min_size=4080, max_size=4100)), options=OPTIONS)
def test_decode_of_bytes(abi: str, data: bytes, options: list[str]) -> None:
    check(["decode", *options, abi, "-"], data)
    check(["decode", *options, abi, "--raw", "-"], data)


@settings(max_examples=40, deadline=None)  # `explain` looks through all of them
@given(words=st.lists(WORDS, max_size=5), command=st.sampled_from(["encode", "decode", "explain", "show", "list"]))
def test_any_words(words: list[str], command: str) -> None:
    check([command, *words], b"")
