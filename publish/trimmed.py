"""An ABI without what it only has because it shares a file with others: names of that file that it never uses."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

from hvabi.abi.expr import Expr, names

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hvabi.abi.model import Enum, Field, Layout
    from hvabi.abi.specification import Abi

SHARED = "uses"
"""First part of the pointers of what comes from a shared file."""

_EXPR = get_args(Expr)


def trimmed(abi: Abi) -> Abi:
    """Return the ABI with its own constants, enums and layouts, and those of shared files that it uses."""
    layouts = dict(_layouts(abi))
    used = set(_names([abi.messages, abi.transports, abi.calls, layouts]))
    used |= {word for example in abi.examples for word in _words(example.data)}
    enums = {item.name for item in _enums(abi, layouts)}
    return replace(
        abi,
        layouts={name: item for name, item in abi.layouts.items() if name in layouts},
        constants={
            name: item for name, item in abi.constants.items() if not is_shared(item.pointer) or name in used
        },
        enums={
            name: item
            for name, item in abi.enums.items()
            if not is_shared(item.pointer) or name in enums or used & item.values.keys()
        },
    )  # fmt: skip


def is_shared(pointer: tuple[str | int, ...]) -> bool:
    """Whether something comes from a shared file."""
    return pointer[:1] == (SHARED,)


def _layouts(abi: Abi) -> Iterator[tuple[str, Layout]]:
    """Yield the layouts of messages, blocks and examples, those inside others too, and all that are the ABI's own."""
    todo = [item for item in abi.layouts.values() if not is_shared(item.pointer)]
    for message in abi.messages.values():
        todo += _inside(message.fields)
    for transport in abi.transports.values():
        for placement in transport.placements.values():
            todo += [block.layout for block in placement.blocks.values() if block.layout is not None]
    todo += [abi.layouts[item.data["layout"]] for item in abi.examples if item.data.get("layout") in abi.layouts]
    seen: set[str] = set()
    while todo:
        layout = todo.pop()
        if layout.name not in seen:
            seen.add(layout.name)
            yield layout.name, layout
            todo += _inside(layout.fields)


def _inside(items: Mapping[str, Field]) -> list[Layout]:
    return [layout for item in items.values() for layout in (item.word, item.items) if layout is not None]


def _enums(abi: Abi, layouts: Mapping[str, Layout]) -> Iterator[Enum]:
    groups = [item.fields for item in abi.messages.values()] + [item.fields for item in layouts.values()]
    for group in groups:
        yield from (item.enum for item in group.values() if item.enum is not None)


def _names(value: Any) -> Iterator[str]:
    """Yield every name that any expression within a value reads."""
    if isinstance(value, _EXPR):
        yield from names(value)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _names(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _names(item)
    elif is_dataclass(value):
        for part in fields(value):
            yield from _names(getattr(value, part.name))


def _words(value: Any) -> Iterator[str]:
    """Yield every text within an example: it may be the name of a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _words(item)
