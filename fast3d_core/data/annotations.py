"""The released annotation files: questions as `Sample`s, object features as `Scene`s."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.data.files import load_json, load_torch
from fast3d_core.errors import DataError

ON_DETECTED_BOXES = ("scanrefer", "multi3dref", "scan2cap")  # scored by boxes; their files carry Mask3D's name

_SCENES_KEPT = 512  # stacked scenes kept, 0.8 MB each at full size; questions may take scenes in turns
FEATURES_3D = "scannet_mask3d_uni3d_feats.pt"
FEATURES_2D = "scannet_mask3d_videofeats.pt"


@dataclass(frozen=True)
class Sample:
    """One question of one dataset.

    Attributes:
        index: position in the annotation file; maps and plans are keyed by it.
        prompt: the question, without the conversation around it.
        obj_id: the target object's ground-truth id; pred_id: the detected object the question names (scan2cap).
        ref_captions: reference answers (for multi3dref the ground-truth ids).
        type_info: question type (multi3dref `eval_type`, sqa3d `sqa_type`), 0 where there is none.
        caption: the answer to learn from, in training files only.
    """

    dataset: str
    index: int
    scene_id: str
    prompt: str
    obj_id: int
    pred_id: int
    qid: Any
    ref_captions: tuple[Any, ...]
    type_info: Any
    caption: str | None

    def record(self, answer: str) -> dict[str, Any]:
        """The published prediction record."""
        return {
            "scene_id": self.scene_id,
            "gt_id": self.obj_id,
            "pred_id": self.pred_id,
            "qid": self.qid,
            "prompt": self.prompt,
            "pred": answer,
            "ref_captions": list(self.ref_captions),
            "type_info": self.type_info,
        }


def published_order(record: dict[str, Any]) -> str:
    """The key by which Chat-Scene sorts its prediction files."""
    return f"{record['scene_id']}_{record['gt_id']:03}_{record['qid']}"


def annotation_file(folder: Path, dataset: str, split: str = "val") -> Path:
    """Where a dataset's questions are."""
    middle = "_mask3d" if dataset in ON_DETECTED_BOXES else ""
    return folder / f"{dataset}{middle}_{split}.json"


def load_samples(folder: Path, dataset: str, split: str = "val") -> list[Sample]:
    """All questions of a dataset, in file order. Raises `DataError` for a malformed record."""
    path = annotation_file(folder, dataset, split)
    content = load_json(path, "data.annotations")
    if not isinstance(content, list):
        raise DataError(f"{path} should hold a list of questions, not {type(content).__name__}")
    if not content:
        raise DataError(f"{path} holds no questions")
    return [_sample(dataset, index, entry, path) for index, entry in enumerate(content)]


