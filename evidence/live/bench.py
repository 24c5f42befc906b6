"""The bench in a booted machine: a VM whose VMM sits here, over a serial line."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

from hvabi.conformance.frame import PREFIX
from hvabi.evidence.live.chain import End
from hvabi.evidence.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

_SECONDS = 60.0
_LONGEST = 1 << 20


class Bench:
    """A VM of a real kernel, see `Kernel`. A context manager.

    Args:
        path: the Unix socket of the machine's line.

    Raises `LiveError` ``no-answer`` where the machine does not answer, or not as this bench does.

    """

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(_SECONDS)
        self._rest = b""
        self._number = 0
        try:
            self._socket.connect(str(path))
        except OSError as error:
            raise LiveError(f"the machine does not answer: {error}", code="no-answer") from error

    def __enter__(self) -> Bench:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def ask(self, word: str, **arguments: Any) -> dict[str, Any]:
        """Send a command and return its answer."""
        self._number += 1
        line = PREFIX + json.dumps({"id": self._number, "cmd": word, **arguments}) + "\n"
        try:
            self._socket.sendall(line.encode())
            while True:
                answer = self._line()
                if answer.startswith(PREFIX) and (found := json.loads(answer[len(PREFIX) :])).get("id") == self._number:
                    break
        except (OSError, ValueError, AttributeError) as error:
            raise LiveError(f"the machine does not answer: {error or 'nothing came'}", code="no-answer") from error
        if "ok" not in found:
            text = next((value.get("message") for value in found.values() if isinstance(value, dict)), found)
            raise LiveError(f"the machine cannot do {word}: {text}", code="no-answer")
        return dict(found["ok"])

    def _line(self) -> str:
        while b"\n" not in self._rest:
            data = self._socket.recv(1 << 16)
            if not data or len(self._rest) > _LONGEST:
                raise LiveError("the machine does not answer any more", code="no-answer")
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("utf-8", "replace").lstrip("\r")

    # -- a kernel -----------------------------------------------------------------------------------------------

    def open(self, slots: tuple[tuple[int, int, bool], ...], *, protected: bool) -> None:
        """Make a VM."""
        rows = [[hex(gpa), hex(size), private and protected] for gpa, size, private in slots]
        self.ask("open", slots=rows, kind=int(protected))

    def check(self, capability: int) -> int:
        """Ask KVM_CHECK_EXTENSION."""
        return int(self.ask("check", capability=hex(capability))["value"], 0)

    def read(self, gpa: int) -> End:
        """Let the guest read a word."""
        return self._end(self.ask("read", gpa=hex(gpa)))

    def write(self, gpa: int, value: int) -> End:
        """Let the guest write a word."""
        return self._end(self.ask("write", gpa=hex(gpa), value=hex(value)))

    def hypercall(self, regs: Mapping[str, int]) -> End:
        """Let the guest make a hypercall."""
        return self._end(self.ask("hypercall", regs={name: hex(value) for name, value in regs.items()}))

    def go(self, mem: tuple[tuple[int, bytes], ...]) -> End:
        """Go on."""
        return self._end(self.ask("go", mem=[[hex(at), data.hex()] for at, data in mem]))

    def set_attributes(self, data: bytes) -> int:
        """Make the ioctl."""
        return int(self.ask("set", data=data.hex())["ret"], 0)

    def host_read(self, gpa: int) -> int:
        """Read a word as the host."""
        return int.from_bytes(bytes.fromhex(self.ask("host_read", gpa=hex(gpa))["value"]), "little")

    def host_write(self, gpa: int, value: int) -> None:
        """Write a word as the host."""
        self.ask("host_write", gpa=hex(gpa), data=value.to_bytes(8, "little").hex())

    @staticmethod
    def _end(found: Mapping[str, Any]) -> End:
        return End(
            kind=found["end"],
            rax=int(found.get("rax", "0x0"), 0),
            ret=int(found.get("ret", "0x0"), 0),
            page=bytes.fromhex(found.get("page", "")),
            reason=found.get("reason", ""),
        )
