"""Muon, the optimizer of the layers' matrices: momentum whose singular values are all brought near one.

As in torch.optim.Muon with `adjust_lr_fn="match_rms_adamw"`, with matrices of one shape taken together: torch's takes
them one by one, which for 84 small matrices is some 2,000 launches a step.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.775, 2.0315  # of the Newton-Schulz polynomial, from torch.optim.Muon
_ITERATIONS = 5


class Muon(torch.optim.Optimizer):
    """Over matrices.

    Args:
        lr: a tensor, read at every step, so that a captured step can change it.
        weight_decay: decoupled, as AdamW's.
    """

    def __init__(self, matrices: Iterable[Tensor], lr: Tensor, weight_decay: float, momentum: float = 0.95):
        super().__init__(list(matrices), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            lr, beta = group["lr"], group["momentum"]
            for shape in sorted({tuple(p.shape) for p in group["params"]}):
                alike = [p for p in group["params"] if p.shape == shape]
                gradients = torch.stack([p.grad for p in alike])
                state = self.state[alike[0]]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(gradients)
                state["momentum"].lerp_(gradients, 1 - beta)
                updates = orthogonalised(gradients.lerp(state["momentum"], beta)).to(gradients.dtype)
                torch._foreach_mul_(alike, 1 - lr * group["weight_decay"])
                # 0.2 is the usual size of AdamW's updates: their root mean square over the matrix.
                torch._foreach_sub_(alike, list((updates * (lr * 0.2 * max(shape) ** 0.5)).unbind()))


def orthogonalised(matrices: Tensor) -> Tensor:
    """(n, rows, columns) -> bf16 matrices with the same singular vectors, and singular values of about 0.7 to 1.2."""
    x = matrices.to(torch.bfloat16)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x.mT if tall else x
