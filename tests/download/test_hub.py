"""Hugging Face: files whole, checked, once; what goes wrong is one line that says what to do."""

import dataclasses
import os
import shutil

import pytest

from fast3d_core.config import load_config
from fast3d_core.download import ITEMS, download, plan_downloads
from fast3d_core.download.hub import HubFolder
from fast3d_core.errors import DataError, UsageError
from fast3d_core.files.locks import LOCK_FILE, sole_use
from tests.download.conftest import COMMIT

WEIGHTS = os.urandom(300_000)
VICUNA = {
    "README.md": b"not needed",
    "config.json": b"{}",
    "tokenizer.model": os.urandom(2000),
    "pytorch_model-00001-of-00001.bin": WEIGHTS,
    "pytorch_model.bin.index.json": b"{}",
}
BIN = "pytorch_model-00001-of-00001.bin"
RESOLVE = f"/lmsys/vicuna-7b-v1.5/resolve/{COMMIT}/{BIN}"


@pytest.fixture
def vicuna(hub):
    hub.repos["models/lmsys/vicuna-7b-v1.5"] = dict(VICUNA)
    return hub


def get(to, *names, revision=None, log=lambda _: None):
    return list(download([ITEMS[name] for name in names], to, revision, log))


def there(to):
    """All files, but for the lock."""
    names = (path.relative_to(to).as_posix() for path in to.rglob("*") if path.is_file())
    return sorted(name for name in names if name != LOCK_FILE)


FILES = sorted(f"llm/vicuna-7b-v1.5/{name}" for name in VICUNA if name != "README.md")


def test_downloads_what_is_needed_and_names_it(vicuna, tmp_path):
    to = tmp_path / "to"
    (planned,) = plan_downloads([ITEMS["vicuna"]], to, None, print)
    assert planned.size == sum(map(len, VICUNA.values())) - len(b"not needed") and planned.there == "no"
    assert not to.exists()
    (outcome,) = get(to, "vicuna")
    assert (outcome.state, outcome.problem) == ("downloaded", None)
    assert there(to) == sorted(["fast3d.yaml", *FILES])  # and no leftovers
    assert (to / "llm/vicuna-7b-v1.5" / BIN).read_bytes() == WEIGHTS
    assert load_config(to / "fast3d.yaml").model.llm == to / "llm/vicuna-7b-v1.5"
    assert [a for a in vicuna.asked if not a["token"]] == []
    # Once: the second time nothing but the listing is asked for.
    vicuna.asked.clear()
    assert [o.state for o in get(to, "vicuna")] == ["there"]
    assert len(vicuna.asked) == 1
    assert plan_downloads([ITEMS["vicuna"]], to, None, print)[0].there == "all"


def test_safetensors_make_pytorch_s_twins_needless(vicuna, tmp_path):
    vicuna.repos["models/FacebookAI/roberta-base"] = {
        "config.json": b"{}", "model.safetensors": WEIGHTS, "pytorch_model.bin": WEIGHTS, "flax_model.msgpack": WEIGHTS,
        "vocab.json": b"{}", "merges.txt": b"", "tokenizer.json": b"{}",
    }  # fmt: skip
    (outcome,) = get(tmp_path, "roberta")
    names = ["config.json", "merges.txt", "model.safetensors", "tokenizer.json", "vocab.json"]
    assert there(tmp_path / "text_encoder/roberta-base") == names
    assert load_config(tmp_path / "fast3d.yaml").gap.text_encoder == outcome.path


def test_a_data_set_s_folder(hub, tmp_path):
    hub.repos["datasets/ZzZZCHS/Chat-Scene"] = {"annotations/a/b.json": b"[]", "annotations/c.pt": b"c", "data/d": b"d"}
    get(tmp_path, "annotations")
    assert there(tmp_path / "annotations") == ["a/b.json", "c.pt"]


def test_goes_on_after_a_cut(vicuna, tmp_path):
    """Within a run, and when the run ends: no byte is fetched twice."""
    vicuna.cut[RESOLVE] = [100_000]
    assert get(tmp_path, "vicuna")[0].state == "downloaded"
    assert vicuna.ranges(BIN) == [None, "bytes=100000-"]


