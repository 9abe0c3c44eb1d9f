"""Tiny raw releases in the schemas of the real ones, with every field that these have, and boxes for them.

Each split has one scene of four ground-truth objects, unit cubes 3 m apart, and of these detected boxes:

    slot 0: object 1, shifted by 0.1 m, IoU 0.9 / 1.1
    slot 1: object 0, exact
    slot 2: object 2, shifted by 0.5 m, IoU 1 / 3
    slot 3: object 1, shifted by 0.3 m, IoU 0.7 / 1.3

Object 3 is detected by none.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch

TRAIN, VAL = "scene0000_00", "scene0011_00"
SCENES = {"train": TRAIN, "val": VAL}
UNDETECTED = {"train": "scene0005_00", "val": "scene0015_00"}  # in the ground truth alone

TRUE = [[3.0 * thing, 0, 0.5, 1, 1, 1] for thing in range(4)]
DETECTED = [[3.1, 0, 0.5, 1, 1, 1], [0, 0, 0.5, 1, 1, 1], [6.5, 0, 0.5, 1, 1, 1], [3.3, 0, 0.5, 1, 1, 1]]


def said(split: str, object_id: int, ann_id: int, description: str, **more: Any) -> dict[str, Any]:
    """A record of ScanRefer."""
    return {
        "scene_id": SCENES[split],
        "object_id": str(object_id),
        "object_name": "office_chair",
        "ann_id": str(ann_id),
        "description": description,
        "token": description.replace(".", " .").split(),
    } | more


def meant(split: str, objects: list[int], eval_type: str, description: str, **more: Any) -> dict[str, Any]:
    """A record of Multi3DRefer."""
    return {
        "scene_id": SCENES[split],
        "object_ids": objects,
        "object_name": "chair",
        "ann_id": 0,
        "eval_type": eval_type,
        "description": description,
        "token": description.split(),
    } | more


def asked(split: str, number: int, question: str, answers: list[str], **more: Any) -> dict[str, Any]:
    """A record of ScanQA."""
    return {
        "answers": answers,
        "object_ids": [2, 3],
        "object_names": ["chair", "chair"],
        "question": question,
        "question_id": f"{split}-{SCENES[split]}-{number}",
        "scene_id": SCENES[split],
    } | more


def situated(split: str, number: int, question: str, answers: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """A record of SQA3D's questions, and the one of its annotations."""
    place = {"scene_id": SCENES[split], "question_id": 220602000000 + number}
    situation = {"situation": "I face a desk.", "alternative_situation": ["A desk is near.", "I see a desk."]}
    rotation = {"_x": 0, "_y": 0, "_z": 0.0998, "_w": 0.995}
    answered = [{"answer": answer, "answer_confidence": "yes", "answer_id": i + 1} for i, answer in enumerate(answers)]
    annotation = {"answer_type": "other", "question_type": "N/A", "answers": answered}
    position = {"x": -0.9651003385573296, "y": -1.2417634435553606, "z": 0}
    return (
        place | situation | {"question": question},
        place | annotation | {"rotation": rotation, "position": position},
    )


def scanrefer(split: str) -> list[dict[str, Any]]:
    return [
        said(split, 1, 0, "this is a brown chair. it is by the DESK!"),
        said(split, 0, 0, "a white chair"),
        said(split, 1, 1, "the chair.. it is brown . it has arms."),
        said(split, 2, 0, "a chair at the door."),
        said(split, 3, 0, "a chair on the left."),
        said(split, 7, 0, "a chair that nobody has scanned."),
        said(split, 0, 0, "a chair in another room.", scene_id=UNDETECTED[split]),
        said(split, 0, 1, ""),
    ]


def multi3drefer(split: str) -> list[dict[str, Any]]:
    return [
        meant(split, [], "zt_w_d", "a purple chair."),
        meant(split, [0], "st_wo_d", "the white chair?"),
        meant(split, [0, 1], "mt", "the chairs"),
        meant(split, [1, 2], "mt", "these chairs"),
        meant(split, [1, 1], "mt", "this chair twice"),
        meant(split, [9], "st_w_d", "no chair"),
        meant(split, [0], "st_w_d", "elsewhere", scene_id=UNDETECTED[split]),
    ]


def scanqa(split: str) -> list[dict[str, Any]]:
    return [
        asked(split, 0, "What color is the chair?", ["Dark Brown", "Dark Brown", "brown."]),
        asked(split, 1, "Where is the TV?", ["on the wall"], object_ids=[]),
        asked(split, 2, "How many?", []),
    ]


def sqa3d(split: str) -> tuple[dict[str, Any], dict[str, Any]]:
    pairs = [
        situated(split, 0, "What color is the desk?", ["brown"]),
        situated(split, 1, "Can I see the TV?", ["yes", "no"]),
        situated(split, 2, "  where is it?", ["left"]),
    ]
    _, lost = situated(split, 3, "", ["left"])
    head = {"info": {"version": "1.0"}, "license": {"name": "CC BY 4.0"}, "data_type": "scannet"}
    return (
        head | {"task_type": "Open-Ended", "questions": [question for question, _ in reversed(pairs)]},
        head | {"annotations": [*(annotation for _, annotation in pairs), lost]},
    )


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_boxes(folder: Path, split: str, true: dict[str, Any], detected: dict[str, Any]) -> None:
    """The published box files of a split, from boxes by scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, scenes in (("scannet", true), ("scannet_mask3d", detected)):
        content = {
            scene: {"objects": ["chair"] * len(boxes), "locs": torch.tensor(boxes, dtype=torch.float32)}
            for scene, boxes in scenes.items()
        }
        torch.save(content, folder / f"{name}_{split}_attributes.pt")


def write_releases(raw: Path, annotations: Path) -> None:
    """All raw releases, in folders as they unpack, and the published boxes."""
    for split, scene in SCENES.items():
        questions, answers = sqa3d(split)
        for name, content in (
            (f"ScanRefer/ScanRefer_filtered_{split}.json", scanrefer(split)),
            (f"multi3drefer_train_val/multi3drefer_{split}.json", multi3drefer(split)),
            (f"ScanQA/ScanQA_v1.0_{split}.json", scanqa(split)),
            (f"SQA3D/sqa_task/balanced/v1_balanced_questions_{split}_scannetv2.json", questions),
            (f"SQA3D/sqa_task/balanced/v1_balanced_sqa_annotations_{split}_scannetv2.json", answers),
        ):
            write_json(raw / name, content)
        write_boxes(annotations, split, {scene: TRUE, UNDETECTED[split]: TRUE}, {scene: DETECTED})


def write_labels(raw: Path) -> None:
    """The columns of ScanNet's label table that matter, among others."""
    rows = ["id\traw_category\tcategory\tnyu40id\tnyu40class", "2\toffice chair\tchair\t5\tchair"]
    (raw / "scannetv2-labels.combined.tsv").write_text("\n".join(rows) + "\n")


def only(raw: Path, *names: str) -> None:
    """Leaves only these folders of the releases."""
    for path in raw.iterdir():
        if path.name not in names:
            shutil.rmtree(path)
