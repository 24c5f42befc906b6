"""Platforms without a call of their own: their rows, and their calls that are no conversions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hvabi.abi.lint import lint_paths
from hvabi.abi.platforms import leaves_of, platforms
from hvabi.abi.registry import abi_ids, bundled, spec_root

if TYPE_CHECKING:
    from pathlib import Path

LEAF = 0x1AF7E4909  # VMWARE_TDX_VENDOR_LEAF of asm/vmware.h


def test_vmware_uses_calls_that_there_are() -> None:
    vmware = platforms()["vmware"]
    assert vmware.calls_of == ("ghcb-psc", "ghcb-msr-psc", "tdx-map-gpa")
    assert all(name in abi_ids() and not bundled(name).draft for name in vmware.calls_of)
    assert vmware.evidence
    assert "vmware" not in abi_ids()


def test_a_leaf_is_told_by_all_of_its_registers() -> None:
    assert [leaf.name for _, leaf in leaves_of({"r10": LEAF, "r11": 1})] == ["TDX vendor leaf"]
    assert leaves_of({"r10": LEAF - 1}) == []
    assert leaves_of({"r11": 1}) == []
    assert leaves_of({}) == []


def test_lint_looks_at_its_names(tmp_path: Path) -> None:
    good = (spec_root() / "vmware" / "vmware.yaml").read_text()
    path = tmp_path / "vmware.yaml"
    for old, new, wanted in (
        ("r10:", "frob:", "unknown-register"),
        ("source: linux, text", "source: linus, text", "unknown-source"),
        ("ghcb-psc,", "ghcb-pcs,", "platform-unknown-abi"),
        ("title: VMware", "titel: VMware", "schema-unknown-key"),
    ):
        assert old in good
        path.write_text(good.replace(old, new, 1))
        assert wanted in [finding.id for finding in lint_paths([path])]
    path.write_text(good)
    assert lint_paths([path]) == []
