"""The readers, and the files that they read."""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fast3d_core.asking.rooms import Rooms
from fast3d_core.benchmarks import References
from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS, load_config
from fast3d_core.convert import convert, plan_conversions
from fast3d_core.data.annotations import Scenes, load_locations
from fast3d_core.errors import Fast3DError
from fast3d_core.evaluation.found_alpha import found_alpha
from fast3d_core.evaluation.journal import Journal
from fast3d_core.evaluation.questions import Job, Questions
from fast3d_core.evaluation.run import evaluate
from fast3d_core.evaluation.scoring import score_folder
from fast3d_core.files.files import load_json
from fast3d_core.gap.checkpoint import load_gap
from fast3d_core.gap.text import QuestionTokenizer, load_text_encoder
from fast3d_core.llm.weights import load_llm, read_shape
from fast3d_core.maps.ledger import PREDICTED_FILE, check_folder, checkpoint_of
from fast3d_core.maps.targets import load_targets
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.prepare.boxes import Boxes
from fast3d_core.prepare.raw import Releases
from fast3d_core.pruning import Sap, Vanilla
from fast3d_core.report.build import build_report
from fast3d_core.report.html import build_page, to_html
from fast3d_core.report.render import to_csv, to_json, to_markdown
from fast3d_core.report.runs import load_runs
from fast3d_core.runtime.progress import Silent
from tests.maps.scores import load_maps

_LONGEST = 10.0  # seconds of a case, on a machine that others share
CPU = torch.device("cpu")
ANNOTATIONS = "annotations/"
PACKED = "packed/annotations/"


@dataclass(frozen=True)
class Reader:
    """A reader, the files that it reads, of which each case changes one, and how many cases there are."""

    name: str
    files: tuple[str, ...]
    read: Callable[[Path], Any]
    cases: int


def config(folder: Path, *overrides: str) -> Any:
    return load_config(folder / "fast3d.yaml", overrides)


def features(folder: Path) -> None:
    scenes = Scenes(folder / "annotations")
    for name in ("scene0015_00", "scene0025_00"):
        if name in scenes:
            _ = scenes[name]


def boxes(folder: Path) -> None:
    annotations = folder / "annotations"
    load_locations(annotations, "val", ["scene0015_00"])
    Rooms(annotations).objects("scene0015_00")
    references = References(annotations)
    _ = references.instances, references.objects
    Boxes(annotations, Releases(annotations), "val", 100).lack("scene0015_00", 0)


def lookups(folder: Path) -> None:
    references = References(folder / "annotations")
    _ = references.corpus, references.unique_multiple


def built_lookup(folder: Path) -> None:
    _ = References(folder / "metrics" / "annotations").unique_multiple


def maps(folder: Path) -> None:
    for place in ("pred_attn_maps", "infer_attn_maps"):
        load_maps(folder / "outputs" / place, "scanqa", 3)
        load_maps(folder / "outputs" / place, "scanqa")


def store(folder: Path) -> None:
    for layers in ("all", "1,2"):
        load_targets(config(folder), folder / "store", "val", "scanqa", 3, layers=layers)


def ledger(folder: Path) -> None:
    place = folder / "outputs" / "pred_attn_maps"
    checkpoint_of(place, "val", "scanqa")
    check_folder(place, [("val", "scanqa")])


QUESTIONS = ("Where is the brown chair?", "<s> \u3000")


def text_encoder(folder: Path) -> None:
    source = folder / "gap" / "roberta_tiny"
    QuestionTokenizer(source)(QUESTIONS)
    load_text_encoder(source)


def tokenizer(folder: Path) -> None:
    own = ChatSceneTokenizer(folder / "llm")
    for text in ("A chat between <OBJ012> and </s>the user.", "\u6771\u4eac \U0001f600 \x00"):
        own.decode(own.encode(text, bos=True))


def predictions(folder: Path) -> None:
    _, scores = score_folder(folder / "metrics" / "preds", folder / "metrics" / "annotations", meteor=False)
    for error in scores.errors.values():
        raise error


def journal(folder: Path) -> None:
    place = folder / "runs" / "vanilla"
    part = Journal(place, load_json(folder / "runs" / "other" / "settings.json", "run"))
    part.batches(), part.seconds(), part.next_session()
    if part.batches():  # else it is begun anew
        part.open()


def finished_run(folder: Path) -> None:
    """A run that is read back, or concluded again; it writes, but into its own folder alone."""
    settings = config(folder, *GREEDY)
    evaluate(settings, [Job("vanilla", Vanilla())], Questions(settings, ["scanqa"]), Silent(), meteor=False)


def converted(folder: Path) -> None:
    convert(plan_conversions(config(folder), to=folder / "converted"), Nobody())


class Nobody:
    """Is told how a conversion goes on."""

    def start(self, source: Path, stage: str, total: int) -> None: ...

    def advance(self) -> None: ...

    def done(self, source: Path) -> None: ...


def report(folder: Path) -> None:
    runs = load_runs([folder / "runs" / "vanilla", folder / "runs" / "other"])
    made = build_report(runs, resamples=100)
    to_json(made), to_markdown(made), to_csv(made)


def page(folder: Path) -> None:
    runs = load_runs([folder / "runs" / "vanilla", folder / "runs" / "other"])
    to_html(build_page(config(folder), runs, build_report(runs, resamples=100)))


