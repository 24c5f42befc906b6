"""What a VMM and its guest do with private memory, step by step: the same steps for a real kernel and for a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PAGE = 0x1000
FIRST, SECOND, THIRD = 0x1111111111111111, 0x2222222222222222, 0x3333333333333333
BOTH = (0x0, 0x100000, True)
"""A slot with shared and with private memory, as gpa, bytes, and whether it can be private."""
PLAIN = (0x200000, 0x10000, False)
"""A slot with shared memory only."""
NOWHERE = 0x400000
"""An address in neither."""
SIZES_2M = 0x200000

Step = tuple[Any, ...]
"""A word and its arguments; see `Vmm` for the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Steps on one VM.

    Attributes:
        name: unique.
        steps: in order.
        protected: whether the VM has private memory at all.

    """

    name: str
    steps: tuple[Step, ...]
    protected: bool = True


def _call(gpa: int, pages: int, private: int) -> Step:
    return ("call", gpa, pages, private << 4)


SCENARIOS = (
    Scenario(
        name="the two memories of a page",
        steps=(
            ("host-write", 0x8000, FIRST), ("read", 0x8000), _call(0x8000, 1, 1), ("read", 0x8000),
            ("write", 0x8000, SECOND), ("read", 0x8000), ("host-read", 0x8000), _call(0x8000, 1, 0), ("read", 0x8000),
            ("write", 0x8000, THIRD), ("host-read", 0x8000), _call(0x8000, 1, 1), ("read", 0x8000),
            ("host-read", 0x8000),
        ),
    ),
    Scenario(
        name="asked twice",
        steps=(
            ("host-write", 0x8000, FIRST), _call(0x8000, 1, 1), ("write", 0x8000, SECOND), _call(0x8000, 1, 1),
            ("read", 0x8000), _call(0x8000, 1, 0), _call(0x8000, 1, 0), ("read", 0x8000),
        ),
    ),
    Scenario(
        name="a range and its neighbours",
        steps=(
            *(("host-write", 0x8000 + PAGE * n, FIRST + n) for n in range(6)), _call(0x9000, 4, 1),
            *(("read", 0x8000 + PAGE * n) for n in range(6)), _call(0xA000, 2, 0),
            *(("read", 0x8000 + PAGE * n) for n in range(6)),
        ),
    ),
    Scenario(
        name="a range of two megabytes that ends outside its slot",
        steps=(
            ("host-write", 0x80000, FIRST), ("host-write", 0x200000, SECOND), _call(0x0, 512, 1), ("read", 0x80000),
            ("read", 0x200000), _call(0x0, 512, 0), ("read", 0x80000),
        ),
    ),
    Scenario(
        name="the VMM refuses",
        steps=(
            ("host-write", 0x8000, FIRST), ("refuse",), _call(0x8000, 1, 1), ("read", 0x8000), _call(0x8000, 1, 1),
            ("read", 0x8000), ("refuse",), _call(0x8000, 1, 0), ("read", 0x8000),
        ),
    ),
    Scenario(
        name="KVM refuses by itself",
        steps=(
            ("host-write", 0x8000, FIRST), _call(0x8800, 1, 1), _call(0x8000, 0, 1), ("read", 0x8000),
        ),
    ),
    Scenario(
        name="the hypercall lets through what the ioctl does not take",
        steps=(
            ("host-write", 0x8000, FIRST), _call(2**64 - PAGE, 1, 1), _call(2**64 - PAGE, 2, 1),
            _call(0x8000, 2**52 - 8, 1), _call(0x8000, 2**52 - 7, 0), ("read", 0x8000),
        ),
    ),
    Scenario(
        name="private where there is no private memory",
        steps=(
            ("host-write", 0x200000, FIRST), _call(0x200000, 1, 1), ("read", 0x200000),
            ("set", 0x200000, PAGE, 0, 0), ("go",), ("read", 0x200000), _call(0x201000, 1, 1),
            ("write", 0x201000, SECOND), ("set", 0x201000, PAGE, 0, 0), ("go",), ("host-read", 0x201000),
        ),
    ),
    Scenario(
        name="private where there is no memory",
        steps=(_call(NOWHERE, 1, 1), ("read", NOWHERE), ("set", NOWHERE, PAGE, 0, 0), ("go",)),
    ),
    Scenario(
        name="touched while shared, then private where there is no memory",
        steps=(("read", NOWHERE), _call(NOWHERE, 1, 1), ("read", NOWHERE)),
    ),
    Scenario(
        name="touched while shared, then private where there is no private memory",
        steps=(("host-write", 0x200000, FIRST), ("read", 0x200000), _call(0x200000, 1, 1), ("read", 0x200000)),
    ),
    Scenario(
        name="across the end of a slot",
        steps=(
            ("host-write", 0xFF000, FIRST), _call(0xFF000, 2, 1), ("read", 0xFF000), ("read", 0x100000),
            ("set", 0x100000, PAGE, 0, 0), ("go",),
        ),
    ),
    Scenario(
        name="what the ioctl takes and refuses",
        steps=tuple(
            ("set", address, size, attributes, flags)
            for address, size, attributes, flags in (
                (0x8000, PAGE, 8, 0), (0x8000, PAGE, 8, 0), (0x8000, PAGE, 0, 0), (0x8000, PAGE, 0, 0),
                (SIZES_2M, SIZES_2M, 8, 0), (SIZES_2M, SIZES_2M, 0, 0), (0x10000000, PAGE, 8, 0),
                (1 << 47, PAGE, 8, 0), (1 << 52, PAGE, 0, 0), (1 << 52, PAGE, 8, 0), (1 << 63, PAGE, 0, 0),
                (2**64 - 2 * PAGE, PAGE, 0, 0), (2**64 - PAGE, PAGE, 0, 0), (2**64 - PAGE, PAGE, 8, 0),
                (2**64 - PAGE, 2 * PAGE, 0, 0), (0x8000, 2**64 - PAGE, 8, 0), (0x8000, 0, 8, 0), (0x8000, 0, 0, 0),
                (0x8800, PAGE, 8, 0), (0x8001, PAGE, 8, 0), (0x8000, 0x1800, 8, 0), (0x8000, 1, 8, 0),
                (0x8000, PAGE, 8, 1), (0x8000, PAGE, 0, 1 << 63), (0x8000, PAGE, 1, 0), (0x8000, PAGE, 2, 0),
                (0x8000, PAGE, 4, 0), (0x8000, PAGE, 7, 0), (0x8000, PAGE, 9, 0), (0x8000, PAGE, 15, 0),
                (0x8000, PAGE, 16, 0), (0x8000, PAGE, 24, 0), (0x8000, PAGE, 1 << 63, 0), (0x8000, PAGE, 2**64 - 1, 0),
            )
        ),
    ),
    Scenario(
        name="a VM without private memory",
        protected=False,
        steps=(
            ("check",), ("host-write", 0x8000, FIRST), _call(0x8000, 1, 1), ("read", 0x8000), _call(0x8000, 1, 0),
            ("read", 0x8000), ("set", 0x8000, PAGE, 8, 0), ("set", 0x8000, PAGE, 0, 0), ("set", 0x8000, 0, 0, 0),
            ("set", 0x8800, PAGE, 0, 0), ("set", 0x8000, PAGE, 0, 1), ("set", 2**64 - PAGE, PAGE, 0, 0),
        ),
    ),
    Scenario(name="what a VM with private memory says of itself", steps=(("check",),)),
)  # fmt: skip
"""All of them. A page is shared to begin with, as KVM has it."""
