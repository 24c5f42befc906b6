"""One liar: the bundled adapters behind the line protocol with exactly one planted bug."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.registry import Spec
from hvabi.conformance import frame
from hvabi.conformance.iut import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from hvabi.abi.specification import Abi
    from hvabi.adapters.guest import Guest
    from hvabi.adapters.host import Host
    from hvabi.conformance.case import Role

Family = Literal["generated", "historic"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Planted:
    """What is wrong with a liar: a change of the specification that it runs on, of an engine, or of both.

    Attributes:
        spec: returns the resolved ABI with the bug in it.
        host, guest: classes laid over those of the bundled adapters.

    """

    spec: Callable[[Abi], Abi] | None = None
    host: type[Host] | None = None
    guest: type[Guest] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Liar:
    """A session of the bundled adapters with one planted bug.

    Attributes:
        id: permanent; ``ABI@REVISION.ROLE.TRANSPORT.KIND.NAME``.
        what: one sentence: what is wrong with it.
        equivalent: why nobody can tell it from a right implementation, or None.
        exempt: why no case is made for it although one could tell it, or None.
        hints: ids of rules, or words of case ids, where it is likely to be caught; only speed depends on them.
        reference: the historic bug's reference, or None.
        breaks: whether it is the bug that it falls over. Any other liar must answer, and answer wrongly.

    """

    id: str
    abi: str
    revision: str
    transport: str
    role: Role
    family: Family
    what: str
    planted: Planted = field(repr=False)
    equivalent: str | None = None
    exempt: str | None = None
    hints: tuple[str, ...] = ()
    reference: str | None = None
    breaks: bool = False

    @property
    def excuse(self) -> str | None:
        """Why no case catches it, either way; None where one must."""
        return self.equivalent or self.exempt

    def make(self) -> LyingSession:
        """Return a new session with ``handle(line) -> str | None``."""
        return LyingSession(self)


class LyingSession(Session):
    """A session of a liar. It offers the liar's ABI on its transport in its role, nothing else.

    Args:
        liar: what is planted.

    """

    def __init__(self, liar: Liar) -> None:
        super().__init__()
        self._liar = liar
        self._specs: dict[str, Spec] = {}

    def _do_hello(self, command: Mapping[str, Any]) -> dict[str, Any]:
        answer = super()._do_hello(command)
        liar = self._liar
        offer = {"revisions": [liar.revision], "transports": [liar.transport], "roles": [liar.role]}
        answer["ok"].update(name=f"liar {liar.id}", abis={liar.abi: offer})
        return answer

    def _do_configure(self, command: Mapping[str, Any]) -> dict[str, Any]:
        asked = tuple(frame.argument(command, name) for name in ("abi", "revision", "transport", "role"))
        liar = self._liar
        if asked != (liar.abi, liar.revision, liar.transport, liar.role):
            raise frame.Unsupported("this liar has one ABI, revision, transport and role only")
        answer = super()._do_configure(command)
        if self._host is not None:
            self._host = self._lying_host(self._host)
        if self._guest is not None:
            self._guest = self._lying_guest(self._guest)
        return answer

    def _spec(self, right: Spec) -> Spec:
        """Return the specification with the bug in it, made once per profile."""
        change = self._liar.planted.spec
        if change is None:
            return right
        if right.abi.profile not in self._specs:
            self._specs[right.abi.profile] = Spec(change(right.abi))
        return self._specs[right.abi.profile]

    def _lying_host(self, right: Host) -> Host:
        made: Host = _over(self._liar.planted.host, type(right))(
            self._spec(right.spec),
            transport=right.transport.name,
            config=right.config,
            backend=right.backend,
            memory=right.memory,
            enabled=right.enabled,
        )
        return made

    def _lying_guest(self, right: Guest) -> Guest:
        made: Guest = _over(self._liar.planted.guest, type(right))(
            self._spec(right.spec),
            transport=right.transport.name,
            config=right.config,
            scratch=right.scratch,
            enabled=right.enabled,
            steps=right.steps,
        )
        return made


def _over(bug: type[Any] | None, right: type[Any]) -> type[Any]:
    """Return the adapter's class with the bug's methods over it."""
    return right if bug is None else type(bug.__name__, (bug, right), {})


__all__ = ["Family", "Liar", "LyingSession", "Planted"]
