"""Where headers are installed, and which of them define what the specifications mirror."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.source import load_text, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PACKAGES = "linux-libc-dev and a linux-headers-*-common"
"""What to install where nothing is found."""

_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_LINE_JOIN = re.compile(r"\\\n")


@dataclass(frozen=True, kw_only=True)
class Root:
    """One set of installed headers.

    Attributes:
        kind: ``user`` for an include folder of user space, ``kernel`` for a kernel tree.
        path: the folder.
        label: how it is called in a report: the package, or the folder.
        other: structures that look otherwise on its architecture, by intent.

    """

    kind: Literal["user", "kernel"]
    path: Path
    label: str
    other: tuple[str, ...] = ()

    @property
    def folders(self) -> tuple[Path, ...]:
        """The folder, and of user space the one of the machine's architecture that Debian keeps inside it."""
        return (self.path, *(folder for folder in self.path.glob("*-linux-gnu") if (folder / "asm").is_dir()))

    @cached_property
    def odd_ioctls(self) -> bool:
        """Whether ioctl numbers are made otherwise than on x86, as powerpc, mips, sparc and alpha do."""
        own = (folder / "asm/ioctl.h" for folder in self.folders)
        return any("_IOC_DIRBITS" in path.read_text(errors="replace") for path in own if path.is_file())


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One header file of a root.

    Attributes:
        root: where it was found.
        name: its path as the catalogue has it.
        path: the file.
        arch: folder of ``arch/`` in a kernel tree.
        includes: the files to include in order to get it.
        real: headers of a kernel tree that it needs, as they are included.
        text: its text without comments, to see which symbols it defines.

    """

    root: Root
    name: str
    path: Path
    arch: str | None
    includes: tuple[Path, ...]
    real: tuple[str, ...]
    text: str

    def defines(self, symbol: str) -> bool:
        """Whether the header has a macro, an enumerator or a structure of that name."""
        last = symbol.split()[-1].split(".")[0]
        return re.search(rf"\b{re.escape(last)}\b", self.text) is not None

    def defines_constant(self, symbol: str) -> bool:
        """Whether the header has a macro or an enumerator of that name."""
        name = re.escape(symbol)
        macro = re.search(rf"^[ \t]*#[ \t]*define[ \t]+{name}\b(.*)", self.text, re.MULTILINE)
        if macro is not None:
            return not (self.root.odd_ioctls and macro[1].strip().startswith("_IO"))
        return re.search(rf"(?:[{{,]|^)\s*{name}\s*(?:=|,|\}})", self.text, re.MULTILINE) is not None

    def defines_type(self, symbol: str) -> bool:
        """Whether the header defines a structure, union or type of that name, not only uses it."""
        if symbol in self.root.other:
            return False
        kind, _, name = symbol.rpartition(" ")
        if kind:
            return re.search(rf"\b{kind}\s+{re.escape(name)}\s*\{{", self.text) is not None
        return re.search(rf"\}}[^;{{}}]*\b{re.escape(name)}\s*;", self.text) is not None


@cache
def _catalogue() -> Mapping[str, Any]:
    path = files("hvabi.evidence.headers") / "headers.yaml"
    data: Any = plain(load_text(path.read_bytes(), "headers.yaml").root)
    return MappingProxyType(data)


def installed() -> list[Root]:
    """Return what is installed on this machine: user space headers, cross headers, kernel trees under /usr/src."""
    user = [_user(row) for row in _catalogue()["roots"] if (Path(row["path"]) / "linux/kvm.h").is_file()]
    trees = sorted(Path("/usr/src").glob("linux-headers-*-common"))
    return user + [Root(kind="kernel", path=tree, label=tree.name) for tree in trees]


def _user(row: Mapping[str, Any]) -> Root:
    return Root(kind="user", path=Path(row["path"]), label=row["label"], other=tuple(row.get("except", ())))


def given(folder: Path) -> Root:
    """Return a folder that the caller names: a kernel tree where it has ``include/uapi``, else an include folder."""
    if (folder / "include/uapi").is_dir():
        return Root(kind="kernel", path=folder, label=str(folder))
    known = (row for row in _catalogue()["roots"] if str(folder).endswith(row["path"]) and "except" in row)
    other = next((tuple(row["except"]) for row in known), ())
    return Root(kind="user", path=folder, label=str(folder), other=other)


def headers(roots: Iterable[Root]) -> Iterator[Header]:
    """Yield every header of the catalogue that the roots have."""
    for root in roots:
        for row in _catalogue()["headers"]:
            if row["of"] != root.kind:
                continue
            path = next((path for folder in root.folders if (path := folder / row["header"]).is_file()), None)
            if path is None:
                continue
            includes = [root.path / row["behind"]] if "behind" in row else []
            includes.append(root.path / row["through"] if "through" in row else path)
            text = _COMMENT.sub(" ", _LINE_JOIN.sub(" ", path.read_text(encoding="utf-8", errors="replace")))
            yield Header(
                root=root, name=row["header"], path=path, arch=row.get("arch"), includes=tuple(includes),
                real=tuple(row.get("real", ())), text=text,
            )  # fmt: skip
