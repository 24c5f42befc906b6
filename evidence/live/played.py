"""Scenarios as they were played on a kernel, beside what the model says to each step."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hvabi.evidence.live.chain import Vmm
from hvabi.evidence.live.observations import Observation
from hvabi.evidence.live.scenarios import BOTH, PLAIN

if TYPE_CHECKING:
    from hvabi.evidence.live.chain import Kernel
    from hvabi.evidence.live.scenarios import Scenario


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One step.

    Attributes:
        observation: the step and what happened on the kernel.
        wanted: what happens on the model.

    """

    observation: Observation
    wanted: list[Any]

    @property
    def differs(self) -> bool:
        """Whether the two are not the same."""
        return self.observation.found != self.wanted


def rows_of(scenario: Scenario, kernel: Kernel, model: Kernel) -> list[Row]:
    """Play a scenario on both."""
    found = Vmm(kernel).play(scenario, (BOTH, PLAIN))
    wanted = Vmm(model).play(scenario, (BOTH, PLAIN))
    return [
        Row(
            observation=Observation(
                request=_line(
                    {
                        "scenario": scenario.name,
                        "number": number,
                        "step": [hex(word) if isinstance(word, int) else word for word in step],
                    }
                ),
                answers=tuple(_line(event) for event in events),
            ),
            wanted=json.loads(_line(expected)),
        )
        for number, (step, events, expected) in enumerate(zip(scenario.steps, found, wanted, strict=True), 1)
    ]


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
