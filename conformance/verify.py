"""The main job: prove the specifications, the codecs and the bundled adapters, and say so in a table."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.abi.errors import HvAbiError
from hvabi.abi.lint import lint_paths
from hvabi.abi.ready import differs, spec_root
from hvabi.abi.registry import Spec, abi_files, abi_ids, bundled
from hvabi.conformance.examples import check_example, runs_host
from hvabi.conformance.plumbing import check_all
from hvabi.conformance.selfcheck import talk_all

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hvabi.abi.diagnostics import Diagnostic
    from hvabi.abi.specification import Abi


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyRow:
    """One revision of one ABI: what was checked and what failed.

    `cases` counts the conformance cases that the bundled adapters were given, over all policies: a plumbing check.
    """

    abi: str
    revision: str
    draft: bool
    transports: int
    rules: int
    codecs: int
    examples: int
    host_examples: int
    conversations: int
    skipped: tuple[str, ...]
    failures: tuple[str, ...]
    seconds: float
    cases: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """All rows, the findings of lint, and the verdict."""

    diagnostics: tuple[Diagnostic, ...]
    rows: tuple[VerifyRow, ...] = ()
    seconds: float = 0.0
    failures: tuple[str, ...] = field(default=())

    @property
    def good(self) -> bool:
        """Whether nothing failed: no lint error, no mismatch."""
        return not any(item.severity == "error" for item in self.diagnostics) and not any(
            row.failures for row in self.rows
        )


def verify(progress: Callable[[str], None] | None = None, *, abis: Sequence[str] = ()) -> VerifyReport:
    """Lint every bundled specification, compile every codec, check every example, let the adapters talk, run all cases.

    `progress` is told the name of what comes next. Only `abis` are looked at, all where there are none.
    Raises `UsageError` ``unknown-abi``.
    """
    chosen = tuple(bundled(name).id for name in dict.fromkeys(abis)) or abi_ids()
    begun = time.perf_counter()
    tell = progress or (lambda name: None)
    tell("lint")
    diagnostics = tuple(lint_paths([path for name, path in abi_files().items() if name in chosen]))
    rows: list[VerifyRow] = []
    if not any(item.severity == "error" for item in diagnostics):
        for abi in chosen:
            for revision in bundled(abi).revisions:
                tell(f"{abi}@{revision}")
                rows.append(_row(bundled(abi), revision))
        rows = _with_cases(rows, tell, chosen)
    return VerifyReport(diagnostics=diagnostics, rows=tuple(rows), seconds=time.perf_counter() - begun)


def _with_cases(rows: list[VerifyRow], tell: Callable[[str], None], abis: Sequence[str]) -> list[VerifyRow]:
    """Return the rows with what came out of the plumbing check."""
    checked = check_all([abi for abi in abis if not bundled(abi).draft], progress=tell)
    out = []
    for row in rows:
        own = [item for item in checked if item.abi == row.abi]
        failures = [text for item in own for revision, text in item.failures if revision == row.revision]
        count = sum(item.cases.get(row.revision, 0) for item in own)
        out.append(replace(row, cases=count, failures=(*row.failures, *failures)))
    return out


def _changed(abi: Abi) -> list[Path]:
    """Return the files of an ABI of which an installation holds another form than what they say."""
    shared = (spec_root() / "shared" / f"{name}.yaml" for name in abi.uses)
    return [path for path in (Path(abi.path), *shared) if path.is_file() and differs(path)]


def _row(abi: Abi, revision: str) -> VerifyRow:
    begun = time.perf_counter()
    failures = [f"{path.name}: what was read beforehand is not what it says; hvabi generate" for path in _changed(abi)]
    spec = Spec(abi.resolve(revision=revision))
    codecs = 0
    for transport in spec.abi.transports.values():
        for message in transport.placements:
            try:
                spec.message(message, transport=transport.name)
                codecs += 1
            except HvAbiError as error:
                failures.append(f"{transport.name}/{message}: {error}")
    examples = [item for item in abi.examples if item.data.get("revision", abi.default_revision) == revision]
    for item in examples:
        failures += map(str, check_example(abi, item))
    talked = talk_all(spec) if not abi.draft else None
    if talked is not None:
        failures += talked.failures
    return VerifyRow(
        abi=abi.id,
        revision=revision,
        draft=abi.draft,
        transports=len(spec.abi.transports),
        rules=sum(len(call.rules) for call in spec.abi.calls.values()),
        codecs=codecs,
        examples=len(examples),
        host_examples=0 if abi.draft else sum(runs_host(item) for item in examples),
        conversations=talked.count if talked else 0,
        skipped=tuple(talked.skipped) if talked else ("draft: no adapter yet",),
        failures=tuple(failures),
        seconds=time.perf_counter() - begun,
    )
