"""The oracle against the bundled hosts: random requests, surroundings and faults; and that the two share no evaluator.

A difference says that one of the two is wrong, not which. `test_oracle_golden.py` has expectations worked out by hand.
"""

from __future__ import annotations

import ast
import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, assume, given, note, settings
from hypothesis import strategies as st

import hvabi.conformance.oracle
from hvabi.abi.errors import CodecError, HvAbiError
from hvabi.abi.expr import Int
from hvabi.abi.registry import abi_ids, bundled, load
from hvabi.abi.scope import Fields, Scope
from hvabi.adapters.registry import host_class
from hvabi.backend import GPA_PAGES, Backend, GuestMemory, MemoryLayout
from hvabi.conformance.case import Inject, Setup
from hvabi.conformance.oracle import Oracle
from tests.fuzzing import Combo, Input, mending, opened
from tests.mutating import Mutator

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from hvabi.adapters.values import HostAnswer
    from hvabi.conformance.case import Expected, Memory, Pages, Ranges

SERVED = [abi for abi in abi_ids() if not bundled(abi).draft]
EXAMPLES = 60
"""Requests for each ABI, revision, transport and profile."""

_SETTINGS = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


# -- what is compared ----------------------------------------------------------------------------------------


def combos_of(abi: str) -> Iterator[tuple[str, Combo]]:
    """Yield every revision, profile and transport with an id for people."""
    whole = bundled(abi)
    for revision, profile in itertools.product(whole.revisions, ("spec", *whole.profiles)):
        spec = load(abi, revision=revision, profile=profile)
        for transport in spec.abi.transports:
            yield f"{abi}@{revision}.{transport}.{profile}", Combo(spec, transport)


def loosened(abi: str) -> Iterator[tuple[str, Combo]]:
    """Yield every revision and transport under ``spec`` with one open policy at a value that is not its default."""
    whole = bundled(abi)
    for revision in whole.revisions:
        for policy in whole.policies.values():
            for value in policy.values if policy.open else ():
                if value == policy.default:
                    continue
                spec = load(abi, revision=revision, policies={policy.name: value})
                for transport in spec.abi.transports:
                    yield f"{abi}@{revision}.{transport}.{policy.name}={value}", Combo(spec, transport)


COMBOS = dict(itertools.chain.from_iterable(combos_of(abi) for abi in SERVED))
LOOSENED = dict(itertools.chain.from_iterable(loosened(abi) for abi in SERVED))


class Sent:
    """Registers and bytes of a call as a source of the codec: what is not there is 0."""

    def __init__(self, regs: Mapping[str, int], mem: Memory) -> None:
        self.regs = regs
        self.bytes = bytes_of(mem)

    def register(self, name: str) -> int:
        return self.regs.get(name, 0)

    def read(self, block: str, address: int, size: int) -> bytes:
        if size > 1 << 16:
            raise CodecError("truncated", "longer than anything that is sent", message_name=block)
        return bytes(self.bytes.get(at, 0) for at in range(address, address + size))


def bytes_of(mem: Iterable[tuple[int, bytes]]) -> dict[int, int]:
    """Return every byte by its address."""
    return {at + offset: byte for at, data in mem for offset, byte in enumerate(data)}


def read_request(combo: Combo, sent: Input) -> dict[str, Any]:
    """Return the request as it stands on the wire; skips what cannot be read as a whole."""
    call = combo.calls[sent.call]
    codec = combo.codec(call.request, sent.config)
    source = Sent(sent.regs, sent.mem)
    fields = Fields(codec.message.fields, lambda name: codec.placer.fetch(name, scope, source))
    scope = Scope(codec.static, request=fields)
    try:
        return {name: opened(fields[name]) for name in codec.message.fields}
    except HvAbiError:
        assume(False)
        raise


