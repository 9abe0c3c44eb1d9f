"""What comes of a question."""

from dataclasses import asdict, dataclass
from typing import Any

from fast3d_core.asking.rooms import SceneObject


@dataclass(frozen=True)
class Reply:
    """An answer, what it was made from, and what it took.

    Attributes:
        scene, question, task: as asked; prompt: what the LLM was asked.
        method: with its settings, such as "sap-alpha0.21".
        text: the answer; named: the objects in it, in order.
        kept: the objects of which any token is kept, the most attended first where there is a map.
        layer: K, of `layers`; visual: tokens before it, kept_tokens: those that the last layer sees.
        stages: each layer from which on fewer tokens are left, with their number; most methods have one.
        pruned: percent of the visual tokens that are dropped, averaged over the layers.
        flops: of GAP and the LLM; flops_unpruned: of the same answer with every token kept.
        attention: share of the predicted attention of each slot, for methods that follow a map.
        seconds: of the parts gap, plan, prompt, prefill, decode and text, and of all of them, end_to_end.
        reuse_scene: whether the scene was read apart from the question, which is not the published computation.
    """

    scene: str
    question: str
    task: str
    prompt: str
    method: str
    text: str
    named: tuple[SceneObject, ...]
    kept: tuple[SceneObject, ...]
    layer: int
    layers: int
    visual: int
    kept_tokens: int
    stages: tuple[tuple[int, int], ...]
    pruned: float
    flops: float
    flops_unpruned: float
    attention: tuple[float, ...] | None
    seconds: dict[str, float]
    reuse_scene: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)
