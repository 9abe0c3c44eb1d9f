"""The annotations folder: questions, features, boxes and references, and whether they are about the same things."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from fast3d_core.benchmarks import benchmark
from fast3d_core.benchmarks.base import ONE_RELEASE
from fast3d_core.benchmarks.questions import check_sample_features, check_sample_slots, on_detected_boxes
from fast3d_core.data.annotations import load_boxes, locations_file
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.doctor.case import Case
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.errors import DataError
from fast3d_core.evaluation.asked import score_nothing, wording_notes
from fast3d_core.mentions import mentioned_beyond


def questions(case: Case, dataset: str) -> Iterator[Finding]:
    """The questions of a dataset by themselves."""
    samples, objects = case.samples(dataset), case.config.data.max_objects
    qids = Counter(str(sample.qid) for sample in samples if sample.qid)
    if repeated := [qid for qid, count in qids.items() if count > 1]:
        yield warning(
            f"{dataset}: {len(repeated)} qids stand for several questions, {repeated[0][:40]!r} first",
            "was a file joined twice? repeated questions count twice",
        )
    for note in wording_notes({dataset: samples}):
        yield warning(
            note.rstrip("."), "add it to their prompts, as `fast3d prepare` does, unless the model was trained without"
        )
    for sample in samples:
        named = mentioned_beyond(sample.prompt)
        if named and max(named) >= objects:
            yield error(
                f"{dataset}: record {sample.index} asks about object {max(named)}, data.max_objects is {objects}",
                "raise data.max_objects, or take the annotations that fit it",
            )
            return
        if flaw := benchmark(dataset).flaw(sample, named):
            yield error(f"{dataset}: record {sample.index} {flaw}", ONE_RELEASE)
            return
    yield ok(f"{dataset}: {len(samples)} questions about {len({sample.scene_id for sample in samples})} scenes")


def features(case: Case) -> Iterator[Finding]:
    """Are there features of all scenes that are asked about, and are their numbers features?"""
    scenes, missing = case.scenes, 0
    for dataset in case.datasets:
        try:
            check_sample_features(scenes, case.samples(dataset))
        except DataError as problem:
            missing += 1
            yield error(str(problem), ONE_RELEASE)
    present = case.present  # reads them all; raises where one is not finite
    for name in present:
        scene = scenes[name]
        for file, numbers in ((FEATURES_3D, scene.features_3d), (FEATURES_2D, scene.features_2d)):
            if not numbers.any():
                yield error(f"{file}: all features of {name} are zero or missing", ONE_RELEASE)
                return
        if scene.features_3d.equal(scene.features_2d):
            yield error(f"{FEATURES_3D} and {FEATURES_2D} hold the same features for {name}", ONE_RELEASE)
            return
    if not missing:
        held, total = sum(int(slots.sum()) for slots in present.values()), len(present) * scenes.objects
        yield ok(f"features of {len(present)} scenes, for {held} of their {total} object slots")


def slots(case: Case) -> Iterator[Finding]:
    """Does slot i of a scene show its object i? Where `boxes` reads the file, too, that reports what is wrong with
    it."""
    scenes = case.scenes
    try:
        load_boxes(scenes.folder, "val")
    except DataError:
        if on_detected_boxes(case.datasets) or not locations_file(scenes.folder, "val").exists():
            return
        raise
    for dataset in case.datasets:
        check_sample_slots(scenes, case.samples(dataset))
    yield ok("slots show the objects of their numbers")


def boxes(case: Case) -> Iterator[Finding]:
    """Do the detected boxes count the objects that the features are of? `<OBJxxx>` names both by one number."""
    instances, objects = case.references.instances, case.config.data.max_objects
    counts = {name: len(instances.scenes[name]) for name in case.present if name in instances.scenes}
    slots = {name: int(case.present[name].nonzero().max()) + 1 for name in counts}
    fewer = [name for name in counts if counts[name] < slots[name]]
    if fewer:
        first = f"{fewer[0]} has {counts[fewer[0]]} boxes, and features up to object {slots[fewer[0]] - 1}"
        what = f"{instances.file} has fewer boxes than objects with features in {len(fewer)} of {len(counts)} scenes"
        # A few may be how they were detected; where it is most, the files are of different detections.
        yield (error if 2 * len(fewer) > len(counts) else warning)(f"{what}: {first}", ONE_RELEASE)
    if more := [name for name in counts if counts[name] > objects]:
        yield warning(
            f"{len(more)} scenes have more boxes than data.max_objects, {more[0]} has {counts[more[0]]}; "
            f"those from {objects} on can never be named",
            "raise data.max_objects if the checkpoint was trained on more",
        )
    for found in (instances, case.references.objects):
        wrong = [name for name in counts if not np.isfinite(found.scenes.get(name, np.zeros(0))).all()]
        if wrong:
            yield error(f"{found.file}: the boxes of {wrong[0]} hold NaN or infinity", ONE_RELEASE)
            return
    if not fewer:
        yield ok(f"{sum(counts.values())} detected boxes in {len(counts)} scenes, none missing for an object")


def references(case: Case, dataset: str) -> Iterator[Finding]:
    """Scores empty answers to all questions, so that a run of hours does not end with a reference that is missing."""
    samples = case.samples(dataset)
    scored = score_nothing(samples, case.references)
    if not len(scored.stats):
        yield warning(scored.notes[0].rstrip("."), "name a split with answers, or let eval write predictions alone")
        return
    measured = benchmark(dataset)
    # The demo's references are its own, no scores are published for them.
    for concern in measured.concerns(samples, case.references, published=not case.config.embedded):
        yield (error if concern.wrong else warning)(concern.what, concern.do)
        if concern.wrong:
            return
    yield ok(f"{dataset}: all questions can be scored{measured.described(samples, case.references)}")
