"""Random draws that depend on names and a seed alone: not on batches, processes, or what was drawn before."""

import hashlib


def seed_of(*parts: object) -> int:
    """A 64-bit seed from what a draw is for, such as (seed, dataset, index)."""
    key = "/".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:8], "big", signed=True)
