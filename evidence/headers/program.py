"""The C program that says about a header what the specifications say."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.evidence.headers.claims import Claim
    from hvabi.evidence.headers.roots import Header


def assertions(header: Header, claims: Sequence[Claim]) -> str:
    """Return a program of static assertions; each stands, for the compiler, at its line of the specification file."""
    lines = [f'#include "{path}"' for path in header.includes]
    for claim in claims:
        if claim.kind == "bits":
            continue  # no constant expression: the object that `values` makes is looked at
        lines.append(f'#line {claim.line} "{_quoted(claim.path)}"')
        lines.append(f'_Static_assert({_condition(claim)}, "{claim.symbol}");')
    return "\n".join(lines) + "\n"


def values(header: Header, claims: Sequence[Claim]) -> str:
    """Return a program whose objects have the values that the header gives, one per claim, in order."""
    lines = [f'#include "{path}"' for path in header.includes]
    for number, claim in enumerate(claims):
        if claim.kind == "bits":
            lines.append(f"const {claim.owner} hvabi_{number} = {{.{claim.symbol} = ~0ULL}};")
        else:
            lines.append(f"const unsigned long long hvabi_{number} = {_found(claim)};")
    return "\n".join(lines) + "\n"


def _condition(claim: Claim) -> str:
    if claim.kind == "member":
        size = f"sizeof((({claim.owner} *)0)->{claim.symbol}) == {claim.value}"
        return f"__builtin_offsetof({claim.owner}, {claim.symbol}) == {claim.offset} && {size}"
    return f"{_found(claim)} {'>=' if claim.partial else '=='} {claim.value:#x}ULL"


def _found(claim: Claim) -> str:
    """Return the expression for what the header has: a number, a size, or the offset of a member."""
    if claim.kind == "size":
        return f"(unsigned long long)sizeof({claim.symbol})"
    if claim.kind == "member":
        return f"(unsigned long long)__builtin_offsetof({claim.owner}, {claim.symbol})"
    whole = f"(unsigned long long)({claim.symbol})"
    return whole if claim.bits >= 64 else f"({whole} & {(1 << claim.bits) - 1:#x}ULL)"


def _quoted(path: str) -> str:
    return path.replace("\\", "\\\\").replace('"', '\\"')
