"""`fast3d eval --dry-run`: what a run would ask, keep, need and take, without loading the model."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from fast3d_core.chat_scene.model import prompt_tokens
from fast3d_core.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.config import Config
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.result import Spread
from fast3d_core.plan import TOKENS_PER_OBJECT, LlmShape, Plan, cost, pruning_ratio
from fast3d_core.vicuna.llm import read_shape


@dataclass(frozen=True)
class Rates:
    """What a device does just now: FLOP/s of a matrix product, bytes/s (read + write) of a copy."""

    device: torch.device
    flops: float
    bytes: float


@dataclass(frozen=True)
class Estimate:
    """A run that was not made.

    Attributes:
        samples: dataset -> number of samples.
        layer: K; kept_tokens: visual tokens kept from there on; ratio: layer-averaged percentage pruned, mean.
        memory_bytes: weights, caches and activations of a full batch.
        seconds: prefill and `max_new_tokens` decode steps of every batch at the measured rates, and GAP where it
            predicts during the run; most answers are shorter, and launching from Python is not counted.
    """

    run: str
    method: str
    samples: dict[str, int]
    layer: int
    kept_tokens: Spread
    ratio: float
    memory_bytes: float
    seconds: float


def estimate(config: Config, job: Job, questions: Questions, rates: Rates) -> Estimate:
    """Plans every sample of `job` (FastV's by its count) and adds up what carrying it out costs."""
    tokenizer = ChatSceneTokenizer(config.model.llm, config.data.max_objects)
    shape = read_shape(config.model.llm, extra_tokens=questions.objects)
    plans = questions.plans(job)
    if job.live:
        questions.live_maps.load(rates.device)
    visual = questions.objects * TOKENS_PER_OBJECT
    counts, seconds, memory = [], 0.0, 0.0
    for batch in questions.batches(config.eval.batch_size):
        planned = plans(batch)
        counts += [plan.count for plan in planned]
        spent = batch_cost(config, shape, [prompt_tokens(tokenizer, sample.prompt) for sample in batch], planned)
        if job.live:
            seconds += sum(questions.live_maps.flops(sample) for sample in batch) / rates.flops
        seconds += spent.prefill_flops / rates.flops
        seconds += max(spent.decode_flops / rates.flops, spent.decode_bytes / rates.bytes)
        memory = max(memory, spent.memory_bytes)
    layer = getattr(job.pruner, "layer", 0)
    return Estimate(
        run=job.name,
        method=job.pruner.name,
        samples={dataset: len(samples) for dataset, samples in questions.samples.items()},
        layer=layer,
        kept_tokens=Spread.of(counts or [0]),
        ratio=100 * pruning_ratio(shape.layers, layer, visual, sum(counts) / max(len(counts), 1)),  # type: ignore[arg-type]
        memory_bytes=memory,
        seconds=seconds,
    )


@dataclass(frozen=True)
class BatchCost:
    """What a batch takes, all answers at `max_new_tokens`.

    Attributes:
        decode_bytes: weights and caches that decoding reads; memory_bytes: weights, caches and activations, together.
    """

    prefill_flops: int
    decode_flops: int
    decode_bytes: int
    memory_bytes: float


def batch_cost(config: Config, shape: LlmShape, texts: Sequence[int], plans: Sequence[Plan]) -> BatchCost:
    """Of samples with these numbers of prompt tokens that are not visual, under these plans."""
    generation = config.generation
    element_bytes = getattr(torch, config.model.dtype).itemsize
    weights = shape.parameters * element_bytes
    prefill = decode = cached = rows = 0
    for text, plan in zip(texts, plans, strict=True):
        rows += text + (plan.count if plan.layer == 0 else plan.visual)
        spent = cost(
            shape,
            layer=plan.layer,
            text=text,
            visual=plan.visual,
            count=plan.count,
            beams=generation.beams,
            steps=generation.max_new_tokens,
            element_bytes=element_bytes,
        )
        prefill, decode = prefill + spent.prefill_flops, decode + spent.decode_flops
        cached += spent.kv_bytes
    steps = generation.max_new_tokens - 1
    activations = _activations(shape, rows, len(texts) * generation.beams, element_bytes)
    return BatchCost(prefill, decode, steps * (weights + cached), weights + cached + activations)


def _activations(shape: LlmShape, rows: int, beams: int, element_bytes: int) -> float:
    """Bytes alive at the widest moment: a layer's MLP over all packed rows, or the scores over the vocabulary."""
    layer = rows * (4 * shape.hidden + 3 * shape.intermediate) * element_bytes
    return max(layer, 4 * beams * shape.vocab * 4)


def measure(device: torch.device, dtype: torch.dtype) -> Rates:
    """The device's rates, in about a second."""
    size = 4096 if device.type == "cuda" else 1024
    a = torch.randn(size, size, device=device).to(dtype)
    block = torch.randn(1 << (27 if device.type == "cuda" else 24), device=device)
    return Rates(
        device=device,
        flops=2 * size**3 / _best(lambda: a @ a, device),
        bytes=2 * block.numel() * block.element_size() / _best(lambda: block.clone(), device),
    )


def _best(function: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(4):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
