"""The expression language against Python's own evaluator, and against junk."""

from __future__ import annotations

import ast
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hvabi.abi.errors import ExprError
from hvabi.abi.expr import (
    FUNCTIONS,
    MAX_DEPTH,
    MAX_SHIFT,
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
    depth,
    evaluate,
    names,
    parse,
    paths,
    to_text,
)
from hvabi.abi.expr_readable import readable

ARITHMETIC = ("+", "-", "*", "//", "%", "&", "|", "<<", ">>")
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=")
ENV: dict[str, Any] = {"a": 3, "b": -7, "c": 0, "d": 1 << 64, "l": [1, 2, -3], "e": []}


# Text is made without looking at the grammar: operators in a row, parentheses where chance puts them. So the
# precedence and associativity of our parser are compared with those of Python's.
@st.composite
def arithmetic_text(draw: st.DrawFn, depth: int = 2) -> str:
    out = []
    for number in range(draw(st.integers(1, 4))):
        if number:
            out.append(draw(st.sampled_from(ARITHMETIC)))
        sign = draw(st.sampled_from(["", "", "", "-", "--"]))
        if depth and draw(st.integers(0, 3)) == 0:
            operand = f"({draw(arithmetic_text(depth - 1))})"
        else:
            operand = draw(
                st.sampled_from(
                    [
                        "a",
                        "b",
                        "c",
                        "d",
                        "0",
                        "1",
                        "7",
                        "0xff",
                        "0b11",
                        "1_000",
                        "l[0]",
                        "[5, 6][1]",
                        "len(l)",
                        "sum(l)",
                        "min(a, b)",
                        "max(l)",
                        "sum(x * a for x in l)",
                        "(a == 3)",
                    ]
                )
            )
        out.append(sign + operand)
    return " ".join(out)


@st.composite
def logic_text(draw: st.DrawFn, depth: int = 2) -> str:
    out = []
    for number in range(draw(st.integers(1, 3))):
        if number:
            out.append(draw(st.sampled_from(["and", "or"])))
        negation = draw(st.sampled_from(["", "", "not ", "not not "]))
        kind = draw(st.integers(0, 5))
        if depth and kind == 0:
            operand = f"({draw(logic_text(depth - 1))})"
        elif kind == 1:
            operand = f"{draw(arithmetic_text(1))} {draw(st.sampled_from(['in', 'not in']))} l"
        elif kind == 2:
            operand = draw(st.sampled_from(["all(l)", "any(e)", "all(x > 0 for x in l)", "any(x < 0 for x in l)"]))
        else:
            operand = f"{draw(arithmetic_text(1))} {draw(st.sampled_from(COMPARISONS))} {draw(arithmetic_text(1))}"
        out.append(negation + operand)
    return " ".join(out)


def shift_left(value: int, count: int) -> int:
    if not 0 <= count <= MAX_SHIFT:
        raise ValueError("shift")
    return value << count


def shift_right(value: int, count: int) -> int:
    if not 0 <= count <= MAX_SHIFT:
        raise ValueError("shift")
    return value >> count


