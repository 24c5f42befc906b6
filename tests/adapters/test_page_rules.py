"""Rules that judge each page alone while the work goes on, by the example of CCA: pages that the Host took away.

Requests and answers are typed by hand: X0 function 0xC4000197, X1 base, X2 top, X3 RIPAS, X4 the DESTROYED flag; back
come X0 status, X1 new base, X2 response.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.registry import load
from hvabi.adapters.registry import host_class
from hvabi.adapters.values import HostAnswer, Injection
from hvabi.backend import Backend, MemoryLayout, PageState
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.oracle import Oracle

if TYPE_CHECKING:
    from hvabi.adapters.host import Host

BASE, PAGES = 0x80000, 4
TO_RAM = {"x0": 0xC4000197, "x1": 0x8000_0000, "x2": 0x8000_4000, "x3": 1, "x4": 0}
Pages = list[tuple[int, int]]


def host_of(
    *, destroyed: Pages = [], device: Pages = [], profile: str = "tf-rmm-0.9", **more: Any  # noqa: B006 -- never changed
) -> Host:  # fmt: skip
    config = more.pop("config", {"ipa_width": 40})
    backend = Backend(facts=("destroyed", "device"), **more)
    backend.reset([(BASE - 2, BASE + 8, PageState.SHARED)], {"destroyed": destroyed, "device": device})
    return host_class("cca-ipa-state")(load("cca-ipa-state", profile=profile), backend=backend, config=config)


def private_of(host: Host) -> Pages:
    """Return the pages of [BASE - 2, BASE + 8) that are private now."""
    runs = host.backend.runs(BASE - 2, BASE + 8)
    return [(run.start, run.end) for run in runs if run.state is PageState.PRIVATE]


def done(answer: HostAnswer) -> tuple[int, int]:
    """Return X0 and how many pages X1 says are done."""
    return answer.regs["x0"], (answer.regs["x1"] - TO_RAM["x1"]) >> 12


@pytest.mark.parametrize(
    ("destroyed", "pages"),
    [
        ([], 4),
        ([(BASE, BASE + 1)], 0),
        ([(BASE + 2, BASE + 3)], 2),
        ([(BASE + 3, BASE + 4)], 3),
        ([(BASE + 1, BASE + 2), (BASE + 3, BASE + 4)], 1),
        ([(BASE, BASE + 4)], 0),
        ([(BASE - 1, BASE), (BASE + 4, BASE + 5)], 4),
    ],
    ids=["none", "first", "middle", "last", "two", "every", "around"],
)
def test_work_ends_before_the_first_bad_page(destroyed: Pages, pages: int) -> None:
    host = host_of(destroyed=destroyed)
    answer = host.answer(TO_RAM)
    assert done(answer) == (0, pages)
    assert answer.rule == (None if pages == 4 else "CCA-RIPAS-08")
    assert private_of(host) == ([(BASE, BASE + pages)] if pages else [])
    assert [(run.start, run.end) for run in host.backend.fact_runs("destroyed")] == destroyed


def test_the_flag_lets_them_pass() -> None:
    host = host_of(destroyed=[(BASE + 2, BASE + 3)])
    assert done(host.answer({**TO_RAM, "x4": 1})) == (0, 4)
    assert host.backend.fact_runs("destroyed") == ()


@pytest.mark.parametrize(
    ("destroyed", "device", "rule", "pages"),
    [(1, 2, "CCA-RIPAS-08", 1), (2, 1, "CCA-RIPAS-10", 1), (3, 3, "CCA-RIPAS-08", 3)],
    ids=["first-rule-first", "later-rule-at-a-lower-page", "same-page"],
)
def test_the_lowest_page_decides_and_then_the_first_rule(destroyed: int, device: int, rule: str, pages: int) -> None:
    host = host_of(
        destroyed=[(BASE + destroyed, BASE + destroyed + 1)], device=[(BASE + device, BASE + device + 1)]
    )  # fmt: skip
    answer = host.answer(TO_RAM)
    assert (answer.rule, *done(answer)) == (rule, 0, pages)


@pytest.mark.parametrize(("stop", "rule"), [(1, None), (2, None), (3, "CCA-RIPAS-08")])
def test_a_host_that_stops_first_answers_its_stop(stop: int, rule: str | None) -> None:
    host = host_of(destroyed=[(BASE + 2, BASE + 3)])
    answer = host.answer(TO_RAM, inject=Injection(stop_after=stop))
    assert (answer.rule, *done(answer)) == (rule, 0, min(stop, 2))


def test_what_cannot_be_done_before_the_bad_page_is_answered_first() -> None:
    host = host_of(destroyed=[(BASE + 2, BASE + 3)], max_ranges=1)
    answer = host.answer(TO_RAM)
    assert answer.rule is None
    assert (answer.status, *done(answer), answer.regs["x2"]) == ("limit", 0, 0, 1)
    assert private_of(host) == []


def test_long_ranges_are_not_walked_page_by_page() -> None:
    first, pages = 0, 1 << 36
    host = host_of(destroyed=[(pages - 1, pages)], config={"ipa_width": 56})
    started = time.monotonic()
    answer = host.answer({"x0": 0xC4000197, "x1": first << 12, "x2": pages << 12, "x3": 1, "x4": 0})
    assert time.monotonic() - started < 1
    assert (answer.regs["x0"], answer.regs["x1"]) == (0, pages - 1 << 12)


def test_many_bad_pages_cost_no_more_than_one() -> None:
    every_other = [(page, page + 1) for page in range(BASE + 1, BASE + 40001, 2)]
    host = host_of(destroyed=every_other)
    answer = host.answer({**TO_RAM, "x2": 0x8000_0000 + (40000 << 12)})
    assert done(answer) == (0, 1)


def test_pages_outside_of_memory_do_not_matter_to_a_fact() -> None:
    backend = Backend(layout=MemoryLayout([]), facts=("destroyed", "device"))
    host = host_class("cca-ipa-state")(load("cca-ipa-state", profile="tf-rmm-0.9"), backend=backend)
    assert done(host.answer(TO_RAM)) == (0, 4)


@pytest.mark.parametrize("stop", [None, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("destroyed", [0, 1, 3, 4])
@pytest.mark.parametrize("device", [0, 2, 3, 4])
def test_the_oracle_says_the_same(stop: int | None, destroyed: int, device: int) -> None:
    """Worked out by hand here: the lowest of the bad pages, of the stop and of the end."""
    inject = None if stop is None else Inject(fault="stop-after", arguments={"pages": stop})
    pages = min(destroyed, device, 4 if stop is None else stop)
    fields = {
        "function": 0x197, "sve_hint": 0, "service": 0x6200, "base": BASE << 12, "top": BASE + 4 << 12, "ripas": 1,
        "ripas_middle": 0, "ripas_high": 0, "change_destroyed": 0, "flags": 0,
    }  # fmt: skip
    facts = {"destroyed": ((BASE + destroyed, BASE + destroyed + 1),), "device": ((BASE + device, BASE + device + 1),)}
    oracle = Oracle("cca-ipa-state", "rmm-1.1", "smc", Setup(), profile="tf-rmm-0.9")
    (answer,) = oracle.answers(
        fields, before=((BASE - 2, BASE + 8, "shared"),), facts=facts, inject=inject, regs=TO_RAM
    )
    assert answer.regs["x1"] == BASE + pages << 12
    assert answer.state == (
        ((BASE - 2, BASE + 8, "shared"),)
        if not pages
        else ((BASE - 2, BASE, "shared"), (BASE + pages, BASE + 8, "shared"))
    )
    host = host_of(destroyed=list(facts["destroyed"]), device=list(facts["device"]))
    assert done(host.answer(TO_RAM, inject=Injection(stop_after=stop))) == (0, pages)
