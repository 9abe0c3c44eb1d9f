"""The scene browser's data: rooms, questions about them, and what each run answered and kept."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fast3d_core.config import DATASETS, Config, need_path
from fast3d_core.data.annotations import (
    ON_DETECTED_BOXES,
    Sample,
    annotation_file,
    load_labels,
    load_locations,
    load_samples,
)
from fast3d_core.data.settings import fingerprint
from fast3d_core.errors import DataError
from fast3d_core.evaluation.result import Result
from fast3d_core.gap.maps import load_maps, map_file
from fast3d_core.metrics import References
from fast3d_core.metrics.answers import object_ids
from fast3d_core.plan import TOKENS_PER_OBJECT
from fast3d_core.pruning.sap import sorted_mass
from fast3d_core.report.answers import Answers, judge
from fast3d_core.report.runs import Run

QUESTIONS = 5  # of a dataset in a scene; published scenes have more than fifty
_MILLIMETRES = 3  # digits of a metre


@dataclass(frozen=True)
class Answer:
    """What a run answered to a question.

    Attributes:
        run: position in `Browser.runs`.
        score: of this answer alone, 0 to 1, by the metric in `JUDGED_BY`; null where it cannot be computed.
        kept: object slots kept, as in `Answered`; named: object slots that the answer names.
    """

    run: int
    text: str
    score: float | None
    kept: list[int] | None
    named: list[int]


@dataclass(frozen=True)
class Question:
    """A question about a scene.

    Attributes:
        index: in the dataset's annotations.
        expected: the reference answers.
        targets: (n, 6) true boxes of the objects asked for; empty where the benchmark names none.
        order: object slots by predicted attention, the largest first; mass: what the first 1, 2, ... of them hold
            together, float32. Null without a predicted map.
    """

    dataset: str
    index: int
    prompt: str
    expected: list[str]
    targets: list[list[float]]
    order: list[int] | None
    mass: list[float] | None
    answers: list[Answer]


@dataclass(frozen=True)
class SceneView:
    """A room: names and boxes (n, 6), centre and size in metres, of its detected objects, and questions about it."""

    id: str
    labels: list[str]
    boxes: list[list[float]]
    questions: list[Question]


@dataclass(frozen=True)
class RunView:
    """A run in the browser, with what the slider needs.

    Attributes:
        alpha: SAP's, by dataset; layer, keep: GAP's K and number of objects.
        pruning_layers: the part of all layers in which GAP's pruned objects are missing, 1 - K / layers.
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
    config: Config, runs: Sequence[Run], answers: Mapping[str, Answers], scenes: int
) -> tuple[Browser, list[str]]:
    """The scene browser of the runs that have answers to the config's questions, and notes on what it lacks.

    Args:
        answers: by the run's name.
        scenes: how many at most: those with the most answers, of these the first `QUESTIONS` questions of each dataset.

    Raises `DataError` when annotations or boxes are missing or damaged.
    """
    folder, slots = need_path(config, "data.annotations"), config.data.max_objects
    shown, notes = _comparable(runs, answers, folder)
    datasets = [d for d in DATASETS if any(d == dataset for run in shown for dataset, _ in answers[run.name])]
    samples = {dataset: load_samples(folder, dataset) for dataset in datasets}
    asked = {
        key for run in shown for key in answers[run.name] if key[0] in samples and 0 <= key[1] < len(samples[key[0]])
    }
    by_scene = Counter(
        samples[dataset][index].scene_id
        for run in shown
        for dataset, index in answers[run.name]
        if (dataset, index) in asked
    )
    chosen = sorted(sorted(by_scene, key=lambda scene: (-by_scene[scene], scene))[:scenes])
    questions = {scene: _first(scene, samples, asked) for scene in chosen}
    masses = {
        dataset: _masses(
            config,
            dataset,
            len(samples[dataset]),
            [sample.index for found in questions.values() for sample in found if sample.dataset == dataset],
            shown,
            notes,
        )
        for dataset in datasets
    }
    labels = load_labels(folder, "val", chosen, slots)
    boxes = load_locations(folder, "val", chosen, slots)
    references = References(folder)
    views = [
        SceneView(
            scene,
            labels[scene],
            [_rounded(box) for box in boxes[scene][: len(labels[scene])].tolist()],
            [
                _question(sample, masses[sample.dataset], shown, answers, references, len(labels[scene]))
                for sample in questions[scene]
            ],
        )
        for scene in chosen
    ]
    total = sum(map(len, questions.values()))
    if len(asked) > total:
        notes.append(
            f"the scene browser holds {len(chosen)} of {len(by_scene)} scenes, {total} of {len(asked)} questions: the "
            f"scenes with most answers, in each the first {QUESTIONS} of a dataset; --scenes N takes more or fewer"
        )
    return Browser(slots, [_run_view(run, slots) for run in shown], views), notes


