"""The list of permanent case ids: ``python -m tests.conformance.case_ids`` writes it anew.

Ids may be added at any time. An id that goes away, or is given to something else, takes it from those who have it in
their lists of known failures: change the list only where that is meant, and say so in CHANGELOG.md.
"""

from __future__ import annotations

from pathlib import Path

from hvabi.abi.registry import abi_ids, bundled
from hvabi.conformance.generate import cases

LIST = Path(__file__).parent.parent / "data" / "case_ids.txt"


def generated_ids() -> list[str]:
    """Return the ids of all generated cases, under every profile, sorted."""
    found = {case.id for case in cases()}
    for abi in abi_ids():
        if not bundled(abi).draft:
            for profile in bundled(abi).profiles:
                found |= {case.id for case in cases(abi, profile=profile)}
    return sorted(found)


def listed_ids() -> list[str]:
    """Return the ids that are checked in."""
    return LIST.read_text(encoding="utf-8").split()


if __name__ == "__main__":
    LIST.write_text("\n".join(generated_ids()) + "\n", encoding="utf-8")
    print(f"{LIST}: {len(listed_ids())} ids")
