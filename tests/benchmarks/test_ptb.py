"""The tokeniser against what the Java tokeniser made of the same captions (`tests/data/ptb/record.py`)."""

import gzip
import json
import time
from pathlib import Path

import pytest

from fast3d_core.benchmarks.ptb import tokenize

DATA = Path(__file__).parents[1] / "data"


def recorded() -> list[tuple[str, str]]:
    with gzip.open(DATA / "ptb" / "recorded.jsonl.gz", "rt", encoding="utf-8") as file:
        return [tuple(json.loads(line)) for line in file]


def test_ten_thousand_captions_as_recorded() -> None:
    pairs = recorded()
    assert len(pairs) == 10_000
    start = time.perf_counter()
    wrong = [(text, java, ours) for text, java in pairs if (ours := tokenize(text)) != java]
    seconds = time.perf_counter() - start
    assert wrong == []
    assert seconds < 20  # about one second; this catches only a tokeniser that has become another kind of slow


# Each expectation was seen from the Java tokeniser.
EXAMPLES = {
    "sentence": ("There is a chair. It is brown!", "there is a chair it is brown"),
    "negation": ("It isn't here, I don't and can't", "it is n't here i do n't and ca n't"),
    "clitics": ("it's the desk's, we've and they'd", "it 's the desk 's we 've and they 'd"),
    "curly apostrophe": ("it’s 5 o’clock", "it 's 5 o’clock"),
    "two words in one": ("you cannot gonna gimme", "you can not gon na gim me"),
    "aphaeresis": ("'tis 'em '90s rock 'n' roll", "'t is 'em '90s rock 'n' roll"),
    "dialect": ("y'all o'clock ma'am", "y' all o'clock ma'am"),
    "hyphens": ("an l-shaped 2-door off-white one -- or a-b-c", "an l-shaped 2-door off-white one or a-b-c"),
    "numbers": ("1,000.50 3/4 1-2 2nd $5 50% 5.5cm", "1,000.50 3/4 1-2 2nd $ 5 50 % 5.5 cm"),
    "fractions": ("½ 1½ 1 1/2", "1/2 1 1/2 1\xa01/2"),
    "telephone": ("(800) 555-1212", "-lrb-800-rrb-\xa0555-1212"),
    "currencies": ("€5 £5 5¢ US$5", "$ 5 # 5 5 cents us$ 5"),
    "brackets": ("(a) [b] {c}", "-lrb- a -rrb- -lsb- b -rsb- -lcb- c -rcb-"),
    "quotation marks": ("\"a\" `b' ``c'' “d” ‘e’ «f»", "a b c d e f"),
    "dashes and ellipses": ("a – b—c ... d… e . . . f", "a b c d e f"),
    "abbreviations": ("mr. x at 5 p.m. in the u.s. etc.", "mr. x at 5 p.m. in the u.s. etc."),
    "full stop": ("the tv. is on. yes.", "the tv is on yes"),
    "number abbreviation": ("no. 5 or no.", "no. 5 or no"),
    "stop before a comma": ("a chair., and", "a chair. and"),
    "missing space": ("a chair.It is", "a chair.it is"),
    "object ids": ("<OBJ012>, <OBJ003>. the <unk><s>", "<obj012> <obj003> the <unk> <s>"),
    "angle brackets": ("a < b > c <3 <a href='x'>", "a < b > c < 3 <a\xa0href='x'>"),
    "slashes": ("and/or w/o a/b/c/d", "and/or w/o a/b/c / d"),
    "ampersands": ("AT&T a&b &amp; &lt;", "at&t a & b & <"),
    "underscores": ("a_b _a_", "a_b _ a _"),
    "smileys": ("nice :) :-( ^_^", "nice :-rrb- :--lrb- ^_^"),
    "addresses": ("http://a.bc/d?e=f. me@foo.com @x #y", "http://a.bc/d?e=f me@foo.com @x #y"),
    "accents": ("Café NAÏVE e\u0301", "café naïve e\u0301"),
    "other scripts": ("日本語 привет हिन्दी", "日本語 привет हिन्दी"),
    "unknown characters": ("a😀b \u200b\x00", "a b"),
    "soft hyphen": ("cab\xadinet", "cabinet"),
    "superscripts": ("5m² 20°C", "5m ² 20 ° c"),
    "newline": ("a\nb", "a b"),
    "other line ends": ("a\rb", "a"),
    "spaces": ("  a \t b\xa0c  ", "a b c"),
    "nothing": ("", ""),
    "punctuation only": (" ... !? , ;", "!?"),
}


@pytest.mark.parametrize(("caption", "tokens"), EXAMPLES.values(), ids=EXAMPLES)
def test_example(caption: str, tokens: str) -> None:
    assert tokenize(caption) == tokens


@pytest.mark.parametrize("dataset", ["scanqa", "sqa3d"])
def test_answers_of_the_published_run(dataset: str) -> None:
    details = json.loads((DATA / "metrics" / "details.json").read_text())[dataset]
    cleaned = [answer for answer, _, _ in details["cleaned_pred_em_emrefined"]]
    assert [[tokenize(answer)] for answer in cleaned] == details["tokenized_preds"]


@pytest.mark.parametrize("text", ["a'" * 5000, "a." * 5000, "<a " * 3000, "-" * 10_000, "a@" * 5000, "<a" + " " * 5000])
def test_long_odd_texts_end_soon(text: str) -> None:
    start = time.perf_counter()
    tokenize(text)
    assert time.perf_counter() - start < 10
