"""C headers and Rust modules of the ABIs: the same specifications give the same bytes.

One file per ABI that needs nothing but itself: no library, no allocation, no bit-fields, no byte order of the machine.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from typing import TYPE_CHECKING, Literal

from hvabi.abi.registry import abi_ids, bundled
from hvabi.publish.code_parts import WIDEST, CodeError, layout_group, register_groups, values_of
from hvabi.publish.folder import write_folder
from hvabi.publish.render import environment

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from hvabi.abi.specification import Abi
    from hvabi.publish.code_parts import Piece, Slot

Language = Literal["c", "rust"]

MANIFEST = "hvabi-gen.json"
"""The file that says that a folder was written by this module, with the sums of its files."""

_WIDTH = 100
_DEFINED = re.compile(
    r"^ *(?:#define (\w+)|static inline .*?\b(\w+)\(|pub (?:const )?(?:fn|const|mod) (\w+))", re.MULTILINE
)


def code(abis: Iterable[str], language: Language) -> dict[str, bytes]:
    """Return every file by name. Raises `UsageError` ``unknown-abi``, `CodeError` for names that clash."""
    chosen = [bundled(abi) for abi in dict.fromkeys(abis)] or [bundled(abi) for abi in abi_ids()]
    files = {f"hvabi_{ident(abi.id)}.h" if language == "c" else f"{rust_module(abi.id)}.rs": code_of(abi, language)
             for abi in chosen}  # fmt: skip
    if language == "rust":
        names = sorted(rust_module(abi.id) for abi in chosen)
        files["lib.rs"] = environment(html=False).get_template("lib.rs.j2").render(names=names)
    return {name: text.encode() for name, text in files.items()}


def code_of(abi: Abi, language: Language) -> str:
    """Return the header or module of an ABI, all revisions and policies in one."""
    template, helpers = ("code.h.j2", _C) if language == "c" else ("code.rs.j2", _RUST)
    text = environment(html=False).get_template(template).render(
        abi=abi,
        enums=[(enum, list(values_of(enum))) for enum in abi.enums.values()],
        layouts=[layout_group(item) for item in abi.layouts.values()],
        registers=list(register_groups(abi)),
        prefix=f"hvabi_{ident(abi.id)}",
        ident=ident,
        WIDEST=WIDEST,
        **helpers,
    )  # fmt: skip
    if language == "c":  # in Rust the compiler says so, and names live in modules
        twice = [name for name, count in Counter(found[1] or found[2] for found in _DEFINED.finditer(text)).items()
                 if count > 1 and not name.startswith(("HVABI_U128", "HVABI_STATIC"))]  # fmt: skip
        if twice:
            raise CodeError(f"{abi.id}: {twice[0]} would be two things in C", hint="rename one in the specification")
    return text


def write_code(directory: Path | str, abis: Iterable[str], language: Language) -> dict[str, int]:
    """Write the files of some ABIs, by default of all, in place of an earlier run's, and return their sizes.

    Raises `UsageError` ``unknown-abi``, `CodeError`, `FolderError` for a folder that is not ours, `OSError`.
    """
    files = code(abis, language)
    write_folder(directory, files, manifest=MANIFEST, about={"kind": f"hvabi gen {language}"})
    return {name: len(data) for name, data in sorted(files.items())}


def ident(name: str) -> str:
    """Return a name as both languages have it: letters, digits and underscores, in lower case."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower())
    return text if not text[:1].isdigit() else f"_{text}"


def _lines(text: str, indent: int) -> list[str]:
    plain = " ".join(text.split())
    return textwrap.wrap(plain, _WIDTH - indent, break_long_words=False, break_on_hyphens=False)


# -- C ----------------------------------------------------------------------------------------------------------------


def c_comment(text: str) -> str:
    """Return a text as a comment, whatever it has in it."""
    lines = _lines(text.replace("*/", "* /").replace("/*", "/ *").replace("??", "? ?"), 3)
    return f"/* {lines[0]} */" if len(lines) == 1 else "/*\n" + "".join(f" * {line}\n" for line in lines) + " */"


def c_number(value: int) -> str:
    """Return an integer between -2^63 and 2^64 with the suffix that it needs."""
    if value < 0:
        return f"(-{-value}LL)" if value > -(1 << 63) else f"(-{(1 << 63) - 1}LL - 1)"
    return f"{value:#x}{'U' if value < 1 << 32 else 'ULL'}"


def c_macro(name: str, value: int) -> str:
    """Return the definition of a number; one wider than 64 bits is two."""
    if value >> 64 in (0, -1) and value >= -(1 << 63):
        return f"#define {name} {c_number(value)}"
    low, high = value & (1 << 64) - 1, value >> 64 & (1 << 64) - 1
    return f"#define {name}_LO {c_number(low)}\n#define {name}_HI {c_number(high)}"


