"""Keeps one implementation running: opens sessions, configures, runs cases, restarts it after whatever broke."""

from __future__ import annotations

import contextlib
import itertools
import shlex
import time
import traceback
from typing import TYPE_CHECKING, Any

from hvabi.abi.diagnostics import escape
from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import bundled
from hvabi.conformance.answer import Hello, PeerError, PeerUnsupported, ProtocolViolation
from hvabi.conformance.client import Client
from hvabi.conformance.guest_case import GuestCase
from hvabi.conformance.host_case import HostCase, shows_exits
from hvabi.conformance.outcome import Outcome, Unseen
from hvabi.conformance.result import CaseResult, Finding, Verdict
from hvabi.conformance.stream import PeerLost, PeerStart, PeerTimeout
from hvabi.conformance.transcript import Recorded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case
    from hvabi.conformance.connect import Connector
    from hvabi.conformance.stream import Connection
    from hvabi.conformance.transcript import Recorder

STARTS_PER_CASE = 3
"""Times that an implementation is started for one case before the case is given up."""
RESTARTS_IN_A_ROW = 20
"""Cases in a row that need a restart after which the run is given up."""
_LOG_OF_GOOD = 2048
"""Characters of log that are kept with a case that passed."""

_Key = tuple[object, ...]


class GivenUp(HvAbiError):
    """The implementation cannot be started, or broke too often in a row; the rest of the run is not run."""

    code = "given-up"


