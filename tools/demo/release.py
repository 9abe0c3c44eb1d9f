"""Writes demos of other sizes, and packs what training leaves for the package.

    python -m tools.demo.release FOLDER [--test] [--rooms N] [--questions N] [--train-rooms N] ...
    python -m tools.demo.release FOLDER --pack CHECKPOINT

The first writes a demo of another size, or with the held-out test split in val's place; the second puts a GAP network
that `fast3d train-gap` made on one into FOLDER/gap.safetensors, in bf16.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from tokenizers import ByteLevelBPETokenizer

from fast3d_core.benchmarks.questions import load_samples
from fast3d_core.config import DATASETS
from fast3d_core.demo import WEIGHTS
from fast3d_core.demo.release import GAP, TEXT_WORDS, DemoSize, write_demo
from fast3d_core.demo.world import write_world
from fast3d_core.files.tensors import write_tensors
from fast3d_core.gap.checkpoint import read_tensors


def train_text_tokenizer(folder: Path, rooms: int = 200, questions: int = 1000, seed: int = 7) -> None:
    """Writes vocab.json and merges.txt: RoBERTa's kind of tokenizer, made from generated questions."""
    with tempfile.TemporaryDirectory() as temporary:
        write_world(Path(temporary), "train", rooms, questions, seed)
        prompts = [sample.prompt for name in DATASETS for sample in load_samples(Path(temporary), name, "train")]
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(prompts, TEXT_WORDS, special_tokens=special, show_progress=False)
    tokenizer.save_model(str(folder))


def pack_gap(checkpoint: Path, weights: Path) -> None:
    """Writes a trained network as `weights`/gap.safetensors in bf16, half of what training leaves."""
    tensors, metadata = read_tensors(checkpoint)
    write_tensors(weights / GAP, {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, metadata)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--pack", type=Path, metavar="CHECKPOINT")
    parser.add_argument("--test", dest="val", action="store_const", const="test", default="val")
    for field in ("rooms", "questions", "train_rooms", "train_questions", "seed", "processes"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, default=getattr(DemoSize, field))
    given = vars(parser.parse_args())
    folder, weights, checkpoint = (given.pop(name) for name in ("folder", "weights", "pack"))
    if checkpoint:
        pack_gap(checkpoint, folder)
    else:
        write_demo(folder, weights, DemoSize(**given))


if __name__ == "__main__":
    main()
