"""Attention maps with what is known of them: their kind, who wrote their file, and for which questions.

A map file numbers its maps by the position of their questions in an annotation file, and does not say in which. Of
what fast3d wrote, ledgers beside the file tell: `predicted.json` and `exported.json`. They know a file by its digest:
a copy under another dataset's name is found out, and a file that was put in the place of ours is not taken for it.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from fast3d_core.config import Config
from fast3d_core.errors import DataError
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.maps.kind import AttentionMaps, MapKind
from fast3d_core.maps.ledger import exported_entries, predicted_entries
from fast3d_core.maps.published import map_file, read_maps


@dataclass(frozen=True)
class MapOrigin:
    """What a ledger says of a map file.

    Attributes:
        part: the split and dataset, such as "val/scanqa"; annotations: the fingerprint of their questions.
    """

    kind: MapKind
    part: str
    annotations: str


def origin_of(folder: Path, dataset: str, split: str = "val") -> MapOrigin | None:
    """Where the map file of a dataset comes from; None where it was made elsewhere. Raises `DataError` where there is
    none."""
    path, part = map_file(folder, dataset, split), f"{split}/{dataset}"
    known = [MapOrigin("logits", *entry) for entry in _of(path, predicted_entries(folder))]
    known += [MapOrigin("shares", *entry) for entry in _of(path, exported_entries(folder))]
    return min(known, key=lambda origin: origin.part != part, default=None)


def _of(path: Path, entries: Iterable[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """Part and annotations of those entries that are about this very file."""
    found = list(entries)
    digest = fingerprint(path, whole=True) if found else ""
    return [(part, annotations) for part, written, annotations in found if written == digest]


def check_origin(folder: Path, dataset: str, annotations: Path, split: str = "val") -> MapOrigin | None:
    """`origin_of`, made sure that it is of these questions.

    Args:
        annotations: the file of the questions; where there is none, only its name is compared.

    Raises:
        DataError: the maps are another dataset's, or were made of other questions.
    """
    origin, path = origin_of(folder, dataset, split), map_file(folder, dataset, split)
    if origin is None:
        return None
    again = "`fast3d predict`" if origin.kind == "logits" else "`fast3d extract --export`"
    if origin.part != f"{split}/{dataset}":
        raise DataError(f"{path} is a copy of the maps of {origin.part}; make those of {split}/{dataset} with {again}")
    if annotations.is_file() and origin.annotations != fingerprint(annotations):
        raise DataError(f"{path} was made of other questions than those in {annotations}; make it again with {again}")
    return origin


def is_shipped(config: Config, folder: Path) -> bool:
    """Whether a folder of maps came with the embedded demo, so that they are of its questions."""
    return config.embedded and folder.absolute().is_relative_to(config.source.parent)


def load_known_maps(
    folder: Path,
    dataset: str,
    annotations: Path,
    samples: int | None = None,
    *,
    key: str = "a_map",
    objects: int = 100,
    split: str = "val",
    what: str = "--maps",
) -> tuple[AttentionMaps, bool]:
    """The maps of a dataset, see `read_maps`, and whether it is known that they are of these questions.

    Raises:
        DataError: see `read_maps` and `check_origin`.
    """
    maps = read_maps(folder, dataset, samples, key=key, objects=objects, split=split, what=what)
    origin = check_origin(folder, dataset, annotations, split)
    return (maps, False) if origin is None else (replace(maps, kind=origin.kind, recorded=True), True)


def log_unknown(folder: Path, datasets: Iterable[str], annotations: Path, log: Callable[[str], None]) -> None:
    """Says that maps of these datasets, if any, may be of other questions."""
    if names := ", ".join(datasets):
        log(
            f"{folder}: the maps of {names} were made elsewhere, so it is not known of which questions; make sure that "
            f"they are of those in {annotations}, in their order"
        )
