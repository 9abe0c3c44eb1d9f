"""Small files made to take all memory or all time; each is refused in one line."""

import io
import json
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save

from fast3d_core.errors import DataError
from fast3d_core.files.files import load_torch
from fast3d_core.files.pickles import RefusedError, check_pickle
from tests.conftest import MINIATURE, ROOT_DATA
from tests.fuzz.mutations import change_pickle

KEEP, KEPT = b"q\x00", b"h\x00"  # remember what is on the stack; bring it there again


def glob(name: str) -> bytes:
    module, _, leaf = name.rpartition(".")
    return f"c{module}\n{leaf}\n".encode()


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def long(value: int) -> bytes:
    data = pickle.encode_long(value)
    return b"\x8a" + bytes([len(data)]) + data


# Each leaves one value on the stack. `\x85` to `\x87` make tuples, `R` calls, `s` sets an item.
PICKLES = {
    "a large bytearray": glob("__builtin__.bytearray") + long(10**11) + b"\x85R",
    "a text encoded again and again": glob("_codecs.encode") + text("a" * 1000) + text("latin1") + b"\x86R"
    + 40 * (KEEP + glob("_codecs.encode") + KEPT + text("hex") + b"\x86R"),
    "tuples in tuples as a key": b"}K\x01" + 60 * (KEEP + KEPT + b"\x86") + b"K\x01s",
    "mappings of mappings": b"}" + KEEP + glob("collections.OrderedDict") + KEPT + b"\x85R",
    "a counter": glob("collections.Counter") + b"]\x85R",
    "a set": glob("__builtin__.set") + b"]\x85R",
    "a tensor without a storage": glob("torch._utils._rebuild_meta_tensor_no_storage") + b")R",
    "a tensor class": glob("torch.FloatTensor") + long(10**12) + b"\x85R",
    "attributes of a number": b"K\x01}b",
    "attributes many times": b"}" + KEEP + glob("collections.OrderedDict") + b")R" + KEPT + b"b",
    "a call of what was made": b"K\x01)R",
    "a call of a function in a module": glob("os.mkdir") + text("executed") + b"\x85R",
    "an extension": b"\x82\x01",
    "a newer opcode": b"\x8c\x01a",
    "an empty stack": b"R",
    "nothing remembered": b"h\x05",
    "no end": b"K",
}  # fmt: skip


@pytest.mark.parametrize("name", PICKLES)
def test_pickles(tmp_path: Path, name: str) -> None:
    trap = b"\x80\x02" + PICKLES[name] + b"."
    with pytest.raises(RefusedError):
        check_pickle(io.BytesIO(trap))
    torch.save({"a": torch.ones(3)}, tmp_path / "a.pt")
    path = tmp_path / "trap.pt"
    path.write_bytes(change_pickle((tmp_path / "a.pt").read_bytes(), lambda _: trap))
    with pytest.raises(DataError, match="was not loaded: it is damaged, or holds more than tensors and plain data"):
        load_torch(path, "x")
    path.write_bytes(trap)  # as torch wrote before 1.6
    with pytest.raises(DataError, match="was not loaded"):
        load_torch(path, "x")
    assert not Path("executed").exists()


def test_what_is_met_twice_is_no_trap(tmp_path: Path) -> None:
    """Optimizers share their settings, state dicts carry attributes, checkpoints their config."""
    from collections import OrderedDict

    betas, state = (0.9, 0.999), OrderedDict(a=torch.ones(2))
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    row = torch.arange(6.0).reshape(2, 3)
    content = {"groups": [{"betas": betas}, {"betas": betas}], "state": state, "rows": [row[0], row[1], row.t()]}
    content["more"] = [content["groups"]] * 3
    content["dtype"], content["parameter"] = torch.float16, torch.nn.Parameter(torch.ones(1))
    for old in (False, True):
        torch.save(content, tmp_path / "a.pt", _use_new_zipfile_serialization=not old)
        loaded = load_torch(tmp_path / "a.pt", "x")
        assert loaded["state"]["a"].tolist() == [1, 1] and loaded["rows"][2].tolist() == row.t().tolist()
        assert not loaded["parameter"].requires_grad


