"""Every package and every checker link is declared, so that none is missing from a wheel."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parent.parent
TOP = ("abi", "adapters", "backend", "cli", "conformance", "evidence", "publish", "spec", "traces")
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_package_is_declared() -> None:
    declared = set(CONFIG["tool"]["setuptools"]["packages"])
    files = [i for top in TOP for kind in ("__init__.py", "*.yaml", "*.json", "*.j2") for i in (ROOT / top).rglob(kind)]
    folders = {i.parent for i in files} - {ROOT / "spec" / "ready"}  # setup.py writes it
    assert declared == {"hvabi." + ".".join(i.relative_to(ROOT).parts) for i in folders}


def test_every_folder_has_its_link_for_type_checkers() -> None:
    links = {link.name: link for link in (ROOT / "typings" / "hvabi").iterdir()}
    assert set(links) == set(TOP)
    assert all(link.resolve() == ROOT / name for name, link in links.items())


def test_every_code_folder_ships_types() -> None:
    assert all((ROOT / top / "py.typed").is_file() for top in TOP)
