"""Fuzzing of one entry point by the code that inputs reach, with atheris, where it is installed.

    python -m tests.by_coverage ENTRY [OPTION OF LIBFUZZER ...]

New inputs go into a folder of their own that is thrown away; what is worth keeping is copied into the corpus by hand.
"""

from __future__ import annotations

import sys
import tempfile

import atheris

with atheris.instrument_imports(include=["hvabi"]):
    from tests.entry import CORPUS, LONGEST, take
    from tests.entry_points import ENTRIES


def main() -> None:
    entry = ENTRIES[sys.argv[1]]
    with tempfile.TemporaryDirectory() as new:
        # A finding says its input; a file of it in the current folder would only be in the way.
        own = [f"-max_len={LONGEST}", f"-artifact_prefix={new}/", "-timeout=60", "-rss_limit_mb=1024"]
        options = [sys.argv[0], *own, *sys.argv[2:], new, str(CORPUS / entry.name)]
        atheris.Setup(options, lambda data: take(entry, data))
        atheris.Fuzz()


if __name__ == "__main__":
    main()
