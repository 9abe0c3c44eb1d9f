"""Trains the demo's GAP network on the attention of the demo's LLM, on an endless stream of fresh rooms.

    python -m tools.demo.train_gap OUT [--from FOLDER] [--steps 3500] [--minutes 9] [--workers 16]

What `fast3d extract` and `fast3d train-gap` do with files, this does in every step: it draws rooms and questions, lets
the LLM read them with the right answer appended, and teaches the network the attention that the objects got. So it
never sees a question twice; a fixed 100,000 were learnt by heart from epoch 15 on, see README.md. It leaves
gap.safetensors in bf16, and gap.jsonl, the log.
"""

import argparse
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import RobertaConfig, RobertaModel

from fast3d_core.config import DATASETS
from fast3d_core.demo import WEIGHTS
from fast3d_core.demo.release import GAP, write_text_encoder
from fast3d_core.demo.shape import SmallShape
from fast3d_core.files.files import load_json, write_json
from fast3d_core.files.tensors import write_tensors
from fast3d_core.gap.checkpoint import read_tensors
from fast3d_core.gap.network import GapNetwork, GapShape, kl_loss
from fast3d_core.gap.text import QuestionTokenizer
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.runtime.draws import seed_of
from fast3d_core.runtime.graphs import Inputs, StepGraphs
from tools.demo.muon import Muon
from tools.demo.release import train_text_tokenizer
from tools.demo.train_llm import Recipe, Stream, Trainer, draw_questions


@dataclass(frozen=True)
class GapRecipe:
    """How the network is trained.

    Attributes:
        lr: of Muon for the matrices of decoder and text encoder, and of AdamW for all else.
        decay_from: the learning rate is constant up to there and then falls linearly to a hundredth at `steps`.
        question_tokens: the longest question in the text encoder's tokens; longer ones are cut.
        seed: of the rooms; not the one of the LLM's training.
    """

    steps: int = 3500
    rooms: int = 32
    questions: int = 16
    lr: float = 2e-3
    warmup: int = 200
    decay_from: int = 1500
    weight_decay: float = 0.02
    question_tokens: int = 48
    seed: int = 3

    def lr_at(self, step: int, began: int = 0) -> float:
        """Of a step, where moments began to be gathered at step `began`."""
        done = (step - self.decay_from) / max(self.steps - self.decay_from, 1)
        return self.lr * min((step - began + 1) / self.warmup, 1 - 0.99 * min(max(done, 0.0), 1.0))


SHAPE = GapShape(features=128, hidden=192, heads=8, layers=4, feedforward=768, dropout=0.0, head_dropout=0.0)


