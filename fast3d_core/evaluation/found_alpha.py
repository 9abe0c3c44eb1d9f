"""The alpha that `fast3d search-alpha` found: alpha.json in the runs folder, taken as long as the maps are the same."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from fast3d_core.benchmarks import benchmark_names
from fast3d_core.config import Config, need_checkpoint
from fast3d_core.errors import DataError
from fast3d_core.files.files import write_json
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.files.tensors import network_fingerprint
from fast3d_core.files.typed import LENIENT, load_typed
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.maps.kind import MapKind
from fast3d_core.maps.ledger import checkpoint_of
from fast3d_core.maps.published import map_file
from fast3d_core.pruning.alpha_search import Outcome
from fast3d_core.pruning.sap import Alpha
from fast3d_core.text import shown

ALPHA_FILE = "alpha.json"

_AGAIN = "run `fast3d search-alpha` again, or give --alpha"
_Share = Annotated[float, Field(gt=0, le=1)]


@dataclass(frozen=True)
class _FoundAlpha:
    """What `write_alpha` writes, as far as it is used.

    Attributes:
        alpha: one for all datasets, or one for each.
        maps: dataset -> fingerprint of the map file that it was found on; map_key, map_kind: how these were read.
        checkpoint: of the network that predicted them; None where it is not known.
    """

    __pydantic_config__ = LENIENT

    alpha: _Share | dict[str, _Share]
    map_key: str
    maps: Annotated[dict[str, str], Field(min_length=1)]
    map_kind: MapKind | None = None
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        if unknown := [name for name in self.maps if name not in benchmark_names()]:
            raise ValueError(f"there is no dataset {shown(unknown[0])}")
        if isinstance(self.alpha, dict) and self.alpha.keys() != self.maps.keys():
            raise ValueError("alphas and maps are not of the same datasets")


def write_alpha(
    config: Config,
    files: WatchedFiles,
    folder: Path,
    key: str,
    alpha: Alpha,
    found: Outcome,
    target: float,
    tolerance: float,
    map_kind: MapKind | None = None,
) -> Path:
    """Writes the alpha that prunes `found` of the maps in `folder`, for `found_alpha`, and returns the file.

    Args:
        files: the maps, watched since before they were read.
        map_kind: what the user says that the maps hold.
    """
    path = config.runs / ALPHA_FILE
    networks = {checkpoint_of(folder, "val", name) for name in found.datasets}
    network = networks.pop() if len(networks) == 1 else None
    maps = {name: fingerprint(map_file(folder, name)) for name in found.datasets}
    files.check()  # those are the maps that were read
    about = {"target": target, "tolerance": tolerance, "ratio": found.ratio, "map_key": key, "maps": maps}
    about |= {} if map_kind is None else {"map_kind": map_kind}
    about["checkpoint"] = network  # that predicted them, by which maps predicted during a run are known to be the same
    write_json(path, {"alpha": alpha, **about})
    return path


def found_alpha(
    config: Config,
    datasets: Sequence[str],
    maps: Path | None,
    map_key: str,
    log: Callable[[str], None] = lambda _: None,
    map_kind: MapKind | None = None,
) -> Alpha | None:
    """The alpha that `fast3d search-alpha` left in the runs folder, or None where there is none.

    `datasets` are those to evaluate, `maps` the folder of their maps; None where `gap.checkpoint` predicts them during
    the run. `log` is called with which alpha it is. `map_kind` is what the user says that the maps hold.

    Raises:
        DataError: the file is damaged, lacks a dataset, or was made from other maps or those of another network.
    """
    path = config.runs / ALPHA_FILE
    if not path.exists():
        return None
    found = load_typed(_FoundAlpha, path, "the alpha that was found", _AGAIN)
    if missing := [name for name in datasets if name not in found.maps]:
        raise DataError(
            f"the alpha in {path} was found without {', '.join(missing)}; "
            "run `fast3d search-alpha` for all datasets that you evaluate, or give --alpha"
        )
    if maps is None:
        problem = _other_network(found, config, log)
    else:
        problem = _other_kind(found, map_kind) or _other_maps(found, maps, map_key)
    if problem:
        raise DataError(f"the alpha in {path} does not fit: {problem}", _AGAIN)
    alpha: Alpha = found.alpha
    shown = ", ".join(f"{name} {own}" for name, own in alpha.items()) if isinstance(alpha, dict) else alpha
    log(f"alpha {shown}, as found by `fast3d search-alpha` ({path})")
    return alpha


def _other_network(found: _FoundAlpha, config: Config, log: Callable[[str], None]) -> str | None:
    """Why maps predicted during a run are not those that the alpha was found on."""
    checkpoint = need_checkpoint(config, "gap.checkpoint")
    if found.checkpoint is None:
        log(f"it is not known whether alpha was found on maps by {checkpoint}; it is taken as it is")
    elif found.checkpoint != network_fingerprint(checkpoint):
        return f"it was found on maps of another network than {checkpoint}"
    return None


def _other_kind(found: _FoundAlpha, map_kind: MapKind | None) -> str | None:
    """Why the maps are not read as they were when the alpha was found."""
    kinds = found.map_kind, map_kind
    was, now = (f"with --map-kind {kind}" if kind else "without --map-kind" for kind in kinds)
    return None if was == now else f"it was found {was}, and is wanted {now}"


def _other_maps(found: _FoundAlpha, folder: Path, map_key: str) -> str | None:
    """Why the maps are not those that the alpha was found on."""
    if found.map_key != map_key:
        return f"it was found on {found.map_key[:40]}, not on {map_key}"
    for dataset, digest in found.maps.items():
        path = map_file(folder, dataset)
        if not path.is_file():
            return f"it was found on maps of {dataset}, too, but there is no {path}"
        if fingerprint(path) != digest:
            return f"{path} is not the file that it was found on"
    return None
