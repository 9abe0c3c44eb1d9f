"""What surrounds the commands that are killed: folders to begin with, a file server, a small demo.

The functions that are named by `Scenario.inside` are called in the process of a command, before it.
"""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from tests.conftest import MINIATURE
from tests.download.conftest import Server, zipped
from tests.prepare import releases
from tests.report.fabricate import bernoulli, make_run

# --- the folder to begin with


def miniature(work: Path) -> None:
    shutil.copytree(MINIATURE.parent, work, dirs_exist_ok=True)


def foreign_maps(work: Path) -> None:
    """Somebody else's maps under the names of those that are written."""
    miniature(work)
    for path in sorted((work / "outputs" / "infer_attn_maps").glob("*.pt")):
        (work / "m").mkdir(exist_ok=True)
        shutil.copy(path, work / "m")


def raw_releases(work: Path) -> None:
    releases.write_releases(work / "raw", work / "annotations")
    releases.write_labels(work / "raw")


def other_annotations(work: Path) -> None:
    raw_releases(work)
    for name in ("scanqa_val.json", "scan2cap_val_corpus.json", "scanrefer_mask3d_train.json"):
        (work / "annotations" / name).write_text("[1]")


def nothing(work: Path) -> None:
    pass


def settings_of_the_user(work: Path) -> None:
    (work / "to").mkdir()
    text = "# mine\ngap: {text_encoder: elsewhere, heads: 4}\ndata:\n  annotations: /data/annotations # old\n"
    (work / "to" / "fast3d.yaml").write_text(text)


def finished_runs(work: Path) -> None:
    """Of known scores: there is something to draw."""
    miniature(work)
    for number, (name, method, ratio) in enumerate([("vanilla", "vanilla", 0), ("g90", "gap", 90)]):
        make_run(work / "runs", name, method, {"scanqa": bernoulli(0.7, 20, number)}, ratio=ratio)


def demo_folder(work: Path, written: Path) -> None:
    """The small demo in the cache, for commands to use."""
    shutil.copytree(written, work / "cache" / "demo")


# --- between commands


def newer_features(work: Path) -> None:
    """What was converted is of an older release."""
    import torch

    for path in (work / "annotations").glob("*feats.pt"):
        torch.save({name: tensor * 2 for name, tensor in torch.load(path).items()}, path)


def other_checkpoint(work: Path) -> None:
    """Another network under the name of the first: its last layer's bias is moved."""
    import torch

    path = work / "gap" / "checkpoint_spatial.pth"
    content = torch.load(path, weights_only=True)
    weights = content["model_state_dict"]
    name = next(name for name in weights if name.endswith("out_head_attn.1.weight") or "out_head" in name)
    weights[name] = weights[name] * 1.5
    torch.save(content, path)


# --- the file server


ROBERTA = {"config.json": b"{}", "vocab.json": b"{}", "merges.txt": b"#", "model.safetensors": bytes(range(256)) * 50}
ANNOTATIONS = {"a__scanqa_val.json": b"[]", "a__scanqa_train.json": b"[ ]", "a__b__sqa3d_val.json": b"[1]"}


def serve(server: Server) -> None:
    from fast3d_core.download import ITEMS

    server.repos["models/FacebookAI/roberta-base"] = dict(ROBERTA)
    server.drive[ITEMS["annotations"].sources[1].id] = ("a.zip", zipped(**ANNOTATIONS))  # type: ignore[attr-defined]


def use_server(url: str) -> None:
    """Hugging Face's and Google Drive's places are taken by the server."""
    import sys

    import gdown  # noqa: F401 (its submodule is wanted)
    import requests
    from huggingface_hub import constants

    cache = Path.cwd().parent / "elsewhere"
    constants.ENDPOINT, constants.HF_HUB_CACHE = url, str(cache)
    constants.HUGGINGFACE_CO_URL_TEMPLATE = url + "/{repo_id}/resolve/{revision}/{filename}"
    get = requests.Session.get
    requests.Session.get = lambda self, link, **more: get(  # type: ignore[method-assign]
        self, link.replace("https://drive.google.com", url), **more
    )
    sys.modules["gdown.download"].DEFAULT_COOKIES_FILE = str(cache / "cookies.txt")  # type: ignore[attr-defined]
    cache.mkdir(exist_ok=True)


# --- the demo


def small_weights(folder: Path) -> Path:
    """What a training run of three steps leaves, with the shipped GAP network."""
    import torch

    from fast3d_core.demo import WEIGHTS
    from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
    from tests.demo.test_release import RECIPE, SHAPE
    from tools.demo.train_llm import Trainer, run, train_tokenizer

    folder.mkdir()
    train_tokenizer(folder, rooms=20)
    run(Trainer(SHAPE, RECIPE, ChatSceneTokenizer(folder), torch.device("cpu")), folder, folder, 5, 0, 100)
    for name in ("vocab.json", "merges.txt", "gap.safetensors"):
        shutil.copy(WEIGHTS / name, folder)
    return folder


def small_demo(weights: str) -> None:
    """The demo that gets written is small."""
    from fast3d_core.demo import release
    from tests.demo.test_release import TINY

    release.write_demo = partial(release.write_demo, weights=Path(weights), size=TINY)


# --- what a reader sees


def rows(stdout: str) -> dict[str, Any]:
    """What `report --json` or `search-alpha --json` tells, by run or dataset."""
    told = json.loads(stdout)
    return {row["name"]: row for row in told["rows"]} if "rows" in told else told["datasets"]
