"""What changed between two specifications: each change with its class, at file and line.

A change is ``breaking`` where bytes, answers or what is asked of somebody can be other than before, ``compatible``
where something was only added, and ``documentation`` where no program can tell. How a value is written (hex, quotes,
order of names, line breaks) is no change. What this module does not know is breaking.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hvabi.abi.errors import UsageError, show
from hvabi.abi.source import load_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.abi.source import Node, SourceFile

Class = Literal["breaking", "compatible", "documentation"]
Kind = Literal["added", "removed", "changed", "reordered"]
Trail = tuple[str, ...]

CLASSES: tuple[Class, ...] = ("breaking", "compatible", "documentation")
"""The gravest first."""

_TEXTS = frozenset(
    ("doc", "text", "title", "note", "source", "sources", "provenance", "mirrors", "url", "cannot", "roles", "evidence")
)
"""Keys whose values no codec, engine or check reads."""
_ADDABLE = frozenset(
    ("constants", "config", "facts", "enums", "layouts", "messages", "transports", "calls", "policies", "profiles")
)
"""Keys whose mapping has names of the author's as keys, and where one more of them changes nothing for those who know
the others."""
_NAMED = _ADDABLE | {"revisions", "fields", "limits", "outcomes", "blocks"}
"""All keys whose mapping has names of the author's as keys: a field may be called ``doc``."""
_ORDERED = (("transports",), ("calls",))
"""Mappings whose first item is a default; a message's fields have an order too, that of its registers."""
_KEYS = ("id", "name")
"""What an item of a list is known by."""
_MOST_FILES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change.

    Attributes:
        effect: its class.
        kind: what happened.
        abi: the ABI, or the name of a shared file or platform.
        path: the names and keys that lead to it, joined by dots.
        message: what changed, in a sentence without a full stop.
        file: the file in which `line` is: the new one, or the old one for what is gone.
        line: 1-based.

    """

    effect: Class
    kind: Kind
    abi: str
    path: str
    message: str
    file: str
    line: int


def differences(old: Path | str, new: Path | str) -> tuple[Change, ...]:
    """Return what changed between two files, or two folders of files, in the order of the files.

    In folders the specifications are matched by what they specify, not by the names of their files.

    Raises:
        UsageError: ``no-file``, ``file-and-folder``, ``no-specification``, ``too-many-files``, ``twice``.
        SpecError: for a file that is no YAML.

    """
    before, after = Path(old), Path(new)
    for path in (before, after):
        if not path.exists():
            raise UsageError(
                f"there is no file or folder {str(path)!r}", code="no-file", hint="name two files or two folders"
            )
    if before.is_dir() != after.is_dir():
        raise UsageError("one is a folder and one is a file", code="file-and-folder", hint="name two of a kind")
    olds, news = _specifications(before), _specifications(after)
    if not before.is_dir() and set(olds) != set(news):
        # Two files: what is compared is what the caller named.
        ((name, was),) = olds.items()
        ((other, now),) = news.items()
        root = [_change("changed", name, ("abi",), f"it was {name} and is {other}", now, now.root)]
        return (*root, *_Walk(other, was, now).mapping((), was.root, now.root))
    found: list[Change] = []
    for name, now in news.items():
        if name in olds:
            found += _Walk(name, olds[name], now).mapping((), olds[name].root, now.root)
        else:
            found.append(_change("added", name, (), f"{name} is new", now, now.root))
    gone = [(name, was) for name, was in olds.items() if name not in news]
    return (*found, *(_change("removed", name, (), f"{name} is gone", was, was.root) for name, was in gone))


def _specifications(path: Path) -> dict[str, SourceFile]:
    """Return every specification by what it is of; YAML that is none is left out of a folder."""
    if not path.is_dir():
        files = [path]
    else:
        files = []
        for item in sorted(path.rglob("*.yaml")):
            files.append(item)
            if len(files) > _MOST_FILES:
                raise UsageError(
                    f"{path} has more than {_MOST_FILES} YAML files",
                    code="too-many-files",
                    hint="name the folder of the specifications",
                )
    found: dict[str, SourceFile] = {}
    for item in files:
        source = load_file(item)
        name = _name(source)
        if name is None and path.is_dir():
            continue
        if name is None:
            raise UsageError(
                f"{item} is no specification: it has no `abi`", code="no-specification", hint="name another file"
            )
        if name in found:
            raise UsageError(
                f"{found[name].path} and {item} are both {name}",
                code="twice",
                hint="name the folder of one set of specifications",
            )
        found[name] = source
    if not found:
        raise UsageError(
            f"there is no specification in {path}", code="no-specification", hint="name the folder of the *.yaml"
        )
    return found


def _name(source: SourceFile) -> str | None:
    root = source.root.value
    if isinstance(root, dict):
        for key in ("abi", "shared", "platform"):
            if key in root and isinstance(root[key].value, str):
                return str(root[key].value) if key == "abi" else f"{key}/{root[key].value}"
    return None


def _change(kind: Kind, abi: str, trail: Trail, message: str, source: SourceFile, node: Node) -> Change:
    return Change(effect=effect_of(kind, trail), kind=kind, abi=abi, path=".".join(trail), message=message,
                  file=source.path, line=node.line)  # fmt: skip


def effect_of(kind: Kind, trail: Trail) -> Class:
    """Return the class of a change at a place.

    An example is compatible whatever happens to it: what it shows is decided elsewhere in the file.
    """
    if _is_text(trail):
        return "documentation"
    if kind == "changed" and (trail[:1] == ("facts",) or (trail[:1] == ("policies",) and trail[2:3] == ("values",))):
        return "documentation"  # a name and its text: the name counts, not the text
    if trail[:1] == ("examples",) or _is_of_others(trail):
        return "compatible"
    if kind == "added" and _may_be_added(trail):
        return "compatible"
    return "breaking"


def _is_text(trail: Trail) -> bool:
    return any(key in _TEXTS and not (at and _names(trail[:at])) for at, key in enumerate(trail))


def _is_of_others(trail: Trail) -> bool:
    """Whether it is about numbers of other calls: fewer cases or more, and no answer is another."""
    return any(key == "others" and at and not _names(trail[:at]) for at, key in enumerate(trail))


def _names(parent: Trail) -> bool:
    """Whether the keys of the mapping at `parent` are names of the author's."""
    if parent[-1] == "values":
        return parent[0] in ("enums", "policies")
    if parent[-1] == "revisions":
        return len(parent) == 1
    if parent[-1] in ("policies", "config"):
        return len(parent) == 1 or parent[0] == "profiles"
    return parent[-1] in _NAMED and not (len(parent) > 1 and _names(parent[:-1]))


