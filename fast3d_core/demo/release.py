"""The demo's files in the form in which Chat-Scene and Fast3D release theirs.

`weights/` keeps what training left, in bf16. From it and from the world's seeds this writes what a user of the real
system has: a LLaMA folder, a Chat-Scene checkpoint, annotations with features, a GAP network with its text encoder,
predicted maps, and a fast3d.yaml that names them.

In a checkout, `tools/demo/release.py` writes demos of other sizes with it.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import RobertaConfig, RobertaModel

from fast3d_core.config import DATASETS, load_config
from fast3d_core.demo import WEIGHTS
from fast3d_core.demo.shape import SmallShape
from fast3d_core.demo.world import write_world
from fast3d_core.files.files import atomic_path, load_json
from fast3d_core.files.tensors import write_tensors
from fast3d_core.gap.checkpoint import read_tensors
from fast3d_core.gap.predictor import predict_maps
from fast3d_core.runtime.progress import Silent

GAP = "gap.safetensors"
_CONFIG = """\
# fast3d's demo, written by fast3d: a small Chat-Scene that was trained on generated rooms.
model: {{llm: "{files}/llm", checkpoint: "{files}/ckpt.pth", lora_alpha: 1, dtype: float32}}
data: {{annotations: "{files}/annotations"}}
maps: {{predicted: outputs/pred_attn_maps, targets: outputs/infer_attn_maps}}
gap: {{text_encoder: "{files}/gap/text_encoder", checkpoint: "{gap}/checkpoint_best.safetensors", heads: 8, layers: 4}}
generation: {{max_new_tokens: 40, repetition_penalty: 1.0}}
eval: {{batch_size: 16}}
"""
_TEXT: dict[str, Any] = {"hidden_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 512}
TEXT_WORDS = 1024
"""The vocabulary of GAP's text encoder."""
_TEXT_TOKENS = 128  # the longest question that GAP reads


@dataclass(frozen=True)
class DemoSize:
    """How many rooms, and questions of each task, the demo has.

    Attributes:
        train_rooms, train_questions: of the train split; the other two of the val split.
        seed: of the rooms. Whatever was trained on, was drawn with other seeds than the demo's own.
        val: the split that the val files hold.
        processes: share the work, see `write_world`.
    """

    rooms: int = 100
    questions: int = 400
    train_rooms: int = 100
    train_questions: int = 400
    seed: int = 1
    val: str = "val"
    processes: int | None = None


def config_text(files: Path, own_gap: bool = False) -> str:
    """A fast3d.yaml for the demo's files in `files`; its outputs lie beside the fast3d.yaml.

    Args:
        own_gap: a GAP network among the outputs, not the demo's.
    """
    where = {"files": str(files), "gap": "outputs/gap" if own_gap else f"{files}/outputs/gap"}
    return _CONFIG.format_map({name: json.dumps(path, ensure_ascii=False)[1:-1] for name, path in where.items()})


def write_demo(folder: Path, weights: Path = WEIGHTS, size: DemoSize = DemoSize()) -> None:
    """Writes all files of the demo to `folder`; without GAP weights in `weights`, no GAP network and no maps.

    The same bytes however many threads there are, and whatever the device: runs are continued only on equal files.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        _write_demo(folder, weights, size)
    finally:
        torch.set_num_threads(threads)


def _write_demo(folder: Path, weights: Path, size: DemoSize) -> None:
    folder.mkdir(parents=True)
    write_model(folder, weights)
    annotations = folder / "annotations"
    if size.train_rooms:
        write_world(annotations, "train", size.train_rooms, size.train_questions, size.seed, size.processes)
    write_world(annotations, size.val, size.rooms, size.questions, size.seed, size.processes)
    write_text_encoder(folder / "gap" / "text_encoder", weights)
    (folder / "fast3d.yaml").write_text(config_text(Path(), own_gap=True))
    if (weights / GAP).exists():
        tensors, metadata = read_tensors(weights / GAP)
        floats = {name: tensor.float() for name, tensor in tensors.items()}
        write_tensors(folder / "outputs" / "gap" / "checkpoint_best.safetensors", floats, metadata)
        config = load_config(folder / "fast3d.yaml")
        # Named, not config.maps.predicted: where this is the place of the embedded demo, that is in the current folder.
        maps = folder / "outputs" / "pred_attn_maps"
        predict_maps(config, "val", DATASETS, maps, torch.device("cpu"), Silent())


def write_model(folder: Path, weights: Path) -> None:
    """Writes what `train_llm` left as a LLaMA folder, llm/, and a Chat-Scene checkpoint, ckpt.pth.

    The LLM was trained as a whole, so LoRA's products in the checkpoint are zero. Its embeddings hold the words and the
    objects; the LLaMA folder has the words alone, as Vicuna's has.
    """
    tensors: dict[str, Tensor] = {}
    for path in sorted(weights.glob("training-*.safetensors")):
        tensors |= load_file(path)
    prefix = "weight.model."
    tensors = {name.removeprefix(prefix): t.float() for name, t in tensors.items() if name.startswith(prefix)}
    shape = SmallShape(**load_json(weights / "training.json", "the demo's weights")["shape"])
    llm = {name.removeprefix("llm."): t for name, t in tensors.items() if name.startswith("llm.")}
    base = "llama_model.base_model.model."
    released = {name: t for name, t in tensors.items() if not name.startswith("llm.")}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        released[base + name] = llm[name]
        llm[name] = llm[name][: -shape.objects].clone()
    for name, weight in llm.items():
        if ".layers." in name and weight.dim() == 2:
            rows, columns = weight.shape
            stem = base + name.removesuffix(".weight")
            released[f"{stem}.lora_A.default.weight"] = torch.zeros(1, columns)
            released[f"{stem}.lora_B.default.weight"] = torch.zeros(rows, 1)
    (folder / "llm").mkdir()
    _save_safetensors(folder / "llm" / "model.safetensors", llm)
    shape.llama(len(llm["lm_head.weight"])).save_pretrained(folder / "llm")
    shutil.copy(weights / "tokenizer.model", folder / "llm")
    torch.save({"model": released, "config": {}, "epoch": 0, "global_step": 0}, folder / "ckpt.pth")


def write_text_encoder(folder: Path, weights: Path) -> None:
    """Writes GAP's text encoder as it was before training: a small RoBERTa with random weights, and its tokenizer."""
    config = RobertaConfig(
        vocab_size=TEXT_WORDS, max_position_embeddings=_TEXT_TOKENS + 2, type_vocab_size=1, layer_norm_eps=1e-5,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, **_TEXT,
    )  # fmt: skip
    generator = torch.random.get_rng_state()
    torch.manual_seed(0)
    config.save_pretrained(folder)
    _save_safetensors(folder / "model.safetensors", RobertaModel(config).state_dict())
    torch.random.set_rng_state(generator)
    for name in ("vocab.json", "merges.txt"):
        shutil.copy(weights / name, folder)


def _save_safetensors(path: Path, tensors: dict[str, Tensor]) -> None:
    with atomic_path(path) as temporary:  # which leaves it as readable as other files; safetensors does not
        save_file(tensors, temporary, {"format": "pt"})
