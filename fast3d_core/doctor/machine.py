"""The machine: device, number type, and memory for the chosen batch."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import torch
from torch import nn

from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.evaluation.needs import Needs
from fast3d_core.pruning import BASELINE, METHODS, PlanRequest
from fast3d_core.runtime.devices import available_memory

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
        yield ok(f"{name}, computes in {case.config.model.dtype}, {_gib(available_memory(found))} free")


def _compute(found: torch.device, dtype: torch.dtype) -> None:
    """What a layer of the LLM does, in small."""
    x = torch.ones(1, 2, 8, 8, device=found, dtype=dtype)
    x = nn.functional.scaled_dot_product_attention(x, x, x, is_causal=True)
    x = nn.functional.silu(nn.functional.linear(x, x[0, 0])) * x.float().pow(2).mean().rsqrt().to(dtype)
    x.float().log_softmax(-1).topk(2).values.sum().item()


def memory(case: Case) -> Iterator[Finding]:
    """The formulas of `fast3d eval --dry-run` for a full batch of the longest question, nothing pruned."""
    config, found, text = case.config, case.device, case.longest_text()
    needs = Needs.of_config(config)
    need = needs.of(METHODS[BASELINE]().plan(PlanRequest("", 0, case.units)), text)
    free = available_memory(found)
    most = max(len(case.samples(dataset)) for dataset in case.datasets)
    batch = 1 if config.eval.batch_size == "auto" else min(config.eval.batch_size, most)
    if (least := needs.memory([need])) > free:
        yield error(
            f"weights and one sample take {_gib(least)}, {_gib(free)} are free on {found}",
            "free some, choose another model.device, or model.dtype=bfloat16",
        )
    elif (needed := needs.memory([need] * batch)) > free:
        # Methods that drop tokens before the first layer need less; how much less depends on their budget.
        whole = [name for name in case.methods if not METHODS[name].drops_at_entry]
        yield (error if whole else warning)(
            f"a batch of {batch} takes up to {_gib(needed)}, {_gib(free)} are free on {found}",
            f"--batch {needs.largest_batch([need], free, batch)}, or --batch auto",
        )
    else:
        yield ok(f"a batch of {batch} takes up to {_gib(needed)} of the {_gib(free)} that are free on {found}")
    room = int(psutil.virtual_memory().available)
    if found.type == "cuda" and needs.weights > room:
        yield warning(
            f"the weights pass through the computer's memory: {_gib(needs.weights)}, {_gib(room)} are free", "free some"
        )


def _gib(size: float) -> str:
    return f"{size / 2**30:.2f} GiB"
