"""The tokeniser equals transformers 4.31's, recorded in tokenization.json (prompts, probes) and tokenizer_fuzz.json."""

import json

import pytest

from fast3d_core.errors import DataError
from fast3d_core.models.chat_scene.prompt import AFTER_OBJECTS, PREFIX, QUESTION
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer, tidy_answer
from tests.conftest import MINIATURE, RECORDED

TOKENS = json.loads((RECORDED / "tokenization.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> ChatSceneTokenizer:
    return ChatSceneTokenizer(MINIATURE.parent / "llm")


def test_fixed_text(tokenizer):
    assert tokenizer.encode(PREFIX, bos=True) == TOKENS["p_0_ids"]
    assert tokenizer.encode(AFTER_OBJECTS) == TOKENS["p_1_ids"]


def test_prompts(tokenizer, fixture):
    for sample in fixture.samples:
        recorded = TOKENS["prompts"][f"{sample.dataset}/{sample.index}"]
        assert QUESTION.format(prompt=sample.prompt) == recorded["text"]
        assert tokenizer.encode(recorded["text"]) == recorded["ids"]


@pytest.mark.parametrize("probe", TOKENS["probes"], ids=lambda probe: repr(probe["text"]))
def test_probes(tokenizer, probe):
    assert tokenizer.encode(probe["text"]) == probe["ids"]
    assert tokenizer.encode(probe["text"], bos=True) == probe["ids_with_special"]


@pytest.mark.parametrize("probe", TOKENS["decode_probes"], ids=lambda probe: repr(probe["raw"]))
def test_decoding(tokenizer, probe):
    assert tokenizer.decode(probe["ids"]) == probe["raw"]
    assert tidy_answer(probe["raw"]) == probe["post"]


def test_thousands_of_odd_strings(tokenizer):
    fuzz = json.loads((RECORDED / "tokenizer_fuzz.json").read_text())
    assert [tokenizer.encode(text) for text, _ in fuzz["encode"]] == [ids for _, ids in fuzz["encode"]]
    assert [tokenizer.decode(ids) for ids, _ in fuzz["decode"]] == [text for _, text in fuzz["decode"]]


def test_missing_or_damaged_model_file(tmp_path):
    with pytest.raises(DataError, match="tokenizer.model does not exist"):
        ChatSceneTokenizer(tmp_path)
    (tmp_path / "tokenizer.model").write_bytes(b"no model")
    with pytest.raises(DataError, match="not a sentencepiece model"):
        ChatSceneTokenizer(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"</s>", b"</\xff>", "is not a sentencepiece model"),  # no UTF-8
        (b"\n\x05<unk>", b"\n\x05<unk\xff", "is not a sentencepiece model"),
    ],
)
def test_pieces_that_are_no_text(tmp_path, old, new, message):
    whole = (MINIATURE.parent / "llm" / "tokenizer.model").read_bytes()
    assert old in whole
    (tmp_path / "tokenizer.model").write_bytes(whole.replace(old, new))
    with pytest.raises(DataError, match=message):
        ChatSceneTokenizer(tmp_path)
