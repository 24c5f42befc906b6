"""Every legal reading of some bytes or registers: which messages of which ABIs they can be, and how sure that is.

Hypercall number 12 in RAX has two readings, and 8 bytes without a constant have many. A reading is legal where the
message decodes and every constant and fixed register that was given has its value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from hvabi.abi.annotate import annotate
from hvabi.abi.errors import CodecError, ExprError, SpecError, UsageError
from hvabi.abi.expr import names as names_of
from hvabi.abi.given import Given
from hvabi.abi.meaning import meaning
from hvabi.abi.model import BlockPlace, RegisterPlace
from hvabi.abi.registry import Spec, abi_files, abi_ids, bundled
from hvabi.abi.scope import Scope
from hvabi.abi.wire import register_bits

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.abi.annotation import Annotation
    from hvabi.abi.codec import MessageCodec
    from hvabi.abi.values import Value

Sure = Literal["constants-matched", "nothing-contradicts", "unlikely"]
"""A constant or fixed register was given and is right; there was none to tell by; or reserved bits are set, a number
has no name, or bits are not read."""

_ORDER: dict[Sure, int] = {"constants-matched": 0, "nothing-contradicts": 1, "unlikely": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One way to read what was given.

    Attributes:
        form: how the bytes were taken: ``registers``, or ``block NAME``.
        means: what the message says, one line.
        because: why it is as `sure` as it is, one line.
        matched: bits of constants and fixed registers that were given and are right.
        clean: bits of reserved fields that are zero and of enums whose number has a name.

    """

    abi: str
    title: str
    revision: str
    message: str
    transport: str
    form: str
    means: str
    sure: Sure
    because: str
    matched: int
    clean: int
    annotation: Annotation

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """Sort key, the surest first; a message of which something is missing comes after a whole one.

        Where no constant tells, the one of which more is as it should be is the likelier: a message without reserved
        bits and named numbers fits anything.
        """
        likely = -self.clean if not self.matched else 0
        return _ORDER[self.sure], len(self.annotation.missing) > 0, -self.matched, likely


@dataclass(frozen=True, slots=True, kw_only=True)
class Hint:
    """A change to what was given that makes it fit.

    `kind` is ``other-endian`` (every field of a block the other way round), ``reversed-8``, ``reversed-4``,
    ``reversed-2`` or ``longer``.
    """

    kind: str
    text: str
    reading: Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """All readings, the surest first; hints where none of them has a constant that matches; ABIs not readable here."""

    readings: tuple[Reading, ...]
    hints: tuple[Hint, ...] = ()
    skipped: tuple[str, ...] = ()


def specs(
    abis: Iterable[str] | None = None, revision: str | None = None, *, tolerant: bool = False
) -> tuple[list[Spec], list[str]]:
    """Return every revision of the ABIs, all bundled ones by default.

    With `tolerant`, the ids whose files cannot be read are the second value; else `SpecError` is raised.
    """
    found: list[Spec] = []
    skipped: list[str] = []
    for name in abi_ids() if abis is None else abis:
        try:
            abi = bundled(name)
        except SpecError:
            if not tolerant:
                raise
            skipped.append(name)
            continue
        default = abi.default_revision
        names = [revision] if revision else sorted(abi.revisions, key=lambda key: key != default)
        found += [Spec(abi.resolve(revision=key)) for key in names]
    return found, skipped


