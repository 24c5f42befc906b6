"""Run pages and the ioctl that a VMM makes of them; bytes typed from linux/kvm.h 7.3.4 and from live runs."""

from __future__ import annotations

import pytest

from hvabi.adapters.errors import AdapterError
from hvabi.adapters.run_page import attributes_call
from hvabi.backend import PageState

EFAULT = -14


def q(*numbers: int) -> bytes:
    return b"".join(number.to_bytes(8, "little") for number in numbers)


def hypercall(gpa: int, npages: int, attributes: int, *, nr: int = 12, reason: int = 3, flags: int = 1) -> bytes:
    """exit_reason 8, nr 32, args 40, ret 88, flags 96."""
    return bytes(8) + reason.to_bytes(4, "little") + bytes(20) + q(nr, gpa, npages, attributes, 0, 0, 0, 0, flags)


def fault(flags: int, gpa: int, size: int, *, reason: int = 39) -> bytes:
    """exit_reason 8, flags 32, gpa 40, size 48."""
    return bytes(8) + reason.to_bytes(4, "little") + bytes(20) + q(flags, gpa, size)


@pytest.mark.parametrize(
    ("page", "result", "argument"),
    [
        (hypercall(0x1F018000, 1, 0x10), 0, "0080011f00000000001000000000000008000000000000000000000000000000"),
        (hypercall(0x80000000, 512, 0x01), 0, "0000008000000000000020000000000000000000000000000000000000000000"),
        # Observed on Linux 6.12.117: KVM_RUN -1 EFAULT, exit_reason 39, flags 8, one page.
        (fault(8, 0x8000, 0x1000), EFAULT, "0080000000000000001000000000000008000000000000000000000000000000"),
        (fault(0, 0x8000, 0x1000), EFAULT, "0080000000000000001000000000000000000000000000000000000000000000"),
        (fault(8, 0xD000, 0x1000), EFAULT, "00d0000000000000001000000000000008000000000000000000000000000000"),
    ],
    ids=["hypercall-private", "hypercall-2m-shared", "live-fault-private", "fault-shared", "reported-fault"],
)
def test_run_page_to_ioctl(page: bytes, result: int, argument: str) -> None:
    call = attributes_call(page, result=result)
    assert call.command == 0x4020AED2
    assert call.argument.hex() == argument
    # A whole run page gives the same as its head.
    assert attributes_call(page.ljust(4096, b"\0"), result=result) == call


def test_what_the_call_says() -> None:
    call = attributes_call(fault(8, 0x8000, 0x3000), result=EFAULT)
    assert (call.exit, call.gpa, call.size, call.to) == ("kvm-exit-memory-fault", 0x8000, 0x3000, PageState.PRIVATE)


@pytest.mark.parametrize(
    ("page", "result", "code"),
    [
        (fault(8, 0x8000, 0x1000), 0, "not-a-conversion"),  # KVM_RUN succeeded: the exit reason is another exit's
        (fault(8, 0x8000, 0x1000), -22, "refused"),  # the exit reason is stale
        (fault(8, 0x8000, 0x1000, reason=2), EFAULT, "not-a-conversion"),
        (fault(9, 0x8000, 0x1000), EFAULT, "refused"),
        (fault(8, 0x8800, 0x1000), EFAULT, "refused"),
        (fault(8, 0x8000, 0), EFAULT, "refused"),
        (fault(8, 0xFFFFFFFFFFFFF000, 0x1000), EFAULT, "refused"),  # KVM takes no range that ends at 2^64
        (fault(8, 0x8000, 0x1000)[:40], EFAULT, "short-page"),
        (hypercall(0x8000, 1, 0x10, nr=1), 0, "refused"),
        (hypercall(0x8000, 0xFFFFFFFFFFFF9, 0x10), 0, "refused"),
        (hypercall(0x8000, 1, 0x10)[:80], 0, "short-page"),
        (b"", 0, "not-a-conversion"),
        (bytes(104), 0, "not-a-conversion"),
    ],
)
def test_what_is_no_conversion(page: bytes, result: int, code: str) -> None:
    with pytest.raises(AdapterError) as caught:
        attributes_call(page, result=result)
    assert caught.value.code == code
