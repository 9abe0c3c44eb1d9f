"""What the metrics read besides the predictions: boxes, captions and ScanRefer's unique/multiple split."""

import csv
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fast3d_core.data.annotations import box_table
from fast3d_core.data.files import first_line, load_json, load_torch, need_file, shown
from fast3d_core.errors import DataError

# The ScanNet benchmark's classes, in ScanRefer's split; whatever else an object is called, it is one of the "others".
# fmt: off
BENCHMARK_CLASSES = {
    "cabinet", "bed", "chair", "sofa", "table", "door", "window", "bookshelf", "picture", "counter", "desk", "curtain",
    "refrigerator", "shower curtain", "toilet", "sink", "bathtub",
}
# fmt: on


@dataclass(frozen=True)
class SceneBoxes:
    """{scene: (n, 6) float64}, centre xyz and size in metres, and the name of the file they came from."""

    file: str
    scenes: dict[str, np.ndarray]


class References:
    """The files of an `annotations` folder that the metrics need, each read at first use and kept.

    `split` is the part of the file names, "val" or "train". Reading a missing or damaged file raises `DataError`.
    """

    def __init__(self, annotations: Path, split: str = "val") -> None:
        self.annotations = annotations
        self.split = split

    @cached_property
    def instances(self) -> SceneBoxes:
        """Boxes of the detected instances, which `<OBJxxx>` counts."""
        return self._boxes(f"scannet_mask3d_{self.split}_attributes.pt")

    @cached_property
    def objects(self) -> SceneBoxes:
        """Boxes of the ground-truth objects, which gt_id counts."""
        return self._boxes(f"scannet_{self.split}_attributes.pt")

    @property
    def corpus_file(self) -> str:
        return f"scan2cap_{self.split}_corpus.json"

    @cached_property
    def corpus(self) -> dict[str, list[str]]:
        """Scan2Cap's captions by "scene|object", in file order."""
        path = self.annotations / self.corpus_file
        content = load_json(path, "Scan2Cap corpus")
        if not isinstance(content, dict) or not all(_is_captions(captions) for captions in content.values()):
            raise DataError(f'Scan2Cap corpus: {path} must hold {{"scene|object": [caption, ...]}}')
        return content

    @cached_property
    def unique_multiple(self) -> dict[str, dict[str, int]] | None:
        """{scene: {str(gt_id): 0 if the object is the only one of its class in the scene, else 1}}.

        Read from `scanrefer_unique_multiple_lookup.json`, or built from ScanNet's label table and ScanRefer's
        annotations where that file is missing; None where they are missing too.
        """
        lookup = self.annotations / "scanrefer_unique_multiple_lookup.json"
        labels = self.annotations / "scannet" / "scannetv2-labels.combined.tsv"
        scanrefer = self.annotations / "scanrefer" / "ScanRefer_filtered.json"
        if lookup.exists():
            content = load_json(lookup, "ScanRefer unique/multiple lookup")
            if not isinstance(content, dict) or not all(isinstance(scene, dict) for scene in content.values()):
                raise DataError(
                    f'ScanRefer unique/multiple lookup: {lookup} must hold {{"scene": {{"object": 0 or 1}}}}'
                )
            return content
        if labels.exists() and scanrefer.exists():
            return build_unique_multiple(labels, scanrefer)
        return None

    def _boxes(self, name: str) -> SceneBoxes:
        path = self.annotations / name
        content = load_torch(path, "boxes")
        scenes = {}
        try:
            for scene, attributes in content.items():
                locs = box_table(attributes)
                if locs is None:
                    raise ValueError(f"the boxes of {shown(scene)} are no such table")
                scenes[scene] = locs.double().numpy()
        except (AttributeError, ValueError) as error:
            raise DataError(f'boxes: {path} must hold {{"scene": {{"locs": (n, 6)}}}} ({error})') from None
        return SceneBoxes(name, scenes)


def build_unique_multiple(labels: Path, scanrefer: Path) -> dict[str, dict[str, int]]:
    """ScanRefer's unique/multiple lookup from `scannetv2-labels.combined.tsv` and `ScanRefer_filtered.json`.

    An object is unique if no other object that ScanRefer describes in the scene is of its benchmark class. An object
    described under two names counts for the class of the first and is looked up by that of the last.
    """
    need_file(labels, "ScanNet labels")
    annotations = load_json(scanrefer, "ScanRefer annotations")
    try:
        with labels.open(encoding="utf-8", newline="") as file:
            nyu40 = {row["raw_category"]: row["nyu40class"] for row in csv.DictReader(file, delimiter="\t")}
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


def _is_captions(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(caption, str) for caption in value)
