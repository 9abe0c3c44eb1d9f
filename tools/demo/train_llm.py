"""Trains the demo's small Chat-Scene on an endless stream of fresh rooms.

    python -m tools.demo.train_llm OUT [--from FOLDER] [--steps 26500] [--minutes 9] [--workers 16]

Every step draws rooms and questions that were never seen before: a fixed set was memorised instead of learned. A run
stops after `--minutes` and leaves weights and moments in bf16, in files of at most 15 MB; the next one goes on `--from`
there. `log.jsonl` has the loss and, on rooms of the validation seed, the share of answers whose every token is right.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, IterableDataset

from fast3d_core.config import DATASETS
from fast3d_core.demo.detection import detect
from fast3d_core.demo.features import CODE_WIDTH, MIX_2D, MIX_3D, NOISE_2D, NOISE_3D, object_codes
from fast3d_core.demo.questions import draw_question
from fast3d_core.demo.rooms import COLOURS, KINDS, SIZES, draw_size, make_room
from fast3d_core.demo.shape import SmallShape
from fast3d_core.demo.world import room_rng
from fast3d_core.files.files import atomic_path, write_json
from fast3d_core.models.chat_scene.prompt import AFTER_OBJECTS, PREFIX, QUESTION
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.runtime.draws import seed_of
from fast3d_core.runtime.graphs import Inputs, StepGraphs
from tools.demo.muon import Muon
from tools.demo.small_llm import Packed, SmallChatScene

IGNORED = -100
_FILE_BYTES = 14_000_000


@dataclass(frozen=True)
class Recipe:
    """How the model is trained.

    Attributes:
        questions: packed behind one room; text_tokens: the longest question with its answer, longer ones are redrawn.
        shares: of the questions, by task.
        lr: of AdamW (embeddings, projectors, norms, head) and, for the layers' matrices, of Muon, whose updates are
            scaled to the size of AdamW's.
        decay_from: the learning rate is constant up to there and then falls linearly to a hundredth at `steps`.
        read_until: the auxiliary loss (what, which colour, how large is each object?) fades out until that step.
        park_weight: of the attention that text pays to objects, which is a loss from step `park_from` on. Heads that
            look for nothing spread it over all objects; so they learn to leave it with the prefix, as large LLMs' do.
        as_extracted: share of the questions whose answer follows without the space token that generation starts with,
            as attention is extracted from.
    """

    steps: int = 26_500
    rooms: int = 32
    questions: int = 16
    text_tokens: int = 56
    shares: tuple[float, ...] = (0.22, 0.17, 0.17, 0.2, 0.24)
    lr: float = 2e-3
    warmup: int = 500
    decay_from: int = 22_000
    weight_decay: float = 0.05
    read_weight: float = 0.3
    read_until: int = 10_000
    park_weight: float = 0.02
    park_from: int = 18_500
    as_extracted: float = 0.25
    seed: int = 0

    def lr_at(self, step: int, began: int = 0) -> float:
        """Of a step, where AdamW's moments began to be gathered at step `began`."""
        if step - began < self.warmup:
            return self.lr * (step - began + 1) / self.warmup
        done = (step - self.decay_from) / max(self.steps - self.decay_from, 1)
        return self.lr * (1 - 0.99 * min(max(done, 0.0), 1.0))

    def read_weight_at(self, step: int) -> float:
        return self.read_weight * max(0.0, 1 - step / self.read_until)

    def park_weight_at(self, step: int) -> float:
        return self.park_weight if step >= self.park_from else 0.0


def train_tokenizer(folder: Path, rooms: int = 3000) -> None:
    """Writes tokenizer.model: byte-pair pieces of generated questions and answers, with LLaMA's special tokens."""
    texts = []
    for i in range(rooms):
        rng = room_rng(0, "train", i)
        room = make_room(rng, draw_size(rng))
        found = detect(room, rng)
        for task in DATASETS:
            if question := draw_question(room, found, rng, task):
                texts += [question.prompt, question.answer]
    with atomic_path(folder / "tokenizer.model") as temporary:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([PREFIX, AFTER_OBJECTS, *texts]), model_writer=temporary.open("wb"), vocab_size=1024,
            model_type="bpe", byte_fallback=True, character_coverage=1.0, normalization_rule_name="identity",
            add_dummy_prefix=True, remove_extra_whitespaces=False, split_digits=True, unk_id=0, bos_id=1, eos_id=2,
            pad_id=-1, hard_vocab_limit=False, num_threads=1, minloglevel=2,
        )  # fmt: skip


