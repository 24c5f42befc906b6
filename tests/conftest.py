"""Open defects of the suite are marked as such: the tests run, and what fails for a known reason says that reason."""

from __future__ import annotations

from pathlib import Path

import pytest

OPEN = Path(__file__).parent / "data" / "open_defects.txt"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lines = [line for line in OPEN.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    known = [tuple(part.strip() for part in line.split(" | ", 1)) for line in lines]
    for item in items:
        for names, reason in known:
            if all(name.strip() in item.nodeid for name in names.split("&")):
                item.add_marker(pytest.mark.xfail(reason=f"open defect: {reason}", strict=False))
