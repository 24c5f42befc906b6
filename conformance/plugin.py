"""The pytest plugin: ``pytest --hv-iut='cmd:./my-vmm'`` runs every conformance case as a test.

It does nothing, and imports nothing, unless ``--hv-iut`` is given. Each pytest process, so each worker of
pytest-xdist too, has one session with the implementation. A test's id is ``hvabi::`` and the id of its case.

- A known failure (``--hv-expect``) is an expected failure; where it passes, the test fails, unless it is ``flaky``.
- What the implementation does not have is a skip; an unmet ``should`` is a warning.
- A policy that shows two values in one run fails the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, every one with the prefix ``--hv-``."""
    group = parser.getgroup("hvabi", "hvabi: conformance of a hypervisor or guest")
    group.addoption("--hv-iut", metavar="CONNECTOR", help="the implementation: cmd:PROGRAM, unix:PATH, tcp:HOST:PORT, "
                    "serial:PATH, py:module:attribute or builtin; without it this plugin is off")  # fmt: skip
    group.addoption("--hv-abi", metavar="ABI", action="append", default=[],
                    help="only this ABI, as ID or ID@REVISION; may be repeated")  # fmt: skip
    group.addoption("--hv-role", choices=("host", "guest"), help="only this role")
    group.addoption("--hv-case", metavar="GLOB", action="append", default=[],
                    help="only cases with this id, or glob of ids; may be repeated")  # fmt: skip
    group.addoption("--hv-profile", metavar="PROFILE", default="spec", help="judge by this profile (default: spec)")
    group.addoption("--hv-expect", metavar="FILE", help="file of known failures")
    group.addoption("--hv-timeout", metavar="SECONDS", type=float, default=5.0,
                    help="time for each answer (default: 5)")  # fmt: skip
    group.addoption("--hv-transcript", metavar="FILE",
                    help="write what goes over the wire; with pytest-xdist, one file per worker")  # fmt: skip


def pytest_configure(config: pytest.Config) -> None:
    """Load the rest of the plugin where an implementation is given."""
    if config.getoption("--hv-iut", default=None):
        from hvabi.conformance.plugin_items import CasePlugin

        config.pluginmanager.register(CasePlugin(config), "hvabi-cases")
