"""KVM's own modules, built again from Debian's source with software-protected VMs, which no kernel of Debian has.

Nothing of the source is changed but where its makefile and its trace headers look for files; one macro is defined. The
modules fit the stock kernel of the same version and no other.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hvabi.evidence.live.errors import LiveError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hvabi.evidence.live.kernels import Kernel, Store

OLDEST = (6, 8)
"""The first kernel with private memory for such VMs."""
_RECIPE = 1
"""Raised when what is built changes, so that an older result in a cache is not taken for it."""
_MACRO = "CONFIG_KVM_SW_PROTECTED_VM"
_BUILT = ("kvm.ko", "kvm-amd.ko")
_SECONDS = 1800
_WANTED = re.compile(r"[^/]+/(?:arch/x86/kvm|virt)/")
_RELEASE = re.compile(r"(\d+\.\d+)[0-9a-z.+~-]*-amd64\Z")


def usable(store: Store) -> list[str]:
    """Return the kernel packages whose modules can be built again, oldest first."""
    return [name for name in store.names() if not re.search(r"-(cloud|rt)-", name) and _version(name) >= OLDEST]


def newest(store: Store) -> str:
    """Return the newest of them. Raises `LiveError` ``no-kernel`` where apt offers none."""
    found = usable(store)
    if not found:
        raise LiveError(
            f"apt offers no generic kernel from {'.'.join(map(str, OLDEST))} on",
            code="no-kernel",
            hint="--suite trixie or --suite trixie-backports may have one",
        )
    return found[-1]


def _version(name: str) -> tuple[int, int]:
    match = re.search(r"-(\d+)\.(\d+)", name)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def rebuilt(store: Store, kernel: Kernel) -> Kernel:
    """Return a kernel with modules that have software-protected VMs; built where the cache does not have them.

    Raises `LiveError` ``no-build`` where they cannot be built here, ``no-kernel`` where a package is missing.
    """
    place = store.folder / "modules" / f"{kernel.release}-sw-protected-{_RECIPE}"
    if not (place / "whole").exists():
        match = _RELEASE.match(kernel.release)
        if match is None or kernel.version < OLDEST or re.search(r"-(cloud|rt)-", kernel.release):
            raise LiveError(
                f"the modules of {kernel.release} cannot be built again: a generic kernel from "
                f"{'.'.join(map(str, OLDEST))} on is needed",
                code="no-build",
                hint="leave --kernel out, or see --list",
            )
        _tool("make", "make")
        store.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="build-", dir=store.folder) as folder:
            _build(store, kernel, match[1], Path(folder), place)
    return replace(kernel, instead=place)


def _build(store: Store, kernel: Kernel, series: str, folder: Path, place: Path) -> None:
    headers_of = f"linux-headers-{kernel.release}"
    version = store.version(headers_of)
    common = headers_of.removesuffix("-amd64") + "-common"
    kbuild = f"linux-kbuild-{kernel.release.removesuffix('-amd64')}"
    for name in (headers_of, common, kbuild):
        store.unpack(name, folder)
    headers = folder / "usr/src" / headers_of
    compiler = _compiler(headers)
    _tool(compiler, compiler.rpartition("linux-gnu-")[2])
    store.unpack(f"linux-source-{series}={version}", folder)
    source = _source(folder, store.progress)
    _redirect(source, headers, folder / "usr/src" / common)
    _make(source, headers, store.progress)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for name in _BUILT:
        shutil.move(source / "arch/x86/kvm" / name, place / name)
    (place / "whole").touch()


def _tool(name: str, package: str) -> None:
    if shutil.which(name) is None:
        raise LiveError(
            f"{name} is not installed", code="no-build", hint=f"apt-get install --no-install-recommends {package}"
        )


def _compiler(headers: Path) -> str:
    """Return the compiler that the kernel was built with: another may not know its options."""
    text = (headers / ".kernelvariables").read_text() if (headers / ".kernelvariables").exists() else ""
    prefix = re.search(r"CROSS_COMPILE\s*=\s*(\S+)", text)
    name = re.search(r"\bgcc-\d+\b", text)
    return f"{prefix[1] if prefix else ''}{name[0] if name else 'gcc'}"


def _source(folder: Path, progress: Callable[[object], None]) -> Path:
    """Unpack what KVM is made of; return the folder of the source."""
    packed = next((folder / "usr/src").glob("linux-source-*.tar.*"), None)
    if packed is None:
        raise LiveError("the package of the source has no source", code="no-build")
    progress(f"unpacking KVM's part of {packed.name}")
    with tarfile.open(packed, "r|*") as archive:
        for member in archive:
            data = archive.extractfile(member) if member.isfile() and _WANTED.match(member.name) else None
            if data is not None and ".." not in Path(member.name).parts:
                place = folder / member.name
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data.read())
    packed.unlink()
    return folder / packed.name.split(".tar")[0]


def _redirect(source: Path, headers: Path, common: Path) -> None:
    """Let makefile and trace headers find their files outside a kernel tree."""
    (headers / "Makefile").write_text(f"include {common}/Makefile\n")
    _change(
        source / "arch/x86/kvm/Makefile",
        (r"\$\(srctree\)/arch/x86/kvm", "$(src) -I $(src)/../../../virt/kvm"),
        (r"\$\(srctree\)/virt/kvm/Makefile\.kvm", "$(src)/../../../virt/kvm/Makefile.kvm"),
    )
    _change(source / "arch/x86/kvm/trace.h", (r"(#define TRACE_INCLUDE_PATH) .*", r"\1 ."))


def _change(path: Path, *changes: tuple[str, str]) -> None:
    text = path.read_text()
    for old, new in changes:
        text, count = re.subn(old, new, text)
        if not count:
            raise LiveError(f"{path.name} of this kernel is another than this knows how to build", code="no-build")
    path.write_text(text)


def _make(source: Path, headers: Path, progress: Callable[[object], None]) -> None:
    """Build the modules: no symbols for debuggers, nothing for Intel, as many files at once as there are processors."""
    command = [
        "nice", "make", f"-j{os.cpu_count() or 1}", "-C", str(headers), f"M={source / 'arch/x86/kvm'}",
        "CONFIG_KVM_INTEL=", "CONFIG_DEBUG_INFO=", "CONFIG_DEBUG_INFO_BTF_MODULES=", f"KCFLAGS=-D{_MACRO}=1", "modules",
    ]  # fmt: skip
    began = time.monotonic()
    log = source / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
        try:
            while process.poll() is None:
                seconds = time.monotonic() - began
                if seconds > _SECONDS:
                    raise LiveError(f"KVM's modules were not built after {_SECONDS} s", code="no-build")
                count = log.read_bytes().count(b"CC [M]")
                progress(f"building kvm.ko and kvm-amd.ko: {count} files, {seconds:.0f} s")
                time.sleep(1)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if process.returncode:
        lines = [line for line in log.read_text(errors="replace").splitlines() if "rror" in line] or ["no message"]
        raise LiveError(f"KVM's modules cannot be built: {lines[0].strip()[-300:]}", code="no-build")


__all__ = ["newest", "rebuilt", "usable"]
