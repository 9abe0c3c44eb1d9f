"""All checks, in the order of the report."""

from collections.abc import Iterator
from functools import partial

from fast3d_core.benchmarks.questions import on_detected_boxes
from fast3d_core.doctor import annotations, gap, machine, maps, runs, settings, whole
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Check

CONFIG = Check("config", settings.config, "fix the config; the README has all keys")

_ANNOTATIONS = "`fast3d download annotations`, or `fast3d prepare`"
_MAPS = "`fast3d predict`, `fast3d download predicted-maps`, or name their folder in maps.predicted"
_GAP = "`fast3d download gap` and `roberta`, or `fast3d train-gap`; name them in gap.checkpoint and gap.text_encoder"


def all_checks(case: Case) -> Iterator[Check]:
    """Those of the config's datasets and of the methods that are meant."""
    options, datasets = case.options, case.config.data.datasets
    yield Check("model.device", machine.device, "see model.device in the README")
    model = case.model_checks
    yield from model.files
    for name in datasets:
        yield Check("data.annotations", partial(annotations.questions, dataset=name), _ANNOTATIONS)
    yield from model.prompts
    yield Check("data.annotations", annotations.features, _ANNOTATIONS, reads="reading the features of all scenes")
    yield Check("data.annotations", annotations.slots, _ANNOTATIONS)
    yield from model.features
    if on_detected_boxes(datasets):
        yield Check("data.annotations", annotations.boxes, _ANNOTATIONS)
    for name in datasets:
        reads = f"scoring empty answers to {name}"
        yield Check("data.annotations", partial(annotations.references, dataset=name), _ANNOTATIONS, reads=reads)
    if case.needs_maps:
        yield from _map_checks(case)
    yield Check("eval.batch_size", machine.memory)
    yield Check("runs", runs.folder, "make room, or --set runs=DIR")
    yield Check("runs", runs.earlier, "delete it, or --set runs=DIR")
    yield Check("files", whole.leftovers)
    if options.deep:
        yield Check("files", whole.checksums, reads="reading all bytes of the large files")
        yield from model.deep


def _map_checks(case: Case) -> Iterator[Check]:
    live, datasets = case.options.live, case.config.data.datasets
    if not live:
        for name in datasets:
            reads = f"reading the maps of {name}"
            yield Check("maps.predicted", partial(maps.predicted, dataset=name), _MAPS, reads=reads)
        yield Check("maps.predicted", maps.ledger, _MAPS)
    if case.needs_alpha:
        yield Check("alpha", maps.alpha, "`fast3d search-alpha`, or give eval --alpha")
    # Without --gap live, eval reads neither of the following.
    yield Check("gap.checkpoint", gap.network, _GAP, "error" if live else "warning", "predicting a few maps")
    for name in datasets:
        yield Check("maps.targets", partial(maps.targets, dataset=name), "`fast3d extract`", "warning")
