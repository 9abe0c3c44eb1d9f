"""What a training reads: samples, their extracted maps, their scenes; and the network that it begins with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Scenes, locations_file
from fast3d_core.data.features import features_files
from fast3d_core.errors import UsageError
from fast3d_core.files.fingerprints import digest
from fast3d_core.files.tensors import fingerprints
from fast3d_core.files.watched import WatchedFiles
from fast3d_core.gap.inputs import GapInputs, gap_inputs
from fast3d_core.gap.network import GapNetwork, GapShape
from fast3d_core.gap.text import QuestionTokenizer, encoder_files, encoder_fingerprint, load_text_encoder
from fast3d_core.gap.training.options import TrainingOptions
from fast3d_core.maps.targets import load_targets
from fast3d_core.runtime.draws import seed_of


@dataclass(frozen=True)
class Split:
    """Samples to train or validate on.

    Attributes:
        inputs: questions and scenes; targets: (samples, objects) float32 maps; both on the device.
        rows: dataset -> its samples among them.
    """

    inputs: GapInputs
    targets: Tensor
    rows: dict[str, range]

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True)
class TrainingData:
    """What was read for a training.

    Attributes:
        network: new, on the CPU, its weights drawn from the seed.
        origin: targets, text encoder and files by digest, as plain data: a run is continued only on the same.
    """

    network: GapNetwork
    train: Split
    val: Split
    origin: dict[str, Any]


def load_data(
    config: Config,
    options: TrainingOptions,
    targets: Path,
    datasets: Sequence[str],
    val_datasets: Sequence[str],
    device: torch.device,
) -> TrainingData:
    """Reads all that `train` needs, see there. Raises `DataError` where files are missing, do not fit, or change."""
    annotations = need_path(config, "data.annotations")
    wanted = [("train", name) for name in datasets] + [("val", name) for name in val_datasets]
    files = features_files(annotations)
    files += [annotation_file(annotations, name, split) for split, name in wanted]
    files += [locations_file(annotations, split) for split in ("train", "val")]
    watched = WatchedFiles()
    watched.watch([*files, *encoder_files(config.gap.text_encoder)])
    samples = {(split, name): load_samples(annotations, name, split) for split, name in wanted}
    maps = {
        part: load_targets(config, targets, *part, len(samples[part]), key=options.map_key, layers=options.layers)
        for part in wanted
    }
    scenes = Scenes(annotations, config.data.max_objects)
    torch.manual_seed(seed_of(options.seed))  # of the initial weights
    network = new_network(config, options, scenes)
    tokenizer = QuestionTokenizer(config.gap.text_encoder)

    def split_of(split: str, names: Sequence[str]) -> Split:
        asked = [sample for name in names for sample in samples[split, name]]
        inputs = gap_inputs(config, asked, split, scenes, tokenizer, network, device)
        rows, first = dict[str, range](), 0
        for name in names:
            rows[name] = range(first, first := first + len(samples[split, name]))
        return Split(inputs, torch.cat([maps[split, name] for name in names]).to(device), rows)

    train, val = split_of("train", datasets), split_of("val", val_datasets)
    origin = {
        "targets": {f"{split} {dataset}": digest(value) for (split, dataset), value in maps.items()},
        "text_encoder": encoder_fingerprint(config.gap.text_encoder),
        "files": fingerprints(files),
    }
    watched.check()
    return TrainingData(network, train, val, origin)


def new_network(config: Config, options: TrainingOptions, scenes: Scenes) -> GapNetwork:
    """A network of the config's shape for these scenes, its weights drawn from torch's random generator, but for the
    text encoder's, which are pretrained. Raises `UsageError` where `gap.heads` does not divide the width."""
    encoder = load_text_encoder(config.gap.text_encoder, options.dropout)
    if options.freeze_text:
        encoder.requires_grad_(False)
    hidden = encoder.config.hidden_size
    if hidden % config.gap.heads:
        raise UsageError(f"gap.heads: {config.gap.heads} heads do not divide the text encoder's width, {hidden}")
    published = GapShape()
    shape = GapShape(
        features=scenes.width_3d + scenes.width_2d,
        objects=scenes.objects,
        hidden=hidden,
        heads=config.gap.heads,
        layers=config.gap.layers,
        spatial=options.spatial,
        dropout=published.dropout if options.dropout is None else options.dropout,
        head_dropout=published.head_dropout if options.dropout is None else options.dropout,
    )
    network = GapNetwork(shape, encoder)
    # What shifts all logits of a scene alike changes nothing: the gradient is 0 but for rounding, and AdamW would make
    # steps of full size of that. The norm's bias does so, too, where no dropout stands behind it.
    idle = ["out_head_attn.4.bias", *(["out_head_attn.2.bias"] if shape.head_dropout == 0 else [])]
    for name, parameter in network.named_parameters():
        if name in idle or name.startswith("text_encoder.pooler."):  # the pooler's output is not used
            parameter.requires_grad_(False)
    return network
