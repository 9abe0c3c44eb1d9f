"""The page of one question of one's own: the room, what each method kept and answered, and what each answer took."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict

import torch
from torch import Tensor

from fast3d_core.asking.reply import Reply
from fast3d_core.asking.rooms import Rooms, SceneObject
from fast3d_core.asking.wording import dataset_of, named_slots
from fast3d_core.pruning import METHODS, Pruner
from fast3d_core.report.html import Page, Table
from fast3d_core.report.methods import method_views
from fast3d_core.report.render import Column, human
from fast3d_core.report.scenes import AnswerView, Browser, QuestionView, RunView, SceneView, rounded

DATASET = "asked"  # in place of a benchmark's name


def asked_page(rooms: Rooms, asked: Sequence[tuple[Pruner, Reply]]) -> Page:
    """The page of one question, by one method or several.

    Args:
        rooms: which were asked.
        asked: each method with its reply, to the same question about the same scene.

    What cannot be shown is left out, with a note.
    """
    replies = [reply for _, reply in asked]
    name, slots = replies[0].scene, rooms.scenes.objects
    detected, notes = rooms.detected(name), []
    attention = next((reply.attention for reply in replies if reply.attention is not None), None)
    if attention is None:
        follow = " and ".join(name for name, method in METHODS.items() if method.needs_map)
        notes.append(f"no method that was asked predicts attention, as {follow} do, so objects have no colour of it")
    if not detected:
        notes.append(f"{rooms.scenes.folder} has no boxes of {name}, so there is no room to show")
    scene = SceneView(
        id=name,
        labels=[one.label or "object" for one in detected],
        boxes=[_box(one) for one in detected],
        questions=[_question(replies, attention, detected)],
    )
    return Page(
        title=f"fast3d ask: {name}",
        report=None,
        tables=[_table(replies)],
        methods=method_views(),
        kept=[],
        agreements=[],
        browser=Browser(slots, [_run_view(*one, slots) for one in asked], [scene]) if detected else None,
        judged_by={},
        notes=notes,
    )


def _question(
    replies: Sequence[Reply], attention: Sequence[float] | None, detected: Sequence[SceneObject]
) -> QuestionView:
    """Objects that the question names are its targets: their detected boxes."""
    prompt = replies[0].prompt
    order, mass = (None, None) if attention is None else _ranked(torch.tensor(attention))
    targets = [_box(detected[slot]) for slot in named_slots(prompt) if slot < len(detected)]
    answers = [_answer(number, reply, len(detected)) for number, reply in enumerate(replies)]
    return QuestionView(DATASET, 0, prompt, [], targets, order, mass, answers)


def _ranked(shares: Tensor) -> tuple[list[int], list[float]]:
    """`QuestionView.order` and `QuestionView.mass` of shares (objects,) float32."""
    found = shares.sort(descending=True, stable=True)
    return found.indices.tolist(), [float(str(value)) for value in found.values.cumsum(-1).numpy()]


def _answer(number: int, reply: Reply, objects: int) -> AnswerView:
    kept = None if reply.kept_tokens == reply.visual else [one.slot for one in reply.kept]
    return AnswerView(number, reply.text, None, kept, [one.slot for one in reply.named if one.slot < objects])


def _run_view(pruner: Pruner, reply: Reply, slots: int) -> RunView:
    settings = asdict(pruner)
    if pruner.rule == "share":
        alpha = settings["alpha"]
        alpha = alpha[dataset_of(reply.task)] if isinstance(alpha, Mapping) else alpha
        return RunView(reply.method, pruner.name, {DATASET: alpha})
    if pruner.rule == "rank" and reply.kept_tokens < reply.visual:
        layer, keep = settings["layer"], -(-settings["keep"] // (reply.visual // slots))
        return RunView(reply.method, pruner.name, None, layer, keep, 1 - layer / reply.layers)
    return RunView(reply.method, pruner.name)


def _table(replies: Sequence[Reply]) -> Table:
    """What each answer took."""
    stages = [name for name in replies[0].seconds if name != "end_to_end"]

    def column(title: str, cells: Sequence[str]) -> Column:
        return Column(title, [(cell,) for cell in cells])

    columns = [
        column("method", [reply.method for reply in replies]),
        column("objects kept", [str(len(reply.kept)) for reply in replies]),
        column("tokens kept", [f"{_each(reply, 1, reply.visual)} of {reply.visual}" for reply in replies]),
        column("from layer", [f"{_each(reply, 0, 0)} of {reply.layers}" for reply in replies]),
        column("pruned", [f"{reply.pruned:.1f}%" for reply in replies]),
        column("FLOPs", [human(reply.flops) for reply in replies]),
        column("unpruned", [human(reply.flops_unpruned) for reply in replies]),
        column("seconds", [f"{reply.seconds['end_to_end']:.3f}" for reply in replies]),
        *(column(name, [f"{reply.seconds[name]:.3f}" for reply in replies]) for name in stages),
    ]
    return Table(
        "Pruned: visual tokens dropped, averaged over the layers. FLOPs: of GAP and the LLM for this answer, and of "
        "the same unpruned. Seconds: all, and of each stage.",
        columns,
    )


def _each(reply: Reply, part: int, otherwise: int) -> str:
    """The layer (0) or the number of tokens (1) of each stage; `otherwise` where there are none."""
    return ", ".join(str(stage[part]) for stage in reply.stages) or str(otherwise)


def _box(one: SceneObject) -> list[float]:
    assert one.centre is not None and one.size is not None  # as all detected ones have
    return rounded([*one.centre, *one.size])
