"""The version of the set of vectors, where its tests come from, and how large a change between two sets is."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import abi_files, spec_root

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from hvabi.conformance.case import Case

VERSION = "1.0.0"
"""Version of the set. Major: an id is gone, or what an id sends or wants is another. Minor: new ids. Patch: words."""

_WORDS = frozenset(("comment", "flags", "rules", "level", "reference", "source"))
"""Keys of a test that say something to people and nothing to an implementation."""
_WORDS_OF_ANSWERS = frozenset(("why", "rule", "status"))

Step = Literal["major", "minor", "patch", "none"]


class Difference(NamedTuple):
    """How two sets differ: the step that the version must make, and the first reasons for it."""

    step: Step
    reasons: tuple[str, ...]


def provenance(abi: str) -> list[dict[str, str]]:
    """Return the specification files that an ABI's tests are made from, with their SHA-256; none for a foreign ABI."""
    path = abi_files().get(abi)
    if path is None:
        return []
    from hvabi.abi.source import load_file, plain

    uses: Any = plain(load_file(path).root)
    shared = [spec_root() / "shared" / f"{name}.yaml" for name in _used(uses)]
    return [
        {"file": _name(file), "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in (path, *shared) if file.is_file()
    ]  # fmt: skip


def source_of(case: Case) -> str:
    """Return where a test comes from: the file, and the rule, example or story in it."""
    try:
        path = abi_files().get(case.abi)
    except HvAbiError:
        path = None
    own = _name(path) if path is not None else case.abi
    if case.kind == "regression":
        return f"conformance/regressions/{case.abi}.yaml"
    if case.kind == "example":
        return f"{own}#examples"
    return f"{own}#{case.rules[0]}" if case.rules else f"{own}#{case.call or 'calls'}"


def difference(old: Iterable[Mapping[str, Any]], new: Iterable[Mapping[str, Any]]) -> Difference:
    """Compare the files of two sets, as `vectors` gives them."""
    before, after = dict(_tests(old)), dict(_tests(new))
    gone = [f"the id {name} is gone" for name in before if name not in after]
    other = [
        f"{name} sends or wants something else"
        for name in before
        if name in after and _meaning(before[name]) != _meaning(after[name])
    ]
    if gone or other:
        return Difference("major", (*gone, *other))
    added = [f"the id {name} is new" for name in after if name not in before]
    if added:
        return Difference("minor", tuple(added))
    words = [f"{name} has other words" for name in before if before[name] != after[name]]
    return Difference("patch" if words else "none", tuple(words))


def least(version: str, step: Step) -> str:
    """Return the least version that may follow one after such a step. Raises `ValueError` where it is no version."""
    major, minor, patch = (int(part) for part in version.split("."))
    if step == "major":
        return f"{major + 1}.0.0"
    if step == "minor":
        return f"{major}.{minor + 1}.0"
    return f"{major}.{minor}.{patch + (step == 'patch')}"


def order(version: str) -> tuple[int, ...]:
    """Return what versions are compared by. Raises `ValueError` where it is no version."""
    major, minor, patch = (int(part) for part in version.split("."))
    return major, minor, patch


def _tests(found: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in found:
        for group in file["groups"]:
            for test in group["tests"]:
                yield test["id"], {**test, "transport": group["transport"], "config": group["config"]}


def _meaning(test: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an implementation gets and must do, without the words for people."""
    out = {key: value for key, value in test.items() if key not in _WORDS}
    if "steps" in test:
        out["steps"] = [
            {
                **{key: value for key, value in step.items() if key != "fields"},
                "expect": [{k: v for k, v in one.items() if k not in _WORDS_OF_ANSWERS} for one in step["expect"]],
            }
            for step in test["steps"]
        ]
    return out


def _used(data: Any) -> list[str]:
    uses = data.get("uses", []) if isinstance(data, dict) else []
    return list(uses)


def _name(path: Path) -> str:
    root = spec_root()
    return f"spec/{path.relative_to(root).as_posix()}" if path.is_relative_to(root) else path.name
