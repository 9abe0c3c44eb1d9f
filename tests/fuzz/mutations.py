"""What strangers do to files: bits flipped, pieces cut, doubled and exchanged, values of other kinds, traps."""

import json
import random
import struct
import zipfile
from collections import OrderedDict
from io import BytesIO
from typing import Any

import torch

JUNK: list[Any] = [
    *(None, True, False, 0, -1, 1.5, 10**18, -(2**63), 1e300, "", "x", "../../x", "/etc/passwd", "a\0b", "x" * 5000),
    *("scene0000_00", [], [None], [[]], {}, {"a": 1}, [[1.0] * 6], {"index": 0}, [0] * 2000),
]
TEXTS = [  # no values that Python could write
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 30, "9" * 5000, '"\\ud800"', "[" * 3000, "{" * 3000),
    *("[" * 90 + "]" * 90, "[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200, "\x00", "\ufeff{}"),
]


def flip(rng: random.Random, content: bytes) -> bytes:
    """Some bits are others."""
    damaged = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        if damaged:
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def cut(rng: random.Random, content: bytes) -> bytes:
    """The end is missing."""
    return content[: rng.randrange(len(content) + 1)]


def splice(rng: random.Random, content: bytes) -> bytes:
    """A piece is left out, doubled, zeroed, or put elsewhere."""
    start, stop = sorted(rng.randrange(len(content) + 1) for _ in range(2))
    stop = min(stop, start + rng.choice((1, 8, 100, 10_000)))
    piece = content[start:stop]
    place = rng.randrange(len(content) + 1)
    return rng.choice(
        (
            content[:start] + content[stop:],
            content[:stop] + content[start:],
            content[:start] + bytes(len(piece)) + content[stop:],
            content[:place] + piece + content[place:],
            content[:start] + rng.randbytes(len(piece)) + content[stop:],
        )
    )


def spoil(rng: random.Random, value: Any) -> Any:
    """`value` with one thing in it changed, left out or doubled."""
    if isinstance(value, (dict, list)) and value and rng.random() < 0.9:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        how = rng.random()
        changed = value.copy()
        if how < 0.1:
            del changed[key]
        elif how < 0.2 and isinstance(changed, list):
            changed.insert(key, changed[key])
        elif how < 0.25 and isinstance(changed, dict):
            changed[rng.choice(("x", "../x", 5, -1, "y" * 3000))] = changed.pop(key)
        else:
            changed[key] = spoil(rng, changed[key])
        return changed
    if isinstance(value, torch.Tensor) and rng.random() < 0.8:
        return rng.choice(TENSORS)(value)
    return rng.choice(JUNK)


TENSORS = (
    lambda t: t[:0],
    lambda t: t.reshape(-1),
    lambda t: t[None],
    lambda t: t.to(torch.float64),
    lambda t: t.to(torch.float16),
    lambda t: t.to(torch.int64),
    lambda t: t.bool(),
    lambda t: t.to(torch.complex64),
    lambda t: t.to_sparse(),
    lambda t: torch.full_like(t, torch.nan) if t.is_floating_point() else t,
    lambda t: torch.full_like(t, 6e4) if t.is_floating_point() else t,
    lambda t: torch.zeros(1).expand(10**12),
    lambda t: torch.zeros(1, 1).expand(10**7, 6),
    lambda t: torch.zeros(1, 1).expand(10**9, 10**9),
    lambda t: torch.zeros(0, 10**9),
    lambda t: torch.zeros(()),
    lambda t: torch.nn.Parameter(t) if t.is_floating_point() else t,
    lambda t: t.to("meta"),
    lambda t: t.flip(0) if t.dim() else t,
    lambda t: torch.zeros([1] * 20),
)


