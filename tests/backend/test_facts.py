"""Page facts: one bounded map each."""

from __future__ import annotations

import pytest

from hvabi.backend import Backend, Change, Facts, ModelError, Status


def test_facts_are_false_until_set_and_independent() -> None:
    facts = Facts(["accepted", "pinned"])
    done = facts.set("accepted", 4, 8, True)
    assert (done.status, done.changed) == (Status.DONE, (Change(4, 8, False, True),))
    assert facts.runs("accepted") == ((4, 8, True),)
    assert facts.runs("pinned") == ()
    assert facts.uniform("pinned", 0, 100, False)
    assert facts.uniform("accepted", 4, 8, True)
    assert not facts.uniform("accepted", 3, 8, True)
    assert facts.set("accepted", 5, 6, True).changed == ()
    assert facts.set("accepted", 5, 6, False).changed == (Change(5, 6, True, False),)
    assert facts.runs("accepted") == ((4, 5, True), (6, 8, True))
    assert (facts.count, facts.names) == (2, ("accepted", "pinned"))


def test_each_fact_has_the_bound_for_itself() -> None:
    facts = Facts(["a", "b"], max_ranges=2)
    for name in "ab":
        assert facts.set(name, 0, 1, True).status is Status.DONE
        assert facts.set(name, 2, 4, True).status is Status.DONE
        assert facts.set(name, 5, 6, True).status is Status.LIMIT
        assert facts.runs(name) == ((0, 1, True), (2, 4, True))
        assert facts.set(name, 4, 5, True).status is Status.DONE  # extends
        assert facts.set(name, 1, 2, True).status is Status.DONE  # joins two
        assert facts.set(name, 2, 3, False).status is Status.DONE  # room for a split
        assert facts.set(name, 4, 5, False).status is Status.DONE
        assert facts.set(name, 0, 1, False).status is Status.DONE
        assert facts.runs(name) == ((1, 2, True), (3, 4, True))


def test_the_byte_budget_is_for_states_and_facts_together() -> None:
    backend = Backend(max_bytes=3 * 24, facts=["pinned"])
    for page in (0, 2, 4):
        assert backend.set_fact("pinned", page, page + 1, True).status is Status.DONE
    assert backend.set_fact("pinned", 6, 7, True).status is Status.LIMIT
    assert backend.set_fact("pinned", 1, 2, True).status is Status.DONE
    assert backend.set_fact("pinned", 6, 7, True).status is Status.DONE
    assert backend.fact_runs("pinned") == ((0, 3, True), (4, 5, True), (6, 7, True))


def test_mistakes() -> None:
    facts = Facts(["accepted"])
    for call in (facts.map_of, facts.runs):
        with pytest.raises(ModelError, match=r"'pined'.*declared: accepted") as caught:
            call("pined")
        assert caught.value.code == "unknown-fact"
    for names in (["a", "a"], [""]):
        with pytest.raises(ModelError) as caught:
            Facts(names)
        assert caught.value.code == "bad-fact"
    with pytest.raises(ModelError):
        Facts([], max_ranges=-1)
