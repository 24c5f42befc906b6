"""Stories: historic bugs and hazards, each with the cases that catch it and what the broken side did. Data only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from hvabi.conformance.case import Case, Expected, Pages, Role

Tag = Literal["confirmed", "hazard"]
"""``confirmed``: a commit, mail or review says so. ``hazard``: found by reading; no product is named."""
LocalStep = tuple[str, str, "Pages"]
"""``(word, when, pages)`` as in `hvabi.conformance.case.GuestScript`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongHost:
    """What a broken host does in each step of a case.

    Attributes:
        answers: per step the whole wrong answer, None where the step goes right or the host crashes.
        crashes: numbers of the steps in which it breaks instead of answering.

    """

    answers: tuple[Expected | None, ...]
    crashes: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class WrongGuest:
    """What a broken guest does with a script; None where that is as with a right one.

    Attributes:
        done: whether it reports the whole as converted.
        calls: how many calls it makes.
        endless: whether it makes calls for ever.
        believed: pages that it reports as converted.
        local_steps: its local steps, where they are what is wrong.

    """

    done: bool | None = None
    calls: int | None = None
    endless: bool = False
    believed: Pages | None = None
    local_steps: tuple[LocalStep, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Retold:
    """A story on one transport of one revision: the case, and what must not happen in it."""

    case: Case
    wrong: WrongHost | WrongGuest


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """One historic bug or hazard.

    Attributes:
        id: permanent, such as ``bug-q1-attributes-as-boolean``.
        abi: id of the ABI whose cases it has.
        numbers: the entries of the list of historic bugs that it stands for; none for those found later.
        title: what it is, in a few words.
        text: what went wrong.
        reference: commits, mails, CVE numbers.
        role: who had the bug.
        rules: rules that it touches, what it is about first; none where it is about state or progress.
        where: file and line, for messages.

    """

    id: str
    abi: str
    numbers: tuple[str, ...]
    title: str
    text: str
    reference: tuple[str, ...]
    tag: Tag
    role: Role
    rules: tuple[str, ...]
    cases: tuple[Retold, ...]
    where: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """A historic bug that has no story, and why.

    Attributes:
        kind: ``no-trigger`` (no call of these ABIs can show it), ``later-abi`` (its ABI has no stories yet),
            ``no-account`` (only its number is known).
        abi: with ``later-abi``, which.

    """

    number: str
    title: str
    reference: tuple[str, ...]
    kind: Literal["no-trigger", "later-abi", "no-account"]
    abi: str | None
    reason: str
