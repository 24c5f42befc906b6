"""From the plain data of a specification file to the model.

The JSON Schema (`hvabi.abi.schema`) says which shape the data has; this module relies on it. What it finds wrong
itself (an expression that cannot be read, a name that does not exist) is a `BuildError` with the pointer of the
place; `hvabi.abi.lint` turns these into diagnostics with line and column.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

from hvabi.abi import expr as expressions
from hvabi.abi.build_calls import BuildError, build_call
from hvabi.abi.errors import ExprError
from hvabi.abi.model import (
    ALWAYS,
    Block,
    BlockPlace,
    Constant,
    Default,
    Enum,
    EnumValue,
    Field,
    Guard,
    Layout,
    Message,
    PairPlace,
    Place,
    Placement,
    Pointer,
    RegisterPlace,
    Reserved,
    Transport,
)
from hvabi.abi.specification import Abi, ConfigKey, Example, Handles, Policy, Profile, Revision, Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from hvabi.abi.expr import Expr

Data = dict[str, Any]

_parse = lru_cache(maxsize=4096)(expressions.parse)  # two thirds of all expressions stand somewhere else too

_ISA_ENDIAN = {"s390x": "big"}


class Builder:
    """Reads one file; `shared` are the plain data of the shared files that it uses."""

    def __init__(self, data: Data, path: str, shared: Mapping[str, Data]) -> None:
        self.data = data
        self.path = path
        self.shared = shared
        self.enums: dict[str, Enum] = {}
        self.layouts: dict[str, Layout] = {}
        self.constants: dict[str, Constant] = {}
        self._raw_layouts: dict[str, tuple[Data, Pointer]] = {}

    # -- small things -------------------------------------------------------------------------------------------

    def expr(self, value: Any, pointer: Pointer) -> Expr:
        """Parse an EXPR: an integer or a string."""
        try:
            text = str(value).lower() if isinstance(value, bool) else str(value)
            return _parse(text)
        except ExprError as error:
            raise BuildError(error.message, pointer, code=error.code, hint=error.hint) from error

    def optional(self, data: Data, key: str, pointer: Pointer) -> Expr | None:
        """Parse an EXPR that may be missing."""
        return self.expr(data[key], (*pointer, key)) if key in data else None

    def exprs(self, data: Data | None, pointer: Pointer) -> dict[str, Expr]:
        """Parse a mapping of EXPRs."""
        return {name: self.expr(value, (*pointer, name)) for name, value in (data or {}).items()}

    @staticmethod
    def guard(data: Data) -> Guard:
        """Read the keys that limit an item to revisions, transports or policy values."""
        if not any(key in data for key in ("revisions", "transports", "policy")):
            return ALWAYS
        return Guard(
            revisions=tuple(data["revisions"]) if "revisions" in data else None,
            transports=tuple(data["transports"]) if "transports" in data else None,
            policy=dict(data.get("policy", {})),
        )

    # -- constants, enums, layouts ------------------------------------------------------------------------------

    def constants_of(self, data: Data | None, pointer: Pointer) -> dict[str, Constant]:
        """Read ``constants:`` or ``limits:``; a limit may be an EXPR over the constants."""
        found: dict[str, Constant] = {}
        for name, item in (data or {}).items():
            value = item["value"]
            if isinstance(value, str):
                value = self.literal(value, (*pointer, name, "value"))
            found[name] = Constant(
                name=name, value=int(value), doc=item["doc"], mirrors=item.get("mirrors"), pointer=(*pointer, name)
            )
        return found

    def enum(self, name: str, data: Data, pointer: Pointer) -> Enum:
        """Read one enum."""
        values = {
            key: EnumValue(
                name=key,
                value=int(item["value"]),
                doc=item["doc"],
                mirrors=item.get("mirrors"),
                note=item.get("note"),
                by_revision=item.get("by-revision", {}),
                guard=self.guard(item),
                pointer=(*pointer, "values", key),
            )
            for key, item in data["values"].items()
        }
        return Enum(
            name=name,
            bits=data["bits"],
            doc=data["doc"],
            signed=data.get("signed", False),
            values=values,
            pointer=pointer,
        )

    def layout(self, name: str, pointer: Pointer) -> Layout:
        """Return a layout by name, built on first use; `pointer` is the place that asks."""
        if name in self.layouts:
            return self.layouts[name]
        if name not in self._raw_layouts:
            raise BuildError(f"there is no layout `{name}`", pointer, code="unknown-layout")
        data, where = self._raw_layouts.pop(name)  # popped: a layout inside itself is then unknown
        fields = {
            key: self.layout_field(key, item, data["size"], (*where, "fields", key))
            for key, item in data["fields"].items()
        }
        self.layouts[name] = Layout(
            name=name,
            size=data["size"],
            endian=data.get("endian", "little"),
            doc=data["doc"],
            fields=fields,
            partial=data.get("partial", False),
            pointer=where,
        )
        return self.layouts[name]

    def layout_field(self, name: str, data: Data, size: int, pointer: Pointer) -> Field:
        """Read a field of a layout: ``at`` and ``size``, or ``bits: [hi, lo]`` of them."""
        at = data.get("at", 0)
        width = data.get("size", size - at)
        hi, lo = data.get("bits", (width * 8 - 1, 0))
        fixed: Data = {key: self.literal(data[key], (*pointer, key)) for key in ("const", "default") if key in data}
        return self.field(name, {**data, **fixed, "bits": hi - lo + 1}, pointer, lo=lo, at=at, size=width)

    def literal(self, value: Any, pointer: Pointer) -> int:
        """Evaluate an EXPR that may use constants and enum values only."""
        env: dict[str, int] = {name: constant.value for name, constant in self.constants.items()}
        for enum in self.enums.values():
            env.update((item.name, item.value) for item in enum.values.values())
        try:
            return expressions.evaluate(self.expr(value, pointer), env, "int")
        except ExprError as error:
            raise BuildError(error.message, pointer, code=error.code, hint=error.hint) from error

    def field(self, name: str, data: Data, pointer: Pointer, **place: int) -> Field:
        """Read what a field of a layout and of a message have in common."""
        word = self.layout(data["word"], (*pointer, "word")) if "word" in data else None
        items, bits = None, data.get("bits", 0)
        if word is not None and not place:
            bits = word.size * 8
        if "list" in data:
            kind = data["list"]
            if kind[:1] == "u" and kind[1:].isdigit():
                bits = int(kind[1:])
            else:
                items = self.layout(kind, (*pointer, "list"))
                bits = items.size * 8
        enum = None
        if "enum" in data:
            enum = self.enums.get(data["enum"])
            if enum is None:
                raise BuildError(f"there is no enum `{data['enum']}`", (*pointer, "enum"), code="unknown-enum")
        reserved = data.get("reserved")
        default, defaults = self.defaults(data, pointer)
        return Field(
            name=name,
            doc=data["doc"],
            bits=bits,
            signed=data.get("signed", enum.signed if enum else False),
            enum=enum,
            unit=data.get("unit"),
            const=self.optional(data, "const", pointer),
            default=default,
            defaults=defaults,
            reserved=Reserved(send=reserved["send"], receive=reserved["receive"]) if reserved else None,
            word=word,
            items=items,
            is_list="list" in data,
            count=self.optional(data, "count", pointer),
            chosen_by_host=data.get("chosen-by") == "host",
            others=self.others(data.get("others", ()), (*pointer, "others")),
            guard=self.guard(data),
            pointer=pointer,
            **place,
        )

    def others(self, items: Iterable[Any], pointer: Pointer) -> tuple[tuple[int, int], ...]:
        """Read the numbers of other calls: enums, single numbers, and first and last number of a range."""
        found: list[tuple[int, int]] = []
        for position, item in enumerate(items):
            if isinstance(item, list):
                first, last = (self.literal(end, (*pointer, position, n)) for n, end in enumerate(item))
                found.append((first, last))
            elif item in self.enums:
                found += [(value.value, value.value) for value in self.enums[item].values.values()]
            else:
                number = self.literal(item, (*pointer, position))
                found.append((number, number))
        return tuple(found)

    def defaults(self, data: Data, pointer: Pointer) -> tuple[Expr | None, tuple[Default, ...]]:
        """Read ``default:``: one EXPR, or one for each revision; of those the first stands until one is chosen."""
        given = data.get("default")
        if not isinstance(given, list):
            return self.optional(data, "default", pointer), ()
        choices = tuple(
            Default(
                expr=self.expr(item["is"], (*pointer, "default", number, "is")),
                guard=self.guard(item),
                pointer=(*pointer, "default", number),
            )
            for number, item in enumerate(given)
        )
        return choices[0].expr, choices

    def message(self, name: str, data: Data, pointer: Pointer) -> Message:
        """Read one message."""
        fields = {key: self.field(key, item, (*pointer, "fields", key)) for key, item in data["fields"].items()}
        guard = self.guard(data)
        return Message(name=name, doc=data["doc"], fields=fields, body=data.get("body"), guard=guard, pointer=pointer)

    # -- transports ---------------------------------------------------------------------------------------------

    def transport(self, name: str, data: Data, pointer: Pointer) -> Transport:
        """Read one transport with the placements of all its messages."""
        placed: dict[str, tuple[Data, Pointer]] = {
            key: (data[key], (*pointer, key)) for key in ("request", "response") if key in data
        }
        for key, item in data.get("messages", {}).items():
            placed[key] = (item, (*pointer, "messages", key))
        insn = data.get("instruction", {})
        endian = _ISA_ENDIAN.get(data["isa"], "little")
        return Transport(
            name=name,
            doc=data["doc"],
            isa=data["isa"],
            mode=data.get("mode", "64"),
            shows_cpl=data.get("shows-cpl", False),
            instruction=insn.get("name"),
            instruction_bytes=insn.get("bytes"),
            limits=self.constants_of(data.get("limits"), (*pointer, "limits")),
            placements={key: self.placement(key, item, where, endian) for key, (item, where) in placed.items()},
            guard=self.guard(data),
            pointer=pointer,
        )

    def placement(self, message: str, data: Data, pointer: Pointer, endian: str) -> Placement:
        """Read where the fields of one message lie."""
        fixed = self.exprs(data.get("fixed"), (*pointer, "fixed"))
        return Placement(
            message=message,
            fixed={name: expr for name, expr in fixed.items() if "." not in name},
            parts={name: expr for name, expr in fixed.items() if "." in name},
            blocks={
                key: self.block(key, item, (*pointer, "blocks", key), endian)
                for key, item in data.get("blocks", {}).items()
            },
            place={key: self.places(item, (*pointer, "place", key)) for key, item in data.get("place", {}).items()},
            absent=tuple(data.get("absent", ())),
            may_change=tuple(data.get("may-change", ())),
            pointer=pointer,
        )

    def block(self, name: str, data: Data, pointer: Pointer, endian: str) -> Block:
        """Read one block of bytes."""
        layout = self.layout(data["layout"], (*pointer, "layout")) if "layout" in data else None
        return Block(
            name=name,
            doc=data["doc"],
            at=self.optional(data, "at", pointer),
            size=self.expr(data["size"], (*pointer, "size")),
            endian=data.get("endian", layout.endian if layout else endian),
            access=data.get("access", "in"),
            layout=layout,
            registers=tuple(data.get("registers", ())),
            space=data.get("space"),
            guard=self.guard(data),
            pointer=pointer,
        )

    def places(self, data: Any, pointer: Pointer) -> tuple[Place, ...]:
        """Read WHERE, or a list of alternatives of it."""
        if isinstance(data, list):
            return tuple(self.place(item, (*pointer, number)) for number, item in enumerate(data))
        return (self.place(data, pointer),)

    def place(self, data: Any, pointer: Pointer) -> Place:
        """Read one WHERE: a register, a pair, a field of a block's layout, or an offset in a block."""
        if isinstance(data, str):
            if "." in data:
                block, _, inner = data.partition(".")
                return BlockPlace(block=block, at=self.expr(0, pointer), layout_field=inner, pointer=pointer)
            return RegisterPlace(register=data, pointer=pointer)
        guard = self.guard(data)
        if "pair" in data:
            high, low = data["pair"]
            return PairPlace(high=high, low=low, guard=guard, pointer=pointer)
        hi, lo = data.get("bits", (None, 0))
        if "reg" in data:
            return RegisterPlace(
                register=data["reg"],
                hi=hi,
                lo=lo,
                sign_extend=data.get("sign-extend", False),
                guard=guard,
                pointer=pointer,
            )
        return BlockPlace(
            block=data["block"],
            at=self.expr(data.get("at", 0), (*pointer, "at")),
            size=data.get("size"),
            hi=hi,
            lo=lo,
            stride=self.optional(data, "stride", pointer),
            layout_field=data.get("field"),
            guard=guard,
            pointer=pointer,
        )

    # -- the whole ----------------------------------------------------------------------------------------------

    def build(self) -> Abi:
        """Return the ABI. Raises `BuildError` at the first place that cannot be built."""
        data = self.data
        sources: dict[str, Source] = {}
        for part, origin in [*((self.shared[name], ("uses",)) for name in data.get("uses", ())), (data, ())]:
            for key, item in part.get("sources", {}).items():
                sources[key] = Source(
                    name=key,
                    title=item["title"],
                    revision=str(item["revision"]),
                    url=item.get("url"),
                    note=item.get("note"),
                    pointer=(*origin, "sources", key),
                )
            self.constants.update(self.constants_of(part.get("constants"), (*origin, "constants")))
            for key, item in part.get("enums", {}).items():
                self.enums[key] = self.enum(key, item, (*origin, "enums", key))
            for key, item in part.get("layouts", {}).items():
                self._raw_layouts[key] = (item, (*origin, "layouts", key))
        for key in list(self._raw_layouts):
            self.layout(key, ("layouts", key))
        return Abi(
            id=data["abi"],
            title=data["title"],
            vendor=data["vendor"],
            doc=data["doc"],
            draft=data.get("draft", False),
            roles=data["roles"],
            path=self.path,
            revisions={
                key: Revision(name=key, doc=item["doc"], default=item.get("default", False), pointer=("revisions", key))
                for key, item in data["revisions"].items()
            },
            sources=sources,
            uses=tuple(data.get("uses", ())),
            constants=self.constants,
            config={key: self.config_key(key, item) for key, item in data.get("config", {}).items()},
            facts={key: item["doc"] for key, item in data.get("facts", {}).items()},
            handles=self.handles(data["handles"], ("handles",)) if "handles" in data else None,
            enums=self.enums,
            layouts=self.layouts,
            messages={key: self.message(key, item, ("messages", key)) for key, item in data["messages"].items()},
            transports={
                key: self.transport(key, item, ("transports", key)) for key, item in data["transports"].items()
            },
            calls={key: build_call(self, key, item, ("calls", key)) for key, item in data["calls"].items()},
            policies={key: self.policy(key, item) for key, item in data.get("policies", {}).items()},
            profiles={key: self.profile(key, item) for key, item in data.get("profiles", {}).items()},
            examples=tuple(
                Example(
                    name=item["name"],
                    provenance=item["provenance"],
                    data=item,
                    guard=Guard(revisions=(item["revision"],)) if "revision" in item else self.guard(item),
                    pointer=("examples", number),
                )
                for number, item in enumerate(data.get("examples", ()))
            ),
        )

    def handles(self, data: Data, pointer: Pointer) -> Handles:
        """Read what is kept under handles."""
        return Handles(
            doc=data["doc"],
            items=self.layout(data["list"], (*pointer, "list")),
            first=self.expr(data["first"], (*pointer, "first")),
            keep=dict(data.get("keep", {})),
            pointer=pointer,
        )

    @staticmethod
    def config_key(name: str, data: Data) -> ConfigKey:
        """Read one configuration key."""
        return ConfigKey(
            name=name,
            doc=data["doc"],
            default=data["default"],
            choices=tuple(data.get("enum", ())),
            minimum=data.get("min"),
            maximum=data.get("max"),
            pointer=("config", name),
        )

    @staticmethod
    def policy(name: str, data: Data) -> Policy:
        """Read one policy."""
        return Policy(
            name=name,
            doc=data["doc"],
            values=data["values"],
            default=data["default"],
            open=data.get("open", False),
            pointer=("policies", name),
        )

    @staticmethod
    def profile(name: str, data: Data) -> Profile:
        """Read one profile."""
        return Profile(
            name=name,
            doc=data["doc"],
            source=data["source"],
            policies=data.get("policies", {}),
            config=data.get("config", {}),
            enabled=data.get("enabled"),
            pointer=("profiles", name),
        )


def build(data: Data, path: str, shared: Mapping[str, Data]) -> Abi:
    """Build the model of one file from its plain data and that of the shared files that it uses.

    Raises `BuildError` with the pointer of the first place that cannot be built.
    """
    return Builder(data, path, shared).build()
