"""The JSON Schemas of the specification files, and their errors as diagnostics.

``spec/schema/abi.schema.json`` describes an ABI's file, ``shared.schema.json`` one of ``spec/shared``,
``platform.schema.json`` a hypervisor without a call of its own. What
the validator finds is said in the words of the language, with line and column; where several forms
are possible, the error is that of the form that was meant. `jsonschema` is imported when it is first needed.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

from hvabi.abi.errors import show
from hvabi.abi.source_node import find, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

    from hvabi.abi.diagnostics import Diagnostic
    from hvabi.abi.model import Pointer
    from hvabi.abi.source_node import Node, SourceFile

Kind = Literal["abi", "shared", "platform"]

MAX_PROBLEMS = 500
"""Most problems that one file is searched for: a file that is no specification at all has thousands."""

IDS: Mapping[str, str] = {
    "schema-unknown-key": "A key is not part of the specification language at this place.",
    "schema-missing-key": "A key that is required at this place is missing.",
    "schema-choice": "Of several keys exactly one must be there, or at least one.",
    "schema-type": "A value has the wrong type, for example text in place of a number.",
    "schema-value": "A value is not one of the words that are possible at this place.",
    "schema-name": "A name or a text does not have the required form.",
    "schema-range": "A number is smaller or larger than it may be.",
    "schema-length": "A text, list or mapping has too few or too many members.",
    "schema-duplicate": "A list has the same member twice.",
}
"""Every id of this module, with one sentence each."""

_TYPES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
    "null": "nothing",
}
_TYPE_HINTS = {
    ("string", "integer"): "quote it to make it text",
    ("string", "boolean"): "quote it to make it text",
    ("integer", "string"): "write a plain number without quotes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One way in which data do not fit the schema. `key` is set where a key is at fault and not its value."""

    id: str
    pointer: Pointer
    message: str
    key: str | None = None
    hint: str | None = None


