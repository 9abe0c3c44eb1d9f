"""The machine: device, number type, and memory for the chosen batch."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch import nn

from fast3d_core.devices import free_memory
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.evaluation.estimate import batch_cost
from fast3d_core.pruning import PlanRequest, Vanilla

_GPUS = Path("/proc/driver/nvidia/gpus")  # what NVIDIA's driver on Linux has, whether or not torch sees it


def device(case: Case) -> Iterator[Finding]:
    """Is it there, and does it compute in `model.dtype`?"""
    found, dtype = case.device, getattr(torch, case.config.model.dtype)
    name = torch.cuda.get_device_name(found) if found.type == "cuda" else "CPU"
    try:
        _compute(found, dtype)
    except RuntimeError as problem:
        reason = str(problem).splitlines()[0][:120]
        yield error(f"{name} does not compute in {case.config.model.dtype} ({reason})", "--set model.dtype=float32")
        return
    if found.type == "cpu" and case.config.model.device == "auto" and _GPUS.exists():
        yield warning(
            f"there is an NVIDIA GPU, but torch {torch.__version__} does not see it, so auto means the CPU",
            "install a torch for CUDA that fits the driver, or say --set model.device=cpu if that is meant",
        )
    elif (
        found.type == "cuda" and dtype == torch.bfloat16 and not torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        yield warning(f"{name} computes in bfloat16 by emulation only, which is slow", "--set model.dtype=float16")
    else:
        yield ok(f"{name}, computes in {case.config.model.dtype}, {_gib(free_memory(found))} free")


def _compute(found: torch.device, dtype: torch.dtype) -> None:
    """What a layer of the LLM does, in small."""
    x = torch.ones(1, 2, 8, 8, device=found, dtype=dtype)
    x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    x = nn.functional.silu(nn.functional.linear(x, x[0, 0])) * x.float().pow(2).mean().rsqrt().to(dtype)
    x.float().log_softmax(-1).topk(2).values.sum().item()


def memory(case: Case) -> Iterator[Finding]:
    """The formulas of `fast3d eval --dry-run` for a full batch of the longest question, nothing pruned."""
    config, shape = case.config, case.shape
    found, batch = case.device, config.eval.batch_size
    batch = min(batch, max(len(case.samples(dataset)) for dataset in case.datasets))
    plan = Vanilla().plan(PlanRequest("", 0, config.data.max_objects))
    with_objects = case.shape_with_objects
    text = case.longest_text()
    needed = [batch_cost(config, with_objects, [text] * size, [plan] * size).memory_bytes for size in (1, batch)]
    free = free_memory(found)
    if needed[0] > free:
        yield error(
            f"weights and one sample take {_gib(needed[0])}, {_gib(free)} are free on {found}",
            "free some, choose another model.device, or model.dtype=bfloat16",
        )
    elif needed[1] > free:
        # Methods that drop tokens before the first layer need less; how much less depends on their budget.
        whole = set(case.methods) - {"sap"}
        yield (error if whole else warning)(
            f"a batch of {batch} takes up to {_gib(needed[1])}, {_gib(free)} are free on {found}",
            f"--set eval.batch_size={max(1, _fitting(needed, batch, free))}",
        )
    else:
        yield ok(f"a batch of {batch} takes up to {_gib(needed[1])} of the {_gib(free)} that are free on {found}")
    weights = shape.parameters * getattr(torch, config.model.dtype).itemsize
    room = int(psutil.virtual_memory().available)
    if found.type == "cuda" and weights > room:
        yield warning(
            f"the weights pass through the computer's memory: {_gib(weights)}, {_gib(room)} are free", "free some"
        )


def _fitting(needed: list[float], batch: int, free: float) -> int:
    """The largest batch that fits, memory taken to grow evenly from one sample to `batch`."""
    return int(1 + (free - needed[0]) * (batch - 1) / (needed[1] - needed[0]))


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
