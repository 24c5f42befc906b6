"""What vector files say in words, and what they take over from the specification."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.errors import HvAbiError
from hvabi.abi.registry import bundled
from hvabi.conformance.alternatives import differing_policies
from hvabi.conformance.frame import hex_pages

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hvabi.conformance.case import Case

NOTES = {
    "rule": "Breaks one rule alone, or just keeps it at its limit. It shows a check that is missing or that has its "
    "bound wrong.",
    "pair": "Breaks two rules at once. It shows which one is judged first; where the order is open, several answers "
    "are right.",
    "done": "An ordinary conversion that must come out right, pages beside it untouched.",
    "fault": "A refusal by the host's user space, where no fault has to be injected to bring it about.",
    "edge": "Fields at their edges: high bits, high addresses, stale output fields, rules that do not apply.",
    "limit": "The bound on the number of ranges: at it, nothing changes; a call that adds no range passes.",
    "memory": "Ranges that are partly or wholly no memory of the guest.",
    "progress": "A call that stops early or is gone on with. It shows pages that are lost or done twice.",
    "reserved": "Sets bits that have no meaning yet. It shows whether they are refused, ignored or kept.",
    "footprint": "A call that fails must leave exactly the pages that it does not report as done.",
    "example": "A worked example of the specification, with its source.",
    "regression": "A bug that real implementations had; see its reference.",
    "guest": "A conversation with a host that may answer anything. The guest must come to an end and must not believe "
    "more than was done.",
    "handles": "Calls about regions that a host keeps under handles: brought in parts, closed, never finished.",
    "model": "A sequence of calls from a model of the whole ABI.",
}
"""What each flag of a test is for. A flag is the kind of the case."""

_COMMON = (
    'Integers are lower-case "0x" strings, bytes are hex. Addresses are in bytes; pages are always 4 KiB. Ranges are '
    "[gpa, pages, state], facts are [gpa, pages]; what is not listed is private, and every fact is false. No page "
    "lies at or behind 2^64.",
    "Ids are permanent. `rules` are the rules that a test covers, the first one being what it is about; `rules` at the "
    "top has their texts.",
    "`result` is `valid` where one answer is right and `either` where several are. An implementation must give its "
    "answers under one set of policies all along. `profile`: only for an implementation of that profile.",
)
HEADER = {
    "host": (
        *_COMMON,
        "Configure the host as `config` says, with memory zero. Before the first step, and before every step that has "
        "`before`, set the state to that and memory to zero; any other step goes on from where the last one ended.",
        "Write `mem`, then make the call with `regs` (a register left out is 0) at privilege `cpl`. The answer must be "
        "one of `expect`: `end`, the registers, the bytes. A register or byte that is neither in `regs` or `mem` nor "
        "in `may_change` or `may_change_mem` must be as it was. In `nonzero` [register, mask], these bits may have any "
        "value but 0.",
        "Then the state must be `after`. Pages in `loose` are not compared.",
        "A host chooses its own handles, and the numbers here are stand-ins. `chosen` in an answer: the parts of "
        "registers in `places` (register, lowest bit, bits, lowest bit of the handle there) hold a handle. Where "
        "`number` is new any value is right that no handle has which is alive; else it is the one given before. "
        "`handles` in a step: write what the host gave for `number` there, with the bits in `flipped` the other way "
        "round. Leave out what follows where it gave none, or where a flipped one is another handle.",
    ),
    "guest": (
        *_COMMON,
        "Ask the guest to convert a range. Call number n of the guest is answered by turn n, and calls after the last "
        "turn as `then` says. `serve` means that a right host does the work and answers; `say` means that nothing is "
        "done; then `fields` of the response, `regs` and `mem_at` (block, offset, bytes) are laid over the answer. A "
        "turn with `above` is for calls that name more 4 KiB pages than that; other calls are served rightly.",
        "At the end the guest says whether all is done and what it believes converted. `done` null: both are right. "
        "Pages in `must_not_believe` must not be reported; those in `must_believe` must be where it says that all is "
        "done. `calls` are the fewest and the most calls that are right.",
        "`next` is a conversion to ask for behind one that ended as it should; the guest forgets nothing in between.",
    ),
}
"""How to read a file, by role."""


def abi_of(abi: str, revision: str, cases: Iterable[Case]) -> dict[str, Any]:
    """Return what a file takes from the specification: title, sources, texts of rules and of policies."""
    wanted = sorted({rule for case in cases for rule in case.rules} | _rules_of_answers(cases))
    named = {
        name
        for case in cases
        for step in case.steps
        for one in step.expected
        for name in differing_policies(one, step.expected)
    }
    out: dict[str, Any] = {"abi": abi, "revision": revision}
    try:
        spec = bundled(abi)
    except HvAbiError:
        return {**out, "title": abi, "sources": {}, "rules": {}, "policies": {}}
    rules: dict[str, dict[str, str]] = {}
    for call in spec.calls.values():
        for rule in call.rules:
            here = rule.guard.revisions is None or revision in rule.guard.revisions
            if rule.id in wanted and (here or rule.id not in rules):
                rules[rule.id] = {"level": rule.level, "binds": rule.binds, "text": rule.text, "source": rule.source}
    cited = {rule["source"] for rule in rules.values()}
    return {
        **out,
        "title": spec.title,
        "sources": {
            name: {"title": item.title, "revision": item.revision, **({"url": item.url} if item.url else {})}
            for name, item in sorted(spec.sources.items())
            if name in cited
        },
        "rules": {name: rules[name] for name in wanted if name in rules},
        "policies": {
            name: {"description": item.doc, "values": dict(item.values)}
            for name, item in sorted(spec.policies.items())
            if name in named
        },
    }


def _rules_of_answers(cases: Iterable[Case]) -> set[str]:
    return {one.rule for case in cases for step in case.steps for one in step.expected if one.rule}


def config_of(case: Case) -> dict[str, Any]:
    """Return the arguments of the protocol's ``configure``: the ABI's own keys and what is not as by default."""
    setup = case.setup
    out: dict[str, Any] = {name: f"{value:#x}" for name, value in sorted(setup.config.items())}
    if setup.memory is not None:
        out["memory"] = hex_pages(setup.memory)
    if not setup.enabled:
        out["enabled"] = False
    if setup.max_ranges is not None:
        out["max_ranges"] = f"{setup.max_ranges:#x}"
    if setup.scratch is not None:
        out["scratch"] = hex_pages([setup.scratch])[0]
    return out
