"""Liars: implementations with exactly one planted bug each, to test the kit itself."""

from hvabi.conformance.liars.all import liars
from hvabi.conformance.liars.liar import Liar, LyingSession
from hvabi.conformance.liars.smoke import Catch, Caught, SmokeReport, smoke

__all__ = ["Catch", "Caught", "Liar", "LyingSession", "SmokeReport", "liars", "smoke"]