def test_archives_that_are_not_torch_s(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(10**6)}, tmp_path / "a.pt")
    path = tmp_path / "b.pt"

    def rewritten(**how: Any) -> Path:
        with zipfile.ZipFile(tmp_path / "a.pt") as old, zipfile.ZipFile(path, "w", **how) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
        return path

    assert load_torch(rewritten(), "x")["a"].shape == (10**6,)
    with pytest.raises(DataError, match="compressed"):
        load_torch(rewritten(compression=zipfile.ZIP_DEFLATED), "x")
    with zipfile.ZipFile(rewritten(), "a") as archive, pytest.warns(UserWarning):
        archive.writestr("a/data.pkl", b"again")
    with pytest.raises(DataError, match="no archive that torch wrote"):
        load_torch(path, "x")
    whole = bytearray(rewritten().read_bytes())
    place = whole.index(b"PK\x01\x02") + 24  # the size in the first entry of the directory
    whole[place - 4 : place + 4] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=r"b\.pt"):
        load_torch(path, "x")


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (1, 2**62)])
def test_strides_of_0(tmp_path: Path, shape: tuple[int, ...]) -> None:
    torch.save([{"a": torch.zeros([1] * len(shape)).expand(shape)}], tmp_path / "a.pt")
    with pytest.raises(DataError, match="its tensors claim"):
        load_torch(tmp_path / "a.pt", "x")


def test_overlapping_tensors(tmp_path: Path) -> None:
    """A window that slides over one storage: many shapes of few numbers."""
    torch.save(torch.arange(10_000.0).unfold(0, 1000, 1), tmp_path / "a.pt")
    with pytest.raises(DataError, match="its tensors claim"):
        load_torch(tmp_path / "a.pt", "x")


