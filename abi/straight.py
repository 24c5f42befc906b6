"""The straight-line code of one message: written when the message was used often enough to be worth it.

Each function gives exactly what the reference in `hvabi.abi.codec` gives, or None: then the reference is asked. Where a
message needs something that is not generated, that is always so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import CodecError, ExprError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from hvabi.abi.codec import MessageCodec

WARM = 8
"""Uses of a message in one direction before code is written for it: writing takes as long as some hundred uses."""

Parts = tuple[dict[str, int], tuple[tuple[int, bytes], ...], bytes]
"""Registers, memory and body of an encoded message."""


class Straight:
    """The generated functions of a message, each made at its `warm`-th use."""

    def __init__(self, codec: MessageCodec, *, warm: int = WARM) -> None:
        self.warm = warm
        self._codec = codec
        self._uses: dict[tuple[str, bool], int] = {}
        self._made: dict[tuple[str, bool], Callable[..., Any] | None] = {}

    def decode(self, regs: Mapping[str, int], mem: Iterable[tuple[int, bytes]], request: Any) -> Any:
        """Return the value of registers and memory, or None."""
        if request is not None and not self._is_request(request):
            return None
        function = self._function("decode", request is not None)
        return None if function is None else function(regs, mem, request)

    def decode_body(self, body: bytes) -> Any:
        """Return the value of the body's bytes, or None."""
        function = self._function("body", False)
        return None if function is None else function(body)

    def encode(self, given: Mapping[str, Any], request: Any) -> Parts | None:
        """Return what is sent for the fields that are given, or None."""
        if request is not None and not self._is_request(request):
            return None
        function = self._function("encode", request is not None)
        parts: Parts | None = None if function is None else function(given, request)
        return parts

    def _is_request(self, request: Any) -> bool:
        # Anything else may have other fields, and fields that nobody has looked at.
        return self._codec.request is not None and type(request) is self._codec.request.value_class

    def supported(self, kind: str, *, sent: bool) -> bool:
        """Whether there is straight-line code for ``decode``, ``body`` or ``encode``, with a request or without."""
        self._uses[kind, sent] = self.warm
        return self._function(kind, sent) is not None

    def _function(self, kind: str, sent: bool) -> Callable[..., Any] | None:
        key = (kind, sent)
        if key in self._made:
            return self._made[key]
        self._uses[key] = self._uses.get(key, 0) + 1
        if self._uses[key] >= self.warm:
            self._made[key] = self._make(kind, sent=sent)
            return self._made[key]
        return None

    def _make(self, kind: str, *, sent: bool) -> Callable[..., Any] | None:
        from hvabi.abi.straight_decode import Decoder
        from hvabi.abi.straight_encode import Encoder
        from hvabi.abi.straight_names import Unsupported

        codec = self._codec
        try:
            if kind == "encode":
                return Encoder(codec, sent=sent).function()
            if kind == "decode":
                return Decoder(codec, sent=sent).function()
            if codec.request is not None or (codec.body is None and not codec.placer.registers):
                return None
            return Decoder(codec, sent=False, base=codec.base(), body=True).function()
        except (Unsupported, CodecError, ExprError):
            return None