def c_read(parts: Iterable[Piece]) -> str:
    """Return the expression that collects a field from the bytes at `p`."""
    return " |\n\t       ".join(_c_term(part) for part in parts)


def _c_term(part: Piece) -> str:
    byte = f"p[{part.at}]" if part.mask == 0xFF else f"(p[{part.at}] & {part.mask:#04x}U)"
    if not part.shift:
        return f"(uint64_t){byte}"
    return f"((uint64_t){byte} {'<<' if part.shift > 0 else '>>'} {abs(part.shift)})"


def c_write(parts: Iterable[Piece], value: str = "value") -> list[str]:
    """Return the statements that put a field into the bytes at `p`; other bits stay."""
    out = []
    for part in parts:
        moved = value if not part.shift else f"({value} {'>>' if part.shift > 0 else '<<'} {abs(part.shift)})"
        if part.mask == 0xFF:
            out.append(f"p[{part.at}] = (uint8_t){moved};")
        else:
            kept = 0xFF - part.mask
            out.append(f"p[{part.at}] = (uint8_t)((p[{part.at}] & {kept:#04x}U) | ({moved} & {part.mask:#04x}U));")
    return out


def c_signed(bits: int, text: str) -> str:
    """Return `text`, a number of some bits, as one in two's complement."""
    sign = 1 << bits - 1
    return f"(int64_t)((({text}) ^ {sign:#x}ULL) - {sign:#x}ULL)"


_C = {
    "comment": c_comment,
    "macro": c_macro,
    "number": c_number,
    "read": c_read,
    "write": c_write,
    "signed": c_signed,
}


_KEYWORDS = re.compile(
    "abstract|as|async|await|become|box|break|const|continue|crate|do|dyn|else|enum|extern|false|final|fn|"
    "for|gen|if|impl|in|let|loop|macro|match|mod|move|mut|override|priv|pub|ref|return|self|"
    "static|struct|super|trait|true|try|type|typeof|unsafe|unsized|use|virtual|where|while|yield"
)


# -- Rust -------------------------------------------------------------------------------------------------------------


def rust_doc(text: str, indent: int = 0, mark: str = "///") -> str:
    """Return a text as documentation; brackets and angles in it are no links and no tags."""
    lines = _lines(re.sub(r"([\[\]<>*_`\\])", r"\\\1", text), indent + 4)
    return "\n".join(f"{' ' * indent}{mark} {line}" for line in lines)


def rust_module(name: str) -> str:
    """Return a name as that of a module: no keyword."""
    text = ident(name)
    return f"{text}_" if _KEYWORDS.fullmatch(text) else text


def rust_type(bits: int, *, signed: bool = False) -> str:
    """Return the type of a field: 64 bits, or 128 where it needs them."""
    return f"{'i' if signed else 'u'}{64 if bits <= 64 else 128}"


def rust_number(value: int) -> str:
    """Return an integer literal, in hex where it is not negative."""
    return str(value) if value < 0 else f"{value:#x}"


def rust_constant(value: int) -> str:
    """Return the type that a number of no declared width has."""
    return ("i64" if value >= -(1 << 63) else "i128") if value < 0 else "u64" if value < 1 << 64 else "u128"


def rust_read(slot: Slot | None, parts: Iterable[Piece], kind: str) -> str:
    """Return the expression that collects a field from `bytes`."""
    out = []
    for part in parts:
        byte = f"bytes[{part.at}] as {kind}"
        byte = f"({byte})" if part.mask == 0xFF else f"((bytes[{part.at}] & {part.mask:#04x}) as {kind})"
        out.append(byte if not part.shift else f"({byte} {'<<' if part.shift > 0 else '>>'} {abs(part.shift)})")
    text = " | ".join(out)
    if slot is not None and slot.signed:
        up = (64 if slot.bits <= 64 else 128) - slot.bits
        return f"(({text}) << {up}) as i{kind[1:]} >> {up}"
    return text if len(out) > 1 else text.removeprefix("(").removesuffix(")") if out else text


def rust_write(parts: Iterable[Piece]) -> list[str]:
    """Return the statements that put a field into `bytes`; other bits stay."""
    out = []
    for part in parts:
        moved = "value" if not part.shift else f"(value {'>>' if part.shift > 0 else '<<'} {abs(part.shift)})"
        if part.mask == 0xFF:
            out.append(f"bytes[{part.at}] = {moved} as u8;")
        else:
            at, kept = f"bytes[{part.at}]", 0xFF - part.mask
            out.append(f"{at} = ({at} & {kept:#04x}) | (({moved} as u8) & {part.mask:#04x});")
    return out


_RUST = {
    "module": rust_module,
    "doc": rust_doc,
    "type_of": rust_type,
    "number": rust_number,
    "constant": rust_constant,
    "read": rust_read,
    "write": rust_write,
}
