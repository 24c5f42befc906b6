"""What pyproject.toml cannot say: a wheel carries the test vectors, written by the very code that it carries."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SWITCH = "HVABI_VECTORS"
WRITE = (
    "import sys; from hvabi.conformance.catalogue import every_case; "
    "from hvabi.conformance.vectors import write_vectors; write_vectors(sys.argv[1], every_case())"
)


class BuildWithVectors(build_py):
    """Builds the packages, then writes `hvabi/vectors` beside them; ``HVABI_VECTORS=no`` leaves them out."""

    def run(self) -> None:
        """Build; an editable installation gets no vectors: `hvabi vectors` writes them."""
        super().run()
        if self.editable_mode or os.environ.get(SWITCH) == "no":
            return
        built = Path(self.build_lib).resolve()
        print(f"writing test vectors, which takes a minute ({SWITCH}=no leaves them out)", flush=True)
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(built), *filter(None, sys.path)])}
        command = [sys.executable, "-c", WRITE, str(built / "hvabi" / "vectors")]
        subprocess.run(command, check=True, env=environment, cwd=built)


setup(cmdclass={"build_py": BuildWithVectors})
