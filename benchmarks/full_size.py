"""Times the learned half (extraction of attention maps, GAP training) on files of full size in the released formats.

    python benchmarks/full_size.py files DIR [--shape 7b|tiny]
    python benchmarks/full_size.py loading DIR [--out FILE.json]
    python benchmarks/full_size.py extraction DIR [--batch-size 32] [--samples 256] [--out FILE.json]
    python benchmarks/full_size.py training DIR [--batch-size 64 --batch-size 256] [--steps 100] [--out FILE.json]

`files` writes random weights of LLaMA-7B's and RoBERTa-base's shapes, a Chat-Scene checkpoint, 1024-wide features and
questions, in the released formats; `tiny` is the same in miniature, for a test of this script on a CPU. Baselines run
in the same process as what they are compared with. Figures go to docs/performance.md.
"""

import argparse
import itertools
import json
import random
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, RobertaConfig, RobertaModel

from fast3d_core.bench.shapes import QUESTIONS_A_SCENE, WORDS
from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import Config, load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.extraction.extract import load_part, record
from fast3d_core.llm.weights import load_llm, weight_files
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint, merge
from fast3d_core.models.chat_scene.model import ChatScene
from fast3d_core.runtime.devices import pick_device

_MINIATURE = Path(__file__).parents[1] / "tests" / "data" / "miniature"  # whose tokenizers are used
SHAPES = {
    "7b": {
        "llm": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
        "vocab": 32000,
        "roberta": {},
        "features": 1024,
        "dtype": "bfloat16",
    },
    "tiny": {
        "llm": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 12, "num_attention_heads": 4},
        "vocab": 560,
        "roberta": {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96},
        "features": 32,
        "dtype": "float32",
    },
}


def write_files(folder: Path, shape: dict[str, Any], scenes: int) -> None:
    """Everything that extract and train-gap read, and fast3d.yaml beside it."""
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = getattr(torch, shape["dtype"])
    ends = _write_llm(folder / "llm", shape, device, dtype)
    _write_checkpoint(folder / "ckpt.pth", shape, device, ends)
    _write_roberta(folder / "roberta", shape)
    _write_annotations(folder / "annotations", shape["features"], scenes)
    (folder / "fast3d.yaml").write_text(
        f"model: {{llm: llm, checkpoint: ckpt.pth, dtype: {shape['dtype']}}}\n"
        "data: {annotations: annotations, datasets: [scanrefer]}\n"
        "gap: {text_encoder: ./roberta, checkpoint: outputs/gap/checkpoint_best.safetensors}\n"
    )


