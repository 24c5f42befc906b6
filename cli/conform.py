"""``hvabi conform``: test an implementation."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hvabi.cli import console
from hvabi.cli.conform_report import Asked, finished, report, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from hvabi.cli.offer import Plan
    from hvabi.conformance.answer import Hello
    from hvabi.conformance.case import Case
    from hvabi.conformance.connect import Connector
    from hvabi.conformance.known import KnownFailures
    from hvabi.conformance.result import CaseResult, RunResult
    from hvabi.conformance.selection import Selection

EPILOG = """\b
Examples:
  hvabi conform --iut 'cmd:./my-vmm --hvabi'
  hvabi conform tdx-map-gpa ghcb-psc --role host --iut tcp:localhost:5000
  hvabi conform --iut cmd:./my-guest --role guest --rule TDX-MAPGPA-21
  hvabi conform --iut cmd:./my-vmm --expect known.yaml --junit out.xml --html out.html
  hvabi conform --iut builtin

\b
CONN is one of
  cmd:PROGRAM ARGUMENTS                   a program, over stdin and stdout
  unix:PATH, tcp:HOST:PORT                a server; the runner connects
  unix:listen:PATH, tcp:listen:HOST:PORT  a client; the runner listens
  serial:PATH[,BAUD]                      a serial line or pseudo terminal
  py:MODULE[:NAME]                        an object in this process
  builtin                                 hvabi's own adapters: a plumbing check

Without ABI all that the implementation offers are tested. Without --profile it is judged by the profile that it
declares in hello, else by spec.

