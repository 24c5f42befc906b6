"""``hvabi live agent``: the agent of examples/agent in guests of Linux's KVM."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.live_common import judged_by, show_verdicts, skipped, transcripts
from hvabi.cli.live_options import cache_option, kernel_options

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hvabi.evidence.live.kernels import Kernel
    from hvabi.evidence.live.verdicts import Results

EPILOG = """\b
Examples:
  make -C examples/agent x86
  hvabi live agent examples/agent/build/agent-x86-vmcall.elf
  hvabi live agent agent-x86-vmcall.elf --kernel linux-image-6.12.117+deb12-cloud-amd64

Boots a kernel of Debian in QEMU, without hardware virtualisation, and in its KVM two guests that are the agent: one
with hypercall 12 switched on, one without. Each is tested over its serial line, as a guest of any other host would be,
and what came out is compared, case by case, with the bundled host adapter.

Exit codes: 0 good and the same, 1 something was found or is not the same, 2 used wrongly, 4 skipped, because no
machine can be had.
"""


@click.command(epilog=EPILOG)
@click.argument("elf", metavar="AGENT", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@kernel_options("the newest for clouds", listing=False)
@cache_option()
@click.argument("conform", metavar="[-- CONFORM OPTIONS]", nargs=-1)
def agent(
    *,
    elf: Path,
    kernel: str | None,
    unpacked: Path | None,
    suite: str | None,
    cache: Path | None,
    conform: tuple[str, ...],
) -> int:
    """Test Linux's KVM on x86 from inside a guest: the agent of examples/agent."""
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.kernels import Store, cache_folder
    from hvabi.evidence.live.kernels import unpacked as in_folder

    with console.Progress("live") as progress:
        try:
            if unpacked is not None:
                chosen = in_folder(unpacked)
            else:
                chosen = Store(cache or cache_folder(), suite=suite, progress=progress).kernel(kernel)
            return _runs(chosen, elf, conform, progress)
        except LiveError as error:
            return skipped(error)


def _runs(kernel: Kernel, elf: Path, words: Sequence[str], progress: Any) -> int:
    """Test both guests and the bundled adapter; return the worst exit code."""
    from hvabi.evidence.live import agent as live
    from hvabi.evidence.live.kvm import profile_of

    profile = profile_of(kernel.version)
    options = [*(("--profile", profile) if profile else ()), *words]
    found: Results = []
    with transcripts() as (folder, codes), live.emulated(kernel, elf.read_bytes(), progress) as machine:
        for number, (what, line) in enumerate(zip(live.HOSTS, machine.lines, strict=True)):
            console.say(f"Linux {kernel.release} in QEMU TCG, guest of its KVM, {what}")
            code, rows = _conform(folder / f"guest{number}.json", f"unix:{line}", ["--timeout", "60", *options])
            codes.append(code)
            found += rows
        if max(codes) > console.FOUND:
            console.note(machine.tail())
            return max(codes)
        console.say("The bundled host adapter, the same cases")
        code, bundled = _conform(folder / "bundled.json", "builtin", options)
        codes.append(code)
    return max(*codes, show_verdicts("agent", found, bundled))


def _conform(report: Path, connector: str, words: Sequence[str]) -> tuple[int, Results]:
    """Run the cases; one guest alone may have none of those that were chosen."""
    from hvabi.evidence.live.kvm import ABI

    arguments = [ABI, "--iut", connector, "--role", "host", "--transport", "vmcall64", "--transport", "vmcall32"]
    code, rows = judged_by([*arguments, *words], report)
    idle = bool(rows) and all(row["verdict"] == "skip" for row in rows)
    return console.GOOD if idle else code, rows
