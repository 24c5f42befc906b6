"""What every command shares: output, colour, width, progress, and how errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

GOOD, FOUND, USAGE, INTERNAL, SKIPPED = 0, 1, 2, 3, 4
INTERRUPTED, CLOSED = 130, 141

_HINTS = {
    "value-too-large": "give a number in that range; hvabi show ABI messages has every width",
    "wrong-type": "hvabi show ABI messages has every field",
    "missing-field": "hvabi show ABI messages has every field",
    "truncated": "give all bytes of the message; hvabi show ABI has the layout",
    "oversized": "give the bytes of the message only; hvabi show ABI has the layout",
}
"""What to do about an error that does not say so itself, by its code."""

_SCREEN = 20
"""Most lines of an error message."""


def escape(text: str) -> str:
    """Return foreign text with everything escaped that could steer a terminal; line breaks stay."""
    if text.isascii() and text.isprintable():
        return text
    from hvabi.abi.diagnostics import escape as escape_line

    return "\n".join(map(escape_line, text.split("\n")))


def colored(stream: Any = None) -> bool:
    """Whether a stream, by default standard output, is a terminal that shall be written in colour."""
    stream = stream or sys.stdout
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and is_terminal(stream)


def is_terminal(stream: Any) -> bool:
    """Whether a stream is a terminal."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):
        return False


def paint(text: str, **style: Any) -> str:
    """Return text in colour where standard output takes colour."""
    return click.style(text, **style) if colored() else text


def width() -> int:
    """Return the columns that output may use, between 40 and 120."""
    try:
        columns = int(os.environ.get("COLUMNS", "0"))
        if columns <= 0:
            # Not by shutil, which takes longer to import than most output to write.
            columns = os.get_terminal_size(sys.__stdout__.fileno()).columns  # type: ignore[union-attr]  # caught
    except (AttributeError, OSError, ValueError):
        columns = 0
    return min(max(columns or 100, 40), 120)


def say(text: str = "") -> None:
    """Write a line to standard output."""
    click.echo(text, color=True)


def note(text: str) -> None:
    """Write a line about the work itself to standard error."""
    click.echo(escape(text), err=True)


def dump(value: object) -> None:
    """Write a value as JSON: two spaces, keys in the order in which they were made."""
    import json

    click.echo(json.dumps(value, indent=2))


def fail(message: str, hint: str | None = None, *, kind: str = "error") -> None:
    """Write an error and what to do next to standard error, one screen at most."""
    lines = escape(message).split("\n")
    if len(lines) > _SCREEN:
        lines = [*lines[:_SCREEN], f"… and {len(lines) - _SCREEN} more lines"]
    bold = colored(sys.stderr)
    head = click.style(f"{kind}:", fg="red", bold=True) if bold else f"{kind}:"
    click.echo(f"{head} {_clip(lines[0])}", err=True, color=True)
    for line in lines[1:]:
        click.echo(_clip(line), err=True)
    if hint:
        click.echo(
            f"{click.style('hint:', bold=True) if bold else 'hint:'} {_clip(escape(hint))}", err=True, color=True
        )


def _clip(text: str, most: int = 600) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"


def prepare_streams() -> None:
    """Let output never fail for a character that the terminal cannot show, nor for a stream that is closed."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w", encoding="utf-8"))  # noqa: SIM115, PTH123  # for the life of the process
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            with contextlib.suppress(ValueError, OSError):
                stream.reconfigure(errors="backslashreplace")


def guarded(action: Callable[[], Any]) -> int:
    """Run a command and return its exit code; every error becomes a message on standard error."""
    from hvabi.abi.errors import HvAbiError, SpecError

    try:
        code = action()
        sys.stdout.flush()
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.ClickException as error:
        usage = isinstance(error, click.UsageError) and error.ctx is not None
        hint = f"see {error.ctx.command_path} --help" if usage else None  # type: ignore[attr-defined]  # tested above
        fail(error.format_message().rstrip("."), hint)
        return USAGE
    except SpecError as error:
        fail(str(error), "hvabi lint shows all of it", kind="specification cannot be read")
        return USAGE
    except HvAbiError as error:
        fail(error.message, error.hint or _HINTS.get(error.code))
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        # An interrupt inside exec() of a text, which making a class does, marks the process: Python may then end it by
        # the signal, whoever caught the exception and whatever the exit code. The next exec() takes the mark away.
        exec("")
        return INTERRUPTED
    except BrokenPipeError:
        _silence()
        return CLOSED
    except OSError as error:
        fail(f"{error.filename or 'output'}: {error.strerror or error}")
        if error.filename is None:
            _silence()
        return USAGE
    except Exception as error:  # the last line of defence: a person sees a sentence, never a traceback
        return _internal(error)
    return code if isinstance(code, int) else GOOD


def _internal(error: Exception) -> int:
    if os.environ.get("HVABI_TRACEBACK"):
        import traceback

        traceback.print_exception(error)
        return INTERNAL
    text = str(error).split("\n", 1)[0]
    fail(
        f"internal error: {type(error).__name__}: {_clip(text, 200)}; this is a mistake of hvabi",
        "run again with HVABI_TRACEBACK=1 and report what it prints",
        kind="hvabi",
    )
    return INTERNAL


def _silence() -> None:
    """Point standard output nowhere, so that the interpreter's last flush does not complain."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class Progress:
    """One line on standard error that says what is going on: on a terminal only, and after half a second only."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._begun = time.monotonic()
        self._last = 0.0
        self._shown = False
        self._on = is_terminal(sys.stderr)

    def __call__(self, step: object) -> None:
        """Show a step, at most ten times a second."""
        now = time.monotonic()
        if not self._on or now - self._begun < 0.5 or now - self._last < 0.1:
            return
        self._last, self._shown = now, True
        text = escape(f"{self._what}: {step}")[: width() - 1]
        click.echo(f"\r{text:<{width() - 1}}", err=True, nl=False)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            click.echo("\r" + " " * (width() - 1) + "\r", err=True, nl=False)
