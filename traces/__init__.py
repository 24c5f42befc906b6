"""Readers of boot logs and the analysis of what they show.

`replay_sources` reads log files and replays the calls in them. Each format is a module of its own behind
`hvabi.traces.reader.LineReader`; all make `TraceEvent`.
"""

from hvabi.traces.errors import TraceError
from hvabi.traces.event import Ambiguity, Malformed, Place, Radix, TraceEvent
from hvabi.traces.flips import changes_of
from hvabi.traces.reader import FORMATS, Line, LineReader, Trace, open_trace
from hvabi.traces.replay import Replay, Source, replay, replay_sources
from hvabi.traces.report import Note, ReadReport
from hvabi.traces.summary import TraceSummary

__all__ = [
    "FORMATS",
    "Ambiguity",
    "Line",
    "LineReader",
    "Malformed",
    "Note",
    "Place",
    "Radix",
    "ReadReport",
    "Replay",
    "Source",
    "Trace",
    "TraceError",
    "TraceEvent",
    "TraceSummary",
    "changes_of",
    "open_trace",
    "replay",
    "replay_sources",
]
