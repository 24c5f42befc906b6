"""Test vectors: cases as files that need neither hvabi nor Python, one file per ABI, revision and role.

The words are the protocol's: integers are ``0x`` strings, bytes are hex, ranges are ``[gpa, pages, state]``. The same
cases give the same bytes; no file has a time or a path in it. ``vectors.schema.json`` says what may stand in a file.
The same tests are written as NDJSON, one a line, and those of hosts as C headers.
"""

from __future__ import annotations

import hashlib
import json
import re
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from hvabi.abi.errors import HvAbiError
from hvabi.abi.whole_file import write_whole
from hvabi.conformance.release import release
from hvabi.conformance.vector_case import usable, vector
from hvabi.conformance.vector_header import TYPES, TYPES_TEXT, header
from hvabi.conformance.vector_lines import lines
from hvabi.conformance.vector_set import VERSION, provenance
from hvabi.conformance.vector_words import HEADER, NOTES, abi_of, config_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hvabi.conformance.case import Case

FORMAT = 1
MANIFEST = "manifest.json"
SCHEMA = "vectors.schema.json"
Form = Literal["json", "ndjson", "c"]
FORMS: tuple[Form, ...] = get_args(Form)
SUFFIXES = (".json", ".ndjson", ".h")


class VectorError(HvAbiError):
    """Vectors cannot be made or read: two cases with one id, no case, or a folder that is no set of vectors."""

    code = "vectors"


def write_vectors(directory: Path | str, cases: Iterable[Case], form: Form = "json") -> dict[str, Any]:
    """Write every case that needs no fault injection, and return the manifest.

    `form` is ``json``, ``ndjson``, or ``c`` for C headers, which are of hosts only. Each file is written as a whole
    or not at all, the manifest last. Files that an earlier manifest names and that are not written again are removed;
    nothing else in the folder is touched. Raises `VectorError` ``no-cases`` or ``duplicate-id`` before anything is
    written, `OSError` where the folder cannot be written to.
    """
    folder = Path(directory)
    texts = texts_of(vectors(cases), form)
    folder.mkdir(parents=True, exist_ok=True)
    old = names(folder)
    for name, text in texts.items():
        if name != MANIFEST:
            write_whole(folder / name, text)
    # Before the manifest forgets them: else nobody would remove them after a kill in between.
    for name in sorted(old - set(texts)):
        (folder / name).unlink(missing_ok=True)
    write_whole(folder / MANIFEST, texts[MANIFEST])
    manifest: dict[str, Any] = json.loads(texts[MANIFEST])
    return manifest


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
        "version": VERSION,
        "generator": {"name": "hvabi", "version": release()},
        "provenance": provenance(abi),
        "role": role,
        **abi_of(abi, revision, cases),
        "header": list(HEADER[role]),
        "notes": {flag: {"description": NOTES.get(flag, f"Cases of the kind {flag}.")} for flag in sorted(flags)},
        "numberOfTests": len(cases),
        "groups": list(groups.values()),
    }


def texts_of(made: Mapping[str, Mapping[str, Any]], form: Form = "json") -> dict[str, str]:
    """Return the text of every file by name, the manifest last. Raises `VectorError` ``no-cases``."""
    texts: dict[str, str] = {}
    about: dict[str, Mapping[str, Any]] = {}
    for name, data in made.items():
        if form != "c" or data["role"] == "host":
            texts[_SUFFIX[form](name)] = _WRITERS[form](data)
            about[_SUFFIX[form](name)] = data
    if not texts:
        text = "C headers are written of hosts, and no case of a host is selected"
        raise VectorError(text, code="no-cases", hint="select a host, or another form")
    texts |= {SCHEMA: _schema_text()} if form == "json" else {TYPES: TYPES_TEXT} if form == "c" else {}
    entries = []
    for name, text in sorted(texts.items()):
        data_ = text.encode()
        entry: dict[str, Any] = {"name": name, "sha256": hashlib.sha256(data_).hexdigest(), "size": len(data_)}
        if name in about:
            entry |= {key: about[name][key] for key in ("abi", "revision", "role", "numberOfTests")}
        entries.append(entry)
    manifest = {
        "format": FORMAT,
        "suite": "hvabi",
        "version": VERSION,
        "form": form,
        "generator": {"name": "hvabi", "version": release()},
        "numberOfTests": sum(data["numberOfTests"] for data in about.values()),
        "files": entries,
    }
    texts[MANIFEST] = canonical(manifest)
    return texts


_SUFFIX: Mapping[Form, Callable[[str], str]] = {
    "json": lambda name: name,
    "ndjson": lambda name: name.removesuffix(".json") + ".ndjson",
    "c": lambda name: name.removesuffix(".json") + ".h",
}
_WRITERS: Mapping[Form, Callable[[Mapping[str, Any]], str]] = {
    "json": lambda data: canonical(data),
    "ndjson": lines,
    "c": lambda data: header(data, VERSION),
}


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


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a vector file."""
    loaded: dict[str, Any] = json.loads(_schema_text())
    return loaded


@cache
def _schema_text() -> str:
    return files("hvabi.conformance").joinpath("schema", SCHEMA).read_text(encoding="utf-8")


# -- reading back -----------------------------------------------------------------------------------------------


def manifest_of(folder: Path) -> dict[str, Any]:
    """Return the manifest of a folder. Raises `VectorError` ``no-manifest`` where there is none, or it is none."""
    hint = "hvabi vectors -o DIR writes one"
    try:
        manifest: Any = json.loads((folder / MANIFEST).read_bytes())
    except OSError as error:
        raise VectorError(f"{folder} has no {MANIFEST}", code="no-manifest", hint=hint) from error
    except (ValueError, RecursionError) as error:
        raise VectorError(f"{folder / MANIFEST} is no JSON", code="no-manifest", hint=hint) from error
    if not isinstance(manifest, dict) or not _are_entries(manifest.get("files")) or not _is_headed(manifest):
        raise VectorError(f"{folder / MANIFEST} is no manifest of vectors", code="no-manifest", hint=hint)
    return manifest


def _is_headed(manifest: dict[str, Any]) -> bool:
    version = manifest.get("version")
    return (
        manifest.get("form") in FORMS
        and isinstance(version, str)
        and re.fullmatch(r"[0-9]{1,6}\.[0-9]{1,6}\.[0-9]{1,6}", version) is not None
    )


def _are_entries(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, dict)
        and isinstance(item.get("sha256"), str)
        and isinstance(item.get("name"), str)
        # A manifest from elsewhere must not lead out of its folder, and a name is one that files can have.
        and item["name"].isascii()
        and item["name"].isprintable()
        and item["name"] == Path(item["name"]).name
        and item["name"].endswith(SUFFIXES)
        for item in value
    )


def names(folder: Path) -> set[str]:
    """Return the files that the manifest of a folder names; none where it has no manifest."""
    try:
        return {entry["name"] for entry in manifest_of(folder)["files"]}
    except VectorError:
        return set()
