"""A command line run in this process: its exit code and what it wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import pytest
from click.testing import CliRunner

from hvabi.cli.main import cli

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


class Run(Protocol):
    def __call__(self, *args: str, given: bytes | str | None = None, columns: int = 100) -> Ran: ...


@pytest.fixture(name="hv")
def _hv() -> Callable[..., Ran]:
    def run(*args: str, given: bytes | str | None = None, columns: int = 100) -> Ran:
        result = CliRunner(env={"COLUMNS": str(columns), "HVABI_TRACEBACK": None}).invoke(
            cli, args, input=given, prog_name="hvabi"
        )
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run