def test_what_a_kill_left_when_all_was_in_place_is_removed(vicuna, tmp_path):
    get(tmp_path, "vicuna")
    (tmp_path / "llm/vicuna-7b-v1.5/.download-vicuna/0/parts").mkdir(parents=True)
    assert get(tmp_path, "vicuna")[0].state == "there"
    assert not (tmp_path / "llm/vicuna-7b-v1.5/.download-vicuna").exists()


def test_goes_on_in_the_next_run(vicuna, tmp_path, monkeypatch):
    vicuna.cut[RESOLVE] = [100_000, *[0] * 10]
    (outcome,) = get(tmp_path, "vicuna")
    assert outcome.state == "failed" and "run again" in outcome.problem and "\n" not in outcome.problem
    assert there(tmp_path / "llm") and not (tmp_path / "llm/vicuna-7b-v1.5/config.json").exists()  # staged only
    assert not (tmp_path / "fast3d.yaml").exists()
    vicuna.cut.clear()
    vicuna.asked.clear()
    assert get(tmp_path, "vicuna")[0].state == "downloaded"
    assert vicuna.ranges(BIN) == ["bytes=100000-"]
    assert vicuna.ranges("tokenizer.model") == []
    assert (tmp_path / "llm/vicuna-7b-v1.5" / BIN).read_bytes() == WEIGHTS
    assert there(tmp_path / "llm") == [name.removeprefix("llm/") for name in FILES]


@pytest.mark.parametrize(
    ("lie", "problem"), [({"sha256": "0" * 64}, "its checksum is not"), ({"size": 5}, "it has 300000 bytes, not 5")]
)
def test_wrong_content(vicuna, tmp_path, lie, problem):
    vicuna.lies[BIN] = lie
    (outcome,) = get(tmp_path, "vicuna")
    assert outcome.state == "failed" and problem in outcome.problem and "run again" in outcome.problem
    assert not (tmp_path / "llm/vicuna-7b-v1.5" / BIN).exists()
    vicuna.lies.clear()
    assert get(tmp_path, "vicuna")[0].state == "downloaded"


def test_wrong_content_of_a_small_file(vicuna, tmp_path, monkeypatch):
    """Those outside LFS have git's name of their content."""
    listing = HubFolder.listing

    def lying(self, revision, log):
        return [
            dataclasses.replace(file, digest="git:" + "0" * 40) if file.name == "config.json" else file
            for file in listing(self, revision, log)
        ]

    monkeypatch.setattr(HubFolder, "listing", lying)
    assert "config.json was fetched, but its checksum is not git:" in get(tmp_path, "vicuna")[0].problem


@pytest.mark.parametrize("prefix", ["/api/models/lmsys", RESOLVE])
def test_busy_is_asked_again(vicuna, tmp_path, prefix):
    vicuna.answers[prefix] = [429, 503, 429]
    assert get(tmp_path, "vicuna")[0].state == "downloaded"


def test_busy_for_too_long(vicuna, tmp_path):
    vicuna.answers["/api/models/lmsys"] = [-429]
    log = []
    (outcome,) = get(tmp_path, "vicuna", log=log.append)
    assert "busy (HTTP 429)" in outcome.problem and "run the same command later" in outcome.problem
    assert any("trying again in 0 s" in line for line in log)  # as Retry-After says


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("prefix", ["/api/models/lmsys", RESOLVE])
def test_refused(vicuna, tmp_path, status, prefix):
    vicuna.answers[prefix] = [-status]
    (outcome,) = get(tmp_path, "vicuna")
    assert f"HTTP {status}" in outcome.problem and "hf auth login" in outcome.problem and "HF_TOKEN" in outcome.problem
    assert f"{vicuna.url}/lmsys/vicuna-7b-v1.5" in outcome.problem and "\n" not in outcome.problem
    assert str(tmp_path / "llm/vicuna-7b-v1.5") in outcome.problem  # where to put it by hand


def test_not_there(vicuna, tmp_path):
    assert "not found (HTTP 404)" in get(tmp_path, "roberta")[0].problem
    vicuna.repos["models/FacebookAI/roberta-base"] = {"config.json": b"{}", "vocab.json": b"{}"}  # no weights
    assert "what is wanted is not there" in get(tmp_path, "roberta")[0].problem


