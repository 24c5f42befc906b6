"""The expression language of the specification: total, over unbounded integers, with one parser.

`parse` reads it, `compile` and `evaluate` run it, `to_text` writes it, `names` and `paths` say what it reads.
The nodes are a closed set, so that printers for other languages can match on them.

Values are integers, truth values (0 and 1 in arithmetic), lists, and things with fields. ``//`` and ``%``
round towards minus infinity. Operators bind as in Python: ``or``, ``and``, ``not``, comparisons and ``in``,
``|``, ``&``, shifts, ``+ -``, ``* // %``, unary ``-``. Functions are min, max, sum, all, any and len;
``sum(EXPR for x in LIST)`` walks a list, and so do all and any.

Evaluation takes bounded time and memory whatever the expression is, as long as the environment holds ordinary
fields: integers below 2**`FIELD_BITS`.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast, overload

from hvabi.abi.errors import ExprError
from hvabi.abi.expr_codegen import FIELD_BITS, Want, generate
from hvabi.abi.expr_nodes import (
    COMPREHENSIONS,
    FUNCTIONS,
    KEYWORDS,
    PRECEDENCE,
    Attr,
    Binary,
    Bool,
    Call,
    Compare,
    Comprehension,
    Expr,
    In,
    Index,
    Int,
    ListLiteral,
    Name,
    Truth,
    Unary,
    children,
    depth,
    names,
    paths,
    precedence,
    to_text,
    walk,
)
from hvabi.abi.expr_parse import MAX_DEPTH, MAX_TEXT, parse
from hvabi.abi.expr_runtime import MAX_BITS, MAX_LIST, MAX_SHIFT, MAX_STEPS, Runtime

if TYPE_CHECKING:
    from types import CodeType

__all__ = [
    "COMPREHENSIONS",
    "FIELD_BITS",
    "FUNCTIONS",
    "KEYWORDS",
    "MAX_BITS",
    "MAX_DEPTH",
    "MAX_LIST",
    "MAX_SHIFT",
    "MAX_STEPS",
    "MAX_TEXT",
    "PRECEDENCE",
    "Attr",
    "Binary",
    "Bool",
    "Call",
    "Compare",
    "Compiled",
    "Comprehension",
    "Env",
    "Expr",
    "In",
    "Index",
    "Int",
    "ListLiteral",
    "Name",
    "Truth",
    "Unary",
    "Want",
    "children",
    "compile",
    "compiled",
    "depth",
    "evaluate",
    "names",
    "parse",
    "paths",
    "precedence",
    "to_text",
    "walk",
]


class Env(Protocol):
    """Where names come from: ``env[name]`` gives a value or raises `KeyError`.

    Values are integers, truth values, lists of values, and mappings or objects whose items or attributes are
    values. A name is looked up when it is reached, and each time that it is reached; ``and``, ``or``, ``all``
    and ``any`` stop as soon as the result is known. `KeyError`, `TypeError`, `ValueError` and
    `AttributeError` become an `ExprError`; other exceptions of the environment pass through unchanged.
    """

    def __getitem__(self, name: str, /) -> object: ...


Compiled = Callable[[Env], object]


@overload
def compile(expr: Expr, want: Literal["int"]) -> Callable[[Env], int]: ...
@overload
def compile(expr: Expr, want: Literal["bool"]) -> Callable[[Env], bool]: ...
@overload
def compile(expr: Expr, want: Want = "any") -> Compiled: ...
def compile(expr: Expr, want: Want = "any") -> Callable[[Env], Any]:
    """Return a function from an environment to the value of the expression.

    Args:
        expr: any tree, at most `MAX_DEPTH` levels high.
        want: ``int`` and ``bool`` convert between integers and truth values and refuse anything else; ``any``
            also returns a list or an object as the environment holds it.

    Raises:
        ExprError: at once, when the tree is too high or malformed; from the function, when evaluation fails.

    """
    if type(expr) is Int and want != "bool":
        literal = expr.value
        return lambda env: literal
    if depth(expr) > MAX_DEPTH:
        raise ExprError("expr-too-deep", f"the expression is more than {MAX_DEPTH} levels high")
    source, parts = generate(expr, want)
    code: CodeType = builtins.compile(source, "<hvabi expression>", "exec")
    scope = Runtime(expr, parts).globals()
    exec(code, scope)
    return cast("Compiled", scope["evaluate"])


# Hashing a tree takes longer than evaluating it, so the key is the object. The entry holds on to the tree, so
# that its id is not given to another one.
_compiled: dict[Want, dict[int, tuple[Expr, Compiled]]] = {"any": {}, "int": {}, "bool": {}}
_MOST_COMPILED = 4096


@overload
def compiled(expr: Expr, want: Literal["int"]) -> Callable[[Env], int]: ...
@overload
def compiled(expr: Expr, want: Literal["bool"]) -> Callable[[Env], bool]: ...
@overload
def compiled(expr: Expr, want: Want = "any") -> Compiled: ...
def compiled(expr: Expr, want: Want = "any") -> Callable[[Env], Any]:
    """Return what `compile` gives, made at the first use of the expression."""
    known = _compiled[want]
    found = known.get(id(expr))
    if found is None:
        if len(known) >= _MOST_COMPILED:
            known.clear()
        found = known[id(expr)] = expr, compile(expr, want)
    return found[1]


@overload
def evaluate(expr: Expr, env: Env, want: Literal["int"]) -> int: ...
@overload
def evaluate(expr: Expr, env: Env, want: Literal["bool"]) -> bool: ...
@overload
def evaluate(expr: Expr, env: Env, want: Want = "any") -> object: ...
def evaluate(expr: Expr, env: Env, want: Want = "any") -> object:
    """Return the value of an expression, which is compiled at its first use; see `compile`."""
    return compiled(expr, want)(env)