def selected(combo: Combo, sent: Input) -> Input:
    """Return the input under the name of the call that its fixed registers and constants select.

    Where none does, it is the first whose constants are right, else the first.
    """
    for fixed in (True, False):
        for name, call in combo.calls.items():
            codec = combo.codec(call.request, sent.config)
            fields, scope = codec.reader(Sent(sent.regs, sent.mem))
            wanted = {field: item.const for field, item in codec.message.fields.items() if item.const is not None}
            if not all(fields[field] == scope.int(expr) for field, expr in wanted.items()):
                continue
            placement = codec.placer.placement
            registers = {register: scope.int(expr) for register, expr in placement.fixed.items()}
            parts = {path.partition("."): scope.int(expr) for path, expr in placement.parts.items()}
            if not fixed or (
                all(sent.regs.get(register, 0) == number for register, number in registers.items())
                and all(getattr(fields[word], part) == number for (word, _, part), number in parts.items())
            ):
                return replace(sent, call=name)
    return replace(sent, call=next(iter(combo.calls)))


def ask_host(combo: Combo, sent: Input) -> tuple[HostAnswer, Ranges, dict[str, Pages]]:
    """Make the call to the bundled host; return its answer, the pages that are then not private, and the facts."""
    layout = MemoryLayout(sent.slots)
    placements = combo.transport.placements.values()
    own_space = any(block.space is not None for placement in placements for block in placement.blocks.values())
    backend = Backend(layout=layout, max_ranges=sent.max_ranges, max_fact_ranges=GPA_PAGES, facts=combo.abi.facts)
    backend.reset(sent.before, facts_of(sent))
    memory = GuestMemory(None if own_space else layout)
    for at, data in sent.mem:
        memory.poke(at, data)
    host = host_class(combo.spec.id)(
        combo.spec, transport=combo.transport.name, config=dict(sent.config), backend=backend, memory=memory,
        enabled=sent.enabled,
    )  # fmt: skip
    answer = host.answer(sent.regs, cpl=sent.cpl, inject=sent.inject)
    while mending(combo, answer) is not None:
        answer = host.answer(sent.regs, cpl=sent.cpl)
    state = tuple((run.start, run.end, run.state.value) for run in backend.query())
    facts = {name: tuple((run.start, run.end) for run in backend.fact_runs(name)) for name in combo.abi.facts}
    return answer, state, {name: runs for name, runs in facts.items() if runs}


