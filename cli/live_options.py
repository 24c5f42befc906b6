"""The options that the commands of ``hvabi live`` share: which kernel is booted, and what is kept of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    Decorator = Callable[[Any], Any]

F = TypeVar("F")


def kernel_options(by_default: str, *, suite: str | None = None, listing: bool = True) -> Callable[[F], F]:
    """Return a decorator with the options that name a kernel: ``kernel``, ``unpacked``, ``suite`` and ``listing``."""
    where = "A suite of Debian other than this machine's own." if suite is None else "The suite of Debian that has it."
    offered = click.option("--list", "listing", is_flag=True, help="List the kernels that apt offers.")
    return _all_of(
        click.option("--kernel", metavar="PACKAGE", help=f"The kernel package to boot; by default {by_default}."),
        click.option("--unpacked", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path),
                     help="A folder with boot/vmlinuz-* and lib/modules, instead of a package."),
        click.option("--suite", metavar="SUITE", help=where, default=suite, show_default=suite is not None),
        *((offered,) if listing else ()),
    )  # fmt: skip


def cache_option(kept: str = "downloads") -> Callable[[F], F]:
    """Return a decorator with the option ``cache``."""
    path = click.Path(file_okay=False, path_type=Path)
    return _all_of(click.option("--cache", type=path, help=f"Where {kept} are kept."))


def observation_options() -> Callable[[F], F]:
    """Return a decorator with ``observe`` and ``compare``."""
    return _all_of(
        click.option("--observe", metavar="FILE", type=click.Path(dir_okay=False, path_type=Path),
                     help="Write what was answered."),
        click.option("--compare", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path),
                     help="Compare what was answered with what was observed earlier."),
    )  # fmt: skip


def _all_of(*decorators: Decorator) -> Callable[[F], F]:
    """Return one decorator for several; the first of them comes first in the help."""

    def decorate(function: F) -> F:
        for one in reversed(decorators):
            function = one(function)
        return function

    return decorate


__all__ = ["cache_option", "kernel_options", "observation_options"]
