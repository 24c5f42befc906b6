"""The rules of a request as conditions in straight-line code, check by check as `hvabi.adapters.checks` has them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.expr import Attr, Name
from hvabi.abi.expr_codegen import Variable
from hvabi.abi.model import PairPlace, RegisterPlace
from hvabi.abi.scope import definitions
from hvabi.abi.straight_decode import Decoder
from hvabi.abi.straight_names import Names, Unsupported
from hvabi.adapters.checks import Context, element_enums, enum_of
from hvabi.backend import GPA_PAGES, PAGE_SHIFT

if TYPE_CHECKING:
    from hvabi.abi.calls import Call, Rule
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.expr import Expr

_LOCALS = ("cpl", "enabled", "done_pages", "done_bytes", "part_pages", "index", "errno", "to")


class Reader(Decoder):
    """Fetches fields as a host does: registers as they are, 0 where they were left out; nothing from memory."""

    def __init__(self, codec: MessageCodec, call: Call) -> None:
        super().__init__(codec, sent=False)
        local = {name: Variable(name, 256, plain=True) for name in _LOCALS}
        self.names = Names(codec.message, codec.static, need=self._need, define=definitions(call), local=local)

    def loads(self) -> list[str]:
        """Return the lines that fetch the registers."""
        return [f"{variable} = regs.get({name!r}, 0)" for name, variable in self._registers.items()]

    def _read(self, *_: Any) -> None:
        raise Unsupported("memory")

    def require(self, condition: str) -> None:
        """Write a line that gives up where a condition does not hold."""
        self.lines.append(f"if not ({condition}): return None")

    def place(self, name: str) -> Any:
        """Return where a field lies."""
        return self.placer.place_of(name)

    def number(self, expr: Expr) -> str:
        """Return code for an integer."""
        return self.names.code(expr)

    def register(self, name: str) -> str:
        """Return the variable of a register."""
        return self._register(name)


class Conditions:
    """Writes the rules of one call into its function.

    Attributes:
        scope: what the conditions name.

    """

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.scope: dict[str, Any] = {}

    def rule(self, rule: Rule) -> None:
        """Write the line that gives up where the request breaks a rule."""
        condition = self._condition(rule)
        if rule.when is not None:
            condition = f"not {self.reader.names.code(rule.when, 'bool')} or ({condition})"
        self.reader.require(condition)

    def _condition(self, rule: Rule) -> str:
        """Return code for "the request keeps the rule", check by check as `hvabi.adapters.checks` has them."""

        def one(name: str) -> str:
            return self.reader.number(rule.operands[name][0])

        def each(form: str) -> str:
            return " and ".join(form.format(self.reader.number(expr)) for expr in rule.operands["of"])

        match rule.check:
            case "aligned":
                return each(f"{{}} % {one('to')} == 0")
            case "non-empty":
                return each("{} != 0")
            case "no-wrap":
                return f"{one('start')} + {one('length')} < 1 << {one('width')}"
            case "below":
                return each(f"{{}} < {one('limit')}")
            case "at-most" | "count-at-most":
                return each(f"{{}} <= {one('limit')}")
            case "within":
                return each(f"{one('low')} <= {{}} < {one('high')}")
            case "ordered":
                return f"{one('low')} < {one('high')}"
            case "same-half":
                first, *others = (f"({self.reader.number(expr)} >> {one('bit')} & 1)" for expr in rule.operands["of"])
                return " == ".join((first, *others)) if others else "True"
            case "equals":
                return each(f"{{}} == {one('to')}")
            case "bits-set":
                mask = one("mask")
                return each(f"{{}} & {mask} == {mask}")
            case "reserved":
                return each("{} == 0")
            case "known-value":
                return self._known_value(rule)
            case "fits-buffer":
                return f"{one('length')} <= {one('size')}"
            case "enabled":
                return "enabled"
            case "privileged":
                return "cpl == 0"
            case "selected":
                return self.selected(rule.operands.get("of", ()))
            case "readable":
                block = self.reader.placer.blocks.get(rule.words["of"])
                if block is not None and not block.registers:
                    raise Unsupported("memory")
                return "True"
            case "within-memory":
                return self._within_memory(one("start"), one("length"))
            case "expr":
                return self.reader.names.code(rule.operands["expr"][0], "bool")
        raise Unsupported(rule.check)

    def _known_value(self, rule: Rule) -> str:
        if "values" in rule.operands:
            allowed = "".join(f"{self.reader.number(expr)}, " for expr in rule.operands["values"])
            return " and ".join(f"{self.reader.number(expr)} in ({allowed})" for expr in rule.operands["of"])
        message = self.reader.message
        context = Context(
            backend=None,
            readable=lambda _: True,
            selected=lambda _: True,
            message=message,
            element=element_enums(message, None),
        )
        parts = []
        for expr in rule.operands["of"]:
            known = frozenset(value.value for value in enum_of(expr, context, rule).values.values())
            name = f"known{len(self.scope)}"
            self.scope[name] = known
            parts.append(f"{self.reader.number(expr)} in {name}")
        return " and ".join(parts)

    def selected(self, operands: tuple[Expr, ...], *, everything: bool = False) -> str:
        """Return code for "it is this call": constants in registers, or `everything`; given names limit it."""
        named = {operand.name for operand in operands if isinstance(operand, Name)}
        parts = ["True"]
        for name, field in self.reader.message.fields.items():
            place = self.reader.place(name)
            if field.const is None or (named and name not in named) or place is None:
                continue
            if not (named or everything or isinstance(place, RegisterPlace)):
                continue
            if field.word is not None:
                raise Unsupported(f"a constant {name}")
            parts.append(f"{self.reader.number(Name(name))} == {self.reader.number(field.const)}")
        if named:
            return " and ".join(parts)
        placement = self.reader.placer.placement
        for path, expr in placement.parts.items():
            name, _, part = path.partition(".")
            if everything or isinstance(self.reader.place(name), RegisterPlace | PairPlace):
                parts.append(f"{self.reader.number(Attr(Name(name), part))} == {self.reader.number(expr)}")
        parts += [
            f"{self.reader.register(name)} == {self.reader.number(expr)}" for name, expr in placement.fixed.items()
        ]
        return " and ".join(parts)

    def _within_memory(self, start: str, length: str) -> str:
        number = len(self.reader.lines)
        first, last = f"first{number}", f"last{number}"
        self.reader.lines += [
            f"{first} = {start} >> {PAGE_SHIFT}",
            f"n = {length}",
            f"{last} = {first} if n <= 0 else ({start} + n - 1 >> {PAGE_SHIFT}) + 1",
        ]
        return f"0 <= {first} <= {last} <= {GPA_PAGES} and backend.layout.contains({first}, {last})"
