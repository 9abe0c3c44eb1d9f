"""The alpha that `fast3d search-alpha` found: alpha.json in the runs folder, taken as long as the maps are the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import benchmark_names
from fast3d_core.config import Config, need_checkpoint
from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, write_json
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.files.tensors import network_fingerprint
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.maps.ledger import checkpoint_of
from fast3d_core.maps.published import MAP_KINDS, MapKind, map_file
from fast3d_core.pruning.alpha_search import Outcome
from fast3d_core.pruning.sap import Alpha

ALPHA_FILE = "alpha.json"


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
        map_kind: what the user said that the maps hold.
    """
    path = config.runs / ALPHA_FILE
    networks = {checkpoint_of(folder, "val", name) for name in found.datasets}
    network = networks.pop() if len(networks) == 1 else None
    maps = {name: fingerprint(map_file(folder, name)) for name in found.datasets}
    files.check()  # those are the maps that were read
    about = {"target": target, "tolerance": tolerance, "ratio": found.ratio, "map_key": key, "maps": maps}
    about |= {} if map_kind is None else {"map_kind": map_kind}
    about["checkpoint"] = network  # that predicted them, by which maps predicted during a run are told to be the same
    write_json(path, {"alpha": alpha, **about})
    return path


def found_alpha(
    config: Config,
    datasets: Sequence[str],
    maps: Path | None,
    map_key: str,
    said: Callable[[str], None] = lambda _: None,
    map_kind: MapKind | None = None,
) -> Alpha | None:
    """The alpha that `fast3d search-alpha` left in the runs folder, or None where there is none.

    `datasets` are those to evaluate, `maps` the folder of their maps; None where `gap.checkpoint` predicts them during
    the run. `said` is told which alpha it is. `map_kind` is what the user says that the maps hold.

    Raises:
        DataError: the file is damaged, lacks a dataset, or was made from other maps or those of another network.
    """
    path = config.runs / ALPHA_FILE
    if not path.exists():
        return None
    content = load_json(path, "the alpha that was found")
    if problem := _damage(content):
        raise DataError(f"{path} is damaged: {problem}; run `fast3d search-alpha` again, or give --alpha")
    if missing := [name for name in datasets if name not in content["maps"]]:
        raise DataError(
            f"the alpha in {path} was found without {', '.join(missing)}; "
            "run `fast3d search-alpha` for all datasets that you evaluate, or give --alpha"
        )
    if maps is None:
        problem = _other_network(content, config, said)
    else:
        problem = _other_kind(content, map_kind) or _other_maps(content, maps, map_key)
    if problem:
        raise DataError(
            f"the alpha in {path} does not fit: {problem}; run `fast3d search-alpha` again, or give --alpha"
        )
    alpha: Alpha = content["alpha"]
    shown = ", ".join(f"{name} {own}" for name, own in alpha.items()) if isinstance(alpha, dict) else alpha
    said(f"alpha {shown}, as found by `fast3d search-alpha` ({path})")
    return alpha


def _damage(content: Any) -> str | None:
    """Why `content` is not what `write_alpha` wrote, as far as it is used."""
    if not isinstance(content, dict):
        return "it holds no mapping"
    alpha, maps = content.get("alpha"), content.get("maps")
    for value in alpha.values() if isinstance(alpha, dict) else [alpha]:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
            return f"alpha must be a number in (0, 1], not {str(value)[:40]!r}"
    if not isinstance(maps, dict) or not maps or not all(isinstance(print_, str) for print_ in maps.values()):
        return "it does not tell the maps of what datasets alpha was found on"
    if unknown := [name for name in maps if name not in benchmark_names()]:
        return f"there is no dataset {unknown[0][:40]!r}"
    if isinstance(alpha, dict) and set(alpha) != set(maps):
        return "alphas and maps are not of the same datasets"
    if not isinstance(content.get("map_key"), str):
        return "it does not tell the map key"
    if content.get("map_kind") not in (None, *MAP_KINDS):
        return "it tells a kind of maps that there is not"
    if not isinstance(content.get("checkpoint"), str | None):
        return "it does not tell the network that predicted the maps"
    return None


def _other_network(content: dict[str, Any], config: Config, said: Callable[[str], None]) -> str | None:
    """Why maps predicted during a run are not those that the alpha was found on."""
    checkpoint = need_checkpoint(config, "gap.checkpoint")
    if content.get("checkpoint") is None:
        said(f"it is not known whether alpha was found on maps by {checkpoint}; it is taken as it is")
    elif content["checkpoint"] != network_fingerprint(checkpoint):
        return f"it was found on maps of another network than {checkpoint}"
    return None


def _other_kind(content: dict[str, Any], map_kind: MapKind | None) -> str | None:
    """Why the maps are not read as they were when the alpha was found."""
    kinds = content.get("map_kind"), map_kind
    was, now = (f"with --map-kind {kind}" if kind else "without --map-kind" for kind in kinds)
    return None if was == now else f"it was found {was}, and is wanted {now}"


def _other_maps(content: dict[str, Any], folder: Path, map_key: str) -> str | None:
    """Why the maps are not those that the alpha was found on."""
    if content["map_key"] != map_key:
        return f"it was found on {content['map_key'][:40]}, not on {map_key}"
    for dataset, found in content["maps"].items():
        path = map_file(folder, dataset)
        if not path.is_file():
            return f"it was found on maps of {dataset}, too, but there is no {path}"
        if fingerprint(path) != found:
            return f"{path} is not the file that it was found on"
    return None
