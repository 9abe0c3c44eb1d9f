"""Chat-Scene's checkpoint: does it fit the LLM, the features and the config, and was it trained on this LLM?"""

from collections.abc import Iterator

import torch
from torch import nn

from fast3d_core.doctor.case import Case
from fast3d_core.doctor.chat_scene import files
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.models.chat_scene.checkpoint import check_fit
from fast3d_core.models.chat_scene.lora import check_base
from fast3d_core.models.chat_scene.model import check_widths
from fast3d_core.text import shown

_RELEASED = 16  # rank and alpha of the released checkpoint
_ROWS = 64  # of the embedding that are compared
# What the released checkpoint was trained with; other values make other prompts, which fast3d does not build.
_PROMPT = {
    "add_scene_token": False,
    "add_img_token": True,
    "no_obj": False,
    "bidirection": False,
    "add_pos_emb": False,
    "feat_fusion": False,
    "fuse_with_id": False,
    "use_objid": True,
    "use_location_token": False,
}


def tensors(case: Case) -> Iterator[Finding]:
    """Names and shapes of all tensors against the LLM's config.json; the numbers of the small ones."""
    checkpoint, shape = files.checkpoint(case), files.llm_shape(case)
    check_fit(checkpoint, shape, case.config.data.max_objects)
    for name, tensor in checkpoint.state.items():
        if ("lora" in name or "proj" in name) and not tensor.isfinite().all():
            yield error(f"{name} holds NaN or infinity", "download the checkpoint again, or take an earlier one")
            return
    ranks = ", ".join(map(str, sorted(checkpoint.lora_ranks())))
    slots = checkpoint.vocab - shape.vocab
    yield ok(f"fits {shape.layers} layers of width {shape.hidden}; LoRA rank {ranks}, {slots} object tokens")


def widths(case: Case) -> Iterator[Finding]:
    """Of the features against the projectors."""
    wanted = files.checkpoint(case).feature_widths()
    check_widths(str(case.config.model.checkpoint), case.scenes, wanted)
    yield ok(f"features are {wanted[0]} (3D) and {wanted[1]} (2D) wide, as the checkpoint reads them")


def lora_alpha(case: Case) -> Iterator[Finding]:
    """Against the checkpoint's settings, where it has them: its tensors do not show it."""
    settings, alpha = files.checkpoint(case).settings, case.config.model.lora_alpha
    lora = settings.get("lora")
    trained = lora.get("lora_alpha") if isinstance(lora, dict) else None
    if isinstance(trained, (int, float)):
        if trained != alpha:
            yield error(f"the checkpoint was trained with lora_alpha {trained}, not {alpha:g}", f"set it to {trained}")
        else:
            yield ok(f"{alpha:g}, as the checkpoint says")
    elif files.checkpoint(case).lora_ranks() == {_RELEASED} and alpha != _RELEASED:
        yield warning(
            f"it is {alpha:g}, {_RELEASED} for the released checkpoint of this rank", f"set it to {_RELEASED}"
        )
    else:
        yield ok(f"{alpha:g}; the checkpoint does not tell")


def training(case: Case) -> Iterator[Finding]:
    """Was it trained on prompts as fast3d builds them?"""
    model = files.checkpoint(case).settings.get("model")
    trained = model if isinstance(model, dict) else {}
    other = [f"{name} {shown(trained[name])}" for name, value in _PROMPT.items() if trained.get(name, value) != value]
    if other:
        yield warning(
            f"the checkpoint was trained with {', '.join(other)}, which the released one was not",
            "its prompts are others than fast3d's: compare its scores with known ones before you use them",
        )
    slots = trained.get("max_obj_num")
    if isinstance(slots, int) and slots != case.config.data.max_objects:
        yield warning(
            f"the checkpoint was trained on {slots} object slots, data.max_objects is {case.config.data.max_objects}",
            f"set data.max_objects to {slots}",
        )


def base(case: Case) -> Iterator[Finding]:
    """Its embedding began as that of the LLM it was trained on, and training moves it little."""
    checkpoint = files.checkpoint(case)
    check_base(checkpoint.base, files.llm_weights(case), str(checkpoint.path))
    own, trained = files.llm_weights(case)["model.embed_tokens.weight"], checkpoint.embedding
    if own.shape[1] != trained.shape[1]:
        return  # reported by `tensors`
    rows = torch.linspace(0, min(len(own), len(trained)) - 1, _ROWS).long().unique()
    likeness = nn.functional.cosine_similarity(own[rows].float(), trained[rows].float()).mean().item()
    if not likeness > 0.5:
        yield error(
            f"the checkpoint was trained on another LLM: its embedding does not resemble that of model.llm "
            f"(cosine {likeness:.2f})",
            "set model.llm to the LLM it was trained on, for the released one Vicuna-7B v1.5",
        )
    else:
        yield ok(f"its embedding resembles that of model.llm (cosine {likeness:.2f}), so it was trained on it")


def numbers(case: Case) -> Iterator[Finding]:
    """Are all weights finite?"""
    for what, tensors in (("the LLM", files.llm_weights(case)), ("the checkpoint", files.checkpoint(case).state)):
        case.options.log(f"reading the numbers of {what}")
        for name, tensor in tensors.items():
            if not tensor.isfinite().all():
                yield error(f"{what}: {name} holds NaN or infinity", "download it again")
                return
    yield ok("all weights of the LLM and the checkpoint are finite")
