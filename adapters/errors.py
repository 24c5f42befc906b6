"""Mistakes of ours or of the caller's that adapters raise; never what a guest did."""

from __future__ import annotations

from hvabi.abi.errors import HvAbiError


class AdapterError(HvAbiError):
    """An adapter cannot do what it is asked: a call out of order, a state the ABI cannot name, a spec with a hole."""

    code = "adapter"
