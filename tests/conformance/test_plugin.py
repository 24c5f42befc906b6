"""The pytest plugin, run as its users run it: in a pytest of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvabi.conformance.known import load_known
from hvabi.conformance.run import run_cases
from tests.conformance.peers import write_peer


pytest_plugins = ["pytester"]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Callable[..., pytest.RunResult]:
    """Run pytest in this process with the plugin, without the others that this run happens to have."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTEST_ADDOPTS", "")
    monkeypatch.setenv("COLUMNS", "200")
    arguments = ("-p", "no:cacheprovider", "-p", "hvabi.conformance.plugin", f"--rootdir={pytester.path}")
    return lambda *more: pytester.runpytest_inprocess(*arguments, *map(str, more))


TDX = ("--hv-iut", "builtin", "--hv-abi", "tdx-map-gpa", "--hv-role", "host")
ONE = "tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.*"
# The toy answers everything with success and no state: some cases pass by that, most fail.
TOY = ("--hv-abi", "tdx-map-gpa", "--hv-role", "host", "--hv-case", ONE)


def test_each_case_is_a_test_with_its_id(run: Run, tmp_path: Path) -> None:
    done = run("-v", *TDX, "--hv-case", ONE)
    assert done.ret == 0, text(done)
    names = [line.split(" ")[0] for line in done.stdout.splitlines() if " PASSED" in line]
    assert names
    assert all(name.startswith("hvabi::tdx-map-gpa@ghci-1.5.host.tdcall.TDX-MAPGPA-06.") for name in names)
    assert "hvabi: builtin, profile spec" in done.stdout


