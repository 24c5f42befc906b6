from __future__ import annotations

import itertools
import json
import resource
import sys
import time
import uuid
from typing import TYPE_CHECKING, Any

import pytest

from hvabi.abi.errors import UsageError
from hvabi.conformance import client as client_module
from hvabi.conformance.case import Case, Expected, HostStep, Inject, Setup
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.connect import SimpleConnector
from hvabi.conformance.generate import cases
from hvabi.conformance.inprocess import DirectConnection
from hvabi.conformance.iut import Session
from hvabi.conformance.result import CaseResult, RunResult, Verdict
from hvabi.conformance.run import declared_profile, probe, run_cases, switched_policies
from hvabi.conformance.selection import Selection
from tests.conformance.peers import host_case, host_cases, processes_with, write_peer

if TYPE_CHECKING:
    from pathlib import Path

V = Verdict
BAD_CASE = 2
COUNT = 4


OFFER: dict[str, Any] = {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["host"]}


def verdicts(run: RunResult) -> list[str]:
    return [result.verdict.value for result in run.results]


def toy(body: str, **keys: Any) -> str:
    return f"if number == {BAD_CASE}:\n" + "\n".join("    " + line for line in body.strip().splitlines())


# What the toy does in case 2 of 4: name, code, verdict on that case, part of its message.
MISBEHAVIOUR = [
    ("exits-3", "os._exit(3)", V.CRASH, "exited with code 3"),
    ("exits-0", "sys.exit(0)", V.CRASH, "exited with code 0"),
    ("segfault", "os.kill(os.getpid(), signal.SIGSEGV)", V.CRASH, "killed by SIGSEGV"),
    ("raises", "raise ValueError('boom')", V.CRASH, "exited with code 1"),
    ("closes-stdout", "os.close(1); time.sleep(60)", V.CRASH, "closed its output"),
    ("never-answers", "time.sleep(60)", V.TIMEOUT, "no answer in 0.4 s"),
    ("answers-late", "time.sleep(0.8)", V.TIMEOUT, "no answer"),
    ("ignores-sigterm", "signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)", V.TIMEOUT, "no answer"),
    ("floods-for-ever", "while True: os.write(1, b'x' * 65535 + b'\\n')", V.TIMEOUT, "no answer"),
    ("floods-prefixed", "while True: os.write(1, b'@hvabi ' + b'x' * 65536)", V.PROTOCOL, "longer than"),
    ("floods-stderr", "while True: os.write(2, b'x' * 65536)", V.TIMEOUT, "no answer"),
    ("garbage", "print(P + '{nonsense', flush=True); return True", V.PROTOCOL, "no JSON"),
    ("binary", "os.write(1, P.encode() + bytes(range(128, 256)) + b'\\n'); return True", V.PROTOCOL, "no JSON"),
    ("no-object", "print(P + '[1]', flush=True); return True", V.PROTOCOL, "no JSON object"),
    ("deep", "print(P + '[' * 100000, flush=True); return True", V.PROTOCOL, "no JSON"),
    ("wrong-id", "say(id=ident + 1, ok={}); return True", V.PROTOCOL, "the answer is for id"),
    ("no-id", "say(ok={}); return True", V.PROTOCOL, "`id` is no JSON number"),
    ("id-null", "say(id=None, error={'message': 'what?'}); return True", V.PROTOCOL, "could not read a line"),
    ("answers-twice", "say(id=ident, ok={'end': 'return', 'regs': {'r10': '0x0'}})", V.PROTOCOL, "is for id"),
    ("none-of-four", "say(id=ident, result={}); return True", V.PROTOCOL, "none of them"),
    ("two-of-four", "say(id=ident, ok={}, error={}); return True", V.PROTOCOL, "ok and error"),
    ("ok-no-object", "say(id=ident, ok=[]); return True", V.PROTOCOL, "`ok` is no object"),
    ("no-end", "say(id=ident, ok={}); return True", V.PROTOCOL, "`end` is missing"),
    ("unknown-end", "say(id=ident, ok={'end': 'maybe'}); return True", V.PROTOCOL, "end is one of"),
    ("plain-number", "say(id=ident, ok={'end': 'return', 'regs': {'r10': 0}}); return True", V.PROTOCOL, "r10"),
    ("upper-case", "say(id=ident, ok={'end': 'return', 'regs': {'r10': '0X0'}}); return True", V.PROTOCOL, "r10"),
    ("odd-hex", "say(id=ident, ok={'end': 'return', 'mem': [['0x0', 'abc']]}); return True", V.PROTOCOL, "hex"),
    ("says-error", "say(id=ident, error={'message': 'broke\\x1b[31m'}); return True", V.ERROR, "broke\\x1b"),
    ("says-unsupported", "say(id=ident, unsupported={'message': 'no such'}); return True", V.SKIP, "no such"),
    ("unsupported-bare", "say(id=ident, unsupported={}); return True", V.PROTOCOL, "has no message"),
    ("wrong-answer", "say(id=ident, ok={'end': 'return', 'regs': {'r10': '0x1'}}); return True", V.FAIL, "r10"),
    ("kernel-noise", "print('[    0.1] tdx: @hvabi is here\\n\\0\\xff oops'); print('@hvab', flush=True)", V.PASS, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "verdict", "message"), [row[1:] for row in MISBEHAVIOUR], ids=[r[0] for r in MISBEHAVIOUR]
)
def test_misbehaviour_costs_its_own_case_only(tmp_path: Path, body: str, verdict: Verdict, message: str) -> None:
    mark = uuid.uuid4().hex
    connector = write_peer(tmp_path, toy(body), mark=mark)
    started = time.monotonic()
    run = run_cases(host_cases(COUNT), connector, timeout=0.4)
    # A second of its own for every start on a slow machine.
    assert time.monotonic() - started < 8
    wanted = ["pass"] * COUNT
    wanted[BAD_CASE] = verdict.value
    assert verdicts(run) == wanted
    assert message in run.results[BAD_CASE].message
    assert run.complete
    assert run.problems == ()
    assert run.peer == "toy 1"
    assert processes_with(mark) == []


