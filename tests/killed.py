"""Kills hvabi at each moment at which it is about to change a file of its output, and looks at what it leaves.

    python -m tests.killed [COMMAND ...]

Names that begin with a dot are what is being written; every other file must be as it was before, or as it is after a
whole run, and is never opened for writing. After each kill the command is run again, and must end well.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import tempfile
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.cli.main import cli
from tests.entry import CORPUS

if TYPE_CHECKING:
    from collections.abc import Mapping

TRACE = str(CORPUS / "traces" / "page_enc_status_hc.log")
OTHER = str(CORPUS / "traces" / "swiotlb-60-ranges")
_RUN = ["conform", "--iut", "builtin", "--junit", "OUT/j.xml", "--ktap", "OUT/k.txt", "--json", "OUT/j.json",
        "--html", "OUT/h.html", "--expect", "OUT/known.yaml", "--update-expect"]  # fmt: skip
COMMANDS: Mapping[str, tuple[list[str], list[str]]] = {
    "vectors": (["vectors", "-o", "OUT/v", "kvm-exit-memory-fault"], ["vectors", "-o", "OUT/v", "pef-uv-share"]),
    "gen": (["gen", "c", "-o", "OUT/c", "ghcb-psc"], ["gen", "c", "-o", "OUT/c", "tdx-map-gpa"]),
    "replay": (["replay", OTHER, "--ndjson", "OUT/r.ndjson", "--plot", "OUT/r.html", "--plot", "OUT/r.svg"],
               ["replay", TRACE, "--ndjson", "OUT/r.ndjson", "--plot", "OUT/r.html", "--plot", "OUT/r.svg"]),
    "conform": ([*_RUN, "pef-uv-share"], [*_RUN, "kvm-exit-memory-fault"]),
}  # fmt: skip
"""By name what was run before, and what is killed."""
_CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.link", "os.symlink", "os.truncate")


class _Moments:
    """An audit hook: counts changes below a folder, and ends the process at one of them."""

    def __init__(self, folder: Path, at: int, told: int) -> None:
        self.folder, self.left, self.told = str(folder) + os.sep, at, told

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = args
            if not flags & (os.O_WRONLY | os.O_RDWR):
                return
            if isinstance(path, str) and path.startswith(self.folder) and not _hidden(path[len(self.folder) :]):
                os.write(self.told, f"{path} is opened for writing\n".encode())
        elif event in _CHANGES:
            path = args[0]
        else:
            return
        if os.fspath(path).startswith(self.folder) if isinstance(path, str | Path) else event == "os.chmod":
            self.left -= 1
            if self.left < 0:
                os.kill(os.getpid(), signal.SIGKILL)


def _hidden(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def files(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder by name, without those that are being written."""
    names = (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())
    return {name: (folder / name).read_bytes() for name in names if not _hidden(name)}


def run(words: list[str], folder: Path, at: int) -> tuple[bool, str]:
    """Run a command in a child that ends at a moment; return whether it did, and what was wrong before."""
    heard, told = os.pipe()
    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            os.dup2(os.open(os.devnull, os.O_RDWR), 1)
            os.dup2(1, 2)
            sys.addaudithook(_Moments(folder, at, told))
            try:
                cli.main([word.replace("OUT", str(folder)) for word in words], prog_name="hvabi")
            except SystemExit as end:
                os._exit(int(end.code or 0))
        os._exit(99)
    os.close(told)
    _, status = os.waitpid(child, 0)
    with os.fdopen(heard) as stream:
        said = stream.read()
    if os.WIFSIGNALED(status):
        return True, said
    if os.WEXITSTATUS(status) not in (0, 1):
        said += f"exit code {os.WEXITSTATUS(status)}\n"
    return False, said


def tried(name: str, every: int = 1) -> tuple[int, list[str]]:
    """Kill a command at every n-th moment, with and without earlier output; return the moments, and what was wrong."""
    before, words = COMMANDS[name]
    moments, wrong = 0, []
    for earlier in (False, True):
        with tempfile.TemporaryDirectory() as text:
            folder, kept = Path(text, "out"), Path(text, "kept")
            folder.mkdir()
            if earlier:
                run(before, folder, 10**9)
            shutil.copytree(folder, kept)
            old = files(kept)
            run(words, folder, 10**9)
            new = files(folder)
            for at in count(0, every):
                shutil.rmtree(folder)
                shutil.copytree(kept, folder)
                killed, said = run(words, folder, at)
                found = files(folder)
                where = f"{name}, {'with' if earlier else 'without'} earlier output, moment {at}"
                wrong += [f"{where}: {line}" for line in said.splitlines()]
                wrong += [f"{where}: {file} is neither the old one nor the new one" for file, data in found.items()
                          if data not in (old.get(file), new.get(file))]  # fmt: skip
                if not killed:
                    break
                moments += 1
                again, said = run(words, folder, 10**9)
                wrong += [f"{where}, then run again: {line}" for line in said.splitlines()]
                if again or files(folder) != new:
                    wrong.append(f"{where}: run again, it is not as without the kill")
    return moments, wrong


def main() -> int:
    bad = 0
    for name in sys.argv[1:] or COMMANDS:
        moments, wrong = tried(name)
        print(f"{name}: killed at {moments} moments, {len(wrong)} wrong", *wrong[:20], sep="\n  ", flush=True)
        bad += len(wrong)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
