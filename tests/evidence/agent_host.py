"""The bundled host adapter below a hosted agent: ``agent_host.py PROGRAM ABI REVISION TRANSPORT [lie]``.

The program's standard input and output are this one's, so that a runner talks to the agent; the agent's calls come
here. The host is never reset: what a case leaves behind, the agent has to put back.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from hvabi.conformance.iut import Session

X86 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", *(f"r{n}" for n in range(8, 16)), "msr_c0010130")
ARM64 = tuple(f"x{n}" for n in range(31))
SECOND = {
    "vmgexit": ("ghcb-msr-psc", "ghcb-2", "vmgexit-msr"),
    "ghcb-vmmcall": ("ghcb-msr-psc", "ghcb-2", "vmgexit-msr"),
    "tdvmcall": ("tdx-map-gpa", "ghci-1.5", "tdcall"),
}
"""By which call the agent itself converts pages, where it is not the one under test."""


class Host:
    """Bundled adapters of the ABI under test and of that by which the agent converts, with one state of the pages."""

    def __init__(self, abi: str, revision: str, transport: str, *, lie: bool) -> None:
        wanted = [(abi, revision, transport)]
        if transport in SECOND:
            wanted.append(SECOND[transport])
        self.registers = ARM64 if transport in ("hvc", "smc") else X86
        self.lie = lie
        self.sessions = []
        for abi_, revision_, transport_ in wanted:
            session = Session()
            self.sessions.append(session)
            self._ask(session, cmd="hello", min=1, max=1, runner="agent")
            self._ask(session, cmd="configure", abi=abi_, revision=revision_, transport=transport_, role="host")
            self._ask(session, cmd="reset")

    def execute(self, line: str) -> str:
        """Answer a line of the hosted agent."""
        _, mode, cpl, *words = line.split()
        count = len(self.registers)
        regs = {name: int(word, 16) for name, word in zip(self.registers, words, strict=False)}
        page = bytearray.fromhex(words[count]) if len(words) > count else None
        at = regs.get("msr_c0010130", 0)
        own = 0 < at % 4096 < 0x200 or (at == 0 and regs.get("r10") == 0)
        session = self.sessions[-1] if own else self.sessions[0]
        mem = [[hex(at), page.hex()]] if page is not None else []
        fault = "-"
        for _ in range(1000):
            found = self._ask(
                session, cmd="call", vcpu=0, cpu={"mode": str(int(mode, 16)), "cpl": int(cpl, 16)}, mem=mem,
                regs={name: hex(value) for name, value in regs.items()},
            )  # fmt: skip
            regs.update({name: int(value, 16) for name, value in found["regs"].items()})
            for gpa, data in found["mem"]:
                assert page is not None
                offset = int(gpa, 16) - at
                page[offset : offset + len(data) // 2] = bytes.fromhex(data)
            mem, fault = [], found.get("fault", "-")
            if found["end"] != "replay":
                break
        if len(self.sessions) > 1:
            ranges = self._ask(session, cmd="query")["ranges"]
            for other in self.sessions:
                if other is not session:
                    self._ask(other, cmd="reset", ranges=ranges)
        if self.lie:
            first = next(name for name in ("r10", "x0", "rax") if name in regs)
            regs["msr_c0010130" if at else first] ^= 0x40
        out = " ".join(f"{value:x}" for value in regs.values())
        return f"{fault} {mode} {cpl} {out} {page.hex() if page is not None else ''}\n"

    def _ask(self, session: Session, **command: Any) -> dict[str, Any]:
        answer = session.answer({"id": 1, **command})
        found: dict[str, Any] = answer["ok"]
        return found


def main(program: str, abi: str, revision: str, transport: str, *lie: str) -> int:
    """Run the program until it ends."""
    host = Host(abi, revision, transport, lie=bool(lie))
    (calls, theirs_out), (theirs_in, answers) = os.pipe(), os.pipe()
    script = f'exec "$0" 3>&{theirs_out} 4<&{theirs_in}'
    process = subprocess.Popen(["bash", "-c", script, program], pass_fds=(theirs_out, theirs_in))
    os.close(theirs_out)
    os.close(theirs_in)
    with os.fdopen(calls) as lines:
        for line in lines:
            os.write(answers, host.execute(line).encode())
    return process.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
