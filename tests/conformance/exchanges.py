"""Exchanges of the line protocol with hand-written answers: from the documents of the two calls and the protocol page.

No number here is printed by an implementation; the sources are Linux's x86 KVM code (6.16 and 7.3), its TDX guest code,
EDK2 and the GHCI fragments that spec/intel/tdx-map-gpa.yaml and spec/kvm/kvm-map-gpa-range.yaml name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Sequence

PREFIX = "@hvabi "
MAX_LINE = 1 << 20

OK: dict[str, Any] = {"ok": {}}
ERROR: dict[str, Any] = {"error": ...}
UNSUPPORTED: dict[str, Any] = {"unsupported": ...}
NOTHING: dict[str, Any] = {}
"""What is expected of a line that is not answered."""

Turn = tuple[dict[str, Any] | bytes, dict[str, Any]]
"""What is sent (a command without its id, or a raw line with its end), and what is answered (without the id)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """A session from its start. `bundled` says why the bundled adapters are known to answer otherwise."""

    turns: tuple[Turn, ...]
    bundled: str | None = None


def script(*turns: Turn | Sequence[Turn], bundled: str | None = None) -> Script:
    """Join single turns and lists of turns."""
    flat: list[Turn] = []
    for turn in turns:
        if isinstance(turn, list):
            flat += turn
        else:
            flat.append(cast("Turn", turn))
    return Script(turns=tuple(flat), bundled=bundled)


def sent(what: dict[str, Any] | bytes, ident: int) -> bytes:
    """Return the line for a turn."""
    if isinstance(what, bytes):
        return what
    return (PREFIX + json.dumps({"id": ident, **what}) + "\n").encode()


def lines_of(script: Script) -> bytes:
    """Return a whole script as input; ids are the numbers of the turns."""
    return b"".join(sent(what, number) for number, (what, _) in enumerate(script.turns))


