"""``hvabi docs``: the folder that it writes, the plain formats, the vectors, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from hvabi.abi.registry import abi_ids, bundled
from hvabi.cli.main import cli
from hvabi.conformance.stories import regression_cases
from hvabi.conformance.vectors import write_vectors
from hvabi.publish.book import read_book
from hvabi.publish.docs import MANIFEST, manual, write_manual
from hvabi.publish.folder import FolderError, write_folder
from hvabi.publish.linked import Names
from hvabi.publish.marked import Markdown, Rst, wrapped

ONE = ["tdx-map-gpa"]


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(*args: str) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["docs", *args])
    return done.exit_code, done.output


# -- the folder ---------------------------------------------------------------------------------------------------


def test_a_second_run_takes_the_place_of_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    write_manual(folder, ONE)
    first = files(folder)
    assert json.loads(first[MANIFEST])["files"].keys() == first.keys() - {MANIFEST}
    write_manual(folder, ["ghcb-psc"])
    assert "tdx-map-gpa.html" not in files(folder)
    write_manual(folder, ONE)
    assert files(folder) == first
    assert [path.name for path in tmp_path.iterdir()] == ["site"]
    assert folder.stat().st_mode & 0o777 == 0o755 & folder.stat().st_mode | folder.stat().st_mode & 0o777


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    write_manual(tmp_path / "a" / "b", ONE)
    (tmp_path / "empty").mkdir()
    write_manual(tmp_path / "empty", ONE)
    assert files(tmp_path / "empty") == files(tmp_path / "a" / "b")


@pytest.mark.parametrize("foreign", ["notes.txt", "sub/notes.txt", ".git/config"])
def test_a_folder_of_somebody_else_is_left_alone(foreign: str, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / foreign).parent.mkdir(parents=True)
    (folder / foreign).write_text("mine")
    before = files(folder)
    with pytest.raises(FolderError, match="not ours") as caught:
        write_manual(folder, ONE)
    assert caught.value.code == "folder-not-ours"
    assert foreign in caught.value.message
    assert files(folder) == before


def test_a_file_put_into_our_folder_is_not_lost(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    write_manual(folder, ONE)
    (folder / "CNAME").write_text("example.org")
    with pytest.raises(FolderError, match="CNAME"):
        write_manual(folder, ONE)
    assert (folder / "CNAME").read_text() == "example.org"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kind": "other", "files": {"index.html": ""}}', "[" * 10000])
def test_a_manifest_of_another_kind_makes_nothing_ours(text: str, tmp_path: Path) -> None:
    (tmp_path / MANIFEST).write_text(text)
    (tmp_path / "index.html").write_text("mine")
    with pytest.raises(FolderError):
        write_manual(tmp_path, ONE)
    assert (tmp_path / "index.html").read_text() == "mine"


def test_what_is_no_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    monkeypatch.chdir(tmp_path)
    for name in ("file", "link", ".", ".."):
        with pytest.raises(FolderError) as caught:
            write_manual(tmp_path / name, ONE)
        assert caught.value.code == "folder-in-use"
        assert caught.value.hint
    assert list((tmp_path / "real").iterdir()) == []


def test_a_write_that_fails_leaves_the_old_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    about = {"kind": "test"}
    write_folder(folder, {"a": b"1"}, manifest="m.json", about=about)
    before = files(folder)

    def fail(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(self))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", fail)
        with pytest.raises(OSError, match="No space"):
            write_folder(folder, {"a": b"2"}, manifest="m.json", about=about)
    assert files(folder) == before
    rename = Path.rename
    calls = []

    def second_fails(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == 2:
            raise OSError(16, "Device or resource busy", str(self))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", second_fails)
    with pytest.raises(OSError, match="busy"):
        write_folder(folder, {"a": b"2"}, manifest="m.json", about=about)
    assert files(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


# -- the command --------------------------------------------------------------------------------------------------


def test_command(tmp_path: Path) -> None:
    code, said = run("-o", str(tmp_path / "site"), *ONE)
    assert (code, "index.html" in said) == (0, True)
    code, said = run("-o", str(tmp_path / "site"), "--json", *ONE)
    assert code == 0
    assert json.loads(said)["files"]["index.html"] > 1000


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["-o", "{tmp}/site", "tdx-map-gap"], "tdx-map-gpa"),
        (["-o", "{tmp}/site", "--vectors", "{tmp}/nothing"], "manifest"),
        (["-o", "{tmp}/site", "--vectors", "{tmp}", "--format", "md"], "only the HTML manual"),
        (["-o", "{tmp}/site", "--format", "pdf"], "pdf"),
        (["-o", "{tmp}"], "not ours"),
        (["-o", "/proc/nothing/site"], "/proc/nothing"),
        ([], "--output"),
    ],
)
def test_used_wrongly(args: list[str], words: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    code, said = run(*(arg.format(tmp=tmp_path) for arg in args))
    assert code == 2
    assert words in said
    assert "Traceback" not in said
    assert not (tmp_path / "site").exists()


# -- vectors ------------------------------------------------------------------------------------------------------


def test_vectors_are_listed_and_copied(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    write_vectors(folder, regression_cases("tdx-map-gpa"))
    made = manual(read_book(ONE), vectors=folder)
    assert {name for name in made if name.startswith("vectors/")} == {
        f"vectors/{path.name}" for path in folder.iterdir()
    }
    assert all(made[f"vectors/{path.name}"] == path.read_bytes() for path in folder.iterdir())
    page = made["tdx-map-gpa.vectors.html"].decode()
    tests = [
        test["id"]
        for path in folder.glob("tdx*.json")
        for group in json.loads(path.read_text())["groups"]
        for test in group["tests"]
    ]
    assert tests
    assert all(test.split(".", 3)[-1] in page for test in tests)
    assert "tdx-map-gpa.vectors.html" in made["tdx-map-gpa.html"].decode()


def test_damaged_vectors_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "vectors"
    write_vectors(folder, regression_cases("tdx-map-gpa"))
    path = next(folder.glob("tdx*.json"))
    path.write_text(path.read_text().replace("0x", "0X", 1))
    code, said = run("-o", str(tmp_path / "site"), "--vectors", str(folder), *ONE)
    assert code == 2
    assert "is damaged" in said


# -- plain formats ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["md", "rst"])
def test_plain_formats_have_every_rule_and_value(form: str) -> None:
    made = manual(read_book(), "md" if form == "md" else "rst")
    assert set(made) == {f"{name}.{form}" for name in (*abi_ids(), "index")}
    for abi in abi_ids():
        text = made[f"{abi}.{form}"].decode()
        for call in bundled(abi).calls.values():
            assert all(f"**{rule.id}**" in text for rule in call.rules)
        assert "{{" not in text
        assert not any(line != line.rstrip() for line in text.split("\n"))
        assert text.count("\n\n\n\n") == 0


def test_markdown_tables_have_as_many_cells_as_their_head() -> None:
    import re

    for name, data in manual(read_book(), "md").items():
        width = 0
        for line in data.decode().split("\n"):
            cells = len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0
            assert not (width and cells and cells != width), (name, line)
            width = cells


def test_rst_reads_without_a_warning() -> None:
    docutils = pytest.importorskip(
        "docutils.core", reason="docutils is not installed: the reStructuredText is not read back"
    )
    for name, data in manual(read_book(), "rst").items():
        docutils.publish_string(
            data.decode(), source_path=name, settings_overrides={"report_level": 2, "halt_level": 2}
        )


NAMES = Names(bundled("ghcb-psc"))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Uses cur_entry, and * too.", "Uses ``cur_entry``, and \\* too."),
        ("entries[].cur_page", "entries[].\\ ``cur_page``"),
        ("xcur_entryx", "``xcur_entryx``"),
        ("PSC_OK!", "``PSC_OK``!"),
        ("a |b| `c`", "a \\|b\\| \\`c\\`"),
    ],
)
def test_rst_text(text: str, wanted: str) -> None:
    assert Rst(NAMES).prose(text) == wanted


def test_markdown_text() -> None:
    assert Markdown(NAMES).prose("cur_entry is *not* <b>") == "`cur_entry` is \\*not\\* \\<b\\>"
    assert Markdown(NAMES).code("a `b` c") == "``a `b` c``"


def test_folding_makes_no_lists() -> None:
    text = "words " * 14 + "`a - 1` and more words here 1. not a list * not one either " + "words " * 20
    folded = wrapped(text).split("\n")
    assert len(folded) > 2
    assert not any(line.startswith(("- ", "* ", "1. ")) for line in folded[1:])
    assert " ".join(folded).split() == text.split()
