"""What an implementation answers, as values; and how the lists and words in it are read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.conformance import frame
from hvabi.conformance.frame import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Memory, Ranges

STATES = ("private", "shared", "shared-read-only")
ENDS = ("return", "replay", "fault", "stop")
STEPS = ("accept", "rescind", "map")


class ProtocolViolation(HvAbiError):
    """A line that the protocol does not allow. `fields["line"]` is the line, cut to 300 characters."""

    code = "protocol-violation"


class PeerUnsupported(HvAbiError):
    """The implementation says that it does not have this."""

    code = "unsupported"


class PeerError(HvAbiError):
    """The implementation says that it broke."""

    code = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What an implementation has of one ABI."""

    revisions: tuple[str, ...]
    transports: tuple[str, ...]
    roles: tuple[str, ...]
    profile: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What an implementation says about itself."""

    name: str
    version: str
    abis: Mapping[str, Offer]
    features: frozenset[str]

    @property
    def peer(self) -> str:
        """Name and version for people."""
        return f"{self.name} {self.version}".strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class CallEnd:
    """How a call ended."""

    end: str
    regs: Mapping[str, int] = field(default_factory=dict)
    mem: Memory = ()
    fault: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exit:
    """What a host asks of its VMM."""

    abi: str
    regs: Mapping[str, int]
    mem: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class GuestAsk:
    """A call that a guest makes."""

    regs: Mapping[str, int]
    mem: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalStep:
    """A local half of a guest's work."""

    step: str
    ranges: Ranges


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What a guest believes at the end; `stop` is its reason where it stopped instead."""

    done: bool
    ranges: Ranges = ()
    stop: str | None = None


def read_words(value: Any, what: str) -> tuple[str, ...]:
    """Read a list of strings."""
    if not isinstance(value, list):
        raise ProtocolError(f"{what} is a list of words")
    return tuple(frame.word(item, f"a word of {what}") for item in value)


def read_offer(name: str, value: Any) -> Offer:
    """Read what is offered of one ABI."""
    if not isinstance(value, dict):
        raise ProtocolError(f"abis.{name} is an object")
    roles = read_words(frame.argument(value, "roles"), f"roles of {name}")
    if not set(roles) <= {"host", "guest"}:
        raise ProtocolError(f"roles of {name} are host and guest")
    return Offer(
        revisions=read_words(frame.argument(value, "revisions"), f"revisions of {name}"),
        transports=read_words(frame.argument(value, "transports"), f"transports of {name}"),
        roles=roles,
        profile=frame.word(value["profile"], "profile") if value.get("profile") is not None else None,
    )


def read_state(value: Any) -> str:
    """Read a page state."""
    if value not in STATES:
        raise ProtocolError(f"{frame.shown(value)} is no page state")
    return str(value)


def read_ranges(value: Any, *, merged: bool) -> Ranges:
    """Read ranges; with `merged`, private ones and equal neighbours are not allowed."""
    found = tuple(frame.state_ranges(value, "ranges", read_state))
    if merged:
        for one, other in itertools.pairwise(found):
            if one[1] == other[0] and one[2] == other[2]:
                raise ProtocolError(f"ranges are not merged at {other[0] << 12:#x}")
        if any(state == "private" for _, _, state in found):
            raise ProtocolError("ranges list only what is not private")
    return found
