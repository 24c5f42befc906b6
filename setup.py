"""What pyproject.toml cannot say: specifications read beforehand, and test vectors, both written by our own code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SWITCH = "HVABI_VECTORS"
READY = "from hvabi.abi.ready import renew; renew(write=True)"
VECTORS = (
    "import sys; from hvabi.conformance.catalogue import every_case; "
    "from hvabi.conformance.vectors import write_vectors; write_vectors(sys.argv[1], every_case())"
)


class BuildWithGenerated(build_py):
    """Builds the packages, then writes `hvabi/spec/ready` and `hvabi/vectors`, these not with ``HVABI_VECTORS=no``."""

    def run(self) -> None:
        """Build; an editable installation gets no vectors: `hvabi vectors` writes them."""
        super().run()
        if self.editable_mode:
            self._python(Path("typings").resolve(), READY)
            return
        built = Path(self.build_lib).resolve()
        self._python(built, READY)
        if os.environ.get(SWITCH) == "no":
            return
        print(f"writing test vectors, which takes a minute ({SWITCH}=no leaves them out)", flush=True)
        self._python(built, VECTORS, str(built / "hvabi" / "vectors"))

    @staticmethod
    def _python(packages: Path, program: str, *arguments: str) -> None:
        """Run a program of the packages below a folder."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(packages), *filter(None, sys.path)])}
        subprocess.run([sys.executable, "-c", program, *arguments], check=True, env=environment, cwd=packages)


setup(cmdclass={"build_py": BuildWithGenerated})
