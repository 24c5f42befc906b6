"""Known failures: a YAML list of cases that fail, why, and until when. What is no longer true of it fails the run.

::

    - case: "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.*"
      kind: xfail
      reason: "Our VMM answers INVALID_OPERAND."
      url: "https://example.org/issues/12"
      message: "register r10: expected 0x…, found 0x…"
      expires: "2027-06-30"

`kind` is one of

- ``xfail``: fails, and is to be mended;
- ``wontfix``: fails, and stays so;
- ``errata``: the specification or the case is disputed;
- ``flaky``: may fail or pass.

`message` and `expires` may be left out. An entry with a `message` covers only that message of the result. The first
entry that fits a case counts, one with its whole id before any glob.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.abi.diagnostics import Collector
from hvabi.abi.errors import UsageError
from hvabi.abi.source import load_file
from hvabi.abi.whole_file import write_whole
from hvabi.conformance.result import CaseResult, Verdict
from hvabi.conformance.selection import matches

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Sequence

    from hvabi.abi.source import Node, SourceFile
    from hvabi.conformance.case import Case

KINDS = ("xfail", "wontfix", "flaky", "errata")
NEW_REASON = "New, not looked at yet."
"""Reason of the entries that `update` adds."""
_KEYS = ("case", "kind", "reason", "url", "message", "expires")
_NEEDED = ("case", "kind", "reason")
_GLOB = re.compile(r"[*?\[]")
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}\Z")
_GOOD = (Verdict.PASS, Verdict.PASS_UNSEEN, Verdict.NOTE)
_OPEN = (Verdict.SKIP, Verdict.NOT_RUN)
"""Verdicts that say nothing about whether a case still fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One entry; `line` is its line in the file."""

    case: str
    kind: str
    reason: str
    url: str | None = None
    message: str | None = None
    expires: datetime.date | None = None
    line: int = 0

    @property
    def is_glob(self) -> bool:
        """Whether it may fit more than one case."""
        return bool(_GLOB.search(self.case))


@dataclass(frozen=True)
class KnownFailures:
    """The entries of one file in order."""

    entries: tuple[Known, ...] = ()
    path: str = ""

    def entry_for(self, ident: str) -> Known | None:
        """Return the entry that counts for a case."""
        whole = self._whole.get(ident)
        return whole or next((entry for entry in self._globs if matches(ident, entry.case)), None)

    @cached_property
    def _whole(self) -> dict[str, Known]:
        return {entry.case: entry for entry in reversed(self.entries)}

    @cached_property
    def _globs(self) -> list[Known]:
        return [entry for entry in self.entries if entry.is_glob]

    def apply(
        self, results: Sequence[CaseResult], cases: Iterable[Case], *, today: datetime.date | None = None
    ) -> tuple[list[CaseResult], list[str]]:
        """Return the results with the kind of their entry, and what is wrong with the entries.

        Args:
            results: what came out.
            cases: all cases that there are, selected or not, for entries that fit none and globs that fit all.
            today: for `expires`; the local date by default.

        """
        problems = self.stale_entries([case.id for case in cases], today=today)
        out: list[CaseResult] = []
        for result in results:
            entry = self.entry_for(result.case.id)
            kind, problem = judge_known(entry, result)
            if problem:
                problems.append(f"{self._where(entry)}: {problem}")
            out.append(replace(result, known=kind) if kind else result)
        return out, problems

    def stale_entries(self, ids: Sequence[str], *, today: datetime.date | None = None) -> list[str]:
        """Return what is wrong with entries whatever the results are: expired, fits nothing, fits everything."""
        now = today or datetime.date.today()  # an expiry date means the reader's own day
        fits: Counter[int] = Counter()
        place = {id(entry): number for number, entry in enumerate(self.entries)}
        for ident in ids:
            entry = self.entry_for(ident)
            if entry is not None:
                fits[place[id(entry)]] += 1
        problems: list[str] = []
        for number, entry in enumerate(self.entries):
            where = f"{self._where(entry)}: `{entry.case}`"
            if entry.expires is not None and entry.expires < now:
                problems.append(f"{where} has expired on {entry.expires}")
            if ids and not fits[number]:
                problems.append(f"{where} fits no case, or none that no entry before it fits")
            elif entry.is_glob and len(ids) > 1 and fits[number] == len(ids):
                problems.append(f"{where} fits every case")
        return problems

    def _where(self, entry: Known | None) -> str:
        return f"{self.path or 'known failures'}:{entry.line}" if entry is not None and entry.line else self.path


def judge_known(entry: Known | None, result: CaseResult) -> tuple[str | None, str | None]:
    """Return the kind under which a result is known, and what is wrong with its entry; None for nothing."""
    if entry is None or result.verdict in _OPEN:
        return None, None
    if result.verdict in _GOOD:
        return None, None if entry.kind == "flaky" else f"{result.case.id} is listed as {entry.kind} and passes"
    if entry.message is not None and entry.message != result.message:
        return None, f"{result.case.id} fails with another message: {result.message}"
    return entry.kind, None


# -- reading ----------------------------------------------------------------------------------------------------


def load_known(path: str | os.PathLike[str]) -> KnownFailures:
    """Read a file of known failures. Raises `SpecError` with every problem of it and its place."""
    source = load_file(path)
    problems = Collector()
    entries: list[Known] = []
    rows = source.root.value
    if not isinstance(rows, list):
        problems.add(
            source.diagnostic(source.root, "known-not-a-list", "the file is a list of entries", "begin with `- case:`")
        )
        rows = []
    seen: dict[str, int] = {}
    for row in rows:
        entry = _entry(source, row, problems)
        if entry is None:
            continue
        if entry.case in seen:
            message = f"the case is listed twice, first at line {seen[entry.case]}"
            problems.add(source.diagnostic(row, "known-twice", message, "keep one of the two"))
        seen.setdefault(entry.case, entry.line)
        entries.append(entry)
    problems.raise_if_errors()
    return KnownFailures(tuple(entries), str(path))


def _entry(source: SourceFile, row: Node, problems: Collector) -> Known | None:
    """Read one entry; None where it has problems."""
    before = len(problems)
    fields = row.value
    if not isinstance(fields, dict):
        problems.add(source.diagnostic(row, "known-not-an-entry", "an entry is a mapping", "write case, kind, reason"))
        return None
    words: dict[str, str] = {}
    for name, node in fields.items():
        if name not in _KEYS:
            hint = "the keys are " + ", ".join(_KEYS)
            problems.add(source.diagnostic(row.keys[name], "known-unknown-key", f"there is no key `{name}`", hint))
        elif not isinstance(node.value, str) or not node.value.strip():
            problems.add(
                source.diagnostic(node, "known-not-text", f"`{name}` is text and not empty", "put it in quotes")
            )
        else:
            words[name] = node.value
    for name in _NEEDED:
        if name not in fields:
            problems.add(source.diagnostic(row, "known-missing-key", f"the entry has no `{name}`", f"add `{name}:`"))
    if "kind" in words and words["kind"] not in KINDS:
        hint = "the kinds are " + ", ".join(KINDS)
        problems.add(
            source.diagnostic(fields["kind"], "known-unknown-kind", f"there is no kind `{words['kind']}`", hint)
        )
    if "case" in words and not re.search(r"[^*?\[\]!.]", words["case"]):
        problems.add(source.diagnostic(fields["case"], "known-fits-all", "this fits every case", "name the cases"))
    expires: datetime.date | None = None
    if "expires" in words:
        with contextlib.suppress(ValueError):
            expires = datetime.date.fromisoformat(words["expires"]) if _DATE.match(words["expires"]) else None
        if expires is None:
            message = f"`{words['expires']}` is no date"
            problems.add(source.diagnostic(fields["expires"], "known-bad-date", message, "write 2027-12-31"))
    if len(problems) > before:
        return None
    return Known(
        case=words["case"],
        kind=words["kind"],
        reason=words["reason"],
        url=words.get("url"),
        message=words.get("message"),
        expires=expires,
        line=row.line,
    )


# -- writing ----------------------------------------------------------------------------------------------------


def updated(known: KnownFailures, results: Iterable[CaseResult]) -> KnownFailures:
    """Return the entries as the results have them: reasons kept, what passes taken out, what fails anew added.

    Entries of cases that were not run or skipped, and ``flaky`` ones, stay. A glob stays while one of its cases fails.
    A changed message is taken over into an entry for one case; one of a glob is dropped, for it cannot hold for all.
    """
    by_entry: dict[Known, list[CaseResult]] = {}
    new: list[Known] = []
    for result in results:
        entry = known.entry_for(result.case.id)
        if entry is not None:
            by_entry.setdefault(entry, []).append(result)
        elif result.verdict.bad and result.verdict is not Verdict.NOT_RUN:
            new.append(Known(case=result.case.id, kind="xfail", reason=NEW_REASON, message=result.message or None))
    kept: list[Known] = []
    for entry in known.entries:
        found = by_entry.get(entry, [])
        if found and entry.kind != "flaky" and all(result.verdict in _GOOD for result in found):
            continue
        failing = [result.message for result in found if result.verdict not in (*_GOOD, *_OPEN)]
        changed = [message for message in failing if entry.message is not None and message != entry.message]
        if changed:
            entry = replace(entry, message=None if entry.is_glob else changed[0] or None)
        kept.append(entry)
    return KnownFailures((*kept, *new), known.path)


def update_known(path: str | os.PathLike[str], results: Iterable[CaseResult]) -> KnownFailures:
    """Rewrite a file of known failures, or write a new one; as a whole or not at all. Comments in it are lost.

    Raises `SpecError` for a file that is there and cannot be read, `UsageError` for one that cannot be written.
    """
    place = Path(path)
    known = load_known(place) if place.exists() and place.stat().st_size else KnownFailures((), str(path))
    after = updated(known, results)
    text = render_known(after)
    try:
        write_whole(place, text)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}", code="no-file") from error
    return after


def render_known(known: KnownFailures) -> str:
    """Return a file's text. Without entries it is an empty list."""
    if not known.entries:
        return "[]\n"
    blocks: list[str] = []
    for entry in known.entries:
        lines = [f"- case: {_quoted(entry.case)}", f"  kind: {entry.kind}", f"  reason: {_quoted(entry.reason)}"]
        if entry.url is not None:
            lines.append(f"  url: {_quoted(entry.url)}")
        if entry.message is not None:
            lines.append(f"  message: {_quoted(entry.message)}")
        if entry.expires is not None:
            lines.append(f'  expires: "{entry.expires}"')
        blocks.append("\n".join(lines) + "\n")
    return "".join(blocks)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


__all__ = [
    "KINDS",
    "NEW_REASON",
    "Known",
    "KnownFailures",
    "judge_known",
    "load_known",
    "render_known",
    "update_known",
    "updated",
]
