"""The one parser of the expression language: text to tree, by precedence climbing.

It accepts nothing but the language: what looks like Python or C gets an error that says what to write.
Text, nesting and the tree's height are bounded, so that reading hostile text takes bounded time and stack.
"""

from __future__ import annotations

import re
from typing import NamedTuple, cast

from hvabi.abi.errors import ExprError
from hvabi.abi.expr_nodes import (
    COMPARE,
    COMPREHENSIONS,
    FUNCTIONS,
    IDENTIFIER,
    KEYWORDS,
    NEGATE,
    NOT,
    OR,
    PRECEDENCE,
    Attr,
    Binary,
    BinaryOp,
    Bool,
    BoolOp,
    Call,
    Compare,
    CompareOp,
    Comprehension,
    Expr,
    Function,
    In,
    Index,
    Int,
    ListLiteral,
    Name,
    Truth,
    Unary,
    depth,
)

MAX_TEXT = 4096
"""Longest expression, in characters."""
MAX_DEPTH = 64
"""Most levels of nesting in the text and in the tree; each operator of a chain ``a + b + c`` adds one."""

_TOKEN = re.compile(
    r"(?P<space>[ \t\r\n]+)"
    r"|(?P<number>[0-9][0-9A-Za-z_]*)"
    rf"|(?P<name>{IDENTIFIER.pattern})"
    r"|(?P<op><<|>>|==|!=|<=|>=|//|\*\*|&&|\|\||[-+*%&|<>()\[\],.=/~^!?:;@\"'`$#{}\\])"
)
_NUMBER = re.compile(
    r"(?:0[xX](?P<hex>_?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*)|0[bB](?P<bin>_?[01]+(?:_[01]+)*)"
    r"|(?P<dec>0|[1-9][0-9]*(?:_[0-9]+)*))"
)

_INSTEAD = {
    "/": "write // for division that rounds down",
    "**": "write 1 << n for a power of two",
    "^": "there is no exclusive or",
    "~": "write a mask with the bits that you want",
    "&&": "write and",
    "||": "write or",
    "!": "write not",
    "=": "write == to compare",
    "?": "there is no conditional expression; combine comparisons with and, or, *",
    '"': "there is no text in expressions; compare with a name such as status.SUCCESS",
    "'": "there is no text in expressions; compare with a name such as status.SUCCESS",
    ":": "there are no slices; write list[index]",
    "{": "a list is written [a, b]",
}
_WORDS = {"True": "write true", "False": "write false", "None": "there is no null value"}
_OPERATORS = "operators are or, and, not, ==, !=, <, <=, >, >=, in, |, &, <<, >>, +, -, *, //, %"


_CALLS = f"functions are {', '.join(FUNCTIONS)}"


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


def parse(text: str, *, column0: int = 0) -> Expr:
    """Return the tree of an expression.

    Args:
        text: the expression, at most `MAX_TEXT` characters.
        column0: 0-based column of the text in its line; columns of errors and nodes count from there.

    Raises:
        ExprError: ``expr-syntax`` with the 1-based column, ``expr-too-large`` or ``expr-too-deep``.

    """
    if len(text) > MAX_TEXT:
        raise ExprError(
            "expr-too-large",
            f"the expression has {len(text)} characters, the limit is {MAX_TEXT}",
            column=column0 + 1,
        )
    if not text.strip():
        raise ExprError("expr-syntax", "the expression is empty", column=column0 + 1)
    parser = _Parser(text, column0)
    expr = parser.expression(OR)
    parser.end()
    if (height := depth(expr)) > MAX_DEPTH:
        raise ExprError(
            "expr-too-deep",
            f"the expression is {height} levels high, the limit is {MAX_DEPTH}",
            column=column0 + 1,
            hint="use sum, all, any or `in` with a list, or split it",
        )
    return expr


