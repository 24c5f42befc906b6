"""Readers of boot logs and traces, the analysis of what they show, and pictures of it.

`replay_sources` reads files and replays the calls in them. Each program's lines have a reader of their own in
`hvabi.traces.readers`; all make `TraceEvent` and `Sighting`. `hvabi.traces.analysis` has a module for each question.
"""

from hvabi.traces.analysis.flips import changes_of
from hvabi.traces.errors import TraceError
from hvabi.traces.event import Ambiguity, Malformed, Place, Radix, Reading, Sighting, TraceEvent
from hvabi.traces.reader import Trace
from hvabi.traces.readers import READERS
from hvabi.traces.replay import Replay
from hvabi.traces.report import Note, ReadReport
from hvabi.traces.sources import Source, replay, replay_sources
from hvabi.traces.streams import open_trace
from hvabi.traces.summary import TraceSummary

__all__ = [
    "READERS",
    "Ambiguity",
    "Malformed",
    "Note",
    "Place",
    "Radix",
    "ReadReport",
    "Reading",
    "Replay",
    "Sighting",
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
