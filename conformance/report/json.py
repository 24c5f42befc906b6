"""The report as JSON, for programs: ``conformance/schema/report.schema.json`` says what is in it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hvabi.conformance.release import release
from hvabi.conformance.report.rules import rules_of
from hvabi.conformance.report.summary import groups, totals, verdict_word
from hvabi.conformance.report.text import json_text
from hvabi.conformance.result import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.conformance.case import Memory
    from hvabi.conformance.result import CaseResult, Finding, RunResult

FORMAT = 1
LOG_CHARACTERS = 65536
"""Longest tail of a log that one case carries."""
MAX_FINDINGS = 1000
"""Most findings of one case."""

_QUIET = frozenset({Verdict.PASS, Verdict.PASS_UNSEEN, Verdict.SKIP})


def render(run: RunResult, *, times: bool = False) -> str:
    """Return the report as JSON text, keys in a fixed order; with `times` it has seconds."""
    return json.dumps(_clean(data(run, times=times)), indent=1, ensure_ascii=False) + "\n"


def data(run: RunResult, *, times: bool = False) -> dict[str, Any]:
    """Return the report as plain data. Integers of the wire are ``0x`` strings, bytes are hex, as in the protocol."""
    out: dict[str, Any] = {
        "format": FORMAT,
        "generator": {"name": "hvabi", "version": release()},
        "peer": run.peer,
        "connector": run.connector,
        "profile": run.profile,
        "seed": run.seed,
        "verdict": verdict_word(run).lower().replace(" ", "-"),
        "good": run.good,
        "complete": run.complete,
        "problems": list(run.problems),
        "counts": {verdict.value: run.count(verdict) for verdict in Verdict},
        "columns": totals(run.results),
        "groups": [
            {
                "abi": group.abi,
                "revision": group.revision,
                "role": group.role,
                "transport": group.transport,
                "total": group.total,
                "columns": dict(group.counts),
            }
            for group in groups(run)
        ],
        "results": [_result(result, times=times) for result in run.results],
    }
    if times:
        out["seconds"] = round(run.seconds, 6)
    return out


def _clean(value: Any) -> Any:
    """Return data in which no string has a lone surrogate: strict readers refuse these."""
    if isinstance(value, str):
        return json_text(value)
    if isinstance(value, dict):
        return {json_text(name): _clean(item) for name, item in value.items()}
    return [_clean(item) for item in value] if isinstance(value, list) else value


def _result(result: CaseResult, *, times: bool) -> dict[str, Any]:
    case = result.case
    out: dict[str, Any] = {
        "id": case.id,
        "abi": case.abi,
        "revision": case.revision,
        "role": case.role,
        "transport": case.transport,
        "rules": list(case.rules),
        "level": case.level,
        "kind": case.kind,
        "profile": case.profile,
        "verdict": result.verdict.value,
        "known": result.known,
        "message": result.message,
        "policies": dict(sorted(result.policies.items())),
    }
    if times:
        out["seconds"] = round(result.seconds, 6)
    if result.verdict in _QUIET and not result.findings:
        return out
    return {
        **out,
        "why": case.why,
        "reference": case.reference,
        "findings": [_finding(finding) for finding in result.findings[:MAX_FINDINGS]],
        "findings_left_out": max(len(result.findings) - MAX_FINDINGS, 0),
        "rule_texts": {rule.id: {"text": rule.text, "source": rule.source} for rule in rules_of(result)},
        "exchanged": [
            {
                "sent": {"regs": _regs(item.sent_regs), "mem": _mem(item.sent_mem)},
                "got": {"end": item.got_end, "regs": _regs(item.got_regs), "mem": _mem(item.got_mem)},
            }
            for item in result.exchanged
        ],
        "log": result.log[-LOG_CHARACTERS:],
        "stderr": result.stderr[-LOG_CHARACTERS:],
        "reproduce": result.reproduce,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "what": finding.what,
        "expected": finding.expected,
        "found": finding.found,
        "step": finding.step,
        "rule": finding.rule,
        "bits": list(finding.bits) if finding.bits is not None else None,
    }


def _regs(regs: Mapping[str, int]) -> dict[str, str]:
    return {name: f"{regs[name]:#x}" for name in sorted(regs)}


def _mem(mem: Memory) -> list[list[str]]:
    return [[f"{at:#x}", data.hex()] for at, data in mem]
