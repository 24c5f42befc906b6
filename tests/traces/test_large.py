"""Large logs: bounded memory, and not much slower than a loop that does nothing."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import ModuleType

SCRIPT = Path(__file__).parent.parent.parent / "benchmarks" / "traces.py"
MEMORY_KIB = 300 << 10


def script() -> ModuleType:
    spec: Any = importlib.util.spec_from_file_location("benchmark_of_traces", SCRIPT)
    module: ModuleType = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_24_megabytes_with_one_percent_of_calls(tmp_path: Path) -> None:
    bench, path = script(), tmp_path / "a.log"
    calls = bench.make(path, 24 << 20, 0.01)
    _, found, peak = bench.replayed(path)
    assert found == calls > 1000
    assert peak < MEMORY_KIB


@pytest.mark.slow
def test_2_gigabytes_with_one_percent_of_calls(tmp_path: Path) -> None:
    ratio, peak = script().measure(tmp_path / "a.log", 2 << 30, 0.01)
    assert peak < MEMORY_KIB
    assert ratio >= 0.4


@pytest.mark.slow
def test_2_gigabytes_of_calls(tmp_path: Path) -> None:
    """The ratio is printed and not judged: here the replay does work for each line, and the loop none."""
    _, peak = script().measure(tmp_path / "a.log", 2 << 30, 1.0, rounds=1)
    assert peak < MEMORY_KIB
