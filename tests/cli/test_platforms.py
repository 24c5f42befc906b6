"""Platforms without a call of their own, as people and programs see them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hvabi.publish.tables import abi_table

if TYPE_CHECKING:
    from tests.cli.conftest import Run


def test_list_and_show_name_them(hv: Run) -> None:
    assert "ghcb-psc, ghcb-msr-psc, tdx-map-gpa" in hv("list", "vmware").out
    assert "vmware" not in hv("list", "cca").out
    assert "VMware ESXi: no call of its own" in hv("show", "vmware").out
    assert "*vmware*" in abi_table()


def test_programs_get_them_beside_the_abis(hv: Run) -> None:
    listed = json.loads(hv("list", "vmware", "--json").out)
    assert listed["abis"] == []
    assert [row["id"] for row in listed["platforms"]] == ["vmware"]
    assert listed["platforms"][0]["leaves"][0]["registers"] == {"r10": "0x1af7e4909"}
    assert json.loads(hv("show", "vmware", "--json").out)["calls_of"][0] == "ghcb-psc"


def test_decode_names_a_call_that_is_no_conversion(hv: Run) -> None:
    ran = hv("decode", "r10=0x1af7e4909", "r11=1", "r12=0x564d5868")
    assert ran.code == 2
    assert "TDX vendor leaf of VMware ESXi" in ran.err