Exit codes: 0 good, 1 something was found, 2 used wrongly or nothing was tested, 3 the implementation could not be
started.
"""


@click.command(epilog=EPILOG)
@click.argument("abis", metavar="[ABI[@REV]]...", nargs=-1)
@click.option("--iut", metavar="CONN", help="The implementation under test, see below.")
@click.option("--role", type=click.Choice(["host", "guest"]), help="Only this role.")
@click.option("--transport", "transports", metavar="T", multiple=True, help="Only this transport; may be repeated.")
@click.option("--rule", "rules", metavar="RULE", multiple=True, help="Only cases about this rule; may be repeated.")
@click.option(
    "--id", "--case", "ids", metavar="GLOB", multiple=True, help="Only the case with this id, or a glob of ids."
)
@click.option(
    "--level", "levels", multiple=True, help="Only cases of this level.",
    type=click.Choice(["must", "should", "may", "unspecified", "observed"]),
)  # fmt: skip
@click.option("--profile", metavar="P", help="Judge by this profile; hvabi show ABI policies lists them.")
@click.option("--expect", metavar="FILE", help="Known failures, a YAML list; stale entries fail the run.")
@click.option("--update-expect", is_flag=True, help="Bring the file of --expect up to date after the run.")
@click.option("--junit", metavar="FILE", help="Write JUnit XML.")
@click.option("--ktap", metavar="FILE", help="Write KTAP.")
@click.option("--json", "json_file", metavar="FILE", help="Write JSON; with - to standard output, all else to stderr.")
@click.option("--html", metavar="FILE", help="Write one HTML file with everything.")
@click.option(
    "--sequences", metavar="N", type=click.IntRange(0, 10_000), default=0, show_default=True,
    help="Also run N random sequences of calls on each transport, drawn from the seed.",
)  # fmt: skip
@click.option(
    "--seed", metavar="N", type=click.IntRange(0, 2**64 - 1), default=0, show_default=True, help="Seed of the cases."
)
@click.option(
    "-j", "--jobs", metavar="N", type=click.IntRange(1, 256), default=1, show_default=True, help="Sessions at once."
)
@click.option("--timeout", metavar="S", type=click.FloatRange(0, 86400, min_open=True), default=5.0, show_default=True,
              help="Seconds for each answer.")  # fmt: skip
@click.option("--strict", is_flag=True, help="Warnings (a should that is not met) fail the run.")
@click.option("--transcript", metavar="FILE", help="Where all lines of both directions go; by default a temporary "
              "file, kept where the run fails.")  # fmt: skip
@click.option("--exits/--no-exits", default=False, help="Ask hosts to show what they ask of their VMM (feature exits).")
@click.option("--replay", metavar="TRANSCRIPT", help="Without --iut: judge the recorded answers (same options as then, "
              "-j 1). With --iut: send the recorded lines again and show what is answered differently.")  # fmt: skip
@click.option("--failures", metavar="N", type=click.IntRange(0), default=10, show_default=True,
              help="Failures that are shown in full.")  # fmt: skip
@click.option("--passing-files", is_flag=True, hidden=True, help="The caller deletes the files after a good run: do "
              "not announce them then.")  # fmt: skip
def command(
    abis: tuple[str, ...], role: str | None, transports: tuple[str, ...], rules: tuple[str, ...], ids: tuple[str, ...],
    levels: tuple[str, ...], junit: str | None, ktap: str | None, json_file: str | None, html: str | None, **rest: Any,
) -> int:  # fmt: skip
    """Test an implementation in any language against the cases of the ABIs that it has."""
    from hvabi.conformance.selection import Selection

    files = {"junit": junit, "ktap": ktap, "json": json_file, "html": html}
    asked = Asked(
        selection=Selection(
            abis=abis, roles=(role,) if role else (), transports=transports, rules=rules, levels=levels, ids=ids
        ),
        files={kind: path for kind, path in files.items() if path is not None},
        **rest,
    )
    return _command(asked)


def _command(asked: Asked) -> int:
    from hvabi.cli.choice import check_abis, check_names
    from hvabi.conformance.connect import parse_connector

    _check(asked)
    asked = replace(asked, selection=replace(asked.selection, abis=check_abis(asked.selection.abis)))
    check_names(asked.selection)
    known = _known(asked)
    if asked.replay is not None and asked.iut is not None:
        return _resend(asked.replay, parse_connector(asked.iut), asked.timeout)
    connector, hello = _connector(asked)
    if connector is None:
        return console.INTERNAL
    with contextlib.closing(connector):
        return _test(asked, connector, hello, known)


def _test(asked: Asked, connector: Connector, hello: Hello | None, known: KnownFailures | None) -> int:
    """Run the cases and report them."""
    from hvabi.cli.choice import narrowed
    from hvabi.cli.offer import plan

    chosen = plan(narrowed(asked.selection), asked.profile, hello)
    selection = replace(asked.selection, abis=chosen.abis)
    every, selected = _cases(asked, chosen, selection, known)
    out = sys.stderr if asked.files.get("json") == "-" else sys.stdout
    _headline(asked, chosen, selected, out)
    with _transcript(asked) as (place, keep):
        run = _run(asked, chosen, selection, every, connector, known, place)
        run = finished(asked, run)
        keep(not run.good)
        return report(asked, run, out, place)


# -- before the run ---------------------------------------------------------------------------------------------


def _check(asked: Asked) -> None:
    """Refuse options that make no run, and files that could not be written after one."""
    from hvabi.abi.errors import UsageError

    if asked.iut is None and asked.replay is None:
        hint = "--iut 'cmd:./my-vmm' starts a program; --iut builtin tries the kit itself; hvabi conform --help has all"
        raise UsageError("which implementation? --iut is missing", code="no-iut", hint=hint)
    if asked.update_expect and asked.expect is None:
        raise UsageError("--update-expect needs --expect FILE", code="bad-option", hint="the file may be a new one")
    if asked.update_expect and asked.replay is not None:
        raise UsageError("--update-expect needs a real run, not --replay", code="bad-option")
    if asked.replay is not None and not Path(asked.replay).is_file():
        text = f"--replay {asked.replay}: there is no such file"
        raise UsageError(text, code="no-file", hint="name a file that hvabi conform --transcript FILE wrote")
    for kind, path in [*asked.files.items(), ("transcript", asked.transcript)]:
        if path is None or (kind == "json" and path == "-"):
            continue
        folder = Path(path).resolve().parent
        try:
            missing, is_folder = not folder.is_dir(), Path(path).is_dir()
        except (OSError, ValueError):
            missing, is_folder = True, False
        if missing or is_folder:
            text = "is a folder" if is_folder else f"cannot be written: there is no folder {folder}"
            raise UsageError(f"--{kind} {path} {text}", code="no-file", hint="name a file in a folder that is there")


def _known(asked: Asked) -> KnownFailures | None:
    """Read the known failures; a file that is still to be made has none."""
    from hvabi.abi.errors import SpecError, UsageError
    from hvabi.conformance.known import KnownFailures, load_known

    if asked.expect is None:
        return None
    if asked.update_expect and not Path(asked.expect).exists():
        return KnownFailures((), asked.expect)
    try:
        return load_known(asked.expect)
    except SpecError as error:
        # A file of known failures is no specification, and hvabi lint cannot check it.
        hint = "hvabi conform --expect FILE --update-expect writes one"
        raise UsageError(f"known failures cannot be read\n{error}", code="bad-known", hint=hint) from error


def _connector(asked: Asked) -> tuple[Connector | None, Hello | None]:
    """Return the connector and what the implementation says, no connector where it cannot be started."""
    from hvabi.abi.errors import HvAbiError, UsageError
    from hvabi.cli.offer import ask, recorded
    from hvabi.conformance.connect import parse_connector
    from hvabi.conformance.transcript import ReplayConnector

    if asked.replay is not None:
        return ReplayConnector(asked.replay), recorded(asked.replay)
    assert asked.iut is not None  # _check
    connector = parse_connector(asked.iut)
    try:
        return ask(connector, asked.timeout, _features(asked))
    except UsageError:
        raise
    except HvAbiError as error:
        if asked.files:  # whoever reads the files shall find there that nothing was run
            return connector, None
        _not_started(asked.iut, error)
        return None, None


def _features(asked: Asked) -> tuple[str, ...]:
    """Return the features that the run may ask for; nobody knows yet which cases it will have."""
    return (*(("exits",) if asked.exits else ()), *(("local-steps",) if asked.selection.roles != ("host",) else ()))


def _not_started(iut: str, error: Any) -> None:
    said = "\n".join(getattr(error, "__notes__", ())).strip() or str(error.fields.get("stderr", "")).strip()
    console.fail(
        f"the implementation does not start: {error.message}" + (f"\nits last words:\n{said[-2000:]}" if said else ""),
        error.hint or f"it must answer `hello`; try it by hand: {_by_hand(iut)}",
    )


def _by_hand(iut: str) -> str:
    line = """echo '@hvabi {"id":1,"cmd":"hello","min":1,"max":1,"runner":"me"}'"""
    return f"{line} | {iut.removeprefix('cmd:')}" if iut.startswith("cmd:") else f"send it {line[5:]}"


def _cases(
    asked: Asked, plan: Plan, selection: Selection, known: KnownFailures | None
) -> tuple[list[Case], list[Case]]:
    """Return the cases to select from, and those selected.

    Among the first are those that known failures speak of, or their entries would look stale.

    Raises `UsageError` for an unknown profile, and where nothing is selected.
    """
    from hvabi.abi.errors import UsageError
    from hvabi.abi.registry import bundled
    from hvabi.cli.choice import abis_of, nothing, with_cases
    from hvabi.conformance.catalogue import every_case
    from hvabi.conformance.selection import select
    from hvabi.conformance.stateful import case_of, is_stateful

    wanted: Sequence[str] = selection.abis or with_cases()
    if known is not None and known.entries:
        # A whole ABI, where an entry speaks of another revision than the one that is asked for.
        listed = abis_of(entry.case for entry in known.entries) or with_cases()
        wanted = [*(text for text in wanted if text.partition("@")[0] not in listed), *listed]
    profiles = {name for abi in with_cases() for name in bundled(abi).profiles}
    if plan.profile != "spec" and plan.profile not in profiles:
        raise UsageError.unknown("profile", plan.profile, ["spec", *profiles])
    every: list[Case] = []
    with console.Progress("cases") as progress:
        for text in wanted:
            progress(text)
            name = text.partition("@")[0]
            # An ABI that does not know the profile is judged by spec.
            profile = plan.profile if plan.profile in bundled(name).profiles else "spec"
            every += every_case([text], profile=profile, seed=asked.seed, sequences=asked.sequences)
    # A sequence is made from its id, as a report names it.
    every += [case_of(ident, profile=plan.profile) for ident in selection.ids if is_stateful(ident)]
    try:
        return every, select(every, selection, profile=plan.profile)
    except UsageError as error:
        raise (nothing(every, asked.selection, plan.profile) if error.code == "nothing-selected" else error) from None


def _headline(asked: Asked, plan: Plan, chosen: Sequence[Case], out: TextIO) -> None:
    """Say what is run, before it is."""
    abis = list(dict.fromkeys(case.abi for case in chosen))
    what = f"{len(chosen)} case{'' if len(chosen) == 1 else 's'} of {', '.join(abis)}"
    if asked.replay is not None:
        say(out, f"Replay of {asked.replay}: {what}; recorded answers are judged, no implementation is running.")
    elif asked.iut == "builtin":
        say(out, f"Plumbing check: {what}, given to hvabi's own adapters.")
    else:
        say(out, f"Conformance test: {what}.")
    if plan.left_out:
        say(out, f"It does not offer, so not tested: {', '.join(plan.left_out)}")
    if plan.unknown:
        say(out, f"It offers, and hvabi has no cases for: {', '.join(plan.unknown)[:300]}")


# -- the run ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _transcript(asked: Asked) -> Iterator[tuple[str | None, Callable[[bool], None]]]:
    """Yield the place of the transcript, and a function to say whether a temporary one is kept; by default it is."""
    if asked.replay is not None or asked.transcript is not None:
        yield asked.transcript, lambda _: None
        return
    import os
    import tempfile

    handle, place = tempfile.mkstemp(prefix="hvabi-", suffix=".transcript")
    os.close(handle)
    kept = [True]
    try:
        yield place, lambda wanted: kept.__setitem__(0, wanted)
    except KeyboardInterrupt:
        console.note(f"transcript: {place}")
        raise
    except BaseException:
        Path(place).unlink(missing_ok=True)
        raise
    if not kept[0]:
        Path(place).unlink(missing_ok=True)


def _run(
    asked: Asked,
    plan: Plan,
    selection: Selection,
    every: list[Case],
    connector: Connector,
    known: KnownFailures | None,
    transcript: str | None,
) -> RunResult:
    from hvabi.conformance.run import run_cases

    bad = 0
    with console.Progress("conform") as progress:

        def tell(result: CaseResult, done: int, total: int) -> None:
            nonlocal bad
            bad += result.verdict.bad
            case = result.case
            wrong = f", {bad} bad" if bad else ""
            progress(f"{done} of {total}{wrong}, {case.abi} {case.role} {case.transport}")

        return run_cases(
            every,
            connector,
            selection=selection,
            profile=plan.profile,
            timeout=asked.timeout,
            jobs=asked.jobs,
            seed=asked.seed,
            known=known,
            progress=tell,
            transcript=transcript,
            features=("exits",) if asked.exits else (),
        )


def _resend(path: str, connector: Connector, timeout: float) -> int:
    """Send a transcript again and print every answer that differs."""
    from hvabi.abi.errors import HvAbiError, UsageError
    from hvabi.conformance.transcript import resend

    found = 0
    console.say(f"Replay of {path} on {connector.name}: every recorded line is sent again.")
    try:
        for item in resend(path, connector, timeout=timeout):
            found += 1
            console.say(f"{path}:{item.number}")
            for word, text in (("sent", item.sent), ("recorded", item.recorded), ("now", item.found)):
                console.say(f"  {word:<9}{console.escape(text[:2000])}")
    except UsageError:
        raise
    except HvAbiError as error:
        _not_started(connector.name, error)
        return console.INTERNAL
    finally:
        connector.close()
    console.say(f"{found} answer{'' if found == 1 else 's'} differ{'s' if found == 1 else ''} from the recorded ones")
    return console.FOUND if found else console.GOOD
