"""Digests of whole files, as Hugging Face lists them."""

import hashlib
from pathlib import Path


def check_digest(path: Path, expected: str) -> str | None:
    """What is wrong with a file, in a few words; None when its digest is the expected one, see `digest`."""
    return None if digest(path, expected) == expected else f"its checksum is not {expected[:20]}..."


def digest(path: Path, like: str) -> str:
    """The digest of a file, of the kind of `like`: "sha256:<hex>", or "git:<hex>", git's name of a blob."""
    kind = like.partition(":")[0]
    state = hashlib.sha256() if kind == "sha256" else hashlib.sha1(usedforsecurity=False)
    if kind == "git":
        state.update(b"blob %d\0" % path.stat().st_size)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            state.update(block)
    return f"{kind}:{state.hexdigest()}"
