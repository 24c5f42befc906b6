"""Checks of transports: every field has a place, places exist and do not overlap, blocks can be found in order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.expr import names
from hvabi.abi.lint_messages import check_constants, codec_entries
from hvabi.abi.lint_places import PlaceChecks, blocks_of, check_output
from hvabi.abi.lint_scope import NameScope, static_entries
from hvabi.abi.model import BlockPlace
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Field

IDS: Mapping[str, str] = {
    "unknown-message": "A message that is named does not exist.",
    "message-unplaced": "No transport places a message that a call uses.",
    "response-unplaced": "A transport places a request and not its response.",
    "field-unplaced": "A field has no place on a transport, no value of its own, and is not listed as absent.",
    "field-absent": "A field is listed as absent and has a place, or has no default to take.",
    "block-order": "The address of a block depends on a field that lies in this block or a later one.",
}
"""Every id of this module, with one sentence each."""


def check_transports(context: Context) -> None:
    """Check every transport and every message on it."""
    abi, report = context.abi, context.report
    for transport in abi.transports.values():
        check_constants(transport.limits.values(), report)
        for placement in transport.placements.values():
            message = abi.messages.get(placement.message)
            if message is None:
                report.error(
                    placement.pointer[:-1],
                    "unknown-message",
                    f"there is no message `{placement.message}`",
                    near(placement.message, abi.messages),
                    key=placement.message,
                )
            else:
                _Placing(context, transport, placement, message).check()
    _check_messages_placed(context)


def _check_messages_placed(context: Context) -> None:
    abi, report = context.abi, context.report
    for call in abi.calls.values():
        for key, name in (("request", call.request), ("response", call.response)):
            if name is None:
                continue
            if name not in abi.messages:
                report.error(
                    (*call.pointer, key),
                    "unknown-message",
                    f"there is no message `{name}`",
                    near(name, abi.messages),
                )
            elif not any(name in transport.placements for transport in abi.transports.values()):
                report.error((*call.pointer, key), "message-unplaced", f"no transport places message `{name}`")
        if not any(call.response in transport.placements for transport in abi.transports.values()):
            continue  # No response, or one without any place: reported above.
        for transport in abi.transports.values():
            sent, answered = (name in transport.placements for name in (call.request, call.response))
            if sent and not answered:
                report.error(
                    transport.pointer,
                    "response-unplaced",
                    f"transport `{transport.name}` places `{call.request}` and not its response `{call.response}`",
                )
    for message in abi.messages.values():
        if message.body is not None and not any(
            message.body in blocks_of(context, transport, message.name) for transport in abi.transports.values()
        ):
            report.error((*message.pointer, "body"), "unknown-block", f"no transport has a block `{message.body}`")


class _Placing(PlaceChecks):
    """Checks one message on one transport."""

    def check(self) -> None:
        """Run all checks."""
        self._check_names()
        self._check_exprs()
        self._check_fields()
        self.check_overlap([part for parts in self.parts() for part in parts])
        self._check_blocks()

    def _check_names(self) -> None:
        known = self.message.fields
        for key, names_ in (("place", self.placement.place), ("absent", self.placement.absent)):
            for name in names_:
                if name not in known:
                    self.report.error(
                        (*self.where, key),
                        "unknown-field",
                        f"message `{self.message.name}` has no field `{name}`",
                        near(name, known),
                        key=name,
                    )
        for register in self.placement.fixed:
            self.check_register(register, (*self.where, "fixed"), key=register)
        for path in self.placement.parts:
            name, _, part = path.partition(".")
            word = known[name].word if name in known else None
            if word is None or part not in word.fields:
                message = f"message `{self.message.name}` has no part `{path}` of a word"
                hint = near(part, word.fields) if word is not None else near(name, known)
                self.report.error((*self.where, "fixed"), "unknown-field", message, hint, key=path)
        for number, name in enumerate(self.placement.may_change):
            check_output(self.context, name, [self.transport], self.message.name, (*self.where, "may-change", number))

    def _check_exprs(self) -> None:
        static = static_entries(self.context, [self.transport])
        revisions = self.context.revisions_of(self.transport.guard)
        outer = NameScope(context=self.context, entries=static, revisions=revisions)
        for name in (*self.placement.fixed, *self.placement.parts):
            outer.check_int((*self.where, "fixed", name))
        scope = outer.with_names(codec_entries(self.context, self.message))
        for block in self.placement.blocks.values():
            inside = scope.with_names({}, revisions=self.context.revisions_of(self.transport.guard, block.guard))
            inside.check_int((*block.pointer, "at"))
            inside.check_int((*block.pointer, "size"))
        for places in self.placement.place.values():
            for place in places:
                if isinstance(place, BlockPlace) and place.layout_field is None:
                    inside = scope.with_names(
                        {}, revisions=self.context.revisions_of(self.transport.guard, place.guard)
                    )
                    inside.check_int((*place.pointer, "at"))
                    inside.check_int((*place.pointer, "stride"))

    def _check_fields(self) -> None:
        for item in self.message.fields.values():
            places = self.placement.place.get(item.name, ())
            absent = item.name in self.placement.absent
            own_value = item.const is not None or item.default is not None
            if absent and places:
                self.report.error(
                    (*self.where, "place"),
                    "field-absent",
                    f"field `{item.name}` is listed as absent and has a place",
                    key=item.name,
                )
            elif absent and not (own_value or item.reserved or item.is_list) and "request" in self.roles():
                self.report.error(
                    (*self.where, "absent"),
                    "field-absent",
                    f"field `{item.name}` is absent on transport `{self.transport.name}` and has no default",
                    "give the field a default",
                )
            elif not places and not absent and not own_value:
                self._unplaced(item, "")
            elif places and not own_value:
                guards = [place.guard for place in places]
                for revision in self.context.revisions_of(self.transport.guard, item.guard):
                    if not any(g.revisions is None or revision in g.revisions for g in guards):
                        self._unplaced(item, f" in revision {revision}")

    def _unplaced(self, item: Field, when: str) -> None:
        self.report.error(
            self.where,
            "field-unplaced",
            f"field `{item.name}` of message `{self.message.name}` has no place on transport "
            f"`{self.transport.name}`{when}",
            "place it, give it a const or default, or list it in absent",
        )

    def _check_blocks(self) -> None:
        order = list(self.blocks)
        homes: dict[str, set[str]] = {}
        for name, places in self.placement.place.items():
            homes[name] = {place.block for place in places if isinstance(place, BlockPlace)}
        for block in self.placement.blocks.values():
            for number, register in enumerate(block.registers):
                self.check_register(register, (*block.pointer, "registers", number))
            size = self.number(block.size)
            if block.layout is not None and size is not None and block.layout.size > size:
                self.report.error(
                    (*block.pointer, "size"),
                    "block-layout",
                    f"block `{block.name}` has {size} bytes, its layout `{block.layout.name}` {block.layout.size}",
                )
            if block.at is None:
                continue
            for name in sorted(names(block.at)):
                for home in sorted(homes.get(name, ())):
                    if home in order and order.index(home) >= order.index(block.name):
                        self.report.error(
                            (*block.pointer, "at"),
                            "block-order",
                            f"block `{block.name}` is found through `{name}`, which lies in block `{home}`",
                            "use fields in registers or in blocks that stand earlier",
                        )
