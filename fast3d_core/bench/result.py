"""What `fast3d bench` measured, as `--json` prints it and `--out` keeps it.

Times are seconds of a whole batch; ratios are those of medians.
"""

import dataclasses
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fast3d_core.evaluation.result import Environment, Spread
from fast3d_core.pruning import BASELINE, DEFAULT

SCHEMA = 1
REUSE = " reuse"  # ends the name of a row that reuses scenes
BASELINES = {
    "published": "stock transformers as the published code asks it, one sample at a time, eager attention, its weights "
    "as outputs; unpruned, as masking costs the same",
    "stock": "stock transformers, batched and left-padded, cached, SDPA, unpruned",
    "stock pruned": f"the same without the tokens that {DEFAULT} drops",
}


@dataclass(frozen=True)
class Times:
    """Seconds over the timed batches."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Times":
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class RooflineTime:
    """The seconds that work takes at the least, at the rates measured in the same run: the larger of FLOPs / matmul
    rate and bytes / copy bandwidth. A small model that a CPU's caches hold, or other work on the machine, may go below.

    Attributes:
        seconds: mean over the timed batches.
        times: measured / roofline, median over the timed batches.
    """

    seconds: float
    times: float


@dataclass(frozen=True)
class Roofline:
    """The rooflines of a row's parts.

    Attributes:
        gap: predicting the maps in float32; null for methods that need none.
        prefill: the prompts once each, the weights read once.
        step: a decode step, mean over the steps; weights, prompt caches and generated caches read once; null where
            the prompt gives the only token.
        end_to_end: the sum of all these, against a batch's time in a row.
    """

    gap: RooflineTime | None
    prefill: RooflineTime
    step: RooflineTime | None
    end_to_end: RooflineTime


@dataclass(frozen=True)
class SampleFlops:
    """2 per multiply-add, mean over the timed samples (see `fast3d_core.llm.cost.Cost`); gap: null without maps."""

    gap: float | None
    prefill: float
    decode: float


@dataclass(frozen=True)
class KeptTokens:
    """What is kept, measured on the plans that were carried out, over the timed samples.

    Attributes:
        ratio: layer-averaged percentage of the visual tokens pruned, mean.
        tokens: visual tokens kept in layers >= K, mean; objects: slots of which any token is.
    """

    ratio: float
    tokens: float
    objects: Spread


@dataclass(frozen=True)
class BenchRow:
    """One method, or baseline, at one batch size.

    Attributes:
        name: of the method, with " reuse" behind it where scenes are reused; or one of `BASELINES`.
        baseline: stock transformers instead of the fast engine.
        reuse_scene: what stands before the questions is computed once a scene.
        batch: samples at a time; samples: how many were timed.
        settings: of the method, as `fast3d eval` takes them.
        warmup_seconds: what the batches before the timed ones took, compiling and capturing included; in no other time.
        gap_seconds: GAP's tokens, inputs and maps; null for methods that need no map.
        prompt_seconds: plans, the LLM's tokens, embedded prompts.
        prefill_seconds: up to the scores of the first new token.
        step_seconds: decoding / its steps, one less than the new tokens; null where there is none.
        text_seconds: ids to text.
        end_to_end_seconds: all of these one after another, from questions as text to answers as text: what one batch
            alone takes.
        in_a_row_seconds: from batch to batch as `fast3d eval` answers them, the next one prepared and the last one's
            texts made while a GPU decodes; null for baselines.
        samples_per_second, ms_per_sample: by the median of that, of baselines by end_to_end_seconds.
        peak_memory_bytes: allocated at most, weights and warm-up included; null on a CPU.
        kept: see `KeptTokens`.
        flops, roofline: null for baselines.
    """

    name: str
    baseline: bool
    reuse_scene: bool
    batch: int
    samples: int
    settings: dict[str, Any]
    warmup_seconds: float
    gap_seconds: Times | None
    prompt_seconds: Times
    prefill_seconds: Times
    step_seconds: Times | None
    text_seconds: Times
    end_to_end_seconds: Times
    in_a_row_seconds: Times | None
    samples_per_second: float
    ms_per_sample: float
    peak_memory_bytes: int | None
    kept: KeptTokens
    flops: SampleFlops | None = None
    roofline: Roofline | None = None


@dataclass(frozen=True)
class Ratio:
    """How many times the samples per second of another row a row makes, end to end and in prefill alone.

    Attributes:
        row: one of ours; against: a baseline, vanilla, or, of a row that reuses scenes, the same method without. Both
            at `batch`, except published, which takes one sample at a time.
    """

    row: str
    batch: int
    against: str
    end_to_end: float
    prefill: float


@dataclass(frozen=True)
class MeasuredRates:
    """What the device does in this run: FLOP/s of a matrix product in the LLM's dtype and in float32 (GAP's), bytes/s
    (read + write) of a copy."""

    matmul_flops: float
    matmul_flops_float32: float
    copy_bytes: float


@dataclass(frozen=True)
class BenchResult:
    """A benchmark.

    Attributes:
        schema: version of this layout.
        llm: named shape, demo, or the config file.
        shape: of the LLM, see `fast3d_core.plan.LlmShape`; dtype: of its weights.
        settings: everything else that was asked for.
        environment, rates, rows, ratios: see their types.
        notes: remarks, one line each, e.g. why a row is missing.
    """

    llm: str
    shape: dict[str, int]
    dtype: str
    settings: dict[str, Any]
    environment: Environment
    rates: MeasuredRates
    rows: list[BenchRow] = field(default_factory=list)
    ratios: list[Ratio] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return dataclasses.asdict(self)


def ratios(rows: Sequence[BenchRow]) -> list[Ratio]:
    """Each of our rows against every baseline at its batch size, our unpruned one, and itself without scene reuse."""
    found = []
    for row in rows:
        if row.baseline:
            continue
        for other in rows:
            same = other.batch == row.batch or other.name == "published"
            plain = other.name in (BASELINE, row.name.removesuffix(REUSE))
            if same and other is not row and (other.baseline or plain):
                prefill = (other.prefill_seconds.median / other.batch) / (row.prefill_seconds.median / row.batch)
                speed = row.samples_per_second / other.samples_per_second
                found.append(Ratio(row.name, row.batch, other.name, speed, prefill))
    return found
