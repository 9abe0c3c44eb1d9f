"""The optimizer is torch's Muon, shape by shape."""

import torch

from tools.demo.muon import Muon, orthogonalised


def test_steps_are_those_of_torch():
    torch.manual_seed(0)
    ours = [torch.nn.Parameter(torch.randn(shape)) for shape in ((6, 4), (4, 8), (6, 4))]
    theirs = [torch.nn.Parameter(p.detach().clone()) for p in ours]
    start = [p.detach().clone() for p in ours]
    lr = torch.tensor(0.0)
    mine = Muon(ours, lr, weight_decay=0.1)
    other = torch.optim.Muon(theirs, lr=0.0, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for rate in (0.02, 0.05, 0.01):
        lr.fill_(rate)
        other.param_groups[0]["lr"] = rate
        for a, b in zip(ours, theirs, strict=True):
            a.grad = torch.randn_like(a)
            b.grad = a.grad.clone()
        mine.step()
        other.step()
    for a, b, was in zip(ours, theirs, start, strict=True):
        # Both take products in bf16, batched or not, and what is rounded off adds up.
        assert (a - b).norm() < 0.05 * (a - was).norm()


def test_singular_values_come_near_one():
    torch.manual_seed(1)
    for shape in ((2, 16, 16), (1, 8, 32), (3, 32, 8)):
        values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)).float())
        assert values.min() > 0.3 and values.max() < 1.3
