"""What was asked: whether questions can be scored, are worded as usual, and were all answered, each once."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fast3d_core.benchmarks import Origin, References, Score, benchmark
from fast3d_core.benchmarks.questions import annotation_file, load_samples
from fast3d_core.data.annotations import Sample
from fast3d_core.errors import DataError


def score_nothing(samples: Sequence[Sample], references: References) -> Score:
    """The score of empty answers to questions of one dataset, at least one: seconds at full size.

    What it is for is the `DataError` where they cannot be scored: it names annotation file, record and field, before a
    run of hours. METEOR is left out.
    """
    asked = benchmark(samples[0].dataset)
    path = asked.file(references.annotations, references.split)
    origin = Origin(str(path), [sample.index for sample in samples])
    records = [sample.record("") for sample in samples]
    return asked.score(records, references, meteor=False, part=True, origin=origin)


def check_references(samples: Mapping[str, Sequence[Sample]], annotations: Path) -> None:
    """Raises `DataError` where the questions of a dataset cannot be scored, see `score_nothing`."""
    references = References(annotations)
    for asked in samples.values():
        if asked:
            score_nothing(asked, references)


def wording_notes(samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """Says how many questions lack the ending that they have in Chat-Scene's files."""
    notes = []
    for dataset, asked in samples.items():
        wording = benchmark(dataset).wording
        if other := sum(not wording.is_usual(sample.prompt) for sample in asked):
            notes.append(
                f'{dataset}: {other} of {len(asked)} questions do not end with "{wording.ending.strip()}", as those '
                "that the model was trained on and published scores are for; its answers may be long sentences."
            )
    return notes


def compare(dataset: str, records: Sequence[Mapping[str, Any]], annotations: Path) -> list[str]:
    """Says which questions the records repeat or leave out, by the dataset's annotation file where that is there.

    The records' scores are what they are, as the published scorers count whatever they get.
    """
    given, path = Counter(map(_question, records)), annotation_file(annotations, dataset)
    try:
        expected = Counter(_question(sample.record("")) for sample in load_samples(annotations, dataset))
    except DataError as error:
        unseen = [f"{dataset}: whether a question is missing was not looked at: {error}"] if path.exists() else []
        return unseen + _repeated(dataset, given, Counter(set(given)))
    if given and not given.keys() & expected.keys():
        other = (
            f"{dataset}: no record asks a question in the words of {path.name} ({len(records)} records, "
            f"{expected.total()} questions), so whether one is missing was not looked at."
        )
        return [other, *_repeated(dataset, given, Counter(set(given)))]
    notes = _repeated(dataset, given, expected)
    if unknown := sum(count for question, count in given.items() if question not in expected):
        notes.append(f"{dataset}: {unknown} of {len(records)} records are of questions that are not in {path.name}.")
    if missing := (expected - given).total():
        notes.append(
            f"{dataset}: {missing} of the {expected.total()} questions in {path.name} are missing: no record answers "
            "them, and they do not count."
        )
    return notes


def _repeated(dataset: str, given: Counter[tuple[str, ...]], expected: Counter[tuple[str, ...]]) -> list[str]:
    again = sum(count - expected[question] for question, count in given.items() if count > expected[question] > 0)
    if not again:
        return []
    how = benchmark(dataset).repeated
    return [
        f"{dataset}: {again} of {given.total()} records repeat a question, as where the last batch of several GPUs is "
        f"filled up; as published, {how}, so the scores are not those of {given.total() - again} questions."
    ]


def _question(record: Mapping[str, Any]) -> tuple[str, ...]:
    """What distinguishes the questions of one dataset."""
    return tuple(str(record.get(name)) for name in ("scene_id", "gt_id", "prompt"))
