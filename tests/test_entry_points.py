"""The short run of the fuzzers: every kept input, and some mutations of each. `.ci/slow` runs it at length."""

from __future__ import annotations

import subprocess
import sys
import time
from random import Random

import pytest

from tests.entry import CORPUS, LONGEST, Entry, Finding, Mutator, corpus, fuzz, take
from tests.entry_points import ENTRIES

SHORT = 200


@pytest.mark.parametrize("name", ENTRIES)
def test_a_short_run_has_no_finding(name: str) -> None:
    accepted = [good for _, good in fuzz(ENTRIES[name], SHORT, 1)]
    assert len(accepted) == SHORT + len(corpus(name))
    assert any(accepted), "mutations of right inputs are now and then right"


def test_every_entry_point_has_a_corpus_and_no_corpus_is_left_over() -> None:
    assert {folder.name for folder in CORPUS.iterdir()} == ENTRIES.keys()
    assert all(corpus(name) for name in ENTRIES)


def test_the_fuzzer_finds_what_is_planted() -> None:
    def fragile(data: bytes) -> None:
        if b"\xff" in data:
            raise ZeroDivisionError("planted")

    entry = Entry(name="yaml", take=fragile, errors=(ValueError,))
    with pytest.raises(Finding, match="planted"):
        list(fuzz(entry, 1000, 1))

    def refuses(data: bytes) -> None:
        raise ValueError("no")

    assert take(Entry(name="a", take=refuses, errors=(ValueError,)), b"") is False


def test_the_fuzzer_finds_what_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.entry.SECONDS", 0.05)

    def slow(data: bytes) -> None:
        end = time.process_time() + 0.1
        while time.process_time() < end:
            pass

    with pytest.raises(Finding, match=r"0\.1 s"):
        take(Entry(name="a", take=slow, errors=()), b"")
    assert take(Entry(name="a", take=lambda _: time.sleep(0.1), errors=()), b"")  # as where the machine is busy


def test_mutations_are_different_and_the_same_for_a_seed() -> None:
    seeds = [b"abcdefgh: 4\n  ij: 5\n", b"0123456789\n" * 3, b""]
    for text in (False, True):
        first, again = (Mutator(Random(3), seeds, (b"word",), text=text) for _ in range(2))
        found = [first() for _ in range(200)]
        assert found == [again() for _ in range(200)]
        assert len(set(found)) > 120
        assert max(map(len, found)) <= LONGEST


def test_mutations_of_text_change_words_and_lines() -> None:
    seeds = [b"one: 1\n  two: 2\nthree: 3\n"]
    mutated = Mutator(Random(1), seeds, text=True)
    found = {mutated() for _ in range(3000)}
    assert b"  two: 2\none: 1\nthree: 3\n" in found
    assert b"one: 1\nthree: 3\n" in found
    assert b"one: 1\n  three: 2\nthree: 3\n" in found
    assert b"one: 1\n    two: 2\nthree: 3\n" in found


@pytest.mark.slow
def test_by_coverage() -> None:
    pytest.importorskip("atheris", reason="atheris is not installed: there is no choosing of inputs by coverage")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.by_coverage", "expression", "-runs=200"],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=CORPUS.parents[2],
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert "Done 200" in ran.stderr