class Stream(IterableDataset[Inputs]):
    """Steps of fresh rooms; a step depends on seed and number alone, whoever draws it."""

    def __init__(self, draw: Callable[[int], Inputs], steps: range):
        self.draw, self.steps = draw, steps

    def __iter__(self) -> Iterator[Inputs]:
        worker = torch.utils.data.get_worker_info()
        number, count = (worker.id, worker.num_workers) if worker else (0, 1)
        yield from map(self.draw, self.steps[number::count])

    def loader(self, workers: int, pinned: bool) -> Iterable[Inputs]:
        """The steps in order, drawn by `workers` processes."""
        prefetch = 8 if workers else None
        return DataLoader(self, batch_size=None, num_workers=workers, prefetch_factor=prefetch, pin_memory=pinned)


def draw_step(tokenizer: ChatSceneTokenizer, recipe: Recipe, split: str, step: int) -> Inputs:
    """Rooms and questions of a step, see `draw_questions`."""
    return draw_questions(tokenizer, recipe, split, step)[0]


def draw_questions(
    tokenizer: ChatSceneTokenizer, recipe: Recipe, split: str, step: int
) -> tuple[Inputs, list[list[str]]]:
    """Rooms and questions of a step: codes, labels and boxes by slot, token ids, wanted tokens, and tasks; and the
    prompts of each room's questions."""
    objects = 100
    prompts: list[list[str]] = []
    boxes = np.zeros((recipe.rooms, objects, 6), np.float32)
    codes = np.zeros((recipe.rooms, objects, CODE_WIDTH), np.float32)
    labels = np.full((recipe.rooms, objects, 4), IGNORED, np.int64)
    ids = np.zeros((recipe.rooms, recipe.questions, recipe.text_tokens), np.int64)
    wanted = np.full_like(ids, IGNORED)
    tasks = np.zeros((recipe.rooms, recipe.questions), np.int64)
    bounds = np.cumsum(recipe.shares)[:-1]
    for r in range(recipe.rooms):
        rng = room_rng(recipe.seed, split, step * recipe.rooms + r)
        room = make_room(rng, draw_size(rng, full=split != "train"))
        found = detect(room, rng)
        order = found.objects
        codes[r, : len(room)] = object_codes(room)[order]
        labels[r, : len(room)] = np.stack(
            [np.arange(len(room)), room.kinds[order], room.colours[order], room.sizes[order]], axis=1
        )
        boxes[r, : len(room)] = found.boxes
        prompts.append([])
        while (q := len(prompts[r])) < recipe.questions:
            task = int(np.searchsorted(bounds, rng.random(), side="right"))
            question = draw_question(room, found, rng, DATASETS[task])
            if question is None:
                continue
            row, target = _texts(tokenizer, question.prompt, question.answer, rng.random() < recipe.as_extracted)
            if len(row) <= recipe.text_tokens:
                ids[r, q, : len(row)], wanted[r, q, : len(row)], tasks[r, q] = row, target, task
                prompts[r].append(question.prompt)
    arrays = {"codes": codes, "boxes": boxes, "labels": labels, "ids": ids, "wanted": wanted, "tasks": tasks}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}, prompts


def _texts(tokenizer: ChatSceneTokenizer, prompt: str, answer: str, as_extracted: bool) -> tuple[list[int], list[int]]:
    """Token ids of question and answer, and the token that each is to be followed by, the answer's and `</s>` only."""
    if as_extracted:
        row = tokenizer.encode(QUESTION.format(prompt=prompt) + answer)
        asked = len(tokenizer.encode(QUESTION.format(prompt=prompt).rstrip(" ")))
    else:
        question = tokenizer.encode(QUESTION.format(prompt=prompt))
        asked = len(question)
        row = question + tokenizer.encode(answer)
    following = [*row[1:], tokenizer.eos_id]
    return row, [IGNORED] * (asked - 1) + following[asked - 1 :]


class Readers(nn.Module):
    """Reads identifier, class, colour and size off each object, while the model learns to see."""

    def __init__(self, shape: SmallShape):
        super().__init__()
        counts = (shape.objects, len(KINDS), len(COLOURS), len(SIZES))
        self.heads = nn.ModuleList(nn.Linear(shape.width, count) for count in counts)

    def forward(self, seen: Tensor, labels: Tensor) -> Tensor:
        losses = [
            functional.cross_entropy(head(seen).float().flatten(0, 1), labels[..., i].flatten(), ignore_index=IGNORED)
            for i, head in enumerate(self.heads)
        ]
        return torch.stack(losses).sum()


