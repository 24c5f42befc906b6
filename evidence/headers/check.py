"""Whether installed headers agree with the specifications: compiled, not read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hvabi.abi.errors import UsageError
from hvabi.evidence.headers import program

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from hvabi.evidence.headers.claims import Claim
    from hvabi.evidence.headers.roots import Header, Root

Verdict = Literal["same", "differs", "unclear"]

SECONDS = 60
"""Longest time that one run of the compiler may take."""
_MOST_INCLUDES = 200

_MISSING = re.compile(r"fatal error: '?([^':]+)'?(?: file not found|: No such file or directory)")
_ERROR = re.compile(r"^(?P<path>[^:\n]+):(?P<line>\d+):(?:\d+:)? (?:fatal )?error: (?P<text>.*)$", re.MULTILINE)
_OBJECT = re.compile(r"^hvabi_(\d+):\s*\n((?:\.[a-z0-9]+\s+[-\w]+\s*\n)+)", re.MULTILINE)
_DATA = re.compile(r"^\.(\w+)\s+([-\w]+)", re.MULTILINE)
_WIDTH = {"byte": 1, "value": 2, "short": 2, "2byte": 2, "long": 4, "4byte": 4, "quad": 8, "8byte": 8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One claim against one header.

    Attributes:
        claim: what the specification says.
        header: path of the header in its set.
        root: the set of headers.
        verdict: ``same``, ``differs``, or ``unclear`` where the header does not compile here.
        found: what the header has, for a claim that differs.
        message: what the compiler said.

    """

    claim: Claim
    header: str
    root: str
    verdict: Verdict
    found: int | None = None
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the headers say.

    Attributes:
        findings: one per claim and header that defines its symbol.
        absent: claims whose symbol no header at hand defines.
        roots: the sets of headers that were looked at.

    """

    findings: tuple[Finding, ...]
    absent: tuple[Claim, ...]
    roots: tuple[Root, ...]

    @property
    def good(self) -> bool:
        """Whether no header disagrees and every one that was needed compiled."""
        return all(finding.verdict == "same" for finding in self.findings)


def compiler() -> str | None:
    """Return the C compiler: ``$CC``, else ``cc``, ``gcc`` or ``clang``; None where there is none."""
    names = [os.environ["CC"]] if os.environ.get("CC") else ["cc", "gcc", "clang"]
    return next((path for name in names if (path := shutil.which(name))), None)


def check(claims: Sequence[Claim], headers: Iterable[Header], roots: Sequence[Root], cc: str) -> Report:
    """Compile every claim against every header that defines its symbol.

    Raises `UsageError` ``compiler-failed`` where the compiler cannot be run at all.
    """
    findings: list[Finding] = []
    seen: set[Claim] = set()
    for header in headers:
        own = [claim for claim in claims if _defines(header, claim)]
        if not own:
            continue
        with tempfile.TemporaryDirectory(prefix="hvabi-headers-") as folder:
            judged = _Compiler(cc, header, Path(folder)).judge(own)
        findings += judged
        seen.update(finding.claim for finding in judged)
    absent = tuple(claim for claim in claims if claim not in seen)
    return Report(findings=tuple(findings), absent=absent, roots=tuple(roots))


def _defines(header: Header, claim: Claim) -> bool:
    if claim.kind == "size":
        return header.defines_type(claim.symbol)
    if claim.kind in ("member", "bits"):
        return header.defines_type(claim.owner or "") and header.defines(claim.symbol)
    return header.defines_constant(claim.symbol)


class _Compiler:
    """Compiles programs about one header. What the header includes and is not at hand is an empty file."""

    def __init__(self, cc: str, header: Header, folder: Path) -> None:
        self.cc = cc
        self.header = header
        self.folder = folder
        self.errors = ""
        self.empty = folder / "empty"
        self.empty.mkdir()
        tree = (header.root.path / "include", header.root.path / f"arch/{header.arch}/include")
        for name in header.real:
            real = next((path for folder in tree if (path := folder / name).is_file()), None)
            if real is not None:
                path = self.empty / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.symlink_to(real)

    def judge(self, claims: Sequence[Claim]) -> list[Finding]:
        """Return a finding per claim; none for a member that the header's structure does not have."""
        bits = [claim for claim in claims if claim.kind == "bits"]
        return self._asserted([claim for claim in claims if claim.kind != "bits"]) + self._bits(bits)

    def _bits(self, claims: Sequence[Claim]) -> list[Finding]:
        """Judge bit fields by what an object with all their bits set looks like in memory."""
        found = self._values(claims)
        out = []
        for claim in claims:
            value = found[claim]
            if value is None:
                out.append(self._finding(claim, "unclear", message=self.errors))
            else:
                out.append(self._finding(claim, "same" if value == claim.value else "differs", found=value))
        return out

    def _asserted(self, claims: Sequence[Claim]) -> list[Finding]:
        errors = self._run(program.assertions(self.header, claims), "-fsyntax-only")
        if not errors:
            return [self._finding(claim, "same") for claim in claims]
        at: dict[tuple[str, int], str] = {}
        for match in _ERROR.finditer(errors):
            at.setdefault((match["path"], int(match["line"])), match["text"])
        failed = [claim for claim in claims if (claim.path, claim.line) in at]
        if len(at) > len(failed):
            # The header itself does not compile: nothing that was said about it counts.
            text = next(text for place, text in at.items() if place not in {(c.path, c.line) for c in failed})
            return [self._finding(claim, "unclear", message=text) for claim in claims]
        real = self._values([claim for claim in failed if "assert" in at[claim.path, claim.line]])
        judged = (self._judged(claim, at.get((claim.path, claim.line), ""), real) for claim in claims)
        return [finding for finding in judged if finding is not None]

    def _judged(self, claim: Claim, error: str, real: Mapping[Claim, int | None]) -> Finding | None:
        if "no member named" in error:
            return None  # the structure of another version
        if not error:
            return self._finding(claim, "same")
        verdict: Verdict = "differs" if claim in real else "unclear"
        return self._finding(claim, verdict, found=real.get(claim), message=error)

    def _finding(self, claim: Claim, verdict: Verdict, *, found: int | None = None, message: str = "") -> Finding:
        header, root = self.header.name, self.header.root.label
        return Finding(claim=claim, header=header, root=root, verdict=verdict, found=found, message=message)

    def _values(self, claims: Sequence[Claim]) -> dict[Claim, int | None]:
        """Return what the header has for claims that it does not keep, where the compiler shows it."""
        if not claims:
            return {}
        out = self.folder / "values.s"
        # One object for each: a compiler may keep one for two that are the same.
        self.errors = self._run(
            program.values(self.header, claims), "-S", "-O1", "-fno-merge-constants", "-o", str(out)
        )
        found: dict[Claim, int | None] = dict.fromkeys(claims)
        if not self.errors and out.is_file():
            for match in _OBJECT.finditer(re.sub(r"^\s+", "", out.read_text(), flags=re.MULTILINE)):
                found[claims[int(match[1])]] = _integer(match[2])
        return found

    def _run(self, text: str, *words: str) -> str:
        """Compile; return the errors, empty where there are none."""
        source = self.folder / "claims.c"
        source.write_text(text)
        with as_file(files("hvabi.evidence.headers") / "shim.h") as shim:
            command = [self.cc, "-std=gnu11", "-w", "-fno-common", *self._includes(shim), *words, str(source)]
            for _ in range(_MOST_INCLUDES):
                result = self._call(command)
                missing = _MISSING.search(result.stderr)
                if missing is None:
                    return result.stderr if result.returncode else ""
                self._make_empty(missing[1].strip())
        return "claims.c:1: error: the header includes too many others"

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "LC_ALL": "C"}  # the messages are read
        try:
            return subprocess.run(
                command, capture_output=True, text=True, timeout=SECONDS, env=environment, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UsageError(
                f"the C compiler {self.cc} cannot be used: {error}",
                code="compiler-failed",
                hint="name another one in the environment variable CC",
            ) from error

    def _includes(self, shim: Path) -> list[str]:
        """Return the include path: the real headers of user space, or the shim and nothing else of the kernel."""
        root = self.header.root
        if root.kind == "user":
            folders = root.folders
            return ["-nostdinc", *(word for folder in folders for word in ("-I", str(folder))), "-I", str(self.empty)]
        if "/uapi/" in f"/{self.header.name}":
            tree = [root.path / "include/uapi", root.path / f"arch/{self.header.arch}/include/uapi"]
            return ["-nostdinc", *(word for folder in tree for word in ("-I", str(folder))), "-I", str(self.empty)]
        option = f"-DCONFIG_{str(self.header.arch).upper()}=1"
        return ["-nostdinc", "-D__KERNEL__", option, "-include", str(shim), "-I", str(self.empty)]

    def _make_empty(self, name: str) -> None:
        path = (self.empty / name).resolve()
        if not path.is_relative_to(self.empty.resolve()):
            raise UsageError(
                f"{self.header.path} includes {name}", code="odd-include", hint="is this a kernel's header?"
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_STANDS_IN.get(name, ""))


def _integer(directives: str) -> int:
    """Return the bytes of an object in assembly, as a little-endian integer."""
    value = at = 0
    for name, operand in _DATA.findall(directives):
        if name in ("zero", "skip", "space"):
            at += int(operand, 0)
        elif name in _WIDTH:
            value |= (int(operand, 0) & ((1 << 8 * _WIDTH[name]) - 1)) << 8 * at
            at += _WIDTH[name]
    return value


_STANDS_IN = {
    # What a header's installation strips, and what the build of a header package makes: the common package has
    # neither.
    "linux/compiler.h": "#define __user\n",
    "asm/types.h": "#include <asm-generic/types.h>\n",
    "asm/posix_types.h": "#include <asm-generic/posix_types.h>\n",
    "asm/bitsperlong.h": "#include <asm-generic/bitsperlong.h>\n",
    "asm/ioctl.h": "#include <asm-generic/ioctl.h>\n",
    "asm/errno.h": "#include <asm-generic/errno.h>\n",
}
