"""``hvabi live pkvm``: a protected VM of arm64 KVM, and the hypervisor at EL2 that answers it."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.live_common import conform_by, recorded, show_steps, skipped, transcripts, with_steps
from hvabi.cli.live_options import cache_option, kernel_options, observation_options

if TYPE_CHECKING:
    from pathlib import Path

    from hvabi.evidence.live.kernels import Kernel
    from hvabi.evidence.live.machine import Machine

EPILOG = """\b
Examples:
  hvabi live pkvm
  hvabi live pkvm --kernel linux-image-7.3.4+deb13-arm64
  hvabi live pkvm --compare tests/data/live/pkvm/7.3.4+deb13-arm64.ndjson
  hvabi live pkvm -- --rule PKVM-SHARE-09 --html pkvm.html

Boots a kernel of Debian for arm64 in QEMU with kvm-arm.mode=protected. Every generated case of pkvm-mem-share
is made as a real HVC in a protected VM and judged, the state of each page by whether the host can still read it. Then
guest and host take the same pages in turn, and every step is compared with the bundled host. Words behind -- go to
hvabi conform.

Needed: qemu-system-arm, gcc-aarch64-linux-gnu, libc6-dev-arm64-cross, apt.

Exit codes: 0 good, 1 something was found, 2 used wrongly, 3 the machine went away before the cases were run, 4 skipped,
because it is not possible here.
"""


@click.command(epilog=EPILOG)
@kernel_options("the newest of the suite", suite="trixie-backports")
@cache_option()
@observation_options()
@click.argument("conform", metavar="[-- CONFORM OPTIONS]", nargs=-1)
def pkvm(
    *, kernel: str | None, unpacked: Path | None, suite: str, listing: bool, cache: Path | None,
    observe: Path | None, compare: Path | None, conform: tuple[str, ...],
) -> int:  # fmt: skip
    """Test arm64 pKVM: MEM_SHARE and MEM_UNSHARE of a protected VM."""
    from hvabi.evidence.live import pkvm as live
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.kernels import Store, cache_folder
    from hvabi.evidence.live.kernels import unpacked as in_folder

    with console.Progress("live") as progress:
        store = Store(cache or cache_folder(), suite=suite, architecture=live.ARCHITECTURE, progress=progress)
        try:
            if listing:
                console.say("\n".join(live.usable(store)))
                return console.GOOD
            live.VIRT.find()
            live.compiler()
            chosen = in_folder(unpacked) if unpacked is not None else store.kernel(kernel or live.newest(store))
            with live.emulated(chosen, progress) as machine:
                console.say(f"Linux {chosen.release}, {live.HOW}")
                return _runs(chosen, machine, conform, observe, compare, progress)
        except LiveError as error:
            return skipped(error)


def _runs(
    kernel: Kernel, machine: Machine, words: tuple[str, ...], observe: Path | None, compare: Path | None, progress: Any
) -> int:
    """Run the cases and the steps; return the worst exit code."""
    from hvabi.evidence.live.observations import from_transcripts
    from hvabi.evidence.live.pkvm import ABI, HOW, REVISION, profile_of, served

    profile = profile_of(kernel.version)
    with transcripts() as (folder, codes):
        transcript = folder / "transcript"
        worst = conform_by([
            f"{ABI}@{REVISION}", "--iut", f"cmd:{shlex.join(served(kernel, machine.lines[0]))}", "--role", "host",
            "--transcript", str(transcript), "--timeout", "60", *(("--profile", profile) if profile else ()), *words,
        ])  # fmt: skip
        codes.append(worst)
        if worst > console.FOUND:
            return worst
        found = from_transcripts([transcript])
    rows = _steps(machine, profile, progress)
    if rows is None:
        return console.FOUND
    worst = max(worst, console.FOUND if any(row.differs for row in rows) else console.GOOD)
    observed = with_steps(found, rows, kernel=kernel.release, how=HOW, abi=ABI)
    return max(worst, recorded(observed, observe, compare))


def _steps(machine: Machine, profile: str | None, progress: Any) -> Any:
    """Take the steps on the kernel and on the bundled host; return the rows, or None where the machine went away."""
    from hvabi.abi.specification import SPEC_PROFILE
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.pkvm import Vm
    from hvabi.evidence.live.pkvm_steps import STEPS, Model, Real, rows_of

    rows = []
    try:
        with Vm(machine.lines[0]) as vm:
            for steps in STEPS:
                progress(steps.name)
                rows += rows_of(steps, Real(vm), Model(profile or SPEC_PROFILE))
    except LiveError as error:
        console.fail(f"{error.message}; the machine's last words: {machine.tail()[-400:]}")
        return None
    show_steps(rows, len(STEPS), "pKVM", "bundled host")
    return rows
