"""Kernels of Debian: looked up with apt, downloaded and unpacked into a cache, never installed."""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.evidence.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

DEFAULT = "linux-image-cloud-amd64"
"""The metapackage whose kernel is taken where none is named: the smallest that has KVM."""
_SECONDS = 300
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.:~-]{1,120}\Z")
_ARCHIVE = "http://deb.debian.org/debian"
_KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """An unpacked kernel.

    Attributes:
        release: what ``uname -r`` will say.
        image: the bootable file.
        modules: folder of its modules.
        instead: folder of modules that are taken instead of those, or None.

    """

    release: str
    image: Path
    modules: Path
    instead: Path | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Major and minor number."""
        match = re.match(r"(\d+)\.(\d+)", self.release)
        return (int(match[1]), int(match[2])) if match else (0, 0)

    def module(self, name: str) -> bytes:
        """Return a module, decompressed. Raises `LiveError` ``no-module``."""
        wanted = {name.replace("-", "_"), name.replace("_", "-")}
        instead = self.instead.glob("*.ko") if self.instead is not None else ()
        for path in (*instead, *self.modules.rglob("*.ko*")):
            if path.name.split(".ko")[0] in wanted:
                data = path.read_bytes()
                return lzma.decompress(data) if path.suffix == ".xz" else data
        raise LiveError(f"kernel {self.release} has no module {name}", code="no-module", hint="take another kernel")

    def with_needs(self, names: Sequence[str]) -> list[tuple[str, bytes]]:
        """Return modules and what they depend on, in the order in which they load."""
        found: dict[str, bytes] = {}

        def add(name: str) -> None:
            if name in found:
                return
            data = self.module(name)
            for need in _needs(data):
                add(need)
            found[name] = data

        for name in names:
            add(name)
        return list(found.items())


def _needs(module: bytes) -> list[str]:
    match = re.search(rb"\0depends=([^\0]*)\0", module)
    return match[1].decode().split(",") if match and match[1] else []


def cache_folder() -> Path:
    """Return the folder where downloads are kept: ``$XDG_CACHE_HOME/hvabi/live``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "hvabi" / "live"


