"""Worlds in the released annotation formats, and what can be scored on them without a model."""

import contextlib
import os
import random
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fast3d_core.benchmarks import References, benchmark, score
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.config import DATASETS
from fast3d_core.data.annotations import TYPE, Sample, locations_file
from fast3d_core.data.features import FEATURES_2D, FEATURES_3D
from fast3d_core.demo.detection import Detection, best_slots, detect
from fast3d_core.demo.features import features, object_codes
from fast3d_core.demo.questions import Question, answer_ids, draw_question
from fast3d_core.demo.rooms import KINDS, Room, draw_size, make_room
from fast3d_core.errors import UsageError
from fast3d_core.files.files import atomic_path, load_json, load_torch, write_json
from fast3d_core.mentions import mention
from fast3d_core.runtime.draws import seed_of

SPLITS = {"train": "train", "val": "val", "test": "val"}
"""A split and the name that its files have: `eval` reads val, so the test split takes a folder of its own."""

_Records = dict[str, list[dict[str, Any]]]
_Stored = dict[str, dict[str, Any]]
"""The content of each file that is not a list of questions, by its role."""

_ROLES = ("3d", "2d", "detected", "true", "corpus", "lookup")

_TRIES = 20  # questions drawn for each one that is wanted, before a room is left


def room_rng(seed: int, split: str, index: int) -> np.random.Generator:
    """The random generator of a split's room; all of the room and its questions comes from it."""
    return np.random.default_rng(seed_of("demo", seed, split, index) % 2**64)