def facts_of(sent: Input) -> dict[str, list[tuple[int, int]]]:
    """Return the facts that are true before the call, by name."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, start, end in sent.facts:
        found.setdefault(name, []).append((start, end))
    return found


def ask_oracle(combo: Combo, sent: Input, profile: str) -> tuple[Expected, ...]:
    """Return what the oracle says of the same call."""
    setup = Setup(config=dict(sent.config), memory=sent.slots, enabled=sent.enabled, max_ranges=sent.max_ranges)
    fault = sent.inject
    inject = None
    if fault.vmm_errno is not None:
        inject = Inject(fault="vmm-error", arguments={"errno": fault.vmm_errno})
    elif fault.stop_after is not None:
        inject = Inject(fault="stop-after", arguments={"pages": fault.stop_after})
    elif fault.event_after is not None:
        inject = Inject(fault="event-pending", arguments={"after": fault.event_after})
    return Oracle(combo.spec.id, combo.abi.revision, combo.transport.name, setup, profile=profile).answers(
        read_request(combo, sent),
        call=sent.call,
        cpl=sent.cpl,
        inject=inject,
        before=tuple((start, end, state.value) for start, end, state in sent.before),
        facts={name: tuple(pages) for name, pages in facts_of(sent).items()},
        mem=sent.mem,
        regs=sent.regs,
    )


def differences(
    wanted: Expected, sent: Input, answer: HostAnswer, state: Ranges, facts: Mapping[str, Pages]
) -> list[str]:
    """Return what of an answer is not as wanted: end, registers, the image of memory, pages, facts."""
    if (wanted.end, wanted.fault) != (answer.end, answer.fault):
        return [f"end {answer.end} {answer.fault}, wanted {wanted.end} {wanted.fault}"]
    out = []
    if answer.end != "stop":
        out += [
            f"{name} {answer.regs.get(name, sent.regs.get(name, 0)):#x}, wanted {value:#x}"
            for name, value in ((n, wanted.regs.get(n, sent.regs.get(n, 0))) for n in {*wanted.regs, *answer.regs})
            if name not in wanted.may_change and not fits(wanted, name, value, sent, answer)
        ]
        before, after, right = bytes_of(sent.mem), bytes_of(answer.mem), bytes_of(wanted.mem)
        free = {at for start, size in wanted.may_change_mem for at in range(start, start + size)}
        for at in {*after, *right} - free:
            old = before.get(at, 0)
            if after.get(at, old) != right.get(at, old):
                out.append(f"byte {at:#x} is {after.get(at, old):#x}, wanted {right.get(at, old):#x}")
        if pages_but(wanted.loose, state) != pages_but(wanted.loose, wanted.state):
            out.append(f"pages {state}, wanted {wanted.state}")
        if dict(facts) != dict(wanted.facts):
            out.append(f"facts {facts}, wanted {wanted.facts}")
    return out


def fits(wanted: Expected, name: str, value: int, sent: Input, answer: HostAnswer) -> bool:
    """Whether a register has its value; some bits of it may only have to be other than 0."""
    masks = [mask for register, mask in wanted.nonzero if register == name]
    found = answer.regs.get(name, sent.regs.get(name, 0))
    return not (found ^ value) & ~sum(masks) and all(found & mask for mask in masks)


def pages_but(loose: Pages, ranges: Ranges) -> list[tuple[int, int, str]]:
    """Return ranges without the loose pages, cut at their edges; ranges that touch are joined."""
    edges = sorted({edge for start, end in loose for edge in (start, end)} | {e for r in ranges for e in r[:2]})
    out: list[tuple[int, int, str]] = []
    for low, high in itertools.pairwise(edges):
        state = next((word for start, end, word in ranges if start <= low < end), None)
        if state is None or any(start <= low < end for start, end in loose):
            continue
        if out and out[-1][1] == low and out[-1][2] == state:
            out[-1] = (out[-1][0], high, state)
        else:
            out.append((low, high, state))
    return out


def compare(combo: Combo, random: Any, profile: str) -> tuple[HostAnswer, tuple[Expected, ...]]:
    """Draw a call, ask both, and require that the host's answer is one of the oracle's."""
    mutator = Mutator(combo.spec.id, random)
    sent = mutator.request(0, combo)
    assume(sent is not None)
    assert sent is not None  # for the type checker
    if random.random() < 0.25:
        sent = mutator.wire(sent)
    if len(combo.calls) > 1:
        sent = selected(combo, sent)
    note(sent.shown())
    expected = ask_oracle(combo, sent, profile)
    answer, state, facts = ask_host(combo, sent)
    found = [differences(one, sent, answer, state, facts) for one in expected]
    assert [] in found, (answer, [(one.rule, one.status, what[:4]) for one, what in zip(expected, found, strict=True)])
    return answer, expected


# -- the two agree -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMBOS)
def test_the_bundled_host_answers_as_the_oracle_says(name: str) -> None:
    combo = COMBOS[name]
    seen: set[tuple[str | None, str]] = set()

    @_SETTINGS
    @given(st.randoms(use_true_random=False))
    def check(random: Any) -> None:
        answer, expected = compare(combo, random, combo.abi.profile)
        if combo.abi.profile != "spec":
            assert len(expected) == 1, "a profile leaves nothing open"
        seen.add((answer.rule, answer.end))

    check()
    # A run in which every request ends the same way would compare nothing. Some profiles refuse a whole transport.
    refused = any(rule.check == "expr" and rule.operands["expr"] == (Int(0),) for rule in combo.rules())
    assert len(seen) >= (1 if refused else 2)


@pytest.mark.parametrize("name", LOOSENED)
def test_a_host_with_one_open_policy_the_other_way_is_right_under_spec(name: str) -> None:
    combo = LOOSENED[name]

    @settings(_SETTINGS, max_examples=EXAMPLES // 3)
    @given(st.randoms(use_true_random=False))
    def check(random: Any) -> None:
        compare(combo, random, "spec")

    check()


def test_a_wrong_answer_is_told_from_a_right_one() -> None:
    """The comparison above can fail: each part of an answer counts."""
    combo = COMBOS["tdx-map-gpa@ghci-1.5.tdcall.spec"]
    fields = combo.codec("request", combo.configs[0]).complete({"gpa": 0x0000800000200000, "size": 0x1800})
    wire = combo.codec("request", combo.configs[0]).encode(fields)
    sent = Input(combo=0, call="map", config=combo.configs[0], regs=wire.regs)
    (wanted,) = ask_oracle(combo, sent, "spec")
    answer, state, facts = ask_host(combo, sent)
    assert answer.rule == "TDX-MAPGPA-06"
    assert differences(wanted, sent, answer, state, facts) == []
    wrong: list[tuple[HostAnswer, Ranges, dict[str, Pages]]] = [
        (replace(answer, end="replay"), state, facts),
        (replace(answer, regs={**answer.regs, "r10": 1}), state, facts),
        (replace(answer, regs={**answer.regs, "r8": 1, "rbp": 1}), state, facts),
        (replace(answer, mem=((0x1000, b"\1"),)), state, facts),
        (answer, ((0x200, 0x201, "shared"),), facts),
        (answer, state, {"accepted": ((1, 2),)}),
    ]
    for one in wrong:
        assert differences(wanted, sent, *one)


# -- the two share nothing that judges -----------------------------------------------------------------------

ORACLE = Path(hvabi.conformance.oracle.__file__).parent
FORBIDDEN = ("hvabi.adapters", "hvabi.backend", "hvabi.conformance.iut")
PARSING = {
    "Attr", "Binary", "Bool", "Call", "Compare", "Comprehension", "Expr", "In", "Index", "Int", "ListLiteral", "Name",
    "Truth", "Unary", "names", "parse", "paths", "to_text", "walk",
}  # fmt: skip
"""What the oracle may take from the expression language: the tree and what makes or prints it."""
PLACING = {"placed.py": {"hvabi.abi.scope", "hvabi.abi.placing"}}
"""The one exception: the codec's placing of fields works out where blocks lie with the shared evaluator."""
EVALUATING = {
    "hvabi.abi.scope",
    "hvabi.abi.placing",
    "hvabi.abi.codec",
    "hvabi.abi.expr_codegen",
    "hvabi.abi.expr_runtime",
}


def imports_of(file: Path) -> Iterator[tuple[str, str]]:
    """Yield every module and name that a file imports, at any depth, those for the type checker left out."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from ((node.module or "", alias.name) for alias in node.names)


@pytest.mark.parametrize("file", sorted(path.name for path in ORACLE.glob("*.py")))
def test_the_oracle_imports_no_adapter_no_backend_and_no_evaluator(file: str) -> None:
    for module, name in imports_of(ORACLE / file):
        assert not module.startswith(FORBIDDEN), f"{file} imports {module}"
        assert f"{module}.{name}" not in FORBIDDEN, f"{file} imports {name}"
        if module.startswith("hvabi.abi.expr"):
            assert name in PARSING, f"{file} takes {name} of the expression language"
        if module in EVALUATING:
            assert module in PLACING.get(file, set()), f"{file} imports {module}"


def test_importing_the_oracle_loads_neither_adapters_nor_backend() -> None:
    script = (
        "import sys, hvabi.conformance.oracle\n"
        f"print(*[name for name in sys.modules if name.startswith({FORBIDDEN!r})])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == []
