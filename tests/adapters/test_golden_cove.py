"""Golden registers of the CoVE-Guest calls for shared regions, through the codecs, the host and the guest.

Typed by hand from the CoVE specification (sbi_cove.adoc, c71310c) and, for one profile, from reading Salus (27b8d1d).
No example was run on a machine.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from hvabi.abi.registry import load
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire
from hvabi.adapters.registry import guest_class, host_class
from hvabi.adapters.values import GuestCall, GuestReply, GuestResult
from hvabi.backend import Backend, Conversion, MemoryLayout, PageState

ABI = "cove-memory-region"
EID = 0x434F5647
TEXT, SALUS = "cove-0.7-text", "salus-27b8d1d"
FAILED, NOT_SUPPORTED, INVALID_PARAM, DENIED, INVALID_ADDRESS = (
    0xFFFFFFFFFFFFFFFF,
    0xFFFFFFFFFFFFFFFE,
    0xFFFFFFFFFFFFFFFD,
    0xFFFFFFFFFFFFFFFC,
    0xFFFFFFFFFFFFFFFB,
)
REGION = (0x80000000, 4)
"""Four pages as (gpa, 4 KiB pages)."""


def test_the_extension_id_is_covg() -> None:
    assert EID.to_bytes(4, "big") == b"COVG"


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("SUCCESS", 0), ("FAILED", FAILED), ("NOT_SUPPORTED", NOT_SUPPORTED), ("INVALID_PARAM", INVALID_PARAM),
        ("DENIED", DENIED), ("INVALID_ADDRESS", INVALID_ADDRESS), ("ALREADY_AVAILABLE", 0xFFFFFFFFFFFFFFFA),
    ],
)  # fmt: skip
def test_errors(name: str, number: int) -> None:
    codec = load(ABI).message("response")
    assert dict(codec.encode({"error": name, "value": 0}).regs) == {"a0": number, "a1": 0}
    assert plain(codec.decode(Wire(regs={"a0": number, "a1": 0})).error) == name


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: A6, A0 and A1, A0 afterwards by the text and by Salus, shared pages before and after."""

    id: str
    regs: tuple[int, int, int]
    text: int
    salus: int
    before: tuple[tuple[int, int], ...] = ()
    after: tuple[tuple[int, int], ...] = ()
    enabled: bool = True
    memory: tuple[tuple[int, int], ...] | None = None


CALLS = [
    Call(id="share", regs=(2, 0x80000000, 0x4000), text=0, salus=0, after=(REGION,)),
    Call(id="take-back", regs=(3, 0x80000000, 0x4000), text=0, salus=0, before=(REGION,)),
    Call(id="address-not-aligned", regs=(2, 0x80000800, 0x4000), text=INVALID_ADDRESS, salus=INVALID_PARAM),
    Call(id="length-not-aligned", regs=(2, 0x80000000, 0x4800), text=INVALID_PARAM, salus=INVALID_ADDRESS),
    Call(id="shared-already", regs=(2, 0x80000000, 0x4000), text=INVALID_PARAM, salus=INVALID_ADDRESS,
         before=(REGION,), after=(REGION,)),
    Call(id="half-is-shared", regs=(2, 0x80000000, 0x4000), text=INVALID_PARAM, salus=INVALID_ADDRESS,
         before=((0x80002000, 2),), after=((0x80002000, 2),)),
    Call(id="confidential-already", regs=(3, 0x80000000, 0x4000), text=INVALID_PARAM, salus=INVALID_ADDRESS),
    Call(id="unknown-function", regs=(63, 0, 0), text=NOT_SUPPORTED, salus=NOT_SUPPORTED),
    Call(id="emulated-region", regs=(0, 0x10000000, 0x1000), text=0, salus=0),
    Call(id="not-a-tvm", regs=(2, 0x80000000, 0x4000), text=NOT_SUPPORTED, salus=NOT_SUPPORTED, enabled=False),
    Call(id="wraps", regs=(2, 0xFFFFFFFFFFFFF000, 0x2000), text=INVALID_PARAM, salus=INVALID_ADDRESS),
    Call(id="behind-memory", regs=(2, 0x80000000, 0x4000), text=INVALID_ADDRESS, salus=INVALID_ADDRESS,
         memory=((0, 0x80000),)),
    Call(id="runs-out-of-memory", regs=(2, 0x80000000, 0x4000), text=INVALID_PARAM, salus=INVALID_ADDRESS,
         memory=((0, 0x80002),)),
    Call(id="two-slots-that-meet", regs=(2, 0x80000000, 0x4000), text=0, salus=0, after=(REGION,),
         memory=((0, 0x80002), (0x80002, 0x80012))),
    Call(id="no-bytes", regs=(2, 0x80000000, 0), text=0, salus=0),
]  # fmt: skip


