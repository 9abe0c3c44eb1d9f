"""Matching by IoU, against a slow oracle that shares no code: each pair of boxes, one after the other, as published."""

import random

import pytest

from fast3d_core.benchmarks.questions import annotation_file
from fast3d_core.prepare import prepare
from tests.prepare.releases import meant, said, write_boxes, write_json


def iou(first, second):
    """Of two boxes, centre and size, axis by axis."""
    shared = volume_1 = volume_2 = 1.0
    for axis in range(3):
        (c1, s1), (c2, s2) = ((box[axis], box[3 + axis]) for box in (first, second))
        shared *= max(min(c1 + s1 / 2, c2 + s2 / 2) - max(c1 - s1 / 2, c2 - s2 / 2), 0)
        volume_1, volume_2 = volume_1 * s1, volume_2 * s2
    return shared / (volume_1 + volume_2 - shared + 1e-8)


def best_box(true, detected):
    best = -1.0, -1
    for slot, box in enumerate(detected):
        if iou(true, box) > best[0]:
            best = iou(true, box), slot
    return best


def captioned(true, detected, described):
    """{object: (slot, IoU)} by Scan2Cap's rule."""
    match = {}
    for slot, box in enumerate(detected):
        best, chosen = -1.0, -1
        for index in range(len(true)):
            if index in described and iou(true[index], box) > best:
                best, chosen = iou(true[index], box), index
        if chosen >= 0 and best > match.get(chosen, (-1, -1.0))[1]:
            match[chosen] = slot, best
    return match


def draw(rng):
    """True and detected boxes in steps of 1/4 m, exact in float32, so that ties and exact halves occur."""

    def box():
        return [rng.randrange(9) / 4 for _ in range(3)] + [rng.randrange(2, 6) / 4 for _ in range(3)]

    true = [box() for _ in range(rng.randrange(1, 9))]
    jittered = [[value + rng.choice((0, 0, 0, 0.25)) for value in one] for one in true]
    detected = [*rng.sample(jittered, rng.randrange(1, len(true) + 1)), *(box() for _ in range(rng.randrange(3)))]
    return true, detected


@pytest.mark.parametrize("split", ["train", "val"])
def test_against_the_oracle(split, tmp_path):
    rng = random.Random(0)
    rooms = {f"scene{number:04}_00": draw(rng) for number in range(150)}
    write_boxes(tmp_path, split, {s: t for s, (t, _) in rooms.items()}, {s: d for s, (_, d) in rooms.items()})
    referred, several = [], []
    for scene, (true, _) in rooms.items():
        chosen = sorted(rng.sample(range(len(true)), rng.randrange(1, len(true) + 1)))
        referred += [said(split, index, 0, f"thing {index}", scene_id=scene) for index in chosen]
        several.append(meant(split, chosen, "mt", "things", scene_id=scene))
    write_json(tmp_path / f"ScanRefer_filtered_{split}.json", referred)
    write_json(tmp_path / f"multi3drefer_{split}.json", several)
    prepared = prepare(tmp_path, tmp_path / "annotations", ["scanrefer", "multi3dref", "scan2cap"], [split])
    got = {
        dataset: prepared.contents[annotation_file(tmp_path / "annotations", dataset, split)]
        for dataset in ("scanrefer", "multi3dref", "scan2cap")
    }
    want = {"scanrefer": [], "multi3dref": [], "scan2cap": []}
    for entry in several:
        scene, chosen = entry["scene_id"], entry["object_ids"]
        true, detected = rooms[scene]
        best = [best_box(true[index], detected) for index in chosen]
        for index, (overlap, slot) in zip(chosen, best, strict=True):
            if split == "val":
                want["scanrefer"].append((scene, index, [f"<OBJ{slot:03}>."]))
            elif overlap >= 0.5:
                want["scanrefer"].append((scene, slot, f"<OBJ{slot:03}>."))
        slots = sorted(slot for _, slot in best)
        if split == "val":
            want["multi3dref"].append((scene, chosen))
        elif all(overlap >= 0.5 for overlap, _ in best) and len(set(slots)) == len(slots):
            want["multi3dref"].append((scene, slots))
        for index, (slot, overlap) in sorted(captioned(true, detected, chosen).items()):
            if split == "val" or overlap >= 0.5:
                want["scan2cap"].append((scene, index, slot, pytest.approx(overlap, abs=1e-12)))
    answer = "caption" if split == "train" else "ref_captions"
    assert [(one["scene_id"], one["obj_id"], one[answer]) for one in got["scanrefer"]] == want["scanrefer"]
    assert [(one["scene_id"], one["obj_id"], one["pred_id"], one["iou"]) for one in got["scan2cap"]] == want["scan2cap"]
    named = [(one["scene_id"], one[answer]) for one in got["multi3dref"]]
    if split == "train":
        named = [(scene, [int(word[:3]) for word in text.split("<OBJ")[1:]]) for scene, text in named]
    assert named == want["multi3dref"]
    assert all(len(records) > 15 for records in want.values())
