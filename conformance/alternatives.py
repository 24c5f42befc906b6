"""The right answers to one call beside each other: by which policies they differ."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hvabi.conformance.case import Expected


def differing_policies(one: Expected, alternatives: tuple[Expected, ...]) -> dict[str, str]:
    """Return the policies of an answer in which the right answers are not all alike, with its values."""
    return {
        name: value
        for name, value in one.policies.items()
        if any(other.policies.get(name) != value for other in alternatives)
    }
