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
from collections.abc import Iterator
from functools import lru_cache

# pycocoevalcap's list. It is compared after lower-casing, so that "-lrb-" and its kin are NOT dropped, as published.
_PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}

# ---------------------------------------------------------------------------------------------------------------------
# Characters. The patterns look at a "shadow" of the text, of the same length, in which one character stands for all
# those that are treated alike; the tokens are cut from the text itself.
# ---------------------------------------------------------------------------------------------------------------------
_LETTER, _DIGIT, _MARK, _HYPHEN, _SPACE, _NOTHING, _SYMBOL = "ä", "٣", "\u0301", "‐", "\u2003", "\0", "§"
_AMPERSAND, _APOSTROPHE, _LESS, _GREATER, _ENTITY_LETTER, _ENTITY_SIGN = "\1\2\3\4\5\6"  # those written as entities


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
_AS_IS = frozenset("\xa0\xad٫٬⁄‘’‛‚“”„‟«»‹›…–—―½¼¾⅓⅔¢£€¤₠⁺⁻₊₋¹²³⁰⁴⁵⁶⁷⁸⁹₀₁₂₃₄₅₆₇₈₉\x80\x85\x91\x92\x93\x94\x96\x97")


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
    ("&lt;", _LESS, "<"),
    ("&gt;", _GREATER, ">"),
    ("&nbsp;", _NOTHING, ""),
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
# What goes into character classes.
_S = " \xa0\u2003"  # spaces
_L = f"A-Za-zä\u0301\xad{_ENTITY_LETTER}"  # letters of a word; soft hyphens, too
_W = "A-Za-zä0-9٣"  # letters and digits
_D = "0-9٣\xad"  # digits of a number
_EYES = "-<>=^'~x"

_APOSTROPHES = f"['’\x92{_APOSTROPHE}]"
_ANY_APOSTROPHE = f"['’\x92{_APOSTROPHE}`‘‛\x91]"  # and the signs that are taken for one inside a word
_CLITIC = rf"{_APOSTROPHES}(?:[dmsDMS]|[lL][lL]|[rR][eE]|[vV][eE])"
_NOT = rf"[nN]{_ANY_APOSTROPHE}[tT]"
_O_NAME = rf"[dDoOlL]{_ANY_APOSTROPHE}[{_W}]{{2,}}"
_JOINED = rf"(?:[-_‐](?:{_O_NAME}|[{_W}]+))*"  # -shaped, _1, -o'clock
_SOFT = rf"[A-Za-zä][{_W}\xad]*(?:-[{_W}\xad]+)*"  # with soft hyphens
_ACRONYM = r"[A-Za-z](?:\.[A-Za-z])+"
_DOTTED = rf"[{_L}][{_L}{_D}]*(?:[.!?][{_L}][{_L}{_D}]*)+"
_SLASH = r"\\?/"
_SLASH_PART = "[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}"
_PATH = r"[^ \"<>|(){}]+[^ \"<>|(){}.,!?-]"  # of a URL
_NAME = "[A-Za-z][A-Za-z0-9_:.-]*"  # of a tag or an attribute
_ATTRIBUTE = rf"""[ ]+{_NAME}(?:=(?:'[^']*'|"[^"]*"|[A-Za-z0-9_:.-]+))?"""
_TAG = rf"<(?:[!?][A-Za-z-][^>]*|/{_NAME}[ ]*|{_NAME}(?:{_ATTRIBUTE})*[ ]*/?[ ]*)>"


def _one_of(words: str) -> str:
    return f"(?:{'|'.join(words.split())})"


# Abbreviations that keep their full stop; those of the first two lists may end a sentence.
_ABBREVIATION = _one_of(
    r"""al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec ed\.d esq est etc ext feb fla
    fri ga inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn ph\.d plc
    rd rt sep sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"""
)
_CAPITAL_ABBREVIATION = _one_of("ark az del ill la mass miss ore pa tex wash")  # "Miss.", not "miss."
_COMPANY = _one_of("[pP]?[pP]tes? [pP]?[pP]tys?")  # "Pty.", not "PTY."
_TITLE = _one_of(
    """adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen
    gov govs hon insp invt jos lieut lt maj mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep reps rev sen
    sens sfc sgt spc st ste supt supts treas vs wm"""
)
_NUMBER_ABBREVIATION = _one_of("art ca figs? nos? op pp? prop")  # "no. 5"
_SENTENCE_STARTER = _one_of(
    """a according additionally after an as at but he her here however if in it last many more now once one other our
    she since so some such that the their then there these they this we what when while yet you"""
)
_FILE_EXTENSION = _one_of(
    """bat bmp c cgi cpp dll docx? exe gif gz h html? jar java jpe?g mov pdf php pl png ppt ps py sql tar txt wav x xml
    zip"""
)
_DOMAIN = _one_of("com edu net org")
# Words that are two tokens, and where the first one ends.
_SPLIT = {"cannot": 3, "gonna": 3, "gotta": 3, "gimme": 3, "lemme": 3, "wanna": 3}