def _comparable(runs: Sequence[Run], answers: Mapping[str, Answers], folder: Path) -> tuple[list[Run], list[str]]:
    """The runs that answered the questions in `folder`, and a note for each of the others."""
    shown, notes = [], []
    prints: dict[str, str | None] = {}
    for run in runs:
        if not answers[run.name]:
            notes.append(f"{run.name} has no answers by sample, so the scene browser leaves it out")
            continue
        for dataset in {dataset for dataset, _ in answers[run.name]}:
            path = annotation_file(folder, dataset)
            if path.name not in prints:
                prints[path.name] = fingerprint(path) if path.is_file() else None
            if _file_print(run.result, path.name) != prints[path.name]:
                notes.append(f"{run.name} answered other questions than {path} has; the scene browser leaves it out")
                break
        else:
            shown.append(run)
    return shown, notes


def _file_print(result: Result, name: str) -> str | None:
    files = result.settings.get("files")
    return files.get(name) if isinstance(files, dict) else None


def _first(scene: str, samples: Mapping[str, list[Sample]], asked: set[tuple[str, int]]) -> list[Sample]:
    """The first `QUESTIONS` questions of each dataset about a scene."""
    return [
        sample
        for dataset, found in samples.items()
        for sample in [s for s in found if s.scene_id == scene and (dataset, s.index) in asked][:QUESTIONS]
    ]


Masses = Mapping[int, tuple[list[int], list[float]]]
"""Sample index -> `Question.order` and `Question.mass`."""


def _masses(
    config: Config, dataset: str, total: int, indices: Sequence[int], runs: Sequence[Run], notes: list[str]
) -> Masses:
    """Of some of a dataset's `total` samples; none where there are no maps. Notes say so, and which runs had others."""
    folder = config.maps.predicted
    path = map_file(folder, dataset)
    if not path.exists():
        notes.append(
            f"{dataset}: {folder} has no predicted maps (make them with `fast3d predict`), so the scene browser "
            "shows no attention and has no slider"
        )
        return {}
    try:
        maps = load_maps(folder, dataset, total, objects=config.data.max_objects, what="maps.predicted")
    except DataError as error:
        notes.append(f"{dataset}: the scene browser shows no attention: {error}")
        return {}
    now = fingerprint(path)
    for run in runs:
        if _file_print(run.result, path.name) not in (None, now):
            notes.append(f"{dataset}: {run.name} followed other maps than those in {folder}, which are shown")
    masses = {}
    for i in indices:
        order = maps[i].argsort(descending=True, stable=True).tolist()
        # str gives the fewest digits that a float32 is read back from, so the browser compares what SAP compares.
        masses[i] = order, [float(str(value)) for value in sorted_mass(maps[i]).numpy()]
    return masses


def _question(
    sample: Sample,
    masses: Masses,
    runs: Sequence[Run],
    answers: Mapping[str, Answers],
    references: References,
    objects: int,
) -> Question:
    order, mass = masses.get(sample.index, (None, None))
    key = sample.dataset, sample.index
    given = [(position, answers[run.name].get(key)) for position, run in enumerate(runs)]
    return Question(
        dataset=sample.dataset,
        index=sample.index,
        prompt=sample.prompt,
        expected=[] if sample.dataset == "multi3dref" else [str(text) for text in sample.ref_captions],
        targets=_targets(sample, references),
        order=order,
        mass=mass,
        answers=[
            Answer(
                position,
                answer.text,
                judge(sample.dataset, sample.record(answer.text), references),
                answer.kept,
                [slot for slot in object_ids(answer.text) if slot < objects],
            )
            for position, answer in given
            if answer is not None
        ],
    )


def _targets(sample: Sample, references: References) -> list[list[float]]:
    if sample.dataset not in ON_DETECTED_BOXES:
        return []
    boxes = references.objects.scenes.get(sample.scene_id, ())
    ids = sample.ref_captions if sample.dataset == "multi3dref" else (sample.obj_id,)
    return [_rounded(boxes[i]) for i in ids if isinstance(i, int) and 0 <= i < len(boxes)]


def _rounded(box: Sequence[float]) -> list[float]:
    return [round(float(number), _MILLIMETRES) for number in box]


def _run_view(run: Run, slots: int) -> RunView:
    """Settings are those of the method's fields, see `fast3d_core.pruning`."""
    settings, method, pruning = run.result.settings, run.result.method, run.result.pruning
    alpha, layer = settings.get("alpha"), settings.get("layer")
    if method == "sap" and alpha is not None:
        by_dataset = alpha if isinstance(alpha, dict) else dict.fromkeys(DATASETS, alpha)
        return RunView(run.name, method, alpha={str(dataset): float(one) for dataset, one in by_dataset.items()})
    visual = TOKENS_PER_OBJECT * slots
    if method == "gap" and layer is not None and pruning and pruning.kept_tokens < visual:
        # All samples keep alike, so the measured ratio is (1 - K / layers)(1 - kept / visual).
        part = pruning.ratio / 100 / (1 - pruning.kept_tokens / visual)
        return RunView(run.name, method, None, layer, round(pruning.kept_objects.p50), part)
    return RunView(run.name, method)
