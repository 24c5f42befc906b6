"""Errors say what, where and what to do, and survive pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from hvabi.abi.diagnostics import Diagnostic
from hvabi.abi.errors import CodecError, ExprError, HvAbiError, SpecError, UsageError, show

DIAGNOSTIC = Diagnostic(id="bits-overlap", path="a.yaml", line=3, column=7, message="bits overlap", hint="move one")

ERRORS: dict[str, tuple[HvAbiError, str, str]] = {
    "base": (HvAbiError("it broke", hint="mend it", part=3), "hvabi", "it broke (mend it)"),
    "base-with-code": (HvAbiError("it broke", code="broken"), "broken", "it broke"),
    "spec": (
        SpecError([DIAGNOSTIC]),
        "spec",
        "a.yaml:3:7: error[bits-overlap]: bits overlap\nhint: move one",
    ),
    "spec-without-diagnostics": (SpecError([]), "spec", "0 errors in 0 files"),
    "codec": (
        CodecError(
            "value-too-large",
            "the value does not fit",
            message_name="ghcb-psc/request",
            path="entries[3].operation",
            bit_range=(55, 52),
            byte_offset=32,
            expected="at most 15",
            found=16,
        ),
        "value-too-large",
        "ghcb-psc/request: entries[3].operation (bits 55:52, byte 32): the value does not fit: "
        "expected at most 15, found 16",
    ),
    "codec-one-bit": (
        CodecError("reserved-bits", "must be zero", path="flags", bit_range=(7, 7), found=1),
        "reserved-bits",
        "flags (bit 7): must be zero: found 1",
    ),
    "codec-without-place": (CodecError("bad-hex", "not hex", found="xyz"), "bad-hex", "not hex: found 'xyz'"),
    "usage": (
        UsageError.unknown("abi", "tdx-map-gap", ["tdx-map-gpa", "ghcb-psc"]),
        "unknown-abi",
        "unknown abi 'tdx-map-gap' (did you mean tdx-map-gpa?)",
    ),
    "usage-nothing-near": (
        UsageError.unknown("transport", "zzz", ["tdcall", "block"]),
        "unknown-transport",
        "unknown transport 'zzz' (known: block, tdcall)",
    ),
    "usage-none-known": (
        UsageError.unknown("revision", "1", []),
        "unknown-revision",
        "unknown revision '1' (no revision is known here)",
    ),
    "expr-syntax": (
        ExprError("expr-syntax", "comparisons do not chain", column=5, hint="use and"),
        "expr-syntax",
        "column 5: comparisons do not chain (use and)",
    ),
    "expr-eval": (
        ExprError("expr-division-by-zero", "division by zero", subexpr="a // b"),
        "expr-division-by-zero",
        "`a // b`: division by zero",
    ),
}


@pytest.mark.parametrize(("error", "code", "text"), ERRORS.values(), ids=ERRORS.keys())
def test_error_has_a_code_and_a_text(error: HvAbiError, code: str, text: str) -> None:
    assert error.code == code
    assert str(error) == text


@pytest.mark.parametrize("error", [case[0] for case in ERRORS.values()], ids=ERRORS.keys())
@pytest.mark.parametrize("how", ["pickle", "copy"])
def test_error_survives(error: HvAbiError, how: str) -> None:
    error.add_note("seen by the worker")
    again = pickle.loads(pickle.dumps(error)) if how == "pickle" else copy.copy(error)
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__
    assert again.args == error.args
    assert dict(again.fields) == dict(error.fields)


def test_code_of_one_error_is_not_that_of_its_class() -> None:
    UsageError("x", code="special")
    assert UsageError.code == "usage"


def test_fields_are_facts_and_read_only() -> None:
    error = CodecError("truncated", "too short", path="gpa", byte_offset=8, expected=16, found=8)
    assert error.fields["byte_offset"] == 8
    with pytest.raises(TypeError):
        error.fields["byte_offset"] = 9  # type: ignore[index]  # the point of the test


def test_spec_error_counts_errors_not_warnings() -> None:
    warning = Diagnostic(id="odd", path="b.yaml", message="odd", severity="warning")
    error = SpecError([DIAGNOSTIC, warning])
    assert error.message == "1 error in 2 files"
    assert error.fields["ids"] == ("bits-overlap", "odd")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        pytest.param(12, "12", id="small"),
        pytest.param(-5, "-5", id="negative"),
        pytest.param(1 << 16, "0x10000", id="large-in-hex"),
        pytest.param(1 << 100_000, "an integer of 100001 bits", id="huge"),
        pytest.param([1 << 100_000], "a list", id="huge-in-list"),
        pytest.param("a\x1b[31m", r"'a\x1b[31m'", id="terminal-control"),
        pytest.param("é", r"'\xe9'", id="not-ascii"),
        pytest.param(None, "None", id="none"),
    ],
)
def test_show_is_short_and_printable(value: object, shown: str) -> None:
    assert show(value) == shown


@pytest.mark.parametrize("value", ["x" * 10**6, b"x" * 10**6, list(range(10**6))], ids=["text", "bytes", "list"])
def test_show_of_long_input_is_short(value: object) -> None:
    assert len(show(value)) <= 125
