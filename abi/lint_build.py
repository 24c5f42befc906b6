"""The model of a file that may have errors: everything that cannot be built is reported and gets a stand-in.

So one run shows all errors of a file: an expression that cannot be read counts as 0, an unknown enum is left
out, an unknown layout has no fields, and the checks that follow see the rest.
"""

from __future__ import annotations

import copy
import re
from typing import TYPE_CHECKING, Any

from hvabi.abi import expr as expressions
from hvabi.abi.build import Builder
from hvabi.abi.errors import ExprError
from hvabi.abi.model import Layout
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hvabi.abi.expr import Expr
    from hvabi.abi.lint_context import Report
    from hvabi.abi.model import Field, Pointer
    from hvabi.abi.specification import Abi

IDS: Mapping[str, str] = {
    "expr-syntax": "An expression cannot be read.",
    "expr-too-large": "An expression is longer than any needs to be.",
    "expr-too-deep": "An expression is nested too deep.",
    "literal-value": "A value that may use constants and enum values only cannot be worked out.",
    "unknown-shared": "A file named in `uses:` does not exist in spec/shared.",
    "unknown-layout": "A layout that is named does not exist.",
    "layout-recursive": "A layout contains itself.",
    "unknown-enum": "An enum that is named does not exist.",
    "list-type": "The elements of a list are neither a layout nor u8, u16, u32, u64 or u128.",
    "unknown-number": "A name that must stand for a number is no constant and no enum value.",
    "name-clash": "Two things that expressions see have the same name.",
}
"""Every id of this module, with one sentence each."""

Part = tuple["Pointer", "Mapping[str, Any]"]
"""Plain data of one file, and where its pointers begin."""

_PLAIN_LIST = re.compile(r"u[0-9]+\Z")
_NUMBER = re.compile(r"-?[0-9]+\Z|0x[0-9a-f]+\Z")


class TolerantBuilder(Builder):
    """Builds a model and reports what is wrong where `Builder` would raise."""

    def __init__(self, data: dict[str, Any], path: str, shared: Mapping[str, dict[str, Any]], report: Report) -> None:
        super().__init__(data, path, shared)
        self.report = report
        self.found: dict[Pointer, Expr] = {}

    def expr(self, value: object, pointer: Pointer) -> Expr:
        """Parse an EXPR, 0 where it cannot be read."""
        try:
            expr = expressions.parse(str(value).lower() if isinstance(value, bool) else str(value))
        except ExprError as error:
            offset = None if error.column is None or not isinstance(value, str) else error.column - 1
            length = (error.end_column or 0) - (error.column or 0)
            self.report.error(pointer, error.code, error.reason, error.hint, offset=offset, length=length)
            expr = expressions.Int(0)
        self.found.setdefault(pointer, expr)
        return expr

    def literal(self, value: object, pointer: Pointer) -> int:
        """Evaluate an EXPR over constants, 0 where that fails."""
        env: dict[str, int] = {name: constant.value for name, constant in self.constants.items()}
        for enum in self.enums.values():
            env.update((item.name, item.value) for item in enum.values.values())
        try:
            return expressions.evaluate(self.expr(value, pointer), env, "int")
        except ExprError as error:
            self.report.error(pointer, "literal-value", error.message, "only constants and enum values are known here")
            return 0

    def layout(self, name: str, pointer: Pointer) -> Layout:
        """Return a layout, one without fields where there is none of this name."""
        if name not in self.layouts and name not in self._raw_layouts:
            known = self._names("layouts")
            if name in known:
                self.report.error(pointer, "layout-recursive", f"layout `{name}` contains itself")
            else:
                self.report.error(pointer, "unknown-layout", f"there is no layout `{name}`", near(name, known))
            return Layout(name=name, size=8, endian="little", doc="", fields={}, partial=True)
        return super().layout(name, pointer)

    def field(self, name: str, data: dict[str, Any], pointer: Pointer, **place: int) -> Field:
        """Build a field without the parts that do not exist."""
        data = dict(data)
        if "enum" in data and data["enum"] not in self.enums:
            self.report.error(
                (*pointer, "enum"),
                "unknown-enum",
                f"there is no enum `{data['enum']}`",
                near(data["enum"], self.enums),
            )
            del data["enum"]
        kind = str(data.get("list", ""))
        if _PLAIN_LIST.match(kind) and kind not in {"u8", "u16", "u32", "u64", "u128"}:
            self.report.error(
                (*pointer, "list"),
                "list-type",
                f"`{kind}` cannot be the elements of a list",
                "plain integers are u8, u16, u32, u64 or u128",
            )
            data["list"] = "u8"
        return super().field(name, data, pointer, **place)

    def _names(self, part: str) -> set[str]:
        return {name for each in (*self.shared.values(), self.data) for name in each.get(part, {})}


