"""The command ``hvabi``: which commands there are, and how every one of them ends.

Exit codes: 0 good, 1 found something, 2 used wrongly or nothing matched, 3 internal error, 4 skipped and why; 130 after
Ctrl-C, 141 where the reader of the output went away. A command is imported when it is run.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import sys
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = {
    "list": "The ABIs, their revisions and transports; --json has every name.",
    "show": "Everything about one ABI: calls, fields, rules, answers.",
    "explain": "What a rule, status, constant, field or diagnostic means.",
    "encode": "Field values to registers and bytes.",
    "decode": "Registers or bytes to fields, bit by bit, and every other legal reading.",
    "translate": "The request of one ABI said in another, and what is lost.",
    "compare": "The same questions asked of every ABI.",
    "replay": "A boot log: conversions found, tracked, checked.",
    "conform": "Test an implementation, in any language, against the cases.",
    "coverage": "Which rules have cases, and which have none.",
    "smoke": "Test the kit: every planted bug must be caught.",
    "live": "Test real kernels: Linux's own KVM as the implementation.",
    "vectors": "Write the cases as JSON test vectors.",
    "gen": "Write C headers or Rust modules.",
    "docs": "Write the manual: a static site, Markdown or reStructuredText.",
    "verify": "Check the specifications, codecs and bundled adapters.",
    "lint": "Check specification files.",
    "diff": "What changed between two specifications, and whether it breaks anybody.",
    "layout-check": "Check the specifications against kernel headers.",
    "bench": "Our speed beside that of others on the same work.",
    "iut": "Serve the bundled adapters over the line protocol.",
    "generate": "Renew the generated parts of a checkout.",
}
"""Every command and its line of help. Module ``hvabi.cli.NAME`` has it as ``command``."""

LOOKUPS = frozenset({"list", "show", "explain", "encode", "decode", "translate"})
"""Commands that print something and end: searching what they make for cycles would take longer than making it."""

EPILOG = """\b
Examples:
  hvabi list
  hvabi show tdx-map-gpa
  hvabi encode tdx-map-gpa gpa=0x800100001000 size=0x1000
  hvabi decode rax=12 rbx=0x1f018000 rcx=1 rdx=1

Exit codes: 0 good, 1 found something, 2 used wrongly or nothing matched, 3 internal error, 4 skipped and why.
"""


class Commands(click.Group):
    """The group of all commands. It imports one when it is used, and turns every error into a message and a code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command."""
        if cmd_name not in COMMANDS:
            return None
        found: click.Command = importlib.import_module(f"hvabi.cli.{cmd_name.replace('-', '_')}").command
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that does not exist gets the nearest names."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from hvabi.abi.errors import UsageError

            raise UsageError.unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, args: Sequence[str] | None = None, prog_name: str | None = None, **extra: Any) -> Any:  # type: ignore[override]  # fewer names
        """Run a command line and exit with its code."""
        console.prepare_streams()
        words = list(sys.argv[1:] if args is None else args)

        def action() -> Any:
            # Not by the parent's main: that ends with 1, "found something", where the reader of a pipe went away.
            with self.make_context(prog_name or "hvabi", words) as ctx:
                return self.invoke(ctx)

        sys.exit(console.guarded(action))


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"hvabi {version('hvabi')}")
        ctx.exit()


@click.command(
    cls=Commands,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    no_args_is_help=False,
    invoke_without_command=True,
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Show the version and exit."
)
@click.pass_context
def cli(ctx: click.Context) -> int | None:
    """One ABI for private and shared memory, across hypervisors: look it up, encode, decode, check."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return 2
    return None


def run() -> None:
    """Run the command line of the process. The entry point of ``hvabi``."""
    if sys.argv[1:2] and sys.argv[1] in LOOKUPS:
        gc.disable()
        atexit.register(gc.freeze)  # the interpreter looks for cycles once more when it ends
    cli(prog_name="hvabi")


if __name__ == "__main__":
    run()
