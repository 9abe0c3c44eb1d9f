"""ScanRefer's split of objects: unique, the only one of its class in the scene, or multiple."""

import csv
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, need_file
from fast3d_core.text import first_line, shown

Lookup = dict[str, dict[str, int]]
"""{scene: {str(gt_id): 0 if the object is the only one of its class in the scene, else 1}}"""

# The ScanNet benchmark's classes, in ScanRefer's split; whatever else an object is called, it is one of the "others".
# fmt: off
BENCHMARK_CLASSES = {
    "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk", "curtain",
    "refrigerator", "shower curtain", "toilet", "sink", "bathtub",
}
# fmt: on

_EDITIONS = {
    "refridgerator": "ScanNet's own label table (`refridgerator`; ScanRefer val: 1,759 unique, 7,749 multiple)",
    "refrigerator": "ScanRefer's label table (`refrigerator`; ScanRefer val: 1,845 unique, 7,663 multiple)",
}
"""The two editions of scannetv2-labels.combined.tsv, by how they spell a class: where it is misspelt, refrigerators are
"others". Published logs of Chat-Scene have the numbers of ScanNet's own."""


def read_lookup(path: Path) -> Lookup:
    """A lookup from its file, in the flat form or ScanRefer's, which has a number for each description of an object.

    Raises `DataError` for another form.
    """
    content = load_json(path, "ScanRefer unique/multiple lookup")
    try:
        return {scene: {name: _number(one) for name, one in objects.items()} for scene, objects in content.items()}
    except (AttributeError, ValueError) as error:
        raise DataError(
            f'ScanRefer unique/multiple lookup: {path} must hold {{"scene": {{"object": 0 or 1}}}}, or 0 or 1 for each '
            f"description of an object ({error})"
        ) from None


def _number(entry: Any) -> int:
    """Of descriptions that differ the last one counts, as where the lookup is built."""
    if isinstance(entry, dict) and entry:
        entry = list(entry.values())[-1]
    if isinstance(entry, (int, float)) and entry in (0, 1):
        return int(entry)
    raise ValueError(f"{shown(entry)} is neither 0 nor 1")


def label_edition(labels: Path) -> str | None:
    """Which of its two editions a label table is, in words; None for neither. Raises `DataError` for a damaged one."""
    try:
        spelt = set(_classes(labels).values())
    except (KeyError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{labels} is not ScanNet's label table ({first_line(error)}); download it again") from None
    return next((edition for spelling, edition in _EDITIONS.items() if spelling in spelt), None)


def _classes(labels: Path) -> dict[str, str]:
    """The NYU40 class of each name that annotators gave."""
    need_file(labels, "ScanNet labels")
    with labels.open(encoding="utf-8", newline="") as file:
        return {row["raw_category"]: row["nyu40class"] for row in csv.DictReader(file, delimiter="\t")}


def build_unique_multiple(labels: Path, scanrefer: Path) -> Lookup:
    """ScanRefer's unique/multiple lookup from `scannetv2-labels.combined.tsv` and `ScanRefer_filtered.json`.

    An object is unique if no other object that ScanRefer describes in the scene is of its benchmark class. An object
    described under two names counts for the class of the first and is looked up by that of the last.
    """
    annotations = load_json(scanrefer, "ScanRefer annotations")
    try:
        nyu40 = _classes(labels)
        entries = []
        for annotation in annotations:
            name = nyu40.get(annotation["object_name"].replace("_", " "), "others")
            label = name if name in BENCHMARK_CLASSES else "others"
            entries.append((str(annotation["scene_id"]), str(annotation["object_id"]), label))
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{labels} and {scanrefer} are not ScanNet's label table and ScanRefer's annotations "
            f"({first_line(error)}); download them again"
        ) from None
    first: dict[str, dict[str, str]] = defaultdict(dict)
    for scene, object_id, label in entries:
        first[scene].setdefault(object_id, label)
    counts = {scene: Counter(labels_of.values()) for scene, labels_of in first.items()}
    lookup: dict[str, dict[str, int]] = defaultdict(dict)
    for scene, object_id, label in entries:
        lookup[scene][object_id] = int(counts[scene][label] != 1)
    return dict(lookup)
