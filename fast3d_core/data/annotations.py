"""The released annotation files: questions as `Sample`s, object features as `Scene`s."""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.data.features import FEATURES_2D, FEATURES_3D, open_features
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, load_torch
from fast3d_core.text import first_line, shown

_NO_OBJECT = -1
TYPE = "type_info"
"""What annotation files call a question's type, unless its benchmark's have another name for it."""

_SCENES_KEPT = 512  # stacked scenes kept, 0.8 MB each at full size; questions may take scenes in turns
MOST_CHARACTERS = 50_000
"""Of a question or an answer, some 10,000 tokens: a megabyte would take the tokeniser, and then the LLM, very long."""

MOST_BOXES = 1000
"""Of a scene; ScanNet has a few hundred at most."""


@dataclass(frozen=True)
class Sample:
    """One question of one dataset.

    Attributes:
        index: position in the annotation file; maps and plans are keyed by it.
        prompt: the question, without the conversation around it.
        obj_id: the target object's ground-truth id, -1 where a test split hides it; pred_id: the detected
            object that the question names, where it names one.
        ref_captions: reference answers, or the ground-truth ids of the objects asked for.
        type_info: question type, 0 where there is none.
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


def read_samples(
    path: Path, dataset: str, *, of_an_object: bool = False, answered: bool = False, type_field: str = TYPE
) -> list[Sample]:
    """All questions in an annotation file, in its order.

    Args:
        of_an_object: each question is about one object, which `obj_id` names (-1 where a test split hides it).
        answered: the questions come with answers, so that one without its object is an error, unless all are.
        type_field: what the file calls a question's type.

    Raises `DataError` for a file that is missing or damaged, or holds something else.
    """
    content = load_json(path, "data.annotations")
    if not isinstance(content, list):
        raise DataError(f"{path} should hold a list of questions, not {type(content).__name__}")
    if not content:
        raise DataError(f"{path} holds no questions")
    no_object = _NO_OBJECT if of_an_object else 0
    samples = [_sample(dataset, index, entry, path, no_object, type_field) for index, entry in enumerate(content)]
    if of_an_object and answered:
        _check_targets(samples, path)
    return samples


def _check_targets(samples: list[Sample], path: Path) -> None:
    """Raises `DataError` for a question without its object, unless no question has an answer."""
    lacking = [sample for sample in samples if sample.obj_id == _NO_OBJECT]
    if lacking and (len(lacking) < len(samples) or any(sample.ref_captions for sample in samples)):
        raise DataError(f"{path}: record {lacking[0].index} is not a question (has no 'obj_id')")


def _sample(dataset: str, index: int, entry: Any, path: Path, no_object: int, type_field: str) -> Sample:
    try:
        if not isinstance(entry, dict):
            raise TypeError(f"it should be an object with fields, not {shown(entry)}")
        return Sample(
            dataset=dataset,
            index=index,
            scene_id=_text(entry, "scene_id"),
            prompt=_text(entry, "prompt"),
            obj_id=_integer(entry, "obj_id", no_object),
            pred_id=_integer(entry, "pred_id", 0),
            qid=_single(entry, "qid", 0),
            ref_captions=_singles(entry, "ref_captions"),
            type_info=_single(entry, type_field if type_field in entry else TYPE, 0),
            caption=_single(entry, "caption", None),
        )
    except (KeyError, TypeError, ValueError) as error:
        reason = f"has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise DataError(f"{path}: record {index} is not a question ({reason})") from None


def _text(entry: dict[str, Any], name: str) -> str:
    value = entry[name]
    if not isinstance(value, str):
        raise TypeError(f"{name}: {shown(value)} should be text")
    return _bounded(name, value)


def _bounded(name: str, text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        raise ValueError(
            f"{name}: a text has {len(text)} characters, more than the {MOST_CHARACTERS} that any LLM here reads"
        )
    return text


def _integer(entry: dict[str, Any], name: str, default: int) -> int:
    """A whole number, perhaps written as text, as ScanRefer does."""
    value = entry.get(name, default)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value):
        return int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != int(value):
        raise TypeError(f"{name}: {shown(value)} should be a whole number")
    return int(value)


def _single(entry: dict[str, Any], name: str, default: Any) -> Any:
    value = entry.get(name, default)
    if isinstance(value, (list, dict)):
        raise TypeError(f"{name}: {shown(value)} should be a text or a number")
    return _bounded(name, value) if isinstance(value, str) else value


def _singles(entry: dict[str, Any], name: str) -> tuple[Any, ...]:
    values = entry.get(name, [])
    if not isinstance(values, list):
        raise TypeError(f"{name}: {shown(values)} should be a list")
    if wrong := [value for value in values if isinstance(value, (list, dict))]:
        raise TypeError(f"{name}: {shown(wrong[0])} in it should be a text or a number")
    return tuple(_bounded(name, value) if isinstance(value, str) else value for value in values)


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
        self._features = [open_features(folder / name) for name in (FEATURES_3D, FEATURES_2D)]
        self.width_3d, self.width_2d = (features.width for features in self._features)
        self._recent: dict[str, Scene] = {}  # oldest first
        self._boxes: dict[str, dict[str, Any]] = {}  # by split, where it has any

    def __iter__(self) -> Iterator[str]:
        """The scenes' names, sorted."""
        names = {name for features in self._features for name in features.first}
        return (name for name in sorted(names) if name in self)

    def __contains__(self, scene_id: str) -> bool:
        return any(features.first.get(scene_id, self.objects) < self.objects for features in self._features)

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
        for features in self._features:
            slots = torch.zeros(self.objects, features.width)
            if scene_id in features.first:
                found = features[scene_id]
                own = found.slots < self.objects
                slots[found.slots[own]] = found.rows[own]
                present[found.slots[own]] = True
            if not slots.isfinite().all():
                wrong = int((~slots.isfinite()).any(-1).nonzero()[0])
                raise DataError(f"{features.path}: {scene_id}_{wrong:02} holds NaN or infinity")
            stacked.append(slots)
        return Scene(scene_id, stacked[0], stacked[1], present)

    def check_slots(self, names: Collection[str], split: str = "val", needed: bool = True) -> None:
        """Raises `DataError` if the split's boxes put other objects into these scenes' slots, or are damaged.

        `needed` says whether boxes are read for anything else; if not, that they are damaged is no error here.
        """
        path = locations_file(self.folder, split)
        if split not in self._boxes:
            try:
                self._boxes[split] = load_boxes(self.folder, split) if path.exists() else {}
            except DataError:
                if needed:
                    raise
                return
        for scene_id in names:
            check_slots(self._boxes[split].get(scene_id), scene_id, path, self.objects)


