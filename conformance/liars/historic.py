from __future__ import annotations
def historic(abi): return ()