class Trainer:
    """Model, readers and optimizers on a device."""

    def __init__(self, shape: SmallShape, recipe: Recipe, tokenizer: ChatSceneTokenizer, device: torch.device):
        self.recipe, self.device = recipe, device
        torch.manual_seed(recipe.seed)
        prefix, after = tokenizer.encode(PREFIX, bos=True), tokenizer.encode(AFTER_OBJECTS)
        self.model = SmallChatScene(shape, tokenizer.vocab_size, prefix, after).to(device)
        self.readers = Readers(shape).to(device)
        self.mixes = [torch.from_numpy(mix).to(device) for mix in (MIX_3D, MIX_2D)]
        self.named = dict(nn.ModuleDict({"model": self.model, "readers": self.readers}).named_parameters())
        on_gpu = device.type == "cuda"
        self.lr = torch.zeros((), device=device)
        self.read_weight, self.park_weight = torch.zeros((2, 1), device=device).unbind()
        matrices = [p for p in self.model.llm.model.layers.parameters() if p.dim() > 1]
        others = [p for p in self.named.values() if all(p is not matrix for matrix in matrices)]
        decay, flat = [p for p in others if p.dim() > 1], [p for p in others if p.dim() < 2]
        groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": flat, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, self.lr, betas=(0.9, 0.95), fused=True, capturable=on_gpu)
        self.muon = Muon(matrices, self.lr, recipe.weight_decay)
        self.forward: Any = torch.compile(self.model) if on_gpu else self.model
        self.mask = self.model.mask(recipe.questions, recipe.text_tokens)
        self.graphs = StepGraphs(lambda drawn, _: self._compute(drawn), device) if on_gpu else None
        self.step = self.began = 0

    def pack(self, drawn: Inputs) -> Packed:
        """The batch on the device; features are mixed and made noisy here."""
        codes = drawn["codes"].to(self.device, non_blocking=True)
        present = codes.any(-1, keepdim=True)
        features_3d, features_2d = (
            (codes @ mix + noise * torch.randn(*codes.shape[:2], mix.shape[1], device=self.device)) * present
            for mix, noise in zip(self.mixes, (NOISE_3D, NOISE_2D), strict=True)
        )
        ids, wanted = (drawn[name].to(self.device, non_blocking=True) for name in ("ids", "wanted"))
        return Packed(features_3d, features_2d, ids, wanted)

    def train_step(self, drawn: Inputs) -> Tensor:
        """One step; (2,) the answers' loss and the share of attention on objects, on the device."""
        torch.manual_seed(seed_of(self.recipe.seed, self.step))  # of the features' noise
        self.lr.fill_(self.recipe.lr_at(self.step, self.began))
        self.read_weight.fill_(self.recipe.read_weight_at(self.step))
        self.park_weight.fill_(self.recipe.park_weight_at(self.step))
        self.step += 1
        return self.graphs(drawn) if self.graphs else self._compute(drawn)

    def _compute(self, drawn: Inputs) -> Tensor:
        # Without the cache of cast weights, which a captured step cannot share with others.
        on_gpu = self.device.type == "cuda"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=on_gpu, cache_enabled=False):
            loss, seen, looks = self.forward(self.pack(drawn), self.mask)
            read = self.readers(seen, drawn["labels"])
        (loss + self.read_weight * read + self.park_weight * looks).sum().backward()
        nn.utils.clip_grad_norm_(self.named.values(), 1.0)
        self.optimizer.step()
        self.muon.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.muon.zero_grad(set_to_none=True)
        return torch.stack([loss, looks]).detach()

    @torch.no_grad()
    def right(self, drawn: Inputs) -> dict[str, float]:
        """The share of answers whose every token is right, given the right ones before it, by task."""
        torch.manual_seed(0)
        batch = self.pack(drawn)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            best = self.model.best_tokens(batch, self.mask)
        whole = ((best == batch.wanted) | (batch.wanted == IGNORED)).all(-1).cpu()
        tasks = drawn["tasks"]
        return {name: float(whole[tasks == i].float().mean()) for i, name in enumerate(DATASETS)}

    def save(self, folder: Path) -> None:
        """Weights and AdamW's second moments in bf16, in files of at most 15 MB, and the step.

        The first moments, Muon's among them, are left out: they forget within some ten steps.
        """
        tensors = {f"weight.{name}": p.detach() for name, p in self.named.items()}
        for name, parameter in self.named.items():
            if "exp_avg_sq" in self.optimizer.state[parameter]:
                # The second moment's root: its range fits bf16 better, and it is what the step divides by.
                tensors[f"second.{name}"] = self.optimizer.state[parameter]["exp_avg_sq"].sqrt()
        for i, part in enumerate(_parts({n: t.to(torch.bfloat16).cpu().contiguous() for n, t in tensors.items()})):
            with atomic_path(folder / f"training-{i:02}.safetensors") as temporary:
                save_file(part, temporary)
        write_json(
            folder / "training.json",
            {"step": self.step, "recipe": asdict(self.recipe), "shape": asdict(self.model.shape)},
        )

    def load(self, folder: Path) -> None:
        """Continues where `save` left off; without moments beside the weights, the learning rate warms up again."""
        tensors: dict[str, Tensor] = {}
        for path in sorted(folder.glob("training-*.safetensors")):
            tensors |= load_file(path)
        self.step = json.loads((folder / "training.json").read_text())["step"]
        if not any(name.startswith("second.") for name in tensors):
            self.began = self.step
        for name, parameter in self.named.items():
            parameter.data.copy_(tensors[f"weight.{name}"])
            if f"second.{name}" not in tensors:
                continue
            self.optimizer.state[parameter] = {
                "step": torch.tensor(float(self.step), device=self.device if self.device.type == "cuda" else None),
                "exp_avg": torch.zeros_like(parameter),
                "exp_avg_sq": tensors[f"second.{name}"].float().square().to(self.device),
            }


