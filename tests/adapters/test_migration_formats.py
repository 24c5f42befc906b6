"""The bitmap and the list of the SEV migration series: out of one host, into another; bytes typed by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.guest import Guest
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import GuestCall, GuestReply, HostAnswer
from hvabi.backend import Backend, Conversion, MemoryLayout, PageState, to_bitmap, to_list

if TYPE_CHECKING:
    from hvabi.adapters.host import Host

LIST, BITMAP = "kvm-shared-pages-list", "kvm-page-enc-bitmap"
NUMBERS = {
    "feb-2020": (0x4018AEC2, 0x4018AEC3, 0xAEC4),
    "v6": (0x4018AEC5, 0x4018AEC6, 0xAEC7),
    "v7": (0x4018AEC6, 0x4018AEC7, None),
    "late-2020": (0x4018AEC8, None, None),
}
"""GET, SET and RESET by post."""
ENOTTY, EFAULT, EINVAL, E2BIG, ENOMEM = (-number & (1 << 64) - 1 for number in (25, 14, 22, 7, 12))
S = PageState.SHARED


def vm(abi: str, *shared: tuple[int, int], revision: str | None = None, memory: bool = True, **more: object) -> Host:
    """Return KVM with these frames shared, as (first, behind the last)."""
    layout = MemoryLayout() if memory else MemoryLayout([(1, 3)])
    backend = Backend(layout=layout, **more)  # type: ignore[arg-type]  # max_ranges
    for start, end in shared:
        backend.convert(Conversion(start, end - start, S), absent="allow")
    spec = load(abi, revision=revision)
    return host_class(abi)(spec, backend=backend)


def ioctl(host: Host, number: int, *blocks: tuple[int, str]) -> HostAnswer:
    """Return what an ioctl does whose argument lies at 0x1000."""
    for at, data in blocks:
        host.memory.write(at, bytes.fromhex(data))
    return host.answer({"cmd": number, "arg": 0x1000})


def q(*numbers: int) -> str:
    return b"".join(number.to_bytes(8, "little") for number in numbers).hex()


def frames(host: Host) -> list[tuple[int, int]]:
    assert all(run.state is S for run in host.backend.query())
    return [(run.start, run.end) for run in host.backend.query()]


# -- the bitmap -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("revision", NUMBERS)
def test_numbers_by_post(revision: str) -> None:
    """Each post answers its own numbers, and no number that only another post has."""
    numbers = {number for row in NUMBERS.values() for number in row if number is not None}
    for number in numbers:
        host = vm(BITMAP, revision=revision)
        answer = ioctl(host, number, (0x1000, q(0, 8, 0x2000)), (0x2000, "ff" * 8))
        assert dict(answer.regs) == {"ret": 0 if number in NUMBERS[revision] else ENOTTY}, hex(number)


def test_one_number_is_set_in_v6_and_get_in_v7() -> None:
    blocks = ((0x1000, q(0, 8, 0x2000)), (0x2000, "f7" + "ff" * 7))
    six, seven = vm(BITMAP, revision="v6"), vm(BITMAP, (2, 4), revision="v7")
    assert ioctl(six, 0x4018AEC6, *blocks).mem == ()
    assert frames(six) == [(3, 4)]
    assert ioctl(seven, 0x4018AEC6, *blocks).mem == ((0x2000, b"\xf3"),)
    assert frames(seven) == [(2, 4)]


@pytest.mark.parametrize(
    ("revision", "pages", "before", "after"),
    [
        ("v6", 12, "00a5", "f7ae"),
        ("v7", 12, "00a5", "f7ae"),
        ("v7", 12, "ffff", "f7fe"),
        ("v7", 16, "00a5", "f7fe"),
        ("v7", 3, "a8", "af"),
        ("late-2020", 9, "0000", "f700"),
        ("feb-2020", 12, "0000", "f7feffffffffffff"),
        ("feb-2020", 65, "00" * 16, "f7fe" + "ff" * 14),
    ],
)
def test_get(revision: str, pages: int, before: str, after: str) -> None:
    """Frames 0x43 and 0x48 are shared: bits 3 and 8 are 0. What lies behind the last page differs from post to post."""
    host = vm(BITMAP, (0x43, 0x44), (0x48, 0x49), revision=revision)
    answer = ioctl(host, NUMBERS[revision][0], (0x1000, q(0x40, pages, 0x2000)), (0x2000, before))
    assert dict(answer.regs) == {"ret": 0}
    assert answer.mem == ((0x2000, bytes.fromhex(after)),)
    assert frames(host) == [(0x43, 0x44), (0x48, 0x49)]


def test_get_of_no_pages_writes_nothing() -> None:
    answer = ioctl(vm(BITMAP), 0x4018AEC6, (0x1000, q(0x40, 0, 0x2000)), (0x2000, "a5"))
    assert (dict(answer.regs), answer.mem) == ({"ret": 0}, ())


def test_set_of_v7_writes_both_states() -> None:
    host = vm(BITMAP, (0x41, 0x50))
    answer = ioctl(host, 0x4018AEC7, (0x1000, q(0x40, 64, 0x2000)), (0x2000, "f7feffffffffff7f"))
    assert (dict(answer.regs), answer.mem) == ({"ret": 0}, ())
    assert frames(host) == [(0x43, 0x44), (0x48, 0x49), (0x7F, 0x80)]


@pytest.mark.parametrize("revision", ["feb-2020", "v6"])
def test_set_before_v7_only_shares(revision: str) -> None:
    host = vm(BITMAP, (5, 7), revision=revision)
    ioctl(host, NUMBERS[revision][1] or 0, (0x1000, q(0, 12, 0x2000)), (0x2000, "f7fe000000000000"))
    assert frames(host) == [(3, 4), (5, 7), (8, 9)]


def test_set_without_a_bitmap_resets_from_v7_on() -> None:
    host = vm(BITMAP, (5, 7), (1 << 40, (1 << 40) + 9))
    assert dict(ioctl(host, 0x4018AEC7, (0x1000, q(5, 1, 0))).regs) == {"ret": 0}
    assert frames(host) == []
    old = vm(BITMAP, (5, 7), revision="v6", memory=False)
    assert dict(ioctl(old, 0x4018AEC6, (0x1000, q(5, 1, 0))).regs) == {"ret": EFAULT}
    assert frames(old) == [(5, 7)]


@pytest.mark.parametrize("revision", ["feb-2020", "v6"])
def test_reset(revision: str) -> None:
    host = vm(BITMAP, (0, 2), (5, 7), revision=revision)
    assert dict(host.answer({"cmd": NUMBERS[revision][2] or 0}).regs) == {"ret": 0}
    assert frames(host) == []
    host.enabled = False
    assert dict(host.answer({"cmd": NUMBERS[revision][2] or 0}).regs) == {"ret": ENOTTY}


def test_refusals_change_and_write_nothing() -> None:
    struct = (0x1000, q(0x40, 8, 0x2000))
    for number in (0x4018AEC6, 0x4018AEC7):
        host = vm(BITMAP, (0x40, 0x42), memory=False)
        far = ioctl(host, number, (0x1000, q(0x40, 8, 0x8000)))
        assert (dict(far.regs), far.mem) == ({"ret": EFAULT}, ())
        host.enabled = False
        off = ioctl(host, number, struct, (0x2000, "00" * 8))
        assert (dict(off.regs), off.mem) == ({"ret": ENOTTY}, ())
        lost = host.answer({"cmd": number, "arg": 0x8000})
        assert (dict(lost.regs), lost.mem) == ({"ret": EFAULT}, ())
        assert frames(host) == [(0x40, 0x42)]


def test_a_bound_takes_a_set_back_as_a_whole() -> None:
    host = vm(BITMAP, (0x41, 0x42), max_ranges=3)
    answer = ioctl(host, 0x4018AEC7, (0x1000, q(0x40, 64, 0x2000)), (0x2000, "55" * 8))
    assert dict(answer.regs) == {"ret": ENOMEM}
    assert frames(host) == [(0x41, 0x42)]


def test_a_bitmap_goes_out_and_in() -> None:
    source, target = vm(BITMAP, (0x43, 0x44), (0x48, 0x60)), vm(BITMAP)
    out = ioctl(source, 0x4018AEC6, (0x1000, q(0x40, 64, 0x2000)))
    ((at, data),) = out.mem
    assert (at, data.hex()) == (0x2000, "f7000000ffffffff")
    assert data == to_bitmap(source.backend, 0x40, 64)
    ioctl(target, 0x4018AEC7, (0x1000, q(0x40, 64, 0x2000)), (0x2000, data.hex()))
    assert frames(target) == frames(source)


# -- the list -------------------------------------------------------------------------------------------------------

PARAMS = "0018000000000000" + "0020000000000000"
TWO = "67d7010000000000cbd70100000000000ef00100000000000ff0010000000000"


@pytest.mark.parametrize(
    ("size", "ret", "mem"),
    [
        (0, EINVAL, ()),
        (16, E2BIG, ()),
        (31, E2BIG, ()),
        (32, 0, ((0x1800, "02000000"), (0x2000, TWO))),
        (4096, 0, ((0x1800, "02000000"), (0x2000, TWO))),
    ],
)
def test_get_list(size: int, ret: int, mem: tuple[tuple[int, str], ...]) -> None:
    host = vm(LIST, (0x1D767, 0x1D7CB), (0x1F00E, 0x1F00F))
    answer = ioctl(host, 0x4018AEC8, (0x1000, PARAMS + size.to_bytes(4, "little").hex() + "a5a5a5a5"))
    assert dict(answer.regs) == {"ret": ret}
    assert tuple((at, data.hex()) for at, data in answer.mem) == mem


@pytest.mark.parametrize("size", [1, 16])
def test_an_empty_list_needs_a_buffer_and_no_room(size: int) -> None:
    answer = ioctl(vm(LIST), 0x4018AEC8, (0x1000, PARAMS + size.to_bytes(8, "little").hex()))
    assert (dict(answer.regs), answer.mem) == ({"ret": 0}, ((0x1800, bytes(4)),))


def test_set_list_does_not_look_at_the_size() -> None:
    host = vm(LIST)
    answer = ioctl(host, 0x4018AEC9, (0x1000, PARAMS + "00" * 8), (0x1800, "02000000"), (0x2000, TWO))
    assert (dict(answer.regs), answer.mem) == ({"ret": 0}, ())
    assert frames(host) == [(0x1D767, 0x1D7CB), (0x1F00E, 0x1F00F)]


@pytest.mark.parametrize(("buffer", "count"), [(0, 2), (0x2000, 0), (0, 0)])
def test_set_of_nothing_on_a_fresh_vm(buffer: int, count: int) -> None:
    host = vm(LIST)
    answer = ioctl(
        host, 0x4018AEC9, (0x1000, q(0x1800, buffer, 64)), (0x1800, count.to_bytes(4, "little").hex()), (0x2000, TWO)
    )
    assert dict(answer.regs) == {"ret": 0}
    assert frames(host) == []


def test_a_refused_list_puts_back_what_lay_amid_its_pages_at_the_bound() -> None:
    """At the bound a read-only page in the middle can only go back behind the pages on both of its sides."""
    host = vm(LIST, max_ranges=1)
    host.backend.convert(Conversion(0x201, 1, PageState.SHARED_READ_ONLY), absent="allow")
    elements = q(0x108, 0x1208) + q(0x1208, 0x210)  # the second one ends before it starts
    answer = ioctl(host, 0x4018AEC9, (0x1000, q(0x1800, 0x2000, 64)), (0x1800, "02000000"), (0x2000, elements))
    assert dict(answer.regs) == {"ret": EINVAL}
    pages = [(run.start, run.end, run.state) for run in host.backend.query()]
    assert pages == [(0x201, 0x202, PageState.SHARED_READ_ONLY)]


def test_set_list_that_cannot_be_read() -> None:
    host = vm(LIST, memory=False)
    for params in ((0x9000, 0x2000), (0x1800, 0x9000), (0x9000, 0)):
        answer = ioctl(host, 0x4018AEC9, (0x1000, q(*params, 64)), (0x1800, "01000000"), (0x2000, TWO))
        assert dict(answer.regs) == {"ret": EFAULT}, params
    host.enabled = False
    assert dict(ioctl(host, 0x4018AEC9, (0x1000, q(0x9000, 0x2000, 64))).regs) == {"ret": ENOTTY}


def test_hostile_counts_are_answered() -> None:
    """2^32 - 1 elements, or a list longer than the address space: an answer, at once."""
    for where in (0x2000, (1 << 64) - 16):
        host = vm(LIST)
        answer = ioctl(host, 0x4018AEC9, (0x1000, q(0x1800, where, 64)), (0x1800, "ffffffff"), (0x2000, TWO))
        assert answer.end == "return"
        assert answer.regs["ret"] in {ENOMEM, EFAULT}


def test_a_list_goes_out_and_in() -> None:
    source, target = vm(LIST, (0x1D767, 0x1D7CB), (0x1F00E, 0x1F00F)), vm(LIST)
    out = dict(ioctl(source, 0x4018AEC8, (0x1000, PARAMS + q(4096))).mem)
    assert out[0x2000].hex() == TWO
    ioctl(target, 0x4018AEC9, (0x1000, PARAMS + "00" * 8), (0x1800, out[0x1800].hex()), (0x2000, out[0x2000].hex()))
    assert frames(target) == frames(source)
    assert to_list(target.backend) == ((0x1D767, 0x1D7CB), (0x1F00E, 0x1F00F))


def test_two_posts_share_a_number() -> None:
    bitmap = vm(BITMAP, revision="late-2020")
    regions = vm(LIST)
    assert ioctl(bitmap, 0x4018AEC8, (0x1000, q(0, 8, 0x2000))).mem == ((0x2000, b"\xff"),)
    assert ioctl(regions, 0x4018AEC8, (0x1000, q(0x1800, 0x2000, 64))).mem == ((0x1800, bytes(4)),)


# -- the VMM's side -------------------------------------------------------------------------------------------------


def test_a_vmm_writes_a_bitmap() -> None:
    """SET of 128 pages from frame 0x40: the structure in the scratch area, the bitmap one page behind it."""
    conversation = Guest(load(BITMAP), scratch=(0x10, 0x14)).convert(0x40000, 128, S)
    call = next(conversation)
    assert isinstance(call, GuestCall)
    assert dict(call.regs) == {"cmd": 0x4018AEC7, "arg": 0x10000}
    assert dict(call.mem) == {0x10000: bytes.fromhex(q(0x40, 128, 0x11000)), 0x11000: bytes(16)}
    with pytest.raises(StopIteration) as end:
        conversation.send(GuestReply(regs={"ret": 0}))
    assert (end.value.value.done, end.value.value.ranges) == (True, ((0x40, 0xC0),))


@pytest.mark.parametrize("pages", [1, 65])
def test_a_vmm_of_v7_names_whole_words_only(pages: int) -> None:
    with pytest.raises(StopIteration) as end:
        next(Guest(load(BITMAP)).convert(0x40000, pages, S))
    assert (end.value.value.done, end.value.value.calls) == (False, 0)


def test_a_vmm_writes_a_list() -> None:
    """One range of 513 pages from frame 0x200: a region of 512 and one of 1."""
    call = next(Guest(load(LIST), scratch=(0x10, 0x14)).convert(0x200000, 513, S))
    assert isinstance(call, GuestCall)
    assert dict(call.regs) == {"cmd": 0x4018AEC9, "arg": 0x10000}
    assert dict(call.mem) == {
        0x10000: bytes.fromhex(q(0x10800, 0x11000, 32)),
        0x10800: bytes.fromhex("02000000"),
        0x11000: bytes.fromhex(q(0x200, 0x400, 0x400, 0x401)),
    }


def test_a_vmm_does_not_believe_an_error() -> None:
    conversation = Guest(load(BITMAP)).convert(0x40000, 64, PageState.PRIVATE)
    next(conversation)
    with pytest.raises(StopIteration) as end:
        conversation.send(GuestReply(regs={"ret": ENOMEM}))
    assert (end.value.value.done, end.value.value.ranges) == (False, ())