def _write_llm(folder: Path, shape: dict[str, Any], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Returns its word embeddings and its head, as training leaves most of their rows as they were."""
    folder.mkdir(parents=True)
    shipped = _MINIATURE / "llm" / "tokenizer.model"
    pieces = [_piece(f"<unused{i}>") for i in range(shape["vocab"] - 560)]
    (folder / "tokenizer.model").write_bytes(shipped.read_bytes() + b"".join(pieces))  # protobufs add up
    config = LlamaConfig(vocab_size=shape["vocab"], max_position_embeddings=4096, **shape["llm"])
    with torch.device(device):
        llm = LlamaForCausalLM(config).to(dtype)
    config.save_pretrained(folder)
    names = list(llm.state_dict())
    halves = {"pytorch_model-00001-of-00002.bin": names[: len(names) // 2]}
    halves["pytorch_model-00002-of-00002.bin"] = names[len(names) // 2 :]
    state = llm.state_dict()
    for file, part in halves.items():
        torch.save({name: state[name].cpu() for name in part}, folder / file)
    index = {name: file for file, part in halves.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return {name: state[f"{name}.weight"].float().cpu() for name in ("model.embed_tokens", "lm_head")}


def _piece(text: str) -> bytes:
    """A sentencepiece of score -10000 as the protobuf field of a model file."""
    inner = b"\x0a" + bytes([len(text)]) + text.encode() + b"\x15" + struct.pack("<f", -1e4)
    return b"\x0a" + bytes([len(inner)]) + inner


def _write_checkpoint(path: Path, shape: dict[str, Any], device: torch.device, ends: dict[str, Tensor]) -> None:
    hidden, wide = shape["llm"]["hidden_size"], shape["llm"]["intermediate_size"]
    tensors: dict[str, Tensor] = {}

    def put(name: str, *size: int) -> None:
        tensors[name] = (0.02 * torch.randn(*size, device=device)).cpu()

    sizes = dict.fromkeys(
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"), (hidden, hidden)
    )
    sizes |= {"mlp.gate_proj": (hidden, wide), "mlp.up_proj": (hidden, wide), "mlp.down_proj": (wide, hidden)}
    base = "llama_model.base_model.model"
    for i in range(shape["llm"]["num_hidden_layers"]):
        for name, (width_in, width_out) in sizes.items():
            put(f"{base}.model.layers.{i}.{name}.lora_A.default.weight", 16, width_in)
            put(f"{base}.model.layers.{i}.{name}.lora_B.default.weight", width_out, 16)
    for name, rows in ends.items():
        tensors[f"{base}.{name}.weight"] = torch.cat([rows, 0.02 * torch.randn(100, hidden)])
    for name in ("object_proj", "object_img_proj"):
        for position, width in ((0, shape["features"]), (2, hidden)):
            put(f"{name}.{position}.weight", hidden, width)
            put(f"{name}.{position}.bias", hidden)
    torch.save({"model": tensors, "config": {}, "epoch": 0, "global_step": 0}, path)


def _write_roberta(folder: Path, shape: dict[str, Any]) -> None:
    shipped = _MINIATURE / "gap" / "roberta_tiny"
    config = RobertaConfig(vocab_size=50265, max_position_embeddings=514, type_vocab_size=1, layer_norm_eps=1e-5,
                           pad_token_id=1, bos_token_id=0, eos_token_id=2, **shape["roberta"])  # fmt: skip
    RobertaModel(config).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        (folder / name).write_bytes((shipped / name).read_bytes())


def _write_annotations(folder: Path, width: int, scenes: int) -> None:
    folder.mkdir(parents=True)
    draw = random.Random(0)
    names = [f"scene{i:04}_00" for i in range(scenes)]
    for file in ("scannet_mask3d_uni3d_feats.pt", "scannet_mask3d_videofeats.pt"):
        features = torch.randn(scenes, 100, width)
        torch.save(
            {f"{s}_{o:02}": features[i, o].clone() for i, s in enumerate(names) for o in range(100)}, folder / file
        )
    for split in ("train", "val"):
        boxes = {s: {"objects": ["thing"] * 100, "locs": 3 * torch.rand(100, 6)} for s in names}
        for boxes_of in ("scannet_mask3d", "scannet"):  # detected, and true: here the same
            torch.save(boxes, folder / f"{boxes_of}_{split}_attributes.pt")
        records = []
        for i in range(scenes * QUESTIONS_A_SCENE):
            words = " ".join(draw.choices(WORDS, k=draw.randint(8, 14)))
            prompt = f'Share the ID of the object that fits "{words}".'
            answer = f"<OBJ{draw.randrange(100):03}>."
            record_ = {"scene_id": names[i // QUESTIONS_A_SCENE], "obj_id": 0, "prompt": prompt}
            records.append(record_ | ({"caption": answer} if split == "train" else {"ref_captions": [answer]}))
        (folder / f"scanrefer_mask3d_{split}.json").write_text(json.dumps(records))


def time_loading(config: Config) -> dict[str, Any]:
    """Loading the whole model, beside reading the LLM's bytes and nothing else, and beside the checkpoint's part."""
    device = pick_device(config.model.device)
    torch.zeros(1, device=device)  # starting CUDA is not loading
    files = weight_files(config.model.llm)

    def read() -> None:
        buffer = bytearray(1 << 26)
        for path in files:
            with path.open("rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def checkpoint() -> None:
        merge(load_checkpoint(config.model.checkpoint, llm.config.num_hidden_layers), llm, config.model.lora_alpha)

    figures = {"llm_gib": sum(path.stat().st_size for path in files) / 2**30}
    figures["read_seconds"] = _time(read, device)
    figures["load_seconds"] = _time(lambda: ChatScene.from_config(config, device), device, warm=False)
    llm = load_llm(config.model.llm, getattr(torch, config.model.dtype), device)
    figures["checkpoint_seconds"] = _time(checkpoint, device, warm=False)
    figures["ratio"] = figures["load_seconds"] / (figures["read_seconds"] + figures["checkpoint_seconds"])
    return figures


def time_extraction(config: Config, batch_size: int, samples: int, baseline_samples: int) -> dict[str, Any]:
    """Our extraction, and the published protocol on stock transformers, eager, one sample at a time."""
    device = pick_device(config.model.device)
    scenes = Scenes(config.data.annotations)
    model = ChatScene.from_config(config, device)
    part = load_part(config.data.annotations, "train", "scanrefer", samples, seed=0)

    def ours() -> None:
        for first in range(0, samples, batch_size):
            batch = slice(first, first + batch_size)
            record(model, scenes, part.samples[batch], part.answers[batch])

    weights = sum(p.numel() * p.element_size() for p in model.llm.parameters())
    _reset_memory(device)
    seconds, memory = _time(ours, device), _peak_memory(device)
    model.llm.set_attn_implementation("eager")

    def stock(generate: bool) -> Callable[[], None]:
        def run() -> None:
            for sample, answer in zip(part.samples[:baseline_samples], part.answers, strict=False):
                _stock_maps(model, scenes, sample, answer, generate)

        return run

    forward, generating = (_time(stock(generate), device) for generate in (False, True))
    rates = {"ours": samples / seconds, "stock, forward pass only": baseline_samples / forward}
    rates["stock, generating as published"] = baseline_samples / generating
    return {
        "batch_size": batch_size,
        "samples_per_second": rates,
        "ratio_to_forward_only": rates["ours"] / rates["stock, forward pass only"],
        "ratio_to_published": rates["ours"] / rates["stock, generating as published"],
        "memory_beyond_weights_gib": (memory - weights) / 2**30 if memory else None,
    }


@torch.inference_mode()
def _stock_maps(model: ChatScene, scenes: Scenes, sample: Any, answer: str, generate: bool) -> Tensor:
    """One sample's map: all layers' attention kept, then averaged; the published code gets it from `generate`, which
    goes on to write an answer that is thrown away."""
    prefix, text = model.prefix(scenes[sample.scene_id]), model.text(sample.prompt, answer)
    embeds = torch.cat([prefix.embeds, text])[None]
    if generate:
        out = model.llm.generate(inputs_embeds=embeds, max_new_tokens=12, num_beams=5, do_sample=False,
                                 output_attentions=True, return_dict_in_generate=True, pad_token_id=0)  # fmt: skip
        attentions = [layer[:1] for layer in out.attentions[0]]
    else:
        attentions = list(model.llm(inputs_embeds=embeds, output_attentions=True).attentions)
    visual = slice(prefix.visual_start, prefix.visual_start + prefix.visual)
    mean = torch.stack([layer[0, :, len(prefix.embeds) :, visual].float().mean(dim=0) for layer in attentions]).mean(
        dim=0
    )
    return mean.mean(dim=0).unflatten(0, (-1, 3)).sum(-1).cpu()


def time_training(
    config: Config, batch_sizes: list[int], steps: int, precision: str, folder: Path
) -> list[dict[str, Any]]:
    """GAP training as `fast3d train-gap` does it, on random targets, and the GPU's idle share."""
    from accelerate import Accelerator

    from fast3d_core.gap.training.loop import TrainingRun
    from fast3d_core.gap.training.options import TrainingOptions

    targets = folder / "targets"
    targets.mkdir(exist_ok=True)
    for split in ("train", "val"):
        count = len(load_samples(config.data.annotations, "scanrefer", split))
        maps = torch.rand(count, 100)
        entries = [{"index": i, "a_map": one, "a_map_ori": one} for i, one in enumerate(maps)]
        torch.save(entries, targets / f"infer_attn_maps_{split}_scanrefer.pt")
    figures = []
    device = pick_device(config.model.device)
    accelerator = Accelerator(cpu=device.type == "cpu", device_placement=False)
    ways = (False, True) if device.type == "cuda" else (False,)
    for batch_size, graphs in itertools.product(batch_sizes, ways):
        options = TrainingOptions(batch_size=batch_size, precision=precision)
        run = TrainingRun(
            config, options, targets, folder / "none", ["scanrefer"], ["scanrefer"], _Silent(), accelerator
        )
        run.prepare(resume=False, restart=False)
        if not graphs:
            run._graphs = None

        def loop(count: int = steps, run: TrainingRun = run) -> None:
            for _ in range(count):
                run._step()
                run.state.step += 1

        loop(60 if device.type == "cuda" else 2)  # until the steps of every width are captured
        seconds = _time(loop, device, warm=False)
        figures.append(
            {
                "batch_size": batch_size,
                "cuda_graphs": graphs,
                "samples_per_second": steps * batch_size / seconds,
                "ms_per_step": 1000 * seconds / steps,
                "idle_share": _idle_share(loop) if device.type == "cuda" else None,
                "parameters": sum(p.numel() for p in run.network.parameters()),
            }
        )
        del run
    return figures


class _Silent:
    def loading(self) -> None: ...

    def start(self, samples: int, steps: int, done: int, parameters: int) -> None: ...

    def trained(self, step: int, epoch: float, loss: float, lr: float, samples_per_second: float) -> None: ...

    def validated(self, step: int, epoch: int, quality: Any, best: bool) -> None: ...


def _idle_share(loop: Callable[[], None]) -> float:
    """1 - union of the kernels' intervals / wall time."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        torch.cuda.synchronize()
        start = time.perf_counter()
        loop()
        torch.cuda.synchronize()
        wall = time.perf_counter() - start
    spans = sorted(
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in profile.profiler.kineto_results.events()
        if event.device_type() == torch.autograd.DeviceType.CUDA
    )
    busy, end = 0, 0
    for begin, stop in spans:
        busy += max(0, stop - max(begin, end))
        end = max(end, stop)
    return 1 - busy / 1e9 / wall


def _time(function: Callable[[], None], device: torch.device, warm: bool = True) -> float:
    if warm:
        function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()


def _peak_memory(device: torch.device) -> int | None:
    return torch.cuda.max_memory_allocated() if device.type == "cuda" else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("files", "loading", "extraction", "training"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="7b")
    parser.add_argument("--scenes", type=int, default=16)
    parser.add_argument("--batch-size", type=int, action="append")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--baseline-samples", type=int, default=24)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.what == "files":
        write_files(given.folder, SHAPES[given.shape], given.scenes)
        return
    config = load_config(given.folder / "fast3d.yaml")
    figures: dict[str, Any] = {"device": str(pick_device(config.model.device)), "torch": torch.__version__}
    if torch.cuda.is_available():
        figures["device"] = torch.cuda.get_device_name()
    if given.what == "loading":
        figures["loading"] = time_loading(config)
    elif given.what == "extraction":
        sizes = given.batch_size or [32]
        figures["extraction"] = [time_extraction(config, size, given.samples, given.baseline_samples) for size in sizes]
    else:
        figures["training"] = time_training(
            config, given.batch_size or [64, 256], given.steps, given.precision, given.folder
        )
    text = json.dumps(figures, indent=1)
    print(text)
    if given.out:
        given.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
