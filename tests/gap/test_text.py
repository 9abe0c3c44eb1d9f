"""The text encoder's folder: a tokeniser that is not whole would make maps of noise, without an error."""

import json
import shutil

import pytest
from transformers import RobertaTokenizer

from fast3d_core.errors import DataError
from fast3d_core.gap.text import QuestionTokenizer
from tests.conftest import MINIATURE

SHIPPED = MINIATURE.parent / "gap" / "roberta_tiny"
QUESTIONS = ["What is to the left of the brown chair?"]


@pytest.fixture
def encoder(tmp_path):
    return shutil.copytree(SHIPPED, tmp_path / "encoder")


def gone(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def half_the_merges(folder):
    lines = (folder / "merges.txt").read_text().splitlines()
    (folder / "merges.txt").write_text("\n".join(lines[: len(lines) // 2]) + "\n")


def specials_alone(folder):
    vocab = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({token: i for token, i in vocab.items() if i < 4}))


def no_merges_in_one_file(folder):
    """tokenizer.json comes before the others."""
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["merges"] = []
    (folder / "tokenizer.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (gone("vocab.json", "merges.txt"), "lacks vocab.json and merges.txt; `fast3d download roberta`"),
        (gone("vocab.json"), "lacks vocab.json; "),
        (gone("merges.txt"), "lacks merges.txt; "),
        (text("merges.txt", ""), "lacks merges: they make 0 of the 129 longer tokens"),
        (text("merges.txt", "#version: 0.2\n"), "lacks merges: they make 0 of the 129"),
        (half_the_merges, "lacks merges: they make 64 of the 129"),
        (text("vocab.json", "{}"), "gap.text_encoder: "),
        (text("vocab.json", ""), "gap.text_encoder: "),
        (specials_alone, "gap.text_encoder: "),
        (no_merges_in_one_file, "lacks merges: they make 0 of the"),
    ],
)
def test_a_tokeniser_that_is_not_whole(encoder, change, message):
    change(encoder)
    with pytest.raises(DataError, match=message) as refused:
        QuestionTokenizer(encoder)
    assert str(encoder) in str(refused.value) and "\n" not in str(refused.value)


def test_one_file_does_for_two(encoder):
    wanted = QuestionTokenizer(encoder)(QUESTIONS)
    RobertaTokenizer.from_pretrained(encoder).save_pretrained(encoder)
    gone("vocab.json", "merges.txt")(encoder) if (encoder / "vocab.json").exists() else None
    assert (encoder / "tokenizer.json").exists()
    ids, lengths = QuestionTokenizer(encoder)(QUESTIONS)
    assert ids.equal(wanted[0]) and lengths == wanted[1]


@pytest.mark.parametrize("pad", [-1, None, "1", True, 1.5, [1], 122, 390, 10**12])
def test_padding_that_is_no_token(encoder, pad):
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**settings, "pad_token_id": pad}))
    with pytest.raises(DataError, match="config.json: pad_token_id is .*, not a number from 0 to 121"):
        QuestionTokenizer(encoder)


def test_padding_that_is_another_token_than_the_tokeniser_s(encoder):
    """Positions would be counted from elsewhere, and <s> taken for padding."""
    settings = json.loads((encoder / "config.json").read_text())
    (encoder / "config.json").write_text(json.dumps({**settings, "pad_token_id": 0}))
    with pytest.raises(DataError, match="config.json pads with token 0, the tokeniser with 1"):
        QuestionTokenizer(encoder)
