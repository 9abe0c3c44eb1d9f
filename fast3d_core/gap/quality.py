"""How well predicted attention maps agree with the extracted ones."""

from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor

from fast3d_core.gap.network import kl_loss

TOP = (5, 10, 20)


@dataclass(frozen=True)
class MapQuality:
    """Agreement of predicted with target maps, mean over samples.

    Attributes:
        kl: the training loss, in nats.
        f1: k -> F1 of the k objects with the largest values, predicted against target; where there are fewer objects
            than the least k, that is their number.
        rank_correlation: Spearman's, over all object slots.
        mass: k -> share of the target's attention that falls on the k objects predicted to have most.
        best_mass: k -> the same for the target's own top k, the most that any prediction could reach.
    """

    samples: int
    kl: float
    f1: dict[int, float]
    rank_correlation: float
    mass: dict[int, float]
    best_mass: dict[int, float]


def map_quality(logits: Tensor, targets: Tensor) -> MapQuality:
    """Compares logits with targets, both (samples, objects) on the CPU; targets are not negative, in any scale."""
    shares = targets.double() / targets.double().sum(-1, keepdim=True)
    tops = [k for k in TOP if k <= logits.shape[1]] or [logits.shape[1]]
    predicted = {k: logits.topk(k).indices for k in tops}
    wanted = {k: targets.topk(k).indices for k in tops}
    return MapQuality(
        samples=len(logits),
        kl=float(kl_loss(logits, targets).double().mean()),
        f1={k: float(top_f1(logits, targets, k).double().mean()) for k in tops},
        rank_correlation=float(_spearman(logits, targets).mean()),
        mass={k: float(shares.gather(1, predicted[k]).sum(-1).mean()) for k in tops},
        best_mass={k: float(shares.gather(1, wanted[k]).sum(-1).mean()) for k in tops},
    )


def top_f1(logits: Tensor, targets: Tensor, k: int) -> Tensor:
    """(samples,) F1 of the top-k sets; both have k members, so precision, recall and F1 are one number."""
    hits = torch.zeros_like(targets, dtype=torch.bool).scatter_(1, targets.topk(k).indices, True)
    return hits.gather(1, logits.topk(k).indices).float().mean(-1)


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    """(samples,) rank correlation, ties at their mean rank; 0 where one side is constant."""
    ranks = [torch.from_numpy(rankdata(x.numpy(), axis=1)) for x in (a, b)]
    centred = [r - r.mean(-1, keepdim=True) for r in ranks]
    norm = centred[0].norm(dim=-1) * centred[1].norm(dim=-1)
    return torch.where(norm > 0, (centred[0] * centred[1]).sum(-1) / norm.clamp(min=1e-12), 0.0)
