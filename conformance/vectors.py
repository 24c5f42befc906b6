"""Test vectors: cases as JSON files that need neither hvabi nor Python, one file per ABI, revision and role.

The words are the protocol's: integers are ``0x`` strings, bytes are hex, ranges are ``[gpa, pages, state]``. The same
cases give the same bytes; no file has a time or a path in it. ``vectors.schema.json`` says what may stand in a file.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.conformance.release import release
from hvabi.conformance.report.file import write
from hvabi.conformance.vector_case import usable, vector
from hvabi.conformance.vector_words import HEADER, NOTES, abi_of, config_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.conformance.case import Case

FORMAT = 1
MANIFEST = "manifest.json"
SCHEMA = "vectors.schema.json"


class VectorError(HvAbiError):
    """Vectors cannot be made or read: two cases with one id, no case, or a folder that is no set of vectors."""

    code = "vectors"


def write_vectors(directory: Path | str, cases: Iterable[Case]) -> dict[str, Any]:
    """Write every case that needs no fault injection, and return the manifest.

    Each file is written as a whole or not at all, the manifest last. Files that an earlier manifest names and that
    are not written again are removed; nothing else in the folder is touched. Raises `VectorError` ``no-cases`` or
    ``duplicate-id`` before anything is written, `OSError` where the folder cannot be written to.
    """
    folder = Path(directory)
    texts = _texts(cases)
    folder.mkdir(parents=True, exist_ok=True)
    old = _names(folder)
    for name, text in texts.items():
        write(folder / name, text)
    for name in sorted(old - set(texts)):
        (folder / name).unlink(missing_ok=True)
    manifest: dict[str, Any] = json.loads(texts[MANIFEST])
    return manifest


def check(directory: Path | str, cases: Iterable[Case] | None = None) -> tuple[str, ...]:
    """Return what is wrong with a folder of vectors, one sentence each; empty when nothing is.

    Sums, schema, counts and ids are checked. With `cases` the files must be those that `write_vectors` makes of them,
    byte for byte, and an id that is gone is named. Raises `VectorError` ``no-manifest`` where there is no manifest.
    """
    folder = Path(directory)
    manifest = _manifest(folder)
    found: list[str] = []
    ids: dict[str, str] = {}
    for entry in manifest["files"]:
        name = entry["name"]
        try:
            data = (folder / name).read_bytes()
        except OSError as error:
            found.append(f"{name} cannot be read: {error.strerror}")
            continue
        if hashlib.sha256(data).hexdigest() != entry["sha256"]:
            found.append(f"{name} is not the file that the manifest names: its SHA-256 differs")
        if name != SCHEMA:
            found += _check_file(name, data, entry, ids)
    listed = {entry["name"] for entry in manifest["files"]}
    found += [f"{path.name} is not in the manifest" for path in sorted(folder.glob("*.json"))
              if path.name not in listed and path.name != MANIFEST]  # fmt: skip
    if cases is not None:
        found += _drift(folder, _texts(cases), ids)
    return tuple(found)


def vectors(cases: Iterable[Case]) -> dict[str, dict[str, Any]]:
    """Return the files as plain data by name. Raises `VectorError` ``no-cases`` or ``duplicate-id``."""
    grouped: dict[tuple[str, str, str], list[Case]] = {}
    ids: set[str] = set()
    for case in cases:
        if not usable(case):
            continue
        if case.id in ids:
            raise VectorError(f"two cases have the id {case.id}", code="duplicate-id", hint="ids are permanent")
        ids.add(case.id)
        grouped.setdefault((case.abi, case.revision, case.role), []).append(case)
    if not grouped:
        raise VectorError("no case can be written as a vector", code="no-cases", hint="select more cases")
    return {
        f"{abi}@{revision}.{role}.json": _file(abi, revision, role, members)
        for (abi, revision, role), members in sorted(grouped.items())
    }


def _file(abi: str, revision: str, role: str, cases: list[Case]) -> dict[str, Any]:
    groups: dict[str, dict[str, Any]] = {}
    for case in cases:
        config = config_of(case)
        key = json.dumps([case.transport, config])
        group = groups.setdefault(key, {"transport": case.transport, "config": config, "tests": []})
        group["tests"].append(vector(case))
    flags = dict.fromkeys(case.kind for case in cases)
    return {
        "schema": SCHEMA,
        "format": FORMAT,
        "suite": "hvabi",
        "generator": {"name": "hvabi", "version": release()},
        "role": role,
        **abi_of(abi, revision, cases),
        "header": list(HEADER[role]),
        "notes": {flag: {"description": NOTES.get(flag, f"Cases of the kind {flag}.")} for flag in sorted(flags)},
        "numberOfTests": len(cases),
        "groups": list(groups.values()),
    }


def _texts(cases: Iterable[Case]) -> dict[str, str]:
    """Return the text of every file by name, the manifest last."""
    made = vectors(cases)
    texts = {name: canonical(data) for name, data in made.items()}
    texts[SCHEMA] = _schema_text()
    entries = []
    for name, text in sorted(texts.items()):
        data = text.encode()
        entry: dict[str, Any] = {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        if name in made:
            entry |= {key: made[name][key] for key in ("abi", "revision", "role", "numberOfTests")}
        entries.append(entry)
    manifest = {
        "format": FORMAT,
        "suite": "hvabi",
        "generator": {"name": "hvabi", "version": release()},
        "numberOfTests": sum(data["numberOfTests"] for data in made.values()),
        "files": entries,
    }
    texts[MANIFEST] = canonical(manifest)
    return texts


def canonical(data: Any) -> str:
    """Return JSON in the one form that vector files have: ASCII, a line per key, short lists on one line."""
    return _write(data, "") + "\n"


def _write(value: Any, indent: str) -> str:
    line = json.dumps(value)
    if not isinstance(value, (dict, list)) or not value or len(line) + len(indent) <= 110:
        return line
    inner = indent + " "
    if isinstance(value, dict):
        parts = [f"{inner}{json.dumps(key)}: {_write(item, inner)}" for key, item in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
    return "[\n" + ",\n".join(inner + _write(item, inner) for item in value) + f"\n{indent}]"


# -- reading back -----------------------------------------------------------------------------------------------


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a vector file."""
    loaded: dict[str, Any] = json.loads(_schema_text())
    return loaded


