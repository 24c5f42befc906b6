"""Whether a folder is a set of vectors, and the one that the cases give now."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.conformance.vector_set import VERSION, difference, least, order
from hvabi.conformance.vectors import MANIFEST, SCHEMA, SUFFIXES, manifest_of, schema, texts_of, vectors

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.conformance.case import Case


def check(directory: Path | str, cases: Iterable[Case] | None = None) -> tuple[str, ...]:
    """Return what is wrong with a folder of vectors, one sentence each; empty when nothing is.

    Sums are checked, and of JSON schema, counts and ids. With `cases` the files must be those that `write_vectors`
    makes of them, byte for byte; an id that is gone is named, and where the version of the set does not tell of what
    has changed since, the version that it needs. Raises `VectorError` ``no-manifest`` where there is no manifest.
    """
    folder = Path(directory)
    manifest = manifest_of(folder)
    found: list[str] = []
    ids: dict[str, str] = {}
    old: list[dict[str, Any]] = []
    for entry in manifest["files"]:
        name = entry["name"]
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}")
            continue
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            found.append(f"{name} is not the file that the manifest names: its SHA-256 differs")
        if name.endswith(".json") and name != SCHEMA:
            found += _check_file(name, data, entry, ids, old)
    listed = {entry["name"] for entry in manifest["files"]}
    found += [f"{path.name} is not in the manifest" for path in sorted(folder.iterdir())
              if path.suffix in SUFFIXES and path.name not in listed and path.name != MANIFEST]  # fmt: skip
    if cases is not None:
        made = vectors(cases)
        found += _drift(folder, texts_of(made, manifest["form"]))
        if manifest["form"] == "json":
            found += _step(manifest["version"], old, made.values())
    return tuple(found)


def _check_file(
    name: str, data: bytes, entry: Mapping[str, Any], ids: dict[str, str], old: list[dict[str, Any]]
) -> Iterable[str]:
    from jsonschema import Draft202012Validator

    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        yield f"{name} is no JSON: {error}"
        return
    wrong = next(iter(Draft202012Validator(schema()).iter_errors(content)), None)
    if wrong is not None:
        yield f"{name} at {wrong.json_path}: {wrong.message[:200]}"
        return
    old.append(content)
    tests = [test for group in content["groups"] for test in group["tests"]]
    if not len(tests) == content["numberOfTests"] == entry.get("numberOfTests"):
        yield f"{name} has {len(tests)} tests and says {content['numberOfTests']}"
    for test in tests:
        if test["id"] in ids:
            yield f"{name}: the id {test['id']} is in {ids[test['id']]} too"
        ids[test["id"]] = name
        yield from (f"{name}: {test['id']} has the flag {flag}, which has no note" for flag in test["flags"]
                    if flag not in content["notes"])  # fmt: skip


def _drift(folder: Path, texts: Mapping[str, str]) -> Iterable[str]:
    for name, text in texts.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.read_bytes() != text.encode():
            yield f"{name} is not what the cases give now"


def _step(version: str, old: Iterable[dict[str, Any]], new: Iterable[dict[str, Any]]) -> Iterable[str]:
    """Name ids that are gone, and the version that the set needs where it has not got it."""
    found = difference(old, new)
    yield from (f"{reason}; ids are permanent" for reason in found.reasons if reason.endswith(" is gone"))
    needed = least(version, found.step)
    if order(VERSION) < order(needed):
        yield f"the set is {VERSION} and must be {needed} at least, for {found.reasons[0]} since {version}"
