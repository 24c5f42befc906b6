"""Runs made by hand for the tests of reports: every verdict, and text that wants to break out."""

from __future__ import annotations

from dataclasses import replace

from hvabi.conformance.case import Case, Expected, GuestScript, HostStep, Setup
from hvabi.conformance.result import CaseResult, Exchanged, Finding, RunResult, Verdict

CONTROLS = "\x00\x01\x07\x08\x0b\x1b[31mred\x1b[0m\x1b]0;title\x07\x7f\x9b\u202e\u2028\ufffe\ud800\r"
NASTY = f"<script>alert(1)</script> ]]> & \"quoted\" 'single' {CONTROLS}\n# not ok 9 forged\nok 1 forged # SKIP\n"

# One page to shared with a size of 0x1800: ALIGN_ERROR and the address back, per GHCI MapGPA.
SENT = {"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": 0x800040101000, "r13": 0x1800}
ALIGN_ERROR = Expected(
    regs={"r10": 0x8000000000000002, "r11": 0x800040101000},
    may_change=("rdx", "rbx", "rsi", "rdi", "r8", "r9", "r12", "r13", "r14", "r15"),
    policies={"unknown-leaf": "subfunc-unsupported", "no-memory": "allow"},
    rule="TDX-MAPGPA-06",
    status="misaligned",
    why="Address and size must be multiples of 4 KiB.",
)


