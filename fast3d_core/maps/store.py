"""The store of extracted attention maps: one folder of safetensors shards, written as extraction goes on.

`store.json` says what the maps depend on and, for each part (`val/scanqa`), which annotations it was made from. A part
is cut into shards of `SHARD` consecutive samples, `{split}_{dataset}-{shard:05}.safetensors`, each there whole or not
at all, so that an interrupted extraction continues with the shards that are missing. A shard of n samples holds

    index                            (n,) int64, positions in the annotation file
    a_map, a_map_ori                 (n, objects) float32, the means over all layers
    a_map_layers, a_map_ori_layers   (n, layers, objects) float16

and in its metadata, as JSON: `answers`, the texts that were appended (they may be drawn), and `seconds`.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from safetensors.torch import save
from torch import Tensor
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.files import atomic_path, load_json, write_json
from fast3d_core.files.fingerprints import differences, file_hash
from fast3d_core.files.typed import KEEPING, LENIENT, STRICT, load_typed
from fast3d_core.maps.published import MAP_KEYS
from fast3d_core.maps.shards import Shard, load_shard
from fast3d_core.registry import BENCHMARKS
from fast3d_core.text import shown

STORE_FILE = "store.json"
SHARD = 256
"""Samples of a shard: seconds of work on a GPU, and small beside what a killed run may lose."""

_VERSION = 1
_SHARD_NAME = re.compile(r"(train|val)_([a-z][a-z0-9_-]*)-\d{5}\.safetensors", re.ASCII)


def _shard_name(name: str) -> re.Match[str] | None:
    """Split and dataset of a file that is named as a shard; None for another file."""
    match = _SHARD_NAME.fullmatch(name)
    return match if match and match[2] in BENCHMARKS.names() else None


@dataclass(frozen=True)
class PartInfo:
    """What `store.json` says about one dataset of one split.

    Attributes:
        annotations: sha256 of the annotation file; samples: how many it holds.
        wanted: the samples asked for, fewer under a `--limit`; of an interrupted extraction some are missing.
    """

    __pydantic_config__ = STRICT

    annotations: str
    samples: int
    wanted: int


class _Settings(TypedDict):
    """Those that reading needs; the others are kept as they are. Beyond the bounds is no model, but a damaged file,
    which must not allocate all memory."""

    __pydantic_config__ = KEEPING  # type: ignore[misc]

    layers: Annotated[int, Field(ge=1, le=1000)]
    max_objects: Annotated[int, Field(ge=1, le=100_000)]
    shard: Annotated[int, Field(ge=1, le=1_000_000)]


@dataclass(frozen=True)
class _Description:
    """What `store.json` holds; `deleting`: shards that a `--restart` was about to delete."""

    __pydantic_config__ = STRICT

    version: int
    settings: _Settings
    parts: dict[str, PartInfo]
    deleting: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name, part in self.parts.items():
            if not 0 < part.wanted <= part.samples:
                raise ValueError(f"parts.{shown(name)} wants {part.wanted} of {part.samples} samples")


@dataclass(frozen=True)
class _Deleting:
    __pydantic_config__ = LENIENT

    deleting: list[str] = field(default_factory=list)


class TargetStore:
    """Extracted maps in one folder.

    Attributes:
        settings: what the maps depend on, as plain data; `layers`, `max_objects` and `shard` among it.
        parts: by "split/dataset".
    """

    def __init__(self, folder: Path, settings: dict[str, Any], parts: dict[str, PartInfo]):
        self.folder = folder
        self.settings = settings
        self.parts = parts

    @property
    def layers(self) -> int:
        """Layers of the LLM that the maps come from."""
        return self.settings["layers"]

    @property
    def objects(self) -> int:
        """Objects of a map."""
        return self.settings["max_objects"]

    @property
    def shard(self) -> int:
        """Samples of a shard."""
        return self.settings["shard"]

    @classmethod
    def open(cls, folder: Path) -> "TargetStore":
        """The store in `folder`. Raises `DataError` if there is none, or its `store.json` is damaged."""
        path = folder / STORE_FILE
        if not path.is_file():
            raise DataError(f"{folder} holds no extracted maps (it has no {STORE_FILE}); run `fast3d extract` first")
        content = load_json(path, "maps.targets")
        if isinstance(content, dict) and content.get("version", _VERSION) != _VERSION:
            raise DataError(f"{path} is of version {shown(content['version'])}, this program reads {_VERSION}")
        found = load_typed(_Description, path, "maps.targets", "run `fast3d extract --restart`")
        return cls(folder, dict(found.settings), found.parts)

    def has(self, split: str, dataset: str) -> bool:
        """Whether the maps of a dataset were asked for; `read` says whether they are all there."""
        return f"{split}/{dataset}" in self.parts

    def read(
        self,
        split: str,
        dataset: str,
        *,
        annotations: Path,
        samples: int,
        key: str = "a_map",
        layers: Sequence[int] | None = None,
    ) -> Tensor:
        """The maps of the first `samples` samples of a dataset, in the order of its annotations.

        Args:
            annotations: the annotation file in use, which must be the one that the maps were made from.
            key: `a_map` or `a_map_ori`.
            layers: which layers to average; None: the recorded mean over all.

        Returns:
            (samples, objects) float32.

        Raises:
            DataError: the part is missing, incomplete, damaged, or made from other annotations.
            UsageError: there is no such layer or key.
        """
        self._check_part(split, dataset, annotations, samples)
        if key not in MAP_KEYS:
            raise UsageError(f"--map-key must be one of {', '.join(MAP_KEYS)}, not {key!r}")
        if layers is not None and not (layers and all(0 <= layer < self.layers for layer in layers)):
            raise UsageError(f"--layers: {self.folder} has layers 0 to {self.layers - 1}, not {list(layers)[:20]}")
        name = key if layers is None else f"{key}_layers"
        found = []
        for shard in self.shards(split, dataset, samples, [name]):
            maps = shard.maps[name]
            found.append(maps if layers is None else maps[:, list(layers)].float().mean(dim=1))
        return torch.cat(found)[:samples]

    def _check_part(self, split: str, dataset: str, annotations: Path, samples: int) -> None:
        part = self.parts.get(f"{split}/{dataset}")
        again = f"--split {split} --dataset {dataset}"
        if part is None:
            raise DataError(f"{self.folder} has no maps of {split}/{dataset}; run `fast3d extract {again}`")
        if part.annotations != file_hash(annotations):
            raise DataError(
                f"{self.folder}: {split}/{dataset} was extracted with other annotations than {annotations}; "
                f"run `fast3d extract {again} --restart` again, or choose another folder"
            )
        if part.wanted < samples:
            raise DataError(
                f"{self.folder} lacks {samples - part.wanted} of {samples} samples of {split}/{dataset}: they were "
                f"extracted with --limit {part.wanted}; run `fast3d extract {again}`"
            )

    def shards(self, split: str, dataset: str, samples: int, names: Iterable[str] | None = None) -> Iterator[Shard]:
        """The shards that hold the first `samples` samples, with the maps in `names` (None: all of them).

        Raises `DataError` when one is missing, short, or damaged.
        """
        shapes = self._shapes(names)
        for number, start in enumerate(range(0, samples, self.shard)):
            path = self.shard_path(split, dataset, number)
            wanted = min(self.shard, samples - start)
            if not path.exists():
                raise self._interrupted(split, dataset, path)
            shard = load_shard(path, start, shapes)
            if len(shard.index) < wanted:
                raise self._interrupted(split, dataset, path)
            yield shard

    def _interrupted(self, split: str, dataset: str, path: Path) -> DataError:
        return DataError(
            f"{self.folder} lacks samples of {split}/{dataset} ({path.name} is missing or short): its extraction was "
            "interrupted or had a --limit; run the same `fast3d extract` again, it continues"
        )

    def _shapes(self, names: Iterable[str] | None) -> dict[str, tuple[torch.dtype, tuple[int, ...]]]:
        """Name -> dtype and shape of one sample."""
        shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
        for key in MAP_KEYS:
            shapes[key] = (torch.float32, (self.objects,))
            shapes[f"{key}_layers"] = (torch.float16, (self.layers, self.objects))
        return shapes if names is None else {name: shapes[name] for name in names}

    @classmethod
    def create(
        cls, folder: Path, settings: dict[str, Any], parts: dict[str, PartInfo], *, restart: bool = False
    ) -> "TargetStore":
        """Opens the store in `folder` to add `parts` to it, or makes it.

        One process calls this, which has the folder to itself (`sole_use`).

        Args:
            restart: throw away what is there of `parts`, and all other parts too if they have other settings.

        Raises:
            UsageError: the folder holds maps made with other settings, or a part made from other annotations.
            DataError: the folder cannot be written, or its `store.json` is damaged.
        """
        _finish_deleting(folder)
        known: dict[str, PartInfo] = {}
        shards = [path for path in sorted(folder.glob("*.safetensors")) if _shard_name(path.name)]
        doomed: list[Path] = []
        try:
            old = cls.open(folder) if (folder / STORE_FILE).exists() else None
        except DataError:
            if not restart:
                raise
            _check_own(folder)
            old = None
        changed = differences(old.settings if old else {}, settings)
        if old is not None and not changed:
            known = dict(old.parts)
            if restart:
                doomed = [path for path in shards for name in parts if _is_of(path, name)]
                known = {name: part for name, part in known.items() if name not in parts}
        elif restart or not shards:
            doomed = shards
        elif old is None:
            raise _refused(f"{folder} holds maps of unknown origin: their {STORE_FILE} is gone")
        else:
            raise _refused(f"{folder} holds maps made with other settings ({', '.join(changed[:4])})")
        for name, part in parts.items():
            if name in known and known[name].annotations != part.annotations:
                raise _refused(f"{folder} holds {name} extracted with other annotations")
        store = cls(folder, settings, known)
        if doomed:
            store._delete(doomed)
        for name, part in parts.items():
            store.parts[name] = replace(part, wanted=max(part.wanted, known[name].wanted)) if name in known else part
        store._describe()
        return store

    def _delete(self, shards: Sequence[Path]) -> None:
        """Deletes shards. First store.json names them, and no longer what they were: a kill between leaves a store
        from which they are deleted when it is opened the next time."""
        self._describe([path.name for path in shards])
        for path in shards:
            path.unlink(missing_ok=True)

    def _describe(self, deleting: Sequence[str] = ()) -> None:
        parts = {name: asdict(part) for name, part in self.parts.items()}
        content = {"version": _VERSION, "settings": self.settings, "parts": parts}
        try:
            write_json(self.folder / STORE_FILE, {**content, **({"deleting": list(deleting)} if deleting else {})})
        except OSError as error:
            raise _unwritable(self.folder, error) from None

    def shard_path(self, split: str, dataset: str, number: int) -> Path:
        """Where a shard is."""
        return self.folder / f"{split}_{dataset}-{number:05}.safetensors"

    def is_done(self, split: str, dataset: str, number: int, samples: int) -> bool:
        """Whether a shard is there with its first `samples` samples; a damaged one counts as missing."""
        path = self.shard_path(split, dataset, number)
        try:
            return path.exists() and len(load_shard(path, number * self.shard, {}).index) >= samples
        except DataError:
            return False

    def write(self, split: str, dataset: str, number: int, shard: Shard) -> None:
        """Stores a shard, on disk when this returns. Raises `DataError` when it cannot be written."""
        path = self.shard_path(split, dataset, number)
        metadata = {"answers": json.dumps(shard.answers, ensure_ascii=False), "seconds": f"{shard.seconds:.6f}"}
        shapes = self._shapes(None)
        tensors = {name: shard.maps[name].to(dtype).contiguous() for name, (dtype, _) in shapes.items()}
        try:
            with atomic_path(path) as temporary:
                temporary.write_bytes(save({"index": shard.index, **tensors}, metadata))
        except OSError as error:
            raise _unwritable(self.folder, error) from None


def _is_of(path: Path, part: str) -> bool:
    name = _shard_name(path.name)
    return name is not None and f"{name[1]}/{name[2]}" == part


def remove_store(folder: Path) -> None:
    """Removes a store's files, store.json last: until then a command continues or refuses them by it. Leaves others."""
    if (folder / STORE_FILE).exists():
        for path in folder.glob("*.safetensors"):
            if _shard_name(path.name):
                path.unlink(missing_ok=True)
        (folder / STORE_FILE).unlink()


def _check_own(folder: Path) -> None:
    """Raises `UsageError` for a store.json that is sound and no store's: what is in the folder is another program's."""
    try:
        content = load_json(folder / STORE_FILE, "maps.targets")
    except DataError:  # damaged: it may well be ours
        return
    if not isinstance(content, dict) or not {"version", "settings", "parts"} & content.keys():
        raise UsageError(f"{folder / STORE_FILE} is not of fast3d; choose another folder with --set maps.targets=DIR")


def _finish_deleting(folder: Path) -> None:
    """Deletes the shards that a killed `--restart` was about to."""
    try:
        names = load_typed(_Deleting, folder / STORE_FILE, "maps.targets", "").deleting
    except DataError:
        return
    for name in names:
        if _shard_name(name):
            (folder / name).unlink(missing_ok=True)


def _refused(what: str) -> UsageError:
    return UsageError(f"{what}; choose another folder with --set maps.targets=DIR, or --restart to throw them away")


def _unwritable(folder: Path, error: OSError) -> DataError:
    return DataError(
        f"{folder} cannot be written ({error.strerror or error}); what is there is kept: make room or give permission "
        "and run the same command again, or choose another folder with --set maps.targets=DIR"
    )