def _may_be_added(trail: Trail) -> bool:
    if not trail:
        return True
    parent = trail[:-1]
    if not parent:
        return trail[0] in _NAMED  # a whole section that was not there
    if parent[0] == "layouts" and parent[-1] == "fields":
        return True  # in bytes that had no field; anything else is a change of another field too
    if parent[0] in ("profiles", "calls") and len(parent) > 1:
        return False
    return _names(parent) and (parent[-1] in _ADDABLE or parent[-1] in ("values", "revisions"))


class _Walk:
    """Goes through two files side by side."""

    def __init__(self, abi: str, old: SourceFile, new: SourceFile) -> None:
        self._abi = abi
        self._old = old
        self._new = new

    def _one(self, kind: Kind, trail: Trail, message: str, node: Node) -> Change:
        return _change(kind, self._abi, trail, message, self._old if kind == "removed" else self._new, node)

    def mapping(self, trail: Trail, old: Node, new: Node) -> Iterator[Change]:
        """Yield the changes between two mappings."""
        was, now = old.value, new.value
        assert isinstance(was, dict)
        assert isinstance(now, dict)
        for key, node in now.items():
            if key in was:
                yield from self.values((*trail, key), was[key], node)
            else:
                yield self._one("added", (*trail, key), f"{key} is new{_short(node)}", new.keys[key])
        for key in was:
            if key not in now:
                yield self._one("removed", (*trail, key), f"{key} is gone", old.keys[key])
        kept = [key for key in was if key in now]
        ordered = trail in _ORDERED or (trail[:1] == ("messages",) and trail[2:] == ("fields",))
        if ordered and kept != (order := [key for key in now if key in was]):
            yield self._one("reordered", trail, f"the order was {', '.join(kept)} and is {', '.join(order)}", new)

    def values(self, trail: Trail, old: Node, new: Node) -> Iterator[Change]:
        """Yield the changes between two values of any kind."""
        if isinstance(old.value, dict) and isinstance(new.value, dict):
            yield from self.mapping(trail, old, new)
        elif isinstance(old.value, list) and isinstance(new.value, list):
            yield from self._lists(trail, old, new)
        elif _comparable(old) != _comparable(new):
            yield self._one("changed", trail, f"it was {_text(old)} and is {_text(new)}", new)

    def _lists(self, trail: Trail, old: Node, new: Node) -> Iterator[Change]:
        was, now = _by_key(old), _by_key(new)
        if was is None or now is None:
            if _comparable(old) != _comparable(new):
                yield from self._plain_lists(trail, old, new)
            return
        for key, node in now.items():
            if key in was:
                yield from self.values((*trail, key), was[key], node)
            else:
                yield self._one("added", (*trail, key), f"{key} is new", node)
        for key, node in was.items():
            if key not in now:
                yield self._one("removed", (*trail, key), f"{key} is gone", node)
        kept = [key for key in was if key in now]
        order = [key for key in now if key in was]
        if trail[0] != "examples" and kept != order:
            moved = next(key for key, other in zip(order, kept, strict=True) if key != other)
            yield self._one("reordered", (*trail, moved), f"{moved} is at another place in the order", now[moved])

    def _plain_lists(self, trail: Trail, old: Node, new: Node) -> Iterator[Change]:
        """Yield the changes of lists whose items have no names: item by item where there are as many."""
        was, now = old.value, new.value
        assert isinstance(was, list)
        assert isinstance(now, list)
        if len(was) == len(now):
            for number, (one, other) in enumerate(zip(was, now, strict=True)):
                yield from self.values((*trail, str(number)), one, other)
        else:
            yield self._one("changed", trail, f"it had {len(was)} items and has {len(now)}", new)


def _by_key(node: Node) -> dict[str, Node] | None:
    """Return the items of a list by their id or name, or None where one has none or two have the same."""
    assert isinstance(node.value, list)
    found: dict[str, Node] = {}
    for item in node.value:
        fields = item.value if isinstance(item.value, dict) else {}
        key = next((fields[key].value for key in _KEYS if key in fields), None)
        if not isinstance(key, str) or key in found:
            return None
        found[key] = item
    return found


def _comparable(node: Node) -> object:
    """Return a value as what it means: without its place, without the line breaks of a folded text."""
    value = node.value
    if isinstance(value, dict):
        return {key: _comparable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return " ".join(value.split()) if isinstance(value, str) else (type(value).__name__, value)


def _text(node: Node) -> str:
    value = node.value
    if isinstance(value, bool) or value is None:
        return str(value).lower()
    return "a mapping" if isinstance(value, dict) else "a list" if isinstance(value, list) else show(value)


def _short(node: Node) -> str:
    return f": {_text(node)}" if isinstance(node.value, (int, str)) else ""
