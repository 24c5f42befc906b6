"""The regression collection: historic bugs of conversion calls, read from ``conformance/regressions/*.yaml``.

Each story says what went wrong, what is sent, the right answer and the wrong one, all written by hand from the
sources; nothing here is worked out by the code under test or by the oracle.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import SpecError, UsageError, show
from hvabi.abi.registry import abi_ids, nearest
from hvabi.abi.schema import locate, near
from hvabi.abi.source import load_file, plain
from hvabi.conformance.retell import retell
from hvabi.conformance.story import LeftOut, Story
from hvabi.conformance.story_parts import StoryError

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import ValidationError

    from hvabi.abi.diagnostics import Diagnostic
    from hvabi.abi.source import SourceFile
    from hvabi.conformance.case import Case

MAX_PROBLEMS = 100
"""Most problems that one file is searched for."""
_LEFT_OUT = "left-out.yaml"

IDS = {
    "story-schema": "A key or value does not fit the schema of the regression collection.",
    "story-abi": "The file is not named after its ABI, or there is no such ABI.",
    "story-id": "Two stories have one id.",
    "story-unknown": "A story names a rule, transport, revision, profile, call or field that the ABI does not have.",
    "story-role": "A host story needs steps with a wrong answer; a guest story needs script, right and wrong.",
    "story-value": "A value cannot be worked out, or does not fit its field.",
    "story-order": "Ranges are not sorted, or they overlap.",
    "story-number": "A number of the list of historic bugs is left out twice.",
}
"""Every diagnostic id of this module, with one sentence each."""


def regressions_root() -> Path:
    """Return the folder of the bundled stories."""
    return Path(str(resources.files("hvabi.conformance").joinpath("regressions")))


@cache
def _validator(part: str) -> Draft202012Validator:
    from jsonschema import Draft202012Validator

    text = resources.files("hvabi.conformance").joinpath("schema", "regression.schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    # The part alone: an error then names what is wrong, and not that neither form fits.
    return Draft202012Validator({"$schema": schema["$schema"], "$defs": schema["$defs"], "$ref": f"#/$defs/{part}"})


def load_stories(path: str | os.PathLike[str]) -> tuple[Story, ...]:
    """Read the stories of one ABI.

    Raises:
        SpecError: with a diagnostic for every problem: where it is, what is wrong, what to do.

    """
    source = load_file(path)
    data: Any = _checked(source, "collection")
    found: list[Diagnostic] = []
    abi = data["abi"]
    if abi not in abi_ids() or Path(path).stem != abi:
        message = f"{show(abi)} is not the name of the file, or no ABI"
        found.append(_at(source, ("abi",), "story-abi", message, near(abi, abi_ids())))
        raise SpecError(found)
    stories: list[Story] = []
    seen: set[str] = set()
    for number, item in enumerate(data["stories"]):
        pointer = ("stories", number)
        where = f"{source.path}:{nearest(source, (*pointer, 'id')).line}"
        if item["id"] in seen:
            found.append(_at(source, (*pointer, "id"), "story-id", f"{item['id']} is given twice", "choose another id"))
            continue
        seen.add(item["id"])
        try:
            stories.append(retell(abi, item, where))
        except StoryError as error:
            found.append(_at(source, (*pointer, *error.pointer), error.code, error.message, error.hint))
    if found:
        raise SpecError(found)
    return tuple(stories)


def load_left_out(path: str | os.PathLike[str]) -> tuple[LeftOut, ...]:
    """Read the list of bugs without a story. Raises `SpecError` as `load_stories` does."""
    source = load_file(path)
    data: Any = _checked(source, "left-out")
    found: list[Diagnostic] = []
    out: list[LeftOut] = []
    for index, item in enumerate(data["left-out"]):
        if any(other.number == item["number"] for other in out):
            message = f"{item['number']} is left out twice"
            found.append(_at(source, ("left-out", index, "number"), "story-number", message, "remove one of the two"))
        out.append(
            LeftOut(
                number=item["number"],
                title=item["title"],
                reference=tuple(item.get("reference", ())),
                kind=item["kind"],
                abi=item.get("abi"),
                reason=item["reason"],
            )
        )
    if found:
        raise SpecError(found)
    return tuple(out)


def _checked(source: SourceFile, part: str) -> Any:
    data = plain(source.root)
    errors = islice(_validator(part).iter_errors(data), MAX_PROBLEMS)
    found = [diagnostic for error in errors for diagnostic in _explain(source, error)]
    if found:
        raise SpecError(sorted(found, key=lambda diagnostic: diagnostic.position))
    return data


def _explain(source: SourceFile, error: ValidationError) -> Iterator[Diagnostic]:
    """Yield what one error of the validator means, without repeating the data."""
    while error.context:  # of several forms, the one that got farthest was meant
        error = max(error.context, key=lambda each: (len(each.absolute_path), each.validator != "type"))
    pointer = tuple(error.absolute_path)
    schema: dict[str, Any] = error.schema if isinstance(error.schema, dict) else {}
    instance: Any = error.instance
    limit: Any = error.validator_value
    if error.validator == "additionalProperties":
        known = schema.get("properties", {})
        for key in instance:
            if key not in known:
                node = locate(source, pointer, str(key))
                yield source.diagnostic(node, "story-schema", f"unknown key {show(key)}", near(key, known))
        return
    match error.validator:
        case "required":
            missing = ", ".join(key for key in limit if key not in instance)
            message, hint = f"{missing} is missing here", None
        case "enum" | "const":
            words = limit if isinstance(limit, list) else [limit]
            message, hint = f"{show(instance)} is not possible here", "write " + " or ".join(map(str, words))
        case "type":
            message, hint = f"this must be {limit}", schema.get("description")
        case "pattern":
            message, hint = f"{show(instance)} does not have the right form", schema.get("description")
        case "minimum" | "maximum":
            message, hint = f"{show(instance)} is out of range, the {error.validator} is {show(limit)}", None
        case other:
            message, hint = f"this does not fit: {other} is {show(limit)}", schema.get("description")
    yield source.diagnostic(locate(source, pointer), "story-schema", message, hint)


def _at(source: SourceFile, pointer: tuple[str | int, ...], code: str, message: str, hint: str | None) -> Diagnostic:
    return source.diagnostic(nearest(source, pointer), code, message, hint)


@cache
def _bundled(abi: str) -> tuple[Story, ...]:
    path = regressions_root() / f"{abi}.yaml"
    return load_stories(path) if path.is_file() else ()


def stories(abi: str | None = None) -> tuple[Story, ...]:
    """Return the bundled stories, of one ABI or of all, in the order of the ABIs and files.

    Raises `UsageError` ``unknown-abi``.
    """
    if abi is not None and abi not in abi_ids():
        raise UsageError.unknown("abi", abi, abi_ids())
    return tuple(story for each in abi_ids() if abi in (None, each) for story in _bundled(each))


def find_story(name: str) -> Story:
    """Return a bundled story by its id or by the id of one of its cases. Raises `UsageError` ``unknown-story``."""
    known = {story.id: story for story in stories()}
    wanted = name.rpartition(".regression.")[2]
    if wanted not in known:
        raise UsageError.unknown("story", wanted, known)
    return known[wanted]


@cache
def left_out() -> tuple[LeftOut, ...]:
    """Return the historic bugs that have no story, with the reason."""
    return load_left_out(regressions_root() / _LEFT_OUT)


def regression_cases(
    abi: str,
    *,
    revision: str | None = None,
    role: str | None = None,
    transport: str | None = None,
    profile: str | None = None,
) -> Iterator[Case]:
    """Yield the cases of an ABI's stories, only those of the revision, role and transport where they are given.

    `profile` is what the implementation declares: stories that need another one are left out.
    """
    for story in stories(abi):
        for retold in story.cases:
            case = retold.case
            if (
                revision in (None, case.revision)
                and role in (None, case.role)
                and transport in (None, case.transport)
                and case.profile in (None, profile)
            ):
                yield case


__all__ = [
    "IDS",
    "find_story",
    "left_out",
    "load_left_out",
    "load_stories",
    "regression_cases",
    "regressions_root",
    "stories",
]