def locations_file(folder: Path, split: str) -> Path:
    """Where the detected boxes of a split's scenes are."""
    return folder / f"scannet_mask3d_{split}_attributes.pt"


def load_boxes(folder: Path, split: str) -> dict[str, Any]:
    """The detected objects of a split's scenes: {scene: {"objects": [label], "locs": (n, 6)}}, as the file has it.

    Raises `DataError` when the file is missing or damaged.
    """
    content = load_torch(locations_file(folder, split), "data.annotations")
    return content if isinstance(content, dict) else {}


def load_locations(folder: Path, split: str, scenes: Collection[str], objects: int = 100) -> dict[str, Tensor]:
    """The detected boxes of each scene: (objects, 6) float32 centres and sizes in metres, zeros behind the last box.

    Raises:
        DataError: the file is missing or damaged, or has no boxes for a scene.
    """
    content, path = load_boxes(folder, split), locations_file(folder, split)
    return {scene: locations(content, scene, path, objects) for scene in scenes}


def locations(content: dict[str, Any], scene: str, path: Path, objects: int = 100) -> Tensor:
    """The boxes of one scene in what `load_boxes` read from `path`, as `load_locations` gives them."""
    check_slots(content.get(scene), scene, path, objects)
    boxes = box_table(content.get(scene))
    if boxes is None:
        raise DataError(f"{path} has no boxes (n, 6) under 'locs' for scene {scene[:80]}")
    padded = torch.zeros(objects, 6)
    count = min(len(boxes), objects)
    padded[:count] = boxes[:count]
    if not torch.isfinite(padded).all():
        raise DataError(f"{path}: the boxes of scene {scene[:80]} hold NaN or infinity")
    return padded


def check_slots(attributes: Any, scene: str, path: Path, objects: int) -> None:
    """Raises `DataError` unless slot i of a scene shows its object i.

    In Chat-Scene a scene's attributes may list under `obj_ids` whose features its slots show, one slot for each; boxes
    and `<OBJxxx>` go by slots all the same. Such scenes are not read here, where all slots are shown in order.
    """
    ids = attributes.get("obj_ids") if isinstance(attributes, dict) else None
    if ids is None:
        return
    listed = ids.tolist() if isinstance(ids, Tensor) else ids
    if not isinstance(listed, (list, tuple)) or list(listed[:objects]) != list(range(objects)):
        raise DataError(
            f"{path}: the obj_ids of scene {scene[:80]} put other objects into its slots than 0 to {objects - 1} in "
            "order, which fast3d does not read",
            "take attributes without obj_ids, and features named by slot",
        )


def load_labels(folder: Path, split: str, scenes: Collection[str], objects: int = 100) -> dict[str, list[str]]:
    """The detector's name for each box of each scene, in the boxes' order, at most `objects` of them.

    Labels beyond the boxes are left out: Chat-Scene's script writes those of all masks, but at most 100 boxes.

    Raises:
        DataError: the file is missing or damaged, or does not name the boxes of a scene.
    """
    content, path = load_boxes(folder, split), locations_file(folder, split)
    labels = {}
    for scene in scenes:
        entry = content.get(scene)
        names, boxes = entry.get("objects") if isinstance(entry, dict) else None, box_table(entry)
        if not isinstance(names, list) or boxes is None or len(names) < len(boxes):
            raise DataError(f"{path} does not name the boxes of scene {scene[:80]} under 'objects'")
        labels[scene] = [str(name) for name in names[: min(len(boxes), objects)]]
    return labels


def box_table(attributes: Any) -> Tensor | None:
    """The boxes in a scene's attributes, {"locs": (n, 6)}, in floats of whatever size; None where there are none such.

    A scene without objects may have an empty list.
    """
    locs = attributes.get("locs") if isinstance(attributes, dict) else None
    if isinstance(locs, list) and not locs:
        return torch.zeros(0, 6)
    if not isinstance(locs, Tensor) or not locs.is_floating_point() or locs.dim() != 2 or locs.shape[1] != 6:
        return None
    return locs if len(locs) <= MOST_BOXES else None
