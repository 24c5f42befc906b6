"""Find, read and hold the specifications: ``load("ghcb-psc").message("request")``."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from hvabi.abi.build import build
from hvabi.abi.build_calls import BuildError
from hvabi.abi.codec import LayoutCodec, MessageCodec
from hvabi.abi.errors import SpecError, UsageError, show
from hvabi.abi.ready import read_plain, spec_root
from hvabi.abi.scope import static_names
from hvabi.abi.specification import SPEC_PROFILE, Abi

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hvabi.abi.model import Pointer, Transport
    from hvabi.abi.source import Node, SourceFile

MORE_SPECS = "HVABI_SPEC"
"""Environment variable: a folder with more specification files, ``<abi>.yaml``, served like the bundled ones."""
VENDORS = ("common", "kvm", "amd", "intel", "microsoft", "arm", "ibm", "riscv")
"""Folders of the specification files, in the order in which they are listed."""
MAX_KEPT = 256
"""Codecs of a specification that are kept for another time; a configuration of its own needs codecs of its own."""


@lru_cache(maxsize=1)
def abi_files() -> dict[str, Path]:
    """Return the file of every bundled ABI by id, in listing order, and behind them those of the folder `MORE_SPECS`.

    Raises `UsageError`: ``no-spec-folder`` where that is no folder, ``spec-clash`` for the id of a bundled ABI.
    """
    root = spec_root()
    found = {path.stem: path for vendor in VENDORS for path in sorted((root / vendor).glob("*.yaml"))}
    more = os.environ.get(MORE_SPECS)
    if not more:
        return found
    folder = Path(more)
    if not folder.is_dir():
        text = f"{MORE_SPECS} is {show(more)}, which is no folder"
        raise UsageError(text, code="no-spec-folder", hint="name a folder with specification files")
    for path in sorted(folder.glob("*.yaml")):
        if path.stem in found:
            text = f"{show(str(path))} has the id of a bundled ABI"
            raise UsageError(
                text, code="spec-clash", hint=f"give the file, and `abi:` in it, another name than {path.stem}"
            )
        found[path.stem] = path
    return found


def abi_ids() -> tuple[str, ...]:
    """Return the ids of the bundled ABIs in listing order."""
    return tuple(abi_files())


def nearest(source: SourceFile, pointer: Pointer) -> Node:
    """Return the node at a pointer, or the nearest one above it that exists."""
    from hvabi.abi.source import find

    for length in range(len(pointer), 0, -1):
        try:
            return find(source.root, pointer[:length])
        except UsageError:
            continue
    return source.root


@cache
def _shared(path: Path) -> Any:
    if not path.is_file():
        raise BuildError(f"there is no shared file `{path.stem}`", ("uses",), code="unknown-shared")
    return read_plain(path)


def read_abi(path: Path, *, shared_folder: Path | None = None) -> Abi:
    """Read one specification file into the model.

    Shared files come from `shared_folder`, by default ``shared`` beside the file's folder where there is one, else
    the bundled ones. Raises `SpecError` for a file that cannot be read or built; `hvabi.abi.lint` finds more.
    """
    data: Any = read_plain(path)
    if shared_folder is None:
        beside = path.resolve().parent.parent / "shared"
        shared_folder = beside if beside.is_dir() else spec_root() / "shared"
    shared: dict[str, Any] = {}
    try:
        for name in data.get("uses", ()):
            shared[name] = _shared(shared_folder / f"{name}.yaml")
        return build(data, str(path), shared)
    except BuildError as error:
        raise _problem(path, error.pointer, error.code, error.message, error.hint) from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # The shape is wrong: the schema says where, in words; this is only reached without lint.
        message = f"the file does not have the shape of a specification ({type(error).__name__}: {error})"
        raise _problem(path, (), "spec-shape", message, "run hvabi lint on it") from error


def _problem(path: Path, pointer: Pointer, code: str, message: str, hint: str | None) -> SpecError:
    from hvabi.abi.source import load_file

    source = load_file(path)
    return SpecError([source.diagnostic(nearest(source, pointer), code, message, hint)])


@cache
def bundled(abi: str) -> Abi:
    """Return a bundled ABI, all revisions and policies. Raises `UsageError` ``unknown-abi``."""
    found = abi_files().get(abi)
    if found is None:
        raise UsageError.unknown("abi", abi, abi_files())
    return read_abi(found)


def _keep(kept: dict[Any, Any], key: object, value: object) -> None:
    """Keep a value; what was kept goes where there is too much of it. One step, so that threads need no lock."""
    if len(kept) >= MAX_KEPT:
        kept.clear()
    kept[key] = value


@dataclass(frozen=True, eq=False)
class Spec:
    """An ABI as one revision under one profile: codecs of its messages and layouts."""

    abi: Abi
    _codecs: dict[tuple[Any, ...], MessageCodec] = field(default_factory=dict, init=False, repr=False)
    _names: dict[tuple[Any, ...], Mapping[str, Any]] = field(default_factory=dict, init=False, repr=False)

    @property
    def id(self) -> str:
        """The ABI's id."""
        return self.abi.id

    @property
    def default_transport(self) -> str:
        """Name of the first transport."""
        return next(iter(self.abi.transports))

    def transport(self, name: str | None = None) -> Transport:
        """Return a transport by name, the first by default. Raises `UsageError` ``unknown-transport``."""
        chosen = name or self.default_transport
        if chosen not in self.abi.transports:
            raise UsageError.unknown("transport", chosen, self.abi.transports)
        return self.abi.transports[chosen]

    def config(self, given: Mapping[str, int] | None = None) -> dict[str, int]:
        """Return the whole configuration. Raises `UsageError` for a key or value that does not exist."""
        values = {key.name: key.default for key in self.abi.config.values()}
        if self.abi.profile != SPEC_PROFILE:
            values.update(self.abi.profiles[self.abi.profile].config)
        for name, value in (given or {}).items():
            if name not in self.abi.config:
                raise UsageError.unknown("config key", name, self.abi.config)
            key = self.abi.config[name]
            if not key.accepts(value):
                allowed = (
                    "one of " + ", ".join(map(str, key.choices)) if key.choices else f"{key.minimum} to {key.maximum}"
                )
                raise UsageError(
                    f"config {name} cannot be {value}", code="bad-config-value", hint=f"it is {allowed}: {key.doc}"
                )
            values[name] = value
        return values

    def names(self, transport: Transport, config: Mapping[str, int]) -> Mapping[str, Any]:
        """Return the names of expressions that stay the same under a whole configuration; made once."""
        key = (transport.name, *config.items())
        found = self._names.get(key)
        if found is None:
            found = MappingProxyType(static_names(self.abi, transport, config))
            _keep(self._names, key, found)
        return found

    def message(
        self,
        name: str = "request",
        *,
        transport: str | None = None,
        config: Mapping[str, int] | None = None,
    ) -> MessageCodec:
        """Return the codec of a message on a transport.

        Raises `UsageError` ``unknown-message``, ``unknown-transport`` or ``no-placement``.
        """
        key = (name, transport, *sorted((config or {}).items()))
        found = self._codecs.get(key)
        if found is None:
            found = self._message(name, transport, config)
            _keep(self._codecs, key, found)
        return found

    def _message(self, name: str, transport: str | None, config: Mapping[str, int] | None) -> MessageCodec:
        if name not in self.abi.messages:
            raise UsageError.unknown("message", name, self.abi.messages)
        if transport is None:
            chosen = next((t for t in self.abi.transports.values() if name in t.placements), None)
            place = chosen or self.transport()
        else:
            place = self.transport(transport)
        if name not in place.placements:
            raise UsageError(
                f"{self.id} does not carry {name} over {place.name}",
                code="no-placement",
                hint="messages there: " + ", ".join(place.placements),
            )
        static = self.names(place, self.config(config))
        request = None
        for call in self.abi.calls.values():
            if call.response == name and call.request in place.placements and call.request != name:
                request = MessageCodec(
                    self.abi.messages[call.request], place, static, label=f"{self.id}/{call.request}"
                )
                break
        return MessageCodec(self.abi.messages[name], place, static, label=f"{self.id}/{name}", request=request)

    def layout(self, name: str) -> LayoutCodec:
        """Return the codec of a layout. Raises `UsageError` ``unknown-layout``."""
        if name not in self.abi.layouts:
            raise UsageError.unknown("layout", name, self.abi.layouts)
        return LayoutCodec(self.abi.layouts[name])


@cache
def _load(abi: str, revision: str | None, profile: str, policies: tuple[tuple[str, str], ...]) -> Spec:
    return Spec(bundled(abi).resolve(revision=revision, profile=profile, policies=dict(policies)))


def load(
    abi: str,
    *,
    revision: str | None = None,
    profile: str = SPEC_PROFILE,
    policies: Mapping[str, str] | None = None,
) -> Spec:
    """Return a bundled ABI as one revision under one profile, read once and kept.

    `abi` may carry the revision: ``kvm-page-enc-status@v10``. Raises `UsageError` for names that do not exist.
    """
    name, _, after = abi.partition("@")
    return _load(name, revision or after or None, profile, tuple(sorted((policies or {}).items())))


__all__ = ["Spec", "abi_files", "abi_ids", "bundled", "load", "read_abi", "spec_root"]
