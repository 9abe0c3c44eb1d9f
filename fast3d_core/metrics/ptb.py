"""Penn Treebank tokens of a caption, as the published captioning scores count them, without Java.

`tokenize` gives what pycocoevalcap 1.2's `PTBTokenizer().tokenize` gives for one caption: Stanford CoreNLP 3.4.1's
PTBTokenizer with `-preserveLines -lowerCase`, then the tokens of pycocoevalcap's punctuation list dropped. The rules
below were found by running that tokeniser as a black box and comparing outputs; none of its source was read.

How it works: at each position every named pattern is tried and the longest match wins (the first one on a tie), as in
any scanner generator. Group 1 of a pattern, where there is one, is the token; the rest of the match is context that the
pattern needs to see (and that counts towards the longest match), but that stays in the text.
"""

import re
import unicodedata
from functools import lru_cache

# pycocoevalcap's list. It is compared after lower-casing, so that "-lrb-" and its kin are NOT dropped: so be it.
_PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

# ---------------------------------------------------------------------------------------------------------------------
# Characters. The patterns look at a "shadow" of the text, of the same length, in which one character stands for all
# those that are treated alike; the tokens are cut from the text itself.
# ---------------------------------------------------------------------------------------------------------------------
_LETTER, _DIGIT, _MARK, _HYPHEN, _SPACE, _NOTHING, _SYMBOL = "ä", "٣", "\u0301", "‐", "\u2003", "\0", "§"
_AMPERSAND, _APOSTROPHE, _ENTITY_LETTER, _ENTITY_SIGN = "\1", "\2", "\3", "\4"  # those written as entities


def _ranges(text: str) -> frozenset[int]:
    """The code points in "2c2-2c5 3f6": hexadecimal, ends included."""
    pairs = (part.split("-") for part in text.split())
    return frozenset(c for pair in pairs for c in range(int(pair[0], 16), int(pair[-1], 16) + 1))


# Combining marks and the like: letters, except that they do not continue a number.
_MARKS = _ranges(
    "2c2-2c5 2d2-2df 2e5-2eb 2ed 2ef-36f 375 378-379 384-385 3f6 483-487 55a-55f 591-5bd 5bf 5c1-5c2 5c4-5c5 5c7 "
    "615-61a 64b-65e 670 6d6-6e4 6e7-6ed 6fd-6fe 70f 711 730-74c 7a6-7b0 7eb-7f3 900-903 93c 93e-94e 951-955 "
    "962-963 981-983 9bc 9be-9c4 9c7-9c8 9cb-9cd 9d7 9e2-9e3 a01-a03 a3c a3e-a4f a81-a83 abc abe-acf b82 bbe-bc2 "
    "bc6-bc8 bca-bcd c01-c03 c3e-c56 d3e-d44 d46-d48 e31 e34-e3a e47-e4e eb1 eb4-ebc ec8-ecd 1885-1886"
)
# Each one is a token.
_SYMBOLS = _ranges(
    "a1 a5-a9 ac ae-b1 b4 b6-b8 bf d7 f7 37e 387 589 5be 5c0 5c3 5c6 5f3-5f4 600-603 606-60c 614 61b 61e-61f 66a "
    "66d 6d4 700-70d 7f6-7f8 964-965 e3f e4f 1fbd 2016-2017 2020-2023 2030-2038 203b 203e-2042 207a-207e "
    "208a-208e 20a4 2100-2101 2103-2106 2108-2109 2114 2116-2118 211e-2123 2125 2127 2129 212e 213a-213b "
    "2140-2144 214a-214d 214f 2155-215e 2190-2bff 3001-3002 3012 30fb ff01-ff0f ff1a-ff20 ff3b-ff40 ff5b-ff65 "
    "ffe0-ffe1 ffe5-ffe6"
)
# Letters of Unicode versions that the tokeniser does not know: dropped, like all that is in no class.
_YOUNG = _ranges(
    "37f 528-52f 560 588 5ef 860-88e 8a1 8ad-8c9 978 980 9fc af9 c34 c5a-c5d c80 cdd d04 d54-d5f de6-def e86 e89 "
    "e8c e8e-e93 e98 ea0 ea8-ea9 eac 13f5-13fd 16f1-16f8 170d 171f 1878 191d-191e 19b0-19c0 19c8-19c9 1b4c "
    "1c80-1cbf 1cf2-1cf3 1cfa 2c2f 2c5f 312e-312f 31bb-31bf 4db6-4dbf 9fcd-9fff a698-a69d a78f a794-a79f "
    "a7ab-a7f7 a8fd-a8fe a9e0-a9fe aa7e-aa7f ab30-abbf"
)
_SPACES = _ranges("2000-200a 3000")
_HYPHENS = _ranges("58a 2010-2011")  # join words; dropped where they do not
# Characters with a role of their own in the patterns.
_AS_IS = frozenset("\xa0\xad٫٬⁄‘’‛‚“”„‟«»‹›…–—―½¼¾⅓⅔¢£€¤₠¹²³⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉\x80\x85\x91\x92\x93\x94\x96\x97")


@lru_cache(maxsize=4096)
def _shadow(char: str) -> str:
    """The character that stands for `char` in the patterns."""
    code = ord(char)
    if char in _AS_IS:
        return char
    if char in _PRIVATE:
        return _PRIVATE[char][1]
    if code in _SPACES:
        return _SPACE
    if code in _HYPHENS:
        return _HYPHEN
    if code in _MARKS:
        return _MARK
    if code in _SYMBOLS:
        return _SYMBOL
    category = unicodedata.category(char)
    if code > 0xFFFF or code in _YOUNG or (category[0] != "L" and category != "Nd"):
        return _NOTHING
    return _DIGIT if category == "Nd" else _LETTER


# Entities are one character to the patterns: (written form, the character of the shadow, the token it makes alone).
_ENTITIES = [
    *((f"&{vowel}{accent};", _ENTITY_LETTER, None) for vowel in "aeiou" for accent in ("acute", "grave", "uml")),
    *((f"&{name};", _ENTITY_SIGN, None) for name in ("ht", "tl", "ur", "lr", "ql", "qr", "qc", "odq", "cdq")),
    ("&amp;", _AMPERSAND, "&"),
    ("&apos;", _APOSTROPHE, "'"),
    ("&quot;", _ENTITY_SIGN, "''"),
    ("&lt;", _ENTITY_SIGN, "<"),
    ("&gt;", _ENTITY_SIGN, ">"),
    ("&nbsp;", " ", ""),
    ("&mdash;", _ENTITY_SIGN, "--"),
    ("&ndash;", _ENTITY_SIGN, "--"),
    ("&md;", _ENTITY_SIGN, "--"),
]
# While a caption is scanned, an entity is written as one character of the private use area.
_PRIVATE = {chr(0xE000 + i): entity for i, entity in enumerate(_ENTITIES)}
_PRIVATE_OF = {entity[0]: private for private, entity in _PRIVATE.items()}
_ANY_PRIVATE = re.compile(f"[{min(_PRIVATE)}-{max(_PRIVATE)}]")
_ENTITY = re.compile("|".join(re.escape(entity[0]) for entity in _ENTITIES), re.IGNORECASE)

# ---------------------------------------------------------------------------------------------------------------------
# Patterns
# ---------------------------------------------------------------------------------------------------------------------
_S = " \xa0\u2003"  # spaces
_L = f"A-Za-zä\u0301\xad{_ENTITY_LETTER}"  # letters, as they occur inside a character class
_W = "A-Za-zä0-9٣"  # letters and digits
_D = "0-9٣\xad"
_A = f"['’\x92{_APOSTROPHE}]"  # apostrophes of clitics
_Q = f"['’\x92{_APOSTROPHE}`‘‛\x91]"  # apostrophes and the signs that are taken for one inside a word
_CLITIC = rf"{_A}(?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE])"
_NOT = rf"[nN]{_Q}[tT]"
_O_NAME = rf"[dDoOlL]{_Q}[{_W}]{{2,}}"  # o'clock, d'art
_NEXT = rf"(?:[-_‐]{_O_NAME}|-[{_W}\xad]+|[_‐][{_W}]+)"
_SUBWORD = rf"(?:[A-Za-zä][{_W}\xad]*|[{_W}]+){_NEXT}*"
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_ESCAPED = r"\\?/"

# Abbreviations that keep their full stop. Those of the first list may end a sentence: the next character is context.
_ABBREVIATIONS = """
    al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri ga inc
    ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt sep sept seq
    sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo
    """.split()
_CAPITAL_ABBREVIATIONS = "ark az del ill la mass miss ore pa tex wash".split()  # not "miss."
_COMPANIES = "[pP]?[pP]tes? [pP]?[pP]tys?".split()  # not "PTY."
_TITLES = """
    adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs ed\\.d elec ens ft gen gov
    govs hon insp invt jos lieut lt maj mlle mme mr mrs ms msgr mt natl pfc ph\\.d ph pres prof profs pvt rep reps rev sen sens
    sfc sgt spc st ste supt supts treas vs wm
    """.split()
_NUMBER_ABBREVIATIONS = "art ca fig figs no nos op p pp prop".split()
# A single letter's full stop is a token of its own before one of these.
_STARTERS = """
    a according additionally after an as at but he her here however if in it last many more now once one other our she
    since so some such that the their then there these they this we what when while yet you
    """.split()
_EXTENSIONS = """
    bat bmp c cgi cpp dll docx? exe gif gz h html? jar java jpe?g mov pdf php pl png ppt ps py sql tar txt wav x xml zip
    """.split()
# Words that are two tokens, and where the first one ends.
_SPLIT = {"cannot": 3, "gonna": 3, "gotta": 3, "gimme": 3, "lemme": 3, "wanna": 3}


def _any(words: list[str]) -> str:
    return "(?:" + "|".join(words) + ")"


_PATH = r"[^ \xa0\"<>|(){{}}]+[^ \xa0\"<>|(){{}}.,!?-]"  # of a URL
_DOTTED = rf"[A-Za-zä\xad][{_W}\xad]*(?:[.!?][A-Za-zä\xad][{_W}\xad]*)+"
# <obj012>, </s>, <a href="x">
_TAG = (
    r"<(?:[!?][A-Za-z-][^>]*"
    r"|/[A-Za-z][A-Za-z0-9_:.-]*[ ]*"
    r"""|[A-Za-z][A-Za-z0-9_:.-]*(?:[ ]+[A-Za-z][A-Za-z0-9_:.-]*(?:=(?:'[^']*'|"[^"]*"|[A-Za-z0-9_:.-]+))?)*[ ]*/?[ ]*)>"""
)
_PATTERNS = {
    "tag": _TAG,
    "word before clitic": rf"([{_L}]+){_CLITIC}|([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){_NOT}",
    "clitic": rf"(?!'[A-Za-z]+){_CLITIC}|{_CLITIC}(?![A-Za-z])|{_NOT}",
    "word": rf"[{_L}][{_L}{_D}]*",
    "alphanumeric": _SUBWORD,
    "o' name": rf"{_O_NAME}{_NEXT}*",
    "O' name": rf"[nA-HJ-XZ]{_Q}[A-Za-zä]{{2,}}",
    "glottal": rf"[A-Za-zä]+[aeiouyAEIOUY]{_Q}[aeiouA-Z][A-Za-zä]*",
    "elision": rf"(?:[dDlLjJ]|[oO][lL]){_A}",
    "y'all": rf"([yY]{_A})[A-Za-zä]",
    "c'mon": r"[cC]'(?:[mM][oO][nN]|[eE][sS][tT])|[eE]'[eE][rR]",
    "'em": rf"{_A}(?i:em|til|cause)|('[tT])(?i:is|was)",
    "'n'": rf"{_A}[nN]{_A}|[’\x92{_APOSTROPHE}][nN]|'[nN](?![^{_S}])",
    "'90s": rf"{_A}[0-9]{{2}}(?:s|(?![^{_S}]))",
    "hyphenated": r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:(?:[A-Za-z]\.){2,}|[A-Za-z0-9\xad]+))+",
    "slashed": rf"[A-Za-z0-9]+(?:-[A-Za-z]+)*(?:{_ESCAPED}[A-Za-z0-9]+(?:-[A-Za-z]+)*){{1,2}}",
    "number": rf"[-+]?(?:[{_D}]*(?:[.:,٫٬][{_D}]+)+|[{_D}]+)",
    "fraction": rf"(?:[0-9٣]{{1,4}}[- \xa0])?[0-9٣]{{1,4}}(?:{_ESCAPED}|⁄)[0-9٣]{{1,4}}",
    "date": r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}",
    "telephone": (
        r"(?:\([0-9]{2,3}\)[ \xa0]?|\+?[0-9]{2,4}[- \xa0](?:[0-9]{2,4}[- \xa0])?)"
        r"[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    ),
    "acronym": rf"{_ACRONYM}\.?",
    "initial": r"[A-Za-z]\.",
    "initial at the end": rf"([A-Za-z])\.[{_S}]+(?:(?=[A-Z])(?i:{_any(_STARTERS)})|{_TAG})(?![^{_S}])",
    "abbreviation": rf"((?:(?i:{_any(_ABBREVIATIONS)})|{_any(_COMPANIES)})\.)(?:-?[^{_S}])?",
    "capital abbreviation": rf"((?=[A-Z])(?i:{_any(_CAPITAL_ABBREVIATIONS)})\.)(?:-?[^{_S}])?",
    "title": rf"(?:(?i:{_any(_TITLES)})|[mM][ft]g)\.",
    "number abbreviation": rf"((?i:{_any(_NUMBER_ABBREVIATIONS)})\.)[{_S}]?[0-9٣]",
    "stop before comma": rf"((?:{_SUBWORD}|{_O_NAME}{_NEXT}*|{_DOTTED})\.)[,;:]",
    "dotted": _DOTTED,
    "file": rf"[{_W}]+(?:\.[{_W}]+)*\.(?i:{_any(_EXTENSIONS)})(?![^ \xa0.,?!])",
    "capitals": rf"[A-Z]+(?:[&+{_AMPERSAND}][A-Z]+)+",
    "c++": r"[cC]\+\+|[cCfF]#",
    "currency": r"[A-Z]+\$",
    "email": rf"<?[A-Za-z0-9][^ \xa0\"<>|(){{}}]*@[^ \xa0\"<>|(){{}}.]+(?:\.[^ \xa0\"<>|(){{}}.]+)*>?",
    "url": rf"(?i:https?)://{_PATH}",
    "www": rf"[wW]{{3}}\.(?:[^ \xa0\"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}(?:/{_PATH})?",
    "site": rf"[a-z#%&*+~\x80-\uffff]+(?:\.[a-z#%&*+~\x80-\uffff]+)*\.(?i:com|edu|net|org)(?:/{_PATH})?",
    "hash tag": rf"#[{_L}]+|#+",
    "at name": r"@[A-Za-z_]+[A-Za-z0-9_]*|@+",
    "smiley": r"[<>]?[:;=][-o*']?[DOPdp()\[\]{|\\@](?![A-Za-z0-9])",
    "eastern smiley": rf"[-<>=^'~x]_[-<>=^'~x]|\([-<>=^'~x][_.]?[-<>=^'~x]\)|\([<>=^'~x]-[<>=^'~x]\)|[oO]{_Q}[oO]",
    "ellipsis": r"\.\.\.+|\.(?: \.){2,}|[…\x85]",
    "dashes": r"--+",
    "quotes": r"[‘’‛“”«»‹›\x91-\x94‚„‟`]{2}",
    "run": r"[?!]+|\*+|_+|''|``|<<|>>|(?:\\\*)+|&#[0-9]+;|[¹²³⁰⁴⁵⁶⁷⁸⁹]+|[₀₁₂₃₄₅₆₇₈₉]+",
    "mark": f"\u0301+[{_L}{_D}]*",
    "character": rf"[^{_S}\0٫٬‐]",
}
_RULES = [(name, re.compile(pattern)) for name, pattern in _PATTERNS.items()]
_PLAIN_WORD = re.compile("[A-Za-z]{2,}(?![^ ])")
_LINE_END = re.compile("[\r\x0b\x0c\u2028\u2029]")
_GAP = re.compile("[ \xa0\0]+")

# What a token is written as.
_QUOTES = {
    **dict.fromkeys("‘‛‹\x91", "`"),
    **dict.fromkeys("’›\x92", "'"),
    **dict.fromkeys("“«\x93", "``"),
    **dict.fromkeys("”»\x94", "''"),
}
_WRITTEN = {
    "(": "-lrb-",
    ")": "-rrb-",
    "[": "-lsb-",
    "]": "-rsb-",
    "{": "-lcb-",
    "}": "-rcb-",
    "½": "1/2",
    "¼": "1/4",
    "¾": "3/4",
    "⅓": "1/3",
    "⅔": "2/3",
    "¢": "cents",
    "£": "#",
    **dict.fromkeys("\x80¤₠€", "$"),
    **dict.fromkeys("–—―\x96\x97", "--"),
    '"': "''",
    **_QUOTES,
    "\xad": "-",
}
_CLITIC_QUOTES = str.maketrans("’\x92‘‛\x91" + _PRIVATE_OF["&apos;"], "''```'")


def _scan(text: str, shadow: str) -> list[tuple[str, str]]:
    """(name of the pattern, token) for each token of the text."""
    tokens = []
    at, end = 0, len(text)
    while at < end:
        if gap := _GAP.match(shadow, at):
            at = gap.end()
            continue
        if (plain := _PLAIN_WORD.match(shadow, at)) and plain.group().lower() not in _SPLIT:
            best, stop = "word", plain.end()
            tokens.append((best, text[at:stop]))
            at = stop
            continue
        best, longest, stop = "", at, at
        for name, rule in _RULES:
            match = rule.match(shadow, at)
            if match and match.end() > longest:
                best, longest, stop = name, match.end(), match.end(match.lastindex or 0)
        if longest == at:
            stop = at + 1  # nothing: dropped
        else:
            tokens.append((best, text[at:stop]))
        at = stop
    return tokens


def _write(name: str, token: str) -> list[str]:
    """The token as it is printed, or the two that it makes."""
    if token in _WRITTEN:
        return [_WRITTEN[token]]
    if token in _PRIVATE:
        return [_PRIVATE[token][2] or _PRIVATE[token][0]]
    if name in ("word", "alphanumeric") and token.lower() in _SPLIT:
        cut = _SPLIT[token.lower()]
        return [token[:cut], token[cut:]]
    if name == "ellipsis":
        return ["..."]
    if name == "dashes" and len(token) < 5:
        return ["--"]
    if name == "clitic":
        token = token.translate(_CLITIC_QUOTES)
    if name in ("smiley", "eastern smiley", "telephone"):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    if name == "quotes":
        token = "".join(_QUOTES.get(c, c) for c in token)
    if name in ("tag", "fraction", "telephone"):
        token = token.replace(" ", "\xa0")
    if name in ("word", "number", "dotted", "alphanumeric", "hyphenated", "word before clitic", "fraction"):
        token = token.replace("\xad", "") or "-"
    return [_ANY_PRIVATE.sub(lambda m: _PRIVATE[m.group()][0], token)]


def tokenize(caption: str) -> str:
    """The caption's tokens, lower-case, without punctuation, joined by single spaces.

    A newline counts as a space. Other line separators (carriage return, form feed, U+2028 ...) end the caption, as they
    do where the Java tokeniser is given this one caption; characters it does not know are dropped. Tokens may hold
    no-break spaces ("1 1/2", telephone numbers, tags with attributes).
    """
    text = _LINE_END.split(caption.replace("\n", " ").replace("\t", " "), maxsplit=1)[0]
    shadow = text
    if not text.isascii() or not text.isprintable():
        text = _ANY_PRIVATE.sub("\0", text)
    if "&" in text:
        text = _ENTITY.sub(lambda m: _PRIVATE_OF[m.group().lower()], text)
    if not text.isascii() or not text.isprintable():
        shadow = "".join(c if " " <= c <= "~" else _shadow(c) for c in text)
    written = [part.lower() for name, token in _scan(text, shadow) for part in _write(name, token)]
    return " ".join(part for part in written if part not in _PUNCTUATION).rstrip()