def _parts(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    part: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors.items():
        if part and size + tensor.nbytes > _FILE_BYTES:
            yield part
            part, size = {}, 0
        part[name] = tensor
        size += tensor.nbytes
    yield part


def run(trainer: Trainer, tokenizer: Path, out: Path, minutes: float, workers: int, check_every: int) -> None:
    """Trains until the recipe's last step or the time is up, whichever comes first."""
    recipe, deadline = trainer.recipe, time.monotonic() + 60 * minutes
    words = ChatSceneTokenizer(tokenizer)
    stream = Stream(partial(draw_step, words, recipe, "train"), range(trainer.step, recipe.steps))
    held_out = [draw_step(words, recipe, "val", i) for i in range(4)]
    losses: list[Tensor] = []
    since = time.monotonic()
    for drawn in stream.loader(workers, trainer.device.type == "cuda"):
        losses.append(trainer.train_step(drawn))
        over = time.monotonic() > deadline or trainer.step == recipe.steps
        if over or trainer.step % check_every == 0:
            loss, looks = torch.stack(losses).mean(0).tolist()
            right = [trainer.right(one) for one in held_out]
            share = {name: float(np.nanmean([one[name] for one in right])) for name in DATASETS}
            rate = len(losses) / (time.monotonic() - since)
            line = {"step": trainer.step, "loss": round(loss, 4), "attention_on_objects": round(looks, 4)}
            line |= {"steps_per_second": round(rate, 2), "right": {name: round(one, 4) for name, one in share.items()}}
            print(json.dumps(line), flush=True)
            with (out / "log.jsonl").open("a", encoding="utf-8") as log:
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
    parser.add_argument("--from", dest="source", type=Path, help="folder that an earlier run left")
    parser.add_argument("--tokenizer", type=Path, help="folder of tokenizer.model; made in OUT if not given")
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--check-every", type=int, default=500)
    parser.add_argument(
        "--small", action="store_true", help="two layers, four rooms a step: to try the script on a CPU"
    )
    recipe = Recipe()
    for name in ("steps", "decay_from", "read_until", "park_from"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(recipe, name))
    parser.add_argument("--lr", type=float, default=recipe.lr)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    chosen: dict[str, Any] = {
        name: getattr(given, name) for name in ("steps", "decay_from", "read_until", "park_from", "lr")
    }
    shape = SmallShape()
    if given.small:
        shape, chosen = SmallShape(layers=5, width=64, heads=2, intermediate=96), chosen | {"rooms": 4, "questions": 4}
    tokenizer = given.tokenizer or given.source or given.out
    if not (tokenizer / "tokenizer.model").exists():
        train_tokenizer(tokenizer)
    if tokenizer != given.out:
        (given.out / "tokenizer.model").write_bytes((tokenizer / "tokenizer.model").read_bytes())
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_float32_matmul_precision("high")
    trainer = Trainer(shape, Recipe(**chosen), ChatSceneTokenizer(tokenizer), device)
    if given.source:
        trainer.load(given.source)
    run(trainer, tokenizer, given.out, given.minutes, given.workers, given.check_every)


if __name__ == "__main__":
    main()
