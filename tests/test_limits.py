"""The page of limits says what the code has, and leaves out no limit on what is read."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROW = re.compile(r"^\| `([a-z_.0-9]+)\.([A-Z_]+)` \| (\d+) \|", re.M)
OTHERS = {
    "traces.readers.qemu.MAX_OPEN": "calls held back: as the one of MAX_VCPUS, eight of them",
    "traces.readers.vmms.MAX_OPEN": "the same",
    "traces.analysis.pool.MAX_KEPT": "what is shown of a pool",
    "traces.plot.panels.MAX_SEGMENTS": "what is drawn",
    "abi.source_scalar.MAX_INTEGER": "a range of values, not a resource",
}


def test_every_number_is_the_code_s() -> None:
    rows = ROW.findall((ROOT / "docs" / "limits.md").read_text(encoding="utf-8"))
    assert len(rows) > 30
    for module, name, number in rows:
        assert getattr(importlib.import_module(f"hvabi.{module}"), name) == int(number), f"{module}.{name}"


def test_no_limit_is_left_out() -> None:
    listed = {f"{module}.{name}" for module, name, _ in ROW.findall((ROOT / "docs" / "limits.md").read_text("utf-8"))}
    found = {
        ".".join((*path.relative_to(ROOT).with_suffix("").parts, name))
        for top in ("abi", "backend", "adapters", "traces")
        for path in (ROOT / top).rglob("*.py")
        for name in re.findall(r"^(MAX_[A-Z_]+) ?(?::.*)?= ", path.read_text(encoding="utf-8"), re.M)
    }
    assert found - listed == OTHERS.keys()
