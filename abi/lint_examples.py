"""Checks of worked examples: names exist, and what is encoded is what was decoded, byte for byte, both ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.codec import LayoutCodec
from hvabi.abi.errors import CodecError, ExprError, UsageError
from hvabi.abi.lint_guards import check_config
from hvabi.abi.registry import Spec
from hvabi.abi.schema import near
from hvabi.abi.specification import SPEC_PROFILE
from hvabi.abi.values import plain
from hvabi.abi.wire import Wire, merge

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.lint_context import Context
    from hvabi.abi.model import Pointer
    from hvabi.abi.specification import Example

IDS: Mapping[str, str] = {
    "example-duplicate-name": "Two examples of a file have the same name.",
    "example-codec": "An example cannot be encoded or decoded.",
    "example-mismatch": "An example encodes or decodes to something else than it says.",
    "example-state": "An example names a state, a register width or a privilege that its transport does not have.",
    "example-follows": "An example follows one that is not there, or one under other settings.",
    "unknown-profile": "A profile that is named does not exist.",
    "unknown-call": "A call that is named does not exist, or has to be named.",
}
"""Every id of this module, with one sentence each."""


def check_examples(context: Context, *, code: bool) -> None:
    """Check the names of all examples and, with `code`, that they encode and decode to themselves.

    A file with errors is not to be coded: the model then has stand-ins.
    """
    seen: dict[str, int] = {}
    for number, example in enumerate(context.abi.examples):
        where: Pointer = ("examples", number)
        if seen.setdefault(example.name, number) != number:
            context.report.error(
                (*where, "name"), "example-duplicate-name", f"another example is called {example.name!r}"
            )
        check = _ExampleCheck(context, example, where)
        if check.names_exist() and check.follows_one() and code:
            check.run()


Pieces = tuple[tuple[int, bytes], ...]


class _ExampleCheck:
    """Checks one example."""

    def __init__(self, context: Context, example: Example, where: Pointer) -> None:
        self.context = context
        self.report = context.report
        self.example = example
        self.data: Mapping[str, Any] = example.data
        self.where = where
        self.abi = context.abi
        calls = list(self.abi.calls)
        self.call_name = str(self.data.get("call", calls[0]))

    def names_exist(self) -> bool:
        """Check everything that the example names; return whether all of it exists."""
        before = self.report.errors
        if "layout" in self.data:
            self._known("layout", self.abi.layouts, "unknown-layout")
            return self.report.errors == before
        self._known("transport", self.abi.transports, "unknown-transport")
        self._known("call", self.abi.calls, "unknown-call")
        self._known("revision", self.abi.revisions, "unknown-revision")
        self._known("profile", [SPEC_PROFILE, *self.abi.profiles], "unknown-profile")
        check_config(self.context, self.data.get("config", {}), (*self.where, "config"))
        if "call" not in self.data and len(self.abi.calls) > 1:
            self.report.error(
                self.where,
                "unknown-call",
                f"example {self.example.name!r} does not name its call",
                f"calls are {', '.join(self.abi.calls)}",
            )
        if self.report.errors == before:
            self._placed()
        return self.report.errors == before

    def follows_one(self) -> bool:
        """Check the example that this one follows; return whether it can."""
        name = self.data.get("follows")
        if name is None:
            return True
        earlier = {item.name: item for item in self.context.abi.examples[: int(self.where[1])]}.get(name)
        if earlier is None or "layout" in earlier.data or "layout" in self.data or "before" in self.data:
            text = f"there is no call example {name!r} before this one"
            if "before" in self.data:
                text = "an example that follows another begins with what that one leaves"
            self.report.error((*self.where, "follows"), "example-follows", text)
            return False
        for key in ("transport", "revision", "profile", "config", "memory", "max-ranges", "enabled"):
            if self.data.get(key) != earlier.data.get(key):
                text = f"{key} is not that of the example {name!r}, which it follows"
                self.report.error((*self.where, "follows"), "example-follows", text)
                return False
        return True

    def _known(self, key: str, known: Any, id_: str) -> None:
        name = self.data.get(key)
        if name is not None and name not in known:
            self.report.error((*self.where, key), id_, f"there is no {key} `{name}`", near(name, known))

    def _placed(self) -> None:
        transport = self.abi.transports[self.data["transport"]]
        call = self.abi.calls[self.call_name]
        if call.request not in transport.placements:
            self.report.error(
                (*self.where, "transport"),
                "example-state",
                f"transport `{transport.name}` does not carry call `{call.name}`",
            )
        if self.data.get("mode", transport.mode) != transport.mode:
            self.report.error(
                (*self.where, "mode"),
                "example-state",
                f"transport `{transport.name}` is {transport.mode} bits wide",
            )
        if self.data.get("cpl") and not transport.shows_cpl:
            self.report.error(
                (*self.where, "cpl"),
                "example-state",
                f"transport `{transport.name}` does not show the caller's privilege",
                "`shows-cpl: true` says that it does",
            )

    # -- coding -------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Encode and decode the example; report what differs."""
        try:
            if "layout" in self.data:
                self._layout()
            else:
                self._messages()
        except (CodecError, ExprError, UsageError) as error:
            self.report.error(self.where, "example-codec", f"{self.example.name}: {error.message}", error.hint)

    def _layout(self) -> None:
        codec = LayoutCodec(self.abi.layouts[self.data["layout"]])
        raw = bytes.fromhex(self.data["raw"])
        self._same_bytes("raw", raw, codec.encode(self.data["value"]))
        self._same_fields("value", self.data["value"], plain(codec.decode(raw)))

    def _messages(self) -> None:
        revisions = self.example.guard.revisions or (self.abi.default_revision,)
        for revision in revisions:
            spec = Spec(self.abi.resolve(revision=revision, profile=self.data.get("profile", SPEC_PROFILE)))
            call = spec.abi.calls.get(self.call_name)
            if call is None or self.data["transport"] not in spec.abi.transports:
                self.report.error(self.where, "example-state", f"revision {revision} has no such call or transport")
                continue
            place = {"transport": self.data["transport"], "config": self.data.get("config")}
            request = self._request(spec.message(call.request, **place))
            if request and call.response and "response" in self.data and "answer" in self.data:
                self._response(spec.message(call.response, **place), *request)

    def _request(self, codec: MessageCodec) -> tuple[Any, Wire] | None:
        """Check the request both ways; return it decoded and what travels, None where it is wrong already."""
        given = self.data["request"]
        before = self.report.errors
        wire = codec.encode(codec.complete(given))
        regs, mem = self.data.get("regs", {}), self._memory("mem", self.data)
        if "regs" in self.data:
            self._same_registers("regs", regs, wire.regs)
        if "body" in self.data:
            self._same_bytes("body", bytes.fromhex(self.data["body"]), wire.body)
        self._same_memory("mem", mem, wire.mem)
        if self.report.errors != before:
            return None
        sent = Wire(regs={**wire.regs, **regs}, mem=merge([*wire.mem, *mem]))
        decoded = codec.decode(sent)
        self._same_fields("request", given, plain(decoded))
        return decoded, sent

    def _response(self, codec: MessageCodec, request: Any, sent: Wire) -> None:
        """Check the response both ways; what the answer does not show has not changed."""
        answer, given = self.data["answer"], self.data["response"]
        if answer.get("end", "return") not in {"return", "replay"}:
            return
        regs, mem = answer.get("regs", {}), self._memory("mem", answer)
        after = Wire(regs={**sent.regs, **regs}, mem=merge([*sent.mem, *mem]))
        decoded = codec.decode(after, request=request)
        self._same_fields("response", given, plain(decoded))
        wire = codec.encode({**plain(decoded), **given}, request=request)
        for name in regs:
            if name in wire.regs and wire.regs[name] != regs[name]:
                self._mismatch(
                    (*self.where, "answer"),
                    f"{name} of the response encodes to {wire.regs[name]:#x}, the answer has {regs[name]:#x}",
                )
        self._same_memory("answer", mem, wire.mem)

    @staticmethod
    def _memory(key: str, data: Mapping[str, Any]) -> tuple[tuple[int, bytes], ...]:
        return tuple((address, bytes.fromhex(text)) for address, text in data.get(key, ()))

    # -- comparing ----------------------------------------------------------------------------------------------

    def _same_bytes(self, key: str, expected: bytes, found: bytes) -> None:
        if expected == found:
            return
        at = next((n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
        if at is None:
            what = f"it encodes to {len(found)} bytes, {key} has {len(expected)}"
        else:
            what = f"byte {at} encodes to {found[at]:02x}, {key} has {expected[at]:02x}"
        self._mismatch((*self.where, key), what, f"it encodes to {found.hex()[:200]}")

    def _same_memory(self, key: str, expected: Pieces, found: Pieces) -> None:
        bytes_at = {start + n: byte for start, data in found for n, byte in enumerate(data)}
        for address, data in expected:
            for number, byte in enumerate(data):
                other = bytes_at.get(address + number, byte)
                if other != byte:
                    where = f"the byte at {address + number:#x}"
                    self._mismatch((*self.where, key), f"{where} encodes to {other:02x}, not {byte:02x}")
                    break

    def _same_registers(self, key: str, expected: Mapping[str, int], found: Mapping[str, int]) -> None:
        for name in expected:
            if name not in found:
                self._mismatch((*self.where, key), f"{name} is no register of the request")
            elif found[name] != expected[name]:
                self._mismatch(
                    (*self.where, key),
                    f"{name} encodes to {found[name]:#x}, the example has {expected[name]:#x}",
                )
        extra = [name for name in found if name not in expected and found[name]]
        if extra:
            self._mismatch((*self.where, key), f"the request also sets {', '.join(extra)}")

    def _same_fields(self, key: str, expected: Any, found: Any, path: str = "") -> None:
        if isinstance(expected, dict) and isinstance(found, dict):
            for name, value in expected.items():
                self._same_fields(key, value, found.get(name), f"{path}.{name}" if path else str(name))
        elif isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
            for number, (one, other) in enumerate(zip(expected, found, strict=True)):
                self._same_fields(key, one, other, f"{path}[{number}]")
        elif isinstance(found, dict) and isinstance(expected, int):
            return  # A word given as a whole number; its bytes have been compared.
        elif expected != found and not self._same_number(expected, found):
            self._mismatch((*self.where, key), f"{path} decodes to {found!r}, the example has {expected!r}")

    def _same_number(self, expected: object, found: object) -> bool:
        """Whether a number and a name of an enum are the same value."""
        one, other = (self._number(value) for value in (expected, found))
        return bool(one & other)

    def _number(self, value: object) -> set[int]:
        if isinstance(value, int):
            return {int(value)}
        return {e.values[value].value for e in self.abi.enums.values() if isinstance(value, str) and value in e.values}

    def _mismatch(self, where: Pointer, what: str, hint: str | None = None) -> None:
        self.report.error(where, "example-mismatch", f"{self.example.name}: {what}", hint)