def make(call: Call, profile: str) -> tuple[dict[str, int], list[tuple[int, int]]]:
    layout = MemoryLayout() if call.memory is None else MemoryLayout(call.memory)
    backend = Backend(layout=layout)
    for gpa, pages in call.before:
        backend.convert(Conversion(gpa >> 12, pages, PageState.SHARED), absent="allow")
    host = host_class(ABI)(load(ABI, profile=profile), backend=backend, enabled=call.enabled)
    function, gpa, length = call.regs
    regs = {"a7": EID, "a6": function, "a0": gpa, "a1": length, "a2": 0x55, "a5": 0x66}
    answer = host.answer(regs)
    assert answer.end == "return"
    assert set(answer.regs) <= {"a0", "a1"}
    return dict(answer.regs), [(run.start << 12, run.end - run.start) for run in backend.query()]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_host_by_the_text(call: Call) -> None:
    assert make(call, TEXT) == ({"a0": call.text, "a1": 0}, list(call.after))


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_host_like_salus(call: Call) -> None:
    assert make(call, SALUS) == ({"a0": call.salus, "a1": 0}, list(call.after))


def test_salus_compares_the_whole_of_a6() -> None:
    for upper in (1 << 16, 1 << 26, 1 << 32):
        call = Call(id="upper", regs=(upper | 2, 0x80000000, 0x4000), text=0, salus=NOT_SUPPORTED, after=(REGION,))
        assert make(call, TEXT) == ({"a0": 0, "a1": 0}, [REGION])
        assert make(call, SALUS) == ({"a0": NOT_SUPPORTED, "a1": 0}, [])


def test_requests_both_ways() -> None:
    codec = load(ABI).message("request")
    for name, number in (("SHARE_MEMORY_REGION", 2), ("UNSHARE_MEMORY_REGION", 3)):
        regs = {"a7": EID, "a6": number, "a0": 0x80000000, "a1": 0x4000}
        assert dict(codec.encode(fid=name, gpa=0x80000000, len=0x4000).regs) == regs
        found = plain(codec.decode(regs, strict=True))
        assert (found["fid"], found["gpa"], found["len"]) == (name, 0x80000000, 0x4000)
    found = plain(codec.decode({"a7": EID, "a6": 0xFC000002, "a0": 0, "a1": 0}))
    assert (found["fid"], found["sdid"], found["fid_reserved"]) == ("SHARE_MEMORY_REGION", 0x3F, 0)


# -- the guest --------------------------------------------------------------------------------------------------------


def convert(pages: int, refused_above: int, code: int = FAILED) -> tuple[list[tuple[int, int]], GuestResult]:
    """Let a guest share pages on a host that refuses regions of more pages; return the regions that it asked for."""
    conversation = guest_class(ABI)(load(ABI)).convert(0x80000000, pages, PageState.SHARED)
    asked: list[tuple[int, int]] = []
    try:
        shown: Any = next(conversation)
        while True:
            assert isinstance(shown, GuestCall)
            regs = dict(shown.regs)
            assert (regs.pop("a7"), regs.pop("a6")) == (EID, 2)
            asked.append((regs["a0"], regs["a1"]))
            refused = regs["a1"] > refused_above * 4096
            shown = conversation.send(GuestReply(regs={"a0": code if refused else 0, "a1": 0}))
    except StopIteration as end:
        return asked, end.value


def test_guest_asks_once() -> None:
    asked, result = convert(4, 4)
    assert asked == [(0x80000000, 0x4000)]
    assert (result.done, result.ranges) == (True, ((0x80000, 0x80004),))


def test_guest_asks_for_single_pages_where_more_is_refused() -> None:
    asked, result = convert(3, 1)
    assert asked == [(0x80000000, 0x3000), (0x80000000, 0x1000), (0x80001000, 0x1000), (0x80002000, 0x1000)]
    assert (result.done, result.ranges) == (True, ((0x80000, 0x80003),))


@pytest.mark.parametrize("code", [1, 0x1000, FAILED, INVALID_PARAM, 1 << 63])
def test_guest_gives_up_where_everything_is_refused(code: int) -> None:
    asked, result = convert(3, 0, code)
    assert asked == [(0x80000000, 0x3000), (0x80000000, 0x1000)]
    assert (result.done, result.ranges) == (False, ())