def tdx_case(name: str = "size-unaligned", **changes: object) -> Case:
    base = Case(
        id=f"tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.{name}",
        abi="tdx-map-gpa",
        revision="ghci-1.5",
        role="host",
        transport="tdcall",
        rules=("TDX-MAPGPA-06",),
        level="must",
        why="Breaks this rule: address and size must be multiples of 4 KiB.",
        kind="rule",
        setup=Setup(config={"gpaw": 48}),
        steps=(HostStep(regs=SENT, expected=(ALIGN_ERROR,), fields={"gpa": 0x800040101000, "size": 0x1800}),),
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # the callers' keywords are fields of Case


def failed(name: str = "size-unaligned", **changes: object) -> CaseResult:
    """Return the failure of a host that answers INVALID_OPERAND and also changes RCX."""
    base = CaseResult(
        case=tdx_case(name),
        verdict=Verdict.FAIL,
        message="register r10: expected 0x8000000000000002, found 0x8000000000000000",
        findings=(
            Finding(what="register r10", expected="0x8000000000000002", found="0x8000000000000000",
                    rule="TDX-MAPGPA-06", bits=(1, 1)),
            Finding(what="register rcx", expected="0x3c00, as it was", found="0x0",
                    rule="TDX-MAPGPA-06", bits=(13, 10)),
        ),
        exchanged=(
            Exchanged(sent_regs=SENT, got_end="return",
                      got_regs={"r10": 0x8000000000000000, "r11": 0x800040101000, "rcx": 0}),
        ),
        log="toy-vmm: MapGPA gpa 0x800040101000 size 0x1800\n",
        seconds=0.25,
        reproduce=f"hvabi conform tdx-map-gpa --iut 'cmd:./toy-vmm' --case '{tdx_case(name).id}'",
    )  # fmt: skip
    return replace(base, **changes)  # type: ignore[arg-type]  # as above


def psc_failure() -> CaseResult:
    """Return the failure of a host that says in the GHCB page that all went well; the answer lies in memory."""
    page = bytearray(4096)
    page[0x390:0x398] = (0x80000010).to_bytes(8, "little")  # sw_exitcode
    page[0x398:0x3A0] = bytes(8)  # sw_exitinfo1
    page[0xFFA:0xFFC] = (2).to_bytes(2, "little")  # protocol version
    page[0xFFC:0x1000] = (7).to_bytes(4, "little")  # usage is not 0
    wanted = ((0x10398, (2).to_bytes(8, "little") + (2).to_bytes(8, "little")),)
    case = Case(
        id="ghcb-psc@ghcb-2.host.vmgexit.GHCB-PSC-04.usage",
        abi="ghcb-psc",
        revision="ghcb-2",
        role="host",
        transport="vmgexit",
        rules=("GHCB-PSC-04",),
        level="must",
        why="Breaks this rule: GHCB_USAGE must be 0.",
        kind="rule",
        steps=(
            HostStep(
                regs={"msr_c0010130": 0x10000},
                mem=((0x10000, bytes(page)),),
                expected=(
                    Expected(mem=wanted, may_change_mem=((0x103F0, 16),), rule="GHCB-PSC-04", why="Usage is not 0."),
                    Expected(mem=((0x10398, bytes(16)),), rule="GHCB-PSC-02", policies={"other": "x"}),
                ),
            ),
        ),
    )
    return CaseResult(
        case=case,
        verdict=Verdict.FAIL,
        message="bytes at 0x10398: expected 0200000000000000 0200000000000000, found zeroes",
        findings=(
            Finding(what="bytes at 0x10398", expected="02000000000000000200000000000000",
                    found="00000000000000000000000000000000", rule="GHCB-PSC-04"),
        ),
        exchanged=(
            Exchanged(sent_regs={"msr_c0010130": 0x10000}, sent_mem=((0x10000, bytes(page)),), got_end="return",
                      got_mem=((0x10398, bytes(16)),)),
        ),
        reproduce="hvabi conform ghcb-psc --iut 'cmd:./toy-vmm' --case 'ghcb-psc@*.GHCB-PSC-04.usage'",
    )  # fmt: skip


def guest_failure() -> CaseResult:
    """Return the failure of a guest that starts again at the beginning after RETRY."""
    call = {"rax": 0, "rcx": 0x3C00, "r10": 0, "r11": 0x10001, "r12": 0x800040000000, "r13": 0x400000}
    case = Case(
        id="tdx-map-gpa@ghci-1.5.guest.tdcall.TDX-MAPGPA-21.resume",
        abi="tdx-map-gpa",
        revision="ghci-1.5",
        role="guest",
        transport="tdcall",
        rules=("TDX-MAPGPA-21",),
        level="must",
        why="The host stops after 2 MiB; the guest must go on at R11.",
        kind="guest",
        script=GuestScript(gpa=0x40000000, pages=1024, to="shared"),
        reference="https://github.com/tianocore/edk2/issues/9431",
    )
    return CaseResult(
        case=case,
        verdict=Verdict.NO_PROGRESS,
        message="more than 4100 calls",
        exchanged=(
            Exchanged(sent_regs=call, got_end="return", got_regs={"r10": 1, "r11": 0x800040200000}),
            Exchanged(sent_regs=call),
        ),
        reproduce="hvabi conform --iut 'cmd:./td-shim' --case 'tdx-map-gpa@*.guest.*.resume'",
    )


def results() -> tuple[CaseResult, ...]:
    """Return one result of every verdict, a known failure, and a warning with findings."""
    should = tdx_case("should", level="should", rules=("TDX-MAPGPA-07",))
    return (
        CaseResult(case=tdx_case("pass"), verdict=Verdict.PASS, seconds=0.001),
        CaseResult(case=tdx_case("unseen"), verdict=Verdict.PASS_UNSEEN),
        CaseResult(
            case=should,
            verdict=Verdict.WARN,
            message="register r10: expected 0x8000000000000003, found 0x8000000000000000",
            findings=(
                Finding(what="register r10", expected="0x8000000000000003", found="0x8000000000000000",
                        rule="TDX-MAPGPA-07", bits=(1, 0)),
            ),
        ),
        CaseResult(case=tdx_case("note", level="may"), verdict=Verdict.NOTE, message="R11 is left alone"),
        failed(),
        failed("known", known="wontfix", message="register r10 differs"),
        CaseResult(case=tdx_case("skip"), verdict=Verdict.SKIP, message="inject: not supported"),
        CaseResult(case=tdx_case("slow"), verdict=Verdict.TIMEOUT, message="no answer within 5 s", stderr="waiting…\n"),
        CaseResult(
            case=tdx_case("boom"),
            verdict=Verdict.CRASH,
            message="the process ended with SIGSEGV",
            log="[  0.10] map_gpa: enter\n",
            stderr="AddressSanitizer: SEGV on unknown address 0x000000000000\n    #0 map_gpa vmm.c:261\n",
            reproduce="hvabi conform --iut 'cmd:./toy-vmm' --case '*boom'",
        ),
        CaseResult(case=tdx_case("garbage"), verdict=Verdict.PROTOCOL, message="the line holds no JSON"),
        guest_failure(),
        CaseResult(case=tdx_case("error"), verdict=Verdict.ERROR, message="the implementation says: not ready"),
        psc_failure(),
        CaseResult(case=tdx_case("left"), verdict=Verdict.NOT_RUN, message="given up after 20 restarts"),
    )  # fmt: skip


def every_verdict(**changes: object) -> RunResult:
    """Return a run with one case of every verdict."""
    run = RunResult(
        peer="toy-vmm 0.3",
        connector="cmd:./toy-vmm --verbose",
        profile="spec",
        seed=7,
        results=results(),
        problems=("policy unknown-leaf: answered as subfunc-unsupported and then as invalid-operand",),
        seconds=1.5,
    )
    return replace(run, **changes)  # type: ignore[arg-type]  # as above


def passing(count: int = 3) -> RunResult:
    """Return a run in which every case passed."""
    cases = tuple(CaseResult(case=tdx_case(f"pass-{n}"), verdict=Verdict.PASS, seconds=n / 8) for n in range(count))
    return RunResult(peer="good 1.0", connector="builtin", profile="spec", seed=0, results=cases)


def hostile() -> RunResult:
    """Return a run whose every text comes from somebody who wants to break the report."""
    case = tdx_case("nasty", reference=NASTY)
    bad = failed(
        case=case,
        message=NASTY,
        findings=(Finding(what=NASTY, expected=NASTY, found=NASTY * 50, rule="NO-SUCH-RULE"),),
        exchanged=(
            Exchanged(sent_regs=SENT, got_end="<b>", got_regs={"r10": 1 << 63}),
            Exchanged(sent_regs=SENT, got_end="return", got_mem=tuple((n * 64, b"\xff") for n in range(2000))),
        ),
        log=NASTY * 20_000,
        stderr=NASTY,
        reproduce=f"hvabi conform --iut '{NASTY}'",
        policies={"unknown-leaf": NASTY},
    )
    unknown = failed(case=replace(case, id="no-such-abi@1.host.x.R.y", abi="no-such-abi", revision="1", transport="x"))
    skipped = CaseResult(case=tdx_case("skip-nasty"), verdict=Verdict.SKIP, message=NASTY)
    known = failed("known-nasty", known="xfail", message=NASTY)
    return RunResult(
        peer=NASTY, connector=NASTY, profile="spec", seed=1, results=(bad, unknown, skipped, known), problems=(NASTY,)
    )
