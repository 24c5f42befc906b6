"""What the commands of ``hvabi live`` share."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.verdicts import Results


def skipped(error: LiveError) -> int:
    """Say why nothing could be tested, and what to do about it."""
    console.note(f"skipped, because {error.message}")
    if error.hint:
        console.note(f"hint: {error.hint}")
    return console.SKIPPED


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the command as an exception does, so that no machine runs on without it."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def version_of(release: str) -> tuple[int, int]:
    """Return major and minor number of what ``uname -r`` says."""
    major, minor, *_ = (*release.split("."), "0")
    return int(major), int("".join(char for char in minor if char.isdigit()) or 0)


def conform_by(words: list[str]) -> int:
    """Run ``hvabi conform`` with these words; return its exit code. Of a good run no file is announced."""
    from hvabi.cli.conform import command as conform

    with conform.make_context("hvabi conform", ["--passing-files", *words]) as ctx:
        code: int = conform.invoke(ctx)
    return code


def judged_by(words: list[str], report: Path) -> tuple[int, Results]:
    """Run ``hvabi conform``; return its exit code and its results, none where it wrote its report elsewhere."""
    code = conform_by(["--json", str(report), *words])
    rows: Results = json.loads(report.read_text(encoding="utf-8"))["results"] if report.exists() else []
    return code, rows


def show_verdicts(what: str, real: Results, bundled: Results) -> int:
    """Show where verdicts differ from those of the bundled host adapter; return the exit code that they are worth."""
    from hvabi.evidence.live.verdicts import differences

    if not bundled:
        console.note("the verdicts are not compared: --json wrote them into a file of yours")
        return console.GOOD
    count, differ = differences(real, bundled)
    for difference in differ:
        console.say(f"differs: {what} {difference}")
    console.say(f"{what} and bundled adapter: {count} cases ran in both, {len(differ)} with another verdict")
    return console.FOUND if not count or any(difference.bad for difference in differ) else console.GOOD


@contextlib.contextmanager
def transcripts() -> Iterator[tuple[Path, list[int]]]:
    """Yield a folder for transcripts, and a list for the exit codes of the runs that write them.

    The folder stays where a run found something or was given up, for its places were said then. Else it is deleted.
    """
    folder, codes = Path(tempfile.mkdtemp(prefix="hvabi-live-")), [console.GOOD]
    try:
        yield folder, codes
    finally:
        if max(codes) not in (console.FOUND, console.INTERNAL):
            shutil.rmtree(folder, ignore_errors=True)


def compared(path: Path, observed: Any) -> int:
    """Show what is answered differently from earlier observations."""
    from hvabi.evidence.live.observations import changes, read

    before = read(path)
    found = changes(before, observed)
    same = {item.request for item in before.observations} & {item.request for item in observed.observations}
    differ = [item for item in found if item.before is not None and item.after is not None]
    for item in differ:
        console.say(f"differs: {item.request}")
        console.say(f"  {before.kernel}: {item.before}")
        console.say(f"  {observed.kernel}: {item.after}")
    gone = sum(item.after is None for item in found)
    new = sum(item.before is None for item in found)
    console.say(
        f"compared with {before.kernel}: {len(same)} requests in both, {len(differ)} answered differently; "
        f"{gone} only in the file, {new} only in this run"
    )
    return console.FOUND if differ else console.GOOD


def recorded(observed: Any, observe: Path | None, compare: Path | None) -> int:
    """Write what was answered into a file, and compare it with one, where these are asked for."""
    from hvabi.evidence.live.observations import write

    if observe is not None:
        write(observe, observed)
        console.say(f"{len(observed.observations)} observations written to {observe}")
    return compared(compare, observed) if compare is not None else console.GOOD


def with_steps(found: Iterable[Any], rows: Iterable[Any], **about: str) -> Any:
    """Return the observations of cases and of steps together, by request; `about` is the kernel, how, and the ABI."""
    from hvabi.evidence.live.observations import Observed

    every = (*found, *(row.observation for row in rows))
    return Observed(observations=tuple(sorted(every, key=lambda item: item.request)), **about)


def show_steps(rows: Sequence[Any], scenarios: int, real: str, model: str) -> None:
    """Show the steps whose answers by the real one and by the model differ, and how many there are."""
    for row in rows:
        if row.differs:
            console.say(f"differs: {row.observation.request}")
            console.say(f"  {real + ':':<6} {row.observation.found}")
            console.say(f"  model: {row.wanted}")
    differ = sum(row.differs for row in rows)
    console.say(f"{scenarios} scenarios, {len(rows)} steps on {real} and on the {model}: {differ} differ")
