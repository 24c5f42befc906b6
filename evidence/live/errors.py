"""What can go wrong with a live kernel that is not a verdict."""

from __future__ import annotations

from hvabi.abi.errors import HvAbiError


class LiveError(HvAbiError):
    """A machine could not be had or did not come up: the live tier is skipped, never passed."""
