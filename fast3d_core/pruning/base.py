"""What a pruning method is: an answer to which visual tokens of a sample are kept, and from which layer on.

The modules of the methods are read for the command line's help. So they import torch, and `fast3d_core.plan`, which
does, inside their functions.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from fast3d_core.pruning.request import PlanRequest

if TYPE_CHECKING:
    from torch import Tensor

    from fast3d_core.plan import Plan

OTHER_COLOUR, OTHER_MARKER = "#cc79a7", "P"
"""In figures, of methods that name none: the one of Okabe and Ito's colours that no method here has."""


@dataclass(frozen=True)
class Pruner(ABC):
    """A pruning method. A subclass is a frozen dataclass; its docstring's first line says what it does.

    Its fields are its settings, made by `fast3d_core.fields.setting(default, doc, ...)`: each becomes an option of
    `fast3d eval`, `ask` and `bench`. Four names have a meaning of their own:

        layer, keep: the budget, from layer K on `keep` visual tokens; `--preset` and `--ratio` set both.
        alpha: share of predicted attention; what `fast3d search-alpha` found is taken where there is no default.
        seed: of random draws, 0 where none is given.

    Attributes:
        name: by which commands and run folders call it: small letters, digits, - and _.
        title: what figures call it; "" for the name. colour, marker: in figures: "#rrggbb", and matplotlib's letter.
        source: the paper that it is from; "" where there is none.
        needs_map: an attention map is read or predicted for it. It may hold logits or shares of attention, which is
            enough where objects are only ranked. needs_logits: it takes a softmax, so shares are refused.
        is_baseline: it keeps everything; reports relate other runs to its run.
        adaptive: how many objects are kept differs from sample to sample, so that reports show the distribution.
        drops_at_entry: whatever its settings, tokens are dropped before layer 0, so that no layer holds all of them.
        rule: how the report's slider shows what it would keep by an attention map: the fewest objects that reach
            `alpha` ("share"), or the best `keep` ("rank"); None: not at all.
    """

    name: ClassVar[str]
    title: ClassVar[str] = ""
    colour: ClassVar[str] = OTHER_COLOUR
    marker: ClassVar[str] = OTHER_MARKER
    source: ClassVar[str] = ""
    needs_map: ClassVar[bool] = False
    needs_logits: ClassVar[bool] = False
    is_baseline: ClassVar[bool] = False
    adaptive: ClassVar[bool] = False
    drops_at_entry: ClassVar[bool] = False
    rule: ClassVar[Literal["share", "rank"] | None] = None

    @abstractmethod
    def plan(self, request: PlanRequest) -> "Plan":
        """The plan for one sample. It depends on nothing but the request and the settings: not on batches, their order,
        or a random state that is not the method's own."""


def top_tokens(scores: "Tensor", count: int, tokens: int) -> "Tensor":
    """The `count` visual tokens of the best units, ascending: published top-k over the map repeated for each token.

    `scores` is (units,), each of `tokens` tokens. Taken on the CPU over float32, so that ties fall the same on every
    device; inside a unit (a `count` that is no multiple of `tokens`) torch.topk decides, as in the published code.
    """
    import torch

    repeated = scores.float().cpu().repeat_interleave(tokens)
    return torch.topk(repeated, count).indices.sort().values
