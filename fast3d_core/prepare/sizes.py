"""How large the real releases are: a file of another size is cut, joined, or of another split."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from fast3d_core.benchmarks import benchmark
from fast3d_core.prepare.raw import RawRecord


def size_note(dataset: str, split: str, path: Path, records: Sequence[RawRecord]) -> str | None:
    """Says so where a file has another size than the release that its name says it is; None where it has not, or where
    the size is not known. Raises `DataError` for a record without its scene or object."""
    asked = benchmark(dataset)
    known = asked.sizes.get(split)
    if known is None:
        return None
    found = dict.fromkeys(known, len(records))
    if "scenes" in known:
        found["scenes"] = len({record.scene() for record in records})
    if "objects" in known:
        found["objects"] = len({(record.scene(), record.object_id()) for record in records})
    if found == known:
        return None
    note = f"{path} has {_listed(found)}; the release has {_listed(known)}"
    return note + asked.other_size(split, len(records))


def _listed(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sizes.items())
