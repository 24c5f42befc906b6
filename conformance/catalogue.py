"""Every case that there is: the generated ones, then the regression collection."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.registry import abi_ids, bundled
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.conformance.generate import cases
from hvabi.conformance.generate.judged import right_under
from hvabi.conformance.stateful import stateful_cases
from hvabi.conformance.stories import regression_cases

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hvabi.conformance.case import Case


def every_case(
    abis: Iterable[str] = (), *, role: str | None = None, profile: str = SPEC_PROFILE, seed: int = 0, sequences: int = 0
) -> Iterator[Case]:
    """Yield all cases of some ABIs, or of all that are no drafts, under a profile.

    `sequences` adds that many random sequences of calls per revision and transport, drawn from `seed`.
    `abis` are ids, with ``@REVISION`` or without. An ABI that has not the profile has no cases under it. Raises
    `UsageError` for an ABI or revision that does not exist.
    """
    wanted = list(abis) or [abi for abi in abi_ids() if not bundled(abi).draft]
    for text in wanted:
        abi, _, revision = text.partition("@")
        if profile != SPEC_PROFILE and profile not in bundled(abi).profiles:
            continue
        yield from cases(abi, revision=revision or None, role=role, profile=profile, seed=seed)
        if sequences and role in (None, "host"):
            yield from stateful_cases(abi, revision=revision or None, profile=profile, seed=seed, count=sequences)
        for case in regression_cases(abi, revision=revision or None, role=role, profile=profile):
            # A product may be known for the very bug: then the story's right answer is not what the profile says.
            if profile == SPEC_PROFILE or right_under(case, profile):
                yield case
