"""Attention maps: are they of these questions, of this network, and is alpha of these maps?"""

from collections.abc import Iterator

import torch

from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.evaluation.found_alpha import found_alpha
from fast3d_core.files.fingerprints import differences
from fast3d_core.gap.predictor import map_sources
from fast3d_core.maps.ledger import depends_on, is_written, read_ledger
from fast3d_core.maps.origin import is_shipped, origin_of
from fast3d_core.maps.published import MAP_KEYS, map_file
from fast3d_core.maps.targets import has_targets, load_targets
from fast3d_core.pruning import METHODS
from fast3d_core.pruning.options import methods_with

_PREDICT = "`fast3d predict` makes them for these questions, or name others in maps.predicted"


def _takers() -> str:
    """The methods that take the softmax of a map."""
    return ", ".join(name for name, method in METHODS.items() if method.needs_logits)


def predicted(case: Case, dataset: str) -> Iterator[Finding]:
    """The maps that methods follow."""
    samples, maps = case.samples(dataset), case.maps(dataset)
    scores = maps.all().scores
    objects = scores.shape[1]
    flat = (scores == scores[:, :1]).all(-1)
    if objects > 1 and flat.any():
        yield error(
            f"{dataset}: {int(flat.sum())} of {len(samples)} maps give all objects the same number, "
            f"sample {int(flat.nonzero()[0])} first",
            _PREDICT,
        )
        return
    if len(samples) > 1 and (scores == scores[0]).all():
        yield error(f"{dataset}: all questions have the same map", _PREDICT)
        return
    if maps.kind == "shares":
        yield warning(
            f"{dataset}: the maps are shares of attention, as `fast3d extract` records them from right answers, not "
            "logits as GAP predicts them",
            f"{_takers()} refuses them without --map-kind shares; name predicted maps in maps.predicted",
        )
    elif maps.kind is None:
        yield warning(
            f"{dataset}: the maps are in the form of logits, but look like shares of attention",
            f"{_takers()} refuses them without --map-kind shares or --map-kind logits: look where they come from",
        )
    nothing = torch.zeros(objects, dtype=torch.bool)
    present = torch.stack([case.present.get(sample.scene_id, nothing) for sample in samples])
    empty = ~present.gather(1, scores.argmax(-1, keepdim=True)).squeeze(1)
    if empty.float().mean() > 0.5:
        yield warning(
            f"{dataset}: {int(empty.sum())} of {len(samples)} maps rank a slot first that holds no object, "
            "as maps of other questions would",
            _PREDICT,
        )
    else:
        yield ok(f"{dataset}: {len(samples)} maps of {objects} objects")


def ledger(case: Case) -> Iterator[Finding]:
    """What was written down about maps, against the files that the config names now; nothing is about others' maps."""
    folder, config = case.maps_folder, case.config
    there = [name for name in config.data.datasets if map_file(folder, name).is_file()]
    unknown = [] if is_shipped(config, folder) else [name for name in there if origin_of(folder, name) is None]
    if unknown:
        yield warning(
            f"{', '.join(unknown)}: the maps were made elsewhere, so it is not known of which questions",
            "make sure that they are of those in data.annotations, in their order; `fast3d predict` makes such",
        )
    known = read_ledger(folder)
    ours = [name for name in config.data.datasets if is_written(known.get(f"val/{name}"), map_file(folder, name))]
    if not ours:
        return
    if not config.gap.checkpoint.exists():
        yield ok(f"{len(ours)} of the map files are by `fast3d predict`; gap.checkpoint, to compare with, is not there")
        return
    sources = map_sources(config, case.annotations, "val", ours)
    changed = {}
    for name in ours:
        changed[name] = differences(depends_on(known[f"val/{name}"]), sources[name])
    other = [name for name in ours if changed[name]]
    if other:
        what = (
            f"{', '.join(other)}: predicted with other files than the config names: {', '.join(changed[other[0]][:3])}"
        )
        asked = any(line.startswith("annotations:") for name in other for line in changed[name])
        yield (error if asked else warning)(what, "`fast3d predict` makes them again, unless you want those maps")
    else:
        yield ok(f"{len(ours)} of the map files are by `fast3d predict`, from the network and the files that are named")


def alpha(case: Case) -> Iterator[Finding]:
    """The alpha that `fast3d eval` would take, of methods that have one."""
    logged: list[str] = []
    folder = None if case.options.live else case.maps_folder
    found = found_alpha(case.config, case.config.data.datasets, folder, MAP_KEYS[0], logged.append)
    yield ok(f"none was searched, so {', '.join(methods_with('alpha'))} takes --alpha" if found is None else logged[-1])


def targets(case: Case, dataset: str) -> Iterator[Finding]:
    """Extracted maps of the same questions, if there are any."""
    folder = case.config.maps.targets
    if has_targets(folder, "val", dataset):
        load_targets(case.config, folder, "val", dataset, len(case.samples(dataset)))
        yield ok(f"{dataset}: extracted maps of all questions")
