"""One case in the HTML report: what differs, the rule, the call and the answer decoded, logs, the command."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hvabi.conformance.report.compared import compared
from hvabi.conformance.report.markup import Markup, join, tag
from hvabi.conformance.report.rules import rules_of
from hvabi.conformance.report.summary import column
from hvabi.conformance.report.text import bit_list, cut, tail

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.conformance.report.comparison import Compared, Item, MemoryLine, Part
    from hvabi.conformance.report.rules import RuleText
    from hvabi.conformance.result import CaseResult, Finding

LOG_LINES = 200
LOG_CHARACTERS = 16384
"""Longest tail of a log that one case carries."""
_FINDINGS = 40
_LANE = 32
_HEX = re.compile(r"0x[0-9a-f]+")


def details(result: CaseResult, anchor: str, *, opened: bool = False) -> Markup:
    """Return everything about a case, folded up unless `opened`."""
    known = f" ({result.known})" if result.known else ""
    kind = column(result)
    first = str(result.findings[0]) if result.findings else ""
    message = result.message or first
    return tag(
        "details",
        tag(
            "summary",
            tag("span", f"{result.verdict.value}{known}", class_=f"chip {kind}"),
            " ",
            tag("span", result.case.id, class_="mono"),
            tag("span", cut(message, 400), class_="why") if message else None,
        ),
        tag("p", cut(result.case.why, 1000)) if result.case.why else None,
        _findings(result),
        *map(_rule, rules_of(result)),
        tag("p", "Seen before: ", _linked(result.case.reference), class_="dim") if result.case.reference else None,
        *(_step(step, many=len(result.exchanged) > 1) for step in compared(result)),
        _policies(result),
        *_logs(result),
        join([tag("h3", "Run only this case"), tag("pre", cut(result.reproduce, 4000), class_="cmd")])
        if result.reproduce
        else None,
        id=anchor,
        class_=f"case {kind}",
        open=opened,
    )


def _findings(result: CaseResult) -> Markup | None:
    if not result.findings:
        return None
    many = any(finding.step for finding in result.findings)
    head = [*(["step"] if many else []), "what", "expected", "found"]
    rows = [_finding(finding, many=many) for finding in result.findings[:_FINDINGS]]
    rest = len(result.findings) - _FINDINGS
    return join(
        [
            tag("h3", "What differs"),
            _table(head, rows),
            tag("p", f"and {rest} more", class_="dim") if rest > 0 else None,
        ]
    )


def _finding(finding: Finding, *, many: bool) -> Markup:
    bits = None
    if finding.bits is not None:
        hi, lo = finding.bits
        bits = tag("span", f" (bit {hi})" if hi == lo else f" (bits {hi} to {lo})", class_="dim")
    left, right = _both(cut(finding.expected, 2000), cut(finding.found, 2000))
    return tag(
        "tr",
        tag("td", str(finding.step), class_="n") if many else None,
        tag("td", cut(finding.what, 300), bits, class_="t"),
        tag("td", left, class_="mono v"),
        tag("td", right, class_="mono v"),
    )


def _both(expected: str, found: str) -> tuple[Markup, Markup]:
    """Return two texts; where both begin with a number in hex, the digits that differ are marked."""
    left, right = _HEX.match(expected), _HEX.match(found)
    if left is None or right is None:
        return join([expected or "nothing"]), join([found or "nothing"])
    width = max(len(left[0]), len(right[0])) - 2
    one, other = left[0][2:].rjust(width, "0"), right[0][2:].rjust(width, "0")
    return (
        join(["0x", *_marked(one, other), expected[left.end() :]]),
        join(["0x", *_marked(other, one), found[right.end() :]]),
    )


def _marked(own: str, other: str) -> Iterator[Markup]:
    """Yield a text with every run of characters marked that is not as in the other."""
    at = 0
    while at < len(own):
        differs = own[at] != other[at]
        end = at
        while end < len(own) and (own[end] != other[end]) is differs:
            end += 1
        yield tag("mark", own[at:end]) if differs else join([own[at:end]])
        at = end


def _rule(rule: RuleText) -> Markup:
    return tag(
        "blockquote",
        tag("b", f"{rule.id} ({rule.level}) "),
        rule.text,
        tag("footer", rule.source, " ", _linked(rule.url) if rule.url else None),
    )


def _linked(text: str) -> Markup:
    """Return text, as a link where it is an address; nothing is fetched unless it is followed."""
    if re.fullmatch(r"https?://[^\s<>\"']{1,500}", text):
        return tag("a", text, href=text, rel="noreferrer noopener")
    return join([cut(text, 600)])


# -- one step ---------------------------------------------------------------------------------------------------


def _step(step: Compared, *, many: bool) -> Markup:
    head = f"Step {step.number}: " if many else ""
    means = f": {step.means}" if step.means else ""
    ends = None
    if step.expected_end and (step.expected_end != step.found_end or step.expected_end != "return"):
        ends = tag("p", "Expected the end ", tag("code", step.expected_end), ", found ",
                   tag("code", step.found_end or "none"), ".")  # fmt: skip
    elif not step.expected_end and step.found_end:
        ends = tag("p", "Ended with ", tag("code", step.found_end), ".")
    return join(
        [
            tag("h3", f"{head}{_the(head)} call" + means) if step.sent or means else None,
            _items(step.sent),
            tag("h3", f"{head}{_the(head)} answer that was given") if step.answer else None,
            _items(step.answer),
            tag("h3", f"{head}{_the(head)} answer") if step.parts or ends else None,
            ends,
            _parts(step.parts),
            *_bits(step.parts),
            _memory(step.memory),
            tag("p", f"Why: {step.why}", class_="dim") if step.why and step.differs else None,
            join(
                [
                    tag("p", "Also right would be:"),
                    tag("ul", *(tag("li", cut(other, 600)) for other in step.others[:12])),
                ]
            )
            if step.others and step.differs
            else None,
            *(tag("p", note, class_="dim") for note in step.notes),
        ]
    )


def _the(head: str) -> str:
    return "the" if head else "The"


def _items(items: tuple[Item, ...]) -> Markup | None:
    if not items:
        return None
    rows = [
        tag(
            "tr",
            tag("td", _short(item.path, item.depth), class_=f"mono k d{min(item.depth, 3)}", title=item.path),
            tag("td", item.where, class_="mono k"),
            tag("td", item.value, class_="mono v"),
            tag("td", item.text, class_="dim t"),
        )
        for item in items
    ]
    return _table(["field", "where", "value", "meaning"], rows)


def _short(path: str, depth: int) -> str:
    return path.rpartition(".")[2] if depth > 1 else path


def _parts(parts: tuple[Part, ...]) -> Markup | None:
    if not parts:
        return None
    rows = []
    for part in parts:
        left, right = _values(part)
        rows.append(
            tag(
                "tr",
                tag("td", _short(part.path, part.depth), class_=f"mono k d{min(part.depth, 3)}", title=part.path),
                tag("td", part.where, class_="mono k"),
                tag("td", left, class_="mono v"),
                tag("td", right, class_="mono v"),
                tag("td", bit_list(part.difference) if part.status == "differs" else
                    "not compared" if part.status == "open" else "", class_="dim"),
                class_=None if part.status == "same" else part.status,
            )
        )  # fmt: skip
    return _table(["field", "where", "expected", "found", "differs in"], rows)


def _values(part: Part) -> tuple[Markup, Markup]:
    expected, found = part.expected or "-", part.found or "-"
    if part.status != "differs" or part.expected_raw is None or part.found_raw is None:
        return join([expected]), join([found])
    return _hex_marked(expected, found), _hex_marked(found, expected)


def _hex_marked(own: str, other: str) -> Markup:
    mine, theirs = _HEX.search(own), _HEX.search(other)
    if mine is None or theirs is None or len(mine[0]) != len(theirs[0]):
        return tag("mark", own)
    return join([own[: mine.start()], *_marked(mine[0], theirs[0]), own[mine.end() :]])


def _bits(parts: tuple[Part, ...]) -> Iterator[Markup]:
    """Yield the bits of every field that differs and whose own word is not shown already."""
    bad = {part.path for part in parts if part.difference}
    for part in parts:
        if not part.difference or part.path.rpartition(".")[0] in bad or part.expected.startswith("anything"):
            continue
        lines: list[Markup | str] = []
        high = part.lo + part.bits - 1
        for lane in range(high // _LANE, -1, -1):
            mask = part.difference >> (lane * _LANE) & ((1 << _LANE) - 1)
            if not mask:
                continue
            label = f"{lane * _LANE + _LANE - 1}:{lane * _LANE}"
            for name, value in (("expected", part.expected_raw or 0), ("found   ", part.found_raw or 0)):
                lines += [f"{label:>6}  ", *_lane(value << part.lo, part, lane, mask), f"  {name}\n"]
                label = ""
        if lines:
            yield tag("pre", tag("b", f"{_title(part)}\n"), *lines, class_="bits")


def _title(part: Part) -> str:
    return f"bits of {part.path}" + ("" if part.path.endswith(f" {part.where}") else f" in {part.where}")


def _lane(value: int, part: Part, lane: int, mask: int) -> Iterator[Markup | str]:
    for bit in range(_LANE - 1, -1, -1):
        number = lane * _LANE + bit
        inside = part.lo <= number < part.lo + part.bits
        digit = str(value >> number & 1) if inside else "·"
        yield tag("mark", digit) if mask >> bit & 1 else digit
        if bit % 8 == 0 and bit:
            yield " "


def _memory(lines: tuple[MemoryLine, ...]) -> Markup | None:
    if not lines:
        return None
    out: list[Markup | str] = []
    for line in lines:
        for name, own, other in (("expected", line.expected, line.found), ("found   ", line.found, line.expected)):
            out.append(f"{line.address:#012x}  {name} ")
            for number, (mine, theirs) in enumerate(zip(own, other, strict=True)):
                differs = mine != theirs and not line.open >> number & 1
                out += ["  " if number == 8 else " ", tag("mark", f"{mine:02x}") if differs else f"{mine:02x}"]
            out.append("\n")
    return join([tag("h3", "Memory that differs"), tag("pre", *out, class_="hex")])


# -- the rest ---------------------------------------------------------------------------------------------------


def _policies(result: CaseResult) -> Markup | None:
    if not result.policies:
        return None
    text = ", ".join(f"{name} is {value}" for name, value in sorted(result.policies.items()))
    return tag("p", f"The answers show these policies: {cut(text, 1000)}.", class_="dim")


def _logs(result: CaseResult) -> Iterator[Markup]:
    for title, log in (("End of the log", result.log), ("End of standard error", result.stderr)):
        lines = tail(log, lines=LOG_LINES, characters=LOG_CHARACTERS)
        if lines:
            yield tag("h3", title)
            yield tag("pre", join(piece for line in lines for piece in (line, Markup("\n"))), class_="log")


def _table(head: list[str], rows: list[Markup]) -> Markup:
    cells = (tag("th", name, scope="col", class_="n" if name == "step" else None) for name in head)
    return tag("div", tag("table", tag("thead", tag("tr", *cells)), tag("tbody", *rows)), class_="wide")