def write_world(
    folder: Path, split: str, rooms: int, questions_a_task: int, seed: int, processes: int | None = None
) -> None:
    """Writes `rooms` rooms with `questions_a_task` questions of each task, spread over the rooms.

    Train and val go to one folder, test to another. Features of scenes that the folder already has are kept. Rooms
    have 20 to 100 things. `processes` share the work, which takes about 20 ms a room; None: no others are started.
    Raises `UsageError` for an unknown split or a number of rooms that is not positive.
    """
    if split not in SPLITS or rooms < 1:
        raise UsageError(f"a world needs a split among {', '.join(SPLITS)} and at least one room, not {split}, {rooms}")
    stored: _Stored = {name: {} for name in _ROLES}
    shares = [questions_a_task * (i + 1) // rooms - questions_a_task * i // rooms for i in range(rooms)]
    by_room: dict[str, list[list[dict[str, Any]]]] = {task: [] for task in DATASETS}
    os.environ.setdefault("PYTHONSAFEPATH", "1")  # where processes are not forked, Python is started for each
    with contextlib.ExitStack() as stack:
        many = stack.enter_context(ProcessPoolExecutor(processes)).map if processes else map
        chunk = {"chunksize": 16} if processes else {}
        for own_records, own_stored in many(partial(_draw_room, split, seed), range(rooms), shares, **chunk):
            for task, questions_of_room in own_records.items():
                by_room[task].append(questions_of_room)
            for name, content in own_stored.items():
                stored[name] |= content
    records = {}
    for task, lists in by_room.items():
        if split == "train":  # room after room, so that extraction reads each one once
            records[task] = [record for questions_of_room in lists for record in questions_of_room]
        else:  # a question of each room, then another one, so that the first N are of as many rooms as can be
            rounds = zip_longest(*lists)
            records[task] = [record for one in rounds for record in one if record is not None]
    _write(folder, SPLITS[split], records, stored)


def _draw_room(split: str, seed: int, index: int, wanted: int) -> tuple[_Records, _Stored]:
    """The records and contents of a room with `wanted` questions of each task."""
    records: _Records = {task: [] for task in DATASETS}
    stored: _Stored = {name: {} for name in _ROLES}
    rng = room_rng(seed, split, index)
    room = make_room(rng, draw_size(rng), f"scene{index:04}_{list(SPLITS).index(split):02}")
    detection = detect(room, rng)
    _store_scene(stored, room, detection, features(object_codes(room), rng))
    for task in DATASETS:
        for question in questions(room, detection, rng, task, wanted):
            records[task].append(_record(room, detection, question, SPLITS[split]))
            if task == "scan2cap":
                stored["corpus"][f"{room.scene_id}|{question.obj_id}"] = list(question.refs)
    return records, stored


def questions(room: Room, detection: Detection, rng: np.random.Generator, task: str, wanted: int) -> list[Question]:
    """Up to `wanted` different questions; scan2cap describes a thing once."""
    found: dict[Any, Question] = {}
    for _ in range(_TRIES * wanted):
        if len(found) == wanted:
            break
        question = draw_question(room, detection, rng, task)
        if question:
            found.setdefault(question.obj_id if task == "scan2cap" else question.prompt, question)
    return list(found.values())


def _store_scene(stored: _Stored, room: Room, detection: Detection, pair: tuple[np.ndarray, np.ndarray]) -> None:
    labels = [KINDS[kind].name for kind in room.kinds]
    scene = room.scene_id
    for name, vectors in zip(("3d", "2d"), pair, strict=True):
        stored[name][scene] = vectors[detection.objects]
    for name, boxes, order in (
        ("detected", detection.boxes, detection.objects),
        ("true", room.boxes, np.arange(len(room))),
    ):
        locs = boxes.astype(np.float32)
        stored[name][scene] = {"objects": [labels[thing] for thing in order], "locs": locs}
    counts = Counter(labels)
    stored["lookup"][scene] = {str(thing): int(counts[label] > 1) for thing, label in enumerate(labels)}


def _record(room: Room, detection: Detection, question: Question, split: str) -> dict[str, Any]:
    record: dict[str, Any] = {"scene_id": room.scene_id, "obj_id": question.obj_id, "prompt": question.prompt}
    if question.dataset == "scan2cap":
        record |= {"pred_id": question.pred_id, "iou": float(detection.ious[question.obj_id])}
    if split == "train":
        return record | {"caption": question.answer}
    type_field = benchmark(question.dataset).type_field
    if type_field != TYPE:
        record[type_field] = question.type
    return record | {"ref_captions": list(question.refs)}


def _write(folder: Path, split: str, records: dict[str, list[dict[str, Any]]], stored: _Stored) -> None:
    for task, content in records.items():
        write_json(annotation_file(folder, task, split), content)
    for path, name in (
        (locations_file(folder, split), "detected"),
        (folder / f"scannet_{split}_attributes.pt", "true"),
    ):
        _save(path, {scene: {**one, "locs": torch.from_numpy(one["locs"])} for scene, one in stored[name].items()})
    for name, file in (("3d", FEATURES_3D), ("2d", FEATURES_2D)):
        known = load_torch(folder / file, "demo features") if (folder / file).exists() else {}
        for scene, vectors in stored[name].items():  # views of one tensor, which torch reads much faster
            known |= {f"{scene}_{slot:02}": row for slot, row in enumerate(torch.from_numpy(vectors))}
        _save(folder / file, known)
    if split != "train":
        write_json(folder / f"scan2cap_{split}_corpus.json", stored["corpus"])
    lookup = folder / "scanrefer_unique_multiple_lookup.json"
    known = load_json(lookup, "demo lookup") if lookup.exists() else {}
    write_json(lookup, known | stored["lookup"])


def _save(path: Path, content: Any) -> None:
    with atomic_path(path) as temporary:
        torch.save(content, temporary)


MEASURES = {task: benchmark(task).judge.key for task in DATASETS}
"""The metric of each task that the demo's goals are set in; ScanQA's headline, BLEU-4, is measured beside it."""


def ceiling(folder: Path, limit: int | None = None, seed: int = 0) -> dict[str, dict[str, dict[str, float]]]:
    """What the val files of a world, or the first `limit` samples of each, allow: {task: {answerer: {metric: %}}}.

    The answerers: `perfect` knows everything but the true boxes; `chance` names a random slot, or gives the answer to
    another question; `majority` gives the most common answer to every question.
    """
    references = References(folder)
    results: dict[str, dict[str, dict[str, float]]] = {}
    for task in DATASETS:
        samples = load_samples(folder, task)[:limit]
        perfect = [perfect_answer(sample, references) for sample in samples]
        answers = {"perfect": perfect, "chance": _guesses(task, samples, perfect, references, random.Random(seed))}
        answers["majority"] = [Counter(perfect).most_common(1)[0][0]] * len(samples)
        results[task] = {}
        for name, texts in answers.items():
            records = [sample.record(text) for sample, text in zip(samples, texts, strict=True)]
            metrics = score(task, records, references, meteor=False, part=limit is not None).metrics
            keys = dict.fromkeys((MEASURES[task], benchmark(task).headline.key))
            results[task][name] = {key: 100 * (metrics[key] or 0.0) for key in keys}
    return results


def perfect_answer(sample: Sample, references: References) -> str:
    """The answer that a model which has learnt everything gives: the first reference, in the training files' form."""
    if sample.dataset != "multi3dref":
        return str(sample.ref_captions[0])
    detected = references.instances.scenes[sample.scene_id]
    true = references.objects.scenes[sample.scene_id][list(sample.ref_captions)]
    return answer_ids(sorted(set(best_slots(detected, true)[0].tolist())))


def _guesses(
    task: str, samples: list[Sample], perfect: list[str], references: References, rng: random.Random
) -> list[str]:
    if task == "scanrefer":
        return [f"{mention(rng.randrange(len(references.instances.scenes[s.scene_id])))}." for s in samples]
    if task == "multi3dref":
        return [
            answer_ids(sorted(rng.sample(range(len(references.instances.scenes[sample.scene_id])), answer.count("<"))))
            for sample, answer in zip(samples, rng.sample(perfect, len(perfect)), strict=True)
        ]
    return rng.sample(perfect, len(perfect))
