"""Which adapter serves an ABI: its own module where it has one, else what the specification alone gives."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.util import find_spec

from hvabi.abi.values import ident
from hvabi.adapters.guest import Guest
from hvabi.adapters.host import Host


@cache
def _module_name(abi: str) -> str | None:
    name = f"hvabi.adapters.{ident(abi)}"
    return name if find_spec(name) is not None else None


def host_class(abi: str) -> type[Host]:
    """Return the class of an ABI's host: ``HostAdapter`` of its module, else `Host`."""
    name = _module_name(abi)
    found = getattr(import_module(name), "HostAdapter", Host) if name else Host
    assert issubclass(found, Host)  # a module of ours
    return found


def guest_class(abi: str) -> type[Guest]:
    """Return the class of an ABI's guest: ``GuestAdapter`` of its module, else `Guest`."""
    name = _module_name(abi)
    found = getattr(import_module(name), "GuestAdapter", Guest) if name else Guest
    assert issubclass(found, Guest)  # a module of ours
    return found