def matches(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Whether an answer, without its id, is the expected one; ``...`` stands for any message."""
    if expected in (ERROR, UNSUPPORTED):
        (word,) = expected
        return list(found) == [word] and list(found[word]) == ["message"] and isinstance(found[word]["message"], str)
    return found == expected


# -- short forms ------------------------------------------------------------------------------------------------


def hex_values(values: dict[str, int]) -> dict[str, str]:
    return {name: hex(value) for name, value in values.items()}


def hello(**more: Any) -> dict[str, Any]:
    return {"cmd": "hello", "min": 1, "max": 1, "runner": "test", **more}


def configure(transport: str, role: str, **config: Any) -> dict[str, Any]:
    abi, revision = ("tdx-map-gpa", "ghci-1.5") if transport == "tdcall" else ("kvm-map-gpa-range", "v1")
    return {
        "cmd": "configure",
        "abi": abi,
        "revision": revision,
        "transport": transport,
        "role": role,
        "config": config,
    }


def reset(*ranges: tuple[int, int]) -> dict[str, Any]:
    return {"cmd": "reset", "ranges": [[hex(gpa), hex(pages), "shared"] for gpa, pages in ranges], "facts": {}}


def call(regs: dict[str, int], cpl: int = 0, mode: str = "64") -> dict[str, Any]:
    return {"cmd": "call", "vcpu": 0, "cpu": {"mode": mode, "cpl": cpl}, "regs": hex_values(regs), "mem": []}


def returns(**regs: int) -> dict[str, Any]:
    return {"ok": {"end": "return", "regs": hex_values(regs), "mem": []}}


def inject(fault: str, **arguments: int) -> Turn:
    return {"cmd": "inject", "fault": fault, **hex_values(arguments)}, OK


def shared(*ranges: tuple[int, int]) -> Turn:
    """Ask for the state and expect these shared ranges."""
    rows = [[hex(gpa), hex(pages), "shared"] for gpa, pages in ranges]
    return {"cmd": "query"}, {"ok": {"ranges": rows, "facts": {}}}


def kvm(gpa: int, pages: int, attributes: int = 0, *, nr: int = 12, **more: Any) -> dict[str, Any]:
    return call({"rax": nr, "rbx": gpa, "rcx": pages, "rdx": attributes}, **more)


def tdx(gpa: int, size: int, *, leaf: int = 0x10001, r10: int = 0) -> dict[str, Any]:
    return call({"rax": 0, "rcx": 0x3C00, "r10": r10, "r11": leaf, "r12": gpa, "r13": size})


def convert(gpa: int, pages: int, to: str) -> dict[str, Any]:
    return {"cmd": "convert", "gpa": hex(gpa), "pages": hex(pages), "to": to}


def resume(**regs: int) -> dict[str, Any]:
    return {"cmd": "resume", "regs": hex_values(regs), "mem": []}


def asks_kvm(gpa: int, pages: int, attributes: int) -> dict[str, Any]:
    return {"yield": {"regs": hex_values({"rax": 12, "rbx": gpa, "rcx": pages, "rdx": attributes}), "mem": []}}


def asks_tdx(gpa: int, size: int) -> dict[str, Any]:
    regs = {"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": gpa, "r13": size}
    return {"yield": {"regs": hex_values(regs), "mem": []}}


def steps(word: str, gpa: int, pages: int, to: str) -> dict[str, Any]:
    return {"yield": {"step": word, "ranges": [[hex(gpa), hex(pages), to]]}}


def ends(done: bool, *ranges: tuple[int, int, str]) -> dict[str, Any]:
    return {"ok": {"done": done, "ranges": [[hex(gpa), hex(pages), to] for gpa, pages, to in ranges]}}


# -- numbers of the two calls, written out: see the module's text ---------------------------------------------------

EPERM, EINVAL, ENOSYS = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFEA, 0xFFFFFFFFFFFFFC18
EPERM32, EINVAL32, ENOSYS32 = 0xFFFFFFFF, 0xFFFFFFEA, 0xFFFFFC18
RETRY, INVALID, ALIGN, UNKNOWN = 1, 0x8000000000000000, 0x8000000000000002, 0x8000000000000003
S48, S52 = 0x800000000000, 0x8000000000000
PAGE, MIB2 = 0x1000, 0x200000
A = 0x100001000
"""A page address whose frame number is odd, so that chunks of 2 MiB from it are not aligned to 2 MiB."""

KVM64 = [(configure("vmcall64", "host"), OK), (reset(), OK)]
KVM32 = [(configure("vmcall32", "host"), OK), (reset(), OK)]
TDX48 = [(configure("tdcall", "host", gpaw="0x30"), OK), (reset(), OK)]
TDX52 = [(configure("tdcall", "host", gpaw="0x34"), OK), (reset(), OK)]
KVM_OFF = [(configure("vmcall64", "host", enabled=False), OK), (reset(), OK)]
TDX_OFF = [(configure("tdcall", "host", enabled=False), OK), (reset(), OK)]
KVM_GUEST = [(configure("vmcall64", "guest"), OK), (reset(), OK)]
KVM_GUEST32 = [(configure("vmcall32", "guest"), OK), (reset(), OK)]
TDX_GUEST = [(configure("tdcall", "guest", gpaw="0x30"), OK), (reset(), OK)]
TDX_GUEST52 = [(configure("tdcall", "guest", gpaw="0x34"), OK), (reset(), OK)]
STEPS = (hello(features=["local-steps", "wishes"]), {"ok": ...})
"""A hello whose answer is looked at elsewhere: it only switches the local steps on."""

KVM_HOST = {
    "kvm-one-page-to-private": script(
        KVM64, (reset((0x1F018000, 1)), OK), (kvm(0x1F018000, 1, 0x10), returns(rax=0)), shared()
    ),
    "kvm-2m-hint-counts-4k-pages": script(KVM64, (kvm(0x80000000, 2, 0x01), returns(rax=0)), shared((0x80000000, 2))),
    "kvm-2m-hint-needs-no-alignment": script(KVM64, (kvm(0x8000, 1, 0x01), returns(rax=0)), shared((0x8000, 1))),
    "kvm-reserved-attribute-bits-do-not-matter": script(
        KVM64,
        (reset((0x8000, 3)), OK),
        (kvm(0x9000, 1, 0xFFFFFFFFFFFFFFFF), returns(rax=0)),
        shared((0x8000, 1), (0xA000, 1)),
    ),
    "kvm-joins-and-splits": script(
        KVM64,
        (kvm(0x10000, 1), returns(rax=0)),
        (kvm(0x12000, 1), returns(rax=0)),
        shared((0x10000, 1), (0x12000, 1)),
        (kvm(0x11000, 1), returns(rax=0)),
        shared((0x10000, 3)),
        (kvm(0x11000, 1, 0x10), returns(rax=0)),
        shared((0x10000, 1), (0x12000, 1)),
        (kvm(0xF000, 5, 0x10), returns(rax=0)),
        shared(),
    ),
    "kvm-address-not-aligned": script(KVM64, (kvm(0x1F018800, 1, 0x10), returns(rax=EINVAL)), shared()),
    "kvm-no-pages": script(KVM64, (kvm(0x1F018000, 0), returns(rax=EINVAL)), shared()),
    "kvm-frame-numbers-wrap": script(
        KVM64, (kvm(0xFFFFFFFFFFFFF000, 0xFFF0000000000001), returns(rax=EINVAL)), shared()
    ),
    "kvm-vmm-refuses-past-2^64-bytes": script(
        KVM64,
        (kvm(0xFFFFFFFFFFFFF000, 2), returns(rax=22)),
        (kvm(0xFFFFFFFFFFFFF000, 1), returns(rax=22)),
        (kvm(0xFFFFFFFFFFFFE000, 1), returns(rax=0)),
        shared((0xFFFFFFFFFFFFE000, 1)),
    ),
    "kvm-not-enabled": script(KVM_OFF, (kvm(0x1F018000, 1), returns(rax=ENOSYS)), shared()),
    "kvm-not-enabled-comes-before-arguments": script(KVM_OFF, (kvm(0x1F018800, 0), returns(rax=ENOSYS)), shared()),
    "kvm-unknown-number": script(KVM64, (kvm(0x1F018000, 1, nr=0x7FFF), returns(rax=ENOSYS)), shared()),
    "kvm-cpl-3": script(KVM64, (kvm(0x1F018000, 1, cpl=3), returns(rax=EPERM)), shared()),
    "kvm-cpl-comes-before-everything": script(KVM_OFF, (kvm(0x1F018800, 0, cpl=1), returns(rax=EPERM)), shared()),
    "kvm-vmm-einval-is-positive": script(
        KVM64,
        inject("vmm-error", errno=22),
        (kvm(0x1F018000, 1), returns(rax=22)),
        shared(),
        (kvm(0x1F018000, 1), returns(rax=0)),
        shared((0x1F018000, 1)),
    ),
    "kvm-vmm-eagain-is-shown": script(
        KVM64, inject("vmm-error", errno=11), (kvm(0x8000, 1), returns(rax=11)), shared()
    ),
    "kvm-vmm-any-number-is-shown": script(
        KVM64, inject("vmm-error", errno=7), (kvm(0x8000, 1), returns(rax=7)), shared()
    ),
    "kvm-bad-call-uses-the-injection-up": script(
        KVM64, inject("vmm-error", errno=22), (kvm(0x8000, 0), returns(rax=EINVAL)), (kvm(0x8000, 1), returns(rax=0))
    ),
    "kvm-later-injection-replaces": script(
        KVM64, inject("vmm-error", errno=22), inject("vmm-error", errno=5), (kvm(0x8000, 1), returns(rax=5))
    ),
    "kvm-no-partial-progress-to-inject": script(
        KVM64,
        ({"cmd": "inject", "fault": "stop-after", "pages": "0x1"}, UNSUPPORTED),
        ({"cmd": "inject", "fault": "event-pending", "after": "0x1"}, UNSUPPORTED),
    ),
    "kvm-error-value-of-the-vmm": script(
        (configure("vmcall64", "host", error_value="0x1"), OK),
        (reset(), OK),
        (kvm(0xFFFFFFFFFFFFF000, 2), returns(rax=1)),
        (kvm(0x8000, 0), returns(rax=EINVAL)),
    ),
    "kvm-max-ranges": script(
        (configure("vmcall64", "host", max_ranges="0x1"), OK),
        (reset(), OK),
        (kvm(0x10000, 3), returns(rax=0)),
        (kvm(0x20000, 1), returns(rax=22)),
        (kvm(0x11000, 1, 0x10), returns(rax=22)),
        shared((0x10000, 3)),
        (kvm(0x13000, 1), returns(rax=0)),
        (kvm(0x10000, 1, 0x10), returns(rax=0)),
        shared((0x11000, 3)),
    ),
    "kvm32-address-not-aligned": script(KVM32, (kvm(0x1F018800, 1, mode="32"), returns(rax=EINVAL32)), shared()),
    "kvm32-low-halves-count": script(
        KVM32,
        (
            call({"rax": 0x10000000C, "rbx": 0x700000008000, "rcx": 0x900000001, "rdx": 0xFFFFFFFF00000000}, mode="32"),
            returns(rax=0),
        ),
        shared((0x8000, 1)),
    ),
    "kvm32-cpl-3": script(KVM32, (kvm(0x8000, 1, cpl=3, mode="32"), returns(rax=EPERM32)), shared()),
    "kvm32-not-enabled": script(
        (configure("vmcall32", "host", enabled=False), OK), (reset(), OK), (kvm(1, 0, mode="32"), returns(rax=ENOSYS32))
    ),
    "kvm32-range-ends-behind-4g": script(
        KVM32, (kvm(0xFFFFF000, 2, mode="32"), returns(rax=0)), shared((0xFFFFF000, 2))
    ),
    "kvm32-largest-count": script(
        KVM32, (kvm(0x8000, 0xFFFFFFFF, mode="32"), returns(rax=0)), shared((0x8000, 0xFFFFFFFF))
    ),
    "kvm32-another-mode": script(KVM32, (kvm(0x8000, 1, mode="64"), UNSUPPORTED)),
}

TDX_HOST = {
    "tdx-one-page-to-shared": script(TDX48, (tdx(S48 | A, PAGE), returns(r10=0)), shared((A, 1))),
    "tdx-two-megabytes-to-private": script(
        TDX48,
        (reset((A - PAGE, 514)), OK),
        (tdx(A, MIB2), returns(r10=0)),
        shared((A - PAGE, 1), (A + MIB2, 1)),
    ),
    "tdx-52-bits": script(TDX52, (tdx(S52 | A, PAGE), returns(r10=0)), shared((A, 1))),
    "tdx-52-bits-bit-47-is-an-address-bit": script(
        TDX52, (reset((S48 | A, 1)), OK), (tdx(S48 | A, PAGE), returns(r10=0)), shared()
    ),
    "tdx-already-shared": script(TDX48, (reset((A, 1)), OK), (tdx(S48 | A, PAGE), returns(r10=0)), shared((A, 1))),
    "tdx-size-zero": script(TDX48, (tdx(S48 | A, 0), returns(r10=INVALID, r11=S48 | A)), shared()),
    "tdx-size-zero-comes-before-alignment": script(
        TDX48, (tdx(S48 | 0x40101800, 0), returns(r10=INVALID, r11=S48 | 0x40101800)), shared()
    ),
    "tdx-address-not-aligned": script(
        TDX48, (tdx(S48 | 0x40101800, PAGE), returns(r10=ALIGN, r11=S48 | 0x40101800)), shared()
    ),
    "tdx-size-not-aligned": script(TDX48, (tdx(S48 | A, 0x1800), returns(r10=ALIGN, r11=S48 | A)), shared()),
    "tdx-straddles-the-shared-bit": script(
        TDX48, (tdx(S48 - PAGE, 2 * PAGE), returns(r10=INVALID, r11=S48 - PAGE)), shared()
    ),
    "tdx-straddle-comes-before-alignment": script(
        TDX48, (tdx(S48 - 0x800, PAGE), returns(r10=INVALID, r11=S48 - 0x800)), shared()
    ),
    "tdx-52-bits-straddles": script(TDX52, (tdx(S52 - PAGE, 2 * PAGE), returns(r10=INVALID, r11=S52 - PAGE)), shared()),
    "tdx-reaches-2^64": script(
        TDX48,
        (tdx(0xFFFFFFFFFFFFF000, PAGE), returns(r10=INVALID, r11=0xFFFFFFFFFFFFF000)),
        (tdx(0xFFFFFFFFFFFFF000, 2 * PAGE), returns(r10=INVALID, r11=0xFFFFFFFFFFFFF000)),
        shared(),
    ),
    "tdx-address-bit-52": script(TDX48, (tdx(1 << 52, PAGE), returns(r10=INVALID, r11=1 << 52)), shared()),
    "tdx-48-physical-bits": script(
        (configure("tdcall", "host", gpaw="0x34", maxphyaddr="0x30"), OK),
        (reset(), OK),
        (tdx(S52 | A, PAGE), returns(r10=0)),
        (tdx(1 << 48, PAGE), returns(r10=INVALID, r11=1 << 48)),
        (tdx((1 << 48) - PAGE, 2 * PAGE), returns(r10=INVALID, r11=(1 << 48) - PAGE)),
        shared((A, 1)),
    ),
    "tdx-not-enabled": script(TDX_OFF, (tdx(S48 | A, PAGE), returns(r10=UNKNOWN, r11=S48 | A)), shared()),
    "tdx-not-enabled-comes-before-operands": script(
        TDX_OFF, (tdx(S48 | 0x800, 0), returns(r10=UNKNOWN, r11=S48 | 0x800)), shared()
    ),
    "tdx-unknown-leaf": script(TDX48, (tdx(S48 | A, PAGE, leaf=0x1FFFF), returns(r10=UNKNOWN)), shared()),
    "tdx-vendor-call-is-a-kvm-hypercall": script(
        TDX48,
        (call({"rax": 0, "rcx": 0x3C00, "r10": 12, "r11": 0x1F018000, "r12": 1, "r13": 0}), returns(r10=0)),
        shared((0x1F018000, 1)),
        bundled="it serves tdx-map-gpa alone and knows no KVM hypercall number: -1000",
    ),
    "tdx-event-after-a-chunk-then-the-rest": script(
        TDX48,
        inject("event-pending", after=1),
        (tdx(S48 | A, 2 * MIB2), returns(r10=RETRY, r11=S48 | A + MIB2)),
        shared((A, 512)),
        (tdx(S48 | A + MIB2, MIB2), returns(r10=0)),
        shared((A, 1024)),
    ),
    "tdx-no-event-after-the-last-chunk": script(
        TDX48, inject("event-pending", after=1), (tdx(S48 | A, MIB2), returns(r10=0)), shared((A, 512))
    ),
    "tdx-event-on-the-way-to-private": script(
        TDX48,
        (reset((A, 1536)), OK),
        inject("event-pending", after=2),
        (tdx(A, 3 * MIB2), returns(r10=RETRY, r11=A + 2 * MIB2)),
        shared((A + 2 * MIB2, 512)),
    ),
    "tdx-stop-after-one-page": script(
        TDX48,
        inject("stop-after", pages=1),
        (tdx(S48 | A, 4 * PAGE), returns(r10=RETRY, r11=S48 | A + PAGE)),
        shared((A, 1)),
        inject("stop-after", pages=3),
        (tdx(S48 | A + PAGE, 3 * PAGE), returns(r10=0)),
        shared((A, 4)),
    ),
    "tdx-stop-at-once": script(
        TDX48, inject("stop-after", pages=0), (tdx(S48 | A, PAGE), returns(r10=RETRY, r11=S48 | A)), shared()
    ),
    "tdx-vmm-eagain-is-retry": script(
        TDX48, inject("vmm-error", errno=11), (tdx(S48 | A, 2 * MIB2), returns(r10=RETRY, r11=S48 | A)), shared()
    ),
    "tdx-vmm-einval": script(
        TDX48, inject("vmm-error", errno=22), (tdx(S48 | A, PAGE), returns(r10=INVALID, r11=S48 | A)), shared()
    ),
    "tdx-max-ranges": script(
        (configure("tdcall", "host", max_ranges="0x1"), OK),
        (reset((A, 1)), OK),
        (tdx(S48 | A + 2 * PAGE, PAGE), returns(r10=INVALID, r11=S48 | A + 2 * PAGE)),
        shared((A, 1)),
        (tdx(S48 | A + PAGE, PAGE), returns(r10=0)),
        shared((A, 2)),
    ),
    "tdx-no-byte-to-flip": script(
        TDX48,
        ({"cmd": "inject", "fault": "memory-flip", "gpa": "0x0", "hex": "ff"}, UNSUPPORTED),
        (tdx(S48 | A, PAGE), returns(r10=0)),
        shared((A, 1)),
    ),
}

KVM_GUESTS = {
    "kvm-guest-to-private": script(
        KVM_GUEST,
        (convert(0x8000, 2, "private"), asks_kvm(0x8000, 2, 0x10)),
        (resume(rax=0), ends(True, (0x8000, 2, "private"))),
    ),
    "kvm-guest-to-shared": script(
        KVM_GUEST,
        (convert(0x8000, 0x200, "shared"), asks_kvm(0x8000, 0x200, 0)),
        (resume(rax=0), ends(True, (0x8000, 512, "shared"))),
    ),
    "kvm-guest-is-refused-by-kvm": script(
        KVM_GUEST, (convert(0x8000, 1, "shared"), asks_kvm(0x8000, 1, 0)), (resume(rax=EINVAL), ends(False))
    ),
    "kvm-guest-is-refused-by-the-vmm": script(
        KVM_GUEST, (convert(0x8000, 1, "shared"), asks_kvm(0x8000, 1, 0)), (resume(rax=22), ends(False))
    ),
    "kvm-guest-and-a-register-left-as-it-was": script(
        KVM_GUEST, (convert(0x8000, 1, "shared"), asks_kvm(0x8000, 1, 0)), (resume(), ends(False))
    ),
    "kvm-guest32-reads-the-low-half": script(
        KVM_GUEST32,
        (convert(0x8000, 1, "private"), asks_kvm(0x8000, 1, 0x10)),
        (resume(rax=0xFFFFFFFF00000000), ends(True, (0x8000, 1, "private"))),
        (convert(0x8000, 1, "private"), asks_kvm(0x8000, 1, 0x10)),
        (resume(rax=EINVAL32), ends(False)),
    ),
    "kvm-guest-cannot-name": script(
        KVM_GUEST,
        (convert(0x8000, 0, "shared"), ends(False)),
        (convert(0x8800, 1, "shared"), ends(False)),
        (convert(0xFFFFFFFFFFFFF000, 2, "shared"), ends(False)),
        ({"cmd": "resume"}, ERROR),
        KVM_GUEST32,
        (convert(0x100000000, 1, "shared"), ends(False)),
    ),
    "kvm-guest-and-a-call-not-offered": script(
        (configure("vmcall64", "guest", enabled=False), OK), (reset(), OK), (convert(0x8000, 1, "shared"), ends(False))
    ),
    "kvm-guest-changes-its-page-table-first": script(
        STEPS,
        KVM_GUEST,
        (convert(0x8000, 1, "shared"), steps("map", 0x8000, 1, "shared")),
        (resume(), asks_kvm(0x8000, 1, 0)),
        (resume(rax=0), ends(True, (0x8000, 1, "shared"))),
    ),
    "kvm-guest-changes-its-page-table-first-to-private": script(
        STEPS,
        KVM_GUEST,
        (convert(0x8000, 1, "private"), steps("map", 0x8000, 1, "private")),
        (resume(), asks_kvm(0x8000, 1, 0x10)),
        (resume(rax=0), ends(True, (0x8000, 1, "private"))),
    ),
}

_FOUR = (convert(A, 4, "shared"), asks_tdx(S48 | A, 4 * PAGE))
"""A conversion of four pages to shared, up to its first call."""

TDX_GUESTS = {
    "tdx-guest-to-shared": script(TDX_GUEST, _FOUR, (resume(r10=0), ends(True, (A, 4, "shared")))),
    "tdx-guest-to-private": script(
        TDX_GUEST,
        (convert(A, 4, "private"), asks_tdx(A, 4 * PAGE)),
        (resume(rax=0, r10=0), ends(True, (A, 4, "private"))),
    ),
    "tdx-guest-52-bits": script(
        TDX_GUEST52,
        (convert(S48 | A, 1, "shared"), asks_tdx(S52 | S48 | A, PAGE)),
        (resume(r10=0), ends(True, (S48 | A, 1, "shared"))),
    ),
    "tdx-guest-goes-on-after-retry": script(
        TDX_GUEST,
        _FOUR,
        (resume(r10=RETRY, r11=S48 | A + PAGE), asks_tdx(S48 | A + PAGE, 3 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A + 3 * PAGE), asks_tdx(S48 | A + 3 * PAGE, PAGE)),
        (resume(r10=0), ends(True, (A, 4, "shared"))),
    ),
    "tdx-guest-goes-on-after-retry-to-private": script(
        TDX_GUEST,
        (convert(A, 4, "private"), asks_tdx(A, 4 * PAGE)),
        (resume(r10=RETRY, r11=A + 2 * PAGE), asks_tdx(A + 2 * PAGE, 2 * PAGE)),
        (resume(r10=0), ends(True, (A, 4, "private"))),
    ),
    "tdx-guest-tries-again-without-progress": script(
        TDX_GUEST,
        _FOUR,
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=0), ends(True, (A, 4, "shared"))),
    ),
    "tdx-guest-gives-up-at-the-third-answer-without-progress": script(
        TDX_GUEST,
        _FOUR,
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A), ends(False)),
    ),
    "tdx-guest-counts-again-after-progress": script(
        TDX_GUEST,
        _FOUR,
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A), asks_tdx(S48 | A, 4 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A + PAGE), asks_tdx(S48 | A + PAGE, 3 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A + PAGE), asks_tdx(S48 | A + PAGE, 3 * PAGE)),
        (resume(r10=RETRY, r11=S48 | A + PAGE), asks_tdx(S48 | A + PAGE, 3 * PAGE)),
        (resume(r10=0), ends(True, (A, 4, "shared"))),
    ),
    "tdx-guest-refuses-r11-below": script(TDX_GUEST, _FOUR, (resume(r10=RETRY, r11=S48 | A - PAGE), ends(False))),
    "tdx-guest-refuses-r11-above": script(TDX_GUEST, _FOUR, (resume(r10=RETRY, r11=S48 | A + 5 * PAGE), ends(False))),
    "tdx-guest-refuses-r11-at-the-end": script(
        TDX_GUEST, _FOUR, (resume(r10=RETRY, r11=S48 | A + 4 * PAGE), ends(False))
    ),
    "tdx-guest-refuses-r11-without-the-shared-bit": script(
        TDX_GUEST, _FOUR, (resume(r10=RETRY, r11=A + PAGE), ends(False))
    ),
    "tdx-guest-refuses-r11-left-as-the-leaf": script(TDX_GUEST, _FOUR, (resume(r10=RETRY), ends(False))),
    "tdx-guest-refuses-r11-inside-a-page": script(
        TDX_GUEST, _FOUR, (resume(r10=RETRY, r11=S48 | A + 0x800), ends(False))
    ),
    "tdx-guest-keeps-what-was-done": script(
        TDX_GUEST,
        _FOUR,
        (resume(r10=RETRY, r11=S48 | A + PAGE), asks_tdx(S48 | A + PAGE, 3 * PAGE)),
        (resume(r10=INVALID, r11=S48 | A + 2 * PAGE), ends(False, (A, 1, "shared"))),
    ),
    "tdx-guest-is-refused": script(TDX_GUEST, _FOUR, (resume(r10=INVALID, r11=S48 | A), ends(False))),
    "tdx-guest-looks-at-rax-first": script(TDX_GUEST, _FOUR, (resume(rax=0xC000010000000000, r10=0), ends(False))),
    "tdx-guest-cannot-name": script(
        TDX_GUEST,
        (convert(A, 0, "shared"), ends(False)),
        (convert(A + 1, 1, "private"), ends(False)),
        (convert(S48, 1, "shared"), ends(False)),
        (convert(S48 - PAGE, 2, "private"), ends(False)),
        (convert(S48 - PAGE, 1, "shared"), asks_tdx(2 * S48 - PAGE, PAGE)),
    ),
    "tdx-guest-and-a-call-not-offered": script(
        (configure("tdcall", "guest", enabled=False), OK), (reset(), OK), (convert(A, 1, "shared"), ends(False))
    ),
    "tdx-guest-maps-before-it-shares": script(
        STEPS,
        TDX_GUEST,
        (convert(A, 2, "shared"), steps("map", A, 2, "shared")),
        (resume(), asks_tdx(S48 | A, 2 * PAGE)),
        (resume(r10=0), ends(True, (A, 2, "shared"))),
    ),
    "tdx-guest-accepts-all-of-the-range-at-last": script(
        STEPS,
        TDX_GUEST,
        (convert(A, 4, "private"), asks_tdx(A, 4 * PAGE)),
        (resume(r10=RETRY, r11=A + 3 * PAGE), asks_tdx(A + 3 * PAGE, PAGE)),
        (resume(r10=0), steps("accept", A, 4, "private")),
        (resume(), ends(True, (A, 4, "private"))),
    ),
    "tdx-guest-accepts-nothing-after-a-failure": script(
        STEPS,
        TDX_GUEST,
        (convert(A, 4, "private"), asks_tdx(A, 4 * PAGE)),
        (resume(r10=RETRY, r11=A + PAGE), asks_tdx(A + PAGE, 3 * PAGE)),
        (resume(r10=INVALID), ends(False, (A, 1, "private"))),
    ),
    "tdx-guest-of-a-reset-forgets": script(
        TDX_GUEST, _FOUR, (reset(), OK), (resume(r10=0), ERROR), (convert(A, 1, "private"), asks_tdx(A, PAGE))
    ),
}


WRONG_REGS: tuple[Any, ...] = (
    {"rax": 12},
    {"rax": "12"},
    {"rax": "0xC"},
    {"rax": "0x"},
    {"rax": "0X1"},
    {"rax": "-0x1"},
    {"rax": "0x10000000000000000"},
    [],
)
WRONG_MEM: tuple[Any, ...] = (
    [["0x0", "0"]],
    [["0x0", "AB"]],
    [["0x0", "0x"]],
    [["0x0"]],
    [["0x2", "00"], ["0x0", "00"]],
    [["0x0", "0000"], ["0x1", "00"]],
    {},
    [["0xffffffffffffffff", "0000"]],
)


def raw(text: str) -> bytes:
    return (PREFIX + text + "\n").encode()


def padded(size: int, ident: int, command: str) -> bytes:
    """Return a line of exactly that many bytes, its end included."""
    head = f'{PREFIX}{{"id":{ident},"cmd":"{command}","pad":"'
    return (head + "x" * (size - len(head) - 3) + '"}\n').encode()


_NO_ID: dict[str, Any] = {"id": None, **ERROR}

PROTOCOL = {
    "no-common-version": script(
        ({"cmd": "hello", "min": 2, "max": 9, "runner": "x"}, UNSUPPORTED),
        ({"cmd": "hello", "min": 0, "max": 0, "runner": "x"}, UNSUPPORTED),
        ({"cmd": "hello", "max": 1, "runner": "x"}, ERROR),
        ({"cmd": "hello", "min": 1, "max": 1}, ERROR),
        ({"cmd": "hello", "min": "0x1", "max": 1, "runner": "x"}, ERROR),
        ({"cmd": "hello", "min": 1, "max": 1.5, "runner": "x"}, ERROR),
    ),
    "log-lines-are-not-answered": script(
        (b"[    0.000000] Linux version 7.3.4\n", NOTHING),
        (b"\n", NOTHING),
        (b"@hvab\n", NOTHING),
        (b"@hvabi\n", NOTHING),
        (b"\xff\xfe\x00@\n", NOTHING),
        (b' @hvabi {"id":1,"cmd":"stop"}\n', NOTHING),
        (b"x" * (3 * MAX_LINE) + b"\n", NOTHING),
        KVM64,
    ),
    "broken-frames": script(
        *(
            (raw(text), _NO_ID)
            for text in (
                "",
                "{",
                "[]",
                "5",
                '"x"',
                "null",
                "{}",
                '{"id":1',
                '{"id":1,}',
                '{"id":01,"cmd":"stop"}',
                '{"id":1,"cmd":"stop"} x',
                "{'id':1}",
                '{"cmd":"stop"}',
                '{"id":"1","cmd":"stop"}',
                '{"id":null,"cmd":"stop"}',
                '{"id":1.5,"cmd":"stop"}',
                '{"id":true,"cmd":"stop"}',
                '{"id":1,"cmd":"st\top"}',
                '{"id":1,"cmd":"\\x"}',
                '{"id":1,"cmd":"\\u12g4"}',
            )
        ),
        (b'@hvabi {"id":1,"cmd":"\x00"}\n', _NO_ID),
        KVM64,
    ),
    "line-lengths": script(
        *KVM64,
        (padded(MAX_LINE, 3, "query"), {"ok": {"ranges": [], "facts": {}}}),
        (padded(MAX_LINE + 1, 4, "query"), _NO_ID),
        (padded(2 * MAX_LINE + 77, 5, "query"), _NO_ID),
        ({"cmd": "query"}, {"ok": {"ranges": [], "facts": {}}}),
    ),
    "crlf-and-spaces": script(
        *KVM64, (b'@hvabi   { "id" : 3 , "cmd":"query" }  \r\n', {"ok": {"ranges": [], "facts": {}}})
    ),
    "escapes-in-strings": script(
        *KVM64, (raw('{"\\u0069d":3,"cmd":"qu\\u0065ry"}'), {"ok": {"ranges": [], "facts": {}}})
    ),
    "unknown-keys-are-ignored": script(
        ({**configure("vmcall64", "host"), "colour": {"a": [1, None, {"b": False}]}}, OK),
        ({**reset(), "x": 1}, OK),
        ({**kvm(0x8000, 1), "wish": -1.5e3, "cpu": {"mode": "64", "cpl": 0, "model": "x"}}, returns(rax=0)),
    ),
    "unknown-commands": script(
        KVM64, ({"cmd": "dance"}, UNSUPPORTED), ({"cmd": ""}, UNSUPPORTED), ({"cmd": 5}, ERROR), ({}, ERROR)
    ),
    "wrong-order": script(
        (reset(), ERROR),
        (kvm(0, 1), ERROR),
        ({"cmd": "query"}, ERROR),
        (convert(0, 1, "shared"), ERROR),
        ({"cmd": "resume"}, ERROR),
        ({"cmd": "inject", "fault": "vmm-error", "errno": "0x16"}, ERROR),
        KVM64,
        (convert(0, 1, "shared"), ERROR),
        ({"cmd": "resume"}, ERROR),
        TDX_GUEST,
        (tdx(S48, PAGE), ERROR),
        ({"cmd": "query"}, ERROR),
        _FOUR,
        (_FOUR[0], ERROR),
        (resume(r10=0), ends(True, (A, 4, "shared"))),
    ),
    "wrong-configurations": script(
        ({**configure("vmcall64", "host"), "abi": "nobody"}, UNSUPPORTED),
        ({**configure("vmcall64", "host"), "revision": "v0"}, UNSUPPORTED),
        (configure("tdcall", "judge"), UNSUPPORTED),
        ({**configure("vmcall64", "host"), "transport": "carrier-pigeon"}, UNSUPPORTED),
        (configure("vmcall64", "host", colour="0x1"), UNSUPPORTED),
        (configure("vmcall64", "host", profile="nobody"), UNSUPPORTED),
        (configure("vmcall64", "host", error_value="0x2"), UNSUPPORTED),
        (configure("tdcall", "host", gpaw="0x31"), UNSUPPORTED),
        (configure("vmcall64", "host", gpaw="0x30"), UNSUPPORTED),
        (configure("tdcall", "host", gpaw=48), ERROR),
        (configure("tdcall", "host", enabled="0x1"), ERROR),
        (configure("tdcall", "host", max_ranges=1), ERROR),
        (configure("tdcall", "host", memory=[["0x1000", "0x1"], ["0x0", "0x1"]]), ERROR),
        (configure("tdcall", "host", scratch=["0x1001", "0x1"]), ERROR),
        ({"cmd": "configure", "abi": "tdx-map-gpa"}, ERROR),
        (configure("tdcall", "host", profile="spec", memory=[], scratch=["0x1000", "0x2"]), OK),
    ),
    "wrong-resets": script(
        KVM64,
        *(
            ({"cmd": "reset", "ranges": ranges}, answer)
            for ranges, answer in (
                ([["0x1000", "0x1", "shared"], ["0x0", "0x1", "shared"]], ERROR),
                ([["0x0", "0x2", "shared"], ["0x1000", "0x1", "shared"]], ERROR),
                ([["0x800", "0x1", "shared"]], ERROR),
                ([["0x0", "0x1"]], ERROR),
                ([["0x0", "0x1", "grey"]], ERROR),
                ([["0x0", 1, "shared"]], ERROR),
                ([["0xfffffffffffff000", "0x2", "shared"]], ERROR),
                ({}, ERROR),
                ([["0x0", "0x1", "shared-read-only"]], UNSUPPORTED),
            )
        ),
        ({"cmd": "reset", "facts": {"accepted": []}}, UNSUPPORTED),
        ({"cmd": "reset", "facts": []}, ERROR),
        shared(),
        (
            {
                "cmd": "reset",
                "ranges": [["0x1000", "0x1", "shared"], ["0x2000", "0x1", "shared"], ["0x4000", "0x1", "private"]],
            },
            OK,
        ),
        shared((0x1000, 2)),
    ),
    "wrong-calls": script(
        KVM64,
        ({"cmd": "call", "regs": {}}, ERROR),
        *(({"cmd": "call", "vcpu": 0, "regs": regs}, ERROR) for regs in WRONG_REGS),
        *(({"cmd": "call", "vcpu": 0, "mem": mem}, ERROR) for mem in WRONG_MEM),
        ({"cmd": "call", "vcpu": "0x0"}, ERROR),
        ({"cmd": "call", "vcpu": 0, "cpu": {"mode": 64}}, ERROR),
        ({"cmd": "call", "vcpu": 0, "cpu": {"cpl": 4}}, ERROR),
        (
            {
                "cmd": "call",
                "vcpu": 0,
                "regs": {"rax": "0x000000000000000000c", "rbx": "0x1000", "rcx": "0x1"},
                "mem": [["0x10", ""], ["0x10", "00ff"]],
            },
            returns(rax=0),
        ),
        ({"cmd": "call", "vcpu": 3}, returns(rax=ENOSYS)),
        shared((0x1000, 1)),
    ),
    "wrong-injections": script(
        KVM64,
        ({"cmd": "inject", "fault": "meteor"}, UNSUPPORTED),
        ({"cmd": "inject", "fault": "vmm-error"}, ERROR),
        ({"cmd": "inject"}, ERROR),
        ({"cmd": "inject", "fault": "vmm-error", "errno": 22}, ERROR),
        ({"cmd": "inject", "fault": "event-pending", "after": "0x0"}, ERROR),
    ),
    "errno-0-is-no-error": script(
        TDX48,
        ({"cmd": "inject", "fault": "vmm-error", "errno": "0x0"}, ERROR),
    ),
    "wrong-conversions": script(
        KVM_GUEST,
        ({"cmd": "convert", "gpa": "0x0", "pages": "0x1"}, ERROR),
        ({"cmd": "convert", "gpa": 0, "pages": "0x1", "to": "shared"}, ERROR),
        (convert(0, 1, "shared-read-only"), UNSUPPORTED),
        (convert(0, 1, "grey"), ERROR),
    ),
    "a-second-configure-forgets": script(
        KVM64,
        (kvm(0x8000, 1), returns(rax=0)),
        inject("vmm-error", errno=5),
        KVM64[:1],
        shared(),
        (kvm(0x8000, 1), returns(rax=0)),
    ),
    "a-reset-beyond-max-ranges": script(
        (configure("vmcall64", "host", max_ranges="0x1"), OK),
        ({"cmd": "reset", "ranges": [["0x0", "0x1", "shared"], ["0x1000", "0x1", "shared"]]}, OK),
        (reset((0, 1), (0x2000, 1)), ERROR),
    ),
    "a-reset-clears-the-injection": script(
        KVM64, inject("vmm-error", errno=5), (reset(), OK), (kvm(0x8000, 1), returns(rax=0))
    ),
    "stop-ends": script(KVM64, ({"cmd": "stop"}, OK), ({"cmd": "query"}, NOTHING)),
}

SCRIPTS: dict[str, Script] = {**KVM_HOST, **TDX_HOST, **KVM_GUESTS, **TDX_GUESTS, **PROTOCOL}
