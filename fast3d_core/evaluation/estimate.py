"""`fast3d eval --dry-run`: what a run would ask, keep, need and take, without loading the model."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from fast3d_core.config import Config
from fast3d_core.evaluation.batch_size import batch_size
from fast3d_core.evaluation.needs import Needs
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.result import Spread


@dataclass(frozen=True)
class Rates:
    """What a device does just now: FLOP/s of a matrix product, bytes/s (read + write) of a copy."""

    device: torch.device
    flops: float
    bytes: float


@dataclass(frozen=True)
class RunEstimate:
    """A run that was not made.

    Attributes:
        samples: dataset -> number of samples; batch_size: in a batch.
        layer: K, the first from which on any sample is pruned; kept_tokens: visual tokens that the last layer sees;
            ratio: layer-averaged percentage pruned, mean.
        memory_bytes: weights, caches and activations of a full batch.
        seconds: prefill and `max_new_tokens` decode steps of every batch at the measured rates, and GAP where it
            predicts during the run; most answers are shorter, and launching from Python is not counted. What
            `eval.reuse_scene` and several processes save is not taken off.
    """

    run: str
    method: str
    samples: dict[str, int]
    batch_size: int
    layer: int
    kept_tokens: Spread
    ratio: float
    memory_bytes: float
    seconds: float


def estimate(config: Config, job: Job, questions: Questions, rates: Rates) -> RunEstimate:
    """Plans every sample of `job` (FastV's by its count) and adds up what carrying it out costs."""
    needs, planner = Needs.of_config(config), questions.planner(job, rates.device)
    size = batch_size(config, job, questions, rates.device)
    steps = config.generation.max_new_tokens - 1
    layers = needs.shape.layers
    counts, layers_cut, ratios, seconds, memory = list[int](), set[int](), list[float](), 0.0, 0.0
    for batch in questions.batches(size):
        planned = planner(batch)
        counts += [plan.counts(layers)[-1] for plan in planned]
        layers_cut |= {plan.stages[0].layer for plan in planned if plan.stages}
        ratios += [plan.ratio(layers) for plan in planned]
        wanted = needs.of_batch(batch, planned)
        prefill, decode, cached = (
            sum(getattr(need.cost, name) for need in wanted) for name in ("prefill_flops", "decode_flops", "kv_bytes")
        )
        if planner.gap_flops:
            seconds += sum(map(planner.gap_flops, batch)) / rates.flops
        seconds += prefill / rates.flops
        seconds += max(decode / rates.flops, steps * (needs.weights + cached) / rates.bytes)
        memory = max(memory, needs.memory(wanted))
    return RunEstimate(
        run=job.name,
        method=job.pruner.name,
        samples={dataset: len(samples) for dataset, samples in questions.samples.items()},
        batch_size=size,
        layer=min(layers_cut, default=0),
        kept_tokens=Spread.of(counts or [0]),
        ratio=100 * sum(ratios) / max(len(ratios), 1),
        memory_bytes=memory,
        seconds=seconds,
    )


def measure(device: torch.device, dtype: torch.dtype) -> Rates:
    """The device's rates, in about a second; large enough on a GPU that launching and waiting do not count."""
    size = 8192 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    block = torch.randn(1 << (28 if device.type == "cuda" else 24), device=device)
    return Rates(
        device=device,
        flops=2 * size**3 / _best(lambda: a @ a, device),
        bytes=2 * block.numel() * block.element_size() / _best(lambda: block.clone(), device),
    )


def _best(function: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(10 if device.type == "cuda" else 4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