def build_tolerant(
    data: Mapping[str, Any], path: str, shared: Mapping[str, dict[str, Any]], report: Report
) -> tuple[Abi, dict[Pointer, Expr]]:
    """Return the model of a file that fits its schema, and every expression by its pointer."""
    usable = copy.deepcopy(dict(data))
    if "uses" in usable:
        for number, name in enumerate(usable["uses"]):
            if name not in shared:
                report.error(("uses", number), "unknown-shared", f"there is no shared file `{name}`", "see spec/shared")
        usable["uses"] = [name for name in usable["uses"] if name in shared]
    parts: list[Part] = [*((("uses",), shared[name]) for name in usable.get("uses", ())), ((), usable)]
    check_clashes(parts, report)
    _drop_unknown_numbers(usable, [part for _, part in parts], report)
    builder = TolerantBuilder(usable, path, shared, report)
    abi = builder.build()
    for name, call in usable["calls"].items():
        for number, row in enumerate(call.get("vmm", {}).get("errno", ())):
            # The model keeps the condition of an answer only; the language has one for every entry.
            builder.optional(row, "when", ("calls", name, "vmm", "errno", number))
    return abi, builder.found


def build_shared(data: Mapping[str, Any], path: str, report: Report) -> TolerantBuilder:
    """Build what a shared file declares; the builder holds it."""
    builder = TolerantBuilder(dict(data), path, {}, report)
    check_clashes([((), data)], report)
    builder.constants.update(builder.constants_of(data.get("constants"), ("constants",)))
    for key, item in data.get("enums", {}).items():
        builder.enums[key] = builder.enum(key, item, ("enums", key))
    for key, item in data.get("layouts", {}).items():
        builder._raw_layouts[key] = (item, ("layouts", key))
    for key in data.get("layouts", {}):
        builder.layout(key, ("layouts", key))
    return builder


def check_clashes(parts: Sequence[Part], report: Report) -> None:
    """Report names that stand twice: in two files, or as a constant and as a config key."""
    names: dict[tuple[str, str], tuple[str, object]] = {}
    for origin, part in parts:
        for section, space in (
            ("sources", "source"),
            ("constants", "name"),
            ("config", "name"),
            ("enums", "enum"),
            ("layouts", "layout"),
        ):
            for name, item in part.get(section, {}).items():
                earlier = names.setdefault((space, name), (f"{origin}{section}", item))
                # A document may be named by each file that was written from it.
                if (earlier[0] == f"{origin}{section}" and earlier[1] is item) or space == "source":
                    continue
                report.error(
                    (*origin, section),
                    "name-clash",
                    f"`{name}` in `{section}` stands for something else already",
                    "choose another name; names of shared files count too",
                    key=name,
                )


def _drop_unknown_numbers(data: dict[str, Any], parts: list[Mapping[str, Any]], report: Report) -> None:
    """Report keys of ``map:`` and values of ``is:`` that stand for no number, and take them out."""
    known: set[str] = set()
    for part in parts:
        known |= set(part.get("constants", {}))
        for enum, item in part.get("enums", {}).items():
            known |= set(item["values"])
            known |= {f"{enum.replace('-', '_')}.{name}" for name in item["values"]}
    for name, call in data["calls"].items():
        where: Pointer = ("calls", name, "convert", "to", "map")
        table = call.get("convert", {}).get("to", {}).get("map", {})
        for key in list(table):
            if key not in known and not _NUMBER.match(key):
                report.error(where, "unknown-number", f"`{key}` stands for no number", near(key, known), key=key)
                del table[key]
        for number, row in enumerate(call.get("vmm", {}).get("errno", ())):
            errno = row["is"]
            if isinstance(errno, str) and errno != "any" and errno not in known and not _NUMBER.match(errno):
                report.error(
                    ("calls", name, "vmm", "errno", number, "is"),
                    "unknown-number",
                    f"`{errno}` stands for no number",
                    near(errno, known) or "`uses: [errno]` has the Linux error numbers",
                )
                row["is"] = 1
