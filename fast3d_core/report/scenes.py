"""The scene browser's data: rooms, questions about them, and what each run answered and kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fast3d_core.benchmarks import References, benchmark, benchmark_names
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import Config, need_path
from fast3d_core.data.annotations import Sample, load_labels, load_locations
from fast3d_core.errors import DataError
from fast3d_core.evaluation.result import Result
from fast3d_core.files.fingerprints import fingerprint
from fast3d_core.maps.published import map_file
from fast3d_core.mentions import mentioned
from fast3d_core.pruning import METHODS
from fast3d_core.pruning.sap import sorted_mass
from fast3d_core.report.answers import Answered, Answers, judge, units_of
from fast3d_core.report.attention import logits_to_show
from fast3d_core.report.remarks import Remarks
from fast3d_core.report.runs import Run

QUESTIONS = 5  # of a dataset in a scene; published scenes have more than fifty
_MILLIMETRES = 3  # digits of a metre


@dataclass(frozen=True)
class AnswerView:
    """What a run answered to a question.

    Attributes:
        run: position in `Browser.runs`.
        score: of this answer alone, 0 to 1, by `Benchmark.judge`; null where it cannot be computed.
        kept: object slots kept, as in `Answered`; named: object slots that the answer names.
    """

    run: int
    text: str
    score: float | None
    kept: list[int] | None
    named: list[int]


@dataclass(frozen=True)
class QuestionView:
    """A question about a scene.

    Attributes:
        index: in the dataset's annotations.
        expected: the reference answers; null where the objects asked for are the answer.
        targets: (n, 6) true boxes of the objects asked for; empty where the benchmark names none.
        order: object slots by predicted attention, the largest first; mass: what the first 1, 2, ... of them hold
            together, float32. Null without a predicted map.
    """

    dataset: str
    index: int
    prompt: str
    expected: list[str] | None
    targets: list[list[float]]
    order: list[int] | None
    mass: list[float] | None
    answers: list[AnswerView]


@dataclass(frozen=True)
class SceneView:
    """A room: names and boxes (n, 6), centre and size in metres, of its detected objects, and questions about it."""

    id: str
    labels: list[str]
    boxes: list[list[float]]
    questions: list[QuestionView]


@dataclass(frozen=True)
class RunView:
    """A run in the browser, with what the slider needs.

    Attributes:
        alpha: by dataset, of methods whose rule is "share"; layer, keep: K and number of objects, where it is "rank".
        pruning_layers: the part of all layers in which pruned objects are missing then, 1 - K / layers.
    """

    name: str
    method: str | None
    alpha: dict[str, float] | None = None
    layer: int | None = None
    keep: int | None = None
    pruning_layers: float | None = None


@dataclass(frozen=True)
class Browser:
    """Everything that the scene browser shows; `slots` is the number of object slots in a prompt."""

    slots: int
    runs: list[RunView]
    scenes: list[SceneView]


def build_browser(
    config: Config, runs: Sequence[Run], answers: Mapping[str, Answers], scenes: int, remarks: Remarks
) -> Browser:
    """The scene browser of the runs that have answers to the config's questions; `remarks` gets to know what it lacks.

    Args:
        answers: by the run's name.
        scenes: how many at most: those with the most answers, of these the first `QUESTIONS` questions of each dataset.

    Raises `DataError` when annotations or boxes are missing or damaged.
    """
    folder, slots = need_path(config, "data.annotations"), config.data.max_objects
    shown = _comparable(runs, answers, folder, remarks)
    asked = Counter(key for run in shown for key in answers[run.name])
    samples: dict[str, list[Sample]] = {
        d: load_samples(folder, d) for d in benchmark_names() if any(d == dataset for dataset, _ in asked)
    }
    chosen = _choose(asked, samples, scenes, remarks)
    masses = _masses(config, samples, chosen, shown, remarks)
    labels = load_labels(folder, "val", chosen, slots)
    boxes = load_locations(folder, "val", chosen, slots)
    references = References(folder)

    def question(sample: Sample) -> QuestionView:
        key, objects = (sample.dataset, sample.index), len(labels[sample.scene_id])
        given = [(number, answers[run.name].get(key)) for number, run in enumerate(shown)]
        order, mass = masses.get(key, (None, None))
        answered = [_answer(number, one, sample, references, objects) for number, one in given if one]
        return _question(sample, order, mass, references, answered)

    views = [
        SceneView(
            id=scene,
            labels=labels[scene],
            boxes=[rounded(box) for box in boxes[scene][: len(labels[scene])].tolist()],
            questions=[question(sample) for sample in found],
        )
        for scene, found in chosen.items()
    ]
    return Browser(slots, [_run_view(run) for run in shown], views)


def _comparable(runs: Sequence[Run], answers: Mapping[str, Answers], folder: Path, remarks: Remarks) -> list[Run]:
    """The runs that answered the questions in `folder`."""
    shown = []
    prints: dict[str, str | None] = {}
    for run in runs:
        if not answers[run.name]:
            remarks.add(f"{run.name} has no answers by sample, so the scene browser leaves it out")
            continue
        for dataset in {dataset for dataset, _ in answers[run.name]}:
            path = annotation_file(folder, dataset)
            if path.name not in prints:
                prints[path.name] = fingerprint(path) if path.is_file() else None
            if _file_print(run.result, path.name) != prints[path.name]:
                remarks.add(f"{run.name} answered other questions than {path} has; the scene browser leaves it out")
                break
        else:
            shown.append(run)
    return shown


def _file_print(result: Result, name: str) -> str | None:
    files = result.settings.get("files")
    return files.get(name) if isinstance(files, dict) else None


def _choose(
    asked: Mapping[tuple[str, int], int], samples: Mapping[str, list[Sample]], scenes: int, remarks: Remarks
) -> dict[str, list[Sample]]:
    """The scenes to show, by name, and the questions about each. `asked` says how many runs answered a question."""
    by_scene: Counter[str] = Counter()
    for (dataset, index), times in asked.items():
        if index >= len(samples[dataset]):
            raise DataError(
                f"a journal has an answer to question {index} of {dataset}, which has {len(samples[dataset])}"
            )
        by_scene[samples[dataset][index].scene_id] += times
    names = sorted(sorted(by_scene, key=lambda scene: (-by_scene[scene], scene))[:scenes])
    chosen = {
        scene: [
            sample
            for dataset, found in samples.items()
            for sample in [s for s in found if s.scene_id == scene and (dataset, s.index) in asked][:QUESTIONS]
        ]
        for scene in names
    }
    total = sum(map(len, chosen.values()))
    if len(asked) > total:
        remarks.add(
            f"the scene browser holds {len(chosen)} of {len(by_scene)} scenes, {total} of {len(asked)} questions: the "
            f"scenes with most answers, in each the first {QUESTIONS} of a dataset; --scenes N takes more or fewer"
        )
    return chosen


def _masses(
    config: Config,
    samples: Mapping[str, list[Sample]],
    chosen: Mapping[str, list[Sample]],
    runs: Sequence[Run],
    remarks: Remarks,
) -> dict[tuple[str, int], tuple[list[int], list[float]]]:
    """`QuestionView.order` and `QuestionView.mass` of the chosen questions that have a predicted map."""
    folder, found = config.maps.predicted, {}
    for dataset, everything in samples.items():
        path = map_file(folder, dataset)
        if not path.exists():
            what = f"{folder} has no predicted maps (make them with `fast3d predict`)"
            remarks.add(f"{what}, so the scene browser shows no attention and has no slider", dataset)
            continue
        try:
            maps = logits_to_show(config, dataset, len(everything))
        except DataError as error:
            remarks.add(f"the scene browser shows no attention: {error}", dataset)
            continue
        shown = fingerprint(path)
        for run in runs:
            if _file_print(run.result, path.name) not in (None, shown):
                remarks.add(f"{run.name} followed other maps than those in {folder}, which are shown", dataset)
        for sample in (sample for questions in chosen.values() for sample in questions if sample.dataset == dataset):
            scores = maps[sample.index].logits()
            # str gives the fewest digits that a float32 is read back from, so the browser compares what SAP compares.
            mass = [float(str(value)) for value in sorted_mass(scores).numpy()]
            found[dataset, sample.index] = scores.argsort(descending=True, stable=True).tolist(), mass
    return found


def _answer(run: int, given: Answered, sample: Sample, references: References, objects: int) -> AnswerView:
    named = [slot for slot in mentioned(given.text) if slot < objects]
    return AnswerView(run, given.text, judge(sample.dataset, sample.record(given.text), references), given.kept, named)


def _question(
    sample: Sample,
    order: list[int] | None,
    mass: list[float] | None,
    references: References,
    answers: list[AnswerView],
) -> QuestionView:
    expected = benchmark(sample.dataset).expected(sample)
    targets = _targets(sample, references)
    return QuestionView(sample.dataset, sample.index, sample.prompt, expected, targets, order, mass, answers)


def _targets(sample: Sample, references: References) -> list[list[float]]:
    ids = benchmark(sample.dataset).targets(sample)
    boxes = references.objects.scenes.get(sample.scene_id, ()) if ids else ()
    known = [boxes[i] for i in ids if isinstance(i, int) and 0 <= i < len(boxes)]
    return [rounded(box) for box in known if np.isfinite(box).all()]


def rounded(box: Sequence[float]) -> list[float]:
    """Metres, as the page has them."""
    return [round(float(number), _MILLIMETRES) for number in box]


def _run_view(run: Run) -> RunView:
    """Settings are those of the method's fields, see `fast3d_core.pruning`."""
    settings, method, pruning = run.result.settings, run.result.method, run.result.pruning
    alpha, layer = settings.get("alpha"), settings.get("layer")
    rule = METHODS[method].rule if method is not None and method in METHODS else None
    if rule == "share":
        by_dataset = alpha if isinstance(alpha, dict) else dict.fromkeys(benchmark_names(), alpha)
        return RunView(run.name, method, alpha={d: a for d, a in by_dataset.items() if isinstance(a, (int, float))})
    visual = units_of(run).visual
    if rule == "rank" and isinstance(layer, int) and pruning and pruning.kept_tokens < visual:
        # All samples keep alike, so the measured ratio is (1 - K / layers)(1 - kept / visual).
        part = pruning.ratio / 100 / (1 - pruning.kept_tokens / visual)
        return RunView(run.name, method, None, layer, round(pruning.kept_objects.p50), part)
    return RunView(run.name, method)
