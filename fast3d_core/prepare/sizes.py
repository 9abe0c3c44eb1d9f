"""How large the real releases are: a file of another size is cut, joined, or of another split."""

from collections.abc import Sequence
from pathlib import Path

from fast3d_core.prepare.raw import RawRecord

SQA3D_TEST = 3519

_SIZES: dict[tuple[str, str], dict[str, int]] = {
    ("scanrefer", "val"): {"descriptions": 9508, "objects": 2068, "scenes": 141},
    ("scan2cap", "val"): {"descriptions": 9508, "objects": 2068, "scenes": 141},
    ("scanqa", "val"): {"questions": 4675, "scenes": 71},
    ("sqa3d", "val"): {"questions": 3261},
}
"""By dataset and split; the first is the number of records."""


def size_note(dataset: str, split: str, path: Path, records: Sequence[RawRecord]) -> str | None:
    """Says so where a file has another size than the release that its name says it is; None where it has not, or where
    the size is not known. Raises `DataError` for a record without its scene or object."""
    known = _SIZES.get((dataset, split))
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
    if dataset == "sqa3d" and len(records) == SQA3D_TEST:
        return f"{note}, and its test split {SQA3D_TEST:,}: an early release has the two swapped, take a later one"
    return f"{note}. Is it cut, joined, or of another split? Scores over it are not those that are published"


def _listed(sizes: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in sizes.items())