def naming(registers: Iterable[str]) -> list[str]:
    """Return the bundled ABIs whose files name one of the registers: no other can have a reading of them.

    Looking for words in a text is a hundred times faster than reading a specification, and most can be left out so.
    """
    wanted = [(name.encode(), re.compile(rb"\b" + re.escape(name.encode()) + rb"\b")) for name in registers]
    texts = {name: path.read_bytes() for name, path in abi_files().items()}
    # A plain search first: it is many times faster than that for a word, and most texts have no such letters.
    return [name for name, text in texts.items() if any(key in text and word.search(text) for key, word in wanted)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A way in which bytes can be a message: all its registers in order, or one of its blocks."""

    name: str
    registers: tuple[str, ...] = ()
    block: str | None = None

    def take(self, data: bytes, label: str) -> Given:
        """Return the bytes as registers or block. Raises `CodecError` where their number does not fit registers."""
        if self.registers:
            return Given(regs=from_bytes(self.registers, data, label, part=self.block is not None))
        return Given(block=(self.block, data)) if self.block is not None else Given()


def forms(codec: MessageCodec) -> list[Form]:
    """Return the ways in which bytes can be this message, the likeliest first."""
    blocks = codec.placer.blocks
    used = dict.fromkeys(
        place.block
        for places in codec.placer.placement.place.values()
        for place in places[:1]
        if isinstance(place, BlockPlace)
    )
    if not used:
        registers = codec.placer.registers
        return [Form(name="registers", registers=registers)] if registers else []
    names = dict.fromkeys([*([codec.body] if codec.body else []), *used])
    return [Form(name=f"block {name}", block=name, registers=blocks[name].registers) for name in names]


def from_bytes(names: Iterable[str], data: bytes, label: str, *, part: bool = False) -> dict[str, int]:
    """Return registers from bytes, little endian in order; with `part` the last ones may be missing.

    Raises `CodecError` ``truncated`` or ``oversized``.
    """
    regs: dict[str, int] = {}
    at = 0
    for name in names:
        size = register_bits(name) // 8
        piece = data[at : at + size]
        if len(piece) < size and not (part and at):
            raise CodecError(
                "truncated",
                "the bytes end too early",
                message_name=label,
                path=name,
                byte_offset=at,
                expected=f"{sum(register_bits(key) // 8 for key in names)} bytes ({', '.join(names)})",
                found=len(data),
                hint="all registers in this order, 8 bytes each, little endian; or write them as NAME=VALUE",
            )
        if not piece:
            break
        regs[name] = int.from_bytes(piece, "little")
        at += size
    if len(data) > at:
        raise _oversized(label, at, len(data))
    return regs


def _check_size(codec: MessageCodec, block: str, size: int, found: int) -> None:
    """Raise `CodecError` where bytes are more than a block, or end inside a block that is one whole structure."""
    if found > size:
        raise _oversized(codec.label, size, found)
    if found < size and codec.placer.blocks[block].layout is not None:
        raise CodecError(
            "truncated",
            "the bytes end too early",
            message_name=codec.label,
            path=block,
            byte_offset=found,
            expected=f"{size} bytes",
            found=found,
            hint="give all bytes of the block",
        )


def _oversized(label: str, size: int, found: int) -> CodecError:
    return CodecError(
        "oversized",
        "there are bytes behind the message",
        message_name=label,
        byte_offset=size,
        expected=f"{size} bytes",
        found=found,
        hint=f"the message ends after {size} bytes: give only these",
    )


def read(codec: MessageCodec, data: bytes | Given, *, request: Value = None) -> tuple[str, Annotation]:
    """Return how the first fitting form was taken and the message as rows.

    Raises:
        CodecError: where no form fits; the error of the first.
        UsageError: ``no-body`` where the message has neither bytes nor registers.

    """
    if isinstance(data, Given):
        return "registers", annotate(codec, data, request=request)
    first: CodecError | ExprError | None = None
    for form in forms(codec):
        try:
            given = form.take(data, codec.label)
            annotation = annotate(codec, given, request=request)
            if given.block is not None:
                _check_size(codec, given.block[0], annotation.sizes.get(given.block[0], 0), len(data))
        except (CodecError, ExprError) as error:
            first = first or error
            continue
        return form.name, annotation
    if first is not None:
        raise first
    raise UsageError(f"{codec.label} has no bytes of its own", code="no-body", hint="give its registers")


def judge(annotation: Annotation) -> tuple[Sure, str, int, int]:
    """Return how sure a reading is, why, and its bits that match constants and that are as they should be."""
    matched, clean = 0, 0
    right: list[str] = []
    for row in annotation.rows:
        if not row.given or row.problem is not None:
            continue
        if row.const is not None:
            matched += row.bits
            right.append(f"{row.path} is {row.const:#x}")
        elif row.reserved or row.symbol is not None:
            clean += row.bits
    if annotation.problems:
        first = annotation.problems[0]
        more = len(annotation.problems) - 1
        because = f"{first.path} {first.message}" + (f", and {more} more" if more else "")
        return "unlikely", because, matched, clean
    if right:
        return "constants-matched", ", ".join(right), matched, clean
    return "nothing-contradicts", "no constant tells", matched, clean


def is_legal(annotation: Annotation, matched: int) -> bool:
    """Whether a reading stands: no constant is wrong, and without one that is right nothing is missing or left."""
    if any(problem.code in ("const-mismatch", "fixed-mismatch") for problem in annotation.problems):
        return False
    if not any(row.given for row in annotation.rows):
        return False
    return bool(matched) or not (annotation.missing or annotation.unused)


def _codec(spec: Spec, message: str, transport: str, config: Mapping[str, int] | None) -> MessageCodec:
    """Return a codec under those of the configuration keys that the ABI has."""
    known = {key: value for key, value in (config or {}).items() if key in spec.abi.config}
    return spec.message(message, transport=transport, config=known)


def reading(
    spec: Spec,
    message: str,
    transport: str,
    data: bytes | Given,
    *,
    config: Mapping[str, int] | None = None,
    request: Value = None,
) -> Reading:
    """Return one reading, legal or not. Raises `CodecError`, `ExprError` or `UsageError` where there is none."""
    codec = _codec(spec, message, transport, config)
    form, annotation = read(codec, data, request=request)
    sure, because, matched, clean = judge(annotation)
    return Reading(
        abi=spec.id,
        title=spec.abi.title,
        revision=spec.abi.revision,
        message=message,
        transport=transport,
        form=form,
        means=meaning(spec.abi, codec, annotation),
        sure=sure,
        because=because,
        matched=matched,
        clean=clean,
        annotation=annotation,
    )


def legal(found: Iterable[Spec], data: bytes | Given, *, config: Mapping[str, int] | None = None) -> list[Reading]:
    """Return every legal reading under these specifications, the surest first."""
    out: list[Reading] = []
    for spec in found:
        for transport in spec.abi.transports.values():
            for message in transport.placements:
                try:
                    if isinstance(data, Given) and _hopeless(_codec(spec, message, transport.name, config), data):
                        continue
                    one = reading(spec, message, transport.name, data, config=config)
                except (CodecError, ExprError, UsageError):
                    continue
                whole = not isinstance(data, bytes) or _fills(one, len(data))
                if whole and is_legal(one.annotation, one.matched):
                    out.append(one)
    return sorted(out, key=lambda item: item.rank)


def _hopeless(codec: MessageCodec, given: Given) -> bool:
    """Whether the registers alone rule a message out, so that it need not be read: most are told so.

    A fixed register or a constant is wrong; or there is none that is right, and a register is given that it has not.
    """
    placer, scope = codec.placer, Scope(codec.static)
    # Whether something is right, or may be: the registers of fields are not all that tells.
    told = bool(given.mem or given.block or placer.placement.parts or any(b.registers for b in placer.blocks.values()))
    for register, expr in placer.placement.fixed.items():
        if register in given.regs:
            if given.regs[register] != scope.int(expr):
                return True
            told = True
    for name, item in codec.message.fields.items():
        place = placer.place_of(name)
        if item.const is None or not isinstance(place, RegisterPlace) or place.register not in given.regs:
            continue
        told = True
        if not names_of(item.const) & codec.message.fields.keys():
            bits = item.bits if place.hi is None else min(item.bits, place.hi - place.lo + 1)
            if (given.regs[place.register] >> place.lo ^ scope.int(item.const)) & (1 << bits) - 1:
                return True
    return not told and not given.regs.keys() <= set(placer.registers)


def _fills(one: Reading, size: int) -> bool:
    """Whether the bytes are the whole block, not the start of it."""
    kind, _, block = one.form.partition(" ")
    return kind != "block" or one.annotation.sizes.get(block, size) == size


def readings(
    data: bytes | Given,
    *,
    abis: Iterable[str] | None = None,
    revision: str | None = None,
    config: Mapping[str, int] | None = None,
    hints: bool = True,
) -> Readings:
    """Return every legal reading of bytes or registers.

    Args:
        data: the bytes of a message, or registers and memory.
        abis: where to look; all bundled ABIs by default.
        revision: one revision instead of all; only with a single ABI.
        config: configuration keys; an ABI takes those that it has.
        hints: whether to look for changes that make the data fit, where no constant says that it does.

    """
    if abis is None and isinstance(data, Given) and data.regs:
        found, skipped = specs(naming(data.regs), tolerant=True)
    else:
        found, skipped = specs(abis, revision, tolerant=abis is None)
    out = legal(found, data, config=config)
    better: list[Hint] = []
    if hints and not any(item.sure == "constants-matched" for item in out):
        better = list(_hints(found, data, config, out))
    return Readings(readings=tuple(out), hints=tuple(better), skipped=tuple(skipped))


def _hints(
    found: list[Spec], data: bytes | Given, config: Mapping[str, int] | None, out: list[Reading]
) -> Iterator[Hint]:
    """Yield what would fit better: bytes the other way round, or fewer of them."""
    best = max((item.clean for item in out if item.sure != "unlikely"), default=-1)

    def better(item: Reading) -> bool:
        # Without a constant only a clear gain in reserved and named bits says that the order is wrong.
        return item.sure == "constants-matched" or (item.sure != "unlikely" and best < 0 and item.clean >= 8)

    for item in _other_endian(found, data, config):
        if better(item):
            text = f"with every field in the other byte order this is {item.abi}/{item.message}: {item.means}"
            yield Hint(kind="other-endian", text=text, reading=item)
            return
    for width in (8, 4, 2):
        turned = swapped(data, width)
        if turned is None or turned == data:
            continue
        for item in legal(found, turned, config=config)[:1]:
            if better(item):
                text = (
                    f"with the bytes of each {width}-byte word reversed this is {item.abi}/{item.message}: {item.means}"
                )
                yield Hint(kind=f"reversed-{width}", text=text, reading=item)
                return
    if isinstance(data, bytes) and not out:
        yield from _longer(found, data, config)


def _other_endian(found: list[Spec], data: bytes | Given, config: Mapping[str, int] | None) -> Iterator[Reading]:
    """Yield the legal readings of a block of one structure whose fields are all the other way round."""
    if not isinstance(data, bytes):
        return
    for spec in found:
        for transport in spec.abi.transports.values():
            for message in transport.placements:
                codec = _codec(spec, message, transport.name, config)
                for form in forms(codec):
                    layout = codec.placer.blocks[form.block].layout if form.block is not None else None
                    if layout is None or layout.partial or len(data) != layout.size:
                        continue
                    turned = bytearray(data)
                    for item in layout.fields.values():
                        turned[item.at : item.at + item.size] = data[item.at : item.at + item.size][::-1]
                    yield from legal([spec], bytes(turned), config=config)[:1]


def _longer(found: list[Spec], data: bytes, config: Mapping[str, int] | None) -> Iterator[Hint]:
    for spec in found:
        for transport in spec.abi.transports.values():
            for message in transport.placements:
                try:
                    reading(spec, message, transport.name, data, config=config)
                except CodecError as error:
                    if error.code != "oversized" or not error.byte_offset:
                        continue
                    size = error.byte_offset
                except (ExprError, UsageError):
                    continue
                else:
                    continue
                for item in legal([spec], data[:size], config=config)[:1]:
                    if item.sure == "constants-matched":
                        text = f"the first {size} bytes are {item.abi}/{item.message}: {item.means}"
                        yield Hint(kind="longer", text=text, reading=item)
                        return


def swapped(data: bytes | Given, width: int) -> bytes | Given | None:
    """Return the data with every word of `width` bytes reversed, or None where it is no whole number of words."""
    if isinstance(data, Given):
        if width != 8 or not data.regs:
            return None
        regs = {
            name: int.from_bytes(value.to_bytes(8, "little"), "big") if value < 1 << 64 else value
            for name, value in data.regs.items()
        }
        return Given(regs=regs, mem=data.mem, block=data.block)
    if not data or len(data) % width:
        return None
    return b"".join(data[at : at + width][::-1] for at in range(0, len(data), width))
