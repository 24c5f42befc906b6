"""``hvabi diff``: one crafted pair for each class of change, made from a bundled specification."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from hvabi.abi.difference import Change, differences, effect_of
from hvabi.abi.errors import UsageError
from hvabi.abi.registry import spec_root
from hvabi.cli.main import cli

ATTRIBUTES = "kvm/kvm-memory-attributes.yaml"
PSC = "amd/ghcb-psc.yaml"
EFAULT = "answer: {ret: NEG_EFAULT},"
EINVAL = "answer: {ret: NEG_EINVAL},"
FLAGS = '\n         text: "flags'
V612 = "  linux-kvm-6.12: {source: live612, policies: {},"
V611 = "  linux-kvm-6.11: {source: live612, policies: {},"

PAIRS = [
    # constant, layout, rules, answers
    (ATTRIBUTES, "PRIVATE: {value: 8,", "PRIVATE: {value: 16,", "breaking", "changed", "constants.PRIVATE.value"),
    (
        ATTRIBUTES,
        "size: {at: 8, size: 8,",
        "size: {at: 9, size: 8,",
        "breaking",
        "changed",
        "layouts.kvm-memory-attributes.fields.size.at",
    ),
    (
        PSC,
        "operation: {bits: [55, 52],",
        "operation: {bits: [56, 53],",
        "breaking",
        "changed",
        "layouts.psc-entry.fields.operation.bits.0",
    ),
    (PSC, "[0, 0x403]", "[0, 0x404]", "compatible", "changed", "messages.request.fields.exit_code.others.1.1"),
    (ATTRIBUTES, EINVAL + FLAGS, EFAULT + FLAGS, "breaking", "changed", "calls.set.rules.KVM-MEMATTR-02.answer.ret"),
    (
        ATTRIBUTES,
        "{id: KVM-MEMATTR-05,",
        "{id: KVM-MEMATTR-55,",
        "breaking",
        "removed",
        "calls.set.rules.KVM-MEMATTR-05",
    ),
    (ATTRIBUTES, "{id: KVM-MEMATTR-05,", "{id: KVM-MEMATTR-55,", "breaking", "added", "calls.set.rules.KVM-MEMATTR-55"),
    (
        ATTRIBUTES,
        "limit: {answer: {ret: NEG_ENOMEM}",
        "limit: {answer: {ret: NEG_EINVAL}",
        "breaking",
        "changed",
        "calls.set.outcomes.limit.answer.ret",
    ),
    # enum values, texts
    (
        PSC,
        "      SHARED: {value: 2,",
        "      NEW: {value: 9, doc: New.}\n      SHARED: {value: 2,",
        "compatible",
        "added",
        "enums.operation.values.NEW",
    ),
    (
        PSC,
        "      UNSMASH: {value: 4,",
        "      UNMASH: {value: 4,",
        "breaking",
        "removed",
        "enums.operation.values.UNSMASH",
    ),
    (
        ATTRIBUTES,
        "Length of the range.",
        "How long the range is.",
        "documentation",
        "changed",
        "layouts.kvm-memory-attributes.fields.size.doc",
    ),
    (
        ATTRIBUTES,
        'text: "The range must not be empty."',
        'text: "An empty range is refused."',
        "documentation",
        "changed",
        "calls.set.rules.KVM-MEMATTR-05.text",
    ),
    # profiles and policies
    (
        ATTRIBUTES,
        "config: {supported: 0}",
        "config: {supported: 8}",
        "breaking",
        "changed",
        "profiles.linux-kvm-default-vm.config.supported",
    ),
    (ATTRIBUTES, V612, V611, "compatible", "added", "profiles.linux-kvm-6.11"),
    (ATTRIBUTES, V612, V611, "breaking", "removed", "profiles.linux-kvm-6.12"),
    # examples
    (
        ATTRIBUTES,
        "before: [[0x1f018000, 1, shared]]",
        "before: [[0x1f018000, 2, shared]]",
        "compatible",
        "changed",
        "examples.one page to private.before.0.1",
    ),
    (
        ATTRIBUTES,
        "name: one page to private,",
        "name: a page to private,",
        "compatible",
        "removed",
        "examples.one page to private",
    ),
]


def pair(tmp_path: Path, name: str, old: str, new: str) -> tuple[Path, Path, str]:
    text = (spec_root() / name).read_text(encoding="utf-8")
    assert old in text
    changed = text.replace(old, new, 1)
    (tmp_path / "old.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "new.yaml").write_text(changed, encoding="utf-8")
    return tmp_path / "old.yaml", tmp_path / "new.yaml", changed


@pytest.mark.parametrize(("name", "old", "new", "effect", "kind", "path"), PAIRS)
def test_each_class(name: str, old: str, new: str, effect: str, kind: str, path: str, tmp_path: Path) -> None:
    before, after, _ = pair(tmp_path, name, old, new)
    changes = differences(before, after)
    found: dict[tuple[str, str, str], Change] = {(item.effect, item.kind, item.path): item for item in changes}
    assert (effect, kind, path) in found
    change = found[effect, kind, path]
    text = Path(change.file).read_text(encoding="utf-8").splitlines()[change.line - 1]
    words = (old if kind == "removed" else new).strip().splitlines()
    assert any(word in text for word in words), f"line {change.line} is {text}"
    if kind == "changed" and path[-1] != "0":  # the other end of a range moves too
        assert len(found) == 1


def test_rules_in_another_order(tmp_path: Path) -> None:
    text = (spec_root() / ATTRIBUTES).read_text(encoding="utf-8")
    start = text.index("      - {id: KVM-MEMATTR-02")
    middle = text.index("      - {id: KVM-MEMATTR-03")
    end = text.index("      - {id: KVM-MEMATTR-04")
    (tmp_path / "old.yaml").write_text(text, encoding="utf-8")
    moved = text[:start] + text[middle:end] + text[start:middle] + text[end:]
    (tmp_path / "new.yaml").write_text(moved, encoding="utf-8")
    (change,) = differences(tmp_path / "old.yaml", tmp_path / "new.yaml")
    assert (change.effect, change.kind, change.path) == ("breaking", "reordered", "calls.set.rules.KVM-MEMATTR-03")
    assert change.line == text[:start].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("PRIVATE: {value: 8,", "PRIVATE: {value: 0x8,"),
        ('text: "The range must not be empty."', 'text: "The range must\n            not be empty."'),
        ("address: {at: 0, size: 8, unit: byte,", "address: {unit: byte, size: 8, at: 0,"),
    ],
)
def test_another_way_to_write_it_is_no_change(old: str, new: str, tmp_path: Path) -> None:
    before, after, _ = pair(tmp_path, ATTRIBUTES, old, new)
    assert differences(before, after) == ()


def test_folders(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name / "kvm").mkdir(parents=True)
        (tmp_path / name / "kvm" / "one.yaml").write_bytes((spec_root() / ATTRIBUTES).read_bytes())
    (tmp_path / "old" / "psc.yaml").write_bytes((spec_root() / PSC).read_bytes())
    (tmp_path / "new" / "errno.yaml").write_bytes((spec_root() / "shared/errno.yaml").read_bytes())
    (tmp_path / "new" / "kvm" / "one.yaml").rename(tmp_path / "new" / "renamed.yaml")
    found = [(change.effect, change.kind, change.abi) for change in differences(tmp_path / "old", tmp_path / "new")]
    assert found == [("compatible", "added", "shared/errno"), ("breaking", "removed", "ghcb-psc")]
    assert differences(spec_root(), spec_root()) == ()


def test_a_field_that_is_called_doc_is_no_text() -> None:
    assert effect_of("changed", ("layouts", "x", "fields", "doc", "at")) == "breaking"
    assert effect_of("changed", ("layouts", "x", "fields", "doc", "doc")) == "documentation"
    assert effect_of("added", ("messages", "request", "fields", "doc")) == "breaking"
    assert effect_of("changed", ("enums", "x", "values", "text", "value")) == "breaking"


def test_what_it_does_not_know_is_breaking() -> None:
    assert effect_of("changed", ("calls", "x", "something")) == "breaking"
    assert effect_of("added", ("calls", "x", "something")) == "breaking"


def test_used_wrongly(tmp_path: Path) -> None:
    (tmp_path / "none.yaml").write_text("a: 1\n")
    spec = spec_root() / PSC
    for old, new, code in [
        (tmp_path / "gone", spec, "no-file"),
        (tmp_path, spec, "file-and-folder"),
        (spec, tmp_path / "none.yaml", "no-specification"),
        (tmp_path, tmp_path, "no-specification"),
    ]:
        with pytest.raises(UsageError) as caught:
            differences(old, new)
        assert caught.value.code == code


def test_the_command(tmp_path: Path) -> None:
    before, after, _ = pair(tmp_path, PSC, "PSC_HEADER: {value: 8,", "PSC_HEADER: {value: 9,")
    done = CliRunner().invoke(cli, ["diff", str(before), str(after)])
    assert done.exit_code == 1
    assert "breaking: ghcb-psc constants.PSC_HEADER.value: it was 8 and is 9" in done.output
    done = CliRunner().invoke(cli, ["diff", str(before), str(after), "--json"])
    assert json.loads(done.output)["counts"] == {"breaking": 1, "compatible": 0, "documentation": 0}
    before, after, _ = pair(tmp_path, PSC, "Size of the header in bytes.", "Bytes of the header.")
    assert CliRunner().invoke(cli, ["diff", str(before), str(after)]).exit_code == 0
    assert CliRunner().invoke(cli, ["diff", str(before), str(before)]).exit_code == 0
    assert CliRunner().invoke(cli, ["diff", str(before), str(tmp_path / "gone")]).exit_code == 2


def test_ci_wants_a_breaking_change_in_the_changelog(tmp_path: Path) -> None:
    """`.ci/changelog` on a repository of one specification: silent, changed, told, and with a text alone."""
    script = Path(__file__).parents[2] / ".ci" / "changelog"
    tools = Path(sys.executable).parent
    if shutil.which("git") is None or not (tools / "hvabi").exists() or not script.exists():
        pytest.skip("needs git, the command hvabi beside this Python, and a checkout")
    (tmp_path / "spec").mkdir()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "bin").symlink_to(tools)
    shutil.copy(script, tmp_path / ".ci" / "changelog")
    spec = tmp_path / "spec" / "psc.yaml"
    log = tmp_path / "CHANGELOG.md"
    text = (spec_root() / PSC).read_text(encoding="utf-8")
    spec.write_text(text, encoding="utf-8")
    log.write_text("# Changelog\n- `ghcb-psc` is there.\n", encoding="utf-8")

    def git(*words: str) -> None:
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True, capture_output=True)

    def judged() -> tuple[int, str]:
        done = subprocess.run([tmp_path / ".ci" / "changelog"], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    git("init", "-q")
    git("add", "spec", "CHANGELOG.md")
    git("commit", "-qm", "one")
    assert judged() == (0, "skipped: no tag and no origin/main to compare with\n")
    git("tag", "v1")
    assert judged() == (0, "")
    spec.write_text(text.replace("PSC_HEADER: {value: 8,", "PSC_HEADER: {value: 9,"), encoding="utf-8")
    code, said = judged()
    assert code == 1
    assert "ghcb-psc constants.PSC_HEADER.value: it was 8 and is 9; CHANGELOG.md says nothing of ghcb-psc" in said
    log.write_text(log.read_text() + "- **`ghcb-psc`: the header has 9 bytes.**\n", encoding="utf-8")
    assert judged() == (0, "")
    git("checkout", "-q", "CHANGELOG.md")
    spec.write_text(text.replace("Size of the header in bytes.", "Bytes of the header."), encoding="utf-8")
    assert judged() == (0, "")
