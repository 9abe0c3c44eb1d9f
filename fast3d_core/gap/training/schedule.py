"""The published recipe (arXiv 2507.09334), as far as it is no option: learning rates, weight decay, clipping.

The learning rate is a function of the step rather than one of torch's or transformers' schedulers: theirs warm up over
whole steps and from another value, which would give other rates than the recorded ones, and hold a state of their own,
which a resumed run would have to restore.
"""

import math
from collections.abc import Mapping
from typing import Any

from torch import nn

from fast3d_core.gap.training.options import TrainingOptions

CLIP = 5.0
"""The largest norm of a gradient; a longer one is scaled down to it."""

_WEIGHT_DECAY = 0.01
_WARMUP_EPOCHS = 0.1
_LEAST = 0.001  # of the peak learning rate


def lr_factor(step: int, epoch_steps: int, steps: int) -> float:
    """The learning rate of a step over the peak: linear warm-up, then a cosine down to the least rate.

    Args:
        epoch_steps: steps of an epoch; steps: of the whole training.
    """
    warmup = _WARMUP_EPOCHS * epoch_steps
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    return _LEAST + (1 - _LEAST) * (1 + math.cos(math.pi * done)) / 2


def parameter_groups(named: Mapping[str, nn.Parameter], options: TrainingOptions) -> list[dict[str, Any]]:
    """AdamW's groups: the text encoder learns more slowly, and 1-d parameters do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named.items():
        peak = options.text_lr if name.startswith("text_encoder.") else options.lr
        decay = _WEIGHT_DECAY if parameter.dim() > 1 else 0.0
        groups.setdefault((peak, decay), []).append(parameter)
    return [
        {"params": parameters, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), parameters in sorted(groups.items(), key=lambda item: -item[0][0])
    ]
