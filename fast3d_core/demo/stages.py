"""The stages of `fast3d demo`: each is a command that a user could type, and what the scores are compared with."""

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fast3d_core.config import NAME, load_config
from fast3d_core.demo import MEASURED, demo_folder, ensure_demo, stamp
from fast3d_core.demo.release import config_text
from fast3d_core.demo.workspace import workspace
from fast3d_core.demo.world import MEASURES, ceiling
from fast3d_core.evaluation.result import load_result

# The methods that the demo shows, by what they are given.
_UNPRUNED, _BUDGETED, _WITH_ALPHA = ("vanilla",), ("random", "fastv", "gap"), ("sap",)

# These suit 2,000 samples and a text encoder without pretraining.
_TRAINING = ("--epochs", "12", "--batch-size", "32", "--text-lr", "8e-4")

Bounds = dict[str, dict[str, dict[str, float]]]
"""task -> answerer -> metric -> percent, see `ceiling`."""


@dataclass(frozen=True)
class DemoOptions:
    """What the demo does.

    Attributes:
        samples: of each of the five tasks.
        everything: prune 35 and 65 percent, too, not only 90.
        from_scratch: also extract the LLM's attention and train a GAP network on it.
    """

    samples: int = 100
    everything: bool = False
    from_scratch: bool = False


@dataclass(frozen=True)
class DemoStage:
    """A command of the demo: what it is for, and its arguments behind `fast3d`."""

    title: str
    arguments: list[str]


@contextlib.contextmanager
def demo_workspace(
    folder: Path, options: DemoOptions, *, restart: bool = False, log: Callable[[str], None] = lambda _: None
) -> Iterator[None]:
    """The folder in which the stages run, and the demo's files, written where they are not there; see `workspace`."""
    files = demo_folder()
    ensure_demo(files, log)
    made_by = {"samples": options.samples, "from_scratch": options.from_scratch, "demo": stamp()}
    with workspace(folder, made_by, config_text(files, own_gap=options.from_scratch), restart=restart):
        yield


def demo_stages(options: DemoOptions) -> list[DemoStage]:
    """The commands, in order."""
    limited = ["--limit", str(options.samples), "--no-meteor"]
    presets = (35, 65, 90) if options.everything else (90,)
    budgets = [word for preset in presets for word in ("--preset", str(preset))]
    stages: list[DemoStage] = []
    if options.from_scratch:
        stages += [
            DemoStage("extract the LLM's attention", ["extract", "--split", "all"]),
            DemoStage("train GAP on it", ["train-gap", *_TRAINING, "--resume"]),
        ]
    stages += [
        DemoStage("predict the attention", ["predict"]),
        DemoStage("answer unpruned", ["eval", *_named(_UNPRUNED), *limited]),
        DemoStage(f"prune {', '.join(map(str, presets))}%", ["eval", *_named(_BUDGETED), *budgets, *limited]),
    ]
    for preset in presets:
        stages += [
            DemoStage(f"find SAP's alpha for {preset}%", ["search-alpha", "--target", str(preset)]),
            DemoStage(f"prune ~{preset}%, each sample as far as it bears", ["eval", *_named(_WITH_ALPHA), *limited]),
        ]
    return [*stages, DemoStage("compare", ["report"])]


def _named(methods: tuple[str, ...]) -> list[str]:
    return [word for method in methods for word in ("--method", method)]


def demo_bounds(samples: int) -> Bounds:
    """What the scores of the first `samples` samples of each task are to be compared with."""
    return ceiling(load_config(demo_folder() / NAME).data.annotations, samples)


def exact_matches(runs: Path) -> dict[str, float | None]:
    """ScanQA's exact match of each run, in percent: its headline, BLEU-4, does not see answers of one word."""
    found = {}
    for path in sorted(runs.glob("*/result.json")):
        result = load_result(path.parent)
        value = result.metrics[MEASURES["scanqa"]]
        found[result.name] = None if value is None else 100 * value
    return found


def measured() -> dict[str, Any] | None:
    """The report of the release's own measurement, where one is there."""
    return json.loads(MEASURED.read_text(encoding="utf-8")) if MEASURED.exists() else None