class _Parser:
    def __init__(self, text: str, column0: int) -> None:
        self._column1 = column0 + 1
        self._tokens = self._scan(text)
        self._at = 0
        self._nesting = 0

    def _scan(self, text: str) -> list[_Token]:
        tokens = []
        at = 0
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise self._fail(f"character {text[at]!a} has no place in an expression", at, at + 1)
            kind = match.lastgroup or ""
            if kind != "space":
                tokens.append(_Token(kind, match[0], at))
            at = match.end()
        tokens.append(_Token("end", "", len(text.rstrip())))
        return tokens

    def _fail(self, reason: str, start: int, end: int, hint: str | None = None) -> ExprError:
        column = self._column1 + start
        return ExprError("expr-syntax", reason, column=column, end_column=self._column1 + end, hint=hint)

    def _fail_at(self, token: _Token, reason: str, hint: str | None = None) -> ExprError:
        return self._fail(reason, token.start, token.start + max(len(token.text), 1), hint)

    def _unexpected(self, token: _Token, wanted: str) -> ExprError:
        hint = _INSTEAD.get(token.text) if token.kind == "op" else _WORDS.get(token.text)
        found = "the end of the expression" if token.kind == "end" else f"`{token.text[:40]}`"
        return self._fail_at(token, f"expected {wanted}, found {found}", hint)

    @property
    def _token(self) -> _Token:
        return self._tokens[self._at]

    def _take(self, text: str) -> bool:
        """Step over the token if it is this operator or keyword."""
        token = self._token
        if token.text == text and token.kind in {"op", "name"}:
            self._at += 1
            return True
        return False

    def _not_in(self) -> bool:
        return self._token.text == "not" and self._tokens[self._at + 1].text == "in"

    def _need(self, text: str, wanted: str) -> None:
        if not self._take(text):
            raise self._unexpected(self._token, wanted)

    def _enter(self, token: _Token) -> None:
        self._nesting += 1
        if self._nesting > MAX_DEPTH:
            raise ExprError(
                "expr-too-deep",
                f"more than {MAX_DEPTH} levels of nesting",
                column=self._column1 + token.start,
            )

    def end(self) -> None:
        token = self._token
        if token.kind != "end":
            if token.text in _INSTEAD or token.text in _WORDS:
                raise self._unexpected(token, "an operator or the end")
            raise self._unexpected_tail(token)

    def _unexpected_tail(self, token: _Token) -> ExprError:
        hint = "there is nothing to close" if token.text in ")]" else _OPERATORS
        if token.text == "for":
            hint = "`for` stands only inside sum(…), all(…) or any(…)"
        return self._fail_at(token, f"expected an operator or the end, found `{token.text[:40]}`", hint)

    def expression(self, least: int) -> Expr:
        """Parse operators that bind at least as strongly as `least`."""
        left = self._operand(least)
        while True:
            token = self._token
            negated = self._not_in()
            op = "in" if negated else token.text
            strength = PRECEDENCE.get(op, 0) if token.kind in {"op", "name"} else 0
            if strength < max(least, 1):
                return left
            self._at += 2 if negated else 1
            right = self.expression(strength + 1)
            column = left.column
            if op in {"or", "and"}:
                left = Bool(cast("BoolOp", op), left, right, column=column)
            elif strength == COMPARE:
                left = self._comparison(op, left, right)
                if negated:
                    left = Unary("not", left, column=column)
            else:
                left = Binary(cast("BinaryOp", op), left, right, column=column)

    def _comparison(self, op: str, left: Expr, right: Expr) -> Expr:
        token = self._token
        if token.kind != "end" and (PRECEDENCE.get(token.text) == COMPARE or self._not_in()):
            raise self._fail_at(token, "comparisons do not chain", "write a < b and b < c")
        if op == "in":
            return In(left, right, column=left.column)
        return Compare(cast("CompareOp", op), left, right, column=left.column)

    def _operand(self, least: int) -> Expr:
        token = self._token
        column = self._column1 + token.start
        if self._take("not"):
            if least > NOT:
                raise self._fail_at(token, "`not` needs parentheses here", "write (not x)")
            self._enter(token)
            operand = self.expression(NOT)
            self._nesting -= 1
            return Unary("not", operand, column=column)
        if self._take("-"):
            self._enter(token)
            operand = self.expression(NEGATE)
            self._nesting -= 1
            return Unary("-", operand, column=column)
        return self._postfix(self._primary())

    def _postfix(self, expr: Expr) -> Expr:
        while True:
            token = self._token
            if self._take("."):
                name = self._token
                if name.kind != "name" or name.text in KEYWORDS:
                    raise self._unexpected(name, "a field name after `.`")
                self._at += 1
                expr = Attr(expr, name.text, column=expr.column)
            elif self._take("["):
                self._enter(token)
                index = self.expression(OR)
                self._need("]", "`]`")
                self._nesting -= 1
                expr = Index(expr, index, column=expr.column)
            elif token.text == "(" and token.kind == "op":
                raise self._fail_at(token, "only functions are called", _CALLS)
            else:
                return expr

    def _primary(self) -> Expr:
        token = self._token
        column = self._column1 + token.start
        if token.kind == "number":
            self._at += 1
            return self._number(token, column)
        if token.kind == "name" and token.text not in KEYWORDS:
            self._at += 1
            if self._token.text == "(":
                return self._call(token, column)
            return Name(token.text, column=column)
        if self._take("true"):
            return Truth(True, column=column)
        if self._take("false"):
            return Truth(False, column=column)
        if self._take("("):
            self._enter(token)
            inner = self.expression(OR)
            self._need(")", "`)` or an operator")
            self._nesting -= 1
            return inner
        if self._take("["):
            self._enter(token)
            items = self._items("]")
            self._nesting -= 1
            return ListLiteral(tuple(items), column=column)
        raise self._unexpected(token, "a number, a name, a list or `(`")

    def _items(self, closing: str) -> list[Expr]:
        items: list[Expr] = []
        while not self._take(closing):
            items.append(self.expression(OR))
            if not self._take(","):
                self._need(closing, f"`,` or `{closing}`")
                break
        return items

    def _number(self, token: _Token, column: int) -> Int:
        match = _NUMBER.fullmatch(token.text)
        following = self._token
        if following.text == "." and following.start == token.start + len(token.text):
            raise self._fail_at(token, "there are no fractions", "write integers and // for division")
        if match is None:
            leading = token.text[:1] == "0" and token.text.isdigit()
            hint = "write it without leading zeros" if leading else "numbers are 4096, 0x1000, 0b1000 or 1_000"
            raise self._fail_at(token, f"`{token.text[:40]}` is not a number", hint)
        if match["hex"]:
            return Int(int(match["hex"].replace("_", ""), 16), 16, column=column)
        if match["bin"]:
            return Int(int(match["bin"].replace("_", ""), 2), 2, column=column)
        return Int(int(match["dec"].replace("_", "")), column=column)

    def _call(self, token: _Token, column: int) -> Expr:
        if token.text not in FUNCTIONS:
            raise self._fail_at(
                token, f"`{token.text[:40]}` is not a function", f"functions are {', '.join(FUNCTIONS)}"
            )
        function: Function = token.text
        self._need("(", "`(`")
        self._enter(token)
        args: list[Expr] = []
        if not self._take(")"):
            first = self.expression(OR)
            if self._token.text == "for":
                return self._comprehension(function, first, column)
            args.append(first)
            if self._take(","):
                args += self._items(")")
            else:
                self._need(")", "`,` or `)`")
        self._nesting -= 1
        least = "one list, or two integers or more" if function in {"min", "max"} else "one list"
        if not args or (len(args) > 1 and function not in {"min", "max"}):
            raise self._fail_at(token, f"{function} takes {least}, {len(args)} values are given")
        return Call(function, tuple(args), column=column)

    def _comprehension(self, function: Function, body: Expr, column: int) -> Expr:
        token = self._token
        if function not in COMPREHENSIONS:
            allowed = ", ".join(COMPREHENSIONS)
            raise self._fail_at(token, f"{function} takes no `for`", f"`for` stands only in {allowed}")
        self._need("for", "`for`")
        variable = self._token
        if variable.kind != "name" or variable.text in KEYWORDS:
            raise self._unexpected(variable, "a name after `for`")
        self._at += 1
        self._need("in", "`in`")
        source = self.expression(OR)
        self._need(")", "`)`")
        self._nesting -= 1
        return Comprehension(function, body, variable.text, source, column=column)