@pytest.mark.parametrize("answer", [b"<html>Log in to the hotel's network</html>", b"[]", b"{}", b'{"siblings": [1]}'])
def test_no_answer_of_hugging_face(vicuna, tmp_path, answer):
    vicuna.instead["/api/models/lmsys"] = answer
    (outcome,) = get(tmp_path, "vicuna")
    assert outcome.state == "failed" and "\n" not in outcome.problem


def test_vanished_between_listing_and_fetching(vicuna, tmp_path):
    vicuna.answers[RESOLVE] = [-404]
    assert "HTTP 404" in get(tmp_path, "vicuna")[0].problem


def test_revision(vicuna, tmp_path):
    assert get(tmp_path, "vicuna", revision="v2")[0].state == "downloaded"
    assert any("/revision/v2" in asked["path"] for asked in vicuna.asked)
    with pytest.raises(UsageError, match="no such revision"):
        get(tmp_path, "vicuna", revision="v3")
    for names in (["vicuna", "roberta"], ["gap"]):
        with pytest.raises(UsageError, match="name one of vicuna"):
            get(tmp_path, *names, revision="v2")


def test_no_network(hub, tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    (outcome,) = get(tmp_path, "vicuna")
    assert "cannot be reached" in outcome.problem and "\n" not in outcome.problem
    assert plan_downloads([ITEMS["vicuna"]], tmp_path, None, print)[0].problem


def test_offline(vicuna, tmp_path, monkeypatch):
    """The cache of huggingface_hub is what offline mode has."""
    from huggingface_hub import constants, hf_hub_download

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in get(tmp_path / "a", "vicuna")[0].problem
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in VICUNA:
        hf_hub_download("lmsys/vicuna-7b-v1.5", name, cache_dir=tmp_path / "hub")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    vicuna.asked.clear()
    assert [o.problem for o in get(tmp_path / "a", "vicuna")] == [None]
    assert vicuna.asked == [] and (tmp_path / "a/llm/vicuna-7b-v1.5" / BIN).read_bytes() == WEIGHTS


def test_full_disk(vicuna, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_200_000))
    with pytest.raises(DataError, match=r"302\.\d kB are needed and 100\.2 MB of the disk are free"):
        get(tmp_path, "vicuna")
    assert not any("/resolve/" in asked["path"] for asked in vicuna.asked)


def test_disk_that_fills_up_is_no_fault_of_the_source(vicuna, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(OSError, match="No space"):
        get(tmp_path, "vicuna")


def test_a_user_s_files_stay(vicuna, tmp_path):
    mine = tmp_path / "llm/vicuna-7b-v1.5/config.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{'mine'}")
    (outcome,) = get(tmp_path, "vicuna")
    assert outcome.state == "failed" and str(mine) in outcome.problem and "move it away" in outcome.problem
    assert mine.read_text() == "{'mine'}" and there(mine.parent) == ["config.json"]
    mine.write_bytes(VICUNA["config.json"])
    assert plan_downloads([ITEMS["vicuna"]], tmp_path, None, print)[0].there == "1 of 4 files"
    assert get(tmp_path, "vicuna")[0].state == "downloaded"
    assert vicuna.ranges("/config.json") == []


@pytest.mark.parametrize("name", ["../x.json", "a/../../x.json", "a\\x.json", "x\0.json", "C:x.json"])
def test_hostile_names(hub, tmp_path, name):
    hub.repos["datasets/ZzZZCHS/Chat-Scene"] = {f"annotations/{name}": b"x"}
    assert "leaves its folder" in get(tmp_path / "to", "annotations")[0].problem
    assert not there(tmp_path)


def test_one_that_fails_does_not_stop_the_next(vicuna, tmp_path):
    assert [o.state for o in get(tmp_path, "roberta", "vicuna")] == ["failed", "downloaded"]


def test_a_bad_config_is_told_first(vicuna, tmp_path):
    (tmp_path / "fast3d.yaml").write_text("modle: {}")
    with pytest.raises(UsageError, match="did you mean"):
        get(tmp_path, "vicuna")
    assert not any("/resolve/" in asked["path"] for asked in vicuna.asked)


def test_another_download_into_the_same_folder_is_refused(vicuna, tmp_path):
    first = download([ITEMS["vicuna"]], tmp_path, None, lambda _: None)
    with sole_use(tmp_path), pytest.raises(UsageError, match="in use by another fast3d command.*--to DIR"):
        next(first)
    assert there(tmp_path) == [] and not vicuna.asked
