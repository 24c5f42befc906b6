"""Checks of a platform without a call of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hvabi.abi.lint_places import is_register
from hvabi.abi.registry import abi_ids
from hvabi.abi.schema import near

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.lint_context import Report

IDS: Mapping[str, str] = {
    "platform-unknown-abi": "A platform's guests are said to use an ABI that does not exist.",
}
"""Every id of this module, with one sentence each."""


def check_platform(data: dict[str, Any], report: Report) -> None:
    """Check the names in a platform's file: ABIs, sources, registers."""
    for number, name in enumerate(data["calls-of"]):
        if name not in abi_ids():
            hint = near(name, abi_ids())
            report.error(("calls-of", number), "platform-unknown-abi", f"there is no ABI `{name}`", hint)
    cited = set()
    for key in ("evidence", "leaves"):
        for number, item in enumerate(data.get(key, ())):
            cited.add(item["source"])
            if item["source"] not in data["sources"]:
                hint = near(item["source"], data["sources"])
                report.error((key, number, "source"), "unknown-source", f"there is no source `{item['source']}`", hint)
    for number, item in enumerate(data.get("leaves", ())):
        for register in item["registers"]:
            if not is_register(item["isa"], register):
                message = f"{item['isa']} has no register `{register}`"
                report.error(("leaves", number, "registers"), "unknown-register", message, key=register)
    for name in data["sources"]:
        if name not in cited:
            report.warning(("sources",), "source-unused", f"source `{name}` is cited nowhere", key=name)
