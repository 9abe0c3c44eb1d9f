"""Chat-Scene's LLM: its weights and its tokeniser."""

from collections.abc import Iterator
from pathlib import Path

from fast3d_core.doctor.case import Case
from fast3d_core.doctor.chat_scene.files import llm_folder, llm_shape, llm_weights, tokenizer
from fast3d_core.doctor.findings import Finding, error, ok, warning
from fast3d_core.files.fingerprints import file_hash
from fast3d_core.llm.families import FAMILIES, LlmConfig, check_window
from fast3d_core.llm.generation import check_beams
from fast3d_core.llm.weights import read_config, weight_files
from fast3d_core.models.chat_scene.model import check_vocabulary
from fast3d_core.models.chat_scene.prompt import AFTER_OBJECTS, PREFIX, QUESTION
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer

# The tokenizer.model that LLaMA 1 and 2 and Vicuna were released with: bytes and sha256.
_RELEASED = (499_723, "9e556afd44213b6bd1be2b850ebbbd98f5481437a8021afaf58ee7fb1818d347")
# What it makes of Chat-Scene's fixed text, for files that are not those very bytes. The published code counts on the
# prefix's 45 tokens. The tests hold these ids against recorded ones.
_VICUNA_VOCAB = 32000
_VICUNA = {
    PREFIX: [
        1, 319, 13563, 1546, 263, 12758, 1404, 322, 385, 23116, 21082, 20255, 29889, 450, 20255, 4076, 8444, 29892,
        13173, 29892, 322, 1248, 568, 6089, 304, 278, 1404, 29915, 29879, 5155, 29889, 450, 14983, 1644, 414, 2820, 385,
        1399, 16946, 9088, 29889, 4669, 2472, 29901, 518,
    ],
    AFTER_OBJECTS: [29871, 1822, 3148, 1001, 29901, 29871],
    QUESTION.format(prompt="What can you do?"): [
        29871, 1724, 508, 366, 437, 29973, 319, 1799, 9047, 13566, 29901, 29871,
    ],
}  # fmt: skip
_PROBED = 200  # questions of each dataset that are searched for text unknown to the tokeniser


def weights(case: Case) -> Iterator[Finding]:
    """Family, names, shapes and number types of all tensors."""
    tensors = llm_weights(case).values()
    numbers = sum(tensor.numel() for tensor in tensors)
    kinds = dict.fromkeys(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    files = weight_files(llm_folder(case))
    several = f"{len(files)} files, {files[0].name} first" if len(files) > 1 else files[0].name
    family = FAMILIES[read_config(llm_folder(case)).model_type]
    yield ok(f"{family.title}: {len(tensors)} tensors, {numbers / 1e6:.4g} M numbers, {', '.join(kinds)}; in {several}")


def tokeniser(case: Case) -> Iterator[Finding]:
    """Is tokenizer.model the LLM's own? Another's gives other ids, and the LLM reads noise without an error."""
    read_by = tokenizer(case)
    check_vocabulary(read_by, llm_shape(case).vocab)
    config = read_config(llm_folder(case))
    released = _is_released(llm_folder(case) / "tokenizer.model")
    if released and config.model_type == "llama":
        yield ok(f"tokenizer.model: {read_by.vocab_size} tokens, LLaMA's own, byte for byte")
        return
    own = {"bos": config.bos_token_id, "eos": config.eos_token_id}
    read = {"bos": read_by.bos_id, "eos": read_by.eos_id}
    problems = [
        f"{name} is token {read[name]} in tokenizer.model, {own[name]} in config.json"
        for name in own
        if isinstance(own[name], int) and own[name] != read[name]
    ]
    if released:
        problems.append(f"it is LLaMA's own, the LLM is a {FAMILIES[config.model_type].title}")
    elif _is_vicunas_size(config):
        problems += _not_vicuna(read_by)
    if problems:
        yield error(f"tokenizer.model is of another model: {problems[0]}", "take the one from the LLM's own repository")
    else:
        known = "LLaMA's own" if _is_vicunas_size(config) else "of an LLM that is not known here"
        yield ok(f"tokenizer.model: {read_by.vocab_size} tokens, {known}")


def _is_vicunas_size(config: LlmConfig) -> bool:
    """Whether the tokeniser should be LLaMA's own; Mistral's has as many tokens, and others."""
    return config.model_type == "llama" and config.vocab_size == _VICUNA_VOCAB


def _is_released(path: Path) -> bool:
    size, sha256 = _RELEASED
    return path.stat().st_size == size and file_hash(path) == sha256


def _not_vicuna(read_by: ChatSceneTokenizer) -> Iterator[str]:
    for text, wanted in _VICUNA.items():
        ids = read_by.encode(text, bos=text is PREFIX)
        if len(ids) != len(wanted):
            yield f"{text[:40]!r} takes {len(ids)} tokens, {len(wanted)} in LLaMA's"
        elif ids != wanted:
            yield f"{text[:40]!r} gives other ids than LLaMA's"


def prompts(case: Case) -> Iterator[Finding]:
    """Can the tokeniser spell the questions, and the LLM hold them?"""
    read_by, config = tokenizer(case), case.config
    unknown = total = 0
    for dataset in case.datasets:
        for sample in case.samples(dataset)[:_PROBED]:
            ids = read_by.encode(sample.prompt)
            unknown, total = unknown + ids.count(read_by.unk_id), total + len(ids)
    if unknown * 20 > total:
        share = 100 * unknown / total
        yield error(
            f"tokenizer.model does not know {share:.0f}% of the questions' tokens, so it is of another model",
            "take the one from the LLM's own repository",
        )
    check_beams(config.generation, case.shape.vocab)
    llm = read_config(llm_folder(case))
    positions = llm.max_position_embeddings
    prompt = case.longest_text() + case.units.visual
    check_window(llm, prompt, config.generation.max_new_tokens)
    longest = prompt + config.generation.max_new_tokens
    if longest > positions:
        yield warning(
            f"the longest prompt and answer take {longest} tokens, the LLM was trained on {positions}",
            "lower generation.max_new_tokens, or look at the longest question",
        )
    else:
        yield ok(f"the longest prompt and answer take {longest} of {positions} tokens")