def alpha(folder: Path) -> None:
    found = found_alpha(config(folder), ["scanqa"], folder / "outputs" / "pred_attn_maps", "a_map")
    if found is not None:
        Sap(found)


GREEDY = ("generation.beams=1", "generation.max_new_tokens=2", "data.datasets=[scanqa]")
READERS = [
    Reader("config", ("fast3d.yaml",), config, 300),
    Reader("samples", tuple(f"{ANNOTATIONS}{name}_val.json" for name in ("scanqa", "multi3dref_mask3d")),
           lambda folder: [load_samples(folder / "annotations", name) for name in ("scanqa", "multi3dref")], 400),
    Reader("features", tuple(f"{ANNOTATIONS}scannet_mask3d_{name}.pt" for name in ("uni3d_feats", "videofeats")),
           features, 150),
    Reader("packed features", tuple(f"{PACKED}scannet_mask3d_{name}.safetensors" for name in (
        "uni3d_feats", "videofeats")), lambda folder: features(folder / "packed"), 300),
    Reader("boxes", (f"{ANNOTATIONS}scannet_mask3d_val_attributes.pt", f"{ANNOTATIONS}scannet_val_attributes.pt"),
           boxes, 300),
    Reader("lookups", (f"{ANNOTATIONS}scan2cap_val_corpus.json", f"{ANNOTATIONS}scanrefer_unique_multiple_lookup.json"),
           lookups, 300),
    Reader("built lookup", ("metrics/annotations/scannet/scannetv2-labels.combined.tsv",
                            "metrics/annotations/scanrefer/ScanRefer_filtered.json"),
           built_lookup, 200),
    Reader("maps", tuple(f"outputs/{name}_attn_maps/infer_attn_maps_val_scanqa.pt" for name in ("pred", "infer")),
           maps, 300),
    Reader("store", ("store/store.json", "store/val_scanqa-00000.safetensors"), store, 300),
    Reader("ledger", (f"outputs/pred_attn_maps/{PREDICTED_FILE}",), ledger, 200),
    Reader("GAP", ("gap/checkpoint_spatial.pth", "gap/roberta_tiny/config.json"),
           lambda folder: load_gap(config(folder), CPU), 50),
    Reader("converted GAP", ("packed/checkpoint_spatial.safetensors",),
           lambda folder: load_gap(config(folder, f"gap.checkpoint={folder}/packed/checkpoint_spatial.safetensors"),
                                   CPU), 60),
    Reader("text encoder", tuple(f"gap/roberta_tiny/{name}" for name in (
        "config.json", "vocab.json", "merges.txt", "tokenizer_config.json", "model.safetensors")), text_encoder, 150),
    Reader("fast tokenizer", ("fast/tokenizer.json", "fast/tokenizer_config.json"),
           lambda folder: QuestionTokenizer(folder / "fast")(QUESTIONS), 150),
    Reader("Chat-Scene", ("ckpt_01_3446.pth",), lambda folder: load_checkpoint(folder / "ckpt_01_3446.pth", 4), 100),
    Reader("converted Chat-Scene", ("packed/ckpt_01_3446.safetensors",),
           lambda folder: load_checkpoint(folder / "packed" / "ckpt_01_3446.safetensors", 4), 150),
    Reader("tokenizer", ("llm/tokenizer.model",), tokenizer, 400),
    Reader("LLM's sizes", ("llm/config.json",), lambda folder: read_shape(folder / "llm"), 300),
    Reader("LLM", ("llm/config.json", "llm/model.safetensors"), lambda folder: load_llm(folder / "llm", torch.float32),
           60),
    Reader("LLM in shards", ("shards/config.json", "shards/pytorch_model.bin.index.json", "shards/one.bin"),
           lambda folder: load_llm(folder / "shards", torch.float32), 60),
    Reader("predictions", tuple(f"metrics/preds/preds_{dataset}.json" for dataset in DATASETS), predictions, 200),
    Reader("journal", ("runs/vanilla/settings.json", "runs/vanilla/part-000-00.jsonl"), journal, 250),
    Reader("report", ("runs/vanilla/result.json", "runs/vanilla/scores.json"), report, 300),
    Reader("page", ("runs/vanilla/result.json", "runs/vanilla/part-000-00.jsonl",
                    f"{ANNOTATIONS}scannet_mask3d_val_attributes.pt",
                    "outputs/pred_attn_maps/infer_attn_maps_val_scanqa.pt"), page, 100),
    Reader("alpha", ("runs/alpha.json",), alpha, 250),
]  # fmt: skip
WRITERS = [  # each by the folder that it writes to
    Reader("runs/vanilla", tuple(f"runs/vanilla/{name}" for name in ("part-000-00.jsonl", "result.json")),
           finished_run, 40),
    Reader("converted", (f"{ANNOTATIONS}scannet_mask3d_uni3d_feats.pt", "ckpt_01_3446.pth",
                         "gap/checkpoint_spatial.pth"),
           converted, 60),
]  # fmt: skip


def outcome(reader: Reader, folder: Path) -> str | None:
    """What the reader makes of the folder: None, or the line that it refuses it with."""
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(folder)
        line = None
    except Fast3DError as problem:
        line = str(problem)
    seconds = time.perf_counter() - begin
    assert seconds < _LONGEST, f"{reader.name} took {seconds:.1f} s"
    return line


def replace(path: Path, content: bytes) -> None:
    """Puts another file in the place of a link."""
    path.unlink()
    path.write_bytes(content)