def spoil_json(rng: random.Random, content: bytes) -> bytes:
    """JSON, or lines of it, with one value spoilt or replaced by a text that is hardly one."""
    lines = content.split(b"\n")
    if len(lines) > 2 and all(line[:1] == b"{" for line in lines if line):
        number = rng.randrange(len(lines) - 1)
        lines[number] = spoil_json(rng, lines[number])
        return b"\n".join(lines)
    try:
        value = json.loads(content)
    except ValueError:
        return flip(rng, content)
    mark = "\ue000"
    spoilt = json.dumps(spoil(rng, _marked(rng, value, mark) if rng.random() < 0.3 else value))
    return spoilt.replace(json.dumps(mark), rng.choice(TEXTS)).encode("utf-8", "surrogatepass")


def _marked(rng: random.Random, value: Any, mark: str) -> Any:
    if isinstance(value, (dict, list)) and value and rng.random() < 0.8:
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        changed = value.copy()
        changed[key] = _marked(rng, changed[key], mark)
        return changed
    return mark


def spoil_torch(rng: random.Random, content: bytes) -> bytes:
    """What torch saved with one value spoilt, or with bits of its pickle flipped behind a right checksum."""
    if rng.random() < 0.5:
        with torch.serialization.safe_globals([(OrderedDict, "utils.easydict.EasyDict")]):
            value = torch.load(BytesIO(content), weights_only=True)
        saved = BytesIO()
        torch.save(spoil(rng, value), saved)
        return saved.getvalue()
    return change_pickle(content, lambda data: rng.choice((flip, flip, splice, traps))(rng, data))


def change_pickle(content: bytes, change: Any) -> bytes:
    """A file of torch's with another pickle in it."""
    changed = BytesIO()
    with zipfile.ZipFile(BytesIO(content)) as old, zipfile.ZipFile(changed, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            new.writestr(entry.filename, change(data) if entry.filename.endswith("/data.pkl") else data)
    return changed.getvalue()


def traps(rng: random.Random, data: bytes) -> bytes:
    """Numbers of the pickle made large, or a stride 0."""
    places = [i for i in range(len(data) - 3) if data[i : i + 1] in (b"K", b"M")]
    if not places:
        return data
    place = rng.choice(places)
    length = 2 if data[place : place + 1] == b"K" else 3
    number = rng.choice((0, 1, 7, 2**31 - 1, 10**6, -1, -(2**31)))
    return data[:place] + b"J" + struct.pack("<i", number) + data[place + length :]


def spoil_safetensors(rng: random.Random, content: bytes) -> bytes:
    """A header with one value spoilt; it says where the tensors are, of what type and shape."""
    length = int.from_bytes(content[:8], "little")
    if rng.random() < 0.1:
        return rng.choice((0, 1, length + 8, 2**40, 2**64 - 1)).to_bytes(8, "little") + content[8:]
    header = spoil_json(rng, content[8 : 8 + length])
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def spoil_text(rng: random.Random, content: bytes) -> bytes:
    """Text with a line of another kind."""
    lines = content.split(b"\n")
    traps = (
        b"",
        b"\xff\xfe",
        b"\0",
        b"a" * 200_000,
        b"\t" * 1000,
        b"&a [*a, *a]",
        b"!!python/object:os.system x",
        b"- " * 500,
    )
    lines.insert(rng.randrange(len(lines) + 1), rng.choice(traps))
    return b"\n".join(lines)


OF_KIND = {
    ".json": spoil_json,
    ".jsonl": spoil_json,
    ".pt": spoil_torch,
    ".pth": spoil_torch,
    ".bin": spoil_torch,
    ".safetensors": spoil_safetensors,
    ".yaml": spoil_text,
    ".tsv": spoil_text,
    ".txt": spoil_text,
}


def mutate(rng: random.Random, name: str, content: bytes) -> bytes:
    """One mutation of a file, half of them of its own kind."""
    own = OF_KIND.get("." + name.rpartition(".")[2], flip)
    return rng.choice((flip, cut, splice, own, own, own))(rng, content)
