"""What the scores in a map file are, logits or shares of attention: by its form, its numbers, or what a user says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fast3d_core.attention_map import MAP_KINDS, AttentionMap, MapKind
from fast3d_core.errors import DataError

__all__ = ["MAP_KINDS", "AttentionMap", "AttentionMaps", "MapKind", "kind_of", "log_shares"]

_LARGEST_SUM = 1.05  # of shares: the rest falls on other tokens; half precision may round it up


@dataclass(frozen=True)
class AttentionMaps:
    """The maps of a dataset.

    Attributes:
        path: their file.
        kind: what their scores are; None where the file might hold either.
        scores: sample index -> (objects,) float32. Higher is more, of either kind: enough for methods that rank.
        recorded: whether fast3d wrote the file and noted its kind, so that nothing else can be true.
    """

    path: Path
    kind: MapKind | None
    scores: Mapping[int, Tensor]
    recorded: bool = False

    def of(self, indices: Sequence[int]) -> AttentionMap:
        """The maps (samples, objects) of these samples."""
        return AttentionMap(self.kind, torch.stack([self.scores[index] for index in indices]))

    def all(self) -> AttentionMap:
        """The maps of all samples, by index."""
        return self.of(range(len(self.scores)))

    def as_logits(self, stated: MapKind | None = None) -> "AttentionMaps":
        """The maps as logits, for methods that take a softmax; shares by `log_shares`.

        Args:
            stated: what a user says that they are; None: nothing, so that they have to be known as logits.

        Raises:
            DataError: they are, or may be, shares, and nothing was stated; or what was stated is wrong.
        """
        self._check_stated(stated)
        if stated != "shares":
            return replace(self, kind="logits")
        for index, scores in self.scores.items():
            if (scores < 0).any() or scores.sum() <= 0:
                problem = "has numbers below 0" if (scores < 0).any() else "adds up to 0"
                raise DataError(f"{self.path}: the map of sample {index} {problem}, so it holds no shares of attention")
        logits = {index: log_shares(scores) for index, scores in self.scores.items()}
        return replace(self, kind="logits", scores=logits)

    def _check_stated(self, stated: MapKind | None) -> None:
        if self.recorded and stated not in (None, self.kind):
            raise DataError(
                f"{self.path} holds {self.kind}, as fast3d noted when it wrote it: leave out --map-kind {stated}"
            )
        if stated is None and self.kind == "shares":
            raise DataError(
                f"{self.path} holds shares of attention, and the method takes the softmax of logits: give --map-kind "
                "shares to take their logarithm, or predicted maps with --maps"
            )
        if stated is None and self.kind is None:
            raise DataError(
                f"{self.path} is in the form of logits, but its maps look like shares of attention (none below 0, sums "
                "of at most 1); say which they are with --map-kind shares or --map-kind logits"
            )


def log_shares(shares: Tensor) -> Tensor:
    """Logits whose softmax are these shares of attention (..., objects), each as a part of their sum.

    A share of 0 is given the smallest normal float32, a logit of -87.3: it is finite, and adds nothing to any sum.
    """
    parts = shares.double() / shares.double().sum(dim=-1, keepdim=True)
    return parts.float().clamp(min=torch.finfo(torch.float32).tiny).log()


def kind_of(maps: Mapping[int, Tensor], *, listed: bool) -> MapKind | None:
    """What a file holds, by its form, and where its numbers contradict that, by these.

    Args:
        listed: whether its form is the list that extraction writes, and not the dict that GAP writes.
    """
    scores = torch.stack(list(maps.values()))
    if (scores < 0).any():
        return "logits"
    if listed:
        return "shares"
    sums = scores.sum(dim=-1)
    return None if ((sums > 0) & (sums <= _LARGEST_SUM)).all() else "logits"
