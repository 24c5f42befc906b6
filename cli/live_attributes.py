"""``hvabi live attributes``: KVM_SET_MEMORY_ATTRIBUTES of a real kernel, from the guest's hypercall to its pages."""

from __future__ import annotations

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
  hvabi live attributes
  hvabi live attributes --kernel linux-image-6.12.117+deb12-amd64
  hvabi live attributes --compare tests/data/live/attributes/6.12.117+deb12-amd64.ndjson
  hvabi live attributes -- --rule KVM-MEMATTR-06 --html attributes.html

Boots a kernel of Debian in QEMU, without hardware virtualisation, with modules kvm and kvm-amd that are built here from
Debian's source with CONFIG_KVM_SW_PROTECTED_VM: no kernel of Debian has that. Every generated case of
kvm-memory-attributes is judged, the state of each page as its guest sees it. Then a guest converts pages by hypercall,
with hvabi's adapters as its VMM, and reads and writes them; every step is compared with what the adapters say without
a kernel. Words behind -- go to hvabi conform.

Needed: qemu-system-x86, make, gcc of the kernel's version, apt. The build takes minutes, once per kernel.

Exit codes: 0 good, 1 something was found, 2 used wrongly, 3 the machine went away before the cases were run, 4 skipped,
because it is not possible here.
"""


@click.command(epilog=EPILOG)
@kernel_options("the newest generic one")
@cache_option("downloads and builds")
@observation_options()
@click.argument("conform", metavar="[-- CONFORM OPTIONS]", nargs=-1)
def attributes(
    *, kernel: str | None, unpacked: Path | None, suite: str | None, listing: bool, cache: Path | None,
    observe: Path | None, compare: Path | None, conform: tuple[str, ...],
) -> int:  # fmt: skip
    """Test KVM's memory attributes: private and shared pages of a real guest."""
    from hvabi.evidence.live import attributes as live
    from hvabi.evidence.live import modules
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.kernels import Store, cache_folder
    from hvabi.evidence.live.kernels import unpacked as in_folder
    from hvabi.evidence.live.machine import PC

    with console.Progress("live") as progress:
        store = Store(cache or cache_folder(), suite=suite, progress=progress)
        try:
            if listing:
                console.say("\n".join(modules.usable(store)))
                return console.GOOD
            PC.find()
            stock = in_folder(unpacked) if unpacked is not None else store.kernel(kernel or modules.newest(store))
            chosen = modules.rebuilt(store, stock)
            with live.emulated(chosen, progress) as machine:
                console.say(f"Linux {chosen.release}, {live.HOW}")
                return _runs(chosen, machine, conform, observe, compare, progress)
        except LiveError as error:
            return skipped(error)


def _runs(
    kernel: Kernel, machine: Machine, words: tuple[str, ...], observe: Path | None, compare: Path | None, progress: Any
) -> int:
    """Run the cases and the scenarios; return the worst exit code."""
    from hvabi.evidence.live.attributes import ABI, HOW, profile_of
    from hvabi.evidence.live.observations import from_transcripts

    profile = profile_of(kernel.version)
    with transcripts() as (folder, codes):
        transcript = folder / "transcript"
        worst = conform_by([
            ABI, "--iut", f"unix:{machine.lines[0]}", "--role", "host", "--transcript", str(transcript),
            "--timeout", "60", *(("--profile", profile) if profile else ()), *words,
        ])  # fmt: skip
        codes.append(worst)
        if worst > console.FOUND:
            return worst
        found = from_transcripts([transcript])
    rows = _scenarios(kernel, machine, progress)
    if rows is None:
        return console.FOUND
    worst = max(worst, console.FOUND if any(row.differs for row in rows) else console.GOOD)
    observed = with_steps(found, rows, kernel=kernel.release, how=HOW, abi=ABI)
    return max(worst, recorded(observed, observe, compare))


def _scenarios(kernel: Kernel, machine: Machine, progress: Any) -> Any:
    """Play the scenarios on KVM and on the model; return the rows, or None where the machine went away."""
    from hvabi.evidence.live.attributes import model_of
    from hvabi.evidence.live.bench import Bench
    from hvabi.evidence.live.errors import LiveError
    from hvabi.evidence.live.played import rows_of
    from hvabi.evidence.live.scenarios import SCENARIOS

    rows = []
    try:
        with Bench(machine.lines[1]) as bench:
            for scenario in SCENARIOS:
                progress(scenario.name)
                rows += rows_of(scenario, bench, model_of(kernel.version))
    except LiveError as error:
        console.fail(f"{error.message}; the machine's last words: {machine.tail()[-400:]}")
        return None
    show_steps(rows, len(SCENARIOS), "KVM", "model")
    return rows
