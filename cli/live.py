"""``hvabi live``: real kernels as implementations under test."""

from __future__ import annotations

import contextlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.live_agent import agent
from hvabi.cli.live_attributes import attributes
from hvabi.cli.live_common import ended_in_order, judged_by, recorded, show_verdicts, skipped, transcripts, version_of
from hvabi.cli.live_options import cache_option, kernel_options, observation_options
from hvabi.cli.live_pkvm import pkvm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hvabi.evidence.live.kernels import Kernel, Store
    from hvabi.evidence.live.verdicts import Results

EPILOG = """\b
Examples:
  hvabi live kvm
  hvabi live kvm --kernel linux-image-6.12.117+deb12-cloud-amd64
  hvabi live kvm --suite trixie-backports --list
  hvabi live kvm --mode32 real -- --rule KVM-MAPGPA-13 --html kvm.html
  hvabi live kvm --mode32 all --compare tests/data/live/6.1.0-56-cloud-amd64.ndjson

Issues every generated case of kvm-map-gpa-range as a real hypercall to Linux's own KVM, and judges what the guest sees
and what reaches user space. A /dev/kvm that answers three known calls is used as it is; else a kernel of Debian is
booted in QEMU, without hardware virtualisation. Words behind -- go to hvabi conform; without any, the verdicts are
compared with those of the bundled host adapter, case by case.
What kernels of Debian have answered so far is in tests/data/live.

Exit codes: 0 good and the same, 1 something was found or is not the same, 2 used wrongly, 3 the machine went away
before a case was run, 4 skipped, because neither is possible here.
"""

HOW = {
    "native": "the machine's own /dev/kvm",
    "tcg": "booted in QEMU TCG with -smp 1 -cpu max, AMD SVM emulated",
}


GROUP_EPILOG = """\b
Examples:
  hvabi live kvm
  hvabi live kvm --list
  hvabi live attributes
  hvabi live pkvm
  hvabi live agent examples/agent/build/agent-x86-vmcall.elf
"""


@click.group(invoke_without_command=True, epilog=GROUP_EPILOG)
@click.pass_context
def command(ctx: click.Context) -> int | None:
    """Test real kernels: the same cases, the same runner, Linux itself as the implementation."""
    ctx.with_resource(ended_in_order())
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
        return console.USAGE
    return None


@command.command(epilog=EPILOG)
@kernel_options("the newest for clouds")
@click.option(
    "--native/--no-native", default=True, help="Whether /dev/kvm may be used where it works.", show_default=True
)
@click.option("--mode32", type=click.Choice(["prot32", "compat", "real", "all"]), default="prot32", show_default=True,
              help="What 32-bit mode is: protected, compatibility or real mode, or one after another.")  # fmt: skip
@cache_option()
@observation_options()
@click.argument("conform", metavar="[-- CONFORM OPTIONS]", nargs=-1)
def kvm(
    *, kernel: str | None, unpacked: Path | None, suite: str | None, listing: bool, native: bool, mode32: str,
    cache: Path | None, observe: Path | None, compare: Path | None, conform: tuple[str, ...],
) -> int:  # fmt: skip
    """Test Linux's KVM on x86."""
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.kernels import Store, cache_folder
    from hvabi.evidence.live.kvm import MODES_32

    with console.Progress("live") as progress:
        store = Store(cache or cache_folder(), suite=suite, progress=progress)
        try:
            if listing:
                console.say("\n".join(store.names()))
                return console.GOOD
            modes = MODES_32 if mode32 == "all" else (mode32,)
            chosen = kernel is not None or suite is not None or unpacked is not None
            with _place(store, kernel, unpacked, modes, progress, native=native and not chosen) as place:
                return _runs(place, conform, observe, compare)
        except LiveError as error:
            return skipped(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A kernel that answers.

    Attributes:
        release: what ``uname -r`` says there.
        how: how it runs, in words.
        lines: the connector to it for each 32-bit mode.
        gone: says that it does not run any more, and what it said last; None while it runs.

    """

    release: str
    how: str
    lines: Sequence[tuple[str, str]]
    gone: Callable[[], str | None] = lambda: None


@contextlib.contextmanager
def _place(
    store: Store, package: str | None, unpacked: Path | None, modes: Sequence[str], progress: Any, *, native: bool
) -> Iterator[Place]:
    """Yield where a kernel answers."""
    import os

    from hvabi.evidence.live import kvm as live
    from hvabi.evidence.live.kernels import unpacked as in_folder

    reason = live.native_reason() if native else "not asked for"
    if reason is None:
        release = os.uname().release
        with contextlib.ExitStack() as stack:
            commands = [(mode, stack.enter_context(live.native(version_of(release), mode))) for mode in modes]
            lines = [(mode, f"cmd:{shlex.join(words)}") for mode, words in commands]
            yield Place(release=release, how=HOW["native"], lines=lines)
        return
    if native:
        console.note(f"{reason}: a kernel is booted instead")
    kernel: Kernel = in_folder(unpacked) if unpacked is not None else store.kernel(package)
    with live.emulated(kernel, modes, progress) as machine:
        lines = [(mode, f"unix:{path}") for mode, path in zip(modes, machine.lines, strict=True)]
        yield Place(release=kernel.release, how=HOW["tcg"], lines=lines, gone=machine.gone)


def _runs(place: Place, words: Sequence[str], observe: Path | None, compare: Path | None) -> int:
    """Run the cases on every line; return the worst exit code."""
    from hvabi.evidence.live.kvm import ABI, profile_of
    from hvabi.evidence.live.observations import Observed, from_transcripts

    console.say(f"Linux {place.release}, {place.how}")
    profile = profile_of(version_of(place.release))
    with transcripts() as (folder, codes):
        places: list[Path] = []
        found: list[tuple[str, Results]] = []

        def judge(connector: str, name: str, transports: list[str]) -> tuple[int, Results]:
            options = [ABI, "--iut", connector, "--role", "host", "--exits", "--timeout", "30"]
            options += ["--transcript", str(folder / f"{name}.transcript")]
            options += ["--profile", profile] if profile else []
            options += [word for transport in transports for word in ("--transport", transport)]
            return judged_by([*options, *words], folder / f"{name}.json")

        for number, (mode, connector) in enumerate(place.lines):
            places.append(folder / f"{mode}.transcript")
            code, rows = judge(connector, mode, ["vmcall64", "vmcall32"] if number == 0 else ["vmcall32"])
            codes.append(code)
            found.append((f"KVM ({mode})", rows))
            if (last := place.gone()) is not None:
                console.fail(last)
                return max(codes)
        if max(codes) > console.FOUND:
            return max(codes)
        if not words:
            console.say("The bundled host adapter, the same cases")
            code, bundled = judge("builtin", "bundled", ["vmcall64", "vmcall32"])
            codes += [code, *(show_verdicts(what, rows, bundled) for what, rows in found)]
        if not (observe or compare):
            return max(codes)
        observed = Observed(kernel=place.release, how=place.how, abi=ABI, observations=from_transcripts(places))
        worst = max(codes)
    return max(worst, recorded(observed, observe, compare))


command.add_command(attributes)
command.add_command(pkvm)
command.add_command(agent)
