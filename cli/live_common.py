"""What the commands of ``hvabi live`` share."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.evidence.live.errors import LiveError


def skipped(error: LiveError) -> int:
    """Say why nothing could be tested, and what to do about it."""
    console.note(f"skipped, because {error.message}")
    if error.hint:
        console.note(f"hint: {error.hint}")
    return console.SKIPPED


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
