"""The text encoder that GAP reads questions with: RoBERTa, from a folder or from Hugging Face."""

import contextlib
import json
import string
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from transformers import RobertaConfig, RobertaModel, RobertaTokenizer
from transformers.utils import logging as transformers_logging

from fast3d_core.errors import DataError
from fast3d_core.files.files import check_torch, load_json, need
from fast3d_core.files.fingerprints import fingerprint, llm_files
from fast3d_core.files.hub_cache import check_model_folder
from fast3d_core.files.pretrained import network_settings, weight_files
from fast3d_core.text import first_line, shown

_T = TypeVar("_T")
_FEWEST_TOKENS = 8  # positions that padding must leave to questions
_LETTERS = f"{string.ascii_letters}\u0120"  # the last is a space, as byte-pair encodings of bytes spell it
_FEW = 10  # words in the vocabulary that are there by name, such as RoBERTa's three "madeupword"
_TOKENISER = "`fast3d download roberta` gets all of its files: vocab.json and merges.txt, or tokenizer.json, among them"
_WHAT = "gap.text_encoder"

# What config.json says about a RoBERTa beside what it says about any network.
_NETWORK = ("type_vocab_size", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps")


def encoder_fingerprint(source: Path | str) -> Any:
    """What distinguishes one text encoder from another, as plain data: its files by size and digest, or its name on the
    hub.

    Raises `DataError` when there is no such folder.
    """
    if isinstance(source, str):
        return source
    return {path.name: fingerprint(path) for path in encoder_files(source)}


def encoder_files(source: Path | str) -> list[Path]:
    """The files of a text encoder that maps depend on; none of one that has a name on the hub.

    Raises `DataError` when there is no such folder.
    """
    if isinstance(source, str):
        return []
    _need_folder(source)
    merges = source / "merges.txt"  # the one file of the tokeniser that an LLM's has not
    return [*llm_files(source), *([merges] if merges.exists() else [])]


def _need_folder(source: Path) -> None:
    check_model_folder(source, _WHAT)
    need(need(source, _WHAT) / "config.json", _WHAT)


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
    path = Path(source) / "config.json"
    settings = network_settings(content, _NETWORK, path, _WHAT)
    _check_padding(settings, path)
    return _fetch(source, lambda: RobertaConfig(**settings))


def _check_padding(settings: dict[str, Any], path: Path) -> None:
    """Raises `DataError` unless the padding is a token, and leaves positions to others: RoBERTa counts from it on."""
    published = RobertaConfig()
    pad = settings.setdefault("pad_token_id", published.pad_token_id)
    tokens = settings.setdefault("vocab_size", published.vocab_size)
    positions = settings.setdefault("max_position_embeddings", published.max_position_embeddings)
    most = min(tokens, positions - _FEWEST_TOKENS) - 1
    if type(pad) is not int or not 0 <= pad <= most:
        raise DataError(f"{_WHAT}: {path}: pad_token_id is {shown(pad)}, not a number from 0 to {most}; RoBERTa's is 1")


def load_text_encoder(source: Path | str, dropout: float | None = None) -> RobertaModel:
    """The pre-trained encoder, in float32; `dropout` replaces the one in its config."""
    config = load_text_config(source)
    if dropout is not None:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    if isinstance(source, Path):
        _check_weights(source, config)  # transformers allocates whatever config.json claims
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
    """Raises `DataError` where config.json claims more numbers than the weights have bytes."""
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
        if isinstance(source, Path):
            _need_vocabulary(source)
        self._tokenizer = _fetch(source, lambda: RobertaTokenizer.from_pretrained(source))
        if problem := _lacking(self._tokenizer):
            raise DataError(f"{_WHAT}: the tokeniser of {source} {problem}", _TOKENISER)
        self.pad_id: int = config.pad_token_id or 0  # `load_text_config` made sure of it
        if self._tokenizer.pad_token_id != self.pad_id:
            raise DataError(
                f"{_WHAT}: {source}: config.json pads with token {self.pad_id}, the tokeniser with "
                f"{self._tokenizer.pad_token_id}; are both from the same model?"
            )
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


def _need_vocabulary(folder: Path) -> None:
    """Raises `DataError` where a folder lacks the files of a tokeniser: transformers would make one without words."""
    missing = [name for name in ("vocab.json", "merges.txt") if not (folder / name).exists()]
    if missing and not (folder / "tokenizer.json").exists():
        raise DataError(f"{_WHAT}: {folder} lacks {' and '.join(missing)}", _TOKENISER)


def _lacking(tokenizer: Any) -> str:
    """What a tokeniser lacks of RoBERTa's, by which a question would be cut into other tokens; empty where it is whole.

    Every token of several letters is joined from two by a merge, and there are all letters.
    """
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    vocab, merges = model.get("vocab"), model.get("merges")
    if model.get("type") != "BPE" or not isinstance(vocab, dict) or not isinstance(merges, list):
        return "is no byte-pair encoding as RoBERTa's"
    if absent := [letter for letter in _LETTERS if letter not in vocab]:
        return f"has no vocabulary: {len(absent)} of {len(_LETTERS)} letters are not in it"
    joined = {merge.replace(" ", "") if isinstance(merge, str) else "".join(merge) for merge in merges}
    words = [token for token in vocab.keys() - tokenizer.get_added_vocab().keys() if len(token) > 1]
    loose = [token for token in words if token not in joined]
    if not words or len(loose) > _FEW + len(words) // 1000:
        return f"lacks merges: they make {len(words) - len(loose)} of the {len(words)} longer tokens of its vocabulary"
    return ""


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