def write_everything(folder: Path) -> list[str]:
    """Traps for the readers in `READ`; each is named by its reader and its file."""
    made: list[str] = []

    def add(reader: str, name: str, content: bytes | Callable[[Path], None]) -> None:
        path = folder / f"{len(made):02}" / name
        path.parent.mkdir(parents=True)
        if callable(content):
            content(path)
        else:
            path.write_bytes(content)
        made.append(f"{reader} {path}")

    def saved(value: Any) -> Callable[[Path], None]:
        return lambda path: torch.save(value, path)

    for name in ("bytearray", "encoded", "tuples"):
        trap = next(content for title, content in PICKLES.items() if name in title)
        good = io.BytesIO()
        torch.save({}, good)
        add("torch", f"{name}.pt", change_pickle(good.getvalue(), lambda _, trap=trap: b"\x80\x02" + trap + b"."))
    wide = torch.zeros(1).expand(10**11)
    add("features", "scannet_mask3d_uni3d_feats.pt", saved({"scene0000_00_00": wide}))
    add("features", "scannet_mask3d_uni3d_feats.pt", saved({"scene0000_00_00": torch.zeros(10**6)}))
    add("boxes", "scannet_val_attributes.pt", saved({"a": {"locs": torch.zeros(1, 1).expand(10**10, 6)}}))
    nested: Any = [0.0] * 6
    for _ in range(30):
        nested = [nested, nested]
    add("boxes", "scannet_val_attributes.pt", saved({"a": {"locs": nested}}))
    add("maps", "infer_attn_maps_val_scanqa.pt", saved([{"index": nested, "a_map": torch.zeros(100)}]))
    add("maps", "infer_attn_maps_val_scanqa.pt", saved({0: {"a_map": torch.zeros(1).expand(10**11)}}))
    add("chat-scene", "ckpt.pth", saved({"model": {"x": torch.zeros(1, 1).expand(10**7, 10**7)}}))
    source = {"name": "x.pt", "fingerprint": "1-a", "sha256": "a", "size": 1, "mtime_ns": 1}
    tensors = {"slots/a": torch.zeros(0, dtype=torch.int64), "features/a": torch.zeros(0, 2**40)}
    metadata = {"fast3d": json.dumps({"source": source})}
    add("features", "scannet_mask3d_uni3d_feats.safetensors", save(tensors, metadata))
    add("json", "nested.json", b"[" * 10**6)
    add("json", "closed.json", b"[" * 5000 + b"]" * 5000)
    add("json", "number.json", b"9" * 10**7)
    llm = json.loads((MINIATURE.parent / "llm" / "config.json").read_text())
    for key, value in (("num_hidden_layers", 10**9), ("vocab_size", 10**7), ("hidden_size", 10**6 // 4 * 4),
                       ("num_hidden_layers", 900), ("num_attention_heads", 0)):  # fmt: skip
        add("llm", "config.json", json.dumps(llm | {key: value}).encode())
    roberta = json.loads((MINIATURE.parent / "gap" / "roberta_tiny" / "config.json").read_text())
    for key, value in (("num_hidden_layers", 10**9), ("vocab_size", 10**7), ("max_position_embeddings", 10**6)):
        add("roberta", "config.json", json.dumps(roberta | {key: value}).encode())
    tokenizer = (MINIATURE.parent / "llm" / "tokenizer.model").read_bytes()
    units = struct.pack("<64I", *([0xFFFFFFF0] * 64))  # a trie that leads out of its table
    charsmap = struct.pack("<I", len(units)) + units + b"x" * 16
    spec = b"\x12" + bytes([0x80 | len(charsmap) & 127, len(charsmap) >> 7]) + charsmap
    add("tokenizer", "tokenizer.model", tokenizer + b"\x1a" + bytes([0x80 | len(spec) & 127, len(spec) >> 7]) + spec)
    add("config", "fast3d.yaml", b"a: &a [x, x]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (i, i) for i in range(40)))
    add("config", "fast3d.yaml", b"[" * 10**5)
    add("config", "fast3d.yaml", b"a: " + b"9" * 900_000)
    return made


READ = """
import resource, sys, time
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import torch
from fast3d_core.models.chat_scene.checkpoint import load_checkpoint
from fast3d_core.models.chat_scene.tokenizer import ChatSceneTokenizer
from fast3d_core.config import load_config
from fast3d_core.data.annotations import Scenes
from fast3d_core.data.features import open_features
from fast3d_core.files.files import load_json, load_torch
from fast3d_core.errors import Fast3DError
from tests.maps.scores import load_maps
from fast3d_core.gap.text import load_text_encoder
from fast3d_core.benchmarks import References
from fast3d_core.llm.weights import load_llm

def beside(path, sound):
    for other in sound.iterdir():
        if not (path.parent / other.name).exists():
            (path.parent / other.name).symlink_to(other)
    return path.parent

SOUND = Path(sys.argv[1])
READERS = {
    "torch": lambda path: load_torch(path, "x"),
    "features": lambda path: open_features(path.with_suffix(".pt"))["scene0000_00"],
    "boxes": lambda path: References(path.parent).objects,
    "maps": lambda path: load_maps(path.parent, "scanqa", 1),
    "chat-scene": lambda path: load_checkpoint(path, 4, allow_unexpected=True),
    "json": lambda path: load_json(path, "x"),
    "llm": lambda path: load_llm(beside(path, SOUND / "llm"), torch.float32),
    "roberta": lambda path: load_text_encoder(beside(path, SOUND / "gap" / "roberta_tiny")),
    "tokenizer": lambda path: ChatSceneTokenizer(path.parent).encode("A chat with a caf\\u00e9"),
    "config": load_config,
}
for line in sys.stdin:
    reader, _, name = line.strip().partition(" ")
    begin = time.perf_counter()
    try:
        READERS[reader](Path(name))
        said = "read"
    except Fast3DError as problem:
        said = str(problem)
    print(f"{time.perf_counter() - begin:.3f} {said}", flush=True)
"""


def test_memory_and_time(tmp_path: Path) -> None:
    """In a process that may have 3 GB of memory."""
    traps = write_everything(tmp_path)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", READ, MINIATURE.parent], input="\n".join(traps), capture_output=True,
        text=True, timeout=300, env={"PYTHONPATH": str(ROOT_DATA.parents[1]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert len(lines) == len(traps) and done.returncode == 0, (traps[len(lines) :][:1], done.stderr[-2000:])
    for trap, line in zip(traps, lines, strict=True):
        seconds, _, said = line.partition(" ")
        assert said != "read", trap
        assert float(seconds) < 20, (trap, line[:200])
    assert not done.stderr, done.stderr[:2000]