_PATTERNS = {
    # <obj012>, </s>, <a href="x">
    "tag": _TAG,
    # the it of it's, the do of don't
    "word before clitic": rf"([{_L}]+){_CLITIC}|([A-Za-z\xad]*[A-MO-Za-mo-z]\xad*){_NOT}",
    # 's, 'll, n't; but 'sa is a quotation mark and a word
    "clitic": rf"(?!'[A-Za-z]+){_CLITIC}|{_CLITIC}(?![A-Za-z])|{_NOT}",
    "word": rf"[{_L}][{_L}{_D}]*",
    # 2nd, l-shaped, a_b; a full stop before , ; : stays with the word
    "alphanumeric": rf"[{_W}]+{_JOINED}",
    "soft hyphens": _SOFT,
    "stop before comma": rf"((?:[{_W}]+{_JOINED}|{_SOFT}|{_O_NAME}{_JOINED}|{_DOTTED})\.)[,;:]",
    # o'clock, d'art; O'Neil, N'Djamena; Hawai'i
    "o' name": rf"{_O_NAME}{_JOINED}",
    "O' name": rf"[nA-HJ-XZ]{_ANY_APOSTROPHE}[A-Za-zä]{{2,}}",
    "name with glottal stop": rf"[A-Za-zä]+[aeiouyAEIOUY]{_ANY_APOSTROPHE}[aeiouA-Z][A-Za-zä]*",
    # the l' of l'a, ol'; the y' of y'all
    "elision": rf"(?:[dDlLjJ]|[oO][lL]){_APOSTROPHES}|([yY]{_APOSTROPHES})[A-Za-zä]",
    "c'mon": r"[cC]'(?:[mM][oO][nN]|[eE][sS][tT])|[eE]'[eE][rR]",
    # 'em; the 't of 'tis; rock 'n' roll; '90s, '90
    "'em": rf"{_APOSTROPHES}(?i:em|till?|cause)|('[tT])(?i:is|was)",
    "'n'": rf"{_APOSTROPHES}[nN]{_APOSTROPHES}|[’\x92{_APOSTROPHE}][nN]|'[nN](?![^{_S}])",
    "'90s": rf"{_APOSTROPHES}(?:[2-9]0s|[0-9]{{2}}(?![^{_S}]))",
    # etc., Mass., mr., no. 5
    "abbreviation": rf"((?:(?i:{_ABBREVIATION})|{_COMPANY}|(?=[A-Z])(?i:{_CAPITAL_ABBREVIATION}))\.)(?:-?[^{_S}])?",
    "title": rf"(?:(?i:{_TITLE})|[mM][ft]g)\.",
    "number abbreviation": rf"((?i:{_NUMBER_ABBREVIATION})\.)[{_S}]?[0-9٣]",
    # u.s.; j.; but "type a. The" ends a sentence
    "acronym": rf"{_ACRONYM}\.?",
    "initial": r"[A-Za-z]\.",
    "letter that ends a sentence": rf"([A-Za-z])\.[{_S}]+(?:(?=[A-Z])(?i:{_SENTENCE_STARTER})|{_TAG})(?![^{_S}])",
    # u.s.-based, 1.5-inch, non-u.s.
    "hyphenated": r"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:(?:[A-Za-z]\.){2,}|[A-Za-z0-9\xad]+))+",
    # and/or, 1/4-inch
    "slashed": rf"{_SLASH_PART}(?:{_SLASH}{_SLASH_PART}){{1,2}}",
    # 1,000.50, 10:30, -5; 1 1/2; 12/25-2014; (800) 555-1212
    "number": rf"[-+]?(?:[{_D}]*(?:[.:,٫٬][{_D}]+)+|[{_D}]+)",
    "fraction": rf"(?:[0-9٣]{{1,4}}[- \xa0])?[0-9٣]{{1,4}}(?:{_SLASH}|⁄)[0-9٣]{{1,4}}",
    "date": r"[0-9]{1,2}[-/][0-9]{1,2}[-/][0-9]{2,4}",
    "telephone": (
        r"(?:\([0-9]{2,3}\)[ \xa0]?|\+?[0-9]{2,4}[- \xa0](?:[0-9]{2,4}[- \xa0])?)[0-9]{3,4}[- \xa0]?[0-9]{3,5}"
    ),
    # chair.The, yes!no; a.txt; AT&T; c++, c#; US$
    "dotted": _DOTTED,
    "file": rf"[{_W}]+(?:\.[{_W}]+)*\.(?i:{_FILE_EXTENSION})(?![^ \xa0.,?!])",
    "capitals": rf"[A-Z]+(?:[&+{_AMPERSAND}][A-Z]+)+",
    "programming language": r"[cC]\+\+|[cCfF]#",
    "currency": r"[A-Z]+\$",
    "email": (
        rf"[<{_LESS}]?[A-Za-z0-9][^ \xa0\"<>|(){{}}]*@[^ \xa0\"<>|(){{}}.]+(?:\.[^ \xa0\"<>|(){{}}.]+)*[>{_GREATER}]?"
    ),
    "url": rf"(?i:https?)://{_PATH}",
    "www": rf"[wW]{{3}}\.(?:[^ \"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}(?:/{_PATH})?",
    "site": rf"[a-z#%&*+~\x80-\uffff]+(?:\.[a-z#%&*+~\x80-\uffff]+)*\.(?i:{_DOMAIN})(?:/{_PATH})?",
    "hash tag": rf"#[{_L}]+|#+",
    "at name": r"@[A-Za-z_]+[A-Za-z0-9_]*|@+",
    # :), ;-P, >:(; ^_^, (-_-), o'o
    "smiley": r"[<>]?[:;=][-o*']?[DOPdp()\[\]{|\\@](?![A-Za-z0-9])",
    "eastern smiley": (
        rf"[{_EYES}]_[{_EYES}]|\([{_EYES}][_.]?[{_EYES}]\)|\([{_EYES[1:]}]-[{_EYES[1:]}]\)|[oO]{_ANY_APOSTROPHE}[oO]"
    ),
    # ..., . . .; --
    "ellipsis": r"\.\.\.+|\.(?: \.){2,}|[…\x85]",
    "dashes": r"--+",
    "quotation marks": r"[‘’‛“”«»‹›\x91-\x94‚„‟`]{2}",
    "run": r"[?!]+|\*+|_+|''|``|<<|>>|(?:\\\*)+|&#[0-9]+;|[⁺⁻₊₋]?(?:[¹²³⁰⁴⁵⁶⁷⁸⁹]+|[₀₁₂₃₄₅₆₇₈₉]+)",
    "marks": f"\u0301+[{_L}{_D}]*",
    "character": rf"[^{_S}\0٫٬‐]",
}
_RULES = [(name, re.compile(pattern)) for name, pattern in _PATTERNS.items()]
_PLAIN_WORD = re.compile("[A-Za-z]{2,}(?![^ ])")
_LINE_END = re.compile("[\r\x0b\x0c\u2028\u2029]")
_GAP = re.compile(f" [{_S}]*|\0+")

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
_CLITIC_APOSTROPHES = str.maketrans("’\x92‘‛\x91" + _PRIVATE_OF["&apos;"], "''```'")
# Soft hyphens vanish from these.
_WITHOUT_SOFT_HYPHENS = frozenset(
    (
        "word before clitic",
        "word",
        "alphanumeric",
        "soft hyphens",
        "stop before comma",
        "hyphenated",
        "dotted",
        "number",
        "fraction",
    )
)