class Supervisor:
    """One implementation in one session at a time.

    Args:
        connector: where sessions come from.
        profile: the profile that the run judges by.
        timeout: seconds for each answer.
        ids: command ids, shared by all sessions of a run.
        features: features that the runner asks the implementation to show.
        recorder: the transcript, or None.

    """

    def __init__(
        self,
        connector: Connector,
        *,
        profile: str = "spec",
        timeout: float = 5.0,
        ids: Iterator[int] | None = None,
        features: frozenset[str] = frozenset(),
        recorder: Recorder | None = None,
    ) -> None:
        self.connector = connector
        self.profile = profile
        self.timeout = timeout
        self.case_seconds = max(60.0, 12 * timeout)
        self.hello: Hello | None = None
        self._ids = ids if ids is not None else itertools.count(1)
        self._features = features
        self._recorder = recorder
        self._client: Client | None = None
        self._key: _Key | None = None
        self._unsupported: dict[_Key, str] = {}
        self._can_query = True
        self._broken = 0
        self._started = 0.0
        self._start_of_command = shlex.join(["hvabi", "conform", "--iut", connector.name])

    # -- sessions -----------------------------------------------------------------------------------------------

    def open(self) -> Hello:
        """Start the implementation and say hello, unless it runs already.

        Raises what the connector and the client raise.
        """
        if self._client is not None and self.hello is not None:
            return self.hello
        connection: Connection = self.connector.open()
        if self._recorder is not None:
            connection = Recorded(connection, self._recorder)
        client = Client(connection, timeout=self.timeout, ids=self._ids)
        try:
            self.hello = client.hello(self._features)
        except HvAbiError as error:
            error.add_note(self._text_of(connection))
            connection.close()
            raise
        self._client, self._key = client, None
        return self.hello

    @staticmethod
    def _text_of(connection: Connection) -> str:
        return "\n".join(text for text in (connection.take_log(), connection.take_stderr()) if text)[-4096:]

    def close(self, *, politely: bool = True) -> None:
        """End the session, with ``stop`` first where nothing is wrong."""
        client, self._client, self._key = self._client, None, None
        if client is None:
            return
        if politely:
            with contextlib.suppress(HvAbiError):
                client.stop()
        client.connection.close()

    # -- cases --------------------------------------------------------------------------------------------------

    def run(self, case: Case) -> CaseResult:
        """Run one case, whatever happens. Raises `GivenUp` where nothing more can be run; then the case was not."""
        self._started = time.monotonic()
        if self._client is not None:
            # What was said between the cases belongs to none.
            self._client.connection.take_log()
        try:
            return self._start_and_run(case)
        except Exception as error:  # a mistake of ours must not cost the other cases
            self.close(politely=False)
            where = traceback.extract_tb(error.__traceback__)[-1]
            text = f"the runner failed: {type(error).__name__}: {error} ({where.name}, line {where.lineno})"
            if isinstance(error, GivenUp):
                raise
            return self._result_of(case, Verdict.NOT_RUN, escape(text))

    def command(self, case: Case) -> str:
        """Return the command that runs only this case."""
        profile = f" --profile {shlex.quote(self.profile)}" if self.profile != "spec" else ""
        return f"{self._start_of_command} --case {shlex.quote(case.id)}{profile}"

    def _start_and_run(self, case: Case) -> CaseResult:
        for attempt in range(STARTS_PER_CASE):
            last = attempt == STARTS_PER_CASE - 1
            try:
                hello = self.open()
            except PeerUnsupported as error:
                raise GivenUp(f"no common version of the protocol: {error.message}") from error
            except HvAbiError as error:
                # One that has never said hello will not do so the second time either.
                if last or self.hello is None or isinstance(error, PeerStart):
                    raise GivenUp(self._start_text(error), how=error.code) from error
                time.sleep(0.05 * 2**attempt)
                continue
            skip = self._lacks(case, hello)
            if skip:
                return self._result_of(case, Verdict.SKIP, skip)
            try:
                self._configure(case, hello)
            except PeerUnsupported as error:
                return self._result_of(case, Verdict.SKIP, f"configure: {error.message}")
            except (PeerTimeout, PeerLost, ProtocolViolation, PeerError) as error:
                if last or isinstance(error, PeerError):
                    return self._broke(case, error, None)
                self.close(politely=False)
                continue
            return self._judge(case, hello)
        raise AssertionError("the loop returns or raises")

    def _start_text(self, error: HvAbiError) -> str:
        notes = " ".join(getattr(error, "__notes__", ())).strip()
        stderr = str(error.fields.get("stderr", "") or notes)
        text = f"the implementation does not start: {error}"
        return escape(text + (f": {stderr[-400:]}" if stderr else ""))

    def _profile_for(self, case: Case, hello: Hello) -> tuple[str, str | None]:
        """Return the profile to judge by, and the one to configure where it is not the declared one."""
        abi = bundled(case.abi)
        wanted = case.profile or self.profile
        if wanted != "spec" and wanted not in abi.profiles:
            wanted = "spec"
        declared = hello.abis[case.abi].profile or "spec"
        return wanted, wanted if wanted != declared else None

    def _lacks(self, case: Case, hello: Hello) -> str | None:
        """Return what the implementation does not have of what the case needs, None where it has all."""
        offer = hello.abis.get(case.abi)
        if offer is None:
            return f"it has no {case.abi}"
        if case.role not in offer.roles:
            return f"it has no {case.role} role of {case.abi}"
        if case.revision not in offer.revisions:
            return f"it has no revision {case.revision} of {case.abi}"
        if case.transport not in offer.transports:
            return f"it has no transport {case.transport} of {case.abi}"
        for feature in case.features:
            if feature in hello.features:
                continue
            injected = {step.inject.fault for step in case.steps if step.inject is not None}
            # Where the VMM can be seen, the runner is the VMM, and refuses by itself.
            if feature == "inject" and injected == {"vmm-error"} and "exits" in hello.features and shows_exits(case):
                continue
            return f"it has not the feature {feature}"
        return None

    def _configure(self, case: Case, hello: Hello) -> None:
        """Configure where the case needs another configuration than the one before."""
        client = self._need()
        _, profile = self._profile_for(case, hello)
        setup = case.setup
        key: _Key = (
            case.abi, case.revision, case.transport, case.role, profile, tuple(sorted(setup.config.items())),
            setup.memory, setup.enabled, setup.max_ranges, setup.scratch,
        )  # fmt: skip
        if key == self._key:
            return
        if key in self._unsupported:
            raise PeerUnsupported(self._unsupported[key])
        self._key = None
        try:
            client.configure(case.abi, case.revision, case.transport, case.role, setup, profile=profile)
        except PeerUnsupported as error:
            self._unsupported[key] = error.message
            raise
        self._key = key
        # What can be shown may depend on the configuration.
        self._can_query = True

    def _need(self) -> Client:
        if self._client is None:
            raise AssertionError("there is a session while a case runs")
        return self._client

    def _judge(self, case: Case, hello: Hello) -> CaseResult:
        client = self._need()
        profile, _ = self._profile_for(case, hello)
        deadline = time.monotonic() + self.case_seconds

        def check_time() -> None:
            if time.monotonic() > deadline:
                raise PeerTimeout(f"the case took longer than {self.case_seconds:g} s", seconds=self.case_seconds)

        features = hello.features
        runner: HostCase | GuestCase
        if case.role == "host":
            runner = HostCase(
                client, case, profile=profile, features=features, can_query=self._can_query, check_time=check_time
            )
        else:
            runner = GuestCase(client, case, profile=profile, features=features, check_time=check_time)
        try:
            outcome = runner.run()
        except PeerUnsupported as error:
            # A conversation may be open; the reset of the next case ends it.
            self._broken = 0
            return self._result(case, Verdict.SKIP, error.message, runner.outcome)
        except Unseen as end:
            return self._give_up(case, end.verdict, end.message, runner.outcome)
        except (PeerTimeout, PeerLost, ProtocolViolation, PeerError) as error:
            return self._broke(case, error, runner.outcome)
        finally:
            if isinstance(runner, HostCase):
                self._can_query = runner.can_query
        self._broken = 0
        verdict, message = outcome.verdict()
        return self._result(case, verdict, message, outcome)

    # -- results ------------------------------------------------------------------------------------------------

    def _broke(self, case: Case, error: HvAbiError, outcome: Outcome | None) -> CaseResult:
        """Return the verdict on an implementation that broke, and end the session where it cannot go on."""
        match error:
            case PeerTimeout():
                verdict = Verdict.TIMEOUT
            case PeerLost():
                verdict = Verdict.CRASH
            case ProtocolViolation():
                verdict = Verdict.PROTOCOL
            case _:
                verdict = Verdict.ERROR
        message = error.message
        if isinstance(error, ProtocolViolation) and outcome is not None:
            line = str(error.fields.get("line", ""))
            finding = Finding(what="line", expected=message, found=line, step=len(outcome.exchanged))
            outcome.add(finding, "must")
        if isinstance(error, PeerError):
            # It still answers: a new configuration puts it into a known state.
            self._key = None
            message = f"`{error.fields.get('command')}` was answered with error: {message}"
            return self._result(case, verdict, message, outcome)
        return self._give_up(case, verdict, message, outcome)

    def _give_up(self, case: Case, verdict: Verdict, message: str, outcome: Outcome | None) -> CaseResult:
        result = self._result(case, verdict, message, outcome)
        self.close(politely=False)
        self._broken += 1
        return result

    @property
    def exhausted(self) -> bool:
        """Whether so many cases in a row needed a restart that the run is to be given up."""
        return self._broken >= RESTARTS_IN_A_ROW

    def _result(self, case: Case, verdict: Verdict, message: str, outcome: Outcome | None) -> CaseResult:
        connection = self._need().connection
        log, stderr = connection.take_log(), connection.take_stderr()
        if not verdict.bad:
            log, stderr = log[-_LOG_OF_GOOD:], stderr[-_LOG_OF_GOOD:]
        return self._result_of(
            case,
            verdict,
            escape(message),
            findings=tuple(finding for finding, _ in outcome.findings) if outcome else (),
            exchanged=tuple(outcome.exchanged) if outcome else (),
            policies=dict(outcome.policies) if outcome else {},
            log=log,
            stderr=stderr,
        )

    def _result_of(self, case: Case, verdict: Verdict, message: str, **more: Any) -> CaseResult:
        seconds = time.monotonic() - self._started
        command = self.command(case)
        return CaseResult(case=case, verdict=verdict, message=message, seconds=seconds, reproduce=command, **more)


__all__ = ["RESTARTS_IN_A_ROW", "STARTS_PER_CASE", "GivenUp", "Supervisor"]
