"""What an evaluation run leaves behind: `result.json`, and `scores.json` with what intervals are computed from."""

import dataclasses
import platform
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_json, write_json
from fast3d_core.files.typed import STRICT, load_typed

SCHEMA = 1
RESULT_FILE = "result.json"
SCORES_FILE = "scores.json"

_AGAIN = "run `fast3d eval` again"


@dataclass(frozen=True)
class Spread:
    """A distribution over samples."""

    __pydantic_config__ = STRICT

    mean: float
    p5: float
    p50: float
    p95: float

    @classmethod
    def of(cls, values: "np.typing.ArrayLike") -> "Spread":
        array = np.asarray(values, dtype=np.float64)
        p5, p50, p95 = (float(p) for p in np.percentile(array, (5, 50, 95)))
        return cls(float(array.mean()), p5, p50, p95)


@dataclass(frozen=True)
class Pruning:
    """How much was pruned, measured from the plans that were carried out.

    Attributes:
        ratio: layer-averaged percentage of the visual tokens pruned, all 3 x slots counted; mean over samples.
        ratio_present: the same over the tokens of slots that hold an object (a 3D or a 2D feature).
        kept_objects: slots of which the last layer sees any token.
        kept_tokens: visual tokens that the last layer sees, mean over samples.
    """

    __pydantic_config__ = STRICT

    ratio: float
    ratio_present: float
    kept_objects: Spread
    kept_tokens: float


@dataclass(frozen=True)
class SampleCost:
    """What a sample costs, mean over samples.

    Attributes:
        prefill_flops, decode_flops: the LLM's, 2 per multiply-add (see `fast3d_core.llm.cost.Cost`). With `reuse_scene`
            a scene counts once in every batch that asks about it, though the engine may know it from the batch before.
        gap_flops: those of predicting the map; null where no map is predicted during the run.
        kv_bytes: key/value cache of the prompt and of all beams' generated tokens.
        prompt_tokens: prompt length before pruning; new_tokens: tokens generated until the sample was done.
    """

    __pydantic_config__ = STRICT

    prefill_flops: float
    decode_flops: float
    gap_flops: float | None
    kv_bytes: float
    prompt_tokens: float
    new_tokens: float


@dataclass(frozen=True)
class Timing:
    """Wall-clock time of answering, without loading the model; with several processes, that of the slowest.

    Attributes:
        seconds: from the start, or the end of the batch before, to the end of each batch, added up over batches.
        gap_seconds: time in which GAP predicted maps; null where they were read from files. On a CPU it is part of
            `seconds`. On a GPU the maps of the next batch are predicted while this one is decoded, so it is hidden
            in `seconds`, but for the first batch.
    """

    __pydantic_config__ = STRICT

    seconds: float
    samples_per_second: float
    gap_seconds: float | None = None


@dataclass(frozen=True)
class Environment:
    """Where and with what the run was made."""

    __pydantic_config__ = STRICT

    device: str
    processes: int
    attention: str | None
    python: str
    versions: dict[str, str]
    git: str | None


@dataclass(frozen=True)
class Result:
    """An evaluation run, or scored predictions of unknown origin (then only the scores are there).

    Attributes:
        schema: version of this layout.
        name: the run's name.
        method: by name; null for predictions that fast3d did not make.
        settings: everything that determines the predictions.
        seed: of a method that draws at random; null where nothing is drawn.
        samples: number of samples of each dataset.
        headline: published column -> score in percent; null where it cannot be computed.
        metrics: every published metric under the name that the published scorer gives it, as a fraction.
        pruning, cost, timing, environment: see their types.
        notes: remarks, one line each, e.g. why a metric is null.
    """

    __pydantic_config__ = STRICT

    name: str
    method: str | None
    settings: dict[str, Any]
    seed: int | None
    samples: dict[str, int]
    headline: dict[str, float | None]
    metrics: dict[str, float | None]
    pruning: Pruning | None = None
    cost: SampleCost | None = None
    timing: Timing | None = None
    environment: Environment | None = None
    notes: list[str] = field(default_factory=list)
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """As plain data, for JSON."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class DatasetStats:
    """Sufficient statistics of a headline score, for bootstrap intervals.

    Attributes:
        keys: what each row is, the same for every run over the same samples.
        stats: (rows, k) float64; `fast3d_core.benchmarks.headline` turns their sum into the score.
    """

    keys: list[str]
    stats: np.ndarray


def save_result(folder: Path, result: Result, stats: dict[str, DatasetStats]) -> None:
    """Writes scores.json, then result.json, whose presence says that the run is complete."""
    plain = {dataset: {"keys": s.keys, "stats": s.stats.tolist()} for dataset, s in stats.items()}
    write_json(folder / SCORES_FILE, plain)
    write_json(folder / RESULT_FILE, result.to_dict())


def load_result(folder: Path) -> Result:
    """The result in a run folder. Raises `DataError` when there is none or it is not ours."""
    path = folder / RESULT_FILE
    content = load_json(path, "run")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        raise DataError(f"{path} is not a result of this fast3d (schema {SCHEMA})", _AGAIN)
    return load_typed(Result, path, "run", _AGAIN)


@dataclass(frozen=True)
class _PlainStats:
    """`DatasetStats` as they are written."""

    __pydantic_config__ = STRICT

    keys: list[str]
    stats: list[list[float]]

    def __post_init__(self) -> None:
        if len({len(row) for row in self.stats}) > 1:
            raise ValueError("stats holds rows of different lengths")


def load_stats(folder: Path) -> dict[str, DatasetStats]:
    """The headline statistics in a run folder, by dataset."""
    plain = load_typed(dict[str, _PlainStats], folder / SCORES_FILE, "run", _AGAIN)
    return {dataset: DatasetStats(one.keys, np.asarray(one.stats, dtype=np.float64)) for dataset, one in plain.items()}


def describe_environment(device: torch.device, processes: int, attention: str | None) -> Environment:
    """The machine and the versions, as far as results can depend on them."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return Environment(
        device=f"{device.type}: {name}",
        processes=processes,
        attention=attention,
        python=platform.python_version(),
        versions={package: _version(package) for package in ("fast3d", "torch", "transformers", "accelerate")},
        git=_git_hash(),
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # fast3d run from a checkout
        return "not installed"


def _git_hash() -> str | None:
    """The commit of the checkout that this code runs from, "+" behind it where files differ; None outside one."""
    here = Path(__file__).parent
    try:
        # Installed inside somebody else's checkout, this file is not part of it.
        # Nor may that checkout's settings have git start a program of theirs.
        git = ["git", "-c", "core.fsmonitor=false", "-C", str(here)]
        tracked = [*git, "ls-files", "--error-unmatch", Path(__file__).name]
        subprocess.run(tracked, capture_output=True, timeout=10, check=True)
        described = subprocess.run(
            [*git, "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
