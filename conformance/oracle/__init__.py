"""Expected answers, worked out a second time: own evaluator, own checks, own page sets, nothing of the adapters.

The oracle reads the same specification as the adapters, and only that. A property test compares the two; where they
differ, one of them is wrong.
"""

from hvabi.conformance.oracle.answers import Oracle

__all__ = ["Oracle"]
