"""The working half of the pytest plugin: cases as tests, one session per process. Loaded only with ``--hv-iut``."""

from __future__ import annotations

import itertools
import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from hvabi.abi.errors import HvAbiError
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.connect import parse_connector
from hvabi.conformance.known import KnownFailures, judge_known, load_known
from hvabi.conformance.result import CaseResult, Verdict
from hvabi.conformance.run import switched_policies
from hvabi.conformance.selection import Selection, select
from hvabi.conformance.supervise import GivenUp, Supervisor
from hvabi.conformance.transcript import Recorder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.case import Case

_PROPERTY = "hvabi-policies"


class ConformanceWarning(UserWarning):
    """A ``should`` of the specification is not met."""


class CaseFailure(Exception):  # pytest shows the name
    """A case failed; the text is the report of it."""


class CasePlugin:
    """Collects cases, runs them, and looks at the policies of all workers at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.profile = str(config.getoption("--hv-profile"))
        self.known = KnownFailures()
        self.supervisor: Supervisor | None = None
        self.recorder: Recorder | None = None
        self.given_up = ""
        self.cases: dict[str, Case] = {}
        self.shown: list[CaseResult] = []
        try:
            self.connector = parse_connector(str(config.getoption("--hv-iut")))
            expect = config.getoption("--hv-expect")
            if expect:
                self.known = load_known(expect)
        except HvAbiError as error:
            _usage(error)

    # -- collection ---------------------------------------------------------------------------------------------

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Add a test for every case, before -k and the like choose among them."""
        config = self.config
        role = config.getoption("--hv-role")
        selection = Selection(ids=tuple(config.getoption("--hv-case")))
        try:
            every = list(every_case(config.getoption("--hv-abi"), role=role, profile=self.profile))
            cases = select(every, selection, profile=self.profile)
        except HvAbiError as error:
            _usage(error)
        problems = self.known.stale_entries([case.id for case in every])
        if problems:
            raise pytest.UsageError("\n".join(problems))
        self.cases = {case.id: case for case in cases}
        parent = _Cases.from_parent(session, name="hvabi", nodeid="hvabi")
        parent.plugin = self
        # As pytest does for a file, so that the tests are counted and other plugins see them.
        report = config.hook.pytest_make_collect_report(collector=parent)
        config.hook.pytest_collectreport(report=report)
        items.extend(report.result)

    def pytest_report_header(self) -> str:
        """Say which implementation is tested."""
        return f"hvabi: {self.connector.name}, profile {self.profile}"

    # -- running ------------------------------------------------------------------------------------------------

    def run(self, case: Case) -> CaseResult:
        """Run one case in this process's session, which is opened for the first."""
        if self.given_up:
            return CaseResult(case=case, verdict=Verdict.NOT_RUN, message=self.given_up)
        if self.supervisor is None:
            self.supervisor = self._start()
        try:
            result = self.supervisor.run(case)
        except GivenUp as error:
            self.given_up = error.message
            return CaseResult(case=case, verdict=Verdict.NOT_RUN, message=error.message)
        if self.supervisor.exhausted:
            self.given_up = "the implementation broke in too many cases in a row"
        return result

    def _start(self) -> Supervisor:
        place = self.config.getoption("--hv-transcript")
        if place:
            worker = getattr(self.config, "workerinput", {}).get("workerid")
            path = Path(place)
            path = path.with_name(f"{path.stem}-{worker}{path.suffix}") if worker else path
            self.recorder = Recorder(path, connector=self.connector.name)
        wanted = {word for case in self.cases.values() for word in case.features} - {"inject"}
        return Supervisor(
            self.connector,
            profile=self.profile,
            timeout=float(self.config.getoption("--hv-timeout")),
            ids=itertools.count(1),
            features=frozenset(wanted),
            recorder=self.recorder,
        )

    def pytest_unconfigure(self) -> None:
        """End the session."""
        if self.supervisor is not None:
            self.supervisor.close()
        self.connector.close()
        if self.recorder is not None:
            self.recorder.close()

    # -- policies of the whole run ------------------------------------------------------------------------------

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Take the policies that a test has shown; with pytest-xdist the reports of all workers come here."""
        for name, value in report.user_properties:
            if name == _PROPERTY and report.when == "call" and isinstance(value, str):
                case = self.cases.get(report.nodeid.removeprefix("hvabi::")) or _stand_in(report.nodeid)
                if case is not None:
                    self.shown.append(CaseResult(case=case, verdict=Verdict.PASS, policies=json.loads(value)))

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the run where a policy was switched."""
        if switched_policies(self.shown) and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Say which policies were switched."""
        problems = switched_policies(self.shown)
        if problems:
            terminalreporter.section("hvabi: policies changed in mid-run")
            for problem in problems:
                terminalreporter.line(problem)


def _stand_in(nodeid: str) -> Case | None:
    """Return a case as far as a node id tells it: the process that gathers reports may have collected none."""
    from hvabi.conformance.case import Case

    ident = nodeid.removeprefix("hvabi::")
    abi, at, rest = ident.partition("@")
    words = rest.split(".")
    role = next((word for word in words if word in ("host", "guest")), None)
    if not at or role is None:
        return None
    revision = ".".join(words[: words.index(role)])
    return Case(
        id=ident, abi=abi, revision=revision, role="host" if role == "host" else "guest", transport="", rules=(),
        level="must", why="", kind="",
    )  # fmt: skip


def _usage(error: HvAbiError) -> NoReturn:
    raise pytest.UsageError(str(error)) from error


class _Cases(pytest.Collector):
    """The parent of all cases, which belong to no file."""

    plugin: CasePlugin

    def collect(self) -> Iterator[pytest.Item]:
        """Yield every case as a test."""
        for case in self.plugin.cases.values():
            yield CaseItem.from_parent(self, name=case.id, nodeid=f"hvabi::{case.id}", case=case, plugin=self.plugin)


class CaseItem(pytest.Item):
    """One case as a test."""

    def __init__(self, *, case: Case, plugin: CasePlugin, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case
        self.plugin = plugin

    def runtest(self) -> None:
        """Run the case and say what came out in pytest's words."""
        result = self.plugin.run(self.case)
        if result.policies:
            self.user_properties.append((_PROPERTY, json.dumps(dict(result.policies), sort_keys=True)))
        entry = self.plugin.known.entry_for(self.case.id)
        kind, problem = judge_known(entry, result)
        if problem:
            raise CaseFailure(f"{problem}\n\n{_text(result)}")
        if kind is not None and entry is not None:
            pytest.xfail(f"{kind}: {entry.reason}")
        if result.verdict is Verdict.SKIP:
            pytest.skip(result.message)
        if result.verdict.bad:
            raise CaseFailure(_text(result))
        if result.verdict is Verdict.WARN:
            warnings.warn(ConformanceWarning(f"{self.case.id}: {result.message}"), stacklevel=1)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Show the report of the case instead of a traceback."""
        if isinstance(excinfo.value, CaseFailure):
            return str(excinfo.value)
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Say where the test is from."""
        return self.plugin.config.rootpath, None, f"hvabi: {self.case.id}"


def _text(result: CaseResult) -> str:
    case = result.case
    lines = [f"{result.verdict.value}: {result.message}", f"why: {case.why}", f"rules: {', '.join(case.rules)}"]
    lines += [f"step {finding.step}: {finding}" for finding in result.findings]
    for name, text in (("log", result.log), ("standard error", result.stderr)):
        if text.strip():
            lines += [f"-- end of the {name}", *text.strip().splitlines()[-20:]]
    if result.reproduce:
        lines.append(f"$ {result.reproduce}")
    return "\n".join(lines)


__all__ = ["CaseFailure", "CaseItem", "CasePlugin", "ConformanceWarning"]
