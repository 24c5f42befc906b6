"""The pytest plugin in a pytest of its own, mostly within this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hvabi.conformance import plugin_items
from hvabi.conformance.case import Expected
from hvabi.conformance.catalogue import every_case
from hvabi.conformance.known import load_known, update_known
from hvabi.conformance.run import run_cases
from hvabi.conformance.selection import Selection
from tests.conformance.peers import host_case, write_peer

pytest_plugins = ["pytester"]

Run = Callable[..., tuple[int, str]]
PLUGIN = ("-p", "no:cacheprovider", "-p", "hvabi.conformance.plugin")
TDX = ("--hv-iut", "builtin", "--hv-abi", "tdx-map-gpa", "--hv-role", "host")
GLOB = "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.*"
SOME = (*TDX, "--hv-case", GLOB)
# The toy answers everything with success, which is wrong in these cases.
TOY = ("--hv-abi", "tdx-map-gpa", "--hv-role", "host", "--hv-case", GLOB)


@pytest.fixture
def folder(pytester: pytest.Pytester) -> Path:
    return pytester.path


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest with the plugin and without the others that this run happens to have; return status and text."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    monkeypatch.setenv("COLUMNS", "200")

    def go(*arguments: str) -> tuple[int, str]:
        done = pytester.runpytest_inprocess(*PLUGIN, f"--rootdir={pytester.path}", *arguments)
        return int(done.ret), "\n".join([*done.outlines, *done.errlines])

    return go


def test_each_case_is_a_test_with_its_id(run: Run) -> None:
    status, text = run("-v", *SOME)
    assert status == 0
    names = [line.split(" ")[0] for line in text.splitlines() if " PASSED" in line]
    assert len(names) > 3
    assert all(name.startswith("hvabi::tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.") for name in names)
    assert f"collected {len(names)} items" in text
    assert "hvabi: builtin, profile spec" in text


def test_it_stands_beside_other_tests_and_k_chooses_among_both(run: Run, folder: Path) -> None:
    (folder / "test_mine.py").write_text("def test_size_own(): pass\ndef test_other(): pass\n")
    status, text = run(*SOME)
    assert status == 0
    assert "test_mine.py .." in text
    assert "1 passed" in run("-q", *SOME, "-k", "other")[1]
    assert "1 passed" in run("-q", *SOME, "-k", "gpa-one")[1]


def test_a_failure_shows_the_case_and_no_traceback(run: Run, folder: Path) -> None:
    status, text = run("--hv-iut", write_peer(folder, "print('kernel says hello', flush=True)"), *TOY)
    assert status == 1
    assert "fail: register r10: expected 0x8000000000000002, found 0x0" in text
    assert "rules: TDX-MAPGPA-06" in text
    assert "kernel says hello" in text
    assert "$ hvabi conform --iut" in text
    assert "Traceback" not in text
    assert "plugin_items.py" not in text


def test_known_failures_are_expected_and_stale_ones_fail(run: Run, folder: Path) -> None:
    connector = write_peer(folder, "pass")
    path = folder / "known.yaml"
    found = run_cases(every_case(["tdx-map-gpa"], role="host"), connector, selection=Selection(ids=(GLOB,)))
    update_known(path, found.results)
    count = len(load_known(path).entries)
    assert count > 1
    expect = ("--hv-expect", str(path))
    status, text = run("--hv-iut", connector, *TOY, *expect)
    assert status == 0
    assert f"{count} xfailed" in text
    status, text = run(*SOME, *expect)
    assert status == 1
    assert "is listed as xfail and passes" in text
    path.write_text(path.read_text() + '- {case: "gone", kind: xfail, reason: r}\n')
    status, text = run(*SOME, *expect)
    assert status == 4
    assert "`gone` fits no case" in text


def test_what_is_missing_is_skipped(run: Run, folder: Path) -> None:
    status, text = run("-rs", "--hv-iut", write_peer(folder, "pass", start="HELLO['abis'] = {}"), *TOY)
    assert status == 0
    assert "it has no tdx-map-gpa" in text


def test_an_unmet_should_is_a_warning(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        plugin_items, "every_case", lambda *a, **k: [host_case(1, Expected(regs={"r10": 7}), level="should")]
    )
    status, text = run("--hv-iut", write_peer(folder, "pass"))
    assert status == 0
    assert "ConformanceWarning" in text
    assert "register r10: expected 0x7, found 0x0" in text


CONFTEST = """
import sys
sys.path.insert(0, {here!r})
from hvabi.conformance import plugin_items
from tests.conformance.test_plugin import two_ways
plugin_items.every_case = two_ways
"""
SWITCHES = "say(id=ident, ok={'end': 'return', 'regs': {'r10': hex(number // 2)}}); return True"


def two_ways(*_: object, **__: object) -> list[object]:
    answers = [Expected(regs={"r10": value}, policies={"no-memory": word}) for value, word in ((0, "a"), (1, "b"))]
    return [host_case(number, *answers) for number in range(3)]


def test_a_policy_that_changes_fails_the_run(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin_items, "every_case", two_ways)
    status, text = run("--hv-iut", write_peer(folder, SWITCHES))
    assert "3 passed" in text
    assert "policy no-memory was a in" in text
    assert status == 1


def test_xdist_spreads_the_cases_and_gathers_the_policies(tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    (tmp_path / "conftest.py").write_text(CONFTEST.format(here=str(Path(__file__).parents[2])))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *PLUGIN, "-p", "xdist", "-n", "2", f"--rootdir={tmp_path}",
         "--hv-iut", write_peer(tmp_path, SWITCHES), "--hv-transcript", "run.ndjson"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert "3 passed" in done.stdout, done.stdout + done.stderr
    assert "policy no-memory was a in" in done.stdout
    assert done.returncode == 1
    assert {path.name for path in tmp_path.glob("*.ndjson")} <= {"run-gw0.ndjson", "run-gw1.ndjson"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--hv-iut", "builtin", "--hv-case", "nothing", "--hv-abi", "tdx-map-gpa"), "no case is selected"),
        (("--hv-iut", "nonsense"), "is no connector"),
        (("--hv-iut", "builtin", "--hv-abi", "tdx"), "unknown abi"),
        (("--hv-iut", "builtin", "--hv-profile", "x"), "no case is selected"),
        (("--hv-iut", "builtin", "--hv-expect", "none.yaml"), "cannot be read"),
    ],
    ids=["no-case", "connector", "abi", "profile", "known"],
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], words: str) -> None:
    status, text = run(*arguments)
    assert status == 4
    assert words in text
    assert "Traceback" not in text


def test_one_that_does_not_start_is_not_started_for_every_case(run: Run, folder: Path) -> None:
    marker = folder / "starts"
    status, text = run("-q", "--hv-iut", f"cmd:sh -c 'echo x >> {marker}; exit 1'", *TOY)
    assert status == 1
    assert "does not start" in text
    assert marker.read_text() == "x\n"


def test_off_it_collects_nothing(run: Run) -> None:
    # Without warnings: pytest has one about plugins that another test of the same process has imported.
    status, text = run("-q", "-p", "no:warnings")
    assert status == 5
    assert "hvabi" not in text


def test_off_it_imports_nothing_and_it_has_no_option_without_the_prefix() -> None:
    code = (
        "import sys, json; before = set(sys.modules)\n"
        "import hvabi.conformance.plugin as plugin\n"
        "names = []\n"
        "class Group:\n"
        "    def addoption(self, *a, **k): names.extend(a)\n"
        "class Parser:\n"
        "    def getgroup(self, *a): return Group()\n"
        "class Config:\n"
        "    def getoption(self, *a, **k): return None\n"
        "plugin.pytest_addoption(Parser()); plugin.pytest_configure(Config())\n"
        "print(json.dumps([names, sorted(set(sys.modules) - before)]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    options, modules = json.loads(done.stdout)
    assert {"--hv-iut", "--hv-abi", "--hv-role", "--hv-profile", "--hv-expect"} <= set(options)
    assert all(name.startswith("--hv-") for name in options)
    assert [name for name in modules if name.startswith("hvabi.")] == ["hvabi.conformance", "hvabi.conformance.plugin"]
    assert not {"yaml", "construct", "jsonschema", "pytest", "_pytest", "rich", "click"} & {
        n.split(".")[0] for n in modules
    }