def _scan(text: str, shadow: str) -> Iterator[tuple[str, str]]:
    """(name of the pattern, token) for each token of the text."""
    at = 0
    while at < len(text):
        if gap := _GAP.match(shadow, at):
            at = gap.end()
        elif (plain := _PLAIN_WORD.match(shadow, at)) and plain.group().lower() not in _SPLIT:
            yield "word", text[at : plain.end()]  # the common case, without trying every pattern
            at = plain.end()
        else:
            best, longest, end = "", at, at + 1  # a character that nothing matches is dropped
            for name, rule in _RULES:
                match = rule.match(shadow, at)
                if match and match.end() > longest:
                    best, longest, end = name, match.end(), match.end(match.lastindex or 0)
            if best:
                yield best, text[at:end]
            at = end


def _write(name: str, token: str) -> list[str]:
    """The token as it is printed, or the two that it makes."""
    if token in _WRITTEN:
        return [_WRITTEN[token]]
    if token in _PRIVATE:
        return [_PRIVATE[token][2] or _PRIVATE[token][0]]
    if name == "ellipsis":
        return ["..."]
    if name == "dashes" and len(token) < 5:
        return ["--"]
    if name in _WITHOUT_SOFT_HYPHENS:
        if name == "word" and (cut := _SPLIT.get(token.lower())):
            return [token[:cut], token[cut:]]
        token = token.replace("\xad", "") or "-"
    elif name == "clitic":
        token = token.translate(_CLITIC_APOSTROPHES)
    elif name == "capitals":
        token = token.replace(_PRIVATE_OF["&amp;"], "&")
    elif name == "quotation marks":
        token = "".join(_QUOTES.get(char, char) for char in token)
    elif name in ("smiley", "eastern smiley", "telephone"):
        token = token.replace("(", "-lrb-").replace(")", "-rrb-")
    if name in ("tag", "fraction", "telephone"):
        token = token.replace(" ", "\xa0")
    return [_ANY_PRIVATE.sub(lambda found: _PRIVATE[found.group()][0], token)]


def tokenize(caption: str) -> str:
    """The caption's tokens, lower-case, without punctuation, joined by single spaces; empty where there are none.

    A newline counts as a space. Other line separators (carriage return, form feed, U+2028 ...) end the caption, as in
    the Java program; characters that it does not know are dropped. Tokens may hold no-break spaces ("1 1/2", telephone
    numbers, tags with attributes).

    The Java program reads all captions as one text, so that the next caption's first word can decide about a last
    single letter ("type a." before "The ..."). Here a caption stands alone, as before a caption in lower case.
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
