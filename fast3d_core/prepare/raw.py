"""The raw releases: where their files are, and records whose every flaw becomes one line."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json
from fast3d_core.text import shown

_DEPTH = 4  # archives unpack to up to three folders, such as SQA3D/sqa_task/balanced
_SCENE = re.compile(r"scene\d{4}_\d{2}", re.ASCII)
_ID = re.compile(r"0|[1-9]\d{0,5}", re.ASCII)


class Releases:
    """The folder of the raw releases, unpacked there as they come or all in one place."""

    def __init__(self, folder: Path):
        if not folder.is_dir():
            raise DataError(f"there is no folder {folder}; name the one that the raw releases are in")
        self.folder = folder

    def find(self, name: str) -> Path | None:
        """The file of that name, the least deep one. Raises `DataError` where two are equally deep."""
        for depth in range(_DEPTH):
            found = sorted(path for path in self.folder.glob("*/" * depth + name) if path.is_file())
            if len(found) > 1:
                raise DataError(f"{found[0]} and {found[1]} are both there; leave only the one that you mean")
            if found:
                return found[0]
        return None


def read_records(path: Path, key: str | None = None) -> "list[RawRecord]":
    """The records of a release: the list that it is, or the one under `key`. Raises `DataError` if there is none."""
    content = load_json(path, "raw release")
    if key is not None:
        content = content.get(key) if isinstance(content, dict) else None
    if not isinstance(content, list) or not content:
        where = f" under {key!r}" if key else ""
        raise DataError(f"{path} should hold a list of records{where}; download the release again")
    return [RawRecord(path, position, fields) for position, fields in enumerate(content)]


@dataclass(frozen=True)
class RawRecord:
    """One record of a release; what it lacks, or has in a wrong form, is a `DataError` that names file and record."""

    path: Path
    position: int
    fields: Any

    def error(self, text: str) -> DataError:
        """A `DataError` that says where; positions count from 0."""
        return DataError(f"{self.path}: record {self.position}: {text}; download the release again")

    def scene(self) -> str:
        """ScanNet's name of the scan."""
        value = self.text("scene_id")
        if not _SCENE.fullmatch(value):
            raise self._wrong("scene_id", "a scan such as scene0011_00")
        return value

    def text(self, name: str) -> str:
        """The text `name`, perhaps empty."""
        value = self._field(name)
        if not isinstance(value, str):
            raise self._wrong(name, "text")
        return value

    def texts(self, name: str) -> list[str]:
        """The list `name`, perhaps empty, of texts."""
        value = self._field(name)
        if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
            raise self._wrong(name, "a list of texts")
        return value

    def object_id(self) -> int:
        """ScanRefer's `object_id`, a number that it writes as text."""
        value = self._field("object_id")
        if isinstance(value, bool) or not isinstance(value, (int, str)) or not _ID.fullmatch(str(value)):
            raise self._wrong("object_id", "the number of an object")
        return int(value)

    def object_ids(self) -> list[int]:
        """The list `object_ids`, perhaps empty."""
        value = self._field("object_ids")
        if not isinstance(value, list) or not all(type(one) is int and 0 <= one < 10**6 for one in value):
            raise self._wrong("object_ids", "a list of object numbers")
        return value

    def question_id(self) -> int | str:
        """SQA3D's `question_id`."""
        value = self._field("question_id")
        if type(value) not in (int, str):
            raise self._wrong("question_id", "a number")
        return value

    def choice(self, name: str, among: Collection[str]) -> str:
        """The text `name`, one of `among`."""
        value = self.text(name)
        if value not in among:
            raise self._wrong(name, f"one of {', '.join(among)}")
        return value

    def has(self, name: str) -> bool:
        """Whether there is a field of that name."""
        return isinstance(self.fields, dict) and name in self.fields

    def parts(self, name: str) -> "list[RawRecord]":
        """The list `name` of records inside this one."""
        value = self._field(name)
        if not isinstance(value, list):
            raise self._wrong(name, "a list")
        return [RawRecord(self.path, self.position, fields) for fields in value]

    def _field(self, name: str) -> Any:
        if not isinstance(self.fields, dict):
            raise self.error(f"it should be an object with a field {name}, not {type(self.fields).__name__}")
        if name not in self.fields:
            raise self.error(f"the field {name} is missing")
        return self.fields[name]

    def _wrong(self, name: str, kind: str) -> DataError:
        return self.error(f"{name} should be {kind}, not {shown(self.fields[name])}")
