from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

import pytest

from hvabi.abi.errors import SpecError, UsageError
from hvabi.conformance.known import NEW_REASON, Known, KnownFailures, load_known, update_known
from hvabi.conformance.result import CaseResult, RunResult, Verdict
from hvabi.conformance.run import run_cases
from tests.conformance.peers import host_case, host_cases, write_peer

if TYPE_CHECKING:
    from pathlib import Path

V = Verdict
DAY = datetime.date(2026, 6, 1)
A, B, C = (host_case(number) for number in range(3))
STEM = A.id.rpartition("-")[0]


def entry(case: str = A.id, kind: str = "xfail", **more: object) -> Known:
    return Known(case=case, kind=kind, reason="r", line=1, **more)  # type: ignore[arg-type]  # a table of keywords


def results(*verdicts: Verdict, message: str = "m") -> list[CaseResult]:
    return [
        CaseResult(case=case, verdict=verdict, message=message)
        for case, verdict in zip((A, B, C), verdicts, strict=False)
    ]


# entries; verdicts of the cases; kinds that they get; part of each problem
ROWS = {
    "fails-as-listed": ([entry()], [V.FAIL, V.PASS], ["xfail", None], []),
    "wontfix": ([entry(kind="wontfix")], [V.CRASH, V.PASS], ["wontfix", None], []),
    "passes": ([entry()], [V.PASS, V.PASS], [None, None], ["is listed as xfail and passes"]),
    "passes-unseen": ([entry(kind="errata")], [V.PASS_UNSEEN, V.PASS], [None, None], ["as errata and passes"]),
    "flaky-passes": ([entry(kind="flaky")], [V.PASS, V.PASS], [None, None], []),
    "flaky-fails": ([entry(kind="flaky")], [V.TIMEOUT, V.PASS], ["flaky", None], []),
    "skipped": ([entry()], [V.SKIP, V.PASS], [None, None], []),
    "not-run": ([entry()], [V.NOT_RUN, V.PASS], [None, None], []),
    "same-message": ([entry(message="m")], [V.FAIL, V.PASS], ["xfail", None], []),
    "other-message": ([entry(message="n")], [V.FAIL, V.PASS], [None, None], ["fails with another message: m"]),
    "fits-nothing": ([entry(case="gone")], [V.PASS, V.PASS], [None, None], ["`gone` fits no case"]),
    "glob-fits-nothing": ([entry(case="gone*")], [V.PASS, V.PASS], [None, None], ["fits no case"]),
    "glob": ([entry(case=STEM + "-[0]")], [V.FAIL, V.PASS], ["xfail", None], []),
    "glob-passes-partly": ([entry(case=STEM + "-[01]")], [V.FAIL, V.PASS, V.PASS], ["xfail", None, None],
                           ["and passes"]),
    "glob-fits-all": ([entry(case=STEM + "*")], [V.FAIL, V.FAIL], ["xfail", "xfail"], ["fits every case"]),
    "expired": ([entry(expires=datetime.date(2026, 5, 31))], [V.FAIL, V.PASS], ["xfail", None], ["on 2026-05-31"]),
    "last-day": ([entry(expires=DAY)], [V.FAIL, V.PASS], ["xfail", None], []),
    "id-before-glob": ([entry(case=STEM + "-[01]", kind="flaky"), entry()], [V.FAIL, V.FAIL, V.PASS],
                       ["xfail", "flaky", None], []),
    "shadowed": ([entry(case=STEM + "-[0]"), entry(case=STEM + "-0*")], [V.FAIL, V.PASS], ["xfail", None],
                 ["fits no case"]),
    "warn-is-listed": ([entry()], [V.WARN, V.PASS], ["xfail", None], []),
}  # fmt: skip


@pytest.mark.parametrize(("entries", "verdicts", "kinds", "problems"), ROWS.values(), ids=ROWS)
def test_entries(entries: list[Known], verdicts: list[Verdict], kinds: list[str | None], problems: list[str]) -> None:
    found = results(*verdicts)
    after, told = KnownFailures(tuple(entries), "known.yaml").apply(found, [one.case for one in found], today=DAY)
    assert [one.known for one in after] == kinds
    assert len(told) == len(problems)
    for text, part in zip(told, problems, strict=True):
        assert text.startswith("known.yaml:1: ")
        assert part in text


def test_entries_of_cases_that_are_not_selected_are_not_stale() -> None:
    _, told = KnownFailures((entry(),), "k").apply(results(V.FAIL)[1:], [A, B], today=DAY)
    assert told == []


