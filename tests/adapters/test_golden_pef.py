"""Golden registers of the POWER ultracalls for shared pages, through the codecs, the host and the guest.

Typed by hand from the ultravisor documentation (Linux Documentation/arch/powerpc/ultravisor.rst) and, for the profile,
from reading open-power/ultravisor 6366959. No example was run on a machine.
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

ABI = "pef-uv-share"
IMPLEMENTED = "open-power-6366959"
FRAME = (0x12340000, 16)
"""Frame 0x1234 as (gpa, 4 KiB pages)."""

P2 = 0xFFFFFFFFFFFFFFC9
RETRY = 0xFFFFFFFFFFFFFFFB
PERMISSION = 0xFFFFFFFFFFFFFFF5
FUNCTION = 0xFFFFFFFFFFFFFFFE
PARAMETER = 0xFFFFFFFFFFFFFFFC

CODES = {"U_P2": P2, "U_RETRY": RETRY, "U_PERMISSION": PERMISSION, "U_FUNCTION": FUNCTION, "U_PARAMETER": PARAMETER}


@pytest.mark.parametrize(("name", "number"), CODES.items())
def test_status_codes(name: str, number: int) -> None:
    codec = load(ABI).message("response")
    assert dict(codec.encode({"status": name}).regs) == {"r3": number}
    answer = codec.decode(Wire(regs={"r3": number}))
    assert plain(answer.status) == name
    assert answer.status == number - (1 << 64)


@dataclass(frozen=True, kw_only=True)
class Call:
    """One call: registers, R3 as documented and as implemented, shared pages before and after."""

    id: str
    regs: tuple[int, ...]
    documented: int | None
    implemented: int
    before: tuple[tuple[int, int], ...] = ()
    after: tuple[tuple[int, int], ...] = ()
    secure: bool = True
    cpl: int = 0
    memory: tuple[int, int] | None = None


CALLS = [
    Call(id="share", regs=(0xF130, 0x1234, 1), documented=0, implemented=0xF130, after=(FRAME,)),
    Call(id="again", regs=(0xF130, 0x1234, 1), documented=0, implemented=0xF130, before=(FRAME,), after=(FRAME,)),
    Call(id="take-back", regs=(0xF134, 0x1234, 1), documented=0, implemented=0xF134, before=(FRAME,)),
    Call(id="take-back-private", regs=(0xF134, 0x1234, 1), documented=0, implemented=0xF134),
    Call(
        id="take-all-back", regs=(0xF140,), documented=0, implemented=0xF140,
        before=(FRAME, (0x40000000, 1), (0x80000000, 4096)),
    ),
    # Only the first page of the frame was shared: the call is about the whole frame.
    Call(id="rest-of-a-frame", regs=(0xF130, 0x1234, 1), documented=0, implemented=0xF130,
         before=((0x12340000, 1),), after=(FRAME,)),
    Call(id="three-frames", regs=(0xF130, 0x1234, 3), documented=0, implemented=0xF130, after=((0x12340000, 48),)),
    Call(id="last-frame", regs=(0xF130, 0xFFFFFFFFFFFF, 1), documented=0, implemented=0xF130,
         after=((0xFFFFFFFFFFFF0000, 16),)),
    # U_INVALID is documented and has no number.
    Call(id="not-secure", regs=(0xF130, 0x1234, 1), documented=None, implemented=PERMISSION, secure=False),
    Call(id="problem-state", regs=(0xF130, 0x1234, 1), documented=None, implemented=PERMISSION, cpl=3),
    Call(id="unknown", regs=(0xF160, 0x1234, 1), documented=FUNCTION, implemented=FUNCTION),
    Call(id="wraps", regs=(0xF130, 5, (1 << 64) - 1), documented=P2, implemented=0xF130),
    Call(id="frame-behind-memory", regs=(0xF130, 0x2000, 1), documented=PARAMETER, implemented=0xF130,
         memory=(0, 0x20000)),
    Call(id="runs-out-of-memory", regs=(0xF130, 0x1FFF, 2), documented=P2, implemented=0xF130, memory=(0, 0x20000)),
    # Half of the frame is memory.
    Call(id="half-a-frame", regs=(0xF130, 0x1000, 1), documented=PARAMETER, implemented=0xF130, memory=(0, 0x10008)),
    Call(id="no-frames", regs=(0xF130, 0x1234, 0), documented=0, implemented=0xF130),
]  # fmt: skip


def make(call: Call, profile: str) -> tuple[int, list[tuple[int, int]]]:
    layout = MemoryLayout() if call.memory is None else MemoryLayout([call.memory])
    backend = Backend(layout=layout)
    for gpa, pages in call.before:
        backend.convert(Conversion(gpa >> 12, pages, PageState.SHARED), absent="allow")
    host = host_class(ABI)(load(ABI, profile=profile), backend=backend, enabled=call.secure)
    regs = dict(zip(("r3", "r4", "r5"), call.regs, strict=False))
    answer = host.answer(regs, cpl=call.cpl)
    assert answer.end == "return"
    assert set(answer.regs) <= {"r3"}
    return {**regs, **answer.regs}["r3"], [(run.start << 12, run.end - run.start) for run in backend.query()]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_host_as_documented(call: Call) -> None:
    status, shared = make(call, "spec")
    if call.documented is None:
        assert status != 0
    else:
        assert status == call.documented
    assert shared == list(call.after)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.id)
def test_host_as_implemented(call: Call) -> None:
    assert make(call, IMPLEMENTED) == (call.implemented, list(call.after))


def test_requests_both_ways() -> None:
    spec = load(ABI)
    codec = spec.message("request")
    for name, number in (("SHARE_PAGE", 0xF130), ("UNSHARE_PAGE", 0xF134)):
        wire = codec.encode(opcode=name, gfn=0x1234, num=1)
        assert (dict(wire.regs), wire.mem) == ({"r3": number, "r4": 0x1234, "r5": 1}, ())
        found = plain(codec.decode({"r3": number, "r4": 0x1234, "r5": 1}, strict=True))
        assert found == {"opcode": name, "gfn": 0x1234, "num": 1}
    assert dict(spec.message("unshare-all-request").encode({}).regs) == {"r3": 0xF140}


# -- the guest --------------------------------------------------------------------------------------------------------


def convert(gpa: int, pages: int, r3: int | None, *, profile: str = "spec") -> tuple[list[Any], GuestResult]:
    guest = guest_class(ABI)(load(ABI, profile=profile))
    conversation = guest.convert(gpa, pages, PageState.SHARED)
    calls: list[Any] = []
    try:
        shown = next(conversation)
        while True:
            assert isinstance(shown, GuestCall)
            calls.append(dict(shown.regs))
            shown = conversation.send(GuestReply(regs={} if r3 is None else {"r3": r3}))
    except StopIteration as end:
        return calls, end.value


def test_guest_names_frames() -> None:
    calls, result = convert(0x12340000, 48, 0)
    assert calls == [{"r3": 0xF130, "r4": 0x1234, "r5": 3}]
    assert (result.done, result.ranges) == (True, ((0x12340, 0x12370),))


@pytest.mark.parametrize(("gpa", "pages"), [(0x12341000, 16), (0x12340000, 1), (0x12340000, 15), (0x12340000, 17)])
def test_guest_cannot_name_parts_of_frames(gpa: int, pages: int) -> None:
    calls, result = convert(gpa, pages, 0)
    assert (calls, result.done, result.ranges) == ([], False, ())


@pytest.mark.parametrize("r3", [1, 0xF130, P2, RETRY, PERMISSION, 1 << 63, None])
def test_guest_takes_only_zero_for_success(r3: int | None) -> None:
    calls, result = convert(0x12340000, 16, r3)
    assert (len(calls), result.done, result.ranges) == (1, False, ())


def test_guest_of_an_ultravisor_that_discards_its_result() -> None:
    for r3 in (None, 0xF130, 0):
        assert convert(0x12340000, 16, r3, profile=IMPLEMENTED)[1].done
    for r3 in (0xF134, PERMISSION, RETRY, FUNCTION):
        assert not convert(0x12340000, 16, r3, profile=IMPLEMENTED)[1].done
