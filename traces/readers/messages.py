"""Messages of kernels, firmware and monitors about conversions that went wrong; they place no pages."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.abi.registry import load
from hvabi.traces.clocks import program_time
from hvabi.traces.event import Kind, Sighting
from hvabi.traces.readers.base import LineReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hvabi.traces.event import Record
    from hvabi.traces.readers.base import Line

Told = tuple[Kind, str, str, str]
"""Kind, name, text and result of a sighting."""


def _cpa(match: re.Match[str]) -> Told:
    pages, to, code = match.groups()
    return "failure", f"Linux guest, to {to}", f"{pages} pages; the address is hashed", f"error {code}" if code else ""


def _psc(match: re.Match[str]) -> Told:
    number = int(match.group(1), 16) << 32 | int(match.group(2), 16)
    enum = load("ghcb-psc").abi.messages["response"].fields["exit_info2"].enum
    return "failure", "SVSM, ghcb-psc", "page state change", (enum.name_of(number) if enum else None) or f"{number:#x}"


_MESSAGES: tuple[tuple[bytes, re.Pattern[str], Callable[[re.Match[str]], Told]], ...] = (
    (
        b"CPA VMM failure to convert memory",
        re.compile(
            r"CPA VMM failure to convert memory \(addr=\w{1,20}, numpages=(\d{1,10})\) to (private|shared)"
            r"(?:: (-?\d{1,6}))?"
        ),
        _cpa,
    ),
    (
        b"shared<->private conversions",
        re.compile(r"Failed to stop shared<->private conversions"),
        lambda _: ("failure", "Linux guest, kexec", "conversions did not stop", ""),
    ),
    (
        b"#VC exception",
        re.compile(r"Unsupported exit-code (0x[0-9a-f]{1,16}) in #VC exception"),
        lambda match: ("fault", f"#VC with exit code {match.group(1)}", "the guest cannot go on", ""),
    ),
    (
        b"SEV-ES guest requested termination: ",
        re.compile(
            r"SEV-ES guest requested termination: (?:reason )?(0x[0-9a-f]{1,16}|0)(?::| info )(0x[0-9a-f]{1,16}|0)"
        ),
        lambda match: ("terminated", "SEV-ES guest", f"{match.group(1)}:{match.group(2)}", ""),
    ),
    (
        b"GHCB GPA [",
        re.compile(r"vmgexit: GHCB GPA \[(\w{1,20})\] is not registered"),
        lambda match: ("failure", "KVM, GHCB not registered", match.group(1), ""),
    ),
    (
        b"UVC failed (rc: ",
        re.compile(r"(\w{1,40}) UVC failed \(rc: (0x[0-9a-f]{1,8}), rrc: (0x[0-9a-f]{1,8})\)"),
        lambda match: ("failure", "s390 guest", match.group(1), f"rc {match.group(2)}, rrc {match.group(3)}"),
    ),
    (
        b"SnpPageStateChange failed err_high: ",
        re.compile(r"GHCB SnpPageStateChange failed err_high: 0x([0-9a-f]{1,8}) err_low: 0x([0-9a-f]{1,8})\b"),
        _psc,
    ),
)


class MessagesReader(LineReader):
    """Reads warnings of Linux guests and hosts, SVSM and s390 about conversions."""

    name = "messages"
    title = "warnings of Linux guests, KVM and SVSM (CPA VMM failure, #VC exception, termination, UVC failed)"
    marks = tuple(mark for mark, _, _ in _MESSAGES)

    def read(self, line: Line) -> Iterator[Record]:
        """Return what one line shows."""
        for _, pattern, tell in _MESSAGES:
            match = pattern.search(line.text)
            if match is not None:
                kind, name, text, result = tell(match)
                seconds, clock = program_time(line.text[: match.start()]) or (None, None)
                yield Sighting(
                    line.source, line.number, seconds, kind, name, text, result, format="messages", clock=clock
                )
                return
