"""The text encoder that GAP reads questions with: RoBERTa, from a folder or from Hugging Face."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaModel, RobertaTokenizer
from transformers.utils import logging as transformers_logging

from fast3d_core.data.files import check_torch, first_line, load_json, need, shown
from fast3d_core.data.pretrained import network_settings, weight_files
from fast3d_core.data.settings import fingerprint, llm_files
from fast3d_core.errors import DataError

_T = TypeVar("_T")
_WHAT = "gap.text_encoder"

# What config.json says about a RoBERTa beside what it says about any network.
_NETWORK = ("type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps")


def encoder_fingerprint(source: Path | str) -> Any:
    """What tells one text encoder from another, as plain data: its files by size and digest, or its name on the hub.

    Raises `DataError` when there is no such folder.
    """
    if isinstance(source, str):
        return source
    _need_folder(source)
    merges = source / "merges.txt"  # the one file of the tokeniser that an LLM's has not
    files = [*llm_files(source), *([merges] if merges.exists() else [])]
    return {path.name: fingerprint(path) for path in files}


def _need_folder(source: Path) -> None:
    need(need(source, "gap.text_encoder") / "config.json", "gap.text_encoder")


def load_text_config(source: Path | str) -> RobertaConfig:
    """The encoder's sizes. Raises `DataError` when there is no RoBERTa at `source`."""
    if isinstance(source, Path):
        _need_folder(source)
        content = load_json(source / "config.json", _WHAT)
    else:
        content = _fetch(source, lambda: RobertaConfig.from_pretrained(source)).to_dict()
    kind = content.get("model_type") if isinstance(content, dict) else None
    if kind != "roberta":
        raise DataError(f"gap.text_encoder: {source} is a {shown(kind)} model, GAP reads text with RoBERTa")
    settings = network_settings(content, _NETWORK, Path(source) / "config.json", _WHAT)
    return _fetch(source, lambda: RobertaConfig(**settings))


def load_text_encoder(source: Path | str, dropout: float | None = None) -> RobertaModel:
    """The pre-trained encoder, in float32; `dropout` replaces the one in its config."""
    config = load_text_config(source)
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    if isinstance(source, Path):
        _check_weights(source, config)  # transformers makes room for whatever config.json claims
    loaded: Any = _fetch(
        source,
        lambda: RobertaModel.from_pretrained(source, config=config, dtype=torch.float32, output_loading_info=True),
    )
    encoder, info = loaded
    # A pooler may be absent: GAP never uses it. Anything else would be filled with random numbers.
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    wrong = missing + [str(key) for key in info.get("mismatched_keys", [])]
    if wrong:
        raise DataError(
            f"gap.text_encoder: {source} lacks tensors or has them in another shape: {', '.join(wrong[:5])}"
        )
    return encoder


def _check_weights(folder: Path, config: RobertaConfig) -> None:
    """Raises `DataError` where config.json tells of more numbers than the weights have bytes."""
    numbers = sum(tensor.numel() for tensor in empty_text_encoder(folder, config).parameters())
    size = 0
    for path in weight_files(folder, _WHAT):
        size += path.stat().st_size
        if path.suffix != ".safetensors":
            check_torch(path, _WHAT)
    if numbers > size:
        raise DataError(f"{_WHAT}: {folder}: config.json tells of {numbers} numbers, the weights have {size} bytes")


def empty_text_encoder(source: Path | str, config: RobertaConfig) -> RobertaModel:
    """An encoder without numbers, on the meta device. Raises `DataError` where `config` describes none."""
    with torch.device("meta"):
        return _fetch(source, lambda: RobertaModel(config))


class QuestionTokenizer:
    """Questions to RoBERTa token ids.

    Args:
        source: folder or Hugging Face name.
    """

    def __init__(self, source: Path | str):
        config = load_text_config(source)
        self._tokenizer = _fetch(source, lambda: RobertaTokenizer.from_pretrained(source))
        self.pad_id: int = config.pad_token_id or 0
        self._source, self._vocab = source, config.vocab_size
        self.longest = config.max_position_embeddings - self.pad_id - 1  # RoBERTa counts positions from there

    def __call__(self, questions: Sequence[str]) -> tuple[Tensor, list[int]]:
        """Right-padded ids (questions, longest of them) int32, and the length of each; too long ones are cut."""
        rows = (
            self._tokenizer(list(questions), truncation=True, max_length=self.longest)["input_ids"] if questions else []
        )
        if (last := max((max(row, default=0) for row in rows), default=0)) >= self._vocab:
            raise DataError(
                f"gap.text_encoder: the tokenizer of {self._source} gives token {last}, config.json says that there "
                f"are {self._vocab}; are both from the same model?"
            )
        lengths = [len(row) for row in rows]
        ids = torch.full((len(rows), max(lengths, default=0)), self.pad_id, dtype=torch.int32)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row, dtype=torch.int32)
        return ids, lengths


def _fetch(source: Path | str, load: Callable[[], _T]) -> _T:
    with _quiet():
        try:
            return load()
        except Exception as error:  # hub, cache and tokeniser errors are of many kinds
            hint = "is it a complete download?" if isinstance(source, Path) else "or name a folder that holds it"
            raise DataError(f"gap.text_encoder: {source} cannot be loaded ({first_line(error)}); {hint}") from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
