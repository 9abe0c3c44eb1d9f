"""Chat-Scene's files, each loaded once, by the loaders that `fast3d eval` uses."""

import contextlib
from pathlib import Path

from torch import Tensor

from fast3d_core.config import need_checkpoint, need_path
from fast3d_core.doctor.case import Case
from fast3d_core.errors import DataError
from fast3d_core.files.checkpoints import checkpoint_file
from fast3d_core.llm.cost import LlmShape
from fast3d_core.llm.weights import open_weights, read_shape, weight_files
from fast3d_core.models.chat_scene.checkpoint import Checkpoint, load_checkpoint
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer


def llm_folder(case: Case) -> Path:
    """The LLM's folder."""
    return case.once("the LLM's folder", lambda: need_path(case.config, "model.llm"))


def llm_shape(case: Case) -> LlmShape:
    """The LLM's, with its own vocabulary."""
    folder = llm_folder(case)
    return case.once("the LLM's config.json", lambda: read_shape(folder))


def llm_weights(case: Case) -> dict[str, Tensor]:
    """The LLM's tensors, mapped into memory."""
    folder = llm_folder(case)
    return case.once("the LLM's weights", lambda: open_weights(folder))


def tokenizer(case: Case) -> ChatSceneTokenizer:
    """The tokeniser."""
    folder, objects = llm_folder(case), case.config.data.max_objects
    return case.once("the tokeniser", lambda: ChatSceneTokenizer(folder, objects))


def checkpoint(case: Case) -> Checkpoint:
    """The checkpoint, its names checked."""

    def load() -> Checkpoint:
        path, allow = need_checkpoint(case.config, "model.checkpoint"), case.config.model.allow_unexpected
        return load_checkpoint(path, layers, allow_unexpected=allow)

    layers = llm_shape(case).layers
    return case.once("the checkpoint", load)


def large_files(case: Case) -> list[Path]:
    """Weights, tokeniser and, where there is one, checkpoint."""
    folder = llm_folder(case)
    files = [*weight_files(folder), folder / "tokenizer.model"]
    with contextlib.suppress(DataError):  # the check of the checkpoint says so
        files.append(checkpoint_file(case.config.model.checkpoint, "model.checkpoint"))
    return files