class GapTrainer:
    """The LLM, the network and its optimizers on a device."""

    def __init__(self, weights: Path, text_encoder: Path, recipe: GapRecipe, shape: GapShape, device: torch.device):
        self.recipe, self.device, self.step, self.began = recipe, device, 0, 0
        self.words, self.text = ChatSceneTokenizer(weights), QuestionTokenizer(text_encoder)
        # Texts as they are extracted from: the answer follows without a space token of its own.
        self.rooms = Recipe(rooms=recipe.rooms, questions=recipe.questions, as_extracted=1.0, seed=recipe.seed)
        llm = SmallShape(**load_json(weights / "training.json", "the demo's weights")["shape"])
        self.llm = Trainer(llm, self.rooms, self.words, device)
        self.llm.load(weights)
        self.llm.model.requires_grad_(False)
        torch.manual_seed(seed_of(recipe.seed))
        config = RobertaConfig.from_pretrained(text_encoder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        self.network = GapNetwork(shape, RobertaModel(config)).to(device)
        for name, parameter in self.network.named_parameters():  # as in `fast3d train-gap`
            if name in ("out_head_attn.4.bias", "out_head_attn.2.bias") or name.startswith("text_encoder.pooler."):
                parameter.requires_grad_(False)
        trained = {name: p for name, p in self.network.named_parameters() if p.requires_grad}
        self.parameters = list(trained.values())
        matrices = {
            name: p
            for name, p in trained.items()
            if p.dim() > 1 and name.startswith(("mm_encoder.layers", "text_encoder.encoder"))
        }
        others = [p for name, p in trained.items() if name not in matrices]
        self.lr = torch.zeros((), device=device)
        on_gpu = device.type == "cuda"
        self.adamw = torch.optim.AdamW(others, self.lr, weight_decay=0.0, fused=True, capturable=on_gpu)
        self.muon = Muon(matrices.values(), self.lr, recipe.weight_decay)
        self.maps: Any = torch.compile(self.llm.model.attention_maps) if on_gpu else self.llm.model.attention_maps
        self.graphs = StepGraphs(lambda drawn, _: self._compute(drawn), device) if on_gpu else None
        if on_gpu:
            self.network.mm_encoder.compile()

    def draw(self, split: str, step: int) -> Inputs:
        """A step's rooms and questions, for the LLM and for the network."""
        drawn, prompts = draw_questions(self.words, self.rooms, split, step)
        found, _ = self.text([prompt for of_room in prompts for prompt in of_room])
        ids = torch.full((len(found), self.recipe.question_tokens), self.text.pad_id)
        width = min(self.recipe.question_tokens, found.shape[1])
        ids[:, :width] = found[:, :width]
        return {**drawn, "question": ids}

    def loss(self, drawn: Inputs) -> Tensor:
        """(questions of all rooms,) divergence of the predicted from the LLM's attention."""
        drawn = {name: tensor.to(self.device, non_blocking=True) for name, tensor in drawn.items()}
        packed = self.llm.pack(drawn)
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            with torch.no_grad():
                wanted = self.maps(packed, self.llm.mask).flatten(0, 1)
            features = torch.cat([packed.features_3d, packed.features_2d], dim=-1)
            features, boxes = (t.repeat_interleave(self.recipe.questions, 0) for t in (features, drawn["boxes"]))
            ids = drawn["question"]
            logits = self.network(features, boxes, ids, (ids != self.text.pad_id).long())
        return kl_loss(logits, wanted)

    def train_step(self, drawn: Inputs) -> Tensor:
        torch.manual_seed(seed_of(self.recipe.seed, self.step))  # of the features' noise
        self.lr.fill_(self.recipe.lr_at(self.step, self.began))
        self.step += 1
        return self.graphs(drawn) if self.graphs else self._compute(drawn)

    def _compute(self, drawn: Inputs) -> Tensor:
        loss = self.loss(drawn).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adamw.step()
        self.muon.step()
        self.adamw.zero_grad(set_to_none=True)
        self.muon.zero_grad(set_to_none=True)
        return loss.detach()

    @torch.no_grad()
    def validate(self, held_out: list[Inputs]) -> dict[str, float]:
        """The mean divergence by task."""
        torch.manual_seed(0)
        with torch.compiler.set_stance("force_eager"):  # compiling again, without gradients, would take longer
            losses = torch.cat([self.loss(drawn) for drawn in held_out]).cpu()
        tasks = torch.cat([drawn["tasks"].flatten() for drawn in held_out])
        return {name: round(float(losses[tasks == i].mean()), 4) for i, name in enumerate(DATASETS)}

    def save(self, folder: Path) -> None:
        tensors = {name: tensor.to(torch.bfloat16) for name, tensor in self.network.state_dict().items()}
        write_tensors(folder / GAP, tensors, {"step": self.step, "heads": self.network.shape.heads})
        write_json(folder / "gap.json", {"step": self.step, "recipe": asdict(self.recipe)})

    def load(self, folder: Path) -> None:
        """Continues with the weights that `save` left; moments start from zero, while the learning rate warms up."""
        self.network.load_state_dict({name: t.float() for name, t in read_tensors(folder / GAP)[0].items()})
        self.step = self.began = load_json(folder / "gap.json", "the demo's GAP network")["step"]


def run(trainer: GapTrainer, out: Path, minutes: float, workers: int, check_every: int) -> None:
    """Trains until the recipe's last step or the time is up, whichever comes first."""
    deadline = time.monotonic() + 60 * minutes
    steps = range(trainer.step, trainer.recipe.steps)
    held_out = [trainer.draw("val", step) for step in range(4)]
    losses: list[Tensor] = []
    since = time.monotonic()
    for drawn in Stream(partial(trainer.draw, "train"), steps).loader(workers, trainer.device.type == "cuda"):
        losses.append(trainer.train_step(drawn))
        over = time.monotonic() > deadline or trainer.step == trainer.recipe.steps
        if over or trainer.step % check_every == 0:
            loss = torch.stack(losses).mean().item()
            rate = len(losses) / (time.monotonic() - since)
            about = {"step": trainer.step, "loss": round(loss, 4), "steps_per_second": round(rate, 2)}
            line = {**about, "val": trainer.validate(held_out)}
            print(json.dumps(line), flush=True)
            with (out / "gap.jsonl").open("a", encoding="utf-8") as log:
                log.write(json.dumps(line) + "\n")
            if not math.isfinite(loss):
                raise SystemExit("the loss is not finite; the last saved state is kept")
            trainer.save(out)
            losses, since = [], time.monotonic()
        if over:
            break


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the LLM")
    parser.add_argument("--from", dest="source", type=Path, help="folder that an earlier run left")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--check-every", type=int, default=500)
    for name in ("steps", "decay_from", "rooms", "questions"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(GapRecipe, name))
    parser.add_argument("--lr", type=float, default=GapRecipe.lr)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # the workers are the parallelism
    torch.set_float32_matmul_precision("high")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    names = ("steps", "decay_from", "rooms", "questions", "lr")
    recipe = GapRecipe(**{name: getattr(given, name) for name in names})
    if not (given.weights / "vocab.json").exists():
        train_text_tokenizer(given.weights)
    text_encoder = given.out / "text_encoder"
    if not text_encoder.exists():
        write_text_encoder(text_encoder, given.weights)
    trainer = GapTrainer(given.weights, text_encoder, recipe, SHAPE, device)
    if given.source:
        trainer.load(given.source)
    run(trainer, given.out, given.minutes, given.workers, given.check_every)


if __name__ == "__main__":
    main()
