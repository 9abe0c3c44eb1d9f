"""What the metrics read besides the predictions: boxes, captions and ScanRefer's unique/multiple split."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from fast3d_core.benchmarks.unique_multiple import Lookup, build_unique_multiple, label_edition, read_lookup
from fast3d_core.data.annotations import box_table
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, load_torch
from fast3d_core.text import shown


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
    def unique_multiple(self) -> Lookup | None:
        """Read from `scanrefer_unique_multiple_lookup.json`, or built from ScanNet's label table and ScanRefer's
        annotations where that file is missing; None where they are missing too."""
        lookup = self.annotations / "scanrefer_unique_multiple_lookup.json"
        if lookup.exists():
            return read_lookup(lookup)
        tables = self._tables
        return build_unique_multiple(*tables) if tables else None

    @cached_property
    def labels(self) -> str | None:
        """Which edition of ScanNet's label table `unique_multiple` was built by; None where it was read."""
        tables = None if (self.annotations / "scanrefer_unique_multiple_lookup.json").exists() else self._tables
        return label_edition(tables[0]) if tables else None

    @property
    def _tables(self) -> tuple[Path, Path] | None:
        """The two files that the lookup is built from."""
        labels = self.annotations / "scannet" / "scannetv2-labels.combined.tsv"
        scanrefer = self.annotations / "scanrefer" / "ScanRefer_filtered.json"
        return (labels, scanrefer) if labels.exists() and scanrefer.exists() else None

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


def _is_captions(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(caption, str) for caption in value)
