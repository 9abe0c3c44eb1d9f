"""What a benchmark reads, a prediction record, and what it returns, a `Score`."""

import zlib
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fast3d_core.benchmarks.references import SceneBoxes
from fast3d_core.data.annotations import TYPE
from fast3d_core.errors import DataError
from fast3d_core.text import shown

MOST_IDS = 1000
"""Objects of an answer or a question; an `<OBJxxx>` has three digits."""


@dataclass(frozen=True)
class Score:
    """The metrics of one benchmark and what a bootstrap needs to resample its headline.

    `metrics` holds fractions (0.504, not 50.4; CIDEr goes to 10) under the published scorer's names, and None where a
    metric cannot be computed; `notes` says why. `stats` (n, k) float64 has one row of sufficient statistics per record
    (Scan2Cap: per corpus key), so that `Benchmark.headline_of(stats.sum(0))` is the headline metric; `keys` (n) says
    what each row is, the same for the same question whatever method answered it and in whatever order.
    """

    dataset: str
    samples: int
    metrics: dict[str, float | None]
    stats: np.ndarray
    keys: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Origin:
    """The annotation file that questions come from, for errors: its path, and each record's number there, from 0."""

    file: str
    numbers: Sequence[int]


REPAIR = "repair the file or evaluate again"
_OTHER_FILES = "use the annotations that the predictions are for"
_ANNOTATED = "correct it there, or take all files of data.annotations from one release"


class Record:
    """One prediction record whose every flaw becomes one `DataError` line that names the dataset and the position.

    Where `origin` is given, the records are questions with empty answers, and the line names their annotation file
    and the number and the field there; `type_field` is what it calls a question's type.

    Fields, as the published evaluation writes them: scene_id, gt_id, pred_id, qid, prompt, pred, ref_captions,
    type_info. A benchmark asks only for those that it reads.
    """

    def __init__(
        self, dataset: str, position: int, fields: Any, origin: Origin | None = None, type_field: str = TYPE
    ) -> None:
        self.dataset = dataset
        self.position = position
        self.origin = origin
        self.type_field = type_field
        if not isinstance(fields, dict):
            raise self.error(f"a prediction record must be an object, not {type(fields).__name__}", "evaluate again")
        self.fields = fields

    def error(self, text: str, do: str = _OTHER_FILES) -> DataError:
        """A `DataError` that says where, positions counted from 0, and what to `do` about predictions."""
        if self.origin:
            return DataError(f"{self.origin.file}: record {self.origin.numbers[self.position]}: {text}; {_ANNOTATED}")
        return DataError(f"{self.dataset} predictions, record {self.position}: {text}; {do}")

    def called(self, name: str) -> str:
        """What the file that the record comes from calls the field `name`."""
        if self.origin is None:
            return name
        return {"gt_id": "obj_id", "type_info": self.type_field}.get(name, name)

    def text(self, name: str) -> str:
        """The string `name`."""
        value = self._field(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a string")
        return value

    def index(self, name: str) -> int:
        """The non-negative integer `name`."""
        value = self._field(name)
        if not is_index(value):
            raise self._wrong(name, "a non-negative integer")
        return value

    def texts(self, name: str) -> list[str]:
        """The list `name` of at least one string."""
        value = self._field(name)
        if not isinstance(value, list) or not value:
            raise self._wrong(name, "a list of at least one string")
        if wrong := [item for item in value if not isinstance(item, str)]:
            raise self.error(f"{name} must be a list of at least one string, which {shown(wrong[0])} is not", REPAIR)
        return value

    def indices(self, name: str) -> list[int]:
        """The list `name`, perhaps empty, of non-negative integers, at most a scene's worth."""
        value = self._field(name)
        if not isinstance(value, list) or not all(is_index(item) for item in value) or len(value) > MOST_IDS:
            raise self._wrong(name, f"a list of non-negative integers, at most {MOST_IDS}")
        return value

    def choice(self, name: str, among: Collection[Any]) -> Any:
        """The value `name`, one of `among`, which are all of one type."""
        value = self._field(name)
        if type(value) is not type(next(iter(among))) or value not in among:
            raise self._wrong(name, f"one of {', '.join(map(str, among))}")
        return value

    def boxes(self, boxes: SceneBoxes) -> np.ndarray:
        """(n, 6) boxes of the record's scene, finite."""
        scene = self.text("scene_id")
        if scene not in boxes.scenes:
            raise self.error(f"scene_id: {scene[:80]} is not in {boxes.file}")
        found = boxes.scenes[scene]
        if not np.isfinite(found).all():
            raise self.error(f"the boxes of {scene[:80]} in {boxes.file} hold NaN or infinity", "download it again")
        return found

    def box(self, boxes: SceneBoxes, index: int, name: str) -> np.ndarray:
        """(6,) box `index` of the record's scene; `name` is what the index came from, for the error."""
        found = self.boxes(boxes)
        if index >= len(found):
            raise self.error(
                f"{self.called(name)} is {index}, "
                f"but {self.text('scene_id')[:80]} has {len(found)} boxes in {boxes.file}"
            )
        return found[index]

    def _field(self, name: str) -> Any:
        if name not in self.fields:
            raise self.error(f"the field {self.called(name)} is missing", REPAIR)
        return self.fields[name]

    def _wrong(self, name: str, kind: str) -> DataError:
        return self.error(f"{self.called(name)} must be {kind}, not {shown(self.fields[name])}", REPAIR)


def record_keys(records: Sequence[Record]) -> list[str]:
    """A key per record, made of what was asked and not of the answer or the position, so that two runs pair up.

    The ids do not distinguish two ScanRefer descriptions of one object, hence a checksum of the prompt; a question that
    is asked twice gets "#1" the second time.
    """
    seen: Counter[str] = Counter()
    keys = []
    for record in records:
        ids = [str(record.fields.get(name, "")) for name in ("scene_id", "gt_id", "pred_id", "qid")]
        prompt = zlib.crc32(str(record.fields.get("prompt", "")).encode("utf-8", "surrogatepass"))
        key = "|".join([*ids, f"{prompt:08x}"])
        keys.append(f"{key}#{seen[key]}" if seen[key] else key)
        seen[key] += 1
    return keys


def mean(values: np.ndarray) -> float | None:
    """The mean, None where there is nothing to average."""
    return float(values.mean()) if values.size else None


def is_index(value: Any) -> bool:
    """Whether a value from a file is an integer from 0 on; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
