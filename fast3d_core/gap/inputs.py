"""What GAP reads, prepared once: questions as token ids, scenes as features and boxes on the device."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fast3d_core.benchmarks.questions import check_samples
from fast3d_core.config import Config
from fast3d_core.data.annotations import Sample, Scene, Scenes, load_locations
from fast3d_core.errors import DataError
from fast3d_core.gap.network import GapNetwork
from fast3d_core.gap.text import QuestionTokenizer

_TOKENS_MULTIPLE = 8  # batches are padded to a multiple: few different shapes, and tensor cores like them


class GapBatch(NamedTuple):
    """Arguments of `GapNetwork.forward`, in its shapes and order."""

    features: Tensor
    locations: Tensor
    ids: Tensor
    mask: Tensor


class GapInputs:
    """Questions, and the scenes they are about, on a device.

    Args:
        samples: in the order by which batches name them.
        scenes: their features; locations: scene -> (objects, 6) boxes.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        scenes: Scenes | Mapping[str, Scene],
        locations: Mapping[str, Tensor],
        tokenizer: QuestionTokenizer,
        device: torch.device,
    ):
        self.samples = samples
        names = list(dict.fromkeys(sample.scene_id for sample in samples))
        number = {name: i for i, name in enumerate(names)}
        stacked = [scenes[name] for name in names]
        self._features = torch.stack([torch.cat([s.features_3d, s.features_2d], dim=-1) for s in stacked]).to(device)
        self._locations = torch.stack([locations[name] for name in names]).to(device)
        ids, lengths = tokenizer([sample.prompt for sample in samples])
        self._lengths = torch.tensor(lengths)  # stays on the CPU: a batch's width must not wait for the device
        self._device_lengths = self._lengths.to(device)
        self._ids = ids.to(device)
        self._scene = torch.tensor([number[sample.scene_id] for sample in samples]).to(device)
        self._rows = {(sample.dataset, sample.index): row for row, sample in enumerate(samples)}

    def __len__(self) -> int:
        return len(self.samples)

    def row(self, sample: Sample) -> int:
        """The position of a sample."""
        return self._rows[sample.dataset, sample.index]

    def tokens(self, row: int) -> int:
        """Length of the question at this position."""
        return int(self._lengths[row])

    def batch(self, rows: Tensor) -> GapBatch:
        """The samples of these positions, (samples,) int64 on the CPU."""
        return self.at(rows.to(self._ids.device, non_blocking=True), self.width(rows))

    def width(self, rows: Tensor) -> int:
        """Tokens that the questions of a batch are padded to; `rows` on the CPU, as nothing may wait for the device."""
        width = -(-int(self._lengths[rows].max()) // _TOKENS_MULTIPLE) * _TOKENS_MULTIPLE
        return min(width, self._ids.shape[1])

    def at(self, rows: Tensor, width: int) -> GapBatch:
        """The samples of these positions, (samples,) int64 on the device; their questions are at most `width` long."""
        scene = self._scene[rows]
        mask = torch.arange(width, device=self._ids.device) < self._device_lengths[rows, None]
        return GapBatch(self._features[scene], self._locations[scene], self._ids[rows, :width].long(), mask.long())


def gap_inputs(
    config: Config,
    samples: Sequence[Sample],
    split: str,
    scenes: Scenes,
    tokenizer: QuestionTokenizer,
    network: GapNetwork,
    device: torch.device,
) -> GapInputs:
    """The inputs of `network` for these samples of a split.

    Raises:
        DataError: the features or the number of object slots do not fit the network, or a scene has no boxes.
    """
    check_fit(config, scenes, network)
    check_samples(scenes, samples, split)
    names = {sample.scene_id for sample in samples}
    locations = load_locations(scenes.folder, split, names, scenes.objects)
    return GapInputs(samples, scenes, locations, tokenizer, device)


def check_fit(config: Config, scenes: Scenes, network: GapNetwork) -> None:
    """Raises `DataError` where the features or the number of object slots do not fit the network."""
    width = scenes.width_3d + scenes.width_2d
    if width != network.shape.features:
        raise DataError(
            f"the features in {scenes.folder} are {scenes.width_3d} (3D) and {scenes.width_2d} (2D) wide, "
            f"{config.gap.checkpoint} reads {network.shape.features} in all"
        )
    if scenes.objects != network.shape.objects:
        raise DataError(
            f"data.max_objects is {scenes.objects}, {config.gap.checkpoint} was trained on {network.shape.objects}"
        )