@cache
def _schema_text() -> str:
    return files("hvabi.conformance").joinpath("schema", SCHEMA).read_text(encoding="utf-8")


def _manifest(folder: Path) -> dict[str, Any]:
    hint = "hvabi vectors -o DIR writes one"
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise VectorError(f"{folder} has no {MANIFEST}", code="no-manifest", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise VectorError(f"{folder / MANIFEST} is no JSON", code="no-manifest", hint=hint) from error
    if not isinstance(manifest, dict) or not _are_entries(manifest.get("files")):
        raise VectorError(f"{folder / MANIFEST} is no manifest of vectors", code="no-manifest", hint=hint)
    return manifest


def _are_entries(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("sha256"), str)
        and isinstance(item.get("name"), str)
        # A manifest from elsewhere must not lead out of its folder.
        and item["name"] == Path(item["name"]).name
        and item["name"].endswith(".json")
        for item in value
    )


def _names(folder: Path) -> set[str]:
    try:
        return {entry["name"] for entry in _manifest(folder)["files"]}
    except VectorError:
        return set()


def _check_file(name: str, data: bytes, entry: Mapping[str, Any], ids: dict[str, str]) -> Iterable[str]:
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
    tests = [test for group in content["groups"] for test in group["tests"]]
    if not len(tests) == content["numberOfTests"] == entry.get("numberOfTests"):
        yield f"{name} has {len(tests)} tests and says {content['numberOfTests']}"
    for test in tests:
        if test["id"] in ids:
            yield f"{name}: the id {test['id']} is in {ids[test['id']]} too"
        ids[test["id"]] = name
        yield from (f"{name}: {test['id']} has the flag {flag}, which has no note" for flag in test["flags"]
                    if flag not in content["notes"])  # fmt: skip


def _drift(folder: Path, texts: Mapping[str, str], ids: Mapping[str, str]) -> Iterable[str]:
    made = {
        test["id"]
        for name, text in texts.items()
        if name not in (SCHEMA, MANIFEST)
        for group in json.loads(text)["groups"]
        for test in group["tests"]
    }
    for gone in sorted(set(ids) - made):
        yield f"the id {gone} is gone; ids are permanent"
    for name, text in texts.items():
        path = folder / name
        if not path.is_file():
            yield f"{name} is missing"
        elif path.read_bytes() != text.encode():
            yield f"{name} is not what the cases give now"