@cache
def load(kind: Kind) -> dict[str, Any]:
    """Return the JSON Schema for the files of a kind."""
    text = resources.files("hvabi.spec").joinpath("schema", f"{kind}.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def validator(kind: Kind) -> Draft202012Validator:
    """Return the validator for the files of a kind."""
    from jsonschema import Draft202012Validator
    from referencing import Registry, Resource

    names: tuple[Kind, ...] = ("abi", "shared", "platform")
    registry: Registry[Any] = Registry().with_resources(
        (f"{name}.schema.json", Resource.from_contents(load(name))) for name in names
    )
    return Draft202012Validator(load(kind), registry=registry)


def kind_of(data: object) -> Kind:
    """Return which schema a file's data are for: a shared file says ``shared:``, a platform's ``platform:``."""
    if isinstance(data, dict) and "abi" not in data:
        if "shared" in data:
            return "shared"
        if "platform" in data:
            return "platform"
    return "abi"


def validate(source: SourceFile) -> list[Diagnostic]:
    """Return everything in which a file does not fit its schema, in the order of the file; empty for none."""
    data = plain(source.root)
    found = {
        source.diagnostic(locate(source, p.pointer, p.key), p.id, p.message, p.hint)
        for p in problems(data, kind_of(data))
    }
    return sorted(found, key=lambda diagnostic: diagnostic.position)


def locate(source: SourceFile, pointer: Pointer, key: str | None = None) -> Node:
    """Return the value at a pointer, or its key where `key` is given.

    A mapping that is written over several lines is shown by its own key: its first line says nothing of it.
    """
    node = find(source.root, pointer)
    if key is not None and key in node.keys:
        return node.keys[key]
    if node.style == "block" and pointer and isinstance(pointer[-1], str):
        return find(source.root, pointer[:-1]).keys[pointer[-1]]
    return node


def problems(data: object, kind: Kind) -> list[Problem]:
    """Return in what plain data do not fit the schema; at most `MAX_PROBLEMS`."""
    errors = validator(kind).iter_errors(data)
    return list(islice((problem for error in errors for problem in _explain(error)), MAX_PROBLEMS))


def near(name: object, known: Iterable[str]) -> str | None:
    """Return a hint with the nearest of the known names, or with all of them when there are few."""
    names = sorted(known)
    folded = {each.casefold().replace("_", "-"): each for each in names}
    wanted = str(name)[:120].casefold().replace("_", "-")
    close = [wanted] if wanted in folded else difflib.get_close_matches(wanted, folded, n=2, cutoff=0.7)
    if close:
        return f"did you mean `{'` or `'.join(folded[each] for each in close)}`?"
    if names and len(names) <= 16:
        return f"known here: {', '.join(names)}"
    return None


def _explain(error: ValidationError) -> Iterator[Problem]:
    """Yield what one error of the validator means."""
    pointer: Pointer = tuple(error.absolute_path)
    schema = error.schema if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    limit: Any = error.validator_value

    def problem(id_: str, message: str, hint: str | None = None, key: str | None = None) -> Problem:
        return Problem(id=id_, pointer=pointer, message=message, hint=hint, key=key)

    match error.validator:
        case "additionalProperties":
            yield from _unknown_keys(pointer, schema, instance)
        case "required":
            for key in limit:
                if key not in instance:
                    yield problem("schema-missing-key", f"{_named(pointer, instance)} needs the key `{key}`")
        case "dependentRequired":
            for given, needed in limit.items():
                for key in needed:
                    if given in instance and key not in instance:
                        yield problem(
                            "schema-missing-key",
                            f"{_named(pointer, instance)} has `{given}` and needs `{key}` too",
                        )
        case "type":
            wanted = [limit] if isinstance(limit, str) else list(limit)
            yield _wrong_type(pointer, wanted, instance)
        case "enum" | "const":
            words = [str(word) for word in (limit if error.validator == "enum" else [limit])]
            hint = near(instance, words) if isinstance(instance, str) else None
            if hint is None or not hint.startswith("did"):
                hint = f"write {_either(words)}"
            yield problem("schema-value", f"{_shown(instance)} is not possible for {_place(pointer)}", hint)
        case "pattern":
            yield problem("schema-name", f"{_shown(instance)} does not have the right form", _form(schema))
        case "minimum" | "maximum":
            word = "at least" if error.validator == "minimum" else "at most"
            yield problem("schema-range", f"{_place(pointer)} is {_shown(instance)}, it must be {word} {limit}")
        case "minItems" | "minLength" | "minProperties" | "maxItems" | "maxLength" | "items":
            yield problem("schema-length", _wrong_length(error, pointer, schema))
        case "uniqueItems":
            twice = next(item for n, item in enumerate(instance) if item in instance[:n])
            yield problem("schema-duplicate", f"{_place(pointer)} has {_shown(twice)} twice")
        case "anyOf" | "oneOf":
            yield from _choose(error, pointer)
        case other:
            yield problem("schema-value", f"{_place(pointer)} does not fit the schema ({other})")


def _unknown_keys(pointer: Pointer, schema: Mapping[str, Any], instance: Mapping[object, Any]) -> Iterator[Problem]:
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for key in instance:
        if key in known or any(isinstance(key, str) and re.search(pattern, key) for pattern in patterns):
            continue
        if known or not patterns:
            yield Problem(
                id="schema-unknown-key",
                pointer=pointer,
                key=str(key),
                message=f"unknown key {show(key)} in {_place(pointer)}",
                hint=near(key, known),
            )
        else:
            yield Problem(
                id="schema-name",
                pointer=pointer,
                key=str(key),
                message=f"{show(key)} cannot be a name in {_place(pointer)}",
                hint=_form({"pattern": next(iter(patterns))}),
            )


def _wrong_type(pointer: Pointer, wanted: Sequence[str], instance: object) -> Problem:
    found = _type_of(instance)
    words = _either([_TYPES[each] for each in wanted])
    return Problem(
        id="schema-type",
        pointer=pointer,
        message=f"{_place(pointer)} must be {words}, not {_TYPES[found]}",
        hint=next((_TYPE_HINTS[pair] for each in wanted if (pair := (each, found)) in _TYPE_HINTS), None),
    )


def _wrong_length(error: ValidationError, pointer: Pointer, schema: Mapping[str, Any]) -> str:
    limit: Any = error.validator_value
    instance: Any = error.instance
    count = len(instance)
    if error.validator == "items":
        return f"{_place(pointer)} has {count} members, it must have {len(schema['prefixItems'])}"
    if error.validator in {"minLength", "maxLength"}:
        return f"{_place(pointer)} is empty" if not count else f"{_place(pointer)} has more than {limit} characters"
    if not count:
        return f"{_place(pointer)} is empty"
    word = "at least" if str(error.validator).startswith("min") else "at most"
    return f"{_place(pointer)} has {count} members, it must have {word} {limit}"


def _choose(error: ValidationError, pointer: Pointer) -> Iterator[Problem]:
    """Explain a choice of forms by the form that the data look most like."""
    value: Any = error.validator_value
    branches: list[Any] = list(value)
    if all(set(branch) == {"required"} for branch in branches):
        if not isinstance(error.instance, dict):
            return  # Reported as a wrong type.
        yield _wrong_keys(error, pointer, [tuple(branch["required"]) for branch in branches])
        return
    by_branch: dict[int, list[ValidationError]] = {}
    for each in error.context or ():
        by_branch.setdefault(int(each.relative_schema_path[0]), []).append(each)
    wanted: list[str] = []
    best: list[ValidationError] | None = None
    for errors in by_branch.values():
        root = [each for each in _leaves(errors) if not each.relative_path and each.validator == "type"]
        if root:
            for each in root:
                value = each.validator_value
                wanted += [value] if isinstance(value, str) else list(value)
        elif best is None or len(errors) < len(best):
            best = errors
    if best is None:
        yield _wrong_type(pointer, list(dict.fromkeys(wanted)), error.instance)
        return
    for each in best:
        yield from _explain(each)


def _leaves(errors: Iterable[ValidationError]) -> Iterator[ValidationError]:
    """Yield the errors, choices within a choice replaced by their own errors."""
    for each in errors:
        if each.validator in {"anyOf", "oneOf"} and not each.relative_path and each.context:
            yield from _leaves(each.context)
        else:
            yield each


def _wrong_keys(error: ValidationError, pointer: Pointer, choices: Sequence[tuple[str, ...]]) -> Problem:
    instance: Any = error.instance
    given = [keys for keys in choices if all(key in instance for key in keys)]
    names = _either([" and ".join(f"`{key}`" for key in keys) for keys in choices])
    if len(given) > 1:
        both = " and ".join(f"`{key}`" for key in dict.fromkeys(key for keys in given for key in keys))
        message = f"{_named(pointer, instance)} has {both}"
        hint = f"keep one of {names}"
    else:
        message = f"{_named(pointer, instance)} needs {names}"
        hint = None
    return Problem(id="schema-choice", pointer=pointer, message=message, hint=hint)


def _type_of(value: object) -> str:
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (str, "string"),
        (list, "array"),
        (dict, "object"),
    ):
        if isinstance(value, kind):
            return name
    return "null" if value is None else "number"