def test_noise_and_stderr_stay_with_their_case(tmp_path: Path) -> None:
    body = toy(
        "print('[ 0.1] printk', flush=True); print('panic: no reason', file=sys.stderr, flush=True); os._exit(1)"
    )
    run = run_cases(host_cases(COUNT), write_peer(tmp_path, body))
    assert "[ 0.1] printk" in run.results[BAD_CASE].log
    assert "panic: no reason" in run.results[BAD_CASE].stderr
    assert not any(result.log or result.stderr for result in run.results if result.verdict is V.PASS)


def test_a_gigabyte_of_noise_is_bounded_in_time_and_memory(tmp_path: Path) -> None:
    body = toy("""
block = (b'x' * 127 + bytes([10])) * 8192
for _ in range(1024): os.write(1, block)
""")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run = run_cases(host_cases(COUNT), write_peer(tmp_path, body), timeout=40)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert verdicts(run) == ["pass"] * COUNT
    assert grown < 64 * 1024  # KiB
    assert len(run.results[BAD_CASE].log) <= 64 * 1024 + 100


# Three sleepers: two that left the session, with an empty environment, of which one ignores SIGTERM; one plain child.
ORPHANS = """
sleeper = [sys.executable, "-I", "-S", "-c", "import time; time.sleep(100)", MARK]
def line(p):
    try:
        return open(f"/proc/{p}/cmdline").read()
    except OSError:
        return ""
for stubborn in (False, True):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            if stubborn:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.execve(sleeper[0], sleeper, {})
        os._exit(0)
subprocess.Popen(sleeper)
while sum('time.sleep' in line(p) and MARK in line(p) for p in os.listdir('/proc') if p.isdigit()) < 3:
    time.sleep(0.01)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc and adopts orphans as Linux does")
@pytest.mark.parametrize("end", ["pass", "time.sleep(60)", "os._exit(7)", "os.kill(os.getpid(), signal.SIGKILL)"],
                         ids=["good", "hangs", "exits", "killed"])  # fmt: skip
def test_no_child_survives(tmp_path: Path, end: str) -> None:
    mark = uuid.uuid4().hex
    connector = write_peer(tmp_path, toy(ORPHANS + end), mark=mark)
    run = run_cases(host_cases(BAD_CASE + 1), connector, timeout=3)
    assert run.results[BAD_CASE].verdict is {"pass": V.PASS, "time.sleep(60)": V.TIMEOUT}.get(end, V.CRASH)
    assert processes_with(mark) == []


def test_the_run_is_given_up_after_twenty_restarts_in_a_row(tmp_path: Path) -> None:
    run = run_cases(host_cases(24), write_peer(tmp_path, "os._exit(9)"))
    assert verdicts(run) == ["crash"] * 20 + ["not-run"] * 4
    assert not run.complete
    assert not run.good
    assert run.problems == ("the run was given up: the implementation broke in too many cases in a row",)


@pytest.mark.parametrize(
    ("connector", "text"),
    [
        (
            "cmd:/nonexistent/vmm --tdx 'a b'",
            "/nonexistent/vmm --tdx 'a b' cannot be started: No such file or directory",
        ),
        ("cmd:/etc/passwd", "Permission denied"),
        ("cmd:false", "exited with code 1"),
        ("cmd:sh -c 'echo cannot open /dev/kvm >&2; exit 2'", "cannot open /dev/kvm"),
        ("cmd:cat", "exactly one of ok"),
        ("cmd:sleep 60", "no answer"),
    ],
    ids=["not-there", "not-executable", "ends-at-once", "says-why", "echoes", "silent"],
)
def test_one_that_does_not_start(monkeypatch: pytest.MonkeyPatch, connector: str, text: str) -> None:
    monkeypatch.setattr(client_module, "_HELLO_SECONDS", 0.5)
    run = run_cases(host_cases(3), connector, timeout=0.5)
    assert verdicts(run) == ["not-run"] * 3
    assert not run.complete
    if connector != "cmd:cat":
        assert text in run.problems[0]


@pytest.mark.parametrize(
    ("hello", "verdict", "text"),
    [
        ({"protocol": 2}, "not-run", "protocol is 2"),
        ({"name": 7}, "not-run", "name is a string"),
        ({"abis": []}, "not-run", "abis is an object"),
        ({"abis": {"tdx-map-gpa": {}}}, "not-run", "`roles` is missing"),
        ({"abis": {}}, "skip", "it has no tdx-map-gpa"),
        ({"abis": {"tdx-map-gpa": {**OFFER, "roles": ["guest"]}}}, "skip", "no host role"),
        ({"abis": {"tdx-map-gpa": {**OFFER, "revisions": ["old"]}}}, "skip", "no revision"),
        ({"abis": {"tdx-map-gpa": {**OFFER, "transports": []}}}, "skip", "no transport"),
    ],
    ids=["version", "name", "abis", "offer", "no-abi", "no-role", "no-revision", "no-transport"],
)  # fmt: skip
def test_hello(tmp_path: Path, hello: dict[str, Any], verdict: str, text: str) -> None:
    run = run_cases(host_cases(1), write_peer(tmp_path, "pass", start=f"HELLO.update({hello!r})"))
    assert verdicts(run) == [verdict]
    assert text in run.results[0].message


@pytest.mark.parametrize("jobs", [2, 5])
def test_the_same_results_for_any_number_of_jobs(tmp_path: Path, jobs: int) -> None:
    fault = "say(id=ident, ok={'end': 'fault', 'fault': 'gp'}); return True"
    body = f"if number % 7 == 3: os._exit(1)\nif number % 5 == 1: {fault}"
    connector = write_peer(tmp_path, body)
    # Chunks are of 64 cases: more than two of them.
    many = [host_case(n) for n in range(150)]

    def told(run: RunResult) -> list[tuple[str, str, str]]:
        return [(result.case.id, result.verdict.value, result.message) for result in run.results]

    seen: list[int] = []
    run = run_cases(many, connector, jobs=jobs, progress=lambda result, done, total: seen.append(done))
    assert told(run) == told(run_cases(many, connector))
    assert seen == list(range(1, 151))


def test_selection() -> None:
    every = list(cases("tdx-map-gpa"))
    run = run_cases(every, "builtin", selection=Selection(roles=("guest",), ids=("*lies*", every[-1].id)))
    assert 0 < len(run.results) < len(every)
    assert {result.case.role for result in run.results} == {"guest"}
    for nothing in (Selection(ids=("nothing*",)), Selection(abis=("tdx-map-gpa@v9",)), Selection(levels=("observed",))):
        with pytest.raises(UsageError, match="no case is selected"):
            run_cases(every, "builtin", selection=nothing)
    with pytest.raises(UsageError, match="no case is selected"):
        run_cases([], "builtin")
    with pytest.raises(UsageError, match="two cases"):
        run_cases([every[0], every[0]], "builtin")
    with pytest.raises(UsageError, match="unknown profile"):
        run_cases(every, "builtin", profile="linux-kvm-0.1")


def test_bundled_adapters_pass_in_both_roles_with_all_features() -> None:
    every = [*cases("tdx-map-gpa"), *itertools.islice(cases("ghcb-psc", role="host"), 30)]
    run = run_cases(every, "builtin", features=("exits", "local-steps"))
    assert [result.message for result in run.results if result.verdict is not V.PASS] == []
    assert run.good


def test_bundled_adapters_over_a_pipe_and_their_profile() -> None:
    connector = f"cmd:{sys.executable} -m hvabi.cli.main iut"
    hello = probe("builtin")
    assert declared_profile(hello, "tdx-map-gpa") == "spec"
    every = list(cases("tdx-map-gpa", role="host", profile="linux-kvm-7.3"))
    run = run_cases(every, connector, profile="linux-kvm-7.3")
    assert verdicts(run) == ["pass"] * len(every)


# -- canned implementations, in process ---------------------------------------------------------------------------


class Canned:
    """Answers calls from a table by r12, and remembers what it was told."""

    def __init__(self, answers: dict[int, list[dict[str, Any]]], *, features: tuple[str, ...] = ("inject",),
                 query: dict[str, Any] | None = None, **hello: Any) -> None:  # fmt: skip
        self.answers = {number: list(rows) for number, rows in answers.items()}
        self.features = features
        self.query = query
        self.hello = hello
        self.told: list[dict[str, Any]] = []

    def handle(self, line: str) -> str:
        command = json.loads(line.removeprefix("@hvabi "))
        self.told.append(command)
        offer = {"revisions": ["ghci-1.5"], "transports": ["tdcall"], "roles": ["host"], **self.hello}
        body: dict[str, Any] = {"ok": {}}
        if command["cmd"] == "hello":
            body = {"ok": {"protocol": 1, "name": "canned", "version": "", "features": self.features, "abis": {
                "tdx-map-gpa": offer}}}  # fmt: skip
        elif command["cmd"] == "call":
            self.number = int(command["regs"].get("r12", "0x0"), 16)
            body = self.answers[self.number].pop(0)
        elif command["cmd"] == "resume":
            body = self.answers[self.number].pop(0)
        elif command["cmd"] == "query":
            body = {"ok": self.query} if self.query is not None else {"unsupported": {"message": "no query"}}
        return "@hvabi " + json.dumps({"id": command["id"], **body}) + "\n"

    def run(self, *cases: Case, **keys: Any) -> RunResult:
        return run_cases(cases, SimpleConnector("canned", lambda: DirectConnection(self.handle, "canned")), **keys)

    def commands(self, name: str) -> list[dict[str, Any]]:
        return [command for command in self.told if command["cmd"] == name]


NOTHING: dict[str, Any] = {"ranges": [], "facts": {}}


def returns(**regs: int) -> dict[str, Any]:
    return {"ok": {"end": "return", "regs": {name: hex(value) for name, value in regs.items()}}}


def replays(**regs: int) -> dict[str, Any]:
    return {"ok": {"end": "replay", "regs": {name: hex(value) for name, value in regs.items()}}}


def test_without_query_the_state_is_not_seen() -> None:
    run = Canned({1: [returns(r10=0)], 2: [returns(r10=0)]}).run(host_case(1), host_case(2))
    assert verdicts(run) == ["pass-state-not-seen"] * 2
    assert run.good


def test_states_are_asked_for_again_after_each_configure() -> None:
    """What an implementation can show may depend on its configuration."""

    class Shy(Canned):
        def handle(self, line: str) -> str:
            command = json.loads(line.removeprefix("@hvabi "))
            if command["cmd"] == "configure":
                self.query = NOTHING if command["config"].get("enabled", True) else None
            return super().handle(line)

    off = Setup(enabled=False)
    answers = {number: [returns(r10=0)] for number in (1, 2, 3)}
    canned = Shy(answers)
    run = canned.run(host_case(1, setup=off), host_case(2, setup=off), host_case(3))
    assert verdicts(run) == ["pass-state-not-seen", "pass-state-not-seen", "pass"]
    assert len(canned.commands("query")) == 2


@pytest.mark.parametrize(
    ("level", "profile", "verdict"),
    [("must", None, V.FAIL), ("should", None, V.WARN), ("may", None, V.NOTE), ("unspecified", None, V.NOTE),
     ("observed", "linux-kvm-7.3", V.FAIL)],
)  # fmt: skip
def test_the_level_makes_the_verdict(level: str, profile: str | None, verdict: Verdict) -> None:
    case = host_case(1, level=level, profile=profile)
    run = Canned({1: [returns(r10=1)]}, query=NOTHING).run(case, profile=profile or "spec")
    assert run.results[0].verdict is verdict
    assert run.good is not verdict.bad


def test_the_rule_behind_an_answer_can_lower_the_level_and_never_raise_it() -> None:
    # TDX-MAPGPA-07 is a should, 06 a must.
    should = host_case(1, Expected(regs={"r10": 0}, rule="TDX-MAPGPA-07"))
    note = host_case(2, Expected(regs={"r10": 0}, rule="TDX-MAPGPA-06"), level="may")
    run = Canned({1: [returns(r10=1)], 2: [returns(r10=1)]}, query=NOTHING).run(should, note)
    assert verdicts(run) == ["warn", "note"]


def test_replay_lays_registers_over_and_calls_again_without_memory_and_fault() -> None:
    canned = Canned({1: [replays(rcx=5), replays(rdx=6), returns(r10=0)]}, query=NOTHING)
    step = HostStep(
        regs={"r12": 1, "rcx": 1, "rdx": 2}, mem=((0x1000, b"\1"),),
        inject=Inject(fault="stop-after", arguments={"pages": 1}),
        expected=(Expected(regs={"r10": 0, "rcx": 5, "rdx": 6}),),
    )  # fmt: skip
    run = canned.run(host_case(1, steps=(step,)))
    assert verdicts(run) == ["pass"]
    calls = canned.commands("call")
    assert [call["mem"] for call in calls] == [[["0x1000", "01"]], [], []]
    assert calls[2]["regs"] == {"r12": "0x1", "rcx": "0x5", "rdx": "0x6"}
    assert len(canned.commands("inject")) == 1


def test_replay_that_is_expected_is_judged_and_not_followed() -> None:
    canned = Canned({1: [replays(rcx=5)]}, query=NOTHING)
    assert verdicts(canned.run(host_case(1, Expected(end="replay", regs={"rcx": 5})))) == ["pass"]


def test_replay_for_ever_is_no_progress() -> None:
    run = Canned({1: [replays()] * 1000, 2: [returns(r10=0)]}, query=NOTHING).run(host_case(1), host_case(2))
    assert verdicts(run) == ["no-progress", "pass"]


EXIT = {"yield": {"exit": {"abi": "kvm-exit-hypercall", "regs": {}, "mem": []}}}


def good_exit() -> dict[str, Any]:
    from hvabi.abi.registry import load

    wire = load("kvm-exit-hypercall").message("request").encode(gpa=0x1000, npages=1, attributes=0, flags=1)
    mem = [[hex(at), data.hex()] for at, data in wire.mem]
    return {
        "yield": {"exit": {"abi": "kvm-exit-hypercall", "regs": {k: hex(v) for k, v in wire.regs.items()}, "mem": mem}}
    }


def test_exits_are_answered_and_their_bytes_decode() -> None:
    canned = Canned({1: [good_exit(), good_exit(), returns(r10=0)]}, features=("exits",), query=NOTHING)
    assert verdicts(canned.run(host_case(1))) == ["pass"]
    assert len(canned.commands("resume")) == 2
    bad = Canned(
        {1: [EXIT, returns(r10=0)], 2: [{"yield": {"exit": {"abi": "no-abi"}}}, returns(r10=0)]}, query=NOTHING
    )
    run = bad.run(host_case(1), host_case(2))
    assert verdicts(run) == ["fail", "fail"]
    assert "exit no-abi" in run.results[1].message


def test_the_runner_is_the_vmm_where_exits_are_shown_and_nothing_can_be_injected() -> None:
    refuse = host_case(1, inject=Inject(fault="vmm-error", arguments={"errno": 22}), features=("inject",))
    stop = host_case(2, inject=Inject(fault="stop-after", arguments={"pages": 1}), features=("inject",))
    canned = Canned({1: [good_exit(), good_exit(), returns(r10=0)]}, features=("exits",), query=NOTHING)
    assert verdicts(canned.run(refuse, stop)) == ["pass", "skip"]
    first, second = (b"".join(bytes.fromhex(data) for _, data in row["mem"]) for row in canned.commands("resume"))
    assert first.startswith(bytes([22]))
    assert not any(second)
    assert canned.commands("inject") == []


def test_steps_go_on_from_a_wrong_one_only_behind_a_reset() -> None:
    steps = tuple(HostStep(regs={"r12": n}, expected=(Expected(regs={"r10": 0}),), fresh=n == 3) for n in range(1, 4))
    canned = Canned({1: [returns(r10=1)], 2: [returns(r10=0)], 3: [returns(r10=2)]}, query=NOTHING)
    run = canned.run(host_case(1, steps=steps))
    assert [finding.step for finding in run.results[0].findings] == [0, 2]
    assert len(canned.commands("call")) == len(canned.commands("reset")) == 2


def two_ways(number: int) -> Case:
    return host_case(
        number, Expected(regs={"r10": 0}, policies={"no-memory": "allow", "eagain": "retry"}),
        Expected(regs={"r10": 1}, policies={"no-memory": "refuse", "eagain": "retry"}),
    )  # fmt: skip


def test_a_policy_that_changes_in_mid_run_is_a_problem() -> None:
    canned = Canned({1: [returns(r10=0)], 2: [returns(r10=1)], 3: [returns(r10=1)]}, query=NOTHING)
    run = canned.run(two_ways(1), two_ways(2), two_ways(3))
    assert verdicts(run) == ["pass"] * 3
    assert [dict(result.policies) for result in run.results] == [
        {"no-memory": word} for word in ("allow", "refuse", "refuse")
    ]
    assert len(run.problems) == 1
    assert "policy no-memory was allow in" in run.problems[0]
    assert not run.good
    same = Canned({1: [returns(r10=1)], 2: [returns(r10=1)]}, query=NOTHING).run(two_ways(1), two_ways(2))
    assert same.good
    assert switched_policies(same.results) == []


@pytest.mark.parametrize(
    ("declared", "asked", "sent"),
    [(None, "spec", None), ("linux-kvm-7.3", "spec", "spec"), ("linux-kvm-7.3", "linux-kvm-7.3", None),
     (None, "linux-kvm-7.3", "linux-kvm-7.3")],
)  # fmt: skip
def test_the_profile_is_configured_where_it_is_not_the_declared_one(declared: str, asked: str, sent: str) -> None:
    canned = Canned({1: [returns(r10=0)]}, query=NOTHING, profile=declared)
    assert canned.run(host_case(1), profile=asked).good
    assert canned.commands("configure")[0]["config"].get("profile") == sent


def test_one_configure_for_cases_that_need_the_same() -> None:
    canned = Canned({n: [returns(r10=0)] for n in range(5)}, query=NOTHING)
    assert canned.run(*host_cases(5)).good
    assert len(canned.commands("configure")) == 1
    assert len(canned.commands("reset")) == 5


def test_a_mistake_of_the_runner_is_told_and_costs_one_case() -> None:
    broken = host_case(1, steps=(HostStep(regs={"r12": 1}, expected=()),))
    canned = Canned({1: [returns(r10=0)], 2: [returns(r10=0)]}, query=NOTHING)
    run = canned.run(broken, host_case(2))
    assert verdicts(run) == ["not-run", "pass"]
    assert "the runner failed" in run.problems[0]


def test_the_command_that_runs_one_case(tmp_path: Path) -> None:
    run = run_cases(host_cases(1), write_peer(tmp_path, "pass"))
    result: CaseResult = run.results[0]
    assert result.reproduce.startswith("hvabi conform --iut 'cmd:")
    assert result.reproduce.endswith(f"--case {result.case.id}")


def test_builtin_comes_out_the_same_over_objects_and_over_lines() -> None:
    cases = list(every_case())[::4]  # all of them take most of a minute

    def outcome(connector: str | SimpleConnector) -> list[tuple[object, ...]]:
        run = run_cases(cases, connector)
        assert run.good, run.problems
        return [(r.case.id, r.verdict, r.message, r.findings, r.exchanged, r.policies, r.log) for r in run.results]

    over_lines = SimpleConnector("builtin", lambda: DirectConnection(Session().handle, "builtin"))
    assert outcome("builtin") == outcome(over_lines)