class _BoundShifts(ast.NodeTransformer):
    """Python's shifts are not bounded; everything else is Python's."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        name = {ast.LShift: "shift_left", ast.RShift: "shift_right"}.get(type(node.op))
        return ast.Call(ast.Name(name, ast.Load()), [node.left, node.right], []) if name else node


def python(text: str) -> Any:
    tree = ast.fix_missing_locations(_BoundShifts().visit(ast.parse(text, mode="eval")))
    scope = {**ENV, "shift_left": shift_left, "shift_right": shift_right}
    return eval(compile(tree, "<reference>", "eval"), scope)  # the reference of this test


def agree(text: str) -> None:
    expected: Any
    try:
        expected = python(text)
    except ZeroDivisionError:
        expected = "expr-division-by-zero"
    except ValueError:
        expected = "expr-shift"
    try:
        found: Any = evaluate(parse(text), ENV)
    except ExprError as error:
        if error.code == "expr-too-large":
            return
        found = error.code
    assert found == expected
    assert to_text(parse(to_text(parse(text)))) == to_text(parse(text))


@settings(max_examples=400, deadline=None)
@given(arithmetic_text())
def test_arithmetic_agrees_with_python(text: str) -> None:
    agree(text)


@settings(max_examples=400, deadline=None)
@given(logic_text())
def test_logic_agrees_with_python(text: str) -> None:
    agree(text)


NAMES = st.sampled_from(["a", "b", "l", "entry", "x", "min", "missing"])


def trees() -> st.SearchStrategy[Expr]:
    leaves = st.one_of(
        st.builds(Int, st.integers(0, 1 << 130), st.sampled_from([2, 10, 16])),
        st.builds(Truth, st.booleans()),
        st.builds(Name, NAMES),
    )

    def grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
        several = st.lists(inner, max_size=3).map(tuple)
        one = inner.map(lambda item: (item,))
        return st.one_of(
            st.builds(Attr, inner, NAMES),
            st.builds(Index, inner, inner),
            st.builds(ListLiteral, several),
            st.builds(Unary, st.sampled_from(["-", "not"]), inner),
            st.builds(Binary, st.sampled_from(ARITHMETIC), inner, inner),
            st.builds(Compare, st.sampled_from(COMPARISONS), inner, inner),
            st.builds(Bool, st.sampled_from(["and", "or"]), inner, inner),
            st.builds(In, inner, inner),
            st.builds(Call, st.sampled_from(FUNCTIONS), one),
            st.builds(Call, st.sampled_from(["min", "max"]), st.lists(inner, min_size=2, max_size=3).map(tuple)),
            st.builds(Comprehension, st.sampled_from(["sum", "all", "any"]), inner, NAMES, inner),
        )

    return st.recursive(leaves, grow, max_leaves=20)


@settings(max_examples=500, deadline=None)
@given(trees())
def test_every_tree_prints_and_reads_back(tree: Expr) -> None:
    assert depth(tree) <= MAX_DEPTH
    text = to_text(tree)
    again = parse(text)
    assert again == tree
    assert hash(again) == hash(tree)
    assert to_text(again) == text
    assert parse(readable(tree)) == tree


@settings(max_examples=500, deadline=None)
@given(
    trees(),
    st.fixed_dictionaries(
        {
            name: st.one_of(
                st.integers(-10, 1 << 65),
                st.booleans(),
                st.lists(st.integers(0, 9)),
                st.none(),
                st.text(max_size=3),
                st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9)),
            )
            for name in ("a", "b", "l", "entry", "x", "min")
        }
    ),
)
def test_evaluation_gives_a_value_or_an_expr_error(tree: Expr, env: dict[str, Any]) -> None:
    asked = []

    class Recorder:
        def __getitem__(self, name: str) -> object:
            asked.append(name)
            return env[name]

    blamed = "nothing"
    try:
        evaluate(tree, Recorder())
    except ExprError as error:
        blamed = error.subexpr
    assert blamed
    assert set(asked) <= names(tree)
    assert {path.split(".")[0].split("[")[0] for path in paths(tree)} == names(tree)


TOKENS = [
    "a",
    "b",
    "l",
    "0",
    "1",
    "0x1f",
    "(",
    ")",
    "[",
    "]",
    ",",
    ".",
    "-",
    "not",
    "in",
    "for",
    "x",
    "sum",
    "min",
    "and",
    "or",
    "+",
    "*",
    "//",
    "<<",
    "<",
    "==",
    "&",
    "true",
    "é",
    "'",
    " ",
    "\n",
    "1.5",
    "**",
    ":",
    "\x00",
]


@settings(max_examples=500, deadline=None)
@given(st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join) | st.text(max_size=40))
def test_junk_is_refused_with_a_column_inside_it(text: str) -> None:
    column: int | None = 1
    try:
        tree = parse(text)
        assert parse(to_text(tree)) == tree
    except ExprError as error:
        column = error.column
    assert column is not None
    assert 1 <= column <= len(text) + 1
