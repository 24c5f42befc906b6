"""``FIELD=VALUE`` arguments: ``gpa=0x1000``, ``attributes.encrypted=1``, ``entries[0].operation=SHARED``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import UsageError, show
from hvabi.cli.target import integer

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.model import Field

MAX_INDEX = 1 << 16
"""Elements that a list on a command line may have at most."""

_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)((?:\[\d{1,6}\])?)\Z")

Tree = dict[str, Any]


def assignments(items: Iterable[str], fields: Mapping[str, Field]) -> Tree:
    """Return nested values for an encoder.

    Raises `UsageError` for a field or enum name that does not exist (with the nearest), an item that is no
    ``FIELD=VALUE``, a field given twice, and a list with a hole.
    """
    tree: Tree = {}
    for item in items:
        path, equals, text = item.partition("=")
        if not equals or not path:
            hint = f"write FIELD=VALUE; fields: {', '.join(fields)}"
            raise UsageError(f"{show(item)} is no FIELD=VALUE", code="bad-assignment", hint=hint)
        _put(tree, path, text, fields)
    return {name: _lists(value, name) for name, value in tree.items()}


def _put(tree: Tree, path: str, text: str, fields: Mapping[str, Field]) -> None:
    node: dict[Any, Any] = tree
    known = fields
    steps = path.split(".")
    for number, step in enumerate(steps):
        match = _STEP.match(step)
        if match is None:
            raise UsageError(
                f"{show(path)} is no path of a field", code="bad-assignment", hint="for example entries[0].gfn"
            )
        name, index = match[1], match[2][1:-1]
        key: int | str
        if name not in known:
            raise UsageError.unknown("field", ".".join([*steps[:number], name]), _full(known, steps[:number]))
        field = known[name]
        inner = field.items if field.is_list else field.word
        if bool(index) and not field.is_list:
            raise UsageError(f"{name} is no list", code="bad-assignment", hint=f"write {name}=VALUE: {field.doc}")
        last = number == len(steps) - 1
        if index:
            if int(index) >= MAX_INDEX:
                raise UsageError(f"{step}: a list has at most {MAX_INDEX} elements here", code="bad-assignment")
            elements = node.setdefault(name, {})
            if not isinstance(elements, dict):
                raise _twice(name)
            node, key = elements, int(index)
        else:
            key = name
        if last:
            if key in node:
                raise _twice(path)
            whole = field.is_list and not index
            node[key] = _list(text, path, field) if whole else _value(text, path, field)
            return
        if inner is None or (field.is_list and not index):
            hint = f"write {name}[0].…" if field.is_list and inner is not None else f"write {name}=VALUE: {field.doc}"
            raise UsageError(f"{name} has no part {'.'.join(steps[number + 1 :])}", code="bad-assignment", hint=hint)
        below = node.setdefault(key, {})
        if not isinstance(below, dict):
            raise _twice(".".join(steps[: number + 1]))
        node, known = below, inner.fields


def _full(known: Mapping[str, Field], steps: list[str]) -> list[str]:
    return [".".join([*steps, name]) for name in known]


def _twice(path: str) -> UsageError:
    return UsageError(f"{path} is given twice", code="bad-assignment", hint="give it once, or only its parts")


def _value(text: str, path: str, field: Field) -> int | str:
    text = text.strip()
    if field.enum is not None and text in field.enum.values:
        return text
    if not text or text[0].isdigit() or text[0] in "+-":
        return integer(text, path)
    if field.enum is not None and not field.is_list:
        raise UsageError.unknown(f"value of {path}", text, field.enum.values)
    hint = f"it is a number of {field.bits} bits: {field.doc}"
    if field.word is not None or (field.is_list and field.items is not None):
        inner = field.items or field.word
        hint = f"give a number, or its parts: {', '.join(f'{path}.{name}' for name in (inner.fields if inner else ()))}"
    raise UsageError(f"{path}: {show(text)} is no number", code="bad-number", hint=hint)


def _list(text: str, path: str, field: Field) -> list[int | str]:
    body = text.strip().removeprefix("[").removesuffix("]").strip()
    parts = body.split(",") if body else []
    if len(parts) > MAX_INDEX:
        raise UsageError(f"{path}: a list has at most {MAX_INDEX} elements here", code="bad-assignment")
    return [_value(part, f"{path}[{number}]", field) for number, part in enumerate(parts)]


def _lists(value: Any, path: str) -> Any:
    """Turn mappings of indices into lists."""
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        for number in range(len(value)):
            if number not in value:
                hint = "number the elements from 0 without a gap"
                raise UsageError(f"{path}[{number}] is missing", code="bad-assignment", hint=hint)
        return [_lists(value[number], f"{path}[{number}]") for number in range(len(value))]
    return {key: _lists(item, f"{path}.{key}") for key, item in value.items()}


def filled(codec: MessageCodec, tree: Tree, request: Any = None) -> Tree:
    """Fill in what is not given of a word or element: a word's other parts keep the word's default, else they are 0."""
    from hvabi.abi.codec import LayoutCodec

    laid = dict(tree)
    partial = {}
    for name, value in tree.items():
        field = codec.message.fields[name]
        if field.is_list and field.items is not None:
            element = LayoutCodec(field.items)
            laid[name] = [element.decode(element.encode(item)) if isinstance(item, dict) else item for item in value]
        elif isinstance(value, dict) and field.word is not None and field.default is not None:
            partial[name] = value
    if partial:
        whole = codec.complete({name: laid[name] for name in laid if name not in partial}, request=request)
        for name, value in partial.items():
            default = getattr(whole, name)
            laid[name] = {**dict(zip(default._fields, default, strict=True)), **value}
    return laid