def _sample(dataset: str, index: int, entry: Any, path: Path) -> Sample:
    try:
        return Sample(
            dataset=dataset,
            index=index,
            scene_id=_text(entry["scene_id"]),
            prompt=_text(entry["prompt"]),
            obj_id=int(entry.get("obj_id", 0)),
            pred_id=int(entry.get("pred_id", 0)),
            qid=entry.get("qid", 0),
            ref_captions=tuple(_whole(text) for text in entry.get("ref_captions", ())),
            type_info=entry.get("sqa_type", entry.get("eval_type", entry.get("type_info", 0))),
            caption=_whole(entry.get("caption")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{path}: record {index} is not a question ({reason})") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} should be text")
    return _whole(value)


def _whole(value: Any) -> Any:
    """`value`; raises `ValueError` for text that no file could hold: JSON can spell half of a surrogate pair."""
    if isinstance(value, str) and re.search("[\ud800-\udfff]", value):
        raise ValueError(f"{value[:80]!r} holds half of a surrogate pair")
    return value


@dataclass(frozen=True)
class Scene:
    """What the LLM gets to know of a room: one feature pair for each object slot.

    Attributes:
        features_3d: (objects, 3D width) float32, zeros where a slot has none.
        features_2d: (objects, 2D width) float32, likewise.
        present: (objects,) bool, the slots that hold an object: one with a 3D or a 2D feature.
    """

    scene_id: str
    features_3d: Tensor
    features_2d: Tensor
    present: Tensor


class Scenes:
    """The object features of all scenes, stacked scene by scene when asked for.

    Args:
        folder: the annotations folder.
        objects: slots of a scene (100); features of objects beyond are left out, as in Chat-Scene.
    """

    def __init__(self, folder: Path, objects: int = 100):
        self.folder = folder
        self.objects = objects
        self._features = [_by_scene(folder / name, objects) for name in (FEATURES_3D, FEATURES_2D)]
        self.width_3d, self.width_2d = (width for _, width in self._features)
        self._recent: dict[str, Scene] = {}  # oldest first

    def __contains__(self, scene_id: str) -> bool:
        return any(scene_id in features for features, _ in self._features)

    def __getitem__(self, scene_id: str) -> Scene:
        """Raises `DataError` when a feature is not finite."""
        if scene_id not in self._recent:
            if len(self._recent) == _SCENES_KEPT:
                del self._recent[next(iter(self._recent))]
            self._recent[scene_id] = self._stack(scene_id)
        return self._recent[scene_id]

    def _stack(self, scene_id: str) -> Scene:
        stacked = []
        present = torch.zeros(self.objects, dtype=torch.bool)
        for name, (features, width) in zip((FEATURES_3D, FEATURES_2D), self._features, strict=True):
            slots = torch.zeros(self.objects, width)
            for slot, feature in features.get(scene_id, {}).items():
                slots[slot] = feature
                present[slot] = True
            if not slots.isfinite().all():
                wrong = int((~slots.isfinite()).any(-1).nonzero()[0])
                raise DataError(f"{self.folder / name}: {scene_id}_{wrong:02} holds NaN or infinity")
            stacked.append(slots)
        return Scene(scene_id, stacked[0], stacked[1], present)

    def check(self, samples: Sequence[Sample], split: str = "val") -> None:
        """Raises `DataError` if a sample's scene has no features; the message names the split's annotation file."""
        for sample in samples:
            if sample.scene_id not in self:
                raise DataError(
                    f"{annotation_file(self.folder, sample.dataset, split).name}: record {sample.index} names scene "
                    f"{sample.scene_id}, which has no features in {FEATURES_3D} or {FEATURES_2D}"
                )


def _by_scene(path: Path, objects: int) -> tuple[dict[str, dict[int, Tensor]], int]:
    """scene -> slot -> feature, and the features' width."""
    content = load_torch(path, "data.annotations", mmap=True)
    if not isinstance(content, dict) or not content:
        raise DataError(f"{path} should hold a dict of features such as 'scene0011_00_07'")
    features: dict[str, dict[int, Tensor]] = defaultdict(dict)
    widths: set[tuple[int, ...]] = set()
    for key, feature in content.items():
        scene_id, _, slot = str(key).rpartition("_")
        if not scene_id or not slot.isdecimal() or not isinstance(feature, Tensor) or feature.dim() != 1:
            raise DataError(f"{path}: {key!r} should be named like 'scene0011_00_07' and hold one feature vector")
        widths.add(tuple(feature.shape))
        if int(slot) < objects:
            features[scene_id][int(slot)] = feature
    if len(widths) != 1:
        raise DataError(f"{path} mixes features of widths {sorted(width[0] for width in widths)}")
    return dict(features), widths.pop()[0]


def locations_file(folder: Path, split: str) -> Path:
    """Where the detected boxes of a split's scenes are."""
    return folder / f"scannet_mask3d_{split}_attributes.pt"


def load_locations(folder: Path, split: str, scenes: Collection[str], objects: int = 100) -> dict[str, Tensor]:
    """The detected boxes of each scene: (objects, 6) float32 centres and sizes in metres, zeros behind the last box.

    Raises:
        DataError: the file is missing or damaged, or has no boxes for a scene.
    """
    path = locations_file(folder, split)
    content = load_torch(path, "data.annotations")
    locations = {}
    for scene in scenes:
        entry = content.get(scene) if isinstance(content, dict) else None
        boxes = entry.get("locs") if isinstance(entry, dict) else None
        if not isinstance(boxes, Tensor) or boxes.dim() != 2 or boxes.shape[1] != 6:
            raise DataError(f"{path} has no boxes (n, 6) under 'locs' for scene {scene}")
        padded = torch.zeros(objects, 6)
        count = min(len(boxes), objects)
        padded[:count] = boxes[:count]
        if not torch.isfinite(padded).all():
            raise DataError(f"{path}: the boxes of scene {scene} hold NaN or infinity")
        locations[scene] = padded
    return locations


def load_labels(folder: Path, split: str, scenes: Collection[str], objects: int = 100) -> dict[str, list[str]]:
    """The detector's name for each box of each scene, in the boxes' order, at most `objects` of them.

    Raises:
        DataError: the file is missing or damaged, or does not name the boxes of a scene.
    """
    path = locations_file(folder, split)
    content = load_torch(path, "data.annotations")
    labels = {}
    for scene in scenes:
        entry = content.get(scene) if isinstance(content, dict) else None
        names, boxes = (entry.get("objects"), entry.get("locs")) if isinstance(entry, dict) else (None, None)
        if not isinstance(names, list) or not isinstance(boxes, Tensor) or len(names) != len(boxes):
            raise DataError(f"{path} does not name the boxes of scene {scene} under 'objects'")
        labels[scene] = [str(name) for name in names[:objects]]
    return labels
