"""Our own format back in; see `hvabi.traces.ndjson`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hvabi.traces.ndjson import KEY, FormatError, from_json
from hvabi.traces.readers.base import LineReader, malformed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hvabi.traces.event import Record
    from hvabi.traces.readers.base import Line

MAX_SOURCES = 1024
"""Reports on sources that are kept."""


class NdjsonReader(LineReader):
    """Reads the lines that `hvabi replay --ndjson` writes."""

    name = "hvabi"
    title = "hvabi's own NDJSON (hvabi replay --ndjson FILE)"
    marks = (b'{"hvabi":"',)

    def __init__(self) -> None:
        self._sources: list[dict[str, Any]] = []

    def carried(self) -> list[dict[str, Any]]:
        """Return the reports on the sources that the trace was made from."""
        return self._sources

    def read(self, line: Line) -> Iterator[Record | None]:
        """Return the record of a line."""
        at = line.text.find('{"hvabi":"')
        try:
            value = json.loads(line.text[at:])
            record = from_json(value)
        except FormatError as error:
            yield malformed(line, str(error), at)
            return
        except (ValueError, RecursionError):
            yield malformed(line, "this is no JSON" if not line.cut else "the line is too long", at)
            return
        if record is None and value[KEY] == "source" and len(self._sources) < MAX_SOURCES:
            self._sources.append(value)
        yield record
