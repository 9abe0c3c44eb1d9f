"""The GAP network and its text encoder: do they fit the features, and did they predict the maps?"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from huggingface_hub import snapshot_download

from fast3d_core.config import need_checkpoint
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, ok, warning
from fast3d_core.gap.predictor import MapPredictor
from fast3d_core.gap.quality import top_f1

_PREDICTED = 4  # maps of each dataset that are predicted again
_TOP = 10  # objects of a map that are compared
_AGREEMENT = 0.8  # share of them; rounding on another device changes few


def network(case: Case) -> Iterator[Finding]:
    """Loads it, on the CPU, predicts a few maps, and compares them with those in `maps.predicted`."""
    config, live = case.config, case.options.live
    if not config.gap.checkpoint.exists() and not live:
        yield ok("not there; only `fast3d predict` and `fast3d eval --gap live` would read it")
        return
    need_checkpoint(config, "gap.checkpoint")
    source = _local(config.gap.text_encoder)
    if source is None:
        what = f"gap.text_encoder: {config.gap.text_encoder} is no folder, and not in the Hugging Face cache"
        yield warning(f"{what}, so it was not tried", "`fast3d download roberta`, or have it fetched when it is used")
        return
    samples = [sample for name in case.datasets for sample in case.samples(name)[:_PREDICTED]]
    here = replace(config, gap=replace(config.gap, text_encoder=source))
    predictor = MapPredictor.from_config(here, case.scenes, torch.device("cpu"))
    logits = predictor(predictor.inputs_of_split(samples, "val", case.scenes), samples).logits()
    shape = predictor.network.shape
    yield ok(f"{shape.layers} layers, {shape.heads} heads, {'' if shape.spatial else 'not '}spatial; predicts maps")
    if not live:
        maps = torch.stack([case.maps(sample.dataset).scores[sample.index] for sample in samples])
        top = min(_TOP, maps.shape[1])
        agreement = top_f1(logits, maps, top).mean().item()
        if agreement < _AGREEMENT:
            yield warning(
                f"it did not predict the maps in maps.predicted: of the {top} objects it ranks first, these have "
                f"{100 * agreement:.0f}%",
                "`fast3d predict --restart` makes them again; leave them if you want them",
            )


def _local(source: Path | str) -> Path | None:
    """The folder of the text encoder, without a network; None where it would have to be fetched."""
    if isinstance(source, Path):
        return source
    try:
        return Path(snapshot_download(source, local_files_only=True))
    except (OSError, ValueError):
        return None