def _shown(value: object) -> str:
    return _TYPES[_type_of(value)] if isinstance(value, (dict, list)) else show(value)


def _either(words: Sequence[str]) -> str:
    return " or ".join([", ".join(words[:-1]), words[-1]]) if len(words) > 1 else words[0]


def _place(pointer: Pointer) -> str:
    """Return where something is, short: the last two names of the path."""
    out = ""
    for part in pointer[-3:]:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return f"`{out}`" if out else "the file"


def _named(pointer: Pointer, instance: object) -> str:
    """Return what is meant by a pointer: a rule or an example by its own name."""
    if isinstance(instance, dict):
        for key, word in (("check", "check"), ("id", "rule"), ("name", "example")):
            if isinstance(instance.get(key), str) and pointer and isinstance(pointer[-1], int):
                return f"{word} `{instance[key][:60]}`"
    return _place(pointer)


@cache
def _forms() -> dict[str, str]:
    """Return what each pattern of the schema means, from the definition that has it."""
    found: dict[str, str] = {}
    for item in load("abi")["$defs"].values():
        if "pattern" in item:
            found.setdefault(item["pattern"], item["description"])
    return found


def _form(schema: Mapping[str, Any]) -> str:
    pattern = str(schema["pattern"])
    what = _forms().get(pattern) or str(schema.get("description", ""))
    return f"{what} It must match {pattern}".strip()
