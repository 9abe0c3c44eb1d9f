"""What a pruning method is: an answer to which visual tokens of a sample stay, and from which layer on."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from fast3d_core.plan import Plan, Units


@dataclass(frozen=True)
class PlanRequest:
    """What a method may look at before the LLM runs.

    Attributes:
        dataset, index: the sample's name; random methods draw from nothing else but these and their seed.
        units: what the prompt shows of the scene.
        scores: (units,) float32 attention map, for methods with `needs_map`: logits for those with `needs_logits`,
            for others logits or shares of attention.
    """

    dataset: str
    index: int
    units: Units
    scores: Tensor | None = None


@dataclass(frozen=True)
class Pruner(ABC):
    """A pruning method. Subclasses are dataclasses whose fields are their settings.

    Fields have fixed names, by which the command line knows what a method takes: `layer` and `keep` (a token budget),
    `alpha` (a share of attention), `seed`.

    `needs_map` asks for an attention map, which may hold logits or shares of attention: enough where objects are only
    ranked. `needs_logits` makes sure of logits, for methods that take their softmax.
    """

    name: ClassVar[str]
    needs_map: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False

    @abstractmethod
    def plan(self, request: PlanRequest) -> Plan:
        """The plan for one sample."""


def top_tokens(scores: Tensor, count: int, tokens: int) -> Tensor:
    """The `count` visual tokens of the best units, ascending: published top-k over the map repeated for each token.

    `scores` is (units,), each of `tokens` tokens. Taken on the CPU over float32, so that ties fall the same on every
    device; inside a unit (a `count` that is no multiple of `tokens`) torch.topk decides, as in the published code.
    """
    repeated = scores.float().cpu().repeat_interleave(tokens)
    return torch.topk(repeated, count).indices.sort().values
