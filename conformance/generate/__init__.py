"""Cases from the specifications: for every rule, every kind of progress, both roles, every transport."""

from hvabi.conformance.generate.all import cases

__all__ = ["cases"]