def test_it_stands_beside_other_tests_and_k_chooses_among_both(run: Run, tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text("def test_size_own(): pass\ndef test_other(): pass\n")
    done = run("-q", *TDX, "--hv-case", ONE, "-k", "other")
    assert "1 passed" in done.stdout
    both = run("-q", *TDX, "--hv-case", ONE)
    assert both.ret == 0
    assert "test_mine.py ." in run(*TDX, "--hv-case", ONE).stdout


def test_xdist_spreads_the_cases(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("xdist")
    done = run("-q", "-n", "2", *TDX, "--hv-transcript", "run.ndjson")
    assert done.ret == 0, text(done)
    alone = run("-q", *TDX)
    last, other = (one.stdout.strip().splitlines()[-1].split(" in ")[0] for one in (done, alone))
    assert last == other
    assert sorted(path.name for path in tmp_path.glob("*.ndjson")) == ["run-gw0.ndjson", "run-gw1.ndjson"]


def test_a_failure_shows_the_case_and_no_traceback(run: Run, tmp_path: Path) -> None:
    connector = write_peer(tmp_path, "print('kernel says hello', flush=True)")
    done = run("--hv-iut", connector, *TOY)
    assert done.ret == 1
    assert "fail: register r10: expected 0x8000000000000002, found 0x0" in done.stdout
    assert "rules: TDX-MAPGPA-06" in done.stdout
    assert "kernel says hello" in done.stdout
    assert "$ hvabi conform --iut" in done.stdout
    assert "Traceback" not in done.stdout
    assert "plugin_items.py" not in done.stdout


def test_known_failures_are_expected_and_stale_ones_fail(run: Run, tmp_path: Path) -> None:
    from hvabi.conformance.catalogue import every_case
    from hvabi.conformance.known import update_known
    from hvabi.conformance.selection import Selection

    connector = write_peer(tmp_path, "pass")
    path = tmp_path / "known.yaml"
    chosen = Selection(ids=(ONE,))
    update_known(path, run_cases(every_case(["tdx-map-gpa"], role="host"), connector, selection=chosen).results)
    count = len(load_known(path).entries)
    assert count > 1
    done = run("--hv-iut", connector, *TOY, "--hv-expect", str(path))
    assert done.ret == 0, done.stdout
    assert f"{count} xfailed" in done.stdout
    stale = run(*TDX, "--hv-case", ONE, "--hv-expect", str(path))
    assert stale.ret == 1
    assert "is listed as xfail and passes" in stale.stdout
    path.write_text(path.read_text() + '- {case: "gone", kind: xfail, reason: r}\n')
    gone = run(*TDX, "--hv-expect", str(path))
    assert gone.ret == 4
    assert "`gone` fits no case" in gone.stderr


def test_what_is_missing_is_skipped(run: Run, tmp_path: Path) -> None:
    connector = write_peer(tmp_path, "pass", start="HELLO['abis'] = {}")
    done = run("-rs", "--hv-iut", connector, *TOY)
    assert done.ret == 0
    assert "it has no tdx-map-gpa" in done.stdout


CONFTEST = """
import sys
sys.path.insert(0, {here!r})
from hvabi.conformance import plugin_items
from hvabi.conformance.case import Expected
from tests.conformance.peers import host_case
def one(number):
    answers = (Expected(regs={{"r10": value}}, policies={{"no-memory": word}}) for value, word in ((0, "a"), (1, "b")))
    return host_case(number, *answers)
plugin_items.every_case = lambda *a, **k: [one(number) for number in range(3)]
"""


@pytest.mark.parametrize("workers", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_a_policy_that_changes_fails_the_run(run: Run, tmp_path: Path, workers: tuple[str, ...]) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST.format(here=str(Path(__file__).parents[2])))
    answers = "say(id=ident, ok={'end': 'return', 'regs': {'r10': hex(number // 2)}}); return True"
    done = run(*workers, "--hv-iut", write_peer(tmp_path, answers))
    assert "3 passed" in done.stdout
    assert "policy no-memory was a in" in done.stdout
    assert done.ret == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--hv-iut", "builtin", "--hv-case", "nothing", "--hv-abi", "tdx-map-gpa"), "no case is selected"),
        (("--hv-iut", "nonsense"), "is no connector"),
        (("--hv-iut", "builtin", "--hv-abi", "tdx"), "unknown abi"),
        (("--hv-iut", "builtin", "--hv-profile", "x"), "no case is selected"),
        (("--hv-iut", "builtin", "--hv-expect", "none.yaml"), "cannot be read"),
    ],
    ids=["no-case", "connector", "abi", "profile", "known"],
)
def test_wrong_use(run: Run, arguments: tuple[str, ...], text: str) -> None:
    done = run(*arguments)
    assert done.ret == 4
    assert text in done.stderr + done.stdout
    assert "Traceback" not in text(done)


def test_one_that_does_not_start_is_not_started_for_every_case(run: Run, tmp_path: Path) -> None:
    marker = tmp_path / "starts"
    done = run("-q", "--hv-iut", f"cmd:sh -c 'echo x >> {marker}; exit 1'", *TOY)
    assert done.ret == 1
    assert "does not start" in done.stdout
    assert marker.read_text() == "x\n"


def test_off_it_imports_nothing_and_has_no_other_option() -> None:
    code = (
        "import sys; before = set(sys.modules)\n"
        "import hvabi.conformance.plugin as plugin\n"
        "names = []\n"
        "class Group:\n"
        "    def addoption(self, *a, **k): names.extend(a)\n"
        "class Parser:\n"
        "    def getgroup(self, *a): return Group()\n"
        "class Config:\n"
        "    def getoption(self, *a, **k): return None\n"
        "plugin.pytest_addoption(Parser()); plugin.pytest_configure(Config())\n"
        "new = sorted(set(sys.modules) - before)\n"
        "assert all(name.startswith('--hv-') for name in names) and names, names\n"
        "import json; print(json.dumps([name for name in new if not name.startswith(('hvabi', 'typing', '__')) or name.count('.') > 1]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    heavy = {"yaml", "construct", "jsonschema", "pytest", "_pytest", "rich", "click"}
    assert not heavy & {name.split(".")[0] for name in found}
    assert [name for name in found if name.startswith("hvabi.")] == ["hvabi.conformance.plugin"]
