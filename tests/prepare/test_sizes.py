"""A release of another size than the real one is told, and taken all the same."""

from pathlib import Path

import pytest

from fast3d_core.prepare import prepare
from fast3d_core.prepare.raw import RawRecord
from fast3d_core.prepare.sizes import size_note
from tests.prepare.releases import write_releases


def records(count: int, scenes: int, objects: int = 1) -> list[RawRecord]:
    """So many records, of so many scenes and objects."""
    return [
        RawRecord(Path("f"), i, {"scene_id": f"scene{i % objects % scenes:04}_00", "object_id": i % objects // scenes})
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("dataset", "split", "sizes"),
    [
        ("scanrefer", "val", (9508, 141, 2068)), ("scan2cap", "val", (9508, 141, 2068)),
        ("scanqa", "val", (4675, 71, 71)), ("sqa3d", "val", (3261, 1)), ("scanqa", "train", (3, 1)),
        ("multi3dref", "val", (3, 1)),
    ],
)  # fmt: skip
def test_the_real_sizes_and_unknown_ones_are_not_told(dataset, split, sizes):
    assert size_note(dataset, split, Path("f"), records(*sizes)) is None


@pytest.mark.parametrize(
    ("dataset", "sizes", "told"),
    [
        ("scanrefer", (9507, 141, 2068), "9,507 descriptions, 2,068 objects, 141 scenes; the release has 9,508 "),
        ("scanrefer", (9508, 140, 2068), "9,508 descriptions, 2,068 objects, 140 scenes; the release has 9,508 "),
        ("scanrefer", (9508, 141, 2067), "9,508 descriptions, 2,067 objects, 141 scenes; the release has 9,508 "),
        ("scanqa", (4675, 70, 70), "4,675 questions, 70 scenes; the release has 4,675 questions, 71 scenes"),
        ("sqa3d", (3260, 1), "3,260 questions; the release has 3,261 questions. Is it cut"),
        ("sqa3d", (3519, 1), "3,261 questions, and its test split 3,519: an early release has the two swapped"),
    ],
)
def test_other_sizes_are(dataset, sizes, told):
    note = size_note(dataset, "val", Path("f"), records(*sizes))
    assert note.startswith("f has ") and told in note


def test_each_file_once_and_no_error(tmp_path):
    write_releases(tmp_path / "raw", tmp_path / "annotations")
    prepared = prepare(tmp_path / "raw", tmp_path / "annotations")
    told = [note for note in prepared.notes if "; the release has " in note]
    names = ("ScanRefer_filtered_val.json", "ScanQA_v1.0_val.json", "v1_balanced_sqa_annotations_val_scannetv2.json")
    assert len(told) == 3 and all(f"{name} has " in note for name, note in zip(names, told, strict=True))
    assert len(prepared.parts) == 10