GOOD = """\
# why these fail
- case: "a@1.host.t.R.*"
  kind: wontfix
  reason: "because: of it"
  url: "https://example.org/1"
  message: "register r10: expected 0x1, found 0x0"
  expires: "2027-12-31"
- {case: b, kind: flaky, reason: timing}
"""


def test_reading(tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(GOOD)
    one, other = load_known(path).entries
    assert (one.kind, one.expires, one.line) == ("wontfix", datetime.date(2027, 12, 31), 2)
    assert one.message == "register r10: expected 0x1, found 0x0"
    assert (other.case, other.kind, other.url, other.line) == ("b", "flaky", None, 8)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("case: a", ["known-not-a-list"]),
        ("- a", ["known-not-an-entry"]),
        ("- {case: a, kind: xfail}", ["known-missing-key"]),
        ("- {case: a, kind: fails, reason: r}", ["known-unknown-kind"]),
        ("- {case: a, kind: xfail, reason: ''}", ["known-not-text"]),
        ("- {case: 7, kind: xfail, reason: r}", ["known-not-text"]),
        ("- {case: a, kind: xfail, reason: r, expires: tomorrow}", ["known-bad-date"]),
        ("- {case: a, kind: xfail, reason: r, expires: '2026-02-30'}", ["known-bad-date"]),
        ("- {case: a, kind: xfail, reason: r, expires: 2026-02-28}", ["yaml-timestamp"]),
        ("- {case: a, kind: xfail, reason: r, expires: 20260228}", ["known-not-text"]),
        ("- {case: a, kind: xfail, reason: r, ulr: x}", ["known-unknown-key"]),
        ("- {case: '*', kind: xfail, reason: r}", ["known-fits-all"]),
        ("- {case: '**.*', kind: xfail, reason: r}", ["known-fits-all"]),
        ("- {case: a, kind: xfail, reason: r}\n- {case: a, kind: flaky, reason: r}", ["known-twice"]),
        ("- {case: a, kind: x}\n- {kind: xfail}", [*["known-missing-key"] * 3, "known-unknown-kind"]),
        ("- {case: &a x, kind: xfail, reason: r}", ["yaml-anchor"]),
        ("- [", ["yaml-syntax"]),
        ("", ["yaml-empty-document"]),
    ],
)  # fmt: skip
def test_every_problem_of_a_file_with_its_place(tmp_path: Path, text: str, ids: list[str]) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as caught:
        load_known(path)
    assert sorted(one.id for one in caught.value.diagnostics) == sorted(ids)
    assert all(one.path == str(path) for one in caught.value.diagnostics)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read"):
        load_known(tmp_path / "none")


def test_update_keeps_reasons_drops_what_passes_and_adds_what_fails(tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    path.write_text(
        f"- {{case: {A.id}, kind: wontfix, reason: mine, message: old}}\n"
        f"- {{case: {B.id}, kind: xfail, reason: mended}}\n"
        "- {case: elsewhere, kind: xfail, reason: not in this run}\n"
    )
    path.chmod(0o600)
    update_known(path, results(V.FAIL, V.PASS, V.CRASH, message='it: "broke" \\ ü'))
    assert load_known(path).entries == (
        Known(case=A.id, kind="wontfix", reason="mine", message='it: "broke" \\ ü', line=1),
        Known(case="elsewhere", kind="xfail", reason="not in this run", line=5),
        Known(case=C.id, kind="xfail", reason=NEW_REASON, message='it: "broke" \\ ü', line=8),
    )
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["known.yaml"]
    # Twice gives the same.
    before = path.read_text()
    update_known(path, results(V.FAIL, V.PASS, V.CRASH, message='it: "broke" \\ ü'))
    assert path.read_text() == before


def test_update_without_failures_is_an_empty_list(tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    update_known(path, results(V.PASS))
    assert load_known(path).entries == ()


def test_update_that_cannot_write_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        update_known(tmp_path / "none" / "known.yaml", results(V.FAIL))
    broken = tmp_path / "known.yaml"
    broken.write_text("- [")
    with pytest.raises(SpecError):
        update_known(broken, results(V.FAIL))
    assert broken.read_text() == "- ["


def test_a_run_with_known_failures(tmp_path: Path) -> None:
    connector = write_peer(tmp_path, "if number == 1: os._exit(1)")
    path = tmp_path / "known.yaml"

    def run() -> RunResult:
        return run_cases(host_cases(3), connector, known=load_known(path))

    update_known(path, run_cases(host_cases(3), connector).results)
    good = run()
    assert good.good
    assert [result.known for result in good.results] == [None, "xfail", None]
    path.write_text(path.read_text().replace("code 1", "code 2"))
    changed = run()
    assert not changed.good
    assert "fails with another message" in changed.problems[0]