class Store:
    """Kernels in a cache, fetched with apt.

    Args:
        folder: the cache.
        suite: a suite of Debian other than the machine's own, such as ``trixie-backports``; its lists are kept in the
            cache and the machine's own sources stay as they are.
        architecture: the architecture of the packages where it is not the machine's own; needs a suite.
        progress: told what is being done.

    """

    def __init__(
        self,
        folder: Path,
        *,
        suite: str | None = None,
        architecture: str | None = None,
        progress: Callable[[object], None] = print,
    ) -> None:
        self.folder = folder
        self.suite = suite
        self.architecture = architecture
        self.progress = progress
        self._options: list[str] | None = None

    def names(self) -> list[str]:
        """Return the kernel packages that apt offers for this machine, oldest first."""
        pattern = rf"^linux-image-[0-9].*-{self.architecture or 'amd64'}$"
        text = self._apt("apt-cache", "search", "--names-only", pattern)
        found = {line.split(" ", 1)[0] for line in text.splitlines()}
        return sorted(
            (name for name in found if not name.endswith(("-dbg", "-unsigned")) and "-rt-" not in name), key=_order
        )

    def kernel(self, package: str | None = None) -> Kernel:
        """Return a kernel, downloaded where the cache does not have it. Raises `LiveError` ``no-kernel``."""
        name = package or self._concrete(DEFAULT)
        if not _PACKAGE.match(name):
            raise LiveError(f"{name!r} is no name of a package", code="no-kernel", hint="see --list")
        place = self.folder / "kernels" / name
        if not (place / "whole").exists():
            self._fetch(name, place)
        return unpacked(place)

    def _concrete(self, meta: str) -> str:
        text = self._apt("apt-cache", "depends", "--no-suggests", "--no-recommends", meta)
        match = re.search(r"Depends: (linux-image-\S+)", text)
        if match is None:
            raise LiveError(
                f"apt knows no kernel for {meta}", code="no-kernel", hint="apt-get update, or name one with --kernel"
            )
        return match[1]

    def _fetch(self, name: str, place: Path) -> None:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        self.unpack(name, place)
        if not any((place / "boot").glob("vmlinuz-*")):
            # Newer packages are split, and the one with the name is empty.
            parts = re.findall(r"Depends: (linux-(?:binary|modules)-\S+)", self._apt("apt-cache", "depends", name))
            for part in parts:
                self.unpack(part, place)
        unpacked(place)
        (place / "whole").touch()

    def version(self, name: str) -> str:
        """Return the version of a package that apt would take. Raises `LiveError` ``no-kernel``."""
        match = re.search(r"^Version: (\S+)$", self._apt("apt-cache", "show", "--no-all-versions", name), re.MULTILINE)
        if match is None:
            raise LiveError(f"apt does not know {name}", code="no-kernel", hint="apt-get update, or see --list")
        return match[1]

    def unpack(self, name: str, place: Path) -> None:
        """Download a package, as ``NAME`` or ``NAME=VERSION``, and unpack it into a folder."""
        self.progress(f"downloading {name}")
        self._apt("apt-get", "download", name, cwd=place)
        for deb in place.glob("*.deb"):
            self.progress(f"unpacking {deb.name}")
            _run(["dpkg-deb", "-x", str(deb), str(place)])
            deb.unlink()

    def _apt(self, *words: str, cwd: Path | None = None) -> str:
        command = [words[0], *self._state(), *words[1:]]
        return _run(command, cwd=cwd)

    def _state(self) -> list[str]:
        if self._options is None:
            self._options = []
            if self.suite is not None:
                self._options = self._private_state(self.suite)
        return self._options

    def _private_state(self, suite: str) -> list[str]:
        if not _PACKAGE.match(suite):
            raise LiveError(f"{suite!r} is no name of a suite", code="no-kernel")
        state = self.folder / "apt" / (suite if self.architecture is None else f"{suite}-{self.architecture}")
        for part in ("lists/partial", "cache/archives/partial"):
            (state / part).mkdir(parents=True, exist_ok=True)
        (state / "sources.list").write_text(f"deb [signed-by={_KEYS}] {_ARCHIVE} {suite} main\n")
        options = [
            *("-o", f"Dir::Etc::sourcelist={state}/sources.list"), *("-o", "Dir::Etc::sourceparts=/dev/null"),
            *("-o", f"Dir::State::lists={state}/lists"), *("-o", f"Dir::Cache={state}/cache"),
        ]  # fmt: skip
        if self.architecture is not None:
            options += ["-o", f"APT::Architecture={self.architecture}", "-o", f"APT::Architectures={self.architecture}"]
        self.progress(f"reading the lists of {suite}")
        _run(["apt-get", *options, "update", "-qq"])
        return options


def unpacked(place: Path) -> Kernel:
    """Return the kernel in a folder that a package was unpacked into. Raises `LiveError` ``no-kernel``."""
    images = sorted(place.glob("boot/vmlinuz-*")) + sorted(place.glob("usr/lib/linux*/vmlinuz-*"))
    for image in images:
        release = image.name.removeprefix("vmlinuz-")
        for folder in (place / "lib/modules" / release, place / "usr/lib/modules" / release):
            if folder.is_dir():
                return Kernel(release=release, image=image, modules=folder)
    split = next(_split_images(place), None)
    if split is not None:
        return split
    raise LiveError(f"{place} has no kernel with modules", code="no-kernel", hint="delete it, or take another package")


def _split_images(place: Path) -> Iterator[Kernel]:
    for folder in [*place.glob("usr/lib/modules/*"), *place.glob("lib/modules/*")]:
        image = folder / "vmlinuz"
        if image.is_file():
            yield Kernel(release=folder.name, image=image, modules=folder)


def _order(name: str) -> tuple[list[int], str]:
    return [int(part) for part in re.findall(r"\d+", name)], name


def _run(command: list[str], cwd: Path | None = None) -> str:
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=_SECONDS, cwd=cwd, env=environment
        )
    except FileNotFoundError as error:
        raise LiveError(f"{command[0]} is not installed", code="no-kernel", hint="this needs Debian's apt") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LiveError(f"{command[0]} does not work: {error}", code="no-kernel") from error
    if result.returncode:
        lines = [line for line in result.stderr.splitlines() if line.strip()] or ["no message"]
        raise LiveError(f"{command[0]}: {lines[-1]}", code="no-kernel", hint="apt-get update, or see --list")
    return result.stdout
